//! Goals on aggregation alone, and what this run measured for them.

use std::fmt;

use serde_json::{Value, json};

use crate::contest::{ADD, BULYAN, Contest, GARFIELD, MEAN, REPETITION, cyclic_name, solon_name};

/// Where enough begins.
#[derive(Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtMost(bound) => write!(f, "<= {bound}"),
            Bound::AtLeast(bound) => write!(f, ">= {bound}"),
        }
    }
}

/// One goal and its figure, a ratio.
pub struct Goal {
    pub id: &'static str,
    pub what: String,
    pub bound: Bound,
    pub measured: f64,
}

impl Goal {
    /// As `solon bench --goals --with` reads it.
    pub fn json(&self) -> Value {
        let bound = match self.bound {
            Bound::AtMost(bound) => json!({ "at_most": bound }),
            Bound::AtLeast(bound) => json!({ "at_least": bound }),
        };
        json!({ "id": self.id, "what": self.what, "bound": bound, "measured": self.measured, "unit": "x" })
    }
}

/// The goals for which this run has both sides.
pub fn measured(contests: &[Contest]) -> Vec<Goal> {
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
        Some(Goal { id, what: what.into(), bound, measured: measured? })
    };
    rows.into_iter().filter_map(goal).collect()
}
