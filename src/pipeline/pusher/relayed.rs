//! Sending a chunk once: to its carrier, with its hash to all others; and what workers say about it.

use std::net::IpAddr;

use super::super::relay::{Bad, Set, bit, each};
use super::super::way::Change;
use super::super::{Heard, ToPusher, Unrelayed};
use super::*;
use crate::wire::{Said, Short, Why};

/// Whoever needs so many times as long for a chunk as most do answers for it no more.
const USUALLY: u32 = 4;
/// Words heard in one step.
const WORDS_PER_STEP: usize = 256;

impl Pusher {
    /// Tells a worker that is ready, and that can be one of them, how updates are relayed.
    pub(super) fn invite(&mut self, index: usize) {
        let (Some(relays), Some(peer)) = (&mut self.relays, &mut self.peers[index]) else { return };
        let unfit = match peer.outbound.far() {
            None => Some(Unrelayed::NoAddress),
            Some(address) if address.is_loopback() && relays.relay.auto => Some(Unrelayed::Local),
            Some(_) if peer.outbound.writes() && relays.relay.auto => Some(Unrelayed::Rdma),
            Some(_) => None,
        };
        if let Some(why) = unfit {
            self.tell(Event::Unrelayed { worker: index as u32, why });
            return;
        }
        let header = Header {
            job: self.job.number,
            session: self.job.epoch,
            chunk: relays.carried,
            argument: relays.relay.repair.as_millis() as u64,
            ..Header::new(Kind::Relay)
        };
        if peer.outbound.send(Outgoing::Short(Short::new(header, &relays.hash_key))).is_ok() {
            relays.joined(index, peer.session, self.first);
            self.board.set_relays(relays.members());
        }
    }

    /// Queues a chunk for everybody who gets `round`: by a carrier, where there is one.
    pub(super) fn send_chunk(&mut self, message: ToPusher, context: &Context<'_>) {
        let ToPusher::Update { round, chunk, hash, slot, len, .. } = message else { return };
        let slot = slot.freeze();
        self.overtake(round, context);
        let takers = self.peers.iter().enumerate().filter(|(_, peer)| peer.as_ref().is_some_and(|it| it.from <= round));
        let count = takers.clone().count();
        let mut carried = None;
        if let (Some(relays), Some(_)) = (&mut self.relays, hash) {
            let takers = takers.filter(|(at, _)| relays.is_member(*at)).fold(0, |set: Set, (at, _)| set | bit(at));
            let relayed = self.ways.as_mut().is_none_or(|ways| ways.relays(round));
            carried = if relayed { relays.choose(round, takers) } else { None };
            if let Some(carried) = carried {
                relays.hold((round, chunk), carried, (slot.clone(), len), context.now);
            }
        }
        let (Some((carrier, targets)), Some(hash)) = (carried, hash) else {
            self.board.count(Counter::UpdateBytesSent, (count * len) as u64);
            self.broadcast(round, &slot, len, context);
            return;
        };
        let (job, session) = (self.job.number, self.job.epoch);
        let carry = Header { job, session, round, chunk, ..Header::new(Kind::Carry) };
        let carry = Short::new(carry, &targets.to_le_bytes());
        let announce = Header { job, session, round, chunk, worker: carrier as u32, ..Header::new(Kind::Announce) };
        let announce = Short::new(announce, &hash);
        let (mut told, mut sent) = (0, 0);
        for index in 0..self.peers.len() {
            let Some(peer) = &mut self.peers[index] else { continue };
            if peer.from > round {
                continue;
            }
            let mut send = |frame| peer.outbound.send(frame).is_ok();
            let mut queued = true;
            if index == carrier {
                queued = send(Outgoing::Short(carry));
                told += carry.bytes().len();
            }
            if targets & bit(index) != 0 {
                queued &= send(Outgoing::Short(announce));
                told += announce.bytes().len();
            } else {
                queued &= send(Outgoing::Shared(slot.clone(), len));
                sent += len;
            }
            if !queued {
                self.not_reading(index, context);
            }
        }
        self.board.count(Counter::AnnounceBytes, told as u64);
        self.board.count(Counter::UpdateBytesSent, sent as u64);
    }

    /// Hears what workers say about links and chunks.
    pub(super) fn listen(&mut self, context: &Context<'_>) -> bool {
        for heard in 0..WORDS_PER_STEP {
            let Some(Heard { worker, session, said }) = self.heard.pop() else { return heard > 0 };
            let index = worker as usize;
            self.board.hear(index);
            if self.peers[index].as_ref().is_none_or(|peer| peer.session != session) {
                continue;
            }
            if let Err(violation) = self.take_word(index, said, context) {
                self.board.violated(&violation);
                self.end(index, context);
            }
        }
        true
    }

    /// Nobody waits for a worker whose session the receiver has ended: there may be nothing to send to it, by which its end would show.
    pub(super) fn part(&mut self, context: &Context<'_>) {
        let membership = self.board.membership();
        if std::mem::replace(&mut self.membership, membership) == membership {
            return;
        }
        for index in 0..self.peers.len() {
            let place = self.job.plan.parameters.place(index);
            let gone = !self.board.connected(place.group).contains(place.row);
            if gone && self.relays.as_ref().is_some_and(|relays| relays.is_member(index)) {
                self.end(index, context);
            }
        }
    }

    fn take_word(&mut self, index: usize, said: Said, context: &Context<'_>) -> Result<(), Violation> {
        let (first, workers) = (self.first, self.peers.len());
        let Some(relays) = &mut self.relays else { return Ok(()) };
        if !relays.is_member(index) && !matches!(said, Said::Digest { .. }) {
            return Err(Violation::Kind(said.header().kind));
        }
        match said {
            Said::Reach { address, port } => {
                let far = self.peers[index].as_ref().and_then(|peer| peer.outbound.far());
                // Others are never sent to what is no machine's address, or to their own: a worker would say what is not its.
                let own = far.is_some_and(|far| far.is_loopback());
                let nowhere = |address: &IpAddr| {
                    address.is_unspecified() || address.is_multicast() || address.is_loopback() && !own
                };
                let Some(address) = address.filter(|address| !nowhere(address)).or(far) else { return Ok(()) };
                let orders = &mut self.orders;
                relays.reach(index, address, port, |to, order| orders.push((to, order)))?;
                self.order(context);
            }
            Said::Linked { peer, session, up } => {
                let peer = peer as usize;
                if peer >= workers || peer == index {
                    return Err(Violation::Worker(peer as u32));
                }
                if relays.linked(index, peer, session, up, first) {
                    self.board.count(Counter::LinksMissing, 1);
                    self.tell(Event::NoLink { worker: index as u32, peer: peer as u32 });
                }
            }
            Said::Have { round, chunk } => {
                if let Some(len) = relays.have(index, round, chunk, context.now)? {
                    let times = if planted(Bug::HaveTwice) { 2 } else { 1 };
                    self.board.count(Counter::UpdateBytesCarried, times * len as u64);
                }
            }
            Said::Fetch { round, chunk, why } => {
                let Some(fetched) = relays.fetch(index, round, chunk, why, first)? else { return Ok(()) };
                self.board.count(if why == Why::Wrong { Counter::RepairsWrong } else { Counter::RepairsLate }, 1);
                self.name(fetched.bad);
                if planted(Bug::FetchUnheard) {
                    return Ok(());
                }
                self.repair(index, fetched.slot, fetched.len, context);
            }
            Said::Decline { round, chunk } => {
                self.serve_waiting(context, |relays, send| relays.decline(index, round, chunk, send));
            }
            Said::Digest { round, digest } => {
                // One of each closed round: what a worker says is bounded.
                let Some(peer) = &mut self.peers[index] else { return Ok(()) };
                if round < peer.digests_from || round >= first {
                    return Err(Violation::Round { found: round, first: peer.digests_from, end: first });
                }
                peer.digests_from = round + 1;
                let ways = self.ways.as_mut().filter(|_| relays.is_member(index));
                if relays.is_member(index)
                    && let Some(took) = self.collected.reached(round, || context.now)
                {
                    self.board.measured().observe(Measure::Collected, took.as_secs_f64());
                }
                let change = ways.and_then(|ways| ways.collected(round, context.now));
                let (known, mine) = self.digests[(round % self.digests.len() as u64) as usize];
                if known == round && mine != digest && !planted(Bug::DigestUnheard) {
                    self.board.count(Counter::DigestMismatches, 1);
                    self.tell(Event::OtherDigest { worker: index as u32, round });
                }
                if let Some(Change { relayed, before, now }) = change {
                    self.board.set_relayed(relayed);
                    self.tell(Event::Way { relayed, before, now });
                }
            }
        }
        Ok(())
    }

    fn repair(&mut self, index: usize, slot: SharedSlot, len: usize, context: &Context<'_>) {
        let Some(peer) = &mut self.peers[index] else { return };
        self.board.count(Counter::UpdateBytesSent, len as u64);
        if peer.outbound.send_aside(Outgoing::Shared(slot, len)).is_err() {
            self.not_reading(index, context);
        }
    }

    fn name(&mut self, bad: Option<Bad>) {
        let Some(Bad { carrier, wrong }) = bad else { return };
        self.board.count(Counter::BadCarriers, 1);
        self.tell(Event::BadCarrier { worker: carrier as u32, wrong });
    }

    /// Tells workers of each other, as was found.
    fn order(&mut self, context: &Context<'_>) {
        while let Some((to, order)) = self.orders.pop() {
            let frame = order.frame(self.job.number, self.job.epoch);
            let Some(peer) = &mut self.peers[to] else { continue };
            if peer.outbound.send(Outgoing::Short(frame)).is_err() {
                self.not_reading(to, context);
            }
        }
    }

    /// A round was closed: its digest is what workers will have, and links that broke are tried again.
    pub(super) fn remember(&mut self, closed: Resume, context: &Context<'_>) {
        let Some(relays) = &mut self.relays else { return };
        let at = (closed.round % self.digests.len() as u64) as usize;
        self.digests[at] = (closed.round, closed.digest);
        let (members, liars) = (relays.members(), relays.liars());
        if let Some(ways) = &mut self.ways {
            ways.closed(closed.round, members, liars, context.now);
        }
        // More than can lie, where those who take part are few of all.
        let most = if members > 0 { (members / 2).max(liars) + 1 } else { 0 };
        self.collected.closed(closed.round, most, context.now);
        let orders = &mut self.orders;
        relays.closed(closed.round, |to, order| orders.push((to, order)));
        self.order(context);
    }

    /// Sends chunks to those who did not say for too long that they have them: from then on they are workers that take, or do not
    /// take, what is sent to them. Sooner where slots are short.
    pub(super) fn give_up(&mut self, limit: Duration, context: &Context<'_>) -> bool {
        let first = self.first;
        self.serve_waiting(context, |relays, send| relays.give_up(context.now, limit, first, send))
    }

    /// Before anything of `round` is queued, everybody has been sent all of the rounds whose place it takes: a worker stops reading at
    /// what has no place yet, and would not see what is sent to it behind that.
    pub(super) fn overtake(&mut self, round: u64, context: &Context<'_>) {
        let window = self.rounds.len() as u64;
        if self.relays.as_ref().is_some_and(|relays| relays.is_overtaken(round, window)) {
            // The answers may have come.
            self.listen(context);
            self.serve_waiting(context, |relays, send| relays.overtake(round, window, send));
        }
    }

    /// Sends chunks to workers that did not ask for them, as `of` gives both; `true` if there are any.
    fn serve_waiting(
        &mut self,
        context: &Context<'_>,
        of: impl FnOnce(&mut Relays, &mut dyn FnMut(usize, SharedSlot, usize)),
    ) -> bool {
        let Pusher { peers, board, slow, relays: Some(relays), .. } = self else { return false };
        let mut busy = false;
        of(relays, &mut |index, slot, len| {
            let Some(peer) = &mut peers[index] else { return };
            board.count(Counter::RepairsUnasked, 1);
            board.count(Counter::UpdateBytesSent, len as u64);
            busy = true;
            if peer.outbound.send_aside(Outgoing::Shared(slot, len)).is_err() {
                *slow |= bit(index);
            }
        });
        for index in each(std::mem::take(&mut self.slow)) {
            self.not_reading(index, context);
        }
        busy
    }

    /// How long a target may say nothing of a chunk: less if it is one of few that hold up all others, and always several times as long
    /// as most take. On slow links some are the last of every chunk, and late for nobody.
    pub(super) fn may_be_silent(&self, now: Instant) -> Duration {
        let limit = self.job.write_deadline;
        let Some((relays, usual)) = self.relays.as_ref().and_then(|relays| Some((relays, relays.usual()?))) else {
            return limit;
        };
        let short = self.updates.free(0) == 0 && relays.few_wait(now, limit / PRESSURE);
        (if short { limit / PRESSURE } else { limit }).max(USUALLY * usual)
    }
}
