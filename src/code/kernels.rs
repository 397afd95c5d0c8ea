//! The inner loops over shards: scalar loops, compiled twice.
//!
//! Each loop is one `#[inline(always)]` body in fixed order, compiled for the baseline and again with AVX2 enabled; the
//! compiler never fuses or reorders floating point, so both give the same bits. That is the definition that faster
//! kernels are compared with.

#![allow(unsafe_code)]

use super::projection::PROJECTIONS_MAX;

/// Numbers of a tile that stays in the first-level cache between the passes over it.
pub(super) const TILE: usize = 512;

macro_rules! compiled_twice {
    ($(#[$doc:meta])* fn $name:ident = $body:ident / $fast:ident ($($arg:ident: $kind:ty),*) $(-> $result:ty)?) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn $fast($($arg: $kind),*) $(-> $result)? {
            $body($($arg),*)
        }

        $(#[$doc])*
        pub(super) fn $name($($arg: $kind),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has AVX2.
                return unsafe { $fast($($arg),*) };
            }
            $body($($arg),*)
        }
    };
}

compiled_twice! {
    /// `acc[c] = (((acc[c] + k0 x0[c]) + k1 x1[c]) + k2 x2[c]) + k3 x3[c]`: four [`add_scaled`] in one pass, same bits.
    fn add_scaled4 = add_scaled4_body / add_scaled4_avx2(acc: &mut [f32], factors: [f32; 4], x: [&[f32]; 4])
}

compiled_twice! {
    /// `acc[c] += factor * x[c]`, over the shorter of the two.
    fn add_scaled = add_scaled_body / add_scaled_avx2(acc: &mut [f32], factor: f32, x: &[f32])
}

compiled_twice! {
    /// `out[c] = scale * x[c]`, over the shorter of the two.
    fn scale_into = scale_into_body / scale_into_avx2(out: &mut [f32], scale: f32, x: &[f32])
}

compiled_twice! {
    /// Inner products with the first `sums.len()` of `factors`' rows (each `stride` long), the sum of squares, and whether every
    /// number is finite.
    fn project = project_body / project_avx2(shard: &[f32], factors: &[f32], stride: usize, sums: &mut [f64]) -> (f64, bool)
}

/// Adds the numbers of `src` to those of `dst`: how groups whose agreeing rows are the same set are summed before recovery.
///
/// # Panics
/// If the lengths differ.
pub fn sum_into(dst: &mut [f32], src: &[f32]) {
    assert_eq!(dst.len(), src.len(), "shards of one chunk have one width");
    add_scaled(dst, 1.0, src);
}

#[inline(always)]
fn add_scaled4_body(acc: &mut [f32], [k0, k1, k2, k3]: [f32; 4], [x0, x1, x2, x3]: [&[f32]; 4]) {
    let n = acc.len();
    let (x0, x1, x2, x3) = (&x0[..n], &x1[..n], &x2[..n], &x3[..n]);
    for c in 0..n {
        acc[c] = (((acc[c] + k0 * x0[c]) + k1 * x1[c]) + k2 * x2[c]) + k3 * x3[c];
    }
}

#[inline(always)]
fn add_scaled_body(acc: &mut [f32], factor: f32, x: &[f32]) {
    for (a, &b) in acc.iter_mut().zip(x) {
        *a += factor * b;
    }
}

#[inline(always)]
fn scale_into_body(out: &mut [f32], scale: f32, x: &[f32]) {
    for (a, &b) in out.iter_mut().zip(x) {
        *a = scale * b;
    }
}

#[inline(always)]
fn project_body(shard: &[f32], factors: &[f32], stride: usize, sums: &mut [f64]) -> (f64, bool) {
    match sums.len() {
        1 => project_rows::<1>(shard, factors, stride, sums),
        2 => project_rows::<2>(shard, factors, stride, sums),
        3 => project_rows::<3>(shard, factors, stride, sums),
        4 => project_rows::<4>(shard, factors, stride, sums),
        5 => project_rows::<5>(shard, factors, stride, sums),
        6 => project_rows::<6>(shard, factors, stride, sums),
        7 => project_rows::<7>(shard, factors, stride, sums),
        _ => project_rows::<PROJECTIONS_MAX>(shard, factors, stride, sums),
    }
}

#[inline(always)]
fn project_rows<const K: usize>(shard: &[f32], factors: &[f32], stride: usize, sums: &mut [f64]) -> (f64, bool) {
    const LANES: usize = 8;
    const EXPONENT: u32 = 0x7f80_0000;
    let n = shard.len();
    let rows: [&[f32]; K] = std::array::from_fn(|k| &factors[k * stride..][..n]);
    let mut acc = [[0f64; LANES]; K];
    let mut squares = [0f64; LANES];
    let mut wild = [0u32; LANES];
    let (blocks, rest) = shard.as_chunks::<LANES>();
    let row_blocks: [&[[f32; LANES]]; K] = std::array::from_fn(|k| &rows[k].as_chunks::<LANES>().0[..blocks.len()]);
    for (b, x) in blocks.iter().enumerate() {
        for lane in 0..LANES {
            wild[lane] |= u32::from(x[lane].to_bits() & EXPONENT == EXPONENT);
        }
        let x = x.map(f64::from);
        for lane in 0..LANES {
            squares[lane] += x[lane] * x[lane];
        }
        for k in 0..K {
            for lane in 0..LANES {
                acc[k][lane] += f64::from(row_blocks[k][b][lane]) * x[lane];
            }
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        wild[lane] |= u32::from(x.to_bits() & EXPONENT == EXPONENT);
        let x = f64::from(x);
        squares[lane] += x * x;
        for k in 0..K {
            acc[k][lane] += f64::from(rows[k][n - rest.len() + lane]) * x;
        }
    }
    for (sum, lanes) in sums.iter_mut().zip(&acc) {
        *sum = lanes.iter().sum();
    }
    (squares.iter().sum(), wild.iter().all(|&w| w == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(seed: u32, n: usize) -> Vec<f32> {
        let mut x = seed;
        let next = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            x as f32 / u32::MAX as f32 - 0.5
        };
        std::iter::repeat_with(next).take(n).collect()
    }

    #[test]
    fn fast_and_baseline_versions_give_the_same_bits() {
        for n in [0, 1, 7, 8, 9, 31, 513] {
            let x: [Vec<f32>; 4] = std::array::from_fn(|k| numbers(k as u32 + 1, n));
            let refs: [&[f32]; 4] = std::array::from_fn(|k| x[k].as_slice());
            let factors = [0.3, -1.7, 2.5e-3, 11.0];
            let (mut fast, mut plain, mut single) = (numbers(9, n), numbers(9, n), numbers(9, n));
            add_scaled4(&mut fast, factors, refs);
            add_scaled4_body(&mut plain, factors, refs);
            (0..4).for_each(|k| add_scaled(&mut single, factors[k], refs[k]));
            assert_eq!(fast, plain);
            assert_eq!(fast, single);
            let table = numbers(77, 8 * n);
            for k in 1..=8 {
                let (mut a, mut b) = (vec![0.0; k], vec![0.0; k]);
                assert_eq!(project(&x[0], &table, n, &mut a), project_body(&x[0], &table, n, &mut b));
                assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn sum_into_adds() {
        let mut sum = [1.0, 2.0];
        sum_into(&mut sum, &[0.5, -2.0]);
        assert_eq!(sum, [1.5, 0.0]);
    }
}
