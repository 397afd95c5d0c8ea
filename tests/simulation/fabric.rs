//! Links between workers: made as the daemon orders them, over virtual connections that are authenticated already, and broken as the
//! scenario says.

use std::sync::Arc;

use solon::pipeline::Limits;
use solon::transport::Connection;
use solon::wire::LinkOrder;

use crate::dice::Dice;
use crate::network::{Link, Way};
use crate::scenario::Scenario;

/// Ticks after which a worker that dials gives up.
const HANDSHAKE: u64 = 20;

/// One end of a link that is there.
pub struct End {
    pub link: Link,
    pub connection: Connection,
    /// The way in which this end sends.
    pub way: Way,
}

/// What became of an order.
pub struct Made {
    pub peer: u32,
    /// `None`: the link could not be made.
    pub end: Option<End>,
    worker: u32,
    session: u64,
    due: u64,
}

/// A worker's session has been told of another worker.
struct Order {
    worker: u32,
    session: u64,
    order: LinkOrder,
    since: u64,
}

/// A link and its ends, by worker and session: the one that listens, and the one that dials.
struct Live {
    ends: [(u32, u64); 2],
    link: Link,
}

/// A chunk came over a link, or one of its ends ended it.
pub struct Crossing {
    pub from: (u32, u64),
    pub to: (u32, u64),
    /// `None`: the link was ended by one of them.
    pub chunk: Option<(u64, u32)>,
}

/// All links between workers.
pub struct Fabric {
    scenario: Arc<Scenario>,
    dice: Dice,
    links: u64,
    orders: Vec<Order>,
    made: Vec<Made>,
    live: Vec<Live>,
    /// Orders for two workers that cannot reach each other.
    pub apart: u64,
}

impl Fabric {
    pub fn new(scenario: &Arc<Scenario>) -> Fabric {
        let dice = Dice::new(scenario.weather, "fabric", 0, 0);
        let scenario = scenario.clone();
        Fabric { scenario, dice, links: 0, orders: Vec::new(), made: Vec::new(), live: Vec::new(), apart: 0 }
    }

    /// A session of `worker` has an order. What it had with this peer before is of no use any more.
    pub fn order(&mut self, worker: u32, session: u64, order: LinkOrder, tick: u64) {
        let peer = order.peer;
        self.orders.retain(|old| (old.worker, old.order.peer) != (worker, peer));
        self.made.retain(|old| (old.worker, old.peer) != (worker, peer));
        self.live.retain(|old| !(0..2).any(|at| (old.ends[at].0, old.ends[1 - at].0) == (worker, peer)));
        let fits = |other: &Order| {
            (other.worker, other.order.peer, other.order.key, other.order.session) == (peer, worker, order.key, session)
        };
        let here = Order { worker, session, order, since: tick };
        match self.orders.iter().position(fits) {
            Some(at) => {
                let there = self.orders.swap_remove(at);
                self.make(here, there, tick);
            }
            None => self.orders.push(here),
        }
    }

    fn make(&mut self, one: Order, other: Order, tick: u64) {
        let (dials, listens) = if one.worker > other.worker { (one, other) } else { (other, one) };
        let ends = [(listens.worker, listens.session), (dials.worker, dials.session)];
        let mut made = |(worker, session): (u32, u64), peer, due, end| {
            self.made.push(Made { peer, end, worker, session, due });
        };
        let between = &self.scenario.between;
        if between.apart.contains(&(listens.worker, dials.worker)) {
            self.apart += 1;
            made(ends[1], listens.worker, tick + 3, None);
            return;
        }
        self.links += 1;
        let dice = Dice::new(self.scenario.weather, "between", self.links, 0);
        let Limits { carried, .. } = Limits::of(&self.scenario.job.plan, self.scenario.job.updates);
        let (link, listening, dialling) = Link::new(between.quality.clone(), dice, carried);
        link.watch();
        let end = |connection, way| Some(End { link: link.clone(), connection, way });
        let late = self.dice.below(3);
        made(ends[0], dials.worker, tick + late, end(listening, Way::Down));
        made(ends[1], listens.worker, tick + late + self.dice.below(3), end(dialling, Way::Up));
        self.live.push(Live { ends, link });
    }

    /// What became of the orders of a session.
    pub fn take(&mut self, worker: u32, session: u64, tick: u64) -> Vec<Made> {
        let due = |made: &mut Made| made.worker == worker && (made.session != session || made.due <= tick);
        let (mine, old): (Vec<_>, Vec<_>) =
            self.made.extract_if(.., due).partition(|made: &Made| made.session == session);
        old.iter().filter_map(|made| made.end.as_ref()).for_each(|end| end.link.cut(true));
        mine
    }

    /// A session is over: its links end, or, if it has vanished without a word, nobody learns of it.
    pub fn left(&mut self, session: u64, vanished: bool) {
        self.orders.retain(|order| order.session != session);
        for live in self.live.extract_if(.., |live| live.ends.iter().any(|end| end.1 == session)) {
            if !vanished {
                live.link.cut(self.dice.chance(0.5));
            }
        }
    }

    /// One tick: links break, and who dialled in vain gives up. What crossed the links meanwhile.
    pub fn turn(&mut self, tick: u64) -> Vec<Crossing> {
        let mut crossings = Vec::new();
        for live in &self.live {
            let [listens, dials] = live.ends;
            for (from, to, way) in [(dials, listens, Way::Up), (listens, dials, Way::Down)] {
                let chunks = live.link.take_read(way).into_iter();
                crossings.extend(chunks.map(|chunk| Crossing { from, to, chunk: Some(chunk) }));
            }
            if live.link.was_hung_up() {
                crossings.push(Crossing { from: dials, to: listens, chunk: None });
            }
        }
        let (dice, cuts) = (&mut self.dice, self.scenario.between.cuts);
        self.live.iter().filter(|_| cuts > 0.0 && dice.chance(cuts)).for_each(|live| live.link.cut(true));
        self.live.retain(|live| !live.link.is_closed());
        let dialled = |order: &mut Order| order.worker > order.order.peer && tick > order.since + HANDSHAKE;
        for Order { worker, session, order, .. } in self.orders.extract_if(.., dialled) {
            self.made.push(Made { peer: order.peer, end: None, worker, session, due: tick });
        }
        crossings
    }
}
