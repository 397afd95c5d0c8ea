//! Flipped bits, as broken hardware leaves them. An exponent bit always, as a flip in the last bits of a number hardly shows; and in
//! elements that are not zero where there are some, for the same reason.

use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

/// Elements that `multi-bit` changes.
const ELEMENTS: usize = 4;
/// The distance of the elements that `warp` changes: the lanes of a warp.
pub(super) const LANES: usize = 32;

/// Flips one of the eight exponent bits of one element.
pub(super) fn flip_one(shard: &mut [f32], random: &mut ChaCha8Rng) {
    let bit = exponent_bit(random);
    flip_somewhere(shard, 1 << bit, random);
}

/// Flips three bits of one element in each quarter of the shard, one of the three in the exponent.
pub(super) fn flip_several(shard: &mut [f32], random: &mut ChaCha8Rng) {
    let quarter = shard.len().div_ceil(ELEMENTS).max(1);
    for quarter in shard.chunks_mut(quarter) {
        // Steps of 1 to 15 and of 16 to 31 from the first bit: three different ones.
        let (bit, draw) = (exponent_bit(random), random.next_u32());
        let mask = 1u32 | 1 << (1 + draw % 15) | 1 << (16 + (draw >> 16) % 16);
        flip_somewhere(quarter, mask.rotate_left(bit), random);
    }
}

/// Flips the same exponent bit in every 32nd element, from one of the first 32.
pub(super) fn flip_lane(shard: &mut [f32], random: &mut ChaCha8Rng) {
    let mask = 1 << exponent_bit(random);
    let lane = random.next_u32() as usize % shard.len().clamp(1, LANES);
    shard.iter_mut().skip(lane).step_by(LANES).for_each(|value| flip(value, mask));
}

fn exponent_bit(random: &mut ChaCha8Rng) -> u32 {
    23 + random.next_u32() % 8
}

fn flip(value: &mut f32, mask: u32) {
    *value = f32::from_bits(value.to_bits() ^ mask);
}

/// Flips the bits of `mask` in the first element that is not 0 from a random start on, around the end; in that at the start if all are 0.
fn flip_somewhere(values: &mut [f32], mask: u32, random: &mut ChaCha8Rng) {
    let start = ((u128::from(random.next_u64()) * values.len() as u128) >> 64) as usize;
    let nonzero = |from: usize, values: &[f32]| values.iter().position(|&value| value != 0.0).map(|at| from + at);
    let element = nonzero(start, &values[start..]).or_else(|| nonzero(0, &values[..start])).unwrap_or(start);
    if let Some(value) = values.get_mut(element) {
        flip(value, mask);
    }
}
