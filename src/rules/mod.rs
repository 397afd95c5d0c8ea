//! Robust rules for uncoded gradients: what to use where no two workers compute the same, and what Solon is compared with.
//!
//! All of them guess, each in its own way: what most workers say is taken for right. Solon's own rule (`code`) does not guess, and is not
//! here. A rule works on a stream of chunks, in at most two passes:
//!
//! ```text
//! rows of a chunk ──survey──> inner products of all pairs ──choose──> which rows, and their shares
//! rows of a chunk ──────────────────────combine──────────────────────────> its update
//! ```
//!
//! Rules that look at one coordinate at a time (median, trimmed mean, signum) need no survey. Those that look at whole gradients
//! (Krum, Multi-Krum, Bulyan, geometric median) need the inner products and nothing else: distances follow from them, and so do the
//! weights of the geometric median, which is a mean with weights.
//!
//! [`mod@reference`] defines each in f64 with no thought of speed. A gradient with a number that is not finite is infinitely far from all
//! others, and in a coordinate NaN counts as the largest number.
//!
//! [`cyclic`] is not one of them: a code of others, to compare with.

mod columns;
pub mod cyclic;
pub mod gram;
pub mod kernels;
pub mod reference;
pub mod sign;
mod steady;
#[cfg(test)]
mod tests;

pub use steady::{ROWS_MAX, Steady};

use std::fmt;
use std::str::FromStr;

use gram::Gram;

/// How gradients of workers that all compute something else become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The mean: believes everybody.
    Mean,
    /// The middle of each coordinate; of an even number of workers the mean of both middles.
    Median,
    /// Per coordinate the mean without the f least and the f greatest (arXiv 1803.01498).
    TrimmedMean,
    /// The gradient with the least sum of squared distances to its P - f - 2 nearest (NeurIPS 2017, "Machine Learning with Adversaries").
    Krum,
    /// The mean of the P - f - 2 best by Krum's sums.
    MultiKrum,
    /// P - 2f gradients chosen by Krum one after another, then per coordinate the mean of the P - 4f nearest to their median
    /// (arXiv 1802.07927).
    Bulyan,
    /// The point with the least sum of distances, by Weiszfeld's iteration, smoothed (arXiv 1912.13445).
    GeometricMedian,
    /// The sign that most have, per coordinate (arXiv 1810.05291).
    Signum,
    /// Draco's [`cyclic`] code, which does not guess: a sum of what workers combined, by [`cyclic::Decoder`]. [`Round`] and [`Steady`] do not
    /// know it.
    Cyclic,
}

/// So many workers cannot follow the rule against so many liars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule} against {adversaries} liars needs at least {needed} workers ({bound}); there are {workers}")]
pub struct TooFew {
    /// The rule.
    pub rule: Rule,
    /// Workers there are.
    pub workers: usize,
    /// Liars among them.
    pub adversaries: usize,
    /// Workers it takes.
    pub needed: usize,
    /// The bound, as a formula.
    pub bound: &'static str,
}

/// There is no rule of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a rule: choose one of {}", Rule::all().map(Rule::name).collect::<Vec<_>>().join(", "))]
pub struct UnknownRule {
    /// What was asked for.
    pub name: String,
}

impl Rule {
    /// Every rule that guesses. Their order is that of their numbers on the wire: new ones come last.
    pub const ALL: [Rule; 8] = [
        Rule::Mean,
        Rule::Median,
        Rule::TrimmedMean,
        Rule::Krum,
        Rule::MultiKrum,
        Rule::Bulyan,
        Rule::GeometricMedian,
        Rule::Signum,
    ];

    /// Those, and the one that does not guess.
    pub fn all() -> impl Iterator<Item = Rule> {
        Rule::ALL.into_iter().chain([Rule::Cyclic])
    }

    /// Its name in settings, as it is parsed and printed.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// The fewest workers that it takes against `adversaries` liars, and the bound as a formula. The mean withstands none, whatever
    /// their number is.
    pub fn needs(self, adversaries: usize) -> (usize, &'static str) {
        let (_, factor, more, bound, _) = self.entry();
        (factor * adversaries + more, bound)
    }

    /// What it does, in a line of help.
    pub fn help(self) -> &'static str {
        self.entry().4
    }

    /// The table of rules: name, the bound P >= factor x f + more, and help.
    fn entry(self) -> (&'static str, usize, usize, &'static str, &'static str) {
        match self {
            Rule::Mean => ("mean", 0, 1, "P >= 1", "Plain sum without any check"),
            Rule::Median => ("median", 2, 1, "P >= 2 f + 1", "The middle of each coordinate"),
            Rule::TrimmedMean => {
                let help = "Per coordinate the mean without the f least and the f greatest";
                ("trimmed-mean", 2, 1, "P >= 2 f + 1", help)
            }
            Rule::Krum => ("krum", 2, 3, "P >= 2 f + 3", "The gradient that is nearest to most others"),
            Rule::MultiKrum => ("multi-krum", 2, 3, "P >= 2 f + 3", "The mean of the best by Krum's sums"),
            Rule::Bulyan => {
                let help = "Krum, then per coordinate the mean of those nearest to the median";
                ("bulyan", 4, 3, "P >= 4 f + 3", help)
            }
            Rule::GeometricMedian => {
                ("geometric-median", 2, 1, "P >= 2 f + 1", "The point with the least sum of distances")
            }
            Rule::Signum => {
                ("signum", 2, 1, "P >= 2 f + 1", "Per coordinate the sign that most have, one bit each way")
            }
            Rule::Cyclic => {
                let help = "Draco's cyclic code, whose workers send complex numbers: for comparison in `solon lab`";
                ("cyclic", 2, 1, "P >= 2 f + 1", help)
            }
        }
    }

    /// Must all gradients be surveyed before the first can be combined?
    pub fn surveys(self) -> bool {
        matches!(self, Rule::Krum | Rule::MultiKrum | Rule::Bulyan | Rule::GeometricMedian)
    }

    /// Can so many workers follow it against so many liars?
    ///
    /// # Errors
    /// If they are too few: with the bound.
    pub fn check(self, workers: usize, adversaries: usize) -> Result<(), TooFew> {
        let (needed, bound) = self.needs(adversaries);
        let enough = workers >= needed;
        if enough { Ok(()) } else { Err(TooFew { rule: self, workers, adversaries, needed, bound }) }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(name: &str) -> Result<Rule, UnknownRule> {
        Rule::all().find(|rule| rule.name() == name).ok_or_else(|| UnknownRule { name: name.into() })
    }
}

/// One round of a rule over gradients that are all there, none of them missing: [`Steady`] with its survey.
#[derive(Debug)]
pub struct Round {
    steady: Steady,
    /// Of the weights.
    sum: f64,
    workers: usize,
    gram: Option<Gram>,
}

impl Round {
    /// A round among as many workers as there are `weights`, with the samples behind each one's gradient. They come from the job, not from
    /// the worker, or a liar would weigh as much as it likes. A vote of signum has none.
    ///
    /// # Errors
    /// If there are too few workers.
    ///
    /// # Panics
    /// As for [`Steady::new`].
    pub fn new(rule: Rule, adversaries: usize, weights: &[f64]) -> Result<Round, TooFew> {
        let steady = Steady::new(rule, adversaries, weights, weights.len())?;
        let gram = rule.surveys().then(|| Gram::new(weights.len()));
        Ok(Round { steady, sum: weights.iter().sum(), workers: weights.len(), gram })
    }

    /// The first pass: every worker's part of a chunk, all of one length. Each chunk once, in any order.
    ///
    /// # Panics
    /// If the rows are not one per worker, or differ in length.
    pub fn survey(&mut self, rows: &[&[f32]]) {
        assert_eq!(rows.len(), self.workers, "a row per worker");
        if let Some(gram) = &mut self.gram {
            gram.add(rows);
        }
    }

    /// Looks at what was surveyed: what the second pass does.
    pub fn choose(&mut self) {
        let Round { steady, workers, gram, .. } = self;
        steady.choose(0..*workers, |i, j| gram.as_ref().map_or(0.0, |gram| gram.product(i, j)));
    }

    /// The second pass: the rule of a chunk, on the scale of a mean over samples.
    ///
    /// # Panics
    /// If nothing was chosen, or a row is shorter than `out`.
    pub fn combine(&mut self, rows: &[&[f32]], out: &mut [f32]) {
        match self.steady.rule() {
            Rule::Signum => sign::majority(rows, out),
            _ => self.steady.combine(rows, (1.0 / self.sum) as f32, out),
        }
    }

    /// Both passes over gradients that are there as a whole.
    ///
    /// # Errors
    /// As for [`Round::new`].
    ///
    /// # Panics
    /// As for [`Round::survey`], and if `out` has another length.
    pub fn whole(rule: Rule, adversaries: usize, rows: &[&[f32]], out: &mut [f32]) -> Result<(), TooFew> {
        let mut round = Round::new(rule, adversaries, &vec![1.0; rows.len()])?;
        round.survey(rows);
        round.choose();
        round.combine(rows, out);
        Ok(())
    }
}
