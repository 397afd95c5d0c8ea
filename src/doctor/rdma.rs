//! RDMA: library, kernel, nodes, ports, addresses, and a connection of a port with itself.
//!
//! Where there is no device nothing here is wrong, unless `listen.transport` is `"rdma"`: workers come by TCP.

mod seen;

use std::path::Path;

use crate::transport::Transport;
use crate::transport::rdma::LinkFailure;
use crate::transport::rdma::device::{Details, LinkLayer, Port, PortState};
use crate::transport::rdma::select::{NoChoice, shortcoming};
use crate::transport::rdma::trial::{self, TrialError};

use super::{Facts, Outcome, Status};
use seen::{Device, Node, Refused};
pub use seen::{Rdma, Verbs};

/// The kernel's modules that everything needs, and drivers that are known to have reliable connections.
const MODULES: [&str; 2] = ["ib_core", "ib_uverbs"];
const DRIVERS: &[&str] =
    &["mlx5_ib", "mlx4_ib", "bnxt_re", "irdma", "rdma_rxe", "siw", "efa", "hns_roce_hw_v2", "erdma"];
/// A RoCE packet has about so many bytes beside its payload.
const ROCE_HEADERS: usize = 64;
const SOFT_ROCE: &str =
    "to try RDMA without a NIC (soft-RoCE): modprobe rdma_rxe; rdma link add rxe0 type rxe netdev eth0";

/// How bad it is if RDMA does not work for this reason.
fn lacking(facts: &Facts, found: impl Into<String>, expected: &str, hint: impl Into<String>) -> Outcome {
    let status = match facts.config.listen.transport {
        Transport::Rdma => Status::Fail,
        _ if facts.rdma.has_devices() => Status::Warn,
        _ => Status::Note,
    };
    let found = match status {
        Status::Note => format!("{}: workers come by TCP", found.into()),
        _ => found.into(),
    };
    Outcome::of(status, found, expected, hint)
}

/// Nobody wants RDMA, or there is nothing to look at.
fn unwanted(facts: &Facts) -> Option<Outcome> {
    facts.no_rdma_wanted().then(|| Outcome::skip("listen.transport is \"tcp\""))
}

/// As [`unwanted`], and without a port that the library shows.
fn no_ports(facts: &Facts) -> Option<Outcome> {
    unwanted(facts).or_else(|| facts.rdma.ports().is_empty().then(|| Outcome::skip("no RDMA port")))
}

/// Is the library there?
pub(super) fn libraries(facts: &Facts) -> Outcome {
    let install = "Debian, Ubuntu: apt install libibverbs1 ibverbs-providers; Red Hat: dnf install libibverbs";
    match (&facts.rdma.verbs.ports, unwanted(facts)) {
        (_, Some(skip)) => skip,
        (Ok(_), None) => Outcome::pass("libibverbs.so.1"),
        (Err(error), None) => lacking(facts, error.clone(), "rdma-core", install),
    }
}

/// Does the kernel have RDMA, and a driver?
pub(super) fn modules(facts: &Facts) -> Outcome {
    if let Some(skip) = unwanted(facts) {
        return skip;
    }
    let modules = &facts.rdma.modules;
    let has = |name: &&&str| modules.contains(*name);
    let missing: Vec<&str> = MODULES.iter().filter(|name| !has(name)).copied().collect();
    let found = match &facts.rdma.verbs.ports {
        Ok(Err(error)) if error.is_unsupported() => Some(format!("the kernel has no verbs (ENOSYS): {error}")),
        _ if missing.is_empty() => None,
        _ => Some(format!("not loaded: {}", missing.join(", "))),
    };
    if let Some(found) = found {
        let hint = format!("modprobe ib_uverbs, and the NIC's driver (such as mlx5_ib); {SOFT_ROCE}");
        return lacking(facts, found, "ib_core, ib_uverbs and a driver", hint);
    }
    let drivers: Vec<&str> = DRIVERS.iter().filter(|name| has(name)).copied().collect();
    match drivers.is_empty() && !facts.rdma.has_devices() {
        true => lacking(
            facts,
            "ib_core, ib_uverbs, and no driver",
            "a driver",
            format!("modprobe mlx5_ib, or what the NIC needs; {SOFT_ROCE}"),
        ),
        false => Outcome::pass(modules.join(", ")),
    }
}

/// Is there a device?
pub(super) fn devices(facts: &Facts) -> Outcome {
    if let Some(skip) = unwanted(facts) {
        return skip;
    }
    let devices = &facts.rdma.devices;
    let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    let without: Vec<&str> = devices
        .iter()
        .filter(|device| device.iwarp || device.name.starts_with("efa"))
        .map(|it| it.name.as_str())
        .collect();
    if devices.is_empty() {
        return lacking(
            facts,
            "the kernel shows no RDMA device",
            "a device in /sys/class/infiniband",
            format!("`rdma link` and dmesg; {SOFT_ROCE}"),
        );
    }
    if without.len() == devices.len() {
        let found = format!("{}: iWARP or EFA", without.join(", "));
        return lacking(
            facts,
            found,
            "reliable connections with WRITE WITH IMMEDIATE",
            "set listen.transport = \"tcp\", or take a RoCE or InfiniBand NIC",
        );
    }
    Outcome::pass(names.join(", "))
}

/// May this user open them?
pub(super) fn nodes(facts: &Facts) -> Outcome {
    if let Some(skip) = unwanted(facts) {
        return skip;
    }
    let rdma = &facts.rdma;
    if rdma.devices.is_empty() {
        return Outcome::skip("no device");
    }
    let (mut missing, mut denied, mut fine) = (Vec::new(), Vec::new(), Vec::new());
    for Device { name, node, .. } in &rdma.devices {
        match node {
            None => missing.push(format!("{name} has no uverbs device in /sys/class/infiniband_verbs")),
            Some(Node { path, opened: Ok(()) }) => fine.push(shown(path)),
            Some(Node { path, opened: Err(Refused::Missing) }) => {
                missing.push(format!("{name} is in /sys, and its node {} is not there", shown(path)));
            }
            Some(Node { path, opened: Err(Refused::Permission) }) => {
                denied.push(format!("{}: permission denied for this user", shown(path)));
            }
            Some(Node { path, opened: Err(Refused::Other(error)) }) => {
                missing.push(format!("{}: {error}", shown(path)))
            }
        }
    }
    let manager = match &rdma.connection_manager.opened {
        Ok(()) => "rdma_cm too",
        Err(Refused::Permission) => "rdma_cm: permission denied (Solon does not use it; rping does)",
        Err(_) => "rdma_cm: not there (Solon does not use it; rping does: modprobe rdma_ucm)",
    };
    let all = [&denied[..], &missing, &fine].concat().join("\n");
    if !missing.is_empty() {
        let hint = "in a container: pass /dev/infiniband through (--device /dev/infiniband, a device plug-in); else modprobe ib_uverbs, \
                    and look at udev";
        return lacking(facts, all, "a node for each device", hint);
    }
    if !denied.is_empty() {
        let hint = "the mode or group that udev gives these nodes (rdma-core's rules: 0666), or chmod; run this command as solond's user";
        return lacking(facts, all, "nodes that this user can read and write", hint);
    }
    Outcome::pass(format!("{}; {manager}", fine.join(", ")))
}

/// As it would be called on the machine itself.
fn shown(node: &Path) -> String {
    format!("/dev/infiniband/{}", node.file_name().unwrap_or_default().to_string_lossy())
}

/// Is a port up?
pub(super) fn state(facts: &Facts) -> Outcome {
    if let Some(skip) = no_ports(facts) {
        return skip;
    }
    let allowed = facts.rdma.ports().iter().filter(|port| facts.config.rdma.devices.allows(&port.device, port.port));
    let states: Vec<(PortState, String)> = allowed
        .map(|port| match &port.details {
            Ok(details) => {
                let speed = details.gbits.map_or(String::new(), |gbits| format!(", {gbits} Gb/s"));
                (details.state, format!("{port} {}{speed}", details.state))
            }
            Err(error) => (PortState::Unknown, format!("{port} cannot be looked at: {error}")),
        })
        .collect();
    if states.is_empty() {
        return lacking(
            facts,
            "rdma.devices names none of those that there are",
            "one of them",
            "correct rdma.devices",
        );
    }
    let found = states.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n");
    match states.iter().any(|(state, _)| *state == PortState::Active) {
        true => Outcome::pass(found),
        false => lacking(
            facts,
            found,
            "an active port",
            "cable, switch, and the interface below it: `rdma link`, ip link set .. up; on InfiniBand a subnet manager has to run",
        ),
    }
}

/// What carries the packets?
pub(super) fn link_layer(facts: &Facts) -> Outcome {
    if let Some(skip) = no_ports(facts) {
        return skip;
    }
    let Some(choice) = facts.rdma.choice() else { return Outcome::skip("no port is chosen") };
    Outcome::pass(match choice.link_layer {
        LinkLayer::Ethernet => "Ethernet: RoCE, where both ends need it, and UDP port 4791 open".into(),
        LinkLayer::InfiniBand => format!("InfiniBand, LID {}", choice.lid),
    })
}

/// Is there an address to be reached by?
pub(super) fn addresses(facts: &Facts) -> Outcome {
    if let Some(skip) = no_ports(facts) {
        return skip;
    }
    let ports = facts.rdma.ports().iter().filter_map(|port| Some((port, port.details.as_ref().ok()?)));
    let line = |(port, details): (&Port, &Details)| {
        let gids = details.gids.iter().map(|gid| {
            let note = shortcoming(gid).map_or(String::new(), |text| format!(" ({text})"));
            format!("{} {}{note}", gid.index, gid.address())
        });
        let gids: Vec<String> = gids.collect();
        format!("{port}: {}", if gids.is_empty() { "none".into() } else { gids.join(", ") })
    };
    let table = ports.map(line).collect::<Vec<_>>().join("\n");
    match &facts.rdma.verbs.choice {
        Some(Err(error @ NoChoice::NoUsableGid { .. })) => {
            let hint = "give the interface below the port an IP address (ip address add); a link-local one only by rdma.gid_index";
            lacking(facts, format!("{table}\n{error}"), "a routable address as a RoCE v2 GID", hint)
        }
        Some(Err(error @ NoChoice::NoSuchGid { .. })) => lacking(
            facts,
            format!("{table}\n{error}"),
            "an entry of the table",
            "correct rdma.gid_index, or leave it unset",
        ),
        _ => Outcome::pass(table),
    }
}

/// What would be taken?
pub(super) fn chosen(facts: &Facts) -> Outcome {
    if let Some(skip) = no_ports(facts) {
        return skip;
    }
    match &facts.rdma.verbs.choice {
        Some(Ok(choice)) => Outcome::pass(choice.why.clone()),
        Some(Err(error @ NoChoice::NoneMatches { .. })) => {
            lacking(facts, error.to_string(), "a device of this machine", "correct rdma.devices")
        }
        _ => Outcome::skip("none: see above"),
    }
}

/// Are packets as large as they can be, and no larger?
pub(super) fn mtu(facts: &Facts) -> Outcome {
    if let Some(skip) = no_ports(facts) {
        return skip;
    }
    let rdma = &facts.rdma;
    if let Some(Err(error @ NoChoice::MtuTooLarge { .. })) = &rdma.verbs.choice {
        let hint = "lower rdma.mtu, or raise the MTU of the interface (RoCE: at least rdma.mtu + 64), on both ends and the switches";
        return lacking(facts, error.to_string(), "at most what the port has", hint);
    }
    let Some(choice) = rdma.choice() else { return Outcome::skip("no port is chosen") };
    let port = rdma.ports().iter().find(|port| (&port.device, port.port) == (&choice.device, choice.port));
    let gids = port.and_then(|port| port.details.as_ref().ok()).map_or(&[][..], |details| &details.gids);
    let netdev = gids.iter().find(|gid| gid.index == choice.gid_index).and_then(|gid| gid.netdev.as_ref());
    let interface = netdev.and_then(|name| rdma.interfaces.iter().find(|(other, _)| other == name));
    let below = interface.map_or(String::new(), |(name, mtu)| format!(", {name} has {mtu}"));
    let found = format!("{} bytes per packet{below}", choice.mtu);
    match interface {
        Some((_, mtu)) if *mtu < choice.mtu as usize + ROCE_HEADERS => Outcome::of(
            Status::Warn,
            found,
            format!("an interface with at least {}", choice.mtu as usize + ROCE_HEADERS),
            "MTU mismatch: raise that of the interface, or lower rdma.mtu; else packets are lost (status 12)",
        ),
        _ if choice.mtu < 2048 && choice.link_layer == LinkLayer::Ethernet => Outcome::of(
            Status::Note,
            found,
            "",
            "with jumbo frames (MTU 4200 or more on interfaces and switches, all the way) packets are up to 4096 bytes",
        ),
        _ => Outcome::pass(found),
    }
}

/// In which class are the packets?
pub(super) fn traffic_class(facts: &Facts) -> Outcome {
    if let Some(skip) = no_ports(facts) {
        return skip;
    }
    let (class, level) = (facts.config.rdma.traffic_class, facts.config.rdma.service_level);
    let found = format!("{class} (DSCP {}), service level {level}", class >> 2);
    match facts.rdma.choice().map(|choice| choice.link_layer) {
        Some(LinkLayer::Ethernet) if class == 0 => Outcome::of(
            Status::Note,
            found,
            "",
            "the default class; on a fabric with PFC or ECN set rdma.traffic_class to the one that it is made for",
        ),
        _ => Outcome::pass(found),
    }
}

/// Does a connection come up?
pub(super) fn queue_pair(facts: &Facts) -> Outcome {
    if let Some(skip) = no_ports(facts) {
        return skip;
    }
    match &facts.rdma.verbs.trial {
        None => Outcome::skip("no port is chosen"),
        Some(Ok(seconds)) => {
            Outcome::pass(format!("{} KiB to itself and back in {:.2} ms", trial::BLOCK_BYTES >> 10, 1e3 * seconds))
        }
        Some(Err(error)) => lacking(facts, error.to_string(), "a connection of the port with itself", advice(error)),
    }
}

/// What to do about a connection that failed.
pub fn advice(error: &TrialError) -> &'static str {
    match error.failure() {
        Some(LinkFailure::Resources) => {
            "the limit on locked memory: see the check of that name, and docs/rdma.md#memlock"
        }
        Some(LinkFailure::NoPath) => {
            "the queue pair does not go to RTR: the other address cannot be reached from this one (wrong rdma.gid_index, another VLAN, \
             subnet or rail): compare the GIDs, set rdma.devices on both ends"
        }
        Some(LinkFailure::Unreachable) => {
            "status 12, retries exceeded: packets do not come back: a firewall on UDP port 4791, the MTU of a switch, PFC; \
             `ibv_rc_pingpong` between the two fails, too"
        }
        Some(LinkFailure::NotReceiving) => {
            "status 13, receiver not ready: the other end posts no receives in time: is it stuck, or another version?"
        }
        Some(LinkFailure::AccessRefused) => "status 10: another version at the other end?",
        Some(LinkFailure::NoDevice) => "`solon rdma devices` on that machine says more",
        Some(LinkFailure::DeviceLost | LinkFailure::Broken) => "look at dmesg, and at the NIC",
        Some(_) => "look the status up in ibv_poll_cq(3), and at dmesg",
        None => {
            "the device neither sends nor gives up: the other end does not receive (status 13 would be its name), or the driver is stuck: \
             see dmesg"
        }
    }
}
