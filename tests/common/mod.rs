//! A real `solond` on loopback, and workers in threads, for the tests that need both.
#![allow(dead_code, reason = "each test uses its part")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use solon::client::{JoinOptions, Session, Worker};
use solon::pipeline::{Job, Pipeline};
use solon::transport::memory;
use solon::wire::Welcome;

/// A `solond` process; killed when dropped.
pub struct Solond {
    pub child: Child,
    pub address: String,
    lines: mpsc::Receiver<String>,
    pub log: Vec<String>,
}

impl Solond {
    /// Starts `solond` with these flags beside a free port and a JSON log, and waits until it is ready.
    pub fn start(flags: &[&str]) -> Solond {
        Solond::start_at("127.0.0.1:0", flags)
    }

    pub fn start_at(address: &str, flags: &[&str]) -> Solond {
        // The tests of other packages say themselves where it is.
        let Some(program) = option_env!("CARGO_BIN_EXE_solond") else { panic!("this package has no solond") };
        let mut solond = Solond::spawn(Command::new(program), address, flags);
        solond.wait_until_ready();
        solond
    }

    /// As [`Solond::start_at`] by a command that runs `solond`, without waiting.
    pub fn spawn(mut command: Command, address: &str, flags: &[&str]) -> Solond {
        // Tests run beside each other, and beside a daemon that has the default port.
        if !flags.iter().any(|flag| flag.starts_with("--admin-")) {
            command.args(["--admin-serve", "false"]);
        }
        let mut child = command
            .args(["--listen-address", address, "--log-format", "json", "--log-level", "debug"])
            .args(flags)
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .expect("solond starts");
        let stderr = child.stderr.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Solond { child, address: String::new(), lines, log: Vec::new() }
    }

    pub fn wait_until_ready(&mut self) {
        let ready = self.wait_for("\"ready\"");
        let ready: serde_json::Value = serde_json::from_str(&ready).expect("a JSON log line");
        self.address = ready["address"].as_str().expect("the address").to_owned();
    }

    /// A log line that contains `text`: one that has come already, or else the next.
    pub fn find(&mut self, text: &str) -> String {
        self.log.extend(self.lines.try_iter());
        let found = self.log.iter().find(|line| line.contains(text)).cloned();
        found.unwrap_or_else(|| self.wait_for(text))
    }

    /// Log lines so far that contain `text`.
    pub fn count(&mut self, text: &str) -> usize {
        self.log.extend(self.lines.try_iter());
        self.log.iter().filter(|line| line.contains(text)).count()
    }

    /// For one that is to end by itself: its exit code, and its log.
    pub fn end(&mut self) -> (Option<i32>, String) {
        let code = self.exit_code();
        self.log.extend(self.lines.iter());
        (code, self.log.join("\n"))
    }

    /// Waits for a log line that contains `text`.
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(Duration::from_secs(30)) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("no log line with {text}; the log:\n{}", self.log.join("\n")),
            }
        }
    }

    pub fn signal(&self, signal: &str) {
        // The shell's own: a small system has no other.
        let kill = format!("kill {signal} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("the shell runs");
        assert!(status.success());
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        for _ in 0..3000 {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("solond did not end; its log:\n{}", self.log.join("\n"));
    }

    pub fn options(&self, worker: usize) -> JoinOptions {
        JoinOptions {
            round_timeout: Duration::from_secs(60),
            ..JoinOptions::new(&self.address, "default", worker as u32)
        }
    }

    pub fn join(&self, worker: usize) -> Worker {
        Worker::join(&self.options(worker)).expect("the worker joins")
    }

    /// Has all workers join, then runs `work` for each in a thread of its own.
    pub fn all<T: Send>(&self, workers: usize, work: impl Fn(usize, Worker) -> T + Sync) -> Vec<T> {
        let joined: Vec<Worker> = (0..workers).map(|worker| self.join(worker)).collect();
        std::thread::scope(|scope| {
            let work = &work;
            let start = |(index, worker)| scope.spawn(move || work(index, worker));
            let threads: Vec<_> = joined.into_iter().enumerate().map(start).collect();
            threads.into_iter().map(|thread| thread.join().expect("the worker's thread")).collect()
        })
    }
}

impl Drop for Solond {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.log.extend(self.lines.try_iter());
            let last = self.log.len().saturating_sub(100);
            eprintln!("solond's log:\n{}", self.log[last..].join("\n"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A session for each worker of `job`, over memory, all of them ready.
pub fn sessions_over_memory(job: &Job, pipeline: &mut Pipeline, now: Instant) -> Vec<Session> {
    let mut sessions: Vec<Session> = (0..job.plan.parameters.workers() as u32)
        .map(|worker| {
            let (here, there) = memory::pair(64);
            let session = 100 + u64::from(worker);
            assert!(pipeline.handle.admit(worker, session, here));
            let welcome = Welcome { plan: job.plan, worker, session, epoch: job.epoch, last: None };
            Session::new(there, welcome, job.number).unwrap()
        })
        .collect();
    while sessions.iter().any(|session| session.oldest().is_none()) {
        pipeline.step(now);
        for session in &mut sessions {
            session.drive(now, None).unwrap();
        }
    }
    sessions
}

/// Links every two of the workers over memory, as the daemon orders it.
pub fn link_over_memory(sessions: &mut [Session], pipeline: &mut Pipeline, now: Instant) {
    let (mut orders, mut reached) = (Vec::new(), vec![false; sessions.len()]);
    let everybody = 0..sessions.len();
    while everybody.clone().any(|at| everybody.clone().any(|peer| peer != at && !sessions[at].is_linked(peer as u32))) {
        pipeline.step(now);
        for (at, session) in sessions.iter_mut().enumerate() {
            session.drive(now, None).unwrap();
            if session.relays() && !std::mem::replace(&mut reached[at], true) {
                session.reach(None, 1);
            }
            orders.extend(std::iter::from_fn(|| session.next_link()).map(|(order, _)| (at, order)));
        }
        while let Some((at, order)) = orders.pop() {
            let Some(other) = orders.iter().position(|(_, other)| other.key == order.key) else {
                orders.insert(0, (at, order));
                break;
            };
            let (peer, back) = orders.swap_remove(other);
            let (here, there) = memory::pair(sessions[at].link_queue());
            sessions[at].link(order.peer, here);
            sessions[peer].link(back.peer, there);
        }
    }
    // What they say of it is heard.
    for _ in 0..10 {
        pipeline.step(now);
        for session in sessions.iter_mut() {
            session.drive(now, None).unwrap();
        }
    }
}

/// The gradient of group `group` in round `round`: reproducible, and different everywhere.
pub fn gradient(group: usize, round: u64, dimension: usize) -> Vec<f32> {
    let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (group as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95);
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..dimension).map(next).collect()
}

/// Relative distance of `update` from the sum of all groups' gradients.
pub fn distance(update: &[f32], groups: usize, round: u64) -> f64 {
    let gradients: Vec<_> = (0..groups).map(|group| gradient(group, round, update.len())).collect();
    let (mut off, mut norm) = (0.0, 0.0);
    for (at, found) in update.iter().enumerate() {
        let exact: f64 = gradients.iter().map(|gradient| f64::from(gradient[at])).sum();
        off += (f64::from(*found) - exact).powi(2);
        norm += exact * exact;
    }
    (off / norm).sqrt()
}

/// The configuration that these flags make, on a free port.
pub fn config(flags: &[&str]) -> solon::daemon::config::Config {
    use solon::daemon::config::{Request, load};
    let arguments = ["solond", "--listen-address", "127.0.0.1:0"].iter().chain(flags).map(std::ffi::OsString::from);
    let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    match load(arguments, std::iter::empty(), &none) {
        Ok(Request::Serve(loaded)) => loaded.config,
        other => panic!("a configuration, not {other:?}"),
    }
}

/// Small random numbers from a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }
}

/// How the row lies that lies in `round`, if it does: `liars` rows, others in every round, by four kinds of lies.
pub fn lie(row: usize, redundancy: usize, liars: usize, round: u64, shard: &mut [f32]) {
    if (row + redundancy - round as usize % redundancy) % redundancy >= liars {
        return;
    }
    match round % 4 {
        0 => shard.fill(f32::NAN),
        1 => shard.iter_mut().for_each(|x| *x *= -100.0),
        2 => shard.iter_mut().enumerate().for_each(|(at, x)| *x += (1 + at % 5 + row) as f32),
        _ => shard[0] += 100.0,
    }
}
