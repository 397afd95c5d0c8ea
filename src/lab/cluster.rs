//! The processes of one run, and what daemon and reporter say of each step put together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::link::Link;
use super::network::End;
use super::record::{Manifest, Push, Step};
use super::run::LabError;
use super::worker::{Done, JOB, Message, Order, Taken};
use crate::bench::usage::Usage;
use crate::demo::process::{Daemon, Heard, ProcessError, Processes};

/// The longest that a run may be silent: joining, or a step.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often somebody looks whether to stop.
const LOOK: Duration = Duration::from_millis(200);

/// A round ends after this long.
const DEADLINE_MS: u64 = 60_000;

/// How long the daemon's log is waited for when all else is over.
const LOG: Duration = Duration::from_secs(5);

/// One run.
pub struct Job<'a> {
    /// What is run.
    pub manifest: &'a Manifest,
    /// The daemon's link.
    pub link: &'a Link<'a>,
    /// This program.
    pub program: &'a Path,
    /// The samples, as workers read them.
    pub data: &'a Path,
    /// Where the reporter writes its weights.
    pub weights: &'a Path,
    /// The file of gradients that workers share.
    pub shared: &'a Path,
    /// Set when the run is to stop.
    pub stop: &'a AtomicBool,
}

/// What happened in a run.
pub struct Happened {
    taken: Vec<Taken>,
    rounds: BTreeMap<u64, Round>,
    /// Steps in which some worker's computing took longer than the time that is emulated.
    pub overruns: u64,
    /// Bytes that all workers sent and received.
    pub bytes: [u64; 2],
    /// Processor seconds of the daemon.
    pub daemon_cpu: f64,
}

/// What the daemon says of a round. Times of the clock are seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Round {
    last_shard: f64,
    closed: f64,
    locate_ms: f64,
    decode_ms: f64,
}

impl Job<'_> {
    /// Runs it; `stepped` gets every step of the reporter.
    ///
    /// # Errors
    /// If a process fails, or it was told to stop.
    pub fn run(&self, stepped: &mut dyn FnMut(u64)) -> Result<Happened, LabError> {
        let settings = &self.manifest.settings;
        let (program, arguments) = self.link.at(End::Daemon, self.program, self.daemon());
        let (tell, log) = mpsc::channel();
        // Nobody listens any more when the run is over.
        let daemon = Daemon::start(&program, &arguments, move |line| drop(tell.send(line)))?;
        let to = self.link.to(daemon.address());
        let (address, _forwarder) = to.map_err(|error| LabError::Io { what: "the forwarder".into(), error })?;
        let mut processes = Processes::<Message>::with(daemon);
        for worker in 0..settings.workers {
            let order = Order {
                address: address.clone(),
                worker,
                seed: self.manifest.seed,
                settings: settings.clone(),
                data: self.data.into(),
                shared: self.shared.into(),
                weights: (worker == self.manifest.reporter).then(|| self.weights.into()),
            };
            let order = serde_json::to_string(&order).expect("an order has named fields and finite numbers");
            let (program, arguments) = self.link.at(End::Workers, self.program, vec!["lab-worker".into(), order]);
            processes.add_worker(&program, &arguments)?;
        }
        let mut happened =
            Happened { taken: Vec::new(), rounds: BTreeMap::new(), overruns: 0, bytes: [0; 2], daemon_cpu: 0.0 };
        let mut joined = 0;
        while joined < settings.workers {
            if let (_, Message::Joined) = self.hear(&mut processes, |_| false)? {
                joined += 1;
            }
        }
        // All have it mapped: so it is gone with the last of them, however they end.
        std::fs::remove_file(self.shared)
            .map_err(|error| LabError::Io { what: format!("cannot remove {}", self.shared.display()), error })?;
        processes.begin();
        let mut done: Vec<Option<Done>> = vec![None; settings.workers];
        while done.iter().any(Option::is_none) {
            match self.hear(&mut processes, |worker| done[worker].is_some())? {
                (_, Message::Step(taken)) => {
                    happened.taken.push(taken);
                    stepped(happened.taken.len() as u64);
                }
                (worker, Message::Done(said)) => done[worker] = Some(said),
                _ => {}
            }
        }
        happened.daemon_cpu = Usage::of(processes.daemon().id()).cpu;
        let done: Vec<Done> = done.into_iter().flatten().collect();
        let reporter = self.manifest.reporter;
        if let Some(worker) = done.iter().position(|said| said.digest != done[reporter].digest) {
            return Err(LabError::Diverged { worker, reporter });
        }
        happened.overruns = overruns(&done);
        happened.bytes = [0, 1].map(|way| done.iter().map(|said| said.bytes[way]).sum());
        match happened.listen(&log) {
            0 => Ok(happened),
            rounds => Err(LabError::Unplaced { rounds }),
        }
    }

    fn daemon(&self) -> Vec<String> {
        let settings = &self.manifest.settings;
        let mut flags: Vec<String> = vec!["demo-daemon".into()];
        let mut set = |name: &str, value: String| flags.extend([format!("--{name}"), value]);
        set("job-name", JOB.into());
        set("job-dimension", settings.dimension.to_string());
        // Updates are means over samples; those of signum are signs, which nothing scales.
        if settings.rule != "signum" {
            set("job-scale", (1.0 / settings.batch as f32).to_string());
        }
        set("job-rule", settings.rule.clone());
        set("job-groups", settings.groups.to_string());
        let adversaries = if settings.rule == "mean" { 0 } else { settings.adversaries };
        set("job-adversaries", adversaries.to_string());
        set("job-stragglers", settings.stragglers.to_string());
        set("job-compression", settings.compression.to_string());
        // Every word waits for every connected worker: the same rows make every update, each time.
        set("rounds-deadline-ms", DEADLINE_MS.to_string());
        set("rounds-linger-ms", DEADLINE_MS.to_string());
        let address = std::net::SocketAddr::new(self.link.daemon(), 0);
        set("listen-address", address.to_string());
        if !address.ip().is_loopback() {
            // Nobody is in these namespaces but the lab.
            set("listen-open", "true".into());
        }
        set("listen-transport", "tcp".into());
        let way = match settings.push {
            Push::Direct => "direct",
            Push::Relay => "relay",
        };
        set("push-way", way.into());
        set("admin-serve", "false".into());
        set("log-format", "json".into());
        // A line per round, with what it took.
        set("log-level", "debug".into());
        set("cores-pin", "false".into());
        set("cores-idle", "park".into());
        flags
    }

    /// The next message. Workers that are over may end.
    fn hear(
        &self,
        processes: &mut Processes<Message>,
        is_over: impl Fn(usize) -> bool,
    ) -> Result<(usize, Message), LabError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let heard = processes.hear(LOOK);
            if self.stop.load(Ordering::Relaxed) {
                return Err(LabError::Stopped);
            }
            match heard {
                Ok(Heard::Said(worker, Message::Failed { why })) => return Err(LabError::Worker { worker, why }),
                Ok(Heard::Said(worker, message)) => return Ok((worker, message)),
                Ok(Heard::Unreadable(worker, line)) => return Err(ProcessError::Unreadable { worker, line }.into()),
                Ok(Heard::Ended(worker)) if is_over(worker) => {}
                Ok(Heard::Ended(worker)) => {
                    let status = processes.status(worker);
                    return Err(ProcessError::WorkerEnded { worker, status, said: String::new() }.into());
                }
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => {}
            }
        }
    }
}

/// In how many steps some worker's computing took too long.
fn overruns(done: &[Done]) -> u64 {
    done.iter().flat_map(|said| &said.overran).collect::<BTreeSet<_>>().len() as u64
}

impl Happened {
    /// Takes from the daemon's log what it says of the rounds; of how many it says nothing.
    fn listen(&mut self, log: &Receiver<String>) -> usize {
        let until = Instant::now() + LOG;
        let wanted = self.taken.iter().filter(|taken| taken.undecodable.is_none()).count();
        while self.rounds.len() < wanted {
            let Ok(line) = log.recv_timeout(until.saturating_duration_since(Instant::now())) else { break };
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let number = |name: &str| entry[name].as_f64();
            let round = || {
                Some((
                    entry["round"].as_u64()?,
                    Round {
                        last_shard: number("last_shard")?,
                        closed: number("closed")?,
                        locate_ms: number("locate_ms")?,
                        decode_ms: number("decode_ms")?,
                    },
                ))
            };
            self.rounds.extend(round());
        }
        wanted.saturating_sub(self.rounds.len())
    }

    /// The lines of all steps, without what is only known of those that are judged.
    pub fn steps(&self) -> Vec<Step> {
        let mut seconds = 0.0;
        let line = |(at, taken): (usize, &Taken)| {
            let step = cut(taken, self.rounds.get(&taken.round));
            seconds += step.step_ms / 1e3;
            Step { step: at as u64 + 1, seconds, ..step }
        };
        self.taken.iter().enumerate().map(line).collect()
    }

    /// Why the last round was undecodable.
    pub fn why(&self) -> &str {
        self.taken.last().and_then(|taken| taken.undecodable.as_deref()).unwrap_or("")
    }
}

/// Cuts a step into its parts. Of a round that was not closed all of the exchange but encoding counts as wire.
fn cut(taken: &Taken, round: Option<&Round>) -> Step {
    let [sent, received] = taken.sending;
    let last = round.map_or(received, |round| round.last_shard.clamp(sent, received));
    let closed = round.map_or(received, |round| round.closed.clamp(last, received));
    let (locate_busy, decode_busy) = round.map_or((0.0, 0.0), |round| (round.locate_ms, round.decode_ms));
    let encode = taken.encode_busy.min(last - sent);
    let locates = if locate_busy > 0.0 { locate_busy / (locate_busy + decode_busy) } else { 0.0 };
    let tail = closed - last;
    let parts = [
        taken.compute,
        encode,
        last - sent - encode,
        tail * locates,
        tail * (1.0 - locates),
        received - closed,
        taken.apply,
    ];
    let [compute_ms, encode_ms, wire_ms, locate_ms, decode_ms, push_ms, apply_ms] = parts.map(|part| part * 1e3);
    let spaced = |workers: &[usize]| workers.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
    Step {
        step_ms: parts.iter().sum::<f64>() * 1e3,
        compute_ms,
        encode_ms,
        wire_ms,
        locate_ms,
        decode_ms,
        push_ms,
        apply_ms,
        compute_busy_ms: taken.compute_busy * 1e3,
        encode_busy_ms: taken.encode_busy * 1e3,
        locate_busy_ms: locate_busy,
        decode_busy_ms: decode_busy,
        bytes_up: taken.bytes[0],
        bytes_down: taken.bytes[1],
        named: spaced(&taken.liars),
        absent: spaced(&taken.absent),
        undecodable: taken.undecodable.is_some(),
        ..Step::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken() -> Taken {
        Taken {
            round: 7,
            sending: [100.0, 100.010],
            compute: 0.020,
            compute_busy: 0.004,
            encode_busy: 0.001,
            apply: 0.002,
            ..Taken::default()
        }
    }

    fn parts(step: &Step) -> [f64; 7] {
        let Step { compute_ms, encode_ms, wire_ms, locate_ms, decode_ms, push_ms, apply_ms, .. } = *step;
        [compute_ms, encode_ms, wire_ms, locate_ms, decode_ms, push_ms, apply_ms]
    }

    fn near(found: [f64; 7], expected: [f64; 7]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
    }

    #[test]
    fn a_step_that_some_worker_overran_counts_once_whoever_it_was() {
        let worker = |overran: &[u64]| Done { digest: String::new(), overran: overran.into(), bytes: [0; 2] };
        assert_eq!(overruns(&[worker(&[1, 3]), worker(&[]), worker(&[2, 3])]), 3);
        assert_eq!(overruns(&[]), 0);
    }

    #[test]
    fn a_step_is_cut_where_its_round_was_complete_and_closed() {
        let round = Round { last_shard: 100.004, closed: 100.008, locate_ms: 1.5, decode_ms: 4.5 };
        let step = cut(&taken(), Some(&round));
        near(parts(&step), [20.0, 1.0, 3.0, 1.0, 3.0, 2.0, 2.0]);
        assert!((step.step_ms - 32.0).abs() < 1e-6);
        assert_eq!((step.locate_busy_ms, step.decode_busy_ms), (1.5, 4.5));
    }

    #[test]
    fn parts_are_never_negative_and_add_up_whatever_the_clocks_say() {
        for (last_shard, closed) in [(99.0, 99.5), (100.02, 100.03), (100.009, 100.001), (99.0, 200.0)] {
            let step = cut(&taken(), Some(&Round { last_shard, closed, locate_ms: 0.0, decode_ms: 0.0 }));
            assert!(parts(&step).iter().all(|part| *part >= -1e-9), "{step:?}");
            assert!((parts(&step).iter().sum::<f64>() - step.step_ms).abs() < 1e-9);
            assert!((step.step_ms - 32.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_round_that_was_not_closed_is_all_wire() {
        near(parts(&cut(&taken(), None)), [20.0, 1.0, 9.0, 0.0, 0.0, 0.0, 2.0]);
    }
}
