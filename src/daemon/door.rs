//! Who may come in: accepts connections and shakes hands on a thread of its own, so that nobody outside can disturb a round.
//!
//! Everything is bounded: connections per second, half-open handshakes, the time of each. A peer that has not shown who it is
//! costs one descriptor and a few hundred bytes, and is gone after the time limit whatever it sends.

mod usher;

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::config::{Config, Mixed};
use super::mixed::{Difference, Mixture};
use crate::pipeline::{Counter, Handle, Job};
use crate::transport::Transport;
use crate::transport::rdma::verbs::AsyncEvent;
use crate::transport::rdma::{Fabric, LinkFailure, Offer};
use crate::wire::{
    ATTACH_BYTES, Credential, HELLO_BYTES, Hello, Nonce, Refusal, TRANSPORT_RDMA, Welcome, WorkerSet, accept_hello,
    begins_hello, challenge_frame, offer_frame, read_attach, welcome_frame,
};
use usher::{Busy, Usher};

const LISTENER: Token = Token(usize::MAX);
const DEVICE: Token = Token(usize::MAX - 1);

/// Refusals that are logged per second.
const REFUSALS_PER_SECOND: u32 = 10;

/// A worker that was offered RDMA has so many times as long to answer: it registers its memory meanwhile, which takes a second per few
/// gigabytes. It has shown who it is, and there is one such visitor per identity.
const ATTACH_FACTOR: u32 = 30;

/// One identity may join this often.
const BETWEEN_JOINS: Duration = Duration::from_secs(1);

/// The door's thread looks up at least this often, to see whether the daemon stops.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Shakes hands with whoever connects, and admits workers to the pipeline.
pub struct Door {
    listener: TcpListener,
    poll: Poll,
    job: Arc<Job>,
    rulebook: Arc<Rulebook>,
    rules: Arc<Rules>,
    usher: Usher,
    bucket: Bucket,
    visitors: Vec<Option<Visitor>>,
    rdma: Result<Arc<Fabric>, LinkFailure>,
    /// Per worker: its queue pair is being connected.
    connecting: Vec<Arc<AtomicBool>>,
    refusals: Bucket,
    joined: Vec<Option<Instant>>,
    next_session: u64,
    mixed: Mixed,
    mixture: Mixture,
    /// The newest session of each worker.
    sessions: Vec<u64>,
}

/// A connection that has not shown who it is.
struct Visitor {
    stream: TcpStream,
    nonce: Nonce,
    deadline: Instant,
    bytes: [u8; LONGEST],
    read: usize,
    stage: Stage,
}

impl Visitor {
    /// What has come begins no hello: more may never come, as one of another version is of another length.
    fn says_something_else(&self) -> bool {
        let header = self.bytes[..self.read].first_chunk();
        matches!(self.stage, Stage::Hello) && header.is_some_and(|header| !begins_hello(header))
    }
}

/// The longest frame that a visitor sends.
const LONGEST: usize = if HELLO_BYTES > ATTACH_BYTES { HELLO_BYTES } else { ATTACH_BYTES };

/// What a visitor is asked for.
enum Stage {
    /// Who it is.
    Hello,
    /// Its end of an RDMA connection.
    Attach(Box<Pending>),
}

/// A worker that was welcomed and offered RDMA.
struct Pending {
    welcome: Welcome,
    credential: Credential,
    nonce: Nonce,
    offer: Offer,
}

impl Stage {
    fn bytes(&self) -> usize {
        match self {
            Stage::Hello => HELLO_BYTES,
            Stage::Attach(_) => ATTACH_BYTES,
        }
    }
}

/// How workers may come, and the RDMA port that they can come to.
pub struct Ways {
    /// What was configured.
    pub transport: Transport,
    /// The port, or why there is none.
    pub rdma: Result<Fabric, LinkFailure>,
}

/// Whom the door lets in, and how fast.
#[derive(Clone)]
pub struct Rules {
    /// Per worker: what shows that a peer is it.
    pub credentials: Vec<Credential>,
    /// How long a connection may take to say who it is.
    pub handshake: Duration,
    /// New connections looked at per second.
    pub connections_per_second: u32,
}

/// The rules of now: a reload may change them while the door is open.
pub struct Rulebook(Mutex<Arc<Rules>>);

impl Rulebook {
    /// These rules, for the beginning.
    pub fn new(rules: Rules) -> Rulebook {
        Rulebook(Mutex::new(Arc::new(rules)))
    }

    /// The rules of now.
    pub fn rules(&self) -> Arc<Rules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these hold, for who is not in yet.
    pub fn set(&self, rules: Rules) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }
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
        rulebook: Arc<Rulebook>,
        handle: Handle,
        ways: Ways,
        config: &Config,
    ) -> io::Result<Door> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        if let Ok(fabric) = &ways.rdma {
            poll.registry().register(&mut SourceFd(&fabric.descriptor()), DEVICE, Interest::READABLE)?;
        }
        let mixture = Mixture::new(&job.plan.parameters);
        let rules = rulebook.rules();
        let workers = rules.credentials.len();
        Ok(Door {
            listener,
            poll,
            usher: Usher { job: job.clone(), handle, transport: ways.transport },
            job,
            bucket: Bucket::new(rules.connections_per_second),
            rulebook,
            rules,
            visitors: (0..Door::visitors(workers)).map(|_| None).collect(),
            rdma: ways.rdma.map(Arc::new),
            connecting: (0..workers).map(|_| Arc::default()).collect(),
            refusals: Bucket::new(REFUSALS_PER_SECOND),
            joined: vec![None; workers],
            next_session: 1,
            mixed: config.verify.mixed,
            mixture,
            sessions: vec![0; workers],
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
            self.rules = self.rulebook.rules();
            self.bucket.per_second = f64::from(self.rules.connections_per_second);
            let now = Instant::now();
            accepting |= events.iter().any(|event| event.token() == LISTENER);
            if accepting {
                accepting = self.accept(now);
            }
            if events.iter().any(|event| event.token() == DEVICE) {
                self.device_events();
            }
            for event in events.iter().filter(|event| ![LISTENER, DEVICE].contains(&event.token())) {
                self.hear(event.token().0, now);
            }
            self.expire(now);
        }
        for visitor in self.visitors.iter_mut().filter_map(Option::take) {
            self.usher.refuse(&visitor.stream, Refusal::Stopping);
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
            self.usher.handle.board.count(Counter::ConnectionsTooMany, 1);
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
                let deadline = now + self.rules.handshake;
                self.visitors[place] =
                    Some(Visitor { stream, nonce, deadline, bytes: [0; LONGEST], read: 0, stage: Stage::Hello });
            }
            Err(error) => tracing::debug!(%error, "a connection ended before the handshake"),
        }
    }

    fn hear(&mut self, place: usize, now: Instant) {
        let Some(visitor) = self.visitors.get_mut(place).and_then(Option::as_mut) else { return };
        let wanted = visitor.stage.bytes();
        loop {
            // Not a byte more than is asked for: what follows it belongs to the pipeline.
            match (&visitor.stream).read(&mut visitor.bytes[visitor.read..wanted]) {
                Ok(0) => break,
                Ok(bytes) => {
                    visitor.read += bytes;
                    if visitor.read == wanted || visitor.says_something_else() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let Some(mut visitor) = self.visitors[place].take() else { return };
        // Closing the descriptor takes it off the poll in any case; a worker's is registered anew with its reactor.
        let _ = self.poll.registry().deregister(&mut SourceFd(&visitor.stream.as_raw_fd()));
        if visitor.says_something_else() {
            self.refuse(&visitor.stream, Refusal::Unreadable, now);
            return;
        }
        if visitor.read < wanted {
            return;
        }
        match std::mem::replace(&mut visitor.stage, Stage::Hello) {
            Stage::Attach(pending) => self.attach(visitor, *pending),
            Stage::Hello => {
                let hello = visitor.bytes.first_chunk().expect("a visitor has room for a hello");
                match accept_hello(hello, &visitor.nonce, self.job.number, &self.rules.credentials) {
                    Ok(hello) => self.welcome(place, visitor, &hello, now),
                    Err(refusal) => self.refuse(&visitor.stream, refusal, now),
                }
            }
        }
    }

    fn refuse(&mut self, stream: &TcpStream, refusal: Refusal, now: Instant) {
        if self.refusals.take(now) {
            tracing::warn!(%refusal, "a connection was refused");
        }
        self.usher.refuse(stream, refusal);
    }

    /// The peer is who it says. Tells it the plan; offers RDMA if it asked for that, and admits it otherwise.
    fn welcome(&mut self, place: usize, mut visitor: Visitor, hello: &Hello, now: Instant) {
        let worker = hello.identity.worker;
        let since = self.joined[worker as usize].map(|joined| now.saturating_duration_since(joined));
        if let Some(since) = since.filter(|since| *since < BETWEEN_JOINS) {
            let wait_ms = (BETWEEN_JOINS - since).as_millis() as u64 + 1;
            self.usher.refuse(&visitor.stream, Refusal::TooSoon { found: u64::from(worker), wait_ms });
            return;
        }
        let asks = hello.transports & TRANSPORT_RDMA != 0;
        if self.usher.transport == Transport::Rdma && !asks {
            self.refuse(&visitor.stream, Refusal::RdmaOnly { found: u64::from(worker) }, now);
            return;
        }
        let attaching = self.attaching();
        let odd = {
            let here = here(&self.usher.handle, &self.job, &self.joined, &attaching, now);
            self.mixture.odd(worker as usize, &hello.marks, &here)
        };
        if let Some(Difference { other, fields, .. }) = odd.filter(|_| self.mixed == Mixed::Refuse) {
            self.usher.handle.board.count(Counter::MixedWorkers, 1);
            self.refuse(&visitor.stream, Refusal::Mixed { found: u64::from(worker), other, fields }, now);
            return;
        }
        let last = self.usher.handle.board.last().or(self.job.resume);
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
        // Of one identity at most one is asked for its end: each holds a queue pair.
        for other in &mut self.visitors {
            let same = |it: &Visitor| matches!(&it.stage, Stage::Attach(pending) if pending.welcome.worker == worker);
            if other.as_ref().is_some_and(same) {
                *other = None;
            }
        }
        let session = self.next_session;
        self.next_session += 1;
        let welcome = Welcome { plan: self.job.plan, worker, session, epoch: self.job.epoch, last };
        let credential = self.rules.credentials[worker as usize].clone();
        let mut told = (&visitor.stream).write_all(&welcome_frame(&welcome, &credential, &visitor.nonce, &hello.nonce));
        let offer = asks.then(|| self.offer(worker));
        if let Some(offer) = &offer {
            let endpoint = offer.as_ref().map(Offer::endpoint).map_err(|why| why.number());
            let frame = offer_frame(&endpoint, self.job.epoch, &credential, [&visitor.nonce, &hello.nonce]);
            told = told.and_then(|()| (&visitor.stream).write_all(&frame));
        }
        if let Err(error) = told {
            tracing::debug!(worker, %error, "a worker's connection ended during the handshake");
            return;
        }
        self.joined[worker as usize] = Some(now);
        self.sessions[worker as usize] = session;
        self.compare(worker, hello, now);
        match offer {
            None => self.usher.by_tcp(visitor.stream, worker, session, None),
            Some(Err(why)) => self.usher.by_tcp(visitor.stream, worker, session, Some(why)),
            Some(Ok(offer)) => {
                visitor.stage = Stage::Attach(Box::new(Pending { welcome, credential, nonce: hello.nonce, offer }));
                visitor.read = 0;
                visitor.deadline = now + ATTACH_FACTOR * self.rules.handshake;
                let descriptor = visitor.stream.as_raw_fd();
                let again = self.poll.registry().register(&mut SourceFd(&descriptor), Token(place), Interest::READABLE);
                match again {
                    Ok(()) => self.visitors[place] = Some(visitor),
                    Err(error) => tracing::debug!(worker, %error, "a worker's connection ended during the handshake"),
                }
            }
        }
    }

    /// Workers that were offered RDMA and are not in the pipeline yet: they register their memory, which takes seconds.
    fn attaching(&self) -> WorkerSet {
        let asked = self.visitors.iter().flatten().filter_map(|visitor| match &visitor.stage {
            Stage::Attach(pending) => Some(pending.welcome.worker as usize),
            Stage::Hello => None,
        });
        let connecting = (0..self.connecting.len()).filter(|worker| self.connecting[*worker].load(Ordering::Relaxed));
        asked.chain(connecting).collect()
    }

    /// Says, or sees to it, that a group whose newest worker this is computes the same.
    fn compare(&mut self, worker: u32, hello: &Hello, now: Instant) {
        if self.mixed == Mixed::Ignore {
            return;
        }
        let attaching = self.attaching();
        let here = here(&self.usher.handle, &self.job, &self.joined, &attaching, now);
        let news = self.mixture.join(worker as usize, hello.marks, &here);
        self.usher.handle.board.count(Counter::MixedWorkers, news.len() as u64);
        // No more lines than a group has workers, for each that joins, which it can once a second.
        for Difference { worker, other, fields } in news {
            tracing::warn!(
                worker,
                other,
                %fields,
                "worker computes differently than others of its group: honest ones may be named as liars"
            );
        }
        if self.mixed == Mixed::Refuse {
            // Those that were let in before it could be known. They learn why when they come again.
            for Difference { worker, .. } in self.mixture.all_odd(worker as usize, &here) {
                self.usher.handle.dismiss(worker, self.sessions[worker as usize]);
            }
        }
    }

    fn offer(&self, worker: u32) -> Result<Offer, LinkFailure> {
        let fabric = self.rdma.as_ref().map_err(|why| *why)?;
        fabric.offer(worker as usize).map_err(|why| {
            tracing::warn!(worker, %why, "no RDMA connection can be offered");
            why.failure
        })
    }

    /// A worker that was offered RDMA answers: with its end, or why it has none.
    fn attach(&mut self, visitor: Visitor, pending: Pending) {
        let Pending { welcome, credential, nonce, offer } = pending;
        let Welcome { worker, session, .. } = welcome;
        let bytes = visitor.bytes.first_chunk().expect("a visitor has room for an attach");
        let answer = match read_attach(bytes, &welcome, &credential, [&visitor.nonce, &nonce]) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(worker, %error, "a worker's answer to the offer of RDMA was refused");
                self.usher.refuse(&visitor.stream, Refusal::Unreadable);
                return;
            }
        };
        let stream = visitor.stream;
        let (endpoint, area) = match answer {
            Ok(answer) => answer,
            Err(status) => {
                return self.usher.by_tcp_after_all(stream, worker, session, LinkFailure::from_number(status));
            }
        };
        let Ok(fabric) = self.rdma.clone() else { return };
        // The kernel looks for the way to the peer, and takes a second to find that there is none: nobody else waits for that, and
        // one identity has one such thread.
        let busy = self.connecting[worker as usize].clone();
        if busy.swap(true, Ordering::AcqRel) {
            let wait_ms = BETWEEN_JOINS.as_millis() as u64;
            self.usher.refuse(&stream, Refusal::TooSoon { found: u64::from(worker), wait_ms });
            return;
        }
        let (usher, busy) = (self.usher.clone(), Busy(busy));
        let connect = move || usher.connect(&fabric, busy, offer, &endpoint, area, stream, worker, session);
        if let Err(error) = std::thread::Builder::new().name("solon-attach".into()).spawn(connect) {
            tracing::error!(worker, %error, "no thread for an RDMA connection");
        }
    }

    fn device_events(&self) {
        let Ok(fabric) = &self.rdma else { return };
        for event in fabric.events() {
            match event {
                AsyncEvent::Other(_) => tracing::debug!(?event, "RDMA device event"),
                AsyncEvent::DeviceLost | AsyncEvent::CompletionQueueOverrun => {
                    tracing::error!(?event, "RDMA device event")
                }
                _ => tracing::warn!(?event, "RDMA device event"),
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        for place in &mut self.visitors {
            if let Some(late) = place.take_if(|visitor| now >= visitor.deadline)
                && let Stage::Attach(pending) = late.stage
            {
                tracing::warn!(worker = pending.welcome.worker, "worker did not answer the offer of RDMA in time");
            }
        }
    }
}

/// Tells which workers have a session; also if one was welcomed so recently that the pipeline may not have it yet.
fn here<'a>(
    handle: &'a Handle,
    job: &'a Job,
    joined: &'a [Option<Instant>],
    attaching: &'a WorkerSet,
    now: Instant,
) -> impl Fn(usize) -> bool + 'a {
    move |worker| {
        let place = job.plan.parameters.place(worker);
        handle.board.connected(place.group).contains(place.row)
            || attaching.contains(worker)
            || joined[worker].is_some_and(|joined| now.saturating_duration_since(joined) < BETWEEN_JOINS)
    }
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
