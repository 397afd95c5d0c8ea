//! What is fixed for the life of the daemon's job.

use std::sync::Arc;
use std::time::Duration;

use super::{Robust, Shape};
use crate::code::{Generator, Tolerance, Verify};
use crate::wire::{Plan, Resume};

/// Everything that is fixed for the life of the daemon's job.
#[derive(Clone, Debug)]
pub struct Job {
    /// What workers are told.
    pub plan: Plan,
    /// The generator that the plan names.
    pub generator: Arc<Generator>,
    /// Number of the job: a hash of its name.
    pub number: u64,
    /// The daemon's epoch: random, another one after every start.
    pub epoch: u64,
    /// Secret projections per shard.
    pub projections: usize,
    /// How words are checked in which nobody is known to lie.
    pub verify: Verify,
    /// How long to wait for further shards once r_c + s have come; zero decides at once.
    pub linger: Duration,
    /// A session that does not take what is sent to it for this long is ended.
    pub write_deadline: Duration,
    /// Update chunks that can be on their way to workers.
    pub updates: usize,
    /// Key of the secret projections: from the operating system, or a simulation's seed.
    pub secret: [u8; 32],
    /// Where a daemon before this one stopped.
    pub resume: Option<Resume>,
    /// How workers pass updates on to each other, if they do.
    pub relay: Option<Relay>,
    /// Who has to be there before the first round of all can begin.
    pub begin: Begin,
    /// How a rule combines workers that all compute something else; none for a code and for a plain mean.
    pub robust: Option<Robust>,
}

/// Who has to be there before a job's first round can begin. The line of each word is its help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Begin {
    /// Nobody is waited for
    Any,
    /// Every worker must have joined once
    All,
}

/// How workers pass updates on to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relay {
    /// A chunk of which nothing came for so long is fetched from the daemon.
    pub repair: Duration,
    /// Only while that is measured to be faster, and not by workers on the daemon's own machine, between which there is no link that it
    /// would spare; nor by those that come by RDMA, as they pass on by TCP.
    pub auto: bool,
}

/// Why a worker gets all updates from the daemon although others pass them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrelayed {
    /// Nobody knows where others reach it.
    #[error("nothing is known of where others reach it")]
    NoAddress,
    /// It is on the daemon's own machine.
    #[error("it is on this machine")]
    Local,
    /// Updates are written to its memory, which is faster than what workers pass on by TCP.
    #[error("it comes by RDMA, and workers pass on by TCP")]
    Rdma,
}

impl Job {
    /// Time from a round's begin to its end.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(u64::from(self.plan.deadline_ms))
    }

    /// How far honest shards may be from a code word.
    pub(super) fn tolerance(&self) -> Tolerance {
        Tolerance::of(self.plan.tolerance, self.plan.precision, &self.plan.parameters)
    }

    /// Which workers make a word.
    pub fn shape(&self) -> Shape {
        Shape::of(&self.plan.parameters, self.robust.as_ref())
    }

    /// Absent workers that a round goes on without, of each group or of all that a rule combines.
    pub fn stragglers(&self) -> usize {
        self.robust.as_ref().map_or(self.plan.parameters.stragglers(), |robust| robust.missing)
    }

    /// Are all gradients of a round looked at before the first chunk is combined?
    pub fn surveys(&self) -> bool {
        self.robust.as_ref().is_some_and(|robust| robust.rule.surveys())
    }

    /// The first round that this daemon can close.
    pub fn first_round(&self) -> u64 {
        self.resume.map_or(0, |resume| resume.round.saturating_add(1))
    }
}
