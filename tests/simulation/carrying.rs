//! The names of the ways in which a liar can take part in the relay, and what a seed says of the relay as a whole.

use std::collections::BTreeSet;
use std::time::Duration;

use solon::pipeline::{Job, Relay};

use crate::dice::Dice;
use crate::network::{Quality, TICK};
use crate::scenario::{Habit, Role, Scenario};
use crate::strategy::Strategy;

/// What a liar does with chunks that it carries, and with those that are carried to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrying {
    /// All as it should be.
    Fair,
    /// Says nowhere where it is reached.
    Outside,
    DropAll,
    DropSome,
    /// Passes on later, up to twice the time after which a chunk is late.
    Delay,
    /// A bit of the payload is flipped, and the checksum is wrong.
    Corrupt,
    /// Other numbers, under a right checksum.
    Reseal,
    /// A bit of the header is flipped.
    BadHeader,
    /// Good to those with even numbers, bad to the others.
    Equivocate,
    /// Everything three times, with chunks that nobody announced and rounds to come.
    Flood,
    /// Another chunk's number, or another round's.
    OtherChunk,
    /// Other workers' chunks, right ones, before their carriers bring them.
    Usurp,
    /// Leaves when it has taken a chunk, and comes back.
    Leave,
    Decline,
    /// Half a frame, and nothing more over this link.
    HalfFrame,
    /// Reads nothing from its links, and says that all is here.
    Clog,
    /// Never says that a chunk is here.
    Mute,
    /// Says that every chunk is wrong.
    CryWrong,
    /// Says that every chunk is late.
    CryLate,
    /// Words about chunks, workers and sessions that make no sense.
    Nonsense,
    /// Digests that are wrong, in right words.
    FalseDigest,
    /// Says to have links that it has not.
    Phantom,
    /// Ends its links again and again, and says so.
    CutLinks,
}

impl Carrying {
    pub const ALL: [Carrying; 23] = {
        use Carrying::*;
        [
            Fair,
            Outside,
            DropAll,
            DropSome,
            Delay,
            Corrupt,
            Reseal,
            BadHeader,
            Equivocate,
            Flood,
            OtherChunk,
            Usurp,
            Leave,
            Decline,
            HalfFrame,
            Clog,
            Mute,
            CryWrong,
            CryLate,
            Nonsense,
            FalseDigest,
            Phantom,
            CutLinks,
        ]
    };
}

/// What a seed says of the links between workers.
#[derive(Clone, Debug, Default)]
pub struct Between {
    pub quality: Quality,
    /// Workers that cannot reach each other, the lower index first.
    pub apart: BTreeSet<(u32, u32)>,
    /// The chance of each link to break, per tick.
    pub cuts: f64,
    /// Sessions that end may do so without a word to those that they have links with.
    pub vanish: bool,
}

/// What a seed says of the relay.
pub struct Relayed {
    pub between: Between,
    pub carrying: Vec<Carrying>,
    /// Workers that cannot be asked to relay.
    pub near: Vec<bool>,
}

impl Relayed {
    /// Whether this seed relays, and how; changes what its liars do, and how long it lasts.
    pub fn new(seed: u64, job: &mut Job, roles: &mut [Role], rounds: &mut u64) -> Relayed {
        let (workers, mut dice) = (roles.len(), Dice::new(seed, "relay", 0, 0));
        let (between, carrying) = (Between::default(), vec![Carrying::Outside; workers]);
        let mut relayed = Relayed { between, carrying, near: vec![false; workers] };
        if workers < 3 || !dice.chance(0.4) {
            return relayed;
        }
        let repair = TICK * dice.pick(&[3, 6, 10]);
        job.relay = Some(Relay { repair, auto: false });
        job.updates = dice.pick(&[1, 4, 8, 24, 64]);
        let plan = dice.chance(0.4).then(|| dice.pick(&Carrying::ALL));
        let one = dice.pick(&Carrying::ALL);
        for (worker, role) in roles.iter_mut().enumerate() {
            if let Role::Liar(strategy) = role {
                let own = dice.pick(&Carrying::ALL);
                relayed.carrying[worker] = plan.unwrap_or_else(|| dice.pick(&[one, own]));
                if dice.chance(0.6) {
                    *strategy = Strategy::Upright;
                }
            }
            relayed.near[worker] = dice.chance(0.04);
        }
        let largest = 64 + 4 * job.plan.layout.chunk(0).len;
        let broken = dice.chance(0.3);
        let clogged = relayed.carrying.contains(&Carrying::Clog);
        relayed.between = Between {
            quality: Quality {
                base: dice.pick(&[0, 0, 0, 1, 2, if broken { 8 } else { 1 }]),
                jitter: dice.pick(&[0, 0, 1, if broken { 12 } else { 2 }]),
                capacity: largest * if clogged { 1 } else { dice.pick(&[1, 4, 24]) },
                torn: dice.chance(0.3),
            },
            apart: (0..workers as u32)
                .flat_map(|high| (0..high).map(move |low| (low, high)))
                .filter(|_| broken && dice.chance(0.15))
                .collect(),
            cuts: if broken { dice.pick(&[0.0, 0.002, 0.02]) } else { 0.0 },
            vanish: broken,
        };
        if dice.chance(0.06) {
            // Long enough for who was too late for too many to be asked again.
            *rounds = 110;
            for (worker, role) in roles.iter_mut().enumerate() {
                match role {
                    Role::Liar(strategy) => {
                        *strategy = Strategy::Upright;
                        relayed.carrying[worker] = Carrying::DropAll;
                    }
                    Role::Honest(habit) => *habit = Habit::Steady,
                }
            }
        }
        relayed
    }
}

impl Scenario {
    /// After how long a chunk is late, in ticks.
    pub fn repair(&self) -> u64 {
        let repair = self.job.relay.map_or(Duration::ZERO, |relay| relay.repair);
        (repair.as_nanos() / TICK.as_nanos()) as u64
    }
}
