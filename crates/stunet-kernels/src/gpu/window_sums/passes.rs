//! The passes over sums, of which there is one for each tensor of them: from tensors to launches.

use super::decide::{Given, LabelPart, Maybes};
use super::head::{Head, Values};
use super::kernels::{add_weights, average, clear, take};
use super::place::{Place, Taken};
use crate::gpu::launch::{Kernel, UNITS, contiguous, dims, empty_f32, empty_i32};
use crate::operators::Maybe;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Sums, weights and what was decided so far are written in place: nothing else may hold them.
#[backend_extension(Cube: cfg(not(feature = "fusion")))]
pub(super) trait Windows: Backend {
    /// What makes the values of every voxel probabilities, `[voxels, 2]`.
    fn stunet_window_statistics(#[extension_type] values: Values<Self>) -> FloatTensor<Self>;

    /// The sums with the window.
    fn stunet_add_window(
        sums: FloatTensor<Self>,
        #[extension_type] values: Values<Self>,
        #[extension_type] statistics: Maybe<Self>,
        #[extension_type] importance: Maybe<Self>,
        place: Place,
    ) -> FloatTensor<Self>;

    /// The weights with those of the window.
    fn stunet_add_window_weights(
        weights: FloatTensor<Self>,
        #[extension_type] importance: Maybe<Self>,
        place: Place,
    ) -> FloatTensor<Self>;

    /// The sums with zeros where rows were taken, and the rows.
    fn stunet_take_rows(
        sums: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        taken: Taken,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The sums, or weights, with zeros where rows were.
    fn stunet_clear_rows(sums: FloatTensor<Self>, taken: Taken) -> FloatTensor<Self>;

    /// The sums with averages in the place of rows.
    fn stunet_average_rows(
        sums: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        taken: Taken,
    ) -> FloatTensor<Self>;

    /// The largest values and the labels of all classes so far.
    fn stunet_decide(
        averages: FloatTensor<Self>,
        #[extension_type] between: Given<Self>,
        #[extension_type] so_far: Maybes<Self>,
        part: LabelPart,
    ) -> (FloatTensor<Self>, IntTensor<Self>);
}

impl Windows for CubeBackend {
    fn stunet_window_statistics(values: Values<Self>) -> CubeTensor {
        Head::of(values, 0, None).statistics()
    }

    fn stunet_add_window(
        sums: CubeTensor,
        values: Values<Self>,
        statistics: Maybe<Self>,
        importance: Maybe<Self>,
        place: Place,
    ) -> CubeTensor {
        let sums = in_place(sums);
        let [classes, ..] = dims::<4>(&sums);
        let head = Head::of(values, place.class, Some(classes));
        let importance = importance.into_option().map(contiguous);
        head.add(&sums, statistics.into_option(), importance, &place);
        sums
    }

    fn stunet_add_window_weights(
        weights: CubeTensor,
        importance: Maybe<Self>,
        place: Place,
    ) -> CubeTensor {
        let weights = in_place(weights);
        let importance = importance.into_option().map(contiguous);
        let [voxels, cubes] = place.threads();
        let bytes = voxels * size_of::<f32>();
        let read = bytes * (1 + usize::from(importance.is_some()));
        let kernel = Kernel::new("add_weights").moves(read, bytes);
        kernel.in_turns(cubes, UNITS, |cube, count, dim| {
            let importance = importance.as_ref().map(arg).into();
            let sizes = place.sizes(&weights, cube);
            // SAFETY: the place lies inside the weights, and voxels beyond it are left out.
            unsafe {
                let to = arg(&weights);
                add_weights::launch_unchecked(&weights.client, count, dim, importance, to, sizes);
            }
        });
        weights
    }

    fn stunet_take_rows(
        sums: CubeTensor,
        weights: CubeTensor,
        taken: Taken,
    ) -> (CubeTensor, CubeTensor) {
        let (sums, weights) = (in_place(sums), contiguous(weights));
        let [classes, _, _, columns] = dims(&sums);
        let to = empty_f32(&sums, [classes, taken.planes, taken.rows, columns]);
        let values = taken.values(&sums);
        let bytes = values * size_of::<f32>();
        let kernel = Kernel::new("take_rows").moves(bytes + bytes / classes.max(1), 2 * bytes);
        kernel.in_turns(values.div_ceil(UNITS), UNITS, |cube, count, dim| {
            let sizes = taken.sizes(&sums, cube);
            // SAFETY: the rows lie inside the sums and the weights, and values beyond them are left out.
            unsafe {
                take::launch_unchecked(
                    &sums.client,
                    count,
                    dim,
                    arg(&sums),
                    arg(&weights),
                    arg(&to),
                    sizes,
                    taken.divisor,
                );
            }
        });
        (sums, to)
    }

    fn stunet_clear_rows(sums: CubeTensor, taken: Taken) -> CubeTensor {
        let sums = in_place(sums);
        let values = taken.values(&sums);
        let kernel = Kernel::new("clear_rows").moves(0, values * size_of::<f32>());
        kernel.in_turns(values.div_ceil(UNITS), UNITS, |cube, count, dim| {
            let sizes = taken.sizes(&sums, cube);
            // SAFETY: as above.
            unsafe { clear::launch_unchecked(&sums.client, count, dim, arg(&sums), sizes) }
        });
        sums
    }

    fn stunet_average_rows(sums: CubeTensor, weights: CubeTensor, taken: Taken) -> CubeTensor {
        let (sums, weights) = (in_place(sums), contiguous(weights));
        let values = taken.values(&sums);
        let (bytes, classes) = (values * size_of::<f32>(), dims::<4>(&sums)[0]);
        let kernel = Kernel::new("average_rows").moves(bytes + bytes / classes.max(1), bytes);
        kernel.in_turns(values.div_ceil(UNITS), UNITS, |cube, count, dim| {
            let (to, from, sizes) = (arg(&sums), arg(&weights), taken.sizes(&sums, cube));
            let (client, divisor) = (&sums.client, taken.divisor);
            // SAFETY: as above.
            unsafe { average::launch_unchecked(client, count, dim, to, from, sizes, divisor) }
        });
        sums
    }

    fn stunet_decide(
        averages: CubeTensor,
        between: Given<Self>,
        so_far: Maybes<Self>,
        part: LabelPart,
    ) -> (CubeTensor, CubeTensor) {
        let averages = contiguous(averages);
        let (best, labels) = match so_far {
            Maybes::Some(best, labels) => (in_place(best), in_place(labels)),
            Maybes::None => (empty_f32(&averages, part.size), empty_i32(&averages, part.size)),
        };
        part.run(&averages, &between, &best, &labels);
        (best, labels)
    }
}

/// The tensor, of which the caller holds the only reference: [`super::OwnSums`] lends it.
///
/// CubeCL's count of references is no proof of that: while the device's own thread binds new memory it holds one
/// of its own for a moment, and a copy made then would be as large as the sums. New tensors on CUDA have gaps between
/// their rows: the first of all passes makes one without, which nobody else holds either.
fn in_place(sums: CubeTensor) -> CubeTensor {
    contiguous(sums)
}

fn arg(x: &CubeTensor) -> BufferArg {
    x.clone().into_buffer_arg()
}
