//! The composition of Burn's operators, in the order in which the references add.

use crate::conv3d::conv3d;
use crate::windowed::{MirroredPass, WindowAverage, WindowOverlap, WindowValues};
use burn::tensor::{DType, Device, Tensor, activation, s};
use std::ops::Range;

/// Sums in one tensor, which moves along z.
#[derive(Debug)]
pub(crate) struct ComposedSums {
    window: [usize; 3],
    softmax: bool,
    /// `[1, z, y, x]`.
    importance: Option<Tensor<4>>,
    /// Of the passes over the present window, `[C, z, y, x]`.
    passes: Option<Tensor<4>>,
    /// `[C, z, rows, columns]`.
    sums: Tensor<4>,
    /// `[1, z, rows, columns]`.
    weights: Tensor<4>,
}

impl ComposedSums {
    pub fn new(
        average: WindowAverage,
        num_classes: usize,
        [rows, columns]: [usize; 2],
        device: &Device,
    ) -> Self {
        let WindowAverage { window, importance, softmax } = average;
        let zeros =
            |classes| Tensor::zeros([classes, window[0], rows, columns], (device, DType::F32));
        let (sums, weights) = (zeros(num_classes), zeros(1));
        let importance = importance.map(|map| map.unsqueeze::<4>());
        Self { window, softmax, importance, passes: None, sums, weights }
    }

    pub fn advance(&mut self, planes: usize) {
        let depth = self.window[0];
        let moved = planes.min(depth);
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

    pub fn add(&mut self, values: WindowValues, pass: MirroredPass, at: &WindowOverlap) {
        let sum = self.average(whole(values), pass);
        if pass.index + 1 < pass.count {
            self.passes = Some(sum);
            return;
        }
        let values = match &self.importance {
            Some(map) => cut(sum, at) * cut(map.clone(), at),
            None => cut(sum, at),
        };
        add_at(&mut self.sums, at, values);
    }

    /// One pass added to the sum over passes; the last makes it their average.
    fn average(&mut self, values: Tensor<4>, pass: MirroredPass) -> Tensor<4> {
        let values = match self.softmax {
            true => activation::softmax(values, 0),
            false => values,
        };
        let mirrored = (0..3usize).filter(|axis| pass.flips[*axis]);
        let values = mirrored.fold(values, |values, axis| values.flip([axis + 1]));
        if pass.count == 1 {
            return values;
        }
        // As on the host: v1 weights every pass, v2 divides their sum.
        let values = match self.softmax {
            true => values * (1.0 / pass.count as f32),
            false => values,
        };
        let sum = match self.passes.take() {
            Some(sum) => sum + values,
            None => values,
        };
        match !self.softmax && pass.index + 1 == pass.count {
            true => sum / pass.count as f32,
            false => sum,
        }
    }

    pub fn add_weights(&mut self, at: &WindowOverlap) {
        let weights = match &self.importance {
            Some(map) => cut(map.clone(), at),
            None => {
                let shape = [1, self.window[0], at.rows.len(), at.columns.len()];
                Tensor::ones(shape, (&self.weights.device(), DType::F32))
            }
        };
        add_at(&mut self.weights, at, weights);
    }

    pub fn read(&self, planes: Range<usize>, rows: Range<usize>, divisor: usize) -> Tensor<4> {
        let cut =
            |tensor: &Tensor<4>| tensor.clone().slice(s![.., planes.clone(), rows.clone(), ..]);
        let mean = cut(&self.sums) / cut(&self.weights);
        if divisor > 1 { mean / divisor as f32 } else { mean }
    }
}

/// All values, `[C, z, y, x]` in single precision.
fn whole(values: WindowValues) -> Tensor<4> {
    let values = match values {
        WindowValues::Ready(values) => values,
        WindowValues::BeforeHead { features, weight, bias } => {
            conv3d(features, weight, bias, [1; 3])
        }
    };
    let [_, classes, z, y, x] = values.dims();
    values.cast(DType::F32).reshape([classes, z, y, x])
}

/// What of a window lies in the sums.
fn cut(window: Tensor<4>, at: &WindowOverlap) -> Tensor<4> {
    let [y, x] = at.first;
    window.slice(s![.., .., y..y + at.rows.len(), x..x + at.columns.len()])
}

fn add_at(sums: &mut Tensor<4>, at: &WindowOverlap, values: Tensor<4>) {
    let at = s![.., .., at.rows.clone(), at.columns.clone()];
    let held = sums.clone().slice(at);
    // The only reference is given away, so that a backend may write in place.
    let nothing = Tensor::zeros([1; 4], (&sums.device(), DType::F32));
    *sums = std::mem::replace(sums, nothing).slice_assign(at, held + values);
}
