//! What liars compute who know the code: errors that hide from a known projection, and errors that make somebody honest look
//! wrong.

use solon::code::{Generator, Projector};

use crate::dice::Dice;
use crate::gradients::norm;

/// Adds an error of about the shard's own norm that is orthogonal to the projections of `seed`; `false` if there is none.
pub fn hide_from(seed: &[u8; 32], projections: usize, shard: &mut [f32], dice: &mut Dice) -> bool {
    let width = shard.len();
    if width <= projections {
        return false;
    }
    let mut projector = Projector::new(width, projections);
    projector.draw(seed, width);
    let mut unit = vec![0f32; width];
    let columns: Vec<_> = (0..width)
        .map(|at| {
            unit[at] = 1.0;
            let column = projector.project(&unit).expect("finite").values;
            unit[at] = 0.0;
            column
        })
        .collect();
    // Orthonormal rows, then what is left of a random error without its part along them. Twice, against rounding.
    let mut rows: Vec<Vec<f64>> = Vec::new();
    let clean = |rows: &[Vec<f64>], x: &mut [f64]| {
        for row in rows.iter().chain(rows) {
            let along: f64 = row.iter().zip(&*x).map(|(a, b)| a * b).sum();
            x.iter_mut().zip(row).for_each(|(x, a)| *x -= along * a);
        }
    };
    for k in 0..projections {
        let mut row: Vec<f64> = columns.iter().map(|column| column[k]).collect();
        clean(&rows, &mut row);
        let size = norm(row.iter().copied());
        row.iter_mut().for_each(|x| *x /= size);
        rows.push(row);
    }
    let mut error: Vec<f64> = (0..width).map(|_| dice.normal()).collect();
    clean(&rows, &mut error);
    let wanted = norm(shard.iter().map(|x| f64::from(*x)));
    let size = norm(error.iter().copied());
    shard.iter_mut().zip(&error).for_each(|(x, error)| *x = (f64::from(*x) + error * wanted / size) as f32);
    true
}

/// Solves `matrix x = right` (row major, square) by elimination with pivoting; `None` if it is singular.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let n = right.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        if matrix[pivot][column].abs() < 1e-12 {
            return None;
        }
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        for row in (0..n).filter(|row| *row != column) {
            let factor = matrix[row][column] / matrix[column][column];
            let (from, to) = (matrix[column].clone(), &mut matrix[row]);
            to.iter_mut().zip(&from).for_each(|(x, y)| *x -= factor * y);
            right[row] -= factor * right[column];
        }
    }
    Some((0..n).map(|row| right[row] / matrix[row][row]).collect())
}

/// The errors of `liars` (rows) that move the prediction for `target` most, while the rows of `set` (which has the liars in it)
/// stay at distance 1 of the code. In the order of `liars`; `None` where the code leaves no room.
pub fn frame(generator: &Generator, set: &[usize], liars: &[usize], target: usize) -> Option<Vec<f64>> {
    let c = generator.compression();
    let g = |row: usize| generator.row_f64(row);
    let gram: Vec<Vec<f64>> =
        (0..c).map(|i| (0..c).map(|j| set.iter().map(|row| g(*row)[i] * g(*row)[j]).sum()).collect()).collect();
    // Influence of each row on the prediction for another: g_a (G^T G)^-1 g_b.
    let influence = |of: usize, on: usize| -> Option<f64> {
        let inner = solve(gram.clone(), g(of).to_vec())?;
        Some(inner.iter().zip(g(on)).map(|(x, y)| x * y).sum())
    };
    let mut within = vec![vec![0.0; liars.len()]; liars.len()];
    for (i, a) in liars.iter().enumerate() {
        for (j, b) in liars.iter().enumerate() {
            within[i][j] = f64::from(u8::from(i == j)) - influence(*a, *b)?;
        }
    }
    let along: Option<Vec<f64>> = liars.iter().map(|row| influence(*row, target)).collect();
    let error = solve(within.clone(), along?)?;
    let squared: f64 = (0..liars.len())
        .flat_map(|i| (0..liars.len()).map(move |j| (i, j)))
        .map(|(i, j)| error[i] * within[i][j] * error[j])
        .sum();
    (squared > 1e-12).then(|| error.iter().map(|x| x / squared.sqrt()).collect())
}
