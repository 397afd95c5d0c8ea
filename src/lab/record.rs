//! What the lab writes: a directory per run, with a manifest, a line per step, and an outcome that is written last.
//!
//! ```text
//! OUT/EXPERIMENT/experiment.json        what the experiment is about                        [About]
//! OUT/EXPERIMENT/VARIANT/seed-N/
//!     manifest.json                     all settings, and how it was run                    [Manifest]
//!     steps.csv                         a line per step, with a heading                     [Step]
//!     outcome.json                      how it ended; only there if the run is whole        [Outcome]
//! ```
//!
//! A variant is all settings but the seed, so the runs of a variant differ by chance alone. A run without an outcome was stopped in
//! the middle, and is run anew; one that the same command would not make again, too (see [`resume`](super::resume)).
//!
//! **Time.** All times are of the *reporter*, an honest worker (who may lie now and then where liars switch), on the machine's monotonic clock, which daemon and workers share. A step
//! is cut at points that follow each other, so that its *wall* parts add up to it:
//!
//! ```text
//! worker   |-- compute --|-encode-|------ wire ------|                      |--- push ---|- apply -|
//! daemon                                 last shard >|- locate -|- decode --|< round closed
//! ```
//!
//! Encoding overlaps sending, and the daemon decodes and pushes chunks while later ones still come. What is hidden so is in no wall part
//! but the one that hides it; the *busy* parts say how long it really took, and must not be added to the wall parts.
//!
//! Numbers that liars can make infinite are `Option`s: JSON has no NaN.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::experiment::CYCLIC;
use crate::attacks;
use crate::demo::Activation;

/// What an experiment is about: for the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Its name: that of its file, without `.toml`.
    pub name: String,
    /// Its title.
    pub title: String,
    /// A paragraph for readers of the report.
    pub text: String,
    /// What the report draws of it.
    pub figures: Vec<Picture>,
    /// Accuracies whose times are compared, `0..=1`.
    pub targets: Vec<f64>,
    /// The runs it consists of, as paths below its directory (`VARIANT/seed-N`), in the order of the file.
    pub runs: Vec<PathBuf>,
}

/// What the report can draw of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Picture {
    /// Table: rules by attacks, final accuracy.
    AccuracyTable,
    /// Accuracy by step, per rule and attack.
    AccuracyBySteps,
    /// Accuracy by seconds, per rule and attack.
    AccuracyByTime,
    /// The wall parts of a step, per rule.
    StepTime,
    /// Table: time to the same accuracy, against Solon.
    SpeedUp,
    /// Step times of Solon and Draco over computing time by communication time.
    Crossover,
}

impl Picture {
    /// Its name in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            Picture::AccuracyTable => "accuracy-table",
            Picture::AccuracyBySteps => "accuracy-by-steps",
            Picture::AccuracyByTime => "accuracy-by-time",
            Picture::StepTime => "step-time",
            Picture::SpeedUp => "speed-up",
            Picture::Crossover => "crossover",
        }
    }

    /// Does it show how long something takes?
    pub fn is_of_time(self) -> bool {
        match self {
            Picture::AccuracyByTime | Picture::StepTime | Picture::SpeedUp | Picture::Crossover => true,
            Picture::AccuracyTable | Picture::AccuracyBySteps => false,
        }
    }
}

/// What is run, but for the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Rule by which gradients become an update, as the experiment file names it: `solon`, `draco`, `mean`, `krum`, ..
    pub rule: String,
    /// `digits`, `fashion`.
    pub data: String,
    /// Width of the hidden layer.
    pub hidden: usize,
    /// What its units do.
    pub activation: Activation,
    /// Numbers in the gradient, d.
    pub dimension: usize,
    /// Distinct samples per step, over all workers.
    pub batch: usize,
    /// Learning rate.
    pub rate: f32,
    /// Momentum.
    pub momentum: f32,
    /// Where momentum is kept.
    pub momentum_at: MomentumAt,
    /// Steps of a run.
    pub steps: u64,
    /// The model is judged after every so many steps.
    pub judge: u64,
    /// Workers in the job, P.
    pub workers: usize,
    /// Groups of workers that compute the same; P for uncoded rules.
    pub groups: usize,
    /// Workers per group, r; 1 for uncoded rules. Each worker computes [`computed`](Settings::computed)` * batch / workers` samples per step,
    /// or one more or less where that is not whole.
    pub redundancy: usize,
    /// Liars that the rule is set up for: per group (s) for coded rules, in all (f) for uncoded ones.
    pub adversaries: usize,
    /// Absentees per group that are tolerated beside them, e.
    pub stragglers: usize,
    /// Each worker uploads `1 / compression` of its gradient, r_c.
    pub compression: usize,
    /// How the liars lie, as [`Lie`](crate::attacks::Lie) has it; nobody lies without.
    pub attack: Option<String>,
    /// Liars in each step: per group for coded rules, in all for uncoded ones.
    pub liars: usize,
    /// Who lies.
    pub who: Who,
    /// The rate that the daemon's link is shaped to in each direction, in bytes per second.
    pub link: Option<f64>,
    /// How updates travel to the workers.
    #[serde(default)]
    pub push: Push,
    /// Stated emulation: the gradient of one sample takes a worker so many seconds, whatever this machine needs for it. With it or without,
    /// a gradient that a whole group computes is really computed once, by the group's first worker, and copied by the others.
    pub gradient_time: Option<f64>,
}

/// Where momentum is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MomentumAt {
    /// With the weights: what is sent are gradients, and the update is added to the velocity.
    #[default]
    Server,
    /// With each worker: what is sent are velocities, and the update is the step.
    Worker,
}

/// How updates travel to the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Push {
    /// The daemon sends each of them the whole update, which takes as long as an upload without compression.
    #[default]
    Direct,
    /// The daemon sends each chunk once, and workers pass it on.
    Relay,
}

/// Who lies, as [`attacks::Who`] has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// The same workers in all steps.
    #[default]
    Fixed,
    /// Others in each step.
    Switching,
    /// All of one group: more than any code corrects.
    WholeGroup,
}

impl Settings {
    /// Workers that compute each gradient, and gradients that each worker computes: r, or of the cyclic code 2 s + 1.
    pub fn computed(&self) -> usize {
        if self.rule == CYCLIC { 2 * self.adversaries + 1 } else { self.redundancy }
    }

    /// Does a code correct lies, rather than a rule guess? Then every gradient that somebody computes is an honest one, whoever lies.
    pub fn is_exact(&self) -> bool {
        self.computed() > 1
    }

    /// Who lies in which step; `None` if nobody does. All liars of a job draw from its seed.
    pub fn liars(&self, seed: u64) -> Option<attacks::Liars> {
        self.attack.as_ref()?;
        // Without a code all workers are one group.
        let groups = if self.redundancy > 1 { self.groups } else { 1 };
        let who = match self.who {
            Who::Fixed => attacks::Who::Fixed,
            Who::Switching => attacks::Who::Switching,
            Who::WholeGroup => attacks::Who::WholeGroup,
        };
        attacks::Liars::new(who, self.workers, groups, self.liars, seed).ok()
    }
}

/// All settings of a run, and how it was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The experiment's name.
    pub experiment: String,
    /// The variant's name: that of its directory.
    pub variant: String,
    /// Seed of weights, batches, and liars.
    pub seed: u64,
    /// What is run.
    pub settings: Settings,
    /// Workers that lie in the first step, in order: in all of them, if they are fixed.
    pub liars: Vec<usize>,
    /// The worker that all times and accuracies are of: the first that is honest in the first step.
    pub reporter: usize,
    /// How the link was shaped.
    pub shaping: Shaping,
    /// Samples to train with, and to be judged by.
    pub samples: [usize; 2],
    /// Version of the program.
    pub version: String,
    /// First half of the hash of the program; empty in records that did not say it yet.
    #[serde(default)]
    pub build: String,
    /// Processor, number of cores, vector instructions.
    pub machine: String,
    /// When it began, in seconds since 1970.
    pub began: u64,
}

/// How a link is held to its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shaping {
    /// Not at all: loopback, as fast as it goes.
    None,
    /// Network namespaces of daemon and workers, the daemon's interface shaped by the kernel's token bucket in both directions.
    Namespaces,
    /// Loopback, through a forwarder of the lab that lets bytes through by a token bucket per direction.
    Pacing,
}

/// One step, as a line of `steps.csv`. Times are in milliseconds unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Number of the step, from 1.
    pub step: u64,
    /// Seconds that all steps up to the end of this one took; the model is judged when the run is over, and that counts nowhere.
    pub seconds: f64,
    /// Wall-clock time of the step: the sum of the next seven.
    pub step_ms: f64,
    /// Wall: computing the gradient, or waiting until its emulated time is over.
    pub compute_ms: f64,
    /// Wall: encoding shards, as far as it is not hidden by waiting for the daemon.
    pub encode_ms: f64,
    /// Wall: from the gradient until the last shard of the round is at the daemon, without encoding: sending, queues, other workers.
    pub wire_ms: f64,
    /// Wall: from the last shard to the close of the round, the part of it (by busy times) that went into telling who lies.
    pub locate_ms: f64,
    /// Wall: the rest of that time. For rules that do not locate: all of it.
    pub decode_ms: f64,
    /// Wall: from the close of the round until the worker has the whole update.
    pub push_ms: f64,
    /// Wall: applying the update.
    pub apply_ms: f64,
    /// Busy: really computing the gradient, or copying it from who has; what else is in `compute_ms` was slept.
    pub compute_busy_ms: f64,
    /// Busy: this worker encoding, hidden or not.
    pub encode_busy_ms: f64,
    /// Busy: the daemon's decoders telling who lies, on all their cores together, hidden or not.
    pub locate_busy_ms: f64,
    /// Busy: the daemon's decoders, all else, likewise.
    pub decode_busy_ms: f64,
    /// Bytes of frames that this worker sent.
    pub bytes_up: u64,
    /// Bytes of frames that this worker received.
    pub bytes_down: u64,
    /// Part of the test samples that are right after the step, `0..=1`; empty where it was not judged.
    pub accuracy: Option<f64>,
    /// Cross-entropy on the test samples; empty where it was not judged or is not finite.
    pub loss: Option<f64>,
    /// Distance of the weights from those of the honest mean at the same step and seed, relative to the norm of these; [`NOT_FINITE`] if
    /// that is no number. Empty where it was not judged, or there is no such run in the experiment.
    pub difference: Option<f64>,
    /// Workers named as liars, separated by spaces.
    pub named: String,
    /// Workers without any shard, separated by spaces.
    pub absent: String,
    /// The round could not be decoded: nothing was applied, and the run ends here.
    pub undecodable: bool,
}

/// What stands for a distance of weights that are not finite: larger than any that is, so that nothing hides it.
pub const NOT_FINITE: f64 = 1e300;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Why it ended early, if it did: `undecodable at step 7 (..)`.
    pub stopped: Option<String>,
    /// Accuracy after the last step.
    pub accuracy: Option<f64>,
    /// Distance of the last weights from the honest ones, as in [`Step::difference`].
    pub difference: Option<f64>,
    /// Wall-clock seconds of all steps.
    pub seconds: f64,
    /// Steps in which some worker's real computing took longer than its emulated time: then the emulation is not what it says.
    pub overruns: u64,
    /// Bytes that all workers sent and received.
    pub bytes: [u64; 2],
    /// Processor seconds of the daemon.
    pub daemon_cpu: f64,
    /// Bytes per second that went through the shaped link in a probe before the run, towards the daemon and away from it.
    pub probed: Option<[f64; 2]>,
}

/// A run that is whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What was run.
    pub manifest: Manifest,
    /// Its steps, in order.
    pub steps: Vec<Step>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Why records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file or directory cannot be read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {why} (of another version? `--fresh` runs everything anew)", .path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Where a run stands below its experiment's directory.
pub fn place(variant: &str, seed: u64) -> PathBuf {
    Path::new(variant).join(format!("seed-{seed}"))
}

/// The experiments below `out`, each with those of its runs that are whole, by name.
///
/// # Errors
/// If a file that is there cannot be read.
pub fn load(out: &Path) -> Result<Vec<(About, Vec<Run>)>, RecordError> {
    let entries = fs::read_dir(out).map_err(|error| RecordError::Io { path: out.into(), error })?;
    let mut found = Vec::new();
    for directory in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let file = directory.join("experiment.json");
        if !file.exists() {
            continue;
        }
        let about: About = read_json(&file)?;
        let mut runs = Vec::new();
        for place in &about.runs {
            runs.extend(Run::read(&directory.join(place))?);
        }
        found.push((about, runs));
    }
    found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    Ok(found)
}

impl Run {
    /// The run in `directory`; `None` if it is not whole, or not there.
    ///
    /// # Errors
    /// If a file of it cannot be read.
    pub fn read(directory: &Path) -> Result<Option<Run>, RecordError> {
        let outcome = directory.join("outcome.json");
        if !outcome.exists() {
            return Ok(None);
        }
        let path = directory.join("steps.csv");
        let format = |error: csv::Error| RecordError::Format { path: path.clone(), why: error.to_string() };
        let mut reader = csv::Reader::from_path(&path).map_err(format)?;
        let steps = reader.deserialize().collect::<Result<_, _>>().map_err(format)?;
        Ok(Some(Run { manifest: read_json(&directory.join("manifest.json"))?, steps, outcome: read_json(&outcome)? }))
    }

    /// Writes a whole run to `directory`, which becomes it: what stood there is removed first, and the outcome comes last.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), RecordError> {
        let io = |error| RecordError::Io { path: directory.into(), error };
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => fs::create_dir_all(directory).map_err(io)?,
        }
        write_json(&directory.join("manifest.json"), &self.manifest)?;
        let path = directory.join("steps.csv");
        let format = |error: csv::Error| RecordError::Format { path: path.clone(), why: error.to_string() };
        let mut writer = csv::Writer::from_path(&path).map_err(format)?;
        self.steps.iter().try_for_each(|step| writer.serialize(step)).map_err(format)?;
        writer.flush().map_err(io)?;
        write_json(&directory.join("outcome.json"), &self.outcome)
    }
}

/// Reads a file of JSON.
///
/// # Errors
/// If it cannot be read, or holds something else.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, RecordError> {
    let text = fs::read_to_string(path).map_err(|error| RecordError::Io { path: path.into(), error })?;
    serde_json::from_str(&text).map_err(|error| RecordError::Format { path: path.into(), why: error.to_string() })
}

/// Writes a file of JSON: whole, or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), RecordError> {
    let io = |error| RecordError::Io { path: path.into(), error };
    let text = serde_json::to_string_pretty(value).expect("records have named fields and finite numbers") + "\n";
    let half = path.with_extension("json.half");
    fs::write(&half, text).and_then(|()| fs::rename(&half, path)).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let settings = Settings {
            rule: "solon".into(),
            data: "digits".into(),
            hidden: 8,
            activation: Activation::Relu,
            dimension: 610,
            batch: 12,
            rate: 0.1,
            momentum: 0.9,
            momentum_at: MomentumAt::Server,
            steps: 2,
            judge: 1,
            workers: 3,
            groups: 1,
            redundancy: 3,
            adversaries: 1,
            stragglers: 0,
            compression: 1,
            attack: Some("reverse".into()),
            liars: 1,
            who: Who::Fixed,
            link: Some(125e6),
            push: Push::Direct,
            gradient_time: None,
        };
        let manifest = Manifest {
            experiment: "small".into(),
            variant: "solon-reverse".into(),
            seed: 1,
            settings,
            liars: vec![2],
            reporter: 0,
            shaping: Shaping::Namespaces,
            samples: [1437, 360],
            version: "0.1.0".into(),
            build: "0123456789abcdef".into(),
            machine: "two cores".into(),
            began: 1_790_000_000,
        };
        let step = |step| Step {
            step,
            accuracy: (step == 2).then_some(0.5),
            named: "1 2".into(),
            compute_ms: 1.0 / 3.0,
            ..Step::default()
        };
        let outcome = Outcome {
            stopped: None,
            accuracy: Some(0.5),
            difference: None,
            seconds: 0.25,
            overruns: 0,
            bytes: [1, 2],
            daemon_cpu: 0.0,
            probed: None,
        };
        Run { manifest, steps: vec![step(1), step(2)], outcome }
    }

    #[test]
    fn what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let (run, place) = (run(), place("solon-reverse", 1));
        let home = directory.path().join("small");
        run.write(&home.join(&place)).unwrap();
        assert_eq!(Run::read(&home.join(&place)).unwrap().as_ref(), Some(&run));
        let about = About {
            name: "small".into(),
            title: "Small".into(),
            text: String::new(),
            figures: vec![Picture::SpeedUp],
            targets: vec![0.9],
            runs: vec![place.clone(), "not/there".into()],
        };
        write_json(&home.join("experiment.json"), &about).unwrap();
        assert_eq!(load(directory.path()).unwrap(), [(about, vec![run])]);
    }

    #[test]
    fn a_run_without_its_outcome_is_not_whole() {
        let directory = tempfile::tempdir().unwrap();
        run().write(directory.path()).unwrap();
        fs::remove_file(directory.path().join("outcome.json")).unwrap();
        assert_eq!(Run::read(directory.path()).unwrap(), None);
    }

    #[test]
    fn lines_of_another_version_are_refused_with_the_file() {
        let directory = tempfile::tempdir().unwrap();
        run().write(directory.path()).unwrap();
        fs::write(directory.path().join("steps.csv"), "step,seconds\n1,x\n").unwrap();
        let text = Run::read(directory.path()).unwrap_err().to_string();
        assert!(text.contains("steps.csv") && text.contains("--fresh"), "{text}");
    }
}
