//! Verbs as owned values: whoever holds one has it, dropping it gives it back, and what needs another keeps it alive.
//!
//! ```text
//! Context <- ProtectionDomain <- Region        QueuePair<Reset> -> <Initialised> -> <Receiving> -> <Connected> -> split
//! Context <- CompletionQueue  <- QueuePair
//! ```
//!
//! The states of a queue pair are types, and moving along the ladder moves the value: a queue pair that cannot send has no
//! method for it. Memory that the device may touch is handed over by value and comes back when the device is done with it, or
//! when its queue pair is stopped (what it reads) or has given it back, at the latest when it is gone (what it writes).

//! Here: devices, protection domains, regions. In `completion`: completion queues. In `pair`: queue pairs and their ladder. In
//! `post`: the two halves of a connected one.

#![allow(unsafe_code)]

mod completion;
mod pair;
mod post;

use std::ffi::{CStr, c_int};
use std::fmt;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

pub use completion::CompletionQueue;
pub(super) use pair::RawQueuePair;
pub use pair::{Connected, Depths, Initialised, Path, QueuePair, Receiving, Remote, Reset, Undertaker};
pub use post::{Operation, Piece, REQUESTS_AT_ONCE, ReceiveHalf, SendHalf, SendRequest};

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
