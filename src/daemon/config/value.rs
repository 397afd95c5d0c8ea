//! One value against its row of the table: a TOML value becomes a [`Value`], or the reasons why not.

use super::nearest::nearest;
use super::problem::quote;
use super::{CoreMap, Stage};
use crate::daemon::settings::{DefaultValue, Kind, Setting};
use crate::transport::rdma::DeviceList;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use toml_edit as toml;

/// A value that its row of the table allows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Of [`Kind::Name`] and [`Kind::Choice`].
    Text(String),
    /// Of [`Kind::Integer`] and [`Kind::OneOf`].
    Integer(u64),
    /// Of [`Kind::Factor`] and [`Kind::Fraction`].
    Real(f32),
    /// Of [`Kind::Switch`].
    Switch(bool),
    /// Of [`Kind::Address`].
    Address(SocketAddr),
    /// Of [`Kind::Path`].
    Path(PathBuf),
    /// Of [`Kind::Cores`].
    Cores(CoreMap),
    /// Of [`Kind::Devices`].
    Devices(DeviceList),
    /// Of [`Kind::Weights`].
    Weights(Vec<f32>),
    /// Nothing, where that is allowed.
    Unset,
}

/// Why a value is not allowed.
#[derive(Debug, PartialEq)]
pub(super) struct Mismatch {
    /// The bytes of the file that are meant, if it came from a file.
    pub span: Option<Range<usize>>,
    pub found: String,
    pub expected: String,
    pub action: String,
}

/// The most cores a map may have.
const CORES_MAX: usize = 256;

/// What `text` from the environment or a flag means: written as in the file, but without quotes around words.
pub(super) fn from_text(setting: &Setting, text: &str) -> toml::Value {
    match setting.kind {
        Kind::Name | Kind::Choice(_) | Kind::Address | Kind::Path | Kind::Devices => text.into(),
        Kind::Integer { .. }
        | Kind::OneOf(_)
        | Kind::Factor
        | Kind::Fraction
        | Kind::Switch
        | Kind::Cores
        | Kind::Weights => text.trim().parse().unwrap_or_else(|_| text.into()),
    }
}

/// Checks `raw` against the row of its setting. An empty text means that nothing is set, where that is allowed.
pub(super) fn read(setting: &Setting, raw: &toml::Value) -> Result<Value, Vec<Mismatch>> {
    if raw.as_str() == Some("") && matches!(setting.default, DefaultValue::Unset(_)) {
        return Ok(Value::Unset);
    }
    let one = match setting.kind {
        Kind::Name => name(raw),
        Kind::Integer { min, max } => integer(raw, min, max),
        Kind::OneOf(numbers) => one_of(raw, numbers),
        Kind::Factor => real(raw, |number| number != 0.0),
        Kind::Fraction => real(raw, |number| number > 0.0 && number < 1.0),
        Kind::Switch => raw.as_bool().map(Value::Switch).ok_or(None),
        Kind::Choice(values) => choice(raw, values().iter().map(|value| value.get_name())),
        Kind::Address => raw.as_str().and_then(|text| text.parse().ok()).map(Value::Address).ok_or(None),
        Kind::Path => raw.as_str().filter(|t| !t.is_empty()).map(|text| Value::Path(text.into())).ok_or(None),
        Kind::Cores => return cores(setting, raw).map(Value::Cores),
        Kind::Devices => devices(raw),
        Kind::Weights => weights(raw),
    };
    one.map_err(|action| {
        let action = action.or_else(|| quotes(setting, raw)).unwrap_or_else(|| in_the_file(setting));
        vec![Mismatch { span: raw.span(), found: describe(raw), expected: setting.kind.expects(), action }]
    })
}

/// What to do when there is nothing more exact to be said.
pub(super) fn in_the_file(setting: &Setting) -> String {
    let (DefaultValue::Value(text) | DefaultValue::Unset(text) | DefaultValue::Required(text)) = setting.default;
    format!("write it like {} = {text}", setting.key)
}

/// The value as it is written in the file; `None` for nothing.
pub(super) fn to_toml(value: &Value) -> Option<String> {
    let text = |text: &str| toml::Value::from(text).to_string();
    Some(match value {
        Value::Text(word) => text(word),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => format!("{number:?}"),
        Value::Switch(on) => on.to_string(),
        Value::Address(address) => text(&address.to_string()),
        Value::Path(path) => text(&path.to_string_lossy()),
        Value::Cores(CoreMap::Auto) => text("auto"),
        Value::Cores(CoreMap::Fixed(cores)) => {
            let core = |stages: &Vec<Stage>| stages.iter().map(|stage| stage.name()).collect::<toml::Array>();
            cores.iter().map(core).collect::<toml::Array>().to_string()
        }
        Value::Devices(list) => text(&list.to_string()),
        Value::Weights(weights) => weights.iter().map(|weight| f64::from(*weight)).collect::<toml::Array>().to_string(),
        Value::Unset => return None,
    })
}

/// The type and the text of a value, for messages.
pub(super) fn describe(raw: &toml::Value) -> String {
    match raw {
        toml::Value::String(text) => format!("the text {}", quote(text.value())),
        toml::Value::Integer(number) => number.value().to_string(),
        toml::Value::Float(number) => format!("{:?}", number.value()),
        toml::Value::Boolean(on) => on.value().to_string(),
        toml::Value::Datetime(date) => format!("the date {}", date.value()),
        toml::Value::Array(array) => format!("an array of {}", array.len()),
        toml::Value::InlineTable(table) => format!("a table of {}", table.len()),
    }
}

/// A hint for the commonest slip: quotes where none belong, or none where some do.
fn quotes(setting: &Setting, raw: &toml::Value) -> Option<String> {
    match (raw, setting.kind) {
        (
            toml::Value::String(text),
            Kind::Integer { .. } | Kind::OneOf(_) | Kind::Factor | Kind::Fraction | Kind::Switch,
        ) => {
            let bare: toml::Value = text.value().trim().parse().ok()?;
            let fits = bare.as_str().is_none() && read(setting, &bare).is_ok();
            fits.then(|| format!("write it without quotes: {} = {}", setting.key, text.value().trim()))
        }
        (toml::Value::Integer(_) | toml::Value::Boolean(_), Kind::Name) => {
            Some(format!("write it in quotes: {} = \"{}\"", setting.key, raw.clone().decorated("", "")))
        }
        _ => None,
    }
}

type Checked = Result<Value, Option<String>>;

fn name(raw: &toml::Value) -> Checked {
    let text = raw.as_str().ok_or(None)?;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        return Ok(Value::Text(text.into()));
    }
    let better: String = text.to_lowercase().chars().map(|c| if fits(c) { c } else { '-' }).take(64).collect();
    Err((!better.is_empty()).then(|| format!("write for example {better:?}")))
}

fn integer(raw: &toml::Value, min: u64, max: u64) -> Checked {
    let number = raw.as_integer().ok_or(None)?;
    match u64::try_from(number) {
        Ok(number) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
        Ok(number) if number > max => Err(Some(format!("use at most {max}"))),
        _ => Err(Some(format!("use at least {min}"))),
    }
}

fn one_of(raw: &toml::Value, numbers: &[u64]) -> Checked {
    let number = raw.as_integer().ok_or(None)?;
    match u64::try_from(number).ok().filter(|number| numbers.contains(number)) {
        Some(number) => Ok(Value::Integer(number)),
        None => Err(None),
    }
}

fn devices(raw: &toml::Value) -> Checked {
    let list = raw.as_str().ok_or(None)?.parse::<DeviceList>();
    list.map(Value::Devices).map_err(|error| Some(format!("correct {}", error.found)))
}

fn weights(raw: &toml::Value) -> Checked {
    let list = raw.as_array().filter(|list| !list.is_empty()).ok_or(None)?;
    let weight = |raw: &toml::Value| match real(raw, |weight| weight > 0.0) {
        Ok(Value::Real(weight)) => Some(weight),
        _ => None,
    };
    list.iter().map(weight).collect::<Option<_>>().map(Value::Weights).ok_or(None)
}

fn real(raw: &toml::Value, fits: fn(f32) -> bool) -> Checked {
    let number = raw.as_float().or_else(|| raw.as_integer().map(|number| number as f64)).ok_or(None)? as f32;
    if number.is_finite() && fits(number) { Ok(Value::Real(number)) } else { Err(None) }
}

fn choice<'a>(raw: &toml::Value, words: impl Iterator<Item = &'a str>) -> Checked {
    let text = raw.as_str().ok_or(None)?;
    let words: Vec<&str> = words.collect();
    if words.contains(&text) {
        return Ok(Value::Text(text.into()));
    }
    Err(nearest(text, words).map(|word| format!("did you mean {word:?}?")))
}

/// `"auto"`, or the stages of each core; everything that is wrong with them at once.
fn cores(setting: &Setting, raw: &toml::Value) -> Result<CoreMap, Vec<Mismatch>> {
    let mismatch = |raw: &toml::Value, found: String, expected: &str, action: String| Mismatch {
        span: raw.span(),
        found,
        expected: expected.into(),
        action,
    };
    let example = "write for example map = [[\"receive\", \"assemble\"], [\"decode\"], [\"push\"]]";
    if raw.as_str() == Some("auto") {
        return Ok(CoreMap::Auto);
    }
    let Some(outer) = raw.as_array().filter(|cores| (1..=CORES_MAX).contains(&cores.len())) else {
        return Err(vec![mismatch(raw, describe(raw), &setting.kind.expects(), example.into())]);
    };
    let mut wrong = Vec::new();
    let mut cores = Vec::new();
    for inner in outer {
        let mut stages = Vec::new();
        for raw in inner.as_array().into_iter().flatten() {
            match Stage::ALL.into_iter().find(|stage| raw.as_str() == Some(stage.name())) {
                Some(stage) if stages.contains(&stage) => {
                    let found = format!("{:?} twice on one core", stage.name());
                    wrong.push(mismatch(raw, found, "each stage at most once per core", "remove one".into()));
                }
                Some(stage) => stages.push(stage),
                None => {
                    let known = nearest(raw.as_str().unwrap_or(""), Stage::ALL.map(Stage::name));
                    let action = known.map_or(example.into(), |word| format!("did you mean {word:?}?"));
                    wrong.push(mismatch(raw, describe(raw), "receive, assemble, decode or push", action));
                }
            }
        }
        if inner.as_array().is_none_or(|stages| stages.is_empty()) {
            wrong.push(mismatch(inner, describe(inner), "an array of at least one stage", example.into()));
        }
        cores.push(stages);
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let count = |stage| cores.iter().flatten().filter(|other| **other == stage).count();
    for stage in [Stage::Receive, Stage::Assemble, Stage::Push].into_iter().filter(|stage| count(*stage) != 1) {
        let found = format!("{:?} {} times", stage.name(), count(stage));
        wrong.push(mismatch(raw, found, "it exactly once in the whole map", example.into()));
    }
    if count(Stage::Decode) == 0 {
        wrong.push(mismatch(raw, "\"decode\" 0 times".into(), "it at least once in the whole map", example.into()));
    }
    if wrong.is_empty() { Ok(CoreMap::Fixed(cores)) } else { Err(wrong) }
}
