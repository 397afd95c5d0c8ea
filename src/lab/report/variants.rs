//! The runs of an experiment by variant, and variants by what they have in common.

use std::path::{Path, PathBuf};

use super::labels::{HONEST, labels};
use super::statistics::mean;
use crate::demo::Activation;
use crate::lab::record::{About, Push, Run, Settings, Step, Who, place};

/// An experiment, as far as it was run.
pub(super) struct Experiment {
    pub about: About,
    /// In the order of the file; those without any whole run, too.
    pub variants: Vec<Variant>,
}

/// All runs of the same settings, one per seed.
pub(super) struct Variant {
    pub name: String,
    /// Whole runs, by seed. Their settings are the same, and so is how their links were shaped.
    pub runs: Vec<Run>,
    /// Runs that are not there, or not whole.
    pub missing: Vec<PathBuf>,
    /// Whole runs that are left out: their settings are not those of most others, or their links were shaped otherwise.
    pub strange: Vec<PathBuf>,
    /// What it is called among the others: its rule, and what sets it apart from those with the same rule.
    pub label: String,
}

/// What variants that can be compared have in common.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Job {
    pub data: String,
    pub hidden: usize,
    pub activation: Activation,
    pub link: Option<f64>,
    pub gradient_time: Option<f64>,
    pub push: Push,
    pub attack: Option<String>,
    pub who: Who,
}

impl Experiment {
    pub fn new(about: About, runs: Vec<Run>) -> Experiment {
        let mut variants: Vec<Variant> = Vec::new();
        for path in &about.runs {
            let name = path.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
            if variants.iter().all(|variant| variant.name != name) {
                let (label, none) = (name.clone(), Vec::new());
                variants.push(Variant { label, name, runs: Vec::new(), missing: none.clone(), strange: none });
            }
        }
        for variant in &mut variants {
            let all: Vec<&Run> = runs.iter().filter(|run| run.manifest.variant == variant.name).collect();
            let (own, others): (Vec<&Run>, Vec<&Run>) = match usual(&all) {
                Some(usual) => all.iter().copied().partition(|run| is_alike(run, usual)),
                None => (Vec::new(), Vec::new()),
            };
            variant.runs = own.into_iter().cloned().collect();
            variant.runs.sort_by_key(|run| run.manifest.seed);
            variant.strange = others.iter().map(|run| place(&variant.name, run.manifest.seed)).collect();
            let there = |path: &PathBuf| all.iter().any(|run| place(&variant.name, run.manifest.seed) == *path);
            let own = |path: &&PathBuf| path.parent() == Some(Path::new(&variant.name));
            variant.missing = about.runs.iter().filter(own).filter(|path| !there(path)).cloned().collect();
        }
        let labels = labels(&variants);
        variants.iter_mut().zip(labels).for_each(|(variant, label)| variant.label = label);
        Experiment { about, variants }
    }

    /// Variants with whole runs.
    pub fn present(&self) -> impl Iterator<Item = &Variant> {
        self.variants.iter().filter(|variant| !variant.runs.is_empty())
    }

    /// Variants that can be compared with each other, in the order of the first of each.
    pub fn jobs(&self) -> Vec<(Job, Vec<&Variant>)> {
        let mut jobs: Vec<(Job, Vec<&Variant>)> = Vec::new();
        for variant in self.present() {
            let job = Job::of(variant.settings());
            match jobs.iter_mut().find(|(other, _)| *other == job) {
                Some((_, variants)) => variants.push(variant),
                None => jobs.push((job, vec![variant])),
            }
        }
        jobs
    }

    /// The mean that nobody attacks, on the data, link and gradient time of `job`.
    pub fn honest(&self, job: &Job) -> Option<&Variant> {
        let own = Job { attack: None, who: Who::Fixed, ..job.clone() };
        self.present().find(|variant| variant.settings().rule == "mean" && Job::of(variant.settings()) == own)
    }

    /// What is compared in a job, by name: its variants, and the honest mean.
    pub fn compared<'a>(&'a self, job: &Job, variants: &[&'a Variant]) -> Vec<(String, &'a Variant)> {
        let honest = self.honest(job);
        let own = variants.iter().filter(|variant| !honest.is_some_and(|honest| std::ptr::eq(honest, **variant)));
        let name = |honest: &Variant| honest.label.replacen("mean", HONEST, 1);
        let honest = honest.map(|honest| (name(honest), honest));
        honest.into_iter().chain(own.map(|variant| (variant.label.clone(), *variant))).collect()
    }

    /// The rule of `variant` with the same settings, but that nobody lies; over any link, as that changes no accuracy.
    pub fn unattacked(&self, variant: &Variant) -> Option<&Variant> {
        let plain = |settings: &Settings| {
            let (attack, who, push) = (None, Who::Fixed, Push::Direct);
            Settings { attack, liars: 0, who, push, link: None, gradient_time: None, ..settings.clone() }
        };
        let own = plain(variant.settings());
        self.present().find(|other| other.settings().attack.is_none() && plain(other.settings()) == own)
    }

    /// Paths of runs that are not there.
    pub fn missing(&self) -> Vec<&PathBuf> {
        self.variants.iter().flat_map(|variant| &variant.missing).collect()
    }

    /// Paths of runs that are there, and left out.
    pub fn strange(&self) -> Vec<&PathBuf> {
        self.variants.iter().flat_map(|variant| &variant.strange).collect()
    }

    /// All runs.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.variants.iter().flat_map(|variant| &variant.runs)
    }
}

impl Job {
    pub fn of(settings: &Settings) -> Job {
        Job {
            data: settings.data.clone(),
            hidden: settings.hidden,
            activation: settings.activation,
            link: settings.link,
            gradient_time: settings.gradient_time,
            push: settings.push,
            attack: settings.attack.clone(),
            who: settings.who,
        }
    }

    /// The attack, and who lies if that changes.
    pub fn attack(&self) -> String {
        let who = serde_json::to_value(self.who).ok().and_then(|name| Some(name.as_str()?.replace('-', " ")));
        match (&self.attack, self.who) {
            (None, _) => "no attack".into(),
            (Some(attack), Who::Fixed) => attack.clone(),
            (Some(attack), _) => format!("{attack}, {}", who.unwrap_or_default()),
        }
    }

    /// Is all the same but the attack?
    pub fn is_like(&self, other: &Job) -> bool {
        Job { attack: None, who: Who::Fixed, ..self.clone() } == Job { attack: None, who: Who::Fixed, ..other.clone() }
    }

    /// The attack, and whatever else is not the same in all of `jobs`.
    pub fn title(&self, jobs: &[(Job, Vec<&Variant>)]) -> String {
        let conditions = self.conditions(jobs);
        if conditions.is_empty() { self.attack() } else { format!("{}, {conditions}", self.attack()) }
    }

    /// Whatever but the attack is not the same in all of `jobs`.
    pub fn conditions(&self, jobs: &[(Job, Vec<&Variant>)]) -> String {
        let differs = |different: &dyn Fn(&Job) -> bool| jobs.iter().any(|(job, _)| different(job));
        let mut parts = Vec::new();
        if differs(&|job| job.data != self.data) {
            parts.push(self.data.clone());
        }
        if differs(&|job| job.hidden != self.hidden) {
            parts.push(format!("{} hidden", self.hidden));
        }
        if differs(&|job| job.activation != self.activation) {
            parts.push(activation(self.activation).into());
        }
        if differs(&|job| job.link != self.link) {
            parts.push(self.link.map_or("no link".into(), speed));
        }
        if differs(&|job| job.gradient_time != self.gradient_time) {
            let time = self.gradient_time.map(|time| format!("{} a sample", seconds(time)));
            parts.push(time.unwrap_or("computed".into()));
        }
        if differs(&|job| job.push != self.push) {
            parts.push(if self.push == Push::Relay { "updates relayed" } else { "updates sent by the daemon" }.into());
        }
        parts.join(", ")
    }
}

impl Variant {
    /// Those of all its runs.
    pub fn settings(&self) -> &Settings {
        &self.runs[0].manifest.settings
    }

    /// The run with this seed.
    pub fn run(&self, seed: u64) -> Option<&Run> {
        self.runs.iter().find(|run| run.manifest.seed == seed)
    }

    /// Runs of both with the same seed.
    pub fn paired<'a>(&'a self, other: &'a Variant) -> impl Iterator<Item = (&'a Run, &'a Run)> {
        self.runs.iter().filter_map(|run| Some((run, other.run(run.manifest.seed)?)))
    }

    /// Steps in which computing took longer than its emulated time, of how many; nothing if computing is not emulated.
    pub fn overruns(&self) -> Option<[u64; 2]> {
        self.settings().gradient_time?;
        let steps = self.runs.iter().map(|run| run.steps.len() as u64).sum();
        Some([self.runs.iter().map(|run| run.outcome.overruns).sum(), steps])
    }

    /// Final accuracies of the runs that have one.
    pub fn accuracies(&self) -> Vec<f64> {
        self.runs.iter().filter_map(|run| run.outcome.accuracy).collect()
    }

    /// The largest distance from the honest weights, over steps and runs.
    pub fn difference(&self) -> Option<f64> {
        let of = |run: &Run| {
            run.steps.iter().map(|step| step.difference).chain([run.outcome.difference]).flatten().reduce(f64::max)
        };
        self.runs.iter().filter_map(of).reduce(f64::max)
    }

    /// Step, seconds and accuracy, means over the runs that were judged there.
    pub fn curve(&self) -> Vec<(f64, f64, f64)> {
        let mut steps: Vec<u64> = self.judged().map(|(step, ..)| step).collect();
        steps.sort_unstable();
        steps.dedup();
        let at = |number: u64| {
            let there = || self.judged().filter(move |(step, ..)| *step == number);
            let seconds: Vec<f64> = there().map(|(_, seconds, _)| seconds).collect();
            let accuracies: Vec<f64> = there().map(|(_, _, accuracy)| accuracy).collect();
            Some((number as f64, mean(&seconds)?, mean(&accuracies)?))
        };
        steps.into_iter().filter_map(at).collect()
    }

    fn judged(&self) -> impl Iterator<Item = (u64, f64, f64)> + '_ {
        let steps = self.runs.iter().flat_map(|run| &run.steps);
        steps.filter_map(|step| Some((step.step, step.seconds, step.accuracy?)))
    }

    /// The mean over steps, then over runs, of what `part` takes; steps that ended the run do not count.
    pub fn mean(&self, part: impl Fn(&Step) -> f64) -> Option<f64> {
        let runs: Vec<f64> = self.runs.iter().filter_map(|run| mean_of(run, &part)).collect();
        mean(&runs)
    }
}

/// The run whose settings most of `runs` have; of as many the newest.
fn usual<'a>(runs: &[&'a Run]) -> Option<&'a Run> {
    let alike = |run: &Run| runs.iter().filter(|other| is_alike(run, other)).count();
    runs.iter().copied().max_by_key(|run| (alike(run), run.manifest.began))
}

fn is_alike(one: &Run, other: &Run) -> bool {
    (&one.manifest.settings, one.manifest.shaping) == (&other.manifest.settings, other.manifest.shaping)
}

/// What hidden units do, in a word.
pub(super) fn activation(activation: Activation) -> &'static str {
    match activation {
        Activation::Relu => "relu",
        Activation::Tanh => "tanh",
    }
}

/// The mean over the steps of a run; those that ended it do not count.
pub(super) fn mean_of(run: &Run, part: impl Fn(&Step) -> f64) -> Option<f64> {
    let values: Vec<f64> = run.steps.iter().filter(|step| !step.undecodable).map(part).collect();
    mean(&values)
}

/// `1 Gb/s`.
pub(super) fn speed(bytes_per_second: f64) -> String {
    let bits = 8.0 * bytes_per_second;
    match bits {
        ..1e6 => format!("{} kb/s", digits(bits / 1e3)),
        ..1e9 => format!("{} Mb/s", digits(bits / 1e6)),
        _ => format!("{} Gb/s", digits(bits / 1e9)),
    }
}

/// `12.5 ms`.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        ..1e-3 => format!("{} us", digits(seconds * 1e6)),
        ..1.0 => format!("{} ms", digits(seconds * 1e3)),
        _ => format!("{} s", digits(seconds)),
    }
}

/// To three digits: `0.310`, `4.00`, `12.3`, `690`; at most four behind the point.
pub(super) fn fixed(value: f64) -> String {
    format!("{value:.*}", decimals(value))
}

/// `12.3 ± 0.4`: both with as many digits behind the point.
pub(super) fn spread(mean: f64, deviation: f64) -> String {
    let decimals = decimals(mean);
    format!("{mean:.decimals$} ± {deviation:.decimals$}")
}

fn decimals(value: f64) -> usize {
    match value.abs() {
        0.0 => 0,
        ..0.1 => 4,
        ..1.0 => 3,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    }
}

/// To three digits, without zeros behind the point: `1`, `1.25`, `690`, `12300`.
pub(super) fn digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let decimals = (2 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{experiment, run};
    use super::*;
    use crate::lab::record::Shaping;

    #[test]
    fn runs_of_other_settings_or_shaping_than_most_are_left_out_and_said_to_be() {
        let mut runs: Vec<Run> = (1..5).map(|seed| run("solon", None, seed, 0.9)).collect();
        runs[0].manifest.settings.rate = 0.2;
        runs[0].outcome.accuracy = Some(0.1);
        runs[3].manifest.shaping = Shaping::Pacing;
        let experiment = experiment(runs);
        let variant = &experiment.variants[0];
        assert_eq!(variant.runs.iter().map(|run| run.manifest.seed).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(variant.accuracies(), [0.9, 0.9]);
        let strange: Vec<&Path> = experiment.strange().into_iter().map(PathBuf::as_path).collect();
        assert_eq!(strange, [Path::new("solon-none/seed-1"), Path::new("solon-none/seed-4")]);
        assert!(experiment.missing().is_empty());
    }

    #[test]
    fn of_as_many_runs_the_newest_settings_count() {
        let mut runs: Vec<Run> = (1..3).map(|seed| run("solon", None, seed, 0.9)).collect();
        (runs[0].manifest.began, runs[0].manifest.settings.steps) = (7, 41);
        let experiment = experiment(runs);
        assert_eq!(experiment.variants[0].settings().steps, 41);
        assert_eq!(experiment.strange().len(), 1);
    }

    #[test]
    fn a_rule_without_attack_has_the_same_settings_on_any_link() {
        let mut other = run("median", None, 1, 0.7);
        (other.manifest.settings.workers, other.manifest.variant) = (15, "median-p15".into());
        let mut plain = run("median", None, 1, 0.8);
        (plain.manifest.settings.link, plain.manifest.settings.push) = (None, Push::Direct);
        let experiment = experiment(vec![other, plain, run("median", Some("alie=1"), 1, 0.5)]);
        let found = experiment.unattacked(&experiment.variants[2]).unwrap();
        assert_eq!(found.name, "median-none");
    }
}
