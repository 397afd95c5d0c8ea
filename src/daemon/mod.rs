//! What turns the library into a service: its settings, its configuration, its life and how it ends.
//!
//! - [`settings`]: the table of settings, from which flags, help, the example file and the docs are made.
//! - [`config`]: the file, the environment and the flags become one typed [`config::Config`], or a list of all that is
//!   wrong with them.
//! - [`serve`]: from a configuration to a running pipeline.
//! - [`run`]: the daemon's life, until a signal ends it.
//! - [`notify`]: what the service manager is told.
//! - [`reload`]: a new configuration for a daemon that serves.
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
pub mod notify;
pub mod reload;
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
use reload::Reloader;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The whole of `solond`: reads the configuration from these arguments and this environment, sets up the log and serves.
pub fn main(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    let load = || config::load(args.iter().cloned(), environment.iter().cloned(), &read);
    let loaded = match load() {
        Ok(Request::Serve(loaded)) => loaded,
        Ok(Request::Answer(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(refusal) => {
            eprint!("{refusal}");
            notify::failed(&refusal.to_string());
            return refusal.exit().into();
        }
    };
    let log_at = log(&loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let again = || match load()? {
        Request::Serve(loaded) => Ok(*loaded),
        Request::Answer(_) => unreachable!("the same flags ask for no answer"),
    };
    match run::serve(&loaded.config, Reloader::new(&loaded, &again, &log_at)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            notify::failed(&error.to_string());
            error.exit().into()
        }
    }
}

/// Sets up the log; what is returned changes its level.
fn log(log: &config::Log) -> impl Fn(Level) {
    let (level, handle) = tracing_subscriber::reload::Layer::new(filter(log.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    let lines = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(level).with(lines).init();
    move |level| handle.reload(filter(level)).expect("the log lives as long as the process")
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}
