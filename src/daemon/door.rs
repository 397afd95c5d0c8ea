//! Who may come in: accepts connections and shakes hands on a thread of its own, so that nobody outside can disturb a round.
//!
//! Everything is bounded: connections per second, half-open handshakes, the time of each. A peer that has not shown who it is
//! costs one descriptor and a few hundred bytes, and is gone after the time limit whatever it sends.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use crate::pipeline::{Handle, Job, Limits};
use crate::transport::tcp;
use crate::wire::{
    Credential, HELLO_BYTES, Hello, Nonce, Refusal, Welcome, accept_hello, challenge_frame, refusal_frame,
    welcome_frame,
};

const LISTENER: Token = Token(usize::MAX);

/// Refusals that are logged per second.
const REFUSALS_PER_SECOND: u32 = 10;

/// One identity may join this often.
const BETWEEN_JOINS: Duration = Duration::from_secs(1);

/// The door's thread looks up at least this often, to see whether the daemon stops.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Shakes hands with whoever connects, and admits workers to the pipeline.
pub struct Door {
    listener: TcpListener,
    poll: Poll,
    job: Arc<Job>,
    credentials: Vec<Credential>,
    handle: Handle,
    handshake: Duration,
    bucket: Bucket,
    visitors: Vec<Option<Visitor>>,
    refusals: Bucket,
    joined: Vec<Option<Instant>>,
    next_session: u64,
}

/// A connection that has not shown who it is.
struct Visitor {
    stream: TcpStream,
    nonce: Nonce,
    deadline: Instant,
    hello: [u8; HELLO_BYTES],
    read: usize,
}

/// Lets so many connections through per second, and as many at once.
struct Bucket {
    per_second: f64,
    left: f64,
    since: Instant,
}

impl Bucket {
    fn new(per_second: u32) -> Bucket {
        Bucket { per_second: f64::from(per_second), left: f64::from(per_second), since: Instant::now() }
    }

    fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.since).as_secs_f64() * self.per_second;
        self.left = (self.left + earned).min(self.per_second);
        self.since = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

impl Door {
    /// A door behind `listener`.
    ///
    /// # Errors
    /// If the operating system gives no event queue.
    pub fn new(
        listener: std::net::TcpListener,
        job: Arc<Job>,
        credentials: Vec<Credential>,
        handle: Handle,
        handshake: Duration,
        per_second: u32,
    ) -> io::Result<Door> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let workers = credentials.len();
        Ok(Door {
            listener,
            poll,
            job,
            credentials,
            handle,
            handshake,
            bucket: Bucket::new(per_second),
            visitors: (0..Door::visitors(workers)).map(|_| None).collect(),
            refusals: Bucket::new(REFUSALS_PER_SECOND),
            joined: vec![None; workers],
            next_session: 1,
        })
    }

    /// How many connections of a job of `workers` workers may be shaking hands at once.
    pub fn visitors(workers: usize) -> usize {
        4 * workers + 16
    }

    /// Serves until `over`.
    ///
    /// # Errors
    /// If waiting for events fails.
    pub fn run(mut self, over: impl Fn() -> bool) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        let mut accepting = true;
        while !over() {
            let wait = if accepting { Duration::ZERO } else { LOOK_UP };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let now = Instant::now();
            accepting |= events.iter().any(|event| event.token() == LISTENER);
            if accepting {
                accepting = self.accept(now);
            }
            for event in events.iter().filter(|event| event.token() != LISTENER) {
                self.hear(event.token().0, now);
            }
            self.expire(now);
        }
        for visitor in self.visitors.iter_mut().filter_map(Option::take) {
            refuse(&visitor.stream, Refusal::Stopping);
        }
        Ok(())
    }

    /// Takes connections, a bounded number of them; `true` if there may be more.
    fn accept(&mut self, now: Instant) -> bool {
        for _ in 0..64 {
            match self.listener.accept() {
                Ok((stream, _)) => self.greet(stream.into(), now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // Out of descriptors, say: those who are in go on, and we try again after a while.
                    tracing::error!(%error, "cannot accept connections");
                    std::thread::sleep(LOOK_UP);
                    return true;
                }
            }
        }
        true
    }

    fn greet(&mut self, stream: TcpStream, now: Instant) {
        let place = self.visitors.iter().position(Option::is_none);
        let (Some(place), true) = (place, self.bucket.take(now)) else {
            // A reset costs us nothing further; the peer sees at once that it was turned away.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return;
        };
        let mut nonce = [0; 32];
        let greeted = stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string())))
            // The first bytes on a new socket: they fit into its buffer, or something is wrong with it.
            .and_then(|()| (&stream).write_all(&challenge_frame(&nonce)))
            .and_then(|()| {
                self.poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), Token(place), Interest::READABLE)
            });
        match greeted {
            Ok(()) => {
                let deadline = now + self.handshake;
                self.visitors[place] = Some(Visitor { stream, nonce, deadline, hello: [0; HELLO_BYTES], read: 0 });
            }
            Err(error) => tracing::debug!(%error, "a connection ended before the handshake"),
        }
    }

    fn hear(&mut self, place: usize, now: Instant) {
        let Some(visitor) = self.visitors.get_mut(place).and_then(Option::as_mut) else { return };
        loop {
            // Not a byte more than the hello: what follows it belongs to the pipeline.
            match (&visitor.stream).read(&mut visitor.hello[visitor.read..]) {
                Ok(0) => break,
                Ok(bytes) => {
                    visitor.read += bytes;
                    if visitor.read == HELLO_BYTES {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let Some(visitor) = self.visitors[place].take() else { return };
        // Closing the descriptor takes it off the poll in any case; a worker's is registered anew with its reactor.
        let _ = self.poll.registry().deregister(&mut SourceFd(&visitor.stream.as_raw_fd()));
        if visitor.read == HELLO_BYTES {
            match accept_hello(&visitor.hello, &visitor.nonce, self.job.number, &self.credentials) {
                Ok(hello) => self.admit(visitor, &hello, now),
                Err(refusal) => {
                    if self.refusals.take(now) {
                        tracing::warn!(%refusal, "a connection was refused");
                    }
                    refuse(&visitor.stream, refusal);
                }
            }
        }
    }

    fn admit(&mut self, visitor: Visitor, hello: &Hello, now: Instant) {
        let worker = hello.identity.worker;
        let since = self.joined[worker as usize].map(|joined| now.saturating_duration_since(joined));
        if let Some(since) = since.filter(|since| *since < BETWEEN_JOINS) {
            let wait_ms = (BETWEEN_JOINS - since).as_millis() as u64 + 1;
            refuse(&visitor.stream, Refusal::TooSoon { found: u64::from(worker), wait_ms });
            return;
        }
        let last = self.handle.board.last().or(self.job.resume);
        if let (Some(theirs), Some(ours)) = (hello.last, last)
            && theirs.round == ours.round
            && theirs.digest != ours.digest
        {
            tracing::warn!(
                worker,
                round = ours.round,
                "worker holds another update of this round than the daemon pushed"
            );
        }
        let session = self.next_session;
        self.next_session += 1;
        let plan = self.job.plan;
        let welcome = Welcome { plan, worker, session, epoch: self.job.epoch, last };
        let frame = welcome_frame(&welcome, &self.credentials[worker as usize], &visitor.nonce, &hello.nonce);
        let Visitor { stream, .. } = visitor;
        let outbound = Limits::of(&plan, self.job.updates).outbound;
        // The pusher's own deadline comes first, and says why.
        let patience = self.job.write_deadline + Duration::from_secs(5);
        let connection = (&stream).write_all(&frame).and_then(|()| tcp::connection(stream, outbound, patience));
        match connection {
            Ok(connection) => {
                self.joined[worker as usize] = Some(now);
                if !self.handle.admit(worker, session, connection) {
                    tracing::error!(worker, "too many workers join at once: this one must try again");
                }
            }
            Err(error) => tracing::debug!(worker, %error, "a worker's connection ended during the handshake"),
        }
    }

    fn expire(&mut self, now: Instant) {
        for place in &mut self.visitors {
            if place.as_ref().is_some_and(|visitor| now >= visitor.deadline) {
                *place = None;
            }
        }
    }
}

fn refuse(stream: &TcpStream, refusal: Refusal) {
    // Who does not take the refusal sees the connection end.
    let mut stream = stream;
    let _ = stream.write_all(&refusal_frame(refusal));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_its_rate_through_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket { per_second: 200.0, left: 200.0, since: start };
        let through = (0..100_000u64).filter(|at| bucket.take(start + Duration::from_micros(*at * 10))).count();
        assert!((395..=401).contains(&through), "{through} in the first second");
    }
}
