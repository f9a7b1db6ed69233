//! Preprocessed training cases on disk, memory-mapped.
//!
//! A store is one folder beside nnU-Net's own, `nnUNet_preprocessed/DATASET/IDENTIFIER_stunet`: a
//! `store.json` that says how its cases were prepared, and one `CASE.safetensors` per case with
//!
//! * `image`, f32 `[C, Z, Y, X]`, normalised, in the network's frame,
//! * `labels`, i16 `[Z, Y, X]`, -1 outside the nonzero region,
//! * `locations.LABEL`, u32 `[n, 3]`, sampled voxels of every label or region that occurs,
//! * how to get back to the file's grid, digests of recipe and source files, and checksums.
//!
//! Files appear under their names only when they are complete, so whatever ends the program leaves
//! a store that is whole and can be continued ([`fill()`]). Opening a case maps it: only the pages
//! that a patch touches are read.
//!
//! ```no_run
//! use stunet_data::store::Store;
//! let store = Store::open("nnUNet_preprocessed/Dataset001_Liver/nnUNetPlans_3d_fullres_stunet".as_ref())?;
//! let case = store.find("liver_007")?;
//! println!("{} is {:?}", case.name(), case.image().shape());
//! # Ok::<(), stunet_data::DataError>(())
//! ```
//!
//! # Deviations
//! nnU-Net keeps arrays in `.npz`, `.npy` or `.b2nd` with a pickle beside them. The content is the
//! same; the files are ours. They lie in a folder of their own ([`Place`]): nnU-Net trains from a
//! folder only while every file in it is of its kind, and empties it before it preprocesses.

mod file;
mod fill;
mod place;
mod recipe;

pub use file::{Stamp, suffix};
pub use fill::{FillEvent, FillOptions, FillReport, Outcome, fill};
pub use place::{Place, move_out};
pub use recipe::{StoreRecipe, digest};

use crate::error::{DataError, Result};
use crate::preprocess::Trace;
use crate::sample::{CasePart, ClassLocations, TrainingCase, TrainingCases};
use file::Layout;
use memmap2::Mmap;
use ndarray::{ArrayView3, ArrayView4};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Name of the description.
pub const STORE_FILE: &str = "store.json";

/// A folder of preprocessed cases.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    recipe: Arc<StoreRecipe>,
    names: Vec<String>,
    /// Whose values have been held against their checksum; shared with subsets.
    verified: Vec<Arc<AtomicBool>>,
}

/// What is kept of one case.
#[derive(Clone, Copy, Debug)]
pub struct NewCase<'a> {
    /// Its name.
    pub name: &'a str,
    /// Preprocessed, `[C, Z, Y, X]`.
    pub image: ArrayView4<'a, f32>,
    /// On the same grid, `[Z, Y, X]`.
    pub labels: ArrayView3<'a, i16>,
    /// Sampled foreground voxels.
    pub locations: &'a ClassLocations,
    /// The way back.
    pub trace: &'a Trace,
    /// The files it was made from.
    pub stamp: &'a Stamp,
}

impl Store {
    /// Makes the folder and its description, or takes over the ones that are there.
    ///
    /// Cases that were prepared by another recipe stay until [`fill()`] replaces them; opening one
    /// is an error until then.
    ///
    /// # Errors
    /// When the folder or the description cannot be written, or a name occurs twice.
    pub fn create(folder: &Path, recipe: StoreRecipe) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| DataError::io("create", e).at(folder))?;
        recipe.save(&folder.join(STORE_FILE))?;
        Self::open(folder)
    }

    /// Opens a folder; no case is read yet.
    ///
    /// # Errors
    /// When there is no store, or its description is malformed.
    pub fn open(folder: &Path) -> Result<Self> {
        let recipe = StoreRecipe::load(&folder.join(STORE_FILE))?;
        let there = |name: &&String| path_of(folder, name).is_file();
        let names: Vec<String> = recipe.cases().iter().filter(there).cloned().collect();
        let verified = names.iter().map(|_| Arc::default()).collect();
        Ok(Self { folder: folder.to_owned(), recipe: Arc::new(recipe), names, verified })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How its cases were prepared.
    pub fn recipe(&self) -> &StoreRecipe {
        &self.recipe
    }

    /// Names of the cases that are there, sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Names of cases of the dataset that are not there: not prepared yet, or failed.
    pub fn unfinished(&self) -> Vec<String> {
        let absent = |name: &&String| !path_of(&self.folder, name).is_file();
        self.recipe.cases().iter().filter(absent).cloned().collect()
    }

    /// Cases that are there but were prepared by another recipe than the store's, or are damaged,
    /// each with its error: preparing was interrupted after the plans had changed, or a disk failed.
    /// Values are not read.
    pub fn outdated(&self) -> Vec<(String, DataError)> {
        let wrong = |name: &String| {
            let path = path_of(&self.folder, name);
            Some((name.clone(), self.mapped(name, &path).err()?.at(&path)))
        };
        self.names.iter().filter_map(wrong).collect()
    }

    /// The same store with these cases only, in this order: one side of a split.
    ///
    /// # Errors
    /// When there is no case of a name.
    pub fn subset<S: AsRef<str>>(&self, names: &[S]) -> Result<Self> {
        let mut subset = Self { names: Vec::new(), verified: Vec::new(), ..self.clone() };
        for name in names {
            let index = self.index_of(name.as_ref())?;
            subset.names.push(self.names[index].clone());
            subset.verified.push(self.verified[index].clone());
        }
        Ok(subset)
    }

    /// Opens the case of an index.
    ///
    /// The first opening of a case reads it whole and holds it against its checksum; later ones,
    /// of this store and its subsets, only check its structure.
    ///
    /// # Errors
    /// When the file is missing, truncated, damaged, of another kind, or was prepared by another
    /// recipe.
    ///
    /// # Panics
    /// When there is no case of that index.
    pub fn case(&self, index: usize) -> Result<StoredCase> {
        let (name, verified) = (&self.names[index], &self.verified[index]);
        let path = path_of(&self.folder, name);
        let case = self.mapped(name, &path).map_err(|e| e.at(&path))?;
        if !verified.load(Ordering::Acquire) {
            case.layout.verify(&case.map).map_err(|e| e.at(&path))?;
            verified.store(true, Ordering::Release);
        }
        Ok(case)
    }

    /// Opens the case of a name.
    ///
    /// # Errors
    /// As [`Store::case`], and when there is none of that name.
    pub fn find(&self, name: &str) -> Result<StoredCase> {
        self.case(self.index_of(name)?)
    }

    /// Writes a case; an older one of its name is replaced. Returns the size of the file in bytes.
    ///
    /// # Errors
    /// When the file cannot be written; the older one, if any, is untouched then.
    ///
    /// # Panics
    /// When image and labels have different shapes.
    pub fn put(&self, case: &NewCase<'_>) -> Result<u64> {
        file::write(&path_of(&self.folder, case.name), case, self.recipe.digest())
    }

    /// Whether a case is there, whole and undamaged, made by this recipe from these very files.
    ///
    /// Reads the case, so that preparing a dataset again also finds and mends what a disk spoiled.
    pub fn is_finished(&self, name: &str, stamp: &Stamp) -> bool {
        let case = self.mapped(name, &path_of(&self.folder, name));
        case.is_ok_and(|case| case.layout.stamp == *stamp && case.layout.verify(&case.map).is_ok())
    }

    fn index_of(&self, name: &str) -> Result<usize> {
        self.names.iter().position(|n| n == name).ok_or_else(|| {
            DataError::NoSuchCase { case: name.to_owned(), found: self.names.len() }
                .at(&self.folder)
        })
    }

    /// Maps a file and checks its structure.
    fn mapped(&self, name: &str, path: &Path) -> Result<StoredCase> {
        let file = crate::files::open(path)?;
        let map = map(&file).map_err(|e| DataError::io("map", e))?;
        let layout = Layout::read(&map)?;
        if layout.name != name {
            return Err(file::wrong(format!("case {name}"), format!("case {}", layout.name)));
        }
        if layout.digest != self.recipe.digest() {
            return Err(DataError::OtherRecipe {
                expected: self.recipe.digest().to_owned(),
                found: layout.digest,
            });
        }
        layout.check_plans(self.recipe.plans())?;
        Ok(StoredCase { map, layout, locations: OnceLock::new() })
    }
}

impl TrainingCases for Store {
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

fn path_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}{}", suffix()))
}

/// Maps a file.
#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: a mapping is sound as long as nobody changes the bytes under it. The map is
    // read-only, and this crate never writes into an existing case: it moves a new file over it,
    // which leaves the mapped one as it was. As with every mapped file, another program that
    // truncates it in place, and just while a patch is cut out, would end this one with a bus error
    // (see docs/DESIGN.md); the values themselves are plain numbers, for which any bytes are valid.
    unsafe { Mmap::map(file) }
}

/// A case of a store, mapped.
#[derive(Debug)]
pub struct StoredCase {
    map: Mmap,
    layout: Layout,
    /// Copied out of the map when first asked for: most patches need none.
    locations: OnceLock<ClassLocations>,
}

impl StoredCase {
    /// How to get back to the file's grid.
    pub fn trace(&self) -> &Trace {
        &self.layout.trace
    }

    /// The files it was made from.
    pub fn stamp(&self) -> &Stamp {
        &self.layout.stamp
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.layout.name
    }

    /// Normalised, in the network's frame, `[C, Z, Y, X]`.
    pub fn image(&self) -> ArrayView4<'_, f32> {
        self.layout.image(&self.map)
    }

    /// On the same grid; -1 outside the nonzero region.
    pub fn labels(&self) -> ArrayView3<'_, i16> {
        self.layout.labels(&self.map)
    }

    /// Voxels drawn of every class.
    pub fn locations(&self) -> &ClassLocations {
        self.locations.get_or_init(|| self.layout.locations(&self.map))
    }
}

impl TrainingCase for StoredCase {
    fn name(&self) -> &str {
        self.name()
    }

    fn shape(&self) -> [usize; 4] {
        self.image().dim().into()
    }

    fn part(&self, _: [usize; 3], _: [usize; 3]) -> Result<CasePart<'_>> {
        Ok(CasePart::whole(self.image(), self.labels()))
    }

    fn locations(&self) -> Result<&ClassLocations> {
        Ok(self.locations())
    }
}

#[cfg(test)]
mod tests;
