//! What `solon demo` trains, and how it shows what happened, without the processes and the network between them.
//!
//! Three legs run over the same seeds and batches: the honest mean, the mean with liars, and Solon with the same liars.
//!
//! ```text
//! data ──> sampler ──> model ──(gradient sum)──> ... daemon ... ──(update)──> model ──> Step ──> table, report
//! ```
//!
//! - [`data`]: images with labels: digits compiled in, or a directory of IDX files.
//! - [`sampler`](crate::sampler): which samples a group uses in a step.
//! - [`model`]: a two-layer perceptron whose gradients are the same bits on every replica.
//! - [`record`]: what is kept of a run: the legs, their steps, and the verdict over them.
//! - [`table`]: the live table on a terminal, or a line per step.
//! - [`worker`], [`process`], [`run`]: the worker process, the processes of a leg, and the legs.
//! - [`report`]: the page with the plots.

pub mod data;
mod idx;
pub mod model;
mod plots;
pub mod process;
pub mod record;
pub mod report;
pub mod run;
pub mod table;
pub mod worker;

pub use crate::sampler::Sampler;
pub use data::{DataError, Dataset, Split};
pub use model::{Activation, Model, Shape};
pub use record::{Leg, LegKind, Named, Report, Setting, Step, Verdict};

/// What a run of the demonstration does unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Samples per step over all groups; divisible by 12 and by every divisor of 12.
    pub batch: usize,
    /// Steps per leg.
    pub steps: u64,
    /// Learning rate, applied to the mean gradient.
    pub rate: f32,
    /// Part of the last step that is repeated in the next one.
    pub momentum: f32,
}

/// Defaults for the digits that are compiled in: at least 95.6 % of the test digits right over seeds 1 to 5, and
/// 0.2 ms of one core for the gradient of a whole batch.
pub const DIGITS: Defaults = Defaults { hidden: 64, batch: 120, steps: 120, rate: 0.1, momentum: 0.9 };

/// Defaults for Fashion-MNIST: 83.5 % right with seed 1, and 3 ms of one core for the gradient of a whole batch. Judging the
/// model on all 10,000 test images takes 50 ms: not after every step.
pub const FASHION: Defaults = Defaults { hidden: 64, batch: 240, steps: 300, rate: 0.05, momentum: 0.9 };
