//! How far off a result can be: by rounding, and by a lie too small to be seen.

use serde::Serialize;

use super::{Effort, PlanInput, refusal};
use crate::code::{Family, Form, Generator, Parameters, Precision, condition};

/// How much a code enlarges errors, in the worst case.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Conditioning {
    /// Recovering from `r_c + s` shards: the honest ones when s lie and e are silent.
    pub honest: f64,
    /// Recovering from `r_c` shards: the honest ones when a chunk was decided with all s liars among the first `r_c + s`.
    pub least: f64,
    /// Every set of shards was looked at; else 20000 random ones and all runs of neighbours, which are the worst known.
    pub exhaustive: bool,
}

/// Errors relative to the size of a group's gradient, in the worst case and about.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// How much errors are enlarged.
    pub conditioning: Conditioning,
    /// What rounding leaves: `honest` x 2^-24, or with 16 bits 2^-8 (bf16) or 2^-11 (f16).
    pub rounding: f64,
    /// What s liars who stay just below the tolerance can change when every shard is waited for:
    /// tolerance x sqrt(r) x `honest`. The size of the rounding that passes is `tolerance x sqrt(r) x norm of a shard`.
    pub hidden: f64,
    /// The same when a chunk is decided as soon as enough shards agree: tolerance x sqrt(r) x `least`.
    pub hidden_early: f64,
}

impl Accuracy {
    pub(super) fn of(conditioning: Conditioning, redundancy: usize, tolerance: f64, precision: Precision) -> Accuracy {
        let passes = tolerance * (redundancy as f64).sqrt();
        Accuracy {
            conditioning,
            rounding: precision.unit_roundoff() * conditioning.honest,
            hidden: passes * conditioning.honest,
            hidden_early: passes * conditioning.least,
        }
    }
}

/// Will it take more than about five seconds to plan this job?
pub fn is_slow(input: &PlanInput) -> bool {
    refusal::check(input).is_ok_and(|code| cost(&code) > 5e8)
}

/// Measures the code that `solond` uses by default.
pub(super) fn measure(parameters: &Parameters, effort: Effort) -> Option<(Conditioning, f64)> {
    let cost = cost(parameters);
    if matches!(effort, Effort::UpTo(limit) if cost > limit) {
        return None;
    }
    let (r, c) = (parameters.redundancy(), parameters.compression());
    let generator = Generator::new(Family::Trigonometric, Form::Systematic, r, c).expect("this family has all sizes");
    let measured = condition(&generator, parameters);
    let conditioning = Conditioning {
        honest: measured.worst_rows,
        least: measured.worst_information_set,
        exhaustive: measured.exhaustive,
    };
    Some((conditioning, cost))
}

/// About how many additions and multiplications it takes, of which a second has about 1e8.
fn cost(parameters: &Parameters) -> f64 {
    let (r, c) = (parameters.redundancy(), parameters.compression());
    let of = |size: usize| {
        let smaller = size.min(r - size);
        let sets = (0..smaller).map(|i| (r - i) as f64 / (i + 1) as f64).product::<f64>().min(20_000.0);
        sets * (size * c * c) as f64
    };
    of(c) + of(parameters.agreement())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Size;

    #[test]
    fn errors_are_products_of_what_causes_and_what_enlarges_them() {
        let conditioning = Conditioning { honest: 3.0, least: 50.0, exhaustive: true };
        let accuracy = Accuracy::of(conditioning, 16, 1e-6, Precision::F32);
        assert_eq!(accuracy.rounding, 3.0 / 16_777_216.0);
        assert_eq!(Accuracy::of(conditioning, 16, 1e-6, Precision::Bf16).rounding, 3.0 / 256.0);
        assert!((accuracy.hidden - 1.2e-5).abs() < 1e-18 && (accuracy.hidden_early - 2e-4).abs() < 1e-17);
    }

    #[test]
    fn the_estimate_is_near_what_liars_reached_in_experiments() {
        // src/code/locate.rs, measured at a tolerance of 6 x 2^-24; chance lets some pass a little more.
        for (s, c, all, early) in [(1, 1, 8e-7, 1e-6), (2, 4, 5e-6, 1e-5), (5, 10, 1e-4, 5e-4)] {
            let parameters = Parameters::new(1, s, 0, c).unwrap();
            let (conditioning, _) = measure(&parameters, Effort::Any).unwrap();
            let precision = Precision::F32;
            let tolerance = precision.tolerance(c);
            let accuracy = Accuracy::of(conditioning, parameters.redundancy(), tolerance, precision);
            assert!(all < 3.0 * accuracy.hidden, "({s}, {c}): {accuracy:?}");
            assert!(early < 3.0 * accuracy.hidden_early, "({s}, {c}): {accuracy:?}");
        }
    }

    #[test]
    fn every_size_has_a_generator() {
        for r in 1..=64usize {
            for c in [1, 2, 3, r / 2, r.saturating_sub(1), r].into_iter().filter(|c| (1..=r).contains(c)) {
                assert!(Generator::new(Family::Trigonometric, Form::Systematic, r, c).is_ok(), "{r} {c}");
            }
        }
    }

    #[test]
    fn what_takes_long_is_known_beforehand() {
        let slow = |adversaries, compression| {
            is_slow(&PlanInput { adversaries, compression, ..PlanInput::new(Size::Groups(1), 1000) })
        };
        assert!(slow(2, 56) && !slow(2, 1) && !slow(5, 10) && !slow(30, 1) && !slow(30, 56));
        let large = Parameters::new(1, 2, 0, 56).unwrap();
        assert_eq!(measure(&large, Effort::UpTo(1e8)), None);
    }
}
