//! Once everybody has joined the data path allocates nothing, whatever arrives, and every slot comes back.

#![allow(unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout as MemoryLayout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{Dice, config, distance, gradient, lie};
use solon::client::{JoinOptions, Source, Tamper, Worker};
use solon::daemon::serve::job_of;
use solon::pipeline::{Bells, Counter, Handle, Idle, Job, Pipeline, Reactor, Relay, Stage};
use solon::transport::tcp;
use solon::wire::{Credential, HELLO_BYTES, Welcome, accept_hello, challenge_frame, welcome_frame};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn note() {
    COUNT.set(COUNT.get() + 1);
}

// SAFETY: defers to the system's allocator; a const-initialised thread local of a plain number does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: MemoryLayout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: MemoryLayout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: MemoryLayout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn alloc_zeroed(&self, layout: MemoryLayout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Calls `work` and adds what it allocates to `count`.
fn counted<T>(count: &mut u64, work: impl FnOnce() -> T) -> T {
    let before = COUNT.get();
    let result = work();
    *count += COUNT.get() - before;
    result
}

#[test]
fn the_counter_counts() {
    let mut count = 0;
    counted(&mut count, || drop(std::hint::black_box(Box::new(1))));
    assert_eq!(count, 1);
}

const D: usize = 1501;
const GROUPS: usize = 2;
const WORKERS: usize = 14;
const LIARS: usize = 2;

fn job(linger: &str, precision: &str, update_precision: &str) -> Job {
    let mut flags = vec!["--job-dimension", "1501", "--job-groups", "2", "--job-stragglers", "1"];
    flags.extend([
        "--chunks-width",
        "50",
        "--rounds-deadline-ms",
        "60000",
        "--rounds-linger-ms",
        linger,
        "--job-precision",
        precision,
        "--push-precision",
        update_precision,
    ]);
    job_of(&config(&flags), [5; 32], 6).unwrap()
}

#[test]
fn pipeline_and_sessions_allocate_nothing_from_the_first_round_on_and_all_slots_come_back() {
    let ways = [
        ("0", 1, "f32", "f32", false),
        ("0", 2, "f32", "f32", false),
        ("60000", 1, "f32", "f32", false),
        ("0", 2, "bf16", "f32", false),
        ("60000", 1, "f16", "bf16", false),
        ("0", 2, "f32", "f32", true),
        ("60000", 1, "f32", "bf16", true),
    ];
    for (linger, lanes, precision, update_precision, relayed) in ways {
        let mut job = job(linger, precision, update_precision);
        job.relay = relayed.then_some(Relay { repair: Duration::from_secs(60), auto: false });
        let mut dice = Dice::new(lanes as u64);
        let mut pipeline = Pipeline::new(&job, &Bells::silent(lanes));
        let (shards, updates) = (pipeline.receiver.slab().clone(), pipeline.pusher.slab().clone());
        let free: Vec<usize> = (0..2).map(|holder| updates.free(holder)).collect();
        let mut now = Instant::now();
        let mut sessions = common::sessions_over_memory(&job, &mut pipeline, now);
        if relayed {
            common::link_over_memory(&mut sessions, &mut pipeline, now);
        }
        let r = job.plan.parameters.redundancy();
        let mut update = vec![0.0; D];
        let mut count = 0;
        for round in 0..12u64 {
            let gradients: Vec<_> = (0..GROUPS).map(|group| gradient(group, round, D)).collect();
            // Where nobody is waited for, one worker of each group is silent in some rounds.
            let silent = |worker: usize| linger == "0" && round % 3 == 1 && worker % r == (round as usize + 4) % r;
            let mut done = [false; WORKERS];
            counted(&mut count, || {
                for (worker, session) in sessions.iter_mut().enumerate() {
                    if silent(worker) { session.skip() } else { assert_eq!(session.begin().unwrap(), round) }
                }
            });
            while done.iter().any(|done| !done) {
                // Chance decides who is slow: some shards come after their words were decided.
                let worker = dice.roll(WORKERS);
                let session = &mut sessions[worker];
                let mut tamper = |round, _, shard: &mut [f32]| lie(worker % r, r, LIARS, round, shard);
                // What changes a rounded shard needs room for it; so there a liar has another gradient.
                let lies = precision != "f32" && (worker + round as usize).is_multiple_of(r);
                let gradient = &gradients[(worker / r + usize::from(lies)) % GROUPS];
                let tamper: Option<Tamper<'_>> = if precision == "f32" { Some(&mut tamper) } else { None };
                let collected = counted(&mut count, || {
                    session.pump(Source::Separate(gradient), tamper);
                    session.drive(now, Some(&mut update)).unwrap();
                    if done[worker] { None } else { session.collect(&mut update) }
                });
                if let Some(result) = collected {
                    let (number, report) = result.unwrap();
                    assert_eq!(number, round);
                    assert!(report.liars.iter().count() <= GROUPS * LIARS);
                    done[worker] = true;
                }
                // The next worker's update may not land among this one's.
                counted(&mut count, || sessions[worker].withdraw(&update));
                if dice.roll(4) == 0 {
                    counted(&mut count, || pipeline.step(now));
                }
                now += Duration::from_micros(1);
            }
        }
        assert_eq!(count, 0, "linger {linger}, {lanes} lanes, updates {update_precision}, relayed: {relayed}");
        let counted = |counter| pipeline.handle.board.counted(counter);
        assert_eq!(counted(Counter::RoundsComplete), 12);
        assert_eq!(counted(Counter::UpdateBytesCarried) > 0, relayed);
        assert_eq!(counted(Counter::RepairsLate) + counted(Counter::RepairsWrong) + counted(Counter::Violations), 0);
        assert!(counted(Counter::Lies) > 0);
        if linger == "0" {
            assert!(counted(Counter::ShardsLate) > 0, "late shards are part of this test");
            assert!(counted(Counter::WordsDisputed) > 0, "disputes are part of this test");
        }
        // A session's end gives back what was posted for it.
        drop(sessions);
        for _ in 0..100 {
            pipeline.step(now);
        }
        let credits = job.plan.credits as usize;
        assert!((0..WORKERS).all(|worker| shards.free(worker) == credits), "every shard slot came back");
        assert!((0..2).all(|holder| updates.free(holder) == free[holder]), "every update slot came back");
    }
}

#[test]
fn robust_rules_allocate_nothing_from_the_first_round_on_and_all_slots_come_back() {
    const P: usize = 11;
    for (rule, lanes) in
        ["median", "signum", "multi-krum", "bulyan", "geometric-median"].into_iter().flat_map(|it| [(it, 1), (it, 3)])
    {
        let flags =
            ["--job-dimension", "1501", "--job-groups", "11", "--chunks-width", "50", "--rounds-deadline-ms", "60000"];
        let weights: &[&str] = match rule {
            "bulyan" => &["--job-weights", "[1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2]"],
            "multi-krum" => &["--job-precision", "bf16"],
            _ => &[],
        };
        let job = job_of(&config(&[&flags[..], &["--job-rule", rule], weights].concat()), [5; 32], 6).unwrap();
        let mut dice = Dice::new(lanes as u64);
        let mut pipeline = Pipeline::new(&job, &Bells::silent(lanes));
        let (shards, updates) = (pipeline.receiver.slab().clone(), pipeline.pusher.slab().clone());
        let free: Vec<usize> = (0..2).map(|holder| updates.free(holder)).collect();
        let mut now = Instant::now();
        let mut sessions = common::sessions_over_memory(&job, &mut pipeline, now);
        let mut update = vec![0.0; D];
        let mut count = 0;
        for round in 0..8u64 {
            let mut gradients: Vec<_> = (0..P).map(|worker| gradient(worker, round, D)).collect();
            gradients[3][700] = if rule == "signum" { 0.0 } else { f32::NAN };
            let mut done = [false; P];
            counted(&mut count, || sessions.iter_mut().for_each(|session| assert_eq!(session.begin().unwrap(), round)));
            while done.iter().any(|done| !done) {
                let worker = dice.roll(P);
                let session = &mut sessions[worker];
                let collected = counted(&mut count, || {
                    session.pump(Source::Separate(&gradients[worker]), None);
                    session.drive(now, Some(&mut update)).unwrap();
                    if done[worker] { None } else { session.collect(&mut update) }
                });
                if let Some(result) = collected {
                    let (number, report) = result.unwrap();
                    assert_eq!((number, report.liars.count()), (round, usize::from(rule != "signum")));
                    done[worker] = true;
                }
                counted(&mut count, || sessions[worker].withdraw(&update));
                if dice.roll(4) == 0 {
                    counted(&mut count, || pipeline.step(now));
                }
                now += Duration::from_micros(1);
            }
        }
        assert_eq!(count, 0, "{rule}, {lanes} lanes");
        assert_eq!(pipeline.handle.board.counted(Counter::RoundsComplete), 8);
        drop(sessions);
        for _ in 0..100 {
            pipeline.step(now);
        }
        let credits = job.plan.credits as usize;
        assert!((0..P).all(|worker| shards.free(worker) == credits), "every shard slot came back");
        assert!((0..2).all(|holder| updates.free(holder) == free[holder]), "every update slot came back");
    }
}

/// Lets every worker in, one after the other.
fn let_in(listener: &TcpListener, job: &Job, handle: &Handle) {
    for session in 1..=WORKERS as u64 {
        let (mut stream, _) = listener.accept().unwrap();
        let (challenge, credentials) = ([7; 32], vec![Credential::from_token(""); WORKERS]);
        stream.write_all(&challenge_frame(&challenge)).unwrap();
        let mut hello = [0; HELLO_BYTES];
        stream.read_exact(&mut hello).unwrap();
        let hello = accept_hello(&hello, &challenge, job.number, &credentials).unwrap();
        let worker = hello.identity.worker;
        let welcome = Welcome { plan: job.plan, worker, session, epoch: job.epoch, last: None };
        stream.write_all(&welcome_frame(&welcome, &credentials[0], &challenge, &hello.nonce)).unwrap();
        assert!(handle.admit(
            worker,
            session,
            tcp::connection(stream, 64, std::time::Duration::from_secs(10)).unwrap()
        ));
    }
}

#[test]
fn a_reactor_over_tcp_allocates_nothing_from_the_first_round_on() {
    const ROUNDS: u64 = 30;
    const PATIENCE: Duration = Duration::from_secs(60);
    let job = job("0", "f32", "f32");
    let r = job.plan.parameters.redundancy();
    let mut reactor = Reactor::new(Idle::Park).unwrap();
    let bell = || vec![reactor.bell()];
    let (receiver, assembler, pusher) = (reactor.bell(), reactor.bell(), reactor.bell());
    let pipeline = Pipeline::new(&job, &Bells { receiver, assembler, pusher, decoders: bell() });
    let shards = pipeline.receiver.slab().clone();
    let Pipeline { receiver, assembler, decoders, pusher, handle } = pipeline;
    let mut stages: Vec<Box<dyn Stage>> = vec![Box::new(receiver), Box::new(assembler)];
    stages.extend(decoders.into_iter().map(|stage| Box::new(stage) as Box<dyn Stage>));
    stages.push(Box::new(pusher));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (joined, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| let_in(&listener, &job, &handle));
        let mut starts = Vec::new();
        for worker in 0..WORKERS as u32 {
            let (address, joined, left) = (&address, &joined, &left);
            let (start, started) = mpsc::channel();
            starts.push(start);
            scope.spawn(move || {
                let options = JoinOptions::new(address, "default", worker);
                let mut handle = Worker::join(&JoinOptions { round_timeout: PATIENCE, ..options }).unwrap();
                joined.fetch_add(1, Ordering::SeqCst);
                started.recv().expect("all joined");
                let place = handle.place();
                let mut buffer = vec![0.0; D];
                for round in 0..ROUNDS {
                    buffer.copy_from_slice(&gradient(place.group, round, D));
                    let mut tamper = |round, _: u32, shard: &mut [f32]| lie(place.row, r, LIARS, round, shard);
                    handle.exchange_tampered(&mut buffer, Some(&mut tamper)).unwrap();
                    assert!(distance(&buffer, GROUPS, round) < 1e-5);
                }
                handle.leave();
                left.fetch_add(1, Ordering::SeqCst);
            });
        }
        let begin = Instant::now();
        let late = || begin.elapsed() > PATIENCE;
        let connected = || (0..GROUPS).all(|group| handle.board.connected(group).count() == r);
        reactor.run(&mut stages, || late() || joined.load(Ordering::SeqCst) == WORKERS && connected()).unwrap();
        assert!(!late(), "everybody joins");
        starts.iter().for_each(|start| start.send(()).unwrap());
        // `run` makes its list of events first; from then on nothing.
        let (first, last) = (Cell::new(None), Cell::new(0));
        let over = || {
            last.set(COUNT.get());
            first.set(first.get().or(Some(COUNT.get())));
            late() || handle.board.counted(Counter::RoundsComplete) == ROUNDS
        };
        reactor.run(&mut stages, over).unwrap();
        assert!(!late(), "all rounds end");
        assert_eq!(last.get() - first.get().unwrap(), 0);
        let nobody = || (0..GROUPS).all(|group| handle.board.connected(group).is_empty());
        let gone = || late() || left.load(Ordering::SeqCst) == WORKERS && nobody();
        reactor.run(&mut stages, gone).unwrap();
    });
    let credits = job.plan.credits as usize;
    assert!((0..WORKERS).all(|worker| shards.free(worker) == credits), "every shard slot came back");
}
