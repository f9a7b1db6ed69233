//! Randomness by place: the value at a point depends on the point and a seed, on nothing else.

use super::point::{Point, dot};

/// A well-mixed 32-bit hash (the finaliser of MurmurHash3).
fn mix(mut h: u32) -> u32 {
    h = (h ^ (h >> 16)).wrapping_mul(0x85EB_CA6B);
    h = (h ^ (h >> 13)).wrapping_mul(0xC2B2_AE35);
    h ^ (h >> 16)
}

fn at_corner(seed: u32, corner: [i32; 3]) -> f32 {
    let h = (corner[0] as u32).wrapping_mul(0x8DA6_B343)
        ^ (corner[1] as u32).wrapping_mul(0xD816_3841)
        ^ (corner[2] as u32).wrapping_mul(0xCB1A_B31F)
        ^ seed;
    (mix(h) >> 8) as f32 * (2.0 / 16_777_215.0) - 1.0
}

/// Turns the lattice of the noise away from the axes of body and scanner, where it would show.
const LATTICE: [Point; 3] =
    [[0.6155, 0.5417, -0.5725], [-0.7648, 0.2145, -0.6075], [-0.2063, 0.8118, 0.5464]];

/// Smooth noise in [-1, 1] whose features are about `scale_mm` apart.
pub(super) fn smooth(seed: u32, at: Point, scale_mm: f32) -> f32 {
    let mut corner = [0i32; 3];
    let mut weight = [0f32; 3];
    for (axis, row) in LATTICE.iter().enumerate() {
        let place = dot(*row, at) / scale_mm;
        let below = place.floor();
        let t = place - below;
        corner[axis] = below as i32;
        weight[axis] = t * t * (3.0 - 2.0 * t);
    }
    let [z, y, x] = corner;
    let value = |dz, dy, dx| at_corner(seed, [z + dz, y + dy, x + dx]);
    let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
    let row = |dz, dy| mix(value(dz, dy, 0), value(dz, dy, 1), weight[2]);
    let plane = |dz| mix(row(dz, 0), row(dz, 1), weight[1]);
    mix(plane(0), plane(1), weight[0])
}

/// Two octaves of [`smooth`], of a standard deviation near 1: the grain of a tissue.
pub(super) fn texture(seed: u32, at: Point) -> f32 {
    2.4 * (0.7 * smooth(seed, at, 14.0) + 0.6 * smooth(seed ^ 0x51ED, at, 6.0))
}

/// How much a branching tube covers a point, 0 to 1: where two noises are both near zero.
pub(super) fn branches(seed: u32, at: Point, scale_mm: f32, width: f32) -> f32 {
    let first = smooth(seed, at, scale_mm);
    if first.abs() > 1.5 * width {
        return 0.0;
    }
    // In a lattice of another direction, for fewer straight pieces.
    let second = smooth(seed ^ 0xA511, [at[2], at[0], at[1]], scale_mm);
    let distance = first.hypot(second) / width;
    ((1.3 - distance) / 0.6).clamp(0.0, 1.0)
}

/// The noise of one slice `[y, x]`: normal enough, of unit variance, a little correlated.
///
/// `blur` is the share of each neighbour in its voxel, along both axes.
pub(super) fn slice(seed: u32, z: usize, [height, width]: [usize; 2], blur: f32) -> Vec<f32> {
    let wide = width + 2;
    let white = |y: usize, x: usize| {
        let base = mix(seed ^ mix((z as u32).wrapping_mul(0x9E37_79B9) ^ y as u32));
        let h = mix(base ^ (x as u32).wrapping_mul(0x85EB_CA77));
        let g = mix(h ^ 0x68E3_1DA4);
        // The sum of four uniform numbers, variance 4/12.
        let sum = (h & 0xFFFF) + (h >> 16) + (g & 0xFFFF) + (g >> 16);
        (sum as f32 / 65_535.0 - 2.0) * 1.732_050_8
    };
    let gain = 1.0 / (1.0 + 2.0 * blur * blur);
    let mut rows = vec![0.0; (height + 2) * width];
    let mut line = vec![0.0; wide];
    for (y, row) in rows.chunks_exact_mut(width).enumerate() {
        for (x, value) in line.iter_mut().enumerate() {
            *value = white(y, x);
        }
        for (x, value) in row.iter_mut().enumerate() {
            *value = line[x + 1] + blur * (line[x] + line[x + 2]);
        }
    }
    (0..height * width)
        .map(|i| gain * (rows[i + width] + blur * (rows[i] + rows[i + 2 * width])))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_of_a_slice_has_unit_variance_and_a_little_correlation() {
        let size = 200;
        let noise = slice(7, 3, [size, size], 0.35);
        let mean = noise.iter().sum::<f32>() / noise.len() as f32;
        let variance = noise.iter().map(|v| v * v).sum::<f32>() / noise.len() as f32;
        let pairs = noise.windows(2).map(|w| w[0] * w[1]).sum::<f32>() / noise.len() as f32;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
        assert!((0.4..0.7).contains(&(pairs / variance)), "{pairs}");
        assert_ne!(noise, slice(7, 4, [size, size], 0.35));
        assert_ne!(noise, slice(8, 3, [size, size], 0.35));
    }

    #[test]
    fn smooth_noise_is_continuous_and_bounded() {
        let line =
            |step: f32| (0..2000).map(move |i| smooth(3, [1.5, -40.25, step * i as f32], 8.0));
        assert!(line(0.7).all(|v| v.abs() <= 1.0));
        let values: Vec<f32> = line(0.05).collect();
        assert!(values.windows(2).all(|w| (w[1] - w[0]).abs() < 0.03));
        let spread = values.iter().fold(0f32, |most, v| most.max(v.abs()));
        assert!(spread > 0.3, "{spread}");
    }
}
