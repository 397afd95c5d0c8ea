//! The RDMA ports of this machine and their addresses, as plain values.
//!
//! Devices, ports and the bytes of addresses come from the verbs library; of which kind an address is and on which
//! interface it stands only sysfs says, as verbs had it before RoCE v2 and older libraries still do. What cannot be looked at
//! is listed with the reason: a device that vanishes from a list because of a permission costs an afternoon.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::fmt;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::ptr::NonNull;

use serde::{Serialize, Serializer};

use super::ffi::{self, Api};

/// Where the kernel shows its RDMA devices.
pub const SYSFS: &str = "/sys/class/infiniband";

/// The addresses of a port that are looked at: those that a `u8` can name, as queue pairs do.
const GIDS_MAX: c_int = 256;

/// One port of a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Port {
    /// The device, such as `mlx5_0`.
    pub device: String,
    /// The port's number, from 1.
    pub port: u8,
    /// What is known of it, or why nothing is.
    #[serde(flatten, serialize_with = "either")]
    pub details: Result<Details, ProbeError>,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.port)
    }
}

/// What a port and its device say about themselves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Details {
    /// Does it carry packets?
    pub state: PortState,
    /// What is below it.
    pub link_layer: LinkLayer,
    /// Bytes per packet.
    pub mtu: u32,
    /// The local identifier that an InfiniBand subnet manager gave it; 0 with RoCE.
    pub lid: u16,
    /// Speed in Gb/s; `None` if the library has no number for it.
    pub gbits: Option<f64>,
    /// The device's firmware.
    pub firmware: String,
    /// Queue pairs that the device can have.
    pub max_qp: u32,
    /// Requests that can wait in one of their queues.
    pub max_qp_wr: u32,
    /// Its addresses, without the empty places of the table.
    pub gids: Vec<Gid>,
}

/// The state of a port (`ibv_query_port(3)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// No link.
    Down,
    /// There is a link, and no subnet manager has been there.
    Initialising,
    /// Configured, not yet in use.
    Armed,
    /// In use.
    Active,
    /// Another one.
    Unknown,
}

impl fmt::Display for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PortState::Down => "down",
            PortState::Initialising => "initialising",
            PortState::Armed => "armed",
            PortState::Active => "active",
            PortState::Unknown => "in an unknown state",
        })
    }
}

/// What carries the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum LinkLayer {
    /// RoCE: queue pairs are addressed by GID.
    Ethernet,
    /// Queue pairs are addressed by LID.
    InfiniBand,
}

impl fmt::Display for LinkLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LinkLayer::Ethernet => "Ethernet",
            LinkLayer::InfiniBand => "InfiniBand",
        })
    }
}

/// An address of a port: an entry of its table of global identifiers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gid {
    /// Its place in the table.
    pub index: u8,
    /// Its bytes, in network order.
    #[serde(rename = "gid", serialize_with = "as_ipv6")]
    pub raw: [u8; 16],
    /// How packets with it look.
    pub kind: GidKind,
    /// The interface it stands on, if it does on one.
    pub netdev: Option<String>,
}

impl Gid {
    /// Its bytes read as an IP address; IPv4 where they hold one.
    pub fn address(&self) -> IpAddr {
        Ipv6Addr::from(self.raw).to_canonical()
    }
}

/// The kind of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum GidKind {
    /// Of an InfiniBand port.
    InfiniBand,
    /// Ethernet frames, which no router forwards.
    #[serde(rename = "RoCE v1")]
    RoceV1,
    /// UDP packets to port 4791.
    #[serde(rename = "RoCE v2")]
    RoceV2,
    /// The kernel does not say.
    #[serde(rename = "unknown")]
    Unknown,
}

impl fmt::Display for GidKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            GidKind::InfiniBand => "InfiniBand",
            GidKind::RoceV1 => "RoCE v1",
            GidKind::RoceV2 => "RoCE v2",
            GidKind::Unknown => "unknown",
        })
    }
}

/// A verb that did not say what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{verb} on {place} failed: {error}")]
pub struct ProbeError {
    /// The verb, as in its manual page.
    pub verb: &'static str,
    /// `device:port`, the device, or the machine.
    pub place: String,
    /// What the operating system says.
    pub error: String,
    /// Its number for that; 0 if it is not the operating system that says so.
    pub errno: i32,
}

impl ProbeError {
    /// From a verb that leaves its error in `errno`.
    fn last(verb: &'static str, place: &str) -> ProbeError {
        ProbeError::new(verb, place, io::Error::last_os_error())
    }

    /// From a verb that returns an error number.
    fn from_code(verb: &'static str, place: &str, code: c_int) -> ProbeError {
        match code {
            -1 => ProbeError::last(verb, place),
            code => ProbeError::new(verb, place, io::Error::from_raw_os_error(code.abs())),
        }
    }

    fn new(verb: &'static str, place: &str, error: io::Error) -> ProbeError {
        let errno = error.raw_os_error().unwrap_or(0);
        ProbeError { verb, place: place.into(), error: error.to_string(), errno }
    }

    fn unlisted(device: &str) -> ProbeError {
        let error = "the kernel has the device, but the library does not list it".into();
        ProbeError { verb: "ibv_get_device_list", place: device.into(), error, errno: 0 }
    }

    /// Is it for want of a permission?
    pub fn is_permission(&self) -> bool {
        let wanting = [rustix::io::Errno::ACCESS, rustix::io::Errno::PERM];
        wanting.iter().any(|errno| errno.raw_os_error() == self.errno)
    }

    /// Has the kernel no RDMA at all: is the module `ib_uverbs` not loaded?
    pub fn is_unsupported(&self) -> bool {
        self.errno == rustix::io::Errno::NOSYS.raw_os_error()
    }
}

/// Every port of every device, in the order of their names.
///
/// # Errors
/// If the library gives no list at all: [`ProbeError::is_unsupported`] without the kernel's module. A device that cannot be
/// looked at is no error, but is in the list with its reason.
pub fn ports(api: &'static Api) -> Result<Vec<Port>, ProbeError> {
    ports_below(api, Path::new(SYSFS))
}

/// [`ports`], with another place than [`SYSFS`].
///
/// # Errors
/// As [`ports`].
pub fn ports_below(api: &'static Api, sysfs: &Path) -> Result<Vec<Port>, ProbeError> {
    let devices = Devices::list(api)?;
    let mut ports: Vec<Port> = devices.iter().flat_map(|device| ports_of(api, device, sysfs)).collect();
    let listed: Vec<String> = devices.iter().map(|device| device.name()).collect();
    // The library says nothing of devices without a node in /dev, as in a container, or without a driver of its own.
    for name in names_in(sysfs).filter(|name| !listed.contains(name)) {
        ports.extend(blind(&name, sysfs, &ProbeError::unlisted(&name)));
    }
    ports.sort_by(|a, b| (&a.device, a.port).cmp(&(&b.device, b.port)));
    Ok(ports)
}

fn ports_of(api: &'static Api, device: Device<'_>, sysfs: &Path) -> Vec<Port> {
    let name = device.name();
    let look = || -> Result<_, ProbeError> {
        let opened = Opened::open(api, device, &name)?;
        let attributes = opened.attributes()?;
        Ok((opened, attributes))
    };
    match look() {
        Ok((opened, attributes)) => (1..=attributes.phys_port_cnt)
            .map(|port| Port {
                device: name.clone(),
                port,
                details: opened.details(&attributes, port, &sysfs.join(&name).join("ports").join(port.to_string())),
            })
            .collect(),
        Err(error) => blind(&name, sysfs, &error),
    }
}

/// The ports of a device that only sysfs tells of; at least one, so that the device is listed.
fn blind(device: &str, sysfs: &Path, error: &ProbeError) -> Vec<Port> {
    let names = names_in(&sysfs.join(device).join("ports"));
    let mut numbers: Vec<u8> = names.filter_map(|name| name.parse().ok()).collect();
    if numbers.is_empty() {
        numbers.push(1);
    }
    let port = |port| Port { device: device.into(), port, details: Err(error.clone()) };
    numbers.into_iter().map(port).collect()
}

/// What is in a directory, nothing if there is none.
fn names_in(directory: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok())
}

/// The addresses of the port that sysfs shows at `directory`: `read` gives the bytes of each place of the table.
fn gids(directory: &Path, link_layer: LinkLayer, len: c_int, read: impl Fn(u8) -> Option<[u8; 16]>) -> Vec<Gid> {
    let attribute = |name: &str, index: u8| {
        // Empty places cannot be read; neither can those of other network namespaces.
        let text = fs::read_to_string(directory.join("gid_attrs").join(name).join(index.to_string())).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let gid = |index: u8| {
        let raw = read(index).filter(|raw| *raw != [0; 16])?;
        let kind = match (link_layer, attribute("types", index).as_deref()) {
            (LinkLayer::InfiniBand, _) => GidKind::InfiniBand,
            (_, Some("RoCE v2")) => GidKind::RoceV2,
            (_, Some("IB/RoCE v1" | "RoCE v1")) => GidKind::RoceV1,
            (_, _) => GidKind::Unknown,
        };
        Some(Gid { index, raw, kind, netdev: attribute("ndevs", index) })
    };
    (0..len.clamp(0, GIDS_MAX)).filter_map(|index| gid(u8::try_from(index).ok()?)).collect()
}

/// Bytes per packet, by the number that verbs have for it (`enum ibv_mtu`).
fn mtu_bytes(number: c_int) -> u32 {
    match number {
        1..=5 => 128 << number,
        _ => 0,
    }
}

/// Gb/s of a port (`ibv_query_port(3)`): lanes times the speed of one.
fn gbits(width: u8, speed: u8) -> Option<f64> {
    let lanes = match width {
        1 => 1.0,
        2 => 4.0,
        4 => 8.0,
        8 => 12.0,
        16 => 2.0,
        _ => return None,
    };
    let lane = match speed {
        1 => 2.5,
        2 => 5.0,
        4 | 8 => 10.0,
        16 => 14.0,
        32 => 25.0,
        64 => 50.0,
        128 => 100.0,
        _ => return None,
    };
    Some(lanes * lane)
}

fn text(bytes: &[c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|byte| byte.to_ne_bytes()[0]).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn either<S: Serializer>(details: &Result<Details, ProbeError>, serializer: S) -> Result<S::Ok, S::Error> {
    match details {
        Ok(details) => details.serialize(serializer),
        Err(error) => error.serialize(serializer),
    }
}

/// Writes the bytes of a GID as an IPv6 address.
pub(super) fn as_ipv6<S: Serializer>(raw: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Ipv6Addr::from(*raw))
}

/// The library's list of devices.
struct Devices {
    api: &'static Api,
    raw: NonNull<*mut ffi::ibv_device>,
    len: usize,
}

/// A device of a list, which it cannot outlive.
#[derive(Clone, Copy)]
struct Device<'a>(*mut ffi::ibv_device, PhantomData<&'a Devices>);

impl Devices {
    fn list(api: &'static Api) -> Result<Devices, ProbeError> {
        let mut len = 0;
        // SAFETY: the verb takes a place for the length, and returns a list of so many devices, or null.
        let raw = unsafe { (api.ibv_get_device_list)(&mut len) };
        let raw = NonNull::new(raw).ok_or_else(|| ProbeError::last("ibv_get_device_list", "this machine"))?;
        Ok(Devices { api, raw, len: usize::try_from(len).unwrap_or(0) })
    }

    fn iter(&self) -> impl Iterator<Item = Device<'_>> {
        (0..self.len).map(|at| {
            // SAFETY: the list has `len` entries, each a device that lives as long as the list.
            Device(unsafe { *self.raw.as_ptr().add(at) }, PhantomData)
        })
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        // SAFETY: from `ibv_get_device_list`, given back once. Devices that were opened stay valid.
        unsafe { (self.api.ibv_free_device_list)(self.raw.as_ptr()) }
    }
}

impl Device<'_> {
    fn name(&self) -> String {
        // SAFETY: a device of a list that is alive; its name does not change.
        text(unsafe { &(*self.0).name })
    }

    /// What the device's node says to this user, if that is the reason: the library, which goes on to look for another node
    /// after that, says "No such file or directory" (rdma-core 44).
    fn refusal(&self, name: &str) -> Option<ProbeError> {
        // SAFETY: a device of a list that is alive; the name of its node does not change.
        let node = Path::new("/dev/infiniband").join(text(unsafe { &(*self.0).dev_name }));
        let error = fs::OpenOptions::new().read(true).write(true).open(&node).err()?;
        let mut refusal = ProbeError::new("ibv_open_device", name, error);
        refusal.error = format!("{}: {}", node.display(), refusal.error);
        refusal.is_permission().then_some(refusal)
    }
}

/// An open device.
struct Opened<'a> {
    api: &'static Api,
    raw: NonNull<ffi::ibv_context>,
    name: &'a str,
}

impl<'a> Opened<'a> {
    fn open(api: &'static Api, device: Device<'_>, name: &'a str) -> Result<Opened<'a>, ProbeError> {
        // SAFETY: a device of a list that is alive.
        let raw = unsafe { (api.ibv_open_device)(device.0) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            let error = ProbeError::last("ibv_open_device", name);
            device.refusal(name).unwrap_or(error)
        })?;
        Ok(Opened { api, raw, name })
    }

    fn attributes(&self) -> Result<ffi::ibv_device_attr, ProbeError> {
        // SAFETY: all its fields are numbers, for which zeros are valid.
        let mut attributes: ffi::ibv_device_attr = unsafe { std::mem::zeroed() };
        // SAFETY: an open device, and room for the answer.
        match unsafe { (self.api.ibv_query_device)(self.raw.as_ptr(), &mut attributes) } {
            0 => Ok(attributes),
            code => Err(ProbeError::from_code("ibv_query_device", self.name, code)),
        }
    }

    fn details(&self, device: &ffi::ibv_device_attr, port: u8, sysfs: &Path) -> Result<Details, ProbeError> {
        // SAFETY: all its fields are numbers, for which zeros are valid; older libraries leave the last ones as they are.
        let mut attributes: ffi::ibv_port_attr = unsafe { std::mem::zeroed() };
        // SAFETY: an open device, and room for the answer.
        match unsafe { (self.api.ibv_query_port)(self.raw.as_ptr(), port, &mut attributes) } {
            0 => {}
            code => return Err(ProbeError::from_code("ibv_query_port", &format!("{}:{port}", self.name), code)),
        }
        // What verbs leave open is InfiniBand: drivers that are older than RoCE.
        let link_layer = match attributes.link_layer {
            ffi::IBV_LINK_LAYER_ETHERNET => LinkLayer::Ethernet,
            _ => LinkLayer::InfiniBand,
        };
        Ok(Details {
            state: match attributes.state {
                ffi::IBV_PORT_DOWN => PortState::Down,
                2 => PortState::Initialising,
                3 => PortState::Armed,
                ffi::IBV_PORT_ACTIVE => PortState::Active,
                _ => PortState::Unknown,
            },
            link_layer,
            mtu: mtu_bytes(attributes.active_mtu),
            lid: attributes.lid,
            gbits: gbits(attributes.active_width, attributes.active_speed),
            firmware: text(&device.fw_ver),
            max_qp: u32::try_from(device.max_qp).unwrap_or(0),
            max_qp_wr: u32::try_from(device.max_qp_wr).unwrap_or(0),
            gids: gids(sysfs, link_layer, attributes.gid_tbl_len, |index| self.gid(port, index)),
        })
    }

    /// The bytes of an entry of the table; `None` for what cannot be read, which is what some drivers do with empty ones.
    fn gid(&self, port: u8, index: u8) -> Option<[u8; 16]> {
        let mut gid = ffi::ibv_gid::default();
        // SAFETY: an open device, and room for the answer.
        let code = unsafe { (self.api.ibv_query_gid)(self.raw.as_ptr(), port, c_int::from(index), &mut gid) };
        (code == 0).then_some(gid.raw)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        // SAFETY: opened above, and nothing was made of it.
        unsafe { (self.api.ibv_close_device)(self.raw.as_ptr()) };
    }
}

#[cfg(test)]
mod tests;
