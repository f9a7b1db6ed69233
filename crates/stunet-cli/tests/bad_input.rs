//! Every kind of bad input: one clear line, a code that is not zero, nothing written.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Scene, assert_one_line, model_folder, predict_arguments, said, stunet};
use stunet_testing::nifti_bytes::NiftiBytes;

/// Predicts `input` into `out/labels.nii.gz` of the scene with the model of one channel.
fn check_input(scene: &Scene, input: &Path, words: &[&str]) {
    check(
        scene,
        predict_arguments(input, &scene.path("out/labels.nii.gz"), &model_folder(1)),
        words,
    );
}

fn check(scene: &Scene, arguments: Vec<String>, words: &[&str]) {
    let before = scene.contents();
    assert_one_line(&stunet(arguments), words);
    assert_eq!(scene.contents(), before, "something was written");
}

/// A file that begins well and goes wrong by `bend`.
fn check_bent(bend: impl FnOnce(&mut NiftiBytes), words: &[&str]) {
    let scene = Scene::new();
    let mut file = NiftiBytes::ramp([20, 18, 16]);
    bend(&mut file);
    let input = scene.file("ct.nii", &file.bytes());
    check_input(&scene, &input, &[words, &["ct.nii"]].concat());
}

#[test]
fn the_good_case_is_good() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let output = scene.path("out/labels.nii.gz");
    let result = stunet(predict_arguments(&input, &output, &model_folder(1)));
    let (_, stderr) = said(&result);
    assert!(result.status.success(), "{stderr}");
    assert!(output.is_file());
}

#[test]
fn missing_file() {
    let scene = Scene::new();
    check_input(&scene, &scene.path("absent.nii.gz"), &["absent.nii.gz", "o such file"]);
}

/// Whatever a command reads: a missing one is told of in one way.
#[test]
fn missing_inputs_of_every_command() {
    let scene = Scene::new();
    let there = scene.volume("ct.nii");
    let (absent, out) = (scene.path("absent"), scene.path("out"));
    let [there, absent, out] = [&there, &absent, &out].map(|path| path.to_str().unwrap());
    let check_line = |line: &str| {
        let words = line.replace("ABSENT", absent).replace("THERE", there).replace("OUT", out);
        let arguments = words.split(' ').map(str::to_owned).collect();
        check(&scene, arguments, &[&format!("no such file or folder: {absent}")]);
    };
    let model = model_folder(1);
    let predict = format!("predict -o OUT.nii.gz -m {}", model.display());
    check_line(&format!("{predict} -i ABSENT"));
    check_line(&format!("{predict} -i THERE --preview --truth ABSENT"));
    check_line("preview -i ABSENT -l THERE -o OUT.png");
    check_line("preview -i THERE -l ABSENT -o OUT.png");
    check_line("statistics ABSENT");
    check_line("clean ABSENT -o OUT --fill-holes");
    check_line("install ABSENT -o OUT");
    check_line("import ABSENT -o OUT");
    check_line("plan ABSENT -o OUT");
    check_line("preprocess ABSENT -o OUT");
    check_line("train ABSENT 3d_fullres 0 -o OUT");
    check_line("export ABSENT OUT");
    check_line("evaluate ABSENT THERE");
    check_line("evaluate THERE ABSENT");
    check_line("ensemble -i THERE ABSENT -o OUT");
    check_line("postprocess determine -i ABSENT -r THERE");
    check_line("postprocess determine -i THERE -r ABSENT");
    check_line("postprocess apply -i THERE -o OUT --steps ABSENT");
    check_line("accumulate ABSENT");
    check_line("find-best ABSENT");
}

#[test]
fn a_size_without_its_unit() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let mut arguments = predict_arguments(&input, &scene.path("out.nii.gz"), &model_folder(1));
    arguments.extend(["--max-memory", "3"].map(str::to_owned));
    check(&scene, arguments, &["expected a unit, such as 3G or 3M"]);
}

#[test]
fn truncated_file() {
    let scene = Scene::new();
    let bytes = NiftiBytes::ramp([20, 18, 16]).bytes();
    let input = scene.file("ct.nii", &bytes[..bytes.len() - 1000]);
    check_input(&scene, &input, &["truncated", "ct.nii"]);
}

#[test]
fn truncated_header() {
    let scene = Scene::new();
    let bytes = NiftiBytes::ramp([20, 18, 16]).bytes();
    let input = scene.file("ct.nii", &bytes[..200]);
    check_input(&scene, &input, &["ct.nii"]);
}

#[test]
fn truncated_gzip() {
    let scene = Scene::new();
    // a gzip header, and then nothing
    let input = scene.file("ct.nii.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]);
    check_input(&scene, &input, &["ct.nii.gz"]);
}

#[test]
fn empty_file() {
    let scene = Scene::new();
    let input = scene.file("ct.nii.gz", b"");
    check_input(&scene, &input, &["ct.nii.gz"]);
}

#[test]
fn not_nifti() {
    let scene = Scene::new();
    let text = "a report about a patient, not a volume\n".repeat(40);
    let input = scene.file("ct.nii", text.as_bytes());
    check_input(&scene, &input, &["not a NIfTI file", "ct.nii"]);
}

#[test]
fn another_format() {
    let scene = Scene::new();
    let input = scene.file("ct.gipl", b"GIPL");
    check_input(&scene, &input, &[".nii", "ct.gipl"]);
}

#[test]
fn a_damaged_file_of_another_format() {
    let scene = Scene::new();
    let input = scene.file("ct.nrrd", b"NRRD0004\n");
    check_input(&scene, &input, &["NRRD header", "an empty line at its end", "ct.nrrd"]);
    let input = scene.file("ct.mha", b"ObjectType = Image\n");
    check_input(&scene, &input, &["MetaImage header", "ElementDataFile", "ct.mha"]);
    let input = scene.file("ct.dcm", &[&[0; 128][..], b"DICM"].concat());
    check_input(&scene, &input, &["expected one volume, found none", "ct.dcm"]);
    let input = scene.file("ct.zip", b"PK\x03\x04 and nothing more");
    check_input(&scene, &input, &["zip archive", "ct.zip"]);
}

#[test]
fn nan_voxel() {
    check_bent(|file| file.values[77] = f32::NAN, &["NaN"]);
}

#[test]
fn infinite_voxel() {
    check_bent(|file| file.values[78] = f32::NEG_INFINITY, &["infinite"]);
}

#[test]
fn singular_affine() {
    check_bent(|file| file.affine[2] = file.affine[1], &["affine is singular"]);
}

#[test]
fn zero_spacing() {
    let flat = |file: &mut NiftiBytes| {
        file.spacing_xyz[2] = 0.0;
        file.affine[2][2] = 0.0;
    };
    check_bent(flat, &["spacing"]);
}

#[test]
fn no_voxels() {
    check_bent(|file| file.size_xyz[1] = 0, &["dimensions"]);
}

#[test]
fn wrong_channel_count() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let arguments = predict_arguments(&input, &scene.path("out.nii.gz"), &model_folder(2));
    check(&scene, arguments, &["channel", "expected 2", "found 1", "ct.nii"]);
}

#[test]
fn wrong_class_count() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let model = model_folder(1);
    for name in ["network.json", "plans.json", "weights.safetensors"] {
        scene.file(&format!("model/{name}"), &std::fs::read(model.join(name)).unwrap());
    }
    let labels = std::fs::read_to_string(model.join("labels.json")).unwrap();
    let mut labels: serde_json::Value = serde_json::from_str(&labels).unwrap();
    labels["labels"]["kidney"] = 3.into();
    scene.file("model/labels.json", labels.to_string().as_bytes());
    let arguments = predict_arguments(&input, &scene.path("out.nii.gz"), &scene.path("model"));
    check(&scene, arguments, &["expected", "found", "4", "3"]);
}

#[test]
fn missing_model() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let arguments =
        predict_arguments(&input, &scene.path("out.nii.gz"), &scene.path("absent.model"));
    check(&scene, arguments, &["absent.model"]);
}

#[test]
fn truncated_model() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let model = scene.file("base_ep4k.model", b"PK\x03\x04 and so on");
    let arguments = predict_arguments(&input, &scene.path("out.nii.gz"), &model);
    check(&scene, arguments, &["base_ep4k.model"]);
}

/// A pickle that would run a command where pickles are trusted.
fn hostile_pickle(scene: &Scene) -> Vec<u8> {
    let marker = scene.path("marker");
    format!("cposix\nsystem\n(S'touch {}'\ntR.", marker.display()).into_bytes()
}

#[test]
fn hostile_pickle_alone() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let model = scene.file("evil.model", &hostile_pickle(&scene));
    let arguments = predict_arguments(&input, &scene.path("out.nii.gz"), &model);
    check(&scene, arguments, &["evil.model"]);
}

#[test]
fn hostile_pickle_in_a_checkpoint() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("archive/data.pkl", stored).unwrap();
    std::io::Write::write_all(&mut archive, &hostile_pickle(&scene)).unwrap();
    archive.start_file("archive/version", stored).unwrap();
    std::io::Write::write_all(&mut archive, b"3\n").unwrap();
    let bytes = archive.finish().unwrap().into_inner();
    let model = scene.file("evil.model", &bytes);
    let arguments = predict_arguments(&input, &scene.path("out.nii.gz"), &model);
    check(&scene, arguments, &["posix", "system", "evil.model"]);
}

#[test]
fn a_device_that_is_not_there() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    for device in ["cuda:99", "metal:99", "vulkan:99", "wgpu:99"] {
        let mut arguments = predict_arguments(&input, &scene.path("out.nii.gz"), &model_folder(1));
        let at = arguments.iter().position(|word| word == "cpu").unwrap();
        arguments[at] = device.to_owned();
        check(&scene, arguments, &[device.split(':').next().unwrap()]);
    }
}

#[test]
fn no_device_at_all() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let mut arguments = predict_arguments(&input, &scene.path("out.nii.gz"), &model_folder(1));
    let at = arguments.iter().position(|word| word == "cpu").unwrap();
    arguments[at] = "abacus".to_owned();
    check(&scene, arguments, &["abacus", "auto|cpu|cuda[:N]"]);
}

#[test]
fn an_empty_folder() {
    let scene = Scene::new();
    scene.file("in/notes.txt", b"");
    let arguments = predict_arguments(&scene.path("in"), &scene.path("out"), &model_folder(1));
    check(&scene, arguments, &["CASE_0000.nii.gz"]);
}

#[test]
fn a_missing_channel_file() {
    let scene = Scene::new();
    scene.volume("in/a_0001.nii");
    let arguments = predict_arguments(&scene.path("in"), &scene.path("out"), &model_folder(2));
    check(&scene, arguments, &["_0000"]);
}

#[test]
fn channel_files_of_two_grids() {
    let scene = Scene::new();
    scene.volume("in/a_0000.nii");
    scene.file("in/a_0001.nii", &NiftiBytes::ramp([32, 28, 22]).bytes());
    let arguments = predict_arguments(&scene.path("in"), &scene.path("out"), &model_folder(2));
    check(&scene, arguments, &["differs", "a_0001.nii"]);
}

#[test]
fn an_output_of_another_format() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let arguments = predict_arguments(&input, &scene.path("out.gipl"), &model_folder(1));
    check(&scene, arguments, &[".nii.gz", "out.gipl"]);
}

#[test]
fn an_output_under_a_file() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let blocker = scene.file("blocker", b"");
    let arguments = predict_arguments(&input, &blocker.join("out.nii.gz"), &model_folder(1));
    check(&scene, arguments, &["cannot write", "out.nii.gz"]);
}

#[test]
fn a_report_that_cannot_be_written() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let blocker = scene.file("blocker", b"");
    let mut arguments = predict_arguments(&input, &scene.path("out.nii.gz"), &model_folder(1));
    arguments.extend(["--json".into(), blocker.join("report.json").to_str().unwrap().into()]);
    check(&scene, arguments, &["cannot write", "report.json"]);
}

#[test]
fn a_wrong_command_line() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let wrong = |more: &[&str], words: &[&str]| {
        let mut arguments = predict_arguments(&input, &scene.path("out.nii.gz"), &model_folder(1));
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        check(&scene, arguments, words);
    };
    wrong(&["--step-size", "2"], &["--step-size", "at most 1"]);
    wrong(&["--mode", "slow"], &["--mode", "normal"]);
    wrong(&["--overwritten"], &["--overwrite"]);
    wrong(&["--num-parts", "0", "--part-id", "0"], &["--num-parts", "at least 1"]);
    wrong(&["--save-probabilities", "--mode", "fast"], &["--save-probabilities"]);
    wrong(&["-f", "3"], &["--folds", "single network"]);
    wrong(&["-f", "first"], &["folds", "all"]);
    check(&scene, vec!["info".into()], &["MODEL"]);
}

#[test]
fn convert_into_a_full_folder() {
    let scene = Scene::new();
    scene.file("out/notes.txt", b"mine");
    let model = model_folder(1).to_str().unwrap().to_owned();
    let out = scene.path("out").to_str().unwrap().to_owned();
    check(&scene, vec!["convert".into(), model, out], &["empty folder"]);
}

/// Nobody makes files under `/proc`, not even root; see `rights.rs` for a folder that is locked.
#[cfg(target_os = "linux")]
#[test]
fn an_output_folder_that_cannot_be_written() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let output = Path::new("/proc/stunet/labels.nii.gz");
    let arguments = predict_arguments(&input, output, &model_folder(1));
    check(&scene, arguments, &["cannot write", "labels.nii.gz"]);
}

/// A limit on the size of files fails as a full disk does, and needs no rights to set up.
#[cfg(unix)]
fn under_a_limit(blocks: u32, arguments: &[String]) -> Output {
    // The signal would kill; ignored, the write fails instead.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    Command::new("sh").arg("-c").arg(script).arg(common::STUNET).args(arguments).output().unwrap()
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_noticed_before_the_work() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let arguments = predict_arguments(&input, &scene.path("out.nii.gz"), &model_folder(1));
    let before = scene.contents();
    let output = under_a_limit(0, &arguments);
    assert_one_line(&output, &["cannot write", "out.nii.gz"]);
    assert_eq!(said(&output).0, "", "noticed only after the model was loaded");
    assert_eq!(scene.contents(), before);
}

#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_leaves_nothing() {
    let scene = Scene::new();
    // 64³ voxels are 256 KiB of labels; the limit is half of that, or a little less than all.
    let input = scene.file("ct.nii", &NiftiBytes::ramp([64, 64, 64]).bytes());
    let arguments = predict_arguments(&input, &scene.path("out.nii"), &model_folder(1));
    let before = scene.contents();
    assert_one_line(&under_a_limit(256, &arguments), &["out.nii"]);
    assert_eq!(scene.contents(), before);
}
