//! What turns the library into a service: its settings, its configuration, its life and how it ends.
//!
//! - [`settings`]: the table of settings, from which flags, help, the example file and the docs are made.
//! - [`config`]: the file, the environment and the flags become one typed [`config::Config`], or a list of all that is
//!   wrong with them.
//! - [`serve`]: from a configuration to a running pipeline, until a signal ends it.
//! - [`exit`]: the table of exit codes.

pub mod config;
mod door;
pub mod exit;
mod journal;
mod report;
pub mod serve;
pub mod settings;
mod tokens;
