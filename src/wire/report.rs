//! How a round ended: what the daemon reports to every worker, and its fixed layout.

use std::fmt;

use super::WORKERS_MAX;
use super::messages::{Reader, Writer};

/// Why a chunk could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UndecodableReason {
    /// Fewer shards than must agree arrived before the deadline.
    #[error("only {arrived} shards arrived in time, {needed} must agree")]
    TooFew {
        /// Usable shards that arrived.
        arrived: u32,
        /// Shards that must agree, r_c + s.
        needed: u32,
    },
    /// Too many shards hold NaN or infinity: the gradient itself is not finite, or too many workers are broken.
    #[error(
        "of {arrived} shards only {finite} are finite and {needed} must agree: the gradient has NaN or infinity in it (it \
         diverged, or overflowed its number format), or more workers are broken than the code corrects"
    )]
    NotFinite {
        /// Shards that arrived.
        arrived: u32,
        /// Those without NaN and infinity.
        finite: u32,
        /// Shards that must agree, r_c + s.
        needed: u32,
    },
    /// Enough shards arrived, but no r_c + s of them agree: more than s workers of the group lie.
    #[error("{}", disagreement(*arrived, *agreeing, *needed))]
    Disagree {
        /// Usable shards that arrived.
        arrived: u32,
        /// The largest set that agrees.
        agreeing: u32,
        /// Shards that must agree, r_c + s.
        needed: u32,
    },
    /// Decoded, but a number of the update is infinite in the 16 bits by which updates travel.
    #[error(
        "a number of the update is too large for the 16 bits by which updates travel, or not finite: the gradient diverged, or \
         push.precision is too narrow for it (f16 ends at 65504; bf16 where f32 does)"
    )]
    TooLarge,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundOutcome {
    /// Every chunk was decoded and pushed.
    Complete,
    /// A chunk could not be decoded: the round has no update.
    Undecodable {
        /// The group whose word failed first.
        group: u32,
        /// The chunk.
        chunk: u32,
        /// Why.
        reason: UndecodableReason,
    },
}

/// A set of workers of a job, of fixed size.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct WorkerSet([u64; WORKERS_MAX / 64]);

impl WorkerSet {
    /// No worker.
    pub const EMPTY: WorkerSet = WorkerSet([0; WORKERS_MAX / 64]);

    /// Adds a worker.
    ///
    /// # Panics
    /// If `worker >= WORKERS_MAX`.
    pub fn insert(&mut self, worker: usize) {
        self.0[worker / 64] |= 1 << (worker % 64);
    }

    /// Is the worker in the set?
    pub fn contains(&self, worker: usize) -> bool {
        worker < WORKERS_MAX && self.0[worker / 64] >> (worker % 64) & 1 == 1
    }

    /// Has the set no worker?
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|bits| *bits == 0)
    }

    /// One bit per worker: that of worker `w` is bit `w % 64` of number `w / 64`.
    pub fn bits(&self) -> &[u64; WORKERS_MAX / 64] {
        &self.0
    }

    /// The workers in rising order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, bits)| {
            let mut left = *bits;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(at * 64 + bit)
            })
        })
    }

    /// How many workers are in the set.
    pub fn count(&self) -> usize {
        self.0.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    /// The workers in either set.
    pub fn union(&self, other: &WorkerSet) -> WorkerSet {
        WorkerSet(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }
}

impl FromIterator<usize> for WorkerSet {
    fn from_iter<I: IntoIterator<Item = usize>>(workers: I) -> WorkerSet {
        let mut set = WorkerSet::EMPTY;
        workers.into_iter().for_each(|worker| set.insert(worker));
        set
    }
}

impl fmt::Debug for WorkerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What the daemon says of a round when it closes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Complete, or why not.
    pub outcome: RoundOutcome,
    /// Digest of the update: the wrapping sum over all chunks of a mix of chunk index and frame checksum. 0 if undecodable.
    pub digest: u64,
    /// The largest residual over tolerance among the words that were believed in this round; at most 1.
    pub residual_ratio: f32,
    /// The same before anything was corrected: over all finite shards of each word. Far above 1 where somebody lied.
    pub received_ratio: f32,
    /// Workers with at least one shard of this round that was proved wrong before the round closed.
    pub liars: WorkerSet,
    /// Workers proved wrong in an earlier round, by a shard that came after its word was decided.
    pub late_liars: WorkerSet,
    /// Workers of whom no shard of this round came before it was closed.
    pub absent: WorkerSet,
    /// Workers of whom some, but not all shards of this round came before it was closed.
    pub late: WorkerSet,
}

/// Bytes of a [`Report`].
pub const REPORT_BYTES: usize = 40 + 4 * WORKERS_MAX / 8;

impl Report {
    /// Writes the report into `bytes`.
    pub fn write(&self, bytes: &mut [u8; REPORT_BYTES]) {
        let (outcome, group, chunk, numbers) = match self.outcome {
            RoundOutcome::Complete => (0u32, 0, 0, [0; 3]),
            RoundOutcome::Undecodable { group, chunk, reason: UndecodableReason::TooFew { arrived, needed } } => {
                (1, group, chunk, [arrived, 0, needed])
            }
            RoundOutcome::Undecodable {
                group,
                chunk,
                reason: UndecodableReason::Disagree { arrived, agreeing, needed },
            } => (2, group, chunk, [arrived, agreeing, needed]),
            RoundOutcome::Undecodable {
                group,
                chunk,
                reason: UndecodableReason::NotFinite { arrived, finite, needed },
            } => (3, group, chunk, [arrived, finite, needed]),
            RoundOutcome::Undecodable { group, chunk, reason: UndecodableReason::TooLarge } => {
                (4, group, chunk, [0; 3])
            }
        };
        let mut out = Writer::new(bytes);
        for number in [outcome, group, chunk, numbers[0], numbers[1], numbers[2]] {
            out.put(&number.to_le_bytes());
        }
        out.put(&self.residual_ratio.to_le_bytes());
        out.put(&self.received_ratio.to_le_bytes());
        out.put(&self.digest.to_le_bytes());
        for set in [&self.liars, &self.late_liars, &self.absent, &self.late] {
            for bits in set.0 {
                out.put(&bits.to_le_bytes());
            }
        }
        out.finish();
    }

    /// Reads a report; `None` if it names an outcome that this version does not know.
    pub fn read(bytes: &[u8; REPORT_BYTES]) -> Option<Report> {
        let mut read = Reader::new(bytes);
        let [outcome, group, chunk, arrived, agreeing, needed] = std::array::from_fn(|_| read.u32());
        let (residual_ratio, received_ratio) = (read.f32(), read.f32());
        let digest = read.u64();
        let mut set = || WorkerSet(std::array::from_fn(|_| read.u64()));
        let (liars, late_liars, absent, late) = (set(), set(), set(), set());
        let outcome = match outcome {
            0 => RoundOutcome::Complete,
            1 => RoundOutcome::Undecodable { group, chunk, reason: UndecodableReason::TooFew { arrived, needed } },
            2 => RoundOutcome::Undecodable {
                group,
                chunk,
                reason: UndecodableReason::Disagree { arrived, agreeing, needed },
            },
            3 => RoundOutcome::Undecodable {
                group,
                chunk,
                reason: UndecodableReason::NotFinite { arrived, finite: agreeing, needed },
            },
            4 => RoundOutcome::Undecodable { group, chunk, reason: UndecodableReason::TooLarge },
            _ => return None,
        };
        Some(Report { outcome, digest, residual_ratio, received_ratio, liars, late_liars, absent, late })
    }

    /// What one chunk adds to the digest of an update; the sum over all chunks does not depend on their order.
    pub fn digest_term(chunk: u32, checksum: u32) -> u64 {
        // The finalizer of SplitMix64 (Steele, Lea, Flood 2014): spreads every input bit over the whole term.
        let mut z = (u64::from(chunk) << 32 | u64::from(checksum)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Why shards that disagree are no word.
fn disagreement(arrived: u32, agreeing: u32, needed: u32) -> String {
    if agreeing < needed {
        return format!(
            "of {arrived} shards at most {agreeing} agree and {needed} must: more workers lie than the code corrects"
        );
    }
    format!(
        "of {arrived} shards {agreeing} nearly agree, which is enough, but not closely enough to tell who is right: more workers lie than \
         the code corrects, or some by little more than the tolerance"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_reading_a_report_panic(bytes in proptest::collection::vec(any::<u8>(), REPORT_BYTES), outcome in 0u8..6) {
            let mut bytes: [u8; REPORT_BYTES] = bytes.try_into().unwrap();
            bytes[..4].copy_from_slice(&[outcome, 0, 0, 0]);
            prop_assert_eq!(Report::read(&bytes).is_some(), outcome < 5);
        }
    }

    #[test]
    fn a_report_survives_the_wire() {
        let report = Report {
            outcome: RoundOutcome::Undecodable {
                group: 1,
                chunk: 9,
                reason: UndecodableReason::Disagree { arrived: 6, agreeing: 3, needed: 4 },
            },
            digest: 0,
            residual_ratio: 0.25,
            received_ratio: 1e9,
            liars: [3, 700].into_iter().collect(),
            late_liars: WorkerSet::EMPTY,
            absent: [1023].into_iter().collect(),
            late: [0].into_iter().collect(),
        };
        let too_large = RoundOutcome::Undecodable { group: 0, chunk: 9, reason: UndecodableReason::TooLarge };
        for report in [report, Report { outcome: too_large, ..report }] {
            let mut bytes = [0; REPORT_BYTES];
            report.write(&mut bytes);
            assert_eq!(Report::read(&bytes), Some(report));
        }
    }
}
