//! What the two halves of a connection share about its queue pair, and how they give it up together.
//!
//! ```text
//!  Up --fail()--> Failing --the sending half lets go, then the receiving half empties the queue pair--> Drained
//! ```
//!
//! The halves may run on two cores. The sending half stops the queue pair and lets go; then the receiving half takes all that
//! still comes of it, until every receive has come back: nothing can arrive any more, so its count is exact, and the peer sends
//! again just what is missing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::error::LinkFailure;
use super::ffi;
use super::verbs::{Operation, Piece, REQUESTS_AT_ONCE, RawQueuePair, ReceiveHalf, SendHalf, SendRequest};
use crate::memory::Bell;
use crate::transport::Outgoing;

/// Completions that are taken at once.
pub(super) const COMPLETIONS_AT_ONCE: usize = 16;

const UP: u8 = 0;
const FAILING: u8 = 1;
const DRAINED: u8 = 2;
const CLOSED: u8 = 3;

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Up,
    Failing,
    Drained,
    /// The session is over.
    Closed,
}

/// What the halves share.
pub struct Link {
    state: AtomicU8,
    /// Why it is not up; 0 while it is.
    reason: AtomicU64,
    /// Messages that arrived over it, once it is drained.
    arrived: AtomicU64,
    /// One more than the messages that arrived at the peer, once it has said so.
    arrived_there: AtomicU64,
    /// One more than the first round whose place is not free; 0 before the session is ready.
    released: AtomicU64,
    bells: Arc<[Arc<Bell>]>,
}

impl Link {
    /// A link that is up. The `bells` ring when the other half has something to do.
    pub(super) fn new(bells: Arc<[Arc<Bell>]>) -> Link {
        let zero = || AtomicU64::new(0);
        let (reason, arrived, arrived_there, released) = (zero(), zero(), zero(), zero());
        Link { state: AtomicU8::new(UP), reason, arrived, arrived_there, released, bells }
    }

    pub(super) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            UP => State::Up,
            FAILING => State::Failing,
            DRAINED => State::Drained,
            _ => State::Closed,
        }
    }

    pub(super) fn ring(&self) {
        self.bells.iter().for_each(|bell| bell.ring());
    }

    /// Gives the link up. The first reason is the one that counts, and none once the session is over.
    pub fn fail(&self, why: LinkFailure) {
        if self.state() == State::Closed {
            return;
        }
        let first = self.reason.compare_exchange(0, why.number(), Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if first && self.state.compare_exchange(UP, FAILING, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.ring();
        }
    }

    /// The session is over.
    pub(super) fn close(&self) {
        self.state.store(CLOSED, Ordering::Release);
        self.ring();
    }

    pub(super) fn failure(&self) -> LinkFailure {
        LinkFailure::from_number(self.reason.load(Ordering::Acquire))
    }

    /// Why it was given up, if it was: known even after the session has ended because of it.
    pub(super) fn given_up(&self) -> Option<LinkFailure> {
        (self.state() != State::Up && self.reason.load(Ordering::Acquire) != 0).then(|| self.failure())
    }

    pub(super) fn drained(&self, arrived: u64) {
        self.arrived.store(arrived, Ordering::Relaxed);
        let _ = self.state.compare_exchange(FAILING, DRAINED, Ordering::AcqRel, Ordering::Relaxed);
        self.ring();
    }

    /// Messages that arrived over it, once it is drained.
    pub(super) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// The peer says how many messages arrived there.
    pub(super) fn set_arrived_there(&self, messages: u64) {
        self.arrived_there.store(messages.saturating_add(1), Ordering::Release);
    }

    pub(super) fn arrived_there(&self) -> Option<u64> {
        self.arrived_there.load(Ordering::Acquire).checked_sub(1)
    }

    /// The rounds before this one may be overwritten. It never falls.
    pub(super) fn release(&self, round: u64) {
        self.released.fetch_max(round.saturating_add(1), Ordering::AcqRel);
        self.ring();
    }

    pub(super) fn released(&self) -> Option<u64> {
        self.released.load(Ordering::Acquire).checked_sub(1)
    }
}

/// A frame that the device has, or a signal without memory.
struct UnderWay {
    frame: Option<Outgoing>,
    bytes: usize,
}

/// The sending half with what is under way through it.
pub(super) struct Sender {
    half: SendHalf,
    depth: usize,
    /// The number of the next request: how many there were.
    next: u64,
    under_way: VecDeque<UnderWay>,
    requests: Vec<SendRequest>,
    /// Sleepers are woken by the descriptor.
    notify: bool,
}

impl Sender {
    pub(super) fn new(half: SendHalf, depth: usize, notify: bool) -> Sender {
        let (under_way, requests) = (VecDeque::with_capacity(depth), Vec::with_capacity(REQUESTS_AT_ONCE));
        Sender { half, depth, next: 0, under_way, requests, notify }
    }

    pub(super) fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        self.notify.then(|| self.half.completions.descriptor())
    }

    /// Is something under way whose completion no descriptor announces?
    pub(super) fn must_be_polled(&self) -> bool {
        !self.notify && !self.under_way.is_empty()
    }

    /// Frames under way.
    pub(super) fn frames(&self) -> usize {
        self.under_way.iter().filter(|it| it.frame.is_some()).count()
    }

    /// Is there room for one more request in this batch?
    pub(super) fn has_room(&self) -> bool {
        self.requests.len() < REQUESTS_AT_ONCE && self.under_way.len() < self.depth
    }

    /// Adds a request to the batch; it keeps `frame`, in whose slot the request's memory is, until the device is done with it.
    pub(super) fn stage(&mut self, piece: Option<Piece>, operation: Operation, frame: Option<Outgoing>, bytes: usize) {
        self.requests.push(SendRequest { id: self.next, piece, operation, signalled: false });
        self.next += 1;
        self.under_way.push_back(UnderWay { frame, bytes });
    }

    /// Hands the batch to the device; `false` if it was empty. Only the last request of a batch is signalled: its completion
    /// stands for all before it.
    pub(super) fn post(&mut self) -> Result<bool, LinkFailure> {
        let Some(last) = self.requests.last_mut() else { return Ok(false) };
        last.signalled = true;
        // SAFETY: the memory of every request is in the slot of its frame (or none), which stays in `under_way`, frozen or owned
        // and not touched, until a completion says that the device is done; or until the queue pair is stopped: see `Drop` and
        // `let_go`.
        #[allow(unsafe_code)]
        let posted = unsafe { self.half.post(&self.requests) };
        self.requests.clear();
        match posted {
            Ok(()) => Ok(true),
            Err(error) if error.is_gone() => Err(LinkFailure::DeviceLost),
            // It broke because of a request before these, whose completion says why.
            Err(_) => Err(self.reap().err().unwrap_or(LinkFailure::Broken)),
        }
    }

    /// Takes completions; says how many bytes have arrived at the peer.
    pub(super) fn reap(&mut self) -> Result<usize, LinkFailure> {
        let mut bytes = 0;
        if self.under_way.is_empty() {
            return Ok(0);
        }
        loop {
            let mut list = [ffi::ibv_wc::default(); COMPLETIONS_AT_ONCE];
            let found = self.half.completions.poll(&mut list).map_err(|_| LinkFailure::DeviceLost)?;
            for completion in &list[..found] {
                if completion.status != ffi::IBV_WC_SUCCESS {
                    return Err(LinkFailure::of_status(completion.status));
                }
                // Requests complete in order: all up to this one.
                for _ in self.first()..=completion.wr_id {
                    bytes += self.under_way.pop_front().map_or(0, |done| done.bytes);
                }
            }
            if found < list.len() {
                return Ok(bytes);
            }
        }
    }

    /// The number of the oldest request under way.
    fn first(&self) -> u64 {
        self.next - self.under_way.len() as u64
    }

    /// Before sleeping: has the descriptor announce the next completion. Says what arrived in the meantime.
    pub(super) fn rest(&mut self) -> Result<usize, LinkFailure> {
        if !self.notify || self.under_way.is_empty() {
            return Ok(0);
        }
        self.half.completions.disarm();
        self.half.completions.arm().map_err(|_| LinkFailure::DeviceLost)?;
        self.reap()
    }

    /// Stops the queue pair and lets go of it; what was not known to have arrived comes back, oldest first, and with the number of the
    /// first. A queue pair that is stopped reads nothing any more (InfiniBand specification, 10.3.1: the error state).
    pub(super) fn let_go(mut self) -> (u64, VecDeque<Outgoing>) {
        self.half.pair.stop();
        let first = self.first();
        let under_way = std::mem::take(&mut self.under_way);
        (first, under_way.into_iter().filter_map(|it| it.frame).collect())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // Slots of updates are for all: they do not wait until the queue pair is destroyed. Stopped, it reads nothing any more.
        if !self.under_way.is_empty() {
            self.half.pair.stop();
        }
    }
}

/// How long a queue pair may take to give back the receives that were posted, once it is stopped.
const DRAIN: Duration = Duration::from_millis(200);

/// A receiving half that is being given up.
///
/// Its queue pair is stopped, and then asked for completions until every posted receive has come back, filled or flushed: a
/// provider may throw away completions when a queue pair is destroyed, so that has to wait.
pub(super) struct Draining {
    half: ReceiveHalf,
    stopped: Option<Instant>,
}

impl Draining {
    pub(super) fn new(half: ReceiveHalf) -> Draining {
        Draining { half, stopped: None }
    }

    /// The queue pair, for whoever drops it.
    pub(super) fn into_pair(self) -> Arc<RawQueuePair> {
        self.half.pair
    }

    /// Can it go on?
    pub(super) fn wants_turn(&self) -> bool {
        Arc::strong_count(&self.half.pair) == 1
    }

    /// Gives completions to `each`, which says how many receives are still posted. `true`: that is all, call [`Draining::finish`].
    pub(super) fn step(&mut self, now: Instant, mut each: impl FnMut(Option<&ffi::ibv_wc>) -> usize) -> bool {
        if !self.wants_turn() {
            return false;
        }
        let stopped = *self.stopped.get_or_insert_with(|| {
            self.half.pair.stop();
            now
        });
        let mut list = [ffi::ibv_wc::default(); COMPLETIONS_AT_ONCE];
        loop {
            match self.half.completions.poll(&mut list) {
                Ok(found @ 1..) => list[..found].iter().for_each(|completion| {
                    each(Some(completion));
                }),
                // Nothing more: of a device that is gone nothing will come.
                Err(_) => return true,
                Ok(0) => return each(None) == 0 || now.saturating_duration_since(stopped) >= DRAIN,
            }
        }
    }

    /// Gives the queue pair up. If all receives came back nothing can arrive any more, and it is destroyed in its own time; else it is
    /// destroyed here and now, before anybody touches the memory of those that did not.
    pub(super) fn finish(self, complete: bool) {
        if !complete && let Ok(pair) = Arc::try_unwrap(self.half.pair) {
            pair.destroy();
        }
    }
}
