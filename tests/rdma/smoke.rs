//! The guest is what the other tests in it rely on.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::tools::{DEVICES, GID_INDEX, printed, program, run};

fn attribute(device: &str, path: &str) -> String {
    let file = format!("/sys/class/infiniband/{device}/ports/1/{path}");
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().to_owned()
}

#[test]
#[ignore = "runs in the guest"]
fn both_devices_are_active_and_their_second_gid_is_roce_v2_over_ipv4() {
    for device in DEVICES {
        assert_eq!(attribute(device.name, "state"), "4: ACTIVE", "{}", device.name);
        assert_eq!(attribute(device.name, &format!("gid_attrs/types/{GID_INDEX}")), "RoCE v2");
        let last = device.address.rsplit('.').next().unwrap();
        let mapped = format!("0000:0000:0000:0000:0000:ffff:0a00:000{last}");
        assert_eq!(attribute(device.name, &format!("gids/{GID_INDEX}")), mapped);
    }
}

/// Whether a socket of the guest listens on this port, by the kernel's table.
fn listens(port: u16) -> bool {
    let table = |file| std::fs::read_to_string(file).unwrap_or_default();
    let sockets = table("/proc/net/tcp") + &table("/proc/net/tcp6");
    let port = format!(":{port:04X}");
    let mut sockets = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    sockets.any(|columns| columns.len() > 3 && columns[1].ends_with(&port) && columns[3] == "0A")
}

#[test]
#[ignore = "runs in the guest"]
fn messages_of_a_reliable_connection_cross_from_one_device_to_the_other() {
    let [client, server] = DEVICES;
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let arguments = |device| {
        let port = port.to_string();
        ["-d", device, "-g", GID_INDEX, "-p", &port, "-n", "100"].map(str::to_owned)
    };
    let listening = Command::new(program("ibv_rc_pingpong"))
        .args(arguments(server.name))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says nothing when it is ready, and takes one connection only.
    let start = Instant::now();
    while !listens(port) {
        assert!(start.elapsed() < Duration::from_secs(20), "the server does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    let client = Command::new(program("ibv_rc_pingpong")).args(arguments(client.name)).arg(server.address).output();
    for (name, output) in [("client", client.unwrap()), ("server", listening.wait_with_output().unwrap())] {
        let text = printed(name, output);
        assert!(text.contains("100 iters"), "{name}: {text}");
    }
}

#[test]
#[ignore = "runs in the guest"]
fn solon_and_solond_run_where_rdma_is() {
    for name in ["solon", "solond"] {
        assert_eq!(run(name, &["--version"]).trim(), format!("{name} {}", env!("CARGO_PKG_VERSION")));
    }
}
