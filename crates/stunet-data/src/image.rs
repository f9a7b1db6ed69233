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

/// The voxels of a file, in the narrowest type that holds them exactly.
#[derive(Clone, Debug, PartialEq)]
pub enum Voxels {
    /// Whole numbers from -32768 to 32767: Hounsfield units, labels.
    I16(Array4<i16>),
    /// Everything else.
    F32(Array4<f32>),
}

/// A volume as it was read: an [`Image`] that may take half the memory.
///
/// # Shapes
/// `voxels` is `[C, Z, Y, X]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RawImage {
    /// Intensities as the file means them, after its scaling.
    pub voxels: Voxels,
    /// The grid.
    pub geometry: Geometry,
}

impl RawImage {
    /// Number of channels.
    pub fn num_channels(&self) -> usize {
        match &self.voxels {
            Voxels::I16(data) => data.dim().0,
            Voxels::F32(data) => data.dim().0,
        }
    }

    /// Bytes of its voxels.
    pub fn bytes(&self) -> u64 {
        let count = self.geometry.shape().iter().product::<usize>() * self.num_channels();
        match self.voxels {
            Voxels::I16(_) => count as u64 * 2,
            Voxels::F32(_) => count as u64 * 4,
        }
    }

    /// The same voxels in single precision.
    pub fn into_image(self) -> Image {
        let data = match self.voxels {
            Voxels::I16(data) => data.mapv(f32::from),
            Voxels::F32(data) => data,
        };
        Image { data, geometry: self.geometry }
    }
}
