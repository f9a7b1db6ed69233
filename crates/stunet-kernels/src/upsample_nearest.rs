//! Upsampling by repetition.

pub(crate) mod reference;

use crate::Algorithm;
use crate::steps::note;
use burn::tensor::Tensor;

/// Repeats every voxel `factor` times along each axis.
///
/// # Shapes
/// `[N, C, Z, Y, X]` gives `[N, C, fz Z, fy Y, fx X]`.
///
/// # Source
/// `torch.nn.functional.interpolate(mode="nearest")` with whole factors.
pub fn upsample_nearest(x: Tensor<5>, factor: [usize; 3]) -> Tensor<5> {
    #[cfg(feature = "_own")]
    if crate::own::takes(&x).is_some() && !x.dims().contains(&0) && !factor.contains(&0) {
        use crate::operators::Operators;
        use burn::backend::Dispatch;
        note("upsample_nearest", Algorithm::Fused, x.dims(), None);
        return Tensor::from_dispatch(Dispatch::stunet_upsample(x.into_dispatch(), factor));
    }
    note("upsample_nearest", Algorithm::Reference, x.dims(), None);
    reference::upsample_nearest(x, factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn repeats_each_axis_by_its_own_factor() {
        let [c, z, y, x] = [2usize, 2, 3, 2];
        let values: Vec<f32> = (0..c * z * y * x).map(|v| v as f32).collect();
        let data = TensorData::new(values.clone(), [1, c, z, y, x]);
        let up = upsample_nearest(Tensor::from_data(data, &Device::flex()), [1, 2, 3]);
        assert_eq!(up.dims(), [1, c, z, 2 * y, 3 * x]);
        let found = up.into_data().try_to_vec::<f32>().unwrap();
        let mut expected: Vec<f32> = Vec::new();
        for slab in values.chunks(x) {
            let row: Vec<f32> = slab.iter().flat_map(|&v| [v; 3]).collect();
            expected.extend(row.iter().chain(&row));
        }
        assert_eq!(found, expected);
    }
}
