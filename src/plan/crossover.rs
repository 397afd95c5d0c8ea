//! Is Solon faster than Draco here, by how much, and at which link or gradient time does that change?
//!
//! Draco repeats: r_c = 1 and groups of `2s + e + 1`. Solon computes `r_c - 1` gradients more and uploads `1 / r_c`. A round of either
//! takes `a c + w / B`: `c` is the time of a gradient without redundancy, `B` the link; `a` counts how often a worker computes its
//! share, `w` the bytes that are waited for. Two such lines meet once at most, where `B c = (w_draco - w_solon) / (a_solon - a_draco)`.
//! What that comes to, and why it is `C > r_c c` in the plainest case, stands in docs/crossover.md.

use serde::Serialize;

use super::refusal::{self, code};
use super::{BytesPerSecond, Code, PlanInput, Refusal, Seconds, Size, overlapped, traffic};
use crate::code::Parameters;

/// What is less than this part of the whole is no difference: headers of chunks, which are larger with compression.
const LEAST: f64 = 1e-3;

/// Solon against Draco, for a job whose link and gradient time are known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Crossover {
    /// Draco that tolerates as much on these workers. Where they do not divide into its groups the last ones have nothing to do,
    /// and the others share the samples.
    pub draco: Code,
    /// How often a worker of Draco computes its share of the samples without redundancy: r, or more if some have nothing to do.
    pub draco_shares: f64,
    /// If the daemon sends every worker the whole update.
    pub sent: Duel,
    /// If workers relay it.
    pub relayed: Duel,
}

/// Both with one way for updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Duel {
    /// A round of Solon, from one update to the next.
    pub solon: Seconds,
    /// A round of Draco.
    pub draco: Seconds,
    /// Whose is shorter.
    pub faster: Faster,
    /// Where that changes.
    pub break_even: BreakEven,
}

/// Whose round is shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Faster {
    /// That with compression.
    Solon,
    /// That without.
    Draco,
    /// Neither, to a thousandth.
    Neither,
}

/// Where Solon and Draco take as long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BreakEven {
    /// Solon is faster below both: on a slower link, or with gradients that take less time.
    At {
        /// With this gradient time.
        link: BytesPerSecond,
        /// On this link.
        gradient_time: Seconds,
    },
    /// Solon saves no bytes that are waited for, to a thousandth: Draco is faster on every link.
    Never,
    /// Draco computes no less, as so many workers have nothing to do, and waits for more bytes: Solon is faster on every link.
    Always,
}

impl Crossover {
    /// What [`plan`](super::plan) says of this, without all the rest, which takes longer.
    ///
    /// # Errors
    /// If there can be no such job.
    pub fn new(input: &PlanInput) -> Result<Option<Crossover>, Box<Refusal>> {
        Ok(of(input, &refusal::check(input)?))
    }
}

/// What both take in the line `shares c + bytes / B`.
struct Cost {
    shares: f64,
    bytes: f64,
}

impl Cost {
    fn time(&self, link: BytesPerSecond, gradient_time: Seconds) -> Seconds {
        Seconds::of(self.shares * gradient_time.get() + self.bytes / link.get())
    }
}

/// Nothing if times are missing, or if this is Draco.
pub(super) fn of(input: &PlanInput, solon: &Parameters) -> Option<Crossover> {
    let (link, gradient_time) = input.link.zip(input.gradient_time)?;
    if solon.compression() == 1 {
        return None;
    }
    let redundancy = solon.redundancy() - solon.compression() + 1;
    let size = Size::Groups(solon.workers() / redundancy);
    let draco = code(size, solon.adversaries(), solon.stragglers(), 1)?;
    refusal::chunks(input, 1).ok()?;
    let draco_shares = redundancy as f64 * solon.workers() as f64 / draco.workers() as f64;
    let duel = |relayed| {
        let one = Cost { shares: solon.redundancy() as f64, bytes: bytes(input, solon, relayed) };
        let other = Cost { shares: draco_shares, bytes: bytes(input, &draco, relayed) };
        duel(&one, &other, link, gradient_time)
    };
    Some(Crossover { draco: draco.into(), draco_shares, sent: duel(Way::Sent), relayed: duel(Way::Relayed) })
}

#[derive(Clone, Copy)]
enum Way {
    Sent,
    Relayed,
}

/// Bytes at the daemon's link that a round waits for.
fn bytes(input: &PlanInput, parameters: &Parameters, way: Way) -> f64 {
    let traffic = traffic(input, parameters);
    let down = match way {
        Way::Sent => traffic.download,
        Way::Relayed => traffic.download_per_worker,
    };
    overlapped(Seconds::of(traffic.upload as f64), Seconds::of(down as f64), traffic.chunks).get()
}

fn duel(solon: &Cost, draco: &Cost, link: BytesPerSecond, gradient_time: Seconds) -> Duel {
    let (ours, theirs) = (solon.time(link, gradient_time), draco.time(link, gradient_time));
    let faster = match ours.get() / theirs.get() {
        ratio if (ratio - 1.0).abs() < LEAST => Faster::Neither,
        ratio if ratio < 1.0 => Faster::Solon,
        _ => Faster::Draco,
    };
    let (saved, more) = (draco.bytes - solon.bytes, solon.shares - draco.shares);
    let break_even = match (saved > LEAST * draco.bytes, more > 0.0) {
        (true, true) => BreakEven::At {
            link: BytesPerSecond::of(saved / (more * gradient_time.get())),
            gradient_time: Seconds::of(saved / (more * link.get())),
        },
        (true, false) => BreakEven::Always,
        (false, _) => BreakEven::Never,
    };
    Duel { solon: ours, draco: theirs, faster, break_even }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(workers: usize, adversaries: usize, compression: usize, link: &str, gradient_time: &str) -> PlanInput {
        PlanInput {
            adversaries,
            compression,
            link: BytesPerSecond::parse(link).ok(),
            gradient_time: Seconds::parse(gradient_time).ok(),
            ..PlanInput::new(Size::Workers(workers), 10_000_000)
        }
    }

    fn crossover(input: &PlanInput) -> Crossover {
        Crossover::new(input).unwrap().unwrap()
    }

    /// A round as it goes, chunk by chunk: everybody computes, each chunk comes up when those before it are up, and goes down when it
    /// is up and those before it are down. `up` and `down` are seconds for all chunks, which are alike.
    fn naive_round(compute: f64, up: f64, down: f64, chunks: u64) -> f64 {
        let (mut uploaded, mut sent) = (compute, compute);
        for _ in 0..chunks {
            uploaded += up / chunks as f64;
            sent = f64::max(sent, uploaded) + down / chunks as f64;
        }
        sent
    }

    fn naive(input: &PlanInput, compression: usize, workers: usize, relayed: bool) -> f64 {
        let redundancy = compression + 2 * input.adversaries + input.stragglers;
        let groups = workers / redundancy;
        let parameters = Parameters::new(groups, input.adversaries, input.stragglers, compression).unwrap();
        let traffic = traffic(input, &parameters);
        let down = if relayed { traffic.download_per_worker } else { traffic.download };
        let (link, unit) = (input.link.unwrap().get(), input.gradient_time.unwrap().get());
        // One unit is the gradient of B / P samples. Each group computes B / groups of them, each of its workers all of those.
        let samples = workers as f64 / groups as f64;
        naive_round(samples * unit, traffic.upload as f64 / link, down as f64 / link, traffic.chunks)
    }

    #[test]
    fn with_a_relay_and_many_chunks_solon_wins_where_c_exceeds_r_c_times_the_gradient_time() {
        // C is 45 x 40 MB over the link.
        for (compression, adversaries) in [(5, 5), (3, 1), (9, 3), (7, 4)] {
            let input = job(45, adversaries, compression, "1Gb/s", "10ms");
            let crossover = crossover(&input);
            let BreakEven::At { gradient_time, link } = crossover.relayed.break_even else { panic!("{crossover:?}") };
            // Draco's workers without work upload nothing, and leave theirs to the others; with none this is C / r_c.
            let working = crossover.draco.workers as f64 / 45.0;
            let (r_c, repeated) = (compression as f64, (2 * adversaries + 1) as f64);
            let part = (working - 1.0 / r_c) / (r_c - 1.0 + repeated - repeated / working);
            assert!(working < 1.0 || (part * r_c - 1.0).abs() < 1e-12);
            let full = 45.0 * 40e6;
            assert!((gradient_time.get() / (part * full / 125e6) - 1.0).abs() < 0.01, "{gradient_time}");
            assert!((link.get() / (part * full / 0.01) - 1.0).abs() < 0.01, "{link}");
        }
    }

    #[test]
    fn without_a_relay_the_download_hides_the_gain() {
        let crossover = crossover(&job(45, 7, 31, "1Mb/s", "1us"));
        assert_eq!(crossover.draco.redundancy, 15);
        // All but the first chunk is hidden; and of that as much is saved with any compression.
        assert!(matches!(crossover.sent.faster, Faster::Neither), "{crossover:?}");
        assert!(matches!(crossover.relayed.faster, Faster::Solon), "{crossover:?}");
    }

    #[test]
    fn updates_of_fewer_bytes_than_uploads_leave_something_to_gain_without_a_relay() {
        use crate::code::Precision;
        let input = PlanInput { update_precision: Precision::F16, ..job(45, 1, 3, "1Gb/s", "1us") };
        let BreakEven::At { gradient_time, .. } = crossover(&input).sent.break_even else { panic!("half is hidden") };
        // C - C / 2 saved, two gradients more.
        let full = 45.0 * 40e6 / 125e6;
        assert!((gradient_time.get() / (full / 4.0) - 1.0).abs() < 0.01, "{gradient_time}");
    }

    #[test]
    fn workers_that_do_not_divide_into_dracos_groups_leave_some_without_work() {
        let crossover = crossover(&job(45, 5, 5, "1Gb/s", "10ms"));
        assert_eq!((crossover.draco.workers, crossover.draco.groups, crossover.draco.redundancy), (44, 4, 11));
        assert!((crossover.draco_shares - 11.0 * 45.0 / 44.0).abs() < 1e-12);
        // 6 workers of one group against 5 of one: no more computing in all, so Solon always wins with a relay.
        let always = Crossover::new(&job(6, 2, 2, "1Gb/s", "1s")).unwrap().unwrap();
        assert_eq!((always.draco.workers, always.draco_shares), (5, 6.0));
        assert_eq!((always.relayed.break_even, always.relayed.faster), (BreakEven::Always, Faster::Solon));
    }

    #[test]
    fn draco_itself_and_unknown_times_are_not_compared() {
        let known = job(45, 1, 3, "1Gb/s", "10ms");
        for input in [
            PlanInput { compression: 1, ..known },
            PlanInput { link: None, ..known },
            PlanInput { gradient_time: None, ..known },
        ] {
            assert_eq!(Crossover::new(&input), Ok(None));
        }
        assert!(Crossover::new(&PlanInput { size: Size::Workers(7), ..known }).is_err());
    }

    #[test]
    fn text_and_json_say_when_draco_is_faster() {
        use super::super::{Conditioning, PlanReport, plan_measured};
        let planned = |input: &PlanInput| {
            plan_measured(input, &|_, _| Some((Conditioning { honest: 2.0, least: 30.0, exhaustive: true }, 0.0)))
        };
        let fifteen = |compression| PlanInput { dimension: 11_000_000, ..job(15, 2, compression, "100Gb/s", "50ms") };
        let words = |report: &PlanReport| report.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        // C = 52.8 ms: with r_c = 11 the break-even is at a gradient of 4.8 ms.
        let report = planned(&fifteen(11)).unwrap();
        let text = words(&report);
        for part in [
            "Against Draco, which repeats: compression 1, 3 groups of 5",
            "Solon 750 ms 1/11 803 ms 755 ms",
            "Draco 250 ms whole 303 ms 303 ms",
            "sent Draco is faster: Solon takes 2.65 times as long. The download hides what the upload saves.",
            "relayed Draco is faster: Solon takes 2.49 times as long. Break-even at a link of",
        ] {
            assert!(text.contains(part), "{part}\n{report}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["crossover"]["relayed"]["faster"], "draco");
        assert_eq!(json["crossover"]["sent"]["break_even"], "never");
        let time = json["crossover"]["relayed"]["break_even"]["at"]["gradient_time"].as_f64().unwrap();
        assert!((time / 4.8e-3 - 1.0).abs() < 0.02, "{time}");
        let quickly = PlanInput { gradient_time: Seconds::parse("1ms").ok(), ..fifteen(11) };
        assert!(words(&planned(&quickly).unwrap()).contains("relayed Solon is faster: Draco takes 2.9"));
        for other in [fifteen(1), PlanInput { link: None, ..fifteen(11) }] {
            let report = planned(&other).unwrap();
            assert!(!report.to_string().contains("Against Draco") && report.crossover.is_none());
            assert!(serde_json::to_value(&report).unwrap().get("crossover").is_none());
        }
    }

    proptest! {
        #[test]
        fn times_and_break_even_are_those_of_a_round_gone_through_chunk_by_chunk(
            (groups, adversaries, stragglers, compression) in (1usize..5, 0usize..5, 0usize..3, 2usize..8),
            dimension in 100usize..300_000,
            (link, gradient_time) in (1e4..1e9f64, 1e-5..10.0f64),
        ) {
            let input = PlanInput {
                adversaries,
                stragglers,
                compression,
                chunk_width: 500,
                link: Some(BytesPerSecond::of(link)),
                gradient_time: Some(Seconds::of(gradient_time)),
                ..PlanInput::new(Size::Groups(groups), dimension)
            };
            let crossover = crossover(&input);
            let workers = groups * (compression + 2 * adversaries + stragglers);
            let draco = crossover.draco.workers;
            for (relayed, duel) in [(false, crossover.sent), (true, crossover.relayed)] {
                // Samples that the workers without work leave to the others.
                let rounds = |input: &PlanInput| {
                    let more = input.gradient_time.unwrap().get() * workers as f64 / draco as f64;
                    let theirs = PlanInput { gradient_time: Some(Seconds::of(more)), ..*input };
                    [naive(input, compression, workers, relayed), naive(&theirs, 1, draco, relayed)]
                };
                let [solon, other] = rounds(&input);
                prop_assert!((duel.solon.get() / solon - 1.0).abs() < 1e-9, "{} {}", duel.solon, solon);
                prop_assert!((duel.draco.get() / other - 1.0).abs() < 1e-9, "{} {}", duel.draco, other);
                // Who wins on links and with gradient times all around, by going through the rounds.
                for factor in [1e-6, 1e-3, 0.1, 0.9, 1.1, 10.0, 1e3, 1e6] {
                    let at = |link: f64, time: f64| {
                        let [solon, other] = rounds(&PlanInput {
                            link: Some(BytesPerSecond::of(link)),
                            gradient_time: Some(Seconds::of(time)),
                            ..input
                        });
                        (solon - other) / other
                    };
                    match duel.break_even {
                        BreakEven::At { link: even, gradient_time: time } => {
                            prop_assert_eq!(at(even.get() * factor, gradient_time) < 0.0, factor < 1.0);
                            prop_assert_eq!(at(link, time.get() * factor) < 0.0, factor < 1.0);
                        }
                        BreakEven::Never => prop_assert!(at(link * factor, gradient_time) > -LEAST),
                        BreakEven::Always => prop_assert!(at(link * factor, gradient_time) < 1e-9),
                    }
                }
            }
        }
    }
}
