//! What the code promises as a whole, tried over the grid of sizes with every kind of lie. Test code only.

use std::sync::Arc;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::*;

mod rounded;

const K: usize = 4;
const SIZES: [(usize, usize); 20] = {
    let (s, c) = ([0, 1, 2, 3, 5], [1, 2, 4, 10]);
    let mut out = [(0, 0); 20];
    let mut i = 0;
    while i < 20 {
        out[i] = (s[i / 4], c[i % 4]);
        i += 1;
    }
    out
};

#[derive(Clone, Copy, Debug)]
enum Lie {
    Huge,
    Small,
    Collude,
    Negate,
    Nan,
    Infinite,
    Zero,
    Replay,
    Constant,
    OneNumber,
    BitFlip,
}

const LIES: [Lie; 11] = [
    Lie::Huge,
    Lie::Small,
    Lie::Collude,
    Lie::Negate,
    Lie::Nan,
    Lie::Infinite,
    Lie::Zero,
    Lie::Replay,
    Lie::Constant,
    Lie::OneNumber,
    Lie::BitFlip,
];

struct Group {
    parameters: Parameters,
    generator: Arc<Generator>,
    locator: Locator,
    projector: Projector,
    recoverer: Recoverer,
    random: ChaCha8Rng,
    chunk: Chunk,
    block: Vec<f32>,
    honest: Vec<Vec<f32>>,
    shards: Vec<Vec<f32>>,
    projected: Vec<Option<Projected>>,
    word: Vec<f64>,
}

/// Who frames whom.
struct Cast {
    victim: usize,
    liars: Rows,
    /// The word is decided as early as can be.
    early: bool,
    /// The liars, and the rows that they choose their errors for.
    seen: Rows,
    /// The rows that the word has.
    whole: Rows,
}

impl Group {
    fn new(form: Form, (s, c): (usize, usize), e: usize, len: usize, seed: u64) -> Group {
        let parameters = Parameters::new(1, s, e, c).unwrap();
        let r = parameters.redundancy();
        let generator = Arc::new(Generator::new(Family::Trigonometric, form, r, c).unwrap());
        let chunk = Layout::new(len, c, len).chunk(0);
        let mut key = [s as u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let locator = Locator::new(parameters, generator.clone(), Tolerance::default(), K, key);
        let mut group = Group {
            word: vec![0.0; locator.word_len()],
            locator,
            projector: Projector::new(chunk.width, K),
            recoverer: Recoverer::new(generator.clone()),
            random: ChaCha8Rng::from_seed(key),
            block: vec![0.0; len],
            honest: vec![vec![0.0; chunk.width]; r],
            shards: vec![vec![0.0; chunk.width]; r],
            projected: vec![None; r],
            parameters,
            generator,
            chunk,
        };
        group.compute(1.0);
        group
    }

    fn gauss(&mut self) -> f64 {
        let mut uniform = || (f64::from(self.random.next_u32()) + 0.5) / 2f64.powi(32);
        (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
    }

    /// Liars beside the victim or anywhere; the word as early as can be, or whole.
    fn cast(&mut self, (s, c): (usize, usize), trial: usize) -> Cast {
        let all = self.all();
        let victim = self.below(all.count());
        let only: Rows = [victim].into_iter().collect();
        let liars = match trial % 2 {
            0 => (1..=s).map(|i| (victim + i) % all.count()).collect(),
            _ => self.rows(s, all.without(only)),
        };
        let honest = all.without(liars).without(only);
        let early = trial % 4 >= 2;
        let seen = if early { self.rows(c, honest) } else { honest }.union(liars);
        Cast { victim, liars, early, seen, whole: seen.union(if early { Rows::EMPTY } else { only }) }
    }

    fn below(&mut self, n: usize) -> usize {
        self.random.next_u32() as usize % n
    }

    fn rows(&mut self, count: usize, of: Rows) -> Rows {
        let mut rows = Rows::EMPTY;
        while rows.count() < count {
            let row = self.below(self.generator.redundancy());
            if of.contains(row) {
                rows.insert(row);
            }
        }
        rows
    }

    fn all(&self) -> Rows {
        Rows::first(self.generator.redundancy())
    }

    /// A new honest gradient of about `size` per number.
    fn compute(&mut self, size: f64) {
        for i in 0..self.block.len() {
            self.block[i] = (self.gauss() * size) as f32;
        }
        self.encode();
    }

    fn encode(&mut self) {
        for (row, shard) in self.honest.iter_mut().enumerate() {
            encode(&self.generator, row, &self.block, shard);
        }
        self.shards.clone_from(&self.honest);
    }

    fn lie(&mut self, liars: Rows, lie: Lie) {
        let replayed = self.honest.clone();
        if let Lie::Replay = lie {
            self.compute(1.0);
        }
        let wrong: Vec<f32> = (0..self.block.len()).map(|_| self.gauss() as f32).collect();
        let element = self.below(self.chunk.width);
        for row in liars.iter() {
            let mut shard = self.honest[row].clone();
            match lie {
                // Not the same number in every row: equal numbers are code words of some small codes.
                Lie::Huge => shard.fill(3e38 / (1.0 + self.gauss().abs()) as f32),
                Lie::Small => {
                    for x in &mut shard {
                        *x += 3e-3 * self.gauss() as f32 + 1e-3;
                    }
                }
                Lie::Collude => encode(&self.generator, row, &wrong, &mut shard),
                Lie::Negate => shard.iter_mut().for_each(|x| *x = -*x),
                Lie::Nan => shard[element] = f32::NAN,
                Lie::Infinite => shard[element] = f32::NEG_INFINITY,
                Lie::Zero => shard.fill(0.0),
                Lie::Replay => shard.clone_from(&replayed[row]),
                Lie::Constant => shard.fill(-100.0),
                Lie::OneNumber => shard[element] += 1.0 + self.gauss().abs() as f32,
                Lie::BitFlip => shard[element] = f32::from_bits(shard[element].to_bits() ^ 1 << 30),
            }
            self.shards[row] = shard;
        }
    }

    /// Rows whose shard is not the honest one, by enough to matter.
    fn wrong(&self) -> Rows {
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let scale = self.honest.iter().map(|row| norm(&mut row.iter().map(|&x| f64::from(x)))).fold(0.0, f64::max);
        let off = |row: &usize| {
            let pairs = self.shards[*row].iter().zip(&self.honest[*row]);
            !(norm(&mut pairs.map(|(&a, &b)| f64::from(a) - f64::from(b))) <= 1e-3 * scale)
        };
        self.all().iter().filter(off).collect()
    }

    fn project(&mut self) {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        self.projector.draw(&seed, self.chunk.width);
        self.projected = self.shards.iter().map(|shard| self.projector.project(shard)).collect();
    }

    fn locate(&mut self, came: Rows) -> Outcome {
        let finite: Rows = came.iter().filter(|&row| self.projected[row].is_some()).collect();
        let projected: Vec<Projected> = self.projected.iter().map(|x| x.unwrap_or_default()).collect();
        self.locator.locate(finite, came.without(finite), &projected, self.chunk.width, &mut self.word)
    }

    fn recovered(&mut self, rows: Rows) -> Vec<f32> {
        let order: Vec<usize> = rows.iter().collect();
        let mut out = vec![f32::NAN; self.chunk.len];
        let Group { recoverer, shards, chunk, .. } = self;
        recoverer.recover(rows, |rank| &shards[order[rank]], chunk, 1.0, &mut out);
        out
    }

    fn error(&mut self, rows: Rows) -> f64 {
        let out = self.recovered(rows);
        let sum = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let difference = sum(&mut out.iter().zip(&self.block).map(|(&a, &b)| f64::from(a) - f64::from(b)));
        let norm = sum(&mut self.block.iter().map(|&x| f64::from(x)));
        if difference == 0.0 { 0.0 } else { difference / norm }
    }
}

/// A word with up to s liars and e absentees: exact, all liars named, nobody else.
fn is_exact(form: Form, size: (usize, usize), e: usize, lie: Lie, seed: u64) {
    let mut group = Group::new(form, size, e, 40 * size.1 - seed as usize % 7 % size.1, seed);
    let (s, absent) = (size.0, group.below(e + 1));
    let all = group.all();
    let liars = group.rows(s, all);
    group.lie(liars, lie);
    let came = all.without(group.rows(absent, all));
    group.project();
    let what = format!("{form:?} {size:?} e {e} {lie:?} seed {seed}");
    let wrong = group.wrong().intersection(came);
    let Outcome::Agreed(agreement) = group.locate(came) else {
        panic!("{what}: undecided");
    };
    assert!(agreement.liars.is_subset(liars), "{what}: framed {:?}, liars are {liars:?}", agreement.liars);
    assert_eq!(agreement.rows.intersection(wrong), Rows::EMPTY, "{what}");
    assert_eq!(agreement.rows.union(agreement.liars).union(agreement.suspects), came, "{what}");
    if absent == 0 {
        assert!(wrong.is_subset(agreement.liars), "{what}: {wrong:?} lied, {:?} named", agreement.liars);
    }
    let error = group.error(agreement.rows);
    assert!(error < 1e-5, "{what}: error {error:e}");
}

#[test]
fn any_lie_within_the_bound_is_corrected_and_named_and_nobody_else_is() {
    for (i, &size) in SIZES.iter().enumerate() {
        for e in 0..3 {
            for (j, &lie) in LIES.iter().enumerate() {
                for form in [Form::Systematic, Form::Dense] {
                    is_exact(form, size, e, lie, (i * 100 + j * 10 + e) as u64);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn random_words_within_the_bound_are_exact(seed: u64, size in 0..20usize, e in 0..3usize, lie in 0..11usize, dense: bool) {
        is_exact(if dense { Form::Dense } else { Form::Systematic }, SIZES[size], e, LIES[lie], seed);
    }

    #[test]
    fn early_words_are_right_as_soon_as_decided_and_late_shards_are_judged(
        seed: u64, size in 0..20usize, e in 0..3usize, lie in 0..11usize,
    ) {
        let (size, lie) = (SIZES[size], LIES[lie]);
        let mut group = Group::new(Form::Systematic, size, e, 25 * size.1, seed);
        let all = group.all();
        let liars = group.rows(size.0, all);
        group.lie(liars, lie);
        group.project();
        let wrong = group.wrong();
        let mut came = Rows::EMPTY;
        let agreement = loop {
            prop_assert!(came != all, "all rows came and it is not decided");
            let next = group.rows(1, all.without(came));
            came = came.union(next);
            if let Outcome::Agreed(agreement) = group.locate(came) {
                break agreement;
            }
        };
        prop_assert!(agreement.liars.is_subset(liars));
        prop_assert!(agreement.rows.intersection(wrong).is_empty());
        prop_assert!(group.error(agreement.rows) < 1e-5);
        for row in all.without(came).iter() {
            let projected = group.projected[row];
            let verdict = group.locator.check(&agreement.record, &group.word, row, projected.as_ref());
            match wrong.contains(row) {
                true => prop_assert_ne!(verdict, RowVerdict::Agrees),
                false => prop_assert_eq!(verdict, RowVerdict::Agrees),
            }
        }
    }

    #[test]
    fn more_liars_than_promised_never_pass_unnoticed(
        seed: u64, size in 0..20usize, e in 0..3usize, lie in 0..11usize, extra in 1..3usize,
    ) {
        // Without redundancy nothing shows; with r_c = 1 liars who say the same need no honest row.
        let (size, lie) = ((SIZES[size].0, SIZES[size].1.max(2)), LIES[lie]);
        let e = if size.0 == 0 { e.max(1) } else { e };
        let mut group = Group::new(Form::Systematic, size, e, 25 * size.1, seed);
        let all = group.all();
        // More than s + 1 that collude form a code word of their own where r_c is small: that is beyond any code.
        let count = match lie {
            Lie::BitFlip | Lie::Collude | Lie::Replay | Lie::Huge | Lie::Zero | Lie::Negate | Lie::Constant => size.0 + 1,
            _ => size.0 + extra,
        }.min(all.count());
        let liars = group.rows(count, all);
        group.lie(liars, lie);
        group.project();
        let wrong = group.wrong();
        if let Outcome::Agreed(agreement) = group.locate(all) {
            prop_assert!(agreement.rows.intersection(wrong).is_empty());
            prop_assert!(group.error(agreement.rows) < 1e-5);
        }
    }
}

/// Liars move the word in the direction that the other honest rows notice least and the victim most, by an amount around the
/// tolerance, so that the victim seems to be the one that lies. `size` is in tolerances.
fn frame(group: &mut Group, victim: usize, liars: Rows, seen: Rows, size: f64) {
    let c = group.generator.compression();
    let honest = seen.without(liars).without([victim].into_iter().collect());
    let mut fit = linear::Fit::new(&group.generator);
    fit.compute(&group.generator, honest);
    // x = (G_C^T G_C)^-1 g, scaled to |G_C x| = 1: the white coordinates of x are those of g.
    let mut white = vec![0.0; c];
    fit.whiten(group.generator.row_f64(victim), &mut white);
    let norm = linear::dot(&white, &white).sqrt();
    let mut shift = vec![0.0; honest.count()];
    for (rank, x) in shift.iter_mut().enumerate() {
        *x = (0..c).map(|k| fit.q(rank, k) * white[k]).sum::<f64>() / norm;
    }
    let mut word = vec![0.0; c];
    let ranks: Vec<usize> = honest.iter().collect();
    let value = |row: usize, _: usize| shift[ranks.iter().position(|&x| x == row).unwrap()];
    fit.solve(1, value, &mut word);
    let rms = group.block.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / group.block.len() as f64;
    // Per number, a row at the tolerance is off by about 3 * 2^-24 * sqrt(r) of its size.
    let unit = size * 3.0 * 2f64.powi(-24) * (group.generator.redundancy() as f64 * rms).sqrt();
    let signs: Vec<f64> = (0..group.chunk.width).map(|_| group.gauss()).collect();
    for row in liars.iter() {
        let along = linear::dot(group.generator.row_f64(row), &word);
        for (x, sign) in group.shards[row].iter_mut().zip(&signs) {
            *x = (f64::from(*x) + unit * along * sign) as f32;
        }
    }
}

#[test]
fn liars_just_around_the_tolerance_cannot_frame_an_honest_row() {
    let (mut erased, mut tried, mut late) = (0, 0, 0);
    println!("worst relative error that liars around the tolerance can hide: whole words, words of r_c + s rows");
    for &size in SIZES.iter().filter(|size| size.0 > 0) {
        let mut worst = [0f64; 2];
        for e in 0..3 {
            for trial in 0..24 {
                let mut group = Group::new(Form::Systematic, size, e, 30 * size.1, 77 + trial as u64);
                let all = group.all();
                let Cast { victim, liars, early, seen, whole } = group.cast(size, trial);
                let amount = [0.05, 0.15, 0.3, 0.5, 0.7, 1.0, 1.5, 3.0, 10.0, 100.0, 1e3, 1e4];
                for amount in amount {
                    group.shards.clone_from(&group.honest);
                    frame(&mut group, victim, liars, seen, amount);
                    group.project();
                    let Outcome::Agreed(agreement) = group.locate(whole) else {
                        assert!(early, "{size:?} {e} {trial} {amount}: undecided");
                        continue;
                    };
                    tried += 1;
                    let what = format!("{size:?} e {e} trial {trial} amount {amount} victim {victim}: {agreement:?}");
                    assert!(agreement.liars.is_subset(liars), "framed: {what}");
                    worst[usize::from(early)] = worst[usize::from(early)].max(group.error(agreement.rows));
                    erased += usize::from(!whole.is_subset(agreement.rows.union(liars)));
                    for row in all.without(whole).without(liars).iter() {
                        let projected = group.projected[row];
                        let verdict = group.locator.check(&agreement.record, &group.word, row, projected.as_ref());
                        assert_ne!(verdict, RowVerdict::Lies, "framed late row {row}: {what}");
                        late += usize::from(verdict == RowVerdict::Suspect);
                    }
                }
            }
        }
        println!("{size:?}: {:.1e} {:.1e}", worst[0], worst[1]);
    }
    println!("{tried} words: honest row erased in {erased}, late honest row suspected {late} times");
    assert!(erased > 0 && late > 0, "the attack is too weak to test anything");
}

#[test]
fn colluders_who_tie_with_the_honest_rows_leave_the_word_undecided() {
    // Two code words with 3 rows each that share 1: r_c = 2, s = 1, e = 1, 2 liars.
    let mut group = Group::new(Form::Systematic, (1, 2), 1, 50, 5);
    let all = group.all();
    let liars: Rows = [1, 3].into_iter().collect();
    group.lie(liars, Lie::Collude);
    group.project();
    match group.locate(all) {
        Outcome::Agreed(agreement) => assert!(agreement.rows.intersection(liars).is_empty()),
        Outcome::Undecided(undecided) => assert!(undecided.to_string().starts_with("5 shards arrived")),
    }
}

#[test]
fn gradients_of_any_size_and_shape_are_recovered_with_a_liar() {
    for len in [1, 2, 3, 7, 10, 11, 1023] {
        for size in [0.0, 1e-41, 1e-30, 1.0, 1e30, 3e31] {
            for (at, form) in [(1, Form::Systematic), (2, Form::Dense), (0, Form::Systematic)] {
                let mut group = Group::new(form, (2, 4), 1, len, 3);
                group.compute(size);
                group.shards[at].fill(1e35);
                group.project();
                let all = group.all();
                let Outcome::Agreed(agreement) = group.locate(all) else {
                    panic!("{len} {size} {form:?}: undecided");
                };
                assert_eq!(agreement.liars, [at].into_iter().collect());
                let error = group.error(agreement.rows);
                // Numbers below the normal range may come out as 0, and no others.
                let bound = if size == 1e-41 { 1.0 } else { 1e-5 };
                assert!(error <= bound, "{len} {size} {form:?}: {error:e}");
            }
        }
    }
}

#[test]
fn locator_finds_what_looking_at_every_subset_finds() {
    for seed in 0..60 {
        let size = [(1, 1), (1, 2), (2, 2), (1, 4)][seed as usize % 4];
        let mut group = Group::new(Form::Dense, size, 1, 20 * size.1, seed);
        let all = group.all();
        let liars = group.rows(size.0, all);
        group.lie(liars, LIES[[1, 2, 3, 8, 9][seed as usize % 5]]);
        group.project();
        let width = group.chunk.width;
        let received = ndarray::Array2::from_shape_fn((all.count(), width), |(i, k)| f64::from(group.shards[i][k]));
        let least = group.parameters.agreement();
        let want = reference::locate(&group.generator, &received, all, least, 1e-4).unwrap();
        match group.locate(all) {
            Outcome::Agreed(agreement) => assert_eq!(agreement.rows, want, "seed {seed}"),
            Outcome::Undecided(undecided) => panic!("seed {seed}: {undecided}"),
        }
    }
}

#[test]
fn all_raw_rows_make_recovery_a_copy() {
    let mut group = Group::new(Form::Systematic, (3, 10), 1, 997, 1);
    let rows = group.generator.raw_rows();
    assert_eq!(group.recovered(rows), group.block);
    let all = group.all();
    assert_eq!(group.recovered(all), group.block);
}

#[test]
fn large_codes_find_and_name_their_liars_too() {
    for (size, e) in [((10, 10), 0), ((17, 11), 0), ((4, 16), 3)] {
        let mut group = Group::new(Form::Systematic, size, e, 20 * size.1, 9);
        let all = group.all();
        let liars = group.rows(size.0, all);
        group.lie(liars, Lie::Collude);
        group.project();
        let Outcome::Agreed(agreement) = group.locate(all) else { panic!("{size:?}: undecided") };
        assert_eq!(agreement.rows, all.without(liars), "{size:?}");
        assert!(agreement.liars.is_subset(liars));
        println!("{size:?}: {} of {} liars named", agreement.liars.count(), size.0);
        assert!(group.error(agreement.rows) < 1e-4);
    }
}
