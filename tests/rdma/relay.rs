//! Updates that workers pass on to each other while their sessions are by RDMA.

use std::process::Command;
use std::time::Instant;

use solon::client::Worker;
use solon::transport::Transport;

use super::cluster::{D, PATIENCE, Rounds, Solond, gradient, join, solond, wait_until};
use super::failures::{LinkDown, solond_on_loopback};
use super::tools::program;

/// Nothing is late because the guest is slow; every word waits for all, so that the same rows make every update.
const FLAGS: [&str; 6] = ["--rounds-deadline-ms", "20000", "--rounds-linger-ms", "20000", "--push-repair-ms", "20000"];

fn start(way: &str) -> Solond {
    solond("auto", &[&FLAGS[..], &["--push-way", way]].concat())
}

/// What the daemon says of its updates so far, by name.
fn pushed(solond: &mut Solond, name: &str) -> u64 {
    solond.signal("-USR1");
    solond.wait_for("\"updates pushed\"");
    let line = solond.log.iter().rev().find(|line| line.contains("\"updates pushed\"")).expect("the line has come");
    let line: serde_json::Value = serde_json::from_str(line).expect("a JSON log line");
    line[name].as_u64().unwrap_or_else(|| panic!("{name} in {line}"))
}

fn join_linked(solond: &Solond, transport_of: impl Fn(usize) -> Transport) -> Vec<Worker> {
    let workers: Vec<Worker> = (0..6).map(|index| join(solond, index, transport_of(index))).collect();
    wait_until("every two workers have a link", || workers.iter().all(|worker| worker.links() == 5));
    workers
}

/// Rounds of all workers; those with an odd index read updates where they landed.
fn rounds(workers: &mut [Worker], rounds: std::ops::Range<u64>, seen: &Rounds) {
    std::thread::scope(|scope| {
        for worker in workers {
            let rounds = rounds.clone();
            scope.spawn(move || {
                for round in rounds {
                    let mut buffer = gradient(0, round, D);
                    if worker.index() % 2 == 0 {
                        worker.exchange(&mut buffer).unwrap();
                        seen.check(round, &buffer);
                    } else {
                        worker.submit(&buffer).unwrap();
                        seen.check(round, &worker.update().unwrap());
                    }
                }
            });
        }
    });
}

/// The updates of ten rounds, and how much of an update the daemon sent in each of the last six.
fn updates(way: &str, transport_of: impl Fn(usize) -> Transport) -> (Vec<(u64, blake3::Hash)>, f64) {
    let mut solond = start(way);
    let mut workers = match way {
        "relay" => join_linked(&solond, transport_of),
        _ => (0..6).map(|index| join(&solond, index, transport_of(index))).collect(),
    };
    let seen = Rounds::new(1);
    rounds(&mut workers, 0..4, &seen);
    let before = pushed(&mut solond, "sent");
    rounds(&mut workers, 4..10, &seen);
    let sent = pushed(&mut solond, "sent") - before;
    assert_eq!((pushed(&mut solond, "wrong"), pushed(&mut solond, "other_digests")), (0, 0));
    (seen.hashes(), sent as f64 / (6 * 4 * D) as f64)
}

#[test]
#[ignore = "runs in the guest"]
fn relayed_updates_are_the_same_bits_by_rdma_by_tcp_and_by_both_at_once() {
    let (direct, all) = updates("direct", |_| Transport::Rdma);
    assert!(all > 5.9, "the daemon sends everything: {all}");
    for kind in ["rdma", "tcp", "both"] {
        let (relayed, once) = updates("relay", |index| match kind {
            "rdma" => Transport::Rdma,
            "both" if index % 2 == 0 => Transport::Rdma,
            _ => Transport::Tcp,
        });
        assert_eq!(direct, relayed, "{kind}");
        println!("{kind}: {once:.2} of an update leaves the daemon per round, {all:.2} without a relay");
        assert!(once < 1.5, "{kind}: {once}");
    }
}

#[test]
#[ignore = "runs in the guest"]
fn what_a_lying_carrier_passes_on_is_replaced_and_it_is_named() {
    let mut solond = start("relay");
    let mut workers = join_linked(&solond, |_| Transport::Rdma);
    for liar in [1, 4] {
        workers[liar].set_carry(Box::new(|_, peer, frame| {
            let last = frame.len() - 1;
            frame[last] ^= 1 + (peer as u8 & 1);
            1
        }));
    }
    let (seen, until) = (Rounds::new(1), Instant::now() + PATIENCE);
    let mut round = 0;
    while pushed(&mut solond, "bad_carriers") < 2 && Instant::now() < until {
        rounds(&mut workers, round..round + 1, &seen);
        round += 1;
    }
    for liar in [1, 4] {
        let named = |line: &&String| line.contains("bad carrier") && line.contains(&format!("\"worker\":{liar},"));
        assert!(solond.log.iter().any(|line| named(&line)), "{liar} after {round} rounds");
    }
    assert_eq!((pushed(&mut solond, "bad_carriers"), pushed(&mut solond, "other_digests")), (2, 0));
    println!("both named in {round} rounds, each update right");
}

#[test]
#[ignore = "runs in the guest"]
fn by_auto_sessions_by_rdma_are_sent_everything_and_the_log_says_so() {
    let flags = ["--listen-open", "true", "--rdma-devices", "rxe1", "--cores-pin", "false", "--job-groups", "1"];
    let job = ["--job-dimension", "5003", "--push-way", "auto"];
    let mut solond = Solond::spawn(Command::new(program("solond")), "10.0.0.2:0", &[&flags[..], &job].concat());
    solond.wait_until_ready();
    assert!(solond.find("\"ready\"").contains("\"push\":\"relay\""));
    let worker = join(&solond, 0, Transport::Rdma);
    println!("{}", solond.find("it comes by RDMA"));
    assert_eq!(worker.link_port(), None, "it listens to nobody");
    join(&solond, 1, Transport::Tcp);
}

#[test]
#[ignore = "runs in the guest"]
fn sessions_whose_rdma_link_goes_down_go_on_passing_updates_on() {
    let mut solond = solond_on_loopback("auto", &[&FLAGS[..], &["--push-way", "relay"]].concat());
    let mut workers = join_linked(&solond, |_| Transport::Auto);
    let seen = Rounds::new(1);
    rounds(&mut workers, 0..4, &seen);
    let down = LinkDown::cut();
    rounds(&mut workers, 4..10, &seen);
    drop(down);
    println!("{}", solond.find("the session goes on by TCP"));
    rounds(&mut workers, 10..14, &seen);
    assert_eq!(pushed(&mut solond, "other_digests"), 0);
    assert_eq!(seen.hashes().len(), 14);
}
