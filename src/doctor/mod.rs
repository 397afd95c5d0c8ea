//! Whether machines are fit for a job, before one is started.
//!
//! - [`peer`]: can two machines reach each other, and how fast?

pub mod peer;
