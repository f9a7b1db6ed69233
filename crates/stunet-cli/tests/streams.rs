//! Standard output and standard error that are gone, full or slow: every command ends, in time, with the
//! exit code it should have.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]
#![cfg(unix)]

mod common;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{STUNET, Scene, model_folder, predict_arguments, said};
use serde_json::json;
use stunet_testing::nifti_bytes::NiftiBytes;

/// Longer than any of these commands takes on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);
const RAW: &str = "nnUNet_raw/Dataset001_Boxes";
const PREPARED: &str = "nnUNet_preprocessed/Dataset001_Boxes";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stream {
    Output,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    /// A pipe that nobody reads any more.
    Gone,
    /// No such handle.
    Closed,
    /// A disk without room.
    Full,
    /// A pipe that is read a few bytes at a time.
    Slow,
}

/// The words of a command; `@` stands for the scene, `%` for a name that no other run has.
fn words(scene: &Scene, text: &str, run: usize) -> Vec<String> {
    let place = scene.path("").to_str().unwrap().to_owned();
    text.split_whitespace()
        .map(|word| word.replace('@', &place).replace('%', &run.to_string()))
        .collect()
}

/// Waits for the end and returns its code.
fn end(mut child: Child, what: &str) -> i32 {
    let clock = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| panic!("{what}: killed by a signal"));
        }
        if clock.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{what}: waits for ever");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn read_slowly(mut pipe: impl Read + Send + 'static) {
    thread::spawn(move || {
        let mut few = [0; 64];
        while pipe.read(&mut few).is_ok_and(|count| count > 0) {
            thread::sleep(Duration::from_millis(1));
        }
    });
}

/// The exit code of a command in trouble.
fn run(words: &[String], stream: Stream, trouble: Trouble) -> i32 {
    let what = format!("{words:?}, {stream:?} {trouble:?}");
    let mut command = match trouble {
        Trouble::Closed => {
            let redirect = if stream == Stream::Output { ">&-" } else { "2>&-" };
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("exec \"$@\" {redirect}"), "sh", STUNET]);
            shell
        }
        _ => Command::new(STUNET),
    };
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let target = || match trouble {
        Trouble::Full => File::options().write(true).open("/dev/full").unwrap().into(),
        Trouble::Closed => Stdio::null(),
        Trouble::Gone | Trouble::Slow => Stdio::piped(),
    };
    match stream {
        Stream::Output => command.stdout(target()),
        Stream::Error => command.stderr(target()),
    };
    let mut child = command.spawn().unwrap();
    let pipes = (child.stdout.take(), child.stderr.take());
    match (trouble, pipes) {
        (Trouble::Slow, (Some(pipe), _)) => read_slowly(pipe),
        (Trouble::Slow, (_, Some(pipe))) => read_slowly(pipe),
        (_, pipes) => drop(pipes),
    }
    end(child, &what)
}

/// Runs a command in every trouble and compares its ends with that of an undisturbed run.
///
/// `then` looks at what the run with that number left behind.
fn check(scene: &Scene, text: &str, code: i32, then: impl Fn(usize)) {
    let calm = Command::new(STUNET).args(words(scene, text, 0)).output().unwrap();
    let (stdout, stderr) = said(&calm);
    assert_eq!(calm.status.code(), Some(code), "{text}: {stderr}");
    assert!(!stderr.contains("internal error"), "{text}: {stderr}");
    then(0);
    let mut number = 0;
    for stream in [Stream::Output, Stream::Error] {
        for trouble in [Trouble::Gone, Trouble::Closed, Trouble::Full, Trouble::Slow] {
            number += 1;
            // What should have been said and could not is a failure, whatever else went well.
            let unsaid = (stream, trouble) == (Stream::Output, Trouble::Full) && !stdout.is_empty();
            let expected = if unsaid { code.max(1) } else { code };
            let found = run(&words(scene, text, number), stream, trouble);
            assert_eq!(found, expected, "{text}: {stream:?} {trouble:?}");
            then(number);
        }
    }
}

fn check_only(scene: &Scene, text: &str, code: i32) {
    check(scene, text, code, |_| {});
}

/// A raw dataset of a few boxes with plans beside it.
fn dataset() -> Scene {
    let scene = Scene::new();
    let plans = json!({
        "plans_name": "nnUNetPlans", "transpose_forward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {},
        "configurations": { "3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "batch_size": 2, "batch_dice": true, "patch_size": [8, 16, 16],
            "spacing": [3.0, 3.0, 3.0], "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [false],
            "pool_op_kernel_sizes":
                [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1]],
        }},
    });
    let about = json!({
        "channel_names": { "0": "MR" }, "labels": { "background": 0, "box": 1 },
        "numTraining": 5, "file_ending": ".nii",
    });
    for case in 0..5 {
        let image = NiftiBytes::ramp([20, 18, 12]);
        let mut labels = image.clone();
        labels.values.iter_mut().enumerate().for_each(|(i, v)| *v = (i / (40 + case) % 2) as f32);
        scene.file(&format!("{RAW}/imagesTr/c{case}_0000.nii"), &image.bytes());
        scene.file(&format!("{RAW}/labelsTr/c{case}.nii"), &labels.bytes());
        scene.file(&format!("pred/c{case}.nii"), &labels.bytes());
    }
    for folder in [RAW, PREPARED] {
        scene.file(&format!("{folder}/dataset.json"), about.to_string().as_bytes());
    }
    scene.file(&format!("{PREPARED}/nnUNetPlans.json"), plans.to_string().as_bytes());
    scene
}

#[test]
fn commands_that_only_tell() {
    let scene = Scene::new();
    let model = model_folder(1).to_str().unwrap().to_owned();
    for text in
        ["--help", "--version", "predict --help", "devices", "devices --json", "completions bash"]
    {
        check_only(&scene, text, 0);
    }
    for text in ["info --size huge", "info --size base --json", "info MODEL", "labels MODEL"] {
        check_only(&scene, &text.replace("MODEL", &model), 0);
    }
    for text in ["", "train", "predict --no-such-option", "completions dos"] {
        check_only(&scene, text, 2);
    }
    for text in ["info @absent", "labels @absent", "convert @absent @out"] {
        check_only(&scene, text, 1);
    }
}

#[test]
fn man() {
    let scene = Scene::new();
    check(&scene, "man @pages_%", 0, |run| {
        assert!(scene.path(&format!("pages_{run}/stunet-predict.1")).is_file(), "{run}");
    });
}

#[test]
fn convert() {
    let scene = Scene::new();
    let text = format!("convert {} @out_%", model_folder(1).display());
    check(&scene, &text, 0, |run| {
        assert!(scene.path(&format!("out_{run}/labels.json")).is_file(), "{run}");
    });
}

/// Good cases beside bad ones, which are told of on standard error.
#[test]
fn predict() {
    let scene = Scene::new();
    for case in 0..5 {
        scene.file(&format!("in/c{case}_0000.nii"), &NiftiBytes::ramp([20, 18, 16]).bytes());
        scene.file(&format!("good/c{case}_0000.nii"), &NiftiBytes::ramp([20, 18, 16]).bytes());
    }
    for case in ["a", "b", "z"] {
        scene.file(&format!("in/{case}_0000.nii"), b"no volume");
    }
    let outputs = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
    for (input, code) in [("in", 1), ("good", 0)] {
        let text = |more: &str, out: &str| {
            let output = scene.path(&format!("{input}_{out}_%"));
            predict_arguments(&scene.path(input), &output, &model_folder(1)).join(" ") + more
        };
        for (more, out) in [("", "plain"), (" -q", "quiet"), (" --max-memory 4G", "bounded")] {
            // Whatever cannot be told of, every case that can be predicted is.
            check(&scene, &text(more, out), code, |run| {
                let folder = scene.path(&format!("{input}_{out}_{run}"));
                assert_eq!(outputs(&folder), 5, "{input} {out} {run}");
            });
        }
    }
    // Outputs of somebody else's making are complained about before the network runs.
    scene.file("foreign/c1.nii.gz", b"mine");
    let foreign = predict_arguments(&scene.path("good"), &scene.path("foreign"), &model_folder(1));
    check(&scene, &foreign.join(" "), 1, |_| assert_eq!(outputs(&scene.path("foreign")), 5));
}

#[test]
fn from_a_dataset_to_an_evaluation() {
    let scene = dataset();
    let home = scene.path("");
    check_only(&scene, &format!("plan @{RAW} -o @planned_%"), 0);
    check_only(&scene, "plan @absent", 1);
    check_only(&scene, &format!("preprocess @{RAW} --redo"), 0);
    check_only(&scene, &format!("preprocess @{RAW} --redo --json"), 0);
    let train = format!(
        "train @{PREPARED} 3d_fullres 0 -o @results_% --device cpu --threads 1 --epochs 1 \
         --width 2,2,3,3,4,4 --iterations 1 --val-iterations 1"
    );
    check_only(&scene, &train, 0);
    let model = "STUNetTrainer_custom__nnUNetPlans__3d_fullres/fold_0";
    let fold = format!("results_0/Dataset001_Boxes/{model}");
    assert!(home.join(&fold).join("validation/summary.json").is_file());
    check_only(&scene, &format!("export @{fold} @exported_%"), 0);
    check_only(&scene, &format!("export @{fold} @exported_%.pth"), 0);
    check_only(&scene, "export @absent @exported", 1);
    check(&scene, &format!("evaluate @{RAW}/labelsTr @pred -o @summary_%.json"), 0, |run| {
        assert!(scene.path(&format!("summary_{run}.json")).is_file());
    });
    // A case that fails, and is told of.
    scene.file(&format!("{RAW}/imagesTr/c1_0000.nii"), b"no volume");
    check_only(&scene, &format!("preprocess @{RAW} --redo --no-check"), 1);
    check_only(&scene, &format!("preprocess @{RAW} --redo"), 1);
}
