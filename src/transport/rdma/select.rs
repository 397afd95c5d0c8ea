//! Which port and which of its addresses to use: a decision over plain values, with its reason.
//!
//! 1. The port with the address that the control connection has here: what reaches us there reaches us by RDMA.
//! 2. A RoCE v2 address that can be routed, IPv4 before IPv6.
//! 3. An InfiniBand port, by its LID and address 0.
//!
//! Among equals the first device by name, then port, then index. Link-local addresses and RoCE v1 often are all that a port
//! has at first, and seem to work until a switch or a second subnet is between: they are taken only by name (`gid_index`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::device::{Details, Gid, GidKind, LinkLayer, Port, PortState, ProbeError, as_ipv6};
use super::list::DeviceList;

/// What the choice is to be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The ports that may be used.
    pub devices: DeviceList,
    /// This place of a port's table of addresses, whatever stands there.
    pub gid_index: Option<u8>,
    /// Bytes per packet, instead of what the port has.
    pub mtu: Option<u32>,
    /// The address that the control connection has at this end.
    pub near: Option<IpAddr>,
}

/// A port, an address of it, and how to send from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The device.
    pub device: String,
    /// Its port, from 1.
    pub port: u8,
    /// The place of the address in the port's table.
    pub gid_index: u8,
    /// The address.
    #[serde(serialize_with = "as_ipv6")]
    pub gid: [u8; 16],
    /// Bytes per packet.
    pub mtu: u32,
    /// What is below.
    pub link_layer: LinkLayer,
    /// The port's local identifier; 0 with RoCE.
    pub lid: u16,
    /// One line that says why this one.
    pub why: String,
}

/// Why no port can be used, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoChoice {
    /// There is none.
    #[error(
        "there is no RDMA device on this machine; to try RDMA without one (soft-RoCE): rdma link add rxe0 type rxe netdev eth0"
    )]
    NoDevice,
    /// The list of devices names none of those that are there.
    #[error(
        "no RDMA device matches the list \"{list}\": there is {found}; correct the list, or leave it empty for all"
    )]
    NoneMatches {
        /// The list.
        list: String,
        /// Every port.
        found: String,
    },
    /// The library may not or cannot look at any of them.
    #[error("no RDMA device can be looked at: {error}; {advice}")]
    CannotOpen {
        /// What the first of them says.
        error: ProbeError,
        /// What to do.
        advice: &'static str,
    },
    /// None has a link.
    #[error("no RDMA port is active: {states}; look at cable, switch and interface (ip link set .. up; rdma link)")]
    NotActive {
        /// Every port with its state.
        states: String,
    },
    /// None has an address that can be routed.
    #[error(
        "no RDMA port has a usable address: {found}; give its interface an IP address, or name an index with gid_index"
    )]
    NoUsableGid {
        /// What each has instead.
        found: String,
    },
    /// The place that was asked for is empty on every active port.
    #[error("GID index {index} is empty or beyond the table: {found}; choose one of those, or leave gid_index unset")]
    NoSuchGid {
        /// The index.
        index: u8,
        /// The places that are not empty.
        found: String,
    },
    /// The port cannot send packets as large as asked for.
    #[error(
        "the MTU {wanted} is larger than that of {place}, which is {active}; lower it, or raise that of the interface"
    )]
    MtuTooLarge {
        /// The port that would be used.
        place: String,
        /// What was asked for.
        wanted: u32,
        /// What it has.
        active: u32,
    },
}

impl NoChoice {
    /// Is it about the settings, so that waiting cannot help?
    pub fn is_about_settings(&self) -> bool {
        matches!(self, NoChoice::NoneMatches { .. } | NoChoice::NoSuchGid { .. } | NoChoice::MtuTooLarge { .. })
    }

    /// Is it for want of a permission?
    pub fn is_permission(&self) -> bool {
        matches!(self, NoChoice::CannotOpen { error, .. } if error.is_permission())
    }
}

/// How good an address is, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Near,
    RoutableIpv4,
    RoutableIpv6,
    InfiniBand,
    /// Asked for by its index, and not one that would be chosen.
    Named,
}

/// The best of `ports` that is as `wanted`.
///
/// # Errors
/// If none is, with the reason that the port which came closest has.
pub fn choose(ports: &[Port], wanted: &Wanted) -> Result<Choice, NoChoice> {
    if ports.is_empty() {
        return Err(NoChoice::NoDevice);
    }
    let allowed: Vec<&Port> = ports.iter().filter(|port| wanted.devices.allows(&port.device, port.port)).collect();
    if allowed.is_empty() {
        return Err(NoChoice::NoneMatches { list: wanted.devices.to_string(), found: listed(ports, Port::to_string) });
    }
    if allowed.iter().all(|port| port.details.is_err())
        && let Err(error) = &allowed[0].details
    {
        return Err(NoChoice::CannotOpen { error: error.clone(), advice: advice(error) });
    }
    let active: Vec<(&Port, &Details)> = allowed
        .iter()
        .filter_map(|port| Some((*port, port.details.as_ref().ok()?)))
        .filter(|(_, details)| details.state == PortState::Active)
        .collect();
    if active.is_empty() {
        return Err(NoChoice::NotActive { states: listed(allowed, state) });
    }
    let near = wanted.near.map(|address| address.to_canonical());
    let candidates = active.iter().flat_map(|(port, details)| {
        let gids = details.gids.iter().filter(|gid| wanted.gid_index.is_none_or(|index| index == gid.index));
        let ranked = gids.filter_map(|gid| Some((rank(gid, near).or(wanted.gid_index.map(|_| Rank::Named))?, gid)));
        ranked.map(|(rank, gid)| (rank, *port, *details, gid))
    });
    let best = candidates.min_by_key(|(rank, port, _, gid)| (*rank, &port.device, port.port, gid.index));
    let Some((rank, port, details, gid)) = best else {
        return Err(match wanted.gid_index {
            Some(index) => {
                NoChoice::NoSuchGid { index, found: listed(active, |(port, details)| places(port, details)) }
            }
            None => NoChoice::NoUsableGid { found: listed(active, |(port, details)| shortcomings(port, details)) },
        });
    };
    let mtu = match wanted.mtu {
        Some(mtu) if mtu > details.mtu => {
            return Err(NoChoice::MtuTooLarge { place: port.to_string(), wanted: mtu, active: details.mtu });
        }
        mtu => mtu.unwrap_or(details.mtu),
    };
    Ok(Choice {
        device: port.device.clone(),
        port: port.port,
        gid_index: gid.index,
        gid: gid.raw,
        mtu,
        link_layer: details.link_layer,
        lid: details.lid,
        why: format!("{port}: active, {}; {}", reason(rank, gid, details, wanted), mtu_reason(details, wanted.mtu)),
    })
}

/// How good an address is by itself; `None` for those that are only taken by name.
fn rank(gid: &Gid, near: Option<IpAddr>) -> Option<Rank> {
    match (gid.kind, gid.address(), reach(gid.address())) {
        (GidKind::InfiniBand, _, _) => (gid.index == 0).then_some(Rank::InfiniBand),
        (GidKind::RoceV1 | GidKind::Unknown, _, _) | (_, _, Reach::LinkLocal) => None,
        (GidKind::RoceV2, address, _) if near == Some(address) => Some(Rank::Near),
        (GidKind::RoceV2, _, Reach::Nowhere) => None,
        (GidKind::RoceV2, IpAddr::V4(_), Reach::Routable) => Some(Rank::RoutableIpv4),
        (GidKind::RoceV2, IpAddr::V6(_), Reach::Routable) => Some(Rank::RoutableIpv6),
    }
}

/// How far packets to an address come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Routable,
    LinkLocal,
    /// Loopback, multicast and the unspecified address.
    Nowhere,
}

/// Can packets to an address leave its network?
pub(super) fn is_routable(address: IpAddr) -> bool {
    reach(address) == Reach::Routable
}

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) if address.is_link_local() => Reach::LinkLocal,
        IpAddr::V6(address) if address.is_unicast_link_local() => Reach::LinkLocal,
        IpAddr::V4(Ipv4Addr::BROADCAST) | IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Reach::Nowhere,
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Reach::Nowhere,
        address if address.is_loopback() || address.is_multicast() => Reach::Nowhere,
        _ => Reach::Routable,
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reach::Routable => "routable",
            Reach::LinkLocal => "link-local",
            Reach::Nowhere => "of no network",
        })
    }
}

/// How an address is called in a table or a line, if it can only be taken by its index.
pub fn shortcoming(gid: &Gid) -> Option<String> {
    let reach = reach(gid.address());
    match gid.kind {
        GidKind::InfiniBand => None,
        GidKind::RoceV2 if reach == Reach::Routable => None,
        GidKind::RoceV2 => Some(reach.to_string()),
        GidKind::RoceV1 => Some("RoCE v1".into()),
        GidKind::Unknown => Some("of an unknown kind".into()),
    }
}

fn reason(rank: Rank, gid: &Gid, details: &Details, wanted: &Wanted) -> String {
    let Gid { index, kind, .. } = gid;
    let address = gid.address();
    let this = match kind {
        GidKind::InfiniBand => format!("InfiniBand, LID {} and GID {index} {address}", details.lid),
        kind => format!("{kind} GID {index} {address}"),
    };
    let verdict = match (rank, wanted.gid_index) {
        (Rank::Near, _) => " is the address of the control connection".into(),
        (_, Some(_)) => {
            let warning = shortcoming(gid).filter(|text| *text != kind.to_string());
            format!(
                " was asked for by its index{}",
                warning.map_or(String::new(), |text| format!(", though it is {text}"))
            )
        }
        (Rank::RoutableIpv4, None) => " is the first routable IPv4 address".into(),
        (Rank::RoutableIpv6, None) => " is the first routable IPv6 address, and there is no IPv4 one".into(),
        (Rank::InfiniBand | Rank::Named, None) => String::new(),
    };
    let far = match (wanted.near, rank) {
        (Some(near), Rank::RoutableIpv4 | Rank::RoutableIpv6) => {
            format!(" (no active port has {}, that of the control connection)", near.to_canonical())
        }
        _ => String::new(),
    };
    format!("{this}{verdict}{far}")
}

fn mtu_reason(details: &Details, wanted: Option<u32>) -> String {
    match wanted {
        Some(mtu) if mtu < details.mtu => format!("MTU {mtu} as asked for (the port has {})", details.mtu),
        _ => format!("MTU {} as the port has it", details.mtu),
    }
}

fn advice(error: &ProbeError) -> &'static str {
    match error.is_permission() {
        true => {
            "this user needs read and write access to /dev/infiniband/uverbs* (a udev rule or group; in a container: \
             --device)"
        }
        false => {
            "look for the device in dmesg, for /dev/infiniband/uverbs* (in a container: --device), and for the library's \
             driver (the package ibverbs-providers)"
        }
    }
}

fn state(port: &Port) -> String {
    match &port.details {
        Ok(details) => format!("{port} is {}", details.state),
        Err(error) => format!("{port} cannot be looked at ({error})"),
    }
}

/// The places of a port's table that are not empty.
fn places(port: &Port, details: &Details) -> String {
    if details.gids.is_empty() {
        return format!("{port} has none");
    }
    let places: Vec<String> = details.gids.iter().map(|gid| gid.index.to_string()).collect();
    format!("{port} has {}", places.join(", "))
}

/// Why none of a port's addresses is taken.
fn shortcomings(port: &Port, details: &Details) -> String {
    if details.gids.is_empty() {
        return format!("{port} has none at all");
    }
    let one = |gid: &Gid| format!("{} ({})", gid.address(), shortcoming(gid).unwrap_or("not at index 0".into()));
    let addresses: Vec<String> = details.gids.iter().map(one).collect();
    format!("{port} has only {}", addresses.join(", "))
}

fn listed<T>(values: impl IntoIterator<Item = T>, text: impl Fn(T) -> String) -> String {
    values.into_iter().map(text).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
