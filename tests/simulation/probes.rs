//! Rare states that a run must have been in: an oracle that was never in danger says nothing.

/// A state worth having been in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Probe {
    Lie,
    LateLie,
    Disputed,
    Suspect,
    Disagree,
    Starved,
    Corrupt,
    Duplicate,
    Equivocation,
    Stale,
    Late,
    AfterClose,
    TwoRoundsAtOnce,
    JustBeforeDeadline,
    AtDeadline,
    JoinedMidRound,
    LaterFirstRound,
    FirstRoundBeyondWindow,
    OldSessionFenced,
    NotReading,
    SlotsShort,
    Restart,
    AggregatorLost,
    BadHeader,
    BadKind,
    BadLength,
    BadRound,
    BadChunk,
    BadJob,
    BadSession,
    BadWorker,
    NoCredit,
}

impl Probe {
    pub const ALL: [Probe; 32] = [
        Probe::Lie,
        Probe::LateLie,
        Probe::Disputed,
        Probe::Suspect,
        Probe::Disagree,
        Probe::Starved,
        Probe::Corrupt,
        Probe::Duplicate,
        Probe::Equivocation,
        Probe::Stale,
        Probe::Late,
        Probe::AfterClose,
        Probe::TwoRoundsAtOnce,
        Probe::JustBeforeDeadline,
        Probe::AtDeadline,
        Probe::JoinedMidRound,
        Probe::LaterFirstRound,
        Probe::FirstRoundBeyondWindow,
        Probe::OldSessionFenced,
        Probe::NotReading,
        Probe::SlotsShort,
        Probe::Restart,
        Probe::AggregatorLost,
        Probe::BadHeader,
        Probe::BadKind,
        Probe::BadLength,
        Probe::BadRound,
        Probe::BadChunk,
        Probe::BadJob,
        Probe::BadSession,
        Probe::BadWorker,
        Probe::NoCredit,
    ];
}

/// How often each state was reached.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    counts: [u64; Probe::ALL.len()],
    once: [bool; Probe::ALL.len()],
}

impl Probes {
    /// Once more.
    pub fn hit(&mut self, probe: Probe) {
        self.counts[probe as usize] += 1;
    }

    /// At least once in this scenario.
    pub fn reached(&mut self, probe: Probe) {
        if !std::mem::replace(&mut self.once[probe as usize], true) {
            self.hit(probe);
        }
    }

    pub fn count(&self, probe: Probe) -> u64 {
        self.counts[probe as usize]
    }

    /// Adds what another scenario reached.
    pub fn add(&mut self, other: &Probes) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
    }
}
