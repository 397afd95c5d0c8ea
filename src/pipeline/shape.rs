//! Which workers make a word, and how many of them it takes.

use super::Robust;
use crate::code::{Parameters, Place};

/// Who stands where in the words of a job.
///
/// For a code that is what workers are told: a word of each group. A robust rule combines workers that are told to be groups of their
/// own, as each computes something else; for the pipeline they are the rows of one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Words of each chunk.
    pub words: usize,
    /// Workers of each word.
    pub rows: usize,
    /// How many of them may lie.
    pub adversaries: usize,
    /// Shards that it takes to try.
    pub needed: usize,
}

impl Shape {
    /// The shape of a job with these parameters, and this rule.
    pub fn of(parameters: &Parameters, robust: Option<&Robust>) -> Shape {
        match robust {
            None => Shape {
                words: parameters.groups(),
                rows: parameters.redundancy(),
                adversaries: parameters.adversaries(),
                needed: parameters.agreement(),
            },
            Some(robust) => Shape {
                words: 1,
                rows: parameters.workers(),
                adversaries: robust.adversaries,
                needed: parameters.workers() - robust.missing,
            },
        }
    }

    /// The word and the row in it of a worker.
    pub fn place(&self, worker: usize) -> Place {
        debug_assert!(worker < self.words * self.rows, "worker {worker} is not one of {}", self.words * self.rows);
        Place { group: worker / self.rows, row: worker % self.rows }
    }
}
