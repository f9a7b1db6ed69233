//! DICOM, MetaImage and NRRD as input of `predict`, files of any name, and headers that nearly agree.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use common::{Scene, assert_one_line, model_folder, predict_arguments, said, stunet};
use std::path::{Path, PathBuf};
use std::process::Output;
use stunet::data::labels::{CompactLabelMap, LabelVoxels};
use stunet::data::{formats, nifti};
use stunet_testing::dicom_bytes::ct;
use stunet_testing::nifti_bytes::NiftiBytes;

const SHAPE: [usize; 3] = [24, 28, 32];

fn values() -> Vec<i16> {
    NiftiBytes::ramp([32, 28, 24]).values.iter().map(|v| *v as i16).collect()
}

fn predict(input: &Path, output: &Path, more: &[&str]) -> Output {
    let mut arguments = predict_arguments(input, output, &model_folder(1));
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    stunet(arguments)
}

fn check(output: &Output) -> String {
    let (stdout, stderr) = said(output);
    assert!(output.status.success(), "{stderr}");
    assert!(!stdout.contains("Secret") && !stderr.contains("Secret"), "{stdout}{stderr}");
    stdout
}

/// A series below a folder, its files in no order.
fn series(scene: &Scene, folder: &str, uid: &str, number: u16) -> PathBuf {
    for (z, file) in ct(uid, number, SHAPE, &values()).iter().enumerate() {
        scene.file(&format!("{folder}/{number}/{}.dcm", z * 7 % 24), file);
    }
    scene.path(folder)
}

/// The labels of the same voxels as NIfTI.
fn expected(scene: &Scene) -> nifti_labels::Labels {
    let scan = scene.volume("same/scan.nii");
    let out = scene.path("same/labels.nii.gz");
    check(&predict(&scan, &out, &[]));
    nifti_labels::Labels::of(&out)
}

mod nifti_labels {
    use super::nifti;
    use std::path::Path;
    use stunet::data::labels::LabelMap;

    /// A labelmap that was read.
    pub struct Labels(LabelMap);

    impl Labels {
        pub fn of(path: &Path) -> Self {
            Self(nifti::read_labelmap(path).unwrap())
        }

        pub fn check_same(&self, path: &Path) {
            let found = nifti::read_labelmap(path).unwrap();
            assert!(found.data == self.0.data, "{}", path.display());
            found.geometry.check_same_grid(&self.0.geometry).unwrap();
        }
    }
}

#[test]
fn a_dicom_series_gives_the_labels_of_its_nifti() {
    let scene = Scene::new();
    let labels = expected(&scene);
    let folder = series(&scene, "dicom", "1.2.3", 4);
    scene.file("dicom/notes.txt", b"no DICOM");
    let report = scene.path("report.json");
    let said = check(&predict(&folder, &scene.path("out"), &["--json", report.to_str().unwrap()]));
    assert!(said.contains("series 4: CT \"abdomen\", 24 slices"), "{said}");
    let made = scene.path("out/4_abdomen.nii.gz");
    labels.check_same(&made);
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(
        text.contains("dicom") && !text.contains("Secret") && !text.contains("4/7.dcm"),
        "{text}"
    );
    // The same is skipped, another series in its place is refused.
    let again = check(&predict(&folder, &scene.path("out"), &[]));
    assert!(again.contains("skipped, exists"), "{again}");
    let other = series(&scene, "other", "1.2.4", 5);
    assert_one_line(&predict(&other, &made, &[]), &["not overwritten without", "4_abdomen"]);
}

#[test]
fn several_series_of_a_folder() {
    let scene = Scene::new();
    let labels = expected(&scene);
    let folder = series(&scene, "dicom", "1.2.3", 4);
    series(&scene, "dicom", "1.2.5", 5);
    let out = scene.path("out");
    let (_, stderr) = said(&predict(&folder, &out, &[]));
    assert!(stderr.contains("expected one volume, found 2; choose one of these with --series"));
    assert!(stderr.contains("4: CT \"abdomen\", 24 slices, 1.2.3"), "{stderr}");
    assert!(!out.exists());
    check(&predict(&folder, &scene.path("one.nii"), &["--series", "1.2.5"]));
    labels.check_same(&scene.path("one.nii"));
    check(&predict(&folder, &out, &["--series", "all"]));
    labels.check_same(&out.join("4_abdomen.nii.gz"));
    labels.check_same(&out.join("5_abdomen.nii.gz"));
    let output = predict(&folder, &scene.path("two.nii"), &["--series", "all"]);
    assert_one_line(&output, &["expected a folder, as there are several series"]);
}

#[test]
fn uneven_slices() {
    let scene = Scene::new();
    let folder = series(&scene, "dicom", "1.2.3", 4);
    // Slice 5 of 24.
    std::fs::remove_file(scene.path(&format!("dicom/4/{}.dcm", 5 * 7 % 24))).unwrap();
    let out = scene.path("labels.nii.gz");
    let output = predict(&folder, &out, &[]);
    assert_one_line(&output, &["about 1 missing", "between image 5 at", "--allow uneven"]);
    let said = check(&predict(&folder, &out, &["--allow", "uneven"]));
    assert!(said.contains("interpolated to 24 slices every 3.00 mm"), "{said}");
    assert_eq!(nifti::read_geometry(&out).unwrap().0.shape(), SHAPE);
}

/// The ramp in another format; its values are no labels, so that they are raised.
fn as_labels(path: &Path) {
    let mut file = NiftiBytes::ramp([32, 28, 24]);
    file.values.iter_mut().for_each(|v| *v += 500.0);
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("a.nii");
    std::fs::write(&plain, file.bytes()).unwrap();
    let map = nifti::read_labelmap(&plain).unwrap();
    let labels = CompactLabelMap { voxels: LabelVoxels::Words(map.data), geometry: map.geometry };
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    formats::write_compact_labelmap(path, &labels, 2000, None).unwrap();
}

#[test]
fn other_formats_in_and_out() {
    let scene = Scene::new();
    let endings = [".mha", ".mhd", ".nrrd", ".nhdr", ".nii.gz"];
    for ending in endings {
        as_labels(&scene.path(&format!("in/case{}_0000{ending}", &ending[1..3])));
    }
    // Two formats of a name are told apart by their cases' names only.
    for (from, to) in
        [("casemh_0000.mhd", "casehd_0000.mhd"), ("casemh_0000.zraw", "casemh_0000.zraw")]
    {
        let _ = std::fs::rename(scene.path("in").join(from), scene.path("in").join(to));
    }
    let out = scene.path("out");
    check(&predict(&scene.path("in"), &out, &[]));
    let labels = nifti_labels::Labels::of(&out.join("caseni.nii.gz"));
    for name in ["casemh.mha", "casehd.mhd", "casenr.nrrd", "casenh.nhdr"] {
        labels.check_same(&out.join(name));
    }
    let again = check(&predict(&scene.path("in"), &out, &[]));
    assert_eq!(again.matches("skipped, exists").count(), 5, "{again}");
    // Names as they come.
    std::fs::create_dir(scene.path("any")).unwrap();
    as_labels(&scene.path("any/Scan 7 (new).nrrd"));
    as_labels(&scene.path("any/b.mha"));
    let any = scene.path("any");
    assert_one_line(&predict(&any, &scene.path("x"), &[]), &["--each-file-is-a-case"]);
    check(&predict(&any, &scene.path("x"), &["--each-file-is-a-case"]));
    labels.check_same(&scene.path("x/Scan 7 (new).nrrd"));
    labels.check_same(&scene.path("x/b.mha"));
    check(&predict(&scene.path("any/b.mha"), &scene.path("y/c.nii"), &[]));
    labels.check_same(&scene.path("y/c.nii"));
}

#[test]
fn channels_that_nearly_agree() {
    let scene = Scene::new();
    scene.volume("in/a_0000.nii");
    let mut shifted = NiftiBytes::ramp([32, 28, 24]);
    shifted.affine[0][3] += 0.25;
    scene.file("in/a_0001.nii", &shifted.bytes());
    let predict = |more: &[&str]| {
        let mut arguments =
            predict_arguments(&scene.path("in"), &scene.path("out"), &model_folder(2));
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        stunet(arguments)
    };
    assert_one_line(&predict(&[]), &["origin differs", "--geometry-tolerance 0.3mm"]);
    let said = check(&predict(&["--geometry-tolerance", "0.3mm"]));
    assert!(said.contains("a_0001.nii: origin differs") && said.contains("accepted"), "{said}");
    let mut sheared = NiftiBytes::ramp([32, 28, 24]);
    sheared.affine[0][1] += 0.1;
    let file = scene.file("sheared.nii", &sheared.bytes());
    let out = scene.path("sheared_labels.nii");
    let arguments = predict_arguments(&file, &out, &model_folder(1));
    assert_one_line(&stunet(&arguments), &["affine is sheared", "--allow sheared"]);
    let allowed = ["--allow", "sheared"].map(str::to_owned);
    let said = check(&stunet(arguments.into_iter().chain(allowed)));
    assert!(said.contains("the axes of sheared.nii are not at right angles"), "{said}");
    let (grid, _) = nifti::read_geometry(&out).unwrap();
    assert_eq!(grid.shape(), SHAPE);
}
