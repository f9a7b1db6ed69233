//! The counter-based generator behind every seeded tensor of the golden data.
//!
//! # Source
//! `oracle/python/prng.py`: splitmix64 over a counter; values are exact in f32, so that weights
//! need no files and can be checked by their hash.

use sha2::{Digest, Sha256};

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The raw 64-bit stream of tensor `tensor_id` under `seed`.
pub fn bits(seed: u64, tensor_id: u64, count: usize) -> impl Iterator<Item = u64> {
    let base =
        seed.wrapping_mul(GOLDEN).wrapping_add(tensor_id.wrapping_mul(0xBF58_476D_1CE4_E5B9));
    (1..=count as u64).map(move |i| {
        let mut z = base.wrapping_add(i.wrapping_mul(GOLDEN));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// Values uniform in [-1, 1), exact in f32.
pub fn uniform(seed: u64, tensor_id: u64, count: usize) -> Vec<f32> {
    bits(seed, tensor_id, count).map(|z| 2.0 * ((z >> 40) as f32 * 2f32.powi(-24)) - 1.0).collect()
}

/// Integers uniform in [0, `high`).
pub fn integers(seed: u64, tensor_id: u64, count: usize, high: u64) -> Vec<u64> {
    bits(seed, tensor_id, count).map(|z| (z >> 33) % high).collect()
}

/// What a parameter is, as far as its seeded values depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Weight of a convolution, or of an upsampling stage.
    Weight,
    /// Bias of a convolution.
    Bias,
    /// Scale of a norm.
    NormWeight,
    /// Shift of a norm.
    NormBias,
    /// Weight of a segmentation head.
    HeadWeight,
    /// Bias of a segmentation head.
    HeadBias,
}

impl Role {
    /// The role of a parameter by its name, in the reference's naming (`seg_outputs.0.weight`) or
    /// ours (`decoder.heads.0.weight`).
    pub fn of(name: &str) -> Self {
        let weight = name.ends_with("weight");
        if name.contains("norm") {
            if weight { Self::NormWeight } else { Self::NormBias }
        } else if name.starts_with("seg_outputs") || name.starts_with("decoder.heads") {
            if weight { Self::HeadWeight } else { Self::HeadBias }
        } else if weight {
            Self::Weight
        } else {
            Self::Bias
        }
    }
}

/// Seeded values of the parameter with index `tensor_id` in state-dict order.
pub fn parameter(
    seed: u64,
    tensor_id: u64,
    role: Role,
    shape: &[usize],
    seg_gain: f64,
) -> Vec<f32> {
    let values = uniform(seed, tensor_id, shape.iter().product());
    let fan_in: usize = shape.iter().skip(1).product();
    let he = (6.0 / ((1.0 + 1e-4) * fan_in as f64)).sqrt() as f32;
    let map = |f: &dyn Fn(f32) -> f32| values.iter().map(|&v| f(v)).collect();
    match role {
        Role::NormWeight => map(&|v| 1.0 + 0.5 * v),
        Role::NormBias => map(&|v| 0.3 * v),
        Role::Weight => map(&|v| he * v),
        Role::HeadWeight => map(&|v| (seg_gain as f32 * he) * v),
        Role::Bias => map(&|v| 0.1 * v),
        Role::HeadBias => map(&|v| 0.5 * v),
    }
}

/// SHA-256 of some bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Hash of a state dict: each key's UTF-8 bytes followed by its values in little endian.
#[derive(Default)]
pub struct StateHash(Sha256);

impl StateHash {
    /// Adds one tensor.
    pub fn update(&mut self, reference_key: &str, values: &[f32]) {
        self.0.update(reference_key.as_bytes());
        for v in values {
            self.0.update(v.to_le_bytes());
        }
    }

    /// The hash in hexadecimal.
    pub fn finish(self) -> String {
        self.0.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// Label volume `[N, Z, Y, X]` of overlapping balls, in integer arithmetic only.
pub fn label_blobs(seed: u64, shape: [usize; 4], num_classes: u64) -> Vec<u8> {
    const NUM_BALLS: usize = 12;
    let [n, z, y, x] = shape;
    let mut out = vec![0u8; n * z * y * x];
    let smallest = *[z, y, x].iter().min().expect("three axes");
    for sample in 0..n {
        let random = integers(seed, sample as u64, NUM_BALLS * 7, 1 << 20);
        for q in random.chunks_exact(7) {
            let centre = [q[0] % z as u64, q[1] % y as u64, q[2] % x as u64].map(|v| v as i64);
            let radius = 2 + (q[3] % (smallest as u64 / 3).max(3)) as i64;
            let label = (q[4] % num_classes) as u8;
            for k in 0..z as i64 {
                for j in 0..y as i64 {
                    for i in 0..x as i64 {
                        let d = [k - centre[0], j - centre[1], i - centre[2]];
                        if d.iter().map(|v| v * v).sum::<i64>() <= radius * radius {
                            let at = ((sample * z + k as usize) * y + j as usize) * x + i as usize;
                            out[at] = label;
                        }
                    }
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_values() {
        let expected = [
            0.522_068_74f32,
            0.047_901_154,
            0.110_334_99,
            0.416_444_66,
            0.036_964_297,
            -0.022_170_782,
            0.529_757_4,
            -0.590_609_43,
        ];
        assert_eq!(uniform(11, 0, 8), expected);
        assert_eq!(bits(0, 0, 1).next(), Some(16_294_208_416_658_607_535));
        assert_eq!(bits(11, 3, 2).last(), Some(17_046_309_640_810_389_283));
    }
}
