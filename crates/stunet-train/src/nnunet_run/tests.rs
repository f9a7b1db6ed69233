use super::*;
use crate::checkpoint::{Group, TrainingCheckpoint};
use crate::export::{self, ModelDescription};
use crate::fit::{FitCases, FitConfig, FoldFolder, fit};
use crate::loss::{Loss, LossConfig};
use burn::tensor::Device;
use ndarray::{Array3, Array4};
use std::ops::ControlFlow;
use std::sync::Arc;
use stunet_data::augment::Augmentation;
use stunet_data::labels::LabelSet;
use stunet_data::loader::LoaderConfig;
use stunet_data::plans::Plans;
use stunet_data::sample::MemoryCase;
use stunet_model::Initialisation;

fn network() -> StuNetConfig {
    StuNetConfig { width: [2, 2, 2, 2, 2, 2], ..StuNetConfig::small(1, 2) }
}

fn run(num_epochs: usize) -> (FitCases, FitConfig) {
    let labels = Array3::from_shape_fn([16, 16, 64], |(_, y, _)| i16::from(y > 7));
    let image = Array4::from_shape_fn([1, 16, 16, 64], |(_, _, y, x)| (y * 7 + x) as f32 / 100.0);
    let cases = Arc::new(vec![MemoryCase::new("ramp", image, labels).unwrap()]);
    let cases = FitCases { training: cases.clone(), validation: Some(cases) };
    let loader = LoaderConfig::new(Augmentation::v1([16, 16, 64]), 2, &network().strides);
    let loss = Loss::new(LossConfig::v1(true)).unwrap();
    (cases, FitConfig { num_iterations: 2, ..FitConfig::new(num_epochs, loader, loss) })
}

fn trained(state: TrainingState, epochs: usize, folder: &Path) -> TrainingCheckpoint {
    let (cases, config) = run(epochs);
    let folder = FoldFolder::at(folder);
    let state = fit(state, &cases, &config, Some(&folder), &mut |_| ControlFlow::Continue(()));
    assert!(state.unwrap().is_complete(&config));
    TrainingCheckpoint::open(&folder.newest_checkpoint().unwrap()).unwrap()
}

fn exported(checkpoint: &TrainingCheckpoint, to: &Path) {
    let about = ModelDescription {
        plans: Plans { num_outputs: Some(2), ..Plans::totalsegmentator() },
        labels: LabelSet::from_names(["background", "a"]).unwrap(),
        trainer: "STUNetTrainer_custom".to_owned(),
        fold: "0".to_owned(),
        batch_dice: false,
        nnunet_plans: None,
        nnunet_dataset: None,
    };
    export::nnunet_v2(checkpoint, &about, false, to).unwrap();
}

/// What nnU-Net's file holds is taken over to the last bit, and the run goes on as if it had not been
/// there.
#[test]
fn a_run_goes_through_nnunets_file() {
    let home = tempfile::tempdir().unwrap();
    let options = StateOptions::new(&Device::flex());
    let device = options.training_device();
    let begin = || network().init_seeded(Initialisation::NnUNetV1, 0, &device).unwrap();
    let whole = trained(TrainingState::new(begin(), &options), 3, &home.path().join("whole"));

    // The first two of three epochs.
    let (cases, config) = run(3);
    let folder = FoldFolder::at(&home.path().join("half"));
    let state = TrainingState::new(begin(), &options);
    let mut epochs = 0;
    let state = fit(state, &cases, &config, Some(&folder), &mut |event| {
        epochs += usize::from(matches!(event, crate::FitEvent::Epoch { .. }));
        if epochs == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(state.unwrap().progress.epoch, 2);
    let half = TrainingCheckpoint::open(&folder.newest_checkpoint().unwrap()).unwrap();
    let file = home.path().join("checkpoint_latest.pth");
    exported(&half, &file);
    assert_eq!(newest_checkpoint(home.path()), Some(file.clone()));

    let theirs = NnUNetRun::open(&file, network().strides).unwrap();
    assert_eq!((theirs.epoch(), theirs.config()), (2, &network()));
    assert_eq!(theirs.trainer(), Some("STUNetTrainer_custom"));
    let state = theirs.state(&options, 2).unwrap();
    let (found, expected) = (&state.progress, &half.state().progress);
    assert_eq!((found.next_batch, found.epoch), (expected.next_batch, expected.epoch));
    assert_eq!(found.ema_pseudo_dice, expected.ema_pseudo_dice);
    assert_eq!(found.best_ema, expected.best_ema);
    for (found, expected) in found.history.iter().zip(&expected.history) {
        assert_eq!((found.lr, found.train_loss), (expected.lr, expected.train_loss));
        assert_eq!(found.dice_per_class, expected.dice_per_class);
    }
    let file = home.path().join("taken_over.safetensors");
    state.save(&file, &Value::Null).unwrap();
    let taken = TrainingCheckpoint::open(&file).unwrap();
    for group in [Group::Weights, Group::Momentum] {
        assert!(taken.names(group).count() > 100);
        for (name, data) in taken.read_all(group).unwrap() {
            let zero = || TensorData::zeros::<f32, _>(data.shape().as_slice().to_vec());
            let expected = half.read(group, &name).unwrap_or_else(|_| zero());
            assert_eq!(data, expected, "{group:?} {name}");
        }
    }
    let after = trained(state, 3, &home.path().join("after"));
    for name in whole.names(Group::Weights) {
        let of = |run: &TrainingCheckpoint| run.read(Group::Weights, name).unwrap();
        assert_eq!(of(&after), of(&whole), "{name}");
    }
}

#[test]
fn what_cannot_go_on_is_said() {
    let home = tempfile::tempdir().unwrap();
    let refused = |path: &Path, words: &str| {
        let found = NnUNetRun::open(path, network().strides)
            .and_then(|run| run.state(&StateOptions::new(&Device::flex()), 1).map(drop));
        let message = found.unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    };
    let path = home.path().join("checkpoint_best.pth");
    std::fs::write(&path, b"PK").unwrap();
    refused(&path, "a torch checkpoint");
    assert_eq!(newest_checkpoint(home.path()), Some(path));
    assert_eq!(newest_checkpoint(&home.path().join("none")), None);
}
