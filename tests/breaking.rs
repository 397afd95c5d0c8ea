//! Which attacks break which rule: a small training in this process, on the digits that are compiled in. Each worker computes a gradient of
//! its own; liars know all honest ones. Small batches make the gradients differ, and that is what lies hide in.
//!
//! ```sh
//! cargo test --release --test breaking table -- --ignored --nocapture
//! SOLON_BREAK=none,alie=1,fang=1 ...                       # of these attacks, and at these strengths
//! SOLON_DATA=DIRECTORY ...                                # on images in IDX files instead of the digits
//! SOLON_BREAK_SETTING=45,5,4,0.05,0.0005,1000 ...          # P, f, samples per worker, rate, signum's rate, steps
//! ```

use solon::attacks::{Attack, Knowledge, Liar, Liars, Means, Who};
use solon::code::Layout;
use solon::demo::{Model, Sampler, Shape, Split};
use solon::rules::{Round, Rule};

/// A training; everything else is as in the demonstration.
#[derive(Clone, Copy, Debug)]
struct Setting {
    workers: usize,
    liars: usize,
    /// Samples per worker and step.
    batch: usize,
    rate: f32,
    /// The rate for updates of signs, which are as large everywhere.
    sign_rate: f32,
    steps: u64,
}

/// At which all rules learn if nobody lies, and P >= 4 f + 3.
const USUAL: Setting = Setting { workers: 15, liars: 3, batch: 4, rate: 0.05, sign_rate: 0.0005, steps: 1000 };

/// An attack, and its strength if not the usual.
type Lie = (Attack, Option<f32>);

/// Part of the test digits that are right after the training.
fn accuracy(data: &Split, setting: &Setting, rule: Rule, lie: Option<Lie>, seed: u64) -> f64 {
    let &Setting { workers, liars, batch, rate, sign_rate, steps } = setting;
    let shape = Shape::of(&data.train, 64);
    let dimension = shape.dimension();
    let mut model = Model::new(shape, 0.9, seed);
    let mut sampler = Sampler::new(data.train.len(), batch * workers, seed).unwrap();
    let lying = Liars::new(Who::Fixed, workers, 1, liars, seed).unwrap().of(0);
    let means = |worker, strength| Means { seed, worker, workers, liars, redundancy: 1, tolerance: 0.0, strength };
    let layout = Layout::new(dimension, 1, dimension);
    let make =
        |(attack, strength)| lying.iter().map(|&worker| Liar::new(attack, &layout, means(worker, strength))).collect();
    let mut tellers: Vec<Liar> = lie.map(make).unwrap_or_default();
    let (mut rows, mut update) = (vec![vec![0f32; dimension]; workers], vec![0f32; dimension]);
    for step in 0..steps {
        for (worker, row) in rows.iter_mut().enumerate() {
            model.gradient_sum(&data.train, sampler.part(step, worker, workers), row);
            row.iter_mut().for_each(|value| *value /= batch as f32);
        }
        let mut lies: Vec<Vec<f32>> = lying.iter().map(|&worker| rows[worker].clone()).collect();
        let others = rows.iter().enumerate().filter(|(worker, _)| !lying.contains(worker));
        let honest: Vec<&[f32]> = others.map(|(_, row)| &row[..]).collect();
        for (teller, lie) in tellers.iter_mut().zip(&mut lies) {
            teller.gradient(Knowledge::All(&honest), lie);
            teller.shard(step, 0, lie);
        }
        lying.iter().zip(lies).for_each(|(&worker, lie)| rows[worker] = lie);
        let sent: Vec<&[f32]> = rows.iter().map(|row| &row[..]).collect();
        Round::whole(rule, liars, &sent, &mut update).unwrap();
        model.apply(&update, if rule == Rule::Signum { sign_rate } else { rate });
    }
    model.score(&data.test).accuracy
}

#[test]
fn each_rule_that_guesses_learns_without_liars_and_is_broken_by_some_lie_within_its_bound() {
    for (rule, attack, strength) in [
        (Rule::Median, Attack::MinMax, None),
        (Rule::Krum, Attack::Alie, Some(1.0)),
        (Rule::Bulyan, Attack::MinMax, None),
        (Rule::Signum, Attack::Alie, Some(1.0)),
    ] {
        rule.check(USUAL.workers, USUAL.liars).unwrap();
        let [honest, attacked] =
            [None, Some((attack, strength))].map(|lie| accuracy(&Split::digits(), &USUAL, rule, lie, 1));
        println!("{rule} {attack}: {honest:.3} {attacked:.3}");
        assert!(honest > 0.85, "{rule} without liars: {honest}");
        assert!(attacked < honest - 0.25, "{rule} under {attack}: {attacked}, and {honest} without liars");
    }
}

#[test]
#[ignore = "prints a table, for minutes"]
fn the_table_of_rules_and_attacks() {
    let list = std::env::var("SOLON_BREAK").unwrap_or("none,alie=1,ipm,min-max,fang".into());
    let data = std::env::var_os("SOLON_DATA").map_or_else(Split::digits, |path| Split::read(path.as_ref()).unwrap());
    let mut setting = USUAL;
    if let Ok(text) = std::env::var("SOLON_BREAK_SETTING") {
        let numbers: Vec<f64> = text.split(',').map(|number| number.parse().expect("a number")).collect();
        let [workers, liars, batch, rate, sign_rate, steps] = numbers[..] else { panic!("six numbers") };
        setting = Setting {
            workers: workers as usize,
            liars: liars as usize,
            batch: batch as usize,
            rate: rate as f32,
            sign_rate: sign_rate as f32,
            steps: steps as u64,
        };
    }
    println!("{setting:?}\n| attack | {} |", Rule::ALL.map(Rule::name).join(" | "));
    for text in list.split(',') {
        let (name, strength) = match text.split_once('=') {
            Some((name, strength)) => (name, Some(strength.parse().expect("a number"))),
            None => (text, None),
        };
        let lie = (name != "none").then(|| (name.parse().expect("an attack"), strength));
        let cells = Rule::ALL.map(|rule| {
            let of = |seed| accuracy(&data, &setting, rule, lie, seed);
            format!("{:.1}", 100.0 * (of(1) + of(2)) / 2.0)
        });
        println!("| {text} | {} |", cells.join(" | "));
    }
}
