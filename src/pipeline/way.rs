//! Rounds in, which way their updates go out: whether a relay is faster is measured, without sockets or clocks.
//!
//! The time of a round is that from its close until most workers say that they have collected it, whatever it is that keeps them: so
//! both ways are measured by the same thing. Now and then one round goes the other way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Rounds in a row that the other way must have been faster in.
const WINS: u32 = 3;
/// It is faster if it takes less than this part of the time.
const FASTER: f64 = 0.8;
/// Rounds from one try to the next, at first and at most: twice as many after each that was slower.
const PAUSE: u64 = 64;
const PAUSE_MAX: u64 = 8192;
/// Rounds whose median is what the way in use takes.
const KEPT: usize = 9;
/// Rounds that are waited for: who has not collected by then does not count.
const RECENT: usize = 64;

/// A change of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Updates are relayed from now on.
    pub(super) relayed: bool,
    /// What the way that is left took, and what the other one took.
    pub(super) before: Duration,
    pub(super) now: Duration,
}

#[derive(Clone, Copy)]
struct Round {
    number: u64,
    relayed: bool,
    closed: Option<Instant>,
    /// Workers that have yet to say that they have collected it before most have.
    missing: usize,
}

/// Which way updates go.
pub(super) struct Ways {
    relayed: bool,
    rounds: [Option<Round>; RECENT],
    kept: VecDeque<Duration>,
    /// The round that goes the other way, while nothing is known of it.
    trying: Option<u64>,
    wins: u32,
    next: u64,
    pause: u64,
}

impl Ways {
    /// Updates are relayed at first.
    pub(super) fn new(first: u64) -> Ways {
        Ways {
            relayed: true,
            rounds: [None; RECENT],
            kept: VecDeque::with_capacity(KEPT),
            trying: None,
            wins: 0,
            next: first.saturating_add(PAUSE),
            pause: PAUSE,
        }
    }

    fn at(number: u64) -> usize {
        (number % RECENT as u64) as usize
    }

    /// Is this round's update relayed? The same answer for every chunk of it.
    pub(super) fn relays(&mut self, number: u64) -> bool {
        if let Some(round) = self.rounds[Ways::at(number)].filter(|round| round.number == number) {
            return round.relayed;
        }
        // A try that nothing was heard of, or an undecodable round.
        if self.trying.is_some_and(|trying| number >= trying.saturating_add(RECENT as u64)) {
            self.lose(number);
        }
        let tries = self.trying.is_none() && number >= self.next && self.kept.len() == KEPT;
        if tries {
            self.trying = Some(number);
        }
        let relayed = self.relayed != tries;
        self.rounds[Ways::at(number)] = Some(Round { number, relayed, closed: None, missing: usize::MAX });
        relayed
    }

    /// A round was closed, with an update that `workers` take part in passing on, of whom `liars` may lie.
    pub(super) fn closed(&mut self, number: u64, workers: usize, liars: usize, now: Instant) {
        if let Some(round) = self.rounds[Ways::at(number)].as_mut().filter(|round| round.number == number) {
            // More than can lie, where those who take part are few of all.
            (round.closed, round.missing) = (Some(now), (workers / 2).max(liars) + 1);
        }
    }

    /// One of them has collected it. Each says so once.
    pub(super) fn collected(&mut self, number: u64, now: Instant) -> Option<Change> {
        let round = self.rounds[Ways::at(number)].as_mut().filter(|round| round.number == number)?;
        let closed = round.closed?;
        round.missing = round.missing.checked_sub(1)?;
        if round.missing > 0 {
            return None;
        }
        let took = now.saturating_duration_since(closed);
        if self.trying == Some(number) {
            return self.tried(number, took);
        }
        if round.relayed == self.relayed {
            self.kept.truncate(KEPT - 1);
            self.kept.push_front(took);
        }
        None
    }

    fn tried(&mut self, number: u64, took: Duration) -> Option<Change> {
        let mut kept: Vec<Duration> = self.kept.iter().copied().collect();
        kept.sort_unstable();
        let usual = *kept.get(kept.len() / 2)?;
        if took.as_secs_f64() >= FASTER * usual.as_secs_f64() {
            self.lose(number);
            return None;
        }
        self.trying = None;
        self.wins += 1;
        self.next = number + 1;
        if self.wins < WINS {
            return None;
        }
        self.relayed = !self.relayed;
        self.kept.clear();
        self.wins = 0;
        self.pause = PAUSE;
        self.next = number.saturating_add(PAUSE);
        Some(Change { relayed: self.relayed, before: usual, now: took })
    }

    fn lose(&mut self, number: u64) {
        self.trying = None;
        self.wins = 0;
        self.next = number.saturating_add(self.pause);
        self.pause = (2 * self.pause).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKERS: usize = 7;

    /// Rounds of which each takes what `takes` says of its way; which went which way, and the changes.
    fn run(
        ways: &mut Ways,
        rounds: std::ops::Range<u64>,
        takes: impl Fn(u64, bool) -> Duration,
    ) -> (Vec<bool>, Vec<(u64, Change)>) {
        let (mut way, mut changes) = (Vec::new(), Vec::new());
        let start = Instant::now();
        for round in rounds {
            let relayed = ways.relays(round);
            assert_eq!(ways.relays(round), relayed, "the same for every chunk");
            way.push(relayed);
            ways.closed(round, WORKERS, 3, start);
            for worker in 0..WORKERS as u32 {
                // Liars may say so at once, or never: most are honest.
                let took = if worker < 3 { Duration::ZERO } else { takes(round, relayed) };
                changes.extend(ways.collected(round, start + took).map(|change| (round, change)));
            }
        }
        (way, changes)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_faster_way_is_kept_and_the_other_one_tried_ever_more_rarely() {
        let mut ways = Ways::new(0);
        let (way, changes) = run(&mut ways, 0..20_000, |_, relayed| if relayed { ms(3) } else { ms(30) });
        assert_eq!(changes, []);
        let direct: Vec<usize> = (0..way.len()).filter(|round| !way[*round]).collect();
        assert_eq!(direct, [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]);
    }

    #[test]
    fn a_relay_that_is_slower_is_left_after_three_rounds_that_say_so_and_comes_back_when_it_is_faster() {
        let mut ways = Ways::new(1000);
        let takes = |round: u64, relayed| if relayed == (round < 5000) { ms(30) } else { ms(20) };
        let (way, changes) = run(&mut ways, 1000..20_000, takes);
        let change = |relayed| Change { relayed, before: ms(30), now: ms(20) };
        assert_eq!(changes[0], (1066, change(false)));
        assert!(way[..64].iter().all(|relayed| *relayed) && way[64..67].iter().all(|relayed| !relayed));
        assert_eq!(changes.len(), 2);
        assert!(changes[1].0 > 5000 && changes[1].1 == change(true));
    }

    #[test]
    fn what_is_only_a_little_faster_or_only_once_changes_nothing() {
        for takes in
            [(|_, relayed| if relayed { ms(100) } else { ms(81) }) as fn(u64, bool) -> Duration, |round, relayed| {
                if relayed || round % 2 == 1 { ms(100) } else { ms(1) }
            }]
        {
            assert_eq!(run(&mut Ways::new(0), 0..10_000, takes).1, []);
        }
    }

    #[test]
    fn rounds_that_nobody_collects_or_that_end_without_an_update_are_no_news() {
        let mut ways = Ways::new(0);
        run(&mut ways, 0..64, |_, _| ms(10));
        let now = Instant::now();
        assert!(!ways.relays(64), "a try");
        for round in 65..64 + 64 {
            assert!(ways.relays(round), "one at a time");
        }
        assert!(ways.relays(128), "given up, and the next one is later");
        assert_eq!(ways.collected(64, now), None);
        assert_eq!(ways.collected(7, now), None);
        ways.closed(9999, 3, 1, now);
        assert_eq!(ways.collected(128, now), None);
    }
}
