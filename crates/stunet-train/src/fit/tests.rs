use super::*;
use crate::checkpoint::{BEST, FINAL, Group, LATEST, TrainingCheckpoint};
use crate::log::LOG_FILE;
use crate::loss::{Loss, LossConfig};
use crate::precision::Precision;
use crate::progress_png::PROGRESS_FILE;
use burn::tensor::Device;
use ndarray::{Array3, Array4};
use stunet_data::augment::Augmentation;
use stunet_data::sample::MemoryCase;
use stunet_model::{Initialisation, StuNetConfig};

/// Loss, optimiser, schedule and augmentation of one's own.
mod own;
/// Frozen parts, rates by layer, low-rank factors.
mod trained;

const SHAPE: [usize; 3] = [12, 20, 24];
const PATCH: [usize; 3] = [8, 16, 16];

fn network() -> StuNetConfig {
    StuNetConfig {
        width: [2, 2, 4, 4, 8, 8],
        strides: [[2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1]],
        ..StuNetConfig::small(1, 3)
    }
}

/// Two bright boxes in the dark, a little elsewhere in every case; `poison` is put into the last.
fn cases(poison: Option<f32>) -> FitCases {
    let case = |index: usize| {
        let label = |(z, y, x): (usize, usize, usize)| -> i16 {
            let inside = |v: usize, from: usize, to: usize| (from + index..to + index).contains(&v);
            match () {
                () if inside(z, 2, 8) && inside(y, 2, 9) && inside(x, 3, 12) => 1,
                () if inside(z, 3, 9) && inside(y, 10, 17) && inside(x, 10, 20) => 2,
                () => 0,
            }
        };
        let labels = Array3::from_shape_fn(SHAPE, label);
        let image = Array4::from_shape_fn([1, SHAPE[0], SHAPE[1], SHAPE[2]], |(_, z, y, x)| {
            let noise = ((z * 31 + y * 17 + x * 7 + index) % 13) as f32 / 13.0 - 0.5;
            f32::from(labels[[z, y, x]]) + noise
        });
        MemoryCase::new(format!("case_{index}"), image, labels).unwrap()
    };
    let mut all: Vec<_> = (0..3).map(case).collect();
    if let Some(poison) = poison {
        all[2] = MemoryCase::new(
            "case_2",
            Array4::from_elem([1, SHAPE[0], SHAPE[1], SHAPE[2]], poison),
            Array3::zeros(SHAPE),
        )
        .unwrap();
    }
    let all: Arc<dyn TrainingCases> = Arc::new(all);
    FitCases { training: all.clone(), validation: poison.is_none().then_some(all) }
}

fn config(num_epochs: usize, num_iterations: usize) -> FitConfig {
    let loader = LoaderConfig {
        seed: 3,
        ..LoaderConfig::new(Augmentation::none(PATCH), 2, &network().strides)
    };
    FitConfig {
        num_iterations,
        num_val_iterations: 2,
        save_every: 1,
        ..FitConfig::new(num_epochs, loader, Loss::new(LossConfig::v1(false)).unwrap())
    }
}

fn state() -> TrainingState {
    let options = StateOptions::new(&Device::flex());
    let device = options.training_device();
    let network = network().init_seeded(Initialisation::NnUNetV1, 5, &device).unwrap();
    TrainingState::new(network, &options)
}

fn go_on(_: FitEvent<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Weights and momentum, bit for bit.
fn bits(state: &TrainingState) -> Vec<(String, Vec<u8>)> {
    let (_, groups) = state.to_parts(serde_json::Value::Null);
    let tensors = groups.into_iter().flat_map(|(_, tensors)| tensors);
    tensors.map(|(name, data)| (name, data.as_bytes().to_vec())).collect()
}

#[test]
fn the_loss_falls_and_the_dice_rises() {
    let state = fit(state(), &cases(None), &config(8, 10), None, &mut go_on).unwrap();
    let [first, .., last] = &state.progress.history[..] else { panic!("eight epochs") };
    assert!(last.train_loss < first.train_loss - 0.3, "{first:?} {last:?}");
    assert!(last.val_loss.unwrap() < first.val_loss.unwrap() - 0.3, "{first:?} {last:?}");
    assert!(last.pseudo_dice.unwrap() > 0.5, "{last:?}");
    assert_eq!(state.progress.history.len(), 8);
    assert_eq!((first.lr, state.progress.next_batch), (0.01, 80));
}

#[test]
fn a_stopped_run_goes_on_bit_for_bit() {
    let config = config(3, 4);
    let straight = fit(state(), &cases(None), &config, None, &mut go_on).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fold = FoldFolder::at(folder.path());
    let options = StateOptions::new(&Device::flex());
    let mut stops = 0;
    let mut running = state();
    // One step at a time, each in a fit of its own, from the checkpoint of the one before.
    while !running.is_complete(&config) {
        let mut stop = |event: FitEvent<'_>| match event {
            FitEvent::Step(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let stopped = fit(running, &cases(None), &config, Some(&fold), &mut stop).unwrap();
        stops += 1;
        let file = fold.newest_checkpoint().unwrap();
        running =
            TrainingState::from_checkpoint(&TrainingCheckpoint::open(&file).unwrap(), &options)
                .unwrap();
        assert!(bits(&running) == bits(&stopped), "what was saved is what came back");
    }
    assert!(stops >= 12);
    assert!(bits(&running) == bits(&straight), "weights or momentum differ");
    let numbers = |state: &TrainingState| -> Vec<_> {
        let history = state.progress.history.iter();
        history.map(|r| (r.train_loss, r.val_loss, r.ema_pseudo_dice, r.grad_norm)).collect()
    };
    assert_eq!(numbers(&running), numbers(&straight));
    for (name, there) in
        [(FINAL, true), (BEST, true), (LATEST, false), (LOG_FILE, true), (PROGRESS_FILE, true)]
    {
        assert_eq!(folder.path().join(name).is_file(), there, "{name}");
    }
}

/// Wherever a run is stopped, in the validation too, it goes on to the same end.
#[test]
fn a_stop_is_heard_in_the_validation() {
    let config = FitConfig { num_val_iterations: 3, ..config(2, 3) };
    let straight = fit(state(), &cases(None), &config, None, &mut go_on).unwrap();
    let check = |stop: fn(&FitEvent<'_>) -> bool| {
        let folder = tempfile::tempdir().unwrap();
        let fold = FoldFolder::at(folder.path());
        let (mut running, mut stopped_once, mut heard_after) = (state(), false, 0);
        let mut on_event = |event: FitEvent<'_>| {
            if stopped_once && !matches!(event, FitEvent::Saved { .. }) {
                heard_after += 1;
            }
            match stop(&event) && !stopped_once {
                true => {
                    stopped_once = true;
                    ControlFlow::Break(())
                }
                false => ControlFlow::Continue(()),
            }
        };
        running = fit(running, &cases(None), &config, Some(&fold), &mut on_event).unwrap();
        assert!(!running.is_complete(&config) && stopped_once);
        assert_eq!(heard_after, 0, "nothing is done after the stop");
        let file = TrainingCheckpoint::open(&fold.newest_checkpoint().unwrap()).unwrap();
        let options = StateOptions::new(&Device::flex());
        let again = TrainingState::from_checkpoint(&file, &options).unwrap();
        let end = fit(again, &cases(None), &config, Some(&fold), &mut go_on).unwrap();
        assert!(bits(&end) == bits(&straight), "weights or momentum differ");
        let of = |state: &TrainingState| -> Vec<_> {
            let history = state.progress.history.iter();
            history.map(|r| (r.train_loss, r.val_loss, r.ema_pseudo_dice)).collect()
        };
        assert_eq!(of(&end), of(&straight));
    };
    check(|event| matches!(event, FitEvent::Validated { done: 2, .. }));
    check(|event| matches!(event, FitEvent::Validated { done: 3, .. }));
    check(|event| matches!(event, FitEvent::Step(_)));
    check(|event| matches!(event, FitEvent::Started { .. }));
}

/// A case that takes its time: the stop is heard before the first batch is there.
#[test]
fn a_stop_is_heard_while_a_batch_is_prepared() {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};
    use stunet_data::sample::TrainingCase;
    struct Slow(Arc<dyn TrainingCases>, Mutex<Receiver<()>>);
    impl TrainingCases for Slow {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn open(&self, index: usize) -> stunet_data::error::Result<Box<dyn TrainingCase + '_>> {
            // Until the sender is gone.
            let _ = self.1.lock().unwrap().recv();
            self.0.open(index)
        }
        fn name(&self, index: usize) -> String {
            self.0.name(index)
        }
    }
    let config = config(1, 2);
    let all = cases(None);
    let (hold, held) = channel();
    let slow = Slow(all.training.clone(), Mutex::new(held));
    let slow = FitCases { training: Arc::new(slow), ..all.clone() };
    let mut hold = Some(hold);
    let mut on_event = |event: FitEvent<'_>| match event {
        FitEvent::Waiting { .. } => {
            hold = None;
            ControlFlow::Break(())
        }
        FitEvent::Step(_) => panic!("the run was stopped before its first step"),
        _ => ControlFlow::Continue(()),
    };
    let state = fit(state(), &slow, &config, None, &mut on_event).unwrap();
    assert_eq!((state.progress.iteration, state.progress.next_batch), (0, 0));
    fit(state, &all, &config, None, &mut go_on).unwrap();
}

/// Half precisions, recomputed activations, accumulated gradients: all of them learn, and go on
/// from their checkpoint as if nothing had happened.
#[test]
fn every_way_of_computing_learns_and_goes_on() {
    let check = |name: &str, change: &dyn Fn(&mut StateOptions), accumulate: usize| {
        let mut options = StateOptions { ema: Some(0.5), ..StateOptions::new(&Device::flex()) };
        change(&mut options);
        let config = FitConfig { accumulate, ..config(2, 8) };
        let network =
            network().init_seeded(Initialisation::NnUNetV1, 5, &options.training_device());
        let begin = TrainingState::new(network.unwrap(), &options);
        let mut saved = None;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LATEST);
        let half = FitConfig { num_epochs: 1, ..config.clone() };
        let first = fit(begin, &cases(None), &half, None, &mut go_on).unwrap();
        first.save(&path, &serde_json::Value::Null).unwrap();
        let checkpoint = TrainingCheckpoint::open(&path).unwrap();
        assert!(checkpoint.has(Group::Ema), "{name}");
        let again = TrainingState::from_checkpoint(&checkpoint, &options).unwrap();
        assert!(bits(&again) == bits(&first), "{name}: saved and restored");
        for state in [first, again] {
            let end = fit(state, &cases(None), &config, None, &mut go_on).unwrap();
            let [first, last] = &end.progress.history[..] else { panic!("two epochs") };
            assert!(last.train_loss < first.train_loss - 0.1, "{name}: {first:?} {last:?}");
            assert_eq!(end.progress.next_batch, 16 * accumulate as u64, "{name}");
            match &saved {
                None => saved = Some(bits(&end)),
                Some(saved) => assert!(*saved == bits(&end), "{name}: other bits"),
            }
        }
    };
    check("f32", &|_| (), 1);
    check("accumulated", &|_| (), 2);
    check("bf16", &|options| options.precision = Precision::Bf16, 1);
    check("f16", &|options| options.precision = Precision::F16, 1);
    check("recomputed", &|options| options.checkpoint_activations = true, 1);
}

/// Two devices that share every batch end where one with whole batches does, but for rounding, and
/// go on from their checkpoint bit for bit.
#[test]
fn two_devices_end_where_one_does() {
    let config = config(2, 4);
    let single = fit(state(), &cases(None), &config, None, &mut go_on).unwrap();
    let options =
        StateOptions { others: vec![Device::flex()], ..StateOptions::new(&Device::flex()) };
    let network =
        network().init_seeded(Initialisation::NnUNetV1, 5, &options.training_device()).unwrap();
    let begin = || TrainingState::new(network.clone(), &options);
    let double = fit(begin(), &cases(None), &config, None, &mut go_on).unwrap();
    let losses = |state: &TrainingState| -> Vec<f64> {
        state.progress.history.iter().map(|r| r.train_loss).collect()
    };
    assert_eq!(losses(&single).len(), losses(&double).len());
    let pairs = losses(&single).into_iter().zip(losses(&double));
    let worst = pairs.map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-4, "{:?} {:?}", losses(&single), losses(&double));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LATEST);
    let half = FitConfig { num_epochs: 1, ..config.clone() };
    let stopped = fit(begin(), &cases(None), &half, None, &mut go_on).unwrap();
    stopped.save(&path, &serde_json::Value::Null).unwrap();
    let checkpoint = TrainingCheckpoint::open(&path).unwrap();
    let again = TrainingState::from_checkpoint(&checkpoint, &options).unwrap();
    let [a, b] = [stopped, again].map(|s| fit(s, &cases(None), &config, None, &mut go_on).unwrap());
    assert!(bits(&a) == bits(&b), "weights or momentum differ");

    let mut odd = config;
    odd.training.batch_size = 3;
    let line = fit(begin(), &cases(None), &odd, None, &mut go_on).err().unwrap().to_string();
    assert_eq!(line, "batch size: expected a multiple of the 2 devices, found 3");
}

#[test]
fn a_finished_run_is_left_alone() {
    let config = config(1, 2);
    let folder = tempfile::tempdir().unwrap();
    let fold = FoldFolder::at(folder.path());
    let state = fit(state(), &cases(None), &config, Some(&fold), &mut go_on).unwrap();
    let files = || {
        let entries = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path());
        let mut files: Vec<_> = entries
            .map(|p| {
                (p.file_name().unwrap().to_owned(), crc32fast::hash(&std::fs::read(&p).unwrap()))
            })
            .collect();
        files.sort();
        files
    };
    let before = files();
    let mut on_event = |event: FitEvent<'_>| panic!("{event:?}");
    fit(state, &cases(None), &config, Some(&fold), &mut on_event).unwrap();
    assert_eq!(files(), before);
}

/// Killed after the last epoch was saved and before the final checkpoint was.
#[test]
fn a_run_without_its_final_checkpoint_is_finished() {
    let config = config(1, 2);
    let folder = tempfile::tempdir().unwrap();
    let fold = FoldFolder::at(folder.path());
    let state = fit(state(), &cases(None), &config, Some(&fold), &mut go_on).unwrap();
    std::fs::rename(fold.path.join(FINAL), fold.path.join(LATEST)).unwrap();
    let expected = std::fs::read(fold.path.join(LATEST)).unwrap();
    fit(state, &cases(None), &config, Some(&fold), &mut go_on).unwrap();
    assert_eq!(std::fs::read(fold.path.join(FINAL)).unwrap(), expected);
    assert!(!fold.path.join(LATEST).is_file());
}

/// Killed after the final checkpoint was saved and before the latest one was removed.
#[test]
fn the_latest_checkpoint_of_a_finished_run_goes() {
    let config = config(1, 2);
    let folder = tempfile::tempdir().unwrap();
    let fold = FoldFolder::at(folder.path());
    let state = fit(state(), &cases(None), &config, Some(&fold), &mut go_on).unwrap();
    std::fs::copy(fold.path.join(FINAL), fold.path.join(LATEST)).unwrap();
    fit(state, &cases(None), &config, Some(&fold), &mut go_on).unwrap();
    assert!(!fold.path.join(LATEST).is_file() && fold.is_final());
}

#[test]
fn a_loss_that_is_no_number_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let fold = FoldFolder::at(folder.path());
    let config = config(50, 1);
    let error = fit(state(), &cases(Some(f32::NAN)), &config, Some(&fold), &mut go_on);
    let line = error.err().expect("the run stops").to_string();
    assert!(line.starts_with("the loss is NaN at epoch "), "{line}");
    assert!(line.contains("case_2") && line.contains("iteration 0"), "{line}");
    let last_good = fold.newest_checkpoint();
    match &last_good {
        Some(file) => assert!(line.ends_with(&file.display().to_string()), "{line}"),
        None => assert!(line.ends_with("last good checkpoint: none"), "{line}"),
    }
    // What is on the disk is good.
    if let Some(file) = last_good {
        let checkpoint = TrainingCheckpoint::open(&file).unwrap();
        for (name, data) in checkpoint.read_all(Group::Weights).unwrap() {
            assert!(data.iter::<f32>().all(f32::is_finite), "{name}");
        }
    }
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let check = |config: FitConfig, word: &str| {
        let line = config.check().unwrap_err().to_string();
        assert!(line.starts_with(word), "{line}");
    };
    let good = config(1, 1);
    good.check().unwrap();
    check(FitConfig { num_epochs: 0, ..good.clone() }, "epochs");
    check(FitConfig { num_iterations: 0, ..good.clone() }, "iterations");
    check(FitConfig { accumulate: 0, ..good.clone() }, "batches");
    check(FitConfig { initial_lr: f64::NAN, ..good.clone() }, "learning rate");
}
