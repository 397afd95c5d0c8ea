//! Every rule against its definition.

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::*;

/// A common direction, and noise of each worker's own spread, so that no two sums of distances are near each other.
fn gradients(workers: usize, width: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Twelve uniform numbers add up to something near to a normal one.
    let mut normal = || (0..12).map(|_| (random.next_u32() as f32) / (u32::MAX as f32)).sum::<f32>() - 6.0;
    let common: Vec<f32> = (0..width).map(|_| normal()).collect();
    let spread = |worker: usize| 0.5 + 0.05 * worker as f32;
    (0..workers).map(|worker| common.iter().map(|x| x + spread(worker) * normal()).collect()).collect()
}

fn views(rows: &[Vec<f32>]) -> Vec<&[f32]> {
    rows.iter().map(Vec::as_slice).collect()
}

fn wanted(rule: Rule, f: usize, rows: &[&[f32]]) -> Vec<f64> {
    match rule {
        Rule::Mean => reference::mean(rows),
        Rule::Median => reference::median(rows),
        Rule::TrimmedMean => reference::trimmed_mean(rows, f),
        Rule::Krum => reference::krum(rows, f),
        Rule::MultiKrum => reference::multi_krum(rows, f),
        Rule::Bulyan => reference::bulyan(rows, f),
        Rule::GeometricMedian => reference::geometric_median(rows, &vec![1.0; rows.len()]),
        Rule::Signum => reference::signum(rows),
        Rule::Cyclic => unreachable!("not one of all"),
    }
}

/// By chunks of `chunk` columns, as the daemon does it.
fn streamed(rule: Rule, f: usize, rows: &[&[f32]], chunk: usize) -> Vec<f32> {
    let mut round = Round::new(rule, f, &vec![1.0; rows.len()]).unwrap();
    let width = rows[0].len();
    let parts = || (0..width).step_by(chunk).map(|start| start..width.min(start + chunk));
    let cut = |part: &std::ops::Range<usize>| rows.iter().map(|row| &row[part.clone()]).collect::<Vec<_>>();
    // In another order than they are combined in.
    parts().collect::<Vec<_>>().iter().rev().for_each(|part| round.survey(&cut(part)));
    round.choose();
    let mut out = vec![f32::NAN; width];
    parts().for_each(|part| round.combine(&cut(&part), &mut out[part.clone()]));
    out
}

fn most_liars(rule: Rule, workers: usize) -> usize {
    (0..workers).take_while(|f| rule.check(workers, *f).is_ok()).last().unwrap_or(0)
}

fn error_allowed(rule: Rule) -> f64 {
    // The iteration stops at weights that move by 1e-9, and takes distances from inner products.
    if rule == Rule::GeometricMedian { 1e-4 } else { 2e-6 }
}

#[test]
fn every_rule_agrees_with_its_definition() {
    for workers in [3, 4, 7, 11, 15, 16, 25, 45] {
        for width in [1, 127, 1000, 2049] {
            let rows = gradients(workers, width, (workers * width) as u64);
            let rows = views(&rows);
            for rule in Rule::ALL.into_iter().filter(|rule| rule.check(workers, 0).is_ok()) {
                // One coordinate has ties among distances, and then both choices are right.
                if width == 1 && rule.surveys() {
                    continue;
                }
                for f in [0, most_liars(rule, workers)] {
                    let wanted = wanted(rule, f, &rows);
                    for chunk in [width, 257] {
                        let error = reference::error(&streamed(rule, f, &rows, chunk), &wanted);
                        assert!(error <= error_allowed(rule), "{rule}, P = {workers}, f = {f}, d = {width}: {error:e}");
                    }
                }
            }
        }
    }
}

/// Made by benches/peers/python/vectors.py.
#[test]
fn rules_agree_with_byzfl_where_both_define_them() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    for case in vectors["cases"].as_array().unwrap() {
        let f = case["adversaries"].as_u64().unwrap() as usize;
        let rows: Vec<Vec<f32>> = case["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| numbers(row).into_iter().map(|x| x as f32).collect())
            .collect();
        let rows = views(&rows);
        for rule in [Rule::Mean, Rule::Median, Rule::TrimmedMean, Rule::GeometricMedian] {
            let theirs = numbers(&case["results"][rule.name()]);
            let mut out = vec![0.0; rows[0].len()];
            let f = if rule == Rule::Mean { 0 } else { f };
            Round::whole(rule, f, &rows, &mut out).unwrap();
            let error = reference::error(&out, &theirs);
            assert!(error <= error_allowed(rule), "{rule}, P = {}: {error:e}", rows.len());
        }
        // byzfl counts a neighbour more than the paper, and averages two more.
        let mut best = vec![0.0; rows[0].len()];
        Round::whole(Rule::Krum, f - 1, &rows, &mut best).unwrap();
        let all: Vec<usize> = (0..rows.len()).collect();
        let order = reference::ranked(&reference::distances(&rows), &all, f - 1);
        let several: Vec<&[f32]> = order[..rows.len() - f].iter().map(|row| rows[*row]).collect();
        let several: Vec<f32> = reference::mean(&several).into_iter().map(|x| x as f32).collect();
        for (name, found) in [("byzfl-krum", best), ("byzfl-multi-krum", several)] {
            let error = reference::error(&found, &numbers(&case["results"][name]));
            assert!(error < 1e-6, "{name}, P = {}: {error:e}", rows.len());
        }
    }
}

#[test]
fn liars_without_restraint_do_not_move_a_robust_rule_far() {
    let (workers, width) = (23, 500);
    let honest = gradients(workers, width, 8);
    let centre = reference::mean(&views(&honest));
    let farthest = honest.iter().map(|row| reference::error(row, &centre)).fold(0.0, f64::max);
    for lie in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1e20, 3e4, 0.0] {
        for rule in Rule::ALL.into_iter().filter(|rule| *rule != Rule::Mean) {
            let f = most_liars(rule, workers);
            let mut rows = honest.clone();
            rows.iter_mut().take(f).for_each(|row| row.fill(lie));
            let mut out = vec![f32::NAN; width];
            Round::whole(rule, f, &views(&rows), &mut out).unwrap();
            if rule == Rule::Signum {
                assert!(out.iter().all(|x| [-1.0, 0.0, 1.0].contains(x)), "{rule} with {lie}");
                continue;
            }
            if !rule.surveys() {
                let within = |at: usize| {
                    let column = || honest[f..].iter().map(|row| row[at]);
                    column().fold(f32::MAX, f32::min) - 1e-5 <= out[at]
                        && out[at] <= column().fold(f32::MIN, f32::max) + 1e-5
                };
                assert!((0..width).all(within), "{rule} with {f} of {workers} sending {lie} leaves the honest range");
                continue;
            }
            let error = reference::error(&out, &centre);
            // The geometric median withstands nearly half, but is moved by up to 2 (1 - a) / (1 - 2 a) of the honest ones' greatest
            // distance when a part a lies (Minsker, "Geometric median and robust estimation in Banach spaces", Lemma 2.1).
            let part = f as f64 / workers as f64;
            let moved = 2.0 * (1.0 - part) / (1.0 - 2.0 * part) * farthest;
            let bound = if rule == Rule::GeometricMedian { moved } else { 2.0 };
            assert!(error < bound, "{rule} with {f} of {workers} sending {lie} is off by {error}, more than {bound}");
        }
        let mut rows = honest.clone();
        rows[0].fill(lie);
        let mut out = vec![0.0; width];
        Round::whole(Rule::Mean, 0, &views(&rows), &mut out).unwrap();
        let error = reference::error(&out, &centre);
        assert!(lie == 0.0 || error.is_nan() || error >= 2.0, "the mean believes even {lie}");
    }
}

#[test]
fn too_few_workers_are_refused_with_the_bound() {
    for rule in Rule::ALL {
        for f in 0..6 {
            let (needed, _) = rule.needs(f);
            assert!(rule.check(needed, f).is_ok(), "{rule}");
            assert!(needed == 1 || rule.check(needed - 1, f).is_err(), "{rule}");
        }
    }
    let text = Rule::Bulyan.check(14, 3).unwrap_err().to_string();
    assert_eq!(text, "bulyan against 3 liars needs at least 15 workers (P >= 4 f + 3); there are 14");
    assert!(Round::new(Rule::Krum, 1, &[1.0; 4]).is_err());
}

#[test]
fn names_are_parsed_and_printed_alike() {
    for rule in Rule::ALL {
        assert_eq!(rule.to_string().parse(), Ok(rule));
    }
    assert!("crum".parse::<Rule>().unwrap_err().to_string().contains("krum, multi-krum, bulyan"));
}

#[test]
fn weights_count_in_means_and_not_in_votes() {
    let means = [[0.0f32, 1.0], [4.0, 5.0], [8.0, 9.0]];
    let of = |rule: Rule, weights: &[f64]| {
        // What is sent are sums over as many samples.
        let sum = |(mean, weight): (&[f32; 2], &f64)| mean.iter().map(|x| x * *weight as f32).collect();
        let rows: Vec<Vec<f32>> = means.iter().zip(weights).map(sum).collect();
        let mut round = Round::new(rule, 0, weights).unwrap();
        round.survey(&views(&rows));
        round.choose();
        let mut out = [0.0; 2];
        round.combine(&views(&rows), &mut out);
        out
    };
    assert_eq!(of(Rule::Mean, &[1.0, 1.0, 2.0]), [5.0, 6.0]);
    assert_eq!(of(Rule::Median, &[1.0, 1.0, 200.0]), [4.0, 5.0]);
    let heavy = of(Rule::GeometricMedian, &[1.0, 1.0, 200.0]);
    assert!((heavy[0] - 8.0).abs() < 0.02, "most of the weight is where the median is: {heavy:?}");
}

#[test]
fn all_kernels_of_inner_products_agree_with_distances() {
    let rows = gradients(13, 1500, 3);
    let wanted = reference::distances(&views(&rows));
    for kernel in gram::kernels() {
        let mut gram = gram::Gram::with(kernel, 13);
        gram.add(&views(&rows));
        for (i, wanted) in wanted.iter().enumerate() {
            let distance = |j| gram.product(i, i) + gram.product(j, j) - 2.0 * gram.product(i, j);
            let error = reference::error(&(0..13).map(|j| distance(j) as f32).collect::<Vec<_>>(), wanted);
            assert!(error < 1e-6, "{error:e}");
        }
    }
}

#[test]
fn networks_sort_by_the_zero_one_principle() {
    for wires in 1..=45usize {
        let full = kernels::network(wires, 0..wires);
        let middle = kernels::network(wires, std::iter::once(wires / 2));
        for turn in 0..3000u64 {
            let bits = if wires <= 11 { turn } else { turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (turn << 31) };
            let run = |network: &[(usize, usize)]| {
                let mut wires: Vec<bool> = (0..wires).map(|wire| bits >> wire & 1 == 1).collect();
                network.iter().for_each(|&(a, b)| (wires[a], wires[b]) = (wires[a] & wires[b], wires[a] | wires[b]));
                wires
            };
            let sorted = run(&full);
            assert!(sorted.is_sorted(), "a network sorts {wires} numbers");
            assert_eq!(run(&middle)[wires / 2], sorted[wires / 2], "a network finds the middle of {wires} numbers");
        }
    }
}

proptest! {
    #[test]
    fn votes_of_packed_signs_are_those_of_the_definition(
        workers in 1usize..40, width in 1usize..300, seed in any::<u64>(), bias in 0u32..=4
    ) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut number = || match random.next_u32() % 8 {
            0 => 0.0,
            1 => -0.0,
            2 => f32::NAN,
            at if at > bias + 3 => -1e-40,
            _ => 3.0,
        };
        let rows: Vec<Vec<f32>> = (0..workers).map(|_| (0..width).map(|_| number()).collect()).collect();
        let mut out = vec![f32::NAN; width];
        sign::majority(&views(&rows), &mut out);
        let wanted = reference::signum(&views(&rows));
        prop_assert_eq!(out.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn coordinate_rules_are_those_of_the_definition_for_any_numbers(
        columns in prop::collection::vec(prop::collection::vec(prop_oneof![
            4 => -1e3f32..1e3,
            1 => prop::sample::select(vec![0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, 3e38]),
        ], 9), 1..200)
    ) {
        let rows: Vec<Vec<f32>> = (0..9).map(|row| columns.iter().map(|column| column[row]).collect()).collect();
        for (rule, f) in [(Rule::Median, 4), (Rule::TrimmedMean, 2)] {
            let mut out = vec![0.0; columns.len()];
            Round::whole(rule, f, &views(&rows), &mut out).unwrap();
            for (found, wanted) in out.iter().zip(wanted(rule, f, &views(&rows))) {
                let wanted = wanted as f32;
                let near = (found - wanted).abs() <= 1e-6 * 1e3f32.max(wanted.abs());
                prop_assert!(near || *found == wanted || (found.is_nan() && wanted.is_nan()) || found.is_infinite(), "{rule}: {found} {wanted}");
            }
        }
    }
}
