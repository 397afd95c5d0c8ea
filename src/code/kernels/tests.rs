//! Every kernel against the scalar one, bit for bit; the scalar one against plain loops.

use super::*;

/// Numbers of very different sizes, of both signs, a few of them special.
fn numbers(seed: u32, n: usize) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        x
    };
    let special = [0.0, -0.0, f32::MIN_POSITIVE, 1e-42, f32::MAX, f32::INFINITY, f32::NAN];
    let number = |_| match next() >> 8 {
        x if x % 97 == 0 && seed % 2 == 1 => special[x as usize % special.len()],
        x => (x as f32 / 8_388_608.0 - 1.0) * 2f32.powi(x as i32 % 21 - 10),
    };
    (0..n).map(number).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    // Which NaN comes out depends on the order of operands, which no processor promises.
    numbers.iter().map(|x| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }).collect()
}

fn bits64(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|x| if x.is_nan() { 1 } else { x.to_bits() }).collect()
}

const LENGTHS: [usize; 7] = [16, 32, 48, 112, 128, 528, TILE];

fn others() -> Vec<Kernels> {
    Kernels::all().into_iter().filter(|kernels| *kernels != Kernels::SCALAR).collect()
}

#[test]
fn the_fastest_is_chosen_and_every_kind_says_what_it_is() {
    let names: Vec<&str> = Kernels::all().iter().map(|kernels| kernels.name()).collect();
    assert_eq!(names[0], "scalar");
    assert_eq!(Kernels::best().name(), *names.last().unwrap());
}

#[test]
fn projections_have_the_same_bits_on_every_processor_and_are_inner_products() {
    for (nth, n) in LENGTHS.into_iter().enumerate() {
        for seed in [2 * nth as u32, 2 * nth as u32 + 1] {
            let rows: Vec<Vec<f32>> = (0..4).map(|row| numbers(10 * seed + row + seed % 2, n + 5)).collect();
            let rows: [&[f32]; 4] = std::array::from_fn(|row| rows[row].as_slice());
            let run = |kernels: Kernels| {
                let (mut factors, mut sums) = (Factors::zeros(), [Sums::default(); 4]);
                kernels.draw(&Key::new(&[9; 32]), 0, 3, n, &mut factors);
                kernels.projections::<4>(rows, 5..5 + n, &factors, &mut sums);
                (factors, sums)
            };
            let (factors, sums) = run(Kernels::SCALAR);
            for kernels in others() {
                let (theirs, found) = run(kernels);
                assert_eq!(theirs.0, factors.0, "{kernels:?}");
                for (found, sums) in found.iter().zip(&sums) {
                    (0..2)
                        .for_each(|k| assert_eq!(bits64(&found.values[k]), bits64(&sums.values[k]), "{kernels:?} {n}"));
                    assert_eq!(bits64(&found.squares), bits64(&sums.squares), "{kernels:?} {n}");
                }
            }
            for (row, sums) in rows.iter().zip(&sums).filter(|(row, _)| row.iter().all(|x| x.abs() < 1e9)) {
                let exact = |k: usize| -> f64 {
                    row[5..].iter().zip(&factors.0[k]).map(|(x, f)| f64::from(*x) * f64::from(*f)).sum()
                };
                let norm = row[5..].iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
                for k in 0..2 {
                    assert!((sums.values[k].iter().sum::<f64>() - exact(k)).abs() <= 1e-6 * norm, "{n} {k}");
                }
                assert!((sums.squares.iter().sum::<f64>().sqrt() - norm).abs() <= 1e-6 * norm);
            }
        }
    }
}

#[test]
fn exact_projections_have_the_same_bits_on_every_processor() {
    for n in [1, 7, 8, 9, 16, 513] {
        let row = numbers(2 * n as u32, n);
        let factors: Vec<Vec<f32>> = (0..3).map(|k| numbers(1000 + 2 * k, n)).collect();
        let factors: [&[f32]; 3] = std::array::from_fn(|k| factors[k].as_slice());
        let run = |kernels: Kernels| {
            let (mut sums, mut squares, mut finite) = ([[0.0; 8]; 3], [0.0; 8], true);
            kernels.project_exactly::<3>(&row, factors, &mut sums, &mut squares, &mut finite);
            (sums, squares, finite)
        };
        others().into_iter().for_each(|kernels| assert_eq!(run(kernels), run(Kernels::SCALAR), "{kernels:?} {n}"));
    }
}

#[test]
fn combinations_of_rows_have_the_same_bits_on_every_processor() {
    for (n, count) in LENGTHS.into_iter().zip([2, 5, 3, 64, 15, 7, 9]) {
        for seed in [4, 5] {
            let rows: Vec<Vec<f32>> = (0..count).map(|row| numbers(20 * seed + 2 * row + seed % 2, n + 3)).collect();
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let factors = numbers(8, 4 * rows.len());
            let owns: Rows = [0, rows.len() - 1].into_iter().collect();
            let run = |kernels: Kernels| {
                let (mut four, mut one, mut own) = ([[0.0; 8]; 4], [[0.0; 8]; 1], [0.0; 8]);
                let slices: Vec<Option<usize>> = (0..rows.len()).map(|row| (row % 2 == 0).then_some(row / 2)).collect();
                let mut summed = numbers(12, n * rows.len());
                let mut sums = RowSums { numbers: &mut summed, stride: n, slices: &slices, scale: 0.7 };
                kernels.combinations::<4, { how::SET }>(
                    &rows,
                    3..3 + n,
                    &factors,
                    &mut four,
                    owns,
                    &mut own,
                    &mut sums,
                );
                let again = &mut [[0.0; 8]; 2];
                kernels.combinations::<2, { how::ADD }>(&rows, 3..3 + n, &factors, again, owns, &mut own, &mut sums);
                kernels.combinations::<2, { how::ADD_SCALED }>(
                    &rows,
                    3..3 + n,
                    &factors,
                    again,
                    owns,
                    &mut own,
                    &mut sums,
                );
                for (row, slice) in slices.iter().enumerate().filter_map(|(row, slice)| Some((row, (*slice)?))) {
                    for c in 0..n {
                        let x = rows[row][3 + c];
                        assert_eq!(bits(&[summed[slice * n + c]]), bits(&[((x + x) + x) * 0.7]), "{kernels:?} {n}");
                    }
                }
                let none = &mut RowSums::none();
                kernels.combinations::<1, { how::NOT }>(
                    &rows,
                    3..3 + n,
                    &factors,
                    &mut one,
                    Rows::EMPTY,
                    &mut own,
                    none,
                );
                (four.map(|x| bits64(&x)), one.map(|x| bits64(&x)), bits64(&own))
            };
            let scalar = run(Kernels::SCALAR);
            assert_eq!(scalar.0[0], scalar.1[0], "the first of four is what it is alone");
            others().into_iter().for_each(|kernels| assert_eq!(run(kernels), scalar, "{kernels:?} {n}"));
        }
    }
}

#[test]
fn one_bit_anywhere_makes_rows_unequal() {
    for kernels in Kernels::all() {
        for n in [16, 48, 128, 144] {
            let row = numbers(6, n + 1);
            let equal = |rows: &[&[f32]]| {
                let mut equal = true;
                let mut sum = vec![0.0; n];
                let mut sums = RowSums { numbers: &mut sum, stride: n, slices: &[Some(0); 3], scale: 3.0 };
                kernels.compare::<{ how::SET_SCALED }>(rows, 1..n + 1, &mut [0.0; 8], &mut equal, &mut sums);
                let three: Vec<f32> = rows[0][1..n + 1].iter().map(|x| 3.0 * x).collect();
                assert_eq!(bits(&sum), bits(&three));
                equal
            };
            assert!(equal(&[&row]) && equal(&[&row, &row, &row]));
            for at in 0..n {
                let mut other = row.clone();
                other[at + 1] = f32::from_bits(other[at + 1].to_bits() ^ 1 << (at % 32));
                assert!(!equal(&[&row, &row, &other]) && !equal(&[&other, &row]), "{kernels:?} {n} {at}");
            }
            let mut other = row.clone();
            other[0] += 1.0;
            assert!(equal(&[&row, &other]), "not one of the columns");
        }
    }
}

#[test]
fn sums_and_products_have_the_same_bits_on_every_processor_and_are_what_they_say() {
    for (n, count) in LENGTHS.into_iter().zip([1, 2, 5, 12, 64, 15, 3]) {
        for seed in [4u32, 5] {
            let rows: Vec<Vec<f32>> = (0..count).map(|row| numbers(40 * seed + 2 * row + seed % 2, n)).collect();
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let (factors, order) = (numbers(2, 6 * rows.len()), [rows.len() - 1, 0, rows.len() / 2]);
            let run = |kernels: Kernels| {
                let mut sum = vec![0.0; n];
                kernels.sum(&rows, &order, 0..n, &mut sum, 0.37);
                let mut six: [Vec<f32>; 6] = std::array::from_fn(|i| numbers(i as u32 * 2, n));
                kernels.products::<6, false>(&rows, &factors, rows.len(), six.each_mut().map(Vec::as_mut_slice), -1.7);
                let first = six[0].clone();
                kernels.products::<6, true>(&rows, &factors, rows.len(), six.each_mut().map(Vec::as_mut_slice), 0.3);
                let mut scaled = numbers(2, n);
                kernels.scale::<true>(rows[0], &mut scaled, 3.3);
                let half = 16 * (n / 32);
                kernels.scale::<false>(&rows[0][..half], &mut sum[..half], 0.9);
                [sum, first, scaled].into_iter().chain(six).map(|x| bits(&x)).collect::<Vec<_>>()
            };
            let scalar = run(Kernels::SCALAR);
            others().into_iter().for_each(|kernels| assert_eq!(run(kernels), scalar, "{kernels:?} {n}"));
            for c in 0..n {
                let plain = order.iter().map(|row| rows[*row][c]).reduce(|a, b| a + b).unwrap() * 0.37;
                if c >= 16 * (n / 32) {
                    assert_eq!(bits(&[plain]), [scalar[0][c]]);
                }
                let product = rows.iter().zip(&factors).fold(0f32, |sum, (row, f)| row[c].mul_add(*f, sum)) * -1.7;
                assert_eq!(bits(&[product]), [scalar[1][c]]);
            }
        }
    }
}

#[test]
fn flushed_work_reads_and_writes_no_subnormal_numbers_and_leaves_no_trace() {
    let tiny = std::hint::black_box(1e-40f32);
    let (input, result) = flushed(|| {
        let zero = std::hint::black_box(0f32);
        let least = std::hint::black_box(f32::MIN_POSITIVE);
        // The outer box keeps the sums in here: nothing else tells the compiler that they depend on the control register.
        std::hint::black_box((std::hint::black_box(tiny) + zero, least * std::hint::black_box(0.5)))
    });
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        assert_eq!((input, result), (0.0, 0.0));
    }
    assert!(std::hint::black_box(tiny) + std::hint::black_box(0f32) > 0.0, "as before");
}
