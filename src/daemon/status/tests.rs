use std::time::Duration;

use super::super::history::tests::closed;
use super::*;
use crate::pipeline::Event;
use crate::transport::Disconnect;

/// Of two groups of four, of which one each may lie, after 70 rounds: 2 lied, 3 is gone, 5 is absent, 7 never came.
pub fn made_up() -> Status {
    let text = |text: &str| text.to_owned();
    let job = Job {
        name: text("digits"),
        rule: text("solon"),
        workers: 8,
        groups: 2,
        redundancy: 4,
        adversaries: 1,
        stragglers: 0,
        compression: 2,
        dimension: 1000,
        chunks: 5,
        deadline_seconds: 10.0,
    };
    let start = Instant::now();
    let shape = Shape { words: 2, rows: 4, adversaries: 1, needed: 3 };
    let fixed =
        Fixed { start, address: text("127.0.0.1:7447"), rdma: text("not wanted"), push: text("relay"), job, shape };
    let mut history = History::new(8);
    for worker in 0..7 {
        history.observe(&Event::Joined { worker, round: 0 }, start);
    }
    for round in 0..70 {
        let liars: &[usize] = if round % 7 == 0 { &[2] } else { &[] };
        history.observe(&closed(round, liars, &[5, 7]), start + Duration::from_secs(round + 1));
    }
    history.observe(&Event::Left { worker: 3, why: Disconnect::Closed }, start + Duration::from_secs(70));
    let now = start + Duration::from_secs(75);
    let connected = [Rows::from_bits(0b0111), Rows::from_bits(0b0111)];
    let groups = (0..2).map(|group| fixed.group(group, connected[group], |_| 350, &history, now)).collect();
    Status {
        version: VERSION,
        solond: text("0.1.0"),
        alive: true,
        ready: true,
        why_not: vec![],
        notes: vec![],
        uptime_seconds: 75.0,
        address: fixed.address.clone(),
        rdma: fixed.rdma.clone(),
        push: fixed.push.clone(),
        job: fixed.job.clone(),
        next_round: 70,
        liars: liars(&history),
        groups,
        rounds: history.rounds().map(|closed| round(closed, 5.0)).collect(),
        totals: Totals {
            rounds_complete: 70,
            rounds_undecodable: 0,
            lies: 50,
            shards_accepted: 2000,
            shards_corrupt: 0,
            violations: 0,
            rdma_sessions: 0,
            bytes_received: 1 << 20,
            bytes_sent: 1 << 20,
        },
    }
}

#[test]
fn a_worker_has_the_first_state_that_holds() {
    use State::{Absent, Gone, Lied, Never, Ok};
    let states: Vec<State> = made_up().workers().map(|worker| worker.state).collect();
    assert_eq!(states, [Ok, Ok, Lied, Gone, Ok, Absent, Ok, Never]);
}

#[test]
fn who_joined_after_the_last_round_is_not_absent_from_it() {
    let now = Instant::now();
    let mut history = History::new(1);
    history.observe(&closed(0, &[], &[0]), now);
    history.observe(&Event::Joined { worker: 0, round: 1 }, now + Duration::from_secs(1));
    assert_eq!(state(0, true, &history.workers()[0], &history), State::Ok);
    history.observe(&closed(1, &[], &[0]), now + Duration::from_secs(2));
    assert_eq!(state(0, true, &history.workers()[0], &history), State::Absent);
}

#[test]
fn the_worst_is_said_first_and_a_lie_that_is_over_is_said_to_be() {
    use Weight::{Alarm, Good, Past, Warning};
    let mut status = made_up();
    let said =
        |status: &Status| status.sentences().iter().map(|(weight, text)| (*weight, text.clone())).collect::<Vec<_>>();
    let lied = "worker 2 lied in 9 of the last 64 rounds, last in round 63";
    assert_eq!(said(&status), [(Alarm, lied.to_owned())]);
    status.liars[0].lately = 0;
    let over = "worker 2 lied in 10 rounds, last in round 63; not in the last 64";
    status.rounds[60].complete = false;
    status.rounds[60].why_not = Some("too few".into());
    status.notes.push("a note".into());
    let failed = "1 of the last 64 rounds had no update; the last was round 66: too few";
    assert_eq!(said(&status), [(Alarm, failed.into()), (Past, over.into()), (Warning, "a note".into())]);
    (status.liars, status.rounds, status.notes) = (vec![], vec![], vec![]);
    assert_eq!(said(&status)[0].0, Good);
    status.job.rule = "mean".into();
    assert_eq!(said(&status), [(Warning, "nobody is checked: job.rule is \"mean\"".to_owned())]);
}

#[test]
fn a_job_full_of_liars_does_not_fill_the_page_with_names() {
    let mut status = made_up();
    status.liars = vec![status.liars[0].clone(); 500];
    let said = status.sentences();
    assert_eq!(said.len(), words::LIARS + 1);
    assert_eq!(said[words::LIARS].1, "and 488 more of 500 workers lied");
}

#[test]
fn what_is_written_as_json_reads_back_the_same() {
    let status = made_up();
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    assert!(text.starts_with(r#"{"version":1,"#) && text.contains(r#""state":"lied""#), "{text}");
}

#[test]
fn a_ratio_that_is_not_finite_is_still_a_number_in_json() {
    let Event::Closed { round: number, mut report, duration, .. } = closed(0, &[0], &[]) else { unreachable!() };
    for ratio in [f32::INFINITY, f32::NAN] {
        report.received_ratio = ratio;
        let closed = Closed { round: number, report, duration, at: Instant::now() };
        assert!(round(&closed, 0.0).received > 1e30);
    }
}

#[test]
fn spans_are_short_at_every_length() {
    let found = [0.0, 0.00234, 0.25, 1.24, 61.0, 600.0, 7860.0, 1e6, f64::NAN, -1.0].map(span);
    assert_eq!(
        found,
        ["0.0 ms", "2.3 ms", "250 ms", "1.2 s", "61 s", "10 min", "2 h 11 min", "11 d 13 h", "0.0 ms", "0.0 ms"]
    );
}
