//! What the relay is for: rounds on links of the same rate for everybody. `benches/links/run` starts it; docs/relay.md has the figures.
//!
//! ```text
//! namespaces    NAME-daemon     NAME-0     NAME-1  ..       one process in each: solond, workers (or gloo's)
//!                    |             |          |             a link each, shaped in both directions to one rate
//!                    +------- NAME-switch ----+
//! ```
//!
//! - [`network`]: the namespaces. - [`worker`]: the worker process. - [`carriers`]: how carriers are bad.
//! - [`cluster`]: all processes, and one round with them. - [`ring`]: gloo's ring all-reduce on the same links.
//! - [`times`]: rounds over r_c, both ways, and the ring. - [`faults`]: rounds with bad carriers. - [`picture`]: the plot.

mod carriers;
mod cluster;
mod faults;
mod network;
mod picture;
mod ring;
mod times;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;
use solon::bench::figures::Machine;
use solon::bench::goals::{Bound, Goal, Goals};
use solon::code::{Parameters, Precision};
use solon::demo::process::ProcessError;
use solon::plan::{BytesPerSecond, Code, PlanInput, Size, parse_count};

use cluster::{Job, Linger, Way};
use network::Network;

/// Why there is nothing measured.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

impl From<ProcessError> for Failure {
    fn from(error: ProcessError) -> Failure {
        Failure(error.to_string())
    }
}

/// Measures rounds with a real solond and real workers on links of the same rate for everybody
#[derive(Parser)]
#[command(name = "links")]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// What the namespaces' names begin with
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Few numbers, few rounds: too short to quote, and only a wrong update is a failure
    #[arg(long)]
    quick: bool,
    /// Measure only one part
    #[arg(long)]
    only: Option<Part>,
    /// Rate of every link in each direction
    #[arg(long, value_name = "RATE", default_value = "200Mbit/s", value_parser = BytesPerSecond::parse)]
    rate: BytesPerSecond,
    /// Numbers in the gradient [default: 1e7, with --quick 2e5]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    dimension: Option<usize>,
    /// Numbers in a worker's shard of one chunk [default: solond's, with --quick 1024]
    #[arg(long, value_name = "COUNT")]
    chunk_width: Option<usize>,
    /// Measure only these r_c
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=11))]
    compression: Vec<u8>,
    /// Further flags of solond, to try out settings
    #[arg(long, value_name = "FLAGS", default_value = "", allow_hyphen_values = true)]
    solond: String,
    /// An interpreter with torch, for gloo's ring
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the plot to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// What cargo says to a benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Rounds over r_c, and the ring
    Times,
    /// Rounds with bad carriers
    Faults,
}

#[derive(Subcommand)]
enum Role {
    /// One worker
    #[command(hide = true)]
    Worker(worker::WorkerArgs),
}

/// What is measured.
struct Setting {
    network: Network,
    quick: bool,
    rate: BytesPerSecond,
    dimension: usize,
    chunk_width: usize,
    /// No others, if there are any.
    compression: Vec<u8>,
    /// Further flags of solond.
    flags: Vec<String>,
}

impl Setting {
    /// Workers, in one group; liars among them.
    const WORKERS: usize = 15;
    const LIARS: usize = 2;
    /// The most that uploads can shrink with so many, but for one that may be absent.
    const COMPRESSION: usize = 10;

    /// The job with this much compression: what is left of the redundancy is for absent workers.
    fn job(&self, compression: usize, way: Way, linger: Linger) -> Job {
        let stragglers = Setting::WORKERS - 2 * Setting::LIARS - compression;
        let parameters = Parameters::new(1, Setting::LIARS, stragglers, compression).expect("there is this code");
        let Setting { dimension, chunk_width, ref flags, .. } = *self;
        Job { code: Code::from(parameters), dimension, chunk_width, way, linger, flags: flags.clone() }
    }

    /// What `solon plan` asks for this job.
    fn plan(&self, compression: usize) -> PlanInput {
        let mut input = PlanInput::new(Size::Workers(Setting::WORKERS), self.dimension);
        input.adversaries = Setting::LIARS;
        input.stragglers = self.job(compression, Way::Direct, Linger::All).code.stragglers;
        (input.compression, input.chunk_width, input.precision) = (compression, self.chunk_width, Precision::F32);
        input.link = Some(self.rate);
        input
    }

    fn bytes_per_second(&self) -> u64 {
        self.rate.get() as u64
    }
}

/// A goal of this benchmark.
fn goal(id: &str, what: String, bound: Bound, measured: f64) -> Goal {
    Goal { id: id.into(), what, bound, measured, unit: "x".into() }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Role::Worker(args)) = &arguments.role {
        return if worker::run(args) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let Some(network) = &arguments.network else {
        eprintln!("links: needs the namespaces that benches/links/run makes: start that");
        return ExitCode::from(2);
    };
    let quick = arguments.quick;
    let setting = Setting {
        network: Network(network.clone()),
        quick,
        rate: arguments.rate,
        dimension: arguments.dimension.unwrap_or(if quick { 200_000 } else { 10_000_000 }),
        chunk_width: arguments.chunk_width.unwrap_or(match quick {
            true => 1024,
            false => PlanInput::new(Size::Groups(1), 1).chunk_width,
        }),
        compression: arguments.compression.clone(),
        flags: arguments.solond.split_whitespace().map(str::to_owned).collect(),
    };
    match run(&arguments, &setting) {
        Ok(goals) if goals.pass() || quick => ExitCode::SUCCESS,
        Ok(_) => {
            eprintln!("links: not every goal is reached");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("links: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, setting: &Setting) -> Result<Goals, Failure> {
    let (s, p) = (Setting::LIARS, Setting::WORKERS);
    println!("{}", Machine::read());
    println!(
        "P = {p} in one group, s = {s}, d = {}, chunk width {}; links of {} in each direction, TCP with {}\n",
        setting.dimension,
        setting.chunk_width,
        setting.rate,
        std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default().trim()
    );
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    let mut goals = Goals::default();
    let times = match wanted(Part::Times) {
        true => Some(times::measure(setting, arguments.python.as_deref())?),
        false => None,
    };
    if let Some(times) = &times {
        println!("{times}");
        goals.merge(times.goals());
    }
    let faults = match wanted(Part::Faults) {
        true => Some(faults::measure(setting)?),
        false => None,
    };
    if let Some(faults) = &faults {
        println!("{faults}");
        goals.merge(faults.goals());
    }
    println!("{goals}");
    let all = json!({
        "machine": Machine::read().to_string(),
        "quick": setting.quick,
        "workers": p,
        "adversaries": s,
        "dimension": setting.dimension,
        "chunk_width": setting.chunk_width,
        "bytes_per_second": setting.rate.get(),
        "times": times,
        "faults": faults,
        "goals": goals,
    });
    let picture = times.as_ref().map(|times| picture::draw(setting, times));
    let files = [(&arguments.json, Some(format!("{all:#}\n"))), (&arguments.svg, picture)];
    for (file, text) in files.into_iter().filter_map(|(file, text)| Some((file.as_ref()?, text?))) {
        std::fs::write(file, text).map_err(|error| Failure(format!("cannot write {}: {error}", file.display())))?;
    }
    Ok(goals)
}
