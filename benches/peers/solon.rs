//! Solon's decoder on one thread, through its public interface: the one place here that knows it.

use std::sync::Arc;

use solon::code::{
    Family, Form, Generator, Layout, Locator, Outcome, Parameters, Projected, Projector, Recoverer, Rows, Tolerance,
    encode, sum_into,
};

/// Numbers of a shard of one chunk.
const WIDTH: usize = 16_384;
const PROJECTIONS: usize = 4;

/// A job and all that decodes its rounds.
pub struct Solon {
    parameters: Parameters,
    layout: Layout,
    generator: Arc<Generator>,
    projector: Projector,
    locator: Locator,
    recoverer: Recoverer,
    projected: Vec<Projected>,
    word: Vec<f64>,
    sums: Vec<Vec<f32>>,
    round: u64,
}

impl Solon {
    /// # Panics
    /// If there is no such code.
    pub fn new(groups: usize, adversaries: usize, stragglers: usize, compression: usize, dimension: usize) -> Solon {
        let parameters = Parameters::new(groups, adversaries, stragglers, compression).expect("a code");
        let (r, c) = (parameters.redundancy(), compression);
        let generator = Arc::new(Generator::new(Family::Trigonometric, Form::Systematic, r, c).expect("a code"));
        let locator = Locator::new(parameters, generator.clone(), Tolerance::default(), PROJECTIONS, [9; 32]);
        Solon {
            parameters,
            layout: Layout::new(dimension, c, WIDTH),
            projector: Projector::new(WIDTH, PROJECTIONS),
            word: vec![0.0; locator.word_len()],
            locator,
            recoverer: Recoverer::new(generator.clone()),
            generator,
            projected: vec![Projected::default(); r],
            sums: vec![vec![0.0; WIDTH]; r],
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
        let scale = 1.0 / groups as f32;
        let (mut at, mut outside) = (0, 0);
        for index in 0..self.layout.chunks() {
            let chunk = self.layout.chunk(index);
            let shard = |group: usize, row: usize| &sent[group * r + row][at..at + chunk.width];
            let out = &mut out[chunk.range()];
            // One draw for the words of all groups: they are all sealed by now.
            self.round += 1;
            let mut seed = [7; 32];
            seed[..8].copy_from_slice(&self.round.to_le_bytes());
            self.projector.draw(&seed, chunk.width);
            let mut agreed = vec![Rows::EMPTY; groups];
            for (group, agreed) in agreed.iter_mut().enumerate() {
                let (mut present, mut rejected) = (Rows::EMPTY, Rows::EMPTY);
                for row in 0..r {
                    match self.projector.project(shard(group, row)) {
                        Some(projected) => {
                            self.projected[row] = projected;
                            present.insert(row);
                        }
                        None => rejected.insert(row),
                    }
                }
                let found = self.locator.locate(present, rejected, &self.projected, chunk.width, &mut self.word);
                let Outcome::Agreed(agreement) = found else { panic!("no more lie than the code corrects") };
                *agreed = agreement.rows;
                outside += r - agreement.rows.count();
            }
            // Groups with the same rows are summed first; then one recovery is enough.
            let same = agreed.iter().all(|rows| *rows == agreed[0]);
            if same && groups > 1 {
                for (rank, row) in agreed[0].iter().enumerate() {
                    let sum = &mut self.sums[rank][..chunk.width];
                    sum.copy_from_slice(shard(0, row));
                    (1..groups).for_each(|group| sum_into(sum, shard(group, row)));
                }
                let sums = &self.sums;
                self.recoverer.recover(agreed[0], |rank| &sums[rank][..chunk.width], &chunk, scale, out);
            } else {
                out.fill(0.0);
                for (group, rows) in agreed.iter().enumerate() {
                    let shard_of = |rank: usize| shard(group, rows.iter().nth(rank).expect("a rank within the set"));
                    self.recoverer.accumulate(*rows, shard_of, &chunk, scale, out);
                }
            }
            at += chunk.width;
        }
        outside
    }
}
