//! Words in, update chunks out: gathers the words of a chunk, sweeps over all its shards once, and names who lied.
//!
//! Locating and decoding are one stage: a chunk's shards are read while they are in the cache, and most of what tells whether
//! they agree is what recovers their sum. So the decoder guesses who is honest (those who were in the last chunk), and looks
//! again only where the guess was wrong.

mod judge;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::{Board, Counter};
use super::ring::{Consumer, Producer};
use super::sabotage::{Bug, planted};
use super::update::Finisher;
use super::{Context, Job, Limits, Progress, Shard, Stage, StageName, ToDecoder, ToPusher, Word, Work, numbers};
use crate::code::{Agreement, Chunk, Learn, Rows, Sweep, Task, Undecided, recycle};
use crate::memory::{Slab, Slot};
use crate::wire::{HEADER_BYTES, Rule, UndecodableReason};
use judge::{Judge, Memory};

/// Words and further shards taken in one step.
const MESSAGES_PER_STEP: usize = 16;

/// Decodes one lane's chunks.
pub struct Exact {
    job: Arc<Job>,
    board: Arc<Board>,
    lanes: usize,
    finisher: Finisher,
    updates: Slab,
    messages: Consumer<ToDecoder>,
    pusher: Producer<ToPusher>,
    judge: Judge,
    sweep: Sweep,
    /// Per group: the rows that agreed when they came last.
    honest: Vec<Rows>,
    /// Words that wait for the other groups', or for shards.
    held: Vec<Option<Held>>,
    unused: Vec<u32>,
    /// Chunks of which some group's word has come.
    gathers: Vec<Gather>,
    unused_gathers: Vec<u32>,
    /// Per (round of the history, chunk): its gather.
    index: Vec<Option<u32>>,
    /// Gathers of which every group's word is here, and which were not tried since the last shard came.
    ready: VecDeque<u32>,
    /// Per (round of the history, group, chunk of this lane): what is known of the word.
    entries: Vec<Entry>,
    /// What is kept of each decided word, `word_len` numbers each.
    kept: Vec<f64>,
    /// Room for one attempt.
    tasks: Vec<Task>,
    used: Vec<Rows>,
    shards: Vec<&'static [f32]>,
    /// Room for the shards of a chunk as f32, where they come as 16 bits.
    wide: Vec<Slot>,
    /// Per round of the history: the round that was failed there, and the one whose time was up.
    failed: Vec<u64>,
    expired: Vec<u64>,
    first: u64,
}

/// A word that is not decoded yet.
struct Held {
    word: Word,
    verdict: Verdict,
}

#[derive(Clone, Copy)]
enum Verdict {
    /// Not looked at since its last shard came.
    Unknown,
    /// Decided: these rows agree.
    Agreed(Rows),
    /// It needs more shards.
    Disputed(UndecodableReason),
}

struct Gather {
    round: u64,
    chunk: u32,
    /// Per group: where its word is held.
    words: Vec<Option<u32>>,
    missing: usize,
    /// It is in `ready`.
    queued: bool,
}

impl Gather {
    /// The words of all groups, in their order, if every one is here.
    fn words<'a>(&'a self, held: &'a [Option<Held>]) -> impl Iterator<Item = &'a Held> {
        self.words.iter().map(|at| {
            let at = at.expect("every group's word is here") as usize;
            held[at].as_ref().expect("a gather points to held words")
        })
    }
}

#[derive(Clone, Copy)]
struct Entry {
    round: u64,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Unknown,
    Held(u32),
    Decided(Memory),
}

impl Exact {
    pub(super) fn new(job: &Arc<Job>, work: Work) -> Exact {
        let Work { lane, lanes, board, updates, mut wide, messages, pusher } = work;
        let limits = Limits::of(&job.plan, job.updates);
        let (groups, layout) = (job.plan.parameters.groups(), &job.plan.layout);
        let gather = |_| Gather { round: 0, chunk: 0, words: vec![None; groups], missing: groups, queued: false };
        let judge = Judge::new(job, lane, board.clone(), wide.pop());
        let entries = limits.history * groups * layout.chunks().div_ceil(lanes);
        Exact {
            job: job.clone(),
            lanes,
            finisher: Finisher::new(job, &board),
            board,
            updates,
            messages,
            pusher,
            sweep: Sweep::new(job.generator.clone(), groups, job.verify, job.tolerance()),
            honest: vec![Rows::first(job.plan.parameters.redundancy()); groups],
            held: (0..limits.located_words).map(|_| None).collect(),
            unused: (0..limits.located_words as u32).rev().collect(),
            gathers: (0..limits.located_words).map(gather).collect(),
            unused_gathers: (0..limits.located_words as u32).rev().collect(),
            index: vec![None; limits.history * layout.chunks()],
            ready: VecDeque::with_capacity(limits.located_words),
            entries: vec![Entry { round: u64::MAX, state: State::Unknown }; entries],
            kept: vec![0.0; entries * judge.word_len()],
            tasks: Vec::with_capacity(groups),
            used: Vec::with_capacity(groups),
            shards: Vec::with_capacity(job.plan.parameters.workers()),
            wide,
            failed: vec![u64::MAX; limits.history],
            expired: vec![u64::MAX; limits.history],
            first: job.first_round(),
            judge,
        }
    }

    /// Words, and chunks of which some word is here, that wait for others now.
    pub(super) fn held(&self) -> usize {
        (self.held.len() - self.unused.len()) + (self.gathers.len() - self.unused_gathers.len())
    }

    fn history(&self, round: u64) -> usize {
        (round % (2 * u64::from(self.job.plan.window))) as usize
    }

    fn place(&self, round: u64, chunk: u32) -> usize {
        self.history(round) * self.job.plan.layout.chunks() + chunk as usize
    }

    fn entry(&self, round: u64, group: u32, chunk: u32) -> usize {
        let (groups, chunks) = (self.honest.len(), self.job.plan.layout.chunks().div_ceil(self.lanes));
        (self.history(round) * groups + group as usize) * chunks + chunk as usize / self.lanes
    }

    fn take_in(&mut self, word: Word) {
        if word.round < self.board.closed() {
            // It would wait, with the slots of its workers, until the next round is closed; and that may need these slots.
            return;
        }
        let (place, group) = (self.place(word.round, word.chunk), word.group as usize);
        if let Some(stale) = self.index[place].filter(|index| self.gathers[*index as usize].round != word.round) {
            // Of a round that was closed since this step began.
            self.discard(stale);
        }
        let index = match self.index[place] {
            Some(index) => index,
            None => {
                let index = self.unused_gathers.pop().expect("a gather holds at least one word");
                let gather = &mut self.gathers[index as usize];
                (gather.round, gather.chunk, gather.missing) = (word.round, word.chunk, gather.words.len());
                self.index[place] = Some(index);
                index
            }
        };
        let at = self.unused.pop().expect("a held word holds r_c + s shards, and there are as many");
        let entry = self.entry(word.round, word.group, word.chunk);
        self.entries[entry] = Entry { round: word.round, state: State::Held(at) };
        self.held[at as usize] = Some(Held { word, verdict: Verdict::Unknown });
        let gather = &mut self.gathers[index as usize];
        gather.words[group] = Some(at);
        gather.missing -= 1;
        self.queue(index);
    }

    /// It may be that this chunk can be decoded now.
    fn queue(&mut self, index: u32) {
        let gather = &mut self.gathers[index as usize];
        if gather.missing == 0 && !std::mem::replace(&mut gather.queued, true) {
            self.ready.push_back(index);
        }
    }

    /// Forgets a chunk, and every word of it that is held.
    fn discard(&mut self, index: u32) {
        let Gather { round, chunk, queued, .. } = self.gathers[index as usize];
        if queued {
            self.ready.retain(|ready| *ready != index);
            self.gathers[index as usize].queued = false;
        }
        let place = self.place(round, chunk);
        self.index[place] = None;
        for group in 0..self.honest.len() {
            let Some(at) = self.gathers[index as usize].words[group].take() else { continue };
            self.held[at as usize] = None;
            self.unused.push(at);
            let entry = self.entry(round, group as u32, chunk);
            if let Entry { state: state @ State::Held(_), .. } = &mut self.entries[entry] {
                *state = State::Unknown;
            }
        }
        self.unused_gathers.push(index);
    }

    /// Drops what is left of rounds that are closed.
    fn release(&mut self, closed: u64) {
        for place in 0..self.index.len() {
            if let Some(index) = self.index[place].filter(|index| self.gathers[*index as usize].round < closed) {
                self.discard(index);
            }
        }
        self.first = closed;
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
            State::Held(held) => {
                let Held { word, verdict } = self.held[held as usize].as_mut().expect("an entry points to a held word");
                word.insert(place.row, shard.slot);
                *verdict = Verdict::Unknown;
                let gather = self.index[self.place(shard.round, shard.chunk)].expect("a held word is in a gather");
                self.queue(gather);
            }
            State::Decided(memory) => {
                let length = self.judge.word_len();
                self.judge.check_late(&shard, place, &memory, &self.kept[at * length..][..length]);
            }
        }
    }

    /// Fails a round, once: one word is enough, and the rings have room for one failure per lane and round.
    fn fail(&mut self, round: u64, group: u32, chunk: u32, reason: UndecodableReason) {
        let slot = self.history(round);
        if std::mem::replace(&mut self.failed[slot], round) != round {
            self.pusher.push_within_limit(ToPusher::Undecodable { round, group, chunk, reason });
        }
    }

    /// The round's time is up: says of its words what can be said, and fails it if one of them is in dispute.
    fn expire(&mut self, round: u64) {
        let began = Instant::now();
        let slot = self.history(round);
        self.expired[slot] = round;
        let mut failed = None;
        for chunk in 0..self.job.plan.layout.chunks() as u32 {
            let Some(index) = self.index[self.place(round, chunk)] else { continue };
            let Gather { round: found, queued, .. } = self.gathers[index as usize];
            // What is complete is tried as soon as there is a slot for it.
            if found != round || queued {
                continue;
            }
            let seed = self.judge.fresh_seed();
            for group in 0..self.honest.len() {
                let Some(at) = self.gathers[index as usize].words[group] else { continue };
                if let Verdict::Unknown = self.verdict(at) {
                    self.judge_alone(at, &seed);
                }
                if let Verdict::Disputed(reason) = self.verdict(at) {
                    failed.get_or_insert((group as u32, chunk, reason));
                }
            }
            self.discard(index);
        }
        self.board.spent(round, began.elapsed(), Duration::ZERO);
        if let Some((group, chunk, reason)) = failed {
            self.fail(round, group, chunk, reason);
        }
    }

    fn verdict(&self, held: u32) -> Verdict {
        self.held[held as usize].as_ref().expect("a gather points to held words").verdict
    }

    /// Judges a held word that no sweep has looked at.
    fn judge_alone(&mut self, held: u32, seed: &[u8; 32]) {
        let Held { mut word, .. } = self.held[held as usize].take().expect("it is held");
        let verdict = if self.job.plan.rule == Rule::MEAN {
            let rows = word.present;
            self.agreed(&mut word, rows, Counter::WordsClean)
        } else {
            let (at, length) = (self.entry(word.round, word.group, word.chunk), self.judge.word_len());
            let width = self.job.plan.layout.chunk(word.chunk as usize).width;
            let kept = &mut self.kept[at * length..][..length];
            let judged = self.judge.judge_exactly(&word, seed, width, kept);
            self.settle(&mut word, judged)
        };
        self.held[held as usize] = Some(Held { word, verdict });
    }

    /// Draws the consequences of what was found out about a word.
    fn settle(&mut self, word: &mut Word, judged: Result<(Agreement, Memory), Undecided>) -> Verdict {
        let at = self.entry(word.round, word.group, word.chunk);
        let complete = word.present == Rows::first(self.job.plan.parameters.redundancy());
        match judged {
            Ok((agreement, memory)) => {
                self.judge.announce(word, &agreement);
                self.entries[at] = Entry { round: word.round, state: State::Decided(memory) };
                let found = match (agreement.liars.is_empty(), agreement.suspects.is_empty()) {
                    (false, _) => Counter::WordsLied,
                    (true, false) => Counter::WordsSuspect,
                    (true, true) => Counter::WordsClean,
                };
                self.agreed(word, agreement.rows, found)
            }
            Err(_) if complete && planted(Bug::Guess) => self.agreed(word, word.present, Counter::WordsClean),
            Err(undecided) => {
                let reason = Judge::reason(&undecided);
                if complete || self.expired[self.history(word.round)] == word.round {
                    self.fail(word.round, word.group, word.chunk, reason);
                } else {
                    self.board.count(Counter::WordsDisputed, 1);
                }
                Verdict::Disputed(reason)
            }
        }
    }

    /// Keeps the shards of the rows that agree, and gives back the others.
    fn agreed(&self, word: &mut Word, rows: Rows, found: Counter) -> Verdict {
        for row in word.present.without(rows).iter().filter(|_| !planted(Bug::OneSetForAll)) {
            word.shards[row] = None;
        }
        word.present = rows;
        self.board.count(found, 1);
        Verdict::Agreed(rows)
    }

    /// What is to be learnt of a held word, and which rows are guessed to be honest.
    fn task(&self, group: usize, held: &Held) -> Task {
        let (present, parameters) = (held.word.present, &self.job.plan.parameters);
        let known = match held.verdict {
            Verdict::Agreed(rows) => Some(rows),
            _ if self.job.plan.rule == Rule::MEAN => Some(present),
            _ => None,
        };
        if let Some(rows) = known {
            return Task { present: rows, used: self.sweep.used(rows), learn: Learn::Nothing };
        }
        let kept = self.honest[group].intersection(present);
        let guess = if kept.count() >= parameters.agreement() { kept } else { present };
        let complete = guess == Rows::first(parameters.redundancy());
        let learn = if complete && self.sweep.can_check() { Learn::Whether } else { Learn::Who };
        Task { present, used: self.sweep.used(guess), learn }
    }

    /// Tries to decode a chunk of which every group's word is here. `false` if some word needs more shards; then `out` is not an
    /// update. Says also how long it took to judge who agrees.
    fn attempt(&mut self, index: u32, out: &mut [f32], chunk: &Chunk) -> (bool, Duration) {
        // Drawn after the last shard that it judges was sealed: a liar cannot have known it.
        let seed = self.judge.fresh_seed();
        let (mut tasks, mut used) = (std::mem::take(&mut self.tasks), std::mem::take(&mut self.used));
        tasks.clear();
        tasks.extend(
            self.gathers[index as usize].words(&self.held).enumerate().map(|(group, held)| self.task(group, held)),
        );
        let scale = self.job.plan.scale;
        self.with_shards(index, chunk, |sweep, shards| {
            sweep.run_and_look(&seed, &mut tasks, shards, chunk, scale, out);
        });
        used.clear();
        // Where nobody is in doubt there is nothing to locate, and no reason to look at the clock.
        let doubt = tasks.iter().any(|task| matches!(task.learn, Learn::Who)).then(Instant::now);
        for (group, task) in tasks.iter().enumerate() {
            let rows = self.conclude(index, group, task, &seed, chunk.width);
            used.extend(rows.map(|rows| self.sweep.used(rows)));
        }
        let locating = doubt.map_or(Duration::ZERO, |since| since.elapsed());
        let decided = used.len() == tasks.len();
        if planted(Bug::OneSetForAll) && decided {
            let first = used[0];
            for (used, held) in used.iter_mut().zip(self.gathers[index as usize].words(&self.held)) {
                if first.iter().all(|row| held.word.shards[row].is_some()) {
                    *used = first;
                }
            }
        }
        if decided && used.iter().zip(&tasks).any(|(used, task)| *used != task.used) {
            // The guess was wrong: recovers from the rows that agree.
            self.board.count(Counter::ChunksRepeated, 1);
            self.with_shards(index, chunk, |sweep, shards| sweep.recover(&used, shards, chunk, scale, out));
        }
        (self.tasks, self.used) = (tasks, used);
        (decided, locating)
    }

    /// Has the sweep do something with the shards of a chunk, in the order of groups and rows; absent ones are empty.
    fn with_shards<T>(&mut self, index: u32, chunk: &Chunk, work: impl FnOnce(&mut Sweep, &[&[f32]]) -> T) -> T {
        let Exact { gathers, held, sweep, job, wide, .. } = self;
        let (r, precision) = (job.plan.parameters.redundancy(), job.plan.precision);
        let mut shards = recycle(std::mem::take(&mut self.shards));
        let mut rooms = wide.iter_mut();
        for word in gathers[index as usize].words(held).map(|held| &held.word) {
            for slot in &word.shards[..r] {
                let room = rooms.next();
                shards.push(slot.as_ref().map_or(&[], |slot| numbers(slot, chunk.width, precision, room)));
            }
        }
        let result = work(sweep, &shards);
        self.shards = recycle(shards);
        result
    }

    /// Draws the consequences of what a sweep has learnt of a group's word; the rows that agree, if it is decided.
    fn conclude(&mut self, index: u32, group: usize, task: &Task, seed: &[u8; 32], width: usize) -> Option<Rows> {
        let at = self.gathers[index as usize].words[group].expect("every group's word is here") as usize;
        let Held { mut word, verdict } = self.held[at].take().expect("a gather points to held words");
        let (came, place) = (word.present, self.entry(word.round, word.group, word.chunk));
        let verdict = match (verdict, task.learn) {
            (Verdict::Agreed(rows), _) => Verdict::Agreed(rows),
            (_, Learn::Who) => {
                let length = self.judge.word_len();
                let kept = &mut self.kept[place * length..][..length];
                let judged = self.judge.judge_swept(&word, &self.sweep, seed, width, kept);
                self.settle(&mut word, judged)
            }
            (_, Learn::Nothing | Learn::Whether) => {
                if self.job.plan.rule != Rule::MEAN {
                    let ratio = self.sweep.ratio(group) as f32;
                    self.board.believed(word.round, group, ratio, ratio);
                }
                // Complete, or nobody checks anything: no shard can come that would have to be checked.
                self.entries[place] = Entry { round: word.round, state: State::Unknown };
                self.agreed(&mut word, came, Counter::WordsClean)
            }
        };
        self.held[at] = Some(Held { word, verdict });
        let Verdict::Agreed(rows) = verdict else { return None };
        // Who is only absent may be honest.
        self.honest[group] = self.honest[group].union(rows).without(came.without(rows));
        Some(rows)
    }

    /// Says when it was done; it began at `since`.
    fn decode(&mut self, index: u32, mut slot: Slot, since: Instant) -> Instant {
        let Gather { round, chunk: number, .. } = self.gathers[index as usize];
        let chunk = self.job.plan.layout.chunk(number as usize);
        let len = HEADER_BYTES + 4 * chunk.len;
        let out: &mut [f32] = bytemuck::cast_slice_mut(&mut slot[HEADER_BYTES..len]);
        let (decided, locating) = self.attempt(index, out, &chunk);
        let spent = |board: &Board| {
            let now = Instant::now();
            board.spent(round, locating, (now - since).saturating_sub(locating));
            now
        };
        if !decided {
            return spent(&self.board);
        }
        let update = self.finisher.update(round, number, slot);
        self.discard(index);
        // Before the pusher has it, and may close the round.
        let now = spent(&self.board);
        match update {
            Some(update) => self.pusher.push_within_limit(update),
            // Infinity is not what the workers' gradients add up to.
            None => self.fail(round, 0, number, UndecodableReason::TooLarge),
        }
        now
    }
}

impl Stage for Exact {
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
                ToDecoder::Further(shard) => self.further(shard),
                ToDecoder::Expired { round } => self.expire(round),
                ToDecoder::Starved { round, group, chunk, reason } => {
                    // What is known to be wrong tells more than what never came for want of credits.
                    self.expire(round);
                    self.fail(round, group, chunk, reason);
                }
            }
        }
        let mut since: Option<Instant> = None;
        while let Some(&index) = self.ready.front() {
            let Some(slot) = self.updates.take(0) else { break };
            let began = since.unwrap_or_else(Instant::now);
            self.ready.pop_front();
            self.gathers[index as usize].queued = false;
            since = Some(self.decode(index, slot, began));
            busy = true;
        }
        Progress::of(busy)
    }

    fn name(&self) -> StageName {
        StageName::Decode
    }
}
