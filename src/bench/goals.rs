//! The table of goals: what is wanted, what was measured, and whether that is enough. Other benchmarks add their rows as JSON.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cluster::{Cluster, Floors, Sample};
use super::figures::three_digits;
use super::rounds::{self, Effort, ratio};
use super::worker::Target;
use super::{BenchError, Change, Job, Linger, Trouble, tiny};
use crate::code::{Parameters, Precision};
use crate::daemon::config::Idle;

/// Where enough begins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The figure must not be larger.
    AtMost(f64),
    /// The figure must not be smaller.
    AtLeast(f64),
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// Which goal, as `G4`. Several rows may belong to one.
    pub id: String,
    /// What is measured, with the sizes.
    pub what: String,
    /// What is wanted, in the unit of the row.
    pub bound: Bound,
    /// What was measured.
    pub measured: f64,
    /// The unit: `x` for a ratio.
    pub unit: String,
}

impl Goal {
    /// Is it reached?
    pub fn passes(&self) -> bool {
        match self.bound {
            Bound::AtMost(bound) => self.measured <= bound,
            Bound::AtLeast(bound) => self.measured >= bound,
        }
    }

    /// Measured over wanted.
    pub fn ratio(&self) -> Option<f64> {
        let (Bound::AtMost(bound) | Bound::AtLeast(bound)) = self.bound;
        (bound != 0.0).then(|| self.measured / bound)
    }
}

/// Rows in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Goals(pub Vec<Goal>);

impl Goals {
    /// Reads rows that another benchmark wrote: a JSON array of [`Goal`].
    ///
    /// # Errors
    /// If the file cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Goals, BenchError> {
        let file = |problem: String| BenchError::File { path: path.into(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| file(format!("cannot be read: {error}")))?;
        serde_json::from_str(&text).map_err(|error| {
            let expected = r#"[{"id": "G1", "what": "..", "bound": {"at_least": 0.9}, "measured": 0.91, "unit": "x"}]"#;
            file(format!("is no list of goals ({error}); expected {expected}"))
        })
    }

    /// Adds rows, and brings all into the order of their numbers.
    pub fn merge(&mut self, other: Goals) {
        self.0.extend(other.0);
        let number =
            |goal: &Goal| goal.id.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(u32::MAX);
        self.0.sort_by_key(number);
    }

    /// Are all reached?
    pub fn pass(&self) -> bool {
        self.0.iter().all(Goal::passes)
    }

    fn push(&mut self, id: &str, what: String, bound: f64, measured: f64, unit: &str) {
        let (id, unit) = (id.to_owned(), unit.to_owned());
        self.0.push(Goal { id, what, bound: Bound::AtMost(bound), measured, unit });
    }
}

impl fmt::Display for Goals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["goal", "what", "wanted", "measured", "ratio", "reached"].map(str::to_owned);
        let row = |goal: &Goal| {
            let wanted = match goal.bound {
                Bound::AtMost(bound) => format!("<= {} {}", bound, goal.unit),
                Bound::AtLeast(bound) => format!(">= {} {}", bound, goal.unit),
            };
            [
                goal.id.clone(),
                goal.what.clone(),
                wanted,
                format!("{} {}", three_digits(goal.measured), goal.unit),
                goal.ratio().map_or("-".into(), three_digits),
                if goal.passes() { "yes" } else { "no" }.into(),
            ]
        };
        let rows: Vec<[String; 6]> = std::iter::once(head).chain(self.0.iter().map(row)).collect();
        let widths: [usize; 6] =
            std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
        for (at, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
            writeln!(f, "| {} |", cells.join(" | "))?;
            if at == 0 {
                writeln!(f, "| {} |", widths.map(|width| "-".repeat(width)).join(" | "))?;
            }
        }
        let reached = self.0.iter().filter(|goal| goal.passes()).count();
        write!(f, "{reached} of {} reached", self.0.len())
    }
}

/// The goals' code for `workers` workers: s = 2 and r_c = 1, so that all shards are as large as the gradient.
fn job(workers: usize, dimension: usize, linger: Linger) -> Result<Job, BenchError> {
    let parameters = Parameters::new(workers / 5, 2, 0, 1)?;
    let (precision, idle) = (Precision::F32, Idle::Auto);
    Ok(Job { parameters, dimension, chunk_width: 16_384, precision, update_precision: precision, linger, idle })
}

/// What was measured, and what was not.
pub struct Measured {
    /// The rows.
    pub goals: Goals,
    /// Sizes that were left out, and why: their goals are not reached.
    pub left_out: Vec<String>,
}

/// Measures the goals that whole rounds can answer: G4, G5, G6, G9, and the page faults of G12. `quick` runs one small size of
/// each. `note` is told what is being measured.
///
/// # Errors
/// If something cannot be run.
pub fn measure(
    program: &Path,
    effort: &Effort,
    quick: bool,
    note: &mut dyn FnMut(&str),
) -> Result<Measured, BenchError> {
    let (mut goals, mut left_out) = (Goals::default(), Vec::new());
    let sizes: &[(usize, usize)] =
        if quick { &[(15, 20_000)] } else { &[(15, 1_000_000), (15, 11_000_000), (45, 1_000_000), (45, 11_000_000)] };
    for &(workers, dimension) in sizes {
        let size = format!("P={workers} d={dimension} r_c=1 s=2");
        note(&format!("G4: {size}"));
        // Every byte counts, as it does for the floor.
        let report = match rounds::measure(program, job(workers, dimension, Linger::All)?, &Trouble::none(), effort) {
            Err(error @ BenchError::Memory { .. }) => {
                left_out.push(format!("G4, {size}: {error}"));
                continue;
            }
            report => report?,
        };
        let what = format!("whole round / the same round, data dropped; {size}");
        goals.push("G4", what, 1.03, report.over_dropping.median(), "x");
        if !goals.0.iter().any(|goal| goal.id == "G12") {
            // The most of any repetition: none is allowed one.
            let faults = report.solon.minor_faults.spread().1 + report.solon.major_faults.spread().1;
            goals.push("G12", format!("page faults of the daemon per steady round; {size}"), 0.0, faults, "faults");
        }
    }
    let dimension = if quick { 20_000 } else { 1_000_000 };
    note("G5: liars");
    liars(program, job(15, dimension, Linger::All)?, effort, &mut goals)?;
    note("G6: absent workers");
    absent(program, job(15, dimension, Linger::Ms(0))?, effort, &mut goals)?;
    note("G9: tiny rounds");
    let report = tiny::measure(program, job(15, 1024, Linger::Ms(0))?, effort)?;
    let what = "round with d = 1024, P = 15, in busy-poll round trips".into();
    goals.push("G9", what, 12.0, report.round_trips.median(), "round trips");
    goals.merge(Goals::default());
    Ok(Measured { goals, left_out })
}

/// Rounds with liars against rounds without, of one daemon, interleaved. Both wait for all shards: with early decisions the honest
/// side would wait for any r_c + s workers and the other for certain ones, which is no matter of lies.
fn liars(program: &Path, job: Job, effort: &Effort, goals: &mut Goals) -> Result<(), BenchError> {
    let s = job.parameters.adversaries();
    let with = |liars, change| Trouble { liars, change, ..Trouble::none() };
    let variants = [with(0, Change::Round), with(s, Change::Round), with(s, Change::Chunk)];
    let mut cluster = Cluster::start(program, job, Floors::None, 0)?;
    let mut longest: f64 = 0.0;
    for variant in &variants {
        longest = longest.max(cluster.run(Target::Solon, 3, variant)?.seconds);
    }
    let rounds = effort.rounds(longest);
    let mut samples: [Vec<Sample>; 3] = Default::default();
    for _ in 0..effort.repetitions.max(1) {
        for (variant, samples) in variants.iter().zip(&mut samples) {
            samples.push(cluster.run(Target::Solon, rounds, variant)?);
        }
    }
    let [honest, round, chunk] = &samples;
    let over = |with: &[Sample]| ratio(with, honest, |sample| sample.seconds).median();
    let size = format!("P={} d={}, {s} per group", job.workers(), job.dimension);
    goals.push("G5", format!("round with liars, new ones every round / without; {size}"), 1.02, over(round), "x");
    goals.push("G5", format!("round with liars, new ones every chunk / without; {size}"), 1.3, over(chunk), "x");
    Ok(())
}

/// Rounds with workers that never answer against rounds without, each over the floor in which as many send nothing: who sends nothing
/// does not encode either, and where workers share the daemon's cores everybody else is faster for that alone.
fn absent(program: &Path, job: Job, effort: &Effort, goals: &mut Goals) -> Result<(), BenchError> {
    let s = job.parameters.adversaries();
    let over = |absent| {
        let trouble = Trouble { absent, ..Trouble::none() };
        Ok::<_, BenchError>(rounds::measure(program, job, &trouble, effort)?.over_dropping.median())
    };
    let measured = over(s)? / over(0)?;
    let size = format!("P={} d={}, {s} per group", job.workers(), job.dimension);
    let what = format!("round with workers that never answer / without, each over its floor; {size}");
    goals.push("G6", what, 1.02, measured, "x");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(id: &str, bound: Bound, measured: f64) -> Goal {
        Goal { id: id.into(), what: "it".into(), bound, measured, unit: "x".into() }
    }

    #[test]
    fn a_goal_is_reached_on_its_side_of_the_bound() {
        assert!(goal("G4", Bound::AtMost(1.03), 1.03).passes() && !goal("G4", Bound::AtMost(1.03), 1.04).passes());
        assert!(goal("G1", Bound::AtLeast(0.9), 0.9).passes() && !goal("G1", Bound::AtLeast(0.9), 0.89).passes());
        assert!(!goal("G1", Bound::AtLeast(0.9), f64::NAN).passes());
    }

    #[test]
    fn rows_of_others_are_merged_by_number() {
        let mut goals = Goals(vec![goal("G12", Bound::AtMost(0.0), 0.0), goal("G4", Bound::AtMost(1.03), 1.5)]);
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = r#"[{"id": "G1", "what": "decode", "bound": {"at_least": 0.9}, "measured": 0.91, "unit": "x"}]"#;
        std::fs::write(file.path(), text).unwrap();
        goals.merge(Goals::read(file.path()).unwrap());
        assert_eq!(goals.0.iter().map(|goal| &goal.id[..]).collect::<Vec<_>>(), ["G1", "G4", "G12"]);
        assert!(!goals.pass() && goals.to_string().ends_with("2 of 3 reached"), "{goals}");
        let text = serde_json::to_string(&goals).unwrap();
        assert_eq!(serde_json::from_str::<Goals>(&text).unwrap(), goals);
        std::fs::write(file.path(), "{}").unwrap();
        assert!(Goals::read(file.path()).unwrap_err().to_string().contains("expected [{"));
    }
}
