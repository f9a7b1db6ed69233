//! Confidence of each label: the margin to the second most probable class, or the entropy of all.
//!
//! Both come from the values a label is decided on, at the image's resolution, and cost a pass over
//! a row that is in the cache.

use crate::probabilities::ProbabilityKind;
use ndarray::Array3;
use serde::Serialize;

/// Which measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfidenceMeasure {
    /// Probability of the best class less that of the second: 0 where two classes tie, 255 where
    /// one is certain. For regions the distance of the least sure one to a half, doubled.
    Margin,
    /// One less the entropy over its largest possible value: 0 where all classes are equally
    /// probable, 255 where one is certain. For regions the mean over them.
    Entropy,
}

/// A measure of values of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Grade {
    measure: ConfidenceMeasure,
    kind: ProbabilityKind,
    regions: bool,
}

/// A volume of confidences, 0 to 255.
#[derive(Debug)]
pub struct Confidence {
    grade: Grade,
    volume: Array3<u8>,
}

impl Confidence {
    /// An empty volume of the file's shape; what lies outside the crop stays certain background.
    pub fn new(
        measure: ConfidenceMeasure,
        kind: ProbabilityKind,
        regions: bool,
        shape: [usize; 3],
    ) -> Self {
        let grade = Grade { measure, kind, regions };
        Self { grade, volume: Array3::from_elem(shape, u8::MAX) }
    }

    pub(crate) fn grade(&self) -> Grade {
        self.grade
    }

    pub(crate) fn volume_mut(&mut self) -> &mut Array3<u8> {
        &mut self.volume
    }

    /// The volume.
    pub fn into_volume(self) -> Array3<u8> {
        self.volume
    }
}

impl Grade {
    /// Grades a row.
    ///
    /// # Shapes
    /// `row` `[C, voxels]` of values; `scratch` is room.
    #[inline(always)]
    pub(crate) fn of_row(self, row: &[f32], scratch: &mut Vec<f32>, out: &mut [u8]) {
        let width = out.len();
        let mut probabilities = row.to_vec();
        self.kind.apply(row, width, &mut probabilities);
        let classes = row.len() / width;
        scratch.clear();
        scratch.resize(width, 0.0);
        match (self.measure, self.regions) {
            (ConfidenceMeasure::Margin, false) => margin(&probabilities, scratch),
            (ConfidenceMeasure::Margin, true) => {
                scratch.fill(1.0);
                for class in probabilities.chunks_exact(width) {
                    let parts = scratch.iter_mut().zip(class);
                    parts.for_each(|(least, p)| *least = least.min(((p - 0.5) * 2.0).abs()));
                }
            }
            (ConfidenceMeasure::Entropy, regions) => {
                for class in probabilities.chunks_exact(width) {
                    for (sum, p) in scratch.iter_mut().zip(class) {
                        *sum += plogp(*p) + if regions { plogp(1.0 - *p) } else { 0.0 };
                    }
                }
                let largest = match regions {
                    true => classes as f32 * std::f32::consts::LN_2,
                    false => (classes as f32).ln(),
                };
                let largest = largest.max(f32::MIN_POSITIVE);
                scratch.iter_mut().for_each(|sum| *sum = 1.0 + *sum / largest);
            }
        }
        for (out, v) in out.iter_mut().zip(scratch.iter()) {
            *out = (v.clamp(0.0, 1.0) * 255.0).round() as u8;
        }
    }
}

/// Largest less second largest; the order of values is that of their probabilities.
#[inline(always)]
fn margin(probabilities: &[f32], out: &mut [f32]) {
    let width = out.len();
    let mut first = vec![0.0f32; width];
    let mut second = vec![0.0f32; width];
    for class in probabilities.chunks_exact(width) {
        for ((first, second), p) in first.iter_mut().zip(&mut second).zip(class) {
            *second = second.max(first.min(*p));
            *first = first.max(*p);
        }
    }
    out.iter_mut().zip(first.iter().zip(&second)).for_each(|(out, (a, b))| *out = a - b);
}

fn plogp(p: f32) -> f32 {
    if p > 0.0 { p * p.ln() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        measure: ConfidenceMeasure,
        kind: ProbabilityKind,
        regions: bool,
        row: &[f32],
        expected: &[u8],
    ) {
        let grade = Grade { measure, kind, regions };
        let mut out = vec![7; expected.len()];
        grade.of_row(row, &mut Vec::new(), &mut out);
        assert_eq!(out, expected, "{measure:?} {kind:?} {regions}");
    }

    #[test]
    fn by_hand() {
        use ConfidenceMeasure::{Entropy, Margin};
        use ProbabilityKind::{AsTheyAre, Sigmoid, Softmax};
        // Three classes, four voxels: certain, a tie of two, 0.6 before 0.3, all equal.
        let third = 1.0 / 3.0;
        let row = [1.0, 0.5, 0.1, third, 0.0, 0.5, 0.6, third, 0.0, 0.0, 0.3, third];
        check(Margin, AsTheyAre, false, &row, &[255, 0, 77, 0]);
        // Entropy of (0.5, 0.5) is ln 2, of (0.1, 0.6, 0.3) 0.898 nats; the largest is ln 3.
        check(Entropy, AsTheyAre, false, &row, &[255, 94, 47, 0]);
        // Logits (ln 3, 0): 3/4 and 1/4.
        let logits = [3f32.ln(), 0.0, 0.0, 0.0];
        check(Margin, Softmax, false, &logits, &[128, 0]);
        check(Margin, Sigmoid, true, &logits, &[0, 0]);
        check(Margin, Sigmoid, true, &[3f32.ln(), 40.0], &[128, 255]);
        check(Entropy, Sigmoid, true, &[0.0, 40.0], &[0, 255]);
    }
}
