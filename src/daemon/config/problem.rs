//! What is wrong with a configuration, said so that the operator knows what to do.

use std::fmt;

/// Where a value, or what is wrong with it, stands. Later ones win over earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Nowhere: nobody set it.
    Default,
    /// In the configuration file.
    File {
        /// The file as it was named.
        path: String,
        /// The line, counted from 1.
        line: usize,
    },
    /// In this environment variable.
    Environment(String),
    /// In this flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => write!(f, "default"),
            Place::File { path, line } => write!(f, "{path}:{line}"),
            Place::Environment(name) => write!(f, "environment {name}"),
            Place::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong, or, as a warning, probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The setting, section or file that is concerned.
    pub object: String,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
    /// How to put it right.
    pub action: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != Place::Default {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{}: found {}, expected {}; {}", self.object, self.found, self.expected, self.action)
    }
}

const QUOTE_MAX: usize = 60;

/// `text` in quotes, escaped and cut to a length that fits into a message.
pub(super) fn quote(text: &str) -> String {
    if text.chars().count() <= QUOTE_MAX {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(QUOTE_MAX).collect();
    format!("{head:?}...")
}
