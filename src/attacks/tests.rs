//! The attacks, held to what they say of themselves.

use std::time::Duration;

use proptest::prelude::*;

use super::liar::{norm, normal_pair};
use super::*;
use crate::code::Layout;

const TOLERANCE: f64 = 3.0 / 16_777_216.0;

fn means(worker: usize) -> Means {
    Means { seed: 7, worker, workers: 12, liars: 4, redundancy: 6, tolerance: TOLERANCE, strength: None }
}

fn liar(attack: Attack, worker: usize) -> Liar {
    Liar::new(attack, &Layout::new(1000, 2, 125), means(worker))
}

fn lied(attack: Attack, worker: usize, round: u64, shard: &[f32]) -> Vec<f32> {
    let mut lie = shard.to_vec();
    liar(attack, worker).shard(round, 0, &mut lie);
    lie
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn shards() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-100.0f32..100.0, 1..=125)
}

proptest! {
    #[test]
    fn every_attack_lies_at_its_place_and_nowhere_else(honest in shards(), round in 1u64..1000) {
        // Two rounds, because some need to have seen an honest one.
        let honest: Vec<f32> = honest.into_iter().map(|value| value + 200.0).collect();
        let earlier: Vec<f32> = honest.iter().map(|value| value * 1.5).collect();
        for attack in Attack::ALL {
            let mut liar = liar(attack, 3);
            liar.gradient(Knowledge::Own, &mut earlier.clone());
            liar.shard(round - 1, 0, &mut earlier.clone());
            let (mut gradient, mut shard) = (honest.clone(), honest.clone());
            liar.gradient(Knowledge::Own, &mut gradient);
            liar.shard(round, 0, &mut shard);
            prop_assert_eq!(bits(&gradient) != bits(&honest), attack.place() == LiePlace::Gradient, "{}", attack);
            prop_assert_eq!(bits(&shard) != bits(&honest), attack.place() == LiePlace::Shard, "{}", attack);
            prop_assert_eq!(liar.row(3) != 3, attack.place() == LiePlace::Row, "{}", attack);
            let waits = liar.wait(Duration::from_secs(1)) > Duration::ZERO;
            prop_assert_eq!(waits, attack.place() == LiePlace::Time, "{}", attack);
        }
    }

    #[test]
    fn lies_are_the_same_for_a_seed_and_differ_by_worker_and_round(honest in shards()) {
        for attack in Attack::ALL {
            prop_assert_eq!(bits(&lied(attack, 1, 5, &honest)), bits(&lied(attack, 1, 5, &honest)));
        }
        prop_assert_ne!(lied(Attack::Gaussian, 1, 5, &honest), lied(Attack::Gaussian, 2, 5, &honest));
        prop_assert_ne!(lied(Attack::Gaussian, 1, 5, &honest), lied(Attack::Gaussian, 1, 6, &honest));
    }

    #[test]
    fn bit_flip_changes_one_exponent_bit_of_one_element(honest in shards(), round: u64) {
        let lie = lied(Attack::BitFlip, 0, round, &honest);
        let changes: Vec<u32> = bits(&honest).iter().zip(bits(&lie)).map(|(a, b)| a ^ b).filter(|&x| x != 0).collect();
        prop_assert_eq!(changes.len(), 1);
        prop_assert!(changes[0].is_power_of_two() && changes[0] & 0x7f80_0000 != 0);
    }

    #[test]
    fn colluders_of_a_group_agree_on_a_wrong_gradient(honest in shards(), other_seed in 8u64..100) {
        prop_assume!(norm(&honest) > 0.0);
        let collude = |worker, seed| {
            let mut gradient = honest.clone();
            let layout = Layout::new(1000, 2, 125);
            Liar::new(Attack::Collude, &layout, Means { seed, ..means(worker) }).gradient(Knowledge::Own, &mut gradient);
            gradient
        };
        prop_assert_eq!(collude(0, 7), collude(5, 7));
        prop_assert_ne!(collude(0, 7), honest.clone());
        prop_assert!((norm(&collude(0, 7)) / norm(&honest) - 10.0).abs() < 1e-3);
        prop_assume!(honest.len() > 60);
        prop_assert_ne!(collude(0, 7), collude(0, other_seed));
    }

    #[test]
    fn nan_leaves_nothing_finite(honest in shards()) {
        prop_assert!(lied(Attack::Nan, 0, 0, &honest).iter().all(|value| value.is_nan()));
    }
}

#[test]
fn bit_flip_prefers_an_element_that_is_not_zero() {
    for round in 0..100 {
        let mut honest = vec![0.0; 50];
        honest[20] = 1.5;
        assert_ne!(lied(Attack::BitFlip, 0, round, &honest)[20], 1.5);
    }
    assert_eq!(lied(Attack::BitFlip, 0, 0, &[0.0; 9]).iter().filter(|&&value| value != 0.0).count(), 1);
    assert!(lied(Attack::BitFlip, 0, 0, &[]).is_empty());
}

#[test]
fn threshold_stays_under_the_tolerance() {
    let mut random = liar(Attack::Gaussian, 9).random(0, 0);
    let honest: Vec<f32> = (0..100).flat_map(|_| normal_pair(&mut random)).collect();
    let lie = lied(Attack::Threshold, 0, 0, &honest);
    let error: Vec<f32> = lie.iter().zip(&honest).map(|(a, b)| a - b).collect();
    let part = norm(&error) / (TOLERANCE * 6f64.sqrt() * norm(&honest));
    assert!((0.4..0.6).contains(&part), "{part}");
}

#[test]
fn replay_sends_what_was_honest_in_the_last_round_chunk_by_chunk() {
    let mut liar = liar(Attack::Replay, 0);
    let mut send = |round: u64, chunk: usize, value: f32| {
        let mut shard = [value; 3];
        liar.shard(round, chunk, &mut shard);
        shard[0]
    };
    assert_eq!([send(0, 0, 1.0), send(0, 1, 2.0)], [1.0, 2.0], "the first round has no past");
    assert_eq!([send(1, 0, 3.0), send(1, 1, 4.0)], [1.0, 2.0]);
    assert_eq!([send(2, 0, 5.0), send(2, 1, 6.0)], [3.0, 4.0]);
}

#[test]
fn gaussian_noise_has_the_deviation_it_says() {
    let mut shard = vec![0.0; 125];
    liar(Attack::Gaussian, 0).shard(0, 0, &mut shard);
    let deviation = norm(&shard) / 125f64.sqrt();
    assert!((150.0..250.0).contains(&deviation), "{deviation}");
}

#[test]
fn liars_who_know_all_groups_use_their_mean_and_deviation() {
    let honest: [&[f32]; 2] = [&[1.0, 4.0], &[3.0, 4.0]];
    for (attack, expected) in [
        // Four of twelve lie: three more must be farther away, so z is the quantile of 5 / 8.
        (Attack::Alie, [2.0 + 0.318_639_37, 4.0]),
        (Attack::Ipm, [-1.0, -2.0]),
        // As far from 3 as 1 is.
        (Attack::MinMax, [1.0, 4.0]),
        (Attack::Fang, [1.0, 4.0]),
        (Attack::SignFlip, [-9.0, 1.0]),
    ] {
        let mut gradient = [9.0, -1.0];
        liar(attack, 0).gradient(Knowledge::All(&honest), &mut gradient);
        let near = gradient.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near, "{attack}: {gradient:?}");
    }
}

#[test]
fn alie_waits_for_a_second_round_and_mimic_for_company() {
    let mut gradient = [1.0, 2.0];
    let mut alie = liar(Attack::Alie, 0);
    alie.gradient(Knowledge::Own, &mut gradient);
    assert_eq!(gradient, [1.0, 2.0]);
    alie.gradient(Knowledge::Own, &mut gradient);
    assert_eq!(gradient, [1.0, 2.0], "no change, no deviation");
    let mimic = liar(Attack::Mimic, 0);
    assert_eq!([mimic.row(0), mimic.row(1), mimic.row(5)], [1, 0, 0]);
}

#[test]
fn names_are_parsed_and_printed_alike() {
    for attack in Attack::ALL {
        assert_eq!(attack.to_string().parse(), Ok(attack));
        assert!(!attack.description().is_empty());
    }
    assert_eq!(format!("{:>10}|", Attack::BitFlip), "  bit-flip|");
}

#[test]
fn an_unknown_name_is_answered_with_all_names() {
    let text = "revers".parse::<Attack>().unwrap_err().to_string();
    assert!(text.contains("\"revers\"") && text.contains("reverse, constant") && text.contains("delayed"), "{text}");
}

#[test]
fn the_number_of_a_description_is_the_strength() {
    for attack in Attack::ALL {
        let numbers =
            attack.description().split([' ', '-']).filter_map(|word| word.parse::<f32>().ok()).filter(|x| !x.is_nan());
        match (numbers.clone().next(), attack.strength()) {
            // Its size is not worth a word in a line.
            (None, Some(_)) => assert_eq!(attack, Attack::Collude),
            (number, strength) => assert_eq!(number, strength, "{attack}"),
        }
    }
}

#[test]
fn a_strength_of_its_own_replaces_the_usual_one() {
    let means = Means { strength: Some(2.0), ..means(0) };
    let layout = Layout::new(1000, 2, 125);
    let lie = |attack, honest: &[&[f32]]| {
        let mut gradient = [3.0, -1.0];
        Liar::new(attack, &layout, means).gradient(Knowledge::All(honest), &mut gradient);
        gradient
    };
    let honest: [&[f32]; 2] = [&[1.0, -4.0], &[3.0, -4.0]];
    assert_eq!(lie(Attack::Alie, &honest), [4.0, -4.0]);
    assert_eq!(lie(Attack::MinMax, &honest), [0.0, -4.0]);
    assert_eq!(lie(Attack::Fang, &honest), [0.0, -4.0]);
    assert_eq!(lie(Attack::Ipm, &honest), [-4.0, 8.0]);
    assert_eq!(lie(Attack::Reverse, &honest), [-6.0, 2.0]);
}

#[test]
fn a_delayed_liar_waits_for_most_of_the_deadline_and_sends_the_right_thing() {
    let wait = liar(Attack::Delayed, 0).wait(Duration::from_secs(10));
    assert!((8.9..9.1).contains(&wait.as_secs_f64()), "{wait:?}");
}

#[test]
fn multi_bit_changes_three_bits_in_each_of_four_elements() {
    let honest: Vec<f32> = (1..=125).map(|x| x as f32).collect();
    for round in 0..100 {
        let lie = lied(Attack::MultiBit, 0, round, &honest);
        let changes: Vec<u32> = bits(&honest).iter().zip(bits(&lie)).map(|(a, b)| a ^ b).filter(|&x| x != 0).collect();
        assert_eq!(changes.len(), 4);
        assert!(changes.iter().all(|bits| bits.count_ones() == 3 && bits & 0x7f80_0000 != 0), "{changes:x?}");
    }
    for length in 0..9 {
        lied(Attack::MultiBit, 0, 0, &honest[..length]);
    }
}

#[test]
fn warp_changes_the_same_exponent_bit_in_every_32nd_element() {
    let honest: Vec<f32> = (1..=125).map(|x| x as f32).collect();
    for round in 0..100 {
        let lie = lied(Attack::Warp, 0, round, &honest);
        let masks: Vec<u32> = bits(&honest).iter().zip(bits(&lie)).map(|(a, b)| a ^ b).collect();
        let lane = masks.iter().position(|mask| *mask != 0).unwrap();
        assert!(lane < 32 && masks[lane].is_power_of_two() && masks[lane] & 0x7f80_0000 != 0);
        let expected = |index: usize| if index % 32 == lane { masks[lane] } else { 0 };
        assert!(masks.iter().enumerate().all(|(index, mask)| *mask == expected(index)));
    }
    assert!(lied(Attack::Warp, 0, 0, &[]).is_empty());
    assert_eq!(bits(&lied(Attack::Warp, 0, 0, &[1.0])).len(), 1);
}

#[test]
fn a_mimic_alone_in_its_group_copies_a_gradient_if_it_knows_one() {
    let layout = Layout::new(1000, 2, 125);
    let mut mimic = Liar::new(Attack::Mimic, &layout, Means { redundancy: 1, ..means(3) });
    let mut gradient = [9.0];
    mimic.gradient(Knowledge::Own, &mut gradient);
    assert_eq!((gradient, mimic.row(0)), ([9.0], 0));
    mimic.gradient(Knowledge::All(&[&[1.0], &[2.0]]), &mut gradient);
    assert_eq!(gradient, [1.0]);
}
