//! The promises for shards of 16 bits: rounding is no lie, and lies beyond the tolerance are found.

use super::*;

/// As many as the daemon has by default where rounding is coarse.
const PROJECTIONS: usize = PROJECTIONS_MAX;

const CODES: [(usize, usize); 8] = [(1, 1), (2, 1), (1, 2), (2, 2), (2, 4), (3, 10), (5, 5), (5, 10)];

/// What gradients can look like.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Gauss,
    Heavy,
    Tiny,
    Huge,
    Subnormal,
    Zero,
    OneNumber,
    OneSlice,
    Slices,
    Equal,
}

const SHAPES: [Shape; 10] = [
    Shape::Gauss,
    Shape::Heavy,
    Shape::Tiny,
    Shape::Huge,
    Shape::Subnormal,
    Shape::Zero,
    Shape::OneNumber,
    Shape::OneSlice,
    Shape::Slices,
    Shape::Equal,
];

fn group(form: Form, size: (usize, usize), e: usize, len: usize, seed: u64, precision: Precision) -> Group {
    let mut group = Group::new(form, size, e, len, seed);
    let tolerance = tolerance(&group, precision);
    group.locator = Locator::new(group.parameters, group.generator.clone(), tolerance, PROJECTIONS, [9; 32]);
    group.projector = Projector::new(group.chunk.width, PROJECTIONS);
    group.word = vec![0.0; group.locator.word_len()];
    group
}

fn shape(group: &mut Group, shape: Shape, precision: Precision) {
    let f16 = precision == Precision::F16;
    let (len, width) = (group.block.len(), group.chunk.width);
    let (one, slice) = (group.below(len), group.below(group.generator.compression()));
    for at in 0..len {
        let x = group.gauss();
        group.block[at] = match shape {
            Shape::Gauss => x,
            Shape::Heavy => x * (1.0 / (0.02 + group.gauss().abs())).powi(2),
            Shape::Tiny => x * if f16 { 1e-5 } else { 1e-30 },
            Shape::Huge => x * if f16 { 2e3 } else { 1e37 },
            Shape::Subnormal => x * if f16 { 1e-7 } else { 1e-40 },
            Shape::Zero => 0.0,
            Shape::OneNumber => x * if at == one { 1e3 } else { 1e-4 },
            Shape::OneSlice => x * if at / width == slice { 1.0 } else { 0.0 },
            Shape::Slices => x * 10f64.powi(at as i32 / width as i32 % 7 - 3),
            Shape::Equal => 0.3337,
        } as f32;
    }
    round(group, precision);
}

/// What honest workers send of the block.
fn round(group: &mut Group, precision: Precision) {
    let Group { generator, block, honest, .. } = group;
    for (row, shard) in honest.iter_mut().enumerate() {
        let mut bytes = vec![0u32; shard.len()];
        let bytes = &mut bytemuck::cast_slice_mut(&mut bytes)[..precision.shard_bytes(shard.len())];
        encode_rounded(generator, row, block, precision, bytes);
        precision.widen(bytes, shard);
    }
    group.shards.clone_from(&group.honest);
}

/// What the check of complete words says of the shards.
fn checked(group: &Group, verify: Verify, precision: Precision) -> Checked {
    check_with(group, verify, tolerance(group, precision))
}

fn tolerance(group: &Group, precision: Precision) -> Tolerance {
    Tolerance::of(precision.tolerance(group.parameters.compression()), precision, &group.parameters)
}

fn check_with(group: &Group, verify: Verify, tolerance: Tolerance) -> Checked {
    let mut sweep = Sweep::new(group.generator.clone(), 1, verify, tolerance);
    let present = group.all();
    let task = Task { present, used: sweep.used(present), learn: Learn::Whether };
    let shards: Vec<&[f32]> = group.shards.iter().map(Vec::as_slice).collect();
    sweep.learn(&[7; 32], &[task], &shards, &group.chunk);
    sweep.checked(0)
}

/// Are the shards of a size of which the check of complete words says something? In f32 its scale is a sample, which
/// can miss the one number that matters.
fn is_judged(group: &Group, precision: Precision) -> bool {
    let size = |shard: &Vec<f32>| shard.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let mut sizes: Vec<f64> = group.shards.iter().map(size).collect();
    sizes.sort_unstable_by(|a, b| b.total_cmp(a));
    let scale = sizes[group.parameters.adversaries()] / (group.chunk.width as f64).sqrt();
    let bits = group.generator.compression() == 1;
    sizes[0] < 1e18 && (bits || precision != Precision::F32 && scale >= 4.1e-12)
}

/// Relative to the block, what rounding may change of what is recovered from `rows`, at worst.
fn bound(group: &Group, relative: f64, condition: f64) -> f64 {
    relative * (group.generator.redundancy() as f64).sqrt() * condition
}

#[test]
fn honest_rows_of_any_shape_are_never_named_nor_left_out_nor_undecodable() {
    for precision in Precision::ALL {
        for &size in &CODES {
            let (mut worst, mut passed, mut tried, mut judged) = ([0f64; 2], 0, 0, 0);
            for (i, &kind) in SHAPES.iter().enumerate() {
                for form in [Form::Systematic, Form::Dense] {
                    for trial in 0..6 {
                        let e = trial % 3;
                        let len = [size.1 * 40, size.1 * 7 + 1, 3][trial / 2];
                        let mut group = group(form, size, e, len, (i * 10 + trial) as u64, precision);
                        shape(&mut group, kind, precision);
                        let what = format!("{precision} {size:?} e {e} {form:?} {kind:?} {len}");
                        let all = group.all();
                        let checked = checked(&group, Verify::Full, precision);
                        (tried, passed) = (tried + 1, passed + usize::from(checked.agrees));
                        if is_judged(&group, precision) {
                            assert!(checked.agrees, "{what}: {checked:?}");
                            worst[0] = worst[0].max(checked.ratio);
                            judged += 1;
                        }
                        group.project();
                        for count in [all.count(), group.parameters.agreement(), all.count() - size.0] {
                            let came = group.rows(count, all);
                            let Outcome::Agreed(agreement) = group.locate(came) else { panic!("{what}: undecided") };
                            assert_eq!((agreement.rows, agreement.liars), (came, Rows::EMPTY), "{what}");
                            worst[1] = worst[1].max(agreement.residual / agreement.tolerance);
                            for row in all.without(came).iter() {
                                let late = group.projected[row];
                                let verdict = group.locator.check(&agreement.record, &group.word, row, late.as_ref());
                                assert_eq!(verdict, RowVerdict::Agrees, "{what}: late row {row}");
                            }
                        }
                    }
                }
            }
            println!(
                "{precision} {size:?}: check {:.3}, located {:.3}; {passed} of {tried} passed the check",
                worst[0], worst[1]
            );
            assert!(worst[0] < 0.7 && worst[1] < 0.7, "{precision} {size:?}: {worst:?}");
            assert!(judged > tried / 3 || precision == Precision::F32, "{precision} {size:?}: {judged} of {tried}");
        }
    }
}

#[test]
fn liars_well_beyond_the_tolerance_are_all_named_and_the_sum_is_within_rounding() {
    for precision in [Precision::Bf16, Precision::F16] {
        for &size in &CODES {
            for form in [Form::Systematic, Form::Dense] {
                let any = group(form, size, 0, size.1, 0, precision);
                let condition = condition(&any.generator, &any.parameters);
                for trial in 0..12 {
                    let mut group = group(form, size, 0, 50 * size.1, 500 + trial, precision);
                    let relative = precision.tolerance(size.1).max(precision.unit_roundoff());
                    let beyond = 30.0 * bound(&group, relative, condition.worst_information_set);
                    // So that f16 has room for the lies.
                    let scale = 1.0 / 16.0;
                    group.compute(scale);
                    round(&mut group, precision);
                    let all = group.all();
                    let liars = group.rows(size.0, all);
                    for row in liars.iter() {
                        for at in 0..group.chunk.width {
                            let lie = beyond * scale * group.gauss();
                            group.shards[row][at] += lie as f32;
                        }
                    }
                    match trial % 4 {
                        0 => liars.iter().for_each(|row| group.shards[row][3] = f32::NAN),
                        1 => liars.iter().for_each(|row| group.shards[row][5] = f32::INFINITY),
                        _ => {}
                    }
                    let what = format!("{precision} {size:?} {form:?} trial {trial}");
                    assert!(!checked(&group, Verify::Full, precision).agrees, "{what}");
                    group.project();
                    let Outcome::Agreed(agreement) = group.locate(all) else { panic!("{what}: undecided") };
                    assert_eq!((agreement.liars, agreement.rows), (liars, all.without(liars)), "{what}");
                    let error = group.error(agreement.rows);
                    let allowed = bound(&group, precision.unit_roundoff(), condition.worst_rows);
                    assert!(error <= allowed, "{what}: {error:e}, allowed {allowed:e}");
                }
            }
        }
    }
}

/// What liars add to their rows, of length 1, that is nearest to a code word.
fn nearest_to_a_word(group: &mut Group, liars: &[usize]) -> Vec<f64> {
    let mut lie: Vec<f64> = liars.iter().map(|_| group.gauss()).collect();
    let parity = group.generator.parity();
    for _ in 0..400 {
        let mut next = lie.clone();
        for k in 0..parity.ncols() {
            let seen: f64 = liars.iter().zip(&lie).map(|(&row, x)| parity[[row, k]] * x).sum();
            liars.iter().zip(&mut next).for_each(|(&row, x)| *x -= parity[[row, k]] * seen);
        }
        let norm = next.iter().map(|x| x * x).sum::<f64>().sqrt();
        lie = next.iter().map(|x| x / norm).collect();
    }
    lie
}

#[test]
fn huge_lies_that_raise_the_scale_do_not_pass_the_full_check() {
    for precision in [Precision::Bf16, Precision::F16] {
        let mut passed = 0;
        for &size in CODES.iter().filter(|size| size.1 > 1) {
            let r = size.1 + 2 * size.0;
            for first in 0..r {
                let mut group = group(Form::Systematic, size, 0, 20 * size.1, 900, precision);
                let liars: Vec<usize> = (first..first + size.0).map(|row| row % r).collect();
                let lie = nearest_to_a_word(&mut group, &liars);
                for at in 0..group.chunk.width {
                    let much = 3e3 * group.gauss();
                    liars.iter().zip(&lie).for_each(|(&row, x)| group.shards[row][at] += (much * x) as f32);
                }
                assert!(!checked(&group, Verify::Full, precision).agrees, "{precision} {size:?} from {first}");
                let raised = Tolerance { liars: None, ..tolerance(&group, precision) };
                passed += usize::from(check_with(&group, Verify::Full, raised).agrees);
            }
        }
        println!("{precision}: {passed} would pass if liars could raise the scale");
        assert!(passed > 0 || precision == Precision::F16, "the attack is too weak to test anything");
    }
}

#[test]
fn liars_around_a_coarse_tolerance_frame_nobody_and_hide_what_the_plan_says() {
    for precision in [Precision::Bf16, Precision::F16] {
        for &size in CODES.iter().filter(|size| size.1 > 1) {
            let (mut worst, mut decided_early, mut passed) = ([0f64; 3], 0, 0);
            for trial in 0..16 {
                let mut group = group(Form::Systematic, size, trial % 3, 30 * size.1, 77 + trial as u64, precision);
                round(&mut group, precision);
                let condition = condition(&group.generator, &group.parameters);
                let all = group.all();
                let Cast { victim, liars, early, seen, whole } = group.cast(size, trial);
                for amount in [0.05, 0.3, 0.7, 1.0, 1.5, 3.0, 10.0, 100.0] {
                    group.shards.clone_from(&group.honest);
                    frame(&mut group, victim, liars, seen, amount * precision.unit_roundoff() * 2f64.powi(24));
                    if checked(&group, Verify::Full, precision).agrees {
                        let hidden = bound(&group, precision.tolerance(size.1), condition.worst_rows);
                        let share = group.error(all) / hidden;
                        (worst[2], passed) = (worst[2].max(share), passed + 1);
                        assert!(share < 3.0, "{precision} {size:?} {trial} {amount}: {share} passed the check");
                    }
                    group.project();
                    let Outcome::Agreed(agreement) = group.locate(whole) else {
                        assert!(early, "{precision} {size:?} {trial} {amount}: undecided");
                        continue;
                    };
                    decided_early += usize::from(early);
                    let what = format!("{precision} {size:?} trial {trial} amount {amount}: {agreement:?}");
                    assert!(agreement.liars.is_subset(liars), "framed: {what}");
                    for row in all.without(whole).without(liars).iter() {
                        let late = group.projected[row];
                        let verdict = group.locator.check(&agreement.record, &group.word, row, late.as_ref());
                        assert_ne!(verdict, RowVerdict::Lies, "framed late row {row}: {what}");
                    }
                    let enlarged = if early { condition.worst_information_set } else { condition.worst_rows };
                    let hidden = bound(&group, precision.tolerance(size.1), enlarged);
                    let share = group.error(agreement.rows) / hidden;
                    worst[usize::from(early)] = worst[usize::from(early)].max(share);
                    // Chance lets some pass a little more.
                    assert!(share < 3.0, "{what}: {share}");
                }
            }
            println!(
                "{precision} {size:?}: hidden, in parts of what the plan says: {:.2}, early {:.2}, by {passed} that passed the \
                 check {:.2}",
                worst[0], worst[1], worst[2]
            );
            assert!(decided_early > 0 && passed > 0, "{precision} {size:?}: {decided_early} early, {passed} passed");
        }
    }
}

#[test]
fn tiny_gradients_in_f16_hide_what_the_absolute_allowance_says_and_no_more() {
    let precision = Precision::F16;
    for &size in CODES.iter().filter(|size| size.1 > 1) {
        let mut worst = [0f64; 2];
        for trial in 0..12u64 {
            let rms = [1e-6, 1e-5, 1e-4][trial as usize % 3];
            let mut group = group(Form::Systematic, size, 0, 30 * size.1, 1300 + trial, precision);
            group.compute(rms);
            round(&mut group, precision);
            let condition = condition(&group.generator, &group.parameters);
            let relative = precision.tolerance(size.1);
            let hidden = bound(&group, relative + 1.8e-7 / rms, condition.worst_rows);
            let all = group.all();
            let liars = group.rows(size.0, all);
            let rows: Vec<usize> = liars.iter().collect();
            let lie = nearest_to_a_word(&mut group, &rows);
            for amount in [0.03, 0.1, 0.3, 1.0, 3.0, 10.0] {
                group.shards.clone_from(&group.honest);
                for at in 0..group.chunk.width {
                    let much = amount * hidden * rms * group.gauss();
                    rows.iter().zip(&lie).for_each(|(&row, x)| group.shards[row][at] += (much * x) as f32);
                }
                let what = format!("{size:?} trial {trial} rms {rms} amount {amount}");
                let mut share = 0f64;
                if checked(&group, Verify::Full, precision).agrees {
                    share = group.error(all) / hidden;
                }
                group.project();
                let Outcome::Agreed(agreement) = group.locate(all) else { panic!("{what}: undecided") };
                assert!(agreement.liars.is_subset(liars), "framed: {what}");
                share = share.max(group.error(agreement.rows) / hidden);
                // Chance lets some pass a little more.
                assert!(share < 3.0, "{what}: {share}");
                let without = bound(&group, relative, condition.worst_rows);
                worst = [worst[0].max(share), worst[1].max(share * hidden / without)];
            }
        }
        println!(
            "f16 {size:?}, tiny: hidden, in parts of the formula {:.2}, of its relative part {:.2}",
            worst[0], worst[1]
        );
        assert!(worst[1] > 3.0, "{size:?}: the relative part alone would do, {worst:?}");
    }
}
