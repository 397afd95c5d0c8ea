//! `solon doctor`: is this machine fit for a job?

use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::Args;
use solon::daemon::exit::Exit;
use solon::doctor::facts::Job;
use solon::doctor::{Facts, Given, Report, Status, page, peer};

use crate::Failure;

/// Find out whether this machine is fit for a job, and whether two machines reach each other
///
/// Looks at kernel, cores, memory, limits, ports, RDMA and the files of a configuration, and says of each what was found, what was
/// expected, and what to do. Run it as the user, and with the limits, that solond has.
///
/// Between two machines: solon doctor --listen on the one, solon doctor --peer HOST on the other.
#[derive(Args)]
#[command(
    after_help = "Ends with 0 if nothing failed; with 78 if the configuration is wrong, else with 1. Warnings are no failures, and \
                  without a configuration nothing of this machine is. Workers that pass updates on to each other (push.way) listen on \
                  ports that the system chooses: try such a one by --listen 0.0.0.0:0."
)]
pub struct Arguments {
    /// The configuration of solond; without one its defaults are assumed
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Wait for the other machine, at this address and port [default: 0.0.0.0:7450]
    #[arg(long, num_args = 0..=1, value_name = "IP:PORT", default_missing_value = "0.0.0.0", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Examine the way to a machine that waits, too: by TCP and by RDMA
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with = "listen")]
    peer: Option<String>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    /// Further flags of solond, after --
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<OsString>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let address: Option<SocketAddr> = text.parse().ok();
    let address = address.or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, peer::PORT)));
    address.ok_or_else(|| "expected an address, such as 10.0.0.7 or 10.0.0.7:7400 or [::]:7400".into())
}

/// Does what was asked for.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let job = Job::read(arguments.config.as_deref(), &arguments.flags, std::env::vars_os())
        .map_err(|refusal| Failure { exit: refusal.exit(), message: refusal.to_string() })?;
    if let Some(address) = arguments.listen {
        return listen(address, &job);
    }
    let wrong = matches!(job.given, Given::Wrong(_));
    let options = job.config.rdma.clone();
    let mut report = Report::of(&Facts::here(job));
    if let Some(address) = &arguments.peer {
        report.add_peer(peer::examine(address, &options));
    }
    let text = match arguments.json {
        true => format!("{:#}\n", serde_json::json!(report)),
        false => page::text(&report),
    };
    let mut out = std::io::stdout().lock();
    // A reader that went away has seen enough.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let names = report.findings.iter().filter(|finding| finding.status == Status::Fail).map(|finding| finding.check);
    match names.collect::<Vec<_>>().join(", ") {
        names if names.is_empty() => Ok(()),
        names => {
            let exit = if wrong { Exit::Configuration } else { Exit::Failure };
            Err(Failure { exit, message: format!("failed: {names}") })
        }
    }
}

fn listen(address: SocketAddr, job: &Job) -> Result<(), Failure> {
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
    // Nobody need read it.
    let told = |done: std::io::Result<SocketAddr>| match done {
        Ok(peer) => drop(writeln!(std::io::stdout(), "{peer} has examined the way to this machine")),
        Err(error) => drop(writeln!(std::io::stderr(), "solon: {error}")),
    };
    peer::serve(&listener, &job.config.rdma, told).map_err(failed("nobody can be served"))
}
