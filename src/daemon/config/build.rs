//! From single values, each allowed by itself, to a [`Config`] in which they fit together.

use super::layers::{Entry, Layers};
use super::problem::{Place, Problem};
use super::value::Value;
use super::*;
use crate::code::PROJECTIONS_MAX;

/// The configuration; `None` if a value is missing, not allowed, or does not fit to the others, all of which is then in
/// `problems`.
pub(super) fn build(layers: &mut Layers, problems: &mut Vec<Problem>) -> Option<Config> {
    rule::follow(layers);
    follow_precision(layers);
    let layers = &*layers;
    // Each part is built even if another one fails, so that all of them report.
    let job = job(layers, problems);
    let rounds = rounds(layers, problems);
    let listen = listen(layers, problems);
    let push = push(layers, job.as_ref(), problems);
    let admin = admin(layers, listen.as_ref(), problems);
    let tolerance = tolerance(layers, problems);
    let width = layers.count("chunks.width");
    if let (Some(job), Some(width)) = (&job, width) {
        let compression = job.parameters.compression();
        let chunks = Layout::new(job.dimension, compression, width).chunks();
        if chunks > CHUNKS_MAX {
            problems.push(Problem {
                place: layers.place_of(&["chunks.width", "job.dimension"]),
                object: "chunks.width".into(),
                found: format!("{width}, which cuts the gradient into {chunks} chunks"),
                expected: format!("at most {CHUNKS_MAX} chunks"),
                action: format!("set chunks.width = {} or more", job.dimension.div_ceil(CHUNKS_MAX * compression)),
            });
            return None;
        }
        let surveys = job.robust.as_ref().is_some_and(|robust| robust.rule.surveys());
        let most = CREDITS_MAX - layers.count("memory.credits").unwrap_or(0);
        if surveys && chunks > most {
            problems.push(Problem {
                place: layers.place_of(&["chunks.width", "job.dimension", "job.rule"]),
                object: "chunks.width".into(),
                found: format!(
                    "{width}, which cuts the gradient into {chunks} chunks, with {}",
                    layers.shown("job.rule")
                ),
                expected: format!("at most {most} chunks, as the rule holds all of a round"),
                action: format!("set chunks.width = {} or more", job.dimension.div_ceil(most)),
            });
            return None;
        }
    }
    Some(Config {
        job: job?,
        chunks: Chunks { width: width? },
        rounds: rounds?,
        verify: Verify {
            tolerance: tolerance?,
            projections: layers.count("verify.projections")?,
            check: layers.choice("verify.check")?,
            mixed: layers.choice("verify.mixed")?,
        },
        listen: listen?,
        rdma: rdma(layers)?,
        push: push?,
        memory: Memory {
            credits: layers.count("memory.credits")?,
            updates: layers.count("memory.updates")?,
            huge_pages: layers.choice("memory.huge_pages")?,
        },
        cores: Cores {
            map: layers.map("cores.map")?,
            pin: layers.switch("cores.pin")?,
            idle: layers.choice("cores.idle")?,
        },
        state: State { directory: layers.optional_path("state.directory")? },
        admin: admin?,
        log: Log { format: layers.choice("log.format")?, level: layers.choice("log.level")? },
    })
}

/// Where nobody says how shards are verified, their precision does.
fn follow_precision(layers: &mut Layers) {
    let Some(compression) = layers.count("job.compression") else { return };
    let Some(precision) = layers.choice::<Precision>("job.precision") else { return };
    if precision.is_coarse(compression) {
        layers.set_default("verify.tolerance", Value::Real(precision.tolerance(compression) as f32));
        layers.set_default("verify.projections", Value::Integer(PROJECTIONS_MAX as u64));
        layers.set_default("verify.check", Value::Text("full".into()));
    }
}

/// A tolerance below the rounding of shards would hold honest workers to lie.
fn tolerance(layers: &Layers, problems: &mut Vec<Problem>) -> Option<f32> {
    let tolerance = layers.real("verify.tolerance")?;
    let (compression, precision) = (layers.count("job.compression")?, layers.choice::<Precision>("job.precision")?);
    let least = precision.least_tolerance(compression);
    if f64::from(tolerance) >= least {
        return Some(tolerance);
    }
    problems.push(Problem {
        place: layers.place_of(&["verify.tolerance", "job.precision", "job.compression"]),
        object: "verify.tolerance".into(),
        found: format!("{} with {}", layers.shown("verify.tolerance"), layers.shown("job.precision")),
        expected: format!("at least {least:e}, twice what rounding to {precision} changes, with compression above 1"),
        action: "remove verify.tolerance, or set job.compression = 1 or job.precision = \"f32\"".into(),
    });
    None
}

fn job(layers: &Layers, problems: &mut Vec<Problem>) -> Option<Job> {
    let rule: Rule = layers.choice("job.rule")?;
    let groups = layers.count("job.groups")?;
    let adversaries = layers.count("job.adversaries")?;
    let stragglers = layers.count("job.stragglers")?;
    let compression = layers.count("job.compression")?;
    let robust = rule::check(layers, rule, problems)?;
    let (adversaries, stragglers) = if robust.is_some() { (0, 0) } else { (adversaries, stragglers) };
    let Ok(parameters) = Parameters::new(groups, adversaries, stragglers, compression) else {
        let names = ["job.compression", "job.adversaries", "job.stragglers"];
        let shown: Vec<String> = names.iter().map(|name| layers.shown(name)).collect();
        problems.push(Problem {
            place: layers.place_of(&names),
            object: "job".into(),
            found: format!(
                "a group of {} workers (compression + 2 x adversaries + stragglers: {})",
                compression + 2 * adversaries + stragglers,
                shown.join(", ")
            ),
            expected: format!("at most {ROWS_MAX} workers in a group"),
            action: "lower one of the three and, for more workers, raise job.groups".into(),
        });
        return None;
    };
    if parameters.workers() > WORKERS_MAX {
        problems.push(Problem {
            place: layers.place_of(&["job.groups"]),
            object: "job.groups".into(),
            found: format!("{groups}, which makes {} workers", parameters.workers()),
            expected: format!("at most {WORKERS_MAX} workers in a job"),
            action: format!("set job.groups = {} or less", WORKERS_MAX / parameters.redundancy()),
        });
        return None;
    }
    check_workers(layers, &parameters, problems)?;
    Some(Job {
        name: layers.text("job.name")?,
        rule,
        parameters,
        robust,
        dimension: layers.count("job.dimension")?,
        scale: layers.real("job.scale")?,
        code: layers.choice("job.code")?,
        precision: layers.choice("job.precision")?,
    })
}

/// If the number of workers is given, it must be the one that the code has; otherwise the nearest that work are named.
fn check_workers(layers: &Layers, parameters: &Parameters, problems: &mut Vec<Problem>) -> Option<()> {
    let Some(workers) = layers.optional_count("job.workers")? else { return Some(()) };
    if workers == parameters.workers() {
        return Some(());
    }
    let (groups, redundancy) = (parameters.groups(), parameters.redundancy());
    let sum = format!(
        "(compression {} + 2 x adversaries {} + stragglers {})",
        parameters.compression(),
        parameters.adversaries(),
        parameters.stragglers()
    );
    let with_groups = |groups: usize| format!("{} workers (job.groups = {groups})", groups * redundancy);
    let below = workers / redundancy;
    let nearest = match (workers % redundancy, below) {
        (0, _) => format!("set job.groups = {below}"),
        (_, 0) => format!("the nearest count that works is {}", with_groups(1)),
        _ => format!("the nearest counts that work are {} and {}", with_groups(below), with_groups(below + 1)),
    };
    // The same groups also fill up if each of them tolerates more absentees.
    let spare = (workers % groups == 0).then(|| (workers / groups).checked_sub(redundancy - parameters.stragglers()));
    let stragglers = match spare.flatten() {
        Some(stragglers) if redundancy - parameters.stragglers() + stragglers <= ROWS_MAX => {
            format!(", or keep {workers} with job.stragglers = {stragglers}")
        }
        _ => String::new(),
    };
    problems.push(Problem {
        place: layers.place_of(&["job.workers"]),
        object: "job.workers".into(),
        found: workers.to_string(),
        expected: format!("{} = groups {groups} x {redundancy} {sum}", parameters.workers()),
        action: nearest + &stragglers,
    });
    None
}

fn rounds(layers: &Layers, problems: &mut Vec<Problem>) -> Option<Rounds> {
    let deadline = layers.duration("rounds.deadline_ms")?;
    let linger = layers.duration("rounds.linger_ms")?;
    if linger > deadline {
        problems.push(Problem {
            place: layers.place_of(&["rounds.deadline_ms", "rounds.linger_ms"]),
            object: "rounds.linger_ms".into(),
            found: layers.shown("rounds.linger_ms"),
            expected: format!("at most {}", layers.shown("rounds.deadline_ms")),
            action: format!("set rounds.linger_ms = {} to wait for every worker", deadline.as_millis()),
        });
        return None;
    }
    let begin = layers.choice("rounds.begin_with")?;
    Some(Rounds { window: layers.count("rounds.window")?, deadline, linger, begin })
}

fn listen(layers: &Layers, problems: &mut Vec<Problem>) -> Option<Listen> {
    let Value::Address(address) = *layers.value("listen.address")? else { return None };
    let token_file = layers.optional_path("listen.token_file")?;
    let open = layers.switch("listen.open")?;
    let admission = match (token_file, open) {
        (Some(file), false) => Admission::Tokens(file),
        (None, _) if address.ip().to_canonical().is_loopback() => Admission::Loopback,
        (None, true) => Admission::Open,
        (None, false) => {
            problems.push(Problem {
                place: layers.place_of(&["listen.address"]),
                object: "listen.address".into(),
                found: format!("{address}, which others can reach, without tokens"),
                expected: "a loopback address, or a token file".into(),
                action: "set listen.token_file, or listen.open = true if everybody on that network is trusted".into(),
            });
            return None;
        }
        (Some(_), true) => {
            problems.push(Problem {
                place: layers.place_of(&["listen.open", "listen.token_file"]),
                object: "listen.open".into(),
                found: format!("{} with {}", layers.shown("listen.open"), layers.shown("listen.token_file")),
                expected: "one of them: tokens are asked for, or they are not".into(),
                action: "remove listen.open to ask for tokens".into(),
            });
            return None;
        }
    };
    Some(Listen {
        address,
        transport: layers.choice("listen.transport")?,
        admission,
        handshake: layers.duration("listen.handshake_ms")?,
        connections_per_second: u32::try_from(layers.count("listen.connections_per_second")?).ok()?,
        write_deadline: layers.duration("listen.write_deadline_ms")?,
    })
}

fn admin(layers: &Layers, listen: Option<&Listen>, problems: &mut Vec<Problem>) -> Option<Option<Admin>> {
    let Value::Address(address) = *layers.value("admin.address")? else { return None };
    if !layers.switch("admin.serve")? {
        return Some(None);
    }
    let before = problems.len();
    let mut problem = |place, found, expected: &str, action: &str| {
        let [expected, action] = [expected, action].map(String::from);
        problems.push(Problem { place, object: "admin.address".into(), found, expected, action });
    };
    if !layers.switch("admin.open")? && !address.ip().to_canonical().is_loopback() {
        problem(
            layers.place_of(&["admin.address"]),
            format!("{address}, which others can reach"),
            "a loopback address",
            "set admin.open = true if whoever reaches it may read who lies and who is absent",
        );
    }
    if address.port() != 0 && listen.is_some_and(|listen| listen.address == address) {
        problem(
            layers.place_of(&["admin.address", "listen.address"]),
            format!("{address}, where workers connect"),
            "an address and port other than listen.address",
            "use another port, or port 0 for any that is free",
        );
    }
    (problems.len() == before).then_some(Some(Admin { address }))
}

fn push(layers: &Layers, job: Option<&Job>, problems: &mut Vec<Problem>) -> Option<Push> {
    let way = layers.choice("push.way")?;
    let workers = job.map_or(0, |job| job.parameters.workers());
    if way == PushWay::Relay && workers > RELAY_WORKERS_MAX {
        problems.push(Problem {
            place: layers.place_of(&["push.way"]),
            object: "push.way".into(),
            found: format!("{} with {workers} workers", layers.shown("push.way")),
            expected: format!("at most {RELAY_WORKERS_MAX} workers, as each has a link with every other"),
            action: "set push.way = \"direct\", or fewer groups".into(),
        });
        return None;
    }
    Some(Push { precision: layers.choice("push.precision")?, way, repair: layers.duration("push.repair_ms")? })
}

fn rdma(layers: &Layers) -> Option<rdma::Options> {
    let byte = |name| u8::try_from(layers.count(name)?).ok();
    let devices = match layers.value("rdma.devices")? {
        Value::Devices(list) => list.clone(),
        _ => rdma::DeviceList::default(),
    };
    Some(rdma::Options {
        devices,
        gid_index: layers.optional_count("rdma.gid_index")?.map(u8::try_from).transpose().ok()?,
        mtu: layers.optional_count("rdma.mtu")?.map(u32::try_from).transpose().ok()?,
        traffic_class: byte("rdma.traffic_class")?,
        service_level: byte("rdma.service_level")?,
        ack_timeout: byte("rdma.ack_timeout")?,
        retries: byte("rdma.retries")?,
    })
}

/// Values by name and type. All are `None` for a value that is missing or was not allowed, which is then already among
/// the problems; and for a name or type that the table does not have, which a test excludes.
impl Layers {
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.entry(name)?.value.as_ref()
    }

    pub(super) fn count(&self, name: &str) -> Option<usize> {
        if let Value::Integer(number) = self.value(name)? { usize::try_from(*number).ok() } else { None }
    }

    pub(super) fn optional_count(&self, name: &str) -> Option<Option<usize>> {
        match self.value(name)? {
            Value::Unset => Some(None),
            _ => self.count(name).map(Some),
        }
    }

    pub(super) fn duration(&self, name: &str) -> Option<Duration> {
        if let Value::Integer(number) = self.value(name)? { Some(Duration::from_millis(*number)) } else { None }
    }

    pub(super) fn real(&self, name: &str) -> Option<f32> {
        if let Value::Real(number) = self.value(name)? { Some(*number) } else { None }
    }

    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        if let Value::Switch(on) = self.value(name)? { Some(*on) } else { None }
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        if let Value::Text(text) = self.value(name)? { Some(text.clone()) } else { None }
    }

    pub(super) fn choice<T: ValueEnum>(&self, name: &str) -> Option<T> {
        T::from_str(&self.text(name)?, false).ok()
    }

    pub(super) fn map(&self, name: &str) -> Option<CoreMap> {
        if let Value::Cores(map) = self.value(name)? { Some(map.clone()) } else { None }
    }

    fn optional_path(&self, name: &str) -> Option<Option<PathBuf>> {
        match self.value(name)? {
            Value::Path(path) => Some(Some(path.clone())),
            Value::Unset => Some(None),
            _ => None,
        }
    }

    /// `name = value (where it comes from)`, for messages.
    pub(super) fn shown(&self, name: &str) -> String {
        let entry = self.entry(name);
        let value = entry.and_then(|entry| super::value::to_toml(entry.value.as_ref()?));
        let place = entry.map_or(Place::Default, |entry| entry.place.clone());
        format!("{name} = {} ({place})", value.unwrap_or_default())
    }

    /// The place of whichever of the settings was set last.
    pub(super) fn place_of(&self, names: &[&str]) -> Place {
        let places = names.iter().filter_map(|name| self.entry(name)).map(|entry: &Entry| entry.place.clone());
        places.max().unwrap_or(Place::Default)
    }
}
