use burn::tensor::{Tensor, module, ops::ConvTransposeOptions};

/// Burn's own transposed convolution.
pub fn conv_transpose3d(x: Tensor<5>, weight: Tensor<5>, bias: Tensor<1>) -> Tensor<5> {
    let [_, _, kz, ky, kx] = weight.dims();
    let options = ConvTransposeOptions::new([kz, ky, kx], [0; 3], [0; 3], [1; 3], 1);
    module::conv_transpose3d(x, weight, Some(bias), options)
}
