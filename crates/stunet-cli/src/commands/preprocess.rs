//! `stunet preprocess`: the cases of a planned dataset, ready for training.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::Value;
use stunet::data::dataset::RawDataset;
use stunet::data::files;
use stunet::data::plans::Plans;
use stunet::data::store::{FillEvent, FillOptions, FillReport, Outcome, digest, fill};

use crate::args::PreprocessArgs;
use crate::failure::{self, Interrupted, Told};
use crate::folders;
use crate::interrupt;
use crate::jobs::check_writable;
use crate::machine;
use crate::output;
use crate::progress::Progress;

/// Names of plans that are looked for, and where `stunet plan` writes them.
const PLANS: [&str; 2] = ["nnUNetPlans", "nnUNetPlansv2.1_plans_3D"];
/// The folder of copied labels.
const LABELS: &str = "gt_segmentations";
/// Memory to count with where the system does not say what is free.
const UNKNOWN_MEMORY: u64 = 8 << 30;

/// What was done; printed by `--json`.
#[derive(Debug, Serialize)]
struct Report {
    format: &'static str,
    version: u32,
    dataset: String,
    configuration: String,
    folder: PathBuf,
    digest: String,
    interrupted: bool,
    notes: Vec<String>,
    cases: Vec<CaseReport>,
}

/// What became of a case.
#[derive(Debug, Serialize)]
struct CaseReport {
    name: String,
    /// `written`, `kept` or `failed`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<[usize; 4]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Where everything is, and how it is prepared.
struct Job {
    dataset: RawDataset,
    plans: Plans,
    /// The folder of the cases.
    folder: PathBuf,
}

/// Checks the dataset, prepares every case that is not finished, and tells how each ended.
pub fn run(args: &PreprocessArgs) -> anyhow::Result<()> {
    let job = Job::new(args)?;
    check_writable(&job.folder.join("store.json"))?;
    if !args.no_check {
        // Nothing is written yet: Ctrl-C may end the program as it likes.
        check(args, &job.dataset)?;
    }
    interrupt::watch(args.quiet || args.json, "step")?;
    let done = prepare(args, &job)?;
    for (case, error) in done.failures() {
        output::complain(&format!("{case}: {}", failure::describe(&anyhow::anyhow!("{error}"))));
    }
    let failed = done.failures().count();
    let interrupted = done.interrupted;
    if !interrupted {
        copy_labels(&job, &done)?;
    }
    let report = Report::new(args, &job, done);
    match (args.json, args.quiet) {
        (true, _) => output::json(&report)?,
        (_, true) => {}
        _ => print(&report)?,
    }
    match (interrupted, failed) {
        (true, _) => Err(Interrupted.into()),
        (_, 0) => Ok(()),
        _ => Err(Told.into()),
    }
}

impl Job {
    fn new(args: &PreprocessArgs) -> anyhow::Result<Self> {
        let given = &args.dataset;
        let (raw, planned) = match plans_in(given, args) {
            Some(_) => {
                let raw = args.raw.clone().unwrap_or_else(|| folders::raw_of(given));
                ensure!(
                    raw.is_dir(),
                    "expected the raw dataset, found no such folder (see --raw): {}",
                    raw.display()
                );
                (raw, given.clone())
            }
            None => {
                let planned = args.output.clone();
                (given.clone(), planned.unwrap_or_else(|| folders::preprocessed_of(given)))
            }
        };
        let dataset = RawDataset::open(&raw)?;
        let name = plans_in(&planned, args).with_context(|| {
            let expected = args.plans.as_deref().unwrap_or(PLANS[0]);
            format!(
                "expected {expected}.json, found none; run `stunet plan {}` first: {}",
                raw.display(),
                planned.display()
            )
        })?;
        let (plans, identifier) = read_plans(&planned, &name, args, &dataset)?;
        // nnU-Net opens the files with the reader of the plans.
        let dataset = dataset.read_by(plans.reader);
        Ok(Self { dataset, plans, folder: planned.join(identifier) })
    }
}

/// Name of the plans that a folder has.
fn plans_in(folder: &Path, args: &PreprocessArgs) -> Option<String> {
    let there = |name: &&str| folder.join(format!("{name}.json")).is_file();
    let found = match &args.plans {
        Some(name) => Some(name.as_str()).filter(there),
        None => PLANS.into_iter().find(there),
    };
    found.map(str::to_owned)
}

/// The plans of a configuration, and the name of the folder for its cases.
fn read_plans(
    folder: &Path,
    name: &str,
    args: &PreprocessArgs,
    dataset: &RawDataset,
) -> anyhow::Result<(Plans, String)> {
    let path = folder.join(format!("{name}.json"));
    let json: Value = files::read_json(&path)?;
    let configuration = &args.configuration;
    let plans = if let Some(known) = json.get("configurations").and_then(Value::as_object) {
        ensure!(
            known.contains_key(configuration),
            "configuration: expected one of {}, found {configuration}: {}",
            known.keys().cloned().collect::<Vec<_>>().join(", "),
            path.display()
        );
        Plans::from_v2_json(&json, dataset.json(), configuration).map_err(|e| e.at(&path))?
    } else {
        let plans = match json.get("format").is_some() {
            true => Plans::load(&path)?,
            false => Plans::from_v1_json(&json).map_err(|e| e.at(&path))?,
        };
        ensure!(
            plans.configuration == *configuration,
            "configuration: expected {}, found {configuration}: {}",
            plans.configuration,
            path.display()
        );
        plans
    };
    let entry = json["configurations"][configuration]["data_identifier"].as_str();
    let identifier = entry.map_or_else(|| format!("{name}_{configuration}"), str::to_owned);
    ensure!(
        !identifier.is_empty() && !identifier.contains(['/', '\\']) && identifier != "..",
        "data_identifier: expected the name of a folder, found {identifier:.60}: {}",
        path.display()
    );
    Ok((plans, identifier))
}

/// Reads every case; each problem is told in a line of its own.
fn check(args: &PreprocessArgs, dataset: &RawDataset) -> anyhow::Result<()> {
    let progress = Progress::new(format!("checking {}", dataset.name()), args.quiet);
    let (done, total) = (AtomicUsize::new(0), dataset.cases().len());
    progress.count(0, total, "cases");
    let problems = dataset.check(&|_| {
        progress.count(done.fetch_add(1, Ordering::Relaxed) + 1, total, "cases");
    });
    drop(progress);
    for problem in &problems {
        output::complain(&failure::describe(&anyhow::anyhow!("{problem}")));
    }
    if problems.is_empty() { Ok(()) } else { Err(Told.into()) }
}

fn prepare(args: &PreprocessArgs, job: &Job) -> anyhow::Result<FillReport> {
    let defaults = FillOptions::default();
    let half = || machine::free_memory().map_or(UNKNOWN_MEMORY, |free| free / 2);
    let options = FillOptions {
        num_workers: args.num_workers.unwrap_or(defaults.num_workers),
        memory_bytes: args.memory.map_or_else(half, |gigabytes| (gigabytes * 1e9) as u64),
        redo: args.redo,
    };
    let progress = Progress::new(job.dataset.name(), args.quiet);
    progress.count(0, job.dataset.cases().len(), "cases");
    let sources = (job.dataset.info(), job.dataset.cases());
    let done = fill(&job.folder, &job.plans, sources, &options, &|event| {
        if let FillEvent::Done { done, total, .. } = event {
            progress.count(done, total, "cases");
        }
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(done)
}

/// Copies the labels beside the cases, as nnU-Net does: evaluating needs no raw dataset then.
fn copy_labels(job: &Job, done: &FillReport) -> anyhow::Result<()> {
    let home = job.folder.parent().unwrap_or(Path::new(".")).join(LABELS);
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    for case in job.dataset.cases() {
        if done.failures().any(|(name, _)| name == case.name) {
            continue;
        }
        let target = home.join(format!("{}{}", case.name, job.dataset.info().file_ending));
        if !is_copy(&case.labels, &target) {
            copy(&case.labels, &target)
                .with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}

/// Copies a file's bytes and its time, by which [`is_copy`] knows it again.
fn copy(source: &Path, target: &Path) -> io::Result<()> {
    let mut from = File::open(source)?;
    let mut to = files::unfinished(target)?;
    io::copy(&mut from, &mut to)?;
    // Where the file system keeps no times, labels are copied anew each time.
    let _ = from.metadata().and_then(|of| to.as_file().set_modified(of.modified()?));
    files::finish(to, target)
}

/// Whether a file is as long as its source and of the same time.
///
/// Not "no older": a source may come back from a backup, and clocks tick coarsely.
fn is_copy(source: &Path, target: &Path) -> bool {
    let state = |path| {
        let of = fs::metadata(path).ok()?;
        Some((of.len(), of.modified().ok()?))
    };
    state(source).is_some_and(|of| state(target) == Some(of))
}

impl Report {
    fn new(args: &PreprocessArgs, job: &Job, done: FillReport) -> Self {
        let notes = job.dataset.notes().iter().chain(&job.plans.notes).cloned();
        Self {
            format: "stunet-preprocess-report",
            version: 1,
            dataset: job.dataset.name(),
            configuration: args.configuration.clone(),
            folder: job.folder.clone(),
            digest: digest(&job.plans, &job.dataset.info().labels),
            interrupted: done.interrupted,
            notes: notes.collect(),
            cases: done.cases.into_iter().map(CaseReport::from).collect(),
        }
    }

    fn count(&self, status: &str) -> usize {
        self.cases.iter().filter(|case| case.status == status).count()
    }
}

impl From<(String, Outcome)> for CaseReport {
    fn from((name, outcome): (String, Outcome)) -> Self {
        let none =
            Self { name, status: "kept", shape: None, bytes: None, seconds: None, error: None };
        match outcome {
            Outcome::Kept => none,
            Outcome::Failed(error) => {
                Self { status: "failed", error: Some(error.to_string()), ..none }
            }
            Outcome::Written { shape, bytes, seconds } => Self {
                status: "written",
                shape: Some(shape),
                bytes: Some(bytes),
                seconds: Some(seconds),
                ..none
            },
        }
    }
}

fn print(report: &Report) -> anyhow::Result<()> {
    for note in &report.notes {
        output::line(&format!("note: {note}"))?;
    }
    let bytes = report.cases.iter().filter_map(|case| case.bytes).sum();
    output::line(&format!(
        "{}: {} case(s) prepared ({}), {} kept, {} failed: {}",
        report.dataset,
        report.count("written"),
        output::bytes(bytes),
        report.count("kept"),
        report.count("failed"),
        report.folder.display()
    ))
}
