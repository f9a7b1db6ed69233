//! Previews, the page of a folder, the demo and the phantom dataset, through the binary.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

use common::{Scene, assert_one_line, model_folder, predict_arguments, said, stunet};
use stunet_testing::nifti_bytes::NiftiBytes;

fn run(words: &[&str]) -> Output {
    stunet(words)
}

fn succeeded(output: &Output) -> String {
    let (stdout, stderr) = said(output);
    assert!(output.status.success(), "{stderr}");
    stdout
}

fn is_png(path: &Path) -> bool {
    fs::read(path).unwrap().starts_with(b"\x89PNG\r\n\x1a\n")
}

/// Two cases, predicted with the small model.
fn predicted(scene: &Scene, more: &[&str]) -> Output {
    for (name, size) in [("a", [20, 18, 16]), ("b", [24, 20, 18])] {
        scene.file(&format!("in/{name}_0000.nii"), &NiftiBytes::ramp(size).bytes());
    }
    let (input, output) = (scene.path("in"), scene.path("out"));
    let mut arguments = predict_arguments(&input, &output, &model_folder(1));
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    stunet(arguments)
}

#[test]
fn previews_are_outputs_like_others() {
    let scene = Scene::new();
    succeeded(&predicted(&scene, &["--preview"]));
    let preview = scene.path("out/a_preview.png");
    assert!(is_png(&preview) && is_png(&scene.path("out/b_preview.png")));
    // The names of files are not in the picture's text; what made it is.
    let bytes = fs::read(&preview).unwrap();
    let note = stunet::pictures::note::note_of_png(&bytes[..]).unwrap();
    assert!(note.contains("\"picture\":\"window automatic, channel 0\""), "{note}");
    assert!(!note.contains("_0000"), "{note}");
    // The same again is skipped, and another window is another picture.
    let again = succeeded(&predicted(&scene, &["--preview"]));
    assert_eq!(again.matches("skipped, exists").count(), 2, "{again}");
    let other = predicted(&scene, &["--preview", "--window", "0,100"]);
    let (_, stderr) = said(&other);
    assert_eq!(other.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("expected none, or one made with picture window 0,100"), "{stderr}");
    assert!(fs::read(&preview).unwrap() == bytes);
    // A preview that is missing is drawn, and the labelmap stays as it is.
    fs::remove_file(&preview).unwrap();
    // Without the network.
    let labels = fs::metadata(scene.path("out/a.nii.gz")).unwrap().modified().unwrap();
    let again = succeeded(&predicted(&scene, &["--preview"]));
    assert!(again.contains("a: what is missing is made from the labels that exist"), "{again}");
    assert!(!again.contains("windows"), "{again}");
    assert!(fs::read(&preview).unwrap() == bytes);
    assert_eq!(fs::metadata(scene.path("out/a.nii.gz")).unwrap().modified().unwrap(), labels);
}

#[test]
fn the_page_shows_all_cases_also_those_that_were_there() {
    let scene = Scene::new();
    let page = scene.path("pages/all.html");
    let report = page.to_str().unwrap().to_owned();
    succeeded(&predicted(&scene, &[]));
    fs::remove_file(scene.path("out/b.nii.gz")).unwrap();
    scene.file("in/c_0000.nii", b"no NIfTI");
    let output = predicted(&scene, &["--report", &report]);
    assert_eq!(output.status.code(), Some(1), "{:?}", said(&output));
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("Segmentation of 3 cases"), "{html}");
    assert!(html.contains("1 predicted, 1 predicted before, 1 failed"), "{html}");
    assert_eq!(html.matches("data:image/png;base64,").count(), 2);
    assert!(html.contains("Failed: ") && html.contains(">liver<"), "{html}");
    for address in ["http:", "https:", "<link"] {
        assert!(!html.contains(address), "{address}");
    }
}

#[test]
fn a_truth_is_compared_with() {
    let scene = Scene::new();
    succeeded(&predicted(&scene, &[]));
    let (page, truth) = (scene.path("p.html"), scene.path("truth"));
    fs::create_dir(&truth).unwrap();
    fs::copy(scene.path("out/a.nii.gz"), truth.join("a.nii.gz")).unwrap();
    let [report, truth] = [&page, &truth].map(|path| path.to_str().unwrap().to_owned());
    let more = ["--preview", "--report", &report, "--truth", &truth, "--overwrite"];
    let said = succeeded(&predicted(&scene, &more));
    assert!(said.contains("b: note: no truth of this name"), "{said}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("Mean Dice") && html.contains(">1.000<"), "{html}");
    // Of another grid.
    fs::copy(scene.path("out/b.nii.gz"), scene.path("truth/a.nii.gz")).unwrap();
    let output = predicted(&scene, &more);
    let (_, stderr) = common::said(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("a: --truth: ") && stderr.contains("shape differs"), "{stderr}");
}

#[test]
fn what_cannot_be_drawn_is_told_before_the_first_window() {
    let scene = Scene::new();
    let truth = scene.volume("truth.nii");
    let truth = truth.to_str().unwrap();
    assert_one_line(&predicted(&scene, &["--truth", truth]), &["--truth: expected --preview"]);
    let several = ["--preview", "--truth", truth];
    assert_one_line(&predicted(&scene, &several), &["expected a folder, as there are 2 cases"]);
    let same = scene.path("in/a_0000.nii");
    let over = ["--report", same.to_str().unwrap()];
    assert_one_line(&predicted(&scene, &over), &["--report: would overwrite the input"]);
    let output = predicted(&scene, &["--preview", "--channel", "1"]);
    let (_, stderr) = said(&output);
    assert!(stderr.contains("--channel: expected 0 to 0, found 1"), "{stderr}");
    assert!(!scene.path("out/a.nii.gz").exists());
}

#[test]
fn labelmaps_that_are_there_are_drawn() {
    let scene = Scene::new();
    succeeded(&predicted(&scene, &[]));
    let at = |name: &str| scene.path(name).to_str().unwrap().to_owned();
    let (image, labels, picture) = (at("in/a_0000.nii"), at("out/a.nii.gz"), at("new.png"));
    let base = ["preview", "-i", &image, "-l", &labels, "-o", &picture];
    let model = model_folder(1);
    let names = ["--names", model.to_str().unwrap(), "--title", "A <title> & more"];
    let told = succeeded(&run(&[&base[..], &names].concat()));
    assert!(is_png(&scene.path("new.png")));
    assert!(told.contains("liver\t") || told.contains("spleen\t"), "{told}");
    assert_one_line(&run(&base), &["expected a file that is not there, or --overwrite"]);
    succeeded(&run(&[&base[..], &["--overwrite", "-q"]].concat()));
    let other = at("out/b.nii.gz");
    let wrong = ["preview", "-i", &image, "-l", &other, "-o", &at("no.png")];
    assert_one_line(&run(&wrong), &["shape differs", "b.nii.gz"]);
    let jpeg = ["preview", "-i", &image, "-l", &labels, "-o", &at("no.jpg")];
    assert_one_line(&run(&jpeg), &["expected a name that ends in .png"]);
    let onto = ["preview", "-i", &image, "-l", &labels, "--overwrite", "-o", &labels];
    assert_one_line(&run(&onto), &["expected a name that ends in .png"]);
    assert!(!scene.path("no.png").exists());
}

#[cfg(feature = "demo")]
#[test]
fn the_demo_shows_what_the_program_does() {
    let scene = Scene::new();
    let folder = scene.path("demo");
    let words = ["demo", folder.to_str().unwrap(), "--seed", "3000", "--device", "cpu"];
    let told = succeeded(&run(&words));
    assert!(told.contains("lung_left") && told.contains("Dice 0.9"), "{told}");
    for name in ["ct.nii.gz", "labels.nii.gz", "truth.nii.gz"] {
        stunet::data::nifti::read_geometry(&folder.join(name)).unwrap();
    }
    assert!(is_png(&folder.join("preview.png")));
    assert_one_line(&run(&words), &["without ct.nii.gz", "--overwrite"]);
}

#[cfg(feature = "demo")]
#[test]
fn phantoms_are_a_dataset_to_plan() {
    let scene = Scene::new();
    let folder = scene.path("nnUNet_raw/Dataset501_Phantoms");
    let dataset = folder.to_str().unwrap();
    let words = ["phantom", dataset, "--cases", "5", "--spacing", "8mm"];
    let told = succeeded(&run(&[&words[..], &["--structures", "liver,spleen"]].concat()));
    assert!(told.contains("phantom_0005") && told.contains("5 cases, 2 labels"), "{told}");
    assert_eq!(fs::read_dir(folder.join("labelsTr")).unwrap().count(), 5);
    succeeded(&run(&["plan", dataset, "-q"]));
    assert_one_line(&run(&words), &["expected a new or empty folder"]);
    let other = scene.path("other");
    let bad = ["phantom", other.to_str().unwrap(), "--structures", "lever"];
    assert_one_line(&run(&bad), &["found \"lever\""]);
    assert!(!other.exists());
}

#[cfg(feature = "demo")]
#[test]
fn every_training_case_of_a_dataset_is_drawn() {
    let scene = Scene::new();
    let folder = scene.path("nnUNet_raw/Dataset501_Phantoms");
    let dataset = folder.to_str().unwrap();
    succeeded(&run(&["phantom", dataset, "--cases", "3", "--spacing", "12mm", "-q"]));
    let at = |name: &str| scene.path(name).to_str().unwrap().to_owned();
    let (out, page) = (at("drawn"), at("drawn.html"));
    let words = ["pictures", dataset, "-o", &out, "--report", &page];
    let told = succeeded(&run(&words));
    assert!(told.starts_with("3 pictures: "), "{told}");
    for case in 1..=3 {
        assert!(is_png(&scene.path(&format!("drawn/phantom_000{case}.png"))));
    }
    let html = fs::read_to_string(scene.path("drawn.html")).unwrap();
    assert!(html.contains("Training cases of Dataset501_Phantoms"), "{html}");
    assert!(html.contains("gallbladder") && html.contains("14 of 14"), "{html}");
    // What is there is not replaced without a word.
    assert_one_line(&run(&words), &["expected a picture that is not there, or --overwrite"]);
    // A case that is broken does not stop the others.
    fs::write(folder.join("labelsTr/phantom_0002.nii.gz"), b"no NIfTI").unwrap();
    let output = run(&[&words[..], &["--overwrite"]].concat());
    let (stdout, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stdout.starts_with("2 pictures: "), "{stdout}");
    assert!(stderr.contains("phantom_0002: ") && stderr.lines().count() == 1, "{stderr}");
    assert_one_line(&run(&[&words[..4], &["--channel", "1"]].concat()), &["expected 0 to 0"]);
    let onto =
        ["pictures", dataset, "-o", &out, "--overwrite", "--report", &at("drawn/phantom_0001.png")];
    assert_one_line(&run(&onto), &["would be written to one file"]);
}
