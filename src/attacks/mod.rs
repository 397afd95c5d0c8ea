//! The liars: what a worker sends instead of the truth. Used by tests, simulation, demonstration and lab.
//!
//! A lie enters at one of four places, and each attack at exactly one of them ([`Attack::place`]); a worker that calls
//! all four for every attack lies as it should:
//!
//! ```text
//! gradient ──(liar.gradient)──> encode with row (liar.row) ──> shard ──(liar.shard)──> wait (liar.wait) ──> send
//! ```
//!
//! The code is linear, so a lie about the gradient that all liars of a group tell is a *code word*: they agree with each
//! other, as colluders should, whatever their rows are. Lies about shards are no code words.
//!
//! **What a liar knows** is said by [`Knowledge`]: its own gradient and its own earlier rounds, or all honest gradients of the round.
//! All liars of a job share a seed. Attacks that need a mean and a deviation (`alie`, `ipm`, `min-max`, `fang`) take them over the
//! gradients that they know; a liar that knows only its own takes that for the mean, and for the deviation the change since its last
//! round over sqrt(2): the deviation of two draws of a batch at nearly the same weights.
//!
//! **Who lies** is another matter ([`Who`], [`Liars`]): the same workers in all rounds, others in each, or a whole group.

mod bits;
mod knowledge;
mod liar;
mod lie;
mod selection;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use knowledge::Knowledge;
pub use liar::{Liar, Means};
pub use lie::{Lie, UnknownLie};
pub(crate) use selection::draw;
pub use selection::{Impossible, Liars, UnknownWho, Who};

/// A way to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attack {
    /// Minus the gradient, 100 times (the code released with Draco, arXiv 1803.09877).
    Reverse,
    /// A shard of -100 (the same).
    Constant,
    /// A shard of noise (Blanchard et al., arXiv 1703.02757).
    Gaussian,
    /// The gradient negated.
    SignFlip,
    /// A shard of zeros.
    Zero,
    /// A shard of NaN.
    Nan,
    /// "A little is enough" (arXiv 1902.06156): mean plus z deviations. A liar that knows all takes the paper's z: how far from the mean
    /// the workers are that it must outvote. One that knows nothing takes 1.5, which the paper uses too.
    Alie,
    /// Inner product manipulation, "fall of empires" (arXiv 1903.03936): minus epsilon times the mean.
    Ipm,
    /// Another worker's gradient (arXiv 2006.09365): in a group another worker's row of the code; alone in its group, with knowledge of
    /// all, the first honest gradient.
    Mimic,
    /// The mean minus gamma deviations, with the largest gamma for which the lie is no farther from any honest gradient than these are
    /// from each other (NDSS 2021, "Manipulating the Byzantine"). A liar that knows nothing takes 1, which is gamma for independent normal
    /// numbers.
    MinMax,
    /// The honest value that is farthest against the sign of the mean, in each element (arXiv 1911.11815, against median and trimmed
    /// mean). A liar that knows nothing goes two deviations against its own sign.
    Fang,
    /// Last round's shard.
    Replay,
    /// One exponent bit of one element.
    BitFlip,
    /// Three bits each of four elements, one of the three in the exponent.
    MultiBit,
    /// The same exponent bit in every 32nd element, as a broken lane of a warp writes them.
    Warp,
    /// One wrong code word that all liars of a group agree on.
    Collude,
    /// An error that stays under the tolerance.
    Threshold,
    /// The right thing, late.
    Delayed,
}

/// Where an attack enters; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LiePlace {
    /// In the gradient, before it is encoded.
    Gradient,
    /// In the choice of the row to encode with. `mimic` in a group of one enters in the gradient.
    Row,
    /// In the encoded shard.
    Shard,
    /// In the moment when it is sent.
    Time,
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
    pub const ALL: [Attack; 18] = [
        Attack::Reverse,
        Attack::Constant,
        Attack::Gaussian,
        Attack::SignFlip,
        Attack::Zero,
        Attack::Nan,
        Attack::Alie,
        Attack::Ipm,
        Attack::Mimic,
        Attack::MinMax,
        Attack::Fang,
        Attack::Replay,
        Attack::BitFlip,
        Attack::MultiBit,
        Attack::Warp,
        Attack::Collude,
        Attack::Threshold,
        Attack::Delayed,
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

    /// The size of the number in the description, for attacks with a number that [`Means::strength`] may replace.
    pub fn strength(self) -> Option<f32> {
        self.entry().3
    }

    /// The table of attacks: name, place, description, strength.
    fn entry(self) -> (&'static str, LiePlace, &'static str, Option<f32>) {
        use LiePlace::{Gradient, Row, Shard, Time};
        match self {
            Attack::Reverse => ("reverse", Gradient, "sends -100 times its gradient", Some(100.0)),
            Attack::Constant => ("constant", Shard, "sends -100 in every element", Some(100.0)),
            Attack::Gaussian => ("gaussian", Shard, "sends noise of standard deviation 200", Some(200.0)),
            Attack::SignFlip => ("sign-flip", Gradient, "sends its gradient negated", None),
            Attack::Zero => ("zero", Shard, "sends zeros", None),
            Attack::Nan => ("nan", Shard, "sends NaN", None),
            Attack::Alie => ("alie", Gradient, "adds 1.5 standard deviations to its gradient", Some(1.5)),
            Attack::Ipm => ("ipm", Gradient, "sends -0.5 times its gradient", Some(0.5)),
            Attack::Mimic => ("mimic", Row, "sends what another worker of its group should send", None),
            Attack::MinMax => ("min-max", Gradient, "subtracts 1 standard deviation from its gradient", Some(1.0)),
            Attack::Fang => {
                ("fang", Gradient, "moves each element of its gradient 2 deviations against its sign", Some(2.0))
            }
            Attack::Replay => ("replay", Shard, "sends last round's shard again", None),
            Attack::BitFlip => ("bit-flip", Shard, "flips one exponent bit of one element per shard", None),
            Attack::MultiBit => ("multi-bit", Shard, "flips three bits each of four elements per shard", None),
            Attack::Warp => ("warp", Shard, "flips the same exponent bit of every 32nd element of a shard", None),
            Attack::Collude => {
                ("collude", Gradient, "encodes the same wrong gradient as the other liars of its group", Some(10.0))
            }
            Attack::Threshold => ("threshold", Shard, "adds an error of 0.5 times the tolerance", Some(0.5)),
            Attack::Delayed => ("delayed", Time, "sends the right thing after 0.9 of the round's deadline", Some(0.9)),
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
