//! Draco's cyclic code (arXiv 1803.09877), re-made from the paper: what Solon is compared with. `solon lab` has its workers; it is offered to
//! nobody else, as repetition takes the same computing and a quarter of the bytes.
//!
//! ```text
//! gradients of 2 s + 1 batches ──encode──> one complex number per coordinate ──decode──> the sum over all batches, and who lied
//! ```
//!
//! With `C` the unitary Fourier matrix of `n` workers, worker `j` sends row `j` of `W G`, where `G` has the gradient of a batch per row and
//! `W = C_L Q`. `C_L` are the first `n - 2s` columns of `C`; `Q` begins with a row of ones, and makes `W` zero outside a cyclic band of
//! `2s + 1`. The last `2s` columns of `C` see only the lies: projected on one secret vector they give a syndrome, and a polynomial that
//! annihilates it vanishes at the liars' roots of unity. Any `n - 2s` honest rows then give the sum by one linear combination.
//!
//! The numbers are f64, as in the paper's own program: at `n` = 45, `s` = 5 entries of `W` reach 2e5, and rows that are rounded to f32 give a
//! sum that is off by 1e-3 though nobody lies (`cargo test --lib rounded_to_f32 -- --nocapture`).
//!
//! Beyond the paper: fewer than `s` may lie, by very different amounts; rows may be absent; and a set of liars counts only if it explains
//! the whole syndrome, so that more than `s` are noticed. Decoding allocates a little per chunk, as nothing else in the pipeline does.

use std::collections::BTreeMap;

use num_complex::Complex64;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::kernels::compiled_for_all;

/// Numbers that are combined at a time: in the cache of the first level.
const COLUMNS: usize = 1024;
/// Sets of wrong rows that are remembered: liars are mostly the same from chunk to chunk.
const COMBINATIONS: usize = 64;
const ZERO: Complex64 = Complex64::new(0.0, 0.0);
/// Sums of a projection.
const SUMS: usize = 8;
type Projection = [Complex64; SUMS];
const NOTHING: Projection = [ZERO; SUMS];
/// More than rounding leaves in a syndrome, relative to the largest row: what is below it is no lie.
const NOISE: f64 = 5e-14;
/// Rows that explain a syndrome but for this part are wrong, though they are not all that are.
const MOST: f64 = 1e-5;
/// No honest row is as large: gradients are f32, and weights below [`WEIGHT_MAX`] where a job is served.
const ROW_MAX: f64 = 1e100;
const ROW_MIN: f64 = 1e-100;
/// The largest weight with which decoding is exact: beyond it colluding neighbours could hide more than 1e-5 of a sum in the noise.
pub const WEIGHT_MAX: f64 = 2e5;

/// `e^(-2 pi i power / n)`.
fn root(n: usize, power: usize) -> Complex64 {
    Complex64::from_polar(1.0, -std::f64::consts::TAU * (power % n) as f64 / n as f64)
}

/// Entry of the unitary Fourier matrix.
fn fourier(n: usize, row: usize, column: usize) -> Complex64 {
    root(n, row * column) / (n as f64).sqrt()
}

/// The batches whose gradients a worker combines, in the order of its [`weights`]: `2 s + 1` of `n`.
pub fn batches(n: usize, s: usize, worker: usize) -> impl Iterator<Item = usize> {
    (0..=2 * s).map(move |step| (worker + n - step) % n)
}

/// What a worker multiplies the gradients of its [`batches`] by.
///
/// # Panics
/// If there are fewer than `2 s + 1` workers.
pub fn weights(n: usize, s: usize, worker: usize) -> Vec<Complex64> {
    assert!(n > 2 * s, "the cyclic code against {s} liars needs {} workers; there are {n}", 2 * s + 1);
    let left = n - 2 * s;
    let weight = |batch: usize| {
        // Column `batch` of Q: 1, then what makes the rows outside the band vanish.
        let outside: Vec<usize> = (2 * s + 1..n).map(|step| (batch + step) % n).collect();
        let rows = outside.iter().map(|&row| (1..left).map(|k| fourier(n, row, k)).collect()).collect();
        let q = solve(rows, outside.iter().map(|&row| -fourier(n, row, 0)).collect());
        fourier(n, worker, 0) + q.iter().zip(1..).map(|(q, k)| fourier(n, worker, k) * q).sum::<Complex64>()
    };
    batches(n, s, worker).map(weight).collect()
}

/// The largest of all weights, in absolute value.
///
/// # Panics
/// As [`weights`].
pub fn largest_weight(n: usize, s: usize) -> f64 {
    // Those of other workers are the same but for their phases.
    weights(n, s, 0).iter().map(|weight| weight.norm()).fold(0.0, f64::max)
}

/// What a worker sends: its gradients times its [`weights`].
///
/// # Panics
/// If the gradients are not one per weight, or one is shorter than `out`.
pub fn encode<'a>(weights: &[Complex64], gradients: impl ExactSizeIterator<Item = &'a [f32]>, out: &mut [Complex64]) {
    assert_eq!(gradients.len(), weights.len(), "a gradient per weight");
    out.fill(ZERO);
    let width = out.len();
    for (weight, gradient) in weights.iter().zip(gradients) {
        add(out, *weight, &gradient[..width]);
    }
}

/// Lets a liar change what [`encode`] has made: it sees the real parts as f32, and those that it changes are no longer what they were.
pub fn tampered(shard: &mut [Complex64], tamper: impl FnOnce(&mut [f32])) {
    let before: Vec<f32> = shard.iter().map(|x| x.re as f32).collect();
    let mut numbers = before.clone();
    tamper(&mut numbers);
    for ((x, before), after) in shard.iter_mut().zip(before).zip(numbers) {
        if after.to_bits() != before.to_bits() {
            x.re = f64::from(after);
        }
    }
}

/// Solves `a x = b`, as many equations as unknowns, by elimination with complete pivoting; unknowns that the system does not fix are 0.
fn solve(mut a: Vec<Vec<Complex64>>, mut b: Vec<Complex64>) -> Vec<Complex64> {
    let size = a.len();
    let mut order: Vec<usize> = (0..size).collect();
    let mut rank = 0;
    while rank < size {
        let places = (rank..size).flat_map(|i| (rank..size).map(move |j| (i, j)));
        let best = places.max_by(|x, y| a[x.0][x.1].norm_sqr().total_cmp(&a[y.0][y.1].norm_sqr()));
        let (i, j) = best.expect("a place is left");
        if a[i][j] == ZERO {
            break;
        }
        a.swap(rank, i);
        b.swap(rank, i);
        a.iter_mut().for_each(|row| row.swap(rank, j));
        order.swap(rank, j);
        let (done, below) = a.split_at_mut(rank + 1);
        let pivot = &done[rank][rank..];
        let known = b[rank];
        for (row, b) in below.iter_mut().zip(&mut b[rank + 1..]) {
            let factor = row[rank] / pivot[0];
            row[rank..].iter_mut().zip(pivot).for_each(|(x, above)| *x -= factor * above);
            *b -= factor * known;
        }
        rank += 1;
    }
    let mut x = vec![ZERO; size];
    for row in (0..rank).rev() {
        let known: Complex64 = (row + 1..rank).map(|column| a[row][column] * x[order[column]]).sum();
        x[order[row]] = (b[row] - known) / a[row][row];
    }
    x
}

/// More rows are wrong or absent than the code corrects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {0} rows explain what is wrong")]
pub struct TooMany(pub usize);

/// Decodes what the workers sent, a chunk at a time.
#[derive(Debug)]
pub struct Decoder {
    n: usize,
    s: usize,
    largest_weight: f64,
    /// The one secret vector, as long as the longest chunk.
    secret: Vec<f64>,
    /// The rows that were wrong in the last chunk, in rising order.
    wrong: Vec<usize>,
    /// For sets of wrong rows that there were: the rows that are combined, and their weights.
    combinations: BTreeMap<Vec<usize>, Vec<(usize, Complex64)>>,
}

impl Decoder {
    /// A decoder of `n` workers of which `s` may lie, for chunks of at most `width` numbers.
    ///
    /// # Panics
    /// If there are fewer than `2 s + 1` workers.
    pub fn new(n: usize, s: usize, width: usize, secret: [u8; 32]) -> Decoder {
        assert!(n > 2 * s, "the cyclic code against {s} liars needs {} workers; there are {n}", 2 * s + 1);
        let mut random = ChaCha8Rng::from_seed(secret);
        let unit = |bits: u64| (bits >> 11) as f64 * 2f64.powi(-53);
        let secret = (0..width).map(|_| 1.0 + unit(random.next_u64())).collect();
        Decoder { n, s, largest_weight: largest_weight(n, s), secret, wrong: Vec::new(), combinations: BTreeMap::new() }
    }

    /// The sum of all batches' gradients, times `scale`, from one row per worker, that of an absent one empty; and the rows that are wrong:
    /// the absent and the lies.
    ///
    /// # Errors
    /// If more than `s` rows are wrong; `out` is then as before.
    ///
    /// # Panics
    /// If the rows are not one per worker, one that is there is shorter than `out`, or `out` is longer than was said.
    pub fn decode(&mut self, rows: &[&[Complex64]], scale: f32, out: &mut [f32]) -> Result<&[usize], TooMany> {
        assert_eq!(rows.len(), self.n, "a row per worker");
        let secret = &self.secret[..out.len()];
        let project = |row: &&[Complex64]| if row.is_empty() { NOTHING } else { project(&row[..secret.len()], secret) };
        let mut projected: Vec<Projection> = rows.iter().map(project).collect();
        let mut wrong: Vec<usize> = (0..self.n).filter(|row| rows[*row].is_empty()).collect();
        for (row, sums) in projected.iter_mut().enumerate() {
            let all = |bound: f64| sums.iter().all(|sum| sum.re.abs() < bound && sum.im.abs() < bound);
            let honest = all(ROW_MAX);
            if !honest {
                wrong.push(row);
            }
            // What is too small for squares is 0 in an update of f32.
            if !honest || all(ROW_MIN) {
                *sums = NOTHING;
            }
        }
        wrong.sort_unstable();
        // A large lie hides small ones in its rounding: what is found is taken out, and the rest looked at again.
        while let Some(found) = self.locate(&projected, &wrong)? {
            found.iter().for_each(|row| projected[*row] = NOTHING);
            wrong.extend(found);
            wrong.sort_unstable();
        }
        combine(rows, self.combination(&wrong), f64::from(scale), out);
        self.wrong = wrong;
        Ok(&self.wrong)
    }

    /// Rows that are wrong beside those that are known to be, and are zero in the projections; none if nothing is left to explain. There may be
    /// more of them.
    fn locate(&mut self, projected: &[Projection], wrong: &[usize]) -> Result<Option<Vec<usize>>, TooMany> {
        let Decoder { n, s, largest_weight, .. } = *self;
        let room = s.checked_sub(wrong.len()).ok_or(TooMany(s))?;
        let whole: Vec<Complex64> = projected.iter().map(|sums| sums.iter().sum()).collect();
        let syndrome = |k: usize| (0..n).map(|j| fourier(n, j, n - 2 * s + k).conj() * whole[j]).sum::<Complex64>();
        let syndrome: Vec<Complex64> = (0..2 * s).map(syndrome).collect();
        // Gradients that are alike cancel in every row, but their rounding does not.
        let mut total = NOTHING;
        for (row, weight) in self.combination(wrong) {
            total.iter_mut().zip(&projected[*row]).for_each(|(total, sum)| *total += sum * weight);
        }
        let alike = 2.0 * largest_weight * norm(&total) / n as f64;
        let scale = projected.iter().map(norm).fold(alike, f64::max);
        // Each root that is taken out at most doubles it.
        let noise = |roots: usize| NOISE * scale * 2f64.powi(roots as i32);
        let rest = self.annihilate(&syndrome, wrong);
        let left = largest(&rest);
        if left <= noise(wrong.len()) {
            return Ok(None);
        }
        let rest: Vec<Complex64> = rest.iter().map(|x| x / left).collect();
        let mut best = (MOST, None);
        for count in 1..=room {
            let hankel = (0..count).map(|i| rest[i..i + count].to_vec()).collect();
            let locator = solve(hankel, rest[count..2 * count].to_vec());
            // z^count - sum a_i z^i, at each row's root.
            let value = |row: &usize| {
                let z = root(n, *row).conj();
                let low = locator.iter().rev().fold(ZERO, |sum, a| sum * z + a);
                (z.powu(count as u32) - low).norm()
            };
            let mut found: Vec<usize> = (0..n).filter(|row| !wrong.contains(row)).collect();
            found.sort_by(|a, b| value(a).total_cmp(&value(b)));
            found.truncate(count);
            let unexplained = largest(&self.annihilate(&rest, &found));
            if unexplained * left <= noise(wrong.len() + count) {
                return Ok(Some(found));
            }
            if unexplained < best.0 {
                best = (unexplained, Some(found));
            }
        }
        best.1.map(Some).ok_or(TooMany(s))
    }

    /// What is left of a syndrome without these rows: the polynomial with their roots annihilates their part.
    fn annihilate(&self, syndrome: &[Complex64], rows: &[usize]) -> Vec<Complex64> {
        let mut rest = syndrome.to_vec();
        for row in rows {
            let z = root(self.n, *row).conj();
            rest = rest.windows(2).map(|pair| pair[1] - z * pair[0]).collect();
        }
        rest
    }

    /// The combination of honest rows that gives the sum.
    fn combination(&mut self, wrong: &[usize]) -> &[(usize, Complex64)] {
        let Decoder { n, s, .. } = *self;
        if self.combinations.len() > COMBINATIONS {
            self.combinations.clear();
        }
        self.combinations.entry(wrong.to_vec()).or_insert_with(|| {
            let honest: Vec<usize> = (0..n).filter(|row| !wrong.contains(row)).collect();
            // Spread over the honest ones: rows side by side are ill-conditioned.
            let left = n - 2 * s;
            let used: Vec<usize> = (0..left).map(|at| honest[at * honest.len() / left]).collect();
            let rows = (0..left).map(|k| used.iter().map(|&row| fourier(n, row, k)).collect()).collect();
            let mut one = vec![ZERO; left];
            one[0] = Complex64::new(1.0, 0.0);
            let weights = solve(rows, one);
            used.into_iter().zip(weights).collect()
        })
    }
}

fn norm(sums: &Projection) -> f64 {
    sums.iter().map(|x| x.norm_sqr()).sum::<f64>().sqrt()
}

fn largest(numbers: &[Complex64]) -> f64 {
    numbers.iter().map(|x| x.norm()).fold(0.0, f64::max)
}

/// The real part of the combination of rows: a tile of the output at a time.
fn combine(rows: &[&[Complex64]], used: &[(usize, Complex64)], scale: f64, out: &mut [f32]) {
    for (tile, out) in out.chunks_mut(COLUMNS).enumerate() {
        let mut sums = [0f64; COLUMNS];
        let sums = &mut sums[..out.len()];
        for (row, weight) in used {
            add_real(sums, *weight, &rows[*row][tile * COLUMNS..]);
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = (*sum * scale) as f32);
    }
}

compiled_for_all! {
    /// Adds the weight times a gradient.
    fn add / add_avx512 / add_avx2 = add_body(sums: &mut [Complex64], weight: Complex64, gradient: &[f32])
}

#[inline(always)]
fn add_body(sums: &mut [Complex64], weight: Complex64, gradient: &[f32]) {
    for (sum, x) in sums.iter_mut().zip(gradient) {
        *sum += weight * f64::from(*x);
    }
}

compiled_for_all! {
    /// Adds the real parts of the weight times a row.
    fn add_real / add_real_avx512 / add_real_avx2 = add_real_body(sums: &mut [f64], weight: Complex64, row: &[Complex64])
}

#[inline(always)]
fn add_real_body(sums: &mut [f64], weight: Complex64, row: &[Complex64]) {
    for (sum, x) in sums.iter_mut().zip(row) {
        *sum += x.re * weight.re - x.im * weight.im;
    }
}

compiled_for_all! {
    /// The products of parts of a row with a real vector as long. So many sums keep vector units busy; and where the whole cancels by
    /// chance, they do not.
    fn project / project_avx512 / project_avx2 = project_body(row: &[Complex64], secret: &[f64]) -> Projection
}

#[inline(always)]
fn project_body(row: &[Complex64], secret: &[f64]) -> Projection {
    let mut sums = NOTHING;
    let mut add = |row: &[Complex64], secret: &[f64]| {
        for ((sum, x), secret) in sums.iter_mut().zip(row).zip(secret) {
            sum.re += x.re * secret;
            sum.im += x.im * secret;
        }
    };
    let (parts, rest) = row.as_chunks::<SUMS>();
    let (secrets, last) = secret.as_chunks::<SUMS>();
    parts.iter().zip(secrets).for_each(|(row, secret)| add(row, secret));
    add(rest, last);
    sums
}

#[cfg(test)]
mod tests;
