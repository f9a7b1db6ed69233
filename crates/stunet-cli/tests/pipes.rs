//! A pipe that nobody writes, in place of every file that a command reads: refused, not waited for.
#![cfg(unix)]
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use common::{STUNET, Scene, model_folder};

/// Long enough for a busy machine; a command that waits for a writer never ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a command line in which `@` is the pipe, and holds its one line against what is expected.
fn check(scene: &Scene, line: &str) {
    let pipe = scene.path("pipe");
    let words = line.split(' ').map(|word| match word {
        "@" => pipe.display().to_string(),
        "MODEL" => model_folder(1).display().to_string(),
        word if word.starts_with("./") => scene.path(&word[2..]).display().to_string(),
        word => word.to_owned(),
    });
    let mut command = Command::new(STUNET);
    command.args(words).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let id = child.id().to_string();
    let (ended, end) = std::sync::mpsc::channel();
    let watch = std::thread::spawn(move || {
        if end.recv_timeout(PATIENCE).is_err() {
            let _ = Command::new("kill").args(["-KILL", &id]).status();
        }
    });
    let output = child.wait_with_output().unwrap();
    let _ = ended.send(());
    watch.join().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code().is_some(), "{line} waited");
    assert!(!output.status.success(), "{line}");
    assert_eq!(error.trim_end().lines().count(), 1, "{line}: {error}");
    assert!(!error.contains("internal error"), "{line}: {error}");
}

#[test]
fn no_command_waits_for_a_pipe() {
    let scene = Scene::new();
    scene.volume("a_0000.nii");
    scene.file("dataset.json", br#"{"labels": {"background": 0, "a": 1}}"#);
    assert!(Command::new("mkfifo").arg(scene.path("pipe")).status().unwrap().success());
    for name in ["network.json", "weights.safetensors", "plans.json", "labels.json"] {
        let folder = scene.path(&format!("half_{name}"));
        std::fs::create_dir(&folder).unwrap();
        for entry in std::fs::read_dir(model_folder(1)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        std::fs::remove_file(folder.join(name)).unwrap();
        std::os::unix::fs::symlink(scene.path("pipe"), folder.join(name)).unwrap();
        check(&scene, &format!("predict -i ./a_0000.nii -o ./o.nii -m ./half_{name} --device cpu"));
        check(&scene, &format!("labels ./half_{name}"));
        check(&scene, &format!("convert ./half_{name} ./converted"));
    }
    check(&scene, "labels @");
    check(&scene, "info @");
    check(&scene, "convert @ ./converted");
    check(&scene, "export @ ./exported");
    check(&scene, "export @ ./exported.model");
    check(&scene, "predict -i @ -o ./o.nii -m MODEL --device cpu");
    check(&scene, "predict -i ./a_0000.nii -o ./o.nii -m @ --device cpu");
    check(&scene, "evaluate ./a_0000.nii ./a_0000.nii --dataset-json @");
    check(&scene, "evaluate @ ./a_0000.nii --labels 1");
    check(&scene, "evaluate ./a_0000.nii @ --labels 1");
    std::os::unix::fs::symlink(scene.path("pipe"), scene.path("b_0000.nii")).unwrap();
    check(&scene, "predict -i ./b_0000.nii -o ./o.nii -m MODEL --device cpu");
}
