//! Inner products of all pairs of gradients, as a tuned library would: four rows by four in registers, tiles of columns in cache.

#![allow(unsafe_code)]

/// Rows of a block on either side.
const BLOCK: usize = 4;
/// Columns of a tile of all rows: two blocks of it are in the first-level cache.
const COLUMNS: usize = 512;
/// Tiles after which the partial sums in f32 go to f64.
const TILES_PER_FLUSH: usize = 16;
const LANES: usize = 16;

pub type Sums = [[[f32; LANES]; BLOCK]; BLOCK];
pub type Block<'a> = [&'a [f32]; BLOCK];

/// Adds the products of all pairs of `a` and `b`, of slices of one length, a multiple of `LANES`.
pub type Kernel = fn(Block<'_>, Block<'_>, &mut Sums);

/// Those that this processor can run, the fastest first.
pub fn kernels() -> Vec<Kernel> {
    let mut kernels: Vec<Kernel> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            kernels.push(|a, b, sums| {
                one_length(a, b);
                // SAFETY: the processor has AVX-512, and all slices are of one length.
                unsafe { x86::avx512(a, b, sums) };
            });
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            kernels.push(|a, b, sums| {
                one_length(a, b);
                // SAFETY: the processor has AVX2 and FMA, and all slices are of one length.
                unsafe { x86::avx2(a, b, sums) };
            });
        }
    }
    kernels.push(plain);
    kernels
}

#[cfg(target_arch = "x86_64")]
fn one_length(a: Block<'_>, b: Block<'_>) {
    assert!(a.iter().chain(&b).all(|slice| slice.len() == a[0].len()), "slices of one length");
}

fn plain(a: Block<'_>, b: Block<'_>, sums: &mut Sums) {
    for (a, sums) in a.iter().zip(sums) {
        for (b, sums) in b.iter().zip(sums) {
            for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
                (0..LANES).for_each(|lane| sums[lane] += a[lane] * b[lane]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Block, LANES, Sums};

    /// # Safety
    /// All slices must be of one length.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512(a: Block<'_>, b: Block<'_>, sums: &mut Sums) {
        let mut acc = [[_mm512_setzero_ps(); BLOCK]; BLOCK];
        let (a_at, b_at) = (a.map(<[f32]>::as_ptr), b.map(<[f32]>::as_ptr));
        for at in (0..a[0].len() / LANES * LANES).step_by(LANES) {
            // SAFETY: `at + LANES` is within every slice.
            let y: [__m512; BLOCK] = std::array::from_fn(|j| unsafe { _mm512_loadu_ps(b_at[j].add(at)) });
            for i in 0..BLOCK {
                // SAFETY: as above.
                let x = unsafe { _mm512_loadu_ps(a_at[i].add(at)) };
                for j in 0..BLOCK {
                    acc[i][j] = _mm512_fmadd_ps(x, y[j], acc[i][j]);
                }
            }
        }
        for i in 0..BLOCK {
            for j in 0..BLOCK {
                let place = sums[i][j].as_mut_ptr();
                // SAFETY: the place has `LANES` numbers.
                unsafe { _mm512_storeu_ps(place, _mm512_add_ps(acc[i][j], _mm512_loadu_ps(place))) };
            }
        }
    }

    /// # Safety
    /// All slices must be of one length.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2(a: Block<'_>, b: Block<'_>, sums: &mut Sums) {
        let b_at = b.map(<[f32]>::as_ptr);
        for (a, sums) in a.iter().zip(sums) {
            let mut acc = [[_mm256_setzero_ps(); BLOCK]; 2];
            for at in (0..a.len() / LANES * LANES).step_by(LANES) {
                for (half, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: `at + LANES` is within every slice.
                    let x = unsafe { _mm256_loadu_ps(a.as_ptr().add(at + 8 * half)) };
                    for (acc, b) in acc.iter_mut().zip(b_at) {
                        // SAFETY: as above.
                        *acc = _mm256_fmadd_ps(x, unsafe { _mm256_loadu_ps(b.add(at + 8 * half)) }, *acc);
                    }
                }
            }
            for (half, acc) in acc.iter().enumerate() {
                for (acc, sums) in acc.iter().zip(sums.iter_mut()) {
                    let place = sums[8 * half..][..8].as_mut_ptr();
                    // SAFETY: the place has 8 numbers.
                    unsafe { _mm256_storeu_ps(place, _mm256_add_ps(*acc, _mm256_loadu_ps(place))) };
                }
            }
        }
    }
}

/// Squared distances of all pairs, from inner products summed in one pass over the gradients. NaN where a gradient is not finite.
pub fn distances(rows: &[&[f32]]) -> Vec<Vec<f64>> {
    distances_by(kernels()[0], rows)
}

/// As [`distances`].
pub fn distances_by(kernel: Kernel, rows: &[&[f32]]) -> Vec<Vec<f64>> {
    let blocks = rows.len().div_ceil(BLOCK);
    let pairs: Vec<(usize, usize)> = (0..blocks).flat_map(|i| (i..blocks).map(move |j| (i, j))).collect();
    let mut sums = vec![[[[0f32; LANES]; BLOCK]; BLOCK]; pairs.len()];
    let mut gram = vec![vec![0f64; blocks * BLOCK]; blocks * BLOCK];
    let zeros = [0f32; COLUMNS];
    let mut tail = vec![[0f32; COLUMNS]; rows.len()];
    let width = rows[0].len();
    let mut flush = |sums: &mut Vec<Sums>| {
        for ((i, j), sums) in pairs.iter().zip(sums) {
            for a in 0..BLOCK {
                for b in 0..BLOCK {
                    let sum: f64 = sums[a][b].iter().map(|lane| f64::from(*lane)).sum();
                    gram[i * BLOCK + a][j * BLOCK + b] += sum;
                }
            }
            *sums = Default::default();
        }
    };
    for (tile, start) in (0..width).step_by(COLUMNS).enumerate() {
        let columns = COLUMNS.min(width - start);
        if columns < COLUMNS {
            for (tail, row) in tail.iter_mut().zip(rows) {
                tail[..columns].copy_from_slice(&row[start..]);
            }
        }
        let slice = |row: usize| match rows.get(row) {
            None => zeros.as_slice(),
            Some(_) if columns < COLUMNS => &tail[row],
            Some(row) => &row[start..start + COLUMNS],
        };
        let block = |at: usize| -> Block<'_> { std::array::from_fn(|row| slice(at * BLOCK + row)) };
        for ((i, j), sums) in pairs.iter().zip(&mut sums) {
            kernel(block(*i), block(*j), sums);
        }
        if tile % TILES_PER_FLUSH == TILES_PER_FLUSH - 1 {
            flush(&mut sums);
        }
    }
    flush(&mut sums);
    let product = |i: usize, j: usize| gram[i.min(j)][i.max(j)];
    let distance = |i: usize, j: usize| if i == j { 0.0 } else { product(i, i) + product(j, j) - 2.0 * product(i, j) };
    (0..rows.len()).map(|i| (0..rows.len()).map(|j| distance(i, j)).collect()).collect()
}
