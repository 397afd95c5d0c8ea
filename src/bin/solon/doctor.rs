//! `solon doctor`: is this machine fit for a job?

use std::net::{IpAddr, SocketAddr, TcpListener};

use clap::Args;
use solon::daemon::exit::Exit;
use solon::doctor::peer::{self, Path};

use crate::Failure;

/// Find out whether two machines can reach each other, and how fast
///
/// Workers that pass updates on to each other (push.way) need it both ways. On one machine: solon doctor --listen; on the other one:
/// solon doctor --peer HOST:PORT, with the port that the first one prints.
#[derive(Args)]
#[command(arg_required_else_help = true)]
#[command(
    after_help = "Ends with 0 if the two reach each other, else with 1, after it has said what to do. Workers listen on ports that \
                  the system chooses (net.ipv4.ip_local_port_range): a firewall between them has to let those pass."
)]
pub struct Arguments {
    /// Wait for the other machine, at this address and port [default: any of both]
    #[arg(long, num_args = 0..=1, value_name = "IP:PORT", default_missing_value = "0.0.0.0:0", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Examine the way to a machine that waits
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "listen")]
    peer: Option<String>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let address: Option<SocketAddr> = text.parse().ok();
    let address = address.or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 0)));
    address.ok_or_else(|| "expected an address, such as 10.0.0.7 or 10.0.0.7:7400 or [::]:7400".into())
}

/// Does what was asked for.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match (&arguments.peer, arguments.listen) {
        (Some(peer), _) => examine(peer, arguments.json),
        (None, Some(address)) => listen(address),
        (None, None) => Err(Failure { exit: Exit::Usage, message: "expected --listen or --peer HOST:PORT".into() }),
    }
}

fn examine(address: &str, json: bool) -> Result<(), Failure> {
    let path = peer::examine(address).map_err(|error| Failure { exit: Exit::Failure, message: error.to_string() })?;
    match json {
        true => println!("{}", serde_json::json!(path)),
        false => print!("{}", text(&path)),
    }
    Ok(())
}

fn text(path: &Path) -> String {
    let Path { here, peer, connect_seconds, round_trip_seconds, there, back } = path;
    let rate = |bytes: f64| format!("{:.3} Gbit/s ({:.0} MB/s)", 8e-9 * bytes, 1e-6 * bytes);
    format!(
        "{here} reaches {peer}\n  connected in  {:.3} ms\n  round trip    {:.3} ms\n  there         {}\n  back          {}\n\
         One connection: several may carry more. Now the other way round: --listen here, --peer there.\n",
        1e3 * connect_seconds,
        1e3 * round_trip_seconds,
        rate(*there),
        rate(*back),
    )
}

fn listen(address: SocketAddr) -> Result<(), Failure> {
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |error: std::io::Error| Failure {
            exit: Exit::Unavailable,
            message: format!("{address}: {doing}: {error}"),
        }
    };
    let listener = TcpListener::bind(address).map_err(failed("it cannot be listened on"))?;
    let port = listener.local_addr().map_err(failed("its port is not known"))?.port();
    println!("waiting; on the other machine: solon doctor --peer HOST:{port} (Ctrl-C ends this)");
    loop {
        match peer::serve(&listener) {
            Ok(peer) => println!("{peer} has examined the way to this machine"),
            Err(error) => eprintln!("solon: {error}"),
        }
    }
}
