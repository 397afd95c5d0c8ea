//! The daemon's side of RDMA: one port, and for each worker a protection domain with its slots registered once, at start.
//!
//! A worker's queue pair lies in the worker's own domain, which knows that worker's slots for shards (the NIC may fill them when
//! we post them) and the slots for updates (the NIC may only read them). No region has a remote right and no queue pair grants
//! one: a worker holds no key to any memory here.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::completions::Completions;
use super::daemon::{DaemonInbound, DaemonOutbound, Places, Use};
use super::device::{self, LinkLayer};
use super::error::{LinkFailure, VerbsError};
use super::ffi::Api;
use super::link::{Link, Sender};
use super::options::Options;
use super::select::{self, Choice};
use super::verbs::{
    Access, AsyncEvent, CompletionQueue, Context, Depths, Initialised, Path, ProtectionDomain, QueuePair, Region,
    Remote, Undertaker,
};
use crate::code::Layout;
use crate::memory::{Bell, Slab};
use crate::transport::Connection;
use crate::wire::{Area, Endpoint};

/// Why there is no RDMA on this side: a number for the peer, and words for the operator.
#[derive(Debug)]
pub struct NoRdma {
    /// For the peer.
    pub failure: LinkFailure,
    /// For the operator.
    pub text: String,
}

impl fmt::Display for NoRdma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for NoRdma {}

impl NoRdma {
    pub(super) fn new(failure: LinkFailure, text: impl fmt::Display) -> NoRdma {
        NoRdma { failure, text: text.to_string() }
    }
}

impl From<VerbsError> for NoRdma {
    fn from(error: VerbsError) -> NoRdma {
        let failure = match error.verb {
            _ if error.is_gone() => LinkFailure::DeviceLost,
            "ibv_modify_qp" => LinkFailure::NoPath,
            "ibv_open_device" => LinkFailure::NoDevice,
            _ => LinkFailure::Resources,
        };
        NoRdma::new(failure, error)
    }
}

/// The code that verbs have for a packet size.
pub(super) fn mtu_code(bytes: u32) -> u8 {
    (bytes.clamp(256, 4096).ilog2() - 7) as u8
}

/// 24 random bits: a first packet sequence number that nobody else knows.
pub(super) fn random_sequence() -> Result<u32, NoRdma> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| NoRdma::new(LinkFailure::Resources, error))?;
    Ok(u32::from_le_bytes(bytes) & 0xff_ffff)
}

/// NICs may take longer than the timeouts say; the InfiniBand specification allows four times as long for each.
const SLACK: u32 = 2;
/// Whatever the settings say, nobody is waited for longer.
const FAILS_WITHIN: Duration = Duration::from_secs(10);

impl Options {
    /// The longest that a request takes to fail on a path that is cut.
    pub(super) fn fails_within(&self) -> Duration {
        let timeout = Duration::from_nanos(4096 << u32::from(self.ack_timeout.min(31)));
        (timeout * (u32::from(self.retries) + 1) * SLACK).min(FAILS_WITHIN)
    }

    pub(super) fn path(&self, choice: &Choice, sequence: u32) -> Path {
        Path {
            port: choice.port,
            gid_index: choice.gid_index,
            global: choice.link_layer == LinkLayer::Ethernet,
            traffic_class: self.traffic_class,
            service_level: self.service_level,
            ack_timeout: self.ack_timeout,
            retries: self.retries,
            sequence,
        }
    }
}

/// This end as the other one must know it.
pub(super) fn endpoint(choice: &Choice, number: u32, sequence: u32) -> Endpoint {
    Endpoint {
        number,
        sequence,
        gid: choice.gid,
        lid: choice.lid,
        mtu: mtu_code(choice.mtu),
        global: choice.link_layer == LinkLayer::Ethernet,
    }
}

/// The other end, as a queue pair must know it; with the smaller packet size of both.
pub(super) fn remote(there: &Endpoint, choice: &Choice) -> Result<Remote, NoRdma> {
    let global = choice.link_layer == LinkLayer::Ethernet;
    if there.global != global {
        return Err(NoRdma::new(LinkFailure::NoPath, "one end is on Ethernet (RoCE), the other on InfiniBand"));
    }
    let mtu = there.mtu.min(mtu_code(choice.mtu));
    Ok(Remote { number: there.number, sequence: there.sequence, gid: there.gid, lid: there.lid, mtu })
}

/// The verbs library, if there is a port that these options allow; without opening it for good.
///
/// # Errors
/// If there is no library, or no such port.
pub fn usable(options: &Options, near: Option<IpAddr>) -> Result<&'static Api, NoRdma> {
    let api = Api::load().map_err(|error| NoRdma::new(LinkFailure::NoDevice, error))?;
    choose(api, options, near)?;
    Ok(api)
}

fn choose(api: &'static Api, options: &Options, near: Option<IpAddr>) -> Result<Choice, NoRdma> {
    let ports = device::ports(api).map_err(|error| NoRdma::new(LinkFailure::NoDevice, error))?;
    select::choose(&ports, &options.wanted(near)).map_err(|error| NoRdma::new(LinkFailure::NoDevice, error))
}

/// Opens the port that these options allow and prefer. Whether a path leads from it to the other end shows only when packets have
/// gone both ways.
pub(super) fn look(
    api: &'static Api,
    options: &Options,
    near: Option<IpAddr>,
    longest: usize,
) -> Result<(Context, Choice), NoRdma> {
    let choice = choose(api, options, near)?;
    let context = Context::open(api, &choice.device)?;
    let most = context.port_attributes(choice.port)?.max_msg_sz;
    if longest as u64 > u64::from(most) {
        let text = format!(
            "{}:{} carries messages of up to {most} bytes, a chunk of this job has {longest}: lower chunks.width",
            choice.device, choice.port
        );
        return Err(NoRdma::new(LinkFailure::Resources, text));
    }
    Ok((context, choice))
}

/// What the daemon's links must carry.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Workers in the job.
    pub workers: usize,
    /// Shards that each may have in flight.
    pub credits: usize,
    /// Frames on their way to each.
    pub outbound: usize,
    /// How the gradient is cut.
    pub layout: Layout,
    /// Whoever drives the connections sleeps until a descriptor is readable, rather than asking again and again.
    pub sleeps: bool,
    /// A session whose link fails goes on by TCP.
    pub fall_back: bool,
}

/// Queue pairs that one identity may have at once: of its session, of the one that is being replaced, of an offer, and those that wait to
/// be destroyed.
const PAIRS_EACH: usize = 4;

struct Domain {
    /// One more reference than there are queue pairs of this worker.
    pairs: Arc<()>,
    domain: ProtectionDomain,
    shards: Region,
    updates: Region,
}

/// The daemon's side of RDMA.
pub struct Fabric {
    api: &'static Api,
    context: Context,
    options: Options,
    near: Option<IpAddr>,
    choice: Mutex<Choice>,
    up: AtomicBool,
    // Queue pairs hold their domains, so the order in which these go does not matter.
    domains: Vec<Domain>,
    needs: Needs,
    depths: Depths,
    bells: Arc<[Arc<Bell>]>,
    links: Mutex<Vec<(u32, Weak<Link>)>>,
    undertaker: Undertaker,
    completions: Arc<Completions>,
}

/// Beside the frames to a worker: credits that are told at the same time.
const CREDITS_UNDER_WAY: usize = 8;

/// A queue pair that waits to be told who its peer is.
pub struct Offer {
    pair: QueuePair<Initialised>,
    send: CompletionQueue,
    receive: CompletionQueue,
    choice: Choice,
    sequence: u32,
    worker: usize,
}

impl Offer {
    /// This end, for the peer.
    pub fn endpoint(&self) -> Endpoint {
        endpoint(&self.choice, self.pair.number(), self.sequence)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fabric {
    /// Opens a port and registers all slots. `shards` has a holder per worker; `near` is the address that workers connect to, if it
    /// is a particular one. The `bells` are those of the reactors.
    ///
    /// # Errors
    /// If there is no usable port, or it does not take so much.
    pub fn open(
        api: &'static Api,
        options: &Options,
        near: Option<IpAddr>,
        needs: Needs,
        shards: &Slab,
        updates: &Slab,
        bells: Arc<[Arc<Bell>]>,
    ) -> Result<Fabric, NoRdma> {
        let longest = shards.slot_bytes().max(updates.slot_bytes());
        let (context, choice) = look(api, options, near, longest)?;
        let limits = context.attributes()?;
        let most = usize::try_from(limits.max_qp_wr.min(limits.max_cqe)).unwrap_or(0);
        let depths = Depths { send: (needs.outbound + CREDITS_UNDER_WAY).min(most), receive: needs.credits };
        let (queues, pairs) = (2 * needs.workers, needs.workers);
        let counts = [
            ("receives per queue pair (memory.credits)", needs.credits, most),
            ("completion queues", queues, usize::try_from(limits.max_cq).unwrap_or(0)),
            ("queue pairs", pairs, usize::try_from(limits.max_qp).unwrap_or(0)),
            ("protection domains", pairs, usize::try_from(limits.max_pd).unwrap_or(0)),
            ("memory regions", 2 * pairs, usize::try_from(limits.max_mr).unwrap_or(0)),
        ];
        if let Some((what, needed, has)) = counts.into_iter().find(|(_, needed, has)| needed > has) {
            let text = format!("{} has at most {has} {what}, this job needs {needed}", choice.device);
            return Err(NoRdma::new(LinkFailure::Resources, text));
        }
        let undertaker = Undertaker::new().map_err(|error| NoRdma::new(LinkFailure::Resources, error))?;
        let domain = |worker| {
            let domain = ProtectionDomain::new(&context)?;
            let shards = Region::new(&domain, shards, Some(worker), Access::Receive)?;
            let updates = Region::new(&domain, updates, None, Access::Send)?;
            Ok(Domain { pairs: Arc::new(()), domain, shards, updates })
        };
        let domains = (0..needs.workers).map(domain).collect::<Result<Vec<_>, VerbsError>>()?;
        Ok(Fabric {
            api,
            context,
            options: options.clone(),
            near,
            choice: Mutex::new(choice),
            up: AtomicBool::new(true),
            domains,
            needs,
            depths,
            bells,
            links: Mutex::new(Vec::new()),
            undertaker,
            completions: Arc::default(),
        })
    }

    /// Why this port and address.
    pub fn why(&self) -> String {
        locked(&self.choice).why.clone()
    }

    /// The port, `device:number`.
    pub fn port(&self) -> String {
        let choice = locked(&self.choice);
        format!("{}:{}", choice.device, choice.port)
    }

    /// Regions that were registered: as many for as long as this lives.
    pub fn regions(&self) -> usize {
        2 * self.domains.len()
    }

    /// How the requests of its connections ended.
    pub fn completions(&self) -> Arc<Completions> {
        self.completions.clone()
    }

    /// A queue pair for a session of `worker`.
    ///
    /// # Errors
    /// If the port is down, or the device has no more.
    pub fn offer(&self, worker: usize) -> Result<Offer, NoRdma> {
        let choice = locked(&self.choice).clone();
        if !self.up.load(Ordering::Relaxed) {
            let text = format!("port {}:{} is down", choice.device, choice.port);
            return Err(NoRdma::new(LinkFailure::NoDevice, text));
        }
        let Domain { pairs, domain, .. } = &self.domains[worker];
        if Arc::strong_count(pairs) > PAIRS_EACH {
            let text = format!("worker {worker} has {PAIRS_EACH} queue pairs that are not yet destroyed");
            return Err(NoRdma::new(LinkFailure::Resources, text));
        }
        let sequence = random_sequence()?;
        let queue = |depth| -> Result<CompletionQueue, VerbsError> {
            Ok(CompletionQueue::new(&self.context, depth)?.counted_by(self.completions()))
        };
        let (send, receive) = (queue(self.depths.send)?, queue(self.depths.receive)?);
        let pair = QueuePair::new(domain, choice.port, &send, &receive, self.depths, Some(&self.undertaker))?
            .initialise(false)?;
        pair.keep(Box::new(pairs.clone()));
        Ok(Offer { pair, send, receive, choice, sequence, worker })
    }

    /// Connects the queue pair of an offer to its peer, and has it carry the bulk of `control`'s session.
    ///
    /// # Errors
    /// Gives the connection back if there is no way to the peer.
    pub fn connect(
        &self,
        offer: Offer,
        there: &Endpoint,
        area: Area,
        control: Connection,
    ) -> Result<Connection, (Connection, NoRdma)> {
        let Offer { pair, send, receive, choice, sequence, worker } = offer;
        let number = pair.number();
        let path = self.options.path(&choice, sequence);
        let connected = remote(there, &choice)
            .and_then(|remote| Ok(pair.receive_from(&path, &remote)?))
            .and_then(|pair| Ok(pair.connect(&path)?));
        let pair = match connected {
            Ok(pair) => pair,
            Err(error) => return Err((control, error)),
        };
        let (send, receive) = pair.split(send, receive);
        let link = Arc::new(Link::new(self.bells.clone()));
        let mut links = locked(&self.links);
        links.retain(|(_, link)| link.strong_count() > 0);
        links.push((number, Arc::downgrade(&link)));
        let Needs { sleeps: notify, fall_back, .. } = self.needs;
        let usage = Use { notify, fall_back, fails_within: self.options.fails_within() };
        let Domain { shards, updates, .. } = &self.domains[worker];
        let Connection { inbound, outbound } = control;
        let key = shards.local_key();
        let inbound = DaemonInbound::new(inbound, link.clone(), receive, key, self.needs.credits, usage);
        let places = Places { link, area, layout: self.needs.layout };
        let sender = Sender::new(send, self.depths.send, usage.notify);
        let outbound = DaemonOutbound::new(outbound, places, sender, updates.local_key(), self.needs.outbound, usage);
        Ok(Connection { inbound: Box::new(inbound), outbound: Box::new(outbound) })
    }

    /// Readable when something happened to the device.
    pub fn descriptor(&self) -> RawFd {
        self.context.async_descriptor()
    }

    /// Acts on what happened to the device: a lost one ends its links, a port that is down offers none, and after a change of
    /// addresses the choice is made anew. Says what it was.
    pub fn events(&self) -> Vec<AsyncEvent> {
        let mut seen = Vec::new();
        while let Some(event) = self.context.async_event() {
            seen.push(event);
            let port = locked(&self.choice).port;
            match event {
                AsyncEvent::DeviceLost => {
                    self.up.store(false, Ordering::Relaxed);
                    self.fail(LinkFailure::DeviceLost, |_| true);
                }
                AsyncEvent::CompletionQueueOverrun => self.fail(LinkFailure::Broken, |_| true),
                AsyncEvent::PortDown(down) if down == port => self.up.store(false, Ordering::Relaxed),
                AsyncEvent::PortUp(up) if up == port => {
                    self.up.store(true, Ordering::Relaxed);
                    self.choose_again();
                }
                AsyncEvent::AddressesChanged(changed) if changed == port => self.choose_again(),
                AsyncEvent::QueuePairBroken(number) => self.fail(LinkFailure::Broken, |it| it == number),
                _ => {}
            }
        }
        seen
    }

    fn fail(&self, why: LinkFailure, which: impl Fn(u32) -> bool) {
        let links = locked(&self.links);
        links
            .iter()
            .filter(|(number, _)| which(*number))
            .filter_map(|(_, link)| link.upgrade())
            .for_each(|l| l.fail(why));
    }

    /// The same port, with the address that is now the best; where there is none it keeps the old one, and offers will fail.
    fn choose_again(&self) {
        let mut choice = locked(&self.choice);
        let exact = format!("={}:{}", choice.device, choice.port).parse();
        let (Ok(ports), Ok(devices)) = (device::ports(self.api), exact) else { return };
        let wanted = select::Wanted { devices, ..self.options.wanted(self.near) };
        if let Ok(again) = select::choose(&ports, &wanted) {
            *choice = again;
        }
    }
}
