//! Moments of what a convolution gives, found while it is still in registers: the norm behind it need not
//! read it again for them.

use super::place::{Place, Sizes, V4, cube_again};
use crate::gpu::moments::{Moments, merge};
use crate::gpu::tiles::{ROW, Tile};
use cubecl::prelude::*;

/// Count, mean and sum of squared deviations of a workgroup's voxels, for each of its channels:
/// `[tiles, C, 3]`.
#[cube]
pub(super) fn measure(
    moments: &mut [f32],
    shared: &mut Shared<[f32]>,
    sums: &Array<V4>,
    sizes: &Sizes,
    place: Place,
    #[comptime] tile: Tile,
) {
    let unit = UNIT_POS as usize;
    let units = comptime!(tile.units());
    let tile_index = cube_again(sizes) / sizes.blocks;
    let x = place.x + place.unit_x;
    let inside = place.z + place.unit_z < sizes.out_z && place.y + place.unit_y < sizes.out_y;
    #[unroll]
    for vector in 0..tile.vectors {
        // The voxels of a row that lie in the volume; their deviations from their own mean.
        let mut count = 0.0f32.runtime();
        let mut mean = V4::new(0.0f32);
        #[unroll]
        for voxel in 0..ROW {
            if inside && x + voxel < sizes.out_x {
                count += 1.0f32;
                mean += sums[comptime!(voxel * tile.vectors + vector)];
            }
        }
        mean *= V4::new(select(count > 0.0f32, 1.0f32 / count, 0.0f32.runtime()));
        let mut squares = V4::new(0.0f32);
        #[unroll]
        for voxel in 0..ROW {
            if inside && x + voxel < sizes.out_x {
                let deviation = sums[comptime!(voxel * tile.vectors + vector)] - mean;
                squares += deviation * deviation;
            }
        }
        // Nobody still reads what is overwritten.
        sync_cube();
        shared[unit] = count;
        #[unroll]
        for i in 0..4usize {
            shared[comptime!((1 + i) * units) + unit] = mean.extract(i);
            shared[comptime!((5 + i) * units) + unit] = squares.extract(i);
        }
        merge_rows(shared, tile);
        let channel = place.channel + comptime!(vector * 4);
        if unit.is_multiple_of(comptime!(tile.rows())) {
            #[unroll]
            for i in 0..4usize {
                if channel + i < sizes.outputs {
                    let at = (tile_index * sizes.outputs + channel + i) * 3;
                    moments[at] = shared[unit];
                    moments[at + 1] = shared[comptime!((1 + i) * units) + unit];
                    moments[at + 2] = shared[comptime!((5 + i) * units) + unit];
                }
            }
        }
    }
}

/// Merges the moments of the threads with the same channels, in their order; the first one's are all.
#[cube]
fn merge_rows(shared: &mut Shared<[f32]>, #[comptime] tile: Tile) {
    let unit = UNIT_POS as usize;
    let units = comptime!(tile.units());
    let halvings = comptime!(tile.rows().ilog2() as usize);
    #[unroll]
    for level in 0..halvings {
        let reach = comptime!(tile.rows() >> (level + 1));
        sync_cube();
        if unit % comptime!(tile.rows()) < reach {
            let (count, other) = (shared[unit], shared[unit + reach]);
            #[unroll]
            for i in 0..4usize {
                let (mean, squares) = comptime!(((1 + i) * units, (5 + i) * units));
                let all = merge(
                    Moments { count, mean: shared[mean + unit], squares: shared[squares + unit] },
                    Moments {
                        count: other,
                        mean: shared[mean + unit + reach],
                        squares: shared[squares + unit + reach],
                    },
                );
                shared[mean + unit] = all.mean;
                shared[squares + unit] = all.squares;
            }
            shared[unit] = count + other;
        }
    }
    sync_cube();
}
