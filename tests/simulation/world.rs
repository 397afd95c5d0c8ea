//! The whole cluster in one thread: the pipeline, its workers, the network between them, and the clock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use solon::pipeline::{Bells, Context, Handle, Limits, Pipeline, Progress, Stage};
use solon::transport::Connection;
use solon::transport::faulty::Faulty;
use solon::wire::{HEADER_BYTES, Resume, Welcome};

use crate::dice::Dice;
use crate::fabric::Fabric;
use crate::gradients::Gradients;
use crate::honest::Honest;
use crate::judge::Judge;
use crate::liar::Liar;
use crate::network::{Link, TICK};
use crate::oracle::{Failure, Oracle};
use crate::probes::{Probe, Probes};
use crate::scenario::{DEADLINE, Role, Scenario};
use crate::strategy::Strategy;
use crate::tap::{Log, Rules, Spout, Tap};

/// What everybody may look at.
pub struct View<'a> {
    pub tick: u64,
    pub now: Instant,
    /// The first round that is open.
    pub closed: u64,
    /// When its time began to run.
    pub start: Option<u64>,
    /// Honest workers begin no round from this one on.
    pub end: u64,
    /// The liars are gone.
    pub draining: bool,
    pub scenario: &'a Scenario,
    pub gradients: &'a Gradients,
}

/// A worker's end of a new session.
pub struct Joined {
    pub welcome: Welcome,
    pub link: Link,
    pub connection: Connection,
}

/// How workers reach the daemon.
pub struct Net {
    scenario: Arc<Scenario>,
    handle: Handle,
    log: Arc<Mutex<Log>>,
    epoch: u64,
    sessions: u64,
    last: Option<Resume>,
    links: Vec<Option<Link>>,
    /// The newest session of each worker.
    current: Vec<u64>,
    /// A worker joined while its old session was still open.
    fenced: u64,
    /// Links between workers.
    pub fabric: Fabric,
    /// Sessions that ended without a word over their links.
    vanished: u64,
}

impl Net {
    /// A new session of `worker`, if the daemon can take one now.
    pub fn connect(&mut self, worker: u32, view: &View<'_>) -> Option<Joined> {
        let (job, index) = (&self.scenario.job, worker as usize);
        if self.handle.board.stopped() {
            return None;
        }
        self.sessions += 1;
        let session = self.sessions;
        let limits = Limits::of(&job.plan, job.updates);
        let dice = Dice::new(self.scenario.weather, "link", worker.into(), session);
        let quality = self.scenario.quality[index].clone();
        let relayed = job.relay.is_some();
        let queue = limits.outbound_of(&self.scenario.job);
        let (link, mut daemon, connection) = Link::new(quality, dice, queue);
        if let Some(faults) = self.scenario.faults[index].filter(|_| !view.draining) {
            let seed = self.scenario.weather.wrapping_mul(31).wrapping_add(session);
            daemon.inbound =
                Box::new(Faulty::new(daemon.inbound, faults, seed, limits.shard_slot_bytes - HEADER_BYTES));
        }
        let rules = Rules {
            precision: job.plan.precision,
            job: job.number,
            window: u64::from(job.plan.window),
            layout: job.plan.layout,
            board: self.handle.board.clone(),
            relayed,
        };
        let inner = daemon.inbound;
        daemon.inbound =
            Box::new(Tap { inner, owner: worker, session, rules, log: self.log.clone(), buffer: Vec::new() });
        if relayed {
            let (inner, far, log) = (daemon.outbound, !self.scenario.near[index], self.log.clone());
            daemon.outbound = Box::new(Spout { inner, worker, session, far, log });
        }
        if !self.handle.admit(worker, session, daemon) {
            link.cut(true);
            return None;
        }
        if self.links[index].replace(link.clone()).is_some_and(|old| !old.is_closed()) {
            self.fenced += 1;
        }
        self.current[index] = session;
        let welcome = Welcome { plan: job.plan, worker, session, epoch: self.epoch, last: self.last };
        Some(Joined { welcome, link, connection })
    }

    /// A session is over at its worker.
    pub fn left(&mut self, session: u64, vanishes: bool) {
        self.vanished += u64::from(vanishes);
        self.fabric.left(session, vanishes);
    }
}

/// One run of one scenario.
pub struct World {
    scenario: Arc<Scenario>,
    pipeline: Pipeline,
    net: Net,
    pub judge: Judge,
    gradients: Rc<Gradients>,
    honest: Vec<Honest>,
    liars: Vec<Liar>,
    base: Instant,
    tick: u64,
    dice: Dice,
    draining: bool,
    restarted: bool,
}

/// What came of a scenario.
pub struct Outcome {
    pub rounds: u64,
    pub ticks: u64,
    pub digest: [u8; 32],
    pub closes: Vec<(u64, u64)>,
    pub probes: Probes,
    pub failure: Option<Failure>,
}

/// Runs a scenario to its end, or to the first oracle that does not hold.
pub fn run(scenario: Scenario, verbose: bool) -> Outcome {
    let mut world = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        world.insert(World::new(scenario, verbose)).run();
    }));
    let Some(mut world) = world else { panic!("the pipeline cannot be made") };
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default();
        world.judge.fail(Oracle::Panic, world.judge.closed(), text);
    }
    let judge = &mut world.judge;
    let probes = std::mem::take(&mut judge.probes);
    let (digest, closes) = (judge.digest(), std::mem::take(&mut judge.closes));
    Outcome { rounds: judge.closed(), ticks: world.tick, digest, closes, probes, failure: judge.failure.take() }
}

impl World {
    fn new(scenario: Scenario, verbose: bool) -> World {
        let scenario = Arc::new(scenario);
        let judge = Judge::new(&scenario, verbose);
        let pipeline = Pipeline::new(&scenario.job, &Bells::silent(scenario.lanes));
        let net = Net {
            scenario: scenario.clone(),
            handle: pipeline.handle.clone(),
            log: Arc::default(),
            epoch: scenario.job.epoch,
            sessions: 0,
            last: None,
            links: vec![None; scenario.workers()],
            current: vec![0; scenario.workers()],
            fenced: 0,
            fabric: Fabric::new(&scenario),
            vanished: 0,
        };
        let mut world = World {
            pipeline,
            net,
            gradients: judge.gradients.clone(),
            judge,
            honest: Vec::new(),
            liars: Vec::new(),
            base: Instant::now(),
            tick: 0,
            dice: Dice::new(scenario.seed, "world", 0, 0),
            draining: false,
            restarted: false,
            scenario,
        };
        let (scenario, gradients) = (world.scenario.clone(), world.gradients.clone());
        let view = world.view(&scenario, &gradients);
        for (worker, role) in scenario.roles.iter().enumerate() {
            match role {
                Role::Honest(habit) => world.honest.push(Honest::new(worker, *habit, &view)),
                Role::Liar(strategy) => world.liars.push(Liar::new(worker, *strategy, &view)),
            }
        }
        world
    }

    fn now(&self) -> Instant {
        self.base + TICK * self.tick as u32
    }

    fn end(&self) -> u64 {
        // The window and one round more, so that nothing of a liar's is left.
        self.scenario.rounds + if self.draining { u64::from(self.scenario.job.plan.window) + 1 } else { 0 }
    }

    fn view<'a>(&self, scenario: &'a Scenario, gradients: &'a Gradients) -> View<'a> {
        let (closed, start) = (self.judge.closed(), self.judge.start());
        let (tick, now, end, draining) = (self.tick, self.now(), self.end(), self.draining);
        View { tick, now, closed, start, end, draining, scenario, gradients }
    }

    fn run(&mut self) {
        let most = (self.scenario.rounds + 8) * (3 * DEADLINE + 200);
        while self.judge.failure.is_none() {
            let end = self.end();
            if self.judge.closed() >= end && !self.draining {
                self.draining = true;
                self.liars.iter_mut().for_each(|liar| liar.retire(&mut self.net));
            } else if self.judge.closed() >= end && self.honest.iter().all(|one| self.has_all(one)) {
                break;
            }
            if self.tick > most {
                let closed = self.judge.closed();
                return self.judge.fail(Oracle::Stuck, closed, format!("{end} rounds did not end in {most} ticks"));
            }
            self.step();
        }
        if self.judge.failure.is_none() && self.scenario.stop {
            self.stop();
        }
        if self.judge.failure.is_none() {
            self.take_down();
        }
    }

    /// The daemon is stopped: everybody who has a session and reads learns it.
    fn stop(&mut self) {
        self.net.handle.board.request_stop();
        self.judge.stopping = true;
        for _ in 0..2 * DEADLINE {
            self.step();
        }
        let closed = self.judge.closed();
        if !self.net.handle.board.stopped() {
            self.judge.fail(Oracle::Stuck, closed, "the daemon does not stop".into());
        }
        if let Some(one) = self.honest.iter().find(|one| one.waits_for(self.tick).is_some()) {
            self.judge.fail(Oracle::Thrown, closed, format!("worker {} was not told of the stop", one.worker));
        }
    }

    fn has_all(&self, one: &Honest) -> bool {
        one.waits_for(self.tick).is_none_or(|round| round >= self.end())
    }

    /// One tick: everybody acts, then the daemon does all it can.
    fn step(&mut self) {
        let (now, tick) = (self.now(), self.tick);
        self.judge.tick = tick;
        let (scenario, gradients) = (self.scenario.clone(), self.gradients.clone());
        if scenario.restart == Some(self.judge.closed()) && !self.restarted && self.dice.chance(0.15) {
            self.restart();
        }
        let view = self.view(&scenario, &gradients);
        if !self.draining {
            self.liars.iter_mut().for_each(|liar| liar.act(&view, &mut self.net));
        }
        for one in &mut self.honest {
            one.act(&view, &mut self.net, &mut self.judge);
        }
        self.turn(now);
        self.notice();
        for one in &self.honest {
            if let Some(round) = one.waits_for(tick) {
                self.judge.waiting(one.worker as usize, round);
            }
        }
        let stalls = |role: &Role| {
            use crate::scenario::Habit::Freezes;
            matches!(role, Role::Liar(Strategy::NeverReads) | Role::Honest(Freezes))
        };
        // Who does not answer for a chunk holds its slot for as long.
        let stalls = scenario.roles.iter().any(stalls) || scenario.job.relay.is_some();
        if scenario.job.relay.is_some() {
            self.look_at_relay();
        }
        self.judge.tick_over(&self.net.handle.board, stalls);
        (0..std::mem::take(&mut self.net.fenced)).for_each(|_| self.judge.probes.hit(Probe::OldSessionFenced));
        if self.pipeline.pusher.slab().free(0) == 0 {
            self.judge.probes.hit(Probe::SlotsShort);
        }
        self.tick += 1;
    }

    /// Steps the pipeline until it has nothing to do; before that, if the scenario says so, its stages in any order.
    fn turn(&mut self, now: Instant) {
        if self.scenario.interleave {
            let context = Context { now, registry: None };
            for _ in 0..self.dice.below(12) {
                let lane = self.dice.below(self.scenario.lanes as u64) as usize;
                let Pipeline { receiver, assembler, decoders, pusher, .. } = &mut self.pipeline;
                let stages: [&mut dyn Stage; 4] = [receiver, assembler, &mut decoders[lane], pusher];
                let at = self.dice.below(4) as usize;
                for (index, stage) in stages.into_iter().enumerate() {
                    if index == at {
                        stage.step(&context);
                    }
                }
            }
        }
        for _ in 0..5_000 {
            if self.pipeline.step(now) == Progress::Idle {
                return;
            }
        }
        let closed = self.judge.closed();
        self.judge.fail(Oracle::Panic, closed, "5000 steps and still busy: endless work".into());
    }

    /// Tells the judge what came in and what came of it.
    fn notice(&mut self) {
        let mut log = std::mem::take(&mut *self.net.log.lock().expect("one thread"));
        if let Some(breach) = log.breach.take() {
            let closed = self.judge.closed();
            self.judge.fail(Oracle::Gate, closed, breach);
        }
        log.seen.iter().for_each(|seen| self.judge.seen(seen));
        log.notes.iter().for_each(|note| self.judge.noted(note));
        while let Some(event) = self.net.handle.events.pop() {
            if let solon::pipeline::Event::Closed { round, report, .. } = &event {
                self.net.last = Some(Resume { round: *round, digest: report.digest });
            }
            self.judge.event(&event);
        }
    }

    /// The oracles of the relay, at the end of a tick.
    fn look_at_relay(&mut self) {
        let crossings = self.net.fabric.turn(self.tick);
        let Net { links, current, fabric, vanished, handle, .. } = &mut self.net;
        for (times, probe) in [(&mut fabric.apart, Probe::Apart), (vanished, Probe::Vanished)] {
            (0..std::mem::take(times)).for_each(|_| self.judge.probes.hit(probe));
        }
        let alive = |worker: u32, session: u64| {
            let link = links[worker as usize].as_ref();
            current[worker as usize] == session && link.is_some_and(|link| !link.is_closed())
        };
        self.judge.relayed(&crossings, &handle.board, alive);
        let (slab, limits) =
            (self.pipeline.pusher.slab(), Limits::of(&self.scenario.job.plan, self.scenario.job.updates));
        let queued = self.pipeline.pusher.queued();
        if queued == 0 {
            self.judge.slots(limits.updates.max(limits.reports) - slab.free(0));
        }
    }

    /// The daemon dies, and another takes over where its journal ends.
    fn restart(&mut self) {
        self.restarted = true;
        for one in &mut self.honest {
            one.cut(self.dice.chance(0.5), "the daemon died");
        }
        self.net.links.iter().flatten().for_each(|link| link.cut(false));
        let mut job = self.scenario.job.clone();
        job.epoch = job.epoch.wrapping_add(1);
        job.secret[31] ^= 1;
        job.resume = self.net.last;
        self.pipeline = Pipeline::new(&job, &Bells::silent(self.scenario.lanes));
        self.net.handle = self.pipeline.handle.clone();
        self.net.epoch = job.epoch;
        *self.net.log.lock().expect("one thread") = Log::default();
        self.judge.restarted();
    }

    /// Everybody leaves; then all memory must be free.
    fn take_down(&mut self) {
        self.net.links.iter().flatten().for_each(|link| link.cut(true));
        // As long as a frame can be late.
        for _ in 0..160 {
            self.tick += 1;
            self.turn(self.now());
        }
        let job = &self.scenario.job;
        let limits = Limits::of(&job.plan, job.updates);
        let (shards, updates) = (self.pipeline.receiver.slab(), self.pipeline.pusher.slab());
        let mut leaks = Vec::new();
        for worker in 0..self.scenario.workers() {
            if shards.free(worker) != limits.credits {
                leaks.push(format!("{} of {} slots of worker {worker} are free", shards.free(worker), limits.credits));
            }
        }
        for holder in 0..2 {
            let all = limits.updates.max(limits.reports);
            if updates.free(holder) != all {
                leaks.push(format!("{} of {all} update slots ({holder}) are free", updates.free(holder)));
            }
        }
        let held = self.pipeline.held();
        if held > 0 {
            leaks.push(format!("{held} words and gathers are still held"));
        }
        let closed = self.judge.closed();
        if let Some(leak) = leaks.first() {
            self.judge.fail(Oracle::Leak, closed, leak.clone());
        }
        self.judge.finish();
    }
}
