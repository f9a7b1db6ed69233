//! Parameters of a norm.

/// An instance norm and the activation behind it.
#[derive(Clone, Debug)]
pub struct EightBitNorm {
    /// `[C]`.
    pub weight: Vec<f32>,
    /// `[C]`.
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f64,
    /// Slope of the activation for negative values.
    pub slope: f32,
}
