//! What the daemon remembers of its rounds and workers, for who asks how it is: made of the pipeline's events, and bounded.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::pipeline::Event;
use crate::wire::Report;

/// Rounds that are remembered.
pub const ROUNDS: usize = 64;

/// A round that was closed.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Which.
    pub round: u64,
    /// What the workers were told.
    pub report: Report,
    /// From its first shard to its close.
    pub duration: Duration,
    /// When.
    pub at: Instant,
}

/// What is remembered of a worker.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// When it last came.
    pub joined: Option<Instant>,
    /// Why its last session ended, if it did not join again.
    pub left: Option<String>,
    /// When it was last known to be there: it came, or a round was closed with a shard of it.
    pub seen: Option<Instant>,
    /// Rounds in which it lied.
    pub lies: u64,
    /// The last of them; of a lie that was found late, the last round in which it can have been.
    pub last_lie: Option<u64>,
    /// Rounds that were closed without a shard of it while it was connected or had been.
    pub absences: u64,
    /// Rounds that were closed with some of its shards, but not all.
    pub late: u64,
    /// It was found to pass updates on late or wrong, in this session.
    pub bad_carrier: bool,
}

/// What is remembered.
#[derive(Debug)]
pub struct History {
    workers: Vec<Past>,
    rounds: VecDeque<Closed>,
}

impl History {
    /// Nothing yet, of a job of so many workers.
    pub fn new(workers: usize) -> History {
        History { workers: vec![Past::default(); workers], rounds: VecDeque::with_capacity(ROUNDS) }
    }

    /// Remembers what happened.
    pub fn observe(&mut self, event: &Event, now: Instant) {
        match *event {
            Event::Joined { worker, .. } => {
                if let Some(past) = self.workers.get_mut(worker as usize) {
                    (past.joined, past.seen) = (Some(now), Some(now));
                    (past.left, past.bad_carrier) = (None, false);
                }
            }
            Event::Left { worker, why } => self.left(worker, || why.to_string()),
            Event::NotReading { worker } => self.left(worker, || "it did not take its update".into()),
            Event::BadCarrier { worker, .. } => {
                if let Some(past) = self.workers.get_mut(worker as usize) {
                    past.bad_carrier = true;
                }
            }
            Event::Closed { round, ref report, duration, .. } => self.closed(round, report, duration, now),
            Event::FellBack { .. }
            | Event::Unrelayed { .. }
            | Event::NoLink { .. }
            | Event::Way { .. }
            | Event::OtherDigest { .. } => {}
        }
    }

    fn left(&mut self, worker: u32, why: impl Fn() -> String) {
        if let Some(past) = self.workers.get_mut(worker as usize) {
            // The first reason is the cause; what ends the connection for it comes after.
            past.left.get_or_insert_with(why);
        }
    }

    fn closed(&mut self, round: u64, report: &Report, duration: Duration, now: Instant) {
        for (worker, past) in self.workers.iter_mut().enumerate() {
            if report.liars.contains(worker) {
                past.lies += 1;
                past.last_lie = Some(round);
            } else if report.late_liars.contains(worker) {
                past.lies += 1;
                past.last_lie = past.last_lie.max(round.checked_sub(1));
            }
            if report.absent.contains(worker) {
                past.absences += u64::from(past.seen.is_some());
            } else {
                past.late += u64::from(report.late.contains(worker));
                past.seen = Some(now);
            }
        }
        if self.rounds.len() == ROUNDS {
            self.rounds.pop_front();
        }
        self.rounds.push_back(Closed { round, report: *report, duration, at: now });
    }

    /// Every worker, in order.
    pub fn workers(&self) -> &[Past] {
        &self.workers
    }

    /// The last rounds, the oldest first; at most [`ROUNDS`].
    pub fn rounds(&self) -> impl DoubleEndedIterator<Item = &Closed> + ExactSizeIterator {
        self.rounds.iter()
    }

    /// In how many of the remembered rounds a worker was named.
    pub fn lied_lately(&self, worker: usize) -> usize {
        let named =
            |closed: &&Closed| closed.report.liars.contains(worker) || closed.report.late_liars.contains(worker);
        self.rounds.iter().filter(named).count()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::pipeline::Spent;
    use crate::transport::Disconnect;
    use crate::wire::{RoundOutcome, WorkerSet};

    /// A complete round with these liars and absentees.
    pub fn closed(round: u64, liars: &[usize], absent: &[usize]) -> Event {
        let set = |workers: &[usize]| workers.iter().copied().collect::<WorkerSet>();
        let report = Report {
            outcome: RoundOutcome::Complete,
            digest: 1,
            residual_ratio: 0.125,
            received_ratio: if liars.is_empty() { 0.125 } else { 1e6 },
            liars: set(liars),
            late_liars: WorkerSet::EMPTY,
            absent: set(absent),
            late: WorkerSet::EMPTY,
        };
        Event::Closed { round, report, duration: Duration::from_millis(3), spent: Spent::nothing(Instant::now()) }
    }

    #[test]
    fn rounds_are_remembered_up_to_a_bound_and_lies_beyond_it() {
        let start = Instant::now();
        let mut history = History::new(4);
        for round in 0..200 {
            let liars: &[usize] = if round < 100 { &[2] } else { &[] };
            history.observe(&closed(round, liars, &[3]), start + Duration::from_secs(round));
        }
        let rounds: Vec<u64> = history.rounds().map(|closed| closed.round).collect();
        assert_eq!(rounds, (136..200).collect::<Vec<_>>());
        let past = &history.workers()[2];
        assert_eq!((past.lies, past.last_lie, history.lied_lately(2)), (100, Some(99), 0));
        assert_eq!(past.seen, Some(start + Duration::from_secs(199)));
        assert_eq!((history.workers()[3].seen, history.workers()[3].absences), (None, 0), "it never was there");
    }

    #[test]
    fn a_lie_that_is_found_late_counts_once_and_its_round_is_before() {
        let mut history = History::new(2);
        let Event::Closed { round, mut report, duration, spent } = closed(7, &[], &[]) else { unreachable!() };
        report.late_liars.insert(1);
        history.observe(&Event::Closed { round, report, duration, spent }, Instant::now());
        assert_eq!((history.workers()[1].lies, history.workers()[1].last_lie), (1, Some(6)));
        assert_eq!(history.lied_lately(1), 1);
    }

    #[test]
    fn who_left_left_for_the_first_reason_that_was_heard_until_it_is_back() {
        let mut history = History::new(1);
        let now = Instant::now();
        history.observe(&Event::Joined { worker: 0, round: 0 }, now);
        history.observe(&Event::NotReading { worker: 0 }, now);
        history.observe(&Event::Left { worker: 0, why: Disconnect::Closed }, now);
        assert_eq!(history.workers()[0].left.as_deref(), Some("it did not take its update"));
        history.observe(&closed(0, &[], &[0]), now);
        assert_eq!(history.workers()[0].absences, 1);
        history.observe(&Event::Joined { worker: 0, round: 1 }, now);
        assert_eq!(history.workers()[0].left, None);
        history.observe(&Event::Joined { worker: 9, round: 1 }, now);
    }
}
