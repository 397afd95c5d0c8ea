//! How long one call waits for one round, and what has it give up sooner.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::driver::Driver;
use super::error::{ClientError, Lost};
use super::worker::JoinOptions;

/// A call that waits asks this often whether it is to give up.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// What is asked by calls that wait, in their own thread, some twenty times a second: is the wait to be given up? So Ctrl-C works
/// while a worker waits for others.
#[derive(Clone)]
pub struct Interrupt(Arc<dyn Fn() -> bool + Send + Sync>);

impl Interrupt {
    /// Gives up where `wanted` says so. It must return soon, and must not use the worker that asks.
    pub fn new(wanted: impl Fn() -> bool + Send + Sync + 'static) -> Interrupt {
        Interrupt(Arc::new(wanted))
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupt")
    }
}

pub(super) struct Patience<'a> {
    round: u64,
    started: Instant,
    limit: Duration,
    interrupt: Option<&'a Interrupt>,
    asked: Instant,
}

impl Patience<'_> {
    pub(super) fn new(round: u64, options: &JoinOptions) -> Patience<'_> {
        let started = Instant::now();
        let JoinOptions { round_timeout: limit, interrupt, .. } = options;
        Patience { round, started, limit: *limit, interrupt: interrupt.as_ref(), asked: started }
    }

    pub(super) fn lost(&self, why: Lost) -> ClientError {
        ClientError::AggregatorLost { round: self.round, why }
    }

    pub(super) fn turn(&mut self, driver: &mut Driver, direct: Option<&mut [f32]>) -> Result<(), ClientError> {
        let now = Instant::now();
        let waited = now - self.started;
        if waited >= self.limit {
            return Err(ClientError::Timeout { round: self.round, waited });
        }
        let mut wait = self.limit - waited;
        if let Some(interrupt) = self.interrupt {
            if now - self.asked >= ASKED_EVERY {
                self.asked = now;
                if (interrupt.0)() {
                    return Err(ClientError::Interrupted { round: self.round });
                }
            }
            wait = wait.min(ASKED_EVERY);
        }
        driver.turn(Some(wait), direct).map_err(|why| self.lost(why))
    }
}
