//! The status in a terminal: lines of text, none wider than it is.

use std::fmt::Write;

use super::super::status::{Group, Round, State, Status, span};

/// Rounds that are listed.
const ROUNDS: usize = 10;
/// Workers in a line, where each is a group of its own.
const PER_ROW: usize = 50;
/// Workers that are told about one by one.
const WORKERS: usize = 16;
/// Characters to which a cell is filled up: what answered need not be a daemon, and a width above 65535 panics.
const CELL: usize = 200;

/// The status as lines of at most `width` characters. Control characters are left out: what answered need not be a daemon.
pub fn lines(status: &Status, width: usize) -> Vec<String> {
    let job = &status.job;
    let connected: usize = status.groups.iter().map(|group| group.connected).sum();
    let mut lines = vec![format!(
        "job {}: {}, {connected} of {} workers in {} groups, up {}",
        job.name,
        status.word(),
        job.workers,
        job.groups,
        span(status.uptime_seconds)
    )];
    lines.extend(status.sentences().iter().map(|(weight, text)| format!("{} {text}", weight.mark())));
    let totals = &status.totals;
    lines.push(format!(
        "rounds: {} complete, {} undecodable, next {}; {} lies in shards",
        totals.rounds_complete, totals.rounds_undecodable, status.next_round, totals.lies
    ));
    lines.push(format!(
        "{} at {}, updates {}",
        if totals.rdma_sessions > 0 { "TCP and RDMA" } else { "TCP" },
        status.address,
        status.push
    ));
    lines.push(String::new());
    if job.redundancy == 1 {
        let marks: Vec<char> = status.workers().map(|worker| worker.state.mark()).collect();
        let row = |(at, row): (usize, &[char])| format!("from {:>4}  {}", at * PER_ROW, row.iter().collect::<String>());
        lines.extend(marks.chunks(PER_ROW).enumerate().map(row));
    } else {
        lines.extend(status.groups.iter().map(group));
    }
    let legend: Vec<String> = State::ALL.iter().map(|state| format!("{} {}", state.mark(), state.name())).collect();
    lines.push(format!("         {}", legend.join("  ")));
    let told: Vec<_> = status.workers().filter(|worker| !matches!(worker.state, State::Ok)).collect();
    for worker in told.iter().take(WORKERS) {
        let seen = worker.seen_seconds_ago.map_or(String::new(), |ago| format!(", seen {} ago", span(ago)));
        let left = worker.left.as_ref().map_or(String::new(), |left| format!(": {left}"));
        lines.push(format!("worker {} {}{seen}{left}", worker.worker, worker.state.name()));
    }
    if told.len() > WORKERS {
        lines.push(format!("and {} more", told.len() - WORKERS));
    }
    if !status.rounds.is_empty() {
        lines.push(String::new());
        lines.extend(rounds(&status.rounds));
    }
    lines.iter().map(|line| cut(line, width)).collect()
}

fn group(group: &Group) -> String {
    let marks: String = group.workers.iter().map(|worker| worker.state.mark()).collect();
    let Group { group, connected, needed, workers } = group;
    format!("group {group:>3}  {marks}  {connected} of {} connected, {needed} must agree", workers.len())
}

/// The last rounds, the latest first.
fn rounds(rounds: &[Round]) -> Vec<String> {
    let mut rows = vec![["round", "outcome", "took", "residual", "received", "liars", "absent"].map(String::from)];
    rows.extend(rounds.iter().rev().take(ROUNDS).map(|round| {
        [
            round.round.to_string(),
            if round.complete { "complete" } else { "UNDECODABLE" }.into(),
            span(round.seconds),
            ratio(round.residual),
            ratio(round.received),
            list(&round.liars),
            list(&round.absent),
        ]
    }));
    let wide = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).min(CELL);
    let widths: [usize; 7] = std::array::from_fn(wide);
    let line = |row: &[String; 7]| {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate() {
            let wide = widths[column];
            let _ = match column {
                1 | 5 | 6 => write!(text, "{cell:<wide$}  "),
                _ => write!(text, "{cell:>wide$}  "),
            };
        }
        text.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A residual over the tolerance.
pub(super) fn ratio(ratio: f64) -> String {
    match ratio {
        ..0.0 => "-".into(),
        0.0 => "0".into(),
        0.001..1e4 => format!("{ratio:.3}"),
        _ => format!("{ratio:.1e}"),
    }
}

/// `1 5 8`, or `-`.
pub(super) fn list(workers: &[usize]) -> String {
    if workers.is_empty() {
        return "-".into();
    }
    workers.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
}

/// At most `width` printable characters.
fn cut(text: &str, width: usize) -> String {
    let printable = || text.chars().filter(|character| !character.is_control());
    if printable().count() <= width {
        return printable().collect();
    }
    printable().take(width.saturating_sub(1)).chain("…".chars().take(width)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::status::tests::made_up;
    use super::*;

    #[test]
    fn a_terminal_shows_liars_first_then_groups_then_rounds() {
        let shown = lines(&made_up(), 100);
        let wanted = [
            "job digits: ready, 6 of 8 workers in 2 groups, up 75 s",
            "✗ worker 2 lied in 9 of the last 64 rounds, last in round 63",
            "rounds: 70 complete, 0 undecodable, next 70; 50 lies in shards",
            "TCP at 127.0.0.1:7447, updates relay",
            "",
            "group   0  ✓✓✗○  3 of 4 connected, 3 must agree",
            "group   1  ✓–✓·  3 of 4 connected, 3 must agree",
        ];
        assert_eq!(shown[..wanted.len()], wanted);
        assert!(
            shown.iter().any(|line| line == "worker 3 gone, seen 5.0 s ago: the connection was closed"),
            "{shown:#?}"
        );
        let row = shown.iter().find(|line| line.trim_start().starts_with("63 ")).unwrap();
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["63", "complete", "3.0", "ms", "0.125", "1.0e6", "2", "5", "7"]
        );
    }

    #[test]
    fn workers_that_are_groups_of_their_own_share_lines() {
        let mut status = made_up();
        status.job.redundancy = 1;
        assert!(lines(&status, 100).contains(&"from    0  ✓✓✗○✓–✓·".to_owned()));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_or_moves_its_cursor() {
        let mut status = made_up();
        status.job.name = "\x1b[2Jevil\n".into();
        status.groups[0].workers[3].left = Some("\r\x07".into());
        status.rounds.last_mut().unwrap().liars = vec![usize::MAX; 10_000];
        for width in 0..140 {
            for line in lines(&status, width) {
                assert!(line.chars().count() <= width && !line.chars().any(char::is_control), "{width}: {line:?}");
            }
        }
    }
}
