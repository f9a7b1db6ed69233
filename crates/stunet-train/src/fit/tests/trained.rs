use super::*;
use crate::optimiser::AdamSettings;
use crate::parts::Parts;
use crate::rates::LayerRates;
use crate::trained::LowRankOptions;
use burn::module::Module;
use std::collections::BTreeSet;
use stunet_model::{LowRankConfig, ParameterSource, StuNet};

fn options() -> StateOptions {
    StateOptions::new(&Device::flex())
}

/// Wide enough for factors of rank 1 everywhere.
fn begin(options: &StateOptions) -> TrainingState {
    let device = options.training_device();
    let network = network().init_seeded(Initialisation::NnUNetV1, 5, &device).unwrap();
    TrainingState::try_new(network, options).unwrap()
}

fn low_rank() -> LowRankOptions {
    LowRankOptions { factors: LowRankConfig { rank: 1, alpha: 2.0 }, whole: Vec::new(), seed: 9 }
}

/// Values of every parameter as a file would receive them.
fn values(network: &StuNet) -> Vec<(String, Vec<f32>)> {
    let mut source = network.source();
    let specs = network.config().parameter_specs().into_iter();
    specs
        .map(|spec| {
            let data = source.parameter(&spec).unwrap();
            (spec.name, data.try_to_vec::<f32>().unwrap())
        })
        .collect()
}

fn moved(before: &StuNet, after: &StuNet) -> BTreeSet<String> {
    let pairs = values(before).into_iter().zip(values(after));
    pairs.filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0).collect()
}

/// What moved in a few steps of a run, and the names of its momentum.
fn trained(options: &StateOptions) -> (BTreeSet<String>, BTreeSet<String>) {
    let start = begin(options);
    let before = start.network().clone();
    let config = FitConfig { initial_lr: 0.1, ..config(1, 3) };
    let end = fit(start, &cases(None), &config, None, &mut go_on).unwrap();
    let (state, groups) = end.to_parts(serde_json::Value::Null);
    assert_eq!(state.low_rank, options.low_rank.as_ref().map(|low_rank| low_rank.factors));
    let momentum = groups.into_iter().find(|(group, _)| *group == Group::Momentum).unwrap().1;
    (moved(&before, end.network()), momentum.into_iter().map(|(name, _)| name).collect())
}

/// Biases that a norm follows get a gradient of zero; weight decay moves what is not zero.
fn can_move(name: &str) -> bool {
    !name.ends_with(".bias")
        || name.contains("norm")
        || name.contains("heads")
        || name.contains("skip")
}

#[test]
fn frozen_parts_stay_and_have_no_momentum() {
    for (parts, recomputed) in [
        ("encoder", false),
        ("encoder", true),
        ("stage0..3", false),
        ("stage0..3", true),
        ("stage4,decoder1", true),
        ("encoder,decoder", false),
        ("encoder,decoder", true),
        ("decoder,heads", true),
    ] {
        let frozen: Parts = parts.parse().unwrap();
        let options = StateOptions {
            frozen: frozen.clone(),
            checkpoint_activations: recomputed,
            ..options()
        };
        let (moved, momentum) = trained(&options);
        for spec in network().parameter_specs() {
            // The coarsest head has no weight in the loss.
            let learns = !frozen.contains(&spec) && !spec.name.starts_with("decoder.heads.0.");
            assert_eq!(momentum.contains(&spec.name), learns, "{parts}: {}", spec.name);
            assert!(learns || !moved.contains(&spec.name), "{parts}: {} moved", spec.name);
            if learns && can_move(&spec.name) && spec.name.ends_with("weight") {
                assert!(moved.contains(&spec.name), "{parts}: {} stayed", spec.name);
            }
        }
    }
}

/// What is frozen does not change the gradients of the rest, and recomputing stops where nothing
/// more is trained.
#[test]
fn what_is_trained_has_the_gradients_of_a_run_without() {
    let velocities = |options: &StateOptions| {
        let options = options.clone().with_optimiser(crate::optimiser::SgdConfig {
            max_norm: None,
            ..crate::optimiser::SgdConfig::default()
        });
        let end = fit(begin(&options), &cases(None), &config(1, 1), None, &mut go_on).unwrap();
        let (_, groups) = end.to_parts(serde_json::Value::Null);
        groups.into_iter().find(|(group, _)| *group == Group::Momentum).unwrap().1
    };
    let all = velocities(&options());
    for parts in ["encoder", "stage0..4", "encoder,decoder2..4", "heads"] {
        for checkpoint_activations in [false, true] {
            let frozen: Parts = parts.parse().unwrap();
            let found = velocities(&StateOptions { frozen, checkpoint_activations, ..options() });
            assert!(found.len() < all.len() && !found.is_empty());
            // Under a norm a bias has a gradient of rounding alone.
            for (name, velocity) in found.into_iter().filter(|(name, _)| can_move(name)) {
                let (_, expected) = all.iter().find(|(other, _)| *other == name).unwrap();
                let largest = expected.iter::<f64>().fold(0.0, |a: f64, b| a.max(b.abs()));
                for (a, b) in velocity.iter::<f64>().zip(expected.iter::<f64>()) {
                    assert!((a - b).abs() <= 1e-5 * largest.max(1e-6), "{parts} {name}: {a} {b}");
                }
            }
        }
    }
}

/// Cut off after every step and continued with options that do not name what is frozen.
fn check_resumed(name: &str, options: &StateOptions, config: &FitConfig) -> TrainingState {
    let straight = fit(begin(options), &cases(None), config, None, &mut go_on).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fold = FoldFolder::at(folder.path());
    let resumed = StateOptions { frozen: Parts::none(), low_rank: None, ..options.clone() };
    let mut running = begin(options);
    while !running.is_complete(config) {
        let mut stop = |event: FitEvent<'_>| match event {
            FitEvent::Step(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        fit(running, &cases(None), config, Some(&fold), &mut stop).unwrap();
        let file = TrainingCheckpoint::open(&fold.newest_checkpoint().unwrap()).unwrap();
        running = TrainingState::from_checkpoint(&file, &resumed).unwrap();
    }
    assert!(bits(&running) == bits(&straight), "{name}: other bits");
    let [first, .., last] = &straight.progress.history[..] else { panic!("two epochs or more") };
    assert!(last.train_loss < first.train_loss, "{name}: {first:?} {last:?}");
    let [a, b] = [&running, &straight].map(|state| state.to_parts(serde_json::Value::Null).0);
    assert_eq!((a.frozen, a.low_rank), (b.frozen, b.low_rank), "{name}");
    straight
}

#[test]
fn what_is_trained_is_remembered_bit_for_bit() {
    let config = config(2, 4);
    let check = |name: &str, change: &dyn Fn(&mut StateOptions)| {
        let mut options = StateOptions { ema: Some(0.5), ..options() };
        change(&mut options);
        check_resumed(name, &options, &config);
    };
    check("frozen", &|options| options.frozen = Parts::encoder());
    check("low rank", &|options| options.low_rank = Some(low_rank()));
    check("low rank, recomputed in bf16", &|options| {
        options.low_rank = Some(low_rank());
        options.checkpoint_activations = true;
        options.precision = Precision::Bf16;
    });
    check("low rank on two devices", &|options| {
        options.low_rank = Some(low_rank());
        options.frozen = "stage0".parse().unwrap();
        options.others = vec![Device::flex()];
    });
    check("AdamW, rates by layer", &|options| {
        *options = options.clone().with_optimiser(AdamSettings::nnunet_adam());
        options.rates = LayerRates { decay: 0.9, factors: vec![("stage0".parse().unwrap(), 0.1)] };
    });
    check("Adam, low rank", &|options| {
        *options = options.clone().with_optimiser(AdamSettings::vanilla());
        options.low_rank = Some(low_rank());
    });
}

#[test]
fn low_rank_moves_weights_by_their_factors_alone() {
    let options = StateOptions { low_rank: Some(low_rank()), ..options() };
    let (moved, momentum) = trained(&options);
    for spec in network().parameter_specs() {
        let head = spec.name.contains("heads") && !spec.name.contains("heads.0.");
        let whole = head || spec.name.contains("norm");
        let adapted = spec.shape.len() == 5 && spec.shape[2] == 3;
        assert_eq!(momentum.contains(&spec.name), whole, "{}", spec.name);
        let factors =
            low_rank().factors.factor_specs(&spec).map(|spec| momentum.contains(&spec.name));
        assert_eq!(factors, [adapted; 2], "{}", spec.name);
        assert!(whole || adapted || !moved.contains(&spec.name), "{} moved", spec.name);
        assert!(!(adapted || head) || moved.contains(&spec.name), "{} stayed", spec.name);
    }
}

/// The sum leaves the checkpoint: a reader of weights needs to know of no factors.
#[test]
fn exports_hold_the_sum() {
    let options = StateOptions { low_rank: Some(low_rank()), ..options() };
    let folder = tempfile::tempdir().unwrap();
    let fold = FoldFolder::at(folder.path());
    let end = fit(begin(&options), &cases(None), &config(1, 4), Some(&fold), &mut go_on).unwrap();
    let checkpoint = TrainingCheckpoint::open(&folder.path().join(FINAL)).unwrap();
    let mut merged = checkpoint.merged(Group::Weights);
    let mut kept = checkpoint.source(Group::Weights);
    let mut acting = end.network_for_inference().source();
    let mut differ = 0;
    for spec in network().parameter_specs() {
        let [merged, kept, acting] = [
            merged.parameter(&spec).unwrap(),
            kept.parameter(&spec).unwrap(),
            acting.parameter(&spec).unwrap(),
        ]
        .map(|data| data.try_to_vec::<f32>().unwrap());
        differ += usize::from(merged != kept);
        for (a, b) in merged.iter().zip(&acting) {
            assert!((a - b).abs() <= 1e-6 * b.abs().max(1e-3), "{}: {a} {b}", spec.name);
        }
    }
    assert_eq!(differ, 22, "the weights of all 3x3x3 convolutions");
    let device = Device::flex();
    let [plain, adapted] = [
        StuNet::from_source(&network(), &mut checkpoint.merged(Group::Weights), &device).unwrap(),
        end.network().valid(),
    ];
    let x = || burn::tensor::Tensor::<5>::ones([1, 1, 8, 16, 32], &device);
    let bound = burn::tensor::Tolerance::<f32>::absolute(1e-4);
    plain.forward(x()).into_data().assert_approx_eq(&adapted.forward(x()).into_data(), bound);
}

#[test]
fn options_that_cannot_be_used_are_told() {
    let check = |change: &dyn Fn(&mut StateOptions), words: &str| {
        let mut options = options();
        change(&mut options);
        let device = options.training_device();
        let network = network().init_seeded(Initialisation::NnUNetV1, 5, &device).unwrap();
        let Err(error) = TrainingState::try_new(network, &options) else { panic!("{words}") };
        assert!(error.to_string().contains(words), "{error}");
    };
    check(&|o| o.frozen = "encoder,decoder,heads".parse().unwrap(), "a part that is trained");
    check(&|o| o.low_rank = Some(LowRankOptions::new(2)), "rank of the adapters: expected below 2");
    check(
        &|o| {
            o.low_rank = Some(low_rank());
            o.frozen = "encoder,decoder".parse().unwrap();
        },
        "a 3×3×3 convolution outside of the frozen parts",
    );
    check(&|o| o.rates.decay = 0.0, "factor of the learning rate: expected above 0");
}

/// A run that goes on at other rates by layer is another run.
#[test]
fn rates_by_layer_are_part_of_the_run() {
    let options =
        StateOptions { rates: LayerRates { decay: 0.8, ..LayerRates::default() }, ..options() };
    let folder = tempfile::tempdir().unwrap();
    let fold = FoldFolder::at(folder.path());
    fit(begin(&options), &cases(None), &config(1, 1), Some(&fold), &mut go_on).unwrap();
    let checkpoint = TrainingCheckpoint::open(&folder.path().join(FINAL)).unwrap();
    let Err(error) =
        TrainingState::from_checkpoint(&checkpoint, &StateOptions::new(&Device::flex()))
    else {
        panic!("other rates are refused")
    };
    assert!(error.to_string().contains("rate times 0.8 per stage towards the image"), "{error}");
}
