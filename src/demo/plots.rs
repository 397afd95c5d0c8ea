//! The three plots of the report, each an inline SVG with a title and a description for those who cannot see it.

use std::fmt::Write;

use super::record::{Leg, LegKind, Report, Step, list, percent};
use crate::svg::{Axes, LINE, Line, Scale, WIDTH, decade_ticks, escape};

/// Room on the left for tick labels, and on the right for the labels of lines.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 122.0;
/// Height of the plots with lines, and room below their axes.
const HEIGHT: f64 = 300.0;
const BELOW: f64 = 42.0;

/// Accuracy by step, a line per leg.
pub(super) fn accuracy(report: &Report) -> String {
    let axes = axes(report, 0.0..1.0, Scale::Linear);
    let lines: Vec<Line> = report
        .legs
        .iter()
        .map(|leg| Line {
            colour: colour(leg.kind),
            style: match leg.kind {
                // Wide and pale, so that it shows under the leg with Solon, which should lie on it.
                LegKind::HonestMean => r#"stroke-width="9" opacity="0.45""#,
                LegKind::AttackedMean => r#"stroke-width="2.5" stroke-dasharray="7 5""#,
                LegKind::AttackedSolon => r#"stroke-width="2.5""#,
            },
            label: [leg.kind.to_string(), leg.accuracy().map_or("not judged".into(), percent)],
            points: points(leg, |step| step.accuracy),
        })
        .collect();
    let mut svg = String::new();
    axes.draw(&[0.0, 0.2, 0.4, 0.6, 0.8, 1.0].map(|part| (part, format!("{:.0} %", part * 100.0))), &mut svg);
    axes.draw_lines(&lines, &mut svg);
    let legs: Vec<String> = lines.iter().map(|line| line.label.join(" ")).collect();
    frame("accuracy", "Test accuracy by step", &format!("At the end: {}.", legs.join("; ")), HEIGHT, &svg)
}

/// Residual over tolerance by step, as received and after correction.
pub(super) fn residual(report: &Report) -> String {
    let title = "Residual over tolerance by step";
    let over =
        |step: &Step, residual: Option<f64>| Some(residual? / step.tolerance.filter(|&tolerance| tolerance > 0.0)?);
    let leg = report.leg(LegKind::AttackedSolon);
    let received = leg.map_or(vec![], |leg| points(leg, |step| over(step, step.residual_received)));
    let decoded = leg.map_or(vec![], |leg| points(leg, |step| over(step, step.residual)));
    if received.is_empty() && decoded.is_empty() {
        let svg = format!(r#"<text class="mid" x="{}" y="40">No residuals were recorded.</text>"#, WIDTH / 2.0);
        return frame("residual", title, "No residuals were recorded.", 70.0, &svg);
    }
    let values = || received.iter().chain(&decoded).map(|&(_, value)| value).filter(|&value| value > 0.0);
    // A decade of room on either side of the tolerance at least, and whole decades.
    let low = values().fold(0.1, f64::min).log10().floor().max(-12.0);
    let high = values().fold(10.0, f64::max).log10().ceil().min(45.0);
    let axes = axes(report, 10f64.powf(low)..10f64.powf(high), Scale::Logarithmic);
    let largest = |points: &[(f64, f64)]| {
        let largest = points.iter().map(|&(_, value)| value).fold(0.0, f64::max);
        format!("at most {}", times(largest))
    };
    let mut lines = vec![
        Line {
            colour: "attacked",
            style: r#"stroke-width="2.5" stroke-dasharray="7 5""#,
            label: ["as received".into(), largest(&received)],
            points: received,
        },
        Line {
            colour: "solon",
            style: r#"stroke-width="2.5""#,
            label: ["decoded".into(), largest(&decoded)],
            points: decoded,
        },
    ];
    lines.retain(|line| !line.points.is_empty());
    let mut svg = String::new();
    axes.draw(&decade_ticks(&axes.values, 6), &mut svg);
    axes.draw_lines(&lines, &mut svg);
    // Over the lines, with a halo, so that it can be read where they cross it.
    let y = axes.y(1.0);
    let _ = write!(
        svg,
        r#"<line class="limit" x1="{}" x2="{}" y1="{y:.1}" y2="{y:.1}"/><text class="halo" x="{}" y="{:.1}">tolerance</text>"#,
        axes.left,
        axes.right,
        axes.left + 6.0,
        y - 6.0
    );
    let described: Vec<String> = lines.iter().map(|line| line.label.join(" ")).collect();
    frame("residual", title, &format!("In units of the tolerance: {}.", described.join("; ")), HEIGHT, &svg)
}

/// What a worker was in a step.
#[derive(Clone, Copy, PartialEq)]
enum Seen {
    Honest,
    Liar,
    Absent,
}

impl Seen {
    /// Class of its cells, and part of a row's height: the states differ without colour.
    fn look(self) -> (&'static str, f64) {
        match self {
            Seen::Honest => ("honest", 0.14),
            Seen::Liar => ("liar", 0.84),
            Seen::Absent => ("absent", 0.44),
        }
    }
}

/// Worker by step: who was named when in the leg with Solon.
pub(super) fn named(report: &Report) -> String {
    // Never so low that the numbers of two workers touch: a large job makes a tall plot.
    let row = (320.0 / report.workers.max(1) as f64).clamp(14.0, 20.0);
    let group_gap = row * 0.6;
    let groups = report.workers.div_ceil(report.redundancy.max(1));
    let top = 8.0;
    let bottom = top + row * report.workers as f64 + group_gap * groups.saturating_sub(1) as f64 + 4.0;
    // A cell is as wide as a step, with the step's number in its middle.
    let end = last_step(report);
    let axes = Axes {
        left: 84.0,
        right: WIDTH - 12.0,
        top,
        bottom,
        steps: 0.5..end + 0.5,
        values: 0.0..1.0,
        scale: Scale::Linear,
    };
    let mut svg = String::new();
    let steps = report.leg(LegKind::AttackedSolon).map_or(&[][..], |leg| &leg.steps);
    for worker in 0..report.workers {
        let middle = top + row * (worker as f64 + 0.5) + group_gap * (worker / report.redundancy.max(1)) as f64;
        let lies = report.liars.contains(&worker);
        let (class, text) = if lies { ("end lies", format!("{worker} lies")) } else { ("end", worker.to_string()) };
        let _ = write!(svg, r#"<text class="{class}" x="{}" y="{:.1}">{text}</text>"#, axes.left - 8.0, middle + 4.5);
        for run in steps.chunk_by(|a, b| seen(a, worker) == seen(b, worker) && a.step + 1 == b.step) {
            let (class, height) = seen(&run[0], worker).look();
            let x = axes.x(run[0].step as f64 - 0.5);
            let _ = write!(
                svg,
                r#"<rect class="{class}" x="{x:.1}" y="{:.1}" width="{:.1}" height="{:.1}"/>"#,
                middle - row * height / 2.0,
                axes.x(run[run.len() - 1].step as f64 + 0.5) - x,
                row * height
            );
        }
    }
    axes.draw_steps(&mut svg);
    let legend_top = bottom + 52.0;
    let legend = [(Seen::Liar, "named as a liar"), (Seen::Absent, "absent"), (Seen::Honest, "taken as honest")];
    let mut x = axes.left - 30.0;
    for (state, text) in legend {
        let (class, height) = state.look();
        let size = 14.0;
        let _ = write!(
            svg,
            r#"<rect class="{class}" x="{x}" y="{:.1}" width="22" height="{:.1}"/><text x="{}" y="{}">{text}</text>"#,
            legend_top - 4.5 - size * height / 2.0,
            size * height,
            x + 28.0,
            legend_top
        );
        x += 28.0 + 7.2 * text.len() as f64 + 24.0;
    }
    let named = report.leg(LegKind::AttackedSolon).map_or(vec![], Leg::named);
    let mut description = format!("Workers that lie: {}.", or_nobody(&report.liars));
    for one in &named {
        let _ = write!(
            description,
            " Worker {} was named in {} steps, first in step {}.",
            one.worker, one.steps, one.first_step
        );
    }
    if named.is_empty() {
        description.push_str(" Nobody was named.");
    }
    frame("named", "Who was named when", &description, legend_top + LINE, &svg)
}

fn seen(step: &Step, worker: usize) -> Seen {
    if step.liars.contains(&worker) {
        Seen::Liar
    } else if step.absent.contains(&worker) {
        Seen::Absent
    } else {
        Seen::Honest
    }
}

fn or_nobody(workers: &[usize]) -> String {
    if workers.is_empty() { "nobody".into() } else { list(workers) }
}

/// The name of a leg's colour.
pub(super) fn colour(kind: LegKind) -> &'static str {
    match kind {
        LegKind::HonestMean => "truth",
        LegKind::AttackedMean => "attacked",
        LegKind::AttackedSolon => "solon",
    }
}

fn axes(report: &Report, values: std::ops::Range<f64>, scale: Scale) -> Axes {
    let steps = 1.0..last_step(report).max(2.0);
    Axes { left: LEFT, right: WIDTH - RIGHT, top: 12.0, bottom: HEIGHT - BELOW, steps, values, scale }
}

fn last_step(report: &Report) -> f64 {
    let taken = report.legs.iter().filter_map(|leg| leg.steps.last()).map(|step| step.step).max();
    taken.unwrap_or(0).max(report.steps).max(1) as f64
}

/// The steps for which there is a finite value, with it.
fn points(leg: &Leg, value: impl Fn(&Step) -> Option<f64>) -> Vec<(f64, f64)> {
    let point = |step: &Step| value(step).filter(|value| value.is_finite()).map(|value| (step.step as f64, value));
    leg.steps.iter().filter_map(point).collect()
}

/// `0.0912` as `0.091 x`, `912345.0` as `9.1e5 x`.
fn times(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        0.001..1.0 => format!("{value:.2} ×"),
        1.0..1e4 => format!("{value:.0} ×"),
        _ => format!("{value:.0e} ×"),
    }
}

fn frame(id: &str, title: &str, description: &str, height: f64, inside: &str) -> String {
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{id}-title {id}-description"><title id="{id}-title">{}</title><desc id="{id}-description">{}</desc>{inside}</svg>"#,
        escape(title),
        escape(description)
    )
}

#[cfg(test)]
mod tests {
    use super::super::record::made_up;
    use super::*;

    #[test]
    fn every_plot_has_a_title_and_says_what_it_shows() {
        let report = made_up();
        for (plot, words) in [
            (accuracy(&report), "mean, attacked 11.9 %; Solon, attacked 96.1 %."),
            (residual(&report), "decoded at most 0.11 ×."),
            (named(&report), "Worker 11 was named in 112 steps, first in step 9."),
        ] {
            assert!(plot.contains("<title ") && plot.contains(words), "{words}: {plot}");
            assert!(!plot.contains("NaN") && !plot.contains("inf\""), "{plot}");
        }
    }

    #[test]
    fn a_row_of_the_grid_is_drawn_in_runs() {
        let plot = named(&made_up());
        // Worker 6 is honest, absent, honest; worker 11 honest, liar; four more states in the legend and the other rows.
        assert_eq!(plot.matches(r#"class="absent""#).count(), 1 + 1);
        assert_eq!(plot.matches(r#"class="liar""#).count(), 4 + 1);
        assert_eq!(plot.matches(r#"class="honest""#).count(), 7 + 2 + 1 + 1);
        assert_eq!(plot.matches("lies</text>").count(), 4);
    }

    #[test]
    fn residuals_of_nothing_and_of_everything_are_drawn() {
        let mut report = made_up();
        for step in &mut report.legs[2].steps {
            (step.residual, step.residual_received) = (Some(0.0), Some(1e30));
        }
        let plot = residual(&report);
        assert!(!plot.contains("NaN") && plot.contains("as received"), "{plot}");
        report.legs[2].steps.iter_mut().for_each(|step| step.residual_received = Some(0.0));
        assert!(residual(&report).contains("as received at most 0; decoded at most 0."));
        report.legs[2].steps.iter_mut().for_each(|step| step.tolerance = None);
        assert!(residual(&report).contains("No residuals were recorded."));
    }

    #[test]
    fn a_run_of_no_steps_is_drawn_without_panic() {
        let mut report = made_up();
        report.legs.iter_mut().for_each(|leg| leg.steps.clear());
        (report.steps, report.workers) = (0, 0);
        for plot in [accuracy(&report), residual(&report), named(&report)] {
            assert!(plot.ends_with("</svg>") && !plot.contains("NaN"), "{plot}");
        }
    }
}
