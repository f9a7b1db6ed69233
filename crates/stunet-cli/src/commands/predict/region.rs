//! `--crop-to`: another model finds the part of the body first.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::json;
use stunet::data::labels::CompactLabelMap;
use stunet::data::preprocess::crop::BoundingBox;
use stunet::device::Chosen;
use stunet::infer::region::region_of;
use stunet::infer::{self, Mode, Model, PredictOptions, Prepared, Record};

use super::already::PendingCase;
use super::{Session, open_options};
use crate::args::PredictArgs;
use crate::failure::Interrupted;
use crate::interrupt;
use crate::output;
use crate::progress::CaseBar;

/// Step between the windows of the coarse pass.
const COARSE_STEP: f64 = 0.75;

/// The model that finds the region, and of what.
pub struct Scout {
    pub model: Model,
    wanted: BTreeSet<u16>,
    names: Vec<String>,
    margin_mm: f64,
}

/// What of a case was predicted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RegionReport {
    /// The labels around which.
    pub labels: Vec<String>,
    /// The margin around them.
    pub margin_mm: f64,
    /// First and last voxel along z, y and x of the file; none where the coarse pass has found none of
    /// the labels, and everything was predicted.
    pub voxels: Option<[[usize; 2]; 3]>,
    /// The share of the volume that was left out.
    pub left_out: f64,
    /// Seconds of the coarse pass.
    pub secs: f64,
}

impl Scout {
    /// The one that the arguments ask for.
    pub fn open(
        args: &PredictArgs,
        chosen: &Chosen,
        model: &Model,
    ) -> anyhow::Result<Option<Self>> {
        let Some(path) = &args.region.with else { return Ok(None) };
        ensure!(
            args.save_probabilities.is_none(),
            "--crop-to: expected no --save-probabilities, as there are none outside of the region"
        );
        let options = infer::OpenOptions {
            folds: Default::default(),
            checkpoint: None,
            reference: None,
            ..open_options(args, chosen)?
        };
        let scout = {
            let _progress = CaseBar::new("loading the model of --with".to_owned(), args.quiet);
            Model::open(path, &options).context("--with")?
        };
        let (ours, its) = (model.plans().num_channels(), scout.plans().num_channels());
        ensure!(
            ours == its && model.plans().reader == scout.plans().reader,
            "--with: expected a model of {ours} channel(s) whose reader sees the same axes, found one of \
             {its}: {}",
            path.display()
        );
        let choice = args.axes.orientation;
        let opened = [model, &scout].map(|model| model.plans().opener(choice));
        let [Ok(ours), Ok(its)] = opened else {
            bail!("--with: expected a model that can be turned so")
        };
        ensure!(
            ours.orientation == its.orientation,
            "--with: expected a model trained on axes that run as those of --model, found another; say \
             --orientation for both: {}",
            path.display()
        );
        let words = args.region.crop_to.iter().map(String::as_str);
        let wanted = scout.labels().choose(words).context("--crop-to")?;
        ensure!(!wanted.is_empty(), "--crop-to: expected names, numbers or groups of labels");
        let names = scout.labels().painted();
        let names = names.iter().filter(|(value, _)| wanted.contains(value));
        let names = names.map(|(_, name)| (*name).to_owned()).collect();
        Ok(Some(Self { model: scout, wanted, names, margin_mm: args.region.crop_margin }))
    }

    /// The record of labels that were predicted in its region only.
    pub fn record(&self, record: &Record) -> Record {
        record.with_entry(
            "region",
            json!({
                "labels": self.wanted, "margin mm": self.margin_mm, "by": self.model.digest(),
                "step size": COARSE_STEP,
            }),
        )
    }
}

impl Session<'_> {
    /// Finds the region, and leaves of the volume what it needs.
    pub(super) fn crop(
        &self,
        work: &PendingCase,
        scout: &Scout,
        coarse: Prepared,
        prepared: Prepared,
    ) -> anyhow::Result<(Prepared, RegionReport)> {
        let clock = Instant::now();
        let labelmap = self.coarse(work, scout, coarse)?;
        let shape = labelmap.geometry.shape();
        let found = region_of(labelmap, &scout.wanted, scout.margin_mm)?;
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        let secs = clock.elapsed().as_secs_f64();
        // The box may lie where preprocessing has cropped: then there is nothing to predict in it.
        let step_size = self.args.step_size;
        let region = match found {
            Some(found) => prepared.region(&self.model, step_size, found)?,
            None => None,
        };
        let report = |voxels: Option<BoundingBox>, left_out| RegionReport {
            labels: scout.names.clone(),
            margin_mm: scout.margin_mm,
            voxels: voxels.map(|of| of.map(|[from, to]| [from, to.saturating_sub(1)])),
            left_out,
            secs,
        };
        let Some(region) = region else {
            output::complain(&format!(
                "{}: warning: the model of --with has found none of {}: the whole volume is predicted",
                work.job.case.name,
                crate::finish::listed(&scout.names)
            ));
            return Ok((prepared, report(None, 0.0)));
        };
        let part = prepared.within(region);
        let voxels = part.preprocessed.trace.file_box();
        let share = |of: [usize; 3]| of.iter().product::<usize>() as f64;
        let kept = share(voxels.map(|[from, to]| to - from)) / share(shape);
        Ok((part, report(Some(voxels), 1.0 - kept)))
    }

    /// The labels of one coarse pass.
    fn coarse(
        &self,
        work: &PendingCase,
        scout: &Scout,
        prepared: Prepared,
    ) -> anyhow::Result<CompactLabelMap> {
        let job = &work.job;
        let title = format!("{}: finding {}", job.case.name, crate::finish::listed(&scout.names));
        let progress = CaseBar::new(title, self.args.quiet);
        let options = PredictOptions {
            mode: Mode::Fastest,
            step_size: COARSE_STEP,
            mirror: false,
            memory_bytes: self.allowed(),
            device_has_own_memory: self.device.backend.is_gpu(),
            ..PredictOptions::default()
        };
        let found = infer::predict_prepared(&scout.model, prepared, &options, &mut |event| {
            progress.on_event(event);
            interrupt::flow()
        });
        Ok(found.map_err(|error| self.explained(error, job))?.labelmap)
    }
}
