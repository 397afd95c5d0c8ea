//! Devices, protection domains, regions, and asynchronous events.

use super::*;

pub(super) struct OpenDevice {
    pub device: usize,
    pub events: Events<ffi::ibv_async_event>,
}

pub(super) struct Domain {
    pub context: u32,
}

pub(super) struct Region {
    domain: u32,
    start: u64,
    pub length: usize,
    access: c_uint,
}

/// Keys are the number of the region, shifted, and this in the lowest bit: so one cannot stand for the other.
const REMOTE: u32 = 1;

impl State {
    fn region(&self, key: u32, kind: u32) -> Option<&Region> {
        if key & 0xff == kind { self.regions.get(&(key >> 8)) } else { None }
    }

    fn allows(region: Option<&Region>, domain: u32, start: u64, length: u64, flag: c_int) -> bool {
        region.is_some_and(|region| {
            let inside = start >= region.start && start - region.start + length <= region.length as u64;
            region.domain == domain && inside && (flag == 0 || has(region.access, flag))
        })
    }

    /// Are all pieces in regions of this domain that allow this? Empty ones are not looked at.
    pub(super) fn local(&self, domain: u32, pieces: &[ffi::ibv_sge], flag: c_int) -> bool {
        pieces.iter().all(|piece| {
            let region = self.region(piece.lkey, 0);
            piece.length == 0 || State::allows(region, domain, piece.addr, piece.length.into(), flag)
        })
    }

    /// May a peer do this to memory of this domain? Of nothing the key is not looked at.
    pub(super) fn remote(&self, domain: u32, start: u64, length: usize, key: u32, flag: c_int) -> bool {
        length == 0 || State::allows(self.region(key, REMOTE), domain, start, length as u64, flag)
    }
}

/// What the pieces hold. They were checked.
pub(super) fn gather(pieces: &[ffi::ibv_sge]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| read(piece.addr, piece.length as usize)).collect()
}

pub(super) fn read(start: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let from = ptr::with_exposed_provenance::<u8>(start as usize);
    if length > 0 {
        // SAFETY: the memory was checked to be in a live region, or is to be sent inline: whoever registered or posted it
        // vouches for it.
        unsafe { ptr::copy(from, bytes.as_mut_ptr(), length) };
    }
    bytes
}

pub(super) fn write(start: u64, bytes: &[u8]) {
    let to = ptr::with_exposed_provenance_mut::<u8>(start as usize);
    if !bytes.is_empty() {
        // SAFETY: the memory was checked to be in a live region that may be written; whoever registered it vouches for it.
        unsafe { ptr::copy(bytes.as_ptr(), to, bytes.len()) };
    }
}

/// Fills the pieces in turn. They were checked, and have room.
pub(super) fn scatter(pieces: &[ffi::ibv_sge], mut bytes: &[u8]) {
    for piece in pieces {
        let (now, later) = bytes.split_at(bytes.len().min(piece.length as usize));
        write(piece.addr, now);
        bytes = later;
    }
}

pub(super) fn table(list: List) -> Api {
    Api {
        ibv_get_device_list: list,
        ibv_free_device_list: free_device_list,
        ibv_open_device: open_device,
        ibv_close_device: close_device,
        ibv_query_device: query_device,
        ibv_query_port: query_port,
        ibv_query_gid: query_gid,
        ibv_alloc_pd: alloc_pd,
        ibv_dealloc_pd: dealloc_pd,
        ibv_reg_mr: reg_mr,
        ibv_dereg_mr: dereg_mr,
        ibv_create_comp_channel: queue::create_comp_channel,
        ibv_destroy_comp_channel: queue::destroy_comp_channel,
        ibv_create_cq: queue::create_cq,
        ibv_destroy_cq: queue::destroy_cq,
        ibv_get_cq_event: queue::get_cq_event,
        ibv_ack_cq_events: queue::ack_cq_events,
        ibv_create_qp: pair::create_qp,
        ibv_modify_qp: pair::modify_qp,
        ibv_destroy_qp: pair::destroy_qp,
        ibv_get_async_event: get_async_event,
        ibv_ack_async_event: ack_async_event,
        ibv_fork_init: fork_init,
    }
}

pub(super) fn list(provider: Option<Arc<Shared>>, count: *mut c_int) -> *mut *mut ffi::ibv_device {
    let mut devices: Vec<*mut ffi::ibv_device> = Vec::new();
    if let Some(shared) = provider {
        let removed = shared.lock().removed.clone();
        let present = shared.devices.iter().filter(|device| !removed[device.index]);
        devices.extend(present.map(|device| ptr::from_ref::<RawDevice>(device).cast_mut().cast()));
        if !devices.is_empty() {
            // Kept by the list, until it is freed.
            std::mem::forget(shared);
        }
    }
    if !count.is_null() {
        // SAFETY: the caller's room for the answer.
        unsafe { *count = devices.len() as c_int };
    }
    devices.push(ptr::null_mut());
    Box::into_raw(devices.into_boxed_slice()).cast()
}

unsafe extern "C" fn free_device_list(list: *mut *mut ffi::ibv_device) {
    let mut length = 0;
    // SAFETY: the list ends with null.
    while !unsafe { *list.add(length) }.is_null() {
        length += 1;
    }
    // SAFETY: made in `list`, with so many devices and the null.
    let devices = unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(list, length + 1)) };
    if length > 0 {
        // SAFETY: the list keeps the provider, and with it the device.
        let shared = unsafe { (*devices[0].cast::<RawDevice>()).shared.as_ptr() };
        // SAFETY: `list` forgot one.
        unsafe { Arc::decrement_strong_count(shared) };
    }
}

unsafe extern "C" fn open_device(device: *mut ffi::ibv_device) -> *mut ffi::ibv_context {
    // SAFETY: a device of a list that is not freed.
    let device_of = unsafe { &*device.cast::<RawDevice>() };
    let open = || {
        let shared = device_of.shared.upgrade().ok_or(Errno::NODEV.raw_os_error())?;
        let mut state = shared.lock();
        state.refuses(Some(Verb::OpenDevice), device_of.index)?;
        let events = Events::new()?;
        // SAFETY: all fields are numbers, pointers and optional functions, for which zeros are valid.
        let mut raw: ffi::ibv_context = unsafe { std::mem::zeroed() };
        raw.device = device;
        raw.async_fd = events.descriptor();
        raw.cmd_fd = -1;
        raw.num_comp_vectors = 1;
        raw.ops.poll_cq = Some(queue::poll_cq);
        raw.ops.req_notify_cq = Some(queue::req_notify_cq);
        raw.ops.post_send = Some(pair::post_send);
        raw.ops.post_recv = Some(pair::post_recv);
        let number = state.number();
        state.contexts.insert(number, OpenDevice { device: device_of.index, events });
        drop(state);
        Ok(Object::give(raw, &shared, number))
    };
    object_or_errno(open())
}

unsafe extern "C" fn close_device(context: *mut ffi::ibv_context) -> c_int {
    // SAFETY: the caller's open context.
    let (shared, number) = unsafe { Object::find(context) };
    let mut state = shared.lock();
    let used = state.domains.values().any(|domain| domain.context == number)
        || state.queues.values().any(|queue| queue.context == number)
        || state.channels.values().any(|channel| channel.context == number);
    if used {
        set_errno(EBUSY);
        return -1;
    }
    state.contexts.remove(&number);
    drop(state);
    // SAFETY: given by `open_device`, and closed now.
    unsafe { Object::take(context) };
    0
}

/// The provider of a context, its number there and that of its device.
pub(super) fn context(raw: *mut ffi::ibv_context) -> (Arc<Shared>, u32, usize) {
    // SAFETY: callers hand over open contexts.
    let (shared, number) = unsafe { Object::find(raw) };
    let device = shared.lock().contexts[&number].device;
    (shared, number, device)
}

unsafe extern "C" fn query_device(raw: *mut ffi::ibv_context, answer: *mut ffi::ibv_device_attr) -> c_int {
    let (shared, _, device) = context(raw);
    let mut state = shared.lock();
    if let Err(error) = state.refuses(None, device) {
        return error;
    }
    let device = &state.devices[device];
    // SAFETY: all fields are numbers, for which zeros are valid.
    let mut attributes: ffi::ibv_device_attr = unsafe { std::mem::zeroed() };
    attributes.max_mr_size = u64::MAX;
    attributes.max_qp = device.max_qp;
    attributes.max_qp_wr = device.max_qp_wr;
    attributes.max_sge = device.max_sge;
    attributes.max_sge_rd = device.max_sge;
    attributes.max_cq = 1 << 16;
    attributes.max_cqe = device.max_cqe;
    attributes.max_mr = 1 << 20;
    attributes.max_pd = 1 << 16;
    attributes.max_pkeys = 1;
    attributes.phys_port_cnt = device.ports.len() as u8;
    // SAFETY: the caller's room for the answer.
    unsafe { answer.write(attributes) };
    0
}

/// Calls with a port of a device that is there.
fn with_port(raw: *mut ffi::ibv_context, port: u8, then: impl FnOnce(&Port) -> Result<(), c_int>) -> c_int {
    let (shared, _, device) = context(raw);
    let mut state = shared.lock();
    let answer = state.refuses(None, device).and_then(|()| {
        let at = usize::from(port).checked_sub(1).ok_or(EINVAL)?;
        then(state.devices[device].ports.get(at).ok_or(EINVAL)?)
    });
    code(answer)
}

unsafe extern "C" fn query_port(raw: *mut ffi::ibv_context, port: u8, answer: *mut ffi::ibv_port_attr) -> c_int {
    with_port(raw, port, |port| {
        // SAFETY: all fields are numbers, for which zeros are valid.
        let mut attributes: ffi::ibv_port_attr = unsafe { std::mem::zeroed() };
        attributes.state = port.state;
        attributes.max_mtu = 5;
        attributes.active_mtu = port.mtu;
        attributes.gid_tbl_len = port.gids.len() as c_int;
        attributes.max_msg_sz = port.max_msg_sz;
        attributes.pkey_tbl_len = 1;
        attributes.lid = port.lid;
        attributes.link_layer = port.link_layer;
        // SAFETY: the caller's room for the answer.
        unsafe { answer.write(attributes) };
        Ok(())
    })
}

unsafe extern "C" fn query_gid(raw: *mut ffi::ibv_context, port: u8, index: c_int, answer: *mut ffi::ibv_gid) -> c_int {
    let error = with_port(raw, port, |port| {
        let gid = usize::try_from(index).ok().and_then(|index| port.gids.get(index)).ok_or(EINVAL)?;
        // SAFETY: the caller's room for the answer.
        unsafe { answer.write(*gid) };
        Ok(())
    });
    minus_one(if error == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(error)) })
}

unsafe extern "C" fn alloc_pd(raw: *mut ffi::ibv_context) -> *mut ffi::ibv_pd {
    let (shared, context, device) = context(raw);
    let mut state = shared.lock();
    object_or_errno(state.refuses(Some(Verb::AllocPd), device).map(|()| {
        let number = state.number();
        state.domains.insert(number, Domain { context });
        Object::give(ffi::ibv_pd { context: raw, handle: number }, &shared, number)
    }))
}

unsafe extern "C" fn dealloc_pd(raw: *mut ffi::ibv_pd) -> c_int {
    // SAFETY: the caller's domain.
    let (shared, number) = unsafe { Object::find(raw) };
    let mut state = shared.lock();
    let used = state.regions.values().any(|region| region.domain == number)
        || state.pairs.values().any(|pair| pair.domain == number);
    if used {
        return EBUSY;
    }
    state.domains.remove(&number);
    drop(state);
    // SAFETY: given by `alloc_pd`, and given back now.
    unsafe { Object::take(raw) };
    0
}

unsafe extern "C" fn reg_mr(
    raw: *mut ffi::ibv_pd,
    start: *mut c_void,
    length: usize,
    access: c_int,
) -> *mut ffi::ibv_mr {
    // SAFETY: the caller's domain.
    let (shared, domain) = unsafe { Object::find(raw) };
    let mut state = shared.lock();
    let device = state.contexts[&state.domains[&domain].context].device;
    let remote = ffi::IBV_ACCESS_REMOTE_WRITE;
    let writable = access & remote == 0 || access & ffi::IBV_ACCESS_LOCAL_WRITE != 0;
    let allowed = state
        .refuses(Some(Verb::RegMr), device)
        .and_then(|()| require(length > 0 && writable, EINVAL))
        .and_then(|()| require(state.bytes().saturating_add(length) <= state.devices[device].memlock, ENOMEM));
    object_or_errno(allowed.map(|()| {
        let number = state.number();
        let address = start.expose_provenance() as u64;
        state.regions.insert(number, Region { domain, start: address, length, access: access as c_uint });
        state.registrations += 1;
        state.bytes_ever += length;
        // SAFETY: the domain is alive.
        let context = unsafe { (*raw).context };
        let key = number << 8;
        let raw = ffi::ibv_mr { context, pd: raw, addr: start, length, handle: number, lkey: key, rkey: key | REMOTE };
        Object::give(raw, &shared, number)
    }))
}

unsafe extern "C" fn dereg_mr(raw: *mut ffi::ibv_mr) -> c_int {
    // SAFETY: the caller's region.
    let (shared, number) = unsafe { Object::find(raw) };
    shared.lock().regions.remove(&number);
    // SAFETY: given by `reg_mr`, and given back now.
    unsafe { Object::take(raw) };
    0
}

unsafe extern "C" fn get_async_event(raw: *mut ffi::ibv_context, answer: *mut ffi::ibv_async_event) -> c_int {
    let (shared, number, _) = context(raw);
    let next = shared.next_event(|state| state.contexts.get_mut(&number).map(|context| &mut context.events));
    // SAFETY: the caller's room for the answer.
    minus_one(next.map(|event| unsafe { answer.write(event) }))
}

unsafe extern "C" fn ack_async_event(_: *mut ffi::ibv_async_event) {}

unsafe extern "C" fn fork_init() -> c_int {
    0
}
