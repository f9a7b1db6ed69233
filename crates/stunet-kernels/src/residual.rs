//! What is added to a norm before its activation.

use crate::Upsampled;
#[cfg(feature = "gpu")]
use crate::conv3d::{own_repeats, own_takes};
#[cfg(feature = "gpu")]
use crate::own::Own;
use burn::tensor::Tensor;

/// What [`Measured::norm_residual_activation`](crate::Measured::norm_residual_activation) adds: a tensor, or a
/// convolution that a GPU computes while it adds it, so that it is never written.
#[derive(Clone, Debug)]
pub struct Residual(pub(crate) Added);

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // There are few at a time.
pub(crate) enum Added {
    /// As it is.
    Written(Tensor<5>),
    /// Yet to be computed.
    #[cfg(feature = "gpu")]
    Waiting(Waiting),
}

/// A convolution that its norm computes.
#[cfg(feature = "gpu")]
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub first: Upsampled,
    /// What lies beside the first along the channels.
    pub second: Option<Tensor<5>>,
    pub weight: Tensor<5>,
    pub bias: Tensor<1>,
    pub stride: [usize; 3],
}

impl From<Tensor<5>> for Residual {
    fn from(x: Tensor<5>) -> Self {
        Self(Added::Written(x))
    }
}

impl Residual {
    /// [`conv3d`](crate::conv3d) of `x`.
    ///
    /// # Shapes
    /// As [`conv3d`](crate::conv3d).
    ///
    /// # Panics
    /// As [`conv3d`](crate::conv3d).
    #[must_use]
    pub fn convolved(x: Tensor<5>, weight: Tensor<5>, bias: Tensor<1>, stride: [usize; 3]) -> Self {
        #[cfg(feature = "gpu")]
        if own_takes(&[&x], &weight, &bias, stride) == Some(Own::Gpu) {
            let (first, second) = (x.into(), None);
            return Self(Added::Waiting(Waiting { first, second, weight, bias, stride }));
        }
        crate::conv3d(x, weight, bias, stride).into()
    }

    /// [`Upsampled::conv3d_joined`] of two tensors.
    ///
    /// # Shapes
    /// As [`Upsampled::conv3d_joined`].
    ///
    /// # Panics
    /// As [`Upsampled::conv3d_joined`].
    #[must_use]
    pub fn convolved_joined(
        first: Upsampled,
        second: Tensor<5>,
        weight: Tensor<5>,
        bias: Tensor<1>,
    ) -> Self {
        #[cfg(feature = "gpu")]
        {
            let (x, factor) = first.parts();
            let own = match factor {
                [1, 1, 1] => own_takes(&[x, &second], &weight, &bias, [1; 3]),
                factor => own_repeats(x, factor, &second, (&weight, &bias)),
            };
            if own == Some(Own::Gpu) {
                let (second, stride) = (Some(second), [1; 3]);
                return Self(Added::Waiting(Waiting { first, second, weight, bias, stride }));
            }
        }
        first.conv3d_joined(second, weight, bias).into()
    }

    /// The tensor, computed if it has not been yet.
    #[must_use]
    pub fn into_tensor(self) -> Tensor<5> {
        match self.0 {
            Added::Written(x) => x,
            #[cfg(feature = "gpu")]
            Added::Waiting(Waiting { first, second, weight, bias, stride }) => match second {
                Some(second) => first.conv3d_joined(second, weight, bias),
                None => crate::conv3d(first.into_parts().0, weight, bias, stride),
            },
        }
    }
}

#[cfg(feature = "gpu")]
impl Waiting {
    /// The dimensions of the input, all parts of it, and of the convolution.
    pub fn dims(&self) -> [[usize; 5]; 2] {
        let (x, factor) = self.first.parts();
        let [n, channels, size @ ..] = x.dims();
        let beside = self.second.as_ref().map_or(0, |second| second.dims()[1]);
        let [z, y, x]: [usize; 3] = std::array::from_fn(|axis| size[axis] * factor[axis]);
        let [oz, oy, ox] = std::array::from_fn(|axis| [z, y, x][axis].div_ceil(self.stride[axis]));
        [[n, channels + beside, z, y, x], [n, self.weight.dims()[0], oz, oy, ox]]
    }
}
