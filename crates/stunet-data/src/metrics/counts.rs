//! Counting agreement, and the scores that follow from the counts.

use super::Class;
use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// How many voxels have which label in the reference and which in the prediction.
///
/// One pass over the voxels, whatever the number of classes: all counts follow from it.
///
/// ```
/// use ndarray::arr3;
/// use stunet_data::metrics::{Class, Contingency};
/// let reference = arr3(&[[[0u16, 1, 1, 2]]]);
/// let prediction = arr3(&[[[0u16, 1, 2, 2]]]);
/// let agreement = Contingency::of(reference.view(), prediction.view());
/// assert_eq!(agreement.counts(&Class::Label(1), None).dice(), 2.0 / 3.0);
/// assert_eq!(agreement.counts(&Class::Region(vec![1, 2]), None).dice(), 1.0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contingency {
    pairs: BTreeMap<(u16, u16), u64>,
}

impl Contingency {
    /// Counts the pairs of labels.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn of(reference: ArrayView3<'_, u16>, prediction: ArrayView3<'_, u16>) -> Self {
        assert_eq!(reference.shape(), prediction.shape(), "labelmaps of different shape");
        let planes = reference.axis_iter(Axis(0)).into_par_iter();
        let pairs = planes
            .zip(prediction.axis_iter(Axis(0)).into_par_iter())
            .fold(HashMap::new, |mut pairs, (reference, prediction)| {
                // Neighbours mostly agree: runs are counted, not voxels.
                let mut run = (0, 0);
                let mut length = 0u64;
                for here in reference.iter().copied().zip(prediction.iter().copied()) {
                    if here != run && length > 0 {
                        *pairs.entry(run).or_insert(0) += length;
                        length = 0;
                    }
                    run = here;
                    length += 1;
                }
                if length > 0 {
                    *pairs.entry(run).or_insert(0) += length;
                }
                pairs
            })
            .reduce(HashMap::new, |mut all: HashMap<(u16, u16), u64>, part| {
                for (pair, count) in part {
                    *all.entry(pair).or_insert(0) += count;
                }
                all
            });
        Self { pairs: pairs.into_iter().collect() }
    }

    /// Counts of one class; voxels whose reference is `ignore` are left out.
    pub fn counts(&self, class: &Class, ignore: Option<u16>) -> Counts {
        let mut counts = Counts::default();
        let kept = self.pairs.iter().filter(|((reference, _), _)| Some(*reference) != ignore);
        for ((reference, prediction), count) in kept {
            let cell = match (class.holds(*reference), class.holds(*prediction)) {
                (true, true) => &mut counts.true_positives,
                (false, true) => &mut counts.false_positives,
                (true, false) => &mut counts.false_negatives,
                (false, false) => &mut counts.true_negatives,
            };
            *cell += count;
        }
        counts
    }

    /// The values that occur, in the reference or in the prediction, ascending.
    pub fn values(&self) -> Vec<u16> {
        let mut values: Vec<u16> = self.pairs.keys().flat_map(|(r, p)| [*r, *p]).collect();
        values.sort_unstable();
        values.dedup();
        values
    }
}

/// Voxels of one class: where reference and prediction say yes or no to it.
///
/// # Source
/// The scores are nnU-Net's, in its formulas (`metrics.py` of 1.7, `evaluate_predictions.py` of 2):
/// NaN where there is nothing to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Both say yes.
    pub true_positives: u64,
    /// Only the prediction does.
    pub false_positives: u64,
    /// Only the reference does.
    pub false_negatives: u64,
    /// Neither does.
    pub true_negatives: u64,
}

impl Counts {
    /// `2 tp / (2 tp + fp + fn)`; NaN when neither has a voxel of the class.
    pub fn dice(&self) -> f64 {
        let twice = 2 * self.true_positives;
        ratio(twice, twice + self.false_positives + self.false_negatives)
    }

    /// Intersection over union, `tp / (tp + fp + fn)`; NaN when neither has a voxel of the class.
    pub fn iou(&self) -> f64 {
        let union = self.true_positives + self.false_positives + self.false_negatives;
        ratio(self.true_positives, union)
    }

    /// `tp / (tp + fp)`; NaN when the prediction has none.
    pub fn precision(&self) -> f64 {
        ratio(self.true_positives, self.num_predicted())
    }

    /// `tp / (tp + fn)`; NaN when the reference has none.
    pub fn recall(&self) -> f64 {
        ratio(self.true_positives, self.num_reference())
    }

    /// `(tp + tn) / all`.
    pub fn accuracy(&self) -> f64 {
        ratio(self.true_positives + self.true_negatives, self.num_voxels())
    }

    /// `tn / (tn + fp)`; NaN when the reference has nothing else.
    pub fn true_negative_rate(&self) -> f64 {
        ratio(self.true_negatives, self.true_negatives + self.false_positives)
    }

    /// `1 - ` [`Counts::true_negative_rate`].
    pub fn false_positive_rate(&self) -> f64 {
        1.0 - self.true_negative_rate()
    }

    /// `1 - ` [`Counts::recall`].
    pub fn false_negative_rate(&self) -> f64 {
        1.0 - self.recall()
    }

    /// `1 - ` [`Counts::precision`].
    pub fn false_discovery_rate(&self) -> f64 {
        1.0 - self.precision()
    }

    /// `fn / (fn + tn)`; NaN when the prediction has nothing else.
    pub fn false_omission_rate(&self) -> f64 {
        ratio(self.false_negatives, self.false_negatives + self.true_negatives)
    }

    /// `1 - ` [`Counts::false_omission_rate`].
    pub fn negative_predictive_value(&self) -> f64 {
        1.0 - self.false_omission_rate()
    }

    /// Voxels of the class in the prediction.
    pub fn num_predicted(&self) -> u64 {
        self.true_positives + self.false_positives
    }

    /// Voxels of the class in the reference.
    pub fn num_reference(&self) -> u64 {
        self.true_positives + self.false_negatives
    }

    /// All voxels that count.
    pub fn num_voxels(&self) -> u64 {
        self.num_predicted() + self.false_negatives + self.true_negatives
    }
}

/// 0 of 0 is NaN.
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
