//! Whole rounds: a real `solond`, and every worker a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use solon::client::{JoinOptions, Tamper, Worker};
use solon::code::{Layout, Parameters};
use solon::wire::HEADER_BYTES;

use crate::Effort;
use crate::figures::{Cell, Figure, Table};
use crate::floor::Floor;

const WIDTH: usize = 16384;
const DEADLINE_MS: &str = "60000";

/// The size of a job.
#[derive(Clone, Copy)]
pub struct Shape {
    parameters: Parameters,
    layout: Layout,
}

impl Shape {
    fn new(groups: usize, adversaries: usize, compression: usize, dimension: usize) -> Shape {
        let parameters = Parameters::new(groups, adversaries, 0, compression).expect("a code");
        Shape { parameters, layout: Layout::new(dimension, compression, WIDTH) }
    }

    fn name(&self) -> String {
        let p = &self.parameters;
        let (workers, r, c, s) = (p.workers(), p.redundancy(), p.compression(), p.adversaries());
        format!("P={workers} r={r} r_c={c} s={s}")
    }

    pub fn workers(&self) -> usize {
        self.parameters.workers()
    }

    fn sum(&self, bytes_of: impl Fn(solon::code::Chunk) -> usize) -> usize {
        (0..self.layout.chunks()).map(|chunk| HEADER_BYTES + bytes_of(self.layout.chunk(chunk))).sum()
    }

    /// Bytes that a worker sends in a round.
    pub fn up_bytes(&self) -> usize {
        self.sum(|chunk| 4 * chunk.width)
    }

    /// Bytes of updates that a worker gets in a round.
    pub fn down_bytes(&self) -> usize {
        self.sum(|chunk| 4 * chunk.len)
    }

    /// Bytes of the longest frame that a worker sends.
    pub fn up_frame(&self) -> usize {
        HEADER_BYTES + 4 * self.layout.chunk(0).width
    }

    /// Bytes of the longest frame of an update.
    pub fn down_frame(&self) -> usize {
        HEADER_BYTES + 4 * self.layout.chunk(0).len
    }
}

/// Processor seconds that the calling thread has used.
pub fn thread_cpu() -> f64 {
    cpu_of("/proc/thread-self")
}

fn cpu_of(directory: &str) -> f64 {
    let text = std::fs::read_to_string(format!("{directory}/schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

/// Processor seconds that all living threads of a process have used.
fn process_cpu(process: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("a living child");
    tasks.map_while(Result::ok).map(|task| cpu_of(&task.path().display().to_string())).sum()
}

/// Processes of this program in another role, told what to do over standard input; killed when dropped.
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

    /// The next line of every child.
    fn lines(&mut self) -> Vec<String> {
        let read = |(_, _, stdout): &mut (Child, ChildStdin, BufReader<ChildStdout>)| {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a living child");
            line.trim_end().to_owned()
        };
        self.0.iter_mut().map(read).collect()
    }

    pub fn wait(&mut self, text: &str) {
        assert!(self.lines().iter().all(|line| line == text), "every child says {text:?}");
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

/// A worker process: `rounds liars` on standard input runs so many rounds, in which so many workers of each group lie.
pub fn work(address: &str, worker: u32) -> ExitCode {
    let mut handle = Worker::join(&JoinOptions::new(address, "default", worker)).expect("the daemon lets workers in");
    let place = handle.place();
    let r = handle.plan().parameters.redundancy();
    // The scale of 1 / groups keeps the numbers as large from round to round, where each gradient is the last update.
    let number = |at: usize| ((at * 7919 + place.group * 104_729) % 10_007) as f32 - 5000.0;
    let mut buffer: Vec<f32> = (0..handle.plan().layout.dimension()).map(number).collect();
    println!("ready");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (rounds, liars) = line.split_once(' ').expect("rounds and liars");
        let (rounds, liars): (u64, usize) = (rounds.parse().expect("rounds"), liars.parse().expect("liars"));
        let mut digest = 0;
        for _ in 0..rounds {
            let turn = handle.next_round() as usize;
            // Other liars in every round, and of four kinds.
            let lies = (place.row + r - turn % r) % r < liars;
            let mut lie = |round: u64, _: u32, shard: &mut [f32]| match round % 4 {
                0 => shard.fill(f32::NAN),
                1 => shard.iter_mut().for_each(|x| *x *= -100.0),
                2 => shard.iter_mut().enumerate().for_each(|(at, x)| *x += (at % 5) as f32),
                _ => shard[0] += 100.0,
            };
            let tamper: Option<Tamper<'_>> = lies.then_some(&mut lie);
            digest = handle.exchange_tampered(&mut buffer, tamper).expect("a decodable round").digest;
        }
        println!("done {digest}");
    }
    handle.leave();
    ExitCode::SUCCESS
}

/// A `solond` process; killed when dropped.
struct Solond {
    child: Child,
    address: String,
}

impl Solond {
    fn start(shape: Shape, linger_ms: &str) -> Solond {
        let p = &shape.parameters;
        let mut command = Command::new(env!("CARGO_BIN_EXE_solond"));
        let scale = (1.0 / p.groups() as f64).to_string();
        for (flag, value) in [
            ("--listen-address", "127.0.0.1:0"),
            ("--log-format", "json"),
            ("--log-level", "info"),
            ("--job-groups", &p.groups().to_string()),
            ("--job-adversaries", &p.adversaries().to_string()),
            ("--job-compression", &p.compression().to_string()),
            ("--job-dimension", &shape.layout.dimension().to_string()),
            ("--job-scale", &scale),
            ("--chunks-width", &WIDTH.to_string()),
            ("--rounds-deadline-ms", DEADLINE_MS),
            ("--rounds-linger-ms", linger_ms),
            ("--listen-write-deadline-ms", "30000"),
        ] {
            command.args([flag, value]);
        }
        let mut child = command.env_clear().stderr(Stdio::piped()).spawn().expect("solond starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.contains("\"ready\"")).expect("solond says that it is ready");
        let ready: serde_json::Value = serde_json::from_str(&ready).expect("a line of JSON");
        let address = ready["address"].as_str().expect("its address").to_owned();
        // Reads on, so that the log never blocks the daemon.
        std::thread::spawn(move || lines.count());
        Solond { child, address }
    }

    fn cpu(&self) -> f64 {
        process_cpu(self.child.id())
    }
}

impl Drop for Solond {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon with its workers.
struct Cluster {
    solond: Solond,
    workers: Children,
}

impl Cluster {
    fn start(shape: Shape, linger_ms: &str) -> Cluster {
        let solond = Solond::start(shape, linger_ms);
        let arguments = |worker: usize| vec!["--as-worker".into(), solond.address.clone(), worker.to_string()];
        let mut workers = Children::spawn(shape.workers(), arguments);
        workers.wait("ready");
        Cluster { solond, workers }
    }

    /// Seconds, and seconds of the daemon's processor time, for so many rounds.
    fn run(&mut self, rounds: usize, liars: usize) -> (f64, f64) {
        let (cpu, start) = (self.solond.cpu(), Instant::now());
        self.workers.tell(&format!("{rounds} {liars}"));
        let said = self.workers.lines();
        let seconds = start.elapsed().as_secs_f64();
        assert!(said[0].starts_with("done ") && said.iter().all(|line| *line == said[0]), "one update: {said:?}");
        (seconds, self.solond.cpu() - cpu)
    }
}

/// What so many rounds took, per repetition.
struct Timed {
    /// Milliseconds per round.
    round_ms: Figure,
    /// 1e9 bytes received per second.
    rate: Figure,
    /// Milliseconds of processor time of the receiving side per round.
    cpu_ms: Figure,
}

fn repeat(effort: &Effort, shape: Shape, mut run: impl FnMut(usize) -> (f64, f64)) -> Timed {
    let warm = 2;
    run(warm);
    let per_round = run(warm).0 / warm as f64;
    let rounds = ((effort.seconds / per_round) as usize).clamp(2, 1000);
    let samples: Vec<(f64, f64)> = (0..effort.repetitions).map(|_| run(rounds)).collect();
    let bytes = (shape.workers() * shape.up_bytes() * rounds) as f64;
    let each = |value: &dyn Fn(&(f64, f64)) -> f64| Figure::new(samples.iter().map(value).collect());
    Timed {
        round_ms: each(&|(seconds, _)| seconds * 1e3 / rounds as f64),
        rate: each(&|(seconds, _)| bytes / seconds / 1e9),
        cpu_ms: each(&|(_, cpu)| cpu * 1e3 / rounds as f64),
    }
}

/// Whole rounds against the floors.
pub fn table(effort: &Effort) -> Table {
    let title = "Whole rounds over loopback TCP, every worker a process; ratios to the floor that also pushes";
    let columns = ["job", "what", "ms per round", "GB/s received", "CPU ms per round", "time / floor", "CPU / floor"];
    let mut table = Table::new(title, &columns);
    for (groups, adversaries, compression) in [(2, 2, 2), (1, 5, 5), (3, 2, 1)] {
        let shape = Shape::new(groups, adversaries, compression, effort.dimension);
        let mut push = |what: &str, timed: &Timed, floor: Option<&Timed>| {
            let over = |of: fn(&Timed) -> &Figure| match floor {
                Some(floor) => Cell::Number(of(timed).median() / of(floor).median()),
                None => Cell::Nothing,
            };
            table.push(vec![
                Cell::Text(shape.name()),
                Cell::Text(what.into()),
                Cell::Figure(timed.round_ms.clone()),
                Cell::Figure(timed.rate.clone()),
                Cell::Figure(timed.cpu_ms.clone()),
                over(|timed| &timed.round_ms),
                over(|timed| &timed.cpu_ms),
            ]);
        };
        let mut receives = Floor::start(shape, false);
        push("floor: receive and drop", &repeat(effort, shape, |rounds| receives.run(rounds)), None);
        drop(receives);
        let mut pushes = Floor::start(shape, true);
        let floor = repeat(effort, shape, |rounds| pushes.run(rounds));
        drop(pushes);
        push("floor: receive, drop, push as much", &floor, None);
        let mut cluster = Cluster::start(shape, DEADLINE_MS);
        let honest = repeat(effort, shape, |rounds| cluster.run(rounds, 0));
        push("solon, waits for all", &honest, Some(&floor));
        let lying = repeat(effort, shape, |rounds| cluster.run(rounds, adversaries));
        push("solon, waits for all, s liars", &lying, Some(&floor));
        drop(cluster);
        let mut cluster = Cluster::start(shape, "0");
        let eager = repeat(effort, shape, |rounds| cluster.run(rounds, 0));
        push("solon, linger 0", &eager, Some(&floor));
    }
    table
}

/// A daemon that nobody talks to, and its end.
pub fn at_rest(effort: &Effort) -> Table {
    let mut table = Table::new("A daemon at rest", &["what", "figure"]);
    let mut cluster = Cluster::start(Shape::new(1, 2, 2, effort.dimension), "0");
    let measure = |cluster: &Cluster| {
        let (cpu, start) = (cluster.solond.cpu(), Instant::now());
        std::thread::sleep(Duration::from_secs_f64(effort.seconds * 2.0));
        (cluster.solond.cpu() - cpu) * 1e3 / start.elapsed().as_secs_f64()
    };
    let figure = Figure::new((0..effort.repetitions).map(|_| measure(&cluster)).collect());
    table.push(vec![Cell::Text("CPU ms per second, workers connected and silent".into()), Cell::Figure(figure)]);
    let start = Instant::now();
    let process = cluster.solond.child.id().to_string();
    let told = Command::new("sh").args(["-c", &format!("kill -TERM {process}")]).status().expect("the shell runs");
    assert!(told.success(), "solond can be told to stop");
    let status = cluster.solond.child.wait().expect("a child");
    assert!(status.success(), "solond ends in peace: {status}");
    table
        .push(vec![Cell::Text("ms from SIGTERM to the end".into()), Cell::Number(start.elapsed().as_secs_f64() * 1e3)]);
    table
}
