//! Labels of averages: from tensors to launches.

use super::labels::{LabelSizesLaunch, decide};
use crate::gpu::launch::{Kernel, UNITS, dims, elements};
use crate::windowed::LinePlace;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, ExtensionType};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// What labels are decided of.
#[derive(Clone, ExtensionType)]
pub(crate) struct Given<B: Backend> {
    /// Places of averages below and above those of the output: of planes, of rows, of columns.
    pub places: IntTensor<B>,
    /// How much they count: two numbers each, of which the second is what the first lacks.
    pub counts: FloatTensor<B>,
    pub label_of: IntTensor<B>,
}

/// Values and labels so far, or none.
#[derive(ExtensionType)]
pub(crate) enum Maybes<B: Backend> {
    Some(FloatTensor<B>, IntTensor<B>),
    None,
}

/// [`LinePlace`]s as kernels read them.
pub(super) struct Asked {
    pub size: [usize; 3],
    pub len: usize,
    pub places: Vec<i32>,
    pub counts: Vec<f32>,
}

impl Asked {
    /// Planes lie in a ring.
    pub fn new(places: [&[LinePlace]; 3], ring: usize) -> Self {
        let size = places.map(<[LinePlace]>::len);
        let rings = [ring, usize::MAX, usize::MAX];
        let all = || {
            places
                .into_iter()
                .zip(rings)
                .flat_map(|(line, ring)| line.iter().map(move |at| (at, ring)))
        };
        let found = all().flat_map(|(at, ring)| [at.lower % ring, at.upper % ring]);
        let counts = all().flat_map(|(at, _)| [1.0 - at.weight_upper, at.weight_upper]);
        let pair = |value: f64| [value as f32, (value - f64::from(value as f32)) as f32];
        Self {
            size,
            len: size.iter().sum::<usize>(),
            places: found.map(|at| at as i32).collect(),
            counts: counts.flat_map(pair).collect(),
        }
    }
}

/// A part of the output, and the first class of the averages.
#[derive(Clone, Copy, Debug)]
pub(super) struct LabelPart {
    pub size: [usize; 3],
    pub class: usize,
    /// None where the largest wins.
    pub threshold: Option<f32>,
}

impl LabelPart {
    pub fn run(
        &self,
        averages: &CubeTensor,
        between: &Given<CubeBackend>,
        best: &CubeTensor,
        labels: &CubeTensor,
    ) {
        /// Operations for each of the eight values that are mixed.
        const OPERATIONS: usize = 8 * 12;
        let [classes, ring, sums_rows, sums_columns] = dims(averages);
        let [planes, rows, columns] = self.size;
        let voxels = planes * rows * columns;
        let read = elements(averages).min(voxels * classes * 8) * size_of::<f32>();
        let kernel = Kernel::new("decide").moves(read, voxels * 8);
        let kernel = kernel.products((voxels * classes * OPERATIONS) as u64);
        kernel.in_turns(voxels.div_ceil(UNITS), UNITS, |cube, count, dim| {
            let sizes = LabelSizesLaunch::new(
                planes,
                rows,
                columns,
                ring,
                sums_rows,
                sums_columns,
                classes,
                self.class,
                cube,
            );
            // SAFETY: places lie inside the averages, and voxels beyond the last are left out.
            unsafe {
                decide::launch_unchecked(
                    &averages.client,
                    count,
                    dim,
                    arg(averages),
                    arg(&between.places),
                    arg(&between.counts),
                    arg(&between.label_of),
                    arg(best),
                    arg(labels),
                    sizes,
                    self.threshold.unwrap_or(0.0),
                    self.threshold.is_none(),
                );
            }
        });
    }
}

fn arg(x: &CubeTensor) -> BufferArg {
    x.clone().into_buffer_arg()
}
