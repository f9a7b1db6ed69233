//! Where a store lies: beside nnU-Net's preprocessed cases, never among them.

use super::fill::{LOCK_FILE, lock, remove_leftovers};
use super::recipe::StoreRecipe;
use super::{STORE_FILE, path_of};
use crate::error::{DataError, Result};
use crate::files;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What is put behind nnU-Net's name for the folder.
const SUFFIX: &str = "_stunet";

/// The folders of one configuration's preprocessed cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The store's own.
    pub own: PathBuf,
    /// nnU-Net's, where earlier versions of this program put the store as well.
    pub nnunet: PathBuf,
}

impl Place {
    /// The places in a dataset's folder for nnU-Net's `data_identifier`.
    pub fn new(dataset: &Path, identifier: &str) -> Self {
        Self {
            own: dataset.join(format!("{identifier}{SUFFIX}")),
            nnunet: dataset.join(identifier),
        }
    }

    /// The folder with a store: its own, else nnU-Net's, where an earlier version left one.
    pub fn find(&self) -> Option<&Path> {
        let folders = [&self.own, &self.nnunet].into_iter().map(PathBuf::as_path);
        folders.into_iter().find(|folder| folder.join(STORE_FILE).is_file())
    }
}

/// Moves a store that an earlier version put into nnU-Net's folder to its own; returns whether there
/// was one.
///
/// Only files of the store are touched. Its description is moved last: interrupted, the next call
/// goes on. A store that is in its own place already stays as it is, and so does the one that may lie
/// in nnU-Net's folder besides.
///
/// # Errors
/// When a file cannot be moved, or another program fills the store right now.
pub fn move_out(place: &Place) -> Result<bool> {
    let (from, to) = (&place.nnunet, &place.own);
    let description = from.join(STORE_FILE);
    if !description.is_file() {
        remove_lock(from)?;
        return Ok(false);
    }
    if to.join(STORE_FILE).is_file() {
        return Ok(false);
    }
    // Whatever else is called store.json is not ours to move.
    let Ok(recipe) = StoreRecipe::load(&description) else { return Ok(false) };
    std::fs::create_dir_all(to).map_err(|e| DataError::io("create", e).at(to))?;
    let held = lock(from)?;
    remove_leftovers(from)?;
    for name in recipe.cases() {
        let file = path_of(from, name);
        if file.is_file() {
            files::move_file(&file, &path_of(to, name))?;
        }
    }
    drop(held);
    remove_lock(from)?;
    files::move_file(&description, &to.join(STORE_FILE))?;
    // Where nnU-Net has no cases the folder is empty now; otherwise this does nothing.
    let _ = std::fs::remove_dir(from);
    Ok(true)
}

/// The lock alone keeps nnU-Net from training.
fn remove_lock(folder: &Path) -> Result<()> {
    let file = folder.join(LOCK_FILE);
    match std::fs::remove_file(&file) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(DataError::io("remove", e).at(&file)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::LabelSet;
    use crate::plans::Plans;
    use crate::store::Store;

    /// A dataset's folder with a store of two cases in nnU-Net's folder; their content is never read.
    fn old_store() -> (tempfile::TempDir, Place) {
        let home = tempfile::tempdir().unwrap();
        let place = Place::new(home.path(), "plans_3d");
        let labels = LabelSet::from_names(["background", "liver"]).unwrap();
        let cases = vec!["a".to_owned(), "b".to_owned()];
        let recipe = StoreRecipe::new(Plans::totalsegmentator(), labels, cases).unwrap();
        Store::create(&place.nnunet, recipe).unwrap();
        for name in ["a.safetensors", "b.safetensors", LOCK_FILE, ".stunet-a-1.tmp"] {
            std::fs::write(place.nnunet.join(name), name).unwrap();
        }
        (home, place)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    const WHOLE: [&str; 3] = ["a.safetensors", "b.safetensors", "store.json"];

    #[test]
    fn an_old_store_is_found_and_moved() {
        let (_home, place) = old_store();
        assert_eq!(place.find(), Some(place.nnunet.as_path()));
        assert!(move_out(&place).unwrap());
        assert_eq!(place.find(), Some(place.own.as_path()));
        assert_eq!(names(&place.own), WHOLE);
        assert!(!place.nnunet.exists(), "nothing of nnU-Net's was in it");
        assert!(!move_out(&place).unwrap());
    }

    #[test]
    fn files_of_others_stay() {
        let (_home, place) = old_store();
        for name in ["a.b2nd", "a_seg.b2nd", "a.pkl", "c.safetensors"] {
            std::fs::write(place.nnunet.join(name), b"").unwrap();
        }
        assert!(move_out(&place).unwrap());
        assert_eq!(names(&place.nnunet), ["a.b2nd", "a.pkl", "a_seg.b2nd", "c.safetensors"]);
        assert_eq!(names(&place.own), WHOLE);
    }

    #[test]
    fn a_lock_without_a_store_goes_away() {
        let home = tempfile::tempdir().unwrap();
        let place = Place::new(home.path(), "plans_3d");
        assert!(!move_out(&place).unwrap());
        std::fs::create_dir(&place.nnunet).unwrap();
        for name in [LOCK_FILE, "a.b2nd"] {
            std::fs::write(place.nnunet.join(name), b"").unwrap();
        }
        assert!(!move_out(&place).unwrap());
        assert_eq!(names(&place.nnunet), ["a.b2nd"]);
        assert!(!place.own.exists());
    }

    #[test]
    fn an_interrupted_move_goes_on() {
        let (_home, place) = old_store();
        std::fs::create_dir(&place.own).unwrap();
        files::move_file(&path_of(&place.nnunet, "a"), &path_of(&place.own, "a")).unwrap();
        assert_eq!(place.find(), Some(place.nnunet.as_path()));
        assert!(move_out(&place).unwrap());
        assert_eq!(names(&place.own), WHOLE);
    }

    #[test]
    fn a_store_in_its_place_and_foreign_files_are_left_alone() {
        let (_home, place) = old_store();
        std::fs::create_dir(&place.own).unwrap();
        std::fs::copy(place.nnunet.join(STORE_FILE), place.own.join(STORE_FILE)).unwrap();
        let before = names(&place.nnunet);
        assert!(!move_out(&place).unwrap());
        assert_eq!(names(&place.nnunet), before);
        std::fs::remove_file(place.own.join(STORE_FILE)).unwrap();
        std::fs::write(place.nnunet.join(STORE_FILE), b"{}").unwrap();
        assert!(!move_out(&place).unwrap());
        assert_eq!(names(&place.nnunet), before);
    }
}
