//! Sizes of a convolution on the device, and where a thread works.

use crate::gpu::tiles::{ROW, Tile};
use cubecl::prelude::*;

/// Four values.
pub(crate) type V4 = Vector<f32, Const<4>>;

/// Sizes of a convolution, and which part of it a launch computes.
#[derive(CubeLaunch, CubeType)]
pub(super) struct Sizes {
    /// Input channels of the first part.
    pub first_channels: usize,
    /// Input channels of the second part.
    pub second_channels: usize,
    /// Output channels.
    pub outputs: usize,
    /// Input voxels.
    pub in_z: usize,
    pub in_y: usize,
    pub in_x: usize,
    /// Output voxels.
    pub out_z: usize,
    pub out_y: usize,
    pub out_x: usize,
    /// Tiles of a sample.
    pub tiles_z: usize,
    pub tiles_y: usize,
    pub tiles_x: usize,
    /// Blocks of output channels.
    pub blocks: usize,
    /// Vectors of weights for each tap and input channel.
    pub row: usize,
    /// The first workgroup of this launch, and how many there are in all launches.
    pub cube: usize,
    pub cubes: usize,
}

/// Where a thread works.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Place {
    /// The sample.
    pub sample: usize,
    /// The tile's first output voxel.
    pub z: usize,
    pub y: usize,
    pub x: usize,
    /// The thread's voxels in the tile.
    pub unit_z: usize,
    pub unit_y: usize,
    pub unit_x: usize,
    /// The thread's first output channel.
    pub channel: usize,
}

/// The place of a thread of the workgroup.
#[cube]
pub(super) fn place(sizes: &Sizes, cube: usize, #[comptime] tile: Tile) -> Place {
    let block = cube % sizes.blocks;
    let index = cube / sizes.blocks;
    let tile_x = index % sizes.tiles_x;
    let index = index / sizes.tiles_x;
    let tile_y = index % sizes.tiles_y;
    let index = index / sizes.tiles_y;
    let tile_z = index % sizes.tiles_z;

    let unit = UNIT_POS as usize;
    let rows = comptime!(tile.rows());
    let across = comptime!(tile.voxels[2] / ROW);
    let (row, group) = (unit % rows, unit / rows);
    Place {
        sample: index / sizes.tiles_z,
        z: tile_z * comptime!(tile.voxels[0]),
        y: tile_y * comptime!(tile.voxels[1]),
        x: tile_x * comptime!(tile.voxels[2]),
        unit_z: row / comptime!(across * tile.voxels[1]),
        unit_y: row / across % comptime!(tile.voxels[1]),
        unit_x: row % across * ROW,
        channel: block * comptime!(tile.channels()) + group * comptime!(tile.vectors * 4),
    }
}
