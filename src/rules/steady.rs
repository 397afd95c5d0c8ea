//! A rule for many rounds, in room that is claimed once: what the daemon runs. Any of the workers may be missing from a round, as long as
//! those that are there are enough.
//!
//! Gradients are sums over a worker's samples. So rows may be divided by the samples behind them before they are compared, and the
//! update is on the scale of the sum over all workers: with a mean it would be that sum.

use super::columns::{self, Scaled};
use super::kernels::{self, Network, network};
use super::{Rule, TooFew};

/// Rounds of Weiszfeld's iteration at most. It halves the distance to its limit in a few, and stops when it no longer moves.
const WEISZFELD_TURNS: usize = 200;
/// No distance counts as less than this part of the median one: a point on which the iteration lands does not take all weight.
const WEISZFELD_SMOOTH: f64 = 1e-6;
/// The iteration has ended when no weight moves by more.
const WEISZFELD_STILL: f64 = 1e-9;

/// The most workers.
pub const ROWS_MAX: usize = 64;

/// One rule's room, and its last choice.
#[derive(Debug)]
pub struct Steady {
    rule: Rule,
    adversaries: usize,
    weights: Vec<f64>,
    /// What each row is multiplied by before rows are compared; empty where all weigh the same, and nothing is.
    scales: Vec<f32>,
    /// What brings the rule of rows to the scale of their sum.
    total: f64,
    /// By how many rows they sort.
    networks: Vec<Network>,
    tile: Vec<[f32; columns::COLUMNS]>,
    /// The rows that have a part in the update, and of a mean, each one's share.
    chosen: Vec<usize>,
    shares: Vec<f32>,
    room: Room,
}

/// Where the choice is made. Rows count from 0 here, among those that are there.
#[derive(Debug)]
struct Room {
    /// Squared distances, row by row.
    distances: Vec<f64>,
    /// Each row's neighbours by rising distance, row by row.
    near: Vec<(f64, usize)>,
    alive: Vec<bool>,
    order: Vec<(f64, usize)>,
    point: Vec<f64>,
    apart: Vec<f64>,
    sorted: Vec<f64>,
    rows: Vec<usize>,
}

impl Steady {
    /// A rule among as many workers as there are `weights`, of which at least `least` are there in each round. Weights are the samples
    /// behind each worker's gradient, and come from the job, not from the worker.
    ///
    /// # Errors
    /// If `least` workers are too few.
    ///
    /// # Panics
    /// If a weight is not finite or not above 0, there are more than [`ROWS_MAX`] workers, or fewer than `least`.
    pub fn new(rule: Rule, adversaries: usize, weights: &[f64], least: usize) -> Result<Steady, TooFew> {
        rule.check(least, adversaries)?;
        let workers = weights.len();
        assert!((least..=ROWS_MAX).contains(&workers), "at least {least} and at most {ROWS_MAX} workers");
        assert!(weights.iter().all(|weight| weight.is_finite() && *weight > 0.0), "weights are finite and above 0");
        let equal = weights.iter().all(|weight| *weight == weights[0]);
        let wires = |rows: usize| match rule {
            Rule::Median => network(rows, (rows - 1) / 2..rows - (rows - 1) / 2),
            Rule::TrimmedMean => network(rows, adversaries..rows - adversaries),
            Rule::Bulyan => network(rows - 2 * adversaries, 0..rows - 2 * adversaries),
            _ => Network::new(),
        };
        let networks = (0..=workers).map(|rows| if rows < least { Network::new() } else { wires(rows) }).collect();
        let numbers = |count: usize| Vec::with_capacity(count);
        Ok(Steady {
            rule,
            adversaries,
            weights: weights.to_vec(),
            scales: if equal { Vec::new() } else { weights.iter().map(|weight| (1.0 / weight) as f32).collect() },
            total: if equal { workers as f64 } else { weights.iter().sum() },
            networks,
            tile: columns::tile(workers),
            chosen: Vec::with_capacity(workers),
            shares: Vec::with_capacity(workers),
            room: Room {
                distances: numbers(workers * workers),
                near: Vec::with_capacity(workers * workers),
                alive: Vec::with_capacity(workers),
                order: Vec::with_capacity(workers),
                point: numbers(workers),
                apart: numbers(workers),
                sorted: numbers(workers),
                rows: Vec::with_capacity(workers),
            },
        })
    }

    /// Chooses among the workers `present`, in rising order. `product` says the inner product of two workers' gradients; it is asked only
    /// by rules that [survey](Rule::surveys).
    ///
    /// # Panics
    /// If fewer are present than was said.
    pub fn choose(&mut self, present: impl Iterator<Item = usize>, product: impl Fn(usize, usize) -> f64) {
        let Steady { rule, adversaries: f, .. } = *self;
        self.chosen.clear();
        self.chosen.extend(present);
        self.shares.clear();
        let rows = self.chosen.len();
        if rule.surveys() {
            let scale = |row: usize| if self.scales.is_empty() { 1.0 } else { 1.0 / self.weights[row] };
            self.room.measure(&self.chosen, |i, j| product(i, j) * scale(i) * scale(j));
        }
        match rule {
            Rule::Mean => {}
            Rule::Median | Rule::TrimmedMean | Rule::Signum | Rule::Cyclic => return,
            Rule::Krum => self.room.best(1, rows - f - 2),
            Rule::MultiKrum => self.room.best(rows - f - 2, rows - f - 2),
            Rule::Bulyan => {
                self.room.one_by_one(rows - 2 * f, f);
                self.keep();
                return;
            }
            Rule::GeometricMedian => {
                self.geometric_median();
                return;
            }
        }
        if rule != Rule::Mean {
            self.keep();
        }
        let sum: f64 = self.chosen.iter().map(|row| self.weights[*row]).sum();
        let share = |row: &usize| self.weights[*row] / sum;
        self.room.point.clear();
        self.room.point.extend(self.chosen.iter().map(share));
        self.share();
    }

    /// The rule.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The workers that have a part in the update.
    pub fn chosen(&self) -> &[usize] {
        &self.chosen
    }

    /// The update of a chunk, from every worker's part of it (that of an absent one is not looked at), times `scale`.
    ///
    /// # Panics
    /// If nothing was chosen, a row that was chosen is shorter than `out`, or the rule is signum, whose rows are bits.
    pub fn combine(&mut self, rows: &[&[f32]], scale: f32, out: &mut [f32]) {
        let Steady { rule, adversaries: f, ref chosen, ref shares, ref scales, .. } = *self;
        let (mut picked, mut factors): ([&[f32]; ROWS_MAX], _) = ([&[]; ROWS_MAX], [1f32; ROWS_MAX]);
        for (at, row) in chosen.iter().enumerate() {
            picked[at] = &rows[*row][..out.len()];
        }
        let picked = &picked[..chosen.len()];
        if !shares.is_empty() {
            for (factor, share) in factors.iter_mut().zip(shares) {
                *factor = share * scale;
            }
            match (&factors[..shares.len()], picked) {
                ([1.0], [row]) => out.copy_from_slice(row),
                ([first, others @ ..], _) if others.iter().all(|other| other == first) => {
                    kernels::mean(picked, *first, out);
                }
                (factors, _) => kernels::weighted(picked, factors, out),
            }
            return;
        }
        let scaled = if scales.is_empty() { 0 } else { chosen.len() };
        for (factor, row) in factors[..scaled].iter_mut().zip(chosen) {
            *factor = scales[*row];
        }
        let rows = Scaled { rows: picked, factors: &factors[..scaled] };
        let factor = (self.total * f64::from(scale)) as f32;
        match rule {
            Rule::Median | Rule::TrimmedMean => {
                let cut = if rule == Rule::Median { (picked.len() - 1) / 2 } else { f };
                columns::middle(&mut self.tile, rows, &self.networks[picked.len()], cut, factor, out);
            }
            Rule::Bulyan => {
                // As many were left out of those that were there as are chosen of them too many.
                let network = &self.networks[picked.len() + 2 * f];
                columns::near_the_median(&mut self.tile, rows, network, picked.len() - 2 * f, factor, out);
            }
            _ => unreachable!("the other rules are means, but for those whose rows are no numbers of f32"),
        }
    }

    /// Of those who are there keeps those in `room.rows`.
    fn keep(&mut self) {
        let Steady { chosen, room, .. } = self;
        room.rows.sort_unstable();
        for (at, row) in room.rows.iter().enumerate() {
            // By rising row: what is written was read before.
            chosen[at] = chosen[*row];
        }
        chosen.truncate(room.rows.len());
    }

    /// Makes of `room.point`, which adds up to 1, each row's share of the update.
    fn share(&mut self) {
        let Steady { chosen, shares, room, scales, weights, total, .. } = self;
        let share = |(row, part): (&usize, &f64)| {
            let scale = if scales.is_empty() { 1.0 } else { 1.0 / weights[*row] };
            (part * scale * *total) as f32
        };
        shares.extend(chosen.iter().zip(&room.point).map(share));
    }

    /// Weiszfeld's iteration, in the space of the shares: the next point is `sum w_i x_i`, and its distances to all rows follow from
    /// theirs to each other. It creeps towards a row that is itself the median; so that is looked at first, whenever another row has
    /// come nearest.
    fn geometric_median(&mut self) {
        let Steady { chosen, weights, room, .. } = self;
        let count = chosen.len();
        let finite = |row: &usize| room.distances[row * count + row].is_finite();
        room.rows.clear();
        room.rows.extend((0..count).filter(finite));
        if room.rows.is_empty() {
            room.rows.extend(0..count);
        }
        let weight = |row: &usize| weights[chosen[*row]];
        let sum: f64 = room.rows.iter().map(weight).sum();
        room.point.clear();
        room.point.extend(room.rows.iter().map(|row| weight(row) / sum));
        let mut nearest = usize::MAX;
        for _ in 0..WEISZFELD_TURNS {
            room.measure_to_point(count);
            let by_distance = |a: &usize, b: &usize| room.apart[*a].total_cmp(&room.apart[*b]);
            let now = (0..room.rows.len()).min_by(by_distance).expect("there are rows");
            if std::mem::replace(&mut nearest, now) != now && room.is_the_median(now, count, weight) {
                room.point.fill(0.0);
                room.point[now] = 1.0;
                break;
            }
            room.sorted.clear();
            room.sorted.extend_from_slice(&room.apart);
            room.sorted.sort_unstable_by(f64::total_cmp);
            let least = WEISZFELD_SMOOTH * room.sorted[room.sorted.len() / 2];
            // All rows are equal, or none is finite.
            if least.is_nan() || least <= 0.0 {
                break;
            }
            for (apart, row) in room.apart.iter_mut().zip(&room.rows) {
                *apart = weight(row) / apart.max(least);
            }
            let all: f64 = room.apart.iter().sum();
            let mut moved = 0f64;
            for (point, pull) in room.point.iter_mut().zip(&room.apart) {
                moved = moved.max((pull / all - *point).abs());
                *point = pull / all;
            }
            if moved <= WEISZFELD_STILL {
                break;
            }
        }
        // What has no share is not looked at: a row that is not right may be anything.
        let mut kept = 0;
        for at in 0..room.rows.len() {
            if room.point[at] != 0.0 {
                (room.point[kept], room.rows[kept]) = (room.point[at], room.rows[at]);
                kept += 1;
            }
        }
        room.point.truncate(kept);
        room.rows.truncate(kept);
        self.keep();
        self.share();
    }
}

impl Room {
    /// Squared distances of all pairs of `rows`. Where a row is not finite they are infinite, also that to itself.
    fn measure(&mut self, rows: &[usize], product: impl Fn(usize, usize) -> f64) {
        self.distances.clear();
        for (i, a) in rows.iter().enumerate() {
            let own = product(*a, *a);
            for (j, b) in rows.iter().enumerate() {
                let distance = own + product(*b, *b) - 2.0 * product(*a, *b);
                let distance = if i == j && own.is_finite() { 0.0 } else { distance };
                // Rounding can make less than 0 of two rows that are equal.
                self.distances.push(if distance.is_finite() { distance.max(0.0) } else { f64::INFINITY });
            }
        }
        let count = rows.len();
        self.near.clear();
        for row in 0..count {
            let others = (0..count).filter(|other| *other != row);
            self.near.extend(others.map(|other| (self.distances[row * count + other], other)));
            let from = row * (count - 1);
            self.near[from..].sort_unstable_by(in_order);
        }
        self.alive.clear();
        self.alive.resize(count, true);
    }

    /// The rows that are left, by rising sum of squared distances to the `near` nearest of them.
    fn rank(&mut self, near: usize) {
        let Room { near: sorted, alive, order, .. } = self;
        let others = alive.len() - 1;
        let score = |row: usize| {
            let near = sorted[row * others..][..others].iter().filter(|(_, other)| alive[*other]).take(near);
            near.map(|(distance, _)| distance).sum::<f64>()
        };
        order.clear();
        order.extend((0..alive.len()).filter(|row| alive[*row]).map(|row| (score(row), row)));
        order.sort_unstable_by(in_order);
    }

    /// The `count` best by their `near` nearest.
    fn best(&mut self, count: usize, near: usize) {
        self.rank(near);
        self.rows.clear();
        self.rows.extend(self.order[..count].iter().map(|(_, row)| *row));
    }

    /// `count` rows, each the best of those that are left when `f` lie.
    fn one_by_one(&mut self, count: usize, f: usize) {
        self.rows.clear();
        for taken in 0..count {
            self.rank((self.alive.len() - taken).saturating_sub(f + 2).max(1));
            let best = self.order[0].1;
            self.alive[best] = false;
            self.rows.push(best);
        }
    }

    /// How far `sum w_i x_i` is from each row: `|z - x_k|^2 = sum_i w_i d_ik - 1/2 sum_ij w_i w_j d_ij`.
    fn measure_to_point(&mut self, count: usize) {
        let Room { distances, point, apart, rows, .. } = self;
        let to = |k: &usize| point.iter().zip(&*rows).map(|(w, i)| w * distances[i * count + k]).sum::<f64>();
        apart.clear();
        apart.extend(rows.iter().map(to));
        let half: f64 = 0.5 * point.iter().zip(&*apart).map(|(w, sum)| w * sum).sum::<f64>();
        apart.iter_mut().for_each(|sum| *sum = (*sum - half).max(0.0).sqrt());
    }

    /// Is the row at `k` of `rows` their geometric median? It is, where all others together pull by no more than its own weight (Vardi and
    /// Zhang, "The multivariate L1-median and associated data depth", 2000).
    fn is_the_median(&self, k: usize, count: usize, weight: impl Fn(&usize) -> f64) -> bool {
        let Room { distances, rows, .. } = self;
        let from = |i: &usize| distances[rows[k] * count + i];
        let unit = |i: &usize| if from(i) == 0.0 { 0.0 } else { weight(i) / from(i).sqrt() };
        let own: f64 = rows.iter().filter(|i| from(i) == 0.0).map(&weight).sum();
        // Inner products of the differences to row k, by their distances.
        let product = |i: &usize, j: &usize| 0.5 * (from(i) + from(j) - distances[i * count + j]);
        let pairs = rows.iter().flat_map(|i| rows.iter().map(move |j| (i, j)));
        pairs.map(|(i, j)| unit(i) * unit(j) * product(i, j)).sum::<f64>() <= own * own
    }
}

fn in_order(a: &(f64, usize), b: &(f64, usize)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests;
