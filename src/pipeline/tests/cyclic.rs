//! Draco's cyclic code in the whole pipeline, against the plain sum of all batches.

use super::robust::{D, LIARS, WORKERS, alike, robust, run};
use super::*;
use crate::rules::{cyclic, reference};

/// A job of 11 workers, of which 2 may lie or be missing.
fn job_of() -> Job {
    let mut job = robust(Rule::CYCLIC, LIARS, alike());
    job.plan.gradients = 2 * LIARS as u32 + 1;
    job
}

/// What each worker submits: the gradients of its batches, one after another.
fn submitted(batches: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let of =
        |worker| cyclic::batches(WORKERS, LIARS, worker).flat_map(|batch| batches[batch].iter().copied()).collect();
    (0..WORKERS).map(of).collect()
}

fn sum(batches: &[Vec<f32>]) -> Vec<f64> {
    (0..D).map(|at| batches.iter().map(|batch| f64::from(batch[at])).sum()).collect()
}

#[test]
fn liars_and_absent_workers_are_named_and_the_sum_is_right_with_the_same_bits_on_any_number_of_lanes() {
    let mut clusters = [1, 3].map(|lanes| Cluster::new(&job_of(), lanes));
    let lies: [fn(usize, &mut [f32]); 4] = [
        |_, _| {},
        |worker, shard| {
            if worker == 3 || worker == 8 {
                shard.iter_mut().for_each(|x| *x *= -100.0)
            }
        },
        |worker, shard| {
            if worker == 4 {
                shard[shard.len() / 2] = f32::NAN
            }
        },
        |worker, shard| {
            if worker == 0 {
                shard[0] += 0.5
            }
        },
    ];
    let silent: [&[usize]; 4] = [&[9, 10], &[], &[7], &[2]];
    let wrong: [&[usize]; 4] = [&[], &[3, 8], &[4], &[0]];
    for (round, ((lie, silent), wrong)) in lies.into_iter().zip(silent).zip(wrong).enumerate() {
        let batches = gradients(WORKERS, D, round as u32 + 1);
        let (sent, wanted) = (submitted(&batches), sum(&batches));
        let mut seen: Option<Vec<f32>> = None;
        for cluster in &mut clusters {
            for ended in run(cluster, &sent, silent, lie) {
                let (update, report) = ended.unwrap();
                assert!(reference::error(&update, &wanted) < 1e-6, "round {round}");
                assert_eq!(report.liars.iter().collect::<Vec<_>>(), wrong, "round {round}");
                assert_eq!(report.absent.iter().collect::<Vec<_>>(), silent, "round {round}");
                assert!(*seen.get_or_insert_with(|| update.clone()) == update, "round {round}: other bits");
            }
        }
    }
    for cluster in &clusters {
        assert_eq!(cluster.pipeline.held(), 0);
    }
}

#[test]
fn more_liars_than_the_code_corrects_end_the_round_and_the_next_one_is_whole() {
    let mut cluster = Cluster::new(&job_of(), 2);
    let batches = gradients(WORKERS, D, 9);
    let lie: fn(usize, &mut [f32]) = |worker, shard| {
        if worker < 3 {
            shard.iter_mut().enumerate().for_each(|(at, x)| *x += (at % 7 + worker) as f32);
        }
    };
    for ended in run(&mut cluster, &submitted(&batches), &[], lie) {
        let why = ended.unwrap_err();
        assert!(why.contains("of 11 shards at most 8 agree and 9 must"), "{why}");
    }
    for ended in run(&mut cluster, &submitted(&batches), &[], |_, _| {}) {
        assert!(reference::error(&ended.unwrap().0, &sum(&batches)) < 1e-6);
    }
}

#[test]
fn a_chunk_is_sent_only_when_the_last_of_its_gradients_is_there() {
    let mut cluster = Cluster::new(&job_of(), 1);
    let sent = submitted(&gradients(WORKERS, D, 4));
    let session = &mut cluster.sessions[0];
    session.begin().unwrap();
    let before = session.traffic().0;
    // Of the first four gradients all is there, of the fifth nothing.
    assert!(session.pump_ready(Source::Separate(&sent[0]), 4 * D, None));
    assert_eq!(session.traffic().0, before);
    session.pump_ready(Source::Separate(&sent[0]), 5 * D, None);
    assert!(session.traffic().0 > before);
}
