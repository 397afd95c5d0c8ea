//! `solon plan`: what a job would tolerate, cost and take.

use std::io::{self, Write};

use clap::Args;
use solon::daemon::exit::Exit;
use solon::plan::{BytesPerSecond, PlanInput, Seconds, Size, is_slow, parse_count, plan};

use super::Failure;

/// Show what a job tolerates, costs and takes, before anything is started
#[derive(Args)]
#[command(after_help = "The defaults are those of solond.")]
pub struct Arguments {
    #[command(flatten)]
    size: SizeArguments,
    /// Numbers in the gradient: 1e7, 11M, 25_000_000
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    dimension: usize,
    /// Bad workers per group that are corrected
    #[arg(long, value_name = "COUNT", default_value_t = usual().adversaries)]
    adversaries: usize,
    /// Silent workers per group that are tolerated beside them
    #[arg(long, value_name = "COUNT", default_value_t = usual().stragglers)]
    stragglers: usize,
    /// Factor by which uploads shrink
    #[arg(long, value_name = "FACTOR", default_value_t = usual().compression)]
    compression: usize,
    /// The daemon's link, in each direction: 100Gb/s, 10Gbit, 1.25GB/s
    #[arg(long, value_name = "SPEED", value_parser = BytesPerSecond::parse)]
    link: Option<BytesPerSecond>,
    /// What one worker takes for its share of the gradient without redundancy: 50ms, 1.5s
    #[arg(long, value_name = "TIME", value_parser = Seconds::parse)]
    gradient_time: Option<Seconds>,
    /// Numbers in a worker's shard of one chunk
    #[arg(long, value_name = "COUNT", default_value_t = usual().chunk_width)]
    chunk_width: usize,
    /// Shards that a worker may have in flight
    #[arg(long, value_name = "COUNT", default_value_t = usual().credits)]
    credits: usize,
    /// Decoded chunks that may wait to be sent
    #[arg(long, value_name = "COUNT", default_value_t = usual().updates)]
    updates: usize,
    /// Rounds that may be in flight at once
    #[arg(long, value_name = "COUNT", default_value_t = usual().window)]
    window: usize,
    /// Relative rounding error that is no lie [default: as in solond]
    #[arg(long, value_name = "NUMBER")]
    tolerance: Option<f64>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct SizeArguments {
    /// Workers in all: they must divide into groups of compression + 2 x adversaries + stragglers
    #[arg(long, value_name = "COUNT")]
    workers: Option<usize>,
    /// Groups of workers, instead of workers
    #[arg(long, value_name = "COUNT")]
    groups: Option<usize>,
}

/// What `solond` does when nobody says anything; the size is not looked at.
fn usual() -> PlanInput {
    PlanInput::new(Size::Groups(1), 1)
}

/// Prints the plan.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let input = arguments.input();
    if is_slow(&input) {
        eprintln!("solon: measuring the conditioning of so large a code takes up to a minute");
    }
    let report = plan(&input).map_err(|refusal| Failure { exit: Exit::Configuration, message: refusal.to_string() })?;
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&report).map_err(|error| Failure {
            exit: Exit::Software,
            message: format!("the plan cannot be written: {error}"),
        })?,
        false => report.to_string(),
    };
    match writeln!(io::stdout(), "{text}") {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure { exit: Exit::Io, message: format!("cannot write to standard output: {error}") }),
        Ok(()) => Ok(()),
    }
}

impl Arguments {
    fn input(&self) -> PlanInput {
        let size = match (self.size.workers, self.size.groups) {
            (Some(workers), _) => Size::Workers(workers),
            (None, groups) => Size::Groups(groups.unwrap_or(1)),
        };
        PlanInput {
            size,
            dimension: self.dimension,
            adversaries: self.adversaries,
            stragglers: self.stragglers,
            compression: self.compression,
            link: self.link,
            gradient_time: self.gradient_time,
            chunk_width: self.chunk_width,
            credits: self.credits,
            updates: self.updates,
            window: self.window,
            tolerance: self.tolerance.unwrap_or(usual().tolerance),
        }
    }
}
