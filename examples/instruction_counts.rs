//! One decode or encode of a fixed input, to count its instructions: `.ci/instructions` runs every case under callgrind.
//!
//! Without arguments it lists the cases; with the name of one and of the kernels it runs it. Only [`measured`] is counted.
//! The kernels are named, not looked for, so that the figures of one machine hold on another.

use std::sync::Arc;

use solon::code::{
    Family, Form, Generator, Kernels, Layout, Learn, ROWS_MAX, Rows, Sweep, Task, Tolerance, Verify, encode_with,
};

/// Numbers of a shard: whole tiles, a part of one, and a tail that is no whole vector.
const WIDTH: usize = 3 * 2048 + 300;
const SEED: [u8; 32] = [3; 32];

/// What is decoded.
#[derive(Clone, Copy)]
enum Work {
    /// One row of a chunk.
    Encode { row: usize },
    /// A chunk of every group, all of whose rows are here, recovered from what a decoder believes in that case.
    Decode(Learn),
    /// The same, but these rows of the first group lie or are missing.
    Without(&'static [usize]),
}

struct Case {
    name: &'static str,
    form: Form,
    groups: usize,
    redundancy: usize,
    compression: usize,
    verify: Verify,
    work: Work,
}

const fn case(name: &'static str, form: Form, [groups, redundancy, compression]: [usize; 3], work: Work) -> Case {
    Case { name, form, groups, redundancy, compression, verify: Verify::Random, work }
}

const SMALL: [usize; 3] = [3, 5, 1];
const WIDE: [usize; 3] = [1, 15, 5];
const DENSE: [usize; 3] = [2, 8, 4];

const CASES: [Case; 14] = [
    case("small-known", Form::Systematic, SMALL, Work::Decode(Learn::Nothing)),
    case("small-whether", Form::Systematic, SMALL, Work::Decode(Learn::Whether)),
    case("small-who", Form::Systematic, SMALL, Work::Decode(Learn::Who)),
    case("small-others", Form::Systematic, SMALL, Work::Without(&[0])),
    case("wide-known", Form::Systematic, WIDE, Work::Decode(Learn::Nothing)),
    case("wide-whether", Form::Systematic, WIDE, Work::Decode(Learn::Whether)),
    Case { verify: Verify::Full, ..case("wide-full", Form::Systematic, WIDE, Work::Decode(Learn::Whether)) },
    case("wide-who", Form::Systematic, WIDE, Work::Decode(Learn::Who)),
    case("wide-others", Form::Systematic, WIDE, Work::Without(&[0, 1, 6])),
    case("wide-encode", Form::Systematic, WIDE, Work::Encode { row: 1 }),
    case("dense-known", Form::Dense, DENSE, Work::Decode(Learn::Nothing)),
    case("dense-whether", Form::Dense, DENSE, Work::Decode(Learn::Whether)),
    case("dense-others", Form::Dense, DENSE, Work::Without(&[2, 7])),
    case("dense-encode", Form::Dense, DENSE, Work::Encode { row: 0 }),
];

/// What is counted.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    std::hint::black_box(work)();
}

/// Once before it is counted: plans are made and pages are touched then.
fn twice(mut work: impl FnMut()) {
    work();
    measured(&mut work);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        CASES.iter().for_each(|case| println!("{}", case.name));
        return;
    };
    let case = CASES.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("there is no case {name}"));
    let kernels = arguments.next().expect("which kernels?");
    let known = Kernels::all().into_iter().find(|known| known.name() == kernels);
    run(case, known.unwrap_or_else(|| panic!("this processor (or valgrind) has no {kernels}")));
}

fn run(case: &Case, kernels: Kernels) {
    let (groups, r, c) = (case.groups, case.redundancy, case.compression);
    assert!(r <= ROWS_MAX);
    let generator = Arc::new(Generator::new(Family::Trigonometric, case.form, r, c).expect("a code"));
    // The last slice is shorter than the others.
    let chunk = Layout::new(c * WIDTH - (c - 1), c, WIDTH).chunk(0);
    let number = |group: usize, at: usize| (((at * 7919 + group * 104_729) % 2003) as f32 - 1000.0) * 0.01;
    let blocks: Vec<Vec<f32>> = (0..groups).map(|group| (0..chunk.len).map(|at| number(group, at)).collect()).collect();
    let mut shards = vec![vec![0.0; chunk.width]; groups * r];
    if let Work::Encode { row } = case.work {
        // Not a raw one, which would be a copy.
        let row = (row..r).find(|row| generator.raw_slice(*row).is_none()).expect("a mixed row");
        let shard = &mut shards[0];
        twice(|| encode_with(kernels, &generator, row, &blocks[0], shard));
        return;
    }
    for (at, shard) in shards.iter_mut().enumerate() {
        encode_with(kernels, &generator, at % r, &blocks[at / r], shard);
    }
    let shards: Vec<&[f32]> = shards.iter().map(Vec::as_slice).collect();
    let mut sweep = Sweep::with_kernels(generator, groups, case.verify, Tolerance::default(), kernels);
    let all = Rows::first(r);
    let mut out = vec![0.0; chunk.len];
    let (learn, gone): (Learn, &[usize]) = match case.work {
        Work::Decode(learn) => (learn, &[]),
        Work::Without(rows) => (Learn::Nothing, rows),
        Work::Encode { .. } => unreachable!("encoded above"),
    };
    let agreeing: Rows = all.iter().filter(|row| !gone.contains(row)).collect();
    let task = |group: usize| {
        let used = sweep.used(if group == 0 { agreeing } else { all });
        Task { present: all, used, learn }
    };
    let tasks: Vec<Task> = (0..groups).map(task).collect();
    twice(|| {
        sweep.run(&SEED, &tasks, &shards, &chunk, 0.5, &mut out);
        if learn == Learn::Whether {
            (0..groups).for_each(|group| assert!(sweep.checked(group).agrees, "all rows agree"));
        }
    });
    for (at, found) in out.iter().enumerate() {
        let exact = 0.5 * blocks.iter().map(|block| f64::from(block[at])).sum::<f64>();
        assert!((f64::from(*found) - exact).abs() < 1e-3, "number {at} is {found}, not {exact}");
    }
}
