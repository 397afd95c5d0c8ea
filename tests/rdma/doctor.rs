//! `solon doctor` where there is RDMA, whole and with what goes wrong at first; and between two devices.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::failures::LinkDown;
use super::tools::{program, run};

/// The report of a command that runs `solon doctor --json`, and whether it ended with 0.
fn report(mut command: Command) -> (bool, Vec<Value>) {
    let output = command.output().expect("it starts");
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(report["version"], 1);
    (output.status.success(), report["findings"].as_array().expect("findings").clone())
}

fn doctor(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("solon"));
    command.args(["doctor", "--json"]).args(arguments);
    command
}

/// Status and words of one check.
fn finding(findings: &[Value], check: &str) -> (String, String) {
    let finding = findings.iter().find(|finding| finding["check"] == check).expect("a check of that name");
    let word = |name: &str| finding[name].as_str().expect("text").to_owned();
    (word("status"), format!("{}\n{}", word("found"), word("hint")))
}

fn says(findings: &[Value], check: &str, status: &str, parts: &[&str]) {
    let (found, text) = finding(findings, check);
    assert_eq!(found, status, "{check}: {text}");
    for part in parts {
        assert!(text.contains(part), "{check} should say {part:?}: {text}");
    }
    println!("{check}: {found}: {text}");
}

/// That of the daemon at 10.0.0.2, by RDMA only.
const JOB: &[&str] =
    &["--", "--job-dimension=1000000", "--listen-address=10.0.0.2:7447", "--listen-open", "--listen-transport=rdma"];

#[test]
#[ignore = "runs in the guest"]
fn every_check_of_rdma_passes_where_it_works() {
    let (fine, findings) = report(doctor(JOB));
    let rdma = findings.iter().filter(|finding| finding["group"] == "rdma");
    let wrong: Vec<&Value> =
        rdma.filter(|finding| finding["status"] != "pass" && finding["check"] != "traffic class").collect();
    assert!(fine && wrong.is_empty(), "{wrong:#?}");
    says(&findings, "chosen port", "pass", &["rxe1:1", "10.0.0.2"]);
    says(&findings, "queue pair", "pass", &["64 KiB to itself and back"]);
    println!("{}", run("solon", &["doctor"]));
}

#[test]
#[ignore = "runs in the guest"]
fn too_little_lockable_memory_is_named() {
    let mut command = Command::new(program("sh"));
    command
        .args(["-c", "ulimit -l 64 && exec \"$0\" \"$@\""])
        .arg(program("solon"))
        .args(["doctor", "--json"])
        .args(JOB);
    command.uid(65534).gid(65534);
    let (fine, findings) = report(command);
    assert!(!fine);
    says(&findings, "locked memory", "fail", &["RLIMIT_MEMLOCK is 64 KiB", "user 65534", "LimitMEMLOCK=infinity"]);
    says(&findings, "queue pair", "fail", &["ibv_reg_mr", "RLIMIT_MEMLOCK is 64 KiB"]);
}

#[test]
#[ignore = "runs in the guest"]
fn a_node_that_may_not_be_opened_or_is_not_there_is_named() {
    let node = "/dev/infiniband/uverbs1";
    let mode = |bits| std::fs::set_permissions(node, PermissionsExt::from_mode(bits)).unwrap();
    mode(0o600);
    let mut command = doctor(JOB);
    command.uid(65534).gid(65534);
    let (_, findings) = report(command);
    mode(0o666);
    says(&findings, "device nodes", "fail", &["/dev/infiniband/uverbs1: permission denied", "udev"]);
    // As in a container that was not given the device.
    std::fs::rename(node, "/dev/infiniband/away").unwrap();
    let (_, findings) = report(doctor(JOB));
    std::fs::rename("/dev/infiniband/away", node).unwrap();
    says(&findings, "device nodes", "fail", &["rxe1 is in /sys, and its node", "--device /dev/infiniband"]);
}

#[test]
#[ignore = "runs in the guest"]
fn a_port_without_a_link_is_named() {
    let down = LinkDown::cut();
    let (fine, findings) = report(doctor(JOB));
    down.mend();
    assert!(!fine);
    says(&findings, "port state", "fail", &["rxe0:1 down", "rxe1:1 down", "ip link set"]);
}

#[test]
#[ignore = "runs in the guest"]
fn an_address_that_is_only_link_local_is_named() {
    run("ip", &["addr", "del", "10.0.0.2/24", "dev", "veth1"]);
    let (fine, findings) =
        report(doctor(&["--", "--job-dimension=1000000", "--rdma-devices=rxe1", "--listen-transport=rdma"]));
    run("ip", &["addr", "add", "10.0.0.2/24", "dev", "veth1"]);
    run("ip", &["route", "replace", "10.0.0.1", "dev", "veth1", "src", "10.0.0.2", "table", "101"]);
    assert!(!fine);
    says(&findings, "addresses", "fail", &["link-local", "give the interface below the port an IP address"]);
}

/// `solon doctor --listen` at 10.0.0.2, until it is dropped.
struct Serves(Child, String);

impl Serves {
    fn start() -> Serves {
        let mut command = Command::new(program("solon"));
        command.args(["doctor", "--listen", "10.0.0.2:0"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split("HOST:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port").to_owned();
        Serves(child, format!("10.0.0.2:{port}"))
    }
}

impl Drop for Serves {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// From rxe0, whose address is 10.0.0.1.
const WORKER: &[&str] = &["--", "--job-dimension=1000", "--rdma-devices=rxe0"];

#[test]
#[ignore = "runs in the guest"]
fn two_devices_reach_each_other_by_tcp_and_by_rdma_with_what_they_carry() {
    let serves = Serves::start();
    let (fine, findings) = report(doctor(&[&["--peer", &serves.1][..], WORKER].concat()));
    says(&findings, "TCP", "pass", &["10.0.0.2", "round trip"]);
    says(&findings, "RDMA", "pass", &["rxe0:1 10.0.0.1 reaches GID 10.0.0.2", "SEND there", "WRITE back"]);
    assert!(fine);
}

#[test]
#[ignore = "runs in the guest"]
fn an_address_that_leads_elsewhere_is_named_between_two_machines() {
    let serves = Serves::start();
    // Link-local to routable: not the same network.
    let wrong = [&["--peer", &serves.1][..], WORKER, &["--rdma-gid-index=0", "--rdma-retries=1"]].concat();
    let (fine, findings) = report(doctor(&wrong));
    assert!(!fine);
    let (status, text) = finding(&findings, "RDMA");
    assert_eq!(status, "fail", "{text}");
    assert!(text.contains("RTR") || text.contains("status 12"), "{text}");
    println!("{text}");
}

/// A rule that drops what comes to the port of RoCE v2, as a firewall does; gone when dropped.
struct Firewall;

impl Firewall {
    const RULE: [&str; 7] = ["pref", "1", "ipproto", "17", "dport", "4791", "blackhole"];

    fn new() -> Firewall {
        run("ip", &[&["rule", "add"], &Firewall::RULE[..]].concat());
        Firewall
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        run("ip", &[&["rule", "del"], &Firewall::RULE[..]].concat());
    }
}

#[test]
#[ignore = "runs in the guest"]
fn a_firewall_on_the_port_of_roce_is_named_between_two_machines() {
    let serves = Serves::start();
    let firewall = Firewall::new();
    let (fine, findings) = report(doctor(&[&["--peer", &serves.1][..], WORKER].concat()));
    drop(firewall);
    assert!(!fine);
    says(&findings, "TCP", "pass", &["10.0.0.2"]);
    says(&findings, "RDMA", "fail", &["status 12", "UDP port 4791"]);
}
