//! What a rule makes of the settings of its job: which defaults follow it, what it cannot be combined with, and the bound that its
//! number of workers must meet.

use super::layers::Layers;
use super::problem::Problem;
use super::value::Value;
use super::{Precision, ROWS_MAX, Robust, Rule};
use crate::rules::{self, cyclic};

/// Where nobody says otherwise, settings follow the rule.
pub(super) fn follow(layers: &mut Layers) {
    let Some(rule) = layers.choice::<Rule>("job.rule").filter(|rule| *rule != Rule::Solon) else { return };
    layers.set_default("job.compression", Value::Integer(1));
    if rule == Rule::MEAN {
        layers.set_default("job.adversaries", Value::Integer(0));
    }
    let Some(guess) = rule.on_the_wire().robust() else { return };
    // A liar may also send nothing at all: as many may be missing as may lie, where enough are left for the rule.
    if let (Some(workers), Some(liars)) = (layers.count("job.groups"), layers.count("job.adversaries")) {
        let spare = workers.saturating_sub(guess.needs(liars).0);
        layers.set_default("job.stragglers", Value::Integer(spare.min(liars) as u64));
    }
    // The more are counted, the better the guess.
    if let Some(deadline) = layers.count("rounds.deadline_ms") {
        layers.set_default("rounds.linger_ms", Value::Integer(deadline as u64));
    }
    if rule == Rule::SIGNUM {
        layers.set_default("job.precision", Value::Text(Precision::Sign.to_string()));
        layers.set_default("push.precision", Value::Text(Precision::Sign.to_string()));
    }
}

/// Whether the settings suit the rule; how a robust one combines workers.
pub(super) fn check(layers: &Layers, rule: Rule, problems: &mut Vec<Problem>) -> Option<Option<Robust>> {
    let before = problems.len();
    let only: &[(&str, u64)] = match rule {
        Rule::Solon => &[],
        Rule::MEAN => &[("job.adversaries", 0), ("job.stragglers", 0), ("job.compression", 1)],
        _ => &[("job.compression", 1)],
    };
    for (name, only) in only {
        if layers.count(name)? as u64 != *only {
            let why = match rule {
                Rule::MEAN => "as a mean corrects and compresses nothing",
                Rule::Draco => "as it compares whole gradients; the code that compresses is \"solon\"",
                _ => "as each worker sends the whole of its own gradient",
            };
            problems.push(Problem {
                place: layers.place_of(&[name, "job.rule"]),
                object: (*name).into(),
                found: format!("{} with {}", layers.shown(name), layers.shown("job.rule")),
                expected: format!("{only}, {why}"),
                action: format!("set {name} = {only}, or job.rule = \"solon\""),
            });
        }
    }
    signs(layers, rule, problems);
    check_weights(layers, rule, problems);
    if problems.len() > before {
        return None;
    }
    let Some(guess) = rule.on_the_wire().robust() else { return Some(None) };
    let (workers, missing) = (layers.count("job.groups")?, layers.count("job.stragglers")?);
    if workers > ROWS_MAX {
        problems.push(Problem {
            place: layers.place_of(&["job.groups", "job.rule"]),
            object: "job.groups".into(),
            found: format!("{workers} workers with {}", layers.shown("job.rule")),
            expected: format!("at most {ROWS_MAX} workers, each a group of its own, where a rule combines them"),
            action: format!("set job.groups = {ROWS_MAX} or less, or job.rule = \"solon\" or \"mean\""),
        });
        return None;
    }
    let weights = weights(layers, workers).unwrap_or_else(|| vec![1.0; workers]);
    let robust = Robust { rule: guess, adversaries: layers.count("job.adversaries")?, missing, weights };
    if let Err(few) = robust.check() {
        let among = if missing > 0 { " without the missing ones" } else { "" };
        let left =
            if missing > 0 { format!(", of whom {missing} may be missing (job.stragglers)") } else { String::new() };
        problems.push(Problem {
            place: layers.place_of(&["job.groups", "job.adversaries", "job.stragglers", "job.rule"]),
            object: "job.groups".into(),
            found: format!(
                "{workers} workers{left}, with {} and {}",
                layers.shown("job.rule"),
                layers.shown("job.adversaries")
            ),
            expected: format!("at least {} workers ({}{among})", few.needed + missing, few.bound),
            action: format!("set job.groups = {} or more, or lower job.adversaries", few.needed + missing),
        });
        return None;
    }
    if guess == rules::Rule::Cyclic && !suits_cyclic(layers, &robust, problems) {
        return None;
    }
    Some(Some(robust))
}

/// Whether the cyclic code can be decoded: who is absent counts as who lies, and weights must leave numbers their precision.
fn suits_cyclic(layers: &Layers, robust: &Robust, problems: &mut Vec<Problem>) -> bool {
    let (workers, liars) = (robust.weights.len(), robust.adversaries);
    let largest = cyclic::largest_weight(workers, liars);
    let (names, object, found, expected, action): (&[&str], _, _, _, _) = if robust.missing > liars {
        (
            &["job.stragglers", "job.adversaries", "job.rule"],
            "job.stragglers",
            layers.shown("job.stragglers"),
            format!("at most {liars}, as many as may lie (job.adversaries): lying and missing workers count together"),
            format!("set job.stragglers = {liars} or less, or raise job.adversaries"),
        )
    } else if largest > cyclic::WEIGHT_MAX {
        (
            &["job.groups", "job.adversaries", "job.rule"],
            "job.groups",
            format!("{workers} workers against {liars} liars, whose weights reach {largest:.0e}"),
            format!("weights of {:.0e} at most: with larger ones f64 is not exact enough", cyclic::WEIGHT_MAX),
            "lower job.groups or job.adversaries, or set job.rule = \"draco\"".into(),
        )
    } else {
        return true;
    };
    let place = layers.place_of(names);
    problems.push(Problem { place, object: object.into(), found, expected, action });
    false
}

/// As many as there are workers.
fn weights(layers: &Layers, workers: usize) -> Option<Vec<f64>> {
    let Some(Value::Weights(list)) = layers.value("job.weights") else { return None };
    (list.len() == workers).then(|| list.iter().map(|weight| f64::from(*weight)).collect())
}

/// Weights are for rules that compare gradients of different sizes, and then there is one per worker.
fn check_weights(layers: &Layers, rule: Rule, problems: &mut Vec<Problem>) {
    let Some(Value::Weights(list)) = layers.value("job.weights") else { return };
    let mut wrong = |found: String, expected: String, action: &str| {
        let place = layers.place_of(&["job.weights", "job.rule", "job.groups"]);
        problems.push(Problem { place, object: "job.weights".into(), found, expected, action: action.into() });
    };
    let why = match rule {
        Rule::Solon | Rule::Draco | Rule::MEAN => "it adds up what workers send, and sums weigh themselves",
        Rule::SIGNUM => "every worker has one vote",
        Rule::CYCLIC => "it adds up what workers combined",
        _ => {
            let workers = layers.count("job.groups").unwrap_or(list.len());
            if workers != list.len() {
                let found = format!("{} weights for {workers} workers (job.groups)", list.len());
                wrong(
                    found,
                    format!("{workers}, one per worker"),
                    "list one for each worker, in the order of their indices",
                );
            }
            return;
        }
    };
    wrong(
        format!("{} with {}", layers.shown("job.weights"), layers.shown("job.rule")),
        format!("none: {why}"),
        "remove job.weights",
    );
}

/// Signs go with signum, and signum with signs.
fn signs(layers: &Layers, rule: Rule, problems: &mut Vec<Problem>) {
    let mut wrong = |name: &str, expected: &str, action: String| {
        problems.push(Problem {
            place: layers.place_of(&[name, "job.rule"]),
            object: name.into(),
            found: format!("{} with {}", layers.shown(name), layers.shown("job.rule")),
            expected: expected.into(),
            action,
        });
    };
    if rule == Rule::CYCLIC && layers.choice::<Precision>("job.precision").is_some_and(|it| it != Precision::F32) {
        wrong(
            "job.precision",
            "\"f32\": its workers send complex numbers, rounded to nothing less",
            "remove job.precision".into(),
        );
    }
    let signs = |name| layers.choice::<Precision>(name) == Some(Precision::Sign);
    if rule == Rule::SIGNUM {
        if !signs("job.precision") {
            wrong("job.precision", "\"sign\": the rule counts signs", "remove job.precision".into());
        }
        if layers.real("job.scale").is_some_and(|scale| scale != 1.0) {
            wrong("job.scale", "1.0: an update is -1 or +1 in every coordinate", "scale it where it is applied".into());
        }
        return;
    }
    for name in ["job.precision", "push.precision"].into_iter().filter(|name| signs(name)) {
        let expected = "f32, bf16 or f16: only the rule signum can make something of signs";
        wrong(name, expected, format!("set {name} = \"f32\", or job.rule = \"signum\""));
    }
}
