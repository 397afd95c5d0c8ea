//! One worker process of the lab: joins, trains, lies if it is its turn, and says what its steps took.

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::experiment::CYCLIC;
use super::record::{MomentumAt, Settings};
use super::shared::{SharedError, SharedGradients};
use super::store::Store;
use crate::attacks::{Attack, Knowledge, Liar, Liars, Lie, Means, UnknownLie};
use crate::client::{ClientError, JoinError, JoinOptions, Tamper, Worker};
use crate::demo::Model;
use crate::demo::worker::{end_with_parent, say};
use crate::rules::cyclic;
use crate::sampler::{Sampler, SamplerError};
use crate::transport::Transport;
use crate::wire::Report;

/// The longest that a gradient is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The name of the lab's jobs.
pub const JOB: &str = "lab";

/// What a worker process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Where solond listens.
    pub address: String,
    /// This worker's index.
    pub worker: usize,
    /// Seed of model, batches and liars.
    pub seed: u64,
    /// What is run.
    pub settings: Settings,
    /// The samples to train with, as [`Store`] has them.
    pub data: PathBuf,
    /// The file of gradients that workers share: a part per group.
    pub shared: PathBuf,
    /// Where to write the weights of all steps that are judged, one after another. Who has this is the reporter.
    pub weights: Option<PathBuf>,
}

/// What a worker process says, one JSON object per line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Message {
    /// It has joined, and waits for a line on standard input.
    Joined,
    /// The reporter has taken a step.
    Step(Taken),
    /// It is over.
    Done(Done),
    /// It could not go on.
    Failed {
        /// Why.
        why: String,
    },
}

/// What the reporter saw of a step. Times are seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// The job's round.
    pub round: u64,
    /// When the gradient was ready, and when the update was there, by the machine's clock.
    pub sending: [f64; 2],
    /// For how long the gradient was waited for.
    pub compute: f64,
    /// For how long it was really computed.
    pub compute_busy: f64,
    /// For how long shards were encoded.
    pub encode_busy: f64,
    /// For how long the update was applied.
    pub apply: f64,
    /// Bytes sent and received.
    pub bytes: [u64; 2],
    /// Workers named as liars.
    pub liars: Vec<usize>,
    /// Workers without any shard.
    pub absent: Vec<usize>,
    /// Why the round was undecodable, if it was.
    pub undecodable: Option<String>,
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// First half of the hash of its weights.
    pub digest: String,
    /// Steps (from 1) in which computing, and making up a lie, took longer than the time that is emulated.
    pub overran: Vec<u64>,
    /// Bytes sent and received.
    pub bytes: [u64; 2],
}

/// Why a worker process cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The batches cannot be made.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// It cannot join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// A round gave no update.
    #[error(transparent)]
    Round(#[from] ClientError),
    /// A file or standard output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A gradient did not come from who computes it.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The settings name an attack that does not exist.
    #[error(transparent)]
    Attack(#[from] UnknownLie),
}

/// Seconds of the machine's clock, which all processes share.
fn clock() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Runs one worker process; what goes wrong is also said.
///
/// # Errors
/// If it could not take its steps. An undecodable round is no error: it is said, and the worker ends in peace.
pub fn run(order: &Order) -> Result<(), WorkerError> {
    let done = train(order);
    if let Err(error) = &done {
        say(&Message::Failed { why: error.to_string() })?;
    }
    done
}

struct Trainer<'a> {
    order: &'a Order,
    model: Model,
    sampler: Sampler,
    store: Store,
    worker: Worker,
    shared: SharedGradients,
    liar: Option<(Liar, Liars)>,
    /// Of this worker's gradients, where momentum is kept with the workers.
    velocity: Option<Vec<f32>>,
    /// The gradient that is sent, or for the cyclic code those that are combined, this worker's own first.
    buffer: Vec<f32>,
    overran: Vec<u64>,
}

/// What a worker does in a step.
enum Turn {
    Honest,
    Lies,
}

fn train(order: &Order) -> Result<(), WorkerError> {
    let settings = &order.settings;
    let store = Store::open(&order.data)?;
    let shape = store.shape(settings.hidden);
    let at_worker = settings.momentum_at == MomentumAt::Worker;
    let model =
        Model::new(shape, if at_worker { 0.0 } else { settings.momentum }, order.seed).with(settings.activation);
    let sampler = Sampler::new(store.samples(), settings.batch, order.seed)?;
    let mut options = JoinOptions::new(&order.address, JOB, order.worker as u32);
    options.transport = Transport::Tcp;
    options.join_timeout = Duration::from_secs(60);
    options.round_timeout = Duration::from_secs(120);
    let worker = Worker::join(&options)?;
    let plan = *worker.plan();
    let lie: Option<Lie> = settings.attack.as_deref().map(str::parse).transpose()?;
    let means = Means {
        seed: order.seed,
        worker: order.worker,
        workers: settings.workers,
        liars: settings.liars(order.seed).map_or(0, |liars| liars.most()),
        redundancy: settings.redundancy,
        tolerance: plan.tolerance,
        strength: lie.and_then(|lie| lie.strength),
    };
    let liar = lie.map(|lie| Liar::new(lie.attack, &plan.layout, means)).zip(settings.liars(order.seed));
    let mut trainer = Trainer {
        order,
        model,
        sampler,
        store,
        worker,
        shared: SharedGradients::open(&order.shared, settings.groups, shape.dimension())?,
        liar,
        velocity: at_worker.then(|| vec![0.0; shape.dimension()]),
        buffer: vec![0.0; shape.dimension() * plan.gradients as usize],
        overran: Vec::new(),
    };
    say(&Message::Joined)?;
    io::stdin().lock().read_line(&mut String::new())?;
    end_with_parent();

    let mut judged = Vec::new();
    for step in 0..settings.steps {
        let taken = trainer.step(step)?;
        let over = taken.undecodable.is_some();
        if order.weights.is_some() {
            say(&Message::Step(taken))?;
            if is_judged(settings, step + 1) && !over {
                judged.extend(trainer.model.parameters().iter().flat_map(|weight| weight.to_le_bytes()));
            }
        }
        if over {
            break;
        }
    }
    if let Some(path) = &order.weights {
        std::fs::write(path, judged)?;
    }
    let (up, down) = trainer.worker.traffic();
    let weights = bytemuck::cast_slice(trainer.model.parameters());
    let digest = blake3::hash(weights).to_hex()[..16].to_owned();
    say(&Message::Done(Done { digest, overran: trainer.overran, bytes: [up, down] }))?;
    trainer.worker.leave();
    Ok(())
}

/// Is the model judged after this step (from 1)?
pub fn is_judged(settings: &Settings, step: u64) -> bool {
    step.is_multiple_of(settings.judge) || step == settings.steps || step == 1
}

impl Trainer<'_> {
    fn step(&mut self, step: u64) -> Result<Taken, WorkerError> {
        let settings = &self.order.settings;
        let (bytes, encoding) = (self.worker.traffic(), self.worker.encoding());
        let began = Instant::now();
        self.compute(step)?;
        // Before the time that is emulated is over: nobody waits for a lie. All publish their gradients before they sleep.
        let turn = self.make_up(step)?;
        let compute_busy = began.elapsed();
        if let Some(per_sample) = settings.gradient_time {
            let samples: usize =
                self.batches().iter().map(|batch| self.sampler.part(step, *batch, settings.groups).len()).sum();
            let emulated = Duration::from_secs_f64(per_sample * samples as f64);
            match emulated.checked_sub(compute_busy) {
                Some(left) => std::thread::sleep(left),
                None => self.overran.push(step + 1),
            }
        }
        let (compute, sent) = (began.elapsed(), clock());
        let report = self.exchange(&turn);
        let (received, applying) = (clock(), Instant::now());
        let (report, undecodable) = match report {
            Ok(report) => (Some(report), None),
            Err(error @ ClientError::Undecodable { .. }) => (None, Some(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        if undecodable.is_none() {
            self.model.apply(&self.buffer[..self.worker.plan().layout.dimension()], settings.rate);
        }
        let apply = applying.elapsed();
        let now = self.worker.traffic();
        Ok(Taken {
            round: self.worker.last().map_or(0, |last| last.round),
            sending: [sent, received],
            compute: compute.as_secs_f64(),
            compute_busy: compute_busy.as_secs_f64(),
            encode_busy: (self.worker.encoding() - encoding).as_secs_f64(),
            apply: apply.as_secs_f64(),
            bytes: [now.0 - bytes.0, now.1 - bytes.1],
            liars: report.iter().flat_map(|it| it.liars.union(&it.late_liars).iter().collect::<Vec<_>>()).collect(),
            absent: report.iter().flat_map(|it| it.absent.iter().collect::<Vec<_>>()).collect(),
            undecodable,
        })
    }

    /// Whose gradients this worker computes: that of its group, or for the cyclic code those of as many workers.
    fn batches(&self) -> Vec<usize> {
        let (settings, own) = (&self.order.settings, self.worker.place().group);
        match settings.rule.as_str() {
            CYCLIC => cyclic::batches(settings.workers, settings.adversaries, own).collect(),
            _ => vec![own],
        }
    }

    /// Fills the buffer with what an honest worker sends: computed by the first of each group, copied by the others.
    fn compute(&mut self, step: u64) -> Result<(), WorkerError> {
        let settings = &self.order.settings;
        let (place, batches) = (self.worker.place(), self.batches());
        let (own, others) = self.buffer.split_at_mut(self.worker.plan().layout.dimension());
        if place.row > 0 {
            return Ok(self.shared.copy(place.group, step, PATIENCE, own)?);
        }
        let samples = self.sampler.part(step, place.group, settings.groups);
        let data = self.store.take(samples)?;
        let all: Vec<u32> = (0..data.len() as u32).collect();
        self.model.gradient_sum(&data, &all, own);
        if let Some(velocity) = &mut self.velocity {
            for (velocity, value) in velocity.iter_mut().zip(&mut *own) {
                *velocity = settings.momentum * *velocity + *value;
                *value = *velocity;
            }
        }
        self.shared.publish(place.group, step, own)?;
        for (batch, gradient) in batches.iter().skip(1).zip(others.chunks_exact_mut(own.len())) {
            self.shared.copy(*batch, step, PATIENCE, gradient)?;
        }
        Ok(())
    }

    /// Turns what is in the buffer into a lie, if it is this worker's turn to lie.
    fn make_up(&mut self, step: u64) -> Result<Turn, WorkerError> {
        let row = self.worker.place().row;
        let among = match &self.liar {
            Some((_, among)) if among.lies(step, self.order.worker) => *among,
            _ => {
                self.worker.set_row(row);
                return Ok(Turn::Honest);
            }
        };
        let known = self.know(step, &among)?;
        let Trainer { worker, buffer, liar: Some((liar, _)), .. } = self else {
            unreachable!("a liar was found above")
        };
        worker.set_row(liar.row(row));
        let dimension = worker.plan().layout.dimension();
        let known: Vec<&[f32]> = known.chunks_exact(dimension).collect();
        let (own, others) = buffer.split_at_mut(dimension);
        if known.is_empty() {
            liar.gradient(Knowledge::Own, own);
            others.chunks_exact_mut(dimension).for_each(|gradient| liar.gradient(Knowledge::Own, gradient));
        } else {
            // Who knows everything says the same whatever it has computed.
            liar.gradient(Knowledge::All(&known), own);
            others.chunks_exact_mut(dimension).for_each(|gradient| gradient.copy_from_slice(own));
        }
        Ok(Turn::Lies)
    }

    /// The round's report, or why there is no update.
    fn exchange(&mut self, turn: &Turn) -> Result<Report, ClientError> {
        match (turn, &mut self.liar) {
            (Turn::Lies, Some((liar, _))) => {
                let mut lie = |round, chunk, shard: &mut [f32]| liar.shard(round, chunk as usize, shard);
                let tamper: Tamper<'_> = &mut lie;
                self.worker.exchange_tampered(&mut self.buffer, Some(tamper))
            }
            _ => self.worker.exchange(&mut self.buffer),
        }
    }

    /// What a liar looks at before it lies: all honest gradients, one after another; nothing, if its attack has no use for them.
    fn know(&self, step: u64, among: &Liars) -> Result<Vec<f32>, WorkerError> {
        use Attack::{Alie, Fang, Ipm, Mimic, MinMax};
        let attack = self.liar.as_ref().map(|(liar, _)| liar.attack());
        if !matches!(attack, Some(Alie | Fang | Ipm | Mimic | MinMax)) {
            return Ok(Vec::new());
        }
        let settings = &self.order.settings;
        let lying = among.of(step);
        let honest = (0..settings.groups).filter(|part| settings.is_exact() || !lying.contains(part));
        let mut known = Vec::new();
        for part in honest {
            let at = known.len();
            known.resize(at + self.worker.plan().layout.dimension(), 0.0);
            self.shared.copy(part, step, PATIENCE, &mut known[at..])?;
        }
        Ok(known)
    }
}
