//! Training through the binary: killed, interrupted, continued, refused.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::boxes::{CONFIGURATION, DATASET, dataset, store};
use common::{STUNET, Scene, said};
use serde_json::Value;
use stunet::data::nifti;
use stunet::train::checkpoint::{BEST, FINAL, Group, LATEST, TrainingCheckpoint};

/// The command of a run of a tiny network.
fn train(scene: &Scene, results: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(STUNET);
    command.arg("train").arg(scene.path(&format!("nnUNet_preprocessed/{DATASET}")));
    command.args([CONFIGURATION, "0", "--threads", "2", "-o"]).arg(results);
    if !more.contains(&"--devices") {
        command.args(["--device", "cpu"]);
    }
    command.args(more);
    command
}

const TINY: [&str; 11] = [
    "--width",
    "2,2,3,3,4,4",
    "--epochs",
    "8",
    "--iterations",
    "6",
    "--val-iterations",
    "1",
    "--no-validation",
    "--ema",
    "0.9",
];

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output).1);
    output
}

fn fold(results: &Path) -> PathBuf {
    let model = format!("STUNetTrainer_custom__nnUNetPlans__{CONFIGURATION}");
    results.join(DATASET).join(model).join("fold_0")
}

/// Every tensor of a run's final checkpoint, bit for bit, by name.
fn bits(results: &Path) -> BTreeMap<String, Vec<u8>> {
    let checkpoint = TrainingCheckpoint::open(&fold(results).join(FINAL)).unwrap();
    let mut all = BTreeMap::new();
    for group in [Group::Weights, Group::Momentum, Group::Ema] {
        for (name, data) in checkpoint.read_all(group).unwrap() {
            all.insert(format!("{group:?} {name}"), data.as_bytes().to_vec());
        }
    }
    all
}

fn check_equal(found: &Path, expected: &BTreeMap<String, Vec<u8>>) {
    let found = bits(found);
    assert!(found.keys().eq(expected.keys()), "other tensors");
    let differ: Vec<_> = found.keys().filter(|name| found[*name] != expected[*name]).collect();
    assert!(differ.is_empty(), "{} of {} tensors differ: {differ:?}", differ.len(), found.len());
}

/// Kills a run with SIGKILL at moments nobody chose, continues it, and compares.
///
/// Delays come from a generator, but what a run is doing then depends on the machine.
#[test]
fn killed_at_any_moment_it_ends_in_the_same_bits() {
    const KILLS: usize = 20;
    let scene = dataset();
    let straight = scene.path("straight");
    let clock = Instant::now();
    run(&mut train(&scene, &straight, &[&TINY[..], &["--quiet"]].concat()));
    let duration = clock.elapsed().as_secs_f64();
    let expected = bits(&straight);
    assert!(expected.keys().any(|name| name.starts_with("Ema")), "an average is kept");

    let mut random = 0x5EED_u64;
    let (mut kills, mut in_training, mut runs) = (0, 0, 0);
    // A run that survives is one more to compare; kills go on with the next.
    while kills < KILLS || runs == 0 {
        let results = scene.path(&format!("killed_{runs}"));
        loop {
            let mut child = start(&scene, &results);
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let fraction = (random >> 33) as f64 / (1u64 << 31) as f64;
            let delay = Duration::from_secs_f64(duration * (0.02 + 0.5 * fraction));
            if kills < KILLS && !ended_within(&mut child, delay) {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                in_training += usize::from(fold(&results).is_dir());
                continue;
            }
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", said(&output).1);
            break;
        }
        check_equal(&results, &expected);
        let left = fs::read_dir(fold(&results)).unwrap();
        let parts =
            left.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "part"));
        assert_eq!(parts.count(), 0, "files under construction are swept away");
        runs += 1;
    }
    assert!(
        in_training >= KILLS / 2,
        "only {in_training} of {kills} kills met a run that had begun"
    );
    println!("{kills} kills, {in_training} after the run had begun, {runs} runs compared");
}

/// A run from its checkpoint, or from the start where it had none yet.
fn start(scene: &Scene, results: &Path) -> Child {
    let begun = [LATEST, FINAL, BEST].iter().any(|name| fold(results).join(name).is_file());
    let go_on: &[&str] = if begun { &["--continue"] } else { &[] };
    let mut command = train(scene, results, &[&TINY[..], &["--quiet"], go_on].concat());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended_within(child: &mut Child, delay: Duration) -> bool {
    let end = Instant::now() + delay;
    while Instant::now() < end {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        sleep(Duration::from_millis(5));
    }
    false
}

#[cfg(unix)]
#[test]
fn interrupted_it_saves_says_130_and_goes_on_to_the_same_bits() {
    use std::io::{BufRead, BufReader};
    let scene = dataset();
    let straight = scene.path("straight");
    run(&mut train(&scene, &straight, &TINY));
    let results = scene.path("interrupted");
    let mut child = train(&scene, &results, &TINY).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The run's headline and its first epoch.
    assert!(lines.by_ref().any(|line| line.unwrap().starts_with("epoch 1/8")));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(
        rest.iter().any(|line| line.starts_with("stopped; resume with --continue")),
        "{rest:?}"
    );
    let checkpoint = TrainingCheckpoint::open(&fold(&results).join(LATEST)).unwrap();
    assert!(checkpoint.state().progress.epoch < 8);
    // Settings come from the checkpoint; the run is the only one.
    run(&mut train(&scene, &results, &["--continue", "--no-validation"]));
    check_equal(&results, &bits(&straight));
}

#[test]
fn more_than_memory_is_refused_before_anything_is_made() {
    let scene = dataset();
    let results = scene.path("results");
    let before = scene.contents();
    let check = |more: &[&str], expected: &[&str]| {
        let output = train(&scene, &results, &[&TINY[..], more].concat()).output().unwrap();
        let (out, err) = said(&output);
        assert_eq!(output.status.code(), Some(1), "{out}{err}");
        assert_eq!(err.trim_end().lines().count(), 1, "{err}");
        for words in expected {
            assert!(err.contains(words), "{err}");
        }
        let folds = scene.path(&format!("nnUNet_preprocessed/{DATASET}/splits_final.json"));
        let mut after = scene.contents();
        after.remove(&folds);
        let mut before = before.clone();
        // A folder's own size is none of ours.
        for contents in [&mut before, &mut after] {
            contents.retain(|path, _| path.is_file());
        }
        assert_eq!(after, before);
    };
    let patches =
        "memory: training on batches of 1000000000 patches of 8 x 16 x 16 voxels needs about ";
    check(&["--batch-size", "1000000000"], &[patches, "--batch-size ", " fits"]);
    // What no integer counts is still too much.
    check(&["--batch-size", "18446744073709551615"], &["memory: ", " fits"]);
    check(
        &["--max-memory", "1M"],
        &["--max-memory: expected at least ", "found 1.0 MB", "more memory is needed"],
    );
    let fits = run(&mut train(&scene, &results, &[&TINY[..], &["--max-memory", "2G"]].concat()));
    let (out, _) = said(&fits);
    assert!(out.lines().any(|line| line.starts_with("about ") && line.contains(" of memory: ")));
}

/// As an earlier version, or a disk that was full then, left them.
#[test]
fn half_a_description_is_made_anew() {
    let scene = dataset();
    let straight = scene.path("straight");
    run(&mut train(&scene, &straight, &TINY));
    let whole = fold(&straight);
    for name in ["debug.json", "../plans.json", "../dataset.json"] {
        let expected = fs::read(whole.join(name)).unwrap();
        for length in [0, expected.len() / 2] {
            let results = scene.path(&format!("{}_{length}", name.trim_start_matches("../")));
            fs::create_dir_all(fold(&results)).unwrap();
            fs::write(fold(&results).join(name), &expected[..length]).unwrap();
            run(&mut train(&scene, &results, &TINY));
            assert!(fs::read(fold(&results).join(name)).unwrap() == expected, "{name} {length}");
        }
    }
}

#[test]
fn a_finished_run_is_a_model_and_stays_as_it_is() {
    let scene = dataset();
    let results = scene.path("results");
    let more = ["--width", "2,2,3,3,4,4", "--epochs", "2", "--iterations", "3", "--json"];
    let output = run(&mut train(&scene, &results, &more));
    let (out, _) = said(&output);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[1]["train_loss"].is_f64() && lines[1]["epoch"] == 1);

    let at = fold(&results);
    let names = [FINAL, BEST, "progress.png", "training_log.jsonl", "validation/summary.json"];
    for name in names {
        assert!(at.join(name).is_file(), "{name}");
    }
    assert!(!at.join(LATEST).exists(), "the latest checkpoint has become the final one");
    let summary = fs::read_to_string(at.join("validation/summary.json")).unwrap();
    assert!(summary.contains("foreground_mean"), "{summary}");

    let before = scene.contents();
    let output = run(&mut train(&scene, &results, &["--continue"]));
    assert!(said(&output).0.contains("already validated"));
    assert_eq!(scene.contents(), before);
    // Nor is the raw dataset needed for that.
    let raw = scene.path("nnUNet_raw");
    fs::rename(&raw, scene.path("elsewhere")).unwrap();
    let output = run(&mut train(&scene, &results, &["--continue"]));
    assert!(said(&output).0.contains("already validated"));
    fs::rename(scene.path("elsewhere"), &raw).unwrap();

    // A prediction of another making is made anew, and the summary with it.
    let validation = at.join("validation");
    let predictions = || {
        let files = fs::read_dir(&validation).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|e| e == "gz")).collect::<Vec<_>>()
    };
    let [first, ..] = &predictions()[..] else { panic!("no prediction") };
    let good = fs::read(first).unwrap();
    let labels = nifti::read_labelmap(first).unwrap();
    nifti::write_labelmap(first, &labels, 2).unwrap();
    fs::write(validation.join("summary.json"), "another run's").unwrap();
    let output = run(&mut train(&scene, &results, &["--continue"]));
    assert!(said(&output).0.contains("foreground Dice"));
    assert!(fs::read(first).unwrap() == good, "the prediction is the same again");
    assert!(fs::read_to_string(validation.join("summary.json")).unwrap() == summary);

    // What an earlier run left is not taken for that of a new one.
    for name in [FINAL, BEST] {
        fs::rename(at.join(name), scene.path(name)).unwrap();
    }
    let refused = train(&scene, &results, &more).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let (_, err) = said(&refused);
    assert!(err.contains("expected a new run, found model of another one"), "{err}");
    for name in [FINAL, BEST] {
        fs::rename(scene.path(name), at.join(name)).unwrap();
    }

    // In every form it predicts the same labels; the files say which arithmetic they were made with.
    let read = |path: &Path| nifti::read_labelmap(path).unwrap();
    let input = scene.path(&format!("nnUNet_raw/{DATASET}/imagesTr/a_0000.nii"));
    let mut seen = Vec::new();
    for form in ["plain", "network.model", "half"] {
        let (model, labels) = (scene.path(form), scene.path(&format!("{form}.nii")));
        let half: &[&str] = if form == "half" { &["--half"] } else { &[] };
        let mut export = Command::new(STUNET);
        run(export.arg("export").arg(&at).arg(&model).args(half));
        run(Command::new(STUNET).args(common::predict_arguments(&input, &labels, &model)));
        seen.push(read(&labels));
        says_how_its_images_ran(&model);
    }
    assert!(seen[0] == seen[1], "the .model predicts other labels than the model folder");
    // As nnU-Net keeps it: a results folder with plans, dataset and fold.
    run(Command::new(STUNET).arg("export").arg(&at).arg(at.join("checkpoint_final.pth")));
    let (folder, labels) = (at.parent().unwrap(), scene.path("results.nii"));
    let arguments = common::predict_arguments(&input, &labels, folder);
    run(Command::new(STUNET).args(arguments).args(["--accumulation", "f32"]));
    assert!(seen[0] == read(&labels), "the .pth predicts other labels");
    says_how_its_images_ran(folder);
}

/// What `stunet plan` has noted goes through training and every export.
fn says_how_its_images_ran(model: &Path) {
    let (out, _) = said(&Command::new(STUNET).arg("info").arg(model).output().unwrap());
    assert!(out.contains("axes of training images     RAS"), "{}: {out}", model.display());
}

#[test]
fn a_loss_that_is_no_number_is_told_with_step_and_cases() {
    let scene = dataset();
    let more = [&TINY[..], &["--lr", "1e30"]].concat();
    let output = train(&scene, &scene.path("results"), &more).output().unwrap();
    let (_, err) = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(err.trim_end().lines().count(), 1, "{err}");
    let expected = ["at epoch 0, iteration ", ", cases ", "; last good checkpoint: none"];
    for words in expected {
        assert!(err.contains(words), "{err}");
    }
}

/// Two devices that share every batch learn what one does; a processor stands for both.
#[test]
fn several_devices_share_every_batch() {
    let scene = dataset();
    // A batch Dice is of each device's own share.
    let file = scene.path(&format!("nnUNet_preprocessed/{DATASET}/nnUNetPlans.json"));
    let mut plans: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    plans["configurations"][CONFIGURATION]["batch_dice"] = false.into();
    fs::write(&file, plans.to_string()).unwrap();
    let last_loss = |name: &str, more: &[&str]| {
        let results = scene.path(name);
        let short = ["--width", "2,2,3,3,4,4", "--epochs", "2", "--iterations", "4"];
        let both = ["--batch-size", "2", "--val-iterations", "1", "--no-validation"];
        run(&mut train(&scene, &results, &[&short[..], &both[..], more].concat()));
        let checkpoint = TrainingCheckpoint::open(&fold(&results).join(FINAL)).unwrap();
        checkpoint.state().progress.history.last().unwrap().train_loss
    };
    let [one, two] = [last_loss("one", &[]), last_loss("two", &["--devices", "cpu,cpu"])];
    assert!((one / two - 1.0).abs() < 1e-4, "{one} {two}");
}

#[test]
fn one_line_for_every_kind_of_bad_input() {
    let scene = dataset();
    let results = scene.path("results");
    let prepared = scene.path(&format!("nnUNet_preprocessed/{DATASET}"));
    let check = |arguments: &[&str], expected: &str| {
        let output = Command::new(STUNET).args(arguments).output().unwrap();
        let (out, err) = said(&output);
        assert!(!output.status.success(), "{arguments:?}: {out}");
        assert_eq!(err.trim_end().lines().count(), 1, "{err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
        assert!(!results.exists(), "nothing is written");
    };
    let (data, results_text) = (prepared.to_str().unwrap(), results.to_str().unwrap());
    let with = |data: &str, configuration: &str, fold: &str, more: &[&str], expected: &str| {
        let mut fixed = vec!["train", data, configuration, fold, "-o", results_text];
        if !more.contains(&"--devices") {
            fixed.extend(["--device", "cpu"]);
        }
        check(&[&fixed[..], more].concat(), expected);
    };
    let raw = scene.path(&format!("nnUNet_raw/{DATASET}"));
    let empty = scene.path("empty");
    fs::create_dir(&empty).unwrap();
    with("absent", CONFIGURATION, "0", &[], "no such file or folder: absent");
    with(raw.to_str().unwrap(), CONFIGURATION, "0", &[], "run `stunet plan ");
    with(empty.to_str().unwrap(), CONFIGURATION, "0", &[], "run `stunet plan`");
    with(data, "3d_lowres", "0", &[], "expected one of 3d_fullres, found 3d_lowres");
    with(data, CONFIGURATION, "first", &[], "a number or `all`");
    with(data, CONFIGURATION, "0", &["--width", "2,2"], "six numbers");
    with(data, CONFIGURATION, "0", &["--width", "2,2,2,2,2,0"], "width: expected 1 to");
    with(data, CONFIGURATION, "0", &["--patch", "8", "16", "17"], "multiples of [8, 8, 16]");
    with(data, CONFIGURATION, "0", &["--epochs", "0"], "epochs: expected at least 1");
    with(data, CONFIGURATION, "0", &["--lr", "0"], "learning rate: expected above 0");
    with(data, CONFIGURATION, "0", &["--ema", "1.5"], "--ema: expected 0 to below 1");
    let shared = &["--devices", "cpu,cpu", "--batch-size", "3"];
    with(data, CONFIGURATION, "0", shared, "a multiple of the 2 devices, found 3");
    with(data, CONFIGURATION, "0", &["--devices", "cpu,abacus"], "found \"abacus\"");
    with(data, CONFIGURATION, "0", &["--continue"], "expected a checkpoint to go on from");
    let text = scene.file("weights.pth", b"not weights");
    with(data, CONFIGURATION, "0", &["--pretrained", text.to_str().unwrap()], "weights.pth");
    // A case that is missing, and the command that makes it.
    let store = store(&scene);
    fs::remove_file(store.join("c.safetensors")).unwrap();
    with(data, CONFIGURATION, "0", &[], "1 missing, such as c; run `stunet preprocess ");
    fs::remove_dir_all(&store).unwrap();
    with(data, CONFIGURATION, "0", &[], "run `stunet preprocess ");
}

#[test]
fn a_run_is_neither_overwritten_nor_continued_with_other_settings() {
    let scene = dataset();
    let results = scene.path("results");
    run(&mut train(&scene, &results, &TINY));
    let check = |more: &[&str], expected: &str| {
        let before = scene.contents();
        let output = train(&scene, &results, more).output().unwrap();
        let (_, err) = said(&output);
        assert!(!output.status.success() && err.contains(expected), "{err}");
        assert_eq!(err.trim_end().lines().count(), 1, "{err}");
        assert_eq!(scene.contents(), before);
    };
    check(&TINY, "go on with --continue, or remove it");
    check(&["--continue", "--lr", "0.5"], "--lr: expected 0.01, as the run was started with");
    check(&["--continue", "--epochs", "7"], "--epochs: expected 8 or more");
    // A checkpoint with one byte changed.
    let file = fold(&results).join(FINAL);
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    check(&["--continue"], "corrupt");
}

#[test]
fn pretrained_weights_are_carried_over_and_said() {
    let scene = dataset();
    let results = scene.path("results");
    let short = ["--width", "2,2,3,3,4,4", "--epochs", "1", "--iterations", "2", "--no-validation"];
    run(&mut train(&scene, &results, &short));
    let pretrained = fold(&results).join(FINAL);
    let text = pretrained.to_str().unwrap();
    let more = ["--pretrained", text, "--epochs", "1", "--iterations", "1", "--no-validation"];
    let output = run(&mut train(&scene, &results, &more));
    let (out, _) = said(&output);
    assert!(out.contains("10 of the heads initialised"), "{out}");
    let model = format!("STUNetTrainer_custom_ft__nnUNetPlans__{CONFIGURATION}");
    let at = results.join(DATASET).join(model).join("fold_0");
    let log = fs::read_to_string(at.join("training_log.jsonl")).unwrap();
    // Fine-tuning begins with a tenth of the learning rate.
    assert!(log.contains("\"lr\":0.001"), "{log}");

    // The heads as well: for the same labels.
    let kept = scene.path("kept");
    let mut keep = more.to_vec();
    keep.push("--keep-heads");
    let (out, _) = said(&run(&mut train(&scene, &kept, &keep)));
    assert!(out.contains("carried over, the heads among them"), "{out}");
    let checkpoint = TrainingCheckpoint::open(&pretrained).unwrap();
    let mut state = checkpoint.state().clone();
    let labels = state.run["about"]["labels"].to_string();
    let renamed = labels.replace("\"box\"", "\"tumour\"");
    assert_ne!(renamed, labels);
    state.run["about"]["labels"] = serde_json::from_str(&renamed).unwrap();
    let weights = checkpoint.read_all(Group::Weights).unwrap();
    let other = scene.path("other.safetensors");
    stunet::train::checkpoint::save(&other, &state, &[(Group::Weights, weights)]).unwrap();
    keep[1] = other.to_str().unwrap();
    let output = train(&scene, &scene.path("refused"), &keep).output().unwrap();
    let (_, err) = said(&output);
    let lists = "expected 2 labels (background, box), found 2 labels (background, tumour); ";
    assert!(!output.status.success() && err.contains(lists), "{err}");
    keep[1] = text;
    keep.push("--continue");
    let (out, _) = said(&run(&mut train(&scene, &kept, &keep)));
    assert!(out.contains(", complete"), "{out}");

    // Weights to begin with may not lie where the run would write its own.
    for name in [FINAL, BEST, LATEST] {
        let _ = fs::remove_file(at.join(name));
    }
    let before = scene.contents();
    let model = at.join("model");
    let more = ["--pretrained", model.to_str().unwrap(), "--epochs", "1", "--no-validation"];
    let output = train(&scene, &results, &more).output().unwrap();
    let (_, err) = said(&output);
    assert!(!output.status.success() && err.contains("found model of another one"), "{err}");
    assert_eq!(scene.contents(), before);
    // An export does not replace the checkpoint that it reads.
    let named = scene.path("run.model");
    fs::copy(&pretrained, &named).unwrap();
    let mut export = Command::new(STUNET);
    let output = export.arg("export").arg(&named).arg(&named).output().unwrap();
    let (_, err) = said(&output);
    assert!(!output.status.success() && err.contains("OUT: would overwrite the input"), "{err}");
    assert!(fs::read(&named).unwrap() == fs::read(&pretrained).unwrap());
}

#[test]
fn a_validation_case_that_is_not_in_the_raw_dataset_is_named() {
    let scene = dataset();
    let results = scene.path("results");
    let short = ["--width", "2,2,3,3,4,4", "--epochs", "1", "--iterations", "2", "--no-validation"];
    run(&mut train(&scene, &results, &short));
    let checkpoint = TrainingCheckpoint::open(&fold(&results).join(FINAL)).unwrap();
    let cases = checkpoint.state().run["settings"]["validation_cases"].clone();
    let gone = cases[0].as_str().unwrap();
    let raw = scene.path(&format!("nnUNet_raw/{DATASET}"));
    fs::remove_file(raw.join(format!("imagesTr/{gone}_0000.nii"))).unwrap();
    let description = fs::read_to_string(raw.join("dataset.json")).unwrap();
    fs::write(
        raw.join("dataset.json"),
        description.replace("\"numTraining\":6", "\"numTraining\":5"),
    )
    .unwrap();
    let output = train(&scene, &results, &["--continue"]).output().unwrap();
    let (_, err) = said(&output);
    let missing = format!("found 1 missing, such as {gone}");
    assert!(!output.status.success() && err.contains(&missing), "{err}");
    assert!(!fold(&results).join("validation").exists(), "a mean over some of the cases");
}

#[test]
fn a_training_is_watched_without_a_terminal() {
    let scene = dataset();
    let results = scene.path("watched");
    let runs = scene.path("runs");
    let events = format!("--tensorboard={}", runs.display());
    let output = run(&mut train(&scene, &results, &[&TINY[..], &["--watch", &events]].concat()));
    let (stdout, stderr) = said(&output);
    assert!(stderr.starts_with("stunet: --watch: standard output is no terminal"), "{stderr}");
    assert_eq!(stdout.lines().filter(|line| line.starts_with("epoch ")).count(), 8, "{stdout}");
    assert!(!stdout.contains('\u{1b}'));
    // One file of events, in the folder of its fold.
    let home = fold(&runs);
    let files: Vec<_> = fs::read_dir(&home).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(files.len() == 1 && files[0].to_string_lossy().contains("tfevents"), "{files:?}");
    let bytes = fs::read(&files[0]).unwrap();
    let tag = b"pseudo_dice/moving_average";
    let epochs = bytes.windows(tag.len()).filter(|found| found == tag).count();
    assert_eq!(epochs, 8);
    // The log of a run that has ended, by its folder and by that of all folds.
    for folder in [fold(&results), fold(&results).parent().unwrap().to_owned()] {
        let output = run(Command::new(STUNET).arg("watch").arg(folder));
        let (stdout, _) = said(&output);
        assert_eq!(stdout.lines().filter(|line| line.starts_with("epoch ")).count(), 8, "{stdout}");
        assert!(stdout.ends_with("8 of 8 epochs, finished\n"), "{stdout}");
    }
    fs::create_dir(scene.path("none")).unwrap();
    let output = Command::new(STUNET).arg("watch").arg(scene.path("none")).output().unwrap();
    common::assert_one_line(&output, &["expected the folder of a fold", "none"]);
}
