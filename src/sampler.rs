//! Which samples are used in a step, and by whom: the same answer on every worker, without a word between them.
//!
//! ```text
//! epoch:  a shuffle of all samples, from the seed and the epoch's number
//!         | batch of step 0 | batch of step 1 | ...            | rest, unused |
//! batch:  | part 0 | part 1 | ... | part `parts` - 1 |
//! ```
//!
//! Parts are contiguous, so part 0 of 2 is exactly parts 0 to 5 of 12: two groups of six and twelve workers on their own
//! see the same samples in the same step, and their gradients have the same sum.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Deals out the samples of a data set.
#[derive(Clone, Debug)]
pub struct Sampler {
    seed: u64,
    samples: usize,
    batch: usize,
    epoch: u64,
    order: Vec<u32>,
}

/// Why batches cannot be cut as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    /// A batch has at least one sample and at most all of them.
    #[error("a batch of {batch} samples cannot be drawn from {samples}: choose 1 to {samples}")]
    Batch {
        /// Samples per step asked for.
        batch: usize,
        /// Samples there are.
        samples: usize,
    },
}

impl Sampler {
    /// Deals `batch` of `samples` samples in each step.
    ///
    /// # Errors
    /// If `batch` is 0 or more than `samples`.
    pub fn new(samples: usize, batch: usize, seed: u64) -> Result<Sampler, SamplerError> {
        if batch == 0 || batch > samples {
            return Err(SamplerError::Batch { batch, samples });
        }
        Ok(Sampler { seed, samples, batch, epoch: 0, order: shuffled(samples, seed, 0) })
    }

    /// Samples per step, over all parts.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Steps until every batch of the shuffle has been used once.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.samples / self.batch) as u64
    }

    /// The samples of part `part` of `parts` in step `step`. Steps may be asked for in any order; a new epoch costs a
    /// shuffle. Parts differ in size by one sample at most, and are equal if `parts` divides the batch.
    ///
    /// # Panics
    /// If `part >= parts`.
    pub fn part(&mut self, step: u64, part: usize, parts: usize) -> &[u32] {
        assert!(part < parts, "part {part} is not one of {parts}");
        let epoch = step / self.steps_per_epoch();
        if epoch != self.epoch {
            self.order = shuffled(self.samples, self.seed, epoch);
            self.epoch = epoch;
        }
        let start = (step % self.steps_per_epoch()) as usize * self.batch;
        &self.order[start + part * self.batch / parts..start + (part + 1) * self.batch / parts]
    }
}

/// The numbers `0..count` in an order that `seed` and `stream` fix, on every machine.
pub(crate) fn shuffled(count: usize, seed: u64, stream: u64) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    let mut order: Vec<u32> = (0..u32::try_from(count).expect("samples are counted in 32 bits")).collect();
    for last in (1..count).rev() {
        // Multiply and shift: biased by less than count / 2^64, and no loop that depends on the draw.
        let other = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
        order.swap(last, other as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_group_draw_the_same_samples_whatever_they_asked_before() {
        let mut one = Sampler::new(1437, 120, 7).unwrap();
        let mut two = Sampler::new(1437, 120, 7).unwrap();
        two.part(500, 0, 2);
        for step in [0, 1, 10, 11, 40, 3] {
            assert_eq!(one.part(step, 1, 2), two.part(step, 1, 2));
        }
        assert_ne!(one.part(0, 0, 2).to_vec(), Sampler::new(1437, 120, 8).unwrap().part(0, 0, 2));
    }

    #[test]
    fn the_order_is_the_one_that_other_languages_expect() {
        // The Python package's tests hold it to the same numbers.
        let mut sampler = Sampler::new(20, 4, 7).unwrap();
        assert_eq!(sampler.part(0, 1, 2), [0, 6]);
        assert_eq!(sampler.part(5, 1, 2), [6, 5]);
    }

    #[test]
    fn an_epoch_visits_no_sample_twice() {
        let mut sampler = Sampler::new(1437, 120, 3).unwrap();
        assert_eq!(sampler.steps_per_epoch(), 11);
        let mut times = vec![0; 1437];
        for step in 11..22 {
            for part in 0..12 {
                sampler.part(step, part, 12).iter().for_each(|&sample| times[sample as usize] += 1);
            }
        }
        assert_eq!((times.iter().sum::<i32>(), times.iter().max()), (11 * 120, Some(&1)));
        assert_ne!(sampler.part(11, 0, 1).to_vec(), sampler.part(22, 0, 1), "the next epoch is another shuffle");
    }

    #[test]
    fn twelve_workers_alone_see_what_two_groups_of_six_see() {
        let mut sampler = Sampler::new(1000, 240, 5).unwrap();
        for step in 0..9 {
            let groups = [sampler.part(step, 0, 2).to_vec(), sampler.part(step, 1, 2).to_vec()].concat();
            let alone: Vec<u32> = (0..12).flat_map(|worker| sampler.part(step, worker, 12).to_vec()).collect();
            assert_eq!(groups, alone);
            assert_eq!(sampler.part(step, 3, 12).len(), 20);
        }
    }

    #[test]
    fn parts_of_a_batch_that_does_not_divide_cover_it_once() {
        let mut sampler = Sampler::new(50, 50, 5).unwrap();
        let whole = sampler.part(0, 0, 1).to_vec();
        let parts: Vec<u32> = (0..7).flat_map(|part| sampler.part(0, part, 7).to_vec()).collect();
        assert_eq!(whole, parts);
    }

    #[test]
    fn a_batch_of_nothing_or_more_than_all_is_refused() {
        assert_eq!(Sampler::new(10, 0, 1).unwrap_err(), SamplerError::Batch { batch: 0, samples: 10 });
        assert!(Sampler::new(10, 11, 1).unwrap_err().to_string().contains("choose 1 to 10"));
        assert_eq!(Sampler::new(10, 10, 1).unwrap().steps_per_epoch(), 1);
    }

    #[test]
    fn a_shuffle_is_a_permutation_fixed_by_seed_and_stream() {
        let order = shuffled(1000, 1, 2);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(index, &value)| value as usize == index));
        assert_eq!(order, shuffled(1000, 1, 2));
        assert_ne!(order, shuffled(1000, 1, 3));
        assert_ne!(order, shuffled(1000, 2, 2));
    }
}
