//! Solon: gradient aggregation that corrects lying, faulty and slow workers exactly.
//!
//! Every gradient is computed by a group of `r` workers; each uploads one coded shard of `d / r_c` numbers, and the
//! daemon recovers the exact sum from any `r - 2s - e` of them while naming up to `s` liars per group (arXiv 2110.01595).
//!
//! The layers, each using only those above it:
//!
//! - [`code`]: the mathematics, without I/O, clock or threads.
//! - [`daemon`]: configuration, exit codes and life cycle of `solond`.

pub mod code;
pub mod daemon;
