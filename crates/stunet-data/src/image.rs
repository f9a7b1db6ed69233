//! Volumes of intensities.

use crate::error::{DataError, Result};
use crate::geometry::Geometry;
use ndarray::Array4;

/// A volume of one or more channels on a grid.
///
/// # Shapes
/// `data` is `[C, Z, Y, X]`; its last three lengths are the geometry's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Intensities as the file means them, after its scaling.
    pub data: Array4<f32>,
    /// The grid.
    pub geometry: Geometry,
}

impl Image {
    /// A volume whose array fits its grid.
    ///
    /// # Errors
    /// When the shapes differ or there is no channel.
    pub fn new(data: Array4<f32>, geometry: Geometry) -> Result<Self> {
        let (channels, z, y, x) = data.dim();
        if [z, y, x] != geometry.shape() {
            return Err(DataError::Mismatch {
                what: "shape of the voxels",
                expected: format!("{:?}", geometry.shape()),
                found: format!("{:?}", [z, y, x]),
            });
        }
        if channels == 0 {
            return Err(DataError::ChannelCount { expected: 1, found: 0 });
        }
        Ok(Self { data, geometry })
    }

    /// Number of channels.
    pub fn num_channels(&self) -> usize {
        self.data.dim().0
    }
}
