//! What a scrape of a running daemon holds: real workers over loopback, the daemon in this process.

#[path = "../common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{config, gradient};
use solon::client::{JoinOptions, Worker};
use solon::daemon::config::Config;
use solon::daemon::metrics::Metrics;
use solon::daemon::metrics::table::{Kind, SECTIONS, Values, metrics};
use solon::daemon::serve::Daemon;
use solon::wire::HEADER_BYTES;

const D: usize = 5000;
const CHUNKS: u64 = 10;
const ROUNDS: u64 = 8;
const WORKERS: usize = 8;
/// Of group 0.
const LIAR: usize = 1;
/// Of group 1.
const ABSENT: usize = 7;

/// Two groups of four workers, 1 of which may lie and 1 be absent; shards as long as the gradient; who is connected is waited for.
const FLAGS: [[&str; 2]; 10] = [
    ["--job-dimension", "5000"],
    ["--job-groups", "2"],
    ["--job-adversaries", "1"],
    ["--job-stragglers", "1"],
    ["--job-compression", "1"],
    ["--chunks-width", "500"],
    ["--rounds-linger-ms", "60000"],
    ["--rounds-deadline-ms", "60000"],
    ["--listen-transport", "tcp"],
    ["--cores-pin", "false"],
];

fn small() -> Config {
    config(&FLAGS.concat())
}

/// The series of a page, by name and labels.
type Page = BTreeMap<String, f64>;

fn series(text: &str) -> Page {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a series and its value");
        (series.to_owned(), value.parse().expect("a number"))
    };
    lines.map(pair).collect()
}

/// Name and labels of a series. No label of ours has a comma or a quote in it.
fn parts(series: &str) -> (&str, Vec<(&str, &str)>) {
    let Some((name, labels)) = series.split_once('{') else { return (series, Vec::new()) };
    let labels = labels.trim_end_matches('}').split(',');
    let pairs = labels.filter_map(|label| label.split_once("=\""));
    (name, pairs.map(|(name, value)| (name, value.trim_end_matches('"'))).collect())
}

/// Rounds with one liar, and one worker that never comes.
fn rounds(daemon: &Daemon) {
    let address = daemon.address().to_string();
    let join = |worker| Worker::join(&JoinOptions::new(&address, "default", worker as u32)).expect("it joins");
    let joined: Vec<_> = (0..WORKERS).filter(|worker| *worker != ABSENT).map(|worker| (worker, join(worker))).collect();
    std::thread::scope(|scope| {
        for (index, mut worker) in joined {
            scope.spawn(move || {
                let group = worker.place().group;
                for round in 0..ROUNDS {
                    let mut buffer = gradient(group, round, D);
                    let mut lie = |_: u64, _: u32, shard: &mut [f32]| shard.iter_mut().for_each(|x| *x *= -100.0);
                    worker.exchange_tampered(&mut buffer, (index == LIAR).then_some(&mut lie)).unwrap();
                }
                worker.leave();
            });
        }
    });
}

/// Scrapes until `enough`: what happens after a worker has its update is counted a moment later.
fn scrape_until(metrics: &Metrics, enough: impl Fn(&Page) -> bool) -> (String, Page) {
    let begun = Instant::now();
    loop {
        let text = metrics.text();
        let page = series(&text);
        if enough(&page) {
            return (text, page);
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "never comes:\n{text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn after_rounds(metrics: &Metrics) -> (String, Page) {
    scrape_until(metrics, |page| {
        let gone = page["solon_sessions_ended_total{reason=\"closed\"}"] == (WORKERS - 1) as f64;
        let gone = gone && page["solon_slots{pool=\"shards\"}"] == 0.0;
        gone && page["solon_round_phase_seconds_count{phase=\"push\"}"] == ROUNDS as f64
    })
}

#[test]
fn a_scrape_has_every_metric_of_the_table_with_its_labels_and_no_other() {
    let config = small();
    let daemon = Daemon::start(&config).unwrap();
    let page = Metrics::new(&config, &daemon).text();
    let types: BTreeMap<&str, &str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let of_process = |name: &&&str| name.starts_with("process_");
    let named: BTreeSet<&str> = types.keys().filter(|name| !of_process(name)).copied().collect();
    assert_eq!(named, metrics().map(|metric| metric.name).collect());
    let process: Vec<_> = types.keys().filter(of_process).copied().collect();
    assert_eq!(
        process,
        [
            "process_cpu_seconds_total",
            "process_max_fds",
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
            "process_threads",
            "process_virtual_memory_bytes"
        ]
    );
    let page = series(&page);
    for metric in metrics() {
        let (kind, suffix) = match metric.kind {
            Kind::Counter => ("counter", ""),
            Kind::Gauge => ("gauge", ""),
            Kind::Histogram(_) => ("histogram", "_count"),
        };
        assert_eq!(types[metric.name], kind);
        let name = format!("{}{suffix}", metric.name);
        let found: Vec<_> = page.keys().map(|series| parts(series)).filter(|(it, _)| *it == name).collect();
        let mut seen: Vec<BTreeSet<&str>> = vec![BTreeSet::new(); metric.labels.len()];
        for (_, labels) in &found {
            assert_eq!(labels.len(), metric.labels.len(), "{name}");
            for ((label, seen), (name, value)) in metric.labels.iter().zip(&mut seen).zip(labels) {
                assert_eq!(label.name, *name);
                seen.insert(value);
            }
        }
        let indices = |count: usize| (0..count).map(|index| index.to_string()).collect::<BTreeSet<_>>();
        for (label, seen) in metric.labels.iter().zip(&seen) {
            let seen: BTreeSet<String> = seen.iter().map(|value| (*value).to_owned()).collect();
            match label.values {
                // What is fixed for a daemon has one of the words; everything else has all of them.
                Values::Words(words) if metric.name.ends_with("_info") => {
                    assert!(seen.len() == 1 && seen.iter().all(|value| words.contains(&value.as_str())), "{name}");
                }
                Values::Words(words) => assert_eq!(seen, words.iter().map(|word| (*word).into()).collect(), "{name}"),
                Values::Workers => assert_eq!(seen, indices(WORKERS), "{name}"),
                Values::Groups => assert_eq!(seen, indices(2), "{name}"),
                Values::Reactors => assert_eq!(seen, indices(daemon.pulses().len()), "{name}"),
                Values::Fixed(_) => assert!(seen.len() <= daemon.pulses().len(), "{name}: {seen:?}"),
            }
        }
    }
}

#[test]
fn the_values_are_those_of_the_rounds_that_were_run() {
    let config = small();
    let daemon = Daemon::start(&config).unwrap();
    let metrics = Metrics::new(&config, &daemon);
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    rounds(&daemon);
    let (_, page) = after_rounds(&metrics);
    let is = |series: &str, value: f64| assert_eq!(page.get(series), Some(&value), "{series}");
    let (rounds, chunks) = (ROUNDS as f64, (ROUNDS * CHUNKS) as f64);
    is("solon_rounds_total{outcome=\"complete\"}", rounds);
    is("solon_rounds_total{outcome=\"too_few\"}", 0.0);
    is("solon_open_round", rounds);
    is("solon_job_needed_workers", 2.0);
    is("solon_job_chunks", CHUNKS as f64);
    for worker in 0..WORKERS {
        let of = |what: &str, value: f64| is(&format!("solon_worker_{what}{{worker=\"{worker}\"}}"), value);
        let (lies, comes) = (f64::from(worker == LIAR), f64::from(worker != ABSENT));
        of("shards_accepted_total", comes * chunks);
        of("lies_total", lies * chunks);
        of("named_rounds_total", lies * rounds);
        of("absent_rounds_total", (1.0 - comes) * rounds);
        of("late_rounds_total", 0.0);
        of("connected", 0.0);
        let seen = page[&format!("solon_worker_last_seen_timestamp_seconds{{worker=\"{worker}\"}}")];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let (early, late) = if worker == ABSENT { (0.0, 0.0) } else { (start - 1.0, now + 1.0) };
        assert!((early..=late).contains(&seen), "{worker}: {seen}");
    }
    is("solon_lies_total", chunks);
    is("solon_liars_named_total{found=\"in_time\"}", rounds);
    is("solon_liars_named_total{found=\"late\"}", 0.0);
    is("solon_words_total{verdict=\"liars\"}", chunks);
    is("solon_words_total{verdict=\"clean\"}", chunks);
    is("solon_chunks_decoded_total", chunks);
    is("solon_shards_accepted_total", 7.0 * chunks);
    // Of four: a liar or an absent one, and two must agree.
    is("solon_group_margin_workers{group=\"0\"}", 1.0);
    is("solon_group_margin_workers{group=\"1\"}", 1.0);
    is("solon_round_margin_workers_bucket{le=\"0\"}", 0.0);
    is("solon_round_margin_workers_bucket{le=\"1\"}", rounds);
    for histogram in ["round_seconds_count", "round_residual_ratio_count"] {
        is(&format!("solon_{histogram}"), rounds);
    }
    for phase in ["receive", "locate", "decode", "push"] {
        is(&format!("solon_round_phase_seconds_count{{phase=\"{phase}\"}}"), rounds);
        let sum = page[&format!("solon_round_phase_seconds_sum{{phase=\"{phase}\"}}")];
        assert!(sum > 0.0, "{phase}");
    }
    let spent = |phase: &str| page[&format!("solon_round_phase_seconds_sum{{phase=\"{phase}\"}}")];
    assert!(spent("receive") <= page["solon_round_seconds_sum"], "a round ends after its last shard");
    let shard = 4.0 * D as f64 / CHUNKS as f64 + HEADER_BYTES as f64;
    is("solon_bytes_total{direction=\"received\",transport=\"tcp\"}", 7.0 * chunks * shard);
    is("solon_bytes_total{direction=\"received\",transport=\"rdma\"}", 0.0);
    let update = CHUNKS as f64 * HEADER_BYTES as f64 + 4.0 * D as f64;
    is("solon_update_bytes_total{by=\"daemon\"}", 7.0 * rounds * update);
    assert!(page["solon_bytes_total{direction=\"sent\",transport=\"tcp\"}"] > 7.0 * rounds * update);
    is("solon_sessions_total{transport=\"tcp\"}", 7.0);
    is("solon_credits", 0.0);
    is("solon_slots_capacity{pool=\"shards\"}", (WORKERS * config.memory.credits) as f64);
    is("solon_ready", 1.0);
    daemon.handle().request_stop();
    let (_, page) = scrape_until(&metrics, |page| page["solon_draining"] == 1.0);
    assert_eq!(page["solon_ready"], 0.0);
}

/// All workers of a job, none of them absent.
fn everybody(daemon: &Daemon) -> Vec<Worker> {
    let address = daemon.address().to_string();
    let join = |worker| Worker::join(&JoinOptions::new(&address, "default", worker as u32)).expect("it joins");
    (0..WORKERS).map(join).collect()
}

#[test]
fn what_workers_pass_on_and_say_that_they_have_is_counted() {
    let config = config(&[&FLAGS.concat()[..], &["--push-way", "relay", "--push-repair-ms", "20000"]].concat());
    let daemon = Daemon::start(&config).unwrap();
    let metrics = Metrics::new(&config, &daemon);
    let mut workers = everybody(&daemon);
    let (_, page) = scrape_until(&metrics, |page| page["solon_relay_workers"] == WORKERS as f64);
    assert_eq!(page["solon_relay_active"], 1.0);
    // Links are made meanwhile: the first rounds may go out by the daemon alone.
    let (begun, mut rounds) = (Instant::now(), 0);
    while series(&metrics.text())["solon_update_bytes_total{by=\"workers\"}"] == 0.0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing is carried in {rounds} rounds");
        std::thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(move || {
                    let mut buffer = gradient(worker.place().group, rounds, D);
                    worker.exchange(&mut buffer).unwrap();
                });
            }
        });
        rounds += 1;
    }
    let (_, page) = scrape_until(&metrics, |page| page["solon_round_collected_seconds_count"] == rounds as f64);
    assert!(page["solon_announce_bytes_total"] > 0.0);
    assert_eq!(page["solon_digest_mismatches_total"], 0.0);
    workers.into_iter().for_each(Worker::leave);
    scrape_until(&metrics, |page| page["solon_relay_workers"] == 0.0 && page["solon_relay_active"] == 0.0);
}

#[test]
fn a_round_with_more_liars_than_the_code_corrects_is_counted_by_its_reason() {
    let config = small();
    let daemon = Daemon::start(&config).unwrap();
    let metrics = Metrics::new(&config, &daemon);
    std::thread::scope(|scope| {
        for mut worker in everybody(&daemon) {
            scope.spawn(move || {
                let place = worker.place();
                let mut buffer = gradient(place.group, 0, D);
                // Each in its own way, so that no two agree.
                let mut lie = |_: u64, _: u32, shard: &mut [f32]| shard.iter_mut().for_each(|x| *x += place.row as f32);
                assert!(worker.exchange_tampered(&mut buffer, (place.group == 0).then_some(&mut lie)).is_err());
                worker.leave();
            });
        }
    });
    let page = series(&metrics.text());
    assert_eq!(page["solon_rounds_total{outcome=\"disagree\"}"], 1.0);
    assert_eq!(page["solon_rounds_total{outcome=\"complete\"}"], 0.0);
    assert_eq!(page["solon_round_seconds_count"], 1.0);
    assert_eq!(page["solon_round_residual_ratio_count"], 0.0);
    assert_eq!(page["solon_liars_named_total{found=\"in_time\"}"], 0.0, "nobody can tell who");
}

#[test]
fn credits_are_the_slots_that_wait_for_connected_workers() {
    let config = small();
    let daemon = Daemon::start(&config).unwrap();
    let metrics = Metrics::new(&config, &daemon);
    let join = JoinOptions::new(daemon.address().to_string(), "default", 3);
    let worker = Worker::join(&join).unwrap();
    // The worker is told that it is ready a moment before its slots are posted.
    let (_, page) = scrape_until(&metrics, |page| page["solon_credits"] == config.memory.credits as f64);
    assert_eq!(page["solon_worker_connected{worker=\"3\"}"], 1.0);
    assert_eq!(page["solon_group_connected_workers{group=\"0\"}"], 1.0);
    assert_eq!(page["solon_slots{pool=\"shards\"}"], config.memory.credits as f64);
    assert_eq!(page["solon_credits_capacity"], (WORKERS * config.memory.credits) as f64);
    worker.leave();
    scrape_until(&metrics, |page| page["solon_credits"] == 0.0 && page["solon_slots{pool=\"shards\"}"] == 0.0);
}

#[test]
fn nothing_that_a_peer_does_makes_a_new_series() {
    let config = small();
    let daemon = Daemon::start(&config).unwrap();
    let metrics = Metrics::new(&config, &daemon);
    let names = |page: &Page| page.keys().cloned().collect::<Vec<_>>();
    let before = names(&series(&metrics.text()));
    let address = daemon.address().to_string();
    for (job, worker) in [("evil{job=\"x\"}", 0), ("default", 4_000_000_000)] {
        assert!(Worker::join(&JoinOptions::new(&address, job, worker)).is_err());
    }
    TcpStream::connect(&address).unwrap().write_all(&[b'"'; 4096]).unwrap();
    rounds(&daemon);
    let (_, page) = scrape_until(&metrics, |page| {
        page["solon_connections_refused_total{reason=\"unreadable\"}"] == 1.0
            && page["solon_sessions_ended_total{reason=\"closed\"}"] == (WORKERS - 1) as f64
    });
    assert_eq!(names(&page), before);
    assert_eq!(page["solon_connections_refused_total{reason=\"unknown_job\"}"], 1.0);
    assert_eq!(page["solon_connections_refused_total{reason=\"no_such_worker\"}"], 1.0);
}

#[test]
fn promtool_has_nothing_to_say_of_a_scrape() {
    let config = small();
    let daemon = Daemon::start(&config).unwrap();
    let metrics = Metrics::new(&config, &daemon);
    rounds(&daemon);
    let (text, _) = after_rounds(&metrics);
    let Some(promtool) = promtool() else { return };
    let mut check = Command::new(promtool);
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().expect("promtool starts");
    check.stdin.take().expect("piped").write_all(text.as_bytes()).expect("promtool reads");
    let output = check.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat();
    assert!(output.status.success() && said.is_empty(), "{}\n{said}", output.status);
}

/// Where promtool is; `None`, which only tests outside of CI may get, if it is not to be had.
fn promtool() -> Option<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/metrics/promtool");
    let output = Command::new(script).arg(env!("CARGO_TARGET_TMPDIR")).output().expect("the script runs");
    if output.status.success() {
        return Some(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let required = std::env::var_os("SOLON_REQUIRE_TOOLS").is_some();
    assert!(!required, "this test needs promtool (Debian's package prometheus): {why}");
    eprintln!("left out: it needs promtool (Debian's package prometheus): {why}");
    None
}

#[test]
fn a_scrape_of_the_largest_job_stays_below_a_mebibyte() {
    let flags = [
        ["--job-dimension", "2000"],
        ["--job-groups", "16"],
        ["--job-adversaries", "20"],
        ["--job-stragglers", "4"],
        ["--job-compression", "20"],
        ["--chunks-width", "100"],
        ["--memory-credits", "2"],
        ["--cores-pin", "false"],
    ];
    let config = config(&flags.concat());
    let daemon = Daemon::start(&config).unwrap();
    assert_eq!(daemon.job().plan.parameters.workers(), 1024);
    let metrics = Metrics::new(&config, &daemon);
    let text = metrics.text();
    let count = series(&text).len();
    // Each value could be as long as a number is written at most: 0 is written now.
    let most = text.len() + 17 * count;
    // Of this thread alone: on a loaded machine the clock tells more about the others.
    let processor = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let scrape = |_| {
        let begun = processor();
        std::hint::black_box(metrics.text());
        processor() - begun
    };
    let mut took: Vec<Duration> = (0..21).map(scrape).collect();
    took.sort_unstable();
    println!("1024 workers: {count} series, {} bytes, at most {most}", text.len());
    println!("a scrape takes {:?} of the processor's time (median of 21)", took[10]);
    assert!(most < 1 << 20, "{most} bytes");
}

#[test]
fn every_metric_says_what_it_is() {
    let mut names = BTreeSet::new();
    for metric in SECTIONS.iter().flat_map(|section| section.metrics) {
        assert!(names.insert(metric.name), "{} is there once", metric.name);
        assert!(metric.name.starts_with("solon_") && metric.help.ends_with('.'), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        for text in [metric.help, metric.doc] {
            assert!(!text.contains(['\n', '|']) && !text.contains("  "), "{}: {text}", metric.name);
        }
    }
}

#[test]
fn metrics_may_be_read_on_any_thread() {
    fn shared<T: Send + Sync>() {}
    shared::<Metrics>();
}
