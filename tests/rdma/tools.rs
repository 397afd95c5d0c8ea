//! What tests in the guest need.

use std::path::PathBuf;
use std::process::{Command, Output};

/// The two RDMA devices: packets between them really cross a pair of Ethernet devices.
pub const DEVICES: [Device; 2] =
    [Device { name: "rxe0", address: "10.0.0.1" }, Device { name: "rxe1", address: "10.0.0.2" }];

/// The entry of the guest's GID tables that is RoCE v2 over IPv4; entry 0 is link-local IPv6.
pub const GID_INDEX: &str = "1";

/// An RDMA device of the guest, and the IPv4 address of the Ethernet device below it.
pub struct Device {
    pub name: &'static str,
    pub address: &'static str,
}

/// The path of a program in the guest: `solon`, `solond`, or one of rdma-core's.
///
/// # Panics
///
/// If it is not in PATH.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").expect("PATH");
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not in PATH: does tests/rdma/main.rs give it to the guest?"))
}

/// What a program prints to stdout.
///
/// # Panics
///
/// If it fails, with all that it printed.
pub fn run(name: &str, args: &[&str]) -> String {
    printed(name, Command::new(program(name)).args(args).output().expect("it starts"))
}

/// As [`run`], of a program that has ended.
pub fn printed(name: &str, output: Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{stdout}\n{stderr}", output.status);
    stdout
}
