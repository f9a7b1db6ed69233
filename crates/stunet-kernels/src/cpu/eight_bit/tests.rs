//! Against plain sums of integers, and of `f64`.

use super::lanes::{DotProducts, LANES};
use super::norm::EightBitResidual;
use super::volume::{EightBitCodes, EightBitValues};
use super::weights::EightBitConv;
use crate::eight_bit::norm::EightBitNorm;
use burn::tensor::f16;

/// Numbers between -1 and 1.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn norm(channels: usize, seed: u32) -> EightBitNorm {
    let weight = numbers(channels, seed);
    EightBitNorm { weight, bias: numbers(channels, seed + 1), epsilon: 1e-5, slope: 0.01 }
}

/// The volume as the codes say it is, `[channel][z][y][x]` of all vectors, without the border.
fn decoded(codes: &EightBitCodes) -> Vec<f64> {
    let [z, y, x] = codes.size;
    let channels = codes.channels();
    let mut to = Vec::new();
    for (channel, coding) in codes.codings.iter().enumerate() {
        for [z, y, x] in places([z, y, x]) {
            let row = ((z + 1) * (codes.size[1] + 2) + y + 1) * (codes.size[2] + 2) + x + 1;
            let code = codes.codes()[row * channels + channel];
            to.push((f64::from(code) - f64::from(coding.zero)) * f64::from(coding.scale));
        }
    }
    to
}

fn places([z, y, x]: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..z).flat_map(move |z| (0..y).flat_map(move |y| (0..x).map(move |x| [z, y, x])))
}

/// Values of a volume in half precision, `[channel][z][y][x]`.
fn halves(halves: &[u16], layout: super::volume::Layout, voxels: usize) -> Vec<f64> {
    let value = |channel: usize, voxel: usize| {
        let (block, lane) = (channel / layout.block, channel % layout.block);
        halves[(block * voxels + voxel) * layout.block + lane]
    };
    let all = (0..layout.channels).flat_map(|c| (0..voxels).map(move |v| (c, v)));
    all.map(|(c, v)| f16::from_bits(value(c, v)).to_f64()).collect()
}

/// A volume of so many channels, as a norm leaves it.
fn volume(dots: DotProducts, channels: usize, size: [usize; 3], seed: u32) -> EightBitCodes {
    let voxels = size.iter().product::<usize>();
    let values = numbers(channels * voxels, seed);
    EightBitCodes::of_normed_by(dots, &values, size, &norm(channels, seed + 7))
}

/// The convolution in `f64`, of decoded parts that are filled up to whole vectors.
fn convolved(
    parts: &[&EightBitCodes],
    channels: &[usize],
    (weight, outputs, kernel): (&[f32], usize, usize),
    stride: [usize; 3],
) -> Vec<f64> {
    let size = parts[0].size;
    let out = std::array::from_fn(|axis| size[axis].div_ceil(stride[axis]));
    let voxels = size.iter().product::<usize>();
    let inputs: Vec<f64> = parts
        .iter()
        .zip(channels)
        .flat_map(|(part, channels)| decoded(part)[..channels * voxels].to_vec())
        .collect();
    let count = inputs.len() / voxels;
    let mut to = Vec::new();
    for output in 0..outputs {
        for place in places(out) {
            let mut sum = 0.0;
            for (tap, offset) in places([kernel; 3]).enumerate() {
                let at: [isize; 3] = std::array::from_fn(|axis| {
                    (place[axis] * stride[axis] + offset[axis]) as isize - (kernel / 2) as isize
                });
                if (0..3).any(|axis| at[axis] < 0 || at[axis] >= size[axis] as isize) {
                    continue;
                }
                let [z, y, x] = at.map(|at| at as usize);
                let voxel = (z * size[1] + y) * size[2] + x;
                for input in 0..count {
                    let weight = weight[(output * count + input) * kernel.pow(3) + tap];
                    sum += f64::from(weight) * inputs[input * voxels + voxel];
                }
            }
            to.push(sum);
        }
    }
    to
}

/// Root of the mean square difference, relative to that of the values without their mean.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let mean = expected.iter().sum::<f64>() / expected.len() as f64;
    let square: f64 = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum();
    (square / expected.iter().map(|b| (b - mean).powi(2)).sum::<f64>()).sqrt()
}

const SIZES: [[usize; 3]; 4] = [[3, 4, 5], [2, 1, 33], [5, 6, 16], [4, 4, 4]];

#[test]
fn convolutions_are_those_of_the_codes() {
    for dots in DotProducts::available() {
        for (index, size) in SIZES.into_iter().enumerate() {
            for (channels, outputs) in [
                (vec![16], 16),
                (vec![5], 3),
                (vec![16, 16], 48),
                (vec![33, 7], 64),
                (vec![9], 576),
            ] {
                for (kernel, stride) in
                    [(3usize, [1; 3]), (3, [2; 3]), (3, [1, 2, 2]), (1, [2, 1, 2])]
                {
                    let seed = index as u32 * 100;
                    let parts: Vec<_> = channels
                        .iter()
                        .enumerate()
                        .map(|(part, count)| volume(dots, *count, size, seed + part as u32))
                        .collect();
                    let parts: Vec<_> = parts.iter().collect();
                    let inputs: usize = channels.iter().sum();
                    let weight = numbers(outputs * inputs * kernel.pow(3), seed + 50);
                    let conv = EightBitConv::new(&weight, &vec![0.0; outputs], &channels, kernel);
                    let sums = conv.sums_by(dots, &parts, stride);
                    let voxels = sums.size.iter().product::<usize>();
                    let found = halves(sums.halves.halves(), sums.layout, voxels);
                    let values = (0..outputs).flat_map(|channel| {
                        let unit = f64::from(sums.unit[channel]);
                        found[channel * voxels..][..voxels].iter().map(move |sum| sum * unit)
                    });
                    let values: Vec<_> = values.collect();
                    let expected = convolved(&parts, &channels, (&weight, outputs, kernel), stride);
                    // The weights are rounded to a 254th of their range.
                    let error = error(&values, &expected);
                    assert!(
                        error < 0.02,
                        "{dots:?} {size:?} {channels:?} {outputs} {kernel}: {error}"
                    );
                    assert!(found[outputs * voxels..].iter().all(|value| *value == 0.0));
                    for (channel, found) in found.chunks_exact(voxels).enumerate() {
                        let statistics = sums.statistics[channel];
                        let sum: f64 = found.iter().sum();
                        let scale = found.iter().map(|v| v.abs()).sum::<f64>();
                        assert!(
                            (statistics.sum - sum).abs() <= 1e-3 * scale,
                            "{statistics:?} {sum}"
                        );
                        let least = found.iter().copied().fold(f64::INFINITY, f64::min);
                        assert!((f64::from(statistics.least) - least).abs() <= 1e-3 * least.abs());
                    }
                }
            }
        }
    }
}

/// What a norm, an added residual and the activation make of sums, in `f64`.
fn normed(sums: &[f64], unit: &[f32], norm: &EightBitNorm, residual: Option<&[f64]>) -> Vec<f64> {
    let channels = norm.weight.len();
    let voxels = sums.len() / unit.len();
    let mut to = Vec::new();
    for channel in 0..channels {
        let unit = f64::from(unit[channel]);
        let values: Vec<_> = sums[channel * voxels..][..voxels].iter().map(|v| v * unit).collect();
        let mean = values.iter().sum::<f64>() / voxels as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / voxels as f64;
        let scale = f64::from(norm.weight[channel]) / (variance + norm.epsilon).sqrt();
        for (voxel, value) in values.into_iter().enumerate() {
            let value = (value - mean) * scale + f64::from(norm.bias[channel]);
            let value = value + residual.map_or(0.0, |of| of[channel * voxels + voxel]);
            to.push(if value < 0.0 { value * f64::from(norm.slope) } else { value });
        }
    }
    to
}

#[test]
fn norms_and_residuals() {
    let (channels, outputs, size) = (7, 40, [4, 6, 9]);
    let voxels = size.iter().product::<usize>();
    for dots in DotProducts::available() {
        let input = volume(dots, channels, size, 3);
        let weight = numbers(outputs * channels * 27, 4);
        let conv = EightBitConv::new(&weight, &vec![0.0; outputs], &[channels], 3);
        let sums = || conv.sums_by(dots, &[&input], [1; 3]);
        let plain = halves(sums().halves.halves(), sums().layout, voxels);
        let (unit, norm) = (sums().unit, norm(outputs, 5));
        let expected = normed(&plain, &unit, &norm, None);
        let codes = sums().normed_by(dots, &norm);
        let found = decoded(&codes);
        assert!(codes.is_finite());
        for (channel, expected) in expected.chunks_exact(voxels).enumerate() {
            let scale = f64::from(codes.codings[channel].scale);
            for (found, expected) in found[channel * voxels..].iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= 0.502 * scale + 2e-3 * expected.abs(),
                    "{found} {expected} {scale}"
                );
            }
        }
        // A skip convolution, values and an image as residuals.
        let (single, bias) = (numbers(outputs * channels, 8), numbers(outputs, 9));
        let skip = EightBitConv::new(&single, &bias, &[channels], 1);
        let parts = [&input];
        let convolved = convolved(&parts, &[channels], (&single, outputs, 1), [1; 3]);
        let with_bias: Vec<_> =
            convolved.iter().enumerate().map(|(i, v)| v + f64::from(bias[i / voxels])).collect();
        let values = skip.values_by(dots, &parts);
        let as_they_are = halves(values.halves.halves(), values.layout, voxels);
        assert!(error(&as_they_are[..outputs * voxels], &with_bias) < 0.02);
        let image = numbers(2 * voxels, 10);
        let of_image = numbers(outputs * 2, 11);
        let imaged: Vec<_> = (0..outputs * voxels)
            .map(|i| {
                let (output, voxel) = (i / voxels, i % voxels);
                let sum = |input: usize| {
                    f64::from(of_image[output * 2 + input])
                        * f64::from(image[input * voxels + voxel])
                };
                sum(0) + sum(1) + f64::from(bias[output])
            })
            .collect();
        let residuals = [
            (
                EightBitResidual::Convolved { conv: &skip, parts: &parts, stride: [1; 3] },
                &as_they_are[..outputs * voxels],
            ),
            (EightBitResidual::Values(&values), &as_they_are[..outputs * voxels]),
            (EightBitResidual::Image { values: &image, weight: &of_image, bias: &bias }, &imaged),
        ];
        for (residual, added) in &residuals {
            let expected = normed(&plain, &unit, &norm, Some(added));
            let kept = sums().normed_with_by(dots, &norm, residual);
            let found = halves(kept.halves.halves(), kept.layout, voxels);
            assert!(error(&found[..outputs * voxels], &expected) < 1e-3);
            let planes = sums().planes_by(dots, &norm, residual);
            let planes: Vec<_> = planes.values().iter().map(|v| f64::from(*v)).collect();
            assert!(error(&planes, &expected) < 1e-3);
            repeated(dots, &kept, &found);
        }
    }
}

/// The codes of values that are repeated.
fn repeated(dots: DotProducts, values: &EightBitValues, expected: &[f64]) {
    let [z, y, x] = values.size;
    for repeats in [[1; 3], [2, 2, 2], [1, 2, 3]] {
        let codes = values.codes_by(dots, repeats);
        assert_eq!(codes.size, [z * repeats[0], y * repeats[1], x * repeats[2]]);
        let found = decoded(&codes);
        let voxels = codes.size.iter().product::<usize>();
        for (channel, coding) in codes.codings.iter().enumerate() {
            for (index, place) in places(codes.size).enumerate() {
                let from: [usize; 3] = std::array::from_fn(|axis| place[axis] / repeats[axis]);
                let from = expected[((channel * z + from[0]) * y + from[1]) * x + from[2]];
                let found = found[channel * voxels + index];
                assert!((found - from).abs() <= 0.51 * f64::from(coding.scale) + 1e-3);
            }
        }
        let border = codes.codes().chunks_exact(codes.channels()).next().unwrap();
        assert!(border.iter().zip(&codes.codings).all(|(code, coding)| *code == coding.zero));
    }
}

/// Plain code and the machine's instructions give the same bits.
#[test]
fn every_set_gives_the_same_bits() {
    let found = DotProducts::available().into_iter().map(|dots| {
        let [a, b] = [volume(dots, 20, [6, 7, 19], 1), volume(dots, 16, [6, 7, 19], 2)];
        let (weight, bias) = (numbers(33 * 36 * 27, 3), numbers(33, 4));
        let conv = EightBitConv::new(&weight, &bias, &[20, 16], 3);
        let sums = conv.sums_by(dots, &[&a, &b], [1, 2, 1]);
        let single = EightBitConv::new(&weight[..33 * 36], &bias, &[20, 16], 1);
        let (norm, parts) = (norm(33, 5), [&a, &b]);
        let residual =
            EightBitResidual::Convolved { conv: &single, parts: &parts, stride: [1, 2, 1] };
        let planes = sums.planes_by(dots, &norm, &residual).values().to_vec();
        let codes = sums.normed_with_by(dots, &norm, &residual).codes_by(dots, [1, 2, 1]);
        (planes.into_iter().map(f32::to_bits).collect::<Vec<_>>(), codes.codes().to_vec())
    });
    let found: Vec<_> = found.collect();
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Sums of 32 bits hold even if every code and every weight is the largest there is.
#[test]
fn sums_do_not_overflow() {
    let channels = 3072;
    let conv = EightBitConv::new(&vec![1.0; channels * 27 * LANES], &[0.0; LANES], &[channels], 3);
    let size = [3; 3];
    // All but one voxel of each channel have the largest code.
    let values: Vec<f32> =
        (0..channels * 27).map(|i| if i % 27 == 0 { 0.0 } else { 1.0 }).collect();
    let flat = EightBitNorm {
        weight: vec![1.0; channels],
        bias: vec![6.0; channels],
        epsilon: 1e-5,
        slope: 1.0,
    };
    for dots in DotProducts::available() {
        let codes = EightBitCodes::of_normed_by(dots, &values, size, &flat);
        let sums = conv.sums_by(dots, &[&codes], [1; 3]);
        let found = halves(sums.halves.halves(), sums.layout, 27);
        let expected = convolved(&[&codes], &[channels], (&vec![1.0; channels * 27], 1, 3), [1; 3]);
        for (found, expected) in found[..27].iter().zip(&expected) {
            let found = found * f64::from(sums.unit[0]);
            assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
        }
    }
}

#[test]
fn what_is_not_finite_is_told() {
    for dots in DotProducts::available() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = numbers(2 * 60, 1);
            values[77] = bad;
            let codes = EightBitCodes::of_normed_by(dots, &values, [3, 4, 5], &norm(2, 2));
            assert!(!codes.is_finite(), "{dots:?} {bad}");
        }
        // Too large for half precision.
        let input = volume(dots, 4, [3, 4, 5], 1);
        let conv = EightBitConv::new(&[1e6; 16], &[0.0; 4], &[4], 1);
        assert!(!conv.values_by(dots, &[&input]).codes_by(dots, [1; 3]).is_finite());
    }
}

/// Channels that are the same everywhere, and 0 among them.
#[test]
fn constant_channels() {
    for dots in DotProducts::available() {
        let values: Vec<f32> = [vec![0.0; 60], vec![-3.5; 60]].concat();
        let norm =
            EightBitNorm { weight: vec![1.0; 2], bias: vec![0.0, 2.5], epsilon: 1e-5, slope: 0.01 };
        let codes = EightBitCodes::of_normed_by(dots, &values, [3, 4, 5], &norm);
        let found = decoded(&codes);
        assert!(found[..60].iter().all(|value| *value == 0.0));
        assert!(found[60..120].iter().all(|value| (value - 2.5).abs() < 0.01));
    }
}
