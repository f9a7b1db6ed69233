//! The activation: leaky ReLU.

pub(crate) mod reference;

use crate::Algorithm;
use crate::steps::note;
use burn::tensor::Tensor;

/// `x` where positive, else `slope * x`.
///
/// # Shapes
/// `[N, C, Z, Y, X]` in and out.
pub fn leaky_relu(x: Tensor<5>, slope: f64) -> Tensor<5> {
    note("leaky_relu", Algorithm::Reference, x.dims(), None);
    reference::leaky_relu(x, slope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn keeps_positive_and_scales_negative() {
        let x = TensorData::new(vec![-2f32, 0.0, 3.0], [1, 1, 1, 1, 3]);
        let y = leaky_relu(Tensor::from_data(x, &Device::flex()), 0.5).into_data();
        assert_eq!(y.try_to_vec::<f32>().unwrap(), [-1.0, 0.0, 3.0]);
    }
}
