//! Which lesions were found: connected parts of a mask, counted one by one.

use super::masks::MaskPair;
use crate::components::{Components, Connectivity};

/// When a lesion counts as found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LesionRules {
    /// What makes voxels one lesion.
    pub connectivity: Connectivity,
    /// Part of a lesion's voxels, from 0 to 1, that the other mask must have for the two to match; at
    /// least one voxel in any case.
    pub min_overlap: f64,
}

/// Lesions of a class: connected parts of the reference, and of the prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LesionCounts {
    /// In the reference.
    pub reference: u64,
    /// In the prediction.
    pub prediction: u64,
    /// Those of the reference that the prediction overlaps.
    pub detected: u64,
    /// Those of the prediction that overlap the reference.
    pub confirmed: u64,
}

impl LesionCounts {
    /// Counts the lesions of both masks.
    ///
    /// Lesions are matched to the other mask, not one to one: a prediction that joins two lesions finds
    /// both, and two predicted parts in one lesion are both right.
    ///
    /// ```
    /// use ndarray::arr3;
    /// use stunet_data::metrics::{LesionCounts, LesionRules, MaskPair};
    /// let reference = arr3(&[[[true, true, false, true, false, false]]]);
    /// let prediction = arr3(&[[[false, true, false, false, false, true]]]);
    /// let masks = MaskPair::new(reference.view(), prediction.view());
    /// let counts = LesionCounts::of(&masks, &LesionRules::default());
    /// assert_eq!((counts.missed(), counts.false_positives(), counts.f1()), (1, 1, 0.5));
    /// ```
    pub fn of(masks: &MaskPair, rules: &LesionRules) -> Self {
        let (reference, prediction) = rayon::join(
            || matched(&masks.reference, &masks.prediction, masks.shape, rules),
            || matched(&masks.prediction, &masks.reference, masks.shape, rules),
        );
        Self {
            reference: reference.0,
            prediction: prediction.0,
            detected: reference.1,
            confirmed: prediction.1,
        }
    }

    /// Lesions of the reference that the prediction does not overlap.
    pub fn missed(&self) -> u64 {
        self.reference - self.detected
    }

    /// Lesions of the prediction that do not overlap the reference.
    pub fn false_positives(&self) -> u64 {
        self.prediction - self.confirmed
    }

    /// `detected / reference`; NaN when the reference has none.
    pub fn sensitivity(&self) -> f64 {
        self.detected as f64 / self.reference as f64
    }

    /// `confirmed / prediction`; NaN when the prediction has none.
    pub fn precision(&self) -> f64 {
        self.confirmed as f64 / self.prediction as f64
    }

    /// `2 detected / (2 detected + false positives + missed)`; NaN when neither has a lesion.
    pub fn f1(&self) -> f64 {
        let twice = 2 * self.detected;
        twice as f64 / (twice + self.false_positives() + self.missed()) as f64
    }
}

/// How many connected parts a mask has, and how many of them `other` overlaps enough.
fn matched(mask: &[bool], other: &[bool], shape: [usize; 3], rules: &LesionRules) -> (u64, u64) {
    let parts = Components::of_slice(mask, shape, rules.connectivity);
    let mut covered = vec![0u64; parts.count()];
    for (label, _) in parts.labels().iter().zip(other).filter(|(label, c)| **c && **label > 0) {
        covered[*label as usize - 1] += 1;
    }
    let enough = |(covered, size): (&u64, &u64)| {
        *covered > 0 && *covered as f64 >= rules.min_overlap * *size as f64
    };
    let found = covered.iter().zip(parts.sizes()).filter(|pair| enough(*pair)).count();
    (parts.count() as u64, found as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    fn masks(reference: &str, prediction: &str) -> MaskPair {
        let row = |text: &str| {
            let values = text.chars().map(|c| c == '#').collect();
            Array3::from_shape_vec((1, 1, text.len()), values).unwrap()
        };
        MaskPair::new(row(reference).view(), row(prediction).view())
    }

    fn check(reference: &str, prediction: &str, min_overlap: f64, expected: [u64; 4]) {
        let rules = LesionRules { min_overlap, ..LesionRules::default() };
        let found = LesionCounts::of(&masks(reference, prediction), &rules);
        let found = [found.reference, found.prediction, found.detected, found.confirmed];
        assert_eq!(found, expected, "{reference} {prediction}");
    }

    #[test]
    fn detection_by_overlap() {
        check("##.#...", ".#....#", 0.0, [2, 2, 1, 1]);
        // One prediction over two lesions finds both; two within one are both right.
        check("##.##", "#####", 0.0, [2, 1, 2, 1]);
        check("#####", "#.#.#", 0.0, [1, 3, 1, 3]);
        // Half a lesion must be covered.
        check("####.##", "#....##", 0.5, [2, 2, 1, 2]);
        check("......", "......", 0.0, [0, 0, 0, 0]);
        check("......", ".#..#.", 0.0, [0, 2, 0, 0]);
    }

    #[test]
    fn scores_that_do_not_exist_are_nan() {
        let none = LesionCounts::default();
        assert!(none.f1().is_nan() && none.sensitivity().is_nan() && none.precision().is_nan());
        let predicted = LesionCounts { prediction: 2, ..none };
        assert_eq!((predicted.f1(), predicted.precision()), (0.0, 0.0));
        assert!(predicted.sensitivity().is_nan());
    }
}
