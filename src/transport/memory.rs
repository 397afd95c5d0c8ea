//! Frames through two bounded queues in one process: the network of the simulation. As over a wire, the receiver copies the
//! payload out of the sender's slot into its own.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam::queue::ArrayQueue;

use super::{Connection, Disconnect, Flushed, Inbound, Landing, Outbound, Outgoing};
use crate::wire::{HEADER_BYTES, Header, Violation};

struct Pipe {
    queue: ArrayQueue<Outgoing>,
    closed: Arc<AtomicBool>,
}

/// The two ends of a connection with room for `queue` frames in each direction.
pub fn pair(queue: usize) -> (Connection, Connection) {
    let closed = Arc::new(AtomicBool::new(false));
    let pipe = || Arc::new(Pipe { queue: ArrayQueue::new(queue), closed: closed.clone() });
    let (there, back) = (pipe(), pipe());
    let end = |from: &Arc<Pipe>, to: &Arc<Pipe>| Connection {
        inbound: Box::new(MemoryInbound { pipe: from.clone(), held: None }),
        outbound: Box::new(MemoryOutbound { pipe: to.clone() }),
    };
    (end(&back, &there), end(&there, &back))
}

struct MemoryInbound {
    pipe: Arc<Pipe>,
    /// A frame for whose payload there was no room.
    held: Option<Outgoing>,
}

impl Inbound for MemoryInbound {
    fn receive(&mut self, landing: &mut dyn Landing, _now: Instant) -> Result<Option<Header>, Disconnect> {
        let Some(frame) = self.held.take().or_else(|| self.pipe.queue.pop()) else {
            return if self.pipe.closed.load(Ordering::Acquire) { Err(Disconnect::Closed) } else { Ok(None) };
        };
        let (head, sent) = frame.bytes().split_at(HEADER_BYTES);
        let header = Header::parse(head.try_into().expect("split at a header's length"))?;
        if !sent.is_empty() {
            let Some(payload) = landing.place(&header)? else {
                self.held = Some(frame);
                return Ok(None);
            };
            let found = header.payload_bytes;
            if payload.len() != found as usize || sent.len() != payload.len() {
                return Err(Violation::Length { found, expected: payload.len() as u32 }.into());
            }
            payload.copy_from_slice(sent);
        }
        Ok(Some(header))
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    fn close(&mut self) {
        self.pipe.closed.store(true, Ordering::Release);
    }
}

impl Drop for MemoryInbound {
    fn drop(&mut self) {
        self.close();
    }
}

struct MemoryOutbound {
    pipe: Arc<Pipe>,
}

impl Outbound for MemoryOutbound {
    fn send(&mut self, frame: Outgoing) -> Result<(), Outgoing> {
        if self.pipe.closed.load(Ordering::Acquire) {
            return Ok(()); // as with a socket, the next flush says that it is closed
        }
        self.pipe.queue.push(frame)
    }

    fn flush(&mut self, _now: Instant) -> Result<Flushed, Disconnect> {
        if self.pipe.closed.load(Ordering::Acquire) {
            return Err(Disconnect::Closed);
        }
        Ok(Flushed { bytes: 0, empty: true })
    }

    fn queued(&self) -> usize {
        0
    }

    fn far(&self) -> Option<IpAddr> {
        Some(Ipv4Addr::LOCALHOST.into())
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    fn close(&mut self) {
        self.pipe.closed.store(true, Ordering::Release);
    }
}

impl Drop for MemoryOutbound {
    fn drop(&mut self) {
        self.close();
    }
}
