//! Compilers, and what they are given.
#![allow(dead_code, reason = "each test uses its part")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The library of this build: this crate's tests are linked with it, so it was built before them, beside them.
pub fn library(name: &str) -> PathBuf {
    let path = libraries().join(name);
    assert!(path.exists(), "{} is not there", path.display());
    path
}

/// Where the libraries of this build are.
pub fn libraries() -> PathBuf {
    // Links this test with the library, so that it is built.
    let _ = solon_c::solon_version();
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

pub fn cc() -> OsString {
    std::env::var_os("CC").unwrap_or_else(|| "cc".into())
}

pub fn cxx() -> OsString {
    std::env::var_os("CXX").unwrap_or_else(|| "c++".into())
}

/// Is there such a program? Where there is none the test is left out, but not in `.ci/run`, which sets SOLON_REQUIRE_TOOLS.
pub fn have(program: &OsString, what: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    required(found.is_ok_and(|status| status.success()), what)
}

pub fn required(found: bool, what: &str) -> bool {
    assert!(found || std::env::var_os("SOLON_REQUIRE_TOOLS").is_none(), "this test needs {what}");
    if !found {
        eprintln!("left out: it needs {what}");
    }
    found
}

/// Compiles a program in `language` and runs it; what the compiler said if it does not take it.
pub fn compile(language: &str, source: &str, flags: &[&str]) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("program"), directory.path().join("program.out"));
    std::fs::write(&from, source).unwrap();
    let compiler = if language == "c" { cc() } else { cxx() };
    let mut command = Command::new(compiler);
    command.args(["-x", language]).arg(&from).args(flags).arg("-I").arg(include()).arg("-o").arg(&to);
    let output = command.output().expect("a compiler runs");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    assert!(Command::new(&to).status().unwrap().success());
    Ok(())
}

pub fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

/// What is linked behind the static library, beside what every program has.
pub const STATIC_NEEDS: [&str; 5] = ["-lgcc_s", "-lpthread", "-lm", "-ldl", "-lc"];

/// How a program gets the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Shared,
    Static,
    /// Static, the C part with AddressSanitizer.
    Sanitized,
}

/// Compiles a C program of this crate against the library of this build.
pub fn build(source: &str, link: Link, to: &Path) -> Result<(), String> {
    let mut command = Command::new(cc());
    command.args(["-std=c99", "-g", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    if link == Link::Sanitized {
        command.args(["-fsanitize=address", "-fno-omit-frame-pointer"]);
    }
    command.arg("-I").arg(include()).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(source)).arg("-o").arg(to);
    match link {
        // Found by its path when it runs: it has not the name yet that it is installed by.
        Link::Shared => {
            let directory = to.parent().unwrap();
            let link = directory.join("libsolon.so.0");
            if !link.exists() {
                std::os::unix::fs::symlink(library("libsolon_c.so"), &link).unwrap();
            }
            command.arg(&link).arg(format!("-Wl,-rpath,{}", directory.display()))
        }
        Link::Static | Link::Sanitized => command.arg(library("libsolon_c.a")).args(STATIC_NEEDS),
    };
    said(command.output().expect("a compiler runs"))
}

pub fn said(output: Output) -> Result<(), String> {
    let text = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat();
    if output.status.success() { Ok(()) } else { Err(text) }
}

/// The daemon that `cargo test` has built beside this test, or else builds now.
pub fn solond() -> PathBuf {
    let path = libraries().parent().unwrap().join("solond");
    if !path.exists() {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--locked", "--package", "solon", "--bin", "solond", "--target-dir"]);
        let built =
            command.arg(path.parent().unwrap().parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        said(built.expect("cargo runs")).unwrap();
    }
    path
}
