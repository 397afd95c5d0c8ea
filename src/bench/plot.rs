//! Pictures of times by powers of ten, with the page's style of the demonstration's report: of a sweep, and of whatever else has curves.

use super::figures::three_digits;
use super::sweep::{Point, Sweep};
use crate::svg::{Axes, Line, Scale, WIDTH, decade_ticks, escape};

const STYLE: &str = include_str!("../demo/report.css");
const HEIGHT: f64 = 300.0;

/// One line of a picture.
pub struct Curve {
    label: &'static str,
    colour: &'static str,
    style: &'static str,
    points: Vec<(f64, f64)>,
}

impl Curve {
    /// A line through these points, from left to right, in a colour of the page's style, with SVG attributes for width and dashes.
    pub fn new(label: &'static str, colour: &'static str, style: &'static str, points: Vec<(f64, f64)>) -> Curve {
        Curve { label, colour, style, points }
    }
}

/// Times against something.
pub struct Picture {
    /// What is shown, for those who do not see it.
    pub title: String,
    /// The unit of the values.
    pub unit: &'static str,
    /// What is below.
    pub word: String,
    /// Places that are marked there, and with what; the first and the last one are the edges.
    pub marks: Vec<(f64, String)>,
    /// The later over the earlier.
    pub curves: Vec<Curve>,
}

impl Picture {
    /// The picture as a file.
    pub fn svg(&self) -> String {
        let line = |curve: &Curve| {
            let last = curve.points.last().map_or(0.0, |&(_, value)| value);
            let label = [curve.label.to_owned(), format!("{} {}", three_digits(last), self.unit)];
            Line { colour: curve.colour, style: curve.style, label, points: curve.points.clone() }
        };
        let lines: Vec<Line> = self.curves.iter().map(line).collect();
        let values =
            || lines.iter().flat_map(|line| &line.points).map(|&(_, value)| value).filter(|value| *value > 0.0);
        let low = 10f64.powf(values().fold(f64::INFINITY, f64::min).min(1e9).log10().floor());
        let high = 10f64.powf(values().fold(f64::MIN_POSITIVE, f64::max).log10().ceil()).max(10.0 * low);
        let (first, last) =
            (self.marks.first().map_or(0.0, |mark| mark.0), self.marks.last().map_or(1.0, |mark| mark.0));
        let axes = Axes {
            left: 52.0,
            right: WIDTH - 122.0,
            top: 12.0,
            bottom: HEIGHT - 42.0,
            steps: first..last.max(first + f64::EPSILON),
            values: low..high,
            scale: Scale::Logarithmic,
        };
        let mut inside = String::new();
        axes.draw_grid(&decade_ticks(&axes.values, 6), &mut inside);
        axes.draw_marks(&self.marks, &self.word, &mut inside);
        axes.draw_lines(&lines, &mut inside);
        let ends: Vec<String> = lines.iter().map(|line| line.label.join(" ")).collect();
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>{}</title>\
             <desc>At the right edge: {}.</desc><style>{STYLE}</style>\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" style=\"fill: var(--page)\"/>{inside}</svg>\n",
            escape(&self.title),
            escape(&ends.join("; "))
        )
    }
}

/// Time per round of Solon, its floors and the bytes alone.
pub(super) fn growth(sweep: &Sweep) -> String {
    // s may be 0, which has no logarithm: it and r_c are shown as they are.
    let proportional = sweep.points.iter().any(|point| point.value == 0);
    let place = |point: &Point| if proportional { point.value as f64 } else { (point.value as f64).log10() };
    let curve = |label, colour, style, value: &dyn Fn(&Point) -> f64| {
        Curve::new(label, colour, style, sweep.points.iter().map(|point| (place(point), value(point))).collect())
    };
    let curves = vec![
        curve("bytes alone", "absent", r#"stroke-width="2" stroke-dasharray="2 4""#, &|point| point.predicted_ms),
        curve("raw bytes", "honest", r#"stroke-width="5""#, &|point| point.raw_ms.median()),
        curve("data dropped", "truth", r#"stroke-width="2.5" stroke-dasharray="7 5""#, &|point| {
            point.dropping_ms.median()
        }),
        curve("Solon", "solon", r#"stroke-width="2.5""#, &|point| point.solon_ms.median()),
    ];
    Picture {
        title: format!("Milliseconds per round; {}", sweep.job),
        unit: "ms",
        word: sweep.axis.letter().into(),
        marks: sweep.points.iter().map(|point| (place(point), short(point.value))).collect(),
        curves,
    }
    .svg()
}

/// `10000000` as `1e7`.
fn short(value: usize) -> String {
    let power = value.checked_ilog10().unwrap_or(0);
    let round = power >= 4 && value.is_multiple_of(10usize.pow(power));
    if round { format!("{}e{power}", value / 10usize.pow(power)) } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::figures::Figure;
    use super::super::sweep::Axis;
    use super::*;

    fn made_up(axis: Axis, values: &[usize]) -> Sweep {
        let figure = |x: f64| Figure::new(vec![x]);
        let point = |&value: &usize| Point {
            value,
            workers: 15,
            redundancy: 5,
            bytes: 1000,
            raw_ms: figure(1.0 + value as f64),
            dropping_ms: figure(1.5 + value as f64),
            solon_ms: figure(2.0 + value as f64),
            over_dropping: figure(1.2),
            predicted_ms: value as f64,
            daemon_bytes: 1 << 24,
            worker_bytes: 1 << 23,
        };
        Sweep {
            machine: "a machine".into(),
            axis,
            job: "a job <&>".into(),
            gb_per_s: 2.0,
            points: values.iter().map(point).collect(),
            left_out: Vec::new(),
        }
    }

    #[test]
    fn a_picture_has_every_line_and_size() {
        for (axis, values) in
            [(Axis::Dimension, &[10_000, 100_000][..]), (Axis::Adversaries, &[0, 1, 2]), (Axis::Workers, &[4])]
        {
            let svg = made_up(axis, values).svg();
            assert!(svg.contains("Solon") && svg.contains("data dropped") && svg.contains("&lt;&amp;&gt;"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(values.iter().all(|value| svg.contains(&format!(">{}<", short(*value)))), "{svg}");
        }
        assert_eq!([short(15), short(30_000_000), short(12_345)], ["15", "3e7", "12345"]);
    }
}
