//! What is kept of a run: three legs, a record per step, and the verdict over them.
//!
//! Everything that is shown, on the terminal, as JSON or on the page, is computed from these records and nothing else.
//! Steps and rounds are counted from 1 here, workers from 0 as everywhere. Numbers that liars can make infinite are
//! `Option`s: JSON has no NaN.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::code::Precision;

/// Largest relative difference between final weights at which two runs count as the same. Rounding differs with the
/// order of summation and grows over the steps; a lie that gets through is larger by orders of magnitude.
pub const SAME_WEIGHTS: f64 = 1e-5;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Workers in the job, P.
    pub workers: usize,
    /// Workers per group in the leg with Solon, r.
    pub redundancy: usize,
    /// How the numbers of shards stood on the wire in that leg; rounding to 16 bits is another rounding.
    #[serde(default)]
    pub precision: Precision,
    /// How those of updates did.
    #[serde(default)]
    pub update_precision: Precision,
    /// Steps each leg is to take.
    pub steps: u64,
    /// What the liars do, as a name in settings.
    pub attack: String,
    /// The same as the end of a sentence: `sends zeros`.
    pub attack_description: String,
    /// The workers that lie in the attacked legs, in order.
    pub liars: Vec<usize>,
    /// What else was set, to be shown as a table.
    pub settings: Vec<Setting>,
    /// The legs that were run or begun, in order.
    pub legs: Vec<Leg>,
}

/// One line of the table of settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// What was set.
    pub name: String,
    /// To what, with its unit.
    pub value: String,
}

/// Which of the three runs a leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LegKind {
    /// Nobody lies; the updates are means.
    HonestMean,
    /// Liars lie; the updates are means.
    AttackedMean,
    /// The same liars lie; the updates are decoded.
    AttackedSolon,
}

/// One leg: a training run over the same seeds and batches as the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    /// Which leg it is.
    pub kind: LegKind,
    /// A record per step taken, in order.
    pub steps: Vec<Step>,
    /// Distance of the final weights from those of the honest leg, relative to these.
    pub weights_difference: Option<f64>,
    /// Why the leg ended early, if it did: `undecodable at step 7`.
    pub stopped: Option<String>,
    /// Workers whose shards and updates travelled by RDMA to the end.
    #[serde(default)]
    pub by_rdma: usize,
    /// First half of the BLAKE3 hash of the final weights, which all honest workers have.
    #[serde(default)]
    pub weights_digest: Option<String>,
}

/// What one step of a leg left behind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Number of the step, from 1.
    pub step: u64,
    /// Part of the test samples that are right after the step; absent if not judged.
    pub accuracy: Option<f64>,
    /// Cross-entropy on the test samples; absent if not judged or not finite.
    pub loss: Option<f64>,
    /// Wall-clock time of the step.
    pub ms: f64,
    /// Bytes that all workers sent.
    pub bytes_up: u64,
    /// Bytes that all workers received.
    pub bytes_down: u64,
    /// Largest residual of what the workers sent, before anything was corrected.
    pub residual_received: Option<f64>,
    /// Largest residual of the rows that were decoded.
    pub residual: Option<f64>,
    /// The tolerance that residuals are compared with.
    pub tolerance: Option<f64>,
    /// Workers named as liars, in order.
    pub liars: Vec<usize>,
    /// Workers whose shards were missing, in order.
    pub absent: Vec<usize>,
}

/// A worker that was named as a liar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The worker.
    pub worker: usize,
    /// The first step it was named in.
    pub first_step: u64,
    /// In how many steps it was named.
    pub steps: u64,
}

/// What to conclude from a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Did the attacked leg with Solon come out as the honest leg did, without naming anybody honest?
    pub passed: bool,
    /// The same in a few sentences, with numbers.
    pub lines: Vec<String>,
}

impl LegKind {
    /// All legs, in the order they are run.
    pub const ALL: [LegKind; 3] = [LegKind::HonestMean, LegKind::AttackedMean, LegKind::AttackedSolon];

    /// A few words for a person.
    pub fn label(self) -> &'static str {
        match self {
            LegKind::HonestMean => "mean, honest",
            LegKind::AttackedMean => "mean, attacked",
            LegKind::AttackedSolon => "Solon, attacked",
        }
    }
}

impl fmt::Display for LegKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.label())
    }
}

impl Leg {
    /// A leg that has not begun.
    pub fn new(kind: LegKind) -> Leg {
        Leg { kind, steps: Vec::new(), weights_difference: None, stopped: None, by_rdma: 0, weights_digest: None }
    }

    /// The accuracy last measured.
    pub fn accuracy(&self) -> Option<f64> {
        self.steps.iter().rev().find_map(|step| step.accuracy)
    }

    /// Every worker named as a liar in any step, by worker.
    pub fn named(&self) -> Vec<Named> {
        let mut named: Vec<Named> = Vec::new();
        for step in &self.steps {
            for &worker in &step.liars {
                match named.binary_search_by_key(&worker, |named| named.worker) {
                    Ok(index) => named[index].steps += 1,
                    Err(index) => named.insert(index, Named { worker, first_step: step.step, steps: 1 }),
                }
            }
        }
        named
    }

    /// The mean over the steps of what `value` says of each; 0 if there is none.
    pub fn mean(&self, value: impl Fn(&Step) -> f64) -> f64 {
        self.steps.iter().map(value).sum::<f64>() / self.steps.len().max(1) as f64
    }
}

impl Report {
    /// The leg of that kind, if it was begun.
    pub fn leg(&self, kind: LegKind) -> Option<&Leg> {
        self.legs.iter().find(|leg| leg.kind == kind)
    }

    /// What to conclude. A run without all of its legs does not pass.
    pub fn verdict(&self) -> Verdict {
        let lie = match self.liars.as_slice() {
            [] => format!("All {} workers are honest.", self.workers),
            [one] => format!("1 of {} workers lies ({one}): it {}.", self.workers, self.attack_description),
            many => {
                let count = many.len();
                format!("{count} of {} workers lie ({}): each {}.", self.workers, list(many), self.attack_description)
            }
        };
        let mut lines = vec![lie];
        lines.extend(self.legs.iter().map(Leg::sentence));
        let solon = self.leg(LegKind::AttackedSolon).filter(|leg| !leg.steps.is_empty());
        lines.extend(solon.map(|leg| self.naming(&leg.named())));
        let by_rdma = solon.filter(|leg| leg.by_rdma > 0);
        lines.extend(by_rdma.map(|leg| {
            let digest = leg.weights_digest.as_deref().unwrap_or("-");
            let workers = leg.by_rdma;
            format!("{workers} workers of that run came by RDMA; the digest of its weights is {digest}: compare with --transport tcp.")
        }));
        let complete = LegKind::ALL.iter().all(|&kind| self.leg(kind).is_some_and(|leg| !leg.steps.is_empty()));
        let rounded = [self.precision, self.update_precision].into_iter().filter(|it| *it != Precision::F32);
        let same = SAME_WEIGHTS + rounded.map(Precision::unit_roundoff).sum::<f64>();
        let passed = complete
            && self.leg(LegKind::HonestMean).is_some_and(|leg| leg.stopped.is_none())
            && solon.is_some_and(|leg| {
                leg.stopped.is_none()
                    && leg.weights_difference.is_some_and(|difference| difference <= same)
                    && leg.named().iter().all(|named| self.liars.contains(&named.worker))
            });
        let undecodable = self.leg(LegKind::AttackedSolon).and_then(|leg| leg.stopped.as_ref());
        lines.push(match (passed, complete) {
            _ if undecodable.is_some_and(|why| why.starts_with("undecodable")) => {
                "More went wrong than this code corrects: Solon stopped, and nothing wrong was applied.".into()
            }
            (true, _) => "Solon's run is the honest run up to rounding.".into(),
            (false, true) => "Solon's run is NOT the honest run, or somebody honest was named.".into(),
            (false, false) => "The run is incomplete.".into(),
        });
        Verdict { passed, lines }
    }

    fn naming(&self, named: &[Named]) -> String {
        let (liars, honest): (Vec<&Named>, Vec<&Named>) =
            named.iter().partition(|one| self.liars.contains(&one.worker));
        let workers = |of: &[&Named]| list(&of.iter().map(|named| named.worker).collect::<Vec<_>>());
        let caught = match (self.liars.len(), liars.as_slice()) {
            (0, []) => "Nobody was named".into(),
            (all, []) => format!("None of the {all} liars was named"),
            (all, some) => {
                let last = some.iter().map(|named| named.first_step).max().unwrap_or(0);
                let whom = if some.len() == all {
                    "Every liar was named".into()
                } else {
                    format!("{} of {all} liars were named ({})", some.len(), workers(some))
                };
                format!("{whom} by step {last}")
            }
        };
        match honest.as_slice() {
            [] => format!("{caught}, and nobody honest."),
            some => format!("{caught}; HONEST WORKERS NAMED: {}.", workers(some)),
        }
    }
}

impl Leg {
    fn sentence(&self) -> String {
        let name = match self.kind {
            LegKind::HonestMean => "Plain mean without liars",
            LegKind::AttackedMean => "Plain mean with them",
            LegKind::AttackedSolon => "Solon with them",
        };
        let accuracy = self.accuracy().map_or("not judged".into(), |accuracy| format!("{} right", percent(accuracy)));
        let mut sentence = format!("{name}: {accuracy} after {} steps", self.steps.len());
        match self.weights_difference {
            Some(difference) if self.kind == LegKind::AttackedSolon => {
                sentence += &format!(", weights within {difference:.1e} of the honest ones");
            }
            _ => {}
        }
        if let Some(stopped) = &self.stopped {
            sentence += &format!(", then stopped: {stopped}");
        }
        sentence + "."
    }
}

/// `0.9611` as `96.1 %`.
pub(super) fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

/// `[1, 4]` as `1, 4`.
pub(super) fn list(workers: &[usize]) -> String {
    workers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// A run with made-up numbers, for tests of what shows it.
#[cfg(test)]
pub(super) fn made_up() -> Report {
    let liars = vec![1, 4, 8, 11];
    let legs = LegKind::ALL.map(|kind| {
        let steps = (1..=120).map(|step| {
            let learned =
                0.961 * (1.0 - (-(step as f64) / 14.0).exp()) + 0.01 * (step as f64 * 1.7).sin() / step as f64;
            let wobble = (step as f64 * 0.9).sin();
            let solon = kind == LegKind::AttackedSolon;
            Step {
                step,
                accuracy: Some(if kind == LegKind::AttackedMean { 0.1 + 0.02 * wobble } else { learned }),
                loss: (kind != LegKind::AttackedMean).then_some(2.3 - 2.2 * learned),
                ms: 3.0 + wobble,
                bytes_up: if solon { 115_440 } else { 230_880 },
                bytes_down: 230_880,
                residual_received: solon.then_some(0.4 + 0.1 * wobble),
                residual: solon.then_some(4e-8 + 1e-8 * wobble),
                tolerance: solon.then_some(4.4e-7),
                liars: if !solon {
                    vec![]
                } else if step < 9 {
                    vec![1, 4, 8]
                } else {
                    liars.clone()
                },
                absent: if solon && (40..52).contains(&step) { vec![6] } else { vec![] },
            }
        });
        let weights_difference = match kind {
            LegKind::HonestMean => Some(0.0),
            LegKind::AttackedMean => None,
            LegKind::AttackedSolon => Some(3.1e-6),
        };
        Leg { steps: steps.collect(), weights_difference, ..Leg::new(kind) }
    });
    let setting = |name: &str, value: &str| Setting { name: name.into(), value: value.into() };
    Report {
        precision: Precision::F32,
        update_precision: Precision::F32,
        workers: 12,
        redundancy: 6,
        steps: 120,
        attack: "reverse".into(),
        attack_description: "sends -100 times its gradient".into(),
        liars,
        settings: vec![
            setting("data", "UCI optical digits, 1437 to train, 360 to test"),
            setting("workers", "12 processes in 2 groups of 6"),
            setting("code", "s = 2 liars per group, r_c = 2, e = 0"),
            setting("seed", "1"),
        ],
        legs: legs.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corrected_run_passes_and_says_who_lied() {
        let verdict = made_up().verdict();
        assert!(verdict.passed, "{verdict:?}");
        let text = verdict.lines.join("\n");
        assert!(text.starts_with("4 of 12 workers lie (1, 4, 8, 11): each sends -100 times its gradient."), "{text}");
        assert!(text.contains("Solon with them: 96.1 % right after 120 steps, weights within 3.1e-6"), "{text}");
        assert!(text.contains("Every liar was named by step 9, and nobody honest."), "{text}");
    }

    #[test]
    fn naming_somebody_honest_fails_the_run() {
        let mut report = made_up();
        report.legs[2].steps[50].liars = vec![0, 1];
        let verdict = report.verdict();
        assert!(!verdict.passed && verdict.lines.join("\n").contains("HONEST WORKERS NAMED: 0"), "{verdict:?}");
    }

    #[test]
    fn weights_that_differ_fail_the_run_and_so_do_weights_unknown() {
        for difference in [None, Some(2e-3), Some(f64::NAN)] {
            let mut report = made_up();
            report.legs[2].weights_difference = difference;
            assert!(!report.verdict().passed, "{difference:?}");
        }
    }

    #[test]
    fn a_stopped_or_missing_leg_fails_the_run_and_is_explained() {
        let mut report = made_up();
        report.legs[2].stopped = Some("undecodable at step 121".into());
        let verdict = report.verdict();
        assert!(!verdict.passed && verdict.lines.join("\n").contains("then stopped: undecodable at step 121"));
        report.legs.pop();
        assert_eq!(report.verdict().lines.last().unwrap(), "The run is incomplete.");
        report.legs.clear();
        assert!(!report.verdict().passed);
    }

    #[test]
    fn liars_that_change_nothing_need_not_be_named() {
        let mut report = made_up();
        report.legs[2].steps.iter_mut().for_each(|step| step.liars.clear());
        let verdict = report.verdict();
        assert!(verdict.passed && verdict.lines.join("\n").contains("None of the 4 liars was named"), "{verdict:?}");
    }

    #[test]
    fn named_counts_the_steps_of_each_worker() {
        let named = made_up().legs[2].named();
        assert_eq!(named[0], Named { worker: 1, first_step: 1, steps: 120 });
        assert_eq!(named[3], Named { worker: 11, first_step: 9, steps: 112 });
    }

    #[test]
    fn a_report_survives_json() {
        // Numbers that decimal digits hold exactly: serde_json reads others to within a unit in the last place.
        let mut report = made_up();
        report.legs.iter_mut().for_each(|leg| leg.steps = vec![Step { accuracy: Some(0.5), ..Step::default() }]);
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains("\"kind\":\"attacked-solon\""));
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
