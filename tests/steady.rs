//! What a round costs once the first ones are over: no page fault, no lock. (No allocation: `allocation.rs`.)

mod common;

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use common::{Solond, distance, gradient, lie};

/// Page faults of each reactor of a process so far: those that found the page in memory, and those that had to fetch it.
fn faults(process: u32) -> Vec<(String, u64, u64)> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("a living process");
    let mut faults = Vec::new();
    for task in tasks.map_while(Result::ok) {
        let stat = std::fs::read_to_string(task.path().join("stat")).expect("a living thread");
        // The name stands in parentheses and may hold spaces; behind it `state ppid pgrp session tty tpgid flags minflt cminflt majflt`.
        let (head, tail) = stat.rsplit_once(')').expect("a name in parentheses");
        let (_, name) = head.split_once('(').expect("a name in parentheses");
        let fields: Vec<&str> = tail.split_whitespace().collect();
        if name.starts_with("solon-reactor") {
            faults.push((name.to_owned(), fields[7].parse().expect("a count"), fields[9].parse().expect("a count")));
        }
    }
    faults.sort();
    faults
}

const GROUPS: usize = 2;
const LIARS: usize = 2;
const REDUNDANCY: usize = 6;

#[test]
fn steady_rounds_take_no_page_faults() {
    const WARM: u64 = 20;
    const ROUNDS: u64 = 200;
    // 21 chunks of 16 KiB a shard; among the rounds are late shards, disputes and all kinds of lies.
    const D: usize = 170_001;
    for (linger, huge_pages) in [("0", "auto"), ("10000", "auto"), ("0", "off")] {
        let flags = ["--job-dimension", "170001", "--chunks-width", "4096", "--rounds-linger-ms", linger];
        let solond = Solond::start(&[&flags[..], &["--memory-huge-pages", huge_pages]].concat());
        let (begin, end) = (Barrier::new(GROUPS * REDUNDANCY), Barrier::new(GROUPS * REDUNDANCY));
        let counts = solond.all(GROUPS * REDUNDANCY, |worker, mut handle| {
            let place = handle.place();
            let mut buffer = vec![0.0; D];
            let mut exchange = |round| {
                buffer.copy_from_slice(&gradient(place.group, round, D));
                let mut tamper = |round, _: u32, shard: &mut [f32]| lie(place.row, REDUNDANCY, LIARS, round, shard);
                handle.exchange_tampered(&mut buffer, Some(&mut tamper)).unwrap();
                assert!(distance(&buffer, GROUPS, round) < 1e-5);
            };
            (0..WARM).for_each(&mut exchange);
            begin.wait();
            let before = (worker == 0).then(|| faults(solond.child.id()));
            begin.wait();
            (WARM..WARM + ROUNDS).for_each(&mut exchange);
            end.wait();
            let after = (worker == 0).then(|| faults(solond.child.id()));
            end.wait();
            before.zip(after)
        });
        let (before, after) = counts.into_iter().flatten().next().expect("the first worker counts");
        assert!(!before.is_empty() && before.iter().any(|(_, minor, _)| *minor > 0), "the counts count: {before:?}");
        assert_eq!(before, after, "linger {linger}, huge pages {huge_pages}");
    }
}

#[test]
fn a_daemon_that_requires_huge_pages_has_them_or_says_what_to_do() {
    let mut solond = Solond::spawn(
        std::process::Command::new(env!("CARGO_BIN_EXE_solond")),
        "127.0.0.1:0",
        &["--job-dimension", "1000", "--memory-huge-pages", "require"],
    );
    // Which of the two depends on the machine.
    let until = Instant::now() + Duration::from_secs(30);
    while solond.count("memory: all pages touched") == 0 {
        if solond.child.try_wait().expect("a child").is_some() {
            let (code, log) = solond.end();
            assert_eq!(code, Some(71), "{log}");
            assert!(log.contains("memory.huge_pages is") && log.contains("sysctl vm.nr_hugepages="), "{log}");
            return;
        }
        assert!(Instant::now() < until, "it neither runs nor ends");
        std::thread::yield_now();
    }
    let line = solond.find("memory: all pages touched");
    assert!(line.contains("2 MiB") && !line.contains("4 KiB"), "{line}");
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory of the sources").map_while(Result::ok) {
        match entry.path() {
            path if path.is_dir() => sources(&path, found),
            path => found.push(path),
        }
    }
}

/// What the compiler cannot say is read: no stage, transport of the data path or slot knows a lock.
#[test]
fn the_data_path_has_no_locks() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![root.join("transport/tcp.rs"), root.join("transport/mod.rs")];
    for directory in ["pipeline", "memory", "code"] {
        sources(&root.join(directory), &mut files);
    }
    assert!(files.len() > 15, "the sources are here: {files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source");
        for lock in ["Mutex", "RwLock", "Condvar", "Barrier", "mpsc", "Semaphore"] {
            assert!(!text.contains(lock), "{} has a {lock}", file.display());
        }
    }
}
