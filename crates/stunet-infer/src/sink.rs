//! Where the values of a prediction go as they become final.

use crate::error::InferError;
use crate::slab::Slab;
use crate::tile::Tile;
use std::ops::Range;
use stunet_data::preprocess::resample::AxisTaps;
use stunet_model::LabelDecision;

/// Takes the planes of a prediction as they become final, lowest first.
pub trait PlaneSink: Send {
    /// Plane `z` of the unpadded volume at the network's resolution.
    ///
    /// The sink may take the buffer by swapping it for one of the same length.
    ///
    /// # Shapes
    /// `plane` is `[C, Y, X]`: what
    /// [`WindowSettings::averages`](crate::sliding_window::WindowSettings::averages) says.
    ///
    /// # Errors
    /// Whatever the sink meets; the prediction stops there.
    fn plane(&mut self, z: usize, plane: &mut Vec<f32>) -> Result<(), InferError>;
}

/// How labels follow from the values of a prediction.
#[derive(Clone, Debug)]
pub struct RowDecision {
    /// Where the voxels of the output lie between those of the volume, along z, y and x.
    pub taps: [AxisTaps; 3],
    /// How the values of a voxel become its label.
    pub decision: LabelDecision,
}

/// Takes the rows of a prediction as they become final.
pub trait RowSink: Send {
    /// A tile begins; its rows come next.
    ///
    /// # Errors
    /// Whatever the sink meets; the prediction stops there.
    fn begin(&mut self, tile: &Tile) -> Result<(), InferError>;

    /// These rows of these planes are final in `slab`: what
    /// [`WindowSettings::averages`](crate::sliding_window::WindowSettings::averages) says.
    ///
    /// Blocks come with planes ascending, and rows ascending for the same planes. The sink releases
    /// what it will not read again; rows that it holds back cost memory.
    ///
    /// # Errors
    /// Whatever the sink meets; the prediction stops there.
    fn rows(
        &mut self,
        slab: &mut Slab,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<(), InferError>;

    /// How labels follow from the values, where nothing else is made of those. A device decides them where it
    /// can, and [`labels`](Self::labels) come instead of [`rows`](Self::rows). None keeps the rows coming.
    fn rule(&self) -> Option<RowDecision> {
        None
    }

    /// Labels of planes of the output, of all its rows and columns in the tile, planes ascending.
    ///
    /// # Shapes
    /// `[planes, rows, columns]`; -1 where a value is not finite.
    ///
    /// # Errors
    /// Whatever the sink meets; the prediction stops there.
    ///
    /// # Panics
    /// Where there is no [`rule`](Self::rule).
    fn labels(&mut self, planes: Range<usize>, labels: &[i32]) -> Result<(), InferError> {
        panic!("{} labels of planes {planes:?}, and no rule that they follow", labels.len())
    }
}

/// Gathers rows into planes.
pub(crate) struct Planes<'a> {
    sink: &'a mut dyn PlaneSink,
    plane: Vec<f32>,
}

impl<'a> Planes<'a> {
    pub fn new(sink: &'a mut dyn PlaneSink) -> Self {
        Self { sink, plane: Vec::new() }
    }
}

impl RowSink for Planes<'_> {
    fn begin(&mut self, _: &Tile) -> Result<(), InferError> {
        Ok(())
    }

    fn rows(
        &mut self,
        slab: &mut Slab,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<(), InferError> {
        let (height, width) = (slab.rows().len(), slab.columns().len());
        if rows.end < height {
            return Ok(());
        }
        let mut scratch = Vec::new();
        for z in planes {
            self.plane.resize(slab.num_classes() * height * width, 0.0);
            for y in 0..height {
                for class in 0..slab.num_classes() {
                    let from = slab.values(z, y);
                    let from = from.widened(class * width..(class + 1) * width, &mut scratch);
                    self.plane[(class * height + y) * width..][..width].copy_from_slice(from);
                }
                slab.release(z, y);
            }
            self.sink.plane(z, &mut self.plane)?;
        }
        Ok(())
    }
}
