//! Which rows lied in *every* explanation of a word: the rule of blame.
//!
//! A set L of at most s rows explains a word if the rows outside L agree within the tolerance. The true liars are always an
//! explanation, so a row that is in all of them lied, and no honest row ever is in all of them, whatever the liars sent: this
//! is exact, not a threshold. A row that some explanation acquits is a suspect.
//!
//! Explanations are enumerated in depth-first order by Schur complements. With `W = I - Q Q^T` of the rows and `T` the
//! residuals of their fit, removing row l from the fit adds `|T_l|^2 / W_ll` to what is explained and updates
//! `W -= W_l W_l^T / W_ll`, `T -= W_l T_l / W_ll`; a leaf costs a few operations.
//!
//! The same walk, with unit errors of outside rows as T, gives the largest prediction error that liars hidden among the
//! agreeing rows could cause in an outside row: a bound of the set alone, kept, so the common case is one comparison.

use super::linear::{Fit, dot};

/// The most sets that one walk may visit: at (5, 10) with e = 2 there are 26334, which take about 1 ms.
pub(super) const LEAVES_MAX: f64 = 60_000.0;

/// A pivot below this is a dependent row: nothing is concluded from what follows.
const PIVOT_MIN: f64 = 1e-12;

/// Scratch for walks over sets of removed rows.
#[derive(Debug)]
pub(super) struct Walk {
    rows: usize,
    columns: usize,
    count: usize,
    width: usize,
    levels: Vec<Level>,
    chosen: Vec<usize>,
}

#[derive(Debug)]
struct Level {
    w: Vec<f64>,
    t: Vec<f64>,
    gain: Vec<f64>,
}

impl Walk {
    /// Room for words of `rows` rows and `columns` columns, removing up to `depth` rows.
    pub fn new(rows: usize, columns: usize, depth: usize) -> Walk {
        let level = |_| Level { w: vec![0.0; rows * rows], t: vec![0.0; rows * columns], gain: vec![0.0; columns] };
        Walk {
            rows,
            columns,
            count: 0,
            width: 0,
            levels: (0..depth.max(1)).map(level).collect(),
            chosen: Vec::with_capacity(depth),
        }
    }

    /// Starts from the rows of `fit`, with `width` columns of residuals `value(rank, k)`.
    pub fn start(&mut self, fit: &Fit, compression: usize, width: usize, value: impl Fn(usize, usize) -> f64) {
        let n = fit.len();
        assert!(n <= self.rows && width <= self.columns);
        (self.count, self.width) = (n, width);
        let Level { w, t, gain } = &mut self.levels[0];
        for i in 0..n {
            for j in 0..n {
                let inside: f64 = (0..compression).map(|k| fit.q(i, k) * fit.q(j, k)).sum();
                w[i * n + j] = if i == j { 1.0 - inside } else { -inside };
            }
            (0..width).for_each(|k| t[i * width + k] = value(i, k));
        }
        gain.fill(0.0);
    }

    /// Visits every set of exactly `depth` ranks with what it explains of each column (squared): `visit(ranks, gains)`, which
    /// returns false to stop. Where rows are dependent it is called with the ranks so far and infinite gains.
    pub fn run(&mut self, depth: usize, visit: &mut impl FnMut(&[usize], &[f64]) -> bool) {
        self.chosen.clear();
        if depth == 0 {
            visit(&[], &self.levels[0].gain[..self.width]);
        } else {
            self.descend(0, 0, depth, visit);
        }
    }

    fn descend(
        &mut self,
        level: usize,
        start: usize,
        left: usize,
        visit: &mut impl FnMut(&[usize], &[f64]) -> bool,
    ) -> bool {
        let (n, width) = (self.count, self.width);
        for l in start..n + 1 - left {
            let (upper, lower) = self.levels.split_at_mut(level + 1);
            let here = &mut upper[level];
            let pivot = here.w[l * n + l];
            self.chosen.push(l);
            let go_on = if !(pivot > PIVOT_MIN) {
                let mut gains = [0.0; 64];
                gains[..width].fill(f64::INFINITY);
                visit(&self.chosen, &gains[..width])
            } else if left == 1 {
                let mut gains = [0.0; 64];
                let row = &here.t[l * width..][..width];
                for ((gain, before), t) in gains.iter_mut().zip(&here.gain).zip(row) {
                    *gain = before + t * t / pivot;
                }
                visit(&self.chosen, &gains[..width])
            } else {
                let next = &mut lower[0];
                for k in 0..width {
                    let t = here.t[l * width + k];
                    next.gain[k] = here.gain[k] + t * t / pivot;
                }
                for i in l + 1..n {
                    let factor = here.w[i * n + l] / pivot;
                    for j in l + 1..n {
                        next.w[i * n + j] = here.w[i * n + j] - factor * here.w[l * n + j];
                    }
                    for k in 0..width {
                        next.t[i * width + k] = here.t[i * width + k] - factor * here.t[l * width + k];
                    }
                }
                self.descend(level + 1, l + 1, left - 1, visit)
            };
            self.chosen.pop();
            if !go_on {
                return false;
            }
        }
        true
    }
}

/// Largest `|g_j pinv(G_C)|^2` for each outside row `j` of `outside`, over all C that are the rows of `fit` less `hidden` of
/// them: how far liars hidden in the set can move the prediction of an outside row, in units of their effect on the check.
/// Written to `out[j]`; infinite if there are too many sets to visit.
pub(super) fn amplification(
    walk: &mut Walk,
    fit: &Fit,
    hidden: usize,
    outside: &[usize],
    row_of: impl Fn(usize) -> [f64; 64],
    compression: usize,
    out: &mut [f64],
) {
    if choose(fit.len(), hidden) > LEAVES_MAX {
        outside.iter().for_each(|&j| out[j] = f64::INFINITY);
        return;
    }
    let mut whitened = [[0.0; 64]; 64];
    for (column, &j) in outside.iter().enumerate() {
        fit.whiten(&row_of(j)[..compression], &mut whitened[column]);
    }
    let along =
        |rank: usize, column: usize| (0..compression).map(|k| fit.q(rank, k) * whitened[column][k]).sum::<f64>();
    walk.start(fit, compression, outside.len(), along);
    outside.iter().for_each(|&j| out[j] = 0.0);
    walk.run(hidden, &mut |_, gains| {
        for (&j, &gain) in outside.iter().zip(gains) {
            out[j] = out[j].max(gain);
        }
        true
    });
    for (column, &j) in outside.iter().enumerate() {
        out[j] += dot(&whitened[column][..compression], &whitened[column][..compression]);
    }
}

/// Binomial coefficient, as a float: exact while it matters.
pub(super) fn choose(n: usize, k: usize) -> f64 {
    if k > n {
        return 0.0;
    }
    (0..k.min(n - k)).fold(1.0, |product, i| product * (n - i) as f64 / (i + 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{Family, Form, Generator, Rows};

    #[test]
    fn walk_explains_exactly_what_refitting_without_the_rows_explains() {
        let generator = Generator::new(Family::Trigonometric, Form::Systematic, 9, 4).unwrap();
        let (mut fit, mut smaller) = (Fit::new(&generator), Fit::new(&generator));
        let all = Rows::first(9);
        let y: Vec<f64> = (0..9).map(|i| ((i * 37 % 11) as f64).sin()).collect();
        let residual = |fit: &Fit| {
            let mut word = [0.0; 4];
            fit.solve(1, |row, _| y[row], &mut word);
            let row = |row: usize| y[row] - dot(generator.row_f64(row), &word);
            (0..9).map(row).collect::<Vec<_>>()
        };
        fit.compute(&generator, all);
        let whole = residual(&fit);
        let mut walk = Walk::new(9, 9, 3);
        for depth in 0..=3 {
            walk.start(&fit, 4, 1, |rank, _| whole[rank]);
            let mut visited = 0;
            walk.run(depth, &mut |ranks, gains| {
                visited += 1;
                let left = all.without(ranks.iter().copied().collect());
                smaller.compute(&generator, left);
                let rows = residual(&smaller);
                let want: f64 = left.iter().map(|row| rows[row] * rows[row]).sum();
                let got = dot(&whole, &whole) - gains[0];
                assert!((want - got).abs() < 1e-9, "{ranks:?}: {want} {got}");
                true
            });
            assert_eq!(visited as f64, choose(9, depth));
        }
    }

    #[test]
    fn amplification_is_the_worst_prediction_over_all_subsets() {
        let generator = Generator::new(Family::Trigonometric, Form::Dense, 8, 4).unwrap();
        let set: Rows = [0, 1, 2, 4, 6, 7].into_iter().collect();
        let mut fit = Fit::new(&generator);
        fit.compute(&generator, set);
        let row_of = |row: usize| {
            let mut out = [0.0; 64];
            out[..4].copy_from_slice(generator.row_f64(row));
            out
        };
        let mut out = [0.0; 8];
        amplification(&mut Walk::new(8, 8, 2), &fit, 2, &[3, 5], row_of, 4, &mut out);
        let mut worst = [0f64; 8];
        let mut smaller = Fit::new(&generator);
        for bits in 0..256u64 {
            let subset = Rows::from_bits(bits);
            if subset.count() == 4 && subset.is_subset(set) {
                smaller.compute(&generator, subset);
                for j in [3, 5] {
                    let mut g = [0.0; 4];
                    smaller.whiten(generator.row_f64(j), &mut g);
                    worst[j] = worst[j].max(dot(&g, &g));
                }
            }
        }
        for j in [3, 5] {
            assert!((out[j] / worst[j] - 1.0).abs() < 1e-9, "{j}: {} {}", out[j], worst[j]);
        }
    }
}
