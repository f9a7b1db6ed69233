//! Count, mean and squared deviations of values, and how those of two sets become those of both.

use cubecl::prelude::*;

/// Count, mean and sum of squared deviations.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Moments {
    pub count: f32,
    pub mean: f32,
    pub squares: f32,
}

/// The moments of both together, by Chan's formula.
#[cube]
pub(super) fn merge(a: Moments, b: Moments) -> Moments {
    let count = a.count + b.count;
    let share = select(count > 0.0f32, b.count / count, 0.0f32.runtime());
    let between = b.mean - a.mean;
    Moments {
        count,
        mean: a.mean + between * share,
        squares: a.squares + b.squares + between * between * a.count * share,
    }
}
