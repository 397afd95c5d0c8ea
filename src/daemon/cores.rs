//! What the configuration and the machine make of cores: which stages run where, on which cores, and what they do when idle.

use core_affinity::CoreId;

use super::config::{Config, CoreMap, Idle, Stage as StageName};
use super::machine::{Machine, Placement, Way};
use crate::pipeline;
use crate::transport::Transport;

/// The largest number of lanes that is chosen without being asked for.
const LANES_MAX: usize = 8;

/// Which stages run on which core, where so many cores may be used.
pub(crate) fn reactors(config: &Config, placement: &Placement, available: usize) -> Vec<Vec<StageName>> {
    // Two threads of one core are as good as two cores for waking up, not for arithmetic.
    core_map(config, placement.physical.min(available).max(available.min(3)))
}

fn core_map(config: &Config, cores: usize) -> Vec<Vec<StageName>> {
    use StageName::{Assemble, Decode, Push, Receive};
    match &config.cores.map {
        CoreMap::Fixed(map) => map.clone(),
        CoreMap::Auto => match cores {
            0 | 1 => vec![vec![Receive, Assemble, Decode, Push]],
            2 | 3 => vec![vec![Receive, Assemble, Push], vec![Decode]],
            _ => {
                let mut map = vec![vec![Receive, Assemble], vec![Push]];
                map.extend(vec![vec![Decode]; (cores - 2).min(LANES_MAX)]);
                map
            }
        },
    }
}

/// What so many reactors do on so many cores while there is nothing to do. Never do more of them spin than there are cores: each would
/// keep the others from what it waits for.
pub(super) fn idle_of(wanted: Idle, reactors: usize, cores: usize) -> pipeline::Idle {
    match wanted {
        Idle::Spin | Idle::Yield | Idle::Adaptive if reactors > cores => {
            tracing::warn!(reactors, cores, "there are more reactors than cores: they park (cores.idle)");
            pipeline::Idle::Park
        }
        Idle::Spin => pipeline::Idle::Spin,
        Idle::Yield => pipeline::Idle::Yield,
        Idle::Adaptive => pipeline::Idle::LookThenPark,
        // A core is left for the kernel's network work, and whoever else lives here. One of two is not: measured, 6 % longer tiny rounds.
        Idle::Auto if cores > reactors && cores > 2 => pipeline::Idle::LookThenPark,
        Idle::Auto | Idle::Park => pipeline::Idle::Park,
    }
}

/// The cores for reactors, the best first.
pub(crate) fn place(config: &Config, machine: &Machine, allowed: &[usize]) -> Placement {
    let devices = (config.listen.transport != Transport::Tcp).then_some(&config.rdma.devices);
    let way = Way { address: config.listen.address.ip().to_canonical(), devices };
    machine.place(allowed, &way)
}

/// The cores for reactors, the best first, and what is said of them.
pub(super) fn placement(config: &Config) -> Placement {
    let allowed: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let mut placement = place(config, &Machine::here(), &allowed);
    if !config.cores.pin {
        (placement.node, placement.why) = (None, "threads are not kept on cores (cores.pin)".into());
    }
    let Placement { cores, physical, node, why } = &placement;
    tracing::info!(?cores, physical, node, %why, "cores");
    placement
}

/// Claims on a thread that is kept on this core: the system takes memory from near whoever touches it first.
pub(super) fn claim_near<T: Send>(core: Option<usize>, claim: impl FnOnce() -> T + Send) -> T {
    let Some(id) = core else { return claim() };
    std::thread::scope(|scope| {
        let claiming = scope.spawn(move || {
            // Where it cannot be kept there the memory is as good as anybody's.
            core_affinity::set_for_current(CoreId { id });
            claim()
        });
        claiming.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_reactors_spin_than_there_are_cores() {
        for reactors in 1..10 {
            for cores in 1..10 {
                let of = |wanted| idle_of(wanted, reactors, cores);
                assert_eq!(of(Idle::Park), pipeline::Idle::Park);
                assert_eq!(of(Idle::Auto) == pipeline::Idle::LookThenPark, cores > reactors && cores > 2);
                assert_eq!(of(Idle::Adaptive) == pipeline::Idle::LookThenPark, cores >= reactors);
                assert_eq!(of(Idle::Spin) == pipeline::Idle::Spin, cores >= reactors);
                assert_eq!(of(Idle::Yield) == pipeline::Idle::Yield, cores >= reactors);
            }
        }
    }
}
