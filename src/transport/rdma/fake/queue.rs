//! Completion queues and their channels.

use super::*;

pub(super) struct Channel {
    pub context: u32,
    events: Events<(u32, *mut ffi::ibv_cq, *mut c_void)>,
}

pub(super) struct Queue {
    pub context: u32,
    pub raw: *mut ffi::ibv_cq,
    user: *mut c_void,
    channel: Option<u32>,
    depth: usize,
    entries: VecDeque<Entry>,
    armed: bool,
    overrun: bool,
    /// Events that were taken from the channel, and not acknowledged.
    unacknowledged: c_uint,
}

/// A completion, and the places in its queue pair's queues that are free when it was polled.
pub(super) struct Entry {
    pub completion: ibv_wc,
    pub pair: u32,
    pub sends: u32,
    pub receives: u32,
}

impl State {
    /// Adds a completion, and tells the channel if it was asked to. An overrun breaks all queue pairs of the queue.
    pub(super) fn push(&mut self, number: u32, entry: Entry) {
        let Some(queue) = self.queues.get_mut(&number) else { return };
        if queue.overrun {
            return;
        }
        if queue.entries.len() == queue.depth {
            queue.overrun = true;
            let (raw, context) = (queue.raw, queue.context);
            self.raise(self.contexts[&context].device, ffi::IBV_EVENT_CQ_ERR, raw.cast());
            for pair in self.pair_numbers() {
                if [self.pairs[&pair].send_queue, self.pairs[&pair].receive_queue].contains(&number) {
                    self.break_pair(pair);
                }
            }
            return;
        }
        queue.entries.push_back(entry);
        if std::mem::take(&mut queue.armed)
            && let Some(channel) = queue.channel.and_then(|channel| self.channels.get_mut(&channel))
        {
            channel.events.push((number, queue.raw, queue.user));
            self.arrived.notify_all();
        }
    }
}

pub(super) unsafe extern "C" fn create_comp_channel(raw: *mut ffi::ibv_context) -> *mut ffi::ibv_comp_channel {
    let (shared, context, device) = memory::context(raw);
    let mut state = shared.lock();
    let events = state.refuses(Some(Verb::CreateCompChannel), device).and_then(|()| Events::new());
    object_or_errno(events.map(|events| {
        let number = state.number();
        let raw = ffi::ibv_comp_channel { context: raw, fd: events.descriptor(), refcnt: 0 };
        state.channels.insert(number, Channel { context, events });
        Object::give(raw, &shared, number)
    }))
}

pub(super) unsafe extern "C" fn destroy_comp_channel(raw: *mut ffi::ibv_comp_channel) -> c_int {
    // SAFETY: the caller's channel.
    let (shared, number) = unsafe { Object::find(raw) };
    let mut state = shared.lock();
    if state.queues.values().any(|queue| queue.channel == Some(number)) {
        return EBUSY;
    }
    state.channels.remove(&number);
    drop(state);
    // SAFETY: given by `create_comp_channel`, and given back now.
    unsafe { Object::take(raw) };
    0
}

pub(super) unsafe extern "C" fn create_cq(
    raw: *mut ffi::ibv_context,
    depth: c_int,
    user: *mut c_void,
    channel: *mut ffi::ibv_comp_channel,
    vector: c_int,
) -> *mut ffi::ibv_cq {
    let (shared, context, device) = memory::context(raw);
    // SAFETY: the caller's channel, or null.
    let channel_number = (!channel.is_null()).then(|| unsafe { Object::find(channel) }.1);
    let mut state = shared.lock();
    let fits = (1..=state.devices[device].max_cqe).contains(&depth) && vector == 0;
    let allowed = state.refuses(Some(Verb::CreateCq), device).and_then(|()| require(fits, EINVAL));
    object_or_errno(allowed.map(|()| {
        let number = state.number();
        let c = ffi::ibv_cq { context: raw, channel, cq_context: user, handle: number, cqe: depth };
        let raw = Object::give(c, &shared, number);
        let queue = Queue {
            context,
            raw,
            user,
            channel: channel_number,
            depth: depth as usize,
            entries: VecDeque::new(),
            armed: false,
            overrun: false,
            unacknowledged: 0,
        };
        state.queues.insert(number, queue);
        raw
    }))
}

pub(super) unsafe extern "C" fn destroy_cq(raw: *mut ffi::ibv_cq) -> c_int {
    // SAFETY: the caller's queue.
    let (shared, number) = unsafe { Object::find(raw) };
    let mut state = shared.lock();
    let used = state.pairs.values().any(|pair| pair.send_queue == number || pair.receive_queue == number);
    if used || state.queues[&number].unacknowledged > 0 {
        return EBUSY;
    }
    let channel = state.queues.remove(&number).and_then(|queue| queue.channel);
    if let Some(channel) = channel.and_then(|channel| state.channels.get_mut(&channel)) {
        channel.events.discard(|&(queue, ..)| queue == number);
    }
    drop(state);
    // SAFETY: given by `create_cq`, and given back now.
    unsafe { Object::take(raw) };
    0
}

pub(super) unsafe extern "C" fn get_cq_event(
    raw: *mut ffi::ibv_comp_channel,
    queue: *mut *mut ffi::ibv_cq,
    user: *mut *mut c_void,
) -> c_int {
    let _working = Working::begin();
    // SAFETY: the caller's channel.
    let (shared, number) = unsafe { Object::find(raw) };
    let next = shared.next_event(|state| state.channels.get_mut(&number).map(|channel| &mut channel.events));
    minus_one(next.map(|(number, of_queue, of_user)| {
        if let Some(queue) = shared.lock().queues.get_mut(&number) {
            queue.unacknowledged += 1;
        }
        // SAFETY: the caller's room for the answer.
        unsafe { *queue = of_queue };
        // SAFETY: as above.
        unsafe { *user = of_user };
    }))
}

pub(super) unsafe extern "C" fn ack_cq_events(raw: *mut ffi::ibv_cq, events: c_uint) {
    let _working = Working::begin();
    // SAFETY: the caller's queue.
    let (shared, number) = unsafe { Object::find(raw) };
    if let Some(queue) = shared.lock().queues.get_mut(&number) {
        assert!(queue.unacknowledged >= events, "more events are acknowledged than were taken");
        queue.unacknowledged -= events;
    }
}

pub(super) unsafe extern "C" fn poll_cq(raw: *mut ffi::ibv_cq, room: c_int, answer: *mut ibv_wc) -> c_int {
    let _working = Working::begin();
    // SAFETY: the caller's queue.
    let (shared, number) = unsafe { Object::find(raw) };
    let mut state = shared.lock();
    let mut count = 0;
    while count < room {
        let Some(entry) = state.queues.get_mut(&number).and_then(|queue| queue.entries.pop_front()) else { break };
        if let Some(pair) = state.pairs.get_mut(&entry.pair) {
            pair.sends_used = pair.sends_used.saturating_sub(entry.sends);
            pair.receives_used = pair.receives_used.saturating_sub(entry.receives);
        }
        // SAFETY: the caller has room for `room` completions.
        unsafe { answer.add(count as usize).write(entry.completion) };
        count += 1;
    }
    count
}

pub(super) unsafe extern "C" fn req_notify_cq(raw: *mut ffi::ibv_cq, solicited_only: c_int) -> c_int {
    let _working = Working::begin();
    // SAFETY: the caller's queue.
    let (shared, number) = unsafe { Object::find(raw) };
    let mut state = shared.lock();
    let device = state.contexts[&state.queues[&number].context].device;
    // Solicited events are not imitated.
    let answer = state.refuses(None, device).and_then(|()| require(solicited_only == 0, EINVAL));
    if let (Ok(()), Some(queue)) = (answer, state.queues.get_mut(&number)) {
        queue.armed = true;
    }
    code(answer)
}
