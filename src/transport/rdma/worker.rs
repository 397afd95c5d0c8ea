//! The worker's end: shards leave from registered slots, updates land in the places that the daemon was told.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use super::daemon::Use;
use super::error::LinkFailure;
use super::ffi;
use super::immediate::{Immediate, round_of, shards_of};
use super::link::{COMPLETIONS_AT_ONCE, Draining, Link, Sender, State};
use super::verbs::{Operation, Piece, ReceiveHalf};
use crate::transport::{Disconnect, Flushed, Inbound, Landing, Outbound, Outgoing};
use crate::wire::{HEADER_BYTES, Header, Kind, Plan, REPORT_BYTES, Violation, header_bytes};

/// The half that is told of updates, reports and credits.
pub(super) struct WorkerInbound {
    control: Box<dyn Inbound>,
    link: Arc<Link>,
    usage: Use,
    plan: Plan,
    half: Option<ReceiveHalf>,
    draining: Option<Draining>,
    /// Receives posted; each takes an immediate and nothing else.
    posted: usize,
    flushed: usize,
    /// What has been written and not yet been taken in, oldest first.
    arrived: VecDeque<u32>,
    count: u64,
    granted: u64,
    /// A good-bye, which comes after what was written before.
    closing: Option<Header>,
    over: Option<Disconnect>,
    fell_back: Option<LinkFailure>,
}

impl WorkerInbound {
    pub(super) fn new(
        control: Box<dyn Inbound>,
        link: Arc<Link>,
        half: ReceiveHalf,
        posted: usize,
        plan: Plan,
        usage: Use,
    ) -> WorkerInbound {
        WorkerInbound {
            control,
            link,
            usage,
            plan,
            half: Some(half),
            draining: None,
            posted,
            flushed: 0,
            arrived: VecDeque::with_capacity(posted),
            count: 0,
            granted: 0,
            closing: None,
            over: None,
            fell_back: None,
        }
    }

    fn complete(&mut self, completion: &ffi::ibv_wc) -> Result<(), Disconnect> {
        if completion.status != ffi::IBV_WC_SUCCESS {
            self.flushed += 1;
            self.link.fail(LinkFailure::of_status(completion.status));
            return Ok(());
        }
        let (opcode, flags) = (completion.opcode, completion.wc_flags);
        if opcode != ffi::IBV_WC_RECV_RDMA_WITH_IMM || flags & ffi::IBV_WC_WITH_IMM == 0 {
            return Err(Violation::Rdma { opcode: opcode as u32, flags, status: 0 }.into());
        }
        self.posted -= 1;
        self.count += 1;
        self.arrived.push_back(u32::from_be(completion.imm_data));
        Ok(())
    }

    /// Takes what was written; says whether anything was.
    fn poll(&mut self) -> Result<bool, Disconnect> {
        let Some(half) = &mut self.half else { return Ok(false) };
        let mut list = [ffi::ibv_wc::default(); COMPLETIONS_AT_ONCE];
        let Ok(found) = half.completions.poll(&mut list) else {
            self.link.fail(LinkFailure::DeviceLost);
            return Ok(false);
        };
        for completion in &list[..found] {
            self.complete(completion)?;
            if completion.status == ffi::IBV_WC_SUCCESS {
                self.post();
            }
        }
        Ok(found > 0)
    }

    fn post(&mut self) {
        let Some(half) = &mut self.half else { return };
        // SAFETY: it has no memory.
        #[allow(unsafe_code)]
        match unsafe { half.post(None, 0) } {
            Ok(()) => self.posted += 1,
            Err(_) => self.link.fail(LinkFailure::Broken),
        }
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
            self.posted.saturating_sub(self.flushed)
        });
        if !done || broken.is_err() {
            self.draining = Some(draining);
            return broken;
        }
        draining.finish(self.posted <= self.flushed);
        self.fell_back = Some(self.link.failure());
        self.link.drained(self.count);
        Ok(())
    }

    /// The oldest thing that was written, as the frame that it would have been over TCP.
    fn take(&mut self, landing: &mut dyn Landing) -> Result<Option<Header>, Disconnect> {
        let Some(number) = self.arrived.front() else { return Ok(None) };
        // Before the session is ready nothing says which round it is; ready comes by TCP.
        let Some(oldest) = self.link.released() else { return Ok(None) };
        let Some(immediate) = Immediate::read(*number) else {
            return Err(Violation::Rdma { opcode: *number, flags: ffi::IBV_WC_WITH_IMM, status: 0 }.into());
        };
        let round = round_of(immediate, oldest);
        let mut header = match immediate {
            Immediate::Credit { shards } => {
                self.granted = shards_of(shards, self.granted);
                self.arrived.pop_front();
                let header = Header { argument: self.granted, ..Header::new(Kind::Credit) };
                return Ok(Some(Header { checksum: header.checksum_over(&[]), ..header }));
            }
            Immediate::Update { chunk, .. } => {
                let chunks = self.plan.layout.chunks() as u32;
                if chunk >= chunks {
                    return Err(Violation::Chunk { found: chunk, chunks }.into());
                }
                let payload_bytes = self.plan.update_bytes(self.plan.layout.chunk(chunk as usize).len) as u32;
                Header { round, chunk, payload_bytes, ..Header::new(Kind::Update) }
            }
            Immediate::RoundEnd { .. } => {
                Header { round, payload_bytes: REPORT_BYTES as u32, ..Header::new(Kind::RoundEnd) }
            }
        };
        if !landing.landed(&mut header)? {
            return Ok(None);
        }
        self.arrived.pop_front();
        Ok(Some(header))
    }

    fn hear(&mut self, header: Header) -> Option<Header> {
        match header.kind {
            Kind::Ready => self.link.release(header.round),
            Kind::Detach if header.verifies(&[]) => {
                self.link.set_arrived_there(header.argument);
                self.link.fail(LinkFailure::from_number(header.round));
                return None;
            }
            Kind::Closing => {
                self.closing = Some(header);
                return None;
            }
            _ => {}
        }
        Some(header)
    }
}

impl Inbound for WorkerInbound {
    fn receive(&mut self, landing: &mut dyn Landing, now: Instant) -> Result<Option<Header>, Disconnect> {
        loop {
            if self.arrived.is_empty() {
                self.poll()?;
            }
            if let Some(header) = self.take(landing)? {
                return Ok(Some(header));
            }
            self.wind_up(now)?;
            if self.arrived.is_empty()
                && let Some(closing) = self.closing.take()
            {
                return Ok(Some(closing));
            }
            if let Some(over) = self.over {
                // What had arrived when the connection ended came first, unless it may not come.
                return Err(over);
            }
            // While the link is being given up, frames by TCP wait: they are younger than what it still holds.
            if self.draining.is_some() {
                return Ok(None);
            }
            match self.control.receive(landing, now) {
                Ok(Some(header)) => match self.hear(header) {
                    Some(header) => return Ok(Some(header)),
                    // What was written before it is there: look once more.
                    None => self.poll().map(|_| ())?,
                },
                Err(over) => self.over = Some(over),
                Ok(None) => {
                    let Some(half) = self.half.as_mut().filter(|_| self.usage.notify) else { return Ok(None) };
                    if !self.arrived.is_empty() {
                        return Ok(None);
                    }
                    // Announce first, look once more, sleep only then.
                    half.completions.disarm();
                    if half.completions.arm().is_err() {
                        self.link.fail(LinkFailure::DeviceLost);
                    }
                    if !self.poll()? {
                        return Ok(None);
                    }
                }
            }
        }
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
            || self.draining.as_ref().is_some_and(Draining::wants_turn)
            || self.half.is_some() && !self.usage.notify
            || self.control.wants_turn()
    }

    fn fell_back(&mut self) -> Option<LinkFailure> {
        self.fell_back.take()
    }

    fn close(&mut self) {
        self.link.close();
        self.control.close();
    }
}

impl Drop for WorkerInbound {
    fn drop(&mut self) {
        self.link.close();
    }
}

enum Way {
    Link(Sender),
    /// The link has failed: these frames had been under way, the first with this number. Next the other half counts, then the peer
    /// says how many arrived there.
    Waiting {
        first: u64,
        frames: VecDeque<Outgoing>,
        told: bool,
    },
    Tcp,
}

/// The half that sends shards.
pub(super) struct WorkerOutbound {
    control: Box<dyn Outbound>,
    link: Arc<Link>,
    usage: Use,
    way: Way,
    key: u32,
    queue: VecDeque<Outgoing>,
    limit: usize,
    job: u64,
    session: u64,
    worker: u32,
    /// A release that found the control queue full.
    release: Option<u64>,
    /// A leave, which comes after every shard is known to have arrived.
    leave: Option<Outgoing>,
}

/// Who a worker's frames come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sign {
    pub job: u64,
    pub session: u64,
    pub worker: u32,
}

impl WorkerOutbound {
    pub(super) fn new(
        control: Box<dyn Outbound>,
        link: Arc<Link>,
        sender: Sender,
        key: u32,
        limit: usize,
        sign: Sign,
        usage: Use,
    ) -> WorkerOutbound {
        WorkerOutbound {
            control,
            link,
            usage,
            way: Way::Link(sender),
            key,
            queue: VecDeque::with_capacity(limit),
            limit,
            job: sign.job,
            session: sign.session,
            worker: sign.worker,
            release: None,
            leave: None,
        }
    }

    fn drive(&mut self) -> Result<usize, LinkFailure> {
        let Way::Link(sender) = &mut self.way else { return Ok(0) };
        let mut bytes = sender.reap()?;
        loop {
            while sender.has_room()
                && let Some(frame) = self.queue.pop_front()
            {
                let (address, length) = (frame.bytes().as_ptr().expose_provenance() as u64, frame.bytes().len());
                let piece = Piece { address, bytes: length as u32, key: self.key };
                sender.stage(Some(piece), Operation::Send, Some(frame), length);
            }
            if !sender.post()? {
                break;
            }
        }
        bytes += sender.rest()?;
        Ok(bytes)
    }

    fn let_go(&mut self) -> Result<(), Disconnect> {
        if !self.usage.fall_back {
            return Err(Disconnect::Rdma(self.link.failure()));
        }
        if let Way::Link(sender) = std::mem::replace(&mut self.way, Way::Tcp) {
            let (first, frames) = sender.let_go();
            self.way = Way::Waiting { first, frames, told: false };
        }
        Ok(())
    }

    /// Goes on with the change to TCP, as far as the other half and the peer let it.
    fn switch(&mut self) {
        let round = self.link.failure().number();
        let Way::Waiting { first, frames, told } = &mut self.way else { return };
        if self.link.state() != State::Drained {
            return;
        }
        if !*told {
            *told = true;
            let header =
                Header { job: self.job, session: self.session, worker: self.worker, ..Header::new(Kind::Detach) };
            let detach = header_bytes(Header { round, ..header }, &[]);
            let queued = self.control.send(Outgoing::Control(detach));
            debug_assert!(queued.is_ok(), "the control queue has room for every frame of a session");
        }
        let Some(arrived) = self.link.arrived_there() else { return };
        // The first ones may have arrived without our knowing it.
        let known = usize::try_from(arrived.saturating_sub(*first)).unwrap_or(usize::MAX).min(frames.len());
        let again = std::mem::take(frames).into_iter().skip(known);
        for frame in again.chain(self.queue.drain(..)) {
            let queued = self.control.send(frame);
            debug_assert!(queued.is_ok(), "the control queue has room for every frame of a session");
        }
        self.way = Way::Tcp;
    }

    fn waiting(&self) -> usize {
        match &self.way {
            Way::Link(sender) => sender.frames(),
            Way::Waiting { frames, .. } => frames.len(),
            Way::Tcp => 0,
        }
    }
}

impl Outbound for WorkerOutbound {
    fn send(&mut self, frame: Outgoing) -> Result<(), Outgoing> {
        if matches!(self.way, Way::Tcp) {
            return self.control.send(frame);
        }
        // Only shards have a payload.
        if let Some(header) = frame.bytes().first_chunk().filter(|_| frame.bytes().len() == HEADER_BYTES) {
            if Header::parse(header).is_ok_and(|header| header.kind == Kind::Leave) {
                self.leave = Some(frame);
                return Ok(());
            }
            return self.control.send(frame);
        }
        if self.queue.len() + self.waiting() >= self.limit {
            return Err(frame);
        }
        self.queue.push_back(frame);
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
        self.switch();
        if let Some(round) = self.release.take() {
            self.release(round);
        }
        if self.queue.is_empty()
            && self.waiting() == 0
            && let Some(leave) = self.leave.take()
            && let Err(leave) = self.control.send(leave)
        {
            self.leave = Some(leave);
        }
        bytes += self.control.flush(now)?.bytes;
        Ok(Flushed { bytes, empty: self.queued() == 0 })
    }

    fn queued(&self) -> usize {
        self.queue.len() + self.waiting() + usize::from(self.leave.is_some()) + self.control.queued()
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
            Way::Link(sender) => sender.must_be_polled() || self.link.state() != State::Up,
            Way::Waiting { told, .. } => {
                self.link.state() == State::Drained && (!told || self.link.arrived_there().is_some())
            }
            Way::Tcp => false,
        };
        link || self.control.wants_turn()
    }

    fn release(&mut self, round: u64) {
        self.link.release(round);
        if matches!(self.way, Way::Tcp) {
            return;
        }
        let header =
            Header { job: self.job, session: self.session, worker: self.worker, ..Header::new(Kind::Collected) };
        let collected = header_bytes(Header { round, ..header }, &[]);
        if self.control.send(Outgoing::Control(collected)).is_err() {
            self.release = Some(round);
        }
    }

    fn close(&mut self) {
        self.link.close();
        self.control.close();
    }
}

impl Drop for WorkerOutbound {
    fn drop(&mut self) {
        self.link.close();
    }
}
