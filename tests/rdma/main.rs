//! RDMA on any machine: in a throw-away Linux guest with software RDMA, made by the script `tests/rdma/guest`.
//!
//! Tests that need RDMA are functions of modules in [`guest`], marked `#[ignore = "runs in the guest"]`. One test of the host
//! copies this executable, `solon` and `solond` into a guest and runs all of them there. The guest is emulated (no AVX, a
//! hundredth of the speed): what runs in it shows behaviour, never speed.
//!
//! By hand: `tests/rdma/guest -f EXECUTABLE -- EXECUTABLE'S_NAME guest:: --ignored --nocapture`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn, FileHeader};

// Beside this file `guest` is the script, so the modules cannot be in a folder of that name.
#[path = "."]
mod guest {
    mod cluster;
    mod demo;
    mod doctor;
    mod failures;
    mod hostile;
    mod limits;
    mod relay;
    mod rules;
    mod sessions;
    mod smoke;
    mod tools;
}

#[path = "../common/mod.rs"]
mod common;
mod work;

const SOLON: &str = env!("CARGO_BIN_EXE_solon");
const SOLOND: &str = env!("CARGO_BIN_EXE_solond");

/// Runs the script, and gives what was printed in the guest; the script's own messages can be seen at once.
///
/// None if there are to be no guests on this machine.
///
/// # Panics
///
/// If the exit status is not 0, with everything that guest and script printed.
fn in_guest(args: &[&str]) -> Option<String> {
    if std::env::var_os("SOLON_SKIP_GUEST").is_some_and(|value| value == "1") {
        // Not `eprintln`: that a test was left out is said even if it passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: no guest with RDMA was started, as SOLON_SKIP_GUEST=1");
        return None;
    }
    // Two guests at a time would take each other's cores, and their tests' time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rdma/guest"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the script runs");
    let stderr = BufReader::new(script.stderr.take().expect("piped"));
    let messages = std::thread::spawn(move || {
        let mut messages = String::new();
        for line in stderr.lines().map_while(Result::ok) {
            let _ = writeln!(std::io::stderr(), "{line}");
            messages += &format!("{line}\n");
        }
        messages
    });
    let mut output = Vec::new();
    script.stdout.take().expect("piped").read_to_end(&mut output).expect("the guest's output");
    let status = script.wait().expect("the script ends");
    let messages = messages.join().expect("no panic");
    let output = String::from_utf8_lossy(&output).into_owned();
    assert!(
        status.success(),
        "tests/rdma/guest {}: {status}\n--- printed in the guest\n{output}\n--- the script's messages\n{messages}\n---\n\
         On a machine that cannot have qemu, SOLON_SKIP_GUEST=1 leaves out what needs it.",
        args.join(" ")
    );
    Some(output)
}

/// How many tests passed, by what the test harness printed.
fn passed(output: &str) -> usize {
    let results = output.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    results.filter_map(|result| result.split(' ').next()?.parse::<usize>().ok()).sum()
}

#[test]
fn the_suite_passes_in_a_guest_with_soft_roce() {
    let this = std::env::current_exe().expect("a path");
    let name = this.file_name().expect("a file").to_str().expect("UTF-8");
    let this = this.to_str().expect("UTF-8");
    let files = ["-t", "1500", "-f", this, "-f", SOLON, "-f", SOLOND];
    let command = ["--", name, "guest::", "--ignored", "--test-threads=1", "--show-output"];
    let Some(output) = in_guest(&[&files[..], &command].concat()) else { return };
    println!("{output}");
    // What was measured in passing, for those who did not ask for it at once.
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("rdma-guest.log"), &output).expect("it is written");
    assert!(passed(&output) > 0, "no test ran:\n{output}");
}

#[test]
fn without_rdma_libraries_solon_starts_and_runs() {
    // Four liars, three legs, twelve workers: over TCP, on the guest's loopback.
    let script =
        "if ls /usr/lib/*/ | grep -e libibverbs -e librdmacm; then exit 90; fi; cd /tmp && solon demo --steps 5";
    let Some(output) = in_guest(&["-n", "-f", SOLON, "--", "sh", "-c", script]) else { return };
    println!("{output}");
    assert!(output.contains("Solon's run is the honest run up to rounding."), "{output}");
}

/// Puts `text` between `<!-- generated: name -->` and `<!-- end -->` of a page, as a block.
fn write_block(page: &str, name: &str, text: &str) -> String {
    let begin = format!("<!-- generated: {name} -->\n");
    let (head, rest) = page.split_once(&begin).expect("the part begins");
    let (_, tail) = rest.split_once("<!-- end -->").expect("the part ends");
    format!("{head}{begin}\n```text\n{}\n```\n\n<!-- end -->{tail}", text.trim_end())
}

#[test]
#[ignore = "writes docs/doctor.md"]
fn the_pages_of_the_doctor() {
    let here = Command::new(SOLON).arg("doctor").output().expect("solon starts");
    let here = String::from_utf8(here.stdout).expect("UTF-8");
    // Who built a kernel is nobody's business.
    let numbers = |line: &str| match line.split_once("  Linux ") {
        Some((head, release)) => format!("{head}  Linux {}", release.split('-').next().unwrap_or_default()),
        None => line.to_owned(),
    };
    let here: Vec<String> = here.lines().map(numbers).collect();
    let script = "solon doctor --listen 10.0.0.2 >/dev/null 2>&1 & \
                  until (: >/dev/tcp/10.0.0.2/7450); do sleep 0.2; done 2>/dev/null; \
                  solon doctor --peer 10.0.0.2 -- --job-dimension=25557032 --listen-address=10.0.0.1:7447 --listen-open";
    let Some(guest) = in_guest(&["-f", SOLON, "--", "bash", "-c", script]) else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/doctor.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let page = write_block(&write_block(&page, "here", &here.join("\n")), "guest", &guest);
    std::fs::write(&path, page).expect("it is written");
}

#[test]
fn without_rdma_libraries_the_doctor_names_them() {
    let script = "solon doctor --json";
    let Some(output) = in_guest(&["-n", "-f", SOLON, "--", "sh", "-c", script]) else { return };
    let report: serde_json::Value = serde_json::from_str(&output).expect("JSON");
    let findings = report["findings"].as_array().expect("findings");
    let libraries = findings.iter().find(|finding| finding["check"] == "libraries").expect("the check");
    let text = format!("{} {}", libraries["found"], libraries["hint"]);
    assert_eq!(libraries["status"], "warn", "the kernel has devices: {text}");
    assert!(text.contains("libibverbs.so.1 cannot be loaded") && text.contains("apt install libibverbs1"), "{text}");
}

/// The libraries without which the dynamic loader does not start this program.
fn needed(program: &str) -> Vec<String> {
    let data = std::fs::read(program).expect("the program");
    let data = &data[..];
    let header = FileHeader64::<Endianness>::parse(data).expect("ELF");
    let endian = header.endian().expect("known");
    let sections = header.sections(endian, data).expect("sections");
    let (entries, link) = sections.dynamic(endian, data).expect("readable").expect("dynamically linked");
    let strings = sections.strings(endian, data, link).expect("names");
    let needed = entries.iter().filter(|entry| entry.tag32(endian) == Some(DT_NEEDED));
    let name = |entry| String::from_utf8_lossy(Dyn::string(entry, endian, strings).expect("a name")).into_owned();
    needed.map(name).collect()
}

#[test]
fn the_binaries_do_not_need_rdma_libraries() {
    for program in [SOLON, SOLOND] {
        let needed = needed(program);
        assert!(needed.iter().any(|library| library.starts_with("libc.so")), "{program}: {needed:?}");
        let rdma = needed.iter().find(|library| library.contains("ibverbs") || library.contains("rdmacm"));
        assert_eq!(rdma, None, "{program}: {needed:?}");
    }
}
