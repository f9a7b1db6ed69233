//! Sizes of a convolution on the device, and where a thread works.

use crate::gpu::tiles::{KEPT, ROW, Tile};
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
    /// The first workgroup once more: [`cube_again`].
    pub cube_again: usize,
}

/// What a workgroup computes.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Part {
    /// The sample.
    pub sample: usize,
    /// The tile's first output voxel.
    pub z: usize,
    pub y: usize,
    pub x: usize,
    /// The first output channel.
    pub channel: usize,
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
    /// The thread's number, and its voxels in the tile.
    pub unit: usize,
    pub unit_z: usize,
    pub unit_y: usize,
    pub unit_x: usize,
    /// The thread's first output channel.
    pub channel: usize,
}

/// Which of the workgroups of all launches this is.
#[cube]
pub(super) fn cube_of(sizes: &Sizes) -> usize {
    // Launches in turns are wide, not high.
    CUBE_POS_X as usize + sizes.cube
}

/// The same number, found anew once the loops have ended.
///
/// A compiler that knew it for the same would keep what follows from it through the loops: in registers that their
/// sums need, or in memory.
#[cube]
pub(super) fn cube_again(sizes: &Sizes) -> usize {
    CUBE_POS_X as usize + sizes.cube_again
}

/// The number of this thread in its workgroup, found anew: [`cube_again`].
#[cube]
pub(super) fn unit_again(sizes: &Sizes) -> usize {
    UNIT_POS as usize + (sizes.cube_again - sizes.cube)
}

/// The place of this thread, found anew: [`cube_again`].
#[cube]
pub(super) fn place_again(sizes: &Sizes, #[comptime] tile: Tile) -> Place {
    place_of(part_of(sizes, cube_again(sizes), tile), unit_again(sizes), tile)
}

/// What a workgroup computes.
#[cube]
pub(super) fn part_of(sizes: &Sizes, cube: usize, #[comptime] tile: Tile) -> Part {
    let block = cube % sizes.blocks;
    let index = cube / sizes.blocks;
    let tile_x = index % sizes.tiles_x;
    let index = index / sizes.tiles_x;
    let tile_y = index % sizes.tiles_y;
    let index = index / sizes.tiles_y;
    let tile_z = index % sizes.tiles_z;
    Part {
        sample: index / sizes.tiles_z,
        z: tile_z * comptime!(tile.voxels[0]),
        y: tile_y * comptime!(tile.voxels[1]),
        x: tile_x * comptime!(tile.voxels[2]),
        channel: block * comptime!(tile.channels()),
    }
}

/// The place of a thread of a workgroup.
#[cube]
pub(super) fn place_of(part: Part, unit: usize, #[comptime] tile: Tile) -> Place {
    let rows = comptime!(tile.rows());
    let across = comptime!(tile.voxels[2] / ROW);
    let (row, group) = (unit % rows, unit / rows);
    Place {
        sample: part.sample,
        z: part.z,
        y: part.y,
        x: part.x,
        unit,
        unit_z: row / comptime!(across * tile.voxels[1]),
        unit_y: row / across % comptime!(tile.voxels[1]),
        unit_x: row % across * ROW,
        channel: part.channel + group * comptime!(tile.vectors * 4),
    }
}

/// Keeps what a workgroup computes in shared memory, where it takes no registers while sums are added. It may be
/// read behind the next synchronisation. So is a number that only [`kept_number`] gives back.
#[cube]
pub(super) fn keep(part: Part, number: usize) -> Shared<[u32]> {
    let mut kept = Shared::<[u32]>::new_slice(KEPT);
    if UNIT_POS == 0 {
        kept[0] = part.sample as u32;
        kept[1] = part.z as u32;
        kept[2] = part.y as u32;
        kept[3] = part.x as u32;
        kept[4] = part.channel as u32;
        // Which no compiler knows behind a synchronisation.
        kept[5] = 0u32.runtime();
        kept[6] = number as u32;
    }
    kept
}

/// Zero, which no compiler knows: `^` keeps it from taking a sum apart.
#[cube]
pub(super) fn kept_zero(kept: &Shared<[u32]>) -> usize {
    kept[5] as usize
}

#[cube]
pub(super) fn kept_number(kept: &Shared<[u32]>) -> usize {
    kept[6] as usize
}

/// The place of this thread, read and computed anew: between two synchronisations.
#[cube]
pub(super) fn kept_place(kept: &Shared<[u32]>, #[comptime] tile: Tile) -> Place {
    let part = Part {
        sample: kept[0] as usize,
        z: kept[1] as usize,
        y: kept[2] as usize,
        x: kept[3] as usize,
        channel: kept[4] as usize,
    };
    place_of(part, UNIT_POS as usize + kept_zero(kept), tile)
}
