//! The rules as their papers define them, in f64 and with no thought of speed: what all others are compared with.

/// Entry `[i][j]` is the squared distance of gradients `i` and `j`.
pub fn distances(rows: &[&[f32]]) -> Vec<Vec<f64>> {
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
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

/// The middle of each coordinate; of an odd number of rows.
pub fn median(rows: &[&[f32]]) -> Vec<f64> {
    (0..rows[0].len())
        .map(|at| {
            let mut column: Vec<f32> = rows.iter().map(|row| row[at]).collect();
            column.sort_by(f32::total_cmp);
            f64::from(column[column.len() / 2])
        })
        .collect()
}

/// Those of `alive` by rising score: the sum of the squared distances to their `|alive| - f - 2` nearest.
fn ranked(distances: &[Vec<f64>], alive: &[usize], f: usize) -> Vec<usize> {
    let near = (alive.len() - 2).saturating_sub(f).max(1);
    let score = |row: usize| {
        let mut to: Vec<f64> =
            alive.iter().filter(|other| **other != row).map(|other| distances[row][*other]).collect();
        to.sort_by(f64::total_cmp);
        to[..near.min(to.len())].iter().sum::<f64>()
    };
    let mut order: Vec<(f64, usize)> = alive.iter().map(|row| (score(*row), *row)).collect();
    order.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
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

/// How far `found` is from `wanted`, relative to the latter's norm.
pub fn error(found: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len(), "a result has the gradient's length");
    let squares: f64 = found.iter().zip(wanted).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    (squares / wanted.iter().map(|b| b * b).sum::<f64>()).sqrt()
}
