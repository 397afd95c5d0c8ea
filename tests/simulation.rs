//! A whole cluster on a virtual clock and network, from one seed; see `docs/simulation.md`.

#[path = "simulation/algebra.rs"]
mod algebra;
#[path = "simulation/dice.rs"]
mod dice;
#[path = "simulation/gradients.rs"]
mod gradients;
#[path = "simulation/honest.rs"]
mod honest;
#[path = "simulation/judge.rs"]
mod judge;
#[path = "simulation/liar.rs"]
mod liar;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/probes.rs"]
mod probes;
#[path = "simulation/scenario.rs"]
mod scenario;
#[path = "simulation/strategy.rs"]
mod strategy;
#[path = "simulation/tap.rs"]
mod tap;
#[path = "simulation/world.rs"]
mod world;

use probes::{Probe, Probes};
use scenario::Scenario;
use world::run;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn ten_thousand_rounds_break_no_promise_and_reach_every_rare_state() {
    let wanted = number("SOLON_SIM_ROUNDS").unwrap_or(10_000);
    let first = number("SOLON_SIM_FROM").unwrap_or(0);
    let (mut rounds, mut ticks, mut probes) = (0, 0, Probes::default());
    let mut bad = 0;
    for seed in first.. {
        if rounds >= wanted {
            println!("{rounds} rounds, {ticks} ticks, {seed} scenarios");
            break;
        }
        let outcome = run(Scenario::new(seed), false);
        if let Some(f) = outcome.failure {
            println!("seed {seed}: {f}");
            bad += 1;
        }
        rounds += outcome.rounds.max(1);
        ticks += outcome.ticks;
        probes.add(&outcome.probes);
    }
    for (p, _) in Probe::ALL {
        println!("{p:?} {}", probes.count(*p));
    }
    assert_eq!(bad, 0);
}

#[test]
fn one_seed_verbosely() {
    let Some(seed) = number("SOLON_SIM_SEED") else { return };
    let scenario = Scenario::new(seed);
    println!("{}", scenario.describe());
    let outcome = run(scenario, true);
    if let Some(f) = outcome.failure {
        panic!("{f}");
    }
}

#[test]
fn planted() {
    let seeds = number("SOLON_SIM_SEEDS").unwrap_or(300);
    std::panic::set_hook(Box::new(|_| {}));
    for bug in solon::pipeline::Bug::ALL {
        let mut kills: std::collections::BTreeMap<String, Vec<u64>> = Default::default();
        let mut n = 0;
        for seed in 0..seeds {
            let scenario = Scenario::new(seed);
            if bug == solon::pipeline::Bug::AgreeTooFew && scenario.job.plan.parameters.adversaries() == 0 {
                continue;
            }
            solon::pipeline::plant(Some(bug));
            let outcome = run(scenario, false);
            solon::pipeline::plant(None);
            if let Some(f) = outcome.failure {
                kills.entry(format!("{:?}", f.oracle)).or_default().push(seed);
                n += 1;
            }
        }
        println!("{bug:?}: {n}/{seeds}: {:?}", kills.iter().map(|(k, v)| (k, v.len(), v[0])).collect::<Vec<_>>());
    }
}
