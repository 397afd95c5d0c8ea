//! Updates that workers pass on to each other: a real daemon, and workers over real sockets.

mod common;

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use common::{Solond, distance, gradient};
use solon::client::{Carry, Worker};
use solon::code::Precision;

const D: usize = 400_000;
/// What is late on a machine that does ten other things is nobody's fault.
const FLAGS: [&str; 4] = ["--job-dimension", "400000", "--push-repair-ms", "20000"];
/// Every shard is waited for, so that the same rows make every update.
const ALL: [&str; 4] = ["--rounds-deadline-ms", "60000", "--rounds-linger-ms", "60000"];
const RELAY: [&str; 2] = ["--push-way", "relay"];

/// What the daemon says of its updates: the numbers of its last line, by name; and all bytes that it has sent.
struct Pushed(serde_json::Value, u64);

impl Pushed {
    /// At its end.
    fn of(solond: &mut Solond) -> Pushed {
        solond.signal("-TERM");
        let (code, _) = solond.end();
        assert_eq!(code, Some(0));
        let sent = Pushed::last(solond, "\"system calls\"")["sent"].as_u64().unwrap();
        Pushed(Pushed::last(solond, "\"updates pushed\""), sent)
    }

    /// So far.
    fn now(solond: &mut Solond) -> Pushed {
        solond.signal("-USR1");
        solond.wait_for("\"updates pushed\"");
        let sent = Pushed::last(solond, "\"counters\"")["bytes_sent"].as_u64().unwrap();
        Pushed(Pushed::last(solond, "\"updates pushed\""), sent)
    }

    fn last(solond: &Solond, text: &str) -> serde_json::Value {
        let line = solond.log.iter().rev().find(|line| line.contains(text)).expect("the line has come");
        serde_json::from_str(line).expect("a JSON log line")
    }

    fn get(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("{name} in {}", self.0))
    }

    /// Chunks that were late, or not answered for: on a machine that is loaded there may be some.
    fn repaired(&self) -> u64 {
        self.get("late") + self.get("unasked")
    }
}

/// Waits until every worker has a link with every other.
fn linked(workers: &[Worker]) {
    let until = Instant::now() + Duration::from_secs(60);
    while workers.iter().any(|worker| worker.links() < workers.len() - 1) {
        assert!(Instant::now() < until, "{:?}", workers.iter().map(Worker::links).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Rounds until the daemon knows of all links, so that it sends one update in one of them; the round after them.
fn warm(solond: &mut Solond, workers: &mut [Worker], groups: usize) -> u64 {
    linked(workers);
    for round in 0..200 {
        let before = Pushed::now(solond).get("sent");
        rounds(workers, round..round + 1, groups);
        let sent = Pushed::now(solond).get("sent") - before;
        if sent as f64 <= 1.1 * workers[0].plan().update_bytes(D) as f64 {
            return round + 1;
        }
    }
    panic!("no round in which updates are relayed");
}

/// Many workers in one process have many descriptors: one test at a time, with as many as there may be.
fn many() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Rounds of all workers at once; a number for each update that depends on all its bits.
fn rounds(workers: &mut [Worker], rounds: std::ops::Range<u64>, groups: usize) -> Vec<u64> {
    let digests = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in workers {
            let (rounds, digests) = (rounds.clone(), &digests);
            let precision = worker.plan().update_precision;
            let allowed = if precision == Precision::F32 { 1e-5 } else { precision.unit_roundoff() };
            scope.spawn(move || {
                for round in rounds {
                    let mut buffer = gradient(worker.place().group, round, D);
                    let report = worker.exchange(&mut buffer).unwrap();
                    assert!(distance(&buffer, groups, round) < allowed);
                    let bits = |hash: u64, x: &f32| (hash ^ u64::from(x.to_bits())).wrapping_mul(0x0100_0000_01b3);
                    digests.lock().unwrap().push((round, report.digest, buffer.iter().fold(0, bits)));
                }
            });
        }
    });
    let mut digests = digests.into_inner().unwrap();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len() as u64, rounds.end - rounds.start, "everybody has the same updates");
    digests.into_iter().map(|(_, _, bits)| bits).collect()
}

fn join(solond: &Solond, count: usize) -> Vec<Worker> {
    (0..count).map(|worker| solond.join(worker)).collect()
}

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    FLAGS.iter().chain(&RELAY).chain(more).copied().collect()
}

/// Groups, further flags, workers.
const JOBS: [(usize, &[&str], usize); 2] = [
    (1, &["--job-groups", "1", "--job-compression", "2"], 6),
    (1, &["--job-groups", "1", "--job-compression", "10", "--job-stragglers", "1", "--chunks-width", "4096"], 15),
];

/// Jobs, and how their updates stand on the wire, with the most bytes that may leave the daemon in a round, over 4 d.
fn ways() -> impl Iterator<Item = ((usize, &'static [&'static str], usize), &'static str, f64)> {
    JOBS.into_iter().flat_map(|job| [("f32", 1.1), ("bf16", 0.6)].map(|(precision, most)| (job, precision, most)))
}

#[test]
fn bytes_that_leave_the_daemon_are_those_of_one_update_and_a_tenth() {
    const ROUNDS: u64 = 6;
    let _one = many();
    for ((groups, flags, count), precision, most) in ways() {
        let digests = |way: &str, first: Option<u64>| {
            let more = ["--push-way", way, "--push-precision", precision];
            let mut solond = Solond::start(&[&FLAGS[..], &ALL, flags, &more].concat());
            let mut workers = join(&solond, count);
            let first = first.unwrap_or_else(|| warm(&mut solond, &mut workers, groups));
            let before = Pushed::now(&mut solond).1;
            let digests = rounds(&mut workers, first..first + ROUNDS, groups);
            workers.into_iter().for_each(Worker::leave);
            (digests, Pushed::of(&mut solond), before, first)
        };
        let (relayed, pushed, before, first) = digests("relay", None);
        let update = ROUNDS * 4 * D as u64;
        let ratio = (pushed.1 - before) as f64 / update as f64;
        println!("{count} workers, {precision}: {ratio:.3} x 4 d bytes leave the daemon per round; {}", pushed.0);
        assert!(ratio <= most || pushed.repaired() > 0, "{ratio}: {}", pushed.0);
        assert!(pushed.get("carried") > 0);
        assert_eq!((pushed.get("wrong"), pushed.get("other_digests")), (0, 0));
        let (direct, pushed, ..) = digests("direct", Some(first));
        let sent = if precision == "f32" { update } else { update / 2 };
        assert!(pushed.1 >= count as u64 * sent);
        assert!(pushed.get("carried") + pushed.get("announced") == 0);
        assert_eq!(relayed, direct, "not a bit differs");
    }
}

#[test]
fn carriers_that_lie_are_named_and_nobody_else_and_every_update_is_right() {
    let mut solond = Solond::start(&with(&["--job-groups", "1", "--job-compression", "6"]));
    let mut workers = join(&solond, 10);
    let mut round = warm(&mut solond, &mut workers, 1);
    let mut corrupt: Vec<Carry> = Vec::new();
    for _ in 0..2 {
        corrupt.push(Box::new(|_, peer, frame| {
            let last = frame.len() - 1;
            frame[last] ^= 1 + (peer as u8 & 1);
            1
        }));
    }
    for (liar, carry) in [3, 8].into_iter().zip(corrupt) {
        workers[liar].set_carry(carry);
    }
    let last = round + 100;
    while solond.count("bad carrier") < 2 && round < last {
        rounds(&mut workers, round..round + 1, 1);
        round += 1;
    }
    workers.into_iter().for_each(Worker::leave);
    let pushed = Pushed::of(&mut solond);
    let bad = |worker: usize| {
        solond.log.iter().any(|line| line.contains("bad carrier") && line.contains(&format!("\"worker\":{worker},")))
    };
    let named: Vec<usize> = (0..10).filter(|worker| bad(*worker)).collect();
    assert_eq!(named, [3, 8], "{}", pushed.0);
    assert_eq!((pushed.get("bad_carriers"), pushed.get("other_digests")), (2, 0));
}

#[test]
fn strangers_at_a_workers_port_get_nothing_and_disturb_nobody() {
    use std::io::{Read, Write};
    let mut solond = Solond::start(&with(&["--job-groups", "1", "--job-compression", "2"]));
    let mut workers = join(&solond, 6);
    linked(&workers);
    let ports: Vec<u16> = workers.iter().filter_map(Worker::link_port).collect();
    assert_eq!(ports.len(), 6);
    let strangers: Vec<_> = ports
        .iter()
        .flat_map(|port| std::iter::repeat_n(*port, 20))
        .filter_map(|port| std::net::TcpStream::connect(("127.0.0.1", port)).ok())
        .collect();
    for (at, mut stranger) in strangers.iter().enumerate() {
        // Some say nothing, some nonsense.
        if at % 2 == 0 {
            let _ = stranger.write_all(&[b'S'; 128]);
        }
    }
    rounds(&mut workers, 0..4, 1);
    for mut stranger in strangers {
        stranger.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = Vec::new();
        // A challenge, and the end.
        let _ = stranger.read_to_end(&mut bytes);
        assert!(bytes.len() <= 96, "{}", bytes.len());
    }
    workers.into_iter().for_each(Worker::leave);
    assert_eq!(Pushed::of(&mut solond).get("wrong"), 0);
}

/// Hundredths of a second that a process has computed so far.
fn computed(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// A process of its own: other tests compute meanwhile.
#[test]
fn workers_that_have_links_and_nothing_to_do_sleep() {
    if std::env::var("SOLON_TEST_SLEEPS").is_err() {
        let arguments = ["--exact", "workers_that_have_links_and_nothing_to_do_sleep"];
        let run = Command::new(std::env::current_exe().unwrap()).args(arguments).env("SOLON_TEST_SLEEPS", "1").status();
        assert!(run.unwrap().success());
        return;
    }
    let solond = Solond::start(&with(&["--job-groups", "1", "--job-compression", "2"]));
    let mut workers = join(&solond, 6);
    linked(&workers);
    rounds(&mut workers, 0..3, 1);
    std::thread::sleep(Duration::from_millis(200));
    let processes = [std::process::id(), solond.child.id()];
    let before = processes.map(computed);
    std::thread::sleep(Duration::from_secs(2));
    for (process, before) in processes.into_iter().zip(before) {
        assert!(computed(process) - before < 20, "{} of 200 hundredths", computed(process) - before);
    }
}

/// The worker process of the test below: this very test, by an environment variable.
fn child(solond: &Solond, worker: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_carrier_killed_in_mid_round_holds_nobody_up", "--nocapture"])
        .env("SOLON_TEST_WORKER", format!("{worker} {}", solond.address))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_carrier_killed_in_mid_round_holds_nobody_up() {
    if let Ok(who) = std::env::var("SOLON_TEST_WORKER") {
        let (worker, address) = who.split_once(' ').unwrap();
        let options = solon::client::JoinOptions::new(address, "default", worker.parse().unwrap());
        let mut worker = Worker::join(&options).unwrap();
        loop {
            let round = worker.next_round();
            if worker.exchange(&mut gradient(0, round, D)).is_err() {
                return;
            }
        }
    }
    let mut solond = Solond::start(&with(&["--job-groups", "1", "--job-compression", "2"]));
    let mut workers = join(&solond, 5);
    let mut dies = child(&solond, 5);
    let until = Instant::now() + Duration::from_secs(30);
    while workers.iter().any(|worker| worker.links() < 5) {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for worker in &mut workers {
            let ended = &ended;
            scope.spawn(move || {
                for round in 0..60 {
                    let mut buffer = gradient(0, round, D);
                    worker.exchange(&mut buffer).unwrap();
                    assert!(distance(&buffer, 1, round) < 1e-5);
                    ended.fetch_max(round + 1, Ordering::Relaxed);
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(120);
        while ended.load(Ordering::Relaxed) < 20 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        dies.kill().unwrap();
    });
    dies.wait().unwrap();
    workers.into_iter().for_each(Worker::leave);
    let pushed = Pushed::of(&mut solond);
    println!("{}", pushed.0);
    assert!(pushed.get("carried") > 0);
    assert_eq!((pushed.get("wrong"), pushed.get("other_digests")), (0, 0));
}

/// A network of its own for the daemon, joined to this one by a pair of interfaces; gone when dropped.
struct Namespace {
    /// Where the command is: solond is started without a search path.
    ip: String,
    name: String,
    inner: String,
    host: std::net::Ipv4Addr,
    daemon: std::net::Ipv4Addr,
}

impl Namespace {
    /// `None`, and why is printed, where it cannot be made: not root, no `ip`, no such interfaces.
    fn new() -> Option<Namespace> {
        let made = Namespace::make();
        if let Err(why) = &made {
            eprintln!("skipped: no network namespace can be made, as this failed: {why}");
        }
        made.ok()
    }

    fn make() -> Result<Namespace, String> {
        let found = Command::new("sh").args(["-c", "command -v ip"]).output().map_err(|error| error.to_string())?;
        let command = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        if command.is_empty() {
            return Err("to find the command ip".into());
        }
        let id = std::process::id();
        let (name, outer, inner) = (format!("solon-{id}"), format!("sv{id}a"), format!("sv{id}b"));
        let net = [10, 213, (id >> 8) as u8, (id as u8) & 0xfc];
        let at = |last: u8| std::net::Ipv4Addr::new(net[0], net[1], net[2], net[3] | last);
        let ip = |line: String| {
            let run = Command::new(&command)
                .args(line.split_whitespace())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            run.is_ok_and(|status| status.success()).then_some(()).ok_or(line)
        };
        ip(format!("netns add {name}"))?;
        let this = Namespace { ip: command.clone(), name, inner, host: at(1), daemon: at(2) };
        let (name, inner) = (&this.name, &this.inner);
        ip(format!("link add {outer} type veth peer name {inner} netns {name}"))?;
        ip(format!("addr add {}/30 dev {outer}", this.host))?;
        ip(format!("link set {outer} up"))?;
        ip(format!("netns exec {name} ip addr add {}/30 dev {inner}", this.daemon))?;
        ip(format!("netns exec {name} ip link set {inner} up"))?;
        // Can it be seen from here, and counted?
        ip(format!("netns exec {name} cat /sys/class/net/{inner}/statistics/tx_bytes"))?;
        Ok(this)
    }

    /// Bytes that have left the daemon's interface, by the kernel's count.
    fn sent(&self) -> u64 {
        let file = format!("/sys/class/net/{}/statistics/tx_bytes", self.inner);
        let read = Command::new(&self.ip).args(["netns", "exec", &self.name, "cat", &file]).output().unwrap();
        String::from_utf8(read.stdout).unwrap().trim().parse().expect("a count")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new(&self.ip).args(["netns", "del", &self.name]).status();
    }
}

#[test]
fn what_leaves_the_daemons_interface_is_one_update_and_a_tenth_and_auto_chooses_it() {
    const ROUNDS: u64 = 8;
    let _one = many();
    let Some(network) = Namespace::new() else { return };
    for ((groups, flags, count), precision, most) in ways() {
        // Where six workers share an update of bf16 it is as long as the shards of one: a relay would not halve anything.
        let chosen = if (count, precision) == (6, "bf16") { "direct" } else { "relay" };
        let mut command = Command::new(&network.ip);
        command.args(["netns", "exec", &network.name, env!("CARGO_BIN_EXE_solond")]);
        let listen = format!("{}:0", network.daemon);
        let mut solond = Solond::spawn(
            command,
            &listen,
            &[&FLAGS[..], flags, &["--listen-open", "true", "--push-way", "auto", "--push-precision", precision]]
                .concat(),
        );
        solond.wait_until_ready();
        let ready = solond.find("\"ready\"");
        assert!(ready.contains(&format!("\"push\":\"{chosen}")), "{ready}");
        if chosen == "direct" {
            continue;
        }
        let mut workers = join(&solond, count);
        let first = warm(&mut solond, &mut workers, groups);
        let before = network.sent();
        rounds(&mut workers, first..first + ROUNDS, groups);
        let sent = network.sent() - before;
        if count == 6 {
            // One round is tried without.
            let before = Pushed::now(&mut solond).get("sent");
            rounds(&mut workers, first + ROUNDS..first + ROUNDS + 80, groups);
            let sent = (Pushed::now(&mut solond).get("sent") - before) as f64 / (4 * D) as f64;
            assert!(sent > 80.0 + 4.9, "{sent} updates in 80 rounds");
            println!("{sent:.1} updates were sent in 80 rounds, as one or more of them went direct");
            solond.log.iter().filter(|line| line.contains("the faster way")).for_each(|line| println!("{line}"));
        }
        workers.into_iter().for_each(Worker::leave);
        let pushed = Pushed::of(&mut solond);
        let ratio = sent as f64 / (ROUNDS * 4 * D as u64) as f64;
        println!("{count} workers, {precision}: {ratio:.3} x 4 d bytes leave the interface per round; {}", pushed.0);
        assert!(ratio <= most || pushed.repaired() > 0, "{ratio}: {}", pushed.0);
    }
}

/// `cargo test --release --test relay -- --ignored --nocapture`: what a relay is worth where the daemon's link is 1 Gbit/s.
#[test]
#[ignore = "measures"]
fn rounds_where_the_daemon_has_a_gigabit_link_are_measured_both_ways() {
    const ROUNDS: u64 = 10;
    let _one = many();
    let Some(network) = Namespace::new() else { return };
    let limit = format!(
        "netns exec {} tc qdisc add dev {} root tbf rate 1gbit burst 256kb latency 50ms",
        network.name, network.inner
    );
    assert!(Command::new(&network.ip).args(limit.split_whitespace()).status().unwrap().success());
    for (groups, flags, count) in JOBS {
        for way in ["direct", "relay"] {
            let mut command = Command::new(&network.ip);
            command.args(["netns", "exec", &network.name, env!("CARGO_BIN_EXE_solond")]);
            let listen = format!("{}:0", network.daemon);
            let flags = [&FLAGS[..], flags, &["--listen-open", "true", "--push-way", way]].concat();
            let mut solond = Solond::spawn(command, &listen, &flags);
            solond.wait_until_ready();
            let mut workers = join(&solond, count);
            let first = match way {
                "relay" => warm(&mut solond, &mut workers, groups),
                _ => rounds(&mut workers, 0..2, groups).len() as u64,
            };
            let started = Instant::now();
            rounds(&mut workers, first..first + ROUNDS, groups);
            let ms = started.elapsed().as_secs_f64() * 1e3 / ROUNDS as f64;
            workers.into_iter().for_each(Worker::leave);
            println!(
                "{count} workers, {way}: {ms:.1} ms per round, gradients and checks included; {}",
                Pushed::of(&mut solond).0
            );
        }
    }
}
