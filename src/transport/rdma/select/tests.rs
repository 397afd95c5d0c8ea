//! What is chosen of which ports, and what is said when nothing is.

use super::*;
use proptest::prelude::*;

fn gid(index: u8, kind: GidKind, address: &str) -> Gid {
    let raw = match address.parse().unwrap() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    Gid { index, raw, kind, netdev: Some("eth0".into()) }
}

fn ethernet(device: &str, addresses: &[&str]) -> Port {
    let gids = (0..).zip(addresses).map(|(index, text)| match text.strip_prefix("v1 ") {
        Some(text) => gid(index, GidKind::RoceV1, text),
        None => gid(index, GidKind::RoceV2, text),
    });
    let details = Details {
        state: PortState::Active,
        link_layer: LinkLayer::Ethernet,
        mtu: 4096,
        lid: 0,
        gbits: Some(100.0),
        firmware: "1.2.3".into(),
        max_qp: 1000,
        max_qp_wr: 100,
        gids: gids.collect(),
    };
    Port { device: device.into(), port: 1, details: Ok(details) }
}

fn infiniband(device: &str) -> Port {
    let mut port = ethernet(device, &[]);
    let details = port.details.as_mut().unwrap();
    (details.link_layer, details.lid) = (LinkLayer::InfiniBand, 5);
    details.gids = vec![gid(0, GidKind::InfiniBand, "fe80::1"), gid(1, GidKind::InfiniBand, "2001:db8::1")];
    port
}

fn with(mut port: Port, change: impl FnOnce(&mut Details)) -> Port {
    change(port.details.as_mut().unwrap());
    port
}

fn barred(device: &str, errno: i32, text: &str) -> Port {
    let error = ProbeError { verb: "ibv_open_device", place: device.into(), error: text.into(), errno };
    Port { device: device.into(), port: 1, details: Err(error) }
}

fn near(address: &str) -> Wanted {
    Wanted { near: Some(address.parse().unwrap()), ..Wanted::default() }
}

fn named(gid_index: u8) -> Wanted {
    Wanted { gid_index: Some(gid_index), ..Wanted::default() }
}

fn refused(ports: &[Port], wanted: &Wanted) -> String {
    choose(ports, wanted).unwrap_err().to_string()
}

#[test]
fn the_best_address_is_taken() {
    // Ports by their addresses, the control connection's address, and what is to be chosen of it.
    type Row = (&'static [&'static [&'static str]], &'static str, (&'static str, u8));
    let table: &[Row] = &[
        (&[&["fe80::1", "10.0.0.1"]], "", ("d0", 1)),
        (&[&["v1 10.0.0.1", "10.0.0.1"]], "", ("d0", 1)),
        (&[&["2001:db8::1", "fd00::1", "10.0.0.1"]], "", ("d0", 2)),
        (&[&["fe80::1", "fd00::1"]], "", ("d0", 1)),
        (&[&["169.254.0.1", "2001:db8::1"]], "", ("d0", 1)),
        (&[&["127.0.0.1", "2001:db8::1"]], "", ("d0", 1)),
        (&[&["fd00::1"], &["10.0.0.1"]], "", ("d1", 0)),
        (&[&["10.0.0.1"], &["10.0.0.2"]], "", ("d0", 0)),
        (&[&["10.0.0.1"], &["10.0.0.2"]], "10.0.0.2", ("d1", 0)),
        (&[&["10.0.0.1"], &["10.0.0.2"]], "::ffff:10.0.0.2", ("d1", 0)),
        (&[&["10.0.0.1"], &["v1 10.0.0.2", "10.0.0.2"]], "10.0.0.2", ("d1", 1)),
        (&[&["10.0.0.1"], &["v1 10.0.0.2"]], "10.0.0.2", ("d0", 0)),
        (&[&["10.0.0.1"], &["10.0.0.2", "fd00::2"]], "fd00::2", ("d1", 1)),
        (&[&["10.0.0.1"], &["fe80::2"]], "fe80::2", ("d0", 0)),
        (&[&["10.0.0.1", "127.0.0.1"]], "127.0.0.1", ("d0", 1)),
        (&[&["10.0.0.1"], &["10.0.0.2"]], "192.0.2.9", ("d0", 0)),
        (&[&[], &["10.0.0.2"]], "", ("d1", 0)),
    ];
    for (ports, address, expected) in table {
        let ports: Vec<Port> =
            (0..).zip(*ports).map(|(at, gids): (i32, _)| ethernet(&format!("d{at}"), gids)).collect();
        let wanted = if address.is_empty() { Wanted::default() } else { near(address) };
        let choice = choose(&ports, &wanted).unwrap_or_else(|error| panic!("{ports:?}: {error}"));
        assert_eq!((choice.device.as_str(), choice.gid_index), *expected, "{} {ports:?} {address}", choice.why);
        // The order in which the library lists them says nothing.
        let reversed: Vec<Port> = ports.into_iter().rev().collect();
        assert_eq!(choose(&reversed, &wanted).unwrap(), choice);
    }
}

#[test]
fn a_line_says_why() {
    let ports =
        [ethernet("mlx5_0", &["fe80::1", "v1 10.0.0.1", "fd00::1", "10.0.0.1"]), ethernet("mlx5_1", &["fd00::2"])];
    let why = |wanted: &Wanted| choose(&ports, wanted).unwrap().why;
    assert_eq!(
        why(&near("10.0.0.1")),
        "mlx5_0:1: active, RoCE v2 GID 3 10.0.0.1 is the address of the control connection; MTU 4096 as the port has it"
    );
    assert_eq!(
        why(&Wanted { mtu: Some(1024), ..near("192.0.2.7") }),
        "mlx5_0:1: active, RoCE v2 GID 3 10.0.0.1 is the first routable IPv4 address (no active port has 192.0.2.7, that \
         of the control connection); MTU 1024 as asked for (the port has 4096)"
    );
    let devices = "mlx5_1".parse().unwrap();
    assert_eq!(
        why(&Wanted { devices, mtu: Some(4096), ..Wanted::default() }),
        "mlx5_1:1: active, RoCE v2 GID 0 fd00::2 is the first routable IPv6 address, and there is no IPv4 one; MTU 4096 \
         as the port has it"
    );
    let index = |index| why(&named(index)).split_once("; ").unwrap().0.to_owned();
    assert_eq!(index(3), "mlx5_0:1: active, RoCE v2 GID 3 10.0.0.1 was asked for by its index");
    assert_eq!(index(1), "mlx5_0:1: active, RoCE v1 GID 1 10.0.0.1 was asked for by its index");
    let choice = choose(&[infiniband("mlx4_0")], &Wanted::default()).unwrap();
    assert!(choice.why.starts_with("mlx4_0:1: active, InfiniBand, LID 5 and GID 0 fe80::1;"), "{}", choice.why);
    assert_eq!((choice.lid, choice.gid_index, choice.link_layer), (5, 0, LinkLayer::InfiniBand));
}

#[test]
fn infiniband_is_used_where_there_is_no_roce_address() {
    let (ib, eth) = (infiniband("a"), ethernet("b", &["10.0.0.1"]));
    assert_eq!(choose(&[ib.clone(), eth.clone()], &Wanted::default()).unwrap().device, "b");
    assert_eq!(choose(&[ib.clone(), ethernet("b", &["fe80::1"])], &Wanted::default()).unwrap().device, "a");
    let only = Wanted { devices: "a".parse().unwrap(), ..Wanted::default() };
    assert_eq!(choose(&[ib.clone(), eth], &only).unwrap().device, "a");
    assert_eq!(choose(&[ib], &named(1)).unwrap().gid_index, 1);
}

#[test]
fn link_local_is_taken_only_by_its_index() {
    let ports = [ethernet("mlx5_0", &["v1 fe80::1", "fe80::1"])];
    let text = refused(&ports, &Wanted::default());
    assert!(text.contains("mlx5_0:1 has only fe80::1 (RoCE v1), fe80::1 (link-local)"), "{text}");
    assert!(text.contains("give its interface an IP address"), "{text}");
    assert_eq!(refused(&ports, &near("fe80::1")), text);
    let choice = choose(&ports, &named(1)).unwrap();
    assert_eq!(choice.gid, ports[0].details.as_ref().unwrap().gids[1].raw);
    assert!(
        choice.why.contains("GID 1 fe80::1 was asked for by its index, though it is link-local;"),
        "{}",
        choice.why
    );
    assert!(refused(&[ethernet("x", &[])], &Wanted::default()).contains("x:1 has none at all"));
}

#[test]
fn an_index_names_a_place_on_any_port_that_has_it() {
    let ports = [ethernet("d0", &["10.0.0.1"]), ethernet("d1", &["fe80::2", "fd00::2"]), ethernet("d2", &[])];
    assert_eq!(choose(&ports, &named(1)).unwrap().device, "d1");
    assert_eq!(choose(&ports, &named(0)).unwrap().device, "d0", "routable before link-local");
    assert_eq!(choose(&ports, &Wanted { gid_index: Some(1), ..near("10.0.0.1") }).unwrap().device, "d1");
    let text = refused(&ports, &named(7));
    assert!(
        text.contains("GID index 7 is empty or beyond the table: d0:1 has 0; d1:1 has 0, 1; d2:1 has none"),
        "{text}"
    );
}

#[test]
fn without_a_device_there_is_a_way_to_try() {
    assert!(refused(&[], &Wanted::default()).contains("rdma link add rxe0 type rxe netdev eth0"));
}

#[test]
fn a_list_that_matches_nothing_says_what_there_is() {
    let ports = [ethernet("mlx5_0", &["10.0.0.1"]), ethernet("mlx5_1", &[])];
    let wanted = Wanted { devices: "=mlx5".parse().unwrap(), ..Wanted::default() };
    let text = refused(&ports, &wanted);
    assert!(text.contains("matches the list \"=mlx5\": there is mlx5_0:1; mlx5_1:1"), "{text}");
    assert!(choose(&ports, &wanted).unwrap_err().is_about_settings());
}

#[test]
fn ports_that_are_not_active_are_named_with_their_states() {
    let state = |device: &str, state| with(ethernet(device, &["10.0.0.1"]), |details| details.state = state);
    let ports = [
        state("a", PortState::Down),
        state("b", PortState::Initialising),
        barred("c", 13, "Permission denied"),
        state("d", PortState::Unknown),
    ];
    let text = refused(&ports, &Wanted::default());
    for part in
        ["a:1 is down; b:1 is initialising", "c:1 cannot be looked at (ibv_open_device on c", "d:1 is in an unknown"]
    {
        assert!(text.contains(part), "{text}");
    }
    let active = [&ports[..], &[ethernet("e", &["10.0.0.2"])]].concat();
    assert_eq!(choose(&active, &near("10.0.0.1")).unwrap().device, "e");
}

#[test]
fn a_device_that_may_not_be_opened_comes_with_advice() {
    let ports = [barred("mlx5_0", 13, "Permission denied"), barred("mlx5_1", 19, "No such device")];
    let error = choose(&ports, &Wanted::default()).unwrap_err();
    assert!(error.is_permission());
    let text = error.to_string();
    assert!(text.contains("ibv_open_device on mlx5_0 failed: Permission denied"), "{text}");
    assert!(text.contains("read and write access to /dev/infiniband/uverbs*"), "{text}");
    let error = choose(&ports[1..], &Wanted::default()).unwrap_err();
    assert!(!error.is_permission() && error.to_string().contains("look for the device in dmesg"), "{error}");
}

#[test]
fn an_mtu_beyond_the_port_is_refused() {
    let ports = [with(ethernet("a", &["10.0.0.1"]), |details| details.mtu = 1024)];
    let mtu = |mtu| Wanted { mtu: Some(mtu), ..Wanted::default() };
    assert_eq!(choose(&ports, &mtu(1024)).unwrap().mtu, 1024);
    assert_eq!(choose(&ports, &mtu(256)).unwrap().mtu, 256);
    let error = choose(&ports, &mtu(2048)).unwrap_err();
    assert_eq!(error, NoChoice::MtuTooLarge { place: "a:1".into(), wanted: 2048, active: 1024 });
    assert!(error.is_about_settings());
}

fn any_gid() -> impl Strategy<Value = Gid> {
    let kind = prop_oneof![Just(GidKind::RoceV1), Just(GidKind::RoceV2), Just(GidKind::Unknown)];
    let raw = prop_oneof![
        any::<[u8; 16]>(),
        any::<[u8; 4]>().prop_map(|octets| Ipv4Addr::from(octets).to_ipv6_mapped().octets()),
        any::<u64>().prop_map(|low| Ipv6Addr::from((0xfe80 << 112) | u128::from(low)).octets()),
    ];
    (kind, raw).prop_map(|(kind, raw)| Gid { index: 0, raw, kind, netdev: None })
}

fn any_port() -> impl Strategy<Value = Port> {
    (any::<bool>(), proptest::collection::vec(any_gid(), 0..5)).prop_map(|(active, mut gids)| {
        (0..).zip(&mut gids).for_each(|(index, gid)| gid.index = index);
        with(ethernet("", &[]), |details| {
            details.state = if active { PortState::Active } else { PortState::Down };
            details.gids = gids;
        })
    })
}

proptest! {
    #[test]
    fn what_is_chosen_by_itself_is_active_allowed_and_can_be_reached(
        mut ports in proptest::collection::vec(any_port(), 0..5),
        list in "\\^?=?d[0-4]", near in any::<[u8; 4]>(),
    ) {
        (0..).zip(&mut ports).for_each(|(at, port): (i32, _)| port.device = format!("d{at}"));
        let wanted = Wanted { devices: list.parse().unwrap(), near: Some(near.into()), ..Wanted::default() };
        let usable = |port: &Port, gid: &Gid| {
            let active = port.details.as_ref().is_ok_and(|details| details.state == PortState::Active);
            let address = gid.address();
            active
                && wanted.devices.allows(&port.device, port.port)
                && gid.kind == GidKind::RoceV2
                && (reach(gid.address()) == Reach::Routable || (Some(address) == wanted.near && reach(gid.address()) != Reach::LinkLocal))
        };
        let all = ports.iter().flat_map(|port| port.details.as_ref().unwrap().gids.iter().map(move |gid| (port, gid)));
        let usable: Vec<_> = all.filter(|(port, gid)| usable(port, gid)).collect();
        match choose(&ports, &wanted) {
            Ok(choice) => {
                let its = |(port, gid): &(&Port, &Gid)| port.device == choice.device && gid.index == choice.gid_index;
                prop_assert!(usable.iter().any(its), "{}", choice.why);
                prop_assert_eq!(choice.why.lines().count(), 1);
            }
            Err(error) => prop_assert!(usable.is_empty(), "{}", error),
        }
    }
}
