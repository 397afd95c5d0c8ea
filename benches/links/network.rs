//! The namespaces that `benches/links/network` has made: who is started where, links' rate, and what has gone over them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/links/network");

/// Namespaces whose names begin with the same word.
pub struct Network(pub String);

/// Somebody with a link of its own.
#[derive(Clone, Copy)]
pub enum End {
    Daemon,
    Worker(usize),
}

/// Bytes that have left an end's interface and come in through it, headers of all layers included.
#[derive(Clone, Copy, Default)]
pub struct Bytes {
    pub sent: f64,
    pub received: f64,
}

impl Network {
    /// Shapes all links to so many bytes per second in each direction; 0: as fast as they go.
    pub fn shape(&self, rate: u64) -> Result<(), Failure> {
        let run = Command::new(SCRIPT).args(["shape", &self.0, &rate.to_string()]).status();
        let done = run.map_err(|error| Failure(format!("cannot run {SCRIPT}: {error}")))?;
        done.success().then_some(()).ok_or_else(|| Failure(format!("{SCRIPT} cannot shape links: {done}")))
    }

    /// Program and arguments that run a command at an end.
    pub fn at(&self, end: End, program: &Path, arguments: &[String]) -> (PathBuf, Vec<OsString>) {
        let namespace = match end {
            End::Daemon => format!("{}-daemon", self.0),
            End::Worker(worker) => format!("{}-{worker}", self.0),
        };
        let first = ["netns", "exec", &namespace].map(OsString::from);
        let rest = arguments.iter().map(OsString::from);
        ("ip".into(), first.into_iter().chain([program.as_os_str().to_owned()]).chain(rest).collect())
    }

    /// What the kernel has counted at the daemon's interface.
    pub fn bytes(&self) -> Result<Bytes, Failure> {
        let files = ["tx", "rx"].map(|way| format!("/sys/class/net/eth0/statistics/{way}_bytes"));
        let (program, arguments) = self.at(End::Daemon, Path::new("cat"), &files);
        let read = Command::new(program).args(arguments).output();
        let text = read.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        match text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>().as_deref() {
            Ok([sent, received]) => Ok(Bytes { sent: *sent, received: *received }),
            _ => Err(Failure(format!("the daemon's interface says {text:?} of its bytes, expected two numbers"))),
        }
    }
}
