//! Recovery: the block sum from the shards of the rows that agree.
//!
//! `M = pinv(G_A) R_A` with *all* agreeing rows A, not just `r_c` of them: 10 to 1000 times better in the worst case. A slice
//! whose raw row is in A is copied; so with a systematic generator and all raw rows in A recovery is a copy, and with one raw
//! row lost only one slice costs arithmetic. The pseudo-inverse is computed in f64 once per set, kept, and rounded to f32;
//! sums run in f32 over the rows in rising order, so the result depends on the set and the shards, not on who came first.

use std::sync::Arc;

use super::kernels::{TILE, add_scaled, add_scaled4, scale_into};
use super::linear::Fit;
use super::{Chunk, Generator, Rows};

/// Sets of agreeing rows whose pseudo-inverse is kept. One is in use while nobody misbehaves.
const PLANS: usize = 32;

/// Recovers blocks from shards. Allocates only in [`Recoverer::new`].
#[derive(Debug)]
pub struct Recoverer {
    generator: Arc<Generator>,
    fit: Fit,
    row: Vec<f64>,
    plans: Vec<Plan>,
    clock: u64,
}

/// How to recover from one set of rows.
#[derive(Debug)]
struct Plan {
    rows: Rows,
    used: u64,
    /// Per slice: its raw row's rank in the set, if it is there.
    copied: Vec<Option<usize>>,
    /// Row `i`, `r` numbers each, one per rank: the pseudo-inverse, where it is needed.
    factors: Vec<f32>,
}

impl Recoverer {
    /// A recoverer with room for any set of rows.
    pub fn new(generator: Arc<Generator>) -> Recoverer {
        let (r, c) = (generator.redundancy(), generator.compression());
        let plan = |_| Plan { rows: Rows::EMPTY, used: 0, copied: vec![None; c], factors: vec![0.0; c * r] };
        Recoverer {
            fit: Fit::new(&generator),
            row: vec![0.0; r],
            plans: (0..PLANS).map(plan).collect(),
            clock: 0,
            generator,
        }
    }

    /// Writes `scale` times the block of `chunk` to `out`, from the shards of `rows`: `shard_of(rank)` is that of the
    /// rank-th row of `rows` in rising order, `chunk.width` long.
    ///
    /// # Panics
    /// If `rows` has fewer than `r_c` rows or one of `r` or more, or a length does not match `chunk`.
    pub fn recover<'a>(
        &mut self,
        rows: Rows,
        shard_of: impl Fn(usize) -> &'a [f32],
        chunk: &Chunk,
        scale: f32,
        out: &mut [f32],
    ) {
        self.run(rows, shard_of, chunk, out, |out, tile| scale_into(out, scale, tile));
    }

    /// Adds `scale` times the block of `chunk` to `out`; else as [`Recoverer::recover`]. Groups with different agreeing rows add
    /// into one output; groups with the same are better summed first, with [`sum_into`](super::sum_into).
    ///
    /// # Panics
    /// As [`Recoverer::recover`].
    pub fn accumulate<'a>(
        &mut self,
        rows: Rows,
        shard_of: impl Fn(usize) -> &'a [f32],
        chunk: &Chunk,
        scale: f32,
        out: &mut [f32],
    ) {
        self.run(rows, shard_of, chunk, out, |out, tile| add_scaled(out, scale, tile));
    }

    fn run<'a>(
        &mut self,
        rows: Rows,
        shard_of: impl Fn(usize) -> &'a [f32],
        chunk: &Chunk,
        out: &mut [f32],
        finish: impl Fn(&mut [f32], &[f32]),
    ) {
        assert_eq!(out.len(), chunk.len, "the output has the length of the chunk");
        let (r, width) = (self.generator.redundancy(), chunk.width);
        let plan = self.plan(rows);
        let n = rows.count();
        let mut sums = [0f32; TILE];
        for start in (0..width).step_by(TILE) {
            let columns = TILE.min(width - start);
            let tile_of = |rank: usize| &shard_of(rank)[..width][start..start + columns];
            for (slice, copied) in plan.copied.iter().enumerate() {
                let from = slice * width + start;
                let part = out.get_mut(from..chunk.len.min(from + columns)).unwrap_or(&mut []);
                if part.is_empty() {
                    continue;
                }
                if let Some(rank) = copied {
                    finish(part, tile_of(*rank));
                    continue;
                }
                let sums = &mut sums[..columns];
                sums.fill(0.0);
                let factors = &plan.factors[slice * r..][..n];
                let mut rank = 0;
                while rank + 4 <= n {
                    let four = std::array::from_fn(|k| factors[rank + k]);
                    add_scaled4(sums, four, std::array::from_fn(|k| tile_of(rank + k)));
                    rank += 4;
                }
                (rank..n).for_each(|rank| add_scaled(sums, factors[rank], tile_of(rank)));
                finish(part, sums);
            }
        }
    }

    fn plan(&mut self, rows: Rows) -> &Plan {
        self.clock += 1;
        let found = self.plans.iter().position(|plan| plan.rows == rows);
        let index = found.unwrap_or_else(|| {
            let oldest = (0..PLANS).min_by_key(|&i| self.plans[i].used).expect("PLANS > 0");
            let Recoverer { generator, fit, row, plans, .. } = self;
            fit.compute(generator, rows);
            let plan = &mut plans[oldest];
            plan.rows = rows;
            plan.copied.fill(None);
            for (rank, &row) in fit.order.iter().enumerate() {
                if let Some(slice) = generator.raw_slice(row) {
                    plan.copied[slice] = Some(rank);
                }
            }
            let r = generator.redundancy();
            for slice in 0..generator.compression() {
                fit.pinv_row(slice, row);
                let factors = &mut plan.factors[slice * r..][..r];
                factors.iter_mut().zip(row.iter()).for_each(|(x, &exact)| *x = exact as f32);
            }
            oldest
        });
        self.plans[index].used = self.clock;
        &self.plans[index]
    }
}
