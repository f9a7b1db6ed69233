//! Winograd's minimal filtering, F(2, 3) or F(4, 3) along each axis, for 3×3×3 kernels at stride 1.
//!
//! A tile of 4×4×2 outputs needs 864 products for each pair of channels if they are formed one by one. Here
//! its 6×6×4 inputs and the kernel are each transformed to 144 values, which are multiplied one with the other
//! and transformed back: 144 products. A tile of 2×2×2 outputs needs 64 instead of 216, and is left for volumes
//! that have few tiles.
//!
//! What this costs in exactness depends on the points of the transform (`transform/axis.rs`) and on the number of
//! axes along which four outputs are formed. On normally distributed values with 16 input channels the root of the
//! mean square error, relative to that of the outputs, is 3.7e-7 if products are added one by one in `f32`, 2.1e-7 in
//! small tiles, 6.0e-7 in large ones, and would be 1.1e-6 in tiles of 4×4×4 outputs; with 64 channels 7.3e-7, 3.4e-7,
//! 9.9e-7 and 1.8e-6.
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
pub(super) use boxes::Tile;
pub(super) use forward::{run, run_measured};

use super::Shape;

/// The tiles by which a convolution is computed, if that is the fastest way.
pub(super) fn tile(shape: &Shape) -> Option<Tile> {
    Tile::of(shape)
}

/// Whether this is the fastest way to compute a convolution.
pub(super) fn pays(shape: &Shape) -> bool {
    tile(shape).is_some()
}

/// Whether this is the fastest way to compute the gradients of a convolution.
pub(super) fn pays_for_gradients(shape: &Shape) -> bool {
    Tile::of_gradients(shape).is_some()
}
