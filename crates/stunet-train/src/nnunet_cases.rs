//! Cases that nnU-Net preprocessed, in its own folder: a source of training patches.
//!
//! Read are nnU-Net 2's `.b2nd` files (`CASE.b2nd`, `CASE_seg.b2nd`), the `.npz` of its earlier versions and
//! of nnU-Net 1, unpacked to `.npy` first as nnU-Net does ([`NnUNetCases::unpack`]), and the `.pkl` beside
//! them for the voxels that were drawn of every class; no pickle is executed. Only the blocks or rows that
//! a patch needs are read, so that memory does not grow with the cases.
//!
//! ```no_run
//! use stunet_data::labels::LabelSet;
//! use stunet_data::sample::TrainingCases;
//! use stunet_train::nnunet_cases::NnUNetCases;
//! let folder = "nnUNet_preprocessed/Dataset001_Liver/nnUNetPlans_3d_fullres";
//! let labels = LabelSet::from_names(["background", "liver", "tumour"])?;
//! let cases = NnUNetCases::open(folder.as_ref(), labels, 1)?;
//! let shape = cases.open(0)?.shape();
//! println!("{} cases, the first has shape {shape:?}", cases.names().len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod drawn;
mod unpack;

use drawn::Drawn;
use ndarray::Array3;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use stunet_data::array_file::ArrayFile;
use stunet_data::error::{DataError, Result};
use stunet_data::labels::LabelSet;
use stunet_data::sample::{CasePart, ClassLocations, TrainingCase, TrainingCases};

/// Ending of the files of nnU-Net 2.6 and later.
const BLOSC2: &str = ".b2nd";
/// Ending of the files before.
const ARCHIVE: &str = ".npz";
/// What an archive is unpacked to.
const UNPACKED: &str = ".npy";
/// Behind the name of a case whose labels are in a file of their own.
const LABELS: &str = "_seg";

/// How the cases of a folder are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseFormat {
    /// `.b2nd`, image and labels apart.
    Blosc2,
    /// `.npz` of nnU-Net 2: `data` and `seg`, unpacked to files of their own.
    Archive,
    /// `.npz` of nnU-Net 1: `data`, whose last channel is the labels.
    ArchiveV1,
}

/// A folder of preprocessed cases of nnU-Net.
#[derive(Clone, Debug)]
pub struct NnUNetCases {
    folder: PathBuf,
    names: Vec<String>,
    format: CaseFormat,
    labels: LabelSet,
    num_channels: usize,
    /// Shared with subsets.
    drawn: Arc<Drawn>,
}

impl NnUNetCases {
    /// Opens a folder whose images have `num_channels` channels; no case is read yet.
    ///
    /// # Errors
    /// When the folder cannot be read, holds no case, or files of more than one kind.
    ///
    /// # Source
    /// nnU-Net 2.8.1, `infer_dataset_class` and `get_identifiers` of `nnunet_dataset.py`.
    pub fn open(folder: &Path, labels: LabelSet, num_channels: usize) -> Result<Self> {
        let found = files_of(folder)?;
        let (names, format) = match found {
            Found { blosc2, archives } if archives.is_empty() && !blosc2.is_empty() => {
                (blosc2, CaseFormat::Blosc2)
            }
            Found { blosc2, archives } if blosc2.is_empty() && !archives.is_empty() => {
                let first = folder.join(format!("{}{ARCHIVE}", archives[0]));
                let format = match unpack::has_labels(&first)? {
                    true => CaseFormat::Archive,
                    false => CaseFormat::ArchiveV1,
                };
                (archives, format)
            }
            Found { blosc2, archives } => {
                let found = format!("{} .b2nd and {} .npz files", blosc2.len(), archives.len());
                let expected = "preprocessed cases of nnU-Net, of one kind";
                return Err(wrong(expected, found).at(folder));
            }
        };
        let folder = folder.to_owned();
        Ok(Self { folder, names, format, labels, num_channels, drawn: Arc::default() })
    }

    /// Whether a folder holds files that nnU-Net keeps preprocessed cases in.
    pub fn are_in(folder: &Path) -> bool {
        files_of(folder).is_ok_and(|f| !f.blosc2.is_empty() || !f.archives.is_empty())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Names of the cases, sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How they are kept.
    pub fn format(&self) -> CaseFormat {
        self.format
    }

    /// What their label values mean.
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// The same folder with these cases only, in this order: one side of a split.
    ///
    /// # Errors
    /// When there is no case of a name.
    pub fn subset<S: AsRef<str>>(&self, names: &[S]) -> Result<Self> {
        let known = |name: &S| match self.names.iter().any(|known| known == name.as_ref()) {
            true => Ok(name.as_ref().to_owned()),
            false => {
                let (case, found) = (name.as_ref().to_owned(), self.names.len());
                Err(DataError::NoSuchCase { case, found }.at(&self.folder))
            }
        };
        let names = names.iter().map(known).collect::<Result<_>>()?;
        Ok(Self { names, ..self.clone() })
    }

    /// Every file of the cases.
    pub fn files(&self) -> Vec<PathBuf> {
        let of = |name: &String| {
            let endings: &[&str] = match self.format {
                CaseFormat::Blosc2 => &[".b2nd", "_seg.b2nd", ".pkl"],
                CaseFormat::Archive => &[".npz", ".npy", "_seg.npy", ".pkl"],
                CaseFormat::ArchiveV1 => &[".npz", ".npy", ".pkl"],
            };
            endings.iter().map(|ending| self.file(name, ending)).collect::<Vec<_>>()
        };
        self.names.iter().flat_map(of).collect()
    }

    /// Unpacks archives that are not unpacked yet, to `CASE.npy` (and `CASE_seg.npy`) beside them, as
    /// nnU-Net does before it trains; returns how many there were. Nothing is held in memory, and a
    /// file appears when it is whole.
    ///
    /// # Errors
    /// When an archive is damaged or a file cannot be written.
    pub fn unpack(&self, mut before_each: impl FnMut(&str) -> Result<()>) -> Result<usize> {
        let arrays: &[(&str, &str)] = match self.format {
            CaseFormat::Blosc2 => &[],
            CaseFormat::Archive => &[(unpack::IMAGE, ""), (unpack::SEGMENTATION, LABELS)],
            CaseFormat::ArchiveV1 => &[(unpack::IMAGE, "")],
        };
        let mut done = 0;
        for name in &self.names {
            let lacking = |(_, part): &&(&str, &str)| {
                !self.file(name, &format!("{part}{UNPACKED}")).is_file()
            };
            let lacking: Vec<_> = arrays.iter().filter(lacking).collect();
            if lacking.is_empty() {
                continue;
            }
            before_each(name)?;
            for (array, part) in lacking {
                let to = self.file(name, &format!("{part}{UNPACKED}"));
                unpack::array(&self.file(name, ARCHIVE), array, &to)?;
            }
            done += 1;
        }
        Ok(done)
    }

    /// Opens every case and compares its header with the others of its case; voxels are not read.
    ///
    /// # Errors
    /// The first case that is damaged or incomplete.
    pub fn check(&self) -> Result<()> {
        for (index, name) in self.names.iter().enumerate() {
            self.case(index).map_err(|e| e.in_case(name.clone()))?;
            let properties = self.file(name, ".pkl");
            if !properties.is_file() {
                let what = "the file of its properties (.pkl)";
                return Err(DataError::MissingFile { what }.at(&properties).in_case(name.clone()));
            }
        }
        Ok(())
    }

    fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{name}{ending}"))
    }

    fn case(&self, index: usize) -> Result<NnUNetCase<'_>> {
        let name = &self.names[index];
        let (channels, labels_at) = (self.num_channels, self.labels_channel());
        let (image, labels) = match self.format {
            CaseFormat::Blosc2 => (".b2nd", "_seg.b2nd"),
            CaseFormat::Archive => (".npy", "_seg.npy"),
            CaseFormat::ArchiveV1 => (".npy", ".npy"),
        };
        let [image, labels] = [image, labels].map(|ending| self.file(name, ending));
        let (image, labels) = (ArrayFile::open(&image)?, ArrayFile::open(&labels)?);
        let [found, grid @ ..] = image.shape();
        let [found_labels, label_grid @ ..] = labels.shape();
        let expected = if self.format == CaseFormat::ArchiveV1 { channels + 1 } else { channels };
        if found != expected {
            let expected = format!("{expected} channels, as the plans say");
            return Err(wrong(expected, found.to_string()).at(image.path()));
        }
        if grid != label_grid || found_labels <= labels_at {
            let expected = format!("labels of shape [1, {}, {}, {}]", grid[0], grid[1], grid[2]);
            return Err(wrong(expected, format!("{:?}", labels.shape())).at(labels.path()));
        }
        Ok(NnUNetCase { cases: self, name, image, labels, locations: OnceLock::new() })
    }

    /// Whoever computes a loss relies on it that there are no labels but those that are known.
    fn check_labels(&self, labels: &Array3<i16>) -> Result<()> {
        // Neighbours are mostly alike.
        let (mut unknown, mut last) = (BTreeSet::new(), None);
        for label in labels {
            if last != Some(*label) {
                unknown.insert(*label);
                last = Some(*label);
            }
        }
        let known = |label: &i16| match u16::try_from(*label) {
            Ok(label) => {
                self.labels.ignore() == Some(label)
                    || self.labels.labels().iter().any(|known| known.values.contains(&label))
            }
            // Outside of what was measured.
            Err(_) => *label == -1,
        };
        unknown.retain(|label| !known(label));
        let found: Vec<_> = unknown.iter().map(i16::to_string).collect();
        match found.is_empty() {
            true => Ok(()),
            false => Err(DataError::UnknownLabels {
                expected: "those of dataset.json".to_owned(),
                found: format!("{}: preprocess the case again", found.join(", ")),
            }),
        }
    }

    fn labels_channel(&self) -> usize {
        if self.format == CaseFormat::ArchiveV1 { self.num_channels } else { 0 }
    }
}

impl TrainingCases for NnUNetCases {
    fn len(&self) -> usize {
        self.names.len()
    }

    fn open(&self, index: usize) -> Result<Box<dyn TrainingCase + '_>> {
        Ok(Box::new(self.case(index)?))
    }

    fn name(&self, index: usize) -> String {
        self.names[index].clone()
    }
}

/// An open case.
struct NnUNetCase<'a> {
    cases: &'a NnUNetCases,
    name: &'a str,
    image: ArrayFile,
    labels: ArrayFile,
    locations: OnceLock<Arc<ClassLocations>>,
}

impl TrainingCase for NnUNetCase<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn shape(&self) -> [usize; 4] {
        let [_, z, y, x] = self.image.shape();
        [self.cases.num_channels, z, y, x]
    }

    fn part(&self, first: [usize; 3], size: [usize; 3]) -> Result<CasePart<'_>> {
        let ([z, y, x], [nz, ny, nx]) = (first, size);
        let image = self.image.read([0, z, y, x], [self.cases.num_channels, nz, ny, nx])?;
        let labels = self.labels.read([self.cases.labels_channel(), z, y, x], [1, nz, ny, nx])?;
        let labels = labels.index_axis_move(ndarray::Axis(0), 0);
        self.cases.check_labels(&labels).map_err(|e| e.at(self.labels.path()))?;
        Ok(CasePart { image: image.into(), labels: labels.into(), first })
    }

    fn locations(&self) -> Result<&ClassLocations> {
        if self.locations.get().is_none() {
            let [_, grid @ ..] = self.shape();
            let properties = self.cases.file(self.name, ".pkl");
            let found = self.cases.drawn.of(&properties, &self.cases.labels, grid)?;
            let _ = self.locations.set(found);
        }
        Ok(self.locations.get().expect("it was just set"))
    }
}

/// Names of cases by the kind of their files.
#[derive(Default)]
struct Found {
    blosc2: Vec<String>,
    archives: Vec<String>,
}

fn files_of(folder: &Path) -> Result<Found> {
    let read = |source| DataError::Io { action: "read the folder", source }.at(folder);
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        for ending in [BLOSC2, ARCHIVE] {
            if let Some(case) = name.strip_suffix(ending) {
                found.insert((ending, case.to_owned()), ());
            }
        }
    }
    let of = |wanted: &str| -> Vec<String> {
        let names = found.keys().filter(|(ending, _)| *ending == wanted);
        names.map(|(_, name)| name.clone()).filter(|name| !name.ends_with(LABELS)).collect()
    };
    Ok(Found { blosc2: of(BLOSC2), archives: of(ARCHIVE) })
}

fn wrong(expected: impl Into<String>, found: impl Into<String>) -> DataError {
    DataError::StoredCase { expected: expected.into(), found: found.into() }
}

#[cfg(test)]
mod tests;
