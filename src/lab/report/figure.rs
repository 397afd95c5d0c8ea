//! Figures of one or more panels with a common legend: in the page each panel for itself, so that they flow; in a file side by side.

use std::fmt::Write;

use crate::svg::{LINE, escape};

/// Colours of the demonstration's report, and those of rules and parts of a step.
pub(super) const STYLE: &str = concat!(include_str!("../../demo/report.css"), include_str!("report.css"));

/// Width of a figure in a file.
const FILE: f64 = 960.0;
/// Between panels, and around them.
const GAP: f64 = 16.0;

/// Panels with a legend.
pub(super) struct Figure {
    /// Name of its file, without `lab-` and `.svg`.
    pub name: String,
    pub title: String,
    /// Text below.
    pub caption: String,
    pub legend: Vec<Key>,
    /// All of the same width.
    pub panels: Vec<Panel>,
}

/// A plot.
pub(super) struct Panel {
    pub title: String,
    /// What it shows, for those who do not see it.
    pub description: String,
    pub width: f64,
    pub height: f64,
    /// SVG.
    pub inside: String,
}

/// An entry of the legend.
pub(super) struct Key {
    pub text: String,
    pub shape: Shape,
}

/// What stands beside the text of an entry.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// A line in a colour, with SVG attributes.
    Line(&'static str, &'static str),
    /// A box in a colour.
    Box(&'static str),
    /// A box that is hatched: emulated.
    Hatched(&'static str),
    /// A point.
    Dot(&'static str),
}

impl Shape {
    /// 28 units wide, about a height of 0.
    fn svg(self) -> String {
        match self {
            Shape::Line(colour, style) => {
                format!(r#"<path class="line" stroke="var(--{colour})" {style} d="M2 0H26"/>"#)
            }
            Shape::Box(colour) => block(colour, 5.0, -6.0, 18.0, 12.0, Fill::Plain),
            Shape::Hatched(colour) => block(colour, 5.0, -6.0, 18.0, 12.0, Fill::Hatched),
            Shape::Dot(colour) => dot(colour, 14.0, 0.0),
        }
    }
}

/// How a box is filled.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fill {
    /// In its colour.
    Plain,
    /// With stripes over it: emulated.
    Hatched,
}

/// A box. Stripes are lines of their own: a pattern would need a name that is unique in the page.
pub(super) fn block(colour: &str, x: f64, y: f64, width: f64, height: f64, fill: Fill) -> String {
    let mut svg = format!(
        r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" style="fill: var(--{colour})"/>"#
    );
    if fill == Fill::Hatched {
        let mut lines = String::new();
        // From the left edge or the lower one to the right edge or the upper one, 6 units apart.
        let mut at = 6.0;
        while at < width + height {
            let (left, low) = if at < height { (0.0, at) } else { (at - height, height) };
            let (right, high) = if at < width { (at, 0.0) } else { (width, at - width) };
            let _ = write!(lines, "M{:.1} {:.1}L{:.1} {:.1}", x + left, y + low, x + right, y + high);
            at += 6.0;
        }
        let _ = write!(svg, r#"<path class="hatch" d="{lines}"/>"#);
    }
    svg
}

/// A point with an edge, so that it shows on a line of its own colour.
pub(super) fn dot(colour: &str, x: f64, y: f64) -> String {
    format!(r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="5" style="fill: var(--{colour})"/>"#)
}

impl Figure {
    /// The figure as part of a page.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let mut html = format!("<figure class=\"wide\"><h3>{title}</h3>\n<ul class=\"legend\">");
        for key in &self.legend {
            let _ = write!(
                html,
                r#"<li><svg viewBox="0 -8 28 16" width="28" height="16" aria-hidden="true">{}</svg>{}</li>"#,
                key.shape.svg(),
                escape(&key.text)
            );
        }
        let small = self.panels.first().is_some_and(|panel| panel.width < FILE / 2.0);
        let _ = write!(html, "</ul>\n<div class=\"panels {}\">", if small { "small" } else { "large" });
        for (index, panel) in self.panels.iter().enumerate() {
            let id = format!("{}-{index}", self.name);
            let _ = writeln!(
                html,
                r#"<svg viewBox="0 0 {} {}" role="img" aria-labelledby="{id}-title {id}-desc"><title id="{id}-title">{title}: {}</title><desc id="{id}-desc">{}</desc>{}</svg>"#,
                panel.width,
                panel.height,
                escape(&panel.title),
                escape(&panel.description),
                panel.inside
            );
        }
        let _ = writeln!(html, "</div><figcaption>{}</figcaption></figure>", escape(&self.caption));
        html
    }

    /// The figure as a file.
    pub fn file(&self) -> String {
        let (legend, mut below) = self.legend_rows();
        let mut inside = legend;
        let mut described = Vec::new();
        let width = self.panels.first().map_or(FILE, |panel| panel.width);
        let columns = ((FILE + 1.0) / width).floor().max(1.0) as usize;
        for row in self.panels.chunks(columns) {
            for (column, panel) in row.iter().enumerate() {
                let x = column as f64 * width + if columns == 1 { (FILE - width) / 2.0 } else { 0.0 };
                let _ = write!(inside, r#"<g transform="translate({x} {below})">{}</g>"#, panel.inside);
                described.push(format!("{}: {}", panel.title, panel.description));
            }
            below += row.iter().map(|panel| panel.height).fold(0.0, f64::max) + GAP;
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {FILE} {below}\" role=\"img\"><title>{}</title><desc>{}</desc>\
             <style>{STYLE}</style><rect width=\"{FILE}\" height=\"{below}\" style=\"fill: var(--page)\"/>{inside}</svg>\n",
            escape(&self.title),
            escape(&described.join(" ")),
        )
    }

    /// The legend in rows, and how high they are.
    fn legend_rows(&self) -> (String, f64) {
        let (mut svg, mut x, mut y) = (String::new(), GAP, GAP + 4.0);
        for key in &self.legend {
            let width = 36.0 + 7.4 * key.text.chars().count() as f64;
            if x > GAP && x + width > FILE - GAP {
                (x, y) = (GAP, y + LINE + 6.0);
            }
            let _ = write!(
                svg,
                r#"<g transform="translate({x:.1} {y})">{}<text class="value" x="34" y="4.5">{}</text></g>"#,
                key.shape.svg(),
                escape(&key.text)
            );
            x += width + GAP;
        }
        (svg, y + LINE)
    }
}
