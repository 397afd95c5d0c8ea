//! The RDMA transport over the provider in memory: both ends of real sessions, and everything that can go wrong with them.

mod failure;
mod flow;
mod hostile;
mod setup;
mod sides;

use std::collections::{BTreeMap, VecDeque};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::fake::{Counts, Device, Fake};
use super::sabotage::{Bug, plant};
use super::{Attachment, Fabric, LinkFailure, Memory, Needs, NoRdma, Options};
use crate::code::{Family, Form, Layout, Parameters, Precision};
use crate::memory::{Slab, Slot};
use crate::transport::{Connection, Disconnect, Inbound, Landing, Outbound, Outgoing, memory, tcp};
use crate::wire::{
    Area, HEADER_BYTES, Header, Kind, Plan, REPORT_BYTES, Rule, Short, UPDATE_OFFSET, Violation, Welcome, header_bytes,
    seal,
};
use sides::{DaemonIn, DaemonOut, Shards, Updates, WorkerSide};

/// How a session is made.
#[derive(Clone, Copy)]
pub(in crate::transport) struct Shape {
    pub layout: Layout,
    pub precision: Precision,
    pub update_precision: Precision,
    pub credits: usize,
    pub outbound: usize,
    pub window: u32,
    pub sleeps: bool,
    pub fall_back: bool,
}

pub(in crate::transport) fn usual() -> Shape {
    let (layout, precision) = (Layout::new(300, 1, 100), Precision::F32);
    Shape {
        layout,
        precision,
        update_precision: precision,
        credits: 4,
        outbound: 32,
        window: 4,
        sleeps: false,
        fall_back: true,
    }
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
            precision: self.precision,
            update_precision: self.update_precision,
            gradients: 1,
            window: self.window,
            credits: self.credits as u32,
            deadline_ms: 1000,
            tolerance: 1e-3,
            scale: 1.0,
        }
    }

    fn shard_bytes(&self) -> usize {
        self.plan().shard_bytes(self.layout.chunk_width())
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
            plan: self.shape.plan(),
            grant,
            granted: 0,
            end: None,
        };
        let landing = Updates {
            plan: self.shape.plan(),
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
        eventually(|| self.fake.counts(), Counts::is_empty);
        // Slots come back a moment after their queue pair's end, on the same thread.
        let free = || (0..self.workers).map(|worker| self.shards.free(worker)).collect::<Vec<_>>();
        eventually(free, |free| *free == vec![self.shape.credits; self.workers]);
        eventually(|| self.updates.free(0), |free| *free == self.shape.outbound + 4);
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

/// Waits until what is `seen` is right: queue pairs of the daemon are destroyed on a thread of their own.
fn eventually<T: std::fmt::Debug>(seen: impl Fn() -> T, right: impl Fn(&T) -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let now = seen();
        if right(&now) {
            return;
        }
        assert!(Instant::now() < until, "still {now:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
