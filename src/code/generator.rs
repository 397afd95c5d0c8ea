//! The generator matrix: which mixture of slices each worker sends.
//!
//! `G` is `r x r_c`; worker (row) `j` sends `sum_i G[j,i] M[i,:]`. Any `r_c` rows of it are independent (the code is MDS).
//!
//! *Trigonometric* columns are `1, cos t, sin t, cos 2t, ...` for odd `r_c`, or the half-integer frequencies for even `r_c`
//! (whole ones are not MDS there), at `t_j = 2 pi j / r`: a Vandermonde matrix on the roots of unity up to phases, but real.
//! *Polynomial* columns are `1, x, x^2, ...` at `x_j = (j + 1) / r`, the usual reading of the paper; its condition number grows
//! exponentially and it is here for comparison only.
//!
//! The *systematic* form multiplies by the inverse of `r_c` spread rows, so these rows send raw slices: the same code words
//! (hence the same locator and the same blame), recovery by copying when nobody lies, and most workers need not encode.
//!
//! The matrix is rounded to f32 once, and workers and daemon both use the rounded one; the parity matrix is recomputed from
//! it in f64. It is made of IEEE additions, multiplications, divisions and square roots only (no `sin` of a system library),
//! so it has the same bits on all machines; [`Generator::digest`] lets both sides check that.

use ndarray::Array2;

use super::linear::{dot, invert};
use super::rows::{ROWS_MAX, Rows};

/// Which matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Roots of unity, made real: well conditioned. The default.
    Trigonometric,
    /// Powers of real points, as the paper is usually read: for comparison; hopeless from about `r_c = 6` on.
    Polynomial,
}

/// Which basis of the same code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Rows `round(i r / r_c)` are exactly unit vectors. The default.
    Systematic,
    /// Every row mixes every slice.
    Dense,
}

/// Why there is no such generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeneratorError {
    /// `1 <= compression <= redundancy <= 64` does not hold.
    #[error("a generator of {redundancy} rows and {compression} columns: need 1 <= columns <= rows <= {ROWS_MAX}")]
    Size {
        /// r asked for.
        redundancy: usize,
        /// r_c asked for.
        compression: usize,
    },
    /// The matrix is singular in f64, or has an entry beyond f32.
    #[error(
        "the {family:?} generator of {redundancy} rows and {compression} columns is singular in floating point; use the \
         trigonometric one"
    )]
    Singular {
        /// The family asked for.
        family: Family,
        /// r asked for.
        redundancy: usize,
        /// r_c asked for.
        compression: usize,
    },
}

/// The generator `G` (`r x r_c`) of one group's code, with its parity matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Generator {
    family: Family,
    form: Form,
    redundancy: usize,
    compression: usize,
    coefficients: Vec<f32>,
    exact: Vec<f64>,
    raw: Vec<Option<usize>>,
    parity: Array2<f64>,
}

impl Generator {
    /// The generator with `redundancy` rows (r) and `compression` columns (r_c). Deterministic: the same bits everywhere.
    ///
    /// # Errors
    /// If the sizes are impossible, or the matrix is singular in f64 (only the polynomial family at large sizes).
    pub fn new(family: Family, form: Form, redundancy: usize, compression: usize) -> Result<Generator, GeneratorError> {
        if compression == 0 || compression > redundancy || redundancy > ROWS_MAX {
            return Err(GeneratorError::Size { redundancy, compression });
        }
        let singular = GeneratorError::Singular { family, redundancy, compression };
        let dense: Vec<f64> = (0..redundancy)
            .flat_map(|row| (0..compression).map(move |column| entry(family, redundancy, compression, row, column)))
            .collect();
        let mut raw = vec![None; redundancy];
        let wanted = match form {
            Form::Dense => dense,
            Form::Systematic => {
                (0..compression).for_each(|i| raw[spread_row(redundancy, compression, i)] = Some(i));
                systematic(redundancy, compression, &dense, &raw).ok_or(singular)?
            }
        };
        let coefficients: Vec<f32> = wanted.iter().map(|&x| x as f32).collect();
        let exact: Vec<f64> = coefficients.iter().map(|&x| f64::from(x)).collect();
        let parity = complement(redundancy, compression, &exact).ok_or(singular)?;
        Ok(Generator { family, form, redundancy, compression, coefficients, exact, raw, parity })
    }

    /// Which matrix it is.
    pub fn family(&self) -> Family {
        self.family
    }

    /// In which basis it is.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Number of rows, r.
    pub fn redundancy(&self) -> usize {
        self.redundancy
    }

    /// Number of columns, r_c.
    pub fn compression(&self) -> usize {
        self.compression
    }

    /// The `r_c` coefficients of `row`.
    ///
    /// # Panics
    /// If `row >= redundancy`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.coefficients[row * self.compression..][..self.compression]
    }

    /// The same numbers as [`Generator::row`], as f64.
    ///
    /// # Panics
    /// If `row >= redundancy`.
    pub fn row_f64(&self, row: usize) -> &[f64] {
        &self.exact[row * self.compression..][..self.compression]
    }

    /// `Some(i)` if `row` is exactly the i-th unit vector, that is, its worker sends slice `i` as it is.
    ///
    /// # Panics
    /// If `row >= redundancy`.
    pub fn raw_slice(&self, row: usize) -> Option<usize> {
        self.raw[row]
    }

    /// All rows that are unit vectors: `r_c` of them in the systematic form, none in the dense.
    pub fn raw_rows(&self) -> Rows {
        (0..self.redundancy).filter(|&row| self.raw[row].is_some()).collect()
    }

    /// The parity matrix `H`, `r x (r - r_c)`: orthonormal columns with `H^T G = 0` for the rounded `G`.
    pub fn parity(&self) -> &Array2<f64> {
        &self.parity
    }

    /// BLAKE3 of the sizes and of the coefficients' bits in row order, little endian: equal on both sides of a wire iff they
    /// use the same code.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"solon generator 1\0");
        hasher.update(&(self.redundancy as u64).to_le_bytes());
        hasher.update(&(self.compression as u64).to_le_bytes());
        self.coefficients.iter().for_each(|x| {
            hasher.update(&x.to_bits().to_le_bytes());
        });
        *hasher.finalize().as_bytes()
    }
}

/// Row `round(i r / r_c)`, half up: distinct rows, as r >= r_c.
fn spread_row(redundancy: usize, compression: usize, i: usize) -> usize {
    (2 * i * redundancy + compression) / (2 * compression)
}

fn entry(family: Family, r: usize, compression: usize, row: usize, column: usize) -> f64 {
    if family == Family::Polynomial {
        let x = (row + 1) as f64 / r as f64;
        return (0..column).fold(1.0, |power, _| power * x);
    }
    if compression % 2 == 1 && column == 0 {
        return 1.0 / (r as f64).sqrt();
    }
    // Frequencies in halves, as turns of 2r: whole ones (2, 4, ..) when r_c is odd, odd ones (1, 3, ..) when it is even.
    let (twice_frequency, sine) = match compression % 2 {
        1 => (2 * column.div_ceil(2), column.is_multiple_of(2)),
        _ => (2 * (column / 2) + 1, column % 2 == 1),
    };
    let amplitude = (2.0 / r as f64).sqrt();
    let (num, den) = ((twice_frequency * row) as u64, 2 * r as u64);
    amplitude * if sine { cosine_of_turns(4 * num + 3 * den, 4 * den) } else { cosine_of_turns(num, den) }
}

/// `cos(2 pi num / den)` from IEEE operations alone, to about one unit in the last place; zeros and ones are exact.
fn cosine_of_turns(num: u64, den: u64) -> f64 {
    // cos is even with period one turn: to [0, 1/2] turn, then to [0, 1/4] with a sign.
    let folded = num % den;
    let folded = folded.min(den - folded);
    let (sign, folded4) = if 4 * folded > den { (-1.0, 2 * den - 4 * folded) } else { (1.0, 4 * folded) };
    // The angle is folded4/den quarter turns; above half a quarter use the sine of the complement.
    let eighth = 2 * folded4 <= den;
    let quarters = if eighth { folded4 } else { den - folded4 } as f64 / den as f64;
    let x = quarters * std::f64::consts::FRAC_PI_2;
    let (first, start) = if eighth { (1.0, 1) } else { (x, 2) };
    // Taylor, at most pi/4: the term of degree 24 is below 1e-26. Summed from the smallest.
    let mut terms = [0.0; 12];
    let mut term = first;
    for (k, slot) in terms.iter_mut().enumerate() {
        *slot = term;
        let degree = (start + 2 * k) as f64;
        term *= -(x * x) / (degree * (degree + 1.0));
    }
    sign * terms.iter().rev().sum::<f64>()
}

/// `V V_S^-1`, with the rows S exactly unit vectors.
fn systematic(redundancy: usize, compression: usize, dense: &[f64], raw: &[Option<usize>]) -> Option<Vec<f64>> {
    let c = compression;
    let mut square = vec![0.0; c * c];
    for (row, slice) in raw.iter().enumerate() {
        if let Some(i) = slice {
            square[i * c..][..c].copy_from_slice(&dense[row * c..][..c]);
        }
    }
    let mut inverse = vec![0.0; c * c];
    if !invert(c, &mut square, &mut inverse) {
        return None;
    }
    let mut out = vec![0.0; redundancy * c];
    for row in 0..redundancy {
        for i in 0..c {
            out[row * c + i] = match raw[row] {
                Some(slice) => f64::from(u8::from(slice == i)),
                None => (0..c).map(|k| dense[row * c + k] * inverse[k * c + i]).sum(),
            };
        }
    }
    Some(out)
}

/// Orthonormal columns orthogonal to those of the row-major `matrix`; None if it does not have full rank or is not finite.
fn complement(r: usize, c: usize, matrix: &[f64]) -> Option<Array2<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(r);
    for k in 0..c {
        let column: Vec<f64> = (0..r).map(|row| matrix[row * c + k]).collect();
        let size = dot(&column, &column).sqrt();
        basis.push(orthonormalised(&basis, column).filter(|_| size.is_finite())?);
    }
    while basis.len() < r {
        // The unit vector with the most left outside the span: never a nearly dependent one.
        let outside = |row: usize| 1.0 - basis.iter().map(|unit| unit[row] * unit[row]).sum::<f64>();
        let row = (0..r).fold(0, |best, row| if outside(row) > outside(best) { row } else { best });
        let mut unit = vec![0.0; r];
        unit[row] = 1.0;
        basis.push(orthonormalised(&basis, unit)?);
    }
    Some(Array2::from_shape_fn((r, r - c), |(row, k)| basis[c + k][row]))
}

fn orthonormalised(basis: &[Vec<f64>], mut vector: Vec<f64>) -> Option<Vec<f64>> {
    for _pass in 0..3 {
        for unit in basis {
            let along = dot(unit, &vector);
            vector.iter_mut().zip(unit).for_each(|(x, u)| *x -= along * u);
        }
    }
    let norm = dot(&vector, &vector).sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    (norm > 0.0 && norm.is_finite()).then_some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = (usize, usize, usize)> {
        let sizes = [0usize, 1, 2, 3, 5].into_iter().flat_map(|s| [1usize, 2, 4, 10].map(|c| (s, c)));
        sizes.flat_map(|(s, c)| [0usize, 1, 2].map(|e| (s, c, e)))
    }

    #[test]
    fn cosine_is_that_of_the_library_to_one_unit_in_the_last_place() {
        for den in 1..200u64 {
            for num in 0..=den {
                let want = (num as f64 / den as f64 * 2.0 * std::f64::consts::PI).cos();
                assert!((cosine_of_turns(num, den) - want).abs() < 2e-15, "{num}/{den}");
            }
        }
        assert_eq!((cosine_of_turns(1, 4), cosine_of_turns(1, 2), cosine_of_turns(7, 7)), (0.0, -1.0, 1.0));
    }

    #[test]
    fn dense_trigonometric_columns_are_orthonormal() {
        for (s, c, e) in all() {
            let r = c + 2 * s + e;
            let generator = Generator::new(Family::Trigonometric, Form::Dense, r, c).unwrap();
            for a in 0..c {
                for b in 0..c {
                    let product: f64 = (0..r).map(|j| generator.row_f64(j)[a] * generator.row_f64(j)[b]).sum();
                    assert!((product - f64::from(u8::from(a == b))).abs() < 1e-6, "{r} {c}: {a} {b} {product}");
                }
            }
        }
    }

    #[test]
    fn parity_is_orthonormal_and_orthogonal_to_the_rounded_generator() {
        for (s, c, e) in all() {
            for form in [Form::Systematic, Form::Dense] {
                let r = c + 2 * s + e;
                let generator = Generator::new(Family::Trigonometric, form, r, c).unwrap();
                let h = generator.parity();
                assert_eq!(h.dim(), (r, r - c));
                let gram = h.t().dot(h) - Array2::<f64>::eye(r - c);
                assert!(gram.iter().all(|x| x.abs() < 1e-13));
                let v = Array2::from_shape_fn((r, c), |(j, i)| generator.row_f64(j)[i]);
                assert!(h.t().dot(&v).iter().all(|x| x.abs() < 1e-13));
            }
        }
    }

    #[test]
    fn systematic_rows_are_exactly_unit_vectors() {
        for (s, c, e) in all() {
            let generator = Generator::new(Family::Trigonometric, Form::Systematic, c + 2 * s + e, c).unwrap();
            assert_eq!(generator.raw_rows().count(), c);
            for row in generator.raw_rows().iter() {
                let slice = generator.raw_slice(row).unwrap();
                for (i, &x) in generator.row(row).iter().enumerate() {
                    assert_eq!(x.to_bits(), if i == slice { 1f32 } else { 0f32 }.to_bits());
                }
            }
        }
    }

    #[test]
    fn repetition_code_is_all_ones() {
        let generator = Generator::new(Family::Trigonometric, Form::Systematic, 5, 1).unwrap();
        assert!((0..5).all(|row| generator.row(row) == [1.0]));
    }

    #[test]
    fn digest_tells_generators_apart_and_is_stable() {
        let digest = |form, r, c| Generator::new(Family::Trigonometric, form, r, c).unwrap().digest();
        assert_eq!(digest(Form::Systematic, 20, 10), digest(Form::Systematic, 20, 10));
        assert_ne!(digest(Form::Systematic, 20, 10), digest(Form::Dense, 20, 10));
        assert_ne!(digest(Form::Systematic, 3, 1), digest(Form::Systematic, 4, 1));
    }

    #[test]
    fn polynomial_generator_exists_for_comparison_and_impossible_sizes_are_refused() {
        for form in [Form::Systematic, Form::Dense] {
            assert!(Generator::new(Family::Polynomial, form, 20, 10).is_ok());
        }
        for (r, c) in [(0, 0), (3, 0), (3, 4), (65, 2)] {
            let error = Generator::new(Family::Trigonometric, Form::Dense, r, c).unwrap_err();
            assert_eq!(error, GeneratorError::Size { redundancy: r, compression: c });
        }
    }
}
