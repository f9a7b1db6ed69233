//! Datasets of the Medical Segmentation Decathlon and of nnU-Net 1 in nnU-Net 2's layout.

use super::scan::name_of;
use super::{DatasetInfo, in_version_2};
use crate::error::{DataError, Result, invalid};
use crate::files;
use crate::nifti::{ENDINGS, split_ending, split_volumes};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Folders whose files are images, and those whose files are labelmaps.
const IMAGES: [&str; 3] = ["imagesTr", "imagesTs", "imagesVal"];
const LABELS: [&str; 3] = ["labelsTr", "labelsTs", "labelsVal"];

/// What a dataset is before [`import`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetOrigin {
    /// Of the Medical Segmentation Decathlon: all channels of a case in one file.
    Decathlon,
    /// Of nnU-Net 1: a file for each channel.
    NnUNetV1,
}

/// What was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What it was.
    pub origin: DatasetOrigin,
    /// Files of images, after splitting.
    pub images: usize,
    /// Files of labels.
    pub labels: usize,
}

/// Writes a dataset of the Medical Segmentation Decathlon or of nnU-Net 1 (`from`) as one of nnU-Net 2's to
/// the folder `to`, which is new, or was left by an import that did not end. `dataset.json` is written
/// last: without it the folder is no dataset. `on_file` hears of every file that is done, from several
/// threads, and may end the import: then nothing is returned.
///
/// # Errors
/// When `dataset.json` is missing or malformed, a file is no NIfTI image or has another number of
/// volumes than there are channels, `to` is a dataset, or a file cannot be written.
pub fn import(
    from: &Path,
    to: &Path,
    on_file: &(dyn Fn(&str) -> ControlFlow<()> + Sync),
) -> Result<Option<Imported>> {
    let about = from.join("dataset.json");
    let json: Value = files::read_json(&about)?;
    let info = DatasetInfo::from_json(&json).map_err(|error| error.at(&about))?;
    check_target(to)?;
    let images = files_in(from, &IMAGES)?;
    let labels = files_in(from, &LABELS)?;
    let cases = labels.iter().filter(|(folder, _)| *folder == "labelsTr").count();
    let described = describe(&json, cases).map_err(|error| error.at(&about))?;
    let origin = origin(&images, &labels).map_err(|error| error.at(from))?;
    for folder in IMAGES.iter().chain(&LABELS).filter(|folder| from.join(folder).is_dir()) {
        let made = std::fs::create_dir_all(to.join(folder));
        made.map_err(|error| DataError::io("make", error).at(&to.join(folder)))?;
    }
    let work = images.par_iter().map(|file| (file, true));
    let work = work.chain(labels.par_iter().map(|file| (file, false)));
    let stopped = AtomicBool::new(false);
    let written = work.map(|((folder, file), is_image)| -> Result<(usize, usize)> {
        if stopped.load(Ordering::Relaxed) {
            return Ok((0, 0));
        }
        let (target, name) = (to.join(folder), name_of(file));
        let count = match (is_image, origin) {
            (true, DatasetOrigin::Decathlon) => {
                let count = split_image(file, &target, &name)?;
                check_channels(count, info.channel_names.len()).map_err(|error| error.at(file))?;
                count
            }
            _ => copy(file, &target.join(&name))?,
        };
        if on_file(&name).is_break() {
            stopped.store(true, Ordering::Relaxed);
        }
        Ok(if is_image { (count, 0) } else { (0, count) })
    });
    let add = |a: (usize, usize), b: (usize, usize)| Ok((a.0 + b.0, a.1 + b.1));
    let (images, labels) = written.try_reduce(|| (0, 0), add)?;
    if stopped.into_inner() {
        return Ok(None);
    }
    files::save_json(&to.join("dataset.json"), &described)?;
    Ok(Some(Imported { origin, images, labels }))
}

/// `dataset.json` in version 2's form, without lists of files.
fn describe(json: &Value, num_cases: usize) -> Result<Value> {
    let mut described = in_version_2(json)?;
    if let Some(entries) = described.as_object_mut() {
        for gone in ["training", "test", "numTest", "tensorImageSize", "modality"] {
            entries.remove(gone);
        }
        entries.insert("numTraining".to_owned(), json!(num_cases));
        entries.insert("file_ending".to_owned(), json!(".nii.gz"));
    }
    Ok(described)
}

fn check_target(to: &Path) -> Result<()> {
    match to.join("dataset.json").exists() {
        false => Ok(()),
        true => Err(invalid("target", "folder", "a new one", "a dataset").at(to)),
    }
}

type InFolder = (&'static str, PathBuf);

/// NIfTI files of some folders, hidden ones left out: archives made on a Mac hold them.
fn files_in(from: &Path, folders: &[&'static str]) -> Result<Vec<InFolder>> {
    let mut found = Vec::new();
    for folder in folders {
        let path = from.join(folder);
        if !path.is_dir() {
            continue;
        }
        let entries = std::fs::read_dir(&path).map_err(|e| DataError::io("list", e).at(&path))?;
        for entry in entries {
            let path = entry.map_err(|e| DataError::io("list", e).at(&path))?.path();
            let name = name_of(&path);
            if path.is_file() && !name.starts_with(['.', '_']) && name.ends_with(".nii.gz") {
                found.push((*folder, path));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A case whose images carry its bare name is the Decathlon's.
fn origin(images: &[InFolder], labels: &[InFolder]) -> Result<DatasetOrigin> {
    let name = |(_, file): &InFolder| name_of(file);
    let training = images.iter().filter(|(folder, _)| *folder == "imagesTr");
    let training: Vec<String> = training.map(name).collect();
    let mut labelled = labels.iter().filter(|(folder, _)| *folder == "labelsTr").map(name);
    let Some(first) = labelled.next() else {
        return Err(invalid("dataset", "labelsTr", "files that end in .nii.gz", "none"));
    };
    let stem = split_ending(&first).map_or(first.as_str(), |(stem, _)| stem);
    if training.contains(&first) {
        return Ok(DatasetOrigin::Decathlon);
    }
    if training.contains(&format!("{stem}_0000.nii.gz")) {
        return Ok(DatasetOrigin::NnUNetV1);
    }
    let expected = format!("{first} or {stem}_0000.nii.gz in imagesTr");
    Err(invalid("dataset", "images", expected, "neither"))
}

fn split_image(file: &Path, target: &Path, name: &str) -> Result<usize> {
    let stem = split_ending(name).map_or(name, |(stem, _)| stem);
    split_volumes(file, |channel| target.join(format!("{stem}_{channel:04}{}", ENDINGS[0])))
}

fn check_channels(found: usize, expected: usize) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(DataError::Mismatch {
            what: "number of volumes",
            expected: format!("{expected}, one for each channel of dataset.json"),
            found: found.to_string(),
        }),
    }
}

/// Copies one file, whole or not at all.
fn copy(from: &Path, to: &Path) -> Result<usize> {
    let mut source = File::open(from).map_err(|error| DataError::io("open", error).at(from))?;
    files::write(to, |out| {
        io::copy(&mut source, out).map_err(|error| DataError::io("copy", error))?;
        Ok(())
    })?;
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::RawDataset;
    use crate::nifti::read_image;
    use ndarray::s;
    use std::fs;
    use stunet_testing::nifti_bytes::NiftiBytes;

    struct Scene(tempfile::TempDir);

    impl Scene {
        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn file(&self, name: &str, bytes: &[u8]) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut packed, bytes).unwrap();
            fs::write(path, packed.finish().unwrap()).unwrap();
        }

        fn image(channels: i16) -> Vec<u8> {
            let mut image = NiftiBytes { channels, ..NiftiBytes::ramp([5, 4, 3]) };
            image.values = (0..60 * channels).map(f32::from).collect();
            image.bytes()
        }

        /// Two cases of two channels; `files` names the files of a case's images.
        fn new(volumes: i16, files: &[&str]) -> Self {
            let scene = Self(tempfile::tempdir().unwrap());
            for case in ["a", "b"] {
                for file in files {
                    let name = format!("in/imagesTr/{case}{file}.nii.gz");
                    scene.file(&name, &Self::image(volumes));
                }
                scene.file(
                    &format!("in/labelsTr/{case}.nii.gz"),
                    &NiftiBytes::ramp([5, 4, 3]).bytes(),
                );
            }
            scene.file("in/imagesTr/._a.nii.gz", b"resource fork");
            let about = json!({
                "name": "X", "modality": {"0": "T1", "1": "T2"}, "numTraining": 2, "numTest": 0,
                "labels": {"0": "background", "1": "box"}, "tensorImageSize": "4D",
                "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}], "test": []
            });
            fs::write(scene.path("in/dataset.json"), about.to_string()).unwrap();
            scene
        }

        fn import(&self) -> Result<Imported> {
            let done = import(&self.path("in"), &self.path("out"), &|_| ControlFlow::Continue(()));
            done.map(Option::unwrap)
        }
    }

    #[test]
    fn of_the_decathlon() {
        let scene = Scene::new(2, &[""]);
        let done = scene.import().unwrap();
        let expected = Imported { origin: DatasetOrigin::Decathlon, images: 4, labels: 2 };
        assert_eq!(done, expected);
        let dataset = RawDataset::open(&scene.path("out")).unwrap();
        assert_eq!(dataset.case_names(), ["a", "b"]);
        assert_eq!(dataset.info().channel_names, ["T1", "T2"]);
        assert_eq!(dataset.json()["labels"], json!({"background": 0, "box": 1}));
        assert!(dataset.json().get("training").is_none());

        // Channel by channel what the one file held.
        let whole = read_image(&[scene.path("in/imagesTr/a.nii.gz")]).unwrap();
        for channel in 0..2 {
            let file = scene.path(&format!("out/imagesTr/a_{channel:04}.nii.gz"));
            let one = read_image(&[file]).unwrap();
            assert_eq!(
                one.data.slice(s![0, .., .., ..]),
                whole.data.slice(s![channel, .., .., ..])
            );
            assert_eq!(one.geometry, whole.geometry);
        }
        // A second time there is a dataset.
        let message = scene.import().unwrap_err().to_string();
        assert!(message.contains("expected a new one"), "{message}");
    }

    #[test]
    fn of_nnunet_1() {
        let scene = Scene::new(1, &["_0000", "_0001"]);
        let done = scene.import().unwrap();
        assert_eq!(done, Imported { origin: DatasetOrigin::NnUNetV1, images: 4, labels: 2 });
        let copy = fs::read(scene.path("out/imagesTr/b_0001.nii.gz")).unwrap();
        assert!(copy == fs::read(scene.path("in/imagesTr/b_0001.nii.gz")).unwrap());
    }

    #[test]
    fn what_is_neither() {
        let check = |scene: &Scene, reason: &str| {
            let message = scene.import().unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
            assert!(!scene.path("out/dataset.json").exists());
        };
        check(&Scene::new(3, &[""]), "expected 2, one for each channel");
        check(&Scene::new(1, &["_x"]), "expected a.nii.gz or a_0000.nii.gz");
        let scene = Scene::new(2, &[""]);
        fs::remove_dir_all(scene.path("in/labelsTr")).unwrap();
        check(&scene, "files that end in .nii.gz");
        let scene = Scene::new(2, &[""]);
        scene.file("in/imagesTr/b.nii.gz", &Scene::image(2)[..400]);
        check(&scene, "b.nii.gz");
        let scene = Scene::new(2, &[""]);
        let stopped = import(&scene.path("in"), &scene.path("out"), &|_| ControlFlow::Break(()));
        assert_eq!(stopped.unwrap(), None);
        assert!(!scene.path("out/dataset.json").exists());
        // What was left is taken over.
        scene.import().unwrap();
    }
}
