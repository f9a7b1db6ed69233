//! Windows that are summed: what a network leaves of them, how they are averaged, where they lie.

use burn::tensor::Tensor;
use std::ops::Range;

/// The values of a window, where a network left them.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and both are handles of tensors")]
pub enum WindowValues {
    /// The values, `[1, C, z, y, x]`.
    Ready(Tensor<5>),
    /// Features that a convolution of single voxels turns into values. It need not be computed as a whole.
    BeforeHead {
        /// `[1, F, z, y, x]`.
        features: Tensor<5>,
        /// `[C, F, 1, 1, 1]`.
        weight: Tensor<5>,
        /// `[C]`.
        bias: Tensor<1>,
    },
}

/// How the passes over a window become one prediction, and how much its voxels count.
#[derive(Clone, Debug)]
pub struct WindowAverage {
    /// Size of a window `[z, y, x]` in voxels.
    pub window: [usize; 3],
    /// How much each voxel counts, `[z, y, x]` in single precision; none where all count alike.
    pub importance: Option<Tensor<3>>,
    /// Whether the values of each pass become probabilities (a softmax over the classes) before they are
    /// averaged.
    pub softmax: bool,
}

/// One of the passes over a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirroredPass {
    /// Axes of `[z, y, x]` along which the window was mirrored.
    pub flips: [bool; 3],
    /// Which of the passes; they come in order.
    pub index: usize,
    /// Number of passes over the window.
    pub count: usize,
}

/// Where a window lies in sums; of its planes all do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowOverlap {
    /// Rows of the sums.
    pub rows: Range<usize>,
    /// Columns of the sums.
    pub columns: Range<usize>,
    /// The row and the column of the window that come first there.
    pub first: [usize; 2],
}

/// Memory that sums take on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowSumsCost {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes of the largest tensor, if it is made as small as it can be.
    pub least_at_once: u64,
}

/// Where a place along an axis of an output lies between two places of an axis of sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinePlace {
    /// The place below.
    pub lower: usize,
    /// The place above; the same where there is nothing between.
    pub upper: usize,
    /// How much the place above counts, from 0 to 1.
    pub weight_upper: f64,
}

/// How the averages of all classes become a label.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelDecision {
    /// The class of the largest; of equal ones the first.
    Largest {
        /// Label of each class.
        labels: Vec<u16>,
    },
    /// Every class above a threshold writes its label, later ones over earlier ones; 0 where none is.
    Above {
        /// Label of each class.
        labels: Vec<u16>,
        /// What has to be exceeded.
        threshold: f32,
    },
}
