//! Who lies in which step: drawn from the seed, so that every worker knows it of all without a word between them.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::record::{Settings, Who};

/// The workers that lie in a step (from 0), in order.
pub fn liars(settings: &Settings, seed: u64, step: u64) -> Vec<usize> {
    if settings.attack.is_none() {
        return Vec::new();
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x11a5);
    if settings.who == Who::Switching {
        random.set_stream(step);
    }
    // Without a code all workers are one group.
    let groups = if settings.redundancy > 1 { settings.groups } else { 1 };
    let size = settings.workers / groups;
    let members = |group: usize| (group * size..(group + 1) * size).collect::<Vec<_>>();
    if settings.who == Who::WholeGroup {
        return members(random.next_u32() as usize % groups);
    }
    let mut chosen = Vec::new();
    for group in 0..groups {
        let mut members = members(group);
        for _ in 0..settings.liars {
            chosen.push(members.swap_remove(random.next_u32() as usize % members.len()));
        }
    }
    chosen.sort_unstable();
    chosen
}
