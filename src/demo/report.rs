//! The page with the verdict, the plots and the settings: one HTML file that needs nothing else, no script, no network.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::plots;
use super::record::{Leg, LegKind, Report, percent};
use super::table::size;
use crate::svg::escape;

/// Colours after Okabe and Ito, told apart by most colour-blind people; lines and cells also differ in dashes, width and height.
const STYLE: &str = include_str!("report.css");

/// Writes the page to `path`, in place of what is there.
///
/// # Errors
/// If the file cannot be written.
pub fn write(report: &Report, path: &Path) -> io::Result<()> {
    std::fs::write(path, html(report))
}

/// The page.
pub fn html(report: &Report) -> String {
    let verdict = report.verdict();
    let (class, word) = if verdict.passed { ("passed", "Corrected") } else { ("failed", "Not corrected") };
    let sentences: String = verdict.lines.iter().map(|line| format!("<li>{}</li>", escape(line))).collect();
    let figures: String = [
        ("Accuracy", "Test accuracy after each step. With every lie corrected, Solon's line lies on the honest one.", plots::accuracy(report)),
        (
            "Residuals",
            "How far the shards are from a code word, over the tolerance: as they came in, and the rows that were decoded.",
            plots::residual(report),
        ),
        ("Who was named when", "Every worker in every step of the leg with Solon. Groups are set apart.", plots::named(report)),
    ]
    .into_iter()
    .map(|(title, caption, plot)| {
        format!("<figure><h2>{title}</h2>{plot}<figcaption>{caption}</figcaption></figure>")
    })
    .collect();
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Solon demo: {word}</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
<h1>Solon demo: {attack}</h1>
<section class="verdict {class}" aria-label="Verdict"><strong>{word}</strong><ul>{sentences}</ul></section>
<div class="plots">
{figures}
<section class="tables">
<h2>Legs</h2>
{legs}
{named}
<h2>Settings</h2>
{settings}
</section>
</div>
</main>
</body>
</html>
"#,
        attack = escape(&report.attack),
        legs = legs(report),
        named = named(report),
        settings = settings(report),
    )
}

fn legs(report: &Report) -> String {
    let rows = report.legs.iter().map(|leg| {
        [
            leg.kind.to_string(),
            leg.steps.len().to_string(),
            leg.accuracy().map_or("-".into(), percent),
            size(leg.mean(|step| step.bytes_up as f64)),
            size(leg.mean(|step| step.bytes_down as f64)),
            format!("{:.1}", leg.mean(|step| step.ms)),
        ]
    });
    table(["leg", "steps", "accuracy", "up/step", "down/step", "ms/step"], rows)
}

fn named(report: &Report) -> String {
    let named = report.leg(LegKind::AttackedSolon).map_or(vec![], Leg::named);
    if named.is_empty() {
        return String::new();
    }
    let rows = named.iter().map(|one| {
        let truth = if report.liars.contains(&one.worker) { "lies" } else { "honest" };
        [one.worker.to_string(), truth.into(), one.first_step.to_string(), one.steps.to_string()]
    });
    format!("<h2>Named as liars</h2>\n{}", table(["worker", "in truth", "first in step", "in steps"], rows))
}

fn settings(report: &Report) -> String {
    let attack = ["attack".to_string(), format!("{}: each liar {}", report.attack, report.attack_description)];
    let others = report.settings.iter().map(|setting| [setting.name.clone(), setting.value.clone()]);
    let body = table(["setting", "value"], std::iter::once(attack).chain(others));
    body.replacen("<table>", r#"<table class="words">"#, 1)
}

/// A table whose cells are text.
fn table<const COLUMNS: usize>(headings: [&str; COLUMNS], rows: impl Iterator<Item = [String; COLUMNS]>) -> String {
    let mut html = String::from(r#"<div class="scroll"><table><thead><tr>"#);
    headings.iter().for_each(|heading| {
        let _ = write!(html, r#"<th scope="col">{}</th>"#, escape(heading));
    });
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for (index, cell) in row.iter().enumerate() {
            let _ = match index {
                0 => write!(html, r#"<th scope="row">{}</th>"#, escape(cell)),
                _ => write!(html, "<td>{}</td>", escape(cell)),
            };
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

#[cfg(test)]
mod tests {
    use super::super::record::{Setting, made_up};
    use super::*;

    #[test]
    fn the_page_stands_alone_and_begins_with_the_verdict() {
        let page = html(&made_up());
        for outside in ["http:", "https:", "<script", "<link", "url(", "@import", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(page.find("<strong>Corrected</strong>").unwrap() < page.find("<svg").unwrap());
        assert!(page.contains("prefers-color-scheme: dark") && page.contains("width=device-width"));
    }

    #[test]
    fn every_tag_is_closed() {
        let page = html(&made_up());
        for tag in [
            "html", "head", "body", "main", "section", "figure", "svg", "table", "tr", "td", "th", "text", "ul", "li",
            "div",
        ] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn nothing_from_the_record_becomes_markup() {
        let mut report = made_up();
        report.settings.push(Setting { name: "<i>".into(), value: "\"&".into() });
        report.legs[2].stopped = Some("<script>".into());
        report.attack = "<b>".into();
        let page = html(&report);
        assert!(!page.contains("<i>") && !page.contains("<script>") && !page.contains("<b>"));
        assert!(page.contains("&lt;i&gt;") && page.contains("Not corrected"));
    }

    #[test]
    fn the_file_is_what_the_page_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.html");
        write(&made_up(), &path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), html(&made_up()));
        // To look at it: SOLON_REPORT=report.html cargo test --lib the_file_is
        if let Some(path) = std::env::var_os("SOLON_REPORT") {
            write(&made_up(), Path::new(&path)).unwrap();
        }
    }
}
