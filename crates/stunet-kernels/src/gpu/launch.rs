//! Between tensors and launches.

use super::faults;
use super::traffic::{KernelCall, note};
use burn::tensor::DType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::{permute_nchw_to_nhwc, permute_nhwc_to_nchw};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::FloatKind;
use cubecl::prelude::*;

/// Workgroups of a launch along one axis, which every device offers.
const MOST_CUBES: usize = 65_535;
/// Threads of a workgroup where each computes by itself.
pub(super) const UNITS: usize = 256;
/// Products of a launch: a fifth of a second on a device that computes 80 billion a second. Systems end
/// what keeps a device longer than a second or two.
///
/// Where debug assertions are on, so few that small tensors are computed in several launches as well.
const MOST_PRODUCTS: u64 = if cfg!(debug_assertions) { 1 << 18 } else { 16_000_000_000 };

/// The tensor as `[N, Z, Y, X, C]`, in this order in memory; a copy if it is not yet.
pub(super) fn channels_last(x: CubeTensor) -> CubeTensor {
    let x = permute_nchw_to_nhwc(x);
    contiguous(x)
}

/// The tensor in the order of its axes; a copy if it is not yet.
pub(super) fn contiguous(x: CubeTensor) -> CubeTensor {
    if !x.is_contiguous() {
        let bytes = elements(&x) * x.elem_size();
        note(KernelCall { kernel: "copy", launches: 1, read: bytes, written: bytes, products: 0 });
    }
    into_contiguous(x)
}

/// A tensor `[N, Z, Y, X, C]` as Burn knows it: `[N, C, Z, Y, X]`, in whatever order in memory.
pub(super) fn tensor(x: CubeTensor) -> CubeTensor {
    permute_nhwc_to_nchw(x)
}

/// A tensor of the same type on the same device. What it holds is not said: NaN where debug assertions
/// are on, so that a place a kernel forgot is seen.
pub(super) fn empty<const D: usize>(like: &CubeTensor, shape: [usize; D]) -> CubeTensor {
    empty_of(like, shape, like.dtype)
}

/// A tensor of single precision on the same device: [`empty`].
pub(super) fn empty_f32<const D: usize>(like: &CubeTensor, shape: [usize; D]) -> CubeTensor {
    empty_of(like, shape, DType::F32)
}

/// A tensor of integers on the same device, which holds anything.
pub(super) fn empty_i32<const D: usize>(like: &CubeTensor, shape: [usize; D]) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    let handle = client.empty(shape.iter().product::<usize>() * size_of::<i32>());
    CubeTensor::new_contiguous(client, device, shape.into(), handle, DType::I32)
}

fn empty_of<const D: usize>(like: &CubeTensor, shape: [usize; D], dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    let values: usize = shape.iter().product();
    let handle = client.empty(values * dtype.size());
    let tensor = CubeTensor::new_contiguous(client, device, shape.into(), handle, dtype);
    if cfg!(debug_assertions) {
        let (count, dim) = grid(values);
        let to = tensor.clone().into_buffer_arg();
        // SAFETY: the kernel writes below `values`, which is what there is.
        unsafe {
            fill::launch_unchecked(&like.client, count, dim, to, f32::NAN, values, elem(&tensor));
        }
    }
    tensor
}

#[cube(launch_unchecked)]
fn fill<E: Float>(to: &mut [E], value: f32, values: usize, #[define(E)] _dtype: ElemType) {
    if ABSOLUTE_POS < values {
        to[ABSOLUTE_POS] = E::cast_from(value);
    }
}

pub(super) fn dims<const D: usize>(x: &CubeTensor) -> [usize; D] {
    x.meta.shape().dims::<D>()
}

pub(super) fn strides<const D: usize>(x: &CubeTensor) -> [usize; D] {
    std::array::from_fn(|axis| x.meta.strides()[axis])
}

pub(super) fn elements(x: &CubeTensor) -> usize {
    x.meta.num_elements()
}

/// The type of the values in memory.
pub(super) fn elem(x: &CubeTensor) -> ElemType {
    ElemType::Float(match x.dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}

/// Values that are read or written at a time, where channels are these: 4 if they all divide into fours.
pub(super) fn vector_size(channels: &[usize]) -> usize {
    if channels.iter().all(|channels| channels.is_multiple_of(4)) { 4 } else { 1 }
}

/// Which of a kernel's optional tensors it is given: a part of every kernel with more than one of them.
///
/// CubeCL 0.11.3 keeps compiled kernels by a number in which an optional argument counts for the same at every place:
/// a kernel with the first of two and one with the second would be taken for each other (its enums of launch arguments hash
/// their fields alone).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Present(u32);

impl Present {
    /// In the order of the arguments.
    pub(super) fn of(are_given: &[bool]) -> Self {
        Self(are_given.iter().fold(0, |all, given| all << 1 | u32::from(*given)))
    }
}

/// Enough threads for `each` of something.
fn grid(each: usize) -> (CubeCount, CubeDim) {
    spread(each.div_ceil(UNITS), UNITS)
}

/// At least `cubes` workgroups; those beyond stop at once.
fn spread(cubes: usize, units: usize) -> (CubeCount, CubeDim) {
    let wide = cubes.clamp(1, MOST_CUBES);
    let high = cubes.div_ceil(wide).max(1);
    (CubeCount::Static(wide as u32, high as u32, 1), CubeDim::new_1d(units as u32))
}

/// A kernel that is about to run, with what it says about itself.
pub(super) struct Kernel {
    call: KernelCall,
}

impl Kernel {
    /// A kernel under its name.
    pub(super) fn new(kernel: &'static str) -> Self {
        Self { call: KernelCall { kernel, launches: 0, read: 0, written: 0, products: 0 } }
    }

    /// Tensors that are read, each once.
    pub(super) fn reads(mut self, tensors: &[&CubeTensor]) -> Self {
        self.call.read += tensors.iter().map(|x| elements(x) * x.elem_size()).sum::<usize>();
        self
    }

    /// Tensors that are written, each once.
    pub(super) fn writes(mut self, tensors: &[&CubeTensor]) -> Self {
        self.call.written += tensors.iter().map(|x| elements(x) * x.elem_size()).sum::<usize>();
        self
    }

    /// Bytes that are read and written, of tensors that are not moved as a whole.
    pub(super) fn moves(mut self, read: usize, written: usize) -> Self {
        self.call.read += read;
        self.call.written += written;
        self
    }

    /// Products of input values with weights.
    pub(super) fn products(mut self, products: u64) -> Self {
        self.call.products = products;
        self
    }

    /// One thread for each of `count`.
    pub(super) fn each(self, count: usize, launch: impl FnOnce(CubeCount, CubeDim)) {
        self.cubes(count.div_ceil(UNITS), UNITS, launch);
    }

    /// One workgroup for each of `cubes`.
    pub(super) fn cubes(
        mut self,
        cubes: usize,
        units: usize,
        launch: impl FnOnce(CubeCount, CubeDim),
    ) {
        let cubes = faults::left_of(self.call.kernel, cubes);
        if cubes > 0 {
            let (count, dim) = spread(cubes, units);
            launch(count, dim);
        }
        self.call.launches = 1;
        note(self.call);
    }

    /// One workgroup for each of `cubes`, in as many launches as keep each short: `launch` is given the
    /// first workgroup of each.
    pub(super) fn in_turns(
        mut self,
        cubes: usize,
        units: usize,
        mut launch: impl FnMut(usize, CubeCount, CubeDim),
    ) {
        let most = most_cubes(cubes, self.call.products);
        let cubes = faults::left_of(self.call.kernel, cubes);
        for first in (0..cubes).step_by(most) {
            let count = (cubes - first).min(most) as u32;
            launch(first, CubeCount::Static(count, 1, 1), CubeDim::new_1d(units as u32));
            self.call.launches += 1;
        }
        note(self.call);
    }
}

/// How many of `cubes` workgroups, which have `products` together, one launch may have.
fn most_cubes(cubes: usize, products: u64) -> usize {
    let turns = products.div_ceil(MOST_PRODUCTS).max(1);
    let turns = usize::try_from(turns).unwrap_or(usize::MAX);
    cubes.div_ceil(turns).clamp(1, MOST_CUBES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_are_bounded() {
        assert_eq!(most_cubes(100, 5), 100);
        assert_eq!(most_cubes(1_000_000, 5), MOST_CUBES);
        let (cubes, products) = (32_768, 5 * MOST_PRODUCTS);
        let most = most_cubes(cubes, products) as u64;
        assert!((most - 1) * products / cubes as u64 <= MOST_PRODUCTS);
        assert_eq!(most_cubes(1, products), 1);
    }
}
