//! What planning needs to know of a dataset: sizes, spacings, and the intensities of its foreground.

mod json;
pub(crate) mod statistics;

pub(crate) use json::by_number;

use crate::dataset::{DatasetInfo, Problem, RawDataset, TrainingCaseFiles};
use crate::error::{DataError, Result};
use crate::image::Image;
use crate::labels::LabelMap;
use crate::numpy_random::RandomState;
use crate::preprocess::crop;
use crate::reference::{ForegroundSampling, Reference};
use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;
use statistics::{Draws, Summary, median_of, summary};

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

/// What voxels of the ignore label are to the intensities of the foreground.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IgnoredVoxels {
    /// Foreground like any other label: so nnU-Net measures, though nobody knows what they show.
    #[default]
    Foreground,
    /// Neither foreground nor anything else.
    LeftOut,
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
    /// Version 1's statistics of single cases (`local_props`), which nothing reads, are left out. Voxels
    /// of an ignore label count as foreground in the reference, and so here: [`IgnoredVoxels::LeftOut`]
    /// leaves them out.
    pub fn measure(
        dataset: &RawDataset,
        reference: Reference,
        on_case: &(dyn Fn(&str) + Sync),
    ) -> Result<Self> {
        Self::measure_of(dataset, reference, IgnoredVoxels::Foreground, on_case)
    }

    /// As [`measure`](Self::measure), with a choice of what the voxels of an ignore label are.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    pub fn measure_of(
        dataset: &RawDataset,
        reference: Reference,
        ignored: IgnoredVoxels,
        on_case: &(dyn Fn(&str) + Sync),
    ) -> Result<Self> {
        let cases = dataset.cases();
        let info = dataset.info();
        let voxels = match ignored {
            IgnoredVoxels::Foreground => Foreground { ignored: None },
            IgnoredVoxels::LeftOut => Foreground { ignored: info.labels.ignore() },
        };
        let sampling = Sampling::new(info, cases.len(), reference);
        let measured: Vec<_> = cases
            .par_iter()
            .map(|case| {
                let measured = sampling.measure(case, info, voxels);
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
        match reference.conventions().planning.foreground {
            ForegroundSampling::StrideOfCt if ct => Self::Stride,
            ForegroundSampling::StrideOfCt => Self::None,
            ForegroundSampling::Draws => Self::Draws(NUM_DRAWS / cases),
        }
    }

    fn measure(
        self,
        case: &TrainingCaseFiles,
        info: &DatasetInfo,
        foreground: Foreground,
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
            draws: self.draws(&image, &labels, bounds, foreground),
        })
    }

    /// Foreground outside the crop does not count.
    fn draws(
        self,
        image: &Image,
        labels: &LabelMap,
        bounds: crop::BoundingBox,
        foreground: Foreground,
    ) -> Vec<Draws> {
        let mut random = RandomState::new(SEED);
        let [z, y, x] = bounds.map(|[from, to]| ndarray::Slice::from(from..to));
        let region = ndarray::s![z, y, x];
        let labels = labels.data.slice(region);
        let channels = image.data.axis_iter(Axis(0)).map(|channel| {
            let voxels = foreground.of(channel.slice(region), labels);
            match self {
                Self::None => Draws::Kept(Vec::new()),
                Self::Stride => Draws::Kept(voxels.step_by(STRIDE).collect()),
                Self::Draws(count) => Draws::new(voxels.collect(), count, &mut random),
            }
        });
        channels.collect()
    }
}

/// Which voxels are foreground.
#[derive(Clone, Copy, Debug)]
struct Foreground {
    /// A label that is none.
    ignored: Option<u16>,
}

impl Foreground {
    fn of<'a>(
        self,
        channel: ArrayView3<'a, f32>,
        labels: ArrayView3<'a, u16>,
    ) -> impl Iterator<Item = f32> {
        let pairs = channel.into_iter().zip(labels);
        let counts = move |label: u16| label > 0 && Some(label) != self.ignored;
        pairs.filter(move |(_, label)| counts(**label)).map(|(value, _)| *value)
    }
}

/// The statistics of every channel over all cases.
fn foreground(
    mut cases: Vec<CaseMeasures>,
    channels: usize,
    reference: Reference,
) -> Result<Vec<ForegroundIntensity>> {
    let conventions = &reference.conventions().planning;
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
            let summary = match empty && conventions.empty_case_makes_double {
                true => summary::<f64>(&draws, conventions.percentiles),
                false => summary::<f32>(&draws, conventions.percentiles),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use stunet_testing::nifti_bytes::NiftiBytes;

    /// Two cases; labels are drawn on the voxels where `foreground` says so.
    fn dataset(channel: &str, foreground: impl Fn(usize, usize) -> bool) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let json = json!({
            "channel_names": {"0": channel},
            "labels": {"background": 0, "liver": 1},
            "numTraining": 2,
            "file_ending": ".nii"
        });
        std::fs::write(folder.path().join("dataset.json"), json.to_string()).unwrap();
        for case in 0..2 {
            let mut image = NiftiBytes::ramp([5, 4, 3 + case as i16]);
            // The first plane is 0: the crop takes it away.
            image.values[..20].fill(0.0);
            let mut labels = image.clone();
            let label = |(i, v): (usize, &mut f32)| *v = f32::from(foreground(case, i));
            labels.values.iter_mut().enumerate().for_each(label);
            for (name, file) in [
                (format!("imagesTr/c{case}_0000.nii"), &image),
                (format!("labelsTr/c{case}.nii"), &labels),
            ] {
                let path = folder.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, file.bytes()).unwrap();
            }
        }
        folder
    }

    fn measure(folder: &tempfile::TempDir, reference: Reference) -> Result<Fingerprint> {
        Fingerprint::measure(&RawDataset::open(folder.path())?, reference, &|_| {})
    }

    #[test]
    fn sizes_and_spacings() {
        let folder = dataset("CT", |_, i| i >= 20);
        let found = measure(&folder, Reference::NnUNetV28).unwrap();
        assert_eq!(found.shapes_after_crop, [[2, 4, 5], [3, 4, 5]]);
        assert_eq!(found.spacings_mm, [[3.0; 3]; 2]);
        assert_eq!(found.median_relative_size_after_cropping, (2.0 / 3.0 + 0.75) / 2.0);
        let foreground = found.foreground.unwrap()[0];
        // The smallest and the largest of the ramp behind the first plane.
        assert_eq!((foreground.min, foreground.max), (-420.0, -184.0));
    }

    #[test]
    fn version_1_takes_every_tenth_voxel_of_a_ct() {
        let folder = dataset("CT", |case, i| case == 0 && i >= 20);
        let found = measure(&folder, Reference::NnUNetV1).unwrap();
        let foreground = found.foreground.unwrap()[0];
        // Voxels 20, 30, 40, 50.
        let values = [-420.0, -380.0, -340.0, -300.0];
        assert_eq!((foreground.min, foreground.max), (values[0], values[3]));
        assert_eq!((foreground.mean, foreground.median), (-360.0, -360.0));
        assert_eq!(foreground.std, f64::from(2000f32.sqrt()));
        let folder = dataset("MR", |_, i| i >= 20);
        assert_eq!(measure(&folder, Reference::NnUNetV1).unwrap().foreground, None);
    }

    #[test]
    fn a_dataset_needs_foreground_but_not_every_case() {
        let folder = dataset("MR", |case, i| case == 1 && i == 25);
        for reference in [Reference::NnUNetV22, Reference::NnUNetV28] {
            let foreground = measure(&folder, reference).unwrap().foreground.unwrap()[0];
            assert_eq!((foreground.mean, foreground.std), (-400.0, 0.0));
        }
        // Foreground outside the crop does not count.
        let folder = dataset("MR", |_, i| i < 20);
        let error = measure(&folder, Reference::NnUNetV28).unwrap_err();
        assert!(error.to_string().contains("no foreground"), "{error}");
    }

    /// The second half of the foreground is ignored.
    #[test]
    fn ignored_voxels_count_unless_they_are_left_out() {
        let folder = dataset("CT", |_, i| i >= 20);
        let file = folder.path().join("dataset.json");
        let json = std::fs::read_to_string(&file).unwrap();
        let mut json: Value = serde_json::from_str(&json).unwrap();
        json["labels"]["ignore"] = 2.into();
        std::fs::write(&file, json.to_string()).unwrap();
        for case in 0..2 {
            let mut labels = NiftiBytes::ramp([5, 4, 3 + case as i16]);
            let label = |(i, v): (usize, &mut f32)| {
                *v = if i < 20 {
                    0.0
                } else if i < 40 {
                    1.0
                } else {
                    2.0
                };
            };
            labels.values.iter_mut().enumerate().for_each(label);
            std::fs::write(folder.path().join(format!("labelsTr/c{case}.nii")), labels.bytes())
                .unwrap();
        }
        let dataset = RawDataset::open(folder.path()).unwrap();
        for reference in [Reference::NnUNetV28, Reference::NnUNetV1] {
            let range = |ignored| {
                let found = Fingerprint::measure_of(&dataset, reference, ignored, &|_| {});
                let found = found.unwrap().foreground.unwrap()[0];
                (found.min, found.max)
            };
            let all = range(IgnoredVoxels::Foreground);
            let plain = Fingerprint::measure(&dataset, reference, &|_| {}).unwrap();
            let plain = plain.foreground.unwrap()[0];
            assert_eq!((plain.min, plain.max), all, "the reference's by default");
            let known = range(IgnoredVoxels::LeftOut);
            assert!(known.0 == all.0 && known.1 < all.1 - 50.0, "{known:?} {all:?}");
        }
    }

    #[test]
    fn read_back() {
        let folder = dataset("CT", |_, i| i >= 20);
        let info = RawDataset::open(folder.path()).unwrap().info().clone();
        let path = folder.path().join("dataset_fingerprint.json");
        let found = measure(&folder, Reference::NnUNetV28).unwrap();
        found.save(&path).unwrap();
        assert_eq!(
            Fingerprint::load(&path).unwrap(),
            Fingerprint { relative_sizes: vec![], ..found }
        );
        let found = measure(&folder, Reference::NnUNetV1).unwrap();
        assert_eq!(Fingerprint::from_v1_json(&found.to_v1_json(&info)).unwrap(), found);
    }

    #[test]
    fn bad_fingerprints_are_refused() {
        let good = json!({
            "foreground_intensity_properties_per_channel": {"0": {
                "max": 3.0, "mean": 1.0, "median": 1.0, "min": 0.0,
                "percentile_00_5": 0.0, "percentile_99_5": 2.0, "std": 1.0
            }},
            "median_relative_size_after_cropping": 1.0,
            "shapes_after_crop": [[3, 4, 5]],
            "spacings": [[3.0, 1.0, 0.5]]
        });
        Fingerprint::from_v2_json(&good).unwrap();
        let refused = |pointer: &str, value: Value, words: &str| {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value;
            let message = Fingerprint::from_v2_json(&bad).unwrap_err().to_string();
            assert!(message.contains(words), "expected {words:?}, found {message:?}");
        };
        refused("/spacings", json!([]), "one entry per case");
        refused("/spacings/0/1", json!(0.0), "lengths above 0");
        refused("/shapes_after_crop/0/1", json!(0), "lengths above 0");
        refused("/shapes_after_crop", json!("none"), "shapes_after_crop: expected three lengths");
        refused("/spacings/0/1", json!(null), "spacings: expected three lengths per case");
        let median = "median_relative_size_after_cropping: expected a number, found null or NaN";
        refused("/median_relative_size_after_cropping", json!(null), median);
        let channel = "/foreground_intensity_properties_per_channel/0";
        refused(&format!("{channel}/std"), json!("none"), "channel 0, std");
        let mut without = good.clone();
        without.pointer_mut(channel).unwrap().as_object_mut().unwrap().remove("std");
        let message = Fingerprint::from_v2_json(&without).unwrap_err().to_string();
        assert!(message.contains("channel 0, std"), "{message}");
        // NaN, which Python writes, is null once it is read, and stays it.
        let mut unknown = good.clone();
        *unknown.pointer_mut(&format!("{channel}/std")).unwrap() = json!(null);
        let read = Fingerprint::from_v2_json(&unknown).unwrap();
        assert!(read.foreground.as_ref().unwrap()[0].std.is_nan());
        let written = read.to_v2_json();
        assert_eq!(written.pointer(&format!("{channel}/std")), Some(&json!(null)));
        assert_eq!(written.pointer(&format!("{channel}/mean")), Some(&json!(1.0)));
    }
}
