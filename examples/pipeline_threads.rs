//! A daemon's pipeline on four threads and its workers on one each, over TCP in this one process, for a few rounds with liars,
//! late workers, and a worker that leaves and comes back.
//!
//! Written for ThreadSanitizer, which sees the memory orders that the machine happens to give but the code does not ask for:
//! `.ci/sanitizers` builds it so. It also runs as it is.
//!
//! `cargo run --example pipeline_threads [rounds]`

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use solon::client::{JoinOptions, Worker};
use solon::daemon::config::{Request, load};
use solon::daemon::serve::job_of;
use solon::pipeline::{Bells, Counter, Handle, Idle, Job, Pipeline, Reactor, Stage};
use solon::transport::tcp;
use solon::wire::{Credential, HELLO_BYTES, Welcome, accept_hello, challenge_frame, welcome_frame};

const DIMENSION: usize = 1501;
const GROUPS: usize = 2;
const LIARS: usize = 1;
const LANES: usize = 2;

fn job() -> Job {
    let flags = "solond --listen-address 127.0.0.1:0 --job-dimension 1501 --job-groups 2 --job-adversaries 1 \
                 --job-stragglers 1 --chunks-width 50 --rounds-deadline-ms 60000 --rounds-linger-ms 0";
    let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    match load(flags.split_whitespace().map(Into::into), std::iter::empty(), &none) {
        Ok(Request::Serve(loaded)) => job_of(&loaded.config, [5; 32], 6).expect("a job"),
        other => panic!("a configuration, not {other:?}"),
    }
}

/// The gradient of a group in a round.
fn gradient(group: usize, round: u64, at: usize) -> f32 {
    ((at as u64 * 7919 + round * 31 + group as u64 * 104_729) % 2003) as f32 * 0.001 - 1.0
}

/// Rows take turns to lie, in other rounds by other lies.
fn lie(row: usize, redundancy: usize, round: u64, shard: &mut [f32]) {
    if (row + redundancy - round as usize % redundancy) % redundancy < LIARS {
        match round % 3 {
            0 => shard.fill(f32::NAN),
            1 => shard.iter_mut().for_each(|x| *x *= -100.0),
            _ => shard[0] += 100.0,
        }
    }
}

/// Lets everybody in, until `over`: the door of a daemon.
fn door(listener: &TcpListener, job: &Job, handle: &Handle, over: &AtomicBool) {
    let workers = job.plan.parameters.workers();
    for session in 1.. {
        let (mut stream, _) = listener.accept().expect("a connection");
        if over.load(Ordering::SeqCst) {
            return;
        }
        let (challenge, credentials) = ([7; 32], vec![Credential::from_token(""); workers]);
        stream.write_all(&challenge_frame(&challenge)).expect("the worker hears");
        let mut hello = [0; HELLO_BYTES];
        stream.read_exact(&mut hello).expect("the worker says hello");
        let hello = accept_hello(&hello, &challenge, job.number, &credentials).expect("a right hello");
        let worker = hello.identity.worker;
        let welcome = Welcome { plan: job.plan, worker, session, epoch: job.epoch, last: None };
        let welcome = welcome_frame(&welcome, &credentials[0], &challenge, &hello.nonce);
        stream.write_all(&welcome).expect("the worker hears");
        let connection = tcp::connection(stream, 64, Duration::from_secs(10)).expect("a connection");
        assert!(handle.admit(worker, session, connection));
    }
}

fn join(address: &str, worker: u32) -> Worker {
    let options = JoinOptions::new(address, "default", worker);
    Worker::join(&JoinOptions { round_timeout: Duration::from_secs(120), ..options }).expect("the worker joins")
}

/// One worker's rounds.
fn work(address: &str, worker: u32, rounds: u64, redundancy: usize, joined: &Barrier) {
    if worker == 0 {
        join(address, worker).leave();
    }
    let mut handle = join(address, worker);
    let place = handle.place();
    joined.wait();
    let mut buffer = vec![0.0; DIMENSION];
    for round in 0..rounds {
        // One row of the group comes late, now and then, and its shards after the word is decided.
        if (place.row as u64 + round).is_multiple_of(redundancy as u64 + 3) {
            std::thread::sleep(Duration::from_millis(2));
        }
        buffer.iter_mut().enumerate().for_each(|(at, x)| *x = gradient(place.group, round, at));
        let mut tamper = |round, _: u32, shard: &mut [f32]| lie(place.row, redundancy, round, shard);
        handle.exchange_tampered(&mut buffer, Some(&mut tamper)).expect("the round ends");
        for (at, found) in buffer.iter().enumerate() {
            let exact: f32 = (0..GROUPS).map(|group| gradient(group, round, at)).sum();
            assert!((found - exact).abs() < 1e-3, "round {round}, number {at}: {found}, not {exact}");
        }
    }
    handle.leave();
}

fn main() {
    let rounds = std::env::args().nth(1).map_or(40, |x| x.parse().expect("rounds: a number"));
    // A thread that fails ends the process: the others would wait for it.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::exit(101);
    }));
    let job = job();
    let (workers, redundancy) = (job.plan.parameters.workers(), job.plan.parameters.redundancy());
    // As `cores.map = "auto"` has it on many cores, but with all idling kinds at once.
    let reactor = |idle| Reactor::new(idle).expect("a reactor");
    let mut reactors = [reactor(Idle::Park), reactor(Idle::LookThenPark), reactor(Idle::Park), reactor(Idle::Yield)];
    let [front, back, first, second] = [0, 1, 2, 3].map(|at: usize| reactors[at].bell());
    let bells = Bells { receiver: front.clone(), assembler: front, decoders: vec![first, second], pusher: back };
    let Pipeline { receiver, assembler, decoders, pusher, handle } = Pipeline::new(&job, &bells);
    let shards = receiver.slab().clone();
    let decoders: Vec<_> = decoders.into_iter().map(|decoder| vec![Box::new(decoder) as Box<dyn Stage>]).collect();
    assert_eq!(decoders.len(), LANES);
    let mut stages: Vec<Vec<Box<dyn Stage>>> =
        vec![vec![Box::new(receiver), Box::new(assembler)], vec![Box::new(pusher)]];
    stages.extend(decoders);

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (over, closed, joined) = (AtomicBool::new(false), AtomicBool::new(false), Barrier::new(workers));
    std::thread::scope(|scope| {
        scope.spawn(|| door(&listener, &job, &handle, &closed));
        for (reactor, mut stages) in reactors.iter_mut().zip(stages) {
            let over = &over;
            scope.spawn(move || {
                reactor.run(&mut stages, || over.load(Ordering::SeqCst)).expect("the reactor runs");
            });
        }
        let all: Vec<_> = (0..workers as u32)
            .map(|worker| {
                let (address, joined) = (&address, &joined);
                scope.spawn(move || work(address, worker, rounds, redundancy, joined))
            })
            .collect();
        all.into_iter().for_each(|worker| worker.join().expect("the worker ends"));
        let nobody = || (0..GROUPS).all(|group| handle.board.connected(group).is_empty());
        while !nobody() {
            std::thread::sleep(Duration::from_millis(1));
        }
        over.store(true, Ordering::SeqCst);
        bells.decoders.iter().chain([&bells.receiver, &bells.pusher]).for_each(|bell| bell.ring());
        closed.store(true, Ordering::SeqCst);
        drop(std::net::TcpStream::connect(&address));
    });
    let counted = |counter| handle.board.counted(counter);
    assert_eq!(counted(Counter::RoundsComplete), rounds);
    assert!(counted(Counter::Lies) > 0, "there are liars");
    let credits = job.plan.credits as usize;
    assert!((0..workers).all(|worker| shards.free(worker) == credits), "every shard slot came back");
    println!(
        "{rounds} rounds, {} lies found, {} shards came late, {} words disputed",
        counted(Counter::Lies),
        counted(Counter::ShardsLate),
        counted(Counter::WordsDisputed)
    );
}
