//! Sums of windows in a ring of planes.

mod decide;
mod head;
mod kernels;
mod labels;
mod passes;
mod place;

use crate::operators::Maybe;
use crate::windowed::{
    LabelDecision, LinePlace, MirroredPass, WindowAverage, WindowOverlap, WindowValues,
};
use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use decide::{Asked, Given, LabelPart, Maybes};
use head::Values;
use kernels::BLOCK;
use passes::Windows;
use place::{Place, Taken};
use std::ops::Range;

/// Sums and weights of as many planes as a window has, used in turn.
#[derive(Debug)]
pub(crate) struct OwnSums {
    average: WindowAverage,
    /// `[classes, z, rows, columns]` of successive classes.
    pieces: Vec<Tensor<4>>,
    /// `[1, z, rows, columns]`.
    weights: Tensor<4>,
    /// The lowest plane, counted from where the sums began.
    first: usize,
}

/// Planes of the sums of windows of `depth`: one more, which labels are interpolated with.
pub(crate) fn ring_of(depth: usize) -> usize {
    depth + 1
}

impl OwnSums {
    /// # Panics
    /// When one class is larger than `most` bytes.
    pub fn new(
        average: WindowAverage,
        num_classes: usize,
        [rows, columns]: [usize; 2],
        (device, most): (&Device, u64),
    ) -> Self {
        let ring = ring_of(average.window[0]);
        let class = (ring * rows * columns * size_of::<f32>()).max(1) as u64;
        assert!(class <= most, "sums of a class: expected at most {most} bytes, found {class}");
        let zeros = |classes| Tensor::zeros([classes, ring, rows, columns], (device, DType::F32));
        let pieces = pieces(num_classes, most / class).map(|classes| zeros(classes.len()));
        Self { average, pieces: pieces.collect(), weights: zeros(1), first: 0 }
    }

    pub fn advance(&mut self, planes: usize) {
        self.first += planes;
    }

    fn ring(&self) -> usize {
        ring_of(self.average.window[0])
    }

    pub fn add(&mut self, values: WindowValues, pass: MirroredPass, at: &WindowOverlap) {
        let values = Values::of(values);
        let statistics = self.average.softmax.then(|| {
            // Read again for every class.
            Dispatch::stunet_window_statistics(values.clone())
        });
        let mut place = self.place(at);
        place.flips = pass.flips;
        place.factor = 1.0 / pass.count as f32;
        for index in 0..self.pieces.len() {
            let [classes, ..] = self.pieces[index].dims();
            let sums = self.lent(index).into_dispatch();
            let (statistics, importance) = (Maybe::of(statistics.clone()), self.importance());
            let sums = Dispatch::stunet_add_window(
                sums,
                values.clone(),
                statistics,
                importance,
                place.clone(),
            );
            self.pieces[index] = Tensor::from_dispatch(sums);
            place.class += classes;
        }
    }

    pub fn add_weights(&mut self, at: &WindowOverlap) {
        let (importance, place) = (self.importance(), self.place(at));
        let nothing = self.nothing();
        let weights = std::mem::replace(&mut self.weights, nothing).into_dispatch();
        let weights = Dispatch::stunet_add_window_weights(weights, importance, place);
        self.weights = Tensor::from_dispatch(weights);
    }

    pub fn take(
        &mut self,
        planes: Range<usize>,
        rows: Range<usize>,
        divisor: usize,
    ) -> Vec<Tensor<4>> {
        let first = self.first;
        let taken = self.taken(first + planes.start..first + planes.end, rows, divisor);
        let mut found = Vec::with_capacity(self.pieces.len());
        for index in 0..self.pieces.len() {
            let sums = self.lent(index).into_dispatch();
            let weights = self.weights.clone().into_dispatch();
            let (sums, values) = Dispatch::stunet_take_rows(sums, weights, taken);
            self.pieces[index] = Tensor::from_dispatch(sums);
            found.push(Tensor::from_dispatch(values));
        }
        self.clear_weights(taken);
        found
    }

    /// Averages in the place of the sums of planes, counted from where the sums began.
    pub fn average(&mut self, planes: Range<usize>, divisor: usize) {
        let taken = self.taken(planes, self.all_rows(), divisor);
        for index in 0..self.pieces.len() {
            let sums = self.lent(index).into_dispatch();
            let weights = self.weights.clone().into_dispatch();
            let sums = Dispatch::stunet_average_rows(sums, weights, taken);
            self.pieces[index] = Tensor::from_dispatch(sums);
        }
        self.clear_weights(taken);
    }

    /// Labels of an output whose voxels lie between averages.
    pub fn labels(&self, places: [&[LinePlace]; 3], decision: &LabelDecision) -> Tensor<3, Int> {
        let device = self.weights.device();
        let asked = Asked::new(places, self.ring());
        let (labels, threshold) = match decision {
            LabelDecision::Largest { labels } => (labels, None),
            LabelDecision::Above { labels, threshold } => (labels, Some(*threshold)),
        };
        let ints = |values: Vec<i32>| {
            let len = values.len();
            let tensor =
                Tensor::<1, Int>::from_data(TensorData::new(values, [len]), (&device, DType::I32));
            tensor.into_dispatch()
        };
        let counts = Tensor::<1>::from_data(
            TensorData::new(asked.counts, [asked.len * 4]),
            (&device, DType::F32),
        );
        let (places, counts) = (ints(asked.places), counts.into_dispatch());
        let label_of = ints(labels.iter().map(|label| i32::from(*label)).collect());
        let mut found: Maybes<Dispatch> = Maybes::None;
        let mut part = LabelPart { size: asked.size, class: 0, threshold };
        for piece in &self.pieces {
            let sums = piece.clone().into_dispatch();
            let given = Given {
                places: places.clone(),
                counts: counts.clone(),
                label_of: label_of.clone(),
            };
            let (best, labels) = Dispatch::stunet_decide(sums, given, found, part);
            found = Maybes::Some(best, labels);
            part.class += piece.dims()[0];
        }
        match found {
            Maybes::Some(_, labels) => Tensor::from_dispatch(labels),
            Maybes::None => unreachable!("sums have at least one class"),
        }
    }

    /// Leaves zeros in planes, counted from where the sums began.
    pub fn forget(&mut self, planes: Range<usize>) {
        let taken = self.taken(planes, self.all_rows(), 1);
        for index in 0..self.pieces.len() {
            let sums = self.lent(index).into_dispatch();
            self.pieces[index] = Tensor::from_dispatch(Dispatch::stunet_clear_rows(sums, taken));
        }
    }

    fn clear_weights(&mut self, taken: Taken) {
        let nothing = self.nothing();
        let weights = std::mem::replace(&mut self.weights, nothing).into_dispatch();
        self.weights = Tensor::from_dispatch(Dispatch::stunet_clear_rows(weights, taken));
    }

    fn all_rows(&self) -> Range<usize> {
        0..self.weights.dims()[2]
    }

    fn taken(&self, planes: Range<usize>, rows: Range<usize>, divisor: usize) -> Taken {
        let ring = self.ring();
        assert!(planes.len() <= ring, "planes {planes:?} of {ring}");
        let plane = planes.start % ring;
        let (planes, row, rows) = (planes.len(), rows.start, rows.len());
        Taken { plane, planes, row, rows, divisor: divisor as f32 }
    }

    fn place(&self, at: &WindowOverlap) -> Place {
        let (window, plane) = (self.average.window, self.first % self.ring());
        let overlap = at.clone();
        Place { window, plane, overlap, flips: [false; 3], class: 0, factor: 1.0 }
    }

    fn importance(&self) -> Maybe<Dispatch> {
        Maybe::of(self.average.importance.clone().map(Tensor::into_dispatch))
    }

    /// The only reference to a piece, so that it is written in place.
    fn lent(&mut self, index: usize) -> Tensor<4> {
        let nothing = self.nothing();
        std::mem::replace(&mut self.pieces[index], nothing)
    }

    fn nothing(&self) -> Tensor<4> {
        Tensor::empty([1; 4], (&self.weights.device(), DType::F32))
    }
}

/// Ranges of classes of about equal size, of at most `most` each; of whole blocks where that is possible.
fn pieces(num_classes: usize, most: u64) -> impl Iterator<Item = Range<usize>> {
    let most = usize::try_from(most).unwrap_or(usize::MAX).clamp(1, num_classes.max(1));
    let each = num_classes.div_ceil(num_classes.div_ceil(most).max(1)).max(1);
    let blocks = each.next_multiple_of(BLOCK);
    let each = if blocks <= most { blocks } else { each };
    (0..num_classes).step_by(each).map(move |from| from..(from + each).min(num_classes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_divided_evenly() {
        let lengths =
            |classes, most| -> Vec<usize> { pieces(classes, most).map(|p| p.len()).collect() };
        assert_eq!(lengths(105, 1000), [105]);
        assert_eq!(lengths(105, 60), [56, 49]);
        assert_eq!(lengths(105, 40), [40, 40, 25]);
        assert_eq!(lengths(10, 3), [3, 3, 3, 1]);
        assert_eq!(lengths(3, 1), [1, 1, 1]);
        assert_eq!(lengths(1, 0), [1]);
    }
}
