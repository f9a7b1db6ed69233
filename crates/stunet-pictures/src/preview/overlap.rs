//! Agreement of labels with their truth.

use super::survey::LabelView;
use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;
use std::collections::BTreeMap;
use stunet_data::metrics::Counts;

/// Dice of every label of either but the background.
pub(super) fn dice_by_label(labels: LabelView<'_>, truth: LabelView<'_>) -> BTreeMap<u16, f64> {
    use LabelView::{Bytes, Words};
    let counts = match (labels, truth) {
        (Bytes(a), Bytes(b)) => count(a, b),
        (Bytes(a), Words(b)) => count(a, b),
        (Words(a), Bytes(b)) => count(a, b),
        (Words(a), Words(b)) => count(a, b),
    };
    counts.into_iter().map(|(value, counts)| (value, counts.dice())).collect()
}

fn count<A, B>(labels: ArrayView3<'_, A>, truth: ArrayView3<'_, B>) -> BTreeMap<u16, Counts>
where
    A: Copy + Into<u16> + Sync,
    B: Copy + Into<u16> + Sync,
{
    let planes = labels.axis_iter(Axis(0)).into_par_iter().zip(truth.axis_iter(Axis(0)));
    let counts = planes.map(|(labels, truth)| {
        let mut counts: BTreeMap<u16, Counts> = BTreeMap::new();
        // Neighbours mostly agree: runs are counted, not voxels.
        let (mut run, mut length) = ((0, 0), 0);
        let mut end = |(found, right): (u16, u16), length: u64| {
            if found == right {
                counts.entry(found).or_default().true_positives += length;
            } else {
                counts.entry(found).or_default().false_positives += length;
                counts.entry(right).or_default().false_negatives += length;
            }
        };
        for (found, right) in labels.iter().zip(truth) {
            let here = ((*found).into(), (*right).into());
            if here != run {
                end(run, length);
                (run, length) = (here, 0);
            }
            length += 1;
        }
        end(run, length);
        counts
    });
    let mut all = counts.reduce(BTreeMap::new, |mut all, counts| {
        for (value, counts) in counts {
            let sum: &mut Counts = all.entry(value).or_default();
            sum.true_positives += counts.true_positives;
            sum.false_positives += counts.false_positives;
            sum.false_negatives += counts.false_negatives;
        }
        all
    });
    all.retain(|value, counts| *value > 0 && counts.num_predicted() + counts.num_reference() > 0);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use stunet_data::metrics::{Class, Contingency};

    #[test]
    fn as_the_evaluation_has_it() {
        let labels = Array3::from_shape_fn((5, 6, 7), |(z, y, x)| ((z * 3 + y + x) % 4) as u16);
        let truth = Array3::from_shape_fn((5, 6, 7), |(z, y, x)| ((z * 3 + y + x / 2) % 5) as u8);
        let found = dice_by_label(LabelView::Words(labels.view()), LabelView::Bytes(truth.view()));
        let words = truth.mapv(u16::from);
        let agreement = Contingency::of(words.view(), labels.view());
        assert_eq!(found.len(), 4);
        for (value, dice) in found {
            assert_eq!(dice, agreement.counts(&Class::Label(value), None).dice(), "{value}");
        }
    }
}
