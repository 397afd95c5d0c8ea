//! Kernel, clock, cores and where they are.

use crate::daemon::config::{Config, Stage};
use crate::daemon::cores::{place, reactors};
use crate::daemon::machine::{Machine, Placement, cores as core_list};

use super::{Facts, Outcome, Status};

/// Clock sources that are read in a few nanoseconds, without the kernel.
const FAST_CLOCKS: &[&str] = &["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];
/// Where those that set the clock from the network leave a trace: systemd-timesyncd, chrony, ntpd.
const SYNCHRONISERS: &[&str] = &[
    "run/systemd/timesync/synchronized",
    "run/chrony/chronyd.pid",
    "run/chronyd.pid",
    "run/ntpd.pid",
    "var/run/ntpd.pid",
];
/// From here on a control group that has too few huge pages refuses them; before, it ended the process.
const KERNEL: (u32, u32) = (5, 14);
/// As the kernel writes the distance of a node to itself.
const NEAR: usize = 10;

/// What the machine is.
#[derive(Clone, Debug)]
pub struct System {
    kernel: Option<String>,
    clock: Option<String>,
    synchroniser: Option<&'static str>,
    allowed: Vec<usize>,
    /// Cores' worth of time that the control group gives.
    quota: Option<f64>,
    nodes: usize,
    placement: Placement,
    /// Which stages would run on which core.
    pub(super) map: Vec<Vec<Stage>>,
    /// From the first core's node to the NIC's, and the largest on the machine.
    distances: Option<(usize, usize)>,
}

impl System {
    pub(super) fn look(machine: &Machine, config: &Config) -> System {
        let status = machine.read("proc/self/status").unwrap_or_default();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let allowed = line("Cpus_allowed_list:").and_then(core_list).unwrap_or_default();
        let placement = place(config, machine, &allowed);
        let quota = quota(machine);
        let available = quota.map_or(allowed.len(), |quota| allowed.len().min(quota as usize)).max(1);
        let text = |path: &str| machine.read(path).map(|text| text.trim().to_owned());
        System {
            kernel: text("proc/sys/kernel/osrelease"),
            clock: text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            synchroniser: SYNCHRONISERS.iter().copied().find(|path| machine.path(path).exists()),
            quota,
            nodes: machine.nodes().len(),
            distances: distances(machine, &placement),
            map: reactors(config, &placement, available),
            allowed,
            placement,
        }
    }
}

/// Time per second that the control group gives, in cores.
fn quota(machine: &Machine) -> Option<f64> {
    let groups = machine.read("proc/self/cgroup").unwrap_or_default();
    let of = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_end_matches('/'));
        // Within a container the group is the root of what is seen.
        let read = |base: &str, name: &str| {
            machine.read(&format!("{base}{path}/{name}")).or_else(|| machine.read(&format!("{base}/{name}")))
        };
        let (time, period) = if controllers.is_empty() {
            let text = read("sys/fs/cgroup", "cpu.max")?;
            let (time, period) = text.trim().split_once(' ')?;
            (time.parse::<f64>().ok()?, period.parse::<f64>().ok()?)
        } else if controllers.split(',').any(|name| name == "cpu") {
            let number = |name| read("sys/fs/cgroup/cpu", name)?.trim().parse::<f64>().ok();
            (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
        } else {
            return None;
        };
        (time > 0.0 && period > 0.0).then(|| time / period)
    };
    groups.lines().filter_map(of).min_by(f64::total_cmp)
}

fn distances(machine: &Machine, placement: &Placement) -> Option<(usize, usize)> {
    let nic = placement.node?;
    let nodes = machine.nodes();
    let first = placement.cores.first()?;
    let own = nodes.iter().find(|(_, cores)| cores.contains(first))?.0;
    let text = machine.read(&format!("sys/devices/system/node/node{own}/distance"))?;
    let row: Vec<usize> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    // The row has one number for each node that is online, in their order.
    let online: Vec<usize> = machine.read("sys/devices/system/node/online").and_then(|text| core_list(&text))?;
    let at = online.iter().position(|node| *node == nic)?;
    Some((*row.get(at)?, row.iter().copied().max()?))
}

/// Is the kernel one that Solon knows how to ask?
pub(super) fn kernel(facts: &Facts) -> Outcome {
    let Some(release) = &facts.system.kernel else { return Outcome::skip("the kernel does not say its version") };
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().ok());
    let version = numbers.next().flatten().zip(numbers.next().flatten());
    match version {
        Some(version) if version < KERNEL => Outcome::of(
            Status::Warn,
            format!("Linux {release}"),
            format!("{}.{} or newer", KERNEL.0, KERNEL.1),
            "a control group with too few huge pages ends the daemon instead of refusing them: set memory.huge_pages = \"off\", or take \
             a newer kernel",
        ),
        _ => Outcome::pass(format!("Linux {release}")),
    }
}

/// Are deadlines measured by a good clock?
pub(super) fn clock(facts: &Facts) -> Outcome {
    let wall = match facts.system.synchroniser {
        Some(_) => "the wall clock is set from the network",
        None => "nobody is known to set the wall clock (only the times in logs come from it)",
    };
    match &facts.system.clock {
        None => Outcome::skip(format!("the kernel does not name its clock source; {wall}")),
        Some(source) if FAST_CLOCKS.contains(&source.as_str()) => Outcome::pass(format!("{source}; {wall}")),
        Some(source) => Outcome::of(
            Status::Warn,
            format!("{source}; {wall}"),
            format!("one of {}", FAST_CLOCKS.join(", ")),
            "each look at the clock enters the kernel, and reactors look at it in each turn: see dmesg for why the kernel left the \
             processor's own clock (BIOS, hypervisor)",
        ),
    }
}

/// Enough cores for the threads?
pub(super) fn cores(facts: &Facts) -> Outcome {
    let System { allowed, quota, map, placement, .. } = &facts.system;
    if allowed.is_empty() {
        return Outcome::skip("the kernel does not say which cores this process may use");
    }
    let limit = quota.map_or(String::new(), |quota| format!(", and time for {quota:.1} by its control group"));
    let found = format!(
        "{} allowed, {} of them physical cores of their own{limit}; cores.map makes {} threads",
        allowed.len(),
        placement.physical,
        map.len()
    );
    if map.len() > allowed.len() {
        let hint = "give the process as many cores (taskset, cpuset, AllowedCPUs=), or set cores.map = \"auto\"";
        return Outcome::of(Status::Warn, found, format!("a core for each of {} threads", map.len()), hint);
    }
    if quota.is_some_and(|quota| quota < map.len() as f64) {
        let hint = "a thread that has used up its time stands still for the rest of a period, and every worker with it: raise the quota \
                    (CPUQuota=, --cpus), or fewer threads in cores.map";
        return Outcome::of(Status::Warn, found, format!("time for {} cores", map.len()), hint);
    }
    Outcome::pass(found)
}

/// Are the cores near the NIC?
pub(super) fn numa(facts: &Facts) -> Outcome {
    let System { nodes, placement, distances, .. } = &facts.system;
    if *nodes < 2 {
        return Outcome::pass("one memory node");
    }
    let why = &placement.why;
    match (placement.node, distances) {
        (Some(node), Some((distance, most))) if *distance > NEAR => Outcome::of(
            Status::Warn,
            format!(
                "the NIC is on node {node} ({why}), the first core at distance {distance} (the largest here is {most})"
            ),
            format!("distance {NEAR}"),
            "give the process cores of that node (numactl, cpuset)",
        ),
        (Some(node), _) => Outcome::pass(format!("node {node} of {nodes}: {why}")),
        (None, _) if why.starts_with("no allowed core") => Outcome::of(
            Status::Warn,
            why.clone(),
            "cores on the node of the NIC",
            "give the process cores of that node (numactl, cpuset): else all bytes cross between the processors",
        ),
        (None, _) => Outcome::of(Status::Note, format!("{nodes} nodes, and none is preferred: {why}"), "", ""),
    }
}
