//! One binary file for each label of a labelmap: the layout of TotalSegmentator, `CASE/liver.nii.gz`.

use crate::error::Result;
use crate::formats;
use crate::labels::{CompactLabelMap, LabelVoxels};
use ndarray::{Array3, Zip};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// The files for labels in a folder: named as the labels are, with what a file name cannot hold replaced
/// by `_`. Where two names would become one file, on some systems at least, the label's value is
/// appended.
///
/// `ending` is that of a volume, such as `.nii.gz`. Background has no file.
///
/// ```
/// use std::path::Path;
/// let names = [(0, "background"), (1, "liver"), (2, "lesion <1 cm"), (7, "Liver")];
/// let files = stunet_data::per_class::files(Path::new("a"), &names, ".nii.gz");
/// let names: Vec<_> = files.iter().map(|(_, file)| file.to_str().unwrap()).collect();
/// assert_eq!(names, ["a/liver.nii.gz", "a/lesion _1 cm.nii.gz", "a/Liver_7.nii.gz"]);
/// ```
pub fn files(folder: &Path, names: &[(u16, &str)], ending: &str) -> Vec<(u16, PathBuf)> {
    let mut taken = HashSet::new();
    let file = |(value, name): &(u16, &str)| {
        let mut name = file_name(name);
        while !taken.insert(name.to_lowercase()) {
            name = format!("{name}_{value}");
        }
        (*value, folder.join(format!("{name}{ending}")))
    };
    names.iter().filter(|(value, _)| *value != 0).map(file).collect()
}

/// A name without what systems refuse in names of files.
fn file_name(name: &str) -> String {
    let allowed = |c: char| !c.is_control() && !r#"/\:*?"<>|"#.contains(c);
    let name: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    let name = name.trim_end_matches(['.', ' ']).trim_start();
    match name.trim_start_matches('.') {
        "" => "label".to_owned(),
        name => name.to_owned(),
    }
}

/// Writes a file for each label, 1 where the label is and 0 elsewhere, with a note as labelmaps carry
/// it; `on_file` hears of each that is written, and ends it by answering false.
///
/// # Errors
/// When a file cannot be written.
pub fn write(
    files: &[(u16, PathBuf)],
    labels: &CompactLabelMap,
    note: Option<&str>,
    on_file: &mut dyn FnMut(&Path) -> bool,
) -> Result<()> {
    let shape = match &labels.voxels {
        LabelVoxels::Bytes(voxels) => voxels.raw_dim(),
        LabelVoxels::Words(voxels) => voxels.raw_dim(),
    };
    let mut mask = Array3::<u8>::zeros(shape);
    for (value, path) in files {
        match &labels.voxels {
            LabelVoxels::Bytes(voxels) => {
                // A value that does not fit into a byte is in no labelmap of bytes.
                let value = u8::try_from(*value).unwrap_or(0);
                let is = |voxel: u8| u8::from(voxel == value && value != 0);
                Zip::from(&mut mask).and(voxels).par_for_each(|mask, voxel| *mask = is(*voxel));
            }
            LabelVoxels::Words(voxels) => {
                let is = |voxel: u16| u8::from(voxel == *value);
                Zip::from(&mut mask).and(voxels).par_for_each(|mask, voxel| *mask = is(*voxel));
            }
        }
        formats::write_bytes(path, &mask, &labels.geometry, note)?;
        if !on_file(path) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;
    use ndarray::arr3;

    #[test]
    fn names_that_systems_refuse() {
        let check = |name: &str, expected: &str| assert_eq!(file_name(name), expected);
        check("liver", "liver");
        check("left/right", "left_right");
        check("../../etc/passwd", "_.._etc_passwd");
        check("...", "label");
        check("", "label");
        check("a. ", "a");
        check("tab\there", "tab_here");
    }

    #[test]
    fn a_file_for_each_label() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = LabelVoxels::Bytes(arr3(&[[[1u8, 2, 0], [2, 2, 1]]]));
        let words = LabelVoxels::Words(bytes.to_words());
        let geometry = Geometry::axis_aligned([1, 2, 3], [3.0, 2.0, 1.0]).unwrap();
        for voxels in [bytes, words] {
            let labels = CompactLabelMap { voxels, geometry: geometry.clone() };
            let names = [(0, "background"), (1, "liver"), (2, "spleen"), (300, "none")];
            let files = files(folder.path(), &names, ".nii.gz");
            let mut heard = Vec::new();
            write(&files, &labels, Some("a note"), &mut |path| {
                heard.push(path.to_owned());
                true
            })
            .unwrap();
            let paths: Vec<_> = files.iter().map(|(_, path)| path.clone()).collect();
            assert_eq!(heard, paths);
            let read = |name: &str| {
                let path = folder.path().join(name);
                assert_eq!(formats::read_notes(&path).unwrap(), ["a note"]);
                crate::nifti::read_labelmap(&path).unwrap()
            };
            assert_eq!(read("liver.nii.gz").data, arr3(&[[[1, 0, 0], [0, 0, 1]]]));
            assert_eq!(read("spleen.nii.gz").data, arr3(&[[[0, 1, 0], [1, 1, 0]]]));
            assert_eq!(read("none.nii.gz").data.sum(), 0);
            read("liver.nii.gz").geometry.check_same_grid(&geometry).unwrap();
        }
    }
}
