//! What is said of a received word: the types between the locator and its callers.

use std::fmt;

use super::{Parameters, Precision, Rows};

/// How far honest shards may be from a code word: rounding, or replicas whose kernels are not deterministic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Relative to the scale of the word; see [`Tolerance::default`].
    pub relative: f64,
    /// Per number of a shard, beside it: what is lost of the smallest numbers.
    pub absolute: f64,
    /// Where rounding is coarse: so many liars must not raise the scale of a check. Else a lie that raises it shows anyway.
    pub liars: Option<usize>,
}

impl Tolerance {
    /// Of so much relative to the scale, for shards in this precision.
    pub fn of(relative: f64, precision: Precision, parameters: &Parameters) -> Tolerance {
        let coarse = precision.is_coarse(parameters.compression());
        Tolerance {
            relative,
            absolute: precision.absolute_tolerance(parameters.compression()),
            liars: coarse.then_some(parameters.adversaries()),
        }
    }
}

impl Default for Tolerance {
    /// `6 * 2^-24`, for shards whose only difference is rounding to f32. With 3 an honest word came to 0.85 of the tolerance
    /// (a single number dominating a gradient, at s = 5, r_c = 10); with 6 the worst of 300 thousand
    /// honest words (`examples/code_tables.rs`) came to 0.43.
    fn default() -> Tolerance {
        Tolerance { relative: Precision::F32.tolerance(1), absolute: 0.0, liars: None }
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
    /// Distance of all rows that came from the code, after projection, before any was erased; NaN and infinite rows apart.
    pub received: f64,
    /// Distance of the agreeing rows from the code, after projection.
    pub residual: f64,
    /// What the residual was allowed to be.
    pub tolerance: f64,
    /// What late shards of this word are checked against, together with the word itself.
    pub record: Record,
}

/// What [`Locator::check`](super::Locator::check) needs to judge a shard that comes after its word was decided, beside the projected word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    pub(super) rows: Rows,
    pub(super) tolerance: f64,
    /// Liars that may be among the rows that agreed: s less those named.
    pub(super) hidden: usize,
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
    /// Rows that came but were not finite.
    pub rejected: usize,
    /// The most rows seen to agree; 0 if there were too few to try.
    pub best_agreeing: usize,
    /// How many must agree: r_c + s, or more where that few could also be a second code word.
    pub needed: usize,
    /// Distance of the whole word from the code, after projection.
    pub residual: f64,
    /// What the residual was allowed to be.
    pub tolerance: f64,
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Undecided { arrived, best_agreeing, needed, residual, tolerance, .. } = self;
        write!(
            f,
            "{arrived} shards arrived, {best_agreeing} of them agree, {needed} must (residual {residual:.3e}, tolerance \
             {tolerance:.3e})"
        )
    }
}
