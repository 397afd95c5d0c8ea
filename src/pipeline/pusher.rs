//! Update chunks in, frames out: sends each chunk to every worker from one slot, closes rounds in order, grants credits.

mod relayed;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::board::{Board, Counter};
use super::measured::Measure;
use super::relay::{Relays, Set};
use super::ring::Consumer;
use super::sabotage::{Bug, planted};
use super::spread::Spread;
use super::way::Ways;
use super::{Admission, Context, Event, Heard, Job, Limits, Progress, Spent, Stage, StageName, ToPusher};
use crate::memory::{Bell, SharedSlot, Slab};
use crate::transport::{Outbound, Outgoing};
use crate::wire::{
    HEADER_BYTES, Header, Kind, LinkOrder, RELAY_WORKERS_MAX, REPORT_BYTES, Report, Resume, RoundOutcome,
    UndecodableReason, Violation, WORKERS_MAX, header_bytes, seal,
};

/// Updates taken in one step.
const UPDATES_PER_STEP: usize = 16;

/// While update slots are short because of a few sessions that take nothing, these have this share of their time.
const PRESSURE: u32 = 4;

/// Closed rounds whose digests are remembered, to be compared with what workers say.
const DIGESTS: usize = 64;

/// Sends updates and reports to all workers.
pub struct Pusher {
    job: Arc<Job>,
    board: Arc<Board>,
    updates: Slab,
    admitted: Consumer<Admission<dyn Outbound>>,
    decoded: Consumer<ToPusher>,
    heard: Consumer<Heard>,
    wake: Vec<Arc<Bell>>,
    events: Arc<ArrayQueue<Event>>,
    peers: Vec<Option<Peer>>,
    /// The newest session of each worker.
    newest: Vec<u64>,
    rounds: Vec<Round>,
    /// The first round that is not closed.
    first: u64,
    journal: Option<File>,
    /// The round that was open when a stop was asked for, and until when it may go on.
    stopping: Option<(u64, Instant)>,
    /// Since everybody was told that the daemon stops: until when they may take their leave.
    closing: Option<Instant>,
    /// Credits are told in lots of half of what a worker can have: a worker that is woken for each of them sends one shard and
    /// sleeps again. Nobody waits for the other half for ever: all have sent what the slowest worker has sent, so
    /// its words are decided and it gets every slot back.
    credits_at_once: u64,
    /// Where updates are relayed.
    relays: Option<Relays>,
    /// Where it is measured whether to relay them.
    ways: Option<Ways>,
    /// Workers that are to be told of each other, and those that take nothing: filled and emptied within one step.
    orders: Vec<(usize, LinkOrder)>,
    slow: Set,
    /// How long a worker may say nothing of a chunk that it is to have, as of the last step.
    silence: Duration,
    /// Changes of who has a session that were seen.
    membership: u64,
    /// Rounds that were closed, with the digests of their updates.
    digests: Vec<(u64, u64)>,
    /// Updates that have to leave for most of those who get them, and to be collected by most.
    leaving: Spread,
    collected: Spread,
}

/// What comes to the pusher.
pub(super) struct Inputs {
    pub(super) admitted: Consumer<Admission<dyn Outbound>>,
    pub(super) decoded: Consumer<ToPusher>,
    pub(super) heard: Consumer<Heard>,
}

struct Peer {
    outbound: Box<dyn Outbound>,
    session: u64,
    /// It gets every chunk of this round and of all after it, and nothing of those before.
    from: u64,
    /// All of the rounds before this one has left for it.
    left: u64,
    granted: u64,
    writable: bool,
    /// Frames are waiting, and none of their bytes has left since.
    stalled: Option<Instant>,
    /// It was told that the daemon stops.
    dismissed: bool,
    /// The first round of whose digest it has not spoken.
    digests_from: u64,
}

#[derive(Clone)]
struct Round {
    pushed: usize,
    digest: u64,
    failed: Option<(u32, u32, UndecodableReason)>,
}

impl Round {
    const NEW: Round = Round { pushed: 0, digest: 0, failed: None };
}

impl Pusher {
    pub(super) fn new(
        job: &Arc<Job>,
        board: Arc<Board>,
        updates: Slab,
        inputs: Inputs,
        wake: Vec<Arc<Bell>>,
        events: Arc<ArrayQueue<Event>>,
    ) -> Pusher {
        let peers: Vec<Option<Peer>> = (0..job.plan.parameters.workers()).map(|_| None).collect();
        let rounds = vec![Round::NEW; job.plan.window as usize];
        let (job, first) = (job.clone(), job.first_round());
        let limits = Limits::of(&job.plan, job.updates);
        let (workers, liars) = (peers.len(), job.shape().words * job.shape().adversaries);
        let relay = job.relay.filter(|_| workers <= RELAY_WORKERS_MAX);
        let relays = relay.map(|it| Relays::new(it, &job.secret, workers, liars, limits.updates, limits.carried));
        let (orders, digests) = match relays {
            Some(_) => (Vec::with_capacity(2 * workers * workers), vec![(u64::MAX, 0); DIGESTS]),
            None => (Vec::new(), Vec::new()),
        };
        Pusher {
            credits_at_once: credits_at_once(&job),
            board,
            updates,
            admitted: inputs.admitted,
            decoded: inputs.decoded,
            heard: inputs.heard,
            ways: relay.filter(|relay| relay.auto).map(|_| Ways::new(first)),
            relays,
            orders,
            slow: 0,
            silence: job.write_deadline,
            membership: 0,
            job,
            digests,
            leaving: Spread::new(),
            collected: Spread::new(),
            wake,
            events,
            newest: vec![0; peers.len()],
            peers,
            rounds,
            first,
            journal: None,
            stopping: None,
            closing: None,
        }
    }

    /// The slots that updates (holder 0) and reports (holder 1) are sent from: one region, to be registered once.
    pub fn slab(&self) -> &Slab {
        &self.updates
    }

    /// Frames that are queued for workers and have not left.
    pub fn queued(&self) -> usize {
        self.peers.iter().flatten().map(|peer| peer.outbound.queued()).sum()
    }

    /// Keeps the last closed round and its digest in this file, so that a restarted daemon goes on counting. It is written
    /// before any worker learns that the round is closed.
    pub fn keep_journal(&mut self, journal: File) {
        self.journal = Some(journal);
    }

    fn round(&mut self, round: u64) -> &mut Round {
        let at = (round % self.rounds.len() as u64) as usize;
        &mut self.rounds[at]
    }

    /// Has every stage before this one look at the board.
    fn wake_all(&self) {
        self.wake.iter().for_each(|bell| bell.ring());
    }

    fn tell(&self, event: Event) {
        if self.events.push(event).is_err() {
            self.board.count(Counter::EventsLost, 1);
        }
    }

    fn take_in(&mut self, admission: Admission<dyn Outbound>, context: &Context<'_>) {
        let Admission { worker, session, half: mut outbound } = admission;
        let index = worker as usize;
        // Connections are made on several threads: an older session may come after a newer one.
        if session < self.newest[index] {
            outbound.close();
            return;
        }
        self.newest[index] = session;
        self.end(index, context);
        let token = Token(WORKERS_MAX + index);
        if let Some(registry) = context.registry {
            let sources = [(outbound.descriptor(), Interest::WRITABLE), (outbound.completions(), Interest::READABLE)];
            for (descriptor, interest) in sources {
                if descriptor.is_some_and(|it| registry.register(&mut SourceFd(&it), token, interest).is_err()) {
                    // The receiver sees the closed connection and says so.
                    outbound.close();
                    return;
                }
            }
        }
        // Nothing is for it before it is ready.
        let from = u64::MAX;
        self.board.set_ready_from(index, from);
        self.peers[index] = Some(Peer {
            outbound,
            session,
            from,
            left: from,
            granted: 0,
            writable: true,
            stalled: None,
            dismissed: false,
            digests_from: 0,
        });
    }

    /// Tells a worker from which round on it gets every chunk: the first of which no chunk is out, here and in all later ones. Not
    /// before the receiver has its session too: who is ready is awaited.
    fn make_ready(&mut self, index: usize) {
        if self.peers[index].as_ref().is_none_or(|peer| peer.from != u64::MAX) {
            return;
        }
        let window = self.first..self.first + self.rounds.len() as u64;
        let from = window.rev().find(|round| self.round(*round).pushed > 0).map_or(self.first, |last| last + 1);
        let from = if planted(Bug::ReadyTooEarly) { self.first } else { from };
        let Some(peer) = &mut self.peers[index] else { return };
        if self.board.granted(index, peer.session).is_none() {
            return;
        }
        (peer.from, peer.left) = (from, from);
        self.board.set_ready_from(index, from);
        let header = Header { job: self.job.number, session: self.job.epoch, round: from, ..Header::new(Kind::Ready) };
        let queued = peer.outbound.send(Outgoing::Control(header_bytes(header, &[])));
        debug_assert!(queued.is_ok(), "the queue of a new connection is empty");
        self.tell(Event::Joined { worker: index as u32, round: from });
        self.board.came(index);
        self.invite(index);
        // Words of earlier rounds may wait for the worker, by what its last session was ready for.
        self.wake_all();
    }

    fn end(&mut self, index: usize, context: &Context<'_>) {
        let Some(mut peer) = self.peers[index].take() else { return };
        if let Some(relays) = &mut self.relays {
            relays.left(index);
            self.board.set_relays(relays.members());
        }
        if let Some(registry) = context.registry {
            for descriptor in [peer.outbound.descriptor(), peer.outbound.completions()].into_iter().flatten() {
                // Closing the descriptor takes it off the poll in any case.
                let _ = registry.deregister(&mut SourceFd(&descriptor));
            }
        }
        peer.outbound.close();
    }

    /// Queues one frame for everybody who gets `round`.
    fn broadcast(&mut self, round: u64, slot: &SharedSlot, len: usize, context: &Context<'_>) {
        for index in 0..self.peers.len() {
            let Some(peer) = &mut self.peers[index] else { continue };
            if peer.from <= round && peer.outbound.send(Outgoing::Shared(slot.clone(), len)).is_err() {
                self.not_reading(index, context);
            }
        }
    }

    fn not_reading(&mut self, index: usize, context: &Context<'_>) {
        self.end(index, context);
        self.board.count(Counter::NotReading, 1);
        self.tell(Event::NotReading { worker: index as u32 });
    }

    fn push(&mut self, message: ToPusher, context: &Context<'_>) {
        match message {
            ToPusher::Update { round, chunk, checksum, .. } => {
                if round < self.first {
                    return;
                }
                let state = self.round(round);
                state.pushed += 1;
                state.digest = state.digest.wrapping_add(Report::digest_term(chunk, checksum));
                self.send_chunk(message, context);
            }
            ToPusher::Undecodable { round, group, chunk, reason } => {
                if round >= self.first {
                    self.round(round).failed.get_or_insert((group, chunk, reason));
                }
            }
        }
    }

    /// Closes the first open round, if all of it is pushed or it cannot be.
    fn close(&mut self, context: &Context<'_>) -> bool {
        let (number, chunks) = (self.first, self.job.plan.layout.chunks());
        let Round { pushed, digest, failed } = self.round(number).clone();
        let enough = if planted(Bug::CloseEarly) { chunks - 1 } else { chunks };
        if failed.is_none() && (pushed < enough || pushed == 0) {
            return false;
        }
        let Some(mut slot) = self.updates.take(1) else { return false };
        let mut report = Report {
            outcome: match failed {
                None => RoundOutcome::Complete,
                Some((group, chunk, reason)) => RoundOutcome::Undecodable { group, chunk, reason },
            },
            digest: if failed.is_none() { digest } else { 0 },
            residual_ratio: self.board.residual_ratio(number),
            received_ratio: self.board.received_ratio(number),
            liars: self.board.liars(number),
            late_liars: self.board.take_late_liars(),
            absent: Default::default(),
            late: Default::default(),
        };
        for worker in 0..self.peers.len() {
            match self.board.arrivals(number, worker) as usize {
                0 => report.absent.insert(worker),
                some if some < chunks => report.late.insert(worker),
                _ => {}
            }
        }
        if planted(Bug::BlameAbsent) {
            report.liars = report.liars.union(&report.absent);
        }
        let spans = self.board.spans(number, context.now);
        let duration = spans.round;
        let waited = spans.round.saturating_sub(spans.receive);
        let spent = Spent {
            last: context.now.checked_sub(waited).unwrap_or(context.now),
            closed: Instant::now(),
            locate: spans.locate,
            decode: spans.decode,
        };
        let counter = if failed.is_none() { Counter::RoundsComplete } else { Counter::RoundsUndecodable };
        self.board.count(counter, 1);
        if let Some((_, _, reason)) = failed {
            let reason = match reason {
                UndecodableReason::TooFew { .. } => Counter::RoundsTooFew,
                UndecodableReason::Disagree { .. } => Counter::RoundsDisagree,
                UndecodableReason::NotFinite { .. } => Counter::RoundsNotFinite,
                UndecodableReason::TooLarge => Counter::RoundsTooLarge,
            };
            self.board.count(reason, 1);
        }
        self.board.named(&report);
        self.board.measured().closed(&self.job, &report, &spans);
        self.write_journal(Resume { round: number, digest: report.digest });

        // Before anybody can know of the close, the window moves: what a worker sends because of it must be inside.
        *self.round(number) = Round::NEW;
        self.first += 1;
        self.board.close(number, report.digest);
        self.wake_all();

        let payload = &mut slot[HEADER_BYTES..HEADER_BYTES + REPORT_BYTES];
        report.write(payload.try_into().expect("a report's length"));
        let header =
            Header { job: self.job.number, session: self.job.epoch, round: number, ..Header::new(Kind::RoundEnd) };
        seal(header, &mut slot[..HEADER_BYTES + REPORT_BYTES]);
        self.overtake(number, context);
        self.broadcast(number, &slot.freeze(), HEADER_BYTES + REPORT_BYTES, context);
        self.tell(Event::Closed { round: number, report, duration, spent });
        if failed.is_none() {
            let takers = self.peers.iter().flatten().filter(|peer| peer.from <= number).count();
            self.leaving.closed(number, if takers > 0 { takers / 2 + 1 } else { 0 }, context.now);
            self.remember(Resume { round: number, digest }, context);
        }
        true
    }

    fn write_journal(&mut self, closed: Resume) {
        let Some(journal) = &self.journal else { return };
        if journal.write_all_at(&journal_bytes(closed), 0).is_err() {
            self.board.count(Counter::JournalErrors, 1);
        }
    }

    /// How long a session may take nothing. Less than set if it is one of few that hold up all others; if most are slow, it
    /// is the network, and nobody's fault.
    fn patience(&self) -> Duration {
        let stalled = self.peers.iter().flatten().filter(|peer| peer.stalled.is_some()).count();
        let few = 2 * stalled < self.peers.iter().flatten().count();
        if few && self.updates.free(0) == 0 { self.job.write_deadline / PRESSURE } else { self.job.write_deadline }
    }

    fn serve(&mut self, index: usize, limit: Duration, context: &Context<'_>) -> bool {
        let Some(peer) = &mut self.peers[index] else { return false };
        let mut busy = false;
        // While frames are waiting, credits wait too: so they never fill the queue.
        if (peer.stalled.is_none() || peer.outbound.merges_credits())
            && let Some(granted) = self.board.granted(index, peer.session)
            && granted.saturating_sub(peer.granted) >= self.credits_at_once
        {
            let header = Header {
                job: self.job.number,
                session: self.job.epoch,
                argument: granted,
                ..Header::new(Kind::Credit)
            };
            if peer.outbound.send(Outgoing::Control(header_bytes(header, &[]))).is_ok() {
                peer.granted = granted;
                // It may go although what waits may not: a worker that is short of credits does not free what that waits for.
                peer.writable = true;
                busy = true;
            }
        }
        let wants_turn = peer.outbound.wants_turn();
        if peer.outbound.queued() > 0 || wants_turn {
            // Before it is held to be the peer's fault it is tried once more: what became of it may not have been looked at.
            let limit = limit.max(peer.outbound.fails_within());
            let over = peer.stalled.is_some_and(|since| context.now.saturating_duration_since(since) >= limit);
            if peer.writable || wants_turn || over {
                let flushed = peer.outbound.flush(context.now);
                self.board.count(Counter::WriteCalls, peer.outbound.calls());
                match flushed {
                    Ok(flushed) => {
                        let rdma = peer.outbound.writes();
                        let counter = if rdma { Counter::RdmaBytesSent } else { Counter::BytesSent };
                        self.board.count(counter, flushed.bytes as u64);
                        busy |= flushed.bytes > 0;
                        if flushed.empty {
                            // What is queued next can be tried: no event will say so, and nothing counts the time.
                            (peer.stalled, peer.writable) = (None, true);
                            // Whose session is not ready gets nothing yet.
                            for round in peer.left..self.first {
                                // Often it leaves in the very step that closes the round.
                                let clock = || context.now.max(Instant::now());
                                if let Some(took) = self.leaving.reached(round, clock) {
                                    self.board.measured().observe(Measure::Push, took.as_secs_f64());
                                }
                            }
                            peer.left = peer.left.max(self.first);
                        } else {
                            peer.writable = peer.outbound.wants_turn();
                            if flushed.bytes > 0 || peer.stalled.is_none() || peer.outbound.is_changing() {
                                peer.stalled = Some(context.now);
                            }
                        }
                    }
                    Err(_) => {
                        // The receiver sees the end of the connection too, and says why.
                        self.end(index, context);
                        return true;
                    }
                }
            }
            let stalled = self.peers[index].as_ref().and_then(|peer| peer.stalled);
            if stalled.is_some_and(|since| context.now.saturating_duration_since(since) >= limit) {
                self.not_reading(index, context);
                return true;
            }
        }
        busy
    }

    /// Once asked to stop: lets the round that has begun come to its end, for one deadline at most, then says good-bye to
    /// everybody.
    fn stop(&mut self, context: &Context<'_>) -> bool {
        if !self.board.stop_requested() || self.board.stopped() {
            return false;
        }
        let (open, until) = *self.stopping.get_or_insert((self.first, context.now + self.job.deadline()));
        let begun = (0..self.peers.len()).any(|worker| self.board.arrivals(self.first, worker) > 0);
        // A round that only liars have begun never ends.
        if begun && self.first == open && context.now < until {
            return false;
        }
        // After the good-bye nobody asks for anything.
        self.give_up(Duration::ZERO, context);
        let header = Header { job: self.job.number, session: self.job.epoch, ..Header::new(Kind::Closing) };
        // Those too who came meanwhile.
        for peer in self.peers.iter_mut().flatten().filter(|peer| !peer.dismissed) {
            peer.dismissed = true;
            // Who does not get it learns it from the end of the connection.
            let _ = peer.outbound.send(Outgoing::Control(header_bytes(header, &[])));
            let _ = peer.outbound.flush(context.now);
        }
        // Everybody gets what was pushed, or was found not to be reading. A worker that has got the good-bye ends its session; to
        // end it before, with something of its unread, would throw away what is still under way to it.
        let until = *self.closing.get_or_insert(context.now + self.job.write_deadline);
        let connected = (0..self.job.plan.parameters.groups()).any(|group| !self.board.connected(group).is_empty());
        let queued = self.peers.iter().flatten().any(|peer| peer.outbound.queued() > 0);
        if queued || connected && context.now < until {
            return false;
        }
        self.board.set_stopped();
        self.wake_all();
        true
    }
}

/// How many credits are told at once.
fn credits_at_once(job: &Job) -> u64 {
    let credits = u64::from(job.plan.credits);
    // Where a round's words are all held until the last has come, what is not told yet must not be what the last shard needs.
    let spare = if job.surveys() { credits - (job.plan.layout.chunks() as u64).min(credits) + 1 } else { u64::MAX };
    (credits / 2).max(1).min(spare)
}

/// Bytes of the journal.
const JOURNAL_BYTES: usize = 32;

fn journal_bytes(closed: Resume) -> [u8; JOURNAL_BYTES] {
    let mut bytes = [0; JOURNAL_BYTES];
    bytes[..8].copy_from_slice(b"SOLNJRN1");
    bytes[8..16].copy_from_slice(&closed.round.to_le_bytes());
    bytes[16..24].copy_from_slice(&closed.digest.to_le_bytes());
    let checksum = crc_fast::crc32_iscsi(&bytes[..24]);
    bytes[24..28].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Reads a journal: `Ok(None)` for an empty one.
///
/// # Errors
/// If the bytes are not a whole journal.
pub fn read_journal(bytes: &[u8]) -> Result<Option<Resume>, &'static str> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let Some(bytes) = bytes.first_chunk::<JOURNAL_BYTES>() else { return Err("it is cut off") };
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let closed = Resume { round: number(8), digest: number(16) };
    if *bytes == journal_bytes(closed) { Ok(Some(closed)) } else { Err("its checksum is wrong") }
}

impl Stage for Pusher {
    fn step(&mut self, context: &Context<'_>) -> Progress {
        let mut busy = false;
        while let Some(admission) = self.admitted.pop() {
            self.take_in(admission, context);
            busy = true;
        }
        for _ in 0..UPDATES_PER_STEP {
            let Some(message) = self.decoded.pop() else { break };
            self.push(message, context);
            busy = true;
        }
        if self.relays.is_some() {
            busy |= self.listen(context);
            self.part(context);
            self.silence = self.may_be_silent(context.now);
            busy |= self.give_up(self.silence, context);
        }
        while self.close(context) {
            busy = true;
        }
        let patience = self.patience();
        for index in 0..self.peers.len() {
            self.make_ready(index);
            busy |= self.serve(index, patience, context);
        }
        busy |= self.stop(context);
        Progress::of(busy)
    }

    fn ready(&mut self, token: usize) {
        if let Some(Some(peer)) = token.checked_sub(WORKERS_MAX).and_then(|index| self.peers.get_mut(index)) {
            peer.writable = true;
        }
    }

    fn timer(&self) -> Option<Instant> {
        let limit = self.patience();
        let stalled = self.peers.iter().flatten();
        let stalled = stalled.filter_map(|peer| Some(peer.stalled? + limit.max(peer.outbound.fails_within())));
        let stop = self.closing.or(self.stopping.map(|(_, until)| until)).filter(|_| !self.board.stopped());
        let silent = self.relays.as_ref().and_then(|relays| Some(relays.oldest()? + self.silence));
        stalled.chain(stop).chain(silent).min()
    }

    fn name(&self) -> StageName {
        StageName::Push
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_read_back_and_a_damaged_one_is_refused() {
        let closed = Resume { round: 812, digest: 0xdead_beef };
        let bytes = journal_bytes(closed);
        assert_eq!(read_journal(&bytes), Ok(Some(closed)));
        assert_eq!(read_journal(&[]), Ok(None));
        assert!(read_journal(&bytes[..31]).is_err());
        for at in 0..JOURNAL_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 4;
            assert!(read_journal(&damaged).is_err(), "byte {at}");
        }
    }
}
