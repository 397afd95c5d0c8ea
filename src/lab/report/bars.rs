//! What a step consists of: a bar per rule, cut into its wall parts, and below it how long the same things really took.

use std::fmt::Write;

use super::curves::{emulation, round};
use super::figure::{Figure, Fill, Key, Panel, Shape, block};
use super::table::{Cell, Table};
use super::variants::{Experiment, Job, Variant, fixed};
use crate::lab::record::Step;
use crate::svg::{LINE, escape};

/// A part of a step: its name, which is its colour too, and its milliseconds.
pub(super) type Part = (&'static str, fn(&Step) -> f64);

/// The wall parts, in order; they add up to the step.
pub(super) const WALL: [Part; 7] = [
    ("compute", |step| step.compute_ms),
    ("encode", |step| step.encode_ms),
    ("wire", |step| step.wire_ms),
    ("locate", |step| step.locate_ms),
    ("decode", |step| step.decode_ms),
    ("push", |step| step.push_ms),
    ("apply", |step| step.apply_ms),
];

/// The busy parts; they overlap each other and the wall parts.
pub(super) const BUSY: [Part; 4] = [
    ("compute", |step| step.compute_busy_ms),
    ("encode", |step| step.encode_busy_ms),
    ("locate", |step| step.locate_busy_ms),
    ("decode", |step| step.decode_busy_ms),
];

const WIDTH: f64 = 760.0;
/// Where bars end at the most: the total stands to the right of the longest.
const RIGHT: f64 = 680.0;
/// Of a bar, of a busy part below it, and of all for a variant.
const BAR: f64 = 20.0;
const THIN: f64 = 4.0;
const ROW: f64 = BAR + 4.0 * (THIN + 1.0) + 16.0;

/// What is shown together: a title, and variants by name.
type Shown<'a> = Vec<(String, Vec<(String, &'a Variant)>)>;

/// Each rule once for each link and gradient time: without liars, or with its first attack if it was never run without.
fn shown(experiment: &Experiment) -> Shown<'_> {
    let jobs = experiment.jobs();
    let mut kinds: Vec<(&Job, Vec<(&str, &Variant)>)> = Vec::new();
    for (job, variants) in &jobs {
        let at = kinds.iter().position(|(kind, _)| kind.is_like(job)).unwrap_or_else(|| {
            kinds.push((job, Vec::new()));
            kinds.len() - 1
        });
        for variant in variants {
            let own = variant.label.as_str();
            match kinds[at].1.iter_mut().find(|(label, _)| *label == own) {
                Some((_, before)) if before.settings().attack.is_none() || job.attack.is_some() => {}
                Some((_, before)) => *before = variant,
                None => kinds[at].1.push((own, variant)),
            }
        }
    }
    let order = |job: &Job| (job.link.unwrap_or(f64::INFINITY), job.gradient_time.unwrap_or(0.0));
    kinds.sort_by(|(a, _), (b, _)| order(a).partial_cmp(&order(b)).expect("rates and times are numbers"));
    let named = |(label, variant): (&str, &'_ Variant)| match &variant.settings().attack {
        Some(attack) => format!("{label}, {attack}"),
        None => label.to_string(),
    };
    kinds
        .into_iter()
        .map(|(job, variants)| {
            let title = job.conditions(&jobs);
            (title, variants.into_iter().map(|(label, variant)| (named((label, variant)), variant)).collect())
        })
        .collect()
}

/// The figure, with a panel per job; nothing without steps.
pub(super) fn figure(experiment: &Experiment) -> Option<Figure> {
    let panels: Vec<Panel> = shown(experiment).iter().filter_map(|(title, variants)| panel(title, variants)).collect();
    if panels.is_empty() {
        return None;
    }
    let mut legend: Vec<Key> =
        WALL.iter().map(|(name, _)| Key { text: (*name).into(), shape: Shape::Box(name) }).collect();
    if experiment.present().any(|variant| variant.settings().gradient_time.is_some()) {
        legend.insert(1, Key { text: "compute, emulated".into(), shape: Shape::Hatched("compute") });
    }
    Some(Figure {
        name: format!("{}-step", experiment.about.name),
        title: "What a step consists of".into(),
        caption: format!(
            "Wide bars: wall-clock parts of a step as its reporter sees them, which follow each other and add up to it; means over \
             steps, then seeds; {}. Thin bars below, each from 0: how long computing, encoding, locating and decoding kept somebody busy, \
             hidden behind other things or not; they must not be added.",
            emulation(experiment)
        ),
        legend,
        panels,
    })
}

/// A label in two lines: the rule, and what sets it apart.
fn halves(label: &str) -> (&str, &str) {
    label.split_once(", ").unwrap_or((label, ""))
}

/// Where bars begin, so that labels have room before them.
fn left(labels: &[&str]) -> f64 {
    let width = |label: &&str| {
        let (rule, rest) = halves(label);
        (7.6 * rule.chars().count() as f64).max(6.8 * rest.chars().count() as f64)
    };
    labels.iter().map(width).fold(90.0, f64::max).min(360.0) + 16.0
}

fn panel(title: &str, variants: &[(String, &Variant)]) -> Option<Panel> {
    let total = |variant: &Variant| variant.mean(|step| step.step_ms);
    let busiest = |variant: &Variant| BUSY.iter().filter_map(|(_, part)| variant.mean(part)).fold(0.0, f64::max);
    let shown: Vec<(&str, &Variant, f64)> =
        variants.iter().filter_map(|(label, variant)| Some((label.as_str(), *variant, total(variant)?))).collect();
    let longest = shown.iter().map(|(_, variant, total)| total.max(busiest(variant))).reduce(f64::max)?.max(1e-6);
    let left = left(&shown.iter().map(|(label, ..)| *label).collect::<Vec<_>>());
    let scale = (RIGHT - left) / longest;
    let mut svg = format!(r#"<text class="head" x="{left}" y="16">{}</text>"#, escape(title));
    let (mut y, mut described) = (30.0, Vec::new());
    let bottom = y + ROW * shown.len() as f64;
    for (mark, label) in round(longest) {
        let x = left + scale * mark;
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="24" y2="{bottom}"/><text class="mid" x="{x:.1}" y="{}">{label}</text>"#,
            bottom + 17.0
        );
    }
    let _ = write!(
        svg,
        r#"<text class="mid" x="{}" y="{}">milliseconds</text>"#,
        (left + RIGHT) / 2.0,
        bottom + 17.0 + LINE
    );
    for (label, variant, total) in shown {
        let (rule, rest) = halves(label);
        let down = if rest.is_empty() { BAR / 2.0 + 4.5 } else { 11.5 };
        let lines = [("end name", rule, y + down), ("end", rest, y + down + LINE)];
        for (class, text, at) in lines.into_iter().filter(|(_, text, _)| !text.is_empty()) {
            let _ = write!(
                svg,
                r#"<text class="{class}" style="fill: var(--text)" x="{}" y="{at:.1}">{}</text>"#,
                left - 8.0,
                escape(text)
            );
        }
        let emulated = variant.settings().gradient_time.is_some();
        let mut x = left;
        for (name, part) in WALL {
            let width = scale * variant.mean(part).unwrap_or(0.0);
            let fill = if emulated && name == "compute" { Fill::Hatched } else { Fill::Plain };
            if width >= 0.05 {
                svg += &block(name, x, y, width, BAR, fill);
            }
            x += width;
        }
        let _ = write!(
            svg,
            r#"<text class="value" x="{:.1}" y="{:.1}">{} ms</text>"#,
            x + 6.0,
            y + BAR / 2.0 + 4.5,
            fixed(total)
        );
        for (at, (name, part)) in BUSY.into_iter().enumerate() {
            let width = scale * variant.mean(part).unwrap_or(0.0);
            if width >= 0.05 {
                svg += &block(name, left, y + BAR + 2.0 + at as f64 * (THIN + 1.0), width, THIN, Fill::Plain);
            }
        }
        described.push(format!("{label} {} ms", fixed(total)));
        y += ROW;
    }
    let description = format!("A step takes: {}.", described.join("; "));
    Some(Panel { title: title.into(), description, width: WIDTH, height: bottom + 40.0, inside: svg })
}

/// All numbers of the figure, in milliseconds, a table per job.
pub(super) fn tables(experiment: &Experiment) -> Vec<(String, Table)> {
    shown(experiment).into_iter().map(|(title, variants)| (title, table(&variants))).collect()
}

fn table(variants: &[(String, &Variant)]) -> Table {
    let mut table = Table::new(&["milliseconds", "step"]);
    table.headings.extend(WALL.iter().map(|(name, _)| (*name).to_string()));
    table.headings.extend(BUSY.iter().map(|(name, _)| format!("busy: {name}")));
    for (label, variant) in variants {
        let cell = |part: fn(&Step) -> f64| match variant.mean(part) {
            Some(mean) => Cell::plain(fixed(mean)),
            None => Cell::missing("–"),
        };
        let mut row = vec![Cell::plain(label), cell(|step| step.step_ms)];
        row.extend(WALL.iter().map(|(name, part)| {
            let mut cell = cell(*part);
            if *name == "compute" && variant.settings().gradient_time.is_some() {
                cell.text += " (emulated)";
            }
            cell
        }));
        row.extend(BUSY.iter().map(|(_, part)| cell(*part)));
        table.rows.push(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::sample::{experiment, run};
    use super::*;

    #[test]
    fn wall_parts_of_a_record_add_up_to_its_step() {
        let step = &run("solon", None, 1, 0.9).steps[0];
        let sum: f64 = WALL.iter().map(|(_, part)| part(step)).sum();
        assert!((sum - step.step_ms).abs() < 1e-9, "{step:?}");
    }

    #[test]
    fn bars_are_as_long_as_their_parts() {
        let mut slow = run("bulyan", None, 1, 0.9);
        slow.steps
            .iter_mut()
            .for_each(|step| (step.step_ms, step.decode_ms) = (step.step_ms + 100.0, step.decode_ms + 100.0));
        let panel = figure(&experiment(vec![run("solon", None, 1, 0.9), slow])).unwrap().panels.remove(0);
        // The longest bar ends at the right edge.
        let ends = panel.inside.split("<text class=\"value\" x=\"").skip(1);
        let ends: Vec<f64> = ends.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect();
        assert!((ends[1] - (RIGHT + 6.0)).abs() < 0.11 && ends[0] < ends[1], "{ends:?}");
    }

    #[test]
    fn a_label_that_is_long_has_two_lines_and_room() {
        assert_eq!(halves("draco, P = 44, relayed, reverse"), ("draco", "P = 44, relayed, reverse"));
        assert_eq!(halves("median"), ("median", ""));
        assert!(left(&["draco, P = 44, for 5 liars, relayed, reverse"]) > left(&["median"]) + 100.0);
    }

    #[test]
    fn emulated_computing_is_hatched_and_said() {
        let mut slept = run("solon", None, 1, 0.9);
        slept.manifest.settings.gradient_time = Some(1e-3);
        let emulated = experiment(vec![slept]);
        let drawn = figure(&emulated).unwrap();
        assert!(
            drawn.panels[0].inside.contains("hatch") && drawn.legend.iter().any(|key| key.text.contains("emulated"))
        );
        assert!(drawn.caption.contains("time of gradients is emulated"));
        assert!(tables(&emulated)[0].1.rows[0][2].text.ends_with("(emulated)"));
        let measured = figure(&experiment(vec![run("solon", None, 1, 0.9)])).unwrap();
        assert!(!measured.panels[0].inside.contains("hatch") && measured.caption.contains("all measured"));
    }

    #[test]
    fn each_rule_is_shown_once_and_without_liars_if_it_was_run_so() {
        let runs = vec![
            run("median", Some("reverse"), 1, 0.9),
            run("solon", Some("reverse"), 1, 0.9),
            run("solon", Some("alie"), 1, 0.9),
            run("median", None, 1, 0.9),
        ];
        let experiment = experiment(runs);
        let shown = shown(&experiment);
        let names: Vec<&str> = shown[0].1.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((shown.len(), names), (1, vec!["median", "solon, reverse"]));
    }
}
