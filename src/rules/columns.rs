//! Rules that look at one coordinate of all rows at a time: a tile of columns is sorted by a network, all columns of it at once.

#![allow(unsafe_code)]

use super::kernels::compiled_for_all;

/// Columns of a tile.
pub(super) const COLUMNS: usize = 128;

/// Columns of all rows, each row's side by side.
pub(super) type Tile = [[f32; COLUMNS]];

/// A tile of so many rows.
pub(super) fn tile(rows: usize) -> Vec<[f32; COLUMNS]> {
    vec![[0.0; COLUMNS]; rows]
}

/// Rows, and what each is multiplied by; no factors at all where they are taken as they are.
#[derive(Clone, Copy)]
pub(super) struct Scaled<'a> {
    pub rows: &'a [&'a [f32]],
    pub factors: &'a [f32],
}

compiled_for_all! {
    /// Per coordinate: sorts the rows' numbers by `network`, then writes the mean of all but the `cut` first and the `cut` last, times
    /// `factor`. The tile has room for all rows.
    pub(super) fn middle / middle_avx512 / middle_avx2 = middle_body(tile: &mut Tile, rows: Scaled<'_>, network: &[(usize, usize)], cut: usize, factor: f32, out: &mut [f32])
}

#[inline(always)]
fn middle_body(
    tile: &mut Tile,
    rows: Scaled<'_>,
    network: &[(usize, usize)],
    cut: usize,
    factor: f32,
    out: &mut [f32],
) {
    let tile = &mut tile[..rows.rows.len()];
    let kept = cut..tile.len() - cut;
    let scale = factor / kept.len() as f32;
    for (at, out) in out.chunks_mut(COLUMNS).enumerate() {
        load(tile, rows, at * COLUMNS, out.len());
        sort(tile, network);
        let mut sums = [0f32; COLUMNS];
        for row in &tile[kept.clone()] {
            (0..COLUMNS).for_each(|column| sums[column] += row[column]);
        }
        out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = sum * scale);
    }
}

compiled_for_all! {
    /// Per coordinate: sorts the rows' numbers by `network`, then writes the mean of the `keep` that are nearest to the middle one, times
    /// `factor`. The tile has room for all rows.
    pub(super) fn near_the_median / near_avx512 / near_avx2 = near_body(tile: &mut Tile, rows: Scaled<'_>, network: &[(usize, usize)], keep: usize, factor: f32, out: &mut [f32])
}

#[inline(always)]
fn near_body(tile: &mut Tile, rows: Scaled<'_>, network: &[(usize, usize)], keep: usize, factor: f32, out: &mut [f32]) {
    let tile = &mut tile[..rows.rows.len()];
    let middle = tile.len() / 2;
    let first = (middle + 1).saturating_sub(keep);
    let last = middle.min(tile.len() - keep);
    for (at, out) in out.chunks_mut(COLUMNS).enumerate() {
        load(tile, rows, at * COLUMNS, out.len());
        sort(tile, network);
        // The nearest lie side by side. Starts with the first that can be them, and moves on by one as long as what enters is nearer than
        // what leaves. Only then are they added: a number far off would drown those that were added before it left.
        let mut from = [first as u32; COLUMNS];
        for start in first..last {
            let (leaves, enters, median) = (&tile[start], &tile[start + keep], &tile[middle]);
            for column in 0..COLUMNS {
                let moves = enters[column] - median[column] < median[column] - leaves[column];
                from[column] = if moves { start as u32 + 1 } else { from[column] };
            }
        }
        let mut sums = [0f32; COLUMNS];
        for (row, numbers) in tile.iter().enumerate().take(last + keep).skip(first) {
            for column in 0..COLUMNS {
                let kept = (row as u32).wrapping_sub(from[column]) < keep as u32;
                sums[column] += if kept { numbers[column] } else { 0.0 };
            }
        }
        out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = factor * (sum / keep as f32));
    }
}

#[inline(always)]
fn load(tile: &mut Tile, rows: Scaled<'_>, start: usize, columns: usize) {
    for (at, (tile, row)) in tile.iter_mut().zip(rows.rows).enumerate() {
        // NaN would stay where it is and leave what is around it unsorted.
        tile.iter_mut()
            .zip(&row[start..start + columns])
            .for_each(|(to, x)| *to = if x.is_nan() { f32::INFINITY } else { *x });
        if let Some(factor) = rows.factors.get(at) {
            tile.iter_mut().for_each(|x| *x *= factor);
        }
        prefetch(row, start + COLUMNS);
    }
}

#[inline(always)]
fn sort(tile: &mut Tile, network: &[(usize, usize)]) {
    for (low, high) in network {
        let [low, high] = tile.get_disjoint_mut([*low, *high]).expect("two wires");
        for column in 0..COLUMNS {
            let (a, b) = (low[column], high[column]);
            low[column] = if b < a { b } else { a };
            high[column] = if b < a { a } else { b };
        }
    }
}

/// Asks for the numbers of the next tile, if the processor takes such wishes.
#[inline(always)]
fn prefetch(row: &[f32], start: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in row.get(start..row.len().min(start + COLUMNS)).unwrap_or(&[]).chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is that of a number.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (row, start);
}
