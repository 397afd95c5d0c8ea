//! Figures of one piece of work that is repeated; the figures and tables themselves are those of `solon bench`.

use std::time::{Duration, Instant};

pub use solon::bench::figures::{Cell, Figure, Machine, Table};

use crate::Effort;

/// Calls `work` again and again; the figure is 1e9 bytes per second, where one call handles `bytes`.
pub fn rate(effort: &Effort, bytes: usize, mut work: impl FnMut()) -> Figure {
    work();
    let limit = Duration::from_secs_f64(effort.seconds / 4.0);
    let sample = |_| {
        let (start, mut calls) = (Instant::now(), 0u32);
        while calls == 0 || start.elapsed() < limit {
            work();
            calls += 1;
        }
        f64::from(calls) * bytes as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    Figure::new((0..effort.repetitions).map(sample).collect())
}
