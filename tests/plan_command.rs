//! `solon plan` as it is run: what it prints where, and how it ends.

use std::process::{Command, Output};

fn solon(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_solon")).args(arguments).output().expect("solon can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("solon prints UTF-8")
}

const FIFTEEN: [&str; 7] = ["plan", "--workers", "15", "--compression", "1", "--dimension", "11M"];

#[test]
fn a_plan_is_printed() {
    let output = solon(&FIFTEEN);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    assert!(text(&output.stdout).starts_with("15 workers in 3 groups of 5"), "{}", text(&output.stdout));
}

#[test]
fn json_is_one_object() {
    let output = solon(&[&FIFTEEN[..], &["--json", "--link", "100Gb/s", "--gradient-time", "50ms"]].concat());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["choices"][0]["traffic"]["chunks"], 672);
}

#[test]
fn impossible_parameters_are_a_wrong_configuration() {
    let output = solon(&["plan", "--workers", "17", "--dimension", "1000"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(78), String::new()));
    assert!(text(&output.stderr).contains("nearest numbers of workers"), "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_read_is_wrong_usage() {
    for arguments in [
        &["plan", "--dimension", "1000"][..],
        &["plan", "--workers", "6", "--groups", "1", "--dimension", "1000"],
        &[&FIFTEEN[..], &["--link", "10G"]].concat(),
        &["no-such-command"],
        &[],
    ] {
        let output = solon(arguments);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()), "{arguments:?}");
    }
    assert!(text(&solon(&[&FIFTEEN[..], &["--link", "10G"]].concat()).stderr).contains("such as 100Gb/s"));
}
