//! Whether machines are fit for a job, before one is started.
//!
//! ```text
//!  /sys /proc /dev --> Machine --┐
//!  binds, verbs, files ----------┼--> Facts --> CHECKS, one pure function each --> Report
//!  the configuration ------------┘
//! ```
//!
//! - [`facts`]: what is looked at; everything that a check needs is there as a plain value, so that tests can plant any failure.
//! - [`system`], [`memory`], [`network`], [`rdma`], [`files`]: the facts and checks of each group.
//! - [`page`]: a report as text. - [`peer`]: can two machines reach each other, and how fast?

pub mod facts;
pub mod files;
pub mod memory;
pub mod network;
pub mod page;
pub mod peer;
pub mod rdma;
pub mod system;

use serde::Serialize;

pub use facts::{Facts, Given, Live};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Pass,
    /// Nothing is wrong; it is as well to know.
    Note,
    /// The job will run, but not as it could.
    Warn,
    /// The job will not run as it is configured.
    Fail,
    /// Could not be looked at, or does not matter here.
    Skip,
}

/// What a check has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it came out.
    pub status: Status,
    /// What is there.
    pub found: String,
    /// What should be there; empty if that is what was found.
    pub expected: String,
    /// What to do; empty if nothing.
    pub hint: String,
}

impl Outcome {
    /// All is well.
    pub fn pass(found: impl Into<String>) -> Outcome {
        Outcome { status: Status::Pass, found: found.into(), expected: String::new(), hint: String::new() }
    }

    /// It does not matter here, and why.
    pub fn skip(why: impl Into<String>) -> Outcome {
        Outcome { status: Status::Skip, ..Outcome::pass(why) }
    }

    /// Anything else.
    pub fn of(
        status: Status,
        found: impl Into<String>,
        expected: impl Into<String>,
        hint: impl Into<String>,
    ) -> Outcome {
        Outcome { status, found: found.into(), expected: expected.into(), hint: hint.into() }
    }
}

/// One thing that is looked at.
pub struct Check {
    /// What belongs together.
    pub group: &'static str,
    /// Its name, unique.
    pub name: &'static str,
    /// What it looks at, for the docs.
    pub about: &'static str,
    /// The page and heading of `docs/` that says more.
    pub docs: &'static str,
    /// The decision.
    pub examine: fn(&Facts) -> Outcome,
}

/// Everything that is looked at on one machine, in the order of the report.
pub const CHECKS: &[Check] = &[
    check(
        "configuration",
        "configuration",
        "all that `solond --check-config` says",
        "operations.md#configuration",
        files::configuration,
    ),
    check(
        "configuration",
        "tokens",
        "the token file: readable, by nobody else, one line per worker",
        "operations.md#tokens",
        files::tokens,
    ),
    check(
        "configuration",
        "state directory",
        "`state.directory`: there, writable, with room",
        "operations.md#state-and-restart",
        files::state,
    ),
    check(
        "configuration",
        "journal",
        "the journal of the job: readable and whole",
        "operations.md#state-and-restart",
        files::journal,
    ),
    check("system", "kernel", "the version of Linux", "operations.md#memory", system::kernel),
    check(
        "system",
        "clock",
        "the clock source, and whether the wall clock is set by others",
        "doctor.md#clock",
        system::clock,
    ),
    check(
        "system",
        "cores",
        "cores that this process may use (affinity, quota of its control group), against the threads of `cores.map`",
        "operations.md#cores",
        system::cores,
    ),
    check("system", "NUMA distance", "how far the cores are from the NIC", "operations.md#cores", system::numa),
    check(
        "memory",
        "available memory",
        "memory that is free, on the machine and in the control group, against all slots",
        "operations.md#memory",
        memory::available,
    ),
    check(
        "memory",
        "locked memory",
        "RLIMIT_MEMLOCK and CAP_IPC_LOCK, against what is registered with a NIC",
        "rdma.md#memlock",
        memory::locked,
    ),
    check(
        "memory",
        "huge pages",
        "reserved and transparent pages of 2 MiB, against `memory.huge_pages`",
        "operations.md#memory",
        memory::huge_pages,
    ),
    check(
        "memory",
        "open files",
        "RLIMIT_NOFILE, against what so many workers need",
        "operations.md#logs",
        memory::open_files,
    ),
    check(
        "network",
        "address",
        "`listen.address` is one of this machine",
        "operations.md#exit-codes",
        network::address,
    ),
    check("network", "port", "nobody else listens there", "operations.md#exit-codes", network::port),
    check(
        "network",
        "status pages",
        "`admin.address` is one of this machine, and nobody else listens there",
        "operations.md#status-and-health",
        network::admin,
    ),
    check(
        "network",
        "socket buffers",
        "net.core.rmem_max and wmem_max, against what each connection asks for",
        "doctor.md#socket-buffers",
        network::buffers,
    ),
    check(
        "network",
        "local ports",
        "net.ipv4.ip_local_port_range, against the links of a relay",
        "relay.md#links",
        network::ports,
    ),
    check("rdma", "libraries", "libibverbs can be loaded", "rdma.md#first-run-failures", rdma::libraries),
    check(
        "rdma",
        "kernel modules",
        "ib_core, ib_uverbs, and the driver of a device",
        "rdma.md#first-run-failures",
        rdma::modules,
    ),
    check(
        "rdma",
        "devices",
        "RDMA devices, and that they have reliable connections",
        "rdma.md#hardware",
        rdma::devices,
    ),
    check(
        "rdma",
        "device nodes",
        "/dev/infiniband/uverbs* and rdma_cm: there, and open to this user",
        "rdma.md#first-run-failures",
        rdma::nodes,
    ),
    check("rdma", "port state", "a port of `rdma.devices` is active", "rdma.md#first-run-failures", rdma::state),
    check("rdma", "link layer", "Ethernet (RoCE) or InfiniBand", "rdma.md#hardware", rdma::link_layer),
    check("rdma", "addresses", "the table of GIDs has one that can be used", "rdma.md#which-port", rdma::addresses),
    check(
        "rdma",
        "chosen port",
        "the port and GID that `solond` would take, and why",
        "rdma.md#which-port",
        rdma::chosen,
    ),
    check("rdma", "MTU", "bytes per packet: port, interface and `rdma.mtu`", "rdma.md#tuning", rdma::mtu),
    check(
        "rdma",
        "traffic class",
        "`rdma.traffic_class` and `rdma.service_level`",
        "rdma.md#tuning",
        rdma::traffic_class,
    ),
    check(
        "rdma",
        "queue pair",
        "memory registered, two queue pairs brought up on that port and connected to each other, bytes sent and written back",
        "rdma.md#first-run-failures",
        rdma::queue_pair,
    ),
];

/// The checks of `--peer`: group, name, what they look at, docs.
pub const PEER_CHECKS: &[(&str, &str, &str, &str)] = &[
    ("peer", "TCP", "a connection to the other machine, 32 round trips, bytes for a second each way", "relay.md#links"),
    (
        "peer",
        "RDMA",
        "a queue pair to the other machine, a verified echo, SEND there and WRITE back for half a second each",
        "rdma.md#first-run-failures",
    ),
];

const fn check(
    group: &'static str,
    name: &'static str,
    about: &'static str,
    docs: &'static str,
    examine: fn(&Facts) -> Outcome,
) -> Check {
    Check { group, name, about, docs, examine }
}

/// A check and how it came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's group.
    pub group: &'static str,
    /// The check.
    pub check: &'static str,
    /// How it came out.
    pub status: Status,
    /// What is there.
    pub found: String,
    /// What should be there; empty if that is what was found.
    pub expected: String,
    /// What to do; empty if nothing.
    pub hint: String,
    /// Where more is said.
    pub docs: String,
}

impl Finding {
    fn new((group, check, docs): (&'static str, &'static str, &str), outcome: Outcome) -> Finding {
        let Outcome { status, found, expected, hint } = outcome;
        Finding { group, check, status, found, expected, hint, docs: format!("docs/{docs}") }
    }
}

/// All findings.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of this form; another number means that a field has another meaning or is gone.
    pub version: u32,
    /// Of which job it is, in words.
    pub job: String,
    /// In the order of the checks.
    pub findings: Vec<Finding>,
    /// What is between this machine and another one, if that was asked for and there is a way at all.
    pub peer: Option<peer::Way>,
}

impl Report {
    /// What all checks say of these facts.
    pub fn of(facts: &Facts) -> Report {
        let finding = |check: &Check| {
            let mut outcome = (check.examine)(facts);
            // Nobody asked for what was assumed.
            if outcome.status == Status::Fail && matches!(facts.given, Given::Assumed) {
                outcome.status = Status::Warn;
            }
            Finding::new((check.group, check.name, check.docs), outcome)
        };
        Report { version: 1, job: facts.job(), findings: CHECKS.iter().map(finding).collect(), peer: None }
    }

    /// Adds a way to another machine, or why there is none.
    pub fn add_peer(&mut self, way: Result<peer::Way, peer::PeerError>) {
        let checks = PEER_CHECKS.iter().map(|(group, name, _, docs)| (*group, *name, *docs));
        let outcomes = peer::outcomes(&way);
        self.findings.extend(checks.zip(outcomes).map(|(check, outcome)| Finding::new(check, outcome)));
        self.peer = way.ok();
    }

    /// How many came out so.
    pub fn count(&self, status: Status) -> usize {
        self.findings.iter().filter(|finding| finding.status == status).count()
    }
}

/// The table of all checks, for the docs.
pub fn checks_markdown() -> String {
    let mut page = String::from("| Group | Check | Looks at | More |\n|---|---|---|---|\n");
    let local = CHECKS.iter().map(|check| (check.group, check.name, check.about, check.docs));
    for (group, name, about, docs) in local.chain(PEER_CHECKS.iter().copied()) {
        let (file, heading) = docs.split_once('#').unwrap_or((docs, ""));
        page += &format!("| {group} | {name} | {about} | [{}]({file}#{heading}) |\n", heading.replace('-', " "));
    }
    page
}
