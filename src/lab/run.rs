//! Runs what is missing of experiments, one run after another, and writes what came of each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::cluster::{self, Happened};
use super::experiment::{DataName, Experiment, is_honest_mean};
use super::link::{LinkError, Links};
use super::record::{self, Manifest, Outcome, RecordError, Run, Settings, Shaping, Step};
use super::shared::{SharedError, SharedGradients};
use super::store::Store;
use super::worker::is_judged;
use crate::bench::figures::Machine;
use crate::demo::model::{Score, relative_difference};
use crate::demo::process::ProcessError;
use crate::demo::{Activation, DataError, Dataset, Model, Shape, Split};

/// What to run, and where its records go.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of all records.
    pub out: PathBuf,
    /// Directory with Fashion-MNIST in IDX format.
    pub data: Option<PathBuf>,
    /// Only runs whose path below `out` has one of these words in it; all, if there is none.
    pub only: Vec<String>,
    /// Whether records that are there count.
    pub records: Records,
    /// How links are held to their rate; namespaces if permitted, else pacing, if not given.
    pub shaping: Option<Shaping>,
    /// This program: what is started as daemon and workers.
    pub program: PathBuf,
    /// Set when the lab is to stop.
    pub stop: Arc<AtomicBool>,
}

/// What becomes of runs that are whole already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// They are not run again.
    Keep,
    /// They are removed first.
    Fresh,
}

/// Why a lab cannot go on, or a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An experiment needs data that nobody named.
    #[error(
        "{experiment} needs Fashion-MNIST: name its directory with --data or SOLON_DATA; on Debian and Ubuntu `apt-get install \
         dataset-fashion-mnist` puts it in /usr/share/datasets/fashion-mnist, where it is found"
    )]
    NoData {
        /// Which.
        experiment: String,
    },
    /// Records cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A process failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A worker could not go on.
    #[error("worker {worker}: {why}")]
    Worker {
        /// Which.
        worker: usize,
        /// What it said.
        why: String,
    },
    /// Workers that must have the same weights do not.
    #[error("worker {worker} ends with other weights than worker {reporter}: an update was not the same for all")]
    Diverged {
        /// The worker.
        worker: usize,
        /// The one that it is compared with.
        reporter: usize,
    },
    /// The daemon's log lacks rounds, so that their time cannot be divided.
    #[error(
        "solond said nothing of {rounds} rounds: events came faster than it could log them; longer steps are needed to measure them"
    )]
    Unplaced {
        /// How many.
        rounds: usize,
    },
    /// There is no link of this rate.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A file cannot be read or written.
    #[error("{what}: {error}")]
    Io {
        /// Which.
        what: String,
        /// What the operating system says.
        error: io::Error,
    },
    /// There is no room for gradients that are shared.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// It was told to.
    #[error("stopped; the same command goes on where it stopped")]
    Stopped,
}

/// A run that is to be.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its experiment's name.
    pub experiment: String,
    /// Its variant's name.
    pub variant: String,
    /// Its seed.
    pub seed: u64,
    /// What is run.
    pub settings: Settings,
}

impl Planned {
    /// Where it stands below the directory of all records.
    pub fn place(&self) -> PathBuf {
        Path::new(&self.experiment).join(record::place(&self.variant, self.seed))
    }
}

/// What is told while a lab runs.
pub trait Watch {
    /// So much is to be run, and so many runs are there already.
    fn planned(&mut self, runs: &[Planned], there: usize);
    /// Something that its reader should know.
    fn note(&mut self, text: &str);
    /// The run has taken another step.
    fn stepped(&mut self, run: &Planned, step: u64);
    /// The run is over, after so long.
    fn ended(&mut self, run: &Planned, outcome: Result<&Outcome, &LabError>, took: Duration);
}

/// What a lab came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs that are whole now.
    pub whole: usize,
    /// Runs that failed: where they would stand, and why.
    pub failed: Vec<(PathBuf, String)>,
}

/// The data of an experiment: as the runner has it, and as workers read it.
struct Data {
    name: DataName,
    split: Split,
    train: PathBuf,
}

/// Runs what is missing of these experiments.
///
/// # Errors
/// If data or records cannot be read or written, or it was told to stop. A run that fails is no error: it is in the summary.
pub fn run(experiments: &[Experiment], options: &Options, watch: &mut dyn Watch) -> Result<Summary, LabError> {
    let directory = tempfile::tempdir()
        .map_err(|error| LabError::Io { what: "cannot make a temporary directory".into(), error })?;
    let mut data: Vec<Data> = Vec::new();
    for experiment in experiments {
        if data.iter().all(|data| data.name != experiment.data) {
            data.push(Data::read(experiment, options, directory.path())?);
        }
    }
    let of = |name: DataName| data.iter().find(|data| data.name == name).expect("read above");
    let (mut planned, mut summary) = (Vec::new(), Summary::default());
    for experiment in experiments {
        let home = options.out.join(&experiment.about.name);
        if options.records == Records::Fresh && options.only.is_empty() {
            remove(&home)?;
        }
        fs::create_dir_all(&home).map_err(|error| LabError::Io { what: home.display().to_string(), error })?;
        record::write_json(&home.join("experiment.json"), &experiment.about)?;
        for run in plan(experiment, &of(experiment.data).split, options) {
            match options.records == Records::Keep && is_there(&run, &options.out)? {
                true => summary.whole += 1,
                false => planned.push((run, experiment.data)),
            }
        }
    }
    let runs: Vec<Planned> = planned.iter().map(|(run, _)| run.clone()).collect();
    watch.planned(&runs, summary.whole);
    let mut links = Links::new(options.shaping);
    if let (true, (_, Some(why))) = (runs.iter().any(|run| run.settings.link.is_some()), links.shaping()) {
        watch.note(&format!("links are paced by a forwarder of the lab, since {why}"));
    }
    for (run, name) in planned {
        let began = Instant::now();
        let done = one(&run, of(name), &mut links, options, directory.path(), watch);
        if options.stop.load(Ordering::Relaxed) {
            // Whatever else went wrong: processes end by the same Ctrl-C.
            return Err(LabError::Stopped);
        }
        watch.ended(&run, done.as_ref(), began.elapsed());
        match done {
            Ok(_) => summary.whole += 1,
            Err(error @ (LabError::Record(_) | LabError::Io { .. })) => return Err(error),
            Err(error) => summary.failed.push((run.place(), error.to_string())),
        }
    }
    Ok(summary)
}

fn remove(path: &Path) -> Result<(), LabError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LabError::Io { what: format!("cannot remove {}", path.display()), error })
        }
        _ => Ok(()),
    }
}

impl Data {
    fn read(experiment: &Experiment, options: &Options, directory: &Path) -> Result<Data, LabError> {
        let name = experiment.data;
        let split = match (name, &options.data) {
            (DataName::Digits, _) => Split::digits(),
            (DataName::Fashion, Some(directory)) => Split::read(directory)?,
            (DataName::Fashion, None) => {
                return Err(LabError::NoData { experiment: experiment.about.name.clone() });
            }
        };
        let train = directory.join(format!("{name:?}"));
        Store::write(&split.train, &train)
            .map_err(|error| LabError::Io { what: format!("cannot write {}", train.display()), error })?;
        Ok(Data { name, split, train })
    }
}

/// All runs of an experiment that were asked for: each variant with the first seed, then with the next.
fn plan(experiment: &Experiment, split: &Split, options: &Options) -> Vec<Planned> {
    let mut runs = Vec::new();
    for seed in &experiment.seeds {
        for (variant, settings) in &experiment.variants {
            let mut settings = settings.clone();
            settings.dimension = Shape::of(&split.train, settings.hidden).dimension();
            let experiment = experiment.about.name.clone();
            runs.push(Planned { experiment, variant: variant.clone(), seed: *seed, settings });
        }
    }
    let wanted = |run: &Planned| {
        let place = run.place().display().to_string();
        options.only.is_empty() || options.only.iter().any(|word| place.contains(word))
    };
    runs.into_iter().filter(wanted).collect()
}

/// Is this run whole, with the settings that it is to have now?
fn is_there(run: &Planned, out: &Path) -> Result<bool, LabError> {
    let there = Run::read(&out.join(run.place()))?;
    Ok(there.is_some_and(|there| there.manifest.settings == run.settings && there.manifest.seed == run.seed))
}

/// The weights of an honest mean at all judged steps, beside its directory: for others to be compared with.
fn weights_of(directory: &Path) -> PathBuf {
    directory.with_extension("weights")
}

fn one(
    run: &Planned,
    data: &Data,
    links: &mut Links,
    options: &Options,
    directory: &Path,
    watch: &mut dyn Watch,
) -> Result<Outcome, LabError> {
    let settings = &run.settings;
    let (link, shaping, probed) = links.get(&options.program, settings.link)?;
    let liars = settings.liars(run.seed).map_or(Vec::new(), |liars| liars.of(0));
    let reporter = (0..settings.workers).find(|worker| !liars.contains(worker)).unwrap_or(0);
    let manifest = Manifest {
        experiment: run.experiment.clone(),
        variant: run.variant.clone(),
        seed: run.seed,
        settings: settings.clone(),
        liars,
        reporter,
        shaping,
        samples: [data.split.train.len(), data.split.test.len()],
        version: env!("CARGO_PKG_VERSION").into(),
        machine: Machine::read().to_string(),
        began: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
    };
    let weights = directory.join("weights");
    let shared = shared(settings, directory)?;
    let job = cluster::Job {
        manifest: &manifest,
        link: &link,
        program: &options.program,
        data: &data.train,
        weights: &weights,
        shared: shared.path(),
        stop: &options.stop,
    };
    let happened = job.run(&mut |step| watch.stepped(run, step))?;
    let home = options.out.join(run.place());
    let read = |path: &Path| {
        fs::read(path).map_err(|error| LabError::Io { what: format!("cannot read {}", path.display()), error })
    };
    let bytes = read(&weights)?;
    let judged = models(&bytes, settings.dimension);
    let reference = if is_honest_mean(settings) { Some(bytes.clone()) } else { reference(run, &options.out)? };
    let honest = reference.map_or(Vec::new(), |bytes| models(&bytes, settings.dimension));
    let shape = Shape::of(&data.split.train, settings.hidden);
    let scores = score(&judged, shape, settings.activation, &data.split.test);
    let mut steps = happened.steps();
    let places = steps.iter_mut().filter(|step| is_judged(settings, step.step) && !step.undecodable);
    for (at, (step, score)) in places.zip(&scores).enumerate() {
        step.accuracy = Some(score.accuracy);
        step.loss = Some(score.loss).filter(|loss| loss.is_finite());
        let difference = honest.get(at).map(|honest| relative_difference(&judged[at], honest));
        step.difference = difference.filter(|difference| difference.is_finite());
    }
    let outcome = outcome(&happened, &steps, probed);
    let run = Run { manifest, steps, outcome };
    if is_honest_mean(settings) {
        fs::create_dir_all(&home)
            .and_then(|()| fs::write(weights_of(&home), &bytes))
            .map_err(|error| LabError::Io { what: format!("cannot write {}", weights_of(&home).display()), error })?;
    }
    run.write(&home)?;
    Ok(run.outcome)
}

/// A file for the gradients of a run, in memory where there is such a place: it never goes to a disk.
fn shared(settings: &Settings, directory: &Path) -> Result<Gradients, LabError> {
    let memory = Path::new("/dev/shm");
    let home = if memory.is_dir() { memory } else { directory };
    let path = home.join(format!("solon-lab-{}", std::process::id()));
    // Of an earlier process of this number.
    let _ = fs::remove_file(&path);
    Ok(Gradients(SharedGradients::create(&path, settings.groups, settings.dimension)?))
}

/// Removed when it is dropped.
struct Gradients(SharedGradients);

impl Gradients {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Gradients {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

fn outcome(happened: &Happened, steps: &[Step], probed: Option<[f64; 2]>) -> Outcome {
    let last = steps.last();
    let undecodable = |step: &Step| format!("undecodable at step {} ({})", step.step, happened.why());
    Outcome {
        stopped: last.filter(|step| step.undecodable).map(undecodable),
        accuracy: last.and_then(|step| step.accuracy),
        difference: last.and_then(|step| step.difference),
        seconds: last.map_or(0.0, |step| step.seconds),
        overruns: happened.overruns,
        bytes: happened.bytes,
        daemon_cpu: happened.daemon_cpu,
        probed,
    }
}

/// Weights of several models, one after another.
fn models(bytes: &[u8], dimension: usize) -> Vec<Vec<f32>> {
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    bytes.chunks_exact(4 * dimension).map(|model| model.chunks_exact(4).map(number).collect()).collect()
}

/// What these models do on the test samples, on all cores: nobody else is at work.
fn score(models: &[Vec<f32>], shape: Shape, activation: Activation, test: &Dataset) -> Vec<Score> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let part = models.len().div_ceil(threads).max(1);
    let of = |weights: &Vec<f32>| Model::with_parameters(shape, weights.clone()).with(activation).score(test);
    std::thread::scope(|scope| {
        let parts = models.chunks(part).map(|part| scope.spawn(move || part.iter().map(of).collect::<Vec<_>>()));
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().expect("scoring does not panic")).collect()
    })
}

/// The weights of the honest mean that learned with the same batches, rates and momentum, if the experiment has such a run.
fn reference(run: &Planned, out: &Path) -> Result<Option<Vec<u8>>, LabError> {
    let about: record::About = record::read_json(&out.join(&run.experiment).join("experiment.json"))?;
    let s = &run.settings;
    for place in about.runs {
        let directory = out.join(&run.experiment).join(place);
        let weights = weights_of(&directory);
        if !weights.exists() {
            continue;
        }
        let Some(there) = Run::read(&directory)? else { continue };
        let (t, seed) = (&there.manifest.settings, there.manifest.seed);
        let learned =
            |s: &Settings| (s.data.clone(), s.hidden, s.activation, s.batch, s.steps, s.judge, s.rate, s.momentum);
        if seed == run.seed && is_honest_mean(t) && learned(t) == learned(s) {
            return fs::read(&weights)
                .map(Some)
                .map_err(|error| LabError::Io { what: format!("cannot read {}", weights.display()), error });
        }
    }
    Ok(None)
}
