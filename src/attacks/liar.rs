//! One lying worker: its memory of earlier rounds, and the lies themselves.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::Attack;
use crate::code::Layout;

/// Factor of `reverse` and value of `constant`, as in the code released with Draco (arXiv 1803.09877).
const LARGE: f32 = -100.0;
/// Standard deviation of `gaussian` (Blanchard et al., arXiv 1703.02757).
const NOISE: f32 = 200.0;
/// Deviations that `alie` adds.
const ALIE_DEVIATIONS: f32 = 1.5;
/// Factor of `ipm`.
const IPM_FACTOR: f32 = -0.5;
/// Size of the wrong gradient of `collude`, in root mean squares of the honest one.
const COLLUDE_SIZE: f64 = 10.0;
/// Part of the tolerance that `threshold` uses.
const THRESHOLD_PART: f64 = 0.5;

/// What a liar has to lie with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Means {
    /// Shared by all liars of a job: colluders draw from it alone, others from it and their index.
    pub seed: u64,
    /// The liar's index in the job.
    pub worker: usize,
    /// Workers per group, r.
    pub redundancy: usize,
    /// The decoder's relative tolerance, e.g. `3 * 2^-24`: it accepts a syndrome of `tolerance * sqrt(r K) * norm` over K
    /// projections, where `norm` is the median norm of the group's shards.
    pub tolerance: f64,
}

/// One lying worker. Deterministic: the same calls on a liar made alike give the same lies.
#[derive(Clone, Debug)]
pub struct Liar {
    attack: Attack,
    means: Means,
    /// `alie`: the last honest gradient. Empty until there is one, and for all other attacks.
    last_gradient: Vec<f32>,
    /// `replay`: the last honest shard of each chunk.
    last_shards: Vec<Vec<f32>>,
}

impl Liar {
    /// A liar in a job whose gradients are cut by `layout`. All memory it ever needs is taken here.
    pub fn new(attack: Attack, layout: &Layout, means: Means) -> Liar {
        let chunks = if attack == Attack::Replay { layout.chunks() } else { 0 };
        Liar {
            attack,
            means,
            last_gradient: Vec::with_capacity(if attack == Attack::Alie { layout.dimension() } else { 0 }),
            last_shards: (0..chunks).map(|chunk| Vec::with_capacity(layout.chunk(chunk).width)).collect(),
        }
    }

    /// How it lies.
    pub fn attack(&self) -> Attack {
        self.attack
    }

    /// Turns the honest `gradient` of a round into the one to encode.
    ///
    /// `alie` is honest in its first round: it has no deviation yet.
    pub fn gradient(&mut self, gradient: &mut [f32]) {
        match self.attack {
            Attack::Reverse => scale(gradient, LARGE),
            Attack::SignFlip => scale(gradient, -1.0),
            Attack::Ipm => scale(gradient, IPM_FACTOR),
            Attack::Collude => {
                let size = (COLLUDE_SIZE * norm(gradient) / (gradient.len() as f64).sqrt()) as f32;
                let mut random = ChaCha8Rng::seed_from_u64(self.means.seed);
                gradient.iter_mut().for_each(|value| *value = if random.next_u32() & 1 == 0 { size } else { -size });
            }
            Attack::Alie => {
                for (index, value) in gradient.iter_mut().enumerate() {
                    let honest = *value;
                    match self.last_gradient.get_mut(index) {
                        Some(last) => {
                            *value += ALIE_DEVIATIONS * (honest - *last).abs() / std::f32::consts::SQRT_2;
                            *last = honest;
                        }
                        None => self.last_gradient.push(honest),
                    }
                }
            }
            Attack::Constant
            | Attack::Gaussian
            | Attack::Zero
            | Attack::Nan
            | Attack::Mimic
            | Attack::Replay
            | Attack::BitFlip
            | Attack::Threshold => {}
        }
    }

    /// As [`Liar::gradient`], for a liar that knows the honest gradients of all groups: `alie` and `ipm` use their mean
    /// and deviation as in their papers, `mimic` sends the first of them.
    ///
    /// # Panics
    /// If `honest` is empty or holds a gradient of another length.
    pub fn gradient_among(&mut self, honest: &[&[f32]], gradient: &mut [f32]) {
        assert!(honest.iter().all(|one| one.len() == gradient.len()), "gradients of one job have one length");
        let count = honest.len() as f64;
        let moments = |index: usize| {
            let mean = honest.iter().map(|one| f64::from(one[index])).sum::<f64>() / count;
            let variance = honest.iter().map(|one| (f64::from(one[index]) - mean).powi(2)).sum::<f64>() / count;
            (mean as f32, variance.sqrt() as f32)
        };
        match self.attack {
            Attack::Mimic => gradient.copy_from_slice(honest[0]),
            Attack::Ipm | Attack::Alie => {
                assert!(!honest.is_empty(), "a mean is over at least one gradient");
                for (index, value) in gradient.iter_mut().enumerate() {
                    let (mean, deviation) = moments(index);
                    let alie = self.attack == Attack::Alie;
                    *value = if alie { mean + ALIE_DEVIATIONS * deviation } else { IPM_FACTOR * mean };
                }
            }
            _ => self.gradient(gradient),
        }
    }

    /// The row of the code to encode with, where `own` would be honest. `mimic` takes that of the group's first worker,
    /// or of the second if it is the first itself; a worker alone in its group has nobody to copy.
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
        match self.attack {
            Attack::Constant => shard.fill(LARGE),
            Attack::Zero => shard.fill(0.0),
            Attack::Nan => shard.fill(f32::NAN),
            Attack::Gaussian => {
                let mut random = self.random(round, chunk);
                for pair in shard.chunks_mut(2) {
                    let noise = normal_pair(&mut random);
                    pair.iter_mut().zip(noise).for_each(|(value, noise)| *value = NOISE * noise);
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
            Attack::BitFlip => flip(shard, &mut self.random(round, chunk)),
            Attack::Threshold => {
                // A projection of unit variance leaves the norm of an error as it is, times sqrt(K); the parity matrix
                // only shrinks it. So this syndrome is under the tolerance as long as our norm is near the median.
                let error = THRESHOLD_PART * self.means.tolerance * (self.means.redundancy as f64).sqrt() * norm(shard);
                let step = (error / (shard.len() as f64).sqrt()) as f32;
                let mut random = self.random(round, chunk);
                shard.iter_mut().for_each(|value| *value += if random.next_u32() & 1 == 0 { step } else { -step });
            }
            Attack::Reverse | Attack::SignFlip | Attack::Alie | Attack::Ipm | Attack::Mimic | Attack::Collude => {}
        }
    }

    /// Randomness of this liar for one shard.
    fn random(&self, round: u64, chunk: usize) -> ChaCha8Rng {
        let mut seed = [0; 32];
        let words = [self.means.seed, self.means.worker as u64, round, chunk as u64];
        seed.chunks_exact_mut(8).zip(words).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
        ChaCha8Rng::from_seed(seed)
    }
}

fn scale(values: &mut [f32], factor: f32) {
    values.iter_mut().for_each(|value| *value *= factor);
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}

/// Flips one of the eight exponent bits of one element: the first that is not 0 from a random start, as a flip in a zero
/// hardly shows.
fn flip(shard: &mut [f32], random: &mut ChaCha8Rng) {
    let bit = 23 + random.next_u32() % 8;
    let start = ((u128::from(random.next_u64()) * shard.len() as u128) >> 64) as usize;
    let (before, from) = shard.split_at_mut(start);
    let nonzero = from.iter().position(|&value| value != 0.0).unwrap_or(0);
    let before_nonzero = before.iter().position(|&value| value != 0.0);
    let element = match before_nonzero {
        Some(index) if from.iter().all(|&value| value == 0.0) => before.get_mut(index),
        _ => from.get_mut(nonzero),
    };
    if let Some(value) = element {
        *value = f32::from_bits(value.to_bits() ^ 1 << bit);
    }
}

/// Two independent standard normal numbers (Box and Muller).
fn normal_pair(random: &mut ChaCha8Rng) -> [f32; 2] {
    let mut uniform = || (f64::from(random.next_u32()) + 0.5) / 2f64.powi(32);
    let radius = (-2.0 * uniform().ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * uniform()).sin_cos();
    [(radius * cos) as f32, (radius * sin) as f32]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::LiePlace;
    use super::*;

    const TOLERANCE: f64 = 3.0 / 16_777_216.0;

    fn liar(attack: Attack, worker: usize) -> Liar {
        let layout = Layout::new(1000, 2, 125);
        Liar::new(attack, &layout, Means { seed: 7, worker, redundancy: 6, tolerance: TOLERANCE })
    }

    fn lied(attack: Attack, worker: usize, round: u64, shard: &[f32]) -> Vec<f32> {
        let mut lie = shard.to_vec();
        liar(attack, worker).shard(round, 0, &mut lie);
        lie
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    fn shards() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-100.0f32..100.0, 1..=125)
    }

    proptest! {
        #[test]
        fn every_attack_lies_at_its_place_and_nowhere_else(honest in shards(), round in 1u64..1000) {
            // Two rounds, because some need to have seen an honest one.
            let honest: Vec<f32> = honest.into_iter().map(|value| value + 200.0).collect();
            let earlier: Vec<f32> = honest.iter().map(|value| value * 1.5).collect();
            for attack in Attack::ALL {
                let mut liar = liar(attack, 3);
                liar.gradient(&mut earlier.clone());
                liar.shard(round - 1, 0, &mut earlier.clone());
                let (mut gradient, mut shard) = (honest.clone(), honest.clone());
                liar.gradient(&mut gradient);
                liar.shard(round, 0, &mut shard);
                prop_assert_eq!(gradient != honest, attack.place() == LiePlace::Gradient, "{}", attack);
                prop_assert_eq!(shard != honest, attack.place() == LiePlace::Shard, "{}", attack);
                prop_assert_eq!(liar.row(3) != 3, attack.place() == LiePlace::Row, "{}", attack);
            }
        }

        #[test]
        fn lies_are_the_same_for_a_seed_and_differ_by_worker_and_round(honest in shards()) {
            for attack in Attack::ALL {
                prop_assert_eq!(bits(&lied(attack, 1, 5, &honest)), bits(&lied(attack, 1, 5, &honest)));
            }
            prop_assert_ne!(lied(Attack::Gaussian, 1, 5, &honest), lied(Attack::Gaussian, 2, 5, &honest));
            prop_assert_ne!(lied(Attack::Gaussian, 1, 5, &honest), lied(Attack::Gaussian, 1, 6, &honest));
        }

        #[test]
        fn bit_flip_changes_one_exponent_bit_of_one_element(honest in shards(), round: u64) {
            let lie = lied(Attack::BitFlip, 0, round, &honest);
            let changes: Vec<u32> = bits(&honest).iter().zip(bits(&lie)).map(|(a, b)| a ^ b).filter(|&x| x != 0).collect();
            prop_assert_eq!(changes.len(), 1);
            prop_assert!(changes[0].is_power_of_two() && changes[0] & 0x7f80_0000 != 0);
        }

        #[test]
        fn colluders_of_a_group_agree_on_a_wrong_gradient(honest in shards(), other_seed in 8u64..100) {
            prop_assume!(norm(&honest) > 0.0);
            let collude = |worker, seed| {
                let mut gradient = honest.clone();
                let layout = Layout::new(1000, 2, 125);
                let means = Means { seed, worker, redundancy: 6, tolerance: TOLERANCE };
                Liar::new(Attack::Collude, &layout, means).gradient(&mut gradient);
                gradient
            };
            prop_assert_eq!(collude(0, 7), collude(5, 7));
            prop_assert_ne!(collude(0, 7), honest.clone());
            prop_assert!((norm(&collude(0, 7)) / norm(&honest) - COLLUDE_SIZE).abs() < 1e-3);
            prop_assume!(honest.len() > 60);
            prop_assert_ne!(collude(0, 7), collude(0, other_seed));
        }

        #[test]
        fn nan_leaves_nothing_finite(honest in shards()) {
            prop_assert!(lied(Attack::Nan, 0, 0, &honest).iter().all(|value| value.is_nan()));
        }
    }

    #[test]
    fn bit_flip_prefers_an_element_that_is_not_zero() {
        for round in 0..100 {
            let mut honest = vec![0.0; 50];
            honest[20] = 1.5;
            assert_ne!(lied(Attack::BitFlip, 0, round, &honest)[20], 1.5);
        }
        assert_eq!(lied(Attack::BitFlip, 0, 0, &[0.0; 9]).iter().filter(|&&value| value != 0.0).count(), 1);
        assert!(lied(Attack::BitFlip, 0, 0, &[]).is_empty());
    }

    #[test]
    fn threshold_stays_under_the_tolerance() {
        let mut random = liar(Attack::Gaussian, 9).random(0, 0);
        let honest: Vec<f32> = (0..100).flat_map(|_| normal_pair(&mut random)).collect();
        let lie = lied(Attack::Threshold, 0, 0, &honest);
        let error: Vec<f32> = lie.iter().zip(&honest).map(|(a, b)| a - b).collect();
        let part = norm(&error) / (TOLERANCE * 6f64.sqrt() * norm(&honest));
        assert!((0.4..0.6).contains(&part), "{part}");
    }

    #[test]
    fn replay_sends_what_was_honest_in_the_last_round_chunk_by_chunk() {
        let mut liar = liar(Attack::Replay, 0);
        let mut send = |round: u64, chunk: usize, value: f32| {
            let mut shard = [value; 3];
            liar.shard(round, chunk, &mut shard);
            shard[0]
        };
        assert_eq!([send(0, 0, 1.0), send(0, 1, 2.0)], [1.0, 2.0], "the first round has no past");
        assert_eq!([send(1, 0, 3.0), send(1, 1, 4.0)], [1.0, 2.0]);
        assert_eq!([send(2, 0, 5.0), send(2, 1, 6.0)], [3.0, 4.0]);
    }

    #[test]
    fn gaussian_noise_has_the_deviation_it_says() {
        let mut shard = vec![0.0; 125];
        liar(Attack::Gaussian, 0).shard(0, 0, &mut shard);
        let deviation = norm(&shard) / 125f64.sqrt();
        assert!((150.0..250.0).contains(&deviation), "{deviation}");
    }

    #[test]
    fn liars_who_know_all_groups_use_their_mean_and_deviation() {
        let honest: [&[f32]; 2] = [&[1.0, 4.0], &[3.0, 4.0]];
        for (attack, expected) in [
            (Attack::Alie, [3.5, 4.0]),
            (Attack::Ipm, [-1.0, -2.0]),
            (Attack::Mimic, [1.0, 4.0]),
            (Attack::SignFlip, [-9.0, 1.0]),
        ] {
            let mut gradient = [9.0, -1.0];
            liar(attack, 0).gradient_among(&honest, &mut gradient);
            assert_eq!(gradient, expected, "{attack}");
        }
    }

    #[test]
    fn alie_waits_for_a_second_round_and_mimic_for_company() {
        let mut gradient = [1.0, 2.0];
        let mut alie = liar(Attack::Alie, 0);
        alie.gradient(&mut gradient);
        assert_eq!(gradient, [1.0, 2.0]);
        alie.gradient(&mut gradient);
        assert_eq!(gradient, [1.0, 2.0], "no change, no deviation");
        let mut mimic = liar(Attack::Mimic, 0);
        assert_eq!([mimic.row(0), mimic.row(1), mimic.row(5)], [1, 0, 0]);
        mimic.means.redundancy = 1;
        assert_eq!(mimic.row(0), 0);
    }
}
