//! The reorientation of axes that a reader has applied, and its inverse.

use crate::error::{DataError, Result, invalid};
use ndarray::{ArrayBase, Axis, Ix3, RawData};
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

    /// A volume of the file, or a view of one, as it is seen after the turn.
    pub fn apply<S: RawData>(&self, volume: ArrayBase<S, Ix3>) -> ArrayBase<S, Ix3> {
        let mut turned = volume.permuted_axes(self.axes);
        for axis in (0..3).filter(|axis| self.flipped[*axis]) {
            turned.invert_axis(Axis(axis));
        }
        turned
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
