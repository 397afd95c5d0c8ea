//! What of RDMA there is on a machine: by `/sys` and `/dev`, and by what the verbs library says.

use std::path::PathBuf;
use std::time::Duration;

use crate::daemon::config::Config;
use crate::daemon::machine::Machine;
use crate::transport::Transport;
use crate::transport::rdma::device::{Port, ProbeError, ports};
use crate::transport::rdma::ffi::Api;
use crate::transport::rdma::select::{Choice, NoChoice, choose};
use crate::transport::rdma::trial::{self, TrialError};

use super::{DRIVERS, MODULES};

/// How long a port may take for a message to itself.
const TRIAL: Duration = Duration::from_secs(5);

/// What only the verbs library says.
#[derive(Debug)]
pub struct Verbs {
    /// Every port, or why the library knows none; or why there is no library.
    pub ports: Result<Result<Vec<Port>, ProbeError>, String>,
    /// Seconds in which a port reached itself; `None` where none would be used.
    pub trial: Option<Result<f64, TrialError>>,
    /// What would be used.
    pub choice: Option<Result<Choice, NoChoice>>,
}

impl Verbs {
    /// Asks it, unless nobody wants RDMA.
    pub fn try_out(config: &Config) -> Verbs {
        let api = match Api::load() {
            Ok(api) => api,
            Err(error) => return Verbs { ports: Err(error.to_string()), trial: None, choice: None },
        };
        let near = Some(config.listen.address.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
        let found = ports(api);
        let choice = found.as_ref().ok().map(|ports| choose(ports, &config.rdma.wanted(near)));
        let wanted = config.listen.transport != Transport::Tcp && matches!(choice, Some(Ok(_)));
        let trial = wanted.then(|| trial::with_itself(api, &config.rdma, near, TRIAL));
        Verbs { ports: Ok(found), trial, choice }
    }
}

/// A device as `/sys` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    /// Its node in `/dev/infiniband`.
    pub(super) node: Option<Node>,
    /// An adapter for iWARP, not for InfiniBand or RoCE.
    pub(super) iwarp: bool,
}

/// A node in `/dev/infiniband`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    pub(super) opened: Result<(), Refused>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Missing,
    Permission,
    Other(String),
}

impl Node {
    fn at(path: PathBuf) -> Node {
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(&path).map(drop);
        let opened = opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Refused::Missing,
            std::io::ErrorKind::PermissionDenied => Refused::Permission,
            _ => Refused::Other(error.to_string()),
        });
        Node { path, opened }
    }
}

/// All that is known of RDMA on a machine.
#[derive(Debug)]
pub struct Rdma {
    pub(super) modules: Vec<&'static str>,
    pub(super) devices: Vec<Device>,
    pub(super) connection_manager: Node,
    /// Interfaces below ports, with their MTU.
    pub(super) interfaces: Vec<(String, usize)>,
    pub(super) verbs: Verbs,
}

impl Rdma {
    pub(in super::super) fn look(machine: &Machine, verbs: Verbs) -> Rdma {
        let known = MODULES.iter().chain(DRIVERS).copied();
        let modules = known.filter(|name| machine.path(&format!("sys/module/{name}")).exists()).collect();
        let nodes = machine.names("sys/class/infiniband_verbs");
        let node_of = |device: &str| {
            let is_its = |node: &&String| {
                let its = machine.read(&format!("sys/class/infiniband_verbs/{node}/ibdev"));
                its.is_some_and(|name| name.trim() == device)
            };
            nodes.iter().find(is_its).map(|node| Node::at(machine.path(&format!("dev/infiniband/{node}"))))
        };
        let device = |name: String| {
            // Such as `1: CA` and `4: RNIC`.
            let kind = machine.read(&format!("sys/class/infiniband/{name}/node_type")).unwrap_or_default();
            Device { node: node_of(&name), iwarp: kind.contains("RNIC"), name }
        };
        let of_ports = verbs.ports.iter().flatten().flatten().filter_map(|port| port.details.as_ref().ok());
        let mut below: Vec<String> =
            of_ports.flat_map(|details| &details.gids).filter_map(|gid| gid.netdev.clone()).collect();
        below.sort();
        below.dedup();
        let mtu = |name: String| Some((machine.number(&format!("sys/class/net/{name}/mtu"))?, name));
        Rdma {
            modules,
            devices: machine.names("sys/class/infiniband").into_iter().map(device).collect(),
            connection_manager: Node::at(machine.path("dev/infiniband/rdma_cm")),
            interfaces: below.into_iter().filter_map(mtu).map(|(mtu, name)| (name, mtu)).collect(),
            verbs,
        }
    }

    /// Has the kernel any?
    pub(in super::super) fn has_devices(&self) -> bool {
        !self.devices.is_empty()
    }

    pub(super) fn ports(&self) -> &[Port] {
        self.verbs.ports.as_ref().ok().and_then(|ports| ports.as_ref().ok()).map_or(&[], Vec::as_slice)
    }

    pub(super) fn choice(&self) -> Option<&Choice> {
        self.verbs.choice.as_ref()?.as_ref().ok()
    }
}
