//! What variants are called, so that no two that stand in one table or plot are called the same.
//!
//! A label is the rule, and what sets a variant apart from others of that rule. Link, gradient time and attack are no part of it: they are those
//! of a [`Job`](super::variants::Job), and stand in titles of tables and panels.

use super::variants::{Job, Variant};
use crate::lab::record::{MomentumAt, Push, Settings};

/// What the mean that nobody attacks is called among rules that are.
pub(super) const HONEST: &str = "mean, nobody lies";

/// Is it the mean that nobody attacks?
pub(super) fn is_honest(label: &str) -> bool {
    label.starts_with(HONEST)
}

/// How updates travel, in a word.
pub(super) fn way(push: Push) -> &'static str {
    match push {
        Push::Direct => "direct",
        Push::Relay => "relayed",
    }
}

/// A label for each variant; those without runs keep their names.
pub(super) fn labels(variants: &[Variant]) -> Vec<String> {
    let short: Vec<String> = variants.iter().map(|variant| label(variant, variants)).collect();
    let unique = |(label, own): (&String, &Variant)| {
        let is_same = |(other, variant): (&String, &Variant)| {
            let differ = std::ptr::eq(variant, own) || variant.runs.is_empty() || other != label;
            !differ && Job::of(variant.settings()) == Job::of(own.settings())
        };
        match !own.runs.is_empty() && short.iter().zip(variants).any(is_same) {
            true => format!("{label} ({})", own.name),
            false => label.clone(),
        }
    };
    short.iter().zip(variants).map(unique).collect()
}

fn label(variant: &Variant, all: &[Variant]) -> String {
    let Some(run) = variant.runs.first() else { return variant.name.clone() };
    let own = &run.manifest.settings;
    let others = all.iter().filter(|other| !other.runs.is_empty()).map(Variant::settings);
    let others: Vec<&Settings> = others.filter(|other| other.rule == own.rule).collect();
    let mut label = own.rule.clone();
    let mut add = |is_other: &dyn Fn(&Settings) -> bool, text: String| {
        if others.iter().any(|other| is_other(other)) {
            label += &format!(", {text}");
        }
    };
    add(&|other| other.compression != own.compression, format!("r_c = {}", own.compression));
    add(&|other| other.workers != own.workers, format!("P = {}", own.workers));
    add(&|other| other.adversaries != own.adversaries, format!("for {} liars", own.adversaries));
    add(&|other| other.stragglers != own.stragglers, format!("for {} absent", own.stragglers));
    // Those without an attack have no liars: that is in their title.
    let attacked = |settings: &Settings| settings.attack.is_some();
    // As many as the rule is for go without saying.
    let other_liars = |other: &Settings| other.adversaries == own.adversaries && other.liars != own.liars;
    add(&|other| attacked(own) && attacked(other) && other_liars(other), format!("{} lie", own.liars));
    add(&|other| other.batch != own.batch, format!("batch {}", own.batch));
    add(&|other| other.rate != own.rate, format!("rate {}", own.rate));
    add(&|other| other.momentum != own.momentum, format!("momentum {}", own.momentum));
    let place = match own.momentum_at {
        MomentumAt::Server => "momentum at the server",
        MomentumAt::Worker => "momentum at workers",
    };
    add(&|other| other.momentum_at != own.momentum_at, place.into());
    add(&|other| other.push != own.push, way(own.push).into());
    label
}

#[cfg(test)]
mod tests {
    use super::super::sample::{experiment, run};
    use super::*;
    use crate::lab::record::Run;

    fn changed(name: &str, change: impl Fn(&mut Settings)) -> Run {
        let mut made = run("solon", Some("reverse"), 1, 0.9);
        change(&mut made.manifest.settings);
        made.manifest.variant += name;
        made
    }

    fn labels_of(runs: Vec<Run>) -> Vec<String> {
        experiment(runs).variants.into_iter().map(|variant| variant.label).collect()
    }

    #[test]
    fn whatever_differs_between_variants_of_a_rule_is_in_their_labels() {
        let runs = vec![
            changed("", |_| {}),
            changed("-e1", |own| own.stragglers = 1),
            changed("-worker", |own| own.momentum_at = MomentumAt::Worker),
            changed("-direct", |own| own.push = Push::Direct),
            changed("-p20", |own| own.workers = 20),
            run("median", Some("reverse"), 1, 0.9),
        ];
        let labels = labels_of(runs);
        assert_eq!(labels[0], "solon, P = 30, for 0 absent, momentum at the server, relayed");
        assert_eq!(labels[1], "solon, P = 30, for 1 absent, momentum at the server, relayed");
        assert_eq!(labels[2], "solon, P = 30, for 0 absent, momentum at workers, relayed");
        assert_eq!(labels[3], "solon, P = 30, for 0 absent, momentum at the server, direct");
        assert_eq!(labels[4], "solon, P = 20, for 0 absent, momentum at the server, relayed");
        assert_eq!(labels[5], "median");
    }

    #[test]
    fn what_nothing_else_tells_apart_is_called_by_its_directory() {
        let runs = vec![changed("", |_| {}), changed("-shorter", |own| own.steps = 10)];
        assert_eq!(labels_of(runs), ["solon (solon-reverse)", "solon (solon-reverse-shorter)"]);
    }

    #[test]
    fn a_rule_is_called_the_same_with_and_without_an_attack() {
        assert_eq!(labels_of(vec![run("solon", None, 1, 0.9), changed("", |_| {})]), ["solon", "solon"]);
    }
}
