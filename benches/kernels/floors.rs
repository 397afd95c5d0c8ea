//! What the machine can do: read numbers, multiply and add.

#![allow(unsafe_code)]

use std::hint::black_box;
use std::time::Instant;

/// The sum of all numbers in as many registers as it takes: what reading costs.
pub fn read(numbers: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512.
            return unsafe { x86::read_avx512(numbers) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { x86::read_avx2(numbers) };
        }
    }
    read_body(numbers)
}

#[inline(always)]
fn read_body(numbers: &[f32]) -> f32 {
    let mut sums = [0f32; 64];
    for block in numbers.as_chunks::<64>().0 {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += x;
        }
    }
    sums.iter().sum()
}

/// Billions of numbers that one core can multiply and add in a second, out of its registers; 0 where nobody wrote the loop.
pub fn multiply_adds(seconds: f64) -> f64 {
    let (start, mut calls) = (Instant::now(), 0u32);
    while calls == 0 || start.elapsed().as_secs_f64() < seconds {
        let done = black_box(burn());
        if done == 0 {
            return 0.0;
        }
        calls += 1;
    }
    f64::from(calls) * burn() as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Multiplies and adds for some microseconds; how many numbers it were.
fn burn() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512.
            return unsafe { x86::burn_avx512() };
        }
        if std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has AVX2 and FMA.
            return unsafe { x86::burn_avx2() };
        }
    }
    0
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    const ROUNDS: usize = 10_000;
    const CHAINS: usize = 12;

    #[target_feature(enable = "avx512f")]
    pub fn read_avx512(numbers: &[f32]) -> f32 {
        let mut sums = [_mm512_setzero_ps(); 8];
        let (blocks, rest) = numbers.as_chunks::<128>();
        for block in blocks {
            for (k, sum) in sums.iter_mut().enumerate() {
                // SAFETY: eight vectors of sixteen numbers are the block.
                *sum = _mm512_add_ps(*sum, unsafe { _mm512_loadu_ps(block.as_ptr().add(16 * k)) });
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum::<f32>() + rest.iter().sum::<f32>()
    }

    #[target_feature(enable = "avx2")]
    pub fn read_avx2(numbers: &[f32]) -> f32 {
        super::read_body(numbers)
    }

    #[target_feature(enable = "avx512f")]
    pub fn burn_avx512() -> usize {
        let factor = _mm512_set1_ps(black_box(0.5));
        let mut sums = [_mm512_set1_ps(black_box(1.0)); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
        16 * CHAINS * ROUNDS
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn burn_avx2() -> usize {
        let factor = _mm256_set1_ps(black_box(0.5));
        let mut sums = [_mm256_set1_ps(black_box(1.0)); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
        8 * CHAINS * ROUNDS
    }
}
