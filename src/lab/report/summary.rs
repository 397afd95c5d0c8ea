//! Summaries as CSV: all that the tables and plots show, as plain numbers. What is not there is an empty field, or `missing`.

use super::bars::{BUSY, WALL};
use super::crossover::points;
use super::labels::way;
use super::robust::{Fate, fate};
use super::speed::{Against, compare, contests};
use super::statistics::{Estimate, deviation, mean};
use super::variants::{Experiment, Job};
use crate::lab::record::Run;

/// Names and contents.
pub(super) fn files(experiments: &[Experiment]) -> [(String, String); 4] {
    [
        ("runs", runs(experiments)),
        ("variants", variants(experiments)),
        ("speed", speed(experiments)),
        ("crossover", crossover(experiments)),
    ]
    .map(|(name, text)| (format!("{name}.csv"), text))
}

/// The lines of a file; the first is its heading.
fn lines(heading: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let heading = heading.iter().map(|name| (*name).to_string()).collect();
    for row in std::iter::once(heading).chain(rows) {
        writer.write_record::<Vec<String>, _>(row).expect("memory takes lines of equal length");
    }
    String::from_utf8(writer.into_inner().expect("memory takes all")).expect("it was made of text")
}

fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

/// A line per run, those that are missing too.
fn runs(experiments: &[Experiment]) -> String {
    let mut rows = Vec::new();
    for experiment in experiments {
        for variant in &experiment.variants {
            let row = |run: &Run| {
                let (settings, outcome) = (&run.manifest.settings, &run.outcome);
                let state = outcome.stopped.clone().map_or("whole".into(), |why| format!("stopped: {why}"));
                let middle = [
                    run.manifest.seed.to_string(),
                    state,
                    settings.rule.clone(),
                    settings.attack.clone().unwrap_or_default(),
                    number(outcome.accuracy),
                    number(outcome.difference),
                    outcome.seconds.to_string(),
                    run.steps.len().to_string(),
                    outcome.overruns.to_string(),
                    outcome.daemon_cpu.to_string(),
                    outcome.bytes[0].to_string(),
                    outcome.bytes[1].to_string(),
                ];
                [vec![experiment.about.name.clone(), variant.name.clone()], middle.to_vec()].concat()
            };
            rows.extend(variant.runs.iter().map(row));
            let absent = variant.missing.iter().map(|path| (path, "missing"));
            let absent = absent.chain(variant.strange.iter().map(|path| (path, "of other settings")));
            rows.extend(absent.map(|(path, state)| {
                let seed = path.file_name().map(|name| name.to_string_lossy().replace("seed-", "")).unwrap_or_default();
                let mut row = vec![experiment.about.name.clone(), variant.name.clone(), seed, state.into()];
                row.resize(HEADING.len(), String::new());
                row
            }));
        }
    }
    lines(&HEADING, rows)
}

const HEADING: [&str; 14] = [
    "experiment",
    "variant",
    "seed",
    "state",
    "rule",
    "attack",
    "accuracy",
    "difference",
    "seconds",
    "steps",
    "overruns",
    "daemon_cpu_seconds",
    "bytes_up",
    "bytes_down",
];

/// A line per variant with whole runs: means over them.
fn variants(experiments: &[Experiment]) -> String {
    let mut heading = vec![
        "experiment",
        "variant",
        "label",
        "attack",
        "link_bytes_per_second",
        "push",
        "gradient_seconds_emulated",
        "overruns",
        "runs",
        "missing",
        "accuracy",
        "accuracy_deviation",
        "fate",
        "largest_difference",
        "step_ms",
    ];
    let names: Vec<String> = WALL
        .iter()
        .map(|(name, _)| format!("{name}_ms"))
        .chain(BUSY.iter().map(|(name, _)| format!("{name}_busy_ms")))
        .collect();
    heading.extend(names.iter().map(String::as_str));
    let mut rows = Vec::new();
    for experiment in experiments {
        for variant in experiment.present() {
            let job = Job::of(variant.settings());
            let accuracies = variant.accuracies();
            let fate = match fate(experiment, variant) {
                Fate::Held => "held".into(),
                Fate::Low => "low".into(),
                Fate::Broke => "broke".into(),
                Fate::Stopped(runs) => format!("stopped {runs}"),
                Fate::Unknown => String::new(),
            };
            let mut row = vec![
                experiment.about.name.clone(),
                variant.name.clone(),
                variant.label.clone(),
                job.attack(),
                number(job.link),
                way(job.push).into(),
                number(job.gradient_time),
                variant.overruns().map_or(String::new(), |[over, _]| over.to_string()),
                variant.runs.len().to_string(),
                (variant.missing.len() + variant.strange.len()).to_string(),
                number(mean(&accuracies)),
                number(deviation(&accuracies)),
                fate,
                number(variant.difference()),
                number(variant.mean(|step| step.step_ms)),
            ];
            row.extend(WALL.iter().chain(&BUSY).map(|(_, part)| number(variant.mean(part))));
            rows.push(row);
        }
    }
    lines(&heading, rows)
}

/// A line per variant and target.
fn speed(experiments: &[Experiment]) -> String {
    let mut rows = Vec::new();
    for experiment in experiments {
        for (title, _, compared) in contests(experiment) {
            for &target in &experiment.about.targets {
                for found in compare(&compared, target) {
                    let (times, interval) = match &found.against {
                        Against::Itself => ("1".into(), None),
                        Against::Times(Estimate { mean, interval, .. }) => (mean.to_string(), *interval),
                        Against::More(least) => (format!(">{least}"), None),
                        Against::Nothing => (String::new(), None),
                    };
                    rows.push(vec![
                        experiment.about.name.clone(),
                        title.clone(),
                        found.label.clone(),
                        target.to_string(),
                        found.runs.to_string(),
                        found.seconds.len().to_string(),
                        number(mean(&found.seconds)),
                        times,
                        number(interval.map(|ends| ends[0])),
                        number(interval.map(|ends| ends[1])),
                    ]);
                }
            }
        }
    }
    let heading = ["experiment", "job", "rule", "target", "runs", "reached", "seconds", "times_solon", "from", "to"];
    lines(&heading, rows)
}

/// A line per pair of Solon and Draco.
fn crossover(experiments: &[Experiment]) -> String {
    let mut rows = Vec::new();
    for experiment in experiments {
        for point in points(experiment) {
            let interval = point.times.interval;
            rows.push(vec![
                experiment.about.name.clone(),
                point.labels[0].clone(),
                point.labels[1].clone(),
                point.link.to_string(),
                point.curve.all_gradients(point.link).to_string(),
                point.share.to_string(),
                if point.emulated { "emulated" } else { "measured" }.into(),
                point.measured[0].mean.to_string(),
                point.measured[1].mean.to_string(),
                point.times.mean.to_string(),
                number(interval.map(|ends| ends[0])),
                number(interval.map(|ends| ends[1])),
                point.predicted.solon.get().to_string(),
                point.predicted.draco.get().to_string(),
            ]);
        }
    }
    let heading = [
        "experiment",
        "solon",
        "draco",
        "link_bytes_per_second",
        "all_gradients_seconds",
        "share_seconds",
        "share",
        "solon_seconds",
        "draco_seconds",
        "draco_over_solon",
        "from",
        "to",
        "solon_predicted_seconds",
        "draco_predicted_seconds",
    ];
    lines(&heading, rows)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{experiment, run};
    use super::*;

    #[test]
    fn missing_runs_are_lines_without_numbers() {
        let mut experiment = experiment(vec![run("mean", None, 1, 0.9)]);
        experiment.variants[0].missing.push("mean-none/seed-2".into());
        experiment.variants[0].strange.push("mean-none/seed-3".into());
        let text = runs(&[experiment]);
        assert!(
            text.contains("sample,mean-none,1,whole,mean,,0.9,")
                && text.ends_with(
                    "sample,mean-none,2,missing,,,,,,,,,,\nsample,mean-none,3,of other settings,,,,,,,,,,\n"
                ),
            "{text}"
        );
    }

    #[test]
    fn every_file_can_be_read_again() {
        let experiments = [experiment(vec![run("solon", None, 1, 0.9), run("draco", None, 1, 0.9)])];
        for (name, text) in files(&experiments) {
            let lines = csv::Reader::from_reader(text.as_bytes()).into_records().collect::<Result<Vec<_>, _>>();
            assert!(lines.is_ok_and(|lines| !lines.is_empty()), "{name}: {text}");
        }
    }
}
