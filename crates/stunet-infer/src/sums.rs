//! Where the windows of a prediction are summed: on the host, or where the networks compute.

use crate::accumulators::{Accumulators, Averages, Keep, WindowPass};
use crate::band::{self, Band, Outlet, Weighting};
use crate::blend::{Blender, Pass};
use crate::cutter::{Cutter, DeviceLayer};
use crate::error::InferError;
use crate::feature_sums::AveragedTrunks;
use crate::kept::{MeanOfPasses, Trunks};
use crate::network::{MOST_AT_ONCE, Network, Resident};
use crate::platform::Moment;
use crate::sink::RowSink;
use crate::slab::Slab;
use crate::tile::Tile;
use burn::tensor::Tensor;
use rayon::prelude::*;
use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use stunet_model::{MirroredPass, WindowValues, device_memory};

/// The networks, and where their windows are summed.
pub(crate) enum Summing<'a> {
    /// Not summed before all have come.
    Kept(Box<Trunks<'a>>),
    /// On the host, behind one head for all passes over a window.
    OneHead { trunks: Box<Trunks<'a>>, blender: Blender, mean: MeanOfPasses },
    /// Before their heads.
    BeforeHeads(Box<AveragedTrunks<'a>>),
    /// On the host.
    Host { networks: &'a [&'a dyn Network], blender: Blender },
    /// Where the networks compute.
    Device {
        networks: Vec<&'a dyn Resident>,
        weighting: Box<Weighting>,
        num_classes: usize,
        at_once: usize,
    },
}

impl<'a> Summing<'a> {
    /// As is asked for, if all networks can do so, else on the host.
    pub fn new(networks: &'a [&'a dyn Network], averages: Averages, keep: Keep) -> Self {
        let averages = match keep {
            Keep::Features | Keep::FeatureSums => match Trunks::new(networks, averages) {
                Ok(trunks) => return Self::of(trunks, keep),
                Err(averages) => averages,
            },
            Keep::Sums if averages.passes_first => match Trunks::new(networks, averages) {
                Ok(trunks) if trunks.means_first() => return Self::one_head(trunks),
                Ok(trunks) => trunks.into_averages(),
                Err(averages) => averages,
            },
            _ => averages,
        };
        let on_device = keep == Keep::DeviceSums;
        let Averages { averaging, num_classes, window, importance, num_passes, at_once, .. } =
            averages;
        match on_device.then(|| band::residents(networks)).flatten() {
            Some(networks) => {
                let device = networks[0].device();
                let weighting = Box::new(Weighting::new(averaging, window, importance, &device));
                let taken = networks.iter().map(|network| network.windows_at_once()).min();
                let at_once = at_once.min(taken.unwrap_or(1)).max(1);
                Self::Device { networks, weighting, num_classes, at_once }
            }
            None => {
                let blender = Blender::new(averaging, num_classes, window, importance, num_passes);
                Self::Host { networks, blender }
            }
        }
    }

    fn one_head(trunks: Trunks<'a>) -> Self {
        let Averages { averaging, num_classes, window, importance, .. } = trunks.averages();
        let blender = Blender::new(*averaging, *num_classes, *window, importance.clone(), 1);
        Self::OneHead { trunks: Box::new(trunks), blender, mean: MeanOfPasses::default() }
    }

    fn of(trunks: Trunks<'a>, keep: Keep) -> Self {
        match keep == Keep::FeatureSums && AveragedTrunks::take(&trunks) {
            true => Self::BeforeHeads(Box::new(AveragedTrunks::new(trunks))),
            false => Self::Kept(Box::new(trunks)),
        }
    }

    /// Sums the windows of a tile, which `windows` goes through, and gives final rows to `sink`.
    /// Returns the most bytes of sums held on the host.
    pub fn tile(
        &mut self,
        mut slab: Slab,
        (tile, below): (&Tile, [usize; 3]),
        sink: &mut dyn RowSink,
        windows: impl FnOnce(&mut dyn Accumulators) -> Result<ControlFlow<()>, InferError>,
    ) -> Result<usize, InferError> {
        match self {
            Self::Kept(trunks) => {
                let mut kept = trunks.keep(&mut slab, sink);
                let _ = windows(&mut kept)?;
                Ok(kept.bytes())
            }
            Self::OneHead { trunks, blender, mean } => {
                let slab = &mut slab;
                let _ = windows(&mut HeadedSums { trunks, blender, mean, slab, sink })?;
                Ok(slab.bytes())
            }
            Self::BeforeHeads(trunks) => {
                let mut sums = trunks.sums(&mut slab, below, sink);
                let _ = windows(&mut sums)?;
                Ok(sums.bytes())
            }
            Self::Host { networks, blender } => {
                let slab = &mut slab;
                // The sink of the host fails by itself, and never breaks.
                let _ = windows(&mut HostSums { networks, blender, slab, sink })?;
                Ok(slab.bytes())
            }
            Self::Device { networks, weighting, num_classes, at_once } => {
                let rule = sink.rule();
                let band = Band::new(weighting, *num_classes, (tile, below), rule);
                let device = networks[0].device();
                let most = device_memory(&device).map_or(u64::MAX, |memory| memory.most_at_once);
                let layer = DeviceLayer::new(device, most);
                band::with_sink_thread(slab, sink, networks.len(), |outlet| {
                    let (at_once, given, unfinished) = (*at_once, Vec::new(), 0);
                    let mut sums =
                        DeviceSums { networks, layer, band, outlet, at_once, given, unfinished };
                    let flow = windows(&mut sums)?;
                    sums.compute();
                    Ok(flow)
                })
            }
        }
    }
}

/// Sums in a [`Slab`].
struct HostSums<'a> {
    networks: &'a [&'a dyn Network],
    blender: &'a mut Blender,
    slab: &'a mut Slab,
    sink: &'a mut dyn RowSink,
}

impl Accumulators for HostSums<'_> {
    fn advance(&mut self, _: usize) {}

    fn add(&mut self, cutter: &Cutter<'_, '_>, pass: &WindowPass) -> f64 {
        let WindowPass { start, flips, fold, index, count } = *pass;
        let window = cutter.window(start, flips);
        let forward = Moment::now();
        let mut blend_secs = 0.0;
        self.networks[fold].predict_window(window, &mut |planes, logits| {
            let blend = Moment::now();
            let pass = Pass { logits, planes, flips, index, count };
            self.blender.add(&pass, self.slab, fold, start);
            blend_secs += blend.secs();
        });
        forward.secs() - blend_secs
    }

    fn add_weights(&mut self, start: [usize; 3]) -> Result<f64, InferError> {
        self.blender.add_weights(self.slab, start);
        Ok(0.0)
    }

    fn close(
        &mut self,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<ControlFlow<()>, InferError> {
        self.slab.close(planes.clone(), rows.clone())?;
        self.sink.rows(self.slab, planes, rows)?;
        Ok(ControlFlow::Continue(()))
    }
}

/// Sums in a [`Slab`] of what a head makes of the mean feature maps of all passes over a window.
struct HeadedSums<'a> {
    trunks: &'a Trunks<'a>,
    blender: &'a Blender,
    mean: &'a mut MeanOfPasses,
    slab: &'a mut Slab,
    sink: &'a mut dyn RowSink,
}

impl HeadedSums<'_> {
    /// Computes the values of the mean and adds them.
    fn add_mean(&mut self, fold: usize, start: [usize; 3]) {
        let Blender { window, num_classes, importance, .. } = self.blender;
        let [_, height, width] = *window;
        let (head, mean) = (self.trunks.head(fold), &*self.mean);
        let planes = self.slab.planes(start, *window).into_par_iter().enumerate();
        let planes = planes.filter_map(|(z, plane)| Some((z, plane?)));
        planes.for_each_init(Vec::new, |block: &mut Vec<f32>, (z, mut plane)| {
            block.resize(num_classes * width, 0.0);
            for y in plane.rows() {
                let row = z * height + y;
                (head.run)(mean.row(row, head.num_features, width), width, 0..width, block);
                let importance = importance.as_ref().map(|map| &map[row * width..][..width]);
                for (class, values) in block.chunks_exact(width).enumerate() {
                    plane.add_row((fold, class, y), values, importance);
                }
            }
        });
    }
}

impl Accumulators for HeadedSums<'_> {
    fn advance(&mut self, _: usize) {}

    fn add(&mut self, cutter: &Cutter<'_, '_>, pass: &WindowPass) -> f64 {
        let window = cutter.window(pass.start, pass.flips);
        let forward = Moment::now();
        let features = self.trunks.features(pass.fold, window).into_data();
        let secs = forward.secs();
        let features = features.as_slice::<f32>().expect("features are f32");
        self.mean.take(features, self.blender.window, pass);
        if pass.index + 1 == pass.count {
            self.add_mean(pass.fold, pass.start);
        }
        secs
    }

    fn add_weights(&mut self, start: [usize; 3]) -> Result<f64, InferError> {
        self.blender.add_weights(self.slab, start);
        Ok(0.0)
    }

    fn close(
        &mut self,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<ControlFlow<()>, InferError> {
        self.slab.close(planes.clone(), rows.clone())?;
        self.sink.rows(self.slab, planes, rows)?;
        Ok(ControlFlow::Continue(()))
    }
}

/// Windows whose work a device has been given and may not have done.
const MOST_UNFINISHED: usize = MOST_AT_ONCE;

/// What is to be done for a window, in the order of the sums.
#[allow(clippy::large_enum_variant)] // There are few at a time.
enum Given {
    /// A pass of one of the networks, and its window, `[1, Cin, z, y, x]`.
    Pass { window: Tensor<5>, fold: usize, pass: MirroredPass, start: [usize; 3] },
    /// The weights behind all passes.
    Weights([usize; 3]),
}

/// Sums in a [`Band`] on the device.
struct DeviceSums<'a> {
    networks: &'a [&'a dyn Resident],
    /// What the present windows are cut from.
    layer: DeviceLayer,
    band: Band,
    outlet: &'a Outlet,
    /// Passes that are computed at once, at most.
    at_once: usize,
    /// What waits for more passes.
    given: Vec<Given>,
    /// Windows since the device was last waited for.
    unfinished: usize,
}

impl DeviceSums<'_> {
    /// Passes that wait.
    fn waiting(&self) -> usize {
        self.given.iter().filter(|given| matches!(given, Given::Pass { .. })).count()
    }

    /// Computes what waits and adds it, in its order. Returns the seconds that the networks took.
    fn compute(&mut self) -> f64 {
        let mut secs = 0.0;
        let (mut ready, given) = (VecDeque::new(), std::mem::take(&mut self.given));
        for next in 0..given.len() {
            match &given[next] {
                Given::Weights(start) => {
                    self.band.add_weights(*start);
                    self.unfinished += 1;
                }
                Given::Pass { fold, pass, start, .. } => {
                    let (fold, pass, start) = (*fold, *pass, *start);
                    if ready.is_empty() {
                        let forward = Moment::now();
                        ready = self.forward(fold, &given[next..]);
                        secs += forward.secs();
                    }
                    let values = ready.pop_front().expect("as many values as windows");
                    self.band.add(values, pass, start);
                }
            }
        }
        secs
    }

    /// The values of the first passes that one network computes.
    fn forward(&self, fold: usize, given: &[Given]) -> VecDeque<WindowValues> {
        let passes = given.iter().filter_map(|given| match given {
            Given::Pass { window, fold, .. } => Some((window, *fold)),
            Given::Weights(_) => None,
        });
        let of_fold = passes.take_while(|(_, other)| *other == fold);
        let mut windows: Vec<_> = of_fold.map(|(window, _)| window.clone()).collect();
        let network = self.networks[fold];
        if windows.len() == 1 {
            return VecDeque::from([network.predict_window_on_device(windows.remove(0))]);
        }
        let count = windows.len();
        let values = network.predict_window_on_device(Tensor::cat(windows, 0));
        (0..count).map(|index| one_of(&values, index)).collect()
    }
}

/// Those of one of several windows.
fn one_of(values: &WindowValues, index: usize) -> WindowValues {
    match values {
        WindowValues::Ready(values) => WindowValues::Ready(values.clone().narrow(0, index, 1)),
        WindowValues::BeforeHead { features, weight, bias } => WindowValues::BeforeHead {
            features: features.clone().narrow(0, index, 1),
            weight: weight.clone(),
            bias: bias.clone(),
        },
    }
}

impl Accumulators for DeviceSums<'_> {
    fn advance(&mut self, z: usize) {
        self.compute();
        self.band.advance(z);
    }

    fn add(&mut self, cutter: &Cutter<'_, '_>, pass: &WindowPass) -> f64 {
        let WindowPass { start, flips, fold, index, count } = *pass;
        let window = self.layer.window(cutter, start, flips);
        let pass = MirroredPass { flips, index, count };
        self.given.push(Given::Pass { window, fold, pass, start });
        if self.waiting() < self.at_once { 0.0 } else { self.compute() }
    }

    fn add_weights(&mut self, start: [usize; 3]) -> Result<f64, InferError> {
        self.given.push(Given::Weights(start));
        if self.waiting() == 0 {
            self.compute();
        }
        if self.unfinished < MOST_UNFINISHED {
            return Ok(0.0);
        }
        self.unfinished = 0;
        let waited = Moment::now();
        stunet_model::synchronized(self.layer.device())?;
        Ok(waited.secs())
    }

    /// Whole planes only, so that the device is waited for once per row of windows along z.
    fn close(
        &mut self,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<ControlFlow<()>, InferError> {
        match self.band.ends_with(&rows) {
            true => {
                self.compute();
                Ok(self.outlet.send(&mut self.band, planes))
            }
            false => Ok(ControlFlow::Continue(())),
        }
    }
}
