//! gloo's ring all-reduce, one process per worker's namespace.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::Deserialize;

use crate::Failure;
use crate::network::{End, Network};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/links/python/ring.py");

#[derive(Deserialize)]
struct Said {
    times: Vec<[f64; 2]>,
    sent: Vec<f64>,
}

/// Per call the seconds from when the first worker called to when the last one returned, and the bytes that left worker 0's interface.
pub fn measure(
    network: &Network,
    python: &Path,
    workers: usize,
    dimension: usize,
    calls: usize,
) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let store = std::env::temp_dir().join(format!("{}-store", network.0));
    // Of an earlier run, if there is one.
    let _ = std::fs::remove_file(&store);
    let start = |rank: usize| {
        let numbers = [rank.to_string(), workers.to_string(), store.display().to_string(), dimension.to_string()];
        let words: Vec<String> = [PROGRAM.to_owned()].into_iter().chain(numbers).chain([calls.to_string()]).collect();
        let (program, arguments) = network.at(End::Worker(rank), python, &words);
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
    };
    let broken = |error: std::io::Error| Failure(format!("a process of gloo's ring: {error}"));
    let children: Vec<Child> = (0..workers).map(start).collect::<Result<_, _>>().map_err(broken)?;
    let mut said: Vec<Said> = Vec::new();
    for (rank, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().map_err(broken)?;
        let read = serde_json::from_slice(&output.stdout);
        let why =
            |_| Failure(format!("process {rank} of gloo's ring failed ({}); what it said is above", output.status));
        said.push(read.map_err(why)?);
    }
    let _ = std::fs::remove_file(&store);
    let seconds = |call: usize| {
        let ends = said.iter().map(|rank| rank.times[call]);
        let (first, last) =
            ends.fold((f64::INFINITY, 0.0f64), |(first, last), [began, ended]| (first.min(began), last.max(ended)));
        last - first
    };
    Ok(((0..calls).map(seconds).collect(), said[0].sent.clone()))
}
