//! `solon lab`: experiments described in small files, run with real daemons and workers, and what they took.
//!
//! - [`record`]: what is written of a run.

pub mod record;
