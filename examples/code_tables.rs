//! Prints what the documentation of the code claims: conditioning, recovery error, honest residuals, who is found and named.
//!
//! `cargo run --release --example code_tables [trials]`

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use solon::code::*;

const K: usize = 4;
const WIDTH: usize = 96;
/// The input whose own rounding is of relative size 1e-4: nothing can be recovered better.
const DENORMAL: usize = 2;

fn main() {
    let trials = std::env::args().nth(1).map_or(20, |x| x.parse().expect("trials: a number"));
    println!("worst over e = 0, 1, 2 and {trials} trials each; K = {K}, width = {WIDTH}");
    println!(
        "residual: honest residual / tolerance; recover: relative error; found/named: share of words with s liars of relative"
    );
    println!("error 1e-3 (random places; neighbouring places) whose set is right / whose liars are all named\n");
    println!(
        "{:>3} {:>3} {:>11} {:>9} {:>9} {:>9} {:>9} {:>13} {:>13}",
        "s", "r_c", "form", "condition", "residual", "recover", "unaided", "found", "named"
    );
    for form in [Form::Systematic, Form::Dense] {
        for s in [0, 1, 2, 3, 5] {
            for c in [1, 2, 4, 10] {
                row(form, s, c, trials);
            }
        }
    }
    println!(
        "\nmicroseconds per word to locate with 0, 1, .. s liars of relative error 1, a new set each time (systematic, e = 0):"
    );
    for (s, c) in [(1, 1), (1, 4), (2, 4), (3, 10), (5, 10), (10, 10), (17, 11)] {
        print!("({s}, {c})");
        for liars in 0..=s.min(5) {
            let mut bench = Bench::new(Form::Systematic, s, c, 0);
            let mut spent = std::time::Duration::ZERO;
            let words = 8;
            for _ in 0..words {
                bench.honest(0);
                bench.lie_in(liars, 1.0);
                spent += bench.timed(Rows::first(c + 2 * s));
            }
            print!(" {:.0}", spent.as_secs_f64() * 1e6 / f64::from(words));
        }
        println!();
    }
    throughput();
}

/// Gigabytes of shards per second and core, in cache.
fn throughput() {
    let (s, c, width) = (5, 10, 2048);
    let generator = Arc::new(Generator::new(Family::Trigonometric, Form::Systematic, c + 2 * s, c).unwrap());
    let shards = vec![vec![1.5f32; width]; c + 2 * s];
    let chunk = Layout::new(c * width, c, width).chunk(0);
    let (mut out, mut shard) = (vec![0.0; chunk.len], vec![0.0; width]);
    let rate = |bytes: usize, what: &mut dyn FnMut()| {
        let start = std::time::Instant::now();
        (0..200).for_each(|_| what());
        200.0 * bytes as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    println!("\nGB/s per core in cache at (5, 10), width {width}:");
    for k in [1, 2, 4, 8] {
        let mut projector = Projector::new(width, k);
        projector.draw(&[1; 32], width);
        let all = 4 * width * shards.len();
        let project = rate(all, &mut || {
            shards.iter().for_each(|x| {
                std::hint::black_box(projector.project(x));
            })
        });
        let draw = rate(4 * width * k, &mut || projector.draw(&[2; 32], width));
        println!("project, K = {k}: {project:.1} (shards read); draw: {draw:.1} (vectors written)");
    }
    let mut recoverer = Recoverer::new(generator.clone());
    let raw = generator.raw_rows().iter().next().expect("a raw row");
    let all = Rows::first(c + 2 * s);
    let mut recover = |rows: Rows| {
        let order: Vec<usize> = rows.iter().collect();
        rate(4 * chunk.len, &mut || recoverer.recover(rows, |rank| &shards[order[rank]], &chunk, 1.0, &mut out))
    };
    let (copy, one) = (recover(all), recover(all.without([raw].into_iter().collect())));
    let most = recover(all.without(generator.raw_rows().iter().take(5).collect()));
    let parity = all.without(generator.raw_rows()).iter().next().expect("a parity row");
    let encoded = rate(4 * chunk.len, &mut || encode(&generator, parity, &out, &mut shard));
    println!(
        "recover: all raw rows {copy:.1}, one lost {one:.1}, five lost {most:.1} (gradient written); encode {encoded:.1} (gradient read)"
    );
}

fn row(form: Form, s: usize, c: usize, trials: usize) {
    let (mut cond, mut ratio, mut error, mut unaided) = (0f64, 0f64, 0f64, 0f64);
    let (mut found, mut named, mut words) = ([0; 2], [0; 2], 0);
    for e in 0..3 {
        let mut bench = Bench::new(form, s, c, e);
        cond = cond.max(condition(&bench.generator, &bench.parameters).worst_rows);
        for trial in 0..trials {
            for input in 0..4 + c {
                bench.honest(input);
                for absences in 0..4 {
                    let present = bench.absent(absences);
                    ratio = ratio.max(bench.ratio(present));
                    let (single, double) = bench.recovery(present);
                    if input != DENORMAL {
                        (error, unaided) = (error.max(single), unaided.max(double));
                    }
                }
                ratio = ratio.max(bench.ratio_with_silent_liars());
            }
            if s > 0 {
                words += 1;
                for neighbours in 0..2 {
                    bench.honest(trial % 2);
                    let liars = bench.lie(1e-3, neighbours == 1);
                    match bench.locate(Rows::first(bench.generator.redundancy())) {
                        Outcome::Agreed(a) => {
                            assert!(a.liars.is_subset(liars), "framed");
                            found[neighbours] += usize::from(a.rows == Rows::first(c + 2 * s + e).without(liars));
                            named[neighbours] += usize::from(a.liars == liars);
                        }
                        Outcome::Undecided(u) => println!("undecided: {u}"),
                    }
                }
            }
        }
    }
    let share = |x: [usize; 2]| match words {
        0 => "-".to_string(),
        w => format!("{:.3} {:.3}", x[0] as f64 / w as f64, x[1] as f64 / w as f64),
    };
    println!(
        "{s:>3} {c:>3} {:>11} {cond:>9.1} {ratio:>9.3} {error:>9.1e} {unaided:>9.1e} {:>13} {:>13}",
        format!("{form:?}"),
        share(found),
        share(named)
    );
}

struct Bench {
    parameters: Parameters,
    generator: Arc<Generator>,
    locator: Locator,
    projector: Projector,
    recoverer: Recoverer,
    random: ChaCha8Rng,
    block: Vec<f32>,
    shards: Vec<Vec<f32>>,
}

impl Bench {
    fn new(form: Form, s: usize, c: usize, e: usize) -> Bench {
        let parameters = Parameters::new(1, s, e, c).unwrap();
        let r = parameters.redundancy();
        let generator = Arc::new(Generator::new(Family::Trigonometric, form, r, c).unwrap());
        Bench {
            locator: Locator::new(parameters, generator.clone(), Tolerance::default(), K, [1; 32]),
            projector: Projector::new(WIDTH, K),
            recoverer: Recoverer::new(generator.clone()),
            random: ChaCha8Rng::from_seed([s as u8 * 16 + c as u8 + e as u8 * 64; 32]),
            block: vec![0.0; c * WIDTH],
            shards: vec![vec![0.0; WIDTH]; r],
            parameters,
            generator,
        }
    }

    fn gauss(&mut self) -> f64 {
        let mut uniform = || (f64::from(self.random.next_u32()) + 0.5) / 2f64.powi(32);
        (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
    }

    /// Gaussian; slices that differ by 1e6; denormal; heavy tails in every slice; one slice only.
    fn honest(&mut self, input: usize) {
        let c = self.generator.compression();
        for i in 0..self.block.len() {
            let (slice, x) = (i / WIDTH, self.gauss());
            self.block[i] = match input {
                0 => x,
                1 => x * 10f64.powf(6.0 * ((slice * 7) % c) as f64 / c as f64),
                DENORMAL => x * 1e-41,
                3 => x.powi(9),
                only => x * f64::from(u8::from(slice == only - 4)),
            } as f32;
        }
        for (row, shard) in self.shards.iter_mut().enumerate() {
            encode(&self.generator, row, &self.block, shard);
        }
    }

    /// All rows; or r_c + s of them: at random, a run of neighbours, those where the word is smallest.
    fn absent(&mut self, kind: usize) -> Rows {
        let (r, n) = (self.generator.redundancy(), self.parameters.agreement());
        let start = self.random.next_u32() as usize;
        match kind {
            0 => Rows::first(r),
            1 => self.some(n),
            2 => (0..n).map(|i| (start + i) % r).collect(),
            _ => {
                let mut order: Vec<usize> = (0..r).collect();
                let norm = |row: &usize| self.shards[*row].iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
                order.sort_by(|a, b| norm(a).total_cmp(&norm(b)));
                order[..n].iter().copied().collect()
            }
        }
    }

    fn some(&mut self, n: usize) -> Rows {
        let mut rows = Rows::EMPTY;
        while rows.count() < n {
            rows.insert(self.random.next_u32() as usize % self.generator.redundancy());
        }
        rows
    }

    fn project(&mut self) -> Vec<Projected> {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        self.projector.draw(&seed, WIDTH);
        self.shards.iter().map(|x| self.projector.project(x).unwrap()).collect()
    }

    fn locate(&mut self, present: Rows) -> Outcome {
        let projected = self.project();
        let mut word = vec![0.0; self.locator.word_len()];
        self.locator.locate(present, Rows::EMPTY, &projected, WIDTH, &mut word)
    }

    fn ratio(&mut self, present: Rows) -> f64 {
        match self.locate(present) {
            Outcome::Agreed(a) if a.rows == present => a.residual / a.tolerance,
            Outcome::Agreed(a) => panic!("honest rows erased: {a:?}"),
            Outcome::Undecided(u) => u.residual / u.tolerance,
        }
    }

    /// Liars who send zeros in the place of the largest rows: the lowest that they can pull the scale.
    fn ratio_with_silent_liars(&mut self) -> f64 {
        let (r, s) = (self.generator.redundancy(), self.parameters.adversaries());
        let norm = |shard: &Vec<f32>| shard.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        for _ in 0..s {
            let largest = (0..r).fold(0, |a, b| if norm(&self.shards[b]) > norm(&self.shards[a]) { b } else { a });
            self.shards[largest].fill(0.0);
        }
        let outcome = self.locate(Rows::first(r));
        for row in 0..r {
            encode(&self.generator, row, &self.block, &mut self.shards[row]);
        }
        match outcome {
            Outcome::Agreed(a) => a.residual / a.tolerance,
            Outcome::Undecided(u) => panic!("{u}"),
        }
    }

    /// Relative error of the recovered block; and with sums in f64, which the f32 shards alone explain.
    fn recovery(&mut self, present: Rows) -> (f64, f64) {
        let c = self.generator.compression();
        let chunk = Layout::new(self.block.len(), c, WIDTH).chunk(0);
        let mut out = vec![0.0; chunk.len];
        let order: Vec<usize> = present.iter().collect();
        self.recoverer.recover(present, |rank| &self.shards[order[rank]], &chunk, 1.0, &mut out);
        let honest = reference::matrix(&self.block, c);
        let received =
            ndarray::Array2::from_shape_fn((self.shards.len(), WIDTH), |(i, k)| f64::from(self.shards[i][k]));
        let (double, _) = reference::fit(&self.generator, &received, present);
        (reference::relative_error(&reference::matrix(&out, c), &honest), reference::relative_error(&double, &honest))
    }

    /// Adds an error of relative size `size` to s rows.
    fn lie(&mut self, size: f64, neighbours: bool) -> Rows {
        let (r, s) = (self.generator.redundancy(), self.parameters.adversaries());
        let start = self.random.next_u32() as usize;
        let liars = if neighbours { (0..s).map(|i| (start + i) % r).collect() } else { self.some(s) };
        self.disturb(liars, size);
        liars
    }

    fn lie_in(&mut self, count: usize, size: f64) {
        let liars = self.some(count);
        self.disturb(liars, size);
    }

    fn timed(&mut self, present: Rows) -> std::time::Duration {
        let (projected, mut word) = (self.project(), vec![0.0; self.locator.word_len()]);
        let start = std::time::Instant::now();
        let outcome = self.locator.locate(present, Rows::EMPTY, &projected, WIDTH, &mut word);
        let spent = start.elapsed();
        assert!(matches!(outcome, Outcome::Agreed(_)));
        spent
    }

    fn disturb(&mut self, liars: Rows, size: f64) {
        let r = self.generator.redundancy();
        let all: f64 = self.shards.iter().flatten().map(|&x| f64::from(x) * f64::from(x)).sum();
        let rms = (all / (r * WIDTH) as f64).sqrt();
        for row in liars.iter() {
            for k in 0..WIDTH {
                let error = self.gauss();
                self.shards[row][k] += (size * rms * error) as f32;
            }
        }
    }
}
