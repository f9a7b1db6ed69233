//! From an image to a labelmap: preprocess, slide, restore.

use crate::error::InferError;
use crate::export::{Decision, NetworkLabels, Restore};
use crate::model::Model;
use crate::probabilities::{Frame, ProbabilityFile, ProbabilityKind};
use crate::sliding_window::{Network, PlaneSink, Recipe, SlideReport, slide};
use ndarray::Array4;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;
use stunet_data::image::Image;
use stunet_data::labels::LabelMap;
use stunet_data::plans::{Accumulation, Reference};
use stunet_data::preprocess::{Preprocessed, RestoreOrder, Trace, preprocess};

/// How a prediction at the network's resolution is brought to the image's.
///
/// # Source
/// nnU-Net 1.7.1 `predict.py --mode`; v2 knows only `normal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each class is resampled, then the best one taken.
    #[default]
    Normal,
    /// The best class is taken first; labels are resampled one by one (order 1).
    Fast,
    /// As `fast`, with the nearest label.
    Fastest,
}

/// What the caller chooses about a prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictOptions {
    /// How labels are restored.
    pub mode: Mode,
    /// Largest step between windows, in windows: more than 0, at most 1.
    pub step_size: f64,
    /// Predict mirrored windows too, along the axes the plans allow.
    pub mirror: bool,
    /// Precision of the sums, if not the plans'.
    pub accumulation: Option<Accumulation>,
    /// Where to write the probabilities (`.npz`), if wanted; only with [`Mode::Normal`].
    pub save_probabilities: Option<PathBuf>,
}

impl Default for PredictOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Normal,
            step_size: 0.5,
            mirror: true,
            accumulation: None,
            save_probabilities: None,
        }
    }
}

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Cropping, resampling, normalising.
    Preprocess,
    /// Windows through the network; in mode `normal` finished planes are restored meanwhile.
    Windows,
    /// What is left of restoring and writing probabilities.
    Export,
}

/// What the caller hears of while a prediction runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A stage begins.
    Stage(Stage),
    /// Windows are done. Heard before the first window, too, and between mirrored passes.
    Windows {
        /// Windows that are done.
        done: usize,
        /// Windows in all.
        total: usize,
    },
}

/// Time taken, in seconds of the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Preprocessing.
    pub preprocess_secs: f64,
    /// All windows, from the first to the last, restored planes included.
    pub windows_secs: f64,
    /// Of those, the network's own: forward passes and reading back logits.
    pub network_secs: f64,
    /// What was left after the last window.
    pub export_secs: f64,
}

/// What was done, for a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PredictReport {
    /// How labels were restored.
    pub mode: Mode,
    /// Whose arithmetic.
    pub reference: Reference,
    /// Precision of the sums.
    pub accumulation: Accumulation,
    /// Shape of the preprocessed volume `[z, y, x]` in voxels.
    pub network_shape: [usize; 3],
    /// Size of a window `[z, y, x]` in voxels.
    pub window: [usize; 3],
    /// Number of windows.
    pub num_windows: usize,
    /// Forward passes over each window: mirrored ones times folds.
    pub num_passes: usize,
    /// Time taken.
    pub timings: Timings,
}

/// A labelmap in the image's own geometry, and what came with it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Prediction {
    /// The labels.
    pub labelmap: LabelMap,
    /// The file of probabilities, where one was asked for.
    pub probabilities: Option<PathBuf>,
    /// What was done.
    pub report: PredictReport,
}

/// Segments one image.
///
/// `events` hears of every stage and window; when it answers `Break`, the prediction stops.
///
/// # Errors
/// An image the plans cannot take, a step size out of range, half-precision sums that overflow, a
/// file of probabilities that cannot be written, [`InferError::Interrupted`].
///
/// # Source
/// nnU-Net 1.7.1 `predict.py::predict_cases{,_fast,_fastest}`; nnU-Net 2.2 and 2.8
/// `predict_from_raw_data.py`.
///
/// # Deviations
/// Classes × volume is never held: see [`crate::slab`] and [`crate::export`].
pub fn predict(
    model: &Model,
    image: &Image,
    options: &PredictOptions,
    events: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Prediction, InferError> {
    let plans = model.plans();
    let recipe = recipe(model, options)?;
    if image.num_channels() != plans.num_channels() {
        return Err(InferError::Channels {
            expected: plans.num_channels(),
            found: image.num_channels(),
        });
    }

    let clock = Instant::now();
    tell(events, Event::Stage(Stage::Preprocess))?;
    let Preprocessed { image: volume, trace } = preprocess(image, plans)?;
    let preprocess_secs = clock.elapsed().as_secs_f64();

    tell(events, Event::Stage(Stage::Windows))?;
    let mut job = Job { model, recipe: &recipe, volume, trace: &trace, events };
    let finished = match options.mode {
        Mode::Normal => job.normal(options)?,
        Mode::Fast => job.by_label(RestoreOrder::Linear)?,
        Mode::Fastest => job.by_label(RestoreOrder::Nearest)?,
    };

    let Finished { labelmap, probabilities, slid, shape, export_secs } = finished;
    let report = PredictReport {
        mode: options.mode,
        reference: recipe.reference,
        accumulation: recipe.effective_accumulation(),
        network_shape: shape,
        window: recipe.window,
        num_windows: slid.num_windows,
        num_passes: slid.num_passes,
        timings: Timings {
            preprocess_secs,
            windows_secs: slid.windows_secs,
            network_secs: slid.network_secs,
            export_secs,
        },
    };
    Ok(Prediction { labelmap, probabilities, report })
}

fn recipe(model: &Model, options: &PredictOptions) -> Result<Recipe, InferError> {
    if options.save_probabilities.is_some() && options.mode != Mode::Normal {
        return Err(InferError::Unsupported {
            option: "save probabilities",
            reason: "modes fast and fastest have none at the image's resolution; use mode normal",
        });
    }
    if model.plans().reference.is_v1() && options.accumulation == Some(Accumulation::F16) {
        return Err(InferError::Unsupported {
            option: "accumulation f16",
            reason: "nnU-Net v1 sums in f32, and so is this model predicted",
        });
    }
    let mut recipe = Recipe::new(model.plans());
    recipe.step_size = options.step_size;
    if !options.mirror {
        recipe.mirror_axes.clear();
    }
    if let Some(accumulation) = options.accumulation {
        recipe.accumulation = accumulation;
    }
    Ok(recipe)
}

fn tell(events: &mut dyn FnMut(Event) -> ControlFlow<()>, event: Event) -> Result<(), InferError> {
    match events(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(InferError::Interrupted),
    }
}

/// One image on its way through the windows.
struct Job<'a> {
    model: &'a Model,
    recipe: &'a Recipe,
    volume: Array4<f32>,
    trace: &'a Trace,
    events: &'a mut dyn FnMut(Event) -> ControlFlow<()>,
}

struct Finished {
    labelmap: LabelMap,
    probabilities: Option<PathBuf>,
    slid: SlideReport,
    shape: [usize; 3],
    export_secs: f64,
}

impl Job<'_> {
    fn normal(&mut self, options: &PredictOptions) -> Result<Finished, InferError> {
        let taps = self.trace.taps();
        let [_, height, width] = self.shape();
        let half = self.recipe.effective_accumulation() == Accumulation::F16;
        let num_classes = self.model.labels().num_outputs();
        let file = match &options.save_probabilities {
            None => None,
            Some(path) => {
                let shape = self.trace.output_shape();
                Some(ProbabilityFile::create(path, self.kind(), num_classes, shape)?)
            }
        };
        let mut restore = Restore::new(taps, [height, width], half, self.decision(), file);
        let slid = self.slide(&mut restore)?;

        let clock = Instant::now();
        tell(self.events, Event::Stage(Stage::Export))?;
        let (labels, file) = restore.finish();
        let labelmap = self.trace.paste(labels.view());
        let frame = self.frame();
        let probabilities = file.map(|file| file.finish(&frame)).transpose()?;
        let export_secs = clock.elapsed().as_secs_f64();
        Ok(Finished { labelmap, probabilities, slid, shape: self.shape(), export_secs })
    }

    fn by_label(&mut self, order: RestoreOrder) -> Result<Finished, InferError> {
        let mut sink = NetworkLabels::new(self.shape(), self.decision());
        let slid = self.slide(&mut sink)?;

        let clock = Instant::now();
        tell(self.events, Event::Stage(Stage::Export))?;
        let labelmap = self.trace.restore_labels(sink.into_labels().view(), order);
        let export_secs = clock.elapsed().as_secs_f64();
        Ok(Finished { labelmap, probabilities: None, slid, shape: self.shape(), export_secs })
    }

    fn slide(&mut self, sink: &mut dyn PlaneSink) -> Result<SlideReport, InferError> {
        let networks: Vec<&dyn Network> =
            self.model.networks().iter().map(|n| n as &dyn Network).collect();
        let events = &mut *self.events;
        slide(&networks, self.volume.view(), self.recipe, sink, &mut |done, total| {
            events(Event::Windows { done, total })
        })
    }

    fn shape(&self) -> [usize; 3] {
        let (_, z, y, x) = self.volume.dim();
        [z, y, x]
    }

    fn decision(&self) -> Decision {
        let labels = self.model.labels();
        match labels.region_order() {
            Some(order) if labels.has_regions() => Decision::Regions {
                order: order.to_vec(),
                threshold: if self.recipe.reference.is_v1() { 0.5 } else { 0.0 },
            },
            _ => {
                let first = labels.labels().iter().map(|l| l.values[0]);
                Decision::Largest { labels: first.collect() }
            }
        }
    }

    fn kind(&self) -> ProbabilityKind {
        match (self.recipe.reference.is_v1(), self.model.labels().has_regions()) {
            (true, _) => ProbabilityKind::AsTheyAre,
            (false, true) => ProbabilityKind::Sigmoid,
            (false, false) => ProbabilityKind::Softmax,
        }
    }

    /// v1 stores the cropped volume, v2 the whole image; both in the image's axis order.
    fn frame(&self) -> Frame {
        let transpose_backward = self.model.plans().transpose_backward();
        if self.recipe.reference.is_v1() {
            let shape = self.trace.output_shape();
            Frame { transpose_backward, shape: transpose_backward.map(|a| shape[a]), lower: [0; 3] }
        } else {
            let shape = self.trace.geometry().shape();
            let lower = self.trace.bounding_box().map(|[from, _]| from);
            Frame { transpose_backward, shape, lower }
        }
    }
}

#[cfg(test)]
mod tests;
