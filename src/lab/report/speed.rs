//! Seconds to an accuracy, and how many times longer others take for it than Solon.
//!
//! A run has reached an accuracy at the first step that was judged to have it. A run that never does has no time: then it is said that
//! it did not, and that it would have taken longer than all of it.

use super::labels::is_honest;
use super::robust;
use super::statistics::{Estimate, deviation, mean, ratio};
use super::table::{Cell, Table};
use super::variants::{Experiment, Job, Variant, digits, fixed, spread};
use crate::lab::record::Run;

/// One rule, one accuracy, in one job, against Solon.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Comparison {
    pub label: String,
    /// Seconds of the runs that reached it.
    pub seconds: Vec<f64>,
    /// How many runs there are.
    pub runs: usize,
    /// Seconds of the longest run that did not.
    pub without: Option<f64>,
    pub against: Against,
    /// In some of its steps computing took longer than emulated.
    pub overran: bool,
    /// That, or the Solon that it is compared with did so.
    pub doubtful: bool,
}

/// How many times longer than Solon.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Against {
    /// This is what others are compared with.
    Itself,
    /// So many times, over seeds.
    Times(Estimate),
    /// More than so many times, as some runs ended before they were there.
    More(f64),
    /// There is no Solon that reached it, or none with a seed in common.
    Nothing,
}

/// Seconds in which `run` reaches `target`.
pub(super) fn time_to(run: &Run, target: f64) -> Option<f64> {
    run.steps.iter().find(|step| step.accuracy.is_some_and(|accuracy| accuracy >= target)).map(|step| step.seconds)
}

/// All of a job, for a target.
pub(super) fn compare(compared: &[(String, &Variant)], target: f64) -> Vec<Comparison> {
    let reached = |variant: &Variant| variant.runs.iter().filter_map(|run| time_to(run, target)).collect::<Vec<_>>();
    let all = |variant: &&Variant| variant.settings().rule == "solon" && reached(variant).len() == variant.runs.len();
    let of = |variant: &Variant| mean(&reached(variant)).unwrap_or(f64::INFINITY);
    let solon = compared.iter().map(|(_, variant)| *variant).filter(all).min_by(|a, b| of(a).total_cmp(&of(b)));
    let overran = |variant: &Variant| variant.overruns().is_some_and(|[over, _]| over > 0);
    let compare = |(label, variant): &(String, &Variant)| {
        let against = match solon {
            None => Against::Nothing,
            Some(solon) if std::ptr::eq(solon, *variant) => Against::Itself,
            Some(solon) => against(solon, variant, target),
        };
        let late = variant.runs.iter().filter(|run| time_to(run, target).is_none());
        Comparison {
            label: label.clone(),
            seconds: reached(variant),
            runs: variant.runs.len(),
            without: late.map(|run| run.outcome.seconds).reduce(f64::max),
            against,
            overran: overran(variant),
            doubtful: overran(variant) || solon.is_some_and(overran),
        }
    };
    compared.iter().map(compare).collect()
}

/// A title, its job, and all that is compared in it by name.
type Contest<'a> = (String, Job, Vec<(String, &'a Variant)>);

/// What there is to compare: with each title, the job and all of it, but for jobs that have nothing but the honest mean.
pub(super) fn contests(experiment: &Experiment) -> Vec<Contest<'_>> {
    let jobs = experiment.jobs();
    let all = jobs.iter().map(|(job, variants)| (job.title(&jobs), job.clone(), experiment.compared(job, variants)));
    all.filter(|(_, _, compared)| compared.iter().any(|(label, _)| !is_honest(label))).collect()
}

fn against(solon: &Variant, other: &Variant, target: f64) -> Against {
    let mut all = true;
    let ratios: Vec<f64> = solon
        .paired(other)
        .filter_map(|(ours, theirs)| {
            let own = time_to(ours, target)?;
            let its = time_to(theirs, target);
            all &= its.is_some();
            Some(its.unwrap_or(theirs.outcome.seconds) / own)
        })
        .collect();
    match ratio(&ratios) {
        Some(estimate) if all => Against::Times(estimate),
        Some(estimate) => Against::More(estimate.mean),
        None => Against::Nothing,
    }
}

/// A table per job: rules by targets, with seconds and times.
pub(super) fn tables(experiment: &Experiment) -> Vec<(String, Table)> {
    let targets = &experiment.about.targets;
    let of = |(title, _, compared): Contest<'_>| (title, table(experiment, &compared, targets));
    contests(experiment).into_iter().map(of).collect()
}

fn table(experiment: &Experiment, compared: &[(String, &Variant)], targets: &[f64]) -> Table {
    let mut table = Table::new(&["rule"]);
    for target in targets {
        let percent = digits(100.0 * target);
        table.headings.extend([format!("seconds to {percent} %"), "times Solon's".into()]);
    }
    table.headings.push("at the end, %".into());
    let columns: Vec<Vec<Comparison>> = targets.iter().map(|&target| compare(compared, target)).collect();
    for (row, (label, variant)) in compared.iter().enumerate() {
        let mut cells = vec![Cell::plain(label)];
        cells.extend(columns.iter().flat_map(|column| [seconds(&column[row]), times(&column[row])]));
        cells.push(robust::cell(experiment, variant));
        table.rows.push(cells);
    }
    table
}

/// `12.3 ± 0.4`, or that it was not reached.
fn seconds(comparison: &Comparison) -> Cell {
    let mut cell = time(comparison);
    if comparison.overran {
        cell.text += OVERRAN;
    }
    cell
}

fn time(comparison: &Comparison) -> Cell {
    let Comparison { seconds, runs, without, .. } = comparison;
    let reached = match (mean(seconds), deviation(seconds)) {
        (Some(mean), Some(deviation)) => spread(mean, deviation),
        (Some(mean), None) => fixed(mean),
        (None, _) => String::new(),
    };
    match without {
        None => Cell::plain(reached),
        Some(longest) => {
            let of = if *runs > 1 { format!(" in {} of {runs}", runs - seconds.len()) } else { String::new() };
            Cell::missing(format!("{reached} not reached{of} ({} s)", fixed(*longest)).trim_start())
        }
    }
}

/// `4.1 (3.9 to 4.4)`.
fn times(comparison: &Comparison) -> Cell {
    let mut cell = times_of(&comparison.against);
    if comparison.doubtful && !matches!(comparison.against, Against::Itself | Against::Nothing) {
        cell.text += OVERRAN;
    }
    cell
}

/// Stands behind what an emulation that was not kept is part of.
const OVERRAN: &str = " †";

/// What that sign means, if it stands anywhere.
pub(super) fn overruns(experiment: &Experiment) -> Option<String> {
    let is_over = |variant: &Variant| variant.overruns().is_some_and(|[over, _]| over > 0);
    experiment.present().any(is_over).then(|| {
        "†: in some steps (how many stands in the first table) computing took longer than its emulated time, so this time, or one of both in \
         this ratio, is longer than emulated."
            .into()
    })
}

fn times_of(against: &Against) -> Cell {
    match against {
        Against::Itself => Cell::plain("1"),
        Against::Times(Estimate { mean, interval: Some([low, high]), .. }) => {
            Cell::plain(format!("{} ({} to {})", fixed(*mean), fixed(*low), fixed(*high)))
        }
        Against::Times(Estimate { mean, interval: None, .. }) => Cell::plain(format!("{} (one seed)", fixed(*mean))),
        Against::More(least) => Cell::missing(format!("more than {}", fixed(*least))),
        Against::Nothing => Cell::missing("–"),
    }
}

/// How the tables were made.
pub(super) const LEGEND: &str = "Seconds until the first judged step with that accuracy, mean ± standard deviation over seeds. Times Solon's: the \
    geometric mean of the ratio of both times, paired by seed, with Student's interval of 95 % over the logarithms. A run that \
    ended below counts with all of its seconds, so the ratio is larger than that. Where Solon stands several times, the \
    fastest is compared with. All in a table have the same link, gradient time, attack, and way of updates.";

#[cfg(test)]
mod tests {
    use super::super::labels::way;
    use super::super::sample::{experiment, run, timed};
    use super::*;
    use crate::lab::record::Push;

    /// Of the runs, which are those of one job.
    fn compared(runs: Vec<Run>, target: f64) -> Vec<Comparison> {
        let experiment = experiment(runs);
        compare(&contests(&experiment)[0].2, target)
    }

    #[test]
    fn a_run_has_reached_an_accuracy_at_the_first_step_judged_to_have_it() {
        let run = timed("solon", 1, &[(1.0, 0.2), (2.0, 0.5), (3.0, 0.45), (4.0, 0.6)]);
        assert_eq!([0.5, 0.6, 0.7].map(|target| time_to(&run, target)), [Some(2.0), Some(4.0), None]);
    }

    #[test]
    fn ratios_are_paired_by_seed() {
        let found = compared(
            vec![
                timed("solon", 1, &[(1.0, 0.9)]),
                timed("solon", 2, &[(3.0, 0.9)]),
                timed("median", 2, &[(12.0, 0.9)]),
                timed("median", 1, &[(4.0, 0.9)]),
            ],
            0.9,
        );
        assert_eq!(found[0].against, Against::Itself);
        let Against::Times(times) = &found[1].against else { panic!("{found:?}") };
        assert!((times.mean - 4.0).abs() < 1e-12 && times.count == 2);
        let [low, high] = times.interval.unwrap();
        assert!((low - 4.0).abs() < 1e-9 && (high - 4.0).abs() < 1e-9, "twice the same ratio: {times:?}");
    }

    #[test]
    fn who_never_gets_there_is_said_not_to_with_a_bound() {
        let found = compared(
            vec![
                timed("solon", 1, &[(2.0, 0.9)]),
                timed("solon", 2, &[(2.0, 0.9)]),
                timed("krum", 1, &[(8.0, 0.9)]),
                timed("krum", 2, &[(32.0, 0.4)]),
            ],
            0.9,
        );
        assert!(matches!(found[1].against, Against::More(least) if (least - 8.0).abs() < 1e-9), "{found:?}");
        assert_eq!((found[1].seconds.clone(), found[1].runs, found[1].without), (vec![8.0], 2, Some(32.0)));
        assert_eq!(seconds(&found[1]).text, "8.00 not reached in 1 of 2 (32.0 s)");
        assert_eq!(times(&found[1]).text, "more than 8.00");
    }

    #[test]
    fn nothing_is_compared_with_a_solon_that_did_not_get_there() {
        let found = compared(vec![timed("solon", 1, &[(2.0, 0.5)]), timed("median", 1, &[(1.0, 0.9)])], 0.9);
        assert_eq!(found[1].against, Against::Nothing);
        assert_eq!(seconds(&found[0]).text, "not reached (2.00 s)");
    }

    #[test]
    fn times_of_an_emulation_that_was_not_kept_are_marked() {
        let slept = |rule: &str, seconds: f64, overruns: u64| {
            let mut made = timed(rule, 1, &[(seconds, 0.9)]);
            (made.manifest.settings.gradient_time, made.outcome.overruns) = (Some(1e-3), overruns);
            made
        };
        let runs = |of_solon| vec![slept("solon", 1.0, of_solon), slept("median", 2.0, 0), slept("krum", 4.0, 3)];
        let found = compared(runs(0), 0.9);
        let texts = |found: &[Comparison]| -> Vec<[String; 2]> {
            found.iter().map(|one| [seconds(one).text, times(one).text]).collect()
        };
        assert_eq!(texts(&found)[1..], [["2.00", "2.00 (one seed)"], ["4.00 †", "4.00 (one seed) †"]]);
        assert_eq!(texts(&compared(runs(1), 0.9))[0], ["1.00 †", "1"]);
        assert_eq!(texts(&compared(runs(1), 0.9))[1], ["2.00", "2.00 (one seed) †"]);
        assert!(overruns(&experiment(runs(0))).is_some());
        assert!(overruns(&experiment(vec![slept("solon", 1.0, 0)])).is_none());
    }

    #[test]
    fn who_relays_is_compared_with_a_solon_that_relays() {
        let made = |rule: &str, push: Push, seconds: f64| {
            let mut made = timed(rule, 1, &[(seconds, 0.9)]);
            made.manifest.settings.push = push;
            made.manifest.variant += way(push);
            made
        };
        let experiment = experiment(vec![
            made("mean", Push::Relay, 1.0),
            made("mean", Push::Direct, 5.0),
            made("solon", Push::Relay, 2.0),
            made("solon", Push::Direct, 10.0),
            made("bulyan", Push::Relay, 8.0),
            made("draco", Push::Direct, 30.0),
        ]);
        let mut seen = Vec::new();
        for (title, _, compared) in contests(&experiment) {
            for one in compare(&compared, 0.9) {
                if let Against::Times(times) = one.against {
                    seen.push(format!("{title}: {} {:.1}", one.label, times.mean));
                }
            }
        }
        assert_eq!(
            seen,
            [
                "no attack, updates relayed: mean, nobody lies, relayed 0.5",
                "no attack, updates relayed: bulyan 4.0",
                "no attack, updates sent by the daemon: mean, nobody lies, direct 0.5",
                "no attack, updates sent by the daemon: draco 3.0",
            ]
        );
    }

    #[test]
    fn the_table_has_a_pair_of_columns_per_target() {
        let mut experiment = experiment(vec![run("mean", None, 1, 0.9), run("solon", None, 1, 0.9)]);
        experiment.about.targets = vec![0.5, 0.85];
        let (title, table) = tables(&experiment).remove(0);
        assert_eq!(title, "no attack");
        assert_eq!(table.headings[3..5], ["seconds to 85 %", "times Solon's"]);
        assert!(table.rows.iter().all(|row| row.len() == table.headings.len()));
    }
}
