//! What liars know of the others, and what follows from it.

/// What a liar knows when it makes up its gradient.
#[derive(Clone, Copy, Debug)]
pub enum Knowledge<'a> {
    /// Its own honest gradient of this round, and of earlier ones.
    Own,
    /// All honest gradients of the round, each of the length of its own: of workers that do not lie in it, or under a code those of all
    /// groups.
    All(&'a [&'a [f32]]),
}

impl<'a> Knowledge<'a> {
    /// All honest gradients, if the liar knows them.
    ///
    /// # Panics
    /// If there is none, or one of another length.
    pub(super) fn all(self, dimension: usize) -> Option<&'a [&'a [f32]]> {
        let Knowledge::All(honest) = self else { return None };
        assert!(!honest.is_empty(), "who knows all honest gradients knows at least one");
        assert!(honest.iter().all(|one| one.len() == dimension), "gradients of one job have one length");
        Some(honest)
    }
}

/// Mean and standard deviation of element `index` over gradients.
pub(super) fn moments(honest: &[&[f32]], index: usize) -> (f32, f32) {
    let count = honest.len() as f64;
    let mean = honest.iter().map(|one| f64::from(one[index])).sum::<f64>() / count;
    let variance = honest.iter().map(|one| (f64::from(one[index]) - mean).powi(2)).sum::<f64>() / count;
    (mean as f32, variance.sqrt() as f32)
}

/// The value of element `index` that is farthest against the sign of its mean.
pub(super) fn opposite(honest: &[&[f32]], index: usize) -> f32 {
    let values = honest.iter().map(|one| one[index]);
    let rises = values.clone().map(f64::from).sum::<f64>() > 0.0;
    values.fold(if rises { f32::INFINITY } else { f32::NEG_INFINITY }, if rises { f32::min } else { f32::max })
}

/// The z of `alie` (arXiv 1902.06156, algorithm 3): with `s = floor(n / 2 + 1) - m` honest workers farther from the mean than the lie,
/// the `m` liars among `n` workers have the majority, so z is the normal quantile of `(n - m - s) / (n - m)`. `None` if the liars are the
/// majority: then any z will do.
pub(super) fn alie_deviations(workers: usize, liars: usize) -> Option<f32> {
    let needed = (workers / 2 + 1).checked_sub(liars).filter(|needed| *needed > 0)?;
    let honest = workers.checked_sub(liars)?;
    Some(normal_quantile((honest - needed.min(honest)) as f64 / honest as f64).max(0.0) as f32)
}

/// The largest gamma for which `mean - gamma * deviation` is no farther from any honest gradient than the farthest two of these are from
/// each other (NDSS 2021, "Manipulating the Byzantine", min-max, perturbation by the deviation). 0 if all are equal.
pub(super) fn min_max_gamma(honest: &[&[f32]]) -> f32 {
    let mut widest = 0f64;
    for (index, one) in honest.iter().enumerate() {
        for other in &honest[..index] {
            let apart = one.iter().zip(*other).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
            widest = widest.max(apart);
        }
    }
    // The distance to gradient i is a parabola in gamma: along * gamma^2 + 2 * cross[i] * gamma + from[i].
    let (mut along, mut cross, mut from) = (0f64, vec![0f64; honest.len()], vec![0f64; honest.len()]);
    for index in 0..honest[0].len() {
        let (mean, deviation) = moments(honest, index);
        let deviation = f64::from(deviation);
        along += deviation * deviation;
        for ((one, cross), from) in honest.iter().zip(&mut cross).zip(&mut from) {
            let apart = f64::from(one[index]) - f64::from(mean);
            *cross += deviation * apart;
            *from += apart * apart;
        }
    }
    if along == 0.0 {
        return 0.0;
    }
    let root =
        |(cross, from): (&f64, &f64)| ((cross * cross + along * (widest - from).max(0.0)).sqrt() - cross) / along;
    cross.iter().zip(&from).map(root).fold(f64::INFINITY, f64::min) as f32
}

/// The number below which a standard normal number falls with probability `part`, to 1e-9 for all that is not within 1e-12 of 0 or 1.
fn normal_quantile(part: f64) -> f64 {
    let (mut low, mut high) = (-7.0f64, 7.0f64);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        (low, high) = if normal_below(middle) < part { (middle, high) } else { (low, middle) };
    }
    0.5 * (low + high)
}

/// The probability of a standard normal number below `z`: the series of Marsaglia (J. Stat. Software 11(4), 2004).
fn normal_below(z: f64) -> f64 {
    let (mut sum, mut term) = (z, z);
    for odd in (3..400).step_by(2) {
        term *= z * z / f64::from(odd);
        sum += term;
    }
    0.5 + sum * (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_quantile_is_that_of_tables() {
        for (part, z) in
            [(0.5, 0.0), (0.841_344_746, 1.0), (0.933_192_799, 1.5), (0.975, 1.959_963_985), (0.001, -3.090_232_306)]
        {
            assert!((normal_quantile(part) - z).abs() < 1e-6, "{part}: {}", normal_quantile(part));
        }
    }

    #[test]
    fn the_deviations_of_alie_grow_with_the_liars() {
        // By hand: n = 50, m = 12: s = 14, so the quantile of 24 / 38; n = 15, m = 3: s = 5, of 7 / 12.
        let z = |workers, liars| alie_deviations(workers, liars).unwrap();
        assert!((z(50, 12) - 0.335_9).abs() < 1e-3 && (z(15, 3) - 0.210_4).abs() < 1e-3, "{} {}", z(50, 12), z(15, 3));
        assert!((1..7).all(|liars| z(15, liars) < z(15, liars + 1)));
        assert!((0..40).all(|liars| alie_deviations(15, liars).is_some() == (liars < 8)));
        assert_eq!([z(1, 0), z(2, 1)], [0.0, 0.0], "nobody is left to be farther away");
    }

    fn farthest(lie: &[f64], honest: &[Vec<f32>]) -> f64 {
        let apart = |one: &Vec<f32>| lie.iter().zip(one).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum::<f64>();
        honest.iter().map(apart).fold(0.0, f64::max)
    }

    proptest! {
        #[test]
        fn the_gamma_of_min_max_is_the_one_that_bisection_finds(
            honest in prop::collection::vec(prop::collection::vec(-10f32..10.0, 6), 2..8)
        ) {
            let rows: Vec<&[f32]> = honest.iter().map(Vec::as_slice).collect();
            let lie = |gamma: f64| -> Vec<f64> {
                let at = |index| moments(&rows, index);
                (0..6).map(at).map(|(mean, deviation)| f64::from(mean) - gamma * f64::from(deviation)).collect()
            };
            let wide = |one: &Vec<f32>| farthest(&one.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), &honest);
            let widest = honest.iter().map(wide).fold(0.0, f64::max);
            let (mut low, mut high) = (0.0, 1e3);
            for _ in 0..80 {
                let middle = 0.5 * (low + high);
                if farthest(&lie(middle), &honest) <= widest { low = middle } else { high = middle }
            }
            let gamma = f64::from(min_max_gamma(&rows));
            prop_assert!((gamma - low).abs() < 1e-4 * (1.0 + low), "{gamma} {low}");
        }

        #[test]
        fn the_opposite_value_is_honest_somewhere_and_never_farther_along_the_mean(
            column in prop::collection::vec(-10f32..10.0, 1..9)
        ) {
            let rows: Vec<&[f32]> = column.chunks(1).collect();
            let (mean, value) = (column.iter().sum::<f32>(), opposite(&rows, 0));
            prop_assert!(column.contains(&value));
            prop_assume!(mean.abs() > 1e-3);
            prop_assert!(column.iter().all(|other| (other - value) * mean >= 0.0));
        }
    }

    #[test]
    fn equal_gradients_leave_no_room() {
        assert_eq!(min_max_gamma(&[&[1.0, 2.0], &[1.0, 2.0]]), 0.0);
        assert_eq!(min_max_gamma(&[&[1.0, 2.0]]), 0.0);
    }
}
