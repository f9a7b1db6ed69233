//! How often each axis is halved, and where convolutions span it.

/// Edge length that no feature map goes below.
const SMALLEST_EDGE: f64 = 4.0;

/// The stages of a network for one patch, and the patch enlarged to fit them.
///
/// # Shapes
/// Every list has one entry per axis, two or three; `strides` leaves the first stage out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Topology {
    pub strides: Vec<Vec<usize>>,
    /// One more than strides: the last is the bottleneck's.
    pub kernels: Vec<Vec<usize>>,
    pub num_pool: Vec<usize>,
    pub patch: Vec<usize>,
}

impl Topology {
    /// Multiples that the patch is made of.
    pub fn divisors(&self) -> Vec<usize> {
        self.num_pool.iter().map(|n| 1 << n).collect()
    }
}

/// The rule that decides which axes a stage halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// `get_pool_and_conv_props` of nnU-Net 1.7: axes within factor 2 of the smallest spacing.
    V1,
    /// The same of nnU-Net 2: within factor 2 of the smallest spacing among the axes that are large
    /// enough; an axis alone is halved only where three smallest edges fit.
    V2,
}

/// Halves axes until none is left.
///
/// # Source
/// nnU-Net 1.7 `common_utils.py`, nnU-Net 2 `network_topology.py`.
pub(super) fn topology(rule: Rule, spacing: &[f64], patch: &[f64]) -> Topology {
    let axes = spacing.len();
    let mut state = State { spacing: spacing.to_vec(), size: patch.to_vec() };
    let mut kernel = vec![1; axes];
    let (mut strides, mut kernels) = (Vec::new(), Vec::new());
    loop {
        let halved = match rule {
            Rule::V1 => state.axes_v1(),
            Rule::V2 => state.axes_v2(),
        };
        if halved.is_empty() {
            break;
        }
        kernel = match rule {
            Rule::V1 => state.kernel_v1(),
            Rule::V2 => state.kernel_v2(&kernel),
        };
        kernels.push(kernel.clone());
        strides.push((0..axes).map(|axis| if halved.contains(&axis) { 2 } else { 1 }).collect());
        for axis in halved {
            state.spacing[axis] *= 2.0;
            state.size[axis] = (state.size[axis] / 2.0).ceil();
        }
    }
    kernels.push(vec![3; axes]);
    let halvings = |axis: usize| strides.iter().filter(|s: &&Vec<usize>| s[axis] == 2).count();
    let num_pool: Vec<usize> = (0..axes).map(halvings).collect();
    let patch = patch.iter().zip(&num_pool).map(|(n, pool)| next_multiple(*n, 1 << pool)).collect();
    Topology { strides, kernels, num_pool, patch }
}

/// Spacing and size of the feature maps so far.
struct State {
    spacing: Vec<f64>,
    size: Vec<f64>,
}

impl State {
    fn is_large(&self, axis: usize) -> bool {
        self.size[axis] >= 2.0 * SMALLEST_EDGE
    }

    /// Whether the axis' spacing is within factor 2 of `smallest`.
    fn is_fine(&self, axis: usize, smallest: f64) -> bool {
        self.spacing[axis] / smallest < 2.0
    }

    fn axes_v1(&self) -> Vec<usize> {
        let smallest = minimum(&self.spacing);
        let axes = 0..self.size.len();
        axes.filter(|&a| self.is_fine(a, smallest) && self.is_large(a)).collect()
    }

    fn axes_v2(&self) -> Vec<usize> {
        let large: Vec<usize> = (0..self.size.len()).filter(|&a| self.is_large(a)).collect();
        let smallest = large.iter().map(|&a| self.spacing[a]).fold(f64::INFINITY, f64::min);
        let axes: Vec<usize> = large.into_iter().filter(|&a| self.is_fine(a, smallest)).collect();
        match axes[..] {
            [alone] if self.size[alone] < 3.0 * SMALLEST_EDGE => Vec::new(),
            _ => axes,
        }
    }

    /// 3 along the first largest group of axes within factor 2 of one of them.
    fn kernel_v1(&self) -> Vec<usize> {
        let axes = 0..self.spacing.len();
        let mut largest: Vec<usize> = Vec::new();
        for a in axes.clone() {
            let near = |&b: &usize| {
                let (a, b) = (self.spacing[a], self.spacing[b]);
                b / a < 2.0 && a / b < 2.0
            };
            let group: Vec<usize> = axes.clone().filter(near).collect();
            if group.len() > largest.len() {
                largest = group;
            }
        }
        axes.map(|axis| if largest.contains(&axis) { 3 } else { 1 }).collect()
    }

    /// 3 once the axis comes within factor 2 of the smallest spacing, and from then on.
    fn kernel_v2(&self, before: &[usize]) -> Vec<usize> {
        let smallest = minimum(&self.spacing);
        let kernel = |(axis, &before)| {
            if before == 3 || self.is_fine(axis, smallest) { 3 } else { 1 }
        };
        before.iter().enumerate().map(kernel).collect()
    }
}

fn minimum(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The patch may still be a fraction here (a median of an even number of shapes).
fn next_multiple(length: f64, of: usize) -> usize {
    (length / of as f64).ceil() as usize * of
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: Rule, spacing: &[f64], patch: &[f64], num_pool: &[usize], padded: &[usize]) {
        let found = topology(rule, spacing, patch);
        assert_eq!((&found.num_pool[..], &found.patch[..]), (num_pool, padded));
        assert_eq!(found.kernels.len(), found.strides.len() + 1);
        let divisible = found.patch.iter().zip(found.divisors()).all(|(n, of)| n % of == 0);
        assert!(divisible, "{found:?}");
    }

    #[test]
    fn versions_differ() {
        let (spacing, patch) = ([4.5, 0.8, 0.8], [31.0, 92.5, 102.0]);
        check(Rule::V1, &spacing, &patch, &[3, 4, 4], &[32, 96, 112]);
        check(Rule::V2, &spacing, &patch, &[2, 4, 4], &[32, 96, 112]);
        check(Rule::V1, &[3.0; 3], &[26.0, 96.0, 109.0], &[2, 3, 3], &[28, 96, 112]);
        check(Rule::V2, &[3.0; 3], &[26.0, 96.0, 108.5], &[2, 4, 4], &[28, 96, 112]);
        check(Rule::V2, &[1.0, 1.0], &[300.0, 17.0], &[5, 2], &[320, 20]);
        check(Rule::V2, &[1.0; 3], &[128.0; 3], &[5; 3], &[128; 3]);
    }

    #[test]
    fn coarse_axes_wait() {
        let found = topology(Rule::V2, &[4.0, 1.0, 1.0], &[16.0, 64.0, 64.0]);
        assert_eq!(found.strides, [[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]);
        assert_eq!(found.kernels[..3], [[1, 3, 3], [1, 3, 3], [3, 3, 3]]);
    }

    #[test]
    fn small_patches_are_not_halved() {
        let found = topology(Rule::V1, &[1.0; 3], &[7.0, 7.0, 7.0]);
        assert!(found.strides.is_empty());
        assert_eq!((found.patch, found.kernels), (vec![7; 3], vec![vec![3; 3]]));
    }
}
