//! The steps of a sweep on one tile that need some sorting out before they reach a kernel.

use std::ops::Range;

use super::super::ROWS_MAX;
use super::super::kernels::{Factors, Kernels, OUTPUTS, ROWS, Sums};

/// `first ..` cut into blocks of `most` (4, 2 or 1), and what is left into smaller ones.
pub(super) fn blocks(most: usize, first: usize, count: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = count - done;
        let size = if left >= most { most } else { 1 << left.checked_ilog2()? };
        let block = (first + done, size);
        done += size;
        Some(block)
    })
}

/// Projects some rows of `shards`, side by side.
pub(super) fn project(
    kernels: Kernels,
    shards: &[&[f32]],
    rows: &[usize],
    columns: Range<usize>,
    factors: &Factors,
    sums: &mut [Sums],
) {
    fn run<const R: usize>(
        kernels: Kernels,
        shards: &[&[f32]],
        rows: &[usize],
        columns: Range<usize>,
        factors: &Factors,
        sums: &mut [Sums],
    ) {
        let rows: [&[f32]; R] = std::array::from_fn(|k| shards[rows[k]]);
        kernels.projections::<R>(rows, columns, factors, sums.try_into().expect("as many as rows"));
    }
    match rows.len() {
        ROWS => run::<ROWS>(kernels, shards, rows, columns, factors, sums),
        2 => run::<2>(kernels, shards, rows, columns, factors, sums),
        _ => run::<1>(kernels, shards, rows, columns, factors, sums),
    }
}

/// Equal parts of a buffer, `stride` apart, of `n` numbers each.
pub(super) struct Place<'a> {
    pub numbers: &'a mut [f32],
    pub offset: usize,
    pub stride: usize,
    pub n: usize,
}

impl Place<'_> {
    pub fn part(&mut self, at: usize) -> &mut [f32] {
        &mut self.numbers[self.offset + at * self.stride..][..self.n]
    }

    fn parts<const R: usize>(&mut self, at: [usize; R]) -> [&mut [f32]; R] {
        let (offset, stride, n) = (self.offset, self.stride, self.n);
        let ranges = at.map(|at| offset + at * stride..offset + at * stride + n);
        self.numbers.get_disjoint_mut(ranges).expect("parts do not overlap")
    }
}

/// Slices from the rows of a set (summed over its groups): copied, or multiplied with the pseudo-inverse.
pub(super) struct Recovery<'a> {
    pub copied: &'a [Option<usize>],
    /// Row `i`, `stride` numbers each.
    pub factors: &'a [f32],
    pub stride: usize,
    pub scale: f32,
    /// To what is there.
    pub add: bool,
}

impl Recovery<'_> {
    pub fn run(&self, kernels: Kernels, rows: &[&[f32]], mut place: Place<'_>) {
        let mut mixed = [0; ROWS_MAX];
        let mut count = 0;
        for (slice, rank) in self.copied.iter().enumerate() {
            match rank {
                Some(rank) if self.add => kernels.scale::<true>(rows[*rank], place.part(slice), self.scale),
                Some(rank) => kernels.scale::<false>(rows[*rank], place.part(slice), self.scale),
                None => {
                    mixed[count] = slice;
                    count += 1;
                }
            }
        }
        let mut mixed = &mixed[..count];
        while !mixed.is_empty() {
            // Blocks of about equal size: five and five rather than six and four.
            let parts = mixed.len().div_ceil(OUTPUTS);
            let (block, rest) = mixed.split_at(mixed.len().div_ceil(parts));
            match block.len() {
                6 => self.multiply::<6>(kernels, block, rows, &mut place),
                5 => self.multiply::<5>(kernels, block, rows, &mut place),
                4 => self.multiply::<4>(kernels, block, rows, &mut place),
                3 => self.multiply::<3>(kernels, block, rows, &mut place),
                2 => self.multiply::<2>(kernels, block, rows, &mut place),
                _ => self.multiply::<1>(kernels, block, rows, &mut place),
            }
            mixed = rest;
        }
    }

    fn multiply<const I: usize>(&self, kernels: Kernels, slices: &[usize], rows: &[&[f32]], place: &mut Place<'_>) {
        let slices: [usize; I] = std::array::from_fn(|k| slices[k]);
        // The rows of the pseudo-inverse that are wanted, side by side.
        let (mut wanted, n) = ([0.0; OUTPUTS * ROWS_MAX], rows.len());
        for (k, slice) in slices.iter().enumerate() {
            wanted[k * n..][..n].copy_from_slice(&self.factors[slice * self.stride..][..n]);
        }
        let to = place.parts(slices);
        match self.add {
            true => kernels.products::<I, true>(rows, &wanted, n, to, self.scale),
            false => kernels.products::<I, false>(rows, &wanted, n, to, self.scale),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_everything_once_and_are_as_large_as_they_may_be() {
        for most in [1, 2, 4] {
            for count in 0..20 {
                let blocks: Vec<(usize, usize)> = blocks(most, 7, count).collect();
                let mut next = 7;
                for (first, size) in &blocks {
                    assert_eq!(*first, next);
                    assert!([1, 2, 4].contains(size) && *size <= most);
                    next += size;
                }
                assert_eq!(next, 7 + count);
            }
        }
    }
}
