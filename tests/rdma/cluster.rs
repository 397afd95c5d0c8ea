//! A daemon whose RDMA port is rxe1, and workers at rxe0: in threads, or in processes that can be killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use solon::client::{ClientError, JoinOptions, Worker};
use solon::transport::Transport;

use super::tools::{DEVICES, program, run};
pub use crate::common::{Solond, distance, gradient};
use crate::work::{VARIABLE, Work};

/// The dimension of jobs that do not care.
pub const D: usize = 5003;

/// One group of six that withstands two liars, in five chunks.
pub const JOB: [&str; 6] = ["--job-dimension", "5003", "--job-groups", "1", "--chunks-width", "500"];

/// The longest that anything may take: the guest is slow, and its host may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Beside [`JOB`]: RDMA by rxe1, where `transport` allows it; two cores are too few to pin threads to.
pub fn flags<'a>(transport: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    flags_of(&JOB, transport, more)
}

fn flags_of<'a>(job: &[&'a str], transport: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let ours =
        ["--listen-open", "true", "--rdma-devices", "rxe1", "--listen-transport", transport, "--cores-pin", "false"];
    [job, &ours, more].concat()
}

/// Starts a daemon that is reached, and serves RDMA, at 10.0.0.2.
pub fn solond(transport: &str, more: &[&str]) -> Solond {
    solond_of(&JOB, transport, more)
}

/// [`solond`] with another job.
pub fn solond_of(job: &[&str], transport: &str, more: &[&str]) -> Solond {
    let mut solond = Solond::spawn(Command::new(program("solond")), "10.0.0.2:0", &flags_of(job, transport, more));
    solond.wait_until_ready();
    solond
}

/// What worker `worker` is to do as a process; in a thread, how it joins.
pub fn work(solond: &Solond, worker: usize, transport: Transport) -> Work {
    let (address, devices) = (solond.address.clone(), DEVICES[0].name.to_owned());
    Work { address, worker: worker as u32, transport: transport.to_string(), devices, end: u64::MAX }
}

pub fn options(solond: &Solond, worker: usize, transport: Transport) -> JoinOptions {
    work(solond, worker, transport).options()
}

/// A worker that joins, by RDMA if `transport` is not TCP.
pub fn join(solond: &Solond, worker: usize, transport: Transport) -> Worker {
    let mut worker = Worker::join(&options(solond, worker, transport)).expect("the worker joins");
    let way = worker.way();
    assert_eq!(way.rdma, transport != Transport::Tcp, "{}", way.reason);
    worker
}

pub fn join_all(solond: &Solond, transport: Transport) -> Vec<Worker> {
    (0..6).map(|index| join(solond, index, transport)).collect()
}

/// Joins again, when the second is over in which one identity may join once.
pub fn rejoin(worker: &mut Worker) {
    wait_until("it can join again", || match worker.rejoin() {
        Ok(_) => true,
        Err(error) if error.is_transient() => false,
        Err(error) => panic!("{error}"),
    });
}

/// Asks again and again.
///
/// # Panics
///
/// If it does not come true in [`PATIENCE`].
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    started.elapsed()
}

/// Lines of the kernel's table of `what` (qp, mr, cq) that are of `device` and of a process.
pub fn resources(what: &str, device: &str) -> Vec<String> {
    let table = run("rdma", &["res", "show", what]);
    let of = |line: &&str| line.contains(&format!(" {device}")) && line.contains(" pid ");
    table.lines().filter(of).map(str::to_owned).collect()
}

/// Rounds that several workers go through, until all are told to end.
pub struct Rounds {
    groups: usize,
    newest: AtomicU64,
    end: AtomicU64,
    updates: Mutex<BTreeMap<u64, (blake3::Hash, Instant)>>,
}

impl Rounds {
    pub fn new(groups: usize) -> Rounds {
        let (newest, end) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Rounds { groups, newest, end, updates: Mutex::new(BTreeMap::new()) }
    }

    /// Checks an update: it is the sum, and the same bytes for all.
    pub fn check(&self, round: u64, update: &[f32]) {
        assert!(distance(update, self.groups, round) < 1e-5, "the update of round {round} is wrong");
        self.check_hash(round, blake3::hash(bytemuck::cast_slice(update)));
    }

    pub fn check_hash(&self, round: u64, hash: blake3::Hash) {
        let first = self.updates.lock().unwrap().entry(round).or_insert((hash, Instant::now())).0;
        assert_eq!(first, hash, "the update of round {round} is the same for all");
    }

    /// Has the worker take part until the end.
    pub fn take_part(&self, worker: &mut Worker) -> Result<(), ClientError> {
        let dimension = worker.plan().layout.dimension();
        let mut buffer = vec![0.0; dimension];
        loop {
            let next = worker.next_round();
            self.newest.fetch_max(next, Ordering::SeqCst);
            if next >= self.end.load(Ordering::SeqCst) {
                return Ok(());
            }
            if worker.is_behind() {
                worker.follow(&mut buffer)?;
            } else {
                buffer = gradient(worker.place().group, worker.next_round(), dimension);
                worker.exchange(&mut buffer)?;
            }
            self.check(worker.last().expect("collected").round, &buffer);
        }
    }

    /// Waits until there were so many more rounds.
    pub fn more(&self, rounds: usize) -> Duration {
        let until = self.seen().0 + rounds;
        wait_until("more rounds", || self.seen().0 >= until)
    }

    /// Lets all workers end after the same round.
    pub fn finish(&self) {
        self.end.store(self.newest.load(Ordering::SeqCst) + 2, Ordering::SeqCst);
    }

    /// How many rounds gave an update, and the longest time from one to the next.
    pub fn seen(&self) -> (usize, Duration) {
        let updates = self.updates.lock().unwrap();
        let times: Vec<Instant> = updates.values().map(|(_, at)| *at).collect();
        let gap = times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max();
        (times.len(), gap.unwrap_or_default())
    }

    /// The updates of all rounds, by their hashes.
    pub fn hashes(&self) -> Vec<(u64, blake3::Hash)> {
        self.updates.lock().unwrap().iter().map(|(round, (hash, _))| (*round, *hash)).collect()
    }
}

/// Ends the rounds even if the test fails: else its workers would never end.
pub struct Finish<'a>(pub &'a Rounds);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// A worker in a process of its own; killed when dropped.
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Process {
    pub fn start(work: &Work) -> Process {
        Process::of(Command::new(std::env::current_exe().expect("a path")), work)
    }

    /// By a command that runs this executable.
    pub fn of(mut command: Command, work: &Work) -> Process {
        let mut child = command
            .args(["work::a_worker_in_a_process_of_its_own", "--exact", "--ignored", "--nocapture"])
            .env(VARIABLE, serde_json::to_string(work).expect("JSON"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Some(line) = line.strip_prefix("worker: ") else { continue };
                if sender.send(line.to_owned()).is_err() {
                    break;
                }
            }
        });
        Process { child, lines, said: Vec::new() }
    }

    /// Waits for something that it says that begins like this.
    pub fn wait_for(&mut self, start: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.starts_with(start) {
                        return line;
                    }
                }
                Err(_) => panic!("the worker did not say {start:?}; it said:\n{}", self.said.join("\n")),
            }
        }
    }

    /// Holds the updates that it has got against those of the others.
    pub fn check(&mut self, rounds: &Rounds) -> usize {
        self.said.extend(self.lines.try_iter());
        let updates = self.said.iter().filter_map(|line| line.strip_prefix("round ")?.split_once(' '));
        let checked = updates.map(|(round, hash)| {
            rounds.check_hash(round.parse().expect("a round"), blake3::Hash::from_hex(hash).expect("a hash"));
        });
        checked.count()
    }

    pub fn signal(&self, signal: &str) {
        let kill = format!("kill {signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("the shell runs").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
