//! What the stages measure of rounds and of each worker, for whoever looks at the daemon.
//!
//! Plain relaxed atomics, made once. All but the lies have one writer, so that to count is a load and a store; a reader sees each number
//! as it was a moment ago, and never one that falls.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::Job;
use crate::wire::{Report, RoundOutcome, Rule, WorkerSet};

/// Bounds of times: seconds, from a tenth of a millisecond to a minute.
pub const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Bounds of residuals: parts of the tolerance.
pub const RATIOS: &[f64] = &[0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 10.0, 1000.0];
/// Bounds of numbers of workers.
pub const MARGINS: &[f64] = &[0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0];

/// What is measured once per round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Measure {
    /// Seconds from the first shard to the close.
    Round,
    /// Seconds from the first shard to the last one before the close.
    Receive,
    /// Seconds that decoders judged who agrees.
    Locate,
    /// Seconds that decoders did everything else.
    Decode,
    /// Seconds from the close until the update has left for more than half of those who get it.
    Push,
    /// Seconds from the close until most workers say that they have the update.
    Collected,
    /// Largest residual of believed shards, over the tolerance.
    Residual,
    /// Arrived - named - needed, of the group where that is least; at least 0.
    Margin,
}

/// What is counted of each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum WorkerCount {
    /// Shards whose checks passed.
    Accepted,
    /// Shards that were proved wrong.
    Lies,
    /// Rounds whose report names it.
    Named,
    /// Closed rounds of which nothing of it had come.
    Absent,
    /// Closed rounds of which only a part of it had come.
    Late,
}

/// Adds to a counter that no other thread writes.
pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// Counts of values by the bound that they are under. One writer.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// A copy of what a histogram has counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// The bounds.
    pub bounds: &'static [f64],
    /// Per bound: values that were at most this, and more than the bound before. The last: those beyond all bounds.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: numbers(bounds.len() + 1), sum: AtomicU64::new(0) }
    }

    fn observe(&self, value: f64) {
        add(&self.counts[self.bounds.partition_point(|bound| *bound < value)], 1);
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed)) + value;
        self.sum.store(sum.to_bits(), Ordering::Relaxed);
    }

    fn distribution(&self) -> Distribution {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Distribution { bounds: self.bounds, counts, sum: f64::from_bits(self.sum.load(Ordering::Relaxed)) }
    }
}

fn numbers(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// How long parts of one round took.
pub(super) struct Spans {
    pub(super) round: Duration,
    pub(super) receive: Duration,
    pub(super) locate: Duration,
    pub(super) decode: Duration,
}

/// All that is measured.
#[derive(Debug)]
pub struct Measured {
    rounds: [Histogram; Measure::Margin as usize + 1],
    /// Each list has its own writer, so that no two of them share a line of the cache.
    workers: [Box<[AtomicU64]>; WorkerCount::Late as usize + 1],
    /// Per group, of the last closed round.
    margins: Box<[AtomicI64]>,
    credits: AtomicU64,
}

impl Measured {
    pub(super) fn new(job: &Job) -> Measured {
        let parameters = &job.plan.parameters;
        let of = |bounds| Histogram::new(bounds);
        let [round, receive, locate, decode, push, collected] = [(); 6].map(|()| of(SECONDS));
        Measured {
            rounds: [round, receive, locate, decode, push, collected, of(RATIOS), of(MARGINS)],
            workers: std::array::from_fn(|_| numbers(parameters.workers())),
            margins: (0..parameters.groups()).map(|_| AtomicI64::new(0)).collect(),
            credits: AtomicU64::new(0),
        }
    }

    pub(super) fn observe(&self, measure: Measure, value: f64) {
        self.rounds[measure as usize].observe(value);
    }

    /// What was measured of all rounds.
    pub fn distribution(&self, measure: Measure) -> Distribution {
        self.rounds[measure as usize].distribution()
    }

    /// Counts where no other thread counts the same.
    pub(super) fn count(&self, what: WorkerCount, worker: usize) {
        add(&self.workers[what as usize][worker], 1);
    }

    /// Any decoder may find a lie.
    pub(super) fn lied(&self, worker: usize) {
        self.workers[WorkerCount::Lies as usize][worker].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted of a worker.
    pub fn of_worker(&self, what: WorkerCount, worker: usize) -> u64 {
        self.workers[what as usize][worker].load(Ordering::Relaxed)
    }

    /// The receiver granted so many credits more, or took them.
    pub(super) fn credit(&self, more: u64, fewer: u64) {
        add(&self.credits, more.wrapping_sub(fewer));
    }

    /// Shards that workers may send now.
    pub fn credits(&self) -> u64 {
        self.credits.load(Ordering::Relaxed)
    }

    /// How many more workers of a group could have failed in the last closed round; negative where too many did.
    pub fn margin(&self, group: usize) -> i64 {
        self.margins[group].load(Ordering::Relaxed)
    }

    /// A round is closed with this report.
    pub(super) fn closed(&self, job: &Job, report: &Report, spans: &Spans) {
        let each = |workers: &WorkerSet, what| workers.iter().for_each(|worker| self.count(what, worker));
        each(&report.absent, WorkerCount::Absent);
        each(&report.late, WorkerCount::Late);
        each(&report.liars.union(&report.late_liars), WorkerCount::Named);
        if !spans.round.is_zero() {
            let Spans { round, receive, locate, decode } = spans;
            let all = [
                (Measure::Round, round),
                (Measure::Receive, receive),
                (Measure::Locate, locate),
                (Measure::Decode, decode),
            ];
            all.into_iter().for_each(|(measure, time)| self.observe(measure, time.as_secs_f64()));
        }
        if report.outcome == RoundOutcome::Complete && job.plan.rule == Rule::Solon {
            self.observe(Measure::Residual, f64::from(report.residual_ratio));
        }
        let (shape, groups) = (job.shape(), self.margins.len());
        let failed = |worker: &usize| report.absent.contains(*worker) || report.liars.contains(*worker);
        let mut least = i64::MAX;
        for (word, kept) in self.margins.chunks(groups / shape.words).enumerate() {
            let failed = (word * shape.rows..(word + 1) * shape.rows).filter(failed).count();
            let margin = shape.rows as i64 - failed as i64 - shape.needed as i64;
            kept.iter().for_each(|kept| kept.store(margin, Ordering::Relaxed));
            least = least.min(margin);
        }
        self.observe(Measure::Margin, least.max(0) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_under_the_first_bound_that_is_not_less() {
        let histogram = Histogram::new(MARGINS);
        [0.0, 0.5, 1.0, 32.0, 33.0].into_iter().for_each(|value| histogram.observe(value));
        let Distribution { counts, sum, .. } = histogram.distribution();
        assert_eq!(counts, [1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(sum, 66.5);
    }
}
