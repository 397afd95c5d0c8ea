//! The pages in `docs/` against the code: tables that are generated, offsets, kinds and codes, and links.
//!
//! `SOLON_UPDATE_DOCS=1 cargo test --test docs` writes the generated parts anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use solon::code::{Family, Form, Layout, Parameters, Precision};
use solon::daemon::config::{Request, load, settings_markdown};
use solon::daemon::exit::exit_codes_markdown;
use solon::daemon::metrics::table::metrics_markdown;
use solon::daemon::serve::job_of;
use solon::doctor::{CHECKS, PEER_CHECKS, checks_markdown};
use solon::pipeline::Limits;
use solon::plan::{BreakEven, BytesPerSecond, Crossover, Faster, PlanInput, Seconds, Size};
use solon::transport::LinkFailure;
use solon::transport::rdma::immediate::Immediate;
use solon::wire::{
    ATTACH_BYTES, Area, CHALLENGE_BYTES, Credential, Endpoint, Fields, Fingerprint, GREETED_BYTES, GREETING_BYTES,
    HEADER_BYTES, HELLO_BYTES, Header, HeaderError, Hello, Identity, Kind, LinkEnds, LinkOrder, OFFER_BYTES, Plan,
    REPORT_BYTES, Refusal, Report, Resume, RoundOutcome, Rule, UPDATE_OFFSET, UndecodableReason, VERSION, Violation,
    WELCOME_BYTES, Welcome, attach_frame, challenge_frame, header_bytes, hello_frame, offer_frame, refusal_frame,
    short_payload, welcome_frame,
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    let path = root().join("docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of the table after the line `<!-- marker -->`, without head and rule; code quotes removed.
fn table(page: &str, marker: &str) -> Vec<Vec<String>> {
    let marker = format!("<!-- {marker} -->");
    let (_, rest) = page.split_once(&marker).unwrap_or_else(|| panic!("no {marker}"));
    let lines = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    lines.skip(2).map(cells).collect()
}

/// Compares what stands between `<!-- generated: name -->` and `<!-- end -->` with `text`, or writes it there.
fn generated(file: &str, name: &str, text: &str) {
    let old = page(file);
    let (begin, end) = (format!("<!-- generated: {name} -->\n"), "<!-- end -->");
    let (head, rest) = old.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
    let (found, tail) = rest.split_once(end).expect("a generated part has an end");
    let text = format!("\n{}\n\n", text.trim());
    if std::env::var_os("SOLON_UPDATE_DOCS").is_some() {
        std::fs::write(root().join("docs").join(file), format!("{head}{begin}{text}{end}{tail}")).unwrap();
    } else {
        assert_eq!(found, text, "{file} is behind the code: SOLON_UPDATE_DOCS=1 cargo test --test docs");
    }
}

#[test]
fn operations_has_the_settings_exit_codes_metrics_and_memory_of_the_code() {
    generated("operations.md", "settings", &settings_markdown());
    generated("operations.md", "exit codes", &exit_codes_markdown());
    generated("operations.md", "metrics", &metrics_markdown());
    generated("operations.md", "memory", &memory_markdown());
}

#[test]
fn the_page_of_the_crossover_has_the_times_of_the_plan() {
    generated("crossover.md", "crossover", &crossover_markdown());
}

fn crossover_markdown() -> String {
    let mut table = String::from(
        "| Link | Gradient time | Solon | Draco | Faster | Break-even: link | Gradient time |\n|---:|---:|---:|---:|---|---:|---:|\n",
    );
    for (link, time) in [
        ("1Gb/s", "20ms"),
        ("1Gb/s", "1s"),
        ("10Gb/s", "20ms"),
        ("10Gb/s", "200ms"),
        ("100Gb/s", "20ms"),
        ("100Gb/s", "200ms"),
    ] {
        let input = PlanInput {
            adversaries: 5,
            compression: 5,
            link: BytesPerSecond::parse(link).ok(),
            gradient_time: Seconds::parse(time).ok(),
            ..PlanInput::new(Size::Workers(45), 11_000_000)
        };
        let crossover = Crossover::new(&input).unwrap().expect("times are known");
        assert_eq!(crossover.sent.faster, Faster::Draco);
        let relayed = crossover.relayed;
        let BreakEven::At { link: even, gradient_time } = relayed.break_even else { panic!("{relayed:?}") };
        let faster = match relayed.faster {
            Faster::Solon => format!("Solon, {:.2} times", relayed.draco.get() / relayed.solon.get()),
            Faster::Draco => format!("Draco, {:.2} times", relayed.solon.get() / relayed.draco.get()),
            Faster::Neither => "neither".into(),
        };
        let unit = input.gradient_time.unwrap();
        table += &format!(
            "| {link} | {unit} | {} | {} | {faster} | {even} | {gradient_time} |\n",
            relayed.solon, relayed.draco
        );
    }
    table
}

#[test]
fn the_page_of_the_doctor_has_the_checks_of_the_code_and_shows_each_of_them() {
    generated("doctor.md", "checks", &checks_markdown());
    let names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
    let peer: Vec<&str> = PEER_CHECKS.iter().map(|check| check.1).collect();
    let text = page("doctor.md");
    for (part, names) in [("here", names.clone()), ("guest", [&names[..], &peer].concat())] {
        let begin = format!("<!-- generated: {part} -->");
        let (_, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
        let (shown, _) = rest.split_once("<!-- end -->").expect("a generated part has an end");
        let word = |line: &str| {
            ["pass", "note", "warn", "FAIL", "skip"]
                .iter()
                .any(|word| line.get(..10).is_some_and(|it| it.contains(word)))
        };
        let lines: Vec<&str> = shown.lines().filter(|line| line.starts_with("  ") && word(line)).collect();
        assert_eq!(lines.len(), names.len(), "{part}: cargo test --test rdma -- --ignored the_pages_of_the_doctor");
        for (line, name) in lines.iter().zip(names) {
            assert!(line.contains(&format!("  {name} ")), "{part}: {line:?} is not that of {name:?}");
        }
    }
}

#[test]
fn every_check_of_the_doctor_leads_to_a_heading_and_every_first_run_failure_to_a_check() {
    for (name, link) in CHECKS.iter().map(|it| (it.name, it.docs)).chain(PEER_CHECKS.iter().map(|it| (it.1, it.3))) {
        let (file, heading) = link.split_once('#').unwrap_or_else(|| panic!("{name}: {link} has no heading"));
        let found = prose(&page(file)).any(|line| line.starts_with('#') && anchor(line) == heading);
        assert!(found, "{name}: {link}");
    }
    let rows = table(&page("rdma.md"), "first-run failures");
    assert!(rows.len() >= 12, "{rows:?}");
    let names = || CHECKS.iter().map(|check| check.name).chain(PEER_CHECKS.iter().map(|check| check.1));
    for row in &rows {
        for named in row[3].split(", ") {
            assert!(names().any(|name| name == named), "{}: no check {named:?}", row[0]);
        }
    }
}

fn memory_markdown() -> String {
    let mut table = String::from(
        "| `job.groups` | `adversaries` | `compression` | Workers | Slots for shards | Slots for updates |\n\
         |---:|---:|---:|---:|---:|---:|\n",
    );
    for (groups, adversaries, compression) in [("1", "1", "1"), ("2", "2", "2"), ("4", "2", "4"), ("4", "5", "10")] {
        let flags =
            [("dimension", "25557032"), ("groups", groups), ("adversaries", adversaries), ("compression", compression)];
        let flags = flags.iter().flat_map(|(name, value)| [format!("--job-{name}"), (*value).to_owned()]);
        let args = std::iter::once("solond".to_owned()).chain(flags).map(Into::into);
        let Ok(Request::Serve(loaded)) = load(args, [], &|_| unreachable!("no file is named")) else {
            panic!("a configuration to serve")
        };
        let job = job_of(&loaded.config, [0; 32], 0).unwrap();
        let (limits, workers) = (Limits::of(&job.plan, job.updates), job.plan.parameters.workers());
        let mib = |bytes: usize| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        table += &format!(
            "| {groups} | {adversaries} | {compression} | {workers} | {} | {} |\n",
            mib(limits.shard_bytes(workers)),
            mib(limits.update_bytes())
        );
    }
    table
}

/// Compares a table of offsets with `bytes`, in which every field has a value of its own.
fn check_layout(name: &str, bytes: &[u8], fields: &[(&str, Vec<u8>)]) {
    let (page, fields): (_, BTreeMap<_, _>) = (page("protocol.md"), fields.iter().cloned().collect());
    let (mut next, mut seen) = (0, 0);
    for row in table(&page, &format!("layout: {name}")) {
        let (offset, len): (usize, usize) = (row[0].parse().unwrap(), row[1].parse().unwrap());
        assert_eq!(offset, next, "{name}: {} begins where the field before it ends", row[2]);
        next = offset + len;
        let found = &bytes[offset..next];
        match fields.get(row[2].as_str()) {
            Some(value) => assert_eq!(found, &value[..], "{name}: {}", row[2]),
            None => assert!(row[2] == "reserved" && found.iter().all(|byte| *byte == 0), "{name}: {}", row[2]),
        }
        seen += usize::from(row[2] != "reserved");
    }
    assert_eq!((next, seen), (bytes.len(), fields.len()), "{name}: every byte and field is in the table");
}

fn le<const N: usize>(bytes: [u8; N]) -> Vec<u8> {
    bytes.to_vec()
}

#[test]
fn headers_have_the_offsets_of_the_page() {
    let header = Header {
        kind: Kind::Shard,
        payload_bytes: 0,
        checksum: 0,
        job: 0x0102_0304_0506_0708,
        session: 0x1112_1314_1516_1718,
        round: 0x2122_2324_2526_2728,
        chunk: 0x3132_3334,
        worker: 0x4142_4344,
        argument: 0x5152_5354_5556_5758,
    };
    let bytes = header_bytes(header, b"payload");
    let checksum = Header::parse(&bytes).unwrap().checksum;
    let mut bare = bytes;
    bare[12..16].fill(0);
    assert_eq!(checksum, crc32c::crc32c(&[&bare[..], b"payload"].concat()), "as the table says");
    let fields = [
        ("magic", b"SOLN".to_vec()),
        ("version", le(VERSION.to_le_bytes())),
        ("kind", vec![6]),
        ("payload_bytes", le(7u32.to_le_bytes())),
        ("checksum", le(checksum.to_le_bytes())),
        ("job", le(header.job.to_le_bytes())),
        ("session", le(header.session.to_le_bytes())),
        ("round", le(header.round.to_le_bytes())),
        ("chunk", le(header.chunk.to_le_bytes())),
        ("worker", le(header.worker.to_le_bytes())),
        ("argument", le(header.argument.to_le_bytes())),
    ];
    check_layout("header", &bytes, &fields);
}

const CHALLENGE: [u8; 32] = [0xd1; 32];
const NONCE: [u8; 32] = [0xe2; 32];

/// BLAKE3 keyed as the page says, over the parts.
fn tag(token: &str, parts: &[&[u8]]) -> Vec<u8> {
    let key = blake3::derive_key("solon worker token, version 1", token.as_bytes());
    blake3::keyed_hash(&key, &parts.concat()).as_bytes().to_vec()
}

fn resume(round: u64, digest: u64) -> [(&'static str, Vec<u8>); 3] {
    [
        ("last_known", le(1u64.to_le_bytes())),
        ("last_round", le(round.to_le_bytes())),
        ("last_digest", le(digest.to_le_bytes())),
    ]
}

#[test]
fn hellos_have_the_offsets_and_the_proof_of_the_page() {
    let (identity, credential) = (Identity::new("a job", 3), Credential::from_token("a token"));
    let fingerprint = Fingerprint { version: "2.1".into(), dtype: "float32".into(), ..Fingerprint::default() };
    let (last, marks) = (Some(Resume { round: 41, digest: 99 }), fingerprint.marks());
    let hello = Hello { last, transports: 1, marks, ..Hello::new(identity, NONCE) };
    let frame = hello_frame(&hello, &credential, &CHALLENGE);
    let payload = &frame[HEADER_BYTES..];
    let name = blake3::derive_key("solon job name, version 1", b"a job");
    assert_eq!(identity.job.to_le_bytes(), name[..8]);
    let (job, worker) = (identity.job.to_le_bytes(), identity.worker.to_le_bytes());
    assert_eq!(Header::parse(frame.first_chunk().unwrap()).unwrap().argument, 1, "the transports it wants");
    let parts: [&[u8]; 6] = [b"hello", &CHALLENGE, &job, &worker, &1u64.to_le_bytes(), &payload[..96]];
    let mut fields = vec![("nonce", NONCE.to_vec()), ("tag", tag("a token", &parts))];
    let mark = |text: &str| blake3::derive_key("solon fingerprint, version 1", text.as_bytes())[..8].to_vec();
    fields.extend([("framework", vec![0; 8]), ("version", mark("2.1")), ("threads", vec![0; 8])]);
    fields.extend([("device", vec![0; 8]), ("dtype", mark("float32"))]);
    fields.extend(resume(41, 99));
    check_layout("hello", payload, &fields);
}

fn plan() -> Plan {
    Plan {
        parameters: Parameters::new(5, 3, 1, 4).unwrap(),
        rule: Rule::MEAN,
        family: Family::Polynomial,
        form: Form::Dense,
        generator_digest: 0x6162_6364_6566_6768,
        layout: Layout::new(1_000_003, 4, 1234),
        precision: Precision::F16,
        update_precision: Precision::Bf16,
        gradients: 1,
        window: 7,
        credits: 9,
        deadline_ms: 11_000,
        tolerance: 0.125,
        scale: 0.75,
    }
}

#[test]
fn welcomes_and_plans_have_the_offsets_and_the_proof_of_the_page() {
    let last = Some(Resume { round: 43, digest: 98 });
    let welcome = Welcome { plan: plan(), worker: 25, session: 0x71, epoch: 0x8182_8384_8586_8788, last };
    let frame = welcome_frame(&welcome, &Credential::from_token("a token"), &CHALLENGE, &NONCE);
    let payload = &frame[HEADER_BYTES..];
    let plan = &payload[..72];
    let proof = tag("a token", &[b"welcome", &CHALLENGE, &NONCE, &payload[..152]]);
    let mut fields = vec![
        ("plan", plan.to_vec()),
        ("plan_hash", blake3::hash(plan).as_bytes().to_vec()),
        ("worker", le(25u32.to_le_bytes())),
        ("group", le(2u32.to_le_bytes())),
        ("session", le(welcome.session.to_le_bytes())),
        ("epoch", le(welcome.epoch.to_le_bytes())),
        ("tag", proof),
    ];
    fields.extend(resume(43, 98));
    check_layout("welcome", payload, &fields);
    let fields = [
        ("groups", le(5u32.to_le_bytes())),
        ("adversaries", le(3u32.to_le_bytes())),
        ("stragglers", le(1u32.to_le_bytes())),
        ("compression", le(4u32.to_le_bytes())),
        ("dimension", le(1_000_003u64.to_le_bytes())),
        ("chunk_width", le(1234u32.to_le_bytes())),
        ("window", le(7u32.to_le_bytes())),
        ("credits", le(9u32.to_le_bytes())),
        ("deadline_ms", le(11_000u32.to_le_bytes())),
        ("tolerance", le(0.125f64.to_le_bytes())),
        ("scale", le(0.75f32.to_le_bytes())),
        ("rule", vec![1]),
        ("family", vec![1]),
        ("form", vec![1]),
        ("precision", vec![2]),
        ("generator_digest", le(0x6162_6364_6566_6768u64.to_le_bytes())),
        ("update_precision", vec![1]),
        ("further_gradients", vec![0; 4]),
    ];
    check_layout("plan", plan, &fields);
}

#[test]
fn reports_have_the_offsets_of_the_page() {
    let report = Report {
        outcome: RoundOutcome::Undecodable {
            group: 31,
            chunk: 32,
            reason: UndecodableReason::Disagree { arrived: 33, agreeing: 34, needed: 35 },
        },
        digest: 0x3132_3334_3536_3738,
        residual_ratio: 0.5,
        received_ratio: 1e9,
        liars: [1, 70].into_iter().collect(),
        late_liars: [2].into_iter().collect(),
        absent: [1023].into_iter().collect(),
        late: [4, 5].into_iter().collect(),
    };
    let mut bytes = [0; REPORT_BYTES];
    report.write(&mut bytes);
    let set = |workers: &[usize]| {
        let mut words = [0u64; 16];
        workers.iter().for_each(|w| words[w / 64] |= 1 << (w % 64));
        words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()
    };
    let number = |value: u32| le(value.to_le_bytes());
    let fields = [
        ("outcome", number(2)),
        ("group", number(31)),
        ("chunk", number(32)),
        ("arrived", number(33)),
        ("agreeing", number(34)),
        ("needed", number(35)),
        ("residual_ratio", le(0.5f32.to_le_bytes())),
        ("received_ratio", le(1e9f32.to_le_bytes())),
        ("digest", le(report.digest.to_le_bytes())),
        ("liars", set(&[1, 70])),
        ("late_liars", set(&[2])),
        ("absent", set(&[1023])),
        ("late", set(&[4, 5])),
    ];
    check_layout("report", &bytes, &fields);
}

#[test]
fn offers_and_attaches_have_the_offsets_and_the_proofs_of_the_page() {
    let endpoint =
        Endpoint { number: 0x12_3456, sequence: 0x65_4321, gid: [0xa1; 16], lid: 0x7172, mtu: 5, global: true };
    let area = Area { address: 0x1112_1314_1516_1718, stride: 0x0121_2223_2425, key: 0x3132_3334, rounds: 7 };
    let key = Credential::from_token("a token");
    let nonces = [&CHALLENGE, &NONCE];
    let offer = offer_frame(&Ok(endpoint), 9, &key, nonces);
    let offered = &offer[HEADER_BYTES..];
    let parts: [&[u8]; 4] = [b"offer", &CHALLENGE, &NONCE, &offered[..40]];
    let end = offered[8..40].to_vec();
    let fields = [("status", vec![0; 8]), ("endpoint", end.clone()), ("tag", tag("a token", &parts))];
    check_layout("offer", offered, &fields);
    let welcome = Welcome { plan: plan(), worker: 25, session: 0x71, epoch: 9, last: None };
    let attach = attach_frame(&Ok((endpoint, area)), &welcome, &key, nonces);
    let attached = &attach[HEADER_BYTES..];
    let parts: [&[u8]; 5] = [b"attach", &CHALLENGE, &NONCE, &0x71u64.to_le_bytes(), &attached[..64]];
    let fields = [
        ("status", vec![0; 8]),
        ("endpoint", end.clone()),
        ("address", le(area.address.to_le_bytes())),
        ("stride", le(area.stride.to_le_bytes())),
        ("key", le(area.key.to_le_bytes())),
        ("rounds", le(area.rounds.to_le_bytes())),
        ("tag", tag("a token", &parts)),
    ];
    check_layout("attach", attached, &fields);
    let fields = [
        ("number", le(endpoint.number.to_le_bytes())),
        ("sequence", le(endpoint.sequence.to_le_bytes())),
        ("gid", endpoint.gid.to_vec()),
        ("lid", le(endpoint.lid.to_le_bytes())),
        ("mtu", vec![5]),
        ("global", vec![1]),
    ];
    check_layout("endpoint", &end, &fields);
}

#[test]
fn links_have_the_offsets_and_the_proofs_of_the_page() {
    let order = LinkOrder { peer: 3, key: [0xa1; 32], address: [10, 1, 2, 3].into(), port: 0x1234, session: 0x2122 };
    let frame = order.frame(1, 2);
    let fields = [("key", vec![0xa1; 32]), ("address", [&[0; 10][..], &[0xff, 0xff, 10, 1, 2, 3]].concat())];
    check_layout("link", &frame.bytes()[HEADER_BYTES..], &fields);
    let header = Header::parse(frame.bytes().first_chunk().unwrap()).unwrap();
    assert_eq!((header.worker, header.round, header.chunk), (3, 0x2122, 0x1234));
    let ends = LinkEnds { job: 1, epoch: 2, dials: 5, listens: 3, key: order.key };
    let greeting = ends.greeting(&CHALLENGE, &NONCE);
    let indices = [5u32.to_le_bytes(), 3u32.to_le_bytes()].concat();
    let tag = |word: &[u8]| *blake3::keyed_hash(&order.key, &[word, &CHALLENGE, &NONCE, &indices].concat()).as_bytes();
    assert_eq!(greeting[HEADER_BYTES..], [NONCE, tag(b"link hello")].concat());
    let greeted = ends.greeted(&greeting, &CHALLENGE).unwrap();
    assert_eq!(greeted[HEADER_BYTES..], tag(b"link welcome"));
}

#[test]
fn immediates_and_reasons_are_those_of_the_page() {
    let rows = table(&page("protocol.md"), "immediates");
    let (update, end, credit) = (Immediate::update(0x1ff, 5), Immediate::round_end(3), Immediate::credit(4));
    for (row, immediate) in rows.iter().zip([update, end, credit]) {
        assert_eq!(row[0], (immediate.number() >> 30).to_string());
    }
    assert_eq!((rows.len(), update.number()), (3, 0xff << 22 | 5));
    let offset = format!("at {UPDATE_OFFSET} + 4 x");
    assert!(rows[0][3].contains(&offset), "{offset}: {}", rows[0][3]);
    let rows = table(&page("protocol.md"), "reasons");
    for row in &rows[..rows.len() - 1] {
        let number = row[0].parse().unwrap();
        let failure = LinkFailure::from_number(number);
        assert_eq!((failure.number(), name(&failure)), (number, row[1].clone()));
    }
    assert_eq!(LinkFailure::Status(2).number(), 258);
    assert_eq!(LinkFailure::from_number(rows.len() as u64), LinkFailure::Unknown, "every reason is on the page");
}

#[test]
fn kinds_have_the_numbers_ways_and_lengths_of_the_page() {
    let rows = table(&page("protocol.md"), "kinds");
    assert_eq!(rows.len(), Kind::ALL.len());
    for (row, kind) in rows.iter().zip(Kind::ALL) {
        assert_eq!(
            (row[0].as_str(), row[1].as_str()),
            ((kind as u8).to_string().as_str(), format!("{kind:?}").as_str())
        );
        if let Some(bytes) = short_payload(kind) {
            assert_eq!(row[4], bytes.to_string(), "{kind:?}");
        }
        let (way, bytes) = match kind {
            Kind::Challenge => ("<-", (challenge_frame(&CHALLENGE).len() - HEADER_BYTES).to_string()),
            Kind::Hello => ("->", (HELLO_BYTES - HEADER_BYTES).to_string()),
            Kind::Welcome => ("<-", (WELCOME_BYTES - HEADER_BYTES).to_string()),
            Kind::RoundEnd => ("<-", REPORT_BYTES.to_string()),
            Kind::Shard => ("->", "(4, 2 or 1/8) x width".into()),
            Kind::Update => ("<-", "(4, 2 or 1/8) x len".into()),
            Kind::Offer => ("<-", (OFFER_BYTES - HEADER_BYTES).to_string()),
            Kind::Attach => ("->", (ATTACH_BYTES - HEADER_BYTES).to_string()),
            Kind::Relay | Kind::Announce => ("<-", "32".into()),
            Kind::Link => ("<-", "48".into()),
            Kind::Carry => ("<-", "16".into()),
            Kind::Greeting => ("<->", (GREETING_BYTES - HEADER_BYTES).to_string()),
            Kind::Greeted => ("<->", (GREETED_BYTES - HEADER_BYTES).to_string()),
            Kind::Reach | Kind::Linked | Kind::Have | Kind::Fetch | Kind::Digest | Kind::Decline => ("->", "0".into()),
            Kind::Leave | Kind::Collected => ("->", "0".into()),
            Kind::Refuse | Kind::Ready | Kind::Credit | Kind::Closing | Kind::Attached => ("<-", "0".into()),
            Kind::Detach => ("<->", "0".into()),
        };
        assert_eq!((row[2].as_str(), row[4].as_str()), (way, bytes.as_str()), "{kind:?}");
    }
    assert_eq!(CHALLENGE_BYTES, HEADER_BYTES + 32);
}

/// The name of a variant: what `Debug` writes before its fields.
fn name(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").split(|c: char| !c.is_alphanumeric()).next().expect("a name").to_owned()
}

#[test]
fn refusals_have_the_codes_of_the_page() {
    let rows = table(&page("protocol.md"), "refusals");
    let all = [
        Refusal::UnknownJob,
        Refusal::NoSuchWorker { found: 71, workers: 72 },
        Refusal::BadProof { found: 71 },
        Refusal::Unreadable,
        Refusal::TooSoon { found: 71, wait_ms: 72 },
        Refusal::Stopping,
        Refusal::RdmaOnly { found: 71 },
        Refusal::Mixed { found: 71, other: 72, fields: Fields::from_bits(1).unwrap() },
    ];
    // Fails to compile when there is another one: add it above and to the page.
    let _ = |refusal: Refusal| match refusal {
        Refusal::UnknownJob | Refusal::NoSuchWorker { .. } | Refusal::BadProof { .. } => (),
        Refusal::Unreadable | Refusal::TooSoon { .. } | Refusal::Stopping | Refusal::RdmaOnly { .. } => (),
        Refusal::Mixed { .. } => (),
    };
    assert_eq!(rows.len(), all.len());
    for (row, refusal) in rows.iter().zip(all) {
        let header = Header::parse(&refusal_frame(refusal)).unwrap();
        assert_eq!((row[0].clone(), row[1].clone()), (header.argument.to_string(), name(&refusal)));
        let says = |cell: &str, number: u64| assert_eq!(cell == "0", number == 0, "{refusal:?}: {cell}");
        says(&row[2], header.round);
        says(&row[3], header.session);
    }
}

#[test]
fn every_violation_is_on_the_page() {
    let all = [
        Violation::Header(HeaderError::Magic),
        Violation::Kind(Kind::Leave),
        Violation::Length { found: 0, expected: 0 },
        Violation::Round { found: 0, first: 0, end: 0 },
        Violation::Chunk { found: 0, chunks: 0 },
        Violation::Job,
        Violation::Session,
        Violation::Worker(0),
        Violation::Credit,
        Violation::Rdma { opcode: 0, flags: 0, status: 0 },
    ];
    // Fails to compile when there is another one: add it above and to the page.
    let _ = |violation: Violation| match violation {
        Violation::Header(_) | Violation::Kind(_) | Violation::Length { .. } | Violation::Round { .. } => (),
        Violation::Chunk { .. } | Violation::Job | Violation::Session | Violation::Worker(_) | Violation::Credit => (),
        Violation::Rdma { .. } => (),
    };
    let listed: Vec<String> = table(&page("protocol.md"), "violations").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(listed, all.iter().map(name).collect::<Vec<_>>());
}

/// The anchor that a heading has where Markdown is shown.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// Lines outside of fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut pages: Vec<PathBuf> =
        std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.extend(
        ["README.md", "bindings/c/README.md"].map(|page| root().join(page)).into_iter().filter(|path| path.exists()),
    );
    let mut broken = Vec::new();
    for path in &pages {
        let text = std::fs::read_to_string(path).unwrap();
        for link in prose(&text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap_or(Path::new("")).join(file) };
            let right = match std::fs::read_to_string(&target) {
                _ if heading.is_empty() => target.exists(),
                Ok(text) => prose(&text).any(|line| line.starts_with('#') && anchor(line) == heading),
                Err(_) => false,
            };
            if !right {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_test_that_the_specification_names_exists() {
    fn sources(directory: &Path, text: &mut String) {
        for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                sources(&entry, text);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(entry).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    ["src", "tests", "bindings/c/src", "bindings/c/tests"]
        .iter()
        .for_each(|directory| sources(&root.join(directory), &mut text));
    let page = std::fs::read_to_string(root.join("docs/specification.md")).unwrap();
    let names = page.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() >= 3);
    let (mut count, mut missing) = (0, Vec::new());
    for name in names {
        count += 1;
        if !text.contains(&format!("fn {name}(")) {
            missing.push(name);
        }
    }
    assert!(count > 60, "{count} names were found");
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn the_example_configuration_is_the_one_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/solond.toml");
    let example = solon::daemon::config::example_config();
    if std::env::var_os("SOLON_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &example).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == example, "deploy/solond.toml is not what solond --example-config prints");
}
