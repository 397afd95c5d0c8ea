//! Words in, update chunks out, where every worker computes something else and a rule guesses which are right.
//!
//! Rules that look at a coordinate at a time combine a chunk as soon as its word is here. Those that look at whole gradients hold a round's
//! words, in the slots that they arrived in, until the last chunk was surveyed; then all lanes make the same choice, each for itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use num_complex::Complex64;

use super::board::{Board, Counter};
use super::ring::{Consumer, Producer};
use super::survey::{Survey, Surveyed, pair, pairs};
use super::update::Finisher;
use super::{Context, Job, Limits, Progress, Shape, Stage, StageName, ToDecoder, ToPusher, Word, Work, numbers};
use crate::code::{Chunk, Kernels, Precision, ROWS_MAX, Rows};
use crate::memory::{Slab, Slot};
use crate::rules::gram::Gram;
use crate::rules::{Rule, Steady, TooFew, cyclic, sign};
use crate::wire::{HEADER_BYTES, UndecodableReason};

/// Words taken in one step.
const MESSAGES_PER_STEP: usize = 16;

/// How a job's uncoded gradients become one.
#[derive(Clone, Debug, PartialEq)]
pub struct Robust {
    /// The rule.
    pub rule: Rule,
    /// How many workers may lie, f.
    pub adversaries: usize,
    /// How many may be missing.
    pub missing: usize,
    /// The samples behind each worker's gradient, relative to those of the others.
    pub weights: Vec<f64>,
}

impl Robust {
    /// Can the rule be followed while as many are missing as may be?
    ///
    /// # Errors
    /// If too few are left: with the bound.
    pub fn check(&self) -> Result<(), TooFew> {
        self.rule.check(self.weights.len().saturating_sub(self.missing), self.adversaries)
    }
}

/// Combines one lane's chunks.
pub struct Combiner {
    job: Arc<Job>,
    shape: Shape,
    board: Arc<Board>,
    lane: usize,
    lanes: usize,
    finisher: Finisher,
    updates: Slab,
    messages: Consumer<ToDecoder>,
    pusher: Producer<ToPusher>,
    kernels: Kernels,
    rule: Steady,
    /// Where a code of all workers combines them.
    cyclic: Option<cyclic::Decoder>,
    survey: Option<Surveyor>,
    /// Room for the shards of a chunk as f32, where they come as 16 bits.
    wide: Vec<Slot>,
    /// Per (round of the history, chunk of this lane): a word that is not combined yet.
    held: Vec<Option<Word>>,
    /// Those that can be.
    ready: VecDeque<u32>,
    /// Per round of the history: the round that was failed there.
    failed: Vec<u64>,
    first: u64,
}

/// What a lane surveys with.
struct Surveyor {
    shared: Arc<Survey>,
    gram: Gram,
    /// Of all pairs, over all chunks.
    products: Vec<f64>,
    /// Stands for the row of an absent worker.
    absent: Vec<f32>,
    /// Per round of the history: the round that was chosen for there.
    chosen: Vec<u64>,
}

impl Combiner {
    pub(super) fn new(job: &Arc<Job>, robust: &Robust, survey: Option<Arc<Survey>>, work: Work) -> Combiner {
        let Work { lane, lanes, board, updates, wide, messages, pusher } = work;
        let (limits, shape) = (Limits::of(&job.plan, job.updates), job.shape());
        let places = limits.history * job.plan.layout.chunks().div_ceil(lanes);
        let rule = Steady::new(robust.rule, robust.adversaries, &robust.weights, shape.needed);
        let surveyor = |shared| Surveyor {
            shared,
            gram: Gram::new(shape.rows),
            products: vec![0.0; pairs(shape.rows)],
            absent: vec![0.0; job.plan.layout.chunk_width()],
            chosen: vec![u64::MAX; limits.history],
        };
        let width = job.plan.layout.chunk_width();
        let decoder = || cyclic::Decoder::new(shape.rows, robust.adversaries, width, cyclic_key(&job.secret));
        Combiner {
            cyclic: (robust.rule == Rule::Cyclic).then(decoder),
            finisher: Finisher::new(job, &board),
            job: job.clone(),
            shape,
            board,
            lane,
            lanes,
            updates,
            messages,
            pusher,
            kernels: Kernels::best(),
            rule: rule.unwrap_or_else(|error| panic!("a job that was checked: {error}")),
            survey: survey.map(surveyor),
            wide,
            held: (0..places).map(|_| None).collect(),
            ready: VecDeque::with_capacity(places),
            failed: vec![u64::MAX; limits.history],
            first: job.first_round(),
        }
    }

    /// Words that wait now.
    pub(super) fn held(&self) -> usize {
        self.held.iter().flatten().count()
    }

    fn history(&self, round: u64) -> usize {
        (round % self.failed.len() as u64) as usize
    }

    /// Where the words of a round begin.
    fn places(&self, round: u64) -> std::ops::Range<usize> {
        let chunks = self.held.len() / self.failed.len();
        let start = self.history(round) * chunks;
        start..start + chunks
    }

    fn has_failed(&self, round: u64) -> bool {
        self.failed[self.history(round)] == round
    }

    /// Fails a round, once: the rings have room for one failure per lane and round.
    fn fail(&mut self, round: u64, chunk: u32, reason: UndecodableReason) {
        let slot = self.history(round);
        if std::mem::replace(&mut self.failed[slot], round) != round {
            self.pusher.push_within_limit(ToPusher::Undecodable { round, group: 0, chunk, reason });
        }
    }

    fn take_in(&mut self, word: Word) {
        if word.round < self.board.closed() || self.has_failed(word.round) {
            // It would wait, with the slots of its workers, until the next round is closed; and that may need these slots.
            return;
        }
        let place = self.places(word.round).start + word.chunk as usize / self.lanes;
        if self.survey.is_some() {
            self.look(&word);
        }
        if self.held[place].replace(word).is_some() {
            // Of a round that was closed since this step began.
            self.ready.retain(|ready| *ready as usize != place);
        }
        if self.survey.is_none() {
            self.ready.push_back(place as u32);
        }
    }

    /// Surveys a word.
    fn look(&mut self, word: &Word) {
        let since = Instant::now();
        let Combiner { job, survey, wide, shape, kernels, .. } = self;
        let Some(Surveyor { shared, gram, absent, .. }) = survey else { return };
        let chunk = job.plan.layout.chunk(word.chunk as usize);
        let rows = rows_of(word, &chunk, job.plan.precision, wide, &absent[..chunk.width]);
        let rows = &rows[..shape.rows];
        gram.clear();
        gram.add(rows);
        // A square may be infinite though the row is not.
        let suspects = word.present.iter().filter(|row| !gram.is_finite(*row));
        let broken = suspects.filter(|row| !kernels.largest(rows[*row]).is_finite()).collect();
        let found = Surveyed { present: word.present, broken };
        shared.publish(word.round, word.chunk, found, |i, j| gram.product(i, j));
        self.board.spent(word.round, since.elapsed(), Duration::ZERO);
    }

    /// Chooses for every round that is surveyed and was not chosen for, once nothing of another round waits to be combined.
    fn choose(&mut self) -> bool {
        let mut busy = false;
        for round in self.first..self.first + u64::from(self.job.plan.window) {
            let slot = self.history(round);
            let Some(Surveyor { shared, products, chosen, .. }) = &mut self.survey else { return false };
            if !self.ready.is_empty() || chosen[slot] == round || !shared.is_complete(round) {
                continue;
            }
            chosen[slot] = round;
            busy = true;
            let since = Instant::now();
            let Surveyed { present, broken } = shared.collect(round, products);
            // What was read before is not read after the board.
            fence(Ordering::Acquire);
            if round < self.board.closed() {
                // The cells may be another round's by now.
                continue;
            }
            if present.count() >= self.shape.needed && broken.count() <= self.shape.adversaries {
                self.rule.choose(present.iter(), |i, j| products[pair(i, j)]);
                let places = self.places(round);
                self.ready.extend(places.filter(|place| self.held[*place].is_some()).map(|place| place as u32));
                // One lane says so for all.
                if self.lane == 0 {
                    broken.iter().for_each(|row| self.blame(round, row));
                }
            } else {
                self.fail(round, self.lane as u32, self.reason(present, broken));
            }
            self.board.spent(round, since.elapsed(), Duration::ZERO);
        }
        busy
    }

    /// Why no choice is made among these rows.
    fn reason(&self, present: Rows, broken: Rows) -> UndecodableReason {
        let (arrived, needed) = (present.count() as u32, self.shape.needed as u32);
        if arrived < needed {
            return UndecodableReason::TooFew { arrived, needed };
        }
        // As many as cannot all lie: nobody is named.
        let finite = present.without(broken).count() as u32;
        UndecodableReason::NotFinite { arrived, finite, needed: arrived - self.shape.adversaries as u32 }
    }

    fn blame(&self, round: u64, worker: usize) {
        if round >= self.board.closed() {
            self.board.lied(round, worker);
        } else {
            self.board.lied_late(worker);
        }
    }

    /// Combines a word into `out`; or why not.
    fn combine(&mut self, word: &Word, chunk: &Chunk, out: &mut [f32]) -> Result<(), UndecodableReason> {
        let (precision, scale) = (self.job.plan.precision, self.job.plan.scale);
        if self.cyclic.is_some() {
            return self.correct(word, chunk, scale, out);
        }
        if precision == Precision::Sign {
            vote(word, chunk.width, out);
            self.board.count(Counter::WordsClean, 1);
            return Ok(());
        }
        let mut wide = std::mem::take(&mut self.wide);
        let rows = rows_of(word, chunk, precision, &mut wide, &[]);
        let combined = self.combine_rows(word, &rows[..self.shape.rows], scale, out);
        self.wide = wide;
        combined
    }

    /// Decodes a word of the cyclic code into `out`.
    fn correct(&mut self, word: &Word, chunk: &Chunk, scale: f32, out: &mut [f32]) -> Result<(), UndecodableReason> {
        let Some(decoder) = &mut self.cyclic else { return Ok(()) };
        let mut rows: [&[Complex64]; ROWS_MAX] = [&[]; ROWS_MAX];
        let bytes = HEADER_BYTES..HEADER_BYTES + self.job.plan.shard_bytes(chunk.width);
        for row in word.present.iter() {
            let slot = word.shards[row].as_ref().expect("a present row has a shard");
            rows[row] = bytemuck::cast_slice(&slot[bytes.clone()]);
        }
        let (arrived, needed) = (word.present.count() as u32, (self.shape.rows - self.shape.adversaries) as u32);
        let wrong = decoder.decode(&rows[..self.shape.rows], scale, out);
        let wrong = wrong.map_err(|_| UndecodableReason::Disagree { arrived, agreeing: needed - 1, needed })?;
        let lied: Rows = wrong.iter().copied().filter(|row| word.present.contains(*row)).collect();
        lied.iter().for_each(|row| self.blame(word.round, row));
        self.board.count(if lied.is_empty() { Counter::WordsClean } else { Counter::WordsLied }, 1);
        Ok(())
    }

    fn combine_rows(
        &mut self,
        word: &Word,
        rows: &[&[f32]],
        scale: f32,
        out: &mut [f32],
    ) -> Result<(), UndecodableReason> {
        if self.survey.is_none() {
            let broken: Rows =
                word.present.iter().filter(|row| !self.kernels.largest(rows[*row]).is_finite()).collect();
            if broken.count() > self.shape.adversaries {
                return Err(self.reason(word.present, broken));
            }
            broken.iter().for_each(|row| self.blame(word.round, row));
            self.board.count(if broken.is_empty() { Counter::WordsClean } else { Counter::WordsLied }, 1);
            self.rule.choose(word.present.iter(), |_, _| 0.0);
        } else {
            self.board.count(Counter::WordsClean, 1);
        }
        self.rule.combine(rows, scale, out);
        Ok(())
    }

    /// Makes an update of the next word that is ready; says when it was done. It began at `since`.
    fn decode(&mut self, place: u32, mut slot: Slot, since: Instant) -> Instant {
        let Some(word) = self.held[place as usize].take() else { return since };
        let (round, number) = (word.round, word.chunk);
        if self.has_failed(round) {
            return since;
        }
        let chunk = self.job.plan.layout.chunk(number as usize);
        let out: &mut [f32] = bytemuck::cast_slice_mut(&mut slot[HEADER_BYTES..HEADER_BYTES + 4 * chunk.len]);
        let combined = self.combine(&word, &chunk, out);
        drop(word);
        let update =
            combined.and_then(|()| self.finisher.update(round, number, slot).ok_or(UndecodableReason::TooLarge));
        // Before the pusher has it, and may close the round.
        let now = Instant::now();
        self.board.spent(round, Duration::ZERO, now - since);
        match update {
            Ok(update) => self.pusher.push_within_limit(update),
            Err(reason) => self.fail(round, number, reason),
        }
        now
    }

    /// Drops what is left of rounds that are closed.
    fn release(&mut self, closed: u64) {
        for word in self.held.iter_mut().filter(|word| word.as_ref().is_some_and(|word| word.round < closed)) {
            *word = None;
        }
        self.ready.retain(|place| self.held[*place as usize].is_some());
        self.first = closed;
    }
}

/// The key of the cyclic code's secret vector: every lane has the same.
fn cyclic_key(secret: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("solon cyclic code, version 1", secret)
}

/// The numbers of each row of a word; those of absent ones are `absent`.
fn rows_of<'a>(
    word: &'a Word,
    chunk: &Chunk,
    precision: Precision,
    wide: &'a mut [Slot],
    absent: &'a [f32],
) -> [&'a [f32]; ROWS_MAX] {
    let mut rows = [absent; ROWS_MAX];
    let mut rooms = wide.iter_mut();
    for row in word.present.iter() {
        let slot = word.shards[row].as_ref().expect("a present row has a shard");
        rows[row] = numbers(slot, chunk.width, precision, rooms.next());
    }
    rows
}

/// The sign that most of a word's rows have, per number.
fn vote(word: &Word, width: usize, out: &mut [f32]) {
    let mut rows: [&[u64]; ROWS_MAX] = [&[]; ROWS_MAX];
    let bytes = HEADER_BYTES..HEADER_BYTES + size_of::<u64>() * width.div_ceil(sign::SIGNS);
    for (to, slot) in rows.iter_mut().zip(word.shards.iter().flatten()) {
        // Slots end on lines of the cache; what stands behind the last sign is not counted.
        *to = bytemuck::cast_slice(&slot[bytes.clone()]);
    }
    sign::vote(&rows[..word.present.count()], out);
}

impl Stage for Combiner {
    fn step(&mut self, _context: &Context<'_>) -> Progress {
        let mut busy = false;
        let closed = self.board.closed();
        if closed != self.first {
            self.release(closed);
        }
        for _ in 0..MESSAGES_PER_STEP {
            let Some(message) = self.messages.pop() else { break };
            busy = true;
            match message {
                ToDecoder::Word(word) => self.take_in(word),
                // A guess says nothing of who was not part of it, and what is here can be combined.
                ToDecoder::Further(_) | ToDecoder::Expired { .. } => {}
                ToDecoder::Starved { round, chunk, reason, .. } => self.fail(round, chunk, reason),
            }
        }
        busy |= self.choose();
        let mut since: Option<Instant> = None;
        while let Some(&place) = self.ready.front() {
            let Some(slot) = self.updates.take(0) else { break };
            let began = since.unwrap_or_else(Instant::now);
            self.ready.pop_front();
            since = Some(self.decode(place, slot, began));
            busy = true;
        }
        Progress::of(busy)
    }

    fn name(&self) -> StageName {
        StageName::Decode
    }
}
