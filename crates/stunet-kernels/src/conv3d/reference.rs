use burn::tensor::{Tensor, module, ops::ConvOptions};

/// Burn's own convolution.
pub fn conv3d(x: Tensor<5>, weight: Tensor<5>, bias: Tensor<1>, stride: [usize; 3]) -> Tensor<5> {
    let [_, _, kz, ky, kx] = weight.dims();
    let padding = [kz / 2, ky / 2, kx / 2];
    module::conv3d(x, weight, Some(bias), ConvOptions::new(stride, padding, [1; 3], 1))
}
