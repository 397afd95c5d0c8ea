//! What there is to say of an experiment, in order: the same for the page and for the docs.

use super::figure::Figure;
use super::table::{Cell, Table};
use super::variants::{Experiment, Variant, activation, digits, seconds, speed};
use super::{bars, crossing, crossover, curves, robust, speed as race};
use crate::lab::record::{MomentumAt, Picture, Push, Run, Shaping, Who};

/// A piece of a page.
pub(super) enum Block {
    /// The experiment's title.
    Title(String),
    /// A heading below that, or one below that.
    Heading(String),
    Subheading(String),
    /// What makes the records, and this of them.
    Command(String),
    /// A paragraph.
    Text(String),
    /// A remark to what stands above.
    Note(String),
    /// What is missing or cannot be trusted.
    Lacking(String),
    Table(Table),
    Figure(Figure),
}

/// More runs than this are not named one by one.
const NAMED: usize = 8;

pub(super) fn blocks(experiment: &Experiment) -> Vec<Block> {
    let about = &experiment.about;
    let command = format!("solon lab run {} --out solon-lab\nsolon lab report solon-lab --docs docs", about.name);
    let mut blocks = vec![Block::Title(about.title.clone()), Block::Command(command)];
    if !about.text.is_empty() {
        blocks.push(Block::Text(about.text.clone()));
    }
    if experiment.runs().next().is_none() {
        blocks.push(Block::Lacking(format!("None of its {} runs is there.", about.runs.len())));
        return blocks;
    }
    blocks.push(Block::Table(facts(experiment)));
    blocks.extend(lacking(experiment).into_iter().map(Block::Lacking));
    for picture in &about.figures {
        draw(experiment, *picture, &mut blocks);
    }
    blocks
}

fn draw(experiment: &Experiment, picture: Picture, blocks: &mut Vec<Block>) {
    let before = blocks.len();
    match picture {
        Picture::AccuracyTable => {
            blocks.push(Block::Heading("Accuracy at the end".into()));
            blocks.push(Block::Table(robust::table(experiment)));
            blocks.push(Block::Note(robust::legend(experiment)));
            blocks.extend(robust::exactness(experiment).map(Block::Text));
            if let Some(verdicts) = robust::verdicts(experiment) {
                blocks.push(Block::Heading("Which attack breaks which rule".into()));
                blocks.push(Block::Table(verdicts));
                blocks.push(Block::Note(robust::signs(experiment)));
            }
        }
        Picture::AccuracyBySteps => blocks.extend(curves::figure(experiment, curves::Over::Steps).map(Block::Figure)),
        Picture::AccuracyByTime => blocks.extend(curves::figure(experiment, curves::Over::Seconds).map(Block::Figure)),
        Picture::StepTime => {
            if let Some(figure) = bars::figure(experiment) {
                blocks.push(Block::Figure(figure));
                titled(bars::tables(experiment), blocks);
            }
        }
        Picture::SpeedUp => {
            blocks.push(Block::Heading("Time to the same accuracy".into()));
            titled(race::tables(experiment), blocks);
            blocks.push(Block::Note(format!(
                "{} {}. {}",
                race::LEGEND,
                capital(&curves::emulation(experiment)),
                robust::signs(experiment)
            )));
            blocks.extend(race::overruns(experiment).map(Block::Note));
        }
        Picture::Crossover => {
            let points = crossover::points(experiment);
            if let Some(figure) = crossing::figure(&experiment.about.name, &points) {
                blocks.push(Block::Figure(figure));
                blocks.push(Block::Table(crossover::table(&points)));
                blocks.push(Block::Note(crossover::LEGEND.into()));
            }
        }
    }
    if blocks.len() == before {
        blocks.push(Block::Lacking(match picture {
            Picture::Crossover => {
                "Solon against Draco: no two runs of both, with the same link, gradient time and liars, are there."
                    .into()
            }
            Picture::StepTime => "Step times: no run with a step is there.".into(),
            _ => "Accuracies: no run that was judged is there.".into(),
        }));
    }
}

fn titled(tables: Vec<(String, Table)>, blocks: &mut Vec<Block>) {
    let several = tables.len() > 1;
    for (title, table) in tables {
        if several {
            blocks.push(Block::Subheading(title));
        }
        blocks.push(Block::Table(table));
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
}

/// What is not there, and what is not what it should be.
fn lacking(experiment: &Experiment) -> Vec<String> {
    let mut found = Vec::new();
    let missing: Vec<String> = experiment.missing().iter().map(|path| path.display().to_string()).collect();
    if !missing.is_empty() {
        let all = experiment.about.runs.len();
        found.push(format!("{} of {all} runs are missing: {}.", missing.len(), listed(&missing)));
    }
    let strange: Vec<String> = experiment.strange().iter().map(|path| path.display().to_string()).collect();
    if !strange.is_empty() {
        found.push(format!(
            "{} of {} runs are left out, as they are of other settings than most of their variant, or their link was shaped otherwise: {}.",
            strange.len(),
            experiment.about.runs.len(),
            listed(&strange)
        ));
    }
    let stopped: Vec<String> = experiment
        .runs()
        .filter_map(|run| {
            Some(format!("{} seed {}: {}", run.manifest.variant, run.manifest.seed, run.outcome.stopped.as_ref()?))
        })
        .collect();
    if !stopped.is_empty() {
        found.push(format!("{} runs ended early: {}.", stopped.len(), listed(&stopped)));
    }
    if experiment.present().any(|variant| variant.overruns().is_some_and(|[over, _]| over > 0)) {
        found.push(
            "Computing took longer than its emulated time in some steps, as the table above says: these steps are longer than emulated.".into(),
        );
    }
    found
}

fn listed(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMED)].join(", ");
    if names.len() > NAMED {
        text += &format!(" and {} more", names.len() - NAMED);
    }
    text
}

/// How it was run: what is measured, and what is emulated.
fn facts(experiment: &Experiment) -> Table {
    let variants: Vec<&Variant> = experiment.present().collect();
    let of = |name: &dyn Fn(&Variant) -> String| {
        let mut all: Vec<String> = Vec::new();
        variants.iter().map(|variant| name(variant)).filter(|text| !text.is_empty()).for_each(|text| {
            if !all.contains(&text) {
                all.push(text);
            }
        });
        all.join("; ")
    };
    let from_runs = |name: &dyn Fn(&Run) -> String| {
        let mut all: Vec<String> = experiment.runs().map(name).collect();
        all.sort();
        all.dedup();
        all.join("; ")
    };
    let rows = [
        ("workers", of(&|v| workers(v))),
        ("liars", of(&|v| liars(v))),
        (
            "data",
            from_runs(&|run| {
                format!(
                    "{}: {} samples to learn, {} to be judged by",
                    run.manifest.settings.data, run.manifest.samples[0], run.manifest.samples[1]
                )
            }),
        ),
        ("model", of(&|v| model(v))),
        ("training", of(&|v| training(v))),
        ("link (measured)", link(experiment)),
        (
            "updates",
            of(&|v| {
                match v.settings().push {
                Push::Direct => "direct: the daemon sends each worker the whole update".into(),
                Push::Relay => "relayed: the daemon sends each piece once, and workers pass it on; workers' own links are not shaped".into(),
            }
            }),
        ),
        ("gradients", gradients(&variants)),
        ("steps that overran", overran(experiment)),
        ("seeds", seeds(experiment)),
        ("machine", from_runs(&|run| run.manifest.machine.clone())),
        ("version", from_runs(&|run| run.manifest.version.clone())),
    ];
    let mut table = Table::new(&["as run", ""]);
    let rows = rows.into_iter().filter(|(_, text)| !text.is_empty());
    table.rows = rows.map(|(name, text)| vec![Cell::plain(name), Cell::words(text)]).collect();
    table
}

fn model(variant: &Variant) -> String {
    let settings = variant.settings();
    let units = activation(settings.activation);
    format!("{} hidden units ({units}), d = {}", settings.hidden, settings.dimension)
}

/// In how many steps computing took longer than its emulated time, per variant.
fn overran(experiment: &Experiment) -> String {
    let jobs = experiment.jobs();
    let (mut all, mut late) = (0, Vec::new());
    for (job, variant) in jobs.iter().flat_map(|(job, variants)| variants.iter().map(move |variant| (job, variant))) {
        let Some([over, steps]) = variant.overruns() else { continue };
        all += steps;
        if over > 0 {
            late.push(format!("{} ({}): {over} of {steps}", variant.label, job.title(&jobs)));
        }
    }
    match (all, late.is_empty()) {
        (0, _) => String::new(),
        (all, true) => format!("none of {all}: computing was always done within its emulated time"),
        (_, false) => {
            format!("computing took longer than its emulated time in {}; in no step of others", late.join("; "))
        }
    }
}

fn workers(variant: &Variant) -> String {
    let settings = variant.settings();
    match settings.redundancy {
        1 if settings.is_exact() => {
            format!("{} with {} batches each for {}", settings.workers, settings.computed(), settings.rule)
        }
        1 => format!("{} uncoded", settings.workers),
        r => format!(
            "{} in {} groups of {r} for {} (s = {}, r_c = {})",
            settings.workers, settings.groups, settings.rule, settings.adversaries, settings.compression
        ),
    }
}

/// Which gradients take the time that they take, and which the time that is stated.
fn gradients(variants: &[&Variant]) -> String {
    let mut times: Vec<f64> = variants.iter().filter_map(|variant| variant.settings().gradient_time).collect();
    times.sort_by(f64::total_cmp);
    times.dedup();
    let mut kinds = Vec::new();
    if !times.is_empty() {
        let times: Vec<String> = times.into_iter().map(seconds).collect();
        kinds.push(format!(
            "emulated: {} a sample; workers sleep for what their computing does not take",
            times.join(", ")
        ));
    }
    if variants.iter().any(|variant| variant.settings().gradient_time.is_none()) {
        kinds.push("measured: computed on this machine's cores, which all workers share".into());
    }
    kinds.join("; ")
}

fn liars(variant: &Variant) -> String {
    let settings = variant.settings();
    if settings.attack.is_none() {
        return String::new();
    }
    if settings.who == Who::WholeGroup {
        return "all of one group".into();
    }
    let per = if settings.redundancy > 1 { "per group for coded rules" } else { "in all without groups" };
    let who = match settings.who {
        Who::Fixed => "",
        _ => ", others in each step",
    };
    format!("{} {per}{who}", settings.liars)
}

fn training(variant: &Variant) -> String {
    let settings = variant.settings();
    let momentum = match (settings.momentum, settings.momentum_at) {
        (0.0, _) => String::new(),
        (momentum, MomentumAt::Server) => format!(", momentum {momentum}"),
        (momentum, MomentumAt::Worker) => format!(", momentum {momentum} at each worker"),
    };
    format!("{} steps of {} samples, rate {}{momentum}", settings.steps, settings.batch, settings.rate)
}

/// Rates, how they are held, and what a probe found.
fn link(experiment: &Experiment) -> String {
    let mut kinds: Vec<(Option<f64>, Shaping, Vec<[f64; 2]>)> = Vec::new();
    for run in experiment.runs() {
        let (rate, shaping) = (run.manifest.settings.link, run.manifest.shaping);
        match kinds.iter_mut().find(|kind| (kind.0, kind.1) == (rate, shaping)) {
            Some(kind) => kind.2.extend(run.outcome.probed),
            None => kinds.push((rate, shaping, run.outcome.probed.into_iter().collect())),
        }
    }
    let said = |(rate, shaping, probes): &(Option<f64>, Shaping, Vec<[f64; 2]>)| {
        let rate = rate.map_or("loopback".into(), |rate| format!("{} each way at the daemon", speed(rate)));
        let how = match shaping {
            Shaping::None => ", not shaped",
            Shaping::Namespaces => {
                ", held by the kernel's token bucket of one millisecond (64 KiB at least) in network namespaces; workers' own links are not shaped"
            }
            Shaping::Pacing => {
                ", paced by a token bucket of one millisecond in a forwarder of the lab (no network namespaces here); workers' own links are not shaped"
            }
        };
        let least = |way: usize| probes.iter().map(|probe| probe[way]).reduce(f64::min);
        let probed = match (least(0), least(1)) {
            (Some(up), Some(down)) => {
                format!("; probes found at least {} to the daemon, {} from it", speed(up), speed(down))
            }
            _ => String::new(),
        };
        format!("{rate}{how}{probed}")
    };
    kinds.iter().map(said).collect::<Vec<_>>().join("; ")
}

fn seeds(experiment: &Experiment) -> String {
    let mut seeds: Vec<u64> = experiment.runs().map(|run| run.manifest.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let runs = digits(experiment.runs().count() as f64);
    format!("{}; {runs} runs in all", seeds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{experiment, run};
    use super::*;

    fn fact(runs: Vec<Run>, name: &str) -> Option<String> {
        let table = facts(&experiment(runs));
        table.rows.into_iter().find(|row| row[0].text == name).map(|row| row[1].text.clone())
    }

    #[test]
    fn the_facts_say_how_updates_travel_what_is_shaped_and_what_units_do() {
        let relayed = || run("solon", None, 1, 0.9);
        let mut direct = run("median", None, 1, 0.9);
        direct.manifest.settings.push = Push::Direct;
        let updates = fact(vec![relayed(), direct], "updates").unwrap();
        assert!(updates.contains("relayed:") && updates.contains("direct:"), "{updates}");
        let link = fact(vec![relayed()], "link (measured)").unwrap();
        assert!(link.contains("of one millisecond") && link.contains("workers' own links are not shaped"), "{link}");
        assert!(fact(vec![relayed()], "model").unwrap().contains("8 hidden units (relu)"));
    }

    #[test]
    fn overruns_are_counted_per_variant() {
        let slept = |rule: &str, seed: u64, overruns: u64| {
            let mut made = run(rule, None, seed, 0.9);
            (made.manifest.settings.gradient_time, made.outcome.overruns) = (Some(1e-3), overruns);
            made
        };
        let found = |runs| fact(runs, "steps that overran");
        let said = found(vec![slept("solon", 1, 2), slept("solon", 2, 3), slept("median", 1, 0)]).unwrap();
        assert!(said.contains("solon (no attack): 5 of 80;") && !said.contains("median"), "{said}");
        assert!(found(vec![slept("median", 1, 0)]).unwrap().starts_with("none of 40"));
        assert_eq!(found(vec![run("median", None, 1, 0.9)]), None);
    }

    #[test]
    fn runs_that_are_left_out_are_named() {
        let mut runs: Vec<Run> = (1..4).map(|seed| run("solon", None, seed, 0.9)).collect();
        runs[1].manifest.settings.batch = 60;
        let said = lacking(&experiment(runs));
        assert!(
            said.len() == 1 && said[0].contains("1 of 3 runs are left out") && said[0].contains("solon-none/seed-2")
        );
    }
}
