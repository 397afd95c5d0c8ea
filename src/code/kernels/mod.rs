//! The inner loops over shards: one set of bodies, compiled for each kind of processor and chosen at start.
//!
//! The bodies (`bodies`) are written over sixteen numbers at a time (`lanes`), and no implementation reorders or splits an
//! operation: **every kernel gives the same bits on every processor**, in projections, sums, products and random words alike.
//! Products are fused (one rounding per product and addition). The scalar kernel is the definition.
//!
//! A variant of [`Kernels`] can be made only where the processor has its instructions.

#![allow(unsafe_code)]

mod bodies;
mod flush;
mod halves;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod random;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use bodies::Onto;
pub(super) use bodies::{Sums, how};
pub(super) use flush::flushed;
use lanes::Scalar;
#[cfg(target_arch = "aarch64")]
use neon::Neon;
pub(super) use random::Key;
use random::Source;
#[cfg(target_arch = "x86_64")]
use x86::{Avx2, Avx512};

use super::Rows;

/// Numbers of a tile: what the shards of a chunk are cut into, so that what one step has read is in the cache for the next.
pub(super) const TILE: usize = 2048;
/// Numbers in a vector: whole kernels work on multiples of it.
pub(super) const VECTOR: usize = 16;
/// The most rows that are projected side by side.
pub(super) const ROWS: usize = 4;
/// The most sums over rows that are made side by side.
pub(super) const OUTPUTS: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// The kernels of one kind of processor, which is this one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kernels {
    kind: Kind,
    source: Source,
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Compiles one body for each kind, and makes the method that chooses.
macro_rules! kernel {
    ($(#[$doc:meta])* fn $name:ident <$($constant:ident: $type:ty),*> ($($arg:ident: $kind:ty),* $(,)?)) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        unsafe fn $name<$(const $constant: $type),*>(self, $($arg: $kind),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2<$(const $constant: $type),*>($($arg: $kind),*) {
                // SAFETY: the caller's.
                unsafe { bodies::$name::<Avx2, $($constant),*>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq")]
            unsafe fn avx512<$(const $constant: $type),*>($($arg: $kind),*) {
                // SAFETY: the caller's.
                unsafe { bodies::$name::<Avx512, $($constant),*>($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            unsafe fn neon<$(const $constant: $type),*>($($arg: $kind),*) {
                // SAFETY: the caller's.
                unsafe { bodies::$name::<Neon, $($constant),*>($($arg),*) }
            }
            // SAFETY: the kind says what the processor has; the rest is the caller's.
            unsafe {
                match self.kind {
                    Kind::Scalar => bodies::$name::<Scalar, $($constant),*>($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx2 => avx2::<$($constant),*>($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx512 => avx512::<$($constant),*>($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    Kind::Neon => neon::<$($constant),*>($($arg),*),
                }
            }
        }
    };
}

/// Vectors in a tile of `numbers`.
///
/// # Panics
/// If they are no whole vectors.
fn vectors(numbers: usize) -> usize {
    assert!(numbers.is_multiple_of(VECTOR), "{numbers} numbers are no whole vectors");
    numbers / VECTOR
}

impl Kernels {
    /// The definition, which runs everywhere.
    pub const SCALAR: Kernels = Kernels { kind: Kind::Scalar, source: Source::Portable };

    /// All that this processor can run, the fastest last.
    pub fn all() -> Vec<Kernels> {
        #[allow(unused_mut)]
        let mut all = vec![Kernels::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            let source = Source::best();
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                all.push(Kernels { kind: Kind::Avx2, source });
            }
            if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512dq") {
                all.push(Kernels { kind: Kind::Avx512, source });
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            all.push(Kernels { kind: Kind::Neon, source: Source::best() });
        }
        all
    }

    /// The fastest; looked for once.
    pub fn best() -> Kernels {
        static BEST: OnceLock<Kernels> = OnceLock::new();
        *BEST.get_or_init(|| *Kernels::all().last().expect("the definition runs everywhere"))
    }

    /// What they are made of.
    pub fn name(self) -> &'static str {
        match self.kind {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "AVX-512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "NEON",
        }
    }

    kernel! {
        /// As in `bodies`.
        fn project<R: usize>(
            rows: [&[f32]; R],
            at: usize,
            vectors: usize,
            factors: [*const f32; 2],
            sums: &mut [Sums; R],
        )
    }

    kernel! {
        /// As in `bodies`.
        fn total<>(rows: &[&[f32]], order: &[usize], at: usize, vectors: usize, to: *mut f32, scale: f32)
    }

    kernel! {
        /// As in `bodies`.
        fn check<K: usize, HOW: u8>(
            rows: &[&[f32]],
            at: usize,
            vectors: usize,
            factors: *const f32,
            squares: &mut [[f64; 8]; K],
            owns: Rows,
            own: &mut [f64; 8],
            onto: Onto<'_>,
        )
    }

    kernel! {
        /// As in `bodies`.
        fn equal<HOW: u8>(
            rows: &[&[f32]],
            at: usize,
            vectors: usize,
            own: &mut [f64; 8],
            equal: &mut bool,
            onto: Onto<'_>,
        )
    }

    kernel! {
        /// As in `bodies`.
        fn product<I: usize, ADD: bool>(
            rows: &[&[f32]],
            factors: *const f32,
            stride: usize,
            vectors: usize,
            to: [*mut f32; I],
            scale: f32,
        )
    }

    kernel! {
        /// As in `bodies`.
        fn scaled<ADD: bool>(from: *const f32, vectors: usize, to: *mut f32, scale: f32)
    }

    kernel! {
        /// As in `bodies`.
        fn exact<K: usize>(
            row: &[f32],
            factors: [&[f32]; K],
            sums: &mut [[f64; 8]; K],
            squares: &mut [f64; 8],
            finite: &mut bool,
        )
    }

    kernel! {
        /// As in `halves`.
        fn widened<F16: bool>(from: &[u16], to: &mut [f32])
    }

    kernel! {
        /// As in `halves`.
        fn narrowed<F16: bool>(from: &[f32], to: &mut [u16])
    }

    kernel! {
        /// As in `halves`.
        fn highest<>(numbers: &[f32], most: &mut u32)
    }

    kernel! {
        /// As in `bodies`.
        fn factors<>(words: *const u32, vectors: usize, to: [*mut f32; 2])
    }

    /// The most rows that are best projected side by side: as many as the registers hold.
    pub(super) fn rows(self) -> usize {
        match self.kind {
            Kind::Scalar => 1,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 2,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => ROWS,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => 2,
        }
    }

    /// Draws the numbers of the secret vectors `2 pair` and `2 pair + 1` for the first `numbers` columns of a tile.
    ///
    /// # Panics
    /// If these are no whole vectors, or more than a tile.
    pub(super) fn draw(self, key: &Key, pair: u32, tile: usize, numbers: usize, to: &mut Factors) {
        let (vectors, mut words) = (vectors(numbers), [0; TILE]);
        self.source.fill(key, pair, (tile * TILE / 4) as u64, &mut words[..numbers]);
        let [first, second] = &mut to.0;
        // SAFETY: all three have room for a tile, and `numbers` are at most as many, or the slice above would not exist.
        unsafe { self.factors(words.as_ptr(), vectors, [first.as_mut_ptr(), second.as_mut_ptr()]) };
    }

    /// Projects the columns of `R` rows on the secret vectors `factors`, which are those of these columns; adds to `sums`.
    ///
    /// # Panics
    /// If the columns are no whole vectors, more than a tile, or not there.
    #[inline]
    pub(super) fn projections<const R: usize>(
        self,
        rows: [&[f32]; R],
        columns: Range<usize>,
        factors: &Factors,
        sums: &mut [Sums; R],
    ) {
        let (at, vectors) = (columns.start, vectors(columns.len()));
        assert!(columns.len() <= TILE, "at most {TILE} columns have factors");
        rows.iter().for_each(|row| assert!(columns.end <= row.len(), "a row has all columns"));
        // SAFETY: checked above.
        unsafe { self.project::<R>(rows, at, vectors, factors.pointers(), sums) };
    }

    /// `to = scale * (rows[order[0]] + rows[order[1]] + ...)` for the columns of the rows.
    ///
    /// # Panics
    /// If the columns are no whole vectors or not there, `to` has another length, or there is no row.
    #[inline]
    pub(super) fn sum(self, rows: &[&[f32]], order: &[usize], columns: Range<usize>, to: &mut [f32], scale: f32) {
        let (at, vectors) = (columns.start, vectors(columns.len()));
        assert!(to.len() == columns.len() && !order.is_empty(), "a sum is as long as its rows");
        order.iter().for_each(|row| assert!(columns.end <= rows[*row].len(), "a row has all columns"));
        // SAFETY: checked above; the place is exclusive.
        unsafe { self.total(rows, order, at, vectors, to.as_mut_ptr(), scale) };
    }

    /// The sums over rows that vanish if all agree, as squares; see `bodies`. Rows that `sums` names are added up on the way.
    ///
    /// # Panics
    /// If the columns are no whole vectors or not there, or a factor or room for a sum is missing.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn combinations<const K: usize, const HOW: u8>(
        self,
        rows: &[&[f32]],
        columns: Range<usize>,
        factors: &[f32],
        squares: &mut [[f64; 8]; K],
        owns: Rows,
        own: &mut [f64; 8],
        sums: &mut RowSums<'_>,
    ) {
        let (at, vectors) = (columns.start, vectors(columns.len()));
        assert!(factors.len() >= K * rows.len() && owns.is_subset(Rows::first(rows.len())), "a factor for each row");
        rows.iter().for_each(|row| assert!(columns.end <= row.len(), "a row has all columns"));
        let onto = sums.onto::<HOW>(rows.len(), columns.len());
        // SAFETY: checked above and in `onto`.
        unsafe { self.check::<K, HOW>(rows, at, vectors, factors.as_ptr(), squares, owns, own, onto) };
    }

    /// Clears `equal` unless the bits of all rows are the same; adds the squares of the first to `own`, and the first itself to its
    /// sum, as `HOW` says.
    ///
    /// # Panics
    /// If the columns are no whole vectors or not there, or there is no row or no room for the sum.
    #[inline]
    pub(super) fn compare<const HOW: u8>(
        self,
        rows: &[&[f32]],
        columns: Range<usize>,
        own: &mut [f64; 8],
        equal: &mut bool,
        sums: &mut RowSums<'_>,
    ) {
        let (at, vectors) = (columns.start, vectors(columns.len()));
        assert!(!rows.is_empty(), "there is a row");
        rows.iter().for_each(|row| assert!(columns.end <= row.len(), "a row has all columns"));
        let onto = sums.onto::<HOW>(rows.len(), columns.len());
        // SAFETY: checked above and in `onto`.
        unsafe { self.equal::<HOW>(rows, at, vectors, own, equal, onto) };
    }

    /// `to[i] = scale * sum over n of factors[i * stride + n] * rows[n]`, added to what was there if `ADD`; see `bodies`.
    ///
    /// # Panics
    /// If rows and places are no whole vectors of one length, or a factor is missing.
    pub(super) fn products<const I: usize, const ADD: bool>(
        self,
        rows: &[&[f32]],
        factors: &[f32],
        stride: usize,
        to: [&mut [f32]; I],
        scale: f32,
    ) {
        let n = to[0].len();
        assert!(factors.len() >= (I - 1) * stride + rows.len(), "there is a factor for each row and sum");
        to.iter().for_each(|to| assert_eq!(to.len(), n, "sums over one tile have one length"));
        rows.iter().for_each(|row| assert_eq!(row.len(), n, "rows of one tile have one length"));
        let to = to.map(<[f32]>::as_mut_ptr);
        // SAFETY: checked above; the places are exclusive.
        unsafe { self.product::<I, ADD>(rows, factors.as_ptr(), stride, vectors(n), to, scale) };
    }

    /// `to = scale * from`, and added to what was there if `ADD`.
    ///
    /// # Panics
    /// If they are no whole vectors of one length.
    pub(super) fn scale<const ADD: bool>(self, from: &[f32], to: &mut [f32], scale: f32) {
        assert_eq!(from.len(), to.len(), "both have one length");
        // SAFETY: checked above; the place is exclusive.
        unsafe { self.scaled::<ADD>(from.as_ptr(), vectors(to.len()), to.as_mut_ptr(), scale) };
    }

    /// Writes `from`, f16 or bf16, to `to`.
    ///
    /// # Panics
    /// If they have not one length.
    pub(super) fn widen<const F16: bool>(self, from: &[u16], to: &mut [f32]) {
        assert_eq!(from.len(), to.len(), "both have one length");
        // SAFETY: the kind says what the processor has.
        unsafe { self.widened::<F16>(from, to) };
    }

    /// Writes `from` to `to`, f16 or bf16, rounded to the nearest, ties to even.
    ///
    /// # Panics
    /// If they have not one length.
    pub(super) fn narrow<const F16: bool>(self, from: &[f32], to: &mut [u16]) {
        assert_eq!(from.len(), to.len(), "both have one length");
        // SAFETY: the kind says what the processor has.
        unsafe { self.narrowed::<F16>(from, to) };
    }

    /// The largest absolute value, or NaN if one of the numbers is.
    pub(crate) fn largest(self, numbers: &[f32]) -> f32 {
        let mut most = 0;
        // SAFETY: the kind says what the processor has.
        unsafe { self.highest(numbers, &mut most) };
        f32::from_bits(most)
    }

    /// Projects a tile of a row in f64; adds to `sums` and `squares`, and clears `finite` if a number is not.
    ///
    /// # Panics
    /// If a factor is missing.
    pub(super) fn project_exactly<const K: usize>(
        self,
        row: &[f32],
        factors: [&[f32]; K],
        sums: &mut [[f64; 8]; K],
        squares: &mut [f64; 8],
        finite: &mut bool,
    ) {
        // SAFETY: the kind says what the processor has.
        unsafe { self.exact::<K>(row, factors, sums, squares, finite) };
    }
}

/// Where rows are summed that are checked.
pub(super) struct RowSums<'a> {
    /// The sums begin `stride` apart, the first of them at the beginning.
    pub numbers: &'a mut [f32],
    pub stride: usize,
    /// Per row: to which sum it is added.
    pub slices: &'a [Option<usize>],
    pub scale: f32,
}

impl RowSums<'_> {
    /// No row is added to anything.
    pub const fn none() -> RowSums<'static> {
        RowSums { numbers: &mut [], stride: 0, slices: &[], scale: 1.0 }
    }

    fn onto<const HOW: u8>(&mut self, rows: usize, n: usize) -> Onto<'_> {
        if HOW != how::NOT {
            assert!(self.slices.len() >= rows, "it is known of each row whether it is summed");
            let last = self.slices.iter().flatten().max().copied().unwrap_or(0);
            assert!(self.stride >= n && last * self.stride + n <= self.numbers.len(), "there is room for every sum");
        }
        Onto { to: self.numbers.as_mut_ptr(), stride: self.stride, slices: self.slices, scale: self.scale }
    }
}

/// The numbers of two secret vectors in one tile.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Factors(pub [[f32; TILE]; 2]);

impl Factors {
    pub const fn zeros() -> Factors {
        Factors([[0.0; TILE]; 2])
    }

    fn pointers(&self) -> [*const f32; 2] {
        [self.0[0].as_ptr(), self.0[1].as_ptr()]
    }
}

/// Numbers that begin on a cache line.
#[derive(Clone, Debug)]
pub(super) struct Aligned(Vec<Line>);

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; VECTOR]);

impl Aligned {
    /// At least `count` zeros.
    pub fn zeros(count: usize) -> Aligned {
        Aligned(vec![Line([0.0; VECTOR]); count.div_ceil(VECTOR)])
    }
}

impl std::ops::Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: lines are sixteen numbers without gaps.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), VECTOR * self.0.len()) }
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), VECTOR * self.0.len()) }
    }
}
