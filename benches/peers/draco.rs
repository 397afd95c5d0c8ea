//! Draco's two decoders (arXiv 1803.09877), re-made from the paper: repetition with an exact majority vote, and the cyclic
//! code over the complex numbers in f64.
//!
//! Cyclic: with `C` the unitary Fourier matrix, worker `j` sends row `j` of `W G`, where `W = C_L Q`, `C_L` are the first
//! `n - 2s` columns of `C`, and `Q` begins with a row of ones and makes `W` zero outside a cyclic band of `2s + 1`. The last
//! `2s` columns of `C` see only the lies: projected on one random vector they give a syndrome, whose Hankel system has the
//! polynomial that vanishes at the liars' roots of unity. Any `n - 2s` honest rows then give the sum of all gradients by one
//! linear combination. As released, one random vector serves for the whole run.

use num_complex::Complex64;

use ::solon::rules::kernels::mean;

const ZERO: Complex64 = Complex64::new(0.0, 0.0);

/// The mean of the groups' majorities: groups of `r` workers that are to send the same bits.
pub fn repetition(rows: &[&[f32]], r: usize, out: &mut [f32]) {
    // Boyer and Moore's vote. Bytes, because these are compared with the fastest instructions there are.
    let winner = |group: &[&'_ [f32]]| {
        let (mut candidate, mut votes) = (0, 0usize);
        for row in 0..group.len() {
            if votes == 0 {
                (candidate, votes) = (row, 1);
            } else if bytemuck::cast_slice::<f32, u8>(group[row]) == bytemuck::cast_slice::<f32, u8>(group[candidate]) {
                votes += 1;
            } else {
                votes -= 1;
            }
        }
        candidate
    };
    let winners: Vec<&[f32]> = rows.chunks(r).map(|group| group[winner(group)]).collect();
    mean(&winners, 1.0 / winners.len() as f32, out);
}

/// Solves `a x = b` by elimination with complete pivoting; unknowns that the system does not fix are 0.
fn solve(mut a: Vec<Vec<Complex64>>, mut b: Vec<Complex64>, negligible: f64) -> Vec<Complex64> {
    let (rows, columns) = (a.len(), a[0].len());
    let mut order: Vec<usize> = (0..columns).collect();
    let mut rank = 0;
    while rank < rows.min(columns) {
        let places = (rank..rows).flat_map(|i| (rank..columns).map(move |j| (i, j)));
        let best = places.max_by(|x, y| a[x.0][x.1].norm().total_cmp(&a[y.0][y.1].norm()));
        let (i, j) = best.expect("a place is left");
        if a[i][j].norm() <= negligible {
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
    let mut x = vec![ZERO; columns];
    for row in (0..rank).rev() {
        let known: Complex64 = (row + 1..rank).map(|column| a[row][column] * x[order[column]]).sum();
        x[order[row]] = (b[row] - known) / a[row][row];
    }
    x
}

/// The cyclic code of `n` workers of which `s` may lie.
pub struct Cyclic {
    n: usize,
    s: usize,
    /// The one random vector.
    secret: Vec<f64>,
    /// The liars of the last decode.
    pub liars: Vec<usize>,
}

impl Cyclic {
    pub fn new(n: usize, s: usize, width: usize) -> Cyclic {
        let mut noise = vec![0f32; width];
        crate::data::Noise::new(428).add_to(&mut noise, 1.0);
        Cyclic { n, s, secret: noise.iter().map(|x| 1.0 + f64::from(*x)).collect(), liars: Vec::new() }
    }

    fn root(&self, power: usize) -> Complex64 {
        Complex64::from_polar(1.0, -std::f64::consts::TAU * (power % self.n) as f64 / self.n as f64)
    }

    /// Entry of the unitary Fourier matrix.
    fn fourier(&self, row: usize, column: usize) -> Complex64 {
        self.root(row * column) / (self.n as f64).sqrt()
    }

    /// What each worker sends of the gradients `batches`, one per worker.
    pub fn encode(&self, batches: &[Vec<f32>]) -> Vec<Vec<Complex64>> {
        let (n, s) = (self.n, self.s);
        let (left, width) = (n - 2 * s, batches[0].len());
        let mut sent = vec![vec![ZERO; width]; n];
        for (batch, gradient) in batches.iter().enumerate() {
            // Column `batch` of Q: 1, then what makes the rows outside the band vanish.
            let outside: Vec<usize> = (2 * s + 1..n).map(|step| (batch + step) % n).collect();
            let rows = outside.iter().map(|&row| (1..left).map(|k| self.fourier(row, k)).collect()).collect();
            let q = solve(rows, outside.iter().map(|&row| -self.fourier(row, 0)).collect(), 1e-12);
            for step in 0..=2 * s {
                let worker = (batch + step) % n;
                let terms = (1..left).map(|k| self.fourier(worker, k) * q[k - 1]);
                let weight = self.fourier(worker, 0) + terms.sum::<Complex64>();
                sent[worker].iter_mut().zip(gradient).for_each(|(sum, x)| *sum += weight * f64::from(*x));
            }
        }
        sent
    }

    /// The sum of all gradients, from what the workers sent, of which at most `s` lie.
    pub fn decode(&mut self, received: &[Vec<Complex64>], out: &mut [f32]) {
        let (n, s) = (self.n, self.s);
        let projected: Vec<Complex64> = received.iter().map(|row| project(row, &self.secret)).collect();
        let scale = projected.iter().map(|y| y.norm()).fold(0.0, f64::max);
        let syndrome =
            |k: usize| (0..n).map(|j| self.fourier(j, n - 2 * s + k).conj() * projected[j]).sum::<Complex64>();
        let syndrome: Vec<Complex64> = (0..2 * s).map(syndrome).collect();
        let hankel = (0..s).map(|i| syndrome[i..i + s].to_vec()).collect();
        let locator = solve(hankel, syndrome[s..].to_vec(), 1e-9 * scale);
        let value = |row: usize| {
            let z = self.root(row).conj();
            let low = locator.iter().enumerate().map(|(power, a)| a * z.powu(power as u32)).sum::<Complex64>();
            (z.powu(s as u32) - low).norm()
        };
        let quiet = syndrome.iter().all(|x| x.norm() <= 1e-9 * scale);
        self.liars = (0..n).filter(|row| !quiet && value(*row) < 1e-5).collect();
        let honest: Vec<usize> = (0..n).filter(|row| !self.liars.contains(row)).collect();
        // Spread over the honest ones: rows side by side are ill-conditioned.
        let left = n - 2 * s;
        let used: Vec<usize> = (0..left).map(|at| honest[at * honest.len() / left]).collect();
        let rows = (0..left).map(|k| used.iter().map(|&row| self.fourier(row, k)).collect()).collect();
        let mut one = vec![ZERO; left];
        one[0] = Complex64::new(1.0, 0.0);
        let weights = solve(rows, one, 0.0);
        let used: Vec<&[Complex64]> = used.iter().map(|row| received[*row].as_slice()).collect();
        combine(&used, &weights, out);
    }
}

/// The product of a row with a real vector, in several sums so that it keeps vector units busy.
fn project(row: &[Complex64], secret: &[f64]) -> Complex64 {
    const SUMS: usize = 8;
    let mut sums = [ZERO; SUMS];
    for (row, secret) in row.as_chunks::<SUMS>().0.iter().zip(secret.as_chunks::<SUMS>().0) {
        for at in 0..SUMS {
            sums[at].re += row[at].re * secret[at];
            sums[at].im += row[at].im * secret[at];
        }
    }
    let from = row.len() / SUMS * SUMS;
    sums.iter().sum::<Complex64>() + row[from..].iter().zip(&secret[from..]).map(|(x, f)| x * f).sum::<Complex64>()
}

/// The real part of the combination of rows: a tile of the output at a time.
fn combine(rows: &[&[Complex64]], weights: &[Complex64], out: &mut [f32]) {
    const COLUMNS: usize = 1024;
    for (tile, out) in out.chunks_mut(COLUMNS).enumerate() {
        let mut sums = [0f64; COLUMNS];
        for (row, weight) in rows.iter().zip(weights) {
            for (sum, x) in sums.iter_mut().zip(&row[tile * COLUMNS..][..out.len()]) {
                *sum += x.re * weight.re - x.im * weight.im;
            }
        }
        out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = *sum as f32);
    }
}
