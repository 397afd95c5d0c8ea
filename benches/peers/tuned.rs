//! Robust rules as fast as we could make them: what Solon has to beat to claim that the algorithm, not the craft, is faster.
//!
//! Distances once, by `gram`; the choice on distances sorted once; per coordinate a sorting network over tiles.

use crate::gram::distances;
use crate::kernels::{Network, mean, near_the_median, network};

/// Each row's neighbours by rising distance. A distance that is no number is infinite: such rows are chosen last.
struct Neighbours {
    sorted: Vec<Vec<(f64, usize)>>,
    alive: Vec<bool>,
}

impl Neighbours {
    fn new(distances: &[Vec<f64>]) -> Neighbours {
        let sort = |(row, distances): (usize, &Vec<f64>)| {
            let finite = |x: f64| if x.is_finite() { x } else { f64::INFINITY };
            let others = distances.iter().enumerate().filter(|(other, _)| *other != row);
            let mut to: Vec<(f64, usize)> = others.map(|(other, distance)| (finite(*distance), other)).collect();
            to.sort_by(|a, b| a.0.total_cmp(&b.0));
            to
        };
        let sorted = distances.iter().enumerate().map(sort).collect();
        Neighbours { sorted, alive: vec![true; distances.len()] }
    }

    /// The rows that are left, by rising Krum score among themselves when `f` of them lie.
    fn ranked(&self, f: usize) -> Vec<usize> {
        let left = self.alive.iter().filter(|alive| **alive).count();
        let near = (left - 2).saturating_sub(f).max(1);
        let score = |row: usize| {
            let near = self.sorted[row].iter().filter(|(_, other)| self.alive[*other]).take(near);
            near.map(|(distance, _)| distance).sum::<f64>()
        };
        let rows = (0..self.alive.len()).filter(|row| self.alive[*row]);
        let mut order: Vec<(f64, usize)> = rows.map(|row| (score(row), row)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        order.into_iter().map(|(_, row)| row).collect()
    }
}

fn chosen<'a>(rows: &[&'a [f32]], order: &[usize]) -> Vec<&'a [f32]> {
    order.iter().map(|row| rows[*row]).collect()
}

/// The mean of the `P - f - 2` best by Krum's score.
pub fn multi_krum(rows: &[&[f32]], f: usize, out: &mut [f32]) {
    let order = Neighbours::new(&distances(rows)).ranked(f);
    let best = chosen(rows, &order[..rows.len() - f - 2]);
    mean(&best, 1.0 / best.len() as f32, out);
}

/// Bulyan over Krum.
pub fn bulyan(rows: &[&[f32]], f: usize, out: &mut [f32]) {
    let mut neighbours = Neighbours::new(&distances(rows));
    let mut order = Vec::new();
    for _ in 0..rows.len() - 2 * f {
        let best = neighbours.ranked(f)[0];
        neighbours.alive[best] = false;
        order.push(best);
    }
    let network: Network = network(order.len(), 0..order.len());
    near_the_median(&chosen(rows, &order), &network, rows.len() - 4 * f, out);
}

/// The middle of each coordinate.
pub fn median(rows: &[&[f32]], out: &mut [f32]) {
    let middle = rows.len() / 2;
    near_the_median(rows, &network(rows.len(), std::iter::once(middle)), 1, out);
}
