use crate::concat_channels;
use burn::tensor::{Slice, Tensor, module, ops::ConvOptions};

/// Burn's own convolution.
///
/// # Deviations
/// A kernel of one voxel with a stride reads every `stride`-th voxel and nothing between: those are
/// picked first. CubeCL's gradient of such a convolution is zero (burn-cubecl 0.22.1,
/// `conv_transpose3d` where the kernel is smaller than the stride), and everybody's is slower.
pub fn conv3d(x: Tensor<5>, weight: Tensor<5>, bias: Tensor<1>, stride: [usize; 3]) -> Tensor<5> {
    let [_, _, kz, ky, kx] = weight.dims();
    let padding = [kz / 2, ky / 2, kx / 2];
    let (x, stride) = if [kz, ky, kx] == [1; 3] && stride != [1; 3] {
        (every(x, stride), [1; 3])
    } else {
        (x, stride)
    };
    module::conv3d(x, weight, Some(bias), ConvOptions::new(stride, padding, [1; 3], 1))
}

/// The concatenation, then [`conv3d`].
pub fn conv3d_joined(
    first: Tensor<5>,
    second: Tensor<5>,
    weight: Tensor<5>,
    bias: Tensor<1>,
    stride: [usize; 3],
) -> Tensor<5> {
    conv3d(concat_channels(first, second), weight, bias, stride)
}

/// Every `stride`-th voxel of each axis, from the first.
fn every(x: Tensor<5>, stride: [usize; 3]) -> Tensor<5> {
    let [by_z, by_y, by_x] = stride.map(|step| Slice::new(0, None, step as isize));
    x.slice([Slice::full(), Slice::full(), by_z, by_y, by_x])
}
