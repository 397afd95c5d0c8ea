mod properties;

use super::*;
use crate::daemon::settings::{DefaultValue, SETTINGS, Setting};
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// What is loaded from this file (if not empty), these variables, and these arguments.
fn request(file: &str, env: &[(&str, &str)], args: &[&str]) -> Result<Request, Refusal> {
    let mut line = vec!["solond"];
    if !file.is_empty() {
        line.extend(["--config", "s.toml"]);
    }
    line.extend(args);
    let env: Vec<(OsString, OsString)> = env.iter().map(|(name, text)| (name.into(), text.into())).collect();
    let read = |path: &Path| {
        assert_eq!(path, Path::new("s.toml"));
        Ok(file.to_owned())
    };
    load(line.into_iter().map(OsString::from), env, &read)
}

fn loaded(file: &str, env: &[(&str, &str)], args: &[&str]) -> Loaded {
    match request(file, env, args) {
        Ok(Request::Serve(loaded)) => *loaded,
        other => panic!("{other:?}"),
    }
}

fn config(file: &str) -> Config {
    loaded(file, &[], &[]).config
}

fn answer(file: &str, args: &[&str]) -> String {
    match request(file, &[], args) {
        Ok(Request::Answer(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn problems(file: &str, env: &[(&str, &str)], args: &[&str]) -> Vec<Problem> {
    match request(file, env, args) {
        Err(Refusal::Wrong { problems, .. }) => problems,
        other => panic!("{other:?}"),
    }
}

/// The one problem of `file`, as text.
fn problem(file: &str) -> String {
    let problems = problems(file, &[], &[]);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].to_string()
}

fn line(problem: &Problem) -> usize {
    match &problem.place {
        Place::File { path, line } if path == "s.toml" => *line,
        other => panic!("{other:?}"),
    }
}

const LEAST: &str = "job.dimension = 1000\n";

#[test]
fn defaults_are_those_of_the_design() {
    let config = config(LEAST);
    assert_eq!(config.job.parameters, Parameters::new(2, 2, 0, 2).unwrap());
    assert_eq!((config.job.name.as_str(), config.job.rule, config.job.dimension), ("default", Rule::Solon, 1000));
    assert_eq!((config.job.scale, config.job.code), (1.0, Generator::Systematic));
    assert_eq!(config.chunks.width, 16_384);
    assert_eq!(
        config.rounds,
        Rounds { window: 2, deadline: Duration::from_secs(10), linger: Duration::ZERO, begin: Begin::Any }
    );
    assert_eq!(
        config.verify,
        Verify { tolerance: 6.0 / 16_777_216.0, projections: 4, check: Check::Random, mixed: Mixed::Warn }
    );
    assert_eq!(
        config.listen,
        Listen {
            address: "127.0.0.1:7447".parse().unwrap(),
            transport: Transport::Auto,
            admission: Admission::Loopback,
            handshake: Duration::from_secs(2),
            connections_per_second: 200,
            write_deadline: Duration::from_secs(2),
        }
    );
    assert_eq!(config.rdma, rdma::Options::default());
    assert_eq!(config.memory, Memory { credits: 8, updates: 16, huge_pages: HugePages::Auto });
    assert_eq!(config.cores, Cores { map: CoreMap::Auto, pin: true, idle: Idle::Auto });
    assert_eq!(config.state.directory, None);
    assert_eq!(config.log, Log { format: LogFormat::Text, level: Level::Info });
    assert_eq!(config.layout(), Layout::new(1000, 2, 16_384));
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let file = "[job]\ndimension = 1000\ngroups = 3\n[memory]\ncredits = 9\nupdates = 20\n[rounds]\nwindow = 3\n";
    let env = [("SOLON_MEMORY_CREDITS", "10"), ("SOLON_MEMORY_UPDATES", "21")];
    let loaded = loaded(file, &env, &["--memory-updates", "22"]);
    assert_eq!(loaded.config.job.parameters.groups(), 3);
    assert_eq!(loaded.config.memory, Memory { credits: 10, updates: 22, huge_pages: HugePages::Auto });
    let printed = loaded.print();
    for (setting, place) in [
        ("groups = 3", "# s.toml:3"),
        ("credits = 10", "# environment SOLON_MEMORY_CREDITS"),
        ("updates = 22", "# flag --memory-updates"),
        ("adversaries = 2", "# default"),
    ] {
        assert!(printed.lines().any(|line| line.starts_with(setting) && line.ends_with(place)), "{setting}\n{printed}");
    }
}

/// For a setting: another value than its default, and what else must be in the file for that.
fn other(setting: &Setting) -> (&'static str, &'static str) {
    match setting.name().as_str() {
        "job.name" => ("\"other\"", ""),
        "job.rule" => ("\"mean\"", "job.adversaries = 0\njob.compression = 1\n"),
        "job.groups" | "job.adversaries" | "job.compression" | "rounds.window" | "memory.credits" => ("3", ""),
        "job.stragglers" | "verify.projections" => ("1", ""),
        "job.workers" => ("12", ""),
        "job.dimension" => ("77", ""),
        "job.scale" => ("-0.25", ""),
        "job.weights" => ("[1.0, 2.0, 0.1]", "job.rule = \"median\"\njob.groups = 3\njob.adversaries = 1\n"),
        "job.code" => ("\"dense\"", ""),
        "job.precision" | "push.precision" => ("\"bf16\"", ""),
        "chunks.width" | "memory.updates" | "listen.connections_per_second" => ("100", ""),
        "rounds.deadline_ms" | "rounds.linger_ms" | "listen.handshake_ms" | "listen.write_deadline_ms" => ("1_500", ""),
        "verify.check" => ("\"full\"", ""),
        "rounds.begin_with" => ("\"all\"", ""),
        "verify.mixed" => ("\"refuse\"", ""),
        "verify.tolerance" => ("1e-6", ""),
        "listen.address" => ("\"[::1]:80\"", ""),
        "listen.transport" => ("\"tcp\"", ""),
        "listen.token_file" => ("\"tokens\"", ""),
        "listen.open" => ("true", "listen.address = \"0.0.0.0:1\"\n"),
        "rdma.devices" => ("\"^=mlx5_2:1,mlx5_3\"", ""),
        "rdma.gid_index" | "rdma.service_level" | "rdma.ack_timeout" | "rdma.retries" => ("3", ""),
        "rdma.mtu" => ("2048", ""),
        "rdma.traffic_class" => ("106", ""),
        "push.way" => ("\"relay\"", ""),
        "push.repair_ms" => ("1_500", ""),
        "memory.huge_pages" => ("\"off\"", ""),
        "cores.map" => ("[[\"receive\", \"assemble\", \"push\"], [\"decode\"], [\"decode\"]]", ""),
        "cores.pin" => ("false", ""),
        "cores.idle" => ("\"yield\"", ""),
        "state.directory" => ("\"/var/lib/solond\"", ""),
        "admin.serve" => ("false", ""),
        "admin.address" => ("\"[::1]:80\"", ""),
        "admin.open" => ("true", "admin.address = \"0.0.0.0:1\"\n"),
        "log.format" => ("\"json\"", ""),
        "log.level" => ("\"trace\"", ""),
        name => panic!("say here which other value {name} takes"),
    }
}

#[test]
fn every_setting_can_be_set_in_the_file_the_environment_and_by_flag() {
    for setting in SETTINGS {
        let (text, companions) = other(setting);
        let dimension = if setting.key == "dimension" { "" } else { LEAST };
        let base = format!("{dimension}{companions}#");
        let bare = text.trim_matches('"');
        let from_file = config(&format!("{dimension}{companions}{} = {text}\n", setting.name()));
        let from_env = loaded(&base, &[(&setting.environment(), bare)], &[]);
        let from_flag = loaded(&base, &[], &[&format!("--{}", setting.flag()), bare]);
        assert_eq!(from_env.config, from_file, "{}", setting.name());
        assert_eq!(from_flag.config, from_file, "{}", setting.name());
        let entry = from_flag.print();
        assert!(entry.contains(&format!("# flag --{}", setting.flag())), "{entry}");
        if setting.key == "workers" {
            continue; // It is only checked: the configuration stays the same.
        }
        // It must also change something: a setting that nothing reads is a lie.
        let without = match companions {
            "listen.address = \"0.0.0.0:1\"\n" | "admin.address = \"0.0.0.0:1\"\n" => None,
            "" if dimension.is_empty() => None,
            _ => Some(config(&base)),
        };
        assert_ne!(Some(&from_file), without.as_ref(), "{}", setting.name());
    }
}

#[test]
fn an_empty_text_takes_back_an_optional_setting() {
    let file = "job.dimension = 9\nstate.directory = \"/s\"\njob.workers = 12\n";
    let config = loaded(file, &[("SOLON_STATE_DIRECTORY", "")], &["--job-workers="]).config;
    assert_eq!(config.state.directory, None);
    assert!(problems(file, &[("SOLON_JOB_NAME", "")], &[])[0].to_string().contains("found the text \"\""));
}

#[test]
fn a_switch_needs_no_value_as_a_flag() {
    let loaded = loaded(LEAST, &[], &["--listen-open", "--listen-address", "0.0.0.0:7447", "--cores-pin=false"]);
    assert_eq!(loaded.config.listen.admission, Admission::Open);
    assert!(!loaded.config.cores.pin);
}

#[test]
fn everything_wrong_is_listed_at_once_with_its_line() {
    let file = r#"# line 1
[job]
name = "Résumé"
groups = "3"
adversary = 1
stragglers = 64
tolerance = 1e-6

[chunk]
width = 1

[rounds]
window = 9
deadline_ms = true
linger_ms = -1

[cores]
map = [
  ["receive", "asemble"],
  ["decode", "decode"],
  [],
  7,
]

[log]
level = "warning"

[log.format]
x = 1
"#;
    let env = [("SOLON_MEMORY_CREDITS", "many")];
    let found = problems(file, &env, &["--cores-idle", "sleep", "--verify-tolerance", "1.5"]);
    let text: Vec<String> = found.iter().map(Problem::to_string).collect();
    let expected = [
        "s.toml:2: job.dimension: found no value, expected an integer from 1 to 1099511627776; write it like dimension = \
         25557032 under [job] in s.toml, or give --job-dimension or SOLON_JOB_DIMENSION",
        "s.toml:3: job.name: found the text \"Résumé\", expected a name of 1 to 64 characters out of a-z, 0-9, '.', '_' \
         and '-'; write for example \"r-sum-\"",
        "s.toml:4: job.groups: found the text \"3\", expected an integer from 1 to 65536; write it without quotes: groups = 3",
        "s.toml:5: [job]: found the unknown key \"adversary\", expected a setting of [job]; did you mean adversaries?",
        "s.toml:6: job.stragglers: found 64, expected an integer from 0 to 63; use at most 63",
        "s.toml:7: [job]: found the unknown key \"tolerance\", expected a setting of [job]; it belongs under [verify]",
        "s.toml:9: the file: found the unknown section \"chunk\", expected one of [job] [chunks] [rounds] [verify] [listen] \
         [rdma] [push] [memory] [cores] [state] [admin] [log]; did you mean [chunks]?",
        "s.toml:13: rounds.window: found 9, expected an integer from 2 to 8; use at most 8",
        "s.toml:14: rounds.deadline_ms: found true, expected an integer from 1 to 3600000; write it like deadline_ms = 10000",
        "s.toml:15: rounds.linger_ms: found -1, expected an integer from 0 to 3600000; use at least 0",
        "s.toml:19: cores.map: found the text \"asemble\", expected receive, assemble, decode or push; did you mean \
         \"assemble\"?",
        "s.toml:20: cores.map: found \"decode\" twice on one core, expected each stage at most once per core; remove one",
        "s.toml:21: cores.map: found an array of 0, expected an array of at least one stage; write for example map = \
         [[\"receive\", \"assemble\"], [\"decode\"], [\"push\"]]",
        "s.toml:22: cores.map: found 7, expected an array of at least one stage; write for example map = [[\"receive\", \
         \"assemble\"], [\"decode\"], [\"push\"]]",
        "s.toml:26: log.level: found the text \"warning\", expected \"error\" or \"warn\" or \"info\" or \"debug\" or \
         \"trace\"; write it like level = \"info\"",
        "s.toml:28: log.format: found a table, expected \"text\" or \"json\"; write it like format = \"text\"",
        "environment SOLON_MEMORY_CREDITS: memory.credits: found the text \"many\", expected an integer from 2 to 1024; \
         write it like credits = 8",
        "flag --cores-idle: cores.idle: found the text \"sleep\", expected \"auto\" or \"adaptive\" or \"park\" or \"yield\" or \"spin\"; \
         write it like idle = \"auto\"",
        "flag --verify-tolerance: verify.tolerance: found 1.5, expected a number above 0 and below 1; write it like \
         tolerance = 3.5762787e-7",
    ];
    for (found, expected) in text.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(text.len(), expected.len(), "{text:#?}");
}

#[test]
fn all_syntax_errors_are_listed_beside_the_others() {
    let file = "[job]\ngroups = \ndimension = 10\nname = default\n\n[rounds\nwindow = 99\n[memory]\ncredits = 1\ncredits = 4\n";
    let found = problems(file, &[], &[]);
    let lines: Vec<usize> = found.iter().map(line).collect();
    assert_eq!(lines, [2, 4, 6, 9, 10], "{found:#?}");
    assert_eq!(found[3].object, "memory.credits");
    for problem in [&found[0], &found[1], &found[2], &found[4]] {
        assert_eq!(problem.object, "syntax", "{problem}");
    }
    assert!(found[1].found.contains("name = default"), "{}", found[1]);
}

#[test]
fn a_setting_outside_its_section_is_sent_home() {
    assert!(problem("groups = 2\njob.dimension = 1\n").contains("\"groups\" = 2 outside of a section"));
    assert!(problem("groups = 2\njob.dimension = 1\n").ends_with("it belongs under [job]"));
    assert!(problem("job = { dimension = 1, windw = 3 }\n").ends_with("did you mean window, under [rounds]?"));
    assert!(
        problem("log = 3\njob.dimension = 1\n").ends_with("write [log] on a line of its own, and its settings below")
    );
    let found = problems("[[job]]\ndimension = 1\n", &[], &[]);
    assert!(found[0].to_string().contains("write [job], once"), "{}", found[0]);
}

#[test]
fn without_a_file_the_missing_dimension_is_named() {
    let found = problems("", &[], &[]);
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().starts_with("job.dimension: found no value"), "{}", found[0]);
    assert!(found[0].action.contains("a file given with --config"), "{}", found[0]);
}

#[test]
fn wrong_worker_counts_name_the_counts_that_work() {
    let with = |settings: &str| problem(&format!("[job]\ndimension = 1\n{settings}"));
    let text = with("workers = 15\n");
    assert!(
        text.starts_with("s.toml:3: job.workers: found 15, expected 12 = groups 2 x 6 (compression 2 + 2 x "),
        "{text}"
    );
    assert!(
        text.ends_with("the nearest counts that work are 12 workers (job.groups = 2) and 18 workers (job.groups = 3)")
    );
    assert!(with("workers = 24\n").ends_with("set job.groups = 4, or keep 24 with job.stragglers = 6"));
    assert!(with("workers = 14\n").ends_with("18 workers (job.groups = 3), or keep 14 with job.stragglers = 1"));
    assert!(with("workers = 5\n").ends_with("the nearest count that works is 6 workers (job.groups = 1)"));
    assert_eq!(config("[job]\ndimension = 1\nworkers = 12\n").job.parameters.workers(), 12);
}

#[test]
fn a_mean_must_be_asked_to_correct_nothing() {
    let file = "[job]\ndimension = 1\nadversaries = 1\nrule = \"mean\"\nstragglers = 0\ncompression = 2\n";
    let found = problems(file, &[], &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].object, "job.adversaries");
    assert!(found[0].found.contains("job.rule = \"mean\" (s.toml:4)"), "{}", found[0]);
    assert!(found[1].found.contains("job.compression = 2 (s.toml:6)"), "{}", found[1]);
    let mean = config("[job]\ndimension = 1\nadversaries = 0\ncompression = 1\nrule = \"mean\"\ngroups = 5\n");
    assert_eq!((mean.job.parameters.workers(), mean.job.parameters.redundancy()), (5, 1));
    assert_eq!(config("[job]\ndimension = 1\nrule = \"mean\"\ngroups = 5\n"), mean, "nor need it be");
}

#[test]
fn settings_follow_a_robust_rule_unless_they_are_set() {
    let of = |rest: &str| config(&format!("[job]\ndimension = 100\ngroups = 11\nadversaries = 2\n{rest}"));
    let median = of("rule = \"median\"\nstragglers = 1\n");
    assert_eq!((median.job.parameters.groups(), median.job.parameters.redundancy()), (11, 1));
    let robust = median.job.robust.as_ref().unwrap();
    assert_eq!((robust.adversaries, robust.missing, &robust.weights), (2, 1, &vec![1.0; 11]));
    assert_eq!((median.linger(), median.credits()), (median.rounds.deadline, 8));
    assert!(of("rule = \"median\"\n[rounds]\nlinger_ms = 0\n").linger().is_zero());
    // As many may be silent as may lie, where that leaves enough: bulyan needs all eleven.
    let missing = |rule: &str| of(&format!("rule = \"{rule}\"\n")).job.robust.unwrap().missing;
    assert_eq!(["median", "krum", "bulyan"].map(missing), [2, 2, 0]);
    // Those that survey wait for all that are connected, and hold a round.
    let krum = of("rule = \"krum\"\n[rounds]\nlinger_ms = 0\n[chunks]\nwidth = 2\n");
    assert_eq!((krum.linger(), krum.credits(), krum.memory.credits), (krum.rounds.deadline, 58, 8));
    let signum = of("rule = \"signum\"\n");
    assert_eq!((signum.job.precision, signum.push.precision), (Precision::Sign, Precision::Sign));
    assert_eq!(of("rule = \"signum\"\n[push]\nprecision = \"f32\"\n").push.precision, Precision::F32);
    let cyclic = of("rule = \"cyclic\"\n").job;
    assert_eq!((cyclic.gradients(), cyclic.robust.as_ref().unwrap().missing, median.job.gradients()), (5, 2, 1));
    for (settings, expected) in [
        ("groups = 15\nadversaries = 3\nstragglers = 8\n", "at most 3, as many as may lie"),
        ("groups = 64\nadversaries = 7\n", "weights of 2e5 at most"),
    ] {
        let text = problem(&format!("[job]\ndimension = 1\nrule = \"cyclic\"\n{settings}"));
        assert!(text.contains(expected), "{text}");
    }
    config("[job]\ndimension = 1\nrule = \"cyclic\"\ngroups = 45\nadversaries = 5\n");
    let draco = of("rule = \"draco\"\n").job;
    assert_eq!((draco.parameters.compression(), draco.parameters.redundancy(), draco.robust), (1, 5, None));
}

#[test]
fn a_group_of_more_than_64_workers_is_refused() {
    let text = problem("[job]\ndimension = 1\nadversaries = 31\ncompression = 3\n");
    assert!(text.starts_with("s.toml:4: job: found a group of 65 workers"), "{text}");
    config("[job]\ndimension = 1\nadversaries = 31\ncompression = 2\n");
}

#[test]
fn an_address_that_others_reach_needs_tokens_or_open() {
    let file = |rest: &str| format!("[job]\ndimension = 1\n[listen]\naddress = \"0.0.0.0:7447\"\n{rest}");
    let text = problem(&file(""));
    assert!(text.starts_with("s.toml:4: listen.address: found 0.0.0.0:7447, which others can reach"), "{text}");
    assert_eq!(config(&file("open = true\n")).listen.admission, Admission::Open);
    assert_eq!(config(&file("token_file = \"t\"\n")).listen.admission, Admission::Tokens("t".into()));
    let text = problem(&file("token_file = \"t\"\nopen = true\n"));
    assert!(
        text.starts_with("s.toml:6: listen.open: found listen.open = true (s.toml:6) with listen.token_file"),
        "{text}"
    );
    assert_eq!(
        config("job.dimension = 1\nlisten.address = \"[::ffff:127.0.0.1]:1\"").listen.admission,
        Admission::Loopback
    );
    assert!(
        problem("job.dimension = 1\nlisten.address = \"localhost:7447\"").contains("expected an IP address and a port")
    );
}

#[test]
fn the_status_is_shown_to_others_only_where_that_is_asked_for_and_at_a_port_of_its_own() {
    let file = |rest: &str| format!("[job]\ndimension = 1\n[admin]\n{rest}");
    let address = |text: &str| Some(Admin { address: text.parse().unwrap() });
    assert_eq!(config(&file("")).admin, address("127.0.0.1:7448"));
    let text = problem(&file("address = \"[::]:7448\"\n"));
    assert!(text.starts_with("s.toml:4: admin.address: found [::]:7448, which others can reach"), "{text}");
    assert!(text.contains("set admin.open = true"), "{text}");
    assert_eq!(config(&file("address = \"[::]:7448\"\nopen = true\n")).admin, address("[::]:7448"));
    assert_eq!(config(&file("address = \"[::]:7448\"\nserve = false\n")).admin, None);
    let text = problem(&file("address = \"127.0.0.1:7447\"\n"));
    assert!(text.contains("found 127.0.0.1:7447, where workers connect") && text.contains("port 0"), "{text}");
    config("job.dimension = 1\nlisten.address = \"127.0.0.1:0\"\nadmin.address = \"127.0.0.1:0\"\n");
}

#[test]
fn lingering_ends_with_the_deadline() {
    let text = problem("job.dimension = 1\nrounds.linger_ms = 10001\n");
    assert!(text.contains("expected at most rounds.deadline_ms = 10000 (default)"), "{text}");
    config("job.dimension = 1\nrounds.linger_ms = 10000\n");
}

#[test]
fn a_core_map_has_every_stage_as_often_as_it_must() {
    let with = |map: &str| problem(&format!("job.dimension = 1\ncores.map = {map}\n"));
    let all = "\"receive\", \"assemble\", \"decode\", \"push\"";
    let one = config(&format!("job.dimension = 1\ncores.map = [[{all}]]"));
    assert_eq!(one.cores.map, CoreMap::Fixed(vec![Stage::ALL.to_vec()]));
    assert!(with(&format!("[[{all}], [\"push\"]]")).contains("found \"push\" 2 times, expected it exactly once"));
    let without = "\"receive\", \"assemble\", \"push\"";
    assert!(with(&format!("[[{without}]]")).contains("found \"decode\" 0 times, expected it at least once"));
    assert!(with("[]").contains("found an array of 0"));
    assert!(with("\"all\"").contains("found the text \"all\", expected \"auto\" or an array"));
    assert!(problems("cores.map = [[\"push\"]]\njob.dimension = 1", &[], &[]).len() == 3);
}

#[test]
fn numbers_that_do_not_fit_into_f32_are_refused() {
    for scale in ["0", "1e-60", "1e60", "inf", "nan"] {
        assert!(
            problem(&format!("job.dimension = 1\njob.scale = {scale}\n")).contains("expected a number other than 0")
        );
    }
    assert_eq!(config("job.dimension = 1\njob.scale = 2\n").job.scale, 2.0);
    for tolerance in ["0.0", "1", "-1e-7", "1e-60", "0.99999999999"] {
        assert!(
            problem(&format!("job.dimension = 1\nverify.tolerance = {tolerance}\n")).contains("above 0 and below 1")
        );
    }
}

#[test]
fn rdma_devices_and_packets_are_checked_before_there_is_a_device() {
    let with = |text: &str| problem(&format!("{LEAST}[rdma]\n{text}\n"));
    let text = with("devices = \"mlx5_0:x\"");
    assert!(text.contains("rdma.devices: found the text \"mlx5_0:x\", expected RDMA devices as NCCL_IB_HCA"), "{text}");
    assert!(text.ends_with("correct the port \"x\" of mlx5_0, which is not a number from 1 to 255"), "{text}");
    assert!(with("devices = 0").contains("write it like devices = \"mlx5_0:1,mlx5_1\""));
    assert!(with("mtu = 1500").contains("found 1500, expected 256 or 512 or 1024 or 2048 or 4096"));
    assert!(with("mtu = \"4096\"").ends_with("write it without quotes: mtu = 4096"));
    assert!(with("retries = 7").ends_with("use at most 6"));
    assert!(with("ack_timeout = 0").ends_with("use at least 1"));
    assert!(config(&format!("{LEAST}rdma.devices = \"\"\n")).rdma.devices.is_everything());
}

#[test]
fn variables_that_look_like_settings_are_warned_of() {
    let env = [
        ("SOLON_JOB_GROUP", "3"),
        ("SOLON_LISTN_ADDRESS", "x"),
        ("SOLON_LOG_FILE", "x"),
        ("SOLON_HOME", "/"),
        ("PATH", "/"),
    ];
    let warnings: Vec<String> = loaded(LEAST, &env, &[]).warnings.iter().map(Problem::to_string).collect();
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    assert!(warnings[0].ends_with("did you mean SOLON_JOB_GROUPS?"), "{}", warnings[0]);
    assert!(warnings[1].ends_with("did you mean SOLON_LISTEN_ADDRESS?"), "{}", warnings[1]);
    assert!(warnings[2].starts_with("environment SOLON_LOG_FILE"), "{}", warnings[2]);
    let of_a_worker = crate::client::VARIABLES.map(|name| (name, "3"));
    assert_eq!(loaded(LEAST, &of_a_worker, &[]).warnings, [], "a worker's variables on the daemon's machine");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf_8_is_a_problem_of_that_variable() {
    use std::os::unix::ffi::OsStringExt;
    let env = [("SOLON_STATE_DIRECTORY".into(), OsString::from_vec(vec![b'/', 0xff]))];
    let refusal = load([OsString::from("solond")], env, &|_| unreachable!()).unwrap_err().to_string();
    assert!(refusal.contains("error: environment SOLON_STATE_DIRECTORY: state.directory: found"), "{refusal}");
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_nothing_is_said_to_be_missing() {
    let args = ["solond", "--config", "gone.toml", "--memory-credits", "1"].map(OsString::from);
    let refusal = load(args, [], &|_| Err(io::ErrorKind::NotFound.into())).unwrap_err();
    assert_eq!(refusal.exit().code(), 78);
    let text = refusal.to_string();
    assert!(text.contains("error: flag --config: \"gone.toml\": found that it cannot be read"), "{text}");
    assert!(text.contains("error: flag --memory-credits: memory.credits: found 1"), "{text}");
    assert!(text.ends_with("solond: 2 errors in the configuration\n"), "{text}");
}

#[test]
fn the_example_file_means_the_defaults() {
    let example = answer("", &["--example-config"]);
    assert!(example.lines().all(|line| line.len() <= 120), "{example}");
    assert_eq!(config(&(LEAST.to_owned() + &example.replace("[job]", ""))), config(LEAST));
    // With the '#' of each setting removed all defaults stand there, and the example of what must be set.
    let bare = |line: &str| SETTINGS.iter().any(|setting| line.starts_with(&format!("#{} = ", setting.key)));
    let full: Vec<&str> = example.lines().map(|line| if bare(line) { &line[1..] } else { line }).collect();
    let set = SETTINGS.iter().filter(|setting| !matches!(setting.default, DefaultValue::Unset(_))).count();
    assert_eq!(full.iter().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty()).count(), set);
    assert_eq!(config(&full.join("\n")), loaded(LEAST, &[], &["--job-dimension", "25557032"]).config);
}

#[test]
fn every_example_in_the_table_is_allowed() {
    for setting in SETTINGS {
        if let DefaultValue::Unset(text) | DefaultValue::Required(text) = setting.default {
            let companions = other(setting).1;
            loaded(&format!("{companions}{} = {text}\n#", setting.name()), &[("SOLON_JOB_DIMENSION", "5")], &[]);
        }
    }
}

#[test]
fn what_is_printed_means_the_same_when_read() {
    for setting in SETTINGS {
        let (text, companions) = other(setting);
        let dimension = if setting.key == "dimension" { "" } else { LEAST };
        let first = loaded(&format!("{dimension}{companions}{} = {text}\n", setting.name()), &[], &[]);
        assert_eq!(config(&first.print()), first.config);
    }
}

#[test]
fn check_and_print_answer_and_do_not_serve() {
    let text = answer(LEAST, &["--check-config"]);
    assert!(text.contains("12 workers in 2 groups of 6, corrects 2 liars"), "{text}");
    assert!(answer(LEAST, &["--print-config"]).contains("dimension = 1000"));
    assert!(answer("", &["--version"]).starts_with("solond 0."));
    assert!(matches!(request(LEAST, &[], &["--check-config", "--print-config"]), Err(Refusal::Usage(_))));
    let refusal = request("", &[], &["--job-group", "2"]).unwrap_err();
    assert_eq!(refusal.exit().code(), 2);
    assert!(refusal.to_string().contains("--job-groups"), "{refusal}");
}

#[test]
fn help_and_markdown_have_every_setting() {
    command().debug_assert();
    let (help, page) = (answer("", &["--help"]), settings_markdown());
    for setting in SETTINGS {
        assert!(
            help.contains(&format!("--{} ", setting.flag())) || help.contains(&format!("--{}[", setting.flag())),
            "{help}"
        );
        assert!(help.contains(&setting.environment()), "{help}");
        assert!(page.contains(&format!("| `{}` |", setting.key)), "{page}");
    }
    assert!(
        page.lines().filter(|line| line.starts_with('|')).all(|line| line.replace("\\|", "").matches('|').count() == 6)
    );
}

#[test]
fn what_is_verified_follows_the_precision_of_shards_unless_it_is_set() {
    let verify = |file: &str| config(&format!("{LEAST}{file}")).verify;
    let usual = verify("");
    let coarse = |tolerance| Verify { tolerance, projections: 8, check: Check::Full, mixed: Mixed::Warn };
    assert_eq!(verify("job.precision = \"bf16\"\n"), coarse(6.0 / 256.0));
    assert_eq!(verify("job.precision = \"f16\"\n"), coarse(6.0 / 2048.0));
    // Replicas are the same bits.
    assert_eq!(verify("job.precision = \"bf16\"\njob.compression = 1\n"), usual);
    let set = "verify.tolerance = 0.1\nverify.projections = 3\nverify.check = \"random\"\n";
    let wanted = Verify { tolerance: 0.1, projections: 3, check: Check::Random, mixed: Mixed::Warn };
    assert_eq!(verify(&format!("job.precision = \"bf16\"\n{set}")), wanted);
    // Nobody asks for less than rounding changes; of replicas anything may be asked.
    let fine = "verify.tolerance = 3.5762787e-7\n";
    assert_eq!(verify(&format!("job.precision = \"f16\"\njob.compression = 1\n{fine}")), usual);
    for (precision, least) in [("bf16", 2.0 / 256.0), ("f16", 2.0 / 2048.0)] {
        let of = |tolerance: f64| format!("job.precision = \"{precision}\"\nverify.tolerance = {tolerance}\n");
        assert_eq!(f64::from(verify(&of(least)).tolerance), least);
        for tolerance in [3.5762787e-7, 0.99 * least] {
            let text = problem(&format!("{LEAST}{}", of(tolerance)));
            let expected = format!("at least {least:e}");
            for part in ["verify.tolerance", precision, &expected, "remove verify.tolerance"] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }
    let text = problem(&format!("{LEAST}job.precision = \"fp8\"\n"));
    assert!(text.contains("\"f32\" or \"bf16\" or \"f16\"") && text.contains("fp8"), "{text}");
}
