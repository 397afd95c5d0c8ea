//! The provider against the verbs manual.

use super::*;
use ffi::*;

const ALL: c_int = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
const BYTES: usize = 64;

/// One end of a connection, with everything that it needs, and 64 bytes of registered memory.
struct End {
    api: &'static Api,
    context: *mut ibv_context,
    domain: *mut ibv_pd,
    channel: *mut ibv_comp_channel,
    queue: *mut ibv_cq,
    pair: *mut ibv_qp,
    region: *mut ibv_mr,
    memory: *mut [u8; BYTES],
    number: u32,
}

/// How an end is made and connected.
#[derive(Clone, Copy)]
struct Options {
    depth: c_int,
    work: u32,
    region: c_int,
    access: c_int,
    rnr_retry: u8,
    psn: u32,
}

const USUAL: Options = Options { depth: 64, work: 8, region: ALL, access: ALL, rnr_retry: 7, psn: 7 };

fn nonblocking(descriptor: RawFd) {
    // SAFETY: the descriptor belongs to an object that lives.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
    rustix::fs::fcntl_setfl(descriptor, OFlags::NONBLOCK).unwrap();
}

fn errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap())
}

fn open(fake: &Fake, name: &str) -> *mut ibv_context {
    let api = fake.api();
    let mut context = ptr::null_mut();
    // SAFETY: as the manual says; the list is freed after its use.
    unsafe {
        let mut count = 0;
        let list = (api.ibv_get_device_list)(&mut count);
        for at in 0..count as usize {
            let device = *list.add(at);
            if std::ffi::CStr::from_ptr((*device).name.as_ptr()).to_str() == Ok(name) {
                context = (api.ibv_open_device)(device);
            }
        }
        (api.ibv_free_device_list)(list);
    }
    context
}

fn zeroed<T>() -> T {
    // SAFETY: used for C structures of numbers and pointers only.
    unsafe { std::mem::zeroed() }
}

impl End {
    fn new(fake: &Fake, device: &str, options: Options) -> End {
        let api = fake.api();
        let context = open(fake, device);
        assert!(!context.is_null(), "{device} opens");
        let memory = Box::into_raw(Box::new([0; BYTES]));
        // SAFETY: as the manual says; everything lives until `close`.
        unsafe {
            nonblocking((*context).async_fd);
            let domain = (api.ibv_alloc_pd)(context);
            let channel = (api.ibv_create_comp_channel)(context);
            nonblocking((*channel).fd);
            let queue = (api.ibv_create_cq)(context, options.depth, ptr::null_mut(), channel, 0);
            let cap = ibv_qp_cap {
                max_send_wr: options.work,
                max_recv_wr: options.work,
                max_send_sge: 2,
                max_recv_sge: 2,
                max_inline_data: 16,
            };
            let mut init: ibv_qp_init_attr = zeroed();
            (init.send_cq, init.recv_cq, init.cap, init.qp_type) = (queue, queue, cap, IBV_QPT_RC);
            let pair = (api.ibv_create_qp)(domain, &mut init);
            let region = (api.ibv_reg_mr)(domain, memory.cast(), BYTES, options.region);
            let number = (*pair).qp_num;
            End { api, context, domain, channel, queue, pair, region, memory, number }
        }
    }

    fn modify(&self, mask: c_int, set: impl FnOnce(&mut ibv_qp_attr)) -> c_int {
        let mut attributes = zeroed();
        set(&mut attributes);
        // SAFETY: the queue pair lives.
        unsafe { (self.api.ibv_modify_qp)(self.pair, &mut attributes, mask) }
    }

    fn init(&self, access: c_int) -> c_int {
        self.modify(IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, |set| {
            (set.qp_state, set.port_num, set.qp_access_flags) = (IBV_QPS_INIT, 1, access as c_uint);
        })
    }

    fn receive_from(&self, number: u32, host: u8, psn: u32) -> c_int {
        self.modify(RTR, |set| {
            (set.qp_state, set.path_mtu, set.dest_qp_num, set.rq_psn) = (IBV_QPS_RTR, 3, number, psn);
            (set.max_dest_rd_atomic, set.min_rnr_timer) = (1, 12);
            (set.ah_attr.is_global, set.ah_attr.port_num) = (1, 1);
            set.ah_attr.grh.dgid.raw[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, host]);
        })
    }

    fn send_to(&self, rnr_retry: u8) -> c_int {
        self.modify(RTS, |set| {
            (set.qp_state, set.sq_psn, set.timeout, set.retry_cnt) = (IBV_QPS_RTS, 7, 14, 6);
            (set.rnr_retry, set.max_rd_atomic) = (rnr_retry, 1);
        })
    }

    fn piece(&self, at: usize, length: u32) -> ibv_sge {
        // SAFETY: the region lives.
        ibv_sge { addr: self.memory as u64 + at as u64, length, lkey: unsafe { (*self.region).lkey } }
    }

    fn send(&self, id: u64, opcode: c_int, mut piece: ibv_sge, change: impl FnOnce(&mut ibv_send_wr)) -> c_int {
        let mut work: ibv_send_wr = zeroed();
        (work.wr_id, work.opcode, work.sg_list, work.num_sge) = (id, opcode, &mut piece, 1);
        work.send_flags = IBV_SEND_SIGNALED;
        change(&mut work);
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair lives, the memory lives until `close`.
        unsafe { (*self.context).ops.post_send.unwrap()(self.pair, &mut work, &mut bad) }
    }

    /// To the start of the other's memory.
    fn rdma(&self, id: u64, opcode: c_int, length: u32, to: &End) -> c_int {
        self.send(id, opcode, self.piece(0, length), |work| {
            // SAFETY: the region lives.
            (work.rdma.remote_addr, work.rdma.rkey) = (to.memory as u64, unsafe { (*to.region).rkey });
            work.imm_data = 9;
        })
    }

    fn receive_into(&self, id: u64, mut piece: ibv_sge) -> c_int {
        let mut work = ibv_recv_wr { wr_id: id, next: ptr::null_mut(), sg_list: &mut piece, num_sge: 1 };
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair lives, the memory lives until `close`.
        unsafe { (*self.context).ops.post_recv.unwrap()(self.pair, &mut work, &mut bad) }
    }

    fn receive(&self, id: u64) -> c_int {
        self.receive_into(id, self.piece(32, 32))
    }

    fn poll(&self) -> Vec<ibv_wc> {
        let mut all = [ibv_wc::default(); 64];
        // SAFETY: the queue lives, and there is room.
        let count = unsafe { (*self.context).ops.poll_cq.unwrap()(self.queue, 64, all.as_mut_ptr()) };
        all[..count as usize].to_vec()
    }

    /// What was completed: identity and status.
    fn statuses(&self) -> Vec<(u64, c_int)> {
        self.poll().iter().map(|completion| (completion.wr_id, completion.status)).collect()
    }

    fn arm(&self) {
        // SAFETY: the queue lives.
        assert_eq!(unsafe { (*self.context).ops.req_notify_cq.unwrap()(self.queue, 0) }, 0);
    }

    /// How many events the channel has; acknowledges them.
    fn wakes(&self) -> u32 {
        let (mut queue, mut user, mut count) = (ptr::null_mut(), ptr::null_mut(), 0);
        // SAFETY: the channel lives and does not block.
        while unsafe { (self.api.ibv_get_cq_event)(self.channel, &mut queue, &mut user) } == 0 {
            assert_eq!(queue, self.queue);
            count += 1;
        }
        assert_eq!(errno(), Errno::AGAIN);
        // SAFETY: so many were taken.
        unsafe { (self.api.ibv_ack_cq_events)(self.queue, count) };
        count
    }

    fn events(&self) -> Vec<(c_int, usize)> {
        let mut all = Vec::new();
        let mut event = zeroed();
        // SAFETY: the context lives and does not block.
        while unsafe { (self.api.ibv_get_async_event)(self.context, &mut event) } == 0 {
            all.push((event.event_type, event.element as usize));
        }
        assert_eq!(errno(), Errno::AGAIN);
        all
    }

    fn fill(&self, byte: u8) {
        // SAFETY: the memory lives.
        unsafe { *self.memory = [byte; BYTES] };
    }

    fn byte(&self, at: usize) -> u8 {
        // SAFETY: the memory lives.
        unsafe { (*self.memory)[at] }
    }

    fn close(self) {
        // SAFETY: everything lives, and is not used after.
        unsafe {
            assert_eq!((self.api.ibv_destroy_qp)(self.pair), 0);
            assert_eq!((self.api.ibv_destroy_cq)(self.queue), 0);
            assert_eq!((self.api.ibv_destroy_comp_channel)(self.channel), 0);
            assert_eq!((self.api.ibv_dereg_mr)(self.region), 0);
            assert_eq!((self.api.ibv_dealloc_pd)(self.domain), 0);
            assert_eq!((self.api.ibv_close_device)(self.context), 0);
            drop(Box::from_raw(self.memory));
        }
    }
}

const RTR: c_int = IBV_QP_STATE
    | IBV_QP_AV
    | IBV_QP_PATH_MTU
    | IBV_QP_DEST_QPN
    | IBV_QP_RQ_PSN
    | IBV_QP_MAX_DEST_RD_ATOMIC
    | IBV_QP_MIN_RNR_TIMER;
const RTS: c_int =
    IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;

fn connected_with(options: Options) -> (Fake, End, End) {
    let fake = Fake::with(vec![Device::roce("fake0", 1), Device::roce("fake1", 2)]);
    let (a, b) = (End::new(&fake, "fake0", options), End::new(&fake, "fake1", options));
    assert_eq!([a.init(options.access), b.init(options.access)], [0, 0]);
    assert_eq!([a.receive_from(b.number, 2, 7), b.receive_from(a.number, 1, options.psn)], [0, 0]);
    assert_eq!([a.send_to(options.rnr_retry), b.send_to(options.rnr_retry)], [0, 0]);
    (fake, a, b)
}

fn connected() -> (Fake, End, End) {
    connected_with(USUAL)
}

fn finish(fake: &Fake, a: End, b: End) {
    a.close();
    b.close();
    assert!(fake.counts().is_empty(), "{:?}", fake.counts());
}

#[test]
fn send_lands_in_the_posted_receive() {
    let (fake, a, b) = connected();
    a.fill(5);
    assert_eq!(b.receive(1), 0);
    assert_eq!(a.send(2, IBV_WR_SEND, a.piece(0, 10), |_| {}), 0);
    let got = b.poll()[0];
    assert_eq!((got.wr_id, got.status, got.opcode, got.byte_len), (1, IBV_WC_SUCCESS, IBV_WC_RECV, 10));
    assert_eq!((got.qp_num, got.wc_flags), (b.number, 0));
    assert_eq!((b.byte(31), b.byte(32), b.byte(41), b.byte(42)), (0, 5, 5, 0));
    let sent = a.poll()[0];
    assert_eq!((sent.wr_id, sent.status, sent.opcode, sent.qp_num), (2, IBV_WC_SUCCESS, IBV_WC_SEND, a.number));
    finish(&fake, a, b);
}

#[test]
fn immediates_and_invalidations_are_flagged() {
    let (fake, a, b) = connected();
    for id in 0..3 {
        b.receive(id);
    }
    a.send(0, IBV_WR_SEND_WITH_IMM, a.piece(0, 0), |work| work.imm_data = 77);
    a.send(1, IBV_WR_SEND_WITH_INV, a.piece(0, 1), |work| work.imm_data = 78);
    a.rdma(2, IBV_WR_RDMA_WRITE_WITH_IMM, 4, &b);
    let got: Vec<_> = b.poll().iter().map(|c| (c.opcode, c.wc_flags, c.imm_data, c.byte_len)).collect();
    let with_immediate = (IBV_WC_RECV_RDMA_WITH_IMM, IBV_WC_WITH_IMM, 9, 4);
    assert_eq!(got, [(IBV_WC_RECV, IBV_WC_WITH_IMM, 77, 0), (IBV_WC_RECV, IBV_WC_WITH_INV, 78, 1), with_immediate]);
    finish(&fake, a, b);
}

#[test]
fn rdma_writes_and_reads_touch_the_peers_memory() {
    let (fake, a, b) = connected();
    a.fill(3);
    a.rdma(0, IBV_WR_RDMA_WRITE, 8, &b);
    assert_eq!((b.byte(7), b.byte(8)), (3, 0));
    b.fill(4);
    a.rdma(1, IBV_WR_RDMA_READ, 2, &b);
    assert_eq!((a.byte(1), a.byte(2)), (4, 3));
    let opcodes: Vec<_> = a.poll().iter().map(|completion| completion.opcode).collect();
    assert_eq!(opcodes, [IBV_WC_RDMA_WRITE, IBV_WC_RDMA_READ]);
    assert!(b.poll().is_empty());
    finish(&fake, a, b);
}

#[test]
fn memory_outside_a_region_cannot_be_sent() {
    for wrong in [|piece: &mut ibv_sge| piece.lkey ^= 1, |piece: &mut ibv_sge| piece.addr += BYTES as u64 - 3] {
        let (fake, a, b) = connected();
        let mut piece = a.piece(0, 4);
        wrong(&mut piece);
        a.send(1, IBV_WR_SEND, piece, |_| {});
        assert_eq!(a.statuses(), [(1, IBV_WC_LOC_PROT_ERR)]);
        finish(&fake, a, b);
    }
}

#[test]
fn a_receive_needs_a_region_that_may_be_written() {
    let (fake, a, b) = connected_with(Options { region: 0, ..USUAL });
    b.receive(1);
    a.send(2, IBV_WR_SEND, a.piece(0, 4), |_| {});
    assert_eq!(b.statuses(), [(1, IBV_WC_LOC_PROT_ERR)]);
    assert_eq!(a.statuses(), [(2, IBV_WC_REM_OP_ERR)]);
    finish(&fake, a, b);
}

#[test]
fn rdma_without_permission_breaks_both_ends() {
    let no_flag = Options { access: IBV_ACCESS_LOCAL_WRITE, ..USUAL };
    let no_region = Options { region: IBV_ACCESS_LOCAL_WRITE, ..USUAL };
    for (options, opcode) in [(no_flag, IBV_WR_RDMA_WRITE), (no_region, IBV_WR_RDMA_WRITE), (no_flag, IBV_WR_RDMA_READ)]
    {
        let (fake, a, b) = connected_with(options);
        b.receive(1);
        a.receive(2);
        a.rdma(3, opcode, 4, &b);
        assert_eq!(a.statuses(), [(3, IBV_WC_REM_ACCESS_ERR), (2, IBV_WC_WR_FLUSH_ERR)]);
        assert_eq!(b.statuses(), [(1, IBV_WC_WR_FLUSH_ERR)]);
        finish(&fake, a, b);
    }
    let (fake, a, b) = connected();
    a.send(3, IBV_WR_RDMA_WRITE, a.piece(0, 64), |work| {
        // SAFETY: the region lives.
        (work.rdma.remote_addr, work.rdma.rkey) = (b.memory as u64 + 1, unsafe { (*b.region).rkey });
    });
    assert_eq!(a.statuses(), [(3, IBV_WC_REM_ACCESS_ERR)]);
    finish(&fake, a, b);
}

#[test]
fn a_send_that_is_too_long_breaks_both_ends() {
    let (fake, a, b) = connected();
    b.receive(1);
    b.receive(2);
    a.send(3, IBV_WR_SEND, a.piece(0, 33), |_| {});
    assert_eq!(b.statuses(), [(1, IBV_WC_LOC_LEN_ERR), (2, IBV_WC_WR_FLUSH_ERR)]);
    assert_eq!(a.statuses(), [(3, IBV_WC_REM_INV_REQ_ERR)]);
    a.send(4, IBV_WR_SEND, a.piece(0, 1), |_| {});
    assert_eq!(a.statuses(), [(4, IBV_WC_WR_FLUSH_ERR)]);
    finish(&fake, a, b);
}

#[test]
fn without_a_receive_a_send_waits_or_fails_as_rnr_retry_says() {
    let (fake, a, b) = connected();
    a.send(1, IBV_WR_SEND, a.piece(0, 1), |_| {});
    assert_eq!((a.statuses(), fake.in_flight(a.number)), (vec![], 1));
    b.receive(2);
    assert_eq!(a.statuses(), [(1, IBV_WC_SUCCESS)]);
    finish(&fake, a, b);
    let (fake, a, b) = connected_with(Options { rnr_retry: 6, ..USUAL });
    a.rdma(1, IBV_WR_RDMA_WRITE_WITH_IMM, 1, &b);
    assert_eq!(a.statuses(), [(1, IBV_WC_RNR_RETRY_EXC_ERR)]);
    finish(&fake, a, b);
}

#[test]
fn unsignalled_sends_complete_only_if_they_fail() {
    let (fake, a, b) = connected();
    for _ in 0..2 {
        b.receive(0);
    }
    a.send(1, IBV_WR_SEND, a.piece(0, 1), |work| work.send_flags = 0);
    assert_eq!(a.statuses(), []);
    let wrong = ibv_sge { lkey: 1, ..a.piece(0, 1) };
    a.send(2, IBV_WR_SEND, wrong, |work| work.send_flags = 0);
    assert_eq!(a.statuses(), [(2, IBV_WC_LOC_PROT_ERR)]);
    finish(&fake, a, b);
}

#[test]
fn inline_data_is_copied_when_it_is_posted_and_needs_no_region() {
    let (fake, a, b) = connected();
    fake.hold();
    b.receive(1);
    let mut bytes = [8u8; 4];
    let piece = ibv_sge { addr: bytes.as_mut_ptr().expose_provenance() as u64, length: 4, lkey: 0 };
    assert_eq!(a.send(2, IBV_WR_SEND, piece, |work| work.send_flags |= IBV_SEND_INLINE), 0);
    bytes.fill(0);
    fake.release();
    assert_eq!((b.byte(32), bytes[0]), (8, 0));
    assert_eq!(a.send(2, IBV_WR_SEND, a.piece(0, 17), |work| work.send_flags |= IBV_SEND_INLINE), EINVAL);
    finish(&fake, a, b);
}

#[test]
fn an_empty_message_needs_a_receive_and_no_memory() {
    let (fake, a, b) = connected();
    b.receive_into(1, ibv_sge { addr: 0, length: 0, lkey: 0 });
    a.send(2, IBV_WR_SEND, ibv_sge { addr: 0, length: 0, lkey: 0 }, |work| work.num_sge = 0);
    assert_eq!((a.statuses(), b.statuses()), (vec![(2, 0)], vec![(1, 0)]));
    finish(&fake, a, b);
}

#[test]
fn queues_are_full_until_completions_are_polled() {
    let (fake, a, b) = connected_with(Options { work: 2, ..USUAL });
    assert_eq!([b.receive(0), b.receive(1), b.receive(2)], [0, 0, ENOMEM]);
    a.send(0, IBV_WR_SEND, a.piece(0, 1), |work| work.send_flags = 0);
    assert_eq!(a.send(1, IBV_WR_SEND, a.piece(0, 1), |_| {}), 0);
    assert_eq!(a.send(2, IBV_WR_SEND, a.piece(0, 1), |_| {}), ENOMEM);
    assert_eq!(b.receive(2), ENOMEM);
    assert_eq!(a.statuses(), [(1, IBV_WC_SUCCESS)]);
    assert_eq!(b.statuses().len(), 2);
    assert_eq!([b.receive(2), b.receive(3)], [0, 0]);
    assert_eq!(a.send(2, IBV_WR_SEND, a.piece(0, 1), |_| {}), 0);
    finish(&fake, a, b);
}

#[test]
fn of_a_list_what_stands_before_the_bad_request_is_taken() {
    let (fake, a, b) = connected_with(Options { work: 2, ..USUAL });
    let mut pieces = [a.piece(0, 1); 3];
    let mut list: [ibv_send_wr; 3] = zeroed();
    for at in (0..3).rev() {
        let next = if at == 2 { ptr::null_mut() } else { ptr::from_mut(&mut list[at + 1]) };
        let work = &mut list[at];
        (work.opcode, work.num_sge, work.next) = (IBV_WR_SEND, 1, next);
        work.sg_list = &mut pieces[at];
    }
    let mut bad = ptr::null_mut();
    // SAFETY: the queue pair lives.
    let code = unsafe { (*a.context).ops.post_send.unwrap()(a.pair, list.as_mut_ptr(), &mut bad) };
    assert_eq!((code, bad), (ENOMEM, ptr::from_mut(&mut list[2])));
    assert_eq!(fake.in_flight(a.number), 2);
    finish(&fake, a, b);
}

#[test]
fn states_are_climbed_in_order_with_all_that_each_needs() {
    let fake = Fake::with(vec![Device::roce("fake0", 1)]);
    let a = End::new(&fake, "fake0", USUAL);
    assert_eq!(a.receive(0), EINVAL, "RESET takes no receives");
    assert_eq!(a.receive_from(1, 1, 0), EINVAL, "RESET to RTR");
    assert_eq!(a.modify(IBV_QP_STATE, |set| set.qp_state = IBV_QPS_INIT), EINVAL, "lacks the port");
    assert_eq!(a.init(0), 0);
    assert_eq!(a.receive(0), 0);
    assert_eq!(a.send(0, IBV_WR_SEND, a.piece(0, 1), |_| {}), EINVAL);
    assert_eq!(a.send_to(7), EINVAL, "INIT to RTS");
    assert_eq!(a.modify(RTR & !IBV_QP_RQ_PSN, |set| set.qp_state = IBV_QPS_RTR), EINVAL);
    assert_eq!(a.modify(RTR, |set| (set.qp_state, set.path_mtu) = (IBV_QPS_RTR, 3)), EINVAL, "no address on RoCE");
    assert_eq!(a.receive_from(1, 1, 0), 0);
    assert_eq!(a.send(0, IBV_WR_SEND, a.piece(0, 1), |_| {}), EINVAL, "RTR does not send");
    assert_eq!(a.modify(RTS | IBV_QP_PORT, |set| set.qp_state = IBV_QPS_RTS), EINVAL, "not allowed here");
    assert_eq!(a.send_to(7), 0);
    assert_eq!(a.modify(IBV_QP_STATE, |set| set.qp_state = IBV_QPS_RESET), 0);
    assert!(a.poll().is_empty(), "RESET discards");
    a.close();
}

#[test]
fn what_arrives_first_is_announced_to_an_end_that_cannot_send_yet() {
    let fake = Fake::with(vec![Device::roce("fake0", 1), Device::roce("fake1", 2)]);
    let (a, b) = (End::new(&fake, "fake0", USUAL), End::new(&fake, "fake1", USUAL));
    assert_eq!([a.init(0), b.init(0), b.receive(1), b.receive(2)], [0; 4]);
    assert_eq!([a.receive_from(b.number, 2, 7), b.receive_from(a.number, 1, 7), a.send_to(7)], [0; 3]);
    a.send(3, IBV_WR_SEND, a.piece(0, 1), |_| {});
    a.send(4, IBV_WR_SEND, a.piece(0, 1), |_| {});
    assert_eq!(b.events(), [(IBV_EVENT_COMM_EST, b.pair as usize)]);
    assert_eq!(b.statuses(), [(1, IBV_WC_SUCCESS), (2, IBV_WC_SUCCESS)]);
    finish(&fake, a, b);
}

#[test]
fn to_err_flushes_both_queues_in_order_and_the_peer_notices_when_it_sends() {
    let (fake, a, b) = connected();
    a.receive(1);
    a.receive(2);
    a.send(3, IBV_WR_SEND, a.piece(0, 1), |work| work.send_flags = 0);
    a.send(4, IBV_WR_SEND, a.piece(0, 1), |_| {});
    a.modify(IBV_QP_STATE, |set| set.qp_state = IBV_QPS_ERR);
    assert_eq!(a.statuses(), [3, 4, 1, 2].map(|id| (id, IBV_WC_WR_FLUSH_ERR)));
    assert!(b.poll().is_empty());
    b.send(5, IBV_WR_SEND, b.piece(0, 1), |_| {});
    assert_eq!(b.statuses(), [(5, IBV_WC_RETRY_EXC_ERR)]);
    finish(&fake, a, b);
}

#[test]
fn a_peer_that_is_gone_or_counts_otherwise_exhausts_retries() {
    let (fake, a, b) = connected_with(Options { psn: 8, ..USUAL });
    a.send(1, IBV_WR_SEND, a.piece(0, 1), |_| {});
    assert_eq!(a.statuses(), [(1, IBV_WC_RETRY_EXC_ERR)]);
    finish(&fake, a, b);
    let (fake, a, b) = connected();
    a.send(1, IBV_WR_SEND, a.piece(0, 1), |_| {});
    a.send(2, IBV_WR_SEND, a.piece(0, 1), |_| {});
    assert!(a.poll().is_empty());
    b.close();
    assert_eq!(a.statuses(), [(1, IBV_WC_RETRY_EXC_ERR), (2, IBV_WC_WR_FLUSH_ERR)]);
    a.close();
    assert!(fake.counts().is_empty());
}

#[test]
fn what_is_held_is_neither_delivered_nor_acknowledged() {
    let (fake, a, b) = connected();
    b.receive(1);
    fake.hold();
    a.send(2, IBV_WR_SEND, a.piece(0, 1), |_| {});
    assert_eq!((a.statuses(), b.statuses(), fake.in_flight(a.number)), (vec![], vec![], 1));
    fake.release();
    assert_eq!((a.statuses(), b.statuses(), fake.in_flight(a.number)), (vec![(2, 0)], vec![(1, 0)], 0));
    finish(&fake, a, b);
}

#[test]
fn a_link_that_goes_down_fails_what_is_in_flight() {
    let (fake, a, b) = connected();
    fake.hold();
    a.send(1, IBV_WR_SEND, a.piece(0, 1), |_| {});
    assert_eq!(b.events(), []);
    fake.link_down("fake1", 1);
    assert_eq!(a.statuses(), [(1, IBV_WC_RETRY_EXC_ERR)]);
    assert_eq!((a.events(), b.events()), (vec![], vec![(IBV_EVENT_PORT_ERR, 1)]));
    let mut port: ibv_port_attr = zeroed();
    // SAFETY: the context lives.
    assert_eq!(unsafe { (b.api.ibv_query_port)(b.context, 1, &mut port) }, 0);
    assert_eq!((port.state, port.active_mtu, port.link_layer), (IBV_PORT_DOWN, 5, IBV_LINK_LAYER_ETHERNET));
    fake.link_up("fake1", 1);
    assert_eq!(b.events(), [(IBV_EVENT_PORT_ACTIVE, 1)]);
    finish(&fake, a, b);
}

#[test]
fn a_removed_device_flushes_fails_and_lets_go() {
    let (fake, a, b) = connected();
    a.receive(1);
    fake.remove_device("fake0");
    assert_eq!(a.events(), [(IBV_EVENT_DEVICE_FATAL, 0)]);
    assert_eq!(a.statuses(), [(1, IBV_WC_WR_FLUSH_ERR)]);
    assert_eq!(a.receive(2), Errno::IO.raw_os_error());
    // SAFETY: the context lives.
    assert!(unsafe { (a.api.ibv_alloc_pd)(a.context) }.is_null());
    assert_eq!(errno(), Errno::IO);
    assert!(open(&fake, "fake0").is_null());
    finish(&fake, a, b);
}

#[test]
fn an_armed_queue_wakes_once_for_what_comes_after() {
    let (fake, a, b) = connected();
    for id in 0..4 {
        b.receive(id);
    }
    let send = || assert_eq!(a.send(0, IBV_WR_SEND, a.piece(0, 1), |work| work.send_flags = 0), 0);
    send();
    assert_eq!(b.wakes(), 0, "not armed");
    b.arm();
    assert_eq!(b.wakes(), 0, "what came before does not count");
    send();
    send();
    // SAFETY: the channel lives.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw((*b.channel).fd) };
    assert!(rustix::io::ioctl_fionread(descriptor).unwrap() > 0);
    assert_eq!(b.wakes(), 1);
    assert_eq!(rustix::io::ioctl_fionread(descriptor).unwrap(), 0);
    send();
    assert_eq!(b.wakes(), 0, "armed no more");
    finish(&fake, a, b);
}

#[test]
fn a_blocking_channel_waits_for_its_event() {
    let (fake, a, b) = connected();
    b.receive(1);
    b.arm();
    // SAFETY: the channel lives.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw((*b.channel).fd) };
    rustix::fs::fcntl_setfl(descriptor, OFlags::empty()).unwrap();
    let (get, channel) = (b.api.ibv_get_cq_event, b.channel as usize);
    let waiter = std::thread::spawn(move || {
        let (mut queue, mut user) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the channel lives until the thread was joined.
        unsafe { get(channel as *mut ibv_comp_channel, &mut queue, &mut user) }
    });
    a.send(2, IBV_WR_SEND, a.piece(0, 1), |_| {});
    assert_eq!(waiter.join().unwrap(), 0);
    // SAFETY: one was taken.
    unsafe { (b.api.ibv_ack_cq_events)(b.queue, 1) };
    finish(&fake, a, b);
}

#[test]
fn a_queue_that_overruns_breaks_its_queue_pairs() {
    let (fake, a, b) = connected_with(Options { depth: 1, ..USUAL });
    b.receive(0);
    b.receive(1);
    let send = |id| a.send(id, IBV_WR_SEND, a.piece(0, 1), |work| work.send_flags = 0);
    assert_eq!([send(0), send(1), send(2)], [0; 3]);
    assert_eq!(b.events(), [(IBV_EVENT_CQ_ERR, b.queue as usize)]);
    assert_eq!(b.statuses(), [(0, IBV_WC_SUCCESS)]);
    assert_eq!(a.statuses(), [(2, IBV_WC_RETRY_EXC_ERR)]);
    finish(&fake, a, b);
}

#[test]
fn what_is_used_cannot_be_given_back() {
    let (fake, a, b) = connected();
    // SAFETY: all live, and stay alive, as they are in use.
    unsafe {
        assert_eq!((a.api.ibv_destroy_cq)(a.queue), EBUSY);
        assert_eq!((a.api.ibv_destroy_comp_channel)(a.channel), EBUSY);
        assert_eq!((a.api.ibv_dealloc_pd)(a.domain), EBUSY);
        assert_eq!((a.api.ibv_close_device)(a.context), -1);
    }
    finish(&fake, a, b);
}

#[test]
fn functions_fail_once_when_told_to() {
    let (fake, a, b) = connected();
    let (domain, channel) = (a.domain, ptr::null_mut::<ibv_comp_channel>());
    let try_all = [
        // SAFETY: in this and the following, the arguments live. All of these fail.
        (Verb::RegMr, unsafe { fail(&fake, Verb::RegMr, || (a.api.ibv_reg_mr)(domain, a.memory.cast(), 1, 0)) }),
        // SAFETY: as above.
        (Verb::AllocPd, unsafe { fail(&fake, Verb::AllocPd, || (a.api.ibv_alloc_pd)(a.context)) }),
        // SAFETY: as above.
        (Verb::CreateCq, unsafe {
            fail(&fake, Verb::CreateCq, || (a.api.ibv_create_cq)(a.context, 1, ptr::null_mut(), channel, 0))
        }),
        // SAFETY: as above.
        (Verb::CreateCompChannel, unsafe {
            fail(&fake, Verb::CreateCompChannel, || (a.api.ibv_create_comp_channel)(a.context))
        }),
        // SAFETY: as above.
        (Verb::OpenDevice, unsafe { fail(&fake, Verb::OpenDevice, || open(&fake, "fake0")) }),
    ];
    for (verb, seen) in try_all {
        assert_eq!(seen, Errno::NOMEM, "{verb:?}");
    }
    fake.fail_next(Verb::PostRecv, Errno::NODEV);
    assert_eq!([a.receive(0), a.receive(0)], [Errno::NODEV.raw_os_error(), 0]);
    fake.fail_next(Verb::PostSend, Errno::NODEV);
    assert_eq!(a.send(0, IBV_WR_SEND, a.piece(0, 0), |_| {}), Errno::NODEV.raw_os_error());
    fake.fail_next(Verb::ModifyQp, Errno::TIMEDOUT);
    assert_eq!(a.modify(IBV_QP_STATE, |set| set.qp_state = IBV_QPS_ERR), Errno::TIMEDOUT.raw_os_error());
    finish(&fake, a, b);
}

/// # Safety
/// The call is sound.
unsafe fn fail<T>(fake: &Fake, verb: Verb, call: impl FnOnce() -> *mut T) -> Errno {
    fake.fail_next(verb, Errno::NOMEM);
    assert!(call().is_null());
    errno()
}

#[test]
fn planted_completions_and_events_arrive() {
    let (fake, a, b) = connected();
    fake.inject(b.number, ibv_wc { wr_id: 5, status: 21, opcode: IBV_WC_RECV, ..ibv_wc::default() });
    let got = b.poll()[0];
    assert_eq!((got.wr_id, got.status, got.qp_num), (5, 21, b.number));
    fake.raise("fake1", IBV_EVENT_GID_CHANGE, Element::Port(1));
    fake.raise("fake1", IBV_EVENT_QP_FATAL, Element::Pair(b.number));
    assert_eq!(b.events(), [(IBV_EVENT_GID_CHANGE, 1), (IBV_EVENT_QP_FATAL, b.pair as usize)]);
    finish(&fake, a, b);
}

#[test]
fn registrations_are_counted_and_limited() {
    let (fake, a, b) = connected();
    assert_eq!((fake.counts().registrations, fake.counts().bytes), (2, 2 * BYTES));
    fake.configure(|devices| devices[0].memlock = 2 * BYTES);
    // SAFETY: the memory lives.
    assert!(unsafe { (a.api.ibv_reg_mr)(a.domain, a.memory.cast(), 1, 0) }.is_null());
    assert_eq!(errno(), Errno::NOMEM);
    // SAFETY: the memory lives.
    assert!(unsafe { (a.api.ibv_reg_mr)(a.domain, a.memory.cast(), 1, IBV_ACCESS_REMOTE_WRITE) }.is_null());
    assert_eq!(errno(), Errno::INVAL, "remote writing needs local writing");
    finish(&fake, a, b);
    assert_eq!((fake.counts().registrations, fake.counts().bytes), (2, 0));
}

#[test]
fn providers_are_apart_and_answer_any_thread() {
    let (one, two) = (Fake::new(), Fake::with(vec![Device::roce("other", 1)]));
    assert!(open(&one, "other").is_null());
    let seen = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let context = open(&two, "other");
            // SAFETY: opened just now.
            unsafe { (two.api().ibv_close_device)(context) }
        });
        thread.join().unwrap()
    });
    assert_eq!(seen, 0);
    assert!(two.counts().is_empty());
}

#[test]
fn devices_answer_as_configured() {
    let fake = Fake::new();
    let a = End::new(&fake, "fake0", USUAL);
    fake.configure(|devices| (devices[0].max_qp_wr, devices[0].ports[0].lid) = (4, 3));
    let (mut device, mut port, mut gid): (ibv_device_attr, ibv_port_attr, ibv_gid) = (zeroed(), zeroed(), zeroed());
    // SAFETY: the context lives, and there is room for the answers.
    unsafe {
        assert_eq!((a.api.ibv_query_device)(a.context, &mut device), 0);
        assert_eq!((a.api.ibv_query_port)(a.context, 1, &mut port), 0);
        assert_eq!((a.api.ibv_query_gid)(a.context, 1, 0, &mut gid), 0);
        assert_eq!((a.api.ibv_query_port)(a.context, 2, &mut port), EINVAL);
        assert_eq!((a.api.ibv_query_gid)(a.context, 1, 1, &mut gid), -1);
    }
    assert_eq!((device.max_qp_wr, device.phys_port_cnt, port.lid, gid.raw[12..] == [10, 0, 0, 1]), (4, 1, 3, true));
    a.close();
}
