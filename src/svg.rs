//! The little SVG that plots need: axes, lines with labels at their ends, and escaping.
//!
//! A plot is 480 units wide and is shown 340 to 540 pixels wide, so that its text (13 units) stays readable on a phone.
//! Colours are names of CSS variables, which the page sets for light and dark.

use std::fmt::Write;
use std::ops::Range;

/// Width of every plot, in units.
pub(crate) const WIDTH: f64 = 480.0;
/// Height of a line of text with its leading.
pub(crate) const LINE: f64 = 16.0;

/// How values become heights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// Proportional.
    Linear,
    /// By powers of ten; the range is of the values, not of their logarithms.
    Logarithmic,
}

/// The rectangle of a plot, and what its edges stand for.
#[derive(Clone, Debug)]
pub(crate) struct Axes {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    pub steps: Range<f64>,
    pub values: Range<f64>,
    pub scale: Scale,
}

/// One line of a plot.
pub(crate) struct Line {
    /// Name of a CSS variable.
    pub colour: &'static str,
    /// Stroke width and dashes, so that lines differ without colour, and one under another shows.
    pub style: &'static str,
    /// Words at its end.
    pub label: [String; 2],
    /// Step and value, in order; joined across steps without a value.
    pub points: Vec<(f64, f64)>,
}

impl Axes {
    pub fn x(&self, step: f64) -> f64 {
        let width = (self.steps.end - self.steps.start).max(f64::MIN_POSITIVE);
        self.left + (self.right - self.left) * (step - self.steps.start) / width
    }

    /// The height of `value`; values beyond the range lie on its edge.
    pub fn y(&self, value: f64) -> f64 {
        let value = value.clamp(self.values.start, self.values.end);
        let part = match self.scale {
            Scale::Linear => (value - self.values.start) / (self.values.end - self.values.start),
            Scale::Logarithmic => (value / self.values.start).ln() / (self.values.end / self.values.start).ln(),
        };
        self.bottom - (self.bottom - self.top) * part
    }

    /// Grid lines across with their labels, and ticks below with step numbers.
    pub fn draw(&self, ticks: &[(f64, String)], svg: &mut String) {
        self.draw_grid(ticks, svg);
        self.draw_steps(svg);
    }

    /// Grid lines across with their labels.
    pub fn draw_grid(&self, ticks: &[(f64, String)], svg: &mut String) {
        for (value, label) in ticks {
            let y = self.y(*value);
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{}" x2="{}" y1="{y:.1}" y2="{y:.1}"/><text class="end" x="{}" y="{:.1}">{}</text>"#,
                self.left,
                self.right,
                self.left - 6.0,
                y + 4.5,
                escape(label)
            );
        }
    }

    /// Ticks below with step numbers.
    pub fn draw_steps(&self, svg: &mut String) {
        self.draw_steps_of("step", svg);
    }

    /// Ticks below with the numbers of what `word` says.
    pub fn draw_steps_of(&self, word: &str, svg: &mut String) {
        let ticks = step_ticks(&self.steps, (self.right - self.left) / 50.0);
        let ticks: Vec<(f64, String)> = ticks.into_iter().map(|step| (step, step.to_string())).collect();
        self.draw_marks(&ticks, word, svg);
    }

    /// Ticks below with their labels, and what they count.
    pub fn draw_marks(&self, ticks: &[(f64, String)], word: &str, svg: &mut String) {
        for (step, label) in ticks {
            let (x, bottom) = (self.x(*step), self.bottom);
            let _ = write!(
                svg,
                r#"<line class="tick" x1="{x:.1}" x2="{x:.1}" y1="{bottom}" y2="{}"/><text class="mid" x="{x:.1}" y="{}">{}</text>"#,
                bottom + 4.0,
                bottom + 17.0,
                escape(label)
            );
        }
        let _ = write!(
            svg,
            r#"<text class="mid" x="{}" y="{}">{}</text>"#,
            (self.left + self.right) / 2.0,
            self.bottom + 33.0,
            escape(word)
        );
    }

    /// The lines in order, the later over the earlier, and their labels to the right, moved apart where they would overlap.
    pub fn draw_lines(&self, lines: &[Line], svg: &mut String) {
        lines.iter().for_each(|line| self.draw_path(line.colour, line.style, &line.points, svg));
        let ends: Vec<f64> = lines.iter().map(|line| self.end(line)).collect();
        let places = apart(&ends, 2.0 * LINE + 2.0, self.top..self.bottom - LINE);
        for (line, place) in lines.iter().zip(places) {
            for (row, text) in line.label.iter().enumerate() {
                let _ = write!(
                    svg,
                    r#"<text class="{}" style="fill: var(--{})" x="{}" y="{:.1}">{}</text>"#,
                    ["name", "value"][row],
                    line.colour,
                    self.right + 8.0,
                    place + LINE * row as f64 - 3.0,
                    escape(text)
                );
            }
        }
    }

    /// Points joined by a line.
    pub fn draw_path(&self, colour: &str, style: &str, points: &[(f64, f64)], svg: &mut String) {
        let _ = write!(svg, r#"<path class="line" stroke="var(--{colour})" {style} d="{}"/>"#, self.path(points));
    }

    /// The height of a line's last value.
    fn end(&self, line: &Line) -> f64 {
        line.points.last().map_or(self.bottom, |&(_, value)| self.y(value))
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (index, &(step, value)) in points.iter().enumerate() {
            // The line of no length shows, with its round ends, a value that stands alone.
            let (command, dot) = if index == 0 { ("M", "h0") } else { ("L", "") };
            let _ = write!(path, "{command}{:.1} {:.1}{dot}", self.x(step), self.y(value));
        }
        path
    }
}

/// Round numbers in `range`, about `most` of them at most: the first step, then multiples of 1, 2 or 5 times a power of ten.
fn step_ticks(range: &Range<f64>, most: f64) -> Vec<f64> {
    let span = range.end - range.start;
    let mut unit = 1.0;
    for factor in [2.0, 2.5, 2.0].into_iter().cycle().take(48) {
        if span / unit <= most {
            break;
        }
        unit *= factor;
    }
    let mut ticks = vec![range.start.ceil()];
    let mut tick = unit;
    while tick <= range.end {
        if tick - range.start >= 0.6 * unit {
            ticks.push(tick);
        }
        tick += unit;
    }
    ticks
}

/// Powers of ten within `range`, at most `most`.
pub(crate) fn decade_ticks(range: &Range<f64>, most: usize) -> Vec<(f64, String)> {
    let (low, high) = (range.start.log10().round() as i32, range.end.log10().round() as i32);
    let every = ((high - low) as usize).div_ceil(most.max(1)).max(1) as i32;
    // Counted from 0, so that the tolerance, at 1, is among them.
    (low..=high).filter(|power| power % every == 0).map(|power| (10f64.powi(power), power_label(power))).collect()
}

fn power_label(power: i32) -> String {
    match power {
        0 => "1".into(),
        1 => "10".into(),
        _ => {
            let digits: String =
                power.unsigned_abs().to_string().bytes().map(|digit| SUPERSCRIPTS[usize::from(digit - b'0')]).collect();
            format!("10{}{digits}", if power < 0 { "⁻" } else { "" })
        }
    }
}

const SUPERSCRIPTS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];

/// Heights as near to `wanted` as can be, in the same order, at least `gap` apart and within `range` if there is room.
fn apart(wanted: &[f64], gap: f64, range: Range<f64>) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    let mut places = wanted.to_vec();
    let mut least = range.start;
    for &index in &order {
        places[index] = places[index].max(least);
        least = places[index] + gap;
    }
    let mut most = range.end;
    for &index in order.iter().rev() {
        places[index] = places[index].min(most);
        most = places[index] - gap;
    }
    places
}

/// `text` so that it means itself in HTML and SVG, in text and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(scale: Scale, values: Range<f64>) -> Axes {
        Axes { left: 0.0, right: 100.0, top: 0.0, bottom: 100.0, steps: 1.0..101.0, values, scale }
    }

    #[test]
    fn values_fall_where_their_scale_says() {
        let linear = axes(Scale::Linear, 0.0..1.0);
        assert_eq!([linear.y(0.0), linear.y(0.25), linear.y(1.0), linear.y(7.0)], [100.0, 75.0, 0.0, 0.0]);
        let logarithmic = axes(Scale::Logarithmic, 1e-2..1e2);
        assert!((logarithmic.y(1.0) - 50.0).abs() < 1e-9);
        assert_eq!(logarithmic.y(0.0), 100.0, "0 has no logarithm and lies on the edge");
        assert_eq!([linear.x(1.0), linear.x(101.0)], [0.0, 100.0]);
    }

    #[test]
    fn a_line_joins_its_values_and_shows_a_single_one() {
        let axes = axes(Scale::Linear, 0.0..1.0);
        assert_eq!(axes.path(&[(1.0, 0.0), (11.0, 1.0), (31.0, 1.0)]), "M0.0 100.0h0L10.0 0.0L30.0 0.0");
        assert_eq!(axes.path(&[(1.0, 0.0)]), "M0.0 100.0h0");
        assert_eq!(axes.path(&[]), "");
    }

    #[test]
    fn steps_are_marked_at_round_numbers() {
        assert_eq!(step_ticks(&(1.0..120.0), 7.0), [1.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0]);
        assert_eq!(step_ticks(&(1.0..3.0), 7.0), [1.0, 2.0, 3.0]);
        assert_eq!(step_ticks(&(1.0..1.0), 7.0), [1.0]);
        assert_eq!(step_ticks(&(1.0..5000.0), 7.0), [1.0, 1000.0, 2000.0, 3000.0, 4000.0, 5000.0]);
    }

    #[test]
    fn decades_always_include_the_tolerance() {
        let labels = |range| decade_ticks(&range, 6).into_iter().map(|(_, label)| label).collect::<Vec<_>>().join(" ");
        assert_eq!(labels(1e-2..1e2), "10⁻² 10⁻¹ 1 10 10²");
        assert_eq!(labels(1e-3..1e12), "10⁻³ 1 10³ 10⁶ 10⁹ 10¹²");
    }

    #[test]
    fn labels_are_moved_apart_in_order_and_kept_inside() {
        assert_eq!(apart(&[10.0, 10.0, 90.0], 20.0, 0.0..100.0), [10.0, 30.0, 90.0]);
        assert_eq!(apart(&[99.0, 98.0], 20.0, 0.0..100.0), [100.0, 80.0]);
        assert_eq!(apart(&[], 20.0, 0.0..100.0), [0.0; 0]);
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape(r#"<b a="x" b='y'>&"#), "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;");
    }
}
