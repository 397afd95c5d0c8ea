//! `solon demo`: a real daemon and real worker processes train a small network while some of them lie.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use solon::attacks::Attack;
use solon::code::Precision;
use solon::daemon::exit::Exit;
use solon::demo::run::{Demo, DemoError, Options, Watch};
use solon::demo::table::{self, Screen};
use solon::demo::{LegKind, Report, Step, report};
use solon::transport::Transport;
use solon::transport::rdma::DeviceList;

use crate::Failure;

/// Train a small network on twelve worker processes of which four lie, and see what becomes of it
///
/// Starts a real solond and real workers over loopback, three times with the same seeds: plain mean without liars, plain mean with
/// them, Solon with them. Ends with a verdict and an HTML report. Exit code 1 if the run with Solon is not the honest run, or
/// somebody honest was named.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How the liars lie: reverse, constant, gaussian, sign-flip, zero, nan, alie, ipm, mimic, min-max, fang, replay, bit-flip, multi-bit,
    /// warp, collude, threshold
    #[arg(long, default_value = "reverse")]
    attack: Attack,
    /// Number of workers [default: two groups]
    #[arg(long)]
    workers: Option<usize>,
    /// Liars per group that the code corrects (s)
    #[arg(long, default_value_t = 2)]
    adversaries: usize,
    /// Liars per group; more than the code corrects stop the run as undecodable [default: as many as it corrects]
    #[arg(long)]
    liars: Option<usize>,
    /// Silent workers per group that the code tolerates beside them (e) [default: as many as are killed]
    #[arg(long)]
    stragglers: Option<usize>,
    /// Each worker uploads 1/N of the gradient (r_c)
    #[arg(long, default_value_t = 2, value_name = "N")]
    compression: usize,
    /// How the numbers of uploads stand on the wire, with Solon
    #[arg(long, default_value = "f32", value_name = "WORD", value_parser = Precision::coded())]
    precision: Precision,
    /// How the numbers of updates stand on the wire, with Solon
    #[arg(long, default_value = "f32", value_name = "WORD", value_parser = Precision::coded())]
    update_precision: Precision,
    /// Kill so many honest workers per group in the middle of the run with Solon
    #[arg(long, num_args = 0..=1, default_value_t = 0, default_missing_value = "1")]
    kill: usize,
    /// Steps per run [default: what the data needs]
    #[arg(long)]
    steps: Option<u64>,
    /// Seed of data order, weights, and who lies
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory with Fashion-MNIST in IDX format, as Debian's package dataset-fashion-mnist has it [default: built-in digits]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where to write the report
    #[arg(long, default_value = "solon-demo.html")]
    report: PathBuf,
    /// How shards and updates travel; "rdma" needs a device at both ends, see `solon rdma devices`
    #[arg(long, default_value = "tcp", value_name = "WAY")]
    transport: Transport,
    /// The daemon's address, such as that of an RDMA port; others on the network can reach one that is not loopback
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    listen: IpAddr,
    /// RDMA devices that the daemon may use, as NCCL_IB_HCA has them: mlx5_0:1 [default: any]
    #[arg(long, default_value = "", value_name = "LIST", hide_default_value = true)]
    daemon_devices: DeviceList,
    /// RDMA devices that the workers may use [default: any]
    #[arg(long, default_value = "", value_name = "LIST", hide_default_value = true)]
    worker_devices: DeviceList,
    /// Where solond answers over HTTP in the run with Solon: metrics for Prometheus, a status page [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Print one JSON object per step, and the whole report as the last line
    #[arg(long)]
    json: bool,
    /// Afterwards let the attacked run with Solon go on until Ctrl-C
    #[arg(long)]
    keep_running: bool,
}

enum Show {
    Table(Screen),
    Lines,
    Json,
}

impl Watch for Show {
    fn stepped(&mut self, report: &Report, kind: LegKind, step: &Step) {
        let text = match self {
            Show::Table(screen) => {
                let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
                screen.redraw(&table::lines(&report.legs, report.steps, width))
            }
            // Every step is too much to read.
            Show::Lines if step.step > 5 && !step.step.is_multiple_of(20) && step.step != report.steps => return,
            Show::Lines => table::plain(kind, step, report.steps) + "\n",
            Show::Json => table::json(kind, step) + "\n",
        };
        print(&text);
    }
}

/// Prints; a reader that went away does not stop the run, which still ends with its exit code.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Runs `solon demo`.
pub fn run(args: &Arguments) -> Result<(), Failure> {
    match demonstrate(args) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure { exit: Exit::Failure, message: "the run with Solon is not the honest run".into() }),
        Err(error) => {
            let exit = match error {
                DemoError::Options(_) | DemoError::Parameters(_) => Exit::Usage,
                DemoError::Data(_) => Exit::Data,
                DemoError::Io { .. } => Exit::Io,
                _ => Exit::Failure,
            };
            Err(Failure { exit, message: error.to_string() })
        }
    }
}

fn demonstrate(args: &Arguments) -> Result<bool, DemoError> {
    let program =
        std::env::current_exe().map_err(|error| DemoError::Io { what: "cannot find this program".into(), error })?;
    let options = Options {
        attack: args.attack,
        workers: args.workers,
        adversaries: args.adversaries,
        liars: args.liars,
        stragglers: args.stragglers,
        compression: args.compression,
        precision: args.precision,
        update_precision: args.update_precision,
        kill: args.kill,
        steps: args.steps,
        seed: args.seed,
        data: args.data.clone(),
        program,
        transport: args.transport,
        listen: args.listen,
        devices: [args.daemon_devices.clone(), args.worker_devices.clone()],
        admin: args.admin,
    };
    let demo = Demo::new(options.clone())?;
    let mut show = match (args.json, std::io::stdout().is_terminal()) {
        (true, _) => Show::Json,
        (false, true) => Show::Table(Screen::new()),
        (false, false) => Show::Lines,
    };
    if !args.json {
        for setting in demo.settings_shown() {
            print(&format!("{:<10} {}\n", setting.name, setting.value));
        }
        print("\n");
    }
    let outcome = demo.run(&mut show)?;
    report::write(&outcome, &args.report)
        .map_err(|error| DemoError::Io { what: format!("cannot write {}", args.report.display()), error })?;
    let verdict = outcome.verdict();
    if args.json {
        let line = serde_json::json!({ "report": outcome, "verdict": verdict });
        print(&format!("{line}\n"));
    } else {
        print(&format!("\n{}\n\nreport: {}\n", verdict.lines.join("\n"), args.report.display()));
    }
    if args.keep_running {
        let mut show = match show {
            Show::Table(_) => Show::Table(Screen::new()),
            other => other,
        };
        Demo::new(options)?.run_on(&mut show, |address| {
            eprintln!("\nThe attacked run with Solon goes on (solond listens on {address}); Ctrl-C ends it.");
            if let Some(admin) = args.admin {
                eprintln!("Its status: http://{admin}/, its metrics: http://{admin}/metrics");
            }
        })?;
        eprintln!("\nIt ended by itself: the rounds are undecodable.");
    }
    Ok(verdict.passed)
}
