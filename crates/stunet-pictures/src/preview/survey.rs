//! Which labels there are, how much of each, and in which planes.

use super::axes::PatientAxis;
use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;
use std::collections::BTreeMap;
use stunet_data::labels::LabelVoxels;

/// Labels whose planes are counted: the largest ones. More are not told apart in a picture.
const MOST_COUNTED: usize = 512;
/// A plane shows a label when it cuts this share of the label's largest section.
const SHOWN: f32 = 0.3;

/// A view of labels in the type that they are stored in: nothing is copied.
#[derive(Clone, Copy, Debug)]
pub(super) enum LabelView<'a> {
    Bytes(ArrayView3<'a, u8>),
    Words(ArrayView3<'a, u16>),
}

impl<'a> LabelView<'a> {
    pub fn of(voxels: &'a LabelVoxels) -> Self {
        match voxels {
            LabelVoxels::Bytes(values) => Self::Bytes(values.view()),
            LabelVoxels::Words(values) => Self::Words(values.view()),
        }
    }

    pub fn map(
        self,
        bytes: impl FnOnce(ArrayView3<'a, u8>) -> ArrayView3<'a, u8>,
        words: impl FnOnce(ArrayView3<'a, u16>) -> ArrayView3<'a, u16>,
    ) -> Self {
        match self {
            Self::Bytes(view) => Self::Bytes(bytes(view)),
            Self::Words(view) => Self::Words(words(view)),
        }
    }

    pub fn at(&self, index: [usize; 3]) -> u16 {
        match self {
            Self::Bytes(view) => u16::from(view[index]),
            Self::Words(view) => view[index],
        }
    }

    /// Voxels of every label but the background.
    pub fn sizes(&self) -> BTreeMap<u16, u64> {
        match self {
            Self::Bytes(view) => sizes(*view),
            Self::Words(view) => sizes(*view),
        }
    }

    /// Counts the voxels of some labels in every plane.
    pub fn survey(&self, sizes: &BTreeMap<u16, u64>) -> Survey {
        let mut counted: Vec<(u16, u64)> = sizes.iter().map(|(v, n)| (*v, *n)).collect();
        counted.sort_by_key(|(value, voxels)| (std::cmp::Reverse(*voxels), *value));
        counted.truncate(MOST_COUNTED);
        let mut table = vec![u16::MAX; usize::from(u16::MAX) + 1];
        for (index, (value, _)) in counted.iter().enumerate() {
            table[usize::from(*value)] = index as u16;
        }
        match self {
            Self::Bytes(view) => Survey::count(*view, &table, counted.len()),
            Self::Words(view) => Survey::count(*view, &table, counted.len()),
        }
    }
}

fn sizes<T: Copy + Into<u16> + Sync>(view: ArrayView3<'_, T>) -> BTreeMap<u16, u64> {
    let planes = view.axis_iter(Axis(0)).into_par_iter().map(|plane| {
        let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
        let (mut run, mut length) = (0, 0);
        for value in plane.iter().map(|value| (*value).into()) {
            if value != run {
                *counts.entry(run).or_default() += length;
                (run, length) = (value, 0);
            }
            length += 1;
        }
        *counts.entry(run).or_default() += length;
        counts
    });
    let mut sizes = planes.reduce(BTreeMap::new, |mut all, counts| {
        for (value, count) in counts {
            *all.entry(value).or_default() += count;
        }
        all
    });
    sizes.retain(|value, voxels| *value > 0 && *voxels > 0);
    sizes
}

/// Sections of labels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Survey {
    /// For each axis, `[index of the plane][label]`: voxels.
    sections: [ndarray::Array2<u32>; 3],
}

impl Survey {
    fn count<T: Copy + Into<u16> + Sync>(
        view: ArrayView3<'_, T>,
        table: &[u16],
        labels: usize,
    ) -> Self {
        let (down, back, left) = view.dim();
        let empty = || {
            let zeros = |planes| ndarray::Array2::<u32>::zeros((planes, labels));
            [zeros(down), zeros(back), zeros(left)]
        };
        // One sum for each thread and not for each plane: they are large.
        let parts = rayon::current_num_threads().clamp(1, 16);
        let part = down.div_ceil(parts).max(1);
        let sections = (0..down)
            .step_by(part)
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|begin| {
                let mut sections = empty();
                for z in begin..(begin + part).min(down) {
                    let plane = view.index_axis(Axis(0), z);
                    for (y, row) in plane.outer_iter().enumerate() {
                        for (x, value) in row.iter().enumerate() {
                            let value: u16 = (*value).into();
                            if value == 0 || table[usize::from(value)] == u16::MAX {
                                continue;
                            }
                            let label = usize::from(table[usize::from(value)]);
                            sections[0][[z, label]] += 1;
                            sections[1][[y, label]] += 1;
                            sections[2][[x, label]] += 1;
                        }
                    }
                }
                sections
            })
            .reduce(empty, |mut all, sections| {
                for (all, section) in all.iter_mut().zip(&sections) {
                    *all += section;
                }
                all
            });
        Self { sections }
    }

    /// The plane across an axis that shows most labels, each by at least a part of its largest
    /// section; of several, the one with most labelled voxels. None where nothing is labelled.
    pub fn busiest(&self, axis: PatientAxis) -> Option<usize> {
        let sections = &self.sections[axis as usize];
        let mut largest = vec![0u32; sections.dim().1];
        for plane in sections.outer_iter() {
            for (largest, voxels) in largest.iter_mut().zip(plane) {
                *largest = (*largest).max(*voxels);
            }
        }
        let score = |plane: ndarray::ArrayView1<'_, u32>| {
            let shown = plane
                .iter()
                .zip(&largest)
                .map(|(voxels, most)| (*voxels as f32 / (SHOWN * (*most).max(1) as f32)).min(1.0));
            let labelled: u64 = plane.iter().map(|voxels| u64::from(*voxels)).sum();
            (shown.sum::<f32>(), labelled)
        };
        let scored = sections.outer_iter().map(score).enumerate();
        let best = scored.max_by(|(_, a), (_, b)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        best.filter(|(_, (_, labelled))| *labelled > 0).map(|(index, _)| index)
    }

    /// First and last plane across an axis that has labels.
    pub fn extent(&self, axis: PatientAxis) -> Option<[usize; 2]> {
        let planes = self.sections[axis as usize].outer_iter().enumerate();
        let labelled = planes.filter(|(_, plane)| plane.iter().any(|voxels| *voxels > 0));
        let mut labelled = labelled.map(|(index, _)| index);
        let first = labelled.next()?;
        Some([first, labelled.last().unwrap_or(first)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    /// A ball of label 1, and a rod of label 300 along the last axis that leaves it.
    fn volume() -> Array3<u16> {
        Array3::from_shape_fn((20, 24, 28), |(z, y, x)| {
            let square = |a: usize, b: usize| (a.abs_diff(b)).pow(2);
            match square(z, 8) + square(y, 10) + square(x, 12) {
                d if d <= 36 => 1,
                _ if z == 15 && y == 12 && x > 4 => 300,
                _ => 0,
            }
        })
    }

    #[test]
    fn planes_are_chosen_for_what_they_show() {
        let volume = volume();
        let view = LabelView::Words(volume.view());
        let sizes = view.sizes();
        assert_eq!(sizes.keys().copied().collect::<Vec<_>>(), [1, 300]);
        assert_eq!(sizes[&300], 23);
        let survey = view.survey(&sizes);
        // Across the first axis no plane shows both; the middle of the ball has most voxels.
        assert_eq!(survey.busiest(PatientAxis::Down), Some(8));
        // The rod's plane cuts the ball as well.
        assert_eq!(survey.busiest(PatientAxis::Back), Some(12));
        assert_eq!(survey.busiest(PatientAxis::Left), Some(12));
        assert_eq!(survey.extent(PatientAxis::Down), Some([2, 15]));
        assert_eq!(survey.extent(PatientAxis::Left), Some([5, 27]));
    }

    #[test]
    fn nothing_is_nowhere() {
        let volume = Array3::<u8>::zeros((2, 3, 4));
        let view = LabelView::Bytes(volume.view());
        let sizes = view.sizes();
        assert!(sizes.is_empty());
        let survey = view.survey(&sizes);
        for axis in PatientAxis::ALL {
            assert_eq!((survey.busiest(axis), survey.extent(axis)), (None, None));
        }
    }

    #[test]
    fn bytes_and_words_count_alike_in_any_number_of_threads() {
        let words = volume().mapv(|v| v.min(200));
        let bytes = words.mapv(|v| v as u8);
        let of = |threads: usize, view: LabelView<'_>| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| view.survey(&view.sizes()))
        };
        let expected = of(1, LabelView::Words(words.view()));
        assert_eq!(of(3, LabelView::Bytes(bytes.view())), expected);
    }
}
