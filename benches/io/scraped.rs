//! What metrics cost: rounds while somebody scrapes them, and while nobody does, by the same daemon in turns.
//!
//! Counting itself cannot be turned off: `rounds A B` compares builds.

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use solon::daemon::config::{Request, load};
use solon::daemon::metrics::Metrics;
use solon::daemon::serve::Daemon;

use crate::rounds::Children;
use crate::{Effort, print};

/// Scrapes until `over`, once in so long.
fn scrape(metrics: &Metrics, every: Duration, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        std::hint::black_box(metrics.text());
        std::thread::park_timeout(every);
    }
}

/// Rounds by how often the daemon is scraped.
pub fn experiment(effort: Effort) {
    let variants = [("never scraped", None), ("every second", Some(1000)), ("100 times a second", Some(10))];
    for (name, [groups, adversaries, compression, dimension], workers, rounds) in [
        ("P=15 r=5 r_c=1, d=1024", ["3", "2", "1", "1024"], 15, 4000),
        ("P=45 r=15 r_c=5, d=1e6", ["3", "5", "5", "1000000"], 45, 30),
    ] {
        let flags = ["--job-groups", groups, "--job-adversaries", adversaries, "--job-compression", compression];
        let more = ["--job-dimension", dimension, "--job-scale", "0.3333333", "--listen-address", "127.0.0.1:0"];
        let waits = ["--rounds-deadline-ms", "60000", "--rounds-linger-ms", "60000"];
        let arguments = [&["solond"][..], &flags, &more, &waits].concat().into_iter().map(OsString::from);
        let none = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        let Ok(Request::Serve(loaded)) = load(arguments, std::iter::empty(), &none) else {
            panic!("these flags are a configuration")
        };
        let daemon = Daemon::start(&loaded.config).expect("a daemon");
        let metrics = Metrics::new(&loaded.config, &daemon);
        let address = daemon.address().to_string();
        let mut children =
            Children::spawn(workers, |worker| vec!["--as-worker".into(), address.clone(), worker.to_string()]);
        children.wait();
        let rounds = (rounds / effort.divisor).max(2);
        let mut run = |rounds: usize| {
            let begun = Instant::now();
            children.tell(&rounds.to_string());
            children.wait();
            begun.elapsed().as_secs_f64() * 1e3 / rounds as f64
        };
        run(rounds.div_ceil(10));
        let mut samples = vec![vec![Vec::new()]; variants.len()];
        for _ in 0..effort.repetitions {
            for ((_, every), samples) in variants.iter().zip(&mut samples) {
                let over = AtomicBool::new(false);
                let took = std::thread::scope(|scope| {
                    let every = every.map(Duration::from_millis);
                    let scraper = every.map(|every| {
                        scope
                            .spawn({
                                let (metrics, over) = (&metrics, &over);
                                move || scrape(metrics, every, over)
                            })
                            .thread()
                            .clone()
                    });
                    let took = run(rounds);
                    over.store(true, Ordering::Relaxed);
                    scraper.iter().for_each(|thread| thread.unpark());
                    took
                });
                samples[0].push(took);
            }
        }
        let rows = variants.iter().map(|(name, _)| (*name).to_owned()).zip(samples).collect();
        print(name, &["ms per round"], rows);
    }
}
