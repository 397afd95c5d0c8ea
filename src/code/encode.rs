//! What a worker sends: one mixture of the slices of a chunk.

use std::ops::Range;

use super::kernels::{Kernels, TILE, VECTOR};
use super::{Generator, Precision, ROWS_MAX};

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
    columns(kernels, generator, row, block, 0..width, shard);
}

/// [`encode`] to the bytes that are sent: in f32, then rounded to `precision`. Replicas are the same bits in every precision.
///
/// Where a shard of this chunk may be too large for it, be it that of another row, all numbers are infinite: if every replica has
/// the same block, the chunk cannot be decoded then, and nobody seems to lie. Replicas that differ by rounding may be on both sides
/// of the threshold: then those that overflowed seem to lie, and can be named.
///
/// # Panics
/// If there is no such row, or the bytes are not as many, or do not lie as numbers do.
pub fn encode_rounded(generator: &Generator, row: usize, block: &[f32], precision: Precision, shard: &mut [u8]) {
    encode_rounded_with(Kernels::best(), generator, row, block, precision, shard);
}

fn encode_rounded_with(
    kernels: Kernels,
    generator: &Generator,
    row: usize,
    block: &[f32],
    precision: Precision,
    shard: &mut [u8],
) {
    if precision == Precision::F32 {
        return encode_with(kernels, generator, row, block, bytemuck::cast_slice_mut(shard));
    }
    let width = block.len().div_ceil(generator.compression());
    assert_eq!(shard.len(), precision.shard_bytes(width), "a shard of {} numbers is {width} wide", block.len());
    let overflows = precision.may_overflow(kernels, generator, block);
    let mut tile = [0.0; TILE];
    for (at, bytes) in shard.chunks_mut(precision.shard_bytes(TILE)).enumerate() {
        let start = at * TILE;
        let tile = &mut tile[..TILE.min(width - start)];
        if overflows {
            tile.fill(f32::INFINITY);
        } else {
            columns(kernels, generator, row, block, start..start + tile.len(), tile);
        }
        precision.narrow_with(kernels, tile, bytes);
    }
}

/// Some columns of a shard.
fn columns(
    kernels: Kernels,
    generator: &Generator,
    row: usize,
    block: &[f32],
    columns: Range<usize>,
    shard: &mut [f32],
) {
    let width = block.len().div_ceil(generator.compression());
    if let Some(slice) = generator.raw_slice(row) {
        let at = |column: usize| (slice * width + column).min(block.len());
        let part = &block[at(columns.start)..at(columns.end)];
        shard[..part.len()].copy_from_slice(part);
        shard[part.len()..].fill(0.0);
        return;
    }
    // The last slice that is not empty may be shorter than the others: beyond its end there is one slice less.
    let slices = block.len().div_ceil(width.max(1));
    let short = (block.len() - slices.saturating_sub(1) * width).clamp(columns.start, columns.end);
    let (longer, shorter) = shard.split_at_mut(short - columns.start);
    let mixture = Mixture { kernels, factors: generator.row(row), block, width };
    mixture.mix(slices, columns.start, longer);
    mixture.mix(slices.saturating_sub(1), short, shorter);
}

/// What a row makes of the slices of a block.
struct Mixture<'a> {
    kernels: Kernels,
    factors: &'a [f32],
    block: &'a [f32],
    width: usize,
}

impl Mixture<'_> {
    /// The columns from `start` on, of the first `slices` slices.
    fn mix(&self, slices: usize, start: usize, shard: &mut [f32]) {
        let Mixture { kernels, factors, block, width } = *self;
        let mut done = 0;
        let mut rows: [&[f32]; ROWS_MAX] = [&[]; ROWS_MAX];
        while done < shard.len() {
            let left = shard.len() - done;
            let numbers = TILE.min(left - left % VECTOR);
            if numbers == 0 {
                let mut padded = [[0.0; VECTOR]; ROWS_MAX];
                for (slice, padded) in padded[..slices].iter_mut().enumerate() {
                    padded[..left].copy_from_slice(&block[slice * width + start + done..][..left]);
                }
                let mut rows: [&[f32]; ROWS_MAX] = [&[]; ROWS_MAX];
                rows.iter_mut().zip(&padded).for_each(|(row, padded)| *row = padded);
                let mut mixed = [0.0; VECTOR];
                kernels.products::<1, false>(&rows[..slices], factors, slices, [&mut mixed], 1.0);
                shard[done..].copy_from_slice(&mixed[..left]);
                return;
            }
            for (slice, row) in rows[..slices].iter_mut().enumerate() {
                *row = &block[slice * width + start + done..][..numbers];
            }
            let to = &mut shard[done..done + numbers];
            kernels.products::<1, false>(&rows[..slices], factors, slices, [to], 1.0);
            done += numbers;
        }
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

    #[test]
    fn rounded_shards_are_the_same_bits_on_every_kernel_and_those_of_whole_shards() {
        for (r, c) in [(3, 1), (6, 2), (9, 4), (20, 10)] {
            for form in [Form::Systematic, Form::Dense] {
                let generator = Generator::new(Family::Trigonometric, form, r, c).unwrap();
                for len in [1, 2, c + 1, 97, c * TILE, 3 * c * TILE - 5] {
                    let block: Vec<f32> = (0..len).map(|i| (((i * 7919) % 1009) as f32 - 500.0) * 0.0137).collect();
                    let width = len.div_ceil(c);
                    for (row, precision) in (0..r).flat_map(|row| Precision::ALL.map(|precision| (row, precision))) {
                        let mut shard = vec![0.0; width];
                        encode(&generator, row, &block, &mut shard);
                        let mut wanted = vec![0u32; width];
                        let bytes = precision.shard_bytes(width);
                        precision.narrow(&shard, &mut bytemuck::cast_slice_mut(&mut wanted)[..bytes]);
                        for kernels in Kernels::all() {
                            let mut found = vec![0u32; width];
                            let to: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut found)[..bytes];
                            encode_rounded_with(kernels, &generator, row, &block, precision, to);
                            assert_eq!(found, wanted, "{kernels:?} {precision} {r} {c} {form:?} {len} {row}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn all_rows_of_a_chunk_are_infinite_if_one_may_be_too_large() {
        let generator = Generator::new(Family::Trigonometric, Form::Systematic, 6, 2).unwrap();
        let finite = |largest: f32, precision: Precision| {
            let mut block = [0.5f32; 100];
            block[77] = largest;
            let of_row = |row| {
                let (mut shard, mut numbers) = ([0u16; 100], [0.0; 50]);
                let bytes: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut shard)[..precision.shard_bytes(50)];
                encode_rounded(&generator, row, &block, precision, bytes);
                precision.widen(bytes, &mut numbers);
                numbers.iter().filter(|x| x.is_finite()).count()
            };
            let counts: Vec<usize> = (0..6).map(of_row).collect();
            assert!(counts.iter().all(|count| *count == counts[0]), "{precision} {largest}: {counts:?}");
            counts[0]
        };
        assert_eq!([30_000.0, 65_504.0, 1e6, f32::NAN].map(|x| finite(x, Precision::F16)), [50, 0, 0, 0]);
        assert_eq!([30_000.0, 1e38].map(|x| finite(x, Precision::Bf16)), [50, 50]);
    }
}
