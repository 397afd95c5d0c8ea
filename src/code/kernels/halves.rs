//! Numbers of 16 bits: integer operations without branches, of which the compiler makes vectors as wide as the processor has.

use super::lanes::Lanes;

const INFINITY: u32 = 0x7f80_0000;
/// Tells a NaN that is quiet, in f32.
const QUIET: u32 = 0x0040_0000;
/// 2^-14, the least f16 that has all digits.
const LEAST_F16: u32 = 0x3880_0000;
/// What the exponents of f32 and f16 differ by, in its place.
const REBIAS: u32 = (127 - 15) << 23;

#[inline(always)]
fn wide<const F16: bool>(half: u16) -> f32 {
    let (sign, rest) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff));
    let (bits, nan) = if F16 {
        // Exact: at most ten bits, times a power of two.
        let small = (rest.cast_signed() as f32 * (1.0 / (1 << 24) as f32)).to_bits();
        let bits = if rest < 0x0400 { small } else { (rest << 13) + REBIAS };
        (if rest < 0x7c00 { bits } else { rest << 13 | INFINITY }, rest > 0x7c00)
    } else {
        (rest << 16, rest > 0x7f80)
    };
    f32::from_bits(sign | bits | if nan { QUIET } else { 0 })
}

#[inline(always)]
fn narrow<const F16: bool>(number: f32) -> u16 {
    let bits = number.to_bits();
    let (sign, rest) = ((bits >> 16) as u16 & 0x8000, bits & 0x7fff_ffff);
    // To the nearest, ties to even: just below a half is added, or a half if the last bit that stays is 1.
    let rounded = if F16 {
        // The last place of numbers from a half on is the smallest step of f16.
        let small = (f32::from_bits(rest) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let usual = rest.wrapping_add(0xfff + (rest >> 13 & 1)).wrapping_sub(REBIAS) >> 13;
        let finite = if rest < LEAST_F16 { small } else { usual };
        let nan = 0x7e00 | (rest >> 13 & 0x3ff);
        let large = if rest > INFINITY { nan } else { 0x7c00 };
        // From 2^16 on.
        if rest < 0x4780_0000 { finite } else { large }
    } else {
        let nan = rest >> 16 | QUIET >> 16;
        if rest > INFINITY { nan } else { (rest + 0x7fff + (rest >> 16 & 1)) >> 16 }
    };
    sign | rounded as u16
}

/// `to = from`.
///
/// # Safety
/// None needed: the processor has what the caller was compiled for.
#[inline(always)]
pub(super) unsafe fn widened<L: Lanes, const F16: bool>(from: &[u16], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = wide::<F16>(*from));
}

/// `to = from`, rounded.
///
/// # Safety
/// As above.
#[inline(always)]
pub(super) unsafe fn narrowed<L: Lanes, const F16: bool>(from: &[f32], to: &mut [u16]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = narrow::<F16>(*from));
}

/// Raises `most` to the bits of the largest absolute value; those of a NaN are the largest.
///
/// # Safety
/// As above.
#[inline(always)]
pub(super) unsafe fn highest<L: Lanes>(numbers: &[f32], most: &mut u32) {
    *most = numbers.iter().fold(*most, |most, x| most.max(x.to_bits() & 0x7fff_ffff));
}
