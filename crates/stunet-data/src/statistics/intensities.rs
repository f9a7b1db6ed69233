//! Intensities of labels: by counting where they are small whole numbers, by selecting otherwise.

use super::{Slots, parts};
use crate::components::{Run, Runs};
use crate::metrics::numpy::percentile_of;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The intensities of a label in one channel, as its file means them: Hounsfield units in CT.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntensityStatistics {
    /// Mean.
    pub mean: f64,
    /// Standard deviation, of the population.
    pub sd: f64,
    /// Smallest.
    pub min: f64,
    /// Percentile 5, interpolated linearly.
    pub percentile_5: f64,
    /// Median.
    pub median: f64,
    /// Percentile 95.
    pub percentile_95: f64,
    /// Largest.
    pub max: f64,
}

const PERCENTILES: [f64; 3] = [0.05, 0.5, 0.95];

/// Bytes that are held at a time, beside image and labels.
const ROOM: usize = 256 << 20;

/// Whose intensities are measured.
pub(super) struct Channel<'a> {
    pub runs: &'a Runs,
    pub slots: &'a Slots,
    /// Voxels of every slot.
    pub voxels: &'a [u64],
}

impl Channel<'_> {
    /// Of whole numbers: one pass that counts them, for as many labels at a time as memory holds.
    pub fn of_small(&self, volume: &[i16]) -> Vec<Option<IntensityStatistics>> {
        let extent = |part: &[i16]| {
            let low = part.iter().copied().min().unwrap_or(0);
            (low, part.iter().copied().max().unwrap_or(0))
        };
        let extents = volume.par_chunks(1 << 20).map(extent);
        let (low, high) =
            extents.reduce(|| (i16::MAX, i16::MIN), |a, b| (a.0.min(b.0), a.1.max(b.1)));
        let bins = usize::try_from(i32::from(high) - i32::from(low) + 1).unwrap_or(1);
        let most_parts = rayon::current_num_threads().min(ROOM / (bins * 4)).max(1);
        let parts = parts(self.runs, most_parts);
        let at_a_time = (ROOM / (bins * 4 * parts.len().max(1))).max(1);
        let present = (0..self.slots.count()).filter(|slot| self.voxels[*slot] > 0);
        let present: Vec<usize> = present.collect();
        let mut found = vec![None; self.slots.count()];
        for batch in present.chunks(at_a_time) {
            let counts: Vec<Vec<u32>> = (parts.par_iter())
                .map(|rows| self.count(rows.clone(), volume, (low, bins), batch))
                .collect();
            let of_label = |place: usize| {
                let total = |bin: usize| {
                    counts.iter().map(|part| u64::from(part[place * bins + bin])).sum::<u64>()
                };
                of_counts(i64::from(low), &(0..bins).map(total).collect::<Vec<_>>())
            };
            let statistics: Vec<_> = (0..batch.len()).into_par_iter().map(of_label).collect();
            batch.iter().zip(statistics).for_each(|(slot, of)| found[*slot] = Some(of));
        }
        found
    }

    /// How often each value occurs in some rows, label after label of a batch.
    fn count(
        &self,
        rows: Range<usize>,
        volume: &[i16],
        (low, bins): (i16, usize),
        batch: &[usize],
    ) -> Vec<u32> {
        let mut counts = vec![0; bins * batch.len()];
        let places = self.places(batch);
        for row in rows {
            for (run, voxels) in self.of_row(row, volume) {
                let place = places[self.slots.slot(run.value)];
                if place == usize::MAX {
                    continue;
                }
                let counts = &mut counts[place * bins..][..bins];
                for value in voxels {
                    counts[(i32::from(*value) - i32::from(low)) as usize] += 1;
                }
            }
        }
        counts
    }

    /// Of any numbers: the values of some labels at a time are gathered.
    pub fn of_single(&self, volume: &[f32]) -> Vec<Option<IntensityStatistics>> {
        let mut found = vec![None; self.slots.count()];
        let mut open: Vec<usize> =
            (0..self.slots.count()).filter(|slot| self.voxels[*slot] > 0).collect();
        while !open.is_empty() {
            let mut room = (ROOM / size_of::<f32>()) as u64;
            let fits = |slot: &&usize| {
                let fits = self.voxels[**slot] <= room;
                room = room.saturating_sub(self.voxels[**slot]);
                fits
            };
            // One label at least, however large it is.
            let count = open.iter().take_while(fits).count().max(1);
            let batch: Vec<usize> = open.drain(..count).collect();
            let places = self.places(&batch);
            let mut values: Vec<Vec<f32>> =
                batch.iter().map(|slot| Vec::with_capacity(self.voxels[*slot] as usize)).collect();
            for row in 0..self.runs.shape[0] * self.runs.shape[1] {
                for (run, voxels) in self.of_row(row, volume) {
                    if let Some(values) = values.get_mut(places[self.slots.slot(run.value)]) {
                        values.extend_from_slice(voxels);
                    }
                }
            }
            let statistics: Vec<_> = values.into_par_iter().map(of_values).collect();
            batch.iter().zip(statistics).for_each(|(slot, of)| found[*slot] = Some(of));
        }
        found
    }

    /// Where each slot is in a batch.
    fn places(&self, batch: &[usize]) -> Vec<usize> {
        let mut places = vec![usize::MAX; self.slots.count()];
        batch.iter().enumerate().for_each(|(place, slot)| places[*slot] = place);
        places
    }

    /// The runs of a row with their voxels of a volume.
    fn of_row<'b, T>(
        &'b self,
        row: usize,
        volume: &'b [T],
    ) -> impl Iterator<Item = (Run, &'b [T])> {
        let voxels = &volume[row * self.runs.shape[2]..];
        self.runs.iter(self.runs.of_row(row)).map(move |run| (run, &voxels[run.range()]))
    }
}

/// From how often each of `low`, `low + 1`, .. occurs; at least one does.
fn of_counts(low: i64, counts: &[u64]) -> IntensityStatistics {
    let occurring = || counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let value = |bin: usize| low + bin as i64;
    let total: u64 = counts.iter().sum();
    // Whole numbers: nothing is rounded before the division.
    let sum: i128 =
        occurring().map(|(bin, count)| i128::from(value(bin)) * i128::from(*count)).sum();
    let mean = sum as f64 / total as f64;
    let squares =
        occurring().map(|(bin, count)| *count as f64 * (value(bin) as f64 - mean).powi(2));
    let variance = squares.sum::<f64>() / total as f64;
    let ends = |bin: Option<(usize, &u64)>| bin.map_or(f64::NAN, |(bin, _)| value(bin) as f64);
    let [percentile_5, median, percentile_95] = PERCENTILES.map(|part| {
        let place = (total - 1) as f64 * part;
        let below = place.floor() as u64;
        let mut passed = 0;
        let mut around = [f64::NAN; 2];
        for (bin, count) in occurring() {
            for (rank, found) in [below, (below + 1).min(total - 1)].into_iter().zip(&mut around) {
                if (passed..passed + count).contains(&rank) {
                    *found = value(bin) as f64;
                }
            }
            passed += count;
        }
        let (between, [low, high]) = (place - below as f64, around);
        // NumPy interpolates from the nearer side.
        match between < 0.5 {
            true => low + (high - low) * between,
            false => high - (high - low) * (1.0 - between),
        }
    });
    IntensityStatistics {
        mean,
        sd: variance.sqrt(),
        min: ends(occurring().next()),
        percentile_5,
        median,
        percentile_95,
        max: ends(occurring().next_back()),
    }
}

/// From all values, of which there is one at least.
fn of_values(mut values: Vec<f32>) -> IntensityStatistics {
    let count = values.len() as f64;
    let sum = |of: &dyn Fn(f64) -> f64| -> f64 {
        // Sums of blocks: errors do not grow with the number of values.
        let block = |block: &[f32]| block.iter().map(|v| of(f64::from(*v))).sum::<f64>();
        values.chunks(1 << 12).map(block).sum()
    };
    let mean = sum(&|v| v) / count;
    let variance = sum(&|v| (v - mean).powi(2)) / count;
    let min = values.iter().copied().fold(f32::INFINITY, f32::min);
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let [percentile_5, median, percentile_95] =
        PERCENTILES.map(|part| percentile_of(&mut values, part));
    IntensityStatistics {
        mean,
        sd: variance.sqrt(),
        min: f64::from(min),
        percentile_5,
        median,
        percentile_95,
        max: f64::from(max),
    }
}
