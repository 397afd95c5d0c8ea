//! How `solond` ends: every exit code, what it means and what to do about it, in one table.
//!
//! 0 to 2 as every program has them, the others as `sysexits.h` (BSD) numbers them. A service manager must not restart
//! the daemon after a code whose [`Row::restart`] is [`Restart::Futile`]: nothing changes until somebody acts.

use std::fmt::Write;
use std::process::ExitCode;

/// Why the process ended. The number of each is its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Ended as asked.
    Success = 0,
    /// Failed for a reason without a code of its own.
    Failure = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// A file other than the configuration has wrong content.
    Data = 65,
    /// An address cannot be listened on, or nobody answers there.
    Unavailable = 69,
    /// A bug in the daemon.
    Software = 70,
    /// The operating system refuses memory, files or threads.
    Resources = 71,
    /// A file or device failed.
    Io = 74,
    /// Something needed is not there yet.
    Temporary = 75,
    /// A file may be read by too many, or cannot be by us.
    Permission = 77,
    /// The configuration is wrong.
    Configuration = 78,
}

/// Does starting again help?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// It may: the cause can pass by itself.
    Sensible,
    /// Not before somebody changed something, or not wanted.
    Futile,
}

/// What is to be known about an exit code.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The code.
    pub exit: Exit,
    /// Its name in `sysexits.h`, without `EX_`, in lower case; for 1 and 2 the usual word.
    pub name: &'static str,
    /// What happened.
    pub meaning: &'static str,
    /// What the operator does now.
    pub action: &'static str,
    /// Whether a service manager shall start the daemon again.
    pub restart: Restart,
}

/// All exit codes, in rising order.
pub const EXITS: &[Row] = &[
    Row {
        exit: Exit::Success,
        name: "ok",
        meaning: "ended as asked: by a signal after the open rounds ended, or what was to be printed is printed",
        action: "nothing",
        restart: Restart::Futile,
    },
    Row {
        exit: Exit::Failure,
        name: "failure",
        meaning: "failed for a reason that has no code of its own",
        action: "read the last line of the log",
        restart: Restart::Sensible,
    },
    Row {
        exit: Exit::Usage,
        name: "usage",
        meaning: "the command line has an unknown flag or a flag without its value",
        action: "compare with `solond --help`",
        restart: Restart::Futile,
    },
    Row {
        exit: Exit::Data,
        name: "dataerr",
        meaning: "the token file or the journal in the state directory has content that cannot be right",
        action: "correct the line that is named, or point `state.directory` elsewhere",
        restart: Restart::Futile,
    },
    Row {
        exit: Exit::Unavailable,
        name: "unavailable",
        meaning: "an address cannot be listened on: it is in use, or not one of this machine; `solon status`: no daemon answers there",
        action: "stop the other process, or change `listen.address` or `admin.address`, whichever is named",
        restart: Restart::Sensible,
    },
    Row {
        exit: Exit::Software,
        name: "software",
        meaning: "a bug: something that must hold did not",
        action: "report it with the log; a restart begins with the round after the last closed one",
        restart: Restart::Sensible,
    },
    Row {
        exit: Exit::Resources,
        name: "oserr",
        meaning: "the operating system refused memory, file descriptors, threads or cores",
        action: "raise the limit that is named, or lower `memory.*`, `rounds.window` or `chunks.width`",
        restart: Restart::Futile,
    },
    Row {
        exit: Exit::Io,
        name: "ioerr",
        meaning: "reading or writing the state directory or another file failed",
        action: "look at the disk: full, read-only or broken",
        restart: Restart::Sensible,
    },
    Row {
        exit: Exit::Temporary,
        name: "tempfail",
        meaning: "something needed is not there yet: with `listen.transport = \"rdma\"` a usable RDMA port",
        action: "see what the message names, and `solon rdma devices`; then nothing if it is started again by itself",
        restart: Restart::Sensible,
    },
    Row {
        exit: Exit::Permission,
        name: "noperm",
        meaning: "the token file can be read by others, or a file cannot be read by the daemon's user",
        action: "`chmod 600` and `chown` the file that is named",
        restart: Restart::Futile,
    },
    Row {
        exit: Exit::Configuration,
        name: "config",
        meaning: "the configuration is wrong; every problem is listed",
        action: "correct it until `solond --check-config` is content",
        restart: Restart::Futile,
    },
];

impl Exit {
    /// The number the process ends with.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Its row of the table.
    pub fn row(self) -> &'static Row {
        EXITS.iter().find(|row| row.exit == self).expect("a test finds every exit in the table")
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// The table of exit codes as a Markdown table, for the docs.
pub fn exit_codes_markdown() -> String {
    let mut page = String::from("| Code | Name | Meaning | What to do | Restart |\n|---:|---|---|---|---|\n");
    for row in EXITS {
        let restart = match row.restart {
            Restart::Sensible => "yes",
            Restart::Futile => "no",
        };
        writeln!(page, "| {} | {} | {} | {} | {restart} |", row.exit.code(), row.name, row.meaning, row.action)
            .expect("a string takes everything");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_is_in_the_table_once_and_in_order() {
        use Exit::*;
        let all =
            [Success, Failure, Usage, Data, Unavailable, Software, Resources, Io, Temporary, Permission, Configuration];
        assert_eq!(EXITS.iter().map(|row| row.exit).collect::<Vec<_>>(), all);
        assert!(EXITS.windows(2).all(|pair| pair[0].exit.code() < pair[1].exit.code()));
        assert_eq!(Configuration.row().name, "config");
    }

    #[test]
    fn markdown_has_a_line_per_exit() {
        let page = exit_codes_markdown();
        assert_eq!(page.lines().count(), EXITS.len() + 2);
        assert!(page.contains("| 78 | config |"), "{page}");
    }
}
