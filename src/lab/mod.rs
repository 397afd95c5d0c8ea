//! `solon lab`: experiments with real daemons and workers.

pub mod shared;
