//! From an image to a labelmap: preprocess, slide, restore.

use crate::confidence::{Confidence, ConfidenceMeasure};
use crate::error::InferError;
use crate::export::{Decision, Extras, NetworkLabels, Restore};
use crate::memory::{DeviceRoom, Held, MemoryPlan, Needs, SumsOnHost, sums_features, window_bytes};
use crate::mirror;
use crate::model::Model;
use crate::network::{Head, Network, Outputs};
use crate::platform::{self, Moment};
use crate::probabilities::{Frame, ProbabilityFile, ProbabilityFormat, ProbabilityKind};
use crate::sink::RowSink;
use crate::sliding_window::{Keep, PartOf, SlideReport, WindowSettings, slide_tiles};
use crate::volume::Volume;
use crate::windows::Windows;
use ndarray::Array3;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use stunet_data::DataError;
use stunet_data::geometry::{Geometry, Turn};
use stunet_data::image::{Image, RawImage};
use stunet_data::labels::{CompactLabelMap, LabelVoxels};
use stunet_data::plans::{Accumulation, Plans, Reference, SeenOrientation};
use stunet_data::preprocess::resample::{AxisTaps, Resampling};
use stunet_data::preprocess::{Preprocessed, RestoreOrder, Trace, preprocess, preprocess_scan};
use stunet_data::reference::ProbabilityExtent;
use stunet_model::DeviceFault;

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
    /// Where the reference averages logits in f32, average the feature maps before the network's last layer
    /// instead: less time and memory, and logits that differ by the rounding of f32 sums. Over the mirrored passes of
    /// a window that layer is then computed once, and where windows are averaged in f32 as well, once for each voxel. This
    /// is done for networks with about as many classes as feature maps, or more, on the processor.
    /// False computes the last layer for each pass, as nnU-Net does.
    pub average_features: bool,
    /// Where to write the probabilities, if wanted; only with [`Mode::Normal`]. Beside an `.npz` in the
    /// layout of nnU-Net 2 goes the `.pkl` of the same name, which nnU-Net's ensembles need.
    pub save_probabilities: Option<PathBuf>,
    /// In which form.
    pub probability_format: ProbabilityFormat,
    /// What the file of probabilities says of its making: see [`Record`](crate::Record).
    pub record: Option<String>,
    /// How sure each label is, if wanted; only with [`Mode::Normal`].
    pub confidence: Option<ConfidenceMeasure>,
    /// Bytes of host memory the prediction may take, beside what is held when it begins: the
    /// preprocessed volume counts, the model and the image do not.
    pub memory_bytes: Option<u64>,
    /// True for GPUs: activations are in device memory and do not count against `memory_bytes`.
    pub device_has_own_memory: bool,
    /// Bytes of the device's memory beside the network: within them f32 sums stay there, as a whole or in
    /// tiles, and where more is left, two windows are computed at once; 0 keeps sums on the host. None is what a GPU
    /// has beside the network by what its driver tells, and nothing on the processor.
    pub device_sums_bytes: Option<u64>,
    /// Seconds of one pass over one window, from an earlier prediction of the same model, for the
    /// time in [`PredictEvent::Plan`]. Where it is not known, and the prediction is long, it is measured.
    pub pass_secs: Option<f64>,
}

impl Default for PredictOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Normal,
            step_size: 0.5,
            mirror: true,
            accumulation: None,
            average_features: true,
            save_probabilities: None,
            probability_format: ProbabilityFormat::default(),
            record: None,
            confidence: None,
            memory_bytes: None,
            device_has_own_memory: false,
            device_sums_bytes: None,
            pass_secs: None,
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
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum PredictEvent {
    /// A stage begins.
    Stage(Stage),
    /// What the windows will take, by estimate; heard before the first of them.
    Plan {
        /// Parts predicted one after the other.
        num_tiles: usize,
        /// Windows to run.
        num_windows: usize,
        /// Of those, windows that are run again for another part.
        num_repeated: usize,
        /// What of the windows is held until their voxels are final.
        keep: Keep,
        /// Bytes of it on the host.
        sums_bytes: u64,
        /// Bytes of everything.
        total_bytes: u64,
        /// Bytes of the device for sums; 0 where they are on the host.
        device_bytes: u64,
        /// Windows that the network computes at once.
        windows_at_once: usize,
        /// Why sums are on the host, where a device could have taken them.
        on_host: Option<SumsOnHost>,
        /// Seconds of all windows, where something is known of them.
        secs: Option<f64>,
    },
    /// Windows are done. Heard before the first window, too, and between mirrored passes.
    Windows {
        /// Windows that are done.
        done: usize,
        /// Windows in all.
        total: usize,
    },
}

/// Time taken, in seconds of the clock; 0 in WebAssembly, which has none.
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
    /// How the image's axes run, in its file and for the network, and whether the network knows them so.
    pub orientation: SeenOrientation,
    /// Shape of the preprocessed volume `[z, y, x]` in voxels.
    pub network_shape: [usize; 3],
    /// Size of a window `[z, y, x]` in voxels.
    pub window: [usize; 3],
    /// Number of windows.
    pub num_windows: usize,
    /// Forward passes over each window: mirrored ones times folds.
    pub num_passes: usize,
    /// Seconds that the windows were thought to take, where something was known of them.
    pub estimated_secs: Option<f64>,
    /// What was decided about memory beforehand.
    pub memory: MemoryPlan,
    /// Most bytes of sums that were held.
    pub sums_bytes: usize,
    /// Time taken.
    pub timings: Timings,
}

/// A labelmap in the image's own geometry, and what came with it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Prediction {
    /// The labels.
    pub labelmap: CompactLabelMap,
    /// The file of probabilities, where one was asked for.
    pub probabilities: Option<PathBuf>,
    /// How sure each label is, 0 to 255, where that was asked for.
    pub confidence: Option<Array3<u8>>,
    /// What was done.
    pub report: PredictReport,
}

/// Segments one image.
///
/// `events` hears of every stage and window; when it answers `Break`, the prediction stops.
///
/// The image's axes are taken as they are. To have them turned to those of the training images, open the
/// file by [`Plans::opener`], or turn the image ([`Image::oriented`]): labels and all that comes with them
/// are on the grid of its file. [`PredictReport::orientation`] says what the network saw.
///
/// # Errors
/// An image the plans cannot take or that another reader has read than the plans', a step size out of range, half-precision sums that overflow, a
/// file of probabilities that cannot be written, a device that does not compute
/// ([`InferError::Device`]), [`InferError::Interrupted`].
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
    events: &mut dyn FnMut(PredictEvent) -> ControlFlow<()>,
) -> Result<Prediction, InferError> {
    window_settings(model, options)?;
    tell(events, PredictEvent::Stage(Stage::Preprocess))?;
    let prepared = prepare(model, image)?;
    predict_prepared(model, prepared, options, events)
}

/// An image ready for the windows.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The network's volume, and the way back.
    pub preprocessed: Preprocessed,
    /// Seconds it took; 0 in WebAssembly, which has no clock.
    pub secs: f64,
}

/// The first half of [`predict`]: the image is not needed afterwards.
///
/// # Errors
/// An image the plans cannot take.
pub fn prepare(model: &Model, image: &Image) -> Result<Prepared, InferError> {
    check_reader(model, &image.geometry)?;
    prepare_with(model, image.num_channels(), |plans| preprocess(image, plans))
}

/// As [`prepare`], from the voxels as they were read.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_scan(model: &Model, scan: &RawImage) -> Result<Prepared, InferError> {
    check_reader(model, &scan.geometry)?;
    prepare_with(model, scan.num_channels(), |plans| preprocess_scan(scan, plans))
}

/// An image in the file's own order is no input for a model whose reader turns.
fn check_reader(model: &Model, geometry: &Geometry) -> Result<(), InferError> {
    let reader = model.plans().reader;
    if reader.turns() && !geometry.is_turned() {
        return Err(InferError::Reader { expected: reader.name() });
    }
    Ok(())
}

fn prepare_with(
    model: &Model,
    found: usize,
    preprocess: impl FnOnce(&Plans) -> Result<Preprocessed, DataError>,
) -> Result<Prepared, InferError> {
    let expected = model.plans().num_channels();
    if found != expected {
        return Err(InferError::Channels { expected, found });
    }
    let clock = Moment::now();
    let preprocessed = preprocess(model.plans())?;
    Ok(Prepared { preprocessed, secs: clock.secs() })
}

/// The second half of [`predict`].
///
/// # Errors
/// As [`predict`], but for the image; and [`InferError::Memory`].
pub fn predict_prepared(
    model: &Model,
    prepared: Prepared,
    options: &PredictOptions,
    events: &mut dyn FnMut(PredictEvent) -> ControlFlow<()>,
) -> Result<Prediction, InferError> {
    stunet_model::guarded(|| prepared_predicted(model, prepared, options, events)).unwrap_or_else(
        |failure| {
            give_memory_back(model, failure.fault);
            Err(failure.into())
        },
    )
}

/// What a prediction held on the devices was let go when it failed, but they keep it for the next tensors.
fn give_memory_back(model: &Model, fault: DeviceFault) {
    for network in model.networks() {
        if let Some(network) = network.resident().filter(|_| fault != DeviceFault::Lost) {
            // The failure itself is told already.
            let _ = stunet_model::guarded(|| network.device().memory_cleanup());
        }
    }
}

fn prepared_predicted(
    model: &Model,
    prepared: Prepared,
    options: &PredictOptions,
    events: &mut dyn FnMut(PredictEvent) -> ControlFlow<()>,
) -> Result<Prediction, InferError> {
    let mut settings = window_settings(model, options)?;
    let Prepared { preprocessed: Preprocessed { image: volume, trace }, secs } = prepared;
    let (_, z, y, x) = volume.dim();
    let shape = [z, y, x];
    let volume = Volume::from(volume);
    let taps = match options.mode {
        Mode::Normal => trace.taps(),
        _ => shape.map(|n| AxisTaps::linear(n, n)),
    };
    settings.part_of = part_of(&trace);
    let windows = settings.windows(shape)?;
    let plan = plan(model, &settings, &windows, (&taps, &trace), options)?;
    follow(&mut settings, &plan, model, options);

    tell(events, PredictEvent::Stage(Stage::Windows))?;
    let estimated_secs = estimated_secs(model, &settings, &plan, options);
    tell(events, told(&plan, estimated_secs))?;
    let mut job = Job {
        model,
        settings: &settings,
        plan: &plan,
        volume: Some(volume),
        trace: &trace,
        events,
    };
    let finished = match options.mode {
        Mode::Normal => job.normal(taps, options)?,
        Mode::Fast => job.by_label(RestoreOrder::Linear)?,
        Mode::Fastest => job.by_label(RestoreOrder::Nearest)?,
    };

    let Finished { labelmap, probabilities, confidence, slid, export_secs } = finished;
    let report = PredictReport {
        mode: options.mode,
        reference: settings.reference,
        accumulation: settings.effective_accumulation(),
        orientation: model.plans().seen(trace.geometry()),
        network_shape: shape,
        window: settings.window,
        num_windows: slid.num_windows,
        num_passes: slid.num_passes,
        estimated_secs,
        memory: plan,
        sums_bytes: slid.peak_bytes,
        timings: Timings {
            preprocess_secs: secs,
            windows_secs: slid.windows_secs,
            network_secs: slid.network_secs,
            export_secs,
        },
    };
    Ok(Prediction { labelmap, probabilities, confidence, report })
}

/// Settings as a plan wants them.
fn follow(
    settings: &mut WindowSettings,
    plan: &MemoryPlan,
    model: &Model,
    options: &PredictOptions,
) {
    settings.keep = plan.keep;
    settings.windows_at_once = plan.windows_at_once;
    settings.average_passes = averages_passes(model, settings, &heads(model), options);
}

/// Where the part of a volume lies that a trace is of, if it is of a part.
pub(crate) fn part_of(trace: &Trace) -> Option<PartOf> {
    let [z, y, x] = trace.part_of_network()?;
    Some(PartOf { whole: trace.whole_network_shape(), offset: [z, y, x].map(|[from, _]| from) })
}

/// How long the windows of a plan will take; none where that is neither known nor worth measuring.
fn estimated_secs(
    model: &Model,
    settings: &WindowSettings,
    plan: &MemoryPlan,
    options: &PredictOptions,
) -> Option<f64> {
    let per_window = mirror::passes(settings.reference, &settings.mirror_axes).len();
    let passes = plan.num_windows * per_window * model.networks().len();
    let pass_secs =
        options.pass_secs.or_else(|| speed::measure(model, settings, Some(passes), options));
    pass_secs.map(|secs| secs * passes as f64)
}

/// Seconds of one pass over a window, measured here and now; none where there is no clock.
pub(crate) fn pass_secs(
    model: &Model,
    options: &PredictOptions,
) -> Result<Option<f64>, InferError> {
    let settings = window_settings(model, options)?;
    Ok(speed::measure(model, &settings, None, options))
}

/// What the caller is told of a plan.
fn told(plan: &MemoryPlan, secs: Option<f64>) -> PredictEvent {
    PredictEvent::Plan {
        num_tiles: plan.tiles.len(),
        num_windows: plan.num_windows,
        num_repeated: plan.num_repeated,
        keep: plan.keep,
        sums_bytes: plan.sums_bytes,
        total_bytes: plan.total_bytes(),
        device_bytes: plan.device_bytes,
        windows_at_once: plan.windows_at_once,
        on_host: plan.on_host,
        secs,
    }
}

/// The heads of networks on the processor; none where a network has no head that can wait.
fn heads(model: &Model) -> Option<Vec<Head>> {
    model.networks().iter().map(|network| network.featured()?.head()).collect()
}

/// Whether so many feature maps may be averaged instead of values: before each of these heads.
fn averages_before(
    model: &Model,
    settings: &WindowSettings,
    heads: &Option<Vec<Head>>,
    (options, folds): (&PredictOptions, usize),
) -> bool {
    let Some(heads) = heads else { return false };
    let outputs = model.outputs();
    let most = heads.iter().map(|head| head.num_features).max().unwrap_or(0);
    options.average_features
        && settings.averages(outputs) == outputs
        && heads.iter().all(|head| head.is_affine)
        && sums_features(folds, most, model.labels().num_outputs())
}

/// Whether feature maps are averaged over windows, which are summed for each network.
fn averages_features(
    model: &Model,
    settings: &WindowSettings,
    heads: &Option<Vec<Head>>,
    options: &PredictOptions,
) -> bool {
    let folds = model.networks().len();
    settings.effective_accumulation() == Accumulation::F32
        && averages_before(model, settings, heads, (options, folds))
}

/// Whether feature maps are averaged over the mirrored passes of a network over a window.
fn averages_passes(
    model: &Model,
    settings: &WindowSettings,
    heads: &Option<Vec<Head>>,
    options: &PredictOptions,
) -> bool {
    averages_before(model, settings, heads, (options, 1))
}

/// The memory plan of a prediction.
fn plan(
    model: &Model,
    settings: &WindowSettings,
    windows: &Windows,
    (taps, trace): (&[AxisTaps; 3], &Trace),
    options: &PredictOptions,
) -> Result<MemoryPlan, InferError> {
    let voxels = |shape: [usize; 3]| shape.iter().product::<usize>() as u64;
    let file = voxels(trace.geometry().shape());
    let network = voxels(windows.volume_shape());
    let labels = match options.mode {
        Mode::Normal => LabelVoxels::bytes_each(model.labels().max_value()) as u64 * file,
        // Labels at both resolutions, and again before they are pasted.
        _ => 2 * network + 4 * file,
    };
    let graded = if options.confidence.is_some() { file } else { 0 };
    // Labels are written as far as the windows have come, unless their planes are other planes.
    let in_order = options.mode == Mode::Normal
        && trace.transpose_forward() == [0, 1, 2]
        && trace.geometry().turn() == Turn::NONE;
    let volume = 4 * network * model.plans().num_channels() as u64;
    let num_passes = mirror::passes(settings.reference, &settings.mirror_axes).len();
    let own = options.device_has_own_memory;
    let heads = heads(model);
    let num_classes = model.labels().num_outputs();
    let num_features = heads.iter().flatten().map(|head| head.num_features).max();
    let averages_features = averages_features(model, settings, &heads, options);
    let averages_passes = averages_passes(model, settings, &heads, options);
    let few = averages_features || averages_passes;
    let summed = (num_passes, num_features.filter(|_| few).unwrap_or(num_classes));
    let needs = Needs {
        windows,
        taps,
        num_classes,
        num_folds: model.networks().len(),
        num_passes: if averages_passes { 1 } else { num_passes },
        num_features,
        averages_features,
        kept_weights: model.networks().iter().map(|n| n.kept_weight_bytes(settings.window)).sum(),
        accumulation: settings.effective_accumulation(),
        window_bytes: window_bytes(model.networks(), settings.window, summed, own)?,
        held: Held { volume, written: labels + graded, in_order },
        device: device_room(model, settings, options),
        stored: options.save_probabilities.is_some(),
        labels_only: options.save_probabilities.is_none() && options.confidence.is_none(),
    };
    needs.plan(options.memory_bytes)
}

/// What the model's device offers for sums. Restoring runs beside it, on a thread of its own.
fn device_room(
    model: &Model,
    settings: &WindowSettings,
    options: &PredictOptions,
) -> Option<DeviceRoom> {
    match (platform::THREADS, options.device_sums_bytes) {
        (false, _) | (true, Some(0)) => None,
        (true, allowed) => DeviceRoom::of(model.networks(), settings.window, allowed),
    }
}

/// How the windows of a prediction are laid and averaged.
///
/// # Errors
/// When the options contradict each other or the model.
pub(crate) fn window_settings(
    model: &Model,
    options: &PredictOptions,
) -> Result<WindowSettings, InferError> {
    if options.save_probabilities.is_some() && options.mode != Mode::Normal {
        return Err(InferError::Unsupported {
            option: "save probabilities",
            reason: "modes fast and fastest have none at the image's resolution; use mode normal",
        });
    }
    if options.confidence.is_some() && options.mode != Mode::Normal {
        return Err(InferError::Unsupported {
            option: "confidence",
            reason: "modes fast and fastest have none at the image's resolution; use mode normal",
        });
    }
    if options.confidence.is_some() && model.outputs() == Outputs::Scores {
        return Err(InferError::Unsupported {
            option: "confidence",
            reason: "the model's network gives scores, which are no probabilities; predict without",
        });
    }
    let conventions = &model.plans().reference.conventions().prediction;
    let halves = options.accumulation == Some(Accumulation::F16);
    if halves && !conventions.sums_in_half_precision {
        return Err(InferError::Unsupported {
            option: "accumulation f16",
            reason: "nnU-Net v1 sums in f32, and so is this model predicted",
        });
    }
    let mut settings = WindowSettings::of(model.plans());
    settings.step_size = options.step_size;
    if !options.mirror {
        settings.mirror_axes.clear();
    }
    if let Some(accumulation) = options.accumulation {
        settings.accumulation = accumulation;
    }
    Ok(settings)
}

fn tell(
    events: &mut dyn FnMut(PredictEvent) -> ControlFlow<()>,
    event: PredictEvent,
) -> Result<(), InferError> {
    match events(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(InferError::Interrupted),
    }
}

/// One image on its way through the windows.
struct Job<'a> {
    model: &'a Model,
    settings: &'a WindowSettings,
    plan: &'a MemoryPlan,
    /// Taken by the windows.
    volume: Option<Volume<'static>>,
    trace: &'a Trace,
    events: &'a mut dyn FnMut(PredictEvent) -> ControlFlow<()>,
}

struct Finished {
    labelmap: CompactLabelMap,
    probabilities: Option<PathBuf>,
    confidence: Option<Array3<u8>>,
    slid: SlideReport,
    export_secs: f64,
}

impl Job<'_> {
    fn normal(
        &mut self,
        taps: [AxisTaps; 3],
        options: &PredictOptions,
    ) -> Result<Finished, InferError> {
        // PyTorch's function gives single precision, whatever it is given.
        let half = self.settings.effective_accumulation() == Accumulation::F16
            && self.model.plans().resampling == Resampling::ScikitImage;
        let num_classes = self.model.labels().num_outputs();
        let placement = self.trace.placement();
        let shape = self.trace.output_shape();
        let format = options.probability_format;
        let file = options
            .save_probabilities
            .as_ref()
            .map(|path| ProbabilityFile::create(path, format, self.kind(), num_classes, shape));
        let regions = self.model.labels().has_regions();
        let confidence = options
            .confidence
            .map(|measure| Confidence::new(measure, self.kind(), regions, placement.shape()));
        let extras = Extras { confidence, probabilities: file.transpose()? };
        let mut restore = Restore::new(taps, half, self.decision(), placement, extras);
        let slid = self.slide(&mut restore)?;

        let clock = Moment::now();
        tell(self.events, PredictEvent::Stage(Stage::Export))?;
        let (labels, extras) = restore.finish();
        let labelmap =
            CompactLabelMap { voxels: labels, geometry: self.trace.geometry().in_file().clone() };
        let frame = self.frame();
        if let Some(path) =
            options.save_probabilities.as_ref().filter(|_| self.has_properties(format))
        {
            properties::write(self.trace, self.model.plans().reader, path)?;
        }
        let probabilities =
            extras.probabilities.map(|file| file.finish(&frame, options.record.as_deref()));
        let probabilities = probabilities.transpose()?;
        let confidence = extras.confidence.map(Confidence::into_volume);
        let export_secs = clock.secs();
        Ok(Finished { labelmap, probabilities, confidence, slid, export_secs })
    }

    fn by_label(&mut self, order: RestoreOrder) -> Result<Finished, InferError> {
        let mut sink = NetworkLabels::new(self.trace.network_shape(), self.decision());
        let slid = self.slide(&mut sink)?;

        let clock = Moment::now();
        tell(self.events, PredictEvent::Stage(Stage::Export))?;
        let labelmap = self.trace.restore_labels(sink.into_labels().view(), order).into();
        let export_secs = clock.secs();
        Ok(Finished { labelmap, probabilities: None, confidence: None, slid, export_secs })
    }

    fn slide(&mut self, sink: &mut dyn RowSink) -> Result<SlideReport, InferError> {
        let volume = self.volume.take().expect("a case slides once");
        let networks: Vec<&dyn Network> =
            self.model.networks().iter().map(|network| &**network).collect();
        let events = &mut *self.events;
        let tiles = &self.plan.tiles;
        let _kept = stunet_model::keep_weights(self.plan.weights_bytes);
        let slid =
            slide_tiles(&networks, volume, self.settings, tiles, sink, &mut |done, total| {
                events(PredictEvent::Windows { done, total })
            });
        // What follows, or another program, has other uses for memory.
        stunet_model::release_memory();
        if let Some(network) = networks.first().and_then(|network| network.resident()) {
            network.device().memory_cleanup();
        }
        slid
    }

    fn decision(&self) -> Decision {
        let labels = self.model.labels();
        match labels.region_order() {
            Some(order) if labels.has_regions() => Decision::Regions {
                order: order.to_vec(),
                threshold: match self.averages() {
                    Outputs::Probabilities => 0.5,
                    Outputs::Logits | Outputs::Scores => 0.0,
                },
            },
            _ => {
                let first = labels.labels().iter().map(|l| l.values[0]);
                Decision::Largest { labels: first.collect() }
            }
        }
    }

    /// What the averages over windows are.
    fn averages(&self) -> Outputs {
        self.settings.averages(self.model.outputs())
    }

    fn kind(&self) -> ProbabilityKind {
        match (self.averages(), self.model.labels().has_regions()) {
            (Outputs::Logits, true) => ProbabilityKind::Sigmoid,
            (Outputs::Logits, false) => ProbabilityKind::Softmax,
            // The frame goes with the arithmetic.
            _ if self.extent() == ProbabilityExtent::Crop => ProbabilityKind::AsTheyAre,
            (outputs, regions) => {
                ProbabilityKind::Kept { background: outputs == Outputs::Probabilities && !regions }
            }
        }
    }

    fn extent(&self) -> ProbabilityExtent {
        self.settings.reference.conventions().prediction.probabilities
    }

    /// Whether nnU-Net 2 would find the properties of a case beside its probabilities.
    fn has_properties(&self, format: ProbabilityFormat) -> bool {
        format == ProbabilityFormat::Npz && self.extent() == ProbabilityExtent::Image
    }

    /// What is stored, in the file's axis order.
    fn frame(&self) -> Frame {
        let backward = self.model.plans().transpose_backward();
        let geometry = self.trace.geometry();
        let turn = geometry.turn();
        // The reader's axes: which of the file's they are, and what is stored of them.
        let (shape, lower) = match self.extent() {
            ProbabilityExtent::Crop => {
                let shape = self.trace.output_shape();
                (backward.map(|axis| shape[axis]), [0; 3])
            }
            ProbabilityExtent::Image => {
                (geometry.shape(), self.trace.bounding_box().map(|[from, _]| from))
            }
        };
        let mut frame =
            Frame { transpose_backward: [0; 3], flipped: [false; 3], shape: [0; 3], lower: [0; 3] };
        for (axis, in_file) in turn.axes().into_iter().enumerate() {
            frame.transpose_backward[in_file] = backward[axis];
            frame.flipped[in_file] = turn.flipped()[axis];
            frame.shape[in_file] = shape[axis];
            frame.lower[in_file] = lower[axis];
        }
        frame
    }
}

mod properties;
mod speed;
#[cfg(test)]
mod tests;
