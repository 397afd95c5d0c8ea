//! `solon status`: how a daemon is, in a terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use solon::daemon::admin::{client, text};
use solon::daemon::exit::Exit;
use solon::daemon::status::Status;
use solon::demo::table::Screen;

use crate::Failure;

/// Show how a daemon is: who lies, who is absent, and how the last rounds went
///
/// Asks solond at its admin.address; a browser shows the same there as a page.
#[derive(Args)]
#[command(after_help = "Ends with 0 if the daemon is ready, 1 if it is not, 69 if no daemon answers.")]
pub struct Arguments {
    /// The daemon's admin.address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7448")]
    address: String,
    /// Show it again every so many seconds, until Ctrl-C
    #[arg(long, num_args = 0..=1, value_name = "SECONDS", default_missing_value = "1", conflicts_with = "json",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Asks, and says what was answered.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let ask = || {
        let failure = |error: client::AskError| Failure { exit: Exit::Unavailable, message: error.to_string() };
        client::ask(&arguments.address).map_err(failure)
    };
    let Some(seconds) = arguments.watch else {
        let status = ask()?;
        let shown = match arguments.json {
            true => serde_json::json!(status).to_string() + "\n",
            false => text::lines(&status, width()).iter().map(|line| format!("{line}\n")).collect(),
        };
        print(&shown);
        return verdict(&status);
    };
    let mut screen = Screen::new();
    let mut answered = false;
    loop {
        // A daemon that is gone may come back, and then is shown again; one that never answered may be elsewhere.
        let lines = match ask() {
            Ok(status) => {
                answered = true;
                text::lines(&status, width())
            }
            Err(failure) if !answered => return Err(failure),
            Err(failure) => vec![failure.message.chars().take(width()).collect()],
        };
        let shown = match std::io::stdout().is_terminal() {
            // A screen can be redrawn only as far as it is high.
            true => screen.redraw(&lines[..lines.len().min(height())]),
            false => lines.iter().map(|line| format!("{line}\n")).chain(["\n".to_owned()]).collect(),
        };
        if !print(&shown) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

fn verdict(status: &Status) -> Result<(), Failure> {
    match status.alive && status.ready {
        true => Ok(()),
        false => Err(Failure { exit: Exit::Failure, message: format!("the daemon is {}", status.word()) }),
    }
}

/// Is anybody still reading?
fn print(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

fn width() -> usize {
    match std::io::stdout().is_terminal() {
        true => terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0)),
        false => usize::MAX,
    }
}

fn height() -> usize {
    terminal_size::terminal_size().map_or(24, |(_, height)| usize::from(height.0)).saturating_sub(1)
}
