//! Growth: one parameter of a job grows, all else stays; Solon, its floors, what the bytes alone would take, and memory.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::figures::{Cell, Figure, Table, three_digits};
use super::rounds::{self, Effort, Report};
use super::{BenchError, Job, Trouble};
use crate::code::Parameters;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Axis {
    /// Workers, up to 64
    #[value(name = "P")]
    #[serde(rename = "P")]
    Workers,
    /// Numbers in the gradient, 1e4 to 1e8
    #[value(name = "d")]
    #[serde(rename = "d")]
    Dimension,
    /// The factor by which uploads shrink, 1 to 16
    #[value(name = "r_c")]
    #[serde(rename = "r_c")]
    Compression,
    /// Liars per group that are corrected, 0 to 5
    #[value(name = "s")]
    #[serde(rename = "s")]
    Adversaries,
}

impl Axis {
    /// Its letter.
    pub fn letter(self) -> &'static str {
        match self {
            Axis::Workers => "P",
            Axis::Dimension => "d",
            Axis::Compression => "r_c",
            Axis::Adversaries => "s",
        }
    }
}

/// One size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The parameter that grows.
    pub value: usize,
    /// P.
    pub workers: usize,
    /// r.
    pub redundancy: usize,
    /// Bytes of a round, both ways, headers included.
    pub bytes: u64,
    /// Milliseconds per round of the raw floor.
    pub raw_ms: Figure,
    /// Milliseconds per round of the dropping floor.
    pub dropping_ms: Figure,
    /// Milliseconds per round of Solon.
    pub solon_ms: Figure,
    /// Solon over the dropping floor.
    pub over_dropping: Figure,
    /// Milliseconds that the bytes would take at [`Sweep::gb_per_s`].
    pub predicted_ms: f64,
    /// Resident memory of the daemon, in bytes.
    pub daemon_bytes: u64,
    /// Resident memory of one worker process, in bytes.
    pub worker_bytes: u64,
}

/// All sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// The machine, in words.
    pub machine: String,
    /// What grows.
    pub axis: Axis,
    /// The job whose parameter grows, in words.
    pub job: String,
    /// 1e9 bytes per second, both ways together, of the raw floor where most bytes were moved.
    pub gb_per_s: f64,
    /// The sizes that were measured.
    pub points: Vec<Point>,
    /// The sizes that were not, and why.
    pub left_out: Vec<String>,
}

/// The sizes along `axis`. Where a group's size changes, the number of workers is the multiple of it nearest to that of `base`.
pub fn jobs(base: &Job, axis: Axis, quick: bool) -> Vec<(usize, Job)> {
    let p = base.parameters;
    let (s, e, c, r) = (p.adversaries(), p.stragglers(), p.compression(), p.redundancy());
    let code = |s: usize, c: usize| {
        let r = c + 2 * s + e;
        let groups = ((base.workers() as f64 / r as f64).round() as usize).max(1);
        Parameters::new(groups, s, e, c).ok().filter(|code| code.workers() <= 64)
    };
    let with = |value: usize, parameters: Option<Parameters>| Some((value, Job { parameters: parameters?, ..*base }));
    let all: Vec<(usize, Job)> = match axis {
        Axis::Workers => {
            let mut groups: Vec<usize> = (0..7).map(|power| 1 << power).filter(|groups| groups * r <= 64).collect();
            // The last one is as near to 64 as can be.
            groups.extend(Some(64 / r).filter(|most| Some(most) > groups.last().as_ref().copied()));
            groups.into_iter().filter_map(|groups| with(groups * r, Parameters::new(groups, s, e, c).ok())).collect()
        }
        Axis::Dimension => {
            (4..=8).map(|power| 10usize.pow(power)).map(|dimension| (dimension, Job { dimension, ..*base })).collect()
        }
        Axis::Compression => [1, 2, 4, 8, 16].into_iter().filter_map(|c| with(c, code(s, c))).collect(),
        Axis::Adversaries => (0..=5).filter_map(|s| with(s, code(s, c))).collect(),
    };
    all.into_iter().take(if quick { 2 } else { usize::MAX }).collect()
}

/// Measures every size along `axis`; `note` is told which one is next, and what is left out.
///
/// # Errors
/// If one cannot be run for another reason than memory.
pub fn measure(
    program: &Path,
    base: &Job,
    axis: Axis,
    effort: &Effort,
    quick: bool,
    note: &mut dyn FnMut(&str),
) -> Result<Sweep, BenchError> {
    let mut measured: Vec<(usize, u64, Report)> = Vec::new();
    let mut left_out = Vec::new();
    for (value, job) in jobs(base, axis, quick) {
        let name = format!("{}={value}", axis.letter());
        note(&name);
        match rounds::measure(program, job, &Trouble::none(), effort) {
            Ok(report) => {
                let bytes = job.workers() as u64 * (job.up_bytes() + job.down_bytes());
                measured.push((value, bytes, report));
            }
            Err(error @ BenchError::Memory { .. }) => {
                note(&format!("{name} is left out: {error}"));
                left_out.push(format!("{name}: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    let Some((_, _, largest)) = measured.iter().max_by_key(|(_, bytes, _)| *bytes) else {
        return Err(BenchError::Options(format!(
            "no size along {} can be run: {}",
            axis.letter(),
            left_out.join("; ")
        )));
    };
    let (gb_per_s, machine) = (largest.raw.gb_per_s.median(), largest.machine.clone());
    let point = |(value, bytes, report): (usize, u64, Report)| Point {
        value,
        workers: report.setting.workers,
        redundancy: report.setting.redundancy,
        bytes,
        raw_ms: report.raw.round_ms,
        dropping_ms: report.dropping.round_ms,
        solon_ms: report.solon.round_ms,
        over_dropping: report.over_dropping,
        predicted_ms: bytes as f64 / gb_per_s / 1e6,
        daemon_bytes: report.daemon_bytes,
        worker_bytes: report.worker_bytes,
    };
    let p = base.parameters;
    let job = format!(
        "P={} r_c={} s={} e={} d={}, {} grows",
        base.workers(),
        p.compression(),
        p.adversaries(),
        p.stragglers(),
        base.dimension,
        axis.letter()
    );
    let points = measured.into_iter().map(point).collect();
    Ok(Sweep { machine, axis, job, gb_per_s, points, left_out })
}

impl Sweep {
    /// A picture of it, an SVG file for itself.
    pub fn svg(&self) -> String {
        super::plot::growth(self)
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.machine, self.job)?;
        writeln!(
            f,
            "ms per round, median (least to most); bytes alone: both ways at {} GB/s, the raw floor's rate at the largest size\n",
            three_digits(self.gb_per_s)
        )?;
        let all = [
            self.axis.letter(),
            "P",
            "r",
            "raw bytes",
            "data dropped",
            "Solon",
            "Solon / data dropped",
            "bytes alone",
            "daemon MiB",
            "worker MiB",
        ];
        // The number of workers is told once.
        let shown = |at: &usize| self.axis != Axis::Workers || *at != 1;
        let columns: Vec<&str> = (0..all.len()).filter(shown).map(|at| all[at]).collect();
        let mut table = Table::new("Growth", &columns);
        for point in &self.points {
            let text = |number: u64| Cell::Text(number.to_string());
            let cells = [
                text(point.value as u64),
                text(point.workers as u64),
                text(point.redundancy as u64),
                Cell::Figure(point.raw_ms.clone()),
                Cell::Figure(point.dropping_ms.clone()),
                Cell::Figure(point.solon_ms.clone()),
                Cell::Figure(point.over_dropping.clone()),
                Cell::Number(point.predicted_ms),
                text(point.daemon_bytes >> 20),
                text(point.worker_bytes >> 20),
            ];
            table.push(cells.into_iter().enumerate().filter(|(at, _)| shown(at)).map(|(_, cell)| cell).collect());
        }
        write!(f, "{table}")?;
        self.left_out.iter().try_for_each(|reason| write!(f, "\nleft out: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Linger;
    use super::*;

    fn base() -> Job {
        let parameters = Parameters::new(3, 2, 0, 1).unwrap();
        let idle = crate::daemon::config::Idle::Auto;
        Job {
            parameters,
            dimension: 1_000_000,
            chunk_width: 16_384,
            precision: crate::code::Precision::F32,
            update_precision: crate::code::Precision::F32,
            linger: Linger::All,
            idle,
        }
    }

    #[test]
    fn sizes_follow_the_axis_and_stay_within_64_workers() {
        let values = |axis| jobs(&base(), axis, false).into_iter().map(|(value, _)| value).collect::<Vec<_>>();
        assert_eq!(values(Axis::Workers), [5, 10, 20, 40, 60]);
        assert_eq!(values(Axis::Dimension), [10_000, 100_000, 1_000_000, 10_000_000, 100_000_000]);
        assert_eq!(values(Axis::Compression), [1, 2, 4, 8, 16]);
        assert_eq!(values(Axis::Adversaries), [0, 1, 2, 3, 4, 5]);
        for axis in [Axis::Workers, Axis::Compression, Axis::Adversaries] {
            assert!(jobs(&base(), axis, false).iter().all(|(_, job)| job.workers() <= 64));
        }
    }
}
