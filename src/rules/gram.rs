//! Inner products of all pairs of gradients, chunk by chunk: four rows by four in registers, tiles of columns in cache.

#![allow(unsafe_code)]

/// Rows of a block on either side.
const BLOCK: usize = 4;
/// Columns of a tile of all rows: two blocks of it are in the first-level cache.
const COLUMNS: usize = 512;
/// Tiles after which the partial sums in f32 go to f64.
const TILES_PER_FLUSH: usize = 16;
const LANES: usize = 16;

/// Partial sums of a block of pairs, in sixteen lanes.
pub type Sums = [[[f32; LANES]; BLOCK]; BLOCK];
/// Four rows of one length.
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

    /// The products of all pairs.
    ///
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

    /// As there.
    ///
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

/// Inner products of all pairs of rows, of all columns that were added.
#[derive(Clone)]
pub struct Gram {
    rows: usize,
    kernel: Kernel,
    /// Blocks of rows, each with itself and all later ones.
    pairs: Vec<(usize, usize)>,
    sums: Vec<Sums>,
    tiles: usize,
    products: Vec<Vec<f64>>,
    tail: Vec<[f32; COLUMNS]>,
}

impl Gram {
    /// Of so many rows, no columns yet.
    pub fn new(rows: usize) -> Gram {
        Gram::with(kernels()[0], rows)
    }

    /// As [`Gram::new`], by one of [`kernels`].
    pub fn with(kernel: Kernel, rows: usize) -> Gram {
        let blocks = rows.div_ceil(BLOCK);
        let pairs: Vec<(usize, usize)> = (0..blocks).flat_map(|i| (i..blocks).map(move |j| (i, j))).collect();
        let sums = vec![Sums::default(); pairs.len()];
        let products = vec![vec![0f64; blocks * BLOCK]; blocks * BLOCK];
        Gram { rows, kernel, pairs, sums, tiles: 0, products, tail: vec![[0.0; COLUMNS]; rows] }
    }

    /// Adds columns of all rows.
    ///
    /// # Panics
    /// If the rows are not as many as announced, or differ in length.
    pub fn add(&mut self, rows: &[&[f32]]) {
        assert_eq!(rows.len(), self.rows, "all rows");
        assert!(rows.iter().all(|row| row.len() == rows[0].len()), "rows of one length");
        let width = rows[0].len();
        let zeros = [0f32; COLUMNS];
        for start in (0..width).step_by(COLUMNS) {
            let columns = COLUMNS.min(width - start);
            if columns < COLUMNS {
                for (tail, row) in self.tail.iter_mut().zip(rows) {
                    tail[..columns].copy_from_slice(&row[start..]);
                    tail[columns..].fill(0.0);
                }
            }
            let slice = |row: usize| match rows.get(row) {
                None => zeros.as_slice(),
                Some(_) if columns < COLUMNS => &self.tail[row],
                Some(row) => &row[start..start + COLUMNS],
            };
            let block = |at: usize| -> Block<'_> { std::array::from_fn(|row| slice(at * BLOCK + row)) };
            for ((i, j), sums) in self.pairs.iter().zip(&mut self.sums) {
                (self.kernel)(block(*i), block(*j), sums);
            }
            self.tiles += 1;
            if self.tiles.is_multiple_of(TILES_PER_FLUSH) {
                flush(&self.pairs, &mut self.sums, &mut self.products);
            }
        }
    }

    /// Forgets all columns.
    pub fn clear(&mut self) {
        self.sums.fill(Sums::default());
        self.products.iter_mut().for_each(|products| products.fill(0.0));
        self.tiles = 0;
    }

    /// The inner product of rows `i` and `j`.
    pub fn product(&self, i: usize, j: usize) -> f64 {
        let (i, j) = (i.min(j), i.max(j));
        let (a, b) = (i / BLOCK, j / BLOCK);
        let blocks = self.rows.div_ceil(BLOCK);
        // Rows of the triangle of blocks before this one.
        let at = a * blocks - a * a.saturating_sub(1) / 2 + (b - a);
        let pending: f64 = self.sums[at][i % BLOCK][j % BLOCK].iter().map(|lane| f64::from(*lane)).sum();
        self.products[i][j] + pending
    }

    /// Are all numbers of a row finite, and their squares not too large to add?
    pub fn is_finite(&self, row: usize) -> bool {
        self.product(row, row).is_finite()
    }
}

fn flush(pairs: &[(usize, usize)], sums: &mut [Sums], products: &mut [Vec<f64>]) {
    for ((i, j), sums) in pairs.iter().zip(sums) {
        for a in 0..BLOCK {
            for b in 0..BLOCK {
                let sum: f64 = sums[a][b].iter().map(|lane| f64::from(*lane)).sum();
                products[i * BLOCK + a][j * BLOCK + b] += sum;
            }
        }
        *sums = Sums::default();
    }
}

impl std::fmt::Debug for Gram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gram").field("rows", &self.rows).field("tiles", &self.tiles).finish_non_exhaustive()
    }
}
