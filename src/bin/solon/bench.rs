//! `solon bench`: whole rounds with real processes, against rounds that only move bytes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use solon::bench::cluster::this_program;
use solon::bench::compare::{self, compare};
use solon::bench::floor::Side;
use solon::bench::goals::{self, Goals, Measured};
use solon::bench::rounds::{self, Effort};
use solon::bench::sweep::{self, Axis};
use solon::bench::worker::WorkerArgs;
use solon::bench::{BenchError, Change, Job, Lie, Linger, Trouble, floor, tiny, worker};
use solon::code::{Parameters, Precision};
use solon::daemon::config::Idle;
use solon::daemon::exit::Exit;
use solon::plan::{PlanInput, Size, parse_count};

use super::Failure;

/// Measure whole rounds with a real solond and real workers, against rounds that only move the bytes
///
/// Everything runs on loopback, in processes of this program: the daemon, the workers, and two floors. Floors and Solon take turns, so
/// that what else the machine does hits all alike: quote the ratios. docs/performance.md says what each floor does.
#[derive(Args)]
pub struct Arguments {
    /// Workers in all: they must divide into groups of compression + 2 x adversaries + stragglers [default: 15]
    #[arg(long, value_name = "COUNT", conflicts_with = "groups")]
    workers: Option<usize>,
    /// Groups of workers, instead of workers
    #[arg(long, value_name = "COUNT")]
    groups: Option<usize>,
    /// Numbers in the gradient: 1e7, 11M, 25_000_000 [default: 1e6, with --tiny 1024]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    dimension: Option<usize>,
    /// Bad workers per group that are corrected (s)
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    adversaries: usize,
    /// Silent workers per group that are tolerated beside them (e)
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    stragglers: usize,
    /// Factor by which uploads shrink (r_c)
    #[arg(long, value_name = "FACTOR", default_value_t = 1)]
    compression: usize,
    /// Numbers in a worker's shard of one chunk
    #[arg(long, value_name = "COUNT", default_value_t = PlanInput::new(Size::Groups(1), 1).chunk_width)]
    chunk_width: usize,
    /// How the numbers of shards stand on the wire
    #[arg(long, value_name = "WORD", default_value = "f32", value_parser = Precision::coded())]
    precision: Precision,
    /// How the numbers of updates stand on the wire
    #[arg(long, value_name = "WORD", default_value = "f32", value_parser = Precision::coded())]
    update_precision: Precision,
    /// How long a chunk with enough shards waits for the rest: milliseconds, or "all" for every connected worker; 0 is solond's default
    #[arg(long, value_name = "MS", default_value = "all")]
    linger: Linger,
    /// Workers per group that lie
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    liars: usize,
    /// How they lie, one way after the other
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "nan,huge,tiny,one")]
    attack: Vec<Lie>,
    /// When others become the liars
    #[arg(long, value_name = "WHEN", default_value = "round")]
    change: Change,
    /// Workers per group that are connected and never answer; needs a --linger other than "all"
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    absent: usize,
    /// What the daemon's cores do while there is nothing to do
    #[arg(long, value_name = "WORD", default_value = "auto")]
    idle: Idle,
    /// Rounds per repetition [default: what fits into half a second]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..1_000_000))]
    rounds: Option<u64>,
    /// Repetitions of each side [default: 5]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..1000))]
    repetitions: Option<u64>,
    /// A few seconds, too short to quote
    #[arg(long)]
    quick: bool,
    /// Let one parameter grow, all else stays
    #[arg(long, value_name = "AXIS", conflicts_with_all = ["tiny", "goals", "compare", "liars", "attack", "change", "absent"])]
    sweep: Option<Axis>,
    /// Write the picture of --sweep to this file
    #[arg(long, value_name = "FILE", requires = "sweep")]
    svg: Option<PathBuf>,
    /// Rounds of 1024 numbers in busy-poll round trips
    #[arg(long, conflicts_with_all = ["goals", "compare", "linger", "liars", "attack", "change", "absent"])]
    tiny: bool,
    /// The table of goals that whole rounds can answer; sizes are those of the goals
    #[arg(
        long,
        conflicts_with_all = [
            "compare", "workers", "groups", "dimension", "adversaries", "stragglers", "compression", "chunk_width",
            "precision", "update_precision", "linger", "idle", "liars", "attack", "change", "absent",
        ]
    )]
    goals: bool,
    /// Rows of other benchmarks for --goals, as JSON; can be given several times
    #[arg(long, value_name = "FILE", requires = "goals")]
    with: Vec<PathBuf>,
    /// Compare with a report that --json printed before; exit code 1 if a ratio of times to a floor is worse
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// How much worse a ratio may be with --compare: 0.05 for 5 %
    #[arg(long, value_name = "PART", default_value_t = 0.05, requires = "compare")]
    tolerance: f64,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// One process of the benchmark
#[derive(Subcommand)]
pub enum Role {
    /// One worker of the benchmark
    #[command(name = "bench-worker", hide = true)]
    Worker(WorkerArgs),
    /// A floor of the benchmark, which ends with its standard input
    #[command(name = "bench-floor", hide = true)]
    Floor {
        /// Which
        side: Side,
        /// Workers per group that send nothing
        absent: usize,
        /// Flags of solond
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<String>,
    },
}

/// Runs one process of a benchmark.
pub fn run_role(role: Role) -> Result<(), Failure> {
    match role {
        Role::Worker(arguments) => match worker::run(&arguments) {
            true => Ok(()),
            false => Err(Failure { exit: Exit::Failure, message: format!("worker {} cannot go on", arguments.worker) }),
        },
        Role::Floor { side, absent, flags } => {
            solon::demo::worker::end_with_parent();
            floor::run(side, absent, &flags).map_err(failure)
        }
    }
}

fn failure(error: BenchError) -> Failure {
    let exit = match error {
        BenchError::Options(_) | BenchError::Parameters(_) => Exit::Usage,
        BenchError::Memory { .. } => Exit::Resources,
        BenchError::File { .. } => Exit::Data,
        _ => Exit::Failure,
    };
    Failure { exit, message: error.to_string() }
}

/// Runs `solon bench`.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    bench(arguments).map_err(failure).and_then(|passed| match passed {
        Ok(()) => Ok(()),
        Err(message) => Err(Failure { exit: Exit::Failure, message }),
    })
}

/// The inner error: all was measured, and something is not as it should be.
fn bench(arguments: &Arguments) -> Result<Result<(), String>, BenchError> {
    let program = this_program()?;
    let effort = arguments.effort();
    let mut note = |text: &str| eprintln!("solon: {text}");
    if arguments.goals {
        // Looked at first: a wrong file is not found out after minutes.
        let others: Vec<Goals> = arguments.with.iter().map(|path| Goals::read(path)).collect::<Result<_, _>>()?;
        let Measured { mut goals, left_out } = goals::measure(&program, &effort, arguments.quick, &mut note)?;
        others.into_iter().for_each(|rows| goals.merge(rows));
        arguments.print(&goals)?;
        left_out.iter().for_each(|what| note(&format!("not measured: {what}")));
        return Ok(match goals.pass() && left_out.is_empty() {
            true => Ok(()),
            false => Err("not every goal is reached".into()),
        });
    }
    let job = arguments.job()?;
    if arguments.tiny {
        arguments.print(&tiny::measure(&program, job, &effort)?)?;
        return Ok(Ok(()));
    }
    if let Some(axis) = arguments.sweep {
        let sweep = sweep::measure(&program, &job, axis, &effort, arguments.quick, &mut note)?;
        if let Some(path) = &arguments.svg {
            std::fs::write(path, sweep.svg()).map_err(|error| unwritable(path, &error))?;
        }
        arguments.print(&sweep)?;
        return Ok(Ok(()));
    }
    let before = arguments.compare.as_ref().map(|path| compare::read(path).map(|report| (path, report))).transpose()?;
    let report = rounds::measure(&program, job, &arguments.trouble(), &effort)?;
    arguments.print(&report)?;
    let Some((path, before)) = before else { return Ok(Ok(())) };
    let comparison = compare(&before, &report, arguments.tolerance, path)?;
    if arguments.json {
        eprintln!("{comparison}");
    } else {
        print(&format!("\n{comparison}\n"))?;
    }
    Ok(if comparison.worse.is_empty() { Ok(()) } else { Err("a ratio to a floor got worse".into()) })
}

fn unwritable(path: &Path, error: &io::Error) -> BenchError {
    BenchError::File { path: path.into(), problem: format!("cannot be written: {error}") }
}

fn print(text: &str) -> Result<(), BenchError> {
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|error| BenchError::Broken(format!("cannot write to standard output: {error}"))),
    }
}

impl Arguments {
    fn print(&self, what: &(impl serde::Serialize + std::fmt::Display)) -> Result<(), BenchError> {
        let text = match self.json {
            true => serde_json::to_string_pretty(what)
                .map_err(|error| BenchError::Broken(format!("the figures cannot be written: {error}")))?,
            false => what.to_string(),
        };
        print(&(text + "\n"))
    }

    fn effort(&self) -> Effort {
        let usual = if self.quick { Effort::QUICK } else { Effort::FULL };
        Effort {
            repetitions: self.repetitions.map_or(usual.repetitions, |count| count as usize),
            rounds: self.rounds.or(usual.rounds),
            ..usual
        }
    }

    fn trouble(&self) -> Trouble {
        Trouble { liars: self.liars, lies: self.attack.clone(), change: self.change, absent: self.absent }
    }

    fn job(&self) -> Result<Job, BenchError> {
        let (s, e, c) = (self.adversaries, self.stragglers, self.compression);
        let r = Parameters::new(1, s, e, c)?.redundancy();
        let groups = match (self.workers, self.groups) {
            (_, Some(groups)) => groups,
            (Some(workers), None) if workers > 0 && workers.is_multiple_of(r) => workers / r,
            (Some(workers), None) => {
                let (below, above) = (workers / r * r, (workers / r + 1) * r);
                let take = if below == 0 { r.to_string() } else { format!("{below} or {above}") };
                return Err(BenchError::Options(format!(
                    "{workers} workers do not make groups of {r} (compression {c} + 2 x adversaries {s} + stragglers {e}): \
                     take {take}"
                )));
            }
            (None, None) => (15 / r).max(1),
        };
        let parameters = Parameters::new(groups, s, e, c)?;
        if parameters.workers() > 256 {
            let found = parameters.workers();
            return Err(BenchError::Options(format!(
                "{found} workers are as many processes on this machine: at most 256, lower --workers or --groups"
            )));
        }
        let dimension = self.dimension.unwrap_or(if self.tiny { 1024 } else { 1_000_000 });
        for (flag, value, most) in [("--dimension", dimension, 1 << 32), ("--chunk-width", self.chunk_width, 1 << 26)] {
            if !(1..=most).contains(&value) {
                return Err(BenchError::Options(format!("{flag} is {value}, expected 1 to {most}")));
            }
        }
        // A tiny round is about the delay, which waiting for all hides.
        let linger = if self.tiny { Linger::Ms(0) } else { self.linger };
        Ok(Job {
            parameters,
            dimension,
            chunk_width: self.chunk_width,
            precision: self.precision,
            update_precision: self.update_precision,
            linger,
            idle: self.idle,
        })
    }
}
