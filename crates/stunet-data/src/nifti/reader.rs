//! nnU-Net's readers: which of a header's entries count, and whether axes are turned.

use super::read::{self, Input, Values, Volume};
use super::{nibabel, scan_of, to_labels};
use crate::error::{DataError, Result, invalid};
use crate::geometry::{Geometry, Turn};
use crate::image::RawImage;
use crate::labels::LabelMap;
use ndarray::Array3;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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

    /// As [`super::read_scan`], by this reader. The grid remembers the file's own
    /// ([`Geometry::in_file`]).
    ///
    /// # Errors
    /// As [`super::read_scan`]; nibabel's readers take files of three dimensions only.
    pub fn read_scan<P: AsRef<Path>>(self, files: &[P]) -> Result<RawImage> {
        scan_of(files.iter().map(|file| {
            let file = file.as_ref();
            self.read_volume(file).map(|volume| (volume, file.to_owned()))
        }))
    }

    /// As [`read_scan`](Self::read_scan), of files in memory: each the contents of a `.nii` or of a
    /// `.nii.gz`.
    ///
    /// # Errors
    /// As [`read_scan`](Self::read_scan); instead of its path, errors tell which file it is.
    pub fn read_scan_bytes<B: AsRef<[u8]>>(self, files: &[B]) -> Result<RawImage> {
        scan_of(files.iter().enumerate().map(|(index, bytes)| {
            let name = PathBuf::from(format!("file {} in memory", index + 1));
            let volume = self.volume(Input::Bytes(bytes.as_ref()));
            volume.map_err(|e| e.at(&name)).map(|volume| (volume, name))
        }))
    }

    /// As [`super::read_labelmap`], by this reader.
    ///
    /// # Errors
    /// As [`super::read_labelmap`].
    pub fn read_labelmap(self, file: &Path) -> Result<LabelMap> {
        let volume = self.read_volume(file)?;
        let labels = to_labels(&volume).map_err(|e| e.at(file))?;
        LabelMap::new(labels, volume.geometry)
    }

    /// As [`super::read_geometry`], by this reader.
    ///
    /// # Errors
    /// As [`super::read_geometry`].
    pub fn read_geometry(self, file: &Path) -> Result<(Geometry, usize)> {
        let read = || {
            let (geometry, channels) = read::read_grid(file)?;
            Ok((self.grid(Input::File(file), geometry)?, channels))
        };
        read().map_err(|e: DataError| e.at(file))
    }

    pub(super) fn read_volume(self, file: &Path) -> Result<Volume> {
        self.volume(Input::File(file)).map_err(|e: DataError| e.at(file))
    }

    fn volume(self, input: Input<'_>) -> Result<Volume> {
        let volume = input.volume()?;
        let geometry = self.grid(input, volume.geometry)?;
        let voxels = match geometry.turn() {
            Turn::NONE => volume.voxels,
            turn => turned(volume.voxels, geometry.in_file().shape(), turn),
        };
        Ok(Volume { geometry, voxels, ..volume })
    }

    /// The grid this reader sees where ITK's plain one is `itk`.
    fn grid(self, input: Input<'_>, itk: Geometry) -> Result<Geometry> {
        match self {
            Self::SimpleItk => Ok(itk),
            Self::SimpleItkReorient => {
                let turn = nibabel::itk_turn_to_ras(&itk.direction())?;
                itk.turned(turn, turn.reorder(itk.spacing_mm()))
            }
            Self::Nibabel | Self::NibabelReorient => {
                nibabel::geometry(&input.header()?, self.turns())
            }
        }
    }
}

fn turned(voxels: Values, shape: [usize; 3], turn: Turn) -> Values {
    match voxels {
        Values::Small(values) => Values::Small(turned_channels(values, shape, turn)),
        Values::Single(values) => Values::Single(turned_channels(values, shape, turn)),
    }
}

/// The channels one after the other, each turned.
fn turned_channels<T: Copy>(values: Vec<T>, shape: [usize; 3], turn: Turn) -> Vec<T> {
    let mut turned = Vec::with_capacity(values.len());
    for channel in values.chunks_exact(shape.iter().product()) {
        let volume = ndarray::ArrayView3::from_shape(shape, channel)
            .expect("a channel has as many voxels as its shape says");
        turned.extend(turn.apply(volume).iter().copied());
    }
    turned
}

/// Labels on the file's own grid, for writing beside the file.
///
/// # Shapes
/// `labels.data` in the frame of [`Geometry::shape`]; the result in that of [`Geometry::in_file`].
pub fn in_file(labels: &LabelMap) -> LabelMap {
    let geometry = labels.geometry.in_file().clone();
    let mut data = Array3::zeros(geometry.shape());
    labels.geometry.turn().apply(data.view_mut()).assign(&labels.data);
    LabelMap { data, geometry }
}

#[cfg(test)]
mod tests;
