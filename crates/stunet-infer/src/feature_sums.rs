//! Sums of feature maps instead of classes.
//!
//! Where windows are averaged as logits, and the head is a weighted sum of feature maps and a constant, the
//! head of the average is the average of the heads. So the feature maps are averaged, and the head is
//! computed once for each voxel of the volume instead of once for each window over it. A published STU-Net
//! S has 16 of them and 105 classes: a sixth of the sums, and a sixth or seventh of the head's products.
//!
//! The terms of a sum are the same in another order: values differ from those of [`Keep::Sums`] by f32's
//! rounding.
//!
//! [`Keep::Sums`]: crate::sliding_window::Keep::Sums

use crate::accumulators::{Accumulators, WindowPass};
use crate::blend::{Averaging, Blender, Pass};
use crate::cutter::Cutter;
use crate::error::InferError;
use crate::kept::{Trunks, rows_per_piece};
use crate::platform::Moment;
use crate::sink::RowSink;
use crate::slab::{RowValues, Slab};
use std::ops::{ControlFlow, Range};
use stunet_data::plans::Accumulation;

/// Networks whose feature maps are averaged.
pub(crate) struct AveragedTrunks<'a> {
    trunks: Trunks<'a>,
    /// Of feature maps.
    blender: Blender,
}

impl<'a> AveragedTrunks<'a> {
    /// Whether the mean of the values that is asked for is that of a mean of feature maps.
    pub fn take(trunks: &Trunks<'a>) -> bool {
        trunks.averages().averaging == Averaging::AsTheyAre && trunks.are_affine()
    }

    /// Of networks that [`take`](Self::take) allows.
    pub fn new(trunks: Trunks<'a>) -> Self {
        let averages = trunks.averages();
        let blender = Blender::new(
            averages.averaging,
            trunks.num_features(),
            averages.window,
            averages.importance.clone(),
            averages.num_passes,
        );
        Self { trunks, blender }
    }

    /// The sums of one tile, whose final rows go to `slab`.
    pub fn sums<'s>(
        &'s mut self,
        slab: &'s mut Slab,
        below: [usize; 3],
        sink: &'s mut dyn RowSink,
    ) -> FeatureSums<'s> {
        let Self { trunks, blender } = self;
        let of_fold = |_| {
            let region = (slab.depth(), slab.rows(), slab.columns());
            Slab::new(blender.num_classes, 1, Accumulation::F32, region, below)
        };
        let features = (0..trunks.num_folds()).map(of_fold).collect();
        FeatureSums { trunks, blender, features, slab, sink }
    }
}

/// Sums of the feature maps of each network.
pub(crate) struct FeatureSums<'a> {
    trunks: &'a Trunks<'a>,
    blender: &'a mut Blender,
    /// By network: those of two cannot be added before their heads.
    features: Vec<Slab>,
    slab: &'a mut Slab,
    sink: &'a mut dyn RowSink,
}

impl FeatureSums<'_> {
    /// Most bytes held at a time, final rows included.
    pub fn bytes(&self) -> usize {
        self.features.iter().map(Slab::bytes).sum::<usize>() + self.slab.bytes()
    }

    /// Computes the heads of final rows and hands them out.
    fn hand_out(&mut self, planes: Range<usize>, rows: Range<usize>) -> Result<(), InferError> {
        let (trunks, features) = (self.trunks, &self.features);
        let compute = |z, y, to: &mut [f32], scratch: &mut Vec<f32>| {
            for (fold, features) in features.iter().enumerate() {
                let RowValues::Single(row) = features.values(z, y) else {
                    unreachable!("feature maps are summed in f32")
                };
                trunks.run_head(fold, row, to, scratch);
            }
        };
        self.slab.compute(planes.clone(), rows.clone(), compute)?;
        self.sink.rows(self.slab, planes, rows)
    }
}

impl Accumulators for FeatureSums<'_> {
    fn advance(&mut self, _: usize) {}

    fn add(&mut self, cutter: &Cutter<'_, '_>, pass: &WindowPass) -> f64 {
        let WindowPass { start, flips, fold, index, count } = *pass;
        let window = cutter.window(start, flips);
        let planes = 0..self.blender.window[0];
        let forward = Moment::now();
        let features = self.trunks.features(fold, window).into_data();
        let secs = forward.secs();
        let logits = features.as_slice::<f32>().expect("features are f32");
        let pass = Pass { logits, planes, flips, index, count };
        self.blender.add(&pass, &mut self.features[fold], 0, start);
        secs
    }

    fn add_weights(&mut self, start: [usize; 3]) -> Result<f64, InferError> {
        for features in &mut self.features {
            self.blender.add_weights(features, start);
        }
        Ok(0.0)
    }

    fn close(
        &mut self,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<ControlFlow<()>, InferError> {
        for features in &mut self.features {
            features.close(planes.clone(), rows.clone())?;
        }
        let step = rows_per_piece(self.slab.bytes_of_row(), planes.len());
        for from in rows.clone().step_by(step) {
            self.hand_out(planes.clone(), from..(from + step).min(rows.end))?;
        }
        for features in &mut self.features {
            for z in planes.clone() {
                rows.clone().for_each(|y| features.release(z, y));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
