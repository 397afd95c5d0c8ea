//! `solond` as a service manager runs it: what it tells, what it does on SIGHUP, and whether its unit fits the code.
//!
//! A real daemon process and a real notification socket; systemd itself is in tests/systemd/run.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Solond, gradient};
use solon::client::{JoinError, JoinOptions, Worker};
use solon::daemon::config::{Request, load};
use solon::daemon::exit::{EXITS, Exit, Restart};

const D: usize = 5003;

/// The service manager's end of the notification socket.
struct Told {
    socket: UnixDatagram,
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Told {
    fn new() -> Told {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Told { socket, _directory: directory, path }
    }

    /// `solond` with these flags, told by `watchdog` how often it must show that it lives.
    fn start(&self, watchdog: Duration, flags: &[&str]) -> Solond {
        let mut command = Command::new("env");
        command.arg(format!("NOTIFY_SOCKET={}", self.path.display()));
        command.arg(format!("WATCHDOG_USEC={}", watchdog.as_micros()));
        command.arg(env!("CARGO_BIN_EXE_solond"));
        Solond::spawn(command, "127.0.0.1:0", flags)
    }

    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("the daemon tells something");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// The next message with a line that begins like this.
    fn wait_for(&self, begin: &str) -> String {
        self.wait_until(begin, |line| line.starts_with(begin))
    }

    /// The next message with exactly this line.
    fn wait_for_line(&self, line: &str) -> String {
        self.wait_until(line, |found| found == line)
    }

    fn wait_until(&self, wanted: &str, fits: impl Fn(&str) -> bool) -> String {
        let started = Instant::now();
        loop {
            let message = self.next();
            assert!(started.elapsed() < Duration::from_secs(60), "nothing like {wanted}; last: {message}");
            if message.lines().any(&fits) {
                return message;
            }
        }
    }
}

#[test]
fn a_service_manager_is_told_that_the_daemon_is_ready_how_it_goes_that_it_lives_and_that_it_stops() {
    let told = Told::new();
    let mut solond =
        told.start(Duration::from_millis(100), &["--job-dimension", "5003", "--rounds-linger-ms", "10000"]);
    assert_eq!(told.next(), "READY=1\n");
    solond.wait_until_ready();
    assert_eq!(told.wait_for("STATUS="), "STATUS=round 0: 0 of 12 workers, no liars; RDMA none\n");
    told.wait_for("WATCHDOG=1");
    told.wait_for("WATCHDOG=1");
    let workers = solond.all(12, |worker, mut handle| {
        let mut buffer = gradient(handle.place().group, 0, D);
        let mut lie = |_: u64, _: u32, shard: &mut [f32]| shard.iter_mut().for_each(|x| *x *= -100.0);
        handle.exchange_tampered(&mut buffer, [5, 8].contains(&worker).then_some(&mut lie)).unwrap();
        handle
    });
    told.wait_for("STATUS=round 1: 12 of 12 workers, liars 5 8; RDMA none");
    drop(workers);
    solond.signal("-TERM");
    // The round's deadline, two write deadlines, and some time to end: as long as systemd is to wait.
    assert_eq!(told.wait_for("STOPPING=1"), "STOPPING=1\nEXTEND_TIMEOUT_USEC=20000000\n");
    assert_eq!(solond.exit_code(), Some(0));
}

#[test]
fn a_service_manager_is_told_why_the_daemon_does_not_start() {
    let told = Told::new();
    let mut solond = told.start(Duration::from_secs(10), &[]);
    let message = told.next();
    assert!(message.starts_with("STATUS=error: ") && message.contains("job.dimension: found no value"), "{message}");
    assert_eq!(solond.exit_code(), Some(i32::from(Exit::Configuration.code())));
    let mut solond = told.start(Duration::from_secs(10), &["--job-dimension", "9", "--listen-token-file", "/none"]);
    assert!(told.next().starts_with("STATUS=cannot read the token file /none"));
    assert_eq!(solond.exit_code(), Some(i32::from(Exit::Configuration.code())));
}

/// A daemon with a configuration file and a token file that can be written anew.
struct Reloaded {
    directory: tempfile::TempDir,
    told: Told,
    solond: Solond,
}

impl Reloaded {
    fn start(settings: &str) -> Reloaded {
        let directory = tempfile::tempdir().unwrap();
        let told = Told::new();
        write_tokens(directory.path(), "first-token-of-worker");
        write_settings(directory.path(), settings);
        let file = directory.path().join("solond.toml");
        let mut solond = told.start(Duration::from_secs(60), &["--config", file.to_str().unwrap()]);
        solond.wait_until_ready();
        told.wait_for("READY=1");
        Reloaded { directory, told, solond }
    }

    /// Has the daemon reload, and waits until it did.
    fn reload(&self) {
        self.solond.signal("-HUP");
        let message = self.told.wait_for("RELOADING=1");
        assert!(message.contains("\nMONOTONIC_USEC="), "{message}");
        self.told.wait_for("READY=1");
    }

    fn join(&self, worker: usize, token: &str) -> Result<Worker, JoinError> {
        let options = JoinOptions { token: format!("{token}-{worker}"), ..self.solond.options(worker) };
        Worker::join(&options)
    }
}

fn write_tokens(directory: &Path, token: &str) {
    let path = directory.join("tokens");
    let lines: String = (0..3).map(|worker| format!("{worker} {token}-{worker}\n")).collect();
    std::fs::write(&path, lines).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn write_settings(directory: &Path, settings: &str) {
    let path = directory.join("tokens");
    let text = format!(
        "[job]\ndimension = 5003\ngroups = 1\nadversaries = 1\ncompression = 1\n\
         [listen]\ntoken_file = \"{}\"\n{settings}",
        path.display()
    );
    std::fs::write(directory.join("solond.toml"), text).unwrap();
}

#[test]
fn a_reload_takes_new_tokens_and_settings_while_sessions_go_on_and_names_what_needs_a_restart() {
    let mut it = Reloaded::start("handshake_ms = 2000\n");
    let mut joined: Vec<Worker> = (0..2).map(|worker| it.join(worker, "first-token-of-worker").unwrap()).collect();
    write_tokens(it.directory.path(), "other-token-of-worker");
    write_settings(it.directory.path(), "handshake_ms = 3000\n[rounds]\ndeadline_ms = 12000\nwindow = 3\n");
    it.reload();
    it.solond.find("configuration reloaded: listen.handshake_ms, tokens");
    it.solond.find("needs a restart: rounds.window, rounds.deadline_ms");
    it.told.wait_for(
        "STATUS=round 0: 2 of 3 workers, no liars; RDMA none; needs a restart: rounds.window, rounds.deadline_ms",
    );
    assert!(matches!(it.join(2, "first-token-of-worker"), Err(JoinError::Handshake(_))), "the old token is refused");
    joined.push(it.join(2, "other-token-of-worker").unwrap());
    std::thread::scope(|scope| {
        for worker in &mut joined {
            scope.spawn(move || worker.exchange(&mut gradient(0, 0, D)).unwrap());
        }
    });
    // What needs a restart is still named when nothing changed since the last reload.
    write_settings(it.directory.path(), "handshake_ms = 3000\n[rounds]\ndeadline_ms = 12000\n");
    it.reload();
    it.solond.wait_for("needs a restart: rounds.deadline_ms");
    write_settings(it.directory.path(), "handshake_ms = 2000\n");
    it.reload();
    it.told.wait_for_line("STATUS=round 1: 3 of 3 workers, no liars; RDMA none");
}

#[test]
fn a_reload_with_a_broken_file_keeps_the_old_configuration_and_says_so() {
    let mut it = Reloaded::start("");
    let mut worker = it.join(0, "first-token-of-worker").unwrap();
    let broken = ["[job]\nname = \"twice\"\n", "handshake_ms = -1\nconnections_per_second = 0\n"];
    for settings in broken {
        write_tokens(it.directory.path(), "other-token-of-worker");
        write_settings(it.directory.path(), settings);
        it.reload();
        it.solond.wait_for("the configuration was not reloaded: the old one still holds");
        it.told.wait_for(
            "STATUS=round 0: 1 of 3 workers, no liars; RDMA none; the configuration was not reloaded (see the log)",
        );
    }
    for problem in ["listen.handshake_ms", "listen.connections_per_second"] {
        it.solond.find(problem);
    }
    // A token file that is wrong is as good a reason.
    write_settings(it.directory.path(), "handshake_ms = 4000\n");
    std::fs::write(it.directory.path().join("tokens"), "0 short\n").unwrap();
    it.reload();
    it.solond.find("no token for the workers 1, 2");
    assert_eq!(it.solond.count("configuration reloaded"), 0);
    assert!(matches!(it.join(1, "other-token-of-worker"), Err(JoinError::Handshake(_))), "new tokens do not hold");
    let mut second = it.join(1, "first-token-of-worker").unwrap();
    std::thread::scope(|scope| {
        for worker in [&mut worker, &mut second] {
            scope.spawn(move || worker.exchange(&mut gradient(0, 0, D)).unwrap());
        }
    });
}

#[test]
fn a_reload_does_not_open_a_daemon_that_was_started_with_tokens() {
    let mut it = Reloaded::start("");
    let open = "[job]\ndimension = 5003\ngroups = 1\nadversaries = 1\ncompression = 1\n";
    std::fs::write(it.directory.path().join("solond.toml"), open).unwrap();
    it.reload();
    it.solond.find("needs a restart: listen.token_file");
    assert!(Worker::join(&it.solond.options(0)).is_err());
    it.join(0, "first-token-of-worker").unwrap();
}

#[test]
fn a_reload_changes_how_much_is_logged() {
    let told = Told::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("solond.toml");
    std::fs::write(&file, "[job]\ndimension = 5003\n[log]\nlevel = \"error\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_solond"));
    command.args(["--listen-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0", "--config"]).arg(&file);
    command.env("NOTIFY_SOCKET", &told.path).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    told.wait_for("READY=1");
    let reload = |level: &str| {
        std::fs::write(&file, format!("[job]\ndimension = 5003\n[log]\nlevel = \"{level}\"\n")).unwrap();
        let status = Command::new("sh").args(["-c", &format!("kill -HUP {}", child.id())]).status().unwrap();
        assert!(status.success());
        told.wait_for("RELOADING=1");
        told.wait_for("READY=1");
    };
    reload("info");
    reload("error");
    reload("error");
    child.kill().unwrap();
    let log = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    // The level of before holds until the end of the reload, and so does its last line.
    assert_eq!(log.matches("configuration reloaded: log.level").count(), 1, "{log}");
    assert!(!log.contains("ready"), "{log}");
}

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/solond.service");
    std::fs::read_to_string(path).unwrap()
}

/// The value of the only line `name=..`.
fn value_of<'a>(unit: &'a str, name: &str) -> &'a str {
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(values.next().is_none(), "{name} twice");
    value
}

#[test]
fn the_unit_does_not_restart_the_daemon_after_the_exit_codes_after_which_that_is_futile() {
    let futile = EXITS.iter().filter(|row| row.restart == Restart::Futile && row.exit != Exit::Success);
    let codes: Vec<String> = futile.map(|row| row.exit.code().to_string()).collect();
    assert_eq!(value_of(&unit(), "RestartPreventExitStatus"), codes.join(" "));
    assert_eq!(value_of(&unit(), "Restart"), "on-failure", "exit code 0 ends it");
}

#[test]
fn the_unit_waits_for_a_stop_as_long_as_one_may_take_by_default() {
    let arguments = ["solond", "--job-dimension", "1"].map(Into::into);
    let Ok(Request::Serve(loaded)) = load(arguments, [], &|_| unreachable!("no file is named")) else {
        panic!("a configuration to serve")
    };
    let config = loaded.config;
    let needed = config.rounds.deadline + 2 * config.listen.write_deadline;
    let unit = unit();
    let seconds: u64 = value_of(&unit, "TimeoutStopSec").strip_suffix('s').unwrap().parse().unwrap();
    assert!(Duration::from_secs(seconds) > needed, "{seconds} s, and a stop may take {needed:?}");
}
