//! A worker in a process of its own, which tests in the guest can kill, freeze or run as another user: this executable again.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use solon::client::{ClientError, JoinOptions, Worker};
use solon::transport::Transport;
use solon::transport::rdma;

use crate::common::{distance, gradient};

/// Where the process finds what it is to do.
pub const VARIABLE: &str = "SOLON_TEST_WORK";

/// What a worker's process is to do.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Work {
    pub address: String,
    pub worker: u32,
    pub transport: String,
    pub devices: String,
    /// It ends before this round.
    pub end: u64,
}

impl Work {
    pub fn options(&self) -> JoinOptions {
        let devices = self.devices.parse().expect("a list of devices");
        JoinOptions {
            round_timeout: Duration::from_secs(20),
            transport: Transport::from_str(&self.transport, false).expect("a transport"),
            rdma: rdma::Options { devices, ..rdma::Options::default() },
            ..JoinOptions::new(&self.address, "default", self.worker)
        }
    }
}

/// Something on a line of its own, also where the test harness has left one unfinished.
fn say(text: &str) {
    println!("\nworker: {text}");
}

fn say_joined(worker: &mut Worker) {
    let round = worker.joined().round;
    let way = worker.way();
    say(&format!("joined round {round} {} {}", if way.rdma { "rdma" } else { "tcp" }, way.reason));
}

/// Takes part until `end`; rejoins when the session is lost, for half a minute at most.
fn work(work: &Work) {
    let mut worker = match Worker::join(&work.options()) {
        Ok(worker) => worker,
        Err(error) => return say(&format!("cannot join: {error}")),
    };
    say_joined(&mut worker);
    let dimension = worker.plan().layout.dimension();
    let groups = worker.plan().parameters.groups();
    let mut buffer = vec![0.0; dimension];
    while worker.next_round() < work.end {
        let report = if worker.is_behind() {
            worker.follow(&mut buffer)
        } else {
            buffer = gradient(worker.place().group, worker.next_round(), dimension);
            worker.exchange(&mut buffer)
        };
        match report {
            Ok(_) => {
                let round = worker.last().expect("collected").round;
                assert!(distance(&buffer, groups, round) < 1e-5, "the update of round {round} is wrong");
                say(&format!("round {round} {}", blake3::hash(bytemuck::cast_slice(&buffer))));
            }
            Err(ClientError::AggregatorLost { why, .. }) => {
                say(&format!("lost {why:?}"));
                let started = Instant::now();
                while let Err(error) = worker.rejoin() {
                    if !error.is_transient() || started.elapsed() > Duration::from_secs(30) {
                        return say(&format!("cannot join: {error}"));
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                say_joined(&mut worker);
            }
            Err(error) => return say(&format!("failed: {error}")),
        }
    }
    worker.leave();
    say("left");
}

#[test]
#[ignore = "is what processes do that tests in the guest start"]
fn a_worker_in_a_process_of_its_own() {
    let Ok(text) = std::env::var(VARIABLE) else { return };
    work(&serde_json::from_str(&text).expect("a worker's task"));
}
