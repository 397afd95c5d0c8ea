//! Whole rounds of a real `solond`, every worker a process, by builds of it and by its settings.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Instant;

use solon::client::{JoinOptions, Worker};

use crate::{Effort, print};

/// A worker process: a number on standard input runs so many rounds.
pub fn work(address: &str, worker: u32) -> ExitCode {
    let mut handle = Worker::join(&JoinOptions::new(address, "default", worker)).expect("the daemon lets workers in");
    let group = handle.place().group;
    let number = |at: usize| ((at * 7919 + group * 104_729) % 10_007) as f32 - 5000.0;
    let mut buffer: Vec<f32> = (0..handle.plan().layout.dimension()).map(number).collect();
    println!("ready");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        for _ in 0..line.parse::<u64>().expect("rounds") {
            handle.exchange(&mut buffer).expect("a decodable round");
        }
        println!("done");
    }
    handle.leave();
    ExitCode::SUCCESS
}

/// Processes that are told what to do over standard input; killed when dropped.
pub struct Children(Vec<(Child, ChildStdin, BufReader<ChildStdout>)>);

impl Children {
    pub fn spawn(count: usize, arguments: impl Fn(usize) -> Vec<String>) -> Children {
        let program = std::env::current_exe().expect("this program");
        let spawn = |index| {
            let mut command = Command::new(&program);
            command.args(arguments(index)).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().expect("a process");
            let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
            (child, stdin, BufReader::new(stdout))
        };
        Children((0..count).map(spawn).collect())
    }

    pub fn tell(&mut self, text: &str) {
        for (_, stdin, _) in &mut self.0 {
            writeln!(stdin, "{text}").expect("a living child");
        }
    }

    pub fn wait(&mut self) {
        for (_, _, stdout) in &mut self.0 {
            let mut line = String::new();
            assert!(stdout.read_line(&mut line).expect("a living child") > 0, "a child ended");
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for (child, ..) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A daemon with its workers.
struct Cluster {
    solond: Child,
    log: BufReader<std::process::ChildStderr>,
    workers: Option<Children>,
}

impl Cluster {
    /// `program` with these flags, and its workers.
    fn start(program: &str, flags: &[&str], workers: usize) -> Cluster {
        let always = ["--listen-address", "127.0.0.1:0", "--log-format", "json", "--listen-write-deadline-ms", "30000"];
        let mut command = Command::new(program);
        command.args(always).args(flags).args(["--rounds-deadline-ms", "60000", "--rounds-linger-ms", "60000"]);
        // Not a flag: a build from before there was one takes no notice of a variable.
        let command = command.env_clear().env("SOLON_ADMIN_SERVE", "false");
        let mut solond = command.stderr(Stdio::piped()).spawn().expect("solond starts");
        let log = BufReader::new(solond.stderr.take().expect("piped"));
        let mut cluster = Cluster { solond, log, workers: None };
        let ready = next(&mut cluster.log, "\"ready\"").expect("solond says that it is ready");
        let address = ready["address"].as_str().expect("its address").to_owned();
        let arguments = |worker: usize| vec!["--as-worker".into(), address.clone(), worker.to_string()];
        let mut workers = Children::spawn(workers, arguments);
        workers.wait();
        cluster.workers = Some(workers);
        cluster
    }

    /// Milliseconds, and milliseconds of the daemon's processor time, per round.
    fn run(&mut self, rounds: usize) -> [f64; 2] {
        let (cpu, start) = (self.cpu(), Instant::now());
        let workers = self.workers.as_mut().expect("not stopped");
        workers.tell(&rounds.to_string());
        workers.wait();
        [start.elapsed().as_secs_f64(), self.cpu() - cpu].map(|seconds| seconds * 1e3 / rounds as f64)
    }

    fn cpu(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.solond.id())).expect("a living child");
        let of = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
        };
        tasks.map_while(Result::ok).map(of).sum()
    }

    /// What the daemon says of its system calls at its end; `None` of a build that does not count them.
    fn stop(&mut self) -> Option<serde_json::Value> {
        self.workers = None;
        let kill = format!("kill -TERM {}", self.solond.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("the shell runs").success());
        next(&mut self.log, "\"system calls\"")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.solond.kill();
        let _ = self.solond.wait();
    }
}

/// The next line of a log that contains `text`.
fn next(log: &mut impl BufRead, text: &str) -> Option<serde_json::Value> {
    let line = log.lines().map_while(Result::ok).find(|line| line.contains(text))?;
    Some(serde_json::from_str(&line).expect("a line of JSON"))
}

const OURS: &str = env!("CARGO_BIN_EXE_solond");

/// Rounds by several builds of `solond`, in turns.
pub fn builds(effort: Effort, builds: &[&str]) {
    let builds = if builds.is_empty() { &[OURS] } else { builds };
    for (name, flags, workers, rounds) in [
        ("P=15 r=15 r_c=5, d=1e6", ["1", "5", "5", "1000000"], 15, 40),
        ("P=15 r=5 r_c=1, d=1e6", ["3", "2", "1", "1000000"], 15, 20),
        ("P=45 r=15 r_c=5, d=1e6", ["3", "5", "5", "1000000"], 45, 15),
    ] {
        let [groups, adversaries, compression, dimension] = flags;
        let flags = ["--job-groups", groups, "--job-adversaries", adversaries, "--job-compression", compression];
        let scale = (1.0 / groups.parse::<f64>().expect("a number")).to_string();
        let flags = [&flags[..], &["--job-dimension", dimension, "--job-scale", &scale]].concat();
        let rounds = (rounds / effort.divisor).max(2);
        let mut samples = vec![vec![Vec::new(); 4]; builds.len()];
        for _ in 0..effort.repetitions {
            for (build, samples) in builds.iter().zip(&mut samples) {
                let mut cluster = Cluster::start(build, &flags, workers);
                cluster.run(2);
                let [wall, cpu] = cluster.run(rounds);
                samples[0].push(wall);
                samples[1].push(cpu);
                let calls = cluster.stop();
                let figure = |of: &str| calls.as_ref().and_then(|calls| calls[of].as_f64()).unwrap_or(f64::NAN);
                samples[2].push(figure("per_mib"));
                samples[3].push(figure("reads") / (figure("received") / f64::from(1 << 20)));
            }
        }
        let rows = builds.iter().map(|build| (*build).to_owned()).zip(samples).collect();
        print(name, &["ms per round", "CPU ms", "calls per MiB", "reads per MiB"], rows);
    }
}

/// Tiny rounds, where a round is as long as threads take to wake up.
pub fn idle(effort: Effort) {
    let one = "[[\"receive\", \"assemble\", \"decode\", \"push\"]]";
    let kinds =
        [("auto", "park"), ("auto", "adaptive"), ("auto", "yield"), ("auto", "spin"), (one, "park"), (one, "adaptive")];
    let flags = ["--job-dimension", "1024", "--job-groups", "3", "--job-adversaries", "2", "--job-compression", "1"];
    let flags = [&flags[..], &["--job-scale", "0.3333333"]].concat();
    let mut samples = vec![vec![Vec::new(); 2]; kinds.len()];
    for _ in 0..effort.repetitions {
        for ((map, kind), samples) in kinds.iter().zip(&mut samples) {
            let setting = ["--cores-map", map, "--cores-idle", kind];
            let mut cluster = Cluster::start(OURS, &[&flags[..], &setting].concat(), 15);
            cluster.run(20);
            let [wall, cpu] = cluster.run((1000 / effort.divisor).max(10));
            samples[0].push(wall);
            samples[1].push(cpu);
        }
    }
    let name = |(map, kind): &(&str, &str)| {
        format!("{}, {kind}", if *map == one { "one reactor" } else { "the map for this machine" })
    };
    let rows = kinds.iter().map(name).zip(samples).collect();
    print("P=15 r=5 r_c=1, d=1024", &["ms per round", "CPU ms"], rows);
}
