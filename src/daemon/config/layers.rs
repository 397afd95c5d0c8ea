//! What holds for each setting after defaults, file, environment and flags were laid over one another.

use super::nearest::nearest;
use super::problem::{Place, Problem, quote};
use super::value::{self, Mismatch, Value};
use crate::daemon::settings::{DefaultValue, SETTINGS, Setting};
use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;
use toml_edit as toml;

/// One setting, with what the last layer that has it says.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub setting: &'static Setting,
    /// `None` if that layer has a value which is not allowed.
    pub value: Option<Value>,
    pub place: Place,
}

/// All settings, in the order of the table.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    entries: Vec<Entry>,
}

impl Layers {
    /// The defaults.
    pub fn new() -> Layers {
        let entry = |setting: &'static Setting| {
            let value = match setting.default {
                DefaultValue::Value(text) => text.parse().ok().and_then(|raw| value::read(setting, &raw).ok()),
                DefaultValue::Unset(_) | DefaultValue::Required(_) => Some(Value::Unset),
            };
            Entry { setting, value, place: Place::Default }
        };
        Layers { entries: SETTINGS.iter().map(entry).collect() }
    }

    /// Every setting with its value and where that comes from.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The setting `section.key`, if there is one.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        let (section, key) = name.split_once('.')?;
        self.entries.iter().find(|entry| entry.setting.section == section && entry.setting.key == key)
    }

    /// Lays `raw` over what holds so far for `setting`. `locate` gives the place of a span of the file.
    pub fn set(
        &mut self,
        setting: &Setting,
        raw: &toml::Value,
        locate: impl Fn(Option<Range<usize>>) -> Place,
        problems: &mut Vec<Problem>,
    ) {
        let value = match value::read(setting, raw) {
            Ok(value) => Some(value),
            Err(wrong) => {
                problems.extend(wrong.into_iter().map(|Mismatch { span, found, expected, action }| Problem {
                    place: locate(span),
                    object: setting.name(),
                    found,
                    expected,
                    action,
                }));
                None
            }
        };
        let place = locate(raw.span());
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.setting.name() == setting.name()) {
            (entry.value, entry.place) = (value, place);
        }
    }

    /// What holds for a setting if nobody sets it.
    pub fn set_default(&mut self, name: &str, value: Value) {
        let entry = self.entries.iter_mut().find(|entry| entry.setting.name() == name);
        if let Some(entry) = entry.filter(|entry| entry.place == Place::Default) {
            entry.value = Some(value);
        }
    }

    /// Lays a flag's text over what holds so far.
    pub fn set_flag(&mut self, setting: &Setting, text: &str, problems: &mut Vec<Problem>) {
        let place = Place::Flag(format!("--{}", setting.flag()));
        self.set(setting, &value::from_text(setting, text), |_| place.clone(), problems);
    }

    /// Lays the environment over what holds so far. Variables that are not settings but look like some become warnings.
    pub fn set_environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) {
        for (name, text) in variables {
            let Some(name) = name.to_str().filter(|name| name.to_uppercase().starts_with("SOLON_")) else { continue };
            let place = Place::Environment(name.into());
            match (SETTINGS.iter().find(|setting| setting.environment() == name), text.to_str()) {
                (Some(setting), Some(text)) => {
                    self.set(setting, &value::from_text(setting, text), |_| place.clone(), problems);
                }
                (Some(setting), None) => problems.push(Problem {
                    place,
                    object: setting.name(),
                    found: quote(&text.to_string_lossy()),
                    expected: "UTF-8".into(),
                    action: value::in_the_file(setting),
                }),
                (None, _) => warnings.extend(stray(name, place)),
            }
        }
    }

    /// Notes every setting that must be set but is not.
    pub fn require(&self, locate: impl Fn(&Setting) -> Place, path: Option<&Path>, problems: &mut Vec<Problem>) {
        for Entry { setting, value, .. } in &self.entries {
            if let (DefaultValue::Required(_), Some(Value::Unset)) = (setting.default, value) {
                let file = path.map_or("a file given with --config".into(), |path| path.display().to_string());
                problems.push(Problem {
                    place: locate(setting),
                    object: setting.name(),
                    found: "no value".into(),
                    expected: setting.kind.expects(),
                    action: format!(
                        "{} under [{}] in {file}, or give --{} or {}",
                        value::in_the_file(setting),
                        setting.section,
                        setting.flag(),
                        setting.environment()
                    ),
                });
            }
        }
    }
}

/// The warning about a variable that no setting has, if it looks as if one was meant.
fn stray(name: &str, place: Place) -> Option<Problem> {
    let known = nearest(name, SETTINGS.iter().map(Setting::environment));
    let in_a_section = SETTINGS.iter().any(|setting| {
        name.to_uppercase().strip_prefix("SOLON_").is_some_and(|rest| {
            rest.strip_prefix(&setting.section.to_uppercase()).is_some_and(|rest| rest.starts_with('_'))
        })
    });
    (in_a_section || known.is_some()).then(|| Problem {
        place,
        object: "variable".into(),
        found: "a name that no setting has".into(),
        expected: "SOLON_<SECTION>_<KEY> in capitals".into(),
        action: known
            .map_or("it is ignored: remove it".into(), |known| format!("it is ignored: did you mean {known}?")),
    })
}
