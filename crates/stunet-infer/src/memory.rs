//! The memory plan of a prediction, made before its first window: in one pass, or tile by tile.
//!
//! The sums of overlapping windows are what grows with a volume. They are held along the front of
//! the windows only (see [`crate::slab`]); where even that is more than is allowed, each plane is
//! divided into tiles that are predicted one after the other. Windows that reach into two tiles are
//! then run for both, and every sum has its terms in the same order: the labels do not change, only
//! the time does. Of all divisions that fit, the one with the fewest windows is taken.
//!
//! All estimates meet here. What a row of sums, a layer of the volume, or a window in a network takes is
//! said where it is made.

mod divisions;
mod held;

use crate::accumulators::Keep;
use crate::band;
use crate::error::InferError;
use crate::kept;
use crate::probabilities::ROWS_PER_PIECE;
use crate::slab::Slab;
use crate::tile::{Tile, tile_starts};
use crate::windows::Windows;
use divisions::{Divisions, Stretch};
use held::peak_window_rows;
pub(crate) use held::{Held, peak_rows, window_bytes};
use serde::Serialize;
use std::ops::Range;
use stunet_data::plans::Accumulation;
use stunet_data::preprocess::resample::AxisTaps;

/// Bytes of feature maps that are held instead of a byte of sums: they take less time, as every sum is
/// read and written by every window.
const FEATURES_PER_SUM: f64 = 1.6;

/// Bytes and windows of a prediction, by estimate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// What is predicted one after the other.
    pub tiles: Vec<Tile>,
    /// Windows to run.
    pub num_windows: usize,
    /// Of those, windows that are run again for another tile.
    pub num_repeated: usize,
    /// What of the windows is held until their voxels are final.
    pub keep: Keep,
    /// Bytes of it on the host, for the largest tile: sums or feature maps; of sums on the device, the
    /// final rows that wait to be restored.
    pub sums_bytes: u64,
    /// Memory of the device for sums; 0 where they are on the host.
    pub device_bytes: u64,
    /// One window in the network: activations (where the host computes), logits, mirrored sum.
    pub window_bytes: u64,
    /// The preprocessed volume and the labelmap.
    pub volume_bytes: u64,
}

impl MemoryPlan {
    /// Everything together.
    pub fn total_bytes(&self) -> u64 {
        self.sums_bytes + self.window_bytes + self.volume_bytes
    }
}

/// What the bytes of a plan follow from.
pub(crate) struct Needs<'a> {
    pub windows: &'a Windows,
    pub taps: &'a [AxisTaps; 3],
    pub num_classes: usize,
    pub num_folds: usize,
    /// Passes of each network over a window.
    pub num_passes: usize,
    /// Feature maps that a window may be kept as.
    pub num_features: Option<usize>,
    pub accumulation: Accumulation,
    pub window_bytes: u64,
    /// The volume and the labels.
    pub held: Held,
    /// Bytes of the device that sums may take.
    pub device_room: u64,
    /// Whether all values are stored: in pieces of a few whole rows of the output.
    pub stored: bool,
}

impl Needs<'_> {
    /// The plan with the fewest windows within `allowed` bytes; with sums on the device, if they fit, else
    /// with feature maps where those are few enough, else with sums.
    ///
    /// # Errors
    /// [`InferError::Memory`] when the smallest tiles do not fit.
    pub fn plan(&self, allowed: Option<u64>) -> Result<MemoryPlan, InferError> {
        let output = [0, 1, 2].map(|axis| self.taps[axis].len());
        let whole = Tile::whole(self.windows.volume_shape(), output);
        let room = self.room(self.held.bytes_at_once(self.windows), allowed);
        let there = band::device_bytes(self.num_classes, self.windows.window_shape()[0], &whole);
        let waiting = self.waiting_bytes(&whole);
        let can = self.accumulation == Accumulation::F32;
        if can && there <= self.device_room && waiting <= room {
            let plan = self.finish(Keep::DeviceSums, vec![whole]);
            return Ok(MemoryPlan { sums_bytes: waiting, device_bytes: there, ..plan });
        }
        let sums = self.plan_for(Keep::Sums, &whole, allowed);
        let features = self.num_features.map(|_| self.plan_for(Keep::Features, &whole, allowed));
        match (sums, features) {
            (sums, None) => sums,
            (Ok(sums), Some(Ok(features))) => {
                let few = features.sums_bytes as f64 <= FEATURES_PER_SUM * sums.sums_bytes as f64;
                let fewer_windows = features.num_windows < sums.num_windows;
                let chosen = fewer_windows || few && features.num_windows == sums.num_windows;
                Ok(if chosen { features } else { sums })
            }
            (Ok(plan), Some(Err(_))) | (Err(_), Some(Ok(plan))) => Ok(plan),
            (Err(sums), Some(Err(features))) => Err(least(sums, features)),
        }
    }

    /// Bytes left for what is kept of windows, beside `volume` bytes of the volume and the labels.
    fn room(&self, volume: u64, allowed: Option<u64>) -> u64 {
        let pieces = self.pieces_bytes([0, 1, 2].map(|axis| self.taps[axis].len()));
        let fixed = self.window_bytes + volume + pieces;
        allowed.map_or(u64::MAX, |allowed| allowed.saturating_sub(fixed))
    }

    /// The plan with the fewest windows within `allowed` bytes, on the host.
    fn plan_for(
        &self,
        keep: Keep,
        whole: &Tile,
        allowed: Option<u64>,
    ) -> Result<MemoryPlan, InferError> {
        let room = self.room(self.held.bytes_at_once(self.windows), allowed);
        if self.kept_bytes(keep, &whole.rows, whole.columns.len()) <= room {
            return Ok(self.finish(keep, vec![whole.clone()]));
        }
        let (rows, columns) = (self.axis(1), self.axis(2));
        let room = self.room(self.held.bytes(), allowed);
        match self.divide(keep, &rows, &columns, room) {
            Some(tiles) => Ok(self.finish(keep, tiles)),
            None => {
                let least = rows.finest().map(|piece| {
                    let widest = columns.finest().map(|piece| piece.network.len()).max();
                    self.kept_bytes(keep, &piece.network, widest.unwrap_or(0))
                });
                let output = [0, 1, 2].map(|axis| self.taps[axis].len());
                let fixed = self.window_bytes + self.held.bytes() + self.pieces_bytes(output);
                let needed = fixed + least.max().unwrap_or(0);
                Err(InferError::Memory { needed, allowed: allowed.unwrap_or(u64::MAX) })
            }
        }
    }

    fn finish(&self, keep: Keep, tiles: Vec<Tile>) -> MemoryPlan {
        let count = |tile: &Tile| -> usize {
            tile_starts(self.windows, tile).iter().map(Vec::len).product()
        };
        let num_windows: usize = tiles.iter().map(count).sum();
        let kept = tiles.iter().map(|tile| self.kept_bytes(keep, &tile.rows, tile.columns.len()));
        MemoryPlan {
            keep,
            num_windows,
            num_repeated: num_windows - self.windows.len(),
            sums_bytes: kept.max().unwrap_or(0),
            device_bytes: 0,
            window_bytes: self.window_bytes,
            volume_bytes: match tiles.len() {
                1 => self.held.bytes_at_once(self.windows),
                _ => self.held.bytes(),
            } + self.pieces_bytes([0, 1, 2].map(|axis| self.taps[axis].len())),
            tiles,
        }
    }

    /// Pieces of stored values that wait for their last row: one per plane of the output that a
    /// window covers.
    fn pieces_bytes(&self, output: [usize; 3]) -> u64 {
        if !self.stored {
            return 0;
        }
        let depth = self.windows.volume_shape()[0];
        let planes = self.windows.window_shape()[0].min(depth) * output[0] / depth + 1;
        (planes * self.num_classes * ROWS_PER_PIECE * output[2] * 4) as u64
    }

    /// Most bytes of final rows on the host, when sums are on the device: one piece, the rows and the
    /// plane below it that it is interpolated with, and the pieces before and behind on their way.
    fn waiting_bytes(&self, tile: &Tile) -> u64 {
        let (rows, width) = (tile.rows.len(), tile.columns.len());
        let depth = self.windows.volume_shape()[0];
        let planes = self.most_closed();
        let piece = band::rows_per_piece(self.num_classes, planes, width).min(rows);
        let row = Slab::row_bytes(self.num_classes, 1, self.accumulation, width);
        let held = ((planes + 1) * (piece + 2) + rows).min(depth * rows);
        ((held + 2 * planes * piece) * row) as u64
    }

    /// Most planes that become final at a time.
    fn most_closed(&self) -> usize {
        let depth = self.windows.volume_shape()[0];
        let starts = &self.windows.starts()[0];
        let below = self.windows.padding_below()[0];
        let closed = |at: usize| at.saturating_sub(below).min(depth);
        let last = starts.last().map_or(depth, |last| depth - closed(*last));
        let steps = starts.windows(2).map(|pair| closed(pair[1]) - closed(pair[0]));
        steps.max().unwrap_or(0).max(last)
    }

    /// Bytes on the host of what is kept of windows over a tile of so many columns.
    fn kept_bytes(&self, keep: Keep, rows: &Range<usize>, columns: usize) -> u64 {
        let row = Slab::row_bytes(self.num_classes, self.num_folds, self.accumulation, columns);
        if keep != Keep::Features {
            return (peak_rows(self.windows, rows) * row) as u64;
        }
        let window = self.windows.window_shape()[2];
        let num_features = self.num_features.unwrap_or(self.num_classes);
        let maps = self.num_folds * self.num_passes * num_features * window * size_of::<f32>();
        let kept = peak_window_rows(self.windows, rows, columns) * maps;
        // Rows just formed, and those that are interpolated with the next plane or row.
        let planes = self.most_closed();
        let piece = kept::rows_per_piece(row, planes).min(rows.len());
        let depth = self.windows.volume_shape()[0];
        let formed = ((planes + 1) * (piece + 2) + rows.len()).min(depth * rows.len());
        (kept + formed * row) as u64
    }

    /// Fewest windows over all pairs of a division of the rows and one of the columns.
    fn divide(
        &self,
        keep: Keep,
        rows: &Divisions,
        columns: &Divisions,
        room: u64,
    ) -> Option<Vec<Tile>> {
        let mut widths: Vec<usize> = columns.pieces().map(|piece| piece.network.len()).collect();
        widths.sort_unstable();
        widths.dedup();
        let mut best: Option<(usize, usize, Vec<Tile>)> = None;
        for width in widths {
            let Some((wide, parts_x)) = columns.cheapest(&|p| p.network.len() <= width) else {
                continue;
            };
            let widest = parts_x.iter().map(|p| p.network.len()).max().unwrap_or(0);
            let fits = |p: &Stretch| self.kept_bytes(keep, &p.network, widest) <= room;
            let Some((high, parts_y)) = rows.cheapest(&fits) else {
                continue;
            };
            let key = (wide * high, parts_x.len() * parts_y.len());
            if best.as_ref().is_none_or(|(cost, count, _)| key < (*cost, *count)) {
                let tiles = parts_y.iter().flat_map(|y| {
                    parts_x.iter().map(|x| Tile {
                        rows: y.network.clone(),
                        columns: x.network.clone(),
                        out_rows: y.output.clone(),
                        out_columns: x.output.clone(),
                    })
                });
                best = Some((key.0, key.1, tiles.collect()));
            }
        }
        best.map(|(_, _, tiles)| tiles)
    }

    fn axis(&self, axis: usize) -> Divisions {
        let grain = match (self.stored, axis) {
            (false, _) => 1,
            (true, 1) => ROWS_PER_PIECE,
            (true, _) => self.taps[axis].len(),
        };
        Divisions::new(self.windows, axis, &self.taps[axis], grain)
    }
}

/// Of two refusals the one that asks for less memory.
fn least(one: InferError, other: InferError) -> InferError {
    match (&one, &other) {
        (InferError::Memory { needed: a, .. }, InferError::Memory { needed: b, .. }) if b < a => {
            other
        }
        _ => one,
    }
}

#[cfg(test)]
mod tests;
