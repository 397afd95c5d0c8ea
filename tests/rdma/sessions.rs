//! What a job gets by RDMA: the bits that it gets by TCP, without a copy, whatever else its processes do.

use std::process::Command;
use std::sync::Barrier;

use solon::client::{JoinError, Worker};
use solon::transport::Transport;
use solon::wire::{HandshakeError, Refusal};

use super::cluster::{D, Rounds, Solond, distance, gradient, join, join_all, options, rejoin, resources, solond};
use super::tools::program;
use crate::common::lie;

/// The updates of ten rounds in which two of six workers lie, and every word waits for all. Where updates travel as 16 bits every
/// other worker takes them where they landed.
fn updates(precision: &str, transport_of: impl Fn(usize) -> Transport) -> Vec<(u64, blake3::Hash)> {
    let flags = ["--rounds-deadline-ms", "20000", "--rounds-linger-ms", "20000", "--push-precision", precision];
    let solond = solond("auto", &flags);
    let workers: Vec<Worker> = (0..6).map(|index| join(&solond, index, transport_of(index))).collect();
    let rounds = Rounds::new(1);
    std::thread::scope(|scope| {
        for mut worker in workers {
            let rounds = &rounds;
            scope.spawn(move || {
                for round in 0..10 {
                    let mut buffer = gradient(0, round, D);
                    let row = worker.place().row;
                    let mut tamper = |round: u64, _: u32, shard: &mut [f32]| lie(row, 6, 2, round, shard);
                    let report = if precision != "f32" && row % 2 == 1 {
                        worker.submit_tampered(&buffer, Some(&mut tamper)).unwrap();
                        let update = worker.update().unwrap();
                        buffer.copy_from_slice(&update);
                        *update.report()
                    } else {
                        worker.exchange_tampered(&mut buffer, Some(&mut tamper)).unwrap()
                    };
                    assert_eq!(report.liars.iter().count(), 2, "round {round}: every lie is seen");
                    if precision == "f32" {
                        rounds.check(round, &buffer);
                    } else {
                        assert!(distance(&buffer, 1, round) < worker.plan().update_precision.unit_roundoff());
                        rounds.check_hash(round, blake3::hash(bytemuck::cast_slice(&buffer)));
                    }
                }
            });
        }
    });
    rounds.hashes()
}

#[test]
#[ignore = "runs in the guest"]
fn a_job_gets_the_same_bits_by_rdma_by_tcp_and_by_both_at_once() {
    for precision in ["f32", "bf16"] {
        let by_tcp = updates(precision, |_| Transport::Tcp);
        let by_rdma = updates(precision, |_| Transport::Rdma);
        let by_both = updates(precision, |index| if index % 2 == 0 { Transport::Rdma } else { Transport::Tcp });
        assert_eq!(by_tcp.len(), 10);
        assert_eq!(by_tcp, by_rdma);
        assert_eq!(by_tcp, by_both);
        println!("10 rounds with two liars, {precision}: the same bits by TCP, by RDMA, and by three workers of each");
    }
}

#[test]
#[ignore = "runs in the guest"]
fn updates_are_read_where_the_nic_wrote_them_and_nothing_is_registered_after_the_start() {
    const ROUNDS: u64 = 200;
    let mut solond = solond("rdma", &[]);
    assert!(solond.find("\"regions\"").contains("\"regions\":12"), "two per worker");
    let registered = resources("mr", "rxe1");
    assert_eq!(registered.len(), 12);
    assert!(registered.iter().all(|region| region.contains("rkey 0x0 ")), "nobody else has a key: {registered:?}");
    let mut workers = join_all(&solond, Transport::Rdma);
    let at_workers = resources("mr", "rxe0");
    assert_eq!(at_workers.len(), 12, "shards and places of each worker");
    let each = |workers: &mut Vec<Worker>, work: &(dyn Fn(&mut Worker) + Sync)| {
        std::thread::scope(|scope| {
            for worker in workers {
                scope.spawn(move || work(worker));
            }
        });
    };
    each(&mut workers, &|worker| {
        let mut places = std::collections::BTreeSet::new();
        let first = worker.next_round();
        for round in first..first + ROUNDS {
            worker.submit(&gradient(0, round, D)).unwrap();
            let update = worker.update().unwrap();
            assert!(distance(&update, 1, round) < 1e-5, "round {round}");
            places.insert(update.as_ptr().addr());
        }
        assert_eq!(worker.copied(), 0, "worker {}", worker.index());
        assert!(
            places.len() <= worker.plan().window as usize,
            "updates stand in the places of the window: {places:x?}"
        );
    });
    // Both counts are of the same kind.
    each(&mut workers, &|worker| {
        for _ in 0..10 {
            let round = worker.next_round();
            worker.exchange(&mut gradient(0, round, D)).unwrap();
        }
        assert_eq!(worker.copied(), 10 * 4 * D as u64);
    });
    assert_eq!(resources("mr", "rxe0"), at_workers);
    assert_eq!(resources("mr", "rxe1"), registered);
    for worker in &mut workers {
        rejoin(worker);
    }
    assert_eq!(resources("mr", "rxe1"), registered, "sessions come and go, the regions stay");
    assert_eq!(resources("mr", "rxe0").len(), 12);
    assert_eq!(resources("qp", "rxe1").len(), 6, "those of the sessions before are gone");
    println!("{ROUNDS} rounds by update(): 0 bytes copied; 10 by exchange(): {} each; 12 regions at both ends", 40 * D);
}

mod c {
    #[allow(unsafe_code)]
    unsafe extern "C" {
        pub safe fn fork() -> i32;
        pub safe fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
        pub safe fn _exit(status: i32) -> !;
    }
}

#[test]
#[ignore = "runs in the guest"]
fn children_of_a_worker_do_not_disturb_its_session() {
    let solond = solond("rdma", &[]);
    let workers = join_all(&solond, Transport::Rdma);
    let rounds = Rounds::new(1);
    let gate = Barrier::new(6);
    std::thread::scope(|scope| {
        for (index, mut worker) in workers.into_iter().enumerate() {
            let (rounds, gate) = (&rounds, &gate);
            scope.spawn(move || {
                let mut heap = vec![1u8; 1 << 20];
                for round in 0..30 {
                    gate.wait();
                    let gradient = gradient(0, round, D);
                    worker.submit(&gradient).unwrap();
                    // While shards and updates travel.
                    if index == 0 && round % 2 == 0 {
                        assert!(Command::new(program("true")).status().unwrap().success());
                    }
                    if index == 0 && round % 2 == 1 {
                        let child = c::fork();
                        if child == 0 {
                            // What a data loader does: it writes to memory that it shares with its parent until then.
                            heap.fill(2);
                            c::_exit(if heap.iter().all(|byte| *byte == 2) { 0 } else { 1 });
                        }
                        // The parent writes first, in some of the cases: then the child keeps the page that the NIC knows.
                        heap.fill(3);
                        let mut status = -1;
                        assert_eq!((c::waitpid(child, &mut status, 0), status), (child, 0));
                    }
                    let update = worker.update().unwrap();
                    rounds.check(round, &update);
                }
                assert_eq!(worker.copied(), 0);
                assert!(worker.way().rdma, "{}", worker.way().reason);
            });
        }
    });
    println!("30 rounds with 15 spawned and 15 forked children in between: right, by RDMA");
}

#[test]
#[ignore = "runs in the guest"]
fn one_process_can_be_a_worker_of_two_jobs() {
    let daemons = [solond("rdma", &[]), solond("rdma", &[])];
    let workers = daemons.each_ref().map(|solond| join_all(solond, Transport::Rdma));
    let [first, second] = workers;
    let rounds = Rounds::new(1);
    std::thread::scope(|scope| {
        for (mut one, mut other) in first.into_iter().zip(second) {
            let rounds = &rounds;
            scope.spawn(move || {
                for round in 0..20 {
                    // Other gradients: an update that came to the wrong session would be seen.
                    one.submit(&gradient(0, round, D)).unwrap();
                    other.submit(&gradient(0, round + 1000, D)).unwrap();
                    rounds.check(round + 1000, &other.update().unwrap());
                    rounds.check(round, &one.update().unwrap());
                }
                one.leave();
                other.leave();
            });
        }
    });
    let pairs = daemons.len() * 6;
    println!("20 rounds each of two jobs by {pairs} queue pairs of one process");
}

#[test]
#[ignore = "runs in the guest"]
fn each_side_says_why_when_the_other_does_not_do_rdma() {
    let tcp_only: Solond = solond("tcp", &[]);
    let error = Worker::join(&options(&tcp_only, 0, Transport::Rdma)).unwrap_err();
    let JoinError::NoRdma { reason, .. } = &error else { panic!("{error}") };
    assert_eq!(reason, "the daemon offers no RDMA: it is not to use RDMA");
    let mut worker = Worker::join(&options(&tcp_only, 1, Transport::Auto)).unwrap();
    assert_eq!((worker.way().rdma, &worker.way().reason), (false, reason));
    println!("to a daemon that is set to TCP: {error}");

    let rdma_only = solond("rdma", &[]);
    let error = Worker::join(&options(&rdma_only, 0, Transport::Tcp)).unwrap_err();
    let refused = JoinError::Handshake(HandshakeError::Refused(Refusal::RdmaOnly { found: 0 }));
    assert_eq!(error.to_string(), refused.to_string());
    assert!(!error.is_transient());
    println!("to a daemon that is set to RDMA: {error}");
}
