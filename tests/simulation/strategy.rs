//! The names of the ways in which a worker can be malicious.

use std::fmt;

use solon::attacks::Attack;

use crate::dice::Dice;

/// What a liar does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Strategy {
    /// Wrong numbers in right frames.
    Value(Value),
    /// Another session's number.
    WrongSession,
    /// Frames of its own earlier session, kept and sent again.
    OldSession,
    /// In the name of somebody honest.
    WrongWorker,
    WrongJob,
    WrongChunk,
    WrongKind,
    /// Old rounds, again and again, also those too old to be checked.
    OldRounds,
    /// As far ahead as the window allows, and one further.
    FutureRounds,
    RoundMax,
    /// Two different shards for the same chunk, the lie second.
    EquivocateLieSecond,
    /// The lie first.
    EquivocateLieFirst,
    Duplicate,
    WrongLength,
    OverCredit,
    CorruptChecksum,
    HalfThenSilence,
    /// At the last tick before the deadline, and around it.
    LastMoment,
    /// `GET / HTTP/1.1`, and other bytes that are no header.
    Garbage,
    /// Half a frame, and nothing more.
    HalfFrame,
    ZeroLength,
    /// Another lie for each chunk.
    Switching,
    /// Noise of the gradient's own size. `Gaussian` of fixed size is as good as zeros beside a huge gradient, and zeros agree.
    Noise,
    /// Errors computed from the code so that somebody honest looks wrong.
    Framing,
    /// An error that a projection from a known seed does not see.
    KnownSeed,
    NeverReads,
    LeaveAndRejoin,
    Silent,
    /// Right shards in right frames: it lies only about what it carries.
    Upright,
}

/// [`Attack`], ordered.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Value(pub Attack);

impl Value {
    fn number(self) -> usize {
        Attack::ALL.iter().position(|attack| *attack == self.0).expect("all attacks are in the list")
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Value) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Value) -> std::cmp::Ordering {
        self.number().cmp(&other.number())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Strategy {
    /// Those that are not about numbers.
    pub const PROTOCOL: [Strategy; 27] = [
        Strategy::WrongSession,
        Strategy::OldSession,
        Strategy::WrongWorker,
        Strategy::WrongJob,
        Strategy::WrongChunk,
        Strategy::WrongKind,
        Strategy::OldRounds,
        Strategy::FutureRounds,
        Strategy::RoundMax,
        Strategy::EquivocateLieSecond,
        Strategy::EquivocateLieFirst,
        Strategy::Duplicate,
        Strategy::WrongLength,
        Strategy::OverCredit,
        Strategy::CorruptChecksum,
        Strategy::HalfThenSilence,
        Strategy::LastMoment,
        Strategy::Garbage,
        Strategy::HalfFrame,
        Strategy::ZeroLength,
        Strategy::Switching,
        Strategy::Noise,
        Strategy::Framing,
        Strategy::KnownSeed,
        Strategy::NeverReads,
        Strategy::LeaveAndRejoin,
        Strategy::Silent,
    ];

    /// Any strategy.
    pub fn any(dice: &mut Dice) -> Strategy {
        match dice.below(10) {
            0..=3 => Strategy::Value(Value(dice.pick(&Attack::ALL))),
            4 => dice.pick(&[
                Strategy::Framing,
                Strategy::KnownSeed,
                Strategy::NeverReads,
                Strategy::Value(Value(Attack::Collude)),
            ]),
            _ => dice.pick(&Strategy::PROTOCOL),
        }
    }

    /// One whose lies agree with nobody's: for groups with more liars than the code corrects, where lies that agree may win.
    pub fn loner(dice: &mut Dice) -> Strategy {
        dice.pick(&[Strategy::Noise, Strategy::Value(Value(Attack::Nan))])
    }

    /// Is every shard of it wrong beyond doubt, and its arrival like that of an honest worker?
    pub fn calm(dice: &mut Dice) -> Strategy {
        // Not `Collude` or `SignFlip`: a row of the wrong code word may happen to be next to the right one's, and a mixture of
        // slices next to 0.
        use Attack::{Constant, Gaussian, Nan, Reverse};
        Strategy::Value(Value(dice.pick(&[Constant, Gaussian, Nan, Reverse])))
    }
}
