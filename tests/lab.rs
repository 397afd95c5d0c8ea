//! `solon lab` as a user runs it, on few workers and few steps: what it writes, that it goes on where it stopped, and its links.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use solon::lab::record::{self, Run, Shaping, Step};

const TOP: &str = r#"
title = "Tiny"
figures = ["accuracy-by-steps"]
data = "digits"
hidden = 16
batch = 60
rate = 0.1
momentum = 0.9
steps = 12
judge = 6
seeds = [1]
workers = 6
"#;

/// A directory with an experiment, `tiny.toml`.
struct Place(tempfile::TempDir);

impl Place {
    fn new(runs: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        std::fs::write(place.file(), format!("{TOP}{runs}")).unwrap();
        place
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("tiny.toml")
    }

    fn out(&self) -> PathBuf {
        self.0.path().join("out")
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_solon"));
        command.args(["lab", "run"]).arg(self.file()).arg("--out").arg(self.out()).args(flags);
        command.env_remove("SOLON_DATA");
        command
    }

    fn run(&self, flags: &[&str]) -> Output {
        let output = self.command(flags).output().expect("solon runs");
        assert!(output.status.success(), "{}", text(&output));
        output
    }

    fn records(&self) -> Vec<Run> {
        let mut all = record::load(&self.out()).unwrap();
        assert_eq!(all.len(), 1);
        all.pop().unwrap().1
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn wall(step: &Step) -> f64 {
    let Step { compute_ms, encode_ms, wire_ms, locate_ms, decode_ms, push_ms, apply_ms, .. } = *step;
    [compute_ms, encode_ms, wire_ms, locate_ms, decode_ms, push_ms, apply_ms].iter().sum()
}

#[test]
fn parts_of_every_step_add_up_and_the_code_keeps_to_the_honest_curve_under_liars_who_know_everything() {
    let place = Place::new(
        "[[runs]]\nrules = [\"mean\"]\nadversaries = 1\nattacks = [\"none\", \"reverse\"]\n\
         [[runs]]\nrules = [\"solon\"]\nadversaries = 1\ncompression = [1, 4]\nattacks = [\"reverse\", \"ipm\"]\n\
         [[runs]]\nrules = [\"solon\"]\nadversaries = 1\ncompression = [4]\nattacks = [\"reverse\"]\nwho = \"switching\"\n\
         [[runs]]\nrules = [\"cyclic\"]\nadversaries = 1\nattacks = [\"reverse\", \"ipm\", \"gaussian\"]\n",
    );
    place.run(&[]);
    let runs = place.records();
    assert_eq!(runs.len(), 10);
    for Run { manifest, steps, outcome } in &runs {
        let (variant, settings) = (&manifest.variant, &manifest.settings);
        assert_eq!((steps.len(), &outcome.stopped), (12, &None), "{variant}");
        assert_eq!(manifest.shaping, Shaping::None);
        let mut seconds = 0.0;
        for (at, step) in steps.iter().enumerate() {
            assert_eq!(step.step, at as u64 + 1);
            assert!((wall(step) - step.step_ms).abs() < 1e-6 * step.step_ms, "{variant}: {step:?}");
            let parts = [step.compute_ms, step.encode_ms, step.wire_ms, step.decode_ms, step.push_ms, step.apply_ms];
            assert!(parts.iter().all(|part| *part >= 0.0) && step.compute_busy_ms <= step.compute_ms, "{step:?}");
            assert!(step.bytes_up > 0 && step.bytes_down > 0 && !step.undecodable);
            // That the daemon's word on every round has come, and is placed.
            assert!(step.decode_busy_ms > 0.0, "{variant}: {step:?}");
            seconds += step.step_ms / 1e3;
            assert!((step.seconds - seconds).abs() < 1e-9);
            assert_eq!(step.accuracy.is_some(), [0, 5, 11].contains(&at), "{variant}: {step:?}");
        }
        let last = steps.last().unwrap();
        assert_eq!(outcome.accuracy, last.accuracy);
        let coded = settings.is_exact();
        match (outcome.difference, settings.attack.is_some() && !coded) {
            (difference, true) => assert!(difference.is_none_or(|it| it > 0.1), "{variant}: {difference:?}"),
            (difference, false) => assert!(difference.is_some_and(|it| it <= 1e-5), "{variant}: {difference:?}"),
        }
        let liars = settings.liars(manifest.seed).filter(|_| coded);
        for step in steps {
            let lying = liars.as_ref().map_or(Vec::new(), |liars| liars.of(step.step - 1));
            let named: Vec<usize> = step.named.split_whitespace().map(|word| word.parse().unwrap()).collect();
            assert_eq!(named, lying, "{variant}, step {}", step.step);
        }
    }
    // A coded shard is a quarter of the gradient.
    let up = |rule, compression| {
        let is = |run: &&Run| run.manifest.settings.compression == compression && run.manifest.settings.rule == rule;
        runs.iter().find(is).unwrap().steps[3].bytes_up as f64
    };
    assert!((3.5..4.5).contains(&(up("solon", 1) / up("solon", 4))));
    // A complex number of f64 is four times as long as a number.
    assert!((3.5..4.5).contains(&(up("cyclic", 1) / up("solon", 1))));
}

#[test]
fn more_liars_than_are_corrected_end_the_run_and_the_record_says_so() {
    let place = Place::new("[[runs]]\nrules = [\"solon\"]\nadversaries = 1\nliars = 2\nattacks = [\"gaussian\"]\n");
    place.run(&[]);
    let run = place.records().pop().unwrap();
    assert!(run.steps.last().unwrap().undecodable && run.steps.len() < 12);
    assert!(run.outcome.stopped.unwrap().contains("undecodable at step"));
}

#[test]
fn time_that_is_emulated_is_waited_for_and_what_was_computed_is_told_apart() {
    let place = Place::new(
        "[[runs]]\nrules = [\"solon\"]\nadversaries = 1\ncompression = [4]\ngradient-times = [\"500 us\"]\n",
    );
    place.run(&[]);
    let run = place.records().pop().unwrap();
    // One group: every worker computes all 60 samples.
    assert!(run.steps.iter().all(|step| step.compute_ms >= 30.0), "{:?}", run.steps);
    assert!(run.steps.iter().all(|step| step.compute_busy_ms < step.compute_ms));
}

/// Reads what a lab prints until a line has `word` in it.
fn read_until(child: &mut Child, word: &str) -> BufReader<std::process::ChildStdout> {
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the lab ended before it said {word}");
    }
    lines
}

#[test]
fn a_lab_that_was_stopped_goes_on_with_what_is_missing() {
    let runs = "[[runs]]\nrules = [\"mean\"]\n[[runs]]\nrules = [\"solon\"]\nadversaries = 1\ncompression = [1, 4]\n";
    let place = Place::new(runs);
    let many = std::fs::read_to_string(place.file()).unwrap();
    let many = many.replace("seeds = [1]", "seeds = [1, 2, 3]").replace("steps = 12", "steps = 300");
    std::fs::write(place.file(), many).unwrap();
    let mut lab = place.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut rest = read_until(&mut lab, "[1/9]");
    kill_process(Pid::from_child(&lab), Signal::INT).unwrap();
    let mut said = String::new();
    rest.read_to_string(&mut said).unwrap();
    let output = lab.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{said}{}", text(&output));
    assert!(text(&output).contains("goes on where it stopped"));
    let there = place.records();
    assert!((1..9).contains(&there.len()), "{} runs are whole", there.len());

    let second = text(&place.run(&[]));
    assert!(second.contains(&format!("{} runs are there already", there.len())), "{second}");
    let all = place.records();
    assert_eq!(all.len(), 9);
    let began = |runs: &[Run]| runs.iter().map(|run| run.manifest.began).min();
    assert_eq!(began(&all), began(&there), "what was there stayed");

    // Other settings are other runs, and those that are whole stay out of it.
    let other = std::fs::read_to_string(place.file()).unwrap().replace("steps = 300", "steps = 12");
    std::fs::write(place.file(), other).unwrap();
    let third = text(&place.run(&["--only", "c4"]));
    assert!(third.contains("[3/3]") && !third.contains("already"), "{third}");
    assert!(third.contains("3 runs are of other settings: run anew"), "{third}");
    assert!(third.contains("6 runs that were not asked for"), "{third}");
    assert_eq!(place.records().len(), 3, "those of other settings are there, and in no table");
    assert!(text(&place.run(&["--only", "c4"])).contains("3 runs are there already"));
    assert!(text(&place.run(&["--only", "c4", "--fresh"])).contains("[3/3]"));
}

#[test]
fn records_that_the_same_command_would_not_make_again_are_run_anew_and_it_is_said() {
    let place = Place::new(
        "[[runs]]\nrules = [\"mean\"]\n\
         [[runs]]\nrules = [\"solon\"]\nadversaries = 1\ncompression = [4]\n",
    );
    let difference = || {
        let records = place.records();
        records.iter().find(|run| run.manifest.settings.rule == "solon").unwrap().outcome.difference
    };
    place.run(&["--only", "solon"]);
    assert_eq!(difference(), None);
    assert!(text(&place.run(&["--only", "solon"])).contains("1 runs are there already"), "nothing to compare it with");
    let compared = text(&place.run(&[]));
    assert!(compared.contains("1 runs are not compared with the weights of the honest mean: run anew"), "{compared}");
    assert!(compared.contains("[2/2]") && difference().is_some_and(|it| it <= 1e-5), "{compared}");
    assert!(text(&place.run(&[])).contains("2 runs are there already"));

    let home = |run: &Run| place.out().join("tiny").join(record::place(&run.manifest.variant, run.manifest.seed));
    let (mean, solon) = {
        let mut all = place.records();
        (all.remove(0), all.remove(0))
    };
    assert_eq!(mean.manifest.build, solon.manifest.build);
    for (change, said) in [
        (("build", mean.manifest.build.as_str()), "1 runs are of another build of this program: run anew"),
        (("machine", mean.manifest.machine.as_str()), "1 runs are of another machine: run anew"),
        (("shaping", "none"), "1 runs are over a link that was shaped in another way: run anew"),
    ] {
        let (key, value) = change;
        let file = home(&mean).join("manifest.json");
        let other = if key == "shaping" { "pacing" } else { "another" };
        let manifest = std::fs::read_to_string(&file).unwrap();
        let changed = manifest.replace(&format!("\"{key}\": \"{value}\""), &format!("\"{key}\": \"{other}\""));
        assert_ne!(changed, manifest, "{key}");
        std::fs::write(&file, changed).unwrap();
        let again = text(&place.run(&[]));
        assert!(again.contains(said) && again.contains("[1/1]"), "{again}");
    }
    std::fs::remove_file(home(&mean).with_extension("weights")).unwrap();
    assert!(text(&place.run(&[])).contains("[1/1]"), "the mean without its weights is of no use");
    assert!(text(&place.run(&[])).contains("2 runs are there already"));
}

/// Looks until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_lab_that_is_killed_leaves_no_gradients_in_memory() {
    let place = Place::new("[[runs]]\nrules = [\"mean\"]\n");
    let long = std::fs::read_to_string(place.file()).unwrap().replace("steps = 12", "steps = 1000000");
    std::fs::write(place.file(), long).unwrap();
    let mut lab = place.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let file = format!("/dev/shm/solon-lab-{}", lab.id());
    if !Path::new("/dev/shm").is_dir() {
        eprintln!("skipped: there is no /dev/shm");
    } else {
        // Once all have joined nobody finds it any more, while workers still have it.
        let gone = format!("{file} (deleted)");
        let maps = format!("/proc/{}/maps", lab.id());
        until("the file is unlinked while it is in use", || {
            std::fs::read_to_string(&maps).is_ok_and(|maps| maps.contains(&gone))
        });
    }
    lab.kill().unwrap();
    lab.wait().unwrap();
    assert!(!Path::new(&file).exists());
}

#[test]
fn an_end_of_a_probe_that_nobody_asks_ends_with_the_lab() {
    let mut serve = Command::new(env!("CARGO_BIN_EXE_solon"))
        .args(["lab-probe", "serve", "127.0.0.1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(&mut serve, "127.0.0.1:");
    drop(serve.stdin.take());
    until("it has ended", || serve.try_wait().unwrap().is_some());
}

#[test]
fn a_reader_who_has_seen_enough_ends_the_list_in_peace() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output =
        Command::new(env!("CARGO_BIN_EXE_solon")).args(["lab", "list"]).stdout(writer).output().expect("solon runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
}

fn probed(shaping: &str) -> Result<(Shaping, [f64; 2]), String> {
    let place = Place::new("[[runs]]\nrules = [\"mean\"]\nlinks = [\"80 Mb/s\"]\n");
    let mut lab = place.command(&["--shaping", shaping]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = lab.id();
    let (mut said, mut errors) = (String::new(), String::new());
    lab.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    lab.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    if !lab.wait().unwrap().success() {
        return Err(said + &errors);
    }
    let listed = Command::new("ip").args(["netns", "list"]).output();
    let left = listed.is_ok_and(|output| text(&output).contains(&format!("solon-lab-{process}-")));
    assert!(!left, "namespaces of process {process} are left");
    assert!(!Path::new(&format!("/dev/shm/solon-lab-{process}")).exists(), "its gradients are left");
    let run = place.records().pop().unwrap();
    Ok((run.manifest.shaping, run.outcome.probed.unwrap()))
}

fn is_near(rate: f64, probed: [f64; 2]) {
    // A link gives no more than its rate, but for its bucket; how much less, on a machine with other work, is not said.
    assert!(probed.iter().all(|found| (0.1 * rate..1.3 * rate).contains(found)), "{probed:?} instead of {rate}");
}

#[test]
fn a_link_is_held_to_its_rate_by_pacing() {
    let (shaping, found) = probed("pacing").unwrap();
    assert_eq!(shaping, Shaping::Pacing);
    is_near(1e7, found);
}

#[test]
fn a_link_is_held_to_its_rate_by_namespaces_which_are_removed() {
    match probed("namespaces") {
        Ok((shaping, found)) => {
            assert_eq!(shaping, Shaping::Namespaces);
            is_near(1e7, found);
        }
        Err(why) if std::env::var_os("SOLON_REQUIRE_TOOLS").is_none() && why.contains("cannot be made") => {
            eprintln!("skipped: {why}");
        }
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn experiments_that_cannot_be_are_refused_with_where_and_what_instead() {
    let place = Place::new("[[runs]]\nrules = [\"solon\"]\nadversaries = 2\n");
    let output = place.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(65));
    let said = text(&output);
    assert!(said.contains("tiny, line 13: solon: 6 workers") && said.contains("expected a multiple of 5"), "{said}");
    assert!(!place.out().exists());

    let solon = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_solon")).args(arguments).output().unwrap();
    let unknown = solon(&["lab", "run", "robust"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", text(&unknown));
    assert!(text(&unknown).contains("robustness, race"));
    let listed = text(&solon(&["lab", "list", "race"]));
    assert!(listed.contains("Time to the same accuracy") && listed.contains("solon-p45-f5-c5"), "{listed}");
}
