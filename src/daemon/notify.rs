//! What the service manager is told (sd_notify(3)): that the daemon is ready, how it goes, and that it lives.
//!
//! ```text
//!  READY=1      memory is claimed, the port is open
//!  STATUS=      one line for people: `systemctl status`; at most once a second, and only if it changed
//!  WATCHDOG=1   twice per WatchdogSec, but only while every reactor turns: who hangs is ended and started again
//!  RELOADING=1  until READY=1 comes again
//!  STOPPING=1   with the time that the drain may take, whatever TimeoutStopSec says
//! ```
//!
//! Where no service manager listens (`NOTIFY_SOCKET` is not set) all of this does nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::liveness::Liveness;
use super::serve::Daemon;
use crate::pipeline::{Event, Pulse};
use crate::wire::WorkerSet;

/// A status is written at most so often.
const BETWEEN_STATUS: Duration = Duration::from_secs(1);

/// A longer status is cut: nobody reads it, and systemd takes no message beyond 4 KiB.
const STATUS_CHARACTERS: usize = 600;

/// More liars than this are counted, not listed.
const LIARS_LISTED: usize = 8;

/// Is there a service manager that listens?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listens {
    Yes,
    No,
}

/// The service manager, as far as the daemon's main thread talks to it.
pub struct Manager {
    listens: Listens,
    /// Half of the time after which it ends a daemon that says nothing.
    feed_every: Option<Duration>,
    fed: Instant,
    liveness: Liveness,
    hangs: bool,
    said: String,
    said_at: Option<Instant>,
    liars: WorkerSet,
    /// What the last reload came to, if that is to be seen.
    trouble: Option<String>,
}

impl Manager {
    /// The one that started this process, if one did. It gets to know whether these reactors turn.
    pub fn of_environment(pulses: &[Arc<Pulse>], now: Instant) -> Manager {
        let listens = std::env::var_os("NOTIFY_SOCKET").map_or(Listens::No, |_| Listens::Yes);
        Manager::new(listens, sd_notify::watchdog_enabled(), pulses, now)
    }

    fn new(listens: Listens, watchdog: Option<Duration>, pulses: &[Arc<Pulse>], now: Instant) -> Manager {
        Manager {
            listens,
            feed_every: watchdog.map(|whole| whole / 2),
            fed: now,
            liveness: Liveness::new(pulses, now),
            hangs: false,
            said: String::new(),
            said_at: None,
            liars: WorkerSet::EMPTY,
            trouble: None,
        }
    }

    /// The daemon serves.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// Remembers who was named.
    pub fn observe(&mut self, event: &Event) {
        if let Event::Closed { report, .. } = event {
            self.liars = self.liars.union(&report.liars).union(&report.late_liars);
        }
    }

    /// Feeds the watchdog and renews the status, if it is time for that.
    pub fn look(&mut self, now: Instant, daemon: &Daemon) {
        if self.may_feed(now) {
            tell(&[NotifyState::Watchdog]);
        }
        if self.listens == Listens::Yes
            && self.said_at.is_none_or(|at| now.saturating_duration_since(at) >= BETWEEN_STATUS)
        {
            let mut status = status(daemon, &self.liars);
            if let Some(trouble) = &self.trouble {
                status = format!("{status}; {trouble}");
            }
            if status != self.said {
                tell(&[NotifyState::Status(&status)]);
                (self.said, self.said_at) = (status, Some(now));
            }
        }
    }

    /// Is it time to feed the watchdog, and does every reactor turn?
    fn may_feed(&mut self, now: Instant) -> bool {
        let due = self.feed_every.is_some_and(|every| now.saturating_duration_since(self.fed) >= every);
        if !due {
            return false;
        }
        self.fed = now;
        let hung = std::mem::replace(&mut self.hangs, false);
        let Err(stuck) = self.liveness.check(now) else { return true };
        self.hangs = true;
        if !hung {
            tracing::error!("{stuck}: the watchdog is not fed");
        }
        false
    }

    /// The configuration is read again. [`Manager::reloaded`] follows.
    pub fn reloading(&self) {
        // Without the time a service manager only shows it.
        let at = NotifyState::monotonic_usec_now().ok();
        tell(&[Some(NotifyState::Reloading), at].into_iter().flatten().collect::<Vec<_>>());
    }

    /// The daemon serves with what the reload came to; `trouble` stands in the status until the next one.
    pub fn reloaded(&mut self, trouble: Option<String>) {
        self.trouble = trouble;
        // It is said anew even if it is the same.
        (self.said, self.said_at) = (String::new(), None);
        self.ready();
    }

    /// The daemon stops, which may take so long.
    pub fn stopping(&self, drain: Duration) {
        let microseconds = u32::try_from(drain.as_micros()).unwrap_or(u32::MAX);
        tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(microseconds)]);
    }
}

/// The process is about to end because of this.
pub fn failed(why: &str) {
    let line: String = why.lines().collect::<Vec<_>>().join(" ").chars().take(STATUS_CHARACTERS).collect();
    tell(&[NotifyState::Status(&line)]);
}

fn tell(state: &[NotifyState<'_>]) {
    // Who does not listen any more need not know.
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

/// One line: `round 118: 11 of 12 workers, liars 5 8; RDMA none`. Why there is none is in the log.
fn status(daemon: &Daemon, liars: &WorkerSet) -> String {
    let board = &daemon.handle().board;
    let parameters = &daemon.job().plan.parameters;
    let connected: usize = (0..parameters.groups()).map(|group| board.connected(group).count()).sum();
    format!(
        "round {}: {connected} of {} workers, {}; RDMA {}",
        board.closed(),
        parameters.workers(),
        named(liars),
        daemon.rdma().split(" (").next().unwrap_or_default()
    )
}

/// Who was named since the start.
fn named(liars: &WorkerSet) -> String {
    let all: Vec<String> = liars.iter().map(|worker| worker.to_string()).collect();
    match all.len() {
        0 => "no liars".into(),
        count if count > LIARS_LISTED => {
            format!("liars {} and {} more", all[..LIARS_LISTED].join(" "), count - LIARS_LISTED)
        }
        _ => format!("liars {}", all.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Idle, Reactor};

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_and_not_while_a_reactor_hangs() {
        let mut reactors = [(); 2].map(|()| Reactor::new(Idle::Spin).unwrap());
        let pulses: Vec<_> = reactors.iter().map(Reactor::pulse).collect();
        let turn = |reactor: &mut Reactor| {
            let (pulse, before) = (reactor.pulse(), reactor.pulse().turns());
            reactor.run(&mut [], || pulse.turns() > before).unwrap();
        };
        let start = Instant::now();
        let mut manager = Manager::new(Listens::No, Some(Duration::from_secs(10)), &pulses, start);
        let mut fed = Vec::new();
        for second in 1..=40 {
            turn(&mut reactors[0]);
            if !(12..=33).contains(&second) {
                turn(&mut reactors[1]);
            }
            if manager.may_feed(start + Duration::from_secs(second)) {
                fed.push(second);
            }
        }
        // What has turned at 11 s is not known to hang at 15 s.
        assert_eq!(fed, [5, 10, 15, 35, 40]);
        let mut nobody = Manager::new(Listens::No, None, &pulses, start);
        assert!(!nobody.may_feed(start + Duration::from_secs(3600)), "no watchdog, nothing to feed");
    }

    #[test]
    fn a_status_lists_a_few_liars_and_counts_the_others() {
        assert_eq!(named(&WorkerSet::EMPTY), "no liars");
        assert_eq!(named(&[8, 5].into_iter().collect()), "liars 5 8");
        assert_eq!(named(&(0..20).collect()), "liars 0 1 2 3 4 5 6 7 and 12 more");
    }
}
