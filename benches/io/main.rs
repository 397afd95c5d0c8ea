//! Experiments behind choices of the data path that are not changed every day; `docs/performance.md` has what came out. Each prints
//! medians of alternating repetitions, and their ratio to the first variant of the same run.
//!
//! ```text
//! cargo bench --bench io -- receive                   epoll and read against io_uring; sizes of reads and of socket buffers
//! cargo bench --bench io -- rounds [A B ...]          whole rounds by several builds of solond, with their system calls
//! cargo bench --bench io -- idle                      tiny rounds by what a core does while it has nothing to do
//! cargo bench --bench io -- scraped                   rounds while somebody scrapes the metrics, and while nobody does
//! ```

mod receive;
mod rounds;
mod scraped;

use std::process::ExitCode;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Repetitions of each variant.
    pub repetitions: usize,
    /// By how much less than usual each does.
    pub divisor: usize,
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// One row per variant, of several columns of samples each: medians, and the ratio of the first column to the first variant's.
pub fn print(title: &str, columns: &[&str], mut rows: Vec<(String, Vec<Vec<f64>>)>) {
    println!("\n{title}\n{:38} {}  ratio", "", columns.iter().map(|name| format!("{name:>14}")).collect::<String>());
    let mut first = None;
    for (name, samples) in &mut rows {
        let medians: Vec<f64> = samples.iter_mut().map(|samples| median(samples)).collect();
        let ratio = medians[0] / *first.get_or_insert(medians[0]);
        println!("{name:38} {}  {ratio:.2}", medians.iter().map(|x| format!("{x:>14.3}")).collect::<String>());
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // The experiments start themselves as the processes that they measure.
    match words[..] {
        ["--as-worker", address, worker] => return rounds::work(address, worker.parse().expect("an index")),
        ["--as-sender", address] => return receive::send(address),
        _ => {}
    }
    // cargo passes `--bench` to `cargo bench`, and nothing to `cargo test`.
    let quick = !words.contains(&"--bench");
    let effort = if quick { Effort { repetitions: 1, divisor: 100 } } else { Effort { repetitions: 7, divisor: 1 } };
    let words: Vec<&str> = words.into_iter().filter(|word| !word.starts_with("--")).collect();
    match words[..] {
        ["receive"] => receive::experiment(effort),
        ["rounds", ref builds @ ..] => rounds::builds(effort, builds),
        ["idle"] => rounds::idle(effort),
        ["scraped"] => scraped::experiment(effort),
        _ => {
            receive::experiment(effort);
            rounds::builds(effort, &[]);
            rounds::idle(effort);
            scraped::experiment(effort);
        }
    }
    ExitCode::SUCCESS
}
