//! Addresses, ports and sockets.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::daemon::machine::Machine;
use crate::transport::tcp::SOCKET_BUFFER_BYTES;
use crate::wire::MAGIC;

use super::facts::bytes;
use super::{Facts, Outcome, Status};

/// How long somebody who listens may take to say something.
const GREETING: Duration = Duration::from_secs(1);

/// What came of an attempt to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listening {
    /// It can be done.
    Free,
    /// A `solond` listens there.
    Solond,
    /// Somebody else does.
    Taken,
    /// The address is none of this machine.
    Elsewhere,
    /// The system refuses it.
    Refused(String),
}

impl Listening {
    /// Tries it, and gives the port back.
    pub fn try_out(address: SocketAddr) -> Listening {
        let error = match TcpListener::bind(address) {
            Ok(_) => return Listening::Free,
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::AddrNotAvailable => Listening::Elsewhere,
            ErrorKind::AddrInUse => {
                let near = match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                let greeting = || {
                    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(near, address.port()), GREETING)?;
                    stream.set_read_timeout(Some(GREETING))?;
                    let mut first = [0; MAGIC.len()];
                    stream.read_exact(&mut first).map(|()| first)
                };
                // A daemon speaks first.
                if greeting().is_ok_and(|first| first == MAGIC) { Listening::Solond } else { Listening::Taken }
            }
            _ => Listening::Refused(error.to_string()),
        }
    }
}

/// What the machine lets sockets have.
#[derive(Clone, Debug)]
pub struct Network {
    listening: Listening,
    admin: Option<Listening>,
    /// The most that a socket may ask for: to receive, to send.
    buffers: [Option<usize>; 2],
    ports: Option<(u16, u16)>,
}

impl Network {
    pub(super) fn look(machine: &Machine, listening: Listening, admin: Option<Listening>) -> Network {
        let range = machine.read("proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let mut range = range.split_whitespace().map(|number| number.parse().ok());
        Network {
            listening,
            admin,
            buffers: ["rmem_max", "wmem_max"].map(|name| machine.number(&format!("proc/sys/net/core/{name}"))),
            ports: range.next().flatten().zip(range.next().flatten()),
        }
    }
}

/// Is the address one of this machine?
pub(super) fn address(facts: &Facts) -> Outcome {
    let address = facts.config.listen.address;
    match &facts.network.listening {
        Listening::Elsewhere => Outcome::of(
            Status::Fail,
            format!("{} is not an address of this machine", address.ip()),
            "an address that `ip address` shows, or 0.0.0.0 for all",
            "correct listen.address",
        ),
        _ if address.ip().is_loopback() => {
            let hint = "for workers on other machines: listen.address = \"0.0.0.0:7447\" and listen.token_file";
            Outcome::of(Status::Note, format!("{address}: only workers on this machine can come"), "", hint)
        }
        _ => Outcome::pass(format!("{}", address.ip())),
    }
}

/// Is the port free?
pub(super) fn port(facts: &Facts) -> Outcome {
    let address = facts.config.listen.address;
    match &facts.network.listening {
        Listening::Free => Outcome::pass(format!("{address} is free")),
        Listening::Elsewhere => Outcome::skip("the address is not one of this machine"),
        Listening::Solond => Outcome::of(Status::Note, format!("a solond listens at {address} already"), "", ""),
        Listening::Taken => Outcome::of(
            Status::Fail,
            format!("another program listens at {address}"),
            "a free port",
            format!("`ss -ltnp sport = :{}` says which one; stop it, or change listen.address", address.port()),
        ),
        Listening::Refused(error) => Outcome::of(
            Status::Fail,
            format!("{address} cannot be listened on: {error}"),
            "a port that this user may have",
            "ports below net.ipv4.ip_unprivileged_port_start (1024) are root's: choose another one",
        ),
    }
}

/// Can the status pages be served where they are to be?
pub(super) fn admin(facts: &Facts) -> Outcome {
    let (Some(admin), Some(listening)) = (&facts.config.admin, &facts.network.admin) else {
        return Outcome::skip("admin.serve = false: no status pages, no metrics");
    };
    let address = admin.address;
    let running = facts.network.listening == Listening::Solond;
    match listening {
        Listening::Free => Outcome::pass(format!("{address} is free")),
        Listening::Solond | Listening::Taken if running => {
            Outcome::of(Status::Note, format!("{address} is taken, and a solond runs here already"), "", "solon status")
        }
        Listening::Solond | Listening::Taken => Outcome::of(
            Status::Fail,
            format!("another program listens at {address}"),
            "a free port",
            format!("`ss -ltnp sport = :{}` says which one; stop it, or change admin.address", address.port()),
        ),
        Listening::Elsewhere => Outcome::of(
            Status::Fail,
            format!("{} is not an address of this machine", address.ip()),
            "an address that `ip address` shows, or 127.0.0.1",
            "correct admin.address",
        ),
        Listening::Refused(error) => Outcome::of(
            Status::Fail,
            format!("{address} cannot be listened on: {error}"),
            "a port that this user may have",
            "choose another admin.address",
        ),
    }
}

/// Do sockets get the buffers that they ask for?
pub(super) fn buffers(facts: &Facts) -> Outcome {
    let [Some(receive), Some(send)] = facts.network.buffers else {
        return Outcome::skip("the kernel does not say what it allows");
    };
    let found = format!("rmem_max {}, wmem_max {}", bytes(receive as u64), bytes(send as u64));
    if receive.min(send) < SOCKET_BUFFER_BYTES {
        let wanted = SOCKET_BUFFER_BYTES;
        return Outcome::of(
            Status::Note,
            found,
            format!("{}, which each connection asks for", bytes(wanted as u64)),
            format!(
                "where round trip x bandwidth is more: sysctl net.core.rmem_max={wanted} net.core.wmem_max={wanted}"
            ),
        );
    }
    Outcome::pass(found)
}

/// Enough ports for the links of a relay?
pub(super) fn ports(facts: &Facts) -> Outcome {
    let (Some((first, last)), Ok(needs)) = (facts.network.ports, &facts.needs) else {
        return Outcome::skip("the range or the number of workers is not known");
    };
    if !needs.relays {
        return Outcome::skip("updates are not relayed: workers have no links with each other");
    }
    // One that a worker listens on, one for its session, and one for each link that it dials.
    let (has, needed) = (usize::from(last.saturating_sub(first)) + 1, needs.workers + 1);
    let found = format!("{first} to {last}: a firewall between workers has to let all of these pass");
    if has < needed {
        let hint = "sysctl net.ipv4.ip_local_port_range=\"32768 60999\"";
        return Outcome::of(Status::Warn, found, format!("{needed} ports per worker that runs here"), hint);
    }
    Outcome::pass(found)
}
