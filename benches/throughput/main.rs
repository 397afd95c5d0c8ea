//! How far Solon is from what this machine can do: whole rounds against the same bytes moved and dropped, and the code against
//! reading its input. `cargo bench --bench throughput [-- --quick] [-- --json]`; `docs/performance.md` explains the table.
//!
//! Every ratio is between two figures of one run. Nothing is asserted about time, but every worker must have the same updates.

mod code;
mod figures;
mod floor;
mod rounds;

use std::process::ExitCode;

use figures::{Machine, Table};

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Repetitions of each measurement.
    pub repetitions: usize,
    /// Seconds of each repetition.
    pub seconds: f64,
    /// Numbers in the gradient of whole rounds.
    pub dimension: usize,
}

const FULL: Effort = Effort { repetitions: 5, seconds: 0.35, dimension: 1_000_000 };
const QUICK: Effort = Effort { repetitions: 1, seconds: 0.01, dimension: 50_000 };

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // The benchmark starts itself as the processes that it measures.
    match words[..] {
        ["--as-worker", address, worker] => return rounds::work(address, worker.parse().expect("an index")),
        ["--as-sender", address, up, down, frame] => {
            return floor::send(address, [up, down, frame].map(|word| word.parse().expect("a number of bytes")));
        }
        _ => {}
    }
    // cargo passes `--bench` to `cargo bench`, and nothing to `cargo test`.
    let quick = words.contains(&"--quick") || !words.contains(&"--bench");
    let effort = if quick { QUICK } else { FULL };
    let machine = Machine::read();
    let tables: [Table; 4] =
        [rounds::table(&effort), rounds::at_rest(&effort), code::decode(&effort), code::encode(&effort)];
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
