//! Predictions in eight bits beside those in `f32`.

use super::*;
use crate::network::{Outputs, TensorNetwork};
use crate::record::Record;
use crate::sink::PlaneSink;
use crate::sliding_window::{Keep, WindowSettings, slide};
use crate::{PredictOptions, predict};
use burn::tensor::{Device, Tensor};
use ndarray::Array4;
use std::ops::ControlFlow;
use stunet_data::geometry::Geometry;
use stunet_data::image::Image;
use stunet_data::labels::LabelSet;
use stunet_data::plans::{Plans, Reference};
use stunet_model::{Initialisation, StuNetConfig};

const SHAPE: [usize; 3] = [20, 24, 80];

fn plans(reference: Reference) -> Plans {
    Plans { reference, patch_size: [16, 16, 64], spacing_mm: [1.0; 3], ..Plans::totalsegmentator() }
}

fn labels() -> LabelSet {
    LabelSet::from_names(["background", "a", "b", "c"]).unwrap()
}

fn model(reference: Reference, folds: u64) -> Model {
    let config = StuNetConfig::small(1, 4).with_width([16, 16, 16, 32, 32, 16]);
    let network =
        |seed| config.init_seeded(Initialisation::PyTorchDefault, seed, &Device::flex()).unwrap();
    Model::from_parts((0..folds).map(network).collect(), plans(reference), labels()).unwrap()
}

fn values() -> Array4<f32> {
    let [z, y, x] = SHAPE;
    Array4::from_shape_fn((1, z, y, x), |(_, z, y, x)| {
        let wave = (z as f32 * 0.7).sin() + (y as f32 * 0.4).cos() + (x as f32 * 0.3).sin();
        300.0 * wave + 7.0
    })
}

fn predicted(model: &Model, mirror: bool) -> Vec<u16> {
    let image = Image::new(values(), Geometry::axis_aligned(SHAPE, [1.0; 3]).unwrap()).unwrap();
    let options = PredictOptions { mirror, ..Default::default() };
    let prediction = predict(model, &image, &options, &mut |_| ControlFlow::Continue(()));
    prediction.unwrap().labelmap.voxels.iter().collect()
}

#[test]
fn labels_are_close_to_those_in_f32() {
    for reference in [Reference::NnUNetV1, Reference::NnUNetV22, Reference::NnUNetV28] {
        for (folds, mirror) in [(1, false), (2, true)] {
            let plain = model(reference, folds);
            let eight_bits = model(reference, folds).in_eight_bits().unwrap();
            let (expected, found) = (predicted(&plain, mirror), predicted(&eight_bits, mirror));
            let equal = expected.iter().zip(&found).filter(|(a, b)| a == b).count();
            assert!(equal * 100 > found.len() * 90, "{reference:?} {folds}: {equal}");
            assert_ne!(expected, found, "{reference:?}: an approximation of random weights");
            assert!(found.iter().any(|label| *label != found[0]));
        }
    }
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

/// Values by planes are those that a head makes of feature maps.
#[test]
fn every_way_of_summing_gives_the_same() {
    let model = model(Reference::NnUNetV28, 1).in_eight_bits().unwrap();
    let network = &*model.networks()[0];
    let of = |keep| {
        let settings = WindowSettings { keep, ..WindowSettings::new([16, 16, 64]) };
        let mut sink = Collect::default();
        let go_on = &mut |_, _| ControlFlow::Continue(());
        slide(&[network], values().view(), &settings, &mut sink, go_on).unwrap();
        sink.0
    };
    assert!(of(Keep::Sums) == of(Keep::Features));
}

#[test]
fn it_is_the_model_in_another_precision() {
    let plain = model(Reference::NnUNetV28, 1);
    let eight_bits = model(Reference::NnUNetV28, 1).in_eight_bits().unwrap();
    assert_eq!(plain.precision(), NetworkPrecision::F32);
    assert_eq!(eight_bits.precision(), NetworkPrecision::Int8);
    assert_eq!(plain.digest(), eight_bits.digest());
    assert_ne!(plain.networks()[0].identity(), eight_bits.networks()[0].identity());
    let record = |model| Record::new(model, &PredictOptions::default()).unwrap().text();
    assert!(record(&eight_bits).contains("\"precision\":\"int8\""), "{}", record(&eight_bits));
    assert!(!record(&plain).contains("precision"));
    assert_eq!(plain.architecture(), eight_bits.architecture());
    assert!(eight_bits.stunets().is_none());
    assert!(eight_bits.save_folder("nowhere".as_ref()).is_err());
    let network = &*eight_bits.networks()[0];
    assert!(network.cost([16, 16, 63]).is_err());
    assert!(network.cost([16, 16, 64]).unwrap().peak_bytes > 0);
    // There is nothing more to round.
    assert!(matches!(eight_bits.in_eight_bits(), Err(InferError::EightBits { .. })));
}

#[test]
fn other_networks_are_refused() {
    let network = TensorNetwork {
        device: Device::flex(),
        in_channels: 1,
        num_classes: 4,
        outputs: Outputs::Logits,
        bytes_per_voxel: 20,
        multiple_of: [1; 3],
        identity: None,
        forward: |x: Tensor<5>| x.repeat_dim(1, 4),
    };
    let model = Model::from_parts(vec![network], plans(Reference::NnUNetV28), labels()).unwrap();
    let message = model.in_eight_bits().unwrap_err().to_string();
    assert!(message.contains("expected a model with an STU-Net on the processor"), "{message}");
}
