//! What a worker sends: one mixture of the slices of a chunk.

use super::kernels::{Kernels, TILE, VECTOR};
use super::{Generator, ROWS_MAX};

/// Writes the shard that `row` sends for the chunk `block`: `shard[c] = sum_i G[row, i] M[i, c]`, where `M` is `block` in
/// `r_c` contiguous rows of `shard.len()` numbers, zero-padded. A raw row is copied.
///
/// Multiplies and adds in f32, fused, in the order of the slices, so every worker that computes the same block sends the same
/// bits. `shard.len()` is the chunk's width, `ceil(block.len() / r_c)`. Allocates nothing.
///
/// # Panics
/// If `shard` has another length, or there is no such row.
pub fn encode(generator: &Generator, row: usize, block: &[f32], shard: &mut [f32]) {
    encode_with(Kernels::best(), generator, row, block, shard);
}

/// [`encode`] with the kernels of a certain kind, to compare them.
///
/// # Panics
/// As [`encode`].
pub fn encode_with(kernels: Kernels, generator: &Generator, row: usize, block: &[f32], shard: &mut [f32]) {
    let width = block.len().div_ceil(generator.compression());
    assert_eq!(shard.len(), width, "a shard of {} numbers is {width} wide", block.len());
    if let Some(slice) = generator.raw_slice(row) {
        let part = &block[(slice * width).min(block.len())..((slice + 1) * width).min(block.len())];
        shard[..part.len()].copy_from_slice(part);
        shard[part.len()..].fill(0.0);
        return;
    }
    // The last slice that is not empty may be shorter than the others: beyond its end there is one slice less.
    let slices = block.len().div_ceil(width.max(1));
    let short = block.len() - slices.saturating_sub(1) * width;
    mix(kernels, generator.row(row), block, slices, 0..short, shard);
    mix(kernels, generator.row(row), block, slices.saturating_sub(1), short..width, shard);
}

/// The columns `columns` of a shard, from the first `slices` slices.
fn mix(
    kernels: Kernels,
    factors: &[f32],
    block: &[f32],
    slices: usize,
    columns: std::ops::Range<usize>,
    shard: &mut [f32],
) {
    let (width, mut start) = (shard.len(), columns.start);
    let mut rows: [&[f32]; ROWS_MAX] = [&[]; ROWS_MAX];
    while start < columns.end {
        let left = columns.end - start;
        let numbers = TILE.min(left - left % VECTOR);
        if numbers == 0 {
            let mut padded = [[0.0; VECTOR]; ROWS_MAX];
            for (slice, padded) in padded[..slices].iter_mut().enumerate() {
                padded[..left].copy_from_slice(&block[slice * width + start..][..left]);
            }
            let mut rows: [&[f32]; ROWS_MAX] = [&[]; ROWS_MAX];
            rows.iter_mut().zip(&padded).for_each(|(row, padded)| *row = padded);
            let mut mixed = [0.0; VECTOR];
            kernels.products::<1, false>(&rows[..slices], factors, slices, [&mut mixed], 1.0);
            shard[start..columns.end].copy_from_slice(&mixed[..left]);
            return;
        }
        for (slice, row) in rows[..slices].iter_mut().enumerate() {
            *row = &block[slice * width + start..][..numbers];
        }
        let to = &mut shard[start..start + numbers];
        kernels.products::<1, false>(&rows[..slices], factors, slices, [to], 1.0);
        start += numbers;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{Family, Form, Layout};

    #[test]
    fn shards_are_the_rows_of_the_product_for_every_shape() {
        for (r, c) in [(1, 1), (3, 1), (6, 4), (9, 4), (20, 10)] {
            for form in [Form::Systematic, Form::Dense] {
                let generator = Generator::new(Family::Trigonometric, form, r, c).unwrap();
                for len in [1, 2, 5, c, c + 1, 97, 4 * TILE + 3] {
                    let block: Vec<f32> = (0..len).map(|i| ((i * 7919) % 1009) as f32 - 500.0).collect();
                    let chunk = Layout::new(len, c, len).chunk(0);
                    for row in 0..r {
                        let mut shard = vec![f32::NAN; chunk.width];
                        encode(&generator, row, &block, &mut shard);
                        for (col, &got) in shard.iter().enumerate() {
                            let at = |i: usize| block.get(i * chunk.width + col).map_or(0.0, |&x| f64::from(x));
                            let want: f64 = (0..c).map(|i| generator.row_f64(row)[i] * at(i)).sum();
                            assert!((f64::from(got) - want).abs() < 1e-3, "{r} {c} {len} {row} {col}: {got} {want}");
                        }
                    }
                }
            }
        }
    }
}
