//! Parts of a volume that are predicted one after the other.

use crate::windows::Windows;
use serde::Serialize;
use std::ops::Range;

/// A part of every plane, predicted in one go.
///
/// # Shapes
/// Rows (y) and columns (x) of the unpadded volume at the network's resolution, and those of the
/// output that are restored from them. The former overlap by a voxel where the latter need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tile {
    /// Rows at the network's resolution.
    pub rows: Range<usize>,
    /// Columns at the network's resolution.
    pub columns: Range<usize>,
    /// Rows of the output.
    pub out_rows: Range<usize>,
    /// Columns of the output.
    pub out_columns: Range<usize>,
}

impl Tile {
    /// The tile that is everything: a volume and an output of these shapes `[z, y, x]`.
    pub fn whole(volume: [usize; 3], output: [usize; 3]) -> Self {
        Self {
            rows: 0..volume[1],
            columns: 0..volume[2],
            out_rows: 0..output[1],
            out_columns: 0..output[2],
        }
    }
}

/// Starts of the windows that reach into a tile, in the padded volume.
pub(crate) fn tile_starts(windows: &Windows, tile: &Tile) -> [Vec<usize>; 3] {
    let within = |axis: usize, range: &Range<usize>| -> Vec<usize> {
        let (below, window) = (windows.padding_below()[axis], windows.window_shape()[axis]);
        let reaches =
            |start: &&usize| **start < range.end + below && **start + window > range.start + below;
        windows.starts()[axis].iter().filter(reaches).copied().collect()
    };
    [windows.starts()[0].clone(), within(1, &tile.rows), within(2, &tile.columns)]
}
