//! Words with a verdict in, update chunks out: groups whose agreeing rows are the same are summed before they are decoded.

use std::collections::VecDeque;
use std::sync::Arc;

use super::board::{Board, Counter};
use super::ring::{Consumer, Producer};
use super::sabotage::{Bug, planted};
use super::{Context, Job, Limits, Progress, Stage, ToDecoder, ToPusher, Word, numbers};
use crate::code::{Chunk, Recoverer, Rows, sum_into};
use crate::memory::{Slab, Slot};
use crate::wire::{HEADER_BYTES, Header, Kind, seal};

/// Words taken in one step.
const WORDS_PER_STEP: usize = 16;

/// Recovers the sums of one lane's chunks.
pub struct Decoder {
    job: Arc<Job>,
    board: Arc<Board>,
    updates: Slab,
    words: Consumer<ToDecoder>,
    pusher: Producer<ToPusher>,
    recoverer: Recoverer,
    /// Words that wait for the other groups'.
    held: Vec<Option<(Word, Rows)>>,
    unused: Vec<u32>,
    /// Chunks of which some group's word has come.
    gathers: Vec<Gather>,
    unused_gathers: Vec<u32>,
    /// Per (round of the history, chunk): its gather.
    index: Vec<Option<u32>>,
    /// Gathers that are complete and wait for an update slot.
    complete: VecDeque<u32>,
    /// Sums over groups, `redundancy` rows of `width`.
    sums: Vec<f32>,
    first: u64,
}

struct Gather {
    round: u64,
    chunk: u32,
    /// Per group: where its word is held.
    words: Vec<Option<u32>>,
    missing: usize,
}

impl Decoder {
    pub(super) fn new(
        job: &Arc<Job>,
        board: Arc<Board>,
        updates: Slab,
        words: Consumer<ToDecoder>,
        pusher: Producer<ToPusher>,
    ) -> Decoder {
        let limits = Limits::of(&job.plan, job.updates);
        let (groups, layout) = (job.plan.parameters.groups(), &job.plan.layout);
        let gather = |_| Gather { round: 0, chunk: 0, words: vec![None; groups], missing: groups };
        Decoder {
            job: job.clone(),
            board,
            updates,
            words,
            pusher,
            recoverer: Recoverer::new(job.generator.clone()),
            held: (0..limits.located_words).map(|_| None).collect(),
            unused: (0..limits.located_words as u32).rev().collect(),
            gathers: (0..limits.located_words).map(gather).collect(),
            unused_gathers: (0..limits.located_words as u32).rev().collect(),
            index: vec![None; limits.history * layout.chunks()],
            complete: VecDeque::with_capacity(limits.located_words),
            sums: vec![0.0; job.plan.parameters.redundancy() * layout.chunk_width()],
            first: job.first_round(),
        }
    }

    /// Words, and chunks of which some word is here, that wait for others now.
    pub(super) fn held(&self) -> usize {
        (self.held.len() - self.unused.len()) + (self.gathers.len() - self.unused_gathers.len())
    }

    fn place(&self, round: u64, chunk: u32) -> usize {
        let slot = (round % (2 * u64::from(self.job.plan.window))) as usize;
        slot * self.job.plan.layout.chunks() + chunk as usize
    }

    fn take_in(&mut self, word: Word, rows: Rows) {
        if word.round < self.board.closed() {
            return;
        }
        let (place, group) = (self.place(word.round, word.chunk), word.group as usize);
        if let Some(stale) = self.index[place].filter(|index| self.gathers[*index as usize].round != word.round) {
            // Of a round that was closed since this step began.
            self.complete.retain(|complete| *complete != stale);
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
        self.held[at as usize] = Some((word, rows));
        let gather = &mut self.gathers[index as usize];
        gather.words[group] = Some(at);
        gather.missing -= 1;
        if gather.missing == 0 {
            self.complete.push_back(index);
        }
    }

    fn discard(&mut self, index: u32) {
        let Gather { round, chunk, .. } = self.gathers[index as usize];
        let place = self.place(round, chunk);
        self.index[place] = None;
        for word in &mut self.gathers[index as usize].words {
            if let Some(at) = word.take() {
                self.held[at as usize] = None;
                self.unused.push(at);
            }
        }
        self.unused_gathers.push(index);
    }

    /// Drops what is left of rounds that are closed.
    fn release(&mut self, closed: u64) {
        for place in 0..self.index.len() {
            if let Some(index) = self.index[place]
                && self.gathers[index as usize].round < closed
            {
                self.complete.retain(|complete| *complete != index);
                self.discard(index);
            }
        }
        self.first = closed;
    }

    fn decode(&mut self, index: u32, mut slot: Slot) {
        let Gather { round, chunk: number, .. } = self.gathers[index as usize];
        let chunk = self.job.plan.layout.chunk(number as usize);
        let len = HEADER_BYTES + 4 * chunk.len;
        let out: &mut [f32] = bytemuck::cast_slice_mut(&mut slot[HEADER_BYTES..len]);
        self.recover(index, &chunk, out);
        let header =
            Header { job: self.job.number, session: self.job.epoch, round, chunk: number, ..Header::new(Kind::Update) };
        let checksum = seal(header, &mut slot[..len]);
        self.discard(index);
        self.board.count(Counter::ChunksDecoded, 1);
        self.pusher.push_within_limit(ToPusher::Update { round, chunk: number, checksum, slot, len });
    }

    /// `out` = scale x sum over groups, in the order of the groups: the result does not depend on who came first.
    fn recover(&mut self, index: u32, chunk: &Chunk, out: &mut [f32]) {
        let Decoder { gathers, held, recoverer, sums, job, .. } = self;
        let gather = &gathers[index as usize];
        let word = |group: usize| {
            let at = gather.words[group].expect("a complete gather has every group's word");
            held[at as usize].as_ref().expect("a gather points to held words")
        };
        let groups = gather.words.len();
        let (raw, scale, stride) = (job.generator.raw_rows(), job.plan.scale, job.plan.layout.chunk_width());
        let rows_of = |group: usize| if planted(Bug::OneSetForAll) { word(0).1 } else { word(group).1 };
        for first in 0..groups {
            let rows = rows_of(first);
            if (0..first).any(|before| rows_of(before) == rows) {
                continue; // summed with an earlier group
            }
            // Where all raw rows agree, recovery copies them and needs no other.
            let used = if !raw.is_empty() && raw.is_subset(rows) { raw } else { rows };
            let shard = |group: usize, row: usize| match &word(group).0.shards[row] {
                Some(slot) => numbers(slot, chunk.width),
                None => &[],
            };
            let same = (first..groups).filter(|group| rows_of(*group) == rows);
            let alone = same.clone().count() == 1;
            if !alone {
                for (rank, row) in used.iter().enumerate() {
                    let sum = &mut sums[rank * stride..][..chunk.width];
                    let mut groups = same.clone();
                    let one = groups.next().expect("at least the first");
                    sum.copy_from_slice(shard(one, row));
                    groups
                        .map(|group| shard(group, row))
                        .filter(|row| !row.is_empty())
                        .for_each(|row| sum_into(sum, row));
                }
            }
            let sums = &*sums;
            let row_at = |rank: usize| used.iter().nth(rank).expect("a rank within the set");
            let shard_of = |rank: usize| match alone {
                true => shard(first, row_at(rank)),
                false => &sums[rank * stride..][..chunk.width],
            };
            if first == 0 {
                recoverer.recover(used, shard_of, chunk, scale, out);
            } else {
                recoverer.accumulate(used, shard_of, chunk, scale, out);
            }
        }
    }
}

impl Stage for Decoder {
    fn step(&mut self, _context: &Context<'_>) -> Progress {
        let mut busy = false;
        let closed = self.board.closed();
        if closed != self.first {
            self.release(closed);
        }
        for _ in 0..WORDS_PER_STEP {
            let Some(message) = self.words.pop() else { break };
            busy = true;
            match message {
                ToDecoder::Located { word, rows } => self.take_in(word, rows),
                ToDecoder::Undecodable { round, group, chunk, reason } => {
                    self.pusher.push_within_limit(ToPusher::Undecodable { round, group, chunk, reason });
                }
            }
        }
        while let Some(&index) = self.complete.front() {
            let Some(slot) = self.updates.take(0) else { break };
            self.complete.pop_front();
            self.decode(index, slot);
            busy = true;
        }
        Progress::of(busy)
    }

    fn name(&self) -> &'static str {
        "decode"
    }
}
