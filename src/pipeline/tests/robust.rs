//! Robust rules in the whole pipeline, against the library's over the same rows.

use super::*;
use crate::code::Rows;
use crate::rules::{self, Round};

pub(super) const D: usize = 1001;
pub(super) const WORKERS: usize = 11;
pub(super) const LIARS: usize = 2;

/// A job of 11 workers, of which 2 may lie and `missing` may be missing.
pub(super) fn robust(rule: Rule, missing: usize, weights: Vec<f64>) -> Job {
    let mut job = job(Parameters::new(WORKERS, 0, 0, 1).unwrap(), D, 77);
    job.plan.rule = rule;
    job.linger = job.deadline();
    let guess = rule.robust().expect("a robust rule");
    job.robust = Some(Robust { rule: guess, adversaries: LIARS, missing, weights });
    if job.surveys() {
        job.plan.credits = job.plan.layout.chunks() as u32;
    }
    if rule == Rule::Uncoded(rules::Rule::Signum) {
        (job.plan.precision, job.plan.update_precision) = (Precision::Sign, Precision::Sign);
    }
    job
}

fn robust_rules() -> impl Iterator<Item = Rule> {
    Rule::all().filter(|rule| rule.robust().is_some() && *rule != Rule::CYCLIC)
}

pub(super) fn alike() -> Vec<f64> {
    vec![1.0; WORKERS]
}

/// What came of a round at each worker: the update and the report, or why there is none.
pub(super) type Ended = Result<(Vec<f32>, Report), String>;

/// One round of these gradients; the workers in `silent` send nothing, and `tamper` may change what others send.
pub(super) fn run(
    cluster: &mut Cluster,
    gradients: &[Vec<f32>],
    silent: &[usize],
    tamper: fn(usize, &mut [f32]),
) -> Vec<Ended> {
    for (worker, session) in cluster.sessions.iter_mut().enumerate() {
        if silent.contains(&worker) { session.skip() } else { session.begin().map(drop).unwrap() }
    }
    let mut ended: Vec<Option<Ended>> = vec![None; WORKERS];
    let mut update = vec![0.0; D];
    for _ in 0..20_000 {
        for (worker, session) in cluster.sessions.iter_mut().enumerate() {
            if ended[worker].is_some() {
                continue;
            }
            if !silent.contains(&worker) {
                let mut change = |_, _, shard: &mut [f32]| tamper(worker, shard);
                session.pump(Source::Separate(&gradients[worker]), Some(&mut change));
            }
            if let Some(result) = session.collect(&mut update) {
                let result = result.map(|(_, report)| (update.clone(), report)).map_err(|error| error.to_string());
                ended[worker] = Some(result);
            }
        }
        if ended.iter().all(Option::is_some) {
            return ended.into_iter().flatten().collect();
        }
        cluster.turn();
    }
    panic!("the round did not end");
}

/// The sum of the weights times the rule of the rows that are there.
fn wanted(rule: Rule, weights: &[f64], sent: &[Vec<f32>], silent: &[usize]) -> Vec<f64> {
    let guess = rule.robust().unwrap();
    let there = (0..WORKERS).filter(|worker| !silent.contains(worker));
    let (mut rows, mut chosen) = (Vec::new(), Vec::new());
    for worker in there {
        rows.push(&sent[worker][..]);
        chosen.push(weights[worker]);
    }
    let mut round = Round::new(guess, LIARS, &chosen).unwrap();
    round.survey(&rows);
    round.choose();
    let mut out = vec![0.0; D];
    round.combine(&rows, &mut out);
    let total = if rule == Rule::Uncoded(rules::Rule::Signum) { 1.0 } else { weights.iter().sum() };
    out.into_iter().map(|x| f64::from(x) * total).collect()
}

fn huge(worker: usize, shard: &mut [f32]) {
    if worker == 3 || worker == 8 {
        shard.iter_mut().for_each(|x| *x = -100.0 * *x + 7.0);
    }
}

/// Workers near each other, as gradients are, times their weights.
fn near(weights: &[f64], seed: u32) -> Vec<Vec<f32>> {
    let common = &gradients(1, D, seed)[0];
    let own = gradients(WORKERS, D, 31 * seed + 5);
    let row = |(worker, own): (usize, &Vec<f32>)| {
        let spread = 0.2 + 0.03 * worker as f32;
        common.iter().zip(own).map(|(x, y)| (x + spread * y) * weights[worker] as f32).collect()
    };
    own.iter().enumerate().map(row).collect()
}

#[test]
fn every_rule_gives_what_the_library_gives_with_the_same_bits_on_any_number_of_lanes() {
    for rule in robust_rules() {
        let uneven: Vec<f64> = (0..WORKERS).map(|worker| 1.0 + (worker % 4) as f64).collect();
        for weights in [alike(), uneven] {
            if rule == Rule::Uncoded(rules::Rule::Signum) && weights != alike() {
                continue;
            }
            let job = robust(rule, 0, weights.clone());
            let mut clusters = [1, 3].map(|lanes| Cluster::new(&job, lanes));
            for round in 0..4 {
                let honest = near(&weights, round);
                let mut sent = honest.clone();
                sent.iter_mut().enumerate().for_each(|(worker, row)| huge(worker, row));
                let wanted = wanted(rule, &weights, &sent, &[]);
                let mut seen: Option<Vec<f32>> = None;
                for cluster in &mut clusters {
                    for ended in run(cluster, &honest, &[], huge) {
                        let (update, report) = ended.unwrap();
                        let error = rules::reference::error(&update, &wanted);
                        assert!(error < 1e-5, "{rule}: {error:e}");
                        assert!(report.liars.is_empty(), "a lie that is finite proves nothing");
                        assert!(*seen.get_or_insert_with(|| update.clone()) == update, "{rule}: other bits");
                    }
                }
            }
            for cluster in &clusters {
                assert_eq!(cluster.pipeline.held(), 0);
            }
        }
    }
}

#[test]
fn as_many_as_may_be_missing_are_missing_and_one_more_makes_a_round_undecodable() {
    for rule in robust_rules() {
        let missing = if rule == Rule::Uncoded(rules::Rule::Bulyan) { 0 } else { 2 };
        let job = robust(rule, missing, alike());
        for lanes in [1, 2] {
            let mut cluster = Cluster::new(&job, lanes);
            let honest = near(&alike(), 3);
            let silent = &[4, 7, 9][..missing];
            let wanted = wanted(rule, &alike(), &honest, silent);
            for ended in run(&mut cluster, &honest, silent, |_, _| {}) {
                let (update, report) = ended.unwrap();
                assert!(rules::reference::error(&update, &wanted) < 1e-5, "{rule}");
                assert_eq!(report.absent.iter().collect::<Vec<_>>(), silent);
            }
            let needed = WORKERS - missing;
            for ended in run(&mut cluster, &honest, &[4, 7, 9][..missing + 1], |_, _| {}) {
                let why = ended.unwrap_err();
                assert!(why.contains(&format!("{needed}")), "{rule}: {why}");
            }
            // The job goes on, with everybody.
            assert!(run(&mut cluster, &honest, &[], |_, _| {}).iter().all(Result::is_ok), "{rule}");
            assert_eq!(cluster.pipeline.held(), 0);
        }
    }
}

#[test]
fn numbers_that_are_not_finite_are_named_and_when_too_many_send_them_nobody_is() {
    let rules = robust_rules().filter(|rule| *rule != Rule::Uncoded(rules::Rule::Signum));
    for (rule, lanes) in rules.flat_map(|rule| [(rule, 1), (rule, 3)]) {
        let mut cluster = Cluster::new(&robust(rule, 0, alike()), lanes);
        let honest = near(&alike(), 9);
        let broken = |worker: usize, shard: &mut [f32]| match worker {
            2 => shard[shard.len() / 2] = f32::NAN,
            5 => shard.fill(f32::NEG_INFINITY),
            _ => {}
        };
        for ended in run(&mut cluster, &honest, &[], broken) {
            let (update, report) = ended.unwrap();
            assert_eq!(report.liars.iter().collect::<Vec<_>>(), [2, 5], "{rule}");
            assert!(update.iter().all(|x| x.is_finite()), "{rule}");
        }
        let diverged = |worker: usize, shard: &mut [f32]| {
            if worker < 3 {
                shard[0] = f32::NAN;
            }
        };
        for ended in run(&mut cluster, &honest, &[], diverged) {
            let why = ended.unwrap_err();
            assert!(why.contains("NaN"), "{rule}: {why}");
        }
        // Squares that are infinite say nothing of the numbers.
        let large = |worker: usize, shard: &mut [f32]| {
            if worker == 6 {
                shard.fill(1e30);
            }
        };
        for ended in run(&mut cluster, &honest, &[], large) {
            let (update, report) = ended.unwrap();
            assert!(report.liars.is_empty() && update.iter().all(|x| x.abs() < 1e3), "{rule}");
        }
    }
}

#[test]
fn a_rule_that_surveys_counts_nobody_of_whom_a_chunk_is_missing() {
    for rule in [
        Rule::Uncoded(rules::Rule::Krum),
        Rule::Uncoded(rules::Rule::MultiKrum),
        Rule::Uncoded(rules::Rule::Bulyan),
        Rule::Uncoded(rules::Rule::GeometricMedian),
    ] {
        let mut job = robust(rule, 0, alike());
        job.robust.as_mut().unwrap().missing = 1;
        job.robust.as_mut().unwrap().adversaries = 1;
        let mut cluster = Cluster::new(&job, 2);
        let honest = near(&alike(), 2);
        for session in &mut cluster.sessions {
            session.begin().unwrap();
        }
        let (mut updates, mut update) = (vec![None; WORKERS], vec![0.0; D]);
        while updates.iter().any(Option::is_none) {
            for (worker, session) in cluster.sessions.iter_mut().enumerate() {
                // Worker 10 stops after some chunks.
                let ready = if worker == 10 { 400 } else { D };
                session.pump_ready(Source::Separate(&honest[worker]), ready, None);
                if let Some(result) = session.collect(&mut update) {
                    updates[worker] = Some((update.clone(), result.unwrap().1));
                }
            }
            cluster.turn();
        }
        let rows: Vec<&[f32]> = honest[..10].iter().map(Vec::as_slice).collect();
        let mut wanted = vec![0.0; D];
        Round::whole(rule.robust().unwrap(), 1, &rows, &mut wanted).unwrap();
        let wanted: Vec<f64> = wanted.into_iter().map(|x| 11.0 * f64::from(x)).collect();
        for (update, report) in updates.into_iter().flatten() {
            assert!(rules::reference::error(&update, &wanted) < 1e-5, "{rule}");
            assert_eq!(report.late.iter().collect::<Vec<_>>(), [10]);
        }
    }
}

#[test]
fn signs_are_a_bit_each_way_and_a_tie_counts_as_positive() {
    let mut job = robust(Rule::Uncoded(rules::Rule::Signum), 1, alike());
    let honest = near(&alike(), 8);
    // With one missing, there are ties: as many workers are below zero as are not.
    let ties = |at: usize| (0..10).filter(|worker| honest[*worker][at] < 0.0).count() == 5;
    assert!((0..D).any(ties));
    for (precision, tie) in [(Precision::Sign, 1.0), (Precision::F32, 0.0), (Precision::Bf16, 0.0)] {
        job.plan.update_precision = precision;
        let mut cluster = Cluster::new(&job, 2);
        for ended in run(&mut cluster, &honest, &[10], |_, _| {}) {
            let (update, _) = ended.unwrap();
            for (at, x) in update.iter().enumerate() {
                let below = (0..10).filter(|worker| honest[*worker][at] < 0.0).count();
                let wanted = [1.0, tie, -1.0][(below >= 5) as usize + (below > 5) as usize];
                assert_eq!(*x, wanted, "{precision}, {below} of 10 below zero");
            }
        }
        let chunks = job.plan.layout.chunks();
        let received = cluster.pipeline.handle.board.counted(Counter::BytesReceived) as usize;
        // Chunks of 77 numbers are 10 bytes.
        let signs: usize = (0..chunks).map(|chunk| job.plan.layout.chunk(chunk).width.div_ceil(8)).sum();
        assert_eq!(received, 10 * (signs + chunks * HEADER_BYTES));
    }
}

#[test]
fn shards_and_updates_of_16_bits_suit_every_rule_that_adds() {
    for rule in robust_rules().filter(|rule| *rule != Rule::Uncoded(rules::Rule::Signum)) {
        let mut job = robust(rule, 0, alike());
        (job.plan.precision, job.plan.update_precision) = (Precision::Bf16, Precision::F16);
        let mut clusters = [1, 3].map(|lanes| Cluster::new(&job, lanes));
        let honest = near(&alike(), 12);
        let rounded: Vec<Vec<f32>> = honest
            .iter()
            .map(|row| {
                let (mut bytes, mut wide) = (vec![0u16; D], vec![0.0; D]);
                Precision::Bf16.narrow(row, bytemuck::cast_slice_mut(&mut bytes));
                Precision::Bf16.widen(bytemuck::cast_slice(&bytes), &mut wide);
                wide
            })
            .collect();
        let wanted = wanted(rule, &alike(), &rounded, &[]);
        for cluster in &mut clusters {
            for ended in run(cluster, &honest, &[], |_, _| {}) {
                let error = rules::reference::error(&ended.unwrap().0, &wanted);
                assert!(error < 4.0 * Precision::F16.unit_roundoff(), "{rule}: {error:e}");
            }
        }
    }
}

#[test]
fn the_margin_of_a_robust_job_is_what_may_still_be_missing() {
    let mut cluster = Cluster::new(&robust(Rule::Uncoded(rules::Rule::Median), 3, alike()), 1);
    let honest = near(&alike(), 1);
    assert!(run(&mut cluster, &honest, &[1], |_, _| {}).iter().all(Result::is_ok));
    let measured = cluster.pipeline.handle.board.measured();
    assert!((0..WORKERS).all(|group| measured.margin(group) == 2));
    assert_eq!(cluster.pipeline.handle.board.expected(0, 1), Rows::first(WORKERS));
}
