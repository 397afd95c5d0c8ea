//! `solon lab`: experiments described in small files, run with real daemons and workers, and what they took.
//!
//! ```text
//! experiment file ──> variants x seeds ──> run: daemon, link, workers ──> records ──> report
//! ```
//!
//! - [`experiment`]: the files, and what they multiply out to.
//! - [`run`]: runs what is missing, one run after another. - [`resume`]: what is missing. - [`cluster`]: the processes of one run.
//! - [`compare`]: weights against those of the honest mean.
//! - [`worker`]: one worker process. - [`store`]: the samples, as workers read them. - [`shared`]: gradients that they share.
//! - [`link`]: the daemon's link: [`network`] namespaces shaped by the kernel, or [`pace`], a forwarder.
//! - [`record`]: what is written of a run. - [`report`]: what the records show: a page, tables, and docs/results.md.

pub mod cluster;
pub mod compare;
pub mod experiment;
pub mod link;
pub mod network;
pub mod pace;
pub mod record;
pub mod report;
pub mod resume;
pub mod run;
pub mod shared;
pub mod store;
pub mod worker;
