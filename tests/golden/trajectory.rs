//! Oracle C: twenty steps of training, loss by loss, down to the final weights and momentum.
//!
//! The recording holds every trajectory in f32 and in f64, and its two runs part: the bottleneck's
//! norms over a handful of voxels amplify rounding. So our f64 run is held tightly against the
//! recorded one, which leaves no room for a wrong rule, and our f32 run is given five times the
//! recording's own distance between the two.

use crate::device;
use crate::model::reference_key;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ndarray::ArrayView3;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use stunet::model::{ParameterSpec, StuNet, StuNetConfig};
use stunet::train::loss::deep_supervision::{scales, target_pyramid};
use stunet::train::loss::{Loss, LossConfig};
use stunet::train::optimiser::{Sgd, SgdConfig};
use stunet::train::schedule::poly_lr;
use stunet_testing::compare::difference;
use stunet_testing::oracle::{self, Npz};
use stunet_testing::prng::{self, Role};

/// Relative bound on the first steps' losses.
const FIRST_STEPS: (usize, f64) = (5, 1e-4);
/// How much of the recording's own distance from f64 a correct f32 run may have.
const ROOM: f64 = 5.0;
/// Relative bound on our f64 run: what rounding in f64 may grow to in twenty steps.
const F64_BOUND: f64 = 1e-7;

#[derive(Deserialize)]
struct Case {
    dims: [usize; 6],
    depth: [usize; 6],
    pools: [[usize; 3]; 5],
    seed_weights: u64,
    batch_shape: [usize; 5],
    num_classes: usize,
    max_abs_final_weight_dev_f32_vs_f64: f64,
    never_updated: Vec<String>,
    f32: Trajectory,
    f64: Trajectory,
    #[serde(skip)]
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Trajectory {
    losses: Vec<f64>,
    grad_norms: Vec<f64>,
    lrs: Vec<f64>,
    param_l2: Vec<f64>,
}

/// Where a run ended, by the reference's key.
struct Run {
    trajectory: Trajectory,
    weights: BTreeMap<String, Vec<f64>>,
    momentum: BTreeMap<String, Vec<f64>>,
    start: BTreeMap<String, Vec<f64>>,
}

fn cases() -> Vec<(Case, Npz)> {
    let Some(folder) = oracle::folder("C_train") else { return Vec::new() };
    let all: BTreeMap<String, Case> =
        serde_json::from_value(oracle::json(&folder.join("trajectories.json"))).unwrap();
    assert!(!all.is_empty(), "no recorded trajectories");
    let with_arrays = |(name, case): (String, Case)| {
        let arrays = Npz::open(&final_arrays(&folder, &name));
        (Case { name, ..case }, arrays)
    };
    all.into_iter().map(with_arrays).collect()
}

/// `<case>_final.npz`, or `_final_sampled.npz` where arrays were too large to keep whole.
fn final_arrays(folder: &std::path::Path, name: &str) -> PathBuf {
    let paths = ["final", "final_sampled"].map(|end| folder.join(format!("{name}_{end}.npz")));
    paths.into_iter().find(|p| p.is_file()).unwrap_or_else(|| panic!("{name}: no final arrays"))
}

impl Case {
    fn config(&self) -> StuNetConfig {
        StuNetConfig {
            in_channels: self.batch_shape[1],
            num_classes: self.num_classes,
            width: self.dims,
            depth: self.depth,
            strides: self.pools,
        }
    }

    fn network(&self, device: &Device, dtype: DType) -> StuNet {
        let mut index = 0;
        let mut source = |spec: &ParameterSpec| {
            let role = Role::of(&spec.name);
            let values = prng::parameter(self.seed_weights, index, role, &spec.shape, 1.0);
            index += 1;
            Ok(TensorData::new(values, spec.shape.clone()).convert_dtype(dtype))
        };
        StuNet::from_source(&self.config(), &mut source, device).unwrap()
    }

    fn input(&self, step: usize, device: &Device, dtype: DType) -> Tensor<5> {
        let count = self.batch_shape.iter().product();
        let values = prng::uniform(self.seed_weights + 8000, step as u64 % 4, count);
        let values: Vec<f32> = values.into_iter().map(|v| 1.5 * v).collect();
        let data = TensorData::new(values, self.batch_shape).convert_dtype(dtype);
        Tensor::from_data(data, (device, dtype))
    }

    /// Labels at every scale, finest first.
    fn targets(&self, step: usize, device: &Device) -> Vec<Tensor<4, Int>> {
        let [n, _, z, y, x] = self.batch_shape;
        let seed = self.seed_weights + 9000 + step as u64 % 4;
        let labels = prng::label_blobs(seed, [n, z, y, x], self.num_classes as u64);
        let samples = labels.chunks_exact(z * y * x).map(|sample| {
            let sample = ArrayView3::from_shape([z, y, x], sample).unwrap();
            target_pyramid(sample, &scales(&self.pools))
        });
        let samples: Vec<_> = samples.collect();
        let level = |level: usize| {
            let (z, y, x) = samples[0][level].dim();
            let values = samples.iter().flat_map(|s| s[level].iter().map(|&v| i32::from(v)));
            Tensor::from_data(TensorData::new(values.collect(), [n, z, y, x]), device)
        };
        (0..samples[0].len()).map(level).collect()
    }

    fn run(&self, device: &Device, dtype: DType) -> Run {
        let device = device.clone().autodiff();
        let mut network = self.network(&device, dtype);
        let start = weights(&network);
        let loss = Loss::new(LossConfig::v1(true)).unwrap();
        let mut sgd = Sgd::new(SgdConfig::default(), &self.config());
        let mut trajectory = Trajectory::default();
        let steps = self.f32.losses.len();
        for step in 0..steps {
            let lr = poly_lr(0.01, step, steps);
            let outputs = network.forward_deep(self.input(step, &device, dtype));
            let (value, gradients) = loss.backward(outputs, &self.targets(step, &device));
            let (next, report) = sgd.step(network, gradients, lr);
            network = next;
            trajectory.losses.push(value.total);
            trajectory.grad_norms.push(report.grad_norm);
            trajectory.lrs.push(lr);
            let squares: f64 = weights(&network).values().flatten().map(|v| v * v).sum();
            trajectory.param_l2.push(squares.sqrt());
        }
        let velocity = |(spec, v): (&ParameterSpec, Option<TensorData>)| {
            Some((reference_key(&spec.name), v?.iter::<f64>().collect()))
        };
        let momentum = sgd.velocities().filter_map(velocity).collect();
        Run { trajectory, weights: weights(&network), momentum, start }
    }
}

fn weights(network: &StuNet) -> BTreeMap<String, Vec<f64>> {
    let mut all = BTreeMap::new();
    network.for_each_parameter(&mut |spec, p| {
        all.insert(reference_key(&spec.name), p.to_data().iter::<f64>().collect());
    });
    all
}

fn largest_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

/// Holds one column of a run against the recorded f64: `ROOM` times as far as the recorded f32.
fn assert_column(
    case: &str,
    what: &str,
    of: impl Fn(&Trajectory) -> &Vec<f64>,
    ours: &Trajectory,
    recorded: &Case,
) {
    let own = largest_distance(of(&recorded.f32), of(&recorded.f64));
    let found = largest_distance(of(ours), of(&recorded.f64));
    println!("{case} {what}: {found:.2e} from f64; the recorded f32 run: {own:.2e}");
    assert!(found <= ROOM * own, "{case} {what}: {found:e}, bound {ROOM} * {own:e}");
}

#[test]
fn twenty_steps_in_f32() {
    let device = device();
    for (case, arrays) in cases() {
        let run = case.run(&device, DType::F32);
        let (name, ours) = (&case.name, &run.trajectory);
        let (first, bound) = FIRST_STEPS;
        for step in 0..first {
            let expected = case.f32.losses[step];
            let error = (ours.losses[step] / expected - 1.0).abs();
            println!("{name} step {step}: {:.7} (relative {error:.1e})", ours.losses[step]);
            assert!(error <= bound, "{name} step {step}: {error:e}, expected {expected}");
        }
        assert_eq!(ours.lrs.len(), case.f32.lrs.len());
        assert!(largest_distance(&ours.lrs, &case.f32.lrs) < 1e-15, "{name}: learning rates");
        assert_column(name, "losses", |t| &t.losses, ours, &case);
        assert_column(name, "gradient norms", |t| &t.grad_norms, ours, &case);
        assert_column(name, "parameter norms", |t| &t.param_l2, ours, &case);

        // Our f64 run stands for the truth where the recording has none: the momentum.
        let exact = case.run(&Device::flex(), DType::F64);
        let weight_bound = ROOM * case.max_abs_final_weight_dev_f32_vs_f64;
        assert_final(&case, &arrays, "w", &run.weights, &|_| weight_bound);
        let own = largest_recorded_distance(&arrays, "m", &exact.momentum);
        println!("{name}: the recorded momentum is {own:.2e} from f64");
        assert_final(&case, &arrays, "m", &run.momentum, &|_| ROOM * own);
        for key in &case.never_updated {
            assert_eq!(run.weights[key], run.start[key], "{name}: {key} has moved");
            assert!(!run.momentum.contains_key(key), "{name}: {key} has momentum");
        }
    }
}

#[test]
fn twenty_steps_in_f64() {
    for (case, _) in cases() {
        let ours = case.run(&Device::flex(), DType::F64).trajectory;
        for (what, found, expected) in [
            ("losses", &ours.losses, &case.f64.losses),
            ("gradient norms", &ours.grad_norms, &case.f64.grad_norms),
            ("parameter norms", &ours.param_l2, &case.f64.param_l2),
        ] {
            let relative = found.iter().zip(expected).map(|(a, b)| (a / b - 1.0).abs());
            let worst = relative.fold(0.0, f64::max);
            println!("{} {what}: relative {worst:.1e} (bound {F64_BOUND:.0e})", case.name);
            assert!(worst <= F64_BOUND, "{} {what}: {worst:e}", case.name);
        }
    }
}

/// The recorded final values of one kind (`w`eights or `m`omentum) held against ours.
fn assert_final(
    case: &Case,
    arrays: &Npz,
    kind: &str,
    ours: &BTreeMap<String, Vec<f64>>,
    bound: &dyn Fn(&str) -> f64,
) {
    let mut worst = (0.0, String::new());
    for (key, found, expected) in recorded(arrays, kind, ours) {
        let peak = difference(&found, &expected).peak;
        assert!(peak <= bound(&key), "{} {kind}/{key}: {peak:e} > {:e}", case.name, bound(&key));
        if peak >= worst.0 {
            worst = (peak, key);
        }
    }
    println!(
        "{} {kind}: at most {:.2e} (bound {:.2e}) at {}",
        case.name,
        worst.0,
        bound(""),
        worst.1
    );
}

fn largest_recorded_distance(arrays: &Npz, kind: &str, exact: &BTreeMap<String, Vec<f64>>) -> f64 {
    let peaks = recorded(arrays, kind, exact).into_iter();
    peaks.map(|(_, found, expected)| difference(&found, &expected).peak).fold(0.0, f64::max)
}

/// Key, our values and the recorded ones, both at the places the recording kept.
fn recorded(
    arrays: &Npz,
    kind: &str,
    ours: &BTreeMap<String, Vec<f64>>,
) -> Vec<(String, Vec<f64>, Vec<f64>)> {
    let prefix = format!("{kind}/");
    let names = arrays.names().iter().filter(|n| n.starts_with(&prefix) && !n.contains('#'));
    let all: Vec<_> = names
        .map(|name| {
            let key = name[prefix.len()..].to_owned();
            let expected: Vec<f64> = arrays.f64(name).iter().copied().collect();
            let found = ours.get(&key).unwrap_or_else(|| panic!("no {kind}/{key} of ours"));
            let stride = found.len().div_ceil(expected.len()).max(1);
            (key, found.iter().step_by(stride).copied().collect(), expected)
        })
        .collect();
    assert_eq!(all.len(), ours.len(), "as many recorded {kind} as ours");
    all
}
