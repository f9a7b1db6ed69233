//! The passes on CubeCL's tensors.

use super::conv::{self, Around};
use super::launch::{channels_last, tensor};
use super::{norm, voxels};
use crate::kernels::{ConvolvedResidual, Kernels, NormGradients, NormParameters};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

impl Kernels for CubeBackend {
    /// What the norm does to a channel: mean, inverse deviation, scale and shift, `[N, C, 4]`.
    type Statistics = CubeTensor;

    fn conv(
        parts: Vec<CubeTensor>,
        weight: CubeTensor,
        bias: CubeTensor,
        stride: [usize; 3],
    ) -> CubeTensor {
        conv::forward(parts, &weight, bias, stride, Around::default()).0
    }

    fn conv_measured(
        parts: Vec<CubeTensor>,
        weight: CubeTensor,
        bias: CubeTensor,
        stride: [usize; 3],
    ) -> (CubeTensor, Option<CubeTensor>) {
        conv::forward(parts, &weight, bias, stride, Around { measured: true, ..Around::default() })
    }

    fn conv_normed(
        x: CubeTensor,
        moments: Option<CubeTensor>,
        norm: &NormParameters<CubeTensor>,
        [weight, bias]: [CubeTensor; 2],
        stride: [usize; 3],
    ) -> (CubeTensor, Option<CubeTensor>) {
        let x = channels_last(x);
        let reads_by = Some(norm::statistics_of(&x, moments, norm));
        let around = Around { reads_by, slope: norm.slope, measured: true, ..Around::default() };
        conv::forward(vec![tensor(x)], &weight, bias, stride, around)
    }

    fn conv_upsampled(
        [coarse, second]: [CubeTensor; 2],
        factor: [usize; 3],
        [weight, bias]: [CubeTensor; 2],
        measured: bool,
    ) -> (CubeTensor, Option<CubeTensor>) {
        let around = Around { factor, measured, ..Around::default() };
        conv::forward(vec![coarse, second], &weight, bias, [1; 3], around)
    }

    fn conv_input_gradient(
        gradient: &CubeTensor,
        parts: &[CubeTensor],
        weight: &CubeTensor,
        stride: [usize; 3],
    ) -> Vec<CubeTensor> {
        conv::input_gradient(gradient, parts, weight, stride)
    }

    fn conv_weight_gradient(
        gradient: &CubeTensor,
        parts: &[CubeTensor],
        weight: &CubeTensor,
        stride: [usize; 3],
    ) -> CubeTensor {
        conv::weight_gradient(gradient, parts, weight, stride)
    }

    fn conv_bias_gradient(gradient: &CubeTensor) -> CubeTensor {
        norm::channel_sums(gradient)
    }

    fn norm(
        x: CubeTensor,
        moments: Option<CubeTensor>,
        parameters: &NormParameters<CubeTensor>,
        residual: Option<CubeTensor>,
    ) -> (CubeTensor, CubeTensor) {
        norm::forward(x, moments, parameters, residual)
    }

    fn norm_convolved(
        x: CubeTensor,
        moments: Option<CubeTensor>,
        parameters: &NormParameters<CubeTensor>,
        residual: ConvolvedResidual<CubeTensor>,
    ) -> (CubeTensor, CubeTensor) {
        conv::normed_and_added(x, moments, parameters, residual)
    }

    fn norm_gradients(
        gradient: CubeTensor,
        x: CubeTensor,
        output: Option<CubeTensor>,
        parameters: &NormParameters<CubeTensor>,
        statistics: &CubeTensor,
    ) -> NormGradients<CubeTensor> {
        norm::gradients(gradient, x, output, parameters, statistics)
    }

    fn prepared(weight: CubeTensor) -> CubeTensor {
        conv::prepare(weight)
    }

    fn upsample(x: CubeTensor, factor: [usize; 3]) -> CubeTensor {
        voxels::upsample(x, factor)
    }

    fn upsample_gradient(gradient: CubeTensor, factor: [usize; 3]) -> CubeTensor {
        voxels::upsample_gradient(gradient, factor)
    }

    fn interleave(x: CubeTensor, factor: [usize; 3]) -> CubeTensor {
        voxels::interleave(x, factor)
    }

    fn separate(x: CubeTensor, factor: [usize; 3]) -> CubeTensor {
        voxels::separate(x, factor)
    }
}
