//! A softmax beside its labels: from tensors to launches.

mod kernels;

use super::launch::{Kernel, channels_last, contiguous, dims, elem, empty, empty_f32, tensor};
use super::norm::Division;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use kernels::{NUMBERS, SoftmaxSizesLaunch, UNITS, VOXELS, class_sums, gradient, statistics};

/// Chunks a sample is divided into, at most.
const CHUNKS: usize = 512;

/// Logits, labels, and what makes the former a softmax.
#[derive(Clone, Debug)]
pub(crate) struct OwnSoftmax {
    /// `[N, C, Z, Y, X]`.
    logits: Tensor<5>,
    /// `[N, Z, Y, X]`, in floating point.
    labels: Tensor<4>,
    /// `[N, voxels, 2]`.
    statistics: Tensor<3>,
    ignore: Option<i32>,
}

/// What was summed over the voxels.
pub(crate) struct Summed {
    /// Overlap, predicted and labelled, `[N, C]` each.
    pub of_classes: [Vec<f64>; 3],
    pub cross_entropy: f64,
    pub valid: f64,
    pub labels: Option<[i64; 2]>,
}

impl OwnSoftmax {
    /// Whether logits are computed with here.
    pub fn takes(logits: &Tensor<5>) -> bool {
        let device = logits.device();
        let is_own = super::computes_on(&device) && super::takes(&device, logits.dtype());
        is_own && !device.is_autodiff() && logits.dims().iter().all(|n| *n > 0)
    }

    pub fn of(logits: &Tensor<5>, labels: &Tensor<4, Int>, ignore: Option<i32>) -> (Self, Summed) {
        let labels = labels.clone().float().cast(DType::F32);
        let (given, marked) = (logits.clone().into_dispatch(), labels.clone().into_dispatch());
        let (found, numbers) = Dispatch::stunet_softmax_statistics(given, marked, ignore);
        let (given, marked) = (logits.clone().into_dispatch(), labels.clone().into_dispatch());
        let sums = Dispatch::stunet_softmax_sums(given, marked, found.clone(), ignore);
        let [n, classes, ..] = logits.dims();
        let numbers: Tensor<3> = Tensor::from_dispatch(numbers);
        let sums: Tensor<4> = Tensor::from_dispatch(sums);
        // One tensor, one wait for the device.
        let length = numbers.dims().iter().product::<usize>();
        let all = Tensor::cat(vec![numbers.flatten::<1>(0, 2), sums.flatten::<1>(0, 3)], 0);
        let all = all.into_data().try_into_vec::<f32>().expect("sums are f32");
        let summed = Summed::of(&all[..length], &all[length..], [n, classes]);
        let (logits, statistics) = (logits.clone(), Tensor::from_dispatch(found));
        (Self { logits, labels, statistics, ignore }, summed)
    }

    pub fn gradient(&self, slopes: [&[f64]; 2], cross_entropy: f64) -> Tensor<5> {
        let [n, classes, ..] = self.logits.dims();
        let all: Vec<f32> = slopes.into_iter().flatten().map(|slope| *slope as f32).collect();
        let slopes = TensorData::new(all, [2, n, classes]);
        let slopes = Tensor::<3>::from_data(slopes, (&self.logits.device(), DType::F32));
        Tensor::from_dispatch(Dispatch::stunet_softmax_gradient(
            self.logits.clone().into_dispatch(),
            self.labels.clone().into_dispatch(),
            self.statistics.clone().into_dispatch(),
            slopes.into_dispatch(),
            Weight { cross_entropy: cross_entropy as f32, ignore: self.ignore },
        ))
    }
}

impl Summed {
    /// Adds the chunks `[N, chunks, NUMBERS]` and `[N, chunks, C, 3]`, in their order.
    fn of(numbers: &[f32], sums: &[f32], [n, classes]: [usize; 2]) -> Self {
        let of = |index: usize| numbers.iter().skip(index).step_by(NUMBERS).map(|v| f64::from(*v));
        let valid: f64 = of(1).sum();
        let (least, most) = (of(2).fold(f64::MAX, f64::min), of(3).fold(f64::MIN, f64::max));
        let mut of_classes: [Vec<f64>; 3] = std::array::from_fn(|_| vec![0.0; n * classes]);
        let per_sample = sums.len() / n;
        for (sample, chunks) in sums.chunks_exact(per_sample).enumerate() {
            for chunk in chunks.chunks_exact(classes * 3) {
                for (class, found) in chunk.chunks_exact(3).enumerate() {
                    let all = of_classes.iter_mut().zip(found);
                    all.for_each(|(sum, v)| sum[sample * classes + class] += f64::from(*v));
                }
            }
        }
        let labels = (valid > 0.0).then_some([least as i64, most as i64]);
        Self { of_classes, cross_entropy: of(0).sum(), valid, labels }
    }
}

/// What the cross-entropy is multiplied by, and the label that takes no part.
#[derive(Clone, Copy, Debug)]
struct Weight {
    cross_entropy: f32,
    ignore: Option<i32>,
}

/// Logits are `[N, C, Z, Y, X]`, labels `[N, Z, Y, X]`.
#[backend_extension(Cube: cfg(not(feature = "fusion")))]
trait Softmaxes: Backend {
    /// Statistics of the voxels `[N, voxels, 2]`, and numbers of chunks.
    fn stunet_softmax_statistics(
        logits: FloatTensor<Self>,
        labels: FloatTensor<Self>,
        ignore: Option<i32>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Sums of chunks, `[N, chunks, C, 3]`.
    fn stunet_softmax_sums(
        logits: FloatTensor<Self>,
        labels: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        ignore: Option<i32>,
    ) -> FloatTensor<Self>;

    /// The gradient, of the type of the logits.
    fn stunet_softmax_gradient(
        logits: FloatTensor<Self>,
        labels: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        slopes: FloatTensor<Self>,
        weight: Weight,
    ) -> FloatTensor<Self>;
}

impl Softmaxes for CubeBackend {
    fn stunet_softmax_statistics(
        logits: CubeTensor,
        labels: CubeTensor,
        ignore: Option<i32>,
    ) -> (CubeTensor, CubeTensor) {
        let (logits, labels) = (channels_last(logits), contiguous(labels));
        let divided = Divided::of(&logits);
        let Divided { samples, voxels, chunks, .. } = divided;
        let found = empty_f32(&logits, [samples, voxels, 2]);
        let numbers = empty_f32(&logits, [samples, chunks, NUMBERS]);
        let kernel = Kernel::new("softmax_statistics")
            .reads(&[&logits, &labels])
            .writes(&[&found, &numbers]);
        kernel.in_turns(samples * chunks, UNITS, |cube, count, dim| {
            // SAFETY: chunks and classes beyond the last are left out by the kernel.
            unsafe {
                statistics::launch_unchecked(
                    &logits.client,
                    count,
                    dim,
                    arg(&logits),
                    arg(&labels),
                    arg(&found),
                    arg(&numbers),
                    divided.sizes(cube),
                    ignore.unwrap_or(0) as f32,
                    ignore.is_some(),
                    elem(&logits),
                );
            }
        });
        (found, numbers)
    }

    fn stunet_softmax_sums(
        logits: CubeTensor,
        labels: CubeTensor,
        statistics: CubeTensor,
        ignore: Option<i32>,
    ) -> CubeTensor {
        let (logits, labels) = (channels_last(logits), contiguous(labels));
        let division = Division::of(&logits);
        let sums = empty_f32(&logits, [division.samples, division.chunks, division.channels, 3]);
        let cubes = division.cubes();
        let read = [&logits, &labels, &statistics];
        let kernel = Kernel::new("softmax_sums").reads(&read).writes(&[&sums]);
        kernel.cubes(cubes, UNITS, |count, dim| {
            // SAFETY: chunks and classes beyond the last are left out by the kernel.
            unsafe {
                class_sums::launch_unchecked(
                    &logits.client,
                    count,
                    dim,
                    arg(&logits),
                    arg(&labels),
                    arg(&statistics),
                    arg(&sums),
                    division.launch(cubes),
                    ignore.unwrap_or(0) as f32,
                    ignore.is_some(),
                    division.width,
                    elem(&logits),
                );
            }
        });
        sums
    }

    fn stunet_softmax_gradient(
        logits: CubeTensor,
        labels: CubeTensor,
        statistics: CubeTensor,
        slopes: CubeTensor,
        weight: Weight,
    ) -> CubeTensor {
        let (logits, labels) = (channels_last(logits), contiguous(labels));
        let slopes = contiguous(slopes);
        let divided = Divided::of(&logits);
        let to = empty(&logits, dims::<5>(&logits));
        let read = [&logits, &labels, &statistics, &slopes];
        let kernel = Kernel::new("softmax_gradient").reads(&read).writes(&[&to]);
        let Weight { cross_entropy, ignore } = weight;
        kernel.in_turns(divided.samples * divided.chunks, UNITS, |cube, count, dim| {
            // SAFETY: chunks and classes beyond the last are left out by the kernel.
            unsafe {
                gradient::launch_unchecked(
                    &logits.client,
                    count,
                    dim,
                    arg(&logits),
                    arg(&labels),
                    arg(&statistics),
                    arg(&slopes),
                    arg(&to),
                    divided.sizes(cube),
                    divided.samples,
                    cross_entropy,
                    ignore.unwrap_or(0) as f32,
                    ignore.is_some(),
                    elem(&logits),
                );
            }
        });
        tensor(to)
    }
}

fn arg(x: &CubeTensor) -> BufferArg {
    x.clone().into_buffer_arg()
}

/// How voxels are divided where each has a few threads.
#[derive(Clone, Copy)]
struct Divided {
    samples: usize,
    voxels: usize,
    classes: usize,
    chunks: usize,
    chunk: usize,
}

impl Divided {
    fn of(logits: &CubeTensor) -> Self {
        let [samples, z, y, x, classes] = dims(logits);
        let voxels = z * y * x;
        let chunk = voxels.div_ceil(CHUNKS).next_multiple_of(VOXELS);
        Self { samples, voxels, classes, chunks: voxels.div_ceil(chunk), chunk }
    }

    fn sizes(&self, cube: usize) -> SoftmaxSizesLaunch {
        let Self { voxels, classes, chunks, chunk, .. } = *self;
        SoftmaxSizesLaunch::new(voxels, classes, chunks, chunk, cube)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_added_in_their_order() {
        // Two samples of one chunk each, two classes.
        let numbers = [1.0, 3.0, 0.0, 1.0, 0.5, 2.0, 1.0, 1.0];
        let sums = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0];
        let found = Summed::of(&numbers, &sums, [2, 2]);
        assert_eq!((found.cross_entropy, found.valid, found.labels), (1.5, 5.0, Some([0, 1])));
        let [overlap, predicted, labelled] = found.of_classes;
        assert_eq!(overlap, [1.0, 4.0, 7.0, 10.0]);
        assert_eq!((predicted[3], labelled[0]), (11.0, 3.0));
        let none = [0.0, 0.0, f32::MAX, f32::MIN];
        assert_eq!(Summed::of(&none, &[0.0; 3], [1, 1]).labels, None);
    }
}
