//! Where each output voxel looks along one axis, and with which weights.

/// Neighbours and weights of a linear (or nearest) resize along one axis.
///
/// Output `i` is `input[lower[i]] * (1 - weight_upper[i]) + input[upper[i]] * weight_upper[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisTaps {
    /// Index of the lower neighbour.
    pub lower: Vec<usize>,
    /// Index of the upper neighbour.
    pub upper: Vec<usize>,
    /// Weight of the upper neighbour, in [0, 1).
    pub weight_upper: Vec<f64>,
}

impl AxisTaps {
    /// Linear, `n` voxels to `m`.
    pub fn linear(n: usize, m: usize) -> Self {
        let positions: Vec<f64> = (0..m).map(|i| position(i, n, m)).collect();
        // Indices are clamped, weights are not: at the edges both neighbours are one voxel, and the
        // sum of its two shares is rounded as SciPy rounds it. Ties between labels hang on that.
        let index = |p: f64| p.clamp(0.0, (n - 1) as f64) as usize;
        Self {
            lower: positions.iter().map(|p| index(p.floor())).collect(),
            upper: positions.iter().map(|p| index(p.floor() + 1.0)).collect(),
            weight_upper: positions.iter().map(|p| p - p.floor()).collect(),
        }
    }

    /// The nearest voxel, `n` voxels to `m`.
    pub fn nearest(n: usize, m: usize) -> Self {
        let lower = nearest(n, m);
        Self { upper: lower.clone(), weight_upper: vec![0.0; m], lower }
    }

    /// Number of output voxels.
    pub fn len(&self) -> usize {
        self.lower.len()
    }

    /// True without output voxels.
    pub fn is_empty(&self) -> bool {
        self.lower.is_empty()
    }
}

/// Centre of output voxel `i` of `m` in voxels of the `n` of the input.
pub(super) fn position(i: usize, n: usize, m: usize) -> f64 {
    (i as f64 + 0.5) * (n as f64 / m as f64) - 0.5
}

/// Index of the input voxel nearest to each output voxel; halves go up.
pub(super) fn nearest(n: usize, m: usize) -> Vec<usize> {
    let index = |i| (position(i, n, m) + 0.5).floor().clamp(0.0, (n - 1) as f64);
    (0..m).map(|i| index(i) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_axis_looks_at_itself() {
        let taps = AxisTaps::linear(7, 7);
        assert_eq!(taps.lower, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(taps.weight_upper, [0.0; 7]);
        assert_eq!(nearest(7, 7), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn downsampling_by_two_takes_the_upper_voxel() {
        assert_eq!(nearest(8, 4), [1, 3, 5, 7]);
        assert_eq!(nearest(3, 6), [0, 0, 1, 1, 2, 2]);
    }
}
