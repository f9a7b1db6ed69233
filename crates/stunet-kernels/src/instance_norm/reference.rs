use super::Norm;
use crate::leaky_relu::reference::leaky_relu;
use burn::tensor::{DType, Tensor};

/// Two passes for the statistics, as PyTorch computes them; half precision is widened to f32.
///
/// Means are taken axis by axis: an f32 sum over all voxels at once drifts, most of all over equal
/// ones (air around a body), whose rounding errors all point the same way. At 128³ that made the
/// logits of STU-Net-S thirty times less exact than PyTorch's, which sums in f64.
pub fn instance_norm(x: Tensor<5>, norm: Norm) -> Tensor<5> {
    let dtype = x.dtype();
    let half = matches!(dtype, DType::F16 | DType::BF16);
    let x = if half { x.cast(DType::F32) } else { x };
    let [n, c, d, h, w] = x.dims();
    let per_channel = |t: Tensor<1>| {
        let t = if half { t.cast(DType::F32) } else { t };
        t.reshape([1, c, 1])
    };

    let x = x.reshape([n, c, d * h * w]);
    let mean = |t: Tensor<3>| {
        t.reshape([n, c, d, h, w]).mean_dim(4).mean_dim(3).mean_dim(2).reshape([n, c, 1])
    };
    let centred = x.clone() - mean(x);
    let variance = mean(centred.clone().square());
    let scale = per_channel(norm.weight) / (variance + norm.epsilon).sqrt();
    let y = (centred * scale + per_channel(norm.bias)).reshape([n, c, d, h, w]);
    if half { y.cast(dtype) } else { y }
}

/// The norm, then the activation.
pub fn norm_activation(x: Tensor<5>, norm: Norm, slope: f64) -> Tensor<5> {
    leaky_relu(instance_norm(x, norm), slope)
}

/// The norm plus the residual, then the activation.
pub fn norm_residual_activation(
    x: Tensor<5>,
    norm: Norm,
    residual: Tensor<5>,
    slope: f64,
) -> Tensor<5> {
    leaky_relu(instance_norm(x, norm) + residual, slope)
}
