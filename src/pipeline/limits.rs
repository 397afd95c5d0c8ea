//! Every bound of the pipeline, computed from the plan in one place.

use super::Job;
use super::survey::Survey;
use crate::code::Precision;
use crate::memory::Slab;
use crate::wire::{HEADER_BYTES, Plan, REPORT_BYTES};

/// How much of everything there can be. All rings have room for all that can be on its way, so that handing over between stages
/// never fails; what is really scarce are slots, and workers wait for those as credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Shards of one worker in the daemon at once.
    pub credits: usize,
    /// Header and longest shard.
    pub shard_slot_bytes: usize,
    /// A shard's numbers as f32, where they come as 16 bits; else 0.
    pub wide_slot_bytes: usize,
    /// Update chunks decoded and not yet sent to everybody.
    pub updates: usize,
    /// Reports not yet sent to everybody.
    pub reports: usize,
    /// Header and longest update chunk, or report.
    pub update_slot_bytes: usize,
    /// Rounds whose words can still be checked: those in the window, and as many closed ones before it.
    pub history: usize,
    /// Words open at once.
    pub words: usize,
    /// Words with enough shards to try, at once.
    pub located_words: usize,
    /// Checked shards on their way to the assembler.
    pub shards_ring: usize,
    /// Words, further shards and deadlines on their way through one lane.
    pub words_ring: usize,
    /// Workers joining at once.
    pub admissions: usize,
    /// Events that nobody has picked up yet.
    pub events: usize,
    /// Frames on their way to one worker.
    pub outbound: usize,
    /// Where updates are relayed: chunks that one worker carries at once.
    pub carried: usize,
    /// Where updates are relayed: words of one worker about chunks and links that the pusher has not heard yet.
    pub said: usize,
    window: usize,
}

impl Limits {
    /// The limits of a job with this plan and `updates` update slots.
    pub fn of(plan: &Plan, updates: usize) -> Limits {
        let workers = plan.parameters.workers();
        let (credits, window) = (plan.credits as usize, plan.window as usize);
        // Each worker's slots: it can have no more shards anywhere in the pipeline.
        let shards = workers * credits;
        let width = plan.layout.chunk_width();
        let chunk = (plan.layout.compression() * width).min(plan.layout.dimension());
        // One report per open round, and one in each queue that is not read for as long.
        let reports = 2 * window;
        // As many slots of both kinds: they are of one size.
        let updates = updates.max(reports);
        // Per open round: its deadline, and one word that starved.
        let deadlines = 2 * window;
        Limits {
            credits,
            shard_slot_bytes: HEADER_BYTES + plan.shard_bytes(width),
            wide_slot_bytes: match plan.precision {
                Precision::F32 | Precision::Sign => 0,
                Precision::Bf16 | Precision::F16 => 4 * width,
            },
            updates,
            reports,
            update_slot_bytes: HEADER_BYTES + (4 * chunk).max(REPORT_BYTES),
            history: 2 * window,
            // A word holds at least one shard.
            words: shards,
            // A word goes to its decoder with at least r_c + s shards.
            located_words: shards.div_ceil(plan.parameters.agreement()),
            shards_ring: shards,
            words_ring: shards + deadlines,
            // Everybody, twice: a worker may come back before its old session was noticed to be gone.
            admissions: 2 * workers,
            // A join, a leave and a round's end per worker and open round.
            events: 4 * (workers + window) + 64,
            // Every update slot and report, and the frames ready, credit and closing.
            outbound: updates + reports + 3,
            // Twice each one's share: chunks wait for the slowest of those who get them.
            carried: (2 * updates).div_ceil(workers).max(2),
            // An answer for every announced chunk, for each that was sent meanwhile, and what it says of its links and updates.
            said: 2 * updates + 2 * workers + 4 * window + 8,
            window,
        }
    }

    /// Updates and failures on their way to the pusher, from `lanes` decoders.
    pub fn updates_ring(&self, lanes: usize) -> usize {
        // Each decoder can fail each open round once.
        self.updates + lanes * 2 * self.window
    }

    /// Frames on their way to one worker of a job. Where updates are relayed: beside the others an announcement of each chunk, what is
    /// to be carried, and who the other workers are.
    pub fn outbound_of(&self, job: &Job) -> usize {
        match job.relay {
            None => self.outbound,
            Some(_) => 2 * self.outbound + self.carried + 2 * job.plan.parameters.workers(),
        }
    }

    /// Words, further shards and deadlines on their way through one lane. Where a rule combines all workers nothing follows a word, and
    /// each holds as many shards as it takes.
    pub(super) fn words_ring_of(&self, job: &Job) -> usize {
        if job.robust.is_none() {
            return self.words_ring;
        }
        self.shards_ring.div_ceil(job.shape().needed) + 2 * self.window
    }

    /// Words of all workers that the pusher has not heard yet.
    pub fn words_in_flight(&self, workers: usize) -> usize {
        workers * self.said
    }

    /// Bytes of slots for shards, in a job of `workers` workers.
    pub fn shard_bytes(&self, workers: usize) -> usize {
        Slab::bytes(workers, self.credits, self.shard_slot_bytes).unwrap_or(usize::MAX)
    }

    /// Slots for widened shards of each decoder, in a job of `workers` workers: a chunk's, and one for a shard that is looked at alone.
    pub fn wide_slots(&self, workers: usize) -> usize {
        if self.wide_slot_bytes == 0 { 0 } else { workers + 1 }
    }

    /// Bytes of slots for widened shards, of `lanes` decoders.
    pub fn wide_bytes(&self, workers: usize, lanes: usize) -> usize {
        match self.wide_slots(workers) {
            0 => 0,
            slots => Slab::bytes(lanes, slots, self.wide_slot_bytes).unwrap_or(usize::MAX),
        }
    }

    /// Bytes of what a rule keeps of every chunk of a round and all pairs of workers, until the last chunk is there; else 0.
    pub fn survey_bytes(&self, job: &Job) -> usize {
        if job.surveys() { Survey::bytes(job.shape().rows, job.plan.layout.chunks(), self.history) } else { 0 }
    }

    /// Bytes of slots for updates and reports.
    pub fn update_bytes(&self) -> usize {
        Slab::bytes(2, self.updates, self.update_slot_bytes).unwrap_or(usize::MAX)
    }
}
