//! Figures of pieces of work that take turns; the figures and tables themselves are those of `solon bench`.

use std::time::Instant;

pub use solon::bench::figures::{Cell, Figure, Machine, Table};

use crate::Effort;

/// One piece of work, and how many bytes it handles.
pub struct Work<'a> {
    pub bytes: usize,
    pub run: &'a mut dyn FnMut(),
}

/// Runs all of them in turns, so that what else the machine does hits all alike: 1e9 bytes per second of each.
pub fn rates(effort: &Effort, works: &mut [Work<'_>]) -> Vec<Figure> {
    let mut samples = vec![Vec::new(); works.len()];
    for _ in 0..effort.repetitions {
        for (work, samples) in works.iter_mut().zip(&mut samples) {
            (work.run)();
            let (start, mut calls) = (Instant::now(), 0u32);
            while calls == 0 || start.elapsed().as_secs_f64() < effort.seconds {
                (work.run)();
                calls += 1;
            }
            samples.push(f64::from(calls) * work.bytes as f64 / start.elapsed().as_secs_f64() / 1e9);
        }
    }
    samples.into_iter().map(Figure::new).collect()
}

/// How far apart two figures are: the first over the second.
pub fn ratio(above: &Figure, below: &Figure) -> f64 {
    above.median() / below.median()
}
