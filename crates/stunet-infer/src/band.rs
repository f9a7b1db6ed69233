//! Accumulators that stay on the device: a band of planes, as deep as a window, over all rows of a tile.
//!
//! On a GPU the logits of a window (880 MB of a published network) take longer to read back than to
//! compute. Here every window is averaged over its mirrored passes, weighted and added where the
//! network computed it, and only final rows are read back. They are restored by a thread of its own,
//! so that the device does not wait for them.

use crate::blend::Averaging;
use crate::error::InferError;
use crate::network::{Network, Resident};
use crate::sink::RowSink;
use crate::slab::Slab;
use crate::tile::Tile;
use burn::tensor::{DType, Device, Tensor, TensorData, activation, s};
use std::ops::{ControlFlow, Range};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes of final rows that are read back at a time.
const PIECE_BYTES: usize = 64 << 20;

/// Rows that are read back at a time.
pub(crate) fn rows_per_piece(num_classes: usize, num_planes: usize, width: usize) -> usize {
    (PIECE_BYTES / (num_classes * num_planes * width * size_of::<f32>()).max(1)).max(1)
}

/// How windows are averaged and weighted, on a device.
pub(crate) struct Weighting {
    averaging: Averaging,
    window: [usize; 3],
    /// `[1, z, y, x]`; none where every voxel counts alike.
    importance: Option<Tensor<4>>,
    device: Device,
}

impl Weighting {
    pub fn new(
        averaging: Averaging,
        window: [usize; 3],
        importance: Option<&[f32]>,
        device: &Device,
    ) -> Self {
        let importance = importance.map(|map| {
            let [z, y, x] = window;
            let data = TensorData::new(map.to_vec(), [1, z, y, x]);
            Tensor::from_data(data, (device, DType::F32))
        });
        Self { averaging, window, importance, device: device.clone() }
    }

    /// One pass added to the sum over passes; the last makes it their average.
    ///
    /// # Shapes
    /// `logits` and the sum are `[C, z, y, x]`; the former mirrored along `flips`.
    pub fn average(
        &self,
        sum: Option<Tensor<4>>,
        logits: Tensor<4>,
        flips: [bool; 3],
        [index, count]: [usize; 2],
    ) -> Tensor<4> {
        let values = match self.averaging {
            Averaging::Probabilities => activation::softmax(logits, 0),
            Averaging::AsTheyAre => logits,
        };
        let mirrored = (0..3usize).filter(|axis| flips[*axis]);
        let values = mirrored.fold(values, |values, axis| values.flip([axis + 1]));
        if count == 1 {
            return values;
        }
        // As on the host: v1 weights every pass, v2 divides their sum.
        let values = match self.averaging {
            Averaging::Probabilities => values * (1.0 / count as f32),
            Averaging::AsTheyAre => values,
        };
        let sum = match sum {
            Some(sum) => sum + values,
            None => values,
        };
        match self.averaging {
            Averaging::AsTheyAre if index + 1 == count => sum / count as f32,
            _ => sum,
        }
    }
}

/// The sums of one tile that windows can still reach.
pub(crate) struct Band<'a> {
    weighting: &'a Weighting,
    rows: Range<usize>,
    columns: Range<usize>,
    /// Voxels of padding below the volume, per axis.
    below: [usize; 3],
    /// The band's first plane, in the padded volume.
    first: usize,
    /// `[C, z, rows, columns]`.
    sums: Tensor<4>,
    /// `[1, z, rows, columns]`.
    weights: Tensor<4>,
}

impl<'a> Band<'a> {
    pub fn new(
        weighting: &'a Weighting,
        num_classes: usize,
        tile: &Tile,
        below: [usize; 3],
    ) -> Self {
        let (rows, columns) = (tile.rows.clone(), tile.columns.clone());
        let shape = [num_classes, weighting.window[0], rows.len(), columns.len()];
        let zeros = |channels| {
            let shape = [channels, shape[1], shape[2], shape[3]];
            Tensor::zeros(shape, (&weighting.device, DType::F32))
        };
        let (sums, weights) = (zeros(num_classes), zeros(1));
        Self { weighting, rows, columns, below, first: 0, sums, weights }
    }

    /// Moves to plane `z` of the padded volume; what lies below is forgotten.
    pub fn advance(&mut self, z: usize) {
        let depth = self.weighting.window[0];
        let moved = (z - self.first).min(depth);
        self.first = z;
        if moved == 0 {
            return;
        }
        let shift = |tensor: &mut Tensor<4>| {
            let [channels, _, height, width] = tensor.dims();
            let fresh =
                Tensor::zeros([channels, moved, height, width], (&tensor.device(), DType::F32));
            *tensor = match moved == depth {
                true => fresh,
                false => {
                    Tensor::cat(vec![tensor.clone().narrow(1, moved, depth - moved), fresh], 1)
                }
            };
        };
        shift(&mut self.sums);
        shift(&mut self.weights);
    }

    /// Where a window at `start` (padded volume) meets the band, as rows and columns of the band and
    /// of the window; none where it does not.
    fn overlap(&self, start: [usize; 3]) -> Option<[(Range<usize>, Range<usize>); 2]> {
        let meet = |axis: usize, within: &Range<usize>| {
            let begin = start[axis];
            let from = begin.max(within.start + self.below[axis]);
            let end = begin + self.weighting.window[axis];
            let to = end.min(within.end + self.below[axis]);
            let first = within.start + self.below[axis];
            (from < to).then(|| (from - first..to - first, from - begin..to - begin))
        };
        Some([meet(1, &self.rows)?, meet(2, &self.columns)?])
    }

    /// See [`Weighting::average`].
    pub fn average(
        &self,
        sum: Option<Tensor<4>>,
        logits: Tensor<4>,
        flips: [bool; 3],
        which: [usize; 2],
    ) -> Tensor<4> {
        self.weighting.average(sum, logits, flips, which)
    }

    /// Adds the average of a window's passes, `[C, z, y, x]`, times the importance.
    pub fn add(&mut self, values: Tensor<4>, start: [usize; 3]) {
        debug_assert_eq!(start[0], self.first, "the band has moved to this window");
        let Some([(rows, from_rows), (columns, from_columns)]) = self.overlap(start) else {
            return;
        };
        let cut =
            |tensor: Tensor<4>| tensor.slice(s![.., .., from_rows.clone(), from_columns.clone()]);
        let values = match &self.weighting.importance {
            Some(map) => cut(values) * cut(map.clone()),
            None => cut(values),
        };
        add_at(&mut self.sums, rows, columns, values);
    }

    /// Adds the weights of a window, once all its passes have been added.
    pub fn add_weights(&mut self, start: [usize; 3]) {
        let Some([(rows, from_rows), (columns, from_columns)]) = self.overlap(start) else {
            return;
        };
        let weights = match &self.weighting.importance {
            Some(map) => map.clone().slice(s![.., .., from_rows, from_columns]),
            None => {
                let shape = [1, self.weighting.window[0], rows.len(), columns.len()];
                Tensor::ones(shape, (&self.weighting.device, DType::F32))
            }
        };
        add_at(&mut self.weights, rows, columns, weights);
    }

    /// Whether these rows are its last.
    pub fn ends_with(&self, rows: &Range<usize>) -> bool {
        rows.end == self.rows.end
    }

    /// Final values of rows of planes of the volume, averaged over `num_folds`, on the host.
    ///
    /// # Shapes
    /// `[C, planes, rows, columns]`.
    fn read(&self, planes: &Range<usize>, rows: &Range<usize>, num_folds: usize) -> Vec<f32> {
        let z = planes.start + self.below[0] - self.first;
        let y = rows.start - self.rows.start;
        let cut = |tensor: &Tensor<4>| {
            tensor.clone().slice(s![.., z..z + planes.len(), y..y + rows.len(), ..])
        };
        let mut mean = cut(&self.sums) / cut(&self.weights);
        if num_folds > 1 {
            mean = mean / num_folds as f32;
        }
        stunet_model::read(mean).try_into_vec::<f32>().expect("sums are f32")
    }
}

fn add_at(sums: &mut Tensor<4>, rows: Range<usize>, columns: Range<usize>, values: Tensor<4>) {
    let at = s![.., .., rows, columns];
    let held = sums.clone().slice(at);
    // The only reference is given away, so that a backend may write in place.
    let nothing = Tensor::zeros([1; 4], (&sums.device(), DType::F32));
    *sums = std::mem::replace(sums, nothing).slice_assign(at, held + values);
}

/// Final rows on their way from the device.
struct FinalRows {
    planes: Range<usize>,
    rows: Range<usize>,
    /// `[C, planes, rows, columns]`.
    values: Vec<f32>,
}

/// Gives final rows to those who restore them.
pub(crate) struct Outlet {
    sender: SyncSender<FinalRows>,
    num_folds: usize,
}

impl Outlet {
    /// Reads back all rows of planes that are final, piece by piece. Breaks when the other side has
    /// failed; it knows why.
    pub fn send(&self, band: &Band<'_>, planes: Range<usize>) -> ControlFlow<()> {
        let [num_classes, _, _, width] = band.sums.dims();
        let step = rows_per_piece(num_classes, planes.len(), width);
        for from in band.rows.clone().step_by(step) {
            let rows = from..(from + step).min(band.rows.end);
            let values = band.read(&planes, &rows, self.num_folds);
            let sent = self.sender.send(FinalRows { planes: planes.clone(), rows, values });
            if sent.is_err() {
                return ControlFlow::Break(());
            }
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
    pieces: &Receiver<FinalRows>,
) -> Result<(), InferError> {
    for FinalRows { planes, rows, values } in pieces {
        let (height, width) = (rows.len(), slab.columns().len());
        for (index, z) in planes.clone().enumerate() {
            for (row, y) in rows.clone().enumerate() {
                let at = |class: usize| ((class * planes.len() + index) * height + row) * width;
                slab.put(z, y, |class| &values[at(class)..at(class) + width])?;
            }
        }
        drop(values);
        sink.rows(slab, planes, rows)?;
    }
    Ok(())
}

/// Bytes of the device for the sums of `tile`: the band, and its copy while it moves.
pub(crate) fn device_bytes(num_classes: usize, depth: usize, tile: &Tile) -> u64 {
    let voxels = depth * tile.rows.len() * tile.columns.len();
    2 * ((num_classes + 1) * voxels * size_of::<f32>()) as u64
}

/// All networks where one of them is; none when one of them is not on a device.
pub(crate) fn residents<'a>(networks: &[&'a dyn Network]) -> Option<Vec<&'a dyn Resident>> {
    networks.iter().map(|network| network.resident()).collect()
}
