//! The half that writes updates into the places that the worker named, and tells it of credits.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::error::LinkFailure;
use super::super::immediate::Immediate;
use super::super::link::{Link, Sender, State};
use super::super::sabotage::{Bug, planted};
use super::super::verbs::{Operation, Piece};
use super::Use;
use crate::code::Layout;
use crate::transport::{Disconnect, Flushed, Outbound, Outgoing};
use crate::wire::{Area, HEADER_BYTES, Header, Kind, UPDATE_OFFSET, header_bytes};

/// A frame that waits to be written, and what its header says.
struct Bulk {
    frame: Outgoing,
    header: Header,
    /// It goes by TCP.
    aside: bool,
}

enum Way {
    /// Over the link.
    Link(Sender),
    /// The link has failed and the queue pair was stopped; the other half counts what had arrived.
    Waiting,
    /// All goes by TCP.
    Tcp,
}

/// Where in the worker's memory what is written.
pub(in super::super) struct Places {
    pub(in super::super) link: Arc<Link>,
    pub(in super::super) area: Area,
    pub(in super::super) layout: Layout,
}

impl Places {
    /// Is the place of a round free? Nothing is known of that before the session is ready.
    fn is_free(&self, round: u64) -> Option<bool> {
        Some(round < self.link.released()?.saturating_add(u64::from(self.area.rounds)))
    }

    /// Where a frame is written, what of it, and what goes with it; `None` while its place is not free.
    fn target(&self, bulk: &Bulk) -> Option<(std::ops::Range<usize>, Operation)> {
        let header = &bulk.header;
        if !self.is_free(header.round)? && !planted(Bug::WriteEarly) {
            return None;
        }
        let place = self.area.address + header.round % u64::from(self.area.rounds) * self.area.stride;
        let whole = bulk.frame.bytes().len();
        let (part, offset, immediate) = match header.kind {
            Kind::Update => {
                let start = self.layout.chunk(header.chunk as usize).start;
                let immediate = Immediate::update(header.round, header.chunk);
                (HEADER_BYTES..whole, UPDATE_OFFSET + 4 * start, immediate)
            }
            _ => (0..whole, 0, Immediate::round_end(header.round)),
        };
        let (address, immediate) = (place + offset as u64, immediate.number());
        Some((part, Operation::WriteWithImmediate { address, key: self.area.key, immediate }))
    }
}

/// The half that writes updates.
pub(in super::super) struct DaemonOutbound {
    control: Box<dyn Outbound>,
    link: Arc<Link>,
    usage: Use,
    way: Way,
    places: Places,
    /// Local key of the slots that updates are in.
    key: u32,
    queue: VecDeque<Bulk>,
    limit: usize,
    /// The newest credit: how many shards the worker may have sent, and whether it still has to be told.
    credit: Option<u64>,
    credit_waits: bool,
    /// A good-bye, which comes after everything else.
    closing: Option<Outgoing>,
    job: u64,
    epoch: u64,
    /// The next frame is for a place that is not free.
    blocked: bool,
}

impl DaemonOutbound {
    pub(in super::super) fn new(
        control: Box<dyn Outbound>,
        places: Places,
        sender: Sender,
        key: u32,
        limit: usize,
        usage: Use,
    ) -> DaemonOutbound {
        DaemonOutbound {
            control,
            link: places.link.clone(),
            usage,
            way: Way::Link(sender),
            places,
            key,
            queue: VecDeque::with_capacity(limit),
            limit,
            credit: None,
            credit_waits: false,
            closing: None,
            job: 0,
            epoch: 0,
            blocked: false,
        }
    }

    /// Hands to the device what may go; says how many bytes have arrived.
    fn drive(&mut self) -> Result<usize, LinkFailure> {
        let Way::Link(sender) = &mut self.way else { return Ok(0) };
        let mut bytes = sender.reap()?;
        self.blocked = false;
        loop {
            while sender.has_room() {
                if let Some(shards) = self.credit.filter(|_| self.credit_waits) {
                    self.credit_waits = false;
                    let Area { address, key, .. } = self.places.area;
                    let immediate = Immediate::credit(shards).number();
                    sender.stage(None, Operation::WriteWithImmediate { address, key, immediate }, None, 0);
                    continue;
                }
                let Some(bulk) = self.queue.front() else { break };
                if is_word(bulk) {
                    // The peer is never told of a chunk that has no place: it would hear nothing else until there is one.
                    if self.places.is_free(bulk.header.round) != Some(true) {
                        self.blocked = true;
                        break;
                    }
                    if let Some(word) = self.queue.pop_front() {
                        let queued = self.control.send(word.frame);
                        debug_assert!(queued.is_ok(), "the control queue has room for every frame of a session");
                    }
                    continue;
                }
                let Some((part, operation)) = self.places.target(bulk) else {
                    self.blocked = true;
                    break;
                };
                let whole = bulk.frame.bytes();
                let (memory, len) = (&whole[part], whole.len());
                let piece = Piece {
                    address: memory.as_ptr().expose_provenance() as u64,
                    bytes: memory.len() as u32,
                    key: self.key,
                };
                let frame = self.queue.pop_front().map(|bulk| bulk.frame);
                sender.stage(Some(piece), operation, frame, len);
            }
            if !sender.post()? {
                break;
            }
        }
        bytes += sender.rest()?;
        Ok(bytes)
    }

    /// Lets go of the queue pair; what was under way waits with the rest, in order.
    fn let_go(&mut self) -> Result<(), Disconnect> {
        if !self.usage.fall_back {
            return Err(Disconnect::Rdma(self.link.failure()));
        }
        if let Way::Link(sender) = std::mem::replace(&mut self.way, Way::Tcp) {
            let (_, frames) = sender.let_go();
            for frame in frames.into_iter().rev().filter_map(|frame| bulk(frame).ok()) {
                self.queue.push_front(frame);
            }
            self.way = Way::Waiting;
            self.link.ring();
        }
        Ok(())
    }

    /// Once the other half has counted: tells the peer, and everything goes by TCP.
    fn switch(&mut self) {
        let header = Header { job: self.job, session: self.epoch, ..Header::new(Kind::Detach) };
        let header = Header { argument: self.link.arrived(), round: self.link.failure().number(), ..header };
        self.way = Way::Tcp;
        self.control_send(header);
        self.credit_waits = false;
        if let Some(argument) = self.credit {
            let credit = Header { job: self.job, session: self.epoch, argument, ..Header::new(Kind::Credit) };
            self.control_send(credit);
        }
        let frames = self.queue.drain(..).map(|bulk| bulk.frame).chain(self.closing.take());
        for frame in frames {
            let queued = self.control.send(frame);
            debug_assert!(queued.is_ok(), "the control queue has room for every frame of a session");
        }
    }

    fn control_send(&mut self, header: Header) {
        let queued = self.control.send(Outgoing::Control(header_bytes(header, &[])));
        debug_assert!(queued.is_ok(), "the control queue has room for every frame of a session");
    }

    fn under_way(&self) -> usize {
        match &self.way {
            Way::Link(sender) => sender.frames(),
            _ => 0,
        }
    }
}

/// What is said of chunks that workers pass on, and what is sent aside: by TCP, in turn with what is written.
fn is_word(bulk: &Bulk) -> bool {
    bulk.aside || matches!(bulk.header.kind, Kind::Announce | Kind::Carry)
}

fn bulk(frame: Outgoing) -> Result<Bulk, Outgoing> {
    match frame.bytes()[..HEADER_BYTES].try_into().ok().and_then(|bytes| Header::parse(bytes).ok()) {
        Some(header) => Ok(Bulk { frame, header, aside: false }),
        None => Err(frame),
    }
}

impl Outbound for DaemonOutbound {
    fn send(&mut self, frame: Outgoing) -> Result<(), Outgoing> {
        if matches!(self.way, Way::Tcp) {
            return self.control.send(frame);
        }
        let bulk = bulk(frame)?;
        match bulk.header.kind {
            Kind::Update | Kind::RoundEnd | Kind::Announce | Kind::Carry => {
                if self.queue.len() + self.under_way() >= self.limit {
                    return Err(bulk.frame);
                }
                self.queue.push_back(bulk);
            }
            Kind::Credit => {
                (self.credit, self.credit_waits) = (Some(bulk.header.argument), true);
            }
            Kind::Closing => self.closing = Some(bulk.frame),
            _ => {
                if bulk.header.kind == Kind::Ready {
                    (self.job, self.epoch) = (bulk.header.job, bulk.header.session);
                    self.link.release(bulk.header.round);
                }
                return self.control.send(bulk.frame);
            }
        }
        Ok(())
    }

    fn flush(&mut self, now: Instant) -> Result<Flushed, Disconnect> {
        let mut bytes = 0;
        if self.link.state() == State::Closed {
            return Err(Disconnect::Closed);
        }
        if matches!(self.way, Way::Link(_)) {
            if self.link.state() == State::Up {
                match self.drive() {
                    Ok(arrived) => bytes += arrived,
                    Err(why) => self.link.fail(why),
                }
            }
            if self.link.state() != State::Up {
                self.let_go()?;
            }
        }
        if matches!(self.way, Way::Waiting) && self.link.state() == State::Drained {
            self.switch();
        }
        if self.queue.is_empty()
            && self.under_way() == 0
            && let Some(closing) = self.closing.take()
            && let Err(closing) = self.control.send(closing)
        {
            self.closing = Some(closing);
        }
        bytes += self.control.flush(now)?.bytes;
        Ok(Flushed { bytes, empty: self.queued() == 0 })
    }

    fn queued(&self) -> usize {
        let waiting = usize::from(self.credit_waits) + usize::from(self.closing.is_some());
        self.queue.len() + self.under_way() + waiting + self.control.queued()
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.control.descriptor()
    }

    fn completions(&self) -> Option<RawFd> {
        match &self.way {
            Way::Link(sender) => sender.descriptor(),
            _ => None,
        }
    }

    fn wants_turn(&self) -> bool {
        let link = match &self.way {
            Way::Link(sender) => {
                let may_go = |bulk: &Bulk| match is_word(bulk) {
                    true => self.places.is_free(bulk.header.round) == Some(true),
                    false => self.places.target(bulk).is_some(),
                };
                let unblocked = self.blocked && self.queue.front().is_some_and(may_go);
                let room = !self.blocked && !self.queue.is_empty() && sender.has_room();
                unblocked || room || sender.must_be_polled() || self.link.state() != State::Up
            }
            Way::Waiting => self.link.state() == State::Drained,
            Way::Tcp => false,
        };
        link || self.control.wants_turn()
    }

    fn merges_credits(&self) -> bool {
        !matches!(self.way, Way::Tcp)
    }

    fn send_aside(&mut self, frame: Outgoing) -> Result<(), Outgoing> {
        if matches!(self.way, Way::Tcp) {
            return self.control.send(frame);
        }
        let bulk = bulk(frame)?;
        if self.places.is_free(bulk.header.round) == Some(true) {
            return self.control.send(bulk.frame);
        }
        // The peer would read nothing more by TCP until it has a place, not even that the link has failed.
        if self.queue.len() + self.under_way() >= self.limit {
            return Err(bulk.frame);
        }
        self.queue.push_back(Bulk { aside: true, ..bulk });
        Ok(())
    }

    fn writes(&self) -> bool {
        !matches!(self.way, Way::Tcp)
    }

    fn far(&self) -> Option<IpAddr> {
        self.control.far()
    }

    fn fails_within(&self) -> Duration {
        if self.under_way() > 0 { self.usage.fails_within } else { Duration::ZERO }
    }

    fn is_changing(&self) -> bool {
        matches!(self.way, Way::Waiting)
    }

    fn calls(&mut self) -> u64 {
        self.control.calls()
    }

    fn close(&mut self) {
        self.link.close();
        self.control.close();
    }
}

impl Drop for DaemonOutbound {
    fn drop(&mut self) {
        self.link.close();
        // The other half may have waited for this one to let go.
        self.way = Way::Tcp;
        self.link.ring();
    }
}
