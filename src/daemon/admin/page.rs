//! The status as a page: one file, no network, whole without its script, and told apart by marks and words where colours are not seen.

use std::fmt::Write;

use super::super::history;
use super::super::status::{Group, Round, State, Status, Weight, Worker, span};
use super::text::{list, ratio};
use crate::svg::{Axes, Scale, WIDTH, decade_ticks, escape};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Rounds in the table.
const ROWS: usize = 8;
const HEIGHT: f64 = 210.0;

/// The page; its style and script carry `nonce`.
pub fn html(status: &Status, nonce: &str) -> String {
    let (name, word) = (escape(&status.job.name), status.word());
    let bad = if word == "ready" { "" } else { " bad" };
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}{name}: {word}</title>
<style nonce="{nonce}">
{STYLE}</style>
</head>
<body>
<div id="stale" role="status">The daemon does not answer any more: what is below is old.</div>
<main>
<header><h1>Solon: {name}</h1><span class="pill{bad}">{word}</span><span class="faint">{job}</span></header>
{verdict}
{tiles}
<h2>Groups and workers</h2>
{groups}
<p class="faint">{legend}</p>
<h2>The last rounds</h2>
{rounds}
<footer>solond {version} at {address}; RDMA: {rdma}; updates: {push}. The same for programs: <a href="/status">/status</a>, <a href="/metrics">/metrics</a>.</footer>
</main>
<script nonce="{nonce}">
{SCRIPT}</script>
</body>
</html>
"#,
        title = if status.liars.iter().any(|liar| liar.lately > 0) { "✗ " } else { "" },
        job = escape(&job(status)),
        verdict = verdict(status),
        tiles = tiles(status),
        groups = groups(status),
        legend = escape(&legend()),
        rounds = rounds(status),
        version = escape(&status.solond),
        address = escape(&status.address),
        rdma = escape(&status.rdma),
        push = escape(&status.push),
    )
}

fn job(status: &Status) -> String {
    let job = &status.job;
    format!(
        "rule {}, {} numbers in {} chunks; of each {} workers {} may lie and {} be absent; uploads are 1/{} of the gradient",
        job.rule, job.dimension, job.chunks, job.redundancy, job.adversaries, job.stragglers, job.compression
    )
}

/// What there is to say, in plain words.
fn verdict(status: &Status) -> String {
    let sentences = status.sentences();
    let has = |wanted| sentences.iter().any(|(weight, _)| *weight == wanted);
    let alarm = match () {
        () if has(Weight::Alarm) => " lied",
        () if has(Weight::Warning) => " warn",
        () => "",
    };
    let items: String = sentences
        .iter()
        .map(|(weight, text)| {
            let class = match weight {
                Weight::Alarm => "lied",
                Weight::Warning => "warn",
                Weight::Past => "old",
                Weight::Good => "good",
            };
            format!(r#"<li class="{class}">{} {}</li>"#, weight.mark(), escape(text))
        })
        .collect();
    format!(r#"<ul class="verdict{alarm}" aria-label="Verdict">{items}</ul>"#)
}

fn tiles(status: &Status) -> String {
    let connected: usize = status.groups.iter().map(|group| group.connected).sum();
    let mut times: Vec<f64> = status.rounds.iter().map(|round| round.seconds).collect();
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).map_or("-".into(), |seconds| span(*seconds));
    let last = status.rounds.last().map_or("-".into(), |round| format!("{} ago", span(round.seconds_ago)));
    let tiles = [
        ("workers connected", format!("{connected} of {}", status.job.workers)),
        ("rounds complete", status.totals.rounds_complete.to_string()),
        ("rounds undecodable", status.totals.rounds_undecodable.to_string()),
        ("a round takes (median)", median),
        ("last round", last),
        ("lies in shards", status.totals.lies.to_string()),
        ("up", span(status.uptime_seconds)),
    ];
    let tiles: String =
        tiles.iter().map(|(what, value)| format!("<div><dt>{what}</dt><dd>{}</dd></div>", escape(value))).collect();
    format!("<dl>{tiles}</dl>")
}

fn groups(status: &Status) -> String {
    // Workers that are each a group of their own stand together.
    if status.job.redundancy == 1 {
        let connected: usize = status.groups.iter().map(|group| group.connected).sum();
        let of = status.job.workers;
        return section("workers", &format!("{connected} of {of} connected<br>all are waited for"), status.workers());
    }
    let one = |group: &Group| {
        let Group { group, connected, needed, workers } = group;
        let text = format!("{connected} of {} connected<br>{needed} must agree", workers.len());
        section(&format!("group {group}"), &text, workers.iter())
    };
    status.groups.iter().map(one).collect()
}

fn section<'a>(title: &str, text: &str, workers: impl Iterator<Item = &'a Worker>) -> String {
    let cells: String = workers.map(cell).collect();
    format!(
        r#"<section class="group"><div><h3>{title}</h3><p class="faint">{text}</p></div><ul class="cells">{cells}</ul></section>"#
    )
}

fn cell(worker: &Worker) -> String {
    let Worker { worker: index, state, .. } = worker;
    let mut more = vec![format!("worker {index}: {}", state.meaning())];
    more.extend(worker.left.clone().map(|left| format!("left: {left}")));
    more.extend(worker.seen_seconds_ago.map(|ago| format!("seen {} ago", span(ago))));
    more.push(format!("lied in {} rounds, absent in {}, late in {}", worker.lies, worker.absences, worker.late));
    if worker.bad_carrier {
        more.push("passes updates on late or wrong".into());
    }
    // A liar that is gone is both.
    let word = match (state, worker.connected) {
        (State::Lied, false) => "lied, gone",
        _ => state.name(),
    };
    format!(
        r#"<li class="{class}" title="{title}"><b>{index}</b><span>{mark} {word}</span></li>"#,
        class = state.name(),
        title = escape(&more.join("; ")),
        mark = state.mark(),
    )
}

fn legend() -> String {
    State::ALL.iter().map(|state| format!("{} {}", state.mark(), state.meaning())).collect::<Vec<_>>().join("; ")
}

fn rounds(status: &Status) -> String {
    if status.rounds.is_empty() {
        return r#"<p class="faint">No round was closed since the start.</p>"#.into();
    }
    format!(
        r#"<div class="plots"><figure>{}<figcaption>How long each round took: blue as it came, orange where a lie was corrected, dashed with ✗ where it could not be decoded.</figcaption></figure><figure>{}<figcaption>How far shards were from agreeing, over the tolerance (dashed): ✗ as they came in, the line what was decoded.</figcaption></figure></div>{}"#,
        durations(&status.rounds),
        residuals(&status.rounds),
        table(&status.rounds)
    )
}

/// Axes with a place for each remembered round, the newest at the right.
fn axes(rounds: &[Round], low: f64, high: f64) -> Axes {
    let last = rounds.last().map_or(0, |round| round.round) as f64;
    let first = (last - history::ROUNDS as f64 + 1.0).max(0.0);
    Axes {
        left: 52.0,
        right: WIDTH - 8.0,
        top: 14.0,
        bottom: HEIGHT - 40.0,
        steps: first..last.max(first + 1.0),
        values: low..high,
        scale: Scale::Logarithmic,
    }
}

/// The powers of ten around these values, at least one apart; those that have none are passed over.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, 0.0f64);
    for value in values.filter(|value| *value > 0.0 && value.is_finite()) {
        (low, high) = (low.min(value), high.max(value));
    }
    if high == 0.0 {
        return (0.1, 10.0);
    }
    let low = 10f64.powf(low.log10().floor());
    (low, 10f64.powf(high.log10().ceil()).max(10.0 * low))
}

fn durations(rounds: &[Round]) -> String {
    let (low, high) = decades(rounds.iter().map(|round| round.seconds));
    let axes = axes(rounds, low, high);
    let mut svg = String::new();
    let ticks: Vec<_> = decade_ticks(&axes.values, 5).into_iter().map(|(value, _)| (value, unit(value))).collect();
    axes.draw_grid(&ticks, &mut svg);
    axes.draw_steps_of("round", &mut svg);
    let wide = (axes.right - axes.left) / history::ROUNDS as f64 - 1.0;
    for round in rounds {
        let (x, y) = (axes.x(round.round as f64) - wide / 2.0, axes.y(round.seconds).min(axes.bottom - 2.0));
        let class = match (round.complete, round.liars.is_empty()) {
            (false, _) => "bar undecodable",
            (true, false) => "bar lied",
            (true, true) => "bar",
        };
        let _ = write!(
            svg,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{wide:.1}" height="{:.1}"><title>{}</title></rect>"#,
            axes.bottom - y,
            escape(&told(round))
        );
        if !round.complete {
            let _ = write!(svg, r#"<text class="strong" x="{:.1}" y="{:.1}">✗</text>"#, x + wide / 2.0, y - 3.0);
        }
    }
    frame("Time of each of the last rounds", &svg)
}

fn residuals(rounds: &[Round]) -> String {
    let all = rounds.iter().flat_map(|round| [round.residual, round.received]).chain([1.0]);
    let (low, high) = decades(all);
    // What is smaller is as good as nothing, and what is larger is as wrong as can be.
    let axes = axes(rounds, low.max(1e-4), high.clamp(10.0, 1e12));
    let mut svg = String::new();
    axes.draw_grid(&decade_ticks(&axes.values, 6), &mut svg);
    axes.draw_steps_of("round", &mut svg);
    let y = axes.y(1.0);
    let _ = write!(svg, r#"<line class="limit" x1="{}" x2="{}" y1="{y:.1}" y2="{y:.1}"/>"#, axes.left, axes.right);
    let mut path = String::new();
    for round in rounds.iter().filter(|round| round.complete) {
        let command = if path.is_empty() { "M" } else { "L" };
        let _ = write!(path, "{command}{:.1} {:.1}", axes.x(round.round as f64), axes.y(round.residual));
        if command == "M" {
            path.push_str("h0");
        }
    }
    let _ = write!(svg, r#"<path class="residual" d="{path}"/>"#);
    for round in rounds.iter().filter(|round| round.received > 1.0) {
        let (x, y) = (axes.x(round.round as f64) - 3.0, axes.y(round.received) - 3.0);
        let _ = write!(
            svg,
            r#"<path class="received" d="M{x:.1} {y:.1}l6 6m0 -6l-6 6"><title>{}</title></path>"#,
            escape(&told(round))
        );
    }
    frame("Residuals over the tolerance in the last rounds", &svg)
}

fn frame(title: &str, inside: &str) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{title}</title>{inside}</svg>"#)
}

/// A power of ten of seconds.
fn unit(seconds: f64) -> String {
    match seconds {
        ..0.9e-3 => format!("{:.0} µs", 1e6 * seconds),
        ..0.9 => format!("{:.0} ms", 1e3 * seconds),
        _ => format!("{seconds:.0} s"),
    }
}

fn told(round: &Round) -> String {
    let mut text = format!("round {}: {}", round.round, span(round.seconds));
    if let Some(why) = &round.why_not {
        let _ = write!(text, ", undecodable: {why}");
    }
    for (what, workers) in [("liars", &round.liars), ("absent", &round.absent), ("late", &round.late)] {
        if !workers.is_empty() {
            let _ = write!(text, ", {what} {}", list(workers));
        }
    }
    text
}

fn table(rounds: &[Round]) -> String {
    let rows: String = rounds
        .iter()
        .rev()
        .take(ROWS)
        .map(|round| {
            let outcome = match &round.why_not {
                Some(why) => format!("✗ undecodable: {why}"),
                None if round.liars.is_empty() => "✓ complete".into(),
                None => "✓ complete, corrected".into(),
            };
            let class = |is_bad: bool| if is_bad { r#" class="lied""# } else { "" };
            format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td{}>{}</td><td>{}</td><td>{}</td><td{}>{}</td></tr>",
                round.round,
                span(round.seconds),
                ratio(round.residual),
                ratio(round.received),
                class(!round.liars.is_empty()),
                list(&round.liars),
                list(&round.absent),
                list(&round.late),
                class(!round.complete),
                escape(&outcome)
            )
        })
        .collect();
    format!(
        r#"<div class="scroll"><table><thead><tr><th>round</th><th>took</th><th>residual</th><th>as received</th><th>liars</th><th>absent</th><th>late</th><th>outcome</th></tr></thead><tbody>{rows}</tbody></table></div>"#
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::status::tests::made_up;
    use super::*;

    #[test]
    fn the_page_stands_alone_and_begins_with_who_lied() {
        let page = html(&made_up(), "0123");
        for outside in ["http:", "https:", "<script src", "stylesheet", "url(", "@import", "src=", " style=", " on"] {
            // As attributes and addresses; words in texts are not meant.
            let attribute = outside == " on" && !page.contains(" onclick") && !page.contains(" onload");
            assert!(attribute || !page.contains(outside), "{outside}");
        }
        let said = page.find("worker 2 lied in 9 of the last 64 rounds, last in round 63").unwrap();
        assert!(said < page.find("<svg").unwrap() && said < page.find("<section").unwrap());
        assert_eq!(page.matches("nonce=\"0123\"").count(), 2);
        assert!(!page.contains("NaN") && page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn every_state_has_a_mark_and_a_word_beside_its_colour() {
        let page = html(&made_up(), "0");
        for state in [State::Ok, State::Lied, State::Gone, State::Absent, State::Never] {
            assert!(page.contains(&format!("<span>{} {}</span>", state.mark(), state.name())), "{state:?}");
        }
    }

    #[test]
    fn every_tag_is_closed() {
        let mut status = made_up();
        status.rounds[3].complete = false;
        status.rounds[3].why_not = Some("too few".into());
        let page = html(&status, "0");
        for tag in [
            "main", "section", "figure", "svg", "table", "tr", "td", "text", "ul", "li", "div", "p", "dl", "dt", "span",
        ] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn no_text_becomes_markup() {
        let mut status = made_up();
        let evil = || "<img src=x onerror=\"alert(1)\">".to_owned();
        status.job.name = evil();
        (status.rdma, status.push, status.address, status.solond) = (evil(), evil(), evil(), evil());
        (status.notes, status.why_not) = (vec![evil()], vec![evil()]);
        status.groups[0].workers[0].left = Some(evil());
        status.rounds[63].why_not = Some(evil());
        status.rounds[63].complete = false;
        let page = html(&status, "0");
        assert!(!page.contains("<img") && page.matches("&lt;img").count() >= 8);
    }

    #[test]
    fn workers_that_are_groups_of_their_own_stand_together() {
        let mut status = made_up();
        assert_eq!(html(&status, "0").matches("<section").count(), 2);
        status.job.redundancy = 1;
        assert_eq!(html(&status, "0").matches("<section").count(), 1);
    }

    #[test]
    fn a_job_without_a_round_and_one_with_strange_numbers_have_a_page() {
        let mut status = made_up();
        status.rounds.truncate(1);
        (status.rounds[0].seconds, status.rounds[0].residual, status.rounds[0].received) = (0.0, 0.0, f64::MAX);
        assert!(!html(&status, "0").contains("NaN") && !html(&status, "0").contains("inf"));
        status.rounds.clear();
        assert!(html(&status, "0").contains("No round was closed"));
    }
}
