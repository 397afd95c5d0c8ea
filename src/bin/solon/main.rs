//! `solon`: everything around a job that is not the daemon.
//!
//! A subcommand is a module with its arguments and how to run them. Here they are only listed: what the command line says is
//! dispatched, what goes wrong is printed to standard error, and the process ends with a code of [`solon::daemon::exit`].

mod plan;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use solon::daemon::exit::Exit;

/// Plan and try out jobs whose lying, faulty and slow workers are corrected exactly
#[derive(Parser)]
#[command(name = "solon", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Plan(plan::Arguments),
}

/// Why a subcommand did not do what it was asked to.
struct Failure {
    exit: Exit,
    /// For standard error.
    message: String,
}

fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Plan(arguments) => plan::run(arguments),
    };
    match done {
        Ok(()) => Exit::Success.into(),
        Err(Failure { exit, message }) => {
            eprintln!("solon: {message}");
            exit.into()
        }
    }
}
