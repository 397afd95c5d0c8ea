//! Secret random projections: a shard of any width becomes a few numbers in which a lie still shows.
//!
//! Entries are uniform in `±[1, 2)` (16 random bits each, of a keyed generator: `kernels::random`) and results are scaled to unit
//! variance per entry. Not `±1`: with these an error `(a, -a)` of any size passes half of the time; here it does so once in 2^16
//! per vector. Bounded away from 0, so an error in a single coordinate can never vanish; sums of several have a density, as with
//! Gaussian rows.
//!
//! The seed must come from the operating system *after* the last shard that it judges was sealed, and never be used twice.
//! A [`Sweep`](super::Sweep) with the same seed uses the first two of these vectors.

use super::kernels::{Factors, Kernels, Key, TILE, VECTOR};

/// The most projections of a shard.
pub const PROJECTIONS_MAX: usize = 8;

/// `sqrt(3 / 7)`: entries uniform in `±[1, 2)` have variance 7/3.
pub(super) const UNIT_VARIANCE: f64 = 0.654_653_670_707_977_2;

/// A shard seen through the secret vectors.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Projected {
    /// Inner products with the secret vectors; those from the number of projections on are 0.
    pub values: [f64; PROJECTIONS_MAX],
    /// Euclidean norm of the shard.
    pub norm: f64,
}

/// How `width` columns are cut into tiles: index, first column, and how many. The last columns, where they are no whole vector,
/// are a tile of their own, with secret numbers that no other tile has.
pub(super) fn tiles(width: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let whole = width - width % VECTOR;
    let full = (0..whole).step_by(TILE).map(move |start| (start / TILE, start, TILE.min(whole - start)));
    full.chain((whole < width).then_some((width.div_ceil(TILE), whole, width - whole)))
}

/// Draws secret vectors and projects shards on them, in f64: exactly enough for any verdict. Allocates nothing.
#[derive(Debug)]
pub struct Projector {
    kernels: Kernels,
    key: Key,
    projections: usize,
    max_width: usize,
    width: usize,
}

impl Projector {
    /// For `projections` vectors of at most `max_width` numbers.
    ///
    /// # Panics
    /// If `projections` is not in `1..=PROJECTIONS_MAX`.
    pub fn new(max_width: usize, projections: usize) -> Projector {
        assert!((1..=PROJECTIONS_MAX).contains(&projections), "1 to {PROJECTIONS_MAX} projections, not {projections}");
        Projector { kernels: Kernels::best(), key: Key::new(&[0; 32]), projections, max_width, width: 0 }
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
        assert!(width <= self.max_width, "a shard of {width} numbers; at most {} were promised", self.max_width);
        self.width = width;
        self.key = Key::new(seed);
    }

    /// Projects `shard`; None if any entry is NaN or infinite.
    ///
    /// Reads the shard once. Sums in f64 in a fixed order, where finite f32 cannot overflow.
    ///
    /// # Panics
    /// If `shard` has another length than was drawn for.
    pub fn project(&self, shard: &[f32]) -> Option<Projected> {
        assert_eq!(shard.len(), self.width, "secret vectors were drawn for another width");
        match self.projections {
            1 => self.run::<1>(shard),
            2 => self.run::<2>(shard),
            3 => self.run::<3>(shard),
            4 => self.run::<4>(shard),
            5 => self.run::<5>(shard),
            6 => self.run::<6>(shard),
            7 => self.run::<7>(shard),
            _ => self.run::<PROJECTIONS_MAX>(shard),
        }
    }

    fn run<const K: usize>(&self, shard: &[f32]) -> Option<Projected> {
        let mut factors = [const { Factors::zeros() }; PROJECTIONS_MAX / 2];
        let (mut sums, mut squares, mut finite) = ([[0f64; 8]; K], [0f64; 8], true);
        for (index, start, numbers) in tiles(shard.len()) {
            for (pair, factors) in factors[..K.div_ceil(2)].iter_mut().enumerate() {
                self.kernels.draw(&self.key, pair as u32, index, numbers.next_multiple_of(VECTOR), factors);
            }
            let rows = std::array::from_fn(|k| &factors[k / 2].0[k % 2][..numbers]);
            let tile = &shard[start..start + numbers];
            self.kernels.project_exactly::<K>(tile, rows, &mut sums, &mut squares, &mut finite);
        }
        let mut out = Projected { norm: squares.iter().sum::<f64>().sqrt(), ..Projected::default() };
        for (value, sums) in out.values.iter_mut().zip(&sums) {
            *value = UNIT_VARIANCE * sums.iter().sum::<f64>();
        }
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
