//! Where the values of a prediction go as they become final.

use crate::error::InferError;
use crate::slab::Slab;
use crate::tile::Tile;
use std::ops::Range;

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
