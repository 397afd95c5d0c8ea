//! What `solon demo` trains, and how it shows what happened, without the processes and the network between them.
//!
//! Three legs run over the same seeds and batches: the honest mean, the mean with liars, and Solon with the same liars.
//!
//! ```text
//! data ──> sampler ──> model ──(gradient sum)──> ... daemon ... ──(update)──> model ──> Step ──> table, report
//! ```
//!
//! - [`data`]: images with labels: digits compiled in, or a directory of IDX files.
//! - [`sampler`]: which samples a group uses in a step.
//! - [`model`]: a two-layer perceptron whose gradients are the same bits on every replica.
//! - [`record`]: what is kept of a run: the legs, their steps, and the verdict over them.
//! - [`table`]: the live table on a terminal, or a line per step.
//! - [`report`]: the page with the plots.

pub mod data;
mod idx;
pub mod model;
//mod plots;
//pub mod record;
//pub mod report;
pub mod sampler;
//mod svg;
//pub mod table;

pub use data::{DataError, Dataset, Split};
pub use model::{Model, Shape};
//pub use record::{Leg, Report, Step, Verdict};
pub use sampler::Sampler;

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

/// Defaults for the digits that are compiled in.
pub const DIGITS: Defaults = Defaults { hidden: 32, batch: 120, steps: 120, rate: 0.1, momentum: 0.9 };

/// Defaults for Fashion-MNIST.
pub const FASHION: Defaults = Defaults { hidden: 64, batch: 240, steps: 300, rate: 0.05, momentum: 0.9 };
