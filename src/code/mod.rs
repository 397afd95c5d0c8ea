//! The mathematics: generator, encode, project, locate, recover. No I/O, clock or threads.

// `!(residual <= tolerance)` is how tests are written here: NaN must fail them.
#![allow(clippy::neg_cmp_op_on_partial_ord)]

mod berlekamp_welch;
mod condition;
mod encode;
mod explain;
mod generator;
mod kernels;
mod layout;
mod linear;
mod locate;
mod parameters;
mod plans;
mod precision;
mod projection;
#[cfg(test)]
mod properties;
mod recover;
pub mod reference;
mod rows;
mod search;
mod sweep;
mod verdict;

pub use berlekamp_welch::BerlekampWelch;
pub use condition::{Condition, condition};
pub use encode::{encode, encode_rounded, encode_with};
pub use generator::{Family, Form, Generator, GeneratorError};
pub use kernels::Kernels;
pub use layout::{Chunk, Layout};
pub use locate::Locator;
pub use parameters::{ParameterError, Parameters, Place};
pub use precision::Precision;
pub use projection::{PROJECTIONS_MAX, Projected, Projector};
pub use recover::Recoverer;
pub use rows::{ROWS_MAX, Rows};
pub use search::locates_surely;
pub(crate) use sweep::recycle;
pub use sweep::{Checked, Learn, SWEEP_PROJECTIONS, Sweep, Task, Verify};
pub use verdict::{Agreement, Outcome, Record, RowVerdict, Tolerance, Undecided};
