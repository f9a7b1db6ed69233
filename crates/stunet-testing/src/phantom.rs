//! A seeded torso made of ellipsoids: a CT that may be given away.

use ndarray::Array3;

use crate::prng;

/// A phantom and what it is made of.
#[derive(Clone, Debug)]
pub struct Phantom {
    /// Hounsfield units, `[z, y, x]`: feet to head, front to back, right to left.
    pub image: Array3<f32>,
    /// Which organ each voxel belongs to, as an index into [`ORGANS`] plus one; 0 is none.
    pub labels: Array3<u16>,
}

/// The organs by label, first is 1.
pub const ORGANS: [&str; 9] = [
    "lung_right",
    "lung_left",
    "heart",
    "liver",
    "spleen",
    "kidney_right",
    "kidney_left",
    "aorta",
    "vertebrae",
];

/// An ellipsoid in units of half the volume: the centre of the volume is 0, its faces are ±1.
struct Ellipsoid {
    label: u16,
    hounsfield: f32,
    centre: [f64; 3],
    radius: [f64; 3],
}

/// Later shapes cover earlier ones.
const SHAPES: [Ellipsoid; 12] = [
    // skin and fat, then what lies within
    shape(0, -95.0, [0.0, 0.0, 0.0], [2.5, 0.80, 0.92]),
    shape(0, 45.0, [0.0, 0.0, 0.0], [2.5, 0.70, 0.82]),
    shape(1, -850.0, [0.55, 0.0, -0.42], [0.62, 0.48, 0.30]),
    shape(2, -850.0, [0.55, 0.0, 0.42], [0.62, 0.48, 0.30]),
    shape(3, 50.0, [0.38, -0.18, 0.10], [0.32, 0.32, 0.28]),
    shape(4, 105.0, [-0.28, -0.05, -0.36], [0.36, 0.44, 0.38]),
    shape(5, 115.0, [-0.22, 0.22, 0.52], [0.22, 0.20, 0.14]),
    shape(6, 170.0, [-0.55, 0.32, -0.36], [0.26, 0.13, 0.12]),
    shape(7, 170.0, [-0.50, 0.32, 0.36], [0.26, 0.13, 0.12]),
    shape(8, 140.0, [0.0, 0.26, 0.08], [2.5, 0.07, 0.06]),
    shape(9, 320.0, [0.0, 0.48, 0.0], [2.5, 0.13, 0.12]),
    // the spinal canal
    shape(0, 30.0, [0.0, 0.55, 0.0], [2.5, 0.04, 0.04]),
];

const fn shape(label: u16, hounsfield: f32, centre: [f64; 3], radius: [f64; 3]) -> Ellipsoid {
    Ellipsoid { label, hounsfield, centre, radius }
}

/// A torso of `shape` voxels, `[z, y, x]`; one seed gives one torso.
///
/// The seed moves and stretches the organs by a few percent and draws the noise (up to ±24 HU).
///
/// ```
/// let torso = stunet_testing::phantom::torso([24, 32, 40], 7);
/// assert_eq!(torso.image.dim(), (24, 32, 40));
/// assert_eq!(torso.image, stunet_testing::phantom::torso([24, 32, 40], 7).image);
/// ```
#[must_use]
pub fn torso(shape: [usize; 3], seed: u64) -> Phantom {
    const JITTER: f64 = 0.04;
    const NOISE_HU: f32 = 12.0;
    let jitter = prng::uniform(seed, 0, SHAPES.len() * 6);
    let noise = prng::uniform(seed, 1, 2 * shape.iter().product::<usize>());
    let mut phantom =
        Phantom { image: Array3::from_elem(shape, -1000.0), labels: Array3::zeros(shape) };
    for (index, value) in phantom.image.indexed_iter_mut() {
        let voxel = [index.0, index.1, index.2];
        let at: [f64; 3] =
            std::array::from_fn(|axis| (2.0 * voxel[axis] as f64 + 1.0) / shape[axis] as f64 - 1.0);
        for (number, body) in SHAPES.iter().enumerate() {
            // The body itself stays put.
            let amount = if number < 2 { 0.0 } else { JITTER };
            let draw = |i: usize| amount * f64::from(jitter[number * 6 + i]);
            let distance: f64 = (0..3)
                .map(|axis| {
                    let radius = body.radius[axis] * (1.0 + draw(3 + axis));
                    ((at[axis] - body.centre[axis] - draw(axis)) / radius).powi(2)
                })
                .sum();
            if distance <= 1.0 {
                *value = body.hounsfield;
                phantom.labels[index] = body.label;
            }
        }
    }
    for (value, pair) in phantom.image.iter_mut().zip(noise.chunks_exact(2)) {
        *value = (*value + NOISE_HU * (pair[0] + pair[1])).round();
    }
    phantom
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_organ_is_there_and_looks_like_itself() {
        let torso = torso([48, 56, 72], 3);
        for label in 1..=ORGANS.len() as u16 {
            let voxels: Vec<f32> = torso
                .image
                .iter()
                .zip(&torso.labels)
                .filter(|(_, found)| **found == label)
                .map(|(value, _)| *value)
                .collect();
            let mean = voxels.iter().sum::<f32>() / voxels.len() as f32;
            let expected =
                SHAPES.iter().find(|body| body.label == label).map(|body| body.hounsfield);
            assert!(voxels.len() > 20, "{}", ORGANS[usize::from(label) - 1]);
            assert!((mean - expected.unwrap()).abs() < 10.0, "{label}: {mean}");
        }
        assert!(torso.image[[24, 0, 0]] < -950.0, "air around the body");
    }
}
