use super::*;
use crate::lab::record::MomentumAt;

const TOP: &str = r#"
title = "Rules"
figures = ["accuracy-table"]
data = "digits"
hidden = 8
batch = 60
rate = 0.1
steps = 4
judge = 2
seeds = [1, 2]
workers = 6
"#;

fn parse(rest: &str) -> Result<Experiment, String> {
    Experiment::parse("made-up", &format!("{TOP}{rest}")).map_err(|error| error.to_string())
}

#[test]
fn lists_are_multiplied_out_and_honest_means_come_first() {
    let made = parse(
        "[rule.signum]\nrate = 0.01\nmomentum-at = \"worker\"\n\
         [[runs]]\nrules = [\"signum\", \"mean\"]\nadversaries = 1\nattacks = [\"reverse\", \"none\"]\n\
         [[runs]]\nrules = [\"solon\"]\nadversaries = 1\ncompression = [1, 4]\nlinks = [\"1 Gb/s\"]\n",
    )
    .unwrap();
    assert_eq!(made.variants.len(), 6);
    assert_eq!(made.about.runs.len(), 12);
    assert!(is_honest_mean(&made.variants[0].1));
    let signum = &made.variants.iter().find(|(_, it)| it.rule == "signum").unwrap().1;
    assert_eq!((signum.rate, signum.momentum_at), (0.01, MomentumAt::Worker));
    assert_eq!((signum.groups, signum.redundancy), (6, 1));
    let solon = &made.variants.last().unwrap().1;
    assert_eq!((solon.groups, solon.redundancy, solon.link), (1, 6, Some(125e6)));
    assert_eq!(solon.momentum_at, MomentumAt::Server);
}

#[test]
fn unknown_keys_and_values_are_refused_with_the_line_and_what_is_expected() {
    for (rest, line, expected) in [
        ("[[runs]]\nrules = [\"mean\"]\nlier = 1\n", "line 14", "liars"),
        ("[[runs]]\nrules = [\"meen\"]\n", "line 12", "expected one of solon, draco, cyclic, mean"),
        ("[[runs]]\nrules = [\"mean\"]\nattacks = [\"revers\"]\n", "line 12", "reverse, constant"),
        ("[[runs]]\nrules = [\"mean\"]\nlinks = [\"1 G\"]\n", "line 14", "such as 100Gb/s"),
        ("[[runs]]\nrules = [\"mean\"]\nwho = \"all\"\n", "line 14", "switching"),
    ] {
        let text = parse(rest).unwrap_err();
        assert!(text.contains(line) && text.contains(expected), "{text}");
    }
}

#[test]
fn combinations_that_cannot_be_are_refused_with_what_would() {
    for (runs, expected) in [
        ("rules = [\"solon\"]\nadversaries = 2\n", "expected a multiple of 5"),
        ("rules = [\"mean\"]\ncompression = [2]\n", "compression is for"),
        ("rules = [\"mean\"]\nstragglers = 1\n", "stragglers are for"),
        ("rules = [\"mean\"]\nattacks = [\"zero\"]\n", "expected 1 to 5"),
        ("rules = [\"solon\"]\nadversaries = 1\nliars = 3\nattacks = [\"zero\"]\n", "expected 1 to 2"),
        ("rules = [\"mean\"]\nworkers = 7\n", "expected a multiple of 7"),
        ("rules = [\"mean\"]\nworkers = 65\n", "expected 1 to 64"),
        ("rules = [\"mean\", \"mean\"]\n", "is run twice"),
        ("rules = [\"bulyan\"]\nadversaries = 1\n", "P >= 4 f + 3"),
        ("rules = [\"cyclic\"]\nadversaries = 3\n", "needs at least 7 workers (P >= 2 f + 1)"),
        ("rules = [\"mean\"]\nwho = \"whole-group\"\n", "where there are groups"),
        ("rules = []\n", "expected some of"),
    ] {
        let text = parse(&format!("[[runs]]\n{runs}")).unwrap_err();
        assert!(text.contains(expected) && text.contains("line 12"), "{text}");
    }
}

#[test]
fn times_that_hide_what_a_code_computes_are_refused_as_figures() {
    let parse = |figures: &str, runs: &str| {
        let top = TOP.replace("[\"accuracy-table\"]", figures);
        Experiment::parse("made-up", &format!("{top}[[runs]]\n{runs}")).map_err(|error| error.to_string())
    };
    let solon = "rules = [\"solon\"]\nadversaries = 1\n";
    for figure in ["speed-up", "step-time", "accuracy-by-time", "crossover"] {
        let figures = format!("[\"accuracy-table\", \"{figure}\"]");
        let text = parse(&figures, solon).unwrap_err();
        assert!(
            text.starts_with(&format!("made-up, line 12: solon: figures {figure} without gradient-times")),
            "{text}"
        );
        assert!(text.contains("3-fold") && text.contains("expected gradient-times"), "{text}");
        parse(&figures, &format!("{solon}gradient-times = [\"2 ms\"]\n")).unwrap();
        parse(&figures, "rules = [\"mean\"]\n").unwrap();
        let text = parse(&figures, "rules = [\"cyclic\"]\nadversaries = 2\n").unwrap_err();
        assert!(text.contains("5-fold"), "{text}");
    }
    parse("[\"accuracy-table\", \"accuracy-by-steps\"]", solon).unwrap();
}

#[test]
fn impossible_values_at_the_top_are_refused_with_their_line() {
    let bad = TOP.replace("judge = 2", "judge = 0") + "[[runs]]\nrules = [\"mean\"]\n";
    let text = Experiment::parse("made-up", &bad).unwrap_err().to_string();
    assert_eq!(text, "made-up, line 9: judge = 0: expected at least 1");
}

#[test]
fn experiments_that_are_part_of_the_program_make_sense() {
    for (name, text) in BUILT_IN {
        let in_small = format!("{SMALL}{name}");
        assert!(name.starts_with(SMALL) || BUILT_IN.iter().any(|(other, _)| *other == in_small), "{name}");
        let made = Experiment::parse(name, text).unwrap_or_else(|error| panic!("{error}"));
        assert!(made.variants.iter().any(|(_, it)| is_honest_mean(it)), "{name} has nothing to compare with");
    }
}
