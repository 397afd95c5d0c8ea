//! The verdict on a received word, in the small space: who agrees, who lied, who may have.
//!
//! A word is a few projected numbers per row. It is *decided* when a set A of rows is within the tolerance of the code and
//!
//! - `|A| >= r_c + s`: at most s of them lie, so `r_c` honest ones fix the code word, and all of A agree with it;
//! - `2 |A| >= arrived + r_c`: two code words share fewer than `r_c` rows, so no other can have as many. With at most s liars
//!   the honest rows always satisfy this; with more it is what turns a tie into "undecided" instead of a guess. (`arrived`
//!   counts rows that were not finite as rows that disagree.)
//!
//! The set is looked for where it probably is: all rows (nobody lied: the fast path); the set of the previous word; all rows
//! less the worst ones, one by one; then information sets (`search`), which find it wherever it is.
//!
//! **Tolerance.** `tau = relative * sqrt(r K) * scale`, scale = the norm of the (s+1)-th largest row (less the rejected ones):
//! at most s liars are above it, so they cannot raise it beyond an honest row. Not the median: with a sparse gradient most
//! raw rows are 0 while parity rows are not. At least s+1 rows of any s+1 + (r_c - 1) present are not 0, so it cannot vanish. A
//! floor covers numbers so small that either side may flush them to 0, or that 16 bits have no digits for.
//!
//! **Blame.** Rows outside A are always erased. They are *named* only if they are in every explanation of the word with at most
//! s liars (`explain`), so nobody honest can be framed; else they are suspects. With more than s rows outside nothing is
//! provable and nobody is named, except rows that were not finite.
//!
//! With s+1 or more liars the result is undecided or right, unless the liars already form a code word with `r_c - 1` honest
//! rows. What s liars can hide is about `tau` in norm, times the norm of the pseudo-inverse of the honest agreeing rows.
//!
//! *Measured* (`properties`, `examples/code_tables.rs`; K = 4, s in 1, 2, 3, 5, r_c in 1, 2, 4, 10, e in 0, 1, 2). Liars of
//! relative size 1e-3, in random or neighbouring rows: all named, in every word. 11225 words by liars who optimise their
//! errors to frame a given honest row: it was erased in 457, a late one suspected 2168 times, and none was named. The relative
//! error that these liars could hide in a word of all rows, and in one of `r_c + s`, the earliest decided: (1, 1) 7e-7, 4e-6;
//! (2, 4) 1e-5, 2e-5; (3, 10) 5e-5, 5e-4; (5, 10) 5e-4, 5e-4. That is a property of the code at f32, not of this decoder.

use std::sync::Arc;

use super::explain::{LEAVES_MAX, Walk, amplification, choose};
use super::linear::{Fit, Fits};
use super::search::{Search, Wanted};
use super::{
    Agreement, Generator, Outcome, PROJECTIONS_MAX, Parameters, Projected, ROWS_MAX, Record, RowVerdict, Rows,
    Tolerance, Undecided,
};

/// Sets of rows whose fit, or bound, is kept.
const KEPT: usize = 16;

/// What is this many times the tolerance (in squares) away is no matter of rounding.
const CLEAR: f64 = 256.0;

/// Explanations may exceed the tolerance by this factor (in squares): the walk over them rounds, and errs towards acquittal.
const ACQUIT: f64 = 1.001;

/// Decides words. Allocates only in [`Locator::new`].
#[derive(Debug)]
pub struct Locator {
    adversaries: usize,
    agreement: usize,
    generator: Arc<Generator>,
    tolerance: Tolerance,
    projections: usize,
    /// The set that agreed last.
    last: Rows,
    fits: Fits,
    trial: Trial,
    walk: Walk,
    search: Search,
    bounds: Vec<Bound>,
    clock: u64,
}

/// The largest squared amplification in each row outside `rows`, with `hidden` liars inside.
#[derive(Debug)]
struct Bound {
    rows: Rows,
    hidden: usize,
    used: u64,
    of_row: Vec<f64>,
}

impl Locator {
    /// A locator for words of `generator` in a job of `parameters`, with `projections` (K) numbers per row. `seed` keys the
    /// guesses, so it must not be known to workers.
    ///
    /// # Panics
    /// If generator and parameters are of different sizes, or `projections` is not in `1..=PROJECTIONS_MAX`.
    pub fn new(
        parameters: Parameters,
        generator: Arc<Generator>,
        tolerance: Tolerance,
        projections: usize,
        seed: [u8; 32],
    ) -> Locator {
        let (r, c) = (generator.redundancy(), generator.compression());
        assert_eq!((parameters.redundancy(), parameters.compression()), (r, c), "the generator is of another code");
        assert!((1..=PROJECTIONS_MAX).contains(&projections), "1 to {PROJECTIONS_MAX} projections, not {projections}");
        let s = parameters.adversaries();
        // Deeper walks would visit too many sets and are never begun.
        let depth = (0..=s).rev().find(|&depth| choose(c + s, depth) <= LEAVES_MAX).unwrap_or(0);
        let bound = |_| Bound { rows: Rows::EMPTY, hidden: 0, used: 0, of_row: vec![0.0; r] };
        Locator {
            adversaries: s,
            agreement: parameters.agreement(),
            tolerance,
            projections,
            last: Rows::EMPTY,
            fits: Fits::new(&generator, KEPT),
            trial: Trial::new(&generator, projections),
            walk: Walk::new(r, r.max(PROJECTIONS_MAX), depth),
            search: Search::new(&generator, seed),
            bounds: (0..KEPT).map(bound).collect(),
            clock: 0,
            generator,
        }
    }

    /// Length of the slot for a projected word: `r_c * K`.
    pub fn word_len(&self) -> usize {
        self.trial.coordinates.len()
    }

    /// Decides a word of shards of `width` numbers.
    ///
    /// `present` are the rows that came with finite numbers; `projected[row]` is read for these. `rejected` are rows that came
    /// but were not finite: erased, and named as liars. If the word agrees, the projected word goes to
    /// `word[..self.word_len()]`, which [`Locator::check`] takes with the record.
    ///
    /// # Panics
    /// If `word` or `projected` is too short, or a row is both present and rejected, or beyond r.
    pub fn locate(
        &mut self,
        present: Rows,
        rejected: Rows,
        projected: &[Projected],
        width: usize,
        word: &mut [f64],
    ) -> Outcome {
        let c = self.generator.compression();
        assert!(present.union(rejected).is_subset(Rows::first(self.generator.redundancy())), "no such row");
        assert!(present.intersection(rejected).is_empty(), "a rejected row has no projection");
        let tolerance = self.tolerance_of(present, rejected, projected, width);
        let arrived = present.count() + rejected.count();
        let needed = self.agreement.max((arrived + c).div_ceil(2));
        let rejected_count = rejected.count();
        let mut undecided =
            Undecided { arrived, rejected: rejected_count, best_agreeing: 0, needed, residual: 0.0, tolerance };
        if present.count() < needed {
            return Outcome::Undecided(undecided);
        }
        undecided.residual = self.residual_of(present, projected);
        let rows = if undecided.residual <= tolerance {
            present
        } else {
            match self.agreeing(present, rejected, needed, tolerance, projected) {
                Ok(rows) => rows,
                Err(best_agreeing) => return Outcome::Undecided(Undecided { best_agreeing, ..undecided }),
            }
        };
        // With more than s liars the (s+1)-th largest row may be one of theirs, and the tolerance theirs to choose. The rows that
        // agree must do so by their own scale, too; with at most s outside that is never stricter.
        let outside = present.without(rows).union(rejected);
        let own = self.tolerance_of(rows, outside, projected, width);
        if !(self.residual_of(rows, projected) <= own) {
            return Outcome::Undecided(Undecided { best_agreeing: rows.count(), tolerance: own, ..undecided });
        }
        self.last = rows;
        let residual = self.residual_of(rows, projected);
        let Locator { fits, generator, projections, .. } = self;
        fits.get(generator, rows).solve(*projections, |row, k| projected[row].values[k], word);
        let (named, suspects) = self.blame(present, rejected, rows, tolerance, projected);
        let liars = named.union(rejected);
        let hidden = self.adversaries.saturating_sub(liars.count());
        let record = Record { rows, tolerance, hidden };
        let received = undecided.residual;
        Outcome::Agreed(Agreement { rows, liars, suspects, received, residual, tolerance, record })
    }

    /// Judges the shard of `row` that came after its word was decided, by the `record` and the projected `word` of then; None
    /// as projection means that it was not finite.
    ///
    /// It lies if no `hidden` liars among the rows that agreed could make an honest row look like this.
    ///
    /// # Panics
    /// If `row` is one of those that agreed, or beyond r, or `word` is too short.
    pub fn check(&mut self, record: &Record, word: &[f64], row: usize, projected: Option<&Projected>) -> RowVerdict {
        assert!(row < self.generator.redundancy() && !record.rows.contains(row), "row {row} is not late");
        let Some(projected) = projected else {
            return RowVerdict::Lies;
        };
        let distance = distance(self.generator.row_f64(row), word, &projected.values[..self.projections]);
        let squared = record.tolerance * record.tolerance;
        if distance <= squared * (1.0 + self.amplification_of(record.rows, 0, row)) {
            RowVerdict::Agrees
        } else if distance > 4.0 * squared * (1.0 + self.amplification_of(record.rows, record.hidden, row)) {
            RowVerdict::Lies
        } else {
            RowVerdict::Suspect
        }
    }

    /// Is what was said of a word beyond doubt, even if its projections were a few times the tolerance off? Then every row either
    /// agrees or is far from agreeing.
    pub fn is_clear(&mut self, agreement: &Agreement, present: Rows, projected: &[Projected]) -> bool {
        let (rows, outside) = (agreement.rows, present.without(agreement.rows));
        // Liars that are not present were rejected: they are not hidden among those that agree.
        let hidden = self.adversaries.saturating_sub(agreement.liars.without(outside).count());
        agreement.suspects.is_empty()
            && outside.iter().all(|row| {
                let bound = CLEAR * agreement.tolerance * agreement.tolerance;
                self.error_of(rows, row, projected) > bound * (1.0 + self.amplification_of(rows, hidden, row))
            })
    }

    fn tolerance_of(&self, present: Rows, rejected: Rows, projected: &[Projected], width: usize) -> f64 {
        let mut norms = [0.0; ROWS_MAX];
        let n = present.count();
        norms.iter_mut().zip(present.iter()).for_each(|(norm, row)| *norm = projected[row].norm);
        norms[..n].sort_unstable_by(|a, b| b.total_cmp(a));
        let liars_above = self.adversaries.saturating_sub(rejected.count());
        let scale = if n == 0 { 0.0 } else { norms[liars_above.min(n - 1)] };
        let entries = (self.generator.redundancy() * self.projections) as f64;
        let smallest = f64::from(f32::MIN_POSITIVE) * self.generator.compression() as f64 + self.tolerance.absolute;
        let flushed = smallest * (width as f64).sqrt();
        entries.sqrt() * (self.tolerance.relative * scale + flushed)
    }

    /// An agreeing set of at least `needed` rows, or the size of the best one seen.
    fn agreeing(
        &mut self,
        present: Rows,
        rejected: Rows,
        needed: usize,
        tolerance: f64,
        projected: &[Projected],
    ) -> Result<Rows, usize> {
        let kept = self.last.intersection(present);
        if kept.count() >= needed && self.residual_of(kept, projected) <= tolerance {
            return Ok(self.extend(kept, present, tolerance, projected));
        }
        if let Some(rows) = self.trial.prune(&self.generator, present, needed, tolerance, projected) {
            return Ok(self.extend(rows, present, tolerance, projected));
        }
        let honest = present.count() - self.adversaries.saturating_sub(rejected.count()).min(present.count());
        let wanted = Wanted { present, least: needed, size: needed.max(honest), tolerance };
        let Locator { search, trial, generator, projections, .. } = self;
        let mut result = None;
        let best = search.run(generator, &wanted, projected, *projections, |rows| {
            result = trial.prune(generator, rows, needed, tolerance, projected);
            result.is_none()
        });
        result.map(|rows| self.extend(rows, present, tolerance, projected)).ok_or(best)
    }

    /// Adds the rows of `present` that agree too, best first.
    fn extend(&mut self, mut rows: Rows, present: Rows, tolerance: f64, projected: &[Projected]) -> Rows {
        while rows != present {
            let spent = self.residual_of(rows, projected);
            let (mut best, mut least) = (0, f64::INFINITY);
            for row in present.without(rows).iter() {
                let more = self.error_of(rows, row, projected) / (1.0 + self.amplification_of(rows, 0, row));
                if more < least {
                    (best, least) = (row, more);
                }
            }
            if !(spent * spent + least <= tolerance * tolerance) {
                return rows;
            }
            rows.insert(best);
        }
        rows
    }

    /// Of the present rows outside `rows`: those that provably lied, and those that may be honest.
    fn blame(
        &mut self,
        present: Rows,
        rejected: Rows,
        rows: Rows,
        tolerance: f64,
        projected: &[Projected],
    ) -> (Rows, Rows) {
        let outside = present.without(rows);
        let liars_left = self.adversaries.saturating_sub(rejected.count());
        if outside.is_empty() || outside.count() > liars_left || rejected.count() > self.adversaries {
            return (Rows::EMPTY, outside);
        }
        let squared = tolerance * tolerance;
        let mut named = Rows::EMPTY;
        for row in outside.iter() {
            // Twice the tolerance: the fit may carry one of its own.
            let margin = 4.0 * squared * (1.0 + self.amplification_of(rows, liars_left, row));
            if self.error_of(rows, row, projected) > margin {
                named.insert(row);
            }
        }
        let doubtful = outside.without(named);
        if !doubtful.is_empty() {
            let proven = self.in_every_explanation(
                present.without(named),
                doubtful,
                liars_left - named.count(),
                tolerance,
                projected,
            );
            named = named.union(proven);
        }
        (named, outside.without(named))
    }

    /// The rows of `doubtful` that are in every set of `liars` rows without which the rows of `among` agree.
    fn in_every_explanation(
        &mut self,
        among: Rows,
        doubtful: Rows,
        liars: usize,
        tolerance: f64,
        projected: &[Projected],
    ) -> Rows {
        let mut proven = doubtful;
        let (k, c) = (self.projections, self.generator.compression());
        let Locator { search, trial, walk, generator, .. } = self;
        if choose(among.count(), liars) > LEAVES_MAX {
            let honest = among.count() - liars;
            let wanted = Wanted { present: among, least: honest, size: honest, tolerance };
            if !wanted.is_sure(c) {
                return Rows::EMPTY;
            }
            search.run(generator, &wanted, projected, k, |rows| {
                proven = proven.without(rows);
                !proven.is_empty()
            });
            return proven;
        }
        trial.fit.compute(generator, among);
        let whole = trial.residual(projected);
        walk.start(&trial.fit, c, k, |rank, k_of| trial.errors[rank * k + k_of]);
        let limit = ACQUIT * tolerance * tolerance + 1e-11 * whole * whole;
        walk.run(liars, &mut |ranks, gains| {
            if !(whole * whole - gains.iter().sum::<f64>() > limit) {
                let explanation: Rows = ranks.iter().map(|&rank| trial.fit.order[rank]).collect();
                proven = proven.intersection(explanation);
            }
            !proven.is_empty()
        });
        proven
    }

    /// Squared distance of `row` from what the fit on `rows` predicts.
    fn error_of(&mut self, rows: Rows, row: usize, projected: &[Projected]) -> f64 {
        let k = self.projections;
        let Locator { fits, generator, trial, .. } = self;
        let word = &mut trial.coordinates;
        fits.get(generator, rows).solve(k, |row, k_of| projected[row].values[k_of], word);
        distance(generator.row_f64(row), word, &projected[row].values[..k])
    }

    /// Distance of `rows` from the code.
    fn residual_of(&mut self, rows: Rows, projected: &[Projected]) -> f64 {
        let Locator { fits, generator, trial, .. } = self;
        let Trial { coordinates, errors, .. } = trial;
        residual(fits.get(generator, rows), projected, coordinates, errors)
    }

    /// The largest `|g_row pinv(G_C)|^2` over C = `rows` less `hidden` of them.
    fn amplification_of(&mut self, rows: Rows, hidden: usize, row: usize) -> f64 {
        self.clock += 1;
        let found = self.bounds.iter().position(|bound| bound.rows == rows && bound.hidden == hidden);
        let index = found.unwrap_or_else(|| {
            let index = (0..KEPT).min_by_key(|&i| self.bounds[i].used).expect("KEPT > 0");
            let Locator { fits, walk, bounds, generator, .. } = self;
            let bound = &mut bounds[index];
            (bound.rows, bound.hidden) = (rows, hidden);
            let mut outside = [0; ROWS_MAX];
            let others = Rows::first(generator.redundancy()).without(rows);
            outside.iter_mut().zip(others.iter()).for_each(|(slot, row)| *slot = row);
            let row_of = |row: usize| {
                let mut out = [0.0; ROWS_MAX];
                out[..generator.compression()].copy_from_slice(generator.row_f64(row));
                out
            };
            let (fit, c) = (fits.get(generator, rows), generator.compression());
            amplification(walk, fit, hidden, &outside[..others.count()], row_of, c, &mut bound.of_row);
            index
        });
        self.bounds[index].used = self.clock;
        self.bounds[index].of_row[row]
    }
}

/// A fit that is not worth keeping, and room for what it says of a word.
#[derive(Debug)]
struct Trial {
    fit: Fit,
    /// `r_c x K`.
    coordinates: Vec<f64>,
    /// K per rank.
    errors: Vec<f64>,
}

impl Trial {
    fn new(generator: &Generator, projections: usize) -> Trial {
        let coordinates = vec![0.0; generator.compression() * projections];
        Trial { fit: Fit::new(generator), coordinates, errors: vec![0.0; generator.redundancy() * projections] }
    }

    fn residual(&mut self, projected: &[Projected]) -> f64 {
        residual(&self.fit, projected, &mut self.coordinates, &mut self.errors)
    }

    /// Removes the row that fits worst until the rest agree; None if fewer than `needed` would be left.
    fn prune(
        &mut self,
        generator: &Generator,
        mut rows: Rows,
        needed: usize,
        tolerance: f64,
        projected: &[Projected],
    ) -> Option<Rows> {
        let c = generator.compression();
        let k = self.coordinates.len() / c;
        loop {
            self.fit.compute(generator, rows);
            let residual = self.residual(projected);
            if residual <= tolerance {
                return Some(rows);
            }
            if rows.count() == needed || !residual.is_finite() {
                return None;
            }
            let (mut worst, mut most) = (0, -1.0);
            for (rank, &row) in self.fit.order.iter().enumerate() {
                let leverage: f64 = (0..c).map(|j| self.fit.q(rank, j) * self.fit.q(rank, j)).sum();
                let error: f64 = self.errors[rank * k..][..k].iter().map(|x| x * x).sum();
                // What leaving the row out explains.
                let gain = error / (1.0 - leverage).max(1e-13);
                if gain > most {
                    (worst, most) = (row, gain);
                }
            }
            rows.remove(worst);
        }
    }
}

/// Squared distance of a row's `values` from what the projected `word` predicts for it.
fn distance(g: &[f64], word: &[f64], values: &[f64]) -> f64 {
    let error = |(k, value): (usize, &f64)| {
        let predicted: f64 = g.iter().enumerate().map(|(i, x)| x * word[i * values.len() + k]).sum();
        (value - predicted) * (value - predicted)
    };
    values.iter().enumerate().map(error).sum()
}

/// Distance of the rows of `fit` from the code; the error of each row goes to `errors`, K per rank. Finite, or NaN if the rows
/// are dependent: squares of f32-sized numbers do not overflow f64.
fn residual(fit: &Fit, projected: &[Projected], coordinates: &mut [f64], errors: &mut [f64]) -> f64 {
    let (n, c) = (fit.len(), fit.compression());
    let k = coordinates.len() / c;
    for k_of in 0..k {
        for j in 0..c {
            let terms = fit.order.iter().enumerate();
            coordinates[j * k + k_of] = terms.map(|(rank, &row)| fit.q(rank, j) * projected[row].values[k_of]).sum();
        }
    }
    for (rank, &row) in fit.order.iter().enumerate() {
        for k_of in 0..k {
            let fitted: f64 = (0..c).map(|j| fit.q(rank, j) * coordinates[j * k + k_of]).sum();
            errors[rank * k + k_of] = projected[row].values[k_of] - fitted;
        }
    }
    errors[..n * k].iter().map(|x| x * x).sum::<f64>().sqrt()
}
