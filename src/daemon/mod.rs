//! What turns the library into a service: its settings, its configuration and how it ends.
//!
//! - [`settings`]: the table of settings, from which flags, help, the example file and the docs are made.
//! - [`config`]: the file, the environment and the flags become one typed [`config::Config`], or a list of all that is
//!   wrong with them.
//! - [`exit`]: the table of exit codes.

pub mod config;
pub mod exit;
pub mod settings;
