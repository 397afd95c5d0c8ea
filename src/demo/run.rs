//! Runs the three legs, each with a daemon and workers of its own.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::data::{DataError, Split};
use super::model::{Shape, relative_difference};
use super::process::{Heard, ProcessError, Processes};
use super::record::{Leg, LegKind, Report, Setting, Step};
use super::worker::{Message, WorkerStep};
use super::{DIGITS, Defaults, FASHION};
use crate::attacks::{Attack, LiePlace, draw};
use crate::code::{ParameterError, Parameters, Precision};
use crate::transport::Transport;
use crate::transport::rdma::DeviceList;

/// The longest that a leg may be silent: joining, or one step of all workers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A round of the demonstration ends after this long.
const DEADLINE_MS: u64 = 20_000;

/// What to demonstrate.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the liars lie.
    pub attack: Attack,
    /// Workers; two groups of them if not given.
    pub workers: Option<usize>,
    /// Liars per group that the code corrects, s.
    pub adversaries: usize,
    /// Liars per group; as many as the code corrects if not given.
    pub liars: Option<usize>,
    /// Absentees per group that the code tolerates beside them, e; as many as are killed if not given.
    pub stragglers: Option<usize>,
    /// Each worker uploads 1 / compression of the gradient, r_c.
    pub compression: usize,
    /// How the numbers of shards stand on the wire, in the leg with Solon.
    pub precision: Precision,
    /// How those of updates do.
    pub update_precision: Precision,
    /// Honest workers per group that are killed in the middle of the leg with Solon.
    pub kill: usize,
    /// Steps per leg; a default that fits the data if not given.
    pub steps: Option<u64>,
    /// Seed of everything.
    pub seed: u64,
    /// Directory with IDX files; the digits that are compiled in if not given.
    pub data: Option<PathBuf>,
    /// The program to run as daemon and workers: this one.
    pub program: PathBuf,
    /// How shards and updates travel.
    pub transport: Transport,
    /// The daemon's address.
    pub listen: IpAddr,
    /// The RDMA devices that the daemon may use, and those that the workers may use.
    pub devices: [DeviceList; 2],
    /// Where the daemon of the run with Solon answers over HTTP: metrics, status page. Nowhere if not given.
    pub admin: Option<SocketAddr>,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The options do not fit together.
    #[error("{0}")]
    Options(String),
    /// The code's parameters are impossible.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A process failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Workers of one leg that must have the same weights do not.
    #[error("worker {worker} ends with other weights than worker {reporter}: an update was not the same for all")]
    Diverged {
        /// The worker.
        worker: usize,
        /// The one that it is compared with.
        reporter: usize,
    },
    /// A file cannot be read or written.
    #[error("{what}: {error}")]
    Io {
        /// Which.
        what: String,
        /// What the operating system says.
        error: std::io::Error,
    },
}

/// A demonstration whose options fit together.
pub struct Demo {
    options: Options,
    parameters: Parameters,
    defaults: Defaults,
    steps: u64,
    batch: usize,
    dimension: usize,
    judge: u64,
    liars: Vec<usize>,
    killed: Vec<usize>,
    reporter: usize,
    report: Report,
}

/// What is told while the demonstration runs.
pub trait Watch {
    /// The leg has taken a step.
    fn stepped(&mut self, report: &Report, kind: LegKind, step: &Step);
}

impl Demo {
    /// Checks the options.
    ///
    /// # Errors
    /// If they do not fit together; the error says what to change.
    pub fn new(options: Options) -> Result<Demo, DemoError> {
        let (s, r_c) = (options.adversaries, options.compression);
        let e = options.stragglers.unwrap_or(options.kill);
        let one = Parameters::new(1, s, e, r_c)?;
        let r = one.redundancy();
        let workers = options.workers.unwrap_or(2 * r);
        if workers == 0 || !workers.is_multiple_of(r) || workers > 64 {
            let (below, above) = ((workers.min(64) / r * r).max(r), (workers.min(64 - r) / r + 1) * r);
            return Err(DemoError::Options(format!(
                "{workers} workers do not make groups of {r} (compression {r_c} + 2 x adversaries {s} + stragglers {e}): \
                 take {below} or {above}, at most 64"
            )));
        }
        let parameters = Parameters::new(workers / r, s, e, r_c)?;
        if options.attack.place() == LiePlace::Time {
            return Err(DemoError::Options(format!(
                "each {} liar {}, and the demonstration waits for everybody, to be the same run each time: there would be \
                 nothing to see; for workers that are missing take --kill",
                options.attack,
                options.attack.description()
            )));
        }
        let lying = options.liars.unwrap_or(s);
        if lying + options.kill + 1 > r {
            return Err(DemoError::Options(format!(
                "{lying} liars and {} killed in a group of {r} leave no honest worker to look at",
                options.kill
            )));
        }
        let defaults = if options.data.is_some() { FASHION } else { DIGITS };
        let data = match &options.data {
            Some(directory) => Split::read(directory)?,
            None => Split::digits(),
        };
        let (liars, killed) = choose(&parameters, lying, options.kill, options.seed);
        let reporter = (0..workers)
            .find(|worker| !liars.contains(worker) && !killed.contains(worker))
            .expect("checked: every group has an honest worker that stays");
        let steps = options.steps.unwrap_or(defaults.steps);
        let batch = defaults.batch.next_multiple_of(workers);
        let mut demo = Demo {
            parameters,
            defaults,
            steps,
            batch,
            dimension: Shape::of(&data.train, defaults.hidden).dimension(),
            // All 10,000 test images of Fashion-MNIST take longer than a step.
            judge: if options.data.is_some() { 10 } else { 1 },
            report: Report {
                precision: options.precision,
                update_precision: options.update_precision,
                workers,
                redundancy: r,
                steps,
                attack: options.attack.name().into(),
                attack_description: options.attack.description().into(),
                liars: liars.clone(),
                settings: Vec::new(),
                legs: Vec::new(),
            },
            liars,
            killed,
            reporter,
            options,
        };
        demo.report.settings = demo.settings(&data);
        Ok(demo)
    }

    fn settings(&self, data: &Split) -> Vec<Setting> {
        let p = &self.parameters;
        let setting = |name: &str, value: String| Setting { name: name.into(), value };
        let source = match &self.options.data {
            Some(directory) => directory.display().to_string(),
            None => "UCI optical digits".into(),
        };
        let mut settings = vec![
            setting("data", format!("{source}: {} to train, {} to test", data.train.len(), data.test.len())),
            setting("model", format!("perceptron with {} hidden units, d = {}", self.defaults.hidden, self.dimension)),
            setting("workers", format!("{} processes in {} groups of {}", p.workers(), p.groups(), p.redundancy())),
            setting(
                "code",
                format!(
                    "corrects s = {} liars and e = {} absent per group, uploads 1/{} (r_c) of the gradient{}{}",
                    p.adversaries(),
                    p.stragglers(),
                    p.compression(),
                    match self.options.precision {
                        Precision::F32 => String::new(),
                        rounded => format!(" in {rounded}"),
                    },
                    match self.options.update_precision {
                        Precision::F32 => String::new(),
                        rounded => format!(", updates in {rounded}"),
                    }
                ),
            ),
            setting("training", format!("{} steps of {} samples, seed {}", self.steps, self.batch, self.options.seed)),
            setting("transport", format!("{} ({})", self.options.transport, self.options.listen)),
        ];
        if !self.killed.is_empty() {
            let who: Vec<String> = self.killed.iter().map(usize::to_string).collect();
            settings.push(setting("killed", format!("workers {} after step {}", who.join(", "), self.kill_after())));
        }
        settings
    }

    /// What is going to be run, to be shown.
    pub fn settings_shown(&self) -> &[Setting] {
        &self.report.settings
    }

    /// The step after which workers are killed.
    fn kill_after(&self) -> u64 {
        (self.steps / 2).max(1)
    }

    /// Runs all legs.
    ///
    /// # Errors
    /// If a process fails. A leg that stops because it is undecodable is no error: it is in the report.
    pub fn run(mut self, watch: &mut dyn Watch) -> Result<Report, DemoError> {
        let directory = tempfile::tempdir()
            .map_err(|error| DemoError::Io { what: "cannot make a temporary directory".into(), error })?;
        let mut honest: Option<Vec<f32>> = None;
        for kind in LegKind::ALL {
            self.report.legs.push(Leg::new(kind));
            let weights = self.leg(kind, directory.path(), watch)?;
            let leg = self.report.legs.last_mut().expect("pushed above");
            if let (Some(weights), Some(honest)) = (&weights, &honest) {
                leg.weights_difference = Some(relative_difference(weights, honest)).filter(|x| x.is_finite());
            }
            if kind == LegKind::HonestMean {
                leg.weights_difference = weights.as_ref().map(|_| 0.0);
                honest = weights;
            }
        }
        Ok(self.report)
    }

    /// The attacked leg with Solon, without end: until the process is ended.
    ///
    /// # Errors
    /// If a process fails.
    pub fn run_on(mut self, watch: &mut dyn Watch, started: impl FnOnce(&str)) -> Result<(), DemoError> {
        let directory = tempfile::tempdir()
            .map_err(|error| DemoError::Io { what: "cannot make a temporary directory".into(), error })?;
        (self.steps, self.report.steps) = (0, 0);
        self.report.legs.push(Leg::new(LegKind::AttackedSolon));
        let mut processes = self.start(LegKind::AttackedSolon, directory.path())?;
        started(processes.address());
        self.listen(LegKind::AttackedSolon, &mut processes, watch)
    }

    fn start(&self, kind: LegKind, directory: &Path) -> Result<Processes, DemoError> {
        let solon = kind == LegKind::AttackedSolon;
        let p = &self.parameters;
        let program = &self.options.program;
        let mut daemon: Vec<String> = vec!["demo-daemon".into()];
        let mut set = |name: &str, value: String| daemon.extend([format!("--{name}"), value]);
        set("job-name", "demo".into());
        set("job-dimension", self.dimension.to_string());
        set("job-scale", (1.0 / self.batch as f32).to_string());
        set("job-rule", if solon { "solon" } else { "mean" }.into());
        let counts =
            if solon { [p.groups(), p.adversaries(), p.stragglers(), p.compression()] } else { [p.workers(), 0, 0, 1] };
        for (name, count) in ["groups", "adversaries", "stragglers", "compression"].iter().zip(counts) {
            set(&format!("job-{name}"), count.to_string());
        }
        if solon {
            set("job-precision", self.options.precision.to_string());
            set("push-precision", self.options.update_precision.to_string());
        }
        // Every word waits for every connected worker: the run is the same, bit by bit, each time, and every lie is seen.
        set("rounds-deadline-ms", DEADLINE_MS.to_string());
        set("rounds-linger-ms", DEADLINE_MS.to_string());
        set("listen-address", SocketAddr::new(self.options.listen, 0).to_string());
        if !self.options.listen.is_loopback() {
            // Asked for by name.
            set("listen-open", "true".into());
        }
        set("listen-transport", self.options.transport.to_string());
        set("rdma-devices", self.options.devices[0].to_string());
        match self.options.admin.filter(|_| solon) {
            Some(address) => set("admin-address", address.to_string()),
            None => set("admin-serve", "false".into()),
        }
        set("log-format", "json".into());
        // A dozen processes share the cores with it.
        set("cores-map", r#"[["receive", "assemble", "decode", "push"]]"#.into());
        set("cores-pin", "false".into());
        let mut processes = Processes::start(program, &daemon)?;
        for worker in 0..p.workers() {
            let (part, parts) = if solon { (p.place(worker).group, p.groups()) } else { (worker, p.workers()) };
            let mut args: Vec<String> = vec!["demo-worker".into()];
            let mut set = |name: &str, value: String| args.extend([format!("--{name}"), value]);
            set("address", processes.address().to_owned());
            set("worker", worker.to_string());
            set("steps", self.steps.to_string());
            set("part", part.to_string());
            set("parts", parts.to_string());
            set("seed", self.options.seed.to_string());
            set("hidden", self.defaults.hidden.to_string());
            set("batch", self.batch.to_string());
            set("rate", self.defaults.rate.to_string());
            set("momentum", self.defaults.momentum.to_string());
            set("judge", if worker == self.reporter { self.judge } else { 0 }.to_string());
            set("weights", weights_file(directory, kind, worker).display().to_string());
            set("transport", self.options.transport.to_string());
            set("devices", self.options.devices[1].to_string());
            if let Some(data) = &self.options.data {
                set("data", data.display().to_string());
            }
            if kind != LegKind::HonestMean && self.liars.contains(&worker) {
                set("attack", self.options.attack.name().into());
            }
            processes.add_worker(program, &args)?;
        }
        let mut missing = p.workers();
        while missing > 0 {
            match processes.hear(PATIENCE)? {
                Heard::Said(_, Message::Joined) => missing -= 1,
                Heard::Ended(worker) => {
                    let status = processes.status(worker);
                    return Err(ProcessError::WorkerEnded { worker, status, said: String::new() }.into());
                }
                Heard::Unreadable(worker, line) => return Err(ProcessError::Unreadable { worker, line }.into()),
                Heard::Said(..) => {}
            }
        }
        processes.begin();
        Ok(processes)
    }

    /// Runs one leg; gives the final weights if it was not stopped.
    fn leg(&mut self, kind: LegKind, directory: &Path, watch: &mut dyn Watch) -> Result<Option<Vec<f32>>, DemoError> {
        let mut processes = self.start(kind, directory)?;
        self.listen(kind, &mut processes, watch)?;
        if self.report.legs.last().is_some_and(|leg| leg.stopped.is_some()) {
            return Ok(None);
        }
        let read = |worker: usize| {
            let path = weights_file(directory, kind, worker);
            std::fs::read(&path).map_err(|error| DemoError::Io { what: path.display().to_string(), error })
        };
        let weights = read(self.reporter)?;
        for worker in (0..self.parameters.workers()).filter(|worker| !processes.was_killed(*worker)) {
            if read(worker)? != weights {
                return Err(DemoError::Diverged { worker, reporter: self.reporter });
            }
        }
        let leg = self.report.legs.last_mut().expect("a leg is running");
        leg.weights_digest = Some(blake3::hash(&weights).to_hex()[..16].to_owned());
        let numbers = weights.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")));
        Ok(Some(numbers.collect()))
    }

    fn listen(&mut self, kind: LegKind, processes: &mut Processes, watch: &mut dyn Watch) -> Result<(), DemoError> {
        let workers = self.parameters.workers();
        let mut over = vec![false; workers];
        // Per step from the first kept: how many workers have told of it. Shown once all have.
        let mut told = std::collections::VecDeque::new();
        let mut next = 1;
        while !over.iter().enumerate().all(|(worker, over)| *over || processes.was_killed(worker)) {
            match processes.hear(PATIENCE)? {
                Heard::Said(worker, Message::Step(said)) => {
                    self.record(worker, &said);
                    // A step that was shown already was told by workers that are dead now.
                    if let Some(at) = said.step.checked_sub(next).map(|at| at as usize) {
                        if told.len() <= at {
                            told.resize(at + 1, 0);
                        }
                        told[at] += 1;
                    }
                    let kill = kind == LegKind::AttackedSolon && said.step == self.kill_after();
                    if worker == self.reporter && kill {
                        self.killed.iter().for_each(|worker| processes.kill(*worker));
                    }
                    let alive = (0..workers).filter(|worker| !processes.was_killed(*worker)).count();
                    while told.front().is_some_and(|count| *count >= alive) {
                        told.pop_front();
                        let leg = self.report.legs.last().expect("a leg is running");
                        let step = leg.steps.iter().find(|step| step.step == next).cloned();
                        next += 1;
                        if let Some(step) = step {
                            watch.stepped(&self.report, kind, &step);
                        }
                    }
                }
                Heard::Said(worker, Message::Stopped { step, why, undecodable }) => {
                    over[worker] = true;
                    if undecodable {
                        let leg = self.report.legs.last_mut().expect("a leg is running");
                        leg.stopped.get_or_insert_with(|| format!("undecodable at step {step} ({why})"));
                    } else {
                        let status = processes.status(worker);
                        return Err(ProcessError::WorkerEnded { worker, status, said: why }.into());
                    }
                }
                Heard::Said(worker, Message::Done { rdma }) => {
                    over[worker] = true;
                    self.report.legs.last_mut().expect("a leg is running").by_rdma += usize::from(rdma);
                }
                Heard::Unreadable(worker, line) => return Err(ProcessError::Unreadable { worker, line }.into()),
                Heard::Said(_, Message::Joined) => {}
                Heard::Ended(worker) if over[worker] || processes.was_killed(worker) => {}
                Heard::Ended(worker) => {
                    let status = processes.status(worker);
                    return Err(ProcessError::WorkerEnded { worker, status, said: String::new() }.into());
                }
            }
        }
        Ok(())
    }

    /// Adds what a worker saw of a step to the record of that step.
    fn record(&mut self, worker: usize, said: &WorkerStep) {
        let leg = self.report.legs.last_mut().expect("a leg is running");
        // An endless leg keeps its last steps only.
        if self.steps == 0 && leg.steps.len() > 1000 {
            leg.steps.drain(..500);
        }
        // Workers are heard in any order: the first to speak may be ahead.
        let first = leg.steps.first().map_or(1, |step| step.step);
        let Some(at) = said.step.checked_sub(first).map(|at| at as usize) else { return };
        while leg.steps.len() <= at {
            let step = first + leg.steps.len() as u64;
            leg.steps.push(Step { step, ..Step::default() });
        }
        let step = &mut leg.steps[at];
        step.bytes_up += said.up;
        step.bytes_down += said.down;
        if worker == self.reporter {
            step.accuracy = said.accuracy;
            step.loss = said.loss;
            step.ms = said.ms;
            if leg.kind == LegKind::AttackedSolon {
                step.residual = Some(said.residual_ratio);
                step.residual_received = said.received_ratio;
                step.tolerance = Some(1.0);
            }
            step.liars.clone_from(&said.liars);
            step.absent.clone_from(&said.absent);
        }
    }
}

fn weights_file(directory: &Path, kind: LegKind, worker: usize) -> PathBuf {
    directory.join(format!("{kind:?}-{worker}.weights"))
}

/// In each group, who lies and who is killed: drawn from the seed, in order.
fn choose(parameters: &Parameters, lying: usize, killed: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let (r, mut random) = (parameters.redundancy(), ChaCha8Rng::seed_from_u64(seed ^ 0x11a5));
    let (mut liars, mut dead) = (Vec::new(), Vec::new());
    for group in 0..parameters.groups() {
        let mut members: Vec<usize> = (group * r..(group + 1) * r).collect();
        for (count, chosen) in [(lying, &mut liars), (killed, &mut dead)] {
            chosen.extend(draw(&mut members, count, &mut random));
        }
    }
    liars.sort_unstable();
    dead.sort_unstable();
    (liars, dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            attack: Attack::Reverse,
            workers: None,
            adversaries: 2,
            liars: None,
            stragglers: None,
            compression: 2,
            precision: Precision::F32,
            update_precision: Precision::F32,
            kill: 0,
            steps: None,
            seed: 1,
            data: None,
            program: PathBuf::new(),
            transport: Transport::Tcp,
            listen: std::net::Ipv4Addr::LOCALHOST.into(),
            devices: Default::default(),
            admin: None,
        }
    }

    #[test]
    fn the_default_is_twelve_workers_of_which_four_lie() {
        let demo = Demo::new(options()).unwrap();
        assert_eq!((demo.report.workers, demo.report.redundancy), (12, 6));
        for group in 0..2 {
            assert_eq!(demo.liars.iter().filter(|worker| **worker / 6 == group).count(), 2);
        }
        assert!(!demo.liars.contains(&demo.reporter));
    }

    #[test]
    fn whoever_is_killed_is_honest_and_is_tolerated() {
        let demo = Demo::new(Options { kill: 1, ..options() }).unwrap();
        assert_eq!((demo.report.workers, demo.killed.len(), demo.parameters.stragglers()), (14, 2, 1));
        assert!(demo.killed.iter().all(|worker| !demo.liars.contains(worker) && *worker != demo.reporter));
    }

    #[test]
    fn numbers_of_workers_that_make_no_groups_are_refused_with_those_that_do() {
        let error = Demo::new(Options { workers: Some(13), ..options() }).err().unwrap().to_string();
        assert!(error.contains("take 12 or 18"), "{error}");
        for workers in 0..=70 {
            let Err(DemoError::Options(text)) = Demo::new(Options { workers: Some(workers), ..options() }) else {
                continue;
            };
            let numbers: Vec<usize> =
                text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
            let suggested = &numbers[numbers.len() - 3..numbers.len() - 1];
            assert!(suggested.iter().all(|n| n % 6 == 0 && (6..=64).contains(n)), "{text}");
        }
    }
}
