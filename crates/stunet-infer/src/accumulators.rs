//! What is asked of those who hold windows until their voxels are final.

use crate::blend::Averaging;
use crate::cutter::Cutter;
use crate::error::InferError;
use serde::Serialize;
use std::ops::{ControlFlow, Range};

/// One pass over one window.
pub(crate) struct WindowPass {
    /// First voxel of the window, in the padded volume.
    pub start: [usize; 3],
    /// Axes along which the window was mirrored.
    pub flips: [bool; 3],
    /// Which of the networks.
    pub fold: usize,
    /// Index among the passes of this network over this window.
    pub index: usize,
    /// Number of those passes.
    pub count: usize,
}

/// The sums of one tile. Windows come in the reference's order, z outermost, the passes of each
/// network one after the other.
pub(crate) trait Accumulators {
    /// No later window begins below plane `z` of the padded volume.
    fn advance(&mut self, z: usize);

    /// Predicts a window and adds its values. Returns the seconds that the network took.
    fn add(&mut self, cutter: &Cutter<'_, '_>, pass: &WindowPass) -> f64;

    /// Adds the weights of a window, once all its passes have been added. Returns the seconds that a device
    /// was waited for.
    fn add_weights(&mut self, start: [usize; 3]) -> Result<f64, InferError>;

    /// No later window reaches these rows of these planes: they are handed out. Breaks when nobody
    /// takes them any more.
    fn close(
        &mut self,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<ControlFlow<()>, InferError>;
}

/// How windows become averages.
pub(crate) struct Averages {
    pub averaging: Averaging,
    pub num_classes: usize,
    pub window: [usize; 3],
    /// `[z, y, x]`; none where every voxel counts alike.
    pub importance: Option<Vec<f32>>,
    pub num_passes: usize,
    /// Whether feature maps are averaged over the passes before the head, where that can wait and is affine.
    pub passes_first: bool,
    /// Passes that a device computes at once, at most.
    pub at_once: usize,
}

/// What of the windows is held until their voxels are final, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Sums of all classes, on the host.
    #[default]
    Sums,
    /// The last feature maps, on the host, where the networks have a [head](crate::network::Featured)
    /// that can wait: fewer bytes for a network with fewer feature maps than classes. The labels are
    /// those of sums, bit by bit.
    Features,
    /// Sums of the last feature maps, on the host, where windows are averaged as logits in f32 and the
    /// networks have a [head](crate::network::Featured) that is affine: it is computed once for each voxel
    /// instead of once for each window over it. Fewest bytes and least time for a network with fewer
    /// feature maps than classes. Where this cannot be, as [`Features`](Self::Features).
    ///
    /// The labels are those of sums but for f32's rounding: the terms of each are added in another order.
    FeatureSums,
    /// Sums of all classes, on the networks' device; those in half precision are kept on the host.
    ///
    /// The labels are those of sums on the host but for the rounding of the device.
    DeviceSums,
}
