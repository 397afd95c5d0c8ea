//! The configuration file, laid over the defaults.

use super::layers::Layers;
use super::nearest::nearest;
use super::problem::{Place, Problem, quote};
use super::value::describe;
use crate::daemon::settings::{SECTIONS, SETTINGS, Setting};
use std::ops::Range;
use std::path::Path;
use toml_edit as toml;

/// The most syntax errors that are looked for in one file: each costs to parse it again.
const SYNTAX_MAX: usize = 16;

/// A file that was read, to find places in it.
pub(super) struct File<'a> {
    path: &'a Path,
    text: &'a str,
    document: Option<toml::Document<String>>,
    /// Has it syntax errors? Then what is missing in it may only be unreadable.
    pub damaged: bool,
}

impl<'a> File<'a> {
    /// Lays the settings of the file over `layers`.
    pub fn read(path: &'a Path, text: &'a str, layers: &mut Layers, problems: &mut Vec<Problem>) -> File<'a> {
        let mut file = File { path, text, document: None, damaged: false };
        file.document = file.parse(problems);
        for (name, item) in file.document.iter().flat_map(|document| document.iter()) {
            match item.as_table_like() {
                Some(table) if SECTIONS.iter().any(|section| section.name == name) => {
                    file.section(name, table, layers, problems);
                }
                _ => problems.push(file.not_a_section(name, item)),
            }
        }
        file
    }

    /// Where a missing setting belongs: the line of its section, or the first one.
    pub fn place_of_missing(&self, setting: &Setting) -> Place {
        let table = self.document.as_ref().and_then(|document| document.as_table().get_key_value(setting.section));
        self.place(table.and_then(|(key, item)| item.span().or(key.span())))
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        let start = span.map_or(0, |span| span.start.min(self.text.len()));
        let line = 1 + self.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
        Place::File { path: self.path.display().to_string(), line }
    }

    fn section(&self, section: &str, table: &dyn toml::TableLike, layers: &mut Layers, problems: &mut Vec<Problem>) {
        for (name, item) in table.iter() {
            let key_span = table.get_key_value(name).and_then(|(key, _)| key.span());
            let setting = SETTINGS.iter().find(|setting| setting.section == section && setting.key == name);
            match (setting, item.as_value()) {
                (Some(setting), Some(raw)) => {
                    let locate = |span: Option<Range<usize>>| self.place(span.or(key_span.clone()));
                    layers.set(setting, raw, locate, problems);
                }
                (Some(setting), None) => problems.push(Problem {
                    place: self.place(key_span.or(item.span())),
                    object: setting.name(),
                    found: "a table".into(),
                    expected: setting.kind.expects(),
                    action: super::value::in_the_file(setting),
                }),
                (None, _) => problems.push(Problem {
                    place: self.place(key_span.or(item.span())),
                    object: format!("[{section}]"),
                    found: format!("the unknown key {}", quote(name)),
                    expected: format!("a setting of [{section}]"),
                    action: elsewhere(name, section),
                }),
            }
        }
    }

    fn not_a_section(&self, name: &str, item: &toml::Item) -> Problem {
        let key = self.document.as_ref().and_then(|document| document.as_table().get_key_value(name));
        let names = SECTIONS.iter().map(|section| section.name);
        let (found, action) = match item {
            toml::Item::Value(raw) if !raw.is_inline_table() => {
                let action = match SECTIONS.iter().any(|section| section.name == name) {
                    true => format!("write [{name}] on a line of its own, and its settings below"),
                    false => elsewhere(name, ""),
                };
                (format!("{} = {} outside of a section", quote(name), describe(raw)), action)
            }
            toml::Item::ArrayOfTables(_) => {
                (format!("[[{name}]]"), format!("write [{}], once", nearest(name, names).unwrap_or("section")))
            }
            _ => {
                let known = nearest(name, names);
                let action = known.map_or("remove it".into(), |known| format!("did you mean [{known}]?"));
                (format!("the unknown section {}", quote(name)), action)
            }
        };
        let names: Vec<String> = SECTIONS.iter().map(|section| format!("[{}]", section.name)).collect();
        Problem {
            place: self.place(key.and_then(|(key, _)| key.span()).or(item.span())),
            object: "the file".into(),
            found,
            expected: format!("one of {}", names.join(" ")),
            action,
        }
    }

    /// Parses the file. The parser stops at the first syntax error; so that all are found, the line with the error is
    /// blanked (after a broken header all lines up to the next one, as they would go to the wrong section) and the rest
    /// parsed again. Line numbers stay what they are.
    fn parse(&mut self, problems: &mut Vec<Problem>) -> Option<toml::Document<String>> {
        let mut text = self.text.to_owned();
        let mut last = None;
        for _ in 0..SYNTAX_MAX {
            let error = match toml::Document::parse(text.clone()) {
                Ok(document) => return Some(document),
                Err(error) => error,
            };
            self.damaged = true;
            let at = error.span().map_or(0, |span| span.start);
            let lines = broken_lines(&text, at);
            // An array or text that is never closed is found at the end again and again, until its beginning is blank.
            if last != Some(at) {
                last = Some(at);
                problems.push(Problem {
                    place: self.place(Some(at..at)),
                    object: "syntax".into(),
                    found: quote(text[lines.clone()].lines().next().unwrap_or("").trim()),
                    expected: format!("TOML ({})", error.message()),
                    action: "correct the line; `solond --example-config` shows how settings are written".into(),
                });
            }
            if lines.is_empty() {
                return None;
            }
            let blank: String = text[lines.clone()].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            // Spaces are shorter than what they replace where that was not ASCII: fill up, so that spans stay right.
            let missing = lines.len() - blank.len();
            text.replace_range(lines, &(" ".repeat(missing) + &blank));
        }
        None
    }
}

/// The lines to blank for a syntax error at byte `at`; empty if nothing but blanks is left before it.
fn broken_lines(text: &str, at: usize) -> Range<usize> {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let line_end = text[at..].find('\n').map_or(text.len(), |end| at + end);
    // The line of the error, or the last one before it that is not blank.
    let end = text[..line_end].trim_end_matches([' ', '\n']).len();
    let start = text[..end].rfind('\n').map_or(0, |start| start + 1);
    if !text[start..end].trim_start().starts_with('[') {
        return start..end;
    }
    let next = text[end..].match_indices('\n').find(|(at, _)| text[end + at..].trim_start().starts_with('['));
    start..next.map_or(text.len(), |(at, _)| end + at)
}

/// What to do with a key that its section does not have.
fn elsewhere(name: &str, section: &str) -> String {
    let homes: Vec<String> =
        SETTINGS.iter().filter(|other| other.key == name).map(|other| format!("[{}]", other.section)).collect();
    if !homes.is_empty() {
        return format!("it belongs under {}", homes.join(" or "));
    }
    let own = SETTINGS.iter().filter(|other| other.section == section).map(|other| other.key);
    if let Some(key) = nearest(name, own) {
        return format!("did you mean {key}?");
    }
    match nearest(name, SETTINGS.iter().map(|other| other.key)) {
        Some(key) => format!("did you mean {key}, under [{}]?", home(key)),
        None => "remove it".into(),
    }
}

fn home(key: &str) -> &'static str {
    SETTINGS.iter().find(|other| other.key == key).map_or("", |other| other.section)
}
