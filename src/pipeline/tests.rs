//! The whole pipeline and whole clients in one thread, over memory.

mod cyclic;
mod linger;
mod relay;
mod robust;
mod rounded;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::client::{Session, Source, generator_digest};
use crate::code::{Family, Form, Generator, Layout, Parameters, Precision, Verify};
use crate::transport::{Connection, Disconnect, Flushed, Outbound, Outgoing, memory};
use crate::wire::{Plan, RoundOutcome, Rule, Welcome};

fn job(parameters: Parameters, dimension: usize, width: usize) -> Job {
    let (family, form) = (Family::Trigonometric, Form::Systematic);
    let generator = Generator::new(family, form, parameters.redundancy(), parameters.compression()).unwrap();
    let plan = Plan {
        parameters,
        rule: Rule::Solon,
        family,
        form,
        generator_digest: generator_digest(&generator),
        layout: Layout::new(dimension, parameters.compression(), width),
        precision: Precision::F32,
        update_precision: Precision::F32,
        gradients: 1,
        window: 2,
        credits: 3,
        deadline_ms: 1000,
        tolerance: 3.0 / f64::from(1 << 24),
        scale: 1.0,
    };
    Job {
        plan,
        generator: Arc::new(generator),
        number: 1,
        epoch: 77,
        projections: 4,
        verify: Verify::Random,
        linger: Duration::ZERO,
        write_deadline: Duration::from_secs(2),
        updates: 4,
        secret: [3; 32],
        resume: None,
        relay: None,
        begin: Begin::Any,
        robust: None,
    }
}

fn join(pipeline: &Pipeline, job: &Job, worker: u32, session: u64) -> Session {
    let (here, there) = memory::pair(64);
    assert!(pipeline.handle.admit(worker, session, here));
    let welcome = Welcome { plan: job.plan, worker, session, epoch: job.epoch, last: None };
    Session::new(there, welcome, job.number).unwrap()
}

struct Cluster {
    pipeline: Pipeline,
    sessions: Vec<Session>,
    now: Instant,
}

impl Cluster {
    fn new(job: &Job, lanes: usize) -> Cluster {
        let pipeline = Pipeline::new(job, &Bells::silent(lanes));
        let mut sessions = Vec::new();
        for worker in 0..job.plan.parameters.workers() as u32 {
            sessions.push(join(&pipeline, job, worker, 1000 + u64::from(worker)));
        }
        let mut cluster = Cluster { pipeline, sessions, now: Instant::now() };
        cluster.turn();
        cluster.turn();
        cluster
    }

    fn turn(&mut self) {
        self.pipeline.step(self.now);
        for session in &mut self.sessions {
            session.drive(self.now, None).unwrap();
        }
        self.now += Duration::from_micros(100);
    }

    /// One round in which the workers in `silent` send nothing and those in `liars` negate what they send.
    fn round(
        &mut self,
        gradients: &[Vec<f32>],
        silent: &[usize],
        liars: &[usize],
    ) -> Vec<Result<(u64, Report), String>> {
        let Plan { parameters, precision, .. } = self.sessions[0].welcome().plan;
        let r = parameters.redundancy();
        for (worker, session) in self.sessions.iter_mut().enumerate() {
            if silent.contains(&worker) {
                session.skip();
            } else {
                session.begin().unwrap();
            }
        }
        let mut ended: Vec<Option<_>> = vec![None; self.sessions.len()];
        let mut update = vec![0.0; gradients[0].len()];
        for _ in 0..20_000 {
            for (worker, session) in self.sessions.iter_mut().enumerate() {
                if ended[worker].is_some() {
                    continue;
                }
                if !silent.contains(&worker) {
                    let mut lie = |_, _, shard: &mut [f32]| shard.iter_mut().for_each(|x| *x = -2.0 * *x + 1.0);
                    let tamper: Option<crate::client::Tamper<'_>> = liars.contains(&worker).then_some(&mut lie);
                    session.pump(Source::Separate(&gradients[worker / r]), tamper);
                }
                if let Some(result) = session.collect(&mut update) {
                    if result.is_ok() {
                        let expected: Vec<f64> = (0..update.len())
                            .map(|at| gradients.iter().map(|gradient| f64::from(gradient[at])).sum())
                            .collect();
                        let norm = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
                        let off = expected.iter().zip(&update).map(|(x, y)| (x - f64::from(*y)).powi(2)).sum::<f64>();
                        // What rounding to 16 bits leaves is enlarged a few times.
                        let allowed = if precision == Precision::F32 { 1e-5 } else { 4.0 * precision.unit_roundoff() };
                        assert!(off.sqrt() <= allowed * norm, "relative error {}", off.sqrt() / norm);
                    }
                    ended[worker] = Some(result.map_err(|error| error.to_string()));
                }
            }
            if ended.iter().all(Option::is_some) {
                return ended.into_iter().flatten().collect();
            }
            self.turn();
        }
        panic!("the round did not end");
    }
}

fn gradients(groups: usize, dimension: usize, seed: u32) -> Vec<Vec<f32>> {
    let number = |at: u32| (at.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5;
    (0..groups).map(|g| (0..dimension).map(|at| number(seed + 7919 * g as u32 + at as u32)).collect()).collect()
}

#[test]
fn every_worker_gets_the_sum_and_the_liars_names() {
    let parameters = Parameters::new(2, 2, 1, 2).unwrap();
    for lanes in [1, 2] {
        let job = job(parameters, 1001, 50);
        let mut cluster = Cluster::new(&job, lanes);
        for round in 0..6u32 {
            let liars = [round as usize % 7, (round as usize + 3) % 7, 7 + round as usize % 7];
            let silent = [(round as usize + 1) % 7];
            let results = cluster.round(&gradients(2, 1001, round), &silent, &liars);
            for result in results {
                let (number, report) = result.unwrap();
                assert_eq!((number, report.outcome), (u64::from(round), RoundOutcome::Complete));
                assert!(report.liars.iter().all(|worker| liars.contains(&worker)), "{report:?}");
                assert!(report.absent.contains(silent[0]));
            }
        }
    }
}

/// A job with shards of this precision, verified as solond does by default.
fn rounded(parameters: Parameters, dimension: usize, width: usize, precision: Precision) -> Job {
    let mut job = job(parameters, dimension, width);
    (job.plan.precision, job.plan.tolerance) = (precision, precision.tolerance(parameters.compression()));
    if precision.is_coarse(parameters.compression()) {
        (job.verify, job.projections) = (Verify::Full, 8);
    }
    job
}

#[test]
fn every_precision_corrects_liars_and_absentees_and_names_the_liars() {
    for precision in Precision::ALL {
        for (parameters, width) in [((2, 2, 1, 2), 50), ((1, 1, 0, 1), 33), ((1, 2, 0, 4), 7), ((2, 0, 1, 2), 1001)] {
            let (groups, s, e, c) = parameters;
            let parameters = Parameters::new(groups, s, e, c).unwrap();
            let (r, job) = (parameters.redundancy(), rounded(parameters, 1001, width, precision));
            for lanes in [1, 2] {
                let mut cluster = Cluster::new(&job, lanes);
                for round in 0..4 {
                    let liars: Vec<usize> = (0..groups * s).map(|i| i / s * r + (round + i) % r).collect();
                    let silent: Vec<usize> = if e > 0 && round % 2 == 1 { vec![(round + s) % r] } else { vec![] };
                    for result in cluster.round(&gradients(groups, 1001, round as u32), &silent, &liars) {
                        let (number, report) = result.unwrap();
                        assert_eq!(number, round as u64);
                        let named: Vec<usize> = (0..groups * r).filter(|w| report.liars.contains(*w)).collect();
                        assert!(named.iter().all(|worker| liars.contains(worker)), "{precision} {named:?} {liars:?}");
                    }
                }
                let board = &cluster.pipeline.handle.board;
                assert!(s == 0 || board.counted(Counter::Lies) > 0, "{precision} {parameters:?}");
                let up = precision.shard_bytes(1001usize.div_ceil(c));
                let up = (board.counted(Counter::BytesReceived) as usize) < 4 * groups * r * (up + 64 * 200);
                assert!(up && cluster.pipeline.held() == 0);
            }
        }
    }
}

#[test]
fn replicas_of_16_bits_are_right_to_f32_whoever_lies_in_their_last_bits() {
    for precision in [Precision::Bf16, Precision::F16] {
        let job = rounded(Parameters::new(1, 2, 0, 1).unwrap(), 60, 20, precision);
        let mut cluster = Cluster::new(&job, 1);
        let gradient = &gradients(1, 60, 4)[0];
        for session in &mut cluster.sessions {
            session.begin().unwrap();
        }
        let mut updates = vec![None; 5];
        for _ in 0..100 {
            for (worker, session) in cluster.sessions.iter_mut().enumerate() {
                // The next number there is, and one who is seen by everybody.
                let mut lie = |_, _, shard: &mut [f32]| match worker {
                    0 => shard.iter_mut().for_each(|x| *x *= 1.0 + 2.1 * precision.unit_roundoff() as f32),
                    _ => shard.fill(f32::NAN),
                };
                let tamper: Option<crate::client::Tamper<'_>> = (worker < 2).then_some(&mut lie);
                session.pump(Source::Separate(gradient), tamper);
                let mut update = vec![0.0; 60];
                if let Some(result) = session.collect(&mut update) {
                    result.unwrap();
                    updates[worker] = Some(update);
                }
            }
            cluster.turn();
        }
        let mut halves = vec![0u16; 60];
        let mut wanted = vec![0.0; 60];
        precision.narrow(gradient, bytemuck::cast_slice_mut(&mut halves));
        precision.widen(bytemuck::cast_slice(&halves), &mut wanted);
        for update in updates {
            // A mean of equal numbers is rounded to f32.
            let near = |(found, wanted): (&f32, &f32)| (found - wanted).abs() <= 1e-6 * wanted.abs();
            assert!(update.expect("it has come").iter().zip(&wanted).all(near), "{precision}");
        }
        assert_ne!(&wanted, gradient);
    }
}

#[test]
fn a_gradient_too_large_for_f16_makes_the_round_undecodable_and_nobody_is_named() {
    let parameters = Parameters::new(1, 2, 0, 2).unwrap();
    let mut gradient = gradients(1, 100, 1);
    // Finite in every raw row, and too large in some parity row only.
    gradient[0][7] = 60_000.0;
    let mut cluster = Cluster::new(&rounded(parameters, 100, 50, Precision::F16), 1);
    for result in cluster.round(&gradient, &[], &[]) {
        let error = result.unwrap_err();
        assert!(error.contains("shards only 0 are finite and 4 must agree"), "{error}");
    }
    assert_eq!(cluster.pipeline.handle.board.counted(Counter::Lies), 0);
    assert!(cluster.round(&gradients(1, 100, 2), &[], &[5]).iter().all(Result::is_ok));
    let mut cluster = Cluster::new(&rounded(parameters, 100, 50, Precision::Bf16), 1);
    assert!(cluster.round(&gradient, &[], &[1]).iter().all(Result::is_ok));
}

#[test]
fn more_liars_than_the_code_corrects_make_the_round_undecodable_and_the_next_one_goes_on() {
    let parameters = Parameters::new(1, 1, 0, 2).unwrap();
    let mut cluster = Cluster::new(&job(parameters, 100, 10), 1);
    for result in cluster.round(&gradients(1, 100, 5), &[], &[0, 2]) {
        assert!(result.unwrap_err().contains("more workers lie than the code corrects"));
    }
    for result in cluster.round(&gradients(1, 100, 6), &[], &[3]) {
        assert_eq!(result.unwrap().0, 1);
    }
}

#[test]
fn too_many_absent_workers_make_the_round_undecodable_at_its_deadline() {
    let parameters = Parameters::new(1, 1, 0, 2).unwrap();
    let mut cluster = Cluster::new(&job(parameters, 100, 10), 1);
    for result in cluster.round(&gradients(1, 100, 5), &[1, 2], &[]) {
        assert!(result.unwrap_err().contains("only 2 shards arrived in time, 3 must agree"));
    }
    for result in cluster.round(&gradients(1, 100, 6), &[0], &[]) {
        assert!(result.is_ok());
    }
}

#[test]
fn a_journal_that_cannot_be_written_is_counted_and_the_rounds_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    std::fs::write(&path, []).unwrap();
    let mut cluster = Cluster::new(&job(Parameters::new(1, 1, 0, 2).unwrap(), 100, 10), 1);
    // As a full disk would: every write fails.
    cluster.pipeline.pusher.keep_journal(std::fs::File::open(&path).unwrap());
    for round in 0..2 {
        assert!(cluster.round(&gradients(1, 100, round), &[], &[]).iter().all(Result::is_ok));
    }
    assert_eq!(cluster.pipeline.handle.board.counted(Counter::JournalErrors), 2);
}

#[test]
fn any_number_of_words_that_disagree_fails_a_round_once() {
    let parameters = Parameters::new(1, 1, 0, 2).unwrap();
    let mut job = job(parameters, 400, 10);
    (job.plan.credits, job.updates) = (20, 1);
    let mut cluster = Cluster::new(&job, 1);
    for result in cluster.round(&gradients(1, 400, 5), &[], &[0, 2]) {
        assert!(result.unwrap_err().contains("more workers lie than the code corrects"));
    }
    assert!(cluster.round(&gradients(1, 400, 6), &[], &[3]).iter().all(Result::is_ok));
}

#[test]
fn words_of_shards_that_are_not_finite_wait_within_the_limits() {
    let parameters = Parameters::new(1, 1, 0, 1).unwrap();
    let mut cluster = Cluster::new(&job(parameters, 80, 5), 1);
    for result in cluster.round(&[vec![f32::NAN; 80]], &[2], &[]) {
        let error = result.unwrap_err();
        assert!(error.contains("of 2 shards only 0 are finite and 2 must agree"), "{error}");
    }
}

#[test]
fn shards_of_a_worker_whose_first_round_is_not_open_yet_wait_until_it_is() {
    let mut job = job(Parameters::new(1, 1, 0, 2).unwrap(), 100, 10);
    job.plan.credits = 20;
    let mut cluster = Cluster::new(&job, 1);
    let gradient = &gradients(1, 100, 5)[0];
    // Round 0 has too few shards; round 1 is decoded and pushed meanwhile.
    cluster.sessions[2].skip();
    cluster.sessions[3].skip();
    for _ in 0..2 {
        for session in &mut cluster.sessions {
            if session.next_round() < 2 {
                session.begin().unwrap();
            }
        }
        for _ in 0..50 {
            cluster.sessions.iter_mut().for_each(|session| {
                session.pump(Source::Separate(gradient), None);
            });
            cluster.turn();
        }
    }
    cluster.sessions[0] = join(&cluster.pipeline, &job, 0, 2000);
    (0..5).for_each(|_| cluster.turn());
    let board = cluster.pipeline.handle.board.clone();
    assert_eq!((board.closed(), cluster.sessions[0].oldest()), (0, Some(2)));
    let before = board.counted(Counter::ShardsAccepted);
    for accepted in [0, 10] {
        for _ in 0..2 {
            // Both rounds that it may have in flight.
            if cluster.sessions[0].next_round() < 4 {
                cluster.sessions[0].begin().unwrap();
            }
            for _ in 0..5 {
                cluster.sessions[0].pump(Source::Separate(gradient), None);
                cluster.turn();
            }
        }
        assert_eq!(
            (board.counted(Counter::ShardsAccepted) - before, board.counted(Counter::Violations)),
            (accepted, 0)
        );
        cluster.now += job.deadline();
        (0..5).for_each(|_| cluster.turn());
    }
    assert_eq!(board.closed(), 2);
}

#[test]
fn a_round_that_only_a_liar_began_does_not_keep_the_daemon_from_stopping() {
    let job = job(Parameters::new(1, 1, 0, 2).unwrap(), 100, 10);
    let mut cluster = Cluster::new(&job, 1);
    cluster.sessions[0].begin().unwrap();
    cluster.sessions[0].pump(Source::Separate(&gradients(1, 100, 5)[0]), None);
    (0..5).for_each(|_| cluster.turn());
    let board = cluster.pipeline.handle.board.clone();
    board.request_stop();
    (0..5).for_each(|_| cluster.turn());
    assert!(!board.stopped(), "a round that has begun may come to its end");
    let until = cluster.pipeline.timer().expect("the stop has a time");
    cluster.pipeline.step(until);
    // All but one take their leave; the daemon does not wait for that one for ever.
    for session in &mut cluster.sessions[1..] {
        assert_eq!(session.drive(until, None), Err(crate::client::Lost::Stopped));
    }
    while cluster.pipeline.step(until) == Progress::Busy {}
    assert!(!board.stopped());
    let until = cluster.pipeline.timer().expect("the leave has a time");
    cluster.pipeline.step(until);
    assert!(board.stopped());
}

#[test]
fn nobody_is_named_when_the_honest_gradient_itself_is_not_finite() {
    let mut cluster = Cluster::new(&job(Parameters::new(1, 2, 0, 2).unwrap(), 100, 50), 1);
    let mut gradient = gradients(1, 100, 1);
    gradient[0][7] = f32::INFINITY;
    for result in cluster.round(&gradient, &[], &[]) {
        let error = result.unwrap_err();
        assert!(error.contains("of 6 shards only 1 are finite and 4 must agree"), "{error}");
    }
    assert_eq!(cluster.pipeline.handle.board.counted(Counter::Lies), 0);
    let named = cluster.round(&gradients(1, 100, 2), &[], &[5]).into_iter().flatten().map(|(_, report)| report);
    assert!(named.into_iter().all(|report| !report.liars.contains(0) && !report.late_liars.contains(0)));
}

#[test]
fn a_round_that_everybody_skipped_ends_by_the_deadline_once_the_next_has_begun() {
    let job = job(Parameters::new(1, 1, 0, 2).unwrap(), 100, 10);
    let mut cluster = Cluster::new(&job, 1);
    let gradient = &gradients(1, 100, 5)[0];
    for session in &mut cluster.sessions {
        session.skip();
        session.begin().unwrap();
    }
    for _ in 0..50 {
        cluster.sessions.iter_mut().for_each(|session| {
            session.pump(Source::Separate(gradient), None);
        });
        cluster.turn();
    }
    assert_eq!(cluster.pipeline.handle.board.closed(), 0);
    cluster.now += job.deadline();
    (0..5).for_each(|_| cluster.turn());
    let count = |counter| cluster.pipeline.handle.board.counted(counter);
    assert_eq!((count(Counter::RoundsUndecodable), count(Counter::RoundsComplete)), (1, 1));
}

#[test]
fn a_word_that_comes_to_the_decoder_after_its_round_was_closed_holds_no_slots() {
    let mut job = job(Parameters::new(1, 1, 0, 2).unwrap(), 100, 10);
    job.plan.credits = 1;
    let mut cluster = Cluster::new(&job, 1);
    let gradient = &gradients(1, 100, 5)[0];
    let context = Context { now: cluster.now, registry: None };
    cluster.sessions.iter_mut().for_each(|session| assert_eq!(session.begin(), Ok(0)));
    let send = |cluster: &mut Cluster, workers: usize| {
        for (worker, session) in cluster.sessions.iter_mut().enumerate().take(workers) {
            session.drive(context.now, None).unwrap();
            let mut lie = |_, _, shard: &mut [f32]| shard.iter_mut().for_each(|x| *x = -2.0 * *x + 1.0);
            let tamper: Option<crate::client::Tamper<'_>> = ([0, 2].contains(&worker)).then_some(&mut lie);
            session.pump(Source::Separate(gradient), tamper);
            session.drive(context.now, None).unwrap();
        }
        cluster.pipeline.receiver.step(&context);
        cluster.pipeline.assembler.step(&context);
    };
    // Chunk 0 fails; before anybody knows, chunk 1 has shards enough to try.
    send(&mut cluster, 4);
    cluster.pipeline.decoders[0].step(&context);
    cluster.pipeline.receiver.step(&context);
    cluster.pipeline.pusher.step(&context);
    send(&mut cluster, 3);
    cluster.pipeline.decoders[0].step(&context);
    cluster.pipeline.pusher.step(&context);
    assert_eq!(cluster.pipeline.handle.board.closed(), 1);
    while cluster.pipeline.step(context.now) == Progress::Busy {}
    assert_eq!(cluster.pipeline.held(), 0);
}

const OPEN: u8 = 0;
const SHUT: u8 = 1;
const TURN: u8 = 2;
const CHANGING: u8 = 3;

/// A connection that passes frames on when the gate is open, or asks for its turn; that no event announces.
struct Gated {
    inner: Box<dyn Outbound>,
    waiting: VecDeque<Outgoing>,
    gate: Arc<AtomicU8>,
}

impl Gated {
    fn at(&self) -> u8 {
        self.gate.load(Ordering::Relaxed)
    }
}

impl Outbound for Gated {
    fn send(&mut self, frame: Outgoing) -> Result<(), Outgoing> {
        self.waiting.push_back(frame);
        Ok(())
    }

    fn flush(&mut self, now: Instant) -> Result<Flushed, Disconnect> {
        if [SHUT, CHANGING].contains(&self.at()) {
            return Ok(Flushed { bytes: 0, empty: self.queued() == 0 });
        }
        for frame in self.waiting.drain(..) {
            self.inner.send(frame).expect("there is room");
        }
        self.inner.flush(now)
    }

    fn queued(&self) -> usize {
        self.waiting.len() + self.inner.queued()
    }

    fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        None
    }

    fn wants_turn(&self) -> bool {
        self.at() == TURN
    }

    fn is_changing(&self) -> bool {
        self.at() == CHANGING
    }

    fn close(&mut self) {
        self.inner.close();
    }
}

/// Three workers, the first behind a gate; a round is over for all but it.
fn held_up(at: u8) -> (Cluster, Arc<AtomicU8>) {
    let job = job(Parameters::new(1, 1, 0, 1).unwrap(), 40, 50);
    let mut cluster = Cluster::new(&job, 1);
    let (here, there) = memory::pair(64);
    let gate = Arc::new(AtomicU8::new(OPEN));
    let outbound = Box::new(Gated { inner: here.outbound, waiting: VecDeque::new(), gate: gate.clone() });
    assert!(cluster.pipeline.handle.admit(0, 2000, Connection { outbound, ..here }));
    let welcome = Welcome { plan: job.plan, worker: 0, session: 2000, epoch: job.epoch, last: None };
    cluster.sessions[0] = Session::new(there, welcome, job.number).unwrap();
    cluster.turn();
    cluster.turn();
    gate.store(at, Ordering::Relaxed);
    for session in &mut cluster.sessions {
        session.begin().unwrap();
        assert!(session.pump(Source::Separate(&gradients(1, 40, 1)[0]), None));
    }
    for _ in 0..10 {
        cluster.turn();
    }
    let mut update = vec![0.0; 40];
    for (worker, session) in cluster.sessions.iter_mut().enumerate() {
        assert_eq!(session.collect(&mut update).is_some(), worker > 0);
    }
    (cluster, gate)
}

#[test]
fn a_session_that_is_emptied_in_a_turn_it_asked_for_gets_the_next_round() {
    let (mut cluster, gate) = held_up(SHUT);
    gate.store(TURN, Ordering::Relaxed);
    cluster.turn();
    gate.store(OPEN, Ordering::Relaxed);
    cluster.turn();
    assert!(matches!(cluster.sessions[0].collect(&mut [0.0; 40]), Some(Ok((0, _)))));
    let results = cluster.round(&gradients(1, 40, 2), &[], &[]);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[test]
fn the_write_deadline_does_not_count_the_time_in_which_a_session_changes_its_way() {
    for (at, ends) in [(CHANGING, false), (SHUT, true)] {
        let (mut cluster, gate) = held_up(at);
        cluster.now += Duration::from_secs(3);
        cluster.pipeline.step(cluster.now);
        gate.store(OPEN, Ordering::Relaxed);
        cluster.pipeline.step(cluster.now);
        assert_eq!(cluster.pipeline.handle.board.counted(Counter::NotReading), u64::from(ends));
    }
}
