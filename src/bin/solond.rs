//! `solond`: the aggregation daemon.

use std::process::ExitCode;

use solon::daemon::config::{Level, LogFormat, Request, load};
use solon::daemon::serve::serve;
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    let loaded = match load(std::env::args_os(), std::env::vars_os(), &read) {
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
    match loaded.config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match serve(&loaded.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            error.exit().into()
        }
    }
}
