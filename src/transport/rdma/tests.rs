//! The RDMA transport over the provider in memory: both ends of real sessions, and everything that can go wrong with them.

mod failure;
mod flow;
mod hostile;
mod setup;

use std::collections::{BTreeMap, VecDeque};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::fake::{Device, Fake};
use super::sabotage::{Bug, plant};
use super::{Attachment, Fabric, LinkFailure, Memory, Needs, NoRdma, Options};
use crate::code::{Family, Form, Layout, Parameters};
use crate::memory::{Slab, Slot};
use crate::transport::{Connection, Disconnect, Inbound, Landing, Outbound, Outgoing, memory, tcp};
use crate::wire::{
    Area, HEADER_BYTES, Header, Kind, Plan, REPORT_BYTES, Rule, UPDATE_OFFSET, Violation, Welcome, header_bytes, seal,
};

/// How a session is made.
#[derive(Clone, Copy)]
pub(in crate::transport) struct Shape {
    pub layout: Layout,
    pub credits: usize,
    pub outbound: usize,
    pub window: u32,
    pub sleeps: bool,
    pub fall_back: bool,
}

pub(in crate::transport) fn usual() -> Shape {
    Shape { layout: Layout::new(300, 1, 100), credits: 4, outbound: 32, window: 4, sleeps: false, fall_back: true }
}

impl Shape {
    pub fn plan(&self) -> Plan {
        Plan {
            parameters: Parameters::new(1, 0, 1, 1).unwrap(),
            rule: Rule::Solon,
            family: Family::Trigonometric,
            form: Form::Systematic,
            generator_digest: 0,
            layout: self.layout,
            window: self.window,
            credits: self.credits as u32,
            deadline_ms: 1000,
            tolerance: 1e-3,
            scale: 1.0,
        }
    }

    fn shard_bytes(&self) -> usize {
        4 * self.layout.chunk_width()
    }

    fn chunk_bytes(&self) -> usize {
        4 * self.layout.chunk(0).len
    }
}

fn on(device: &str) -> Options {
    // The provider has no sysfs that would say of what kind its addresses are, so one is named.
    Options { devices: device.parse().unwrap(), gid_index: Some(0), ..Options::default() }
}

/// A daemon with its fabric on `fake0`, and a network; workers come from `fake1`.
pub(in crate::transport) struct Rig {
    pub fake: Fake,
    pub shape: Shape,
    pub fabric: Option<Fabric>,
    pub shards: Slab,
    pub updates: Slab,
    workers: usize,
}

/// What a worker registers.
pub(in crate::transport) struct WorkerMemory {
    pub slots: Slab,
    pub places: Slab,
}

impl WorkerMemory {
    pub fn new(shape: &Shape) -> WorkerMemory {
        let slots = Slab::new(1, shape.credits + 2, 2 * (HEADER_BYTES + shape.shard_bytes()), Vec::new());
        let place = UPDATE_OFFSET + 4 * shape.layout.dimension();
        WorkerMemory { slots, places: Slab::new(shape.window as usize, 1, place, Vec::new()) }
    }
}

fn fake() -> Fake {
    Fake::with(vec![Device::roce("fake0", 1), Device::roce("fake1", 2)])
}

fn tcp_pair() -> (Connection, Connection) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (here, _) = listener.accept().unwrap();
    let end = |stream| tcp::connection(stream, 48, Duration::from_secs(10)).unwrap();
    (end(here), end(there))
}

impl Rig {
    pub fn new(shape: Shape) -> Rig {
        Rig::on(fake(), shape, 1).unwrap()
    }

    fn on(fake: Fake, shape: Shape, workers: usize) -> Result<Rig, NoRdma> {
        let shards = Slab::new(workers, shape.credits, HEADER_BYTES + shape.shard_bytes(), Vec::new());
        let longest = shape.chunk_bytes().max(REPORT_BYTES);
        let updates = Slab::new(1, shape.outbound + 4, HEADER_BYTES + longest, Vec::new());
        let needs = Needs {
            workers,
            credits: shape.credits,
            outbound: shape.outbound,
            layout: shape.layout,
            sleeps: shape.sleeps,
            fall_back: shape.fall_back,
        };
        let fabric = Fabric::open(fake.api(), &on("fake0"), None, needs, &shards, &updates, Arc::new([]))?;
        Ok(Rig { fake, shape, fabric: Some(fabric), shards, updates, workers })
    }

    fn fabric(&self) -> &Fabric {
        self.fabric.as_ref().expect("it is open")
    }

    fn control(&self) -> (Connection, Connection) {
        memory::pair(self.shape.outbound + self.shape.credits + self.shape.window as usize + 8)
    }

    /// A session over this control connection; the worker says that its area is `area` of the true one.
    pub fn connect(
        &self,
        worker: usize,
        memory: &WorkerMemory,
        control: (Connection, Connection),
        area: impl FnOnce(Area) -> Area,
    ) -> (Connection, Connection) {
        let plan = self.shape.plan();
        let welcome = Welcome { plan, worker: worker as u32, session: 7, epoch: 9, last: None };
        let offer = self.fabric().offer(worker).unwrap();
        let registered = Memory { shards: &memory.slots, places: &memory.places };
        let there = offer.endpoint();
        let attachment = Attachment::new(self.fake.api(), &on("fake1"), None, registered, &plan, &there).unwrap();
        let area = area(attachment.area());
        let connected = self.fabric().connect(offer, &attachment.endpoint(), area, control.0);
        let Ok(daemon) = connected else { panic!("the daemon connects") };
        (daemon, attachment.connect(control.1, &welcome, 5, self.shape.fall_back))
    }

    /// A session of worker 0 that is ready for round 0.
    fn session(&self) -> Session {
        self.session_with(0, self.control(), |area| area)
    }

    fn session_with(
        &self,
        worker: usize,
        control: (Connection, Connection),
        area: impl FnOnce(Area) -> Area,
    ) -> Session {
        let memory = WorkerMemory::new(&self.shape);
        let (daemon, there) = self.connect(worker, &memory, control, area);
        let grant = Arc::new(AtomicU64::new(0));
        let inbound = DaemonIn {
            inbound: daemon.inbound,
            landing: Shards { expected: self.shape.shard_bytes() as u32, posted: VecDeque::new(), open: u64::MAX },
            slab: self.shards.clone(),
            worker,
            credits: self.shape.credits,
            grant: grant.clone(),
            got: Vec::new(),
            heard: Vec::new(),
            fell_back: Vec::new(),
            held: VecDeque::new(),
            wrong: None,
            end: None,
        };
        let outbound = DaemonOut {
            outbound: daemon.outbound,
            slab: self.updates.clone(),
            layout: self.shape.layout,
            grant,
            granted: 0,
            end: None,
        };
        let landing = Updates {
            layout: self.shape.layout,
            held: (0..self.shape.window as usize).map(|at| memory.places.take(at).unwrap()).collect(),
            oldest: None,
            full: false,
            buffer: Vec::new(),
            got: BTreeMap::new(),
            wrong: None,
        };
        let worker = WorkerSide {
            inbound: there.inbound,
            outbound: there.outbound,
            slots: memory.slots,
            shard: self.shape.shard_bytes(),
            landing,
            granted: 0,
            sent: 0,
            releases: true,
            heard: Vec::new(),
            fell_back: Vec::new(),
            end: None,
        };
        let mut session = Session { inbound, outbound, worker };
        session.inbound.turn();
        session.outbound.control(Header { round: 0, job: 5, session: 9, ..Header::new(Kind::Ready) });
        session
    }

    /// The daemon ends: nothing of it is left, nor of the sessions, which must be over.
    fn check_nothing_is_left(mut self) {
        self.fabric = None;
        assert!(self.fake.counts().is_empty(), "{:?}", self.fake.counts());
        let free: Vec<usize> = (0..self.workers).map(|worker| self.shards.free(worker)).collect();
        assert_eq!(free, vec![self.shape.credits; self.workers], "every slot for shards came back");
        assert_eq!(self.updates.free(0), self.shape.outbound + 4, "every slot for updates came back");
    }
}

/// Where shards land at the daemon.
struct Shards {
    expected: u32,
    posted: VecDeque<Slot>,
    /// Rounds from this one on are early.
    open: u64,
}

impl Shards {
    fn may_come(&self, header: &Header) -> Result<bool, Violation> {
        if header.kind != Kind::Shard {
            return Err(Violation::Kind(header.kind));
        }
        if header.payload_bytes != self.expected {
            return Err(Violation::Length { found: header.payload_bytes, expected: self.expected });
        }
        Ok(header.round < self.open)
    }
}

impl Landing for Shards {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        if !self.may_come(header)? {
            return Ok(None);
        }
        let slot = self.posted.front_mut().ok_or(Violation::Credit)?;
        Ok(Some(&mut slot[HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize]))
    }

    fn landed(&mut self, header: &mut Header) -> Result<bool, Violation> {
        self.may_come(header)
    }
}

/// What the receiver of a pipeline does with a worker's receiving half. Shard number `n` is of round `n`.
struct DaemonIn {
    inbound: Box<dyn Inbound>,
    landing: Shards,
    slab: Slab,
    worker: usize,
    credits: usize,
    grant: Arc<AtomicU64>,
    got: Vec<u64>,
    heard: Vec<Header>,
    fell_back: Vec<LinkFailure>,
    /// Slots that the pipeline still reads, and what must stand in them.
    held: VecDeque<(Slot, Header)>,
    wrong: Option<String>,
    end: Option<Disconnect>,
}

const READ_LATER: usize = 2;

impl DaemonIn {
    fn post(&mut self) {
        while let Some(slot) = self.inbound.give_back() {
            self.landing.posted.push_back(slot);
        }
        while self.landing.posted.len() + self.inbound.posted() < self.credits {
            let Some(slot) = self.slab.take(self.worker) else { break };
            if let Err(slot) = self.inbound.post(slot) {
                self.landing.posted.push_back(slot);
            }
        }
        let granted = self.got.len() + self.landing.posted.len() + self.inbound.posted();
        self.grant.store(granted as u64, Ordering::SeqCst);
    }

    fn read(&mut self, leave: usize) {
        while self.held.len() > leave {
            let Some((slot, header)) = self.held.pop_front() else { return };
            let payload = &slot[HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize];
            if !header.verifies(payload) || payload.iter().any(|byte| *byte != header.round as u8) {
                self.wrong = Some(format!("shard {} is damaged", header.round));
            }
        }
    }

    fn turn(&mut self) {
        if self.end.is_some() {
            return;
        }
        self.post();
        for _ in 0..8 {
            match self.inbound.receive(&mut self.landing, Instant::now()) {
                Ok(Some(header)) if header.payload_bytes == 0 => self.heard.push(header),
                Ok(Some(header)) => {
                    let slot = self.inbound.filled().or_else(|| self.landing.posted.pop_front());
                    self.held.push_back((slot.expect("it landed in a slot"), header));
                    self.got.push(header.round);
                    self.read(READ_LATER);
                }
                Ok(None) => {
                    self.fell_back.extend(self.inbound.fell_back());
                    return;
                }
                Err(end) => {
                    self.inbound.close();
                    self.end = Some(end);
                    return;
                }
            }
        }
    }
}

fn pattern(round: u64, chunk: u32) -> u8 {
    (round * 31 + u64::from(chunk) * 7 + 1) as u8
}

/// What the pusher of a pipeline does with a worker's sending half.
struct DaemonOut {
    outbound: Box<dyn Outbound>,
    slab: Slab,
    layout: Layout,
    grant: Arc<AtomicU64>,
    granted: u64,
    end: Option<Disconnect>,
}

impl DaemonOut {
    fn control(&mut self, header: Header) {
        self.outbound.send(Outgoing::Control(header_bytes(header, &[]))).unwrap();
    }

    /// Queues a chunk of an update, or with `None` a report; `false` if there is no room now.
    fn send(&mut self, round: u64, chunk: Option<u32>) -> bool {
        let Some(mut slot) = self.slab.take(0) else { return false };
        let (kind, bytes) = match chunk {
            Some(chunk) => (Kind::Update, 4 * self.layout.chunk(chunk as usize).len),
            None => (Kind::RoundEnd, REPORT_BYTES),
        };
        let chunk = chunk.unwrap_or(0);
        let len = HEADER_BYTES + bytes;
        slot[HEADER_BYTES..len].fill(pattern(round, chunk));
        seal(Header { job: 5, session: 9, round, chunk, ..Header::new(kind) }, &mut slot[..len]);
        self.outbound.send(Outgoing::Shared(slot.freeze(), len)).is_ok()
    }

    fn tell(&mut self) {
        let grant = self.grant.load(Ordering::SeqCst);
        if grant > self.granted {
            self.granted = grant;
            self.control(Header { argument: grant, job: 5, session: 9, ..Header::new(Kind::Credit) });
        }
    }

    fn turn(&mut self) {
        if self.end.is_some() {
            return;
        }
        self.tell();
        if let Err(end) = self.outbound.flush(Instant::now()) {
            self.outbound.close();
            self.end = Some(end);
        }
    }
}

/// Where updates land at a worker.
struct Updates {
    layout: Layout,
    held: Vec<Slot>,
    oldest: Option<u64>,
    full: bool,
    buffer: Vec<u8>,
    /// How often each came: `None` is the report.
    got: BTreeMap<(u64, Option<u32>), usize>,
    wrong: Option<String>,
}

impl Updates {
    fn window(&self) -> Result<std::ops::Range<u64>, Violation> {
        let first = self.oldest.unwrap_or(0);
        Ok(first..first + self.held.len() as u64)
    }

    fn check(&mut self, round: u64, chunk: Option<u32>, ok: bool) {
        if !ok {
            self.wrong = Some(format!("chunk {chunk:?} of round {round} is damaged"));
        }
        *self.got.entry((round, chunk)).or_insert(0) += 1;
        while let Some(oldest) = self.oldest.filter(|oldest| self.whole(*oldest)) {
            self.oldest = Some(oldest + 1);
        }
    }

    fn whole(&self, round: u64) -> bool {
        let chunks = (0..self.layout.chunks() as u32).map(Some).chain([None]);
        chunks.into_iter().all(|chunk| self.got.contains_key(&(round, chunk)))
    }
}

fn is(bytes: &[u8], round: u64, chunk: u32) -> bool {
    bytes.iter().all(|byte| *byte == pattern(round, chunk))
}

impl Landing for Updates {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        if self.full {
            return Ok(None);
        }
        self.buffer.resize(header.payload_bytes as usize, 0);
        Ok(Some(&mut self.buffer))
    }

    fn landed(&mut self, header: &mut Header) -> Result<bool, Violation> {
        if self.oldest.is_none() || self.full {
            return Ok(false);
        }
        let window = self.window()?;
        if !window.contains(&header.round) {
            return Err(Violation::Round { found: header.round, first: window.start, end: window.end });
        }
        let (round, place) = (header.round, &self.held[(header.round % self.held.len() as u64) as usize]);
        if header.kind == Kind::RoundEnd {
            let header = Header::parse(place.part(0..HEADER_BYTES).try_into().unwrap())?;
            let report = place.part(HEADER_BYTES..HEADER_BYTES + REPORT_BYTES);
            let ok = header.round == round && header.verifies(report) && is(report, round, 0);
            self.check(round, None, ok);
            return Ok(true);
        }
        let range = self.layout.chunk(header.chunk as usize).range();
        let ok = is(place.part(UPDATE_OFFSET + 4 * range.start..UPDATE_OFFSET + 4 * range.end), round, header.chunk);
        self.check(round, Some(header.chunk), ok);
        header.checksum = 0;
        Ok(true)
    }
}

/// What a client's session does.
struct WorkerSide {
    inbound: Box<dyn Inbound>,
    outbound: Box<dyn Outbound>,
    slots: Slab,
    shard: usize,
    landing: Updates,
    granted: u64,
    sent: u64,
    /// Does it tell the daemon what it has collected?
    releases: bool,
    heard: Vec<Kind>,
    fell_back: Vec<LinkFailure>,
    end: Option<Disconnect>,
}

impl WorkerSide {
    fn frame(&self, round: u64, payload: usize) -> Option<Outgoing> {
        let mut slot = self.slots.take(0)?;
        let len = HEADER_BYTES + payload;
        slot[HEADER_BYTES..len].fill(round as u8);
        seal(Header { round, ..Header::new(Kind::Shard) }, &mut slot[..len]);
        Some(Outgoing::Owned(slot, len))
    }

    /// Sends as many shards as it may, up to number `until`.
    fn pump(&mut self, until: u64) {
        while self.sent < until.min(self.granted) {
            let Some(frame) = self.frame(self.sent, self.shard) else { return };
            if self.outbound.send(frame).is_err() {
                return;
            }
            self.sent += 1;
        }
    }

    fn control(&mut self, header: Header) {
        self.outbound.send(Outgoing::Control(header_bytes(header, &[]))).unwrap();
    }

    fn turn(&mut self) {
        if self.end.is_some() {
            return;
        }
        let _ = self.outbound.flush(Instant::now());
        let before = self.landing.oldest;
        loop {
            match self.inbound.receive(&mut self.landing, Instant::now()) {
                Ok(Some(header)) => self.take_in(header),
                Ok(None) => break,
                Err(end) => {
                    self.inbound.close();
                    self.end = Some(end);
                    return;
                }
            }
        }
        self.fell_back.extend(self.inbound.fell_back());
        if let (Some(oldest), true) = (self.landing.oldest, self.releases && before != self.landing.oldest) {
            self.outbound.release(oldest);
        }
        let _ = self.outbound.flush(Instant::now());
    }

    fn take_in(&mut self, header: Header) {
        match header.kind {
            Kind::Ready => self.landing.oldest = Some(header.round),
            Kind::Credit => self.granted = self.granted.max(header.argument),
            // It came by TCP, or was looked at when it landed.
            Kind::Update | Kind::RoundEnd if !self.landing.buffer.is_empty() => {
                let chunk = (header.kind == Kind::Update).then_some(header.chunk);
                let bytes = std::mem::take(&mut self.landing.buffer);
                let ok = header.verifies(&bytes) && is(&bytes, header.round, header.chunk);
                self.landing.check(header.round, chunk, ok);
            }
            _ => {}
        }
        self.heard.push(header.kind);
    }
}

/// Both ends of a session.
struct Session {
    inbound: DaemonIn,
    outbound: DaemonOut,
    worker: WorkerSide,
}

impl Session {
    fn step(&mut self) {
        self.inbound.turn();
        self.outbound.turn();
        self.worker.turn();
    }

    fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }

    fn wrong(&mut self) -> Option<String> {
        self.inbound.read(0);
        self.inbound.wrong.take().or(self.worker.landing.wrong.take())
    }
}

/// How many shards and rounds a scenario has.
const SHARDS: u64 = 60;
const ROUNDS: u64 = 12;

/// Has shards and updates go both ways, with something happening after `when` turns; every shard must come once and in order,
/// every update at all, and both sides must be able to go on.
fn carry(session: &mut Session, when: usize, happens: impl FnMut(&mut Session)) -> Result<(), String> {
    carry_by(session, when, Session::step, happens)
}

fn carry_by(
    session: &mut Session,
    when: usize,
    mut step: impl FnMut(&mut Session),
    mut happens: impl FnMut(&mut Session),
) -> Result<(), String> {
    let mut updates = (0..ROUNDS).flat_map(|round| [Some(0), Some(1), Some(2), None].map(|chunk| (round, chunk)));
    let mut next = updates.next();
    for turn in 0..2000 {
        if turn == when {
            happens(session);
        }
        session.worker.pump(SHARDS);
        // A few at a time, so that whatever happens comes in the middle.
        for _ in 0..2 {
            let Some((round, chunk)) = next else { break };
            if !session.outbound.send(round, chunk) {
                break;
            }
            next = updates.next();
        }
        step(session);
        if let Some(end) = session.inbound.end.or(session.outbound.end).or(session.worker.end) {
            return Err(format!("it ended: {end}"));
        }
        let all = session.inbound.got.len() as u64 >= SHARDS && session.worker.landing.oldest == Some(ROUNDS);
        if all && turn > when + 20 {
            return check(session);
        }
    }
    let got = (session.inbound.got.len(), session.worker.landing.oldest, session.worker.granted, session.worker.sent);
    Err(format!("it hangs: {got:?}"))
}

fn check(session: &mut Session) -> Result<(), String> {
    let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_string()) };
    session.steps(10);
    if let Some(wrong) = session.wrong() {
        return Err(wrong);
    }
    require(session.inbound.got == (0..SHARDS).collect::<Vec<_>>(), "every shard arrives once and in order")?;
    require(session.outbound.outbound.queued() == 0, "the daemon has nothing left to send")?;
    require(session.worker.outbound.queued() == 0, "the worker has nothing left to send")?;
    session.steps(10);
    let credits = session.inbound.credits as u64;
    require(session.worker.granted == session.worker.sent + credits, "every slot is a credit again")?;
    // So many shards can be sent again.
    session.worker.pump(SHARDS + credits);
    session.steps(10);
    session.inbound.read(0);
    require(session.inbound.got.len() as u64 == SHARDS + credits, "credits can be used")?;
    require(session.inbound.end.is_none(), "and break nothing")
}
