//! Sixteen numbers in the registers of x86-64: two of AVX2 with FMA, or one of AVX-512.

use std::arch::x86_64::*;

use super::lanes::Lanes;

/// Two registers of 256 bits.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256, __m256);

/// One register of 512 bits.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

const SIGN: u32 = 0x8000_0000;
const UPPER: u32 = 0x7fff_0000;
const LOWER: u32 = 0x7fff;
const ONE: u32 = 0x3f80_0000;

// SAFETY of all that follows: the trait's contract says that the processor has these instructions and that pointers are good
// for sixteen numbers.
impl Lanes for Avx2 {
    const COLUMNS: usize = 1;
    const CHECK_COLUMNS: usize = 2;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Avx2) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Avx2) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn fma(self, by: Avx2, to: Avx2) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_fmadd_ps(self.0, by.0, to.0), _mm256_fmadd_ps(self.1, by.1, to.1)) }
    }

    #[inline(always)]
    unsafe fn differ(self, other: Avx2, seen: Avx2) -> Avx2 {
        // SAFETY: see above.
        unsafe {
            let part = |x, y, seen| _mm256_or_ps(_mm256_xor_ps(x, y), seen);
            Avx2(part(self.0, other.0, seen.0), part(self.1, other.1, seen.1))
        }
    }

    #[inline(always)]
    unsafe fn any_bit(self) -> bool {
        // SAFETY: see above.
        unsafe {
            let all = _mm256_castps_si256(_mm256_or_ps(self.0, self.1));
            _mm256_testz_si256(all, all) == 0
        }
    }

    #[inline(always)]
    unsafe fn fold(self, sums: *mut [f64; 8]) {
        // SAFETY: see above.
        unsafe {
            let sums = sums.cast::<f64>();
            let eight = _mm256_add_ps(self.0, self.1);
            let low = _mm256_cvtps_pd(_mm256_castps256_ps128(eight));
            let high = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(eight));
            _mm256_storeu_pd(sums, _mm256_add_pd(_mm256_loadu_pd(sums), low));
            _mm256_storeu_pd(sums.add(4), _mm256_add_pd(_mm256_loadu_pd(sums.add(4)), high));
        }
    }

    #[inline(always)]
    unsafe fn factors(words: *const u32) -> (Avx2, Avx2) {
        // SAFETY: see above.
        unsafe {
            let all = |x: u32| _mm256_set1_epi32(x.cast_signed());
            let upper = |w: __m256i| {
                let mantissa = _mm256_srli_epi32::<8>(_mm256_and_si256(w, all(UPPER)));
                let sign = _mm256_and_si256(w, all(SIGN));
                _mm256_castsi256_ps(_mm256_or_si256(_mm256_or_si256(sign, mantissa), all(ONE)))
            };
            let lower = |w: __m256i| {
                let mantissa = _mm256_slli_epi32::<8>(_mm256_and_si256(w, all(LOWER)));
                let sign = _mm256_and_si256(_mm256_slli_epi32::<16>(w), all(SIGN));
                _mm256_castsi256_ps(_mm256_or_si256(_mm256_or_si256(sign, mantissa), all(ONE)))
            };
            let (a, b) = (_mm256_loadu_si256(words.cast()), _mm256_loadu_si256(words.add(8).cast()));
            (Avx2(upper(a), upper(b)), Avx2(lower(a), lower(b)))
        }
    }
}

impl Lanes for Avx512 {
    const COLUMNS: usize = 4;
    const CHECK_COLUMNS: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Avx512) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(_mm512_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Avx512) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(_mm512_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn fma(self, by: Avx512, to: Avx512) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(_mm512_fmadd_ps(self.0, by.0, to.0)) }
    }

    #[inline(always)]
    unsafe fn differ(self, other: Avx512, seen: Avx512) -> Avx512 {
        // SAFETY: see above.
        unsafe {
            let [x, y, seen] = [self.0, other.0, seen.0].map(|x| _mm512_castps_si512(x));
            // (x ^ y) | seen
            Avx512(_mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0b1011_1110>(x, y, seen)))
        }
    }

    #[inline(always)]
    unsafe fn any_bit(self) -> bool {
        // SAFETY: see above.
        unsafe {
            let bits = _mm512_castps_si512(self.0);
            _mm512_test_epi32_mask(bits, bits) != 0
        }
    }

    #[inline(always)]
    unsafe fn fold(self, sums: *mut [f64; 8]) {
        // SAFETY: see above.
        unsafe {
            let sums = sums.cast::<f64>();
            let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            _mm512_storeu_pd(sums, _mm512_add_pd(_mm512_loadu_pd(sums), _mm512_cvtps_pd(eight)));
        }
    }

    #[inline(always)]
    unsafe fn factors(words: *const u32) -> (Avx512, Avx512) {
        // SAFETY: see above.
        unsafe {
            let all = |x: u32| _mm512_set1_epi32(x.cast_signed());
            let w = _mm512_loadu_si512(words.cast());
            let number = |sign: __m512i, mantissa: __m512i| {
                let sign = _mm512_and_si512(sign, all(SIGN));
                Avx512(_mm512_castsi512_ps(_mm512_or_si512(_mm512_or_si512(sign, mantissa), all(ONE))))
            };
            let upper = number(w, _mm512_srli_epi32::<8>(_mm512_and_si512(w, all(UPPER))));
            let lower = number(_mm512_slli_epi32::<16>(w), _mm512_slli_epi32::<8>(_mm512_and_si512(w, all(LOWER))));
            (upper, lower)
        }
    }
}
