//! How well a generator is conditioned: by how much recovery can enlarge rounding.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::explain::choose;
use super::linear::singular_range;
use super::{Generator, Parameters, Rows};

/// More subsets than this are sampled instead of enumerated.
const SUBSETS_MAX: f64 = 20_000.0;

/// Condition numbers (largest over smallest singular value) of subsets of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// The worst over sets of `r - s - e` rows: all honest ones, when s lie and e are absent.
    pub worst_rows: f64,
    /// The worst over sets of `r_c` rows: the least that fixes a word; liars hide in such sets.
    pub worst_information_set: f64,
    /// Every subset was looked at; else a sample of 20000 from a fixed seed, with all runs of neighbouring rows.
    pub exhaustive: bool,
}

/// Measures `generator` in a job of `parameters`. Takes up to seconds at the largest sizes; for reports, not for the data path.
///
/// # Panics
/// If generator and parameters are of different sizes.
pub fn condition(generator: &Generator, parameters: &Parameters) -> Condition {
    let (r, c) = (generator.redundancy(), generator.compression());
    assert_eq!((parameters.redundancy(), parameters.compression()), (r, c), "the generator is of another code");
    let honest = parameters.agreement();
    let (worst_rows, all) = worst(generator, honest);
    let (worst_information_set, all_sets) = worst(generator, c);
    Condition { worst_rows, worst_information_set, exhaustive: all && all_sets }
}

fn worst(generator: &Generator, size: usize) -> (f64, bool) {
    let (r, c) = (generator.redundancy(), generator.compression());
    let mut worst = 0f64;
    let mut look = |rows: Rows| {
        let column = |k: usize| rows.iter().map(|row| generator.row_f64(row)[k]).collect::<Vec<_>>();
        let (low, high) = singular_range(&mut (0..c).map(column).collect::<Vec<_>>());
        worst = worst.max(high / low);
    };
    if choose(r, size) <= SUBSETS_MAX {
        let mut subset: Vec<usize> = (0..size).collect();
        loop {
            look(subset.iter().copied().collect());
            let Some(i) = (0..size).rev().find(|&i| subset[i] < r - size + i) else {
                return (worst, true);
            };
            let next = subset[i] + 1;
            (i..size).for_each(|k| subset[k] = next + k - i);
        }
    }
    // Runs of neighbours are the worst sets of the trigonometric code wherever they could be enumerated.
    (0..r).for_each(|start| look((0..size).map(|k| (start + k) % r).collect()));
    let mut stream = ChaCha8Rng::from_seed([0x5e; 32]);
    for _ in 0..SUBSETS_MAX as usize {
        let mut rows = Rows::EMPTY;
        while rows.count() < size {
            rows.insert(stream.next_u32() as usize % r);
        }
        look(rows);
    }
    (worst, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{Family, Form};

    fn measured(family: Family, form: Form, s: usize, c: usize) -> Condition {
        let parameters = Parameters::new(1, s, 0, c).unwrap();
        condition(&Generator::new(family, form, parameters.redundancy(), c).unwrap(), &parameters)
    }

    #[test]
    fn trigonometric_codes_have_the_condition_of_the_design() {
        for (s, c, want) in [(1, 4, 1.7), (2, 4, 2.4), (3, 9, 8.4), (5, 10, 24.0)] {
            let got = measured(Family::Trigonometric, Form::Dense, s, c);
            assert!((got.worst_rows / want - 1.0).abs() < 0.05, "({s}, {c}): {got:?}");
        }
    }

    #[test]
    fn repetition_is_perfectly_conditioned_and_polynomials_are_hopeless() {
        assert!((measured(Family::Trigonometric, Form::Systematic, 3, 1).worst_information_set - 1.0).abs() < 1e-12);
        assert!(measured(Family::Polynomial, Form::Dense, 5, 10).worst_rows > 1e7);
    }
}
