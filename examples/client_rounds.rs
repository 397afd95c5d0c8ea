//! Rounds of one worker, for bindings/python/bench: prints the seconds of a round, the peak of memory that they took, and the bytes
//! of updates that were copied. `client_rounds ENDPOINT NUMBERS ROUNDS`

use std::error::Error;
use std::time::Instant;

use solon::client::{JoinOptions, Worker};
use solon::transport::Transport;

/// A line of /proc/self/status, in bytes.
fn status(field: &str) -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with(field)).ok_or("no such line")?;
    Ok(1024 * line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, numbers, rounds] = &arguments[..] else {
        return Err("client_rounds ENDPOINT NUMBERS ROUNDS".into());
    };
    let (numbers, rounds): (usize, u32) = (numbers.parse()?, rounds.parse()?);
    let mut options = JoinOptions::new(endpoint, "default", 0);
    options.transport = Transport::Tcp;
    let mut worker = Worker::join(&options)?;
    let before = status("VmRSS")?;
    let mut buffer = vec![1.0f32; numbers];
    worker.exchange(&mut buffer)?;
    let began = Instant::now();
    for _ in 0..rounds {
        worker.exchange(&mut buffer)?;
    }
    let seconds = began.elapsed().as_secs_f64() / f64::from(rounds);
    println!(r#"{{"seconds": {seconds}, "bytes": {}, "copied": {}}}"#, status("VmHWM")? - before, worker.copied());
    worker.leave();
    Ok(())
}
