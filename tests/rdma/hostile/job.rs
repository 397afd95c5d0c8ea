//! A real `solond`, and honest workers over RDMA whose every update is compared with the exact sum while others misbehave.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use solon::client::{JoinOptions, Worker};

use crate::guest::tools::{DEVICES, program};

/// Numbers in the gradient: two chunks.
const DIMENSION: usize = 1000;
/// Numbers in a shard.
pub const WIDTH: usize = 256;
/// The workers that are honest, of six; the others may lie or be absent.
pub const HONEST: usize = 4;

/// A `solond` on the guest's second device; killed when dropped.
pub struct Solond {
    child: Child,
    pub address: String,
    lines: mpsc::Receiver<String>,
    log: Vec<String>,
}

impl Solond {
    pub fn start(flags: &[&str]) -> Solond {
        let listen = format!("{}:0", DEVICES[1].address);
        let mut child = Command::new(program("solond"))
            .args(["--listen-address", &listen, "--rdma-devices", DEVICES[1].name, "--job-groups", "1"])
            .args([
                "--admin-serve",
                "false",
                "--log-format",
                "json",
                "--log-level",
                "info",
                "--chunks-width",
                &WIDTH.to_string(),
            ])
            .args(["--job-dimension", &DIMENSION.to_string(), "--rounds-deadline-ms", "30000"])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .expect("solond starts");
        let stderr = child.stderr.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        let mut solond = Solond { child, address: String::new(), lines, log: Vec::new() };
        let ready = solond.wait_for(&["\"ready\""]);
        let ready: serde_json::Value = serde_json::from_str(&ready).expect("a JSON log line");
        solond.address = ready["address"].as_str().expect("the address").to_owned();
        solond
    }

    /// Its process number.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a log line with all these parts, from where the last call stopped.
    pub fn wait_for(&mut self, parts: &[&str]) -> String {
        let start = Instant::now();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(30).saturating_sub(start.elapsed())) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if parts.iter().all(|part| line.contains(part)) {
                        return line;
                    }
                }
                Err(_) => panic!("no log line with {parts:?}; the log:\n{}", self.log.join("\n")),
            }
        }
    }

    /// What was logged about the end of a session or link, or a lie, of an honest worker.
    fn honest_named(&mut self) -> Vec<String> {
        self.log.extend(self.lines.try_iter());
        let words = ["worker left", "RDMA connection ended", "worker lied", "session ended", "refused"];
        let names = |line: &str| (0..HONEST).any(|worker| line.contains(&format!("\"worker\":{worker}")));
        let bad = |line: &&String| words.iter().any(|word| line.contains(word)) && names(line);
        self.log.iter().filter(bad).cloned().collect()
    }
}

impl Drop for Solond {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gradient(round: u64) -> Vec<f32> {
    (0..DIMENSION as u64).map(|at| ((round * 31 + at * 17) % 257) as f32 - 128.0).collect()
}

/// How far a run of rounds has come.
struct Progress {
    begun: AtomicU64,
    end: AtomicU64,
}

fn rounds(worker: &mut Worker, progress: &Progress, pause: Duration) -> u64 {
    let mut done = 0;
    loop {
        let round = worker.next_round();
        progress.begun.fetch_max(round, Ordering::SeqCst);
        if round >= progress.end.load(Ordering::SeqCst) {
            return done;
        }
        let mut buffer = gradient(round);
        let report = if worker.is_behind() { worker.follow(&mut buffer) } else { worker.exchange(&mut buffer) };
        let report = report.unwrap_or_else(|error| panic!("worker {} round {round}: {error}", worker.index()));
        check(&buffer, round);
        let named = report.liars.union(&report.late_liars);
        assert!(named.iter().all(|named| named >= HONEST), "round {round}: an honest worker is named");
        assert!(worker.way().rdma, "worker {}: {}", worker.index(), worker.way().reason);
        done += 1;
        std::thread::sleep(pause);
    }
}

/// Takes part in `count` rounds, in those that it is in time for with its own shards; says in how many.
pub fn follow_along(worker: &mut Worker, count: u64) -> u64 {
    let mut submitted = 0;
    for _ in 0..count {
        let round = worker.next_round();
        let mut buffer = gradient(round);
        if worker.is_behind() {
            worker.follow(&mut buffer).expect("a round");
        } else {
            worker.exchange(&mut buffer).expect("a round");
            submitted += 1;
        }
        check(&buffer, round);
        assert!(worker.way().rdma, "{}", worker.way().reason);
    }
    submitted
}

fn check(update: &[f32], round: u64) {
    for (found, exact) in update.iter().zip(gradient(round)) {
        assert!((found - exact).abs() < 1e-2, "round {round}: {found}, not {exact}");
    }
}

/// Runs `attack` while four honest workers run rounds over RDMA, with a pause between them; afterwards `solond` has named and ended
/// none of them. Says how many rounds there were.
///
/// # Panics
/// If an honest worker got a wrong sum, lost its RDMA connection, or was named.
pub fn while_the_honest_work(
    solond: &mut Solond,
    pause: Duration,
    token: impl Fn(usize) -> String,
    attack: impl FnOnce(&mut Solond),
) -> u64 {
    let join = |worker: usize| {
        let mut options = JoinOptions::new(&solond.address, "default", worker as u32);
        options.token = token(worker);
        options.round_timeout = Duration::from_secs(60);
        options.rdma.devices = DEVICES[0].name.parse().expect("a list of devices");
        let mut joined = Worker::join(&options).expect("an honest worker joins");
        assert!(joined.way().rdma, "{}", joined.way().reason);
        joined
    };
    let mut workers: Vec<Worker> = (0..HONEST).map(join).collect();
    let progress = Progress { begun: AtomicU64::new(0), end: AtomicU64::new(u64::MAX) };
    let done = std::thread::scope(|scope| {
        let progress = &progress;
        let start = |worker| scope.spawn(move || rounds(worker, progress, pause));
        let threads: Vec<_> = workers.iter_mut().map(start).collect();
        let attacked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attack(solond)));
        progress.end.store(progress.begun.load(Ordering::SeqCst) + 5, Ordering::SeqCst);
        let done = threads.into_iter().map(|thread| thread.join().expect("no honest worker is disturbed")).min();
        if let Err(panic) = attacked {
            std::panic::resume_unwind(panic);
        }
        done.expect("four workers")
    });
    assert_eq!(solond.honest_named(), Vec::<String>::new(), "the log names no honest worker");
    assert!(done > 5, "{done} rounds");
    done
}
