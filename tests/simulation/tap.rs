//! What the receiver was really given: every frame on its way into a slot is looked at once more, by rules written down a
//! second time, and noted for the judge.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use solon::code::Layout;
use solon::code::Precision;
use solon::pipeline::Board;
use solon::transport::{Disconnect, Inbound, Landing};
use solon::wire::{Header, Kind, Violation};

/// A frame that landed in a slot of `owner`.
#[derive(Clone, Debug)]
pub struct Seen {
    pub owner: u32,
    pub header: Header,
    /// Its checksum is right.
    pub valid: bool,
    pub payload: Vec<u8>,
}

/// What the taps of one daemon noted since it was emptied.
#[derive(Default)]
pub struct Log {
    pub seen: Vec<Seen>,
    /// A frame landed that may not.
    pub breach: Option<String>,
}

/// What a frame must be to land.
#[derive(Clone)]
pub struct Rules {
    pub precision: Precision,
    pub job: u64,
    pub window: u64,
    pub layout: Layout,
    pub board: Arc<Board>,
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
