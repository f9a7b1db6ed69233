//! Labels of an output whose voxels lie between those of averages.
//!
//! The host interpolates in double precision and rounds once; so that its labels are found, values here are
//! pairs of two single ones, of which the second is what the first lacks.

use crate::gpu::launch::UNITS;
use cubecl::prelude::*;

/// Below and above every finite value.
const LOWEST: f32 = f32::MIN;
const HIGHEST: f32 = f32::MAX;

/// A part of the output, and the averages it is made of.
#[derive(CubeLaunch, CubeType)]
pub(super) struct LabelSizes {
    /// Planes, rows and columns of the part.
    pub planes: usize,
    pub rows: usize,
    pub columns: usize,
    /// Those of the averages.
    pub ring: usize,
    pub sums_rows: usize,
    pub sums_columns: usize,
    /// Classes of the averages, and the first of them.
    pub classes: usize,
    pub class: usize,
    /// The first workgroup of the launch.
    pub cube: usize,
}

/// A value and what it lacks.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct Pair {
    high: f32,
    low: f32,
}

/// A place between two others, and what they count.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct Between {
    lower: usize,
    upper: usize,
    of_lower: Pair,
    of_upper: Pair,
}

#[cube]
fn between(places: &[i32], counts: &[f32], index: usize) -> Between {
    Between {
        lower: usize::cast_from(places[index * 2]),
        upper: usize::cast_from(places[index * 2 + 1]),
        of_lower: Pair { high: counts[index * 4], low: counts[index * 4 + 1] },
        of_upper: Pair { high: counts[index * 4 + 2], low: counts[index * 4 + 3] },
    }
}

#[cube]
fn times(a: Pair, b: Pair) -> Pair {
    let product = a.high * b.high;
    let lacks = fma(a.high, b.high, -product);
    Pair { high: product, low: lacks + (a.high * b.low + a.low * b.high) }
}

#[cube]
fn plus(a: Pair, b: Pair) -> Pair {
    let sum = a.high + b.high;
    let of_b = sum - a.high;
    let lacks = (a.high - (sum - of_b)) + (b.high - of_b) + (a.low + b.low);
    let high = sum + lacks;
    Pair { high, low: lacks - (high - sum) }
}

#[cube]
fn mix(a: Pair, b: Pair, at: Between) -> Pair {
    plus(times(a, at.of_lower), times(b, at.of_upper))
}

#[cube]
fn single(value: f32) -> Pair {
    Pair { high: value, low: 0.0f32.runtime() }
}

/// Mixes four values along z and then y.
#[cube]
fn column(
    averages: &[f32],
    class: usize,
    x: usize,
    z: Between,
    y: Between,
    sizes: &LabelSizes,
) -> Pair {
    let plane = class * sizes.ring;
    let row = sizes.sums_columns;
    let (low, high) = ((plane + z.lower) * sizes.sums_rows, (plane + z.upper) * sizes.sums_rows);
    let near = mix(
        single(averages[(low + y.lower) * row + x]),
        single(averages[(high + y.lower) * row + x]),
        z,
    );
    let far = mix(
        single(averages[(low + y.upper) * row + x]),
        single(averages[(high + y.upper) * row + x]),
        z,
    );
    mix(near, far, y)
}

/// Labels of all classes so far, and the largest value so far; -1 where a value is not finite.
#[allow(clippy::manual_range_contains)] // Kernels know no ranges.
#[cube(launch_unchecked)]
pub(super) fn decide(
    averages: &[f32],
    places: &[i32],
    counts: &[f32],
    label_of: &[i32],
    best: &mut [f32],
    labels: &mut [i32],
    sizes: LabelSizes,
    threshold: f32,
    #[comptime] largest: bool,
) {
    let index = (CUBE_POS + sizes.cube) * UNITS + UNIT_POS as usize;
    if index >= sizes.planes * sizes.rows * sizes.columns {
        terminate!();
    }
    let (line, at_x) = (index / sizes.columns, index % sizes.columns);
    let z = between(places, counts, line / sizes.rows);
    let y = between(places, counts, sizes.planes + line % sizes.rows);
    let x = between(places, counts, sizes.planes + sizes.rows + at_x);
    let mut most = LOWEST.runtime();
    let mut label = 0i32.runtime();
    if sizes.class > 0 {
        most = best[index];
        label = labels[index];
    }
    let mut finite = label >= 0;
    for class in 0..sizes.classes {
        let near = column(averages, class, x.lower, z, y, &sizes);
        let far = column(averages, class, x.upper, z, y, &sizes);
        let value = mix(near, far, x).high;
        finite = finite && value >= LOWEST && value <= HIGHEST;
        if comptime!(largest) {
            if value > most {
                most = value;
                label = label_of[sizes.class + class];
            }
        } else if value > threshold {
            label = label_of[sizes.class + class];
        }
    }
    best[index] = most;
    labels[index] = select(finite, label, -1i32.runtime());
}
