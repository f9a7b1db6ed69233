//! A patch made smaller until its network fits the memory.

use super::pooling::{Rule, Topology, topology};
use crate::error::{Result, invalid};
use std::cell::Cell;

/// Networks that are tried for a plan, at most. Images of 1000³ voxels need some ten thousand.
const MOST_STEPS: u32 = 100_000;

/// How many networks may still be tried.
///
/// Patches shrink by one multiple at a time and low resolutions by a hundredth, so that a shape of 1 by
/// 1 by 10^8 voxels, or spacings that differ by 10^12, would take hours.
pub(super) struct Steps(Cell<u32>);

impl Steps {
    pub fn new() -> Self {
        Self(Cell::new(MOST_STEPS))
    }

    fn take(&self) -> Result<()> {
        let Some(left) = self.0.get().checked_sub(1) else {
            let expected = "shapes and spacings of images";
            let found = format!("some for which {MOST_STEPS} networks were tried without an end");
            return Err(invalid("fingerprint", "shapes_after_crop, spacings", expected, found));
        };
        self.0.set(left);
        Ok(())
    }
}

/// Shrinks the axis that is largest beside `median_shape`, one multiple at a time, until
/// `fits(estimate)`. Returns the network and its estimate.
///
/// The multiple is taken from the network of the smaller patch, so that no valid size is skipped.
///
/// # Errors
/// When no more networks may be tried.
pub(super) fn shrink_to_fit(
    rule: Rule,
    spacing: &[f64],
    start: &[f64],
    median_shape: &[f64],
    estimate: impl Fn(&Topology) -> u64,
    (fits, steps): (impl Fn(u64) -> bool, &Steps),
) -> Result<(Topology, u64)> {
    steps.take()?;
    let mut network = topology(rule, spacing, start);
    let mut size = estimate(&network);
    while !fits(size) {
        steps.take()?;
        let axis = largest_beside(&network.patch, median_shape);
        let step = network.divisors()[axis];
        // A patch of one multiple cannot shrink: the smallest network there is.
        if network.patch[axis] <= step {
            break;
        }
        let mut patch: Vec<f64> = network.patch.iter().map(|n| *n as f64).collect();
        let before = patch[axis];
        patch[axis] -= step as f64;
        patch[axis] = before - topology(rule, spacing, &patch).divisors()[axis] as f64;
        network = topology(rule, spacing, &patch);
        size = estimate(&network);
    }
    Ok((network, size))
}

/// The last of the axes whose share of the median shape is largest.
fn largest_beside(patch: &[usize], median_shape: &[f64]) -> usize {
    let share = |axis: usize| patch[axis] as f64 / median_shape[axis];
    (1..patch.len()).fold(0, |best, axis| if share(axis) >= share(best) { axis } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shrunk(start: [f64; 3], median_shape: [f64; 3], most: u64) -> Vec<usize> {
        let voxels = |network: &Topology| network.patch.iter().product::<usize>() as u64;
        let fits = |size| size <= most;
        let (network, size) = shrink_to_fit(
            Rule::V2,
            &[1.0; 3],
            &start,
            &median_shape,
            voxels,
            (fits, &Steps::new()),
        )
        .unwrap();
        assert_eq!(size, voxels(&network));
        network.patch
    }

    #[test]
    fn equal_shares_go_from_behind() {
        assert_eq!(shrunk([128.0; 3], [128.0; 3], 128 * 128 * 128), [128, 128, 128]);
        assert_eq!(shrunk([128.0; 3], [128.0; 3], 128 * 128 * 128 - 1), [128, 128, 112]);
        assert_eq!(shrunk([128.0; 3], [128.0; 3], 128 * 112 * 112), [128, 112, 112]);
    }

    #[test]
    fn the_largest_share_goes_first() {
        assert_eq!(shrunk([128.0; 3], [128.0, 256.0, 256.0], 112 * 128 * 128), [112, 128, 128]);
    }

    #[test]
    fn it_ends() {
        assert_eq!(shrunk([4.0, 4.0, 4.0], [4.0; 3], 1), [1, 1, 1]);
        let steps = Steps::new();
        // An axis that no stage halves becomes shorter by one voxel at a time.
        let (spacing, long, never) = ([1.0, 1.0, 1e12], [4.0, 4.0, 1e8], (|_| false, &steps));
        let message = shrink_to_fit(Rule::V1, &spacing, &long, &long, |_| 1, never).unwrap_err();
        assert!(message.to_string().contains("without an end"), "{message}");
    }
}
