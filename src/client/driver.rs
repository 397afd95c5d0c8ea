//! Moves a session's bytes, its links' too, from whichever thread has it.

use std::io;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::error::Lost;
use super::mesh::Mesh;
use super::session::Session;
use crate::transport::Disconnect;

const INBOUND: Token = Token(0);
const OUTBOUND: Token = Token(1);
const WAKE: Token = Token(2);

pub(super) struct Driver {
    poll: Poll,
    events: Events,
    pub(super) session: Session,
    pub(super) mesh: Mesh,
}

impl Driver {
    /// A driver, and what wakes it.
    pub(super) fn new(session: Session, mesh: Mesh) -> io::Result<(Driver, Waker)> {
        let poll = Poll::new()?;
        let (inbound, outbound) = session.halves();
        let sources = [
            (inbound.descriptor(), INBOUND, Interest::READABLE),
            (inbound.completions(), INBOUND, Interest::READABLE),
            (outbound.descriptor(), OUTBOUND, Interest::WRITABLE),
            (outbound.completions(), OUTBOUND, Interest::READABLE),
        ];
        for (descriptor, token, interest) in sources {
            if let Some(descriptor) = descriptor {
                poll.registry().register(&mut SourceFd(&descriptor), token, interest)?;
            }
        }
        let waker = Waker::new(poll.registry(), WAKE)?;
        Ok((Driver { poll, events: Events::with_capacity(64), session, mesh }, waker))
    }

    /// Moves what can be moved; if that is nothing, waits for the sockets.
    pub(super) fn turn(&mut self, wait: Option<Duration>, direct: Option<&mut [f32]>) -> Result<(), Lost> {
        let now = Instant::now();
        let moved = self.session.drive(now, direct).inspect_err(|_| self.mesh.close())?;
        let linked = self.mesh.turn(&mut self.session, self.poll.registry(), now);
        let timer = self.session.timer().into_iter().chain(self.mesh.timer()).min();
        // The kernel counts in milliseconds: rounded down, the last of them would be spent spinning.
        let timer = timer.map(|timer| timer.saturating_duration_since(now) + Duration::from_millis(1));
        let busy = moved || linked;
        let wait = if busy { Some(Duration::ZERO) } else { wait.into_iter().chain(timer).min() };
        // Links are only looked at when something was announced of them, so that is asked for while there is work, too.
        if busy && !self.session.relays() {
            return Ok(());
        }
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(Disconnect::from(error).into()),
            _ => {}
        }
        for event in &self.events {
            self.mesh.ready(event.token(), &mut self.session);
        }
        Ok(())
    }
}
