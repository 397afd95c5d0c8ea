//! The oracles: a model of what each round must be, kept from what the taps saw, and compared with what the daemon and the
//! workers say.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use solon::client::{ClientError, Fault, Lost};
use solon::code::{Precision, encode};
use solon::pipeline::{Begin, Board, Counter, Event};
use solon::transport::Disconnect;
use solon::wire::{HEADER_BYTES, Report, RoundOutcome, Rule, UndecodableReason, Violation};

use crate::gradients::{Gradients, inexact, norm};
use crate::ledger::Ledger;
use crate::model::{Bits, Cell, Round, Seens};
use crate::oracle::{Failure, Oracle};
use crate::probes::{Probe, Probes};
use crate::scenario::{DEADLINE, Habit, Role, Scenario};
use crate::strategy::Strategy;
use crate::tap::Seen;

#[path = "overseer.rs"]
mod overseer;

/// Whom the first round of a scenario waits for.
fn awaited(scenario: &Scenario) -> BTreeSet<u32> {
    if scenario.job.begin == Begin::All { (0..scenario.workers() as u32).collect() } else { BTreeSet::new() }
}

/// Keeps the model and compares.
pub struct Judge {
    scenario: Arc<Scenario>,
    /// What the scenario says of it.
    hidden: Option<f64>,
    /// What recovery makes of the unit roundoff at most, where nobody hides.
    rounding: f64,
    pub gradients: Rc<Gradients>,
    pub probes: Probes,
    pub failure: Option<Failure>,
    pub tick: u64,
    rounds: BTreeMap<u64, Round>,
    closed: u64,
    closed_at: u64,
    seens: Seens,
    /// The first round of this daemon.
    born: u64,
    /// Who has been named, and who must be in the end.
    named: BTreeSet<usize>,
    owed: BTreeMap<usize, u64>,
    hash: blake3::Hasher,
    /// Digest and round of every close, in order.
    pub closes: Vec<(u64, u64)>,
    pub verbose: bool,
    /// The daemon was asked to stop.
    pub stopping: bool,
    ledger: Ledger,
    /// Whom the first round waits for.
    awaited: BTreeSet<u32>,
    /// Digests that are not those of the updates: by whom, in which session, of which round.
    false_digests: Vec<(u32, u64, u64)>,
}

impl Judge {
    pub fn new(scenario: &Arc<Scenario>, verbose: bool) -> Judge {
        let plan = &scenario.job.plan;
        Judge {
            gradients: Rc::new(Gradients::new(scenario.seed, plan.parameters.groups(), plan.layout.dimension())),
            scenario: scenario.clone(),
            hidden: scenario.hidden(),
            rounding: scenario.rounding(),
            probes: Probes::default(),
            failure: None,
            tick: 0,
            rounds: BTreeMap::new(),
            closed: 0,
            closed_at: 0,
            seens: Seens::default(),
            born: 0,
            named: BTreeSet::new(),
            owed: BTreeMap::new(),
            hash: blake3::Hasher::new(),
            closes: Vec::new(),
            verbose,
            stopping: false,
            ledger: Ledger::new(scenario),
            awaited: awaited(scenario),
            false_digests: Vec::new(),
        }
    }

    /// Digest of everything that happened.
    pub fn digest(&self) -> [u8; 32] {
        *self.hash.finalize().as_bytes()
    }

    /// All rounds before this one are closed.
    pub fn closed(&self) -> u64 {
        self.closed
    }

    /// When the time of the first open round began to run.
    pub fn start(&self) -> Option<u64> {
        self.rounds.get(&self.closed)?.start
    }

    /// Notes that an oracle does not hold; the first one counts.
    pub fn fail(&mut self, oracle: Oracle, round: u64, what: String) {
        let tick = self.tick;
        self.failure.get_or_insert(Failure { oracle, round, tick, what });
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:5} {}", self.tick, line());
        }
    }

    fn round(&mut self, round: u64) -> &mut Round {
        let plan = &self.scenario.job.plan;
        let (groups, chunks) = (plan.parameters.groups(), plan.layout.chunks());
        self.rounds.entry(round).or_insert_with(|| Round {
            cells: vec![Cell::default(); groups * chunks],
            begun: vec![0; groups],
            start: None,
            subtle: false,
            closed: None,
            update: None,
        })
    }

    /// A new daemon: what the old one had of open rounds is gone.
    pub fn restarted(&mut self) {
        self.probes.hit(Probe::Restart);
        self.note(|| "the daemon is restarted".into());
        self.rounds.retain(|_, round| round.closed.is_some());
        self.born = self.closed;
        self.seens = Seens::default();
        // What was to be said in the next report is forgotten with the daemon.
        self.owed.clear();
        self.closed_at = self.tick;
        self.ledger.restarted();
        self.false_digests.clear();
        self.awaited = if self.closed == 0 { awaited(&self.scenario) } else { BTreeSet::new() };
    }

    /// A frame landed.
    pub fn seen(&mut self, seen: &Seen) {
        let Seen { owner, header, valid, payload } = seen;
        let scenario = self.scenario.clone();
        let plan = &scenario.job.plan;
        self.seens.all += 1;
        self.seens.bytes += (HEADER_BYTES + payload.len()) as u64;
        self.hash.update(&[u8::from(*valid)]).update(&header.checksum.to_le_bytes()).update(&owner.to_le_bytes());
        if !valid {
            self.seens.corrupt += 1;
            self.probes.hit(Probe::Corrupt);
            return;
        }
        let (worker, round) = (*owner as usize, header.round);
        if !self.awaited.is_empty() {
            let what = format!("a shard of worker {worker} came before workers {:?}", self.awaited);
            self.fail(Oracle::Held, round, what);
        }
        let place = plan.parameters.place(worker);
        let (chunk, bit) = (header.chunk as usize, 1 << place.row);
        let cell_at = place.group * plan.layout.chunks() + chunk;
        if self.round(round).cells[cell_at].all() & bit != 0 {
            self.probes.hit(Probe::Duplicate);
            if let Role::Liar(Strategy::EquivocateLieFirst | Strategy::EquivocateLieSecond) = scenario.roles[worker] {
                self.probes.hit(Probe::Equivocation);
            }
            return;
        }
        self.seens.distinct += 1;
        let (gross, subtle) = match scenario.is_honest(worker) {
            true => (false, false),
            false => self.deviation(round, place.group, place.row, chunk, payload),
        };
        let tick = self.tick;
        let (closed, needed) = (self.closed, plan.parameters.adversaries() as u32 + 1);
        let state = self.round(round);
        state.cells[cell_at].now |= bit;
        state.cells[cell_at].gross |= if gross { bit } else { 0 };
        state.subtle |= subtle;
        state.begun[place.group] |= bit;
        let begins = round >= closed && state.begun[place.group].count_ones() >= needed;
        let late = state.closed.is_some();
        if begins {
            // Also if it is a later one: somebody honest is past the open one.
            self.round(closed).start.get_or_insert(tick);
        }
        if round > closed {
            self.probes.hit(Probe::TwoRoundsAtOnce);
        }
        if let (Role::Liar(Strategy::LastMoment), Some(start)) = (scenario.roles[worker], self.start()) {
            match (tick - start).cmp(&DEADLINE) {
                std::cmp::Ordering::Less if tick - start == DEADLINE - 1 => self.probes.hit(Probe::JustBeforeDeadline),
                std::cmp::Ordering::Equal => self.probes.hit(Probe::AtDeadline),
                _ => {}
            }
        }
        if late {
            self.probes.hit(Probe::AfterClose);
            self.owe(round, place.group, chunk);
        }
    }

    /// Is a liar's shard wrong beyond doubt; is it wrong in any way that could pass?
    fn deviation(&self, round: u64, group: usize, row: usize, chunk: usize, payload: &[u8]) -> (bool, bool) {
        let job = &self.scenario.job;
        let chunk = job.plan.layout.chunk(chunk);
        let gradients = self.gradients.of(round);
        let mut shard = vec![0f32; chunk.width];
        let mut largest = 0f64;
        for other in 0..job.plan.parameters.redundancy() {
            encode(&job.generator, other, &gradients[group][chunk.range()], &mut shard);
            largest = largest.max(norm(shard.iter().map(|x| f64::from(*x))));
        }
        encode(&job.generator, row, &gradients[group][chunk.range()], &mut shard);
        let mut sent = payload.to_vec();
        let precision = job.plan.precision;
        if precision != Precision::F32 {
            let mut room = vec![0u32; shard.len()];
            let honest = &mut bytemuck::cast_slice_mut(&mut room)[..payload.len()];
            precision.narrow(&shard, honest);
            precision.widen(honest, &mut shard);
            honest.copy_from_slice(payload);
            let mut numbers = vec![0f32; shard.len()];
            precision.widen(honest, &mut numbers);
            sent = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        }
        let sent = sent.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four")));
        let off = norm(sent.zip(&shard).map(|(sent, honest)| f64::from(sent) - f64::from(*honest)));
        let plain = self.hidden.map_or(0.2, |hidden| (3.0 * hidden).max(0.2));
        let gross = off.is_nan() || off > plain * largest + 1e-30;
        (gross, !gross && off > 0.0)
    }

    /// Those who lied plainly in this word must be named by the end, if all rows of it are there.
    fn owe(&mut self, round: u64, group: usize, chunk: usize) {
        let plan = &self.scenario.job.plan;
        let (r, chunks, window) = (plan.parameters.redundancy(), plan.layout.chunks(), u64::from(plan.window));
        if plan.rule == Rule::MEAN
            || !self.scenario.is_within(group)
            || round < self.born.max(self.closed.saturating_sub(window))
        {
            return;
        }
        let Some(state) = self.rounds.get(&round) else { return };
        let complete = state.closed.is_some_and(|(_, report)| report.outcome == RoundOutcome::Complete);
        let cell = state.cells[group * chunks + chunk];
        if !complete || cell.all().count_ones() as usize != r {
            return;
        }
        let late = state.closed.map_or(Default::default(), |(_, report)| report.liars);
        for row in (0..r).filter(|row| cell.gross >> row & 1 == 1) {
            let worker = group * r + row;
            if !late.contains(worker) && !self.named.contains(&worker) {
                self.owed.entry(worker).or_insert(round);
            }
        }
    }

    /// Something happened in the daemon.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Joined { worker, round } => {
                self.hash.update(b"joined").update(&worker.to_le_bytes()).update(&round.to_le_bytes());
                self.note(|| format!("worker {worker} joined for round {round}"));
                if self.awaited.remove(worker) {
                    if *round > 0 {
                        self.fail(Oracle::Held, *round, format!("worker {worker} has missed the begin"));
                    }
                    if self.awaited.len() == 1 {
                        self.probes.hit(Probe::Held);
                    }
                }
                let window = u64::from(self.scenario.job.plan.window);
                if *round > self.closed {
                    self.probes.hit(Probe::LaterFirstRound);
                }
                if *round >= self.closed + window {
                    self.probes.hit(Probe::FirstRoundBeyondWindow);
                }
                if self.start().is_some() {
                    self.probes.hit(Probe::JoinedMidRound);
                }
            }
            Event::Left { worker, why } => {
                self.hash.update(b"left").update(&worker.to_le_bytes());
                self.note(|| format!("worker {worker} left: {why}"));
                self.ledger.left(*worker, self.tick, &mut self.probes);
                self.left(*worker as usize, *why);
            }
            Event::NotReading { worker } => {
                self.hash.update(b"not reading").update(&worker.to_le_bytes());
                self.note(|| format!("worker {worker} does not read"));
                self.ledger.left(*worker, self.tick, &mut self.probes);
                self.probes.hit(Probe::NotReading);
                let role = self.scenario.roles[*worker as usize];
                if let Role::Honest(habit) = role
                    && habit != Habit::Freezes
                {
                    self.fail(
                        Oracle::Thrown,
                        self.closed,
                        format!("worker {worker} reads, and was ended for not reading"),
                    );
                }
            }
            Event::BadCarrier { .. } | Event::OtherDigest { .. } => self.relay_event(event),
            Event::Unrelayed { worker, .. } => {
                self.note(|| format!("worker {worker} passes nothing on"));
            }
            Event::NoLink { worker, peer } => {
                self.note(|| format!("worker {worker} cannot reach worker {peer}"));
            }
            Event::Way { .. } => unreachable!("no job of the simulation measures the ways"),
            Event::Closed { round, report, .. } => self.close(*round, report),
            Event::FellBack { .. } => unreachable!("no connection of the simulation has another way to fall back to"),
        }
    }

    fn left(&mut self, worker: usize, why: Disconnect) {
        let Disconnect::Violation(violation) = why else { return };
        self.seens.violations += 1;
        self.probes.hit(match violation {
            Violation::Header(_) => Probe::BadHeader,
            Violation::Kind(_) => Probe::BadKind,
            Violation::Length { .. } => Probe::BadLength,
            Violation::Round { .. } => Probe::BadRound,
            Violation::Chunk { .. } => Probe::BadChunk,
            Violation::Job => Probe::BadJob,
            Violation::Session => Probe::BadSession,
            Violation::Worker(_) => Probe::BadWorker,
            Violation::Credit => Probe::NoCredit,
            Violation::Rdma { .. } => unreachable!("no connection of the simulation is over RDMA"),
        });
        // A network that doubles frames takes credits that the worker never spent.
        let doubled = self.scenario.faults[worker].is_some_and(|faults| faults.duplicate > 0.0);
        if self.scenario.is_honest(worker) && !(doubled && violation == Violation::Credit) {
            self.fail(Oracle::Thrown, self.closed, format!("honest worker {worker} was ended: {violation}"));
        }
    }

    fn close(&mut self, round: u64, report: &Report) {
        let scenario = self.scenario.clone();
        let plan = &scenario.job.plan;
        let (p, chunks) = (&plan.parameters, plan.layout.chunks());
        self.note(|| format!("round {round} closed: {report:?}"));
        self.hash.update(&round.to_le_bytes()).update(format!("{report:?}").as_bytes());
        self.seens.closes += 1;
        self.closes.push((round, report.digest));
        if round != self.closed {
            return self.fail(Oracle::Report, round, format!("round {} was to be closed next", self.closed));
        }
        for named in report.liars.union(&report.late_liars).iter() {
            if named >= scenario.workers() || scenario.is_honest(named) {
                self.fail(Oracle::Framed, round, format!("worker {named} is honest and was named"));
            }
            self.named.insert(named);
            self.owed.remove(&named);
        }
        self.probe(report);
        let state = self.round(round);
        let (cells, tick) = (state.cells.clone(), self.tick);
        let count = |group: usize, chunk: usize, of: fn(&Cell) -> Bits| {
            of(&cells[group * chunks + chunk]).count_ones() as usize
        };
        for worker in 0..scenario.workers() {
            let place = p.place(worker);
            let here = |of: fn(&Cell) -> Bits| {
                (0..chunks).filter(|chunk| of(&cells[place.group * chunks + chunk]) >> place.row & 1 == 1).count()
            };
            let (least, most) = (here(|cell| cell.before), here(Cell::all));
            let said = (report.absent.contains(worker), report.late.contains(worker));
            let possible = |count: usize| said == (count == 0, count > 0 && count < chunks);
            if !(least..=most).any(possible) {
                self.fail(
                    Oracle::Report,
                    round,
                    format!("{least} to {most} shards of worker {worker} came: {report:?}"),
                );
            }
        }
        match report.outcome {
            RoundOutcome::Complete => {
                for group in 0..p.groups() {
                    for chunk in 0..chunks {
                        if count(group, chunk, Cell::all) < p.agreement() {
                            let what = format!("group {group}, chunk {chunk} had fewer than r_c + s shards");
                            self.fail(Oracle::Unchecked, round, what);
                        }
                    }
                }
            }
            RoundOutcome::Undecodable { group, chunk, reason } => {
                let (group, chunk) = (group as usize, chunk as usize);
                let cell = cells[group * chunks + chunk];
                let honest = |row: &usize| scenario.is_honest(group * p.redundancy() + row);
                let came = (0..p.redundancy()).filter(|row| cell.before >> row & 1 == 1).filter(honest).count();
                if came >= p.agreement() && scenario.is_within(group) {
                    let what =
                        format!("{came} honest shards came in time for group {group}, chunk {chunk}, but: {reason}");
                    self.fail(Oracle::Exact, round, what);
                }
            }
        }
        self.round(round).closed = Some((tick, *report));
        (self.closed, self.closed_at) = (round + 1, tick);
        for group in 0..p.groups() {
            (0..chunks).for_each(|chunk| self.owe(round, group, chunk));
        }
        // The next round's time runs from now, if it has begun.
        let needed = p.adversaries() as u32 + 1;
        let has_begun = |(_, state): (&u64, &Round)| state.begun.iter().any(|rows| rows.count_ones() >= needed);
        let begun = self.rounds.range(round + 1..).any(has_begun);
        self.round(round + 1).start = begun.then_some(tick);
    }

    fn probe(&mut self, report: &Report) {
        match report.outcome {
            RoundOutcome::Complete => {}
            RoundOutcome::Undecodable { reason: UndecodableReason::TooFew { .. }, .. } => {
                self.probes.hit(Probe::Starved)
            }
            RoundOutcome::Undecodable {
                reason: UndecodableReason::Disagree { .. } | UndecodableReason::NotFinite { .. },
                ..
            } => self.probes.hit(Probe::Disagree),
            // Here updates travel as f32.
            RoundOutcome::Undecodable { reason: UndecodableReason::TooLarge, .. } => unreachable!("nothing is rounded"),
        }
        if !report.late_liars.is_empty() {
            self.probes.hit(Probe::LateLie);
        }
        if !report.liars.is_empty() {
            self.probes.hit(Probe::Lie);
        }
    }

    /// A worker got the end of a round.
    pub fn collected(&mut self, worker: usize, result: Result<(u64, Report), ClientError>, update: &[f32]) {
        let (round, report) = match result {
            Ok((round, report)) => (round, report),
            Err(ClientError::Undecodable { round, report, .. }) => (round, *report),
            Err(error @ ClientError::AggregatorLost { why, .. }) => {
                self.probes.hit(Probe::AggregatorLost);
                if error.fault() == Fault::Caller && why != Lost::FellBehind {
                    self.fail(Oracle::Thrown, self.closed, format!("a loss is the caller's fault: {error}"));
                }
                return;
            }
            Err(error) => return self.fail(Oracle::Thrown, self.closed, format!("worker {worker} got {error}")),
        };
        self.hash.update(&(worker as u32).to_le_bytes()).update(&round.to_le_bytes());
        let scenario = self.scenario.clone();
        let gradients = self.gradients.of(round);
        let Some(state) = self.rounds.get_mut(&round).filter(|state| state.closed.is_some()) else {
            return self.fail(Oracle::Report, round, format!("worker {worker} got the end of a round that is open"));
        };
        let (_, closed) = state.closed.expect("filtered");
        if closed != report {
            return self.fail(Oracle::Differs, round, format!("worker {worker} got another report: {report:?}"));
        }
        if report.outcome != RoundOutcome::Complete {
            return;
        }
        if let Some(first) = &state.update {
            let same = first.iter().zip(update).all(|(a, b)| a.to_bits() == b.to_bits());
            if !same {
                self.fail(Oracle::Differs, round, format!("worker {worker} got other bytes than the first"));
            }
            return;
        }
        let relative = match (self.hidden, scenario.job.plan.precision) {
            (Some(_), rounded) if !state.subtle => self.rounding * rounded.unit_roundoff(),
            // A bound of half of the gradient or more would say nothing.
            (Some(hidden), _) if hidden > 0.5 => f64::MAX,
            (Some(hidden), _) => hidden,
            (None, Precision::F32) => {
                if state.subtle {
                    1e-3
                } else {
                    1e-5
                }
            }
            (None, rounded) => rounded.unit_roundoff(),
        };
        state.update = Some(update.to_vec());
        update.iter().for_each(|x| {
            self.hash.update(&x.to_bits().to_le_bytes());
        });
        let trusted = (0..scenario.job.plan.parameters.groups()).all(|group| scenario.liars(group) == 0);
        if scenario.job.plan.rule == Rule::MEAN && !trusted {
            return;
        }
        let plan = &scenario.job.plan;
        if let Some((chunk, off)) = inexact(&gradients, &plan.layout, plan.scale, relative, update) {
            let crowd = (0..plan.parameters.groups()).any(|group| !scenario.is_within(group));
            let oracle = if crowd { Oracle::Unchecked } else { Oracle::Exact };
            self.fail(oracle, round, format!("chunk {chunk} of the update is off by {off:.2e}, relative"));
        }
    }

    /// An honest worker's session is over.
    pub fn lost(&mut self, worker: usize, why: Lost, excuse: Option<&'static str>) {
        self.note(|| format!("worker {worker} lost its session: {why} ({excuse:?})"));
        self.hash.update(b"lost").update(&(worker as u32).to_le_bytes());
        if self.stopping && why == Lost::Stopped {
            return self.probes.hit(Probe::Stopped);
        }
        let doubled = self.scenario.faults[worker].is_some_and(|faults| faults.duplicate > 0.0);
        // While slots are short, who was frozen may be ended when it has begun to read again.
        let freezes = self.scenario.roles[worker] == Role::Honest(Habit::Freezes);
        if (excuse.is_none() && !doubled && !freezes)
            || !matches!(why, Lost::Connection(Disconnect::Closed) | Lost::FellBehind)
        {
            self.fail(Oracle::Thrown, self.closed, format!("worker {worker} lost its session: {why} ({excuse:?})"));
        }
    }

    /// The end of a tick, when the daemon has nothing left to do.
    pub fn tick_over(&mut self, board: &Board, stalls: bool) {
        let count = |counter| board.counted(counter);
        let Seens { all, corrupt, distinct, bytes, violations, closes } = self.seens;
        use Counter::*;
        let [accepted, duplicate, stale] = [ShardsAccepted, ShardsDuplicate, ShardsStale].map(count);
        let sums = [
            ("shards that landed", all, accepted + duplicate + stale + count(ShardsCorrupt)),
            ("corrupt shards", corrupt, count(ShardsCorrupt)),
            ("bytes received", bytes, count(BytesReceived)),
            // Whom the pusher shows the door leaves, for the receiver, without a reason.
            ("violations", count(Violations).clamp(violations, violations + self.ledger.doubtful()), count(Violations)),
            ("rounds closed", closes, count(RoundsComplete) + count(RoundsUndecodable)),
            ("events lost", 0, count(EventsLost)),
        ];
        for (what, seen, counted) in sums {
            if seen != counted {
                self.fail(Oracle::Counters, self.closed, format!("{what}: {seen} seen, {counted} counted"));
            }
        }
        if accepted > distinct {
            self.fail(
                Oracle::Counters,
                self.closed,
                format!("{accepted} accepted, but {distinct} different ones came"),
            );
        }
        if board.closed() != self.closed {
            self.fail(Oracle::Counters, self.closed, format!("the board says {} is open", board.closed()));
        }
        let waited = if stalls { 60 + 4 } else { 4 };
        if let Some(start) =
            self.start().filter(|start| self.tick > start + u64::from(self.scenario.job.plan.deadline_ms) + waited)
        {
            self.fail(Oracle::Deadline, self.closed, format!("it began at tick {start} and is still open"));
        }
        for state in self.rounds.values_mut() {
            for cell in &mut state.cells {
                cell.before |= std::mem::take(&mut cell.now);
            }
        }
        let counters = [WordsDisputed, Suspects, ShardsStale, ShardsLate].map(count);
        let probes = [Probe::Disputed, Probe::Suspect, Probe::Stale, Probe::Late];
        for (probe, counter) in probes.into_iter().zip(counters) {
            if counter > 0 {
                self.probes.reached(probe);
            }
        }
    }

    /// A worker waits for this round: has it been closed for too long?
    pub fn waiting(&mut self, worker: usize, round: u64) {
        let patience = 60 + 12 * self.scenario.job.plan.layout.chunks() as u64;
        if let Some((at, _)) = self.rounds.get(&round).and_then(|state| state.closed)
            && self.tick > at + patience
        {
            self.fail(
                Oracle::Stuck,
                round,
                format!("worker {worker} still waits for it, {} ticks after", self.tick - at),
            );
        }
    }

    /// The end of the scenario.
    pub fn finish(&mut self) {
        if let Some((worker, round)) = self.owed.first_key_value() {
            let what = format!("worker {worker} lied plainly in a word of all rows and was never named");
            self.fail(Oracle::Unnamed, *round, what);
        }
    }
}
