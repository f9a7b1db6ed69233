//! Volumes of intensities.

use crate::error::{DataError, Result};
use crate::geometry::{Geometry, Orientation, Turn};
use ndarray::{Array4, Axis};

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

    /// The same volume with its axes turned to an orientation; as it is where they run so already. The
    /// grid remembers the one before ([`Geometry::in_file`]), on which a prediction comes back.
    ///
    /// # Errors
    /// As [`Geometry::turned`].
    pub fn oriented(self, to: Orientation) -> Result<Self> {
        let geometry = self.geometry.oriented(to)?;
        Ok(Self { data: turned(self.data, step(&self.geometry, &geometry)), geometry })
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

    /// As [`Image::oriented`].
    ///
    /// # Errors
    /// As there.
    pub fn oriented(self, to: Orientation) -> Result<Self> {
        let geometry = self.geometry.oriented(to)?;
        Ok(self.on_turned(geometry))
    }

    /// The same voxels on their grid after it was turned.
    pub(crate) fn on_turned(self, geometry: Geometry) -> Self {
        let step = step(&self.geometry, &geometry);
        let voxels = match self.voxels {
            Voxels::I16(values) => Voxels::I16(turned(values, step)),
            Voxels::F32(values) => Voxels::F32(turned(values, step)),
        };
        Self { voxels, geometry }
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

/// The turn from one grid to another one of the same file.
fn step(from: &Geometry, to: &Geometry) -> Turn {
    from.turn().inverse().followed_by(to.turn())
}

/// All channels turned, in the order in which they are then walked.
fn turned<T: Copy + Default + Send + Sync>(values: Array4<T>, turn: Turn) -> Array4<T> {
    if turn == Turn::NONE {
        return values;
    }
    let (channels, z, y, x) = values.dim();
    let [z, y, x] = turn.reorder([z, y, x]);
    let turned = turn.carried(values.axis_iter(Axis(0)));
    Array4::from_shape_vec((channels, z, y, x), turned).expect("a turn keeps the number of voxels")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turned_twice_is_turned_once() {
        let plain = Geometry::axis_aligned([2, 3, 4], [3.0, 1.5, 0.5]).unwrap();
        let data = Array4::from_shape_fn((2, 2, 3, 4), |(c, z, y, x)| {
            (1000 * c + 100 * z + 10 * y + x) as f32
        });
        let image = Image::new(data, plain).unwrap();
        for first in Orientation::all() {
            for next in ["RAS", "PIL"].map(|word| word.parse().unwrap()) {
                let once = image.clone().oriented(next).unwrap();
                let twice = image.clone().oriented(first).unwrap().oriented(next).unwrap();
                assert_eq!(once.data, twice.data);
                assert_eq!(once.geometry.in_file(), twice.geometry.in_file());
                assert_eq!(once.geometry.world_from_voxel(), twice.geometry.world_from_voxel());
            }
        }
    }
}
