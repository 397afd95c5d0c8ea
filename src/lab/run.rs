//! Runs what is missing of experiments, one run after another, and writes what came of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::cluster::{self, Happened};
use super::compare::{difference, reference, weights_of};
use super::experiment::{DataName, Experiment, is_honest_mean};
use super::link::{LinkError, Links};
use super::network::PREFIX;
use super::record::{self, Manifest, Outcome, RecordError, Run, Settings, Shaping, Step};
use super::resume::{self, Maker, Other};
use super::shared::{SharedError, SharedGradients};
use super::store::Store;
use super::worker::is_judged;
use crate::demo::model::Score;
use crate::demo::process::ProcessError;
use crate::demo::{Activation, DataError, Dataset, Model, Shape, Split};

/// Where files are that never go to a disk.
const MEMORY: &str = "/dev/shm";

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

impl Options {
    /// Was this run asked for?
    pub fn wants(&self, run: &Planned) -> bool {
        let place = run.place().display().to_string();
        self.only.is_empty() || self.only.iter().any(|word| place.contains(word))
    }
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
    let (mut anew, mut left) = (BTreeMap::<Other, usize>::new(), 0);
    // By experiment: records of other settings, which are in no table.
    let mut foreign: Vec<BTreeSet<PathBuf>> = Vec::new();
    let mut links = Links::new(options.shaping);
    let maker = Maker::here(&options.program)?;
    resume::sweep(Path::new(MEMORY));
    for (at, experiment) in experiments.iter().enumerate() {
        let home = options.out.join(&experiment.about.name);
        if options.records == Records::Fresh && options.only.is_empty() {
            remove(&home)?;
        }
        fs::create_dir_all(&home).map_err(|error| LabError::Io { what: home.display().to_string(), error })?;
        let survey = resume::survey(&plan(experiment, &of(experiment.data).split), options, &maker, &mut links)?;
        describe(experiment, &survey.foreign, options)?;
        planned.extend(survey.missing.into_iter().map(|run| (run, at)));
        survey.anew.into_iter().for_each(|(why, count)| *anew.entry(why).or_default() += count);
        (summary.whole, left) = (summary.whole + survey.whole, left + survey.left);
        foreign.push(survey.foreign);
    }
    let runs: Vec<Planned> = planned.iter().map(|(run, _)| run.clone()).collect();
    watch.planned(&runs, summary.whole);
    for (why, count) in anew {
        watch.note(&format!("{count} runs are {}: run anew", why.words()));
    }
    if left > 0 {
        watch.note(&format!(
            "{left} runs that were not asked for are of other settings, another build, machine or shaping; the same command without --only \
             runs them anew"
        ));
    }
    if let (true, (_, Some(why))) = (runs.iter().any(|run| run.settings.link.is_some()), links.shaping()) {
        watch.note(&format!("links are paced by a forwarder of the lab, since {why}"));
    }
    for (run, at) in planned {
        let began = Instant::now();
        resume::clear(&options.out.join(run.place()))?;
        if foreign[at].remove(&record::place(&run.variant, run.seed)) {
            describe(&experiments[at], &foreign[at], options)?;
        }
        let done = one(&run, of(experiments[at].data), &mut links, &maker, options, directory.path(), watch);
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

/// Writes what the experiment is about, with all its runs but those whose records are foreign.
fn describe(experiment: &Experiment, foreign: &BTreeSet<PathBuf>, options: &Options) -> Result<(), LabError> {
    let mut about = experiment.about.clone();
    about.runs.retain(|place| !foreign.contains(place));
    Ok(record::write_json(&options.out.join(&about.name).join("experiment.json"), &about)?)
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

/// All runs of an experiment: each variant with the first seed, then with the next.
fn plan(experiment: &Experiment, split: &Split) -> Vec<Planned> {
    let mut runs = Vec::new();
    for seed in &experiment.seeds {
        for (variant, settings) in &experiment.variants {
            let mut settings = settings.clone();
            settings.dimension = Shape::of(&split.train, settings.hidden).dimension();
            let experiment = experiment.about.name.clone();
            runs.push(Planned { experiment, variant: variant.clone(), seed: *seed, settings });
        }
    }
    runs
}

fn one(
    run: &Planned,
    data: &Data,
    links: &mut Links,
    maker: &Maker,
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
        version: maker.version.clone(),
        build: maker.build.clone(),
        machine: maker.machine.clone(),
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
        step.difference = honest.get(at).map(|honest| difference(&judged[at], honest));
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
    let memory = Path::new(MEMORY);
    let home = if memory.is_dir() { memory } else { directory };
    let path = home.join(format!("{PREFIX}{}", std::process::id()));
    // Of an earlier process of this number.
    let _ = fs::remove_file(&path);
    Ok(Gradients(SharedGradients::create(&path, settings.groups, settings.dimension)?))
}

/// Removed when it is dropped, if the workers have not all joined before.
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
