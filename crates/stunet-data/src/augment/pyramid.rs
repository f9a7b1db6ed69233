//! Targets of deep supervision: labels at every scale of the network's outputs.

use ndarray::{Array3, ArrayView3, Axis};

/// Scales of the outputs, finest first, from the encoder's strides.
///
/// # Source
/// nnU-Net: `[1, 1, 1]` and the inverse cumulative products of the strides, without the last.
///
/// ```
/// use stunet_data::augment::deep_supervision_scales;
/// let scales = deep_supervision_scales(&[[1, 2, 2], [2, 2, 2], [2, 2, 2]]);
/// assert_eq!(scales, [[1.0, 1.0, 1.0], [1.0, 0.5, 0.5], [0.5, 0.25, 0.25]]);
/// ```
pub fn deep_supervision_scales(strides: &[[usize; 3]]) -> Vec<[f64; 3]> {
    let mut product = [1; 3];
    let mut scales = vec![[1.0; 3]];
    for stride in strides.iter().take(strides.len().saturating_sub(1)) {
        product = std::array::from_fn(|axis| product[axis] * stride[axis]);
        scales.push(product.map(|p| 1.0 / p as f64));
    }
    scales
}

/// Labels at every scale, finest first.
pub fn target_pyramid(labels: Array3<i16>, scales: &[[f64; 3]]) -> Vec<Array3<i16>> {
    let scaled = |scale: &[f64; 3]| match *scale == [1.0; 3] {
        true => labels.clone(),
        false => downsample_labels(labels.view(), *scale),
    };
    scales.iter().map(scaled).collect()
}

/// Labels at another scale: the nearest voxel of the (half-to-even) rounded shape.
///
/// # Source
/// `DownsampleSegForDSTransform2` with order 0: voxel `floor((i + 0.5) * n / m)`.
pub fn downsample_labels(labels: ArrayView3<'_, i16>, scale: [f64; 3]) -> Array3<i16> {
    let n: [usize; 3] = std::array::from_fn(|axis| labels.shape()[axis]);
    let m: [usize; 3] =
        std::array::from_fn(|axis| (n[axis] as f64 * scale[axis]).round_ties_even() as usize);
    let taps: [Vec<usize>; 3] = std::array::from_fn(|axis| nearest(n[axis], m[axis]));
    let planes = labels.select(Axis(0), &taps[0]);
    let rows = planes.select(Axis(1), &taps[1]);
    rows.select(Axis(2), &taps[2])
}

/// Index of the voxel nearest to each of `m`; halves go up.
pub(super) fn nearest(n: usize, m: usize) -> Vec<usize> {
    let index = |i: usize| ((i as f64 + 0.5) * (n as f64 / m as f64)).floor() as usize;
    (0..m).map(|i| index(i).min(n - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stage that does not shrink its input has targets of its own all the same.
    #[test]
    fn as_many_targets_as_scales() {
        let check = |strides: &[[usize; 3]], shapes: &[[usize; 3]]| {
            let labels = Array3::from_shape_fn([4, 6, 8], |(z, y, x)| (z + y + x) as i16);
            let targets = target_pyramid(labels, &deep_supervision_scales(strides));
            let found: Vec<[usize; 3]> = targets.iter().map(|t| t.dim().into()).collect();
            assert_eq!(found, shapes, "{strides:?}");
        };
        check(&[[2; 3], [1; 3]], &[[4, 6, 8], [2, 3, 4]]);
        check(&[[1; 3], [2; 3], [1; 3]], &[[4, 6, 8], [4, 6, 8], [2, 3, 4]]);
        check(&[[2; 3], [1; 3], [1; 3]], &[[4, 6, 8], [2, 3, 4], [2, 3, 4]]);
        check(&[[1, 2, 2], [1; 3]], &[[4, 6, 8], [4, 3, 4]]);
    }
}
