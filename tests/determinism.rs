//! The same gradients and liars give the same bits, however the daemon is laid out and in whatever order shards arrive; or,
//! where it does not wait for all of them, nearly the same, and the same for everybody.

mod common;

use std::time::{Duration, Instant};

use common::{Dice, config, distance, gradient, lie};
use solon::client::{JoinOptions, Source, Worker};
use solon::daemon::config::Config;
use solon::daemon::serve::{Daemon, job_of};
use solon::pipeline::{Bells, Pipeline};

const D: usize = 2003;
const GROUPS: usize = 2;
const LIARS: usize = 2;
const WORKERS: usize = 14;
const ROUNDS: u64 = 6;
/// Far beyond what a test may take: whoever waits for it has failed.
const LONG: &str = "600000";

/// Per round: the update's bits, and its digest.
type Updates = Vec<(Vec<u32>, u64)>;

fn settings(linger: &str, more: &[&str]) -> Config {
    let mut flags = vec!["--job-dimension", "2003", "--job-groups", "2", "--job-stragglers", "1"];
    flags.extend(["--chunks-width", "64", "--cores-pin", "false"]);
    flags.extend(["--rounds-deadline-ms", LONG, "--rounds-linger-ms", linger]);
    flags.extend(more);
    config(&flags)
}

fn bits(update: &[f32]) -> Vec<u32> {
    update.iter().map(|x| x.to_bits()).collect()
}

/// The bits alone: frames of another daemon have another epoch, and so another digest.
fn updates_of(updates: &Updates) -> Vec<&[u32]> {
    updates.iter().map(|(update, _)| update.as_slice()).collect()
}

/// What all workers got, which must be one and the same.
fn common_to_all(of_workers: Vec<Updates>) -> Updates {
    let mut all = of_workers.into_iter();
    let first = all.next().expect("a worker");
    assert!(all.all(|other| other == first), "every worker has the same updates and digests");
    first
}

/// Rounds in one thread over memory, in which chance says whose turn it is and who is heard.
fn over_memory(config: &Config, lanes: usize, seed: u64) -> Updates {
    let mut dice = Dice::new(seed);
    let job = job_of(config, [seed as u8; 32], seed).unwrap();
    let mut pipeline = Pipeline::new(&job, &Bells::silent(lanes));
    let mut now = Instant::now();
    let mut sessions = common::sessions_over_memory(&job, &mut pipeline, now);
    let r = job.plan.parameters.redundancy();
    let mut updates: Vec<Updates> = vec![Vec::new(); WORKERS];
    for round in 0..ROUNDS {
        let gradients: Vec<_> = (0..GROUPS).map(|group| gradient(group, round, D)).collect();
        sessions.iter_mut().for_each(|session| assert_eq!(session.begin().unwrap(), round));
        let mut buffer = vec![0.0; D];
        while updates.iter().any(|of| of.len() <= round as usize) {
            let worker = dice.roll(WORKERS);
            let session = &mut sessions[worker];
            let mut tamper = |round, _, shard: &mut [f32]| lie(worker % r, r, LIARS, round, shard);
            session.pump(Source::Separate(&gradients[worker / r]), Some(&mut tamper));
            session.drive(now, None).unwrap();
            if updates[worker].len() <= round as usize
                && let Some(result) = session.collect(&mut buffer)
            {
                let (_, report) = result.unwrap();
                updates[worker].push((bits(&buffer), report.digest));
            }
            for _ in 0..dice.roll(3) {
                pipeline.step(now);
            }
            // Far too little to get near a deadline.
            now += Duration::from_micros(dice.roll(3) as u64);
        }
    }
    common_to_all(updates)
}

/// Rounds over TCP, every worker a thread.
fn over_tcp(config: &Config) -> Updates {
    let daemon = Daemon::start(config).unwrap();
    let address = daemon.address().to_string();
    let join = |worker| {
        let mut options = JoinOptions::new(&address, &config.job.name, worker);
        options.round_timeout = Duration::from_secs(60);
        Worker::join(&options).unwrap()
    };
    let workers: Vec<Worker> = (0..WORKERS as u32).map(join).collect();
    let r = config.job.parameters.redundancy();
    // Who is not yet counted is not waited for.
    while (0..GROUPS).any(|group| daemon.handle().board.connected(group).count() < r) {
        std::thread::yield_now();
    }
    let rounds = |mut worker: Worker| {
        let place = worker.place();
        let mut updates = Updates::new();
        for round in 0..ROUNDS {
            let mut buffer = gradient(place.group, round, D);
            let mut tamper = |round, _: u32, shard: &mut [f32]| lie(place.row, r, LIARS, round, shard);
            let report = worker.exchange_tampered(&mut buffer, Some(&mut tamper)).unwrap();
            updates.push((bits(&buffer), report.digest));
        }
        updates
    };
    let updates = std::thread::scope(|scope| {
        let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(|| rounds(worker))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    daemon.stop().unwrap();
    common_to_all(updates)
}

const ONE_REACTOR: &str = r#"[["receive", "assemble", "decode", "push"]]"#;
const TWO_REACTORS: &str = r#"[["receive", "assemble", "push"], ["decode"]]"#;
const TWO_LANES: &str = r#"[["receive", "assemble"], ["decode", "push"], ["decode"]]"#;
const APART: &str = r#"[["receive"], ["assemble", "push"], ["decode"]]"#;
const MAPS: [&str; 4] = [ONE_REACTOR, TWO_REACTORS, TWO_LANES, APART];

#[test]
fn waiting_for_all_gives_the_same_bits_in_any_order_with_any_lanes_and_over_any_transport() {
    let config = settings(LONG, &[]);
    let expected = over_memory(&config, 1, 1);
    for (round, (update, _)) in expected.iter().enumerate() {
        let update: Vec<f32> = update.iter().map(|bits| f32::from_bits(*bits)).collect();
        assert!(distance(&update, GROUPS, round as u64) < 1e-6, "round {round}");
    }
    for lanes in 1..=3 {
        for seed in 2..8 {
            let found = over_memory(&config, lanes, seed);
            assert!(updates_of(&found) == updates_of(&expected), "{lanes} lanes, seed {seed}");
        }
    }
    for map in MAPS {
        let found = over_tcp(&settings(LONG, &["--cores-map", map]));
        assert!(updates_of(&found) == updates_of(&expected), "{map}");
    }
}

#[test]
fn not_waiting_gives_everybody_the_same_and_nearly_the_same_as_waiting() {
    let expected = over_memory(&settings(LONG, &[]), 1, 1);
    let mut found: Vec<Updates> =
        (1..=3).flat_map(|lanes| (10..13).map(move |seed| over_memory(&settings("0", &[]), lanes, seed))).collect();
    found.extend(MAPS.map(|map| over_tcp(&settings("0", &["--cores-map", map]))));
    let differs = |updates: &Updates| updates_of(updates) != updates_of(&expected);
    assert!(found.iter().any(differs), "else this test compares nothing");
    for updates in &found {
        for (round, ((update, _), (other, _))) in updates.iter().zip(&expected).enumerate() {
            let number = |bits: &u32| f64::from(f32::from_bits(*bits));
            let norm = other.iter().map(|x| number(x).powi(2)).sum::<f64>().sqrt();
            let off = update.iter().zip(other).map(|(x, y)| (number(x) - number(y)).powi(2)).sum::<f64>().sqrt();
            assert!(off <= 1e-5 * norm, "round {round}: relative error {}", off / norm);
        }
    }
}
