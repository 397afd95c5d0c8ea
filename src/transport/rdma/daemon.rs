//! The daemon's end: shards land in slots that it posted, updates (`outbound`) are written to the places that the worker named.
//!
//! Everything else - ready, leave, closing, and what fills in for the link once it has failed - goes over the session's TCP
//! connection, which also says when the peer is gone.

mod outbound;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use outbound::{DaemonOutbound, Places};

use super::error::LinkFailure;
use super::ffi;
use super::link::{COMPLETIONS_AT_ONCE, Draining, Link, State};
use super::sabotage::{Bug, planted};
use super::verbs::{Piece, ReceiveHalf};
use crate::memory::Slot;
use crate::transport::{Disconnect, Inbound, Landing};
use crate::wire::{HEADER_BYTES, Header, Kind, Violation};

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
