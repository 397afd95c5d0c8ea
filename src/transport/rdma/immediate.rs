//! The 32 bits that go with a write from the daemon: what was written, or how many shards may be sent.
//!
//! ```text
//! 31 30 | 29 .. 22           | 21 .. 0
//!  0  0 | round mod 2^8      | chunk             an update chunk stands in its place
//!  0  1 | round mod 2^30                         a report stands in its place
//!  1  0 | shards mod 2^30                        so many shards may have been sent, in all
//! ```
//!
//! Whoever receives one knows about which number it is: rounds lie in a window, and credits are few.

use crate::wire::CHUNKS_MAX;

const _: () = assert!(CHUNKS_MAX <= 1 << CHUNK_BITS, "every chunk has a number");
const CHUNK_BITS: u32 = 22;
const NUMBER_BITS: u32 = 30;

/// What an immediate says. Rounds and counts are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Immediate {
    /// An update chunk was written.
    Update {
        /// The round's low bits.
        round: u8,
        /// The chunk.
        chunk: u32,
    },
    /// A report was written.
    RoundEnd {
        /// The round's low bits.
        round: u32,
    },
    /// So many shards may have been sent in this session.
    Credit {
        /// The count's low bits.
        shards: u32,
    },
}

impl Immediate {
    /// The number that goes with the write.
    pub fn number(self) -> u32 {
        match self {
            Immediate::Update { round, chunk } => u32::from(round) << CHUNK_BITS | chunk,
            Immediate::RoundEnd { round } => 1 << NUMBER_BITS | round,
            Immediate::Credit { shards } => 2 << NUMBER_BITS | shards,
        }
    }

    /// What a number says; `None` if nothing.
    pub fn read(number: u32) -> Option<Immediate> {
        let low = number & ((1 << NUMBER_BITS) - 1);
        match number >> NUMBER_BITS {
            0 => Some(Immediate::Update { round: (low >> CHUNK_BITS) as u8, chunk: low & ((1 << CHUNK_BITS) - 1) }),
            1 => Some(Immediate::RoundEnd { round: low }),
            2 => Some(Immediate::Credit { shards: low }),
            _ => None,
        }
    }

    /// Of an update chunk.
    pub fn update(round: u64, chunk: u32) -> Immediate {
        Immediate::Update { round: round as u8, chunk }
    }

    /// Of a report.
    pub fn round_end(round: u64) -> Immediate {
        Immediate::RoundEnd { round: round as u32 & ((1 << NUMBER_BITS) - 1) }
    }

    /// Of a credit.
    pub fn credit(shards: u64) -> Immediate {
        Immediate::Credit { shards: shards as u32 & ((1 << NUMBER_BITS) - 1) }
    }
}

/// The first number from `base` on that ends in these low bits.
fn complete(low: u64, bits: u32, base: u64) -> u64 {
    base.wrapping_add(low.wrapping_sub(base) & ((1 << bits) - 1))
}

/// The whole number of a round from its low bits: the first one from `oldest` on.
pub fn round_of(immediate: Immediate, oldest: u64) -> u64 {
    match immediate {
        Immediate::Update { round, .. } => complete(u64::from(round), 8, oldest),
        Immediate::RoundEnd { round } => complete(u64::from(round), NUMBER_BITS, oldest),
        Immediate::Credit { .. } => oldest,
    }
}

/// The whole count of a credit from its low bits: the first one from the last one on.
pub fn shards_of(shards: u32, last: u64) -> u64 {
    complete(u64::from(shards), NUMBER_BITS, last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_is_read_or_refused_and_what_is_read_is_written_back(number in any::<u32>()) {
            match Immediate::read(number) {
                Some(immediate) => prop_assert_eq!(immediate.number(), number),
                None => prop_assert_eq!(number >> 30, 3),
            }
        }

        #[test]
        fn rounds_and_counts_come_back_whole_near_what_is_known(
            base in any::<u64>(), ahead in 0u64..200, chunk in 0u32..1 << 22
        ) {
            let base = base >> 1;
            let read = |immediate: Immediate| Immediate::read(immediate.number()).unwrap();
            prop_assert_eq!(round_of(read(Immediate::update(base + ahead, chunk)), base), base + ahead);
            prop_assert_eq!(round_of(read(Immediate::round_end(base + ahead)), base), base + ahead);
            let Immediate::Credit { shards } = read(Immediate::credit(base + ahead)) else { panic!() };
            prop_assert_eq!(shards_of(shards, base), base + ahead);
        }
    }
}
