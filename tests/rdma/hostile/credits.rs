//! More SENDs than credits: they wait in the attacker's NIC, or end its own queue pair.

use std::time::Duration;

use solon::client::{JoinOptions, Worker};
use solon::transport::rdma::ffi::{IBV_WC_RNR_RETRY_EXC_ERR, IBV_WC_SUCCESS};

use super::attacker::Attacker;
use super::job::{HONEST, Solond, follow_along, while_the_honest_work};
use super::verbs::Request;
use crate::guest::tools::DEVICES;

const BURST: u64 = 64;

/// Sends many more shards than there are credits, of a round that is not open yet, so that they stay where they landed.
fn burst(attacker: &Attacker) {
    let bytes = attacker.write_shard(attacker.round + u64::from(attacker.welcome.plan.window));
    for id in 1..=BURST {
        attacker.end.post(id, Request::send(Some(attacker.memory.piece(bytes))));
    }
}

/// The same identity, now honest: it works over RDMA for many more shards than a worker has slots.
fn rejoins(solond: &Solond, worker: usize) {
    std::thread::sleep(Duration::from_millis(1100)); // one identity may join once per second
    let mut options = JoinOptions::new(&solond.address, "default", worker as u32);
    options.rdma.devices = DEVICES[0].name.parse().expect("a list of devices");
    let mut joined = Worker::join(&options).expect("it may come back");
    let submitted = follow_along(&mut joined, 20);
    println!("worker {worker} came back and took part in {submitted} of 20 rounds");
    assert!(submitted >= 10, "{submitted}");
    joined.leave();
}

#[test]
#[ignore = "runs in the guest"]
fn more_sends_than_credits_end_or_delay_only_who_sends_them_and_no_slot_is_lost() {
    let mut solond = Solond::start(&["--listen-open", "true"]);
    let pause = Duration::from_millis(150);
    let rounds = while_the_honest_work(
        &mut solond,
        pause,
        |_| String::new(),
        |solond| {
            for (worker, rnr_retry) in [(HONEST, 0), (HONEST + 1, 1), (HONEST, 3)] {
                let attacker = Attacker::join(&solond.address, worker as u32, "", rnr_retry);
                burst(&attacker);
                // The first that fails says why; those behind it are flushed.
                let statuses: Vec<i32> = (1..=BURST)
                    .map_while(|id| attacker.end.completion_of(id, Duration::from_secs(5)))
                    .map(|completion| completion.status)
                    .collect();
                let arrived = statuses.iter().take_while(|status| **status == IBV_WC_SUCCESS).count();
                let line = solond.wait_for(&["RDMA connection ended", &format!("\"worker\":{worker}")]);
                println!("rnr_retry {rnr_retry}: {arrived} arrived, then status {:?}; {line}", statuses.get(arrived));
                assert_eq!(statuses.get(arrived), Some(&IBV_WC_RNR_RETRY_EXC_ERR), "{statuses:?}");
                drop(attacker);
                rejoins(solond, worker);
            }
            let worker = HONEST + 1;
            let attacker = Attacker::join(&solond.address, worker as u32, "", 7);
            burst(&attacker);
            for id in 1..=BURST {
                let completion =
                    attacker.end.completion_of(id, Duration::from_secs(20)).expect("it arrives in the end");
                assert_eq!(completion.status, IBV_WC_SUCCESS, "shard {id}");
            }
            println!("rnr_retry 7: all {BURST} arrived");
            drop(attacker);
            rejoins(solond, worker);
        },
    );
    println!("the honest ran {rounds} rounds");
}
