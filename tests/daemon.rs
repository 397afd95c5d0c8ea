//! A real daemon process and real clients over loopback: what users see.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::{Solond, distance, gradient};
use solon::attacks::{Attack, Liar, Means};
use solon::client::{ClientError, Fault, JoinError, JoinOptions, Lost, Worker};
use solon::wire::{
    CHALLENGE_BYTES, HEADER_BYTES, HandshakeError, Header, HeaderError, Kind, Refusal, UndecodableReason, VERSION,
    header_bytes, refusal_of,
};

const D: usize = 5003;

#[test]
fn every_worker_gets_the_right_sum_and_the_liars_are_named() {
    let solond = Solond::start(&["--job-dimension", "5003", "--chunks-width", "500"]);
    let digests = solond.all(12, |worker, mut handle| {
        let group = handle.place().group;
        let mut named = std::collections::BTreeSet::new();
        let mut digests = Vec::new();
        for round in 0..20 {
            let mut buffer = gradient(group, round, D);
            let mut lie = |_: u64, _: u32, shard: &mut [f32]| shard.iter_mut().for_each(|x| *x *= -100.0);
            let liar = [1, 4, 6, 11].contains(&worker);
            let report = handle.exchange_tampered(&mut buffer, liar.then_some(&mut lie)).unwrap();
            assert!(distance(&buffer, 2, round) < 1e-5);
            named.extend(report.liars.union(&report.late_liars).iter());
            digests.push(report.digest);
        }
        handle.leave();
        assert_eq!(named.into_iter().collect::<Vec<_>>(), [1, 4, 6, 11]);
        digests
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]), "everybody has the same updates");
}

#[test]
fn shards_of_16_bits_are_half_as_long_and_liars_among_them_are_named() {
    // What rounding leaves: one roundoff for replicas; enlarged a little where shards are mixtures.
    for (precision, compression, workers, allowed) in
        [("bf16", "1", 10, 4e-3), ("bf16", "2", 12, 1.2e-2), ("f16", "2", 12, 1.5e-3)]
    {
        let flags = ["--job-dimension", "5003", "--chunks-width", "500", "--rounds-linger-ms", "60000"];
        let flags = [&flags[..], &["--rounds-deadline-ms", "60000"], &["--job-precision", precision]].concat();
        let solond = Solond::start(&[&flags[..], &["--job-compression", compression]].concat());
        let digests = solond.all(workers, |worker, mut handle| {
            let (place, r) = (handle.place(), handle.plan().parameters.redundancy());
            let (mut named, mut digests) = (std::collections::BTreeSet::new(), Vec::new());
            for round in 0..12 {
                let mut buffer = gradient(place.group, round, D);
                let mut lie = |_: u64, chunk: u32, shard: &mut [f32]| match chunk % 3 {
                    0 => shard.iter_mut().for_each(|x| *x *= -100.0),
                    1 => shard[1] = f32::NAN,
                    _ => shard.iter_mut().enumerate().for_each(|(at, x)| *x += 20.0 * (at % 3) as f32),
                };
                let report = handle.exchange_tampered(&mut buffer, (place.row < 2).then_some(&mut lie)).unwrap();
                let distance = distance(&buffer, 2, round);
                assert!(distance < allowed, "{precision} {compression}: {distance}");
                named.extend(report.liars.union(&report.late_liars).iter());
                digests.push(report.digest);
            }
            let (sent, _) = handle.traffic();
            let shards = D.div_ceil(compression.parse().unwrap()) as u64;
            assert!(sent < 12 * (2 * shards + 64 * 11 + 64), "{precision} {compression}: {sent}");
            handle.leave();
            assert_eq!(named.into_iter().collect::<Vec<_>>(), [0, 1, r, r + 1], "worker {worker}");
            digests
        });
        assert!(digests.iter().all(|digest| *digest == digests[0]), "everybody has the same updates");
    }
}

#[test]
fn updates_of_16_bits_are_the_sum_rounded_once_in_whatever_way_a_worker_takes_them() {
    // Replicas and one group: the sum is the gradient, bit by bit, whoever is waited for; rounded shards are rounded already.
    let flags = ["--job-dimension", "5003", "--job-groups", "1", "--job-adversaries", "1", "--job-stragglers", "1"];
    for (precision, shards) in [("bf16", "f32"), ("f16", "f32"), ("bf16", "bf16")] {
        let more = ["--chunks-width", "300", "--push-precision", precision, "--job-precision", shards];
        let flags = [&flags[..], &more, &["--job-compression", "1"]].concat();
        let solond = Solond::start(&flags);
        solond.all(4, |index, mut worker| {
            let mut buffer = vec![0.0; D];
            for round in 0..12 {
                let gradient = gradient(0, round, D);
                let wanted: Vec<u32> = match precision {
                    "bf16" => gradient.iter().map(|x| half::bf16::from_f32(*x).to_f32().to_bits()).collect(),
                    _ => gradient.iter().map(|x| half::f16::from_f32(*x).to_f32().to_bits()).collect(),
                };
                let bits = |update: &[f32]| update.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                let right = match index {
                    0 => {
                        buffer.copy_from_slice(&gradient);
                        worker.exchange(&mut buffer).unwrap();
                        bits(&buffer) == wanted
                    }
                    1 => {
                        worker.submit(&gradient).unwrap();
                        worker.wait(&mut buffer).unwrap();
                        bits(&buffer) == wanted
                    }
                    2 => {
                        let before = worker.copied();
                        worker.submit(&gradient).unwrap();
                        let update = worker.update().unwrap();
                        assert_eq!(worker.copied(), before);
                        bits(&update) == wanted
                    }
                    // Never submits.
                    _ => {
                        worker.follow(&mut buffer).unwrap();
                        bits(&buffer) == wanted
                    }
                };
                assert!(right, "{precision} {shards} worker {index} round {round}");
            }
            let (_, received) = worker.traffic();
            let most = 12 * (2 * D + 64 * 18 + 64 + 552) + 64 * 12 * 18 + 64;
            assert!(received < most as u64, "{precision} {shards} worker {index}: {received}, not {most}");
        });
    }
}

#[test]
fn workers_and_daemons_of_another_protocol_version_tell_each_other_so() {
    let other = VERSION - 1;
    let sealed = move |mut header: [u8; HEADER_BYTES], payload: &[u8]| {
        header[4..6].copy_from_slice(&other.to_le_bytes());
        [&header[..], payload].concat()
    };
    // A worker of the version before.
    let solond = Solond::start(&["--job-dimension", "5003"]);
    let mut stream = TcpStream::connect(&solond.address).unwrap();
    stream.read_exact(&mut [0; CHALLENGE_BYTES]).unwrap();
    stream.write_all(&sealed(header_bytes(Header::new(Kind::Hello), &[0; 88]), &[0; 88])).unwrap();
    let mut answer = [0; HEADER_BYTES];
    stream.read_exact(&mut answer).unwrap();
    let refusal = refusal_of(&Header::parse(&answer).unwrap()).unwrap();
    assert_eq!(refusal, Refusal::Unreadable);
    assert!(refusal.to_string().contains("version"), "{refusal}");
    // A daemon of the version before.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let daemon = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&sealed(header_bytes(Header::new(Kind::Challenge), &[0; 32]), &[0; 32])).unwrap();
    });
    let error = Worker::join(&JoinOptions::new(address, "default", 0)).unwrap_err();
    daemon.join().unwrap();
    assert!(
        matches!(error, JoinError::Handshake(HandshakeError::Header(HeaderError::Version(it))) if it == other),
        "{error}"
    );
    let text = format!("protocol version {other}, this side speaks {VERSION}");
    assert!(error.to_string().contains(&text), "{error}");
}

#[test]
fn two_rounds_can_be_in_flight() {
    let solond = Solond::start(&["--job-dimension", "5003", "--job-groups", "1", "--chunks-width", "100"]);
    solond.all(6, |_, mut worker| {
        let mut update = vec![0.0; D];
        worker.submit(&gradient(0, 0, D)).unwrap();
        for round in 1..10 {
            assert_eq!(worker.submit(&gradient(0, round, D)).unwrap(), round);
            assert!(matches!(worker.submit(&update), Err(ClientError::WindowFull { in_flight: 2, allowed: 2 })));
            worker.wait(&mut update).unwrap();
            assert!(distance(&update, 1, round - 1) < 1e-5);
        }
    });
}

#[test]
fn a_round_begins_while_its_gradient_is_still_being_computed() {
    // No word is decided before everybody has sent of it, so nobody is spared to send.
    let patient = ["--rounds-linger-ms", "60000", "--rounds-deadline-ms", "60000"];
    let solond = Solond::start(&[&["--job-dimension", "5003", "--chunks-width", "100"], &patient[..]].concat());
    solond.all(12, |_, mut handle| {
        let group = handle.place().group;
        for round in 0..5 {
            let whole = gradient(group, round, D);
            let mut buffer = vec![f32::NAN; D];
            let (sent, _) = handle.traffic();
            for ready in [0, 150, 1700, 2600] {
                buffer[..ready].copy_from_slice(&whole[..ready]);
                handle.feed(&buffer, ready).unwrap();
            }
            assert!(handle.traffic().0 > sent, "at least one shard has left already");
            let refused = handle.submit(&buffer).unwrap_err();
            assert!(matches!(refused, ClientError::WindowFull { in_flight: 1, allowed: 0 }), "{refused}");
            buffer.copy_from_slice(&whole);
            let report = handle.exchange(&mut buffer).unwrap();
            assert!(report.liars.is_empty() && distance(&buffer, 2, round) < 1e-5);
        }
        let short = handle.feed(&[0.0; D - 1], 0).unwrap_err();
        assert!(matches!(short, ClientError::Length { .. }), "{short}");
        handle.leave();
    });
}

#[test]
fn a_straggler_takes_the_updates_it_slept_through_and_catches_up() {
    let solond = Solond::start(&["--job-dimension", "5003", "--job-groups", "1"]);
    solond.all(6, |index, mut worker| {
        let mut buffer = vec![0.0; D];
        if index == 5 {
            // The others need not wait for it: one of six is silent while two may lie.
            while !worker.is_behind() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        for round in 0..5 {
            let report = if worker.is_behind() {
                worker.follow(&mut buffer)
            } else {
                buffer = gradient(0, round, D);
                worker.exchange(&mut buffer)
            };
            report.unwrap();
            assert!(distance(&buffer, 1, round) < 1e-5, "worker {index} round {round}");
        }
    });
}

#[test]
fn a_delayed_liar_is_not_waited_for_and_not_named() {
    let solond = Solond::start(&["--job-dimension", "5003", "--job-groups", "1"]);
    // A thousandth of a round's deadline is long enough for the others to be done.
    let means =
        Means { seed: 1, worker: 5, workers: 6, liars: 1, redundancy: 6, tolerance: 1e-6, strength: Some(0.001) };
    let without = solond.all(6, |index, mut worker| {
        let plan = *worker.plan();
        let liar = Liar::new(Attack::Delayed, &plan.layout, means);
        let mut buffer = vec![0.0; D];
        let mut without = 0;
        for round in 0..20 {
            if index == 5 && !worker.is_behind() {
                std::thread::sleep(liar.wait(Duration::from_millis(u64::from(plan.deadline_ms))));
            }
            let report = if worker.is_behind() {
                worker.follow(&mut buffer)
            } else {
                buffer = gradient(0, round, D);
                worker.exchange(&mut buffer)
            };
            let report = report.unwrap();
            assert!(report.liars.is_empty() && report.late_liars.is_empty(), "late is no lie");
            assert!(distance(&buffer, 1, round) < 1e-5, "worker {index} round {round}");
            without += usize::from(report.absent.contains(5) || report.late.contains(5));
        }
        without
    });
    assert!(without.iter().all(|rounds| *rounds > 0), "some rounds were over before it sent: {without:?}");
}

#[test]
fn one_liar_too_many_is_undecodable_and_says_so_to_everybody() {
    let solond = Solond::start(&["--job-dimension", "5003", "--job-groups", "1", "--rounds-deadline-ms", "5000"]);
    solond.all(6, |index, mut worker| {
        let mut lie = |_: u64, chunk: u32, shard: &mut [f32]| {
            shard.iter_mut().enumerate().for_each(|(at, x)| *x += (index + 1) as f32 * (at % 7 + chunk as usize) as f32)
        };
        let mut buffer = gradient(0, 0, D);
        let error = worker.exchange_tampered(&mut buffer, (index < 3).then_some(&mut lie)).unwrap_err();
        assert_eq!(error.fault(), Fault::Workers);
        let ClientError::Undecodable { round: 0, group: 0, reason: UndecodableReason::Disagree { .. }, .. } = error
        else {
            panic!("{error}")
        };
        assert_eq!(worker.last().map(|last| last.round), Some(0), "the round is closed, nothing is missed");
        // The job goes on, if the liars stop.
        let mut buffer = gradient(0, 1, D);
        worker.exchange(&mut buffer).unwrap();
        assert!(distance(&buffer, 1, 1) < 1e-5);
    });
}

#[test]
fn the_daemon_killed_in_mid_round_is_a_typed_error_and_a_restart_goes_on_counting() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().to_str().unwrap();
    let flags = ["--job-dimension", "5003", "--job-groups", "1", "--state-directory", state];
    let mut solond = Solond::start(&flags);
    let address = solond.address.clone();
    let mut workers: Vec<Worker> = (0..6).map(|worker| solond.join(worker)).collect();
    let together = |workers: &mut Vec<Worker>, round: u64| {
        std::thread::scope(|scope| {
            for worker in workers {
                scope.spawn(move || {
                    let mut buffer = gradient(0, round, D);
                    worker.exchange(&mut buffer).unwrap();
                    assert!(distance(&buffer, 1, round) < 1e-5);
                });
            }
        });
    };
    for round in 0..3 {
        together(&mut workers, round);
    }
    // Three of six is too few: the round is open when the daemon dies.
    for worker in &mut workers[..3] {
        worker.submit(&gradient(0, 3, D)).unwrap();
    }
    solond.signal("-KILL");
    assert_eq!(solond.exit_code(), None);
    let started = Instant::now();
    for (index, worker) in workers.iter_mut().enumerate() {
        let mut buffer = gradient(0, 3, D);
        let error = if index < 3 { worker.wait(&mut buffer) } else { worker.exchange(&mut buffer) }.unwrap_err();
        assert!(matches!(error, ClientError::AggregatorLost { round: 3, why: Lost::Connection(_) }), "{error}");
        assert_eq!(error.fault(), Fault::Network);
        let error = worker.rejoin().unwrap_err();
        assert!(matches!(error, JoinError::Connect { .. }) && error.is_transient(), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "nobody hangs");
    let _restarted = Solond::start_at(&address, &flags);
    for worker in &mut workers {
        let joined = worker.rejoin().unwrap();
        assert_eq!((joined.round, joined.missed), (3, Some(0)));
    }
    together(&mut workers, 3);
}

#[test]
fn a_worker_that_comes_back_learns_what_it_has_missed() {
    let solond = Solond::start(&["--job-dimension", "5003", "--job-groups", "1"]);
    let mut workers: Vec<Worker> = (0..6).map(|worker| solond.join(worker)).collect();
    let round = |workers: &mut [Worker], round: u64| {
        std::thread::scope(|scope| {
            for worker in workers {
                scope.spawn(move || worker.exchange(&mut gradient(0, round, D)).unwrap());
            }
        });
    };
    round(&mut workers, 0);
    let last = workers[5].last();
    drop(workers.pop());
    for number in 1..4 {
        round(&mut workers, number);
    }
    std::thread::sleep(Duration::from_millis(1100)); // one identity may join once per second
    let mut back = Worker::join_after(&solond.options(5), last).unwrap();
    assert_eq!((back.joined().round, back.joined().missed), (4, Some(3)));
    let error = back.rejoin().unwrap_err();
    assert!(
        matches!(error, JoinError::Handshake(HandshakeError::Refused(Refusal::TooSoon { found: 5, .. }))),
        "{error}"
    );
    assert!(error.is_transient());
    std::thread::sleep(Duration::from_millis(1100));
    back.rejoin().unwrap();
    workers.push(back);
    round(&mut workers, 4);
}

#[test]
fn who_joins_with_a_wrong_name_index_or_token_is_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let tokens: String = (0..6).map(|worker| format!("{worker} secret-secret-secret-{worker}\n")).collect();
    std::fs::write(&path, tokens).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let path = path.to_str().unwrap();
    let solond = Solond::start(&["--job-dimension", "5003", "--job-groups", "1", "--listen-token-file", path]);
    let refusal = |options| match Worker::join(&options) {
        Err(JoinError::Handshake(HandshakeError::Refused(refusal))) => refusal,
        other => panic!("{other:?}"),
    };
    let good = |worker: usize| {
        let mut options = solond.options(worker);
        options.token = format!("secret-secret-secret-{worker}");
        options
    };
    Worker::join(&good(3)).unwrap();
    let mut options = good(2);
    options.token = "secret-secret-secret-1".into();
    assert_eq!(refusal(options), Refusal::BadProof { found: 2 });
    let mut options = good(2);
    options.job = "another".into();
    assert_eq!(refusal(options), Refusal::UnknownJob);
    assert_eq!(refusal(good(6)), Refusal::NoSuchWorker { found: 6, workers: 6 });
}

#[test]
fn sigterm_ends_the_open_round_and_says_good_bye() {
    let mut solond = Solond::start(&["--job-dimension", "5003", "--job-groups", "1"]);
    let mut workers: Vec<Worker> = (0..6).map(|worker| solond.join(worker)).collect();
    for worker in &mut workers[..3] {
        worker.submit(&gradient(0, 0, D)).unwrap();
    }
    solond.wait_for("worker joined");
    std::thread::sleep(Duration::from_millis(50));
    solond.signal("-TERM");
    solond.wait_for("stopping");
    // The round has begun: it still comes to its end.
    std::thread::scope(|scope| {
        for (index, worker) in workers.iter_mut().enumerate() {
            scope.spawn(move || {
                let mut buffer = gradient(0, 0, D);
                let report = if index < 3 { worker.wait(&mut buffer) } else { worker.exchange(&mut buffer) };
                report.unwrap();
                assert!(distance(&buffer, 1, 0) < 1e-5);
                let error = worker.exchange(&mut buffer).unwrap_err();
                assert_eq!(error, ClientError::AggregatorLost { round: 1, why: Lost::Stopped });
            });
        }
    });
    assert_eq!(solond.exit_code(), Some(0));
}

#[test]
fn a_buffer_of_the_wrong_length_is_refused_before_anything_is_sent() {
    let solond = Solond::start(&["--job-dimension", "5003", "--job-groups", "1"]);
    let mut worker = solond.join(0);
    let error = worker.exchange(&mut [0.0; 7]).unwrap_err();
    assert_eq!(error, ClientError::Length { what: "the buffer", found: 7, expected: D });
    assert_eq!(error.fault(), Fault::Caller);
}

#[test]
fn peers_that_are_no_workers_are_gone_after_the_time_limit_and_disturb_nobody() {
    use std::io::{Read, Write};
    let flags = ["--job-dimension", "5003", "--job-groups", "1", "--listen-handshake-ms", "300"];
    let solond = Solond::start(&flags);
    let mut silent = TcpStream::connect(&solond.address).unwrap();
    let mut http = TcpStream::connect(&solond.address).unwrap();
    http.write_all(&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(10)).unwrap();
    solond.all(6, |_, mut worker| {
        for round in 0..5 {
            worker.exchange(&mut gradient(0, round, D)).unwrap();
        }
    });
    for stream in [&mut silent, &mut http] {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = Vec::new();
        // The challenge, perhaps a refusal, and then the end: by close or by reset.
        let _ = stream.read_to_end(&mut bytes);
        assert!(bytes.starts_with(b"SOLN") && bytes.len() < 300, "{}", bytes.len());
    }
}

#[test]
fn a_second_job_on_the_same_address_says_why_it_cannot_start() {
    let solond = Solond::start(&["--job-dimension", "10"]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_solond"))
        .args(["--job-dimension", "10", "--listen-address", &solond.address, "--admin-serve", "false"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("cannot listen on") && text.contains("in use"), "{text}");
}

#[test]
fn a_stop_loses_no_update_that_was_pushed() {
    const D: usize = 3_000_000;
    let flags = ["--job-dimension", "3000000", "--job-groups", "1", "--memory-updates", "400"];
    let mut solond = Solond::start(&flags);
    let workers: Vec<Worker> = (0..6).map(|worker| solond.join(worker)).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                scope.spawn(move || {
                    let mut buffer = gradient(0, 0, D);
                    worker.submit(&buffer).unwrap();
                    // The caller computes; the daemon stops meanwhile.
                    std::thread::sleep(Duration::from_millis(300));
                    worker.wait(&mut buffer).unwrap();
                    assert!(distance(&buffer, 1, 0) < 1e-5);
                })
            })
            .collect();
        solond.wait_for("round complete");
        solond.signal("-TERM");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(solond.exit_code(), Some(0));
}

#[test]
fn a_worker_that_falls_too_far_behind_is_told_so() {
    const D: usize = 1_500_000;
    let flags = ["--job-dimension", "1500000", "--job-groups", "1", "--listen-write-deadline-ms", "800"];
    let mut solond = Solond::start(&flags);
    let mut workers: Vec<Worker> = (0..6).map(|worker| solond.join(worker)).collect();
    let mut slow = workers.pop().unwrap();
    std::thread::scope(|scope| {
        for mut worker in workers {
            scope.spawn(move || {
                for round in 0..12 {
                    worker.exchange(&mut gradient(0, round, D)).unwrap();
                }
            });
        }
    });
    solond.wait_for("does not take its update");
    let mut update = vec![0.0; D];
    let error = loop {
        match slow.follow(&mut update) {
            Ok(_) => assert!(distance(&update, 1, slow.last().unwrap().round) < 1e-5),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ClientError::AggregatorLost { why: Lost::FellBehind, .. }), "{error}");
    assert_eq!(error.fault(), Fault::Caller);
    std::thread::sleep(Duration::from_millis(1100));
    let joined = slow.rejoin().unwrap();
    assert_eq!(joined.round, 12);
    assert!(joined.missed.unwrap() > 0);
}

#[test]
fn two_daemons_cannot_share_a_journal() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().to_str().unwrap();
    let _first = Solond::start(&["--job-dimension", "10", "--state-directory", state]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_solond"))
        .args(["--job-dimension", "10", "--listen-address", "127.0.0.1:0", "--admin-serve", "false"])
        .args(["--state-directory", state])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("in use by another solond"), "{text}");
}
