//! What an operator decides about RDMA: the daemon's `[rdma]` section, and the same for the client library.

use std::net::IpAddr;

use super::list::DeviceList;
use super::select::Wanted;

/// How RDMA is used where it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The ports that may be used.
    pub devices: DeviceList,
    /// The index of the port's address (GID) to use; `None`: chosen by [`choose`](super::select::choose).
    pub gid_index: Option<u8>,
    /// Bytes per packet: 256, 512, 1024, 2048 or 4096; `None`: as many as the port has.
    pub mtu: Option<u32>,
    /// The traffic class in every packet (with RoCE v2 the DSCP, in its upper six bits).
    pub traffic_class: u8,
    /// The service level, 0 to 15: the priority on InfiniBand, the VLAN priority with RoCE.
    pub service_level: u8,
    /// A packet is sent again after 4.096 us x 2^n without an answer; 1 to 31, as 0 would wait for ever.
    pub ack_timeout: u8,
    /// How often it is sent again before the connection is given up; 0 to 6, as 7 means for ever on most hardware.
    pub retries: u8,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            devices: DeviceList::default(),
            gid_index: None,
            mtu: None,
            traffic_class: 0,
            service_level: 0,
            ack_timeout: 14,
            retries: 6,
        }
    }
}

impl Options {
    /// The sizes of a packet that verbs know.
    pub const MTUS: &'static [u64] = &[256, 512, 1024, 2048, 4096];

    /// What of it decides the port, for a control connection that has `near` at this end.
    pub fn wanted(&self, near: Option<IpAddr>) -> Wanted {
        Wanted { devices: self.devices.clone(), gid_index: self.gid_index, mtu: self.mtu, near }
    }
}
