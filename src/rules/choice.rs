//! What a rule came to: how the rows of any chunk become its update.

use super::columns::{self, Scaled};
use super::kernels::{self, Network};
use super::sign;

/// How rows are combined.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// The mean of these rows, with weights that add up to 1.
    Mean {
        /// Row and weight, by rising row.
        rows: Vec<(usize, f64)>,
    },
    /// Per coordinate, of all these rows sorted: the mean of the middle ones.
    Middle {
        /// The rows.
        rows: Vec<usize>,
        /// How many are left out at either end.
        cut: usize,
        /// Sorts as many rows.
        network: Network,
    },
    /// Per coordinate, of these rows: the mean of those nearest to their median.
    NearMedian {
        /// The rows.
        rows: Vec<usize>,
        /// How many are nearest.
        keep: usize,
        /// Sorts as many rows.
        network: Network,
    },
    /// Per coordinate: the sign that most have.
    Sign,
}

impl Choice {
    /// The rows that have a part in the update.
    pub fn rows(&self, workers: usize) -> Vec<usize> {
        match self {
            Choice::Mean { rows } => rows.iter().map(|(row, _)| *row).collect(),
            Choice::Middle { rows, .. } | Choice::NearMedian { rows, .. } => rows.clone(),
            Choice::Sign => (0..workers).collect(),
        }
    }

    /// The update of a chunk, from every worker's part of it.
    ///
    /// # Panics
    /// If a row that was chosen is not there, or is shorter than `out`.
    pub fn combine(&self, rows: &[&[f32]], out: &mut [f32]) {
        let pick = |chosen: &[usize]| chosen.iter().map(|row| &rows[*row][..out.len()]).collect::<Vec<_>>();
        match self {
            Choice::Mean { rows: chosen } => {
                let (first, weight) = chosen[0];
                if chosen.len() == 1 && weight == 1.0 {
                    out.copy_from_slice(&rows[first][..out.len()]);
                } else if chosen.iter().all(|(_, other)| *other == weight) {
                    kernels::mean(&pick(&chosen.iter().map(|(row, _)| *row).collect::<Vec<_>>()), weight as f32, out);
                } else {
                    let (chosen, weights): (Vec<_>, Vec<_>) = chosen.iter().map(|(row, w)| (*row, *w as f32)).unzip();
                    kernels::weighted(&pick(&chosen), &weights, out);
                }
            }
            Choice::Middle { rows: chosen, cut, network } => {
                let (mut tile, rows) = (columns::tile(chosen.len()), pick(chosen));
                columns::middle(&mut tile, Scaled { rows: &rows, factors: &[] }, network, *cut, 1.0, out);
            }
            Choice::NearMedian { rows: chosen, keep, network } => {
                let (mut tile, rows) = (columns::tile(chosen.len()), pick(chosen));
                columns::near_the_median(&mut tile, Scaled { rows: &rows, factors: &[] }, network, *keep, 1.0, out);
            }
            Choice::Sign => sign::majority(rows, out),
        }
    }
}
