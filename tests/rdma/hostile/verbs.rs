//! Raw verbs for somebody who keeps to no rule: every opcode, any key and address, through the product's function table.
//!
//! Whatever a device may touch lives until the process ends, so nothing that an [`End`] does can harm this process.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_uint};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use solon::transport::rdma::ffi::*;
use solon::wire::Endpoint;

pub const IBV_WR_ATOMIC_CMP_AND_SWP: c_int = 5;
pub const IBV_WR_ATOMIC_FETCH_AND_ADD: c_int = 6;
const IBV_ACCESS_REMOTE_ATOMIC: c_int = 1 << 3;
/// Everything that a peer can be allowed.
pub const ALL_RIGHTS: c_int =
    IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;

const QUEUE: u32 = 512;
const PORT: u8 = 1;
/// RoCE v2 over IPv4, in the guest.
const GID: u8 = 1;
/// An answer that does not come within 4.096 us x 2^14 is asked for again; six times.
const ACK_TIMEOUT: u8 = 14;
const RETRIES: u8 = 6;

/// A queue pair with all that it needs, in any state.
pub struct End {
    api: &'static Api,
    context: NonNull<ibv_context>,
    domain: NonNull<ibv_pd>,
    completions: NonNull<ibv_cq>,
    pair: NonNull<ibv_qp>,
    regions: Vec<NonNull<ibv_mr>>,
    gid: [u8; 16],
}

// SAFETY: the verbs library is thread-safe.
unsafe impl Send for End {}
// SAFETY: as above.
unsafe impl Sync for End {}

/// Registered memory; `words` may change at any time.
#[derive(Clone, Copy)]
pub struct Memory {
    pub words: &'static [AtomicU32],
    pub local_key: u32,
    /// 0 if no peer has a right to it.
    pub remote_key: u32,
}

impl Memory {
    pub fn address(&self) -> u64 {
        self.words.as_ptr().expose_provenance() as u64
    }

    pub fn fill(&self, word: u32) {
        self.words.iter().for_each(|it| it.store(word, Ordering::Relaxed));
    }

    pub fn holds_only(&self, word: u32) -> bool {
        self.words.iter().all(|it| it.load(Ordering::Relaxed) == word)
    }

    /// Writes whole words from word `at` on.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert_eq!(bytes.len() % 4, 0);
        for (word, bytes) in self.words[at..].iter().zip(bytes.chunks_exact(4)) {
            word.store(u32::from_ne_bytes(bytes.try_into().expect("four bytes")), Ordering::Relaxed);
        }
    }

    pub fn piece(&self, bytes: usize) -> ibv_sge {
        assert!(bytes <= 4 * self.words.len());
        ibv_sge { addr: self.address(), length: bytes as u32, lkey: self.local_key }
    }
}

/// A send request: any operation on anything.
#[derive(Clone, Copy)]
pub struct Request {
    pub opcode: c_int,
    pub piece: Option<ibv_sge>,
    pub address: u64,
    pub key: u32,
    /// The immediate, or the key that the peer is to invalidate.
    pub number: u32,
}

impl Request {
    pub fn send(piece: Option<ibv_sge>) -> Request {
        Request { opcode: IBV_WR_SEND, piece, address: 0, key: 0, number: 0 }
    }
}

fn opened<T>(what: &str, pointer: *mut T) -> NonNull<T> {
    NonNull::new(pointer).unwrap_or_else(|| panic!("{what}: {}", std::io::Error::last_os_error()))
}

fn device(api: &Api, name: &str) -> NonNull<ibv_context> {
    let mut count = 0;
    // SAFETY: the verb fills in the count.
    let list = unsafe { (api.ibv_get_device_list)(&mut count) };
    for at in 0..usize::try_from(count).expect("a count") {
        // SAFETY: `at` is below the list's length, and the list is not freed.
        let device = unsafe { *list.add(at) };
        // SAFETY: the name of a device ends with 0.
        if unsafe { CStr::from_ptr((*device).name.as_ptr()) }.to_bytes() == name.as_bytes() {
            // SAFETY: a device of the list.
            return opened("ibv_open_device", unsafe { (api.ibv_open_device)(device) });
        }
    }
    panic!("no device {name}");
}

impl End {
    /// A queue pair on this device, not yet bound to anything.
    pub fn new(name: &str) -> End {
        let api = Api::load().expect("libibverbs");
        // Refused once memory is registered, and honest workers of this process ask for it later.
        // SAFETY: it may be called at any time.
        assert_eq!(unsafe { (api.ibv_fork_init)() }, 0, "ibv_fork_init");
        let context = device(api, name);
        // SAFETY: an open context.
        let domain = opened("ibv_alloc_pd", unsafe { (api.ibv_alloc_pd)(context.as_ptr()) });
        let depth = 2 * QUEUE as c_int;
        // SAFETY: an open context; no channel.
        let completions = unsafe { (api.ibv_create_cq)(context.as_ptr(), depth, ptr::null_mut(), ptr::null_mut(), 0) };
        let completions = opened("ibv_create_cq", completions);
        let mut attributes = ibv_qp_init_attr {
            qp_context: ptr::null_mut(),
            send_cq: completions.as_ptr(),
            recv_cq: completions.as_ptr(),
            srq: ptr::null_mut(),
            cap: ibv_qp_cap {
                max_send_wr: QUEUE,
                max_recv_wr: QUEUE,
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline_data: 0,
            },
            qp_type: IBV_QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: domain and queue are alive, of one context.
        let pair = opened("ibv_create_qp", unsafe { (api.ibv_create_qp)(domain.as_ptr(), &mut attributes) });
        let mut gid = ibv_gid::default();
        // SAFETY: an open context, and room for the answer.
        let code = unsafe { (api.ibv_query_gid)(context.as_ptr(), PORT, c_int::from(GID), &mut gid) };
        assert_eq!(code, 0, "ibv_query_gid");
        End { api, context, domain, completions, pair, regions: Vec::new(), gid: gid.raw }
    }

    /// New memory in this end's domain, all 0.
    pub fn memory(&mut self, bytes: usize, rights: c_int) -> Memory {
        let words = bytes.div_ceil(4);
        let words: &'static [AtomicU32] = (0..words).map(|_| AtomicU32::new(0)).collect::<Vec<_>>().leak();
        let (start, bytes) = (words.as_ptr().cast_mut().cast(), size_of_val(words));
        // SAFETY: the memory lives for ever, and is atomic: who writes when is nobody's promise.
        let region = unsafe { (self.api.ibv_reg_mr)(self.domain.as_ptr(), start, bytes, rights) };
        let region = opened("ibv_reg_mr", region);
        self.regions.push(region);
        // SAFETY: the region is alive.
        let (local_key, remote_key) = unsafe { (region.as_ref().lkey, region.as_ref().rkey) };
        Memory { words, local_key, remote_key }
    }

    /// This end, as the other one is told.
    pub fn endpoint(&self) -> Endpoint {
        // SAFETY: the queue pair is alive.
        let number = unsafe { self.pair.as_ref().qp_num };
        Endpoint { number, sequence: 0x1234, gid: self.gid, lid: 0, mtu: 5, global: true }
    }

    fn modify(&self, attributes: &mut ibv_qp_attr, mask: c_int) -> Result<(), i32> {
        // SAFETY: the queue pair is alive, and the mask names fields that are filled in.
        match unsafe { (self.api.ibv_modify_qp)(self.pair.as_ptr(), attributes, mask) } {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// From any state to INIT: nothing that was posted is left.
    pub fn reset(&self) {
        for tries in 1.. {
            // SAFETY: all fields are numbers, for which zeros are valid.
            let mut attributes: ibv_qp_attr = unsafe { std::mem::zeroed() };
            attributes.qp_state = IBV_QPS_RESET;
            self.modify(&mut attributes, IBV_QP_STATE).expect("to RESET");
            while self.poll().is_some() {}
            attributes.qp_state = IBV_QPS_INIT;
            attributes.port_num = PORT;
            attributes.qp_access_flags = ALL_RIGHTS as c_uint;
            let mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
            match self.modify(&mut attributes, mask) {
                Ok(()) => return,
                // soft-RoCE's task may still put the pair into error that was reset under it: it is no more in RESET then.
                Err(_) if tries < 10 => std::thread::yield_now(),
                Err(code) => panic!("to INIT: {code}"),
            }
        }
    }

    /// From INIT to connected. With `rnr_retry` 7 a peer without receives is waited for, for ever.
    pub fn connect(&self, there: &Endpoint, rnr_retry: u8) {
        // SAFETY: all fields are numbers, for which zeros are valid.
        let mut attributes: ibv_qp_attr = unsafe { std::mem::zeroed() };
        attributes.qp_state = IBV_QPS_RTR;
        attributes.path_mtu = c_int::from(there.mtu.min(5));
        attributes.dest_qp_num = there.number;
        attributes.rq_psn = there.sequence;
        attributes.max_dest_rd_atomic = 1;
        attributes.min_rnr_timer = 12;
        attributes.ah_attr.grh = ibv_global_route {
            dgid: ibv_gid { raw: there.gid },
            flow_label: 0,
            sgid_index: GID,
            hop_limit: 64,
            traffic_class: 0,
        };
        attributes.ah_attr.is_global = 1;
        attributes.ah_attr.port_num = PORT;
        let mask = IBV_QP_STATE
            | IBV_QP_AV
            | IBV_QP_PATH_MTU
            | IBV_QP_DEST_QPN
            | IBV_QP_RQ_PSN
            | IBV_QP_MAX_DEST_RD_ATOMIC
            | IBV_QP_MIN_RNR_TIMER;
        self.modify(&mut attributes, mask).expect("to RTR");
        attributes.qp_state = IBV_QPS_RTS;
        attributes.sq_psn = self.endpoint().sequence;
        attributes.timeout = ACK_TIMEOUT;
        attributes.retry_cnt = RETRIES;
        attributes.rnr_retry = rnr_retry;
        attributes.max_rd_atomic = 1;
        let mask = IBV_QP_STATE
            | IBV_QP_SQ_PSN
            | IBV_QP_TIMEOUT
            | IBV_QP_RETRY_CNT
            | IBV_QP_RNR_RETRY
            | IBV_QP_MAX_QP_RD_ATOMIC;
        self.modify(&mut attributes, mask).expect("to RTS");
    }

    /// Posts a request; its completion comes back with `id`.
    pub fn post(&self, id: u64, request: Request) {
        let none = ibv_sge { addr: 0, length: 0, lkey: 0 };
        let mut piece = request.piece.unwrap_or(none);
        // An atomic's two operands overlap the key of the others: `swap` and its key stand behind.
        let rest_of_union = [7, u64::from(request.key)];
        let mut work = ibv_send_wr {
            wr_id: id,
            next: ptr::null_mut(),
            sg_list: &mut piece,
            num_sge: c_int::from(request.piece.is_some()),
            opcode: request.opcode,
            send_flags: IBV_SEND_SIGNALED,
            imm_data: request.number,
            rdma: rdma_target { remote_addr: request.address, rkey: request.key, rest_of_union },
            rest: [0; 7],
        };
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair is alive; its context has the provider's functions.
        let post = unsafe { (*self.pair.as_ref().context).ops.post_send.expect("a provider has post_send") };
        // SAFETY: request and piece are copied before the call returns; what they name lives for ever.
        let code = unsafe { post(self.pair.as_ptr(), &mut work, &mut bad) };
        assert_eq!(code, 0, "ibv_post_send");
    }

    /// Posts a receive.
    pub fn post_receive(&self, id: u64, piece: Option<ibv_sge>) {
        let mut list = piece.unwrap_or(ibv_sge { addr: 0, length: 0, lkey: 0 });
        let count = c_int::from(piece.is_some());
        let mut work = ibv_recv_wr { wr_id: id, next: ptr::null_mut(), sg_list: &mut list, num_sge: count };
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair is alive; its context has the provider's functions.
        let post = unsafe { (*self.pair.as_ref().context).ops.post_recv.expect("a provider has post_recv") };
        // SAFETY: as in `post`.
        let code = unsafe { post(self.pair.as_ptr(), &mut work, &mut bad) };
        assert_eq!(code, 0, "ibv_post_recv");
    }

    /// The next completion, if there is one.
    pub fn poll(&self) -> Option<ibv_wc> {
        let mut completion = ibv_wc::default();
        // SAFETY: the queue is alive; its context has the provider's functions.
        let poll = unsafe { (*self.completions.as_ref().context).ops.poll_cq.expect("a provider has poll_cq") };
        // SAFETY: the queue is alive, and there is room for one.
        let found = unsafe { poll(self.completions.as_ptr(), 1, &mut completion) };
        assert!(found >= 0, "ibv_poll_cq");
        (found == 1).then_some(completion)
    }

    /// The completion of the request with this id, within a time; others are thrown away.
    pub fn completion_of(&self, id: u64, within: Duration) -> Option<ibv_wc> {
        let start = Instant::now();
        loop {
            match self.poll() {
                Some(completion) if completion.wr_id == id => return Some(completion),
                Some(_) => {}
                None if start.elapsed() > within => return None,
                None => std::thread::yield_now(),
            }
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once, users before what they use; a failure leaves something open, no more.
        unsafe {
            (self.api.ibv_destroy_qp)(self.pair.as_ptr());
            (self.api.ibv_destroy_cq)(self.completions.as_ptr());
            self.regions.iter().for_each(|region| {
                (self.api.ibv_dereg_mr)(region.as_ptr());
            });
            (self.api.ibv_dealloc_pd)(self.domain.as_ptr());
            (self.api.ibv_close_device)(self.context.as_ptr());
        }
    }
}

/// Memory that somebody else may be changing, as words.
///
/// # Safety
/// It stays for as long as the result is used.
pub unsafe fn words<'a>(address: *const u8, bytes: usize) -> &'a [AtomicU32] {
    // SAFETY: by the caller's promise; a slot begins on a cache line.
    unsafe { std::slice::from_raw_parts(address.cast(), bytes / 4) }
}
