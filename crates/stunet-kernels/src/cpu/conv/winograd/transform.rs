//! The transforms of inputs, outputs and kernels, each along one axis after the other, and those of gradients.

mod axis;
mod large;
mod small;
mod strided;

use super::boxes::{Box3, Tile};
use crate::cpu::simd::Simd;

/// The most transformed values of a kernel.
pub(super) const MOST: usize = Tile::Large.frequencies();

/// Frequencies of inputs and of the kernel whose products belong to frequency `output` of the outputs of a strided tile.
pub(super) fn strided_terms(output: usize) -> impl Iterator<Item = [usize; 2]> {
    strided::terms(output)
}

/// Reads a vector.
///
/// # Safety
/// A vector lies at `offset` in `from`.
#[inline(always)]
unsafe fn load<S: Simd>(simd: S, from: &[f32], offset: usize) -> S::Vector {
    // SAFETY: the caller's promise.
    unsafe { simd.load(from.as_ptr().add(offset)) }
}

/// Transforms the inputs of a box.
///
/// `voxels` is `[Z, Y, X][width]` with the halo, `to` `[frequency][tile][width]`, frequencies
/// [`Box3::pitch`] tiles apart; `width` is a multiple of the lanes.
#[inline(always)]
pub(super) fn transform_input<S: Simd>(
    simd: S,
    tiles: Box3,
    width: usize,
    voxels: &[f32],
    to: &mut [f32],
) {
    assert!(voxels.len() >= tiles.outer().iter().product::<usize>() * width, "voxels of a box");
    assert!(to.len() >= tiles.input_len() * width, "frequencies of a box");
    match tiles.tile {
        Tile::Small => small::input(simd, tiles, width, voxels, to),
        Tile::Large => large::input(simd, tiles, width, voxels, to),
        Tile::Strided => strided::input(simd, tiles, width, voxels, to),
    }
}

/// Transforms a box back and adds `start`, one value for each of `width` channels.
///
/// `from` is `[frequency][tile][width]`, `voxels` `[Z, Y, X][width]`.
#[inline(always)]
pub(super) fn transform_output<S: Simd>(
    simd: S,
    tiles: Box3,
    width: usize,
    from: &[f32],
    start: &[f32],
    voxels: &mut [f32],
) {
    assert!(from.len() >= tiles.output_len() * width, "frequencies of a box");
    assert!(voxels.len() >= tiles.inner().iter().product::<usize>() * width, "voxels of a box");
    assert!(start.len() >= width, "a start for each channel");
    match tiles.tile {
        Tile::Small => small::output(simd, tiles, width, from, start, voxels),
        Tile::Large => large::output(simd, tiles, width, from, start, voxels),
        Tile::Strided => strided::output(simd, tiles, width, from, start, voxels),
    }
}

/// Transforms the gradients of a box's outputs, for [gradients](Tile::of_gradients); layouts as in [`transform_input`], without a halo.
#[inline(always)]
pub(super) fn transform_gradient<S: Simd>(
    simd: S,
    tiles: Box3,
    width: usize,
    voxels: &[f32],
    to: &mut [f32],
) {
    assert!(voxels.len() >= tiles.inner().iter().product::<usize>() * width, "voxels of a box");
    assert!(to.len() >= tiles.output_len() * width, "frequencies of a box");
    match tiles.tile {
        Tile::Small => small::gradient(simd, tiles, width, voxels, to),
        Tile::Large => large::gradient(simd, tiles, width, voxels, to),
        Tile::Strided => unreachable!("strided tiles are for convolutions alone"),
    }
}

/// Transforms a kernel: 27 vectors, `[z][y][x]`, to one for each frequency, the first of `to`.
#[inline(always)]
pub(super) fn transform_kernel<S: Simd>(
    simd: S,
    tile: Tile,
    taps: &[S::Vector; 27],
    to: &mut [S::Vector; MOST],
) {
    match tile {
        Tile::Small => {
            for (to, value) in to.iter_mut().zip(small::kernel(simd, taps)) {
                *to = value;
            }
        }
        Tile::Large => *to = large::kernel(simd, taps),
        Tile::Strided => {
            for (to, value) in to.iter_mut().zip(strided::kernel(simd, taps)) {
                *to = value;
            }
        }
    }
}

/// Transforms the gradient of a transformed kernel back, for [gradients](Tile::of_gradients): a vector for each frequency to 27.
#[inline(always)]
pub(super) fn transform_kernel_gradient<S: Simd>(
    simd: S,
    tile: Tile,
    frequencies: &[S::Vector; MOST],
) -> [S::Vector; 27] {
    match tile {
        Tile::Small => {
            let (first, _) = frequencies.split_first_chunk().expect("more than a small tile has");
            small::kernel_gradient(simd, first)
        }
        Tile::Large => large::kernel_gradient(simd, frequencies),
        Tile::Strided => unreachable!("strided tiles are for convolutions alone"),
    }
}
