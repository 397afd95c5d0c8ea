//! What is there of experiments, and what is missing: a record counts if the same command would make it again, here and now.
//!
//! Records of other settings, of another program or machine, or of links that were shaped in another way do not: beside new ones they would
//! make a table of things that cannot be compared. Their runs are run anew, and each record is removed when its run begins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::compare::{is_reference, weights_of};
use super::experiment::is_honest_mean;
use super::link::Links;
use super::network::is_left_behind;
use super::record::{self, Manifest, Run, Shaping, Step};
use super::run::{LabError, Options, Planned, Records};
use crate::bench::figures::Machine;

/// The program, and the machine that it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// Version of the program.
    pub version: String,
    /// First half of its hash.
    pub build: String,
    /// Processor, number of cores, vector instructions.
    pub machine: String,
}

/// Why a record does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Other {
    /// It is of other settings, or another seed.
    Settings,
    /// Another version of the program made it.
    Version,
    /// Another build of the same version made it.
    Build,
    /// It was made on another machine.
    Machine,
    /// The link was held to its rate in another way.
    Shaping,
    /// It is not compared with an honest mean that there is now, or is that mean without its weights.
    Uncompared,
}

/// What is there of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nothing,
    Whole,
    /// Whole, but judged steps are compared with nothing.
    Alone,
    Other(Other),
}

/// What is to be done of an experiment.
#[derive(Debug, Default)]
pub struct Survey {
    /// Runs that were asked for and are missing.
    pub missing: Vec<Planned>,
    /// How many runs that were asked for are whole.
    pub whole: usize,
    /// How many of the missing ones are there, but do not count.
    pub anew: BTreeMap<Other, usize>,
    /// How many runs that were not asked for do not count: they stay as they are.
    pub left: usize,
    /// Records of other settings, below the experiment's directory. Nothing is to look at them.
    pub foreign: BTreeSet<PathBuf>,
}

impl Maker {
    /// This machine with that program.
    ///
    /// # Errors
    /// If the program cannot be read.
    pub fn here(program: &Path) -> Result<Maker, LabError> {
        let mut hash = blake3::Hasher::new();
        File::open(program)
            .and_then(|mut file| io::copy(&mut file, &mut hash))
            .map_err(|error| LabError::Io { what: format!("cannot read {}", program.display()), error })?;
        Ok(Maker {
            version: env!("CARGO_PKG_VERSION").into(),
            build: hash.finalize().to_hex()[..16].into(),
            machine: Machine::read().to_string(),
        })
    }
}

impl Other {
    /// `3 runs are ..`.
    pub fn words(self) -> &'static str {
        match self {
            Other::Settings => "of other settings",
            Other::Version => "of another version of this program",
            Other::Build => "of another build of this program",
            Other::Machine => "of another machine",
            Other::Shaping => "over a link that was shaped in another way",
            Other::Uncompared => "not compared with the weights of the honest mean",
        }
    }
}

/// Why a record would not be made again by this run; `None` if it would.
fn other(record: &Manifest, run: &Planned, maker: &Maker, shaping: Shaping) -> Option<Other> {
    let same = [
        (Other::Settings, record.settings == run.settings && record.seed == run.seed),
        (Other::Version, record.version == maker.version),
        (Other::Build, record.build == maker.build),
        (Other::Machine, record.machine == maker.machine),
        (Other::Shaping, record.shaping == shaping),
    ];
    same.into_iter().find(|(_, is_same)| !is_same).map(|(what, _)| what)
}

fn look(run: &Planned, out: &Path, maker: &Maker, links: &mut Links) -> Result<There, LabError> {
    let directory = out.join(run.place());
    let Some(there) = Run::read(&directory)? else { return Ok(There::Nothing) };
    if let Some(other) = other(&there.manifest, run, maker, links.expected(run.settings.link)) {
        return Ok(There::Other(other));
    }
    let alone = |step: &Step| step.accuracy.is_some() && step.difference.is_none();
    Ok(match is_honest_mean(&run.settings) {
        true if !weights_of(&directory).exists() => There::Other(Other::Uncompared),
        false if there.steps.iter().any(alone) => There::Alone,
        _ => There::Whole,
    })
}

/// Says what is there of all runs of an experiment, and what is missing of those that were asked for.
///
/// # Errors
/// If a record cannot be read.
pub fn survey(all: &[Planned], options: &Options, maker: &Maker, links: &mut Links) -> Result<Survey, LabError> {
    let there = all.iter().map(|run| look(run, &options.out, maker, links)).collect::<Result<Vec<_>, _>>()?;
    let wanted = |run: &Planned| options.wants(run);
    // There now, or when what is missing has been run: honest means come first.
    let has_mean = |run: &Planned| {
        all.iter().zip(&there).any(|(mean, there)| {
            is_reference(&mean.settings, mean.seed, &run.settings, run.seed)
                && (wanted(mean) || matches!(there, There::Whole))
        })
    };
    let mut survey = Survey::default();
    for (run, there) in all.iter().zip(&there) {
        let there = match there {
            There::Alone if has_mean(run) => There::Other(Other::Uncompared),
            There::Alone => There::Whole,
            there => *there,
        };
        if there == There::Other(Other::Settings) {
            survey.foreign.insert(record::place(&run.variant, run.seed));
        }
        match (wanted(run), options.records, there) {
            (true, Records::Keep, There::Whole) => survey.whole += 1,
            (true, records, there) => {
                survey.missing.push(run.clone());
                if let (Records::Keep, There::Other(why)) = (records, there) {
                    *survey.anew.entry(why).or_default() += 1;
                }
            }
            (false, _, There::Other(_)) => survey.left += 1,
            (false, ..) => {}
        }
    }
    Ok(survey)
}

/// Removes what is there of a run.
///
/// # Errors
/// If it cannot be.
pub fn clear(directory: &Path) -> Result<(), LabError> {
    let gone = |done: io::Result<()>, path: &Path| match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LabError::Io { what: format!("cannot remove {}", path.display()), error })
        }
        _ => Ok(()),
    };
    let weights = weights_of(directory);
    gone(fs::remove_file(&weights), &weights)?;
    gone(fs::remove_dir_all(directory), directory)
}

/// Removes the files in `directory` of labs that are no more.
pub fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_str().is_some_and(is_left_behind) {
            // Another lab may have been faster, or it is another user's.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::experiment::Experiment;

    fn run() -> Planned {
        let text = "title = \"T\"\nfigures = []\ndata = \"digits\"\nhidden = 8\nbatch = 60\nrate = 0.1\nsteps = 4\njudge = 2\n\
                    seeds = [1]\nworkers = 6\n[[runs]]\nrules = [\"mean\"]\n";
        let (variant, settings) = Experiment::parse("made-up", text).unwrap().variants.remove(0);
        Planned { experiment: "made-up".into(), variant, seed: 1, settings }
    }

    fn maker() -> Maker {
        Maker { version: "1.0".into(), build: "abc".into(), machine: "two cores".into() }
    }

    fn record() -> Manifest {
        let (run, maker) = (run(), maker());
        Manifest {
            experiment: run.experiment,
            variant: run.variant,
            seed: run.seed,
            settings: run.settings,
            liars: vec![],
            reporter: 0,
            shaping: Shaping::Pacing,
            samples: [1437, 360],
            version: maker.version,
            build: maker.build,
            machine: maker.machine,
            began: 7,
        }
    }

    #[test]
    fn a_record_counts_only_if_it_would_be_made_again() {
        let why = |change: fn(&mut Manifest)| {
            let mut record = record();
            change(&mut record);
            other(&record, &run(), &maker(), Shaping::Pacing)
        };
        assert_eq!(why(|record| record.began = 8), None);
        assert_eq!(why(|record| record.settings.steps = 5), Some(Other::Settings));
        assert_eq!(why(|record| record.seed = 2), Some(Other::Settings));
        assert_eq!(why(|record| record.version = "0.9".into()), Some(Other::Version));
        assert_eq!(why(|record| record.build = String::new()), Some(Other::Build));
        assert_eq!(why(|record| record.machine = "four cores".into()), Some(Other::Machine));
        assert_eq!(why(|record| record.shaping = Shaping::Namespaces), Some(Other::Shaping));
    }

    #[test]
    fn programs_are_told_apart_by_what_is_in_them() {
        let directory = tempfile::tempdir().unwrap();
        let build = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            Maker::here(&path).unwrap().build
        };
        assert_eq!(build("a", "program"), build("b", "program"));
        assert_ne!(build("a", "program"), build("a", "programs"));
    }

    #[test]
    fn files_of_labs_that_are_no_more_are_removed_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        // No process has a number above this.
        let (dead, own) = ("solon-lab-4194305".to_owned(), format!("solon-lab-{}", std::process::id()));
        for name in [dead.as_str(), &own, "solon-lab-", "solon-4194305", "4194305"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        sweep(directory.path());
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["4194305", "solon-4194305", "solon-lab-", own.as_str()]);
    }
}
