//! A raw training dataset in nnU-Net's layout, and what can be wrong with its cases.

use super::scan::ENDINGS;
use super::{DEFAULT_ENDING, DatasetInfo, PassedOver, convert, listing};
use crate::error::{DataError, Problem, Result, invalid};
use crate::geometry::Leniency;
use crate::image::{Image, RawImage};
use crate::labels::{LabelMap, LabelSet, dataset_json};
use crate::nifti::{Opener, Reader};
use crate::reference::{FileFormat, Reference};
use rayon::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Unknown label values named in an error; the rest is counted.
const NUM_NAMED: usize = 8;

/// One training case: channel files in order, and the labels drawn on them.
///
/// The files are the expected ones; whether they are there is seen by [`TrainingCaseFiles::read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingCaseFiles {
    /// Name without channel number and ending.
    pub name: String,
    /// One file per channel.
    pub images: Vec<PathBuf>,
    /// The labelmap.
    pub labels: PathBuf,
}

/// A training dataset on disk: `dataset.json`, `imagesTr` and `labelsTr`.
///
/// nnU-Net 1 (`modality`, `training`) and 2 (`channel_names`, optionally `dataset`) are told apart
/// by the keys of `dataset.json`.
///
/// # Source
/// nnU-Net 1.7 `sanity_checks.py`, nnU-Net 2 `verify_dataset_integrity.py` and
/// `get_filenames_of_train_images_and_targets`.
///
/// # Deviations
/// Origins and directions that differ between the files of a case are problems, where nnU-Net
/// warns and trains on labels that lie beside their organs. All problems are found, not the first.
/// Variables of the environment in the paths of `dataset` are not expanded.
#[derive(Clone, Debug)]
pub struct RawDataset {
    folder: PathBuf,
    json: Value,
    info: DatasetInfo,
    cases: Vec<TrainingCaseFiles>,
    passed_over: Vec<PassedOver>,
    notes: Vec<String>,
}

impl RawDataset {
    /// Reads `dataset.json` and lists the training cases, sorted by name. No volume is opened.
    ///
    /// # Errors
    /// When `dataset.json` is missing or malformed, a folder is missing, there is no case, the
    /// number of cases is not `numTraining`, files were named so that their last digits are taken for
    /// channels, the name of a case cannot be that of a file, or two names differ in capitals only.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("dataset.json");
        let json: Value = crate::files::read_json(&path)?;
        let info = DatasetInfo::from_json(&json).map_err(|e| e.at(&path))?;
        if !ENDINGS.contains(&info.file_ending.as_str()) {
            let expected = ENDINGS.join(" or ");
            let error = invalid("dataset.json", "file_ending", expected, &info.file_ending);
            return Err(error.at(&path));
        }
        check_consecutive(&info.labels).map_err(|e| e.at(&path))?;
        let listing::Listed { cases, passed_over, notes: listed } =
            listing::list(folder, &json, &info).map_err(|e| e.at(&path))?;
        let mut notes: Vec<String> = dataset_json::note(&json).into_iter().chain(listed).collect();
        if json.get("numTraining").is_none() {
            let found = cases.len();
            notes.push(format!("dataset.json has no numTraining: {found} cases are taken"));
        }
        if json.get("channel_names").is_some() && json.get("file_ending").is_none() {
            notes.push(format!("dataset.json has no file_ending: {DEFAULT_ENDING} is taken"));
        }
        Ok(Self { folder: folder.to_owned(), json, info, cases, passed_over, notes })
    }

    /// Name of the dataset: that of its folder.
    pub fn name(&self) -> String {
        let folder = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The content of `dataset.json`.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// What `dataset.json` says.
    pub fn info(&self) -> &DatasetInfo {
        &self.info
    }

    /// The same dataset, its files opened by another reader than it asks for: that of plans.
    #[must_use]
    pub fn read_by(mut self, reader: Reader) -> Self {
        self.info.reader = reader;
        self
    }

    /// The same dataset, with what of its files' headers is forgiven.
    #[must_use]
    pub fn forgiving(mut self, leniency: Leniency) -> Self {
        self.info.leniency = leniency;
        self
    }

    /// The cases, sorted by name.
    pub fn cases(&self) -> &[TrainingCaseFiles] {
        &self.cases
    }

    /// Names of the cases, sorted.
    pub fn case_names(&self) -> Vec<String> {
        self.cases.iter().map(|case| case.name.clone()).collect()
    }

    /// `dataset.json` as the other programs of `reference` read it: the file's own content, or,
    /// where the file or one of its entries is of the other version, converted.
    ///
    /// # Errors
    /// When a label of version 2 cannot be said in version 1 (regions, an ignore label).
    pub fn json_for(&self, reference: Reference) -> Result<Value> {
        let is_v2 = self.json.get("channel_names").is_some();
        match (reference.conventions().files, is_v2) {
            (FileFormat::V1, true) => convert::to_v1(self),
            (FileFormat::V1, false) => Ok(self.json.clone()),
            (FileFormat::V2, _) => Ok(convert::to_v2(self)),
        }
    }

    /// Writes [`RawDataset::json_for`].
    ///
    /// # Errors
    /// As there, and when the file cannot be written.
    pub fn save_json(&self, path: &Path, reference: Reference) -> Result<()> {
        crate::files::save_json(path, &self.json_for(reference)?)
    }

    /// Files of `imagesTr` and `labelsTr` that cannot belong to a case.
    pub fn passed_over(&self) -> &[PassedOver] {
        &self.passed_over
    }

    /// Every file that is read for this dataset: its description, images and labels.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let of_case = |case: &TrainingCaseFiles| {
            case.images.iter().chain([&case.labels]).cloned().collect::<Vec<_>>()
        };
        [self.folder.join("dataset.json")].into_iter().chain(self.cases.iter().flat_map(of_case))
    }

    /// What was left out or assumed, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Reads and checks every case, several at a time, and returns everything that is wrong in the
    /// order of the cases. `on_case` hears the name of each case that is done, in any order.
    pub fn check(&self, on_case: &(dyn Fn(&str) + Sync)) -> Vec<Problem> {
        let problems = |case: &TrainingCaseFiles| {
            let problems = case.read(&self.info).err().unwrap_or_default();
            on_case(&case.name);
            problems
        };
        self.cases.par_iter().map(problems).collect::<Vec<_>>().into_iter().flatten().collect()
    }
}

impl TrainingCaseFiles {
    /// Reads image and labels, and checks that they belong together.
    ///
    /// # Errors
    /// Everything that is wrong: missing files, files that cannot be read, NaN and infinite
    /// voxels, a number of channels that `info` does not have, grids that differ between channels
    /// or between image and labels, label values that `info` does not have.
    pub fn read(&self, info: &DatasetInfo) -> Result<(Image, LabelMap), Vec<Problem>> {
        self.read_scan(info).map(|(scan, labels)| (scan.into_image(), labels))
    }

    /// As [`TrainingCaseFiles::read`], in half the memory where the voxels are small whole numbers.
    ///
    /// # Errors
    /// As [`TrainingCaseFiles::read`].
    pub fn read_scan(&self, info: &DatasetInfo) -> Result<(RawImage, LabelMap), Vec<Problem>> {
        let mut errors = self.missing(info);
        if errors.is_empty() {
            errors = self.grids(info.opener());
        }
        let image = match errors.is_empty() {
            true => self.read_image(info).map_err(|found| errors.extend(found)).ok(),
            false => None,
        };
        let labels = match self.labels.exists() {
            true => self.read_labels(info).map_err(|error| errors.push(error)).ok(),
            false => None,
        };
        match (image, labels) {
            (Some(image), Some(mut labels)) if errors.is_empty() => {
                // Grids that differ within the tolerance are one from here on.
                labels.geometry = image.geometry.clone();
                Ok((image, labels))
            }
            _ => Err(errors
                .into_iter()
                .map(|error| Problem { case: self.name.clone(), error })
                .collect()),
        }
    }

    /// Bytes that reading the case takes, by an estimate from above: every channel as it is in its
    /// file and in single precision, the labels, and the foreground.
    ///
    /// # Errors
    /// When there is no channel, or the header of the first cannot be read.
    pub fn memory_bytes(&self, info: &DatasetInfo) -> Result<u64> {
        const PER_CHANNEL: u64 = 4 + 4;
        const LABELS: u64 = 2 + 2 + 4;
        let first = self.images.first().ok_or(DataError::NoCases)?;
        let (geometry, _) = info.opener().read_geometry(first)?;
        let voxels: u64 = geometry.shape().iter().map(|n| *n as u64).product();
        Ok(voxels.saturating_mul(PER_CHANNEL * self.images.len() as u64 + LABELS))
    }

    fn missing(&self, info: &DatasetInfo) -> Vec<DataError> {
        let (expected, found) = (info.channel_names.len(), self.images.len());
        let mut errors = Vec::new();
        if expected != found {
            errors.push(DataError::ChannelCount { expected, found });
        }
        let images = self.images.iter().map(|file| ("channel file", file));
        for (what, file) in images.chain([("label file", &self.labels)]) {
            if !file.exists() {
                errors.push(match file.is_symlink() {
                    true => DataError::DanglingLink.at(file),
                    false => DataError::MissingFile { what }.at(file),
                });
            }
        }
        errors
    }

    /// Compares every file with the first channel, by their headers.
    fn grids(&self, opener: Opener) -> Vec<DataError> {
        let first = match opener.read_geometry(&self.images[0]) {
            Ok((geometry, _)) => geometry,
            Err(error) => return vec![error],
        };
        let compare = |file: &PathBuf| {
            let (geometry, _) = opener.read_geometry(file)?;
            first.check_same_grid_within(&geometry, &opener.leniency).map_err(|e| e.at(file))
        };
        self.images[1..].iter().chain([&self.labels]).filter_map(|f| compare(f).err()).collect()
    }

    fn read_image(&self, info: &DatasetInfo) -> Result<RawImage, Vec<DataError>> {
        let expected = info.channel_names.len();
        match info.opener().read_scan(&self.images) {
            Ok(image) if image.num_channels() != expected => {
                let found = image.num_channels();
                Err(vec![DataError::ChannelCount { expected, found }.at(&self.images[0])])
            }
            Ok(image) => Ok(image),
            // The reader stops at the first bad file; here each of them is named.
            Err(_) => {
                let problem = |file| info.opener().read_scan(&[file]).err();
                Err(self.images.iter().filter_map(problem).collect())
            }
        }
    }

    fn read_labels(&self, info: &DatasetInfo) -> Result<LabelMap> {
        let map = info.opener().read_labelmap(&self.labels)?;
        let known = known_values(&info.labels);
        let mut unknown = BTreeSet::new();
        // Neighbouring voxels mostly have one label.
        let mut last = 0;
        for &value in &map.data {
            if value != last && !known.contains(&value) {
                unknown.insert(value);
            }
            last = value;
        }
        if unknown.is_empty() {
            return Ok(map);
        }
        let named: Vec<_> = unknown.iter().take(NUM_NAMED).map(u16::to_string).collect();
        let more = unknown.len() - named.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let found = named.join(", ") + &more;
        Err(DataError::UnknownLabels { expected: ranges(&known), found }.at(&self.labels))
    }
}

/// Regions, too, must leave no value out: nnU-Net 2's check of a dataset.
fn check_consecutive(labels: &LabelSet) -> Result<()> {
    let known = known_values(labels);
    match known.iter().zip(0..).find(|(found, expected)| **found != *expected) {
        None => Ok(()),
        Some((found, missing)) => {
            let expected = format!("consecutive values, also within regions: {missing} is in none");
            Err(invalid("dataset.json", "labels", expected, found))
        }
    }
}

/// Every value a labelmap may hold: background, labels, what regions cover, the ignore label.
fn known_values(labels: &LabelSet) -> BTreeSet<u16> {
    let values = labels.labels().iter().flat_map(|label| label.values.iter().copied());
    values.chain(labels.ignore()).collect()
}

/// Sorted numbers as `0 to 4, 9`.
fn ranges(values: &BTreeSet<u16>) -> String {
    let mut runs: Vec<[u16; 2]> = Vec::new();
    for &value in values {
        match runs.last_mut() {
            Some(run) if run[1].checked_add(1) == Some(value) => run[1] = value,
            _ => runs.push([value, value]),
        }
    }
    let text = |[from, to]: [u16; 2]| match from == to {
        true => from.to_string(),
        false => format!("{from} to {to}"),
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use stunet_testing::nifti_bytes::NiftiBytes;

    /// A dataset of two cases with two channels and the labels 0, 1, 2.
    struct Scene(tempfile::TempDir);

    impl Scene {
        fn new() -> Self {
            let scene = Self(tempfile::tempdir().unwrap());
            scene.json(json!({
                "channel_names": {"0": "CT", "1": "PET"},
                "labels": {"background": 0, "liver": 1, "tumour": 2},
                "numTraining": 2,
                "file_ending": ".nii"
            }));
            for case in ["a", "b"] {
                for channel in 0..2 {
                    scene.volume(&format!("imagesTr/{case}_000{channel}.nii"), |_| {});
                }
                scene.labels(case, |values| values[7] = 2.0);
            }
            scene
        }

        fn json(&self, json: Value) {
            std::fs::write(self.0.path().join("dataset.json"), json.to_string()).unwrap();
        }

        fn volume(&self, name: &str, bend: impl FnOnce(&mut NiftiBytes)) {
            let mut file = NiftiBytes::ramp([5, 4, 3]);
            bend(&mut file);
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file.bytes()).unwrap();
        }

        fn labels(&self, case: &str, edit: impl FnOnce(&mut Vec<f32>)) {
            self.volume(&format!("labelsTr/{case}.nii"), |file| {
                file.values.fill(0.0);
                edit(&mut file.values);
            });
        }

        fn remove(&self, name: &str) {
            std::fs::remove_file(self.0.path().join(name)).unwrap();
        }

        fn open(&self) -> Result<RawDataset> {
            RawDataset::open(self.0.path())
        }

        /// Everything that is wrong, one line each.
        fn problems(&self) -> Vec<String> {
            let heard = std::sync::Mutex::new(Vec::new());
            let dataset = self.open().unwrap();
            let problems = dataset.check(&|name| heard.lock().unwrap().push(name.to_owned()));
            let mut heard = heard.into_inner().unwrap();
            heard.sort();
            assert_eq!(heard, dataset.case_names());
            problems.iter().map(Problem::to_string).collect()
        }
    }

    /// Asserts one problem with all of `words`.
    fn check(bend: impl FnOnce(&Scene), words: &[&str]) {
        let scene = Scene::new();
        bend(&scene);
        let problems = scene.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        for word in words {
            assert!(problems[0].contains(word), "no {word:?} in: {}", problems[0]);
        }
    }

    #[test]
    fn a_good_dataset() {
        let scene = Scene::new();
        assert_eq!(scene.problems(), [""; 0]);
        let dataset = scene.open().unwrap();
        assert_eq!(dataset.case_names(), ["a", "b"]);
        assert_eq!(dataset.info().classes(), [1, 2]);
        assert!(dataset.notes().is_empty());
        let (image, labels) = dataset.cases()[0].read(dataset.info()).unwrap();
        assert_eq!((image.num_channels(), labels.data[[0, 1, 2]]), (2, 2));
    }

    #[test]
    fn one_problem_each() {
        check(|s| s.remove("labelsTr/b.nii"), &["case b: label file is missing", "b.nii"]);
        check(|s| s.remove("imagesTr/a_0001.nii"), &["case a: channel file is missing"]);
        check(|s| s.volume("imagesTr/a_0002.nii", |_| {}), &["case a: expected 2", "found 3"]);
        check(|s| s.labels("a", |v| v[0] = 7.0), &["case a: unknown label", "0 to 2", "found 7"]);
        check(|s| s.labels("b", |v| v[0] = 1.5), &["case b: labels must be whole", "1.5", "b.nii"]);
        let shifted = |file: &mut NiftiBytes| {
            file.values.fill(0.0);
            file.affine[2][3] += 3.0;
        };
        check(|s| s.volume("labelsTr/b.nii", shifted), &["case b", "origin differs", "labelsTr"]);
        let coarser = |file: &mut NiftiBytes| {
            file.spacing_xyz[0] = 4.0;
            file.affine[0][0] = 4.0;
        };
        check(
            |s| s.volume("imagesTr/a_0001.nii", coarser),
            &["case a", "spacing differs", "_0001"],
        );
        let nan = |file: &mut NiftiBytes| file.values[3] = f32::NAN;
        check(|s| s.volume("imagesTr/b_0001.nii", nan), &["case b", "NaN", "b_0001"]);
    }

    #[test]
    fn labels_that_nearly_lie_on_their_image() {
        let scene = Scene::new();
        scene.volume("labelsTr/b.nii", |file| {
            file.values.fill(0.0);
            file.affine[2][3] += 0.2;
        });
        let problems = scene.problems();
        assert!(problems[0].contains("--geometry-tolerance 0.3mm"), "{problems:?}");
        let leniency = Leniency { tolerance_mm: Some(0.25), sheared: false };
        let dataset = scene.open().unwrap().forgiving(leniency);
        assert!(dataset.check(&|_| {}).is_empty());
        let (image, labels) = dataset.cases()[1].read(dataset.info()).unwrap();
        assert_eq!(image.geometry, labels.geometry);
    }

    #[test]
    fn other_formats_by_their_ending() {
        let scene = Scene::new();
        let mut json = scene.open().unwrap().json().clone();
        json["file_ending"] = json!(".nrrd");
        scene.json(json);
        let folder = scene.0.path();
        for case in ["a", "b"] {
            for name in [
                format!("imagesTr/{case}_0000"),
                format!("imagesTr/{case}_0001"),
                format!("labelsTr/{case}"),
            ] {
                let from = folder.join(format!("{name}.nii"));
                let image = crate::nifti::read_image(&[&from]).unwrap();
                // Intensities of the ramp are raised to labels.
                let up = if name.starts_with("images") { 500.0 } else { 0.0 };
                let words = image.data.index_axis(ndarray::Axis(0), 0).mapv(|v| (v + up) as u16);
                let labels = crate::labels::CompactLabelMap {
                    voxels: crate::labels::LabelVoxels::Words(words),
                    geometry: image.geometry,
                };
                let to = folder.join(format!("{name}.nrrd"));
                crate::formats::write_compact_labelmap(&to, &labels, 999, None).unwrap();
                std::fs::remove_file(from).unwrap();
            }
        }
        assert_eq!(scene.problems(), [""; 0]);
        let dataset = scene.open().unwrap();
        assert_eq!(dataset.info().reader, Reader::SimpleItk);
        let (image, labels) = dataset.cases()[0].read(dataset.info()).unwrap();
        assert_eq!((image.num_channels(), labels.data[[0, 1, 2]]), (2, 2));
    }

    #[test]
    fn the_reader_that_is_asked_for() {
        let check = |asked: Value, expected: Reader| {
            let scene = Scene::new();
            let mut json = scene.open().unwrap().json().clone();
            json["overwrite_image_reader_writer"] = asked;
            scene.json(json);
            assert_eq!(scene.open().unwrap().info().reader, expected);
        };
        // nnU-Net's first reader that claims the ending .nii.
        check(Value::Null, Reader::Nibabel);
        check(json!("None"), Reader::Nibabel);
        check(json!("SimpleITKIO"), Reader::SimpleItk);
        check(json!("NibabelIOWithReorient"), Reader::NibabelReorient);
        // Labels that were stored the other way around belong to their image once both are turned.
        let scene = Scene::new();
        let mirrored = |file: &mut NiftiBytes| {
            let [nx, ny, nz] = file.size_xyz.map(|n| n as usize);
            file.values = (0..nx * ny * nz).map(|i| f32::from(u8::from(i % nx == 0))).collect();
            file.affine[0][3] += file.affine[0][0] * (nx - 1) as f32;
            file.affine[0][0] *= -1.0;
        };
        scene.volume("labelsTr/b.nii", mirrored);
        assert!(scene.problems()[0].contains("origin differs"), "{:?}", scene.problems());
        let dataset = scene.open().unwrap().read_by(Reader::NibabelReorient);
        assert!(dataset.check(&|_| {}).is_empty());
        let (_, labels) = dataset.cases()[1].read(dataset.info()).unwrap();
        let [.., nx] = labels.geometry.shape();
        assert_eq!((labels.data[[0, 0, 0]], labels.data[[0, 0, nx - 1]]), (0, 1));
    }

    #[test]
    fn every_problem_is_found() {
        let scene = Scene::new();
        scene.labels("a", |values| {
            values[..20].iter_mut().enumerate().for_each(|(i, v)| *v = i as f32)
        });
        scene.volume("imagesTr/a_0000.nii", |file| file.values[3] = f32::INFINITY);
        scene.volume("imagesTr/a_0001.nii", |file| file.values[3] = f32::NAN);
        scene.remove("labelsTr/b.nii");
        scene.remove("imagesTr/b_0001.nii");
        let problems = scene.problems();
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(problems[2].contains("3, 4, 5, 6, 7, 8, 9, 10 and 9 more"), "{problems:?}");
        assert!(problems[3..].iter().all(|p| p.starts_with("case b: ")), "{problems:?}");
    }

    #[test]
    fn version_1_lists_its_cases() {
        let scene = Scene::new();
        let json = |names: &[&str]| {
            let entry = |n: &&str| json!({"image": format!("./imagesTr/{n}.nii"), "label": "x"});
            scene.json(json!({
                "modality": {"0": "CT", "1": "PET"},
                "labels": {"0": "background", "1": "liver", "2": "tumour"},
                "numTraining": names.len(),
                "file_ending": ".nii",
                "training": names.iter().map(entry).collect::<Vec<_>>()
            }));
        };
        json(&["b"]);
        let dataset = scene.open().unwrap();
        assert_eq!(dataset.case_names(), ["b"]);
        assert!(dataset.notes()[0].contains("1 case(s) of imagesTr"), "{:?}", dataset.notes());
        json(&["b", "b"]);
        let message = scene.open().unwrap_err().to_string();
        assert!(
            message.contains("training.1: expected every case once, found b twice"),
            "{message}"
        );
        json(&["b", "c"]);
        let problems = scene.problems();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("case c: channel file is missing"), "{problems:?}");
    }

    #[test]
    fn descriptions_of_the_other_version() {
        let scene = Scene::new();
        let dataset = scene.open().unwrap();
        let v1 = dataset.json_for(Reference::NnUNetV1).unwrap();
        assert_eq!(v1["labels"], json!({"0": "background", "1": "liver", "2": "tumour"}));
        assert_eq!(v1["modality"], json!({"0": "CT", "1": "PET"}));
        assert_eq!(v1["training"][1]["image"], "./imagesTr/b.nii");
        assert_eq!(dataset.json_for(Reference::NnUNetV28).unwrap(), *dataset.json());
        let path = scene.0.path().join("dataset.json");
        dataset.save_json(&path, Reference::NnUNetV1).unwrap();
        let again = scene.open().unwrap();
        assert_eq!(again.cases(), dataset.cases());
        assert_eq!(again.info(), dataset.info());
        assert_eq!(again.json_for(Reference::NnUNetV22).unwrap(), *dataset.json());
        assert_eq!(again.json_for(Reference::NnUNetV1).unwrap(), v1);
        let mut regions = dataset.json().clone();
        regions["labels"]["ignore"] = json!(3);
        scene.json(regions);
        let error = scene.open().unwrap().json_for(Reference::NnUNetV1).unwrap_err();
        assert!(error.to_string().contains("plain labels"), "{error}");
    }

    /// What nnU-Net 2 refuses in a `dataset.json` that is read is not in what is written.
    #[test]
    fn what_is_written_is_in_version_2() {
        let scene = Scene::new();
        let good = scene.open().unwrap().json().clone();
        let check = |edit: &dyn Fn(&mut Value), notes: &[&str]| {
            let mut json = good.clone();
            edit(&mut json);
            scene.json(json.clone());
            let dataset = scene.open().unwrap();
            let found = dataset.json_for(Reference::NnUNetV28).unwrap();
            let labels = json!({"background": 0, "liver": 1, "tumour": 2});
            assert_eq!(found["labels"], labels, "{json}");
            assert_eq!((&found["numTraining"], &found["file_ending"]), (&json!(2), &json!(".nii")));
            assert_eq!(found["channel_names"], good["channel_names"]);
            let said = dataset.notes();
            assert_eq!(said.len(), notes.len(), "{said:?}");
            assert!(said.iter().zip(notes).all(|(said, words)| said.contains(words)), "{said:?}");
        };
        let v1 = json!({"0": "background", "1": "liver", "2": "tumour"});
        let other_name = json!({"Background": 0, "liver": 1, "tumour": 2});
        let text = json!({"background": "0", "liver": "1", "tumour": "2"});
        check(&|_| {}, &[]);
        check(&|j| j["labels"] = v1.clone(), &["in the form of nnU-Net 1"]);
        check(&|j| j["labels"] = other_name.clone(), &["is called \"Background\""]);
        check(&|j| j["labels"] = text.clone(), &[]);
        let without = |j: &mut Value| drop(j.as_object_mut().unwrap().remove("numTraining"));
        check(&without, &["no numTraining"]);
        let modality = |j: &mut Value| {
            let names = j.as_object_mut().unwrap().remove("channel_names").unwrap();
            j["modality"] = names;
        };
        check(&modality, &[]);
        // Regions and the ignore label stay, whatever else is of version 1.
        let mut json = good.clone();
        modality(&mut json);
        json["labels"] = json!({"background": 0, "all": [1, 2], "tumour": 2, "ignore": 3});
        json["regions_class_order"] = json!([1, 2]);
        scene.json(json.clone());
        let found = scene.open().unwrap().json_for(Reference::NnUNetV28).unwrap();
        assert_eq!(found["labels"], json["labels"]);
        assert_eq!(found["regions_class_order"], json["regions_class_order"]);
    }

    #[test]
    fn version_2_may_name_its_files() {
        let scene = Scene::new();
        let mut json = scene.open().unwrap().json().clone();
        let entry = |case: &str| {
            let images = [0, 1].map(|c| format!("imagesTr/{case}_000{c}.nii"));
            json!({"images": images, "label": format!("labelsTr/{case}.nii")})
        };
        json["dataset"] = json!({"y": entry("b"), "x": entry("a")});
        scene.json(json.clone());
        assert_eq!(scene.open().unwrap().case_names(), ["x", "y"]);
        assert_eq!(scene.problems(), [""; 0]);
        json["dataset"]["x"] = json!({"images": []});
        scene.json(json);
        assert!(scene.open().unwrap_err().to_string().contains("dataset.x"));
    }

    #[test]
    fn bad_descriptions_are_refused() {
        let refused = |edit: &dyn Fn(&mut Value), words: &str| {
            let scene = Scene::new();
            let mut json = scene.open().unwrap().json().clone();
            edit(&mut json);
            scene.json(json);
            let message = scene.open().unwrap_err().to_string();
            assert!(message.contains(words), "expected {words:?}, found {message:?}");
        };
        refused(&|j| j["numTraining"] = json!(3), "numTraining: expected 2");
        refused(&|j| j["file_ending"] = json!(".gipl"), "file_ending: expected .nii.gz or .nii");
        refused(&|j| j["numTraining"] = json!(3), "training cases there are (a, b), found 3");
        let ending =
            "file_ending: expected .nii, the ending of 4 file(s) of imagesTr, found .nii.gz";
        refused(&|j| j["file_ending"] = json!(".nii.gz"), ending);
        refused(&|j| j["labels"] = json!({"liver": 1}), "background");
        refused(&|j| j["file_ending"] = json!(5), "file_ending: expected an ending in quotes");
        for channels in [json!({}), json!(["CT"]), json!("CT"), json!(null)] {
            let words = format!(
                "channel_names: expected names by number, such as {{\"0\": \"CT\"}}, found {channels}"
            );
            refused(&|j| j["channel_names"] = channels.clone(), &words);
        }
        refused(&|j| j["channel_names"] = json!({"1": "CT"}), "channel_names.0: expected a name");
        refused(&|j| j["channel_names"] = json!({"0": 7}), "expected a name, found 7");
        let gap = |j: &mut Value| {
            j["labels"] = json!({"background": 0, "all": [1, 3], "core": 3});
            j["regions_class_order"] = json!([1, 3]);
        };
        refused(&gap, "2 is in none, found 3");
        let reader = |name: &'static str| {
            move |j: &mut Value| j["overwrite_image_reader_writer"] = json!(name)
        };
        refused(&reader("Tiff3DIO"), "overwrite_image_reader_writer: expected a reader of NIfTI");
        refused(&|j| j["overwrite_image_reader_writer"] = json!(1), "the name of a reader");
        let scene = Scene::new();
        std::fs::remove_dir_all(scene.0.path().join("imagesTr")).unwrap();
        assert!(scene.open().unwrap_err().to_string().contains("imagesTr"));
        std::fs::create_dir(scene.0.path().join("imagesTr")).unwrap();
        let message = scene.open().unwrap_err().to_string();
        assert!(message.contains("no cases found") && message.ends_with("imagesTr"), "{message}");
    }

    #[test]
    fn hidden_files_are_no_cases_and_others_are_named() {
        let scene = Scene::new();
        for name in ["imagesTr/._a_0000.nii", "labelsTr/._a.nii", "imagesTr/.DS_Store"] {
            scene.volume(name, |_| {});
        }
        assert_eq!(scene.problems(), [""; 0]);
        assert!(scene.open().unwrap().passed_over().is_empty());
        for name in ["imagesTr/c.nii", "imagesTr/d_0000.NII", "labelsTr/e.nii.gz", "labelsTr/f.nii"]
        {
            scene.volume(name, |_| {});
        }
        let dataset = scene.open().unwrap();
        let clause = super::super::told(dataset.passed_over()).unwrap();
        for name in ["c.nii (no channel number", "d_0000.NII, e.nii.gz (another ending"] {
            assert!(clause.contains(name), "no {name:?} in: {clause}");
        }
        assert_eq!(dataset.notes(), ["1 file(s) of labelsTr belong to no training case: f.nii"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_nowhere_are_named() {
        let dangle = |scene: &Scene, name: &str| {
            scene.remove(name);
            std::os::unix::fs::symlink("absent", scene.0.path().join(name)).unwrap();
        };
        check(|s| dangle(s, "imagesTr/b_0001.nii"), &["case b", "link leads", "b_0001.nii"]);
        check(|s| dangle(s, "labelsTr/a.nii"), &["case a", "link leads", "labelsTr/a.nii"]);
    }

    /// Images of one channel under these names, `numTraining` as many.
    fn named(names: &[&str]) -> Result<RawDataset> {
        let scene = Scene::new();
        std::fs::remove_dir_all(scene.0.path().join("imagesTr")).unwrap();
        names.iter().for_each(|name| scene.volume(&format!("imagesTr/{name}.nii"), |_| {}));
        scene.json(json!({
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "liver": 1, "tumour": 2},
            "numTraining": names.len(),
            "file_ending": ".nii"
        }));
        scene.open()
    }

    #[test]
    fn numbers_that_are_no_channels() {
        let refused = |names: &[&str], words: &[&str]| {
            let message = named(names).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "no {word:?} in: {message}");
            }
        };
        let advice = ["case word: expected 1", "add _0000 to each name", "imagesTr"];
        refused(&["word_0001", "word_0002"], &advice);
        refused(&["word_0000", "word_0001", "word_0002"], &advice);
        refused(&["x_0000", "word_0001"], &advice);
        assert_eq!(named(&["word_0001_0000", "word_0002_0000"]).unwrap().cases().len(), 2);
    }

    #[test]
    fn names_that_cannot_be_files_are_refused() {
        let refused = |name: &str| {
            let scene = Scene::new();
            let mut json = scene.open().unwrap().json().clone();
            json["numTraining"] = json!(1);
            json["dataset"] = json!({name: {"images": ["x.nii"], "label": "y.nii"}});
            scene.json(json);
            let message = scene.open().unwrap_err().to_string();
            assert!(message.contains("name of a training case"), "{name:?}: {message}");
        };
        for name in ["../../escaped", "/absolute", "a/b", "..", ".", "a\nb", "x\u{1b}[31m", ""] {
            refused(name);
        }
        let scene = Scene::new();
        let mut json = scene.open().unwrap().json().clone();
        let entry = json!({"images": ["x.nii"], "label": "y.nii"});
        json["dataset"] = json!({"CT_1": entry, "ct_1": entry});
        scene.json(json);
        let message = scene.open().unwrap_err().to_string();
        assert!(message.contains("CT_1 and ct_1"), "{message}");
    }

    #[test]
    fn a_list_of_version_1_that_names_files() {
        let scene = Scene::new();
        let json = |images: &[&str]| {
            scene.json(json!({
                "modality": {"0": "CT", "1": "PET"},
                "labels": {"0": "background", "1": "liver", "2": "tumour"},
                "numTraining": images.len(),
                "file_ending": ".nii",
                "training": images.iter().map(|i| json!({"image": i})).collect::<Vec<_>>()
            }));
            scene.open()
        };
        assert_eq!(json(&["./imagesTr/a.nii", "imagesTr/b.nii"]).unwrap().cases().len(), 2);
        let message = json(&["./imagesTr/a_0000.nii", "./imagesTr/b_0000.nii"]);
        let message = message.unwrap_err().to_string();
        for word in ["training: expected names of cases", "2 of 2", "./imagesTr/a.nii.gz"] {
            assert!(message.contains(word), "no {word:?} in: {message}");
        }
        let message = json(&["./imagesTr/a.nii", "b.png"]).unwrap_err().to_string();
        assert!(message.contains("training.1") && message.contains("b.png"), "{message}");
        let message = json(&["./imagesTr/a.nii", "imagesTr/../.nii"]).unwrap_err().to_string();
        assert!(message.contains("name of a training case"), "{message}");
    }
}
