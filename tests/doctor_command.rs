//! `solon doctor` as it is run: what it prints, and how it ends.

use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;
use solon::doctor::CHECKS;

fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_solon"));
    // Nothing of this test's own environment is a configuration.
    command.env_clear().arg("doctor").args(arguments).output().expect("solon can be started")
}

fn findings(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["version"], 1);
    report["findings"].as_array().expect("findings").clone()
}

fn status<'a>(findings: &'a [Value], check: &str) -> &'a str {
    let finding = findings.iter().find(|finding| finding["check"] == check).expect("a check of that name");
    finding["status"].as_str().expect("text")
}

#[test]
fn without_a_configuration_it_looks_at_everything_and_nothing_is_a_failure() {
    let output = doctor(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let findings = findings(&output);
    let names: Vec<&str> = findings.iter().filter_map(|finding| finding["check"].as_str()).collect();
    assert_eq!(names, CHECKS.iter().map(|check| check.name).collect::<Vec<_>>());
    let text = String::from_utf8(doctor(&[]).stdout).expect("UTF-8");
    assert!(text.contains("no job is given") && text.contains(&format!("{} checks: ", CHECKS.len())), "{text}");
}

#[test]
fn a_port_that_is_taken_fails_the_job_that_wants_it() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("--listen-address={}", other.local_addr().expect("an address"));
    let output = doctor(&["--json", "--", "--job-dimension=1000", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(status(&findings(&output), "port"), "fail");
    assert!(String::from_utf8_lossy(&output.stderr).contains("failed: port"));
}

#[test]
fn a_wrong_configuration_has_the_exit_code_that_solond_has_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("solond.toml");
    std::fs::write(&file, "[job]\ndimension = 1000\n[rounds]\nwindow = 99\n[memory]\ncredits = 0\n").expect("written");
    let output = doctor(&["--json", "--config", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(78));
    let findings = findings(&output);
    assert_eq!(status(&findings, "configuration"), "fail");
    let text = findings[0]["found"].as_str().expect("text");
    assert!(text.contains("rounds.window") && text.contains("memory.credits"), "{text}");
}

#[test]
fn a_peer_that_cannot_be_reached_is_a_failure_with_what_to_do() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
    let output = doctor(&["--json", "--peer", &closed.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let findings = findings(&output);
    assert_eq!((status(&findings, "TCP"), status(&findings, "RDMA")), ("fail", "skip"));
    assert!(findings[CHECKS.len()]["found"].as_str().expect("text").contains("solon doctor --listen"));
}
