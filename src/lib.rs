//! Solon: gradient aggregation that corrects lying, faulty and slow workers exactly.
//!
//! Every gradient is computed by a group of `r` workers; each uploads one coded shard of `d / r_c` numbers, and the
//! daemon recovers the exact sum from any `r - 2s - e` of them while naming up to `s` liars per group (arXiv 2110.01595).
//!
//! The layers, each using only those above it:
//!
//! - [`code`]: the mathematics, without I/O, clock or threads.
//! - [`wire`]: frames, handshake and reports as bytes.
//! - [`memory`]: slots claimed at start, and bells that wake who waits for one.
//! - [`transport`]: frames between peers, over TCP, memory, and anything with faults.
//! - [`pipeline`]: the five stages from frames to updates, and the reactors that step them.
//! - [`client`]: what a training worker links.
//! - [`rules`]: robust rules for gradients that are not coded, to compare with and to use without redundancy.
//! - [`attacks`]: the liars that tests, simulation and demonstration send against it.
//! - [`sampler`]: which samples a group uses in a step.
//! - [`daemon`]: configuration and life cycle of `solond`.
//! - [`plan`]: what a job would tolerate, cost and take, before it is started.
//! - [`demo`]: a small training problem, and the table and report that show what a run of it did.
//! - [`doctor`]: whether machines are fit for a job.
//! - [`bench`](mod@bench): whole rounds with real processes, against rounds that only move bytes.
//! - [`lab`]: experiments over rules, attacks and links, described in files.

pub mod attacks;
pub mod bench;
pub mod client;
pub mod code;
pub mod daemon;
pub mod demo;
pub mod doctor;
pub mod lab;
pub mod memory;
pub mod pipeline;
pub mod plan;
pub mod rules;
pub mod sampler;
mod svg;
pub mod transport;
pub mod wire;

/// The examples in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
