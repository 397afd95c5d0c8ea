//! Decoding and encoding on one thread against reading the same bytes, and decoding on two.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use solon::bench::goals::{Bound, Goal};
use solon::code::{
    Chunk, Family, Form, Generator, Kernels, Layout, Learn, Parameters, Rows, SWEEP_PROJECTIONS, Sweep, Task,
    Tolerance, Verify, encode as encode_row,
};
use solon::wire::{Header, Kind, seal};

use crate::Effort;
use crate::figures::{Cell, Figure, Table, Work, rates, ratio};
use crate::floors::{multiply_adds, read};

/// Numbers of a shard, the daemon's default.
const WIDTH: usize = 16_384;
/// Groups, s, e, r_c: P = 15 and P = 45.
const SHAPES: [(usize, usize, usize, usize); 6] =
    [(3, 2, 0, 1), (1, 5, 1, 4), (1, 2, 1, 10), (9, 2, 0, 1), (3, 5, 1, 4), (1, 17, 1, 10)];
/// Shards begin so far apart that they do not share places of the first-level cache.
const STAGGER: usize = 272;
/// More than any cache holds.
const LARGE_BYTES: usize = 192 << 20;

/// Shards of some chunks, and all that decodes them.
struct Bench {
    generator: Arc<Generator>,
    chunk: Chunk,
    numbers: Vec<f32>,
    chunks: usize,
    groups: usize,
    first: usize,
}

impl Bench {
    fn new(form: Form, (groups, s, e, c): (usize, usize, usize, usize), chunks: usize) -> Bench {
        let r = Parameters::new(groups, s, e, c).expect("a code").redundancy();
        let generator = Arc::new(Generator::new(Family::Trigonometric, form, r, c).expect("a code"));
        let chunk = Layout::new(WIDTH * c, c, WIDTH).chunk(0);
        let stride = WIDTH + STAGGER;
        let mut numbers = vec![0f32; chunks * groups * r * stride + 16];
        // As in a slot: shards begin on a cache line.
        let first = numbers.as_ptr().align_offset(64);
        for group in 0..groups {
            let block: Vec<f32> = (0..chunk.len).map(|at| ((at * 7919 + group) % 1009) as f32 - 500.0).collect();
            for row in 0..r {
                let at = |chunk: usize| first + ((chunk * groups + group) * r + row) * stride;
                encode_row(&generator, row, &block, &mut numbers[at(0)..at(0) + WIDTH]);
                (1..chunks).for_each(|chunk| numbers.copy_within(at(0)..at(0) + WIDTH, at(chunk)));
            }
        }
        Bench { generator, chunk, numbers, chunks, groups, first }
    }

    fn workers(&self) -> usize {
        self.groups * self.generator.redundancy()
    }

    fn bytes(&self) -> usize {
        4 * WIDTH * self.workers()
    }

    fn shards(&self, chunk: usize) -> Vec<&[f32]> {
        let at = |shard: usize| self.first + (chunk * self.workers() + shard) * (WIDTH + STAGGER);
        (0..self.workers()).map(|shard| &self.numbers[at(shard)..at(shard) + WIDTH]).collect()
    }

    fn sweep(&self, verify: Verify, kernels: Kernels) -> Sweep {
        Sweep::with_kernels(self.generator.clone(), self.groups, verify, Tolerance::default(), kernels)
    }

    fn tasks(&self, sweep: &Sweep, learn: Learn) -> Vec<Task> {
        let present = Rows::first(self.generator.redundancy());
        vec![Task { present, used: sweep.used(present), learn }; self.groups]
    }

    /// Decodes one chunk after the other.
    fn decoder<'a>(&'a self, learn: Learn, verify: Verify, kernels: Kernels) -> impl FnMut() + 'a {
        let mut sweep = self.sweep(verify, kernels);
        let tasks = self.tasks(&sweep, learn);
        let chunks: Vec<Vec<&[f32]>> = (0..self.chunks).map(|chunk| self.shards(chunk)).collect();
        let mut out = vec![0f32; self.chunk.len + 16];
        let aligned = out.as_ptr().align_offset(64);
        let (mut turn, mut seed) = (0usize, [0; 32]);
        move || {
            turn += 1;
            seed[..8].copy_from_slice(&turn.to_le_bytes());
            let out = &mut out[aligned..aligned + self.chunk.len];
            sweep.run(&seed, &tasks, black_box(&chunks[turn % chunks.len()]), &self.chunk, 0.5, out);
            if learn == Learn::Whether {
                (0..self.groups).for_each(|group| assert!(sweep.checked(group).agrees, "nobody lies"));
            }
            black_box(&out);
        }
    }

    /// Reads one chunk after the other.
    fn reader<'a>(&'a self) -> impl FnMut() + 'a {
        let chunks: Vec<Vec<&[f32]>> = (0..self.chunks).map(|chunk| self.shards(chunk)).collect();
        let mut turn = 0;
        move || {
            turn += 1;
            for shard in &chunks[turn % chunks.len()] {
                black_box(read(black_box(shard)));
            }
        }
    }

    fn name(&self) -> String {
        let (r, c) = (self.generator.redundancy(), self.generator.compression());
        format!("P={} r={r} r_c={c}", self.workers())
    }
}

fn goal(goals: &mut Vec<Goal>, what: String, bound: Bound, measured: f64, id: &str) {
    goals.push(Goal { id: id.into(), what, bound, measured, unit: "x".into() });
}

/// Decoding words in which nobody lies against reading their shards, and against what the multiplications allow.
pub fn decode(effort: &Effort, goals: &mut Vec<Goal>) -> Table {
    let title = "Decoding chunks of 64 KiB shards on one core (verify and recover, nobody lies), GB/s of shards";
    let columns = [
        "form",
        "job",
        "read",
        "decode",
        "/ read",
        "products allow",
        "/ roof",
        "full check",
        "who lies",
        "AVX2 or less",
        "from memory / read",
    ];
    let mut table = Table::new(title, &columns);
    let products = multiply_adds(effort.seconds);
    for form in [Form::Systematic, Form::Dense] {
        for shape in SHAPES {
            let hot = Bench::new(form, shape, 1);
            let cold = Bench::new(form, shape, if effort.quick { 2 } else { LARGE_BYTES.div_ceil(hot.bytes()) });
            let (best, kinds) = (Kernels::best(), Kernels::all());
            let lesser = kinds[kinds.len().saturating_sub(2).max(kinds.len().min(2) - 1)];
            let bytes = hot.bytes();
            let figures = rates(
                effort,
                &mut [
                    Work { bytes, run: &mut hot.reader() },
                    Work { bytes, run: &mut hot.decoder(Learn::Whether, Verify::Random, best) },
                    Work { bytes, run: &mut hot.decoder(Learn::Whether, Verify::Full, best) },
                    Work { bytes, run: &mut hot.decoder(Learn::Who, Verify::Random, best) },
                    Work { bytes, run: &mut hot.decoder(Learn::Whether, Verify::Random, lesser) },
                    Work { bytes, run: &mut cold.reader() },
                    Work { bytes, run: &mut cold.decoder(Learn::Whether, Verify::Random, best) },
                ],
            );
            let [floor, decode, full, who, lesser, cold_floor, cold_decode] = &figures[..] else { unreachable!() };
            let roof = roof(&hot, products);
            let bounded = floor.median().min(roof);
            let (of_read, of_roof) = (ratio(decode, floor), decode.median() / bounded);
            let from_memory = ratio(cold_decode, cold_floor);
            let name = hot.name();
            match form {
                Form::Systematic => {
                    let what = format!("decode in cache over reading, systematic, {name}");
                    goal(goals, what, Bound::AtLeast(0.8), of_read, "G1");
                    let what = format!("decode from memory over reading, systematic, {name}");
                    goal(goals, what, Bound::AtLeast(0.65), from_memory, "G1");
                }
                Form::Dense => {
                    let what = format!("decode in cache over min(read, products), dense, {name}");
                    goal(goals, what, Bound::AtLeast(0.9), of_roof, "G1");
                }
            }
            table.push(vec![
                Cell::Text(format!("{form:?}").to_lowercase()),
                Cell::Text(name),
                Cell::Figure(floor.clone()),
                Cell::Figure(decode.clone()),
                Cell::Number(of_read),
                Cell::Number(roof),
                Cell::Number(of_roof),
                Cell::Figure(full.clone()),
                Cell::Figure(who.clone()),
                Cell::Figure(lesser.clone()),
                Cell::Number(from_memory),
            ]);
        }
    }
    table
}

/// GB/s of shards that the multiplications and additions alone allow: K for each number of a shard (none where bits are compared),
/// and in the dense form r_c for each number of a row that was summed over the groups. Without limit where they were not measured.
fn roof(bench: &Bench, billions: f64) -> f64 {
    let generator = &bench.generator;
    let repeats = generator.compression() == 1;
    let check = if repeats { 0 } else { SWEEP_PROJECTIONS } * bench.workers();
    let recover = if generator.raw_rows().is_empty() { generator.compression() * generator.redundancy() } else { 0 };
    match billions {
        0.0 => f64::INFINITY,
        _ => 4.0 * billions * bench.workers() as f64 / (check + recover) as f64,
    }
}

/// Has `cores` cores do their own work for some time, each on a thread that is kept there; 1e9 bytes per second of all of them.
fn on_cores<F: FnMut()>(cores: usize, effort: &Effort, bytes: usize, work: impl Fn(usize) -> F + Sync) -> f64 {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    let (start, work) = (Barrier::new(cores), &work);
    let (start, ids) = (&start, &ids);
    let rate = |core: usize| {
        if let Some(id) = ids.get(core) {
            // Where it cannot be kept there it is measured where it runs.
            core_affinity::set_for_current(*id);
        }
        let mut work = work(core);
        work();
        start.wait();
        let (begin, mut calls) = (Instant::now(), 0u32);
        while calls == 0 || begin.elapsed().as_secs_f64() < effort.seconds {
            work();
            calls += 1;
        }
        f64::from(calls) * bytes as f64 / begin.elapsed().as_secs_f64() / 1e9
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|core| scope.spawn(move || rate(core))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread that measures")).sum()
    })
}

/// Two cores decode chunks of their own, against one.
pub fn two_cores(effort: &Effort, goals: &mut Vec<Goal>) -> Table {
    let mut table = Table::new("Decoding on two cores, GB/s of shards", &["job", "one", "two", "ratio", "read, ratio"]);
    for shape in [(3, 2, 0, 1), (1, 5, 1, 4)] {
        let benches = [(); 2].map(|()| Bench::new(Form::Systematic, shape, 1));
        let bytes = benches[0].bytes();
        let decoding = |core: usize| benches[core].decoder(Learn::Whether, Verify::Random, Kernels::best());
        let reading = |core: usize| benches[core].reader();
        let mut samples: [Vec<f64>; 4] = Default::default();
        for _ in 0..effort.repetitions {
            for (cores, at) in [(1, 0), (2, 1)] {
                samples[at].push(on_cores(cores, effort, bytes, decoding));
                samples[2 + at].push(on_cores(cores, effort, bytes, reading));
            }
        }
        let figures = samples.map(Figure::new);
        let (decoding, floor) = (ratio(&figures[1], &figures[0]), ratio(&figures[3], &figures[2]));
        let name = benches[0].name();
        // With one core there is no second: then it is not reached.
        goal(goals, format!("two decoding cores over one, {name}"), Bound::AtLeast(1.9), decoding, "G3");
        table.push(vec![
            Cell::Text(name),
            Cell::Figure(figures[0].clone()),
            Cell::Figure(figures[1].clone()),
            Cell::Number(decoding),
            Cell::Number(floor),
        ]);
    }
    table
}

/// Encoding against reading the gradient, and the checksum of a frame.
pub fn encode(effort: &Effort, goals: &mut Vec<Goal>) -> Table {
    let title = "Encoding a mixed row on one core, GB/s of gradient; the checksum, GB/s of payload";
    let mut table = Table::new(title, &["s, r_c, r", "read", "encode", "ratio", "checksum"]);
    for (s, c) in [(2, 1), (2, 2), (2, 4), (5, 5), (2, 10), (5, 20)] {
        let r = Parameters::new(1, s, 0, c).expect("a code").redundancy();
        let generator = Generator::new(Family::Trigonometric, Form::Systematic, r, c).expect("a code");
        let row = (0..r).find(|row| generator.raw_slice(*row).is_none()).expect("a row that is no slice");
        let block: Vec<f32> = (0..WIDTH * c).map(|at| ((at * 7919) % 1009) as f32 - 500.0).collect();
        let (mut shard, mut frame) = (vec![0.0; WIDTH], vec![7; solon::wire::HEADER_BYTES + 4 * WIDTH]);
        let figures: Vec<Figure> = rates(
            effort,
            &mut [
                Work {
                    bytes: 4 * block.len(),
                    run: &mut || {
                        black_box(read(black_box(&block)));
                    },
                },
                Work {
                    bytes: 4 * block.len(),
                    run: &mut || {
                        encode_row(&generator, row, black_box(&block), &mut shard);
                        black_box(&shard);
                    },
                },
                Work {
                    bytes: 4 * WIDTH,
                    run: &mut || {
                        black_box(seal(Header::new(Kind::Shard), black_box(&mut frame)));
                    },
                },
            ],
        );
        let over = ratio(&figures[1], &figures[0]);
        let name = format!("{s}, {c}, {r}");
        if c >= 4 {
            goal(goals, format!("encode over reading, r_c = {c}, r = {r}"), Bound::AtLeast(0.95), over, "G11");
        }
        table.push(vec![
            Cell::Text(name),
            Cell::Figure(figures[0].clone()),
            Cell::Figure(figures[1].clone()),
            Cell::Number(over),
            Cell::Figure(figures[2].clone()),
        ]);
    }
    table
}
