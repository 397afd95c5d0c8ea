//! Steps of Solon and Draco as measured, beside those that [`plan`](crate::plan) predicts.
//!
//! Jobs of the same code differ in the link `B` and in the time `c` of a share of the samples without redundancy. A step takes
//! `a c + w / B`, so over `C = P 4 d / B` it depends on `c / C` alone: then all points lie on one curve, whatever their links are.

use super::statistics::{Estimate, estimate, mean, ratio};
use super::table::{Cell, Table};
use super::variants::{Experiment, Variant, digits, mean_of, seconds, speed};
use crate::lab::record::{Push, Settings};
use crate::plan::{BreakEven, BytesPerSecond, Crossover, Duel, PlanInput, Seconds, Size};

/// Solon and Draco in one job.
pub(super) struct Point {
    /// What Solon is called, and what Draco is.
    pub labels: [String; 2],
    /// The code and size that the curve is of.
    pub curve: Curve,
    /// Bytes per second.
    pub link: f64,
    /// c: seconds of a share without redundancy; as emulated, or else as measured.
    pub share: f64,
    /// Was it slept?
    pub emulated: bool,
    /// Measured seconds of a step of Solon and of Draco: means of steps, then of seeds.
    pub measured: [Estimate; 2],
    /// How many times longer Draco's are, paired by seed.
    pub times: Estimate,
    /// What is predicted.
    pub predicted: Duel,
}

/// What a curve is of: everything that matters but link and gradient time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Curve {
    pub workers: usize,
    pub adversaries: usize,
    pub stragglers: usize,
    pub compression: usize,
    pub dimension: usize,
    pub push: Push,
}

impl Curve {
    fn of(settings: &Settings) -> Curve {
        let Settings { workers, adversaries, stragglers, compression, dimension, push, .. } = *settings;
        Curve { workers, adversaries, stragglers, compression, dimension, push }
    }

    /// C: seconds in which the link brings a gradient of every worker.
    pub fn all_gradients(&self, link: f64) -> f64 {
        (4 * self.workers * self.dimension) as f64 / link
    }

    /// Both, as predicted for a link and a gradient time; nothing if the plan refuses these.
    pub fn predicted(&self, link: f64, share: f64) -> Option<Duel> {
        let crossover = self.crossover(link, share)?;
        Some(match self.push {
            Push::Direct => crossover.sent,
            Push::Relay => crossover.relayed,
        })
    }

    fn crossover(&self, link: f64, share: f64) -> Option<Crossover> {
        let input = PlanInput {
            adversaries: self.adversaries,
            stragglers: self.stragglers,
            compression: self.compression,
            link: BytesPerSecond::parse(&format!("{link}B/s")).ok(),
            gradient_time: Seconds::parse(&format!("{share}s")).ok(),
            ..PlanInput::new(Size::Workers(self.workers), self.dimension)
        };
        Crossover::new(&input).ok().flatten()
    }
}

/// Every pair of Solon and Draco in the same job with a link, for as many liars, of whom as many lie, and for as many numbers. Draco has
/// Solon's workers, or those that the plan gives it: where its groups do not divide them, some have nothing to do.
pub(super) fn points(experiment: &Experiment) -> Vec<Point> {
    let mut points = Vec::new();
    for (_, variants) in experiment.jobs() {
        let of = |rule: &'static str| variants.iter().copied().filter(move |variant| variant.settings().rule == rule);
        for solon in of("solon").filter(|variant| variant.settings().compression > 1) {
            let own = solon.settings();
            let like = |draco: &&Variant| {
                let other = draco.settings();
                let same = |of: &Settings| (of.adversaries, of.liars, of.stragglers, of.dimension, of.push, of.batch);
                same(own) == same(other)
            };
            points.extend(of("draco").filter(like).filter_map(|draco| point(solon, draco)));
        }
    }
    points
}

fn point(solon: &Variant, draco: &Variant) -> Option<Point> {
    let settings = solon.settings();
    let (link, curve) = (settings.link?, Curve::of(settings));
    let workers = draco.settings().workers;
    let share = match settings.gradient_time {
        Some(time) => time * settings.batch as f64 / settings.workers as f64,
        None => draco.mean(|step| step.compute_ms)? / 1e3 / draco.settings().redundancy as f64,
    };
    if workers != curve.workers && workers != curve.crossover(link, share)?.draco.workers {
        return None;
    }
    let of = |variant: &Variant| {
        let steps: Vec<f64> = variant.runs.iter().filter_map(|run| mean_of(run, |step| step.step_ms / 1e3)).collect();
        estimate(&steps)
    };
    let pairs = solon.paired(draco);
    let times = pairs.filter_map(|(a, b)| Some(mean_of(b, |step| step.step_ms)? / mean_of(a, |step| step.step_ms)?));
    Some(Point {
        labels: [solon.label.clone(), draco.label.clone()],
        curve,
        link,
        share,
        emulated: settings.gradient_time.is_some(),
        measured: [of(solon)?, of(draco)?],
        times: ratio(&times.collect::<Vec<_>>())?,
        predicted: curve.predicted(link, share)?,
    })
}

/// `c / C` at which both take as long, if there is such a place.
pub(super) fn break_even(point: &Point) -> Option<f64> {
    let BreakEven::At { gradient_time, .. } = point.predicted.break_even else { return None };
    Some(gradient_time.get() / point.curve.all_gradients(point.link))
}

/// Points with what was predicted for each.
pub(super) fn table(points: &[Point]) -> Table {
    let mut table = Table::new(&[
        "Solon",
        "link",
        "C",
        "c",
        "C / (r_c c)",
        "Solon's step",
        "Draco's step",
        "Draco's / Solon's",
        "predicted",
        "measured / predicted",
    ]);
    for point in points {
        let all = point.curve.all_gradients(point.link);
        let [ours, theirs] = &point.measured;
        let predicted = point.predicted.draco.get() / point.predicted.solon.get();
        let off = mean(&[ours.mean / point.predicted.solon.get(), theirs.mean / point.predicted.draco.get()]);
        let times = match point.times.interval {
            Some([low, high]) => format!("{:.2} ({low:.2} to {high:.2})", point.times.mean),
            None => format!("{:.2} (one seed)", point.times.mean),
        };
        table.rows.push(
            [
                format!("{}, P = {}, s = {}", point.labels[0], point.curve.workers, point.curve.adversaries),
                speed(point.link),
                seconds(all),
                format!("{}{}", seconds(point.share), if point.emulated { " (emulated)" } else { " (measured)" }),
                digits(all / (point.curve.compression as f64 * point.share)),
                seconds(ours.mean),
                seconds(theirs.mean),
                times,
                format!("{predicted:.2}"),
                off.map_or("–".into(), |off| format!("{off:.2}")),
            ]
            .map(Cell::plain)
            .to_vec(),
        );
    }
    table
}

/// How the table was made.
pub(super) const LEGEND: &str = "C: the time in which the link brings a full gradient of every worker. c: the time of a worker's share of the samples \
    without redundancy. Solon is predicted to be faster with a relay where C / (r_c c) is above 1; without one the download hides what \
    the upload saves (docs/crossover.md). Measured ratios are geometric means paired by seed, with Student's interval of 95 %. \
    Measured / predicted: of the steps of both, on average; what is above 1 is encoding, decoding, \
    applying, and cores that all share; what is below, that the token bucket of a millisecond fills while nobody sends, and lets so many bytes through at once.";

#[cfg(test)]
mod tests {
    use super::super::sample::{experiment, run};
    use super::*;
    use crate::lab::record::Run;

    /// Solon with groups of 6 and Draco with groups of 5, whose steps take so many milliseconds.
    fn pair(gradient_time: f64, seed: u64, steps: [f64; 2]) -> [Run; 2] {
        let made = |rule, took: f64| {
            let mut run = run(rule, None, seed, 0.9);
            run.manifest.settings.gradient_time = Some(gradient_time);
            run.manifest.variant += &format!("-{gradient_time}");
            run.steps.iter_mut().for_each(|step| step.step_ms = took);
            run
        };
        [made("solon", steps[0]), made("draco", steps[1])]
    }

    #[test]
    fn each_pair_of_the_same_job_is_a_point_with_its_prediction() {
        let runs = [pair(1e-3, 1, [100.0, 200.0]), pair(1e-3, 2, [100.0, 50.0]), pair(1e-2, 1, [10.0, 5.0])].concat();
        let points = points(&experiment(runs));
        assert_eq!(points.len(), 2);
        assert!((points[0].times.mean - 1.0).abs() < 1e-12 && points[0].times.count == 2, "2 and 1/2");
        assert!((points[1].times.mean - 0.5).abs() < 1e-12 && points[1].times.interval.is_none());
        // 120 samples over 30 workers; 30 x 400 kB at 125 MB/s.
        let curve = points[0].curve;
        assert!((points[0].share - 4e-3).abs() < 1e-15 && (curve.all_gradients(125e6) - 0.096).abs() < 1e-12);
        // Six shares, and half of the upload; the relayed download, a thirtieth of C, is over a chunk of four later.
        let solon = points[0].predicted.solon.get();
        assert!((0.0728..0.0732).contains(&solon), "{solon}");
        let sent = Curve { push: Push::Direct, ..curve }.predicted(125e6, 4e-3).unwrap().solon.get();
        assert!((0.132..0.133).contains(&sent), "{sent}");
    }

    #[test]
    fn draco_with_the_workers_that_the_plan_leaves_it_is_compared() {
        // Groups of 11 of 45 workers: 44 of them.
        let [solon, draco] = pair(1e-3, 1, [1.0, 2.0]).map(|mut run| {
            let settings = &mut run.manifest.settings;
            settings.adversaries = 5;
            (settings.workers, settings.redundancy, settings.compression) =
                match run.manifest.variant.starts_with("solon") {
                    true => (45, 15, 5),
                    false => (44, 11, 1),
                };
            run
        });
        assert_eq!(points(&experiment(vec![solon.clone(), draco.clone()])).len(), 1);
        let mut fewer = draco;
        fewer.manifest.settings.workers = 33;
        assert_eq!(points(&experiment(vec![solon, fewer])).len(), 0);
    }

    #[test]
    fn the_curve_depends_on_c_over_c_alone() {
        let curve = Curve {
            workers: 45,
            adversaries: 5,
            stragglers: 0,
            compression: 5,
            dimension: 1_000_000,
            push: Push::Relay,
        };
        let at = |link: f64| {
            let unit = curve.all_gradients(link);
            let duel = curve.predicted(link, 0.3 * unit).unwrap();
            [duel.solon.get() / unit, duel.draco.get() / unit]
        };
        let (slow, fast) = (at(1e6), at(1e9));
        assert!(slow.iter().zip(fast).all(|(a, b)| (a / b - 1.0).abs() < 1e-9), "{slow:?} {fast:?}");
    }

    #[test]
    fn other_liars_other_links_and_no_link_make_no_pair() {
        let with = |change: &dyn Fn(&mut Run)| {
            let [solon, mut draco] = pair(1e-3, 1, [1.0, 1.0]);
            change(&mut draco);
            points(&experiment(vec![solon, draco])).len()
        };
        assert_eq!(with(&|_| {}), 1);
        assert_eq!(with(&|run| run.manifest.settings.adversaries = 1), 0);
        assert_eq!(with(&|run| run.manifest.settings.link = Some(1e6)), 0);
        assert_eq!(with(&|run| run.manifest.settings.liars = 1), 0, "fewer lie");
        assert_eq!(with(&|run| run.manifest.settings.push = Push::Direct), 0, "another way of updates");
        assert_eq!(with(&|run| run.manifest.settings.workers = 25), 0, "fewer workers than the plan gives it");
        assert_eq!(with(&|run| run.manifest.seed = 2), 0, "no seed in common");
        let unshaped = pair(1e-3, 1, [1.0, 1.0]).map(|mut run| {
            run.manifest.settings.link = None;
            run
        });
        assert!(points(&experiment(unshaped.to_vec())).is_empty());
    }
}
