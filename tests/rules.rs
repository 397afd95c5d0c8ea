//! Rules for workers that all compute something else: a real daemon per rule, over TCP.

mod common;

use std::process::Command;

use common::Solond;
use solon::rules::{Round, Rule, reference};

const D: usize = 5003;
const WORKERS: usize = 11;
const LIARS: [usize; 2] = [1, 7];
const SPREAD: f32 = 0.2;

/// The gradient of one worker: a common one, and noise of its own.
fn gradient(worker: usize, round: u64) -> Vec<f32> {
    let number = |seed: usize| (seed.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 65_536.0 - 0.5;
    let common = |at: usize| number(at + 31 * round as usize);
    (0..D).map(|at| common(at) + SPREAD * number(at * 977 + 7919 * (worker + 1) + round as usize)).collect()
}

fn lie(worker: usize, shard: &mut [f32]) {
    let factor = if LIARS.contains(&worker) { -1e6 } else { 1.0 };
    shard.iter_mut().for_each(|x| *x *= factor);
}

/// What all workers send.
fn sent(round: u64) -> Vec<Vec<f32>> {
    let mut rows: Vec<Vec<f32>> = (0..WORKERS).map(|worker| gradient(worker, round)).collect();
    rows.iter_mut().enumerate().for_each(|(worker, row)| lie(worker, row));
    rows
}

/// A daemon with this rule, 11 workers, and further flags.
fn solond(rule: Rule, further: &[&str]) -> Solond {
    let flags = ["--job-dimension", "5003", "--chunks-width", "500", "--job-rule", rule.name()];
    Solond::start(&[&flags[..], &["--job-groups", "11", "--job-adversaries", "2"], further].concat())
}

#[test]
fn liars_that_are_far_off_do_not_move_an_update_out_of_the_honest_range() {
    for rule in Rule::ALL.into_iter().filter(|rule| *rule != Rule::Mean) {
        let digests = solond(rule, &[]).all(WORKERS, |worker, mut handle| {
            assert_eq!((handle.place().group, handle.place().row), (worker, 0));
            let mut digests = Vec::new();
            for round in 0..5 {
                let mut update = gradient(worker, round);
                let mut lie = |_: u64, _: u32, shard: &mut [f32]| lie(worker, shard);
                let report = handle.exchange_tampered(&mut update, Some(&mut lie)).unwrap();
                assert!(report.liars.is_empty() && report.absent.is_empty());
                let rows = sent(round);
                let mut wanted = vec![0.0; D];
                let views: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
                Round::whole(rule, 2, &views, &mut wanted).unwrap();
                let scale = if rule == Rule::Signum { 1.0 } else { WORKERS as f64 };
                let wanted: Vec<f64> = wanted.iter().map(|x| scale * f64::from(*x)).collect();
                let error = reference::error(&update, &wanted);
                assert!(error < 1e-5, "{rule}: {error:e}");
                let honest = (0..WORKERS).filter(|worker| !LIARS.contains(worker)).map(|worker| &rows[worker]);
                let honest: Vec<&Vec<f32>> = honest.collect();
                for at in 0..D {
                    let of = |row: &&Vec<f32>| row[at];
                    let least = honest.iter().map(of).fold(f32::INFINITY, f32::min);
                    let greatest = honest.iter().map(of).fold(f32::NEG_INFINITY, f32::max);
                    let found = update[at] / scale as f32;
                    match rule {
                        Rule::Signum => assert!(update[at] >= least.signum() && update[at] <= greatest.signum()),
                        // It may leave the range of each coordinate, but not go far.
                        Rule::GeometricMedian => assert!(found > least - SPREAD && found < greatest + SPREAD),
                        _ => assert!(
                            found > least - 1e-4 && found < greatest + 1e-4,
                            "{rule} {least} {found} {greatest}"
                        ),
                    }
                }
                digests.push(report.digest);
            }
            handle.leave();
            digests
        });
        assert!(digests.iter().all(|digest| *digest == digests[0]), "everybody has the same updates");
    }
}

#[test]
fn a_mean_is_wherever_liars_want_it() {
    let solond = Solond::start(&["--job-dimension", "5003", "--job-rule", "mean", "--job-groups", "11"]);
    solond.all(WORKERS, |worker, mut handle| {
        let mut update = gradient(worker, 0);
        let mut lie = |_: u64, _: u32, shard: &mut [f32]| lie(worker, shard);
        handle.exchange_tampered(&mut update, Some(&mut lie)).unwrap();
        assert!(update.iter().any(|x| x.abs() > 1e4));
        handle.leave();
    });
}

#[test]
fn a_worker_that_never_comes_may_be_missing_and_one_that_sends_nan_is_named() {
    for rule in [Rule::Median, Rule::MultiKrum, Rule::GeometricMedian] {
        solond(rule, &["--job-stragglers", "1"]).all(WORKERS - 1, |worker, mut handle| {
            for round in 0..3 {
                let mut update = gradient(worker, round);
                let mut lie = |_: u64, chunk: u32, shard: &mut [f32]| {
                    if worker == 4 && chunk == 2 {
                        shard[3] = f32::NAN;
                    }
                };
                let report = handle.exchange_tampered(&mut update, Some(&mut lie)).unwrap();
                assert_eq!(report.liars.iter().collect::<Vec<_>>(), [4], "{rule}");
                assert_eq!(report.absent.iter().collect::<Vec<_>>(), [10], "{rule}");
                assert!(update.iter().all(|x| x.abs() < 11.0), "{rule}");
            }
            handle.leave();
        });
    }
}

#[test]
fn signs_are_a_bit_per_number_in_both_directions() {
    let rounds = 10;
    solond(Rule::Signum, &[]).all(WORKERS, |worker, mut handle| {
        for round in 0..rounds {
            let mut update = gradient(worker, round);
            handle.exchange(&mut update).unwrap();
            assert!(update.iter().all(|x| x.abs() == 1.0));
        }
        let (sent, received) = handle.traffic();
        // Eleven chunks, each with a header; a report and its header per round, and what tells of credits.
        let signs = rounds * (D as u64).div_ceil(8);
        let headers = rounds * 11 * 64;
        assert!(sent >= signs && sent < signs + headers + 11 * rounds + 256, "{sent} for {signs}");
        assert!(received >= signs && received < signs + headers + rounds * (552 + 64 + 6 * 64) + 4096, "{received}");
        // A 32nd of what numbers would be, and headers.
        assert!(sent - headers < rounds * 4 * D as u64 / 30, "{sent}");
        handle.leave();
    });
}

#[test]
fn updates_of_a_robust_rule_are_passed_on_by_workers_as_any() {
    let solond = solond(Rule::MultiKrum, &["--push-way", "relay"]);
    solond.all(WORKERS, |worker, mut handle| {
        for round in 0..5 {
            let mut update = gradient(worker, round);
            let mut lie = |_: u64, _: u32, shard: &mut [f32]| lie(worker, shard);
            handle.exchange_tampered(&mut update, Some(&mut lie)).unwrap();
            let rows = sent(round);
            let mut wanted = vec![0.0; D];
            Round::whole(Rule::MultiKrum, 2, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut wanted).unwrap();
            let wanted: Vec<f64> = wanted.iter().map(|x| 11.0 * f64::from(*x)).collect();
            assert!(reference::error(&update, &wanted) < 1e-5);
        }
        handle.leave();
    });
}

#[test]
fn weights_are_divided_out_before_gradients_are_compared() {
    let weights = [1.0, 2.0, 4.0, 1.0, 2.0, 4.0, 1.0, 2.0, 4.0, 1.0, 2.0f32];
    let list = format!("{weights:?}");
    for rule in [Rule::Median, Rule::Bulyan] {
        solond(rule, &["--job-weights", &list]).all(WORKERS, |worker, mut handle| {
            let own = gradient(worker, 0);
            let mut update: Vec<f32> = own.iter().map(|x| x * weights[worker]).collect();
            handle.exchange(&mut update).unwrap();
            let rows: Vec<Vec<f32>> = (0..WORKERS).map(|worker| gradient(worker, 0)).collect();
            let views: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let mut wanted = vec![0.0; D];
            Round::whole(rule, 2, &views, &mut wanted).unwrap();
            let wanted: Vec<f64> = wanted.iter().map(|x| 24.0 * f64::from(*x)).collect();
            assert!(reference::error(&update, &wanted) < 1e-5, "{rule}");
            handle.leave();
        });
    }
}

#[test]
fn draco_is_exact_and_compares_whole_gradients() {
    let flags = ["--job-dimension", "5003", "--job-rule", "draco", "--job-groups", "2", "--job-adversaries", "2"];
    Solond::start(&[&flags[..], &["--rounds-linger-ms", "10000"]].concat()).all(10, |worker, mut handle| {
        let group = handle.place().group;
        let mut update = common::gradient(group, 3, D);
        let mut lie = |_: u64, _: u32, shard: &mut [f32]| shard.iter_mut().for_each(|x| *x *= -100.0);
        let report = handle.exchange_tampered(&mut update, [1, 4, 8].contains(&worker).then_some(&mut lie)).unwrap();
        assert_eq!(report.liars.iter().collect::<Vec<_>>(), [1, 4, 8]);
        assert!(common::distance(&update, 2, 3) < 1e-6);
        handle.leave();
    });
}

#[test]
fn impossible_parameters_are_refused_with_the_bound_that_fails() {
    let refused = |flags: &[&str], texts: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_solond"))
            .args(["--job-dimension", "1000", "--check-config"])
            .args(flags)
            .env_clear()
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{flags:?}: {said}");
        for text in texts {
            assert!(said.contains(text), "{flags:?}: {text:?} is not in {said}");
        }
    };
    let rule =
        |name, groups, adversaries| ["--job-rule", name, "--job-groups", groups, "--job-adversaries", adversaries];
    refused(&rule("bulyan", "10", "2"), &["at least 11 workers", "P >= 4 f + 3", "job.groups = 11"]);
    refused(&rule("krum", "6", "2"), &["at least 7 workers", "P >= 2 f + 3"]);
    refused(&rule("median", "4", "2"), &["at least 5 workers", "P >= 2 f + 1"]);
    let missing = [&rule("median", "6", "2")[..], &["--job-stragglers", "2"]].concat();
    refused(&missing, &["6 workers, of whom 2 may be missing", "at least 7 workers"]);
    refused(&rule("median", "65", "2"), &["65 workers", "at most 64 workers"]);
    for (name, extra, texts) in [
        ("krum", ["--job-compression", "2"], ["job.compression", "the whole of its own gradient"]),
        ("draco", ["--job-compression", "2"], ["job.compression", "compares whole gradients"]),
        ("median", ["--job-weights", "[1, 2]"], ["2 weights for 11 workers", "one per worker"]),
        ("draco", ["--job-weights", "[1, 2]"], ["job.weights", "sums weigh themselves"]),
        ("signum", ["--job-weights", "[1, 2]"], ["job.weights", "one vote"]),
        ("signum", ["--job-precision", "f32"], ["job.precision", "counts signs"]),
        ("signum", ["--job-scale", "0.5"], ["job.scale", "-1 or +1"]),
        ("median", ["--job-precision", "sign"], ["job.precision", "only the rule signum"]),
        ("solon", ["--push-precision", "sign"], ["push.precision", "only the rule signum"]),
        ("mean", ["--job-stragglers", "1"], ["job.stragglers", "a mean corrects and compresses nothing"]),
    ] {
        let liars = if name == "mean" { "0" } else { "2" };
        refused(&[&rule(name, "11", liars)[..], &extra].concat(), &texts);
    }
    let narrow = [&rule("krum", "11", "2")[..], &["--job-dimension", "1000000", "--chunks-width", "10"]].concat();
    let output = Command::new(env!("CARGO_BIN_EXE_solond")).args(narrow).arg("--check-config").env_clear().output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(said.contains("at most 65528 chunks") && said.contains("chunks.width = 16"), "{said}");
}
