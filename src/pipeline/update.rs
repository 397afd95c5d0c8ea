//! A decoded chunk becomes a frame: its numbers as they travel, its checksum, and its hash where workers pass it on.

use std::sync::Arc;

use super::board::{Board, Counter};
use super::{Job, ToPusher, relay};
use crate::memory::Slot;
use crate::wire::{HEADER_BYTES, Header, Kind, seal};

/// Makes frames of decoded chunks.
pub(super) struct Finisher {
    job: Arc<Job>,
    board: Arc<Board>,
    /// Key of the chunks' hashes, where updates are relayed.
    hash_key: Option<[u8; 32]>,
}

impl Finisher {
    pub(super) fn new(job: &Arc<Job>, board: &Arc<Board>) -> Finisher {
        let hash_key = job.relay.map(|_| relay::hash_key(&job.secret));
        Finisher { job: job.clone(), board: board.clone(), hash_key }
    }

    /// The update of a chunk, whose numbers stand in `slot` as f32. None if one is infinite as updates travel.
    pub(super) fn update(&self, round: u64, chunk: u32, mut slot: Slot) -> Option<ToPusher> {
        let plan = &self.job.plan;
        let count = plan.layout.chunk(chunk as usize).len;
        if !plan.update_precision.narrow_in_place(&mut slot[HEADER_BYTES..HEADER_BYTES + 4 * count]) {
            return None;
        }
        let len = HEADER_BYTES + plan.update_bytes(count);
        let header =
            Header { job: self.job.number, session: self.job.epoch, round, chunk, ..Header::new(Kind::Update) };
        let checksum = seal(header, &mut slot[..len]);
        self.board.count(Counter::ChunksDecoded, 1);
        let key = self.hash_key.filter(|_| self.board.relays());
        let hash = key.map(|key| *blake3::keyed_hash(&key, &slot[HEADER_BYTES..len]).as_bytes());
        Some(ToPusher::Update { round, chunk, checksum, hash, slot, len })
    }
}
