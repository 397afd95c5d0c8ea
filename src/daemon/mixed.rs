//! Who computes differently than its group: such workers do not get the same bits, and may be named as liars.
//!
//! What a worker says of itself may be a lie, so a few cannot have others turned away: an *odd* worker is one that differs from
//! more than half of its group who all say the same, and from s + 1 at least, so that one of them is honest. No two sets can both be so
//! large: whom it refuses does not depend on who came first, and who was let in before so many had come is odd from then on.

use crate::code::Parameters;
use crate::wire::{Fields, Marks};

/// What is known of how the workers of a job compute.
pub struct Mixture {
    parameters: Parameters,
    /// Of each worker: what it said when it last joined.
    marks: Vec<Marks>,
    /// What was last reported of it.
    told: Vec<Option<Difference>>,
}

/// That a worker computes differently than others of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The worker.
    pub worker: u32,
    /// The first of those that it differs from, who all say the same.
    pub other: u32,
    /// In what.
    pub fields: Fields,
}

impl Mixture {
    /// Of a job whose workers have not come yet.
    pub fn new(parameters: &Parameters) -> Mixture {
        let workers = parameters.workers();
        Mixture { parameters: *parameters, marks: vec![Marks::default(); workers], told: vec![None; workers] }
    }

    /// Why a worker that says this is odd, if it is. `here` tells who is in the job.
    pub fn odd(&self, worker: usize, marks: &Marks, here: &dyn Fn(usize) -> bool) -> Option<Difference> {
        let needed = (self.parameters.adversaries() + 1).max(self.parameters.redundancy() / 2 + 1);
        let class = self.classes(worker, here).find(|class| {
            let size = class.members.clone().filter(|member| *member != worker).count();
            size >= needed && !marks.differences(&class.marks).is_empty()
        })?;
        let other = class.members.clone().find(|member| *member != worker)? as u32;
        Some(Difference { worker: worker as u32, other, fields: marks.differences(&class.marks) })
    }

    /// A worker has joined and says this. Gives who differs from most of its group, as far as that is news.
    pub fn join(&mut self, worker: usize, marks: Marks, here: &dyn Fn(usize) -> bool) -> Vec<Difference> {
        self.marks[worker] = marks;
        let most = self.classes(worker, here).max_by_key(|class| {
            // Of equally large ones that of the lowest index.
            (class.members.clone().count(), std::cmp::Reverse(class.first))
        });
        let Some((most, first)) = most.map(|class| (class.marks, class.first)) else { return Vec::new() };
        let mut news = Vec::new();
        for member in self.group(worker).filter(|member| here(*member)) {
            let fields = self.marks[member].differences(&most);
            let difference = Difference { worker: member as u32, other: first as u32, fields };
            let difference = (!fields.is_empty()).then_some(difference);
            let told = |it: Option<Difference>| it.map(|it| it.fields);
            if told(difference) != told(std::mem::replace(&mut self.told[member], difference)) {
                news.extend(difference);
            }
        }
        news
    }

    /// Everybody of a worker's group who is here and odd.
    pub fn all_odd(&self, worker: usize, here: &dyn Fn(usize) -> bool) -> Vec<Difference> {
        let members = self.group(worker).filter(|member| here(*member));
        members.filter_map(|member| self.odd(member, &self.marks[member], here)).collect()
    }

    fn group(&self, worker: usize) -> std::ops::Range<usize> {
        let (group, size) = (self.parameters.place(worker).group, self.parameters.redundancy());
        group * size..(group + 1) * size
    }

    /// Those of a worker's group who are here and say something: who says the same stands together.
    fn classes<'a>(
        &'a self,
        worker: usize,
        here: &'a dyn Fn(usize) -> bool,
    ) -> impl Iterator<Item = Class<impl Iterator<Item = usize> + Clone + 'a>> + 'a {
        let group = self.group(worker);
        let says = move |member: &usize| here(*member) && self.marks[*member].is_known();
        group.clone().filter(says).filter_map(move |first| {
            let marks = self.marks[first];
            let members = group.clone().filter(says).filter(move |member| self.marks[*member] == marks);
            (members.clone().next() == Some(first)).then_some(Class { marks, first, members })
        })
    }
}

struct Class<I> {
    marks: Marks,
    first: usize,
    members: I,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Fingerprint;

    fn marks(threads: &str) -> Marks {
        Fingerprint { threads: threads.into(), ..Fingerprint::default() }.marks()
    }

    fn all(_: usize) -> bool {
        true
    }

    /// Two groups of five, of whom two may lie.
    fn mixture() -> Mixture {
        Mixture::new(&Parameters::new(2, 2, 0, 1).unwrap())
    }

    #[test]
    fn who_differs_from_most_of_its_group_is_reported_once() {
        let mut mixture = mixture();
        assert!(mixture.join(1, marks("2"), &all).is_empty());
        assert!(mixture.join(6, marks("1"), &all).is_empty(), "another group");
        let news = mixture.join(0, marks("1"), &all);
        assert_eq!(news.iter().map(|it| (it.worker, it.other)).collect::<Vec<_>>(), [(1, 0)]);
        assert_eq!(news[0].fields.to_string(), "threads");
        assert!(mixture.join(2, marks("1"), &all).is_empty(), "known");
        assert!(mixture.join(3, Marks::default(), &all).is_empty(), "who says nothing differs from nobody");
        assert!(mixture.join(1, marks("1"), &all).is_empty(), "mended");
        assert_eq!(mixture.join(1, marks("2"), &all).len(), 1, "and broken again");
    }

    #[test]
    fn only_those_who_are_here_count() {
        let mut mixture = mixture();
        (0..3).for_each(|worker| assert!(mixture.join(worker, marks("1"), &all).is_empty()));
        assert!(mixture.odd(3, &marks("2"), &all).is_some());
        assert!(mixture.odd(3, &marks("2"), &|worker| worker != 1).is_none());
        assert!(mixture.join(3, marks("2"), &|worker| worker == 3).is_empty());
    }

    #[test]
    fn as_many_as_may_lie_cannot_have_others_turned_away_whoever_comes_first() {
        let mut mixture = mixture();
        // Two liars came first and agree on something that nobody else has.
        (0..2).for_each(|worker| assert!(mixture.join(worker, marks("7"), &all).is_empty()));
        for worker in 2..5 {
            assert_eq!(mixture.odd(worker, &marks("1"), &all), None);
            mixture.join(worker, marks("1"), &all);
        }
        // Three agree now: one of them is honest, and whoever differs from all three is what it says.
        let odd: Vec<u32> = mixture.all_odd(4, &all).iter().map(|it| it.worker).collect();
        assert_eq!(odd, [0, 1]);
        assert!(mixture.odd(0, &marks("7"), &all).is_some(), "nor do they come back");
        assert_eq!(mixture.odd(0, &marks("1"), &all), None);
    }

    #[test]
    fn liars_with_one_that_is_set_up_wrongly_cannot_have_the_others_turned_away() {
        // Four, of whom one may lie: it says what the odd one says.
        let mut mixture = Mixture::new(&Parameters::new(1, 1, 0, 2).unwrap());
        (2..4).for_each(|worker| assert!(mixture.join(worker, marks("2"), &all).is_empty()));
        assert_eq!(mixture.odd(0, &marks("1"), &all), None);
        mixture.join(0, marks("1"), &all);
        mixture.join(1, marks("1"), &all);
        assert!(mixture.all_odd(0, &all).is_empty(), "two against two");
    }

    #[test]
    fn whatever_as_many_as_may_lie_say_no_honest_worker_of_an_equal_group_is_odd() {
        let (mut state, words) = (1u64, ["", "1", "2", "3"]);
        for _ in 0..2000 {
            let mut mixture = mixture();
            let mut order = [0, 1, 2, 3, 4];
            for at in (1..5).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                order.swap(at, (state >> 33) as usize % (at + 1));
            }
            for worker in order {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let says = if worker < 2 { words[(state >> 60) as usize % 4] } else { "1" };
                let odd = mixture.odd(worker, &marks(says), &all);
                assert!(worker < 2 || odd.is_none());
                if odd.is_none() {
                    mixture.join(worker, marks(says), &all);
                }
                assert!(mixture.all_odd(worker, &all).iter().all(|it| it.worker < 2));
            }
        }
    }
}
