//! What is aggregated: a matrix of one gradient per worker, in one piece of memory on large pages.

#![allow(unsafe_code)]

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Numbers between two rows beyond their length: rows a multiple of a page apart would share their cache sets.
const STAGGER: usize = 272;

/// `rows` rows of `width` numbers.
pub struct Matrix {
    numbers: Vec<f32>,
    rows: usize,
    width: usize,
}

impl Matrix {
    pub fn new(rows: usize, width: usize) -> Matrix {
        let numbers = vec![0.0; rows * (width + STAGGER)];
        large_pages(&numbers);
        Matrix { numbers, rows, width }
    }

    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.numbers[row * (self.width + STAGGER)..][..self.width]
    }

    /// All rows.
    pub fn rows(&self) -> Vec<&[f32]> {
        (0..self.rows).map(|row| &self.numbers[row * (self.width + STAGGER)..][..self.width]).collect()
    }
}

/// Asks for large pages, before the first touch; without them only the speed is another.
fn large_pages(numbers: &[f32]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 1 << 21;
        let start = (numbers.as_ptr() as usize).next_multiple_of(PAGE);
        let end = numbers.as_ptr() as usize + size_of_val(numbers);
        if start + PAGE <= end {
            // SAFETY: the pages lie inside the slice, and the advice does not change what they hold.
            let _ = unsafe { rustix::mm::madvise(start as *mut _, end - start, rustix::mm::Advice::LinuxHugepage) };
        }
    }
}

/// Numbers of mean 0 and a spread of 1; the same for the same seed.
pub struct Noise(ChaCha8Rng);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Adds `scale` times as many fresh numbers.
    pub fn add_to(&mut self, numbers: &mut [f32], scale: f32) {
        for pair in numbers.chunks_mut(2) {
            let bits = self.0.next_u64();
            for (at, number) in pair.iter_mut().enumerate() {
                // Two uniform halves: a triangle, near enough to the shape of real gradients.
                let half = |shift: usize| ((bits >> (32 * at + shift)) & 0xffff) as f32 / 65_535.0 - 0.5;
                *number += scale * 2.449_489_8 * (half(0) + half(16));
            }
        }
    }
}

/// Gradients of workers in groups of `group`: the same within a group.
pub fn fill_groups(matrix: &mut Matrix, group: usize, seed: u64) {
    let mut noise = Noise::new(seed);
    let (rows, width) = (matrix.rows, matrix.width);
    for first in (0..rows).step_by(group) {
        let row = matrix.row_mut(first);
        row.fill(0.0);
        noise.add_to(row, 1.0);
        for other in first + 1..rows.min(first + group) {
            let from = first * (width + STAGGER);
            matrix.numbers.copy_within(from..from + width, other * (width + STAGGER));
        }
    }
}

/// Different gradients: one common direction, and noise of each worker's own spread, so that no two distances are near a tie.
pub fn fill_apart(matrix: &mut Matrix, seed: u64) {
    let width = matrix.width;
    let mut common = vec![0.0; width];
    Noise::new(seed).add_to(&mut common, 1.0);
    for row in 0..matrix.rows {
        let own = (row * 11) % matrix.rows;
        let target = matrix.row_mut(row);
        target.copy_from_slice(&common);
        Noise::new(seed + 1 + row as u64).add_to(target, 0.5 + 0.05 * own as f32);
    }
}
