//! The verdict on a received word, in the small space: who agrees, who lied, who may have.

use std::fmt;
use std::sync::Arc;

use super::linear::Fits;
use super::{Generator, Parameters, Projected, Rows};

/// How far honest shards may be from a code word: rounding, or replicas whose kernels are not deterministic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Relative to the scale of the word; see [`Tolerance::default`].
    pub relative: f64,
}

impl Default for Tolerance {
    /// `3 * 2^-24`: three units of f32 rounding.
    fn default() -> Tolerance {
        Tolerance { relative: 3.0 / f64::from(1 << 24) }
    }
}

/// What is known of a word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Enough rows agree: recover from them.
    Agreed(Agreement),
    /// Not yet, or never.
    Undecided(Undecided),
}

/// A decided word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// The rows that agree on one code word: recover from all of these.
    pub rows: Rows,
    /// Rows that provably lied, if at most s rows did.
    pub liars: Rows,
    /// Rows that do not agree, but not provably because they lied: erased, not blamed.
    pub suspects: Rows,
    /// Distance of the agreeing rows from the code, after projection.
    pub residual: f64,
    /// What the residual was allowed to be.
    pub tolerance: f64,
    /// What late shards of this word are checked against, together with the word itself.
    pub record: Record,
}

/// What [`Locator::check`] needs to judge a shard that comes after its word was decided, beside the projected word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    rows: Rows,
    tolerance: f64,
    hidden: usize,
}

/// The verdict on a late shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowVerdict {
    /// It agrees with the word.
    Agrees,
    /// It provably lies, if at most s rows do.
    Lies,
    /// It does not agree, but an honest row could look like this: not to be blamed.
    Suspect,
}

/// Why a word is not decided. More shards may decide it; at the deadline it is the reason why it is undecodable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Undecided {
    /// Rows present, rejected ones included.
    pub arrived: usize,
    /// The most rows seen to agree; 0 if there were too few to try.
    pub best_agreeing: usize,
    /// How many must agree.
    pub needed: usize,
    /// Distance of the whole word from the code, after projection.
    pub residual: f64,
    /// What the residual was allowed to be.
    pub tolerance: f64,
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Undecided { arrived, best_agreeing, needed, residual, tolerance } = self;
        write!(
            f,
            "{arrived} shards arrived, {best_agreeing} of them agree, {needed} must (residual {residual:.3e}, tolerance \
             {tolerance:.3e})"
        )
    }
}

/// Decides words. Allocates only in [`Locator::new`].
#[derive(Debug)]
pub struct Locator {
    parameters: Parameters,
    generator: Arc<Generator>,
    projections: usize,
    #[expect(dead_code)]
    fits: Fits,
}

impl Locator {
    /// A locator for words of `generator`, projected to `projections` numbers per row; `seed` must be secret.
    pub fn new(
        parameters: Parameters,
        generator: Arc<Generator>,
        _tolerance: Tolerance,
        projections: usize,
        _seed: [u8; 32],
    ) -> Locator {
        Locator { fits: Fits::new(&generator, 16), parameters, generator, projections }
    }

    /// Length of the slot for the projected word: `r_c * K`.
    pub fn word_len(&self) -> usize {
        self.generator.compression() * self.projections
    }

    /// Decides a word. `present`: rows with finite projections. `rejected`: rows that came but were NaN or infinite.
    /// `projected[row]` is read for rows in `present`. Writes the projected word (for [`Locator::check`]) to
    /// `word[..word_len()]` if it agrees.
    pub fn locate(
        &mut self,
        present: Rows,
        rejected: Rows,
        _projected: &[Projected],
        _width: usize,
        _word: &mut [f64],
    ) -> Outcome {
        let needed = self.parameters.agreement();
        let arrived = present.count() + rejected.count();
        Outcome::Undecided(Undecided { arrived, best_agreeing: 0, needed, residual: 0.0, tolerance: 0.0 })
    }

    /// Judges a shard of `row` that came after its word was decided; None as projection means NaN or infinite.
    pub fn check(
        &mut self,
        _record: &Record,
        _word: &[f64],
        _row: usize,
        _projected: Option<&Projected>,
    ) -> RowVerdict {
        RowVerdict::Suspect
    }
}
