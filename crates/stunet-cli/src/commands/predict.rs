//! `stunet predict`: from files to labelmaps.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use stunet::data::nifti;
use stunet::data::plans;
use stunet::device::{self, Chosen};
use stunet::infer::model::FoldReport;
use stunet::infer::{self, InferError, Model, OpenOptions, PredictOptions, predict};

use crate::args::{Accumulation, Mode, PredictArgs, Reference};
use crate::failure::{self, Interrupted, Told};
use crate::interrupt;
use crate::jobs::{Job, check_writable, jobs};
use crate::output;
use crate::progress::Progress;
use crate::report::{CaseReport, CaseResult, ModelReport, Report, Seconds, Status, count_labels};

/// Predicts every case that has no output yet; a bad case does not stop the others.
pub fn run(args: &PredictArgs) -> anyhow::Result<()> {
    interrupt::watch(args.quiet, "window")?;
    let chosen = device::choose(&args.device)?;
    let jobs = jobs(args)?;
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
    let session = Session::open(args, chosen, report)?;
    let total = todo.len();
    let alone = total == 1 && !args.input[0].is_dir();
    for (index, job) in todo.into_iter().enumerate() {
        let title = match total {
            1 => job.case.name.clone(),
            _ => format!("{}/{total} {}", index + 1, job.case.name),
        };
        match failure::shielded(|| session.predict_case(&job, title)) {
            Ok(result) => {
                session.tell(&job, &result, &chosen.name)?;
                let case = case_report(job, Status::Predicted);
                report.cases.push(CaseReport { result: Some(result), ..case });
            }
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                let error = failure::describe(&error);
                match alone {
                    true => eprintln!("stunet: {error}"),
                    false => eprintln!("stunet: {}: {error}", job.case.name),
                }
                let case = case_report(job, Status::Failed);
                report.cases.push(CaseReport { error: Some(error), ..case });
            }
        }
    }
    match report.count(Status::Failed) {
        0 => Ok(()),
        _ => Err(Told.into()),
    }
}

/// A model that is loaded once, and how it predicts.
struct Session<'a> {
    args: &'a PredictArgs,
    model: Model,
}

impl<'a> Session<'a> {
    fn open(args: &'a PredictArgs, chosen: &Chosen, report: &mut Report) -> anyhow::Result<Self> {
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
        Ok(Self { args, model })
    }

    fn predict_case(&self, job: &Job, title: String) -> anyhow::Result<CaseResult> {
        let clock = Instant::now();
        check_writable(&job.output)?;
        let progress = Progress::new(title, self.args.quiet);
        let image = nifti::read_image(&job.case.files)?;
        let read = clock.elapsed().as_secs_f64();

        let options = self.predict_options(job)?;
        let prediction = predict(&self.model, &image, &options, &mut |event| {
            progress.hear(event);
            if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .map_err(|error| with_file(error, &job.case.files[0]))?;

        progress.say("writing");
        let writing = Instant::now();
        make_parent(&job.output)?;
        nifti::write_labelmap(&job.output, &prediction.labelmap, self.model.labels().max_value())?;
        let geometry = &prediction.labelmap.geometry;
        let timings = prediction.report.timings;
        Ok(CaseResult {
            shape: geometry.shape(),
            spacing_mm: geometry.spacing_mm(),
            voxels: geometry.shape().iter().product(),
            seconds: Seconds {
                read,
                preprocess: timings.preprocess_secs,
                windows: timings.windows_secs,
                export: timings.export_secs,
                write: writing.elapsed().as_secs_f64(),
                total: clock.elapsed().as_secs_f64(),
            },
            probabilities: prediction.probabilities,
            labels: count_labels(&prediction.labelmap, self.model.labels()),
            prediction: prediction.report,
        })
    }

    fn predict_options(&self, job: &Job) -> anyhow::Result<PredictOptions> {
        let args = self.args;
        let save_probabilities = args.save_probabilities.then(|| job.probabilities());
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
        })
    }

    /// One line about a finished case.
    fn tell(&self, job: &Job, result: &CaseResult, device: &str) -> anyhow::Result<()> {
        let foreground = &result.labels[1..];
        let found = foreground.iter().filter(|label| label.voxels > 0).count();
        let line = format!(
            "{}: {found} of {} labels, {} windows in {:.1} s on {device}: {}",
            job.case.name,
            foreground.len(),
            result.prediction.num_windows,
            result.seconds.total,
            job.output.display(),
        );
        say(self.args, &line)
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
