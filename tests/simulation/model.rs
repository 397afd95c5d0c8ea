//! What the judge knows of a round, from frames alone.

use solon::wire::Report;

/// Bits of rows.
pub type Bits = u64;

/// What is known of one (group, chunk) of a round.
#[derive(Clone, Copy, Default)]
pub struct Cell {
    /// Rows whose first valid shard came before this tick.
    pub before: Bits,
    /// And in this tick.
    pub now: Bits,
    /// Rows whose first valid shard is wrong beyond doubt.
    pub gross: Bits,
}

impl Cell {
    /// Rows whose first valid shard came.
    pub fn all(&self) -> Bits {
        self.before | self.now
    }
}

/// What is known of a round.
pub struct Round {
    pub cells: Vec<Cell>,
    /// Per group: who has begun.
    pub begun: Vec<Bits>,
    /// Its time runs since this tick.
    pub start: Option<u64>,
    /// Some shard was wrong by so little that it may be in the update.
    pub subtle: bool,
    pub closed: Option<(u64, Report)>,
    pub update: Option<Vec<f32>>,
}

/// Counts of what the taps of one daemon saw.
#[derive(Default)]
pub struct Seens {
    pub all: u64,
    pub corrupt: u64,
    pub distinct: u64,
    pub bytes: u64,
    pub violations: u64,
    pub closes: u64,
}
