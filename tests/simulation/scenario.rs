//! What a seed stands for: the job, who lies and how, who is slow, what the network does, and when the daemon is restarted.

use std::sync::Arc;
use std::time::Duration;

use solon::client::generator_digest;
use solon::code::{
    Family, Form, Generator, Layout, PROJECTIONS_MAX, Parameters, Precision, Tolerance, Verify, condition,
};
use solon::pipeline::{Begin, Job};
use solon::transport::faulty::Faults;
use solon::wire::{Plan, Rule};

use crate::carrying::{Between, Carrying, Relayed};
use crate::dice::Dice;
use crate::network::{Quality, TICK};
use crate::strategy::Strategy;

/// What a worker is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    Honest(Habit),
    Liar(Strategy),
}

/// How an honest worker misbehaves without lying.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Habit {
    Steady,
    /// Takes longer than the deadline for some rounds.
    Slow,
    /// Never joins.
    Absent,
    /// Is gone from this round on.
    Crash(u64),
    /// Loses its connection now and then, and comes back.
    Flaky,
    /// Stops for a while, without a word, and reads nothing.
    Freezes,
}

/// A whole scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub job: Job,
    pub lanes: usize,
    /// Rounds in which liars take part; some honest ones follow.
    pub rounds: u64,
    /// Rounds that honest workers have in flight.
    pub depth: u64,
    pub roles: Vec<Role>,
    pub quality: Vec<Quality>,
    /// What happens to frames with data of these workers on their way to the daemon.
    pub faults: Vec<Option<Faults>>,
    /// The daemon is killed in this round, and another one takes over.
    pub restart: Option<u64>,
    /// The daemon is stopped in peace in the end.
    pub stop: bool,
    /// Stages are stepped in random order first.
    pub interleave: bool,
    /// Seed of the network alone.
    pub weather: u64,
    /// Ticks an honest worker computes at most.
    pub compute: u64,
    /// What liars do with chunks that they carry.
    pub carrying: Vec<Carrying>,
    /// Links between workers.
    pub between: Between,
    /// Workers that cannot be asked to relay.
    pub near: Vec<bool>,
}

/// Ticks from a round's begin to its end.
pub const DEADLINE: u64 = 40;

impl Scenario {
    /// The scenario of a seed.
    pub fn new(seed: u64) -> Scenario {
        let mut dice = Dice::new(seed, "scenario", 0, 0);
        let parameters = loop {
            let c = if dice.chance(0.06) { dice.between(5, 9) } else { dice.between(1, 4) };
            let s = dice.pick(&[0, 1, 1, 1, 2, 2, 2, 3]);
            let parameters = Parameters::new(dice.between(1, 4), s, dice.pick(&[0, 0, 1, 1, 2]), c).expect("small");
            let most = if dice.chance(0.04) { 64 } else { 24 };
            if parameters.workers() <= most {
                break parameters;
            }
        };
        let mut job = job(seed, parameters, &mut dice);
        let workers = parameters.workers();
        let (s, e, c) = (parameters.adversaries(), parameters.stragglers(), parameters.compression());
        let mut rounds = dice.between(8, 20) as u64;
        let mut roles = vec![Role::Honest(Habit::Steady); workers];
        for group in 0..parameters.groups() {
            let first = group * parameters.redundancy();
            let mut rows: Vec<usize> = (first..first + parameters.redundancy()).collect();
            let mut take = |dice: &mut Dice| rows.swap_remove(dice.below(rows.len() as u64) as usize);
            // More liars than the code corrects, but s + 1 honest ones left to begin a round.
            let crowd = s > 0 && c + e > 1 && dice.chance(0.08);
            let some = dice.between(0, s);
            let liars = if crowd { dice.between(s + 1, s + (c - 1).max(1)) } else { dice.pick(&[s, s, some]) };
            for _ in 0..liars {
                let strategy = if crowd { Strategy::loner(&mut dice) } else { Strategy::any(&mut dice) };
                roles[take(&mut dice)] = Role::Liar(strategy);
            }
            // One erasure too many only where enough are left to begin a round.
            let most = if crowd && c == 1 { e - 1 } else { e };
            let weak = if !crowd && c >= 2 && dice.chance(0.05) { e + 1 } else { dice.between(0, most) };
            for _ in 0..weak {
                let crash = Habit::Crash(dice.below(rounds));
                let habits =
                    [Habit::Slow, Habit::Slow, Habit::Absent, crash, Habit::Flaky, Habit::Flaky, Habit::Freezes];
                roles[take(&mut dice)] = Role::Honest(dice.pick(&habits));
            }
        }
        let colluding = roles.iter().filter(|role| matches!(role, Role::Liar(_))).count() > 1 && dice.chance(0.3);
        if colluding {
            // One plan for all liars of the job: that is where they are strong.
            let any = Strategy::any(&mut dice);
            let plan = dice.pick(&[Strategy::Framing, Strategy::KnownSeed, any]);
            for group in 0..parameters.groups() {
                let of = roles[group * parameters.redundancy()..][..parameters.redundancy()].iter_mut();
                let mut liars: Vec<_> = of.filter(|role| matches!(role, Role::Liar(_))).collect();
                if liars.len() <= s {
                    liars.iter_mut().for_each(|role| **role = Role::Liar(plan));
                }
            }
        }
        // Dice of its own: what else a seed stands for stays.
        let comes = |role: &Role| !matches!(role, Role::Honest(Habit::Absent | Habit::Crash(0)));
        if Dice::new(seed, "begin", 0, 0).chance(0.2) && roles.iter().all(comes) {
            job.begin = Begin::All;
        }
        let Relayed { between, carrying, near } = Relayed::new(seed, &mut job, &mut roles, &mut rounds);
        let stormy = dice.chance(0.3);
        let faults = faults(&mut dice, workers, &roles, stormy);
        let largest = 64 + 4 * (c * job.plan.layout.chunk_width()).min(job.plan.layout.dimension()) + 600;
        let quality = (0..workers)
            .map(|worker| Quality {
                base: if matches!(roles[worker], Role::Liar(_)) { 0 } else { dice.pick(&[0, 0, 0, 1, 1, 2, 6]) },
                jitter: if matches!(roles[worker], Role::Liar(_)) { 0 } else { dice.pick(&[0, 0, 1, 3]) },
                capacity: match roles[worker] {
                    Role::Liar(Strategy::NeverReads) => 200,
                    Role::Honest(Habit::Freezes) => 2 * largest,
                    _ => 24 * largest,
                },
                torn: dice.chance(0.3),
            })
            .collect();
        Scenario {
            seed,
            lanes: dice.pick(&[1, 1, 2, 3]),
            rounds,
            depth: if dice.chance(0.4) { u64::from(job.plan.window) } else { 1 },
            quality,
            faults,
            restart: dice.chance(0.12).then(|| dice.below(rounds)),
            stop: dice.chance(0.3),
            interleave: dice.chance(0.5),
            weather: seed,
            compute: dice.pick(&[0, 0, 1, 3, 8]),
            carrying,
            between,
            near,
            roles,
            job,
        }
    }

    /// A scenario in which what the network does must not matter: every shard comes in time, all wait for the last one, and
    /// lies are gross.
    pub fn calm(seed: u64) -> Scenario {
        let mut scenario = Scenario::new(seed);
        let mut dice = Dice::new(seed, "calm", 0, 0);
        scenario.job.plan.rule = Rule::Solon;
        // Words wait for half of it.
        scenario.job.plan.deadline_ms *= 2;
        scenario.job.linger = scenario.job.deadline();
        // A round trip per shard would not fit into the deadline.
        scenario.job.plan.credits = 32;
        let parameters = scenario.job.plan.parameters;
        for group in 0..parameters.groups() {
            let of = &mut scenario.roles[group * parameters.redundancy()..][..parameters.redundancy()];
            let mut left = parameters.adversaries();
            for role in of.iter_mut().filter(|role| matches!(role, Role::Liar(_))) {
                *role = if left > 0 { Role::Liar(Strategy::calm(&mut dice)) } else { Role::Honest(Habit::Steady) };
                left = left.saturating_sub(1);
            }
            for role in of.iter_mut() {
                if let Role::Honest(habit) = role {
                    *habit = if *habit == Habit::Absent { Habit::Absent } else { Habit::Steady };
                }
            }
        }
        scenario.quality.iter_mut().for_each(|quality| quality.capacity = 1 << 20);
        scenario.faults.fill(None);
        scenario.restart = None;
        scenario
    }

    /// The same scenario with shards of bf16, verified as solond does when nobody says how.
    pub fn in_bf16(mut self) -> Scenario {
        let (plan, precision) = (&mut self.job.plan, Precision::Bf16);
        let compression = plan.parameters.compression();
        (plan.precision, plan.tolerance) = (precision, precision.tolerance(compression));
        if precision.is_coarse(compression) {
            (self.job.verify, self.job.projections) = (Verify::Full, PROJECTIONS_MAX);
        }
        self
    }

    /// Of a group's gradient: what rounding and lies within the tolerance can change, at worst, where rounding is coarse.
    pub fn hidden(&self) -> Option<f64> {
        let Job { plan, generator, .. } = &self.job;
        let parameters = &plan.parameters;
        let enlarged = |errors: f64| errors * condition(generator, parameters).worst_information_set;
        let coarse = plan.precision.is_coarse(parameters.compression());
        // Chance lets some pass a little more.
        coarse.then(|| {
            enlarged(plan.precision.unit_roundoff() + 3.0 * plan.tolerance * (parameters.redundancy() as f64).sqrt())
        })
    }

    /// How many times the unit roundoff is left of it where nobody hides: the honest condition, times a small factor.
    pub fn rounding(&self) -> f64 {
        let Job { plan, generator, .. } = &self.job;
        match plan.precision.is_coarse(plan.parameters.compression()) {
            true => 3.0 * condition(generator, &plan.parameters).worst_rows,
            false => 1.0,
        }
    }

    /// The same scenario with other latencies and another number of lanes.
    pub fn in_weather(mut self, weather: u64, lanes: usize) -> Scenario {
        let mut dice = Dice::new(weather, "weather", 0, 0);
        (self.weather, self.lanes) = (weather, lanes);
        for quality in &mut self.quality {
            (quality.base, quality.jitter, quality.torn) = (dice.below(4), dice.below(4), dice.chance(0.5));
        }
        self
    }

    pub fn workers(&self) -> usize {
        self.job.plan.parameters.workers()
    }

    pub fn is_honest(&self, worker: usize) -> bool {
        matches!(self.roles[worker], Role::Honest(_))
    }

    /// Liars in a group.
    pub fn liars(&self, group: usize) -> usize {
        let r = self.job.plan.parameters.redundancy();
        (group * r..(group + 1) * r).filter(|worker| !self.is_honest(*worker)).count()
    }

    /// Has the group no more liars than the code corrects?
    pub fn is_within(&self, group: usize) -> bool {
        self.liars(group) <= self.job.plan.parameters.adversaries()
    }

    /// The scenario in a few lines.
    pub fn describe(&self) -> String {
        let Plan { parameters: p, rule, form, layout, window, credits, .. } = &self.job.plan;
        let mut text = format!(
            "seed {}: {} groups, s {}, e {}, r_c {}, {rule}, {form:?}, d {} in {} chunks, window {window}, depth {}, credits \
             {credits}, updates {}, linger {:?}, K {}, {} lanes, {} rounds, restart {:?}, interleave {}\n",
            self.seed,
            p.groups(),
            p.adversaries(),
            p.stragglers(),
            p.compression(),
            layout.dimension(),
            layout.chunks(),
            self.depth,
            self.job.updates,
            self.job.linger,
            self.job.projections,
            self.lanes,
            self.rounds,
            self.restart,
            self.interleave,
        );
        if let Some(relay) = self.job.relay {
            let Between { quality: q, apart, cuts, vanish } = &self.between;
            text += &format!(
                "  relayed: late after {:?}, links {}+{} of {} bytes, {} pairs apart, cuts {cuts}, vanish {vanish}\n",
                relay.repair,
                q.base,
                q.jitter,
                q.capacity,
                apart.len()
            );
        }
        if self.job.begin == Begin::All {
            text += "  begins with all\n";
        }
        if self.job.plan.precision != Precision::F32 {
            text += &format!("  shards of {}\n", self.job.plan.precision);
        }
        for worker in 0..self.workers() {
            let (role, q) = (self.roles[worker], &self.quality[worker]);
            if role != Role::Honest(Habit::Steady) || self.faults[worker].is_some() || q.base > 2 {
                let faults = self.faults[worker];
                text += &format!("  worker {worker}: {role:?}, latency {}+{}, faults {faults:?}", q.base, q.jitter);
                if self.job.relay.is_some() && !self.is_honest(worker) {
                    text += &format!(", carries {:?}", self.carrying[worker]);
                }
                text += "\n";
            }
        }
        text
    }
}

fn job(seed: u64, parameters: Parameters, dice: &mut Dice) -> Job {
    let c = parameters.compression();
    let family = Family::Trigonometric;
    let form = if dice.chance(0.35) { Form::Dense } else { Form::Systematic };
    let generator = Generator::new(family, form, parameters.redundancy(), c).expect("trigonometric ones exist");
    let any = dice.between(1, 300);
    let dimension = dice.pick(&[1, 2, 7, 13, 97, 101, 211, 4 * c, any, any, any, any]);
    let width = dimension.div_ceil(c).div_ceil(dice.between(1, 12));
    let deadline = TICK * DEADLINE as u32;
    let plan = Plan {
        parameters,
        rule: if dice.chance(0.06) { Rule::MEAN } else { Rule::Solon },
        family,
        form,
        generator_digest: generator_digest(&generator),
        layout: Layout::new(dimension, c, width),
        precision: Precision::F32,
        update_precision: Precision::F32,
        gradients: 1,
        window: dice.between(2, 3) as u32,
        credits: dice.pick(&[1, 2, 3, 4, 6, 16]),
        deadline_ms: DEADLINE as u32,
        tolerance: Tolerance::default().relative,
        scale: dice.pick(&[1.0, 1.0, 0.5, 1.0 / 3.0]),
    };
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&dice.any().to_le_bytes());
    Job {
        plan,
        generator: Arc::new(generator),
        number: dice.any(),
        epoch: dice.any(),
        projections: dice.pick(&[2, 3, 4, 4, 4]),
        verify: dice.pick(&[Verify::Random, Verify::Random, Verify::Full]),
        linger: if dice.chance(0.4) { deadline } else { Duration::ZERO },
        write_deadline: TICK * dice.between(20, 60) as u32,
        updates: dice.pick(&[1, 2, 4, 8]),
        secret: {
            secret[8..16].copy_from_slice(&seed.to_le_bytes());
            secret
        },
        resume: None,
        relay: None,
        begin: Begin::Any,
        robust: None,
    }
}

fn faults(dice: &mut Dice, workers: usize, roles: &[Role], stormy: bool) -> Vec<Option<Faults>> {
    let rare = |dice: &mut Dice, most: f64| if dice.chance(0.5) { most * dice.unit() } else { 0.0 };
    (0..workers)
        .map(|worker| {
            let unlucky = stormy && matches!(roles[worker], Role::Honest(_)) && dice.chance(0.3);
            unlucky.then(|| Faults {
                drop: rare(dice, 0.02),
                delay: rare(dice, 0.2),
                delay_max: TICK * dice.pick(&[3, 20, 150]),
                duplicate: rare(dice, 0.05),
                reorder: rare(dice, 0.2),
                corrupt: rare(dice, 0.1),
                data_only: true,
            })
        })
        .collect()
}
