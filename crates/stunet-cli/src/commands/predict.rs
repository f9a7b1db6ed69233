//! `stunet predict`: from files to labelmaps.

mod already;
mod beside;
pub mod budget;
pub mod extras;
mod objects;
mod pictures;
mod pipeline;
pub mod region;
pub mod settings;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, ensure};
use ndarray::Array3;
use stunet::data::dicom::Source;
use stunet::data::formats;
use stunet::data::geometry::{Geometry, Orientation};
use stunet::data::image::RawImage;
use stunet::data::labels::CompactLabelMap;
use stunet::data::nifti::Opener;
use stunet::data::preprocess::memory_bytes;
use stunet::data::reference::Reference;
use stunet::device::{self, Chosen};
use stunet::infer::model::FoldReport;
use stunet::infer::{
    self, InferError, Model, OpenOptions, PredictOptions, Prediction, Prepared, Record,
};
use stunet::model::StuNetConfig;
use stunet::pictures::page::PageCase;

use crate::args::PredictArgs;
use crate::failure::{self, Interrupted, Told};
use crate::finish::Finish;
use crate::interrupt;
use crate::jobs::{Job, check_writable, jobs, remove_leftovers, writes_beside};
use crate::machine;
use crate::output;
use crate::parts::Environment;
use crate::products::Product;
use crate::progress::CaseBar;
use crate::report::{
    self, CaseReport, CaseResult, ModelReport, Report, Seconds, Status, count_labels,
    tell_passed_over,
};
use already::PendingCase;
use budget::BudgetReport;
use pipeline::{Ended, Stages, run as run_pipeline};
use region::{RegionReport, Scout};
use settings::{format_of, measure_of, settings};

/// Predicts every case that has no output yet; a bad case does not stop the others.
pub fn run(args: &PredictArgs) -> anyhow::Result<()> {
    interrupt::watch(args.quiet, "window")?;
    let chosen = device::choose(&args.device)?;
    let found = jobs(args, &Environment::read())?;
    if !args.quiet {
        tell_passed_over(&args.input[0], &found.passed_over);
    }
    if let Some(part) = found.part.as_ref().filter(|_| !args.quiet) {
        output::line(part)?;
    }
    let jobs = found.jobs;
    crate::pictures::check(&args.pictures, jobs.len())?;
    for report in args.json.iter().chain(&args.pictures.report) {
        check_writable(report)?;
    }
    // What is missing is to be written: better told before a model of gigabytes is read.
    if let Some(first) = jobs.iter().find(|job| args.overwrite || !job.output.exists()) {
        check_writable(&first.output)?;
    }
    let mut report = Report::new();
    report.passed_over = report::passed_over(&found.passed_over);
    // Opened even where every output is there: only the model tells whether they are its own.
    let session = Session::open(args, &chosen, &mut report)?;
    session.check_places(&jobs)?;
    if writes_beside(args, &jobs) {
        for line in beside::write(args, &jobs, &session.model)? {
            session.say(&format!("note: {line}"));
        }
    }
    let outcome = predict_all(&session, jobs, &mut report);
    // What was done before an interruption is told as well.
    if let Some(path) = &args.json
        && (outcome.is_ok() || !report.cases.is_empty())
    {
        report.write(path)?;
    }
    if outcome.is_ok() || !report.cases.is_empty() {
        session.write_page(&report)?;
    }
    outcome
}

fn predict_all(session: &Session<'_>, jobs: Vec<Job>, report: &mut Report) -> anyhow::Result<()> {
    remove_leftovers(&jobs);
    let already::Sorted { todo, done, foreign } =
        already::sort(session.args, (&session.records(), session.opener), jobs);
    if interrupt::asked() {
        return Err(Interrupted.into());
    }
    // Drawn from the labels that are there, where there is a labelmap of them.
    let drawable = Product::wanted(session.args).contains(&Product::Labelmap);
    let (drawn, todo): (Vec<_>, Vec<_>) =
        todo.into_iter().partition(|work| drawable && work.lacks_pictures_only());
    let there = done.into_iter().map(|job| PendingCase { job, lacks: Vec::new(), way: None });
    for work in there.chain(drawn) {
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        session.keep(work, report);
    }
    for (job, error) in foreign {
        session.failed(&job, &error);
        report.fail(session.report_of(job, Status::Failed), &error);
    }
    let clock = Instant::now();
    // Memory that is bounded holds one case at a time.
    let ahead = if session.args.max_memory.is_some() { 0 } else { 1 };
    let mut interrupted = false;
    let worked = !todo.is_empty();
    for Ended { work, outcome } in run_pipeline(session, todo, ahead) {
        match outcome {
            Ok(result) => {
                let case = session.report_of(work.job, Status::Predicted);
                report.cases.push(CaseReport { result: Some(result), ..case });
            }
            Err(error) if error.is::<Interrupted>() => interrupted = true,
            Err(error) => report.fail(session.report_of(work.job, Status::Failed), &error),
        }
    }
    let failed = report.count(Status::Failed);
    if worked || failed > 0 {
        report.sum_up(clock.elapsed().as_secs_f64(), machine::own_memory().map(|(_, peak)| peak));
        session.sum_up(report);
    }
    if !interrupted {
        session.gather()?;
    }
    match (interrupted, failed) {
        (true, _) => Err(Interrupted.into()),
        (_, 0) => session.said(),
        _ => Err(Told.into()),
    }
}

impl Session<'_> {
    /// Tells of a case whose labels are there, and draws what is missing of it.
    fn keep(&self, work: PendingCase, report: &mut Report) {
        let job = &work.job;
        self.say(&format!("{}: skipped, exists: {}", job.case.name, job.output.display()));
        match self.draw_again(&work) {
            Ok(()) => report.cases.push(self.report_of(work.job, Status::Skipped)),
            Err(error) => {
                self.failed(job, &error);
                report.fail(self.report_of(work.job, Status::Failed), &error);
            }
        }
    }
}

/// A model that is loaded once, and how it predicts.
struct Session<'a> {
    args: &'a PredictArgs,
    device: &'a Chosen,
    model: Model,
    /// The model that finds a part of the body first, if there is one.
    scout: Option<Scout>,
    /// What is done with labels.
    finish: Finish,
    /// Settings, and what makes outputs with them, but for their input: several, where the time decides.
    ways: Vec<(PredictOptions, Record)>,
    /// How scans are opened.
    opener: Opener,
    /// Orientations of scans that have been told of where the model does not say its own.
    unknown: Mutex<BTreeSet<Orientation>>,
    /// Seconds that export and writing took in the case before.
    after_secs: Mutex<Option<f64>>,
    /// Seconds of a pass over a window in the case before.
    pass_secs: Mutex<Option<f64>>,
    /// Why nothing more is said on standard output.
    unsaid: Mutex<Option<anyhow::Error>>,
    /// What the page says of cases, by their labelmap.
    pages: Mutex<BTreeMap<PathBuf, PageCase>>,
}

impl<'a> Session<'a> {
    fn open(
        args: &'a PredictArgs,
        chosen: &'a Chosen,
        report: &mut Report,
    ) -> anyhow::Result<Self> {
        let clock = Instant::now();
        let options = open_options(args, chosen)?;
        let model = {
            let _progress = CaseBar::new("loading the model".to_owned(), args.quiet);
            Model::open(&args.model, &options)?
        };
        let description = model.description();
        check_folds(args, &description.folds)?;
        let opener = model.plans().opener(args.axes.orientation)?;
        let opener = Opener { leniency: args.scan.leniency(), ..opener };
        let finish = Finish::of(&args.finish, model.labels())?;
        let scout = Scout::open(args, chosen, &model)?;
        let ways = ways(args, &model, scout.as_ref(), &finish)?;
        let size = description.config.stunet().and_then(StuNetConfig::size);
        report.device = Some(chosen.name.clone());
        report.model = Some(ModelReport {
            path: args.model.clone(),
            kind: description.kind,
            size,
            network: description.config.clone(),
            folds: description.folds.iter().map(|fold| fold.fold.clone()).collect(),
            digest: model.digest().map(str::to_owned),
            notes: description.notes.clone(),
            load_secs: clock.elapsed().as_secs_f64(),
        });
        let folds = match model.networks().len() {
            1 => String::new(),
            folds => format!(", {folds} folds"),
        };
        let classes = model.num_classes();
        let kind = words::network(&description.config);
        let line = format!("{kind}, {classes} classes{folds}, on {}", chosen.name);
        let (unknown, pass_secs, after_secs, unsaid, pages) = Default::default();
        let session = Self {
            args,
            device: chosen,
            model,
            scout,
            finish,
            ways,
            opener,
            unknown,
            after_secs,
            pass_secs,
            unsaid,
            pages,
        };
        session.say(&line);
        for note in &session.model.description().notes {
            session.say(&format!("note: {note}"));
        }
        Ok(session)
    }

    /// What may have made outputs that are there, but for their input.
    fn records(&self) -> Vec<Record> {
        self.ways.iter().map(|(_, record)| record.clone()).collect()
    }

    /// A case of the report.
    fn report_of(&self, job: Job, status: Status) -> CaseReport {
        let (input, output) = (job.inputs(), job.first_output(self.args));
        CaseReport { name: job.case.name, input, output, status, error: None, result: None }
    }

    /// Whether a single case was asked for.
    fn alone(&self) -> bool {
        let several = self.args.scan.each_file_is_a_case || self.args.scan.series.is_some();
        !several && (self.args.input.len() > 1 || !self.args.input[0].is_dir())
    }

    /// Bytes that may still be taken: what `--max-memory` leaves, or most of what is free.
    fn allowed(&self) -> Option<u64> {
        machine::allowed(self.args.max_memory)
    }

    /// Fails where the files of a case are larger than memory, before they are read.
    fn check_memory(&self, job: &Job) -> anyhow::Result<()> {
        let mut needed = 0;
        for (geometry, channels) in job.origin.grids(&job.case.files, self.opener)? {
            needed += memory_bytes(&geometry, channels, self.model.plans());
            needed += (self.scout.iter())
                .map(|scout| memory_bytes(&geometry, channels, scout.model.plans()))
                .sum::<u64>();
        }
        let allowed = self.allowed().unwrap_or(u64::MAX);
        ensure!(
            needed <= allowed,
            "memory: reading and preprocessing this case needs about {}, allowed are {}: {}",
            output::bytes(needed),
            output::bytes(allowed),
            job.inputs()[0].display()
        );
        Ok(())
    }

    /// The probabilities of a case, if they are wanted.
    fn probabilities(&self) -> Option<Product> {
        self.args.save_probabilities.map(|form| Product::Probabilities(format_of(form)))
    }

    fn predict_options(
        &self,
        work: &PendingCase,
        settings: &PredictOptions,
        record: &Record,
    ) -> anyhow::Result<PredictOptions> {
        let lacking = self.probabilities().filter(|product| work.lacks(*product));
        let path = lacking.map(|product| product.path(&work.job.output));
        if let Some(path) = &path {
            make_parent(path)?;
        }
        Ok(PredictOptions {
            save_probabilities: path,
            record: Some(record.text()),
            memory_bytes: self.allowed(),
            device_has_own_memory: self.device.backend.is_gpu(),
            device_sums_bytes: self.args.device_memory.unwrap_or(0),
            pass_secs: *self.pass_secs.lock().unwrap_or_else(PoisonError::into_inner),
            ..settings.clone()
        })
    }
}

/// A case between its stages.
struct Read {
    prepared: Prepared,
    /// The same for the model that finds a part of the body.
    coarse: Option<Prepared>,
    /// The scan, where it is needed to the end.
    scan: Option<RawImage>,
    read_secs: f64,
    /// What makes its outputs.
    record: Record,
    /// What its DICOM objects refer to.
    source: Option<Source>,
}

/// A case behind the network.
struct Predicted {
    prediction: Prediction,
    region: Option<RegionReport>,
    budget: Option<BudgetReport>,
    scan: Option<RawImage>,
    read_secs: f64,
    record: Record,
    source: Option<Source>,
}

impl Session<'_> {
    /// Writes how sure the labels are, where that is wanted and not there; returns where it is.
    fn write_confidence(
        &self,
        work: &PendingCase,
        volume: Option<&Array3<u8>>,
        geometry: &Geometry,
        record: &Record,
    ) -> anyhow::Result<Option<PathBuf>> {
        let (Some(volume), Some(measure)) = (volume, self.args.confidence) else {
            return Ok(None);
        };
        let product = Product::Confidence(measure_of(measure));
        let path = product.path(&work.job.output);
        if work.lacks(product) {
            make_parent(&path)?;
            let note = product.record(record).text();
            formats::write_bytes(&path, volume, geometry, Some(&note))?;
        }
        Ok(Some(path))
    }
}

impl Session<'_> {
    /// Writes the labels, where they are not there; returns the files.
    fn write_labelmap(
        &self,
        work: &PendingCase,
        labelmap: &CompactLabelMap,
        record: &Record,
    ) -> anyhow::Result<Vec<PathBuf>> {
        if !work.lacks(Product::Labelmap) {
            return Ok(Vec::new());
        }
        let path = &work.job.output;
        make_parent(path)?;
        let names = self.model.labels();
        formats::write_named_labelmap(path, labelmap, names, Some(&record.text()))?;
        Ok(Product::Labelmap.files(path))
    }

    /// Files of probabilities that were written.
    fn probabilities_of(&self, work: &PendingCase) -> Vec<PathBuf> {
        let lacking = self.probabilities().filter(|product| work.lacks(*product));
        lacking.map(|product| product.files(&work.job.output)).unwrap_or_default()
    }

    fn lacks_confidence(&self, work: &PendingCase) -> bool {
        let measure = self.args.confidence.map(measure_of);
        measure.is_some_and(|measure| work.lacks(Product::Confidence(measure)))
    }
}

impl Stages for Session<'_> {
    type Read = Read;
    type Predicted = Predicted;
    type Written = CaseResult;

    fn read(&self, work: &PendingCase) -> anyhow::Result<Read> {
        let job = &work.job;
        check_writable(&job.output)?;
        job.check_channels(self.model.plans().num_channels())?;
        self.check_classes(work)?;
        self.check_memory(job)?;
        let clock = Instant::now();
        let record = job.record(&self.ways[0].1, self.opener).with_input(&job.case.files)?;
        let (scan, notes) = job.origin.read(&job.case.files, self.opener)?;
        let axes = self.axes(self.model.plans().seen(&scan.geometry));
        let notes: Vec<_> = notes.into_iter().chain(axes).collect();
        let source = objects::source_of(job, &scan.geometry)?;
        let line = job.origin.line().map(|line| format!("series {line}"));
        for line in line.into_iter().chain(notes.iter().map(|note| format!("note: {note}"))) {
            self.say(&format!("{}: {line}", job.case.name));
        }
        let read_secs = clock.elapsed().as_secs_f64();
        self.check_pictures(job, (&scan.geometry, scan.num_channels()))?;
        let prepare = |model: &Model| {
            let prepared = infer::prepare_scan(model, &scan);
            prepared.map_err(|error| with_file(error, &job.inputs()[0]))
        };
        let coarse = self.scout.as_ref().map(|scout| prepare(&scout.model)).transpose()?;
        let prepared = prepare(&self.model)?;
        let measured = Product::statistics(self.args).is_some_and(|product| work.lacks(product));
        let scan = measured.then_some(scan);
        Ok(Read { prepared, coarse, scan, read_secs, record, source })
    }

    fn predict(&self, work: &PendingCase, title: String, read: Read) -> anyhow::Result<Predicted> {
        let job = &work.job;
        let Read { prepared, coarse, scan, read_secs, record, source } = read;
        let (prepared, region) = match self.scout.as_ref().zip(coarse) {
            Some((scout, coarse)) => {
                let (part, report) = self.crop(work, scout, coarse, prepared)?;
                (part, Some(report))
            }
            None => (prepared, None),
        };
        let coarse_secs = region.as_ref().map_or(0.0, |region| region.secs);
        let spent_secs = read_secs + prepared.secs + coarse_secs;
        let (way, budget) = self.way(work, &prepared, spent_secs)?;
        let (settings, of_way) = &self.ways[way];
        let record = record.with_settings(of_way);
        let options = self.predict_options(work, settings, &record)?;
        let progress = CaseBar::new(title, self.args.quiet);
        let prediction = infer::predict_prepared(&self.model, prepared, &options, &mut |event| {
            progress.on_event(event);
            self.tell_plan(job, event);
            interrupt::flow()
        });
        let prediction = prediction.map_err(|error| with_file(error, &job.inputs()[0]))?;
        let done = &prediction.report;
        let passes = done.num_windows * done.num_passes;
        let secs = done.timings.windows_secs / passes.max(1) as f64;
        *self.pass_secs.lock().unwrap_or_else(PoisonError::into_inner) = Some(secs);
        Ok(Predicted { prediction, region, budget, scan, read_secs, record, source })
    }

    fn write(&self, work: &PendingCase, predicted: Predicted) -> anyhow::Result<CaseResult> {
        let clock = Instant::now();
        let Predicted { prediction, region, budget, scan, read_secs, record, source } = predicted;
        let Prediction { mut labelmap, confidence, report, .. } = prediction;
        record.check_input()?;
        let job = &work.job;
        let finished = self.finish.apply(&mut labelmap, self.model.labels());
        let measured = self.measure(work, &labelmap, scan.as_ref(), confidence.as_ref())?;
        drop(scan);
        let geometry = labelmap.geometry.clone();
        let confidence_path =
            self.write_confidence(work, confidence.as_ref(), &geometry, &record)?;
        let labels = count_labels(&labelmap, self.model.labels(), &measured, confidence.as_ref());
        let mut written = self.write_labelmap(work, &labelmap, &record)?;
        written.extend(self.write_objects(work, &labelmap, (source.as_ref(), &record))?);
        written.extend(self.probabilities_of(work));
        written.extend(confidence_path.iter().filter(|_| self.lacks_confidence(work)).cloned());
        let classes = self.write_classes(work, &labelmap, &record)?;
        let warnings = self.check_anatomy(&measured);
        let statistics = self.write_statistics(work, measured, &record)?;
        let (preview, drawn) = self.draw(work, &labelmap, (&labels, &warnings, &record))?;
        let timings = report.timings;
        let voxels = geometry.shape().iter().product();
        let seconds = Seconds::new(read_secs, &timings, clock.elapsed().as_secs_f64());
        *self.after_secs.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(seconds.export + seconds.write);
        let result = CaseResult {
            shape: geometry.shape(),
            spacing_mm: geometry.spacing_mm(),
            voxels,
            voxels_per_sec: voxels as f64 / seconds.total.max(1e-9),
            peak_memory_bytes: machine::own_memory().map(|(_, peak)| peak),
            seconds,
            probabilities: self.probabilities().map(|product| product.path(&job.output)),
            confidence: confidence_path,
            dicom: job.objects(self.args),
            preview,
            files: [written, classes, statistics, drawn].concat(),
            region,
            budget,
            finished,
            warnings,
            labels,
            prediction: report,
        };
        self.tell(job, &result);
        self.warn(job, &result.warnings);
        Ok(result)
    }

    fn failed(&self, job: &Job, error: &anyhow::Error) {
        let error = failure::describe(error);
        match self.alone() {
            true => output::complain(&error),
            false => output::complain(&format!("{}: {error}", job.case.name)),
        }
    }
}

/// The settings that may be taken, each with the record of outputs of it.
fn ways(
    args: &PredictArgs,
    model: &Model,
    scout: Option<&Scout>,
    finish: &Finish,
) -> anyhow::Result<Vec<(PredictOptions, Record)>> {
    let ways = match args.time_budget {
        Some(_) => infer::budget::ways(&settings(args)),
        None => vec![settings(args)],
    };
    let with_record = |options: PredictOptions| {
        let record = finish.record(&Record::new(model, &options)?);
        let record = scout.map_or(record.clone(), |scout| scout.record(&record));
        Ok((options, record))
    };
    ways.into_iter().map(with_record).collect()
}

fn open_options(args: &PredictArgs, chosen: &Chosen) -> anyhow::Result<OpenOptions> {
    let mut options = OpenOptions::new(&chosen.device);
    if !args.folds.is_empty() {
        options.folds = args.folds.join(",").parse()?;
    }
    options.checkpoint = args.checkpoint.clone();
    options.reference = args.reference.map(Reference::from);
    Ok(options)
}

/// A model that is a single file or folder has no folds to choose from; `-f 0` and `-f all` mean
/// it, as habit has it.
fn check_folds(args: &PredictArgs, found: &[FoldReport]) -> anyhow::Result<()> {
    let single = found.len() == 1 && found[0].fold.is_empty();
    let meant = |fold: &String| matches!(fold.as_str(), "0" | "all");
    ensure!(
        !single || args.folds.iter().all(meant),
        "--folds: expected none, as the model is a single network, found {}: {}",
        args.folds.join(" "),
        args.model.display()
    );
    Ok(())
}

/// Errors of the prediction know the volume, but not its file.
fn with_file(error: InferError, file: &Path) -> anyhow::Error {
    match error {
        InferError::Interrupted => Interrupted.into(),
        error => anyhow::anyhow!("{error}: {}", file.display()),
    }
}

fn make_parent(file: &Path) -> anyhow::Result<()> {
    match file.parent() {
        Some(folder) => std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display())),
        None => Ok(()),
    }
}
