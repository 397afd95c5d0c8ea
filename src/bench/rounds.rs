//! The figures of one job: Solon and both floors, in interleaved repetitions.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cluster::{Cluster, Floors, Sample};
use super::figures::{Cell, Figure, Machine, Table, three_digits};
use super::worker::Target;
use super::{BenchError, Job, Linger, Trouble};
use crate::code::Precision;
use crate::pipeline::StageName;
use crate::plan::Code;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Repetitions of each side.
    pub repetitions: usize,
    /// Rounds per repetition; as many as fit into `seconds` if not given.
    pub rounds: Option<u64>,
    /// Seconds that one repetition shall take.
    pub seconds: f64,
    /// Seconds for which the daemon is watched at rest.
    pub rest: f64,
    /// Lots of pings that are timed for a round trip.
    pub lots: u32,
}

impl Effort {
    /// Enough to quote.
    pub const FULL: Effort = Effort { repetitions: 5, rounds: None, seconds: 0.5, rest: 0.5, lots: 50 };
    /// Too little to quote, but everything is run.
    pub const QUICK: Effort = Effort { repetitions: 2, rounds: Some(3), seconds: 0.0, rest: 0.02, lots: 3 };

    /// Rounds per repetition, if one round takes so many seconds: at least 2.
    pub fn rounds(&self, per_round: f64) -> u64 {
        self.rounds.unwrap_or(((self.seconds / per_round.max(1e-6)) as u64).clamp(2, 20_000))
    }
}

/// One side of the comparison. Figures are per round unless they say otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// Wall-clock milliseconds.
    pub round_ms: Figure,
    /// 1e9 bytes per second, both ways together.
    pub gb_per_s: Figure,
    /// Milliseconds of processor time of the receiving side.
    pub cpu_ms: Figure,
    /// Seconds of processor time of the receiving side per 2^30 bytes, both ways together.
    pub cpu_s_per_gib: Figure,
    /// Page faults of the receiving side without I/O.
    pub minor_faults: Figure,
    /// Page faults of the receiving side that waited for a disk.
    pub major_faults: Figure,
    /// Times that a thread of the receiving side went to sleep.
    pub voluntary_switches: Figure,
}

impl Timed {
    /// The figures of these repetitions, where a round moves `bytes` unless the daemon counted them.
    pub fn of(samples: &[Sample], bytes: f64) -> Timed {
        let moved = |sample: &Sample| match sample.counters.bytes_received + sample.counters.bytes_sent {
            0.0 => bytes,
            counted => counted,
        };
        let figure = |value: &dyn Fn(&Sample) -> f64| Figure::new(samples.iter().map(value).collect());
        Timed {
            round_ms: figure(&|sample| sample.seconds * 1e3),
            gb_per_s: figure(&|sample| moved(sample) / sample.seconds.max(1e-9) / 1e9),
            cpu_ms: figure(&|sample| sample.usage.cpu * 1e3),
            cpu_s_per_gib: figure(&|sample| sample.usage.cpu / (moved(sample) / f64::from(1 << 30))),
            minor_faults: figure(&|sample| sample.usage.minor_faults),
            major_faults: figure(&|sample| sample.usage.major_faults),
            voluntary_switches: figure(&|sample| sample.usage.voluntary_switches),
        }
    }
}

/// What the daemon's threads did in a round, in milliseconds of all of them together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// The stage, or `idle`: asleep, looking for work, or kept from its core by another process.
    pub stage: String,
    /// Milliseconds per round.
    pub ms: Figure,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// P.
    pub workers: usize,
    /// P / r.
    pub groups: usize,
    /// r.
    pub redundancy: usize,
    /// s.
    pub adversaries: usize,
    /// e.
    pub stragglers: usize,
    /// r_c.
    pub compression: usize,
    /// d, numbers.
    pub dimension: usize,
    /// Numbers in a shard of one chunk.
    pub chunk_width: usize,
    /// How the numbers of shards stand on the wire.
    #[serde(default)]
    pub precision: Precision,
    /// How those of updates do.
    #[serde(default)]
    pub update_precision: Precision,
    /// How long words wait.
    pub linger: Linger,
    /// What the daemon's cores do while there is nothing to do.
    pub idle: String,
    /// What goes wrong in Solon's rounds.
    pub trouble: Trouble,
}

impl Setting {
    fn of(job: &Job, trouble: &Trouble) -> Setting {
        let code = Code::from(job.parameters);
        Setting {
            workers: code.workers,
            groups: code.groups,
            redundancy: code.redundancy,
            adversaries: code.adversaries,
            stragglers: code.stragglers,
            compression: code.compression,
            dimension: job.dimension,
            chunk_width: job.chunk_width,
            precision: job.precision,
            update_precision: job.update_precision,
            linger: job.linger,
            idle: job.idle_word(),
            trouble: trouble.clone(),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting { workers, redundancy, compression, adversaries, stragglers, dimension, .. } = self;
        write!(f, "P={workers} r={redundancy} r_c={compression} s={adversaries} e={stragglers} d={dimension}")?;
        if self.precision != Precision::F32 {
            write!(f, ", {} shards", self.precision)?;
        }
        if self.update_precision != Precision::F32 {
            write!(f, ", {} updates", self.update_precision)?;
        }
        match self.linger {
            Linger::All => write!(f, ", waits for all")?,
            Linger::Ms(ms) => write!(f, ", linger {ms} ms")?,
        }
        let Trouble { liars, change, absent, .. } = self.trouble;
        if liars > 0 {
            write!(f, ", {liars} liars per group, others in every {}", format!("{change:?}").to_lowercase())?;
        }
        if absent > 0 {
            write!(f, ", {absent} absent per group")?;
        }
        Ok(())
    }
}

/// All figures of one job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The machine, in words.
    pub machine: String,
    /// What was measured.
    pub setting: Setting,
    /// Rounds per repetition.
    pub rounds: u64,
    /// Repetitions of each side.
    pub repetitions: usize,
    /// The floor without encoding and checking.
    pub raw: Timed,
    /// The floor with real workers: the same round that drops the data.
    pub dropping: Timed,
    /// The daemon.
    pub solon: Timed,
    /// Wall-clock time of a round with solond over one with the raw floor.
    pub over_raw: Figure,
    /// Wall-clock time of a round with solond over one with the dropping floor.
    pub over_dropping: Figure,
    /// Processor time of solond over that of the dropping floor.
    pub cpu_over_dropping: Figure,
    /// What the daemon's threads did.
    pub stages: Vec<Stage>,
    /// System calls of the daemon's transport per 2^20 bytes, where it counts them.
    pub system_calls_per_mib: Option<f64>,
    /// Resident memory of the daemon, in bytes.
    pub daemon_bytes: u64,
    /// Resident memory of one worker process, in bytes.
    pub worker_bytes: u64,
    /// Milliseconds of processor time per second that the daemon takes while all are connected and silent.
    pub rest_cpu_ms_per_s: f64,
    /// Milliseconds from SIGTERM to the end of the daemon.
    pub stop_ms: f64,
}

/// Ratio of neighbouring repetitions.
pub fn ratio(over: &[Sample], under: &[Sample], of: impl Fn(&Sample) -> f64) -> Figure {
    Figure::new(over.iter().zip(under).map(|(over, under)| of(over) / of(under).max(1e-12)).collect())
}

/// Measures one job.
///
/// # Errors
/// If it cannot be run, or workers end with different updates.
pub fn measure(program: &Path, job: Job, trouble: &Trouble, effort: &Effort) -> Result<Report, BenchError> {
    job.check(trouble)?;
    let mut cluster = Cluster::start(program, job, Floors::Both, trouble.absent)?;
    const SIDES: [Target; 3] = [Target::Raw, Target::Dropping, Target::Solon];
    let mut longest: f64 = 0.0;
    for target in SIDES {
        // Buffers are touched, caches and the congestion window grow.
        cluster.run(target, 2, trouble)?;
        longest = longest.max(cluster.run(target, 2, trouble)?.seconds);
    }
    let rounds = effort.rounds(longest);
    let mut samples: [Vec<Sample>; 3] = Default::default();
    for _ in 0..effort.repetitions.max(1) {
        for (target, samples) in SIDES.into_iter().zip(&mut samples) {
            samples.push(cluster.run(target, rounds, trouble)?);
        }
    }
    let reactors = cluster.reactors() as f64;
    let [daemon_bytes, worker_bytes] = cluster.resident();
    let rest_cpu_ms_per_s = cluster.at_rest(Duration::from_secs_f64(effort.rest));
    let stop_ms = cluster.stop()?;
    let [raw, dropping, solon] = samples;
    let sending = job.parameters.groups() * (job.parameters.redundancy() - trouble.absent);
    let bytes = (sending as u64 * job.up_bytes() + job.workers() as u64 * job.down_bytes()) as f64;
    let stage = |name: &str, ms: &dyn Fn(&Sample) -> f64| Stage {
        stage: name.into(),
        ms: Figure::new(solon.iter().map(|sample| ms(sample).max(0.0)).collect()),
    };
    let mut stages: Vec<Stage> = StageName::ALL
        .iter()
        .enumerate()
        .map(|(at, name)| stage(name.name(), &|sample| sample.counters.busy[at] * 1e3))
        .collect();
    let busy = |sample: &Sample| sample.counters.busy.iter().sum::<f64>();
    stages.push(stage("idle", &|sample| (reactors * sample.seconds - busy(sample)) * 1e3));
    let calls: Option<Vec<f64>> = solon.iter().map(|sample| sample.counters.system_calls).collect();
    let mib = |sample: &Sample| (sample.counters.bytes_received + sample.counters.bytes_sent) / f64::from(1 << 20);
    let per_mib = |calls: Vec<f64>| calls.iter().sum::<f64>() / solon.iter().map(mib).sum::<f64>().max(1e-12);
    Ok(Report {
        machine: Machine::read().to_string(),
        setting: Setting::of(&job, trouble),
        rounds,
        repetitions: solon.len(),
        over_raw: ratio(&solon, &raw, |sample| sample.seconds),
        over_dropping: ratio(&solon, &dropping, |sample| sample.seconds),
        cpu_over_dropping: ratio(&solon, &dropping, |sample| sample.usage.cpu),
        stages,
        system_calls_per_mib: calls.map(per_mib),
        daemon_bytes,
        worker_bytes,
        rest_cpu_ms_per_s,
        stop_ms,
        raw: Timed::of(&raw, bytes),
        dropping: Timed::of(&dropping, bytes),
        solon: Timed::of(&solon, bytes),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{}", self.setting)?;
        writeln!(
            f,
            "median (least to most) of {} interleaved repetitions of {} rounds; GB = 1e9 bytes, both ways together; per round\n",
            self.repetitions, self.rounds
        )?;
        let columns =
            ["what", "ms", "GB/s", "CPU ms", "CPU s per GiB", "minor faults", "major faults", "voluntary switches"];
        let mut table = Table::new("Whole rounds", &columns);
        for (what, timed) in [
            ("floor: raw bytes", &self.raw),
            ("floor: the same round, data dropped", &self.dropping),
            ("Solon", &self.solon),
        ] {
            let figures = [
                &timed.round_ms,
                &timed.gb_per_s,
                &timed.cpu_ms,
                &timed.cpu_s_per_gib,
                &timed.minor_faults,
                &timed.major_faults,
                &timed.voluntary_switches,
            ];
            let cells = figures.into_iter().map(|figure| Cell::Figure(figure.clone()));
            table.push([Cell::Text(what.into())].into_iter().chain(cells).collect());
        }
        writeln!(f, "{table}")?;
        let mut table = Table::new("Solon over its floors", &["ratio", "figure"]);
        for (what, figure) in [
            ("time / the same round, data dropped", &self.over_dropping),
            ("time / raw bytes", &self.over_raw),
            ("CPU / the same round, data dropped", &self.cpu_over_dropping),
        ] {
            table.push(vec![Cell::Text(what.into()), Cell::Figure(figure.clone())]);
        }
        writeln!(f, "{table}")?;
        let mut table = Table::new("The daemon's threads", &["stage", "ms per round"]);
        for Stage { stage, ms } in &self.stages {
            table.push(vec![Cell::Text(stage.clone()), Cell::Figure(ms.clone())]);
        }
        writeln!(f, "{table}")?;
        if let Some(calls) = self.system_calls_per_mib {
            writeln!(f, "{} system calls per MiB", three_digits(calls))?;
        }
        writeln!(
            f,
            "resident: daemon {} MiB, one worker {} MiB; at rest {} ms of CPU per second; {} ms from SIGTERM to the end",
            self.daemon_bytes >> 20,
            self.worker_bytes >> 20,
            three_digits(self.rest_cpu_ms_per_s),
            three_digits(self.stop_ms)
        )?;
        write!(f, "All workers had the same update after every repetition, and it was the mean of the gradients.")
    }
}
