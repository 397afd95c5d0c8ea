//! Who carries which chunk of an update, who waits for it, and whom nobody believes any more: the daemon's side of the relay, without
//! sockets or clocks.
//!
//! A chunk has a *carrier* and *targets*: workers that have a link with it. Its slot stays until every target has said that the chunk is
//! here, or was sent it by the daemon. A complaint switches the pair off for a number of rounds that doubles; a carrier of whom more
//! workers complain at once than can be liars is *bad*.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Relay;
use super::sabotage::{Bug, planted};
use crate::memory::SharedSlot;
use crate::wire::{Kind, LinkOrder, Violation, Why};

/// Rounds for which a pair is off after the first complaint; doubled with each further one.
const ROUNDS_OFF: u64 = 4;
/// Rounds for which a carrier is off that was too late for too many.
const ROUNDS_BAD: u64 = 64;
/// The most doublings of either.
const DOUBLINGS: u32 = 12;
/// Chunks by which it is known how long one usually takes.
const KEPT: usize = 9;

/// Workers as bits: there are at most [`RELAY_WORKERS_MAX`](crate::wire::RELAY_WORKERS_MAX).
pub(super) type Set = u128;

pub(super) fn bit(worker: usize) -> Set {
    1 << worker
}

/// The workers in a set.
pub(super) fn each(mut set: Set) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let worker = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (worker < Set::BITS as usize).then_some(worker)
    })
}

/// A chunk on its way through a carrier.
struct Entry {
    round: u64,
    chunk: u32,
    /// `None`: its session has ended.
    carrier: Option<usize>,
    waiting: Set,
    /// How many it was announced to; and those of them that have answered.
    targets: u32,
    answered: u32,
    slot: SharedSlot,
    len: usize,
    since: Instant,
}

/// A worker's part.
#[derive(Clone, Copy, Default)]
struct Member {
    /// Its session, if it has one that was told of the relay.
    session: Option<u64>,
    /// Where others reach it.
    reach: Option<(IpAddr, u16)>,
    /// The workers with which it says to have a live link; and those of them that say so, too.
    linked: Set,
    mutual: Set,
    /// The workers that complained of it, until their time is over; and those of them that got something wrong.
    complained: Set,
    wrong: Set,
    /// The workers that did not answer for something that it carried, until their time is over: either may be at fault.
    doubted: Set,
    /// The carriers of what it did not answer for, since it last had something.
    unanswered: Set,
    /// The workers whose link with it is to be ordered anew when their time is over.
    apart: Set,
    /// Chunks that it carries now.
    load: u32,
    /// Chunks that the daemon sent it of itself while it may have said that they are here.
    spare: u32,
}

/// Until which round something is off, and how often it was.
#[derive(Clone, Copy, Default)]
struct Pair {
    until: u64,
    times: u32,
}

impl Pair {
    /// Off for a while: twice as long each time, unless it was well for longer than it would be off.
    fn rest(&mut self, round: u64) {
        if round > self.until.saturating_add(ROUNDS_OFF << self.times.min(DOUBLINGS)) {
            self.times = 0;
        }
        self.off(round, ROUNDS_OFF);
    }

    /// Off for so many rounds the first time, and twice as long each time.
    fn off(&mut self, round: u64, rounds: u64) {
        self.until = round.saturating_add(rounds << self.times.min(DOUBLINGS));
        self.times = self.times.saturating_add(1);
    }
}

/// A carrier that is not asked any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) carrier: usize,
    /// Chunks were wrong, rather than late.
    pub(super) wrong: bool,
}

/// What a fetch leads to.
pub(super) struct Fetched {
    pub(super) slot: SharedSlot,
    pub(super) len: usize,
    pub(super) bad: Option<Bad>,
}

/// The daemon's side of the relay.
pub(super) struct Relays {
    pub(super) relay: Relay,
    /// Keys of the chunks' hashes and of the links' keys.
    pub(super) hash_key: [u8; 32],
    link_key: [u8; 32],
    links: u64,
    /// Chunks that one carrier may have under way.
    pub(super) carried: u32,
    /// More complaints than this cannot all be lies.
    liars: u32,
    members: Vec<Member>,
    pairs: Vec<Pair>,
    /// Until when each worker is not asked to carry, because of too many complaints: kept when it joins again.
    bad: Vec<Pair>,
    /// Workers that answer for nothing, and are sent everything: for how long each, and who is now.
    silences: Vec<Pair>,
    silent: Set,
    entries: Vec<Entry>,
    /// How long it took half of those that a chunk was announced to to answer, of the last few chunks.
    halves: VecDeque<Duration>,
    next: usize,
}

/// The key of a job's chunk hashes.
pub(super) fn hash_key(secret: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("solon relay chunk hashes, version 1", secret)
}

impl Relays {
    pub(super) fn new(
        relay: Relay,
        secret: &[u8; 32],
        workers: usize,
        liars: usize,
        updates: usize,
        carried: usize,
    ) -> Relays {
        Relays {
            relay,
            hash_key: hash_key(secret),
            link_key: blake3::derive_key("solon relay links, version 1", secret),
            links: 0,
            carried: carried as u32,
            liars: liars as u32,
            members: vec![Member::default(); workers],
            pairs: vec![Pair::default(); workers * workers],
            bad: vec![Pair::default(); workers],
            silences: vec![Pair::default(); workers],
            silent: 0,
            entries: Vec::with_capacity(updates),
            halves: VecDeque::with_capacity(KEPT),
            next: 0,
        }
    }

    /// A new session was told of the relay. Whoever passed on what was wrong is not asked for a while, longer each time: it may have been
    /// repaired.
    pub(super) fn joined(&mut self, worker: usize, session: u64, round: u64) {
        self.left(worker);
        self.members[worker].session = Some(session);
        let bad = &mut self.bad[worker];
        if bad.until == u64::MAX {
            bad.off(round, ROUNDS_BAD);
        }
    }

    /// A session has ended: nobody waits for it.
    pub(super) fn left(&mut self, worker: usize) {
        self.members[worker] = Member::default();
        self.silences[worker] = Pair::default();
        self.silent &= !bit(worker);
        let workers = self.members.len();
        for other in 0..workers {
            let member = &mut self.members[other];
            let Member { linked, mutual, complained, wrong, doubted, unanswered, apart, .. } = member;
            for set in [linked, mutual, complained, wrong, doubted, unanswered, apart] {
                *set &= !bit(worker);
            }
            self.pairs[worker * workers + other] = Pair::default();
            self.pairs[other * workers + worker] = Pair::default();
        }
        for at in (0..self.entries.len()).rev() {
            if self.entries[at].carrier == Some(worker) && !planted(Bug::ForgetCarrier) {
                self.entries[at].carrier = None;
            }
            if !planted(Bug::HoldForLeavers) {
                self.settle(at, worker);
            }
        }
    }

    /// One target waits no more for an entry; drops the entry if it was the last.
    fn settle(&mut self, at: usize, worker: usize) {
        self.entries[at].waiting &= !bit(worker);
        if self.entries[at].waiting == 0 || planted(Bug::FirstHave) {
            let entry = self.entries.swap_remove(at);
            if let Some(carrier) = entry.carrier {
                self.members[carrier].load -= 1;
            }
        }
    }

    /// How many workers may lie.
    pub(super) fn liars(&self) -> usize {
        self.liars as usize
    }

    /// How many workers were told of the relay.
    pub(super) fn members(&self) -> usize {
        self.members.iter().filter(|member| member.session.is_some()).count()
    }

    /// Workers that were told of the relay.
    pub(super) fn is_member(&self, worker: usize) -> bool {
        self.members[worker].session.is_some()
    }

    /// A worker says where it is reached: the orders for it and for all others that are. Once per session: each time costs everybody a link.
    ///
    /// # Errors
    /// If it has said so before.
    pub(super) fn reach(
        &mut self,
        worker: usize,
        address: IpAddr,
        port: u16,
        mut order: impl FnMut(usize, LinkOrder),
    ) -> Result<(), Violation> {
        if self.members[worker].reach.replace((address, port)).is_some() {
            return Err(Violation::Kind(Kind::Reach));
        }
        for other in 0..self.members.len() {
            if other != worker {
                self.order(worker, other, &mut order);
            }
        }
        Ok(())
    }

    /// Orders a link between two workers, under a key that was never used.
    fn order(&mut self, one: usize, other: usize, order: &mut impl FnMut(usize, LinkOrder)) {
        let ends = [one, other];
        let [Some(_), Some(_)] = ends.map(|end| self.members[end].reach) else { return };
        self.links += u64::from(!planted(Bug::SameLinkKey));
        // What they had ends with the order, without a word.
        self.set_linked(one, other, false);
        self.set_linked(other, one, false);
        let [a, b] = ends.map(|end| self.members[end].session.unwrap_or(0));
        let parts = [self.links, one as u64, a, other as u64, b].map(u64::to_le_bytes);
        let key = *blake3::keyed_hash(&self.link_key, parts.as_flattened()).as_bytes();
        for (to, peer) in [(one, other), (other, one)] {
            let Member { session, reach: Some((address, port)), .. } = self.members[peer] else { return };
            order(to, LinkOrder { peer: peer as u32, key, address, port, session: session.unwrap_or(0) });
        }
    }

    /// A worker says that it has, or has not, a link with another one; `true` if that could not be made.
    /// That there is none accuses nobody: the other end may have left.
    pub(super) fn linked(&mut self, worker: usize, peer: usize, session: u64, up: bool, round: u64) -> bool {
        if self.members[peer].session != Some(session) {
            // Of a session that is over.
            return false;
        }
        let was = self.set_linked(worker, peer, up);
        if up {
            // What was said of the one before it is over.
            if self.members[worker].mutual & bit(peer) != 0 {
                self.members[worker].apart &= !bit(peer);
                self.members[peer].apart &= !bit(worker);
            }
            return false;
        }
        let told = self.members[peer].apart & bit(worker) != 0;
        self.members[peer].apart |= bit(worker);
        self.rest(worker, peer, round);
        !was && !told
    }

    /// Those that say that they have a link with a worker, whatever that says.
    fn linked_with(&self, worker: usize) -> Set {
        let says = |other: &usize| self.members[*other].linked & bit(worker) != 0;
        (0..self.members.len()).filter(says).fold(0, |set, other| set | bit(other))
    }

    /// Notes what `worker` says of its link with `peer`; what it said before.
    fn set_linked(&mut self, worker: usize, peer: usize, up: bool) -> bool {
        let was = self.members[worker].linked & bit(peer) != 0;
        let both = up && self.members[peer].linked & bit(worker) != 0;
        let set = |set: &mut Set, of: usize, is: bool| *set = *set & !bit(of) | if is { bit(of) } else { 0 };
        set(&mut self.members[worker].linked, peer, up);
        set(&mut self.members[worker].mutual, peer, both);
        set(&mut self.members[peer].mutual, worker, both);
        was
    }

    fn rest(&mut self, worker: usize, carrier: usize, round: u64) {
        let workers = self.members.len();
        self.pairs[carrier * workers + worker].rest(round);
    }

    fn complain(&mut self, worker: usize, carrier: usize, wrong: bool, round: u64) -> Option<Bad> {
        if self.members[carrier].complained & bit(worker) == 0 {
            self.rest(worker, carrier, round);
        }
        let liars = if planted(Bug::BlameOne) { 0 } else { self.liars };
        let (member, bad) = (&mut self.members[carrier], &mut self.bad[carrier]);
        member.complained |= bit(worker);
        if wrong {
            member.wrong |= bit(worker);
        }
        let for_ever = member.wrong.count_ones() > liars;
        let off = bad.until > round;
        // That something is late can be the network's fault: it takes more than for what is wrong.
        let enough = for_ever || member.complained.count_ones() > 2 * liars;
        if !enough || planted(Bug::NameNobody) || off && (bad.until == u64::MAX || !for_ever) {
            return None;
        }
        // Until it joins again, at least.
        match for_ever {
            true => bad.until = u64::MAX,
            false => bad.off(round, ROUNDS_BAD),
        }
        Some(Bad { carrier, wrong: for_ever })
    }

    /// The next carrier for a chunk that `takers` get, and those to whom it can pass it on.
    pub(super) fn choose(&mut self, round: u64, takers: Set) -> Option<(usize, Set)> {
        let workers = self.members.len();
        let takers = takers & !self.silent;
        let targets = |carrier: usize| {
            let Member { mutual, complained, doubted, load, .. } = self.members[carrier];
            let mut complained = complained | doubted;
            if planted(Bug::AskAtOnce) {
                complained = 0;
            }
            let linked = if planted(Bug::AskUnlinked) { self.linked_with(carrier) } else { mutual };
            let bad = self.bad[carrier].until > round && !planted(Bug::AskBad);
            let asked = takers & bit(carrier) != 0 && !bad && load < self.carried;
            if asked { linked & takers & !complained } else { 0 }
        };
        // Not whoever has just come and has few links: the rest would all be served by the daemon.
        let most = (0..workers).map(|carrier| targets(carrier).count_ones()).max().filter(|most| *most > 0)?;
        let carrier = (0..workers)
            .map(|at| (self.next + at) % workers)
            .find(|carrier| 2 * targets(*carrier).count_ones() >= most)?;
        let targets = targets(carrier);
        self.next = (carrier + 1) % workers;
        Some((carrier, targets))
    }

    /// Keeps a chunk that `carrier` passes on to `targets`.
    pub(super) fn hold(
        &mut self,
        (round, chunk): (u64, u32),
        (carrier, targets): (usize, Set),
        (slot, len): (SharedSlot, usize),
        since: Instant,
    ) {
        self.members[carrier].load += 1;
        let (carrier, count) = (Some(carrier), targets.count_ones());
        self.entries.push(Entry {
            round,
            chunk,
            carrier,
            waiting: targets,
            targets: count,
            answered: 0,
            slot,
            len,
            since,
        });
    }

    /// Where a chunk is that `worker` waits for.
    fn find(&self, worker: usize, round: u64, chunk: u32) -> Option<usize> {
        // As many entries as there are slots for updates, at most.
        let at = self.entries.iter().position(|entry| (entry.round, entry.chunk) == (round, chunk))?;
        (self.entries[at].waiting & bit(worker) != 0).then_some(at)
    }

    /// A word about a chunk that nobody waits for: allowed only where the daemon has sent it meanwhile.
    fn stray<T>(&mut self, worker: usize, round: u64) -> Result<Option<T>, Violation> {
        let spare = &mut self.members[worker].spare;
        if planted(Bug::AnyAnswer) {
            return Ok(None);
        }
        *spare = spare.checked_sub(1).ok_or(Violation::Round { found: round, first: 0, end: 0 })?;
        Ok(None)
    }

    /// A chunk is here; its bytes, if a carrier brought it.
    ///
    /// # Errors
    /// If it was not announced to this worker, or said before.
    pub(super) fn have(
        &mut self,
        worker: usize,
        round: u64,
        chunk: u32,
        now: Instant,
    ) -> Result<Option<usize>, Violation> {
        let Some(at) = self.find(worker, round, chunk) else { return self.stray(worker, round) };
        self.members[worker].unanswered = 0;
        let Entry { len, targets, ref mut answered, since, .. } = self.entries[at];
        *answered += 1;
        if *answered == targets.div_ceil(2) {
            self.halves.truncate(KEPT - 1);
            self.halves.push_front(now.saturating_duration_since(since));
        }
        self.settle(at, worker);
        Ok(Some(len))
    }

    /// A chunk is to be sent by the daemon.
    ///
    /// # Errors
    /// As [`Relays::have`].
    pub(super) fn fetch(
        &mut self,
        worker: usize,
        round: u64,
        chunk: u32,
        why: Why,
        now_round: u64,
    ) -> Result<Option<Fetched>, Violation> {
        let Some(at) = self.find(worker, round, chunk) else { return self.stray(worker, round) };
        let Entry { ref slot, len, carrier, .. } = self.entries[at];
        let slot = slot.clone();
        self.settle(at, worker);
        let accused = carrier.filter(|_| why != Why::Gone || planted(Bug::BlameGone));
        let bad = accused.and_then(|carrier| self.complain(worker, carrier, why == Why::Wrong, now_round));
        Ok(Some(Fetched { slot, len, bad }))
    }

    /// Ends the wait for chunks that are older than `limit`: gives each with a worker that still waits for it. That worker is sent
    /// everything for a while, or it would hold up every chunk anew, if there are more such carriers than can be liars; until then only the
    /// pair is off, as one that brings half a chunk makes others look silent. But if most wait it is the carrier's doing, and that one is not asked
    /// for a while: liars alone are not most.
    pub(super) fn give_up(
        &mut self,
        now: Instant,
        limit: Duration,
        round: u64,
        mut send: impl FnMut(usize, SharedSlot, usize),
    ) {
        for at in (0..self.entries.len()).rev() {
            if now.saturating_duration_since(self.entries[at].since) < limit || planted(Bug::NeverGiveUp) {
                continue;
            }
            let Entry { waiting, targets, carrier, .. } = self.entries[at];
            let few = waiting.count_ones() <= self.liars || 2 * waiting.count_ones() < targets;
            if let Some(bad) = carrier.map(|carrier| &mut self.bad[carrier]).filter(|bad| !few && bad.until <= round) {
                bad.rest(round);
            }
            for worker in each(waiting & !self.silent).filter(|_| few) {
                let Some(carrier) = carrier else { continue };
                self.members[worker].unanswered |= bit(carrier);
                if self.members[worker].unanswered.count_ones() > self.liars {
                    self.members[worker].unanswered = 0;
                    self.silences[worker].rest(round);
                    self.silent |= if planted(Bug::AskSilent) { 0 } else { bit(worker) };
                } else {
                    self.members[carrier].doubted |= bit(worker);
                    self.rest(worker, carrier, round);
                }
            }
            self.serve(at, &mut send);
        }
    }

    /// How long most need until a chunk is there: fewer than half cannot make it longer or shorter. `None` before anything was.
    pub(super) fn usual(&self) -> Option<Duration> {
        let mut halves = [Duration::ZERO; KEPT];
        let count = self.halves.len();
        halves.iter_mut().zip(&self.halves).for_each(|(to, half)| *to = *half);
        halves[..count].sort_unstable();
        halves[..count].get(count / 2).copied()
    }

    /// Do only few wait for chunks that are older than `limit`? If most do it is the network, and nobody's fault.
    pub(super) fn few_wait(&self, now: Instant, limit: Duration) -> bool {
        let old = self.entries.iter().filter(|entry| now.saturating_duration_since(entry.since) >= limit);
        let waiting = old.fold(0, |set, entry| set | entry.waiting) & !self.silent;
        let members = self.members.iter().filter(|member| member.session.is_some()).count();
        2 * (waiting.count_ones() as usize) < members
    }

    /// Does somebody wait for a chunk of a round that may have to be collected before `round` has a place?
    pub(super) fn is_overtaken(&self, round: u64, window: u64) -> bool {
        self.entries.iter().any(|entry| entry.round + window <= round) && !planted(Bug::NoOvertake)
    }

    /// Ends the wait for all such chunks.
    pub(super) fn overtake(&mut self, round: u64, window: u64, mut send: impl FnMut(usize, SharedSlot, usize)) {
        for at in (0..self.entries.len()).rev() {
            if self.entries[at].round + window <= round {
                self.serve(at, &mut send);
            }
        }
    }

    /// A carrier has no room for a chunk: gives it with each worker that waits for it. Nobody is to blame: its room may be taken by those
    /// who do not read.
    pub(super) fn decline(
        &mut self,
        carrier: usize,
        round: u64,
        chunk: u32,
        send: impl FnMut(usize, SharedSlot, usize),
    ) {
        let at = self.entries.iter().position(|entry| (entry.round, entry.chunk) == (round, chunk));
        if let Some(at) = at.filter(|at| self.entries[*at].carrier == Some(carrier) && !planted(Bug::DeclineUnheard)) {
            self.serve(at, send);
        }
    }

    /// Ends the wait for an entry.
    fn serve(&mut self, at: usize, mut send: impl FnMut(usize, SharedSlot, usize)) {
        let Entry { waiting, len, ref slot, .. } = self.entries[at];
        let slot = slot.clone();
        for worker in each(waiting) {
            self.members[worker].spare += 1;
            self.settle(at, worker);
            send(worker, slot.clone(), len);
        }
    }

    /// When the oldest wait began.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.entries.iter().map(|entry| entry.since).min()
    }

    /// A round has ended: pairs whose time is over are asked again, and linked again if they are apart.
    pub(super) fn closed(&mut self, round: u64, mut order: impl FnMut(usize, LinkOrder)) {
        let workers = self.members.len();
        for worker in each(self.silent) {
            if self.silences[worker].until <= round {
                self.silent &= !bit(worker);
            }
        }
        for carrier in 0..workers {
            let Member { complained, doubted, apart, .. } = self.members[carrier];
            for worker in each(complained | doubted | apart) {
                if self.pairs[carrier * workers + worker].until > round {
                    continue;
                }
                let member = &mut self.members[carrier];
                for set in [&mut member.complained, &mut member.wrong, &mut member.doubted, &mut member.apart] {
                    *set &= !bit(worker);
                }
                if apart & bit(worker) != 0 {
                    self.members[worker].apart &= !bit(carrier);
                    self.order(carrier, worker, &mut order);
                }
            }
        }
    }

    /// Chunks that somebody waits for.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests;
