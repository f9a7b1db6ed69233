//! Accumulators that stay on the device: a band of planes, as deep as a window, over all rows of a tile.
//!
//! On a GPU the logits of a window (880 MB of a published network) take longer to read back than to
//! compute. Here every window is averaged over its mirrored passes, weighted and added where the
//! network computed it. Where only labels are wanted the device decides them ([`crate::deciding`]); else final
//! rows are read back and restored by a thread of its own, so that the device does not wait for them.

use crate::blend::Averaging;
use crate::deciding::Deciding;
use crate::error::InferError;
use crate::network::{Network, Resident};
use crate::sink::{RowDecision, RowSink};
use crate::slab::Slab;
use crate::tile::Tile;
use burn::tensor::{DType, Device, Tensor, TensorData};
use std::ops::{ControlFlow, Range};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use stunet_model::{MirroredPass, WindowAverage, WindowOverlap, WindowSums, WindowValues};

/// Bytes of final rows that are read back at a time.
const PIECE_BYTES: usize = 64 << 20;

/// Rows that are read back at a time.
pub(crate) fn rows_per_piece(num_classes: usize, num_planes: usize, width: usize) -> usize {
    (PIECE_BYTES / (num_classes * num_planes * width * size_of::<f32>()).max(1)).max(1)
}

/// How windows are averaged and weighted, on a device.
pub(crate) struct Weighting {
    average: WindowAverage,
    device: Device,
}

impl Weighting {
    /// `importance` is `[z, y, x]`; none where every voxel counts alike.
    pub fn new(
        averaging: Averaging,
        window: [usize; 3],
        importance: Option<Vec<f32>>,
        device: &Device,
    ) -> Self {
        let importance = importance
            .map(|map| Tensor::from_data(TensorData::new(map, window), (device, DType::F32)));
        let softmax = averaging == Averaging::Probabilities;
        Self { average: WindowAverage { window, importance, softmax }, device: device.clone() }
    }
}

/// The sums of one tile that windows can still reach.
pub(crate) struct Band {
    sums: WindowSums,
    num_classes: usize,
    window: [usize; 3],
    rows: Range<usize>,
    columns: Range<usize>,
    /// Voxels of padding below the volume, per axis.
    below: [usize; 3],
    /// The band's first plane, in the padded volume.
    first: usize,
    /// Where labels are decided on the device.
    deciding: Option<Deciding>,
}

impl Band {
    /// With a `rule`, labels are decided on the device, if it can.
    pub fn new(
        weighting: &Weighting,
        num_classes: usize,
        (tile, below): (&Tile, [usize; 3]),
        rule: Option<RowDecision>,
    ) -> Self {
        let (rows, columns) = (tile.rows.clone(), tile.columns.clone());
        let Weighting { average, device } = weighting;
        let plane = [rows.len(), columns.len()];
        let sums = WindowSums::new(average.clone(), num_classes, plane, device);
        let rule = rule.filter(|_| sums.decides());
        let deciding = rule.map(|rule| Deciding::new(rule, tile, below[0]));
        let window = average.window;
        Self { sums, num_classes, window, rows, columns, below, first: 0, deciding }
    }

    /// Moves to plane `z` of the padded volume; what lies below is forgotten.
    pub fn advance(&mut self, z: usize) {
        self.sums.advance(z - self.first);
        self.first = z;
    }

    /// Where a window at `start` (padded volume) meets the band; none where it does not.
    fn overlap(&self, start: [usize; 3]) -> Option<WindowOverlap> {
        let meet = |axis: usize, within: &Range<usize>| {
            let begin = start[axis];
            let first = within.start + self.below[axis];
            let from = begin.max(first);
            let to = (begin + self.window[axis]).min(within.end + self.below[axis]);
            (from < to).then(|| (from - first..to - first, from - begin))
        };
        let (rows, row) = meet(1, &self.rows)?;
        let (columns, column) = meet(2, &self.columns)?;
        Some(WindowOverlap { rows, columns, first: [row, column] })
    }

    /// Adds one pass over a window.
    pub fn add(&mut self, values: WindowValues, pass: MirroredPass, start: [usize; 3]) {
        debug_assert_eq!(start[0], self.first, "the band has moved to this window");
        if let Some(overlap) = self.overlap(start) {
            self.sums.add(values, pass, &overlap);
        }
    }

    /// Adds the weights of a window, once all its passes have been added.
    pub fn add_weights(&mut self, start: [usize; 3]) {
        if let Some(overlap) = self.overlap(start) {
            self.sums.add_weights(&overlap);
        }
    }

    /// Whether these rows are its last.
    pub fn ends_with(&self, rows: &Range<usize>) -> bool {
        rows.end == self.rows.end
    }

    /// Final values of rows of planes of the volume, averaged over `num_folds`, on the host.
    ///
    /// # Shapes
    /// `[classes, planes, rows, columns]` of successive classes.
    fn take(
        &mut self,
        planes: &Range<usize>,
        rows: &Range<usize>,
        num_folds: usize,
    ) -> Vec<Vec<f32>> {
        let z = planes.start + self.below[0] - self.first;
        let y = rows.start - self.rows.start;
        let taken = self.sums.take(z..z + planes.len(), y..y + rows.len(), num_folds);
        let on_host = |values: Tensor<4>| {
            stunet_model::read(values).try_into_vec::<f32>().expect("sums are f32")
        };
        taken.into_iter().map(on_host).collect()
    }
}

/// What is final, on its way from the device.
enum Final {
    Rows(FinalRows),
    /// Planes of the output, and their labels.
    Labels(Range<usize>, Vec<i32>),
}

/// Final rows.
struct FinalRows {
    planes: Range<usize>,
    rows: Range<usize>,
    /// `[classes, planes, rows, columns]` of successive classes.
    values: Vec<Vec<f32>>,
}

/// Gives what is final to those who restore it.
pub(crate) struct Outlet {
    sender: SyncSender<Final>,
    num_folds: usize,
}

impl Outlet {
    /// Reads back all rows of planes that are final, or their labels, piece by piece. Breaks when the other
    /// side has failed; it knows why.
    pub fn send(&self, band: &mut Band, planes: Range<usize>) -> ControlFlow<()> {
        let give = |what: Final| match self.sender.send(what) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        if let Some(deciding) = &mut band.deciding {
            let mut give = |planes, labels| give(Final::Labels(planes, labels));
            return deciding.close(&mut band.sums, &planes, self.num_folds, &mut give);
        }
        let step = rows_per_piece(band.num_classes, planes.len(), band.columns.len());
        for from in band.rows.clone().step_by(step) {
            let rows = from..(from + step).min(band.rows.end);
            let values = band.take(&planes, &rows, self.num_folds);
            give(Final::Rows(FinalRows { planes: planes.clone(), rows, values }))?;
        }
        ControlFlow::Continue(())
    }
}

/// Runs `windows`, which sends final rows, beside the thread in which `sink` takes them.
///
/// Returns the most bytes of rows held.
pub(crate) fn with_sink_thread(
    mut slab: Slab,
    sink: &mut dyn RowSink,
    num_folds: usize,
    windows: impl FnOnce(&Outlet) -> Result<ControlFlow<()>, InferError>,
) -> Result<usize, InferError> {
    let (sender, receiver) = sync_channel(0);
    std::thread::scope(|scope| {
        let taker = scope.spawn(move || {
            take(&mut slab, sink, &receiver)?;
            Ok(slab.bytes())
        });
        let ran = windows(&Outlet { sender, num_folds });
        let taken = taker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match ran? {
            ControlFlow::Continue(()) => taken,
            ControlFlow::Break(()) => taken.and(Err(InferError::Interrupted)),
        }
    })
}

fn take(
    slab: &mut Slab,
    sink: &mut dyn RowSink,
    pieces: &Receiver<Final>,
) -> Result<(), InferError> {
    for piece in pieces {
        let FinalRows { planes, rows, values } = match piece {
            Final::Rows(rows) => rows,
            Final::Labels(planes, labels) => {
                sink.labels(planes, &labels)?;
                continue;
            }
        };
        let (height, width) = (rows.len(), slab.columns().len());
        let volume = planes.len() * height * width;
        // All have as many classes as the first, but for the last.
        let each = values.first().map_or(1, |values| (values.len() / volume.max(1)).max(1));
        for (index, z) in planes.clone().enumerate() {
            for (row, y) in rows.clone().enumerate() {
                slab.put(z, y, |class| {
                    let at = ((class % each * planes.len() + index) * height + row) * width;
                    &values[class / each][at..at + width]
                })?;
            }
        }
        drop(values);
        sink.rows(slab, planes, rows)?;
    }
    Ok(())
}

/// All networks where one of them is; none when one of them is not on a device.
pub(crate) fn residents<'a>(networks: &[&'a dyn Network]) -> Option<Vec<&'a dyn Resident>> {
    networks.iter().map(|network| network.resident()).collect()
}
