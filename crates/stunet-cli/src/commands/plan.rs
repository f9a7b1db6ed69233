//! `stunet plan`: from a raw dataset to fingerprint, plans and folds, in nnU-Net's own files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::Value;
use stunet::data::DataError;
use stunet::data::compare::differences;
use stunet::data::dataset::RawDataset;
use stunet::data::files;
use stunet::data::fingerprint::{Fingerprint, IgnoredVoxels};
use stunet::data::nifti::Reader;
use stunet::data::planner::{self, PlanOptions, PlanSummary, Planned};
use stunet::data::plans::TrainedOrientation;
use stunet::data::reference::{FileFormat, Reference};
use stunet::data::splits::{Fold, NUM_FOLDS, Splits};
use stunet::model::weights::pickle::Value as Pickle;
use stunet::model::weights::writer::write_pickle;

use crate::args::PlanArgs;
use crate::failure::Told;
use crate::folders;
use crate::forgiven::forgiven_of;
use crate::jobs::check_writable;
use crate::machine;
use crate::orientation::of_images;
use crate::output;
use crate::places::{self, Output};
use crate::progress::CaseBar;
use crate::report::{self, PassedOverReport, passed_over, tell_passed_over};

/// The plans of version 1, without ending.
const V1_PLANS: &str = "nnUNetPlansv2.1_plans_3D";
/// The folds, in either version's file.
const SPLITS: &str = "splits_final.json";
const V1_SPLITS: &str = "splits_final.pkl";
/// The measurements, in version 2's file.
const FINGERPRINT: &str = "dataset_fingerprint.json";
/// The same of version 1.
const V1_PROPERTIES: &str = "dataset_properties.pkl";

/// What was planned and written; printed by `--json`.
#[derive(Debug, Serialize)]
struct Report {
    dataset: String,
    cases: usize,
    channels: Vec<String>,
    /// How the axes of the images run.
    orientation: Option<TrainedOrientation>,
    #[serde(serialize_with = "report::path")]
    output: PathBuf,
    files: Vec<String>,
    configurations: Vec<Configuration>,
    notes: Vec<String>,
    passed_over: Vec<PassedOverReport>,
}

/// The plan of one configuration, as STU-Net uses it.
#[derive(Debug, Serialize)]
struct Configuration {
    name: String,
    spacing_mm: [f64; 3],
    median_shape: Vec<f64>,
    patch_size: [usize; 3],
    batch_size: usize,
    strides: Vec<[usize; 3]>,
    poolings_planned: usize,
}

/// Checks the dataset, measures it, plans, and writes.
pub fn run(args: &PlanArgs) -> anyhow::Result<()> {
    let mut dataset = RawDataset::open(&args.dataset)?.forgiving(args.forgive.leniency());
    let reference = Reference::from(args.rules);
    let format = reference.conventions().files;
    if format == FileFormat::V1 {
        // Version 1 has one reader for all datasets.
        dataset = dataset.read_by(Reader::SimpleItk);
    }
    let out = args.output.clone().unwrap_or_else(|| folders::preprocessed_of(dataset.folder()));
    check_options(args, format)?;
    check_places(args, &dataset, &out)?;
    check_writable(&out.join("dataset.json"))?;
    if !args.quiet {
        tell_passed_over(&args.dataset, dataset.passed_over());
    }
    let fingerprint = match &args.fingerprint {
        Some(path) => Fingerprint::load(path)?,
        None => measure(args, &dataset, reference)?,
    };
    let planned = plan(args, &dataset, &fingerprint, reference)?;
    let summaries = planned.summaries()?;
    let folds = Folds::choose(&dataset, &out)?;
    let writer = Writer {
        dataset: &dataset,
        fingerprint: &fingerprint,
        fingerprint_is_there: fingerprint_is_there(args, &out),
        planned: &planned,
        splits: folds.splits.as_ref(),
        plans_name: &args.plans_name,
        out: &out,
    };
    let replaced = writer.replaced(reference)?;
    let files = writer.write(reference)?;
    let notes = planned.notes().iter().cloned().chain(folds.note).chain(replaced);
    let notes = notes.chain(ignored_note(args, &dataset)).chain(forgiven_of(&dataset)).collect();
    let report = Report {
        dataset: dataset.name(),
        cases: dataset.cases().len(),
        channels: dataset.info().channel_names.clone(),
        orientation: planned.orientation(),
        output: out,
        files,
        configurations: summaries.into_iter().map(Configuration::from).collect(),
        notes,
        passed_over: passed_over(dataset.passed_over()),
    };
    match (args.json, args.quiet) {
        (true, _) => output::json(&report),
        (_, true) => Ok(()),
        _ => print(&report),
    }
}

/// What voxels of the ignore label were to the intensities, where there is such a label.
fn ignored_note(args: &PlanArgs, dataset: &RawDataset) -> Option<String> {
    let label = dataset.info().labels.ignore();
    match (label, args.leave_out_ignored, &args.fingerprint) {
        (None, false, _) | (Some(_), false, Some(_)) => None,
        (None, true, _) => {
            Some("--leave-out-ignored changes nothing: the dataset has no ignore label".to_owned())
        }
        (Some(label), true, _) => Some(format!(
            "voxels of the ignore label {label} are left out of the intensities of the foreground, in which \
             nnU-Net counts them"
        )),
        (Some(label), false, None) => Some(format!(
            "voxels of the ignore label {label} count in the intensities of the foreground, as in nnU-Net; \
             --leave-out-ignored leaves them out"
        )),
    }
}

fn check_options(args: &PlanArgs, format: FileFormat) -> anyhow::Result<()> {
    ensure!(
        files::is_plain_name(&args.plans_name),
        "--plans-name: expected a name, found `{}`",
        args.plans_name
    );
    ensure!(
        args.fingerprint.is_none() || format == FileFormat::V2,
        "--fingerprint: expected the rules of v2, whose file it is, found --rules v1"
    );
    Ok(())
}

fn plan(
    args: &PlanArgs,
    dataset: &RawDataset,
    fingerprint: &Fingerprint,
    reference: Reference,
) -> anyhow::Result<Planned> {
    let options = PlanOptions {
        memory_gb: args.memory,
        plans_name: args.plans_name.clone(),
        spacing_mm: args.spacing.as_ref().map(|s| [s[0], s[1], s[2]]),
        ..PlanOptions::new(reference)
    };
    planner::plan(dataset, fingerprint, &options).map_err(|error| {
        let error = error.at_if_about("dataset.json", &dataset.folder().join("dataset.json"));
        match &args.fingerprint {
            Some(path) => error.at_if_about("fingerprint", path).into(),
            None => error.into(),
        }
    })
}

/// No file of the plan may be one of the dataset's, or two of its own.
fn check_places(args: &PlanArgs, dataset: &RawDataset, out: &Path) -> anyhow::Result<()> {
    let there = fingerprint_is_there(args, out);
    let fingerprint = args.fingerprint.iter().filter(|_| !there).cloned();
    let splits = dataset.folder().join(SPLITS);
    let inputs = dataset.files().chain(fingerprint).chain(splits.is_file().then_some(splits));
    let v1 = Reference::from(args.rules).conventions().files == FileFormat::V1;
    let plans = if v1 { V1_PLANS } else { &args.plans_name };
    let (plans, pickled) = (format!("{plans}.json"), format!("{plans}.pkl"));
    let own: &[&str] = match there {
        _ if v1 => &[V1_SPLITS, V1_PROPERTIES, &pickled],
        true => &[],
        false => &[FINGERPRINT],
    };
    // Folds that are there are never touched.
    let kept = |name: &&str| name.starts_with("splits_final.") && out.join(name).exists();
    let names = ["dataset.json", SPLITS].into_iter().chain(own.iter().copied());
    let outputs = Output::in_folder("--output", out, names.filter(|name| !kept(name)));
    places::check(inputs, outputs.chain([Output::new("--plans-name", out.join(plans))]))
}

/// Whether the fingerprint to take lies where it would be written: it stays as it is then.
fn fingerprint_is_there(args: &PlanArgs, out: &Path) -> bool {
    args.fingerprint.as_ref().is_some_and(|path| places::are_one(path, &out.join(FINGERPRINT)))
}

/// What reading each case takes; a case whose header cannot be read is told when it is its turn.
pub(super) fn dataset_needs(dataset: &RawDataset) -> impl Iterator<Item = (u64, &Path)> {
    dataset.cases().iter().filter_map(|case| {
        Some((case.memory_bytes(dataset.info()).ok()?, case.images.first()?.as_path()))
    })
}

/// Reads every case; each problem is told in a line of its own.
fn measure(
    args: &PlanArgs,
    dataset: &RawDataset,
    reference: Reference,
) -> anyhow::Result<Fingerprint> {
    let progress = CaseBar::new(dataset.name(), args.quiet);
    let (done, total) = (AtomicUsize::new(0), dataset.cases().len());
    let on_case = |_: &str| {
        progress.count(done.fetch_add(1, Ordering::Relaxed) + 1, total, "cases");
    };
    let pool = machine::pool(None, machine::cases_at_a_time(dataset_needs(dataset))?)?;
    let ignored = match args.leave_out_ignored {
        true => IgnoredVoxels::LeftOut,
        false => IgnoredVoxels::Foreground,
    };
    let measured = pool.install(|| Fingerprint::measure_of(dataset, reference, ignored, &on_case));
    drop(progress);
    match measured {
        Err(DataError::BadCases(problems)) => {
            for problem in problems {
                output::complain(&problem.to_string());
            }
            Err(Told.into())
        }
        measured => Ok(measured?),
    }
}

/// The folds to use, and whether they are new.
struct Folds {
    splits: Option<Splits>,
    note: Option<String>,
}

impl Folds {
    /// Those that are there, the dataset's own, or five new ones. Checked before anything is
    /// written.
    fn choose(dataset: &RawDataset, out: &Path) -> anyhow::Result<Self> {
        let names = dataset.case_names();
        let given = [
            (out.join(SPLITS), "was there and is kept"),
            (dataset.folder().join(SPLITS), "is the dataset's own"),
        ];
        if let Some((path, what)) = given.into_iter().find(|(path, _)| path.exists()) {
            let splits = Splits::load(&path)?;
            let mut note = format!("{SPLITS} {what}");
            for fold in 0..splits.folds().len() {
                let split = splits.fold(Fold::Number(fold), &names).map_err(|e| e.at(&path))?;
                if let Some(both) = split.note() {
                    note.push_str(&format!("; fold {fold}: {both}"));
                }
            }
            return Ok(Self { splits: Some(splits), note: Some(note) });
        }
        if names.len() < NUM_FOLDS {
            let note = format!("fewer than {NUM_FOLDS} cases: no folds, train on fold all");
            return Ok(Self { splits: None, note: Some(note) });
        }
        Ok(Self { splits: Some(Splits::five_fold(&names)?), note: None })
    }
}

/// What is written, and where.
struct Writer<'a> {
    dataset: &'a RawDataset,
    fingerprint: &'a Fingerprint,
    /// It was read from where it would be written.
    fingerprint_is_there: bool,
    planned: &'a Planned,
    splits: Option<&'a Splits>,
    plans_name: &'a str,
    out: &'a Path,
}

impl Writer<'_> {
    /// What plans that are there say otherwise, such as entries that were edited: they are planned
    /// anew, as nnU-Net does, but not without a word.
    fn replaced(&self, reference: Reference) -> anyhow::Result<Option<String>> {
        let (name, entry) = match reference.conventions().files {
            FileFormat::V1 => (format!("{V1_PLANS}.json"), "plans_per_stage"),
            FileFormat::V2 => (format!("{}.json", self.plans_name), "configurations"),
        };
        let Ok(old) = files::read_json::<Value>(&self.out.join(&name)) else { return Ok(None) };
        let of = |json: &Value| json.get(entry).and_then(Value::as_object).cloned();
        let (mut old, new) = (of(&old).unwrap_or_default(), of(self.planned.json()));
        let new = new.unwrap_or_default();
        // Configurations of one's own are kept.
        old.retain(|name, _| new.contains_key(name));
        let found = differences(&old, &new)?;
        Ok((!found.is_empty()).then(|| {
            format!(
                "{name} was there and is replaced: {}",
                found.told("the old plans", "the new ones")
            )
        }))
    }

    /// Writes everything and returns the names, the plans last: whoever finds them finds the rest.
    fn write(&self, reference: Reference) -> anyhow::Result<Vec<String>> {
        fs::create_dir_all(self.out)
            .with_context(|| format!("cannot make the folder {}", self.out.display()))?;
        let format = reference.conventions().files;
        let mut files = Vec::new();
        let mut file = |name: &str| {
            files.push(name.to_owned());
            self.out.join(name)
        };
        self.dataset.save_json(&file("dataset.json"), reference)?;
        if let Some(splits) = self.splits {
            // Folds that are there are never touched.
            if !self.out.join(SPLITS).exists() {
                splits.save(&file(SPLITS))?;
            }
            if format == FileFormat::V1 && !self.out.join(V1_SPLITS).exists() {
                write_pickle(&file(V1_SPLITS), &Pickle::from_json(&serde_json::to_value(splits)?))?;
            }
        }
        if format == FileFormat::V1 {
            let properties = self.fingerprint.to_v1_json(self.dataset.info());
            let pickle = Pickle::from_json_int_keys;
            write_pickle(&file(V1_PROPERTIES), &pickle(&properties))?;
            self.planned.save(&file(&format!("{V1_PLANS}.json")))?;
            write_pickle(&file(&format!("{V1_PLANS}.pkl")), &pickle(&self.planned.content()))?;
        } else {
            if !self.fingerprint_is_there {
                self.fingerprint.save(&file(FINGERPRINT))?;
            }
            self.planned.save(&file(&format!("{}.json", self.plans_name)))?;
        }
        Ok(files)
    }
}

fn print(report: &Report) -> anyhow::Result<()> {
    let channels = report.channels.join(", ");
    let run = report.orientation.map(|of| format!(", whose axes run {}", of_images(of)));
    let run = run.unwrap_or_default();
    output::line(&format!("{}: {} cases of {channels}{run}", report.dataset, report.cases))?;
    for c in &report.configurations {
        output::line("")?;
        output::line(&c.name)?;
        let row = |what: &str, value: String| output::line(&format!("  {what:<26}{value}"));
        row("spacing, z × y × x", format!("{} mm", joined(c.spacing_mm)))?;
        row("median image", format!("{} voxels", joined(c.median_shape.iter().copied())))?;
        row("patch", format!("{} voxels", voxels(c.patch_size)))?;
        row("batch", c.batch_size.to_string())?;
        let strides: Vec<String> = c.strides.iter().copied().map(voxels).collect();
        row("strides of the 5 stages", strides.join(", "))?;
    }
    output::line("")?;
    for note in &report.notes {
        output::line(&format!("note: {note}"))?;
    }
    output::line(&format!("{}: {}", report.files.join(", "), report.output.display()))
}

/// Numbers as `3 × 0.8 × 0.8`, without digits that nobody measured.
fn joined(values: impl IntoIterator<Item = f64>) -> String {
    let text = |value: f64| ((value * 1e4).round() / 1e4).to_string();
    values.into_iter().map(text).collect::<Vec<_>>().join(" × ")
}

fn voxels(lengths: [usize; 3]) -> String {
    joined(lengths.map(|n| n as f64))
}

impl From<PlanSummary> for Configuration {
    fn from(summary: PlanSummary) -> Self {
        let plans = summary.plans;
        Self {
            name: summary.configuration,
            spacing_mm: plans.spacing_mm,
            median_shape: summary.median_shape,
            patch_size: plans.patch_size,
            batch_size: plans.batch_size,
            strides: plans.strides,
            poolings_planned: summary.num_poolings,
        }
    }
}
