//! Frames in, checked shards out; posts free slots and grants credits for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::board::{Board, Counter};
use super::ring::{Consumer, Producer};
use super::sabotage::{Bug, planted};
use super::{Admission, Context, Event, Heard, Job, Limits, Progress, Shard, Stage, StageName};
use crate::memory::{Slab, Slot};
use crate::transport::{Disconnect, Inbound, Landing};
use crate::wire::{HEADER_BYTES, Header, Kind, Said, Violation};

/// Frames taken from one worker before the next one has its turn.
const FRAMES_PER_TURN: usize = 8;

/// Receives and checks frames of all workers.
pub struct Receiver {
    job: Arc<Job>,
    board: Arc<Board>,
    slab: Slab,
    admitted: Consumer<Admission<dyn Inbound>>,
    assembler: Producer<Shard>,
    pusher: Producer<Heard>,
    /// Words of one worker that the pusher may not have heard yet, and of each all that were handed to it.
    words: u64,
    said: Vec<u64>,
    events: Arc<ArrayQueue<Event>>,
    peers: Vec<Option<Peer>>,
    /// The newest session of each worker.
    newest: Vec<u64>,
    /// Dismissals that were seen.
    dismissals: u64,
}

struct Peer {
    inbound: Box<dyn Inbound>,
    landing: SlotLanding,
    session: u64,
    /// Shards received in this session.
    received: u64,
    granted: u64,
    readable: bool,
}

/// Checks a header before its payload is read, and has the payload land in one of the worker's own slots.
struct SlotLanding {
    job: Arc<Job>,
    board: Arc<Board>,
    worker: u32,
    session: u64,
    posted: VecDeque<Slot>,
    /// The next frame is of a round that is not open yet.
    early: bool,
}

impl SlotLanding {
    /// One past the last round that is open.
    fn end(&self) -> u64 {
        self.board.closed().saturating_add(u64::from(self.job.plan.window))
    }

    fn check(&self, header: &Header) -> Result<(), Violation> {
        if header.kind != Kind::Shard {
            return Err(Violation::Kind(header.kind));
        }
        if header.job != self.job.number {
            return Err(Violation::Job);
        }
        if header.session != self.session && !planted(Bug::AnySession) {
            return Err(Violation::Session);
        }
        if header.worker != self.worker && !planted(Bug::AnyWorker) {
            return Err(Violation::Worker(header.worker));
        }
        let layout = &self.job.plan.layout;
        if header.chunk as usize >= layout.chunks() {
            return Err(Violation::Chunk { found: header.chunk, chunks: layout.chunks() as u32 });
        }
        let (first, end) = (self.board.closed(), self.end());
        // A worker that has just joined may begin at the end of the window, and has a window of its own from there.
        if header.round >= end.saturating_add(u64::from(self.job.plan.window)) && !planted(Bug::AnyRound) {
            return Err(Violation::Round { found: header.round, first, end });
        }
        let expected = self.job.plan.shard_bytes(layout.chunk(header.chunk as usize).width) as u32;
        if header.payload_bytes != expected {
            return Err(Violation::Length { found: header.payload_bytes, expected });
        }
        Ok(())
    }

    /// Checks a frame that is only a header.
    fn check_word(&self, header: &Header) -> Result<(), Violation> {
        if header.job != self.job.number {
            return Err(Violation::Job);
        }
        if header.session != self.session {
            return Err(Violation::Session);
        }
        if header.worker != self.worker {
            return Err(Violation::Worker(header.worker));
        }
        if header.verifies(&[]) { Ok(()) } else { Err(Violation::Kind(header.kind)) }
    }

    /// Checks a header; `false`: its round is not open yet.
    fn may_come(&mut self, header: &Header) -> Result<bool, Violation> {
        self.check(header)?;
        self.early = header.round >= self.end() && !planted(Bug::AnyRound);
        Ok(!self.early)
    }
}

impl Landing for SlotLanding {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        self.places(header, &mut [])
    }

    fn places<'a>(
        &'a mut self,
        header: &Header,
        further: &mut [&'a mut [u8]],
    ) -> Result<Option<&'a mut [u8]>, Violation> {
        if !self.may_come(header)? {
            return Ok(None);
        }
        let mut slots = self.posted.iter_mut();
        let first = slots.next().ok_or(Violation::Credit)?;
        // Most workers send all chunks of a round in their order.
        let plan = &self.job.plan;
        let layout = &plan.layout;
        let chunks = header.chunk as usize + 1..layout.chunks();
        for ((place, slot), chunk) in further.iter_mut().zip(slots).zip(chunks) {
            *place = &mut slot[HEADER_BYTES..HEADER_BYTES + plan.shard_bytes(layout.chunk(chunk).width)];
        }
        Ok(Some(&mut first[HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize]))
    }

    fn landed(&mut self, header: &mut Header) -> Result<bool, Violation> {
        self.may_come(header)
    }
}

impl Receiver {
    pub(super) fn new(
        job: &Arc<Job>,
        board: Arc<Board>,
        slab: Slab,
        admitted: Consumer<Admission<dyn Inbound>>,
        assembler: Producer<Shard>,
        pusher: Producer<Heard>,
        events: Arc<ArrayQueue<Event>>,
    ) -> Receiver {
        let workers = job.plan.parameters.workers();
        let (peers, newest, said) = ((0..workers).map(|_| None).collect(), vec![0; workers], vec![0; workers]);
        let words = Limits::of(&job.plan, job.updates).said as u64;
        let (job, dismissals) = (job.clone(), 0);
        Receiver { job, board, slab, admitted, assembler, pusher, words, said, events, peers, newest, dismissals }
    }

    /// The slots that shards land in: one region, to be registered once.
    pub fn slab(&self) -> &Slab {
        &self.slab
    }

    fn take_in(&mut self, admission: Admission<dyn Inbound>, context: &Context<'_>) {
        let Admission { worker, session, half: mut inbound } = admission;
        let index = worker as usize;
        // Connections are made on several threads: an older session may come after a newer one.
        if session < self.newest[index] || self.board.is_dismissed(index, session) {
            inbound.close();
            self.board.count(Counter::SessionsClosed, 1);
            return;
        }
        self.newest[index] = session;
        // The newest session of an identity wins; bytes of the old one that are still under way are never read.
        self.end(index, Disconnect::Closed, context);
        if let Some(registry) = context.registry {
            for descriptor in [inbound.descriptor(), inbound.completions()].into_iter().flatten() {
                let registered = registry.register(&mut SourceFd(&descriptor), Token(index), Interest::READABLE);
                if let Err(error) = registered {
                    inbound.close();
                    self.board.count(Counter::SessionsBroken, 1);
                    self.tell(Event::Left { worker, why: error.into() });
                    return;
                }
            }
        }
        let landing = SlotLanding {
            job: self.job.clone(),
            board: self.board.clone(),
            worker,
            session,
            posted: VecDeque::with_capacity(self.job.plan.credits as usize),
            early: false,
        };
        self.peers[index] = Some(Peer { inbound, landing, session, received: 0, granted: 0, readable: true });
        self.board.set_connected(index, true);
        // The pusher tells the worker that it is ready once it sees a grant of this session, be it of nothing.
        self.board.grant(index, session, 0);
        self.pusher.ring();
    }

    fn end(&mut self, index: usize, why: Disconnect, context: &Context<'_>) {
        let Some(mut peer) = self.peers[index].take() else { return };
        if let Some(registry) = context.registry {
            for descriptor in [peer.inbound.descriptor(), peer.inbound.completions()].into_iter().flatten() {
                // Closing the descriptor takes it off the poll in any case.
                let _ = registry.deregister(&mut SourceFd(&descriptor));
            }
        }
        peer.inbound.close();
        self.board.count(Counter::ReadCalls, peer.inbound.calls());
        self.board.set_connected(index, false);
        // Words may wait for this worker, and chunks that were announced to it.
        self.assembler.ring();
        self.pusher.ring();
        self.board.measured().credit(peer.received, peer.granted);
        if let Disconnect::Violation(violation) = &why {
            self.board.violated(violation);
        }
        let counter = match why {
            Disconnect::Closed => Counter::SessionsClosed,
            Disconnect::Io(_) => Counter::SessionsBroken,
            Disconnect::Violation(_) => Counter::SessionsViolating,
            Disconnect::Mixed => Counter::SessionsMixed,
            Disconnect::Rdma(_) => Counter::SessionsLostRdma,
        };
        self.board.count(counter, 1);
        self.tell(Event::Left { worker: index as u32, why });
    }

    fn tell(&self, event: Event) {
        if self.events.push(event).is_err() {
            self.board.count(Counter::EventsLost, 1);
        }
    }

    /// Posts the free slots of a worker and grants as many credits.
    fn post(&mut self, index: usize) -> bool {
        // Who has no credit sends nothing, and no time runs.
        if !self.board.begun() && !planted(Bug::BeginEarly) {
            return false;
        }
        let Some(peer) = &mut self.peers[index] else { return false };
        while let Some(slot) = peer.inbound.give_back() {
            peer.landing.posted.push_back(slot);
        }
        while peer.landing.posted.len() + peer.inbound.posted() < self.job.plan.credits as usize {
            let Some(slot) = self.slab.take(index) else { break };
            // Where the transport does not take it, the landing has it ready.
            if let Err(slot) = peer.inbound.post(slot) {
                peer.landing.posted.push_back(slot);
            }
        }
        let granted = peer.received + (peer.landing.posted.len() + peer.inbound.posted()) as u64;
        if granted == peer.granted {
            return false;
        }
        self.board.measured().credit(granted, peer.granted);
        peer.granted = granted;
        let twice = if planted(Bug::GrantTwice) { peer.received } else { 0 };
        self.board.grant(index, peer.session, granted + twice);
        self.pusher.ring();
        true
    }

    /// Takes what one worker sent, a bounded number of frames.
    fn turn(&mut self, index: usize, context: &Context<'_>) -> Result<bool, Disconnect> {
        let Some(peer) = &mut self.peers[index] else { return Ok(false) };
        if !peer.readable && !peer.inbound.wants_turn() {
            return Ok(false);
        }
        self.board.count(Counter::ReadCalls, peer.inbound.calls());
        for taken in 0..FRAMES_PER_TURN {
            let Some(header) = peer.inbound.receive(&mut peer.landing, context.now)? else {
                // A frame that waits for its round is not announced again.
                peer.readable = peer.landing.early || peer.inbound.wants_turn();
                if let Some(why) = peer.inbound.fell_back() {
                    self.board.count(Counter::RdmaFallbacks, 1);
                    self.tell(Event::FellBack { worker: index as u32, why });
                }
                return Ok(taken > 0);
            };
            self.board.seen(index, context.now);
            if header.kind == Kind::Leave && header.verifies(&[]) {
                return Err(Disconnect::Closed);
            }
            if let Some(said) = Said::of(&header).filter(|_| self.job.relay.is_some() && header.payload_bytes == 0) {
                peer.landing.check_word(&header)?;
                let session = peer.session;
                // More than can be true: a flood.
                if self.said[index] - self.board.heard(index) >= self.words {
                    return Err(Violation::Credit.into());
                }
                self.said[index] += 1;
                self.pusher.push_within_limit(Heard { worker: index as u32, session, said });
                continue;
            }
            if header.payload_bytes == 0 {
                // An empty payload was not checked when it landed: no shard is empty.
                peer.landing.check(&header)?;
                return Err(Violation::Kind(header.kind).into());
            }
            let filled = peer.inbound.filled();
            let counter = if filled.is_some() { Counter::RdmaBytesReceived } else { Counter::BytesReceived };
            let filled = filled.or_else(|| peer.landing.posted.pop_front());
            let slot = filled.expect("the payload landed in the first posted slot");
            peer.received += 1;
            self.board.measured().credit(0, 1);
            self.board.count(counter, u64::from(header.payload_bytes) + HEADER_BYTES as u64);
            let payload = &slot[HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize];
            if !header.verifies(payload) && !planted(Bug::SkipChecksum) {
                self.board.count(Counter::ShardsCorrupt, 1);
                continue;
            }
            let Header { worker, chunk, round, .. } = header;
            self.assembler.push_within_limit(Shard { worker, chunk, round, slot });
        }
        Ok(true)
    }
}

impl Stage for Receiver {
    fn step(&mut self, context: &Context<'_>) -> Progress {
        let mut busy = false;
        while let Some(admission) = self.admitted.pop() {
            self.take_in(admission, context);
            busy = true;
        }
        let dismissals = self.board.dismissals();
        if std::mem::replace(&mut self.dismissals, dismissals) != dismissals {
            for index in 0..self.peers.len() {
                let session = self.peers[index].as_ref().map(|peer| peer.session);
                if session.is_some_and(|session| self.board.is_dismissed(index, session)) {
                    self.end(index, Disconnect::Mixed, context);
                }
            }
        }
        for index in 0..self.peers.len() {
            busy |= self.post(index);
            match self.turn(index, context) {
                Ok(taken) => busy |= taken,
                Err(why) => {
                    self.end(index, why, context);
                    busy = true;
                }
            }
        }
        Progress::of(busy)
    }

    fn ready(&mut self, token: usize) {
        if let Some(Some(peer)) = self.peers.get_mut(token) {
            peer.readable = true;
        }
    }

    fn timer(&self) -> Option<Instant> {
        // A link that is being given up is asked again: what it waits for may be announced by nothing.
        let again = |peer: &Peer| peer.inbound.descriptor().is_some() && peer.inbound.wants_turn();
        self.peers.iter().flatten().any(again).then(Instant::now)
    }

    fn name(&self) -> StageName {
        StageName::Receive
    }
}
