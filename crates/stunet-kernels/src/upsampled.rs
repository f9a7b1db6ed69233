//! A tensor whose voxels are repeated, to lie beside another one.

#[cfg(feature = "_own")]
use crate::Algorithm;
#[cfg(feature = "_own")]
use crate::conv3d::{own_repeats, own_takes, prepare, upsampled};
#[cfg(feature = "_own")]
use crate::instance_norm::own_convolved;
#[cfg(feature = "_own")]
use crate::operators::Parts;
#[cfg(feature = "_own")]
use crate::steps::note;
use crate::{Measured, Norm, conv3d_joined, conv3d_joined_measured, upsample_nearest};
use burn::tensor::Tensor;

/// A tensor whose voxels are repeated by whole factors.
///
/// Where no gradient is wanted they are repeated while they are read; elsewhere they are written once.
#[derive(Clone, Debug)]
pub struct Upsampled(Repeats);

#[derive(Clone, Debug)]
enum Repeats {
    Written(Tensor<5>),
    #[cfg(feature = "_own")]
    Read(Tensor<5>, [usize; 3]),
}

impl From<Tensor<5>> for Upsampled {
    /// A tensor as it is.
    fn from(x: Tensor<5>) -> Self {
        Self(Repeats::Written(x))
    }
}

impl Upsampled {
    /// [`upsample_nearest`] of `x`, to lie beside another tensor.
    ///
    /// # Shapes
    /// `[N, C, Z, Y, X]` stands for `[N, C, fz Z, fy Y, fx X]`.
    pub fn new(x: Tensor<5>, factor: [usize; 3]) -> Self {
        #[cfg(feature = "_own")]
        if crate::own::takes(&x).is_some()
            && !x.device().is_autodiff()
            && !x.dims().contains(&0)
            && !factor.contains(&0)
        {
            let dims = x.dims();
            note("upsample_nearest", Algorithm::Fused, dims, None);
            return Self(Repeats::Read(x, factor));
        }
        upsample_nearest(x, factor).into()
    }

    /// [`conv3d_joined`] of this and what lies beside it, without strides.
    ///
    /// # Panics
    /// As [`conv3d_joined`].
    pub fn conv3d_joined(self, second: Tensor<5>, weight: Tensor<5>, bias: Tensor<1>) -> Tensor<5> {
        match self.0 {
            Repeats::Written(x) => conv3d_joined(x, second, weight, bias, [1; 3]),
            #[cfg(feature = "_own")]
            Repeats::Read(x, factor) => match own_repeats(&x, factor, &second, (&weight, &bias)) {
                Some(own) => upsampled(own, (x, factor), second, (weight, bias), false).features,
                None => conv3d_joined(upsample_nearest(x, factor), second, weight, bias, [1; 3]),
            },
        }
    }

    /// [`conv3d_joined_measured`] of this and what lies beside it, without strides.
    ///
    /// # Panics
    /// As [`conv3d_joined_measured`].
    pub fn conv3d_joined_measured(
        self,
        second: Tensor<5>,
        weight: Tensor<5>,
        bias: Tensor<1>,
    ) -> Measured {
        match self.0 {
            Repeats::Written(x) => conv3d_joined_measured(x, second, weight, bias, [1; 3]),
            #[cfg(feature = "_own")]
            Repeats::Read(x, factor) => match own_repeats(&x, factor, &second, (&weight, &bias)) {
                Some(own) => upsampled(own, (x, factor), second, (weight, bias), true),
                None => {
                    let x = upsample_nearest(x, factor);
                    conv3d_joined_measured(x, second, weight, bias, [1; 3])
                }
            },
        }
    }

    /// [`conv3d_joined`](Self::conv3d_joined), added to the norm of `features` before the activation: on a GPU what is
    /// added is never written.
    ///
    /// # Panics
    /// As [`conv3d_joined`](Self::conv3d_joined) and [`Measured::norm_residual_activation`].
    pub fn conv3d_joined_normed(
        self,
        second: Tensor<5>,
        (weight, bias): (Tensor<5>, Tensor<1>),
        features: Measured,
        norm: Norm,
        slope: f64,
    ) -> Tensor<5> {
        #[cfg(feature = "_own")]
        {
            let (first, factor) = match &self.0 {
                Repeats::Written(x) => (x, [1; 3]),
                Repeats::Read(x, factor) => (x, *factor),
            };
            let own = match &self.0 {
                Repeats::Written(x) => own_takes(&[x, &second], &weight, &bias, [1; 3]),
                Repeats::Read(x, factor) => own_repeats(x, *factor, &second, (&weight, &bias)),
            };
            if let Some(own) = own.filter(|own| features.adds(*own, &norm, slope, &weight)) {
                let mut joined = second.dims();
                joined[1] += first.dims()[1];
                let (weight, algorithm) = prepare(own, joined, weight, [1; 3]);
                note("conv3d_joined", algorithm, joined, Some(weight.dims()));
                note("norm_residual_activation", Algorithm::Fused, features.dims(), None);
                // Nobody else holds what goes in.
                let first = match self.0 {
                    Repeats::Written(x) | Repeats::Read(x, _) => x,
                };
                let parts = Parts::Two(first.into_dispatch(), second.into_dispatch());
                let how = [factor, [1; 3]];
                return own_convolved(features, norm, slope, parts, (weight, bias), how);
            }
        }
        let residual = self.conv3d_joined(second, weight, bias);
        features.norm_residual_activation(norm, residual, slope)
    }
}
