//! Workers in C against a real `solond`: linked with the shared library, with the static one, and with that under AddressSanitizer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

#[path = "../../../tests/common/mod.rs"]
mod common;
mod tools;

use common::Solond;
use tools::Link;

/// A job of one worker whose update is its gradient.
const ALONE: &[&str] =
    &["--job-dimension=1000", "--job-groups=1", "--job-adversaries=0", "--job-compression=1", "--job-scale=1"];
/// A job in which one worker waits for others, longer than a test takes.
const OF_THREE: &[&str] = &[
    "--job-dimension=1000",
    "--job-groups=1",
    "--job-adversaries=1",
    "--job-compression=1",
    "--rounds-deadline-ms=120000",
];
/// That of `examples/worker.c`, where every worker is waited for, so that the liar is always named.
const OF_SIX: &[&str] = &[
    "--job-dimension=2",
    "--job-groups=2",
    "--job-adversaries=1",
    "--job-compression=1",
    "--rounds-deadline-ms=20000",
    "--rounds-linger-ms=20000",
];

/// Starts a daemon; it is there, though another test may be the first to need it.
fn solond(flags: &[&str]) -> Solond {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let mut solond = Solond::spawn(Command::new(BUILT.get_or_init(tools::solond)), "127.0.0.1:0", flags);
    solond.wait_until_ready();
    solond
}

/// Every way to link that this machine has.
fn links() -> impl Iterator<Item = Link> {
    static SANITIZER: OnceLock<bool> = OnceLock::new();
    let sanitizer = *SANITIZER.get_or_init(|| {
        let works = tools::compile("c", "int main(void) { return 0; }", &["-fsanitize=address"]);
        tools::required(works.is_ok(), "a C compiler with AddressSanitizer (on Debian gcc has it)")
    });
    [Link::Shared, Link::Static, Link::Sanitized].into_iter().filter(move |link| sanitizer || *link != Link::Sanitized)
}

/// The compiled `examples/worker.c` or `tests/scenarios.c`.
fn program(source: &str, link: Link) -> PathBuf {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    static BUILDING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let directory = DIRECTORY.get_or_init(|| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()).path();
    let name = source.rsplit('/').next().unwrap().trim_end_matches(".c");
    let path = directory.join(format!("{name}-{link:?}"));
    let _alone = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !path.exists() {
        tools::build(source, link, &path).unwrap();
    }
    path
}

/// A program that runs; killed when dropped.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Running { child, out }
    }

    fn wait_for(&mut self, line: &str) {
        let mut found = String::new();
        self.out.read_line(&mut found).unwrap();
        if found.trim_end() != line {
            let _ = self.child.kill();
            let mut why = String::new();
            self.child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!("found {found:?}, expected {line:?}: {why}");
        }
    }

    /// Its output, once it has ended; it has a minute.
    fn end(mut self) -> Output {
        drop(self.child.stdin.take());
        for _ in 0..6000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
                self.out.read_to_end(&mut stdout).unwrap();
                self.child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
                return Output { status, stdout, stderr };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        panic!("the program hangs");
    }

    fn succeed(self, what: &str) -> String {
        let output = self.end();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{what}: {}\n{text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(source: &str, link: Link, argument: Option<&str>, environment: &[(&str, &str)]) -> Running {
    let mut command = Command::new(program(source, link));
    command.args(argument).env_clear().envs(environment.iter().copied());
    Running::start(command)
}

fn scenario(link: Link, name: &str, endpoint: &str) -> Running {
    start("tests/scenarios.c", link, Some(name), &[("SOLON_ENDPOINT", endpoint), ("SOLON_WORKER", "0")])
}

/// Runs a scenario that needs nothing from outside, with a daemon of its own, in every way to link.
fn everywhere(name: &str, flags: &[&str]) {
    for link in links() {
        let solond = solond(flags);
        scenario(link, name, &solond.address).succeed(&format!("{name}, {link:?}"));
    }
}

#[test]
fn the_example_fits_its_line_though_a_worker_lies_and_all_have_the_same_update() {
    for link in links() {
        let solond = solond(OF_SIX);
        let workers: Vec<Running> = (0..6)
            .map(|index| {
                // As torchrun, Slurm and Open MPI tell them who they are; one is told by Solon's own variable.
                let rank = index.to_string();
                let mut environment = vec![("SOLON_ENDPOINT", &*solond.address)];
                environment.extend(match index {
                    0 => vec![("SOLON_WORKER", &*rank), ("RANK", "5"), ("LOCAL_RANK", "5")],
                    1 | 2 => vec![("RANK", &*rank), ("LOCAL_RANK", "0"), ("SLURM_PROCID", "0")],
                    3 => vec![("SLURM_PROCID", &*rank)],
                    _ => vec![("OMPI_COMM_WORLD_RANK", &*rank)],
                });
                start("examples/worker.c", link, (index == 4).then_some("lie"), &environment)
            })
            .collect();
        let said: Vec<String> = workers.into_iter().map(|worker| worker.succeed("the example")).collect();
        for (index, text) in said.iter().enumerate() {
            let (group, row) = (index / 3, index % 3);
            assert!(text.starts_with(&format!("worker {index} of 6: row {row} of group {group}\n")), "{text}");
            assert!(text.contains("\nworker 4 lies\nslope 3.00, intercept -1.00, digest "), "{text}");
            assert_eq!(text.lines().last(), said[0].lines().last(), "the same bytes for all");
        }
    }
}

#[test]
fn every_function_does_what_it_says_and_refuses_what_cannot_be() {
    everywhere("calls", ALONE);
}

#[test]
fn what_keeps_a_worker_from_joining_has_a_status_and_a_text() {
    everywhere("refusals", ALONE);
}

#[test]
fn a_worker_can_say_how_it_computes_and_is_told_if_that_is_refused() {
    let flags = ["--job-dimension=10", "--job-groups=1", "--job-adversaries=0", "--job-compression=3"];
    everywhere("mixed", &[&flags[..], &["--verify-mixed=refuse"]].concat());
}

#[test]
fn a_worker_that_joins_twice_in_a_second_is_told_to_try_again() {
    everywhere("too-soon", ALONE);
}

#[test]
fn a_peer_that_is_no_daemon_is_an_error_and_not_a_hang() {
    for link in links() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let silent = scenario(link, "says-nothing", &address);
        let (kept, _) = listener.accept().unwrap();
        silent.succeed("says-nothing");
        drop(kept);
        let other = scenario(link, "speaks-otherwise", &address);
        listener.accept().unwrap().0.write_all(&[b'x'; 512]).unwrap();
        other.succeed("speaks-otherwise");
    }
}

#[test]
fn a_daemon_killed_in_mid_round_ends_the_wait_and_not_the_program() {
    for (link, name) in links().flat_map(|link| ["lost", "lost-then-leave"].map(|name| (link, name))) {
        let solond = solond(OF_THREE);
        let mut worker = scenario(link, name, &solond.address);
        worker.wait_for("waiting");
        drop(solond);
        worker.succeed(name);
    }
}

#[test]
fn a_worker_comes_back_to_a_daemon_that_was_started_again() {
    for link in links() {
        let first = solond(ALONE);
        let address = first.address.clone();
        let mut worker = scenario(link, "comes-back", &address);
        worker.wait_for("waiting");
        drop(first);
        let mut second = Solond::spawn(Command::new(tools::solond()), &address, ALONE);
        second.wait_until_ready();
        worker.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        worker.succeed("comes-back");
    }
}

#[test]
fn a_wait_ends_when_the_program_wants_it_and_the_worker_is_busy_until_then() {
    everywhere("interrupted", OF_THREE);
}

#[test]
fn a_wait_ends_when_its_time_is_up() {
    everywhere("timed-out", OF_THREE);
}

#[test]
fn children_are_told_that_they_are_and_their_parent_goes_on() {
    everywhere("forked", ALONE);
}

#[test]
fn a_child_does_not_keep_its_parents_connection_open() {
    for link in links() {
        let mut solond = solond(ALONE);
        let mut worker = scenario(link, "hang-up", &solond.address);
        worker.wait_for("freed");
        solond.wait_for("worker left");
        worker.succeed("hang-up");
    }
}

#[test]
fn address_sanitizer_would_have_seen_something() {
    if links().any(|link| link == Link::Sanitized) {
        let solond = solond(ALONE);
        let output = scenario(Link::Sanitized, "overrun", &solond.address).end();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("heap-buffer-overflow"), "{text}");
    }
}
