//! Files by their format, as one of nnU-Net's readers sees them.

use super::read::{self, Input};
use super::reader::Reader;
use super::{nibabel, scan_of, to_labels};
use crate::error::{DataError, Result};
use crate::geometry::{Geometry, Leniency, Orientation, Turn};
use crate::image::RawImage;
use crate::labels::LabelMap;
use crate::voxels::{Values, Volume};
use crate::{metaimage, nrrd};
use ndarray::ArrayView3;
use std::path::{Path, PathBuf};

/// How files are opened: by which reader, to which orientation, and what of their headers is forgiven.
///
/// MetaImage (`.mha`, `.mhd`) and NRRD (`.nrrd`, `.nhdr`) are known by their names; every other file is
/// read as NIfTI. nibabel does not read these two: their grid is ITK's for its readers as well.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Opener {
    /// The reader.
    pub reader: Reader,
    /// What is forgiven.
    pub leniency: Leniency,
    /// Where the axes are turned to after the reader; none leaves them as the reader gives them. See
    /// [`Plans::opener`](crate::plans::Plans::opener).
    pub orientation: Option<Orientation>,
}

/// What a file is, by its name.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Nifti,
    MetaImage,
    Nrrd,
}

fn kind(path: &Path) -> Kind {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ends = |endings: [&str; 2]| endings.iter().any(|ending| name.ends_with(ending));
    match (ends([".mha", ".mhd"]), ends([".nrrd", ".nhdr"])) {
        (true, _) => Kind::MetaImage,
        (_, true) => Kind::Nrrd,
        _ => Kind::Nifti,
    }
}

impl Reader {
    /// The same reader, which forgives.
    pub fn leniently(self, leniency: Leniency) -> Opener {
        Opener { reader: self, leniency, orientation: None }
    }

    /// As [`super::read_scan`], by this reader. The grid remembers the file's own
    /// ([`Geometry::in_file`]).
    ///
    /// # Errors
    /// As [`super::read_scan`]; nibabel's readers take files of three dimensions only.
    pub fn read_scan<P: AsRef<Path>>(self, files: &[P]) -> Result<RawImage> {
        self.leniently(Leniency::default()).read_scan(files)
    }

    /// As [`read_scan`](Self::read_scan), of files in memory, each with its voxels: NIfTI, plain or
    /// packed, MetaImage, NRRD.
    ///
    /// # Errors
    /// As [`read_scan`](Self::read_scan); instead of its path, errors tell which file it is.
    pub fn read_scan_bytes<B: AsRef<[u8]>>(self, files: &[B]) -> Result<RawImage> {
        self.leniently(Leniency::default()).read_scan_bytes(files)
    }

    /// As [`super::read_labelmap`], by this reader.
    ///
    /// # Errors
    /// As [`super::read_labelmap`].
    pub fn read_labelmap(self, file: &Path) -> Result<LabelMap> {
        self.leniently(Leniency::default()).read_labelmap(file)
    }

    /// As [`super::read_geometry`], by this reader.
    ///
    /// # Errors
    /// As [`super::read_geometry`].
    pub fn read_geometry(self, file: &Path) -> Result<(Geometry, usize)> {
        self.leniently(Leniency::default()).read_geometry(file)
    }

    /// A scan that came from elsewhere, such as a DICOM series, as this reader would see it: turned
    /// where the reader turns.
    ///
    /// # Errors
    /// As [`Geometry::turned`].
    pub fn see(self, scan: RawImage) -> Result<RawImage> {
        self.leniently(Leniency::default()).see(scan)
    }

    /// As [`Reader::see`], of the grid alone.
    ///
    /// # Errors
    /// As [`Geometry::turned`].
    pub fn see_grid(self, grid: Geometry) -> Result<Geometry> {
        match self.turns() {
            false => Ok(grid),
            true => {
                let turn = nibabel::itk_turn_to_ras(&grid.direction())?;
                grid.turned(turn, turn.reorder(grid.spacing_mm()))
            }
        }
    }
}

impl Opener {
    /// Where the axes of a scan that was opened on `grid` were turned to; none where they ran so already,
    /// or are to stay as the reader gives them.
    pub fn turned_to(self, grid: &Geometry) -> Option<Orientation> {
        self.orientation.filter(|_| grid.turn() != Turn::NONE)
    }

    /// As [`Reader::read_scan`].
    ///
    /// # Errors
    /// As there, but for what is forgiven.
    pub fn read_scan<P: AsRef<Path>>(self, files: &[P]) -> Result<RawImage> {
        let volumes = files.iter().map(|file| {
            let file = file.as_ref();
            self.read_volume(file).map(|volume| (volume, file.to_owned()))
        });
        scan_of(volumes, &self.leniency)
    }

    /// As [`Reader::read_scan_bytes`].
    ///
    /// # Errors
    /// As there, but for what is forgiven.
    pub fn read_scan_bytes<B: AsRef<[u8]>>(self, files: &[B]) -> Result<RawImage> {
        let volumes = files.iter().enumerate().map(|(index, bytes)| {
            let name = PathBuf::from(format!("file {} in memory", index + 1));
            let volume = self.in_memory(bytes.as_ref());
            volume.map_err(|e| e.at(&name)).map(|volume| (volume, name))
        });
        scan_of(volumes, &self.leniency)
    }

    /// As [`Reader::see`].
    ///
    /// # Errors
    /// As there.
    pub fn see(self, scan: RawImage) -> Result<RawImage> {
        let geometry = self.see_grid(scan.geometry.clone())?;
        Ok(scan.on_turned(geometry))
    }

    /// As [`Reader::see_grid`].
    ///
    /// # Errors
    /// As there.
    pub fn see_grid(self, grid: Geometry) -> Result<Geometry> {
        self.aimed(self.reader.see_grid(grid)?)
    }

    /// As [`Reader::read_labelmap`].
    ///
    /// # Errors
    /// As there, but for what is forgiven.
    pub fn read_labelmap(self, file: &Path) -> Result<LabelMap> {
        let volume = self.read_volume(file)?;
        let labels = to_labels(&volume).map_err(|e| e.at(file))?;
        LabelMap::new(labels, volume.geometry)
    }

    /// As [`Reader::read_geometry`].
    ///
    /// # Errors
    /// As there, but for what is forgiven.
    pub fn read_geometry(self, file: &Path) -> Result<(Geometry, usize)> {
        let sheared = self.leniency.sheared;
        let other = |grid: Result<Geometry>| Ok((self.see_grid(grid?)?, 1));
        let read = || match kind(file) {
            Kind::MetaImage => other(metaimage::geometry(file, sheared)),
            Kind::Nrrd => other(nrrd::geometry(file, sheared)),
            Kind::Nifti => {
                let (geometry, channels) = read::read_grid(file, sheared)?;
                Ok((self.grid(Input::File(file), geometry)?, channels))
            }
        };
        read().map_err(|e: DataError| e.at(file))
    }

    fn read_volume(self, file: &Path) -> Result<Volume> {
        let sheared = self.leniency.sheared;
        let volume = match kind(file) {
            Kind::MetaImage => metaimage::read(file, sheared).and_then(|volume| self.other(volume)),
            Kind::Nrrd => nrrd::read(file, sheared).and_then(|volume| self.other(volume)),
            Kind::Nifti => self.nifti(Input::File(file)),
        };
        volume.map_err(|e: DataError| e.at(file))
    }

    fn in_memory(self, bytes: &[u8]) -> Result<Volume> {
        match bytes {
            _ if bytes.starts_with(b"NRRD000") => self.other(nrrd::read_bytes(bytes)?),
            _ if bytes.starts_with(b"ObjectType") => self.other(metaimage::read_bytes(bytes)?),
            _ => self.nifti(Input::Bytes(bytes)),
        }
    }

    fn nifti(self, input: Input<'_>) -> Result<Volume> {
        let volume = input.volume(self.leniency.sheared)?;
        let geometry = self.grid(input, volume.geometry.clone())?;
        Ok(seen(volume, geometry))
    }

    fn other(self, volume: Volume) -> Result<Volume> {
        let geometry = self.see_grid(volume.geometry.clone())?;
        Ok(seen(volume, geometry))
    }

    /// The grid that is seen where ITK's plain one is `itk`.
    fn grid(self, input: Input<'_>, itk: Geometry) -> Result<Geometry> {
        let nibabel = |turns| nibabel::geometry(&input.header()?, turns, self.leniency.sheared);
        self.aimed(match self.reader {
            Reader::SimpleItk | Reader::SimpleItkReorient => self.reader.see_grid(itk)?,
            Reader::Nibabel | Reader::NibabelReorient => nibabel(self.reader.turns())?,
        })
    }

    /// What the reader sees, turned to where the axes are to lead.
    fn aimed(self, seen: Geometry) -> Result<Geometry> {
        match self.orientation {
            Some(orientation) => seen.oriented(orientation),
            None => Ok(seen),
        }
    }
}

/// A volume on the grid as a reader sees it.
fn seen(volume: Volume, geometry: Geometry) -> Volume {
    let voxels = match geometry.turn() {
        Turn::NONE => volume.voxels,
        turn => turned(volume.voxels, geometry.in_file().shape(), turn),
    };
    Volume { geometry, voxels, ..volume }
}

fn turned(voxels: Values, shape: [usize; 3], turn: Turn) -> Values {
    match voxels {
        Values::Small(values) => Values::Small(turn.carried(channels(&values, shape))),
        Values::Single(values) => Values::Single(turn.carried(channels(&values, shape))),
    }
}

/// The channels, which lie one after the other.
fn channels<T>(values: &[T], shape: [usize; 3]) -> impl Iterator<Item = ArrayView3<'_, T>> {
    values.chunks_exact(shape.iter().product()).map(move |channel| {
        ArrayView3::from_shape(shape, channel)
            .expect("a channel has as many voxels as its shape says")
    })
}
