//! A verbs provider in memory, behind the same table of functions as libibverbs, for tests.
//!
//! ```text
//! Fake ── Shared { State }     every device, domain, region, queue and queue pair of it, behind one lock
//!            ^
//!     Object<ibv_qp> ...       what callers hold: the C structure first, then the way back to its provider
//! ```
//!
//! It keeps the verbs manual's promises about reliable connections, and where the manual leaves a choice takes the harder one:
//! of a failed completion only the fields that the manual names are of use; places in a send queue are free again when a
//! completion was *polled*; completions outlive their queue pair; local and remote keys differ. Work is carried out while it is
//! posted, unless [`Fake::hold`] keeps it in the network. Where hardware retries for a while (a peer that is gone, not yet
//! ready, or has other packet sequence numbers) it fails at once. SEND WITH INVALIDATE invalidates nothing.
//! Destroying a completion queue with unacknowledged events hangs in libibverbs; here it returns EBUSY.

#![allow(unsafe_code)]

mod memory;
mod network;
mod pair;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::ffi::{self, Api, ibv_wc};
use memory::{Domain, OpenDevice, Region};
use pair::Pair;
use queue::{Channel, Queue};

/// A device, as it is configured.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its name, below 64 bytes.
    pub name: String,
    /// Its directory in sysfs, `ibdev_path`, below 256 bytes.
    pub path: String,
    /// The most queue pairs.
    pub max_qp: c_int,
    /// The most work requests in one queue.
    pub max_qp_wr: c_int,
    /// The most completions in one queue.
    pub max_cqe: c_int,
    /// The most pieces of one work request.
    pub max_sge: c_int,
    /// The most bytes that may be registered at a time, as RLIMIT_MEMLOCK has it.
    pub memlock: usize,
    /// Its ports, the first of which has number 1.
    pub ports: Vec<Port>,
}

/// A port of a device, as it is configured.
#[derive(Clone, Debug)]
pub struct Port {
    /// [`ffi::IBV_PORT_ACTIVE`] or another state.
    pub state: c_int,
    /// Bytes per packet, as `ibv_mtu` has it: 1 is 256, 5 is 4096.
    pub mtu: c_int,
    /// The most bytes in one message; told, not enforced.
    pub max_msg_sz: u32,
    /// Local identifier, on InfiniBand.
    pub lid: u16,
    /// [`ffi::IBV_LINK_LAYER_ETHERNET`] or the other.
    pub link_layer: u8,
    /// Its addresses by index.
    pub gids: Vec<ffi::ibv_gid>,
}

impl Device {
    /// A RoCE device with one active port at 10.0.0.`host`.
    pub fn roce(name: &str, host: u8) -> Device {
        let mut raw = [0; 16];
        raw[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, host]);
        let port = Port {
            state: ffi::IBV_PORT_ACTIVE,
            mtu: 5,
            max_msg_sz: 1 << 30,
            lid: 0,
            link_layer: ffi::IBV_LINK_LAYER_ETHERNET,
            gids: vec![ffi::ibv_gid { raw }],
        };
        Device {
            name: name.into(),
            path: format!("/nonexistent/{name}"),
            max_qp: 1 << 16,
            max_qp_wr: 16384,
            max_cqe: 65536,
            max_sge: 16,
            memlock: usize::MAX,
            ports: vec![port],
        }
    }
}

/// A function that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after the functions")]
pub enum Verb {
    OpenDevice,
    AllocPd,
    RegMr,
    CreateCompChannel,
    CreateCq,
    CreateQp,
    ModifyQp,
    PostSend,
    PostRecv,
}

/// What an asynchronous event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// The device as a whole.
    Device,
    /// A port of it.
    Port(u8),
    /// The queue pair with this number.
    Pair(u32),
    /// The completion queue of the receives of the queue pair with this number.
    ReceiveQueue(u32),
}

/// How many objects live, and what was registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open devices.
    pub contexts: usize,
    /// Protection domains.
    pub domains: usize,
    /// Memory regions.
    pub regions: usize,
    /// Completion channels.
    pub channels: usize,
    /// Completion queues.
    pub queues: usize,
    /// Queue pairs.
    pub pairs: usize,
    /// Bytes that are registered now.
    pub bytes: usize,
    /// Registrations ever made.
    pub registrations: usize,
    /// Bytes ever registered.
    pub bytes_ever: usize,
}

impl Counts {
    /// Does any object live?
    pub fn is_empty(&self) -> bool {
        let live = [self.contexts, self.domains, self.regions, self.channels, self.queues, self.pairs];
        live.iter().all(|&count| count == 0)
    }
}

/// The provider; clones are the same one. It lives on while objects made by it do.
#[derive(Clone)]
pub struct Fake {
    shared: Arc<Shared>,
    api: &'static Api,
}

impl Default for Fake {
    fn default() -> Fake {
        Fake::new()
    }
}

impl Fake {
    /// A provider with one RoCE device `fake0`.
    ///
    /// # Panics
    /// If 64 providers live in this process.
    pub fn new() -> Fake {
        Fake::with(vec![Device::roce("fake0", 1)])
    }

    /// A provider with these devices.
    ///
    /// # Panics
    /// If 64 providers live in this process.
    pub fn with(devices: Vec<Device>) -> Fake {
        let mut places = PROVIDERS.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.iter().position(|provider| provider.strong_count() == 0).expect("64 providers live");
        let shared = Arc::new_cyclic(|weak| Shared::new(devices, weak));
        places[place] = Arc::downgrade(&shared);
        Fake { shared, api: Box::leak(Box::new(memory::table(LISTS[place]))) }
    }

    /// The functions of this provider, for any thread. There are no devices any more when the provider is gone.
    pub fn api(&self) -> &'static Api {
        self.api
    }

    /// Changes the configuration of devices. Raises no event: see [`Fake::raise`].
    pub fn configure(&self, change: impl FnOnce(&mut [Device])) {
        change(&mut self.shared.lock().devices);
    }

    /// Keeps what is sent from now on in the network: neither delivered nor acknowledged.
    pub fn hold(&self) {
        self.shared.lock().held = true;
    }

    /// Lets the network deliver again, what it kept first.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.held = false;
        state.progress_all();
    }

    /// Takes the link from a port: raises PORT_ERR; what is in flight there, and later sends, end with RETRY_EXC_ERR.
    pub fn link_down(&self, device: &str, port: u8) {
        self.set_link(device, port, ffi::IBV_PORT_DOWN, ffi::IBV_EVENT_PORT_ERR);
    }

    /// Gives the link back: raises PORT_ACTIVE. Queue pairs stay as they are.
    pub fn link_up(&self, device: &str, port: u8) {
        self.set_link(device, port, ffi::IBV_PORT_ACTIVE, ffi::IBV_EVENT_PORT_ACTIVE);
    }

    fn set_link(&self, device: &str, port: u8, to: c_int, event: c_int) {
        let mut state = self.shared.lock();
        let device = state.device(device);
        state.devices[device].ports[usize::from(port) - 1].state = to;
        state.raise(device, event, ptr::without_provenance_mut(port.into()));
        state.progress_all();
    }

    /// Pulls a device out: raises DEVICE_FATAL, its queue pairs are flushed, it is not listed any more, and its functions fail
    /// with EIO, except those that poll and give back.
    pub fn remove_device(&self, device: &str) {
        let mut state = self.shared.lock();
        let device = state.device(device);
        state.removed[device] = true;
        state.raise(device, ffi::IBV_EVENT_DEVICE_FATAL, ptr::null_mut());
        for number in state.pair_numbers() {
            if state.pairs[&number].device == device {
                state.break_pair(number);
            }
        }
        state.progress_all();
    }

    /// Makes the next call of a function fail with this error, or the one after it if that was asked for already, and so on.
    pub fn fail_next(&self, verb: Verb, error: Errno) {
        self.shared.lock().failures.push((verb, error.raw_os_error()));
    }

    /// Puts a completion on a queue of a queue pair: that of its receives if its opcode has the bit of [`ffi::IBV_WC_RECV`], else
    /// that of its sends. A `qp_num` of 0 is filled in.
    pub fn inject(&self, qp_num: u32, mut completion: ibv_wc) {
        let mut state = self.shared.lock();
        if completion.qp_num == 0 {
            completion.qp_num = qp_num;
        }
        let pair = &state.pairs[&qp_num];
        let queue = if completion.opcode & ffi::IBV_WC_RECV != 0 { pair.receive_queue } else { pair.send_queue };
        state.push(queue, queue::Entry { completion, pair: qp_num, sends: 0, receives: 0 });
    }

    /// Raises an asynchronous event (`IBV_EVENT_*`) at all who have the device open.
    pub fn raise(&self, device: &str, event: c_int, element: Element) {
        let mut state = self.shared.lock();
        let device = state.device(device);
        let element: *mut c_void = match element {
            Element::Device => ptr::null_mut(),
            Element::Port(port) => ptr::without_provenance_mut(port.into()),
            Element::Pair(number) => state.pairs[&number].raw.cast(),
            Element::ReceiveQueue(number) => state.queues[&state.pairs[&number].receive_queue].raw.cast(),
        };
        state.raise(device, event, element);
    }

    /// What lives now.
    pub fn counts(&self) -> Counts {
        let state = self.shared.lock();
        Counts {
            contexts: state.contexts.len(),
            domains: state.domains.len(),
            regions: state.regions.len(),
            channels: state.channels.len(),
            queues: state.queues.len(),
            pairs: state.pairs.len(),
            bytes: state.bytes(),
            registrations: state.registrations,
            bytes_ever: state.bytes_ever,
        }
    }

    /// The numbers of all queue pairs, in the order in which they were made.
    pub fn pair_numbers(&self) -> Vec<u32> {
        self.shared.lock().pair_numbers()
    }

    /// How many sends of a queue pair are neither acknowledged nor failed.
    pub fn in_flight(&self, qp_num: u32) -> usize {
        self.shared.lock().pairs.get(&qp_num).map_or(0, |pair| pair.sends.len())
    }

    /// How many receives of a queue pair are posted.
    pub fn posted(&self, qp_num: u32) -> usize {
        self.shared.lock().pairs.get(&qp_num).map_or(0, |pair| pair.receives.len())
    }
}

type List = unsafe extern "C" fn(*mut c_int) -> *mut *mut ffi::ibv_device;

const MOST: usize = 64;

/// `ibv_get_device_list` has no argument that could lead to its provider, so every provider has its own.
static PROVIDERS: Mutex<[Weak<Shared>; MOST]> = Mutex::new([const { Weak::new() }; MOST]);

macro_rules! lists {
    ($($a:literal)*) => {
        [$(list::<{ 8 * $a }>, list::<{ 8 * $a + 1 }>, list::<{ 8 * $a + 2 }>, list::<{ 8 * $a + 3 }>, list::<{ 8 * $a + 4 }>,
           list::<{ 8 * $a + 5 }>, list::<{ 8 * $a + 6 }>, list::<{ 8 * $a + 7 }>),*]
    };
}
static LISTS: [List; MOST] = lists!(0 1 2 3 4 5 6 7);

extern "C" fn list<const PLACE: usize>(count: *mut c_int) -> *mut *mut ffi::ibv_device {
    let provider = PROVIDERS.lock().unwrap_or_else(PoisonError::into_inner)[PLACE].upgrade();
    memory::list(provider, count)
}

struct Shared {
    state: Mutex<State>,
    arrived: Arc<Condvar>,
    // Never grows: lists and contexts point into it.
    devices: Vec<RawDevice>,
}

#[repr(C)]
struct RawDevice {
    raw: ffi::ibv_device,
    shared: Weak<Shared>,
    index: usize,
}

// SAFETY: the pointers in the devices' C structures are null and nobody writes there; the state is behind a lock.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(devices: Vec<Device>, weak: &Weak<Shared>) -> Shared {
        let raw = devices.iter().enumerate().map(|(index, device)| {
            // SAFETY: all fields are numbers and pointers, for which zeros are valid.
            let mut raw: ffi::ibv_device = unsafe { std::mem::zeroed() };
            copy_name(&device.name, &mut raw.name);
            copy_name(&device.name, &mut raw.dev_name);
            copy_name(&device.path, &mut raw.ibdev_path);
            RawDevice { raw, shared: weak.clone(), index }
        });
        let raw = raw.collect();
        let arrived = Arc::new(Condvar::new());
        let state = State {
            removed: vec![false; devices.len()],
            devices,
            arrived: arrived.clone(),
            contexts: BTreeMap::new(),
            domains: BTreeMap::new(),
            regions: BTreeMap::new(),
            channels: BTreeMap::new(),
            queues: BTreeMap::new(),
            pairs: BTreeMap::new(),
            next: 0x10,
            held: false,
            failures: Vec::new(),
            registrations: 0,
            bytes_ever: 0,
        };
        Shared { state: Mutex::new(state), arrived, devices: raw }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next event of a source: waits for it if its descriptor blocks.
    fn next_event<T>(&self, source: impl Fn(&mut State) -> Option<&mut Events<T>>) -> Result<T, Errno> {
        let mut state = self.lock();
        loop {
            let events = source(&mut state).ok_or(Errno::BADF)?;
            if let Some(event) = events.pop() {
                return Ok(event);
            }
            if !events.blocks() {
                return Err(Errno::AGAIN);
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn copy_name(name: &str, to: &mut [c_char]) {
    assert!(name.len() < to.len(), "{name} is too long");
    for (to, byte) in to.iter_mut().zip(name.bytes()) {
        *to = byte as c_char;
    }
}

/// All of a provider. Objects are found by numbers that are used once.
struct State {
    devices: Vec<Device>,
    removed: Vec<bool>,
    arrived: Arc<Condvar>,
    contexts: BTreeMap<u32, OpenDevice>,
    domains: BTreeMap<u32, Domain>,
    regions: BTreeMap<u32, Region>,
    channels: BTreeMap<u32, Channel>,
    queues: BTreeMap<u32, Queue>,
    pairs: BTreeMap<u32, Pair>,
    next: u32,
    held: bool,
    failures: Vec<(Verb, c_int)>,
    registrations: usize,
    bytes_ever: usize,
}

// SAFETY: its pointers lead to the objects of callers; they are handed back to them, and never followed.
unsafe impl Send for State {}

impl State {
    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn device(&self, name: &str) -> usize {
        self.devices.iter().position(|device| device.name == name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    fn pair_numbers(&self) -> Vec<u32> {
        self.pairs.keys().copied().collect()
    }

    fn bytes(&self) -> usize {
        self.regions.values().map(|region| region.length).sum()
    }

    /// The error that a call must fail with, planted or because the device is gone.
    fn refuses(&mut self, verb: Option<Verb>, device: usize) -> Result<(), c_int> {
        if self.removed[device] {
            return Err(Errno::IO.raw_os_error());
        }
        match self.failures.iter().position(|(planted, _)| Some(*planted) == verb) {
            Some(at) => Err(self.failures.remove(at).1),
            None => Ok(()),
        }
    }

    fn raise(&mut self, device: usize, event: c_int, element: *mut c_void) {
        for context in self.contexts.values_mut().filter(|context| context.device == device) {
            context.events.push(ffi::ibv_async_event { element, event_type: event });
        }
        self.arrived.notify_all();
    }
}

/// Events behind a descriptor that is readable while there are any.
struct Events<T> {
    queue: VecDeque<T>,
    // Holds one byte per event.
    reader: PipeReader,
    writer: PipeWriter,
}

impl<T> Events<T> {
    fn new() -> Result<Events<T>, c_int> {
        let (reader, writer) = std::io::pipe().map_err(|error| error.raw_os_error().unwrap_or(0))?;
        Ok(Events { queue: VecDeque::new(), reader, writer })
    }

    fn descriptor(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    fn blocks(&self) -> bool {
        rustix::fs::fcntl_getfl(&self.reader).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK))
    }

    fn push(&mut self, event: T) {
        self.queue.push_back(event);
        self.writer.write_all(&[0]).expect("a pipe has room for thousands of events");
    }

    fn pop(&mut self) -> Option<T> {
        let event = self.queue.pop_front()?;
        self.reader.read_exact(&mut [0]).expect("there is one byte per event");
        Some(event)
    }

    fn discard(&mut self, which: impl Fn(&T) -> bool) {
        for _ in 0..self.queue.len() {
            match self.pop() {
                Some(event) if !which(&event) => self.push(event),
                _ => {}
            }
        }
    }
}

/// What callers hold: the C structure, and the way back to its provider.
#[repr(C)]
struct Object<R> {
    raw: R,
    shared: Arc<Shared>,
    number: u32,
}

impl<R> Object<R> {
    fn give(raw: R, shared: &Arc<Shared>, number: u32) -> *mut R {
        Box::into_raw(Box::new(Object { raw, shared: shared.clone(), number })).cast()
    }

    /// The provider of an object, and its number there.
    ///
    /// # Safety
    /// The object is one that [`Object::give`] gave, and was not taken back.
    unsafe fn find(raw: *mut R) -> (Arc<Shared>, u32) {
        // SAFETY: as above; the C structure comes first.
        let object = unsafe { &*raw.cast::<Object<R>>() };
        (object.shared.clone(), object.number)
    }

    /// # Safety
    /// As for [`Object::find`]; nobody uses it any more.
    unsafe fn take(raw: *mut R) {
        // SAFETY: it was made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(raw.cast::<Object<R>>()) });
    }
}

thread_local! {
    static WORKING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Is this thread inside a function of the data path? What is allocated there is the provider's, not its caller's.
pub fn is_working() -> bool {
    WORKING.get()
}

struct Working;

impl Working {
    fn begin() -> Working {
        WORKING.set(true);
        Working
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        WORKING.set(false);
    }
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

fn set_errno(code: c_int) {
    // SAFETY: the calling thread's own errno.
    unsafe { *__errno_location() = code };
}

/// The answer of functions that return an object: null and errno.
fn object_or_errno<T>(answer: Result<*mut T, c_int>) -> *mut T {
    answer.unwrap_or_else(|code| {
        set_errno(code);
        ptr::null_mut()
    })
}

/// The answer of functions that return an error number.
fn code(answer: Result<(), c_int>) -> c_int {
    answer.err().unwrap_or(0)
}

/// The answer of functions that return -1 and errno.
fn minus_one(answer: Result<(), Errno>) -> c_int {
    match answer {
        Ok(()) => 0,
        Err(error) => {
            set_errno(error.raw_os_error());
            -1
        }
    }
}

const EINVAL: c_int = Errno::INVAL.raw_os_error();
const EBUSY: c_int = Errno::BUSY.raw_os_error();
const ENOMEM: c_int = Errno::NOMEM.raw_os_error();

fn require(holds: bool, otherwise: c_int) -> Result<(), c_int> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn has(flags: c_uint, flag: c_int) -> bool {
    flags & flag as c_uint != 0
}
