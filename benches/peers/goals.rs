//! Goals on aggregation alone, and what this run measured for them.

use solon::bench::goals::{Bound, Goal, Goals};

use crate::contest::{ADD, BULYAN, Contest, GARFIELD, MEAN, REPETITION, cyclic_name, solon_name};

/// The goals for which this run has both sides.
pub fn measured(contests: &[Contest]) -> Goals {
    // Both sides of a ratio were raced against each other.
    let over = |workers: usize, above: &str, below: &str| {
        let of = |contest: &Contest| Some(contest.cpu(above)? / contest.cpu(below)?);
        contests.iter().filter(|contest| contest.workers == workers).find_map(of)
    };
    let (whole, compressed) = (solon_name(5, 1), solon_name(15, 5));
    let worst = |below: &str| [15, 25, 45].into_iter().filter_map(|p| over(p, &whole, below)).reduce(f64::max);
    let (least, most) = (Bound::AtLeast, Bound::AtMost);
    let rows = [
        (
            "G2",
            "verified aggregate at r_c = 1, CPU over that of the fastest plain mean, the worst P",
            most(1.1),
            worst(MEAN),
        ),
        ("G2", "verified aggregate at r_c = 1, CPU over that of dst += src, the worst P", most(0.5), worst(ADD)),
        (
            "G7",
            "aggregation at P = 45 (r 15, r_c 5) faster than Bulyan as Garfield's",
            least(1000.0),
            over(45, GARFIELD, &compressed),
        ),
        (
            "G7",
            "aggregation at P = 45 (r 15, r_c 5) faster than our tuned Bulyan",
            least(40.0),
            over(45, BULYAN, &compressed),
        ),
        (
            "G7",
            "aggregation at P = 45 (r 5, r_c 1) faster than Draco's repetition",
            least(2.5),
            over(45, REPETITION, &whole),
        ),
        (
            "G7",
            "aggregation at P = 45 (r 15, r_c 5) faster than Draco's cyclic code",
            least(100.0),
            over(45, &cyclic_name(45), &compressed),
        ),
    ];
    let goal = |(id, what, bound, measured): (&'static str, &str, Bound, Option<f64>)| {
        Some(Goal { id: id.into(), what: what.into(), bound, measured: measured?, unit: "x".into() })
    };
    Goals(rows.into_iter().filter_map(goal).collect())
}
