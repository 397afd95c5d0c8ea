//! The code on one thread, shards in the cache, against reading the same bytes.

#![allow(unsafe_code)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use solon::code::{
    Chunk, Family, Form, Generator, Layout, Locator, Outcome, Parameters, Projected, Projector, Recoverer, Rows,
    Tolerance, encode as encode_row,
};
use solon::wire::{Header, Kind, seal};

use crate::Effort;
use crate::figures::{Cell, Figure, Table, rate};

const WIDTH: usize = 16384;
const PROJECTIONS: usize = 4;
const SHAPES: [(usize, usize); 5] = [(2, 1), (2, 2), (2, 4), (5, 5), (2, 10)];

/// The sum of all numbers, by the fastest simple loop: what reading costs.
fn read(numbers: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { read_avx2(numbers) };
    }
    read_body(numbers)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_avx2(numbers: &[f32]) -> f32 {
    read_body(numbers)
}

#[inline(always)]
fn read_body(numbers: &[f32]) -> f32 {
    let mut sums = [0f32; 64];
    for block in numbers.as_chunks::<64>().0 {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += x;
        }
    }
    sums.iter().sum()
}

/// All that decodes one word.
struct Decoder {
    parameters: Parameters,
    chunk: Chunk,
    honest: Vec<Vec<f32>>,
    lying: Vec<Vec<f32>>,
    projector: Projector,
    locator: Locator,
    recoverer: Recoverer,
    projected: Vec<Projected>,
    word: Vec<f64>,
    out: Vec<f32>,
    seed: [u8; 32],
    turn: usize,
    stages: [Duration; 4],
}

impl Decoder {
    fn new(s: usize, c: usize) -> Decoder {
        let parameters = Parameters::new(1, s, 0, c).expect("a code");
        let r = parameters.redundancy();
        let generator = Arc::new(Generator::new(Family::Trigonometric, Form::Systematic, r, c).expect("a code"));
        let chunk = Layout::new(WIDTH * c, c, WIDTH).chunk(0);
        let block: Vec<f32> = (0..chunk.len).map(|at| ((at * 7919) % 1009) as f32 - 500.0).collect();
        let mut honest = vec![vec![0.0; WIDTH]; r];
        honest.iter_mut().enumerate().for_each(|(row, shard)| encode_row(&generator, row, &block, shard));
        let lie = |(row, shard): (usize, &Vec<f32>)| shard.iter().map(|x| -x * (2.0 + row as f32)).collect();
        let lying = honest.iter().enumerate().map(lie).collect();
        let locator = Locator::new(parameters, generator.clone(), Tolerance::default(), PROJECTIONS, [9; 32]);
        Decoder {
            parameters,
            chunk,
            honest,
            lying,
            projector: Projector::new(WIDTH, PROJECTIONS),
            word: vec![0.0; locator.word_len()],
            locator,
            recoverer: Recoverer::new(generator),
            projected: vec![Projected::default(); r],
            out: vec![0.0; chunk.len],
            seed: [0; 32],
            turn: 0,
            stages: [Duration::ZERO; 4],
        }
    }

    /// Decodes one word in which other `liars` rows lie than in the last.
    fn decode(&mut self, liars: usize) {
        let r = self.parameters.redundancy();
        self.turn += 1;
        let turn = self.turn;
        let (honest, lying) = (&self.honest, &self.lying);
        let shard = |row: usize| match (row + r - turn % r) % r < liars {
            true => lying[row].as_slice(),
            false => honest[row].as_slice(),
        };
        self.seed[..8].copy_from_slice(&turn.to_le_bytes());
        let times = [Instant::now(); 5];
        let mut times = times;
        self.projector.draw(&self.seed, WIDTH);
        times[1] = Instant::now();
        for row in 0..r {
            self.projected[row] = self.projector.project(shard(row)).expect("finite numbers");
        }
        times[2] = Instant::now();
        let outcome = self.locator.locate(Rows::first(r), Rows::EMPTY, &self.projected, WIDTH, &mut self.word);
        let Outcome::Agreed(agreement) = outcome else { panic!("no more lie than the code corrects") };
        assert_eq!(agreement.rows.count(), r - liars, "who lied is known");
        times[3] = Instant::now();
        let rows = agreement.rows;
        let shard_of = |rank: usize| shard(rows.iter().nth(rank).expect("a rank within the set"));
        self.recoverer.recover(rows, shard_of, &self.chunk, 1.0, &mut self.out);
        times[4] = Instant::now();
        for (stage, pair) in self.stages.iter_mut().zip(times.windows(2)) {
            *stage += pair[1] - pair[0];
        }
        black_box(&self.out);
    }
}

fn ratio(figure: &Figure, floor: &Figure) -> Cell {
    Cell::Number(figure.median() / floor.median())
}

/// Decoding against reading the shards.
pub fn decode(effort: &Effort) -> Table {
    let title = "Decoding words of 64 KiB shards on one thread, GB/s of shards; ratios to reading them";
    let columns = [
        "s, r_c, r",
        "read",
        "decode",
        "ratio",
        "s liars",
        "ratio",
        "checksum",
        "draw %",
        "project %",
        "locate %",
        "recover %",
    ];
    let mut table = Table::new(title, &columns);
    for (s, c) in SHAPES {
        let mut decoder = Decoder::new(s, c);
        let r = decoder.parameters.redundancy();
        let bytes = 4 * WIDTH * r;
        let shards = decoder.honest.clone();
        let floor = rate(effort, bytes, || {
            shards.iter().for_each(|shard| {
                black_box(read(black_box(shard)));
            });
        });
        let honest = rate(effort, bytes, || decoder.decode(0));
        let stages = decoder.stages.map(|stage| stage.as_secs_f64());
        let share = |at: usize| Cell::Number(100.0 * stages[at] / stages.iter().sum::<f64>());
        let lying = rate(effort, bytes, || decoder.decode(s));
        let mut frame = vec![7; solon::wire::HEADER_BYTES + 4 * WIDTH];
        let checksum = rate(effort, 4 * WIDTH, || {
            black_box(seal(Header::new(Kind::Shard), black_box(&mut frame)));
        });
        table.push(vec![
            Cell::Text(format!("{s}, {c}, {r}")),
            Cell::Figure(floor.clone()),
            Cell::Figure(honest.clone()),
            ratio(&honest, &floor),
            Cell::Figure(lying.clone()),
            ratio(&lying, &floor),
            Cell::Figure(checksum),
            share(0),
            share(1),
            share(2),
            share(3),
        ]);
    }
    table
}

/// Encoding against reading the gradient.
pub fn encode(effort: &Effort) -> Table {
    let title = "Encoding a mixed row on one thread, GB/s of gradient; ratio to reading it";
    let mut table = Table::new(title, &["s, r_c, r", "read", "encode", "ratio"]);
    for (s, c) in SHAPES {
        let r = Parameters::new(1, s, 0, c).expect("a code").redundancy();
        let generator = Generator::new(Family::Trigonometric, Form::Systematic, r, c).expect("a code");
        let row = (0..r).find(|row| generator.raw_slice(*row).is_none()).expect("a row that is no slice");
        let block: Vec<f32> = (0..WIDTH * c).map(|at| ((at * 7919) % 1009) as f32 - 500.0).collect();
        let mut shard = vec![0.0; WIDTH];
        let floor = rate(effort, 4 * block.len(), || {
            black_box(read(black_box(&block)));
        });
        let encoded = rate(effort, 4 * block.len(), || {
            encode_row(&generator, row, black_box(&block), &mut shard);
            black_box(&shard);
        });
        let name = Cell::Text(format!("{s}, {c}, {r}"));
        table.push(vec![name, Cell::Figure(floor.clone()), Cell::Figure(encoded.clone()), ratio(&encoded, &floor)]);
    }
    table
}
