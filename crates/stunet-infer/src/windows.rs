//! Where the windows lie: padding to the window size, and the starts along each axis.
//!
//! # Source
//! nnU-Net 1.7.1 `neural_network.py::_compute_steps_for_sliding_window` and batchgenerators'
//! `pad_nd_image`; nnU-Net 2.2 and 2.8 compute the same.

use crate::error::InferError;
use crate::volume::Volume;
use ndarray::{Array4, s};

/// The windows of one volume, in the order the reference visits them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    window: [usize; 3],
    shape: [usize; 3],
    padded: [usize; 3],
    below: [usize; 3],
    starts: [Vec<usize>; 3],
}

impl Windows {
    /// Lays windows of size `window` over a volume of `shape`, each step at most `step` of a
    /// window.
    ///
    /// An axis shorter than the window is padded: half of what is missing (rounded down) below,
    /// the rest above.
    ///
    /// # Shapes
    /// `shape` and `window` are `[z, y, x]` in voxels.
    ///
    /// # Errors
    /// When `step` is not in (0, 1], or an axis of either has no voxel.
    ///
    /// ```
    /// use stunet_infer::windows::Windows;
    /// let windows = Windows::new([80, 150, 170], [128, 128, 128], 0.5)?;
    /// assert_eq!(windows.len(), 4);
    /// assert_eq!(windows.padded_shape(), [128, 150, 170]);
    /// assert_eq!(windows.iter().last(), Some([0, 22, 42]));
    /// # Ok::<(), stunet_infer::InferError>(())
    /// ```
    pub fn new(shape: [usize; 3], window: [usize; 3], step: f64) -> Result<Self, InferError> {
        if !(step > 0.0 && step <= 1.0) {
            return Err(InferError::StepSize { found: step });
        }
        if shape.contains(&0) || window.contains(&0) {
            return Err(InferError::EmptyVolume { shape, window });
        }
        let padded = [0, 1, 2].map(|a| shape[a].max(window[a]));
        Ok(Self {
            window,
            shape,
            padded,
            below: [0, 1, 2].map(|a| (padded[a] - shape[a]) / 2),
            starts: [0, 1, 2].map(|a| axis_starts(padded[a], window[a], step)),
        })
    }

    /// The windows that lie inside of a part of the volume, from `offset` and of `shape`, as windows of
    /// that part: they see and weigh what they would in the whole. Along an axis where they do not cover
    /// the part it has windows of its own, at steps of at most `step` of a window.
    ///
    /// # Errors
    /// As [`Windows::new`].
    pub fn within(
        &self,
        offset: [usize; 3],
        shape: [usize; 3],
        step: f64,
    ) -> Result<Self, InferError> {
        let mut part = Self::new(shape, self.window, step)?;
        for axis in 0..3 {
            let (window, length) = (self.window[axis], shape[axis]);
            if self.padded[axis] != self.shape[axis] {
                continue;
            }
            let starts = self.starts[axis].iter();
            let inside = starts.filter(|at| **at >= offset[axis]).map(|at| at - offset[axis]);
            let inside: Vec<usize> = inside.filter(|at| at + window <= length).collect();
            let whole = inside.first() == Some(&0)
                && inside.last().is_some_and(|last| last + window == length)
                && inside.windows(2).all(|pair| pair[1] - pair[0] <= window);
            if whole {
                part.starts[axis] = inside;
            }
        }
        Ok(part)
    }

    /// The range of an axis that the fewest of its windows around `from..to` cover.
    pub fn around(&self, axis: usize, [from, to]: [usize; 2]) -> [usize; 2] {
        let (window, length, starts) = (self.window[axis], self.shape[axis], &self.starts[axis]);
        if length <= window {
            return [0, length];
        }
        let middle = |at: usize| (2 * at + window).abs_diff(from + to);
        let alone = starts.iter().filter(|at| **at <= from && *at + window >= to);
        if let Some(at) = alone.min_by_key(|at| middle(**at)) {
            return [*at, at + window];
        }
        let first = starts.iter().rev().find(|at| **at <= from).copied().unwrap_or(0);
        let last = starts.iter().find(|at| *at + window >= to).copied();
        [first, last.map_or(length, |last| last + window)]
    }

    /// Size of a window `[z, y, x]`.
    pub fn window_shape(&self) -> [usize; 3] {
        self.window
    }

    /// Shape of the volume before padding.
    pub fn volume_shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Shape of the volume after padding.
    pub fn padded_shape(&self) -> [usize; 3] {
        self.padded
    }

    /// Voxels added below the first one of each axis.
    pub fn padding_below(&self) -> [usize; 3] {
        self.below
    }

    /// Starts along each axis, in the padded volume, ascending.
    pub fn starts(&self) -> &[Vec<usize>; 3] {
        &self.starts
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.starts.iter().map(Vec::len).product()
    }

    /// Never: a volume has at least one window.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The starts of all windows: z outermost, x innermost, as the reference nests its loops.
    pub fn iter(&self) -> impl Iterator<Item = [usize; 3]> + '_ {
        let [z, y, x] = &self.starts;
        z.iter()
            .flat_map(move |&z| y.iter().map(move |&y| (z, y)))
            .flat_map(move |(z, y)| x.iter().map(move |&x| [z, y, x]))
    }

    /// Cuts the window at `start` out of `volume`, mirrored along the axes where `flips` is set;
    /// voxels of the padding are 0.
    ///
    /// # Shapes
    /// `volume` is unpadded, the result `[C, z, y, x]` of the window's size.
    ///
    /// # Panics
    /// When `volume` is not of [`Self::volume_shape`].
    pub fn cut(&self, volume: &Volume<'_>, start: [usize; 3], flips: [bool; 3]) -> Array4<f32> {
        crate::mirror::mirrored(self.cut_box(volume, start, self.window), flips)
    }

    /// Cuts a box of a size at `start` out of `volume`, as the padded volume has it.
    pub(crate) fn cut_box(
        &self,
        volume: &Volume<'_>,
        start: [usize; 3],
        size: [usize; 3],
    ) -> Array4<f32> {
        let [channels, z, y, x] = volume.shape();
        assert_eq!([z, y, x], self.shape, "the volume these windows were made for");
        let mut cut = Array4::zeros((channels, size[0], size[1], size[2]));
        // Overlap of box and volume, in the volume's and in the box's coordinates.
        let from = [0, 1, 2].map(|a| start[a].saturating_sub(self.below[a]));
        let to = [0, 1, 2]
            .map(|a| (start[a] + size[a]).saturating_sub(self.below[a]).min(self.shape[a]));
        let at = [0, 1, 2].map(|a| from[a] + self.below[a] - start[a]);
        if (0..3).all(|a| from[a] < to[a]) {
            let length = [0, 1, 2].map(|a| to[a] - from[a]);
            let target = cut.slice_mut(s![
                ..,
                at[0]..at[0] + length[0],
                at[1]..at[1] + length[1],
                at[2]..at[2] + length[2]
            ]);
            volume.copy(&[0, 1, 2].map(|a| from[a]..to[a]), target);
        }
        cut
    }
}

/// Starts along one axis: the fewest equal steps of at most `step` windows, rounded half to even.
fn axis_starts(size: usize, window: usize, step: f64) -> Vec<usize> {
    let free = (size - window) as f64;
    let num_steps = (free / (window as f64 * step)).ceil() as usize;
    let actual = free / num_steps.max(1) as f64;
    (0..=num_steps).map(|i| (actual * i as f64).round_ties_even() as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(shape: [usize; 3], window: [usize; 3], step: f64, expected: [&[usize]; 3]) {
        let windows = Windows::new(shape, window, step).unwrap();
        assert_eq!(windows.starts(), &expected.map(<[usize]>::to_vec));
    }

    #[test]
    fn starts_by_hand() {
        check([5, 7, 11], [5, 7, 11], 0.5, [&[0], &[0], &[0]]);
        check([25, 42, 50], [32, 32, 32], 0.5, [&[0], &[0, 10], &[0, 9, 18]]);
        // 2.5 rounds to 2, 7.5 to 8: half to even.
        check([20, 10, 10], [10, 10, 10], 0.25, [&[0, 2, 5, 8, 10], &[0], &[0]]);
        check([224, 202, 244], [128, 128, 128], 0.5, [&[0, 48, 96], &[0, 37, 74], &[0, 58, 116]]);
    }

    #[test]
    fn wrong_steps_are_refused() {
        for step in [0.0, -0.5, 1.01, f64::NAN] {
            assert!(Windows::new([9; 3], [4; 3], step).is_err(), "{step}");
        }
        assert!(Windows::new([9, 0, 9], [4; 3], 0.5).is_err());
    }

    #[test]
    fn padding_lies_below_by_half_rounded_down() {
        let windows = Windows::new([25, 3, 32], [32, 4, 32], 0.5).unwrap();
        assert_eq!(windows.padding_below(), [3, 0, 0]);
        let volume = Array4::from_elem((2, 25, 3, 32), 1.0f32);
        let cut = windows.cut(&volume.view().into(), [0, 0, 0], [false; 3]);
        assert_eq!(cut.dim(), (2, 32, 4, 32));
        assert_eq!(cut.sum(), volume.sum());
        assert_eq!(cut[[1, 2, 0, 0]], 0.0);
        assert_eq!(cut[[1, 3, 2, 31]], 1.0);
        assert_eq!(cut[[1, 27, 3, 0]], 0.0);
    }

    fn sizes() -> impl Strategy<Value = ([usize; 3], [usize; 3], f64)> {
        ([1usize..60, 1..60, 1..60], [1usize..24, 1..24, 1..24], 0.1f64..=1.0)
    }

    proptest! {
        #[test]
        fn windows_cover_every_voxel_and_stay_inside((shape, window, step) in sizes()) {
            let windows = Windows::new(shape, window, step).unwrap();
            let axes = windows.starts().iter().zip(windows.padded_shape()).zip(window);
            for ((starts, size), window) in axes {
                prop_assert_eq!(starts[0], 0);
                prop_assert_eq!(starts[starts.len() - 1] + window, size);
                // A gap would open where two starts are more than a window apart. Steps below one voxel
                // repeat a start, as the reference does.
                prop_assert!(starts.windows(2).all(|w| w[0] <= w[1] && w[1] - w[0] <= window));
            }
            prop_assert_eq!(windows.iter().count(), windows.len());
        }
    }

    proptest! {
        /// A part around any range has windows of the whole, which cover it.
        #[test]
        fn a_part_has_windows_of_the_whole(
            length in 5usize..300, window in 4usize..64, step in 0.2f64..1.0,
            from in 0usize..290, size in 1usize..200,
        ) {
            let whole = Windows::new([length; 3], [window; 3], step).unwrap();
            let from = from.min(length - 1);
            let range = [from, (from + size).min(length)];
            let [begin, end] = whole.around(1, range);
            prop_assert!(begin <= range[0] && range[1] <= end && end <= length);
            let part = whole.within([begin; 3], [end - begin; 3], step).unwrap();
            for start in &part.starts()[1] {
                let placed = start + begin;
                prop_assert!(length <= window || whole.starts()[1].contains(&placed));
            }
            // Without the first or the last of several windows, the range would not be covered. Steps
            // below one voxel repeat a start, as the reference does: such windows are one place.
            let mut starts = part.starts()[1].clone();
            starts.dedup();
            if length > window && starts.len() > 1 {
                prop_assert!(begin + starts[1] > range[0]);
                prop_assert!(begin + starts[starts.len() - 2] + window < range[1]);
            }
        }
    }

    #[test]
    fn a_part_keeps_windows_that_share_a_start() {
        // Steps of 0.8 voxels: two windows of the whole start at voxel 22, and both see the part.
        let whole = Windows::new([51; 3], [4; 3], 0.2).unwrap();
        assert_eq!(whole.around(1, [22, 26]), [22, 26]);
        let repeats = whole.starts()[1].iter().filter(|start| **start == 22).count();
        let part = whole.within([22; 3], [4; 3], 0.2).unwrap();
        assert_eq!((repeats, &part.starts()[1]), (2, &vec![0, 0]));
    }

    #[test]
    fn a_part_between_windows_has_its_own() {
        let whole = Windows::new([100; 3], [32; 3], 0.5).unwrap();
        let part = whole.within([5; 3], [50; 3], 0.5).unwrap();
        assert_eq!(part, Windows::new([50; 3], [32; 3], 0.5).unwrap());
        let all = whole.within([0; 3], [100; 3], 0.5).unwrap();
        assert_eq!(all, whole);
    }
}
