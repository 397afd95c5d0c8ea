//! How far the code alone is from what this machine can do: decoding and encoding against reading their input.
//! `cargo bench --bench kernels [-- --quick] [-- --json] [-- --goals FILE]`; `docs/performance.md` explains the tables. Whole rounds
//! are measured by `solon bench`.
//!
//! Every ratio is between figures of one run that took turns. Nothing is asserted about time.

mod code;
mod figures;
mod floors;
mod rounded;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use figures::{Machine, Table};

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Repetitions of each measurement.
    pub repetitions: usize,
    /// Seconds of each repetition.
    pub seconds: f64,
    /// Only that it works.
    pub quick: bool,
}

const FULL: Effort = Effort { repetitions: 9, seconds: 0.06, quick: false };
const QUICK: Effort = Effort { repetitions: 1, seconds: 0.002, quick: true };

/// Measures the code alone, on one core and two, against reading and multiplying
#[derive(Parser)]
#[command(name = "kernels")]
struct Arguments {
    /// Only shows that everything works: too short to quote
    #[arg(long)]
    quick: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    /// Writes the goals with their figures here, for `solon bench --goals --with`
    #[arg(long, value_name = "FILE")]
    goals: Option<PathBuf>,
    /// What cargo says to a benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // `cargo test` passes no `--bench`, and may pass what is meant for other tests.
    let measures = std::env::args().any(|word| word == "--bench");
    let arguments = if measures { Arguments::parse() } else { Arguments::parse_from(["kernels", "--quick"]) };
    let effort = if arguments.quick { QUICK } else { FULL };
    let machine = Machine::read();
    let mut goals = Vec::new();
    let tables: [Table; 5] = [
        code::decode(&effort, &mut goals),
        code::two_cores(&effort, &mut goals),
        code::encode(&effort, &mut goals),
        rounded::decode(&effort),
        rounded::encode_rows(&effort),
    ];
    if let Some(path) = arguments.goals {
        let text = serde_json::to_string_pretty(&goals).expect("goals are plain data");
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("{} cannot be written: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    if arguments.json {
        let tables: Vec<_> = tables.iter().map(Table::json).collect();
        println!(
            "{}",
            serde_json::json!({ "machine": machine.to_string(), "quick": arguments.quick, "tables": tables })
        );
        return ExitCode::SUCCESS;
    }
    println!("{machine}");
    println!("median (least to most) of {} repetitions in turns; GB = 1e9 bytes", effort.repetitions);
    tables.iter().for_each(|table| println!("\n{table}"));
    ExitCode::SUCCESS
}
