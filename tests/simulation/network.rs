//! The virtual network: byte streams with latency and a bounded buffer, like TCP's. A frame may arrive in pieces; a buffer that
//! nobody empties fills, and the sender stalls; a link may be cut so that what was under way is lost.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use solon::transport::{Connection, Disconnect, Flushed, Inbound, Landing, Outbound, Outgoing};
use solon::wire::{HEADER_BYTES, Header, Violation};

use crate::dice::Dice;

/// The unit of virtual time.
pub const TICK: Duration = Duration::from_millis(1);

/// From worker to daemon, or back; between workers, from the one that dials, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up = 0,
    Down = 1,
}

/// How a link behaves.
#[derive(Clone, Debug, Default)]
pub struct Quality {
    /// Ticks that every byte takes.
    pub base: u64,
    /// Ticks that some take more; the order stays.
    pub jitter: u64,
    /// Bytes under way and not read, per direction.
    pub capacity: usize,
    /// Pieces are torn apart at random places.
    pub torn: bool,
}

struct Wire {
    segments: VecDeque<(Instant, Vec<u8>)>,
    /// Bytes of the first segment that were read.
    taken: usize,
    in_flight: usize,
    last: Option<Instant>,
}

impl Wire {
    fn read(&mut self, now: Instant, into: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < into.len() {
            let Some((due, bytes)) = self.segments.front() else { break };
            if *due > now {
                break;
            }
            let count = (bytes.len() - self.taken).min(into.len() - filled);
            into[filled..filled + count].copy_from_slice(&bytes[self.taken..self.taken + count]);
            filled += count;
            self.taken += count;
            if self.taken == bytes.len() {
                self.segments.pop_front();
                self.taken = 0;
            }
        }
        self.in_flight -= filled;
        filled
    }
}

struct State {
    closed: bool,
    /// It was one of its ends that ended it, and not the network.
    hung_up: bool,
    /// Where a link between workers: the frames that were read whole, per way.
    read: Option<[Vec<(u64, u32)>; 2]>,
    quality: Quality,
    dice: Dice,
    wires: [Wire; 2],
}

/// One connection, between a worker and the daemon or two workers, as the network sees it.
#[derive(Clone)]
pub struct Link(Arc<Mutex<State>>);

impl Link {
    /// A link, with the halves that the daemon and the worker hold (the worker that listens, and that dials). `queue` bounds the frames
    /// waiting on a side.
    pub fn new(quality: Quality, dice: Dice, queue: usize) -> (Link, Connection, Connection) {
        let wire = || Wire { segments: VecDeque::new(), taken: 0, in_flight: 0, last: None };
        let link = Link(Arc::new(Mutex::new(State {
            closed: false,
            hung_up: false,
            read: None,
            quality,
            dice,
            wires: [wire(), wire()],
        })));
        let daemon = link.end(Way::Up, Way::Down, queue);
        let worker = link.end(Way::Down, Way::Up, queue);
        (link, daemon, worker)
    }

    fn end(&self, from: Way, to: Way, queue: usize) -> Connection {
        let receiver =
            Receiver { link: self.clone(), way: from, staging: [0; HEADER_BYTES], staged: 0, current: None, landed: 0 };
        let sender = Sender { link: self.clone(), way: to, queue: VecDeque::new(), limit: queue, sent: 0 };
        Connection { inbound: Box::new(receiver), outbound: Box::new(sender) }
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().expect("one thread"))
    }

    /// Ends the connection; with `lossy` what is under way never arrives.
    pub fn cut(&self, lossy: bool) {
        self.with(|state| {
            state.closed = true;
            if lossy {
                state.wires.iter_mut().for_each(|wire| {
                    wire.segments.clear();
                    (wire.taken, wire.in_flight) = (0, 0);
                });
            }
        });
    }

    /// One of its ends ends it.
    fn hang_up(&self) {
        self.with(|state| state.hung_up |= !state.closed);
        self.cut(false);
    }

    /// Was it one of its ends that ended it?
    pub fn was_hung_up(&self) -> bool {
        self.with(|state| state.hung_up)
    }

    /// Notes from now on which chunks are read from it.
    pub fn watch(&self) {
        self.with(|state| state.read = Some(Default::default()));
    }

    /// The chunks, by round and number, that were read of those that travelled this way since this was last asked.
    pub fn take_read(&self, way: Way) -> Vec<(u64, u32)> {
        self.with(|state| state.read.as_mut().map_or(Vec::new(), |read| std::mem::take(&mut read[way as usize])))
    }

    /// Is the connection over?
    pub fn is_closed(&self) -> bool {
        self.with(|state| state.closed)
    }

    /// Sends as much of `bytes` as the buffer takes, and says how much that is.
    pub fn write(&self, way: Way, bytes: &[u8], now: Instant) -> usize {
        self.with(|state| {
            let State { closed, quality, dice, wires, .. } = state;
            let wire = &mut wires[way as usize];
            let count = if *closed { 0 } else { bytes.len().min(quality.capacity - wire.in_flight) };
            let mut rest = &bytes[..count];
            wire.in_flight += count;
            while !rest.is_empty() {
                let piece = if quality.torn && dice.chance(0.3) { dice.between(1, rest.len()) } else { rest.len() };
                let delay = (quality.base + dice.below(quality.jitter + 1)) as u32;
                let due = (now + TICK * delay).max(wire.last.unwrap_or(now));
                wire.last = Some(due);
                wire.segments.push_back((due, rest[..piece].to_vec()));
                rest = &rest[piece..];
            }
            count
        })
    }

    fn read(&self, way: Way, into: &mut [u8], now: Instant) -> (usize, bool) {
        self.with(|state| {
            let wire = &mut state.wires[way as usize];
            let count = wire.read(now, into);
            (count, state.closed && wire.segments.is_empty())
        })
    }
}

struct Receiver {
    link: Link,
    way: Way,
    staging: [u8; HEADER_BYTES],
    staged: usize,
    current: Option<Header>,
    landed: usize,
}

impl Inbound for Receiver {
    fn receive(&mut self, landing: &mut dyn Landing, now: Instant) -> Result<Option<Header>, Disconnect> {
        loop {
            let Some(header) = self.current else {
                let (count, over) = self.link.read(self.way, &mut self.staging[self.staged..], now);
                self.staged += count;
                if self.staged < HEADER_BYTES {
                    return if over { Err(Disconnect::Closed) } else { Ok(None) };
                }
                let header = Header::parse(&self.staging)?;
                self.staged = 0;
                if header.payload_bytes == 0 {
                    return Ok(Some(header));
                }
                (self.current, self.landed) = (Some(header), 0);
                continue;
            };
            let Some(payload) = landing.place(&header)? else { return Ok(None) };
            if payload.len() != header.payload_bytes as usize {
                let expected = payload.len() as u32;
                return Err(Violation::Length { found: header.payload_bytes, expected }.into());
            }
            let (count, over) = self.link.read(self.way, &mut payload[self.landed..], now);
            self.landed += count;
            if self.landed == payload.len() {
                self.current = None;
                let (way, what) = (self.way as usize, (header.round, header.chunk));
                self.link.with(|state| state.read.iter_mut().for_each(|read| read[way].push(what)));
                return Ok(Some(header));
            }
            return if over { Err(Disconnect::Closed) } else { Ok(None) };
        }
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    fn close(&mut self) {
        self.link.hang_up();
    }
}

struct Sender {
    link: Link,
    way: Way,
    queue: VecDeque<Outgoing>,
    limit: usize,
    /// Bytes of the first frame that have left.
    sent: usize,
}

impl Outbound for Sender {
    fn send(&mut self, frame: Outgoing) -> Result<(), Outgoing> {
        if self.queue.len() >= self.limit {
            return Err(frame);
        }
        self.queue.push_back(frame);
        Ok(())
    }

    fn flush(&mut self, now: Instant) -> Result<Flushed, Disconnect> {
        let mut bytes = 0;
        while let Some(frame) = self.queue.front() {
            if self.link.is_closed() {
                return Err(Disconnect::Closed);
            }
            let rest = &frame.bytes()[self.sent..];
            let count = self.link.write(self.way, rest, now);
            bytes += count;
            if count < rest.len() {
                self.sent += count;
                break;
            }
            self.sent = 0;
            self.queue.pop_front();
        }
        Ok(Flushed { bytes, empty: self.queue.is_empty() })
    }

    fn queued(&self) -> usize {
        self.queue.len()
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    fn close(&mut self) {
        self.link.hang_up();
    }
}
