//! Instance normalisation, alone and together with what follows it in a residual block.

pub(crate) mod reference;

#[cfg(feature = "gpu")]
use crate::operators::Parts;
#[cfg(feature = "_own")]
use crate::operators::{Affine, Maybe, Operators};
#[cfg(feature = "_own")]
use crate::own::{Own, takes};
#[cfg(feature = "gpu")]
use crate::residual::{Added, Waiting};
use crate::steps::note;
use crate::{Algorithm, Measured, Residual};
#[cfg(feature = "_own")]
use burn::backend::Dispatch;
use burn::tensor::Tensor;

/// The learned scale and shift of a norm, with its epsilon.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Scale, `[C]`.
    pub weight: Tensor<1>,
    /// Shift, `[C]`.
    pub bias: Tensor<1>,
    /// Added to the variance under the root.
    pub epsilon: f64,
}

/// Normalises each channel of each sample over space, then scales and shifts:
/// `(x - mean) / sqrt(variance + epsilon) * weight + bias`, with the biased variance.
///
/// # Shapes
/// `[N, C, Z, Y, X]` in and out.
///
/// # Panics
/// When there is a single voxel: its variance is 0 and its information would be lost. PyTorch
/// refuses it as well.
///
/// # Source
/// `torch.nn.InstanceNorm3d(affine=True)` without running statistics.
pub fn instance_norm(x: Tensor<5>, norm: Norm) -> Tensor<5> {
    assert_more_than_one_voxel(&x);
    #[cfg(feature = "_own")]
    if own_takes(&x, &norm, 1.0, false).is_some() {
        note("instance_norm", Algorithm::Fused, x.dims(), None);
        return own(x.into(), norm, None, 1.0);
    }
    note("instance_norm", Algorithm::Reference, x.dims(), None);
    reference::instance_norm(x, norm)
}

/// [`instance_norm`], then [`leaky_relu`](crate::leaky_relu).
///
/// # Shapes
/// `[N, C, Z, Y, X]` in and out.
///
/// # Panics
/// As [`instance_norm`].
pub fn norm_activation(x: Tensor<5>, norm: Norm, slope: f64) -> Tensor<5> {
    Measured::from(x).norm_activation(norm, slope)
}

/// [`instance_norm`], plus `residual`, then [`leaky_relu`](crate::leaky_relu).
///
/// # Shapes
/// `[N, C, Z, Y, X]` in both arguments and out.
///
/// # Panics
/// As [`instance_norm`], and when the shapes differ.
pub fn norm_residual_activation(
    x: Tensor<5>,
    norm: Norm,
    residual: Tensor<5>,
    slope: f64,
) -> Tensor<5> {
    Measured::from(x).norm_residual_activation(norm, residual, slope)
}

impl Measured {
    /// [`norm_activation`] of the features.
    ///
    /// # Panics
    /// As [`norm_activation`].
    pub fn norm_activation(self, norm: Norm, slope: f64) -> Tensor<5> {
        let x = &self.features;
        assert_more_than_one_voxel(x);
        #[cfg(feature = "_own")]
        if own_takes(x, &norm, slope, false).is_some() {
            note("norm_activation", Algorithm::Fused, x.dims(), None);
            return own(self, norm, None, slope);
        }
        note("norm_activation", Algorithm::Reference, x.dims(), None);
        reference::norm_activation(self.features, norm, slope)
    }

    /// [`norm_activation`] of the features, then [`conv3d_measured`](crate::conv3d_measured): where no gradient
    /// is wanted, what lies between is never written.
    ///
    /// # Panics
    /// As those two.
    pub fn norm_conv3d_measured(
        self,
        norm: Norm,
        slope: f64,
        weight: Tensor<5>,
        bias: Tensor<1>,
        stride: [usize; 3],
    ) -> Self {
        #[cfg(feature = "_own")]
        if let Some(own) = crate::conv3d::own_measures(&[&self.features], &weight, &bias, stride)
            .filter(|own| own_takes(&self.features, &norm, slope, false) == Some(*own))
        {
            assert_more_than_one_voxel(&self.features);
            let dims = self.features.dims();
            let (weight, algorithm) = crate::conv3d::prepare(own, dims, weight, stride);
            note("norm_activation", Algorithm::Fused, dims, None);
            note("conv3d", algorithm, dims, Some(weight.dims()));
            let conv = Affine { weight: weight.into_dispatch(), bias: bias.into_dispatch() };
            return own_normed(self, norm, slope, conv, stride);
        }
        crate::conv3d_measured(self.norm_activation(norm, slope), weight, bias, stride)
    }

    /// [`norm_residual_activation`] of the features: plus a tensor, or a convolution that is computed while it is added.
    ///
    /// # Panics
    /// As [`norm_residual_activation`].
    pub fn norm_residual_activation(
        self,
        norm: Norm,
        residual: impl Into<Residual>,
        slope: f64,
    ) -> Tensor<5> {
        let residual = residual.into();
        let x = &self.features;
        assert_more_than_one_voxel(x);
        #[cfg(feature = "gpu")]
        let residual = match residual.0 {
            Added::Waiting(waiting)
                if waiting.dims()[1] == x.dims()
                    && waiting.weight.dtype() == x.dtype()
                    && own_takes(x, &norm, slope, true) == Some(Own::Gpu) =>
            {
                return own_convolved(self, norm, slope, waiting);
            }
            residual => Residual(residual),
        };
        let residual = residual.into_tensor();
        assert_eq!(x.dims(), residual.dims(), "the residual must have the shape of the input");
        #[cfg(feature = "_own")]
        if residual.dtype() == x.dtype()
            && own_takes(x, &norm, slope, true).is_some_and(|own| takes(&residual) == Some(own))
        {
            note("norm_residual_activation", Algorithm::Fused, x.dims(), None);
            return own(self, norm, Some(residual), slope);
        }
        note("norm_residual_activation", Algorithm::Reference, x.dims(), None);
        reference::norm_residual_activation(self.features, norm, residual, slope)
    }
}

/// Whose operator of this crate computes this norm. After the sum with a residual, the backward pass reads
/// the sign before the activation off the sign after it, so the slope must be positive; the processor's
/// operator asks that of all.
#[cfg(feature = "_own")]
fn own_takes(x: &Tensor<5>, norm: &Norm, slope: f64, residual: bool) -> Option<Own> {
    let [n, c, ..] = x.dims();
    let fits = n * c > 0 && norm.weight.dims() == [c] && norm.bias.dims() == [c];
    let fits = fits && norm.weight.dtype() == norm.bias.dtype();
    let own = takes(x).filter(|_| fits)?;
    let has_slope = match own {
        #[cfg(feature = "cpu")]
        Own::Cpu => slope > 0.0,
        #[cfg(feature = "gpu")]
        Own::Gpu => slope > 0.0 || !residual,
    };
    let _ = residual;
    let alike = [&norm.weight, &norm.bias].iter().all(|v| takes(v) == Some(own));
    (has_slope && alike).then_some(own)
}

#[cfg(feature = "_own")]
fn own(x: Measured, norm: Norm, residual: Option<Tensor<5>>, slope: f64) -> Tensor<5> {
    let moments = Maybe::of(x.moments.map(Tensor::into_dispatch));
    let (weight, bias) = (norm.weight.into_dispatch(), norm.bias.into_dispatch());
    let (x, residual) =
        (x.features.into_dispatch(), Maybe::of(residual.map(Tensor::into_dispatch)));
    let how = [norm.epsilon, slope];
    Tensor::from_dispatch(Dispatch::stunet_norm(x, moments, weight, bias, residual, how))
}

/// The norm, the convolution beside it, their sum and the activation in one.
#[cfg(feature = "gpu")]
fn own_convolved(x: Measured, norm: Norm, slope: f64, waiting: Waiting) -> Tensor<5> {
    let [dims, _] = waiting.dims();
    let Waiting { first, second, weight, bias, stride } = waiting;
    let (weight, algorithm) = crate::conv3d::prepare(Own::Gpu, dims, weight, stride);
    let name = if second.is_some() { "conv3d_joined" } else { "conv3d" };
    note(name, algorithm, dims, Some(weight.dims()));
    note("norm_residual_activation", Algorithm::Fused, x.dims(), None);
    let (first, factor) = first.into_parts();
    let parts = Parts::of(first.into_dispatch(), second.map(Tensor::into_dispatch));
    let moments = Maybe::of(x.moments.map(Tensor::into_dispatch));
    let how = [norm.epsilon, slope];
    let norm = Affine { weight: norm.weight.into_dispatch(), bias: norm.bias.into_dispatch() };
    let conv = Affine { weight: weight.into_dispatch(), bias: bias.into_dispatch() };
    let (x, sizes) = (x.features.into_dispatch(), [factor, stride]);
    Tensor::from_dispatch(Dispatch::stunet_norm_convolved(
        x, moments, norm, how, parts, conv, sizes,
    ))
}

/// The norm and the convolution behind it in one.
#[cfg(feature = "_own")]
fn own_normed(
    x: Measured,
    norm: Norm,
    slope: f64,
    conv: Affine<Dispatch>,
    stride: [usize; 3],
) -> Measured {
    let moments = Maybe::of(x.moments.map(Tensor::into_dispatch));
    let (how, x) = ([norm.epsilon, slope], x.features.into_dispatch());
    let norm = Affine { weight: norm.weight.into_dispatch(), bias: norm.bias.into_dispatch() };
    let (features, moments) =
        Dispatch::stunet_norm_conv3d_measured(x, moments, norm, how, conv, stride);
    let moments = moments.into_option().map(Tensor::from_dispatch);
    Measured { features: Tensor::from_dispatch(features), moments }
}

fn assert_more_than_one_voxel(x: &Tensor<5>) {
    let [_, _, z, y, x] = x.dims();
    assert!(
        z * y * x > 1,
        "instance norm needs more than one voxel per channel, found {z}x{y}x{x}: \
         the patch is too small for the strides"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData, Tolerance};

    fn norm(device: &Device) -> Norm {
        Norm {
            weight: Tensor::from_data([2f32, 0.5], device),
            bias: Tensor::from_data([1f32, -1.0], device),
            epsilon: 1e-5,
        }
    }

    #[test]
    fn matches_hand_computed_statistics() {
        let device = Device::flex();
        // Channel 0: mean 2, variance 1; channel 1: constant.
        let x = TensorData::new(vec![1f32, 3.0, 7.0, 7.0], [1, 2, 1, 1, 2]);
        let found = instance_norm(Tensor::from_data(x, &device), norm(&device)).into_data();
        let s = 2.0 / (1.0f32 + 1e-5).sqrt();
        let expected = TensorData::new(vec![1.0 - s, 1.0 + s, -1.0, -1.0], [1, 2, 1, 1, 2]);
        found.assert_approx_eq::<f32>(&expected, Tolerance::default());
    }

    #[test]
    #[should_panic(expected = "more than one voxel")]
    fn refuses_a_single_voxel() {
        let device = Device::flex();
        instance_norm(Tensor::ones([1, 2, 1, 1, 1], &device), norm(&device));
    }
}
