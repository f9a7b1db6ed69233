//! The committed demo model segments phantoms it has never seen as well as its record says.
#![allow(clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_methods)]

#[path = "../examples/common/mod.rs"]
mod common;

use common::demo;
use common::phantoms::{dice, mean, phantom};
use std::ops::ControlFlow;
use stunet::data::dataset::RawDataset;
use stunet::infer::{Model, OpenOptions, PredictOptions, predict};
use stunet_testing::phantom::{DatasetOptions, ScanOptions, write_dataset};

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
        let case_truth = phantom(seed, &ScanOptions::default(), &demo::STRUCTURES).unwrap();
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
    let names = ["network.json", "plans.json", "labels.json", "weights.safetensors"];
    let files = names.map(|name| (name, std::fs::read(demo::folder().join(name)).unwrap()));
    let models = [Model::open(&demo::folder(), &options), Model::from_files(files, &options)];
    let models = models.map(Result::unwrap);
    assert!(models[0].digest().is_some());
    assert_eq!(models[0].digest(), models[1].digest());
    let case = phantom(demo::TEST_SEEDS.start, &coarse(false), &demo::STRUCTURES).unwrap();
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

#[test]
fn the_picture_shows_the_labels_where_they_are() {
    let case = phantom(1, &coarse(false), &["liver", "spleen"]).unwrap();
    let turned = phantom(1, &coarse(true), &["liver", "spleen"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let draw = |case: &common::phantoms::PhantomCase| {
        let path = folder.path().join("slices.png");
        common::overlay::write(&path, &case.image, &[&case.truth]).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width as usize, info.height as usize, pixels)
    };
    let (width, height, pixels) = draw(&case);
    // Axial, coronal and sagittal slice side by side, none higher than the body is long.
    let mm = case.image.geometry.spacing_mm();
    let long: Vec<f64> =
        case.image.geometry.shape().iter().zip(mm).map(|(n, mm)| *n as f64 * mm / 1.5).collect();
    assert!((height as f64 - long[0].max(long[1])).abs() <= 2.0);
    assert!((width as f64 - (2.0 * long[2] + long[1] + 12.0)).abs() <= 4.0);
    // In the axial slice the liver's colour lies left of the spleen's: the patient's right.
    let centre = |label: u16| {
        let [r, g, b] = common::overlay::colour(label).map(|c| c > 0.5);
        let (mut sum, mut count) = (0, 0);
        for (i, pixel) in pixels.chunks_exact(3).enumerate() {
            let grey = (i32::from(pixel[0]) + i32::from(pixel[1]) + i32::from(pixel[2])) / 3;
            let like = |value: u8, bright: bool| (i32::from(value) > grey) == bright;
            let tinted = pixel.iter().any(|v| (i32::from(*v) - grey).abs() > 30);
            if i % width < long[2] as usize
                && tinted
                && like(pixel[0], r)
                && like(pixel[1], g)
                && like(pixel[2], b)
            {
                sum += i % width;
                count += 1;
            }
        }
        assert!(count > 20, "label {label} is not in the picture");
        sum / count
    };
    assert!(centre(1) < centre(2));
    // However the axes are stored, the picture is the same but for rounding.
    let (w, h, _) = draw(&turned);
    assert!(w.abs_diff(width) <= 4 && h.abs_diff(height) <= 4, "{w}×{h}, {width}×{height}");
}

#[test]
fn a_folder_of_phantoms_is_a_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let structures = ["pancreas", "liver"];
    // Stored in any order of axes, as files are.
    let options = DatasetOptions { seeds: 6..9, scan: coarse(true), structures: &structures };
    write_dataset(folder.path(), &options).unwrap();
    let dataset = RawDataset::open(folder.path()).unwrap();
    assert!(dataset.check(&|_| ()).is_empty());
    assert_eq!(dataset.info().labels, common::phantoms::label_set(&structures).unwrap());
    assert_eq!(dataset.cases().len(), options.seeds.clone().count());
    for (seed, files) in options.seeds.zip(dataset.cases()) {
        let (image, labels) = files.read(dataset.info()).unwrap();
        let expected = phantom(seed, &options.scan, &structures).unwrap();
        assert_eq!(image.data, expected.image.data);
        assert_eq!(labels.data, expected.truth.data);
        image.geometry.check_same_grid(&expected.image.geometry).unwrap();
        assert!((1..=2).all(|label| labels.data.iter().any(|v| *v == label)), "seed {seed}");
    }
}

fn coarse(turn_axes: bool) -> ScanOptions {
    let region = Some(stunet_testing::phantom::Region::Abdomen);
    ScanOptions { region, in_plane_mm: [4.0; 2], slice_mm: [5.0; 2], turn_axes }
}
