//! The values of a window, as they are or before their head: from tensors to launches.

use super::kernels::{BLOCK, HeadSizesLaunch, add, statistics};
use super::place::Place;
use crate::gpu::conv::pointwise_weights;
use crate::gpu::launch::{
    Kernel, Present, UNITS, channels_last, contiguous, dims, elem, elements, empty_f32, vector_size,
};
use crate::windowed::WindowValues;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, ExtensionType};
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// [`WindowValues`] of a backend; weights as the network has them.
#[derive(Clone, ExtensionType)]
pub(crate) enum Values<B: Backend> {
    Ready(FloatTensor<B>),
    BeforeHead(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
}

impl Values<Dispatch> {
    pub fn of(values: WindowValues) -> Self {
        match values {
            WindowValues::Ready(values) => Self::Ready(values.into_dispatch()),
            WindowValues::BeforeHead { features, weight, bias } => Self::BeforeHead(
                features.into_dispatch(),
                weight.into_dispatch(),
                bias.cast(DType::F32).into_dispatch(),
            ),
        }
    }
}

/// What values of some classes are computed from.
pub(super) struct Head {
    /// Features or values, `[1, z, y, x, F]`.
    from: CubeTensor,
    /// `[1, F, classes]`, with zeros behind the classes; none where the values are ready.
    weight: Option<CubeTensor>,
    bias: CubeTensor,
    /// The first class.
    class: usize,
    classes: usize,
}

impl Head {
    /// Of classes from `class` on; all of them unless their number is given.
    pub fn of(values: Values<CubeBackend>, class: usize, classes: Option<usize>) -> Self {
        match values {
            Values::Ready(values) => {
                let from = channels_last(values);
                let all = dims::<5>(&from)[4];
                // Not read.
                let bias = from.clone();
                Self { from, weight: None, bias, class, classes: classes.unwrap_or(all) }
            }
            Values::BeforeHead(features, weight, bias) => {
                let from = channels_last(features);
                let classes = classes.unwrap_or(dims::<5>(&weight)[0]);
                let weight = Some(pointwise_weights(&weight, class..class + classes, BLOCK));
                Self { from, weight, bias: contiguous(bias), class, classes }
            }
        }
    }

    fn voxels(&self) -> usize {
        let [_, z, y, x, _] = dims(&self.from);
        z * y * x
    }

    fn products(&self, voxels: usize) -> u64 {
        match self.weight {
            Some(_) => (voxels * dims::<5>(&self.from)[4] * self.classes) as u64,
            None => 0,
        }
    }

    /// Bytes of a number of voxels that are read.
    fn bytes(&self, voxels: usize) -> usize {
        let values = if self.weight.is_some() { dims::<5>(&self.from)[4] } else { self.classes };
        let weights = self.weight.as_ref().map_or(0, |w| elements(w) * size_of::<f32>());
        voxels * values * self.from.elem_size() + weights
    }

    fn sizes(&self) -> HeadSizesLaunch {
        let row = self.weight.as_ref().map_or(0, |weight| dims::<3>(weight)[2] / 4);
        HeadSizesLaunch::new(dims::<5>(&self.from)[4], self.classes, self.class, row)
    }

    /// Values that are read at a time.
    fn vector(&self) -> usize {
        if self.weight.is_some() { vector_size(&[dims::<5>(&self.from)[4]]) } else { 1 }
    }

    pub fn statistics(&self) -> CubeTensor {
        let voxels = self.voxels();
        let to = empty_f32(&self.from, [voxels, 2]);
        let kernel = Kernel::new("window_statistics")
            .moves(self.bytes(voxels), elements(&to) * size_of::<f32>())
            .products(self.products(voxels));
        kernel.in_turns(voxels.div_ceil(UNITS), UNITS, |cube, count, dim| {
            // SAFETY: classes and voxels beyond the last are left out by the kernel.
            unsafe {
                statistics::launch_unchecked(
                    &to.client,
                    count,
                    dim,
                    self.vector(),
                    arg(&self.from),
                    self.weight.as_ref().map(arg).into(),
                    arg(&self.bias),
                    arg(&to),
                    self.sizes(),
                    voxels,
                    f32::NAN,
                    cube,
                    elem(&self.from),
                );
            }
        });
        to
    }

    pub fn add(
        &self,
        sums: &CubeTensor,
        found: Option<CubeTensor>,
        importance: Option<CubeTensor>,
        place: &Place,
    ) {
        assert_eq!(
            self.voxels(),
            place.window.iter().product::<usize>(),
            "values of a whole window"
        );
        let [voxels, cubes] = place.threads();
        let of_sums = voxels * self.classes * size_of::<f32>();
        let maps = usize::from(importance.is_some()) + 2 * usize::from(found.is_some());
        let read = self.bytes(voxels) + of_sums + maps * voxels * size_of::<f32>();
        let kernel = Kernel::new("add_window").moves(read, of_sums).products(self.products(voxels));
        kernel.in_turns(cubes, UNITS, |cube, count, dim| {
            let sizes = place.sizes(sums, cube);
            // SAFETY: the place lies inside the window and the sums; what lies beyond is left out.
            unsafe {
                add::launch_unchecked(
                    &sums.client,
                    count,
                    dim,
                    self.vector(),
                    arg(&self.from),
                    self.weight.as_ref().map(arg).into(),
                    arg(&self.bias),
                    found.as_ref().map(arg).into(),
                    importance.as_ref().map(arg).into(),
                    arg(sums),
                    self.sizes(),
                    sizes,
                    place.factor,
                    Present::of(&[self.weight.is_some(), found.is_some(), importance.is_some()]),
                    elem(&self.from),
                );
            }
        });
    }
}

fn arg(x: &CubeTensor) -> BufferArg {
    x.clone().into_buffer_arg()
}
