//! Every operator of the networks, forward and backward, by itself.

use super::bench::{Bench, Found, numbers};
use super::stage::Stage;
use burn::tensor::Tensor;
use stunet_kernels::{
    Norm, SgdStep, Upsampled, conv_transpose3d, conv3d, conv3d_joined, conv3d_joined_measured,
    conv3d_measured, instance_norm, leaky_relu, norm_activation, norm_residual_activation,
    prepared, sgd_step, upsample_nearest,
};

/// Of the largest value, and of the root of the mean square.
const BOUND: f64 = 2e-5;
/// A norm of few voxels takes differences of nearly equal numbers.
const NORMS: f64 = 1e-4;
const SLOPE: f64 = 0.01;

/// Volumes and vectors.
type Arguments<'a> = (&'a [Tensor<5>], &'a [Tensor<1>]);

/// A result, and the gradients of its weighted sum with respect to everything that went in.
fn differentiated(
    bench: &Bench,
    volumes: &[[usize; 5]],
    vectors: &[usize],
    operator: &dyn Fn(Arguments<'_>) -> Tensor<5>,
) -> Found {
    let bench = bench.tracked();
    let id = |index: usize| index as u64;
    let volumes: Vec<_> = (volumes.iter().enumerate())
        .map(|(index, shape)| bench.tensor(id(index), *shape).require_grad())
        .collect();
    let vectors: Vec<_> = (vectors.iter().enumerate())
        .map(|(index, len)| bench.tensor(id(10 + index), [*len]).require_grad())
        .collect();
    let result = operator((&volumes, &vectors));
    let weights = bench.tensor(20, result.dims());
    let gradients = (result.clone() * weights).sum().backward();
    let mut found = vec![("result".to_owned(), numbers(result))];
    let mut put = |what: &str, index: usize, values| {
        found.push((format!("gradient of {what} {}", index + 1), values));
    };
    for (index, volume) in volumes.iter().enumerate() {
        if let Some(gradient) = volume.grad(&gradients) {
            put("volume", index, numbers(gradient));
        }
    }
    for (index, vector) in vectors.iter().enumerate() {
        if let Some(gradient) = vector.grad(&gradients) {
            put("vector", index, numbers(gradient));
        }
    }
    found
}

fn norm(vectors: &[Tensor<1>]) -> Norm {
    Norm { weight: vectors[0].clone() + 1.5, bias: vectors[1].clone(), epsilon: 1e-5 }
}

/// A stage of one operator.
fn stage(
    name: &str,
    bound: f64,
    shapes: (Vec<[usize; 5]>, Vec<usize>),
    operator: impl Fn(Arguments<'_>) -> Tensor<5> + 'static,
) -> Stage {
    let (volumes, vectors) = shapes;
    Stage::of_any_precision(name, bound, move |bench| {
        Ok(differentiated(bench, &volumes, &vectors, &operator))
    })
}

/// What is convolved, outputs, kernel and stride, by the name of the kind.
type Convolution = (&'static str, [usize; 5], usize, [usize; 3], [usize; 3]);

/// Channels and sizes of every kind of tile, and sizes that none divides.
const CONVOLUTIONS: [Convolution; 9] = [
    ("convolution of the stem (1 channel)", [2, 1, 9, 10, 13], 16, [3; 3], [1; 3]),
    ("convolution 3x3x3", [1, 16, 6, 9, 17], 32, [3; 3], [1; 3]),
    ("convolution 3x3x3 of odd channels", [2, 5, 6, 7, 9], 3, [3; 3], [1; 3]),
    ("convolution with stride 2", [1, 12, 9, 8, 11], 24, [3; 3], [2; 3]),
    ("convolution with strides 1 1 2", [2, 8, 4, 5, 9], 16, [3; 3], [1, 1, 2]),
    ("convolution with stride 2 of the shortcut", [2, 8, 6, 6, 5], 16, [1; 3], [2; 3]),
    ("convolution of planes (1x3x3)", [1, 8, 4, 9, 10], 8, [1, 3, 3], [1, 2, 2]),
    ("convolution of few voxels", [1, 48, 2, 3, 4], 64, [3; 3], [1; 3]),
    ("head (1x1x1, 105 classes)", [1, 32, 5, 6, 7], 105, [1; 3], [1; 3]),
];

fn convolutions() -> impl Iterator<Item = Stage> {
    CONVOLUTIONS.into_iter().map(|(name, input, outputs, [kz, ky, kx], stride)| {
        let weight = [outputs, input[1], kz, ky, kx];
        stage(name, BOUND, (vec![input, weight], vec![outputs]), move |(x, b)| {
            conv3d(x[0].clone(), x[1].clone(), b[0].clone(), stride)
        })
    })
}

fn joined() -> [Stage; 4] {
    let sizes = |first, second| [[1, first, 5, 6, 9], [1, second, 5, 6, 9]];
    let shapes = |[a, b]: [[usize; 5]; 2], outputs, kernel| {
        (vec![a, b, [outputs, a[1] + b[1], kernel, kernel, kernel]], vec![outputs])
    };
    let join = |(x, b): Arguments<'_>| {
        conv3d_joined(x[0].clone(), x[1].clone(), x[2].clone(), b[0].clone(), [1; 3])
    };
    let transpose =
        |(x, b): Arguments<'_>| conv_transpose3d(x[0].clone(), x[1].clone(), b[0].clone());
    [
        stage("convolution of two inputs", BOUND, shapes(sizes(8, 12), 16, 3), join),
        stage("convolution 1x1x1 of two inputs", BOUND, shapes(sizes(16, 8), 8, 1), join),
        stage(
            "transposed convolution",
            BOUND,
            (vec![[2, 8, 4, 5, 6], [8, 6, 2, 2, 2]], vec![6]),
            transpose,
        ),
        stage(
            "transposed convolution of planes",
            BOUND,
            (vec![[1, 5, 3, 4, 5], [5, 4, 1, 2, 2]], vec![4]),
            transpose,
        ),
    ]
}

fn voxelwise() -> [Stage; 6] {
    let upsampled = |factor| move |(x, _): Arguments<'_>| upsample_nearest(x[0].clone(), factor);
    let volume = [2, 12, 7, 6, 9];
    [
        stage("upsampling", BOUND, (vec![[2, 8, 4, 5, 6]], vec![]), upsampled([2; 3])),
        stage("upsampling by 1 2 3", BOUND, (vec![[1, 3, 4, 5, 6]], vec![]), upsampled([1, 2, 3])),
        stage("leaky ReLU", BOUND, (vec![volume], vec![]), |(x, _)| {
            leaky_relu(x[0].clone(), SLOPE)
        }),
        stage("instance norm", NORMS, (vec![volume], vec![12; 2]), |(x, v)| {
            instance_norm(x[0].clone(), norm(v))
        }),
        stage("norm and leaky ReLU", NORMS, (vec![volume], vec![12; 2]), |(x, v)| {
            norm_activation(x[0].clone(), norm(v), SLOPE)
        }),
        stage(
            "norm, residual and leaky ReLU",
            NORMS,
            (vec![volume, volume], vec![12; 2]),
            |(x, v)| norm_residual_activation(x[0].clone(), norm(v), x[1].clone(), SLOPE),
        ),
    ]
}

/// What a residual block is made of: convolutions whose moments a norm takes over, weights in the order of
/// the device, and, without gradients, what is normed or repeated while it is read.
fn fused() -> [Stage; 4] {
    let measured = |stride| {
        move |(x, v): Arguments<'_>| {
            let y = conv3d_measured(x[0].clone(), prepared(x[1].clone()), v[0].clone(), stride);
            y.norm_activation(norm(&v[1..]), SLOPE)
        }
    };
    let shapes =
        |input: [usize; 5], outputs| (vec![input, [outputs, input[1], 3, 3, 3]], vec![outputs; 3]);
    [
        stage(
            "convolution and norm",
            NORMS,
            shapes([2, 8, 6, 7, 10], 16),
            without_bias(measured([1; 3])),
        ),
        stage(
            "convolution with stride and norm",
            NORMS,
            shapes([1, 8, 9, 10, 13], 16),
            without_bias(measured([1, 2, 2])),
        ),
        Stage::of_any_precision("block without gradients", NORMS, |bench| Ok(block(bench))),
        Stage::of_any_precision("repeated and joined without gradients", NORMS, |bench| {
            Ok(repeated(bench))
        }),
    ]
}

/// The norm undoes the bias before it, so that its gradient is what rounding leaves of zero: the bias is
/// given without asking for its gradient.
fn without_bias(
    operator: impl Fn(Arguments<'_>) -> Tensor<5> + 'static,
) -> impl Fn(Arguments<'_>) -> Tensor<5> + 'static {
    move |(x, v)| {
        let mut vectors = v.to_vec();
        vectors[0] = vectors[0].clone().detach();
        operator((x, &vectors))
    }
}

fn block(bench: &Bench) -> Found {
    let x = bench.tensor(0, [2, 8, 6, 7, 9]);
    let vectors = [1, 2, 3, 4].map(|id| bench.tensor(id, [16]));
    let weights =
        [(5, [16, 8, 3, 3, 3]), (6, [16, 16, 3, 3, 3])].map(|(id, s)| bench.tensor(id, s));
    let [first, second] = weights;
    let residual = bench.tensor(7, [2, 16, 6, 7, 9]);
    let bias = vectors[0].clone();
    let y = conv3d_measured(x, prepared(first), bias.clone(), [1; 3]);
    let y = y.norm_conv3d_measured(norm(&vectors[1..]), SLOPE, prepared(second), bias, [1; 3]);
    let y = y.norm_residual_activation(norm(&vectors[2..]), residual, SLOPE);
    vec![("result".to_owned(), numbers(y))]
}

fn repeated(bench: &Bench) -> Found {
    let (coarse, beside) = (bench.tensor(0, [1, 4, 3, 4, 5]), bench.tensor(1, [1, 8, 6, 8, 10]));
    let vectors = [2, 3, 4].map(|id| bench.tensor(id, [8]));
    let weight = bench.tensor(5, [8, 12, 3, 3, 3]);
    let up = || Upsampled::new(coarse.clone(), [2; 3]);
    let (w, bias) = (weight.clone(), vectors[0].clone());
    let plain = up().conv3d_joined(beside.clone(), w.clone(), bias.clone());
    let normed = up().conv3d_joined_measured(beside.clone(), w, bias.clone());
    let normed = normed.norm_activation(norm(&vectors[1..]), SLOPE);
    let fine = upsample_nearest(coarse, [2; 3]);
    let written = conv3d_joined_measured(fine, beside, weight, bias, [1; 3]);
    let written = written.norm_activation(norm(&vectors[1..]), SLOPE);
    let names = ["convolution", "convolution and norm", "with the repeated tensor written"];
    let found = [plain, normed, written].map(numbers);
    names.map(str::to_owned).into_iter().zip(found).collect()
}

/// Two steps, the first without a velocity.
fn optimiser() -> Stage {
    Stage::new("step of the optimiser, one tensor", 1e-6, |bench| {
        let step = SgdStep {
            gradient_factor: 0.5,
            weight_decay: 3e-2,
            momentum: 0.9,
            nesterov: true,
            lr: 0.1,
        };
        let [value, first, second] = [0, 1, 2].map(|id| bench.tensor(id, [1001]));
        let (value, velocity) = sgd_step(value, first, None, step);
        let (value, velocity) = sgd_step(value, second, Some(velocity), step);
        Ok(vec![
            ("values".to_owned(), numbers(value)),
            ("velocities".to_owned(), numbers(velocity)),
        ])
    })
}

/// All of them, from the simple to the composed.
pub(super) fn stages() -> Vec<Stage> {
    let mut stages: Vec<_> = convolutions().collect();
    stages.extend(joined());
    stages.extend(voxelwise());
    stages.extend(fused());
    stages.push(optimiser());
    stages
}
