use super::*;
use crate::batch::DeviceBatch;
use crate::loss::deep_supervision::weights;
use crate::optimiser::{BurnOptimiser, SgdConfig};
use crate::schedule::from_fn;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use burn_optim::AdamWConfig;
use stunet_data::augment::rand::RngExt;
use stunet_data::augment::{AugmentationStep, PatchRng, PatchTransform, PatchViewMut};
use stunet_data::loader::batch;
use stunet_model::StuNet;

/// Focal loss over all scales but the coarsest.
#[derive(Debug)]
struct Focal {
    gamma: f64,
}

impl Objective for Focal {
    fn describe(&self) -> String {
        format!("focal loss, gamma {}", self.gamma)
    }

    fn loss(&self, logits: &[Tensor<5>], targets: &[Tensor<4, Int>]) -> Tensor<1> {
        let scales = logits.iter().zip(targets).zip(weights(logits.len()));
        let terms = scales.filter(|(_, weight)| *weight > 0.0).map(|((logits, labels), weight)| {
            let labels: Tensor<5, Int> = labels.clone().unsqueeze_dim(1);
            let log_p = log_softmax(logits.clone(), 1).gather(1, labels);
            let rest = log_p.clone().exp().neg().add_scalar(1.0).powf_scalar(self.gamma);
            (rest * log_p).mean() * -weight
        });
        terms.reduce(|a, b| a + b).expect("an output")
    }
}

fn focal(num_epochs: usize, num_iterations: usize) -> FitConfig {
    config(num_epochs, num_iterations).with_objective(Focal { gamma: 2.0 })
}

fn begin(options: &StateOptions) -> TrainingState {
    let network = network().init_seeded(Initialisation::NnUNetV1, 5, &options.training_device());
    TrainingState::new(network.unwrap(), options)
}

/// Cut off after every step, each time continued from its checkpoint: the bits of the run that was
/// not.
fn check_resumed(name: &str, config: &FitConfig, options: &StateOptions) {
    let straight = fit(begin(options), &cases(None), config, None, &mut go_on).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fold = FoldFolder::at(folder.path());
    let mut running = begin(options);
    let mut stops = 0;
    while !running.is_complete(config) {
        let mut stop = |event: FitEvent<'_>| match event {
            FitEvent::Step(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        fit(running, &cases(None), config, Some(&fold), &mut stop).unwrap();
        let file = TrainingCheckpoint::open(&fold.newest_checkpoint().unwrap()).unwrap();
        running = TrainingState::from_checkpoint(&file, options).unwrap();
        stops += 1;
    }
    assert!(stops >= config.num_epochs * config.num_iterations, "{name}");
    assert!(bits(&running) == bits(&straight), "{name}: other bits");
    let [first, .., last] = &straight.progress.history[..] else { panic!("two epochs or more") };
    assert!(last.train_loss < first.train_loss, "{name}: {first:?} {last:?}");
    assert_eq!(last.train_loss, running.progress.history.last().unwrap().train_loss, "{name}");
    assert!(last.pseudo_dice.is_some() && last.val_loss.is_some_and(f64::is_finite), "{name}");
}

/// SGD's first velocity is the gradient.
#[test]
fn the_gradient_of_an_own_loss_is_autodiffs() {
    let sgd = SgdConfig { weight_decay: 0.0, max_norm: None, ..SgdConfig::default() };
    let options = StateOptions::new(&Device::flex()).with_optimiser(sgd);
    let config = focal(1, 1);
    let start = begin(&options);
    let (network, device) = (start.network().clone(), start.device());
    let cases = cases(None);
    let patches = batch(&*cases.training, &config.training, 0).unwrap();
    let DeviceBatch { images, targets } = DeviceBatch::new(&patches, &device);
    let loss = Focal { gamma: 2.0 }.loss(&network.forward_deep(images), &targets);
    let mut grads = loss.backward();
    let mut expected = Vec::new();
    network.for_each_parameter(&mut |spec, parameter| {
        let gradient = match parameter {
            stunet_model::ParameterRef::Vector(p) => p.val().grad_remove(&mut grads),
            stunet_model::ParameterRef::Kernel(p) => {
                p.val().grad_remove(&mut grads).map(|g| g.flatten(0, 4))
            }
        };
        if let Some(gradient) = gradient {
            expected.push((spec.name.clone(), gradient.to_data().as_bytes().to_vec()));
        }
    });
    let end = fit(start, &cases, &config, None, &mut go_on).unwrap();
    let (_, groups) = end.to_parts(serde_json::Value::Null);
    let (_, velocities) = groups.into_iter().find(|(group, _)| *group == Group::Momentum).unwrap();
    let found: Vec<_> =
        velocities.into_iter().map(|(name, v)| (name, v.as_bytes().to_vec())).collect();
    assert!(!expected.is_empty() && found == expected, "other gradients");
    assert_eq!(end.progress.history[0].train_loss, loss.into_data().iter::<f64>().sum::<f64>());
}

/// With everything that a run can have.
#[test]
fn an_own_loss_goes_on_bit_for_bit() {
    let check = |name: &str, change: &dyn Fn(&mut StateOptions), accumulate: usize| {
        let mut options = StateOptions { ema: Some(0.5), ..StateOptions::new(&Device::flex()) };
        change(&mut options);
        check_resumed(name, &FitConfig { accumulate, ..focal(2, 4) }, &options);
    };
    check("plain", &|_| (), 1);
    check("accumulated", &|_| (), 2);
    check("bf16", &|options| options.precision = Precision::Bf16, 1);
    check("f16", &|options| options.precision = Precision::F16, 1);
    check("recomputed", &|options| options.checkpoint_activations = true, 1);
    check("two devices", &|options| options.others = vec![Device::flex()], 1);
}

/// Recomputed activations and two devices make no other step, but for rounding.
#[test]
fn an_own_loss_is_the_same_however_it_is_computed() {
    let config = focal(1, 1);
    let run = |change: &dyn Fn(&mut StateOptions)| {
        let mut options = StateOptions::new(&Device::flex());
        change(&mut options);
        let end = fit(begin(&options), &cases(None), &config, None, &mut go_on).unwrap();
        let (_, groups) = end.to_parts(serde_json::Value::Null);
        let velocity = groups.into_iter().find(|(group, _)| *group == Group::Momentum).unwrap().1;
        let all: Vec<f64> = velocity.iter().flat_map(|(_, v)| v.iter::<f64>()).collect();
        (end.progress.history[0].train_loss, all)
    };
    let (value, expected) = run(&|_| ());
    let norm = expected.iter().map(|v| v * v).sum::<f64>().sqrt();
    let check = |name: &str, (found_value, found): (f64, Vec<f64>), bound: f64| {
        assert_eq!(found.len(), expected.len(), "{name}");
        let squares = found.iter().zip(&expected).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        let error = squares.sqrt() / norm;
        assert!(error <= bound, "{name}: {error:e}");
        assert!((found_value / value - 1.0).abs() <= bound, "{name}: {found_value} {value}");
    };
    check("recomputed", run(&|options| options.checkpoint_activations = true), 1e-6);
    check("two devices", run(&|options| options.others = vec![Device::flex()]), 1e-5);
}

/// Adam's moments and count of steps are in the checkpoint; the rate changes with every update.
#[test]
fn burns_optimiser_and_an_own_schedule_go_on_bit_for_bit() {
    let adam = || {
        let adam = AdamWConfig::new().with_weight_decay(0.01).with_amsgrad(true);
        BurnOptimiser::new("AdamW, weight decay 0.01, AMSGrad", adam.build())
    };
    let warm_up = || {
        from_fn("linear warm-up", |initial, at| {
            initial * (at.update() + 1) as f64 / at.num_updates() as f64
        })
    };
    let config = FitConfig { initial_lr: 3e-3, ..config(2, 4) }.with_schedule(warm_up());
    let check = |name: &str, change: &dyn Fn(&mut StateOptions)| {
        let base = StateOptions { ema: Some(0.5), ..StateOptions::new(&Device::flex()) };
        let mut options = base.with_optimiser(adam());
        change(&mut options);
        check_resumed(name, &config, &options);
    };
    check("plain", &|_| ());
    check("f16", &|options| options.precision = Precision::F16);
    check("two devices", &|options| options.others = vec![Device::flex()]);

    let options = StateOptions::new(&Device::flex()).with_optimiser(adam());
    let end = fit(begin(&options), &cases(None), &config, None, &mut go_on).unwrap();
    let rates: Vec<f64> = end.progress.history.iter().map(|record| record.lr).collect();
    assert_eq!(rates, [1.5e-3, 3e-3], "of the last update of each epoch");
    let (state, groups) = end.to_parts(serde_json::Value::Null);
    let moments = &groups.iter().find(|(group, _)| *group == Group::Optimiser).unwrap().1;
    // The coarsest head has no gradient, and so no moments.
    let with_gradient = network().parameter_specs().len() - 2;
    assert_eq!(moments.len(), 3 * with_gradient);
    assert_eq!(state.optimiser.len(), with_gradient, "a count of steps per parameter");
    let eight = |count: &crate::checkpoint::Scalar| *count == crate::checkpoint::Scalar::UInt(8);
    assert!(state.optimiser.values().all(eight), "{:?}", state.optimiser);
}

/// One step of Burn's SGD without momentum, by hand: clipped, with the loss scale taken out.
#[test]
fn burns_optimisers_get_clipped_gradients() {
    let sgd = burn_optim::SgdConfig::new().build();
    let run = |max_norm: Option<f64>| {
        let optimiser = BurnOptimiser::new("SGD", sgd.clone()).with_max_norm(max_norm);
        let options = StateOptions::new(&Device::flex()).with_optimiser(optimiser);
        let start = begin(&options);
        let before = flat(start.network());
        let end = fit(start, &cases(None), &config(1, 1), None, &mut go_on).unwrap();
        let moved = before.iter().zip(flat(end.network())).map(|(a, b)| f64::from(a - b).powi(2));
        (moved.sum::<f64>().sqrt() / 0.01, end.progress.history[0].grad_norm)
    };
    let (moved, norm) = run(None);
    assert!((moved / norm - 1.0).abs() < 1e-3, "{moved} {norm}");
    let (moved, same) = run(Some(norm / 2.0));
    assert!((moved / (norm / 2.0) - 1.0).abs() < 1e-3 && same == norm, "{moved} {norm}");
}

fn flat(network: &StuNet) -> Vec<f32> {
    let mut all = Vec::new();
    network.for_each_parameter(&mut |_, p| all.extend(p.to_data().iter::<f32>()));
    all
}

/// Shifts intensities; whether it is the same run, its description says.
#[derive(Debug)]
struct Shift(f32);

impl PatchTransform for Shift {
    fn describe(&self) -> String {
        format!("shift by up to {}", self.0)
    }

    fn apply(&self, mut patch: PatchViewMut<'_>, rng: &mut PatchRng) {
        patch.image += rng.random_range(-self.0..=self.0);
    }
}

fn shifted(mut config: FitConfig, by: f32) -> FitConfig {
    let recipe = Augmentation::v2(PATCH);
    let steps = recipe.steps().to_vec().into_iter().chain([AugmentationStep::own(Shift(by))]);
    config.training.augmentation = recipe.with_steps(steps).unwrap();
    config
}

#[test]
fn own_augmentation_goes_on_bit_for_bit() {
    check_resumed("shift", &shifted(config(2, 4), 0.5), &StateOptions::new(&Device::flex()));
}

#[test]
fn a_run_goes_on_with_its_own_parts_or_not_at_all() {
    let options = StateOptions::new(&Device::flex());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LATEST);
    let first = shifted(focal(1, 1), 0.5);
    let begun = fit(begin(&options), &cases(None), &first, None, &mut go_on).unwrap();
    begun.save(&path, &serde_json::Value::Null).unwrap();
    let checkpoint = TrainingCheckpoint::open(&path).unwrap();
    let again = || TrainingState::from_checkpoint(&checkpoint, &options).unwrap();
    assert_eq!(again().identity(), begun.identity());
    let refused = |config: FitConfig| {
        fit(again(), &cases(None), &config, None, &mut go_on).err().unwrap().to_string()
    };
    let more = || FitConfig { num_epochs: 2, ..first.clone() };
    assert_eq!(
        refused(more().with_objective(Focal { gamma: 1.5 })),
        "this run was begun with another loss: expected focal loss, gamma 2, found focal loss, gamma \
         1.5; go on with the same, or call TrainingState::forget_identity first to change it on purpose"
    );
    let built_in = Loss::new(LossConfig::v1(true)).unwrap();
    assert!(refused(more().with_objective(built_in)).contains("found Dice and cross-entropy of"));
    let constant = more().with_schedule(from_fn("constant", |initial, _| initial));
    assert!(
        refused(constant).contains("another learning rate schedule: expected polynomial decay")
    );
    assert!(
        refused(shifted(more(), 0.25)).contains("another augmentation: expected nnU-Net 2: rot")
    );

    let other = options.clone().with_optimiser(SgdConfig { momentum: 0.9, ..SgdConfig::default() });
    let line = TrainingState::from_checkpoint(&checkpoint, &other).err().unwrap().to_string();
    assert!(
        line.contains("another optimiser: expected SGD, Nesterov momentum 0.99, weight"),
        "{line}"
    );

    let mut changed = again();
    changed.forget_identity();
    let config = more().with_objective(Focal { gamma: 1.5 });
    let end = fit(changed, &cases(None), &config, None, &mut go_on).unwrap();
    assert!(end.is_complete(&config));
    fit(again(), &cases(None), &more(), None, &mut go_on).unwrap();

    // Checkpoints of earlier versions do not say what they began with.
    let mut old = checkpoint.state().clone();
    old.identity = None;
    let groups = [Group::Weights, Group::Momentum].map(|g| (g, checkpoint.read_all(g).unwrap()));
    crate::checkpoint::save(&path, &old, &groups).unwrap();
    let old = TrainingCheckpoint::open(&path).unwrap();
    let old = TrainingState::from_checkpoint(&old, &options).unwrap();
    let end = fit(old, &cases(None), &more(), None, &mut go_on).unwrap();
    assert_eq!(end.identity(), begun.identity(), "from now on it is kept");
}

#[test]
fn what_an_own_part_gets_wrong_is_an_error() {
    #[derive(Debug)]
    struct Constant;
    impl Objective for Constant {
        fn describe(&self) -> String {
            "constant".to_owned()
        }
        fn loss(&self, logits: &[Tensor<5>], _targets: &[Tensor<4, Int>]) -> Tensor<1> {
            logits[0].clone().detach().mean()
        }
    }
    for recomputed in [false, true] {
        let mut options = StateOptions::new(&Device::flex());
        options.checkpoint_activations = recomputed;
        let config = config(1, 1).with_objective(Constant);
        let error = fit(begin(&options), &cases(None), &config, None, &mut go_on).err().unwrap();
        assert!(
            error.to_string().starts_with("the loss (constant) carries no gradient"),
            "{error}"
        );
    }
    let config = config(1, 1).with_schedule(from_fn("broken", |_, _| f64::NAN));
    let error = fit(state(), &cases(None), &config, None, &mut go_on).err().unwrap().to_string();
    assert_eq!(
        error,
        "learning rate: expected a number of at least 0, found NaN at epoch 0, iteration 0"
    );
}
