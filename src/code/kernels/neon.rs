//! Sixteen numbers in the registers of AArch64: four of NEON.

use std::arch::aarch64::*;

use super::lanes::Lanes;

/// Four registers of 128 bits.
#[derive(Clone, Copy)]
pub(super) struct Neon([float32x4_t; 4]);

const SIGN: u32 = 0x8000_0000;
const UPPER: u32 = 0x7fff_0000;
const LOWER: u32 = 0x7fff;
const ONE: u32 = 0x3f80_0000;

// SAFETY of all that follows: the trait's contract says that the processor has these instructions and that pointers are good
// for sixteen numbers.
impl Lanes for Neon {
    // As for AVX2: eight times sixteen numbers fit in the registers.
    const COLUMNS: usize = 1;
    const CHECK_COLUMNS: usize = 2;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Neon {
        // SAFETY: see above.
        unsafe { Neon([vdupq_n_f32(x); 4]) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Neon {
        // SAFETY: see above.
        unsafe { Neon([vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))]) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe {
            vst1q_f32(to, self.0[0]);
            vst1q_f32(to.add(4), self.0[1]);
            vst1q_f32(to.add(8), self.0[2]);
            vst1q_f32(to.add(12), self.0[3]);
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Neon) -> Neon {
        let (x, y) = (self.0, other.0);
        // SAFETY: see above.
        unsafe { Neon([vaddq_f32(x[0], y[0]), vaddq_f32(x[1], y[1]), vaddq_f32(x[2], y[2]), vaddq_f32(x[3], y[3])]) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Neon) -> Neon {
        let (x, y) = (self.0, other.0);
        // SAFETY: see above.
        unsafe { Neon([vmulq_f32(x[0], y[0]), vmulq_f32(x[1], y[1]), vmulq_f32(x[2], y[2]), vmulq_f32(x[3], y[3])]) }
    }

    #[inline(always)]
    unsafe fn fma(self, by: Neon, to: Neon) -> Neon {
        let (x, y, z) = (self.0, by.0, to.0);
        // SAFETY: see above.
        unsafe {
            Neon([
                vfmaq_f32(z[0], x[0], y[0]),
                vfmaq_f32(z[1], x[1], y[1]),
                vfmaq_f32(z[2], x[2], y[2]),
                vfmaq_f32(z[3], x[3], y[3]),
            ])
        }
    }

    #[inline(always)]
    unsafe fn differ(self, other: Neon, seen: Neon) -> Neon {
        let (x, y, seen) = (bits(self), bits(other), bits(seen));
        // SAFETY: see above.
        unsafe {
            numbers([
                vorrq_u32(veorq_u32(x[0], y[0]), seen[0]),
                vorrq_u32(veorq_u32(x[1], y[1]), seen[1]),
                vorrq_u32(veorq_u32(x[2], y[2]), seen[2]),
                vorrq_u32(veorq_u32(x[3], y[3]), seen[3]),
            ])
        }
    }

    #[inline(always)]
    unsafe fn any_bit(self) -> bool {
        let x = bits(self);
        // SAFETY: see above.
        unsafe { vmaxvq_u32(vorrq_u32(vorrq_u32(x[0], x[1]), vorrq_u32(x[2], x[3]))) != 0 }
    }

    #[inline(always)]
    unsafe fn fold(self, sums: *mut [f64; 8]) {
        // SAFETY: see above.
        unsafe {
            let sums = sums.cast::<f64>();
            let (low, high) = (vaddq_f32(self.0[0], self.0[2]), vaddq_f32(self.0[1], self.0[3]));
            vst1q_f64(sums, vaddq_f64(vld1q_f64(sums), vcvt_f64_f32(vget_low_f32(low))));
            vst1q_f64(sums.add(2), vaddq_f64(vld1q_f64(sums.add(2)), vcvt_high_f64_f32(low)));
            vst1q_f64(sums.add(4), vaddq_f64(vld1q_f64(sums.add(4)), vcvt_f64_f32(vget_low_f32(high))));
            vst1q_f64(sums.add(6), vaddq_f64(vld1q_f64(sums.add(6)), vcvt_high_f64_f32(high)));
        }
    }

    #[inline(always)]
    unsafe fn factors(words: *const u32) -> (Neon, Neon) {
        // SAFETY: see above.
        unsafe {
            let w = [vld1q_u32(words), vld1q_u32(words.add(4)), vld1q_u32(words.add(8)), vld1q_u32(words.add(12))];
            let uppers = numbers([upper(w[0]), upper(w[1]), upper(w[2]), upper(w[3])]);
            let lowers = numbers([lower(w[0]), lower(w[1]), lower(w[2]), lower(w[3])]);
            (uppers, lowers)
        }
    }
}

#[inline(always)]
fn bits(x: Neon) -> [uint32x4_t; 4] {
    // SAFETY: both are sixteen times four bytes, of which every pattern is a value.
    unsafe { std::mem::transmute(x) }
}

#[inline(always)]
fn numbers(x: [uint32x4_t; 4]) -> Neon {
    // SAFETY: as above.
    unsafe { std::mem::transmute(x) }
}

/// The number of the upper halves of four words.
#[inline(always)]
unsafe fn upper(w: uint32x4_t) -> uint32x4_t {
    // SAFETY: the caller's.
    unsafe {
        let mantissa = vshrq_n_u32::<8>(vandq_u32(w, vdupq_n_u32(UPPER)));
        let sign = vandq_u32(w, vdupq_n_u32(SIGN));
        vorrq_u32(vorrq_u32(sign, mantissa), vdupq_n_u32(ONE))
    }
}

/// That of the lower halves.
#[inline(always)]
unsafe fn lower(w: uint32x4_t) -> uint32x4_t {
    // SAFETY: the caller's.
    unsafe {
        let mantissa = vshlq_n_u32::<8>(vandq_u32(w, vdupq_n_u32(LOWER)));
        let sign = vandq_u32(vshlq_n_u32::<16>(w), vdupq_n_u32(SIGN));
        vorrq_u32(vorrq_u32(sign, mantissa), vdupq_n_u32(ONE))
    }
}
