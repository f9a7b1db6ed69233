//! Runs the examples of `examples/research`.
//!
//! An example has a `pub fn run(..) -> anyhow::Result<..>` that takes how much work to do and gives
//! figures that tell whether it worked, and a `main` that calls it and prints them. A test calls
//! `run` with less work and checks the figures. To add one: an `[[example]]` in `Cargo.toml`, a
//! `#[path]` module and a test here. At most 80 lines each, which the last test checks.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../examples/research/feature_extractor.rs"]
mod feature_extractor;
#[path = "../examples/research/own_augmentation.rs"]
mod own_augmentation;
#[path = "../examples/research/own_data.rs"]
mod own_data;
#[path = "../examples/research/own_loss.rs"]
mod own_loss;
#[path = "../examples/research/own_network.rs"]
mod own_network;
#[path = "../examples/research/own_schedule.rs"]
mod own_schedule;

#[test]
fn feature_extractor() {
    for (steps, frozen) in [(60, true), (20, false)] {
        let (first, last) = feature_extractor::run(steps, frozen).unwrap();
        assert!(last < 0.5 * first, "frozen: {frozen}, loss {first} -> {last}");
    }
}

#[test]
fn own_network() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ball.nii.gz");
    let [whole, divided] = own_network::run(48, &file).unwrap();
    assert_eq!(whole.report.memory.tiles.len(), 1);
    assert!(divided.report.memory.tiles.len() > 1, "{:?}", divided.report.memory);
    assert_eq!(whole.labelmap, divided.labelmap, "tiles do not change labels");
    let written = stunet::data::nifti::read_labelmap(&file).unwrap();
    assert_eq!(written, whole.labelmap.to_labelmap());
    // A ball of a quarter of the width.
    let found = written.data.iter().filter(|label| **label == 1).count() as f64;
    let expected = 4.0 / 3.0 * std::f64::consts::PI * 12f64.powi(3);
    assert!((found / expected - 1.0).abs() < 0.1, "{found} voxels, expected about {expected}");
}

/// A third of the patches has foreground for certain, and only what a patch needs is unpacked.
#[test]
fn own_data() {
    let (share, unpacked) = own_data::run(20).unwrap();
    assert!((0.33..1.0).contains(&share), "{share} of the patches have foreground");
    assert_eq!(unpacked, 40, "two patches of each batch, each from a case that is unpacked for it");
}

#[test]
fn own_loss() {
    let (first, last, dice) = own_loss::run(12).unwrap();
    assert!(last < 0.7 * first, "loss {first} -> {last}");
    assert!(dice > 0.8, "Dice {dice}");
}

/// Half of the patches have ghosts, the others are as they were.
#[test]
fn own_augmentation() {
    let differ = own_augmentation::run(20).unwrap();
    assert!((10..=30).contains(&differ), "{differ} of 40");
}

/// Cut off anywhere, the run ends as the one that was not.
#[test]
fn own_schedule() {
    let folder = || tempfile::tempdir().unwrap();
    let straight = own_schedule::run(folder().path(), None).unwrap();
    assert!(straight[3] < straight[0] - 0.2, "{straight:?}");
    for update in [1, 5, 7, 19] {
        assert_eq!(own_schedule::run(folder().path(), Some(update)).unwrap(), straight);
    }
}

/// Every example of the folder is run by this file, and is short.
#[test]
fn examples_are_run_and_short() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let this = std::fs::read_to_string(root.join("tests/research.rs")).unwrap();
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for entry in std::fs::read_dir(root.join("examples/research")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(this.contains(&format!("{name}::run(")), "{name} is not run");
        assert!(manifest.contains(&format!("examples/research/{name}.rs")), "{name}: Cargo.toml");
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 80, "{name}: expected at most 80 lines, found {lines}");
    }
}
