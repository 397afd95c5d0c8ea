//! How far the code alone is from what this machine can do: decoding and encoding against reading their input.
//! `cargo bench --bench kernels [-- --quick] [-- --json] [-- --goals FILE]`; `docs/performance.md` explains the tables. Whole rounds
//! are measured by `solon bench`.
//!
//! Every ratio is between figures of one run that took turns. Nothing is asserted about time.

mod code;
mod figures;
mod floors;

use std::process::ExitCode;

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

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // cargo passes `--bench` to `cargo bench`, and nothing to `cargo test`.
    let quick = words.contains(&"--quick") || !words.contains(&"--bench");
    let effort = if quick { QUICK } else { FULL };
    let machine = Machine::read();
    let mut goals = Vec::new();
    let tables: [Table; 3] =
        [code::decode(&effort, &mut goals), code::two_cores(&effort, &mut goals), code::encode(&effort, &mut goals)];
    if let Some(at) = words.iter().position(|word| *word == "--goals") {
        let Some(path) = words.get(at + 1) else {
            eprintln!("--goals needs the name of a file to write the goals to");
            return ExitCode::from(2);
        };
        let text = serde_json::to_string_pretty(&goals).expect("goals are plain data");
        if let Err(error) = std::fs::write(path, text) {
            eprintln!("{path} cannot be written: {error}");
            return ExitCode::FAILURE;
        }
    }
    if words.contains(&"--json") {
        let tables: Vec<_> = tables.iter().map(Table::json).collect();
        println!("{}", serde_json::json!({ "machine": machine.to_string(), "quick": quick, "tables": tables }));
        return ExitCode::SUCCESS;
    }
    println!("{machine}");
    println!("median (least to most) of {} repetitions in turns; GB = 1e9 bytes", effort.repetitions);
    tables.iter().for_each(|table| println!("\n{table}"));
    ExitCode::SUCCESS
}
