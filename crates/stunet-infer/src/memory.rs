//! The memory plan of a prediction, made before its first window: in one pass, or tile by tile.
//!
//! The sums of overlapping windows are what grows with a volume. They are held along the front of
//! the windows only (see [`crate::slab`]); where even that is more than is allowed, each plane is
//! divided into tiles that are predicted one after the other. Windows that reach into two tiles are
//! then run for both, and every sum has its terms in the same order: the labels do not change, only
//! the time does. Of all divisions that fit, the one with the fewest windows is taken.
//!
//! On a GPU sums stay on the device if it has room for them, as a whole or in tiles. Windows that are run
//! twice cost less there than reading all of them back.
//!
//! All estimates meet here. What a row of sums, a layer of the volume, or a window in a network takes is
//! said where it is made.

mod divisions;
mod held;
mod room;

use crate::accumulators::Keep;
use crate::band;
use crate::deciding::PIECE_BYTES;
use crate::error::InferError;
use crate::kept;
use crate::probabilities::ROWS_PER_PIECE;
use crate::slab::Slab;
use crate::tile::{Tile, tile_starts};
use crate::windows::Windows;
use divisions::{Divisions, Stretch};
use held::peak_window_rows;
pub(crate) use held::{Held, peak_rows, window_bytes};
pub(crate) use room::DeviceRoom;
pub use room::SumsOnHost;
use serde::Serialize;
use std::ops::Range;
use stunet_data::plans::Accumulation;
use stunet_data::preprocess::resample::AxisTaps;
use stunet_model::WindowSumsCost;

/// Bytes of feature maps that are held instead of a byte of sums: they take less time, as every sum is
/// read and written by every window.
const FEATURES_PER_SUM: f64 = 1.6;

/// Most bytes of weights that are kept. Those of STU-Net S and B take less; of larger networks they would
/// take more than all else, for a twentieth of the time.
const MOST_WEIGHTS: u64 = 1 << 30;

/// Whether so many networks' feature maps are summed instead of classes, where that is possible. It does not
/// depend on the memory that is there: values would.
pub(crate) fn sums_features(num_folds: usize, num_features: usize, num_classes: usize) -> bool {
    (num_folds * num_features) as f64 <= FEATURES_PER_SUM * num_classes as f64
}

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
    /// Passes over windows that the device computes at once, at most; 1 on the host.
    pub windows_at_once: usize,
    /// Why sums are on the host, where a device could have taken them.
    pub on_host: Option<SumsOnHost>,
    /// One window in the network: activations (where the host computes), logits, mirrored sum.
    pub window_bytes: u64,
    /// The preprocessed volume and the labelmap.
    pub volume_bytes: u64,
    /// Weights of convolutions as the processor reads them, which are kept between windows: see
    /// [`stunet_model::keep_weights`]. 0 where there is no room for them.
    pub weights_bytes: u64,
}

impl MemoryPlan {
    /// Everything together.
    pub fn total_bytes(&self) -> u64 {
        self.sums_bytes + self.window_bytes + self.volume_bytes + self.weights_bytes
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
    /// Whether they are averaged before the head.
    pub averages_features: bool,
    pub accumulation: Accumulation,
    pub window_bytes: u64,
    /// The volume and the labels.
    pub held: Held,
    /// What the networks can keep of their weights.
    pub kept_weights: u64,
    /// What the device offers for sums, if it can take them.
    pub device: Option<DeviceRoom>,
    /// Whether all values are stored: in pieces of a few whole rows of the output.
    pub stored: bool,
    /// Whether nothing but labels is made of the values, which a device decides then.
    pub labels_only: bool,
}

/// Memory of the host.
#[derive(Clone, Copy)]
struct Rooms {
    allowed: Option<u64>,
    /// What is taken by windows and stored pieces.
    fixed: u64,
}

impl Rooms {
    /// What is left for sums beside that and the volume.
    fn beside(self, volume: u64) -> u64 {
        self.allowed.map_or(u64::MAX, |allowed| allowed.saturating_sub(self.fixed + volume))
    }
}

impl Needs<'_> {
    /// The plan with the fewest windows within `allowed` bytes; with sums on the device, if they fit, else
    /// with sums of feature maps, with feature maps where those are few enough, or with sums.
    ///
    /// # Errors
    /// [`InferError::Memory`] when the smallest tiles do not fit.
    pub fn plan(&self, allowed: Option<u64>) -> Result<MemoryPlan, InferError> {
        let whole = self.whole();
        if let Some(plan) = self.on_device(self.rooms(allowed)) {
            return Ok(plan);
        }
        let on_host = self.device.as_ref().map(|device| self.why_not(device));
        let plan = self.on_the_host(&whole, allowed)?;
        let weights_bytes = self.weights_beside(&plan, allowed);
        Ok(MemoryPlan { on_host, weights_bytes, ..plan })
    }

    /// Bytes of weights that are kept beside all else: those of all networks, or none.
    fn weights_beside(&self, plan: &MemoryPlan, allowed: Option<u64>) -> u64 {
        let left = allowed.map_or(u64::MAX, |allowed| allowed.saturating_sub(plan.total_bytes()));
        if self.kept_weights <= left.min(MOST_WEIGHTS) { self.kept_weights } else { 0 }
    }

    /// The plan with sums of feature maps, or with feature maps where those are few enough, else with sums.
    fn on_the_host(&self, whole: &Tile, allowed: Option<u64>) -> Result<MemoryPlan, InferError> {
        if self.averages_features {
            return self.plan_for(Keep::FeatureSums, whole, allowed);
        }
        let sums = self.plan_for(Keep::Sums, whole, allowed);
        let features = self.num_features.map(|_| self.plan_for(Keep::Features, whole, allowed));
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

    fn rooms(&self, allowed: Option<u64>) -> Rooms {
        Rooms { allowed, fixed: self.window_bytes + self.all_pieces() }
    }

    /// The plan with the fewest windows within `allowed` bytes, on the host.
    fn plan_for(
        &self,
        keep: Keep,
        whole: &Tile,
        allowed: Option<u64>,
    ) -> Result<MemoryPlan, InferError> {
        let room = self.rooms(allowed);
        let left = room.beside(self.held.bytes_at_once(self.windows));
        if self.kept_bytes(keep, &whole.rows, whole.columns.len()) <= left {
            return Ok(self.finish(keep, vec![whole.clone()]));
        }
        let (rows, columns) = (self.axis(1), self.axis(2));
        let left = room.beside(self.held.bytes());
        let fits = |rows: &Range<usize>, columns: &Range<usize>| {
            self.kept_bytes(keep, rows, columns.len()) <= left
        };
        match self.divide(&rows, &columns, &fits) {
            Some(tiles) => Ok(self.finish(keep, tiles)),
            None => {
                let least = rows.finest().map(|piece| {
                    let widest = columns.finest().map(|piece| piece.network.len()).max();
                    self.kept_bytes(keep, &piece.network, widest.unwrap_or(0))
                });
                let needed = room.fixed + self.held.bytes() + least.max().unwrap_or(0);
                Err(InferError::Memory { needed, allowed: allowed.unwrap_or(u64::MAX) })
            }
        }
    }

    fn whole(&self) -> Tile {
        let output = [0, 1, 2].map(|axis| self.taps[axis].len());
        Tile::whole(self.windows.volume_shape(), output)
    }

    /// The plan with sums on the device, as a whole or in tiles; none where there is too little room, or
    /// where so many windows would be run twice that reading all of them back is better.
    fn on_device(&self, rooms: Rooms) -> Option<MemoryPlan> {
        const MOST_REPEATED: usize = 1;
        let device = self.device.as_ref()?;
        if self.accumulation != Accumulation::F32 {
            return None;
        }
        let fits = |rows: &Range<usize>, columns: &Range<usize>, left: u64| {
            device.has(self.device_cost(device, rows, columns))
                && self.waiting_bytes(rows, columns) <= left
        };
        let whole = self.whole();
        let left = rooms.beside(self.held.bytes_at_once(self.windows));
        let tiles = if fits(&whole.rows, &whole.columns, left) {
            vec![whole]
        } else {
            let left = rooms.beside(self.held.bytes());
            let fits = |rows: &_, columns: &_| fits(rows, columns, left);
            self.divide(&self.axis(1), &self.axis(2), &fits)?
        };
        let plan = self.finish(Keep::DeviceSums, tiles);
        if plan.num_repeated > MOST_REPEATED * self.windows.len() {
            return None;
        }
        let each = |bytes: &dyn Fn(&Range<usize>, &Range<usize>) -> u64| {
            plan.tiles.iter().map(|tile| bytes(&tile.rows, &tile.columns)).max().unwrap_or(0)
        };
        let sums_bytes = each(&|rows, columns| self.waiting_bytes(rows, columns));
        let device_bytes = each(&|rows, columns| self.device_cost(device, rows, columns).bytes);
        let windows_at_once = device.windows_at_once(device_bytes);
        Some(MemoryPlan { sums_bytes, device_bytes, windows_at_once, ..plan })
    }

    fn device_cost(
        &self,
        device: &DeviceRoom,
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> WindowSumsCost {
        let depth = self.windows.window_shape()[0];
        device.cost(self.num_classes, depth, [rows.len(), columns.len()])
    }

    fn why_not(&self, device: &DeviceRoom) -> SumsOnHost {
        let whole = self.whole();
        match self.accumulation {
            Accumulation::F16 => SumsOnHost::HalfPrecision,
            Accumulation::F32 => SumsOnHost::Room {
                needed: self.device_cost(device, &whole.rows, &whole.columns).bytes,
                room: device.bytes,
            },
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
            num_repeated: num_windows.saturating_sub(self.windows.len()),
            sums_bytes: kept.max().unwrap_or(0),
            device_bytes: 0,
            windows_at_once: 1,
            on_host: None,
            window_bytes: self.window_bytes,
            volume_bytes: match tiles.len() {
                1 => self.held.bytes_at_once(self.windows),
                _ => self.held.bytes(),
            } + self.all_pieces(),
            weights_bytes: 0,
            tiles,
        }
    }

    /// Pieces of stored values that wait for their last row: one per plane of the output that a
    /// window covers.
    fn all_pieces(&self) -> u64 {
        if !self.stored {
            return 0;
        }
        let output = [0, 1, 2].map(|axis| self.taps[axis].len());
        let depth = self.windows.volume_shape()[0];
        let planes = self.windows.window_shape()[0].min(depth) * output[0] / depth + 1;
        (planes * self.num_classes * ROWS_PER_PIECE * output[2] * 4) as u64
    }

    /// Most bytes on the host when sums are on the device. Of labels, two pieces. Of final rows: one piece, the
    /// rows and the plane below it that it is interpolated with, and the pieces before and behind on their way.
    fn waiting_bytes(&self, rows: &Range<usize>, columns: &Range<usize>) -> u64 {
        if self.labels_only && self.device.as_ref().is_some_and(DeviceRoom::decides) {
            let [z, y, x] = [0, 1, 2].map(|axis| self.taps[axis].len());
            let plane = y * x * size_of::<i32>();
            return 2 * (z * plane).min(PIECE_BYTES.max(plane)) as u64;
        }
        let (rows, width) = (rows.len(), columns.len());
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
        let num_features = self.num_features.unwrap_or(self.num_classes);
        let kept = match keep {
            Keep::Sums | Keep::DeviceSums => {
                return (peak_rows(self.windows, rows) * row) as u64;
            }
            Keep::Features => {
                let maps = self.num_folds * self.num_passes * num_features;
                let row = maps * self.windows.window_shape()[2] * size_of::<f32>();
                peak_window_rows(self.windows, rows, columns) * row
            }
            Keep::FeatureSums => {
                let row = Slab::row_bytes(num_features, 1, self.accumulation, columns);
                self.num_folds * peak_rows(self.windows, rows) * row
            }
        };
        // Rows just formed, and those that are interpolated with the next plane or row.
        let planes = self.most_closed();
        let piece = kept::rows_per_piece(row, planes).min(rows.len());
        let depth = self.windows.volume_shape()[0];
        let formed = ((planes + 1) * (piece + 2) + rows.len()).min(depth * rows.len());
        (kept + formed * row) as u64
    }

    /// Fewest windows over all pairs of a division of the rows and one of the columns, whose rows and
    /// columns fit.
    fn divide(
        &self,
        rows: &Divisions,
        columns: &Divisions,
        fits: &dyn Fn(&Range<usize>, &Range<usize>) -> bool,
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
            let fit = |p: &Stretch| fits(&p.network, &(0..widest));
            let Some((high, parts_y)) = rows.cheapest(&fit) else {
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
