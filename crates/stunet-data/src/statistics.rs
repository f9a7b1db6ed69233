//! Measurements of labels: volume, intensities, place.
//!
//! [`CaseStatistics::of`] measures every label of a labelmap in one pass over its runs of equal voxels,
//! in parallel and in bounded memory; the numbers do not depend on the number of threads.
//! [`csv`] makes a table of them.

mod intensities;
mod position;
mod table;

pub use intensities::IntensityStatistics;
pub use position::{LabelBox, LabelPosition, Millimetres, VoxelBox};
pub use table::csv;

use crate::components::{Runs, Zeros, runs_of};
use crate::error::{DataError, Result};
use crate::files;
use crate::image::{RawImage, Voxels};
use crate::labels::CompactLabelMap;
use intensities::Channel;
use ndarray::{Array3, ArrayView3, Axis};
use position::Tally;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::Path;

/// The measurements of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseStatistics {
    /// `stunet-statistics`.
    format: String,
    version: u32,
    /// Name of the case.
    pub case: String,
    /// Of every label of the model, with those that have no voxel; not of the background.
    pub labels: Vec<LabelStatistics>,
    /// What made the labels: see `stunet_infer::record`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<serde_json::Value>,
}

/// The measurements of a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelStatistics {
    /// Its value.
    pub label: u16,
    /// Its name.
    pub name: String,
    /// Number of its voxels.
    pub voxels: u64,
    /// Their volume in millilitres.
    pub volume_ml: f64,
    /// Where they are; none if there are none.
    #[serde(flatten)]
    pub position: Option<LabelPosition>,
    /// Their intensities, channel by channel; empty where there is no voxel or no image.
    pub intensities: Vec<IntensityStatistics>,
    /// Mean of the confidence, from 0 to 1, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
}

/// What is measured beside the labels themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatisticsInput<'a> {
    /// The image, with the intensities as its file means them.
    pub image: Option<&'a RawImage>,
    /// How sure each label is, 0 to 255, on the grid of the labels.
    pub confidence: Option<&'a Array3<u8>>,
}

const FORMAT: &str = "stunet-statistics";
const VERSION: u32 = 1;

impl CaseStatistics {
    /// Measures labels. `names` are those that are listed whether they have voxels or not, and what
    /// they are called; others that occur are called `label_N`. Background is left out.
    ///
    /// # Errors
    /// When image or confidence have another shape than the labels.
    ///
    /// # Source
    /// Mean, standard deviation (of the population) and percentiles (linear) are those of NumPy and
    /// `scipy.ndimage`: `scripts/statistics-check`.
    ///
    /// ```
    /// use ndarray::{arr3, Array4};
    /// use stunet_data::geometry::Geometry;
    /// use stunet_data::image::{RawImage, Voxels};
    /// use stunet_data::labels::{CompactLabelMap, LabelVoxels};
    /// use stunet_data::statistics::{CaseStatistics, StatisticsInput};
    /// let geometry = Geometry::axis_aligned([1, 1, 4], [10.0; 3])?;
    /// let voxels = LabelVoxels::Bytes(arr3(&[[[0, 1, 1, 1]]]));
    /// let labels = CompactLabelMap { voxels, geometry: geometry.clone() };
    /// let data = Array4::from_shape_vec((1, 1, 1, 4), vec![-1000i16, 10, 20, 60])?;
    /// let image = RawImage { voxels: Voxels::I16(data), geometry };
    /// let measured = StatisticsInput { image: Some(&image), confidence: None };
    /// let found = CaseStatistics::of("a", &labels, &[(1, "liver")], measured)?;
    /// let liver = &found.labels[0];
    /// assert_eq!((liver.voxels, liver.volume_ml), (3, 3.0));
    /// assert_eq!((liver.intensities[0].mean, liver.intensities[0].median), (30.0, 20.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(
        case: &str,
        labels: &CompactLabelMap,
        names: &[(u16, &str)],
        measured: StatisticsInput<'_>,
    ) -> Result<Self> {
        let runs = runs_of(&labels.voxels, Zeros::Skip);
        let slots = Slots::of(&runs, names);
        let confidence = measured.confidence.map(|volume| volume.as_standard_layout());
        if let Some(volume) = &confidence {
            check_shape("confidence", runs.shape, volume.view())?;
        }
        let confidence = confidence.as_ref().and_then(|volume| volume.as_slice());
        let tallies = tallies(&runs, &slots, confidence);
        let voxels: Vec<u64> = tallies.iter().map(|tally| tally.voxels).collect();
        let channels = match measured.image {
            Some(image) => of_channels(image, &runs, &slots, &voxels)?,
            None => Vec::new(),
        };
        let millilitres = labels.geometry.voxel_volume_mm3() / 1000.0;
        let statistics = |(slot, tally): (usize, &Tally)| LabelStatistics {
            label: slots.labels[slot].0,
            name: slots.labels[slot].1.clone(),
            voxels: tally.voxels,
            volume_ml: tally.voxels as f64 * millilitres,
            position: tally.position(&labels.geometry),
            intensities: channels.iter().filter_map(|channel| channel[slot]).collect(),
            confidence: (tally.voxels > 0 && confidence.is_some())
                .then(|| tally.confidence as f64 / 255.0 / tally.voxels as f64),
        };
        Ok(Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            case: case.to_owned(),
            labels: tallies.iter().enumerate().map(statistics).collect(),
            made_by: None,
        })
    }

    /// Writes them as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        files::save_json(path, self)
    }

    /// Reads them.
    ///
    /// # Errors
    /// When the file is missing or something else.
    pub fn load(path: &Path) -> Result<Self> {
        let found: Self = files::read_json(path)?;
        files::check_format("statistics", (&found.format, found.version), FORMAT)
            .map_err(|error| error.at(path))?;
        Ok(found)
    }
}

/// The labels in the order of their values, each in a slot.
struct Slots {
    labels: Vec<(u16, String)>,
    /// The slot of every value.
    of: Vec<u32>,
}

impl Slots {
    fn of(runs: &Runs, names: &[(u16, &str)]) -> Self {
        let mut known = vec![false; usize::from(u16::MAX) + 1];
        names.iter().for_each(|(label, _)| known[usize::from(*label)] = true);
        (0..runs.len()).for_each(|run| known[usize::from(runs.value(run))] = true);
        let mut of = vec![0; known.len()];
        let mut labels = Vec::new();
        for label in (1..=u16::MAX).filter(|label| known[usize::from(*label)]) {
            of[usize::from(label)] = labels.len() as u32;
            let name = names.iter().find(|(value, _)| *value == label);
            let name =
                name.map_or_else(|| format!("label_{label}"), |(_, name)| (*name).to_owned());
            labels.push((label, name));
        }
        Self { labels, of }
    }

    fn count(&self) -> usize {
        self.labels.len()
    }

    fn slot(&self, value: u16) -> usize {
        self.of[usize::from(value)] as usize
    }
}

/// Rows that are worked on at a time: as many parts as threads, and few enough voxels to count in 32
/// bits.
fn parts(runs: &Runs, most: usize) -> Vec<Range<usize>> {
    let [depth, height, width] = runs.shape;
    let rows = depth * height;
    let countable = ((1 << 31) / width.max(1)).max(1);
    let at_a_time = rows.div_ceil(most.max(1)).clamp(1, countable);
    (0..rows).step_by(at_a_time).map(|row| row..(row + at_a_time).min(rows)).collect()
}

fn tallies(runs: &Runs, slots: &Slots, confidence: Option<&[u8]>) -> Vec<Tally> {
    let [_, height, width] = runs.shape;
    let of_part = |rows: Range<usize>| {
        let mut tallies = vec![Tally::default(); slots.count()];
        for row in rows {
            let (z, y) = ((row / height) as u64, (row % height) as u64);
            for run in runs.iter(runs.of_row(row)) {
                let tally = &mut tallies[slots.slot(run.value)];
                tally.add([z, y], &run);
                if let Some(volume) = confidence {
                    let sure = &volume[row * width..][run.range()];
                    tally.confidence += sure.iter().map(|sure| u64::from(*sure)).sum::<u64>();
                }
            }
        }
        tallies
    };
    let parts = parts(runs, rayon::current_num_threads());
    let found: Vec<_> = parts.into_par_iter().map(of_part).collect();
    let mut tallies = vec![Tally::default(); slots.count()];
    for part in found {
        tallies.iter_mut().zip(part).for_each(|(tally, part)| tally.merge(&part));
    }
    tallies
}

/// The intensities of every channel, slot by slot.
fn of_channels(
    image: &RawImage,
    runs: &Runs,
    slots: &Slots,
    voxels: &[u64],
) -> Result<Vec<Vec<Option<IntensityStatistics>>>> {
    let turn = image.geometry.turn();
    let mut channels = Vec::new();
    for channel in 0..image.num_channels() {
        let found = match &image.voxels {
            Voxels::I16(data) => {
                let volume = turn.undo(data.index_axis(Axis(0), channel));
                check_shape("image", runs.shape, volume.view())?;
                let volume = volume.as_standard_layout();
                let volume = volume.as_slice().expect("standard layout is contiguous");
                Channel { runs, slots, voxels }.of_small(volume)
            }
            Voxels::F32(data) => {
                let volume = turn.undo(data.index_axis(Axis(0), channel));
                check_shape("image", runs.shape, volume.view())?;
                let volume = volume.as_standard_layout();
                let volume = volume.as_slice().expect("standard layout is contiguous");
                Channel { runs, slots, voxels }.of_single(volume)
            }
        };
        channels.push(found);
    }
    Ok(channels)
}

fn check_shape<T>(
    what: &'static str,
    expected: [usize; 3],
    volume: ArrayView3<'_, T>,
) -> Result<()> {
    let (z, y, x) = volume.dim();
    if [z, y, x] == expected {
        return Ok(());
    }
    Err(DataError::Mismatch {
        what: match what {
            "image" => "shape of the image",
            _ => "shape of the confidence",
        },
        expected: format!("{expected:?}, that of the labels"),
        found: format!("{:?}", [z, y, x]),
    })
}

#[cfg(test)]
mod tests;
