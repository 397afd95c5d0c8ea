//! All processes of a benchmark, and one repetition with them.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use super::usage::{self, Usage};
use super::worker::{Order, Said, Target};
use super::{BenchError, Job, Trouble};
use crate::demo::process::{Daemon, ProcessError};
use crate::memory;
use crate::pipeline::StageName;

/// The longest that anybody may be silent: joining, or the rounds of one order.
const PATIENCE: Duration = Duration::from_secs(300);
/// What a process takes beside its gradient: the program, its stacks, slots and sockets.
const PROCESS_BYTES: u64 = 12 << 20;

/// What the daemon's counters rose by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Bytes of shards received.
    pub bytes_received: f64,
    /// Bytes sent.
    pub bytes_sent: f64,
    /// System calls of the transport, where it counts them.
    pub system_calls: Option<f64>,
    /// Seconds that each of [`StageName::ALL`] was busy.
    pub busy: [f64; StageName::ALL.len()],
}

impl Counters {
    fn read(line: &serde_json::Value) -> Counters {
        let number = |name: &str| line[name].as_f64().unwrap_or(0.0);
        Counters {
            bytes_received: number("bytes_received"),
            bytes_sent: number("bytes_sent"),
            system_calls: line["system_calls"].as_f64(),
            busy: StageName::ALL.map(|stage| number(&format!("{}_us", stage.name())) / 1e6),
        }
    }

    fn since(self, earlier: Counters) -> Counters {
        Counters {
            bytes_received: self.bytes_received - earlier.bytes_received,
            bytes_sent: self.bytes_sent - earlier.bytes_sent,
            system_calls: self.system_calls.zip(earlier.system_calls).map(|(now, then)| now - then),
            busy: std::array::from_fn(|at| self.busy[at] - earlier.busy[at]),
        }
    }
}

/// What one repetition took.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Wall-clock seconds per round.
    pub seconds: f64,
    /// What the receiving side used per round.
    pub usage: Usage,
    /// What solond counted per round; nothing of a floor.
    pub counters: Counters,
}

/// Which floors are wanted beside solond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floors {
    /// Both.
    Both,
    /// None.
    None,
}

struct WorkerProcess {
    child: Child,
    stdin: ChildStdin,
}

/// A daemon, floors and workers; all ended when this is dropped.
pub struct Cluster {
    solond: Daemon,
    log: Receiver<String>,
    floors: Option<[Daemon; 2]>,
    workers: Vec<WorkerProcess>,
    heard: Receiver<(usize, Option<Said>)>,
}

/// What `job` takes in memory at most, in bytes: each worker has its gradient, and for either session as many updates that came
/// early as its window holds.
pub fn memory_needed(job: &Job) -> u64 {
    job.workers() as u64 * (5 * 4 * job.dimension as u64 + PROCESS_BYTES)
}

/// Passes on what worker `worker` says, one JSON object per line; its end, and what cannot be read, is `None`. Until nobody listens any more.
pub fn hear<T: DeserializeOwned>(worker: usize, stdout: ChildStdout, tell: &Sender<(usize, Option<T>)>) {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let said = lines.map(|line| serde_json::from_str(&line).ok()).chain([None]);
    said.map(|said| tell.send((worker, said))).all(|sent| sent.is_ok());
}

impl Cluster {
    /// Starts everybody and waits until all have joined. `program` is `solon`; `absent` workers per group send nothing to the floors.
    ///
    /// # Errors
    /// If it may take more than 70 % of the memory that is free, or somebody does not come up.
    pub fn start(program: &Path, job: Job, floors: Floors, absent: usize) -> Result<Cluster, BenchError> {
        let (needed, free) = (memory_needed(&job), memory::available().map_or(u64::MAX, |(bytes, _)| bytes as u64));
        // The rest is for whoever else lives here: running out ends other people's processes.
        if needed > free / 10 * 7 {
            let (needed_mib, free_mib) = (needed >> 20, free >> 20);
            return Err(BenchError::Memory { workers: job.workers(), dimension: job.dimension, needed_mib, free_mib });
        }
        let (sender, log) = mpsc::channel();
        let flags = job.flags();
        let with = |first: &[&str]| -> Vec<String> {
            first.iter().map(|word| (*word).to_owned()).chain(flags.iter().cloned()).collect()
        };
        let counters = move |line: String| {
            // Nobody listens any more when the benchmark is over.
            let _ = if line.contains("\"counters\"") { sender.send(line) } else { Ok(()) };
        };
        let solond = Daemon::start(program, &with(&["demo-daemon"]), counters)?;
        let absent = absent.to_string();
        let floor = |side| Daemon::start(program, &with(&["bench-floor", side, &absent, "--"]), drop);
        let floors = match floors {
            Floors::Both => Some([floor("raw")?, floor("dropping")?]),
            Floors::None => None,
        };
        let (tell, heard) = mpsc::channel();
        let mut cluster = Cluster { solond, log, floors, workers: Vec::new(), heard };
        for worker in 0..job.workers() {
            let mut command = Command::new(program);
            command.args(["bench-worker", "--worker", &worker.to_string(), "--solond", cluster.solond.address()]);
            if let Some([raw, dropping]) = &cluster.floors {
                command.args(["--raw", raw.address(), "--dropping", dropping.address()]);
            }
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|error| ProcessError::Start { what: format!("worker {worker}"), error })?;
            let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
            let tell = tell.clone();
            std::thread::spawn(move || hear(worker, stdout, &tell));
            cluster.workers.push(WorkerProcess { child, stdin });
        }
        cluster.answers()?;
        Ok(cluster)
    }

    /// One line of every worker.
    fn answers(&mut self) -> Result<Vec<Said>, BenchError> {
        let mut answers: Vec<Option<Said>> = vec![None; self.workers.len()];
        let until = Instant::now() + PATIENCE;
        for _ in 0..answers.len() {
            let left = until.saturating_duration_since(Instant::now());
            let (worker, said) = self.heard.recv_timeout(left).map_err(|_| ProcessError::Silence(PATIENCE))?;
            match said {
                Some(Said::Failed { why }) => return Err(BenchError::Broken(format!("worker {worker}: {why}"))),
                None => {
                    // It may live on, and have said what nobody understands. Fails if it has ended.
                    let _ = self.workers[worker].child.kill();
                    let status = self.workers[worker].child.wait().map_or("lost".into(), |status| status.to_string());
                    return Err(ProcessError::WorkerEnded { worker, status, said: String::new() }.into());
                }
                said => answers[worker] = said,
            }
        }
        // One line each, as nobody says anything unasked.
        answers.into_iter().map(|said| said.ok_or_else(|| BenchError::Broken("a worker spoke twice".into()))).collect()
    }

    fn receiving_side(&mut self, target: Target) -> u32 {
        let floors = self.floors.as_mut();
        match (target, floors) {
            (Target::Raw, Some([raw, _])) => raw.child().id(),
            (Target::Dropping, Some([_, dropping])) => dropping.child().id(),
            _ => self.solond.child().id(),
        }
    }

    /// What solond has counted since its start.
    fn counters(&mut self) -> Result<Counters, BenchError> {
        let broken = |what: &str| BenchError::Broken(format!("solond does not say its counters: {what}"));
        while self.log.try_recv().is_ok() {}
        let child = self.solond.child();
        kill_process(Pid::from_child(child), Signal::USR1).map_err(|error| broken(&error.to_string()))?;
        let line = self.log.recv_timeout(Duration::from_secs(10)).map_err(|error| broken(&error.to_string()))?;
        Ok(Counters::read(&serde_json::from_str(&line).map_err(|error| broken(&error.to_string()))?))
    }

    /// Runs so many rounds, and checks that all workers end with the same update.
    ///
    /// # Errors
    /// If somebody fails, or holds another update.
    pub fn run(&mut self, target: Target, rounds: u64, trouble: &Trouble) -> Result<Sample, BenchError> {
        let process = self.receiving_side(target);
        let solon = target == Target::Solon;
        let counters = if solon { self.counters()? } else { Counters::default() };
        let order =
            serde_json::to_string(&Order { target, rounds, trouble: trouble.clone() }).expect("named fields") + "\n";
        let before = Usage::of(process);
        for worker in &mut self.workers {
            // One that has died is noticed by its silence.
            let _ = worker.stdin.write_all(order.as_bytes()).and_then(|()| worker.stdin.flush());
        }
        let answers = self.answers()?;
        let used = Usage::of(process) - before;
        let counters = if solon { self.counters()?.since(counters) } else { counters };
        let ends = answers.iter().filter_map(|answer| match answer {
            Said::Done { digest, checksum, seconds } => Some(((*digest, *checksum), *seconds)),
            _ => None,
        });
        let (updates, times): (Vec<_>, Vec<f64>) = ends.unzip();
        // From when the first worker began to when the last one had its update, give or take a turn of the scheduler.
        let seconds = times.iter().copied().fold(0.0, f64::max);
        if let Some(other) = updates.iter().position(|update| *update != updates[0]) {
            let what = if solon { "rounds with solond" } else { "rounds with the floor" };
            return Err(BenchError::Different { first: 0, other, what });
        }
        let per_round = 1.0 / rounds as f64;
        Ok(Sample {
            seconds: seconds * per_round,
            usage: Usage {
                cpu: used.cpu * per_round,
                minor_faults: used.minor_faults * per_round,
                major_faults: used.major_faults * per_round,
                voluntary_switches: used.voluntary_switches * per_round,
            },
            counters: Counters {
                bytes_received: counters.bytes_received * per_round,
                bytes_sent: counters.bytes_sent * per_round,
                system_calls: counters.system_calls.map(|calls| calls * per_round),
                busy: counters.busy.map(|seconds| seconds * per_round),
            },
        })
    }

    /// Reactors of the daemon: threads that run stages.
    pub fn reactors(&mut self) -> usize {
        usage::threads(self.solond.child().id(), "solon-reactor")
    }

    /// Resident memory of the daemon and of worker 0, in bytes.
    pub fn resident(&mut self) -> [u64; 2] {
        [usage::resident(self.solond.child().id()), usage::resident(self.workers[0].child.id())]
    }

    /// Milliseconds of processor time that the daemon takes per second while all workers are connected and silent.
    pub fn at_rest(&mut self, time: Duration) -> f64 {
        let process = self.solond.child().id();
        let (before, start) = (Usage::of(process), Instant::now());
        std::thread::sleep(time);
        (Usage::of(process) - before).cpu * 1e3 / start.elapsed().as_secs_f64()
    }

    /// Tells the daemon to stop; milliseconds until it has.
    ///
    /// # Errors
    /// If it does not end in peace.
    pub fn stop(mut self) -> Result<f64, BenchError> {
        let child = self.solond.child();
        let start = Instant::now();
        kill_process(Pid::from_child(child), Signal::TERM)
            .map_err(|error| BenchError::Broken(format!("solond cannot be told to stop: {error}")))?;
        while start.elapsed() < PATIENCE {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(start.elapsed().as_secs_f64() * 1e3),
                Ok(Some(status)) => return Err(BenchError::Broken(format!("solond did not end in peace: {status}"))),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Err(BenchError::Broken("solond does not end".into()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // First all of them, then wait: they end at the same time.
        for worker in &mut self.workers {
            let _ = worker.child.kill();
        }
        for worker in &mut self.workers {
            let _ = worker.child.wait();
        }
    }
}

/// This program: what is started as daemon, floor and worker.
///
/// # Errors
/// If the operating system does not say where it is.
pub fn this_program() -> Result<PathBuf, BenchError> {
    std::env::current_exe().map_err(|error| BenchError::Broken(format!("cannot find this program: {error}")))
}
