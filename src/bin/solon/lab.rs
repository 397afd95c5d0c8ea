//! `solon lab`: experiments with real daemons and workers, and the report over them.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use solon::daemon::exit::Exit;
use solon::lab::experiment::{BUILT_IN, Experiment, ExperimentError, SMALL};
use solon::lab::link::Probe;
use solon::lab::record::{Outcome, Shaping};
use solon::lab::report::{self, ReportError};
use solon::lab::run::{self, LabError, Options, Planned, Records, Watch};

use crate::Failure;

/// Where Debian's package puts Fashion-MNIST.
const FASHION: &str = "/usr/share/datasets/fashion-mnist";

/// Measure rules against attacks, and the time that they take, with real daemons and workers
///
/// An experiment is a small TOML file; docs/lab.md explains it. What was run is not run again: a lab that was stopped goes on where it
/// stopped.
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Say what the experiments consist of
    List {
        /// Files of experiments, or names of built-in ones [default: all built-in ones]
        #[arg(value_name = "FILE")]
        experiments: Vec<String>,
    },
    /// Run what is missing of experiments
    Run {
        /// Files of experiments, or names of built-in ones
        #[arg(value_name = "FILE", required = true)]
        experiments: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Write the report over all that was run
    Report {
        /// The directory of records
        #[arg(value_name = "DIR", default_value = "solon-lab")]
        out: PathBuf,
        /// Write results.md and its pictures in this directory of docs anew, too
        #[arg(long, value_name = "DIR")]
        docs: Option<PathBuf>,
    },
    /// Run the built-in experiments, then write the report
    All {
        /// In small: needs no data, and less than four minutes
        #[arg(long)]
        small: bool,
        #[command(flatten)]
        how: How,
    },
}

/// How experiments are run.
#[derive(Args, Debug)]
struct How {
    /// Where records go
    #[arg(long, value_name = "DIR", default_value = "solon-lab")]
    out: PathBuf,
    /// Directory with Fashion-MNIST in IDX format [default: where Debian's package dataset-fashion-mnist has it]
    #[arg(long, value_name = "DIR", env = "SOLON_DATA")]
    data: Option<PathBuf>,
    /// Only runs with this in their path, EXPERIMENT/VARIANT/seed-N; may be given several times
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Run everything anew
    #[arg(long)]
    fresh: bool,
    /// How links with a rate are held to it [default: namespaces if permitted, else pacing]
    #[arg(long, value_name = "WAY")]
    shaping: Option<Way>,
}

/// How a link is held to its rate.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    /// Network namespaces and the kernel's token bucket; needs root, ip and tc
    Namespaces,
    /// A forwarder with a token bucket
    Pacing,
    /// Not at all
    None,
}

/// What a lab starts.
#[derive(Subcommand)]
pub enum Role {
    /// One worker of a lab
    #[command(hide = true)]
    LabWorker {
        /// What it is told, as JSON
        order: String,
    },
    /// One end of a measurement of a link
    #[command(hide = true)]
    LabProbe {
        #[command(subcommand)]
        end: Probe,
    },
}

/// Runs one of them.
pub fn run_role(role: &Role) -> Result<(), Failure> {
    let failed = |message: String| Failure { exit: Exit::Failure, message };
    match role {
        Role::LabWorker { order } => {
            let order = serde_json::from_str(order).map_err(|error| failed(format!("the order: {error}")))?;
            solon::lab::worker::run(&order).map_err(|error| failed(format!("worker {}: {error}", order.worker)))
        }
        Role::LabProbe { end } => solon::lab::link::probe(end).map_err(|error| failed(format!("probe: {error}"))),
    }
}

impl From<ExperimentError> for Failure {
    fn from(error: ExperimentError) -> Failure {
        let exit = match error {
            ExperimentError::Missing { .. } => Exit::Usage,
            ExperimentError::Io { .. } => Exit::Io,
            ExperimentError::Syntax { .. } | ExperimentError::Impossible { .. } => Exit::Data,
        };
        Failure { exit, message: error.to_string() }
    }
}

/// Runs `solon lab`.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let built_in = || BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
    match &arguments.command {
        Command::List { experiments } => {
            let names = if experiments.is_empty() { built_in() } else { experiments.clone() };
            let found = names.iter().map(|name| Experiment::find(name)).collect::<Result<Vec<_>, _>>()?;
            let mut out = io::stdout().lock();
            let written = found.iter().try_for_each(|experiment| list(experiment, &mut out));
            quietly(written.and_then(|()| out.flush()))
        }
        Command::Run { experiments, how } => run_all(experiments, how),
        Command::Report { out, docs } => write_report(out, docs.as_deref()),
        Command::All { small, how } => {
            let mut names = built_in();
            names.retain(|name| name.starts_with(SMALL) == *small);
            let ran = run_all(&names, how);
            // What there is can be shown, whatever else failed.
            if how.out.is_dir() {
                write_report(&how.out, None)?;
            }
            ran
        }
    }
}

/// Whoever reads no further, such as `head`, has seen enough.
fn quietly(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure { exit: Exit::Io, message: format!("standard output: {error}") })
        }
        _ => Ok(()),
    }
}

fn list(experiment: &Experiment, out: &mut dyn Write) -> io::Result<()> {
    let about = &experiment.about;
    writeln!(out, "{}: {}", about.name, about.title)?;
    if !about.text.is_empty() {
        writeln!(out, "  {}", about.text.replace('\n', "\n  "))?;
    }
    let (variants, seeds) = (experiment.variants.len(), experiment.seeds.len());
    writeln!(out, "  {variants} variants x {seeds} seeds = {} runs:", about.runs.len())?;
    experiment.variants.iter().try_for_each(|(variant, _)| writeln!(out, "    {variant}"))?;
    writeln!(out)
}

/// The report lies beside the records.
fn write_report(out: &Path, docs: Option<&Path>) -> Result<(), Failure> {
    let failure = |error: ReportError| {
        let exit = match error {
            ReportError::Io { .. } => Exit::Io,
            ReportError::Nothing(_) | ReportError::Records(_) | ReportError::Marks { .. } => Exit::Data,
        };
        Failure { exit, message: error.to_string() }
    };
    let mut written = report::write(out, out).map_err(failure)?;
    if let Some(docs) = docs {
        written.extend(report::write_docs(out, docs).map_err(failure)?);
    }
    let mut out = io::stdout().lock();
    quietly(written.iter().try_for_each(|path| writeln!(out, "{}", path.display())))
}

fn run_all(names: &[String], how: &How) -> Result<(), Failure> {
    let experiments = names.iter().map(|name| Experiment::find(name)).collect::<Result<Vec<_>, _>>()?;
    let failure = |exit, message: String| Failure { exit, message };
    let program = std::env::current_exe()
        .map_err(|error| failure(Exit::Failure, format!("cannot find this program: {error}")))?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the process, whatever it does.
        signal_hook::flag::register_conditional_default(signal, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|error| failure(Exit::Failure, format!("cannot listen to signals: {error}")))?;
    }
    let options = Options {
        out: how.out.clone(),
        data: how.data.clone().or_else(|| Some(PathBuf::from(FASHION)).filter(|path| path.is_dir())),
        only: how.only.clone(),
        records: if how.fresh { Records::Fresh } else { Records::Keep },
        shaping: how.shaping.map(|way| match way {
            Way::Namespaces => Shaping::Namespaces,
            Way::Pacing => Shaping::Pacing,
            Way::None => Shaping::None,
        }),
        program,
        stop,
    };
    let mut show = Show::new();
    let done = run::run(&experiments, &options, &mut show);
    show.bar.finish_and_clear();
    let summary = done.map_err(|error| {
        let exit = match error {
            LabError::NoData { .. } => Exit::Usage,
            LabError::Data(_) | LabError::Record(_) => Exit::Data,
            LabError::Io { .. } => Exit::Io,
            LabError::Stopped => Exit::Temporary,
            _ => Exit::Failure,
        };
        failure(exit, error.to_string())
    })?;
    quietly(writeln!(io::stdout(), "{} runs are in {}", summary.whole, how.out.display()))?;
    match summary.failed.len() {
        0 => Ok(()),
        count => Err(failure(Exit::Failure, format!("{count} runs failed, as was said above"))),
    }
}

/// A bar on a terminal, else a line per run.
struct Show {
    bar: ProgressBar,
    terminal: bool,
    began: Instant,
    runs: usize,
    over: usize,
    /// Steps of all runs, and of those that are over.
    steps: u64,
    stepped: u64,
}

impl Show {
    fn new() -> Show {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {elapsed}, about {eta} left  {msg}")
            .expect("a template of known words");
        bar.set_style(style);
        Show { bar, terminal, began: Instant::now(), runs: 0, over: 0, steps: 0, stepped: 0 }
    }

    fn line(&self, text: &str) {
        match self.terminal {
            true => self.bar.println(text),
            // If nobody reads, records are written all the same.
            false => drop(writeln!(io::stdout(), "{text}")),
        }
    }
}

impl Watch for Show {
    fn planned(&mut self, runs: &[Planned], there: usize) {
        self.runs = runs.len();
        self.steps = runs.iter().map(|run| run.settings.steps).sum();
        self.bar.set_length(self.steps);
        if there > 0 {
            self.line(&format!("{there} runs are there already (--fresh runs them anew), {} are missing", runs.len()));
        }
    }

    fn note(&mut self, text: &str) {
        self.line(text);
    }

    fn stepped(&mut self, run: &Planned, step: u64) {
        self.bar.set_position(self.stepped + step);
        if step == 1 {
            self.bar.set_message(run.place().display().to_string());
        }
    }

    fn ended(&mut self, run: &Planned, outcome: Result<&Outcome, &LabError>, took: Duration) {
        self.over += 1;
        self.stepped += run.settings.steps;
        self.bar.set_position(self.stepped);
        let came_to = match outcome {
            Err(error) => format!("FAILED: {error}"),
            Ok(Outcome { stopped: Some(why), .. }) => why.clone(),
            Ok(outcome) => {
                let accuracy = outcome.accuracy.map_or("-".into(), |part| format!("{:.1} %", part * 100.0));
                format!("{accuracy} right after {:.2} s", outcome.seconds)
            }
        };
        let left = self.began.elapsed().mul_f64((self.steps - self.stepped) as f64 / self.stepped.max(1) as f64);
        let left = if self.terminal || self.over == self.runs {
            String::new()
        } else {
            format!("; about {} left", HumanDuration(left))
        };
        let place = run.place().display().to_string();
        let seconds = took.as_secs_f64();
        self.line(&format!("[{}/{}] {place}: {came_to}; took {seconds:.1} s{left}", self.over, self.runs));
    }
}
