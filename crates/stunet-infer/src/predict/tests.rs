//! Whole predictions with a tiny network: geometry, modes, stored probabilities, interruption.

use super::*;
use burn::tensor::Device;
use ndarray::{Array4, ArrayD, Axis, Ix4};
use stunet_data::geometry::{Geometry, Orientation};
use stunet_data::labels::{Label, LabelSet};
use stunet_data::nifti::Reader;
use stunet_data::plans::{Plans, TrainedOrientation};
use stunet_model::{Initialisation, StuNetConfig};
use stunet_testing::oracle::Npz;

const SHAPE: [usize; 3] = [19, 30, 41];

fn plans(reference: Reference, transpose_forward: [usize; 3]) -> Plans {
    Plans {
        reference,
        accumulation: if reference == Reference::NnUNetV1 {
            Accumulation::F32
        } else {
            Accumulation::F16
        },
        patch_size: [16, 16, 64],
        spacing_mm: [1.5, 1.2, 1.3],
        transpose_forward,
        ..Plans::totalsegmentator()
    }
}

fn model(plans: Plans, labels: LabelSet, folds: u64) -> Model {
    let config = StuNetConfig {
        width: [2, 2, 4, 4, 4, 4],
        ..StuNetConfig::small(plans.num_channels(), labels.num_outputs())
    };
    let network =
        |seed| config.init_seeded(Initialisation::PyTorchDefault, seed, &Device::flex()).unwrap();
    Model::from_parts((0..folds).map(network).collect(), plans, labels).unwrap()
}

fn labels() -> LabelSet {
    LabelSet::from_names(["background", "a", "b", "c", "d"]).unwrap()
}

/// Zeros around waves, with a tilted grid.
fn image(channels: usize) -> Image {
    let [z, y, x] = SHAPE;
    let data = Array4::from_shape_fn((channels, z, y, x), |(c, z, y, x)| {
        let inside = (2..17).contains(&z) && (3..28).contains(&y) && (1..40).contains(&x);
        let wave =
            (z as f32 * 0.7 + c as f32).sin() + (y as f32 * 0.4).cos() + (x as f32 * 0.3).sin();
        if inside { 100.0 * wave + 7.0 } else { 0.0 }
    });
    let (sin, cos) = 0.3f64.sin_cos();
    let direction = [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, -1.0]];
    let geometry = Geometry::new(SHAPE, [2.0, 1.1, 0.9], [-3.0, 20.0, 7.5], direction).unwrap();
    Image::new(data, geometry).unwrap()
}

fn run(model: &Model, options: &PredictOptions) -> Prediction {
    let image = image(model.plans().num_channels());
    let prediction = predict(model, &image, options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(prediction.labelmap.geometry, image.geometry);
    let labels = prediction.labelmap.voxels.to_words();
    let (margin, _) = labels.view().split_at(Axis(0), 2);
    assert!(margin.iter().all(|v| *v == 0), "outside the crop is background");
    prediction
}

const REFERENCES: [Reference; 3] =
    [Reference::NnUNetV1, Reference::NnUNetV22, Reference::NnUNetV28];

#[test]
fn modes_agree_where_labels_are_sure() {
    for reference in REFERENCES {
        let model = model(plans(reference, [0, 1, 2]), labels(), 1);
        let run = |mode| run(&model, &PredictOptions { mode, mirror: false, ..Default::default() });
        let normal = run(Mode::Normal);
        assert!(normal.labelmap.voxels.iter().any(|v| v > 0), "{reference:?}");
        for mode in [Mode::Fast, Mode::Fastest] {
            let other = run(mode).labelmap.voxels.to_words();
            assert_eq!(other.len(), normal.labelmap.voxels.iter().count());
            let pairs = other.iter().copied().zip(normal.labelmap.voxels.iter());
            let equal = pairs.filter(|(a, b)| a == b).count();
            assert!(equal * 10 > other.len() * 7, "{reference:?} {mode:?}: {equal}");
        }
    }
}

#[test]
fn mirroring_counts_and_matters() {
    let model = model(plans(Reference::NnUNetV28, [0, 1, 2]), labels(), 2);
    let with = run(&model, &PredictOptions::default());
    assert_eq!(with.report.num_passes, 16);
    // 15 x 25 x 39 voxels are cropped to and become 20 x 23 x 27.
    assert_eq!(with.report.network_shape, [20, 23, 27]);
    assert_eq!(with.report.num_windows, 2 * 2);
    let without = run(&model, &PredictOptions { mirror: false, ..Default::default() });
    assert_eq!(without.report.num_passes, 2);
    assert_ne!(with.labelmap, without.labelmap);
}

/// The first largest class, or the last region above one half.
fn decide(values: &ArrayD<f32>, regions: Option<&[u16]>) -> Array3<u16> {
    let values = values.view().into_dimensionality::<Ix4>().unwrap();
    values.map_axis(Axis(0), |voxel| match regions {
        Some(order) => {
            let mut above = order.iter().zip(voxel).filter(|(_, v)| **v > 0.5);
            above.next_back().map_or(0, |(label, _)| *label)
        }
        None => {
            let start = (0, f32::NEG_INFINITY);
            let larger = |best: (u16, f32), (c, v): (usize, &f32)| {
                if *v > best.1 { (c as u16, *v) } else { best }
            };
            voxel.iter().enumerate().fold(start, larger).0
        }
    })
}

/// Labels decided on the stored probabilities are those of the labelmap, in its own frame.
fn check_probabilities(reference: Reference, transpose_forward: [usize; 3], regions: bool) {
    let labels = if regions { region_labels() } else { labels() };
    let model = model(plans(reference, transpose_forward), labels, 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.npz");
    let options = PredictOptions {
        save_probabilities: Some(path.clone()),
        probability_format: ProbabilityFormat::Npz,
        mirror: false,
        ..Default::default()
    };
    let prediction = run(&model, &options);
    assert_eq!(prediction.probabilities.as_ref(), Some(&path));
    let arrays = Npz::open(&path);
    let labelmap = prediction.labelmap.voxels.to_words();
    let (stored, expected) = if reference == Reference::NnUNetV1 {
        let crop = labelmap.slice(ndarray::s![2..17, 3..28, 1..40]).to_owned();
        (arrays.f32("softmax"), crop)
    } else {
        (arrays.f32("probabilities"), labelmap)
    };
    assert_eq!(stored.shape()[1..], *expected.shape(), "{reference:?}");
    let found = decide(&stored, model.labels().region_order().filter(|_| regions));
    assert_eq!(found.dim(), expected.dim());
    let differ = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
    // v1 stores half precision: neighbours may become equal.
    let most = if reference == Reference::NnUNetV1 { found.len() / 100 } else { 0 };
    assert!(differ <= most, "{reference:?} {transpose_forward:?}: {differ} of {}", found.len());
    let properties = path.with_extension("pkl");
    assert_eq!(properties.is_file(), reference != Reference::NnUNetV1);
    if reference != Reference::NnUNetV1 {
        // An ensemble of one model decides as the model did, on the grid that nnU-Net would find.
        let alone = crate::ensemble::ensemble(&[path], model.labels(), None).unwrap();
        assert_eq!(alone, expected);
        let geometry = &prediction.labelmap.geometry;
        let (z, y, x) = alone.dim();
        let grid = crate::ensemble::geometry_of_properties(&properties, [z, y, x]).unwrap();
        grid.check_same_grid(geometry).unwrap();
    }
    if !regions {
        let sums = stored.sum_axis(Axis(0));
        assert!(sums.iter().all(|s| (s - 1.0).abs() < 4e-3), "probabilities sum to 1");
    }
}

fn region_labels() -> LabelSet {
    let label = |name: &str, values: &[u16]| Label { name: name.into(), values: values.to_vec() };
    let all = [label("background", &[0]), label("whole", &[1, 2, 3]), label("core", &[2, 3])];
    LabelSet::new(all.to_vec(), Some(4), Some(vec![1, 2])).unwrap()
}

#[test]
fn stored_probabilities_are_what_labels_were_decided_on() {
    for reference in REFERENCES {
        check_probabilities(reference, [0, 1, 2], false);
        check_probabilities(reference, [2, 0, 1], false);
    }
    check_probabilities(Reference::NnUNetV28, [0, 1, 2], true);
}

#[test]
fn a_bound_divides_and_changes_nothing() {
    for reference in REFERENCES {
        for mode in [Mode::Normal, Mode::Fast] {
            let plans = Plans { patch_size: [16, 16, 64], ..plans(reference, [1, 0, 2]) };
            let model = model(plans, labels(), 1);
            let folder = tempfile::tempdir().unwrap();
            let run_within = |memory_bytes, name: &str| {
                let save_probabilities = (mode == Mode::Normal).then(|| folder.path().join(name));
                run(
                    &model,
                    &PredictOptions {
                        mode,
                        mirror: false,
                        memory_bytes,
                        save_probabilities,
                        probability_format: ProbabilityFormat::Npz,
                        confidence: (mode == Mode::Normal).then_some(ConfidenceMeasure::Margin),
                        ..Default::default()
                    },
                )
            };
            let free = run_within(None, "a.npz");
            assert_eq!(free.report.memory.tiles.len(), 1);
            let plan = &free.report.memory;
            let bound = plan.total_bytes() - plan.weights_bytes - plan.sums_bytes / 4;
            let bound = run_within(Some(bound), "b.npz");
            assert!(bound.report.memory.tiles.len() > 1, "{reference:?} {mode:?}");
            assert!(bound.report.sums_bytes < free.report.sums_bytes);
            assert_eq!(bound.labelmap, free.labelmap, "{reference:?} {mode:?}");
            assert_eq!(bound.confidence, free.confidence);
            if mode == Mode::Normal {
                let name =
                    if reference == Reference::NnUNetV1 { "softmax" } else { "probabilities" };
                let arrays =
                    ["a.npz", "b.npz"].map(|n| Npz::open(&folder.path().join(n)).f32(name));
                assert_eq!(arrays[0], arrays[1]);
            }
        }
    }
}

/// The head of the average instead of the average of heads: the same logits but for rounding, the same
/// bits in tiles, and what is asked for where that is something else.
#[test]
fn feature_maps_are_averaged_before_the_head() {
    let folder = tempfile::tempdir().unwrap();
    for folds in [1, 2] {
        let accumulation = Accumulation::F32;
        let plans = Plans { accumulation, ..plans(Reference::NnUNetV28, [1, 0, 2]) };
        let model = model(plans, labels(), folds);
        let run_with = |average_features, memory_bytes, name: &str| {
            let path = folder.path().join(format!("{folds}{name}.npz"));
            let options = PredictOptions {
                average_features,
                memory_bytes,
                save_probabilities: Some(path.clone()),
                probability_format: ProbabilityFormat::Npz,
                ..Default::default()
            };
            let found = run(&model, &options);
            assert!(found.report.sums_bytes as u64 <= found.report.memory.sums_bytes);
            (found.report.memory, found.labelmap, Npz::open(&path).f32("probabilities"))
        };
        let (plan, labels, values) = run_with(true, None, "averaged");
        assert_eq!((plan.keep, plan.tiles.len()), (Keep::FeatureSums, 1));
        let (other, expected, of_windows) = run_with(false, None, "windows");
        assert!(matches!(other.keep, Keep::Features | Keep::Sums), "{:?}", other.keep);
        assert_eq!(labels, expected);
        let most = values.iter().zip(&of_windows).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most < 1e-6, "{most}");

        let bound = plan.total_bytes() - plan.weights_bytes - plan.sums_bytes / 4;
        let (tiled, labels_of_tiles, of_tiles) = run_with(true, Some(bound), "tiles");
        assert!(tiled.tiles.len() > 1 && tiled.keep == Keep::FeatureSums);
        assert_eq!((labels_of_tiles, of_tiles), (labels, values));
    }
    // In half precision over mirrored passes alone, whatever is held between windows.
    let half = model(plans(Reference::NnUNetV28, [1, 0, 2]), labels(), 2);
    let run_with = |average_features, mirror, name: &str| {
        let path = folder.path().join(format!("{name}.npz"));
        let options = PredictOptions {
            average_features,
            mirror,
            save_probabilities: Some(path.clone()),
            probability_format: ProbabilityFormat::Npz,
            ..Default::default()
        };
        let found = run(&half, &options);
        assert!(found.report.sums_bytes as u64 <= found.report.memory.sums_bytes);
        Npz::open(&path).f32("probabilities")
    };
    let (values, of_passes) = (run_with(true, true, "one"), run_with(false, true, "each"));
    let most = values.iter().zip(&of_passes).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most < 2e-3, "{most}");
    assert_eq!(run_with(true, false, "one_pass"), run_with(false, false, "each_pass"));
    // More feature maps than classes are worth: sums of classes.
    let few = LabelSet::from_names(["background"]).unwrap();
    let plans = plans(Reference::NnUNetV28, [0, 1, 2]);
    let plans = Plans { accumulation: Accumulation::F32, ..plans };
    let found = run(&model(plans, few, 1), &PredictOptions::default());
    assert_ne!(found.report.memory.keep, Keep::FeatureSums);
}

#[test]
fn too_little_memory_is_refused_before_the_first_window() {
    let model = model(plans(Reference::NnUNetV1, [0, 1, 2]), labels(), 1);
    let options = PredictOptions { memory_bytes: Some(1000), ..Default::default() };
    let mut windows = 0;
    let result = predict(&model, &image(1), &options, &mut |event| {
        windows += usize::from(matches!(event, PredictEvent::Windows { .. }));
        ControlFlow::Continue(())
    });
    assert!(matches!(result, Err(InferError::Memory { allowed: 1000, .. })));
    assert_eq!(windows, 0);
}

#[test]
fn confidence_is_certain_outside_the_crop_only_by_chance_inside() {
    let model = model(plans(Reference::NnUNetV28, [0, 1, 2]), labels(), 1);
    for measure in [ConfidenceMeasure::Margin, ConfidenceMeasure::Entropy] {
        let options =
            PredictOptions { confidence: Some(measure), mirror: false, ..Default::default() };
        let volume = run(&model, &options).confidence.unwrap();
        let (margin, rest) = volume.view().split_at(Axis(0), 2);
        assert!(margin.iter().all(|v| *v == 255));
        assert!(rest.iter().any(|v| *v < 255), "{measure:?}");
    }
}

#[test]
fn threads_do_not_matter() {
    let model = model(plans(Reference::NnUNetV28, [1, 0, 2]), labels(), 1);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&model, &PredictOptions { mirror: false, ..Default::default() }))
    };
    assert_eq!(on(1).labelmap, on(3).labelmap);
}

#[test]
fn every_event_can_interrupt() {
    let model = model(plans(Reference::NnUNetV1, [0, 1, 2]), labels(), 1);
    let image = image(1);
    let options = PredictOptions { mirror: false, ..Default::default() };
    let mut events = Vec::new();
    predict(&model, &image, &options, &mut |event| {
        events.push(event);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(events[0], PredictEvent::Stage(Stage::Preprocess));
    assert!(matches!(
        events[2],
        PredictEvent::Plan { num_tiles: 1, num_windows: 4, num_repeated: 0, .. }
    ));
    assert_eq!(events[3], PredictEvent::Windows { done: 0, total: 4 });
    assert_eq!(events[events.len() - 2], PredictEvent::Windows { done: 4, total: 4 });
    assert_eq!(events[events.len() - 1], PredictEvent::Stage(Stage::Export));
    for (stop, event) in events.iter().enumerate() {
        let mut heard = 0;
        let result = predict(&model, &image, &options, &mut |_| {
            heard += 1;
            if heard > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(result, Err(InferError::Interrupted)), "at {event:?}");
        assert_eq!(heard, stop + 1, "nothing runs on after a break");
    }
}

#[test]
fn what_cannot_be_predicted_is_told() {
    let model = model(plans(Reference::NnUNetV1, [0, 1, 2]), labels(), 1);
    let refused = |channels, options: PredictOptions, word: &str| {
        let result =
            predict(&model, &image(channels), &options, &mut |_| ControlFlow::Continue(()));
        let message = result.unwrap_err().to_string();
        assert!(message.contains(word) && !message.contains('\n'), "{message}");
    };
    refused(2, PredictOptions::default(), "expected 1 channels");
    refused(1, PredictOptions { step_size: 1.5, ..Default::default() }, "step size");
    let accumulation = Some(Accumulation::F16);
    refused(1, PredictOptions { accumulation, ..Default::default() }, "accumulation f16");
    let save_probabilities = Some("p.npz".into());
    let fast = PredictOptions { mode: Mode::Fast, save_probabilities, ..Default::default() };
    refused(1, fast, "mode normal");
    let save_probabilities = Some("no/such/folder/p.npz".into());
    let nowhere = PredictOptions { save_probabilities, ..Default::default() };
    refused(1, nowhere, "no/such/folder/p.npz");
}

#[test]
fn a_turned_image_comes_back_on_its_files_grid() {
    let plain = image(1);
    // The file's axes z, y, x are the image's y, x, z; two of them run the other way.
    let turn = Turn::new([2, 0, 1], [true, false, true]).unwrap();
    let [z, y, x] = SHAPE;
    let file = Geometry::axis_aligned([y, x, z], [1.1, 0.9, 2.0]).unwrap();
    let geometry = file.turned(turn, plain.geometry.spacing_mm()).unwrap();
    let turned = Image::new(plain.data.clone(), geometry).unwrap();
    for (reference, transpose) in
        [(Reference::NnUNetV28, [1, 0, 2]), (Reference::NnUNetV1, [0, 1, 2])]
    {
        let plans = plans(reference, transpose);
        let usual = model(plans.clone(), labels(), 1);
        let turning = model(Plans { reader: Reader::NibabelReorient, ..plans }, labels(), 1);
        for mode in [Mode::Normal, Mode::Fast, Mode::Fastest] {
            let confidence = (mode == Mode::Normal).then_some(ConfidenceMeasure::Margin);
            let options =
                PredictOptions { mode, mirror: false, confidence, ..PredictOptions::default() };
            let run = |model: &Model, image: &Image| {
                predict(model, image, &options, &mut |_| ControlFlow::Continue(())).unwrap()
            };
            let (expected, found) = (run(&usual, &plain), run(&turning, &turned));
            assert_eq!(found.labelmap.geometry, file);
            let labels = found.labelmap.voxels.to_words();
            assert_eq!(turn.apply(labels.view()), expected.labelmap.voxels.to_words());
            assert!(labels.iter().any(|label| *label > 0));
            let seen = found.confidence.as_ref().map(|volume| turn.apply(volume.view()));
            assert_eq!(seen, expected.confidence.as_ref().map(|volume| volume.view()));
        }
        // In the file's order it is no input for this model.
        let refused = predict(&turning, &plain, &PredictOptions::default(), &mut |_| {
            ControlFlow::Continue(())
        });
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("read by NibabelIOWithReorient"), "{message}");
    }
}

/// An image alone, as a file of another orientation would hold it.
fn stored_as(image: &Image, orientation: Orientation) -> Image {
    let turned = image.clone().oriented(orientation).unwrap();
    let of = &turned.geometry;
    let alone = Geometry::new(of.shape(), of.spacing_mm(), of.origin_mm(), of.direction()).unwrap();
    Image::new(turned.data, alone).unwrap()
}

#[test]
fn all_orientations_come_back_to_their_places() {
    let plain = image(1);
    let own = Orientation::of(&plain.geometry);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.npz");
    for (reference, transpose) in
        [(Reference::NnUNetV28, [1, 0, 2]), (Reference::NnUNetV1, [0, 1, 2])]
    {
        let known = Some(TrainedOrientation::all(own));
        let plans = Plans { orientation: known, ..plans(reference, transpose) };
        let model = model(plans, labels(), 1);
        let options = PredictOptions {
            mirror: false,
            confidence: Some(ConfidenceMeasure::Margin),
            save_probabilities: Some(path.clone()),
            probability_format: ProbabilityFormat::Npz,
            ..PredictOptions::default()
        };
        let run = |image: &Image| {
            let found = predict(&model, image, &options, &mut |_| ControlFlow::Continue(()));
            let of_v1 = reference == Reference::NnUNetV1;
            let name = if of_v1 { "softmax" } else { "probabilities" };
            let stored = Npz::open(&path).f32(name).into_dimensionality::<Ix4>().unwrap();
            (found.unwrap(), stored)
        };
        let (expected, classes) = run(&plain);
        assert!(expected.labelmap.voxels.iter().any(|label| label > 0));
        for orientation in Orientation::all() {
            let file = stored_as(&plain, orientation);
            let (found, stored) = run(&file.clone().oriented(own).unwrap());
            assert_eq!(found.labelmap.geometry, file.geometry, "{orientation}");
            let turn = orientation.turn_to(own);
            let labels = found.labelmap.voxels.to_words();
            assert_eq!(turn.apply(labels.view()), expected.labelmap.voxels.to_words());
            let sure = found.confidence.as_ref().unwrap();
            assert_eq!(turn.apply(sure.view()), expected.confidence.as_ref().unwrap().view());
            for (stored, class) in stored.outer_iter().zip(classes.outer_iter()) {
                assert_eq!(turn.apply(stored), class, "{orientation}");
            }
            if reference != Reference::NnUNetV1 {
                // What nnU-Net's ensembles read beside them lies where the file does.
                let properties = path.with_extension("pkl");
                let shape = file.geometry.shape();
                let grid = crate::ensemble::geometry_of_properties(&properties, shape).unwrap();
                grid.check_same_grid(&file.geometry).unwrap();
            }
            let seen = found.report.orientation;
            assert_eq!((seen.file, seen.network), (orientation, own));
            assert!(!seen.is_foreign());
        }
    }
}

#[test]
fn the_most_careful_way_that_is_fast_enough() {
    use crate::budget::{choose, num_passes, ways};
    let model = model(plans(Reference::NnUNetV1, [0, 1, 2]), labels(), 1);
    let prepared = prepare(&model, &image(1)).unwrap();
    let options = PredictOptions { pass_secs: Some(2.0), ..PredictOptions::default() };
    let ways = ways(&options);
    let passes: Vec<usize> =
        ways.iter().map(|way| num_passes(&model, &prepared, way).unwrap()).collect();
    assert!(passes[0] > passes[ways.len() - 1], "{passes:?}");
    // As many as a prediction reports.
    let report = run(&model, &options).report;
    assert_eq!(passes[0], report.num_windows * report.num_passes);
    let chosen = |secs: f64| choose(&model, &prepared, &ways, secs).unwrap().unwrap();
    for (way, passes) in passes.iter().enumerate() {
        let secs = *passes as f64 * 2.0;
        let fit = chosen(secs);
        assert!(fit.way <= way && fit.secs <= secs, "{fit:?} of {way}");
    }
    assert_eq!(chosen(f64::INFINITY).way, 0);
    assert_eq!(chosen(0.0).secs, passes.iter().min().copied().unwrap() as f64 * 2.0);
    let measured = PredictOptions::default();
    let measured = choose(&model, &prepared, &[measured], 0.0).unwrap().unwrap();
    assert!(measured.pass_secs > 0.0);
}

/// What every window of the whole sees that a part has is the same bit by bit.
#[test]
fn a_part_of_the_volume_has_the_labels_of_the_whole() {
    for reference in REFERENCES {
        let model = model(plans(reference, [0, 1, 2]), labels(), 1);
        let data = Array4::from_shape_fn((1, 50, 60, 64), |(_, z, y, x)| {
            100.0 * ((z as f32 * 0.7).sin() + (y as f32 * 0.4).cos() + (x as f32 * 0.3).sin()) + 7.5
        });
        let geometry = Geometry::axis_aligned([50, 60, 64], [1.5, 1.2, 1.3]).unwrap();
        let image = Image::new(data, geometry).unwrap();
        let options = PredictOptions { mirror: false, ..PredictOptions::default() };
        let run = |prepared: Prepared, mode: Mode| {
            let options = PredictOptions { mode, ..options.clone() };
            let go_on = &mut |_| ControlFlow::Continue(());
            predict_prepared(&model, prepared, &options, go_on).unwrap()
        };
        let prepared = prepare(&model, &image).unwrap();
        let region = prepared.region(&model, 0.5, [[10, 40], [12, 45], [5, 50]]).unwrap();
        let region = region.expect("the volume has no air around it");
        assert_eq!(region, [[7, 43], [7, 45], [0, 64]]);
        for mode in [Mode::Normal, Mode::Fastest] {
            let whole = run(prepared.clone(), mode);
            let part = run(prepared.clone().within(region), mode);
            assert_eq!(part.report.num_windows, 16);
            assert_eq!(whole.report.num_windows, 42);
            let (whole, part) = (whole.labelmap, part.labelmap);
            assert_eq!(part.geometry, whole.geometry);
            let (whole, part) = (whole.voxels.to_words(), part.voxels.to_words());
            // The windows before the part end at 16, those behind it begin at 34 and 37.
            let inside = ndarray::s![16..34, 16..37, ..];
            assert_eq!(part.slice(inside), whole.slice(inside), "{reference:?} {mode:?}");
            assert!(part.slice(inside).iter().any(|label| *label > 0));
            for ((z, y, _), label) in part.indexed_iter() {
                assert!(*label == 0 || (7..43).contains(&z) && (7..45).contains(&y));
            }
        }
    }
}
