//! Moving frames between peers: one small pair of traits, and what implements it.
//!
//! A connection has two halves, so that one reactor may receive while another sends. The receiver of a frame says where its
//! payload lands ([`Landing`]), the sender hands over a slot that already holds header and payload: between socket and slot
//! nothing is copied in user space. No call blocks; time is an argument.
//!
//! - [`tcp`]: sockets. - [`rdma`]: verbs, beside a TCP connection. - [`memory`]: two queues, for the simulation.
//! - [`faulty`]: wraps what lands in place and breaks things.

pub mod faulty;
pub mod memory;
pub mod rdma;
pub mod tcp;

#[cfg(test)]
mod contract;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::memory::{SharedSlot, Slot};
use crate::wire::{HEADER_BYTES, Header, HeaderError, Short, Violation};
pub use rdma::LinkFailure;

/// What a socket says whose time is over is that it would block, of which nobody knows what it is about: makes [`io::ErrorKind::TimedOut`] of
/// that.
pub fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

/// How frames may travel. The line of each word is its help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// RDMA between two ends that both have it, TCP otherwise
    #[default]
    Auto,
    /// RDMA only: without a device there is no start, without RDMA at the other end no connection
    Rdma,
    /// TCP only: nobody looks for RDMA
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Transport::Auto => "auto",
            Transport::Rdma => "rdma",
            Transport::Tcp => "tcp",
        })
    }
}

impl FromStr for Transport {
    type Err = String;

    /// Reads one of the words; the error says what was found and what expected.
    fn from_str(text: &str) -> Result<Transport, String> {
        let known = Transport::value_variants().iter().find(|transport| transport.to_string() == text);
        known.copied().ok_or_else(|| format!("found {text:?}, expected \"auto\", \"rdma\" or \"tcp\""))
    }
}

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
    /// The daemon ended it: the worker computes differently than its group.
    #[error("it computes differently than its group")]
    Mixed,
    /// The RDMA connection ended, and the session must not go on by TCP.
    #[error("the RDMA connection ended: {0}")]
    Rdma(LinkFailure),
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

    /// [`Landing::place`], and where the payloads of the frames after this one will land if they are the next that its sender has: into
    /// `further`, from the first on, each as long as that payload would be. It is a guess, so that several frames can be read at
    /// once: their headers are not known yet, and `place` is asked for each of them later. It must then answer the same memory for a
    /// frame of that length, and what does not come as guessed is copied to where it belongs.
    ///
    /// # Errors
    /// As there.
    fn places<'a>(
        &'a mut self,
        header: &Header,
        further: &mut [&'a mut [u8]],
    ) -> Result<Option<&'a mut [u8]>, Violation> {
        let _ = further;
        self.place(header)
    }

    /// A frame whose payload stands already where it belongs: in a slot that was posted, or at the address that the peer was told.
    /// `true`: taken, and `header` is now all that is known of it; `false`: not now, ask again.
    ///
    /// # Errors
    /// If such a frame may not come now: the connection ends.
    fn landed(&mut self, header: &mut Header) -> Result<bool, Violation> {
        Err(Violation::Kind(header.kind))
    }
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

    /// A second descriptor of the same kind, where there is one.
    fn completions(&self) -> Option<RawFd> {
        None
    }

    /// Is there something to receive or to do that no descriptor announces?
    fn wants_turn(&self) -> bool {
        self.descriptor().is_none()
    }

    /// Lends a slot for the next frame but [`Inbound::posted`], on transports that fill slots before anybody sees a header.
    ///
    /// # Errors
    /// Gives the slot back on those that ask a [`Landing`] instead.
    fn post(&mut self, slot: Slot) -> Result<(), Slot> {
        Err(slot)
    }

    /// How many slots are lent.
    fn posted(&self) -> usize {
        0
    }

    /// The lent slot that holds the frame that was received last.
    fn filled(&mut self) -> Option<Slot> {
        None
    }

    /// A lent slot that will not be filled any more.
    fn give_back(&mut self) -> Option<Slot> {
        None
    }

    /// System calls since this was last asked.
    fn calls(&mut self) -> u64 {
        0
    }

    /// Why the faster of two ways was given up, once after it was.
    fn fell_back(&mut self) -> Option<LinkFailure> {
        None
    }

    /// Ends the connection, both halves.
    fn close(&mut self);
}

/// A frame on its way out: header and payload in one piece.
#[derive(Debug)]
pub enum Outgoing {
    /// A header without payload.
    Control([u8; HEADER_BYTES]),
    /// A header with a short payload.
    Short(Short),
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
            Outgoing::Short(short) => short.bytes(),
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

    /// A second descriptor, whose readability announces room.
    fn completions(&self) -> Option<RawFd> {
        None
    }

    /// Is there something to flush or to do that no descriptor announces?
    fn wants_turn(&self) -> bool {
        self.descriptor().is_none()
    }

    /// Does a credit take the place of one that still waits, so that credits never fill the queue?
    fn merges_credits(&self) -> bool {
        false
    }

    /// The longest that what is under way can take to fail by itself: a peer is not held to be at fault before. Zero if nothing is.
    fn fails_within(&self) -> Duration {
        Duration::ZERO
    }

    /// Is it changing to another way, so that nothing can leave whatever the peer does? Not for long.
    fn is_changing(&self) -> bool {
        false
    }

    /// System calls since this was last asked.
    fn calls(&mut self) -> u64 {
        0
    }

    /// Queues a frame that the peer has land by itself, beside those that wait: never one that stands in its memory before it knows of
    /// it. For a chunk that somebody else may be bringing to the same place.
    ///
    /// # Errors
    /// As [`Outbound::send`].
    fn send_aside(&mut self, frame: Outgoing) -> Result<(), Outgoing> {
        self.send(frame)
    }

    /// Do updates stand in the peer's memory before it knows of them?
    fn writes(&self) -> bool {
        false
    }

    /// The address that the peer comes from: only where there is one it can pass updates on.
    fn far(&self) -> Option<IpAddr> {
        None
    }

    /// The rounds before `round` are collected: tells the peer, where it writes to places that they took up.
    fn release(&mut self, round: u64) {
        let _ = round;
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_is_read_as_it_is_written() {
        for transport in Transport::value_variants() {
            assert_eq!(transport.to_string().parse(), Ok(*transport));
            assert_eq!(
                transport.to_possible_value().map(|value| value.get_name().to_owned()),
                Some(transport.to_string())
            );
        }
        assert!("RDMA".parse::<Transport>().unwrap_err().contains("found \"RDMA\""));
        assert_eq!(Transport::default(), Transport::Auto);
    }
}
