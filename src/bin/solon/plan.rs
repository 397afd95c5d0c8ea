//! `solon plan`: what a job would tolerate, cost and take.

use std::io::{self, Write};

use clap::Args;
use solon::code::Precision;
use solon::daemon::config::Rule;
use solon::daemon::exit::Exit;
use solon::plan::{
    BytesPerSecond, PlanInput, Seconds, Size, UncodedInput, is_slow, last_level_cache, parse_count, plan, plan_uncoded,
    suggested_width,
};

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
    /// The rule; all but solon and draco are for workers without groups: then --workers is their number, and adversaries
    /// and stragglers are counted among all of them
    #[arg(long, value_name = "WORD", default_value = "solon")]
    rule: Rule,
    /// How the numbers of uploads stand on the wire
    #[arg(long, value_name = "WORD", default_value_t = usual().precision, value_parser = Precision::coded())]
    precision: Precision,
    /// How the numbers of updates stand on the wire
    #[arg(long, value_name = "WORD", default_value_t = usual().update_precision, value_parser = Precision::coded())]
    update_precision: Precision,
    /// The daemon's link, in each direction: 100Gb/s, 10Gbit, 1.25GB/s
    #[arg(long, value_name = "SPEED", value_parser = BytesPerSecond::parse)]
    link: Option<BytesPerSecond>,
    /// What one worker takes for its share of the gradient without redundancy: 50ms, 1.5s
    #[arg(long, value_name = "TIME", value_parser = Seconds::parse)]
    gradient_time: Option<Seconds>,
    /// Numbers in a worker's shard of one chunk [default: as many as the cache has room for, at most 16384]
    #[arg(long, value_name = "COUNT")]
    chunk_width: Option<usize>,
    /// Last-level cache of the daemon's node in MiB [default: that of this machine]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    cache: Option<u32>,
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
    let refused = |message: String| Failure { exit: Exit::Configuration, message };
    if !matches!(arguments.rule, Rule::Solon | Rule::Draco) {
        let costs = plan_uncoded(&arguments.uncoded()).map_err(refused)?;
        return print(if arguments.json { json(&costs)? } else { costs.to_string() });
    }
    let input = arguments.input();
    if is_slow(&input) {
        eprintln!("solon: measuring the conditioning of so large a code takes up to a minute");
    }
    let report = plan(&input).map_err(|refusal| refused(refusal.to_string()))?;
    print(if arguments.json { json(&report)? } else { report.to_string() })
}

fn json(report: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(report)
        .map_err(|error| Failure { exit: Exit::Software, message: format!("the plan cannot be written: {error}") })
}

fn print(text: String) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure { exit: Exit::Io, message: format!("cannot write to standard output: {error}") }),
        Ok(()) => Ok(()),
    }
}

impl Arguments {
    /// The chunks are those of `solond`.
    fn uncoded(&self) -> UncodedInput {
        UncodedInput {
            rule: self.rule,
            workers: self.size.workers.or(self.size.groups).unwrap_or(1),
            adversaries: self.adversaries,
            missing: self.stragglers,
            dimension: self.dimension,
            chunk_width: self.chunk_width.unwrap_or(usual().chunk_width),
        }
    }

    /// With draco the code that compresses nothing.
    fn compression(&self) -> usize {
        if self.rule == Rule::Draco { 1 } else { self.compression }
    }

    fn input(&self) -> PlanInput {
        let size = match (self.size.workers, self.size.groups) {
            (Some(workers), _) => Size::Workers(workers),
            (None, groups) => Size::Groups(groups.unwrap_or(1)),
        };
        let cache = self.cache.map(|mib| (mib as usize) << 20).or_else(last_level_cache);
        let redundancy = self.compression().saturating_add(2usize.saturating_mul(self.adversaries));
        let workers = match size {
            Size::Workers(workers) => workers,
            Size::Groups(groups) => groups.saturating_mul(redundancy.saturating_add(self.stragglers)),
        };
        // Sizes that make no sense are refused by the plan itself.
        let fits =
            |cache| suggested_width(workers.min(1 << 20), self.compression().min(1 << 20), self.precision, cache);
        let width = self.chunk_width.unwrap_or_else(|| cache.map_or(usual().chunk_width, fits));
        PlanInput {
            size,
            cache,
            dimension: self.dimension,
            adversaries: self.adversaries,
            stragglers: self.stragglers,
            compression: self.compression(),
            precision: self.precision,
            update_precision: self.update_precision,
            link: self.link,
            gradient_time: self.gradient_time,
            chunk_width: width,
            credits: self.credits,
            updates: self.updates,
            window: self.window,
            tolerance: self.tolerance.unwrap_or_else(|| PlanInput::usual_tolerance(self.precision, self.compression())),
        }
    }
}
