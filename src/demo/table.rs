//! How a run looks while it runs: a table that is redrawn in place on a terminal, a line per step elsewhere.
//!
//! Everything here makes text from records; who prints it, and how wide the terminal is, is the caller's business.

use std::fmt::Write;

use serde::Serialize;

use super::record::{Leg, LegKind, Step, percent};

/// A column: its heading, what it says of a leg, and how soon it goes when the terminal is narrow (0 stays).
struct Column {
    heading: &'static str,
    cell: fn(&Leg, u64) -> String,
    goes: u8,
}

/// From left to right. The last one is cut, not dropped, if it does not fit.
const COLUMNS: [Column; 8] = [
    Column { heading: "leg", cell: |leg, _| leg.kind.to_string(), goes: 0 },
    Column { heading: "step", cell: |leg, steps| progress(leg.steps.len() as u64, steps), goes: 0 },
    Column { heading: "accuracy", cell: |leg, _| leg.accuracy().map_or("-".into(), percent), goes: 0 },
    Column { heading: "loss", cell: |leg, _| loss(leg), goes: 4 },
    Column { heading: "up/step", cell: |leg, _| size(leg.mean(|step| step.bytes_up as f64)), goes: 2 },
    Column { heading: "down/step", cell: |leg, _| size(leg.mean(|step| step.bytes_down as f64)), goes: 3 },
    Column { heading: "ms/step", cell: |leg, _| format!("{:.1}", leg.mean(|step| step.ms)), goes: 1 },
    Column { heading: "liars named", cell: |leg, _| named(leg), goes: 0 },
];

/// Between columns.
const GAP: usize = 2;

/// The table: a heading and a line per leg, none longer than `width` characters. `steps` is how many steps each leg is to
/// take. Sizes and times are means per step over all workers; legs not begun show dashes.
pub fn lines(legs: &[Leg], steps: u64, width: usize) -> Vec<String> {
    let rows: Vec<Vec<String>> = std::iter::once(COLUMNS.iter().map(|column| column.heading.into()).collect())
        .chain(legs.iter().map(|leg| COLUMNS.iter().map(|column| cell(column, leg, steps)).collect()))
        .collect();
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| rows.iter().map(|row: &Vec<String>| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut shown: Vec<usize> = (0..COLUMNS.len()).collect();
    let last_heading = COLUMNS[COLUMNS.len() - 1].heading.len();
    for goes in (1..=4).rev() {
        // Without the last column's cells, which may be cut down to their heading.
        let needed: usize =
            shown[..shown.len() - 1].iter().map(|&column| widths[column] + GAP).sum::<usize>() + last_heading;
        if needed > width {
            shown.retain(|&column| COLUMNS[column].goes != goes);
        }
    }
    rows.iter().map(|row| line(row, &shown, &widths, width)).collect()
}

/// A table on a terminal, drawn over what was drawn before.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    drawn: usize,
}

impl Screen {
    /// A screen with nothing on it yet.
    pub fn new() -> Screen {
        Screen::default()
    }

    /// What to send to the terminal (ANSI) so that it shows `lines`, the first in bold, in place of those drawn last.
    /// No line may be longer than the terminal is wide. The cursor ends below them.
    pub fn redraw(&mut self, lines: &[String]) -> String {
        let mut text = String::new();
        if self.drawn > 0 {
            let _ = write!(text, "\r\x1b[{}A", self.drawn);
        }
        for (index, line) in lines.iter().enumerate() {
            let _ = match index {
                0 => writeln!(text, "\x1b[1m{line}\x1b[0m\x1b[K"),
                _ => writeln!(text, "{line}\x1b[K"),
            };
        }
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        text
    }
}

/// `7/120`, or `7` in a leg without end, whose number of steps is 0.
fn progress(step: u64, steps: u64) -> String {
    if steps == 0 { step.to_string() } else { format!("{step}/{steps}") }
}

/// One step as a line of words, for logs and pipes.
pub fn plain(kind: LegKind, step: &Step, steps: u64) -> String {
    let mut text = format!("{kind}: step {}", progress(step.step, steps));
    if let Some(accuracy) = step.accuracy {
        let _ = write!(text, ", accuracy {}", percent(accuracy));
    }
    if let Some(loss) = step.loss {
        let _ = write!(text, ", loss {}", short(loss));
    }
    let (up, down) = (size(step.bytes_up as f64), size(step.bytes_down as f64));
    let _ = write!(text, ", up {up}, down {down}, {:.1} ms", step.ms);
    for (what, workers) in [("liars", &step.liars), ("absent", &step.absent)] {
        if !workers.is_empty() {
            let _ = write!(text, ", {what} {}", spaced(workers));
        }
    }
    text
}

/// One step as a line of JSON: the record with its leg.
pub fn json(kind: LegKind, step: &Step) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        leg: LegKind,
        #[serde(flatten)]
        step: &'a Step,
    }
    serde_json::to_string(&Line { leg: kind, step }).expect("a step has only named fields and numbers")
}

fn cell(column: &Column, leg: &Leg, steps: u64) -> String {
    let begun = !leg.steps.is_empty() || column.heading == "leg" || leg.stopped.is_some();
    if begun { (column.cell)(leg, steps) } else { "-".into() }
}

/// Words are flush left, numbers flush right.
fn line(row: &[String], shown: &[usize], widths: &[usize], width: usize) -> String {
    let mut text = String::new();
    for &column in shown {
        let (cell, wide) = (&row[column], widths[column]);
        let _ = match column {
            0 => write!(text, "{cell:<wide$}"),
            _ if column == COLUMNS.len() - 1 => write!(text, "{:GAP$}{cell}", ""),
            _ => write!(text, "{:GAP$}{cell:>wide$}", ""),
        };
    }
    cut(text.trim_end(), width)
}

/// At most `width` characters of `text`, with an ellipsis if some are missing.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// Who was named so far; and if the leg ended early, why.
fn named(leg: &Leg) -> String {
    let workers: Vec<usize> = leg.named().iter().map(|named| named.worker).collect();
    let workers = if workers.is_empty() { "-".into() } else { spaced(&workers) };
    match &leg.stopped {
        Some(stopped) => format!("{workers}; stopped: {stopped}"),
        None => workers,
    }
}

fn loss(leg: &Leg) -> String {
    leg.steps.last().and_then(|step| step.loss).map_or("-".into(), short)
}

/// `0.1234` as `0.123`, `123456.0` as `1.2e5`.
fn short(value: f64) -> String {
    if value.abs() < 1e4 { format!("{value:.3}") } else { format!("{value:.1e}") }
}

/// A number of bytes in kB (1000) or MB.
pub(super) fn size(bytes: f64) -> String {
    match bytes {
        ..1e4 => format!("{:.1} kB", bytes / 1e3),
        ..1e6 => format!("{:.0} kB", bytes / 1e3),
        _ => format!("{:.1} MB", bytes / 1e6),
    }
}

fn spaced(workers: &[usize]) -> String {
    workers.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::record::made_up;
    use super::*;

    #[test]
    fn a_wide_terminal_shows_every_column_aligned() {
        let expected = "\
leg                 step  accuracy   loss  up/step  down/step  ms/step  liars named
mean, honest     120/120    96.1 %  0.186   231 kB     231 kB      3.0  -
mean, attacked   120/120    11.9 %      -   231 kB     231 kB      3.0  -
Solon, attacked  120/120    96.1 %  0.186   115 kB     231 kB      3.0  1 4 8 11";
        assert_eq!(lines(&made_up().legs, 120, 100).join("\n"), expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut legs = made_up().legs;
        legs[1].stopped = Some("the mean is not finite at step 120".into());
        legs[2].steps[3].liars = (0..64).collect();
        for width in 0..140 {
            let lines = lines(&legs, 120, width);
            assert_eq!(lines.len(), 4);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:?}");
        }
    }

    #[test]
    fn a_narrow_terminal_drops_loss_first_and_keeps_names() {
        let at = |width| lines(&made_up().legs, 120, width)[0].split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(at(80), "leg step accuracy up/step down/step ms/step liars named");
        assert_eq!(at(60), "leg step accuracy ms/step liars named");
        assert_eq!(at(50), "leg step accuracy liars named");
    }

    #[test]
    fn a_leg_not_begun_shows_dashes() {
        let lines = lines(&[Leg::new(LegKind::AttackedSolon)], 120, 100);
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>(),
            ["Solon,", "attacked", "-", "-", "-", "-", "-", "-", "-"]
        );
    }

    #[test]
    fn the_screen_is_drawn_over_what_it_showed() {
        let mut screen = Screen::new();
        let two = ["head".to_string(), "row".to_string()];
        assert_eq!(screen.redraw(&two), "\x1b[1mhead\x1b[0m\x1b[K\nrow\x1b[K\n\x1b[J");
        assert!(screen.redraw(&two[..1]).starts_with("\r\x1b[2A"));
        assert!(screen.redraw(&two).starts_with("\r\x1b[1A"));
    }

    #[test]
    fn a_plain_line_says_what_happened_and_nothing_else() {
        let legs = made_up().legs;
        let line = plain(LegKind::AttackedSolon, &legs[2].steps[40], 120);
        assert!(line.starts_with("Solon, attacked: step 41/120, accuracy 9") && !line.contains('\x1b'), "{line}");
        assert!(line.ends_with("up 115 kB, down 231 kB, 2.3 ms, liars 1 4 8 11, absent 6"), "{line}");
        let bare = plain(LegKind::HonestMean, &Step { step: 1, ..Step::default() }, 2);
        assert_eq!(bare, "mean, honest: step 1/2, up 0.0 kB, down 0.0 kB, 0.0 ms");
    }

    #[test]
    fn a_json_line_is_the_record_with_its_leg() {
        let step = Step { step: 41, accuracy: Some(0.5), ms: 2.5, liars: vec![1, 4], ..Step::default() };
        let text = json(LegKind::AttackedSolon, &step);
        assert!(text.starts_with(r#"{"leg":"attacked-solon","step":41,"#) && !text.contains('\n'), "{text}");
        assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), step);
    }

    #[test]
    fn sizes_change_unit_with_their_size() {
        assert_eq!(
            [size(950.0), size(9_620.0), size(230_880.0), size(2.5e6)],
            ["0.9 kB", "9.6 kB", "231 kB", "2.5 MB"]
        );
    }
}
