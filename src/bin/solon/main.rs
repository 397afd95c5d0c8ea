//! `solon`: the command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod demo;

/// Gradient aggregation that corrects lying, faulty and slow workers exactly
#[derive(Parser)]
#[command(name = "solon", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    /// One worker of the demonstration
    #[command(hide = true)]
    DemoWorker(solon::demo::worker::WorkerArgs),
    /// The daemon of the demonstration: solond, which ends with its standard input
    #[command(hide = true, disable_help_flag = true)]
    DemoDaemon {
        /// Flags of solond
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<std::ffi::OsString>,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::DemoWorker(args) => match solon::demo::worker::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("worker {}: {error}", args.worker);
                ExitCode::FAILURE
            }
        },
        Command::DemoDaemon { flags } => {
            solon::demo::worker::end_with_parent();
            let program = std::iter::once("solond".into());
            solon::daemon::main(program.chain(flags), std::iter::empty())
        }
    }
}
