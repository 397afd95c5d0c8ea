//! How the groups of a job come together: who computes differently than its group, and who is waited for.

mod common;

use std::time::Duration;

use common::{Solond, distance, gradient};
use solon::client::{ClientError, Fault, JoinError, Worker};
use solon::wire::{Fingerprint, Refusal};

const D: usize = 500;
const JOB: [&str; 6] = ["--job-dimension", "500", "--job-groups", "1", "--job-compression", "1"];

fn with(flags: &[&str]) -> Solond {
    Solond::start(&[&JOB[..], flags].concat())
}

fn torch(threads: &str) -> Fingerprint {
    let words = ["torch", "9.8.7", threads, "a secret accelerator", "float32"].map(String::from);
    let [framework, version, threads, device, dtype] = words;
    Fingerprint { framework, version, threads, device, dtype }
}

fn join(solond: &Solond, worker: usize, threads: &str) -> Result<Worker, JoinError> {
    loop {
        match Worker::join(&solond.options(worker).fingerprint(torch(threads))) {
            Err(error) if error.is_transient() => std::thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
}

/// The workers exchange one round.
fn exchange(workers: &mut [Worker]) {
    std::thread::scope(|scope| {
        for worker in workers {
            scope.spawn(move || {
                let round = worker.next_round();
                worker.exchange(&mut gradient(0, round, D)).unwrap();
            });
        }
    });
}

#[test]
fn a_group_that_computes_differently_is_named_in_the_log_by_fields_and_not_by_words() {
    let mut solond = with(&["--job-adversaries", "2"]);
    // Who says nothing differs from nobody.
    let mut workers: Vec<Worker> =
        ["1", "1", "2", "1"].iter().enumerate().map(|(at, threads)| join(&solond, at, threads).unwrap()).collect();
    workers.push(solond.join(4));
    exchange(&mut workers);
    let line: serde_json::Value = serde_json::from_str(&solond.find("computes differently")).unwrap();
    assert_eq!((&line["worker"], &line["other"], &line["fields"]), (&2.into(), &0.into(), &"threads".into()), "{line}");
    workers.into_iter().for_each(Worker::leave);
    solond.signal("-TERM");
    let (code, log) = solond.end();
    assert_eq!((code, log.matches("computes differently").count()), (Some(0), 1), "{log}");
    for word in ["torch", "9.8.7", "accelerator"] {
        assert!(!log.contains(word), "{word} is a peer's");
    }
}

#[test]
fn where_it_is_to_be_ignored_nothing_is_said() {
    let mut solond = with(&["--job-adversaries", "0", "--job-stragglers", "2", "--verify-mixed", "ignore"]);
    let mut workers = ["1", "2", "3"].iter().enumerate().map(|(at, threads)| join(&solond, at, threads).unwrap());
    let mut workers: Vec<Worker> = workers.by_ref().collect();
    exchange(&mut workers);
    workers.into_iter().for_each(Worker::leave);
    solond.signal("-TERM");
    let (_, log) = solond.end();
    assert!(!log.contains("differently"), "{log}");
}

#[test]
fn where_it_is_refused_the_odd_one_learns_why_and_those_that_fit_go_on_whoever_came_first() {
    let mut solond = with(&["--job-adversaries", "1", "--job-stragglers", "1", "--verify-mixed", "refuse"]);
    // One alone may be the liar: nobody is refused because of it.
    let mut odd = join(&solond, 2, "2").unwrap();
    let mut workers = vec![join(&solond, 0, "1").unwrap()];
    workers.push(join(&solond, 1, "1").unwrap());
    workers.push(join(&solond, 3, "1").unwrap());
    solond.find("it computes differently than its group");
    let lost = odd.exchange(&mut gradient(0, 0, D)).unwrap_err();
    assert!(matches!(lost, ClientError::AggregatorLost { .. }), "{lost}");
    let error = loop {
        match odd.rejoin() {
            Err(error) if error.is_transient() => std::thread::sleep(Duration::from_millis(50)),
            result => break result.unwrap_err(),
        }
    };
    let JoinError::Mixed { refusal: Refusal::Mixed { found: 2, other: 0, fields }, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((fields.to_string().as_str(), error.fault(), error.is_transient()), ("threads", Fault::Caller, false));
    let text = error.to_string();
    assert!(
        text.contains("worker 0 and others of its group: threads differ") && text.contains("threads \"2\""),
        "{text}"
    );
    workers.push(join(&solond, 2, "1").unwrap());
    exchange(&mut workers);
    exchange(&mut workers);
}

/// Three of whom one may be missing: two would be enough for a round.
const WITH_ALL: [&str; 4] = ["--job-adversaries", "1", "--rounds-begin-with", "all"];

#[test]
fn a_job_that_begins_with_all_waits_for_the_last_and_that_one_misses_nothing() {
    // The deadline is so short that it would pass many times if it ran.
    let mut solond = with(&[&WITH_ALL[..], &["--rounds-deadline-ms", "20"]].concat());
    let work = |mut worker: Worker| {
        let joined = worker.joined().round;
        // Once all have begun a round may still be too slow for so short a deadline.
        let mut update = gradient(0, 0, D);
        let round = match worker.exchange(&mut update) {
            Ok(_) if distance(&update, 1, 0) < 1e-6 => 0,
            Err(ClientError::Undecodable { round, .. }) => round,
            other => panic!("{other:?}"),
        };
        (joined, round)
    };
    let early: Vec<Worker> = (0..2).map(|worker| solond.join(worker)).collect();
    std::thread::scope(|scope| {
        let mut ends: Vec<_> = early.into_iter().map(|worker| scope.spawn(move || work(worker))).collect();
        let line: serde_json::Value = serde_json::from_str(&solond.find("the first round waits")).unwrap();
        assert_eq!(line["workers"], "2", "{line}");
        assert_eq!(solond.count("\"round "), 0, "no round has ended");
        let last = solond.join(2);
        ends.push(scope.spawn(move || work(last)));
        for end in ends {
            assert_eq!(end.join().unwrap(), (0, 0));
        }
    });
}

#[test]
fn a_job_that_goes_on_from_its_journal_waits_for_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let state = ["--state-directory", directory.path().to_str().unwrap()];
    let mut solond = with(&[&WITH_ALL[..], &state].concat());
    let mut workers: Vec<Worker> = (0..3).map(|worker| solond.join(worker)).collect();
    exchange(&mut workers);
    solond.signal("-KILL");
    solond.exit_code();
    let solond = with(&[&WITH_ALL[..], &state].concat());
    let mut two: Vec<Worker> = (0..2).map(|worker| solond.join(worker)).collect();
    assert_eq!(two[0].joined().round, 1);
    exchange(&mut two);
}
