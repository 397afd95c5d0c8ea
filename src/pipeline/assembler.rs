//! Shards in, words out: gathers the shards of each (round, group, chunk), at most one per worker, and keeps the rounds' time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::board::{Board, Counter};
use super::ring::{Consumer, Producer};
use super::sabotage::{Bug, planted};
use super::{Context, Job, Limits, Progress, Shape, Shard, Stage, StageName, ToDecoder, Word};
use crate::code::Rows;
use crate::wire::UndecodableReason;

/// Shards taken in one step.
const SHARDS_PER_STEP: usize = 64;

/// Gathers shards into words.
pub struct Assembler {
    job: Arc<Job>,
    shape: Shape,
    board: Arc<Board>,
    shards: Consumer<Shard>,
    decoders: Vec<Producer<ToDecoder>>,
    /// One entry per (round of the history, group, chunk).
    ledger: Vec<Entry>,
    /// Words whose shards are being gathered; entries of the ledger point here.
    open: Vec<Option<Word>>,
    unused: Vec<u32>,
    /// What the board said when we looked last whether somebody waited for had left or was ready only for a later round.
    membership: u64,
    rounds: Vec<Round>,
    /// The first round that was not closed when we looked last.
    first: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    round: u64,
    arrived: Rows,
    state: State,
}

#[derive(Clone, Copy)]
struct Lingering {
    since: Instant,
    at: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Empty,
    Open(u32),
    Sent,
}

/// A round in the window.
#[derive(Clone)]
struct Round {
    /// Per group: the rows that have begun.
    begun: Vec<Rows>,
    /// Since s + 1 workers of one group have begun and the round before is closed.
    since: Option<Instant>,
    expired: bool,
    /// Per group: rows that a word has waited for in vain. No other word of the round waits for them: a worker has a few words' credits,
    /// and while these wait it cannot send the next.
    missed: Vec<Rows>,
    /// Words with r_c + s shards that wait for more, in the order in which they began to; some were sent meanwhile.
    lingering: VecDeque<Lingering>,
}

impl Assembler {
    pub(super) fn new(
        job: &Arc<Job>,
        board: Arc<Board>,
        shards: Consumer<Shard>,
        decoders: Vec<Producer<ToDecoder>>,
    ) -> Assembler {
        let limits = Limits::of(&job.plan, job.updates);
        let (shape, chunks) = (job.shape(), job.plan.layout.chunks());
        let groups = shape.words;
        let first = job.first_round();
        let empty = Entry { round: u64::MAX, arrived: Rows::EMPTY, state: State::Empty };
        let round = || Round {
            begun: vec![Rows::EMPTY; groups],
            since: None,
            expired: false,
            missed: vec![Rows::EMPTY; groups],
            // Every word lingers at most once.
            lingering: VecDeque::with_capacity(if job.linger.is_zero() { 0 } else { groups * chunks }),
        };
        // Every open word is another one, and holds at least one shard.
        let words = limits.words.min(job.plan.window as usize * groups * chunks);
        Assembler {
            job: job.clone(),
            shape,
            board,
            shards,
            decoders,
            ledger: vec![empty; limits.history * groups * chunks],
            open: (0..words).map(|_| None).collect(),
            unused: (0..words as u32).rev().collect(),
            membership: 0,
            rounds: (0..job.plan.window).map(|_| round()).collect(),
            first,
        }
    }

    /// Words whose shards are being gathered now.
    pub(super) fn held(&self) -> usize {
        self.open.len() - self.unused.len()
    }

    fn window(&self) -> u64 {
        u64::from(self.job.plan.window)
    }

    fn entry(&self, round: u64, group: usize, chunk: usize) -> usize {
        let (groups, chunks) = (self.shape.words, self.job.plan.layout.chunks());
        ((round % (2 * self.window())) as usize * groups + group) * chunks + chunk
    }

    fn round(&mut self, round: u64) -> &mut Round {
        let at = self.place(round);
        &mut self.rounds[at]
    }

    /// Where a round of the window is.
    fn place(&self, round: u64) -> usize {
        (round % self.window()) as usize
    }

    fn lane(&self, chunk: u32) -> &Producer<ToDecoder> {
        &self.decoders[chunk as usize % self.decoders.len()]
    }

    /// Looks whether rounds were closed; drops what is left of them and opens as many new ones.
    fn advance(&mut self, now: Instant) -> bool {
        let closed = self.board.closed();
        if closed == self.first {
            return false;
        }
        let (groups, chunks) = (self.shape.words, self.job.plan.layout.chunks());
        for round in self.first..closed {
            for group in 0..groups {
                for chunk in 0..chunks {
                    let at = self.entry(round, group, chunk);
                    if self.ledger[at].round == round {
                        self.discard(at);
                    }
                }
            }
            let opened = round + self.window();
            self.board.open(opened);
            let round = self.round(opened);
            round.begun.fill(Rows::EMPTY);
            round.missed.fill(Rows::EMPTY);
            round.lingering.clear();
            (round.since, round.expired) = (None, false);
        }
        self.first = closed;
        // A round that has begun before its turn has its full time from now.
        for round in closed..closed + self.window() {
            let round = self.round(round);
            round.missed.fill(Rows::EMPTY);
            if round.since.is_some() {
                round.since = Some(now);
            }
        }
        true
    }

    /// Forgets the shards of a word that was never sent on.
    fn discard(&mut self, at: usize) {
        if let State::Open(word) = self.ledger[at].state {
            self.open[word as usize] = None;
            self.unused.push(word);
            self.ledger[at].state = State::Sent;
        }
    }

    fn take_in(&mut self, mut shard: Shard, now: Instant) {
        if shard.round >= self.first + self.window() {
            // The receiver knew before us that rounds were closed.
            self.advance(now);
        }
        if planted(Bug::AnyRound) && !(self.first..self.first + self.window()).contains(&shard.round) {
            shard.round = self.first + shard.round % self.window();
        }
        if shard.round + self.window() < self.first {
            self.board.count(Counter::ShardsStale, 1);
            return;
        }
        let place = self.shape.place(shard.worker as usize);
        let at = self.entry(shard.round, place.group, shard.chunk as usize);
        if self.ledger[at].round != shard.round {
            self.ledger[at] = Entry { round: shard.round, arrived: Rows::EMPTY, state: State::Empty };
        }
        if self.ledger[at].arrived.contains(place.row) && !planted(Bug::Overwrite) {
            self.board.count(Counter::ShardsDuplicate, 1);
            return;
        }
        if self.ledger[at].state == State::Empty && shard.round < self.first {
            // The round was closed without this word: there is nothing to check against.
            self.board.count(Counter::ShardsStale, 1);
            return;
        }
        self.ledger[at].arrived.insert(place.row);
        self.board.accepted(shard.worker as usize);
        if shard.round >= self.first {
            self.board.arrived(shard.round, shard.worker as usize, now);
            self.begin(shard.round, place.group, place.row, now);
        }
        match self.ledger[at].state {
            State::Sent => {
                self.board.count(Counter::ShardsLate, 1);
                if self.job.robust.is_some() {
                    // A guess says nothing of who was not part of it.
                    return;
                }
                if planted(Bug::LeakSlot) {
                    std::mem::forget(shard);
                    return;
                }
                self.lane(shard.chunk).push_within_limit(ToDecoder::Further(shard));
                return;
            }
            State::Empty => {
                let word = self.unused.pop().expect("there are as many as can be open");
                self.open[word as usize] = Some(Word::new(shard.round, place.group as u32, shard.chunk));
                self.ledger[at].state = State::Open(word);
            }
            State::Open(_) => {}
        }
        let State::Open(index) = self.ledger[at].state else { unreachable!("opened above") };
        let word = self.open[index as usize].as_mut().expect("an open entry points to a word");
        word.insert(place.row, shard.slot);
        self.send_if_ready(at, index, now);
    }

    /// Somebody began a round. Its time runs once s + 1 workers of a group have: one of them at least is honest, so that a liar
    /// cannot start the clock while honest workers still compute. With it runs that of the rounds before: somebody honest is past
    /// them, and it may be that nobody sends for them any more.
    fn begin(&mut self, round: u64, group: usize, row: usize, now: Instant) {
        let needed = self.shape.adversaries + 1;
        let state = self.round(round);
        state.begun[group].insert(row);
        if state.since.is_none() && state.begun[group].count() >= needed {
            for earlier in self.first..=round {
                self.round(earlier).since.get_or_insert(now);
            }
        }
    }

    fn send_if_ready(&mut self, at: usize, index: u32, now: Instant) {
        let needed = self.shape.needed;
        let linger = self.job.linger;
        let Some(word) = &self.open[index as usize] else { return };
        let present = word.present.count();
        if present < needed {
            return;
        }
        if linger.is_zero() || self.awaited(word).is_empty() {
            self.send(at, index);
        } else if present == needed {
            let round = word.round;
            self.round(round).lingering.push_back(Lingering { since: now, at });
        }
    }

    /// The rows that a word waits for: connected ones, that none of its round has waited for in vain.
    fn awaited(&self, word: &Word) -> Rows {
        let (group, round) = (word.group as usize, &self.rounds[self.place(word.round)]);
        self.board.expected(group, word.round).without(word.present).without(round.missed[group])
    }

    fn send(&mut self, at: usize, index: u32) {
        let word = self.open[index as usize].take().expect("an open entry points to a word");
        self.unused.push(index);
        self.ledger[at].state = State::Sent;
        self.lane(word.chunk).push_within_limit(ToDecoder::Word(word));
    }

    /// When the first word of a round that waits has waited enough. At half of the deadline none waits any more, so that there is time for
    /// the chunks that those who came have no credits for meanwhile.
    fn due(&self, round: u64) -> Option<Instant> {
        let state = &self.rounds[self.place(round)];
        let due = state.lingering.front()?.since + self.job.linger;
        // The time of a later round begins anew when its turn comes.
        let half = state.since.filter(|_| round == self.first).map(|since| since + self.job.deadline() / 2);
        Some(half.map_or(due, |half| due.min(half)))
    }

    /// The word that an entry of the list of lingering words still stands for.
    fn still_open(&self, lingering: Lingering) -> Option<(u32, &Word)> {
        match self.ledger[lingering.at].state {
            State::Open(index) => {
                Some((index, self.open[index as usize].as_ref().expect("an open entry points to a word")))
            }
            _ => None,
        }
    }

    /// Sends words whose time to wait for more shards is over, and those that wait for nobody any more: the last one left, or another word
    /// has waited for it in vain.
    fn linger(&mut self, now: Instant) -> bool {
        let mut busy = false;
        let membership = self.board.membership();
        let changed = std::mem::replace(&mut self.membership, membership) != membership;
        for round in self.first..self.first + self.window() {
            let mut look_again = changed;
            while self.due(round).is_some_and(|due| now >= due) {
                let front = self.round(round).lingering.pop_front().expect("one that is due");
                if let Some((index, word)) = self.still_open(front) {
                    let (group, awaited) = (word.group as usize, self.awaited(word));
                    let missed = &mut self.round(round).missed[group];
                    *missed = missed.union(awaited);
                    self.send(front.at, index);
                    (busy, look_again) = (true, true);
                }
            }
            for place in 0..if look_again { self.round(round).lingering.len() } else { 0 } {
                let lingering = self.round(round).lingering[place];
                if let Some((index, word)) = self.still_open(lingering)
                    && self.awaited(word).is_empty()
                {
                    self.send(lingering.at, index);
                    busy = true;
                }
            }
        }
        busy
    }

    /// Ends the time of the round whose turn it is: what has too few shards is undecodable. Later rounds have their full time
    /// from the close of this one.
    fn expire(&mut self, now: Instant) -> bool {
        let round = self.first;
        let deadline = self.job.deadline();
        let state = self.round(round);
        let over = state.since.is_some_and(|since| now >= since + deadline);
        if !over || state.expired || planted(Bug::NoDeadline) {
            return false;
        }
        state.expired = true;
        let needed = self.shape.needed;
        let mut starved = false;
        for group in 0..self.shape.words {
            for chunk in 0..self.job.plan.layout.chunks() {
                let at = self.entry(round, group, chunk);
                let Entry { round: known, arrived, state } = self.ledger[at];
                let (arrived, state) = if known == round { (arrived, state) } else { (Rows::EMPTY, State::Empty) };
                match state {
                    State::Sent => {}
                    State::Open(index) if arrived.count() >= needed => self.send(at, index),
                    _ if starved => {}
                    _ => {
                        starved = true;
                        let reason =
                            UndecodableReason::TooFew { arrived: arrived.count() as u32, needed: needed as u32 };
                        let (group, chunk) = (group as u32, chunk as u32);
                        self.lane(chunk).push_within_limit(ToDecoder::Starved { round, group, chunk, reason });
                    }
                }
            }
        }
        for lane in &self.decoders {
            lane.push_within_limit(ToDecoder::Expired { round });
        }
        true
    }
}

impl Stage for Assembler {
    fn step(&mut self, context: &Context<'_>) -> Progress {
        let mut busy = self.advance(context.now);
        for _ in 0..SHARDS_PER_STEP {
            let Some(shard) = self.shards.pop() else { break };
            self.take_in(shard, context.now);
            busy = true;
        }
        busy |= self.linger(context.now);
        busy |= self.expire(context.now);
        Progress::of(busy)
    }

    fn timer(&self) -> Option<Instant> {
        let round = &self.rounds[self.place(self.first)];
        let deadline = round.since.filter(|_| !round.expired).map(|since| since + self.job.deadline());
        let lingering = (self.first..self.first + self.window()).filter_map(|round| self.due(round));
        deadline.into_iter().chain(lingering).min()
    }

    fn name(&self) -> StageName {
        StageName::Assemble
    }
}
