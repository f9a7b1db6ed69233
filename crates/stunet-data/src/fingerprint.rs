//! What planning has to know of a dataset: sizes, spacings, and the intensities of its foreground.

pub(crate) mod statistics;

use crate::dataset::{DatasetInfo, Problem, RawDataset, TrainingCaseFiles};
use crate::error::{DataError, Result, invalid};
use crate::image::Image;
use crate::labels::LabelMap;
use crate::numpy_random::RandomState;
use crate::plans::Reference;
use crate::preprocess::crop;
use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use statistics::{Draws, Interpolation, Summary, median_of, summary};
use std::path::Path;

/// Draws of the whole dataset, for the statistics of version 2.
const NUM_DRAWS: usize = 100_000_000;
/// Seed of every case's draws.
const SEED: u32 = 1234;
/// Version 1 takes every tenth voxel of the foreground.
const STRIDE: usize = 10;

/// Intensities of the foreground of all cases, in one channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForegroundIntensity {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// Median.
    pub median: f64,
    /// Minimum.
    pub min: f64,
    /// Maximum.
    pub max: f64,
    /// 0.5th percentile.
    pub percentile_00_5: f64,
    /// 99.5th percentile.
    pub percentile_99_5: f64,
}

/// A dataset in numbers.
///
/// # Shapes
/// Shapes and spacings are `[z, y, x]` of the files, one entry per case in the order of their
/// names.
#[derive(Clone, Debug, PartialEq)]
pub struct Fingerprint {
    /// Shapes after cropping to the nonzero region, voxels.
    pub shapes_after_crop: Vec<[usize; 3]>,
    /// Spacings, mm.
    pub spacings_mm: Vec<[f64; 3]>,
    /// Voxels left by the crop, as a fraction of the whole: the median over the cases.
    pub median_relative_size_after_cropping: f64,
    /// The same of every case, by name; version 1 writes it, the files of version 2 lack it.
    pub relative_sizes: Vec<(String, f64)>,
    /// One entry per channel; none under version 1 where no channel is a CT.
    pub foreground: Option<Vec<ForegroundIntensity>>,
}

/// What is measured of one case.
struct CaseMeasures {
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    relative_size: f64,
    /// By channel.
    draws: Vec<Draws>,
}

impl Fingerprint {
    /// Reads, checks and measures every case, several at a time. `on_case` hears the name of each
    /// case that is done, in any order.
    ///
    /// # Errors
    /// [`DataError::BadCases`] with everything that is wrong with the cases, and when no case has
    /// any foreground.
    ///
    /// # Source
    /// nnU-Net 2 `fingerprint_extractor.py`: per case int(10e7 // cases) draws with replacement
    /// from the foreground, one generator per case for all channels. nnU-Net 1.7
    /// `DatasetAnalyzer.py`: every tenth voxel of the foreground, if a channel is named CT or ct.
    ///
    /// # Deviations
    /// Version 1's statistics of single cases (`local_props`), which nothing reads, are left out.
    pub fn measure(
        dataset: &RawDataset,
        reference: Reference,
        on_case: &(dyn Fn(&str) + Sync),
    ) -> Result<Self> {
        let cases = dataset.cases();
        let info = dataset.info();
        let sampling = Sampling::new(info, cases.len(), reference);
        let measured: Vec<_> = cases
            .par_iter()
            .map(|case| {
                let measured = sampling.measure(case, info);
                on_case(&case.name);
                measured
            })
            .collect();
        let mut problems = Vec::new();
        let mut measures = Vec::new();
        for case in measured {
            match case {
                Ok(case) => measures.push(case),
                Err(found) => problems.extend(found),
            }
        }
        if !problems.is_empty() {
            return Err(DataError::BadCases(problems));
        }
        let sizes: Vec<f64> = measures.iter().map(|case| case.relative_size).collect();
        Ok(Self {
            shapes_after_crop: measures.iter().map(|case| case.shape).collect(),
            spacings_mm: measures.iter().map(|case| case.spacing_mm).collect(),
            median_relative_size_after_cropping: median_of(&sizes),
            relative_sizes: dataset.case_names().into_iter().zip(sizes).collect(),
            foreground: match sampling {
                Sampling::None => None,
                _ => Some(foreground(measures, info.channel_names.len(), reference)?),
            },
        })
    }

    /// Number of cases.
    pub fn num_cases(&self) -> usize {
        self.shapes_after_crop.len()
    }

    /// The content of nnU-Net 2's `dataset_fingerprint.json`.
    pub fn to_v2_json(&self) -> Value {
        json!({
            "foreground_intensity_properties_per_channel": self.foreground_json(),
            "median_relative_size_after_cropping": self.median_relative_size_after_cropping,
            "shapes_after_crop": self.shapes_after_crop,
            "spacings": self.spacings_mm,
        })
    }

    /// The statistics as version 2 writes them into fingerprint and plans.
    pub(crate) fn foreground_json(&self) -> Value {
        let channel = |i: &ForegroundIntensity| {
            json!({
                "max": i.max,
                "mean": i.mean,
                "median": i.median,
                "min": i.min,
                "percentile_00_5": i.percentile_00_5,
                "percentile_99_5": i.percentile_99_5,
                "std": i.std,
            })
        };
        by_number(self.foreground.iter().flatten().map(channel))
    }

    /// nnU-Net 1's `dataset_properties.pkl` as JSON; the dataset adds classes and modalities.
    pub fn to_v1_json(&self, info: &DatasetInfo) -> Value {
        let channel = |i: &ForegroundIntensity| {
            json!({
                "median": i.median,
                "mean": i.mean,
                "sd": i.std,
                "mn": i.min,
                "mx": i.max,
                "percentile_99_5": i.percentile_99_5,
                "percentile_00_5": i.percentile_00_5,
            })
        };
        let intensities = self.foreground.as_ref().map(|f| by_number(f.iter().map(channel)));
        let reductions: Map<String, Value> =
            self.relative_sizes.iter().map(|(name, size)| (name.clone(), json!(size))).collect();
        json!({
            "all_sizes": self.shapes_after_crop,
            "all_spacings": self.spacings_mm,
            "all_classes": info.classes(),
            "modalities": by_number(info.channel_names.iter().map(|name| json!(name))),
            "intensityproperties": intensities,
            "size_reductions": reductions,
        })
    }

    /// Reads the content of nnU-Net 2's `dataset_fingerprint.json`.
    ///
    /// # Errors
    /// When an entry is missing or malformed.
    pub fn from_v2_json(value: &Value) -> Result<Self> {
        let raw: RawV2 = parse(value)?;
        let foreground = channels(raw.foreground_intensity_properties_per_channel)?;
        Self {
            shapes_after_crop: raw.shapes_after_crop,
            spacings_mm: raw.spacings,
            median_relative_size_after_cropping: raw.median_relative_size_after_cropping,
            relative_sizes: Vec::new(),
            foreground: Some(foreground),
        }
        .checked()
    }

    /// Reads nnU-Net 1's `dataset_properties.pkl`, converted to JSON.
    ///
    /// # Errors
    /// When an entry is missing or malformed.
    pub fn from_v1_json(value: &Value) -> Result<Self> {
        let raw: RawV1 = parse(value)?;
        let mut sizes = Vec::new();
        for (name, size) in raw.size_reductions {
            let bad = || malformed(format!("size_reductions.{name}"), "a number");
            let size = size.as_f64().ok_or_else(bad)?;
            sizes.push((name, size));
        }
        let values: Vec<f64> = sizes.iter().map(|(_, size)| *size).collect();
        if values.is_empty() {
            return Err(malformed("size_reductions", "an entry per case"));
        }
        Self {
            shapes_after_crop: raw.all_sizes,
            spacings_mm: raw.all_spacings,
            median_relative_size_after_cropping: median_of(&values),
            relative_sizes: sizes,
            foreground: raw.intensityproperties.map(channels).transpose()?,
        }
        .checked()
    }

    /// Reads `dataset_fingerprint.json`.
    ///
    /// # Errors
    /// When the file is missing or malformed.
    pub fn load(path: &Path) -> Result<Self> {
        let value: Value = crate::plans::load_json(path)?;
        Self::from_v2_json(&value).map_err(|e| e.at(path))
    }

    /// Writes `dataset_fingerprint.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        crate::plans::save_json(path, &self.to_v2_json())
    }

    fn checked(self) -> Result<Self> {
        let cases = self.spacings_mm.len();
        if cases == 0 || self.shapes_after_crop.len() != cases {
            return Err(malformed("spacings", "one entry per case, as many as shapes"));
        }
        if self.spacings_mm.iter().flatten().any(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(malformed("spacings", "lengths above 0"));
        }
        if self.shapes_after_crop.iter().flatten().any(|n| *n == 0) {
            return Err(malformed("shapes_after_crop", "lengths above 0"));
        }
        Ok(self)
    }
}

/// How voxels of the foreground are taken.
#[derive(Clone, Copy, Debug)]
enum Sampling {
    None,
    Stride,
    Draws(usize),
}

impl Sampling {
    fn new(info: &DatasetInfo, cases: usize, reference: Reference) -> Self {
        let ct = info.channel_names.iter().any(|name| name == "CT" || name == "ct");
        match reference {
            Reference::NnUNetV1 if ct => Self::Stride,
            Reference::NnUNetV1 => Self::None,
            _ => Self::Draws(NUM_DRAWS / cases),
        }
    }

    fn measure(
        self,
        case: &TrainingCaseFiles,
        info: &DatasetInfo,
    ) -> Result<CaseMeasures, Vec<Problem>> {
        let (image, labels) = case.read(info)?;
        let problem = |error| vec![Problem { case: case.name.clone(), error }];
        let bounds = crop::bounding_box(image.data.view())
            .map_err(|error| problem(error.at(&case.images[0])))?;
        let shape = bounds.map(|[from, to]| to - from);
        let cropped: usize = shape.iter().product();
        Ok(CaseMeasures {
            shape,
            spacing_mm: image.geometry.spacing_mm(),
            relative_size: cropped as f64 / labels.data.len() as f64,
            draws: self.draws(&image, &labels, bounds),
        })
    }

    /// Foreground outside the crop does not count.
    fn draws(self, image: &Image, labels: &LabelMap, bounds: crop::BoundingBox) -> Vec<Draws> {
        let mut random = RandomState::new(SEED);
        let [z, y, x] = bounds.map(|[from, to]| ndarray::Slice::from(from..to));
        let region = ndarray::s![z, y, x];
        let labels = labels.data.slice(region);
        let channels = image.data.axis_iter(Axis(0)).map(|channel| {
            let voxels = in_foreground(channel.slice(region), labels);
            match self {
                Self::None => Draws::Kept(Vec::new()),
                Self::Stride => Draws::Kept(voxels.step_by(STRIDE).collect()),
                Self::Draws(count) => Draws::new(voxels.collect(), count, &mut random),
            }
        });
        channels.collect()
    }
}

fn in_foreground<'a>(
    channel: ArrayView3<'a, f32>,
    labels: ArrayView3<'a, u16>,
) -> impl Iterator<Item = f32> {
    let pairs = channel.into_iter().zip(labels);
    pairs.filter(|(_, label)| **label > 0).map(|(value, _)| *value)
}

/// The statistics of every channel over all cases.
fn foreground(
    mut cases: Vec<CaseMeasures>,
    channels: usize,
    reference: Reference,
) -> Result<Vec<ForegroundIntensity>> {
    let mut by_channel: Vec<Vec<Draws>> = vec![Vec::new(); channels];
    for case in &mut cases {
        for (channel, draws) in by_channel.iter_mut().zip(case.draws.drain(..)) {
            channel.push(draws);
        }
    }
    by_channel
        .into_par_iter()
        .map(|draws| {
            let empty = draws.iter().any(|case| case.len() == 0);
            let summary = match reference {
                Reference::NnUNetV1 => summary::<f32>(&draws, Interpolation::DoubleWithMedian),
                // An empty case makes NumPy's array one of double precision.
                Reference::NnUNetV22 if empty => {
                    summary::<f64>(&draws, Interpolation::SingleWithMedian)
                }
                Reference::NnUNetV22 => summary::<f32>(&draws, Interpolation::SingleWithMedian),
                Reference::NnUNetV28 if empty => summary::<f64>(&draws, Interpolation::Double),
                Reference::NnUNetV28 => summary::<f32>(&draws, Interpolation::Double),
            };
            summary.map(ForegroundIntensity::from).ok_or(DataError::NoForeground)
        })
        .collect()
}

impl From<Summary> for ForegroundIntensity {
    fn from(s: Summary) -> Self {
        Self {
            mean: s.mean,
            std: s.std,
            median: s.median,
            min: s.min,
            max: s.max,
            percentile_00_5: s.percentile_00_5,
            percentile_99_5: s.percentile_99_5,
        }
    }
}

/// An object with the keys `"0"`, `"1"`, ...
pub(crate) fn by_number(values: impl Iterator<Item = Value>) -> Value {
    Value::Object(values.enumerate().map(|(i, value)| (i.to_string(), value)).collect())
}

#[derive(Deserialize)]
struct RawV2 {
    foreground_intensity_properties_per_channel: Map<String, Value>,
    median_relative_size_after_cropping: f64,
    shapes_after_crop: Vec<[usize; 3]>,
    spacings: Vec<[f64; 3]>,
}

#[derive(Deserialize)]
struct RawV1 {
    all_sizes: Vec<[usize; 3]>,
    all_spacings: Vec<[f64; 3]>,
    intensityproperties: Option<Map<String, Value>>,
    size_reductions: Map<String, Value>,
}

fn parse<T: for<'a> Deserialize<'a>>(value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|e| invalid("fingerprint", "content", "nnU-Net's entries", e))
}

fn malformed(key: impl Into<String>, expected: &str) -> DataError {
    invalid("fingerprint", key, expected, "something else")
}

/// Statistics by channel, with the names of either version.
fn channels(map: Map<String, Value>) -> Result<Vec<ForegroundIntensity>> {
    (0..map.len())
        .map(|c| {
            let entry = map.get(&c.to_string());
            let number = |keys: [&str; 2]| {
                let found = entry.and_then(|e| keys.iter().find_map(|key| e.get(key)?.as_f64()));
                let expected = "a number for every statistic";
                found.ok_or_else(|| malformed(format!("channel {c}, {}", keys[0]), expected))
            };
            Ok(ForegroundIntensity {
                mean: number(["mean", "mean"])?,
                std: number(["std", "sd"])?,
                median: number(["median", "median"])?,
                min: number(["min", "mn"])?,
                max: number(["max", "mx"])?,
                percentile_00_5: number(["percentile_00_5", "percentile_00_5"])?,
                percentile_99_5: number(["percentile_99_5", "percentile_99_5"])?,
            })
        })
        .collect()
}
