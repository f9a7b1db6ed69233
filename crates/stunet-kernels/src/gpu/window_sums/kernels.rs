//! What is computed of every voxel of a window, and of every voxel of its sums.
//!
//! A thread computes the values of one voxel, some classes at a time, from its features: neighbouring
//! threads have neighbouring voxels of a row, whose sums lie beside each other. Products are added in the
//! order in which a convolution adds them. Every sum has one thread.

use crate::gpu::launch::{Present, UNITS};
use cubecl::prelude::*;

/// Four values.
type V4 = Vector<f32, Const<4>>;
/// Vectors of values that a thread computes at a time.
const VECTORS: usize = 2;
/// Values that a thread computes at a time: weights are arranged in blocks of as many.
pub(super) const BLOCK: usize = 4 * VECTORS;

/// The values of a voxel and where they are computed from.
#[derive(CubeLaunch, CubeType)]
pub(super) struct HeadSizes {
    /// Values of a voxel in memory: features, or the values themselves.
    pub features: usize,
    /// Classes that are computed, and the first of them.
    pub classes: usize,
    pub class: usize,
    /// Vectors of weights of a feature.
    pub row: usize,
}

/// A window and the sums it is added to, which have as many planes or more.
#[derive(CubeLaunch, CubeType)]
pub(super) struct WindowSizes {
    /// The window.
    pub depth: usize,
    pub height: usize,
    pub width: usize,
    /// 1 along the axes that were mirrored.
    pub flip_z: usize,
    pub flip_y: usize,
    pub flip_x: usize,
    /// What of the window is added: its first row and column, and their number.
    pub from_row: usize,
    pub from_column: usize,
    pub rows: usize,
    pub columns: usize,
    /// Where that lies in the sums, and the place of the first plane in their ring.
    pub ring: usize,
    pub plane: usize,
    pub row: usize,
    pub column: usize,
    /// Rows and columns of the sums.
    pub sums_rows: usize,
    pub sums_columns: usize,
    /// The first workgroup of the launch.
    pub cube: usize,
}

/// Where a thread finds its voxel.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct Voxel {
    /// In the window as it was predicted.
    mirrored: usize,
    /// In the window.
    straight: usize,
    /// In a plane of sums of one class.
    sum: usize,
}

#[cube]
fn mirrored(at: usize, length: usize, flip: usize) -> usize {
    select(flip > 0, length - 1 - at, at)
}

/// The voxel of a number, among those of a window that are added.
#[cube]
fn voxel(index: usize, sizes: &WindowSizes) -> Voxel {
    let (line, column) = (index / sizes.columns, index % sizes.columns);
    let (z, row) = (line / sizes.rows, line % sizes.rows);
    let (y, x) = (sizes.from_row + row, sizes.from_column + column);
    let from_z = mirrored(z, sizes.depth, sizes.flip_z);
    let from_y = mirrored(y, sizes.height, sizes.flip_y);
    let from_x = mirrored(x, sizes.width, sizes.flip_x);
    let plane = (sizes.plane + z) % sizes.ring;
    Voxel {
        mirrored: (from_z * sizes.height + from_y) * sizes.width + from_x,
        straight: (z * sizes.height + y) * sizes.width + x,
        sum: (plane * sizes.sums_rows + sizes.row + row) * sizes.sums_columns
            + sizes.column
            + column,
    }
}

/// The values of some classes of a voxel: those of the `block`, which are beyond the last where there are
/// fewer.
#[cube]
fn values_of<E: Float, N: Size>(
    from: &[Vector<E, N>],
    weight: ComptimeOption<&[V4]>,
    bias: &[f32],
    found: &mut Array<V4>,
    voxel: usize,
    block: usize,
    sizes: &HeadSizes,
) {
    let size = N::value();
    #[comptime]
    match weight {
        ComptimeOption::Some(weight) => {
            begin(bias, found, block, sizes);
            let vectors = sizes.features / size;
            for vector in 0..vectors {
                let features = from[voxel * vectors + vector];
                #[unroll]
                for i in 0..size {
                    let at = (vector * size + i) * sizes.row + block * VECTORS;
                    let feature = V4::new(f32::cast_from(features.extract(i)));
                    #[unroll]
                    for part in 0..VECTORS {
                        found[part] = fma(feature, weight[at + part], found[part]);
                    }
                }
            }
        }
        ComptimeOption::None => ready::<E, N>(from, found, voxel, block, sizes),
    }
}

/// Values begin with the bias.
#[cube]
fn begin(bias: &[f32], found: &mut Array<V4>, block: usize, sizes: &HeadSizes) {
    #[unroll]
    for part in 0..VECTORS {
        let mut values = V4::new(0.0f32);
        #[unroll]
        for i in 0..4usize {
            let class = block * BLOCK + comptime!(part * 4 + i);
            if class < sizes.classes {
                values.insert(i, bias[sizes.class + class]);
            }
        }
        found[part] = values;
    }
}

/// Values that are in memory.
#[cube]
fn ready<E: Float, N: Size>(
    from: &[Vector<E, N>],
    found: &mut Array<V4>,
    voxel: usize,
    block: usize,
    sizes: &HeadSizes,
) {
    #[unroll]
    for part in 0..VECTORS {
        let mut values = V4::new(0.0f32);
        #[unroll]
        for i in 0..4usize {
            let class = block * BLOCK + comptime!(part * 4 + i);
            if class < sizes.classes {
                let value = from[voxel * sizes.features + sizes.class + class];
                values.insert(i, f32::cast_from(value.extract(0usize)));
            }
        }
        found[part] = values;
    }
}

/// The largest value of every voxel and the inverse of the sum of all exponentials below it,
/// `[voxels, 2]`: what makes values probabilities. The latter is not a number where a value is not finite.
#[cube(launch_unchecked)]
pub(super) fn statistics<E: Float, N: Size>(
    from: &[Vector<E, N>],
    weight: ComptimeOption<&[V4]>,
    bias: &[f32],
    to: &mut [f32],
    sizes: HeadSizes,
    voxels: usize,
    nan: f32,
    cube: usize,
    #[define(E)] _dtype: ElemType,
) {
    let index = (CUBE_POS + cube) * UNITS + UNIT_POS as usize;
    if index >= voxels {
        terminate!();
    }
    let mut largest = LOWEST.runtime();
    let mut total = 0.0f32.runtime();
    let mut found = Array::<V4>::new(VECTORS);
    let mut block = 0usize;
    while block * BLOCK < sizes.classes {
        values_of::<E, N>(from, weight, bias, &mut found, index, block, &sizes);
        #[unroll]
        for i in 0..BLOCK {
            if block * BLOCK + i < sizes.classes {
                let value = found[comptime!(i / 4)].extract(comptime!(i % 4));
                if value > largest {
                    total *= (largest - value).exp();
                    largest = value;
                }
                total += (value - largest).exp();
                if value < LOWEST {
                    // Minus infinity leaves no other trace.
                    total = nan;
                }
            }
        }
        block += 1;
    }
    to[index * 2] = largest;
    to[index * 2 + 1] = 1.0f32 / total;
}

/// Below every finite value.
const LOWEST: f32 = f32::MIN;

/// Adds the values of a window, or their probabilities, times the factor and the importance.
#[cube(launch_unchecked)]
pub(super) fn add<E: Float, N: Size>(
    from: &[Vector<E, N>],
    weight: ComptimeOption<&[V4]>,
    bias: &[f32],
    statistics: ComptimeOption<&[f32]>,
    importance: ComptimeOption<&[f32]>,
    sums: &mut [f32],
    head: HeadSizes,
    sizes: WindowSizes,
    factor: f32,
    #[comptime] _present: Present,
    #[define(E)] _dtype: ElemType,
) {
    let index = (CUBE_POS + sizes.cube) * UNITS + UNIT_POS as usize;
    if index >= sizes.depth * sizes.rows * sizes.columns {
        terminate!();
    }
    let voxel = voxel(index, &sizes);
    let mut counts = 1.0f32.runtime();
    #[comptime]
    match importance {
        ComptimeOption::Some(importance) => counts = importance[voxel.straight],
        ComptimeOption::None => {}
    }
    let class_stride = sizes.ring * sizes.sums_rows * sizes.sums_columns;
    let mut found = Array::<V4>::new(VECTORS);
    let mut block = 0usize;
    while block * BLOCK < head.classes {
        values_of::<E, N>(from, weight, bias, &mut found, voxel.mirrored, block, &head);
        #[unroll]
        for i in 0..BLOCK {
            let class = block * BLOCK + i;
            if class < head.classes {
                let mut value = found[comptime!(i / 4)].extract(comptime!(i % 4));
                #[comptime]
                match statistics {
                    ComptimeOption::Some(statistics) => {
                        let largest = statistics[voxel.mirrored * 2];
                        value = (value - largest).exp() * statistics[voxel.mirrored * 2 + 1];
                    }
                    ComptimeOption::None => {}
                }
                sums[class * class_stride + voxel.sum] += value * factor * counts;
            }
        }
        block += 1;
    }
}

/// Adds the importance, or 1, to the weights.
#[cube(launch_unchecked)]
pub(super) fn add_weights(
    importance: ComptimeOption<&[f32]>,
    weights: &mut [f32],
    sizes: WindowSizes,
) {
    let index = (CUBE_POS + sizes.cube) * UNITS + UNIT_POS as usize;
    if index >= sizes.depth * sizes.rows * sizes.columns {
        terminate!();
    }
    let voxel = voxel(index, &sizes);
    let mut counts = 1.0f32.runtime();
    #[comptime]
    match importance {
        ComptimeOption::Some(importance) => counts = importance[voxel.straight],
        ComptimeOption::None => {}
    }
    weights[voxel.sum] += counts;
}

/// Rows of planes of the sums.
#[derive(CubeLaunch, CubeType)]
pub(super) struct RowSizes {
    /// Classes, planes and rows that are taken, and the columns of the sums, all of which are.
    pub classes: usize,
    pub planes: usize,
    pub rows: usize,
    pub columns: usize,
    /// The place of the first plane in the ring, and the first row.
    pub plane: usize,
    pub row: usize,
    /// Planes and rows of the sums.
    pub depth: usize,
    pub sums_rows: usize,
    /// The first workgroup of the launch.
    pub cube: usize,
}

/// Divides sums by their weights and `divisor`, and leaves zeros behind, for planes to come.
#[cube(launch_unchecked)]
pub(super) fn take(
    sums: &mut [f32],
    weights: &[f32],
    to: &mut [f32],
    sizes: RowSizes,
    divisor: f32,
) {
    let index = (CUBE_POS + sizes.cube) * UNITS + UNIT_POS as usize;
    if index >= sizes.classes * sizes.planes * sizes.rows * sizes.columns {
        terminate!();
    }
    let (line, column) = (index / sizes.columns, index % sizes.columns);
    let (plane, row) = (line / sizes.rows, line % sizes.rows);
    let (class, z) = (plane / sizes.planes, plane % sizes.planes);
    let z = (sizes.plane + z) % sizes.depth;
    let weight = (z * sizes.sums_rows + sizes.row + row) * sizes.columns + column;
    let at = class * sizes.depth * sizes.sums_rows * sizes.columns + weight;
    to[index] = sums[at] / weights[weight] / divisor;
    sums[at] = 0.0f32;
}

/// Leaves zeros in rows.
#[cube(launch_unchecked)]
pub(super) fn clear(sums: &mut [f32], sizes: RowSizes) {
    let index = (CUBE_POS + sizes.cube) * UNITS + UNIT_POS as usize;
    if index >= sizes.classes * sizes.planes * sizes.rows * sizes.columns {
        terminate!();
    }
    let (line, column) = (index / sizes.columns, index % sizes.columns);
    let (plane, row) = (line / sizes.rows, line % sizes.rows);
    let (class, z) = (plane / sizes.planes, plane % sizes.planes);
    let z = class * sizes.depth + (sizes.plane + z) % sizes.depth;
    sums[(z * sizes.sums_rows + sizes.row + row) * sizes.columns + column] = 0.0f32;
}

/// Divides sums by their weights and `divisor`, where they are.
#[cube(launch_unchecked)]
pub(super) fn average(sums: &mut [f32], weights: &[f32], sizes: RowSizes, divisor: f32) {
    let index = (CUBE_POS + sizes.cube) * UNITS + UNIT_POS as usize;
    if index >= sizes.classes * sizes.planes * sizes.rows * sizes.columns {
        terminate!();
    }
    let (line, column) = (index / sizes.columns, index % sizes.columns);
    let (plane, row) = (line / sizes.rows, line % sizes.rows);
    let (class, z) = (plane / sizes.planes, plane % sizes.planes);
    let z = (sizes.plane + z) % sizes.depth;
    let weight = (z * sizes.sums_rows + sizes.row + row) * sizes.columns + column;
    let at = class * sizes.depth * sizes.sums_rows * sizes.columns + weight;
    sums[at] = sums[at] / weights[weight] / divisor;
}
