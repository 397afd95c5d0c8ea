//! What the receiver was really given: every frame on its way into a slot is looked at once more, by rules written down a
//! second time, and noted for the judge. Where updates are relayed, so is what workers say, and what they are sent.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use solon::code::Layout;
use solon::code::Precision;
use solon::pipeline::Board;
use solon::transport::{Disconnect, Flushed, Inbound, Landing, Outbound, Outgoing};
use solon::wire::{HEADER_BYTES, Header, Kind, Said, Violation};

/// A frame that landed in a slot of `owner`.
#[derive(Clone, Debug)]
pub struct Seen {
    pub owner: u32,
    pub header: Header,
    /// Its checksum is right.
    pub valid: bool,
    pub payload: Vec<u8>,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Said { worker, said, .. } => write!(f, "worker {worker} says {said:?}"),
            Note::Sent { worker, header: Header { kind, round, chunk, worker: other, .. }, .. } => {
                write!(f, "to worker {worker}: {kind:?}, round {round}, chunk {chunk}, worker {other}")
            }
        }
    }
}

/// What the taps of one daemon noted since it was emptied.
#[derive(Default)]
pub struct Log {
    pub seen: Vec<Seen>,
    /// A frame landed that may not.
    pub breach: Option<String>,
    /// What was said about links and chunks, and what was sent, in this order.
    pub notes: Vec<Note>,
}

/// Something that has to do with the relay.
#[derive(Clone, Debug)]
pub enum Note {
    /// A worker said something in a frame that is right.
    Said { worker: u32, session: u64, said: Said },
    /// The daemon queued a frame for a worker, of which these are the first bytes behind the header.
    Sent { worker: u32, session: u64, header: Header, payload: Vec<u8> },
}

/// What a frame must be to land.
#[derive(Clone)]
pub struct Rules {
    pub precision: Precision,
    pub job: u64,
    pub window: u64,
    pub layout: Layout,
    pub board: Arc<Board>,
    /// Words are noted too.
    pub relayed: bool,
}

/// The receiving half of one session, watched.
pub struct Tap {
    pub inner: Box<dyn Inbound>,
    pub owner: u32,
    pub session: u64,
    pub rules: Rules,
    pub log: Arc<Mutex<Log>>,
    pub buffer: Vec<u8>,
}

struct Gate<'a> {
    owner: u32,
    session: u64,
    rules: &'a Rules,
    log: &'a Mutex<Log>,
    buffer: &'a mut Vec<u8>,
    landing: &'a mut dyn Landing,
}

impl Gate<'_> {
    fn breach(&self, header: &Header, room: usize) -> Option<&'static str> {
        let layout = &self.rules.layout;
        let width = |chunk: u32| layout.chunk(chunk as usize).width;
        match header {
            header if header.kind != Kind::Shard => Some("not a shard"),
            header if header.job != self.rules.job => Some("another job's"),
            header if header.session != self.session => Some("another session's"),
            header if header.worker != self.owner => Some("in another worker's name"),
            header if header.chunk as usize >= layout.chunks() => Some("of a chunk that does not exist"),
            header if header.round >= self.rules.board.closed() + self.rules.window => Some("of a future round"),
            header
                if room != self.rules.precision.shard_bytes(width(header.chunk))
                    || room != header.payload_bytes as usize =>
            {
                Some("not its length")
            }
            _ => None,
        }
    }
}

impl Landing for Gate<'_> {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        let Some(room) = self.landing.place(header)?.map(|room| room.len()) else { return Ok(None) };
        if let Some(breach) = self.breach(header, room) {
            let mut log = self.log.lock().expect("one thread");
            log.breach.get_or_insert(format!("a frame {breach} landed: worker {}, {header:?}", self.owner));
        }
        self.buffer.resize(room, 0);
        Ok(Some(self.buffer))
    }
}

impl Inbound for Tap {
    fn receive(&mut self, landing: &mut dyn Landing, now: Instant) -> Result<Option<Header>, Disconnect> {
        let Tap { inner, owner, session, rules, log, buffer } = self;
        let mut gate = Gate { owner: *owner, session: *session, rules, log, buffer, landing };
        let header = inner.receive(&mut gate, now)?;
        let is_right = |header: &Header| {
            let names = (header.job, header.session, header.worker);
            names == (rules.job, *session, *owner) && header.verifies(&[])
        };
        if let Some(header) = header.filter(|header| rules.relayed && header.payload_bytes == 0 && is_right(header))
            && let Some(said) = Said::of(&header)
        {
            let note = Note::Said { worker: *owner, session: *session, said };
            log.lock().expect("one thread").notes.push(note);
        }
        let Some(header) = header.filter(|header| header.payload_bytes > 0) else { return Ok(header) };
        if let Some(room) = landing.place(&header)? {
            room.copy_from_slice(buffer);
        }
        let (valid, payload) = (header.verifies(buffer), buffer.clone());
        log.lock().expect("one thread").seen.push(Seen { owner: *owner, header, valid, payload });
        Ok(Some(header))
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.inner.descriptor()
    }

    fn close(&mut self) {
        self.inner.close();
    }
}

/// The sending half of one session where updates are relayed, watched.
pub struct Spout {
    pub inner: Box<dyn Outbound>,
    pub worker: u32,
    pub session: u64,
    /// The worker can be asked to relay.
    pub far: bool,
    pub log: Arc<Mutex<Log>>,
}

/// As many bytes of a payload as the longest short frame has.
const NOTED: usize = 48;

impl Outbound for Spout {
    fn send(&mut self, frame: Outgoing) -> Result<(), Outgoing> {
        let (head, payload) = frame.bytes().split_first_chunk::<HEADER_BYTES>().expect("every frame has a header");
        let header = Header::parse(head).expect("the daemon writes headers that can be read");
        let payload = payload[..payload.len().min(NOTED)].to_vec();
        let note = Note::Sent { worker: self.worker, session: self.session, header, payload };
        self.log.lock().expect("one thread").notes.push(note);
        self.inner.send(frame)
    }

    fn flush(&mut self, now: Instant) -> Result<Flushed, Disconnect> {
        self.inner.flush(now)
    }

    fn queued(&self) -> usize {
        self.inner.queued()
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.inner.descriptor()
    }

    fn far(&self) -> Option<IpAddr> {
        self.far.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    fn close(&mut self) {
        self.inner.close();
    }
}
