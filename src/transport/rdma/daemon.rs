//! The daemon's end: shards land in slots that it posted, updates are written to the places that the worker named.
//!
//! Everything else - ready, leave, closing, and what fills in for the link once it has failed - goes over the session's TCP
//! connection, which also says when the peer is gone.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::LinkFailure;
use super::ffi;
use super::immediate::Immediate;
use super::link::{COMPLETIONS_AT_ONCE, Draining, Link, Sender, State};
use super::sabotage::{Bug, planted};
use super::verbs::{Operation, Piece, ReceiveHalf};
use crate::code::Layout;
use crate::memory::Slot;
use crate::transport::{Disconnect, Flushed, Inbound, Landing, Outbound, Outgoing};
use crate::wire::{Area, HEADER_BYTES, Header, Kind, UPDATE_OFFSET, Violation, header_bytes};

/// What both halves are told of how the link is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    /// The descriptors of completion queues wake sleepers; else halves ask for their turn.
    pub notify: bool,
    /// After the link has failed the session goes on by TCP; else it ends.
    pub fall_back: bool,
    /// The longest that a request takes to fail on a path that is cut.
    pub fails_within: Duration,
}

/// The half that receives shards.
pub(super) struct DaemonInbound {
    control: Box<dyn Inbound>,
    link: Arc<Link>,
    usage: Use,
    key: u32,
    half: Option<ReceiveHalf>,
    draining: Option<Draining>,
    /// Slots that the device fills, in this order.
    posted: VecDeque<Slot>,
    next: u64,
    /// Slots that it has filled, and with how many bytes.
    arrived: VecDeque<(Slot, u32)>,
    count: u64,
    /// Receives that came back without a message.
    flushed: usize,
    filled: Option<Slot>,
    /// Control frames have come, or wait, that no descriptor announces again.
    more: bool,
    /// A leave, which comes after the shards that had arrived and may come.
    leave: Option<Header>,
    over: Option<Disconnect>,
    fell_back: Option<LinkFailure>,
}

/// Control frames that are heard before others have their turn: nobody holds up a reactor by saying nothing at length.
const HEARD_AT_ONCE: usize = 16;

/// Lets no payload in.
#[derive(Default)]
struct Shut {
    asked: bool,
}

impl Landing for Shut {
    fn place(&mut self, _: &Header) -> Result<Option<&mut [u8]>, Violation> {
        self.asked = true;
        Ok(None)
    }
}

impl DaemonInbound {
    pub(super) fn new(
        control: Box<dyn Inbound>,
        link: Arc<Link>,
        half: ReceiveHalf,
        key: u32,
        credits: usize,
        usage: Use,
    ) -> DaemonInbound {
        DaemonInbound {
            control,
            link,
            usage,
            key,
            half: Some(half),
            draining: None,
            posted: VecDeque::with_capacity(credits),
            next: 0,
            arrived: VecDeque::with_capacity(credits),
            count: 0,
            flushed: 0,
            filled: None,
            more: false,
            leave: None,
            over: None,
            fell_back: None,
        }
    }

    /// Takes a completion: a filled slot, or the end of the link.
    fn complete(&mut self, completion: &ffi::ibv_wc) -> Result<(), Disconnect> {
        let odd = ffi::IBV_WC_WITH_IMM | ffi::IBV_WC_WITH_INV;
        match completion.status {
            ffi::IBV_WC_SUCCESS => {
                let plain = completion.opcode == ffi::IBV_WC_RECV && completion.wc_flags & odd == 0;
                if !plain && !planted(Bug::AnyCompletion) {
                    return Err(violation(completion));
                }
                self.count += 1;
                // Receives complete in the order in which they were posted.
                let slot = self.posted.pop_front().filter(|_| completion.wr_id != GHOST);
                self.arrived.extend(slot.map(|slot| (slot, completion.byte_len)));
            }
            // The peer sent more than a slot holds.
            ffi::IBV_WC_LOC_LEN_ERR => return Err(violation(completion)),
            status => {
                // Its slot goes back to the pipeline when the link is drained.
                self.flushed += 1;
                self.link.fail(LinkFailure::of_status(status));
            }
        }
        Ok(())
    }

    /// Takes what has arrived; says whether anything has.
    fn poll(&mut self) -> Result<bool, Disconnect> {
        let Some(half) = &mut self.half else { return Ok(false) };
        let mut list = [ffi::ibv_wc::default(); COMPLETIONS_AT_ONCE];
        let Ok(found) = half.completions.poll(&mut list) else {
            self.link.fail(LinkFailure::DeviceLost);
            return Ok(false);
        };
        for completion in &list[..found] {
            self.complete(completion)?;
        }
        Ok(found > 0)
    }

    /// Gives the link up, as far as the other half lets it.
    fn wind_up(&mut self, now: Instant) -> Result<(), Disconnect> {
        if !self.usage.fall_back
            && let Some(why) = self.link.given_up()
        {
            return Err(Disconnect::Rdma(why));
        }
        if self.link.state() != State::Failing {
            return Ok(());
        }
        self.draining = self.draining.take().or_else(|| self.half.take().map(Draining::new));
        let Some(mut draining) = self.draining.take() else { return Ok(()) };
        let mut broken = Ok(());
        let done = draining.step(now, |completion| {
            if let (Some(completion), Ok(())) = (completion, broken) {
                broken = self.complete(completion);
            }
            self.posted.len().saturating_sub(self.flushed)
        });
        if broken.is_err() {
            self.draining = Some(draining);
            return broken;
        }
        if !done {
            self.draining = Some(draining);
            return Ok(());
        }
        draining.finish(self.posted.len() <= self.flushed);
        self.fell_back = Some(self.link.failure());
        self.link.drained(self.count);
        Ok(())
    }

    /// The oldest frame that has arrived, if it may come now.
    fn take(&mut self, landing: &mut dyn Landing) -> Result<Option<Header>, Disconnect> {
        let Some((slot, bytes)) = self.arrived.front() else { return Ok(None) };
        if (*bytes as usize) < HEADER_BYTES {
            return Err(Violation::Length { found: *bytes, expected: HEADER_BYTES as u32 }.into());
        }
        let mut header = Header::parse(slot.part(0..HEADER_BYTES).try_into().expect("a header's length"))?;
        let expected = HEADER_BYTES as u64 + u64::from(header.payload_bytes);
        if u64::from(*bytes) != expected {
            let found = *bytes - HEADER_BYTES as u32;
            return Err(Violation::Length { found, expected: header.payload_bytes }.into());
        }
        if !landing.landed(&mut header)? {
            return Ok(None);
        }
        self.filled = self.arrived.pop_front().map(|(slot, _)| slot);
        Ok(Some(header))
    }

    /// The next frame by TCP. After a fall-back shards come this way: not before the older ones that had arrived over the link,
    /// and not before whoever drives this half has taken back the slots for them.
    fn hear(&mut self, landing: &mut dyn Landing, now: Instant) -> Result<Option<Header>, Disconnect> {
        let left = !self.posted.is_empty() || !self.arrived.is_empty();
        if self.link.state() != State::Drained || !left {
            return self.control.receive(landing, now);
        }
        let mut shut = Shut::default();
        let heard = self.control.receive(&mut shut, now);
        self.more |= shut.asked;
        heard
    }
}

/// The number of a receive that only a planted bug posts.
const GHOST: u64 = u64::MAX;

fn violation(completion: &ffi::ibv_wc) -> Disconnect {
    let (opcode, status) = (completion.opcode as u32, completion.status as u32);
    Violation::Rdma { opcode, flags: completion.wc_flags, status }.into()
}

impl Inbound for DaemonInbound {
    fn receive(&mut self, landing: &mut dyn Landing, now: Instant) -> Result<Option<Header>, Disconnect> {
        self.more = false;
        for _ in 0..HEARD_AT_ONCE {
            if self.arrived.is_empty() {
                self.poll()?;
            }
            if let Some(header) = self.take(landing)? {
                return Ok(Some(header));
            }
            if let Some(leave) = self.leave.take() {
                return Ok(Some(leave));
            }
            self.wind_up(now)?;
            if let Some(over) = self.over {
                // What had arrived when the connection ended came first.
                return Err(over);
            }
            match self.hear(landing, now) {
                Ok(Some(header)) if header.kind == Kind::Collected && header.verifies(&[]) => {
                    self.link.release(header.round);
                }
                Ok(Some(header)) if header.kind == Kind::Detach && header.verifies(&[]) => {
                    self.link.fail(LinkFailure::from_number(header.round));
                }
                Ok(Some(header)) if header.kind == Kind::Leave => self.leave = Some(header),
                Ok(Some(header)) => return Ok(Some(header)),
                Err(over) => {
                    self.over = Some(over);
                    continue;
                }
                Ok(None) if self.arrived.is_empty() => {
                    let Some(half) = self.half.as_mut().filter(|_| self.usage.notify) else { return Ok(None) };
                    // Announce first, look once more, sleep only then.
                    half.completions.disarm();
                    if half.completions.arm().is_err() {
                        self.link.fail(LinkFailure::DeviceLost);
                    }
                    if !self.poll()? {
                        return Ok(None);
                    }
                }
                Ok(None) => return Ok(None),
            }
        }
        self.more = true;
        Ok(None)
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.control.descriptor()
    }

    fn completions(&self) -> Option<RawFd> {
        self.half.as_ref().filter(|_| self.usage.notify).map(|half| half.completions.descriptor())
    }

    fn wants_turn(&self) -> bool {
        let failing = self.half.is_some() && self.link.state() == State::Failing;
        failing
            || self.more
            || self.draining.as_ref().is_some_and(Draining::wants_turn)
            || self.half.is_some() && !self.usage.notify
            || self.control.wants_turn()
    }

    fn post(&mut self, slot: Slot) -> Result<(), Slot> {
        let Some(half) = &mut self.half else { return Err(slot) };
        let piece =
            Piece { address: slot.address().expose_provenance() as u64, bytes: slot.len() as u32, key: self.key };
        // SAFETY: the slot stays in `posted`, untouched, until its completion was polled, or until the queue pair is gone: see
        // `Drop` and `wind_up`.
        #[allow(unsafe_code)]
        let posted = unsafe { half.post(Some(piece), self.next) };
        match posted {
            Ok(()) => {
                self.next += 1;
                self.posted.push_back(slot);
                Ok(())
            }
            Err(_) => {
                self.link.fail(LinkFailure::Broken);
                Err(slot)
            }
        }
    }

    fn posted(&self) -> usize {
        self.posted.len() + self.arrived.len()
    }

    fn filled(&mut self) -> Option<Slot> {
        let slot = self.filled.take();
        if planted(Bug::RepostEarly)
            && let (Some(slot), Some(half)) = (&slot, &mut self.half)
        {
            let piece =
                Piece { address: slot.address().expose_provenance() as u64, bytes: slot.len() as u32, key: self.key };
            // SAFETY: none: this is the bug that a test plants, to see that it is noticed.
            #[allow(unsafe_code)]
            let _ = unsafe { half.post(Some(piece), GHOST) };
        }
        slot
    }

    fn give_back(&mut self) -> Option<Slot> {
        if self.link.state() == State::Drained { self.posted.pop_front() } else { None }
    }

    fn fell_back(&mut self) -> Option<LinkFailure> {
        self.fell_back.take()
    }

    fn calls(&mut self) -> u64 {
        self.control.calls()
    }

    fn close(&mut self) {
        self.link.close();
        self.control.close();
    }
}

impl Drop for DaemonInbound {
    fn drop(&mut self) {
        self.link.close();
        let half = self.half.take().map(|half| half.pair).or(self.draining.take().map(Draining::into_pair));
        if let Some(pair) = half {
            // The device may still be filling them: they go back when the queue pair is gone.
            pair.park(Box::new(std::mem::take(&mut self.posted)));
        }
    }
}

/// A frame that waits to be written, and what its header says.
struct Bulk {
    frame: Outgoing,
    header: Header,
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
pub(super) struct Places {
    pub(super) link: Arc<Link>,
    pub(super) area: Area,
    pub(super) layout: Layout,
}

impl Places {
    /// Where a frame is written, what of it, and what goes with it; `None` while its place is not free.
    fn target(&self, bulk: &Bulk) -> Option<(std::ops::Range<usize>, Operation)> {
        let header = &bulk.header;
        let end = self.link.released()?.saturating_add(u64::from(self.area.rounds));
        if header.round >= end && !planted(Bug::WriteEarly) {
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
pub(super) struct DaemonOutbound {
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
    pub(super) fn new(
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
                let Some((part, operation)) = self.places.target(bulk) else {
                    self.blocked = true;
                    break;
                };
                let whole = bulk.frame.bytes();
                let (memory, bytes) = (&whole[part], whole.len());
                let piece = Piece {
                    address: memory.as_ptr().expose_provenance() as u64,
                    bytes: memory.len() as u32,
                    key: self.key,
                };
                let frame = self.queue.pop_front().map(|bulk| bulk.frame);
                sender.stage(Some(piece), operation, frame, bytes);
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

fn bulk(frame: Outgoing) -> Result<Bulk, Outgoing> {
    match frame.bytes()[..HEADER_BYTES].try_into().ok().and_then(|bytes| Header::parse(bytes).ok()) {
        Some(header) => Ok(Bulk { frame, header }),
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
            Kind::Update | Kind::RoundEnd => {
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
                let unblocked =
                    self.blocked && self.queue.front().is_some_and(|bulk| self.places.target(bulk).is_some());
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
