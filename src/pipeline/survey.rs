//! What the lanes learn together of whole gradients: the inner products of all pairs of workers, chunk by chunk.
//!
//! Each lane writes those of its own chunks, then counts the chunk. Whoever sees that all chunks of a round are counted adds the products
//! up in the order of the chunks: so every lane gets the same bits, however many lanes there are. Cells are claimed at start, and nobody waits
//! for a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Job;
use crate::code::Rows;
use crate::memory::Bell;

/// Bits of a count of chunks; the others are the round's.
const COUNT_BITS: u32 = 24;

/// The cells of all rounds of the history.
pub struct Survey {
    rows: usize,
    chunks: usize,
    rounds: Box<[Round]>,
    /// Those of all lanes.
    bells: Vec<Arc<Bell>>,
}

struct Round {
    /// Which round the cells are of, and how many of its chunks are counted.
    progress: AtomicU64,
    cells: Box<[Cell]>,
    /// Products of each chunk, one after the other.
    products: Box<[AtomicU64]>,
}

struct Cell {
    present: AtomicU64,
    broken: AtomicU64,
}

/// What is known of a round's gradients.
#[derive(Clone, Copy)]
pub(super) struct Surveyed {
    /// Workers of which every chunk was there.
    pub present: Rows,
    /// Those with a number that is not finite.
    pub broken: Rows,
}

/// Pairs of so many rows, each with itself too.
pub(super) fn pairs(rows: usize) -> usize {
    rows * (rows + 1) / 2
}

/// Where the product of a pair stands.
pub(super) fn pair(i: usize, j: usize) -> usize {
    let (low, high) = (i.min(j), i.max(j));
    high * (high + 1) / 2 + low
}

impl Survey {
    pub(super) fn new(job: &Job, history: usize, bells: Vec<Arc<Bell>>) -> Survey {
        let (rows, chunks) = (job.shape().rows, job.plan.layout.chunks());
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        let round = |_| Round {
            progress: AtomicU64::new(0),
            cells: (0..chunks).map(|_| Cell { present: AtomicU64::new(0), broken: AtomicU64::new(0) }).collect(),
            products: zeros(chunks * pairs(rows)),
        };
        Survey { rows, chunks, rounds: (0..history).map(round).collect(), bells }
    }

    /// Bytes of the cells of a job with so many workers, chunks, and rounds in its history.
    pub(super) fn bytes(rows: usize, chunks: usize, history: usize) -> usize {
        history * chunks * (pairs(rows) * size_of::<AtomicU64>() + size_of::<Cell>())
    }

    fn round(&self, round: u64) -> &Round {
        &self.rounds[(round % self.rounds.len() as u64) as usize]
    }

    /// Says what a chunk of a round has; each once. `product` is that of two rows.
    pub(super) fn publish(&self, round: u64, chunk: u32, found: Surveyed, product: impl Fn(usize, usize) -> f64) {
        let (cells, chunk) = (self.round(round), chunk as usize);
        let (cell, products) = (&cells.cells[chunk], &cells.products[chunk * pairs(self.rows)..][..pairs(self.rows)]);
        cell.present.store(found.present.bits(), Ordering::Relaxed);
        cell.broken.store(found.broken.bits(), Ordering::Relaxed);
        for j in 0..self.rows {
            for i in 0..=j {
                products[pair(i, j)].store(product(i, j).to_bits(), Ordering::Relaxed);
            }
        }
        let count = |progress: u64| {
            let known = progress >> COUNT_BITS == round + 1;
            Some(if known { progress + 1 } else { (round + 1) << COUNT_BITS | 1 })
        };
        // Whoever sees the count sees what was written before it, by every lane that has counted.
        let before = cells.progress.fetch_update(Ordering::AcqRel, Ordering::Acquire, count);
        if before.ok().and_then(count) == Some(self.done(round)) {
            self.bells.iter().for_each(|bell| bell.ring());
        }
    }

    fn done(&self, round: u64) -> u64 {
        (round + 1) << COUNT_BITS | self.chunks as u64
    }

    /// Is every chunk of the round counted?
    pub(super) fn is_complete(&self, round: u64) -> bool {
        self.round(round).progress.load(Ordering::Acquire) == self.done(round)
    }

    /// What a complete round has; `products` becomes that of all pairs.
    pub(super) fn collect(&self, round: u64, products: &mut [f64]) -> Surveyed {
        let round = self.round(round);
        products.fill(0.0);
        for chunk in round.products.chunks(products.len()) {
            for (sum, product) in products.iter_mut().zip(chunk) {
                *sum += f64::from_bits(product.load(Ordering::Relaxed));
            }
        }
        let mut found = Surveyed { present: Rows::first(self.rows), broken: Rows::EMPTY };
        for cell in &round.cells {
            found.present = found.present.intersection(Rows::from_bits(cell.present.load(Ordering::Relaxed)));
            found.broken = found.broken.union(Rows::from_bits(cell.broken.load(Ordering::Relaxed)));
        }
        found
    }
}
