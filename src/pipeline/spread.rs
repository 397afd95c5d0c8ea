//! How long after its close the update of a round has reached so many workers.

use std::time::{Duration, Instant};

/// Rounds that are waited for: what has not come by then does not count.
const RECENT: usize = 64;

#[derive(Clone, Copy)]
struct Round {
    number: u64,
    closed: Instant,
    missing: usize,
}

/// Rounds whose updates are on their way.
pub(super) struct Spread([Option<Round>; RECENT]);

impl Spread {
    pub(super) fn new() -> Spread {
        Spread([None; RECENT])
    }

    fn at(number: u64) -> usize {
        (number % RECENT as u64) as usize
    }

    /// A round was closed, and its update is to reach this many workers.
    pub(super) fn closed(&mut self, number: u64, missing: usize, now: Instant) {
        self.0[Spread::at(number)] = (missing > 0).then_some(Round { number, closed: now, missing });
    }

    /// It has reached one more; how long it took, if that was the last one to count. Only then the clock is asked.
    pub(super) fn reached(&mut self, number: u64, clock: impl FnOnce() -> Instant) -> Option<Duration> {
        let place = &mut self.0[Spread::at(number)];
        let round = place.as_mut().filter(|round| round.number == number)?;
        round.missing -= 1;
        if round.missing > 0 {
            return None;
        }
        let closed = place.take()?.closed;
        Some(clock().saturating_duration_since(closed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_worker_that_counts_ends_a_round_and_later_ones_say_nothing() {
        let (mut spread, start) = (Spread::new(), Instant::now());
        let ms = Duration::from_millis;
        spread.closed(7, 2, start);
        spread.closed(8, 1, start);
        assert_eq!(spread.reached(7, || start + ms(1)), None);
        assert_eq!(spread.reached(8, || start + ms(2)), Some(ms(2)));
        assert_eq!(spread.reached(7, || start + ms(3)), Some(ms(3)));
        assert_eq!(spread.reached(7, || start + ms(4)), None);
        spread.closed(9, 1, start);
        spread.closed(9 + RECENT as u64, 1, start);
        assert_eq!(spread.reached(9, || start), None, "its place was taken");
        spread.closed(10, 0, start);
        assert_eq!(spread.reached(10, || start), None, "nobody gets it");
    }
}
