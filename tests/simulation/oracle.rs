//! The names of the oracles, and what is said when one does not hold.

use std::fmt;

/// What must hold, the most telling first. The promises' numbers are those of `docs/specification.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oracle {
    /// P1: the update is the sum; and a round that can be decoded is.
    Exact,
    /// P2: nothing is pushed whose checks did not close.
    Unchecked,
    /// P3: nobody honest is named.
    Framed,
    /// P8: all workers get the same bytes.
    Differs,
    /// Who lied plainly in a word of all rows is named.
    Unnamed,
    /// A worker passes on only to those that it has a link with, and not after it was found to be bad.
    Believed,
    /// P6: frames land only in the slots of the worker, session and round that they are of.
    Gate,
    /// P4: a round that has begun ends by its deadline.
    Deadline,
    /// An honest worker is not thrown out, and learns with a typed error why its session is over.
    Thrown,
    /// P5: slots and what points to them are all free again in the end.
    Leak,
    /// A worker with a session gets every round, and a cluster within its limits goes on.
    Stuck,
    /// P7: one shard per worker, round and chunk; the counters add up.
    Counters,
    /// A job that begins with all has no shard before everybody is ready, and nobody misses its first round.
    Held,
    /// The daemon's report says who was there.
    Report,
    /// P10: no panic, no endless work.
    Panic,
}

/// An oracle that does not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    pub oracle: Oracle,
    pub round: u64,
    pub tick: u64,
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in round {} at tick {}: {}", self.oracle, self.round, self.tick, self.what)
    }
}
