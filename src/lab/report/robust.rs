//! Which rules break under which attacks.
//!
//! A rule breaks if its runs end, on average over seeds, more than [`POINTS`] below those of the honest mean, if a run ended early, or if a
//! model has no accuracy at the end.

use super::statistics::{deviation, mean};
use super::table::{Cell, Mark, Table};
use super::variants::{Experiment, Job, Variant};

/// How far below the honest mean a rule may end, in accuracy.
pub(super) const POINTS: f64 = 0.05;

/// How the runs of a variant ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    /// Within [`POINTS`] of the honest mean, or above it.
    Held,
    /// Below.
    Broke,
    /// So many of its runs ended early, or without accuracy.
    Stopped(usize),
    /// There is no honest mean to compare with.
    Unknown,
}

/// Accuracy at the end of the runs of the mean without liars on the same data.
pub(super) fn honest(experiment: &Experiment, job: &Job) -> Option<f64> {
    let fits = |variant: &&Variant| {
        let settings = variant.settings();
        settings.rule == "mean"
            && settings.attack.is_none()
            && (&settings.data, settings.hidden) == (&job.data, job.hidden)
    };
    mean(&experiment.present().filter(fits).flat_map(Variant::accuracies).collect::<Vec<_>>())
}

/// What became of a variant, where the honest mean ended at `honest`.
pub(super) fn fate(variant: &Variant, honest: Option<f64>) -> Fate {
    let bad = |run: &&crate::lab::record::Run| run.outcome.stopped.is_some() || run.outcome.accuracy.is_none();
    match (variant.runs.iter().filter(bad).count(), honest, mean(&variant.accuracies())) {
        (0, Some(honest), Some(own)) if own < honest - POINTS => Fate::Broke,
        (0, Some(_), _) => Fate::Held,
        (0, None, _) => Fate::Unknown,
        (stopped, ..) => Fate::Stopped(stopped),
    }
}

/// Rules by attacks: accuracies at the end, and the largest distance from the honest weights.
pub(super) fn table(experiment: &Experiment) -> Table {
    let jobs = experiment.jobs();
    let mut labels: Vec<&str> = Vec::new();
    for variant in jobs.iter().flat_map(|(_, variants)| variants) {
        if !labels.contains(&variant.label.as_str()) {
            labels.push(&variant.label);
        }
    }
    let mut table = Table::new(&["rule, %"]);
    table.headings.extend(jobs.iter().map(|(job, _)| job.title(&jobs)));
    table.headings.push("largest difference".into());
    for label in labels {
        let mut row = vec![Cell::plain(label)];
        let named = |variant: &&&Variant| variant.label == label;
        for (job, variants) in &jobs {
            row.push(match variants.iter().find(named) {
                Some(variant) => cell(variant, honest(experiment, job)),
                None => Cell::missing("–"),
            });
        }
        // What others than coded rules are away from it says nothing.
        let coded = |variant: &&&Variant| named(variant) && variant.settings().redundancy > 1;
        let all = jobs.iter().flat_map(|(_, variants)| variants).filter(coded);
        row.push(match all.filter_map(|variant| variant.difference()).reduce(f64::max) {
            Some(difference) => Cell::plain(format!("{difference:.1e}")),
            None => Cell::missing("–"),
        });
        table.rows.push(row);
    }
    table
}

/// `96.1 ± 0.3` percent, and what is to be said against it.
pub(super) fn cell(variant: &Variant, honest: Option<f64>) -> Cell {
    let accuracies = variant.accuracies();
    let mut text = match (mean(&accuracies), deviation(&accuracies)) {
        (Some(mean), Some(deviation)) => format!("{:.1} ± {:.1}", 100.0 * mean, 100.0 * deviation),
        (Some(mean), None) => format!("{:.1}", 100.0 * mean),
        (None, _) => String::new(),
    };
    let fate = fate(variant, honest);
    if let Fate::Stopped(stopped) = fate {
        let of = if variant.runs.len() > 1 { format!(" {stopped} of {}", variant.runs.len()) } else { String::new() };
        text = format!("stopped{of} {text}").trim_end().into();
    }
    if !variant.missing.is_empty() {
        text += &format!(" ({} of {} seeds)", variant.runs.len(), variant.runs.len() + variant.missing.len());
    }
    let mark = if matches!(fate, Fate::Broke | Fate::Stopped(_)) { Mark::Broken } else { Mark::Plain };
    Cell { text, mark }
}

/// What the table's signs mean.
pub(super) fn legend(experiment: &Experiment) -> String {
    let seeds = experiment.present().map(|variant| variant.runs.len()).max().unwrap_or(0);
    let spread =
        if seeds > 1 { format!(" and standard deviation over up to {seeds} seeds") } else { " of one seed".into() };
    let honest = match experiment.jobs().iter().find_map(|(job, _)| honest(experiment, job)) {
        Some(honest) => format!("the honest mean's {:.1} %", 100.0 * honest),
        None => "the honest mean's, which these records lack, so that only stopped runs are marked".into(),
    };
    format!(
        "Accuracy on test data in percent after the last step, mean{spread}. ✗: the rule broke, which is here more than {:.0} points below {honest}, or a run \
         that ended early; marked without an attack it is the rule itself that costs so much. –: no such run. Largest difference, of \
         coded rules: of the weights from those of the honest mean at the same step and \
         seed, over all steps that were judged, relative in norm.",
        100.0 * POINTS
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample::{experiment, run};
    use super::*;

    fn found(table: &Table, row: &str, column: &str) -> Cell {
        let at = table.headings.iter().position(|heading| heading == column).expect("a column");
        table.rows.iter().find(|cells| cells[0].text == row).expect("a row")[at].clone()
    }

    #[test]
    fn a_rule_breaks_more_than_five_points_below_the_honest_mean() {
        let table = table(&experiment(vec![
            run("mean", None, 1, 0.90),
            run("mean", None, 2, 0.92),
            run("mean", Some("reverse"), 1, 0.10),
            run("median", Some("reverse"), 1, 0.861),
            run("krum", Some("reverse"), 1, 0.859),
        ]));
        assert_eq!(found(&table, "mean", "no attack"), Cell::plain("91.0 ± 1.4"));
        assert_eq!(found(&table, "median", "reverse"), Cell::plain("86.1"));
        assert_eq!(found(&table, "krum", "reverse").mark, Mark::Broken);
        assert_eq!(found(&table, "mean", "reverse"), Cell { text: "10.0".into(), mark: Mark::Broken });
        assert_eq!(found(&table, "krum", "no attack"), Cell::missing("–"));
    }

    #[test]
    fn a_run_that_ended_early_is_broken_and_is_no_zero() {
        let mut stopped = run("bulyan", Some("nan"), 1, 0.3);
        (stopped.outcome.stopped, stopped.outcome.accuracy) = (Some("not finite at step 3".into()), None);
        let other = run("bulyan", Some("nan"), 2, 0.9);
        let table = table(&experiment(vec![run("mean", None, 1, 0.9), stopped, other]));
        assert_eq!(found(&table, "bulyan", "nan"), Cell { text: "stopped 1 of 2 90.0".into(), mark: Mark::Broken });
    }

    #[test]
    fn without_the_honest_mean_nothing_is_called_broken() {
        let experiment = experiment(vec![run("median", Some("alie"), 1, 0.1)]);
        assert_eq!(found(&table(&experiment), "median", "alie"), Cell::plain("10.0"));
        assert!(legend(&experiment).contains("which these records lack"));
    }

    #[test]
    fn the_largest_difference_is_over_attacks_seeds_and_steps() {
        let mut solon = run("solon", Some("reverse"), 1, 0.9);
        solon.steps[1].difference = Some(3e-6);
        solon.outcome.difference = Some(1e-6);
        let experiment = experiment(vec![run("mean", None, 1, 0.9), solon, run("solon", Some("alie"), 1, 0.9)]);
        assert_eq!(found(&table(&experiment), "solon", "largest difference"), Cell::plain("3.0e-6"));
    }

    #[test]
    fn missing_seeds_are_said() {
        let mut experiment = experiment(vec![run("mean", None, 1, 0.9)]);
        experiment.variants[0].missing.push("mean-none/seed-2".into());
        assert_eq!(found(&table(&experiment), "mean", "no attack"), Cell::plain("90.0 (1 of 2 seeds)"));
    }
}
