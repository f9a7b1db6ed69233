//! The committed demo model segments phantoms it has never seen as well as its record says.
#![allow(clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_methods)]

#[path = "../examples/common/mod.rs"]
mod common;

use common::demo;
use common::pictures;
use common::scores::{dice, mean};
use std::ops::ControlFlow;
use stunet::data::dataset::RawDataset;
use stunet::infer::{Model, OpenOptions, PredictOptions, predict};
use stunet_phantom::{
    BodyPart, DatasetOptions, PhantomCase, ScanOptions, label_set, write_dataset,
};

/// Half precision of the weights is on both sides; other machines round sums in another order.
const TOLERANCE: f64 = 0.01;

fn record() -> serde_json::Value {
    let text = std::fs::read_to_string(demo::folder().join("dice.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn held_out_phantoms_are_segmented_as_recorded() {
    let record = record();
    let device = stunet::device::parse("cpu").unwrap();
    let model = Model::open(&demo::folder(), &OpenOptions::new(&device)).unwrap();
    let recorded = record["cases"].as_array().unwrap();
    // Two of the cases: each takes seconds.
    for case in recorded.iter().take(2) {
        let seed = case["seed"].as_u64().unwrap();
        assert!(demo::TEST_SEEDS.contains(&seed));
        let case_truth = PhantomCase::of(seed, &ScanOptions::default(), &demo::STRUCTURES);
        let options = PredictOptions { mirror: false, ..PredictOptions::default() };
        let mut ignore = |_| ControlFlow::Continue(());
        let found = predict(&model, &case_truth.image, &options, &mut ignore).unwrap();
        let scores = dice(&case_truth.truth, &found.labelmap.to_labelmap(), demo::STRUCTURES.len());
        assert_eq!(scores.len(), demo::STRUCTURES.len());
        for (name, score) in demo::STRUCTURES.iter().zip(&scores) {
            let expected = case["dice"][name].as_f64();
            match (expected, score) {
                (Some(expected), Some(found)) => assert!(
                    (expected - found).abs() < TOLERANCE,
                    "seed {seed}: {name}: recorded {expected:.3}, found {found:.3}"
                ),
                (expected, found) => assert_eq!(expected, *found, "seed {seed}: {name}"),
            }
        }
    }
}

/// As a web page or a database has it.
#[test]
fn from_memory_it_is_the_same_model() {
    let options = OpenOptions::new(&stunet::device::parse("cpu").unwrap());
    let files = stunet_phantom::demo::files().map(|(name, bytes)| (name, bytes.to_vec()));
    let models = [Model::open(&demo::folder(), &options), Model::from_files(files, &options)];
    let models = models.map(Result::unwrap);
    // By it the program knows the demo model, whose pictures carry a warning.
    assert_eq!(models[0].digest(), Some(demo::DIGEST));
    assert_eq!(models[0].digest(), models[1].digest());
    let case = PhantomCase::of(demo::TEST_SEEDS.start, &coarse(false), &demo::STRUCTURES);
    let [disk, memory] = models.map(|model| {
        let go_on = &mut |_| ControlFlow::Continue(());
        predict(&model, &case.image, &PredictOptions::default(), go_on).unwrap().labelmap
    });
    assert!(disk.to_labelmap().data.iter().any(|label| *label > 0));
    assert_eq!(disk, memory);
}

#[test]
fn the_record_is_good_and_consistent() {
    let record = record();
    let cases = record["cases"].as_array().unwrap();
    assert_eq!(cases.len(), demo::TEST_SEEDS.count());
    let all =
        cases.iter().flat_map(|case| demo::STRUCTURES.map(|name| case["dice"][name].as_f64()));
    let overall = mean(all);
    assert!((overall - record["mean"].as_f64().unwrap()).abs() < 1e-6);
    assert!(overall >= 0.85, "{overall}");
}

#[test]
fn seeds_of_training_and_test_differ() {
    let test = demo::TEST_SEEDS;
    for other in [demo::TRAINING_SEEDS, demo::VALIDATION_SEEDS] {
        assert!(test.end <= other.start || other.end <= test.start);
    }
}

#[test]
fn the_folder_is_small() {
    let bytes: u64 = std::fs::read_dir(demo::folder())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes < 4_500_000, "{bytes} bytes");
    let weights = std::fs::metadata(demo::folder().join("weights.safetensors")).unwrap().len();
    assert!(weights <= 4_000_000, "{weights} bytes of weights");
}

/// `stunet-pictures` tests what is in it.
#[test]
fn the_picture_has_one_size_however_the_axes_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |turn_axes: bool| {
        let case = PhantomCase::of(1, &coarse(turn_axes), &["liver", "spleen"]);
        let path = folder.path().join("preview.png");
        let set = label_set(&["liver", "spleen"]).unwrap();
        let words = Default::default();
        let labels = (&case.truth, &set);
        pictures::write(&path, &case.image, labels, Some(&case.truth), &words).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
        let reader = png::Decoder::new(file).read_info().unwrap();
        (reader.info().width, reader.info().height)
    };
    let (width, height) = draw(false);
    assert_eq!(width, 1200);
    assert!(height > 800, "{height}");
    // Another field of view is drawn with the turn.
    let (width, turned) = draw(true);
    assert!(width == 1200 && turned.abs_diff(height) < 60, "{turned}, {height}");
}

/// The binary holds the model that is in the folder.
#[test]
fn the_embedded_files_are_the_folders() {
    for (name, bytes) in stunet_phantom::demo::files() {
        assert!(std::fs::read(demo::folder().join(name)).unwrap() == bytes, "{name}");
    }
}

#[test]
fn a_folder_of_phantoms_is_a_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let structures = ["pancreas", "liver"];
    // Stored in any order of axes, as files are.
    let options = DatasetOptions { seeds: 6..9, scan: coarse(true), structures: &structures };
    write_dataset(folder.path(), &options, &mut |_| ()).unwrap();
    let dataset = RawDataset::open(folder.path()).unwrap();
    assert!(dataset.check(&|_| ()).is_empty());
    assert_eq!(dataset.info().labels, label_set(&structures).unwrap());
    assert_eq!(dataset.cases().len(), options.seeds.clone().count());
    for (seed, files) in options.seeds.zip(dataset.cases()) {
        let (image, labels) = files.read(dataset.info()).unwrap();
        let expected = PhantomCase::of(seed, &options.scan, &structures);
        assert_eq!(image.data, expected.image.data);
        assert_eq!(labels.data, expected.truth.data);
        image.geometry.check_same_grid(&expected.image.geometry).unwrap();
        assert!((1..=2).all(|label| labels.data.iter().any(|v| *v == label)), "seed {seed}");
    }
}

fn coarse(turn_axes: bool) -> ScanOptions {
    let region = Some(BodyPart::Abdomen);
    ScanOptions { region, in_plane_mm: [4.0; 2], slice_mm: [5.0; 2], turn_axes }
}
