//! Signs as bits: what a worker of signum sends, and how most of them are counted.

use super::kernels::compiled_for_all;

/// Numbers whose signs are in one word.
pub const SIGNS: usize = u64::BITS as usize;
/// Planes of a count of up to 65 535 workers.
const PLANES: usize = 16;

compiled_for_all! {
    /// The signs of `numbers`, 64 to a word: a bit is set for a number below zero. Zeros of both signs and NaN count as positive; bits
    /// beyond the last number are clear.
    ///
    /// # Panics
    /// If `bits` is not `numbers.len() / 64` words, rounded up.
    pub fn pack / pack_avx512 / pack_avx2 = pack_body(numbers: &[f32], bits: &mut [u64])
}

#[inline(always)]
fn pack_body(numbers: &[f32], bits: &mut [u64]) {
    assert_eq!(bits.len(), numbers.len().div_ceil(SIGNS), "a word per 64 numbers");
    for (numbers, word) in numbers.chunks(SIGNS).zip(bits) {
        *word = numbers.iter().enumerate().fold(0, |word, (at, x)| word | (u64::from(*x < 0.0) << at));
    }
}

compiled_for_all! {
    /// Per number: -1 if more than half of the rows have its bit set, +1 if fewer, 0 if it is a tie. `rows` are as of [`pack`].
    ///
    /// # Panics
    /// If a row has fewer words than `out` needs, or there are more than 65 535.
    pub fn vote / vote_avx512 / vote_avx2 = vote_body(rows: &[&[u64]], out: &mut [f32])
}

#[inline(always)]
fn vote_body(rows: &[&[u64]], out: &mut [f32]) {
    assert!(rows.len() < 1 << PLANES, "at most 65 535 rows");
    let planes = (usize::BITS - rows.len().leading_zeros()) as usize;
    for (at, out) in out.chunks_mut(SIGNS).enumerate() {
        // Counts of 64 numbers side by side: plane p holds bit p of each count.
        let mut counts = [0u64; PLANES];
        for row in rows {
            let mut carry = row[at];
            for plane in &mut counts[..planes] {
                (*plane, carry) = (*plane ^ carry, *plane & carry);
            }
        }
        let (less, equal) = compare(&counts[..planes], rows.len() / 2);
        let tie = if rows.len().is_multiple_of(2) { equal } else { 0 };
        // Of an odd number half is rounded down: as many as that is fewer than half.
        let plus = if rows.len().is_multiple_of(2) { less } else { less | equal };
        for (bit, out) in out.iter_mut().enumerate() {
            let (plus, tie) = ((plus >> bit & 1) as i32, (tie >> bit & 1) as i32);
            *out = (2 * plus + tie - 1) as f32;
        }
    }
}

/// Which of 64 counts are less than `than`, and which are equal.
#[inline(always)]
fn compare(planes: &[u64], than: usize) -> (u64, u64) {
    let (mut less, mut equal) = (0u64, u64::MAX);
    for (at, plane) in planes.iter().enumerate().rev() {
        let wanted = if than >> at & 1 == 1 { u64::MAX } else { 0 };
        less |= equal & !plane & wanted;
        equal &= !(plane ^ wanted);
    }
    (less, equal)
}

/// The votes of whole rows: what workers that send numbers and not bits come to.
///
/// # Panics
/// If a row is shorter than `out`.
pub fn majority(rows: &[&[f32]], out: &mut [f32]) {
    const COLUMNS: usize = 64 * SIGNS;
    let words = out.len().min(COLUMNS).div_ceil(SIGNS);
    let mut bits = vec![0u64; words * rows.len()];
    for (tile, out) in out.chunks_mut(COLUMNS).enumerate() {
        let words = out.len().div_ceil(SIGNS);
        for (row, bits) in rows.iter().zip(bits.chunks_mut(words)) {
            pack(&row[tile * COLUMNS..][..out.len()], bits);
        }
        vote(&bits.chunks(words).take(rows.len()).collect::<Vec<_>>(), out);
    }
}
