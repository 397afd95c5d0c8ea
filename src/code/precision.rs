//! How the numbers of shards and updates stand on the wire: as they are computed, or rounded to 16 bits. All arithmetic is in f32
//! and f64.

use std::fmt;

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::{Deserialize, Serialize};

use super::Generator;
use super::kernels::Kernels;
use crate::rules::sign;

/// The default relative tolerance in units of the roundoff: see [`Tolerance::default`](super::Tolerance).
const ROUNDINGS: f64 = 6.0;
/// The largest finite f16.
const LARGEST_F16: f64 = 65_504.0;
/// Numbers that are converted in place at a time: they are in the first-level cache.
const PORTION: usize = 1024;

/// What numbers are rounded to, to the nearest and ties to even. The line of each word is its help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 4 bytes: not rounded at all
    #[default]
    F32,
    /// 2 bytes: the range of f32, 8 bits of precision
    Bf16,
    /// 2 bytes: numbers up to 65504, 11 bits of precision
    F16,
    /// 1 bit: below zero or not, for the rule signum only
    Sign,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
            Precision::Sign => "sign",
        })
    }
}

impl Precision {
    /// All that say how large a number is: what a code can be made of.
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::F16];

    /// Reads one of [`Precision::ALL`]: for command lines about codes.
    pub fn coded() -> impl TypedValueParser<Value = Precision> {
        let words = PossibleValuesParser::new(Precision::ALL.map(|it| it.to_possible_value().expect("it has a word")));
        words.map(|word| Precision::from_str(&word, false).expect("one of the words"))
    }

    /// Bytes of `count` numbers.
    pub fn shard_bytes(self, count: usize) -> usize {
        match self {
            Precision::F32 => 4 * count,
            Precision::Bf16 | Precision::F16 => 2 * count,
            Precision::Sign => count.div_ceil(8),
        }
    }

    /// The largest relative error of rounding a number that is not too small: half of the last place of 1.
    pub fn unit_roundoff(self) -> f64 {
        match self {
            Precision::F32 => 2f64.powi(-24),
            Precision::Bf16 => 2f64.powi(-8),
            Precision::F16 => 2f64.powi(-11),
            // Nothing is known of a number but its sign.
            Precision::Sign => 1.0,
        }
    }

    /// The largest error of rounding a number that is too small for that, beyond what f32 itself may flush to 0.
    pub fn smallest_error(self) -> f64 {
        match self {
            // bf16 has the exponents of f32.
            Precision::F32 | Precision::Bf16 | Precision::Sign => 0.0,
            Precision::F16 => 2f64.powi(-25),
        }
    }

    /// Is rounding a matter of percents, so that a lie as large as the gradient is only tens of tolerances? Then chance must be
    /// left less. Not with r_c = 1: replicas are rounded to the same bits.
    pub fn is_coarse(self, compression: usize) -> bool {
        matches!(self, Precision::Bf16 | Precision::F16) && compression > 1
    }

    /// The relative tolerance for shards whose only difference is rounding.
    pub fn tolerance(self, compression: usize) -> f64 {
        let finest = if self.is_coarse(compression) { self } else { Precision::F32 };
        ROUNDINGS * finest.unit_roundoff()
    }

    /// The least relative tolerance that is of use: below it honest rounding would look like lies. 0 where shards are not coarse.
    pub fn least_tolerance(self, compression: usize) -> f64 {
        if self.is_coarse(compression) { 2.0 * self.unit_roundoff() } else { 0.0 }
    }

    /// What is allowed per number beside the relative tolerance: `solon plan` says what that hides.
    pub fn absolute_tolerance(self, compression: usize) -> f64 {
        if self.is_coarse(compression) { ROUNDINGS * self.smallest_error() } else { 0.0 }
    }

    /// Writes `numbers` to `bytes`, rounded.
    ///
    /// # Panics
    /// If there is another number of bytes, or they do not lie as numbers do.
    pub fn narrow(self, numbers: &[f32], bytes: &mut [u8]) {
        self.narrow_with(Kernels::best(), numbers, bytes);
    }

    pub(super) fn narrow_with(self, kernels: Kernels, numbers: &[f32], bytes: &mut [u8]) {
        match self {
            Precision::F32 => bytemuck::cast_slice_mut(bytes).copy_from_slice(numbers),
            Precision::Bf16 => kernels.narrow::<false>(numbers, bytemuck::cast_slice_mut(bytes)),
            Precision::F16 => kernels.narrow::<true>(numbers, bytemuck::cast_slice_mut(bytes)),
            Precision::Sign => pack(numbers, bytes),
        }
    }

    /// Reads `numbers` from `bytes`: exact.
    ///
    /// # Panics
    /// As [`Precision::narrow`].
    pub fn widen(self, bytes: &[u8], numbers: &mut [f32]) {
        self.widen_with(Kernels::best(), bytes, numbers);
    }

    fn widen_with(self, kernels: Kernels, bytes: &[u8], numbers: &mut [f32]) {
        match self {
            Precision::F32 => numbers.copy_from_slice(bytemuck::cast_slice(bytes)),
            Precision::Bf16 => kernels.widen::<false>(bytemuck::cast_slice(bytes), numbers),
            Precision::F16 => kernels.widen::<true>(bytemuck::cast_slice(bytes), numbers),
            Precision::Sign => unpack(bytes, numbers),
        }
    }

    /// Rounds the f32 in `bytes` to its beginning; the rest of `bytes` is then of no use. `false` if a number came out infinite
    /// or not a number. Nothing is done, and nothing looked at, where numbers are not rounded.
    ///
    /// # Panics
    /// If `bytes` do not lie as numbers do.
    pub fn narrow_in_place(self, bytes: &mut [u8]) -> bool {
        if self == Precision::F32 {
            return true;
        }
        let count = bytes.len() / 4;
        if self == Precision::Sign {
            let mut room = [0u8; PORTION / 8];
            for start in (0..count).step_by(PORTION) {
                let end = count.min(start + PORTION);
                let signs = &mut room[..(end - start).div_ceil(8)];
                pack(bytemuck::cast_slice(&bytes[4 * start..4 * end]), signs);
                bytes[start / 8..][..signs.len()].copy_from_slice(signs);
            }
            return true;
        }
        let mut room = [0u16; PORTION];
        let mut largest = 0;
        // Forwards: what is written ends before what is still to be read.
        for start in (0..count).step_by(PORTION) {
            let end = count.min(start + PORTION);
            let halves = &mut room[..end - start];
            self.narrow(bytemuck::cast_slice(&bytes[4 * start..4 * end]), bytemuck::cast_slice_mut(halves));
            // Without their signs patterns rise with what they stand for.
            largest = halves.iter().fold(largest, |largest: i16, half| largest.max((half & 0x7fff) as i16));
            bytes[2 * start..2 * end].copy_from_slice(bytemuck::cast_slice(halves));
        }
        largest < self.infinity()
    }

    /// The pattern of infinity in 16 bits; larger ones are not numbers.
    fn infinity(self) -> i16 {
        if self == Precision::F16 { 0x7c00 } else { 0x7f80 }
    }

    /// Reads what stands rounded at the beginning of `bytes` to the f32 that fill them: exact.
    ///
    /// # Panics
    /// As [`Precision::narrow_in_place`].
    pub fn widen_in_place(self, bytes: &mut [u8]) {
        if self == Precision::F32 {
            return;
        }
        let count = bytes.len() / 4;
        if self == Precision::Sign {
            let mut room = [0u8; PORTION / 8];
            for start in (0..count).step_by(PORTION).rev() {
                let end = count.min(start + PORTION);
                let signs = &mut room[..(end - start).div_ceil(8)];
                signs.copy_from_slice(&bytes[start / 8..][..signs.len()]);
                unpack(signs, bytemuck::cast_slice_mut(&mut bytes[4 * start..4 * end]));
            }
            return;
        }
        let mut room = [0u16; PORTION];
        // Backwards: what is still to be read ends before what is written.
        for start in (0..count).step_by(PORTION).rev() {
            let end = count.min(start + PORTION);
            let halves = &mut room[..end - start];
            halves.copy_from_slice(bytemuck::cast_slice(&bytes[2 * start..2 * end]));
            self.widen(bytemuck::cast_slice(halves), bytemuck::cast_slice_mut(&mut bytes[4 * start..4 * end]));
        }
    }

    /// May a shard of `block` hold a number that is too large, be it in another row? Workers of the same bits all say the same; if
    /// only some did, those would seem to lie.
    pub(super) fn may_overflow(self, kernels: Kernels, generator: &Generator, block: &[f32]) -> bool {
        if self != Precision::F16 {
            return false;
        }
        let sum = |row| generator.row(row).iter().map(|x| f64::from(x.abs())).sum::<f64>();
        let enlarged = (0..generator.redundancy()).map(sum).fold(1.0, f64::max);
        !(f64::from(kernels.largest(block)) * enlarged <= LARGEST_F16)
    }
}

/// Writes the signs of `numbers`, eight to a byte, the first in the lowest bit: set for a number below zero.
fn pack(numbers: &[f32], bytes: &mut [u8]) {
    assert_eq!(bytes.len(), numbers.len().div_ceil(8), "a bit per number");
    let mut words = [0u64; PORTION / sign::SIGNS];
    for (numbers, bytes) in numbers.chunks(PORTION).zip(bytes.chunks_mut(PORTION / 8)) {
        let words = &mut words[..numbers.len().div_ceil(sign::SIGNS)];
        sign::pack(numbers, words);
        bytes.copy_from_slice(&bytemuck::cast_slice(words)[..bytes.len()]);
    }
}

/// -1 where the bit is set, 1 elsewhere.
fn unpack(bytes: &[u8], numbers: &mut [f32]) {
    assert_eq!(bytes.len(), numbers.len().div_ceil(8), "a bit per number");
    for (byte, numbers) in bytes.iter().zip(numbers.chunks_mut(8)) {
        for (bit, number) in numbers.iter_mut().enumerate() {
            // The sign is the highest bit of 1.
            *number = f32::from_bits(1f32.to_bits() | u32::from(byte >> bit & 1) << 31);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::code::{Family, Form};

    fn narrow(numbers: &[f32], precision: Precision, kernels: Kernels) -> Vec<u16> {
        let mut halves = vec![0u16; numbers.len()];
        precision.narrow_with(kernels, numbers, bytemuck::cast_slice_mut(&mut halves));
        halves
    }

    fn wide(halves: &[u16], precision: Precision, kernels: Kernels) -> Vec<f32> {
        let mut numbers = vec![0.0; halves.len()];
        precision.widen_with(kernels, bytemuck::cast_slice(halves), &mut numbers);
        numbers
    }

    /// The conversions of single numbers of another implementation.
    type Other = (Precision, fn(u16) -> f32, fn(f32) -> u16);
    const OTHERS: [Other; 2] = [
        (Precision::Bf16, |x| bf16::from_bits(x).to_f32(), |x| bf16::from_f32(x).to_bits()),
        (Precision::F16, |x| f16::from_bits(x).to_f32_const(), |x| f16::from_f32_const(x).to_bits()),
    ];

    #[test]
    fn widening_is_that_of_another_implementation_for_every_pattern_and_loses_nothing() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        for ((precision, other, _), kernels) in
            OTHERS.into_iter().flat_map(|it| Kernels::all().into_iter().map(move |k| (it, k)))
        {
            let numbers = wide(&all, precision, kernels);
            let back = narrow(&numbers, precision, kernels);
            for ((&pattern, &number), back) in all.iter().zip(&numbers).zip(back) {
                assert_eq!(number.to_bits(), other(pattern).to_bits(), "{precision} {kernels:?} {pattern:#06x}");
                // A NaN that signals becomes quiet; nothing else changes, not even the sign of 0.
                let quiet = back == pattern | if precision == Precision::F16 { 0x200 } else { 0x40 };
                assert!(
                    back == pattern || number.is_nan() && quiet,
                    "{precision} {kernels:?} {pattern:#06x} {back:#06x}"
                );
            }
        }
    }

    #[test]
    fn rounding_is_that_of_another_implementation_and_within_the_unit_roundoff() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state ^ state >> 15
        };
        // Everywhere, and about every number of 16 bits and halfway to the next.
        let mut patterns: Vec<u32> = (0..400_003).map(|_| random()).collect();
        for pattern in 0..=u16::MAX {
            for (precision, other, _) in OTHERS {
                let bits = other(pattern).to_bits();
                let half = if precision == Precision::F16 { 1 << 12 } else { 1 << 15 };
                let tie = bits.wrapping_add(half);
                patterns.extend([bits, bits.wrapping_sub(1), tie.wrapping_sub(1), tie, tie.wrapping_add(1)]);
            }
        }
        // Ties of f16 that have lost digits.
        patterns.extend(
            (0..2048).flat_map(|n| [-1, 0, 1].map(|off| ((n as f32 * 0.5f32.powi(25)).to_bits() as i32 + off) as u32)),
        );
        let numbers: Vec<f32> = patterns.iter().map(|bits| f32::from_bits(*bits)).collect();
        for ((precision, _, other), kernels) in
            OTHERS.into_iter().flat_map(|it| Kernels::all().into_iter().map(move |k| (it, k)))
        {
            let halves = narrow(&numbers, precision, kernels);
            let (least, most) = match precision {
                Precision::F16 => (2f32.powi(-14), 65_504.0),
                _ => (f32::MIN_POSITIVE, 3.38e38),
            };
            for ((&number, &half), rounded) in numbers.iter().zip(&halves).zip(wide(&halves, precision, kernels)) {
                assert_eq!(half, other(number), "{precision} {kernels:?} {number:e} {:#010x}", number.to_bits());
                let (error, size) = ((f64::from(number) - f64::from(rounded)).abs(), f64::from(number.abs()));
                if number.abs() < least {
                    assert!(
                        error <= precision.smallest_error().max(f64::from(f32::MIN_POSITIVE)),
                        "{precision} {number:e}"
                    );
                } else if number.abs() <= most {
                    assert!(error <= precision.unit_roundoff() * size, "{precision} {number:e} {rounded:e}");
                }
            }
        }
    }

    #[test]
    fn in_place_the_same_bits_come_out_and_what_is_not_finite_is_seen_wherever_it_is() {
        let lengths = [1, 2, 3, 97, PORTION - 1, PORTION, PORTION + 1, 3 * PORTION + 613];
        for (precision, len) in Precision::ALL.into_iter().flat_map(|it| lengths.map(|len| (it, len))) {
            let special = [-0.0, 1e-40, -1e-45, 65_504.0, -1.5, f32::MIN_POSITIVE, 1.0 + 2f32.powi(-8), 2f32.powi(-25)];
            let numbers: Vec<f32> = (0..len).map(|at| special[at % 8] * (1.0 + (at / 8) as f32 / 65_536.0)).collect();
            let numbers: Vec<f32> = numbers.into_iter().map(|x| x.clamp(-65_504.0, 65_504.0)).collect();
            let mut halves = vec![0u16; precision.shard_bytes(len) / 2];
            precision.narrow(&numbers, bytemuck::cast_slice_mut(&mut halves));
            let mut wanted = vec![0.0; len];
            precision.widen(bytemuck::cast_slice(&halves), &mut wanted);
            let mut place = numbers.clone();
            assert!(precision.narrow_in_place(bytemuck::cast_slice_mut(&mut place)), "{precision} {len}");
            let rounded = &bytemuck::cast_slice::<f32, u8>(&place)[..precision.shard_bytes(len)];
            assert!(rounded == bytemuck::cast_slice::<u16, u8>(&halves), "{precision} {len}");
            precision.widen_in_place(bytemuck::cast_slice_mut(&mut place));
            let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&place), bits(&wanted), "{precision} {len}");
            let (last, first_lost) = match precision {
                Precision::F32 => continue,
                Precision::Bf16 => (f32::from_bits(0x7f7f_7fff), f32::from_bits(0x7f7f_8000)),
                Precision::F16 => (65_519.996, 65_520.0),
                Precision::Sign => unreachable!("not among all that say how large"),
            };
            for at in [0, len / 2, len - 1] {
                for (number, finite) in
                    [last, first_lost, f32::INFINITY, f32::NAN].into_iter().zip([true, false, false, false])
                {
                    for number in [number, -number] {
                        let mut place = numbers.clone();
                        place[at] = number;
                        let found = precision.narrow_in_place(bytemuck::cast_slice_mut(&mut place));
                        assert_eq!(found, finite, "{precision} {len} {at} {number:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_number_is_found_wherever_it_is_and_nan_is_larger() {
        for kernels in Kernels::all() {
            for len in [1, 5, 16, 100] {
                for at in 0..len {
                    for large in [-7.5, f32::INFINITY, -f32::NAN] {
                        let mut numbers = vec![0.25; len];
                        numbers[at] = large;
                        assert_eq!(
                            kernels.largest(&numbers).to_bits(),
                            large.abs().to_bits(),
                            "{kernels:?} {len} {at}"
                        );
                    }
                }
            }
            assert_eq!(kernels.largest(&[]), 0.0);
        }
    }

    #[test]
    fn with_compression_1_all_rows_are_the_same_bits_in_every_family_and_size() {
        for r in 1..=crate::code::ROWS_MAX {
            for (family, form) in [
                (Family::Trigonometric, Form::Systematic),
                (Family::Trigonometric, Form::Dense),
                (Family::Polynomial, Form::Dense),
            ] {
                let generator = Generator::new(family, form, r, 1).unwrap();
                assert!((0..r).all(|row| generator.row(row) == generator.row(0)), "{family:?} {form:?} {r}");
            }
        }
    }

    #[test]
    fn the_tolerance_is_that_of_f32_where_replicas_are_the_same_bits() {
        for precision in Precision::ALL {
            assert_eq!(precision.tolerance(1), 6.0 / f64::from(1 << 24));
        }
        let tolerances = Precision::ALL.map(|precision| precision.tolerance(2));
        assert_eq!(tolerances, [6.0 / f64::from(1 << 24), 6.0 / 256.0, 6.0 / 2048.0]);
    }
}
