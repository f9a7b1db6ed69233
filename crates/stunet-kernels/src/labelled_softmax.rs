//! A softmax over classes beside its labels: sums over the voxels, and the gradient of a loss of those.

use burn::tensor::{Int, Tensor};

/// Sums over the voxels that are not ignored.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SoftmaxSums {
    /// Probability where the label is the class, `[N, C]`.
    pub overlap: Vec<f64>,
    /// Probability, `[N, C]`.
    pub predicted: Vec<f64>,
    /// Voxels whose label is the class, `[N, C]`.
    pub labelled: Vec<f64>,
    /// Cross-entropy of all samples.
    pub cross_entropy: f64,
    /// Number of voxels of all samples.
    pub valid: f64,
    /// The smallest and the largest label; none where all are ignored.
    pub labels: Option<[i64; 2]>,
}

/// Slopes of a loss with respect to [`SoftmaxSums`].
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxSlopes {
    /// With respect to `overlap`, `[N, C]`.
    pub overlap: Vec<f64>,
    /// With respect to `predicted`, `[N, C]`.
    pub predicted: Vec<f64>,
    /// With respect to `cross_entropy`.
    pub cross_entropy: f64,
}

/// Logits, of which the softmax is never held: where it is needed it is computed again.
///
/// Written for GPUs alone. Logits are read three times and the gradient is written once; beside it there
/// are two numbers for every voxel.
#[derive(Clone, Debug)]
pub struct LabelledSoftmax {
    #[cfg(feature = "gpu")]
    own: crate::gpu::OwnSoftmax,
}

impl LabelledSoftmax {
    /// Logits, and the sums of their softmax; none where no operator of this crate computes them.
    ///
    /// # Shapes
    /// `logits` are `[N, C, Z, Y, X]` without autodiff, `labels` `[N, Z, Y, X]`. What a label of no class is
    /// taken for is not said, but it shows in [`SoftmaxSums::labels`].
    ///
    /// ```
    /// use burn::tensor::{Device, Int, Tensor};
    /// use stunet_kernels::LabelledSoftmax;
    /// let logits = Tensor::<5>::ones([1, 3, 2, 2, 2], &Device::flex());
    /// let labels = Tensor::<4, Int>::zeros([1, 2, 2, 2], &Device::flex());
    /// assert!(LabelledSoftmax::of(&logits, &labels, None).is_none());
    /// ```
    pub fn of(
        logits: &Tensor<5>,
        labels: &Tensor<4, Int>,
        ignore: Option<i32>,
    ) -> Option<(Self, SoftmaxSums)> {
        #[cfg(feature = "gpu")]
        if crate::gpu::OwnSoftmax::takes(logits) {
            let (own, sums) = crate::gpu::OwnSoftmax::of(logits, labels, ignore);
            let [overlap, predicted, labelled] = sums.of_classes;
            let (cross_entropy, valid, labels) = (sums.cross_entropy, sums.valid, sums.labels);
            let sums = SoftmaxSums { overlap, predicted, labelled, cross_entropy, valid, labels };
            return Some((Self { own }, sums));
        }
        let _ = (logits, labels, ignore);
        None
    }

    /// The gradient with respect to the logits, of their type.
    ///
    /// # Panics
    /// When there are not as many slopes as classes of all samples.
    pub fn gradient(&self, slopes: &SoftmaxSlopes) -> Tensor<5> {
        #[cfg(feature = "gpu")]
        return self.own.gradient([&slopes.overlap, &slopes.predicted], slopes.cross_entropy);
        #[cfg(not(feature = "gpu"))]
        unreachable!("of {slopes:?}: made on GPUs alone")
    }
}
