//! How far the code alone is from what this machine can do: decoding and encoding against reading their input.
//! `cargo bench --bench throughput [-- --quick] [-- --json]`; `docs/performance.md` explains the tables. Whole rounds are
//! measured by `solon bench`.
//!
//! Every ratio is between two figures of one run. Nothing is asserted about time.

mod code;
mod figures;

use std::process::ExitCode;

use figures::{Machine, Table};

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Repetitions of each measurement.
    pub repetitions: usize,
    /// Seconds of each repetition.
    pub seconds: f64,
}

const FULL: Effort = Effort { repetitions: 5, seconds: 0.35 };
const QUICK: Effort = Effort { repetitions: 1, seconds: 0.01 };

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // cargo passes `--bench` to `cargo bench`, and nothing to `cargo test`.
    let quick = words.contains(&"--quick") || !words.contains(&"--bench");
    let effort = if quick { QUICK } else { FULL };
    let machine = Machine::read();
    let tables: [Table; 2] = [code::decode(&effort), code::encode(&effort)];
    if words.contains(&"--json") {
        let tables: Vec<_> = tables.iter().map(Table::json).collect();
        println!("{}", serde_json::json!({ "machine": machine.to_string(), "quick": quick, "tables": tables }));
        return ExitCode::SUCCESS;
    }
    println!("{machine}");
    println!("median (least to most) of {} repetitions; GB = 1e9 bytes", effort.repetitions);
    tables.iter().for_each(|table| println!("\n{table}"));
    ExitCode::SUCCESS
}
