//! Goals on aggregation alone, and what this run measured for them.

use serde_json::{Value, json};

use crate::contest::{ADD, BULYAN, Contest, GARFIELD, MEAN, REPETITION, cyclic_name, solon_name};

/// One goal and its figure.
pub struct Goal {
    pub id: &'static str,
    pub what: String,
    pub bound: &'static str,
    pub measured: f64,
    pub unit: &'static str,
}

impl Goal {
    pub fn json(&self) -> Value {
        json!({ "id": self.id, "what": self.what, "bound": self.bound, "measured": self.measured, "unit": self.unit })
    }
}

/// The goals for which this run has both sides.
pub fn measured(contests: &[Contest]) -> Vec<Goal> {
    // Both sides of a ratio were raced against each other.
    let over = |workers: usize, above: &str, below: &str| {
        let of = |contest: &Contest| Some(contest.cpu(above)? / contest.cpu(below)?);
        contests.iter().filter(|contest| contest.workers == workers).find_map(of)
    };
    let across = |workers: usize, above: &str, below: &str| {
        let find = |name: &str| contests.iter().filter(|c| c.workers == workers).find_map(|c| c.cpu(name));
        Some(find(above)? / find(below)?)
    };
    let (whole, compressed) = (solon_name(5, 1), solon_name(15, 5));
    let worst = |below: &str| [15, 25, 45].into_iter().filter_map(|p| over(p, &whole, below)).reduce(f64::max);
    let faster = "times faster";
    let rows = [
        (
            "G2a",
            "verified aggregate at r_c = 1 against the fastest plain mean, CPU, the worst P",
            "<= 1.10",
            worst(MEAN),
        ),
        ("G2b", "verified aggregate at r_c = 1 against dst += src, CPU, the worst P", "<= 0.50", worst(ADD)),
        (
            "G7a",
            "aggregation at P = 45 (r 15, r_c 5) against Bulyan as Garfield's",
            ">= 1000",
            over(45, GARFIELD, &compressed),
        ),
        ("G7b", "aggregation at P = 45 (r 15, r_c 5) against our tuned Bulyan", ">= 40", over(45, BULYAN, &compressed)),
        (
            "G7c",
            "aggregation at P = 45 (r 5, r_c 1) against Draco's repetition",
            ">= 2.5",
            over(45, REPETITION, &whole),
        ),
        (
            "G7d",
            "aggregation at P = 45 (r 15, r_c 5) against Draco's cyclic code",
            ">= 100",
            across(45, &cyclic_name(45), &compressed),
        ),
    ];
    let goal = |(id, what, bound, measured): (&'static str, &str, &'static str, Option<f64>)| {
        let unit = if bound.starts_with('>') { faster } else { "times" };
        Some(Goal { id, what: what.into(), bound, measured: measured?, unit })
    };
    rows.into_iter().filter_map(goal).collect()
}
