//! A 1×1×1 convolution of voxels that are on the host already, row by row.

use burn::tensor::{Tensor, f16};
use std::ops::Range;

/// A 1×1×1 convolution whose caller decides which voxels are computed when, such as the last layer of a
/// network whose values would not fit a cache.
///
/// Every value is that of [`conv3d`](crate::conv3d) on the processor, bit by bit.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use stunet_kernels::PointwiseRows;
///
/// let device = Device::flex();
/// let weight = Tensor::<5>::from_data([[[[[1.0f32]]], [[[2.0]]]]], &device);
/// let bias = Tensor::<1>::from_data([0.5f32], &device);
/// if let Some(sum) = PointwiseRows::new(weight, bias) {
///     let mut to = [0.0; 2];
///     // Two channels of three voxels, of which the last two are asked for.
///     sum.run(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0], 3, 1..3, &mut to);
///     assert_eq!(to, [42.5, 63.5]);
/// }
/// ```
#[derive(Clone, Debug)]
pub struct PointwiseRows {
    /// `[Cout, Cin]`.
    weight: Vec<f32>,
    /// `[Cout]`.
    bias: Vec<f32>,
}

/// Sums in half precision, and how values count that are added to them.
///
/// The product of a value and its factor is rounded to f32, and its sum with what is there first to f32, then to
/// half precision.
#[derive(Debug)]
pub struct HalfSums<'a> {
    /// Rows of sums `[Cout, columns]`, one for each output channel; what lies between them stays as it is.
    pub values: &'a mut [f16],
    /// Values from the beginning of a row to that of the next.
    pub pitch: usize,
    /// The factor of each column; none where all are 1.
    pub factors: Option<&'a [f32]>,
    /// What will be read next, such as the input of the next call: it is brought into the cache meanwhile, where the
    /// processor can be asked for that.
    pub next: &'a [f32],
}

impl PointwiseRows {
    /// Copies the parameters; none where the processor's own operators do not take them, as on other
    /// devices, and where the kernel has more than one voxel.
    ///
    /// # Shapes
    /// `weight` is `[Cout, Cin, 1, 1, 1]`, `bias` `[Cout]`.
    ///
    /// # Panics
    /// When there is not one bias for each output channel.
    pub fn new(weight: Tensor<5>, bias: Tensor<1>) -> Option<Self> {
        let [outputs, _, kernel @ ..] = weight.dims();
        assert_eq!(bias.dims(), [outputs], "a bias for each output channel");
        if kernel != [1; 3] {
            return None;
        }
        #[cfg(feature = "cpu")]
        if crate::own::takes(&weight) == Some(crate::own::Own::Cpu)
            && weight.dtype() == bias.dtype()
        {
            let values = |data: burn::tensor::TensorData| data.try_into_vec::<f32>().ok();
            return Some(Self {
                weight: values(weight.into_data())?,
                bias: values(bias.into_data())?,
            });
        }
        None
    }

    /// Input and output channels.
    pub fn channels(&self) -> [usize; 2] {
        [self.weight.len() / self.bias.len().max(1), self.bias.len()]
    }

    /// The convolution of some columns of rows of voxels.
    ///
    /// # Shapes
    /// `input` `[Cin, pitch]` gives `to` `[Cout, columns]`.
    ///
    /// # Panics
    /// When lengths do not fit.
    pub fn run(&self, input: &[f32], pitch: usize, columns: Range<usize>, to: &mut [f32]) {
        #[cfg(feature = "cpu")]
        {
            let isa = crate::cpu::Isa::best();
            crate::cpu::pointwise_rows(
                isa,
                (&self.weight, &self.bias),
                (input, pitch),
                columns,
                to,
            );
        }
        #[cfg(not(feature = "cpu"))]
        unreachable!("none is made: {input:p} {pitch} {columns:?} {to:p}");
    }

    /// Adds what [`run`](Self::run) gives to sums in half precision, without writing it anywhere before.
    ///
    /// # Shapes
    /// `input` `[Cin, pitch]`; the columns are as many as those of the sums.
    ///
    /// # Panics
    /// When lengths do not fit, or without input channels.
    pub fn add_to_halves(
        &self,
        input: &[f32],
        pitch: usize,
        columns: Range<usize>,
        sums: HalfSums<'_>,
    ) {
        #[cfg(feature = "cpu")]
        {
            let isa = crate::cpu::Isa::best();
            let parameters = (self.weight.as_slice(), self.bias.as_slice());
            crate::cpu::add_pointwise_rows(isa, parameters, (input, pitch), columns, sums);
        }
        #[cfg(not(feature = "cpu"))]
        unreachable!("none is made: {input:p} {pitch} {columns:?} {sums:?}");
    }
}
