//! The encoder apart: loaded from a checkpoint of a training run, and frozen within one.
#![allow(clippy::unwrap_used)]

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use ndarray::{Array3, Array4};
use std::ops::ControlFlow;
use std::sync::Arc;
use stunet_data::augment::Augmentation;
use stunet_data::loader::LoaderConfig;
use stunet_data::sample::MemoryCase;
use stunet_model::{Encoder, Initialisation, StuNetConfig};
use stunet_train::checkpoint::{Group, TrainingCheckpoint};
use stunet_train::loss::{Loss, LossConfig};
use stunet_train::{FitCases, FitConfig, StateOptions, TrainingState, fit};

fn config() -> StuNetConfig {
    StuNetConfig::small(1, 2).with_width([2; 6])
}

fn features(encoder: &Encoder) -> Vec<f32> {
    let device = &encoder.devices()[0];
    let x =
        Tensor::<1, Int>::arange(0..16_384, device).float().reshape([1, 1, 16, 16, 64]) / 1000.0;
    encoder
        .forward(x)
        .into_iter()
        .flat_map(|f| f.into_data().try_to_vec::<f32>().unwrap())
        .collect()
}

/// Trains a few updates and gives the checkpoint.
fn trained(begin: TrainingState, folder: &std::path::Path) -> TrainingCheckpoint {
    let labels = Array3::from_shape_fn([16, 16, 64], |(_, y, _)| i16::from(y > 7));
    let image = Array4::from_shape_fn([1, 16, 16, 64], |(_, _, y, x)| (y * 7 + x) as f32 / 100.0);
    let cases = Arc::new(vec![MemoryCase::new("ramp", image, labels).unwrap()]);
    let cases = FitCases { training: cases, validation: None };
    let loader = LoaderConfig::new(Augmentation::none([16, 16, 64]), 2, &config().strides);
    let config = FitConfig {
        num_iterations: 3,
        ..FitConfig::new(1, loader, Loss::new(LossConfig::v1(true)).unwrap())
    };
    let state = fit(begin, &cases, &config, None, &mut |_| ControlFlow::Continue(())).unwrap();
    let path = folder.join("checkpoint");
    state.save(&path, &serde_json::Value::Null).unwrap();
    TrainingCheckpoint::open(&path).unwrap()
}

#[test]
fn a_frozen_encoder_stays_as_it_is_and_is_loaded_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (frozen, recomputed) in [(true, false), (true, true), (false, false)] {
        let options = StateOptions {
            checkpoint_activations: recomputed,
            ..StateOptions::new(&Device::flex())
        };
        let device = options.training_device();
        let mut network = config().init_seeded(Initialisation::NnUNetV1, 5, &device).unwrap();
        let before = features(&network.encoder);
        if frozen {
            network.encoder = network.encoder.freeze();
        }
        let checkpoint = trained(TrainingState::new(network, &options), folder.path());
        let (encoder, report) = checkpoint.load_encoder(Group::Weights, &Device::flex()).unwrap();
        assert_eq!(features(&encoder) == before, frozen, "recomputed: {recomputed}");
        assert_eq!(report.applied.len(), config().encoder_specs().len());
        assert!(report.left_out.contains(&"decoder.heads.4.weight".to_owned()));
        assert!(checkpoint.load_encoder(Group::Ema, &Device::flex()).is_err());
    }
}
