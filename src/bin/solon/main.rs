//! `solon`: everything around a job that is not the daemon.
//!
//! A subcommand is a module with its arguments and how to run them. Here they are only listed: what the command line says is
//! dispatched, what goes wrong is printed to standard error, and the process ends with a code of [`solon::daemon::exit`].

mod bench;
mod calibrate;
mod demo;
mod doctor;
mod lab;
mod pages;
mod plan;
mod rdma;
mod status;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use solon::daemon::exit::Exit;

/// Try out, plan and measure jobs whose lying, faulty and slow workers are corrected exactly
#[derive(Parser)]
#[command(name = "solon", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Arguments),
    Calibrate(calibrate::Arguments),
    Demo(demo::Arguments),
    Doctor(doctor::Arguments),
    Lab(lab::Arguments),
    Plan(plan::Arguments),
    Rdma(rdma::Arguments),
    Status(status::Arguments),
    #[command(hide = true)]
    Pages(pages::Arguments),
    #[command(flatten)]
    BenchRole(bench::Role),
    #[command(flatten)]
    LabRole(lab::Role),
    /// One worker of the demonstration
    #[command(hide = true)]
    DemoWorker(solon::demo::worker::WorkerArgs),
    /// The daemon of the demonstration: solond, which ends with its standard input
    #[command(hide = true, disable_help_flag = true)]
    DemoDaemon {
        /// Flags of solond
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<OsString>,
    },
}

/// Why a subcommand did not do what it was asked to.
struct Failure {
    exit: Exit,
    /// For standard error.
    message: String,
}

fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::BenchRole(role) => bench::run_role(role),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Lab(arguments) => lab::run(&arguments),
        Command::LabRole(role) => lab::run_role(&role),
        Command::Plan(arguments) => plan::run(arguments),
        Command::Pages(arguments) => pages::run(&arguments),
        Command::Rdma(arguments) => rdma::run(arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::DemoWorker(arguments) => solon::demo::worker::run(&arguments)
            .map_err(|error| Failure { exit: Exit::Failure, message: format!("worker {}: {error}", arguments.worker) }),
        Command::DemoDaemon { flags } => {
            solon::demo::worker::end_with_parent();
            // The environment is not looked at: the demonstration is the same everywhere.
            return solon::daemon::main(std::iter::once("solond".into()).chain(flags), std::iter::empty());
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("solon: {}", failure.message);
            failure.exit.into()
        }
    }
}
