//! How long a pass takes here, measured where a prediction is long enough to ask.

use super::PredictOptions;
use crate::error::InferError;
use crate::model::Model;
use crate::network::upload;
use crate::platform::{CLOCK, Moment};
use crate::sink::RowSink;
use crate::slab::Slab;
use crate::sliding_window::{Keep, WindowSettings, slide_tiles};
use crate::tile::Tile;
use ndarray::Array4;
use std::ops::{ControlFlow, Range};

/// Seconds of all passes together below which nobody needs to know them before they begin.
const SHORT_SECS: f64 = 60.0;

/// Seconds of one pass over a window of `settings`; none where so many `passes` are too few to spend one on
/// it, or take less than a minute.
///
/// The processor is asked with an eighth of a window; devices compile and tune for the shapes they
/// meet, so they get a window as it will be. The first pass makes room, and tells only what is short.
pub(super) fn measure(
    model: &Model,
    settings: &WindowSettings,
    passes: Option<usize>,
    options: &PredictOptions,
) -> Option<f64> {
    /// About a hundredth of the work: three passes of an eighth, or whole ones.
    const FEWEST: [usize; 2] = [25, 200];
    let fewest = FEWEST[usize::from(options.device_has_own_memory)];
    if !CLOCK || passes.is_some_and(|passes| passes < fewest) {
        return None;
    }
    let network = &**model.networks().first()?;
    let whole = network.cost(settings.window).ok()?;
    let half = settings.window.map(|n| n / 2);
    let (shape, cost) = match network.cost(half) {
        Ok(cost) if !options.device_has_own_memory => (half, cost),
        _ => (settings.window, whole),
    };
    let [z, y, x] = shape;
    let volume = Array4::zeros((network.in_channels(), z, y, x));
    let there = network.resident().filter(|_| settings.keep == Keep::DeviceSums);
    let pass = || {
        if let Some(network) = there {
            // The values stay there, and what is made of them takes a small part of the time.
            let device = network.device();
            let clock = Moment::now();
            let values = network.predict_window_on_device(upload(volume.clone(), &device));
            device.sync().ok()?;
            drop(values);
            return Some(clock.secs());
        }
        if options.device_has_own_memory {
            // Sums of a whole window on the host may be more than the plan has room for.
            let clock = Moment::now();
            network.predict_window(volume.clone(), &mut |_, _| ());
            return Some(clock.secs());
        }
        // A volume of one window: the pass, and what is done with its logits.
        let once = WindowSettings {
            window: shape,
            mirror_axes: Vec::new(),
            part_of: None,
            ..settings.clone()
        };
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let (image, tiles) = (volume.view().into(), [Tile::whole(shape, shape)]);
        let slid = slide_tiles(&[network], image, &once, &tiles, &mut Nowhere, go_on);
        Some(slid.ok()?.windows_secs)
    };
    // Memory is fresh in the first, and that of the first in the others.
    let scale = whole.work / cost.work;
    let first = pass()? * scale;
    if passes.is_some_and(|passes| first * passes as f64 <= SHORT_SECS) {
        return None;
    }
    Some(pass()?.min(pass()?) * scale)
}

/// Takes rows and forgets them.
struct Nowhere;

impl RowSink for Nowhere {
    fn begin(&mut self, _: &Tile) -> Result<(), InferError> {
        Ok(())
    }

    fn rows(
        &mut self,
        slab: &mut Slab,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<(), InferError> {
        for z in planes {
            rows.clone().for_each(|y| slab.release(z, y));
        }
        Ok(())
    }
}
