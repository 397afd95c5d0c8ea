//! The mathematics: generator, encode, project, locate, recover. No I/O, clock or threads.

mod layout;
mod parameters;
mod rows;

pub use layout::{Chunk, Layout};
pub use parameters::{ParameterError, Parameters, Place};
pub use rows::{ROWS_MAX, Rows};
