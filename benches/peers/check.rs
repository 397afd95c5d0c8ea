//! Every implementation against the oracle, before any is measured.

use ::solon::rules::{Round, Rule, cyclic, kernels, reference};

use crate::baseline;
use crate::contest::{bulyan_liars, cyclic_sent, encoded, with_liars};
use crate::data::{Matrix, fill_apart, fill_groups};
use crate::draco::repetition;
use crate::solon::Solon;

/// No multiple of any tile, and more than one chunk of Solon's without compression.
const DIMENSION: usize = 20_011;
/// More than one chunk at a compression of 10.
const LONG: usize = 170_003;

/// # Panics
/// If one of them is wrong.
pub fn all() {
    for workers in [15, 25, 45] {
        rules(workers);
        for liars in 0..=bulyan_liars(workers) {
            cyclic_code(workers, liars);
        }
        codes(workers / 5, 2, 0, 1, DIMENSION);
    }
    codes(1, 5, 0, 5, LONG);
    codes(3, 5, 0, 5, LONG);
    codes(1, 17, 1, 10, LONG);
    majorities();
}

fn close(name: &str, found: &[f32], wanted: &[f64]) {
    let error = reference::error(found, wanted);
    assert!(error < 1e-4, "{name} of {DIMENSION} numbers is wrong by {error:e}");
}

fn rules(workers: usize) {
    let f = bulyan_liars(workers);
    let mut matrix = Matrix::new(workers, DIMENSION);
    fill_apart(&mut matrix, 3);
    let mut out = vec![0.0; DIMENSION];
    let rows = matrix.rows();
    let sum: f64 = rows[0].iter().map(|x| f64::from(*x)).sum();
    let whole = DIMENSION / 128 * 128;
    assert!((f64::from(kernels::read(&rows[0][..whole])) - sum).abs() < 1e3, "reading reads");
    let mean = reference::mean(&rows);
    kernels::mean(&rows, 1.0 / workers as f32, &mut out);
    close("the fastest mean", &out, &mean);
    baseline::add_each(&rows, &mut out);
    out.iter_mut().for_each(|x| *x /= workers as f32);
    close("the mean of dst += src", &out, &mean);
    let ours = |rule: Rule| {
        move |rows: &[&[f32]], f: usize, out: &mut [f32]| Round::whole(rule, f, rows, out).expect("workers enough")
    };
    type Call<'a> = &'a dyn Fn(&[&[f32]], usize, &mut [f32]);
    let checks: [(&str, Call<'_>, Vec<f64>); 9] = [
        ("plain Krum", &baseline::krum, reference::krum(&rows, f)),
        ("plain Multi-Krum", &baseline::multi_krum, reference::multi_krum(&rows, f)),
        ("our Multi-Krum", &ours(Rule::MultiKrum), reference::multi_krum(&rows, f)),
        ("Garfield's Bulyan", &baseline::bulyan, reference::bulyan_of_means(&rows, f)),
        ("our Bulyan", &ours(Rule::Bulyan), reference::bulyan(&rows, f)),
        ("plain median", &|rows, _, out| baseline::median(rows, out), reference::median(&rows)),
        ("our median", &ours(Rule::Median), reference::median(&rows)),
        ("our trimmed mean", &ours(Rule::TrimmedMean), reference::trimmed_mean(&rows, f)),
        ("our Krum", &ours(Rule::Krum), reference::krum(&rows, f)),
    ];
    for (name, rule, wanted) in checks {
        out.fill(f32::NAN);
        rule(&rows, f, &mut out);
        close(name, &out, &wanted);
    }
}

fn cyclic_code(workers: usize, liars: usize) {
    const WIDTH: usize = 1500;
    let mut matrix = Matrix::new(workers, WIDTH);
    fill_apart(&mut matrix, 4);
    let s = bulyan_liars(workers);
    let mut sent = cyclic_sent(&matrix.rows(), s, WIDTH);
    let mut lying: Vec<usize> = (0..liars).map(|liar| (liar * 4 + 1) % workers).collect();
    lying.sort_unstable();
    for liar in &lying {
        sent[*liar].iter_mut().enumerate().for_each(|(at, x)| *x *= -(1.0 + (at % 3) as f64));
    }
    let mut out = vec![0.0; WIDTH];
    let rows: Vec<_> = sent.iter().map(Vec::as_slice).collect();
    let mut code = cyclic::Decoder::new(workers, s, WIDTH, [28; 32]);
    let found = code.decode(&rows, 1.0, &mut out).expect("as many as it corrects");
    assert_eq!(found, lying, "the cyclic code of {workers} finds who lies");
    out.iter_mut().for_each(|x| *x /= workers as f32);
    close("Draco's cyclic code", &out, &reference::mean(&matrix.rows()));
}

fn codes(groups: usize, s: usize, e: usize, c: usize, dimension: usize) {
    let mut gradients = Matrix::new(groups, dimension);
    fill_apart(&mut gradients, 5);
    let wanted = reference::mean(&gradients.rows());
    let mut solon = Solon::new(groups, s, e, c, dimension);
    let sent = encoded(&solon, &gradients.rows());
    let lie: Vec<f32> = sent.rows()[0].iter().map(|x| 3.0 - x).collect();
    let mut out = vec![f32::NAN; dimension];
    let r = solon.parameters().redundancy();
    assert_eq!(solon.aggregate(&sent.rows(), &mut out), 0, "nobody lies");
    close("Solon", &out, &wanted);
    out.fill(f32::NAN);
    assert!(solon.aggregate(&with_liars(&sent.rows(), &lie, r, s), &mut out) >= groups * s, "all liars are found");
    close("Solon with liars", &out, &wanted);
}

fn majorities() {
    let mut matrix = Matrix::new(15, DIMENSION);
    fill_groups(&mut matrix, 5, 6);
    let wanted = reference::mean(&matrix.rows());
    let lie = vec![1e9; DIMENSION];
    let mut out = vec![0.0; DIMENSION];
    for liars in 0..=2 {
        repetition(&with_liars(&matrix.rows(), &lie, 5, liars), 5, &mut out);
        close("Draco's repetition code", &out, &wanted);
    }
}
