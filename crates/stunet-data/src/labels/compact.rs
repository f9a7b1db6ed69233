//! Predicted labels in as few bytes as they need.

use super::LabelMap;
use crate::geometry::Geometry;
use ndarray::Array3;

/// Label values of a volume: one byte each where 255 is enough.
///
/// # Shapes
/// `[Z, Y, X]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelVoxels {
    /// Values up to 255.
    Bytes(Array3<u8>),
    /// All others.
    Words(Array3<u16>),
}

impl LabelVoxels {
    /// Background everywhere, with room for values up to `max_label`.
    pub fn zeros(shape: [usize; 3], max_label: u16) -> Self {
        match Self::bytes_each(max_label) {
            1 => Self::Bytes(Array3::zeros(shape)),
            _ => Self::Words(Array3::zeros(shape)),
        }
    }

    /// Bytes of a voxel where labels go up to `max_label`.
    pub fn bytes_each(max_label: u16) -> usize {
        if max_label <= u16::from(u8::MAX) { 1 } else { 2 }
    }

    /// Values, x fastest.
    pub fn iter(&self) -> Box<dyn Iterator<Item = u16> + '_> {
        match self {
            Self::Bytes(values) => Box::new(values.iter().map(|v| u16::from(*v))),
            Self::Words(values) => Box::new(values.iter().copied()),
        }
    }

    /// Brings the values in the order z, y, x, if they are not.
    pub(crate) fn make_standard(&mut self) {
        match self {
            Self::Bytes(values) if !values.is_standard_layout() => {
                *values = values.as_standard_layout().into_owned();
            }
            Self::Words(values) if !values.is_standard_layout() => {
                *values = values.as_standard_layout().into_owned();
            }
            _ => {}
        }
    }

    /// The same values, two bytes each.
    pub fn to_words(&self) -> Array3<u16> {
        match self {
            Self::Bytes(values) => values.mapv(u16::from),
            Self::Words(values) => values.clone(),
        }
    }
}

/// A [`LabelMap`] in as few bytes as its label set allows.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactLabelMap {
    /// Label values; 0 is background.
    pub voxels: LabelVoxels,
    /// The grid.
    pub geometry: Geometry,
}

impl CompactLabelMap {
    /// The same with two bytes for each voxel.
    pub fn to_labelmap(&self) -> LabelMap {
        LabelMap { data: self.voxels.to_words(), geometry: self.geometry.clone() }
    }
}

impl From<LabelMap> for CompactLabelMap {
    fn from(labels: LabelMap) -> Self {
        Self { voxels: LabelVoxels::Words(labels.data), geometry: labels.geometry }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_enough_up_to_255() {
        for (max, bytes) in [(0, 1), (255, 1), (256, 2), (65535, 2)] {
            let voxels = LabelVoxels::zeros([2, 3, 4], max);
            assert_eq!(LabelVoxels::bytes_each(max), bytes);
            assert_eq!(matches!(voxels, LabelVoxels::Bytes(_)), bytes == 1);
            assert_eq!(voxels.to_words(), Array3::<u16>::zeros((2, 3, 4)));
        }
        let values = Array3::from_shape_fn((2, 3, 4), |(z, y, x)| (z * 12 + y * 4 + x) as u8);
        let voxels = LabelVoxels::Bytes(values);
        assert!(voxels.iter().eq(0..24));
        assert!(voxels.to_words().into_iter().eq(0..24));
    }
}
