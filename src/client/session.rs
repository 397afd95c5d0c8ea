//! One worker's side of the protocol, without sockets, clock or threads.
//!
//! Gradients are encoded chunk by chunk straight into send slots, rounded there if the plan says so, as far as credits reach.
//! Chunks of updates land in the caller's buffer where there is one, else in a buffer of the session's, one per round of the
//! window: so a worker that still computes never keeps the daemon from sending.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use num_complex::Complex64;

use super::error::{ClientError, JoinError, Lost};
use super::landing::{Landed, State, Where, places};
use super::relay::{Buffer, Carry, Down, Relay};
use crate::code::{Generator, Precision, encode_rounded};
use crate::memory::{SharedSlot, Slab};
use crate::rules::cyclic;
use crate::transport::{Connection, Disconnect, Inbound, Landing, LinkFailure, Outbound, Outgoing, memory};
use crate::wire::{
    HEADER_BYTES, Header, Kind, LinkEnds, LinkOrder, Plan, Report, RoundOutcome, Rule, SHORT_PAYLOAD_MAX, Said,
    Violation, Welcome, header_bytes, seal, short_payload,
};

/// Shards that are encoded before they are sent: the daemon takes them in while the next ones are encoded. Measured with two cores:
/// 0.8 to 1.0 of the time of a round in which as many as there are credits (8) were encoded at once.
const SHARDS_PER_TURN: u64 = 2;

/// Words about relayed chunks that may wait to leave beside shards; more wait elsewhere.
pub(super) const WORDS: usize = 64;

/// Changes a shard after it was encoded: (round, chunk, the shard's numbers). For liars in tests and demonstrations.
pub type Tamper<'a> = &'a mut dyn FnMut(u64, u32, &mut [f32]);

/// Where the gradient stands that is being submitted; for the cyclic code those of all its batches, one after another.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// In a buffer of its own.
    Separate(&'a [f32]),
    /// In the buffer that the update lands in. A chunk whose update comes before it was encoded is not sent: the daemon no
    /// longer needs it.
    InPlace(&'a [f32]),
}

/// The memory of a session: claimed before it begins, so that a NIC can know it.
#[derive(Clone)]
pub struct Memory {
    /// Shards on their way out: as many as there are credits.
    pub shards: Slab,
    /// Where updates land: one place per round of the window, see [`Area`](crate::wire::Area).
    pub places: Slab,
}

impl Memory {
    /// The memory that a worker of this plan needs.
    pub fn new(plan: &Plan) -> Memory {
        let shard = HEADER_BYTES + plan.shard_bytes(plan.layout.chunk_width());
        Memory { shards: Slab::new(1, plan.credits as usize, shard, Vec::new()), places: places(plan) }
    }
}

/// A session with the daemon. Rounds are submitted in order, and collected in order.
pub struct Session {
    inbound: Box<dyn Inbound>,
    outbound: Box<dyn Outbound>,
    welcome: Welcome,
    job: u64,
    generator: Generator,
    row: usize,
    /// What the cyclic code multiplies its batches' gradients by.
    cyclic: Option<Vec<Complex64>>,
    slots: Slab,
    /// Shards sent in this session, and how many may be.
    sent: u64,
    granted: u64,
    submitting: Option<Submission>,
    next_round: u64,
    landed: Landed,
    lost: Option<Lost>,
    bytes_sent: u64,
    bytes_received: u64,
    encoding: Duration,
    /// Where updates are relayed.
    relay: Option<Box<Relay>>,
    short: Buffer,
    carry: Option<Carry>,
}

#[derive(Clone, Copy)]
struct Submission {
    round: u64,
    next: usize,
}

impl Session {
    /// A session over a connection whose handshake is done. `job` is the job's number.
    ///
    /// # Errors
    /// If this side cannot make the generator that the plan names.
    pub fn new(connection: Connection, welcome: Welcome, job: u64) -> Result<Session, JoinError> {
        let memory = Memory::new(&welcome.plan);
        Session::with_memory(connection, welcome, job, memory)
    }

    /// [`Session::new`] with memory that was claimed before.
    ///
    /// # Errors
    /// As there.
    pub fn with_memory(
        connection: Connection,
        welcome: Welcome,
        job: u64,
        memory: Memory,
    ) -> Result<Session, JoinError> {
        let plan = welcome.plan;
        let (p, liars) = (&plan.parameters, plan.gradients as usize / 2);
        let expected = plan.generator_digest;
        let generator = Generator::new(plan.family, plan.form, p.redundancy(), p.compression())
            .map_err(|_| JoinError::Generator { found: 0, expected })?;
        let found = generator_digest(&generator);
        if found != expected {
            return Err(JoinError::Generator { found, expected });
        }
        Ok(Session {
            inbound: connection.inbound,
            outbound: connection.outbound,
            welcome,
            job,
            generator,
            row: p.place(welcome.worker as usize).row,
            cyclic: (plan.rule == Rule::CYCLIC).then(|| cyclic::weights(p.workers(), liars, welcome.worker as usize)),
            slots: memory.shards,
            sent: 0,
            granted: 0,
            submitting: None,
            next_round: 0,
            landed: Landed::new(plan, job, welcome.epoch, memory.places),
            lost: None,
            bytes_sent: 0,
            bytes_received: 0,
            encoding: Duration::ZERO,
            relay: None,
            short: [0; SHORT_PAYLOAD_MAX],
            carry: None,
        })
    }

    /// What the daemon told this worker.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The first round of this session, once the daemon has said it; later the oldest round that is not collected.
    pub fn oldest(&self) -> Option<u64> {
        self.landed.oldest
    }

    /// The round that the next submission is for.
    pub fn next_round(&self) -> u64 {
        self.next_round
    }

    /// For how long gradients were encoded, without sending.
    pub fn encoding(&self) -> Duration {
        self.encoding
    }

    /// Bytes of frames sent and received in this session.
    pub fn traffic(&self) -> (u64, u64) {
        (self.bytes_sent, self.bytes_received)
    }

    /// Bytes of updates that were copied from one place in memory to another in this session.
    pub fn copied(&self) -> u64 {
        self.landed.copied
    }

    /// Why the faster of two ways was given up, once after it was.
    pub fn fell_back(&mut self) -> Option<LinkFailure> {
        self.inbound.fell_back()
    }

    /// Why the session is over, if it is.
    pub fn lost(&self) -> Option<Lost> {
        self.lost
    }

    pub(super) fn halves(&self) -> (&dyn Inbound, &dyn Outbound) {
        (&*self.inbound, &*self.outbound)
    }

    /// Encodes as row `row` of the group from now on: for liars that send another worker's shard.
    pub fn set_row(&mut self, row: usize) {
        self.row = row;
    }

    /// Begins to submit the next round.
    ///
    /// # Errors
    /// If the window is full, or the session is over.
    pub fn begin(&mut self) -> Result<u64, ClientError> {
        let round = self.next_round;
        if let Some(why) = self.lost {
            return Err(ClientError::AggregatorLost { round, why });
        }
        let in_flight = round - self.landed.oldest.unwrap_or(round);
        let allowed = u64::from(self.welcome.plan.window);
        if in_flight >= allowed {
            return Err(ClientError::WindowFull { in_flight, allowed });
        }
        self.submitting = Some(Submission { round, next: 0 });
        self.next_round += 1;
        Ok(round)
    }

    /// Lets the oldest round pass without a gradient of this worker, if it was not submitted.
    pub fn skip(&mut self) {
        if self.landed.oldest == Some(self.next_round) {
            self.next_round += 1;
        }
    }

    /// Gives up the submission that was begun; its remaining chunks are absent.
    pub fn abandon(&mut self) {
        self.submitting = None;
    }

    /// Encodes and queues the next chunks of the round that was begun, a few of them, as far as credits reach; `true` once all are
    /// queued. What was queued is to be driven before the next call.
    pub fn pump(&mut self, source: Source<'_>, tamper: Option<Tamper<'_>>) -> bool {
        self.pump_ready(source, usize::MAX, tamper)
    }

    /// [`Session::pump`] of a gradient of which only the first `ready` numbers are there yet; `true` once the chunks that are whole
    /// within them are queued.
    pub fn pump_ready(&mut self, source: Source<'_>, ready: usize, mut tamper: Option<Tamper<'_>>) -> bool {
        let Some(submission) = &mut self.submitting else { return true };
        let plan = &self.welcome.plan;
        let layout = &plan.layout;
        let (Source::Separate(gradient) | Source::InPlace(gradient)) = source;
        let until = self.sent + SHARDS_PER_TURN;
        while submission.next < layout.chunks() {
            let index = submission.next;
            // The last of the gradients that are combined is the last to be there.
            let before = (plan.gradients as usize - 1) * layout.dimension();
            if before + layout.chunk(index).range().end > ready {
                return true;
            }
            if !self.landed.has_begun(submission.round, index) {
                if self.sent >= self.granted.min(until) {
                    return false;
                }
                let Some(mut slot) = self.slots.take(0) else { return false };
                let chunk = layout.chunk(index);
                let (precision, len) = (plan.precision, HEADER_BYTES + plan.shard_bytes(chunk.width));
                let shard = &mut slot[HEADER_BYTES..len];
                let began = Instant::now();
                match &self.cyclic {
                    None => encode_rounded(&self.generator, self.row, &gradient[chunk.range()], precision, shard),
                    Some(weights) => {
                        let gradients = gradient.chunks_exact(layout.dimension()).map(|it| &it[chunk.range()]);
                        cyclic::encode(weights, gradients, bytemuck::cast_slice_mut(shard));
                    }
                }
                self.encoding += began.elapsed();
                if let Some(tamper) = &mut tamper {
                    let mut tamper = |numbers: &mut [f32]| tamper(submission.round, index as u32, numbers);
                    match plan.rule {
                        Rule::CYCLIC => cyclic::tampered(bytemuck::cast_slice_mut(shard), tamper),
                        _ if precision == Precision::F32 => tamper(bytemuck::cast_slice_mut(shard)),
                        _ => {
                            let mut numbers = vec![0.0; chunk.width];
                            precision.widen(shard, &mut numbers);
                            tamper(&mut numbers);
                            precision.narrow(&numbers, shard);
                        }
                    }
                }
                let header = Header {
                    job: self.job,
                    session: self.welcome.session,
                    round: submission.round,
                    chunk: index as u32,
                    worker: self.welcome.worker,
                    ..Header::new(Kind::Shard)
                };
                seal(header, &mut slot[..len]);
                if self.outbound.send(Outgoing::Owned(slot, len)).is_err() {
                    return false;
                }
                self.sent += 1;
                self.bytes_sent += len as u64;
            }
            submission.next += 1;
        }
        self.submitting = None;
        true
    }

    /// Receives and sends what can be without blocking; `true` if anything moved. Chunks of the oldest round land in `direct`.
    ///
    /// # Errors
    /// If the session is over.
    pub fn drive(&mut self, now: Instant, mut direct: Option<&mut [f32]>) -> Result<bool, Lost> {
        if let Some(lost) = self.lost {
            return Err(lost);
        }
        let moved = self.try_drive(now, &mut direct).map_err(|lost| match lost {
            Lost::Connection(_) if self.landed.behind.is_some() || self.landed.is_full() => Lost::FellBehind,
            lost => lost,
        });
        if let Err(lost) = moved {
            self.lost = Some(lost);
            self.inbound.close();
            // Its links end with it.
            self.relay = None;
        }
        moved
    }

    fn try_drive(&mut self, now: Instant, direct: &mut Option<&mut [f32]>) -> Result<bool, Lost> {
        let mut moved = self.flush(now)?;
        loop {
            let Session { inbound, landed, relay, short, .. } = self;
            let mut down = Down { place: landed.place_in(direct.as_deref_mut()), relay, short };
            let Some(header) = inbound.receive(&mut down, now)? else { break };
            self.bytes_received += HEADER_BYTES as u64 + u64::from(header.payload_bytes);
            self.take_in(&header, direct, now)?;
            moved = true;
        }
        if let Some(relay) = &mut self.relay {
            moved |= relay.drive(&mut self.landed, direct, now);
            self.say();
        }
        self.release();
        moved |= self.flush(now)?;
        // A change of the way may need several turns, and no descriptor announces them.
        moved |= self.inbound.descriptor().is_some() && self.inbound.wants_turn();
        moved |= self.outbound.descriptor().is_some() && self.outbound.wants_turn();
        Ok(moved)
    }

    /// Lets the daemon write to places that are free again.
    fn release(&mut self) {
        if let Some(round) = self.landed.release() {
            self.outbound.release(round);
        }
    }

    fn flush(&mut self, now: Instant) -> Result<bool, Lost> {
        match self.outbound.flush(now) {
            Ok(flushed) => Ok(flushed.bytes > 0),
            // What the daemon sent before it closed can still be read: a report, or why it stops. Receiving finds the end.
            Err(_) => Ok(false),
        }
    }

    fn take_in(&mut self, header: &Header, direct: &mut Option<&mut [f32]>, now: Instant) -> Result<(), Lost> {
        if short_payload(header.kind).is_some() && header.payload_bytes > 0 {
            return self.take_in_short(header, now);
        }
        if let Some(relay) = &mut self.relay
            && let Some(bytes) = relay.carried(header)
        {
            if let Ok(Some(place)) = self.landed.place_in(direct.as_deref_mut()).place(header) {
                place.copy_from_slice(bytes);
            }
            self.landed.copied += u64::from(header.payload_bytes);
            self.landed.take_in(header, direct.as_deref_mut())?;
            relay.pass_on(header);
            return Ok(());
        }
        if matches!(header.kind, Kind::Update | Kind::RoundEnd) && header.payload_bytes > 0 {
            self.landed.take_in(header, direct.as_deref_mut())?;
            if let Some(relay) = self.relay.as_mut().filter(|_| header.kind == Kind::Update) {
                relay.pass_on_from(header, &self.landed);
            }
            return Ok(());
        }
        if header.payload_bytes > 0 || !header.verifies(&[]) {
            return Err(Lost::Damaged { round: header.round, chunk: header.chunk });
        }
        match header.kind {
            Kind::Ready => {
                self.landed.begin(header.round);
                self.next_round = header.round;
            }
            Kind::Credit => self.granted = self.granted.max(header.argument),
            Kind::Closing => return Err(Lost::Stopped),
            kind => return Err(Disconnect::Violation(Violation::Kind(kind)).into()),
        }
        Ok(())
    }

    /// The end of the oldest round, if it has come: fills `update` with what did not land there directly.
    ///
    /// # Errors
    /// If the round is undecodable (the session goes on), or the session is over.
    pub fn collect(&mut self, update: &mut [f32]) -> Option<Result<(u64, Report), ClientError>> {
        self.collect_by(|landed| landed.fill(update)).map(|ended| ended.map(|(number, report, ())| (number, report)))
    }

    /// The end of the oldest round, if it has come, with the place that its update landed in: nothing is copied. The place belongs
    /// to the caller until it drops it; a round that needs it waits.
    ///
    /// # Errors
    /// As [`Session::collect`].
    pub fn collect_place(&mut self) -> Option<Result<(u64, Report, SharedSlot), ClientError>> {
        let given = self.collect_by(|landed| landed.give())?;
        Some(given.map(|(number, report, place)| (number, report, place.expect("a round that ended has its place"))))
    }

    fn collect_by<T>(&mut self, take: impl FnOnce(&mut Landed) -> T) -> Option<Result<(u64, Report, T), ClientError>> {
        let number = self.landed.oldest?;
        let Some(report) = self.landed.ended() else {
            return self.lost.map(|why| Err(ClientError::AggregatorLost { round: number, why }));
        };
        let taken = match ClientError::undecodable(number, report) {
            Some(error) => Err(error),
            None if self.landed.digest() != report.digest => {
                self.tell_digest(number);
                // A daemon that does not hear it sees the connection end.
                let _ = self.outbound.flush(Instant::now());
                let why = Lost::Digest { round: number };
                self.lost = Some(why);
                self.inbound.close();
                self.relay = None;
                return Some(Err(ClientError::AggregatorLost { round: number, why }));
            }
            None => Ok(take(&mut self.landed)),
        };
        if report.outcome == RoundOutcome::Complete {
            self.tell_digest(number);
        }
        if let Some(relay) = &mut self.relay {
            relay.forget(number);
        }
        self.landed.advance();
        self.release();
        self.next_round = self.next_round.max(number + 1);
        if self.submitting.is_some_and(|submission| submission.round == number) {
            self.submitting = None;
        }
        Some(taken.map(|taken| (number, report, taken)))
    }

    /// The caller takes its buffer away before the oldest round has ended: keeps what had landed there.
    pub fn withdraw(&mut self, direct: &[f32]) {
        self.landed.withdraw(direct);
    }

    /// Has the job closed a round that this worker has not submitted?
    pub fn is_behind(&self) -> bool {
        self.landed.oldest == Some(self.next_round) && self.landed.ended().is_some()
    }

    /// Has all that was queued left?
    pub fn is_sent(&self) -> bool {
        self.outbound.queued() == 0
    }

    /// Ends the connection, and gives back all that it holds: sockets, queue pairs, registered memory. Updates that callers still read
    /// stay.
    pub fn hang_up(&mut self) {
        self.lost.get_or_insert(Lost::Connection(Disconnect::Closed));
        // Now, even if a child of this process still has the descriptors.
        self.inbound.close();
        let (nobody, _) = memory::pair(1);
        (self.inbound, self.outbound, self.relay) = (nobody.inbound, nobody.outbound, None);
    }

    /// Tells the daemon that this worker leaves in peace, once all that was queued before has left.
    pub fn leave(&mut self, now: Instant) {
        let (job, session, worker) = (self.job, self.welcome.session, self.welcome.worker);
        let header = Header { job, session, worker, ..Header::new(Kind::Leave) };
        // A daemon that does not hear it sees the connection end.
        let _ = self.outbound.send(Outgoing::Control(header_bytes(header, &[])));
        let _ = self.outbound.flush(now);
    }
}

/// Links with other workers, over which updates are relayed. Whoever drives the session makes them.
impl Session {
    fn take_in_short(&mut self, header: &Header, now: Instant) -> Result<(), Lost> {
        let payload = &self.short[..header.payload_bytes as usize];
        if !header.verifies(payload) {
            return Err(Lost::Damaged { round: header.round, chunk: header.chunk });
        }
        if header.kind == Kind::Relay {
            let key = *payload.first_chunk().expect("a key's length");
            let range = Disconnect::Violation(Violation::Kind(Kind::Relay));
            let mut relay = Relay::new(header, key, &self.welcome, self.job).ok_or(range)?;
            relay.tamper = self.carry.take();
            self.relay = Some(Box::new(relay));
            return Ok(());
        }
        match &mut self.relay {
            Some(relay) => relay.take_in(header, &self.short, &self.landed, now),
            None => Err(Disconnect::Violation(Violation::Kind(header.kind)).into()),
        }
    }

    /// Says to the daemon what is to be said, as far as there is room.
    fn say(&mut self) {
        let Some(relay) = &mut self.relay else { return };
        while self.outbound.queued() < WORDS
            && let Some(said) = relay.words.front()
        {
            let (job, session, worker) = (self.job, self.welcome.session, self.welcome.worker);
            let header = Header { job, session, worker, ..said.header() };
            if self.outbound.send(Outgoing::Control(header_bytes(header, &[]))).is_err() {
                break;
            }
            relay.words.pop_front();
            self.bytes_sent += HEADER_BYTES as u64;
        }
    }

    fn tell_digest(&mut self, round: u64) {
        if let Some(relay) = &mut self.relay {
            relay.words.push_back(Said::Digest { round, digest: self.landed.digest() });
            self.say();
        }
    }

    /// Does the daemon want updates to be relayed?
    pub fn relays(&self) -> bool {
        self.relay.is_some()
    }

    /// Tells the daemon where other workers reach this one: at `address`, or where its connection comes from.
    pub fn reach(&mut self, address: Option<IpAddr>, port: u16) {
        if let Some(relay) = &mut self.relay {
            relay.words.push_back(Said::Reach { address, port });
            self.say();
        }
    }

    /// A link that the daemon has ordered, once; with what its two ends know.
    pub fn next_link(&mut self) -> Option<(LinkOrder, LinkEnds)> {
        let relay = self.relay.as_mut()?;
        let order = relay.orders.pop()?;
        let (job, epoch, me) = relay.about();
        let (dials, listens) = (me.max(order.peer), me.min(order.peer));
        Some((order, LinkEnds { job, epoch, dials, listens, key: order.key }))
    }

    /// How many frames a link has room for.
    pub fn link_queue(&self) -> usize {
        self.relay.as_ref().map_or(1, |relay| relay.queue())
    }

    /// A link that was ordered is there.
    pub fn link(&mut self, peer: u32, connection: Connection) {
        if let Some(relay) = &mut self.relay {
            relay.link(peer, connection);
            self.say();
        }
    }

    /// A link that was ordered could not be made.
    pub fn no_link(&mut self, peer: u32) {
        if let Some(relay) = &mut self.relay {
            relay.no_link(peer);
            self.say();
        }
    }

    /// Is there a link with this worker?
    pub fn is_linked(&self, peer: u32) -> bool {
        self.relay.as_ref().is_some_and(|relay| relay.is_linked(peer))
    }

    /// The link with this worker may have something, or take something.
    pub(super) fn link_ready(&mut self, peer: usize) {
        if let Some(relay) = &mut self.relay {
            relay.ready(peer);
        }
    }

    /// When to drive the session even if nothing comes.
    pub fn timer(&self) -> Option<Instant> {
        self.relay.as_ref()?.timer()
    }

    /// Has every frame that is passed on go through `carry`: for liars in tests and demonstrations.
    pub fn set_carry(&mut self, carry: Carry) {
        match &mut self.relay {
            Some(relay) => relay.tamper = Some(carry),
            None => self.carry = Some(carry),
        }
    }
}

impl Landed {
    /// Is a chunk's update here, or coming? Then its shard is of no use any more.
    fn has_begun(&self, round: u64, chunk: usize) -> bool {
        match self.find(round) {
            Where::Here(slot) => self.rounds[slot].chunks[chunk] != State::Missing,
            Where::Past => true,
            Where::Later => false,
        }
    }
}

/// The digest of a generator as it stands in a plan.
pub fn generator_digest(generator: &Generator) -> u64 {
    u64::from_le_bytes(generator.digest()[..8].try_into().expect("eight bytes"))
}
