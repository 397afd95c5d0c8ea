//! Submits what is ready of a gradient whose rest is still being computed.

use std::time::Instant;

use super::{Worker, begin_alone};
use crate::client::error::ClientError;
use crate::client::patience::Patience;
use crate::client::session::Source;

impl Worker {
    /// Submits the chunks that are whole within the first `ready` numbers of the gradient that the next [`Worker::exchange`] ends.
    /// So a round begins while its gradient is still being computed. Blocks while credits are short, as [`Worker::submit`].
    ///
    /// What was said to be ready must not change until that call, which is to be made with the same numbers. No update lands in
    /// `gradient` before it.
    ///
    /// # Errors
    /// As [`Worker::submit`]; and if another round is in flight.
    pub fn feed(&mut self, gradient: &[f32], ready: usize) -> Result<(), ClientError> {
        self.check_gradient("the gradient", gradient.len())?;
        let mut driver = self.shared.driver();
        let round = match self.fed {
            Some(round) => round,
            None => begin_alone(&mut driver.session)?,
        };
        self.fed = Some(round);
        let mut patience = Patience::new(round, &self.options);
        loop {
            let queued = driver.session.pump_ready(Source::Separate(gradient), ready, None);
            let moved = if queued {
                driver.session.drive(Instant::now(), None).map(|_| ()).map_err(|why| patience.lost(why))
            } else {
                patience.turn(&mut driver, None)
            };
            if let Err(error) = moved {
                driver.session.abandon();
                self.fed = None;
                return Err(error);
            }
            if queued {
                return Ok(());
            }
        }
    }
}
