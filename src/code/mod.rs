//! The mathematics: generator, encode, project, locate, recover. No I/O, clock or threads.

mod encode;
mod generator;
mod kernels;
mod layout;
mod linear;
mod locate;
mod parameters;
mod projection;
mod recover;
mod rows;

pub use encode::encode;
pub use generator::{Family, Form, Generator, GeneratorError};
pub use kernels::sum_into;
pub use layout::{Chunk, Layout};
pub use locate::{Agreement, Locator, Outcome, Record, RowVerdict, Tolerance, Undecided};
pub use parameters::{ParameterError, Parameters, Place};
pub use projection::{PROJECTIONS_MAX, Projected, Projector};
pub use recover::Recoverer;
pub use rows::{ROWS_MAX, Rows};
