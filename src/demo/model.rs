//! A two-layer perceptron, inputs -> hidden (relu, or tanh) -> classes (softmax, cross-entropy), small enough to read.
//!
//! All parameters are one flat vector, so that a gradient is one too:
//!
//! ```text
//! | inputs x hidden weights | hidden biases | hidden x classes weights | classes biases |
//! ```
//!
//! The code needs the workers of a group to send parts of the *same* gradient. Every sum here is taken in one fixed
//! order, so replicas of one build on one kind of machine agree to the bit; between machines `exp` may differ by
//! rounding, which the decoder's tolerance is for. Weights are stored input by input: the inner loops run along a row,
//! which the compiler makes vectors of without reordering a sum, and pixels that are 0 are skipped.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use serde::{Deserialize, Serialize};

use super::Dataset;

/// What a hidden unit makes of its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Nothing below zero, the same above. Rounding can move an input across zero, and then a gradient by more than rounding.
    #[default]
    Relu,
    /// The hyperbolic tangent: a small change stays small.
    Tanh,
}

impl Activation {
    fn of(self, unit: &mut f32) {
        match self {
            // Not f32::max, which would turn NaN into 0 and hide it.
            Activation::Relu if *unit < 0.0 => *unit = 0.0,
            Activation::Relu => {}
            Activation::Tanh => *unit = unit.tanh(),
        }
    }

    /// Its slope where it came to `value`.
    fn slope(self, value: f32) -> f32 {
        match self {
            Activation::Relu => f32::from(u8::from(value > 0.0)),
            Activation::Tanh => 1.0 - value * value,
        }
    }
}

/// The sizes of a perceptron.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Numbers per sample.
    pub inputs: usize,
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Number of labels.
    pub classes: usize,
}

impl Shape {
    /// The shape that learns `data` with `hidden` hidden units.
    pub fn of(data: &Dataset, hidden: usize) -> Shape {
        Shape { inputs: data.inputs(), hidden, classes: data.classes() }
    }

    /// Number of parameters, the `d` of the gradient.
    pub fn dimension(&self) -> usize {
        (self.inputs + 1) * self.hidden + (self.hidden + 1) * self.classes
    }

    /// Cuts a flat vector into the two layers' weights and biases.
    fn cut<'a>(&self, flat: &'a [f32]) -> Layers<&'a [f32]> {
        let (first, rest) = flat.split_at(self.inputs * self.hidden);
        let (first_bias, rest) = rest.split_at(self.hidden);
        let (second, second_bias) = rest.split_at(self.hidden * self.classes);
        Layers { first, first_bias, second, second_bias }
    }

    fn cut_mut<'a>(&self, flat: &'a mut [f32]) -> Layers<&'a mut [f32]> {
        let (first, rest) = flat.split_at_mut(self.inputs * self.hidden);
        let (first_bias, rest) = rest.split_at_mut(self.hidden);
        let (second, second_bias) = rest.split_at_mut(self.hidden * self.classes);
        Layers { first, first_bias, second, second_bias }
    }
}

struct Layers<T> {
    first: T,
    first_bias: T,
    second: T,
    second_bias: T,
}

/// A perceptron and the momentum it moves with.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    shape: Shape,
    parameters: Vec<f32>,
    velocity: Vec<f32>,
    momentum: f32,
    activation: Activation,
}

/// How well a model does on a data set. Neither need be finite once liars have had their way with the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Part of the samples whose label comes out first, `0..=1`.
    pub accuracy: f64,
    /// Cross-entropy per sample, in nats.
    pub loss: f64,
}

impl Model {
    /// A model with weights drawn from `seed` (uniform, variance 2 / fan-in after He et al., arXiv 1502.01852), biases 0;
    /// `momentum` is the part of the last step that is repeated in the next, 0 for none.
    pub fn new(shape: Shape, momentum: f32, seed: u64) -> Model {
        let mut parameters = vec![0.0; shape.dimension()];
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let layers = shape.cut_mut(&mut parameters);
        for (weights, fan_in) in [(layers.first, shape.inputs), (layers.second, shape.hidden)] {
            let limit = (6.0 / fan_in as f32).sqrt();
            weights.iter_mut().for_each(|weight| *weight = limit * (random.next_u32() as f32 / 2f32.powi(31) - 1.0));
        }
        Model { shape, velocity: vec![0.0; parameters.len()], parameters, momentum, activation: Activation::Relu }
    }

    /// The same model with other hidden units.
    pub fn with(self, activation: Activation) -> Model {
        Model { activation, ..self }
    }

    /// A model with these weights and biases, at rest.
    ///
    /// # Panics
    /// If they are not `dimension` many.
    pub fn with_parameters(shape: Shape, parameters: Vec<f32>) -> Model {
        assert_eq!(parameters.len(), shape.dimension(), "a model of this shape has another number of parameters");
        let velocity = vec![0.0; parameters.len()];
        Model { shape, velocity, parameters, momentum: 0.0, activation: Activation::Relu }
    }

    /// The sizes of the model.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// All weights and biases, in the order the module describes.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// Writes to `out` the SUM over `samples` of the gradients of their losses, the same bits every time.
    ///
    /// # Panics
    /// If `out` is not `dimension` long, `data` has another shape, or a sample is not in `data`.
    pub fn gradient_sum(&self, data: &Dataset, samples: &[u32], out: &mut [f32]) {
        assert_eq!(out.len(), self.shape.dimension(), "the gradient has another length than the parameters");
        out.fill(0.0);
        let weights = self.shape.cut(&self.parameters);
        let gradient = self.shape.cut_mut(out);
        let mut pass = Pass::new(self.shape, self.activation);
        for &sample in samples {
            let sample = sample as usize;
            pass.forward(&weights, data, sample);
            pass.softmax();
            pass.output[data.label(sample)] -= 1.0;
            add(gradient.second_bias, 1.0, &pass.output);
            let rows = gradient.second.chunks_exact_mut(self.shape.classes);
            let rows = rows.zip(weights.second.chunks_exact(self.shape.classes));
            for ((row, weights), unit) in rows.zip(&mut pass.hidden) {
                let error: f32 = weights.iter().zip(&pass.output).map(|(weight, error)| weight * error).sum();
                add(row, *unit, &pass.output);
                *unit = match self.activation.slope(*unit) {
                    0.0 => 0.0,
                    slope => slope * error,
                };
            }
            add(gradient.first_bias, 1.0, &pass.hidden);
            for (row, value) in gradient.first.chunks_exact_mut(self.shape.hidden).zip(data.features(sample)) {
                if value != 0.0 {
                    add(row, value, &pass.hidden);
                }
            }
        }
    }

    /// How well the model does on `data`.
    pub fn score(&self, data: &Dataset) -> Score {
        let weights = self.shape.cut(&self.parameters);
        let mut pass = Pass::new(self.shape, self.activation);
        let (mut right, mut loss) = (0usize, 0f64);
        for sample in 0..data.len() {
            pass.forward(&weights, data, sample);
            pass.softmax();
            let label = data.label(sample);
            let own = pass.output[label];
            // Written so that a NaN anywhere is a miss.
            right += usize::from((0..self.shape.classes).all(|class| class == label || own > pass.output[class]));
            // `clamp` keeps NaN, which `max` would lose.
            loss -= f64::from(own.clamp(f32::MIN_POSITIVE, 1.0)).ln();
        }
        Score { accuracy: right as f64 / data.len() as f64, loss: loss / data.len() as f64 }
    }

    /// Moves the parameters by `-rate` times `update` (the mean gradient), with momentum.
    ///
    /// # Panics
    /// If `update` is not `dimension` long.
    pub fn apply(&mut self, update: &[f32], rate: f32) {
        assert_eq!(update.len(), self.parameters.len(), "the update has another length than the parameters");
        let state = self.parameters.iter_mut().zip(&mut self.velocity);
        for ((parameter, velocity), update) in state.zip(update) {
            *velocity = self.momentum * *velocity + update;
            *parameter -= rate * *velocity;
        }
    }
}

/// `|a - b| / |b|` in the Euclidean norm; not finite if either is not.
///
/// # Panics
/// If the lengths differ.
pub fn relative_difference(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of different lengths are not compared");
    let square = |value: f64| value * value;
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    (difference / b.iter().map(|&b| square(f64::from(b))).sum::<f64>()).sqrt()
}

/// What one sample leaves in the layers.
struct Pass {
    activation: Activation,
    hidden: Vec<f32>,
    output: Vec<f32>,
}

impl Pass {
    fn new(shape: Shape, activation: Activation) -> Pass {
        Pass { activation, hidden: vec![0.0; shape.hidden], output: vec![0.0; shape.classes] }
    }

    /// Fills the hidden units (after their activation) and the output (before softmax).
    fn forward(&mut self, weights: &Layers<&[f32]>, data: &Dataset, sample: usize) {
        self.hidden.copy_from_slice(weights.first_bias);
        for (row, value) in weights.first.chunks_exact(self.hidden.len()).zip(data.features(sample)) {
            if value != 0.0 {
                add(&mut self.hidden, value, row);
            }
        }
        self.hidden.iter_mut().for_each(|unit| self.activation.of(unit));
        self.output.copy_from_slice(weights.second_bias);
        for (row, &unit) in weights.second.chunks_exact(self.output.len()).zip(&self.hidden) {
            add(&mut self.output, unit, row);
        }
    }

    fn softmax(&mut self) {
        let largest = self.output.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        self.output.iter_mut().for_each(|value| *value = (*value - largest).exp());
        let sum: f32 = self.output.iter().sum();
        self.output.iter_mut().for_each(|value| *value /= sum);
    }
}

/// `to += factor * from`.
fn add(to: &mut [f32], factor: f32, from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

#[cfg(test)]
mod tests {
    use super::super::{DIGITS, Sampler, Split};
    use super::*;

    fn digits() -> (Split, Model) {
        let split = Split::digits();
        let model = Model::new(Shape::of(&split.train, DIGITS.hidden), DIGITS.momentum, 1);
        (split, model)
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        for activation in [Activation::Relu, Activation::Tanh] {
            agrees_with_finite_differences(activation);
        }
    }

    fn agrees_with_finite_differences(activation: Activation) {
        let data = Dataset::new(vec![0, 3, 9, 16, 5, 0, 7, 1], vec![0, 2], 3, 16);
        let mut model = Model::new(Shape::of(&data, 5), 0.0, 4).with(activation);
        let mut gradient = vec![0.0; model.shape().dimension()];
        model.gradient_sum(&data, &[0, 1], &mut gradient);
        let step = 1e-2;
        for (index, &exact) in gradient.iter().enumerate() {
            let mut loss = |move_by: f32| {
                model.parameters[index] += move_by;
                let loss = model.score(&data).loss * data.len() as f64;
                model.parameters[index] -= move_by;
                loss
            };
            let estimate = (loss(step) - loss(-step)) / (2.0 * f64::from(step));
            assert!((estimate - f64::from(exact)).abs() < 2e-3, "parameter {index}: {estimate} against {exact}");
        }
    }

    #[test]
    fn gradient_of_a_batch_is_the_sum_over_its_parts_and_always_the_same_bits() {
        let (split, model) = digits();
        let mut sampler = Sampler::new(split.train.len(), 120, 1).unwrap();
        let mut of = |part, parts| {
            let mut gradient = vec![0.0; model.shape().dimension()];
            model.gradient_sum(&split.train, sampler.part(0, part, parts), &mut gradient);
            gradient
        };
        let whole = of(0, 1);
        assert_eq!(whole, of(0, 1));
        let mut sum = vec![0.0; whole.len()];
        (0..12).for_each(|part| add(&mut sum, 1.0, &of(part, 12)));
        assert!(relative_difference(&sum, &whole) < 1e-6);
    }

    #[test]
    fn default_settings_learn_the_digits_whatever_the_seed() {
        let split = Split::digits();
        let shape = Shape::of(&split.train, DIGITS.hidden);
        let mut gradient = vec![0.0; shape.dimension()];
        for seed in 1..=5 {
            let mut model = Model::new(shape, DIGITS.momentum, seed);
            let mut sampler = Sampler::new(split.train.len(), DIGITS.batch, seed).unwrap();
            for step in 0..DIGITS.steps {
                model.gradient_sum(&split.train, sampler.part(step, 0, 1), &mut gradient);
                gradient.iter_mut().for_each(|value| *value /= DIGITS.batch as f32);
                model.apply(&gradient, DIGITS.rate);
            }
            let score = model.score(&split.test);
            assert!(score.accuracy >= 0.95 && score.loss < 0.3, "seed {seed}: {score:?}");
        }
    }

    #[test]
    fn a_model_with_nan_in_it_gets_everything_wrong_and_says_so() {
        let (split, mut model) = digits();
        let update = vec![f32::NAN; model.shape().dimension()];
        model.apply(&update, 0.1);
        let score = model.score(&split.test);
        assert_eq!(score.accuracy, 0.0);
        assert!(score.loss.is_nan());
        assert!(relative_difference(&update, model.parameters()).is_nan());
    }

    #[test]
    fn momentum_repeats_part_of_the_last_step() {
        let mut model = Model::new(Shape { inputs: 1, hidden: 1, classes: 2 }, 0.5, 1);
        let before = model.parameters()[0];
        model.apply(&[1.0; 6], 0.1);
        model.apply(&[0.0; 6], 0.1);
        assert!((model.parameters()[0] - (before - 0.15)).abs() < 1e-6);
    }
}
