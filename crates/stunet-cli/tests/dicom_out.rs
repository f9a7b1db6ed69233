//! Labels as DICOM objects: `predict --format`.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use common::{Scene, assert_one_line, model_folder, predict_arguments, said, stunet};
use std::path::{Path, PathBuf};
use std::process::Output;
use stunet::data::{dicom, nifti};
use stunet_testing::dicom_bytes::{SECRET, ct};
use stunet_testing::nifti_bytes::NiftiBytes;

const SHAPE: [usize; 3] = [24, 28, 32];

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

fn series(scene: &Scene, folder: &str, shape: [usize; 3]) -> PathBuf {
    let values: Vec<i16> =
        NiftiBytes::ramp([32, 28, 24]).values.iter().map(|v| *v as i16).collect();
    let values = &values[..shape.iter().product()];
    for (z, file) in ct("1.2.3", 4, shape, values).iter().enumerate() {
        scene.file(&format!("{folder}/{}", z * 7 % shape[0]), file);
    }
    scene.path(folder)
}

fn holds(file: &Path, text: &str) -> bool {
    let bytes = std::fs::read(file).unwrap();
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn every_format_at_once_and_again() {
    let scene = Scene::new();
    let folder = series(&scene, "dicom", SHAPE);
    let (out, report) = (scene.path("out"), scene.path("report.json"));
    let all = ["--format", "nifti,dicom-seg,rtstruct", "--json", report.to_str().unwrap()];
    check(&predict(&folder, &out, &all));
    let [labels, segmentation, structures] =
        ["4_abdomen.nii.gz", "4_abdomen.seg.dcm", "4_abdomen.rtstruct.dcm"].map(|n| out.join(n));
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 3);
    assert!(nifti::read_labelmap(&labels).unwrap().data.iter().any(|v| *v > 0));
    for (file, form) in [(&segmentation, "dicom-seg binary"), (&structures, "rtstruct")] {
        let note = dicom::read_note(file).unwrap().unwrap();
        assert!(note.contains(&format!("\"form\":\"{form}\"")), "{note}");
        // It belongs to the same patient, and nobody else is told.
        assert!(holds(file, SECRET) && !note.contains("Secret"));
    }
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(text.contains("4_abdomen.rtstruct.dcm") && !text.contains("Secret"), "{text}");
    // What is there is not made again; what is missing is, to the same byte.
    let before = std::fs::read(&structures).unwrap();
    assert!(check(&predict(&folder, &out, &all[..2])).contains("skipped, exists"));
    std::fs::remove_file(&structures).unwrap();
    check(&predict(&folder, &out, &all[..2]));
    assert_eq!(std::fs::read(&structures).unwrap(), before);
    let other = predict(&folder, &out, &["--format", "dicom-seg", "--seg", "labelmap"]);
    assert_one_line(
        &other,
        &["not overwritten without", "dicom-seg labelmap", "4_abdomen.seg.dcm"],
    );
}

#[test]
fn a_single_object_may_have_a_name() {
    let scene = Scene::new();
    let folder = series(&scene, "dicom", SHAPE);
    let file = scene.path("new/organs.dcm");
    let said = check(&predict(&folder, &file, &["--format", "rtstruct"]));
    assert!(said.contains("organs.dcm"), "{said}");
    assert_eq!(std::fs::read_dir(scene.path("new")).unwrap().count(), 1);
    let output = predict(&folder, &file, &["--format", "rtstruct,dicom-seg"]);
    assert_one_line(&output, &["expected .nii.gz", "found .dcm"]);
    let output = predict(&folder, &file, &[]);
    assert_one_line(&output, &["expected .nii.gz", "found .dcm"]);
    // The files of the series are no place for it.
    let input = folder.join("3").to_str().unwrap().to_owned();
    std::fs::rename(&input, format!("{input}.dcm")).unwrap();
    let output = predict(
        &folder,
        Path::new(&format!("{input}.dcm")),
        &["--format", "rtstruct", "--overwrite"],
    );
    assert_one_line(&output, &["would overwrite the input"]);
}

#[test]
fn other_formats_need_their_series() {
    let scene = Scene::new();
    let scan = scene.volume("scan.nii");
    let out = scene.path("out");
    let wanted = ["--format", "dicom-seg"];
    assert_one_line(
        &predict(&scan, &out, &wanted),
        &["expected DICOM", "--dicom-source", "scan.nii"],
    );
    let given = |folder: &Path| {
        let folder = folder.to_str().unwrap().to_owned();
        move |format: &'static str| {
            ["--format".into(), format.to_owned(), "--dicom-source".into(), folder.clone()]
        }
    };
    let run = |words: [String; 4]| predict(&scan, &out, &words.each_ref().map(String::as_str));
    let folder = series(&scene, "dicom", SHAPE);
    // The NIfTI file is the same scan.
    let converted = scene.path("converted.nii");
    let found = dicom::find(&folder).unwrap();
    let image = found.choose(None).unwrap().read(false).unwrap().image.into_image();
    nifti::write_image(&converted, &image).unwrap();
    let words = given(&folder)("dicom-seg");
    let words = words.each_ref().map(String::as_str);
    check(&predict(&converted, &out, &words));
    let object = out.join("converted.seg.dcm");
    assert!(holds(&object, SECRET) && holds(&object, "1.2.3"));
    assert!(check(&predict(&converted, &out, &words)).contains("skipped, exists"));
    // Another one is not.
    let smaller = series(&scene, "smaller", [12, 28, 32]);
    let output = run(given(&smaller)("dicom-seg"));
    assert_one_line(&output, &["--dicom-source", "another", "scan.nii"]);
    assert_one_line(&run(given(&folder)("nifti")), &["--format dicom-seg or rtstruct"]);
    let output = predict(&folder, &out, &words);
    assert_one_line(&output, &["its own source"]);
}

#[test]
fn colour_tables() {
    let model = model_folder(1).to_str().unwrap().to_owned();
    let print = |flag: &str| {
        let output = stunet(["labels", &model, flag]);
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(print("--slicer").starts_with("# Color table file"));
    assert!(print("--itk-snap").contains("\"Clear Label\""));
}

/// A folder of DICOM is one case: its measurements lie beside the file that was named, and its volumes
/// are told.
#[test]
fn a_series_with_all_that_comes_with_labels() {
    let scene = Scene::new();
    let folder = series(&scene, "dicom", SHAPE);
    let out = scene.path("labels.nii.gz");
    let stdout = check(&predict(&folder, &out, &["--statistics", "--per-class", "--preview"]));
    assert!(stdout.contains(" ml\n"), "{stdout}");
    for name in ["labels_statistics.json", "labels_statistics.csv", "labels_preview.png"] {
        assert!(scene.path(name).is_file(), "{name}");
    }
    // Later, from the labels alone, also the objects.
    let again = check(&predict(&folder, &out, &["--format", "nifti,dicom-seg,rtstruct"]));
    assert!(!again.contains("windows"), "{again}");
    let other = scene.path("other.nii.gz");
    check(&predict(&folder, &other, &["--format", "nifti,dicom-seg,rtstruct"]));
    for ending in ["seg.dcm", "rtstruct.dcm"] {
        let [later, at_once] =
            ["labels", "other"].map(|name| dicom_pixels(&scene.path(&format!("{name}.{ending}"))));
        assert_eq!(later, at_once, "{ending}");
    }
}

/// The size of an object, whose identifiers are new in every run.
fn dicom_pixels(file: &Path) -> u64 {
    file.metadata().unwrap().len()
}
