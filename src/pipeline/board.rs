//! The counters that stages share: credits and closed rounds flow back over it, attributions flow forward.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::code::Rows;
use crate::wire::{Refusal, Report, Resume, Violation, WORKERS_MAX, WorkerSet};

#[cfg(doc)]
use super::Shape;
use super::measured::{Measured, Spans, WorkerCount};
use super::noise::{Counts, Noise};
use super::{Begin, Job, StageName};

/// What is counted over the life of the daemon. Each is a plain rising number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Shards whose checks passed. With the next three it adds up to all shards that were received.
    ShardsAccepted,
    /// Shards with a wrong checksum: dropped, an erasure.
    ShardsCorrupt,
    /// Shards that nothing is left to check against: their round was closed too long ago, or without their word.
    ShardsStale,
    /// Second shards for the same word and worker: dropped.
    ShardsDuplicate,
    /// Shards that came after their word was decided.
    ShardsLate,
    /// Words decided in which every shard agrees.
    WordsClean,
    /// Words decided in which a shard disagrees, and none is proved to be a lie.
    WordsSuspect,
    /// Words decided in which somebody lies.
    WordsLied,
    /// Words that needed more shards than the first r_c + s.
    WordsDisputed,
    /// Row verdicts "lies".
    Lies,
    /// Row verdicts "does not agree, not provably a lie".
    Suspects,
    /// Update chunks decoded.
    ChunksDecoded,
    /// Update chunks that were recovered twice: other rows agreed than in the chunk before.
    ChunksRepeated,
    /// Rounds closed complete.
    RoundsComplete,
    /// Rounds closed undecodable. The next four add up to it.
    RoundsUndecodable,
    /// Those with too few shards at their deadline.
    RoundsTooFew,
    /// Those whose shards disagree.
    RoundsDisagree,
    /// Those with NaN or infinity in too many shards.
    RoundsNotFinite,
    /// Those with a number in the update that is too large.
    RoundsTooLarge,
    /// Workers that reports name, one per round.
    LiarsNamed,
    /// Workers that reports name for an earlier round.
    LiarsNamedLate,
    /// Sessions ended because of a violation.
    Violations,
    /// Sessions ended because their worker did not read.
    NotReading,
    /// Sessions ended by their worker, by a newer session or by the pusher.
    SessionsClosed,
    /// Sessions whose connection broke.
    SessionsBroken,
    /// Sessions that the receiver ended because of a violation.
    SessionsViolating,
    /// Sessions that ended with their RDMA connection.
    SessionsLostRdma,
    /// Sessions ended because their worker computes differently than its group.
    SessionsMixed,
    /// Bytes of shards received, but those over RDMA.
    BytesReceived,
    /// Bytes of shards received over RDMA.
    RdmaBytesReceived,
    /// Bytes sent, but those of sessions over RDMA.
    BytesSent,
    /// Bytes sent in sessions over RDMA.
    RdmaBytesSent,
    /// Events lost because nobody picked them up.
    EventsLost,
    /// The journal could not be written.
    JournalErrors,
    /// Connections turned away before anything was read of them.
    ConnectionsTooMany,
    /// Sessions that began over TCP.
    TcpSessions,
    /// Sessions that began over RDMA.
    RdmaSessions,
    /// Sessions whose worker wanted RDMA and that began over TCP.
    RdmaRefused,
    /// Sessions that went on by TCP after their RDMA connection ended.
    RdmaFallbacks,
    /// Regions of memory registered with RDMA devices.
    RdmaRegions,
    /// System calls by which the receiver looked for bytes.
    ReadCalls,
    /// System calls by which the pusher sent bytes.
    WriteCalls,
    /// System calls by which reactors looked for events.
    PollCalls,
    /// Bytes of update chunks that the daemon sent itself, frames' headers included: to carriers too, and repairs.
    UpdateBytesSent,
    /// Bytes of update chunks that workers passed on to each other, by the word of those who got them.
    UpdateBytesCarried,
    /// Bytes by which workers were told what is carried by whom.
    AnnounceBytes,
    /// Chunks that the daemon sent itself because a carrier was late, or not there.
    RepairsLate,
    /// Chunks that the daemon sent itself because what came from a carrier was wrong.
    RepairsWrong,
    /// Chunks that the daemon sent itself to who did not say for too long whether they had come.
    RepairsUnasked,
    /// How often a carrier was found bad.
    BadCarriers,
    /// How often a worker said that it does not reach another one.
    LinksMissing,
    /// How often updates were given another way.
    WayChanges,
    /// Updates that a worker has otherwise than they were pushed.
    DigestMismatches,
    /// Workers that were found to compute differently than their group.
    MixedWorkers,
}

const COUNTERS: usize = Counter::MixedWorkers as usize + 1;

/// What is known of one round that is not over, or was not long ago.
#[derive(Debug)]
struct Tally {
    arrived: Box<[AtomicU32]>,
    liars: [AtomicU64; WORKERS_MAX / 64],
    ratio: AtomicU32,
    received_ratio: AtomicU32,
    /// When its first shard came, in nanoseconds since `Board::base`; 0 before.
    begun: AtomicU64,
    /// When its last shard came, in the same way.
    last: AtomicU64,
    /// Nanoseconds that decoders judged its words, and did everything else.
    locating: AtomicU64,
    decoding: AtomicU64,
}

/// The counters that stages share.
#[derive(Debug)]
pub struct Board {
    base: OnceLock<Instant>,
    redundancy: usize,
    /// Rows of a word: more than a group has workers, where every worker is a group of its own and a rule combines them all.
    rows: usize,
    first: u64,
    closed: AtomicU64,
    /// Digests of the last two closed rounds, by the parity of their number.
    digests: [AtomicU64; 2],
    grants: Box<[AtomicU64]>,
    connected: Box<[AtomicU64]>,
    /// Per worker: the first round that its session takes part in.
    ready_from: Box<[AtomicU64]>,
    /// Per worker: sessions up to this one are to end; and how often that changed.
    dismissed: Box<[AtomicU64]>,
    dismissals: AtomicU64,
    /// Workers whose first join is waited for before the first round; and whether nobody is.
    awaited: [AtomicU64; WORKERS_MAX / 64],
    begun: AtomicBool,
    /// Counts changes of who has a session and from when on it takes part.
    membership: AtomicU64,
    /// Per worker: words about links and chunks that the pusher has heard.
    heard: Box<[AtomicU64]>,
    /// Workers that can pass updates on, and whether they do.
    relays: AtomicU64,
    relayed: AtomicBool,
    tallies: Box<[Tally]>,
    late_liars: [AtomicU64; WORKERS_MAX / 64],
    /// Per group: how far apart its words were.
    noise: Box<[Counts]>,
    counters: [AtomicU64; COUNTERS],
    /// Nanoseconds that each stage was busy for, on all its cores together.
    busy: [AtomicU64; StageName::ALL.len()],
    measured: Measured,
    /// Per worker: when a frame of it came last, in nanoseconds since `base`; 0: never.
    seen: Box<[AtomicU64]>,
    violations: [AtomicU64; Violation::REASONS.len()],
    refusals: [AtomicU64; Refusal::REASONS.len()],
    stop_requested: AtomicBool,
    stopped: AtomicBool,
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

fn mark(set: &[AtomicU64], worker: usize) {
    set[worker / 64].fetch_or(1 << (worker % 64), Ordering::Relaxed);
}

fn workers_of(bits: [u64; WORKERS_MAX / 64]) -> WorkerSet {
    let one = |(at, word): (usize, u64)| Rows::from_bits(word).iter().map(move |bit| at * 64 + bit);
    bits.into_iter().enumerate().flat_map(one).collect()
}

impl Board {
    pub(super) fn new(job: &Job) -> Board {
        let parameters = &job.plan.parameters;
        let tally = |_| Tally {
            arrived: (0..parameters.workers()).map(|_| AtomicU32::new(0)).collect(),
            liars: zeros(),
            ratio: AtomicU32::new(0),
            received_ratio: AtomicU32::new(0),
            begun: AtomicU64::new(0),
            last: AtomicU64::new(0),
            locating: AtomicU64::new(0),
            decoding: AtomicU64::new(0),
        };
        // Only before the first round of all: a job that goes on after a restart may have lost workers for good.
        let waits = job.begin == Begin::All && job.resume.is_none();
        let awaited = zeros();
        (0..parameters.workers()).filter(|_| waits).for_each(|worker| mark(&awaited, worker));
        Board {
            awaited,
            begun: AtomicBool::new(!waits),
            base: OnceLock::new(),
            redundancy: parameters.redundancy(),
            rows: job.shape().rows,
            first: job.first_round(),
            closed: AtomicU64::new(job.first_round()),
            digests: zeros(),
            grants: (0..parameters.workers()).map(|_| AtomicU64::new(0)).collect(),
            connected: (0..parameters.groups()).map(|_| AtomicU64::new(0)).collect(),
            ready_from: (0..parameters.workers()).map(|_| AtomicU64::new(u64::MAX)).collect(),
            dismissed: (0..parameters.workers()).map(|_| AtomicU64::new(0)).collect(),
            dismissals: AtomicU64::new(0),
            membership: AtomicU64::new(0),
            relays: AtomicU64::new(0),
            relayed: AtomicBool::new(job.relay.is_some()),
            heard: (0..parameters.workers()).map(|_| AtomicU64::new(0)).collect(),
            tallies: (0..2 * job.plan.window as usize).map(tally).collect(),
            late_liars: zeros(),
            noise: (0..parameters.groups()).map(|_| Counts::new()).collect(),
            counters: zeros(),
            busy: zeros(),
            measured: Measured::new(job),
            seen: (0..parameters.workers()).map(|_| AtomicU64::new(0)).collect(),
            violations: zeros(),
            refusals: zeros(),
            stop_requested: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// Asks the pipeline to stop once the round that has begun is closed.
    pub fn request_stop(&self) {
        self.stop_requested.store(true, Ordering::Release);
    }

    /// Was that asked for?
    pub fn stop_requested(&self) -> bool {
        self.stop_requested.load(Ordering::Acquire)
    }

    pub(super) fn set_stopped(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Has the pipeline said good-bye to everybody?
    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The first round that is not closed: all before it are.
    pub fn closed(&self) -> u64 {
        self.closed.load(Ordering::Acquire)
    }

    /// This round is closed, as all before it. Told before anybody else can know.
    pub(super) fn close(&self, round: u64, digest: u64) {
        self.digests[(round % 2) as usize].store(digest, Ordering::Relaxed);
        self.closed.store(round + 1, Ordering::Release);
    }

    /// The last round that was closed since the start, and its digest.
    pub fn last(&self) -> Option<Resume> {
        loop {
            let closed = self.closed();
            if closed == self.first {
                return None;
            }
            let round = closed - 1;
            let digest = self.digests[(round % 2) as usize].load(Ordering::Acquire);
            // Else a round was closed meanwhile, and the next one may be writing to this place.
            if self.closed() == closed {
                return Some(Resume { round, digest });
            }
        }
    }

    /// Which rows of a group have a session.
    pub fn connected(&self, group: usize) -> Rows {
        Rows::from_bits(self.connected[group].load(Ordering::Relaxed))
    }

    /// Which rows of a word have a session that takes part in `round`; words are numbered as [`Shape`] has them.
    pub(super) fn expected(&self, word: usize, round: u64) -> Rows {
        let there = |row: &usize| {
            let worker = word * self.rows + row;
            let bits = Rows::from_bits(self.connected[worker / self.redundancy].load(Ordering::Relaxed));
            bits.contains(worker % self.redundancy) && self.ready_from[worker].load(Ordering::Relaxed) <= round
        };
        (0..self.rows).filter(there).collect()
    }

    /// Those whose first join the first round waits for.
    pub fn awaited(&self) -> WorkerSet {
        workers_of(std::array::from_fn(|at| self.awaited[at].load(Ordering::Relaxed)))
    }

    /// May shards come? Not before everybody is ready whom the first round waits for.
    pub(super) fn begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// A worker is ready; `true` if it is the last one that the first round has waited for.
    pub(super) fn came(&self, worker: usize) -> bool {
        if self.begun.load(Ordering::Relaxed) {
            return false;
        }
        self.awaited[worker / 64].fetch_and(!(1 << (worker % 64)), Ordering::Relaxed);
        let all = self.awaited.iter().all(|bits| bits.load(Ordering::Relaxed) == 0);
        if all {
            self.begun.store(true, Ordering::Release);
        }
        all
    }

    /// Changes whenever [`Board::expected`] may: who asks for it first and remembers it never misses a change.
    pub(super) fn membership(&self) -> u64 {
        self.membership.load(Ordering::Acquire)
    }

    /// The session of `worker` takes part from this round on; `u64::MAX`: it is not said yet.
    pub(super) fn set_ready_from(&self, worker: usize, round: u64) {
        self.ready_from[worker].store(round, Ordering::Relaxed);
        self.membership.fetch_add(1, Ordering::Release);
    }

    /// Sessions of `worker` up to this one are to end.
    pub(super) fn dismiss(&self, worker: usize, session: u64) {
        self.dismissed[worker].store(session, Ordering::Relaxed);
        self.dismissals.fetch_add(1, Ordering::Release);
    }

    pub(super) fn is_dismissed(&self, worker: usize, session: u64) -> bool {
        session <= self.dismissed[worker].load(Ordering::Relaxed)
    }

    /// Changes with every [`Board::dismiss`].
    pub(super) fn dismissals(&self) -> u64 {
        self.dismissals.load(Ordering::Acquire)
    }

    pub(super) fn set_connected(&self, worker: usize, connected: bool) {
        let (group, bit) = (&self.connected[worker / self.redundancy], 1 << (worker % self.redundancy));
        if connected {
            group.fetch_or(bit, Ordering::Relaxed);
        } else {
            group.fetch_and(!bit, Ordering::Relaxed);
        }
        self.membership.fetch_add(1, Ordering::Release);
    }

    /// Can some worker pass updates on, so that chunks need hashes?
    pub(super) fn relays(&self) -> bool {
        self.relay_workers() > 0
    }

    /// Workers that can pass updates on.
    pub fn relay_workers(&self) -> u64 {
        self.relays.load(Ordering::Relaxed)
    }

    pub(super) fn set_relays(&self, workers: usize) {
        self.relays.store(workers as u64, Ordering::Relaxed);
    }

    /// Do updates go out by the relay now?
    pub fn relayed(&self) -> bool {
        self.relays() && self.relayed.load(Ordering::Relaxed)
    }

    pub(super) fn set_relayed(&self, relayed: bool) {
        self.relayed.store(relayed, Ordering::Relaxed);
        self.count(Counter::WayChanges, 1);
    }

    /// Words about links and chunks that the pusher has heard of a worker, over all its sessions.
    pub(super) fn heard(&self, worker: usize) -> u64 {
        self.heard[worker].load(Ordering::Relaxed)
    }

    pub(super) fn hear(&self, worker: usize) {
        self.heard[worker].fetch_add(1, Ordering::Relaxed);
    }

    /// How many shards `session` of `worker` may have sent in all. Tagged by session, so that a new one does not spend the
    /// grants of an old one.
    pub(super) fn grant(&self, worker: usize, session: u64, shards: u64) {
        self.grants[worker].store(session << 48 | shards, Ordering::Relaxed);
    }

    pub(super) fn granted(&self, worker: usize, session: u64) -> Option<u64> {
        let grant = self.grants[worker].load(Ordering::Relaxed);
        (grant >> 48 == session & 0xffff).then_some(grant & ((1 << 48) - 1))
    }

    fn tally(&self, round: u64) -> &Tally {
        &self.tallies[(round % self.tallies.len() as u64) as usize]
    }

    /// A round enters the window: forget the one that had its place.
    pub(super) fn open(&self, round: u64) {
        let tally = self.tally(round);
        tally.arrived.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        tally.liars.iter().for_each(|bits| bits.store(0, Ordering::Relaxed));
        tally.ratio.store(0, Ordering::Relaxed);
        tally.received_ratio.store(0, Ordering::Relaxed);
        for time in [&tally.begun, &tally.last, &tally.locating, &tally.decoding] {
            time.store(0, Ordering::Relaxed);
        }
    }

    /// Nanoseconds since the first time that anybody asked; at least 1.
    fn since_base(&self, now: Instant) -> u64 {
        let base = *self.base.get_or_init(|| now);
        (now.saturating_duration_since(base).as_nanos() as u64).max(1)
    }

    pub(super) fn arrived(&self, round: u64, worker: usize, now: Instant) {
        let tally = self.tally(round);
        tally.arrived[worker].fetch_add(1, Ordering::Relaxed);
        let since = self.since_base(now);
        tally.last.store(since, Ordering::Relaxed);
        if tally.begun.load(Ordering::Relaxed) == 0 {
            tally.begun.store(since, Ordering::Relaxed);
        }
    }

    /// A shard of a worker has passed its checks.
    pub(super) fn accepted(&self, worker: usize) {
        self.count(Counter::ShardsAccepted, 1);
        self.measured.count(WorkerCount::Accepted, worker);
    }

    /// A frame of a worker has come.
    pub(super) fn seen(&self, worker: usize, now: Instant) {
        self.seen[worker].store(self.since_base(now), Ordering::Relaxed);
    }

    /// When a frame of a worker came last.
    pub fn last_seen(&self, worker: usize) -> Option<Instant> {
        let seen = self.seen[worker].load(Ordering::Relaxed);
        self.base.get().filter(|_| seen > 0).map(|base| *base + Duration::from_nanos(seen))
    }

    /// A decoder spent so long on a round.
    pub(super) fn spent(&self, round: u64, locating: Duration, decoding: Duration) {
        let tally = self.tally(round);
        tally.locating.fetch_add(locating.as_nanos() as u64, Ordering::Relaxed);
        tally.decoding.fetch_add(decoding.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn spans(&self, round: u64, now: Instant) -> Spans {
        let tally = self.tally(round);
        let [begun, last, locating, decoding] = [&tally.begun, &tally.last, &tally.locating, &tally.decoding]
            .map(|time| Duration::from_nanos(time.load(Ordering::Relaxed)));
        Spans { round: self.age(round, now), receive: last.saturating_sub(begun), locate: locating, decode: decoding }
    }

    /// What is measured of rounds and workers.
    pub fn measured(&self) -> &Measured {
        &self.measured
    }

    pub(super) fn named(&self, report: &Report) {
        self.count(Counter::LiarsNamed, report.liars.count() as u64);
        self.count(Counter::LiarsNamedLate, report.late_liars.count() as u64);
    }

    /// A peer broke the protocol.
    pub(super) fn violated(&self, violation: &Violation) {
        self.count(Counter::Violations, 1);
        self.violations[violation.reason()].fetch_add(1, Ordering::Relaxed);
    }

    /// How often peers broke the protocol, in the order of [`Violation::REASONS`].
    pub fn violations(&self) -> [u64; Violation::REASONS.len()] {
        std::array::from_fn(|at| self.violations[at].load(Ordering::Relaxed))
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        self.refusals[refusal.reason()].fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections were refused, in the order of [`Refusal::REASONS`].
    pub fn refusals(&self) -> [u64; Refusal::REASONS.len()] {
        std::array::from_fn(|at| self.refusals[at].load(Ordering::Relaxed))
    }

    /// Time since the first shard of a round; zero if none came.
    pub(super) fn age(&self, round: u64, now: Instant) -> Duration {
        let begun = self.tally(round).begun.load(Ordering::Relaxed);
        let Some(base) = self.base.get().filter(|_| begun > 0) else { return Duration::ZERO };
        now.saturating_duration_since(*base + Duration::from_nanos(begun))
    }

    pub(super) fn arrivals(&self, round: u64, worker: usize) -> u32 {
        self.tally(round).arrived[worker].load(Ordering::Relaxed)
    }

    pub(super) fn lied(&self, round: u64, worker: usize) {
        mark(&self.tally(round).liars, worker);
        self.count(Counter::Lies, 1);
        self.measured.lied(worker);
    }

    pub(super) fn lied_late(&self, worker: usize) {
        mark(&self.late_liars, worker);
        self.count(Counter::Lies, 1);
        self.measured.lied(worker);
    }

    pub(super) fn liars(&self, round: u64) -> WorkerSet {
        workers_of(std::array::from_fn(|at| self.tally(round).liars[at].load(Ordering::Relaxed)))
    }

    pub(super) fn take_late_liars(&self) -> WorkerSet {
        workers_of(std::array::from_fn(|at| self.late_liars[at].swap(0, Ordering::Relaxed)))
    }

    /// Residual over tolerance of a word that was believed: of the rows that agree, and of all that came.
    pub(super) fn believed(&self, round: u64, group: usize, ratio: f32, received: f32) {
        self.noise[group].count(received);
        let tally = self.tally(round);
        // The bits of floats that are not negative rise with their values.
        tally.ratio.fetch_max(ratio.max(0.0).to_bits(), Ordering::Relaxed);
        tally.received_ratio.fetch_max(received.max(0.0).to_bits(), Ordering::Relaxed);
    }

    /// How far apart the shards of a group's words were that have been believed so far, those of liars included: over the tolerance.
    pub fn noise(&self, group: usize) -> Noise {
        self.noise[group].noise()
    }

    pub(super) fn received_ratio(&self, round: u64) -> f32 {
        f32::from_bits(self.tally(round).received_ratio.load(Ordering::Relaxed))
    }

    pub(super) fn residual_ratio(&self, round: u64) -> f32 {
        f32::from_bits(self.tally(round).ratio.load(Ordering::Relaxed))
    }

    pub(crate) fn count(&self, counter: Counter, by: u64) {
        self.counters[counter as usize].fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn busy(&self, stage: StageName, time: Duration) {
        self.busy[stage as usize].fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// For how long each of [`StageName::ALL`] was busy since the start, on all its cores together. Only reactors count it.
    pub fn busy_times(&self) -> [Duration; StageName::ALL.len()] {
        std::array::from_fn(|at| Duration::from_nanos(self.busy[at].load(Ordering::Relaxed)))
    }

    /// Bytes of shards received, and bytes sent, by whatever transport.
    pub fn bytes(&self) -> [u64; 2] {
        use Counter::{BytesReceived, BytesSent, RdmaBytesReceived, RdmaBytesSent};
        [[BytesReceived, RdmaBytesReceived], [BytesSent, RdmaBytesSent]]
            .map(|both| both.into_iter().map(|counter| self.counted(counter)).sum())
    }

    /// A counter's value.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_sets_hold_what_was_marked() {
        let bits = zeros::<{ WORKERS_MAX / 64 }>();
        for worker in [0, 63, 64, 1023] {
            mark(&bits, worker);
        }
        let set = workers_of(std::array::from_fn(|at| bits[at].load(Ordering::Relaxed)));
        assert_eq!((set.iter().collect::<Vec<_>>(), set.count()), (vec![0, 63, 64, 1023], 4));
    }
}
