//! How well a labelmap agrees with another.

use stunet::data::labels::LabelMap;
use stunet::data::metrics::{Class, Contingency};

/// Dice of every label from 1; none where both labelmaps lack it.
pub fn dice(truth: &LabelMap, predicted: &LabelMap, num_labels: usize) -> Vec<Option<f64>> {
    let agreement = Contingency::of(truth.data.view(), predicted.data.view());
    let of = |label: usize| agreement.counts(&Class::Label(label as u16), None).dice();
    (1..=num_labels).map(of).map(|dice| dice.is_finite().then_some(dice)).collect()
}

/// Mean of what there is.
pub fn mean(values: impl IntoIterator<Item = Option<f64>>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for value in values.into_iter().flatten() {
        sum += value;
        count += 1;
    }
    sum / f64::from(count.max(1))
}
