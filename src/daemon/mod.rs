//! What turns the library into a service: its settings, its configuration, its life and how it ends.
//!
//! - [`settings`]: the table of settings, from which flags, help, the example file and the docs are made.
//! - [`config`]: the file, the environment and the flags become one typed [`config::Config`], or a list of all that is
//!   wrong with them.
//! - [`serve`]: from a configuration to a running pipeline.
//! - [`run`]: the daemon's life, until a signal ends it.
//! - [`admin`]: metrics, health and status over HTTP; from [`history`], what is remembered, and [`status`], how it is told.
//! - [`liveness`]: whether its reactors still turn.
//! - [`metrics`]: what is counted, for Prometheus.
//! - [`calibrate`]: the tolerance that a job needs.
//! - [`exit`]: the table of exit codes.

pub mod admin;
pub mod calibrate;
pub mod config;
pub(crate) mod cores;
mod door;
pub mod exit;
pub mod history;
pub(crate) mod journal;
pub mod liveness;
pub(crate) mod machine;
pub mod metrics;
mod mixed;
mod report;
pub mod run;
pub mod serve;
pub mod settings;
pub mod status;
pub(crate) mod tokens;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use config::{Level, LogFormat, Request};
use tracing::level_filters::LevelFilter;

/// The whole of `solond`: reads the configuration from these arguments and this environment, sets up the log and serves.
pub fn main(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    let loaded = match config::load(args, environment, &read) {
        Ok(Request::Serve(loaded)) => loaded,
        Ok(Request::Answer(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(refusal) => {
            eprint!("{refusal}");
            return refusal.exit().into();
        }
    };
    let level = match loaded.config.log.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    let log = log.with_ansi(std::io::stderr().is_terminal());
    match loaded.config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match run::serve(&loaded.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            error.exit().into()
        }
    }
}
