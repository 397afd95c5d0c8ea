//! The worker's side of RDMA: its memory registered, its queue pair connected to the one that the daemon offered.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::daemon::Use;
use super::device::LinkLayer;
use super::error::LinkFailure;
use super::fabric::{NoRdma, endpoint, look, random_sequence, remote};
use super::ffi::Api;
use super::link::{Link, Sender};
use super::options::Options;
use super::select::{Choice, is_routable};
use super::verbs::{Access, CompletionQueue, Connected, Depths, ProtectionDomain, QueuePair, Region};
use super::worker::{Sign, WorkerInbound, WorkerOutbound};
use crate::memory::Slab;
use crate::transport::Connection;
use crate::wire::{Area, Endpoint, Plan, UPDATE_OFFSET, Welcome};

/// Receives that take what the daemon writes: so many signals may wait for a worker that is busy. Those beyond it wait in the
/// daemon's NIC, which tries again.
const RECEIVES: usize = 1024;

/// A worker's end that is connected, as far as this side can know.
pub struct Attachment {
    pair: QueuePair<Connected>,
    send: CompletionQueue,
    receive: CompletionQueue,
    shards: Region,
    places: Region,
    depths: Depths,
    posted: usize,
    choice: Choice,
    number: u32,
    sequence: u32,
    area: Area,
}

/// Has the library keep what is registered from forked children, such as data loaders, which would otherwise take pages away from the
/// NIC. It cannot once anybody in this process has registered something without that: then `false`.
fn fork_safe(api: &'static Api) -> bool {
    // SAFETY: it may be called at any time.
    #[allow(unsafe_code)]
    let code = unsafe { (api.ibv_fork_init)() };
    code == 0
}

/// The memory that a worker registers.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    /// Slots that shards are sent from.
    pub shards: &'a Slab,
    /// One slot per round of the window, in which updates land: see [`Area`].
    pub places: &'a Slab,
}

impl Attachment {
    /// Opens a port, registers the memory, and connects to the end that the daemon offers. `near` is this end's address of the
    /// control connection.
    ///
    /// # Errors
    /// If there is no usable port, it does not take so much, or there is no way to the daemon's.
    pub fn new(
        api: &'static Api,
        options: &Options,
        near: Option<IpAddr>,
        memory: Memory<'_>,
        plan: &Plan,
        there: &Endpoint,
    ) -> Result<Attachment, NoRdma> {
        let forks = fork_safe(api);
        let layout = &plan.layout;
        let chunk = 4 * layout.chunk(0).len;
        let (context, choice) = look(api, options, near, chunk.max(memory.shards.slot_bytes()))?;
        let limits = context.attributes()?;
        let most = usize::try_from(limits.max_qp_wr.min(limits.max_cqe)).unwrap_or(0);
        let depths = Depths { send: (plan.credits as usize).min(most), receive: RECEIVES.min(most) };
        let domain = ProtectionDomain::new(&context)?;
        if !forks {
            [memory.shards, memory.places].into_iter().try_for_each(Slab::keep_from_children).map_err(|error| {
                NoRdma::new(LinkFailure::Resources, format!("a fork would take memory away from the NIC: {error}"))
            })?;
        }
        let shards = Region::new(&domain, memory.shards, None, Access::Send)?;
        let places = Region::new(&domain, memory.places, None, Access::RemoteWrite)?;
        let send = CompletionQueue::new(&context, depths.send)?;
        let receive = CompletionQueue::new(&context, depths.receive)?;
        let sequence = random_sequence()?;
        let remote = remote(there, &choice)?;
        let path = options.path(&choice, sequence);
        let pair = QueuePair::new(&domain, choice.port, &send, &receive, depths, None)?.initialise(true)?;
        // The daemon may write as soon as it is connected.
        for id in 0..depths.receive as u64 {
            pair.post_empty_receive(id)?;
        }
        let number = pair.number();
        let pair = pair.receive_from(&path, &remote)?.connect(&path)?;
        let (address, stride) =
            (memory.places.region().0.expose_provenance() as u64, memory.places.slot_bytes() as u64);
        debug_assert!(stride >= (UPDATE_OFFSET + 4 * layout.dimension()) as u64);
        let area = Area { address, stride, key: places.remote_key(), rounds: plan.window };
        let posted = depths.receive;
        Ok(Attachment { pair, send, receive, shards, places, depths, posted, choice, number, sequence, area })
    }

    /// This end, for the daemon.
    pub fn endpoint(&self) -> Endpoint {
        endpoint(&self.choice, self.number, self.sequence)
    }

    /// Where updates are to be written.
    pub fn area(&self) -> Area {
        self.area
    }

    /// Why this port and address.
    pub fn why(&self) -> &str {
        &self.choice.why
    }

    /// The IP address that the port has, if it is a routable one on Ethernet: over it workers reach each other by TCP.
    pub fn address(&self) -> Option<IpAddr> {
        let address = Ipv6Addr::from(self.choice.gid).to_canonical();
        (self.choice.link_layer == LinkLayer::Ethernet && is_routable(address)).then_some(address)
    }

    /// Has the link carry the bulk of `control`'s session. If it fails the session goes on by TCP, or with `fall_back` false it ends.
    pub fn connect(self, control: Connection, welcome: &Welcome, job: u64, fall_back: bool) -> Connection {
        let (send, receive) = self.pair.split(self.send, self.receive);
        let key = self.shards.local_key();
        // They stay registered until the queue pair is gone.
        send.pair.park(Box::new((self.shards, self.places)));
        // Both halves are driven by one thread.
        let link = Arc::new(Link::new(Arc::new([])));
        let usage = Use { notify: true, fall_back, fails_within: std::time::Duration::ZERO };
        let Connection { inbound, outbound } = control;
        let plan = &welcome.plan;
        let inbound = WorkerInbound::new(inbound, link.clone(), receive, self.posted, *plan, usage);
        let sign = Sign { job, session: welcome.session, worker: welcome.worker };
        let sender = Sender::new(send, self.depths.send, usage.notify);
        let limit = plan.credits as usize;
        let outbound = WorkerOutbound::new(outbound, link, sender, key, limit, sign, usage);
        Connection { inbound: Box::new(inbound), outbound: Box::new(outbound) }
    }
}
