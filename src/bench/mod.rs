//! What `solon bench` measures: whole rounds with real processes against the same rounds that only move bytes.
//!
//! ```text
//! solon bench ── solond ────────────── P workers      Solon: encode, send, verify, decode, push, take the update
//!            ├── floor, dropping ───── the same P     the same rounds; the bytes of shards are dropped, a constant is pushed
//!            └── floor, raw ────────── the same P     the same bytes; nobody encodes, decodes or checks anything
//! ```
//!
//! All are processes of this program on loopback. A worker process holds one session with each of the three, and is told over
//! standard input with which to run how many rounds. Repetitions are interleaved (raw, dropping, Solon, raw, ..), so that what else
//! the machine does hits all alike; a ratio is the median of the ratios of neighbours.
//!
//! - [`floor`]: the receiving side of both floors, and the sending side of the raw one.
//! - [`worker`]: the worker process. - [`cluster`]: all processes, and one repetition. - [`usage`]: what `/proc` says of them.
//! - [`rounds`]: the figures of one job. - [`compare`]: the same against a saved file.
//! - [`sweep`]: one parameter grows. - [`tiny`]: rounds of few numbers against round trips. - [`goals`]: the table of goals.

pub mod cluster;
pub mod compare;
pub mod figures;
pub mod floor;
pub mod goals;
pub mod plot;
pub mod rounds;
pub mod sweep;
pub mod tiny;
pub mod usage;
pub mod worker;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::code::{Layout, ParameterError, Parameters, Precision};
use crate::demo::process::ProcessError;
use crate::wire::{HEADER_BYTES, REPORT_BYTES};

/// Name of the measured job, for solond and for the floor.
pub const JOB: &str = "bench";

/// A round's time from its begin to its end, and with [`Linger::All`] the longest that a word waits for workers.
pub const DEADLINE_MS: u64 = 60_000;

/// Why there is nothing measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The options do not fit together.
    #[error("{0}")]
    Options(String),
    /// The code's parameters are impossible.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// A process could not be started or ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A process said or did what it must not.
    #[error("{0}")]
    Broken(String),
    /// Two workers hold different updates.
    #[error("workers {first} and {other} were given different updates in {what}: this is a bug of Solon")]
    Different {
        /// A worker.
        first: usize,
        /// Another.
        other: usize,
        /// In which rounds.
        what: &'static str,
    },
    /// There is not so much memory.
    #[error(
        "{workers} workers with {dimension} numbers each need up to {needed_mib} MiB together, and {free_mib} MiB are \
         free, of which at most 70 % are taken: lower --dimension or --workers"
    )]
    Memory {
        /// Worker processes.
        workers: usize,
        /// Numbers in the gradient.
        dimension: usize,
        /// What they need, in MiB.
        needed_mib: u64,
        /// What there is, in MiB.
        free_mib: u64,
    },
    /// A file cannot be read, written or understood.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        problem: String,
    },
}

/// How long a word with enough shards waits for further ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Linger {
    /// For every connected worker: every byte is received and checked before it counts.
    All,
    /// For so many milliseconds; with 0 a word is decided as soon as r_c + s shards agree.
    Ms(u64),
}

impl std::str::FromStr for Linger {
    type Err = String;

    /// Reads `all` or a number of milliseconds.
    fn from_str(text: &str) -> Result<Linger, String> {
        let ms = text.parse().ok().filter(|ms| *ms <= DEADLINE_MS).map(Linger::Ms);
        (if text == "all" { Some(Linger::All) } else { ms })
            .ok_or_else(|| format!("found {text:?}, expected \"all\" or milliseconds from 0 to {DEADLINE_MS}"))
    }
}

/// How a liar of the benchmark lies. Cheap to make, so that it is the daemon that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Lie {
    /// A shard of NaN
    Nan,
    /// -100 times the shard
    Huge,
    /// A small number is added to most numbers
    Tiny,
    /// One number of the shard is wrong
    One,
}

/// When other workers begin to lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// In every round
    #[default]
    Round,
    /// In every chunk
    Chunk,
}

/// What is not as it should be in a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Liars per group.
    pub liars: usize,
    /// How they lie, one way after the other.
    pub lies: Vec<Lie>,
    /// How often others become liars.
    pub change: Change,
    /// Workers per group, the last ones, that are connected and take every update, and never send a shard.
    pub absent: usize,
}

impl Trouble {
    /// Everybody sends the truth.
    pub fn none() -> Trouble {
        Trouble { liars: 0, lies: vec![Lie::Nan, Lie::Huge, Lie::Tiny, Lie::One], change: Change::Round, absent: 0 }
    }
}

/// The job that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Groups, liars, stragglers, compression.
    pub parameters: Parameters,
    /// Numbers in the gradient, d.
    pub dimension: usize,
    /// Numbers in a shard of one chunk.
    pub chunk_width: usize,
    /// How the numbers of shards stand on the wire.
    pub precision: Precision,
    /// How those of updates do.
    pub update_precision: Precision,
    /// How long words wait.
    pub linger: Linger,
    /// What the daemon's cores do while there is nothing to do.
    pub idle: crate::daemon::config::Idle,
}

impl Job {
    /// How the gradient is cut.
    pub fn layout(&self) -> Layout {
        Layout::new(self.dimension, self.parameters.compression(), self.chunk_width)
    }

    /// Workers, P.
    pub fn workers(&self) -> usize {
        self.parameters.workers()
    }

    /// Bytes that a worker sends in a round, headers included.
    pub fn up_bytes(&self) -> u64 {
        let layout = self.layout();
        let shard = |chunk| self.precision.shard_bytes(layout.chunk(chunk).width);
        (0..layout.chunks()).map(|chunk| (HEADER_BYTES + shard(chunk)) as u64).sum()
    }

    /// Bytes that a worker gets in a round: the update's chunks and the report, headers included.
    pub fn down_bytes(&self) -> u64 {
        let update = self.update_precision.shard_bytes(self.dimension);
        (update + (self.layout().chunks() + 1) * HEADER_BYTES + REPORT_BYTES) as u64
    }

    /// Checks that this trouble can be corrected.
    ///
    /// # Errors
    /// If the code corrects less; the error says what to change.
    pub fn check(&self, trouble: &Trouble) -> Result<(), BenchError> {
        let (s, e) = (self.parameters.adversaries(), self.parameters.stragglers());
        let Trouble { liars, absent, .. } = *trouble;
        if liars > s {
            let text =
                format!("{liars} liars per group, and the code corrects {s}: lower --liars or raise --adversaries");
            return Err(BenchError::Options(text));
        }
        if liars + absent > s + e {
            let text = format!(
                "{liars} liars and {absent} absent per group, and the code corrects {} together: raise --stragglers or --adversaries",
                s + e
            );
            return Err(BenchError::Options(text));
        }
        let small = |lie: &Lie| matches!(lie, Lie::Tiny | Lie::One);
        if liars > 0 && self.precision.is_coarse(self.parameters.compression()) && trouble.lies.iter().any(small) {
            let text =
                format!("the lies tiny and one are within the tolerance of {}: take --attack nan,huge", self.precision);
            return Err(BenchError::Options(text));
        }
        if absent > 0 && self.linger == Linger::All {
            let text = "--linger all waits for every connected worker, also for those of --absent: take --linger 0";
            return Err(BenchError::Options(text.into()));
        }
        Ok(())
    }

    /// What the daemon's cores do while there is nothing to do, as the setting has it.
    pub fn idle_word(&self) -> String {
        clap::ValueEnum::to_possible_value(&self.idle).expect("every word is shown").get_name().to_owned()
    }

    /// The flags of a solond that serves this job; the floor takes the same.
    pub fn flags(&self) -> Vec<String> {
        let p = &self.parameters;
        let linger = match self.linger {
            Linger::All => DEADLINE_MS,
            Linger::Ms(ms) => ms,
        };
        // With 1 / groups the numbers stay as large from round to round, where each gradient is the last update.
        let scale = 1.0 / p.groups() as f32;
        let pairs = [
            ("job-name", JOB.to_owned()),
            ("job-groups", p.groups().to_string()),
            ("job-adversaries", p.adversaries().to_string()),
            ("job-stragglers", p.stragglers().to_string()),
            ("job-compression", p.compression().to_string()),
            ("job-dimension", self.dimension.to_string()),
            ("job-scale", scale.to_string()),
            ("job-precision", self.precision.to_string()),
            ("push-precision", self.update_precision.to_string()),
            ("chunks-width", self.chunk_width.to_string()),
            ("rounds-deadline-ms", DEADLINE_MS.to_string()),
            ("rounds-linger-ms", linger.to_string()),
            ("listen-address", "127.0.0.1:0".to_owned()),
            ("listen-transport", "tcp".to_owned()),
            ("listen-write-deadline-ms", "30000".to_owned()),
            ("admin-serve", "false".to_owned()),
            ("cores-idle", self.idle_word()),
            ("log-format", "json".to_owned()),
            ("log-level", "info".to_owned()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(linger: Linger) -> Job {
        let parameters = Parameters::new(3, 2, 1, 2).unwrap();
        let (precision, idle) = (Precision::F32, crate::daemon::config::Idle::Auto);
        Job { parameters, dimension: 1000, chunk_width: 64, precision, update_precision: precision, linger, idle }
    }

    #[test]
    fn trouble_that_the_code_does_not_correct_is_refused_with_what_to_do() {
        let trouble = |liars, absent| Trouble { liars, absent, ..Trouble::none() };
        let refused = |linger, trouble| job(linger).check(&trouble).unwrap_err().to_string();
        assert!(job(Linger::Ms(0)).check(&trouble(2, 1)).is_ok() && job(Linger::Ms(0)).check(&trouble(0, 3)).is_ok());
        assert!(refused(Linger::Ms(0), trouble(3, 0)).contains("3 liars per group, and the code corrects 2"));
        assert!(refused(Linger::Ms(0), trouble(2, 2)).contains("corrects 3 together"));
        assert!(refused(Linger::All, trouble(0, 1)).contains("take --linger 0"));
    }

    #[test]
    fn bytes_are_those_of_the_plan() {
        let mut input = crate::plan::PlanInput::new(crate::plan::Size::Groups(3), 1000);
        (input.adversaries, input.stragglers, input.compression, input.chunk_width) = (2, 1, 2, 64);
        let traffic = crate::plan::plan(&input).unwrap().chosen().traffic;
        let job = job(Linger::All);
        assert_eq!((job.up_bytes(), job.down_bytes()), (traffic.upload_per_worker, traffic.download_per_worker));
        (input.precision, input.tolerance) = (Precision::Bf16, Precision::Bf16.tolerance(2));
        input.update_precision = Precision::F16;
        let traffic = crate::plan::plan(&input).unwrap().chosen().traffic;
        let job = Job { precision: Precision::Bf16, update_precision: Precision::F16, ..job };
        assert_eq!((job.up_bytes(), job.down_bytes()), (traffic.upload_per_worker, traffic.download_per_worker));
    }

    #[test]
    fn linger_is_all_or_milliseconds() {
        assert_eq!(("all".parse(), "250".parse()), (Ok(Linger::All), Ok(Linger::Ms(250))));
        for text in ["", "ALL", "-1", "60001", "5ms"] {
            assert!(text.parse::<Linger>().unwrap_err().contains("expected \"all\""), "{text}");
        }
    }
}
