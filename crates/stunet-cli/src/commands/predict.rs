//! `stunet predict`: from files to labelmaps.

mod already;
mod beside;
pub mod budget;
mod choice;
mod completion;
pub mod extras;
mod objects;
mod outputs;
mod pictures;
mod pipeline;
pub mod region;
pub mod settings;
mod stages;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, anyhow, ensure};
use stunet::data::geometry::Orientation;
use stunet::data::nifti::Opener;
use stunet::data::preprocess::memory_bytes;
use stunet::data::reference::Reference;
use stunet::device::{self, Chosen};
use stunet::infer::model::FoldReport;
use stunet::infer::{self, InferError, Model, OpenOptions, PredictOptions, Record};
use stunet::model::StuNetConfig;
use stunet::pictures::page::PageCase;
use stunet::verify::Storage;

use crate::args::{NetworkPrecisionArg, PredictArgs};
use crate::failure::{Interrupted, Told};
use crate::finish::Finish;
use crate::interrupt;
use crate::jobs::{Job, check_writable, jobs, remove_leftovers, writes_beside};
use crate::kept;
use crate::machine;
use crate::output;
use crate::parts::Environment;
use crate::products::Product;
use crate::progress::CaseBar;
use crate::report::{self, CaseReport, ModelReport, Report, Status, tell_passed_over};
use already::PendingCase;
use pipeline::{Ended, Stages, run as run_pipeline};
use region::Scout;
use settings::{format_of, settings};
use stages::Read;

/// Predicts every case that has no output yet; a bad case does not stop the others.
pub fn run(args: &PredictArgs) -> anyhow::Result<()> {
    interrupt::watch(args.quiet, "window")?;
    kept::keep_kernels(args.no_cache);
    let chosen = device::choose(&args.device)?;
    settings::check_precision(args, &chosen)?;
    kept::check([&chosen], &[Storage::F32], args.unverified_device)?;
    let found = jobs(args, &Environment::read())?;
    if !args.quiet {
        tell_passed_over(&args.input[0], &found.passed_over);
    }
    if let Some(part) = found.part.as_ref().filter(|_| !args.quiet) {
        output::line(part)?;
    }
    let (jobs, divided) = (found.jobs, found.divided);
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
    report.part = divided;
    // Opened even where every output is there: only the model tells whether they are its own.
    let variants = choice::variants(args);
    let session = choice::session(&variants, &chosen, (&jobs, found.alone))?;
    session.introduce(&mut report);
    session.check_places(&jobs)?;
    let args = session.args;
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
    // From the labels that are there, where there is a labelmap of them.
    let has_labels = Product::wanted(session.args).contains(&Product::Labelmap);
    let (kept, todo): (Vec<_>, Vec<_>) =
        todo.into_iter().partition(|work| has_labels && work.lacks_derived_only());
    let there = done.into_iter().map(|job| PendingCase { job, lacks: Vec::new(), way: None });
    for work in there.chain(kept) {
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

/// A model that is loaded once, and how it predicts.
struct Session<'a> {
    args: &'a PredictArgs,
    /// Whether a single case was asked for.
    alone: bool,
    device: &'a Chosen,
    model: Model,
    /// Seconds that loading it took.
    load_secs: f64,
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
    /// The case that was read to choose the model, by its labelmap.
    ready: Mutex<Option<(PathBuf, Read)>>,
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
    fn open(args: &'a PredictArgs, chosen: &'a Chosen, alone: bool) -> anyhow::Result<Self> {
        let clock = Instant::now();
        let options = open_options(args, chosen)?;
        let model = {
            let _progress = CaseBar::new("loading the model".to_owned(), args.quiet);
            settings::check_network(args, &options)?;
            let model = Model::open(&args.model, &options)?;
            match args.precision {
                NetworkPrecisionArg::F32 => model,
                NetworkPrecisionArg::Int8 => model
                    .in_eight_bits()
                    .context("--precision int8")
                    .with_context(|| args.model.display().to_string())?,
            }
        };
        check_folds(args, &model.description().folds)?;
        let opener = model.plans().opener(args.axes.orientation)?;
        let opener = Opener { leniency: args.scan.leniency(), ..opener };
        let finish = Finish::of(&args.finish, model.labels())?;
        let scout = Scout::open(args, chosen, &model)?;
        let ways = ways(args, &model, scout.as_ref(), &finish)?;
        let (unknown, ready, pass_secs, after_secs, unsaid, pages) = Default::default();
        Ok(Self {
            args,
            alone,
            device: chosen,
            model,
            load_secs: clock.elapsed().as_secs_f64(),
            scout,
            finish,
            ways,
            opener,
            unknown,
            ready,
            after_secs,
            pass_secs,
            unsaid,
            pages,
        })
    }

    /// Tells of the model.
    fn introduce(&self, report: &mut Report) {
        let description = self.model.description();
        report.device = Some(self.device.name.clone());
        report.model = Some(ModelReport {
            path: self.args.model.clone(),
            kind: description.kind,
            size: description.config.stunet().and_then(StuNetConfig::size),
            network: description.config.clone(),
            precision: self.model.precision(),
            folds: description.folds.iter().map(|fold| fold.fold.clone()).collect(),
            digest: self.model.digest().map(str::to_owned),
            notes: description.notes.clone(),
            load_secs: self.load_secs,
        });
        let folds = match self.model.networks().len() {
            1 => String::new(),
            folds => format!(", {folds} folds"),
        };
        let classes = self.model.num_classes();
        let kind = words::network(&self.model);
        self.say(&format!("{kind}, {classes} classes{folds}, on {}", self.device.name));
        for note in &description.notes {
            self.say(&format!("note: {note}"));
        }
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

    /// Bytes that may still be taken: what `--max-memory` leaves, or most of what is free.
    fn allowed(&self) -> Option<u64> {
        machine::allowed(self.args.max_memory)
    }

    /// Errors of the prediction know the volume, but neither its file nor the options.
    fn explained(&self, error: InferError, job: &Job) -> anyhow::Error {
        let file = job.inputs()[0].display().to_string();
        match error {
            InferError::Interrupted => Interrupted.into(),
            InferError::Memory { needed, .. } => {
                let most = self.args.max_memory;
                anyhow!("{}: {file}", machine::too_little(most, needed, "this case"))
            }
            error => anyhow!("{error}: {file}"),
        }
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
            "{}: {}",
            machine::too_little(
                self.args.max_memory,
                needed,
                "reading and preprocessing this case"
            ),
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
            device_sums_bytes: self.args.device_memory,
            pass_secs: *self.pass_secs.lock().unwrap_or_else(PoisonError::into_inner),
            ..settings.clone()
        })
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

fn make_parent(file: &Path) -> anyhow::Result<()> {
    match file.parent() {
        Some(folder) => std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display())),
        None => Ok(()),
    }
}
