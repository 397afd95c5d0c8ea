//! Which rules break under which attacks.
//!
//! Accuracies at the end, means over seeds, are compared with two others, as a rule can lose much without any attack:
//!
//! - with the same rule without attack: more than [`BROKEN`] below it, the *attack broke* the rule; so it did if a run ended early;
//! - with the honest mean: more than [`LOW`] below it, the rule is *low*, whoever is to blame.

use super::statistics::{deviation, mean};
use super::table::{Cell, Mark, Table};
use super::variants::{Experiment, Job, Variant};
use crate::attacks::Lie;
use crate::lab::record::{Run, Who};

/// How far below the same rule without attack a rule may end, in accuracy.
pub(super) const BROKEN: f64 = 0.10;

/// How far below the honest mean a rule may end, in accuracy.
pub(super) const LOW: f64 = 0.05;

/// How far from the honest weights those of coded rules may be, relative in norm.
const WITHIN: f64 = 1e-5;

/// How the runs of a variant ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    /// Neither of what follows.
    Held,
    /// More than [`LOW`] below the honest mean, but not broken.
    Low,
    /// More than [`BROKEN`] below the same rule without attack.
    Broke,
    /// So many of its runs ended early, or without accuracy.
    Stopped(usize),
    /// There is nothing to compare with.
    Unknown,
}

/// Accuracy at the end of the runs of the mean without liars on the same data.
pub(super) fn honest(experiment: &Experiment, job: &Job) -> Option<f64> {
    let fits = |variant: &&Variant| {
        let settings = variant.settings();
        settings.rule == "mean"
            && settings.attack.is_none()
            && (&settings.data, settings.hidden, settings.activation) == (&job.data, job.hidden, job.activation)
    };
    mean(&experiment.present().filter(fits).flat_map(Variant::accuracies).collect::<Vec<_>>())
}

/// What became of a variant.
pub(super) fn fate(experiment: &Experiment, variant: &Variant) -> Fate {
    let bad = |run: &&Run| run.outcome.stopped.is_some() || run.outcome.accuracy.is_none();
    let stopped = variant.runs.iter().filter(bad).count();
    let Some(own) = mean(&variant.accuracies()).filter(|_| stopped == 0) else { return Fate::Stopped(stopped) };
    let honest = honest(experiment, &Job::of(variant.settings()));
    let attacked = variant.settings().attack.is_some();
    let before = experiment.unattacked(variant).filter(|_| attacked).and_then(|plain| mean(&plain.accuracies()));
    match (before, honest) {
        (Some(before), _) if own < before - BROKEN => Fate::Broke,
        (_, Some(honest)) if own < honest - LOW => Fate::Low,
        (None, None) => Fate::Unknown,
        _ => Fate::Held,
    }
}

/// What rules are called, in the order of the first of each.
fn labels(experiment: &Experiment) -> Vec<&str> {
    let mut labels: Vec<&str> = Vec::new();
    for variant in experiment.present() {
        if !labels.contains(&variant.label.as_str()) {
            labels.push(&variant.label);
        }
    }
    labels
}

/// Rules by attacks: accuracies at the end, and the largest distance from the honest weights.
pub(super) fn table(experiment: &Experiment) -> Table {
    let jobs = experiment.jobs();
    let labels = labels(experiment);
    let mut table = Table::new(&["rule, %"]);
    table.headings.extend(jobs.iter().map(|(job, _)| job.title(&jobs)));
    table.headings.push("largest difference".into());
    for label in labels {
        let mut row = vec![Cell::plain(label)];
        let named = |variant: &&&Variant| variant.label == label;
        for (_, variants) in &jobs {
            row.push(match variants.iter().find(named) {
                Some(variant) => cell(experiment, variant),
                None => Cell::missing("–"),
            });
        }
        let all = tolerated(experiment, label);
        row.push(match all.iter().filter_map(|variant| variant.difference()).reduce(f64::max) {
            Some(difference) => Cell::plain(format!("{difference:.1e}")),
            None => Cell::missing("–"),
        });
        table.rows.push(row);
    }
    table
}

/// Variants of a coded rule with no more liars than it corrects. What others are away from the honest weights says nothing.
fn tolerated<'a>(experiment: &'a Experiment, label: &str) -> Vec<&'a Variant> {
    let fits = |variant: &&Variant| {
        let settings = variant.settings();
        let few = settings.liars <= settings.adversaries && settings.who != Who::WholeGroup;
        variant.label == label && settings.is_exact() && (few || settings.attack.is_none())
    };
    experiment.present().filter(fits).collect()
}

/// Whether the weights of coded rules are those of the honest mean; nothing without such rules.
pub(super) fn exactness(experiment: &Experiment) -> Option<String> {
    let said = |label: &str| {
        let variants = tolerated(experiment, label);
        let attacks = variants.iter().filter(|variant| variant.settings().attack.is_some()).count();
        if attacks == 0 {
            return None;
        }
        let runs = || variants.iter().flat_map(|variant| &variant.runs);
        let unknown = runs().filter(|run| run.outcome.stopped.is_some() || run.outcome.difference.is_none()).count();
        let largest = variants.iter().filter_map(|variant| variant.difference()).reduce(f64::max);
        let verdict = match largest {
            Some(largest) if largest > WITHIN => format!("by up to {largest:.1e}, which is not within {WITHIN:.0e}"),
            Some(largest) if unknown == 0 => format!("by {largest:.1e} at the most, which is within {WITHIN:.0e}"),
            Some(largest) => {
                format!(
                    "by {largest:.1e} at the most, but {unknown} runs ended early or have none to compare with, so it is not shown to be within {WITHIN:.0e}"
                )
            }
            None => "by nobody knows how much: there is nothing to compare with".into(),
        };
        let kinds = if attacks == 1 { "one kind of attack".into() } else { format!("all {attacks} kinds of attack") };
        let several = if runs().count() == 1 { "one run".into() } else { format!("{} runs", runs().count()) };
        Some(format!(
            "Under {kinds} with no more liars than it corrects the weights of {label} differ from those of the honest mean {verdict} ({several})."
        ))
    };
    let sentences: Vec<String> = labels(experiment).into_iter().filter_map(said).collect();
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

/// Which attacks break which rules, a row per rule; nothing without attacks.
pub(super) fn verdicts(experiment: &Experiment) -> Option<Table> {
    let jobs = experiment.jobs();
    let attacked = |variant: &&Variant| variant.settings().attack.is_some();
    experiment.present().find(attacked)?;
    let mut table = Table::new(&["rule", "broken by", "not broken by"]);
    for label in labels(experiment) {
        let (mut broken, mut held) = (Vec::new(), Vec::new());
        for (job, variants) in jobs.iter().filter(|(job, _)| job.attack.is_some()) {
            for variant in variants.iter().filter(|variant| variant.label == label) {
                match fate(experiment, variant) {
                    Fate::Broke | Fate::Stopped(_) => broken.push(job.title(&jobs)),
                    _ if experiment.unattacked(variant).is_some() => held.push(job.title(&jobs)),
                    _ => {}
                }
            }
        }
        let said = |all: Vec<String>| if all.is_empty() { "–".into() } else { all.join("; ") };
        table.rows.push(vec![Cell::plain(label), Cell::words(said(broken)), Cell::words(said(held))]);
    }
    Some(table)
}

/// `96.1 ± 0.3` percent, and what is to be said against it.
pub(super) fn cell(experiment: &Experiment, variant: &Variant) -> Cell {
    let accuracies = variant.accuracies();
    let mut text = match (mean(&accuracies), deviation(&accuracies)) {
        (Some(mean), Some(deviation)) => format!("{:.1} ± {:.1}", 100.0 * mean, 100.0 * deviation),
        (Some(mean), None) => format!("{:.1}", 100.0 * mean),
        (None, _) => String::new(),
    };
    let fate = fate(experiment, variant);
    if let Fate::Stopped(stopped) = fate {
        let of = if variant.runs.len() > 1 { format!(" {stopped} of {}", variant.runs.len()) } else { String::new() };
        text = format!("stopped{of} {text}").trim_end().into();
    }
    let absent = variant.missing.len() + variant.strange.len();
    if absent > 0 {
        text += &format!(" ({} of {} seeds)", variant.runs.len(), variant.runs.len() + absent);
    }
    let mark = match fate {
        Fate::Broke | Fate::Stopped(_) => Mark::Broken,
        Fate::Low => Mark::Low,
        Fate::Held | Fate::Unknown => Mark::Plain,
    };
    Cell { text, mark }
}

/// What the signs beside accuracies mean.
pub(super) fn signs(experiment: &Experiment) -> String {
    let honest = match experiment.jobs().iter().find_map(|(job, _)| honest(experiment, job)) {
        Some(honest) => format!("the honest mean's {:.1} %", 100.0 * honest),
        None => "the honest mean, which these records lack, so that nothing is marked so".into(),
    };
    let lacks = |variant: &Variant| variant.settings().attack.is_some() && experiment.unattacked(variant).is_none();
    let lacking = match experiment.present().any(lacks) {
        true => ". Rules that were not run without attack can only be compared with the honest mean",
        false => "",
    };
    format!(
        "✗: broken by the attack, which is here more than {:.0} points below the same rule without attack, or a run that ended early. \
         ▽: not that, but more than {:.0} points below {honest}: there the rule itself, or the rule and the attack together, cost so much{lacking}.",
        100.0 * BROKEN,
        100.0 * LOW
    )
}

/// How the table was made, and what its signs mean.
pub(super) fn legend(experiment: &Experiment) -> String {
    let seeds = experiment.present().map(|variant| variant.runs.len()).max().unwrap_or(0);
    let spread =
        if seeds > 1 { format!(" and standard deviation over up to {seeds} seeds") } else { " of one seed".into() };
    format!(
        "Accuracy on test data in percent after the last step, mean{spread}. {} –: no such run. Largest difference, of \
         rules with a code and no more liars than it corrects: of the weights from those of the honest mean at the same step and \
         seed, over all steps that were judged, relative in norm.{}",
        signs(experiment),
        strengths(experiment)
    )
}

/// What `alie=1` means, if there is such an attack.
fn strengths(experiment: &Experiment) -> String {
    let mut said: Vec<String> = Vec::new();
    for attack in experiment.present().filter_map(|variant| variant.settings().attack.as_ref()) {
        let Ok(Lie { attack: kind, strength: Some(strength) }) = attack.parse() else { continue };
        let text = format!("{attack}: {kind} with a strength of {strength}, which is not its usual one");
        if !said.contains(&text) {
            said.push(text);
        }
    }
    if said.is_empty() { String::new() } else { format!(" {}.", said.join("; ")) }
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
    fn an_attack_breaks_a_rule_more_than_ten_points_below_itself() {
        let experiment = experiment(vec![
            run("mean", None, 1, 0.90),
            run("mean", None, 2, 0.92),
            run("mean", Some("reverse"), 1, 0.10),
            run("median", None, 1, 0.80),
            run("median", Some("alie=1"), 1, 0.701),
            run("median", Some("reverse"), 1, 0.699),
            run("krum", None, 1, 0.90),
            run("krum", Some("reverse"), 1, 0.861),
            run("bulyan", Some("reverse"), 1, 0.2),
        ]);
        let table = table(&experiment);
        assert_eq!(found(&table, "mean", "no attack"), Cell::plain("91.0 ± 1.4"));
        assert_eq!(found(&table, "mean", "reverse"), Cell { text: "10.0".into(), mark: Mark::Broken });
        // Low by itself, lower with alie, and broken by reverse alone.
        assert_eq!(found(&table, "median", "no attack"), Cell { text: "80.0".into(), mark: Mark::Low });
        assert_eq!(found(&table, "median", "alie=1"), Cell { text: "70.1".into(), mark: Mark::Low });
        assert_eq!(found(&table, "median", "reverse"), Cell { text: "69.9".into(), mark: Mark::Broken });
        assert_eq!(found(&table, "krum", "reverse"), Cell::plain("86.1"));
        assert_eq!(found(&table, "krum", "alie=1"), Cell::missing("–"));
        assert_eq!(found(&table, "bulyan", "reverse").mark, Mark::Low, "nobody knows who is to blame");
        let legend = legend(&experiment);
        assert!(legend.contains("more than 10 points below the same rule") && legend.contains("91.0 %"), "{legend}");
        assert!(legend.contains("not run without attack") && legend.contains("alie=1: alie with a strength of 1"));
        let verdicts = verdicts(&experiment).unwrap();
        let cells = |row: usize| verdicts.rows[row].iter().map(|cell| cell.text.as_str()).collect::<Vec<_>>();
        assert_eq!(cells(1), ["median", "reverse", "alie=1"]);
        assert_eq!(cells(3), ["bulyan", "–", "–"]);
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
    fn coded_rules_are_judged_by_attacks_with_as_many_liars_as_they_correct() {
        let exact = |attack: Option<&str>, difference: Option<f64>| {
            let mut made = run("solon", attack, 1, 0.9);
            made.outcome.difference = difference;
            made
        };
        let mut many = exact(Some("constant"), Some(0.3));
        many.manifest.settings.liars = 3;
        let mut group = exact(Some("zero"), Some(0.4));
        group.manifest.settings.who = Who::WholeGroup;
        // As many as before, so that the label stays.
        group.manifest.settings.liars = 3;
        let mut runs = vec![exact(None, Some(1e-7)), exact(Some("reverse"), Some(2e-6)), many, group];
        let said = exactness(&experiment(runs.clone())).unwrap();
        assert!(said.contains("2.0e-6 at the most, which is within 1e-5"), "{said}");
        assert!(said.contains("one kind of attack"), "{said}");
        runs.push(exact(Some("nan"), None));
        let said = exactness(&experiment(runs.clone())).unwrap();
        assert!(said.contains("not shown to be within 1e-5"), "{said}");
        runs.push(exact(Some("ipm"), Some(2e-5)));
        let said = exactness(&experiment(runs)).unwrap();
        assert!(said.contains("up to 2.0e-5, which is not within 1e-5"), "{said}");
        assert!(exactness(&experiment(vec![run("median", Some("nan"), 1, 0.9)])).is_none());
    }

    #[test]
    fn missing_seeds_are_said() {
        let mut experiment = experiment(vec![run("mean", None, 1, 0.9)]);
        experiment.variants[0].missing.push("mean-none/seed-2".into());
        assert_eq!(found(&table(&experiment), "mean", "no attack"), Cell::plain("90.0 (1 of 2 seeds)"));
    }
}
