//! One worker process: rounds as it is told over standard input, one JSON object per line, and what came of each on standard output.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use solon::client::{ClientError, JoinError, JoinOptions, Worker};
use solon::transport::Transport;

use crate::carriers::Bad;

/// The job's name.
pub const JOB: &str = "links";

/// Where a worker finds the daemon.
#[derive(clap::Args)]
pub struct WorkerArgs {
    /// This worker's index
    #[arg(long)]
    worker: u32,
    /// Where solond listens
    #[arg(long)]
    solond: String,
}

/// What a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// To say how many links it has.
    Links,
    /// To exchange a gradient for an update, after it became a bad carrier if it is one.
    Round(Option<Bad>),
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// It has joined, and has its first gradient.
    Joined,
    /// So many links.
    Links(usize),
    /// A round is over, and the next gradient is made.
    Round {
        round: u64,
        /// When it began to submit, and when it had the update: seconds of the machine's clock.
        began: f64,
        ended: f64,
        /// Hash of the update as it stands in this worker's memory.
        update: String,
    },
    /// It cannot go on.
    Failed(String),
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot join: {0}")]
    Join(#[from] JoinError),
    #[error("a round gave no update: {0}")]
    Round(#[from] ClientError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("an order cannot be read: {0}")]
    Order(#[from] serde_json::Error),
    #[error("number {at} of update {round} is {found}, and {expected} is the gradient")]
    Wrong { round: u64, at: usize, found: f32, expected: f32 },
}

/// Seconds of a clock that all processes share.
fn now() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// One number of the gradient that all workers have in a round: with one group the update is the gradient.
fn number(round: u64, at: usize) -> f32 {
    let mut x = (at as u32).wrapping_mul(0x9e37_79b9) ^ (round as u32 + 1).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 15)).wrapping_mul(0x2c1b_3c6d);
    x ^= x >> 12;
    x as i32 as f32 / (1u32 << 31) as f32
}

fn say(said: &Said) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, said)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Runs a worker until its standard input ends; false if it could not go on, which it has said.
pub fn run(args: &WorkerArgs) -> bool {
    let done = work(args);
    if let Err(failure) = &done {
        // Nobody listens if the one who started us is gone.
        let _ = say(&Said::Failed(failure.to_string()));
    }
    done.is_ok()
}

fn work(args: &WorkerArgs) -> Result<(), Failure> {
    let mut options = JoinOptions::new(&args.solond, JOB, args.worker);
    options.transport = Transport::Tcp;
    // Everybody joins at once, on few cores.
    options.join_timeout = Duration::from_secs(60);
    let mut worker = Worker::join(&options)?;
    let mut buffer = vec![0.0; worker.plan().layout.dimension()];
    let fill = |buffer: &mut [f32], round| buffer.iter_mut().enumerate().for_each(|(at, x)| *x = number(round, at));
    fill(&mut buffer, worker.next_round());
    say(&Said::Joined)?;
    for line in io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            Order::Links => say(&Said::Links(worker.links()))?,
            Order::Round(bad) => {
                let round = worker.next_round();
                if let Some(bad) = bad {
                    worker.set_carry(bad.carry());
                }
                let began = now();
                worker.exchange(&mut buffer)?;
                let ended = now();
                check(&buffer, round)?;
                let update = blake3::hash(bytemuck::cast_slice(&buffer)).to_hex().to_string();
                fill(&mut buffer, worker.next_round());
                say(&Said::Round { round, began, ended, update })?;
            }
        }
    }
    worker.leave();
    Ok(())
}

/// Numbers are from -1 to 1; recovery from other rows than the plain ones rounds.
fn check(update: &[f32], round: u64) -> Result<(), Failure> {
    match update.iter().enumerate().find(|(at, found)| (**found - number(round, *at)).abs() > 1e-4 || found.is_nan()) {
        Some((at, &found)) => Err(Failure::Wrong { round, at, found, expected: number(round, at) }),
        None => Ok(()),
    }
}
