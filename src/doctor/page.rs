//! A report as text: groups, one line per check, and below it what to do, where there is something.

use std::fmt::Write as _;

use super::{Report, Status};

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
        let mut found = finding.found.lines();
        let first = found.next().unwrap_or_default();
        let _ = writeln!(page, "  {}  {:width$}  {first}", finding.status.sign(), finding.check);
        let indent = 2 + 6 + 2 + width + 2;
        for line in found {
            let _ = writeln!(page, "{:indent$}{line}", "");
        }
        if matches!(finding.status, Status::Pass | Status::Skip) {
            continue;
        }
        for (word, text) in [("expected", &finding.expected), ("do", &finding.hint)] {
            if !text.is_empty() {
                let _ = writeln!(page, "{:indent$}{word}: {text}", "");
            }
        }
        if finding.status != Status::Note {
            let _ = writeln!(page, "{:indent$}see {}", "", finding.docs);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Finding, Outcome};

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
