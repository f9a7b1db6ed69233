//! Every instruction set of this machine, forward and each gradient, against sums in double
//! precision over the definition; every set bitwise equal for any number of threads.

use super::*;
use crate::cpu::simd::Isa;
use proptest::prelude::*;

/// Values that look random and need no generator: the same for the same seed.
fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Calls `visit` with every product of the convolution: input, weight and output index.
fn for_each_product(shape: &Shape, kernel: usize, mut visit: impl FnMut(usize, usize, usize)) {
    let (size, out, pad) = (shape.size, shape.out_size(), kernel / 2);
    for n in 0..shape.batch {
        for o in 0..voxels(out) {
            let at = [o / (out[1] * out[2]), o / out[2] % out[1], o % out[2]];
            for k in 0..kernel.pow(3) {
                let tap = [k / (kernel * kernel), k / kernel % kernel, k % kernel];
                let mut from = 0;
                let inside = (0..3).all(|axis| {
                    let at = (at[axis] * shape.stride[axis] + tap[axis]).checked_sub(pad);
                    from = from * size[axis] + at.unwrap_or(0);
                    at.is_some_and(|at| at < size[axis])
                });
                if !inside {
                    continue;
                }
                for co in 0..shape.outputs {
                    for ci in 0..shape.inputs {
                        visit(
                            (n * shape.inputs + ci) * voxels(size) + from,
                            (co * shape.inputs + ci) * kernel.pow(3) + k,
                            (n * shape.outputs + co) * voxels(out) + o,
                        );
                    }
                }
            }
        }
    }
}

/// What is asked of one convolution.
#[derive(Clone, Debug)]
struct Case {
    shape: Shape,
    kernel: usize,
    /// Channels of the first of two parts; 0 for one part.
    split: usize,
}

impl Case {
    fn channels(&self) -> Vec<usize> {
        match self.split {
            0 => vec![self.shape.inputs],
            split => vec![split, self.shape.inputs - split],
        }
    }

    /// The parts of a concatenated tensor.
    fn parts(&self, whole: &[f32]) -> Vec<(Vec<f32>, usize)> {
        let volume = voxels(self.shape.size);
        let mut first = 0;
        let part = |channels: usize| {
            let samples = whole.chunks(self.shape.inputs * volume);
            let part = samples.flat_map(|s| s[first * volume..][..channels * volume].to_vec());
            let part = (part.collect(), channels);
            first += channels;
            part
        };
        self.channels().into_iter().map(part).collect()
    }

    /// Output, input gradient, weight gradient, bias gradient: all that is computed, one behind the
    /// other, each with the name of what it is.
    fn compute(&self, isa: Isa, data: &Data) -> Vec<(&'static str, Vec<f32>)> {
        let shape = &self.shape;
        let parts = self.parts(&data.x);
        let slices: Vec<_> = parts.iter().map(|(part, c)| (part.as_slice(), *c)).collect();
        let channels = self.channels();
        let (weight, gradient) = (&data.weight, &data.gradient);
        let vec = |mut output: Output| output.values_mut().to_vec();
        let (y, dx, dw) = if self.kernel == 1 {
            (
                pointwise(isa, shape, &slices, weight, &data.bias),
                pointwise_input_gradient(isa, shape, gradient, weight, &channels),
                pointwise_weight_gradient(shape, &slices, gradient),
            )
        } else {
            (
                forward(isa, shape, &slices, (weight, None), &data.bias),
                input_gradient(isa, shape, gradient, weight, &channels),
                weight_gradient(isa, shape, &slices, gradient),
            )
        };
        let db = bias_gradient(isa, shape.batch, shape.outputs, gradient);
        let mut found = vec![("y", vec(y)), ("dw", vec(dw)), ("db", db)];
        found.extend(dx.into_iter().map(|part| ("dx", vec(part))));
        found
    }

    fn expected(&self, data: &Data) -> Vec<(&'static str, Vec<f64>)> {
        let shape = &self.shape;
        let volume = voxels(shape.out_size());
        let mut y: Vec<f64> = (0..data.gradient.len())
            .map(|i| f64::from(data.bias[i / volume % shape.outputs]))
            .collect();
        let mut dx = vec![0.0; data.x.len()];
        let mut dw = vec![0.0; data.weight.len()];
        for_each_product(shape, self.kernel, |x, w, o| {
            y[o] += f64::from(data.x[x]) * f64::from(data.weight[w]);
            dx[x] += f64::from(data.gradient[o]) * f64::from(data.weight[w]);
            dw[w] += f64::from(data.gradient[o]) * f64::from(data.x[x]);
        });
        let mut db = vec![0.0; shape.outputs];
        for (i, g) in data.gradient.iter().enumerate() {
            db[i / volume % shape.outputs] += f64::from(*g);
        }
        let single: Vec<f32> = dx.iter().map(|v| *v as f32).collect();
        let mut expected = vec![("y", y), ("dw", dw), ("db", db)];
        let parts = self.parts(&single).into_iter();
        expected.extend(parts.map(|(part, _)| ("dx", part.into_iter().map(f64::from).collect())));
        expected
    }

    fn data(&self) -> Data {
        let shape = &self.shape;
        let outputs = shape.batch * shape.outputs * voxels(shape.out_size());
        Data {
            x: values(1, shape.batch * shape.inputs * voxels(shape.size)),
            weight: values(2, shape.outputs * shape.inputs * self.kernel.pow(3)),
            bias: values(3, shape.outputs),
            gradient: values(4, outputs),
        }
    }
}

struct Data {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    gradient: Vec<f32>,
}

/// At most 1e-5 of the largest value away, everywhere; a value no kernel wrote is NaN and fails.
fn check(case: &Case) {
    let data = case.data();
    let expected = case.expected(&data);
    for isa in Isa::available() {
        let computed = case.compute(isa, &data);
        assert_eq!(computed.len(), expected.len());
        for ((name, found), (_, expected)) in computed.iter().zip(&expected) {
            assert_eq!(found.len(), expected.len());
            let scale = expected.iter().fold(1e-30, |max: f64, v| max.max(v.abs()));
            for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
                let error = (f64::from(*found) - expected).abs() / scale;
                assert!(
                    error <= 1e-5,
                    "{isa:?} {case:?}: {name}[{index}] is {found}, expected {expected}"
                );
            }
        }
    }
}

fn case(
    batch: usize,
    channels: (usize, usize, usize),
    size: [usize; 3],
    stride: [usize; 3],
    kernel: usize,
) -> Case {
    let (inputs, outputs, split) = channels;
    Case { shape: Shape { batch, inputs, outputs, size, stride }, kernel, split }
}

#[test]
fn stem() {
    check(&case(1, (1, 32, 0), [5, 7, 19], [1; 3], 3));
}

#[test]
fn few_channels() {
    check(&case(2, (2, 9, 0), [4, 19, 33], [1; 3], 3));
    check(&case(1, (3, 5, 1), [3, 2, 70], [1; 3], 3));
    check(&case(1, (4, 16, 0), [2, 21, 64], [1; 3], 3));
}

#[test]
fn wide() {
    check(&case(1, (70, 67, 0), [3, 4, 9], [1; 3], 3));
}

#[test]
fn transformed() {
    let case = case(1, (9, 17, 4), [4, 8, 8], [1; 3], 3);
    assert_eq!(winograd::tile(&case.shape), Some(winograd::Tile::Small));
    assert_eq!(algorithm(&case.shape, 3), Algorithm::Winograd);
    check(&case);
}

/// Whole tiles, and tiles that reach beyond the volume along each axis.
#[test]
fn transformed_in_large_tiles() {
    for case in [
        case(1, (9, 17, 4), [16, 16, 16], [1; 3], 3),
        case(1, (24, 40, 0), [15, 16, 17], [1; 3], 3),
        case(2, (16, 8, 0), [8, 15, 18], [1; 3], 3),
    ] {
        assert_eq!(winograd::tile(&case.shape), Some(winograd::Tile::Large));
        check(&case);
    }
}

/// Whole tiles, and tiles that reach beyond the volume along each axis; inputs with an end of their own.
#[test]
fn transformed_with_strides() {
    for case in [
        case(1, (9, 17, 4), [16, 16, 16], [2; 3], 3),
        case(1, (24, 40, 0), [15, 17, 19], [2; 3], 3),
        case(2, (16, 8, 0), [8, 13, 18], [2; 3], 3),
        case(2, (37, 33, 20), [3, 20, 31], [2; 3], 3),
    ] {
        assert_eq!(winograd::tile(&case.shape), Some(winograd::Tile::Strided));
        assert_eq!(algorithm(&case.shape, 3), Algorithm::Winograd);
        assert!(!winograd::pays_for_gradients(&case.shape));
        check(&case);
    }
    for (size, stride) in [([16; 3], [1, 2, 2]), ([16; 3], [4; 3]), ([1, 40, 400], [2; 3])] {
        assert_eq!(algorithm(&case(1, (16, 16, 0), size, stride, 3).shape, 3), Algorithm::Direct);
    }
}

#[test]
fn large_tiles_are_nearly_as_exact_as_plain_sums() {
    check_exactness(&case(1, (16, 16, 0), [16, 16, 16], [1; 3], 3), 2.5);
}

#[test]
fn strided_tiles_are_as_exact_as_plain_sums() {
    check_exactness(&case(1, (16, 16, 0), [17, 32, 32], [2; 3], 3), 1.0);
}

/// The root of the mean square error is at most `most` times that of products added one by one in `f32`.
fn check_exactness(case: &Case, most: f64) {
    let data = case.data();
    let volume = voxels(case.shape.out_size());
    let mut plain = vec![0f32; data.gradient.len()];
    for_each_product(&case.shape, 3, |x, w, o| {
        plain[o] = data.x[x].mul_add(data.weight[w], plain[o]);
    });
    let bias = |o: usize| data.bias[o / volume % case.shape.outputs];
    plain.iter_mut().enumerate().for_each(|(o, value)| *value += bias(o));
    let expected = &case.expected(&data)[0].1;
    let error = |found: &[f32]| -> f64 {
        let squares = found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).powi(2));
        (squares.sum::<f64>() / found.len() as f64).sqrt()
    };
    let plain = error(&plain);
    for isa in Isa::available() {
        let found = error(&case.compute(isa, &data)[0].1);
        assert!(found <= most * plain, "{isa:?}: {found:.1e}, plain sums {plain:.1e}");
    }
}

#[test]
fn strided() {
    check(&case(2, (18, 33, 0), [6, 8, 10], [2; 3], 3));
}

#[test]
fn anisotropic() {
    check(&case(1, (17, 20, 0), [5, 9, 17], [1, 2, 2], 3));
    check(&case(1, (4, 5, 0), [7, 5, 6], [3, 1, 2], 3));
    check(&case(1, (4, 5, 0), [9, 5, 6], [4, 2, 1], 3));
}

#[test]
fn joined() {
    check(&case(2, (37, 19, 20), [3, 5, 11], [1; 3], 3));
    check(&case(2, (37, 70, 20), [3, 5, 11], [1; 3], 1));
}

#[test]
fn strips_with_rows_left_over() {
    check(&case(1, (33, 16, 0), [9, 37, 40], [1; 3], 3));
}

/// Every form, forward and backward, in sizes that Miri can follow: it watches how, not what.
#[test]
fn every_form() {
    for case in [
        case(1, (1, 3, 0), [2, 2, 9], [1; 3], 3),
        case(1, (5, 3, 2), [2, 2, 3], [1; 3], 3),
        case(1, (3, 2, 0), [2, 3, 3], [2; 3], 3),
        case(1, (3, 4, 1), [2, 2, 3], [2, 1, 1], 1),
        case(1, (8, 8, 3), [4, 8, 8], [1; 3], 3),
    ] {
        for (name, values) in case.compute(Isa::Portable, &case.data()) {
            assert!(values.iter().all(|value| value.is_finite()), "{case:?}: {name}");
        }
    }
    // Its gradients are those of another case.
    let Case { shape, .. } = &case(4, (8, 8, 0), [3, 16, 15], [2; 3], 3);
    assert_eq!(winograd::tile(shape), Some(winograd::Tile::Strided));
    let (x, weight) = (values(1, 4 * 8 * voxels(shape.size)), values(2, 8 * 8 * 27));
    let y = forward(Isa::Portable, shape, &[(&x, 8)], (&weight, None), &[0.0; 8]);
    assert!(y.values().iter().all(|value| value.is_finite()));
}

#[test]
fn single_voxels() {
    check(&case(2, (16, 16, 0), [1, 1, 1], [1; 3], 3));
    check(&case(1, (16, 16, 0), [2, 2, 2], [2; 3], 3));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_convolution(
        batch in 1usize..3,
        inputs in 1usize..40,
        outputs in 1usize..40,
        part in 0usize..40,
        size in [1usize..8, 1usize..9, 1usize..21],
        stride in [1usize..4, 1usize..4, 1usize..4],
        is_pointwise in any::<bool>(),
    ) {
        let kernel = if is_pointwise { 1 } else { 3 };
        check(&case(batch, (inputs, outputs, part % inputs), size, stride, kernel));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_large_tiles(
        batch in 1usize..3,
        inputs in 8usize..20,
        outputs in 8usize..20,
        part in 0usize..8,
        size in [15usize..18, 15usize..18, 16usize..22],
    ) {
        let case = case(batch, (inputs, outputs, part), size, [1; 3], 3);
        prop_assume!(winograd::tile(&case.shape) == Some(winograd::Tile::Large));
        check(&case);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_strided_tiles(
        batch in 1usize..3,
        inputs in 8usize..40,
        outputs in 8usize..40,
        part in 0usize..8,
        size in [11usize..18, 11usize..18, 11usize..22],
    ) {
        let case = case(batch, (inputs, outputs, part), size, [2; 3], 3);
        prop_assume!(winograd::tile(&case.shape) == Some(winograd::Tile::Strided));
        check(&case);
    }
}

#[test]
fn threads_change_no_bit() {
    let cases = [
        case(1, (20, 40, 4), [16, 16, 24], [1; 3], 3),
        case(2, (20, 40, 0), [6, 16, 24], [1; 3], 3),
        case(1, (20, 40, 4), [6, 16, 24], [2, 1, 2], 3),
        case(1, (70, 150, 0), [8, 8, 8], [2; 3], 3),
        case(2, (20, 140, 4), [16, 15, 24], [2; 3], 3),
        case(2, (1, 16, 0), [9, 20, 40], [1; 3], 3),
        case(2, (40, 105, 7), [6, 30, 40], [1; 3], 1),
    ];
    for case in cases {
        let data = case.data();
        for isa in Isa::available() {
            let with = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| case.compute(isa, &data))
            };
            let one = with(1);
            for threads in [2, 7] {
                assert!(one == with(threads), "{isa:?} {case:?} with {threads} threads");
            }
        }
    }
}

/// From planes to channels innermost.
fn to_innermost(planes: &[f32], volume: usize, channels: usize) -> Vec<f32> {
    let samples = planes.chunks(channels * volume);
    samples
        .flat_map(|s| (0..volume * channels).map(|i| s[i % channels * volume + i / channels]))
        .collect()
}

/// Bit by bit what the convolution gives whose input was normalised and whose output was rearranged, for any number of
/// threads; and its sums.
#[test]
fn fused_convolutions_are_the_same_convolutions() {
    use crate::cpu::norm::{self, Normed, Parameters};
    for (channels, size, stride) in [
        ((16, 32, 0), [9, 8, 11], 1),
        ((32, 16, 0), [15, 16, 18], 1),
        ((16, 32, 0), [15, 16, 18], 2),
    ] {
        let case = case(2, channels, size, [stride; 3], 3);
        let (shape, data) = (&case.shape, case.data());
        let (inputs, outputs, volume) = (shape.inputs, shape.outputs, voxels(size));
        let parameters = Parameters {
            weight: &values(7, inputs),
            bias: &values(8, inputs),
            epsilon: 1e-5,
            slope: 0.01,
        };
        for isa in Isa::available() {
            let statistics = norm::statistics(isa, &data.x, volume, parameters.epsilon);
            let normed = Normed::new(parameters, &statistics);
            let read = norm::normalise(isa, &data.x, None, volume, parameters, &statistics);
            let plain =
                forward(isa, shape, &[(read.values(), inputs)], (&data.weight, None), &data.bias);
            let innermost = to_innermost(&data.x, volume, inputs);
            let written = voxels(shape.out_size());
            let run = |threads: usize, x: &[f32], reads_innermost, writes_innermost| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let normed = Some(&normed);
                let fused = Fused { repeats: None, reads_innermost, normed, writes_innermost };
                let parts = [(x, inputs)];
                pool.install(|| {
                    forward_fused(isa, shape, &parts, (&data.weight, None), &data.bias, fused)
                })
            };
            let (_, first) = run(1, &data.x, false, false);
            for (threads, reads, writes) in
                [(1, false, false), (3, true, false), (2, false, true), (7, true, true)]
            {
                let x = if reads { &innermost } else { &data.x };
                let (found, sums) = run(threads, x, reads, writes);
                let expected = match writes {
                    true => to_innermost(plain.values(), written, outputs),
                    false => plain.values().to_vec(),
                };
                assert!(found.values() == expected, "{isa:?} {case:?}: {reads} {writes}");
                assert_eq!(sums, first, "{isa:?} {case:?} with {threads} threads");
            }
            for (sums, plane) in first.iter().zip(plain.values().chunks(written)) {
                let sum = |f: fn(f64) -> f64| plane.iter().map(|v| f(f64::from(*v))).sum::<f64>();
                let expected = [sum(|v| v), sum(|v| v * v)];
                let near = |i: usize| (sums[i] - expected[i]).abs() <= 1e-12 * expected[1];
                assert!(near(0) && near(1), "{isa:?}: {sums:?}, expected {expected:?}");
            }
        }
    }
}
