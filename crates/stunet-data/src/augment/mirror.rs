//! Mirroring.

use ndarray::{Array, Array3, Array4, Axis, Dimension};
use rand::{Rng, RngExt};

/// Mirrors each axis by chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirror {
    /// How often each axis, `[z, y, x]`; 0 for an axis that must stay.
    pub probabilities: [f64; 3],
}

impl Mirror {
    /// Draws the axes.
    pub fn sample(&self, rng: &mut impl Rng) -> [bool; 3] {
        self.probabilities.map(|p| rng.random_bool(p))
    }
}

/// Mirrors an image along axes `[z, y, x]`.
pub fn mirror_image(image: Array4<f32>, axes: [bool; 3]) -> Array4<f32> {
    mirror(image, axes)
}

/// Mirrors labels.
pub fn mirror_labels(labels: Array3<i16>, axes: [bool; 3]) -> Array3<i16> {
    mirror(labels, axes)
}

fn mirror<T: Copy, D: Dimension>(mut array: Array<T, D>, axes: [bool; 3]) -> Array<T, D> {
    let first = array.ndim() - 3;
    for (axis, _) in axes.iter().enumerate().filter(|(_, mirrored)| **mirrored) {
        array.invert_axis(Axis(first + axis));
    }
    if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() }
}
