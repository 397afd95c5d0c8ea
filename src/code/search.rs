//! Information-set decoding: guess `r_c` rows that are honest, and see who agrees with them.
//!
//! A guess R fixes a code word; every other row i agrees with it if `|y_i - c_i Y_R| <= tau sqrt(1 + |c_i|^2)`, with
//! `c_i = g_i G_R^-1`: exactly the distance of the rows R and i from the code. Distances only grow with the set, so a guess
//! inside an agreeing set B finds all of B, however badly conditioned R is. Expected guesses: `C(n, r_c) / C(|B|, r_c)`;
//! the bound is where missing B has probability 1e-12, or all sets if these are fewer. Guesses come from a secret stream.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::explain::choose;
use super::linear::invert;
use super::{Generator, Parameters, Projected, Rows};

/// `-ln(1e-12)`.
const LOG_MISS: f64 = 27.64;

/// The most guesses, whatever the bound says: 12 times what (17, 11) needs.
const GUESSES_MAX: f64 = 150_000.0;

/// Are liars found in every word of such a code, whoever they are? The search is bounded; where this is false, a word with s liars
/// that pruning does not resolve may be reported as undecodable (never wrong) although it could be decoded.
pub fn locates_surely(parameters: &Parameters) -> bool {
    let (present, least) = (Rows::first(parameters.redundancy()), parameters.agreement());
    Wanted { present, least, size: least, tolerance: 0.0 }.is_sure(parameters.compression())
}

/// The stream of guesses, with its scratch.
#[derive(Debug)]
pub(super) struct Search {
    stream: ChaCha8Rng,
    order: Vec<usize>,
    basis: Vec<usize>,
    square: Vec<f64>,
    inverse: Vec<f64>,
    combination: Vec<f64>,
}

/// What is searched for.
pub(super) struct Wanted {
    /// The rows that came.
    pub present: Rows,
    /// Sets smaller than this are not reported.
    pub least: usize,
    /// The size of the set that must not be missed.
    pub size: usize,
    /// Distance from the code within which rows agree.
    pub tolerance: f64,
}

impl Wanted {
    /// Guesses after which a set of `size` rows was missed with probability 1e-12.
    fn guesses(&self, compression: usize) -> f64 {
        let n = self.present.count();
        (LOG_MISS * choose(n, compression) / choose(self.size.min(n), compression)).ceil()
    }

    /// Is the bound on guesses large enough for that probability?
    pub fn is_sure(&self, compression: usize) -> bool {
        let needed = self.guesses(compression).min(choose(self.present.count(), compression));
        needed <= GUESSES_MAX
    }
}

impl Search {
    /// A search over the rows of `generator`, guessing from `seed`.
    pub fn new(generator: &Generator, seed: [u8; 32]) -> Search {
        let (r, c) = (generator.redundancy(), generator.compression());
        Search {
            stream: ChaCha8Rng::from_seed(seed),
            order: Vec::with_capacity(r),
            basis: vec![0; c],
            square: vec![0.0; c * c],
            inverse: vec![0.0; c * c],
            combination: vec![0.0; c],
        }
    }

    /// Reports every set of at least `wanted.least` rows that agree with a guess, until `found` returns false. Returns the
    /// size of the largest set seen, of which those below `least` are lower bounds.
    pub fn run(
        &mut self,
        generator: &Generator,
        wanted: &Wanted,
        projected: &[Projected],
        projections: usize,
        mut found: impl FnMut(Rows) -> bool,
    ) -> usize {
        let (n, c) = (wanted.present.count(), generator.compression());
        self.order.clear();
        self.order.extend(wanted.present.iter());
        let all = choose(n, c);
        let bound = wanted.guesses(c).min(GUESSES_MAX);
        let exhaustive = all <= bound;
        (0..c).for_each(|i| self.basis[i] = i);
        let mut best = 0;
        for _ in 0..if exhaustive { all } else { bound } as usize {
            if !exhaustive {
                self.guess(n);
            }
            let agreeing = self.agreeing(generator, wanted, projected, projections);
            best = best.max(agreeing.count());
            if agreeing.count() >= wanted.least && !found(agreeing) {
                break;
            }
            if exhaustive {
                self.advance(n);
            }
        }
        best
    }

    /// The rows that agree with the word through the basis; stops counting when there cannot be enough.
    fn agreeing(
        &mut self,
        generator: &Generator,
        wanted: &Wanted,
        projected: &[Projected],
        projections: usize,
    ) -> Rows {
        let c = generator.compression();
        let Search { order, basis, square, inverse, combination, .. } = self;
        for (i, &index) in basis.iter().enumerate() {
            square[i * c..][..c].copy_from_slice(generator.row_f64(order[index]));
        }
        let mut agreeing: Rows = basis.iter().map(|&index| order[index]).collect();
        if !invert(c, square, inverse) {
            return Rows::EMPTY;
        }
        let mut spare = order.len() - wanted.least.min(order.len());
        for row in wanted.present.without(agreeing).iter() {
            let g = generator.row_f64(row);
            for (k, x) in combination.iter_mut().enumerate() {
                *x = (0..c).map(|i| g[i] * inverse[i * c + k]).sum();
            }
            let amplified: f64 = 1.0 + combination.iter().map(|x| x * x).sum::<f64>();
            let mut distance = 0.0;
            for k in 0..projections {
                let terms = combination.iter().zip(basis.iter());
                let predicted: f64 = terms.map(|(x, &index)| x * projected[order[index]].values[k]).sum();
                let error = projected[row].values[k] - predicted;
                distance += error * error;
            }
            if distance <= wanted.tolerance * wanted.tolerance * amplified {
                agreeing.insert(row);
            } else if spare == 0 {
                return agreeing;
            } else {
                spare -= 1;
            }
        }
        agreeing
    }

    /// A random basis: the first entries of a shuffle of the rows.
    fn guess(&mut self, n: usize) {
        for i in 0..self.basis.len() {
            let span = (n - i) as u64;
            let pick = i + ((u64::from(self.stream.next_u32()) * span) >> 32) as usize;
            self.order.swap(i, pick);
            self.basis[i] = i;
        }
    }

    /// The next basis in lexicographic order; the first again after the last.
    fn advance(&mut self, n: usize) {
        let c = self.basis.len();
        match (0..c).rev().find(|&i| self.basis[i] < n - c + i) {
            Some(i) => {
                let next = self.basis[i] + 1;
                (i..c).for_each(|k| self.basis[k] = next + k - i);
            }
            None => (0..c).for_each(|k| self.basis[k] = k),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_design_are_located_surely_and_very_large_ones_are_not() {
        for (s, r_c) in [(1, 1), (2, 4), (3, 10), (5, 10), (4, 16), (10, 10), (17, 11)] {
            assert!(locates_surely(&Parameters::new(1, s, 0, r_c).unwrap()), "s = {s}, r_c = {r_c}");
        }
        assert!(!locates_surely(&Parameters::new(1, 10, 0, 24).unwrap()));
    }
}
