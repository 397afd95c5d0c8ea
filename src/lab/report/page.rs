//! Blocks as HTML, one file that needs nothing else, and as Markdown.

use std::fmt::Write;

use super::blocks::{Block, blocks};
use super::figure::STYLE;
use super::peers::{self, Peers};
use super::variants::Experiment;
use crate::svg::escape;

/// The page with all experiments, and with aggregation alone if it was measured.
pub(super) fn html(experiments: &[Experiment], peers: Option<&Peers>) -> String {
    let mut parts: Vec<(&str, &str, Vec<Block>)> = Vec::new();
    for experiment in experiments {
        parts.push((&experiment.about.name, &experiment.about.title, blocks(experiment)));
    }
    parts.extend(peers.map(|peers| (peers::NAME, peers::TITLE, peers.blocks())));
    let (mut body, mut contents) = (String::new(), String::new());
    for (name, title, blocks) in &parts {
        let _ = writeln!(body, "<section id=\"{}\">", escape(name));
        blocks.iter().for_each(|block| body.push_str(&in_html(block)));
        body.push_str("</section>\n");
        let _ = write!(contents, "<li><a href=\"#{}\">{}</a></li>", escape(name), escape(title));
    }
    let contents = if parts.len() > 1 { format!("<ul>{contents}</ul>\n") } else { String::new() };
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Solon lab</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
<h1>Solon lab</h1>
<p class="note">What is emulated is called so; all else was measured with real processes. Above each part stands the command that makes it. Summaries as CSV lie beside this file.</p>
{contents}{body}</main>
</body>
</html>
"#
    )
}

fn in_html(block: &Block) -> String {
    match block {
        Block::Title(text) => format!("<h2>{}</h2>\n", escape(text)),
        Block::Heading(text) => format!("<h3>{}</h3>\n", escape(text)),
        Block::Subheading(text) => format!("<h4>{}</h4>\n", escape(text)),
        Block::Command(text) => format!("<pre>{}</pre>\n", escape(text)),
        Block::Text(text) => {
            text.split("\n\n").fold(String::new(), |html, text| html + &format!("<p>{}</p>\n", escape(text)))
        }
        Block::Note(text) => format!("<p class=\"note\">{}</p>\n", escape(text)),
        Block::Lacking(text) => format!("<p class=\"lacking\">{}</p>\n", escape(text)),
        Block::Table(table) => table.html(),
        Block::Figure(figure) => figure.html(),
    }
}

/// What the docs say of an experiment, with its figures in `images/`.
pub(super) fn markdown(blocks: &[Block]) -> String {
    let plain = |text: &str| text.replace('<', "&lt;");
    let piece = |block: &Block| match block {
        Block::Title(text) => format!("## {}", plain(text)),
        Block::Heading(text) => format!("### {}", plain(text)),
        Block::Subheading(text) => format!("#### {}", plain(text)),
        Block::Command(text) => format!("```sh\n{text}\n```"),
        Block::Text(text) | Block::Note(text) => plain(text.trim()),
        Block::Lacking(text) => format!("> {}", plain(text)),
        Block::Table(table) => table.markdown(),
        Block::Figure(figure) => format!(
            "### {}\n\n![{}](images/lab-{}.svg)\n\n{}",
            plain(&figure.title),
            plain(&figure.title),
            figure.name,
            plain(&figure.caption)
        ),
    };
    blocks.iter().map(|block| piece(block).trim_end().to_string()).collect::<Vec<_>>().join("\n\n")
}
