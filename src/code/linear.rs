//! The small dense algebra of the code: least squares on a set of rows, inverses, singular values.
//!
//! Everything is f64, at most 64 x 64, in plain loops of fixed order: the same bits on every machine (no fused
//! multiply-add, no library kernel chosen by the processor), and no allocation after construction.

use super::{Generator, Rows};

/// Least squares on a set of rows of a generator: `G_A = Q R`, `pinv(G_A) = R^-1 Q^T`.
///
/// Modified Gram-Schmidt, done twice, which is as orthogonal as Householder's for every matrix met here.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    /// The rows A that it is for; [`Rows::EMPTY`] before the first [`Fit::compute`].
    pub rows: Rows,
    /// The same rows, in rising order; entry `rank` is a row.
    pub order: Vec<usize>,
    compression: usize,
    /// Column k of Q is `q[k * n..][..n]`, n = |A|.
    q: Vec<f64>,
    /// R^-1, `compression x compression`, row-major, upper triangular.
    back: Vec<f64>,
}

impl Fit {
    /// Room for any set of rows of `generator`.
    pub fn new(generator: &Generator) -> Fit {
        let (r, c) = (generator.redundancy(), generator.compression());
        Fit {
            rows: Rows::EMPTY,
            order: Vec::with_capacity(r),
            compression: c,
            q: vec![0.0; r * c],
            back: vec![0.0; c * c],
        }
    }

    /// Computes the fit on `rows`, at least `compression` of them. A singular set gives numbers that are not finite, which no
    /// test of the form `!(residual <= tolerance)` lets through.
    pub fn compute(&mut self, generator: &Generator, rows: Rows) {
        let c = self.compression;
        self.rows = rows;
        self.order.clear();
        self.order.extend(rows.iter());
        let n = self.order.len();
        assert!(n >= c, "{n} rows do not fix a word of {c}");
        self.back.fill(0.0);
        for k in 0..c {
            for (rank, &row) in self.order.iter().enumerate() {
                self.q[k * n + rank] = generator.row_f64(row)[k];
            }
        }
        // `back` holds R until it is inverted in place below.
        for k in 0..c {
            let (done, rest) = self.q.split_at_mut(k * n);
            let column = &mut rest[..n];
            for _pass in 0..2 {
                for j in 0..k {
                    let unit = &done[j * n..][..n];
                    let along = dot(unit, column);
                    self.back[j * c + k] += along;
                    column.iter_mut().zip(unit).for_each(|(x, u)| *x -= along * u);
                }
            }
            let norm = dot(column, column).sqrt();
            self.back[k * c + k] = norm;
            column.iter_mut().for_each(|x| *x /= norm);
        }
        invert_upper(c, &mut self.back);
    }

    /// How many rows it fits, n.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Columns of the generator, r_c.
    pub fn compression(&self) -> usize {
        self.compression
    }

    /// Entry `(rank, k)` of Q.
    pub fn q(&self, rank: usize, k: usize) -> f64 {
        self.q[k * self.len() + rank]
    }

    /// Row `i` of the pseudo-inverse into `out`, one number per rank.
    pub fn pinv_row(&self, i: usize, out: &mut [f64]) {
        let (n, c) = (self.len(), self.compression);
        out[..n].fill(0.0);
        for k in i..c {
            let factor = self.back[i * c + k];
            out[..n].iter_mut().zip(&self.q[k * n..][..n]).for_each(|(x, q)| *x += factor * q);
        }
    }

    /// `g R^-1`: the coordinates of a row of the generator in which `G_A^T G_A` is the identity.
    pub fn whiten(&self, g: &[f64], out: &mut [f64]) {
        let c = self.compression;
        for (k, x) in out[..c].iter_mut().enumerate() {
            *x = (0..=k).map(|i| g[i] * self.back[i * c + k]).sum();
        }
    }

    /// The word that fits best: `word[i * width + k] = (pinv(G_A) Y)_ik` with Y given by `value(row, k)`.
    pub fn solve(&self, width: usize, value: impl Fn(usize, usize) -> f64, word: &mut [f64]) {
        let (n, c) = (self.len(), self.compression);
        for k in 0..width {
            for j in 0..c {
                let column = &self.q[j * n..][..n];
                word[j * width + k] = column.iter().zip(&self.order).map(|(q, &row)| q * value(row, k)).sum();
            }
            for i in 0..c {
                word[i * width + k] = (i..c).map(|j| self.back[i * c + j] * word[j * width + k]).sum();
            }
        }
    }
}

/// Pseudo-inverse fits of the sets of rows met last, least recently used first out.
#[derive(Debug)]
pub(super) struct Fits {
    entries: Vec<(Fit, u64)>,
    clock: u64,
}

impl Fits {
    /// Room for `bound` sets, all allocated now.
    pub fn new(generator: &Generator, bound: usize) -> Fits {
        Fits { entries: (0..bound).map(|_| (Fit::new(generator), 0)).collect(), clock: 0 }
    }

    /// The fit on `rows`, computed if it is not among those kept.
    pub fn get(&mut self, generator: &Generator, rows: Rows) -> &Fit {
        self.clock += 1;
        let found = self.entries.iter().position(|(fit, _)| fit.rows == rows);
        let index = found.unwrap_or_else(|| {
            let oldest = (0..self.entries.len()).min_by_key(|&i| self.entries[i].1).expect("at least one entry");
            self.entries[oldest].0.compute(generator, rows);
            oldest
        });
        self.entries[index].1 = self.clock;
        &self.entries[index].0
    }
}

/// Inner product, summed from the left.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Inverts an upper triangular row-major `n x n` matrix in place.
fn invert_upper(n: usize, a: &mut [f64]) {
    for i in (0..n).rev() {
        let diagonal = 1.0 / a[i * n + i];
        a[i * n + i] = diagonal;
        // Column by column from the right, so that the entries of R still needed to the left are intact.
        for k in (i + 1..n).rev() {
            let sum: f64 = (i + 1..=k).map(|j| a[i * n + j] * a[j * n + k]).sum();
            a[i * n + k] = -diagonal * sum;
        }
    }
}

/// Inverts a row-major `n x n` matrix by Gauss-Jordan elimination with row pivots; `a` is consumed. False if it is singular.
pub(super) fn invert(n: usize, a: &mut [f64], inverse: &mut [f64]) -> bool {
    inverse[..n * n].fill(0.0);
    (0..n).for_each(|i| inverse[i * n + i] = 1.0);
    for column in 0..n {
        let size = |row: usize| a[row * n + column].abs();
        let pivot = (column..n).fold(column, |best, row| if size(row) > size(best) { row } else { best });
        let value = a[pivot * n + column];
        if !(value != 0.0 && value.is_finite()) {
            return false;
        }
        if pivot != column {
            for k in 0..n {
                a.swap(pivot * n + k, column * n + k);
                inverse.swap(pivot * n + k, column * n + k);
            }
        }
        for k in 0..n {
            a[column * n + k] /= value;
            inverse[column * n + k] /= value;
        }
        for row in (0..n).filter(|&row| row != column) {
            let factor = a[row * n + column];
            if factor != 0.0 {
                for k in 0..n {
                    a[row * n + k] -= factor * a[column * n + k];
                    inverse[row * n + k] -= factor * inverse[column * n + k];
                }
            }
        }
    }
    true
}

/// Smallest and largest singular value of a matrix given by its `columns` (each of the same length), by one-sided Jacobi
/// rotations, which find small singular values to full relative accuracy.
pub(super) fn singular_range(columns: &mut [Vec<f64>]) -> (f64, f64) {
    rotate(columns, |_, _, _, _| ());
    let norms = columns.iter().map(|column| dot(column, column).sqrt());
    norms.fold((f64::INFINITY, 0.0), |(low, high), norm| (low.min(norm), high.max(norm)))
}

/// The unit vector that the matrix with these `columns` shrinks most.
pub(super) fn most_shrunk(columns: &mut [Vec<f64>]) -> Vec<f64> {
    let n = columns.len();
    // Column j of the accumulated rotations.
    let mut turned: Vec<Vec<f64>> = (0..n).map(|j| (0..n).map(|i| f64::from(u8::from(i == j))).collect()).collect();
    rotate(columns, |p, q, cosine, sine| {
        let (left, right) = turned.split_at_mut(q);
        turn(&mut left[p], &mut right[0], cosine, sine);
    });
    let norm = |j: usize| dot(&columns[j], &columns[j]);
    let smallest = (0..n).fold(0, |best, j| if norm(j) < norm(best) { j } else { best });
    turned.swap_remove(smallest)
}

/// Turns pairs of columns until all are orthogonal, reporting `(p, q, cosine, sine)` of every rotation.
fn rotate(columns: &mut [Vec<f64>], mut rotated: impl FnMut(usize, usize, f64, f64)) {
    for _sweep in 0..60 {
        let mut done = true;
        for p in 0..columns.len() {
            for q in p + 1..columns.len() {
                let (left, right) = columns.split_at_mut(q);
                let (a, b) = (&mut left[p], &mut right[0]);
                let (aa, bb, ab) = (dot(a, a), dot(b, b), dot(a, b));
                if ab.abs() <= 1e-15 * (aa * bb).sqrt() {
                    continue;
                }
                done = false;
                let zeta = (bb - aa) / (2.0 * ab);
                let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let cosine = 1.0 / (1.0 + t * t).sqrt();
                turn(a, b, cosine, cosine * t);
                rotated(p, q, cosine, cosine * t);
            }
        }
        if done {
            return;
        }
    }
}

fn turn(a: &mut [f64], b: &mut [f64], cosine: f64, sine: f64) {
    for (x, y) in a.iter_mut().zip(b) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{Family, Form};

    #[test]
    fn pseudo_inverse_of_any_large_enough_set_is_a_left_inverse() {
        let generator = Generator::new(Family::Trigonometric, Form::Systematic, 7, 3).unwrap();
        let mut fit = Fit::new(&generator);
        for bits in 0u64..128 {
            let rows = Rows::from_bits(bits);
            if rows.count() < 3 {
                continue;
            }
            fit.compute(&generator, rows);
            let mut row = [0.0; 7];
            for i in 0..3 {
                fit.pinv_row(i, &mut row);
                for k in 0..3 {
                    let product: f64 = rows.iter().zip(&row).map(|(j, x)| x * generator.row_f64(j)[k]).sum();
                    assert!((product - f64::from(i == k)).abs() < 1e-13, "{rows:?} {i} {k}: {product}");
                }
            }
        }
    }

    #[test]
    fn inverse_needs_row_pivots_and_refuses_a_singular_matrix() {
        let mut inverse = [0.0; 4];
        assert!(invert(2, &mut [0.0, 2.0, 4.0, 0.0], &mut inverse));
        assert_eq!(inverse, [0.0, 0.25, 0.5, 0.0]);
        assert!(!invert(2, &mut [1.0, 2.0, 2.0, 4.0], &mut inverse));
    }

    #[test]
    fn singular_values_of_a_scaled_rotation_are_its_scales() {
        let (c, s) = (0.6, 0.8);
        let (low, high) = singular_range(&mut [vec![3.0 * c, 1e-9 * s], vec![-3.0 * s, 1e-9 * c]]);
        assert!((high - 3.0).abs() < 1e-12 && (low / 1e-9 - 1.0).abs() < 1e-9, "{low} {high}");
    }
}
