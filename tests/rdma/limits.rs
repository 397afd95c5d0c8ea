//! A system that does not give what RDMA needs: without a word nothing is slower, and nothing starts that cannot work.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use solon::daemon::exit::Exit;
use solon::transport::Transport;

use super::cluster::{Process, Solond, flags, join, options, solond, work};
use super::tools::{program, run};

/// A user who is nobody.
const NOBODY: u32 = 65534;

/// Runs a program as an ordinary user with 64 KiB of lockable memory, once it has its flags.
fn poor(program: &std::path::Path) -> Command {
    let mut command = Command::new(super::tools::program("sh"));
    command.args(["-c", "ulimit -l 64 && exec \"$0\" \"$@\""]).arg(program).uid(NOBODY).gid(NOBODY);
    command
}

fn start(command: Command, transport: &str) -> Solond {
    Solond::spawn(command, "10.0.0.2:0", &flags(transport, &[]))
}

#[test]
#[ignore = "runs in the guest"]
fn with_too_little_lockable_memory_the_daemon_says_so_and_serves_by_tcp_if_it_may() {
    let mut solond = start(poor(&program("solond")), "auto");
    let why = solond.wait_for("no RDMA: workers come by TCP");
    assert!(why.contains("RLIMIT_MEMLOCK is 64 KiB"), "{why}");
    solond.wait_until_ready();
    println!("{why}");
    let mut worker = solon::client::Worker::join(&options(&solond, 0, Transport::Auto)).unwrap();
    assert!(!worker.way().rdma);
    assert!(worker.way().reason.contains("RLIMIT_MEMLOCK"), "{:?}", worker.way());
    println!("its worker: {}", worker.way().reason);

    let (code, log) = start(poor(&program("solond")), "rdma").end();
    assert_eq!(code, Some(i32::from(Exit::Resources.code())), "{log}");
    assert!(log.contains("listen.transport is \\\"rdma\\\"") && log.contains("RLIMIT_MEMLOCK is 64 KiB"), "{log}");
    println!("with transport=rdma, exit {code:?}: {}", log.lines().last().unwrap_or_default());
}

#[test]
#[ignore = "runs in the guest"]
fn with_too_little_lockable_memory_a_worker_says_so_and_comes_by_tcp_if_it_may() {
    // So that its places for updates alone are more than that.
    let flags = flags("auto", &[]).into_iter().map(|flag| if flag == "5003" { "50000" } else { flag });
    let flags: Vec<&str> = flags.collect();
    let mut solond = Solond::spawn(Command::new(program("solond")), "10.0.0.2:0", &flags);
    solond.wait_until_ready();
    let this = std::env::current_exe().unwrap();
    let mut process = Process::of(poor(&this), &work(&solond, 0, Transport::Auto));
    let joined = process.wait_for("joined");
    assert!(joined.contains(" tcp ") && joined.contains("RLIMIT_MEMLOCK is 64 KiB"), "{joined}");
    println!("{joined}");
    println!("{}", solond.wait_for("comes by TCP"));
    let mut process = Process::of(poor(&this), &work(&solond, 1, Transport::Rdma));
    let refused = process.wait_for("cannot join");
    assert!(refused.contains("by RDMA") && refused.contains("RLIMIT_MEMLOCK is 64 KiB"), "{refused}");
    println!("{refused}");
}

/// What `solon rdma devices` says and ends with.
fn devices(user: u32, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        Command::new(program("solon")).args(["rdma", "devices"]).args(arguments).uid(user).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// The permissions of the device's node, put back when dropped.
struct Locked(&'static str);

impl Locked {
    fn new(file: &'static str) -> Locked {
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
        Locked(file)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        std::fs::set_permissions(self.0, PermissionsExt::from_mode(0o666)).unwrap();
    }
}

#[test]
#[ignore = "runs in the guest"]
fn without_permission_for_the_device_the_daemon_names_it() {
    let _locked = Locked::new("/dev/infiniband/uverbs1");
    let nobody = || {
        let mut command = Command::new(program("solond"));
        command.uid(NOBODY).gid(NOBODY);
        command
    };
    let mut solond = start(nobody(), "auto");
    let why = solond.wait_for("no RDMA: workers come by TCP");
    assert!(
        why.contains("Permission denied") && why.contains("rxe1") && why.contains("/dev/infiniband/uverbs"),
        "{why}"
    );
    solond.wait_until_ready();
    println!("{why}");
    join(&solond, 0, Transport::Tcp);
    let (code, log) = start(nobody(), "rdma").end();
    assert_eq!(code, Some(i32::from(Exit::Temporary.code())), "{log}");

    let (code, text) = devices(NOBODY, &["--devices", "rxe1"]);
    assert_eq!(code, Some(i32::from(Exit::Permission.code())), "{text}");
    assert!(text.contains("rxe1") && text.contains("/dev/infiniband/uverbs"), "{text}");
    println!("solon rdma devices, exit {code:?}: {}", text.lines().last().unwrap_or_default());
    assert_eq!(devices(NOBODY, &[]).0, Some(0), "the other device may be used");
    assert_eq!(devices(0, &["--devices", "mlx5_0"]).0, Some(i32::from(Exit::Configuration.code())));
}

/// Software devices that were taken away, put back when dropped.
struct Removed;

impl Removed {
    fn new() -> Removed {
        for device in ["rxe0", "rxe1"] {
            run("rdma", &["link", "del", device]);
        }
        Removed
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        for (device, below) in [("rxe0", "veth0"), ("rxe1", "veth1")] {
            run("rdma", &["link", "add", device, "type", "rxe", "netdev", below]);
        }
    }
}

#[test]
#[ignore = "runs in the guest"]
fn without_a_device_everything_goes_by_tcp_and_says_why() {
    let removed = Removed::new();
    let mut daemon = start(Command::new(program("solond")), "auto");
    let why = daemon.wait_for("no RDMA: workers come by TCP");
    assert!(why.contains("there is no RDMA device on this machine"), "{why}");
    println!("{why}");
    daemon.wait_until_ready();
    let mut worker = solon::client::Worker::join(&options(&daemon, 0, Transport::Auto)).unwrap();
    assert!(!worker.way().rdma && worker.way().reason.contains("there is no RDMA device"), "{:?}", worker.way());
    let (code, text) = devices(0, &[]);
    assert_eq!(code, Some(i32::from(Exit::Temporary.code())), "{text}");
    println!("solon rdma devices, exit {code:?}: {}", text.lines().last().unwrap_or_default());
    let (code, log) = start(Command::new(program("solond")), "rdma").end();
    assert_eq!(code, Some(i32::from(Exit::Temporary.code())), "{log}");
    drop((daemon, worker, removed));
    // As it was: what comes after this test needs them.
    let solond = solond("rdma", &[]);
    join(&solond, 0, Transport::Rdma);
    assert_eq!(devices(0, &[]).0, Some(0));
}
