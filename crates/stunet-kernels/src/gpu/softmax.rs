//! What a softmax is made of, value by value: the largest, and the sum of exponentials below it.

use cubecl::prelude::*;

/// Below and above every finite value.
pub(super) const LOWEST: f32 = f32::MIN;
pub(super) const HIGHEST: f32 = f32::MAX;

/// The largest value and the sum of exponentials below it, with one value more; no number where the value is
/// none, or plus infinity.
#[cube]
pub(super) fn with_value(largest: f32, total: f32, value: f32) -> (f32, f32) {
    let mut most = largest;
    let mut sum = total;
    if value > most {
        sum *= (most - value).exp();
        most = value;
    }
    sum += (value - most).exp();
    (most, sum)
}

/// The softmax of a value, of the largest and the inverse of the sum.
#[cube]
pub(super) fn probability(value: f32, largest: f32, inverse: f32) -> f32 {
    (value - largest).exp() * inverse
}
