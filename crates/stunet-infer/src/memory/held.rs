//! What a prediction holds beside its sums: one window in the network, the volume, and what is
//! written of it; and how many rows of sums are held at a time.

use crate::error::InferError;
use crate::network::Network;
use crate::tile::{Tile, tile_starts};
use crate::volume::Volume;
use crate::windows::Windows;
use std::ops::Range;

/// Bytes that one window takes: in the network (of a device with memory of its own, only the values
/// that it hands out), and as the sum over mirrored passes of `summed` values for each voxel.
///
/// # Errors
/// When a network cannot take such windows.
pub(crate) fn window_bytes(
    networks: &[Box<dyn Network>],
    window: [usize; 3],
    (num_passes, summed): (usize, usize),
    device_has_own_memory: bool,
) -> Result<u64, InferError> {
    let mut network = 0;
    for each in networks {
        let cost = each.cost(window)?;
        network = network.max(match device_has_own_memory {
            true => cost.output_bytes,
            false => cost.peak_bytes,
        });
    }
    let voxels = window.iter().product::<usize>();
    let mirrored = if num_passes > 1 { (summed * voxels) as u64 * 4 } else { 0 };
    Ok(network + mirrored)
}

/// The volume, and what is written of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// Bytes of the preprocessed volume.
    pub volume: u64,
    /// Bytes of labels and confidence.
    pub written: u64,
    /// Whether they are written in the order of the windows, so that the volume goes as they come.
    pub in_order: bool,
}

impl Held {
    /// All of both.
    pub(super) fn bytes(&self) -> u64 {
        self.volume + self.written
    }

    /// Most bytes of both where everything is predicted in one go.
    pub(super) fn bytes_at_once(&self, windows: &Windows) -> u64 {
        if !self.in_order {
            return self.bytes();
        }
        let shape = windows.volume_shape();
        let below = windows.padding_below()[0];
        let starts = &windows.starts()[0];
        let held = starts.iter().enumerate().map(|(row, start)| {
            let kept = Volume::share_held(shape, start.saturating_sub(below));
            let closed = starts.get(row + 1).map_or(shape[0], |next| next.saturating_sub(below));
            // Output planes beside the last that is closed are interpolated with it.
            let done = (closed + 1).min(shape[0]) as f64 / shape[0] as f64;
            (self.volume as f64 * kept + self.written as f64 * done).ceil() as u64
        });
        held.max().unwrap_or(self.bytes())
    }
}

/// Most rows held at a time for a tile of `rows`, when a final row is kept for as long as its
/// neighbours above are not.
pub(crate) fn peak_rows(windows: &Windows, rows: &Range<usize>) -> usize {
    let tile = Tile { rows: rows.clone(), columns: 0..1, out_rows: 0..1, out_columns: 0..1 };
    let [zs, ys, _] = tile_starts(windows, &tile);
    let depth = windows.volume_shape()[0];
    let clip = |axis: usize, at: usize, within: &Range<usize>| {
        at.saturating_sub(windows.padding_below()[axis]).clamp(within.start, within.end)
    };
    let [window_z, window_y, _] = windows.window_shape();
    let (mut held, mut peak) = (0, 0);
    let (mut touched_z, mut closed_z) = (0, 0);
    for (i, z) in zs.iter().enumerate() {
        let top = clip(0, z + window_z, &(0..depth));
        let close_z = zs.get(i + 1).map_or(depth, |next| clip(0, *next, &(0..depth)));
        let released_z =
            keep_one(closed_z, 0)..if close_z == depth { depth } else { keep_one(close_z, 0) };
        let (mut touched_y, mut closed_y) = (rows.start, rows.start);
        for (j, y) in ys.iter().enumerate() {
            let top_y = clip(1, y + window_y, rows);
            held += (top - touched_z) * (top_y - touched_y);
            peak = peak.max(held);
            touched_y = top_y;
            let close_y = ys.get(j + 1).map_or(rows.end, |next| clip(1, *next, rows));
            let released_y = keep_one(closed_y, rows.start)..if close_y == rows.end {
                rows.end
            } else {
                keep_one(close_y, rows.start)
            };
            held -= released_z.len() * released_y.len();
            closed_y = close_y;
        }
        touched_z = top;
        closed_z = close_z;
    }
    peak
}

/// Most rows of windows held at a time over a tile, when each is held from its window on until its voxels
/// are final. The tile may lie anywhere along x: only how many columns it has is asked for.
pub(crate) fn peak_window_rows(windows: &Windows, rows: &Range<usize>, columns: usize) -> usize {
    let rows = rows.clone();
    let tile = Tile { rows: rows.clone(), columns: 0..1, out_rows: 0..1, out_columns: 0..1 };
    let [zs, ys, _] = tile_starts(windows, &tile);
    let depth = windows.volume_shape()[0];
    let under = |axis: usize, start: usize, within: &Range<usize>| {
        let clip = |at: usize| {
            at.saturating_sub(windows.padding_below()[axis]).clamp(within.start, within.end)
        };
        clip(start)..clip(start + windows.window_shape()[axis])
    };
    let closed_by = |axis: usize, starts: &[usize], at: usize, within: &Range<usize>| {
        starts.get(at + 1).map_or(within.end, |next| under(axis, *next, within).start)
    };
    // Rows of windows along y that are held over each plane: whole layers, and the layer that comes.
    let left =
        |range: Range<usize>, closed: usize| range.end - closed.clamp(range.start, range.end);
    let planes = 0..depth;
    let mut peak = 0;
    for i in 0..zs.len() {
        let closed_z = if i == 0 { 0 } else { closed_by(0, &zs, i - 1, &planes) };
        let next_z = closed_by(0, &zs, i, &planes);
        let reaching = zs[..i].iter().map(|z| under(0, *z, &planes));
        let reaching: Vec<_> = reaching.filter(|range| range.end > closed_z).collect();
        for j in 0..ys.len() {
            let closed_y = if j == 0 { rows.start } else { closed_by(1, &ys, j - 1, &rows) };
            let held = |range: &Range<usize>, come: &[usize]| -> usize {
                let sides = come.iter().map(|y| under(1, *y, &rows));
                // Planes that this layer makes final are held above the rows that are final.
                let behind = left(range.clone(), closed_z) - left(range.clone(), next_z);
                let ahead = left(range.clone(), next_z);
                sides.map(|side| behind * left(side.clone(), closed_y) + ahead * side.len()).sum()
            };
            let earlier: usize = reaching.iter().map(|range| held(range, &ys)).sum();
            let now = held(&under(0, zs[i], &planes), &ys[..=j]);
            peak = peak.max(earlier + now);
        }
    }
    peak * most_beside(windows, columns)
}

/// Most windows that reach into a range of so many columns, wherever it lies.
fn most_beside(windows: &Windows, columns: usize) -> usize {
    let (starts, window) = (&windows.starts()[2], windows.window_shape()[2]);
    let below = windows.padding_below()[2];
    let last = windows.volume_shape()[2].saturating_sub(columns);
    // The count grows only where a range begins to reach into another window.
    let begins = starts.iter().map(|start| (start + 1).saturating_sub(columns + below).min(last));
    let reaching = |from: usize| {
        let range = from + below..from + below + columns;
        starts.iter().filter(|start| **start < range.end && **start + window > range.start).count()
    };
    begins.map(reaching).max().unwrap_or(0)
}

fn keep_one(closed: usize, start: usize) -> usize {
    closed.saturating_sub(1).max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_goes_while_labels_come() {
        let held = |windows: &Windows, volume, written| {
            Held { volume, written, in_order: true }.bytes_at_once(windows)
        };
        let tall = Windows::new([2000, 300, 300], [64; 3], 0.5).unwrap();
        let (volume, labels) = (4 * 2000 * 300 * 300, 2000 * 300 * 300);
        let most = held(&tall, volume, labels);
        // All of the volume, until the first layer (117 planes) goes, and the labels to the next step (32).
        assert!(most > volume && most <= volume + labels * (117 + 32 + 1) / 2000, "{most}");
        // All labels and the last layers, at the end.
        let most = held(&tall, volume, 2 * volume);
        assert!(most > 2 * volume && most < 2 * volume + volume / 8, "{most}");
        // A single layer is there to the end.
        let small = Windows::new([90, 100, 100], [64; 3], 0.5).unwrap();
        assert_eq!(held(&small, 3_600_000, 900_000), 4_500_000);
    }
}
