//! Aggregation alone, side by side with other people's: `cargo bench --bench peers [-- --quick] [-- --json FILE]`;
//! `docs/peers.md` says who they are.
//!
//! One thread, one run, in turns; figures are processor and wall milliseconds per aggregate. Before anything is measured all are
//! compared with an oracle. Under `cargo test` this is the small version, which cannot rot.

mod baseline;
mod check;
mod clock;
mod contest;
mod data;
mod draco;
mod goals;
mod solon;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};

use ::solon::bench::figures::{Cell, Machine, Table};
use ::solon::bench::goals::Goals;
use contest::Contest;

/// Measures aggregation on one thread, side by side with other people's
#[derive(Parser)]
#[command(name = "peers")]
struct Arguments {
    /// Few numbers, one repetition: too short to quote
    #[arg(long)]
    quick: bool,
    /// Numbers in a gradient [default: 11000000, with --quick 20000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(5000..=100_000_000))]
    dimension: Option<u32>,
    /// Workers; all whose gradients are kept at once must fit in memory
    #[arg(long, value_delimiter = ',', default_value = "15,25,45", value_parser = ["15", "25", "45"])]
    workers: Vec<String>,
    /// Measures only our rules, without codes and without plain versions
    #[arg(long, value_parser = ["rules"])]
    only: Option<String>,
    /// Calls of each contestant after the first; those that take seconds are called once
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    repetitions: Option<u16>,
    /// Writes all figures here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the goals with their figures here
    #[arg(long, value_name = "FILE")]
    goals: Option<PathBuf>,
    /// What cargo says to a benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // `cargo test` passes no `--bench`, and may pass what is meant for other tests.
    let measures = std::env::args().any(|word| word == "--bench");
    let arguments = if measures { Arguments::parse() } else { Arguments::parse_from(["peers", "--quick"]) };
    eprintln!("comparing with the oracle");
    check::all();
    let quick = arguments.quick;
    let dimension = arguments.dimension.map_or(if quick { 20_000 } else { 11_000_000 }, |d| d as usize);
    let repetitions = arguments.repetitions.map_or(if quick { 1 } else { 5 }, usize::from);
    let counts: Vec<usize> =
        arguments.workers.iter().map(|count| count.parse().expect("one of those offered")).collect();
    let needed = contest::bytes(counts.iter().copied().max().unwrap_or(0), dimension);
    if let Some(available) = ::solon::memory::available().map(|(bytes, _)| bytes).filter(|bytes| *bytes < needed) {
        let needs = format!(
            "needs about {:.1} GB of memory, and {:.1} GB can be had",
            needed as f64 / 1e9,
            available as f64 / 1e9
        );
        eprintln!("{needs}: choose fewer --workers, or a smaller --dimension");
        return ExitCode::FAILURE;
    }
    let mut contests = Vec::new();
    for workers in counts {
        eprintln!("P = {workers}, d = {dimension}: the first call of each");
        if arguments.only.is_some() {
            contests.push(contest::rules(workers, dimension, repetitions));
        } else {
            contests.push(contest::same(workers, dimension, repetitions));
            contests.push(contest::apart(workers, dimension, repetitions));
        }
    }
    let tables = contests.iter().map(table).collect::<Vec<_>>();
    let goals = if arguments.only.is_some() { Goals::default() } else { goals::measured(&contests) };
    println!("{}", Machine::read());
    println!(
        "one thread; median (least to most) of {repetitions} calls in turns; one call of those that take over 2 s"
    );
    for (contest, table) in contests.iter().zip(&tables) {
        println!("\nP = {}, d = {}\n{table}", contest.workers, contest.dimension);
    }
    println!("**Goals**\n\n{goals}");
    let all = json!({
        "machine": Machine::read().to_string(),
        "quick": quick,
        "contests": contests.iter().map(contest_json).collect::<Vec<_>>(),
        "goals": goals,
    });
    let files = [(arguments.json, all.clone()), (arguments.goals, all["goals"].clone())];
    for (file, value) in files.into_iter().filter_map(|(file, value)| Some((file?, value))) {
        if let Err(error) = write(&file, &value) {
            eprintln!("cannot write {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(file: &Path, value: &Value) -> std::io::Result<()> {
    std::fs::write(file, format!("{value:#}\n"))
}

fn table(contest: &Contest) -> Table {
    let columns = ["what", "CPU ms", "wall ms", "CPU / read floor"];
    let mut table = Table::new("Aggregation alone, milliseconds per aggregate", &columns);
    let floor = contest.timed[0].cpu.median();
    for timed in &contest.timed {
        table.push(vec![
            Cell::Text(timed.name.clone()),
            Cell::Figure(timed.cpu.clone()),
            Cell::Figure(timed.wall.clone()),
            Cell::Number(timed.cpu.median() / floor),
        ]);
    }
    table
}

fn contest_json(contest: &Contest) -> Value {
    json!({ "workers": contest.workers, "dimension": contest.dimension, "table": table(contest).json() })
}
