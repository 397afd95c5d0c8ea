//! Recovery: the block of one group from the shards of the rows that agree.
//!
//! `M = pinv(G_A) R_A` with *all* agreeing rows A, not just `r_c` of them: 10 to 1000 times better in the worst case. A slice
//! whose raw row is in A is copied. The pseudo-inverse is computed in f64 once per set, kept, and rounded to f32; sums run over
//! the rows in rising order, so the result depends on the set and the shards, not on who came first.

use std::sync::Arc;

use super::{Chunk, Generator, ROWS_MAX, Rows, Sweep, Tolerance, Verify};

/// Recovers the blocks of one group. A [`Sweep`] does it for several groups, and projects on the way. Allocates only in
/// [`Recoverer::new`].
#[derive(Debug)]
pub struct Recoverer {
    sweep: Sweep,
    redundancy: usize,
}

impl Recoverer {
    /// A recoverer with room for any set of rows.
    pub fn new(generator: Arc<Generator>) -> Recoverer {
        Recoverer {
            redundancy: generator.redundancy(),
            sweep: Sweep::new(generator, 1, Verify::Random, Tolerance::default()),
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
        let mut shards: [&[f32]; ROWS_MAX] = [&[]; ROWS_MAX];
        rows.iter().enumerate().for_each(|(rank, row)| shards[row] = &shard_of(rank)[..chunk.width]);
        self.sweep.recover(&[rows], &shards[..self.redundancy], chunk, scale, out);
    }
}
