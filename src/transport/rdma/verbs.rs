//! Verbs as owned values: whoever holds one has it, dropping it gives it back, and what needs another keeps it alive.
//!
//! ```text
//! Context <- ProtectionDomain <- Region        QueuePair<Reset> -> <Initialised> -> <Receiving> -> <Connected> -> split
//! Context <- CompletionQueue  <- QueuePair
//! ```
//!
//! The states of a queue pair are types, and moving along the ladder moves the value: a queue pair that cannot send has no
//! method for it. Memory that the device may touch is handed over by value and comes back when the device is done with it, or
//! when its queue pair is gone.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_uint};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::error::VerbsError;
use super::ffi::{self, Api};
use crate::memory::Slab;

/// An open device.
#[derive(Clone)]
pub struct Context(Arc<OpenContext>);

struct OpenContext {
    api: &'static Api,
    raw: NonNull<ffi::ibv_context>,
    name: String,
}

// SAFETY: the verbs library is thread-safe (ibv_open_device(3), "thread safe" in the verbs overview).
unsafe impl Send for OpenContext {}
// SAFETY: as above.
unsafe impl Sync for OpenContext {}

impl Drop for OpenContext {
    fn drop(&mut self) {
        // SAFETY: opened by `Context::open`, and everything made of it holds an `Arc` of it.
        unsafe { (self.api.ibv_close_device)(self.raw.as_ptr()) };
    }
}

fn set_nonblocking(descriptor: RawFd) -> std::io::Result<()> {
    // SAFETY: the descriptor belongs to an object that is alive during this call.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
    let flags = rustix::fs::fcntl_getfl(borrowed)?;
    Ok(rustix::fs::fcntl_setfl(borrowed, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// Something that happened to a device, beside completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncEvent {
    /// The device has failed or was removed.
    DeviceLost,
    /// This port lost its link.
    PortDown(u8),
    /// This port has a link again.
    PortUp(u8),
    /// The addresses of this port changed.
    AddressesChanged(u8),
    /// A queue pair with this number broke.
    QueuePairBroken(u32),
    /// A completion queue overran: a bug, its depth is the sum of its queues'.
    CompletionQueueOverrun,
    /// Another event, by its number.
    Other(c_int),
}

impl Context {
    /// Opens the device called `name`.
    ///
    /// # Errors
    /// If there is none, or it may not be opened.
    pub fn open(api: &'static Api, name: &str) -> Result<Context, VerbsError> {
        let mut count = 0;
        // SAFETY: the verb fills in the count and returns a list of so many devices, or null.
        let list = unsafe { (api.ibv_get_device_list)(&mut count) };
        if list.is_null() {
            return Err(VerbsError::last("ibv_get_device_list", name, "to open it".into()));
        }
        let mut found = Err(VerbsError {
            verb: "ibv_get_device_list",
            place: name.into(),
            attempt: "to open it".into(),
            error: std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such device"),
        });
        for at in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: `at` is below the length of the list.
            let device = unsafe { *list.add(at) };
            // SAFETY: a device of the list is alive until the list is freed; its name ends with 0.
            let its_name = unsafe { CStr::from_ptr((*device).name.as_ptr()) };
            if its_name.to_bytes() == name.as_bytes() {
                // SAFETY: as above.
                let raw = unsafe { (api.ibv_open_device)(device) };
                found = NonNull::new(raw).ok_or_else(|| {
                    VerbsError::last("ibv_open_device", name, "is /dev/infiniband/uverbs* ours?".into())
                });
            }
        }
        // SAFETY: from `ibv_get_device_list`; open contexts stay valid.
        unsafe { (api.ibv_free_device_list)(list) };
        let context = Context(Arc::new(OpenContext { api, raw: found?, name: name.into() }));
        set_nonblocking(context.async_descriptor()).map_err(|error| VerbsError {
            verb: "fcntl",
            place: name.into(),
            attempt: "the descriptor of asynchronous events".into(),
            error,
        })?;
        Ok(context)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    fn raw(&self) -> *mut ffi::ibv_context {
        self.0.raw.as_ptr()
    }

    /// What the device can do.
    ///
    /// # Errors
    /// If it does not say.
    pub fn attributes(&self) -> Result<ffi::ibv_device_attr, VerbsError> {
        // SAFETY: all fields are numbers, for which zeros are valid.
        let mut attributes: ffi::ibv_device_attr = unsafe { std::mem::zeroed() };
        // SAFETY: an open context, and room for the answer.
        let code = unsafe { (self.0.api.ibv_query_device)(self.raw(), &mut attributes) };
        match code {
            0 => Ok(attributes),
            code => Err(VerbsError::from_code("ibv_query_device", self.name(), "its limits".into(), code)),
        }
    }

    /// The state of one of its ports.
    ///
    /// # Errors
    /// If it does not say.
    pub fn port_attributes(&self, port: u8) -> Result<ffi::ibv_port_attr, VerbsError> {
        // SAFETY: all fields are numbers, for which zeros are valid.
        let mut attributes: ffi::ibv_port_attr = unsafe { std::mem::zeroed() };
        // SAFETY: an open context, and room for the answer.
        let code = unsafe { (self.0.api.ibv_query_port)(self.raw(), port, &mut attributes) };
        match code {
            0 => Ok(attributes),
            code => {
                let place = format!("{}:{port}", self.name());
                Err(VerbsError::from_code("ibv_query_port", &place, "its state".into(), code))
            }
        }
    }

    /// Readable when there are asynchronous events.
    pub fn async_descriptor(&self) -> RawFd {
        // SAFETY: the context is open.
        unsafe { (*self.raw()).async_fd }
    }

    /// The next asynchronous event, if there is one.
    pub fn async_event(&self) -> Option<AsyncEvent> {
        let mut event = ffi::ibv_async_event { element: ptr::null_mut(), event_type: 0 };
        // SAFETY: an open context whose descriptor does not block, and room for the event.
        if unsafe { (self.0.api.ibv_get_async_event)(self.raw(), &mut event) } != 0 {
            return None;
        }
        let port = event.element as usize as u8;
        let seen = match event.event_type {
            ffi::IBV_EVENT_DEVICE_FATAL => AsyncEvent::DeviceLost,
            ffi::IBV_EVENT_PORT_ERR => AsyncEvent::PortDown(port),
            ffi::IBV_EVENT_PORT_ACTIVE => AsyncEvent::PortUp(port),
            ffi::IBV_EVENT_GID_CHANGE | ffi::IBV_EVENT_LID_CHANGE => AsyncEvent::AddressesChanged(port),
            ffi::IBV_EVENT_QP_FATAL | ffi::IBV_EVENT_QP_REQ_ERR | ffi::IBV_EVENT_QP_ACCESS_ERR => {
                // SAFETY: the event is not acknowledged yet, so the queue pair cannot have been destroyed.
                AsyncEvent::QueuePairBroken(unsafe { (*event.element.cast::<ffi::ibv_qp>()).qp_num })
            }
            ffi::IBV_EVENT_CQ_ERR => AsyncEvent::CompletionQueueOverrun,
            other => AsyncEvent::Other(other),
        };
        // SAFETY: the event came from `ibv_get_async_event` and is acknowledged once.
        unsafe { (self.0.api.ibv_ack_async_event)(&mut event) };
        Some(seen)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({})", self.name())
    }
}

/// What belongs together: a queue pair reaches only regions of its own domain.
#[derive(Clone)]
pub struct ProtectionDomain(Arc<RawDomain>);

struct RawDomain {
    context: Context,
    raw: NonNull<ffi::ibv_pd>,
}

// SAFETY: the verbs library is thread-safe.
unsafe impl Send for RawDomain {}
// SAFETY: as above.
unsafe impl Sync for RawDomain {}

impl Drop for RawDomain {
    fn drop(&mut self) {
        // SAFETY: made by `ProtectionDomain::new`; regions and queue pairs in it hold an `Arc` of it.
        unsafe { (self.context.0.api.ibv_dealloc_pd)(self.raw.as_ptr()) };
    }
}

impl ProtectionDomain {
    /// A new domain.
    ///
    /// # Errors
    /// If the device has none left.
    pub fn new(context: &Context) -> Result<ProtectionDomain, VerbsError> {
        // SAFETY: an open context.
        let raw = unsafe { (context.0.api.ibv_alloc_pd)(context.raw()) };
        let raw = NonNull::new(raw)
            .ok_or_else(|| VerbsError::last("ibv_alloc_pd", context.name(), "a protection domain".into()))?;
        Ok(ProtectionDomain(Arc::new(RawDomain { context: context.clone(), raw })))
    }
}

/// What the device may do with a region, beside reading it to send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Send from it.
    Send,
    /// Receive into it, at our request.
    Receive,
    /// A connected peer that knows key and address may write into it.
    RemoteWrite,
}

/// Memory that the device knows. It stays claimed for as long as this value lives.
pub struct Region {
    raw: NonNull<ffi::ibv_mr>,
    domain: ProtectionDomain,
    // Keeps the memory.
    _slab: Slab,
}

// SAFETY: the verbs library is thread-safe, and the keys are plain numbers.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: made by `Region::new`. Queue pairs that use it are gone, or get an error completion.
        unsafe { (self.domain.0.context.0.api.ibv_dereg_mr)(self.raw.as_ptr()) };
    }
}

impl Region {
    /// Registers the slots of one holder of a slab, or with `None` all of it.
    ///
    /// # Errors
    /// If the system does not pin so much memory, or the device has no more regions.
    pub fn new(
        domain: &ProtectionDomain,
        slab: &Slab,
        holder: Option<usize>,
        access: Access,
    ) -> Result<Region, VerbsError> {
        let (start, bytes) = match holder {
            Some(holder) => slab.holder_region(holder),
            None => slab.region(),
        };
        let flags = match access {
            Access::Send => 0,
            Access::Receive => ffi::IBV_ACCESS_LOCAL_WRITE,
            Access::RemoteWrite => ffi::IBV_ACCESS_LOCAL_WRITE | ffi::IBV_ACCESS_REMOTE_WRITE,
        };
        let context = &domain.0.context;
        // SAFETY: the memory is the slab's, which the region keeps alive. What the device writes there it writes into slots
        // that were handed to it by value.
        let raw = unsafe { (context.0.api.ibv_reg_mr)(domain.0.raw.as_ptr(), start.cast_mut().cast(), bytes, flags) };
        let attempt = || format!("to register {} KiB for {access:?}", bytes.div_ceil(1024));
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("ibv_reg_mr", context.name(), attempt()))?;
        Ok(Region { raw, domain: domain.clone(), _slab: slab.clone() })
    }

    /// The key by which this side's work requests name it.
    pub fn local_key(&self) -> u32 {
        // SAFETY: the region is alive.
        unsafe { self.raw.as_ref().lkey }
    }

    /// The key by which a peer names it; of use only with [`Access::RemoteWrite`].
    pub fn remote_key(&self) -> u32 {
        // SAFETY: the region is alive.
        unsafe { self.raw.as_ref().rkey }
    }
}

/// Where completions arrive, with a descriptor that says so to those who sleep.
pub struct CompletionQueue(Arc<RawCompletionQueue>);

struct RawCompletionQueue {
    context: Context,
    raw: NonNull<ffi::ibv_cq>,
    channel: NonNull<ffi::ibv_comp_channel>,
    depth: usize,
}

// SAFETY: the verbs library is thread-safe.
unsafe impl Send for RawCompletionQueue {}
// SAFETY: as above.
unsafe impl Sync for RawCompletionQueue {}

impl Drop for RawCompletionQueue {
    fn drop(&mut self) {
        let api = self.context.0.api;
        // SAFETY: made by `CompletionQueue::new`; queue pairs that use it hold an `Arc` of it. All its events are acknowledged:
        // `disarm` does so at once.
        unsafe { (api.ibv_destroy_cq)(self.raw.as_ptr()) };
        // SAFETY: its only completion queue is gone.
        unsafe { (api.ibv_destroy_comp_channel)(self.channel.as_ptr()) };
    }
}

impl CompletionQueue {
    /// A queue with room for `depth` completions.
    ///
    /// # Errors
    /// If the device has not so much.
    pub fn new(context: &Context, depth: usize) -> Result<CompletionQueue, VerbsError> {
        let api = context.0.api;
        // SAFETY: an open context.
        let channel = unsafe { (api.ibv_create_comp_channel)(context.raw()) };
        let channel = NonNull::new(channel).ok_or_else(|| {
            VerbsError::last("ibv_create_comp_channel", context.name(), "a completion channel".into())
        })?;
        // SAFETY: a context and a channel of it; no user data.
        let raw = unsafe { (api.ibv_create_cq)(context.raw(), depth as c_int, ptr::null_mut(), channel.as_ptr(), 0) };
        let Some(raw) = NonNull::new(raw) else {
            let error = VerbsError::last("ibv_create_cq", context.name(), format!("{depth} completions"));
            // SAFETY: nothing uses the channel.
            unsafe { (api.ibv_destroy_comp_channel)(channel.as_ptr()) };
            return Err(error);
        };
        let queue = CompletionQueue(Arc::new(RawCompletionQueue { context: context.clone(), raw, channel, depth }));
        set_nonblocking(queue.descriptor()).map_err(|error| VerbsError {
            verb: "fcntl",
            place: context.name().into(),
            attempt: "the descriptor of a completion channel".into(),
            error,
        })?;
        Ok(queue)
    }

    /// Readable after a completion that came when the queue was armed.
    pub fn descriptor(&self) -> RawFd {
        // SAFETY: the channel is alive.
        unsafe { self.0.channel.as_ref().fd }
    }

    /// Takes completions, as many as there are and fit; says how many.
    ///
    /// # Errors
    /// If the device does not answer.
    pub fn poll(&mut self, completions: &mut [ffi::ibv_wc]) -> Result<usize, VerbsError> {
        // SAFETY: the queue is alive; a context's table has every operation of the data path.
        let found = unsafe {
            let raw = self.0.raw.as_ptr();
            let poll = (*(*raw).context).ops.poll_cq.expect("every provider has poll_cq");
            poll(raw, completions.len() as c_int, completions.as_mut_ptr())
        };
        usize::try_from(found)
            .map_err(|_| VerbsError::from_code("ibv_poll_cq", self.0.context.name(), "completions".into(), found))
    }

    /// Asks for the descriptor to become readable at the next completion. Poll once more afterwards: what came before does not
    /// count.
    ///
    /// # Errors
    /// If the device does not answer.
    pub fn arm(&mut self) -> Result<(), VerbsError> {
        // SAFETY: as in `poll`.
        let code = unsafe {
            let raw = self.0.raw.as_ptr();
            let arm = (*(*raw).context).ops.req_notify_cq.expect("every provider has req_notify_cq");
            arm(raw, 0)
        };
        match code {
            0 => Ok(()),
            code => Err(VerbsError::from_code("ibv_req_notify_cq", self.0.context.name(), "to arm".into(), code)),
        }
    }

    /// Takes the notices that made the descriptor readable; says whether there was any. After one the queue is not armed any more.
    pub fn disarm(&mut self) -> bool {
        let api = self.0.context.0.api;
        let (mut queue, mut data) = (ptr::null_mut(), ptr::null_mut());
        let mut events: c_uint = 0;
        // SAFETY: the channel is alive and does not block; room for both answers.
        while unsafe { (api.ibv_get_cq_event)(self.0.channel.as_ptr(), &mut queue, &mut data) } == 0 {
            events += 1;
        }
        if events > 0 {
            // SAFETY: so many events of this queue were taken; the channel has no other queue.
            unsafe { (api.ibv_ack_cq_events)(self.0.raw.as_ptr(), events) };
        }
        events > 0
    }
}

/// A reliable connection's end, in a state that is its type.
pub struct QueuePair<S> {
    raw: Arc<RawQueuePair>,
    state: PhantomData<S>,
}

/// Made, and not bound to a port.
pub enum Reset {}
/// Bound to a port: receives can be posted.
pub enum Initialised {}
/// Knows its peer: what comes lands in posted receives.
pub enum Receiving {}
/// Can send too.
pub enum Connected {}

/// What the halves of a queue pair share.
pub(super) struct RawQueuePair {
    /// Taken when it is dropped.
    pair: Option<LivePair>,
    number: u32,
    port: u8,
    /// Who destroys it; without one whoever drops it.
    undertaker: Option<Undertaker>,
}

/// A queue pair, and what must stay until it is destroyed. Fields are dropped after that, in this order.
struct LivePair {
    raw: NonNull<ffi::ibv_qp>,
    domain: ProtectionDomain,
    send: Arc<RawCompletionQueue>,
    receive: Arc<RawCompletionQueue>,
    /// Memory that the device may still touch.
    parked: std::sync::Mutex<Vec<Box<dyn Send>>>,
}

// SAFETY: the verbs library is thread-safe.
unsafe impl Send for LivePair {}
// SAFETY: as above; `parked` is behind a lock.
unsafe impl Sync for LivePair {}

impl Drop for LivePair {
    fn drop(&mut self) {
        // SAFETY: made by `QueuePair::new`; nobody else holds it.
        let code = unsafe { (self.domain.0.context.0.api.ibv_destroy_qp)(self.raw.as_ptr()) };
        if code != 0 {
            // It is still there, whatever the reason: so is what it may touch.
            let parked = self.parked.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            std::mem::forget(std::mem::take(parked));
        }
    }
}

/// Destroys queue pairs on threads of its own: a device may take its time for it (soft-RoCE up to seconds, while packets wait for
/// the address of a peer that is gone), and no reactor may wait for that.
#[derive(Clone)]
pub struct Undertaker(crossbeam::channel::Sender<LivePair>);

/// Queue pairs that are destroyed at the same time: one that takes long does not hold up the others.
const UNDERTAKERS: usize = 4;

impl Undertaker {
    /// Starts the threads, which sleep, and end with the last clone of this.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn new() -> std::io::Result<Undertaker> {
        let (sender, receiver) = crossbeam::channel::unbounded::<LivePair>();
        for _ in 0..UNDERTAKERS {
            let receiver = receiver.clone();
            std::thread::Builder::new()
                .name("solon-rdma-end".into())
                .spawn(move || receiver.into_iter().for_each(drop))?;
        }
        Ok(Undertaker(sender))
    }
}

impl RawQueuePair {
    /// Destroys it on this thread, however long that takes.
    pub(super) fn destroy(mut self) {
        drop(self.pair.take());
    }
}

impl Drop for RawQueuePair {
    fn drop(&mut self) {
        if self.pair.is_some() && self.undertaker.is_some() {
            // It is destroyed later; it must do nothing until then.
            self.stop();
        }
        let Some(pair) = self.pair.take() else { return };
        match &self.undertaker {
            // Fails only if the threads are gone: then it is destroyed here.
            Some(undertaker) => drop(undertaker.0.send(pair)),
            None => drop(pair),
        }
    }
}

/// How deep the queues of a queue pair are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depths {
    /// Work requests that can be under way to the peer.
    pub send: usize,
    /// Receives that can be posted.
    pub receive: usize,
}

/// One end of a path, as the other end must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Number of the peer's queue pair.
    pub number: u32,
    /// First packet sequence number that the peer sends.
    pub sequence: u32,
    /// The peer's address.
    pub gid: [u8; 16],
    /// The peer's local identifier, on InfiniBand.
    pub lid: u16,
    /// Bytes per packet, as `ibv_mtu` has it: 1 is 256, 5 is 4096.
    pub mtu: u8,
}

/// How this side reaches the path, and how patient it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Port of the device.
    pub port: u8,
    /// Which of the port's addresses.
    pub gid_index: u8,
    /// Is the address a GID (RoCE), rather than a local identifier (InfiniBand)?
    pub global: bool,
    /// Traffic class of RoCE packets (DSCP and ECN).
    pub traffic_class: u8,
    /// InfiniBand service level, or RoCE priority.
    pub service_level: u8,
    /// Acknowledgements are waited for 4.096 us x 2^n.
    pub ack_timeout: u8,
    /// Repetitions before the peer is held to be unreachable; 6 at most.
    pub retries: u8,
    /// First packet sequence number that this side sends.
    pub sequence: u32,
}

/// A peer that has no receive posted is tried again for as long as it takes: the transport's own deadlines end it.
const RNR_FOR_EVER: u8 = 7;
/// After 0.64 ms (code 12 of `min_rnr_timer`).
const RNR_TIMER: u8 = 12;

fn empty_attributes() -> ffi::ibv_qp_attr {
    // SAFETY: all fields are numbers, for which zeros are valid.
    unsafe { std::mem::zeroed() }
}

impl<S> QueuePair<S> {
    /// Its number, by which the peer addresses it.
    pub fn number(&self) -> u32 {
        self.raw.number
    }

    /// Keeps a value until the queue pair is gone.
    pub(super) fn keep(&self, value: Box<dyn Send>) {
        self.raw.park(value);
    }

    fn modify<T>(
        self,
        attempt: impl FnOnce() -> String,
        mut attributes: ffi::ibv_qp_attr,
        mask: c_int,
    ) -> Result<QueuePair<T>, VerbsError> {
        self.raw.modify(attempt, &mut attributes, mask)?;
        Ok(QueuePair { raw: self.raw, state: PhantomData })
    }
}

impl RawQueuePair {
    fn live(&self) -> &LivePair {
        self.pair.as_ref().expect("it is there until it is dropped")
    }

    fn raw(&self) -> *mut ffi::ibv_qp {
        self.live().raw.as_ptr()
    }

    fn place(&self) -> String {
        format!("{}:{}", self.live().domain.0.context.name(), self.port)
    }

    fn modify(
        &self,
        attempt: impl FnOnce() -> String,
        attributes: &mut ffi::ibv_qp_attr,
        mask: c_int,
    ) -> Result<(), VerbsError> {
        let api = self.live().domain.0.context.0.api;
        // SAFETY: the queue pair is alive; the mask names fields that are filled in.
        match unsafe { (api.ibv_modify_qp)(self.raw(), attributes, mask) } {
            0 => Ok(()),
            code => Err(VerbsError::from_code("ibv_modify_qp", &self.place(), attempt(), code)),
        }
    }

    /// Keeps memory that the device may still touch until the queue pair is gone.
    pub(super) fn park(&self, memory: Box<dyn Send>) {
        self.live().parked.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(memory);
    }

    /// Stops all traffic: what is posted comes back with an error, mostly.
    pub(super) fn stop(&self) {
        let mut attributes = empty_attributes();
        attributes.qp_state = ffi::IBV_QPS_ERR;
        // Fails only if the device is gone, and the traffic with it.
        let _ = self.modify(String::new, &mut attributes, ffi::IBV_QP_STATE);
    }
}

impl QueuePair<Reset> {
    /// A queue pair whose sends complete in `send` and whose receives complete in `receive`; both are for it alone.
    ///
    /// # Errors
    /// If the device has not so much.
    ///
    /// # Panics
    /// If a completion queue is not as deep as its queue: it would overrun.
    pub fn new(
        domain: &ProtectionDomain,
        port: u8,
        send: &CompletionQueue,
        receive: &CompletionQueue,
        depths: Depths,
        undertaker: Option<&Undertaker>,
    ) -> Result<QueuePair<Reset>, VerbsError> {
        assert!(send.0.depth >= depths.send && receive.0.depth >= depths.receive, "no completion queue can overrun");
        let context = &domain.0.context;
        let mut attributes = ffi::ibv_qp_init_attr {
            qp_context: ptr::null_mut(),
            send_cq: send.0.raw.as_ptr(),
            recv_cq: receive.0.raw.as_ptr(),
            srq: ptr::null_mut(),
            cap: ffi::ibv_qp_cap {
                max_send_wr: depths.send as u32,
                max_recv_wr: depths.receive as u32,
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline_data: 0,
            },
            qp_type: ffi::IBV_QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: the domain and the queues are alive, and of one context.
        let raw = unsafe { (context.0.api.ibv_create_qp)(domain.0.raw.as_ptr(), &mut attributes) };
        let attempt = || format!("{} sends, {} receives", depths.send, depths.receive);
        let raw = NonNull::new(raw)
            .ok_or_else(|| VerbsError::last("ibv_create_qp", &format!("{}:{port}", context.name()), attempt()))?;
        // SAFETY: it was made a moment ago.
        let number = unsafe { raw.as_ref().qp_num };
        let pair = Some(LivePair {
            raw,
            domain: domain.clone(),
            send: send.0.clone(),
            receive: receive.0.clone(),
            parked: std::sync::Mutex::new(Vec::new()),
        });
        let raw = RawQueuePair { pair, number, port, undertaker: undertaker.cloned() };
        Ok(QueuePair { raw: Arc::new(raw), state: PhantomData })
    }

    /// Binds it to its port. With `remote_write` the peer may write into regions that allow it; else it may only send.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn initialise(self, remote_write: bool) -> Result<QueuePair<Initialised>, VerbsError> {
        let mut attributes = empty_attributes();
        attributes.qp_state = ffi::IBV_QPS_INIT;
        attributes.port_num = self.raw.port;
        attributes.qp_access_flags = if remote_write { ffi::IBV_ACCESS_REMOTE_WRITE as c_uint } else { 0 };
        let mask = ffi::IBV_QP_STATE | ffi::IBV_QP_PKEY_INDEX | ffi::IBV_QP_PORT | ffi::IBV_QP_ACCESS_FLAGS;
        self.modify(|| "RESET -> INIT".into(), attributes, mask)
    }
}

impl QueuePair<Initialised> {
    /// Posts a receive that takes only an immediate, before the peer is known.
    ///
    /// # Errors
    /// If the queue is full.
    pub fn post_empty_receive(&self, id: u64) -> Result<(), VerbsError> {
        self.raw.post_receive(None, id)
    }

    /// Tells it who its peer is.
    ///
    /// # Errors
    /// If there is no way to that address.
    pub fn receive_from(self, path: &Path, remote: &Remote) -> Result<QueuePair<Receiving>, VerbsError> {
        let mut attributes = empty_attributes();
        attributes.qp_state = ffi::IBV_QPS_RTR;
        attributes.path_mtu = c_int::from(remote.mtu);
        attributes.dest_qp_num = remote.number;
        attributes.rq_psn = remote.sequence;
        // Nobody reads from this side, nor uses atomics.
        attributes.max_dest_rd_atomic = 0;
        attributes.min_rnr_timer = RNR_TIMER;
        attributes.ah_attr = ffi::ibv_ah_attr {
            grh: ffi::ibv_global_route {
                dgid: ffi::ibv_gid { raw: remote.gid },
                flow_label: 0,
                sgid_index: path.gid_index,
                hop_limit: 64,
                traffic_class: path.traffic_class,
            },
            dlid: remote.lid,
            sl: path.service_level,
            src_path_bits: 0,
            static_rate: 0,
            is_global: u8::from(path.global),
            port_num: path.port,
        };
        let mask = ffi::IBV_QP_STATE
            | ffi::IBV_QP_AV
            | ffi::IBV_QP_PATH_MTU
            | ffi::IBV_QP_DEST_QPN
            | ffi::IBV_QP_RQ_PSN
            | ffi::IBV_QP_MAX_DEST_RD_ATOMIC
            | ffi::IBV_QP_MIN_RNR_TIMER;
        let attempt = || {
            format!(
                "INIT -> RTR, our GID index {}, to queue pair {} at GID {} LID {}, MTU code {}",
                path.gid_index,
                remote.number,
                std::net::Ipv6Addr::from(remote.gid),
                remote.lid,
                remote.mtu
            )
        };
        self.modify(attempt, attributes, mask)
    }
}

impl QueuePair<Receiving> {
    /// Lets it send.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn connect(self, path: &Path) -> Result<QueuePair<Connected>, VerbsError> {
        let mut attributes = empty_attributes();
        attributes.qp_state = ffi::IBV_QPS_RTS;
        attributes.sq_psn = path.sequence;
        attributes.timeout = path.ack_timeout;
        attributes.retry_cnt = path.retries;
        attributes.rnr_retry = RNR_FOR_EVER;
        attributes.max_rd_atomic = 0;
        let mask = ffi::IBV_QP_STATE
            | ffi::IBV_QP_SQ_PSN
            | ffi::IBV_QP_TIMEOUT
            | ffi::IBV_QP_RETRY_CNT
            | ffi::IBV_QP_RNR_RETRY
            | ffi::IBV_QP_MAX_QP_RD_ATOMIC;
        self.modify(|| "RTR -> RTS".into(), attributes, mask)
    }
}

impl QueuePair<Connected> {
    /// The half that sends and the half that receives, for two threads. `send` and `receive` are its completion queues.
    pub fn split(self, send: CompletionQueue, receive: CompletionQueue) -> (SendHalf, ReceiveHalf) {
        let same = Arc::ptr_eq(&self.raw.live().send, &send.0) && Arc::ptr_eq(&self.raw.live().receive, &receive.0);
        assert!(same, "a queue pair is split with its own completion queues");
        (SendHalf { pair: self.raw.clone(), completions: send }, ReceiveHalf { pair: self.raw, completions: receive })
    }
}

impl RawQueuePair {
    fn post_receive(&self, piece: Option<Piece>, id: u64) -> Result<(), VerbsError> {
        let mut list = Piece::list(piece);
        let count = c_int::from(piece.is_some());
        let mut request = ffi::ibv_recv_wr { wr_id: id, next: ptr::null_mut(), sg_list: &mut list, num_sge: count };
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair is alive; the request is copied before the call returns. The memory is kept by who posts it.
        let code = unsafe {
            let raw = self.raw();
            let post = (*(*raw).context).ops.post_recv.expect("every provider has post_recv");
            post(raw, &mut request, &mut bad)
        };
        match code {
            0 => Ok(()),
            code => Err(VerbsError::from_code("ibv_post_recv", &self.place(), "a receive".into(), code)),
        }
    }
}

/// A piece of registered memory.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Where it begins.
    pub address: u64,
    /// Its bytes.
    pub bytes: u32,
    /// The local key of its region.
    pub key: u32,
}

impl Piece {
    fn list(piece: Option<Piece>) -> ffi::ibv_sge {
        let none = ffi::ibv_sge { addr: 0, length: 0, lkey: 0 };
        piece.map_or(none, |piece| ffi::ibv_sge { addr: piece.address, length: piece.bytes, lkey: piece.key })
    }
}

/// A work request that sends.
#[derive(Clone, Copy, Debug)]
pub struct SendRequest {
    /// Comes back in its completion.
    pub id: u64,
    /// What is sent; `None`: nothing but the immediate.
    pub piece: Option<Piece>,
    /// What is done with it.
    pub operation: Operation,
    /// Is its completion reported?
    pub signalled: bool,
}

/// What a [`SendRequest`] does at the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Into the peer's next posted receive.
    Send,
    /// To an address of the peer's, using up a posted receive for the immediate.
    WriteWithImmediate {
        /// Where.
        address: u64,
        /// The key of the peer's region.
        key: u32,
        /// The number that goes with it.
        immediate: u32,
    },
}

/// The most work requests that are handed to the device at once.
pub const REQUESTS_AT_ONCE: usize = 16;

/// The half of a connected queue pair that sends.
pub struct SendHalf {
    pub(super) pair: Arc<RawQueuePair>,
    /// Where its completions arrive.
    pub completions: CompletionQueue,
}

impl SendHalf {
    /// Hands requests to the device in one go.
    ///
    /// # Panics
    /// If they are more than [`REQUESTS_AT_ONCE`].
    ///
    /// # Errors
    /// If the device does not take all of them; it may have taken the first ones.
    ///
    /// # Safety
    /// The memory that each request names stays, unchanged, until its completion or that of a later one was polled, or the
    /// queue pair is gone.
    pub unsafe fn post(&mut self, requests: &[SendRequest]) -> Result<(), VerbsError> {
        let count = requests.len();
        assert!(count <= REQUESTS_AT_ONCE, "{count} requests at once");
        let mut pieces = [Piece::list(None); REQUESTS_AT_ONCE];
        // SAFETY: all fields are numbers and pointers, for which zeros are valid.
        let mut list: [ffi::ibv_send_wr; REQUESTS_AT_ONCE] = unsafe { std::mem::zeroed() };
        for (at, request) in requests.iter().enumerate() {
            pieces[at] = Piece::list(request.piece);
            let work = &mut list[at];
            work.wr_id = request.id;
            work.num_sge = c_int::from(request.piece.is_some());
            work.send_flags = if request.signalled { ffi::IBV_SEND_SIGNALED } else { 0 };
            match request.operation {
                Operation::Send => work.opcode = ffi::IBV_WR_SEND,
                Operation::WriteWithImmediate { address, key, immediate } => {
                    work.opcode = ffi::IBV_WR_RDMA_WRITE_WITH_IMM;
                    work.imm_data = immediate.to_be();
                    work.rdma = ffi::rdma_target { remote_addr: address, rkey: key, rest_of_union: [0; 2] };
                }
            }
        }
        if count == 0 {
            return Ok(());
        }
        let first = list.as_mut_ptr();
        for at in 0..count {
            // SAFETY: `at` is inside both arrays, which are not moved before the call below.
            unsafe {
                (*first.add(at)).sg_list = pieces.as_mut_ptr().add(at);
                (*first.add(at)).next = if at + 1 < count { first.add(at + 1) } else { ptr::null_mut() };
            }
        }
        let mut bad: *mut ffi::ibv_send_wr = ptr::null_mut();
        // SAFETY: the queue pair is alive and the list is whole; the device copies it before the call returns.
        let code = unsafe {
            let raw = self.pair.raw();
            let post = (*(*raw).context).ops.post_send.expect("every provider has post_send");
            post(raw, first, &mut bad)
        };
        match code {
            0 => Ok(()),
            code => Err(VerbsError::from_code("ibv_post_send", &self.pair.place(), format!("{count} requests"), code)),
        }
    }
}

/// The half of a connected queue pair that receives.
pub struct ReceiveHalf {
    pub(super) pair: Arc<RawQueuePair>,
    /// Where its completions arrive.
    pub completions: CompletionQueue,
}

impl ReceiveHalf {
    /// Posts a receive into `piece`, or with `None` one that takes only an immediate.
    ///
    /// # Safety
    /// The memory stays, and nobody else touches it, until the receive's completion was polled or the queue pair is gone.
    ///
    /// # Errors
    /// If the queue is full, or the device does not answer.
    pub unsafe fn post(&mut self, piece: Option<Piece>, id: u64) -> Result<(), VerbsError> {
        self.pair.post_receive(piece, id)
    }
}
