//! The daemon's half of an RDMA connection in this process: the same registrations and the same code as `solond`'s.

use std::sync::Arc;
use std::time::{Duration, Instant};

use solon::code::Layout;
use solon::memory::{Bell, Slab, Slot};
use solon::transport::rdma::{Fabric, Needs, Offer, Options, ffi::Api};
use solon::transport::{Connection, Landing, memory};
use solon::wire::{Area, HEADER_BYTES, Header, Violation};

use super::verbs::End;
use crate::guest::tools::DEVICES;

/// Numbers in a shard.
pub const WIDTH: usize = 64;
/// Bytes of a shard's frame, and of a slot.
pub const FRAME: usize = HEADER_BYTES + 4 * WIDTH;
pub const CREDITS: usize = 4;
/// Slots per worker: some are with the pipeline while others are posted.
pub const SLOTS: usize = 2 * CREDITS;
pub const WORKERS: usize = 2;

pub struct Daemon {
    pub fabric: Fabric,
    pub shards: Slab,
    pub updates: Slab,
}

impl Daemon {
    pub fn new() -> Daemon {
        let shards = Slab::new(WORKERS, SLOTS, FRAME, Vec::new());
        let updates = Slab::new(WORKERS, SLOTS, FRAME, Vec::new());
        let options = Options { devices: DEVICES[1].name.parse().expect("a list of devices"), ..Options::default() };
        let layout = Layout::new(WIDTH, 1, WIDTH);
        let needs = Needs { workers: WORKERS, credits: CREDITS, outbound: 8, layout, sleeps: false, fall_back: true };
        let bells: Arc<[Arc<Bell>]> = Arc::new([]);
        let api = Api::load().expect("libibverbs");
        let fabric = Fabric::open(api, &options, None, needs, &shards, &updates, bells).expect("a fabric");
        Daemon { fabric, shards, updates }
    }

    /// A slot of worker 0. Those of a queue pair that is gone come back when it is destroyed, which is done elsewhere.
    pub fn slot(&self) -> Slot {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match self.shards.take(0) {
                Some(slot) => return slot,
                None => assert!(Instant::now() < until, "no slot came back"),
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// A queue pair for worker 0, once enough of the earlier ones are destroyed.
    fn offer(&self) -> Offer {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match self.fabric.offer(0) {
                Ok(offer) => return offer,
                Err(why) => assert!(Instant::now() < until, "an offer: {why}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Connects worker 0's half with `end`. The second connection is the other end of its control connection.
    pub fn connect(&self, end: &End, rnr_retry: u8) -> (Connection, Connection) {
        let offer = self.offer();
        let there = offer.endpoint();
        end.reset();
        let (here, control) = memory::pair(64);
        let area = Area { address: 4096, stride: 1 << 16, key: 1, rounds: 2 };
        let connected = self.fabric.connect(offer, &end.endpoint(), area, here);
        let connection = connected.unwrap_or_else(|(_, why)| panic!("{why}"));
        end.connect(&there, rnr_retry);
        (connection, control)
    }
}

/// Takes whatever arrives.
pub struct TakeAll;

impl Landing for TakeAll {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        Err(Violation::Kind(header.kind))
    }

    fn landed(&mut self, _: &mut Header) -> Result<bool, Violation> {
        Ok(true)
    }
}
