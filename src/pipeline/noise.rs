//! How far apart the shards of believed words were, group by group: the noise that honest workers make.

use std::sync::atomic::{AtomicU64, Ordering};

/// Steps per doubling: a step is a ratio of 1 : 1.14 to 1 : 1.25.
const STEPS: u32 = 4;
/// Ratios from 2^-32 to 2^32 have a step of their own; what is below is nothing, what is above as good as infinite.
const DOUBLINGS: u32 = 32;
const BUCKETS: usize = (2 * DOUBLINGS * STEPS) as usize + 2;

/// Distances of one group's words from agreeing, in tolerances, counted in steps. One relaxed increment per word.
#[derive(Debug)]
pub(super) struct Counts([AtomicU64; BUCKETS]);

/// A copy of what was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noise(Vec<u64>);

/// The step of a ratio; 0 is for those that are too small to tell from none.
fn bucket(ratio: f32) -> usize {
    // An exponent and two bits of the mantissa: steps of a quarter of an octave, by the bits of f32.
    let step = i64::from(ratio.to_bits() >> 21) - i64::from((127 - DOUBLINGS) << 2);
    // NaN is no ratio: the word was not believed because of it.
    if ratio.is_nan() || ratio < 0.0 { 0 } else { (step + 1).clamp(0, BUCKETS as i64 - 1) as usize }
}

/// The end of a step.
fn end(bucket: usize) -> f64 {
    if bucket == 0 { 0.0 } else { f64::from(f32::from_bits((((127 - DOUBLINGS) << 2) + bucket as u32) << 21)) }
}

impl Counts {
    pub(super) fn new() -> Counts {
        Counts([const { AtomicU64::new(0) }; BUCKETS])
    }

    pub(super) fn count(&self, ratio: f32) {
        self.0[bucket(ratio)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn noise(&self) -> Noise {
        Noise(self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect())
    }
}

impl Noise {
    /// Words that were counted.
    pub fn words(&self) -> u64 {
        self.0.iter().sum()
    }

    /// How far apart this part of the words (0 to 1) was at most, in tolerances, rounded up by a quarter at most; `None` without words.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let wanted = (part.clamp(0.0, 1.0) * self.words() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.0.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(end(bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_ratio_lies_below_the_end_of_its_step_and_not_far(exponent in -31f64..31.0) {
            let ratio = exponent.exp2() as f32;
            let end = end(bucket(ratio));
            prop_assert!(end > f64::from(ratio) && end <= 1.2501 * f64::from(ratio), "{ratio} {end}");
        }
    }

    #[test]
    fn quantiles_are_those_of_a_sorted_list_and_extremes_have_a_place() {
        let counts = Counts::new();
        assert_eq!(counts.noise().quantile(0.5), None);
        for ratio in [0.0, 1e-30, -1.0, f32::NAN] {
            counts.count(ratio);
        }
        assert_eq!((counts.noise().words(), counts.noise().quantile(1.0)), (4, Some(0.0)));
        (0..95).for_each(|_| counts.count(0.5));
        counts.count(100.0);
        let noise = counts.noise();
        let [middle, nearly, most] = [0.5, 0.99, 1.0].map(|part| noise.quantile(part).unwrap());
        assert!((0.5..=0.625).contains(&middle) && middle == nearly && (100.0..120.0).contains(&most), "{noise:?}");
        counts.count(f32::INFINITY);
        assert!(counts.noise().quantile(1.0).unwrap() > 1e9);
    }
}
