//! The report of `--json`: the result of every case, for other programs.

use std::path::{Path, PathBuf};

use anyhow::Context;
use ndarray::Array3;
use serde::{Serialize, Serializer};
use stunet::data::dataset::{PassedOver, told};
use stunet::data::files;
use stunet::data::labels::{CompactLabelMap, LabelSet};
use stunet::data::plausibility::LabelWarning;
use stunet::data::statistics::CaseStatistics;
use stunet::infer::{Architecture, ModelKind, NetworkPrecision, PredictReport, Timings};
use stunet::model::StuNetSize;

use crate::commands::predict::budget::BudgetReport;
use crate::commands::predict::region::RegionReport;
use crate::failure;
use crate::finish::Finished;
use crate::output;
use crate::parts::Divided;

/// What a report of `predict` says it is.
pub const PREDICT_REPORT: &str = "stunet-predict-report";

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `stunet-predict-report`.
    pub format: &'static str,
    /// Of this layout.
    pub version: u32,
    /// Of this program.
    pub stunet: &'static str,
    /// The device's name.
    pub device: Option<String>,
    /// The model.
    pub model: Option<ModelReport>,
    /// Which part of the cases this is, where they were divided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Divided>,
    /// What all cases took; none when all were there before.
    pub summary: Option<Summary>,
    /// Skipped ones first, then those of another making, then in the order of their names.
    pub cases: Vec<CaseReport>,
    /// Files of the input folder that belong to no case.
    pub passed_over: Vec<PassedOverReport>,
}

/// A file that belongs to no case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PassedOverReport {
    /// The file; what is not text in its path is replaced.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// A path as text. Invalid UTF-8 is replaced, because serde would reject the whole report.
pub fn path<S: Serializer>(path: &impl AsRef<Path>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&path.as_ref().to_string_lossy())
}

fn paths<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

fn some_path<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(to)
}

/// The files that belong to no case, for a report.
pub fn passed_over(files: &[PassedOver]) -> Vec<PassedOverReport> {
    let report = |over: &PassedOver| PassedOverReport {
        file: over.file.to_string_lossy().into_owned(),
        reason: over.reason.to_string(),
    };
    files.iter().map(report).collect()
}

/// Prints one line on standard error with the files of a folder that belong to no case.
pub fn tell_passed_over(folder: &Path, files: &[PassedOver]) {
    if let Some(told) = told(files) {
        let (count, folder) = (files.len(), folder.display());
        output::complain(&format!("{count} file(s) passed over: {told}: {folder}"));
    }
}

/// What all predicted cases took together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Cases predicted in this run.
    pub predicted: usize,
    /// Cases that were there before.
    pub skipped: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Seconds by stage, summed over the predicted cases. Stages of different cases overlap.
    pub seconds: Seconds,
    /// Seconds on the clock, from the first case to the last; loading the model is not counted.
    pub wall_secs: f64,
    /// Voxels of the predicted images.
    pub voxels: usize,
    /// The same per second on the clock.
    pub voxels_per_sec: f64,
    /// Most bytes the process held, by the system's own accounting, where it says so.
    pub peak_memory_bytes: Option<u64>,
}

/// The model that predicted.
#[derive(Debug, Serialize)]
pub struct ModelReport {
    /// As given.
    #[serde(serialize_with = "path")]
    pub path: PathBuf,
    /// Which of the three kinds.
    pub kind: ModelKind,
    /// The published size, if it is one.
    pub size: Option<StuNetSize>,
    /// The network.
    pub network: Architecture,
    /// What its convolutions were computed in.
    pub precision: NetworkPrecision,
    /// Its folds.
    pub folds: Vec<String>,
    /// What had to be assumed.
    pub notes: Vec<String>,
    /// Digest of its weights, plans and labels: what outputs know it by.
    pub digest: Option<String>,
    /// Seconds to load it.
    pub load_secs: f64,
}

/// Outcome of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its labelmap was written.
    Predicted,
    /// All requested outputs existed, made by the same program, model, settings and input.
    Skipped,
    /// See its error.
    Failed,
}

/// One case.
#[derive(Debug, Serialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// Its channel files.
    #[serde(serialize_with = "paths")]
    pub input: Vec<PathBuf>,
    /// Its labels, in the first format that was asked for.
    #[serde(serialize_with = "path")]
    pub output: PathBuf,
    /// What became of it.
    pub status: Status,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was done.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub result: Option<CaseResult>,
}

/// A predicted case.
#[derive(Debug, Serialize)]
pub struct CaseResult {
    /// `[z, y, x]` of the image.
    pub shape: [usize; 3],
    /// `[z, y, x]` of the image, in mm.
    pub spacing_mm: [f64; 3],
    /// Voxels of the image.
    pub voxels: usize,
    /// Windows, shapes at the network, and the network's seconds.
    pub prediction: PredictReport,
    /// Seconds on the clock.
    pub seconds: Seconds,
    /// Voxels of the image per second of `total`.
    pub voxels_per_sec: f64,
    /// Most bytes the process has held up to the end of this case, where the system says so.
    pub peak_memory_bytes: Option<u64>,
    /// The class probabilities, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_path")]
    pub probabilities: Option<PathBuf>,
    /// How sure each label is, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_path")]
    pub confidence: Option<PathBuf>,
    /// The picture, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_path")]
    pub preview: Option<PathBuf>,
    /// The DICOM objects, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "paths")]
    pub dicom: Vec<PathBuf>,
    /// Files that were written for it in this run.
    #[serde(serialize_with = "paths")]
    pub files: Vec<PathBuf>,
    /// The part of the body that was predicted, where only one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionReport>,
    /// What was chosen for the time, where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetReport>,
    /// What was cleaned up and left out.
    #[serde(flatten)]
    pub finished: Finished,
    /// Hints that something may be wrong with the labels; they are no diagnosis.
    pub warnings: Vec<LabelWarning>,
    /// Every label that is written, those with no voxel too.
    pub labels: Vec<LabelCount>,
}

/// Seconds of a case by stage, which add up to `total`; what a case waits for others is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Reading its files.
    pub read: f64,
    /// Cropping, resampling, normalising.
    pub preprocess: f64,
    /// Windows through the network, planes restored meanwhile included.
    pub windows: f64,
    /// What was left to restore.
    pub export: f64,
    /// Writing the labelmap.
    pub write: f64,
    /// All of them.
    pub total: f64,
}

impl Seconds {
    /// Of one case.
    pub fn new(read: f64, timings: &Timings, write: f64) -> Self {
        let (preprocess, windows) = (timings.preprocess_secs, timings.windows_secs);
        let export = timings.export_secs;
        let total = read + preprocess + windows + export + write;
        Self { read, preprocess, windows, export, write, total }
    }
}

impl std::ops::AddAssign for Seconds {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.preprocess += other.preprocess;
        self.windows += other.windows;
        self.export += other.export;
        self.write += other.write;
        self.total += other.total;
    }
}

/// How much of a label there is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelCount {
    /// Its value in the labelmap.
    pub value: u16,
    /// Its name.
    pub name: String,
    /// Voxels of that value.
    pub voxels: u64,
    /// Their volume in millilitres.
    pub volume_ml: f64,
    /// How sure they are, where that was asked for and there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Sureness>,
}

/// The confidence of a label's voxels, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sureness {
    /// On average.
    pub mean: f64,
    /// Share of voxels below one half.
    pub below_half: f64,
}

impl Report {
    /// An empty report.
    pub fn new() -> Self {
        Self {
            format: PREDICT_REPORT,
            version: 2,
            stunet: env!("CARGO_PKG_VERSION"),
            device: None,
            model: None,
            part: None,
            summary: None,
            cases: Vec::new(),
            passed_over: Vec::new(),
        }
    }

    /// Number of cases of a status.
    pub fn count(&self, status: Status) -> usize {
        self.cases.iter().filter(|case| case.status == status).count()
    }

    /// Adds a case that failed.
    pub fn fail(&mut self, case: CaseReport, error: &anyhow::Error) {
        self.cases.push(CaseReport { error: Some(failure::describe(error)), ..case });
    }

    /// Sums up the cases.
    pub fn sum_up(&mut self, wall_secs: f64, peak_memory_bytes: Option<u64>) {
        let mut seconds = Seconds::default();
        let results = || self.cases.iter().filter_map(|case| case.result.as_ref());
        results().for_each(|result| seconds += result.seconds);
        let voxels = results().map(|result| result.voxels).sum();
        self.summary = Some(Summary {
            predicted: self.count(Status::Predicted),
            skipped: self.count(Status::Skipped),
            failed: self.count(Status::Failed),
            seconds,
            wall_secs,
            voxels,
            voxels_per_sec: voxels as f64 / wall_secs.max(1e-9),
            peak_memory_bytes,
        });
    }

    /// Writes the report atomically.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let made = folder.map_or(Ok(()), std::fs::create_dir_all);
        made.with_context(|| format!("cannot write the report {}", path.display()))?;
        Ok(files::save_json(path, self)?)
    }
}

/// Counts the voxels of every label that was measured, and averages their confidence.
pub fn count_labels(
    labelmap: &CompactLabelMap,
    labels: &LabelSet,
    measured: &CaseStatistics,
    confidence: Option<&Array3<u8>>,
) -> Vec<LabelCount> {
    let mut counts = vec![Count::default(); usize::from(u16::MAX) + 1];
    match confidence {
        None => {
            let mut background = labelmap.geometry.shape().iter().product::<usize>() as u64;
            for label in &measured.labels {
                counts[usize::from(label.label)].voxels = label.voxels;
                background -= label.voxels;
            }
            counts[0].voxels = background;
        }
        Some(confidence) => {
            for (value, sure) in labelmap.voxels.iter().zip(confidence) {
                let count = &mut counts[usize::from(value)];
                count.voxels += 1;
                count.sum += u64::from(*sure);
                count.low += u64::from(*sure < 128);
            }
        }
    }
    let millilitres = labelmap.geometry.voxel_volume_mm3() / 1000.0;
    let is_measured = |value: u16| measured.labels.iter().any(|label| label.label == value);
    labels
        .painted()
        .into_iter()
        .filter(|(value, _)| *value == 0 || is_measured(*value))
        .map(|(value, name)| {
            let Count { voxels, sum, low } = counts[usize::from(value)];
            let share = |part: u64| part as f64 / voxels as f64;
            let sure = Sureness { mean: share(sum) / 255.0, below_half: share(low) };
            let confidence = confidence.filter(|_| voxels > 0).map(|_| sure);
            let volume_ml = voxels as f64 * millilitres;
            LabelCount { value, name: name.to_owned(), voxels, volume_ml, confidence }
        })
        .collect()
}

#[derive(Clone, Copy, Default)]
struct Count {
    voxels: u64,
    sum: u64,
    low: u64,
}
