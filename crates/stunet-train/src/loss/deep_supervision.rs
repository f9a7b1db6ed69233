//! Deep supervision: the weights of the scales and the targets at each of them.

use ndarray::{Array3, ArrayView3};

/// Weights of `num_outputs` scales, finest first: each half the one before, the coarsest 0, their
/// sum 1. A single output has weight 1.
///
/// # Source
/// nnU-Net 1.7.1 `nnUNetTrainerV2.initialize`, nnU-Net 2.2 `_build_loss`.
///
/// ```
/// use stunet_train::loss::deep_supervision::weights;
/// assert_eq!(weights(5), [8.0 / 15.0, 4.0 / 15.0, 2.0 / 15.0, 1.0 / 15.0, 0.0]);
/// assert_eq!(weights(1), [1.0]);
/// ```
pub fn weights(num_outputs: usize) -> Vec<f64> {
    if num_outputs <= 1 {
        return vec![1.0; num_outputs];
    }
    let mut weights: Vec<f64> = (0..num_outputs as i32).map(|i| 0.5f64.powi(i)).collect();
    weights[num_outputs - 1] = 0.0;
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// Size of the targets relative to the patch at each scale but the bottleneck's, finest first.
///
/// # Source
/// nnU-Net `deep_supervision_scales`: `[1, 1, 1]`, then the inverse of the accumulated strides
/// without the last.
///
/// # Deviations
/// nnU-Net 2.2 takes the strides of the *plan*, which may not be five, while STU-Net always has
/// five outputs: it then drops the surplus of either. Give this function the strides to be used and
/// cut the list yourself to do the same.
pub fn scales(strides: &[[usize; 3]]) -> Vec<[f64; 3]> {
    let mut scale = [1.0f64; 3];
    let mut scales = vec![scale];
    for stride in &strides[..strides.len().saturating_sub(1)] {
        for (axis, s) in stride.iter().enumerate() {
            scale[axis] /= *s as f64;
        }
        scales.push(scale);
    }
    scales
}

/// Labels at each scale by nearest neighbour, finest first.
///
/// # Shapes
/// `[Z, Y, X]` gives `round(size * scale)` per axis, halves to even.
///
/// # Source
/// `skimage.transform.resize(order=0)`: index `floor((i + 0.5) * n / m)`. nnU-Net 2.8's
/// `nearest-exact` takes the same one.
pub fn target_pyramid<T: Copy>(labels: ArrayView3<'_, T>, scales: &[[f64; 3]]) -> Vec<Array3<T>> {
    let (z, y, x) = labels.dim();
    let at_scale = |scale: &[f64; 3]| {
        let size: [usize; 3] = std::array::from_fn(|axis| {
            ([z, y, x][axis] as f64 * scale[axis]).round_ties_even() as usize
        });
        let index = |i: usize, n: usize, m: usize| {
            // In whole numbers: floor((2 i + 1) n / (2 m)).
            ((2 * i + 1) * n / (2 * m)).min(n - 1)
        };
        Array3::from_shape_fn(size, |(k, j, i)| {
            labels[[index(k, z, size[0]), index(j, y, size[1]), index(i, x, size[2])]]
        })
    };
    scales.iter().map(at_scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_of_two_and_four_take_the_voxel_past_the_middle() {
        let labels = Array3::from_shape_fn((1, 4, 8), |(_, y, x)| 10 * y + x);
        let pyramid = target_pyramid(labels.view(), &scales(&[[1, 2, 2], [1, 1, 2], [1, 1, 1]]));
        assert_eq!(pyramid[0], labels);
        assert_eq!(pyramid[1].as_slice().unwrap(), [11, 13, 15, 17, 31, 33, 35, 37]);
        assert_eq!(pyramid[2].as_slice().unwrap(), [12, 16, 32, 36]);
    }

    #[test]
    fn halves_round_to_even() {
        let labels = Array3::<u8>::zeros((10, 6, 5));
        let dims = |scale| target_pyramid(labels.view(), &[[scale; 3]])[0].dim();
        assert_eq!(dims(0.25), (2, 2, 1));
        assert_eq!(dims(0.5), (5, 3, 2));
    }
}
