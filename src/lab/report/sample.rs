//! Made-up records, for tests.

use super::variants::Experiment;
use crate::lab::record::{
    About, Manifest, MomentumAt, Outcome, Picture, Push, Run, Settings, Shaping, Step, Who, place,
};

/// What is said about runs.
pub(super) fn about(runs: &[Run]) -> About {
    About {
        name: "sample".into(),
        title: "Made up <&>".into(),
        text: "Not measured.".into(),
        figures: vec![
            Picture::AccuracyTable,
            Picture::AccuracyBySteps,
            Picture::AccuracyByTime,
            Picture::StepTime,
            Picture::SpeedUp,
            Picture::Crossover,
        ],
        targets: vec![0.8],
        runs: runs.iter().map(|run| place(&run.manifest.variant, run.manifest.seed)).collect(),
    }
}

/// An experiment of these runs.
pub(super) fn experiment(runs: Vec<Run>) -> Experiment {
    Experiment::new(about(&runs), runs)
}

/// A run that was judged after these seconds with these accuracies.
pub(super) fn timed(rule: &str, seed: u64, judged: &[(f64, f64)]) -> Run {
    let accuracy = judged.last().map(|&(_, accuracy)| accuracy);
    let mut made = run(rule, None, seed, 0.0);
    (made.outcome.accuracy, made.outcome.seconds) = (accuracy, judged.last().map_or(0.0, |&(seconds, _)| seconds));
    let step = |(index, &(seconds, accuracy)): (usize, &(f64, f64))| Step {
        seconds,
        accuracy: Some(accuracy),
        ..made.steps[0].clone().numbered(index as u64 + 1)
    };
    made.steps = judged.iter().enumerate().map(step).collect();
    made
}

impl Step {
    fn numbered(self, step: u64) -> Step {
        Step { step, ..self }
    }
}

/// A run of 40 steps of 14 ms that ends with this accuracy.
pub(super) fn run(rule: &str, attack: Option<&str>, seed: u64, accuracy: f64) -> Run {
    let coded = matches!(rule, "solon" | "draco");
    let compression = if rule == "solon" { 2 } else { 1 };
    let redundancy = if coded { compression + 4 } else { 1 };
    let settings = Settings {
        rule: rule.into(),
        data: "digits".into(),
        activation: Default::default(),
        hidden: 8,
        dimension: 100_000,
        batch: 120,
        rate: 0.1,
        momentum: 0.9,
        momentum_at: MomentumAt::Server,
        steps: 40,
        judge: 4,
        workers: 30,
        groups: 30 / redundancy,
        redundancy,
        adversaries: 2,
        stragglers: 0,
        compression,
        attack: attack.map(Into::into),
        liars: if attack.is_some() { 2 } else { 0 },
        who: Who::Fixed,
        link: Some(125e6),
        push: Push::Relay,
        gradient_time: None,
    };
    let manifest = Manifest {
        experiment: "sample".into(),
        variant: format!("{rule}-{}", attack.unwrap_or("none")),
        seed,
        settings,
        liars: vec![],
        reporter: 0,
        shaping: Shaping::Namespaces,
        samples: [1437, 360],
        version: "0.1.0".into(),
        build: String::new(),
        machine: "a machine, two cores".into(),
        began: 0,
    };
    let step = |step: u64| {
        let [compute_ms, encode_ms, wire_ms, locate_ms, decode_ms, push_ms, apply_ms] =
            [4.0, 0.5, 6.0, 0.25, 0.5, 2.0, 0.75];
        // Up, and then level: 1 - exp(-4 x).
        let part = (1.0 - (-4.0 * step as f64 / 40.0).exp()) / (1.0 - (-4f64).exp());
        Step {
            step,
            seconds: 0.014 * step as f64,
            step_ms: 14.0,
            compute_ms,
            encode_ms,
            wire_ms,
            locate_ms,
            decode_ms,
            push_ms,
            apply_ms,
            compute_busy_ms: 4.0,
            encode_busy_ms: 1.0,
            locate_busy_ms: 0.5,
            decode_busy_ms: 3.0,
            accuracy: (step == 1 || step.is_multiple_of(4)).then_some(0.1 + (accuracy - 0.1) * part),
            ..Step::default()
        }
    };
    let outcome = Outcome {
        stopped: None,
        accuracy: Some(accuracy),
        difference: None,
        seconds: 0.56,
        overruns: 0,
        bytes: [1_000_000, 2_000_000],
        daemon_cpu: 0.1,
        probed: Some([124e6, 123e6]),
    };
    Run { manifest, steps: (1..=40).map(step).collect(), outcome }
}
