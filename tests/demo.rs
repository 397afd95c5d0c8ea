//! `solon demo` as a user runs it: every attack, too many liars, dead workers, wrong options.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use solon::attacks::{Attack, LiePlace};

fn demo(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_solon"))
        .args(["demo", "--report", directory.join("report.html").to_str().unwrap()])
        .args(args)
        .output()
        .expect("solon runs")
}

/// The last line of `--json`: report and verdict.
fn outcome(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(line).expect("JSON")
}

fn numbers(value: &serde_json::Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|number| number.as_u64().expect("a number")).collect()
}

/// Every worker named in any step of the leg with Solon.
fn named(outcome: &serde_json::Value) -> Vec<u64> {
    let steps = outcome["report"]["legs"][2]["steps"].as_array().expect("steps");
    let all: std::collections::BTreeSet<u64> = steps.iter().flat_map(|step| numbers(&step["liars"])).collect();
    all.into_iter().collect()
}

#[test]
fn under_every_attack_the_run_with_solon_is_the_honest_run_and_exactly_the_liars_are_named() {
    let directory = tempfile::tempdir().unwrap();
    for attack in Attack::ALL.into_iter().filter(|attack| attack.place() != LiePlace::Time) {
        // With one dead worker per group beside the liars.
        let output = demo(directory.path(), &["--attack", attack.name(), "--kill", "--steps", "24", "--json"]);
        assert_eq!(output.status.code(), Some(0), "{attack}: {}", String::from_utf8_lossy(&output.stdout));
        let outcome = outcome(&output);
        let liars = numbers(&outcome["report"]["liars"]);
        assert_eq!(liars.len(), 4);
        match attack {
            // Half the tolerance cannot be told from rounding, and does no harm.
            Attack::Threshold => assert_eq!(named(&outcome), [0; 0]),
            _ => assert_eq!(named(&outcome), liars, "{attack}"),
        }
        let solon = &outcome["report"]["legs"][2];
        let difference = solon["weights_difference"].as_f64().unwrap();
        assert!(difference <= 1e-5, "{attack}: {difference}");
        assert_eq!(numbers(&solon["steps"][23]["absent"]).len(), 2, "the dead are absent: {attack}");
    }
}

#[test]
fn one_liar_too_many_stops_the_run_before_anything_wrong_is_applied() {
    let directory = tempfile::tempdir().unwrap();
    for attack in [Attack::Reverse, Attack::Gaussian, Attack::Nan] {
        let output = demo(directory.path(), &["--attack", attack.name(), "--liars", "3", "--steps", "5", "--json"]);
        assert_eq!(output.status.code(), Some(1));
        let outcome = outcome(&output);
        let solon = &outcome["report"]["legs"][2];
        assert!(solon["stopped"].as_str().unwrap().starts_with("undecodable at step 1"), "{attack}: {solon}");
        assert!(solon["steps"].as_array().unwrap().is_empty(), "no step was taken");
        let verdict = outcome["verdict"]["lines"].to_string();
        assert!(verdict.contains("nothing wrong was applied"), "{verdict}");
    }
}

#[test]
fn other_codes_work_too() {
    let directory = tempfile::tempdir().unwrap();
    let codes: [&[&str]; 3] = [
        &["--adversaries", "1", "--compression", "4", "--workers", "6"],
        &["--adversaries", "1", "--compression", "1", "--workers", "9"],
        &["--adversaries", "3", "--compression", "3", "--stragglers", "1", "--workers", "20"],
    ];
    for code in codes {
        let output = demo(directory.path(), &[code, &["--steps", "10", "--attack", "collude"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{code:?}: {text}");
        assert!(text.contains("Every liar was named") && text.contains("nobody honest"), "{text}");
    }
    let report = std::fs::read_to_string(directory.path().join("report.html")).unwrap();
    assert!(report.starts_with("<!DOCTYPE html>") && !report.contains("http://") && !report.contains("src="));
}

#[test]
fn wrong_options_say_what_would_work() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |args: &[&str]| {
        let output = demo(directory.path(), args);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = refused(&["--workers", "13"]);
    assert!(code == Some(2) && text.contains("take 12 or 18"), "{text}");
    let (code, text) = refused(&["--attack", "revrse"]);
    assert!(code == Some(2) && text.contains("reverse"), "{text}");
    let (code, text) = refused(&["--attack", "delayed"]);
    assert!(code == Some(2) && text.contains("waits for everybody") && text.contains("--kill"), "{text}");
    let (code, text) = refused(&["--liars", "6"]);
    assert!(code == Some(2) && text.contains("leave no honest worker"), "{text}");
    let (code, text) = refused(&["--data", "/nonexistent"]);
    assert!(code == Some(65) && text.contains("dataset-fashion-mnist"), "{text}");
}

#[test]
fn nothing_outlives_a_demonstration_that_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_solon"))
        .args(["demo", "--json", "--steps", "1000000", "--report"])
        .arg(directory.path().join("report.html"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().is_some(), "it is running");
    let pid = child.id();
    let children = || -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let parent = |process: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()
        };
        processes.filter(|process| parent(process) == Some(pid)).collect()
    };
    let started = children();
    assert_eq!(started.len(), 13, "a daemon and twelve workers");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(lines);
    let alive = |process: &u32| {
        std::fs::read_to_string(format!("/proc/{process}/status")).is_ok_and(|status| !status.contains("State:\tZ"))
    };
    for _ in 0..1000 {
        if !started.iter().any(alive) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("processes outlived the demonstration");
}

#[test]
fn a_run_that_is_kept_running_can_be_scraped() {
    let directory = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let report = directory.path().join("report.html");
    let mut child = Command::new(env!("CARGO_BIN_EXE_solon"))
        .args(["demo", "--steps", "3", "--keep-running", "--admin", &admin, "--report", report.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("solon runs");
    let errors = BufReader::new(child.stderr.take().unwrap());
    let said = errors.lines().map_while(Result::ok).any(|line| line.contains(&format!("http://{admin}/metrics")));
    assert!(said, "it ended without saying where its metrics are");
    let begun = Instant::now();
    let page = loop {
        let mut stream = TcpStream::connect(&admin).expect("solond answers");
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\n\r\n").unwrap();
        let mut page = String::new();
        let _ = stream.read_to_string(&mut page);
        if page.contains("solon_build_info{") {
            break page;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{page}");
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
}
