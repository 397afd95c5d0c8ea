//! `solon rdma`: what of RDMA there is on this machine, and what Solon would use of it.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;

use clap::{Args, Subcommand};
use serde::Serialize;
use solon::daemon::exit::Exit;
use solon::transport::rdma::device::{LinkLayer, Port, PortState, ports};
use solon::transport::rdma::ffi::Api;
use solon::transport::rdma::select::{Choice, Wanted, choose, shortcoming};
use solon::transport::rdma::{DeviceList, Options};

use super::Failure;

/// Look at the RDMA devices of this machine
#[derive(Args)]
#[command(arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Devices(Devices),
}

/// Show every RDMA port with its addresses, and which one would be used and why
#[derive(Args)]
#[command(after_help = "Ends with 0 if there is something to use; otherwise it says what is missing and what to do.")]
struct Devices {
    /// Ports that may be used, as NCCL_IB_HCA has them: mlx5_0:1,mlx5_1 or =mlx5_0 or ^mlx5_2 [default: all]
    #[arg(long, value_name = "LIST")]
    devices: Option<DeviceList>,
    /// Entry of the port's table of addresses [default: chosen]
    #[arg(long, value_name = "INDEX")]
    gid_index: Option<u8>,
    /// Bytes per packet: 256, 512, 1024, 2048 or 4096 [default: that of the port]
    #[arg(long, value_name = "BYTES", value_parser = mtu)]
    mtu: Option<u32>,
    /// Address of this machine that the other end connects to: its port is preferred
    #[arg(long, value_name = "IP")]
    near: Option<IpAddr>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

fn mtu(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number: &u32| Options::MTUS.contains(&u64::from(*number)));
    number.ok_or_else(|| "expected 256, 512, 1024, 2048 or 4096".into())
}

/// Prints what there is.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let Command::Devices(arguments) = arguments.command;
    let json = arguments.json;
    let report = Report::look(&arguments.wanted());
    let text = match json {
        true => {
            serde_json::to_string_pretty(&report).map_err(|error| Failure {
                exit: Exit::Software,
                message: format!("the devices cannot be written: {error}"),
            })? + "\n"
        }
        false => table(&report.ports, report.choice.as_ref()),
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            return Err(Failure { exit: Exit::Io, message: format!("cannot write to standard output: {error}") });
        }
        Ok(()) => {}
    }
    match report.problem {
        Some(message) => Err(Failure { exit: report.exit, message }),
        None => Ok(()),
    }
}

impl Devices {
    fn wanted(self) -> Wanted {
        Wanted { devices: self.devices.unwrap_or_default(), gid_index: self.gid_index, mtu: self.mtu, near: self.near }
    }
}

/// What there is, and either a choice or a problem.
#[derive(Serialize)]
struct Report {
    ports: Vec<Port>,
    choice: Option<Choice>,
    problem: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

impl Report {
    fn look(wanted: &Wanted) -> Report {
        let nothing =
            |problem| Report { ports: Vec::new(), choice: None, problem: Some(problem), exit: Exit::Temporary };
        let api = match Api::load() {
            Ok(api) => api,
            Err(error) => return nothing(format!("{error}; without it everything goes over TCP")),
        };
        let ports = match ports(api) {
            Ok(ports) => ports,
            Err(error) if error.is_unsupported() => {
                return nothing(format!(
                    "the kernel has no RDMA ({error}): load the driver of the device; to try RDMA without one (soft-RoCE): \
                     modprobe rdma_rxe; rdma link add rxe0 type rxe netdev eth0"
                ));
            }
            Err(error) => return nothing(error.to_string()),
        };
        match choose(&ports, wanted) {
            Ok(choice) => Report { ports, choice: Some(choice), problem: None, exit: Exit::Success },
            Err(none) => {
                let exit = match none {
                    _ if none.is_about_settings() => Exit::Configuration,
                    _ if none.is_permission() => Exit::Permission,
                    _ => Exit::Temporary,
                };
                Report { ports, choice: None, problem: Some(none.to_string()), exit }
            }
        }
    }
}

/// A line per port, below it one per address; then the choice.
fn table(ports: &[Port], choice: Option<&Choice>) -> String {
    let mut page = String::new();
    let width = ports.iter().map(|port| port.to_string().len()).max().unwrap_or(0);
    for port in ports {
        let chosen = choice.filter(|choice| (&choice.device, choice.port) == (&port.device, port.port));
        let name = format!("{:width$}", port.to_string());
        match &port.details {
            Err(error) => line(&mut page, format_args!("{name}  cannot be looked at: {error}")),
            Ok(details) => {
                let state = match details.state {
                    PortState::Unknown => "unknown".into(),
                    state => state.to_string(),
                };
                let speed = details.gbits.map_or("speed unknown".into(), |gbits| format!("{gbits} Gb/s"));
                let lid = match details.link_layer {
                    LinkLayer::InfiniBand => format!("  LID {}", details.lid),
                    LinkLayer::Ethernet => String::new(),
                };
                line(
                    &mut page,
                    format_args!(
                        "{name}  {state:<6}  {:<10}  {speed:>8}  MTU {:<4}{lid}  firmware {}  up to {} queue pairs of {}",
                        details.link_layer, details.mtu, details.firmware, details.max_qp, details.max_qp_wr
                    ),
                );
                let addresses: Vec<String> = details.gids.iter().map(|gid| gid.address().to_string()).collect();
                let longest = addresses.iter().map(String::len).max().unwrap_or(0);
                for (gid, address) in details.gids.iter().zip(addresses) {
                    let note = match chosen {
                        Some(choice) if choice.gid_index == gid.index => "<- used".into(),
                        _ => shortcoming(gid).map_or(String::new(), |text| format!("{text}: only by its index")),
                    };
                    let netdev = gid.netdev.as_deref().unwrap_or("-");
                    line(
                        &mut page,
                        format_args!(
                            "  GID {:>3}  {:<10}  {address:longest$}  {netdev:<8}  {note}",
                            gid.index, gid.kind
                        ),
                    );
                }
            }
        }
    }
    if let Some(choice) = choice {
        line(&mut page, format_args!("\nused: {}", choice.why));
    }
    page
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    let text = text.to_string();
    writeln!(page, "{}", text.trim_end()).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use solon::transport::rdma::device::{Details, Gid, GidKind, ProbeError};

    fn ports() -> Vec<Port> {
        let gid = |index, raw: std::net::Ipv6Addr, kind, netdev: Option<&str>| Gid {
            index,
            raw: raw.octets(),
            kind,
            netdev: netdev.map(str::to_owned),
        };
        let link_local = "fe80::1".parse().unwrap();
        let details = Details {
            state: PortState::Active,
            link_layer: LinkLayer::Ethernet,
            mtu: 4096,
            lid: 0,
            gbits: Some(100.0),
            firmware: "16.35.2000".into(),
            max_qp: 131_072,
            max_qp_wr: 32_768,
            gids: vec![
                gid(0, link_local, GidKind::RoceV1, Some("eth0")),
                gid(1, link_local, GidKind::RoceV2, Some("eth0")),
                gid(3, "::ffff:10.0.0.1".parse().unwrap(), GidKind::RoceV2, Some("eth0")),
            ],
        };
        let down = Details {
            state: PortState::Down,
            link_layer: LinkLayer::InfiniBand,
            gbits: None,
            gids: vec![gid(0, link_local, GidKind::InfiniBand, None)],
            ..details.clone()
        };
        let error = ProbeError {
            verb: "ibv_open_device",
            place: "mlx5_10".into(),
            error: "Permission denied (os error 13)".into(),
            errno: 13,
        };
        let port = |device: &str, details| Port { device: device.into(), port: 1, details };
        vec![port("mlx5_0", Ok(details)), port("mlx5_1", Ok(down)), port("mlx5_10", Err(error))]
    }

    #[test]
    fn the_table_shows_every_port_address_and_reason() {
        let ports = ports();
        let choice = choose(&ports, &Wanted::default()).unwrap();
        let expected = "\
mlx5_0:1   active  Ethernet    100 Gb/s  MTU 4096  firmware 16.35.2000  up to 131072 queue pairs of 32768
  GID   0  RoCE v1     fe80::1   eth0      RoCE v1: only by its index
  GID   1  RoCE v2     fe80::1   eth0      link-local: only by its index
  GID   3  RoCE v2     10.0.0.1  eth0      <- used
mlx5_1:1   down    InfiniBand  speed unknown  MTU 4096  LID 0  firmware 16.35.2000  up to 131072 queue pairs of 32768
  GID   0  InfiniBand  fe80::1  -
mlx5_10:1  cannot be looked at: ibv_open_device on mlx5_10 failed: Permission denied (os error 13)

used: mlx5_0:1: active, RoCE v2 GID 3 10.0.0.1 is the first routable IPv4 address; MTU 4096 as the port has it
";
        assert_eq!(table(&ports, Some(&choice)), expected);
        assert!(!table(&ports, None).contains("used"));
    }

    #[test]
    fn json_has_ports_and_the_choice() {
        let ports = ports();
        let choice = choose(&ports, &Wanted::default()).ok();
        let json = serde_json::to_value(Report { ports, choice, problem: None, exit: Exit::Success }).unwrap();
        assert_eq!((&json["choice"]["gid_index"], &json["choice"]["gid"]), (&3.into(), &"::ffff:10.0.0.1".into()));
        assert_eq!((&json["ports"][2]["errno"], &json["problem"]), (&13.into(), &serde_json::Value::Null));
    }

    #[test]
    fn only_sizes_of_packets_that_verbs_know_are_taken() {
        assert_eq!(mtu("1024"), Ok(1024));
        assert!(mtu("1500").is_err() && mtu("").is_err());
    }
}
