//! Do all rows of a group agree? One random combination of the rows after the other, which is 0 in every column if they do.
//!
//! With `H` the parity matrix (`H^T G = 0`) and a secret vector `u`, the combination `sum_j (H u)_j z_j` of shards is 0 but for
//! rounding whatever the block is; a lie in any s rows makes it a secret multiple of the lie in every column. It costs K
//! multiplications and additions per number of a shard and nothing else. Who lied does not show: for that rows are projected.
//!
//! The squares of the combinations over all columns, each divided by `|H u|^2`, must not exceed `(relative scale)^2` on average.
//! The scale is the norm of the block, which is about that of a row that mixes all slices; in the dense form the norm of a
//! row, with a margin. A lie of whatever size, which may raise the scale, passes one combination with a probability of about the
//! relative tolerance times a small factor, and both of two with its square: about 1e-12. (Where rounding is coarse that is no
//! small number, nor are all lies of s rows far from code words: there the scale is that of a locator, which a liar cannot raise.)
//! *Full* verification takes every column of `H` instead of random combinations of them: a lie beyond `sqrt(r - r_c)` times the
//! tolerance never passes.
//!
//! With r_c = 1 all shards of a group are the same numbers: their bits are compared. Where they differ the rows do not agree here,
//! and the word is located with its tolerance.

use std::ops::Range;
use std::sync::Arc;

use super::super::kernels::{Kernels, Key, RowSums, TILE, VECTOR, how};
use super::super::{Generator, ROWS_MAX, Rows, SWEEP_PROJECTIONS, Tolerance, Verify};

/// The root mean square of numbers from which on squares of what is within the tolerance are in the range of f32, or do not matter.
const SQUARES_FROM: f64 = 4e-12;

/// How far the rows of a group are from agreeing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Checked {
    /// All rows agree, to within the tolerance.
    pub agrees: bool,
    /// The distance of the rows from agreeing, relative to what is allowed; NaN if a number is not finite.
    pub ratio: f64,
}

/// What was summed up for one group.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    squares: Vec<[f64; 8]>,
    /// Squares of the rows that give the scale.
    own: [f64; 8],
    /// All rows had the same bits.
    equal: bool,
    /// The scale, where it is not taken from these squares.
    scale: Option<f64>,
}

/// Checks groups tile by tile.
#[derive(Debug)]
pub(super) struct Checker {
    redundancy: usize,
    /// Columns of the parity matrix, one after the other.
    parity: Vec<f64>,
    verify: Verify,
    tolerance: Tolerance,
    repeats: bool,
    /// The rows whose squares give the scale, and by how much their sum is divided.
    scaling: Rows,
    divisor: f64,
    /// The combinations, one after the other: `redundancy` factors each.
    factors: Vec<f32>,
    /// Of each combination, `|H u|`.
    sizes: Vec<f64>,
    tallies: Vec<Tally>,
}

impl Checker {
    pub fn new(generator: &Arc<Generator>, groups: usize, verify: Verify, tolerance: Tolerance) -> Checker {
        let (r, c) = (generator.redundancy(), generator.compression());
        let raw = generator.raw_rows();
        let parity = (0..r - c).flat_map(|k| (0..r).map(move |row| generator.parity()[[row, k]])).collect();
        let most = match verify {
            Verify::Full => r - c,
            Verify::Random => SWEEP_PROJECTIONS.min(r - c),
        };
        let tally = Tally { squares: vec![[0.0; 8]; most], own: [0.0; 8], equal: true, scale: None };
        let mut checker = Checker {
            redundancy: r,
            parity,
            verify,
            tolerance,
            repeats: c == 1 && (0..r).all(|row| generator.row(row) == generator.row(0)),
            scaling: if raw.is_empty() { Rows::first(r) } else { raw },
            divisor: if raw.is_empty() { r as f64 / 2.0 } else { 1.0 },
            factors: vec![0.0; most * r],
            sizes: vec![0.0; most],
            tallies: vec![tally; groups],
        };
        if verify == Verify::Full {
            for k in 0..most {
                let mut weights = [0.0; ROWS_MAX];
                weights[k] = 1.0;
                checker.combine(k, &weights);
            }
        }
        checker
    }

    /// Is there anything that a check could see? With r = r_c there is not.
    pub fn can_check(&self) -> bool {
        !self.sizes.is_empty()
    }

    /// Has it any use for secret numbers?
    pub fn draws(&self) -> bool {
        self.verify == Verify::Random && !self.repeats
    }

    /// New secret combinations.
    pub fn draw(&mut self, key: &Key) {
        for k in 0..self.sizes.len() {
            let weights = key.numbers(k as u32);
            self.combine(k, &weights);
        }
    }

    fn combine(&mut self, k: usize, weights: &[f64; ROWS_MAX]) {
        let r = self.redundancy;
        let mut exact = [0.0; ROWS_MAX];
        for (column, weight) in self.parity.chunks_exact(r).zip(weights) {
            exact.iter_mut().zip(column).for_each(|(x, entry)| *x += weight * entry);
        }
        let factors = &mut self.factors[k * r..][..r];
        factors.iter_mut().zip(&exact).for_each(|(factor, x)| *factor = *x as f32);
        // Columns of the parity matrix are orthonormal.
        self.sizes[k] = weights[..self.parity.len() / r].iter().map(|x| x * x).sum::<f64>().sqrt();
    }

    pub fn clear(&mut self, group: usize) {
        let tally = &mut self.tallies[group];
        tally.squares.fill([0.0; 8]);
        (tally.own, tally.equal) = ([0.0; 8], true);
    }

    /// Some columns of a group's `rows`, which are added to `sums` as `how` says.
    pub fn tile(
        &mut self,
        kernels: Kernels,
        group: usize,
        rows: &[&[f32]],
        columns: Range<usize>,
        how: u8,
        sums: &mut RowSums<'_>,
    ) {
        match how {
            how::SET => self.tile_and::<{ how::SET }>(kernels, group, rows, columns, sums),
            how::ADD => self.tile_and::<{ how::ADD }>(kernels, group, rows, columns, sums),
            how::SET_SCALED => self.tile_and::<{ how::SET_SCALED }>(kernels, group, rows, columns, sums),
            how::ADD_SCALED => self.tile_and::<{ how::ADD_SCALED }>(kernels, group, rows, columns, sums),
            _ => self.tile_and::<{ how::NOT }>(kernels, group, rows, columns, sums),
        }
    }

    fn tile_and<const HOW: u8>(
        &mut self,
        kernels: Kernels,
        group: usize,
        rows: &[&[f32]],
        columns: Range<usize>,
        sums: &mut RowSums<'_>,
    ) {
        let Tally { squares, own, equal, .. } = &mut self.tallies[group];
        if self.repeats {
            kernels.compare::<HOW>(rows, columns, own, equal, sums);
            return;
        }
        // The first combinations bring the scale and the sums, too.
        let (mut factors, mut squares) = (self.factors.as_slice(), squares.as_mut_slice());
        let done = some::<HOW>(kernels, rows, columns.clone(), factors, squares, self.scaling, own, sums);
        (factors, squares) = (&factors[done * rows.len()..], &mut squares[done..]);
        while !squares.is_empty() {
            let (columns, none) = (columns.clone(), &mut RowSums::none());
            let done = some::<{ how::NOT }>(kernels, rows, columns, factors, squares, Rows::EMPTY, own, none);
            (factors, squares) = (&factors[done * rows.len()..], &mut squares[done..]);
        }
    }

    /// Has the scale of a group be that of a locator, if liars must not raise it: the norm of the row that s are larger than.
    pub fn look_at_norms(&mut self, group: usize, rows: &[&[f32]]) {
        let Some(liars) = self.tolerance.liars else { return };
        let mut norms = [0.0; ROWS_MAX];
        norms.iter_mut().zip(rows).for_each(|(norm, row)| *norm = row.chunks(TILE).map(squares).sum::<f64>().sqrt());
        let norms = &mut norms[..rows.len()];
        norms.sort_unstable_by(|a, b| b.total_cmp(a));
        self.tallies[group].scale = Some(norms[liars]);
    }

    /// What the tiles of a group of `width` columns said.
    pub fn verdict(&self, group: usize, width: usize, counted: usize) -> Checked {
        let Tally { squares, own, equal, scale } = &self.tallies[group];
        let own = own.iter().sum::<f64>();
        if self.repeats {
            let agrees = *equal && own.is_finite();
            return Checked { agrees, ratio: if agrees { 0.0 } else { f64::NAN } };
        }
        let scale = scale.unwrap_or_else(|| (own / self.divisor * (width as f64 / counted as f64)).sqrt());
        let flushed = (f64::from(f32::MIN_POSITIVE) + self.tolerance.absolute) * (width as f64).sqrt();
        let distances =
            squares.iter().zip(&self.sizes).map(|(squares, size)| squares.iter().sum::<f64>() / (size * size));
        let distance = (distances.sum::<f64>() / squares.len() as f64).sqrt();
        let ratio = distance / (self.tolerance.relative * scale + flushed);
        // NaN does not agree; nor is anything said of numbers so small that a combination's squares may have been flushed.
        let sizeable = scale >= SQUARES_FROM * (width as f64).sqrt();
        Checked { agrees: ratio <= 1.0 && scale.is_finite() && sizeable, ratio }
    }
}

/// The sum of squares; infinite or NaN if they leave the range of f32.
fn squares(tile: &[f32]) -> f64 {
    let mut sums = [0f32; VECTOR];
    let parts = tile.chunks_exact(VECTOR);
    let rest: f32 = parts.remainder().iter().map(|x| x * x).sum();
    parts.for_each(|part| sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x * x));
    sums.iter().map(|sum| f64::from(*sum)).sum::<f64>() + f64::from(rest)
}

/// Makes as many combinations as go side by side; says how many.
#[allow(clippy::too_many_arguments)]
fn some<const HOW: u8>(
    kernels: Kernels,
    rows: &[&[f32]],
    columns: Range<usize>,
    factors: &[f32],
    squares: &mut [[f64; 8]],
    owns: Rows,
    own: &mut [f64; 8],
    sums: &mut RowSums<'_>,
) -> usize {
    macro_rules! side_by_side {
        ($k:literal) => {{
            let squares = squares.first_chunk_mut::<$k>().expect("there are as many");
            kernels.combinations::<$k, HOW>(rows, columns, factors, squares, owns, own, sums);
            $k
        }};
    }
    match squares.len() {
        4.. => side_by_side!(4),
        3 => side_by_side!(3),
        2 => side_by_side!(2),
        _ => side_by_side!(1),
    }
}
