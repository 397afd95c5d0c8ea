//! What may not disturb a job: floods, peers that never read, second connections, a full table of descriptors.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Solond, distance, gradient};
use solon::client::{ClientError, JoinOptions, Lost, Worker};
use solon::wire::{
    CHALLENGE_BYTES, Credential, Header, Hello, Identity, Kind, WELCOME_BYTES, Welcome, header_bytes, hello_frame,
    read_challenge, read_welcome,
};

/// A worker made by hand: shakes hands as worker `index`, and then does what the test wants.
fn by_hand(address: &str, index: u32) -> (TcpStream, Welcome) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut challenge = [0; CHALLENGE_BYTES];
    stream.read_exact(&mut challenge).unwrap();
    let challenge = read_challenge(&challenge).unwrap();
    let (credential, nonce) = (Credential::from_token(""), [7; 32]);
    let hello = Hello::new(Identity::new("default", index), nonce);
    stream.write_all(&hello_frame(&hello, &credential, &challenge)).unwrap();
    let mut welcome = [0; WELCOME_BYTES];
    stream.read_exact(&mut welcome).unwrap();
    (stream, read_welcome(&welcome, &credential, &challenge, &nonce).unwrap())
}

/// The workers of one group of six exchange rounds `rounds`, each in a thread of its own.
fn exchange(workers: &mut [Worker], rounds: std::ops::Range<u64>, dimension: usize) {
    std::thread::scope(|scope| {
        for worker in workers {
            let rounds = rounds.clone();
            scope.spawn(move || {
                for round in rounds {
                    let mut buffer = gradient(0, round, dimension);
                    worker.exchange(&mut buffer).unwrap();
                    assert!(distance(&buffer, 1, round) < 1e-5);
                }
            });
        }
    });
}

#[test]
fn a_worker_that_never_reads_is_dropped_and_the_others_get_every_round() {
    const D: usize = 2_000_000;
    let mut solond = Solond::start(&["--job-dimension", "2000000", "--job-groups", "1"]);
    let (silent, _) = by_hand(&solond.address, 5);
    let mut workers: Vec<Worker> = (0..5).map(|worker| solond.join(worker)).collect();
    exchange(&mut workers, 0..4, D);
    let line = solond.wait_for("does not take its update");
    assert!(line.contains("\"worker\":5"), "{line}");
    drop(silent);
}

#[test]
fn the_newest_session_of_a_worker_wins() {
    let solond = Solond::start(&["--job-dimension", "100", "--job-groups", "1"]);
    let mut workers: Vec<Worker> = (0..6).map(|worker| solond.join(worker)).collect();
    exchange(&mut workers, 0..2, 100);
    std::thread::sleep(Duration::from_millis(1100)); // one identity may join once per second
    let second = Worker::join_after(&solond.options(0), workers[0].last()).unwrap();
    assert_eq!((second.joined().round, second.joined().missed), (2, Some(0)));
    let error = workers[0].exchange(&mut gradient(0, 2, 100)).unwrap_err();
    assert!(matches!(error, ClientError::AggregatorLost { round: 2, why: Lost::Connection(_) }), "{error}");
    workers[0] = second;
    exchange(&mut workers, 2..4, 100);
}

#[test]
fn every_protocol_violation_ends_the_session_of_the_offender_and_of_nobody_else() {
    let mut solond = Solond::start(&["--job-dimension", "100", "--job-groups", "1"]);
    let mut workers: Vec<Worker> = (0..5).map(|worker| solond.join(worker)).collect();
    let (mut done, mut wait) = (0, Duration::ZERO);
    let good = |welcome: &Welcome| Header {
        job: Identity::new("default", 5).job,
        session: welcome.session,
        worker: 5,
        round: done_round(welcome),
        ..Header::new(Kind::Shard)
    };
    fn done_round(welcome: &Welcome) -> u64 {
        welcome.last.map_or(0, |last| last.round + 1)
    }
    type Break = fn(Header) -> (Header, usize);
    let breaks: [(&str, Break); 9] = [
        ("another session", |header| (Header { session: header.session + 1, ..header }, 200)),
        ("name of worker 4", |header| (Header { worker: 4, ..header }, 200)),
        ("another job", |header| (Header { job: 1, ..header }, 200)),
        ("chunk 1 of 1", |header| (Header { chunk: 1, ..header }, 200)),
        ("but the window is", |header| (Header { round: header.round + 4, ..header }, 200)),
        ("round 18446744073709551615", |header| (Header { round: u64::MAX, ..header }, 200)),
        ("payload of 196 bytes where the plan has 200", |header| (header, 196)),
        ("kind Shard in the wrong direction or phase", |header| (header, 0)),
        ("kind Update in the wrong direction", |header| (Header { kind: Kind::Update, ..header }, 200)),
    ];
    for (reason, wrong) in breaks {
        std::thread::sleep(wait);
        wait = Duration::from_millis(1050);
        let (mut stream, welcome) = by_hand(&solond.address, 5);
        let (header, bytes) = wrong(good(&welcome));
        // A shard of nothing is refused by its length; here the checksum is right, the frame is not.
        let payload = vec![0; bytes];
        stream.write_all(&header_bytes(header, &payload)).unwrap();
        // The daemon may have closed already.
        let _ = stream.write_all(&payload);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let line = solond.wait_for("worker left");
        let expected = if bytes == 0 { "payload of 0 bytes" } else { reason };
        assert!(line.contains(expected), "expected {expected}: {line}");
        exchange(&mut workers, done..done + 1, 100);
        done += 1;
    }
}

#[test]
fn a_flood_of_connections_does_not_stop_a_job() {
    let solond = Solond::start(&["--job-dimension", "5003", "--job-groups", "1"]);
    let mut workers: Vec<Worker> = (0..6).map(|worker| solond.join(worker)).collect();
    let (over, tried) = (AtomicBool::new(false), AtomicUsize::new(0));
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", solond.child.id())).map_or(0, |entries| entries.count());
    let mut next = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut held = Vec::new();
            while !over.load(Ordering::Relaxed) {
                tried.fetch_add(1, Ordering::Relaxed);
                if let Ok(stream) = TcpStream::connect(&solond.address) {
                    held.push(stream);
                }
                if held.len() > 300 {
                    held.clear();
                }
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // Rounds until it was a flood: on a busy machine many rounds pass between two connections.
            while next < 100 || tried.load(Ordering::Relaxed) < 1_000 {
                assert!(next < 100_000, "{} connections in {next} rounds are no flood", tried.load(Ordering::Relaxed));
                exchange(&mut workers, next..next + 10, 5003);
                next += 10;
            }
            descriptors()
        }));
        over.store(true, Ordering::Relaxed);
        let open = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Two for each of six workers, 4 x 6 + 16 strangers, and what the daemon itself needs.
        assert!(open <= 12 + 40 + 24, "{open} descriptors");
    });
    exchange(&mut workers, next..next + 2, 5003);
}

#[test]
fn a_daemon_without_descriptors_left_goes_on_serving_those_who_are_in() {
    let mut solond = Solond::start(&["--job-dimension", "100", "--job-groups", "1"]);
    let mut workers: Vec<Worker> = (0..6).map(|worker| solond.join(worker)).collect();
    let pid = solond.child.id().to_string();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = format!("--nofile={open}:");
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    let strangers: Vec<_> = (0..3).map(|_| TcpStream::connect(&solond.address)).collect();
    let line = solond.wait_for("cannot accept connections");
    assert!(line.contains("Too many open files"), "{line}");
    exchange(&mut workers, 0..5, 100);
    drop(strangers);
    let limit = format!("--nofile={}:", open + 64);
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(1200));
    workers.remove(0).leave();
    workers.insert(0, solond.join(0));
    exchange(&mut workers, 5..7, 100);
}

#[test]
fn joining_somebody_who_says_nothing_is_timed_out_in_words() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = JoinOptions::new(silent.local_addr().unwrap().to_string(), "default", 0);
    options.join_timeout = Duration::from_millis(100);
    let error = Worker::join(&options).unwrap_err().to_string();
    assert!(error.contains("broke off: timed out"), "{error}");
}
