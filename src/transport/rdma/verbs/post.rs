//! Work requests, and the halves of a connected queue pair that post them.

use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;

use super::super::error::VerbsError;
use super::super::ffi;
use super::{CompletionQueue, RawQueuePair};

impl RawQueuePair {
    pub(super) fn post_receive(&self, piece: Option<Piece>, id: u64) -> Result<(), VerbsError> {
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
    pub(in super::super) pair: Arc<RawQueuePair>,
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
    /// queue pair is stopped, after which it reads nothing.
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
    pub(in super::super) pair: Arc<RawQueuePair>,
    /// Where its completions arrive.
    pub completions: CompletionQueue,
}

impl ReceiveHalf {
    /// Posts a receive into `piece`, or with `None` one that takes only an immediate.
    ///
    /// # Safety
    /// The memory stays, and nobody else touches it, until the receive's completion was polled: a stopped queue pair gives
    /// all of them back; or until the queue pair is gone.
    ///
    /// # Errors
    /// If the queue is full, or the device does not answer.
    pub unsafe fn post(&mut self, piece: Option<Piece>, id: u64) -> Result<(), VerbsError> {
        self.pair.post_receive(piece, id)
    }
}
