//! Where the numbers come from: the pipeline's board and stock, the reactors, and what was configured.

use std::ops::Range;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::code::Parameters;
use crate::daemon::config::{Config, PushWay};
use crate::daemon::serve::{Daemon, Seat, relay_of};
use crate::pipeline::{Board, Counter, Distribution, Handle, Job, Measure, Pulse, Stock, WorkerCount};
use crate::transport::rdma::Completions;

/// What part of a group's words [`Sources::noise`] is of.
const MOST: f64 = 0.99;

/// Everything that metrics are read from.
pub struct Sources {
    pub(super) job: Job,
    pub(super) pulses: Vec<Arc<Pulse>>,
    handle: Handle,
    seats: Vec<Seat>,
    completions: Option<Arc<Completions>>,
    /// Of the job: its name, rule, precisions, transport, and the way of its updates.
    words: [String; 6],
}

impl Sources {
    /// The sources of a daemon that was started with this configuration.
    pub fn new(config: &Config, daemon: &Daemon) -> Sources {
        let push = match (relay_of(config).is_ok(), config.push.way) {
            (false, _) | (_, PushWay::Direct) => "direct",
            (true, PushWay::Relay) => "relay",
            (true, PushWay::Auto) => "auto",
        };
        let words = [
            config.job.name.clone(),
            config.job.rule.name().into(),
            config.job.precision.to_string(),
            config.push.precision.to_string(),
            config.listen.transport.to_string(),
            push.into(),
        ];
        Sources {
            job: daemon.job().clone(),
            pulses: daemon.pulses().to_vec(),
            handle: daemon.handle().clone(),
            seats: daemon.seats().to_vec(),
            completions: daemon.completions(),
            words,
        }
    }

    pub(super) fn board(&self) -> &Board {
        &self.handle.board
    }

    pub(super) fn stock(&self) -> &Stock {
        &self.handle.stock
    }

    pub(super) fn count(&self, counter: Counter) -> u64 {
        self.board().counted(counter)
    }

    pub(super) fn measured(&self, measure: Measure) -> Distribution {
        self.board().measured().distribution(measure)
    }

    pub(super) fn parameters(&self) -> &Parameters {
        &self.job.plan.parameters
    }

    pub(super) fn job_words(&self) -> [&str; 6] {
        self.words.each_ref().map(String::as_str)
    }

    pub(super) fn groups(&self) -> Range<usize> {
        0..self.parameters().groups()
    }

    pub(super) fn workers(&self) -> Range<usize> {
        0..self.parameters().workers()
    }

    pub(super) fn of_worker(&self, what: WorkerCount, worker: usize) -> u64 {
        self.board().measured().of_worker(what, worker)
    }

    pub(super) fn connected(&self, worker: usize) -> u64 {
        let place = self.parameters().place(worker);
        u64::from(self.board().connected(place.group).contains(place.row))
    }

    /// Unix time; 0 if it never was.
    pub(super) fn last_seen(&self, worker: usize) -> f64 {
        let Some(seen) = self.board().last_seen(worker) else { return 0.0 };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(seen.elapsed()).as_secs_f64()
    }

    pub(super) fn noise(&self, group: usize) -> f64 {
        self.board().noise(group).quantile(MOST).unwrap_or(0.0)
    }

    pub(super) fn wakes(&self) -> u64 {
        self.handle.bells().iter().map(|bell| bell.wakes()).sum()
    }

    pub(super) fn completions(&self) -> [u64; Completions::STATUSES.len()] {
        self.completions.as_ref().map(|completions| completions.counted()).unwrap_or_default()
    }

    /// Index, core and stages of each reactor.
    pub(super) fn reactors(&self) -> impl Iterator<Item = [String; 3]> {
        self.seats.iter().enumerate().map(|(at, seat)| {
            let core = seat.core.map_or_else(|| "none".into(), |core| core.to_string());
            let stages: Vec<_> = seat.stages.iter().map(|stage| stage.name()).collect();
            [at.to_string(), core, stages.join("+")]
        })
    }
}
