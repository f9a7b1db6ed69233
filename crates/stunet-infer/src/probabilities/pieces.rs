//! Rows gathered into pieces of whole rows.

use super::Extent;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Rows of a piece.
pub(crate) const ROWS: usize = 8;

/// A few rows of one plane, all classes.
pub(super) struct Piece {
    pub z: usize,
    /// Number of the piece within the plane.
    pub block: usize,
    /// Rows it has; the last piece of a plane may have fewer than [`ROWS`].
    pub num_rows: usize,
    /// `[C, ROWS, X]`, 0 beyond the last row.
    pub values: Vec<f32>,
}

/// Voxels that a piece has, and its values.
type Begun = (usize, Vec<f32>);

/// The pieces that are under way, by plane and block.
pub(super) struct Pieces {
    extent: Extent,
    open: Mutex<HashMap<(usize, usize), Begun>>,
}

impl Pieces {
    pub fn new(extent: Extent) -> Self {
        Self { extent, open: Mutex::new(HashMap::new()) }
    }

    /// Takes `[C, width]` voxels of a row, from (z, y, x) on; returns the piece they complete.
    pub fn put(&self, [z, y, x]: [usize; 3], row: &[f32], width: usize) -> Option<Piece> {
        let [_, height, full_width] = self.extent.shape;
        let (block, within) = (y / ROWS, y % ROWS);
        let num_rows = ROWS.min(height - block * ROWS);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (voxels, values) = open
            .entry((z, block))
            .or_insert_with(|| (0, vec![0.0; self.extent.num_classes * ROWS * full_width]));
        for (class, row) in row.chunks_exact(width).enumerate() {
            let at = (class * ROWS + within) * full_width + x;
            values[at..at + width].copy_from_slice(row);
        }
        *voxels += width;
        if *voxels < num_rows * full_width {
            return None;
        }
        let (_, values) = open.remove(&(z, block))?;
        Some(Piece { z, block, num_rows, values })
    }
}
