//! Accuracy by steps and by seconds: a panel per attack, a line per rule.

use super::figure::{Figure, Key, Panel, Shape};
use super::labels::{HONEST, is_honest};
use super::statistics::mean;
use super::variants::{Experiment, Job, Variant, digits};
use crate::svg::{Axes, Scale, escape};

/// Three of them fit beside each other in a file.
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 230.0;

/// What accuracy is drawn over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Over {
    /// Steps.
    Steps,
    /// Seconds of a run; by powers of ten where runs differ much, or last many times longer than to where they are first judged.
    Seconds,
}

/// Colour and line of a rule: they differ without colour, and Solon's is over the others.
pub(super) fn look(rule: &str) -> (&'static str, &'static str) {
    match rule {
        HONEST => ("mean", r#"stroke-width="7" opacity="0.4""#),
        "mean" => ("mean", r#"stroke-width="1.75" stroke-dasharray="6 3""#),
        "solon" => ("solon", r#"stroke-width="2.75""#),
        // Wider than Solon, under which it lies where both are exact.
        "draco" => ("draco", r#"stroke-width="5" stroke-dasharray="9 7""#),
        "cyclic" => ("cyclic", r#"stroke-width="3.5" stroke-dasharray="2 6""#),
        "signum" => ("signum", r#"stroke-width="2" stroke-dasharray="2 4""#),
        "median" => ("median", r#"stroke-width="1.75""#),
        "trimmed-mean" => ("trimmed-mean", r#"stroke-width="1.75" stroke-dasharray="5 3""#),
        "krum" => ("krum", r#"stroke-width="1.75" stroke-dasharray="8 3 2 3""#),
        "multi-krum" => ("multi-krum", r#"stroke-width="1.75" stroke-dasharray="3 3""#),
        "bulyan" => ("bulyan", r#"stroke-width="2" stroke-dasharray="12 4""#),
        "geometric-median" => ("geometric-median", r#"stroke-width="1.75" stroke-dasharray="1 3""#),
        _ => ("other", r#"stroke-width="1.5" stroke-dasharray="6 2 1 2 1 2""#),
    }
}

/// Further variants of a rule have other dashes.
const AGAIN: [&str; 3] = [
    r#"stroke-width="2" stroke-dasharray="14 3 2 3""#,
    r#"stroke-width="2" stroke-dasharray="4 6""#,
    r#"stroke-width="1.25""#,
];

/// What is drawn together: a panel's title, and its lines by label. A job with nothing but the honest mean is in all others already.
type Drawn<'a> = Vec<(String, Vec<(String, &'a Variant)>)>;

fn drawn<'a>(experiment: &'a Experiment, jobs: &[(Job, Vec<&'a Variant>)]) -> Drawn<'a> {
    let all = jobs.iter().map(|(job, variants)| (job.title(jobs), experiment.compared(job, variants)));
    let mut drawn: Drawn<'a> = all.collect();
    if drawn.iter().any(|(_, lines)| lines.len() > 1) {
        drawn.retain(|(_, lines)| lines.iter().any(|(label, _)| !is_honest(label)));
    }
    drawn
}

/// The same of the honest mean.
const HONEST_AGAIN: &str = r#"stroke-width="7" opacity="0.4" stroke-dasharray="4 12""#;

/// A look for every label, in the order in which they are drawn.
fn looks(drawn: &Drawn<'_>) -> Vec<(String, &'static str, &'static str)> {
    let mut looks: Vec<(String, &str, &str)> = Vec::new();
    for (label, variant) in drawn.iter().flat_map(|(_, lines)| lines) {
        if looks.iter().any(|(other, ..)| other == label) {
            continue;
        }
        let honest = is_honest(label);
        let (colour, style) = look(if honest { HONEST } else { &variant.settings().rule });
        let before = looks.iter().filter(|(other, before, _)| *before == colour && is_honest(other) == honest).count();
        let style = match (before, honest) {
            (0, _) => style,
            (_, true) => HONEST_AGAIN,
            (_, false) => AGAIN[(before - 1) % AGAIN.len()],
        };
        looks.push((label.clone(), colour, style));
    }
    let order = |label: &str, colour: &str| match colour {
        _ if is_honest(label) => 0,
        "draco" | "cyclic" => 2,
        "solon" => 3,
        _ => 1,
    };
    looks.sort_by_key(|(label, colour, _)| order(label, colour));
    looks
}

/// The figure; nothing if nothing was judged.
pub(super) fn figure(experiment: &Experiment, over: Over) -> Option<Figure> {
    let jobs = experiment.jobs();
    let drawn = drawn(experiment, &jobs);
    let looks = looks(&drawn);
    let mut panels = Vec::new();
    for (title, variants) in &drawn {
        let mut lines: Vec<(usize, Vec<(f64, f64)>)> = Vec::new();
        for (label, variant) in variants {
            let look = looks.iter().position(|(other, ..)| other == label).expect("all labels have a look");
            let place = |(step, seconds, accuracy)| match over {
                Over::Steps => (step, accuracy),
                Over::Seconds => (seconds, accuracy),
            };
            let points: Vec<(f64, f64)> = variant.curve().into_iter().map(place).collect();
            if !points.is_empty() {
                lines.push((look, points));
            }
        }
        lines.sort_by_key(|(look, _)| *look);
        if !lines.is_empty() {
            let ends: Vec<String> = variants.iter().map(|(label, variant)| end(label, variant)).collect();
            panels.push(panel(title, &format!("At the end: {}.", ends.join("; ")), over, &lines, &looks));
        }
    }
    if panels.is_empty() {
        return None;
    }
    let legend =
        looks.iter().map(|(label, colour, style)| Key { text: label.clone(), shape: Shape::Line(colour, style) });
    let (name, title, what) = match over {
        Over::Steps => ("steps", "Accuracy by steps", "after each step".to_string()),
        Over::Seconds => ("time", "Accuracy by seconds", format!("by seconds of training; {}", emulation(experiment))),
    };
    Some(Figure {
        name: format!("{}-{name}", experiment.about.name),
        title: title.into(),
        caption: format!(
            "Accuracy on test data {what}. Means over seeds, where they were judged; a panel per attack{}.",
            ways(&jobs)
        ),
        legend: legend.collect(),
        panels,
    })
}

/// That panels differ in the way of updates, if they do.
fn ways(jobs: &[(Job, Vec<&Variant>)]) -> &'static str {
    let differ = jobs.iter().any(|(job, _)| job.push != jobs[0].0.push);
    if differ { " and way of updates, which are not to be compared with each other" } else { "" }
}

/// How much of the seconds is emulated.
pub(super) fn emulation(experiment: &Experiment) -> String {
    let (mut emulated, mut computed) = (false, false);
    experiment.present().for_each(|variant| match variant.settings().gradient_time {
        Some(_) => emulated = true,
        None => computed = true,
    });
    match (emulated, computed) {
        (true, false) => "the time of gradients is emulated, all else is measured",
        (true, true) => "the time of gradients is emulated where a time per sample is given, all else is measured",
        _ => "all measured",
    }
    .into()
}

fn end(label: &str, variant: &Variant) -> String {
    mean(&variant.accuracies()).map_or(format!("{label} nothing"), |mean| format!("{label} {:.1} %", 100.0 * mean))
}

fn panel(
    title: &str,
    description: &str,
    over: Over,
    lines: &[(usize, Vec<(f64, f64)>)],
    looks: &[(String, &'static str, &'static str)],
) -> Panel {
    let ends = || lines.iter().filter_map(|(_, points)| points.last()).map(|&(x, _)| x);
    let (last, shortest) = (ends().fold(0.0, f64::max), ends().fold(f64::INFINITY, f64::min));
    let first = lines.iter().filter_map(|(_, points)| points.first()).map(|&(x, _)| x).fold(f64::INFINITY, f64::min);
    // What takes so many times longer is as far aside everywhere, and the first steps, where accuracy rises, have room.
    let logarithmic = over == Over::Seconds && first > 0.0 && (last > 4.0 * shortest || last > 20.0 * first);
    let place = |x: f64| if logarithmic { x.log10() } else { x };
    let steps = match over {
        _ if logarithmic => place(first)..place(last),
        Over::Steps => first.min(last - 1.0)..last,
        Over::Seconds => 0.0..last.max(f64::MIN_POSITIVE),
    };
    let axes = Axes {
        left: 52.0,
        right: WIDTH - 14.0,
        top: 28.0,
        bottom: HEIGHT - 40.0,
        steps,
        values: 0.0..1.0,
        scale: Scale::Linear,
    };
    let mut svg = format!(r#"<text class="head" x="{}" y="16">{}</text>"#, axes.left, escape(title));
    axes.draw_grid(&[0.0, 0.2, 0.4, 0.6, 0.8, 1.0].map(|part| (part, format!("{:.0} %", 100.0 * part))), &mut svg);
    match (over, logarithmic) {
        (Over::Steps, _) => axes.draw_steps(&mut svg),
        (_, false) => axes.draw_marks(&round(last), "seconds", &mut svg),
        (_, true) => axes.draw_marks(&powers(first, last), "seconds, logarithmic", &mut svg),
    }
    for (look, points) in lines {
        let (_, colour, style) = &looks[*look];
        let points: Vec<(f64, f64)> = points.iter().map(|&(x, accuracy)| (place(x), accuracy)).collect();
        axes.draw_path(colour, style, &points, &mut svg);
    }
    Panel { title: title.into(), description: description.into(), width: WIDTH, height: HEIGHT, inside: svg }
}

/// Up to five round numbers from 0 to `last`, with their names.
pub(super) fn round(last: f64) -> Vec<(f64, String)> {
    let rough = last / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let unit = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|unit| *unit >= rough * 0.999)
        .unwrap_or(rough);
    (0..6)
        .map(|count| f64::from(count) * unit)
        .filter(|mark| *mark <= 1.0001 * last)
        .map(|mark| (mark, digits(mark)))
        .collect()
}

/// Powers of ten from `first` to `last`, and numbers between them while those are few, at the places of their logarithms.
pub(super) fn powers(first: f64, last: f64) -> Vec<(f64, String)> {
    let decades = (last / first).log10();
    let (low, high) = (first.log10().floor() as i32, last.log10().ceil() as i32);
    let factors: &[f64] = match decades {
        ..1.7 => &[1.0, 2.0, 5.0],
        ..3.0 => &[1.0, 3.0],
        _ => &[1.0],
    };
    let every = (decades / 5.0).ceil().max(1.0) as i32;
    let marks = (low..=high)
        .filter(|power| power % every == 0)
        .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
    marks
        .filter(|mark| (0.999 * first..=1.001 * last).contains(mark))
        .map(|mark| (mark.log10(), digits(mark)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::{experiment, timed};
    use super::*;

    #[test]
    fn marks_are_round_and_within_the_axis() {
        let names = |marks: Vec<(f64, String)>| marks.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(" ");
        assert_eq!(names(round(10.0)), "0 5 10");
        assert_eq!(names(round(0.37)), "0 0.1 0.2 0.3");
        assert_eq!(names(powers(0.5, 21.0)), "0.5 1 2 5 10 20");
        assert_eq!(names(powers(0.3, 35.0)), "0.3 1 3 10 30");
        assert_eq!(names(powers(1.0, 1e4)), "1 10 100 1000 10000");
    }

    #[test]
    fn time_is_by_powers_only_where_runs_differ_much() {
        let panel = |slow: f64| {
            let runs = vec![
                timed("solon", 1, &[(1.0, 0.5), (2.0, 0.9)]),
                timed("bulyan", 1, &[(slow, 0.5), (2.0 * slow, 0.9)]),
            ];
            figure(&experiment(runs), Over::Seconds).unwrap().panels.remove(0).inside
        };
        assert!(!panel(3.0).contains("logarithmic") && panel(30.0).contains("logarithmic"));
    }

    #[test]
    fn time_is_by_powers_where_runs_last_many_times_their_first_step() {
        let runs = vec![timed("solon", 1, &[(1.0, 0.5), (30.0, 0.9)]), timed("draco", 1, &[(2.0, 0.5), (40.0, 0.9)])];
        let panel = figure(&experiment(runs), Over::Seconds).unwrap().panels.remove(0).inside;
        assert!(panel.contains("logarithmic"));
    }

    #[test]
    fn every_rule_has_a_line_and_a_key_and_variants_of_one_rule_differ() {
        let mut wide = timed("solon", 1, &[(1.0, 0.5)]);
        (wide.manifest.settings.compression, wide.manifest.variant) = (5, "solon-5".into());
        let experiment = experiment(vec![timed("mean", 1, &[(1.0, 0.5)]), timed("solon", 1, &[(1.0, 0.6)]), wide]);
        let figure = figure(&experiment, Over::Steps).unwrap();
        let keys: Vec<&str> = figure.legend.iter().map(|key| key.text.as_str()).collect();
        assert_eq!(keys, [HONEST, "solon, r_c = 2", "solon, r_c = 5"]);
        assert_eq!(figure.panels[0].inside.matches("<path").count(), 3);
        assert!(figure.panels[0].inside.contains(AGAIN[0]));
    }

    #[test]
    fn the_honest_mean_is_in_every_panel_and_has_none_of_its_own() {
        let mut lied = timed("median", 1, &[(1.0, 0.3)]);
        (lied.manifest.settings.attack, lied.manifest.variant) = (Some("alie".into()), "median-alie".into());
        let experiment = experiment(vec![timed("mean", 1, &[(1.0, 0.5)]), lied]);
        let figure = figure(&experiment, Over::Steps).unwrap();
        assert_eq!(figure.panels.iter().map(|panel| panel.title.as_str()).collect::<Vec<_>>(), ["alie"]);
        assert!(figure.panels[0].description.contains("mean, nobody lies 50.0 %; median 30.0 %"));
    }

    #[test]
    fn nothing_judged_is_no_figure() {
        assert!(figure(&experiment(vec![timed("mean", 1, &[])]), Over::Steps).is_none());
        assert!(figure(&experiment(vec![]), Over::Seconds).is_none());
    }
}
