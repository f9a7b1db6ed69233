//! The reorientation of axes that a reader has applied, and its inverse.

use crate::error::{DataError, Result, invalid};
use ndarray::{ArrayBase, ArrayView3, ArrayViewMut2, Axis, Ix3, RawData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How the axes of a file were turned: reordered, and some of them mirrored.
///
/// # Shapes
/// Both parts are `[z, y, x]` of the turned volume.
///
/// ```
/// use ndarray::Array3;
/// use stunet_data::geometry::Turn;
/// let file = Array3::from_shape_fn((2, 3, 4), |(z, y, x)| 100 * z + 10 * y + x);
/// // The turned volume's z is the file's x, backwards.
/// let turn = Turn::new([2, 1, 0], [true, false, false])?;
/// let turned = turn.apply(file.view());
/// assert_eq!(turned.shape(), [4, 3, 2]);
/// assert_eq!(turned[[0, 1, 1]], file[[1, 1, 3]]);
/// # Ok::<(), stunet_data::DataError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawTurn", into = "RawTurn")]
pub struct Turn {
    axes: [usize; 3],
    flipped: [bool; 3],
}

impl Turn {
    /// Axes as they are in the file.
    pub const NONE: Self = Self { axes: [0, 1, 2], flipped: [false; 3] };

    /// The file's axis that becomes axis 0, 1, 2, and whether that axis runs against the file's.
    ///
    /// # Errors
    /// When the axes are no order of 0, 1, 2.
    pub fn new(axes: [usize; 3], flipped: [bool; 3]) -> Result<Self> {
        let mut sorted = axes;
        sorted.sort_unstable();
        match sorted {
            [0, 1, 2] => Ok(Self { axes, flipped }),
            _ => Err(invalid("geometry", "turn", "an order of 0, 1, 2", format_args!("{axes:?}"))),
        }
    }

    /// The file's axis that is axis 0, 1, 2.
    pub fn axes(&self) -> [usize; 3] {
        self.axes
    }

    /// Whether axis 0, 1, 2 runs against the file's.
    pub fn flipped(&self) -> [bool; 3] {
        self.flipped
    }

    /// Values of the file's axes in the order of the turned ones.
    pub fn reorder<T: Copy>(&self, values: [T; 3]) -> [T; 3] {
        self.axes.map(|axis| values[axis])
    }

    /// The turn back.
    #[must_use]
    pub fn inverse(self) -> Self {
        let mut back = Self::NONE;
        for (to, from) in self.axes.into_iter().enumerate() {
            back.axes[from] = to;
            back.flipped[from] = self.flipped[to];
        }
        back
    }

    /// This turn and then another one, as one.
    #[must_use]
    pub fn followed_by(self, next: Self) -> Self {
        let flipped = [0, 1, 2].map(|axis| next.flipped[axis] != self.flipped[next.axes[axis]]);
        Self { axes: next.reorder(self.axes), flipped }
    }

    /// Bounds `[from, to]` of a part of the turned volume, as bounds of the file's axes.
    pub fn bounds_in_file(self, bounds: [[usize; 2]; 3], file: [usize; 3]) -> [[usize; 2]; 3] {
        let mut in_file = bounds;
        for ((axis, flipped), [from, to]) in self.axes.into_iter().zip(self.flipped).zip(bounds) {
            in_file[axis] = match flipped {
                true => [file[axis] - to, file[axis] - from],
                false => [from, to],
            };
        }
        in_file
    }

    /// A volume of the file, or a view of one, as it is seen after the turn.
    pub fn apply<S: RawData>(&self, volume: ArrayBase<S, Ix3>) -> ArrayBase<S, Ix3> {
        let mut turned = volume.permuted_axes(self.axes);
        for axis in (0..3).filter(|axis| self.flipped[*axis]) {
            turned.invert_axis(Axis(axis));
        }
        turned
    }

    /// The voxels of channels in the order in which they are walked after the turn.
    pub(crate) fn carried<'a, T>(self, channels: impl Iterator<Item = ArrayView3<'a, T>>) -> Vec<T>
    where
        T: Copy + Default + Send + Sync + 'a,
    {
        let mut all = Vec::new();
        for channel in channels {
            let mut turned = self.carried_channel(channel);
            match all.is_empty() {
                // Most scans have one: it is not copied again.
                true => all = turned,
                false => all.append(&mut turned),
            }
        }
        all
    }

    fn carried_channel<T>(self, volume: ArrayView3<'_, T>) -> Vec<T>
    where
        T: Copy + Default + Send + Sync,
    {
        let turned = self.apply(volume);
        let (_, rows, columns) = turned.dim();
        let mut values = vec![T::default(); turned.len()];
        let planes = values.par_chunks_exact_mut((rows * columns).max(1)).enumerate();
        planes.for_each(|(z, plane)| {
            let plane = ArrayViewMut2::from_shape((rows, columns), plane);
            let mut plane = plane.expect("a chunk has as many voxels as a plane");
            plane.assign(&turned.index_axis(Axis(0), z));
        });
        values
    }

    /// The inverse of [`Turn::apply`]: a turned volume as the file has it.
    ///
    /// ```
    /// # use ndarray::Array3;
    /// # use stunet_data::geometry::Turn;
    /// let file = Array3::from_shape_fn((2, 3, 4), |(z, y, x)| 100 * z + 10 * y + x);
    /// let turn = Turn::new([2, 0, 1], [true, false, true])?;
    /// assert_eq!(turn.undo(turn.apply(file.view())), file.view());
    /// # Ok::<(), stunet_data::DataError>(())
    /// ```
    pub fn undo<S: RawData>(&self, mut volume: ArrayBase<S, Ix3>) -> ArrayBase<S, Ix3> {
        for axis in (0..3).filter(|axis| self.flipped[*axis]) {
            volume.invert_axis(Axis(axis));
        }
        let mut back = [0; 3];
        self.axes.into_iter().enumerate().for_each(|(turned, file)| back[file] = turned);
        volume.permuted_axes(back)
    }
}

#[derive(Serialize, Deserialize)]
struct RawTurn {
    axes: [usize; 3],
    flipped: [bool; 3],
}

impl TryFrom<RawTurn> for Turn {
    type Error = DataError;

    fn try_from(raw: RawTurn) -> Result<Self> {
        Self::new(raw.axes, raw.flipped)
    }
}

impl From<Turn> for RawTurn {
    fn from(turn: Turn) -> Self {
        Self { axes: turn.axes, flipped: turn.flipped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Orientation;

    #[test]
    fn parts_in_the_file() {
        let file = ndarray::Array3::from_shape_fn((5, 6, 7), |(z, y, x)| 100 * z + 10 * y + x);
        let bounds = [[1, 3], [0, 2], [2, 5]];
        for turn in Orientation::all().map(|to| Orientation::RAS.turn_to(to)) {
            let part = |[z, y, x]: [[usize; 2]; 3]| ndarray::s![z[0]..z[1], y[0]..y[1], x[0]..x[1]];
            let in_file = turn.bounds_in_file(bounds, [5, 6, 7]);
            let seen = turn.apply(file.view()).slice(part(bounds)).to_owned();
            assert_eq!(turn.apply(file.slice(part(in_file))), seen);
        }
    }

    #[test]
    fn there_and_back() {
        let turns = || Orientation::all().map(|to| Orientation::RAS.turn_to(to));
        for first in turns() {
            assert_eq!(first.followed_by(first.inverse()), Turn::NONE);
            assert_eq!(first.inverse().followed_by(first), Turn::NONE);
            let volume =
                ndarray::Array3::from_shape_fn((2, 3, 4), |(z, y, x)| 100 * z + 10 * y + x);
            for next in turns() {
                let one = first.followed_by(next).apply(volume.view());
                assert_eq!(one, next.apply(first.apply(volume.view())));
                let carried = first.followed_by(next).carried([volume.view()].into_iter());
                assert!(one.iter().eq(&carried));
            }
        }
    }
}
