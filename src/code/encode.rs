//! What a worker sends: one mixture of the slices of a chunk.

use super::Generator;
use super::kernels::{TILE, add_scaled};

/// Writes the shard that `row` sends for the chunk `block`: `shard[c] = sum_i G[row, i] M[i, c]`, where `M` is `block` in
/// `r_c` contiguous rows of `shard.len()` numbers, zero-padded. A raw row is copied.
///
/// Multiplies and adds in f32 in the order of the slices, so every worker that computes the same block sends the same bits.
/// `shard.len()` is the chunk's width, `ceil(block.len() / r_c)`. Allocates nothing.
///
/// # Panics
/// If `shard` has another length, or there is no such row.
pub fn encode(generator: &Generator, row: usize, block: &[f32], shard: &mut [f32]) {
    let width = block.len().div_ceil(generator.compression());
    assert_eq!(shard.len(), width, "a shard of {} numbers is {width} wide", block.len());
    if let Some(slice) = generator.raw_slice(row) {
        let part = slice_of(block, width, slice, 0, width);
        shard[..part.len()].copy_from_slice(part);
        shard[part.len()..].fill(0.0);
        return;
    }
    for (index, tile) in shard.chunks_mut(TILE).enumerate() {
        let (start, len) = (index * TILE, tile.len());
        tile.fill(0.0);
        for (slice, &factor) in generator.row(row).iter().enumerate() {
            add_scaled(tile, factor, slice_of(block, width, slice, start, len));
        }
    }
}

/// Columns `start..start + len` of row `slice` of the chunk's matrix, without the padding.
fn slice_of(block: &[f32], width: usize, slice: usize, start: usize, len: usize) -> &[f32] {
    let end = block.len().min((slice + 1) * width);
    let from = (slice * width + start).min(end);
    &block[from..(from + len).min(end)]
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
