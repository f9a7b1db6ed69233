//! A header with its voxels in a second file: either name, both names, and a folder of them.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs;

use common::{Scene, model_folder, predict_arguments, said, stunet};
use stunet_testing::nifti_bytes::NiftiBytes;

/// Writes `NAME.hdr` and `NAME.img`.
fn pair(scene: &Scene, name: &str) {
    let mut bytes = NiftiBytes::ramp([32, 28, 24]).bytes();
    scene.file(&format!("{name}.img"), &bytes[352..]);
    bytes[344..348].copy_from_slice(b"ni1\0");
    bytes[108..112].fill(0);
    scene.file(&format!("{name}.hdr"), &bytes[..348]);
}

#[test]
fn pairs_are_predicted_as_single_files_are() {
    let scene = Scene::new();
    pair(&scene, "in/ct_0000");
    let single = scene.volume("single.nii");
    let predict = |input: &str, output: &str, more: &[&str]| {
        let (input, output) = (scene.path(input), scene.path(output));
        let mut arguments = predict_arguments(&input, &output, &model_folder(1));
        let at = arguments.iter().position(|word| word == "-o").unwrap();
        arguments.splice(at..at, more.iter().map(|name| scene.path(name).display().to_string()));
        let result = stunet(arguments);
        assert!(result.status.success(), "{}", said(&result).1);
    };
    predict(single.to_str().unwrap(), "expected.nii", &[]);
    let expected = fs::read(scene.path("expected.nii")).unwrap();
    predict("in/ct_0000.hdr", "header.nii", &[]);
    predict("in/ct_0000.img", "voxels.nii", &[]);
    predict("in/ct_0000.hdr", "both.nii", &["in/ct_0000.img"]);
    // Behind the header, which may say what made the file.
    let voxels = |bytes: &[u8]| bytes[bytes.len() - 32 * 28 * 24..].to_vec();
    for name in ["header.nii", "voxels.nii", "both.nii"] {
        let found = fs::read(scene.path(name)).unwrap();
        assert_eq!(voxels(&found), voxels(&expected), "{name}");
        assert_eq!(found[40..108], expected[40..108], "{name}: dimensions");
        assert_eq!(found[252..328], expected[252..328], "{name}: affine");
    }
    predict("in", "out", &[]);
    assert!(scene.path("out/ct.nii.gz").is_file());
}

#[test]
fn half_a_pair() {
    let scene = Scene::new();
    pair(&scene, "ct");
    let output = scene.path("labels.nii");
    for (gone, named, words) in
        [("ct.img", "ct.hdr", "file of voxels (.img)"), ("ct.hdr", "ct.img", "header (.hdr)")]
    {
        pair(&scene, "ct");
        fs::remove_file(scene.path(gone)).unwrap();
        let result = stunet(predict_arguments(&scene.path(named), &output, &model_folder(1)));
        let (_, stderr) = said(&result);
        assert!(!result.status.success() && !output.exists(), "{stderr}");
        assert!(stderr.contains(words) && stderr.contains(named), "{stderr}");
    }
}
