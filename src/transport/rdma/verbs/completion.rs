//! Where completions arrive, and the descriptor that announces them.

use std::ffi::{c_int, c_uint};
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::super::completions::Completions;
use super::super::error::VerbsError;
use super::super::ffi;
use super::{Context, set_nonblocking};

/// Where completions arrive, with a descriptor that says so to those who sleep.
pub struct CompletionQueue(pub(super) Arc<RawCompletionQueue>, Option<Arc<Completions>>);

pub(super) struct RawCompletionQueue {
    context: Context,
    pub(super) raw: NonNull<ffi::ibv_cq>,
    channel: NonNull<ffi::ibv_comp_channel>,
    pub(super) depth: usize,
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
        let raw = RawCompletionQueue { context: context.clone(), raw, channel, depth };
        let queue = CompletionQueue(Arc::new(raw), None);
        set_nonblocking(queue.descriptor()).map_err(|error| VerbsError {
            verb: "fcntl",
            place: context.name().into(),
            attempt: "the descriptor of a completion channel".into(),
            error,
        })?;
        Ok(queue)
    }

    /// The same, with what arrives counted there.
    pub fn counted_by(self, completions: Arc<Completions>) -> CompletionQueue {
        CompletionQueue(self.0, Some(completions))
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
        let found = usize::try_from(found)
            .map_err(|_| VerbsError::from_code("ibv_poll_cq", self.0.context.name(), "completions".into(), found))?;
        self.1.iter().for_each(|counts| counts.count(&completions[..found]));
        Ok(found)
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
