//! Who is measured on what.
//!
//! Two sets of gradients per number of workers: the *same* within each group of five, for the codes that take whole gradients
//! and for the floors beside them; and all *apart*, for the rules, beside what Solon's workers send of compressed ones.

use std::hint::black_box;

use ::solon::rules::{Round, Rule, cyclic, kernels, sign};
use num_complex::Complex64;

use crate::baseline;
use crate::clock::{Contestant, Timed, race};
use crate::data::{Matrix, fill_apart, fill_groups};
use crate::draco::repetition;
use crate::solon::Solon;

pub const READ: &str = "read every gradient once";
pub const MEAN: &str = "plain mean, fastest";
pub const ADD: &str = "plain mean, dst += src";
pub const REPETITION: &str = "Draco repetition r=5";
pub const CYCLIC: &str = "Draco cyclic";
pub const GARFIELD: &str = "Bulyan as Garfield's";
pub const BULYAN: &str = "Bulyan, tuned";

/// Our own robust rules.
const OURS: [(&str, Rule); 7] = [
    ("median, tuned", Rule::Median),
    ("trimmed mean, tuned", Rule::TrimmedMean),
    ("Krum, tuned", Rule::Krum),
    ("Multi-Krum, tuned", Rule::MultiKrum),
    (BULYAN, Rule::Bulyan),
    ("geometric median, tuned", Rule::GeometricMedian),
    ("Signum, tuned", Rule::Signum),
];

/// Redundancy of the codes that take whole gradients.
const FIVE: usize = 5;
/// The cyclic code decodes layer by layer, as released; of all layers one is kept, and decoded as often.
const LAYERS: usize = 10;
/// Columns of a layer of the cyclic code that are encoded; the layer repeats them.
const PERIOD: usize = 2048;

/// What was measured with so many workers on one set of gradients. The first is [`READ`].
pub struct Contest {
    pub workers: usize,
    pub dimension: usize,
    pub timed: Vec<Timed>,
}

impl Contest {
    /// The median of processor milliseconds of a contestant, if it took part.
    pub fn cpu(&self, name: &str) -> Option<f64> {
        self.timed.iter().find(|timed| timed.name == name).map(|timed| timed.cpu.median())
    }
}

/// The most liars that Bulyan withstands: `P >= 4f + 3`.
pub fn bulyan_liars(workers: usize) -> usize {
    (workers - 3) / 4
}

/// The cyclic code's name with its liars.
pub fn cyclic_name(workers: usize) -> String {
    format!("{CYCLIC} s={}", bulyan_liars(workers))
}

/// A job's name.
pub fn solon_name(r: usize, compression: usize) -> String {
    format!("Solon r={r} r_c={compression}")
}

fn read<'a>(rows: &'a [&'a [f32]]) -> Contestant<'a> {
    Contestant::new(READ, move || {
        rows.iter().for_each(|row| {
            black_box(kernels::read(black_box(row)));
        });
    })
}

/// A rule with an output of its own.
fn rule<'a>(name: &str, dimension: usize, call: impl Fn(&mut [f32]) + 'a) -> Contestant<'a> {
    let mut out = vec![0.0; dimension];
    Contestant::new(name, move || call(black_box(&mut out)))
}

/// Rows in which the first `s` of each group of `r` send `lie` instead.
pub fn with_liars<'a>(rows: &[&'a [f32]], lie: &'a [f32], r: usize, s: usize) -> Vec<&'a [f32]> {
    rows.iter().enumerate().map(|(row, honest)| if row % r < s { lie } else { *honest }).collect()
}

/// Solon's decoder, without liars and with s in every group.
fn solons<'a>(
    rows: Vec<&'a [f32]>,
    lie: &'a [f32],
    build: impl Fn() -> Solon,
    dimension: usize,
) -> [Contestant<'a>; 2] {
    [false, true].map(|lies| {
        let mut solon = build();
        let code = *solon.parameters();
        let (r, s) = (code.redundancy(), code.adversaries());
        let (mut out, mut name) = (vec![0.0; dimension], solon_name(r, code.compression()));
        let sent = if lies { with_liars(&rows, lie, r, s) } else { rows.clone() };
        if lies {
            name += &format!(", {s} of {r} lie");
        }
        Contestant::new(name, move || {
            black_box(solon.aggregate(&sent, black_box(&mut out)));
        })
    })
}

/// What all workers of a job send; every group computed one of `gradients`.
pub fn encoded(solon: &Solon, gradients: &[&[f32]]) -> Matrix {
    let (workers, r) = (solon.parameters().workers(), solon.parameters().redundancy());
    let mut sent = Matrix::new(workers, solon.shard_len());
    for worker in 0..workers {
        solon.encode(worker % r, gradients[worker / r], sent.row_mut(worker));
    }
    sent
}

/// About how much memory a contest takes: gradients, an output for each contestant, shards, and a layer of complex f64.
pub fn bytes(workers: usize, dimension: usize) -> usize {
    4 * dimension * (workers + 16) + 3 * dimension * workers
}

/// Codes that take whole gradients, and the floors.
pub fn same(workers: usize, dimension: usize, repetitions: usize) -> Contest {
    let mut matrix = Matrix::new(workers, dimension);
    fill_groups(&mut matrix, FIVE, 1);
    let rows = matrix.rows();
    let lie: Vec<f32> = rows[0].iter().map(|x| -100.0 * x).collect();
    let scale = 1.0 / workers as f32;
    let mut contestants = vec![
        read(&rows),
        rule(MEAN, dimension, |out| kernels::mean(&rows, scale, out)),
        rule(ADD, dimension, |out| baseline::add_each(&rows, out)),
        rule(REPETITION, dimension, |out| repetition(&rows, FIVE, out)),
    ];
    let build = || Solon::new(workers / FIVE, 2, 0, 1, dimension);
    contestants.extend(solons(rows.clone(), &lie, build, dimension));
    Contest { workers, dimension, timed: race(contestants, repetitions) }
}

/// Shapes of compressed jobs: workers, adversaries, stragglers, compression; one group or more.
fn compressed(workers: usize) -> &'static [(usize, usize, usize, usize)] {
    match workers {
        15 => &[(1, 5, 0, 5)],
        45 => &[(3, 5, 0, 5), (1, 17, 1, 10)],
        _ => &[],
    }
}

/// Our rules, over gradients as they come to a daemon.
fn ours<'a>(rows: &'a [&'a [f32]], f: usize, dimension: usize) -> Vec<Contestant<'a>> {
    let one = |(name, ours): (&str, Rule)| {
        let call =
            move |out: &mut [f32]| Round::whole(ours, f, rows, out).expect("Bulyan's liars are few enough for all");
        rule(name, dimension, call)
    };
    OURS.into_iter().map(one).collect()
}

/// Our rules alone, and the mean beside them; Signum over votes that come packed, too, as its workers send them.
pub fn rules(workers: usize, dimension: usize, repetitions: usize) -> Contest {
    let mut matrix = Matrix::new(workers, dimension);
    fill_apart(&mut matrix, 2);
    let rows = matrix.rows();
    let votes = |row: &&[f32]| {
        let mut bits = vec![0; dimension.div_ceil(sign::SIGNS)];
        sign::pack(row, &mut bits);
        bits
    };
    let votes: Vec<Vec<u64>> = rows.iter().map(votes).collect();
    let votes: Vec<&[u64]> = votes.iter().map(Vec::as_slice).collect();
    let scale = 1.0 / workers as f32;
    let mut contestants = vec![read(&rows), rule(MEAN, dimension, |out| kernels::mean(&rows, scale, out))];
    contestants.extend(ours(&rows, bulyan_liars(workers), dimension));
    contestants.push(rule("Signum, packed", dimension, |out| sign::vote(&votes, out)));
    Contest { workers, dimension, timed: race(contestants, repetitions) }
}

/// Rules that bound what liars do, and compressed jobs of as many workers.
pub fn apart(workers: usize, dimension: usize, repetitions: usize) -> Contest {
    let f = bulyan_liars(workers);
    let mut matrix = Matrix::new(workers, dimension);
    fill_apart(&mut matrix, 2);
    let rows = matrix.rows();
    let jobs: Vec<_> = compressed(workers)
        .iter()
        .map(|&(groups, s, e, c)| {
            let build = move || Solon::new(groups, s, e, c, dimension);
            let sent = encoded(&build(), &rows[..groups]);
            let lie: Vec<f32> = sent.rows()[0].iter().map(|x| -100.0 * x).collect();
            (build, sent, lie)
        })
        .collect();
    let (mut cyclic, received) = cyclic_layer(&rows, f, dimension.div_ceil(LAYERS));
    let mut layer = vec![0.0; dimension.div_ceil(LAYERS)];
    let mut contestants = vec![read(&rows)];
    for (build, sent, lie) in &jobs {
        contestants.extend(solons(sent.rows(), lie, build, dimension));
    }
    contestants.extend(ours(&rows, f, dimension));
    contestants.extend([
        rule("median, plain", dimension, |out| baseline::median(&rows, out)),
        rule("Krum, plain", dimension, |out| baseline::krum(&rows, f, out)),
        rule("Multi-Krum, plain", dimension, |out| baseline::multi_krum(&rows, f, out)),
        rule(GARFIELD, dimension, |out| baseline::bulyan(&rows, f, out)),
        Contestant::new(cyclic_name(workers), move || {
            let rows: Vec<_> = received.iter().map(Vec::as_slice).collect();
            for _ in 0..LAYERS {
                cyclic.decode(&rows, 1.0, black_box(&mut layer)).expect("nobody lies");
            }
        }),
    ]);
    Contest { workers, dimension, timed: race(contestants, repetitions) }
}

fn cyclic_layer(rows: &[&[f32]], s: usize, width: usize) -> (cyclic::Decoder, Vec<Vec<Complex64>>) {
    let sent = cyclic_sent(rows, s, PERIOD.min(width));
    let long = |row: Vec<_>| row.iter().copied().cycle().take(width).collect();
    (cyclic::Decoder::new(rows.len(), s, width, [28; 32]), sent.into_iter().map(long).collect())
}

/// What the workers of the cyclic code send of the first `width` numbers of these gradients.
pub fn cyclic_sent(rows: &[&[f32]], s: usize, width: usize) -> Vec<Vec<Complex64>> {
    let n = rows.len();
    let row = |worker| {
        let mut row = vec![Complex64::default(); width];
        let gradients: Vec<&[f32]> = cyclic::batches(n, s, worker).map(|batch| rows[batch]).collect();
        cyclic::encode(&cyclic::weights(n, s, worker), gradients.into_iter(), &mut row);
        row
    };
    (0..n).map(row).collect()
}
