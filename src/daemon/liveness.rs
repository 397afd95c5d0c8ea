//! Is the daemon alive: does every reactor still turn?
//!
//! A reactor steps its stages at least twice a second, even with nothing to do. One whose count of turns has not moved for several seconds
//! hangs, and the rounds with it. Who wants to know asks from time to time; how often does not matter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pipeline::Pulse;

/// A reactor that has not turned for so long hangs: ten times as long as one sleeps at most.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A reactor that no longer turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reactor {core} has not turned for {:.1} s", silent.as_secs_f64())]
pub struct Stuck {
    /// Which one, in the order of [`Daemon::pulses`](super::serve::Daemon::pulses).
    pub core: usize,
    /// For how long nothing has moved, as far as was seen.
    pub silent: Duration,
}

/// Watches the pulses of all reactors.
#[derive(Debug)]
pub struct Liveness {
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    pulse: Arc<Pulse>,
    turns: u64,
    moved: Instant,
}

impl Liveness {
    /// Watches these reactors; none of them is held to hang before [`PATIENCE`] has passed from `now`.
    pub fn new(pulses: &[Arc<Pulse>], now: Instant) -> Liveness {
        let watched = |pulse: &Arc<Pulse>| Watched { pulse: pulse.clone(), turns: pulse.turns(), moved: now };
        Liveness { watched: pulses.iter().map(watched).collect() }
    }

    /// Does every reactor turn?
    ///
    /// # Errors
    /// The reactor that has not moved for the longest time, if that is [`PATIENCE`] or more.
    pub fn check(&mut self, now: Instant) -> Result<(), Stuck> {
        for watched in &mut self.watched {
            let turns = watched.pulse.turns();
            if turns != watched.turns {
                (watched.turns, watched.moved) = (turns, now);
            }
        }
        let silent = |watched: &Watched| now.saturating_duration_since(watched.moved);
        let longest = self.watched.iter().map(silent).enumerate().max_by_key(|(_, silent)| *silent);
        match longest {
            Some((core, silent)) if silent >= PATIENCE => Err(Stuck { core, silent }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Idle, Reactor};

    /// Lets a reactor step its stages, of which it has none, once.
    fn turn(reactor: &mut Reactor) {
        let before = reactor.pulse().turns();
        let pulse = reactor.pulse();
        reactor.run(&mut [], || pulse.turns() > before).unwrap();
    }

    #[test]
    fn a_daemon_lives_while_every_reactor_turns_and_the_one_that_hangs_is_named() {
        let mut reactors = [(); 3].map(|()| Reactor::new(Idle::Spin).unwrap());
        let pulses: Vec<_> = reactors.iter().map(Reactor::pulse).collect();
        let mut now = Instant::now();
        let mut liveness = Liveness::new(&pulses, now);
        for _ in 0..10 {
            now += Duration::from_secs(4);
            reactors.iter_mut().for_each(turn);
            assert_eq!(liveness.check(now), Ok(()));
        }
        for wanted in [Ok(()), Err(Stuck { core: 1, silent: Duration::from_secs(8) })] {
            now += Duration::from_secs(4);
            turn(&mut reactors[0]);
            turn(&mut reactors[2]);
            assert_eq!(liveness.check(now), wanted);
        }
        turn(&mut reactors[1]);
        assert_eq!(liveness.check(now), Ok(()), "it was slow, and turns again");
    }

    #[test]
    fn who_asks_seldom_takes_a_reactor_that_turned_meanwhile_for_alive() {
        let mut reactor = Reactor::new(Idle::Spin).unwrap();
        let start = Instant::now();
        let mut liveness = Liveness::new(&[reactor.pulse()], start);
        turn(&mut reactor);
        assert_eq!(liveness.check(start + Duration::from_secs(3600)), Ok(()));
        let stuck = liveness.check(start + Duration::from_secs(7200)).unwrap_err();
        assert_eq!(stuck.to_string(), "reactor 0 has not turned for 3600.0 s");
    }
}
