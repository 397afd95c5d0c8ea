//! Which cores the reactors get, by what the system tells of the machine: those near the NIC before the others, and of each physical
//! core one thread before the second.
//!
//! Slots are touched by a thread on the first of these cores: so they lie in memory near the NIC too.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::transport::rdma::DeviceList;

/// Bonds and VLANs stand on other interfaces, and those perhaps on others.
const LAYERS_MAX: usize = 4;
/// Core numbers that a list may name.
const CORES_MAX: usize = 1 << 16;

/// A machine as `/sys` and `/proc` show it.
pub struct Machine {
    root: PathBuf,
}

/// Through what the workers come.
pub struct Way<'a> {
    /// The address that is listened on.
    pub address: IpAddr,
    /// The RDMA devices that may be used, if any may.
    pub devices: Option<&'a DeviceList>,
}

/// Cores for reactors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// All that may be used, the best first.
    pub cores: Vec<usize>,
    /// How many of the first are physical cores of their own, near the NIC if that matters.
    pub physical: usize,
    /// The memory node that they are near to, if it was chosen.
    pub node: Option<usize>,
    /// Why this node, or none.
    pub why: String,
}

impl Machine {
    /// The one that this runs on.
    pub fn here() -> Machine {
        Machine { root: "/".into() }
    }

    #[cfg(test)]
    /// One whose `/sys`, `/proc` and `/dev` stand below a directory.
    pub fn below(root: impl Into<PathBuf>) -> Machine {
        Machine { root: root.into() }
    }

    /// Where a path without its leading slash stands.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Orders the `allowed` cores for reactors.
    pub fn place(&self, allowed: &[usize], way: &Way<'_>) -> Placement {
        let nodes = self.nodes();
        let near = if nodes.len() < 2 { Err("one memory node".to_owned()) } else { self.node_of(way) };
        let near = near.and_then(|(node, why)| {
            let cores = nodes.iter().find(|(number, _)| *number == node).map(|(_, cores)| cores);
            let cores = cores.filter(|cores| cores.iter().any(|core| allowed.contains(core)));
            cores.map(|cores| (node, why, cores)).ok_or_else(|| format!("no allowed core on node {node}"))
        });
        let is_near = |core: &usize| near.as_ref().is_ok_and(|(_, _, cores)| cores.contains(core));
        // Which thread of its physical core it is, of those that may be used.
        let rank = |core: usize| {
            let siblings = self.list(&format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"));
            siblings.iter().filter(|sibling| **sibling < core && allowed.contains(sibling)).count()
        };
        let mut order: Vec<(bool, usize, usize)> =
            allowed.iter().map(|core| (!is_near(core), rank(*core), *core)).collect();
        order.sort_unstable();
        let physical = order.iter().filter(|(far, rank, _)| *rank == 0 && !(*far && near.is_ok())).count();
        let cores = order.into_iter().map(|(_, _, core)| core).collect();
        match near {
            Ok((node, why, _)) => Placement { cores, physical, node: Some(node), why },
            Err(why) => Placement { cores, physical, node: None, why },
        }
    }

    /// Memory nodes that have cores.
    pub(crate) fn nodes(&self) -> Vec<(usize, Vec<usize>)> {
        let number = |name: &str| name.strip_prefix("node")?.parse::<usize>().ok();
        let numbers = self.names("sys/devices/system/node").into_iter().filter_map(|name| number(&name));
        let nodes = numbers.map(|node| (node, self.list(&format!("sys/devices/system/node/node{node}/cpulist"))));
        nodes.filter(|(_, cores)| !cores.is_empty()).collect()
    }

    /// The node of the NIC that workers come through, and how it was found; or why none is known.
    fn node_of(&self, way: &Way<'_>) -> Result<(usize, String), String> {
        if way.address.is_loopback() {
            return Err("workers come over loopback".into());
        }
        if way.address.is_unspecified()
            && let Some(devices) = way.devices
        {
            let all = self.names("sys/class/infiniband");
            let node = |device: &String| self.number(&format!("sys/class/infiniband/{device}/device/numa_node"));
            // Devices have one port or two.
            let allowed = all.iter().filter(|device| (1..=2).any(|port| devices.allows(device, port)));
            let mut known = allowed.filter_map(|device| Some((node(device)?, device)));
            if let Some((node, device)) = known.next() {
                return Ok((node, format!("the RDMA device {device} is on it")));
            }
        }
        let interface = match way.address {
            IpAddr::V4(address) => self.route_to(address.to_bits()),
            IpAddr::V6(address) if address.is_unspecified() => self.route_to(0),
            IpAddr::V6(address) => self.interface_with(address.to_bits()),
        };
        let interface = interface.ok_or_else(|| format!("no interface is known for {}", way.address))?;
        let node = self.node_of_interface(&interface, LAYERS_MAX);
        let node = node.ok_or_else(|| format!("the interface {interface} does not say on which node it is"))?;
        Ok((node, format!("the interface {interface} is on it")))
    }

    fn node_of_interface(&self, name: &str, layers: usize) -> Option<usize> {
        let directory = format!("sys/class/net/{name}");
        self.number(&format!("{directory}/device/numa_node")).or_else(|| {
            let layers = layers.checked_sub(1)?;
            let names = self.names(&directory);
            names
                .iter()
                .filter_map(|name| name.strip_prefix("lower_"))
                .find_map(|it| self.node_of_interface(it, layers))
        })
    }

    /// The interface with the most specific route without a gateway to an address, or for 0 the one of the default route.
    fn route_to(&self, address: u32) -> Option<String> {
        // Name, destination, gateway, flags, counts, metric, mask: in hexadecimal, the bytes as they lie in memory.
        let text = self.read("proc/net/route")?;
        let hexadecimal = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::swap_bytes);
        let routes = text.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [name, destination, gateway, _, _, _, metric, mask, ..] = fields[..] else { return None };
            let (destination, gateway, mask) = (hexadecimal(destination)?, hexadecimal(gateway)?, hexadecimal(mask)?);
            let fits = if address == 0 { mask == 0 } else { gateway == 0 && address & mask == destination };
            fits.then(|| (std::cmp::Reverse(mask), metric.parse::<u32>().unwrap_or(u32::MAX), name.to_owned()))
        });
        routes.min().map(|(_, _, name)| name)
    }

    fn interface_with(&self, address: u128) -> Option<String> {
        // Address, index, prefix, scope, flags, name.
        let text = self.read("proc/net/if_inet6")?;
        let line =
            text.lines().find(|line| line.get(..32).is_some_and(|it| u128::from_str_radix(it, 16) == Ok(address)))?;
        line.split_whitespace().last().map(str::to_owned)
    }

    pub(crate) fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    /// A number that is not negative: the system says -1 for what it does not know.
    pub(crate) fn number(&self, path: &str) -> Option<usize> {
        self.read(path)?.trim().parse().ok()
    }

    fn list(&self, path: &str) -> Vec<usize> {
        self.read(path).as_deref().and_then(cores).unwrap_or_default()
    }

    /// What is in a directory, in order.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.root.join(Path::new(path))) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map_while(Result::ok).filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// The cores of a list such as `0-3,8`; `None` if it is none.
pub(crate) fn cores(list: &str) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if last >= CORES_MAX {
            return None;
        }
        found.extend(first..=last);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes of four cores, two threads each: node 0 has 0-3 and 8-11, node 1 has 4-7 and 12-15.
    struct Made(tempfile::TempDir);

    impl Made {
        fn new() -> Made {
            let made = Made(tempfile::tempdir().unwrap());
            for core in 0..16 {
                let siblings = format!("{},{}\n", core % 8, core % 8 + 8);
                made.file(&format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"), &siblings);
            }
            made.file("sys/devices/system/node/node0/cpulist", "0-3,8-11\n");
            made.file("sys/devices/system/node/node1/cpulist", "4-7,12-15\n");
            made.file("sys/class/net/near/device/numa_node", "1\n");
            made.file("sys/class/net/silent/device/numa_node", "-1\n");
            made.file(
                "proc/net/route",
                "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                 silent\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                 silent\t0000000A\t00000000\t0001\t0\t0\t100\t000000FF\t0\t0\t0\n\
                 near\t0002000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n",
            );
            made
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn place(&self, allowed: impl IntoIterator<Item = usize>, address: &str) -> Placement {
            self.place_by(allowed, address, None)
        }

        fn place_by(
            &self,
            allowed: impl IntoIterator<Item = usize>,
            address: &str,
            devices: Option<&DeviceList>,
        ) -> Placement {
            let machine = Machine { root: self.0.path().to_owned() };
            let allowed: Vec<usize> = allowed.into_iter().collect();
            machine.place(&allowed, &Way { address: address.parse().unwrap(), devices })
        }
    }

    #[test]
    fn cores_near_the_nic_come_first_and_physical_ones_before_their_second_threads() {
        let placed = Made::new().place(0..16, "10.0.2.7");
        assert_eq!(placed.cores, [4, 5, 6, 7, 12, 13, 14, 15, 0, 1, 2, 3, 8, 9, 10, 11]);
        assert_eq!((placed.node, placed.physical), (Some(1), 4));
        assert_eq!(placed.why, "the interface near is on it");
    }

    #[test]
    fn without_a_known_node_all_physical_cores_come_first() {
        let made = Made::new();
        for (address, why) in [
            ("127.0.0.1", "workers come over loopback"),
            ("0.0.0.0", "the interface silent does not say on which node it is"),
            ("10.9.9.9", "the interface silent does not say on which node it is"),
            ("192.168.0.1", "no interface is known for 192.168.0.1"),
            ("fd00::5", "no interface is known for fd00::5"),
        ] {
            let placed = made.place(0..16, address);
            assert_eq!(placed.cores, (0..16).collect::<Vec<_>>());
            assert_eq!((placed.node, placed.physical, placed.why.as_str()), (None, 8, why));
        }
    }

    #[test]
    fn only_allowed_cores_are_used_and_a_thread_alone_on_its_core_counts_as_one() {
        let made = Made::new();
        let placed = made.place([1, 4, 9, 12, 13], "10.0.2.7");
        assert_eq!((placed.cores, placed.physical), (vec![4, 13, 12, 1, 9], 2));
        let elsewhere = made.place([1, 2], "10.0.2.7");
        assert_eq!((elsewhere.node, elsewhere.why.as_str()), (None, "no allowed core on node 1"));
        assert_eq!((elsewhere.cores, elsewhere.physical), (vec![1, 2], 2));
    }

    #[test]
    fn a_bond_is_where_the_interface_below_it_is() {
        let made = Made::new();
        made.file("sys/class/net/vlan/lower_bond/ifindex", "1");
        made.file("sys/class/net/bond/lower_near/ifindex", "1");
        made.file("sys/class/net/bond/lower_bond/ifindex", "a loop ends");
        made.file("proc/net/if_inet6", "fd000000000000000000000000000005 02 40 00 80     vlan\n");
        assert_eq!(made.place(0..16, "fd00::5").node, Some(1));
        made.file("sys/class/net/near/device/numa_node", "nonsense\n");
        assert_eq!(made.place(0..16, "fd00::5").node, None);
    }

    #[test]
    fn an_rdma_device_that_may_be_used_decides_where_no_address_does() {
        let made = Made::new();
        made.file("sys/class/infiniband/mlx5_0/device/numa_node", "0\n");
        made.file("sys/class/infiniband/mlx5_1/device/numa_node", "1\n");
        let by = |list: &str| made.place_by(0..16, "0.0.0.0", Some(&list.parse().unwrap()));
        assert_eq!(by("mlx5_1:1").why, "the RDMA device mlx5_1 is on it");
        assert_eq!((by("mlx5_1:1").node, by("^mlx5_1").node), (Some(1), Some(0)));
        assert_eq!(made.place_by(0..16, "0.0.0.0", Some(&DeviceList::default())).node, Some(0));
        assert_eq!(made.place(0..16, "0.0.0.0").node, None, "nobody looks for RDMA");
    }

    #[test]
    fn one_node_and_an_unknown_machine_change_nothing() {
        let made = Made(tempfile::tempdir().unwrap());
        let placed = made.place([0, 1, 2], "10.0.2.7");
        assert_eq!((placed.cores, placed.physical, placed.node), (vec![0, 1, 2], 3, None));
        assert_eq!(placed.why, "one memory node");
        assert!(
            !Machine::here().place(&[0], &Way { address: "0.0.0.0".parse().unwrap(), devices: None }).why.is_empty()
        );
    }

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(cores("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cores("\n"), Some(vec![]));
        assert_eq!((cores("0-99999999999"), cores("x"), cores("1-")), (None, None, None));
    }
}
