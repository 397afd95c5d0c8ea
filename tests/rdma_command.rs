//! `solon rdma devices` as it is run, wherever that is: with or without library, kernel module and devices.

use std::path::Path;
use std::process::{Command, Output};

fn devices(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_solon"));
    command.args(["rdma", "devices"]).args(arguments).output().expect("solon can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("solon prints UTF-8")
}

/// Does the kernel show a device?
fn machine_has_devices() -> bool {
    Path::new("/sys/class/infiniband").read_dir().is_ok_and(|mut entries| entries.next().is_some())
}

#[test]
fn without_a_device_it_says_what_to_do() {
    if machine_has_devices() {
        return;
    }
    let output = devices(&[]);
    let message = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(75), String::new()), "{message}");
    let missing_library = message.contains("install the package libibverbs1");
    let no_device = message.contains("rdma link add rxe0 type rxe netdev eth0");
    assert!(missing_library != no_device && message.starts_with("solon: "), "{message}");
}

#[test]
fn json_is_one_object_with_either_a_choice_or_a_problem() {
    let output = devices(&["--json", "--near", "127.0.0.1"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(report["ports"].is_array(), "{report}");
    assert_eq!(report["choice"].is_null(), report["problem"].is_string(), "{report}");
    assert_eq!(output.status.success(), report["choice"].is_object(), "{report}");
    if let Some(problem) = report["problem"].as_str() {
        assert!(text(&output.stderr).contains(problem), "{problem}");
    }
}

#[test]
fn what_cannot_be_read_is_wrong_usage() {
    for (arguments, part) in [
        (["--devices", "mlx5_0:x"], "the port \"x\" of mlx5_0"),
        (["--mtu", "1500"], "expected 256, 512, 1024, 2048 or 4096"),
        (["--gid-index", "256"], "256"),
        (["--near", "localhost"], "IP address"),
    ] {
        let output = devices(&arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(part), "{message}");
    }
}
