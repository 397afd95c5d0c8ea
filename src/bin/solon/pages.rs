//! `solon pages DIR`: the manual pages and the shells' completions of both programs, for packages. Hidden.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use solon::daemon::config;
use solon::daemon::exit::Exit;

use crate::{CommandLine, Failure};

/// Write the manual pages and completions of solon and solond
#[derive(Args, Debug)]
pub struct Arguments {
    /// Where to: `man/` and `completions/` are made in it
    directory: PathBuf,
}

/// Writes them.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    write(arguments).map_err(|error| Failure {
        exit: Exit::Io,
        message: format!("cannot write into {}: {error}", arguments.directory.display()),
    })
}

fn write(arguments: &Arguments) -> std::io::Result<()> {
    let (man, completions) = (arguments.directory.join("man"), arguments.directory.join("completions"));
    std::fs::create_dir_all(&man)?;
    std::fs::create_dir_all(&completions)?;
    let (mut solon, mut solond) = (visible(&CommandLine::command()), config::command());
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut solon, "solon", &completions)?;
        clap_complete::generate_to(shell, &mut solond, "solond", &completions)?;
    }
    clap_mangen::generate_to(solon, &man)?;
    clap_mangen::Man::new(solond).section("8").generate_to(&man)?;
    Ok(())
}

/// The command without what is for the program's own processes. A subcommand cannot be taken away: a bare one gets those that are shown.
fn visible(command: &Command) -> Command {
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    Command::new("solon")
        .version(env!("CARGO_PKG_VERSION"))
        .about(command.get_about().cloned().unwrap_or_default())
        .disable_help_subcommand(true)
        .subcommands(shown.map(|it| it.clone().disable_help_subcommand(true)))
}
