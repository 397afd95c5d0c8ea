//! How the daemon is, as one document: what `/status` answers, and what the status page and `solon status` show.
//!
//! It is made anew for each question, from the [`History`], the board and what is fixed. `document` has its fields, `words` says
//! it in sentences. A field that changes its meaning raises [`VERSION`].

mod document;
#[cfg(test)]
pub(super) mod tests;
mod words;

use std::time::Instant;

use super::config::Config;
use super::history::{Closed, History, Past};
use super::serve::{Daemon, push_words};
use crate::code::Rows;
use crate::pipeline::{Board, Counter, Shape, WorkerCount};
use crate::wire::{RoundOutcome, WorkerSet};

pub use document::{Group, Job, Liar, Round, State, Status, Totals, VERSION, Worker};
pub use words::{Weight, span};

/// Groups without workers enough that are named one by one.
const NOTES: usize = 4;

/// What of the document is fixed once the daemon has started.
#[derive(Debug)]
pub struct Fixed {
    start: Instant,
    address: String,
    rdma: String,
    push: String,
    job: Job,
    shape: Shape,
}

/// Why a daemon is not alive, or not ready; both empty if all is well.
#[derive(Debug, Default)]
pub struct Health {
    /// A reactor hangs.
    pub stuck: Option<String>,
    /// It is asked to stop.
    pub stopping: bool,
}

impl Health {
    /// Why workers should not come now.
    pub fn why_not(&self) -> Vec<String> {
        let stopping = self.stopping.then(|| "stopping: the round that has begun ends first".to_owned());
        self.stuck.iter().cloned().chain(stopping).collect()
    }
}

impl Fixed {
    /// Of a daemon that was started with this configuration.
    pub fn new(config: &Config, daemon: &Daemon, start: Instant) -> Fixed {
        let plan = &daemon.job().plan;
        let parameters = &plan.parameters;
        Fixed {
            start,
            address: daemon.address().to_string(),
            rdma: daemon.rdma().to_owned(),
            push: push_words(config),
            job: Job {
                name: config.job.name.clone(),
                rule: config.job.rule.name().into(),
                workers: parameters.workers(),
                groups: parameters.groups(),
                redundancy: parameters.redundancy(),
                adversaries: daemon.job().shape().adversaries,
                stragglers: daemon.job().stragglers(),
                compression: parameters.compression(),
                dimension: config.job.dimension,
                chunks: plan.layout.chunks(),
                deadline_seconds: daemon.job().deadline().as_secs_f64(),
            },
            shape: daemon.job().shape(),
        }
    }

    /// The groups that have too few workers for a round to be decoded, in words.
    pub fn notes(&self, board: &Board) -> Vec<String> {
        let Shape { words, rows, needed, .. } = self.shape;
        if words < self.job.groups {
            // A rule combines all of them.
            let connected: usize = (0..self.job.groups).map(|group| board.connected(group).count()).sum();
            let few =
                || format!("{connected} of {rows} workers are there, and the rule {} needs {needed}", self.job.rule);
            return (connected < needed).then(few).into_iter().collect();
        }
        let few = |group: usize| {
            let connected = board.connected(group).count();
            (connected < needed).then(|| {
                format!("group {group} has {connected} of {rows} workers, and a round is decoded when {needed} agree")
            })
        };
        let mut notes: Vec<String> = (0..self.job.groups).filter_map(few).take(NOTES + 1).collect();
        if notes.len() > NOTES {
            notes[NOTES] = "and further groups have too few".into();
        }
        notes
    }

    /// The document.
    pub fn status(&self, board: &Board, history: &History, health: &Health, now: Instant) -> Status {
        let ago = |then: Instant| now.saturating_duration_since(then).as_secs_f64();
        let counted = |counter| board.counted(counter);
        let [bytes_received, bytes_sent] = board.bytes();
        let shards = |worker| board.measured().of_worker(WorkerCount::Accepted, worker);
        Status {
            version: VERSION,
            solond: env!("CARGO_PKG_VERSION").into(),
            alive: health.stuck.is_none(),
            ready: health.stuck.is_none() && !health.stopping,
            why_not: health.why_not(),
            notes: self.notes(board),
            uptime_seconds: ago(self.start),
            address: self.address.clone(),
            rdma: self.rdma.clone(),
            push: self.push.clone(),
            job: self.job.clone(),
            next_round: board.closed(),
            liars: liars(history),
            groups: (0..self.job.groups)
                .map(|group| self.group(group, board.connected(group), shards, history, now))
                .collect(),
            rounds: history.rounds().map(|closed| round(closed, ago(closed.at))).collect(),
            totals: Totals {
                rounds_complete: counted(Counter::RoundsComplete),
                rounds_undecodable: counted(Counter::RoundsUndecodable),
                lies: counted(Counter::Lies),
                shards_accepted: counted(Counter::ShardsAccepted),
                shards_corrupt: counted(Counter::ShardsCorrupt),
                violations: counted(Counter::Violations),
                rdma_sessions: counted(Counter::RdmaSessions),
                bytes_received,
                bytes_sent,
            },
        }
    }

    fn group(
        &self,
        group: usize,
        connected: Rows,
        shards: impl Fn(usize) -> u64,
        history: &History,
        now: Instant,
    ) -> Group {
        let one = |row: usize| {
            let worker = group * self.job.redundancy + row;
            let past = &history.workers()[worker];
            Worker {
                worker,
                state: state(worker, connected.contains(row), past, history),
                connected: connected.contains(row),
                left: past.left.clone().filter(|_| !connected.contains(row)),
                seen_seconds_ago: past.seen.map(|seen| now.saturating_duration_since(seen).as_secs_f64()),
                shards: shards(worker),
                lies: past.lies,
                last_lie_round: past.last_lie,
                absences: past.absences,
                late: past.late,
                bad_carrier: past.bad_carrier,
            }
        };
        let workers = (0..self.job.redundancy).map(one).collect();
        // Where a rule combines all workers, each is a group of its own.
        let needed = if self.shape.words < self.job.groups { 1 } else { self.shape.needed };
        Group { group, connected: connected.count(), needed, workers }
    }
}

fn state(worker: usize, connected: bool, past: &Past, history: &History) -> State {
    let last = history.rounds().next_back().map(|closed| &closed.report);
    // Who joined since then could not take part.
    let took_part = past.joined.is_some_and(|joined| history.rounds().next_back().is_some_and(|last| joined < last.at));
    let is_in =
        |set: fn(&crate::wire::Report) -> &WorkerSet| took_part && last.is_some_and(|r| set(r).contains(worker));
    match connected {
        _ if history.lied_lately(worker) > 0 => State::Lied,
        false if past.seen.is_none() => State::Never,
        false => State::Gone,
        true if is_in(|report| &report.absent) => State::Absent,
        true if is_in(|report| &report.late) => State::Late,
        true => State::Ok,
    }
}

/// The latest first.
fn liars(history: &History) -> Vec<Liar> {
    let one = |(worker, past): (usize, &Past)| Liar {
        worker,
        lies: past.lies,
        lately: history.lied_lately(worker),
        last_lie_round: past.last_lie,
    };
    let mut liars: Vec<Liar> =
        history.workers().iter().enumerate().filter(|(_, past)| past.lies > 0).map(one).collect();
    liars.sort_by_key(|liar| std::cmp::Reverse(liar.last_lie_round));
    liars
}

fn round(closed: &Closed, seconds_ago: f64) -> Round {
    let list = |workers: &WorkerSet| workers.iter().collect();
    // Not finite is as far off as can be, and JSON has no word for it.
    let ratio = |ratio: f32| f64::from(ratio.min(f32::MAX));
    let Closed { round, report, duration, .. } = closed;
    Round {
        round: *round,
        complete: report.outcome == RoundOutcome::Complete,
        why_not: match report.outcome {
            RoundOutcome::Complete => None,
            RoundOutcome::Undecodable { group, chunk, reason } => {
                Some(format!("group {group}, chunk {chunk}: {reason}"))
            }
        },
        seconds: duration.as_secs_f64(),
        seconds_ago,
        residual: ratio(report.residual_ratio),
        received: ratio(report.received_ratio),
        liars: list(&report.liars),
        late_liars: list(&report.late_liars),
        absent: list(&report.absent),
        late: list(&report.late),
    }
}
