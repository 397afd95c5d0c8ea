//! The processes of one leg: a daemon and its workers, started, listened to, and ended.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::worker::Message;

/// Why processes could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A process cannot be started.
    #[error("cannot start {what}: {error}")]
    Start {
        /// Which.
        what: String,
        /// What the operating system says.
        error: io::Error,
    },
    /// The daemon ended before it was ready.
    #[error("solond ended before it was ready; it said:\n{0}")]
    DaemonEnded(String),
    /// A process ended that should not have.
    #[error("worker {worker} ended ({status}){}", if said.is_empty() { String::new() } else { format!(": {said}") })]
    WorkerEnded {
        /// The worker.
        worker: usize,
        /// How.
        status: String,
        /// What it said last.
        said: String,
    },
    /// A worker said something that is no message.
    #[error("worker {worker} said something unreadable: {line}")]
    Unreadable {
        /// The worker.
        worker: usize,
        /// What it said.
        line: String,
    },
    /// Nothing was heard for too long.
    #[error("nothing was heard from the processes for {0:?}")]
    Silence(Duration),
}

/// What a process said, or that it said nothing more.
#[derive(Debug)]
pub enum Heard<M = Message> {
    /// A line of a worker's standard output.
    Said(usize, M),
    /// A line that is no message.
    Unreadable(usize, String),
    /// A worker's standard output ended.
    Ended(usize),
}

struct WorkerProcess {
    child: Child,
    stdin: ChildStdin,
}

/// A daemon that is ready; killed when this is dropped.
pub struct Daemon {
    child: Child,
    // Ends the daemon when it is closed.
    _stdin: Option<ChildStdin>,
    address: String,
}

/// A daemon and workers, all ended when this is dropped.
pub struct Processes<M = Message> {
    daemon: Daemon,
    workers: Vec<Option<WorkerProcess>>,
    heard: Receiver<Heard<M>>,
    tell: Sender<Heard<M>>,
}

impl Daemon {
    /// Starts a daemon: `program` with these arguments, which must make it log as JSON to standard error and end with its standard
    /// input. What it logs once it is ready goes to `log`, line by line.
    ///
    /// # Errors
    /// If it does not come up; with what it said.
    pub fn start(
        program: &Path,
        arguments: &[String],
        mut log: impl FnMut(String) + Send + 'static,
    ) -> Result<Daemon, ProcessError> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| ProcessError::Start { what: "solond".into(), error })?;
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut said = String::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else {
                // Already ended, or about to: it closed its log.
                let _ = child.wait();
                return Err(ProcessError::DaemonEnded(said));
            };
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            match (entry["message"].as_str(), entry["address"].as_str()) {
                (Some("ready"), Some(address)) => break address.to_owned(),
                (Some(message), _) => said += &format!("{message}\n"),
                _ => said += &format!("{line}\n"),
            }
        };
        // Keep reading, or the daemon would wait for room in the pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(&mut log));
        Ok(Daemon { child, _stdin: stdin, address })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Processes {
    /// Starts a daemon, as [`Daemon::start`].
    ///
    /// # Errors
    /// As there.
    pub fn start(program: &Path, daemon_args: &[String]) -> Result<Processes, ProcessError> {
        Ok(Processes::with(Daemon::start(program, daemon_args, drop)?))
    }
}

impl<M: DeserializeOwned + Send + 'static> Processes<M> {
    /// A daemon that is ready, and no workers yet, which say `M`s, one as JSON per line.
    pub fn with(daemon: Daemon) -> Processes<M> {
        let (tell, heard) = mpsc::channel();
        Processes { daemon, workers: Vec::new(), heard, tell }
    }

    /// The daemon's process.
    pub fn daemon(&mut self) -> &mut Child {
        self.daemon.child()
    }

    /// Where the daemon listens.
    pub fn address(&self) -> &str {
        self.daemon.address()
    }

    /// Starts the next worker with these arguments.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn add_worker(&mut self, program: &Path, args: &[String]) -> Result<(), ProcessError> {
        let worker = self.workers.len();
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| ProcessError::Start { what: format!("worker {worker}"), error })?;
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let tell = self.tell.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let heard = match serde_json::from_str(&line) {
                    Ok(message) => Heard::Said(worker, message),
                    Err(_) => Heard::Unreadable(worker, line),
                };
                if tell.send(heard).is_err() {
                    return;
                }
            }
            // Nobody listens any more when the leg is over.
            let _ = tell.send(Heard::Ended(worker));
        });
        self.workers.push(Some(WorkerProcess { child, stdin }));
        Ok(())
    }

    /// Tells all workers to begin.
    pub fn begin(&mut self) {
        for worker in self.workers.iter_mut().flatten() {
            // One that has died is noticed by its silence.
            let _ = worker.stdin.write_all(b"go\n").and_then(|()| worker.stdin.flush());
        }
    }

    /// Kills a worker, as `kill -9` does.
    pub fn kill(&mut self, worker: usize) {
        if let Some(mut process) = self.workers[worker].take() {
            // It may be dead already.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }

    /// Was this worker killed by us?
    pub fn was_killed(&self, worker: usize) -> bool {
        self.workers[worker].is_none()
    }

    /// The next thing said.
    ///
    /// # Errors
    /// If nothing is said for `patience`.
    pub fn hear(&mut self, patience: Duration) -> Result<Heard<M>, ProcessError> {
        match self.heard.recv_timeout(patience) {
            Ok(heard) => Ok(heard),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(ProcessError::Silence(patience)),
        }
    }

    /// How a worker ended that ended by itself.
    pub fn status(&mut self, worker: usize) -> String {
        match self.workers[worker].as_mut().map(|process| process.child.wait()) {
            Some(Ok(status)) => status.to_string(),
            _ => "killed".into(),
        }
    }
}

impl<M> Drop for Processes<M> {
    fn drop(&mut self) {
        // First all of them, then wait: they end at the same time.
        self.workers.iter_mut().flatten().for_each(|process| {
            let _ = process.child.kill();
        });
        let _ = self.daemon.child.kill();
        let limit = Instant::now() + Duration::from_secs(5);
        let children =
            self.workers.iter_mut().flatten().map(|process| &mut process.child).chain([&mut self.daemon.child]);
        for child in children {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
