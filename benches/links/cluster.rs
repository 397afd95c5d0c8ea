//! A daemon and workers in their namespaces, and rounds with them.

use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use solon::bench::cluster::hear;
use solon::bench::usage::Usage;
use solon::demo::process::Daemon;
use solon::plan::Code;

use crate::Failure;
use crate::carriers::Bad;
use crate::network::{Bytes, End, Network};
use crate::worker::{JOB, Order, Said};

/// The longest that nobody says anything: a round at a slow link.
const PATIENCE: Duration = Duration::from_secs(300);

/// How updates come to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    Direct,
    Relay,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::Relay => "relay",
        }
    }
}

/// How long a chunk with enough shards waits for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// For every connected worker: the same rows make every update, and no byte is spared.
    All,
    /// Not at all, as by default: who is late with his own shards holds nobody up.
    None,
}

/// One group of workers.
#[derive(Clone)]
pub struct Job {
    pub code: Code,
    pub dimension: usize,
    pub chunk_width: usize,
    pub way: Way,
    pub linger: Linger,
    /// Further flags of solond.
    pub flags: Vec<String>,
}

/// What a round was.
#[derive(Clone)]
pub struct Round {
    pub round: u64,
    /// From when the first worker submitted to when the last one had its update; bad ones do not count.
    pub seconds: f64,
    /// Hash of the update that each worker has, bad ones that live included.
    pub updates: Vec<String>,
    /// At the daemon's interface.
    pub bytes: Bytes,
    /// Processor seconds of the daemon and all workers.
    pub cpu: f64,
}

struct Member {
    child: Child,
    stdin: ChildStdin,
    bad: Option<Bad>,
}

/// All of them; killed when this is dropped.
pub struct Cluster<'a> {
    network: &'a Network,
    solond: Daemon,
    log: Receiver<String>,
    members: Vec<Option<Member>>,
    heard: Receiver<(usize, Option<Said>)>,
}

impl<'a> Cluster<'a> {
    /// Starts everybody and waits until all have joined and, if they relay, have all links.
    pub fn start(network: &'a Network, job: &Job) -> Result<Cluster<'a>, Failure> {
        let Code { groups, adversaries, stragglers, compression, .. } = job.code;
        let linger = if job.linger == Linger::All { PATIENCE } else { Duration::ZERO };
        let flags = [
            ("job-name", JOB.to_owned()),
            ("job-groups", groups.to_string()),
            ("job-adversaries", adversaries.to_string()),
            ("job-stragglers", stragglers.to_string()),
            ("job-compression", compression.to_string()),
            ("job-dimension", job.dimension.to_string()),
            ("chunks-width", job.chunk_width.to_string()),
            ("rounds-deadline-ms", PATIENCE.as_millis().to_string()),
            ("rounds-linger-ms", linger.as_millis().to_string()),
            ("listen-address", "10.214.0.1:0".to_owned()),
            ("listen-transport", "tcp".to_owned()),
            ("listen-open", "true".to_owned()),
            ("push-way", job.way.name().to_owned()),
            ("admin-serve", "false".to_owned()),
            ("log-format", "json".to_owned()),
        ];
        let flags = flags.into_iter().map(|(name, value)| format!("--{name}={value}"));
        let flags: Vec<String> =
            std::iter::once("demo-daemon".into()).chain(flags).chain(job.flags.iter().cloned()).collect();
        let (program, arguments) = network.at(End::Daemon, Path::new(env!("CARGO_BIN_EXE_solon")), &flags);
        let arguments: Vec<String> = arguments.into_iter().filter_map(|word| word.into_string().ok()).collect();
        let (sender, log) = mpsc::channel();
        // Nobody listens any more when the rounds are over.
        let solond = Daemon::start(&program, &arguments, move |line| drop(sender.send(line)))?;
        let (tell, heard) = mpsc::channel();
        let mut cluster = Cluster { network, solond, log, members: Vec::new(), heard };
        let this = std::env::current_exe().map_err(|error| Failure(format!("cannot find this program: {error}")))?;
        for worker in 0..job.code.workers {
            let address = cluster.solond.address();
            let words = ["--bench", "worker", "--worker", &worker.to_string(), "--solond", address].map(str::to_owned);
            let (program, arguments) = network.at(End::Worker(worker), &this, &words);
            let mut child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|error| Failure(format!("cannot start worker {worker}: {error}")))?;
            let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
            let tell = tell.clone();
            std::thread::spawn(move || hear(worker, stdout, &tell));
            cluster.members.push(Some(Member { child, stdin, bad: None }));
        }
        cluster.answers()?;
        while job.way == Way::Relay && !cluster.is_linked()? {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(cluster)
    }

    fn is_linked(&mut self) -> Result<bool, Failure> {
        let others = self.members.len() - 1;
        self.tell(|_| Order::Links);
        Ok(self.answers()?.iter().all(|(_, said)| *said == Said::Links(others)))
    }

    fn tell(&mut self, order: impl Fn(usize) -> Order) {
        for (worker, member) in self.members.iter_mut().enumerate() {
            let Some(Member { stdin, .. }) = member else { continue };
            let line = serde_json::to_string(&order(worker)).expect("an order has no map") + "\n";
            // One that has died is noticed by its silence.
            let _ = stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush());
        }
    }

    /// One word of every worker that lives.
    fn answers(&mut self) -> Result<Vec<(usize, Said)>, Failure> {
        let mut answers = Vec::new();
        let until = Instant::now() + PATIENCE;
        while answers.len() < self.members.iter().flatten().count() {
            let left = until.saturating_duration_since(Instant::now());
            let silent = |_| Failure(format!("nothing was heard of a worker for {PATIENCE:?}"));
            match self.heard.recv_timeout(left).map_err(silent)? {
                (worker, Some(Said::Failed(why))) => return Err(Failure(format!("worker {worker}: {why}"))),
                (worker, Some(said)) => answers.push((worker, said)),
                (worker, None) => {
                    let Some(mut member) = self.members[worker].take() else { continue };
                    let _ = member.child.kill();
                    let status = member.child.wait().map_or("lost".into(), |status| status.to_string());
                    if member.bad != Some(Bad::Leave) {
                        return Err(Failure(format!("worker {worker} ended: {status}")));
                    }
                }
            }
        }
        Ok(answers)
    }

    /// Makes these workers bad carriers from the next round on.
    pub fn spoil(&mut self, workers: &[usize], bad: Bad) {
        for worker in workers {
            self.members[*worker].iter_mut().for_each(|member| member.bad = Some(bad));
        }
    }

    fn cpu(&mut self) -> f64 {
        let workers = self.members.iter().flatten().map(|member| member.child.id());
        let all: Vec<u32> = workers.chain([self.solond.child().id()]).collect();
        all.into_iter().map(|process| Usage::of(process).cpu).sum()
    }

    /// Runs a round.
    pub fn round(&mut self) -> Result<Round, Failure> {
        let bad: Vec<Option<Bad>> = self.members.iter().map(|member| member.as_ref().and_then(|it| it.bad)).collect();
        let (before, cpu) = (self.network.bytes()?, self.cpu());
        self.tell(|worker| Order::Round(bad[worker]));
        let answers = self.answers()?;
        let (after, cpu) = (self.network.bytes()?, self.cpu() - cpu);
        let (mut first, mut last, mut of, mut updates) = (f64::INFINITY, 0.0f64, None, Vec::new());
        for (worker, said) in answers {
            let Said::Round { round, began, ended, update } = said else { continue };
            if bad[worker].is_none() {
                (first, last) = (first.min(began), last.max(ended));
            }
            if *of.get_or_insert(round) != round {
                return Err(Failure(format!("worker {worker} is in round {round}, others in {of:?}")));
            }
            updates.push(update);
        }
        let bytes = Bytes { sent: after.sent - before.sent, received: after.received - before.received };
        Ok(Round { round: of.unwrap_or(0), seconds: last - first, updates, bytes, cpu })
    }

    /// What the daemon says of its updates since the start.
    pub fn pushed(&mut self) -> Result<serde_json::Value, Failure> {
        while self.log.try_recv().is_ok() {}
        kill_process(Pid::from_child(self.solond.child()), Signal::USR1).map_err(|error| Failure(error.to_string()))?;
        loop {
            let silent = |_| Failure("solond does not say what it pushed".into());
            let line = self.log.recv_timeout(Duration::from_secs(10)).map_err(silent)?;
            if line.contains("updates pushed") {
                return serde_json::from_str(&line).map_err(|error| Failure(error.to_string()));
            }
        }
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        // First all of them, then wait: they end at the same time.
        let mut members: Vec<Member> = self.members.drain(..).flatten().collect();
        members.iter_mut().for_each(|member| drop(member.child.kill()));
        members.iter_mut().for_each(|member| drop(member.child.wait()));
    }
}
