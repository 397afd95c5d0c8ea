//! The rules as their papers define them, in f64 and with no thought of speed: what all others are compared with. Rows are gradients, all of one
//! length; `f` of them may lie. A number that is not finite makes its row's distances infinite.

/// Entry `[i][j]` is the squared distance of gradients `i` and `j`.
pub fn distances(rows: &[&[f32]]) -> Vec<Vec<f64>> {
    let apart =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
    let distance = |a: &[f32], b: &[f32]| if apart(a, b).is_finite() { apart(a, b) } else { f64::INFINITY };
    rows.iter().map(|a| rows.iter().map(|b| distance(a, b)).collect()).collect()
}

fn mean_of(rows: &[&[f32]], chosen: &[usize]) -> Vec<f64> {
    let sum = |at: usize| chosen.iter().map(|row| f64::from(rows[*row][at])).sum::<f64>();
    (0..rows[0].len()).map(|at| sum(at) / chosen.len() as f64).collect()
}

/// The mean of all rows.
pub fn mean(rows: &[&[f32]]) -> Vec<f64> {
    mean_of(rows, &(0..rows.len()).collect::<Vec<_>>())
}

/// The mean of all rows, each of which counts as much as its weight.
pub fn weighted_mean(rows: &[&[f32]], weights: &[f64]) -> Vec<f64> {
    let all: f64 = weights.iter().sum();
    let at = |at: usize| rows.iter().zip(weights).map(|(row, weight)| weight * f64::from(row[at])).sum::<f64>() / all;
    (0..rows[0].len()).map(at).collect()
}

/// One coordinate of all rows, by rising value; NaN is the largest.
fn column(rows: &[&[f32]], at: usize) -> Vec<f64> {
    let value = |row: &&[f32]| if row[at].is_nan() { f64::INFINITY } else { f64::from(row[at]) };
    let mut column: Vec<f64> = rows.iter().map(value).collect();
    column.sort_by(f64::total_cmp);
    column
}

/// The middle of each coordinate; of an even number of rows the mean of both middles.
pub fn median(rows: &[&[f32]]) -> Vec<f64> {
    trimmed_mean(rows, (rows.len() - 1) / 2)
}

/// Per coordinate the mean of all but the `f` least and the `f` greatest.
pub fn trimmed_mean(rows: &[&[f32]], f: usize) -> Vec<f64> {
    let kept = f..rows.len() - f;
    (0..rows[0].len()).map(|at| column(rows, at)[kept.clone()].iter().sum::<f64>() / kept.len() as f64).collect()
}

/// Per coordinate the sign that most have: -1 for those below zero, 1 for all others, 0 at a tie.
pub fn signum(rows: &[&[f32]]) -> Vec<f64> {
    let vote = |at: usize| rows.iter().map(|row| if row[at] < 0.0 { -1i32 } else { 1 }).sum::<i32>();
    (0..rows[0].len()).map(|at| f64::from(vote(at).signum())).collect()
}

/// The point with the least sum of distances, each times its row's weight: found by a thousand turns of Weiszfeld's iteration.
pub fn geometric_median(rows: &[&[f32]], weights: &[f64]) -> Vec<f64> {
    let rows: Vec<(&[f32], f64)> = rows.iter().copied().zip(weights.iter().copied()).collect();
    let rows: Vec<_> = rows.into_iter().filter(|(row, _)| row.iter().all(|x| x.is_finite())).collect();
    let width = rows[0].0.len();
    let mean = |pull: &dyn Fn(usize) -> f64| -> Vec<f64> {
        let all: f64 = (0..rows.len()).map(pull).sum();
        let at = |at: usize| (0..rows.len()).map(|row| pull(row) * f64::from(rows[row].0[at])).sum::<f64>() / all;
        (0..width).map(at).collect()
    };
    let mut point = mean(&|row| rows[row].1);
    for _ in 0..1000 {
        let apart: Vec<f64> = rows
            .iter()
            .map(|(row, _)| row.iter().zip(&point).map(|(x, z)| (f64::from(*x) - z).powi(2)).sum::<f64>().sqrt())
            .collect();
        point = mean(&|row| rows[row].1 / apart[row].max(1e-12));
    }
    point
}

/// Those of `alive` by rising score: the sum of the squared distances to their `|alive| - f - 2` nearest.
pub(super) fn ranked(distances: &[Vec<f64>], alive: &[usize], f: usize) -> Vec<usize> {
    let near = alive.len().saturating_sub(f + 2).max(1);
    let score = |row: usize| {
        let mut to: Vec<f64> =
            alive.iter().filter(|other| **other != row).map(|other| distances[row][*other]).collect();
        to.sort_by(f64::total_cmp);
        to[..near.min(to.len())].iter().sum::<f64>()
    };
    let mut order: Vec<(f64, usize)> = alive.iter().map(|row| (score(*row), *row)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    order.into_iter().map(|(_, row)| row).collect()
}

/// Krum's choice among gradients of which `f` lie.
pub fn krum(rows: &[&[f32]], f: usize) -> Vec<f64> {
    let all: Vec<usize> = (0..rows.len()).collect();
    mean_of(rows, &ranked(&distances(rows), &all, f)[..1])
}

/// The mean of the `P - f - 2` best by Krum's score.
pub fn multi_krum(rows: &[&[f32]], f: usize) -> Vec<f64> {
    let all: Vec<usize> = (0..rows.len()).collect();
    mean_of(rows, &ranked(&distances(rows), &all, f)[..rows.len() - f - 2])
}

/// Per coordinate the mean of the `keep` values nearest to the median of `columns`.
fn near_the_median(chosen: &[Vec<f64>], keep: usize) -> Vec<f64> {
    (0..chosen[0].len())
        .map(|at| {
            let mut column: Vec<f64> = chosen.iter().map(|row| row[at]).collect();
            column.sort_by(f64::total_cmp);
            let median = column[column.len() / 2];
            column.sort_by(|a, b| (a - median).abs().total_cmp(&(b - median).abs()));
            column[..keep].iter().sum::<f64>() / keep as f64
        })
        .collect()
}

/// Bulyan over Krum: `P - 2f` gradients chosen one by one, then per coordinate the `P - 4f` nearest to their median.
pub fn bulyan(rows: &[&[f32]], f: usize) -> Vec<f64> {
    let distances = distances(rows);
    let mut alive: Vec<usize> = (0..rows.len()).collect();
    let mut chosen = Vec::new();
    for _ in 0..rows.len() - 2 * f {
        let best = ranked(&distances, &alive, f)[0];
        alive.retain(|row| *row != best);
        chosen.push(mean_of(rows, &[best]));
    }
    near_the_median(&chosen, rows.len() - 4 * f)
}

/// Bulyan over Multi-Krum: `P - 2f - 2` means, each of the best by scores among those not yet best, then as Bulyan.
pub fn bulyan_of_means(rows: &[&[f32]], f: usize) -> Vec<f64> {
    let distances = distances(rows);
    let mut alive: Vec<usize> = (0..rows.len()).collect();
    let mut chosen = Vec::new();
    for _ in 0..rows.len() - 2 * f - 2 {
        let order = ranked(&distances, &alive, f);
        chosen.push(mean_of(rows, &order[..alive.len() - f - 2]));
        alive.retain(|row| *row != order[0]);
    }
    near_the_median(&chosen, rows.len() - 4 * f - 2)
}

/// How far `found` is from `wanted`, relative to the latter's norm unless that is zero.
pub fn error(found: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len(), "a result has the gradient's length");
    let squares: f64 = found.iter().zip(wanted).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    let norm: f64 = wanted.iter().map(|b| b * b).sum();
    if norm == 0.0 { squares.sqrt() } else { (squares / norm).sqrt() }
}
