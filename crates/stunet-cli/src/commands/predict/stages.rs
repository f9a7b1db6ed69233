//! The three stages of a case: reading and preprocessing, the network, writing.

use std::sync::PoisonError;
use std::time::Instant;

use stunet::data::dicom::Source;
use stunet::data::image::RawImage;
use stunet::infer::{self, Model, Prediction, Prepared, Record};

use super::already::PendingCase;
use super::budget::BudgetReport;
use super::pipeline::Stages;
use super::region::RegionReport;
use super::{Session, objects};
use crate::failure;
use crate::interrupt;
use crate::jobs::{Job, check_writable};
use crate::machine;
use crate::output;
use crate::products::Product;
use crate::progress::CaseBar;
use crate::report::{CaseResult, Seconds, count_labels};

/// A case between its stages.
pub(super) struct Read {
    pub(super) prepared: Prepared,
    /// The same for the model that finds a part of the body.
    pub(super) coarse: Option<Prepared>,
    /// The scan, where it is needed to the end.
    pub(super) scan: Option<RawImage>,
    pub(super) read_secs: f64,
    /// What makes its outputs.
    pub(super) record: Record,
    /// What its DICOM objects refer to.
    pub(super) source: Option<Source>,
}

/// A case behind the network.
pub(super) struct Predicted {
    prediction: Prediction,
    region: Option<RegionReport>,
    budget: Option<BudgetReport>,
    scan: Option<RawImage>,
    read_secs: f64,
    record: Record,
    source: Option<Source>,
}

impl Stages for Session<'_> {
    type Read = Read;
    type Predicted = Predicted;
    type Written = CaseResult;

    fn read(&self, work: &PendingCase) -> anyhow::Result<Read> {
        let job = &work.job;
        if let Some(read) = self.ready(job) {
            return Ok(read);
        }
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
            prepared.map_err(|error| self.explained(error, job))
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
        let is_first = self.pass_secs.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        let progress = CaseBar::new(title, self.args.quiet)
            .of_first_case(is_first && self.device.backend.is_gpu());
        let prediction = infer::predict_prepared(&self.model, prepared, &options, &mut |event| {
            progress.on_event(event);
            self.tell_plan(job, event);
            interrupt::flow()
        });
        let prediction = prediction.map_err(|error| self.explained(error, job))?;
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
        match self.alone {
            true => output::complain(&error),
            false => output::complain(&format!("{}: {error}", job.case.name)),
        }
    }
}
