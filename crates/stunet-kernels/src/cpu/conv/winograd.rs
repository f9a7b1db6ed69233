//! Winograd's minimal filtering F(2, 3) along all three axes, for 3×3×3 kernels at stride 1.
//!
//! A tile of 2×2×2 outputs needs 216 products for each pair of channels if they are formed one by
//! one. Here its 4×4×4 inputs and the kernel are each transformed to 64 values, which are multiplied
//! one with the other and transformed back: 64 products. The transforms are sums alone (the kernel's
//! has halves), so that `f32` loses little: within a few roundings of the direct sum.
//!
//! The gradient of the input is the same with mirrored kernels. That of the weights runs the other
//! way round: transformed inputs times transformed gradients, summed over all tiles, and then the
//! transpose of the kernel's transform.
//!
//! A task works on a *box* of tiles, whose transformed values stay in its second cache. Boxes depend
//! on sizes alone, never on the threads, and so do the sums.
//!
//! # Source
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016).

mod backward;
mod boxes;
mod copy;
mod forward;
#[allow(clippy::needless_range_loop, reason = "indices name axes")]
mod transform;
mod weights;

pub(super) use backward::weight_gradient;
pub(super) use forward::run;

use super::Shape;

/// Transformed values of a tile.
const FREQUENCIES: usize = 64;
/// Channels below which transforms cost more than the products they save.
const LEAST_CHANNELS: usize = 8;
/// Tiles below which the kernel's transform costs more than the products they save.
const LEAST_TILES: usize = 32;

/// Whether this is the faster way to compute a convolution and its gradients.
pub(super) fn pays(shape: &Shape) -> bool {
    let tiles: usize = shape.size.iter().map(|size| size.div_ceil(2)).product();
    let enough =
        shape.inputs.min(shape.outputs) >= LEAST_CHANNELS && shape.batch * tiles >= LEAST_TILES;
    // Odd sizes are filled up to whole tiles; thin volumes would mostly be filling.
    let filled = 8 * tiles <= super::voxels(shape.size) * 5 / 3;
    shape.stride == [1; 3] && enough && filled
}
