//! Who lies in which round: drawn from a seed, so that every worker knows it of all without a word between them.

use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// How the liars of a round are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// The same workers in all rounds.
    Fixed,
    /// As many in each round, drawn anew.
    Switching,
    /// All workers of one group, in all rounds: more than any code corrects. If their lies agree, nobody can know that they are lies.
    WholeGroup,
}

/// There is no such way to choose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} does not say who lies: choose one of {}", Who::ALL.map(Who::name).join(", "))]
pub struct UnknownWho {
    /// What was asked for.
    pub name: String,
}

/// So many liars cannot be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{liars} liars in each of {groups} groups of {workers} workers: groups must be equal, and as large as their liars are many"
)]
pub struct Impossible {
    /// Workers in all.
    pub workers: usize,
    /// Groups asked for.
    pub groups: usize,
    /// Liars per group asked for.
    pub liars: usize,
}

impl Who {
    /// Every way.
    pub const ALL: [Who; 3] = [Who::Fixed, Who::Switching, Who::WholeGroup];

    /// The name in settings, as it is parsed and printed.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// Who lies, in words.
    pub fn description(self) -> &'static str {
        self.entry().1
    }

    fn entry(self) -> (&'static str, &'static str) {
        match self {
            Who::Fixed => ("fixed", "the same workers in all rounds"),
            Who::Switching => ("switching", "other workers in each round"),
            Who::WholeGroup => ("whole-group", "all workers of one group, more than any code corrects"),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Who {
    type Err = UnknownWho;

    fn from_str(name: &str) -> Result<Who, UnknownWho> {
        Who::ALL.into_iter().find(|who| who.name() == name).ok_or_else(|| UnknownWho { name: name.into() })
    }
}

/// The liars of a job: at most so many per group. Workers without a code are one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liars {
    who: Who,
    groups: usize,
    size: usize,
    per_group: usize,
    seed: u64,
}

impl Liars {
    /// `per_group` liars in each of `groups` equal groups of neighbours among `workers`, from the seed that all liars share.
    /// [`Who::WholeGroup`] does not look at `per_group`.
    ///
    /// # Errors
    /// If the groups are not equal, or have fewer workers than liars.
    pub fn new(who: Who, workers: usize, groups: usize, per_group: usize, seed: u64) -> Result<Liars, Impossible> {
        if groups == 0 || workers == 0 || !workers.is_multiple_of(groups) || per_group > workers / groups {
            return Err(Impossible { workers, groups, liars: per_group });
        }
        Ok(Liars { who, groups, size: workers / groups, per_group, seed })
    }

    /// Who lies in `round`, in order.
    pub fn of(&self, round: u64) -> Vec<usize> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x11a5);
        if self.who == Who::Switching {
            random.set_stream(round);
        }
        let group = |group: usize| (group * self.size..(group + 1) * self.size).collect::<Vec<_>>();
        if self.who == Who::WholeGroup {
            return group(random.next_u32() as usize % self.groups);
        }
        let mut liars: Vec<usize> =
            (0..self.groups).flat_map(|index| draw(&mut group(index), self.per_group, &mut random)).collect();
        liars.sort_unstable();
        liars
    }

    /// Does `worker` lie in `round`?
    pub fn lies(&self, round: u64, worker: usize) -> bool {
        self.of(round).binary_search(&worker).is_ok()
    }

    /// The most that lie in one round.
    pub fn most(&self) -> usize {
        if self.who == Who::WholeGroup { self.size } else { self.groups * self.per_group }
    }
}

/// Takes `count` of `members` out, at random.
///
/// # Panics
/// If they are fewer.
pub(crate) fn draw(members: &mut Vec<usize>, count: usize, random: &mut ChaCha8Rng) -> Vec<usize> {
    (0..count).map(|_| members.swap_remove(random.next_u32() as usize % members.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn liars(who: Who, workers: usize, groups: usize, per_group: usize) -> Liars {
        Liars::new(who, workers, groups, per_group, 3).unwrap()
    }

    #[test]
    fn every_group_has_as_many_liars_as_asked_for_in_every_round() {
        for who in [Who::Fixed, Who::Switching] {
            for (workers, groups, per_group) in [(15, 3, 2), (45, 3, 7), (12, 12, 1), (15, 1, 3), (7, 1, 0)] {
                let liars = liars(who, workers, groups, per_group);
                for round in 0..50 {
                    let chosen = liars.of(round);
                    assert!(chosen.is_sorted_by(|a, b| a < b));
                    let of = |group: usize| chosen.iter().filter(|one| **one / (workers / groups) == group).count();
                    assert!((0..groups).all(|group| of(group) == per_group), "{chosen:?}");
                    assert!((0..workers).all(|worker| liars.lies(round, worker) == chosen.contains(&worker)));
                    assert_eq!(chosen.len(), liars.most());
                }
            }
        }
    }

    #[test]
    fn fixed_liars_stay_and_switching_ones_come_to_be_everybody() {
        let fixed = liars(Who::Fixed, 15, 1, 3);
        assert!((0..20).all(|round| fixed.of(round) == fixed.of(0)));
        let switching = liars(Who::Switching, 15, 1, 3);
        let all: std::collections::BTreeSet<usize> = (0..100).flat_map(|round| switching.of(round)).collect();
        assert_eq!(all.len(), 15);
        assert_eq!(switching.of(7), liars(Who::Switching, 15, 1, 3).of(7), "the same for whoever asks");
    }

    #[test]
    fn a_whole_group_is_one_group_and_all_of_it() {
        let chosen = liars(Who::WholeGroup, 15, 3, 2).of(9);
        assert!(chosen.len() == 5 && chosen[0].is_multiple_of(5) && chosen[4] == chosen[0] + 4, "{chosen:?}");
        assert_eq!(liars(Who::WholeGroup, 15, 3, 2).most(), 5);
    }

    #[test]
    fn impossible_numbers_are_refused_and_names_are_parsed_and_printed_alike() {
        for (workers, groups, per_group) in [(15, 4, 1), (15, 3, 6), (15, 0, 1), (0, 1, 0)] {
            assert!(Liars::new(Who::Fixed, workers, groups, per_group, 1).is_err());
        }
        for who in Who::ALL {
            assert_eq!(who.to_string().parse(), Ok(who));
            assert!(!who.description().is_empty());
        }
        assert!("all".parse::<Who>().unwrap_err().to_string().contains("fixed, switching, whole-group"));
    }
}
