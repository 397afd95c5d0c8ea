//! What the checks are told: the job, the machine, and what only trying shows.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::daemon::config::{Admission, Config, Refusal, Request, load};
use crate::daemon::machine::Machine;
use crate::daemon::serve::{descriptors_needed, job_of, relay_of};
use crate::daemon::settings::SETTINGS;
use crate::pipeline::Limits;
use crate::transport::Transport;
use crate::wire::UPDATE_OFFSET;

use super::files::Files;
use super::memory::Memory;
use super::network::{Listening, Network};
use super::rdma::{Rdma, Verbs};
use super::system::System;

/// Numbers in the gradient of the job that is assumed if none is given.
const ASSUMED_DIMENSION: &str = "25557032";

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// File, environment or flags, with their warnings.
    Job(Vec<String>),
    /// Nobody gave one.
    Assumed,
    /// What was given is wrong: all that is.
    Wrong(Vec<String>),
}

/// The configuration that `solond` would read, or an assumed one.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where it comes from.
    pub given: Given,
    /// What the checks go by.
    pub config: Config,
}

impl Job {
    /// Reads what `solond` would read: the `config` file, these further flags of it, and the environment. Without any of these, and
    /// where they are wrong, the defaults are assumed.
    ///
    /// # Errors
    /// If the flags cannot be understood.
    pub fn read(
        config: Option<&Path>,
        flags: &[OsString],
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Job, Refusal> {
        let env: Vec<_> = env.into_iter().collect();
        let is_setting = |name: &OsString| SETTINGS.iter().any(|setting| *name == *setting.environment());
        if config.is_none() && flags.is_empty() && !env.iter().any(|(name, _)| is_setting(name)) {
            return Ok(Job { given: Given::Assumed, config: assumed() });
        }
        let mut words: Vec<OsString> = vec!["solond".into()];
        if let Some(path) = config {
            words.extend(["--config".into(), path.into()]);
        }
        words.extend(flags.iter().cloned());
        match load(words, env, &|path: &Path| std::fs::read_to_string(path)) {
            Ok(Request::Serve(loaded)) => {
                let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
                Ok(Job { given: Given::Job(warnings), config: loaded.config })
            }
            Ok(Request::Answer(_)) => Ok(Job { given: Given::Assumed, config: assumed() }),
            Err(Refusal::Wrong { problems, .. }) => {
                let problems = problems.iter().map(ToString::to_string).collect();
                Ok(Job { given: Given::Wrong(problems), config: assumed() })
            }
            Err(usage @ Refusal::Usage(_)) => Err(usage),
        }
    }
}

/// The defaults.
fn assumed() -> Config {
    let words = ["solond", "--job-dimension", ASSUMED_DIMENSION].map(OsString::from);
    match load(words, [], &|_| Err(io::ErrorKind::NotFound.into())) {
        Ok(Request::Serve(loaded)) => loaded.config,
        _ => unreachable!("the defaults are a configuration, as tests of it show"),
    }
}

/// What the job needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Workers in it.
    pub workers: usize,
    /// Bytes of slots for shards.
    pub shards: usize,
    /// Bytes of slots for updates.
    pub updates: usize,
    /// Bytes of slots in which shards of 16 bits are widened.
    pub wide: usize,
    /// Bytes of what a rule keeps of all pairs of workers.
    pub survey: usize,
    /// Bytes that a worker registers, if it comes by RDMA.
    pub at_a_worker: usize,
    /// Descriptors.
    pub descriptors: u64,
    /// Threads that are kept busy.
    pub reactors: usize,
    /// Do workers pass updates on?
    pub relays: bool,
}

impl Needs {
    fn of(config: &Config, system: &System) -> Result<Needs, String> {
        let job = job_of(config, [0; 32], 0).map_err(|error| error.to_string())?;
        let (limits, workers) = (Limits::of(&job.plan, job.updates), job.plan.parameters.workers());
        let place = UPDATE_OFFSET + 4 * config.job.dimension;
        let at_a_worker = limits.credits * limits.shard_slot_bytes + config.rounds.window * place;
        let lanes = system.map.iter().filter(|stages| stages.contains(&crate::daemon::config::Stage::Decode)).count();
        Ok(Needs {
            workers,
            shards: limits.shard_bytes(workers),
            updates: limits.update_bytes(),
            wide: limits.wide_bytes(workers, lanes),
            survey: limits.survey_bytes(&job),
            at_a_worker,
            descriptors: descriptors_needed(workers),
            reactors: system.map.len(),
            relays: relay_of(config).is_ok(),
        })
    }

    /// Bytes of all slots, and of what is kept beside them and grows with the gradient.
    pub fn slots(&self) -> usize {
        self.shards + self.updates + self.wide + self.survey
    }

    /// Bytes that are counted against RLIMIT_MEMLOCK if workers come by RDMA: slots for updates once per worker.
    pub fn pinned(&self) -> usize {
        self.shards + self.workers * self.updates
    }
}

/// What only trying shows.
#[derive(Debug)]
pub struct Live {
    /// Of the address that is to be listened on.
    pub listening: Listening,
    /// Of the address of the status pages; None if they are off.
    pub admin: Option<Listening>,
    /// Of the verbs library.
    pub verbs: Verbs,
}

impl Live {
    /// Tries it, on this machine.
    pub fn here(config: &Config) -> Live {
        Live {
            listening: Listening::try_out(config.listen.address),
            admin: config.admin.as_ref().map(|admin| Listening::try_out(admin.address)),
            verbs: Verbs::try_out(config),
        }
    }
}

/// All that the checks know.
#[derive(Debug)]
pub struct Facts {
    /// Where the configuration comes from.
    pub given: Given,
    /// The configuration.
    pub config: Config,
    /// What it needs, or why that is not known.
    pub needs: Result<Needs, String>,
    /// Kernel, clock, cores.
    pub system: System,
    /// Memory and limits.
    pub memory: Memory,
    /// Addresses and ports.
    pub network: Network,
    /// RDMA.
    pub rdma: Rdma,
    /// Tokens and state.
    pub files: Files,
}

impl Facts {
    /// Looks at a machine for a job.
    pub(crate) fn look(job: Job, machine: &Machine, live: Live) -> Facts {
        let Job { given, config } = job;
        let system = System::look(machine, &config);
        Facts {
            needs: Needs::of(&config, &system),
            memory: Memory::look(machine),
            network: Network::look(machine, live.listening, live.admin),
            rdma: Rdma::look(machine, live.verbs),
            files: Files::look(machine, &config),
            system,
            given,
            config,
        }
    }

    /// Looks at this machine.
    pub fn here(job: Job) -> Facts {
        let live = Live::here(&job.config);
        Facts::look(job, &Machine::here(), live)
    }

    /// The job in words.
    pub fn job(&self) -> String {
        let from = match &self.given {
            Given::Job(_) => "the job that is configured",
            Given::Assumed => "no job is given: the defaults are assumed (--config FILE names one)",
            Given::Wrong(_) => "the configuration is wrong: the defaults are assumed for the rest",
        };
        let config = &self.config;
        let admission = match config.listen.admission {
            Admission::Tokens(_) => ", with tokens",
            Admission::Loopback | Admission::Open => "",
        };
        format!(
            "{from}; {} workers, a gradient of {} numbers, at {}{admission}",
            config.job.parameters.workers(),
            config.job.dimension,
            config.listen.address
        )
    }

    /// Is it wanted that no worker comes by RDMA?
    pub(super) fn no_rdma_wanted(&self) -> bool {
        self.config.listen.transport == Transport::Tcp
    }
}

/// Bytes in a unit that fits.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..0x400 => format!("{bytes} bytes"),
        0x400..0x10_0000 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests;
