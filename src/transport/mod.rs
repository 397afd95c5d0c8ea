//! Moving frames between peers: one small pair of traits, and what implements it.
//!
//! A connection has two halves, so that one reactor may receive while another sends. The receiver of a frame says where its
//! payload lands ([`Landing`]), the sender hands over a slot that already holds header and payload: between socket and slot
//! nothing is copied in user space. No call blocks; time is an argument.
//!
//! - [`tcp`]: sockets. - [`memory`]: two queues, for the simulation. - [`faulty`]: wraps any of them and breaks things.

pub mod faulty;
pub mod memory;
pub mod rdma;
pub mod tcp;

#[cfg(test)]
mod contract;

use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

use crate::memory::{SharedSlot, Slot};
use crate::wire::{HEADER_BYTES, Header, HeaderError, Violation};

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disconnect {
    /// The peer closed it, or this side did.
    #[error("the connection was closed")]
    Closed,
    /// The operating system says so.
    #[error("the connection broke: {0}")]
    Io(io::ErrorKind),
    /// The peer broke the protocol.
    #[error("{0}")]
    Violation(#[from] Violation),
}

impl From<io::Error> for Disconnect {
    fn from(error: io::Error) -> Disconnect {
        Disconnect::Io(error.kind())
    }
}

impl From<HeaderError> for Disconnect {
    fn from(error: HeaderError) -> Disconnect {
        Disconnect::Violation(error.into())
    }
}

/// Where payloads land. Owned by whoever receives.
pub trait Landing {
    /// The memory for the payload of the frame that `header` announces: exactly `payload_bytes` long. Called again, with the
    /// same header and the same answer, until the payload is complete. Never called for an empty payload. `None`: there is
    /// no room now; nothing more is received until there is.
    ///
    /// # Errors
    /// If such a frame may not come now: the connection ends.
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation>;
}

/// The receiving half of a connection.
pub trait Inbound: Send {
    /// The next frame whose payload has landed completely; `None` if there is none before more readiness is reported. The
    /// checksum is not verified here.
    ///
    /// # Errors
    /// If the connection is over; frames that were complete before come first.
    fn receive(&mut self, landing: &mut dyn Landing, now: Instant) -> Result<Option<Header>, Disconnect>;

    /// The descriptor whose (edge-triggered) readability announces frames; `None`: ask again whenever you like.
    fn descriptor(&self) -> Option<RawFd>;

    /// Ends the connection, both halves.
    fn close(&mut self);
}

/// A frame on its way out: header and payload in one piece.
#[derive(Debug)]
pub enum Outgoing {
    /// A header without payload.
    Control([u8; HEADER_BYTES]),
    /// The first `usize` bytes of a slot, free when sent.
    Owned(Slot, usize),
    /// The first `usize` bytes of a slot that goes to several peers.
    Shared(SharedSlot, usize),
}

impl Outgoing {
    /// The frame's bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Outgoing::Control(bytes) => bytes,
            Outgoing::Owned(slot, len) => &slot[..*len],
            Outgoing::Shared(slot, len) => &slot[..*len],
        }
    }
}

/// What a flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Bytes that left.
    pub bytes: usize,
    /// Nothing is waiting any more.
    pub empty: bool,
}

/// The sending half of a connection.
pub trait Outbound: Send {
    /// Queues a frame; frames leave in this order.
    ///
    /// # Errors
    /// Gives the frame back if the queue is full.
    fn send(&mut self, frame: Outgoing) -> Result<(), Outgoing>;

    /// Sends what can be sent without blocking.
    ///
    /// # Errors
    /// If the connection is over.
    fn flush(&mut self, now: Instant) -> Result<Flushed, Disconnect>;

    /// Frames queued and not completely sent.
    fn queued(&self) -> usize;

    /// The descriptor whose (edge-triggered) writability announces room; `None`: ask again whenever you like.
    fn descriptor(&self) -> Option<RawFd>;

    /// Ends the connection, both halves.
    fn close(&mut self);
}

/// Both halves of one connection.
pub struct Connection {
    /// What comes in.
    pub inbound: Box<dyn Inbound>,
    /// What goes out.
    pub outbound: Box<dyn Outbound>,
}
