//! The loops, once for all processors: what flows in are rows of numbers of one tile, what flows out are their projections and
//! sums over rows.

pub(super) use super::halves::{highest, narrowed, widened};
use super::lanes::{COLUMNS_MAX, Lanes};
use crate::code::Rows;

/// What a shard becomes in one sweep: eight partial sums each of its products with two secret vectors, and of its squares.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(in crate::code) struct Sums {
    pub values: [[f64; 8]; 2],
    pub squares: [f64; 8],
}

/// Vectors whose products are added in f32 before the sum goes on in f64.
const CHAIN: usize = 32;

/// Projects the columns `at .. at + 16 * vectors` of `R` rows.
///
/// # Safety
/// The rows have these columns, and `factors` `16 * vectors` numbers each.
#[inline(always)]
pub(super) unsafe fn project<L: Lanes, const R: usize>(
    rows: [&[f32]; R],
    at: usize,
    vectors: usize,
    factors: [*const f32; 2],
    sums: &mut [Sums; R],
) {
    // SAFETY: the offsets stay within the columns.
    unsafe {
        let zero = L::splat(0.0);
        for begin in (0..vectors).step_by(CHAIN) {
            let (mut first, mut second, mut squares) = ([zero; R], [zero; R], [zero; R]);
            for vector in begin..vectors.min(begin + CHAIN) {
                let offset = 16 * vector;
                let (f, g) = (L::load(factors[0].add(offset)), L::load(factors[1].add(offset)));
                for row in 0..R {
                    let x = L::load(rows[row].as_ptr().add(at + offset));
                    first[row] = x.fma(f, first[row]);
                    second[row] = x.fma(g, second[row]);
                    squares[row] = x.fma(x, squares[row]);
                }
            }
            for row in 0..R {
                first[row].fold(&raw mut sums[row].values[0]);
                second[row].fold(&raw mut sums[row].values[1]);
                squares[row].fold(&raw mut sums[row].squares);
            }
        }
    }
}

/// `to = scale * (rows[order[0]] + rows[order[1]] + ...)`, for the columns `at .. at + 16 * vectors` of the rows.
///
/// # Safety
/// The rows have these columns, `order` is not empty and names rows, `to` is good for `16 * vectors` numbers and overlaps no row.
#[inline(always)]
pub(super) unsafe fn total<L: Lanes>(
    rows: &[&[f32]],
    order: &[usize],
    at: usize,
    vectors: usize,
    to: *mut f32,
    scale: f32,
) {
    // SAFETY: the offsets stay within the columns.
    unsafe {
        let blocks = vectors / L::CHECK_COLUMNS;
        for block in 0..blocks {
            total_columns::<L, false>(rows, order, at, 16 * block * L::CHECK_COLUMNS, to, scale);
        }
        for vector in blocks * L::CHECK_COLUMNS..vectors {
            total_columns::<L, true>(rows, order, at, 16 * vector, to, scale);
        }
    }
}

#[inline(always)]
unsafe fn total_columns<L: Lanes, const ONE: bool>(
    rows: &[&[f32]],
    order: &[usize],
    at: usize,
    offset: usize,
    to: *mut f32,
    scale: f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let columns = if ONE { 1 } else { L::CHECK_COLUMNS };
        let mut acc = [L::splat(0.0); COLUMNS_MAX];
        let row = rows.get_unchecked(order[0]).as_ptr().add(at + offset);
        for (c, acc) in acc[..columns].iter_mut().enumerate() {
            *acc = L::load(row.add(16 * c));
        }
        for row in &order[1..] {
            let row = rows.get_unchecked(*row).as_ptr().add(at + offset);
            for (c, acc) in acc[..columns].iter_mut().enumerate() {
                *acc = acc.add(L::load(row.add(16 * c)));
            }
        }
        let scale = L::splat(scale);
        for (c, acc) in acc[..columns].iter().enumerate() {
            acc.mul(scale).store(to.add(offset + 16 * c));
        }
    }
}

/// What is done with rows besides checking them.
pub(in crate::code) mod how {
    /// Nothing.
    pub const NOT: u8 = 0;
    /// `to = row`.
    pub const SET: u8 = 1;
    /// `to = to + row`.
    pub const ADD: u8 = 2;
    /// `to = scale * row`.
    pub const SET_SCALED: u8 = 3;
    /// `to = scale * (to + row)`.
    pub const ADD_SCALED: u8 = 4;
}

/// Where the rows that are summed go: `slices[row]` says to which part of `to`, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Onto<'a> {
    pub to: *mut f32,
    pub stride: usize,
    pub slices: &'a [Option<usize>],
    pub scale: f32,
}

impl Onto<'_> {
    /// Adds a vector to its sum.
    ///
    /// # Safety
    /// There is room for sixteen numbers at `offset` of the slice, and they overlap no row.
    #[inline(always)]
    unsafe fn put<L: Lanes, const HOW: u8>(&self, slice: usize, offset: usize, x: L) {
        // SAFETY: the caller's.
        unsafe {
            let place = self.to.add(slice * self.stride + offset);
            match HOW {
                how::SET => x.store(place),
                how::ADD => L::load(place).add(x).store(place),
                how::SET_SCALED => x.mul(L::splat(self.scale)).store(place),
                _ => L::load(place).add(x).mul(L::splat(self.scale)).store(place),
            }
        }
    }
}

/// For each column of `at .. at + 16 * vectors` the `K` sums over rows `q[k] = sum over n of factors[k * rows.len() + n] * rows[n]`;
/// adds their squares to `squares`, eight partial sums each, and those of the rows in `owns`, in every fourth vector, to `own`. On
/// the way rows are summed, as `HOW` says.
///
/// # Safety
/// The rows have these columns, and `owns` no other rows; `factors` is good for `K` rows of `rows.len()`. Unless `HOW` is `NOT`,
/// `onto` has an entry for each row, and room for `16 * vectors` numbers in each of its slices, which overlap no row.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn check<L: Lanes, const K: usize, const HOW: u8>(
    rows: &[&[f32]],
    at: usize,
    vectors: usize,
    factors: *const f32,
    squares: &mut [[f64; 8]; K],
    owns: Rows,
    own: &mut [f64; 8],
    onto: Onto<'_>,
) {
    // SAFETY: the offsets stay below `16 * vectors`.
    unsafe {
        let mut sums = [L::splat(0.0); K];
        let blocks = vectors / L::CHECK_COLUMNS;
        for block in 0..blocks {
            check_columns::<L, K, HOW, false>(rows, factors, at, 16 * block * L::CHECK_COLUMNS, &mut sums, onto);
        }
        for vector in blocks * L::CHECK_COLUMNS..vectors {
            check_columns::<L, K, HOW, true>(rows, factors, at, 16 * vector, &mut sums, onto);
        }
        (0..K).for_each(|k| sums[k].fold(&raw mut squares[k]));
        let mut sum = [L::splat(0.0); 2];
        for row in owns.iter() {
            let row = rows.get_unchecked(row).as_ptr().add(at);
            for (nth, vector) in (0..vectors).step_by(4).enumerate() {
                let x = L::load(row.add(16 * vector));
                sum[nth % 2] = x.fma(x, sum[nth % 2]);
            }
        }
        sum[0].add(sum[1]).fold(own);
    }
}

/// [`check`] for one block of columns, `offset` behind the first: of one vector if `ONE`.
#[inline(always)]
unsafe fn check_columns<L: Lanes, const K: usize, const HOW: u8, const ONE: bool>(
    rows: &[&[f32]],
    factors: *const f32,
    at: usize,
    offset: usize,
    sums: &mut [L; K],
    onto: Onto<'_>,
) {
    // SAFETY: the caller's.
    unsafe {
        let columns = if ONE { 1 } else { L::CHECK_COLUMNS };
        let mut acc = [[L::splat(0.0); COLUMNS_MAX]; K];
        for (n, row) in rows.iter().enumerate() {
            let factors: [L; K] = std::array::from_fn(|k| L::splat(*factors.add(k * rows.len() + n)));
            let row = row.as_ptr().add(at + offset);
            if HOW != how::NOT
                && let Some(slice) = *onto.slices.get_unchecked(n)
            {
                for c in 0..columns {
                    onto.put::<L, HOW>(slice, offset + 16 * c, L::load(row.add(16 * c)));
                }
            }
            for c in 0..columns {
                let x = L::load(row.add(16 * c));
                for (acc, factor) in acc.iter_mut().zip(factors) {
                    acc[c] = x.fma(factor, acc[c]);
                }
            }
        }
        for k in 0..K {
            for q in &acc[k][..columns] {
                sums[k] = q.fma(*q, sums[k]);
            }
        }
    }
}

/// Are the bits of all rows those of the first, in the columns `at .. at + 16 * vectors`? Adds the squares of the first to `own`. On
/// the way the first is summed, as `HOW` says.
///
/// # Safety
/// The rows have these columns, and there is one. Unless `HOW` is `NOT`, `onto` has room for `16 * vectors` numbers, which overlap
/// no row.
#[inline(always)]
pub(super) unsafe fn equal<L: Lanes, const HOW: u8>(
    rows: &[&[f32]],
    at: usize,
    vectors: usize,
    own: &mut [f64; 8],
    equal: &mut bool,
    onto: Onto<'_>,
) {
    // SAFETY: the offsets stay within the columns.
    unsafe {
        let zero = L::splat(0.0);
        let (mut seen, mut sum) = ([zero; COLUMNS_MAX], [zero; COLUMNS_MAX]);
        let blocks = vectors / L::CHECK_COLUMNS;
        let (start, others) = rows.split_first().unwrap_unchecked();
        for block in 0..blocks {
            let offset = 16 * block * L::CHECK_COLUMNS;
            let at = at + offset;
            let mut first = [zero; COLUMNS_MAX];
            for c in 0..L::CHECK_COLUMNS {
                first[c] = L::load(start.as_ptr().add(at + 16 * c));
                if HOW != how::NOT {
                    onto.put::<L, HOW>(0, offset + 16 * c, first[c]);
                }
                sum[c] = first[c].fma(first[c], sum[c]);
            }
            for row in others {
                for c in 0..L::CHECK_COLUMNS {
                    seen[c] = L::load(row.as_ptr().add(at + 16 * c)).differ(first[c], seen[c]);
                }
            }
        }
        for vector in blocks * L::CHECK_COLUMNS..vectors {
            let at = at + 16 * vector;
            let first = L::load(start.as_ptr().add(at));
            if HOW != how::NOT {
                onto.put::<L, HOW>(0, 16 * vector, first);
            }
            sum[0] = first.fma(first, sum[0]);
            for row in others {
                seen[0] = L::load(row.as_ptr().add(at)).differ(first, seen[0]);
            }
        }
        for c in 0..L::CHECK_COLUMNS {
            *equal &= !seen[c].any_bit();
            sum[c].fold(own);
        }
    }
}

/// Vectors of columns side by side, for so many sums.
#[inline(always)]
const fn columns<L: Lanes>(sums: usize) -> usize {
    if sums <= 2 { L::CHECK_COLUMNS } else { L::COLUMNS }
}

/// `to[i] = sum over n of factors[i * stride + n] * rows[n]`, from the first row to the last, each product added with one
/// rounding; then times `scale`, and added to what was there if `ADD`.
///
/// # Safety
/// Rows and pointers are good for `16 * vectors` numbers, `factors` for `I` rows of `rows.len()`; those in `to` overlap nothing else.
#[inline(always)]
pub(super) unsafe fn product<L: Lanes, const I: usize, const ADD: bool>(
    rows: &[&[f32]],
    factors: *const f32,
    stride: usize,
    vectors: usize,
    to: [*mut f32; I],
    scale: f32,
) {
    // SAFETY: the offsets stay below `16 * vectors`.
    unsafe {
        let columns = columns::<L>(I);
        let blocks = vectors / columns;
        for block in 0..blocks {
            product_columns::<L, I, ADD, false>(rows, factors, stride, 16 * block * columns, to, scale);
        }
        for vector in blocks * columns..vectors {
            product_columns::<L, I, ADD, true>(rows, factors, stride, 16 * vector, to, scale);
        }
    }
}

/// [`product`] for one block of columns that begins at `at`: of one vector if `ONE`.
#[inline(always)]
unsafe fn product_columns<L: Lanes, const I: usize, const ADD: bool, const ONE: bool>(
    rows: &[&[f32]],
    factors: *const f32,
    stride: usize,
    at: usize,
    to: [*mut f32; I],
    scale: f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let columns = if ONE { 1 } else { columns::<L>(I) };
        let zero = L::splat(0.0);
        let mut acc = [[zero; COLUMNS_MAX]; I];
        for (n, row) in rows.iter().enumerate() {
            let mut x = [zero; COLUMNS_MAX];
            for (c, x) in x[..columns].iter_mut().enumerate() {
                *x = L::load(row.as_ptr().add(at + 16 * c));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let factor = L::splat(*factors.add(i * stride + n));
                for c in 0..columns {
                    acc[c] = x[c].fma(factor, acc[c]);
                }
            }
        }
        let scale = L::splat(scale);
        for (acc, to) in acc.iter().zip(to) {
            for (c, acc) in acc[..columns].iter().enumerate() {
                let place = to.add(at + 16 * c);
                if ADD {
                    acc.fma(scale, L::load(place)).store(place);
                } else {
                    acc.mul(scale).store(place);
                }
            }
        }
    }
}

/// `to = scale * from`, and added to what was there if `ADD`.
///
/// # Safety
/// Both pointers are good for `16 * vectors` numbers and do not overlap.
#[inline(always)]
pub(super) unsafe fn scaled<L: Lanes, const ADD: bool>(from: *const f32, vectors: usize, to: *mut f32, scale: f32) {
    // SAFETY: the offsets stay below `16 * vectors`.
    unsafe {
        let scale = L::splat(scale);
        for at in (0..16 * vectors).step_by(16) {
            let (x, place) = (L::load(from.add(at)), to.add(at));
            if ADD {
                x.fma(scale, L::load(place)).store(place);
            } else {
                x.mul(scale).store(place);
            }
        }
    }
}

/// Projects the tile `row` on `K` vectors, all in f64 and nothing fused: finite numbers cannot overflow. Adds to `sums`, and says
/// whether all numbers are finite.
///
/// # Safety
/// The processor has what the kind of `L` says.
#[inline(always)]
pub(super) unsafe fn exact<L: Lanes, const K: usize>(
    row: &[f32],
    factors: [&[f32]; K],
    sums: &mut [[f64; 8]; K],
    squares: &mut [f64; 8],
    finite: &mut bool,
) {
    const EXPONENT: u32 = 0x7f80_0000;
    let n = row.len();
    let factors = factors.map(|row| &row[..n]);
    let mut wild = [0u32; 8];
    let (blocks, rest) = row.as_chunks::<8>();
    let rows: [&[[f32; 8]]; K] = std::array::from_fn(|k| &factors[k].as_chunks::<8>().0[..blocks.len()]);
    for (b, x) in blocks.iter().enumerate() {
        for lane in 0..8 {
            wild[lane] |= u32::from(x[lane].to_bits() & EXPONENT == EXPONENT);
        }
        let x = x.map(f64::from);
        for lane in 0..8 {
            squares[lane] += x[lane] * x[lane];
        }
        for k in 0..K {
            for lane in 0..8 {
                sums[k][lane] += f64::from(rows[k][b][lane]) * x[lane];
            }
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        wild[lane] |= u32::from(x.to_bits() & EXPONENT == EXPONENT);
        let x = f64::from(x);
        squares[lane] += x * x;
        for k in 0..K {
            sums[k][lane] += f64::from(factors[k][n - rest.len() + lane]) * x;
        }
    }
    *finite &= wild.iter().all(|&w| w == 0);
}

/// The secret numbers of `16 * vectors` random words.
///
/// # Safety
/// All pointers are good for `16 * vectors` numbers and do not overlap.
#[inline(always)]
pub(super) unsafe fn factors<L: Lanes>(words: *const u32, vectors: usize, to: [*mut f32; 2]) {
    // SAFETY: the offsets stay below `16 * vectors`.
    unsafe {
        for at in (0..16 * vectors).step_by(16) {
            let (first, second) = L::factors(words.add(at));
            first.store(to[0].add(at));
            second.store(to[1].add(at));
        }
    }
}
