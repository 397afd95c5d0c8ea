//! A liar's part in the relay. It speaks to the daemon and over its links byte by byte.

use std::collections::BTreeMap;
use std::time::Instant;

use solon::transport::Landing;
use solon::wire::{HEADER_BYTES, Header, Kind, LinkOrder, Said, Violation, Why, header_bytes};

use crate::carrying::Carrying;
use crate::dice::Dice;
use crate::fabric::{End, Fabric};
use crate::network::{Link, Way};
use crate::world::View;

/// A liar's part in the relay, in one session.
pub struct Carrier {
    me: u32,
    session: u64,
    carrying: Carrying,
    dice: Dice,
    /// The key of the chunks' hashes, once the daemon has asked for a relay.
    key: Option<[u8; 32]>,
    peers: BTreeMap<u32, Peer>,
    /// What it was told to pass on next.
    carry: Option<(u64, u32, u128)>,
    /// Frames that leave later: when, to whom.
    later: Vec<(u64, u32, Vec<u8>)>,
    awaited: Vec<Awaited>,
    /// Chunks that it has, and that somebody else is to carry.
    known: Vec<(Header, Vec<u8>)>,
    scrap: Bounded,
    /// It wants to end its session.
    pub leaves: bool,
}

struct Peer {
    session: u64,
    end: Option<End>,
    dead: bool,
}

struct Awaited {
    round: u64,
    chunk: u32,
    carrier: u32,
    hash: [u8; 32],
    since: u64,
}

/// Room for a chunk, and not for what a flipped bit makes of its length.
struct Bounded(Vec<u8>, usize);

impl Landing for Bounded {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        let found = header.payload_bytes;
        if found as usize > self.1 {
            return Err(Violation::Length { found, expected: self.1 as u32 });
        }
        self.0.resize(found as usize, 0);
        Ok(Some(&mut self.0))
    }
}

/// How a liar reaches others.
pub struct Reach<'a> {
    pub link: &'a Link,
    pub fabric: &'a mut Fabric,
    pub tick: u64,
    pub now: Instant,
}

fn sealed(header: Header, payload: &[u8]) -> Vec<u8> {
    [&header_bytes(header, payload)[..], payload].concat()
}

impl Carrier {
    pub fn new(me: u32, session: u64, view: &View<'_>) -> Carrier {
        let scenario = view.scenario;
        Carrier {
            me,
            session,
            carrying: scenario.carrying[me as usize],
            dice: Dice::new(scenario.seed, "carrier", me.into(), session),
            key: None,
            peers: BTreeMap::new(),
            carry: None,
            later: Vec::new(),
            awaited: Vec::new(),
            known: Vec::new(),
            scrap: Bounded(Vec::new(), 4 * scenario.job.plan.layout.dimension() + 8),
            leaves: false,
        }
    }

    fn say(&self, view: &View<'_>, reach: &Reach<'_>, said: Said) {
        let (job, session, worker) = (view.scenario.job.number, self.session, self.me);
        let bytes = header_bytes(Header { job, session, worker, ..said.header() }, &[]);
        reach.link.write(Way::Up, &bytes, reach.now);
    }

    /// A frame came from the daemon.
    pub fn hear(&mut self, view: &View<'_>, reach: &mut Reach<'_>, header: &Header, payload: &[u8]) {
        let (round, chunk) = (header.round, header.chunk);
        match header.kind {
            Kind::Relay => {
                self.key = payload.first_chunk().copied();
                if self.carrying != Carrying::Outside {
                    self.say(view, reach, Said::Reach { address: None, port: 7 });
                }
            }
            Kind::Link => {
                let Some(payload) = payload.first_chunk() else { return };
                let order = LinkOrder::read(header, payload);
                let peer = Peer { session: order.session, end: None, dead: false };
                if let Some(Peer { end: Some(old), .. }) = self.peers.insert(order.peer, peer) {
                    old.link.cut(false);
                }
                self.fetch_gone(view, reach, order.peer);
                reach.fabric.order(self.me, self.session, order, reach.tick);
                if self.carrying == Carrying::Phantom {
                    self.say(view, reach, Said::Linked { peer: order.peer, session: order.session, up: true });
                }
            }
            Kind::Carry => {
                let targets = payload.first_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes));
                self.carry = Some((round, chunk, targets));
            }
            Kind::Announce => {
                let hash = *payload.first_chunk().expect("the daemon sends whole frames");
                let carrier = header.worker;
                match self.carrying {
                    Carrying::Clog => self.say(view, reach, Said::Have { round, chunk }),
                    Carrying::CryLate => self.say(view, reach, Said::Fetch { round, chunk, why: Why::Late }),
                    Carrying::CryWrong if self.dice.chance(0.5) => {
                        self.say(view, reach, Said::Fetch { round, chunk, why: Why::Wrong });
                    }
                    _ => self.awaited.push(Awaited { round, chunk, carrier, hash, since: reach.tick }),
                }
            }
            Kind::Update => {
                self.awaited.retain(|it| (it.round, it.chunk) != (round, chunk));
                self.known.push((*header, payload.to_vec()));
                if self.known.len() > 8 {
                    self.known.remove(0);
                }
                if let Some((_, _, targets)) = self.carry.take_if(|(r, c, _)| (*r, *c) == (round, chunk)) {
                    self.pass_on(view, reach, header, payload, targets);
                }
            }
            Kind::RoundEnd if self.carrying == Carrying::FalseDigest && self.key.is_some() => {
                self.say(view, reach, Said::Digest { round, digest: self.dice.clone().any() });
            }
            _ => {}
        }
    }

    fn pass_on(&mut self, view: &View<'_>, reach: &mut Reach<'_>, header: &Header, payload: &[u8], targets: u128) {
        let right = sealed(*header, payload);
        let mut other = payload.to_vec();
        let at = self.dice.below(other.len() as u64) as usize;
        other[at] ^= 1 << self.dice.below(8);
        let repair = view.scenario.repair();
        let (tick, chunks) = (reach.tick, view.scenario.job.plan.layout.chunks() as u32);
        match self.carrying {
            Carrying::Decline => {
                self.say(view, reach, Said::Decline { round: header.round, chunk: header.chunk });
                if self.dice.chance(0.7) {
                    return;
                }
            }
            Carrying::Leave if self.dice.chance(0.2) => {
                self.leaves = true;
                return;
            }
            _ => {}
        }
        for peer in (0..128).filter(|peer| targets >> peer & 1 == 1) {
            let good = match self.carrying {
                Carrying::DropAll => continue,
                Carrying::DropSome if self.dice.chance(0.5) => continue,
                Carrying::Delay => {
                    self.later.push((tick + self.dice.below(2 * repair + 3), peer, right.clone()));
                    continue;
                }
                Carrying::Equivocate => peer % 2 == 0,
                Carrying::Corrupt | Carrying::Reseal | Carrying::BadHeader | Carrying::OtherChunk => false,
                Carrying::HalfFrame => false,
                _ => true,
            };
            let frame = match self.carrying {
                _ if good => right.clone(),
                Carrying::Corrupt => [&right[..HEADER_BYTES], &other].concat(),
                Carrying::BadHeader => {
                    let mut frame = right.clone();
                    let bit = self.dice.below(8 * HEADER_BYTES as u64) as usize;
                    frame[bit / 8] ^= 1 << (bit % 8);
                    frame
                }
                Carrying::OtherChunk => {
                    let chunk = self.dice.below(u64::from(chunks)) as u32;
                    let round = header.round + self.dice.below(3);
                    sealed(Header { chunk, round, ..*header }, payload)
                }
                Carrying::HalfFrame => right[..self.dice.between(1, right.len() - 1)].to_vec(),
                _ => sealed(*header, &other),
            };
            self.later.push((tick, peer, frame.clone()));
            if self.carrying == Carrying::Flood {
                self.later.extend([(tick, peer, frame.clone()), (tick, peer, frame)]);
                let round = header.round + 1 + self.dice.below(3);
                self.later.push((tick, peer, sealed(Header { round, ..*header }, payload)));
            }
        }
    }

    fn fetch_gone(&mut self, view: &View<'_>, reach: &Reach<'_>, peer: u32) {
        let gone: Vec<_> = self.awaited.extract_if(.., |it| it.carrier == peer).collect();
        for Awaited { round, chunk, .. } in gone {
            if self.carrying != Carrying::Mute {
                self.say(view, reach, Said::Fetch { round, chunk, why: Why::Gone });
            }
        }
    }

    /// One tick: what was made of orders, what came over links, what is late.
    pub fn act(&mut self, view: &View<'_>, reach: &mut Reach<'_>) {
        for made in reach.fabric.take(self.me, self.session, reach.tick) {
            let Some(peer) = self.peers.get_mut(&made.peer) else { continue };
            (peer.dead, peer.end) = (made.end.is_none(), made.end);
            let (session, up) = (peer.session, peer.end.is_some());
            self.say(view, reach, Said::Linked { peer: made.peer, session, up });
        }
        if self.key.is_none() {
            return;
        }
        let linked: Vec<u32> = self.peers.iter().filter(|(_, it)| it.end.is_some()).map(|(peer, _)| *peer).collect();
        for peer in linked {
            self.listen(view, reach, peer);
        }
        self.cry_out(view, reach);
        if self.carrying == Carrying::CutLinks && self.dice.chance(0.1) {
            let cut =
                self.peers.iter_mut().filter_map(|(peer, it)| Some((*peer, it.session, it.end.take()?.link))).next();
            if let Some((peer, session, link)) = cut {
                link.cut(true);
                self.say(view, reach, Said::Linked { peer, session, up: false });
                self.fetch_gone(view, reach, peer);
            }
        }
        if self.carrying == Carrying::Usurp {
            let links: Vec<u32> = self.peers.keys().copied().collect();
            for (header, payload) in std::mem::take(&mut self.known) {
                let frame = sealed(header, &payload);
                let tick = reach.tick;
                self.later.extend(links.iter().map(|peer| (tick, *peer, frame.clone())));
            }
        }
        for (_, peer, frame) in self.later.extract_if(.., |(due, ..)| *due <= reach.tick) {
            if let Some(Peer { end: Some(end), dead: false, .. }) = self.peers.get_mut(&peer) {
                let left = end.link.write(end.way, &frame, reach.now);
                let whole = self.carrying != Carrying::HalfFrame && left == frame.len();
                // Half of a frame can only be followed by its other half.
                self.peers.get_mut(&peer).expect("just seen").dead = !whole;
            }
        }
    }

    fn listen(&mut self, view: &View<'_>, reach: &mut Reach<'_>, peer: u32) {
        loop {
            let Some(Peer { end: Some(end), session, .. }) = self.peers.get_mut(&peer) else { return };
            let session = *session;
            if self.carrying == Carrying::Clog && !end.link.is_closed() {
                return;
            }
            let header = match end.connection.inbound.receive(&mut self.scrap, reach.now) {
                Ok(None) => return,
                Ok(Some(header)) => header,
                Err(_) => {
                    end.link.cut(false);
                    self.peers.get_mut(&peer).expect("just seen").end = None;
                    self.say(view, reach, Said::Linked { peer, session, up: false });
                    return self.fetch_gone(view, reach, peer);
                }
            };
            let (round, chunk) = (header.round, header.chunk);
            let fits = |it: &Awaited| (it.round, it.chunk, it.carrier) == (round, chunk, peer);
            let Some(at) = self.awaited.iter().position(fits) else { continue };
            let Awaited { hash, .. } = self.awaited.swap_remove(at);
            let key = self.key.unwrap_or_default();
            let right = blake3::keyed_hash(&key, &self.scrap.0) == hash;
            match self.carrying {
                Carrying::Mute => {}
                Carrying::CryWrong => self.say(view, reach, Said::Fetch { round, chunk, why: Why::Wrong }),
                _ if right => {
                    self.known.push((header, self.scrap.0.clone()));
                    self.say(view, reach, Said::Have { round, chunk });
                }
                _ => self.say(view, reach, Said::Fetch { round, chunk, why: Why::Wrong }),
            }
        }
    }

    fn cry_out(&mut self, view: &View<'_>, reach: &Reach<'_>) {
        let (tick, repair) = (reach.tick, view.scenario.repair());
        if self.carrying == Carrying::Mute {
            self.awaited.retain(|it| tick < it.since + 200);
            return;
        }
        let late: Vec<_> = self.awaited.extract_if(.., |it| tick > it.since + repair).collect();
        for Awaited { round, chunk, .. } in late {
            self.say(view, reach, Said::Fetch { round, chunk, why: Why::Late });
        }
        if self.carrying != Carrying::Nonsense || !self.dice.chance(0.05) {
            return;
        }
        let (workers, me) = (view.scenario.workers() as u32, self.me);
        let other = (me + 1) % workers;
        let (round, chunk) = (view.closed + self.dice.below(3), self.dice.below(9) as u32);
        let peer = self.dice.pick(&[me, workers, u32::MAX, other]);
        let session = self.dice.pick(&[0, self.session, u64::MAX]);
        let digest = self.dice.any();
        let why = self.dice.pick(&[Why::Late, Why::Wrong, Why::Gone]);
        let said = self.dice.pick(&[
            Said::Have { round, chunk },
            Said::Have { round: u64::MAX, chunk: u32::MAX },
            Said::Fetch { round, chunk, why },
            Said::Decline { round, chunk },
            Said::Digest { round, digest },
            Said::Digest { round: round.saturating_sub(3), digest },
            Said::Linked { peer, session, up: true },
            Said::Linked { peer, session, up: false },
            Said::Reach { address: None, port: 9 },
        ]);
        for _ in 0..self.dice.pick(&[1, 1, 2, 500]) {
            self.say(view, reach, said);
        }
    }
}
