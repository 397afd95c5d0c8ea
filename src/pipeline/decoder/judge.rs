//! What is said of a word: who agrees, who is named, and how a shard that comes after its word was decided is checked.

use std::sync::Arc;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::super::board::{Board, Counter};
use super::super::sabotage::{Bug, planted};
use super::super::{Job, Shard, Word, numbers};
use crate::code::{
    Agreement, Locator, Outcome, Parameters, Place, Projected, Projector, ROWS_MAX, Record, RowVerdict, Rows,
    SWEEP_PROJECTIONS, Sweep, Undecided,
};
use crate::memory::Slot;
use crate::wire::UndecodableReason;

/// Judges the words of one lane.
pub(super) struct Judge {
    job: Arc<Job>,
    board: Arc<Board>,
    /// For what a sweep projects: good enough where a lie is far from the tolerance.
    quick: Locator,
    /// For the rest.
    exact: Locator,
    projector: Projector,
    projected: [Projected; ROWS_MAX],
    /// A lie as large as the gradient is only tens of tolerances: two projections of it may seem honest.
    coarse: bool,
    /// Room for a shard as f32, where they come as 16 bits.
    wide: Option<Slot>,
    /// Makes the seeds; keyed with the job's secret.
    secret: ChaCha20Rng,
}

/// By which projections a word was decided; late shards are checked by the same.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Sweep,
    Projector,
}

/// What is kept of a decided word.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    record: Record,
    by: By,
    seed: [u8; 32],
}

/// The key of one lane's secret numbers.
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

impl Judge {
    pub fn new(job: &Arc<Job>, lane: usize, board: Arc<Board>, wide: Option<Slot>) -> Judge {
        let key = lane_key(&job.secret, lane);
        // The information sets that the locators draw need no key of their own: nobody outside sees which they were.
        let locator = |k| Locator::new(parameters(job), job.generator.clone(), job.tolerance(), k, key);
        Judge {
            job: job.clone(),
            board,
            quick: locator(SWEEP_PROJECTIONS),
            exact: locator(job.projections),
            projector: Projector::new(job.plan.layout.chunk_width(), job.projections.max(SWEEP_PROJECTIONS)),
            projected: [Projected::default(); ROWS_MAX],
            coarse: job.plan.precision.is_coarse(job.plan.parameters.compression()),
            wide,
            secret: ChaCha20Rng::from_seed(key),
        }
    }

    /// Numbers that are kept of a decided word, beside its [`Memory`].
    pub fn word_len(&self) -> usize {
        self.quick.word_len().max(self.exact.word_len())
    }

    /// A seed that nobody could know before now.
    pub fn fresh_seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        if !planted(Bug::KnownProjection) {
            self.secret.fill_bytes(&mut seed);
        }
        seed
    }

    /// Judges a word of which `sweep` has projected every present row on the vectors of `seed`; exactly, where that leaves doubt.
    pub fn judge_swept(
        &mut self,
        word: &Word,
        sweep: &Sweep,
        seed: &[u8; 32],
        width: usize,
        kept: &mut [f64],
    ) -> Result<(Agreement, Memory), Undecided> {
        if self.coarse || planted(Bug::SkipFinite) {
            return self.judge_exactly(word, seed, width, kept);
        }
        let (mut present, mut rejected) = (word.present, Rows::EMPTY);
        let mut drawn = false;
        for row in word.present.iter() {
            let mut projected = sweep.projected(word.group as usize, row);
            if !Sweep::is_sound(&projected, width) {
                if !drawn {
                    self.projector.draw(seed, width);
                    drawn = true;
                }
                let Some(exact) = self.project(word, row, width) else {
                    present.remove(row);
                    rejected.insert(row);
                    continue;
                };
                projected = exact;
            }
            self.projected[row] = projected;
        }
        let length = self.quick.word_len();
        match self.quick.locate(present, rejected, &self.projected, width, &mut kept[..length]) {
            Outcome::Agreed(agreement) if self.quick.is_clear(&agreement, present, &self.projected) => {
                let memory = Memory { record: agreement.record, by: By::Sweep, seed: *seed };
                Ok((agreement, memory))
            }
            _ => self.judge_exactly(word, seed, width, kept),
        }
    }

    /// Judges a word by projections in f64 on the vectors of `seed`, which was drawn after its last shard came.
    pub fn judge_exactly(
        &mut self,
        word: &Word,
        seed: &[u8; 32],
        width: usize,
        kept: &mut [f64],
    ) -> Result<(Agreement, Memory), Undecided> {
        self.projector.draw(seed, width);
        let (mut present, mut rejected) = (Rows::EMPTY, Rows::EMPTY);
        for row in word.present.iter() {
            match self.project(word, row, width) {
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
        let length = self.exact.word_len();
        match self.exact.locate(present, rejected, &self.projected, width, &mut kept[..length]) {
            Outcome::Agreed(mut agreement) => {
                if planted(Bug::SkipFinite) {
                    agreement.rows = word.present;
                }
                Ok((agreement, Memory { record: agreement.record, by: By::Projector, seed: *seed }))
            }
            Outcome::Undecided(undecided) => Err(undecided),
        }
    }

    /// Projects a present row on the vectors that were drawn; None if a number is not finite.
    fn project(&mut self, word: &Word, row: usize, width: usize) -> Option<Projected> {
        let slot = word.shards[row].as_ref().expect("a present row has a shard");
        self.projector.project(numbers(slot, width, self.job.plan.precision, self.wide.as_mut()))
    }

    /// Why a word is not decided, in the words of the protocol.
    pub fn reason(undecided: &Undecided) -> UndecodableReason {
        let (arrived, needed) = (undecided.arrived as u32, undecided.needed as u32);
        let finite = arrived - undecided.rejected as u32;
        // Nobody is named before the word is decided: if the honest gradient itself is not finite, all are rejected.
        if finite < needed && finite < arrived {
            UndecodableReason::NotFinite { arrived, finite, needed }
        } else if finite < needed {
            UndecodableReason::TooFew { arrived: finite, needed }
        } else {
            UndecodableReason::Disagree { arrived: finite, agreeing: undecided.best_agreeing as u32, needed }
        }
    }

    /// Reports what a decided word says of its rows.
    pub fn announce(&self, word: &Word, agreement: &Agreement) {
        let ratio = |residual: f64| (residual / agreement.tolerance) as f32;
        self.board.believed(word.round, word.group as usize, ratio(agreement.residual), ratio(agreement.received));
        self.name(word.round, word.group, agreement.liars, agreement.suspects);
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

    /// Checks a shard that came after its word was decided.
    pub fn check_late(&mut self, shard: &Shard, place: Place, memory: &Memory, kept: &[f64]) {
        if planted(Bug::ForgetLate) {
            return;
        }
        let width = self.job.plan.layout.chunk(shard.chunk as usize).width;
        self.projector.draw(&memory.seed, width);
        let numbers = numbers(&shard.slot, width, self.job.plan.precision, self.wide.as_mut());
        let projected = self.projector.project(numbers);
        let code = match memory.by {
            By::Sweep => &mut self.quick,
            By::Projector => &mut self.exact,
        };
        let code_word = &kept[..code.word_len()];
        let group = place.group as u32;
        match code.check(&memory.record, code_word, place.row, projected.as_ref()) {
            RowVerdict::Agrees => {}
            RowVerdict::Lies => self.blame(shard.round, group, place.row),
            RowVerdict::Suspect => self.name(shard.round, group, Rows::EMPTY, [place.row].into_iter().collect()),
        }
    }
}
