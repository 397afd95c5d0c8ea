//! Words in, words with a verdict out: projects the shards on secret vectors, finds who agrees, and names who does not.

use std::sync::Arc;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::board::{Board, Counter};
use super::ring::{Consumer, Producer};
use super::sabotage::{Bug, planted};
use super::{Context, Job, Limits, Progress, Shard, Stage, ToDecoder, ToLocator, Word, numbers};
use crate::code::{
    self, Outcome, PROJECTIONS_MAX, Parameters, Place, Projected, Projector, Record, RowVerdict, Rows, Tolerance,
};
use crate::wire::{Rule, UndecodableReason};

/// Words and further shards taken in one step.
const MESSAGES_PER_STEP: usize = 16;

/// Finds who lied in the words of one lane.
pub struct Locator {
    job: Arc<Job>,
    board: Arc<Board>,
    lanes: usize,
    words: Consumer<ToLocator>,
    decoder: Producer<ToDecoder>,
    code: code::Locator,
    projector: Projector,
    /// The seed and width that `projector` was drawn from last.
    drawn: Option<([u8; 32], usize)>,
    /// The seed for words of which every shard was in our hands before it was drawn.
    fresh: Option<[u8; 32]>,
    /// Makes the seeds; keyed with the job's secret.
    secret: ChaCha20Rng,
    projected: Vec<Projected>,
    /// One per (round of the history, group, chunk of this lane).
    entries: Vec<Entry>,
    /// The projected code word of each decided entry.
    code_words: Vec<f64>,
    /// Words that need more shards; entries point here.
    waiting: Vec<Option<Waiting>>,
    unused: Vec<u32>,
    /// Per round of the history: the round that was failed there.
    failed: Vec<u64>,
    first: u64,
}

/// A word that needs more shards. It keeps all that it has, also those that were not finite: that there are r_c + s of them
/// bounds how many words can wait.
struct Waiting {
    word: Word,
    reason: UndecodableReason,
}

#[derive(Clone, Copy)]
struct Entry {
    round: u64,
    state: State,
    seed: [u8; 32],
}

#[derive(Clone, Copy)]
enum State {
    Unknown,
    Waiting(u32),
    Decided(Record),
}

/// The key of one lane's secret projections.
fn lane_key(secret: &[u8; 32], lane: usize) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(&(lane as u64).to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// The parameters that decide how many rows must agree.
fn parameters(job: &Job) -> Parameters {
    let p = &job.plan.parameters;
    if planted(Bug::AgreeTooFew) {
        let weaker = Parameters::new(p.groups(), p.adversaries() - 1, p.stragglers() + 2, p.compression());
        return weaker.expect("the same group size");
    }
    *p
}

impl Locator {
    pub(super) fn new(
        job: &Arc<Job>,
        lane: usize,
        lanes: usize,
        board: Arc<Board>,
        words: Consumer<ToLocator>,
        decoder: Producer<ToDecoder>,
    ) -> Locator {
        let limits = Limits::of(&job.plan, job.updates);
        let plan = &job.plan;
        let key = lane_key(&job.secret, lane);
        let tolerance = Tolerance { relative: plan.tolerance };
        // The information sets that the locator draws need no key of their own: nobody outside sees which they were.
        let code = code::Locator::new(parameters(job), job.generator.clone(), tolerance, job.projections, key);
        let entries = limits.history * plan.parameters.groups() * plan.layout.chunks().div_ceil(lanes);
        Locator {
            job: job.clone(),
            board,
            lanes,
            words,
            decoder,
            projector: Projector::new(plan.layout.chunk_width(), job.projections),
            drawn: None,
            fresh: None,
            secret: ChaCha20Rng::from_seed(key),
            projected: vec![Projected { values: [0.0; PROJECTIONS_MAX], norm: 0.0 }; plan.parameters.redundancy()],
            entries: vec![Entry { round: u64::MAX, state: State::Unknown, seed: [0; 32] }; entries],
            code_words: vec![0.0; entries * code.word_len()],
            waiting: (0..limits.located_words).map(|_| None).collect(),
            unused: (0..limits.located_words as u32).rev().collect(),
            failed: vec![u64::MAX; limits.history],
            first: job.first_round(),
            code,
        }
    }

    /// Words that wait for shards now.
    pub(super) fn held(&self) -> usize {
        self.waiting.len() - self.unused.len()
    }

    fn entry(&self, round: u64, group: u32, chunk: u32) -> usize {
        let (groups, chunks) = (self.job.plan.parameters.groups(), self.job.plan.layout.chunks().div_ceil(self.lanes));
        let slot = (round % (2 * u64::from(self.job.plan.window))) as usize;
        (slot * groups + group as usize) * chunks + chunk as usize / self.lanes
    }

    fn draw(&mut self, seed: [u8; 32], width: usize) {
        if self.drawn != Some((seed, width)) {
            self.projector.draw(&seed, width);
            self.drawn = Some((seed, width));
        }
    }

    /// The seed for a word that was in the ring when this step began.
    fn fresh_seed(&mut self) -> [u8; 32] {
        if planted(Bug::KnownProjection) {
            return [0; 32];
        }
        *self.fresh.get_or_insert_with(|| {
            let mut seed = [0; 32];
            self.secret.fill_bytes(&mut seed);
            seed
        })
    }

    /// Decides a word, or keeps it until more shards come.
    fn judge(&mut self, word: Word) {
        if word.round < self.board.closed() {
            // It would wait, with the slots of its workers, until the next round is closed; and that may need these slots.
            return;
        }
        let at = self.entry(word.round, word.group, word.chunk);
        if self.job.plan.rule == Rule::Mean {
            let rows = word.present;
            self.board.count(Counter::WordsLocated, 1);
            self.entries[at] = Entry { round: word.round, state: State::Unknown, seed: [0; 32] };
            self.decoder.push_within_limit(ToDecoder::Located { word, rows });
            return;
        }
        let width = self.job.plan.layout.chunk(word.chunk as usize).width;
        // Drawn after the last shard that it judges was sealed: a liar cannot have known it.
        let seed = self.fresh_seed();
        self.draw(seed, width);
        let (mut present, mut rejected) = (Rows::EMPTY, Rows::EMPTY);
        for row in word.present.iter() {
            let slot = word.shards[row].as_ref().expect("a present row has a shard");
            match self.projector.project(numbers(slot, width)) {
                Some(projected) => {
                    self.projected[row] = projected;
                    present.insert(row);
                }
                None => rejected.insert(row),
            }
        }
        if planted(Bug::SkipFinite) {
            rejected.iter().for_each(|row| self.projected[row] = Projected::default());
            (present, rejected) = (word.present, Rows::EMPTY);
        }
        let length = self.code.word_len();
        let code_word = &mut self.code_words[at * length..(at + 1) * length];
        match self.code.locate(present, rejected, &self.projected, width, code_word) {
            Outcome::Agreed(mut agreement) => {
                if planted(Bug::SkipFinite) {
                    agreement.rows = word.present;
                }
                let ratio = |residual: f64| (residual / agreement.tolerance) as f32;
                self.board.believed(word.round, ratio(agreement.residual), ratio(agreement.received));
                self.name(word.round, word.group, agreement.liars, agreement.suspects);
                self.entries[at] = Entry { round: word.round, state: State::Decided(agreement.record), seed };
                self.send(word, agreement.rows);
            }
            Outcome::Undecided(undecided) => {
                let (arrived, needed) = (present.count() as u32, undecided.needed as u32);
                // Nobody is named before the word is decided: if the honest gradient itself is not finite, all are rejected.
                let reason = if arrived < needed && !rejected.is_empty() {
                    UndecodableReason::NotFinite { arrived: word.present.count() as u32, finite: arrived, needed }
                } else if arrived < needed {
                    UndecodableReason::TooFew { arrived, needed }
                } else {
                    UndecodableReason::Disagree { arrived, agreeing: undecided.best_agreeing as u32, needed }
                };
                if planted(Bug::Guess) && word.present.count() == self.job.plan.parameters.redundancy() {
                    self.entries[at] = Entry { round: word.round, state: State::Unknown, seed };
                    let rows = word.present;
                    self.send(word, rows);
                    return;
                }
                if word.present.count() == self.job.plan.parameters.redundancy() {
                    self.entries[at] = Entry { round: word.round, state: State::Unknown, seed };
                    self.fail(word.round, word.group, word.chunk, reason);
                    return;
                }
                self.board.count(Counter::WordsDisputed, 1);
                let index = self.unused.pop().expect("a waiting word holds r_c + s shards, and there are as many");
                self.entries[at] = Entry { round: word.round, state: State::Waiting(index), seed };
                self.waiting[index as usize] = Some(Waiting { word, reason });
            }
        }
    }

    fn send(&mut self, mut word: Word, rows: Rows) {
        for row in word.present.without(rows).iter() {
            word.shards[row] = None;
        }
        word.present = rows;
        self.board.count(Counter::WordsLocated, 1);
        self.decoder.push_within_limit(ToDecoder::Located { word, rows });
    }

    /// Fails a round, once: one word is enough, and the rings have room for one failure per lane and round.
    fn fail(&mut self, round: u64, group: u32, chunk: u32, reason: UndecodableReason) {
        let slot = (round % self.failed.len() as u64) as usize;
        if std::mem::replace(&mut self.failed[slot], round) == round {
            return;
        }
        self.decoder.push_within_limit(ToDecoder::Undecodable { round, group, chunk, reason });
    }

    fn blame(&self, round: u64, group: u32, row: usize) {
        let worker = self.job.plan.parameters.worker(Place { group: group as usize, row });
        if round >= self.board.closed() {
            self.board.lied(round, worker);
        }
        // Also if the round was closed just now, and its report may have been written without this.
        if round < self.board.closed() {
            self.board.lied_late(worker);
        }
    }

    fn name(&self, round: u64, group: u32, liars: Rows, suspects: Rows) {
        self.board.count(Counter::Suspects, suspects.count() as u64);
        let named = if planted(Bug::BlameSuspects) { liars.union(suspects) } else { liars };
        named.iter().for_each(|row| self.blame(round, group, row));
    }

    /// A shard that came after its word went out: it helps to decide the word, or is checked against what was decided.
    fn further(&mut self, shard: Shard) {
        let place = self.job.plan.parameters.place(shard.worker as usize);
        let at = self.entry(shard.round, place.group as u32, shard.chunk);
        if self.entries[at].round != shard.round {
            return;
        }
        match self.entries[at].state {
            State::Unknown => {}
            State::Waiting(index) => {
                let waiting = self.waiting[index as usize].take().expect("a waiting entry points to a word");
                self.unused.push(index);
                let Waiting { mut word, .. } = waiting;
                word.insert(place.row, shard.slot);
                self.judge(word);
            }
            State::Decided(record) if !planted(Bug::ForgetLate) => {
                let width = self.job.plan.layout.chunk(shard.chunk as usize).width;
                self.draw(self.entries[at].seed, width);
                let projected = self.projector.project(numbers(&shard.slot, width));
                let length = self.code.word_len();
                let code_word = &self.code_words[at * length..(at + 1) * length];
                match self.code.check(&record, code_word, place.row, projected.as_ref()) {
                    RowVerdict::Agrees => {}
                    RowVerdict::Lies => self.blame(shard.round, place.group as u32, place.row),
                    RowVerdict::Suspect => {
                        let suspects = [place.row].into_iter().collect();
                        self.name(shard.round, place.group as u32, Rows::EMPTY, suspects);
                    }
                }
            }
            State::Decided(_) => {}
        }
    }

    /// Drops what waits for shards in rounds that are closed, or fails it in the round whose time is up.
    fn release(&mut self, expired: Option<u64>) {
        let mut failed = None;
        for index in 0..self.waiting.len() {
            let Some(Waiting { word, reason, .. }) = &self.waiting[index] else { continue };
            let over = expired == Some(word.round);
            if !over && word.round >= self.first {
                continue;
            }
            let (round, group, chunk) = (word.round, word.group, word.chunk);
            if over && failed.is_none_or(|(_, g, c, _)| (group, chunk) < (g, c)) {
                failed = Some((round, group, chunk, *reason));
            }
            let at = self.entry(round, group, chunk);
            self.entries[at].state = State::Unknown;
            self.waiting[index] = None;
            self.unused.push(index as u32);
        }
        if let Some((round, group, chunk, reason)) = failed {
            self.fail(round, group, chunk, reason);
        }
    }
}

impl Stage for Locator {
    fn step(&mut self, _context: &Context<'_>) -> Progress {
        let mut busy = false;
        let closed = self.board.closed();
        if closed != self.first {
            self.first = closed;
            self.release(None);
        }
        // What is in the ring now is sealed: one draw serves it all. A word that comes later has to wait for the next one.
        self.fresh = None;
        for _ in 0..self.words.waiting().min(MESSAGES_PER_STEP) {
            let Some(message) = self.words.pop() else { break };
            busy = true;
            match message {
                ToLocator::Word(word) => self.judge(word),
                ToLocator::Further(shard) => self.further(shard),
                ToLocator::Expired { round } => self.release(Some(round)),
                ToLocator::Starved { round, group, chunk, reason } => {
                    // What is known to be wrong tells more than what never came for want of credits.
                    self.release(Some(round));
                    self.fail(round, group, chunk, reason);
                }
            }
        }
        Progress::of(busy)
    }

    fn name(&self) -> &'static str {
        "locate"
    }
}
