//! `stunet export FILE.zip` and `stunet install`: models as nnU-Net passes them on.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::process::{Command, Output};

use common::boxes::{CONFIGURATION, DATASET, dataset};
use common::{STUNET, Scene, assert_one_line, said};
use zip::write::{SimpleFileOptions, ZipWriter};

const MODEL: &str = "STUNetTrainer_custom__nnUNetPlans__3d_fullres";

fn command(scene: &Scene, line: &str) -> Output {
    let words = line.split(' ').map(|word| match word.strip_prefix('@') {
        Some(name) => scene.path(name).into_os_string(),
        None => word.into(),
    });
    Command::new(STUNET).args(words).output().unwrap()
}

fn run(scene: &Scene, line: &str) -> String {
    let output = command(scene, line);
    assert!(output.status.success(), "{line}: {}", said(&output).1);
    said(&output).0
}

#[test]
fn there_and_back() {
    let scene = dataset();
    for fold in [0, 1] {
        run(
            &scene,
            &format!(
                "train @nnUNet_preprocessed/{DATASET} {CONFIGURATION} {fold} --width 2,2,3,3,4,4 \
                 --epochs 1 --iterations 2 --val-iterations 1 --device cpu --no-mirroring -o @results"
            ),
        );
    }
    let results = format!("results/{DATASET}/{MODEL}");
    run(&scene, &format!("export @{results} @model.zip"));
    let mut archive = zip::ZipArchive::new(File::open(scene.path("model.zip")).unwrap()).unwrap();
    let names: Vec<String> = (0..archive.len())
        .map(|i| archive.by_index(i).unwrap().name().unwrap().into_owned())
        .collect();
    for file in
        ["plans.json", "dataset.json", "fold_0/checkpoint_final.pth", "fold_1/checkpoint_final.pth"]
    {
        assert!(names.contains(&format!("{DATASET}/{MODEL}/{file}")), "{names:?}");
    }
    assert!(names.iter().all(|name| name.starts_with(DATASET)), "{names:?}");
    // Nothing of the export is left beside it.
    let left = fs::read_dir(scene.path(".")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");

    let out = run(&scene, "install @model.zip -o @elsewhere");
    assert!(out.starts_with("model: ") && out.trim_end().ends_with(MODEL), "{out}");
    let image = format!("@nnUNet_raw/{DATASET}/imagesTr/a_0000.nii");
    for (model, labels) in [(&results, "a.nii"), (&format!("elsewhere/{DATASET}/{MODEL}"), "b.nii")]
    {
        let line =
            format!("predict -i {image} -o @{labels} -m @{model} --accumulation f32 --device cpu");
        run(&scene, &line);
    }
    let labels = |name: &str| stunet::data::nifti::read_labelmap(&scene.path(name)).unwrap();
    assert!(labels("a.nii") == labels("b.nii"));

    let again = command(&scene, "install @model.zip -o @elsewhere");
    assert_one_line(&again, &["expected no model of this name", "--overwrite"]);
    run(&scene, "install @model.zip -o @elsewhere --overwrite --quiet");
    run(&scene, &format!("export @{results} @one.zip --folds 1"));
    let refused = command(&scene, &format!("export @{results} @two.zip --folds 2"));
    assert_one_line(&refused, &["--folds", "fold_2"]);
    assert!(!scene.path("two.zip").exists());
}

/// An archive of one small file under a name.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file(name, SimpleFileOptions::default()).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap().into_inner()
}

#[test]
fn what_is_no_archive_of_models() {
    let scene = Scene::new();
    let check = |name: &str, bytes: &[u8], words: &[&str]| {
        let path = format!("{name}.zip");
        scene.file(&path, bytes);
        let before = scene.contents();
        assert_one_line(&command(&scene, &format!("install @{path} -o @models")), words);
        assert_eq!(scene.contents(), before, "{name}");
    };
    check("text", b"no zip", &["expected a zip file", "text.zip"]);
    check("other", &archive("notes.txt", b"x"), &["plans.json", "among 1 files"]);
    check("climbing", &archive("../D/T/plans.json", b"{}"), &["within the folder", "../D/T"]);
    check("absolute", &archive("/D/T/plans.json", b"{}"), &["within the folder"]);
    check("bomb", &archive("D/T/plans.json", &vec![b' '; 10 << 20]), &["at most 200 times"]);
    let mut link = ZipWriter::new(Cursor::new(Vec::new()));
    link.add_symlink("D/T/plans.json", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    check("link", &link.finish().unwrap().into_inner(), &["found a link"]);

    // A byte that has changed is seen by its checksum: the model lacks what makes it one.
    let mut changed = archive("D/T/plans.json", b"{\"plans_name\": \"a\"}");
    let at = changed.windows(2).position(|pair| pair == b"{\"").unwrap_or(60);
    changed[at + 3] ^= 1;
    scene.file("changed.zip", &changed);
    assert_one_line(&command(&scene, "install @changed.zip -o @models"), &["plans.json"]);
    assert!(!scene.path("models/D/T/plans.json").exists());
    // The folder of results must be known.
    scene.file("good.zip", &archive("D/T__P__C/plans.json", b"{}"));
    let mut without = Command::new(STUNET);
    for variable in ["nnUNet_results", "RESULTS_FOLDER"] {
        without.env_remove(variable);
    }
    let output = without.arg("install").arg(scene.path("good.zip")).output().unwrap();
    assert_one_line(&output, &["--output", "nnUNet_results"]);
    let output = without.env("nnUNet_results", scene.path("r")).output().unwrap();
    assert!(output.status.success(), "{}", said(&output).1);
    assert!(scene.path("r/D/T__P__C/plans.json").is_file());
}
