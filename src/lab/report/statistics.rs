//! Means over seeds, and how sure they are.
//!
//! Ratios are compared as logarithms, paired by seed: runs with the same seed have the same weights and batches, so what is common to
//! them cancels. The interval is Student's, of 95 %.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean over seeds, and between what it lies with a confidence of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    /// The mean; of ratios the geometric one.
    pub mean: f64,
    /// From and to; nothing with a single seed.
    pub interval: Option<[f64; 2]>,
    /// Of how many seeds.
    pub count: usize,
}

/// The mean, if there is something.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation of what `values` are a sample of, if there are two.
pub(super) fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    Some((values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt())
}

/// The mean with Student's interval, if there is something.
pub(super) fn estimate(values: &[f64]) -> Option<Estimate> {
    let (mean, count) = (mean(values)?, values.len());
    let interval = deviation(values).map(|deviation| {
        let student = StudentsT::new(0.0, 1.0, (count - 1) as f64).expect("there are two values");
        let half = student.inverse_cdf(0.975) * deviation / (count as f64).sqrt();
        [mean - half, mean + half]
    });
    Some(Estimate { mean, interval, count })
}

/// The geometric mean of ratios above 0 with its interval, if there is something.
pub(super) fn ratio(ratios: &[f64]) -> Option<Estimate> {
    let logarithms: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
    let Estimate { mean, interval, count } = estimate(&logarithms)?;
    Some(Estimate { mean: mean.exp(), interval: interval.map(|ends| ends.map(f64::exp)), count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_intervals_are_those_of_the_textbook() {
        // Mean 3, deviation sqrt(2.5), t(4; 0.975) = 2.776445.
        let found = estimate(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let half = 2.776_445 * 2.5f64.sqrt() / 5f64.sqrt();
        let [low, high] = found.interval.unwrap();
        assert_eq!((found.mean, found.count), (3.0, 5));
        assert!((low - (3.0 - half)).abs() < 1e-5 && (high - (3.0 + half)).abs() < 1e-5, "{found:?}");
        // t(1; 0.975) = 12.7062.
        let [low, _] = estimate(&[0.0, 2.0]).unwrap().interval.unwrap();
        assert!((low - (1.0 - 12.7062)).abs() < 1e-3, "{low}");
    }

    #[test]
    fn a_single_seed_has_no_interval_and_none_no_mean() {
        assert_eq!(estimate(&[7.0]), Some(Estimate { mean: 7.0, interval: None, count: 1 }));
        assert_eq!((estimate(&[]), deviation(&[1.0]), mean(&[])), (None, None, None));
    }

    #[test]
    fn ratios_are_averaged_as_logarithms() {
        let found = ratio(&[2.0, 8.0]).unwrap();
        assert!((found.mean - 4.0).abs() < 1e-12);
        let [low, high] = found.interval.unwrap();
        assert!((low * high - 16.0).abs() < 1e-9, "symmetric about 4 as a factor");
        let same = ratio(&[3.0; 4]).unwrap();
        let [low, high] = same.interval.unwrap();
        assert!((low - 3.0).abs() < 1e-12 && (high - 3.0).abs() < 1e-12, "{same:?}");
    }
}
