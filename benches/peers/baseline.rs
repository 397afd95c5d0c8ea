//! Robust rules as their released implementations do them, re-made from their descriptions: plain loops, one pair of
//! gradients or one coordinate at a time, compiled as an ordinary build compiles them.
//!
//! `bulyan` is that of Garfield's native library: Multi-Krum in a loop, where each turn computes the scores of those left,
//! averages the best of them and leaves out the very best; then per coordinate the average of the averages nearest to their
//! median. `krum` and `multi_krum` share its distances, `median` its way through the coordinates.

fn distances(rows: &[&[f32]]) -> Vec<Vec<f32>> {
    let mut all = vec![vec![0.0; rows.len()]; rows.len()];
    for i in 0..rows.len() {
        for j in 0..i {
            let mut sum = 0f32;
            for (a, b) in rows[i].iter().zip(rows[j]) {
                let apart = a - b;
                sum += apart * apart;
            }
            (all[i][j], all[j][i]) = (sum, sum);
        }
    }
    all
}

/// Those of `left`, by rising score.
fn ranked(distances: &[Vec<f32>], left: &[usize], f: usize) -> Vec<usize> {
    let near = (left.len() - 2).saturating_sub(f).max(1);
    let mut scores: Vec<(f32, usize)> = Vec::new();
    for &row in left {
        let mut to: Vec<f32> = left.iter().filter(|other| **other != row).map(|other| distances[row][*other]).collect();
        to.sort_by(f32::total_cmp);
        scores.push((to.iter().take(near).sum(), row));
    }
    scores.sort_by(|a, b| a.0.total_cmp(&b.0));
    scores.into_iter().map(|(_, row)| row).collect()
}

/// Krum: the gradient with the lowest score.
pub fn krum(rows: &[&[f32]], f: usize, out: &mut [f32]) {
    let all: Vec<usize> = (0..rows.len()).collect();
    out.copy_from_slice(rows[ranked(&distances(rows), &all, f)[0]]);
}

/// Multi-Krum: the mean of the `P - f - 2` with the lowest scores.
pub fn multi_krum(rows: &[&[f32]], f: usize, out: &mut [f32]) {
    let all: Vec<usize> = (0..rows.len()).collect();
    let order = ranked(&distances(rows), &all, f);
    let best = &order[..rows.len() - f - 2];
    out.fill(0.0);
    for &row in best {
        out.iter_mut().zip(rows[row]).for_each(|(sum, x)| *sum += x);
    }
    out.iter_mut().for_each(|sum| *sum /= best.len() as f32);
}

/// Bulyan over Multi-Krum.
pub fn bulyan(rows: &[&[f32]], f: usize, out: &mut [f32]) {
    let distances = distances(rows);
    let mut left: Vec<usize> = (0..rows.len()).collect();
    let mut choices: Vec<Vec<usize>> = Vec::new();
    for _ in 0..rows.len() - 2 * f - 2 {
        let order = ranked(&distances, &left, f);
        left.retain(|row| *row != order[0]);
        choices.push(order[..order.len() - f - 2].to_vec());
    }
    let keep = choices.len() - 2 * f;
    let mut averages = vec![0f32; choices.len()];
    for (at, out) in out.iter_mut().enumerate() {
        for (average, choice) in averages.iter_mut().zip(&choices) {
            *average = choice.iter().map(|row| rows[*row][at]).sum::<f32>() / choice.len() as f32;
        }
        let middle = averages.len() / 2;
        let median = *averages.select_nth_unstable_by(middle, f32::total_cmp).1;
        averages.select_nth_unstable_by(keep - 1, |a, b| (a - median).abs().total_cmp(&(b - median).abs()));
        *out = averages[..keep].iter().sum::<f32>() / keep as f32;
    }
}

/// The middle of each coordinate.
pub fn median(rows: &[&[f32]], out: &mut [f32]) {
    let mut column = vec![0f32; rows.len()];
    for (at, out) in out.iter_mut().enumerate() {
        column.iter_mut().zip(rows).for_each(|(x, row)| *x = row[at]);
        let middle = column.len() / 2;
        *out = *column.select_nth_unstable_by(middle, f32::total_cmp).1;
    }
}

/// The sum of all rows, each added to the output from end to end: the loop that a first version has.
pub fn add_each(rows: &[&[f32]], out: &mut [f32]) {
    out.fill(0.0);
    for row in rows {
        out.iter_mut().zip(*row).for_each(|(sum, x)| *sum += x);
    }
}
