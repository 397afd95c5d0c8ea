//! The configuration and the files that it names.

use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use crate::daemon::config::{Admission, Config};
use crate::daemon::machine::Machine;
use crate::daemon::tokens;
use crate::pipeline::read_journal;

use super::facts::bytes;
use super::{Facts, Given, Outcome, Status};

/// Room that a journal and what is written beside it may take.
const ROOM: u64 = 1 << 20;

/// What the files are like.
#[derive(Clone, Debug)]
pub struct Files {
    tokens: Option<Result<usize, String>>,
    state: State,
    journal: Journal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Unset,
    /// Writable, with so many bytes free.
    Writable(u64),
    /// It is not there, and can be made or not.
    Missing {
        can_be_made: bool,
    },
    Refused(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Journal {
    Unset,
    None,
    /// Readable; the next round, if it knows one.
    Whole(Option<u64>),
    Damaged(&'static str),
    Refused(String),
}

impl Files {
    pub(super) fn look(machine: &Machine, config: &Config) -> Files {
        let below = |path: &Path| machine.path(path.strip_prefix("/").unwrap_or(path).to_string_lossy().as_ref());
        let place = |path: &Path| if path.is_absolute() { below(path) } else { path.to_owned() };
        let workers = config.job.parameters.workers();
        let tokens = match &config.listen.admission {
            Admission::Tokens(path) => {
                let read = tokens::read(&place(path), workers);
                Some(read.map(|tokens| tokens.len()).map_err(|error| error.to_string()))
            }
            Admission::Loopback | Admission::Open => None,
        };
        let Some(directory) = config.state.directory.as_deref().map(place) else {
            return Files { tokens, state: State::Unset, journal: Journal::Unset };
        };
        Files { tokens, state: state_of(&directory), journal: journal_of(&directory, &config.job.name) }
    }
}

fn state_of(directory: &Path) -> State {
    if directory.exists() && !directory.is_dir() {
        return State::Refused("not a directory".into());
    }
    match access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => {
            // Without an answer the room is not what stands in the way.
            State::Writable(statvfs(directory).map_or(u64::MAX, |of| of.f_bavail.saturating_mul(of.f_frsize)))
        }
        Err(rustix::io::Errno::NOENT) => {
            let nearest = directory.ancestors().skip(1).find(|parent| parent.exists());
            let can_be_made = nearest.is_some_and(|parent| access(parent, Access::WRITE_OK).is_ok());
            State::Missing { can_be_made }
        }
        Err(error) => State::Refused(error.to_string()),
    }
}

fn journal_of(directory: &Path, job: &str) -> Journal {
    match std::fs::read(directory.join(format!("{job}.journal"))) {
        Ok(bytes) => match read_journal(&bytes) {
            Ok(resume) => Journal::Whole(resume.map(|resume| resume.round + 1)),
            Err(why) => Journal::Damaged(why),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Journal::None,
        Err(error) => Journal::Refused(error.to_string()),
    }
}

/// Is the configuration right?
pub(super) fn configuration(facts: &Facts) -> Outcome {
    match &facts.given {
        Given::Assumed => Outcome::of(Status::Note, facts.job(), "", "solon doctor --config /etc/solond/solond.toml"),
        Given::Job(warnings) if warnings.is_empty() => Outcome::pass(facts.job()),
        Given::Job(warnings) => {
            Outcome::of(Status::Warn, warnings.join("\n"), "only names of settings", "correct what is named")
        }
        Given::Wrong(problems) => Outcome::of(
            Status::Fail,
            problems.join("\n"),
            "a configuration that solond takes",
            "correct what is named, until `solond --check-config` is content",
        ),
    }
}

/// Can every worker show who it is?
pub(super) fn tokens(facts: &Facts) -> Outcome {
    match (&facts.files.tokens, &facts.config.listen.admission) {
        (Some(Ok(tokens)), _) => Outcome::pass(format!("{tokens} tokens, one per worker, for nobody else to read")),
        (Some(Err(error)), _) => Outcome::of(
            Status::Fail,
            error.clone(),
            "a file with a line \"INDEX TOKEN\" for each worker, mode 600, of the user that solond runs as",
            "correct what is named; run this command as solond's user",
        ),
        (None, Admission::Open) => Outcome::of(
            Status::Warn,
            "listen.open: whoever reaches the port can be every worker",
            "listen.token_file",
            "right only on a network where everybody is trusted",
        ),
        (None, _) => Outcome::skip("no tokens: only this machine can connect"),
    }
}

/// Can the last round be kept?
pub(super) fn state(facts: &Facts) -> Outcome {
    let hint =
        "chown and chmod it for the user that solond runs as (systemd: StateDirectory=), or change state.directory";
    match &facts.files.state {
        State::Unset => Outcome::skip("state.directory is not set: after a restart rounds begin anew"),
        State::Writable(room) if *room < ROOM => {
            Outcome::of(Status::Fail, format!("{} free", bytes(*room)), bytes(ROOM), "make room on that disk")
        }
        State::Writable(u64::MAX) => Outcome::pass("writable"),
        State::Writable(room) => Outcome::pass(format!("writable, {} free", bytes(*room))),
        State::Missing { can_be_made: true } => Outcome::pass("not there: solond will make it"),
        State::Missing { can_be_made: false } => {
            Outcome::of(Status::Fail, "not there, and this user cannot make it", "a directory, writable", hint)
        }
        State::Refused(error) => Outcome::of(Status::Fail, error.clone(), "a directory, writable by this user", hint),
    }
}

/// Does it know where the job stands?
pub(super) fn journal(facts: &Facts) -> Outcome {
    match &facts.files.journal {
        Journal::Unset => Outcome::skip("state.directory is not set"),
        Journal::None => Outcome::pass("none yet: the job begins with its first round"),
        Journal::Whole(None) => Outcome::pass("empty: the job begins with its first round"),
        Journal::Whole(Some(round)) => Outcome::pass(format!("whole: the job goes on with round {round}")),
        Journal::Damaged(why) => Outcome::of(
            Status::Fail,
            format!("damaged: {why}"),
            "a journal that solond has written",
            "if the workers start from a checkpoint anyway, remove it",
        ),
        Journal::Refused(error) => Outcome::of(
            Status::Fail,
            format!("cannot be read: {error}"),
            "a file of the user that solond runs as",
            "chown it; run this command as solond's user",
        ),
    }
}
