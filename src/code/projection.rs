//! Secret random projections: a shard of any width becomes a few numbers in which a lie still shows.
//!
//! Entries are uniform in `±[1, 2)` (24 random bits of a ChaCha8 stream keyed by the caller's seed) and results are scaled to
//! unit variance per entry. Not `±1`: with these an error `(a, -a)` of any size passes half of the time. Bounded away from 0,
//! so an error in a single coordinate can never vanish; sums of several have a density, as with Gaussian rows.
//!
//! The seed must come from the operating system *after* the last shard that it judges was sealed, and never be used twice.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::kernels;

/// The most projections of a shard.
pub const PROJECTIONS_MAX: usize = 8;

/// `sqrt(3 / 7)`: entries uniform in `±[1, 2)` have variance 7/3.
const UNIT_VARIANCE: f64 = 0.654_653_670_707_977_2;

/// A shard seen through the secret vectors.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Projected {
    /// Inner products with the secret vectors; those from the number of projections on are 0.
    pub values: [f64; PROJECTIONS_MAX],
    /// Euclidean norm of the shard.
    pub norm: f64,
}

/// Draws secret vectors and projects shards on them. Allocates only in [`Projector::new`].
#[derive(Debug)]
pub struct Projector {
    factors: Vec<f32>,
    stride: usize,
    projections: usize,
    width: usize,
}

impl Projector {
    /// Room for `projections` vectors of at most `max_width` numbers.
    ///
    /// # Panics
    /// If `projections` is not in `1..=PROJECTIONS_MAX`.
    pub fn new(max_width: usize, projections: usize) -> Projector {
        assert!((1..=PROJECTIONS_MAX).contains(&projections), "1 to {PROJECTIONS_MAX} projections, not {projections}");
        Projector { factors: vec![0.0; max_width * projections], stride: max_width, projections, width: 0 }
    }

    /// How many numbers a shard becomes, K.
    pub fn projections(&self) -> usize {
        self.projections
    }

    /// Draws fresh vectors of `width` numbers.
    ///
    /// # Panics
    /// If `width` is beyond the `max_width` of construction.
    pub fn draw(&mut self, seed: &[u8; 32], width: usize) {
        assert!(width <= self.stride, "a shard of {width} numbers; at most {} were promised", self.stride);
        self.width = width;
        let mut stream = ChaCha8Rng::from_seed(*seed);
        for k in 0..self.projections {
            let row = &mut self.factors[k * self.stride..][..width];
            // All at once: the generator makes several blocks side by side, if it is asked for as many.
            stream.fill_bytes(bytemuck::cast_slice_mut(row));
            for factor in row {
                // Sign and mantissa are random; the exponent is that of [1, 2).
                *factor = f32::from_bits(u32::from_le(factor.to_bits()) & 0x807f_ffff | 0x3f80_0000);
            }
        }
    }

    /// Projects `shard`; None if any entry is NaN or infinite.
    ///
    /// Reads the shard once. Sums in f64 in a fixed order, where finite f32 cannot overflow.
    ///
    /// # Panics
    /// If `shard` has another length than was drawn for.
    pub fn project(&self, shard: &[f32]) -> Option<Projected> {
        assert_eq!(shard.len(), self.width, "secret vectors were drawn for another width");
        let mut out = Projected::default();
        let sums = &mut out.values[..self.projections];
        let (squares, finite) = kernels::project(shard, &self.factors, self.stride, sums);
        sums.iter_mut().for_each(|sum| *sum *= UNIT_VARIANCE);
        out.norm = squares.sqrt();
        finite.then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_unit_variance_and_are_never_small() {
        let mut projector = Projector::new(1, PROJECTIONS_MAX);
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        for seed in 0..4000u32 {
            let mut key = [7; 32];
            key[..4].copy_from_slice(&seed.to_le_bytes());
            projector.draw(&key, 1);
            for x in projector.project(&[1.0]).unwrap().values {
                assert!((0.654..1.31).contains(&x.abs()), "{x}");
                (sum, squares, count) = (sum + x, squares + x * x, count + 1.0);
            }
        }
        let (mean, variance): (f64, f64) = (sum / count, squares / count);
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn every_class_of_number_that_is_not_finite_is_refused_at_every_place() {
        let mut projector = Projector::new(40, 3);
        for width in [1, 7, 8, 9, 40] {
            projector.draw(&[1; 32], width);
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7f80_0001)] {
                for at in 0..width {
                    let mut shard = vec![f32::MAX; width];
                    assert!(projector.project(&shard).is_some());
                    shard[at] = bad;
                    assert_eq!(projector.project(&shard), None);
                }
            }
        }
    }

    #[test]
    fn same_seed_same_bits_other_seed_other_values() {
        let shard: Vec<f32> = (0..100).map(|i| i as f32 * 0.37 - 5.0).collect();
        let project = |seed: u8| {
            let mut projector = Projector::new(128, 4);
            projector.draw(&[seed; 32], 100);
            projector.project(&shard).unwrap()
        };
        assert_eq!(project(1), project(1));
        assert!((0..4).all(|k| project(1).values[k] != project(2).values[k]));
        assert_eq!(project(1).norm, project(2).norm);
        assert_eq!(project(1).values[4..], [0.0; 4]);
    }

    #[test]
    fn shard_of_largest_numbers_does_not_overflow() {
        let mut projector = Projector::new(5000, 8);
        projector.draw(&[3; 32], 5000);
        let projected = projector.project(&[f32::MAX; 5000]).unwrap();
        assert!(projected.norm.is_finite() && projected.values.iter().all(|x| x.is_finite()));
    }
}
