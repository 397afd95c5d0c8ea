//! One pass over the shards of a chunk: tile by tile it is checked whether the rows of each group agree, or what each row looks
//! like is projected, and the sum over groups is recovered with the rows that are believed to be honest.
//!
//! Who is honest is known only once all tiles are read: the caller guesses (the set that agreed in the last chunk), looks at what
//! was learnt, and then believes what was recovered or has it recovered again. Raw rows (those of the systematic form) are
//! summed over the groups and that is all; where one of them is missing or lies, groups with equal sets are summed row by row
//! and multiplied once with the pseudo-inverse of all agreeing rows.
//!
//! **Bits.** The result is `scale *` the sum over sets, in the order of their first group, of the product of the pseudo-inverse
//! (rounded to f32) with the sums over the set's groups, in their order; ranks in rising order, products fused. A slice whose
//! raw row agrees is copied. It depends on the sets and the shards alone: not on the processor, nor on what was guessed before.

use std::sync::Arc;

mod check;
mod steps;
#[cfg(test)]
mod tests;

use check::Checker;
use steps::{Place, Recovery, blocks, project};

use super::kernels::{Aligned, Factors, Kernels, Key, RowSums, Sums, TILE, VECTOR, flushed, how};
use super::plans::Plans;
use super::projection::{UNIT_VARIANCE, tiles};
use super::{Chunk, Generator, PROJECTIONS_MAX, Projected, ROWS_MAX, Rows, Tolerance};

pub use check::Checked;

/// Secret vectors of a sweep: K of the projections that it makes.
pub const SWEEP_PROJECTIONS: usize = 2;

/// The root mean square from which on it does not matter that squares below the range of f32 are 0.
const SQUARES_FROM: f64 = 1e-16;

/// How thoroughly words are checked in which nobody is known to lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Two secret combinations of the rows: what a liar sends passes with a probability of about 1e-12.
    #[default]
    Random,
    /// Every column of the parity matrix: nothing is left to chance. Costs `(r - r_c) / 2` times as much.
    Full,
}

/// What is to be done with the word of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// The rows whose shards are here.
    pub present: Rows,
    /// The rows that are recovered from.
    pub used: Rows,
    /// What is to be learnt on the way.
    pub learn: Learn,
}

/// What a sweep finds out about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// Nothing: it is known.
    Nothing,
    /// Whether all r rows agree: the least work. All must be present.
    Whether,
    /// What each present row looks like, projected: enough to name those that do not agree.
    Who,
}

/// Projects and recovers. Allocates only in [`Sweep::new`].
#[derive(Debug)]
pub struct Sweep {
    generator: Arc<Generator>,
    kernels: Kernels,
    groups: usize,
    plans: Plans,
    raw: Rows,
    /// Group and row (`group * r + row`) of each place in `sums`, in the order of the work.
    order: Vec<usize>,
    /// Where each (group, row) is in `order`; `NOWHERE` if it was not projected.
    places: Vec<usize>,
    sums: Vec<Sums>,
    work: Vec<Work>,
    /// Rows that are added up (`group * r + row`), as the work lists them.
    terms: Vec<usize>,
    /// Per row: the slice that it is.
    slices: Vec<Option<usize>>,
    /// Sums go to the output: recovery is a copy.
    direct: bool,
    sets: Vec<Set>,
    /// Sums over groups, one tile per rank.
    summed: Aligned,
    /// The last numbers of each shard, if they are no whole vector, padded with zeros.
    tails: Aligned,
    /// Room for a list of them.
    padded: Vec<&'static [f32]>,
    /// One tile per slice, where the output has no room for whole vectors.
    partial: Aligned,
    factors: Factors,
    checker: Checker,
    key: Key,
    drawn: Option<[u8; 32]>,
    /// Groups that are checked.
    tally: Vec<usize>,
    /// How far each group that was checked and agrees is from agreeing, over the tolerance; else 0.
    ratios: Vec<f64>,
    /// Columns of the last sweep, and those of which squares were taken.
    width: usize,
    counted: usize,
    /// What `work` was made for.
    made_for: Vec<Task>,
    recovers: bool,
    tasks: Vec<Task>,
}

const NOWHERE: usize = usize::MAX;

/// Groups that are recovered from the same rows.
#[derive(Debug)]
struct Set {
    rows: Rows,
    plan: usize,
    groups: Vec<usize>,
}

/// A step of the work on each tile.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Looks whether all rows of a group agree, and sums raw rows on the way.
    Check { group: usize, how: u8 },
    /// Projects `count` rows of `order`, from `first`.
    Project { first: usize, count: usize },
    /// Adds up `count` rows of `terms`, from `first`, in the place `to`.
    Sum { first: usize, count: usize, to: usize },
    /// Recovers from what was summed of a set.
    Recover { set: usize },
}

/// One tile: where it is in shards and output.
#[derive(Clone, Copy)]
struct Tile {
    index: usize,
    /// Its first column in the shards, and how many there are.
    start: usize,
    numbers: usize,
    /// So many of them are not padding.
    real: usize,
    /// Where its numbers go in the output, and from there to the next slice's.
    offset: usize,
    stride: usize,
}

impl Sweep {
    /// For words of `groups` groups.
    pub fn new(generator: Arc<Generator>, groups: usize, verify: Verify, tolerance: Tolerance) -> Sweep {
        Sweep::with_kernels(generator, groups, verify, tolerance, Kernels::best())
    }

    /// With the kernels of a certain kind, to compare them.
    pub fn with_kernels(
        generator: Arc<Generator>,
        groups: usize,
        verify: Verify,
        tolerance: Tolerance,
        kernels: Kernels,
    ) -> Sweep {
        let (r, c) = (generator.redundancy(), generator.compression());
        let shards = groups * r;
        Sweep {
            kernels,
            groups,
            plans: Plans::new(generator.clone(), groups),
            raw: generator.raw_rows(),
            order: Vec::with_capacity(shards),
            places: vec![NOWHERE; shards],
            sums: vec![Sums::default(); shards],
            work: Vec::with_capacity(2 * shards + 2 * groups),
            terms: Vec::with_capacity(shards),
            slices: (0..r).map(|row| generator.raw_slice(row)).collect(),
            direct: false,
            sets: (0..groups).map(|_| Set { rows: Rows::EMPTY, plan: 0, groups: Vec::with_capacity(groups) }).collect(),
            summed: Aligned::zeros(r * TILE),
            tails: Aligned::zeros(shards * VECTOR),
            padded: Vec::with_capacity(shards),
            partial: Aligned::zeros(c * TILE),
            factors: Factors::zeros(),
            checker: Checker::new(&generator, groups, verify, tolerance),
            key: Key::new(&[0; 32]),
            drawn: None,
            tally: Vec::with_capacity(groups),
            ratios: vec![0.0; groups],
            width: 0,
            counted: 0,
            made_for: Vec::with_capacity(groups),
            recovers: false,
            tasks: Vec::with_capacity(groups),
            generator,
        }
    }

    /// The rows that are recovered from if these agree: the raw ones, if all of them do; else all that agree.
    pub fn used(&self, agreeing: Rows) -> Rows {
        if !self.raw.is_empty() && self.raw.is_subset(agreeing) { self.raw } else { agreeing }
    }

    /// Writes `scale` times the sum of the blocks that the rows `tasks[group].used` stand for to `out`, and learns about each group
    /// what its task says, from secret numbers drawn from `seed`.
    ///
    /// `shards[group * r + row]` is the shard of that row, `chunk.width` numbers; those of absent rows are not looked at. The
    /// seed must come from a secret source after the last of the shards could be changed.
    ///
    /// # Panics
    /// If a task uses fewer than r_c rows, or rows that are not present, or checks a word that is not complete; or a length does
    /// not match.
    pub fn run(
        &mut self,
        seed: &[u8; 32],
        tasks: &[Task],
        shards: &[&[f32]],
        chunk: &Chunk,
        scale: f32,
        out: &mut [f32],
    ) {
        self.prepare(tasks, true);
        self.draw(seed);
        self.tiles(shards, chunk, scale, out);
    }

    /// [`Sweep::run`], and then again over the groups that were to be checked and do not agree, to learn who it is: their tasks
    /// become that, those of groups that agree nothing. How far the latter are from agreeing [`Sweep::ratio`] says.
    ///
    /// # Panics
    /// As [`Sweep::run`].
    pub fn run_and_look(
        &mut self,
        seed: &[u8; 32],
        tasks: &mut [Task],
        shards: &[&[f32]],
        chunk: &Chunk,
        scale: f32,
        out: &mut [f32],
    ) {
        self.run(seed, tasks, shards, chunk, scale, out);
        let mut doubtful = false;
        self.ratios.fill(0.0);
        for (group, task) in tasks.iter_mut().enumerate().filter(|(_, task)| task.learn == Learn::Whether) {
            let checked = self.checked(group);
            if checked.agrees {
                self.ratios[group] = checked.ratio;
                task.learn = Learn::Nothing;
            } else {
                (task.learn, doubtful) = (Learn::Who, true);
            }
        }
        if doubtful {
            self.learn(seed, tasks, shards, chunk);
        }
    }

    /// How far a group that [`Sweep::run_and_look`] has found to agree was from agreeing, relative to the tolerance; else 0.
    pub fn ratio(&self, group: usize) -> f64 {
        self.ratios[group]
    }

    /// Learns what the tasks say, and recovers nothing.
    ///
    /// # Panics
    /// As [`Sweep::run`].
    pub fn learn(&mut self, seed: &[u8; 32], tasks: &[Task], shards: &[&[f32]], chunk: &Chunk) {
        self.prepare(tasks, false);
        self.draw(seed);
        self.tiles(shards, chunk, 1.0, &mut []);
    }

    /// Recovers from the rows `used[group]`, and learns nothing.
    ///
    /// # Panics
    /// As [`Sweep::run`].
    pub fn recover(&mut self, used: &[Rows], shards: &[&[f32]], chunk: &Chunk, scale: f32, out: &mut [f32]) {
        let mut tasks = std::mem::take(&mut self.tasks);
        tasks.clear();
        tasks.extend(used.iter().map(|&used| Task { present: used, used, learn: Learn::Nothing }));
        self.prepare(&tasks, true);
        self.tasks = tasks;
        self.tiles(shards, chunk, scale, out);
    }

    fn draw(&mut self, seed: &[u8; 32]) {
        let wanted = !self.order.is_empty() || (!self.tally.is_empty() && self.checker.draws());
        if wanted && self.drawn != Some(*seed) {
            self.key = Key::new(seed);
            if self.checker.draws() {
                self.checker.draw(&self.key);
            }
            self.drawn = Some(*seed);
        }
        let Sweep { checker, tally, sums, order, .. } = self;
        tally.iter().for_each(|group| checker.clear(*group));
        sums[..order.len()].fill(Sums::default());
    }

    /// Whether the rows of a group agree, in the last sweep.
    ///
    /// # Panics
    /// If that was not to be learnt.
    pub fn checked(&self, group: usize) -> Checked {
        assert!(self.tally.contains(&group), "group {group} was not checked");
        self.checker.verdict(group, self.width, self.counted)
    }

    /// Is there anything that a check could see? With r = r_c there is not.
    pub fn can_check(&self) -> bool {
        self.checker.can_check()
    }

    /// What a row became in the last [`Sweep::run`]: its first [`SWEEP_PROJECTIONS`] projections, computed in f32 tile by tile; NaN
    /// or infinite if one of its numbers is not finite or is so large that they overflow.
    ///
    /// # Panics
    /// If it was not present.
    pub fn projected(&self, group: usize, row: usize) -> Projected {
        let place = self.places[group * self.generator.redundancy() + row];
        assert!(place != NOWHERE, "row {row} of group {group} was not projected");
        let Sums { values, squares } = &self.sums[place];
        let mut out = Projected { values: [0.0; PROJECTIONS_MAX], norm: total(squares).sqrt() };
        (0..SWEEP_PROJECTIONS).for_each(|k| out.values[k] = UNIT_VARIANCE * total(&values[k]));
        out
    }

    /// Is what [`Sweep::projected`] says of a row of `width` numbers as good as f32 can be? Not if a number is not finite, or if
    /// numbers are so large or small that sums or squares left the range of f32; then the row is to be projected in f64.
    pub fn is_sound(projected: &Projected, width: usize) -> bool {
        let values = &projected.values[..SWEEP_PROJECTIONS];
        let nothing = values.iter().all(|x| *x == 0.0);
        values.iter().all(|x| x.is_finite())
            && projected.norm.is_finite()
            && (nothing || projected.norm >= SQUARES_FROM * (width as f64).sqrt())
    }

    /// Lists the work on each tile.
    fn prepare(&mut self, tasks: &[Task], recover: bool) {
        assert_eq!(tasks.len(), self.groups, "a task for each group");
        if self.made_for == tasks && self.recovers == recover {
            // Plans may have been replaced meanwhile only if others were asked for, and then this was made anew.
            return;
        }
        let all = Rows::first(self.generator.redundancy());
        for Task { present, used, learn } in tasks {
            assert!(used.is_subset(*present), "rows that are recovered from are present");
            assert!(*learn != Learn::Whether || *present == all, "only complete words are checked");
        }
        self.made_for.clear();
        self.made_for.extend_from_slice(tasks);
        self.recovers = recover;
        self.order.clear();
        self.places.fill(NOWHERE);
        self.work.clear();
        self.tally.clear();
        self.terms.clear();
        self.sets.iter_mut().for_each(|set| set.groups.clear());
        let mut count = 0;
        for (group, task) in tasks.iter().enumerate().filter(|_| recover) {
            let known = self.sets[..count].iter().position(|set| set.rows == task.used);
            let at = known.unwrap_or(count);
            if known.is_none() {
                (self.sets[at].rows, self.sets[at].plan) = (task.used, self.plans.find(task.used));
                count += 1;
            }
            self.sets[at].groups.push(group);
        }
        // First what reads all rows, then what finds them in the cache.
        let r = self.generator.redundancy();
        for (group, task) in tasks.iter().enumerate() {
            match task.learn {
                Learn::Nothing => {}
                Learn::Whether => {
                    self.tally.push(group);
                    self.work.push(Work::Check { group, how: how::NOT });
                }
                Learn::Who => {
                    let start = self.order.len();
                    self.order.extend(task.present.iter().map(|row| group * r + row));
                    for (first, count) in blocks(self.kernels.rows(), start, self.order.len() - start) {
                        self.work.push(Work::Project { first, count });
                    }
                }
            }
        }
        for (place, at) in self.order.iter().enumerate() {
            self.places[*at] = place;
        }
        self.direct = count == 1 && self.plans.at(self.sets[0].plan).copies_all();
        if self.direct && self.tally.len() == self.groups {
            self.sum_while_checking();
        } else if self.direct {
            self.sum_raw_rows();
        } else {
            (0..count).for_each(|set| self.sum_set(set));
        }
    }

    /// The only set copies every slice, and all rows are checked: one pass for both.
    fn sum_while_checking(&mut self) {
        for work in &mut self.work {
            let Work::Check { group, how } = work else { continue };
            *how = match (*group == 0, *group + 1 == self.groups) {
                (true, true) => how::SET_SCALED,
                (true, false) => how::SET,
                (false, true) => how::ADD_SCALED,
                (false, false) => how::ADD,
            };
        }
    }

    /// The only set copies every slice: raw rows are summed straight into the output.
    fn sum_raw_rows(&mut self) {
        let Sweep { sets, slices, terms, work, generator, .. } = self;
        let set = &sets[0];
        for (row, slice) in set.rows.iter().filter_map(|row| Some((row, slices[row]?))) {
            let first = terms.len();
            terms.extend(set.groups.iter().map(|group| group * generator.redundancy() + row));
            work.push(Work::Sum { first, count: set.groups.len(), to: slice });
        }
    }

    /// Sums the rows of a set over its groups, if it has several, then recovers.
    fn sum_set(&mut self, at: usize) {
        let Sweep { sets, terms, work, generator, .. } = self;
        let set = &sets[at];
        if set.groups.len() > 1 {
            for (rank, row) in set.rows.iter().enumerate() {
                let first = terms.len();
                terms.extend(set.groups.iter().map(|group| group * generator.redundancy() + row));
                work.push(Work::Sum { first, count: set.groups.len(), to: rank });
            }
        }
        work.push(Work::Recover { set: at });
    }

    fn tiles(&mut self, shards: &[&[f32]], chunk: &Chunk, scale: f32, out: &mut [f32]) {
        assert_eq!(shards.len(), self.places.len(), "a shard, or an empty slice, for each row of each group");
        assert!(!self.recovers || out.len() == chunk.len, "the output has the length of the chunk");
        let (c, width) = (self.generator.compression(), chunk.width);
        (self.width, self.counted) = (width, 0);
        let r = self.generator.redundancy();
        self.tally.iter().for_each(|&group| self.checker.look_at_norms(group, &shards[group * r..][..r]));
        flushed(|| {
            for (index, start, numbers) in tiles(width) {
                if numbers < VECTOR {
                    self.tail(index, start, shards, scale, chunk, out);
                } else if !self.recovers || (c - 1) * width + start + numbers <= chunk.len {
                    let tile = Tile { index, start, numbers, real: numbers, offset: start, stride: width };
                    self.tile(tile, shards, scale, out);
                } else {
                    self.partial_tile(
                        Tile { index, start, numbers, real: numbers, offset: 0, stride: TILE },
                        start,
                        shards,
                        scale,
                        chunk,
                        out,
                    );
                }
            }
        });
    }

    /// The columns that are no whole vector: padded with zeros.
    fn tail(&mut self, index: usize, start: usize, shards: &[&[f32]], scale: f32, chunk: &Chunk, out: &mut [f32]) {
        let left = chunk.width - start;
        let mut tails = std::mem::replace(&mut self.tails, Aligned::zeros(0));
        let mut padded = recycle(std::mem::take(&mut self.padded));
        for (shard, tail) in shards.iter().zip(tails.chunks_exact_mut(VECTOR)) {
            if !shard.is_empty() {
                tail[..left].copy_from_slice(&shard[start..]);
                tail[left..].fill(0.0);
            }
            padded.push(tail);
        }
        let tile = Tile { index, start: 0, numbers: VECTOR, real: left, offset: 0, stride: TILE };
        self.partial_tile(tile, start, &padded, scale, chunk, out);
        self.padded = recycle(padded);
        self.tails = tails;
    }

    /// A tile of which the output has no room for whole vectors; it begins with the column `start` of the slices.
    fn partial_tile(
        &mut self,
        tile: Tile,
        start: usize,
        shards: &[&[f32]],
        scale: f32,
        chunk: &Chunk,
        out: &mut [f32],
    ) {
        let mut partial = std::mem::replace(&mut self.partial, Aligned::zeros(0));
        self.tile(tile, shards, scale, &mut partial);
        for slice in 0..if self.recovers { self.generator.compression() } else { 0 } {
            let from = slice * chunk.width + start;
            let to = (from + tile.numbers).min((slice + 1) * chunk.width).min(chunk.len);
            if from < to {
                out[from..to].copy_from_slice(&partial[slice * TILE..][..to - from]);
            }
        }
        self.partial = partial;
    }

    fn tile(&mut self, tile: Tile, shards: &[&[f32]], scale: f32, out: &mut [f32]) {
        let Sweep {
            kernels, order, terms, sums, work, sets, plans, summed, factors, generator, checker, slices, ..
        } = self;
        let (kernels, n, r) = (*kernels, tile.numbers, generator.redundancy());
        let columns = tile.start..tile.start + n;
        if !order.is_empty() {
            kernels.draw(&self.key, 0, tile.index, n, factors);
        }
        // As many as the checker takes squares of.
        self.counted += tile.real.min(VECTOR * (n / VECTOR).div_ceil(4));
        for work in &*work {
            let columns = columns.clone();
            match *work {
                Work::Check { group, how } => {
                    let rows = &shards[group * r..][..r];
                    let mut sums = RowSums::none();
                    if how != how::NOT {
                        let numbers = &mut out[tile.offset..];
                        sums = RowSums { numbers, stride: tile.stride, slices, scale };
                    }
                    checker.tile(kernels, group, rows, columns, how, &mut sums);
                }
                Work::Project { first, count } => {
                    let places = first..first + count;
                    project(kernels, shards, &order[places.clone()], columns, factors, &mut sums[places]);
                }
                Work::Sum { first, count, to } => {
                    let terms = &terms[first..first + count];
                    if self.direct {
                        let to = &mut out[tile.offset + to * tile.stride..][..n];
                        kernels.sum(shards, terms, columns, to, scale);
                    } else {
                        kernels.sum(shards, terms, columns, &mut summed[to * TILE..][..n], 1.0);
                    }
                }
                Work::Recover { set: at } => {
                    let set = &sets[at];
                    let mut rows: [&[f32]; ROWS_MAX] = [&[]; ROWS_MAX];
                    for ((rank, slot), row) in rows.iter_mut().enumerate().zip(set.rows.iter()) {
                        *slot = match set.groups.as_slice() {
                            [alone] => &shards[alone * r + row][columns.clone()],
                            _ => &summed[rank * TILE..][..n],
                        };
                    }
                    let plan = plans.at(set.plan);
                    let (copied, factors) = (plan.copied.as_slice(), plan.factors.as_slice());
                    let place = Place { numbers: out, offset: tile.offset, stride: tile.stride, n };
                    let recovery = Recovery { copied, factors, stride: r, scale, add: at > 0 };
                    recovery.run(kernels, &rows[..set.rows.count()], place);
                }
            }
        }
    }
}

/// An empty list in the memory of another one.
pub(crate) fn recycle<'a>(mut list: Vec<&[f32]>) -> Vec<&'a [f32]> {
    list.clear();
    // Collected in place: nothing is allocated, as the tests that count allocations see.
    list.into_iter().map(|_| -> &[f32] { unreachable!("the list is empty") }).collect()
}

/// Eight partial sums, in a fixed order.
fn total(sums: &[f64; 8]) -> f64 {
    sums.iter().sum()
}
