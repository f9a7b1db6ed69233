//! Winograd's minimal filtering for 3×3×3 kernels: F(2, 3) or F(4, 3) along each axis, and at stride 2 along all axes
//! F(2, 2) of every other input.
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
//! # Strides
//! Along an axis with stride 2 every other input meets the kernel's outer weights, at stride 1, and the others its
//! middle weight alone. Two outputs need three products for the former and two for the latter, and those at the same
//! point are added before they are transformed back: 125 products in the place of 216 for 2×2×2 outputs, in 27 sums.
//! A transformed kernel has 64 values, as the middle weight is the same at both of its points. The root of the mean
//! square error, as above, is 3.0e-7 with 16 input channels and 5.4e-7 with 64. This is for the convolution itself;
//! its gradients are direct.
//!
//! The gradient of the input at stride 1 is the same with mirrored kernels. That of the weights runs the other
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
