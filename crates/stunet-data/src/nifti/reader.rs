//! nnU-Net's readers: which of a header's entries count, and whether axes are turned.

use crate::error::{Result, invalid};
use crate::labels::LabelMap;
use ndarray::Array3;
use serde::{Deserialize, Serialize};

/// The reader a model was trained with: `image_reader_writer` of nnU-Net's plans.
///
/// # Source
/// nnU-Net 2.8.1, `imageio/`. Held against it by `reader/tests.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reader {
    /// Axes as they are in the file, grid by ITK's rules: the usual one.
    #[default]
    #[serde(rename = "SimpleITKIO")]
    SimpleItk,
    /// As the usual one, then turned to RAS by ITK.
    #[serde(rename = "SimpleITKIOWithReorient")]
    SimpleItkReorient,
    /// Axes as they are in the file, grid by nibabel's rules.
    #[serde(rename = "NibabelIO")]
    Nibabel,
    /// Grid by nibabel's rules, then turned to RAS.
    #[serde(rename = "NibabelIOWithReorient")]
    NibabelReorient,
}

impl Reader {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::SimpleItk, Self::SimpleItkReorient, Self::Nibabel, Self::NibabelReorient];

    /// nnU-Net's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SimpleItk => "SimpleITKIO",
            Self::SimpleItkReorient => "SimpleITKIOWithReorient",
            Self::Nibabel => "NibabelIO",
            Self::NibabelReorient => "NibabelIOWithReorient",
        }
    }

    /// The reader of a name.
    ///
    /// # Errors
    /// When it is none of these: readers of 2-D images, of TIFF, or somebody's own. `file` and `key`
    /// say where the name stood.
    pub fn from_name(file: &'static str, key: &str, name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|reader| reader.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            invalid(
                file,
                key,
                format!("a reader of NIfTI files that is known here ({names})"),
                name,
            )
        })
    }

    /// Whether it may turn the axes of a file.
    pub fn turns(self) -> bool {
        matches!(self, Self::SimpleItkReorient | Self::NibabelReorient)
    }
}

/// Labels on the file's own grid, for writing beside the file.
///
/// # Shapes
/// `labels.data` in the frame of [`Geometry::shape`](crate::geometry::Geometry::shape); the result in that of
/// [`Geometry::in_file`](crate::geometry::Geometry::in_file).
pub fn in_file(labels: &LabelMap) -> LabelMap {
    let geometry = labels.geometry.in_file().clone();
    let mut data = Array3::zeros(geometry.shape());
    labels.geometry.turn().apply(data.view_mut()).assign(&labels.data);
    LabelMap { data, geometry }
}

#[cfg(test)]
mod tests;
