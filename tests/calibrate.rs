//! `solon calibrate` with a job whose replicas do not compute the same bits.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Solond, distance, gradient};
use solon::client::{ClientError, JoinOptions, Worker};

const D: usize = 5000;
const JOB: &str = "[job]\ndimension = 5000\n\n[chunks]\nwidth = 512\n";
/// Relative noise of a replica, as GPU kernels that are not deterministic have it.
const NOISE: f32 = 2e-4;

/// A worker's gradient: that of its group, and in group 1 noise of its own.
fn noisy(worker: &Worker, round: u64) -> Vec<f32> {
    let (group, row) = (worker.place().group, worker.place().row as u64);
    let mut numbers = gradient(group, round, D);
    if group == 1 {
        let mut state = round << 20 ^ row << 8 ^ 0x9e37_79b9;
        for number in &mut numbers {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *number *= 1.0 + NOISE * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0);
        }
    }
    numbers
}

fn calibration(config: &Path, more: &[&str]) -> (Child, String, BufReader<std::process::ChildStderr>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_solon"))
        .args(["calibrate", "--config"])
        .arg(config)
        .args(more)
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    let address = line.strip_prefix("calibrating at ").and_then(|rest| rest.split_once(": ")).map(|(at, _)| at);
    let address = address.unwrap_or_else(|| panic!("{line}")).to_owned();
    (child, address, errors)
}

/// Has twelve workers take part until the daemon ends.
fn take_part(address: &str, lies: impl Fn(usize) -> bool + Sync) {
    let join = |worker: usize| Worker::join(&JoinOptions::new(address, "default", worker as u32)).unwrap();
    let workers: Vec<Worker> = (0..12).map(join).collect();
    std::thread::scope(|scope| {
        for mut worker in workers {
            let lies = &lies;
            scope.spawn(move || {
                loop {
                    let round = worker.next_round();
                    let mut buffer = noisy(&worker, round);
                    if lies(worker.index()) {
                        buffer.iter_mut().for_each(|number| *number *= -100.0);
                    }
                    match worker.exchange(&mut buffer) {
                        Ok(_) => assert!(lies(worker.index()) || distance(&buffer, 2, round) < 1e-3),
                        Err(ClientError::AggregatorLost { .. }) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
}

#[test]
fn the_tolerance_that_is_found_lets_noise_pass_and_no_lie() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("solond.toml");
    std::fs::write(&config, JOB).unwrap();
    let (mut child, address, mut errors) =
        calibration(&config, &["--rounds", "30", "--write", "--json", "--", "--listen-address", "127.0.0.1:0"]);
    take_part(&address, |_| false);
    let (mut out, mut said) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    errors.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    println!("{found}");
    let number = |at: &serde_json::Value| at.as_f64().unwrap();
    assert!(number(&found["rounds"]) >= 30.0 && number(&found["lies"]) == 0.0);
    let most: Vec<f64> = (0..2).map(|group| number(&found["groups"][group]["most"])).collect();
    assert!(most[0] < 1e-6, "group 0 computes the same bits: {most:?}");
    assert!((f64::from(NOISE) / 8.0..f64::from(NOISE) * 8.0).contains(&most[1]), "{most:?}");
    let suggested = number(&found["suggested"]);
    assert!((suggested / most[1]) >= 4.0 && suggested / most[1] < 4.5, "{suggested} {most:?}");
    let written = std::fs::read_to_string(&config).unwrap();
    assert!(written.starts_with(JOB) && written.contains(&format!("tolerance = {:e}", suggested as f32)), "{written}");

    // With it the job runs, and who lies is named; without it no round of it can be told from lies.
    let path = config.to_str().unwrap();
    for (calibrated, flags) in [(true, vec![]), (false, vec!["--verify-tolerance", "3.5762787e-7"])] {
        let mut solond = Solond::start(
            &[&["--config", path, "--rounds-linger-ms", "30000", "--rounds-deadline-ms", "30000"], &flags[..]].concat(),
        );
        let outcomes = solond.all(12, |index, mut worker| {
            let mut named = Vec::new();
            for round in 0..10 {
                let mut buffer = noisy(&worker, round);
                if index == 8 {
                    let lie = 100.0 * suggested as f32;
                    buffer
                        .iter_mut()
                        .enumerate()
                        .for_each(|(at, number)| *number *= 1.0 + if at % 2 == 0 { lie } else { -lie });
                }
                match worker.exchange(&mut buffer) {
                    Ok(report) => named.push(report.liars.iter().collect::<Vec<_>>()),
                    Err(ClientError::Undecodable { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            named
        });
        if calibrated {
            assert!(
                outcomes.iter().all(|named| named.len() == 10 && named.iter().all(|liars| *liars == [8])),
                "{outcomes:?}"
            );
        } else {
            assert!(outcomes.iter().all(Vec::is_empty), "{outcomes:?}");
        }
        solond.signal("-TERM");
        assert_eq!(solond.exit_code(), Some(0));
    }
}

#[test]
fn what_is_no_noise_is_named_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("solond.toml");
    std::fs::write(&config, JOB).unwrap();
    let (mut child, address, mut errors) =
        calibration(&config, &["--rounds", "5", "--write", "--", "--listen-address", "127.0.0.1:0"]);
    take_part(&address, |worker| worker == 7);
    let mut said = String::new();
    errors.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    assert!(
        said.contains("worker lied") && said.contains("worker=7") && said.contains("nothing was written"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&config).unwrap(), JOB);
}

#[test]
fn a_job_that_checks_nothing_or_a_wrong_configuration_is_refused() {
    let run = |flags: &[&str]| {
        let run = Command::new(env!("CARGO_BIN_EXE_solon"))
            .args(["calibrate", "--"])
            .args(flags)
            .env_clear()
            .output()
            .unwrap();
        (run.status.code(), String::from_utf8(run.stderr).unwrap())
    };
    let mean = ["--job-rule", "mean", "--job-adversaries", "0", "--job-compression", "1"];
    let (code, said) = run(&[&mean[..], &["--job-dimension", "10", "--listen-address", "127.0.0.1:0"]].concat());
    assert!(code == Some(78) && said.contains("which compares no shards"), "{code:?} {said}");
    let (code, said) = run(&["--job-dimension", "-1"]);
    assert!(code == Some(78) && said.contains("job.dimension"), "{code:?} {said}");
}
