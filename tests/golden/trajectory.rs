//! Oracle C: twenty steps of training, loss by loss, down to the final weights and momentum.
//!
//! The recording holds every trajectory in f32 and in f64, and its two runs part: the gradient jumps
//! where an activation's input crosses zero, a value within rounding of zero lies on either side of
//! it in two correct programs, and the bottleneck's norms over a handful of voxels amplify the rest.
//! So our f64 run is held tightly against the recorded one, which leaves no room for a wrong rule;
//! our f32 run is given five times the recording's own distance between the two, and is run again
//! with the last bits of its input moved where a voxel fell on the other side.

use super::device;
use super::model::reference_key;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ndarray::ArrayView3;
use serde::Deserialize;
use std::collections::BTreeMap;
use stunet::model::{ParameterSpec, StuNet, StuNetConfig};
use stunet::train::loss::deep_supervision::{scales, target_pyramid};
use stunet::train::loss::{Loss, LossConfig};
use stunet::train::optimiser::{Sgd, SgdConfig};
use stunet::train::schedule::poly_lr;
use stunet_testing::compare::difference;
use stunet_testing::oracle::{self, Golden, Npz, Part};
use stunet_testing::prng::{self, Role};
use stunet_testing::say;

/// Relative bound on the first steps' losses.
const FIRST_STEPS: (usize, f64) = (5, 1e-4);
/// How much of the recording's own distance from f64 a correct f32 run may have.
const ROOM: f64 = 5.0;
/// Relative bound on our f64 run: what rounding in f64 may grow to in twenty steps.
const F64_BOUND: f64 = 1e-9;
/// Runs in which an activation may fall on the other side of its kink.
const NUM_ROUNDINGS: u64 = 8;

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

const RECORDED: &str = "C_train/trajectories.json";

pub(crate) fn tests(golden: &mut Golden) {
    golden.each("trajectory::twenty_steps", &[RECORDED], names, twenty_steps);
}

fn names(part: &Part) -> Vec<String> {
    oracle::json(&part.path(RECORDED)).as_object().unwrap().keys().cloned().collect()
}

fn open(part: &Part, name: &str) -> (Case, Npz) {
    let json = oracle::json(&part.path(RECORDED))[name].clone();
    let case: Case = serde_json::from_value(json).unwrap();
    // `<case>_final.npz`, or `_final_sampled.npz` where arrays were too large to keep whole.
    let paths =
        ["final", "final_sampled"].map(|end| part.path(&format!("C_train/{name}_{end}.npz")));
    let path = paths.into_iter().find(|p| p.is_file());
    let arrays = Npz::open(&path.unwrap_or_else(|| panic!("{name}: no final arrays")));
    (Case { name: name.to_owned(), ..case }, arrays)
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

    /// The input, with the last bit of half its values flipped unless `rounding` is 0.
    fn input(&self, step: usize, rounding: u64, device: &Device, dtype: DType) -> Tensor<5> {
        let count = self.batch_shape.iter().product();
        let values = prng::uniform(self.seed_weights + 8000, step as u64 % 4, count);
        let mut values: Vec<f32> = values.into_iter().map(|v| 1.5 * v).collect();
        if rounding > 0 {
            for (value, bits) in values.iter_mut().zip(prng::bits(rounding, 0, count)) {
                *value = f32::from_bits(value.to_bits() ^ (bits >> 63) as u32);
            }
        }
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

    /// Trains for as long as `goes_on` likes what it sees.
    fn run(
        &self,
        rounding: u64,
        device: &Device,
        dtype: DType,
        goes_on: impl Fn(&Trajectory) -> bool,
    ) -> Run {
        let device = device.clone().autodiff();
        let mut network = self.network(&device, dtype);
        let start = weights(&network);
        let loss = Loss::new(LossConfig::v1(true)).unwrap();
        let mut sgd = Sgd::new(SgdConfig::default(), &self.config());
        let mut trajectory = Trajectory::default();
        let steps = self.f32.losses.len();
        for step in 0..steps {
            let lr = poly_lr(0.01, step, steps);
            let outputs = network.forward_deep(self.input(step, rounding, &device, dtype));
            let (value, gradients) = loss.backward(outputs, &self.targets(step, &device));
            let (next, report) = sgd.step(network, gradients, lr);
            network = next;
            trajectory.losses.push(value.total);
            trajectory.grad_norms.push(report.grad_norm);
            trajectory.lrs.push(lr);
            let squares: f64 = weights(&network).values().flatten().map(|v| v * v).sum();
            trajectory.param_l2.push(squares.sqrt());
            if !goes_on(&trajectory) {
                break;
            }
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
    assert_eq!(a.len(), b.len(), "trajectories of different length");
    a.iter().zip(b).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

fn twenty_steps(part: &Part, name: &str) {
    let (device, (case, arrays)) = (device(), open(part, name));
    let exact = case.run(0, &Device::flex(), DType::F64, |_| true);
    assert_f64(&case, &exact);
    let mut last = Vec::new();
    for rounding in 0..NUM_ROUNDINGS {
        let run = case.run(rounding, &device, DType::F32, |t| beyond_first(&case, t).is_none());
        assert_untouched(&case, &run);
        last = beyond(&case, &arrays, &exact, &run);
        say!("{} rounding {rounding}: beyond the bounds: {last:?}", case.name);
        if last.is_empty() {
            break;
        }
    }
    assert_eq!(last, Vec::<String>::new(), "{}: beyond the bounds", case.name);
}

/// Our f64 run against the recorded one.
fn assert_f64(case: &Case, exact: &Run) {
    for (what, of) in COLUMNS {
        let (found, expected) = (of(&exact.trajectory), of(&case.f64));
        assert_eq!(found.len(), expected.len(), "{} f64 {what}: number of steps", case.name);
        let relative = found.iter().zip(expected).map(|(a, b)| a / b - 1.0);
        let worst = relative.fold(0.0, |worst: f64, r| worst.max(r.abs()));
        say!("{} f64 {what}: relative {worst:.1e} (bound {F64_BOUND:.0e})", case.name);
        assert!(worst <= F64_BOUND, "{} f64 {what}: {worst:e}", case.name);
    }
    let distance = largest_distance(&exact.trajectory.lrs, &case.f64.lrs);
    assert!(distance < 1e-15, "{}: learning rates", case.name);
}

/// What the reference never updates has not moved, has no momentum and did not decay.
fn assert_untouched(case: &Case, run: &Run) {
    for key in &case.never_updated {
        assert_eq!(run.weights[key], run.start[key], "{}: {key} has moved", case.name);
        assert!(!run.momentum.contains_key(key), "{}: {key} has momentum", case.name);
    }
}

/// A column of a trajectory.
type Column = fn(&Trajectory) -> &[f64];

const COLUMNS: [(&str, Column); 3] = [
    ("losses", |t| &t.losses),
    ("gradient norms", |t| &t.grad_norms),
    ("parameter norms", |t| &t.param_l2),
];

/// The first of the first steps whose loss is beyond the bound.
fn beyond_first(case: &Case, ours: &Trajectory) -> Option<String> {
    let (first, bound) = FIRST_STEPS;
    let losses = ours.losses.iter().zip(&case.f32.losses).take(first).enumerate();
    let mut errors = losses.map(|(step, (a, b))| (step, (a / b - 1.0).abs()));
    errors
        .find(|(_, error)| *error > bound)
        .map(|(step, error)| format!("step {step}: {error:.1e}"))
}

/// Every way in which a run is further from the truth than it may be.
fn beyond(case: &Case, arrays: &Npz, exact: &Run, run: &Run) -> Vec<String> {
    if let Some(step) = beyond_first(case, &run.trajectory) {
        return vec![step];
    }
    let mut beyond = Vec::new();
    let mut check = |what: &str, found: f64, own: f64| {
        let text = format!("{what}: {found:.2e} (recorded f32 from f64: {own:.2e}, room {ROOM})");
        say!("{} {text}", case.name);
        if found > ROOM * own {
            beyond.push(text);
        }
    };
    for (what, of) in COLUMNS {
        let own = largest_distance(of(&case.f32), of(&case.f64));
        check(what, largest_distance(of(&run.trajectory), of(&case.f64)), own);
    }
    let own = case.max_abs_final_weight_dev_f32_vs_f64;
    check("final weights", largest_difference(arrays, "w", &run.weights), own);
    // The recording has no f64 momentum: ours stands for it.
    let own = largest_difference(arrays, "m", &exact.momentum);
    check("final momentum", largest_difference(arrays, "m", &run.momentum), own);
    beyond
}

/// The largest difference of our final values of one kind (`w`eights or `m`omentum) from the
/// recorded ones.
fn largest_difference(arrays: &Npz, kind: &str, ours: &BTreeMap<String, Vec<f64>>) -> f64 {
    let pairs = recorded(arrays, kind, ours).into_iter();
    pairs.map(|(found, expected)| difference(&found, &expected).peak).fold(0.0, f64::max)
}

/// Our values and the recorded ones, both at the places the recording kept.
fn recorded(
    arrays: &Npz,
    kind: &str,
    ours: &BTreeMap<String, Vec<f64>>,
) -> Vec<(Vec<f64>, Vec<f64>)> {
    let prefix = format!("{kind}/");
    let names = arrays.names().iter().filter(|n| n.starts_with(&prefix) && !n.contains('#'));
    let all: Vec<_> = names
        .map(|name| {
            let key = &name[prefix.len()..];
            let expected: Vec<f64> = arrays.f64(name).iter().copied().collect();
            let found = ours.get(key).unwrap_or_else(|| panic!("no {kind}/{key} of ours"));
            let stride = found.len().div_ceil(expected.len()).max(1);
            (found.iter().step_by(stride).copied().collect(), expected)
        })
        .collect();
    assert_eq!(all.len(), ours.len(), "as many recorded {kind} as ours");
    all
}
