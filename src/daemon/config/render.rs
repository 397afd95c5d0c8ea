//! The table and the configuration as text: the example file, the docs page, what `--print-config` and `--check-config`
//! print.

use super::layers::Entry;
use super::value::to_toml;
use super::{Config, Rule};
use crate::daemon::settings::{Applied, DefaultValue, Kind, SECTIONS, SETTINGS, Section, Setting};
use std::fmt::Write;

const WIDTH: usize = 100;

/// A commented configuration file: every setting with its docs and, commented out, its default.
pub fn example_config() -> String {
    let mut page = String::from(
        "# Configuration of solond. Lines that begin with '#' and a setting show its default: remove the '#' to change it.\n\
         # The environment (SOLON_<SECTION>_<KEY>) wins over this file, flags (--section-key) win over both.\n\
         # Check with: solond --config FILE --check-config\n\
         # A change needs a restart, unless its setting says that a reload (SIGHUP) applies it.\n",
    );
    for (section, settings) in sections() {
        write_line(&mut page, format_args!("\n# {}\n[{}]", section.help, section.name));
        for setting in settings {
            page.push('\n');
            let takes = match setting.unit {
                "" => setting.kind.expects(),
                unit => format!("{} ({unit})", setting.kind.expects()),
            };
            let reload = match setting.applied {
                Applied::OnReload => " A change is applied by a reload.",
                Applied::AtStart => "",
            };
            comment(&mut page, &format!("{}. {} Takes {takes}.{reload}", setting.help, setting.doc));
            match setting.default {
                DefaultValue::Value(text) => write_line(&mut page, format_args!("#{} = {text}", setting.key)),
                DefaultValue::Required(text) => {
                    comment(&mut page, "Must be set; for example:");
                    write_line(&mut page, format_args!("#{} = {text}", setting.key));
                }
                DefaultValue::Unset(text) => {
                    comment(&mut page, &format!("Not set by default; for example: {} = {text}", setting.key))
                }
            }
        }
    }
    page
}

/// All settings as Markdown: a heading and a table per section, for the docs.
pub fn settings_markdown() -> String {
    let mut page = String::new();
    for (section, settings) in sections() {
        write_line(&mut page, format_args!("### `[{}]`\n\n{}\n", section.name, section.help));
        page.push_str("| Key | Takes | Default | Reload | Meaning |\n|---|---|---|:-:|---|\n");
        for setting in settings {
            let unit = if setting.unit.is_empty() { String::new() } else { format!(" ({})", setting.unit) };
            let default = match setting.default {
                DefaultValue::Value(text) => format!("`{text}`"),
                DefaultValue::Unset(_) => "not set".into(),
                DefaultValue::Required(_) => "must be set".into(),
            };
            let words = match setting.kind {
                Kind::Choice(values) => values()
                    .iter()
                    .map(|word| {
                        let help = word.get_help().map(|help| help.to_string()).unwrap_or_default();
                        format!(" `{}`: {}.", word.get_name(), in_a_sentence(&help))
                    })
                    .collect(),
                _ => String::new(),
            };
            let reload = match setting.applied {
                Applied::OnReload => "yes",
                Applied::AtStart => "",
            };
            let takes = format!("{}{unit}", setting.kind.expects()).replace('|', "\\|");
            let meaning = format!("{}. {}{words}", setting.help, setting.doc).replace('|', "\\|");
            write_line(&mut page, format_args!("| `{}` | {takes} | {default} | {reload} | {meaning} |", setting.key));
        }
        page.push('\n');
    }
    page
}

/// A text without the capital it begins with, unless that belongs to its first word.
fn in_a_sentence(text: &str) -> String {
    let mut rest = text.chars();
    match (rest.next(), rest.clone().next()) {
        (Some(first), second) if !second.is_some_and(char::is_uppercase) => first.to_lowercase().chain(rest).collect(),
        _ => text.into(),
    }
}

/// A file that means the same as these entries, with where each comes from.
pub(super) fn print(entries: &[Entry]) -> String {
    let mut page = String::new();
    for Section { name, .. } in SECTIONS {
        write_line(&mut page, format_args!("[{name}]"));
        for Entry { setting, value, place } in entries.iter().filter(|entry| entry.setting.section == *name) {
            let line = match value.as_ref().and_then(to_toml) {
                Some(text) => format!("{} = {text}", setting.key),
                None => format!("# {} is not set", setting.key),
            };
            // A file can be named with a line break, which would end the comment.
            let place: String = place.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            write_line(&mut page, format_args!("{line:<40} # {place}"));
        }
        page.push('\n');
    }
    page
}

/// One line on a configuration that is right.
pub(super) fn summary(config: &Config) -> String {
    let parameters = &config.job.parameters;
    let (workers, groups, redundancy) = (parameters.workers(), parameters.groups(), parameters.redundancy());
    let corrects = match config.job.rule {
        Rule::Solon | Rule::Draco => {
            format!("corrects {} liars and {} stragglers per group", parameters.adversaries(), parameters.stragglers())
        }
        Rule::MEAN => "a plain mean that corrects nothing".into(),
        rule => {
            let robust = config.job.robust.as_ref().map_or((0, 0), |robust| (robust.adversaries, robust.missing));
            format!("{} against {} liars, {} may be missing", rule.name(), robust.0, robust.1)
        }
    };
    format!(
        "the configuration is right: job {:?}, {workers} workers in {groups} groups of {redundancy}, {corrects}; {} numbers \
         in {} chunk{}\n",
        config.job.name,
        config.job.dimension,
        config.layout().chunks(),
        if config.layout().chunks() == 1 { "" } else { "s" }
    )
}

fn sections() -> impl Iterator<Item = (&'static Section, impl Iterator<Item = &'static Setting>)> {
    SECTIONS.iter().map(|section| (section, SETTINGS.iter().filter(move |setting| setting.section == section.name)))
}

fn write_line(page: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(page, "{line}").expect("a string takes everything");
}

/// `text` as comment lines of at most [`WIDTH`] characters.
fn comment(page: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH && line.len() > 1 {
            write_line(page, format_args!("{line}"));
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    write_line(page, format_args!("{line}"));
}
