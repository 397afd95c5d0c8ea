//! The liars: what a worker sends instead of the truth. Used by tests, simulation and demonstration.
//!
//! A lie enters at one of three places, and each attack at exactly one of them ([`Attack::place`]); a worker that calls
//! all three for every attack lies as it should:
//!
//! ```text
//! gradient ──(liar.gradient)──> encode with row (liar.row) ──> shard ──(liar.shard)──> send
//! ```
//!
//! The code is linear, so a lie about the gradient that all liars of a group tell is a *code word*: they agree with each
//! other, as colluders should, whatever their rows are. Lies about shards are no code words.
//!
//! **What a liar knows.** Its own honest gradient, which is also that of everybody in its group; its own earlier rounds; a
//! seed shared by all liars. It does not see other groups' gradients. Attacks that need their mean and deviation (`alie`,
//! `ipm`) take its own gradient for the mean, and for the deviation the change since its last round over sqrt(2): the
//! deviation of two draws of a batch at nearly the same weights. [`Liar::gradient_among`] is for simulations
//! where the liars know everything.

mod liar;

use std::fmt;
use std::str::FromStr;

pub use liar::{Liar, Means};

/// A way to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attack {
    /// -100 times the gradient.
    Reverse,
    /// A shard of -100.
    Constant,
    /// A shard of noise.
    Gaussian,
    /// The gradient negated.
    SignFlip,
    /// A shard of zeros.
    Zero,
    /// A shard of NaN.
    Nan,
    /// "A little is enough" (arXiv 1902.06156): mean plus 1.5 deviations.
    Alie,
    /// Inner product manipulation, "fall of empires" (arXiv 1903.03936): minus half the mean.
    Ipm,
    /// Another worker's row of the code (arXiv 2006.09365 in spirit: copy somebody honest).
    Mimic,
    /// Last round's shard.
    Replay,
    /// One exponent bit of one element.
    BitFlip,
    /// One wrong code word that all liars of a group agree on.
    Collude,
    /// An error that stays under the tolerance.
    Threshold,
}

/// Where an attack enters; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LiePlace {
    /// In the gradient, before it is encoded.
    Gradient,
    /// In the choice of the row to encode with.
    Row,
    /// In the encoded shard.
    Shard,
}

/// There is no attack of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not an attack: choose one of {}", Attack::ALL.map(Attack::name).join(", "))]
pub struct UnknownAttack {
    /// What was asked for.
    pub name: String,
}

impl Attack {
    /// Every attack, in the order of the enumeration.
    pub const ALL: [Attack; 13] = [
        Attack::Reverse,
        Attack::Constant,
        Attack::Gaussian,
        Attack::SignFlip,
        Attack::Zero,
        Attack::Nan,
        Attack::Alie,
        Attack::Ipm,
        Attack::Mimic,
        Attack::Replay,
        Attack::BitFlip,
        Attack::Collude,
        Attack::Threshold,
    ];

    /// The name in settings, as it is parsed and printed.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// What a liar does, in one line that completes "each liar ...".
    pub fn description(self) -> &'static str {
        self.entry().2
    }

    /// The one place where the attack enters.
    pub fn place(self) -> LiePlace {
        self.entry().1
    }

    /// The table of attacks: name, place, description.
    fn entry(self) -> (&'static str, LiePlace, &'static str) {
        use LiePlace::{Gradient, Row, Shard};
        match self {
            Attack::Reverse => ("reverse", Gradient, "sends -100 times its gradient"),
            Attack::Constant => ("constant", Shard, "sends -100 in every element"),
            Attack::Gaussian => ("gaussian", Shard, "sends noise of standard deviation 200"),
            Attack::SignFlip => ("sign-flip", Gradient, "sends its gradient negated"),
            Attack::Zero => ("zero", Shard, "sends zeros"),
            Attack::Nan => ("nan", Shard, "sends NaN"),
            Attack::Alie => ("alie", Gradient, "adds 1.5 standard deviations to its gradient"),
            Attack::Ipm => ("ipm", Gradient, "sends -0.5 times its gradient"),
            Attack::Mimic => ("mimic", Row, "sends what another worker of its group should send"),
            Attack::Replay => ("replay", Shard, "sends last round's shard again"),
            Attack::BitFlip => ("bit-flip", Shard, "flips one exponent bit of one element per shard"),
            Attack::Collude => ("collude", Gradient, "encodes the same wrong gradient as the other liars of its group"),
            Attack::Threshold => ("threshold", Shard, "adds an error of half the tolerance"),
        }
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Attack {
    type Err = UnknownAttack;

    fn from_str(name: &str) -> Result<Attack, UnknownAttack> {
        Attack::ALL.into_iter().find(|attack| attack.name() == name).ok_or_else(|| UnknownAttack { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_printed_alike() {
        for attack in Attack::ALL {
            assert_eq!(attack.to_string().parse(), Ok(attack));
            assert!(!attack.description().is_empty());
        }
        assert_eq!(format!("{:>10}|", Attack::BitFlip), "  bit-flip|");
    }

    #[test]
    fn an_unknown_name_is_answered_with_all_names() {
        let text = "revers".parse::<Attack>().unwrap_err().to_string();
        assert!(
            text.contains("\"revers\"") && text.contains("reverse, constant") && text.contains("threshold"),
            "{text}"
        );
    }
}
