//! How to recover a block from a set of agreeing rows; kept for the sets met last.

use std::sync::Arc;

use super::linear::Fit;
use super::{Generator, Rows};

/// Sets that are kept at least. One is in use while nobody misbehaves.
const KEPT: usize = 32;

/// How to recover from one set of rows: `M = pinv(G_A) R_A`, in f64 once, rounded to f32.
#[derive(Debug)]
pub(super) struct Plan {
    pub rows: Rows,
    used: u64,
    /// Per slice: its raw row's rank in the set, if it is there; then it is copied.
    pub copied: Vec<Option<usize>>,
    /// Row `i`, `r` numbers each, one per rank: the pseudo-inverse, where it is needed.
    pub factors: Vec<f32>,
}

impl Plan {
    /// Is recovery a copy?
    pub fn copies_all(&self) -> bool {
        self.copied.iter().all(Option::is_some)
    }
}

/// The plans of the sets met last.
#[derive(Debug)]
pub(super) struct Plans {
    generator: Arc<Generator>,
    fit: Fit,
    row: Vec<f64>,
    plans: Vec<Plan>,
    clock: u64,
}

impl Plans {
    /// Room for any `at_once` sets, and some more.
    pub fn new(generator: Arc<Generator>, at_once: usize) -> Plans {
        let (r, c) = (generator.redundancy(), generator.compression());
        let plan = |_| Plan { rows: Rows::EMPTY, used: 0, copied: vec![None; c], factors: vec![0.0; c * r] };
        let fit = Fit::new(&generator);
        let plans = (0..KEPT.max(2 * at_once)).map(plan).collect();
        Plans { generator, fit, row: vec![0.0; r], plans, clock: 0 }
    }

    /// Where the plan for `rows` is; it stays there until `at_once` others were asked for.
    pub fn find(&mut self, rows: Rows) -> usize {
        self.clock += 1;
        let found = self.plans.iter().position(|plan| plan.rows == rows);
        let index = found.unwrap_or_else(|| {
            let oldest = (0..self.plans.len()).min_by_key(|&i| self.plans[i].used).expect("there are some");
            self.make(oldest, rows);
            oldest
        });
        self.plans[index].used = self.clock;
        index
    }

    /// The plan at a place that [`Plans::find`] gave.
    pub fn at(&self, index: usize) -> &Plan {
        &self.plans[index]
    }

    fn make(&mut self, index: usize, rows: Rows) {
        let Plans { generator, fit, row, plans, .. } = self;
        fit.compute(generator, rows);
        let plan = &mut plans[index];
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
    }
}
