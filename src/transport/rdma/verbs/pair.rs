//! Queue pairs: made, moved along the ladder of their states, destroyed.

use std::ffi::{c_int, c_uint};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::super::error::VerbsError;
use super::super::ffi;
use super::completion::RawCompletionQueue;
use super::{CompletionQueue, ProtectionDomain, ReceiveHalf, SendHalf};

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
pub(in super::super) struct RawQueuePair {
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
    pub(in super::super) fn destroy(mut self) {
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
    pub(in super::super) fn keep(&self, value: Box<dyn Send>) {
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

    pub(super) fn raw(&self) -> *mut ffi::ibv_qp {
        self.live().raw.as_ptr()
    }

    pub(super) fn place(&self) -> String {
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
    pub(in super::super) fn park(&self, memory: Box<dyn Send>) {
        self.live().parked.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(memory);
    }

    /// Stops all traffic: what is posted comes back with an error, mostly.
    pub(in super::super) fn stop(&self) {
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
