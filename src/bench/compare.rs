//! A report against a saved one: every figure's ratio, and whether Solon got slower relative to its floors.

use std::fmt;
use std::path::Path;

use super::BenchError;
use super::figures::{Cell, Figure, Table, three_digits};
use super::rounds::{Report, Timed};

/// A report and one that was saved before.
pub struct Comparison {
    rows: Vec<(String, f64, f64)>,
    /// Ratios to floors that got worse by more than the tolerance: name, before, now.
    pub worse: Vec<(&'static str, f64, f64)>,
    tolerance: f64,
}

/// Reads a report that `solon bench --json` printed.
///
/// # Errors
/// If the file cannot be read, or is something else.
pub fn read(path: &Path) -> Result<Report, BenchError> {
    let file = |problem: String| BenchError::File { path: path.into(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| file(format!("cannot be read: {error}")))?;
    serde_json::from_str(&text).map_err(|error| file(format!("is not what solon bench --json prints: {error}")))
}

/// Compares `now` with `before`, which was read from `path`. A ratio to a floor may be worse by `tolerance`, 0.05 for 5 %.
///
/// # Errors
/// If they are of different jobs.
pub fn compare(before: &Report, now: &Report, tolerance: f64, path: &Path) -> Result<Comparison, BenchError> {
    if before.setting != now.setting {
        let problem =
            format!("is of another job ({}); this one is {}: give the same flags", before.setting, now.setting);
        return Err(BenchError::File { path: path.into(), problem });
    }
    let ratios = |report: &Report| {
        let figures: [(&'static str, &Figure); 3] = [
            ("time / the same round, data dropped", &report.over_dropping),
            ("time / raw bytes", &report.over_raw),
            ("CPU / the same round, data dropped", &report.cpu_over_dropping),
        ];
        figures.map(|(name, figure)| (name, figure.median()))
    };
    let mut rows = Vec::new();
    let mut worse = Vec::new();
    for ((name, before), (_, now)) in ratios(before).into_iter().zip(ratios(now)) {
        rows.push((name.to_owned(), before, now));
        // Processor time on a shared machine is told, but decides nothing.
        if name.starts_with("time") && now > before * (1.0 + tolerance) {
            worse.push((name, before, now));
        }
    }
    let sides = |report: &Report| {
        [
            ("raw floor", report.raw.clone()),
            ("dropping floor", report.dropping.clone()),
            ("Solon", report.solon.clone()),
        ]
    };
    for ((side, before), (_, now)) in sides(before).into_iter().zip(sides(now)) {
        for ((name, before), (_, now)) in figures(&before).into_iter().zip(figures(&now)) {
            rows.push((format!("{side}: {name}"), before, now));
        }
    }
    for (before, now) in before.stages.iter().zip(&now.stages) {
        rows.push((format!("{} ms", now.stage), before.ms.median(), now.ms.median()));
    }
    for (name, before, now) in [
        ("daemon MiB", before.daemon_bytes as f64, now.daemon_bytes as f64),
        ("worker MiB", before.worker_bytes as f64, now.worker_bytes as f64),
    ] {
        rows.push((name.into(), before / f64::from(1 << 20), now / f64::from(1 << 20)));
    }
    Ok(Comparison { rows, worse, tolerance })
}

fn figures(timed: &Timed) -> [(&'static str, f64); 6] {
    [
        ("ms", timed.round_ms.median()),
        ("GB/s", timed.gb_per_s.median()),
        ("CPU ms", timed.cpu_ms.median()),
        ("CPU s per GiB", timed.cpu_s_per_gib.median()),
        ("minor faults", timed.minor_faults.median()),
        ("voluntary switches", timed.voluntary_switches.median()),
    ]
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new("Against the saved report", &["figure", "before", "now", "now / before"]);
        for (name, before, now) in &self.rows {
            let ratio = if *before == 0.0 { Cell::Nothing } else { Cell::Number(now / before) };
            table.push(vec![Cell::Text(name.clone()), Cell::Number(*before), Cell::Number(*now), ratio]);
        }
        writeln!(f, "{table}")?;
        match &self.worse[..] {
            [] => write!(f, "No ratio to a floor is worse by more than {} %.", three_digits(self.tolerance * 100.0)),
            worse => {
                let worse = worse.iter().map(|(name, before, now)| {
                    format!("{name}: {} before, {} now", three_digits(*before), three_digits(*now))
                });
                let worse = worse.collect::<Vec<_>>().join("; ");
                write!(f, "Worse by more than {} %: {worse}.", three_digits(self.tolerance * 100.0))
            }
        }
    }
}
