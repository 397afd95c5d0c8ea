//! Every failure planted in a machine that has all else, and the check that names it.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::doctor::{CHECKS, Finding, Report, Status};
use crate::transport::rdma::device::{Details, Gid, GidKind, LinkLayer, Port, PortState, ProbeError};
use crate::transport::rdma::select::choose;
use crate::transport::rdma::trial::TrialError;
use crate::transport::rdma::{LinkFailure, VerbsError};

const GROUP: &str = "0::/solond\n";

/// A machine with soft-RoCE on which nothing is wrong, until something is planted.
struct Planted {
    root: tempfile::TempDir,
    ports: Result<Result<Vec<Port>, ProbeError>, String>,
    trial: Result<f64, TrialError>,
    listening: Listening,
    admin: Listening,
    flags: Vec<String>,
}

fn gid(index: u8, address: &str, kind: GidKind) -> Gid {
    let address: std::net::Ipv6Addr = address.parse().unwrap();
    Gid { index, raw: address.octets(), kind, netdev: Some("eth0".into()) }
}

impl Planted {
    fn new() -> Planted {
        let details = Details {
            state: PortState::Active,
            link_layer: LinkLayer::Ethernet,
            mtu: 4096,
            lid: 0,
            gbits: Some(100.0),
            firmware: String::new(),
            max_qp: 1000,
            max_qp_wr: 1000,
            gids: vec![gid(0, "fe80::1", GidKind::RoceV2), gid(1, "::ffff:10.0.0.1", GidKind::RoceV2)],
        };
        let port = Port { device: "rxe0".into(), port: 1, details: Ok(details) };
        let planted = Planted {
            root: tempfile::tempdir().unwrap(),
            ports: Ok(Ok(vec![port])),
            trial: Ok(1e-3),
            listening: Listening::Free,
            admin: Listening::Free,
            flags: ["--job-dimension", "1000000", "--listen-address", "0.0.0.0:7447", "--listen-open"]
                .map(str::to_owned)
                .to_vec(),
        };
        planted
            .flag("rdma-traffic-class", "104")
            .file("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
            .file("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n")
            .file("run/chronyd.pid", "1\n")
            .file("proc/self/status", "Uid:\t0\t107\t0\t0\nCapEff:\t0000000000000000\nCpus_allowed_list:\t0-3\n")
            .limits("unlimited", "65536")
            .file("proc/self/cgroup", GROUP)
            .file("sys/fs/cgroup/solond/cpu.max", "max 100000\n")
            .file("proc/meminfo", "MemAvailable: 8000000 kB\n")
            .file("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
            .file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n")
            .file("proc/sys/net/core/rmem_max", "4194304\n")
            .file("proc/sys/net/core/wmem_max", "4194304\n")
            .file("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n")
            .file("sys/module/ib_core/refcnt", "1\n")
            .file("sys/module/ib_uverbs/refcnt", "1\n")
            .file("sys/module/rdma_rxe/refcnt", "1\n")
            .file("sys/class/infiniband/rxe0/node_type", "1: CA\n")
            .file("sys/class/infiniband_verbs/uverbs0/ibdev", "rxe0\n")
            .file("sys/class/net/eth0/mtu", "4200\n")
            .file("dev/infiniband/uverbs0", "")
            .file("dev/infiniband/rdma_cm", "")
    }

    /// One without anything of RDMA.
    fn without_rdma() -> Planted {
        let mut planted = Planted::new();
        for gone in ["sys/class/infiniband", "sys/class/infiniband_verbs", "sys/module", "dev/infiniband"] {
            std::fs::remove_dir_all(planted.root.path().join(gone)).unwrap();
        }
        planted.ports = Ok(Err(enosys()));
        planted
    }

    fn file(self, path: &str, text: &str) -> Planted {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn remove(self, path: &str) -> Planted {
        std::fs::remove_file(self.root.path().join(path)).unwrap();
        self
    }

    fn limits(self, locked: &str, files: &str) -> Planted {
        let line = |name: &str, soft: &str| format!("{name:<26}{soft:<21}{soft:<21}units\n");
        let text = line("Max locked memory", locked) + &line("Max open files", files);
        self.file("proc/self/limits", &text)
    }

    fn flag(mut self, name: &str, value: &str) -> Planted {
        self.flags.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    fn ports(mut self, ports: Result<Result<Vec<Port>, ProbeError>, String>) -> Planted {
        self.ports = ports;
        self
    }

    fn details(mut self, change: impl FnOnce(&mut Details)) -> Planted {
        let Ok(Ok(ports)) = &mut self.ports else { panic!("no ports") };
        change(ports[0].details.as_mut().unwrap());
        self
    }

    fn trial(mut self, error: TrialError) -> Planted {
        self.trial = Err(error);
        self
    }

    fn listening(mut self, listening: Listening) -> Planted {
        self.listening = listening;
        self
    }

    fn admin(mut self, listening: Listening) -> Planted {
        self.admin = listening;
        self
    }

    fn report(self) -> Report {
        let flags: Vec<OsString> = self.flags.iter().map(OsString::from).collect();
        let job = Job::read(None, &flags, []).unwrap();
        let choice = self.ports.as_ref().ok().and_then(|it| it.as_ref().ok());
        let choice = choice.map(|ports| choose(ports, &job.config.rdma.wanted(None)));
        let trial = matches!(choice, Some(Ok(_))).then_some(self.trial);
        let verbs = Verbs { ports: self.ports, trial, choice };
        let machine = Machine::below(self.root.path());
        let admin = job.config.admin.is_some().then_some(self.admin);
        Report::of(&Facts::look(job, &machine, Live { listening: self.listening, admin, verbs }))
    }

    /// What a check says.
    fn finding(self, check: &str) -> Finding {
        let report = self.report();
        report.findings.into_iter().find(|finding| finding.check == check).unwrap_or_else(|| panic!("no check {check}"))
    }

    /// As little as this is wrong: only these checks are not content, and they say so.
    fn names(self, status: Status, check: &str, parts: &[&str]) {
        let report = self.report();
        let finding = report.findings.iter().find(|finding| finding.check == check).expect("a check of that name");
        let text = format!("{}\n{}\n{}", finding.found, finding.expected, finding.hint);
        assert_eq!(finding.status, status, "{check}: {text}");
        for part in parts {
            assert!(text.contains(part), "{check} should say {part:?}: {text}");
        }
    }
}

fn probe(errno: i32) -> ProbeError {
    let error = io::Error::from_raw_os_error(errno).to_string();
    ProbeError { verb: "ibv_get_device_list", place: "this machine".into(), error, errno }
}

fn enosys() -> ProbeError {
    probe(38)
}

fn status(number: i32) -> TrialError {
    TrialError::Failed { place: "rxe0:1".into(), failure: LinkFailure::of_status(number) }
}

fn verb(verb: &'static str, errno: i32, attempt: &str) -> TrialError {
    let error = io::Error::from_raw_os_error(errno);
    VerbsError { verb, place: "rxe0:1".into(), attempt: attempt.into(), error }.into()
}

#[test]
fn on_a_machine_without_faults_every_check_passes_or_does_not_matter() {
    let report = Planted::new().report();
    let wrong: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|finding| !matches!(finding.status, Status::Pass | Status::Skip))
        .filter(|finding| finding.check != "tokens")
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let skipped: Vec<&str> =
        report.findings.iter().filter(|finding| finding.status == Status::Skip).map(|finding| finding.check).collect();
    assert_eq!(skipped, ["state directory", "journal", "local ports"]);
}

#[test]
fn every_first_run_failure_of_rdma_is_named() {
    use Status::{Note, Warn};
    let new = Planted::new;
    // The limit on locked memory, of a user without CAP_IPC_LOCK.
    for (limit, shown) in [("65536", "RLIMIT_MEMLOCK is 64 KiB"), ("8388608", "RLIMIT_MEMLOCK is 8.0 MiB")] {
        let parts = [shown, "user 107 has no CAP_IPC_LOCK", "LimitMEMLOCK=infinity"];
        new().limits(limit, "65536").names(Warn, "locked memory", &parts);
    }
    let refused = verb("ibv_reg_mr", 12, "to register 1024 KiB");
    new().trial(refused).names(Warn, "queue pair", &["ibv_reg_mr", "RLIMIT_MEMLOCK is", "the limit on locked memory"]);
    // No kernel module.
    new().ports(Ok(Err(enosys()))).names(Warn, "kernel modules", &["ENOSYS", "modprobe ib_uverbs"]);
    Planted::without_rdma().names(Note, "kernel modules", &["ENOSYS", "workers come by TCP", "modprobe rdma_rxe"]);
    // No library.
    let missing = Err("the RDMA library libibverbs.so.1 cannot be loaded".to_owned());
    new().ports(missing).names(Warn, "libraries", &["libibverbs.so.1 cannot be loaded", "apt install libibverbs1"]);
    // A container without the device; permissions are in a test of their own.
    let parts = ["rxe0 is in /sys, and its node /dev/infiniband/uverbs0 is not there", "--device /dev/infiniband"];
    new().remove("dev/infiniband/uverbs0").names(Warn, "device nodes", &parts);
    new().remove("dev/infiniband/rdma_cm").names(Status::Pass, "device nodes", &["rdma_cm: not there"]);
    // Port down.
    new().details(|it| it.state = PortState::Down).names(Warn, "port state", &["rxe0:1 down", "ip link set"]);
    // Only link-local addresses.
    let parts = ["fe80::1 (link-local)", "give the interface below the port an IP address"];
    new().details(|it| it.gids.truncate(1)).names(Warn, "addresses", &parts);
    // The way to RTR.
    let parts = ["INIT -> RTR", "does not go to RTR", "VLAN", "rail", "gid_index"];
    new().trial(verb("ibv_modify_qp", 22, "INIT -> RTR, our GID index 3")).names(Warn, "queue pair", &parts);
    new().flag("rdma-gid-index", "9").names(Warn, "addresses", &["GID index 9 is empty", "correct rdma.gid_index"]);
    // Completions.
    new().trial(status(12)).names(Warn, "queue pair", &["status 12", "UDP port 4791", "PFC"]);
    new().trial(status(13)).names(Warn, "queue pair", &["status 13", "receiver not ready"]);
    let silent = TrialError::Silent { place: "rxe0:1".into(), waited: std::time::Duration::from_secs(5) };
    new().trial(silent).names(Warn, "queue pair", &["nothing was heard", "status 13"]);
    // MTU.
    let small = new().details(|it| it.mtu = 1024).flag("rdma-mtu", "4096");
    small.names(Warn, "MTU", &["the MTU 4096 is larger than that of rxe0:1, which is 1024", "lower rdma.mtu"]);
    new().file("sys/class/net/eth0/mtu", "1500\n").names(Warn, "MTU", &["MTU mismatch", "eth0 has 1500"]);
}

#[test]
fn what_is_lacking_for_rdma_is_a_failure_only_if_nothing_else_is_allowed() {
    let checks = ["libraries", "kernel modules", "devices"];
    for (transport, expected) in [("rdma", Status::Fail), ("auto", Status::Note), ("tcp", Status::Skip)] {
        let planted = || Planted::without_rdma().flag("listen-transport", transport);
        for check in &checks[1..] {
            assert_eq!(planted().finding(check).status, expected, "{check} with {transport}");
        }
        assert_eq!(planted().ports(Err("no library".into())).finding(checks[0]).status, expected);
    }
}

#[test]
fn a_device_without_reliable_connections_is_named() {
    let iwarp = Planted::new().file("sys/class/infiniband/rxe0/node_type", "4: RNIC\n");
    iwarp.names(Status::Warn, "devices", &["rxe0: iWARP or EFA", "WRITE WITH IMMEDIATE"]);
}

#[test]
fn what_the_system_lacks_is_named() {
    use Status::{Fail, Note, Pass, Warn};
    let new = Planted::new;
    new().file("proc/sys/kernel/osrelease", "4.18.0-553.el8\n").names(Warn, "kernel", &["5.14 or newer"]);
    let clock = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    new().file(clock, "hpet\n").names(Warn, "clock", &["hpet", "dmesg"]);
    new().remove("run/chronyd.pid").names(Pass, "clock", &["nobody is known to set the wall clock"]);
    let map = "[[\"receive\"], [\"assemble\"], [\"push\"], [\"decode\"], [\"decode\"]]";
    new().flag("cores-map", map).names(Warn, "cores", &["4 allowed", "a core for each of 5 threads"]);
    let quota = "sys/fs/cgroup/solond/cpu.max";
    let tight =
        new().file(quota, "150000 100000\n").flag("cores-map", "[[\"receive\", \"assemble\", \"push\"], [\"decode\"]]");
    tight.names(Warn, "cores", &["time for 1.5 by its control group", "CPUQuota="]);
    new().file("proc/meminfo", "MemAvailable: 100 kB\n").names(Fail, "available memory", &["lower memory.credits"]);
    let group = new()
        .file("sys/fs/cgroup/solond/memory.max", "2000000\n")
        .file("sys/fs/cgroup/solond/memory.current", "1000000\n");
    group.names(Fail, "available memory", &["of its control group"]);
    new().limits("unlimited", "100").names(Warn, "open files", &["raised to 100", "LimitNOFILE="]);
    let never = || new().file("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
    never().names(Note, "huge pages", &["transparent ones: never", "vm.nr_hugepages="]);
    never().flag("memory-huge-pages", "require").names(Fail, "huge pages", &["memory.huge_pages is \"require\""]);
    let reserved = never().file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "64\n");
    reserved.flag("memory-huge-pages", "require").names(Pass, "huge pages", &["128.0 MiB reserved"]);
}

#[test]
fn whoever_may_lock_memory_needs_no_limit() {
    let status = "Uid:\t107\t107\t107\t107\nCapEff:\t0000000000004000\nCpus_allowed_list:\t0-3\n";
    let planted = Planted::new().limits("65536", "65536").file("proc/self/status", status);
    planted.names(Status::Pass, "locked memory", &["user 107 has CAP_IPC_LOCK"]);
}

#[test]
fn cores_far_from_the_nic_are_named() {
    let machine = |allowed: &str| {
        let status = format!("Cpus_allowed_list:\t{allowed}\n");
        Planted::new()
            .file("proc/self/status", &status)
            .file("sys/class/infiniband/rxe0/device/numa_node", "1\n")
            .file("sys/devices/system/node/online", "0-1\n")
            .file("sys/devices/system/node/node0/cpulist", "0-3\n")
            .file("sys/devices/system/node/node1/cpulist", "4-7\n")
            .file("sys/devices/system/node/node0/distance", "10 21\n")
            .file("sys/devices/system/node/node1/distance", "21 10\n")
    };
    machine("0-7").names(Status::Pass, "NUMA distance", &["the RDMA device rxe0 is on it"]);
    machine("0-3").names(Status::Warn, "NUMA distance", &["no allowed core on node 1", "numactl"]);
}

#[test]
fn addresses_and_ports_that_cannot_be_had_are_named() {
    use Status::{Fail, Note, Warn};
    let with = |listening| Planted::new().listening(listening);
    with(Listening::Elsewhere).names(Fail, "address", &["0.0.0.0 is not an address of this machine", "ip address"]);
    with(Listening::Taken).names(Fail, "port", &["another program listens at 0.0.0.0:7447", "ss -ltnp"]);
    with(Listening::Solond).names(Note, "port", &["a solond listens"]);
    with(Listening::Refused("Permission denied".into())).names(Fail, "port", &["ip_unprivileged_port_start"]);
    let pages = |listening| Planted::new().admin(listening);
    pages(Listening::Taken).names(
        Fail,
        "status pages",
        &["another program listens at 127.0.0.1:7448", "admin.address"],
    );
    pages(Listening::Taken).listening(Listening::Solond).names(Note, "status pages", &["a solond runs here"]);
    pages(Listening::Elsewhere).names(Fail, "status pages", &["not an address of this machine"]);
    pages(Listening::Taken).flag("admin-serve", "false").names(Status::Skip, "status pages", &["admin.serve"]);
    let small = Planted::new().file("proc/sys/net/core/rmem_max", "212992\n");
    small.names(Note, "socket buffers", &["rmem_max 208 KiB", "sysctl net.core.rmem_max="]);
    let few = Planted::new().file("proc/sys/net/ipv4/ip_local_port_range", "40000 40009\n").flag("push-way", "relay");
    few.names(Warn, "local ports", &["40000 to 40009", "13 ports"]);
}

#[test]
fn what_listens_at_a_port_is_told_apart() {
    use std::io::Write as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let speak = std::thread::spawn(move || {
        for words in [&b"SOLN and more"[..], b"HTTP/1.1 400"] {
            listener.accept().unwrap().0.write_all(words).unwrap();
        }
    });
    assert_eq!(Listening::try_out(address), Listening::Solond);
    assert_eq!(Listening::try_out(address), Listening::Taken);
    speak.join().unwrap();
    assert_eq!(Listening::try_out(address), Listening::Free);
    assert_eq!(Listening::try_out("192.0.2.1:0".parse().unwrap()), Listening::Elsewhere);
}

#[test]
fn tokens_state_and_journal_that_stop_a_start_are_named() {
    use Status::{Fail, Pass};
    let with_tokens = |mode: u32, text: &str| {
        let mut planted = Planted::new().file("etc/tokens", text).flag("listen-token-file", "/etc/tokens");
        planted.flags.retain(|flag| flag != "--listen-open");
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(planted.root.path().join("etc/tokens"), permissions).unwrap();
        planted
    };
    let line = |worker: usize| format!("{worker} 0123456789abcdef{worker}\n");
    let all: String = (0..12).map(line).collect();
    with_tokens(0o600, &all).names(Pass, "tokens", &["12 tokens"]);
    with_tokens(0o644, &all).names(Fail, "tokens", &["may be read by others", "chmod 600"]);
    with_tokens(0o600, &line(0)).names(Fail, "tokens", &["no token for the workers 1, 2, 3"]);
    let state = || Planted::new().flag("state-directory", "/state");
    state().names(Pass, "state directory", &["solond will make it"]);
    state().file("state", "").names(Fail, "state directory", &["not a directory"]);
    state().file("state/other", "").names(Pass, "journal", &["none yet"]);
    state().file("state/default.journal", "nonsense").names(Fail, "journal", &["damaged"]);
}

#[test]
fn everything_wrong_with_a_configuration_is_listed_and_nothing_assumed_is_a_failure() {
    let wrong = Planted::new().flag("rounds-window", "99").flag("memory-credits", "0");
    wrong.names(Status::Fail, "configuration", &["rounds.window", "memory.credits"]);
    let job = Job::read(None, &[], []).unwrap();
    assert_eq!(job.given, Given::Assumed);
    let planted = Planted::new().file("proc/meminfo", "MemAvailable: 100 kB\n");
    let verbs = Verbs { ports: planted.ports, trial: None, choice: None };
    let live = Live { listening: Listening::Taken, admin: None, verbs };
    let report = Report::of(&Facts::look(job, &Machine::below(planted.root.path()), live));
    assert_eq!(report.count(Status::Fail), 0);
    assert!(report.count(Status::Warn) >= 2, "{report:#?}");
    let env = [("SOLON_JOB_DIMENSION".into(), "7".into())];
    assert_eq!(Job::read(None, &[], env).unwrap().config.job.dimension, 7);
}

#[test]
fn a_machine_that_says_nothing_at_all_is_looked_at_without_a_failure_of_the_program() {
    let root = tempfile::tempdir().unwrap();
    let job = Job::read(None, &[], []).unwrap();
    let verbs = Verbs { ports: Err("no library".into()), trial: None, choice: None };
    let live = Live { listening: Listening::Free, admin: None, verbs };
    let report = Report::of(&Facts::look(job, &Machine::below(root.path()), live));
    assert_eq!(report.findings.len(), CHECKS.len());
    assert_eq!(report.count(Status::Fail), 0, "{report:#?}");
}
