//! The algebra of the soft Dice once the sums over voxels are known: a few numbers per class, in
//! f64 on the host.

use super::{DiceDenominator, LossConfig};

/// Sums over the voxels that are not ignored, per sample and class, `[N, C]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DiceSums {
    /// Predicted probability where the label is the class.
    pub overlap: Vec<f64>,
    /// Predicted probability.
    pub predicted: Vec<f64>,
    /// Voxels whose label is the class.
    pub labelled: Vec<f64>,
}

impl DiceSums {
    pub fn zeros(count: usize) -> Self {
        Self { overlap: vec![0.0; count], predicted: vec![0.0; count], labelled: vec![0.0; count] }
    }
}

/// The dice loss and its slopes with respect to `overlap` and `predicted`, `[N, C]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DiceTerm {
    pub loss: f64,
    pub overlap_slope: Vec<f64>,
    pub predicted_slope: Vec<f64>,
}

/// Minus the mean Dice of the classes from `first` on: `first` is 1 where the background is left
/// out, 0 with regions.
pub(super) fn dice(config: &LossConfig, sums: &DiceSums, classes: usize, first: usize) -> DiceTerm {
    if !config.terms.has_dice() {
        let none = vec![0.0; sums.overlap.len()];
        return DiceTerm { loss: 0.0, overlap_slope: none.clone(), predicted_slope: none };
    }
    let samples = sums.overlap.len() / classes;
    let groups = if config.batch_dice { 1 } else { samples };
    let per_group = samples / groups;
    let num_terms = (groups * (classes - first)) as f64;
    let mut term = DiceTerm {
        loss: 0.0,
        overlap_slope: vec![0.0; sums.overlap.len()],
        predicted_slope: vec![0.0; sums.overlap.len()],
    };
    for group in 0..groups {
        let members = group * per_group..(group + 1) * per_group;
        for class in first..classes {
            let sum = |v: &[f64]| members.clone().map(|n| v[n * classes + class]).sum::<f64>();
            let numerator = 2.0 * sum(&sums.overlap) + config.smooth;
            let total = sum(&sums.labelled) + sum(&sums.predicted) + config.smooth;
            let denominator = match config.denominator {
                DiceDenominator::Added => total + 1e-8,
                DiceDenominator::Bounded => total.max(1e-8),
            };
            term.loss -= numerator / denominator / num_terms;
            let clipped = config.denominator == DiceDenominator::Bounded && total < 1e-8;
            let predicted_slope =
                if clipped { 0.0 } else { numerator / (denominator * denominator * num_terms) };
            for n in members.clone() {
                term.overlap_slope[n * classes + class] = -2.0 / (denominator * num_terms);
                term.predicted_slope[n * classes + class] = predicted_slope;
            }
        }
    }
    term
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slopes against differences of the loss, two samples and three classes.
    fn check(config: &LossConfig, first: usize) {
        let sums = DiceSums {
            overlap: vec![3.0, 2.0, 0.5, 1.0, 0.25, 0.0],
            predicted: vec![4.0, 2.5, 1.5, 5.0, 1.0, 0.75],
            labelled: vec![5.0, 3.0, 1.0, 6.0, 1.0, 0.0],
        };
        let at = |sums: &DiceSums| dice(config, sums, 3, first).loss;
        let term = dice(config, &sums, 3, first);
        for i in 0..6 {
            let h = 1e-6;
            let (mut up, mut down) = (sums.clone(), sums.clone());
            up.overlap[i] += h;
            down.overlap[i] -= h;
            let slope = (at(&up) - at(&down)) / (2.0 * h);
            assert!((slope - term.overlap_slope[i]).abs() < 1e-8, "{i}: {slope} {term:?}");
            let (mut up, mut down) = (sums.clone(), sums.clone());
            up.predicted[i] += h;
            down.predicted[i] -= h;
            let slope = (at(&up) - at(&down)) / (2.0 * h);
            assert!((slope - term.predicted_slope[i]).abs() < 1e-8, "{i}: {slope} {term:?}");
        }
    }

    #[test]
    fn slopes_of_batch_dice() {
        check(&LossConfig::v1(true), 1);
    }

    #[test]
    fn slopes_of_dice_per_sample() {
        check(&LossConfig::v2(false), 1);
    }

    #[test]
    fn slopes_with_background() {
        check(&LossConfig::v2(true), 0);
    }

    #[test]
    fn an_absent_class_nobody_predicts_is_perfect_in_v2() {
        let sums = DiceSums::zeros(2);
        assert_eq!(dice(&LossConfig::v2(true), &sums, 2, 1).loss, -1.0);
        let v1 = dice(&LossConfig::v1(true), &sums, 2, 1).loss;
        assert!((v1 + 1e-5 / (1e-5 + 1e-8)).abs() < 1e-12);
    }
}
