//! `solon bench` as it is run, with the smallest sizes: what it prints, and how it ends. Nothing is asserted about time.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use solon::bench::rounds::Report;
use solon::bench::{goals::Goals, sweep::Sweep, tiny};

const SMALL: [&str; 5] = ["--quick", "--dimension", "20k", "--chunk-width", "1000"];

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_solon")).arg("bench").args(arguments).output().expect("solon runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What `--json` printed.
fn json<T: serde::de::DeserializeOwned>(output: &Output) -> T {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", text(&output.stdout), text(&output.stderr)))
}

fn saved(path: &Path, arguments: &[&str]) -> Report {
    let output = bench(&[&SMALL[..], arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    std::fs::write(path, &output.stdout).unwrap();
    json(&output)
}

#[test]
fn a_round_has_all_its_figures_and_every_worker_the_same_update() {
    let directory = tempfile::tempdir().unwrap();
    // Liars, others in every chunk, beside a worker per group that never answers.
    let trouble = ["--workers", "12", "--stragglers", "1", "--adversaries", "2", "--compression", "1"];
    let trouble = [&trouble[..], &["--liars", "2", "--change", "chunk", "--absent", "1", "--linger", "0"]].concat();
    let report = saved(&directory.path().join("trouble.json"), &trouble);
    assert_eq!((report.setting.workers, report.setting.redundancy, report.rounds, report.repetitions), (12, 6, 3, 2));
    for timed in [&report.raw, &report.dropping, &report.solon] {
        assert!(timed.round_ms.median() > 0.0 && timed.gb_per_s.median() > 0.0);
    }
    let stages: Vec<&str> = report.stages.iter().map(|stage| &stage.stage[..]).collect();
    assert_eq!(stages, ["receive", "assemble", "decode", "push", "idle"]);
    if cfg!(target_os = "linux") {
        assert!(report.stages[..5].iter().all(|stage| stage.ms.median() > 0.0), "{:?}", report.stages);
        assert!(report.daemon_bytes > 1 << 20 && report.worker_bytes > 1 << 20);
        assert!(report.dropping.cpu_ms.median() > 0.0);
    }
}

#[test]
fn a_saved_report_is_compared_and_a_worse_ratio_ends_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("saved.json");
    let flags = ["--workers", "6", "--adversaries", "1", "--compression", "1"];
    saved(&path, &flags);
    let name = path.to_str().unwrap();
    let compared = |tolerance: &str, more: &[&str]| {
        let arguments = [&SMALL[..], &flags, more, &["--compare", name, "--tolerance", tolerance]].concat();
        bench(&arguments)
    };
    let output = compared("1e9", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("| time / the same round, data dropped | "), "{}", text(&output.stdout));
    // As if Solon had been a thousand times nearer to its floors.
    let mut before: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for ratio in ["over_raw", "over_dropping"] {
        before[ratio]["median"] = serde_json::json!(before[ratio]["least"].as_f64().unwrap() / 1000.0);
        before[ratio]["least"] = before[ratio]["median"].clone();
    }
    std::fs::write(&path, before.to_string()).unwrap();
    let output = compared("0.1", &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("Worse by more than 10.0 %"), "{}", text(&output.stdout));
    let output = compared("0.1", &["--linger", "0"]);
    assert_eq!(output.status.code(), Some(65));
    assert!(text(&output.stderr).contains("is of another job"), "{}", text(&output.stderr));
}

#[test]
fn tiny_rounds_growth_and_goals_are_measured() {
    let directory = tempfile::tempdir().unwrap();
    let report: tiny::Report = json(&bench(&["--tiny", "--quick", "--json"]));
    assert!((report.workers, report.dimension) == (15, 1024) && report.round_trips.median() > 0.0);
    let picture = directory.path().join("growth.svg");
    let arguments = ["--sweep", "s", "--workers", "5", "--svg", picture.to_str().unwrap(), "--json"];
    let sweep: Sweep = json(&bench(&[&SMALL[..], &arguments].concat()));
    assert_eq!(sweep.points.iter().map(|point| point.value).collect::<Vec<_>>(), [0, 1]);
    assert!(sweep.points.iter().all(|point| point.predicted_ms > 0.0 && point.solon_ms.median() > 0.0));
    assert!(std::fs::read_to_string(picture).unwrap().contains("Solon"));

    let rows = directory.path().join("kernels.json");
    let row = r#"[{"id": "G1", "what": "decode", "bound": {"at_least": 0.9}, "measured": 0.1, "unit": "x"}]"#;
    std::fs::write(&rows, row).unwrap();
    let others = directory.path().join("peers.json");
    std::fs::write(&others, row.replace("G1", "G7")).unwrap();
    let with = [&rows, &others].map(|path| ["--with", path.to_str().unwrap()]).concat();
    let output = bench(&[&["--goals", "--quick", "--json"][..], &with].concat());
    let goals: Goals = json(&output);
    let ids: Vec<&str> = goals.0.iter().map(|goal| &goal.id[..]).collect();
    assert_eq!(ids, ["G1", "G4", "G5", "G5", "G6", "G7", "G9", "G12"]);
    assert_eq!(output.status.code(), Some(1), "a goal that was handed in is not reached");
}

#[test]
fn what_cannot_be_measured_is_refused_with_what_to_do() {
    for (arguments, code, words) in [
        (&["--workers", "16"][..], 2, "take 15 or 20"),
        (&["--liars", "3"], 2, "the code corrects 2: lower --liars"),
        (&["--absent", "1"], 2, "take --linger 0"),
        (&["--linger", "soon"], 2, "expected \"all\" or milliseconds"),
        (&["--attack", "loud"], 2, "nan"),
        (&["--dimension", "0"], 2, "--dimension is 0, expected 1"),
        (&["--dimension", "4e9"], 71, "lower --dimension or --workers"),
        (&["--compare", "/no/such/file"], 65, "/no/such/file: cannot be read"),
        (&["--tiny", "--goals"], 2, "cannot be used with"),
        (&["--tiny", "--linger", "3"], 2, "cannot be used with"),
        (&["--sweep", "P", "--liars", "1"], 2, "cannot be used with"),
        (&["--goals", "--dimension", "5"], 2, "cannot be used with"),
    ] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}
