//! Passing updates on: what a worker does with chunks that it carries, and with those that other workers carry to it.
//!
//! ```text
//!  daemon --- Announce: chunk 3 is carried by 5, its hash --->  awaited --- from 5, and the hash fits ---> here: Have
//!                                                                  |
//!                                                                  +--- late, wrong, link gone ---> Fetch: from the daemon
//!  daemon --- Carry: to 1 2 4, then the chunk ---> here, and on its way over the links to 1 2 4
//! ```
//!
//! A link brings nothing but announced chunks of its very peer, each once. Nothing here waits for a link: one that takes nothing for long,
//! or for which there is no room, is given up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::across::{Across, Note, Verdict, judge};
use super::error::Lost;
use super::landing::{Landed, Place, Progress};
use super::lateness::Lateness;
use crate::memory::{SharedSlot, Slab, Slot};
use crate::pipeline::{Bug, planted};
use crate::transport::{Connection, Disconnect, Inbound, Landing, Outbound, Outgoing};
use crate::wire::{
    HEADER_BYTES, Header, Kind, LinkOrder, Plan, RELAY_WORKERS_MAX, SHORT_PAYLOAD_MAX, Said, Violation, Welcome, Why,
    short_payload,
};

/// Frames taken from one link before the next one has its turn.
const FRAMES_PER_TURN: usize = 8;
/// A carrier that brings something has so many times as long for one chunk: then it is late all the same.
const REPAIRS_AT_MOST: u32 = 8;
/// While nothing is known of carriers they may be silent so many times as long.
const FIRST_REPAIRS: u32 = 2;
/// Or as long as it takes to send a chunk to everybody with so many bytes per second, if that is longer.
const SLOWEST: f64 = 1e7;
/// Waits for chunks are looked at so many times in the time that they have.
const LOOKS: u32 = 8;
/// A link that takes nothing for so long is given up.
const LINK_PATIENCE: Duration = Duration::from_secs(2);

/// Changes a frame that is passed on, (header, to whom, the frame), and says how often it is sent. For liars in tests and demonstrations.
pub type Carry = Box<dyn FnMut(&Header, u32, &mut [u8]) -> usize + Send>;

/// Another worker.
#[derive(Default)]
struct Peer {
    /// Its session, by the daemon's last order.
    session: u64,
    link: Option<Link>,
    /// Chunks that it may still bring although they are fetched or not needed any more.
    surplus: u32,
    /// When it brought something last, be it a part of a chunk.
    last: Option<Instant>,
}

struct Link {
    inbound: Box<dyn Inbound>,
    outbound: Box<dyn Outbound>,
    readable: bool,
    writable: bool,
    /// It brought what was not announced: nothing of it is read any more.
    deaf: bool,
    /// Frames are waiting, and none of their bytes has left since.
    stalled: Option<Instant>,
}

/// A worker's part in the relay.
pub(super) struct Relay {
    plan: Plan,
    epoch: u64,
    job: u64,
    me: u32,
    key: [u8; 32],
    repair: Duration,
    lateness: Lateness,
    /// How long a chunk may be under way.
    longest: Duration,
    slab: Slab,
    /// Slots in it.
    slots: usize,
    peers: Vec<Peer>,
    /// Per round of the window and chunk.
    notes: Vec<Note>,
    awaited: Vec<(u64, u32)>,
    /// What is to be said to the daemon, as soon as there is room.
    pub(super) words: VecDeque<Said>,
    /// Chunks that are to be passed on and have not come, and to whom.
    carries: Vec<(u64, u32, u128)>,
    /// Where one of them lands: it is the next frame, unless it is written to its place.
    carried: Option<Slot>,
    /// Links that the daemon has ordered, and nobody has seen to yet.
    pub(super) orders: Vec<LinkOrder>,
    looked: Option<Instant>,
    scrap: Vec<u8>,
    pub(super) tamper: Option<Carry>,
}

/// The payload of a short frame while it lands.
pub(super) type Buffer = [u8; SHORT_PAYLOAD_MAX];

/// Has what comes from the daemon land: short frames, chunks that are to be passed on, and all the rest.
pub(super) struct Down<'a, 'b> {
    pub(super) place: Place<'b>,
    pub(super) relay: &'a mut Option<Box<Relay>>,
    pub(super) short: &'a mut Buffer,
}

impl Landing for Down<'_, '_> {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        if let Some(expected) = short_payload(header.kind) {
            self.place.check_sender(header)?;
            if self.relay.is_none() == (header.kind != Kind::Relay) {
                return Err(Violation::Kind(header.kind));
            }
            if header.payload_bytes as usize != expected {
                return Err(Violation::Length { found: header.payload_bytes, expected: expected as u32 });
            }
            let about_chunk = matches!(header.kind, Kind::Announce | Kind::Carry);
            // A chunk is announced when it has room, so that what a carrier brings always has.
            if about_chunk && !self.place.has_room(header)? {
                return Ok(None);
            }
            return Ok(Some(&mut self.short[..expected]));
        }
        let Some(relay) = self.relay.as_mut().filter(|_| header.kind == Kind::Update) else {
            return self.place.place(header);
        };
        let lands = matches!(self.place.place(header), Ok(Some(_)));
        if !lands || self.place.is_past(header.round) {
            return self.place.place(header);
        }
        relay.comes(header);
        if relay.is_to_carry(header) {
            if relay.take_slot() {
                let payload = HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize;
                return Ok(relay.carried.as_mut().map(|slot| &mut slot[payload]));
            }
            relay.decline(header);
        }
        self.place.place(header)
    }

    fn landed(&mut self, header: &mut Header) -> Result<bool, Violation> {
        self.place.landed(header)
    }
}

impl Relay {
    /// The daemon says, by `header` and `key`, that updates are relayed.
    pub(super) fn new(header: &Header, key: [u8; 32], welcome: &Welcome, job: u64) -> Option<Relay> {
        let plan = welcome.plan;
        let workers = plan.parameters.workers();
        let carried = (1..=1 << 16).contains(&header.chunk).then_some(header.chunk as usize)?;
        let repair = (1..=3_600_000).contains(&header.argument).then_some(Duration::from_millis(header.argument))?;
        if workers > RELAY_WORKERS_MAX {
            return None;
        }
        let chunk = plan.update_bytes(plan.layout.chunk(0).len);
        let notes = plan.window as usize * plan.layout.chunks();
        let all = Duration::from_secs_f64((workers - 1) as f64 * chunk as f64 / SLOWEST);
        let longest = all.max(REPAIRS_AT_MOST * repair);
        Some(Relay {
            lateness: Lateness::new(workers, repair, all.max(FIRST_REPAIRS * repair), longest),
            longest,
            plan,
            epoch: welcome.epoch,
            job,
            me: welcome.worker,
            key,
            repair,
            slots: carried,
            slab: Slab::new(1, carried, HEADER_BYTES + chunk, Vec::new()),
            peers: (0..workers).map(|_| Peer::default()).collect(),
            notes: vec![Note::None; notes],
            awaited: Vec::with_capacity(notes),
            words: VecDeque::with_capacity(notes + 4 * workers + 8),
            carries: Vec::with_capacity(carried),
            carried: None,
            orders: Vec::with_capacity(workers),
            looked: None,
            scrap: vec![0; chunk],
            tamper: None,
        })
    }

    /// The ends of the link with `peer`, as both know them.
    pub(super) fn about(&self) -> (u64, u64, u32) {
        (self.job, self.epoch, self.me)
    }

    /// Chunks that can be on their way over one link.
    pub(super) fn queue(&self) -> usize {
        self.slots
    }

    fn note(&self, round: u64, chunk: u32) -> usize {
        (round % u64::from(self.plan.window)) as usize * self.plan.layout.chunks() + chunk as usize
    }

    /// Takes in a short frame whose payload has landed; its checksum was right. `state` is that of the chunk that it is about.
    pub(super) fn take_in(
        &mut self,
        header: &Header,
        payload: &Buffer,
        landed: &Landed,
        now: Instant,
    ) -> Result<(), Lost> {
        let (round, chunk) = (header.round, header.chunk);
        match header.kind {
            Kind::Link => {
                let order = LinkOrder::read(header, payload);
                if order.peer == self.me || order.peer as usize >= self.peers.len() {
                    return Err(Disconnect::from(Violation::Worker(order.peer)).into());
                }
                self.drop_link(order.peer);
                // What is still to be passed on is for the session that it had.
                self.carries.iter_mut().for_each(|carry| carry.2 &= !(1 << order.peer));
                self.peers[order.peer as usize].session = order.session;
                // The one before it, if nobody has seen to it, was for a session that is over.
                self.orders.retain(|other| other.peer != order.peer);
                self.orders.push(order);
            }
            Kind::Carry => {
                let targets: [u8; 16] = *payload.first_chunk().expect("longer than a set");
                self.carried = None;
                match landed.progress(round, chunk) {
                    // Too late: what was there may be overwritten.
                    Progress::Past => self.words.push_back(Said::Decline { round, chunk }),
                    progress => {
                        self.carries.push((round, chunk, u128::from_le_bytes(targets)));
                        if let Progress::Here(header) = progress {
                            self.pass_on_from(&header, landed);
                        }
                    }
                }
            }
            Kind::Announce => {
                let hash = *payload.first_chunk().expect("longer than a hash");
                let carrier = header.worker;
                if carrier == self.me || carrier as usize >= self.peers.len() {
                    return Err(Disconnect::from(Violation::Worker(carrier)).into());
                }
                // What the daemon sent unasked may come before its announcement.
                if landed.progress(round, chunk) != Progress::Missing {
                    self.peers[carrier as usize].surplus += 1;
                    self.words.push_back(Said::Have { round, chunk });
                    return Ok(());
                }
                let at = self.note(round, chunk);
                self.notes[at] = Note::Awaited { carrier, hash, since: now };
                self.awaited.push((round, chunk));
                match &mut self.peers[carrier as usize].link {
                    Some(link) if !link.deaf => link.readable = true,
                    Some(_) => self.fetch(round, chunk, Why::Late),
                    None => self.fetch(round, chunk, Why::Gone),
                }
            }
            kind => return Err(Disconnect::from(Violation::Kind(kind)).into()),
        }
        Ok(())
    }

    /// The daemon itself sends a chunk: what its carrier brings is not needed.
    fn comes(&mut self, header: &Header) {
        let at = self.note(header.round, header.chunk);
        if let Some(note) = self.notes.get(at).copied()
            && let Note::Awaited { carrier, .. } = note
        {
            self.notes[at] = Note::Fetched;
            self.awaited.retain(|awaited| *awaited != (header.round, header.chunk));
            self.peers[carrier as usize].surplus += 1;
        }
    }

    /// A round was collected: nothing of it is awaited any more.
    pub(super) fn forget(&mut self, round: u64) {
        for chunk in 0..self.plan.layout.chunks() as u32 {
            let at = self.note(round, chunk);
            if let Note::Awaited { carrier, .. } = self.notes[at] {
                self.peers[carrier as usize].surplus += 1;
                self.words.push_back(Said::Have { round, chunk });
            }
            self.notes[at] = Note::None;
        }
        self.awaited.retain(|(awaited, _)| *awaited != round);
        // Of a round that ended without an update.
        self.carries.retain(|carry| carry.0 != round);
    }

    /// The payload of a chunk that is to be passed on, while it has not been.
    pub(super) fn carried(&self, header: &Header) -> Option<&[u8]> {
        let slot = self.carried.as_ref().filter(|_| header.kind == Kind::Update && self.is_to_carry(header))?;
        Some(&slot[HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize])
    }

    fn is_to_carry(&self, header: &Header) -> bool {
        self.carries.iter().any(|(round, chunk, _)| (*round, *chunk) == (header.round, header.chunk))
    }

    /// It is not passed on: there is no room, or it is not here any more.
    fn decline(&mut self, header: &Header) {
        let Header { round, chunk, .. } = *header;
        self.carries.retain(|carry| (carry.0, carry.1) != (round, chunk));
        self.words.push_back(Said::Decline { round, chunk });
    }

    /// Takes a slot for a chunk that is to be passed on; `false` if there is none.
    fn take_slot(&mut self) -> bool {
        while self.carried.is_none() {
            self.carried = self.slab.take(0);
            if self.carried.is_none() && !self.make_room() {
                return false;
            }
        }
        true
    }

    /// Passes on a chunk that stands in its place, if that is to be done: one that the daemon has written there.
    pub(super) fn pass_on_from(&mut self, header: &Header, landed: &Landed) {
        if !self.is_to_carry(header) {
            return;
        }
        let Some(payload) = landed.payload(header).filter(|_| self.take_slot()) else { return self.decline(header) };
        if let Some(slot) = &mut self.carried {
            slot[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        }
        self.pass_on(header);
    }

    /// Passes on the chunk that has landed, and was right.
    pub(super) fn pass_on(&mut self, header: &Header) {
        let of = |carry: &(u64, u32, u128)| (carry.0, carry.1) == (header.round, header.chunk);
        let Some(at) = self.carries.iter().position(of) else { return };
        let (_, _, targets) = self.carries.swap_remove(at);
        let Some(mut slot) = self.carried.take() else { return };
        let len = HEADER_BYTES + header.payload_bytes as usize;
        slot[..HEADER_BYTES].copy_from_slice(&header.write());
        let slot = slot.freeze();
        if planted(Bug::KeepCarried) {
            std::mem::forget(slot.clone());
        }
        for peer in 0..self.peers.len() as u32 {
            if targets >> peer & 1 == 0 && !planted(Bug::PassToAll) {
                continue;
            }
            match self.tamper.take() {
                None => self.send(peer, Outgoing::Shared(slot.clone(), len)),
                Some(mut tamper) => {
                    self.lie(peer, header, &slot, len, &mut tamper);
                    self.tamper = Some(tamper);
                }
            }
        }
    }

    /// A liar may allocate.
    fn lie(&mut self, peer: u32, header: &Header, slot: &SharedSlot, len: usize, tamper: &mut Carry) {
        let mut frame = slot[..len].to_vec();
        for _ in 0..tamper(header, peer, &mut frame) {
            let Some(mut copy) = Slab::new(1, 1, len, Vec::new()).take(0) else { return };
            copy[..len].copy_from_slice(&frame);
            self.send(peer, Outgoing::Owned(copy, len));
        }
    }

    fn send(&mut self, peer: u32, frame: Outgoing) {
        let Some(link) = &mut self.peers[peer as usize].link else { return };
        if link.outbound.send(frame).is_err() {
            // As many chunks as can be under way wait for this one peer.
            self.end_link(peer);
        }
    }

    /// Gives up the link that takes least, so that its chunks are free; `false` if every link has taken all.
    fn make_room(&mut self) -> bool {
        let queued = |peer: &Peer| peer.link.as_ref().map_or(0, |link| link.outbound.queued());
        let slowest = (0..self.peers.len()).max_by_key(|peer| queued(&self.peers[*peer]));
        let slowest = slowest.filter(|slowest| queued(&self.peers[*slowest]) > 0);
        slowest.iter().for_each(|slowest| self.end_link(*slowest as u32));
        slowest.is_some()
    }

    /// A link that was ordered is there.
    pub(super) fn link(&mut self, peer: u32, connection: Connection) {
        let Connection { inbound, outbound } = connection;
        self.drop_link(peer);
        let other = &mut self.peers[peer as usize];
        (other.surplus, other.last) = (0, None);
        other.link = Some(Link { inbound, outbound, readable: true, writable: true, deaf: false, stalled: None });
        self.words.push_back(Said::Linked { peer, session: other.session, up: true });
    }

    /// A link that was ordered could not be made.
    pub(super) fn no_link(&mut self, peer: u32) {
        let session = self.peers[peer as usize].session;
        self.words.push_back(Said::Linked { peer, session, up: false });
    }

    /// Ends a link without a word, and has the daemon send what was awaited over it.
    fn drop_link(&mut self, peer: u32) {
        let Some(mut link) = self.peers[peer as usize].link.take() else { return };
        link.inbound.close();
        link.outbound.close();
        self.doubt(peer);
        self.peers[peer as usize].surplus = 0;
    }

    /// Has the daemon send what is awaited over a link, which stays: what this worker passes on need not come from the daemon.
    fn doubt(&mut self, peer: u32) {
        while let Some((round, chunk)) = self.awaited_from(peer).filter(|_| !planted(Bug::NoneGone)) {
            self.fetch(round, chunk, Why::Gone);
        }
    }

    fn end_link(&mut self, peer: u32) {
        if self.peers[peer as usize].link.is_some() {
            self.drop_link(peer);
            self.no_link(peer);
        }
    }

    fn awaited_from(&self, peer: u32) -> Option<(u64, u32)> {
        let of = |note: Note| matches!(note, Note::Awaited { carrier, .. } if carrier == peer);
        self.awaited.iter().copied().find(|(round, chunk)| of(self.notes[self.note(*round, *chunk)]))
    }

    /// Asks the daemon for a chunk that is awaited.
    fn fetch(&mut self, round: u64, chunk: u32, why: Why) {
        let at = self.note(round, chunk);
        if let Note::Awaited { carrier, .. } = std::mem::replace(&mut self.notes[at], Note::Fetched) {
            self.awaited.retain(|awaited| *awaited != (round, chunk));
            self.peers[carrier as usize].surplus += 1;
            self.words.push_back(Said::Fetch { round, chunk, why });
        }
    }

    /// The link with `peer` may have something, or take something.
    pub(super) fn ready(&mut self, peer: usize) {
        if let Some(link) = self.peers.get_mut(peer).and_then(|peer| peer.link.as_mut()) {
            (link.readable, link.writable) = (true, true);
        }
    }

    /// Is there a link with `peer`?
    pub(super) fn is_linked(&self, peer: u32) -> bool {
        self.peers.get(peer as usize).is_some_and(|peer| peer.link.is_some())
    }

    /// Receives and sends over all links what can be, and fetches what is late; `true` if anything moved.
    pub(super) fn drive(&mut self, landed: &mut Landed, direct: &mut Option<&mut [f32]>, now: Instant) -> bool {
        let mut moved = false;
        for peer in 0..self.peers.len() as u32 {
            moved |= self.receive(peer, landed, direct, now);
            moved |= self.flush(peer, now);
        }
        moved | self.repair(now)
    }

    fn receive(&mut self, peer: u32, landed: &mut Landed, direct: &mut Option<&mut [f32]>, now: Instant) -> bool {
        for taken in 0..FRAMES_PER_TURN {
            let Relay { peers, notes, scrap, lateness, .. } = self;
            let Peer { link, surplus, last, .. } = &mut peers[peer as usize];
            let readable = |link: &&mut Link| !link.deaf && (link.readable || link.inbound.descriptor().is_none());
            let Some(link) = link.as_mut().filter(readable) else { return taken > 0 };
            let place = landed.place_in(direct.as_deref_mut());
            let (from, surplus) = (peer, *surplus);
            let (waits, asked, moved, since) = (false, false, false, None);
            let mut across = Across { place, notes, scrap, from, surplus, waits, since, asked, moved };
            let came = link.inbound.receive(&mut across, now);
            let (moved, since) = (across.moved || matches!(came, Ok(Some(_))), across.since);
            if let Some(since) = since.filter(|_| moved) {
                let since = last.map_or(since, |last| last.max(since));
                lateness.heard(peer, now.saturating_duration_since(since));
            }
            match came {
                Ok(None) => {
                    if moved {
                        *last = Some(now);
                    }
                    // A frame that waits is not announced again.
                    link.readable = across.waits;
                    return taken > 0;
                }
                Ok(Some(header)) if header.payload_bytes > 0 => self.arrived(peer, &header, landed, direct, now),
                // No frame without payload belongs here.
                Ok(Some(_)) | Err(Disconnect::Violation(_)) => {
                    link.deaf = true;
                    self.doubt(peer);
                    return true;
                }
                Err(_) => {
                    self.end_link(peer);
                    return true;
                }
            }
        }
        true
    }

    /// A chunk has landed: looks whether it is the one that was announced.
    fn arrived(
        &mut self,
        peer: u32,
        header: &Header,
        landed: &mut Landed,
        direct: &mut Option<&mut [f32]>,
        now: Instant,
    ) {
        let other = &mut self.peers[peer as usize];
        other.last = Some(now);
        let mut place = landed.place_in(direct.as_deref_mut());
        match judge(&mut place, &self.notes, header, peer, other.surplus) {
            Ok(Verdict::Awaited { .. }) => {}
            Ok(Verdict::Surplus) if planted(Bug::EndlessSurplus) => return,
            Ok(Verdict::Surplus) => return other.surplus -= 1,
            Ok(Verdict::Wait) | Err(_) => return self.end_link(peer),
        }
        let at = self.note(header.round, header.chunk);
        let Note::Awaited { hash, .. } = self.notes[at] else { return };
        self.lateness.brought(peer);
        let payload = place.place(header).ok().flatten();
        let right = payload.is_some_and(|payload| blake3::keyed_hash(&self.key, payload) == hash);
        let right = right || planted(Bug::SkipHash);
        if right && landed.take_in(header, direct.as_deref_mut()).is_ok() {
            self.notes[at] = Note::None;
            self.awaited.retain(|awaited| *awaited != (header.round, header.chunk));
            if !planted(Bug::HaveNothing) {
                self.words.push_back(Said::Have { round: header.round, chunk: header.chunk });
            }
        } else {
            self.fetch(header.round, header.chunk, Why::Wrong);
            self.doubt(peer);
        }
    }

    fn flush(&mut self, peer: u32, now: Instant) -> bool {
        let Some(link) = &mut self.peers[peer as usize].link else { return false };
        if link.outbound.queued() == 0 {
            link.stalled = None;
            return false;
        }
        let over = link.stalled.is_some_and(|since| now.saturating_duration_since(since) >= LINK_PATIENCE);
        // Without a descriptor nothing says that it takes something again.
        if !link.writable && !over && link.outbound.descriptor().is_some() {
            return false;
        }
        match link.outbound.flush(now) {
            Ok(flushed) => {
                link.writable = flushed.empty;
                if flushed.empty {
                    link.stalled = None;
                } else if flushed.bytes > 0 || link.stalled.is_none() {
                    link.stalled = Some(now);
                } else if over {
                    self.end_link(peer);
                }
                flushed.bytes > 0
            }
            Err(_) => {
                self.end_link(peer);
                true
            }
        }
    }

    /// Fetches what is late: of which nothing came for too long, neither it nor another chunk of its carrier.
    fn repair(&mut self, now: Instant) -> bool {
        let due = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= self.repair / LOOKS);
        if self.awaited.is_empty() || !due || planted(Bug::NoRepair) {
            return false;
        }
        self.looked = Some(now);
        let limit = self.lateness.limit(self.me);
        let longest = self.longest.max(REPAIRS_AT_MOST * limit);
        let before = self.words.len();
        for at in (0..self.awaited.len()).rev() {
            let (round, chunk) = self.awaited[at];
            let Note::Awaited { carrier, since, .. } = self.notes[self.note(round, chunk)] else { continue };
            let alive = self.peers[carrier as usize].last.map_or(since, |last| last.max(since));
            let (silent, waited) = (now.saturating_duration_since(alive), now.saturating_duration_since(since));
            if silent >= limit || waited >= longest {
                self.fetch(round, chunk, Why::Late);
            }
        }
        self.words.len() > before
    }

    /// When something may be late, or a link may have taken nothing for too long.
    pub(super) fn timer(&self) -> Option<Instant> {
        let late = self.looked.filter(|_| !self.awaited.is_empty()).map(|looked| looked + self.repair / LOOKS);
        let stalled = self.peers.iter().filter_map(|peer| Some(peer.link.as_ref()?.stalled? + LINK_PATIENCE));
        stalled.chain(late).min()
    }
}
