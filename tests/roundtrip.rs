//! A network trained here, given back to PyTorch: the same logits.
//!
//! Needs a Python with torch and numpy: `STUNET_PYTHON=python3 cargo test --release --test roundtrip
//! -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_methods)]

use burn::tensor::{Tensor, TensorData};
use ndarray::{Array3, Array4};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use stunet::data::augment::Augmentation;
use stunet::data::labels::LabelSet;
use stunet::data::loader::LoaderConfig;
use stunet::data::plans::Plans;
use stunet::data::sample::MemoryCase;
use stunet::model::{Initialisation, StuNetConfig};
use stunet::train::checkpoint::{FINAL, TrainingCheckpoint};
use stunet::train::export::{self, ModelDescription};
use stunet::train::loss::{Loss, LossConfig};
use stunet::train::{FitCases, FitConfig, FoldFolder, StateOptions, TrainingState, fit};

const PATCH: [usize; 3] = [16, 16, 32];

/// Two channels, three classes, stages of different depth: nothing in it is symmetric.
fn config() -> StuNetConfig {
    StuNetConfig {
        width: [4, 5, 6, 7, 8, 9],
        depth: [1, 2, 1, 1, 2, 1],
        strides: [[2, 2, 2], [2, 2, 2], [2, 1, 2], [1, 2, 2], [1, 1, 1]],
        ..StuNetConfig::small(2, 3)
    }
}

fn cases() -> FitCases {
    let [z, y, x] = PATCH;
    let label = |(z, y, x): (usize, usize, usize)| match (z + y, x) {
        (12.., 10..20) => 2,
        (..12, 5..25) => 1,
        _ => 0i16,
    };
    let labels = Array3::from_shape_fn((z + 4, y + 4, x + 4), label);
    let image = Array4::from_shape_fn((2, z + 4, y + 4, x + 4), |(c, z, y, x)| {
        f32::from(labels[[z, y, x]]) * (c as f32 - 0.3)
            + ((z * 7 + y * 5 + x * 3) % 11) as f32 / 9.0
    });
    let cases = vec![MemoryCase::new("stripes", image, labels).unwrap()];
    FitCases { training: Arc::new(cases), validation: None }
}

/// Trains a little, exports, and leaves input and logits beside.
fn prepare(folder: &Path) {
    let device = stunet::device::parse("cpu").unwrap();
    let options = StateOptions::new(&device);
    let initial = Initialisation::PyTorchDefault;
    let network = config().init_seeded(initial, 7, &options.training_device()).unwrap();
    let loader = LoaderConfig::new(Augmentation::none(PATCH), 2, &config().strides);
    let loss = Loss::new(LossConfig::v1(false)).unwrap();
    let how = FitConfig { num_iterations: 5, ..FitConfig::new(2, loader, loss) };
    let fold = FoldFolder::at(&folder.join("fold_0"));
    let state = TrainingState::new(network, &options);
    let go_on = &mut |_: stunet::train::FitEvent<'_>| ControlFlow::Continue(());
    let state = fit(state, &cases(), &how, Some(&fold), go_on).unwrap();

    let published = Plans::totalsegmentator();
    let about = ModelDescription {
        plans: Plans {
            patch_size: PATCH,
            strides: config().strides.to_vec(),
            channels: vec![published.channels[0].clone(); 2],
            num_outputs: Some(3),
            ..published
        },
        labels: LabelSet::numbered(3).unwrap(),
        trainer: "STUNetTrainer_custom".to_owned(),
        fold: "0".to_owned(),
        batch_dice: false,
        nnunet_plans: None,
        nnunet_dataset: None,
    };
    let checkpoint = TrainingCheckpoint::open(&fold.path.join(FINAL)).unwrap();
    export::nnunet_v1(&checkpoint, &about, true, &folder.join("model.model")).unwrap();
    export::nnunet_v2(&checkpoint, &about, true, &folder.join("model.pth")).unwrap();
    let network = serde_json::to_string(&state.config()).unwrap();
    std::fs::write(folder.join("network.json"), network).unwrap();

    let shape = [1, 2, PATCH[0], PATCH[1], PATCH[2]];
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.37).sin() * 2.0).collect();
    let input: Tensor<5> = Tensor::from_data(TensorData::new(values, shape), &device);
    let logits = state.network_for_inference().forward(input.clone());
    let shapes = serde_json::json!({ "input": shape, "logits": logits.dims() });
    std::fs::write(folder.join("shapes.json"), shapes.to_string()).unwrap();
    for (name, tensor) in [("input", input), ("logits", logits)] {
        let floats: Vec<f32> = tensor.into_data().iter::<f32>().collect();
        let bytes: Vec<u8> = floats.iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(folder.join(format!("{name}.f32")), bytes).unwrap();
    }
}

#[test]
#[ignore = "needs a Python with torch"]
fn pytorch_computes_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/roundtrip_torch.py");
    let interpreter = std::env::var("STUNET_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(interpreter).arg(script).arg(folder.path()).output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What the round trip needs is there, with or without a Python.
#[test]
fn both_checkpoints_are_written_and_read_back() {
    use stunet::model::weights::{Checkpoint, LoadOptions};
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let device = stunet::device::parse("cpu").unwrap();
    for name in ["model.model", "model.pth"] {
        let checkpoint = Checkpoint::open(&folder.path().join(name)).unwrap();
        assert_eq!(checkpoint.epoch(), Some(2), "{name}");
        let (network, report) =
            checkpoint.load(config().strides, &LoadOptions::default(), &device).unwrap();
        assert!(report.is_complete() && network.config() == config(), "{name}: {report}");
    }
}
