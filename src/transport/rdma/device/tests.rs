//! Devices of a library that the test makes up, and sysfs below a directory of its own.

use super::*;

#[test]
fn kinds_and_interfaces_come_from_sysfs_and_empty_places_are_left_out() {
    let sysfs = tempfile::tempdir().unwrap();
    let port = sysfs.path();
    for (directory, index, content) in [
        ("types", 0, "IB/RoCE v1\n"),
        ("types", 1, "RoCE v2\n"),
        ("types", 3, "RoCE v2\n"),
        ("ndevs", 0, "eth0\n"),
        ("ndevs", 1, "eth0\n"),
        ("ndevs", 3, "eth0.7\n"),
    ] {
        let directory = port.join("gid_attrs").join(directory);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(index.to_string()), content).unwrap();
    }
    let read = |index: u8| match index {
        2 => Some([0; 16]),
        5 => None,
        _ => Some([index + 1; 16]),
    };
    let found = gids(port, LinkLayer::Ethernet, 7, read);
    let found: Vec<_> = found.iter().map(|gid| (gid.index, gid.raw[0], gid.kind, gid.netdev.as_deref())).collect();
    assert_eq!(
        found,
        [
            (0, 1, GidKind::RoceV1, Some("eth0")),
            (1, 2, GidKind::RoceV2, Some("eth0")),
            (3, 4, GidKind::RoceV2, Some("eth0.7")),
            (4, 5, GidKind::Unknown, None),
            (6, 7, GidKind::Unknown, None),
        ]
    );
    assert!(gids(port, LinkLayer::InfiniBand, 1, read).iter().all(|gid| gid.kind == GidKind::InfiniBand));
    // A table longer than what a queue pair can name, and one that says nonsense.
    assert_eq!(gids(port, LinkLayer::Ethernet, 1024, |_| Some([1; 16])).len(), 256);
    assert_eq!(gids(port, LinkLayer::Ethernet, -1, |_| Some([1; 16])), []);
}

#[test]
fn sizes_and_speeds_are_those_of_the_manual() {
    assert_eq!([1, 2, 3, 4, 5].map(mtu_bytes), [256, 512, 1024, 2048, 4096]);
    assert_eq!([0, 6, -1, c_int::MAX].map(mtu_bytes), [0; 4]);
    for (width, speed, expected) in [
        (1, 1, Some(2.5)),
        (2, 32, Some(100.0)),
        (2, 64, Some(200.0)),
        (2, 128, Some(400.0)),
        (4, 64, Some(400.0)),
        (16, 16, Some(28.0)),
        (0, 32, None),
        (2, 0, None),
    ] {
        assert_eq!(gbits(width, speed), expected, "{width} {speed}");
    }
}

/// A library with `good` (two ports, the second of which does not answer) and `barred`, which cannot be opened.
#[cfg(target_os = "linux")]
mod library {
    use super::*;
    use std::sync::atomic::{AtomicI32, Ordering};

    /// Lists and devices that were handed out and not given back.
    pub static OPEN: AtomicI32 = AtomicI32::new(0);

    unsafe extern "C" {
        fn __errno_location() -> *mut c_int;
    }

    fn write_text(to: &mut [c_char], text: &str) {
        to.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = c_char::from_ne_bytes([from]));
    }

    unsafe extern "C" fn list(len: *mut c_int) -> *mut *mut ffi::ibv_device {
        let device = |name: &str| {
            // SAFETY: all fields are numbers or pointers, for which zeros are valid.
            let mut device: Box<ffi::ibv_device> = unsafe { Box::new(std::mem::zeroed()) };
            write_text(&mut device.name, name);
            Box::into_raw(device)
        };
        OPEN.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller gives a place for it.
        unsafe { *len = 2 };
        Box::into_raw(Box::new([device("good"), device("barred")])).cast()
    }

    unsafe extern "C" fn free(list: *mut *mut ffi::ibv_device) {
        OPEN.fetch_sub(1, Ordering::SeqCst);
        // SAFETY: made by `list`.
        let devices = unsafe { Box::from_raw(list.cast::<[*mut ffi::ibv_device; 2]>()) };
        for device in *devices {
            // SAFETY: as above.
            drop(unsafe { Box::from_raw(device) });
        }
    }

    unsafe extern "C" fn open(device: *mut ffi::ibv_device) -> *mut ffi::ibv_context {
        // SAFETY: one of the list.
        if text(unsafe { &(*device).name }) == "barred" {
            // SAFETY: this thread's own number.
            unsafe { *__errno_location() = 13 };
            return std::ptr::null_mut();
        }
        OPEN.fetch_add(1, Ordering::SeqCst);
        // SAFETY: all fields are numbers, pointers or absent functions, for which zeros are valid.
        Box::into_raw(unsafe { Box::new(std::mem::zeroed()) })
    }

    unsafe extern "C" fn close(context: *mut ffi::ibv_context) -> c_int {
        OPEN.fetch_sub(1, Ordering::SeqCst);
        // SAFETY: made by `open`.
        drop(unsafe { Box::from_raw(context) });
        0
    }

    unsafe extern "C" fn device(_: *mut ffi::ibv_context, to: *mut ffi::ibv_device_attr) -> c_int {
        // SAFETY: the caller gives a place for it.
        let to = unsafe { &mut *to };
        write_text(&mut to.fw_ver, "16.35.2000");
        (to.phys_port_cnt, to.max_qp, to.max_qp_wr) = (2, 1000, 100);
        0
    }

    unsafe extern "C" fn port(_: *mut ffi::ibv_context, port: u8, to: *mut ffi::ibv_port_attr) -> c_int {
        if port == 2 {
            return 5;
        }
        // SAFETY: the caller gives a place for it.
        let to = unsafe { &mut *to };
        (to.state, to.active_mtu, to.gid_tbl_len, to.lid) = (ffi::IBV_PORT_ACTIVE, 5, 4, 7);
        (to.link_layer, to.active_width, to.active_speed) = (ffi::IBV_LINK_LAYER_ETHERNET, 2, 32);
        0
    }

    unsafe extern "C" fn gid(_: *mut ffi::ibv_context, _: u8, index: c_int, to: *mut ffi::ibv_gid) -> c_int {
        if index != 1 {
            return -1;
        }
        // SAFETY: the caller gives a place for it.
        unsafe { (*to).raw = std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets() };
        0
    }

    extern "C" fn nothing() {
        panic!("the list of devices needs no such verb")
    }

    pub fn api() -> &'static Api {
        const VERBS: usize = size_of::<Api>() / size_of::<usize>();
        // SAFETY: a table of functions, as is the array, and those that stay `nothing` are not called.
        let mut api: Api = unsafe { std::mem::transmute([nothing as extern "C" fn(); VERBS]) };
        api.ibv_get_device_list = list;
        api.ibv_free_device_list = free;
        api.ibv_open_device = open;
        api.ibv_close_device = close;
        api.ibv_query_device = device;
        api.ibv_query_port = port;
        api.ibv_query_gid = gid;
        Box::leak(Box::new(api))
    }
}

#[cfg(target_os = "linux")]
#[test]
fn every_port_is_listed_and_what_cannot_be_seen_has_its_reason() {
    let sysfs = tempfile::tempdir().unwrap();
    let types = sysfs.path().join("good/ports/1/gid_attrs/types");
    fs::create_dir_all(&types).unwrap();
    fs::write(types.join("1"), "RoCE v2\n").unwrap();
    for directory in ["barred/ports/1", "barred/ports/2", "hidden/ports/3"] {
        fs::create_dir_all(sysfs.path().join(directory)).unwrap();
    }
    let ports = ports_below(library::api(), sysfs.path()).unwrap();
    assert_eq!(library::OPEN.load(std::sync::atomic::Ordering::SeqCst), 0, "all was given back");
    assert_eq!(
        ports.iter().map(Port::to_string).collect::<Vec<_>>(),
        ["barred:1", "barred:2", "good:1", "good:2", "hidden:3"]
    );
    for port in &ports[..2] {
        let error = port.details.as_ref().unwrap_err();
        assert!(error.is_permission() && !error.is_unsupported());
        assert_eq!(error.to_string(), "ibv_open_device on barred failed: Permission denied (os error 13)");
    }
    let details = ports[2].details.as_ref().unwrap();
    assert_eq!((details.state, details.link_layer, details.mtu), (PortState::Active, LinkLayer::Ethernet, 4096));
    assert_eq!((details.lid, details.gbits, details.firmware.as_str()), (7, Some(100.0), "16.35.2000"));
    assert_eq!((details.max_qp, details.max_qp_wr), (1000, 100));
    assert_eq!((details.gids.len(), details.gids[0].kind), (1, GidKind::RoceV2));
    assert_eq!(details.gids[0].address(), IpAddr::from([10, 0, 0, 1]));
    let error = ports[3].details.as_ref().unwrap_err();
    assert!(error.to_string().starts_with("ibv_query_port on good:2 failed: "), "{error}");

    let error = ports[4].details.as_ref().unwrap_err();
    assert!(error.to_string().contains("hidden failed: the kernel has the device, but the library"), "{error}");
    assert!(!error.is_permission());

    let json = serde_json::to_value(&ports).unwrap();
    assert_eq!((&json[0]["verb"], &json[2]["state"]), (&"ibv_open_device".into(), &"active".into()));
    assert_eq!(json[2]["gids"][0]["gid"], "::ffff:10.0.0.1");
    assert_eq!(json[2]["gids"][0]["kind"], "RoCE v2");
}

#[test]
fn the_library_of_this_machine_answers() {
    // With or without library, module and devices: a list or a reason, never a crash.
    let Ok(api) = Api::load() else { return };
    match ports(api) {
        Ok(ports) => assert!(ports.iter().all(|port| port.port > 0 && !port.device.is_empty())),
        Err(error) => assert_eq!(error.verb, "ibv_get_device_list"),
    }
}
