//! A report as text: groups, one line per check, and below it what to do, where there is something.

use std::fmt::Write as _;

use super::{Report, Status};

/// Lines are no longer than this, words permitting.
const COLUMNS: usize = 130;

impl Status {
    /// A sign and a word, for people.
    fn sign(self) -> &'static str {
        match self {
            Status::Pass => "\u{2713} pass",
            Status::Note => "\u{b7} note",
            Status::Warn => "! warn",
            Status::Fail => "\u{2717} FAIL",
            Status::Skip => "- skip",
        }
    }
}

/// The whole report.
pub fn text(report: &Report) -> String {
    let mut page = String::new();
    let width = report.findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let mut group = "";
    for finding in &report.findings {
        if finding.group != group {
            group = finding.group;
            let gap = if page.is_empty() { "" } else { "\n" };
            let _ = writeln!(page, "{gap}{group}");
        }
        let indent = 2 + 6 + 2 + width + 2;
        let mut found = finding.found.lines().flat_map(|line| wrapped(line, COLUMNS - indent));
        let first = found.next().unwrap_or_default();
        let _ = writeln!(page, "  {}  {:width$}  {first}", finding.status.sign(), finding.check);
        let mut more: Vec<String> = found.collect();
        if !matches!(finding.status, Status::Pass | Status::Skip) {
            for (word, text) in [("expected", &finding.expected), ("do", &finding.hint)] {
                if !text.is_empty() {
                    more.extend(wrapped(&format!("{word}: {text}"), COLUMNS - indent));
                }
            }
            if finding.status != Status::Note {
                more.push(format!("see {}", finding.docs));
            }
        }
        for line in more {
            let _ = writeln!(page, "{:indent$}{line}", "");
        }
    }
    let count = |status| report.count(status);
    let _ = writeln!(
        page,
        "\n{} checks: {} pass, {} note, {} warn, {} fail, {} skipped",
        report.findings.len(),
        count(Status::Pass),
        count(Status::Note),
        count(Status::Warn),
        count(Status::Fail),
        count(Status::Skip)
    );
    page
}

/// A line as several, broken between words.
fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let last = lines.last_mut().expect("there is one");
        if last.is_empty() {
            *last = word.to_owned();
        } else if last.chars().count() + 1 + word.chars().count() > columns {
            lines.push(word.to_owned());
        } else {
            *last += " ";
            *last += word;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Finding, Outcome};

    #[test]
    fn lines_are_broken_between_words_and_no_word_is_lost() {
        assert_eq!(wrapped("a bb ccc dddd eeeeeeeee f", 6), ["a bb", "ccc", "dddd", "eeeeeeeee", "f"]);
        assert_eq!(wrapped("", 6), [""]);
    }

    #[test]
    fn only_what_needs_somebody_says_what_to_do() {
        let finding = |group, check, outcome| Finding::new((group, check, "rdma.md#memlock"), outcome);
        let findings = vec![
            finding("system", "kernel", Outcome::pass("Linux 6.1")),
            finding("memory", "locked memory", Outcome::of(Status::Fail, "64 KiB\nand no more", "1 MiB", "ulimit -l")),
            finding("memory", "files", Outcome::of(Status::Note, "few", "", "")),
        ];
        let expected = "\
system
  \u{2713} pass  kernel         Linux 6.1

memory
  \u{2717} FAIL  locked memory  64 KiB
                         and no more
                         expected: 1 MiB
                         do: ulimit -l
                         see docs/rdma.md#memlock
  \u{b7} note  files          few

3 checks: 1 pass, 1 note, 0 warn, 1 fail, 0 skipped
";
        assert_eq!(text(&Report { version: 1, job: String::new(), findings, peer: None }), expected);
    }
}
