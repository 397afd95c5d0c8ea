//! One worker process of the benchmark: a session with solond and one with each floor, and rounds as it is told.

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::floor::Sender;
use super::{Change, JOB, Lie, Trouble};
use crate::client::{ClientError, JoinError, JoinOptions, Tamper, Worker};
use crate::code::Precision;
use crate::transport::Transport;
use crate::wire::{HEADER_BYTES, REPORT_BYTES};

/// With whom rounds are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The floor without encoding and checking.
    Raw,
    /// The floor with real workers.
    Dropping,
    /// The daemon.
    Solon,
}

/// What a worker process is told, one JSON object per line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// With whom.
    pub target: Target,
    /// How many rounds.
    pub rounds: u64,
    /// What goes wrong in them.
    pub trouble: Trouble,
}

/// What a worker process says, one JSON object per line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Said {
    /// It has joined everybody.
    Joined,
    /// The rounds of an order are over.
    Done {
        /// Digest of the last update.
        digest: u64,
        /// CRC-32C of the last update as it stands in this worker's memory.
        checksum: u32,
        /// Seconds from the begin of the first round to the end of the last.
        seconds: f64,
    },
    /// It cannot go on.
    Failed {
        /// Why.
        why: String,
    },
}

/// Where a worker process finds everybody.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkerArgs {
    /// This worker's index.
    #[arg(long)]
    pub worker: u32,
    /// Where solond listens.
    #[arg(long)]
    pub solond: String,
    /// Where the dropping floor listens.
    #[arg(long)]
    pub dropping: Option<String>,
    /// Where the raw floor listens.
    #[arg(long)]
    pub raw: Option<String>,
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
    #[error("there is no such floor")]
    NoFloor,
    #[error("number {at} of the update is {found}, and {expected} is the mean over the groups")]
    Wrong { at: usize, found: f32, expected: f32 },
}

fn say(said: &Said) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, said)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Runs one worker process until its standard input ends; false if it could not go on, which it says on standard output.
pub fn run(args: &WorkerArgs) -> bool {
    match work(args) {
        Ok(()) => true,
        Err(failure) => {
            // Nobody listens if the one who started us is gone.
            let _ = say(&Said::Failed { why: failure.to_string() });
            false
        }
    }
}

fn join(address: &str, worker: u32) -> Result<Worker, JoinError> {
    let mut options = JoinOptions::new(address, JOB, worker);
    options.transport = Transport::Tcp;
    // Everybody joins at once, on few cores.
    options.join_timeout = Duration::from_secs(60);
    options.round_timeout = Duration::from_secs(120);
    Worker::join(&options)
}

fn work(args: &WorkerArgs) -> Result<(), Failure> {
    let mut solon = join(&args.solond, args.worker)?;
    let mut dropping = args.dropping.as_ref().map(|address| join(address, args.worker)).transpose()?;
    let plan = *solon.plan();
    let layout = plan.layout;
    let frame = |chunk| HEADER_BYTES + plan.shard_bytes(layout.chunk(chunk).width);
    let mut raw = args.raw.as_ref().map(|address| Sender::connect(address, args.worker, frame(0))).transpose()?;
    let up = (0..layout.chunks()).map(|chunk| frame(chunk) as u64).sum();
    let update = plan.update_bytes(layout.dimension());
    let down = (update + (layout.chunks() + 1) * HEADER_BYTES + REPORT_BYTES) as u64;
    let place = solon.place();
    let of_group = |group: usize, at: usize| ((at * 7919 + group * 104_729) % 10_007) as f32 - 5000.0;
    // What is left of rounding to 16 bits, which recovery enlarges a few times.
    let roundings = [plan.precision, plan.update_precision].map(|precision| match precision {
        Precision::F32 => 0.0,
        _ => 8.0 * 5000.0 * precision.unit_roundoff(),
    });
    let rounding: f64 = roundings.iter().sum();
    let number = |at: usize| of_group(place.group, at);
    let mut buffer: Vec<f32> = Vec::with_capacity(layout.dimension());
    buffer.extend((0..layout.dimension()).map(number));
    say(&Said::Joined)?;
    for line in io::stdin().lock().lines() {
        let Order { target, rounds, trouble } = serde_json::from_str(&line?)?;
        let silent = place.row >= solon.plan().parameters.redundancy() - trouble.absent;
        let start = Instant::now();
        let digest = match target {
            Target::Raw => {
                let sender = raw.as_mut().ok_or(Failure::NoFloor)?;
                for _ in 0..rounds {
                    sender.round(if silent { 0 } else { up }, down)?;
                }
                0
            }
            Target::Dropping => {
                let honest = Trouble { liars: 0, ..trouble };
                rounds_of(dropping.as_mut().ok_or(Failure::NoFloor)?, rounds, &honest, &mut buffer)?
            }
            Target::Solon => rounds_of(&mut solon, rounds, &trouble, &mut buffer)?,
        };
        let seconds = start.elapsed().as_secs_f64();
        if target == Target::Solon {
            check(&buffer, solon.plan().parameters.groups(), 1.0 + rounding as f32, of_group)?;
        }
        let checksum = if target == Target::Raw { 0 } else { crc_fast::crc32_iscsi(bytemuck::cast_slice(&buffer)) };
        if target == Target::Dropping {
            // The floor's constant would do as a gradient, but not as one that shows whether numbers were mixed up.
            buffer.iter_mut().enumerate().for_each(|(at, x)| *x = number(at));
        }
        say(&Said::Done { digest, checksum, seconds })?;
    }
    Ok(())
}

/// The first gradients are `number(group, at)`, and those of later rounds the update before: so every update is their mean over the
/// groups, whoever lied, but for rounding, which adds up over thousands of rounds. Some thousand numbers of all parts are looked at: workers
/// that are not through their round yet need the cores.
fn check(update: &[f32], groups: usize, allowed: f32, number: impl Fn(usize, usize) -> f32) -> Result<(), Failure> {
    for (at, &found) in update.iter().enumerate().step_by((update.len() / 4096) | 1) {
        let expected = (0..groups).map(|group| number(group, at)).sum::<f32>() / groups as f32;
        let right = (found - expected).abs() <= allowed + 1e-2 * expected.abs();
        if !right {
            return Err(Failure::Wrong { at, found, expected });
        }
    }
    Ok(())
}

/// Runs rounds in which each gradient is the last update; gives the digest of the last one.
fn rounds_of(worker: &mut Worker, rounds: u64, trouble: &Trouble, buffer: &mut [f32]) -> Result<u64, Failure> {
    let (row, chunks) = (worker.place().row, worker.plan().layout.chunks() as u64);
    let present = worker.plan().parameters.redundancy() - trouble.absent;
    // The liars are a run of `liars` rows that begins behind the last one's end each time.
    let first = |turn: u64| (turn % present as u64) as usize * trouble.liars % present;
    let lies = |turn: u64| (row + present - first(turn)) % present < trouble.liars;
    let mut digest = 0;
    for _ in 0..rounds {
        let round = worker.next_round();
        let report = if row >= present {
            worker.follow(buffer)?
        } else if trouble.liars == 0 || trouble.change == Change::Round && !lies(round) {
            worker.exchange(buffer)?
        } else {
            let mut tamper = |round: u64, chunk: u32, shard: &mut [f32]| {
                let turn = match trouble.change {
                    Change::Round => round,
                    Change::Chunk => round.wrapping_mul(chunks) + u64::from(chunk),
                };
                if lies(turn) {
                    lie(trouble.lies[turn as usize % trouble.lies.len()], shard);
                }
            };
            let tamper: Tamper<'_> = &mut tamper;
            worker.exchange_tampered(buffer, Some(tamper))?
        };
        digest = report.digest;
    }
    Ok(digest)
}

fn lie(how: Lie, shard: &mut [f32]) {
    match how {
        Lie::Nan => shard.fill(f32::NAN),
        Lie::Huge => shard.iter_mut().for_each(|x| *x *= -100.0),
        Lie::Tiny => shard.iter_mut().enumerate().for_each(|(at, x)| *x += (at % 5) as f32),
        Lie::One => shard[0] += 100.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lie_changes_the_shard() {
        for how in [Lie::Nan, Lie::Huge, Lie::Tiny, Lie::One] {
            let mut shard = [3.0; 8];
            lie(how, &mut shard);
            assert_ne!(shard, [3.0; 8], "{how:?}");
        }
    }

    #[test]
    fn an_update_that_is_not_the_mean_is_noticed() {
        let number = |group: usize, at: usize| (10 * group + at) as f32;
        assert!(check(&[5.0, 6.0, 7.0], 2, 1.0, number).is_ok());
        for wrong in [9.0, f32::NAN, -6.0, f32::INFINITY] {
            assert!(matches!(check(&[5.0, wrong, 7.0], 2, 1.0, number), Err(Failure::Wrong { at: 1, .. })));
        }
    }

    #[test]
    fn orders_survive_the_pipe() {
        let order = Order { target: Target::Dropping, rounds: 3, trouble: Trouble::none() };
        let text = serde_json::to_string(&order).unwrap();
        assert!(text.starts_with(r#"{"target":"dropping","rounds":3,"#) && !text.contains('\n'), "{text}");
        assert_eq!(serde_json::from_str::<Order>(&text).unwrap().trouble, order.trouble);
    }
}
