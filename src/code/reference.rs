//! The code written naively in f64 over `ndarray`: the definition that tests compare the rest with. Slow, and obviously right.

use ndarray::Array2;

use super::{Generator, Rows};

/// The chunk `block` as the matrix M, `r_c x width`, zero-padded.
pub fn matrix(block: &[f32], compression: usize) -> Array2<f64> {
    let width = block.len().div_ceil(compression);
    Array2::from_shape_fn((compression, width), |(i, c)| block.get(i * width + c).map_or(0.0, |&x| f64::from(x)))
}

/// All shards of a chunk, `r x width`: `G M`.
pub fn encode(generator: &Generator, block: &[f32]) -> Array2<f64> {
    let (r, c) = (generator.redundancy(), generator.compression());
    Array2::from_shape_fn((r, c), |(j, i)| f64::from(generator.row(j)[i])).dot(&matrix(block, c))
}

/// The word that fits the rows `rows` of `received` (`r x n`) best in least squares, and the distance of these rows from it
/// (Frobenius norm): Householder reflections on `[G_A | R_A]`.
pub fn fit(generator: &Generator, received: &Array2<f64>, rows: Rows) -> (Array2<f64>, f64) {
    let c = generator.compression();
    let order: Vec<usize> = rows.iter().collect();
    let (m, n) = (order.len(), received.ncols());
    let mut a = Array2::from_shape_fn((m, c + n), |(i, k)| match k.checked_sub(c) {
        None => f64::from(generator.row(order[i])[k]),
        Some(k) => received[[order[i], k]],
    });
    for k in 0..c {
        let norm = (k..m).map(|i| a[[i, k]] * a[[i, k]]).sum::<f64>().sqrt();
        let mut v: Vec<f64> = (k..m).map(|i| a[[i, k]]).collect();
        v[0] += norm.copysign(v[0]);
        let square: f64 = v.iter().map(|x| x * x).sum();
        for column in k..c + n {
            let along: f64 = (k..m).map(|i| v[i - k] * a[[i, column]]).sum();
            (k..m).for_each(|i| a[[i, column]] -= 2.0 * along / square * v[i - k]);
        }
    }
    let mut word = Array2::zeros((c, n));
    for column in 0..n {
        for i in (0..c).rev() {
            let known: f64 = (i + 1..c).map(|k| a[[i, k]] * word[[k, column]]).sum();
            word[[i, column]] = (a[[i, c + column]] - known) / a[[i, i]];
        }
    }
    let rest = a.slice(ndarray::s![c.., c..]);
    let residual = rest.iter().map(|x| x * x).sum::<f64>().sqrt();
    (word, residual)
}

/// The largest set of at least `least` present rows within `tolerance` of the code, by looking at every subset; the closest
/// one of its size. None if there is none.
pub fn locate(
    generator: &Generator,
    received: &Array2<f64>,
    present: Rows,
    least: usize,
    tolerance: f64,
) -> Option<Rows> {
    let order: Vec<usize> = present.iter().collect();
    for size in (least.max(generator.compression())..=order.len()).rev() {
        let mut best = (f64::INFINITY, None);
        for bits in (0u64..1 << order.len()).filter(|bits| bits.count_ones() as usize == size) {
            let rows: Rows = Rows::from_bits(bits).iter().map(|i| order[i]).collect();
            let (_, residual) = fit(generator, received, rows);
            if residual <= tolerance && residual < best.0 {
                best = (residual, Some(rows));
            }
        }
        if best.1.is_some() {
            return best.1;
        }
    }
    None
}

/// `|a - b| / |b|` in Frobenius norm; 0 if both are 0.
pub fn relative_error(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    let norm = |x: &Array2<f64>| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&(a - b));
    if difference == 0.0 { 0.0 } else { difference / norm(b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{Family, Form};

    #[test]
    fn a_liar_is_found_by_looking_at_every_subset_and_the_word_recovered() {
        let generator = Generator::new(Family::Trigonometric, Form::Systematic, 7, 3).unwrap();
        let block: Vec<f32> = (0..29).map(|i| (i as f32 * 1.7).sin()).collect();
        let mut received = encode(&generator, &block);
        received.row_mut(2).mapv_inplace(|x| 2.0 - x);
        received.row_mut(5).fill(0.0);
        let rows = locate(&generator, &received, Rows::first(7), 5, 1e-10).unwrap();
        assert_eq!(rows, [0, 1, 3, 4, 6].into_iter().collect());
        let (word, residual) = fit(&generator, &received, rows);
        assert!(residual < 1e-12 && relative_error(&word, &matrix(&block, 3)) < 1e-12);
        assert_eq!(locate(&generator, &received, Rows::first(6), 5, 1e-10), None);
    }
}
