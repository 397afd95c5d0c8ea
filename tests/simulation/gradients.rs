//! The gradients of a scenario, another kind every round, and what their sum should be.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use solon::code::Layout;

use crate::dice::Dice;

/// The honest gradients of one round, one per group.
pub type Round = Rc<Vec<Vec<f32>>>;

/// Makes gradients on demand.
pub struct Gradients {
    seed: u64,
    groups: usize,
    dimension: usize,
    made: RefCell<BTreeMap<u64, Round>>,
}

impl Gradients {
    pub fn new(seed: u64, groups: usize, dimension: usize) -> Gradients {
        Gradients { seed, groups, dimension, made: RefCell::default() }
    }

    /// The honest gradients of `round`.
    pub fn of(&self, round: u64) -> Round {
        let mut made = self.made.borrow_mut();
        while made.len() > 16 {
            made.pop_first();
        }
        made.entry(round).or_insert_with(|| Rc::new(self.make(round))).clone()
    }

    fn make(&self, round: u64) -> Vec<Vec<f32>> {
        let mut dice = Dice::new(self.seed, "gradient", round, 0);
        // As training goes: most rounds ordinary, some of a kind that breaks arithmetic.
        let kind = if dice.chance(0.5) { 0 } else { dice.between(1, 10) };
        // A gradient that did not change since some rounds ago makes replays honest, and the next one a lie.
        let mut groups: Vec<Vec<f32>> = (0..self.groups)
            .map(|group| {
                let mut dice = Dice::new(self.seed, "numbers", round, group as u64);
                let hot = dice.below(self.dimension as u64) as usize;
                (0..self.dimension)
                    .map(|at| {
                        let normal = dice.normal();
                        let x = match kind {
                            1 => normal * f64::from(u8::from(dice.chance(0.05))),
                            2 => 0.0,
                            3 => normal * 1e30,
                            4 => normal * 1e-25,
                            5 => normal * 10f64.powf(12.0 * dice.unit() - 6.0),
                            6 => f64::from(u8::from(at == hot)) * normal,
                            7 => 0.25,
                            8 => normal * 1e-40,
                            9 => normal * if group == 0 { 1e6 } else { 1e-6 },
                            _ => normal,
                        };
                        x as f32
                    })
                    .collect()
            })
            .collect();
        if kind == 10 && self.groups > 1 {
            // Two groups cancel almost.
            let other: Vec<f32> = groups[0].iter().map(|x| -x * (1.0 + 1e-3)).collect();
            groups[1] = other;
        }
        groups
    }
}

/// Euclidean norm.
pub fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// The chunk in which `update` is further from `scale` times the sum of the gradients than `relative` of its groups' norms (and
/// of what is lost where numbers are so small that they may be flushed to 0), and how far.
pub fn inexact(round: &Round, layout: &Layout, scale: f32, relative: f64, update: &[f32]) -> Option<(usize, f64)> {
    (0..layout.chunks()).find_map(|index| {
        let range = layout.chunk(index).range();
        let of = |at: usize| round.iter().map(|group| f64::from(group[at])).sum::<f64>() * f64::from(scale);
        let off = norm(range.clone().map(|at| f64::from(update[at]) - of(at)));
        let size: f64 = round.iter().map(|group| norm(range.clone().map(|at| f64::from(group[at])))).sum();
        let allowed = relative * f64::from(scale) * size + 1e-35 * (range.len() as f64).sqrt();
        // Written so that NaN fails.
        if off <= allowed { None } else { Some((index, off / (f64::from(scale) * size))) }
    })
}
