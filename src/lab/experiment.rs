//! Experiment files: what is to be run, in a few lines of TOML. docs/lab.md lists every key.
//!
//! What stands at the top holds for all runs; each `[[runs]]` multiplies out its lists: every rule with every attack, compression, link
//! and gradient time, over all seeds.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use self::file::{File, Override, Runs};
use super::record::{About, MomentumAt, Push, Settings, Who, place};
use crate::attacks::{Attack, Lie};
use crate::code::Parameters;
use crate::rules::Rule;

mod file;
#[cfg(test)]
mod tests;

/// Experiments that are part of the program: name and text, in the order in which `solon lab all` runs them.
pub const BUILT_IN: [(&str, &str); 6] = [
    ("robustness", include_str!("../../benches/lab/robustness.toml")),
    ("race", include_str!("../../benches/lab/race.toml")),
    ("crossover", include_str!("../../benches/lab/crossover.toml")),
    ("small-robustness", include_str!("../../benches/lab/small-robustness.toml")),
    ("small-race", include_str!("../../benches/lab/small-race.toml")),
    ("small-crossover", include_str!("../../benches/lab/small-crossover.toml")),
];

/// What the names of those begin with that need no data and little time: the others in small.
pub const SMALL: &str = "small-";

/// The rules that code gradients; the others take each worker's gradient as it is.
const CODED: [&str; 2] = ["solon", "draco"];

/// All rules, as files name them.
pub const RULES: [&str; 11] = [
    "solon",
    "draco",
    CYCLIC,
    "mean",
    "median",
    "trimmed-mean",
    "krum",
    "multi-krum",
    "bulyan",
    "geometric-median",
    "signum",
];

/// Draco's cyclic code: no groups, and every worker computes the batches of others too.
pub const CYCLIC: &str = "cyclic";

/// The most workers that a lab starts.
const WORKERS_MAX: usize = 64;

/// An experiment, checked.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// What it is about, with all runs.
    pub about: About,
    /// The data that it needs.
    pub data: DataName,
    /// What is run, without the model's size, which depends on the data: name of the variant, settings. Honest means come first.
    pub variants: Vec<(String, Settings)>,
    /// Each variant is run with each of them.
    pub seeds: Vec<u64>,
}

/// Which samples are learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataName {
    /// The digits that are compiled in.
    Digits,
    /// Fashion-MNIST, from a directory of IDX files.
    Fashion,
}

/// What is wrong with an experiment file.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// There is no such file, nor an experiment of that name.
    #[error("{name}: neither a file nor one of {}", BUILT_IN.map(|(name, _)| name).join(", "))]
    Missing {
        /// What was asked for.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// It is no TOML, or has unknown keys or values.
    #[error("{name}: {error}")]
    Syntax {
        /// The experiment.
        name: String,
        /// Where, what, and what is expected.
        error: Box<toml::de::Error>,
    },
    /// Values that do not fit together.
    #[error("{name}, line {line}: {why}")]
    Impossible {
        /// The experiment.
        name: String,
        /// Where the runs begin that cannot be.
        line: usize,
        /// What does not fit, and what would.
        why: String,
    },
}

impl Experiment {
    /// The experiment in the file `name`, or the built-in one of that name.
    ///
    /// # Errors
    /// If there is neither, or it makes no sense; with the line and what is expected.
    pub fn find(name: &str) -> Result<Experiment, ExperimentError> {
        let path = Path::new(name);
        if path.is_file() {
            let text =
                std::fs::read_to_string(path).map_err(|error| ExperimentError::Io { path: path.into(), error })?;
            let stem = path.file_stem().map_or("experiment".into(), |stem| stem.to_string_lossy().into_owned());
            return Experiment::parse(&stem, &text);
        }
        match BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            Some((name, text)) => Experiment::parse(name, text),
            None => Err(ExperimentError::Missing { name: name.into() }),
        }
    }

    /// Reads an experiment.
    ///
    /// # Errors
    /// If it makes no sense; with the line and what is expected.
    pub fn parse(name: &str, text: &str) -> Result<Experiment, ExperimentError> {
        let syntax = |error| ExperimentError::Syntax { name: name.into(), error: Box::new(error) };
        let file: File = toml::from_str(text).map_err(syntax)?;
        let impossible = |at: usize, why: String| {
            let line = text[..at.min(text.len())].matches('\n').count() + 1;
            ExperimentError::Impossible { name: name.into(), line, why }
        };
        file.check().map_err(|(key, why)| impossible(line_of(text, key), why))?;
        let mut variants: Vec<(String, Settings)> = Vec::new();
        for runs in &file.runs {
            let at = runs.span().start;
            for settings in file.multiply(runs.get_ref()).map_err(|why| impossible(at, why))? {
                let variant = name_of(&settings);
                if variants.iter().any(|(other, _)| *other == variant) {
                    return Err(impossible(at, format!("{variant} is run twice: once is enough")));
                }
                variants.push((variant, settings));
            }
        }
        // The others are compared with them.
        variants.sort_by_key(|(_, settings)| !is_honest_mean(settings));
        let runs = variants.iter().flat_map(|(variant, _)| file.seeds.iter().map(|seed| place(variant, *seed)));
        let about = About {
            name: name.into(),
            title: file.title.clone(),
            text: file.text.trim().into(),
            figures: file.figures.clone(),
            targets: file.targets.clone(),
            runs: runs.collect(),
        };
        Ok(Experiment { about, data: file.data, variants, seeds: file.seeds })
    }
}

/// Is this the run that others are compared with?
pub fn is_honest_mean(settings: &Settings) -> bool {
    settings.rule == "mean" && settings.attack.is_none()
}

/// Is it a rule with groups that compute the same?
pub fn is_coded(rule: &str) -> bool {
    CODED.contains(&rule)
}

/// Where a key of the top stands; the beginning if it does not.
fn line_of(text: &str, key: &str) -> usize {
    let is_key =
        |line: &str| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if is_key(line) {
            return at;
        }
        at += line.len();
    }
    0
}

impl File {
    /// What is wrong with the values at the top: the key, and why.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let at_least_one = |key, found: usize| match found {
            0 => Err((key, format!("{key} = 0: expected at least 1"))),
            _ => Ok(()),
        };
        at_least_one("hidden", self.hidden)?;
        at_least_one("batch", self.batch)?;
        at_least_one("steps", self.steps as usize)?;
        at_least_one("judge", self.judge as usize)?;
        at_least_one("seeds", self.seeds.len())?;
        if !(self.rate > 0.0 && self.rate.is_finite()) {
            return Err(("rate", format!("rate = {}: expected a number above 0", self.rate)));
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return Err(("momentum", format!("momentum = {}: expected 0 to below 1", self.momentum)));
        }
        if let Some(target) = self.targets.iter().find(|target| !(0.0..=1.0).contains(*target)) {
            return Err(("targets", format!("a target of {target}: expected a part of the samples, 0 to 1")));
        }
        if let Some(rule) = self.rule.keys().find(|rule| !RULES.contains(&rule.as_str())) {
            return Err(("rule", unknown_rule(rule)));
        }
        Ok(())
    }

    fn multiply(&self, runs: &Runs) -> Result<Vec<Settings>, String> {
        let honest = vec!["none".to_owned()];
        let attacks = if runs.attacks.is_empty() { &honest } else { &runs.attacks };
        let or_none = |list: &[f64]| match list {
            [] => vec![None],
            list => list.iter().map(|value| Some(*value)).collect(),
        };
        let links = or_none(runs.links.as_ref().unwrap_or(&self.links));
        let times = or_none(runs.gradient_times.as_ref().unwrap_or(&self.gradient_times));
        if !runs.compression.is_empty() && runs.rules.iter().any(|rule| rule != "solon") {
            return Err("compression is for rules = [\"solon\"] alone: others have none".into());
        }
        let compression = if runs.compression.is_empty() { vec![1] } else { runs.compression.clone() };
        let mut all = Vec::new();
        for rule in &runs.rules {
            for attack in attacks {
                for compression in &compression {
                    for link in &links {
                        for time in &times {
                            all.push(self.settings(runs, rule, attack, *compression, *link, *time)?);
                        }
                    }
                }
            }
        }
        match all.is_empty() {
            true => Err(format!("rules is empty: expected some of {}", RULES.join(", "))),
            false => Ok(all),
        }
    }

    /// Refuses figures of times: workers of a group copy its gradient, so that a rule with a code would seem to be had for nothing.
    fn shows_no_times(&self, rule: &str, computed: usize) -> Result<(), String> {
        let of_time: Vec<&str> =
            self.figures.iter().filter(|figure| figure.is_of_time()).map(|figure| figure.name()).collect();
        match of_time.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "{rule}: figures {} without gradient-times: what several workers compute is computed by one and copied by the others, so that times \
                 hide the {computed}-fold computing: expected gradient-times = [\"2 ms\"] or the like, or no figures of times",
                of_time.join(", ")
            )),
        }
    }

    fn settings(
        &self,
        runs: &Runs,
        rule: &str,
        attack: &str,
        compression: usize,
        link: Option<f64>,
        gradient_time: Option<f64>,
    ) -> Result<Settings, String> {
        if !RULES.contains(&rule) {
            return Err(unknown_rule(rule));
        }
        let attack = match attack {
            "none" => None,
            name => Some(name.parse::<Lie>().map_err(|error| format!("{error}; or none"))?),
        };
        if attack.is_some_and(|lie| lie.attack == Attack::Delayed) {
            return Err("delayed: rounds of the lab wait for everybody, so that a run is the same each time".into());
        }
        let (workers, s, e) = (runs.workers.unwrap_or(self.workers), runs.adversaries, runs.stragglers);
        if !(1..=WORKERS_MAX).contains(&workers) {
            return Err(format!("{workers} workers: expected 1 to {WORKERS_MAX}"));
        }
        let liars = runs.liars.unwrap_or(s);
        let (groups, redundancy) = if is_coded(rule) {
            let one = Parameters::new(1, s, e, compression).map_err(|error| format!("{rule}: {error}"))?;
            let r = one.redundancy();
            if !workers.is_multiple_of(r) {
                return Err(format!(
                    "{rule}: {workers} workers do not make groups of {r} (compression {compression} + 2 x adversaries {s} + \
                     stragglers {e}): expected a multiple of {r}"
                ));
            }
            (workers / r, r)
        } else if let Err(error) = rule.parse::<Rule>().map_or(Ok(()), |rule| rule.check(workers, s)) {
            return Err(error.to_string());
        } else if e > 0 {
            return Err(format!("{rule}: stragglers are for rules with a code ({})", CODED.join(", ")));
        } else {
            (workers, 1)
        };
        let computed = if rule == CYCLIC { 2 * s + 1 } else { redundancy };
        if computed > 1 && gradient_time.is_none() {
            self.shows_no_times(rule, computed)?;
        }
        let most = if redundancy > 1 { redundancy } else { workers } - 1;
        if attack.is_some() && !(1..=most).contains(&liars) {
            return Err(format!(
                "{rule}: {liars} liars: expected 1 to {most}, so that somebody honest is left to look at"
            ));
        }
        // Sums over groups need no equal parts; rules that compare workers do.
        if self.batch < groups || redundancy == 1 && !self.batch.is_multiple_of(groups) {
            return Err(format!(
                "{rule}: a batch of {} does not divide into {groups} equal parts: expected a multiple of {groups}",
                self.batch
            ));
        }
        if runs.who == Who::WholeGroup && redundancy == 1 {
            return Err(format!("{rule}: whole groups lie only where there are groups ({})", CODED.join(", ")));
        }
        if let Some(rate) = runs.rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
            return Err(format!("{rule}: rate = {rate}: expected a number above 0"));
        }
        let special = self.rule.get(rule);
        let special = |pick: fn(&Override) -> Option<f32>| special.and_then(pick);
        Ok(Settings {
            rule: rule.into(),
            data: match self.data {
                DataName::Digits => "digits",
                DataName::Fashion => "fashion",
            }
            .into(),
            hidden: runs.hidden.unwrap_or(self.hidden),
            activation: self.activation,
            dimension: 0,
            batch: self.batch,
            rate: runs.rate.or(special(|it| it.rate)).unwrap_or(self.rate),
            momentum: special(|it| it.momentum).unwrap_or(self.momentum),
            momentum_at: runs
                .momentum_at
                .or(self.rule.get(rule).and_then(|it| it.momentum_at))
                .unwrap_or(self.momentum_at),
            steps: self.steps,
            judge: self.judge,
            workers,
            groups,
            redundancy,
            adversaries: s,
            stragglers: e,
            compression,
            liars: if attack.is_some() { liars } else { 0 },
            attack: attack.map(|lie| lie.to_string()),
            who: runs.who,
            link,
            push: runs.push.unwrap_or(self.push),
            gradient_time,
        })
    }
}

fn unknown_rule(found: &str) -> String {
    format!("{found:?} is not a rule: expected one of {}", RULES.join(", "))
}

/// The name of a variant: all that tells it from others of one experiment.
fn name_of(settings: &Settings) -> String {
    let Settings { rule, workers, adversaries, compression, stragglers, hidden, .. } = settings;
    let mut parts = vec![rule.clone(), format!("p{workers}"), format!("f{adversaries}")];
    if is_coded(rule) {
        parts.push(format!("c{compression}"));
    }
    if *stragglers > 0 {
        parts.push(format!("e{stragglers}"));
    }
    parts.push(format!("h{hidden}"));
    if settings.momentum_at == MomentumAt::Worker {
        parts.push("velocities".into());
    }
    if let Some(attack) = &settings.attack {
        parts.push(attack.clone());
        parts.push(format!("{}liars", settings.liars));
        match settings.who {
            Who::Fixed => {}
            Who::Switching => parts.push("switching".into()),
            Who::WholeGroup => parts.push("whole-group".into()),
        }
    }
    parts.extend(settings.link.map(|rate| format!("{}Mbit", rate * 8e-6)));
    if settings.push == Push::Relay {
        parts.push("relay".into());
    }
    parts.extend(settings.gradient_time.map(|time| format!("{}us", time * 1e6)));
    parts.join("-")
}
