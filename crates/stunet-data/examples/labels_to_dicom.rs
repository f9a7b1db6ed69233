//! Writes a labelmap of a DICOM series as DICOM segmentations and an RT structure set:
//! `labels_to_dicom SERIES LABELS.nii.gz NAMES.json|totalsegmentator FOLDER [uneven]`.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods)]

use std::path::Path;
use stunet_data::dicom::{self, Derived, DicomProvenance, SegmentationKind};
use stunet_data::labels::{CompactLabelMap, LabelSet, LabelVoxels};
use stunet_data::{DataError, nifti};

fn write(words: [&String; 4], uneven: bool) -> Result<(), DataError> {
    let [series, labels, names, folder] = words;
    let found = dicom::find(Path::new(series))?;
    let source = found.choose(None)?.source(uneven)?;
    let labels = nifti::read_labelmap(Path::new(labels))?;
    let voxels = match labels.data.iter().all(|v| *v <= 255) {
        true => LabelVoxels::Bytes(labels.data.mapv(|v| v as u8)),
        false => LabelVoxels::Words(labels.data),
    };
    let labels = CompactLabelMap { voxels, geometry: labels.geometry };
    let names = match names.as_str() {
        "totalsegmentator" => LabelSet::totalsegmentator(),
        file => LabelSet::load(Path::new(file))?,
    };
    let note = Some("written by an example".to_owned());
    let derived = Derived::new(&labels, &names, &source, DicomProvenance { model: None, note })?;
    let folder = Path::new(folder);
    derived.write_segmentation(&folder.join("binary.dcm"), SegmentationKind::Binary)?;
    derived.write_segmentation(&folder.join("labelmap.dcm"), SegmentationKind::Labelmap)?;
    derived.write_structure_set(&folder.join("rtstruct.dcm"))
}

fn main() -> std::process::ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [series, labels, names, folder, rest @ ..] = &words[..] else {
        println!("usage: labels_to_dicom SERIES LABELS.nii.gz NAMES.json FOLDER [uneven]");
        return std::process::ExitCode::from(2);
    };
    match write([series, labels, names, folder], rest.iter().any(|word| word == "uneven")) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
