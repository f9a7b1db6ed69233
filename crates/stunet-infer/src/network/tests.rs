//! Networks of one's own: nothing is done to their values that they did not ask for.

use super::*;
use crate::confidence::ConfidenceMeasure;
use crate::model::Model;
use crate::predict::{PredictOptions, Prediction, predict};
use crate::record::{Record, Standing};
use crate::sink::PlaneSink;
use crate::sliding_window::{Keep, WindowSettings, slide};
use crate::{ModelKind, ProbabilityFormat};
use burn::tensor::activation;
use std::ops::ControlFlow;
use stunet_data::geometry::Geometry;
use stunet_data::image::Image;
use stunet_data::labels::LabelSet;
use stunet_data::nifti;
use stunet_data::plans::{Accumulation, Normalization, Plans, Reference};
use stunet_testing::oracle::Npz;

const SIZE: usize = 8;

type Forward = fn(Tensor<5>) -> Tensor<5>;

/// Two classes: the image and its negative.
fn network(outputs: Outputs) -> TensorNetwork<Forward> {
    TensorNetwork {
        device: Device::flex(),
        in_channels: 1,
        num_classes: 2,
        outputs,
        bytes_per_voxel: 12,
        multiple_of: [2; 3],
        identity: Some("image and negative".to_owned()),
        forward: |x| Tensor::cat(vec![x.clone(), -x], 1),
    }
}

fn values() -> Array4<f32> {
    Array4::from_shape_fn((1, SIZE, SIZE, SIZE), |(_, z, y, x)| {
        ((z * 31 + y * 17 + x * 13) % 23) as f32 / 23.0
    })
}

fn plans(reference: Reference) -> Plans {
    let mut plans = Plans::totalsegmentator();
    plans.channels[0].scheme = Normalization::None;
    Plans {
        reference,
        accumulation: Accumulation::F32,
        patch_size: [SIZE; 3],
        spacing_mm: [1.0; 3],
        strides: Vec::new(),
        mirror_axes: Vec::new(),
        num_outputs: None,
        ..plans
    }
}

fn labels() -> LabelSet {
    LabelSet::from_names(["background", "dark"]).unwrap()
}

fn regions() -> LabelSet {
    let json = serde_json::json!({
        "labels": {"background": 0, "bright": [1, 2], "dark": 2}, "regions_class_order": [1, 2],
    });
    LabelSet::from_dataset_json(&json).unwrap()
}

fn run(model: &Model, options: &PredictOptions) -> Result<Prediction, InferError> {
    let geometry = Geometry::axis_aligned([SIZE; 3], [1.0; 3]).unwrap();
    // Zeros at the border would be cropped.
    let image = Image::new(values() + 0.01, geometry).unwrap();
    predict(model, &image, options, &mut |_| ControlFlow::Continue(()))
}

/// All planes, one after the other.
#[derive(Default)]
struct Collect(Vec<f32>);

impl PlaneSink for Collect {
    fn plane(&mut self, _: usize, plane: &mut Vec<f32>) -> Result<(), InferError> {
        self.0.extend_from_slice(plane);
        Ok(())
    }
}

const REFERENCES: [Reference; 3] =
    [Reference::NnUNetV1, Reference::NnUNetV22, Reference::NnUNetV28];

#[test]
fn only_logits_become_probabilities() {
    for reference in REFERENCES {
        for outputs in [Outputs::Logits, Outputs::Probabilities, Outputs::Scores] {
            for keep in [Keep::Sums, Keep::Features, Keep::DeviceSums] {
                let settings = WindowSettings {
                    reference,
                    keep,
                    mirror_axes: vec![0, 2],
                    ..WindowSettings::new([SIZE; 3])
                };
                let network = network(outputs);
                let mut sink = Collect::default();
                let go_on = &mut |_, _| ControlFlow::Continue(());
                slide(&[&network], values().view(), &settings, &mut sink, go_on).unwrap();
                let softmaxed = reference == Reference::NnUNetV1 && outputs == Outputs::Logits;
                let expected = (network.forward)(upload(values(), &Device::flex()));
                let expected = match softmaxed {
                    true => activation::softmax(expected, 1),
                    false => expected,
                };
                // Planes of all classes, where the network has classes of all planes.
                let expected = expected.swap_dims(1, 2).into_data().try_to_vec::<f32>().unwrap();
                let close = sink.0.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6);
                assert!(close && sink.0.len() == expected.len(), "{reference:?} {outputs:?}");
                let averages = match (softmaxed, outputs) {
                    (true, _) => Outputs::Probabilities,
                    (false, outputs) => outputs,
                };
                assert_eq!(settings.averages(outputs), averages);
            }
        }
    }
}

/// What is stored, and where regions begin: above one half of a probability, above 0 of the others.
#[test]
fn values_are_stored_and_decided_on_as_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let thresholds =
        [(Outputs::Logits, 0.0), (Outputs::Probabilities, 0.5), (Outputs::Scores, 0.0)];
    for (outputs, threshold) in thresholds {
        let plans = plans(Reference::NnUNetV28);
        let model = Model::from_parts(vec![network(outputs)], plans, regions()).unwrap();
        let file = folder.path().join(format!("{outputs:?}.npz"));
        let options = PredictOptions {
            save_probabilities: Some(file.clone()),
            probability_format: ProbabilityFormat::Npz,
            ..PredictOptions::default()
        };
        let found = run(&model, &options).unwrap().labelmap.to_labelmap();
        for (found, value) in found.data.iter().zip(&values()) {
            assert_eq!(*found, u16::from(value + 0.01 > threshold), "{outputs:?} {value}");
        }
        let stored = Npz::open(&file).f32("probabilities");
        for (stored, value) in stored.iter().zip(&values()) {
            let value = value + 0.01;
            let expected = match outputs {
                Outputs::Logits => 1.0 / (1.0 + (-value).exp()),
                _ => value,
            };
            assert!((stored - expected).abs() < 1e-3, "{outputs:?} {stored} {expected}");
        }
    }
}

#[test]
fn scores_have_no_confidence() {
    let options =
        PredictOptions { confidence: Some(ConfidenceMeasure::Margin), ..Default::default() };
    let model = |outputs| {
        let plans = plans(Reference::NnUNetV28);
        Model::from_parts(vec![network(outputs)], plans, labels()).unwrap()
    };
    let message = run(&model(Outputs::Scores), &options).unwrap_err().to_string();
    assert!(message.starts_with("confidence: ") && message.contains("scores"), "{message}");
    assert!(run(&model(Outputs::Probabilities), &options).unwrap().confidence.is_some());
}

#[test]
fn outputs_of_a_network_without_identity_are_never_taken_for_ready() {
    let folder = tempfile::tempdir().unwrap();
    let model = |identity: Option<&str>, outputs| {
        let network = TensorNetwork { identity: identity.map(str::to_owned), ..network(outputs) };
        Model::from_parts(vec![network], plans(Reference::NnUNetV28), labels()).unwrap()
    };
    let options = PredictOptions::default();
    for (index, identity) in [Some("a"), None].into_iter().enumerate() {
        let own = model(identity, Outputs::Logits);
        assert_eq!(own.description().kind, ModelKind::Memory);
        assert_eq!(own.digest().is_some(), identity.is_some());
        let record = Record::new(&own, &options).unwrap();
        let path = folder.path().join(format!("{index}.nii.gz"));
        assert_eq!(record.standing(&path, None).unwrap(), Standing::Absent);
        let labelmap = run(&own, &options).unwrap().labelmap;
        nifti::write_compact_labelmap(&path, &labelmap, 1, Some(&record.text())).unwrap();
        let standing =
            |model: &Model| Record::new(model, &options).unwrap().standing(&path, None).unwrap();
        let taken = standing(&own) == Standing::Same;
        assert_eq!(taken, identity.is_some());
        for other in [model(Some("b"), Outputs::Logits), model(Some("a"), Outputs::Scores)] {
            assert!(matches!(standing(&other), Standing::Other { .. }));
        }
    }
}

#[test]
fn networks_have_to_fit_plans_and_labels() {
    let check = |network: TensorNetwork<Forward>, plans: Plans, labels: LabelSet, words: &str| {
        let message = Model::from_parts(vec![network], plans, labels).unwrap_err().to_string();
        assert!(message.contains(words), "expected {words:?}, found {message:?}");
    };
    let network = || network(Outputs::Logits);
    let plans = || plans(Reference::NnUNetV28);
    let odd = Plans { patch_size: [8, 8, 7], ..plans() };
    check(network(), odd, labels(), "window: expected multiples of [2, 2, 2] voxels");
    let three = LabelSet::from_names(["background", "a", "b"]).unwrap();
    check(network(), plans(), three, "expected 3 (as the labels), found 2");
    let channels = TensorNetwork { in_channels: 2, ..network() };
    check(channels, plans(), labels(), "expected 1 (as the plans), found 2");
    let model = Model::from_parts(vec![network()], plans(), labels()).unwrap();
    let message = model.save_folder("nowhere".as_ref()).unwrap_err().to_string();
    assert!(message.contains("expected a model with an STU-Net"), "{message}");
    assert!(model.stunets().is_none());
}

#[test]
fn networks_that_are_chosen_at_run_time() {
    let boxed: Vec<Box<dyn Network>> =
        vec![Box::new(network(Outputs::Scores)), Box::new(network(Outputs::Scores))];
    let model = Model::from_networks(boxed, plans(Reference::NnUNetV1), labels()).unwrap();
    let found = run(&model, &PredictOptions::default()).unwrap();
    assert_eq!(found.report.num_passes, 2);
    assert!(found.labelmap.voxels.iter().all(|label| label == 0), "the image is the larger one");
}
