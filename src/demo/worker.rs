//! One worker process of the demonstration: joins, trains, lies if it is told to, and says what happened on standard output.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::data::{DataError, Split};
use super::model::{Model, Shape};
use crate::attacks::{Attack, Knowledge, Liar, Means};
use crate::client::{ClientError, JoinError, JoinOptions, Tamper, Worker};
use crate::sampler::{Sampler, SamplerError};
use crate::transport::Transport;
use crate::transport::rdma::DeviceList;

/// What a worker process is told.
#[derive(Args, Clone, Debug)]
pub struct WorkerArgs {
    /// Where solond listens.
    #[arg(long)]
    pub address: String,
    /// This worker's index.
    #[arg(long)]
    pub worker: u32,
    /// Steps to take; 0: until the process is ended.
    #[arg(long)]
    pub steps: u64,
    /// Which part of each batch this worker computes.
    #[arg(long)]
    pub part: usize,
    /// How many parts each batch has.
    #[arg(long)]
    pub parts: usize,
    /// Seed of model and batches.
    #[arg(long)]
    pub seed: u64,
    /// Width of the hidden layer.
    #[arg(long)]
    pub hidden: usize,
    /// Samples per batch.
    #[arg(long)]
    pub batch: usize,
    /// Learning rate.
    #[arg(long)]
    pub rate: f32,
    /// Momentum.
    #[arg(long)]
    pub momentum: f32,
    /// Directory with IDX files; the digits that are compiled in without it.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Lie like this.
    #[arg(long)]
    pub attack: Option<Attack>,
    /// Judge the model on the test samples after every so many steps; 0: never.
    #[arg(long)]
    pub judge: u64,
    /// Where to write the final weights.
    #[arg(long)]
    pub weights: PathBuf,
    /// How shards and updates travel.
    #[arg(long, default_value = "tcp")]
    pub transport: Transport,
    /// The RDMA devices that may be used.
    #[arg(long, default_value = "")]
    pub devices: DeviceList,
}

/// What a worker process says, one JSON object per line.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Message {
    /// It has joined, and waits for a line on standard input.
    Joined,
    /// It has taken a step.
    Step(WorkerStep),
    /// It could not go on.
    Stopped {
        /// The round.
        step: u64,
        /// Why.
        why: String,
        /// The job cannot decode the round: no fault of this worker.
        undecodable: bool,
    },
    /// It has taken all steps and written its weights.
    Done {
        /// Did its shards and updates travel by RDMA to the end?
        rdma: bool,
    },
}

/// What one worker saw of one step.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct WorkerStep {
    /// Number of the step, from 1.
    pub step: u64,
    /// Bytes sent and received.
    pub up: u64,
    /// Bytes received.
    pub down: u64,
    /// Wall-clock time of the step.
    pub ms: f64,
    /// Part of the test samples that are right, where it was judged.
    pub accuracy: Option<f64>,
    /// Cross-entropy on the test samples, where it was judged and is finite.
    pub loss: Option<f64>,
    /// Largest residual over tolerance among the words of the round.
    pub residual_ratio: f64,
    /// The same before anything was corrected, where it is finite: JSON has no infinity.
    pub received_ratio: Option<f64>,
    /// Workers named as liars.
    pub liars: Vec<usize>,
    /// Workers without any shard.
    pub absent: Vec<usize>,
}

/// Why a worker process ended without taking all steps.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The batches cannot be made.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// It cannot join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// A round gave no update.
    #[error(transparent)]
    Round(#[from] ClientError),
    /// Standard output or the file for the weights failed.
    #[error("cannot say what happened: {0}")]
    Io(#[from] io::Error),
}

/// Says something on standard output to who started this process: a line of JSON.
///
/// # Errors
/// If nobody listens.
pub fn say(message: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, message).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Waits for the word to begin, and from then on ends the process when standard input ends: with whoever started it.
fn begin_and_end_with_parent() -> Result<(), WorkerError> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    end_with_parent();
    Ok(())
}

/// Ends this process when its standard input ends, so that nothing outlives a demonstration that was killed.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        let mut ignored = String::new();
        while io::stdin().lock().read_line(&mut ignored).is_ok_and(|bytes| bytes > 0) {
            ignored.clear();
        }
        std::process::exit(i32::from(crate::daemon::exit::Exit::Temporary as u8));
    });
}

/// Runs one worker process.
///
/// # Errors
/// If it could not take all its steps. An undecodable round is no error: it is said, and the worker ends in peace.
pub fn run(args: &WorkerArgs) -> Result<(), WorkerError> {
    let data = match &args.data {
        Some(directory) => Split::read(directory)?,
        None => Split::digits(),
    };
    let shape = Shape::of(&data.train, args.hidden);
    let mut model = Model::new(shape, args.momentum, args.seed);
    let mut sampler = Sampler::new(data.train.len(), args.batch, args.seed)?;
    let mut options = JoinOptions::new(&args.address, "demo", args.worker);
    options.round_timeout = Duration::from_secs(120);
    options.transport = args.transport;
    options.rdma.devices = args.devices.clone();
    let mut worker = Worker::join(&options)?;
    let plan = *worker.plan();
    let means = Means {
        seed: args.seed,
        worker: args.worker as usize,
        workers: plan.parameters.workers(),
        liars: plan.parameters.groups() * plan.parameters.adversaries(),
        redundancy: plan.parameters.redundancy(),
        tolerance: plan.tolerance,
        strength: None,
    };
    let mut liar = args.attack.map(|attack| Liar::new(attack, &plan.layout, means));
    if let Some(liar) = &liar {
        worker.set_row(liar.row(worker.place().row));
    }
    say(&Message::Joined)?;
    begin_and_end_with_parent()?;

    let mut buffer = vec![0.0; shape.dimension()];
    let (mut sent, mut received) = worker.traffic();
    let mut step = 0;
    while args.steps == 0 || step < args.steps {
        let started = Instant::now();
        model.gradient_sum(&data.train, sampler.part(step, args.part, args.parts), &mut buffer);
        let report = match &mut liar {
            None => worker.exchange(&mut buffer),
            Some(liar) => {
                liar.gradient(Knowledge::Own, &mut buffer);
                let mut lie = |round, chunk, shard: &mut [f32]| liar.shard(round, chunk as usize, shard);
                let tamper: Tamper<'_> = &mut lie;
                worker.exchange_tampered(&mut buffer, Some(tamper))
            }
        };
        step += 1;
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                let undecodable = matches!(error, ClientError::Undecodable { .. });
                say(&Message::Stopped { step, why: error.to_string(), undecodable })?;
                return if undecodable { Ok(()) } else { Err(error.into()) };
            }
        };
        model.apply(&buffer, args.rate);
        let ms = started.elapsed().as_secs_f64() * 1e3;
        let judged = args.judge > 0 && (step % args.judge == 0 || step == args.steps || step == 1);
        let score = judged.then(|| model.score(&data.test));
        let (up, down) = worker.traffic();
        say(&Message::Step(WorkerStep {
            step,
            up: up - std::mem::replace(&mut sent, up),
            down: down - std::mem::replace(&mut received, down),
            ms,
            accuracy: score.map(|score| score.accuracy),
            loss: score.map(|score| score.loss).filter(|loss| loss.is_finite()),
            residual_ratio: f64::from(report.residual_ratio),
            received_ratio: Some(f64::from(report.received_ratio)).filter(|ratio| ratio.is_finite()),
            liars: report.liars.union(&report.late_liars).iter().collect(),
            absent: report.absent.iter().collect(),
        }))?;
    }
    let bytes: Vec<u8> = model.parameters().iter().flat_map(|weight| weight.to_le_bytes()).collect();
    std::fs::write(&args.weights, bytes)?;
    say(&Message::Done { rdma: worker.way().rdma })?;
    worker.leave();
    Ok(())
}
