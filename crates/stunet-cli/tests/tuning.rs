//! Fine-tuning through the binary: other channels and classes, frozen parts, low-rank factors, variants
//! of the recipe, and runs that become longer.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::boxes::{CONFIGURATION, DATASET, dataset};
use common::{STUNET, Scene, said};
use serde_json::Value;
use stunet::data::labels::LabelSet;
use stunet::model::weights::folder;
use stunet::model::{Initialisation, StuNetConfig};
use stunet::train::checkpoint::{FINAL, Group, LATEST, TrainingCheckpoint};

const WIDTH: [&str; 2] = ["--width", "2,2,3,3,4,4"];

/// The command of a short run.
fn train(scene: &Scene, results: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(STUNET);
    command.arg("train").arg(scene.path(&format!("nnUNet_preprocessed/{DATASET}")));
    command.args([
        CONFIGURATION,
        "0",
        "--threads",
        "2",
        "--device",
        "cpu",
        "--no-validation",
        "-o",
    ]);
    command.arg(results).args(more);
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = said(&output);
    assert!(output.status.success(), "{err}");
    out
}

fn refused(output: &Output, words: &str) {
    let (out, err) = said(output);
    assert!(!output.status.success(), "{out}");
    assert_eq!(err.trim_end().lines().count(), 1, "{err}");
    assert!(err.contains(words), "{err}");
}

/// What clap itself refuses, in its own words.
fn mistyped(output: &Output, words: &str) {
    let (_, err) = said(output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains(words), "{err}");
}

fn short<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--epochs", "1", "--iterations", "2", "--val-iterations", "1"], more].concat()
}

/// The only fold under a folder of results.
fn fold(results: &Path) -> PathBuf {
    let entries = fs::read_dir(results.join(DATASET)).unwrap();
    let found: Vec<_> = entries.map(|entry| entry.unwrap().path().join("fold_0")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// Weights of a network, with labels where there are names for them.
fn weights(scene: &Scene, name: &str, channels: usize, labels: &[&str]) -> PathBuf {
    let strides = run_strides(scene);
    let config = StuNetConfig { strides, ..StuNetConfig::small(channels, labels.len()) };
    let config = config.with_width([2, 2, 3, 3, 4, 4]);
    let device = stunet::device::parse("cpu").unwrap();
    let network = config.init_seeded(Initialisation::NnUNetV1, 1, &device).unwrap();
    let path = scene.path(name);
    folder::save(&path, &config, &mut network.source(), Default::default(), Default::default())
        .unwrap();
    LabelSet::from_names(labels.iter().copied()).unwrap().save(&path.join("labels.json")).unwrap();
    path
}

/// The strides that runs of the dataset have.
fn run_strides(scene: &Scene) -> [[usize; 3]; 5] {
    let results = scene.path("for_strides");
    if !results.is_dir() {
        run(&mut train(scene, &results, &short(&WIDTH)));
    }
    let checkpoint = TrainingCheckpoint::open(&fold(&results).join(FINAL)).unwrap();
    checkpoint.state().config.strides
}

fn tensors(results: &Path, group: Group) -> BTreeMap<String, Vec<u8>> {
    let checkpoint = TrainingCheckpoint::open(&fold(results).join(FINAL)).unwrap();
    let all = checkpoint.read_all(group).unwrap().into_iter();
    all.map(|(name, data)| (name, data.as_bytes().to_vec())).collect()
}

#[test]
fn other_channels_and_classes_are_told_in_a_table() {
    let scene = dataset();
    let file = weights(&scene, "weights", 2, &["background", "tumour", "box"]);
    let text = file.to_str().unwrap();
    let results = scene.path("results");
    let more = ["--pretrained", text, "--stem", "average", "--heads", "by-name"];
    let out = run(&mut train(&scene, &results, &short(&more)));
    for words in [
        "the heads by name for 2 of 2 outputs",
        "part          taken  adapted    new",
        "stem              0        2      0  for 2 channels averaged for 1",
        "heads             0       10      0  by name, 2 of 2 outputs",
        "left out of the file: nothing",
        "heads taken: background, box; new: none",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    let again =
        |more: &[&str]| train(&scene, &scene.path("refused"), &short(more)).output().unwrap();
    mistyped(&again(&["--stem", "average"]), "--pretrained");
    refused(
        &again(&["--pretrained", text, "--heads", "keep"]),
        "heads can be kept for the same labels only",
    );
    refused(
        &again(&["--pretrained", text, "--freeze", "heads"]),
        "decoder.heads.0.weight, which begins with",
    );
    mistyped(
        &again(&["--pretrained", text, "--freeze", "neck"]),
        "expected encoder, stage0 to stage5",
    );
    refused(
        &again(&["--pretrained", text, "--lora", "2"]),
        "rank of the adapters: expected below 2",
    );
    let stem = ["--pretrained", text, "--stem", "new", "--freeze", "stage0"];
    refused(&again(&stem), "encoder.stages.0.0.conv1.weight, which begins with random values");
}

#[test]
fn frozen_parts_and_low_rank_factors_go_on() {
    let scene = dataset();
    let file = weights(&scene, "weights", 1, &["background", "box"]);
    let text = file.to_str().unwrap();
    let device = stunet::device::parse("cpu").unwrap();
    let (before, _) = folder::open(&file).unwrap().load(&device).unwrap();
    let mut source = before.source();
    let config = before.config();
    for (name, more, what) in [
        ("frozen", vec!["--freeze", "encoder,decoder3..4"], "frozen: encoder,decoder3..4"),
        (
            "low rank",
            vec!["--lora", "1", "--lora-alpha", "4", "--lr", "0.1"],
            "low-rank factors of rank 1, alpha 4",
        ),
    ] {
        let results = scene.path(name);
        let begin = [&["--pretrained", text], &more[..]].concat();
        let out = run(&mut train(&scene, &results, &short(&begin)));
        assert!(out.contains(what) && out.contains("trained: "), "{out}");
        // Longer, with the settings of the checkpoint alone.
        let out = run(&mut train(&scene, &results, &["--continue", "--epochs", "3"]));
        assert!(out.contains(what), "{out}");
        let mut other =
            train(&scene, &results, &["--continue", "--pretrained", text, "--freeze", "decoder"]);
        refused(&other.output().unwrap(), "--freeze: expected ");
        let (weights, momentum) =
            (tensors(&results, Group::Weights), tensors(&results, Group::Momentum));
        let factors = tensors(&results, Group::LowRank);
        assert_eq!(factors.is_empty(), name == "frozen");
        for spec in config.parameter_specs() {
            use stunet::model::ParameterSource;
            let same = weights[&spec.name] == source.parameter(&spec).unwrap().as_bytes();
            let trained = match name {
                "frozen" => {
                    spec.name.contains("heads")
                        || (spec.name.starts_with("decoder") && spec.stage < 3)
                }
                _ => spec.name.contains("heads") || spec.name.contains("norm"),
            };
            assert!(
                trained || (same && !momentum.contains_key(&spec.name)),
                "{name}: {}",
                spec.name
            );
        }
        // The model needs to know of nothing.
        let model = folder::open(&fold(&results).join("model")).unwrap();
        assert_eq!(model.config(), &StuNetConfig { num_classes: 2, ..config.clone() });
        let (model, _) = model.load(&device).unwrap();
        assert!(!model.is_adapted());
        let checkpoint = TrainingCheckpoint::open(&fold(&results).join(FINAL)).unwrap();
        let mut merged = checkpoint.merged(Group::Weights);
        let mut kept = model.source();
        for spec in config.parameter_specs() {
            use stunet::model::ParameterSource;
            let [a, b] = [merged.parameter(&spec).unwrap(), kept.parameter(&spec).unwrap()];
            assert!(a.as_bytes() == b.as_bytes(), "{name}: {}", spec.name);
        }
    }
}

#[test]
fn variants_of_the_recipe_are_settings_of_the_run() {
    let scene = dataset();
    for (index, more) in [
        vec!["--loss", "dice-topk10", "--optimizer", "adamw", "--schedule", "cosine"],
        vec!["--loss", "topk10-ls01", "--layer-decay", "0.8", "--lr-factor", "stage0=0.5,heads=2"],
        vec!["--trainer", "nnUNetTrainerDiceCELoss_noSmooth"],
        vec!["--trainer", "nnUNetTrainerAdam3en4"],
        vec!["--trainer", "nnUNetTrainer_warmup", "--warmup", "1"],
    ]
    .into_iter()
    .enumerate()
    {
        let results = scene.path(&format!("results_{index}"));
        let begin = ["--epochs", "3", "--iterations", "2", "--val-iterations", "1"];
        run(&mut train(&scene, &results, &[&WIDTH[..], &begin, &more].concat()));
        let checkpoint = TrainingCheckpoint::open(&fold(&results).join(FINAL)).unwrap();
        let identity = checkpoint.state().identity.clone().unwrap();
        let rates: Vec<f64> = checkpoint.state().progress.history.iter().map(|r| r.lr).collect();
        let check = |text: &str, words: &str| assert!(text.contains(words), "{text}");
        match index {
            0 => {
                check(
                    &identity.objective,
                    "Dice and largest 10.0 % of the cross-entropies of nnU-Net 2",
                );
                check(&identity.optimiser, "AdamW, weight decay 3e-5");
                check(&identity.schedule, "cosine annealing");
                assert!((rates[1] - 0.75 * 3e-4).abs() < 1e-12, "{rates:?}");
            }
            1 => {
                check(&identity.objective, "label smoothing 0.1");
                check(
                    &identity.optimiser,
                    "rate times 0.8 per stage towards the image, times 0.5 in stage0",
                );
            }
            2 => check(&identity.objective, "smooth 0.0"),
            3 => {
                check(&identity.optimiser, "AdamW with AMSGrad");
                assert_eq!(rates[0], 3e-4);
            }
            _ => {
                check(&identity.schedule, "linear warm-up of 1 epochs, then polynomial decay");
                assert_eq!((rates[0], rates[1]), (0.01, 0.01));
            }
        }
        if index == 0 {
            let go_on = |more: &[&str]| {
                let more = [&["--continue"], more].concat();
                train(&scene, &results, &more).output().unwrap()
            };
            let expected =
                "--loss: expected \"dice-topk10\", as the run was started with, found \"ce\"";
            refused(&go_on(&["--loss", "ce"]), expected);
            refused(&go_on(&["--optimizer", "sgd"]), "--optimizer: expected \"adamw\"");
            assert!(go_on(&["--loss", "dice-topk10"]).status.success());
        }
    }
    let refuse = |more: &[&str], words: &str| {
        let begin = [&WIDTH[..], &["--epochs", "3"], more].concat();
        refused(&train(&scene, &scene.path("refused"), &begin).output().unwrap(), words);
    };
    refuse(&["--warmup", "3"], "--warmup: expected fewer than the 3 epochs of the run, found 3");
    let begin = [&WIDTH[..], &["--lr-factor", "neck=1"]].concat();
    let output = train(&scene, &scene.path("refused"), &begin).output().unwrap();
    mistyped(&output, "expected PART=FACTOR");
}

/// Weights, momentum and rates of a run that became longer, however often it was stopped.
#[test]
fn a_run_becomes_longer() {
    let scene = dataset();
    let begin = ["--epochs", "2", "--iterations", "3", "--val-iterations", "1"];
    let begin = [&WIDTH[..], &begin].concat();
    let longer = ["--continue", "--epochs", "5"];
    let rates = |results: &Path| -> Vec<f64> {
        let checkpoint = TrainingCheckpoint::open(&fold(results).join(FINAL)).unwrap();
        checkpoint.state().progress.history.iter().map(|record| record.lr).collect()
    };
    let poly = |initial: f64, epoch: f64, epochs: f64| initial * (1.0 - epoch / epochs).powf(0.9);
    let close = |found: &[f64], expected: &[f64]| {
        assert_eq!(found.len(), expected.len());
        assert!(
            found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12),
            "{found:?} {expected:?}"
        );
    };

    let straight = scene.path("straight");
    run(&mut train(&scene, &straight, &begin));
    let out = run(&mut train(&scene, &straight, &longer));
    let told = "5 epochs instead of 2, as if planned for them from the start: the learning rate was 5.36e-3 in \
                epoch 2, is 6.31e-3 in epoch 3 and 2.35e-3 in the last";
    assert!(out.contains(told), "{out}");
    assert!(out.contains("kept of the shorter run: model_epoch_2"), "{out}");
    let first = [0.01, poly(0.01, 1.0, 2.0)];
    let rest = [2.0, 3.0, 4.0].map(|epoch| poly(0.01, epoch, 5.0));
    close(&rates(&straight), &[&first[..], &rest].concat());
    let at = fold(&straight);
    assert!(
        at.join("model_epoch_2/network.json").is_file() && at.join("model/network.json").is_file()
    );
    assert!(!at.join(LATEST).exists());
    let settings: Value =
        serde_json::from_slice(&fs::read(at.join("debug.json")).unwrap()).unwrap();
    assert_eq!(settings["epochs"], 5);
    // Nothing more to do; and it cannot become shorter again.
    let out = run(&mut train(&scene, &straight, &longer));
    assert!(out.contains(", complete") && !out.contains("instead of"), "{out}");
    let shorter = train(&scene, &straight, &["--continue", "--epochs", "3"]).output().unwrap();
    refused(&shorter, "--epochs: expected 5 or more, as the run was started with, found 3");

    // Stopped on the way, it goes on from there to the same bits.
    #[cfg(unix)]
    {
        use std::io::{BufRead, BufReader};
        let stopped = scene.path("stopped");
        run(&mut train(&scene, &stopped, &begin));
        let mut child =
            train(&scene, &stopped, &longer).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().any(|line| line.unwrap().starts_with("epoch 3/5")));
        let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        lines.for_each(|line| drop(line.unwrap()));
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(!fold(&stopped).join(FINAL).exists(), "the end of the shorter run is put away");
        run(&mut train(&scene, &stopped, &["--continue"]));
        for group in [Group::Weights, Group::Momentum] {
            assert!(tensors(&stopped, group) == tensors(&straight, group), "{group:?}");
        }
    }

    // With a rate the schedule begins anew.
    let anew = scene.path("anew");
    run(&mut train(&scene, &anew, &begin));
    let out = run(&mut train(&scene, &anew, &["--continue", "--epochs", "4", "--lr", "0.002"]));
    assert!(
        out.contains("4 epochs instead of 2, with a new schedule: the learning rate was 5.36e-3"),
        "{out}"
    );
    let rest = [0.0, 1.0].map(|epoch| poly(0.002, epoch, 2.0));
    close(&rates(&anew), &[&first[..], &rest].concat());
    let out = run(&mut train(&scene, &anew, &["--continue", "--epochs", "4", "--lr", "0.002"]));
    assert!(out.contains(", complete"), "{out}");
    let other = train(&scene, &anew, &["--continue", "--lr", "0.01"]).output().unwrap();
    refused(&other, "--lr: expected 0.002, as the run was started with, found 0.01");
}
