//! From a configuration to a running daemon.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::config::{Admission, Check, Config, PushWay, Stage as StageName};
use super::cores::{claim_near, idle_of, placement, reactors as reactor_map};
use super::door::{Door, Rulebook, Rules, Ways};
use super::exit::Exit;
use super::journal::{self, JournalError};
use super::tokens::{self, TokenError};
use core_affinity::CoreId;

use crate::client::generator_digest;
use crate::code::{Family, Form, Generator, GeneratorError, Verify};
use crate::memory::ClaimError;
use crate::pipeline::{self, Bells, Handle, Job, Limits, Pipeline, Pulse, Reactor, ReactorError, Slabs, Stage};
use crate::transport::Transport;
use crate::transport::rdma::ffi::Api;
use crate::transport::rdma::{Completions, Fabric, LinkFailure, Needs, NoRdma};
use crate::wire::{Credential, Identity, Plan, RELAY_WORKERS_MAX};

/// Why the daemon cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The code cannot be made.
    #[error("the code cannot be made: {0}")]
    Generator(#[from] GeneratorError),
    /// The token file is wrong.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
    /// The address of `[admin]` cannot be listened on.
    #[error(
        "cannot listen on {address} (admin.address) for metrics, health and status: {error}; stop what listens there, or set \
         admin.address to another port (0: any that is free), or admin.serve = false"
    )]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
    /// There is not so much memory.
    #[error("no slots for shards and updates: {0}; or lower memory.credits, memory.updates or chunks.width")]
    Memory(#[from] ClaimError),
    /// RDMA was asked for by name, and is not to be had.
    #[error("listen.transport is \"rdma\", and there is no RDMA: {0}")]
    NoRdma(NoRdma),
    /// The operating system has no randomness, event queue or thread for us.
    #[error("cannot start: {0}")]
    System(io::Error),
    /// A reactor could not be made, or ended.
    #[error(transparent)]
    Reactor(#[from] ReactorError),
    /// A thread ended that must not.
    #[error("the thread {0} ended by a bug")]
    Died(String),
}

impl ServeError {
    /// How the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            ServeError::Generator(_) => Exit::Configuration,
            ServeError::Tokens(TokenError::Content { .. }) | ServeError::Journal(JournalError::Damaged { .. }) => {
                Exit::Data
            }
            ServeError::Tokens(TokenError::Exposed { .. }) => Exit::Permission,
            ServeError::Tokens(TokenError::Unreadable { error, .. })
            | ServeError::Journal(JournalError::Open { error, .. }) => match error.kind() {
                io::ErrorKind::PermissionDenied => Exit::Permission,
                io::ErrorKind::NotFound => Exit::Configuration,
                _ => Exit::Io,
            },
            ServeError::Journal(JournalError::InUse { .. }) => Exit::Unavailable,
            ServeError::Memory(_) => Exit::Resources,
            ServeError::Listen { error, .. } | ServeError::Admin { error, .. } => match error.kind() {
                io::ErrorKind::PermissionDenied => Exit::Permission,
                _ => Exit::Unavailable,
            },
            ServeError::System(_) | ServeError::Reactor(_) => Exit::Resources,
            ServeError::NoRdma(why) if why.failure == LinkFailure::Resources => Exit::Resources,
            ServeError::NoRdma(_) => Exit::Temporary,
            ServeError::Died(_) => Exit::Software,
        }
    }
}

/// The job that a configuration describes. `secret` keys the projections, `epoch` tells this start of the daemon from others.
///
/// # Errors
/// If the code cannot be made.
pub fn job_of(config: &Config, secret: [u8; 32], epoch: u64) -> Result<Job, GeneratorError> {
    let parameters = config.job.parameters;
    let (family, form) = match config.job.code {
        super::config::Generator::Systematic => (Family::Trigonometric, Form::Systematic),
        super::config::Generator::Dense => (Family::Trigonometric, Form::Dense),
        super::config::Generator::Polynomial => (Family::Polynomial, Form::Dense),
    };
    let generator = Generator::new(family, form, parameters.redundancy(), parameters.compression())?;
    let plan = Plan {
        parameters,
        rule: config.job.rule.on_the_wire(),
        family,
        form,
        generator_digest: generator_digest(&generator),
        layout: config.layout(),
        precision: config.job.precision,
        update_precision: config.push.precision,
        gradients: config.job.gradients(),
        window: config.rounds.window as u32,
        credits: config.credits() as u32,
        deadline_ms: config.rounds.deadline.as_millis() as u32,
        tolerance: f64::from(config.verify.tolerance),
        scale: config.job.scale,
    };
    Ok(Job {
        plan,
        generator: Arc::new(generator),
        number: Identity::new(&config.job.name, 0).job,
        epoch,
        projections: config.verify.projections,
        verify: match config.verify.check {
            Check::Random => Verify::Random,
            Check::Full => Verify::Full,
        },
        linger: config.linger(),
        write_deadline: config.listen.write_deadline,
        updates: config.memory.updates,
        secret,
        resume: None,
        relay: relay_of(config).ok(),
        begin: config.rounds.begin,
        robust: config.job.robust.clone(),
    })
}

/// With fewer workers `auto` does not relay: a hop more, and links to keep, for little.
const AUTO_WORKERS: usize = 6;
/// With shorter chunks `auto` does not relay: what is said about a chunk is then no small part of it.
const AUTO_CHUNK_BYTES: usize = 4096;

/// How updates are relayed, or why they are not.
pub fn relay_of(config: &Config) -> Result<pipeline::Relay, String> {
    let repair = config.push.repair;
    let parameters = &config.job.parameters;
    let (workers, compression) = (parameters.workers(), parameters.compression());
    // Of eight numbers: there are no fewer bits than that.
    let up = config.job.rule.on_the_wire().shard_bytes(config.job.precision, 8);
    let down = config.push.precision.shard_bytes(8);
    let chunk = config.push.precision.shard_bytes(config.layout().chunk(0).len);
    let why = match config.push.way {
        PushWay::Direct => "push.way is direct".into(),
        PushWay::Relay => return Ok(pipeline::Relay { repair, auto: false }),
        PushWay::Auto if workers < AUTO_WORKERS => format!("{workers} workers are fewer than {AUTO_WORKERS}"),
        PushWay::Auto if workers > RELAY_WORKERS_MAX => format!("{workers} workers are more than {RELAY_WORKERS_MAX}"),
        PushWay::Auto if compression * down < 2 * up => {
            format!(
                "an update has only {} times the bytes of a worker's shards",
                (compression * down) as f64 / up as f64
            )
        }
        PushWay::Auto if chunk < AUTO_CHUNK_BYTES => format!("chunks of {chunk} bytes are short"),
        PushWay::Auto if config.listen.transport == Transport::Rdma => "workers come by RDMA".into(),
        PushWay::Auto if config.listen.address.ip().is_loopback() => "workers are on this machine".into(),
        PushWay::Auto => return Ok(pipeline::Relay { repair, auto: true }),
    };
    Err(why)
}

/// Where a reactor runs, and what it does.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The core that it is to be pinned to.
    pub core: Option<usize>,
    /// Its stages.
    pub stages: Vec<StageName>,
}

/// How updates are sent, in words.
pub fn push_words(config: &Config) -> String {
    relay_of(config).map_or_else(|why| format!("direct ({why})"), |_| "relay".into())
}

/// A daemon that listens and serves; ends when it is dropped or [`Daemon::stop`] is called.
pub struct Daemon {
    address: SocketAddr,
    job: Arc<Job>,
    handle: Handle,
    threads: Vec<JoinHandle<Result<(), ServeError>>>,
    over: Arc<AtomicBool>,
    pulses: Vec<Arc<Pulse>>,
    seats: Vec<Seat>,
    completions: Option<Arc<Completions>>,
    /// The port that workers can come to by RDMA, or why there is none.
    rdma: String,
    rulebook: Arc<Rulebook>,
}

impl Daemon {
    /// Claims all memory, listens, and starts the reactors.
    ///
    /// # Errors
    /// If anything that it needs is not to be had.
    pub fn start(config: &Config) -> Result<Daemon, ServeError> {
        let mut secret = [0; 32];
        let mut epoch = [0; 8];
        let random = |bytes: &mut [u8]| {
            getrandom::fill(bytes).map_err(|error| ServeError::System(io::Error::other(error.to_string())))
        };
        random(&mut secret)?;
        random(&mut epoch)?;
        let mut job = job_of(config, secret, u64::from_le_bytes(epoch))?;
        let workers = job.plan.parameters.workers();
        let credentials = match &config.listen.admission {
            Admission::Tokens(path) => tokens::read(path, workers)?,
            Admission::Loopback | Admission::Open => vec![Credential::from_token(""); workers],
        };
        let mut journal_file = None;
        if let Some(directory) = &config.state.directory {
            let (file, resume) = journal::open(directory, &config.job.name)?;
            job.resume = resume;
            journal_file = Some(file);
        }
        let listener = TcpListener::bind(config.listen.address)
            .map_err(|error| ServeError::Listen { address: config.listen.address, error })?;
        let address = listener.local_addr().map_err(ServeError::System)?;
        let job = Arc::new(job);

        let placement = placement(config);
        let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let map = reactor_map(config, &placement, available);
        let idle = idle_of(config.cores.idle, map.len(), available);
        let mut reactors = map.iter().map(|_| Reactor::new(idle)).collect::<Result<Vec<_>, _>>()?;
        let pulses = reactors.iter().map(Reactor::pulse).collect();
        let bell_of = |stage: StageName| {
            let on = map.iter().enumerate().flat_map(|(at, stages)| stages.iter().map(move |s| (at, *s)));
            on.filter(|(_, s)| *s == stage).map(|(at, _)| reactors[at].bell()).collect::<Vec<_>>()
        };
        let bells = Bells {
            receiver: bell_of(StageName::Receive).remove(0),
            assembler: bell_of(StageName::Assemble).remove(0),
            decoders: bell_of(StageName::Decode),
            pusher: bell_of(StageName::Push).remove(0),
        };
        descriptors(workers);
        let first = placement.cores.first().copied().filter(|_| config.cores.pin);
        let slabs = claim_near(first, || Slabs::claim(&job, &bells, config.memory.huge_pages))?;
        let pages = [slabs.shards.pages().to_string(), slabs.updates.pages().to_string()];
        let wide = slabs.wide.as_ref();
        tracing::info!(
            shards_mib = slabs.shards.region().1 >> 20,
            shards = %pages[0],
            updates_mib = slabs.updates.region().1 >> 20,
            updates = %pages[1],
            wide_mib = wide.map(|slab| slab.region().1 >> 20),
            wide = wide.map(|slab| slab.pages().to_string()),
            survey_mib = job.surveys().then(|| Limits::of(&job.plan, job.updates).survey_bytes(&job) >> 20),
            "memory: all pages touched"
        );
        let mut pipeline = Pipeline::with_slabs(&job, &bells, slabs);
        if let Some(file) = journal_file {
            pipeline.pusher.keep_journal(file);
        }
        let (ways, rdma) = ways(config, &job, &pipeline, idle)?;
        let Pipeline { receiver, assembler, decoders, pusher, handle } = pipeline;
        let (mut receiver, mut assembler, mut pusher) = (Some(receiver), Some(assembler), Some(pusher));
        let mut decoders = decoders.into_iter();
        let over = Arc::new(AtomicBool::new(false));
        let completions = ways.rdma.as_ref().ok().map(Fabric::completions);
        let (mut threads, mut seats) = (Vec::new(), Vec::new());
        for (at, (names, mut reactor)) in map.iter().zip(reactors.drain(..)).enumerate() {
            let boxed = |name: &StageName| -> Option<Box<dyn Stage>> {
                Some(match name {
                    StageName::Receive => Box::new(receiver.take()?),
                    StageName::Assemble => Box::new(assembler.take()?),
                    StageName::Decode => Box::new(decoders.next()?),
                    StageName::Push => Box::new(pusher.take()?),
                })
            };
            let mut stages: Vec<Box<dyn Stage>> = names.iter().filter_map(boxed).collect();
            let core = placement.cores.get(at).copied().filter(|_| config.cores.pin);
            seats.push(Seat { core, stages: names.clone() });
            let (over, board) = (over.clone(), handle.board.clone());
            reactor.count_on(board.clone());
            let run = move || {
                if let Some(core) = core
                    && !core_affinity::set_for_current(CoreId { id: core })
                {
                    tracing::warn!(core, "cannot pin a reactor to its core: it runs unpinned");
                }
                let ended = || over.load(Ordering::Relaxed) || board.stopped();
                Ok(reactor.run(&mut stages, ended)?)
            };
            threads.push(spawn(format!("solon-reactor-{at}"), run)?);
        }
        let rulebook = Arc::new(Rulebook::new(Rules {
            credentials,
            handshake: config.listen.handshake,
            connections_per_second: config.listen.connections_per_second,
        }));
        let door = Door::new(listener, job.clone(), rulebook.clone(), handle.clone(), ways, config)
            .map_err(ServeError::System)?;
        let (ended, board) = (over.clone(), handle.board.clone());
        let run = move || door.run(|| ended.load(Ordering::Relaxed) || board.stopped()).map_err(ServeError::System);
        threads.push(spawn("solon-door".into(), run)?);
        Ok(Daemon { address, job, handle, threads, over, pulses, seats, completions, rdma, rulebook })
    }

    /// Where it listens; the port is the real one if 0 was configured.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it serves.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Its counters and events.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The pulse of each reactor, in the order of the cores.
    pub fn pulses(&self) -> &[Arc<Pulse>] {
        &self.pulses
    }

    /// Where each reactor runs, in the order of the cores.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// How RDMA requests ended, where there is RDMA.
    pub fn completions(&self) -> Option<Arc<Completions>> {
        self.completions.clone()
    }

    /// The port that workers can come to by RDMA, or why there is none.
    pub fn rdma(&self) -> &str {
        &self.rdma
    }

    /// Whom its door lets in.
    pub(super) fn rules(&self) -> Rules {
        Rules::clone(&self.rulebook.rules())
    }

    /// Whom its door lets in from now on; who is in stays.
    pub(super) fn set_rules(&self, rules: Rules) {
        self.rulebook.set(rules);
    }

    /// A thread that ended although nobody asked for it.
    pub(super) fn died(&mut self) -> Option<ServeError> {
        let at = self.threads.iter().position(JoinHandle::is_finished)?;
        let thread = self.threads.swap_remove(at);
        let name = thread.thread().name().unwrap_or("unnamed").to_owned();
        match thread.join() {
            Ok(Err(error)) => Some(error),
            _ => Some(ServeError::Died(name)),
        }
    }

    /// Ends all threads at once, and says what they said last.
    ///
    /// # Errors
    /// If one of them ended by an error or a bug.
    pub fn stop(mut self) -> Result<(), ServeError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), ServeError> {
        self.over.store(true, Ordering::Relaxed);
        self.handle.wake();
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            let name = thread.thread().name().unwrap_or("unnamed").to_owned();
            result = result.and(thread.join().unwrap_or(Err(ServeError::Died(name))));
        }
        result
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Who wants to know calls `stop`.
        let _ = self.end();
    }
}

/// How workers may come: opens the RDMA port and registers the slots, where that is wanted and there is one. In words, too.
fn ways(config: &Config, job: &Job, pipeline: &Pipeline, idle: pipeline::Idle) -> Result<(Ways, String), ServeError> {
    let transport = config.listen.transport;
    if transport == Transport::Tcp {
        return Ok((Ways { transport, rdma: Err(LinkFailure::NotWanted) }, "not wanted (listen.transport)".into()));
    }
    let limits = Limits::of(&job.plan, job.updates);
    let needs = Needs {
        workers: job.plan.parameters.workers(),
        credits: limits.credits,
        outbound: limits.outbound_of(job),
        layout: job.plan.layout,
        sleeps: idle.sleeps(),
        fall_back: transport == Transport::Auto,
    };
    let near = Some(config.listen.address.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
    let opened = Api::load().map_err(|error| NoRdma { failure: LinkFailure::NoDevice, text: error.to_string() });
    let opened = opened.and_then(|api| {
        let (shards, updates, bells) = (pipeline.receiver.slab(), pipeline.pusher.slab(), pipeline.handle.bells());
        Fabric::open(api, &config.rdma, near, needs, shards, updates, bells)
    });
    match opened {
        Ok(fabric) => {
            pipeline.handle.board.count(pipeline::Counter::RdmaRegions, fabric.regions() as u64);
            // The slots for updates are known to the domain of every worker, and the kernel counts each time.
            let pinned = pipeline.receiver.slab().region().1 + needs.workers * pipeline.pusher.slab().region().1;
            tracing::info!(port = %fabric.why(), regions = fabric.regions(), pinned_mib = pinned >> 20, "RDMA");
            let port = fabric.port();
            Ok((Ways { transport, rdma: Ok(fabric) }, port))
        }
        Err(error) if transport == Transport::Rdma => Err(ServeError::NoRdma(error)),
        Err(error) => {
            tracing::info!(why = %error, "no RDMA: workers come by TCP");
            Ok((Ways { transport, rdma: Err(error.failure) }, format!("none ({error})")))
        }
    }
}

/// Descriptors that a job of so many workers can need.
pub(crate) fn descriptors_needed(workers: usize) -> u64 {
    // Four per session (two of a socket, two of completion queues), a session that is being replaced, the strangers at the door,
    // and our own.
    (8 * workers + Door::visitors(workers) + 64) as u64
}

/// Raises the limit on open descriptors to what this job can need, or says that it is too low.
fn descriptors(workers: usize) {
    let needed = descriptors_needed(workers);
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    limit.current = Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed)));
    let raised = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).is_ok();
    if !raised || limit.current.is_some_and(|current| current < needed) {
        tracing::warn!(
            needed,
            limit = limit.current,
            "the limit on open files (RLIMIT_NOFILE) is too low for this job"
        );
    }
}

fn spawn(
    name: String,
    run: impl FnOnce() -> Result<(), ServeError> + Send + 'static,
) -> Result<JoinHandle<Result<(), ServeError>>, ServeError> {
    std::thread::Builder::new().name(name).spawn(run).map_err(ServeError::System)
}
