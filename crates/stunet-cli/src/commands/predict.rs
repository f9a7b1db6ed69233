//! `stunet predict`: from files to labelmaps.

mod pipeline;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, ensure};
use stunet::data::nifti;
use stunet::data::plans;
use stunet::data::preprocess::memory_bytes;
use stunet::device::{self, Chosen};
use stunet::infer::model::FoldReport;
use stunet::infer::{
    self, Event, InferError, Measure, Model, OpenOptions, PredictOptions, Prediction, Prepared,
    ProbabilityFormat,
};

use crate::args::{Accumulation, Confidence, Mode, PredictArgs, Probabilities, Reference};
use crate::failure::{self, Interrupted, Told};
use crate::interrupt;
use crate::jobs::{Job, check_writable, jobs, remove_leftovers};
use crate::machine;
use crate::output;
use crate::parts::Environment;
use crate::progress::Progress;
use crate::report::{CaseReport, CaseResult, ModelReport, Report, Seconds, Status, count_labels};
use pipeline::{Ended, Stages, run as run_pipeline};

/// Predicts every case that has no output yet; a bad case does not stop the others.
pub fn run(args: &PredictArgs) -> anyhow::Result<()> {
    interrupt::watch(args.quiet, "window")?;
    let chosen = device::choose(&args.device)?;
    let jobs = jobs(args, &Environment::read())?;
    let (done, todo): (Vec<_>, Vec<_>) =
        jobs.into_iter().partition(|job| !args.overwrite && job.output.exists());
    if let Some(report) = &args.json {
        check_writable(report)?;
    }

    let mut report = Report::new();
    for job in done {
        say(args, &format!("{}: skipped, exists: {}", job.case.name, job.output.display()))?;
        report.cases.push(case_report(job, Status::Skipped));
    }
    let outcome = match todo.is_empty() {
        true => Ok(()),
        false => predict_all(args, &chosen, todo, &mut report),
    };
    // What was done before an interruption is told as well.
    if let Some(path) = &args.json
        && (outcome.is_ok() || !report.cases.is_empty())
    {
        report.write(path)?;
    }
    outcome
}

fn predict_all(
    args: &PredictArgs,
    chosen: &Chosen,
    todo: Vec<Job>,
    report: &mut Report,
) -> anyhow::Result<()> {
    check_writable(&todo[0].output)?;
    remove_leftovers(&todo);
    let session = Session::open(args, chosen, report)?;
    let clock = Instant::now();
    // Memory that is bounded holds one case at a time.
    let ahead = if args.max_memory.is_some() { 0 } else { 1 };
    let mut interrupted = false;
    let ended = run_pipeline(&session, todo, ahead);
    for Ended { job, outcome } in ended {
        match outcome {
            Ok(result) => {
                let case = case_report(job, Status::Predicted);
                report.cases.push(CaseReport { result: Some(result), ..case });
            }
            Err(error) if error.is::<Interrupted>() => interrupted = true,
            Err(error) => {
                let error = failure::describe(&error);
                let case = case_report(job, Status::Failed);
                report.cases.push(CaseReport { error: Some(error), ..case });
            }
        }
    }
    report.sum_up(clock.elapsed().as_secs_f64(), machine::own_memory().map(|(_, peak)| peak));
    if !session.alone() {
        session.sum_up(report)?;
    }
    match (interrupted, report.count(Status::Failed)) {
        (true, _) => Err(Interrupted.into()),
        (_, 0) => Ok(()),
        _ => Err(Told.into()),
    }
}

/// A model that is loaded once, and how it predicts.
struct Session<'a> {
    args: &'a PredictArgs,
    device: &'a Chosen,
    model: Model,
    /// Seconds of a pass over a window in the case before.
    pass_secs: Mutex<Option<f64>>,
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
            let _progress = Progress::new("loading the model".to_owned(), args.quiet);
            Model::open(&args.model, &options)?
        };
        let description = model.description();
        check_folds(args, &description.folds)?;
        let size = description.config.size();
        report.device = Some(chosen.name.clone());
        report.model = Some(ModelReport {
            path: args.model.clone(),
            kind: description.kind,
            size,
            network: description.config.clone(),
            folds: description.folds.iter().map(|fold| fold.fold.clone()).collect(),
            notes: description.notes.clone(),
            load_secs: clock.elapsed().as_secs_f64(),
        });
        let folds = match model.networks().len() {
            1 => String::new(),
            folds => format!(", {folds} folds"),
        };
        let name = size.map_or("custom", |size| size.name());
        let classes = description.config.num_classes;
        let line = format!("STU-Net {name}, {classes} classes{folds}, on {}", chosen.name);
        say(args, &line)?;
        for note in &description.notes {
            say(args, &format!("note: {note}"))?;
        }
        Ok(Self { args, device: chosen, model, pass_secs: Mutex::default() })
    }

    /// Whether a single case was asked for.
    fn alone(&self) -> bool {
        self.args.input.len() > 1 || !self.args.input[0].is_dir()
    }

    /// Bytes that may still be taken: what `--max-memory` leaves, or most of what is free.
    fn allowed(&self) -> Option<u64> {
        /// Of what is free, the rest is for buffers that no estimate knows.
        const SHARE: f64 = 0.9;
        match (self.args.max_memory, machine::own_memory()) {
            (Some(most), Some((held, _))) => Some(most.saturating_sub(held)),
            (Some(most), None) => Some(most),
            (None, _) => machine::free_memory().map(|free| (free as f64 * SHARE) as u64),
        }
    }

    /// Fails where the files of a case are larger than memory, before they are read.
    fn check_memory(&self, job: &Job) -> anyhow::Result<()> {
        let mut needed = 0;
        for file in &job.case.files {
            let plans = self.model.plans();
            let (geometry, channels) = plans.reader.read_geometry(file)?;
            needed += memory_bytes(&geometry, channels, plans);
        }
        let allowed = self.allowed().unwrap_or(u64::MAX);
        ensure!(
            needed <= allowed,
            "memory: reading and preprocessing this case needs about {}, allowed are {}: {}",
            output::bytes(needed),
            output::bytes(allowed),
            job.case.files[0].display()
        );
        Ok(())
    }

    fn predict_options(&self, job: &Job) -> anyhow::Result<PredictOptions> {
        let args = self.args;
        let probability_format = match args.save_probabilities {
            Some(Probabilities::Npz) => ProbabilityFormat::Npz,
            _ => ProbabilityFormat::Zarr,
        };
        let save_probabilities =
            args.save_probabilities.map(|_| job.probabilities(probability_format.ending()));
        if let Some(path) = &save_probabilities {
            make_parent(path)?;
        }
        Ok(PredictOptions {
            mode: match args.mode {
                Mode::Normal => infer::Mode::Normal,
                Mode::Fast => infer::Mode::Fast,
                Mode::Fastest => infer::Mode::Fastest,
            },
            step_size: args.step_size,
            mirror: !args.disable_tta,
            accumulation: args.accumulation.map(|precision| match precision {
                Accumulation::F32 => plans::Accumulation::F32,
                Accumulation::F16 => plans::Accumulation::F16,
            }),
            save_probabilities,
            probability_format,
            confidence: args.confidence.map(|measure| match measure {
                Confidence::Margin => Measure::Margin,
                Confidence::Entropy => Measure::Entropy,
            }),
            memory_bytes: self.allowed(),
            own_memory: !matches!(self.device.name.as_str(), "cpu" | "ndarray"),
            device_sums_bytes: args.device_memory.unwrap_or(0),
            pass_secs: *self.pass_secs.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }

    /// One line about what a case will take.
    fn tell_plan(&self, job: &Job, event: Event) -> anyhow::Result<()> {
        let Event::Plan {
            num_tiles,
            num_windows,
            num_repeated,
            sums_bytes,
            total_bytes,
            device_bytes,
            secs,
        } = event
        else {
            return Ok(());
        };
        let parts = match num_tiles {
            1 => String::new(),
            parts => format!(" in {parts} parts ({num_repeated} of them twice)"),
        };
        let there = match (device_bytes, self.args.device_memory) {
            (0, None) => String::new(),
            // More than was allowed, or in half precision.
            (0, Some(_)) => ", sums on the host".to_owned(),
            (bytes, _) => format!(", {} of the device for sums", output::bytes(bytes)),
        };
        let time = secs.map(|secs| format!(", about {}", output::duration(secs)));
        let line = format!(
            "{}: {num_windows} windows{parts}, {} of memory, {} of it for sums{there}{}",
            job.case.name,
            output::bytes(total_bytes),
            output::bytes(sums_bytes),
            time.unwrap_or_default(),
        );
        say(self.args, &line)
    }

    /// One line about all cases.
    fn sum_up(&self, report: &Report) -> anyhow::Result<()> {
        let Some(summary) = &report.summary else { return Ok(()) };
        let peak =
            summary.peak_memory_bytes.map(|peak| format!(", {} of memory", output::bytes(peak)));
        let line = format!(
            "{} predicted, {} skipped, {} failed in {:.1} s, {:.1} million voxels per second{}",
            summary.predicted,
            summary.skipped,
            summary.failed,
            summary.wall_secs,
            summary.voxels_per_sec / 1e6,
            peak.unwrap_or_default(),
        );
        say(self.args, &line)
    }

    /// One line about a finished case.
    fn tell(&self, job: &Job, result: &CaseResult) -> anyhow::Result<()> {
        let foreground = &result.labels[1..];
        let found = foreground.iter().filter(|label| label.voxels > 0).count();
        let line = format!(
            "{}: {found} of {} labels, {} windows in {:.1} s on {}: {}",
            job.case.name,
            foreground.len(),
            result.prediction.num_windows,
            result.seconds.total,
            self.device.name,
            job.output.display(),
        );
        say(self.args, &line)
    }
}

/// A case between its stages.
struct Read {
    prepared: Prepared,
    read_secs: f64,
}

impl Stages for Session<'_> {
    type Read = Read;
    type Predicted = (Prediction, f64);
    type Written = CaseResult;

    fn read(&self, job: &Job) -> anyhow::Result<Read> {
        check_writable(&job.output)?;
        self.check_memory(job)?;
        let clock = Instant::now();
        let scan = self.model.plans().reader.read_scan(&job.case.files)?;
        let read_secs = clock.elapsed().as_secs_f64();
        let prepared = infer::prepare_scan(&self.model, &scan)
            .map_err(|error| with_file(error, &job.case.files[0]))?;
        Ok(Read { prepared, read_secs })
    }

    fn predict(&self, job: &Job, title: String, read: Read) -> anyhow::Result<Self::Predicted> {
        let options = self.predict_options(job)?;
        let progress = Progress::new(title, self.args.quiet);
        let mut told = Ok(());
        let prediction =
            infer::predict_prepared(&self.model, read.prepared, &options, &mut |event| {
                progress.hear(event);
                if let Event::Plan { .. } = event {
                    told = self.tell_plan(job, event);
                }
                interrupt::flow()
            });
        told?;
        let prediction = prediction.map_err(|error| with_file(error, &job.case.files[0]))?;
        let done = &prediction.report;
        let passes = done.num_windows * done.num_passes;
        let secs = done.timings.windows_secs / passes.max(1) as f64;
        *self.pass_secs.lock().unwrap_or_else(PoisonError::into_inner) = Some(secs);
        Ok((prediction, read.read_secs))
    }

    fn write(&self, job: &Job, (prediction, read): Self::Predicted) -> anyhow::Result<CaseResult> {
        let clock = Instant::now();
        make_parent(&job.output)?;
        let Prediction { labelmap, probabilities, confidence, report, .. } = prediction;
        let geometry = labelmap.geometry.clone();
        let confidence_path = match &confidence {
            None => None,
            Some(volume) => {
                let path = job.confidence();
                make_parent(&path)?;
                nifti::write_bytes(&path, volume, &geometry)?;
                Some(path)
            }
        };
        let labels = count_labels(&labelmap, self.model.labels(), confidence.as_ref());
        // Last of all: a case with a labelmap is complete.
        nifti::write_compact_labelmap(&job.output, &labelmap, self.model.labels().max_value())?;
        let timings = report.timings;
        let write = clock.elapsed().as_secs_f64();
        let seconds = Seconds {
            read,
            preprocess: timings.preprocess_secs,
            windows: timings.windows_secs,
            export: timings.export_secs,
            write,
            total: read
                + timings.preprocess_secs
                + timings.windows_secs
                + timings.export_secs
                + write,
        };
        let voxels = geometry.shape().iter().product();
        let result = CaseResult {
            shape: geometry.shape(),
            spacing_mm: geometry.spacing_mm(),
            voxels,
            voxels_per_sec: voxels as f64 / seconds.total.max(1e-9),
            peak_memory_bytes: machine::own_memory().map(|(_, peak)| peak),
            seconds,
            probabilities,
            confidence: confidence_path,
            labels,
            prediction: report,
        };
        self.tell(job, &result)?;
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

fn open_options(args: &PredictArgs, chosen: &Chosen) -> anyhow::Result<OpenOptions> {
    let mut options = OpenOptions::new(&chosen.device);
    if !args.folds.is_empty() {
        options.folds = args.folds.join(",").parse()?;
    }
    options.checkpoint = args.checkpoint.clone();
    options.reference = args.reference.map(|version| match version {
        Reference::V1 => plans::Reference::NnUNetV1,
        Reference::V22 => plans::Reference::NnUNetV22,
        Reference::V28 => plans::Reference::NnUNetV28,
    });
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

fn say(args: &PredictArgs, line: &str) -> anyhow::Result<()> {
    if args.quiet { Ok(()) } else { output::line(line) }
}

fn case_report(job: Job, status: Status) -> CaseReport {
    let Job { case, output } = job;
    CaseReport { name: case.name, input: case.files, output, status, error: None, result: None }
}
