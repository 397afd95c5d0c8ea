//! Shards of 16 bits: rounding them as they leave, and widening them before they are decoded.

use std::hint::black_box;
use std::sync::Arc;

use solon::code::{
    Family, Form, Generator, Layout, Learn, Parameters, Precision, Rows, Sweep, Task, Tolerance, Verify, encode,
    encode_rounded,
};

use crate::Effort;
use crate::figures::{Cell, Figure, Table, Work, rates, ratio};
use crate::floors::read;

/// Numbers of a shard, the daemon's default.
const WIDTH: usize = 16_384;
/// Shards begin so far apart that they do not share places of the first-level cache.
const STRIDE: usize = WIDTH + 272;

/// Decoding chunks that come in 16 bits against decoding the same in f32.
pub fn decode(effort: &Effort) -> Table {
    let title = "Shards of 16 bits on one core, 1e9 numbers of shards per second: full check, nobody lies";
    let columns = ["job", "precision", "read f32", "widen", "/ read", "decode f32", "widen and decode", "ratio"];
    let mut table = Table::new(title, &columns);
    for (groups, s, e, c) in [(3, 2, 0, 1), (2, 2, 0, 2), (1, 5, 1, 4)] {
        let parameters = Parameters::new(groups, s, e, c).expect("a code");
        let (r, workers) = (parameters.redundancy(), parameters.workers());
        let generator = Arc::new(Generator::new(Family::Trigonometric, Form::Systematic, r, c).expect("a code"));
        let chunk = Layout::new(WIDTH * c, c, WIDTH).chunk(0);
        for precision in [Precision::Bf16, Precision::F16] {
            let mut halves = vec![0u16; workers * STRIDE];
            let mut plain = vec![0f32; workers * STRIDE];
            for worker in 0..workers {
                let block: Vec<f32> =
                    (0..chunk.len).map(|at| ((at * 7919 + worker / r) % 1009) as f32 - 500.0).collect();
                let half = bytemuck::cast_slice_mut(&mut halves[worker * STRIDE..][..WIDTH]);
                encode_rounded(&generator, worker % r, &block, precision, half);
                precision.widen(half, &mut plain[worker * STRIDE..][..WIDTH]);
            }
            let tolerance = Tolerance::of(precision.tolerance(c), precision, &parameters);
            let mut sweep = Sweep::new(generator.clone(), groups, Verify::Full, tolerance);
            let present = Rows::first(r);
            let tasks = vec![Task { present, used: sweep.used(present), learn: Learn::Whether }; groups];
            let mut other = Sweep::new(generator.clone(), groups, Verify::Full, tolerance);
            let (mut out, mut wide) = (vec![0f32; chunk.len], vec![0f32; workers * STRIDE]);
            let mut wider = wide.clone();
            let mut out_too = out.clone();
            let widen = |wide: &mut [f32]| {
                for (half, wide) in halves.chunks(STRIDE).zip(wide.chunks_mut(STRIDE)) {
                    precision.widen(bytemuck::cast_slice(black_box(&half[..WIDTH])), &mut wide[..WIDTH]);
                }
            };
            let shards: Vec<&[f32]> = plain.chunks(STRIDE).map(|shard| &shard[..WIDTH]).collect();
            // Of each number one byte: figures are numbers.
            let bytes = workers * WIDTH;
            let figures = rates(
                effort,
                &mut [
                    Work {
                        bytes,
                        run: &mut || {
                            shards.iter().for_each(|shard| {
                                black_box(read(black_box(shard)));
                            });
                        },
                    },
                    Work {
                        bytes,
                        run: &mut || {
                            widen(&mut wide);
                            black_box(&wide);
                        },
                    },
                    Work {
                        bytes,
                        run: &mut || {
                            sweep.run(&[1; 32], &tasks, black_box(&shards), &chunk, 0.5, &mut out);
                            (0..groups).for_each(|group| assert!(sweep.checked(group).agrees, "nobody lies"));
                        },
                    },
                    Work {
                        bytes,
                        run: &mut || {
                            widen(&mut wider);
                            let shards: Vec<&[f32]> = wider.chunks(STRIDE).map(|shard| &shard[..WIDTH]).collect();
                            other.run(&[1; 32], &tasks, black_box(&shards), &chunk, 0.5, &mut out_too);
                            (0..groups).for_each(|group| assert!(other.checked(group).agrees, "nobody lies"));
                        },
                    },
                ],
            );
            let [floor, widened, decoded, both] = &figures[..] else { unreachable!() };
            table.push(vec![
                Cell::Text(format!("P={workers} r={r} r_c={c}")),
                Cell::Text(precision.to_string()),
                Cell::Figure(floor.clone()),
                Cell::Figure(widened.clone()),
                Cell::Number(ratio(widened, floor)),
                Cell::Figure(decoded.clone()),
                Cell::Figure(both.clone()),
                Cell::Number(ratio(both, decoded)),
            ]);
        }
    }
    table
}

/// Encoding to 16 bits against encoding to f32.
pub fn encode_rows(effort: &Effort) -> Table {
    let title = "Encoding a mixed row on one core, 1e9 numbers of gradient per second";
    let mut table = Table::new(title, &["s, r_c, r", "f32", "bf16", "ratio", "f16", "ratio"]);
    for (s, c) in [(2, 1), (2, 2), (2, 4), (2, 10)] {
        let r = Parameters::new(1, s, 0, c).expect("a code").redundancy();
        let generator = Generator::new(Family::Trigonometric, Form::Systematic, r, c).expect("a code");
        let row = (0..r).rev().find(|row| generator.raw_slice(*row).is_none()).unwrap_or(0);
        let block: Vec<f32> = (0..WIDTH * c).map(|at| ((at * 7919) % 1009) as f32 - 500.0).collect();
        let (mut shard, bytes) = (vec![0f32; WIDTH], block.len());
        let mut rounded = [vec![0u16; WIDTH], vec![0u16; WIDTH]];
        let [bf16, f16] = &mut rounded;
        let figures: Vec<Figure> = rates(
            effort,
            &mut [
                Work {
                    bytes,
                    run: &mut || {
                        encode(&generator, row, black_box(&block), &mut shard);
                        black_box(&shard);
                    },
                },
                Work {
                    bytes,
                    run: &mut || {
                        let to = bytemuck::cast_slice_mut(bf16);
                        encode_rounded(&generator, row, black_box(&block), Precision::Bf16, black_box(to));
                    },
                },
                Work {
                    bytes,
                    run: &mut || {
                        let to = bytemuck::cast_slice_mut(f16);
                        encode_rounded(&generator, row, black_box(&block), Precision::F16, black_box(to));
                    },
                },
            ],
        );
        let [f32, bf16, f16] = &figures[..] else { unreachable!() };
        table.push(vec![
            Cell::Text(format!("{s}, {c}, {r}")),
            Cell::Figure(f32.clone()),
            Cell::Figure(bf16.clone()),
            Cell::Number(ratio(bf16, f32)),
            Cell::Figure(f16.clone()),
            Cell::Number(ratio(f16, f32)),
        ]);
    }
    table
}
