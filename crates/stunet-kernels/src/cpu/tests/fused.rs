//! What convolutions do beside their sums where no gradient is wanted: measuring, norms of what is read, repetition.

use super::{data, norm};
use crate::{Residual, Upsampled, reference};
use burn::tensor::{DType, Device, Tensor, TensorData};
use proptest::prelude::*;

/// Values of a residual block, in a precision: of the input (two parts where there is a factor, the first of them
/// coarse), two kernels, one of single voxels, and vectors for two norms.
struct Block {
    volumes: Vec<TensorData>,
    vectors: Vec<TensorData>,
    factor: Option<[usize; 3]>,
    slope: f64,
}

impl Block {
    fn new(
        [n, inputs, z, y, x]: [usize; 5],
        outputs: usize,
        factor: Option<[usize; 3]>,
        slope: f64,
    ) -> Self {
        let [fz, fy, fx] = factor.unwrap_or([1; 3]);
        let mut volumes = vec![data(1, [n, inputs, z, y, x])];
        let second = if factor.is_some() { outputs } else { 0 };
        volumes.push(data(2, [n, second.max(1), z * fz, y * fy, x * fx]));
        volumes.push(data(3, [outputs, inputs + second, 3, 3, 3]));
        volumes.push(data(4, [outputs, outputs, 3, 3, 3]));
        volumes.push(data(5, [outputs, inputs + second, 1, 1, 1]));
        Self {
            volumes,
            vectors: (6..12).map(|seed| data(seed, [outputs])).collect(),
            factor,
            slope,
        }
    }

    fn tensors(&self, device: &Device, dtype: DType) -> (Vec<Tensor<5>>, Vec<Tensor<1>>) {
        let volumes = self.volumes.iter().map(|v| Tensor::from_data(v.clone(), (device, dtype)));
        let vectors = self.vectors.iter().map(|v| Tensor::from_data(v.clone(), (device, dtype)));
        (volumes.collect(), vectors.collect())
    }

    /// The block by operators that may be fused, on a device.
    fn found(&self, device: &Device) -> Vec<f64> {
        let (v, p) = self.tensors(device, DType::F32);
        let (weight, bias) = (v[2].clone(), p[0].clone());
        let read = self.factor.map(|factor| Upsampled::new(v[0].clone(), factor));
        let first = match &read {
            None => crate::conv3d_measured(v[0].clone(), weight, bias, [1; 3]),
            Some(read) => read.clone().conv3d_joined_measured(v[1].clone(), weight, bias),
        };
        let (weight, bias) = (v[3].clone(), p[1].clone());
        let y = first.norm_conv3d_measured(norm(&p[2..]), self.slope, weight, bias, [1; 3]);
        let (weight, bias) = (v[4].clone(), p[1].clone());
        let residual = match read {
            None => Residual::convolved(v[0].clone(), weight, bias, [1; 3]),
            Some(read) => Residual::convolved_joined(read, v[1].clone(), weight, bias),
        };
        list(y.norm_residual_activation(norm(&p[4..]), residual, self.slope))
    }

    /// The same in double precision by definition.
    fn expected(&self) -> Vec<f64> {
        let (v, p) = self.tensors(&Device::flex(), DType::F64);
        let x = match self.factor {
            None => v[0].clone(),
            Some(factor) => {
                let fine = reference::upsample_nearest(v[0].clone(), factor);
                Tensor::cat(vec![fine, v[1].clone()], 1)
            }
        };
        let conv = |x: &Tensor<5>, weight: usize, bias: usize| {
            reference::conv3d(x.clone(), v[weight].clone(), p[bias].clone(), [1; 3])
        };
        let first = reference::norm_activation(conv(&x, 2, 0), norm(&p[2..]), self.slope);
        let (second, skip) = (conv(&first, 3, 1), conv(&x, 4, 1));
        list(reference::norm_residual_activation(second, norm(&p[4..]), skip, self.slope))
    }

    fn check(&self) {
        let expected = self.expected();
        let scale = expected.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
        for device in [Device::flex(), Device::flex().autodiff()] {
            let found = self.found(&device);
            assert_eq!(found.len(), expected.len());
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let error = (found - expected).abs() / scale;
                assert!(error <= 2e-5, "[{index}] is {found}, expected {expected}: {device:?}");
            }
        }
    }
}

fn list(x: Tensor<5>) -> Vec<f64> {
    x.into_data().convert::<f64>().try_to_vec().unwrap()
}

/// Channels innermost between the convolutions, in small and in large tiles; and channels that do not make up blocks.
#[test]
fn blocks() {
    for (size, outputs) in
        [([1, 16, 8, 9, 10], 16), ([2, 5, 15, 16, 18], 32), ([1, 9, 7, 8, 12], 24)]
    {
        Block::new(size, outputs, None, 0.01).check();
    }
    Block::new([1, 16, 8, 8, 8], 16, None, 1.5).check();
}

/// Convolutions that are computed without tiles.
#[test]
fn blocks_without_tiles() {
    Block::new([1, 3, 4, 5, 6], 4, None, 0.01).check();
    Block::new([1, 16, 2, 3, 3], 16, None, 0.01).check();
}

#[test]
fn repeated_voxels() {
    for (factor, size, outputs) in [
        ([2, 2, 2], [1, 16, 4, 5, 9], 16),
        ([1, 2, 2], [2, 8, 7, 4, 5], 16),
        ([2, 1, 3], [1, 24, 4, 8, 11], 32),
        ([1, 1, 1], [1, 16, 8, 8, 8], 8),
        // Channels that are not read eight at a time.
        ([2, 2, 2], [1, 12, 4, 4, 9], 8),
    ] {
        Block::new(size, outputs, Some(factor), 0.01).check();
    }
}

/// A tensor whose channels lie innermost is a tensor like any other.
#[test]
fn measured_features_are_an_ordinary_tensor() {
    let block = Block::new([1, 16, 8, 9, 10], 16, None, 0.01);
    let (v, p) = block.tensors(&Device::flex(), DType::F32);
    let plain = crate::conv3d(v[0].clone(), v[2].clone(), p[0].clone(), [1; 3]);
    let measured = || crate::conv3d_measured(v[0].clone(), v[2].clone(), p[0].clone(), [1; 3]);
    assert_eq!(list(measured().features), list(plain.clone()));
    let normed = list(measured().norm_activation(norm(&p[2..]), 0.01));
    let expected = list(crate::norm_activation(plain, norm(&p[2..]), 0.01));
    let scale = expected.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
    assert!(normed.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-6 * scale));
}

/// A tensor that somebody else permuted lies as a convolution would leave it, without having been measured.
#[test]
fn permuted_features_are_measured() {
    let block = Block::new([1, 16, 8, 9, 10], 16, None, 0.01);
    let (v, p) = block.tensors(&Device::flex(), DType::F32);
    let innermost = Tensor::<5>::from_data(data(20, [1, 8, 9, 10, 16]), &Device::flex());
    let permuted = innermost.permute([0, 4, 1, 2, 3]);
    let planes = Tensor::<5>::from_data(permuted.clone().into_data(), &Device::flex());
    let run = |x: Tensor<5>| {
        let (weight, bias) = (v[3].clone(), p[1].clone());
        let y = crate::Measured::from(x);
        let y = y.norm_conv3d_measured(norm(&p[2..]), 0.01, weight, bias, [1; 3]);
        list(y.norm_activation(norm(&p[4..]), 0.01))
    };
    assert_eq!(run(permuted), run(planes));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_block(
        size in [1usize..3, 1usize..20, 2usize..9, 2usize..9, 2usize..12],
        outputs in prop_oneof![Just(8usize), Just(13), Just(16), Just(32)],
        factor in proptest::option::of([1usize..3, 1usize..3, 1usize..4]),
    ) {
        Block::new(size, outputs, factor, 0.01).check();
    }
}
