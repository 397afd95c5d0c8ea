//! An attack and how strong it is, as experiments name it: `alie`, or `alie=1` for another strength than the usual.

use std::fmt;
use std::str::FromStr;

use super::{Attack, UnknownAttack};

/// An attack, and its strength where it is not the usual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lie {
    /// The attack.
    pub attack: Attack,
    /// What [`Means::strength`](super::Means::strength) is to be.
    pub strength: Option<f32>,
}

/// A text that is no attack with or without a strength.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownLie {
    /// There is no attack of that name.
    #[error(transparent)]
    Attack(#[from] UnknownAttack),
    /// It has nothing that could be stronger.
    #[error("{0} has no strength: expected it without =")]
    None(Attack),
    /// The strength is no number above 0.
    #[error("{attack}={strength}: expected a number above 0, such as {attack}={}", .attack.strength().unwrap_or(1.0))]
    Number {
        /// The attack.
        attack: Attack,
        /// What was found.
        strength: String,
    },
}

impl FromStr for Lie {
    type Err = UnknownLie;

    fn from_str(text: &str) -> Result<Lie, UnknownLie> {
        let Some((name, strength)) = text.split_once('=') else {
            return Ok(Lie { attack: text.parse()?, strength: None });
        };
        let attack: Attack = name.parse()?;
        if attack.strength().is_none() {
            return Err(UnknownLie::None(attack));
        }
        match strength.parse() {
            Ok(number) if number > 0.0 && f32::is_finite(number) => Ok(Lie { attack, strength: Some(number) }),
            _ => Err(UnknownLie::Number { attack, strength: strength.into() }),
        }
    }
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.strength {
            None => write!(f, "{}", self.attack),
            Some(strength) => write!(f, "{}={strength}", self.attack),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lies_are_parsed_and_printed_alike() {
        for text in ["alie", "alie=1", "ipm=0.1", "nan"] {
            assert_eq!(text.parse::<Lie>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_lie_is_refused_with_what_is_expected() {
        let refused = |text: &str| text.parse::<Lie>().unwrap_err().to_string();
        assert!(refused("aly").contains("alie"), "{}", refused("aly"));
        assert_eq!(refused("nan=2"), "nan has no strength: expected it without =");
        for text in ["alie=", "alie=much", "alie=-1", "alie=NaN", "alie=inf"] {
            assert!(refused(text).ends_with("expected a number above 0, such as alie=1.5"), "{}", refused(text));
        }
    }
}
