//! The sums of windows that overlap, on the device that predicts them.

pub(crate) mod reference;

use crate::device_memory::device_memory;
use crate::windowed::{
    LabelDecision, LinePlace, MirroredPass, WindowAverage, WindowOverlap, WindowSumsCost,
    WindowValues,
};
use burn::tensor::{Device, Int, Tensor};
use reference::ComposedSums;
use std::ops::Range;

/// Sums of windows along their front: as many planes as a window has, of a number of rows and columns.
///
/// On a GPU the sums lie in a ring of planes, some classes in each tensor, and one pass over memory
/// computes what a convolution of single voxels before the sums gives, undoes the mirroring, weighs and
/// adds. All values of a window (880 MB of a published network) are never in memory.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use stunet_kernels::{
///     MirroredPass, WindowAverage, WindowOverlap, WindowSums, WindowValues,
/// };
/// let device = Device::flex();
/// let average = WindowAverage { window: [2, 2, 2], importance: None, softmax: false };
/// let mut sums = WindowSums::new(average, 3, [2, 4], &device);
/// // Two windows side by side, which overlap in the middle.
/// for (column, value) in [(0, 1.0), (1, 2.0)] {
///     let here = WindowOverlap { rows: 0..2, columns: column..column + 2, first: [0, 0] };
///     let values = WindowValues::Ready(Tensor::ones([1, 3, 2, 2, 2], &device) * value);
///     sums.add(values, MirroredPass { flips: [false; 3], index: 0, count: 1 }, &here);
///     sums.add_weights(&here);
/// }
/// let rows = sums.take(0..1, 0..1, 1);
/// let row = rows[0].clone().slice([0..1, 0..1, 0..1, 0..3]).into_data();
/// assert_eq!(row.try_to_vec::<f32>().unwrap(), [1.0, 1.5, 2.0]);
/// ```
#[derive(Debug)]
pub struct WindowSums(Kind);

#[derive(Debug)]
enum Kind {
    Composed(Box<ComposedSums>),
    #[cfg(feature = "gpu")]
    Own(Box<crate::gpu::OwnSums>),
}

const NOT_HERE: &str = "labels are decided on GPUs alone";

impl WindowSums {
    /// Sums that are all zero, of planes of these rows and columns.
    ///
    /// # Panics
    /// When not even the sums of one class are as small as one tensor may be
    /// ([`cost`](Self::cost)).
    pub fn new(
        average: WindowAverage,
        num_classes: usize,
        plane: [usize; 2],
        device: &Device,
    ) -> Self {
        let most_at_once = device_memory(device).map_or(u64::MAX, |memory| memory.most_at_once);
        Self::in_pieces(average, num_classes, plane, (device, most_at_once))
    }

    /// The same in tensors of at most a number of bytes, on GPUs.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn in_pieces(
        average: WindowAverage,
        num_classes: usize,
        plane: [usize; 2],
        (device, most_at_once): (&Device, u64),
    ) -> Self {
        #[cfg(feature = "gpu")]
        if device_memory(device).is_some() {
            let most = (device, most_at_once);
            let sums = crate::gpu::OwnSums::new(average, num_classes, plane, most);
            return Self(Kind::Own(Box::new(sums)));
        }
        let _ = most_at_once;
        Self(Kind::Composed(Box::new(ComposedSums::new(average, num_classes, plane, device))))
    }

    /// What sums of windows of `depth` planes will take.
    pub fn cost(
        num_classes: usize,
        depth: usize,
        [rows, columns]: [usize; 2],
        device: &Device,
    ) -> WindowSumsCost {
        let plane = (rows * columns * size_of::<f32>()) as u64;
        let (depth, all) = (depth as u64, (num_classes + 1) as u64);
        match device_memory(device) {
            // One plane more, which labels are interpolated with.
            Some(_) => {
                let class = plane * (depth + 1);
                WindowSumsCost { bytes: class * all, least_at_once: class }
            }
            // The sums, and their copy while they move.
            None => {
                let class = plane * depth;
                WindowSumsCost { bytes: 2 * class * all, least_at_once: class * num_classes as u64 }
            }
        }
    }

    /// Moves up by a number of planes, which have been [taken](Self::take), or are not wanted.
    pub fn advance(&mut self, planes: usize) {
        match &mut self.0 {
            Kind::Composed(sums) => sums.advance(planes),
            #[cfg(feature = "gpu")]
            Kind::Own(sums) => sums.advance(planes),
        }
    }

    /// Adds one pass over a window, averaged with the others over it and times the importance.
    ///
    /// # Panics
    /// When the values are of another shape than the sums.
    pub fn add(&mut self, values: WindowValues, pass: MirroredPass, at: &WindowOverlap) {
        match &mut self.0 {
            Kind::Composed(sums) => sums.add(values, pass, at),
            #[cfg(feature = "gpu")]
            Kind::Own(sums) => sums.add(values, pass, at),
        }
    }

    /// Adds the weights of a window, once all its passes have been added.
    pub fn add_weights(&mut self, at: &WindowOverlap) {
        match &mut self.0 {
            Kind::Composed(sums) => sums.add_weights(at),
            #[cfg(feature = "gpu")]
            Kind::Own(sums) => sums.add_weights(at),
        }
    }

    /// Whether labels are decided where the sums are: [`average`](Self::average),
    /// [`labels`](Self::labels), [`forget`](Self::forget).
    pub fn decides(&self) -> bool {
        !matches!(self.0, Kind::Composed(_))
    }

    /// Averages, divided by `divisor`, in the place of the sums of final planes, counted from where the sums
    /// began, all rows of them.
    ///
    /// # Panics
    /// Where sums do not [decide](Self::decides).
    pub fn average(&mut self, planes: Range<usize>, divisor: usize) {
        match &mut self.0 {
            Kind::Composed(_) => panic!("{NOT_HERE}: {planes:?}, {divisor}"),
            #[cfg(feature = "gpu")]
            Kind::Own(sums) => sums.average(planes, divisor),
        }
    }

    /// Labels of an output whose voxels lie between [averages](Self::average): planes counted from where the
    /// sums began, rows and columns in those of the sums. -1 where a value is not finite.
    ///
    /// Values are interpolated as in double precision, along z, y and x in turn, and rounded to single
    /// precision before they are compared.
    ///
    /// # Shapes
    /// As many planes, rows and columns as places of each kind.
    ///
    /// # Panics
    /// Where sums do not [decide](Self::decides).
    pub fn labels(&self, places: [&[LinePlace]; 3], decision: &LabelDecision) -> Tensor<3, Int> {
        match &self.0 {
            Kind::Composed(_) => panic!("{NOT_HERE}: {places:?}, {decision:?}"),
            #[cfg(feature = "gpu")]
            Kind::Own(sums) => sums.labels(places, decision),
        }
    }

    /// Leaves zeros in planes whose averages are not read any more, counted from where the sums began, for
    /// planes to come. One plane below those of a window may wait for the next.
    ///
    /// # Panics
    /// Where sums do not [decide](Self::decides).
    pub fn forget(&mut self, planes: Range<usize>) {
        match &mut self.0 {
            Kind::Composed(_) => panic!("{NOT_HERE}: {planes:?}"),
            #[cfg(feature = "gpu")]
            Kind::Own(sums) => sums.forget(planes),
        }
    }

    /// The averages of final rows of some planes, counted from the lowest, divided by `divisor`. They are
    /// taken once.
    ///
    /// # Shapes
    /// Tensors `[classes, planes, rows, columns]` of successive classes.
    pub fn take(
        &mut self,
        planes: Range<usize>,
        rows: Range<usize>,
        divisor: usize,
    ) -> Vec<Tensor<4>> {
        match &mut self.0 {
            Kind::Composed(sums) => vec![sums.read(planes, rows, divisor)],
            #[cfg(feature = "gpu")]
            Kind::Own(sums) => sums.take(planes, rows, divisor),
        }
    }
}
