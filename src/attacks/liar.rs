//! One lying worker: its memory of earlier rounds, and the lies themselves.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::knowledge::{alie_deviations, min_max_gamma, moments, opposite};
use super::{Attack, Knowledge, bits};
use crate::code::Layout;

/// What a liar has to lie with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Means {
    /// Shared by all liars of a job: colluders draw from it alone, others from it and their index.
    pub seed: u64,
    /// The liar's index in the job.
    pub worker: usize,
    /// Workers in the job, P.
    pub workers: usize,
    /// Liars among them in one round.
    pub liars: usize,
    /// Workers per group, r; 1 without a code.
    pub redundancy: usize,
    /// The decoder's relative tolerance, e.g. `3 * 2^-24`: it accepts a syndrome of `tolerance * sqrt(r K) * norm` over K
    /// projections, where `norm` is the median norm of the group's shards.
    pub tolerance: f64,
    /// In place of [`Attack::strength`], and of what liars who know all would take.
    pub strength: Option<f32>,
}

/// One lying worker. Deterministic: the same calls on a liar made alike give the same lies.
#[derive(Clone, Debug)]
pub struct Liar {
    attack: Attack,
    means: Means,
    /// The last honest gradient, for attacks that take a deviation from it. Empty until there is one.
    last_gradient: Vec<f32>,
    /// `replay`: the last honest shard of each chunk.
    last_shards: Vec<Vec<f32>>,
}

impl Liar {
    /// A liar in a job whose gradients are cut by `layout`. All memory that it keeps is taken here.
    pub fn new(attack: Attack, layout: &Layout, means: Means) -> Liar {
        let chunks = if attack == Attack::Replay { layout.chunks() } else { 0 };
        let remembers = matches!(attack, Attack::Alie | Attack::MinMax | Attack::Fang);
        Liar {
            attack,
            means,
            last_gradient: Vec::with_capacity(if remembers { layout.dimension() } else { 0 }),
            last_shards: (0..chunks).map(|chunk| Vec::with_capacity(layout.chunk(chunk).width)).collect(),
        }
    }

    /// How it lies.
    pub fn attack(&self) -> Attack {
        self.attack
    }

    /// Turns the honest `gradient` of a round into the one to encode.
    ///
    /// With [`Knowledge::Own`], `alie` and `min-max` are honest in their first round: they have no deviation yet.
    ///
    /// # Panics
    /// If it knows all honest gradients, and there is none, or one of another length.
    pub fn gradient(&mut self, knowledge: Knowledge<'_>, gradient: &mut [f32]) {
        let all = knowledge.all(gradient.len());
        let strength = self.strength();
        match self.attack {
            Attack::Reverse => scale(gradient, -strength),
            Attack::SignFlip => scale(gradient, -1.0),
            Attack::Collude => {
                let size = (f64::from(strength) * norm(gradient) / (gradient.len() as f64).sqrt()) as f32;
                let mut random = ChaCha8Rng::seed_from_u64(self.means.seed);
                gradient.iter_mut().for_each(|value| *value = if random.next_u32() & 1 == 0 { size } else { -size });
            }
            Attack::Mimic => {
                if let (Some(honest), 1) = (all, self.means.redundancy) {
                    gradient.copy_from_slice(honest[0]);
                }
            }
            Attack::Ipm => match all {
                None => scale(gradient, -strength),
                Some(honest) => over(gradient, |index| -strength * moments(honest, index).0),
            },
            Attack::Alie => match all {
                None => self.lie_of_own(gradient, |mean, deviation| mean + strength * deviation),
                Some(honest) => {
                    let usual = alie_deviations(self.means.workers, self.means.liars).unwrap_or(strength);
                    let deviations = self.means.strength.unwrap_or(usual);
                    over(gradient, |index| {
                        let (mean, deviation) = moments(honest, index);
                        mean + deviations * deviation
                    });
                }
            },
            Attack::MinMax => match all {
                None => self.lie_of_own(gradient, |mean, deviation| mean - strength * deviation),
                Some(honest) => {
                    let gamma = self.means.strength.unwrap_or_else(|| min_max_gamma(honest));
                    over(gradient, |index| {
                        let (mean, deviation) = moments(honest, index);
                        mean - gamma * deviation
                    });
                }
            },
            Attack::Fang => match (all, self.means.strength) {
                (None, _) => self.lie_of_own(gradient, |mean, deviation| mean - (strength * deviation).copysign(mean)),
                (Some(honest), None) => over(gradient, |index| opposite(honest, index)),
                (Some(honest), Some(strength)) => over(gradient, |index| {
                    let (mean, deviation) = moments(honest, index);
                    mean - (strength * deviation).copysign(mean)
                }),
            },
            Attack::Constant
            | Attack::Gaussian
            | Attack::Zero
            | Attack::Nan
            | Attack::Replay
            | Attack::BitFlip
            | Attack::MultiBit
            | Attack::Warp
            | Attack::Threshold
            | Attack::Delayed => {}
        }
    }

    /// The row of the code to encode with, where `own` would be honest. `mimic` takes that of the group's first worker,
    /// or of the second if it is the first itself; a worker alone in its group has nobody to copy there.
    pub fn row(&self, own: usize) -> usize {
        match self.attack {
            Attack::Mimic if self.means.redundancy > 1 => usize::from(own == 0),
            _ => own,
        }
    }

    /// Turns the honest `shard` of chunk `chunk` into the one to send. Allocates nothing.
    ///
    /// `replay` is honest where it has no earlier shard of the chunk.
    ///
    /// # Panics
    /// If the shard is longer than the layout says, or there is no such chunk.
    pub fn shard(&mut self, round: u64, chunk: usize, shard: &mut [f32]) {
        let strength = self.strength();
        match self.attack {
            Attack::Constant => shard.fill(-strength),
            Attack::Zero => shard.fill(0.0),
            Attack::Nan => shard.fill(f32::NAN),
            Attack::Gaussian => {
                let mut random = self.random(round, chunk);
                for pair in shard.chunks_mut(2) {
                    let noise = normal_pair(&mut random);
                    pair.iter_mut().zip(noise).for_each(|(value, noise)| *value = strength * noise);
                }
            }
            Attack::Replay => {
                let last = &mut self.last_shards[chunk];
                if last.is_empty() {
                    assert!(shard.len() <= last.capacity(), "a shard is longer than the layout says");
                    last.extend_from_slice(shard);
                } else {
                    last.swap_with_slice(shard);
                }
            }
            Attack::BitFlip => bits::flip_one(shard, &mut self.random(round, chunk)),
            Attack::MultiBit => bits::flip_several(shard, &mut self.random(round, chunk)),
            Attack::Warp => bits::flip_lane(shard, &mut self.random(round, chunk)),
            Attack::Threshold => {
                // A projection of unit variance leaves the norm of an error as it is, times sqrt(K); the parity matrix
                // only shrinks it. So this syndrome is under the tolerance as long as our norm is near the median.
                let part = f64::from(strength);
                let error = part * self.means.tolerance * (self.means.redundancy as f64).sqrt() * norm(shard);
                let step = (error / (shard.len() as f64).sqrt()) as f32;
                let mut random = self.random(round, chunk);
                shard.iter_mut().for_each(|value| *value += if random.next_u32() & 1 == 0 { step } else { -step });
            }
            Attack::Reverse
            | Attack::SignFlip
            | Attack::Alie
            | Attack::Ipm
            | Attack::Mimic
            | Attack::MinMax
            | Attack::Fang
            | Attack::Collude
            | Attack::Delayed => {}
        }
    }

    /// How long after the begin of a round with this `deadline` it sends its first shard; an honest worker does not wait. The caller
    /// waits.
    pub fn wait(&self, deadline: Duration) -> Duration {
        match self.attack {
            Attack::Delayed => deadline.mul_f32(self.strength().max(0.0)),
            _ => Duration::ZERO,
        }
    }

    fn strength(&self) -> f32 {
        self.means.strength.or(self.attack.strength()).unwrap_or(0.0)
    }

    /// Replaces every element of its own gradient by a lie of it, taken for the mean, and the deviation.
    fn lie_of_own(&mut self, gradient: &mut [f32], lie: impl Fn(f32, f32) -> f32) {
        for (index, value) in gradient.iter_mut().enumerate() {
            let honest = *value;
            match self.last_gradient.get_mut(index) {
                Some(last) => {
                    *value = lie(honest, (honest - *last).abs() / std::f32::consts::SQRT_2);
                    *last = honest;
                }
                None => self.last_gradient.push(honest),
            }
        }
    }

    /// Randomness of this liar for one shard.
    pub(super) fn random(&self, round: u64, chunk: usize) -> ChaCha8Rng {
        let mut seed = [0; 32];
        let words = [self.means.seed, self.means.worker as u64, round, chunk as u64];
        seed.chunks_exact_mut(8).zip(words).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
        ChaCha8Rng::from_seed(seed)
    }
}

fn scale(values: &mut [f32], factor: f32) {
    values.iter_mut().for_each(|value| *value *= factor);
}

fn over(values: &mut [f32], lie: impl Fn(usize) -> f32) {
    values.iter_mut().enumerate().for_each(|(index, value)| *value = lie(index));
}

pub(super) fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}

/// Two independent standard normal numbers (Box and Muller).
pub(super) fn normal_pair(random: &mut ChaCha8Rng) -> [f32; 2] {
    let mut uniform = || (f64::from(random.next_u32()) + 0.5) / 2f64.powi(32);
    let radius = (-2.0 * uniform().ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * uniform()).sin_cos();
    [(radius * cos) as f32, (radius * sin) as f32]
}
