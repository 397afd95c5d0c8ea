//! Numbers against hand calculation, every refusal, and any input at all.

use proptest::prelude::*;

use super::*;
use crate::daemon::config::{Request, load};

/// 15 workers, 11 million numbers, 100 Gb/s, 50 ms.
fn fifteen(compression: usize) -> PlanInput {
    PlanInput {
        compression,
        link: BytesPerSecond::parse("100Gb/s").ok(),
        gradient_time: Seconds::parse("50ms").ok(),
        ..PlanInput::new(Size::Workers(15), 11_000_000)
    }
}

/// Stands in for measuring, which takes time and which not every test is about.
fn unmeasured(_: &Parameters, _: Effort) -> Option<(Conditioning, f64)> {
    Some((Conditioning { honest: 2.0, least: 30.0, exhaustive: true }, 0.0))
}

fn quick(input: &PlanInput) -> Result<PlanReport, Box<Refusal>> {
    plan_measured(input, &unmeasured)
}

fn close(time: Seconds, milliseconds: f64) -> bool {
    (time.get() * 1e3 / milliseconds - 1.0).abs() < 1e-9
}

#[test]
fn groups_are_runs_of_workers() {
    let report = quick(&fifteen(1)).unwrap();
    assert_eq!(report.groups, [(0, 4), (5, 9), (10, 14)]);
    let code = report.chosen().code;
    assert_eq!((code.workers, code.groups, code.redundancy, code.agreement), (15, 3, 5, 3));
    let same = quick(&PlanInput { size: Size::Groups(3), ..fifteen(1) }).unwrap();
    assert_eq!((same.chosen(), same.memory), (report.chosen(), report.memory));
}

#[test]
fn bytes_are_numbers_padding_and_headers() {
    let report = quick(&fifteen(1)).unwrap();
    // 672 chunks of at most 16384 numbers: 11e6 x 4 + 672 x 64; the update has a report of 552 bytes more, with its header.
    let want = Traffic {
        chunks: 672,
        upload_per_worker: 44_043_008,
        upload: 660_645_120,
        download_per_worker: 44_043_624,
        download: 660_654_360,
    };
    assert_eq!(report.chosen().traffic, want);
    // 61 chunks of 11 x 16384 numbers and one of 6336, whose shards have 576 numbers: 1e6 x 4 + 62 x 64.
    let compressed = quick(&fifteen(11)).unwrap().chosen().traffic;
    assert_eq!((compressed.chunks, compressed.upload_per_worker), (62, 4_003_968));
    // 10 numbers in 3 rows of 4: two are padding.
    let padded = PlanInput { compression: 3, ..PlanInput::new(Size::Groups(1), 10) };
    assert_eq!(quick(&padded).unwrap().chosen().traffic.upload_per_worker, 4 * 4 + 64);
}

#[test]
fn times_are_bytes_over_the_link_and_shares_times_redundancy() {
    let report = quick(&fifteen(1)).unwrap();
    let (wire, round) = (report.chosen().wire.unwrap(), report.chosen().round.unwrap());
    assert!(close(wire.upload, 52.8516096) && close(wire.download, 52.8523488), "{wire:?}");
    assert!(close(wire.both, 52.8523488 + 52.8516096 / 672.0), "{wire:?}");
    assert!(close(wire.both_if_relayed, 52.8516096 + 3.52348992 / 672.0), "{wire:?}");
    assert!(close(round.compute, 250.0) && close(round.total, 250.0 + wire.both.get() * 1e3), "{round:?}");
    assert!(close(round.total_if_relayed, 250.0 + wire.both_if_relayed.get() * 1e3), "{round:?}");
    assert_eq!(round.bottleneck, Bottleneck::Compute);
    let slow = PlanInput { link: BytesPerSecond::parse("10Gb/s").ok(), ..fifteen(1) };
    assert_eq!(quick(&slow).unwrap().chosen().round.unwrap().bottleneck, Bottleneck::Download);
}

#[test]
fn a_single_chunk_is_not_overlapped() {
    let input = PlanInput { dimension: 1000, ..fifteen(1) };
    let wire = quick(&input).unwrap().chosen().wire.unwrap();
    assert_eq!(wire.both.get(), wire.upload.get() + wire.download.get());
}

#[test]
fn memory_is_slots_times_their_sizes() {
    let memory = quick(&fifteen(1)).unwrap().memory;
    // 65,600 bytes take 16 pages and 1,088; 8 of them 130 pages and 1,088; 16 of them 260 and as many.
    assert_eq!((memory.shard_slots, memory.shard_slot_bytes), (15 * 8, 66_624));
    assert_eq!((memory.update_slots, memory.update_slot_bytes), (2 * 16, 66_624));
    assert_eq!((memory.shard_bytes, memory.update_bytes), (15 * 533_568, 2 * 1_066_048));
    assert_eq!(memory.total, memory.shard_bytes + memory.update_bytes);
    assert_eq!(
        memory.pinned,
        memory.shard_bytes + memory.shard_slots / 8 * memory.update_bytes,
        "8 credits per worker"
    );
    // 64 + 400 bytes take 512; 11 x 400 + 64 take a page and 1,088. Two reports per round in flight outnumber the one update.
    let narrow = PlanInput { chunk_width: 100, credits: 2, updates: 1, window: 8, ..fifteen(11) };
    let memory = quick(&narrow).unwrap().memory;
    assert_eq!((memory.shard_slot_bytes, memory.update_slots, memory.update_slot_bytes), (512, 2 * 16, 5184));
    assert_eq!((memory.shard_bytes, memory.update_bytes), (30 * 512, 2 * (20 * 4096 + 1088)));
}

#[test]
fn all_compressions_that_fit_are_compared() {
    let report = quick(&fifteen(11)).unwrap();
    let codes: Vec<_> = report.choices.iter().map(|choice| (choice.code.compression, choice.code.redundancy)).collect();
    assert_eq!(codes, [(1, 5), (11, 15)]);
    assert_eq!((report.chosen, report.fastest, report.fastest_if_relayed), (1, Some(0), Some(0)));
    // Where computing is cheap, compression pays once updates are relayed: 5 + 52.9 ms against 15 + 4.8 ms.
    let quickly = PlanInput { gradient_time: Seconds::parse("1ms").ok(), ..fifteen(1) };
    let report = quick(&quickly).unwrap();
    assert_eq!((report.fastest, report.fastest_if_relayed), (Some(0), Some(1)));
}

#[test]
fn rule_of_thumb_is_the_root_of_upload_over_computing() {
    let rule = quick(&fifteen(1)).unwrap().rule_of_thumb.unwrap();
    assert!(close(rule.all_gradients, 52.8) && close(rule.unit, 50.0));
    assert!((rule.best - (52.8f64 / 50.0).sqrt()).abs() < 1e-12);
    assert!(rule.pays(1) && !rule.pays(2));
    // It is the least of r_c c + C / r_c, and pays(r_c) says whether that is less than at 1.
    let rule = RuleOfThumb { all_gradients: Seconds::of(90.0), unit: Seconds::of(10.0), best: 3.0 };
    let cost = |r_c: f64| r_c * rule.unit.get() + rule.all_gradients.get() / r_c;
    assert!(cost(3.0) < cost(2.0) && cost(3.0) < cost(4.0));
    for r_c in 2..20 {
        assert_eq!(rule.pays(r_c), cost(r_c as f64) < cost(1.0), "{r_c}");
    }
}

#[test]
fn without_times_there_is_no_fastest() {
    for input in [PlanInput { link: None, ..fifteen(1) }, PlanInput { gradient_time: None, ..fifteen(1) }] {
        let report = quick(&input).unwrap();
        assert!(report.fastest.is_none() && report.chosen().round.is_none() && report.rule_of_thumb.is_none());
        assert!(report.to_string().contains("give --"), "{report}");
    }
}

#[test]
fn conditioning_is_that_of_the_code() {
    // (s, r_c) = (2, 4): 2.4 in the design, for r_c that divides r.
    let input = PlanInput { compression: 4, ..PlanInput::new(Size::Groups(1), 1000) };
    let accuracy = plan(&input).unwrap().accuracy;
    assert!((2.3..2.5).contains(&accuracy.conditioning.honest) && accuracy.conditioning.exhaustive, "{accuracy:?}");
    assert!((accuracy.rounding / (accuracy.conditioning.honest / 16_777_216.0) - 1.0).abs() < 1e-12);
}

#[test]
fn others_are_measured_only_while_that_is_quick() {
    let input = PlanInput { compression: 1, ..PlanInput::new(Size::Workers(60), 1000) };
    let report = plan(&input).unwrap();
    assert!(report.choices[0].conditioning.is_some());
    assert!(report.choices.last().unwrap().conditioning.is_none());
}

/// s, e and r_c.
type Sizes = (usize, usize, usize);

fn refusal(input: PlanInput) -> (Bound, Vec<usize>, Vec<Sizes>, String) {
    let refusal = quick(&input).unwrap_err();
    let workers = refusal.other_workers.iter().map(|code| code.workers).collect();
    let codes = refusal.other_codes.iter().map(|code| (code.adversaries, code.stragglers, code.compression)).collect();
    (refusal.bound, workers, codes, refusal.to_string())
}

#[test]
fn workers_that_do_not_divide_are_refused_with_the_nearest() {
    let (bound, workers, codes, text) = refusal(PlanInput::new(Size::Workers(16), 1000));
    assert_eq!(bound, Bound::Divisible { workers: 16, redundancy: 6 });
    assert_eq!(workers, [12, 18]);
    // Two workers more per group: a liar more, two slices more, two absentees more.
    assert_eq!(codes, [(3, 0, 2), (2, 0, 4), (2, 2, 2)]);
    assert!(text.contains("4 would be left over") && text.contains("12 workers: 2 groups of 6"), "{text}");
}

#[test]
fn too_few_workers_are_refused() {
    let (bound, workers, codes, text) = refusal(PlanInput::new(Size::Workers(5), 1000));
    assert_eq!(bound, Bound::TooFew { workers: 5, redundancy: 6 });
    assert_eq!(workers, [6]);
    assert_eq!(codes[0], (2, 0, 1));
    assert!(text.contains("a group alone has 6 (compression 2 + 2 x adversaries 2 + stragglers 0)"), "{text}");
}

#[test]
fn groups_beyond_64_are_refused() {
    let large = PlanInput { adversaries: 30, compression: 5, ..PlanInput::new(Size::Groups(1), 1000) };
    let (bound, workers, codes, text) = refusal(large);
    assert_eq!(bound, Bound::GroupSize { redundancy: 65 });
    assert!(workers.is_empty());
    assert_eq!(codes, [(30, 0, 4), (29, 0, 5)]);
    assert!(text.contains("65 workers (compression 5 + 2 x adversaries 30 + stragglers 0): at most 64"), "{text}");
}

#[test]
fn more_workers_than_a_daemon_serves_and_none_are_refused() {
    let (bound, workers, codes, text) = refusal(PlanInput::new(Size::Groups(171), 1000));
    assert_eq!(bound, Bound::Workers { workers: 1026 });
    assert_eq!((workers, codes), (vec![1020], vec![(2, 0, 1), (1, 0, 2)]));
    assert!(text.contains("171 x (compression 2 + 2 x adversaries 2 + stragglers 0) = 1026"), "{text}");
    assert_eq!(refusal(PlanInput::new(Size::Workers(1_000_000), 1000)).1, [1020]);
    assert_eq!(refusal(PlanInput::new(Size::Workers(0), 1000)).1, [6]);
    assert_eq!(refusal(PlanInput::new(Size::Groups(usize::MAX), 1000)).1, [1020]);
}

#[test]
fn chunks_that_cannot_be_counted_are_refused() {
    let fine = PlanInput { chunk_width: 1, compression: 1, ..PlanInput::new(Size::Groups(1), 1 << 33) };
    let (bound, workers, codes, text) = refusal(fine);
    assert_eq!(bound, Bound::Chunks { chunks: 1 << 33 });
    assert!(workers.is_empty());
    assert!(codes.iter().all(|(_, _, compression)| *compression >= 3), "{codes:?}");
    assert!(text.contains("raise the chunk width"), "{text}");
}

#[test]
fn numbers_outside_the_settings_of_the_daemon_are_refused() {
    let usual = PlanInput::new(Size::Groups(1), 1000);
    for (input, text) in [
        (PlanInput { adversaries: 32, ..usual }, "adversaries is 32: it must be from 0 to 31"),
        (PlanInput { stragglers: 64, ..usual }, "stragglers is 64"),
        (PlanInput { compression: 0, ..usual }, "compression is 0: it must be from 1 to 64"),
        (PlanInput { dimension: 0, ..usual }, "dimension is 0"),
        (PlanInput { chunk_width: 0, ..usual }, "width is 0"),
        (PlanInput { credits: 1, ..usual }, "credits is 1: it must be from 2 to 1024"),
        (PlanInput { updates: 0, ..usual }, "updates is 0"),
        (PlanInput { window: 9, ..usual }, "window is 9: it must be from 2 to 8"),
        (PlanInput { tolerance: 1.0, ..usual }, "tolerance is 1: it must be above 0 and below 1"),
        (PlanInput { tolerance: f64::NAN, ..usual }, "tolerance is NaN"),
        (PlanInput { tolerance: 1e-300, ..usual }, "tolerance is 0.000"),
        (
            PlanInput { tolerance: 1e-6, compression: 2, precision: Precision::F16, ..usual },
            "tolerance is 1e-6: with shards of f16 and compression 2 it must be at least 9.765625e-4; leave it out",
        ),
    ] {
        assert!(refusal(input).3.starts_with(text), "{}", refusal(input).3);
    }
}

/// Has `solond` read it; what it would print with every setting.
fn accepted(config: &str) -> Result<String, String> {
    let args = ["solond", "--config", "plan.toml", "--print-config"].map(Into::into);
    match load(args, [], &|_| Ok(config.into())) {
        Ok(Request::Answer(text)) => Ok(text),
        Ok(Request::Serve(_)) => Err("it was not asked to serve".into()),
        Err(refusal) => Err(refusal.to_string()),
    }
}

#[test]
fn the_daemon_reads_the_configuration_as_it_was_planned() {
    let input = PlanInput {
        stragglers: 1,
        compression: 2,
        size: Size::Groups(3),
        chunk_width: 1000,
        credits: 4,
        updates: 5,
        window: 3,
        tolerance: 1e-5,
        // 21 x 44 MB at 1 Gb/s take 7.45 s; the deadline is four times that.
        link: BytesPerSecond::parse("1Gb/s").ok(),
        ..fifteen(2)
    };
    let report = quick(&input).unwrap();
    let read = accepted(&report.config).unwrap();
    for line in [
        "groups = 3",
        "adversaries = 2",
        "stragglers = 1",
        "compression = 2",
        "workers = 21",
        "dimension = 11000000",
        "width = 1000",
        "credits = 4",
        "updates = 5",
        "window = 3",
        "tolerance = ",
        "deadline_ms = 29808",
    ] {
        assert!(read.lines().any(|found| found.starts_with(line) && found.contains("plan.toml")), "{line}\n{read}");
    }
    assert!(quick(&fifteen(1)).unwrap().config.ends_with("instead of their sum\n"), "defaults are not repeated");
}

#[test]
fn text_says_what_was_planned() {
    let text = quick(&fifteen(11)).unwrap().to_string();
    for part in [
        "15 workers in 1 group of 15, a gradient of 11,000,000 numbers (44.0 MB)",
        "group 0: workers 0-14",
        "a chunk is\n               done when 13 of 15 shards agree",
        "  upload           4.00 MB      60.1 MB  4.80 ms",
        "62 chunks",
        "15 workers x 533,568 B (8 credits)",
        "r_c = 1 is faster, 303 ms a round instead of 803 ms",
        "[job]",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let many = quick(&PlanInput::new(Size::Groups(100), 1000)).unwrap().to_string();
    assert!(many.contains("...") && many.contains("group 99: workers 594-599"), "{many}");
    assert!(!many.contains("group 50"), "{many}");
}

#[test]
fn text_does_not_promise_what_s_is_0_cannot_hold() {
    let input = PlanInput { adversaries: 0, compression: 1, ..PlanInput::new(Size::Workers(3), 1000) };
    let text = quick(&input).unwrap().to_string();
    assert!(text.contains("None is corrected") && text.contains("every worker is needed"), "{text}");
    assert!(!text.contains("hidden lies") && !text.contains("undecodable"), "{text}");
}

#[test]
fn text_warns_of_codes_that_are_too_inaccurate() {
    let hopeless = |_: &Parameters, _: Effort| Some((Conditioning { honest: 1e6, least: 1e9, exhaustive: false }, 0.0));
    let text = plan_measured(&fifteen(1), &hopeless).unwrap().to_string();
    assert!(text.contains("too inaccurate to be of use"), "{text}");
    let hiding = |_: &Parameters, _: Effort| Some((Conditioning { honest: 10.0, least: 1e6, exhaustive: false }, 0.0));
    let text = plan_measured(&fifteen(1), &hiding).unwrap().to_string();
    assert!(text.contains("Use rounds.linger_ms"), "{text}");
}

#[test]
fn reports_are_json() {
    let report = quick(&fifteen(1)).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["choices"][0]["traffic"]["upload"], 660_645_120);
    assert_eq!(json["input"]["size"]["workers"], 15);
    assert_eq!(json["choices"][0]["round"]["bottleneck"], "compute");
}

/// Mostly what is possible, sometimes anything.
fn count(usual: std::ops::Range<usize>) -> impl Strategy<Value = usize> {
    prop_oneof![12 => usual, 1 => any::<usize>(), 1 => Just(0), 1 => Just(usize::MAX)]
}

#[test]
fn shards_of_16_bits_halve_the_upload_and_what_they_cost_in_accuracy_and_memory_is_said() {
    let input = PlanInput { compression: 2, ..PlanInput::new(Size::Groups(2), 1_000_000) };
    let of = |precision: Precision, compression: usize| {
        let tolerance = PlanInput::usual_tolerance(precision, compression);
        quick(&PlanInput { precision, compression, tolerance, ..input }).unwrap()
    };
    let [f32, bf16, f16] = Precision::ALL.map(|precision| of(precision, 2));
    let (headers, upload) = (64 * 31, |report: &PlanReport| report.chosen().traffic.upload_per_worker);
    assert_eq!(
        [upload(&f32), upload(&bf16), upload(&f16)],
        [2_000_000 + headers, 1_000_000 + headers, 1_000_000 + headers]
    );
    assert_eq!((f32.memory.wide_bytes, bf16.memory.wide_bytes > 13 * 4 * 16_384), (0, true));
    assert_eq!(bf16.memory.total, bf16.memory.shard_bytes + bf16.memory.update_bytes + bf16.memory.wide_bytes);
    assert!((bf16.accuracy.hidden / f32.accuracy.hidden - 65_536.0).abs() < 0.1);
    assert_eq!(f16.accuracy.rounding / f32.accuracy.rounding, 8192.0);
    let text = bf16.to_string();
    for part in
        ["condition x 2^-8 (uploads in bf16)", "below the tolerance (2.3e-2)", "as f32", "take f32, or compression 1"]
    {
        assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(part), "{part}\n{text}");
    }
    let told = |report: &PlanReport| report.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told(&f16).contains("(tolerance + 1.8e-7 / rms) x sqrt(r) x condition"), "{f16}");
    assert!(!told(&bf16).contains("rms") && !told(&of(Precision::F16, 1)).contains("rms"));
    // Two bytes where shards land, and four as f32.
    let stripe = |report: &PlanReport| report.chunking.stripe_bytes;
    assert_eq!([stripe(&f32), stripe(&bf16)], [4 * 16_384 * (12 + 2), 16_384 * (6 * 12 + 4 * 2)]);
    let alone = of(Precision::Bf16, 1);
    assert!(!alone.to_string().contains("warning") && alone.accuracy.hidden < 1e-5);
    // The file means the same job.
    let arguments = ["solond", "--config", "s.toml"].map(Into::into);
    let Ok(Request::Serve(loaded)) = load(arguments, [], &|_| Ok(bf16.config.clone())) else {
        panic!("{}", bf16.config)
    };
    assert_eq!((loaded.config.job.precision, loaded.config.verify.tolerance), (Precision::Bf16, 6.0 / 256.0));
}

#[test]
fn updates_of_16_bits_halve_the_download_and_the_file_and_the_page_say_so() {
    let input = PlanInput { compression: 2, ..PlanInput::new(Size::Groups(2), 1_000_000) };
    let [f32, bf16, f16] = Precision::ALL.map(|it| quick(&PlanInput { update_precision: it, ..input }).unwrap());
    let traffic = |report: &PlanReport| report.chosen().traffic;
    let rest = 64 * 32 + REPORT_BYTES as u64;
    assert_eq!(
        [&f32, &bf16, &f16].map(|it| traffic(it).download_per_worker),
        [4, 2, 2].map(|it| it * 1_000_000 + rest)
    );
    assert!([&bf16, &f16].iter().all(|it| traffic(it).upload == traffic(&f32).upload));
    let told = |report: &PlanReport| report.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told(&bf16).contains("rounded to bf16 once: by up to 2^-8 of it")
            && told(&f16).contains("to f16 once: by up to 2^-11")
    );
    assert!(!told(&f32).contains(" once: by"));
    let arguments = ["solond", "--config", "s.toml"].map(Into::into);
    let Ok(Request::Serve(loaded)) = load(arguments, [], &|_| Ok(bf16.config.clone())) else {
        panic!("{}", bf16.config)
    };
    assert_eq!((loaded.config.push.precision, loaded.config.job.precision), (Precision::Bf16, Precision::F32));
}

prop_compose! {
    fn inputs()(
        size in prop_oneof![count(1..1100).prop_map(Size::Workers), count(1..200).prop_map(Size::Groups)],
        (adversaries, stragglers, compression) in (count(0..6), count(0..4), count(1..12)),
        dimension in prop_oneof![count(1..100_000), count(1..1 << 41)],
        (link, gradient_time) in (prop::option::of(1.0..1e15f64), prop::option::of(1e-9..1e7f64)),
        (chunk_width, credits, updates, window) in (count(1..100_000), count(2..50), count(1..50), count(2..9)),
        tolerance in prop_oneof![4 => Just(1e-6), 2 => Just(0.02), 1 => any::<f64>()],
        precision in prop::sample::select(&Precision::ALL),
        update_precision in prop::sample::select(&Precision::ALL),
    ) -> PlanInput {
        PlanInput {
            cache: Some(32 << 20),
            size, adversaries, stragglers, compression, dimension, precision, update_precision,
            link: link.map(|speed| BytesPerSecond::parse(&format!("{speed}B/s")).unwrap()),
            gradient_time: gradient_time.map(|time| Seconds::parse(&format!("{time}s")).unwrap()),
            chunk_width, credits, updates, window, tolerance,
        }
    }
}

proptest! {
    #[test]
    fn anything_is_planned_or_refused(input in inputs()) {
        match quick(&input) {
            Ok(report) => planned(&report)?,
            Err(refusal) => refused(&input, &refusal)?,
        }
    }

    #[test]
    fn compression_buys_nothing_while_the_download_is_waited_for(input in inputs()) {
        if let Ok(report) = quick(&input) {
            for choice in &report.choices {
                let narrow = input.update_precision.shard_bytes(8) < input.precision.shard_bytes(8);
                prop_assert!(choice.traffic.upload < choice.traffic.download || choice.code.compression > 1 || narrow);
                if let Some(round) = choice.round {
                    prop_assert!(round.total >= report.choices[report.fastest.unwrap()].round.unwrap().total);
                    prop_assert!(round.total >= round.total_if_relayed);
                }
            }
        }
    }
}

/// Another compression has another tolerance, where the one of this job is below its rounding.
fn following(input: PlanInput) -> PlanInput {
    PlanInput { tolerance: input.tolerance.max(input.precision.least_tolerance(input.compression)), ..input }
}

fn planned(report: &PlanReport) -> Result<(), TestCaseError> {
    let code = report.chosen().code;
    prop_assert_eq!((code.adversaries, code.stragglers), (report.input.adversaries, report.input.stragglers));
    prop_assert_eq!(code.compression, report.input.compression);
    prop_assert_eq!(report.groups.len(), code.groups);
    for choice in &report.choices {
        let other = PlanInput { compression: choice.code.compression, ..report.input };
        let other = following(PlanInput { size: Size::Workers(code.workers), ..other });
        prop_assert_eq!(quick(&other).map(|other| other.chosen().code), Ok(choice.code));
    }
    let text = report.to_string();
    prop_assert!(!text.contains("NaN") && !text.contains("inf"), "{}", text);
    let (about, config) = text.split_once("Configuration for solond").unwrap();
    prop_assert!(about.lines().all(|line| line.chars().count() <= 80), "{}", about);
    prop_assert!(config.contains("[job]"));
    prop_assert!(!serde_json::to_string(report).unwrap().contains(":null") || report.rule_of_thumb.is_none());
    if let Err(problem) = accepted(&report.config) {
        prop_assert!(false, "{}\n{}", problem, report.config);
    }
    Ok(())
}

fn refused(input: &PlanInput, refusal: &Refusal) -> Result<(), TestCaseError> {
    prop_assert!(!refusal.to_string().is_empty());
    for code in refusal.other_workers.iter().chain(&refusal.other_codes) {
        let Code { workers, adversaries, stragglers, compression, .. } = *code;
        let nearby = PlanInput { size: Size::Workers(workers), adversaries, stragglers, compression, ..*input };
        prop_assert_eq!(quick(&following(nearby)).map(|report| report.chosen().code), Ok(*code));
    }
    let asked = (input.adversaries, input.stragglers, input.compression);
    prop_assert!(refusal.other_workers.iter().all(|c| (c.adversaries, c.stragglers, c.compression) == asked));
    let size = |code: &Code| match input.size {
        Size::Workers(_) => Size::Workers(code.workers),
        Size::Groups(_) => Size::Groups(code.groups),
    };
    prop_assert!(refusal.other_codes.iter().all(|code| size(code) == input.size));
    Ok(())
}
