//! Inner loops: reading, means, and the networks that sort. Each is one body, compiled for the processors that matter.

/// Columns of a tile of the output of [`mean`] of many rows: it stays in the second-level cache while all are added.
const MEAN_COLUMNS: usize = 16_384;

/// Rows that are read side by side, each in order; prefetchers do not follow more.
const STREAMS: usize = 16;

/// One body, compiled for the processors that matter.
macro_rules! compiled_for_all {
    ($(#[$doc:meta])* $sight:vis fn $name:ident / $avx512:ident / $avx2:ident = $body:ident ($($arg:ident: $kind:ty),*) $(-> $result:ty)?) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
        fn $avx512($($arg: $kind),*) $(-> $result)? {
            $body($($arg),*)
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn $avx2($($arg: $kind),*) $(-> $result)? {
            $body($($arg),*)
        }

        $(#[$doc])*
        $sight fn $name($($arg: $kind),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                if $crate::rules::kernels::has_avx512() {
                    #[allow(unsafe_code)]
                    // SAFETY: the processor has these instructions.
                    return unsafe { $avx512($($arg),*) };
                }
                if $crate::rules::kernels::has_avx2() {
                    #[allow(unsafe_code)]
                    // SAFETY: the processor has these instructions.
                    return unsafe { $avx2($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}

pub(super) use compiled_for_all;

#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq") && has_avx2()
}

#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

compiled_for_all! {
    /// The sum of all numbers in some order: what reading them costs.
    pub fn read / read_avx512 / read_avx2 = read_body(numbers: &[f32]) -> f32
}

#[inline(always)]
fn read_body(numbers: &[f32]) -> f32 {
    let mut sums = [0f32; 128];
    for block in numbers.as_chunks::<128>().0 {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += x;
        }
    }
    sums.iter().sum()
}

compiled_for_all! {
    /// `out = scale * (sum of rows)`. Few rows: all at once, sums in registers. Many: a tile of the output at a time, four rows in
    /// one pass over it.
    pub fn mean / mean_avx512 / mean_avx2 = mean_body(rows: &[&[f32]], scale: f32, out: &mut [f32])
}

#[inline(always)]
fn mean_body(rows: &[&[f32]], scale: f32, out: &mut [f32]) {
    if rows.len() <= STREAMS {
        return mean_of_few(rows, scale, out);
    }
    let (fours, rest) = rows.as_chunks::<4>();
    for (tile, out) in out.chunks_mut(MEAN_COLUMNS).enumerate() {
        let columns = tile * MEAN_COLUMNS..tile * MEAN_COLUMNS + out.len();
        out.fill(0.0);
        for rows in fours {
            let [a, b, c, d] = rows.map(|row| &row[columns.clone()]);
            for at in 0..out.len() {
                out[at] += (a[at] + b[at]) + (c[at] + d[at]);
            }
        }
        for row in rest {
            out.iter_mut().zip(&row[columns.clone()]).for_each(|(sum, x)| *sum += x);
        }
        out.iter_mut().for_each(|sum| *sum *= scale);
    }
}

#[inline(always)]
fn mean_of_few(rows: &[&[f32]], scale: f32, out: &mut [f32]) {
    const COLUMNS: usize = 64;
    let (blocks, rest) = out.as_chunks_mut::<COLUMNS>();
    for (at, out) in blocks.iter_mut().enumerate() {
        let mut sums = [0f32; COLUMNS];
        for row in rows {
            let row: &[f32; COLUMNS] = row[at * COLUMNS..][..COLUMNS].try_into().expect("as many");
            (0..COLUMNS).for_each(|column| sums[column] += row[column]);
        }
        *out = sums.map(|sum| scale * sum);
    }
    let from = blocks.len() * COLUMNS;
    for (at, out) in rest.iter_mut().enumerate() {
        *out = scale * rows.iter().map(|row| row[from + at]).sum::<f32>();
    }
}

compiled_for_all! {
    /// `out = sum of weight x row`, four rows in one pass over a tile of the output.
    pub fn weighted / weighted_avx512 / weighted_avx2 = weighted_body(rows: &[&[f32]], weights: &[f32], out: &mut [f32])
}

#[inline(always)]
fn weighted_body(rows: &[&[f32]], weights: &[f32], out: &mut [f32]) {
    for (tile, out) in out.chunks_mut(MEAN_COLUMNS).enumerate() {
        let columns = tile * MEAN_COLUMNS..tile * MEAN_COLUMNS + out.len();
        out.fill(0.0);
        let (fours, rest) = rows.as_chunks::<4>();
        let (four_weights, rest_weights) = weights.as_chunks::<4>();
        for (rows, w) in fours.iter().zip(four_weights) {
            let [a, b, c, d] = rows.map(|row| &row[columns.clone()]);
            for at in 0..out.len() {
                out[at] += (w[0] * a[at] + w[1] * b[at]) + (w[2] * c[at] + w[3] * d[at]);
            }
        }
        for (row, weight) in rest.iter().zip(rest_weights) {
            out.iter_mut().zip(&row[columns.clone()]).for_each(|(sum, x)| *sum += weight * x);
        }
    }
}

/// Which wires a network compares, in order; the lesser number goes to the first wire.
pub type Network = Vec<(usize, usize)>;

/// Batcher's odd-even merge sort of `wires` numbers, less the comparisons on which none of the `wanted` wires depends.
pub fn network(wires: usize, wanted: impl Iterator<Item = usize>) -> Network {
    let size = wires.next_power_of_two();
    let mut all = Network::new();
    let mut run = 1;
    while run < size {
        let mut apart = run;
        while apart >= 1 {
            for first in (apart % run..size - apart).step_by(2 * apart) {
                for low in first..(first + apart).min(size - apart) {
                    // Wires beyond the last would hold infinities, which never move.
                    if low / (2 * run) == (low + apart) / (2 * run) && low + apart < wires {
                        all.push((low, low + apart));
                    }
                }
            }
            apart /= 2;
        }
        run *= 2;
    }
    let mut needed = vec![false; wires];
    wanted.for_each(|wire| needed[wire] = true);
    let mut kept: Network = Vec::new();
    for (low, high) in all.into_iter().rev() {
        if needed[low] || needed[high] {
            (needed[low], needed[high]) = (true, true);
            kept.push((low, high));
        }
    }
    kept.reverse();
    kept
}
