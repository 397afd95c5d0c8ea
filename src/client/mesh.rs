//! The links of a worker with others: listens for those with a higher index, dials those with a lower one, and has each show that it
//! knows the key that the daemon gave to both.
//!
//! Nothing here blocks, and all of it is bounded: as many half-open links as workers and a few, each for a short time. A stranger costs
//! one descriptor until then.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::session::Session;
use crate::transport::tcp;
use crate::wire::{
    CHALLENGE_BYTES, GREETED_BYTES, GREETING_BYTES, LINK_FRAME_MAX, LinkEnds, LinkOrder, Nonce, challenge_frame,
    greeting_from, read_challenge,
};

/// The listener's token; tokens from [`LINKS`] on are those of links, by the other worker's index; from [`CALLS`] on of half-open ones.
pub(super) const LISTENER: Token = Token(8);
const LINKS: usize = 1 << 16;
const CALLS: usize = 1 << 17;

/// A link is made in this time, or not at all.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// Half-open links that others may have with this worker beside one of each.
const STRANGERS: usize = 8;
/// Connections taken in one turn.
const ACCEPTS_PER_TURN: usize = 8;
/// A peer that acknowledges nothing for so long is given up by the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

/// The links that a worker makes.
pub(super) struct Mesh {
    listener: Option<TcpListener>,
    /// There may be connections to take.
    accepting: bool,
    workers: usize,
    /// Empty, as is the next one, until the daemon wants a relay.
    calls: Vec<Option<Call>>,
    /// Per worker: the link that the daemon has ordered and that is not there yet.
    orders: Vec<Option<(LinkOrder, LinkEnds)>>,
    /// Where to listen, and what others are told instead, if anything.
    near: Option<IpAddr>,
    advertise: Option<IpAddr>,
    /// Listening was tried.
    tried: bool,
}

/// A connection that is not a link yet.
struct Call {
    stream: TcpStream,
    deadline: Instant,
    bytes: [u8; LINK_FRAME_MAX],
    read: usize,
    stage: Stage,
    ready: bool,
}

enum Stage {
    /// Dialled: the other end's challenge is to come.
    Challenge(LinkOrder, LinkEnds),
    /// Dialled and greeted: the other end's proof is to come.
    Greeted(LinkOrder, LinkEnds, Nonce, Nonce),
    /// Accepted and challenged: the other end's greeting is to come.
    Greeting(Nonce),
}

impl Stage {
    fn bytes(&self) -> usize {
        match self {
            Stage::Challenge(..) => CHALLENGE_BYTES,
            Stage::Greeted(..) => GREETED_BYTES,
            Stage::Greeting(_) => GREETING_BYTES,
        }
    }
}

/// What became of a call.
enum Outcome {
    /// It goes on.
    Open,
    /// It is a link with this worker.
    Link(u32),
    /// It is over.
    Over,
}

impl Mesh {
    pub(super) fn new(workers: usize, near: Option<IpAddr>, advertise: Option<IpAddr>) -> Mesh {
        Mesh {
            listener: None,
            accepting: false,
            workers,
            calls: Vec::new(),
            orders: Vec::new(),
            near,
            advertise,
            tried: false,
        }
    }

    /// The session is over: nobody is listened to or dialled any more.
    pub(super) fn close(&mut self) {
        self.listener = None;
        self.calls.clear();
    }

    /// A descriptor is ready.
    pub(super) fn ready(&mut self, token: Token, session: &mut Session) {
        match token {
            LISTENER => self.accepting = true,
            Token(at) if at >= CALLS => {
                if let Some(Some(call)) = self.calls.get_mut(at - CALLS) {
                    call.ready = true;
                }
            }
            Token(at) if at >= LINKS => session.link_ready(at - LINKS),
            _ => {}
        }
    }

    /// The port that it listens on.
    pub(super) fn port(&self) -> Option<u16> {
        self.listener.as_ref()?.local_addr().ok().map(|address| address.port())
    }

    /// When a call has taken too long.
    pub(super) fn timer(&self) -> Option<Instant> {
        self.calls.iter().flatten().map(|call| call.deadline).min()
    }

    /// Does what can be done; `true` if anything changed, or there is more to do.
    pub(super) fn turn(&mut self, session: &mut Session, registry: &Registry, now: Instant) -> bool {
        if !session.relays() {
            return false;
        }
        let begins = !std::mem::replace(&mut self.tried, true);
        if begins {
            self.calls = (0..2 * self.workers + STRANGERS).map(|_| None).collect();
            self.orders = vec![None; self.workers];
            self.listen(session, registry);
        }
        let mut made = begins;
        while let Some((order, ends)) = session.next_link() {
            let peer = order.peer;
            // What there is with this worker is of its last session.
            for call in &mut self.calls {
                let of = |call: &Call| matches!(&call.stage, Stage::Challenge(it, _) | Stage::Greeted(it, ..) if it.peer == peer);
                call.take_if(|call| of(call));
            }
            self.orders[peer as usize] = Some((order, ends));
            if ends.listens == peer && !self.dial(order, ends, registry, now) {
                self.give_up(peer, session);
            }
            made = true;
        }
        self.accept(registry, now);
        made |= self.accepting;
        for at in 0..self.calls.len() {
            made |= self.hear(at, session, registry, now);
        }
        made
    }

    /// Without a listener the daemon hears nothing of this worker, and serves it itself.
    fn listen(&mut self, session: &mut Session, registry: &Registry) {
        let Some(near) = self.near else { return };
        let listening = TcpListener::bind(SocketAddr::new(near, 0)).and_then(|mut listener| {
            registry.register(&mut listener, LISTENER, Interest::READABLE)?;
            Ok((listener.local_addr()?.port(), listener))
        });
        if let Ok((port, listener)) = listening {
            self.listener = Some(listener);
            session.reach(self.advertise, port);
        }
    }

    fn give_up(&mut self, peer: u32, session: &mut Session) {
        self.orders[peer as usize] = None;
        session.no_link(peer);
    }

    fn keep(&mut self, stream: TcpStream, stage: Stage, registry: &Registry, now: Instant) -> bool {
        let workers = self.orders.len();
        // Strangers cannot take the places of those that this worker dials.
        let places = match stage {
            Stage::Greeting(_) => workers..self.calls.len(),
            _ => 0..workers,
        };
        let Some(at) = self.calls[places.clone()].iter().position(Option::is_none) else { return false };
        let at = places.start + at;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = registry.register(&mut SourceFd(&stream.as_raw_fd()), Token(CALLS + at), interest).is_ok();
        if registered {
            let (bytes, deadline) = ([0; LINK_FRAME_MAX], now + HANDSHAKE);
            self.calls[at] = Some(Call { stream, deadline, bytes, read: 0, stage, ready: true });
        }
        registered
    }

    fn dial(&mut self, order: LinkOrder, ends: LinkEnds, registry: &Registry, now: Instant) -> bool {
        let address = SocketAddr::new(order.address, order.port);
        let Ok(stream) = mio::net::TcpStream::connect(address) else { return false };
        self.keep(stream.into(), Stage::Challenge(order, ends), registry, now)
    }

    fn accept(&mut self, registry: &Registry, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = self.listener.as_ref().filter(|_| self.accepting) else { return };
            match listener.accept() {
                Ok((stream, _)) => {
                    let stream = TcpStream::from(stream);
                    let mut nonce = [0; 32];
                    // The first bytes on a new socket fit into its buffer.
                    if getrandom::fill(&mut nonce).is_ok() && (&stream).write_all(&challenge_frame(&nonce)).is_ok() {
                        self.keep(stream, Stage::Greeting(nonce), registry, now);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nobody else, or out of descriptors: the next connection is announced anew.
                Err(_) => self.accepting = false,
            }
        }
    }

    /// Goes on with one call; `true` if it is a link now.
    fn hear(&mut self, at: usize, session: &mut Session, registry: &Registry, now: Instant) -> bool {
        let Some(call) = &mut self.calls[at] else { return false };
        let outcome = match call.go_on(&self.orders) {
            Outcome::Open if now < call.deadline => return false,
            Outcome::Open => Outcome::Over,
            outcome => outcome,
        };
        let Some(call) = self.calls[at].take() else { return false };
        let _ = registry.deregister(&mut SourceFd(&call.stream.as_raw_fd()));
        match (outcome, call.stage) {
            (Outcome::Link(peer), _) => {
                self.orders[peer as usize] = None;
                let linked = tcp::connection(call.stream, session.link_queue(), PATIENCE).and_then(|connection| {
                    let token = Token(LINKS + peer as usize);
                    let sources = [
                        (connection.inbound.descriptor(), Interest::READABLE),
                        (connection.outbound.descriptor(), Interest::WRITABLE),
                    ];
                    for (descriptor, interest) in sources {
                        let descriptor = descriptor.ok_or(io::Error::from(ErrorKind::Unsupported))?;
                        registry.register(&mut SourceFd(&descriptor), token, interest)?;
                    }
                    Ok(connection)
                });
                match linked {
                    Ok(connection) => session.link(peer, connection),
                    Err(_) => session.no_link(peer),
                }
                true
            }
            (_, Stage::Challenge(order, _) | Stage::Greeted(order, ..)) => {
                self.give_up(order.peer, session);
                true
            }
            _ => false,
        }
    }
}

impl Call {
    /// Reads what has come, and answers it.
    fn go_on(&mut self, orders: &[Option<(LinkOrder, LinkEnds)>]) -> Outcome {
        loop {
            let wanted = self.stage.bytes();
            while self.ready && self.read < wanted {
                // Not a byte more than is asked for: what follows it belongs to the link.
                match (&self.stream).read(&mut self.bytes[self.read..wanted]) {
                    Ok(0) => return Outcome::Over,
                    Ok(bytes) => self.read += bytes,
                    // Or not connected yet.
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                        self.ready = false;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Outcome::Over,
                }
            }
            if self.read < wanted {
                return Outcome::Open;
            }
            match self.answer(orders) {
                Some(Outcome::Open) => self.read = 0,
                Some(outcome) => return outcome,
                None => return Outcome::Open,
            }
        }
    }

    /// Answers a whole frame: `Open` if another one is to come, `None` if this one cannot be judged yet.
    fn answer(&mut self, orders: &[Option<(LinkOrder, LinkEnds)>]) -> Option<Outcome> {
        Some(match &self.stage {
            Stage::Challenge(order, ends) => {
                let bytes = self.bytes.first_chunk().expect("as long as the longest");
                let mut nonce = [0; 32];
                match (read_challenge(bytes), getrandom::fill(&mut nonce)) {
                    (Ok(challenge), Ok(())) if self.write(&ends.greeting(&challenge, &nonce)) => {
                        self.stage = Stage::Greeted(*order, *ends, challenge, nonce);
                        Outcome::Open
                    }
                    _ => Outcome::Over,
                }
            }
            Stage::Greeted(order, ends, challenge, nonce) => {
                let bytes = self.bytes.first_chunk().expect("as long as the longest");
                let right = ends.check_greeted(bytes, challenge, nonce).is_ok();
                if right { Outcome::Link(order.peer) } else { Outcome::Over }
            }
            Stage::Greeting(challenge) => {
                let bytes = self.bytes.first_chunk().expect("as long as the longest");
                let from = greeting_from(bytes).map(|from| from as usize).filter(|from| *from < orders.len());
                let Some(from) = from else { return Some(Outcome::Over) };
                // It may know of the link before this worker does: then it waits, as long as it may.
                let (order, ends) = orders[from].as_ref()?;
                match ends.greeted(bytes, challenge) {
                    Ok(greeted) if ends.dials == order.peer && self.write(&greeted) => Outcome::Link(order.peer),
                    _ => Outcome::Over,
                }
            }
        })
    }

    /// Writes a frame that fits into the socket's buffer.
    fn write(&self, bytes: &[u8]) -> bool {
        (&self.stream).write_all(bytes).is_ok()
    }
}
