//! Metrics, health and status of a real daemon: what is answered, to whom, and within which limits.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Dice, Solond, distance, gradient};
use solon::client::Worker;
use solon::daemon::status::{State, Status};

const D: usize = 5003;
/// Two groups of six, of which two each may lie, on any free port; words wait for all that are connected.
const JOB: &[&str] = &[
    "--job-dimension=5003",
    "--chunks-width=500",
    "--rounds-linger-ms=60000",
    "--rounds-deadline-ms=60000",
    "--listen-transport=tcp",
    "--admin-address=127.0.0.1:0",
];

fn admin_of(solond: &mut Solond) -> String {
    let ready: serde_json::Value = serde_json::from_str(&solond.find("\"ready\"")).unwrap();
    ready["admin"].as_str().expect("its address").to_owned()
}

struct Answer {
    code: u16,
    head: String,
    body: String,
}

/// Everything that comes back, until the connection ends.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert!(error.kind() == std::io::ErrorKind::ConnectionReset, "{error}");
    }
    bytes
}

fn ask(address: &str, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let text = String::from_utf8(rest(stream)).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("an answer to {request:?}: {text:?}"));
    Answer { code: head[9..12].parse().unwrap(), head: head.to_lowercase(), body: body.into() }
}

fn get(address: &str, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

fn status(address: &str) -> Status {
    serde_json::from_str(&get(address, "/status").body).unwrap()
}

/// Asks until what comes back is as it should be: events take a moment.
fn until<T>(mut ask: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let start = Instant::now();
    loop {
        let found = ask();
        if wanted(&found) {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "it does not become so");
        std::thread::yield_now();
    }
}

fn solon(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_solon")).arg("status").args(arguments).output().unwrap()
}

/// One round by each of these workers; those of `liars` lie.
fn round(workers: &mut [(usize, Worker)], round: u64, liars: &[usize]) {
    std::thread::scope(|scope| {
        for (index, worker) in workers {
            scope.spawn(move || {
                let mut buffer = gradient(worker.place().group, round, D);
                let mut lie = |_: u64, _: u32, shard: &mut [f32]| shard.iter_mut().for_each(|x| *x *= -100.0);
                worker.exchange_tampered(&mut buffer, liars.contains(index).then_some(&mut lie)).unwrap();
                assert!(distance(&buffer, 2, round) < 1e-5);
            });
        }
    });
}

#[test]
fn status_page_and_terminal_show_who_lied_who_is_gone_and_who_never_came() {
    let mut solond = Solond::start(JOB);
    let admin = admin_of(&mut solond);
    let before = status(&admin);
    assert_eq!((before.alive, before.ready, before.next_round), (true, true, 0));
    assert!(before.workers().all(|worker| worker.state == State::Never) && before.rounds.is_empty());
    assert_eq!(before.notes.len(), 2, "{:?}", before.notes);
    let ready = get(&admin, "/readyz");
    assert_eq!(ready.code, 200, "workers need a daemon that is ready before they come");
    assert!(ready.body.starts_with("ready\nnote: group 0 has 0 of 6 workers"), "{}", ready.body);
    assert!(get(&admin, "/").body.contains("No round was closed"));

    let mut workers: Vec<_> = (0..11).map(|worker| (worker, solond.join(worker))).collect();
    for number in 0..30 {
        round(&mut workers, number, &[]);
    }
    for number in 30..69 {
        round(&mut workers, number, if number % 3 == 0 { &[4] } else { &[] });
    }
    workers.remove(9).1.leave();
    until(|| status(&admin), |status| !status.groups[1].workers[3].connected);
    round(&mut workers, 69, &[]);

    let now = until(|| status(&admin), |status| status.rounds.last().is_some_and(|last| last.round == 69));
    assert_eq!((now.job.name.as_str(), now.job.workers, now.job.redundancy, now.job.dimension), ("default", 12, 6, D));
    assert_eq!((now.totals.rounds_complete, now.totals.rounds_undecodable), (70, 0));
    assert_eq!(now.rounds.iter().map(|round| round.round).collect::<Vec<_>>(), (6..70).collect::<Vec<_>>());
    for round in &now.rounds {
        let lied = round.round >= 30 && round.round < 69 && round.round % 3 == 0;
        assert_eq!((round.complete, lied.then_some(4)), (true, round.liars.first().copied()), "{round:?}");
        assert_eq!(round.received > 1.0, lied, "{round:?}");
        assert!(round.residual < 1.0 && round.absent.contains(&11), "{round:?}");
    }
    let states: Vec<State> = now.workers().map(|worker| worker.state).collect();
    let mut wanted = [State::Ok; 12];
    (wanted[4], wanted[9], wanted[11]) = (State::Lied, State::Gone, State::Never);
    assert_eq!(states, wanted);
    let liar = &now.groups[0].workers[4];
    assert_eq!((liar.lies, liar.last_lie_round, now.liars.len(), now.notes.len()), (13, Some(66), 1, 0));
    assert!(now.groups[1].workers[3].left.is_some() && now.groups[1].connected == 4);

    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let docs = docs.split_once("## Status and health").unwrap().1.split_once("\n## ").unwrap().0;
    let mut names = std::collections::BTreeSet::new();
    fields(&serde_json::from_str(&get(&admin, "/status").body).unwrap(), &mut names);
    let unsaid: Vec<_> = names.iter().filter(|name| !docs.contains(&format!("`{name}`"))).collect();
    assert!(names.len() > 50 && unsaid.is_empty(), "docs/operations.md does not say what these are: {unsaid:?}");

    let page = get(&admin, "/");
    let verdict = "worker 4 lied in 13 of the last 64 rounds, last in round 66";
    assert!(page.code == 200 && page.body.contains(verdict), "{}", page.body);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    let nonce = page.body.split_once("<script nonce=\"").unwrap().1.split_once('"').unwrap().0;
    assert!(page.head.contains(&format!("script-src 'nonce-{nonce}'")), "{}", page.head);
    // To look at it: docs/images/make.
    if let Some(path) = std::env::var_os("SOLON_STATUS_PAGE") {
        std::fs::write(path, &page.body).unwrap();
    }
    assert!(get(&admin, "/metrics").body.contains("solon_build_info{"));
    assert_eq!(get(&admin, "/livez").body, "alive\n");

    let shown = solon(&["--address", &admin]);
    let text = String::from_utf8(shown.stdout).unwrap();
    println!("{text}");
    assert_eq!(shown.status.code(), Some(0));
    for part in ["job default: ready, 10 of 12 workers", verdict, "✓✓✓✓✗✓", "✓✓✓○✓·", "worker 9 gone", "residual"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json: Status = serde_json::from_slice(&solon(&["--address", &admin, "--json"]).stdout).unwrap();
    assert_eq!((json.job, json.liars), (now.job, now.liars));
}

/// All names of fields in a JSON document.
fn fields(value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => map.iter().for_each(|(name, value)| {
            found.insert(name.clone());
            fields(value, found);
        }),
        serde_json::Value::Array(list) => list.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
fn a_daemon_that_stops_is_not_ready_and_says_why() {
    let mut solond = Solond::start(JOB);
    let admin = admin_of(&mut solond);
    let mut workers: Vec<_> = (0..12).map(|worker| (worker, solond.join(worker))).collect();
    // The round has begun, so the daemon waits for the others.
    for (index, worker) in &mut workers[..3] {
        worker.submit(&gradient(*index / 6, 0, D)).unwrap();
    }
    until(|| status(&admin), |status| status.totals.shards_accepted >= 3 * 6);
    solond.signal("-TERM");
    let answer = until(|| get(&admin, "/readyz"), |answer| answer.code != 200);
    assert_eq!(
        (answer.code, answer.body.as_str()),
        (503, "not ready: stopping: the round that has begun ends first\n")
    );
    assert_eq!(get(&admin, "/livez").code, 200, "nobody has to end it by force");
    let shown = solon(&["--address", &admin]);
    assert_eq!(shown.status.code(), Some(1));
    let (text, error) = (String::from_utf8(shown.stdout).unwrap(), String::from_utf8(shown.stderr).unwrap());
    assert!(text.contains("not ready") && text.contains("✗ stopping") && error.contains("not ready"), "{text}{error}");
    std::thread::scope(|scope| {
        for (at, (index, worker)) in workers.iter_mut().enumerate() {
            scope.spawn(move || {
                let mut buffer = gradient(*index / 6, 0, D);
                if at < 3 {
                    worker.wait(&mut buffer).unwrap()
                } else {
                    worker.exchange(&mut buffer).unwrap()
                };
            });
        }
    });
    assert_eq!(solond.exit_code(), Some(0));
}

#[test]
fn what_is_not_there_or_cannot_be_done_is_told_with_what_can() {
    let mut solond = Solond::start(JOB);
    let admin = admin_of(&mut solond);
    let nothing = get(&admin, "/admin/../../etc/passwd?x=y");
    assert_eq!(nothing.code, 404);
    for path in ["/metrics", "/livez", "/readyz", "/status"] {
        assert!(nothing.body.contains(path), "{}", nothing.body);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let refused = ask(&admin, &format!("{method} /status HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
        assert!(refused.code == 405 && refused.head.contains("allow: get, head"), "{}", refused.head);
    }
    let head = ask(&admin, &format!("HEAD /status HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
    assert!(head.code == 200 && head.body.is_empty() && head.head.contains("application/json"), "{}", head.head);
    let body = ask(&admin, &format!("GET / HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 5\r\n\r\nhello"));
    assert_eq!(body.code, 413);
    // A page of another site, whose name was made to mean 127.0.0.1, reads nothing.
    assert_eq!(ask(&admin, "GET /status HTTP/1.1\r\nHost: evil.example:7448\r\n\r\n").code, 421);
    assert_eq!(ask(&admin, "GET /status HTTP/1.1\r\nHost: localhost:7448\r\n\r\n").code, 200);
    assert_eq!(ask(&admin, "GET /status HTTP/1.0\r\n\r\n").code, 200);
}

#[test]
fn connections_are_bounded_in_number_time_and_size_and_no_round_waits_for_them() {
    let mut solond = Solond::start(JOB);
    let admin = admin_of(&mut solond);
    let connect = || TcpStream::connect(&admin).unwrap();
    // All eight places are taken by who says nothing, or never an end, and many more of these come. Did each have its two seconds before the
    // next eight, who asks after them would wait for 34 s, and `rest` does for 30.
    let mut slow: Vec<TcpStream> = (0..17 * 8).map(|_| connect()).collect();
    // Those that were dropped already cannot be written to.
    slow.iter_mut().step_by(2).for_each(|stream| drop(stream.write_all(b"GET / HTTP/1.1\r\nX: ")));
    assert_eq!(get(&admin, "/livez").body, "alive\n");
    let mut workers: Vec<_> = (0..12).map(|worker| (worker, solond.join(worker))).collect();
    (0..20).for_each(|number| round(&mut workers, number, &[7]));
    for stream in slow {
        let said = String::from_utf8(rest(stream)).unwrap();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    }
    // Too long, and too many.
    for header in [format!("X: {}\r\n", "x".repeat(20_000)), "X: y\r\n".repeat(1000)] {
        let mut stream = connect();
        // The daemon may hang up before all of it is sent.
        let _ = stream.write_all(format!("GET / HTTP/1.1\r\n{header}\r\n").as_bytes());
        let said = String::from_utf8(rest(stream)).unwrap();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    }
    let mut dice = Dice::new(7448);
    for _ in 0..200 {
        let mut bytes: Vec<u8> = (0..dice.roll(300)).map(|_| dice.roll(256) as u8).collect();
        if dice.roll(2) == 0 {
            let start: &[u8] =
                [&b"GET / HTTP/1.1\r\n"[..], b"HEAD ", b"GET /status HTTP/1.1\r\nContent-Length: "][dice.roll(3)];
            bytes.splice(0..0, start.iter().copied());
        }
        let mut stream = connect();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        rest(stream);
    }
    assert_eq!(get(&admin, "/livez").body, "alive\n");
    round(&mut workers, 20, &[7]);
    drop(workers);
    solond.signal("-TERM");
    let (code, log) = solond.end();
    assert!(code == Some(0) && !log.contains("panicked"), "{log}");
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do_and_one_that_is_off_is_not_listened_on() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flags = ["--job-dimension", "10", "--admin-address", &address];
    let mut solond = Solond::spawn(Command::new(env!("CARGO_BIN_EXE_solond")), "127.0.0.1:0", &flags);
    let (code, log) = solond.end();
    assert_eq!(code, Some(69), "{log}");
    for part in [&*address, "admin.address", "in use", "admin.serve = false"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let mut off = Solond::start(&["--job-dimension", "10", "--admin-serve", "false", "--admin-address", &address]);
    assert_eq!(admin_of(&mut off), "off (admin.serve)");
}

#[test]
fn who_asks_where_no_daemon_is_is_told_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let shown = solon(&["--address", &free]);
    let text = String::from_utf8(shown.stderr).unwrap();
    assert_eq!(shown.status.code(), Some(69), "{text}");
    assert!(text.contains("no daemon answers at") && text.contains("admin.serve") && shown.stdout.is_empty(), "{text}");
    // The workers' port is another one.
    let solond = Solond::start(&["--job-dimension", "10"]);
    let shown = solon(&["--address", &solond.address]);
    assert_eq!(shown.status.code(), Some(69));
    assert!(String::from_utf8(shown.stderr).unwrap().contains("no solond that this program understands"));
}

#[test]
fn watching_shows_it_again_and_again_also_after_the_daemon_is_gone() {
    let mut solond = Solond::start(JOB);
    let admin = admin_of(&mut solond);
    let mut child = Command::new(env!("CARGO_BIN_EXE_solon"))
        .args(["status", "--watch", "--address", &admin])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    for _ in 0..2 {
        assert!(lines.any(|line| line.starts_with("job default: ready, 0 of 12 workers")));
    }
    solond.signal("-KILL");
    assert!(lines.any(|line| line.contains("no daemon answers at")));
    child.kill().unwrap();
    child.wait().unwrap();
}
