//! What of the slots and rings is in use, for whoever looks at the daemon. Read on demand: the data path keeps no count for it.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::Event;
use super::ring::Depth;
use crate::memory::Slab;

/// Slots of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Where shards land.
    Shards,
    /// Update chunks on their way.
    Updates,
    /// Reports on their way.
    Reports,
}

impl Pool {
    /// All kinds.
    pub const ALL: [Pool; 3] = [Pool::Shards, Pool::Updates, Pool::Reports];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Pool::Shards => "shards",
            Pool::Updates => "updates",
            Pool::Reports => "reports",
        }
    }
}

/// A ring between two stages, or from one to the rest of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Sessions that begin, to the receiver.
    Inbound,
    /// Sessions that begin, to the pusher.
    Outbound,
    /// From the receiver to the assembler.
    Shards,
    /// From the assembler to the decoders, all lanes together.
    Words,
    /// From the decoders to the pusher.
    Updates,
    /// What workers say, from the receiver to the pusher.
    Heard,
    /// What happened, to the log.
    Events,
}

impl Ring {
    /// All rings.
    pub const ALL: [Ring; 7] =
        [Ring::Inbound, Ring::Outbound, Ring::Shards, Ring::Words, Ring::Updates, Ring::Heard, Ring::Events];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Ring::Inbound => "inbound",
            Ring::Outbound => "outbound",
            Ring::Shards => "shards",
            Ring::Words => "words",
            Ring::Updates => "updates",
            Ring::Heard => "heard",
            Ring::Events => "events",
        }
    }
}

/// How much is in use, and how much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// In use.
    pub used: usize,
    /// There is.
    pub capacity: usize,
}

/// The slots and rings of a pipeline.
pub struct Stock {
    pub(super) workers: usize,
    pub(super) credits: usize,
    pub(super) outgoing: usize,
    pub(super) shards: Slab,
    pub(super) updates: Slab,
    pub(super) rings: Vec<(Ring, Arc<dyn Depth>)>,
    pub(super) events: Arc<ArrayQueue<Event>>,
}

impl Stock {
    /// Of the slots of this kind.
    pub fn slots(&self, pool: Pool) -> Level {
        let (capacity, free) = match pool {
            Pool::Shards => {
                (self.workers * self.credits, (0..self.workers).map(|worker| self.shards.free(worker)).sum())
            }
            Pool::Updates => (self.outgoing, self.updates.free(0)),
            Pool::Reports => (self.outgoing, self.updates.free(1)),
        };
        Level { used: capacity.saturating_sub(free), capacity }
    }

    /// Of the messages that this ring has room for.
    pub fn ring(&self, ring: Ring) -> Level {
        if ring == Ring::Events {
            return Level { used: self.events.len(), capacity: self.events.capacity() };
        }
        let rings = self.rings.iter().filter(|(name, _)| *name == ring);
        rings.fold(Level::default(), |level, (_, ring)| Level {
            used: level.used + ring.used(),
            capacity: level.capacity + ring.capacity(),
        })
    }
}
