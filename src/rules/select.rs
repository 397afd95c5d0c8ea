//! Which rows a rule chooses, and with which weights: from the squared distances of all pairs alone.

use super::gram::Gram;
use super::kernels::network;
use super::{Choice, Rule};

/// Rounds of Weiszfeld's iteration at most. It halves the distance to its limit in a few, and stops when it no longer moves.
pub(super) const WEISZFELD_TURNS: usize = 200;
/// No distance counts as less than this part of the median one: a point on which the iteration lands does not take all weight.
pub(super) const WEISZFELD_SMOOTH: f64 = 1e-6;
/// The iteration has ended when no weight moves by more.
pub(super) const WEISZFELD_STILL: f64 = 1e-9;

/// What `rule` does with rows of these inner products.
pub(super) fn choose(rule: Rule, f: usize, weights: &[f64], gram: Option<&Gram>) -> Choice {
    let workers = weights.len();
    let all = || (0..workers).collect::<Vec<_>>();
    let neighbours = || Neighbours::new(&gram.expect("a rule that looks at whole gradients surveys them").distances());
    match rule {
        Rule::Mean => mean_of(&all(), weights),
        Rule::Median => {
            let cut = (workers - 1) / 2;
            Choice::Middle { rows: all(), cut, network: network(workers, cut..workers - cut) }
        }
        Rule::TrimmedMean => Choice::Middle { rows: all(), cut: f, network: network(workers, f..workers - f) },
        Rule::Krum => mean_of(&neighbours().ranked(f)[..1], weights),
        Rule::MultiKrum => mean_of(&neighbours().ranked(f)[..workers - f - 2], weights),
        Rule::Bulyan => {
            let mut neighbours = neighbours();
            let rows: Vec<usize> = (0..workers - 2 * f).map(|_| neighbours.take_best(f)).collect();
            let wires = rows.len();
            Choice::NearMedian { rows, keep: workers - 4 * f, network: network(wires, 0..wires) }
        }
        Rule::GeometricMedian => {
            geometric_median(gram.expect("a rule that looks at whole gradients surveys them"), weights)
        }
        Rule::Signum => Choice::Sign,
    }
}

fn mean_of(rows: &[usize], weights: &[f64]) -> Choice {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    let sum: f64 = rows.iter().map(|row| weights[*row]).sum();
    Choice::Mean { rows: rows.into_iter().map(|row| (row, weights[row] / sum)).collect() }
}

/// Each row's neighbours by rising distance. A distance that is no number is infinite: such rows are chosen last.
pub(super) struct Neighbours {
    sorted: Vec<Vec<(f64, usize)>>,
    alive: Vec<bool>,
}

impl Neighbours {
    /// Of rows with these squared distances.
    pub(super) fn new(distances: &[Vec<f64>]) -> Neighbours {
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

    /// The rows that are left, by rising score among themselves when `f` of them lie.
    fn ranked(&self, f: usize) -> Vec<usize> {
        let left = self.alive.iter().filter(|alive| **alive).count();
        self.ranked_by(left.saturating_sub(f + 2).max(1))
    }

    /// The rows that are left, by rising sum of squared distances to the `near` nearest.
    pub(super) fn ranked_by(&self, near: usize) -> Vec<usize> {
        let score = |row: usize| {
            let near = self.sorted[row].iter().filter(|(_, other)| self.alive[*other]).take(near);
            near.map(|(distance, _)| distance).sum::<f64>()
        };
        let rows = (0..self.alive.len()).filter(|row| self.alive[*row]);
        let mut order: Vec<(f64, usize)> = rows.map(|row| (score(row), row)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        order.into_iter().map(|(_, row)| row).collect()
    }

    /// Takes the best row out, and says which it was.
    fn take_best(&mut self, f: usize) -> usize {
        let best = self.ranked(f)[0];
        self.alive[best] = false;
        best
    }
}

/// Weiszfeld's iteration, in the space of the weights: the next point is `sum w_i x_i`, and its distances to all rows follow from the inner
/// products, so that no gradient is looked at. It creeps towards a row that is itself the median; so that is looked at first, whenever
/// another row has come nearest.
fn geometric_median(gram: &Gram, weights: &[f64]) -> Choice {
    let distances = gram.distances();
    let finite: Vec<usize> = (0..weights.len()).filter(|row| gram.is_finite(*row)).collect();
    if finite.is_empty() {
        return mean_of(&(0..weights.len()).collect::<Vec<_>>(), weights);
    }
    let sum: f64 = finite.iter().map(|row| weights[*row]).sum();
    let mut point: Vec<f64> = finite.iter().map(|row| weights[*row] / sum).collect();
    let mut nearest = usize::MAX;
    for _ in 0..WEISZFELD_TURNS {
        let apart = distances_to(&point, &finite, &distances);
        let now = (0..finite.len()).min_by(|a, b| apart[*a].total_cmp(&apart[*b])).expect("there are rows");
        if std::mem::replace(&mut nearest, now) != now && is_the_median(now, &finite, weights, &distances) {
            return mean_of(&[finite[now]], weights);
        }
        let mut sorted = apart.clone();
        sorted.sort_by(f64::total_cmp);
        let least = WEISZFELD_SMOOTH * sorted[sorted.len() / 2];
        if least == 0.0 {
            break;
        }
        let pulls: Vec<f64> = finite.iter().zip(&apart).map(|(row, apart)| weights[*row] / apart.max(least)).collect();
        let all: f64 = pulls.iter().sum();
        let next: Vec<f64> = pulls.iter().map(|pull| pull / all).collect();
        let moved = next.iter().zip(&point).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        point = next;
        if moved <= WEISZFELD_STILL {
            break;
        }
    }
    Choice::Mean { rows: finite.into_iter().zip(point).collect() }
}

/// How far `sum w_i x_i` is from each `x_k`, where the weights add up to 1: `|z - x_k|^2 = sum_i w_i d_ik - 1/2 sum_ij w_i w_j d_ij`.
fn distances_to(point: &[f64], rows: &[usize], distances: &[Vec<f64>]) -> Vec<f64> {
    let to = |k: &usize| point.iter().zip(rows).map(|(weight, i)| weight * distances[*i][*k]).sum::<f64>();
    let sums: Vec<f64> = rows.iter().map(to).collect();
    let half: f64 = 0.5 * point.iter().zip(&sums).map(|(weight, sum)| weight * sum).sum::<f64>();
    sums.into_iter().map(|sum| (sum - half).max(0.0).sqrt()).collect()
}

/// Is the row at `k` of `rows` their geometric median? It is, where all others together pull by no more than its own weight (Vardi and
/// Zhang, "The multivariate L1-median and associated data depth", 2000).
fn is_the_median(k: usize, rows: &[usize], weights: &[f64], distances: &[Vec<f64>]) -> bool {
    let from = |i: usize| distances[rows[k]][rows[i]];
    let same = |i: usize| from(i) == 0.0;
    let own: f64 = (0..rows.len()).filter(|i| same(*i)).map(|i| weights[rows[i]]).sum();
    let unit = |i: usize| if same(i) { 0.0 } else { weights[rows[i]] / from(i).sqrt() };
    let pairs = (0..rows.len()).flat_map(|i| (0..rows.len()).map(move |j| (i, j)));
    // Inner products of the differences to row k, by their distances.
    let product = |i: usize, j: usize| 0.5 * (from(i) + from(j) - distances[rows[i]][rows[j]]);
    let pull: f64 = pairs.map(|(i, j)| unit(i) * unit(j) * product(i, j)).sum();
    pull <= own * own
}
