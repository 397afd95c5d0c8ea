//! Solon's decoder on one thread, through its public interface: the one place here that knows it.
//!
//! Chunk by chunk as the daemon does: one sweep with the rows that were honest in the last chunk; where a group does not
//! agree, its rows are projected, judged, in f64 where f32 leaves doubt, and the chunk is recovered again from who agrees.

use std::sync::Arc;

use solon::code::{
    Family, Form, Generator, Layout, Learn, Locator, Outcome, Parameters, Projected, Projector, Rows,
    SWEEP_PROJECTIONS, Sweep, Task, Tolerance, Verify, encode,
};

/// Numbers of a shard of one chunk.
const WIDTH: usize = 16_384;
const PROJECTIONS: usize = 4;

/// A job and all that decodes its rounds.
pub struct Solon {
    parameters: Parameters,
    layout: Layout,
    generator: Arc<Generator>,
    sweep: Sweep,
    quick: Locator,
    exact: Locator,
    projector: Projector,
    projected: Vec<Projected>,
    word: Vec<f64>,
    /// Per group: the rows that agreed in the last chunk.
    honest: Vec<Rows>,
    round: u64,
}

impl Solon {
    /// # Panics
    /// If there is no such code.
    pub fn new(groups: usize, adversaries: usize, stragglers: usize, compression: usize, dimension: usize) -> Solon {
        let parameters = Parameters::new(groups, adversaries, stragglers, compression).expect("a code");
        let (r, c) = (parameters.redundancy(), compression);
        let generator = Arc::new(Generator::new(Family::Trigonometric, Form::Systematic, r, c).expect("a code"));
        let locator = |k| Locator::new(parameters, generator.clone(), Tolerance::default(), k, [9; 32]);
        let (quick, exact) = (locator(SWEEP_PROJECTIONS), locator(PROJECTIONS));
        Solon {
            parameters,
            layout: Layout::new(dimension, c, WIDTH),
            sweep: Sweep::new(generator.clone(), groups, Verify::default(), Tolerance::default()),
            projector: Projector::new(WIDTH, PROJECTIONS),
            word: vec![0.0; quick.word_len().max(exact.word_len())],
            quick,
            exact,
            generator,
            projected: vec![Projected::default(); r],
            honest: vec![Rows::first(r); groups],
            round: 0,
        }
    }

    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Numbers that one worker sends in a round.
    pub fn shard_len(&self) -> usize {
        (0..self.layout.chunks()).map(|chunk| self.layout.chunk(chunk).width).sum()
    }

    /// What the worker in `row` of its group sends of `gradient`: its shards of all chunks, one after the other.
    pub fn encode(&self, row: usize, gradient: &[f32], shards: &mut [f32]) {
        let mut at = 0;
        for chunk in (0..self.layout.chunks()).map(|chunk| self.layout.chunk(chunk)) {
            encode(&self.generator, row, &gradient[chunk.range()], &mut shards[at..at + chunk.width]);
            at += chunk.width;
        }
    }

    /// Verifies what all workers sent, and writes the mean over the groups; how many rows did not agree, over all chunks.
    ///
    /// # Panics
    /// If more lie than the code corrects.
    pub fn aggregate(&mut self, sent: &[&[f32]], out: &mut [f32]) -> usize {
        let (groups, r) = (self.parameters.groups(), self.parameters.redundancy());
        let (all, scale) = (Rows::first(r), 1.0 / groups as f32);
        let (mut at, mut outside) = (0, 0);
        let (mut shards, mut tasks, mut used) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..self.layout.chunks() {
            let chunk = self.layout.chunk(index);
            let out = &mut out[chunk.range()];
            shards.clear();
            shards.extend(sent.iter().map(|shards| &shards[at..at + chunk.width]));
            at += chunk.width;
            self.round += 1;
            let mut seed = [7; 32];
            seed[..8].copy_from_slice(&self.round.to_le_bytes());
            tasks.clear();
            tasks.extend(self.honest.iter().map(|&honest| {
                let learn = if honest == all { Learn::Whether } else { Learn::Who };
                Task { present: all, used: self.sweep.used(honest), learn }
            }));
            self.sweep.run_and_look(&seed, &mut tasks, &shards, &chunk, scale, out);
            used.clear();
            for (group, task) in tasks.iter().enumerate() {
                let rows = match task.learn {
                    Learn::Who => self.judge(group, &seed, &shards[group * r..][..r], chunk.width),
                    _ => all,
                };
                outside += r - rows.count();
                self.honest[group] = rows;
                used.push(self.sweep.used(rows));
            }
            if used.iter().zip(&tasks).any(|(used, task)| *used != task.used) {
                self.sweep.recover(&used, &shards, &chunk, scale, out);
            }
        }
        outside
    }

    /// Which rows of a group agree, of which all were projected in the last sweep.
    fn judge(&mut self, group: usize, seed: &[u8; 32], shards: &[&[f32]], width: usize) -> Rows {
        let all = Rows::first(shards.len());
        self.projector.draw(seed, width);
        let (mut present, mut rejected) = (all, Rows::EMPTY);
        for (row, shard) in shards.iter().enumerate() {
            let swept = self.sweep.projected(group, row);
            match Sweep::is_sound(&swept, width).then_some(swept).or_else(|| self.projector.project(shard)) {
                Some(projected) => self.projected[row] = projected,
                None => {
                    present.remove(row);
                    rejected.insert(row);
                }
            }
        }
        let found = self.quick.locate(present, rejected, &self.projected, width, &mut self.word);
        if let Outcome::Agreed(agreement) = found
            && self.quick.is_clear(&agreement, present, &self.projected)
        {
            return agreement.rows;
        }
        for row in present.iter() {
            self.projected[row] = self.projector.project(shards[row]).expect("it is finite");
        }
        match self.exact.locate(present, rejected, &self.projected, width, &mut self.word) {
            Outcome::Agreed(agreement) => agreement.rows,
            Outcome::Undecided(undecided) => panic!("no more lie than the code corrects: {undecided:?}"),
        }
    }
}
