//! `stunet preprocess`: preprocesses the cases of a planned dataset for training.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use serde::Serialize;
use stunet::data::dataset::{RawDataset, TrainingCaseFiles};
use stunet::data::plans::Plans;
use stunet::data::store::{
    FillEvent, FillOptions, FillReport, Outcome, Place, digest, fill, move_out, suffix,
};
use stunet::data::{files, formats};

use crate::args::PreprocessArgs;
use crate::failure::{self, Interrupted, Told};
use crate::folders;
use crate::forgiven::forgiven_of;
use crate::interrupt;
use crate::jobs::check_writable;
use crate::machine;
use crate::output;
use crate::places::{self, Output};
use crate::planned::{self, PlannedConfiguration};
use crate::progress::CaseBar;
use crate::report::{self, PassedOverReport, passed_over, tell_passed_over};

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
    #[serde(serialize_with = "report::path")]
    folder: PathBuf,
    digest: String,
    interrupted: bool,
    notes: Vec<String>,
    passed_over: Vec<PassedOverReport>,
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
    /// Where the cases go, and where earlier versions put them.
    place: Place,
}

/// Checks the dataset, prepares every case that is not finished, and tells how each ended.
pub fn run(args: &PreprocessArgs) -> anyhow::Result<()> {
    let job = Job::new(args)?;
    job.check_places()?;
    if !args.quiet {
        tell_passed_over(job.dataset.folder(), job.dataset.passed_over());
    }
    check_writable(&job.place.own.join("store.json"))?;
    check_own(&job.place)?;
    if !args.no_check {
        // Nothing is written yet: Ctrl-C may end the program as it likes.
        check(args, &job.dataset)?;
    }
    interrupt::watch(args.quiet || args.json, "step")?;
    let moved = move_out(&job.place)?;
    let done = prepare(args, &job)?;
    for (case, error) in done.failures() {
        output::complain(&format!("{case}: {}", failure::describe(&anyhow::anyhow!("{error}"))));
    }
    let failed = done.failures().count();
    let interrupted = done.interrupted;
    if !interrupted {
        copy_labels(&job, &done)?;
    }
    let report = Report::new(args, &job, done, moved);
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
        let (given, wanted) = (&args.dataset, args.plans.as_deref());
        let (raw, folder) = match planned::plans_in(given, wanted) {
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
                let folder = args.output.clone();
                (given.clone(), folder.unwrap_or_else(|| folders::preprocessed_of(given)))
            }
        };
        let dataset = RawDataset::open(&raw)?.forgiving(args.forgive.leniency());
        let name = planned::plans_in(&folder, wanted).with_context(|| {
            let expected = planned::expected(wanted);
            format!("{expected}; run `stunet plan {}` first: {}", raw.display(), folder.display())
        })?;
        let json = || Ok(dataset.json().clone());
        let planned = PlannedConfiguration::read(&folder, &name, &args.configuration, json)?;
        planned::check_descriptions(&raw, dataset.info(), &folder)?;
        let place = planned.place()?;
        // nnU-Net opens the files with the reader of the plans.
        let dataset = dataset.read_by(planned.plans.reader);
        Ok(Self { dataset, plans: planned.plans, place })
    }

    /// No prepared case and no copied label may replace a file of the dataset.
    fn check_places(&self) -> anyhow::Result<()> {
        let cases = self.dataset.cases();
        let stored = cases.iter().map(|case| format!("{}{}", case.name, suffix()));
        let stored = ["store.json".to_owned()].into_iter().chain(stored);
        let stored = stored.map(|name| Output::new("the prepared case", self.place.own.join(name)));
        let copied = cases.iter().filter_map(|case| {
            let target = self.copy_of(case);
            // It stays as it is.
            let same = places::are_one(&case.labels, &target);
            (!same).then(|| Output::new(format!("the labels of case {}", case.name), target))
        });
        places::check(self.dataset.files(), stored.chain(copied))
    }

    /// Where the labels of a case are copied to.
    fn copy_of(&self, case: &TrainingCaseFiles) -> PathBuf {
        let home = self.place.own.parent().unwrap_or(Path::new(".")).join(LABELS);
        home.join(format!("{}{}", case.name, self.dataset.info().file_ending))
    }
}

/// nnU-Net's folder for another configuration may be named as the store's would be.
fn check_own(place: &Place) -> anyhow::Result<()> {
    let foreign = |path: &Path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| ["npz", "npy", "b2nd", "pkl"].contains(&ending))
    };
    let entries = fs::read_dir(&place.own).into_iter().flatten().flatten();
    if let Some(found) = entries.map(|entry| entry.path()).find(|path| foreign(path)) {
        anyhow::bail!(
            "expected a folder for prepared cases, found files of nnU-Net in it (give the \
             configuration another data_identifier): {}",
            found.display()
        );
    }
    Ok(())
}

/// Reads every case; each problem is told in a line of its own.
fn check(args: &PreprocessArgs, dataset: &RawDataset) -> anyhow::Result<()> {
    let progress = CaseBar::new(format!("checking {}", dataset.name()), args.quiet);
    let (done, total) = (AtomicUsize::new(0), dataset.cases().len());
    progress.count(0, total, "cases");
    let needs = super::plan::dataset_needs(dataset);
    let pool = machine::pool(None, machine::cases_at_a_time(needs)?)?;
    let problems = pool.install(|| {
        dataset.check(&|_| {
            progress.count(done.fetch_add(1, Ordering::Relaxed) + 1, total, "cases");
        })
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
        limit_bytes: machine::allowed(None).unwrap_or(u64::MAX),
        redo: args.redo,
    };
    let progress = CaseBar::new(job.dataset.name(), args.quiet);
    progress.count(0, job.dataset.cases().len(), "cases");
    let sources = (job.dataset.info(), job.dataset.cases());
    let done = fill(&job.place.own, &job.plans, sources, &options, &|event| {
        if let FillEvent::Done { done, total, .. } = event {
            progress.count(done, total, "cases");
        }
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(done)
}

/// Copies the labels beside the cases, as nnU-Net does: evaluating needs no raw dataset then.
fn copy_labels(job: &Job, done: &FillReport) -> anyhow::Result<()> {
    let home = job.place.own.parent().unwrap_or(Path::new(".")).join(LABELS);
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let copies: Vec<PathBuf> = job.dataset.cases().iter().map(|case| job.copy_of(case)).collect();
    files::sweep(copies.iter().map(PathBuf::as_path));
    for case in job.dataset.cases() {
        if done.failures().any(|(name, _)| name == case.name) {
            continue;
        }
        // Of a header and its voxels, both.
        for source in formats::files_of(&case.labels) {
            let target = match source == case.labels {
                true => job.copy_of(case),
                false => home.join(source.file_name().unwrap_or_default()),
            };
            if !is_copy(&source, &target) && !same_bytes(&source, &target)? {
                copy(&source, &target)
                    .with_context(|| format!("cannot write {}", target.display()))?;
            }
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

/// Whether a copy is one but for its time, which need not have been copied by whoever made it.
fn same_bytes(source: &Path, target: &Path) -> anyhow::Result<bool> {
    let Ok(to) = fs::metadata(target) else { return Ok(false) };
    let compare = || -> io::Result<bool> {
        let mut from = File::open(source)?;
        if from.metadata()?.len() != to.len() {
            return Ok(false);
        }
        let mut to = File::open(target)?;
        let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            let read = from.read(&mut a)?;
            to.read_exact(&mut b[..read])?;
            if read == 0 || a[..read] != b[..read] {
                return Ok(read == 0);
            }
        }
    };
    compare().with_context(|| format!("cannot compare with its copy: {}", source.display()))
}

impl Report {
    fn new(args: &PreprocessArgs, job: &Job, done: FillReport, moved: bool) -> Self {
        let moved = moved.then(|| {
            let from = job.place.nnunet.display();
            format!("cases of an earlier version were moved out of nnU-Net's folder {from}")
        });
        let notes = job.dataset.notes().iter().chain(&job.plans.notes).cloned().chain(moved);
        let notes = notes.chain(forgiven_of(&job.dataset));
        Self {
            format: "stunet-preprocess-report",
            version: 1,
            dataset: job.dataset.name(),
            configuration: args.configuration.clone(),
            folder: job.place.own.clone(),
            digest: digest(&job.plans, &job.dataset.info().labels),
            interrupted: done.interrupted,
            notes: notes.collect(),
            passed_over: passed_over(job.dataset.passed_over()),
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
