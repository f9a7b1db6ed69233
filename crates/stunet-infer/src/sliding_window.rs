//! Windows through the network, blended into planes that are handed out as they become final.

pub use crate::accumulators::Keep;
use crate::accumulators::{Accumulators, Averages, WindowPass};
use crate::blend::Averaging;
use crate::cutter::Cutter;
use crate::error::InferError;
use crate::importance::importance;
use crate::mirror;
use crate::network::{Network, Outputs};
use crate::platform::{self, Moment};
use crate::sink::{PlaneSink, Planes, RowSink};
use crate::slab::Slab;
use crate::sums::Summing;
use crate::tile::{Tile, tile_starts};
use crate::volume::Volume;
use crate::windows::Windows;
use ndarray::ArrayView4;
use std::ops::{ControlFlow, Range};
use stunet_data::plans::{Accumulation, Plans, Reference};
use stunet_data::reference::AverageOf;

/// How windows are laid over a volume and averaged: what the plans say and what the caller chose.
///
/// ```
/// use stunet_infer::sliding_window::WindowSettings;
/// // Without plans: windows that overlap by a half, not mirrored, summed in f32.
/// let settings = WindowSettings::new([64, 96, 96]);
/// assert_eq!(settings.step_size, 0.5);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct WindowSettings {
    /// Window size `[z, y, x]` in voxels.
    pub window: [usize; 3],
    /// Largest step between windows, in windows.
    pub step_size: f64,
    /// Axes of `[z, y, x]` along which windows are also predicted mirrored; none switches
    /// mirroring off.
    pub mirror_axes: Vec<usize>,
    /// Whose arithmetic.
    pub reference: Reference,
    /// Precision of the sums; v1 always sums in f32.
    pub accumulation: Accumulation,
    /// What of the windows is held until their voxels are final, and where.
    pub keep: Keep,
    /// Passes over windows that a device computes at once, at most, where sums are there and the network
    /// [takes several](crate::network::Resident::windows_at_once): more work for a large device, and as much more
    /// memory. The values are the same.
    pub windows_at_once: usize,
    /// Average the last feature maps of mirrored passes over a window and compute the network's last layer once for
    /// all of them, where logits are averaged and that layer is [affine](crate::network::Head::is_affine), on the host:
    /// less time, and logits that differ by the rounding of f32.
    pub average_passes: bool,
    /// Where the volume lies in a larger one, if it is a part of one: its windows are those of the larger
    /// one ([`Windows::within`]).
    pub part_of: Option<PartOf>,
}

/// Where a part lies in the network's volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartOf {
    /// Shape of the whole, `[z, y, x]` in voxels.
    pub whole: [usize; 3],
    /// First voxel of the part.
    pub offset: [usize; 3],
}

impl WindowSettings {
    /// Windows of a size `[z, y, x]` at a step of half a window, not mirrored, averaged as nnU-Net
    /// 2.8 does, in f32.
    pub fn new(window: [usize; 3]) -> Self {
        Self {
            window,
            step_size: 0.5,
            mirror_axes: Vec::new(),
            reference: Reference::NnUNetV28,
            accumulation: Accumulation::F32,
            keep: Keep::Sums,
            windows_at_once: 1,
            average_passes: false,
            part_of: None,
        }
    }

    /// The windows of a volume.
    ///
    /// # Errors
    /// As [`Windows::new`].
    pub fn windows(&self, shape: [usize; 3]) -> Result<Windows, InferError> {
        let Some(PartOf { whole, offset }) = self.part_of else {
            return Windows::new(shape, self.window, self.step_size);
        };
        Windows::new(whole, self.window, self.step_size)?.within(offset, shape, self.step_size)
    }

    /// The windows of `plans` at a step of half a window, mirrored along every axis the plans allow.
    pub fn of(plans: &Plans) -> Self {
        Self {
            mirror_axes: plans.mirror_axes.clone(),
            reference: plans.reference,
            accumulation: plans.accumulation,
            ..Self::new(plans.patch_size)
        }
    }

    /// What the averages over windows are that are handed out: nnU-Net 1 turns the logits of every
    /// window into probabilities first; all else stays what the network computes.
    pub fn averages(&self, outputs: Outputs) -> Outputs {
        match (self.reference.conventions().prediction.averages, outputs) {
            (AverageOf::Probabilities, Outputs::Logits) => Outputs::Probabilities,
            (_, outputs) => outputs,
        }
    }

    fn averaging(&self, outputs: Outputs) -> Averaging {
        match self.averages(outputs) == outputs {
            true => Averaging::AsTheyAre,
            false => Averaging::Probabilities,
        }
    }

    /// Precision of the sums: v1 knows only f32.
    pub(crate) fn effective_accumulation(&self) -> Accumulation {
        match self.reference.conventions().prediction.sums_in_half_precision {
            true => self.accumulation,
            false => Accumulation::F32,
        }
    }

    /// The importance map; v1 has none where a single window covers the volume.
    fn importance(&self, num_windows: usize) -> Option<Vec<f32>> {
        let weighted = self.reference.conventions().prediction.weights_single_window;
        if num_windows == 1 && !weighted {
            return None;
        }
        let map = importance(self.reference, self.effective_accumulation(), self.window);
        Some(map.into_raw_vec_and_offset().0)
    }

    /// Where the windows of `networks` are summed, `num_passes` passes of each.
    fn summing<'a>(
        &self,
        networks: &'a [&'a dyn Network],
        num_windows: usize,
        num_passes: usize,
    ) -> Summing<'a> {
        let (num_classes, outputs) = (networks[0].num_classes(), networks[0].outputs());
        let alike = |n: &&dyn Network| n.num_classes() == num_classes && n.outputs() == outputs;
        assert!(networks.iter().all(alike), "folds of one model");
        let averages = Averages {
            averaging: self.averaging(outputs),
            num_classes,
            window: self.window,
            importance: self.importance(num_windows),
            num_passes,
            passes_first: self.average_passes && num_passes > 1,
            at_once: self.windows_at_once,
        };
        let singles = self.effective_accumulation() == Accumulation::F32;
        let keep = match self.keep {
            Keep::DeviceSums if !platform::THREADS || !singles => Keep::Sums,
            Keep::FeatureSums if !singles => Keep::Features,
            keep => keep,
        };
        Summing::new(networks, averages, keep)
    }
}

/// What [`slide`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SlideReport {
    /// Number of windows.
    pub num_windows: usize,
    /// Forward passes over each window: mirrored ones times folds.
    pub num_passes: usize,
    /// Seconds from the first window to the last plane; 0 in WebAssembly, which has no clock.
    pub windows_secs: f64,
    /// Of those, seconds in [`Network::predict_window`].
    pub network_secs: f64,
    /// Most bytes of sums held on the host.
    pub peak_bytes: usize,
}

/// Predicts a preprocessed volume window by window, averaging over `networks` (folds), and hands
/// each plane to `sink`.
///
/// `progress` is called with (windows done, windows in all) before the first and after every
/// window; its `Break` stops the prediction.
///
/// # Shapes
/// `image` `[Cin, Z, Y, X]` in the network's frame and resolution.
///
/// # Errors
/// A step size out of range, sums that overflow, a sink that fails, [`InferError::Interrupted`].
///
/// # Panics
/// When `networks` is empty or they differ in their number of classes or what their values are.
///
/// # Source
/// nnU-Net 1.7.1 `neural_network.py::_internal_predict_3D_3Dconv_tiled`; nnU-Net 2.2 and 2.8
/// `predict_from_raw_data.py::predict_sliding_window_return_logits`.
///
/// # Deviations
/// The sums live in a [`Slab`] instead of two arrays of classes × volume; the values are the same,
/// except that with several folds f32 sums are formed over all folds at once.
pub fn slide(
    networks: &[&dyn Network],
    image: ArrayView4<'_, f32>,
    settings: &WindowSettings,
    sink: &mut dyn PlaneSink,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<SlideReport, InferError> {
    let (_, z, y, x) = image.dim();
    let whole = [Tile::whole([z, y, x], [z, y, x])];
    let mut sink = Planes::new(sink);
    slide_tiles(networks, image.into(), settings, &whole, &mut sink, progress)
}

/// As [`slide`], tile after tile, handing out rows; planes of an owned `image` are freed behind the
/// windows of the last tile.
///
/// Every voxel's sum has the terms of [`slide`] in the same order, whatever the tiles: values are
/// equal bit by bit.
///
/// # Errors
/// As [`slide`].
///
/// # Panics
/// As [`slide`].
pub fn slide_tiles(
    networks: &[&dyn Network],
    image: Volume<'_>,
    settings: &WindowSettings,
    tiles: &[Tile],
    sink: &mut dyn RowSink,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<SlideReport, InferError> {
    let clock = Moment::now();
    let num_classes = networks[0].num_classes();
    let [_, z, y, x] = image.shape();
    let windows = settings.windows([z, y, x])?;
    let passes = mirror::passes(settings.reference, &settings.mirror_axes);
    let starts: Vec<_> = tiles.iter().map(|tile| tile_starts(&windows, tile)).collect();
    let mut summing = settings.summing(networks, windows.len(), passes.len());
    let mut run = Run {
        image,
        last_tile: false,
        windows: &windows,
        reach: [0..0, 0..0],
        passes,
        num_folds: networks.len(),
        progress,
        done: 0,
        total: starts.iter().map(|[z, y, x]| z.len() * y.len() * x.len()).sum(),
        network_secs: 0.0,
    };
    run.step()?;
    let (below, mut peak_bytes) = (windows.padding_below(), 0);
    for (index, (tile, starts)) in tiles.iter().zip(&starts).enumerate() {
        run.last_tile = index + 1 == tiles.len();
        sink.begin(tile)?;
        let region = (z, tile.rows.clone(), tile.columns.clone());
        let accumulation = settings.effective_accumulation();
        let slab = Slab::new(num_classes, networks.len(), accumulation, region, below);
        let bytes = summing
            .tile(slab, (tile, below), sink, |sums| run.tile(sums, starts, tile.rows.clone()))?;
        peak_bytes = peak_bytes.max(bytes);
    }
    Ok(SlideReport {
        num_windows: run.total,
        num_passes: run.passes.len() * networks.len(),
        windows_secs: clock.secs(),
        network_secs: run.network_secs,
        peak_bytes,
    })
}

/// The state of one prediction.
struct Run<'a, 'v> {
    image: Volume<'v>,
    /// Whether no later tile needs the planes behind the windows.
    last_tile: bool,
    windows: &'a Windows,
    /// Rows and columns of the padded volume that the windows of the tile reach.
    reach: [Range<usize>; 2],
    passes: Vec<[bool; 3]>,
    num_folds: usize,
    progress: &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    done: usize,
    total: usize,
    network_secs: f64,
}

impl Run<'_, '_> {
    fn step(&mut self) -> Result<(), InferError> {
        match (self.progress)(self.done, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(InferError::Interrupted),
        }
    }

    /// All windows of a tile; behind each row of windows, rows of voxels are closed and handed out.
    /// Breaks when nobody takes them any more.
    fn tile(
        &mut self,
        sums: &mut dyn Accumulators,
        [zs, ys, xs]: &[Vec<usize>; 3],
        rows: Range<usize>,
    ) -> Result<ControlFlow<()>, InferError> {
        let [depth, ..] = self.windows.volume_shape();
        let below = self.windows.padding_below();
        let [_, height, width] = self.windows.window_shape();
        let reach = |starts: &[usize], size: usize| match (starts.first(), starts.last()) {
            (Some(first), Some(last)) => *first..last + size,
            _ => 0..0,
        };
        self.reach = [reach(ys, height), reach(xs, width)];
        let mut closed_z = 0;
        for (i, &z) in zs.iter().enumerate() {
            sums.advance(z);
            let next_z = zs.get(i + 1).map_or(depth, |next| next.saturating_sub(below[0]));
            let next_z = next_z.clamp(closed_z, depth);
            let mut closed_y = rows.start;
            for (j, &y) in ys.iter().enumerate() {
                for &x in xs {
                    self.window(sums, [z, y, x])?;
                }
                let next_y = ys.get(j + 1).map_or(rows.end, |next| next.saturating_sub(below[1]));
                let next_y = next_y.clamp(closed_y, rows.end);
                if next_z > closed_z && next_y > closed_y {
                    let closed = sums.close(closed_z..next_z, closed_y..next_y)?;
                    if closed.is_break() {
                        return Ok(closed);
                    }
                }
                closed_y = next_y;
            }
            closed_z = next_z;
            self.pass_planes(next_z);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// No window of this tile begins below plane `z` any more.
    fn pass_planes(&mut self, z: usize) {
        if self.last_tile {
            self.image.give_up_below(z);
        }
    }

    fn window(&mut self, sums: &mut dyn Accumulators, start: [usize; 3]) -> Result<(), InferError> {
        let count = self.passes.len();
        for fold in 0..self.num_folds {
            for index in 0..count {
                let flips = self.passes[index];
                let pass = WindowPass { start, flips, fold, index, count };
                let reach = self.reach.clone();
                let cutter = Cutter { image: &self.image, windows: self.windows, reach };
                self.network_secs += sums.add(&cutter, &pass);
                // Mirrored windows take minutes on a CPU: ask between them as well.
                if index + 1 < count {
                    self.step()?;
                }
            }
        }
        self.network_secs += sums.add_weights(start)?;
        self.done += 1;
        self.step()
    }
}

#[cfg(test)]
pub(crate) mod tests;
