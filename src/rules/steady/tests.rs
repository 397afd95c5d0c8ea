//! Weights and missing workers, against the definitions.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::super::gram::Gram;
use super::super::reference;
use super::*;

/// A common direction, and noise of each worker's own spread, times its weight.
fn gradients(weights: &[f64], width: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = || random.next_u32() as f32 / u32::MAX as f32 - 0.5;
    let common: Vec<f32> = (0..width).map(|_| uniform()).collect();
    let row = |(worker, weight): (usize, &f64)| {
        let mut number = |x: &f32| (x + (0.5 + 0.07 * worker as f32) * uniform()) * *weight as f32;
        common.iter().map(&mut number).collect()
    };
    weights.iter().enumerate().map(row).collect()
}

/// What `steady` makes of the rows that are there.
fn steadily(steady: &mut Steady, rows: &[Vec<f32>], present: &[usize], scale: f32) -> Vec<f32> {
    let width = rows[0].len();
    let zeros = vec![0f32; width];
    let there = |row: usize| present.contains(&row);
    let surveyed: Vec<&[f32]> = (0..rows.len()).map(|row| if there(row) { &rows[row][..] } else { &zeros }).collect();
    let mut gram = Gram::new(rows.len());
    gram.add(&surveyed);
    steady.choose(present.iter().copied(), |i, j| gram.product(i, j));
    let rows: Vec<&[f32]> = (0..rows.len()).map(|row| if there(row) { &rows[row][..] } else { &[] }).collect();
    let mut out = vec![f32::NAN; width];
    steady.combine(&rows, scale, &mut out);
    out
}

/// The sum of all weights times the rule of the rows that are there, each divided by its weight.
fn wanted(rule: Rule, f: usize, rows: &[Vec<f32>], weights: &[f64], present: &[usize], scale: f32) -> Vec<f64> {
    let divided = |row: &usize| rows[*row].iter().map(|x| x / weights[*row] as f32).collect();
    let there: Vec<Vec<f32>> = present.iter().map(divided).collect();
    let there: Vec<&[f32]> = there.iter().map(Vec::as_slice).collect();
    let chosen: Vec<f64> = present.iter().map(|row| weights[*row]).collect();
    let out = match rule {
        Rule::Mean => reference::weighted_mean(&there, &chosen),
        Rule::Median => reference::median(&there),
        Rule::TrimmedMean => reference::trimmed_mean(&there, f),
        Rule::Krum => reference::krum(&there, f),
        Rule::MultiKrum => {
            let all: Vec<usize> = (0..there.len()).collect();
            let order = reference::ranked(&reference::distances(&there), &all, f);
            let best = || order[..there.len() - f - 2].iter();
            let rows: Vec<&[f32]> = best().map(|row| there[*row]).collect();
            reference::weighted_mean(&rows, &best().map(|row| chosen[*row]).collect::<Vec<f64>>())
        }
        Rule::Bulyan => reference::bulyan(&there, f),
        Rule::GeometricMedian => reference::geometric_median(&there, &chosen),
        Rule::Signum | Rule::Cyclic => unreachable!("they have neither weights nor rows of numbers"),
    };
    let total: f64 = weights.iter().sum();
    out.into_iter().map(|x| x * total * f64::from(scale)).collect()
}

#[test]
fn every_rule_is_that_of_a_round_on_the_scale_of_the_sum_whoever_is_missing() {
    for (workers, missing) in [(7, 0), (11, 4), (12, 3), (23, 5), (64, 1)] {
        for weights in [vec![1.0; workers], (0..workers).map(|worker| 1.0 + (worker % 3) as f64).collect()] {
            let rows = gradients(&weights, 700, workers as u64);
            for rule in Rule::ALL.into_iter().filter(|rule| *rule != Rule::Signum) {
                let least = workers - missing;
                let f = (0..=least).take_while(|f| rule.check(least, *f).is_ok()).last().unwrap();
                let f = if rule == Rule::Mean { 0 } else { f };
                let mut steady = Steady::new(rule, f, &weights, least).unwrap();
                for absent in [vec![], vec![0], vec![workers - 1, 2, 5], vec![1, 3, 4, 6]] {
                    let present: Vec<usize> = (0..workers).filter(|row| !absent.contains(row)).collect();
                    if present.len() < least {
                        continue;
                    }
                    let found = steadily(&mut steady, &rows, &present, 0.25);
                    let wanted = wanted(rule, f, &rows, &weights, &present, 0.25);
                    let error = reference::error(&found, &wanted);
                    assert!(error < 2e-5, "{rule}, P = {workers}, f = {f}, without {absent:?}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn rows_that_are_not_finite_are_never_chosen_by_rules_that_choose() {
    let weights = vec![1.0; 11];
    let mut rows = gradients(&weights, 300, 4);
    (rows[2][7], rows[9][0]) = (f32::NAN, f32::INFINITY);
    let all: Vec<usize> = (0..11).collect();
    for rule in [Rule::Krum, Rule::MultiKrum, Rule::Bulyan, Rule::GeometricMedian] {
        let mut steady = Steady::new(rule, 2, &weights, 11).unwrap();
        let found = steadily(&mut steady, &rows, &all, 1.0);
        assert!(!steady.chosen().contains(&2) && !steady.chosen().contains(&9), "{rule}: {:?}", steady.chosen());
        assert!(found.iter().all(|x| x.is_finite()), "{rule}");
    }
    for rule in [Rule::Median, Rule::TrimmedMean] {
        let found = steadily(&mut Steady::new(rule, 2, &weights, 11).unwrap(), &rows, &all, 1.0);
        assert!(found.iter().all(|x| x.is_finite()), "{rule}");
    }
}

#[test]
fn equal_rows_are_their_own_result_and_too_few_are_refused_with_the_bound() {
    for rule in Rule::ALL.into_iter().filter(|rule| *rule != Rule::Signum) {
        let rows = vec![vec![0.5f32; 100]; 11];
        let mut steady = Steady::new(rule, 2, &[3.0; 11], 11).unwrap();
        let found = steadily(&mut steady, &rows, &(0..11).collect::<Vec<_>>(), 2.0);
        assert!(found.iter().all(|x| (x - 11.0).abs() < 1e-5), "{rule}: {}", found[0]);
        if rule != Rule::Mean {
            let error = Steady::new(rule, 5, &[1.0; 11], 10).unwrap_err().to_string();
            assert!(error.contains("at least") && error.contains("P >="), "{error}");
        }
    }
}
