//! Sixteen f32 numbers at a time, whatever the registers of the processor are: the bodies of the kernels are written once over
//! this, and every processor computes the same sums in the same order.

/// Sixteen numbers.
///
/// # Safety
/// Every method may be called only where the processor has what the implementation is made of, which is what its [`Kernels`]
/// variant vouches for; pointers must be good for sixteen numbers (alignment is not needed).
///
/// [`Kernels`]: super::Kernels
pub(super) trait Lanes: Copy {
    /// Vectors of columns that a product keeps in registers side by side, at most [`COLUMNS_MAX`].
    const COLUMNS: usize;
    /// Those of a check, which has fewer sums.
    const CHECK_COLUMNS: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * by + to`, rounded once.
    unsafe fn fma(self, by: Self, to: Self) -> Self;
    /// The bits in which the two differ, and those of `seen`.
    unsafe fn differ(self, other: Self, seen: Self) -> Self;
    /// Is a bit set anywhere?
    unsafe fn any_bit(self) -> bool;
    /// `sums[l] += self[l] + self[l + 8]`: the addition in f32, the rest in f64.
    unsafe fn fold(self, sums: *mut [f64; 8]);
    /// Two secret numbers in ±[1, 2) from each of sixteen random words: of its upper and of its lower half.
    unsafe fn factors(words: *const u32) -> (Self, Self);
}

/// The most vectors of columns that a product keeps.
pub(super) const COLUMNS_MAX: usize = 8;

/// The definition: one number after the other.
#[derive(Clone, Copy)]
pub(super) struct Scalar([f32; 16]);

/// The secret numbers of one random word: sign and 15 bits of mantissa each.
#[inline(always)]
fn factors_of(word: u32) -> (f32, f32) {
    let one = |half: u32| f32::from_bits((half & 0x8000) << 16 | (half & 0x7fff) << 8 | 0x3f80_0000);
    (one(word >> 16), one(word & 0xffff))
}

impl Lanes for Scalar {
    const COLUMNS: usize = 1;
    const CHECK_COLUMNS: usize = 1;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Scalar {
        Scalar([x; 16])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Scalar {
        // SAFETY: good for sixteen numbers.
        Scalar(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: good for sixteen numbers.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    unsafe fn add(self, other: Scalar) -> Scalar {
        Scalar(std::array::from_fn(|l| self.0[l] + other.0[l]))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Scalar) -> Scalar {
        Scalar(std::array::from_fn(|l| self.0[l] * other.0[l]))
    }

    #[inline(always)]
    unsafe fn fma(self, by: Scalar, to: Scalar) -> Scalar {
        Scalar(std::array::from_fn(|l| self.0[l].mul_add(by.0[l], to.0[l])))
    }

    #[inline(always)]
    unsafe fn differ(self, other: Scalar, seen: Scalar) -> Scalar {
        let bits = |l: usize| self.0[l].to_bits() ^ other.0[l].to_bits() | seen.0[l].to_bits();
        Scalar(std::array::from_fn(|l| f32::from_bits(bits(l))))
    }

    #[inline(always)]
    unsafe fn any_bit(self) -> bool {
        self.0.iter().any(|x| x.to_bits() != 0)
    }

    #[inline(always)]
    unsafe fn fold(self, sums: *mut [f64; 8]) {
        // SAFETY: the caller's.
        let sums = unsafe { &mut *sums };
        for (l, sum) in sums.iter_mut().enumerate() {
            *sum += f64::from(self.0[l] + self.0[l + 8]);
        }
    }

    #[inline(always)]
    unsafe fn factors(words: *const u32) -> (Scalar, Scalar) {
        // SAFETY: good for sixteen words.
        let words = unsafe { words.cast::<[u32; 16]>().read_unaligned() };
        let pairs = words.map(factors_of);
        (Scalar(pairs.map(|pair| pair.0)), Scalar(pairs.map(|pair| pair.1)))
    }
}
