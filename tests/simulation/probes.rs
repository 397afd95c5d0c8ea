//! Rare states that a run must have been in: an oracle that was never in danger says nothing.

macro_rules! probes {
    ($($name:ident: $what:literal,)*) => {
        /// A state worth having been in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Probe {
            $(#[doc = $what] $name,)*
        }

        impl Probe {
            /// Every probe, and what it says.
            pub const ALL: &'static [(Probe, &'static str)] = &[$((Probe::$name, $what),)*];
        }
    };
}

probes! {
    Lie: "a liar was named in the round of its lie",
    LateLie: "a liar was named for a shard that came after the round was closed",
    Disputed: "a word needed more shards than the first r_c + s (scenarios)",
    Suspect: "a row was erased and not named (scenarios)",
    Disagree: "a round was undecodable because too few shards agreed",
    Starved: "a round was undecodable because too few shards came",
    Corrupt: "a shard with a wrong checksum landed",
    Duplicate: "a second shard for the same chunk landed",
    Equivocation: "a second, different shard for the same chunk landed",
    Stale: "a shard came when nothing was left to check it against (scenarios)",
    Late: "a shard came after its word was decided (scenarios)",
    AfterClose: "a shard came after its round was closed",
    TwoRoundsAtOnce: "a shard came for a round after the first open one",
    JustBeforeDeadline: "a liar's shard came in the last tick before the deadline",
    AtDeadline: "a liar's shard came in the tick of the deadline",
    JoinedMidRound: "a worker joined while a round was under way",
    LaterFirstRound: "a worker that joined got a first round after the open one",
    FirstRoundBeyondWindow: "a worker that joined got a first round beyond the window",
    OldSessionFenced: "a worker joined again while its old session was open",
    NotReading: "a session was ended because its worker did not read",
    SlotsShort: "all slots for updates were taken",
    Restart: "the daemon died, and another went on from its journal",
    AggregatorLost: "a worker that waited for a round got `AggregatorLost`",
    Stopped: "a worker was told that the daemon stops in peace",
    BadHeader: "a session was ended for bytes that are no header",
    BadKind: "a session was ended for a frame of a wrong kind",
    BadLength: "a session was ended for a wrong length",
    BadRound: "a session was ended for a round out of the window",
    BadChunk: "a session was ended for a chunk that does not exist",
    BadJob: "a session was ended for another job's number",
    BadSession: "a session was ended for another session's number",
    BadWorker: "a session was ended for another worker's index",
    NoCredit: "a session was ended for more shards than credits",
    Held: "a worker was ready, and the first round waited for others (scenarios)",
    Relayed: "updates were relayed (scenarios)",
    FetchedLate: "an honest worker fetched a chunk because it was late",
    FetchedWrong: "an honest worker fetched a chunk because it was wrong",
    FetchedGone: "an honest worker fetched a chunk because the link with its carrier was gone",
    HonestComplaint: "an honest worker complained of an honest carrier, which was late",
    FalseComplaint: "a liar complained of an honest carrier",
    BadForEver: "a carrier was named for wrong chunks",
    BadForLong: "a carrier was named for late chunks",
    BadAgain: "a carrier that had been named was named again",
    CarriesAgain: "a carrier that was named for late chunks carried again (scenarios)",
    PairAgain: "a carrier was asked again to carry to a worker that had complained",
    CarrierLeft: "a carrier's session ended while somebody waited for its chunks",
    Overtaken: "a chunk was sent unasked because a later round took its place",
    GaveUp: "a chunk was sent unasked to a worker that had not answered",
    Doubted: "a worker had not answered under so few carriers that these may be at fault",
    MostWait: "most of those that a chunk was announced to waited for it until the daemon sent it",
    StrayAnswer: "a worker answered for a chunk that the daemon had sent meanwhile",
    Declined: "a liar declined a chunk",
    Surplus: "a chunk came over a link after it had been fetched, or sent",
    LinkedAgain: "two sessions were linked again",
    LinkEnded: "one end of a link ended it",
    Clogged: "a link was ended whose other end reads nothing",
    Apart: "two workers could not reach each other",
    Vanished: "a worker's session ended, and its links stayed open",
    FalseDigest: "a liar told another digest than was pushed",
    BadWord: "a session was ended for words about chunks or links that cannot be",
}

/// How often each state was reached.
#[derive(Clone, Debug)]
pub struct Probes {
    counts: Vec<u64>,
    once: Vec<bool>,
}

impl Default for Probes {
    fn default() -> Probes {
        Probes { counts: vec![0; Probe::ALL.len()], once: vec![false; Probe::ALL.len()] }
    }
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
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
    }
}
