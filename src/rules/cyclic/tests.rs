use proptest::prelude::*;

use super::*;

const WIDTH: usize = 37;
const SIZES: [(usize, usize); 10] =
    [(1, 0), (3, 1), (4, 1), (5, 2), (7, 2), (9, 4), (15, 3), (15, 7), (25, 3), (45, 5)];

/// Gradients of `n` batches, and what the workers send of them.
fn sent(n: usize, s: usize, random: &mut ChaCha8Rng) -> (Vec<Vec<f32>>, Vec<Vec<Complex64>>) {
    let mut number = || (random.next_u64() as f64 / u64::MAX as f64 - 0.5) as f32;
    let batches: Vec<Vec<f32>> = (0..n).map(|_| (0..WIDTH).map(|_| number()).collect()).collect();
    let rows = sent_of(n, s, &batches);
    (batches, rows)
}

fn sent_of(n: usize, s: usize, batches: &[Vec<f32>]) -> Vec<Vec<Complex64>> {
    let row = |worker| {
        let mut row = vec![ZERO; WIDTH];
        let gradients: Vec<&[f32]> = super::batches(n, s, worker).map(|batch| batches[batch].as_slice()).collect();
        encode(&weights(n, s, worker), gradients.into_iter(), &mut row);
        row
    };
    (0..n).map(row).collect()
}

/// The largest difference from the plain sum of all batches, times `scale`, relative to the largest number of that sum.
fn difference(batches: &[Vec<f32>], scale: f32, out: &[f32]) -> f64 {
    let sum = |at: usize| batches.iter().map(|batch| f64::from(batch[at])).sum::<f64>() * f64::from(scale);
    let largest = (0..WIDTH).map(|at| sum(at).abs()).fold(0.0, f64::max);
    (0..WIDTH).map(|at| (f64::from(out[at]) - sum(at)).abs() / largest).fold(0.0, f64::max)
}

fn decode(decoder: &mut Decoder, rows: &[Vec<Complex64>], out: &mut [f32]) -> Result<Vec<usize>, TooMany> {
    let rows: Vec<&[Complex64]> = rows.iter().map(Vec::as_slice).collect();
    decoder.decode(&rows, 0.5, out).map(<[usize]>::to_vec)
}

/// What is wrong with a row.
fn spoil(row: &mut Vec<Complex64>, kind: usize, random: &mut ChaCha8Rng) {
    let at = random.next_u64() as usize % WIDTH;
    match kind {
        0 => row.clear(),
        1 => row[at].re = f64::NAN,
        2 => row[at].im = f64::INFINITY,
        3 => row[at].re += 1e30,
        4 => row.iter_mut().for_each(|x| *x *= -100.0),
        5 => row[at].im += 1e-3 * (1.0 + row[at].norm()),
        6 => row.iter_mut().for_each(|x| *x = Complex64::new(1e5, 0.0)),
        7 => row[at] = Complex64::new(8.9e307, 8.9e307),
        8 => row[at].re += 10f64.powi((random.next_u64() % 400) as i32 - 200),
        // As a bit that was flipped in f32: of any size.
        9 | 10 => {
            let bits = (row[at].re as f32).to_bits() ^ 1 << (random.next_u64() % 32);
            row[at].re = f64::from(f32::from_bits(bits));
        }
        _ => row.iter_mut().for_each(|x| *x = Complex64::new(random.next_u64() as f64 / 1e18, 1.0)),
    }
}

proptest! {
    #[test]
    fn as_many_wrong_rows_as_the_code_corrects_are_named_and_do_not_matter(
        size in 0..SIZES.len(), seed in any::<u64>(), wrong in 0usize..=7, side_by_side in any::<bool>(),
    ) {
        let (n, s) = SIZES[size];
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (batches, honest) = sent(n, s, &mut random);
        let mut decoder = Decoder::new(n, s, WIDTH, [7; 32]);
        // Twice: what was found the last time is forgotten.
        for _ in 0..2 {
            let mut rows = honest.clone();
            let mut spoilt: Vec<usize> = Vec::new();
            let mut certain: Vec<usize> = Vec::new();
            let largest = honest.iter().map(|row| super::largest(row)).fold(0.0, f64::max);
            while spoilt.len() < wrong.min(s) {
                let next = random.next_u64() as usize % n;
                let row = spoilt.last().filter(|_| side_by_side).map_or(next, |last| (last + 1) % n);
                if !spoilt.contains(&row) {
                    let kind = random.next_u64() as usize % 12;
                    spoil(&mut rows[row], kind, &mut random);
                    spoilt.push(row);
                    // Whatever is not larger than rounding may go unnoticed.
                    let near = |(x, was): (&Complex64, &Complex64)| (x - was).norm() <= 1e-8 * largest;
                    if rows[row].is_empty() || !rows[row].iter().zip(&honest[row]).all(near) {
                        certain.push(row);
                    }
                }
            }
            let mut out = vec![f32::NAN; WIDTH];
            let found = decode(&mut decoder, &rows, &mut out).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert!(found.iter().all(|row| spoilt.contains(row)), "n {n} s {s}: {found:?} of {spoilt:?}");
            prop_assert!(certain.iter().all(|row| found.contains(row)), "n {n} s {s}: {found:?} without all of {certain:?}");
            let far = difference(&batches, 0.5, &out);
            prop_assert!(far < 1e-5, "n {n} s {s}: {far:e}");
        }
    }

    #[test]
    fn more_wrong_rows_than_that_are_noticed(size in 1..SIZES.len(), seed in any::<u64>(), more in 1usize..4) {
        let (n, s) = SIZES[size];
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (_, mut rows) = sent(n, s, &mut random);
        for row in rows.iter_mut().take(s + more) {
            spoil(row, 11, &mut random);
        }
        let mut out = vec![f32::NAN; WIDTH];
        prop_assert_eq!(decode(&mut Decoder::new(n, s, WIDTH, [7; 32]), &rows, &mut out), Err(TooMany(s)));
        prop_assert!(out.iter().all(|x| x.is_nan()), "nothing is written");
    }
}

#[test]
fn gradients_that_are_alike_or_nothing_at_all_make_nobody_a_liar() {
    for (n, s) in SIZES {
        for spread in [0.0, 1e-7, 1e-4, 1e-2] {
            let mut random = ChaCha8Rng::seed_from_u64(n as u64);
            let mut number = || (random.next_u64() as f64 / u64::MAX as f64 - 0.5) as f32;
            let common: Vec<f32> = (0..WIDTH).map(|_| number()).collect();
            let mut near = || common.iter().map(|x| x + spread * number()).collect();
            let batches: Vec<Vec<f32>> = (0..n).map(|_| near()).collect();
            let mut rows = sent_of(n, s, &batches);
            let mut out = vec![f32::NAN; WIDTH];
            let mut decoder = Decoder::new(n, s, WIDTH, [3; 32]);
            assert_eq!(decode(&mut decoder, &rows, &mut out), Ok(vec![]), "n {n} s {s} spread {spread}");
            assert!(difference(&batches, 0.5, &out) < 1e-6);
            if s > 0 {
                rows[n / 2].iter_mut().for_each(|x| *x = -*x);
                assert_eq!(decode(&mut decoder, &rows, &mut out), Ok(vec![n / 2]), "n {n} s {s} spread {spread}");
            }
        }
        let mut rows = vec![vec![ZERO; WIDTH]; n];
        let mut out = vec![f32::NAN; WIDTH];
        let mut decoder = Decoder::new(n, s, WIDTH, [3; 32]);
        assert_eq!(decode(&mut decoder, &rows, &mut out), Ok(vec![]));
        for (lie, named) in [(1e-200, vec![]), (1e-90, vec![n / 3]), (1e-30, vec![n / 3]), (8.9e307, vec![n / 3])] {
            if s > 0 {
                rows[n / 3][5] = Complex64::new(lie, lie);
                assert_eq!(decode(&mut decoder, &rows, &mut out), Ok(named), "n {n} s {s} lie {lie:e}");
            }
            assert!(out.iter().all(|x| *x == 0.0));
        }
    }
}

#[test]
fn a_short_chunk_and_one_without_a_number_are_decoded() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let (batches, rows) = sent(7, 2, &mut random);
    let mut decoder = Decoder::new(7, 2, 100, [1; 32]);
    for width in [0, 1, 8, WIDTH] {
        let mut out = vec![0.0; width];
        let part: Vec<&[Complex64]> = rows.iter().map(|row| &row[..width.max(1)]).collect();
        assert_eq!(decoder.decode(&part, 1.0, &mut out), Ok(&[][..]));
        for (at, x) in out.iter().enumerate() {
            let sum: f64 = batches.iter().map(|batch| f64::from(batch[at])).sum();
            assert!((f64::from(*x) - sum).abs() < 1e-6);
        }
    }
}

#[test]
fn rounded_to_f32_the_rows_of_45_workers_say_nothing() {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let (batches, mut rows) = sent(45, 5, &mut random);
    let largest = rows.iter().flatten().map(|x| x.norm()).fold(0.0, f64::max);
    assert!(largest > 1e4, "{largest}");
    for x in rows.iter_mut().flatten() {
        *x = Complex64::new(f64::from(x.re as f32), f64::from(x.im as f32));
    }
    // Rounding looks like lies; so this is what the honest combination makes of it.
    let mut decoder = Decoder::new(45, 5, WIDTH, [1; 32]);
    let rows: Vec<&[Complex64]> = rows.iter().map(Vec::as_slice).collect();
    let mut out = vec![0.0; WIDTH];
    combine(&rows, decoder.combination(&[]), 1.0, &mut out);
    let far = difference(&batches, 1.0, &out);
    println!("entries of rows up to {largest:.0}, sum off by {far:.1e}");
    assert!(far > 1e-4, "{far:e}");
}

#[test]
fn what_a_liar_leaves_as_it_is_stays_to_the_last_bit() {
    let mut shard = [Complex64::new(0.1, 0.2), Complex64::new(1.0 / 3.0, 7.0)];
    tampered(&mut shard, |numbers| numbers[1] = -2.0);
    assert_eq!(shard, [Complex64::new(0.1, 0.2), Complex64::new(-2.0, 7.0)]);
}

#[test]
fn every_batch_is_computed_by_as_many_workers_as_compute_it() {
    for (n, s) in SIZES {
        let mut counts = vec![0; n];
        (0..n).flat_map(|worker| super::batches(n, s, worker)).for_each(|batch| counts[batch] += 1);
        assert!(counts.iter().all(|count| *count == 2 * s + 1), "{n} {s}");
    }
}
