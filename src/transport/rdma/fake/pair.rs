//! Queue pairs: made, moved along their states, fed with work.

use super::*;

pub(super) struct Pair {
    pub device: usize,
    pub raw: *mut ffi::ibv_qp,
    pub domain: u32,
    pub send_queue: u32,
    pub receive_queue: u32,
    cap: ffi::ibv_qp_cap,
    all_signalled: bool,
    pub state: c_int,
    /// What was set on the way; the fields that were not are 0.
    pub set: ffi::ibv_qp_attr,
    pub sends: VecDeque<Send>,
    pub receives: VecDeque<Receive>,
    /// Places in the queues that are taken: until a completion at or after them was polled.
    pub sends_used: u32,
    pub receives_used: u32,
    /// Sends that are done and had no completion since the last that had one.
    pub unsignalled: u32,
    /// Has anything arrived?
    pub established: bool,
}

#[derive(Clone)]
pub(super) struct Send {
    pub id: u64,
    pub opcode: c_int,
    pub signalled: bool,
    pub pieces: Vec<ffi::ibv_sge>,
    /// What is sent, if it was copied while it was posted.
    pub inline: Option<Vec<u8>>,
    pub imm_data: u32,
    pub remote_addr: u64,
    pub rkey: u32,
}

pub(super) struct Receive {
    pub id: u64,
    pub pieces: Vec<ffi::ibv_sge>,
}

pub(super) unsafe extern "C" fn create_qp(raw: *mut ffi::ibv_pd, init: *mut ffi::ibv_qp_init_attr) -> *mut ffi::ibv_qp {
    // SAFETY: the caller's domain.
    let (shared, domain) = unsafe { Object::find(raw) };
    // SAFETY: the caller's attributes.
    let init = unsafe { &*init };
    // SAFETY: the caller's queues.
    let (send_queue, receive_queue) = unsafe { (Object::find(init.send_cq).1, Object::find(init.recv_cq).1) };
    let mut state = shared.lock();
    let device = state.contexts[&state.domains[&domain].context].device;
    let (limits, cap) = (&state.devices[device], init.cap);
    let most = cap.max_send_wr.max(cap.max_recv_wr) <= limits.max_qp_wr as u32
        && cap.max_send_sge.max(cap.max_recv_sge) <= limits.max_sge as u32;
    let room = state.pairs.values().filter(|pair| pair.device == device).count() < limits.max_qp as usize;
    let fits = most && init.qp_type == ffi::IBV_QPT_RC && init.srq.is_null();
    let allowed = state
        .refuses(Some(Verb::CreateQp), device)
        .and_then(|()| require(fits, EINVAL))
        .and_then(|()| require(room, ENOMEM));
    object_or_errno(allowed.map(|()| {
        let number = state.number();
        let c = ffi::ibv_qp {
            // SAFETY: the domain is alive.
            context: unsafe { (*raw).context },
            qp_context: init.qp_context,
            pd: raw,
            send_cq: init.send_cq,
            recv_cq: init.recv_cq,
            srq: ptr::null_mut(),
            handle: number,
            qp_num: number,
            state: ffi::IBV_QPS_RESET,
            qp_type: init.qp_type,
        };
        let pair = Pair {
            device,
            raw: Object::give(c, &shared, number),
            domain,
            send_queue,
            receive_queue,
            cap,
            all_signalled: init.sq_sig_all != 0,
            state: ffi::IBV_QPS_RESET,
            // SAFETY: all fields are numbers, for which zeros are valid.
            set: unsafe { std::mem::zeroed() },
            sends: VecDeque::new(),
            receives: VecDeque::new(),
            sends_used: 0,
            receives_used: 0,
            unsignalled: 0,
            established: false,
        };
        let raw = pair.raw;
        state.pairs.insert(number, pair);
        raw
    }))
}

pub(super) unsafe extern "C" fn destroy_qp(raw: *mut ffi::ibv_qp) -> c_int {
    // SAFETY: the caller's queue pair.
    let (shared, number) = unsafe { Object::find(raw) };
    let mut state = shared.lock();
    state.pairs.remove(&number);
    state.progress_all();
    drop(state);
    // SAFETY: given by `create_qp`, and given back now.
    unsafe { Object::take(raw) };
    0
}

/// The attributes that a transition needs, and those that it may have besides; `None`: there is no such transition.
/// Source: ibv_modify_qp(3), the table for IBV_QPT_RC.
fn masks(from: c_int, to: c_int) -> Option<(c_int, c_int)> {
    let init = ffi::IBV_QP_PKEY_INDEX | ffi::IBV_QP_PORT | ffi::IBV_QP_ACCESS_FLAGS;
    Some(match (from, to) {
        (_, ffi::IBV_QPS_RESET | ffi::IBV_QPS_ERR) => (0, 0),
        (ffi::IBV_QPS_RESET, ffi::IBV_QPS_INIT) => (init, 0),
        (ffi::IBV_QPS_INIT, ffi::IBV_QPS_INIT) => (0, init),
        (ffi::IBV_QPS_INIT, ffi::IBV_QPS_RTR) => (
            ffi::IBV_QP_AV
                | ffi::IBV_QP_PATH_MTU
                | ffi::IBV_QP_DEST_QPN
                | ffi::IBV_QP_RQ_PSN
                | ffi::IBV_QP_MAX_DEST_RD_ATOMIC
                | ffi::IBV_QP_MIN_RNR_TIMER,
            ffi::IBV_QP_PKEY_INDEX | ffi::IBV_QP_ACCESS_FLAGS,
        ),
        (ffi::IBV_QPS_RTR, ffi::IBV_QPS_RTS) => (
            ffi::IBV_QP_SQ_PSN
                | ffi::IBV_QP_TIMEOUT
                | ffi::IBV_QP_RETRY_CNT
                | ffi::IBV_QP_RNR_RETRY
                | ffi::IBV_QP_MAX_QP_RD_ATOMIC,
            ffi::IBV_QP_ACCESS_FLAGS | ffi::IBV_QP_MIN_RNR_TIMER,
        ),
        (ffi::IBV_QPS_RTS, ffi::IBV_QPS_RTS) => (0, ffi::IBV_QP_ACCESS_FLAGS | ffi::IBV_QP_MIN_RNR_TIMER),
        _ => return None,
    })
}

impl State {
    fn modify(&mut self, number: u32, want: &ffi::ibv_qp_attr, mask: c_int) -> Result<(), c_int> {
        let device = self.pairs[&number].device;
        self.refuses(Some(Verb::ModifyQp), device)?;
        let ports = &self.devices[device].ports;
        let pair = self.pairs.get_mut(&number).expect("it is there");
        let to = if mask & ffi::IBV_QP_STATE != 0 { want.qp_state } else { pair.state };
        let (needed, allowed) = masks(pair.state, to).ok_or(EINVAL)?;
        let given = mask & !ffi::IBV_QP_STATE;
        require(given & needed == needed && given & !(needed | allowed) == 0, EINVAL)?;
        let mut set = pair.set;
        for (flag, copy) in FIELDS {
            if given & flag != 0 {
                copy(&mut set, want);
            }
        }
        if given & ffi::IBV_QP_PORT != 0 {
            require((1..=ports.len()).contains(&usize::from(set.port_num)) && set.pkey_index == 0, EINVAL)?;
        }
        if given & ffi::IBV_QP_AV != 0 {
            let (way, port) = (&set.ah_attr, &ports[usize::from(set.port_num) - 1]);
            let global = way.is_global != 0;
            require(way.port_num == set.port_num && (1..=port.mtu).contains(&set.path_mtu), EINVAL)?;
            require(global || port.link_layer == ffi::IBV_LINK_LAYER_INFINIBAND, EINVAL)?;
            let gid = port.gids.get(usize::from(way.grh.sgid_index));
            require(!global || gid.is_some_and(|gid| *gid != ffi::ibv_gid::default()), EINVAL)?;
        }
        if given & ffi::IBV_QP_RNR_RETRY != 0 {
            require(set.rnr_retry <= 7 && set.retry_cnt <= 7 && set.timeout < 32, EINVAL)?;
        }
        pair.set = set;
        if to == ffi::IBV_QPS_ERR {
            self.break_pair(number);
        } else {
            pair.state = to;
        }
        if to == ffi::IBV_QPS_RESET {
            let pair = self.pairs.get_mut(&number).expect("it is there");
            pair.sends.clear();
            pair.receives.clear();
            (pair.sends_used, pair.receives_used, pair.unsignalled, pair.established) = (0, 0, 0, false);
        }
        self.progress_all();
        Ok(())
    }
}

type Copy = fn(&mut ffi::ibv_qp_attr, &ffi::ibv_qp_attr);

const FIELDS: [(c_int, Copy); 14] = [
    (ffi::IBV_QP_PKEY_INDEX, |to, from| to.pkey_index = from.pkey_index),
    (ffi::IBV_QP_PORT, |to, from| to.port_num = from.port_num),
    (ffi::IBV_QP_ACCESS_FLAGS, |to, from| to.qp_access_flags = from.qp_access_flags),
    (ffi::IBV_QP_AV, |to, from| to.ah_attr = from.ah_attr),
    (ffi::IBV_QP_PATH_MTU, |to, from| to.path_mtu = from.path_mtu),
    (ffi::IBV_QP_DEST_QPN, |to, from| to.dest_qp_num = from.dest_qp_num),
    // Sequence numbers have 24 bits.
    (ffi::IBV_QP_RQ_PSN, |to, from| to.rq_psn = from.rq_psn & 0xff_ffff),
    (ffi::IBV_QP_SQ_PSN, |to, from| to.sq_psn = from.sq_psn & 0xff_ffff),
    (ffi::IBV_QP_MAX_DEST_RD_ATOMIC, |to, from| to.max_dest_rd_atomic = from.max_dest_rd_atomic),
    (ffi::IBV_QP_MAX_QP_RD_ATOMIC, |to, from| to.max_rd_atomic = from.max_rd_atomic),
    (ffi::IBV_QP_MIN_RNR_TIMER, |to, from| to.min_rnr_timer = from.min_rnr_timer),
    (ffi::IBV_QP_TIMEOUT, |to, from| to.timeout = from.timeout),
    (ffi::IBV_QP_RETRY_CNT, |to, from| to.retry_cnt = from.retry_cnt),
    (ffi::IBV_QP_RNR_RETRY, |to, from| to.rnr_retry = from.rnr_retry),
];

pub(super) unsafe extern "C" fn modify_qp(raw: *mut ffi::ibv_qp, want: *mut ffi::ibv_qp_attr, mask: c_int) -> c_int {
    // SAFETY: the caller's queue pair.
    let (shared, number) = unsafe { Object::find(raw) };
    // SAFETY: the caller's attributes.
    let want = unsafe { &*want };
    let mut state = shared.lock();
    let answer = state.modify(number, want, mask);
    // SAFETY: the queue pair is alive; the library keeps its state there.
    unsafe { (*raw).state = state.pairs[&number].state };
    code(answer)
}

/// A work request's pieces.
///
/// # Safety
/// The list has so many.
unsafe fn pieces(list: *mut ffi::ibv_sge, count: c_int) -> Vec<ffi::ibv_sge> {
    // SAFETY: as above.
    (0..count.max(0) as usize).map(|at| unsafe { *list.add(at) }).collect()
}

impl State {
    fn post_send(&mut self, number: u32, work: &ffi::ibv_send_wr) -> Result<(), c_int> {
        let device = self.pairs[&number].device;
        self.refuses(Some(Verb::PostSend), device)?;
        let pair = self.pairs.get_mut(&number).expect("it is there");
        require([ffi::IBV_QPS_RTS, ffi::IBV_QPS_ERR].contains(&pair.state), EINVAL)?;
        require((0..=pair.cap.max_send_sge as c_int).contains(&work.num_sge), EINVAL)?;
        let known = [
            ffi::IBV_WR_RDMA_WRITE,
            ffi::IBV_WR_RDMA_WRITE_WITH_IMM,
            ffi::IBV_WR_SEND,
            ffi::IBV_WR_SEND_WITH_IMM,
            ffi::IBV_WR_SEND_WITH_INV,
            ffi::IBV_WR_RDMA_READ,
        ];
        require(known.contains(&work.opcode), EINVAL)?;
        require(pair.sends_used < pair.cap.max_send_wr, ENOMEM)?;
        // SAFETY: the caller's list of `num_sge` pieces.
        let pieces = unsafe { pieces(work.sg_list, work.num_sge) };
        let mut inline = None;
        if work.send_flags & ffi::IBV_SEND_INLINE != 0 {
            let bytes: u64 = pieces.iter().map(|piece| u64::from(piece.length)).sum();
            let fits = bytes <= pair.cap.max_inline_data.into() && work.opcode != ffi::IBV_WR_RDMA_READ;
            require(fits, EINVAL)?;
            inline = Some(memory::gather(&pieces));
        }
        pair.sends_used += 1;
        pair.sends.push_back(Send {
            id: work.wr_id,
            opcode: work.opcode,
            signalled: pair.all_signalled || work.send_flags & ffi::IBV_SEND_SIGNALED != 0,
            pieces,
            inline,
            imm_data: work.imm_data,
            remote_addr: work.rdma.remote_addr,
            rkey: work.rdma.rkey,
        });
        Ok(())
    }

    fn post_receive(&mut self, number: u32, work: &ffi::ibv_recv_wr) -> Result<(), c_int> {
        let device = self.pairs[&number].device;
        self.refuses(Some(Verb::PostRecv), device)?;
        let pair = self.pairs.get_mut(&number).expect("it is there");
        require(pair.state != ffi::IBV_QPS_RESET, EINVAL)?;
        require((0..=pair.cap.max_recv_sge as c_int).contains(&work.num_sge), EINVAL)?;
        require(pair.receives_used < pair.cap.max_recv_wr, ENOMEM)?;
        pair.receives_used += 1;
        // SAFETY: the caller's list of `num_sge` pieces.
        pair.receives.push_back(Receive { id: work.wr_id, pieces: unsafe { pieces(work.sg_list, work.num_sge) } });
        Ok(())
    }
}

macro_rules! post {
    ($name:ident, $work:ident, $one:ident, $after:expr) => {
        pub(super) unsafe extern "C" fn $name(
            raw: *mut ffi::ibv_qp,
            mut list: *mut ffi::$work,
            bad: *mut *mut ffi::$work,
        ) -> c_int {
            let _working = Working::begin();
            // SAFETY: the caller's queue pair.
            let (shared, number) = unsafe { Object::find(raw) };
            let mut state = shared.lock();
            let mut answer = Ok(());
            while !list.is_null() {
                // SAFETY: the caller's list of work requests.
                let work = unsafe { &*list };
                answer = state.$one(number, work);
                if answer.is_err() {
                    // SAFETY: the caller's room for the answer.
                    unsafe { *bad = list };
                    break;
                }
                list = work.next;
            }
            // What stands before the bad one is taken.
            let after: fn(&mut State, u32) = $after;
            after(&mut state, number);
            code(answer)
        }
    };
}

post!(post_send, ibv_send_wr, post_send, State::progress);
post!(post_recv, ibv_recv_wr, post_receive, State::receives_posted);
