//! `solon calibrate`: finds the tolerance that a job needs, from clean rounds of it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;

use clap::Args;
use solon::daemon::calibrate::{CalibrateError, Calibration, Group, MARGIN, WIDE, calibrate, write_tolerance};
use solon::daemon::config::{Request, load};
use solon::daemon::exit::Exit;
use solon::pipeline::Counter;

use crate::Failure;

/// Run clean rounds of your own job, and find the tolerance that its noise needs
///
/// Serves the job in solond's place, with the same configuration. Start its workers as usual, all of them honest. Replicas that do not
/// compute the same bits (other GPUs, other numbers of threads, kernels that are not deterministic) differ by noise, and a lie that is
/// smaller than verify.tolerance is not seen: so that should be as small as the noise allows.
#[derive(Args)]
pub struct Arguments {
    /// The configuration of solond
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Rounds to look at; Ctrl-C ends it sooner
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Write the suggestion to the configuration; nothing else in it changes
    #[arg(long, requires = "config")]
    write: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    /// Further flags of solond, after --
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<OsString>,
}

/// Serves, and says what it has seen.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let failure = |exit, message: String| Failure { exit, message };
    let mut words: Vec<OsString> = vec!["solond".into()];
    if let Some(config) = &arguments.config {
        words.extend(["--config".into(), config.into()]);
    }
    words.extend(arguments.flags.iter().cloned());
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    let loaded = match load(words, std::env::vars_os(), &read) {
        Ok(Request::Serve(loaded)) => loaded,
        Ok(Request::Answer(text)) => {
            print!("{text}");
            return Ok(());
        }
        Err(refusal) => return Err(failure(refusal.exit(), format!("the configuration is wrong\n{refusal}"))),
    };
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr);
    log.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
    let (mut begun, mut told) = (false, 0);
    let found = calibrate(&loaded.config, arguments.rounds, |daemon| {
        if !std::mem::replace(&mut begun, true) {
            eprintln!("calibrating at {}: start the job's workers as usual, all of them honest", daemon.address());
        }
        let rounds = daemon.handle().board.counted(Counter::RoundsComplete);
        if 10 * rounds / arguments.rounds > std::mem::replace(&mut told, 10 * rounds / arguments.rounds) {
            eprintln!("{} of {} rounds", rounds.min(arguments.rounds), arguments.rounds);
        }
    });
    let found = found.map_err(|error| match &error {
        CalibrateError::Serve(serve) => failure(serve.exit(), error.to_string()),
        CalibrateError::Mean => failure(Exit::Configuration, error.to_string()),
        CalibrateError::NoWords { .. } => failure(Exit::Failure, error.to_string()),
    })?;
    let text = if arguments.json { serde_json::json!(found).to_string() + "\n" } else { text(&found) };
    let mut out = std::io::stdout().lock();
    // A reader that went away has seen enough.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match &arguments.config {
        Some(path) if arguments.write && found.lies == 0 => {
            write_tolerance(path, found.suggested)
                .map_err(|error| failure(Exit::Io, format!("{} cannot be replaced: {error}", path.display())))?;
            eprintln!("written to {}", path.display());
            Ok(())
        }
        _ if found.lies > 0 => Err(failure(
            Exit::Failure,
            format!(
                "{} shards were off by more than {} of their size, which is no noise: their workers are named above; nothing was written",
                found.lies, WIDE
            ),
        )),
        _ => Ok(()),
    }
}

fn text(found: &Calibration) -> String {
    let mut text = String::from("group   words   half are within   all are within   (of the size of a shard)\n");
    for Group { group, words, half, most } in &found.groups {
        let _ = writeln!(text, "{group:>5} {words:>7} {half:>17.1e} {most:>16.1e}");
    }
    let words: u64 = found.groups.iter().map(|group| group.words).sum();
    let _ = writeln!(
        text,
        "{} rounds, {} of them undecodable; tolerance now {:.1e}",
        found.rounds + found.undecodable,
        found.undecodable,
        found.configured
    );
    let _ = writeln!(text, "\nverify.tolerance = {:e}", found.suggested);
    let _ = writeln!(
        text,
        "It is {MARGIN} times the farthest of {words} honest words, or the default if that is more. At most one word in {} is farther off than all of\n\
         these (95 % confidence), and none of these came nearer to being called a lie than a factor of {MARGIN}. What a liar adds below it is not seen:\n\
         at most {:.1e} of the size of a shard per round.",
        words / 3,
        found.suggested,
    );
    text
}
