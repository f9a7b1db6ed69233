//! Where the windows of a prediction are summed: on the host, or where the networks compute.

use crate::accumulators::{Accumulators, Averages, Keep, WindowPass};
use crate::band::{self, Band, Outlet, Weighting};
use crate::blend::{Blender, Pass};
use crate::cutter::{Cutter, DeviceLayer};
use crate::error::InferError;
use crate::kept::Trunks;
use crate::network::{Network, Resident};
use crate::platform::Moment;
use crate::sink::RowSink;
use crate::slab::Slab;
use crate::tile::Tile;
use std::ops::{ControlFlow, Range};
use stunet_model::{MirroredPass, device_memory};

/// The networks, and where their windows are summed.
pub(crate) enum Summing<'a> {
    /// Not summed before all have come.
    Kept(Box<Trunks<'a>>),
    /// On the host.
    Host { networks: &'a [&'a dyn Network], blender: Blender },
    /// Where the networks compute.
    Device { networks: Vec<&'a dyn Resident>, weighting: Box<Weighting>, num_classes: usize },
}

impl<'a> Summing<'a> {
    /// As is asked for, if all networks can do so, else on the host.
    pub fn new(networks: &'a [&'a dyn Network], averages: Averages, keep: Keep) -> Self {
        let averages = match keep {
            Keep::Features => match Trunks::new(networks, averages) {
                Ok(trunks) => return Self::Kept(Box::new(trunks)),
                Err(averages) => averages,
            },
            _ => averages,
        };
        let on_device = keep == Keep::DeviceSums;
        let Averages { averaging, num_classes, window, importance, num_passes } = averages;
        match on_device.then(|| band::residents(networks)).flatten() {
            Some(networks) => {
                let device = networks[0].device();
                let weighting = Weighting::new(averaging, window, importance, &device);
                Self::Device { networks, weighting: Box::new(weighting), num_classes }
            }
            None => {
                let blender = Blender::new(averaging, num_classes, window, importance, num_passes);
                Self::Host { networks, blender }
            }
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
            Self::Host { networks, blender } => {
                let slab = &mut slab;
                // The sink of the host fails by itself, and never breaks.
                let _ = windows(&mut HostSums { networks, blender, slab, sink })?;
                Ok(slab.bytes())
            }
            Self::Device { networks, weighting, num_classes } => {
                let rule = sink.rule();
                let band = Band::new(weighting, *num_classes, (tile, below), rule);
                let device = networks[0].device();
                let most = device_memory(&device).map_or(u64::MAX, |memory| memory.most_at_once);
                let layer = DeviceLayer::new(device, most);
                band::with_sink_thread(slab, sink, networks.len(), |outlet| {
                    windows(&mut DeviceSums { networks, layer, band, outlet, unfinished: 0 })
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

/// Windows whose work a device has been given and may not have done.
const MOST_UNFINISHED: usize = 2;

/// Sums in a [`Band`] on the device.
struct DeviceSums<'a> {
    networks: &'a [&'a dyn Resident],
    /// What the present windows are cut from.
    layer: DeviceLayer,
    band: Band,
    outlet: &'a Outlet,
    /// Windows since the device was last waited for.
    unfinished: usize,
}

impl Accumulators for DeviceSums<'_> {
    fn advance(&mut self, z: usize) {
        self.band.advance(z);
    }

    fn add(&mut self, cutter: &Cutter<'_, '_>, pass: &WindowPass) -> f64 {
        let WindowPass { start, flips, fold, index, count } = *pass;
        let forward = Moment::now();
        let window = self.layer.window(cutter, start, flips);
        let values = self.networks[fold].predict_window_on_device(window);
        let secs = forward.secs();
        self.band.add(values, MirroredPass { flips, index, count }, start);
        secs
    }

    fn add_weights(&mut self, start: [usize; 3]) -> Result<f64, InferError> {
        self.band.add_weights(start);
        self.unfinished += 1;
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
            true => Ok(self.outlet.send(&mut self.band, planes)),
            false => Ok(ControlFlow::Continue(())),
        }
    }
}
