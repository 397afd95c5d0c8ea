//! The picture of the crossover: steps of Solon and Draco over the time of a gradient, both in units of C, so that all links lie on
//! one curve.

use std::fmt::Write;

use super::crossover::{Curve, Point, break_even};
use super::curves::powers;
use super::figure::{Figure, Key, Panel, Shape, dot};
use super::statistics::Estimate;
use super::variants::digits;
use crate::lab::record::Push;
use crate::svg::{Axes, Scale};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 340.0;

/// What the plot shows as the link of curves: what both axes count does not depend on it.
const LINK: f64 = 125e6;

/// A panel per code; nothing without points.
pub(super) fn figure(experiment: &str, points: &[Point]) -> Option<Figure> {
    let mut curves: Vec<Curve> = Vec::new();
    for point in points {
        if !curves.contains(&point.curve) {
            curves.push(point.curve);
        }
    }
    let panels: Vec<Panel> = curves
        .iter()
        .map(|curve| panel(curve, &points.iter().filter(|point| point.curve == *curve).collect::<Vec<_>>()))
        .collect();
    let emulated = points.iter().any(|point| point.emulated);
    let key = |text: &str, shape| Key { text: text.into(), shape };
    let mut legend = vec![
        key("Solon, predicted", Shape::Line("solon", SOLON)),
        key("Draco, predicted", Shape::Line("draco", DRACO)),
        key("Solon, measured", Shape::Dot("solon")),
        key("Draco, measured", Shape::Dot("draco")),
    ];
    if points.iter().any(|point| break_even(point).is_some()) {
        legend.push(key("break-even, predicted", Shape::Line("faint", r#"stroke-width="1.5" stroke-dasharray="3 4""#)));
    }
    (!panels.is_empty()).then(|| Figure {
        name: format!("{experiment}-crossover"),
        title: "Solon against Draco".into(),
        caption: format!(
            "A step over C, the time in which the link brings a full gradient of every worker, by c / C, where c is the time of a share \
             of the samples without redundancy{}. Lines: as `solon plan` predicts, without encoding, decoding and what else cores are busy with. \
             Points: measured, with Student's interval of 95 % where there are several seeds.",
            if emulated { " (emulated: slept)" } else { "" }
        ),
        legend,
        panels,
    })
}

const SOLON: &str = r#"stroke-width="2.5""#;
const DRACO: &str = r#"stroke-width="2.25" stroke-dasharray="9 5""#;

fn panel(curve: &Curve, points: &[&Point]) -> Panel {
    let place = |point: &Point| point.share / curve.all_gradients(point.link);
    let places = || points.iter().map(|point| place(point)).chain(points.iter().filter_map(|point| break_even(point)));
    // A factor of 2 of room on either side.
    let (first, last) = (places().fold(f64::INFINITY, f64::min) / 2.0, places().fold(0.0, f64::max) * 2.0);
    let unit = curve.all_gradients(LINK);
    let steps = 60;
    let at = |step: usize| first * (last / first).powf(step as f64 / steps as f64);
    let (mut solon, mut draco) = (Vec::new(), Vec::new());
    for x in (0..=steps).map(at) {
        if let Some(duel) = curve.predicted(LINK, x * unit) {
            solon.push((x.log10(), duel.solon.get() / unit));
            draco.push((x.log10(), duel.draco.get() / unit));
        }
    }
    let measured = |point: &Point, which: usize| {
        let over = curve.all_gradients(point.link);
        let Estimate { mean, interval, .. } = point.measured[which];
        (mean / over, interval.map(|ends| ends.map(|end| end / over)))
    };
    let heights = || {
        let drawn = solon.iter().chain(&draco).map(|&(_, y)| y);
        drawn.chain(points.iter().flat_map(|point| [measured(point, 0).0, measured(point, 1).0]))
    };
    let (low, high) = (heights().fold(f64::INFINITY, f64::min) / 1.15, heights().fold(0.0, f64::max) * 1.15);
    let axes = Axes {
        left: 60.0,
        right: WIDTH - 20.0,
        top: 30.0,
        bottom: HEIGHT - 42.0,
        steps: first.log10()..last.log10(),
        values: low..high,
        scale: Scale::Logarithmic,
    };
    let title = format!(
        "P = {}, s = {}, r_c = {}, d = {}, updates {}",
        curve.workers,
        curve.adversaries,
        curve.compression,
        digits(curve.dimension as f64),
        if curve.push == Push::Relay { "relayed" } else { "sent by the daemon" }
    );
    let mut svg = format!(r#"<text class="head" x="{}" y="16">{title}</text>"#, axes.left);
    let ticks: Vec<(f64, String)> = powers(low, high).into_iter().map(|(at, name)| (10f64.powf(at), name)).collect();
    axes.draw_grid(&ticks, &mut svg);
    axes.draw_marks(&powers(first, last), "c / C", &mut svg);
    let even = points.iter().find_map(|point| break_even(point));
    if let Some(even) = even {
        let x = axes.x(even.log10());
        let _ = write!(
            svg,
            r#"<line class="even" x1="{x:.1}" x2="{x:.1}" y1="{}" y2="{}"/><text class="end" x="{:.1}" y="{:.1}">Solon faster</text><text x="{:.1}" y="{:.1}">Draco faster</text>"#,
            axes.top,
            axes.bottom,
            x - 8.0,
            axes.bottom - 8.0,
            x + 8.0,
            axes.bottom - 8.0
        );
    }
    axes.draw_path("draco", DRACO, &draco, &mut svg);
    axes.draw_path("solon", SOLON, &solon, &mut svg);
    for (which, colour) in [(1, "draco"), (0, "solon")] {
        for point in points {
            let ((mean, interval), x) = (measured(point, which), axes.x(place(point).log10()));
            if let Some([from, to]) = interval {
                let _ = write!(
                    svg,
                    r#"<line class="whisker" style="stroke: var(--{colour})" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{:.1}"/>"#,
                    axes.y(from.max(low)),
                    axes.y(to)
                );
            }
            svg += &dot(colour, x, axes.y(mean));
        }
    }
    let mut description: Vec<String> = points
        .iter()
        .map(|point| {
            format!(
                "At c / C = {} Draco takes {:.2} times as long as Solon, predicted {:.2}",
                digits(place(point)),
                point.times.mean,
                point.predicted.draco.get() / point.predicted.solon.get()
            )
        })
        .collect();
    description.push(match even {
        Some(even) => format!("Break-even is predicted at {}", digits(even)),
        None => "No break-even is predicted".into(),
    });
    Panel { title, description: format!("{}.", description.join(". ")), width: WIDTH, height: HEIGHT, inside: svg }
}
