//! The paper's own locator, for comparison: Berlekamp-Welch on all projections at once.
//!
//! Both families are evaluations of a polynomial of degree below `r_c` at distinct points, up to a known factor per row:
//! `y_j phi_j = p(z_j)`, with real `z_j` and `phi_j = 1` for the polynomial family; `z_j = exp(i t_j)` and
//! `phi_j = exp(i t_j (r_c - 1) / 2)` for the trigonometric one. With E the polynomial of degree s that vanishes at the liars,
//! `E(z_j) y_j phi_j = Q(z_j)` has degree below `r_c + s`, for every projection with the same E. Q is eliminated by projecting on
//! what is orthogonal to such polynomials; E is the singular vector of the smallest singular value of what is left, and the liars
//! are the rows where `|E|` is smallest. All complex numbers are kept as pairs of reals.
//!
//! It always answers; whether the answer is right is for a tolerance to say, as in [`reference::fit`](super::reference::fit). It
//! allocates, and is not for the data path.

use super::linear::{dot, most_shrunk};
use super::{Family, Generator, Parameters, Projected, Rows};

/// The locator of the paper.
#[derive(Debug)]
pub struct BerlekampWelch<'a> {
    generator: &'a Generator,
    parameters: Parameters,
}

type Complex = (f64, f64);

fn times(a: Complex, b: Complex) -> Complex {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

impl<'a> BerlekampWelch<'a> {
    /// A locator for `generator` in a job of `parameters`.
    pub fn new(parameters: Parameters, generator: &'a Generator) -> BerlekampWelch<'a> {
        BerlekampWelch { generator, parameters }
    }

    /// The present rows that it takes for honest: all but the s at which the error locator is smallest. None if fewer than
    /// `r_c + 2 s` are present.
    pub fn honest(&self, present: Rows, projected: &[Projected], projections: usize) -> Option<Rows> {
        let (c, s) = (self.generator.compression(), self.parameters.adversaries());
        let order: Vec<usize> = present.iter().collect();
        let n = order.len();
        if n < c + 2 * s {
            return None;
        }
        if s == 0 {
            return Some(present);
        }
        let (z, phi): (Vec<Complex>, Vec<Complex>) = order.iter().map(|&row| self.point(row)).unzip();
        // Orthonormal basis, as real vectors of length 2n, of i-multiples too, of the polynomials of degree below r_c + s.
        let mut basis: Vec<Vec<f64>> = Vec::new();
        let mut power: Vec<Complex> = vec![(1.0, 0.0); n];
        for _ in 0..c + s {
            for turn in [(1.0, 0.0), (0.0, 1.0)] {
                let turned = power.iter().flat_map(|&x| <[f64; 2]>::from(times(x, turn))).collect();
                remove(&basis, turned).into_iter().for_each(|unit| basis.push(unit));
            }
            power.iter_mut().zip(&z).for_each(|(x, &z)| *x = times(*x, z));
        }
        // Columns: z^m y phi for every projection, without their polynomial part; twice, for the real and imaginary coefficient.
        let scale = order.iter().map(|&row| projected[row].norm).fold(f64::MIN_POSITIVE, f64::max);
        let mut columns: Vec<Vec<f64>> = Vec::new();
        for m in 0..=s {
            for turn in [(1.0, 0.0), (0.0, 1.0)] {
                let mut column = Vec::with_capacity(2 * n * projections);
                for k in 0..projections {
                    let entry = |j: usize| {
                        let power = (0..m).fold(turn, |x, _| times(x, z[j]));
                        let y = projected[order[j]].values[k] / scale;
                        <[f64; 2]>::from(times(times(power, phi[j]), (y, 0.0)))
                    };
                    let mut part: Vec<f64> = (0..n).flat_map(entry).collect();
                    strip(&basis, &mut part);
                    column.extend(part);
                }
                columns.push(column);
            }
        }
        let e = most_shrunk(&mut columns);
        let size = |j: usize| {
            let mut power = (1.0, 0.0);
            let mut sum = (0.0, 0.0);
            for m in 0..=s {
                let term = times(power, (e[2 * m], e[2 * m + 1]));
                sum = (sum.0 + term.0, sum.1 + term.1);
                power = times(power, z[j]);
            }
            sum.0 * sum.0 + sum.1 * sum.1
        };
        let mut ranks: Vec<usize> = (0..n).collect();
        ranks.sort_by(|&a, &b| size(a).total_cmp(&size(b)));
        Some(ranks[s..].iter().map(|&rank| order[rank]).collect())
    }

    /// `(z_j, phi_j)` of a row.
    fn point(&self, row: usize) -> (Complex, Complex) {
        let r = self.generator.redundancy() as f64;
        match self.generator.family() {
            Family::Polynomial => (((row + 1) as f64 / r, 0.0), (1.0, 0.0)),
            Family::Trigonometric => {
                let t = std::f64::consts::TAU * row as f64 / r;
                let half = t * (self.generator.compression() - 1) as f64 / 2.0;
                ((t.cos(), t.sin()), (half.cos(), half.sin()))
            }
        }
    }
}

/// `vector` made orthogonal to `basis` and normalised; None if it was dependent.
fn remove(basis: &[Vec<f64>], mut vector: Vec<f64>) -> Option<Vec<f64>> {
    let before = dot(&vector, &vector).sqrt();
    strip(basis, &mut vector);
    let norm = dot(&vector, &vector).sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    (norm > 1e-13 * before).then_some(vector)
}

fn strip(basis: &[Vec<f64>], vector: &mut [f64]) {
    for _pass in 0..2 {
        for unit in basis {
            let along = dot(unit, vector);
            vector.iter_mut().zip(unit).for_each(|(x, u)| *x -= along * u);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{Form, PROJECTIONS_MAX};

    /// In how many of 20 words the liars are exactly the rows left out.
    fn found(family: Family, form: Form, s: usize, c: usize, projections: usize, error: f64) -> usize {
        let parameters = Parameters::new(1, s, 0, c).unwrap();
        let r = parameters.redundancy();
        let generator = Generator::new(family, form, r, c).unwrap();
        let mut x = 12345u64;
        let mut uniform = || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        let mut right = 0;
        for trial in 0..20 {
            let word: Vec<f64> = (0..c * projections).map(|_| uniform()).collect();
            let liars: Rows = (0..s).map(|i| (trial + i * (1 + trial % 2)) % r).collect();
            let mut projected = vec![Projected::default(); r];
            for (row, p) in projected.iter_mut().enumerate() {
                p.norm = 1.0;
                for k in 0..projections.min(PROJECTIONS_MAX) {
                    p.values[k] = (0..c).map(|i| generator.row_f64(row)[i] * word[i * projections + k]).sum();
                    if liars.contains(row) {
                        p.values[k] += error * uniform();
                    }
                }
            }
            let honest = BerlekampWelch::new(parameters, &generator).honest(Rows::first(r), &projected, projections);
            right += usize::from(honest == Some(Rows::first(r).without(liars)));
        }
        right
    }

    #[test]
    fn both_families_are_decoded_at_small_sizes() {
        for form in [Form::Systematic, Form::Dense] {
            for (s, c) in [(1, 1), (1, 2), (2, 4), (3, 4)] {
                assert_eq!(found(Family::Trigonometric, form, s, c, 4, 1.0), 20, "{form:?} ({s}, {c})");
            }
            assert_eq!(found(Family::Polynomial, form, 1, 2, 4, 1.0), 20);
        }
    }

    #[test]
    fn stacked_projections_find_more_than_one_alone() {
        let one = found(Family::Trigonometric, Form::Dense, 5, 10, 1, 1.0);
        let four = found(Family::Trigonometric, Form::Dense, 5, 10, 4, 1.0);
        println!("(5, 10), relative error 1: one projection {one} of 20, four {four} of 20");
        assert!(four >= one && four == 20);
    }
}
