//! A tensor whose voxels are repeated, to lie beside another one.

#[cfg(feature = "_own")]
use crate::Algorithm;
#[cfg(feature = "_own")]
use crate::conv3d::{own_repeats, upsampled};
#[cfg(feature = "_own")]
use crate::steps::note;
use crate::{Measured, conv3d_joined, conv3d_joined_measured, upsample_nearest};
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

    /// The tensor in memory, and how often each of its voxels is repeated.
    #[cfg(feature = "gpu")]
    pub(crate) fn parts(&self) -> (&Tensor<5>, [usize; 3]) {
        match &self.0 {
            Repeats::Written(x) => (x, [1; 3]),
            Repeats::Read(x, factor) => (x, *factor),
        }
    }

    /// [`parts`](Self::parts) that nobody else holds.
    #[cfg(feature = "gpu")]
    pub(crate) fn into_parts(self) -> (Tensor<5>, [usize; 3]) {
        match self.0 {
            Repeats::Written(x) => (x, [1; 3]),
            Repeats::Read(x, factor) => (x, factor),
        }
    }
}
