//! The configuration of `solond`: what the file, the environment and the flags say together.
//!
//! ```text
//!  defaults ─┐
//!  file ─────┤ later wins   ┌─ each value against its row ─┐   what must hold together   ┌──────────┐
//!  SOLON_* ──┼────────────► │ settings table               ├──────────────────────────► │ Config   │
//!  flags ────┘              └──────────────┬───────────────┘             │              └──────────┘
//!                                          └──────── Vec<Problem> ◄──────┘
//! ```
//!
//! Nothing stops at the first problem: all of them are listed, each with where it stands, what was found, what was
//! expected and what to do. Whoever holds a [`Config`] need not check it again.

mod build;
mod command;
mod file;
mod layers;
mod nearest;
mod problem;
mod render;
mod rule;
mod value;

pub use command::{Loaded, Refusal, Request, command, load};
pub use problem::{Place, Problem};
pub use render::{example_config, settings_markdown};

use crate::code::{Layout, Parameters, Precision, ROWS_MAX};
use crate::memory::HugePages;
pub use crate::pipeline::{Begin, Robust, StageName as Stage};
use crate::rules;
use crate::transport::{Transport, rdma};
use crate::wire::{self, CHUNKS_MAX, CREDITS_MAX, RELAY_WORKERS_MAX, WORKERS_MAX};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// All that an operator decides, checked. The docs of each field are in the [table](super::settings::SETTINGS).
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[job]`.
    pub job: Job,
    /// `[chunks]`.
    pub chunks: Chunks,
    /// `[rounds]`.
    pub rounds: Rounds,
    /// `[verify]`.
    pub verify: Verify,
    /// `[listen]`.
    pub listen: Listen,
    /// `[rdma]`.
    pub rdma: rdma::Options,
    /// `[push]`.
    pub push: Push,
    /// `[memory]`.
    pub memory: Memory,
    /// `[cores]`.
    pub cores: Cores,
    /// `[state]`.
    pub state: State,
    /// `[admin]`; `None` if nobody is answered.
    pub admin: Option<Admin>,
    /// `[log]`.
    pub log: Log,
}

impl Config {
    /// How the gradient is cut.
    pub fn layout(&self) -> Layout {
        Layout::new(self.job.dimension, self.job.parameters.compression(), self.chunks.width)
    }

    /// Does the rule look at whole gradients before it combines the first chunk?
    fn surveys(&self) -> bool {
        self.job.robust.as_ref().is_some_and(|robust| robust.rule.surveys())
    }

    /// Shards in flight per worker: a rule that surveys holds all of a round beside them.
    pub fn credits(&self) -> usize {
        self.memory.credits + if self.surveys() { self.layout().chunks() } else { 0 }
    }

    /// How long to wait for more shards. A rule that surveys needs the same workers in all chunks: it waits for all that are connected.
    pub fn linger(&self) -> Duration {
        if self.surveys() { self.rounds.deadline } else { self.rounds.linger }
    }
}

/// What is aggregated.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The job's name.
    pub name: String,
    /// How uploads become an update.
    pub rule: Rule,
    /// Groups, adversaries, stragglers and compression, as workers are told: with [`Rule::MEAN`] and robust rules each is a group of its own,
    /// and nothing is corrected.
    pub parameters: Parameters,
    /// How a robust rule combines them.
    pub robust: Option<Robust>,
    /// Numbers in the gradient, at least 1.
    pub dimension: usize,
    /// Factor on the sum over groups; finite and not 0.
    pub scale: f32,
    /// The generator matrix.
    pub code: Generator,
    /// How the numbers of shards stand on the wire.
    pub precision: Precision,
}

impl Job {
    /// Gradients of which each worker sends a combination.
    pub fn gradients(&self) -> u32 {
        let cyclic = self.robust.as_ref().filter(|robust| robust.rule == rules::Rule::Cyclic);
        cyclic.map_or(1, |cyclic| 2 * cyclic.adversaries as u32 + 1)
    }
}

/// How the gradient is cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunks {
    /// Numbers per shard of one chunk, at least 1.
    pub width: usize,
}

/// How rounds pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounds {
    /// Rounds in flight, 2 to 8.
    pub window: usize,
    /// From when s + 1 workers of one group have begun a round until it ends.
    pub deadline: Duration,
    /// How long to wait for more shards once r_c + s agree; at most `deadline`.
    pub linger: Duration,
    /// Who has to be there before the first round.
    pub begin: Begin,
}

/// When shards agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Verify {
    /// Relative rounding error that is no lie; above 0 and below 1.
    pub tolerance: f32,
    /// Random projections, 1 to 8.
    pub projections: usize,
    /// How thoroughly words are checked in which nobody is known to lie.
    pub check: Check,
    /// What becomes of workers that compute differently than their group.
    pub mixed: Mixed,
}

/// Where workers connect.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// The address to listen on.
    pub address: SocketAddr,
    /// How shards and updates travel.
    pub transport: Transport,
    /// Who may connect.
    pub admission: Admission,
    /// How long a connection may take to say who it is.
    pub handshake: Duration,
    /// New connections looked at per second, at least 1.
    pub connections_per_second: u32,
    /// How long a worker may take to read what is pushed.
    pub write_deadline: Duration,
}

/// Who may connect as which worker: `listen.token_file` and `listen.open`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Whoever knows the worker's token, which stands in this file.
    Tokens(PathBuf),
    /// Everybody on this machine: the address is loopback.
    Loopback,
    /// Everybody who reaches the port: asked for by name.
    Open,
}

/// How updates come to the workers.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// How their numbers stand on the wire.
    pub precision: Precision,
    /// Whether workers pass them on.
    pub way: PushWay,
    /// When a worker that passes nothing on is late.
    pub repair: Duration,
}

/// How much is in flight.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Shards in flight per worker, 2 to 1024.
    pub credits: usize,
    /// Slots for decoded chunks, at least 1.
    pub updates: usize,
    /// What slots lie on.
    pub huge_pages: HugePages,
}

/// What runs where.
#[derive(Clone, Debug, PartialEq)]
pub struct Cores {
    /// Which stages a core runs.
    pub map: CoreMap,
    /// Is each thread kept on a core of its own?
    pub pin: bool,
    /// What a core does while there is nothing to do.
    pub idle: Idle,
}

/// Which stages a core runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoreMap {
    /// To be chosen by the number of cores.
    Auto,
    /// The stages of each core: receive, assemble and push once in all, decode once or more, none twice on
    /// one core, no core without any.
    Fixed(Vec<Vec<Stage>>),
}

/// What survives a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Where the last closed round is kept, if anywhere.
    pub directory: Option<PathBuf>,
}

/// Where people, probes and Prometheus ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// The address to listen on: loopback, unless asked for by name.
    pub address: SocketAddr,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// How a line is written.
    pub format: LogFormat,
    /// The least important level that is written.
    pub level: Level,
}

/// How uploads become an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Solon's code.
    Solon,
    /// The same with compression 1: replicas that are compared (arXiv 1803.09877).
    Draco,
    /// Each worker computes something else.
    Uncoded(rules::Rule),
}

impl Rule {
    /// The plain sum.
    pub const MEAN: Rule = Rule::Uncoded(rules::Rule::Mean);
    /// The sign that most have.
    pub const SIGNUM: Rule = Rule::Uncoded(rules::Rule::Signum);
    /// Draco's cyclic code.
    pub const CYCLIC: Rule = Rule::Uncoded(rules::Rule::Cyclic);

    /// What workers are told.
    pub fn on_the_wire(self) -> wire::Rule {
        match self {
            Rule::Solon | Rule::Draco => wire::Rule::Solon,
            Rule::Uncoded(rule) => wire::Rule::Uncoded(rule),
        }
    }

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Solon => "solon",
            Rule::Draco => "draco",
            Rule::Uncoded(rule) => rule.name(),
        }
    }
}

impl ValueEnum for Rule {
    fn value_variants<'a>() -> &'a [Rule] {
        const ALL: [Rule; 3 + rules::Rule::ALL.len()] = {
            // The last one stays.
            let mut all = [Rule::CYCLIC; 3 + rules::Rule::ALL.len()];
            (all[0], all[1]) = (Rule::Solon, Rule::Draco);
            let mut at = 0;
            while at < rules::Rule::ALL.len() {
                all[2 + at] = Rule::Uncoded(rules::Rule::ALL[at]);
                at += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Rule::Solon => "Correct liars exactly",
            Rule::Draco => "The same with compression 1: replicas that are compared (arXiv 1803.09877)",
            Rule::Uncoded(rule) => rule.help(),
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

/// The generator matrix that workers encode with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Generator {
    /// Some workers send slices as they are: without lies decoding is a copy
    Systematic,
    /// Every worker sends a mixture of all slices
    Dense,
    /// The polynomial code of the paper, for comparison
    Polynomial,
}

/// How thoroughly words are checked in which nobody is known to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// Two secret combinations of the shards
    Random,
    /// Every combination that must vanish: nothing is left to chance
    Full,
}

/// What becomes of workers that say that they compute differently than their group. The line of each word is its help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mixed {
    /// The log names them
    Warn,
    /// They cannot join, and are disconnected
    Refuse,
    /// Nothing
    Ignore,
}

/// What a core does while there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Idle {
    /// Adaptive with more cores than two and than the map has, else park
    Auto,
    /// Look again for 50 us, then sleep
    Adaptive,
    /// Sleep until the kernel reports something
    Park,
    /// Let others run, then look again
    Yield,
    /// Look again at once
    Spin,
}

/// Whether workers pass updates on. The line of each word is its help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PushWay {
    /// The daemon sends every worker everything
    Direct,
    /// Workers pass on what the daemon sends once
    Relay,
    /// Relay where it can halve the time of a round, else direct
    Auto,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Level {
    /// Something failed
    Error,
    /// Something needs attention
    Warn,
    /// Something changed
    Info,
    /// Every round
    Debug,
    /// Every frame
    Trace,
}

#[cfg(test)]
mod tests;
