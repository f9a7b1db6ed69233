//! Oracle A: the network's logits at every scale, the gradient of every parameter, its cost.

use super::device;
use burn::tensor::{DType, Device, Tensor, TensorData, activation};
use serde_json::Value;
use std::collections::BTreeMap;
use stunet::model::{ParameterRef, ParameterSpec, StuNet, StuNetConfig, StuNetSize, cost};
use stunet_testing::compare::{assert_close, difference};
use stunet_testing::oracle::{self, Golden, Npz, Part};
use stunet_testing::prng::{self, Role, StateHash};
use stunet_testing::say;

/// One recorded network.
struct Case {
    name: String,
    config: StuNetConfig,
    /// Keys of the reference's state dict, in order.
    keys: Vec<String>,
    json: Value,
    arrays: Npz,
}

impl Case {
    /// The seeded network, in f32 or f64.
    fn network(&self, device: &Device, dtype: DType) -> StuNet {
        let seed = self.json["seed_weights"].as_u64().unwrap();
        let gain = self.json["seg_gain"].as_f64().unwrap_or(1.0);
        let mut index = 0;
        let mut source = |spec: &ParameterSpec| {
            let role = Role::of(&spec.name);
            let values = prng::parameter(seed, index, role, &spec.shape, gain);
            index += 1;
            Ok(TensorData::new(values, spec.shape.clone()).convert_dtype(dtype))
        };
        StuNet::from_source(&self.config, &mut source, device).unwrap()
    }

    fn tensor(&self, name: &str, device: &Device) -> Tensor<5> {
        let array = self.arrays.f32(name);
        let shape = array.shape().to_vec();
        let values = array.into_raw_vec_and_offset().0;
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

const CASES: &str = "A_model/cases.json";

pub(crate) fn tests(golden: &mut Golden) {
    let named = |part: &Part| {
        let all = oracle::json(&part.path(CASES));
        all.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let with = |arrays: &'static str| {
        move |part: &Part| {
            let mut names = named(part);
            names.retain(|name| {
                let recorded = Npz::open(&part.path(&format!("A_model/{name}.npz")));
                recorded.names().iter().any(|array| array.starts_with(arrays))
            });
            names
        }
    };
    let needs = &[CASES];
    golden.each("model::seeded_weights_hash_as_recorded", needs, named, seeded_weights_hash);
    golden.each("model::logits_at_every_scale", needs, named, logits_at_every_scale);
    let (linear, training) = (with("grad_linear"), with("grad_v1ds"));
    golden.each("model::gradients_of_the_linear_loss", needs, linear, gradients_of_linear);
    golden.each("model::gradients_of_the_training_loss", needs, training, gradients_of_training);
    golden.each("model::costs_as_recorded", &[COSTS], sizes, cost_as_recorded);
}

fn open(part: &Part, name: &str) -> Case {
    let json = &oracle::json(&part.path(CASES))[name];
    fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> T {
        serde_json::from_value(value.clone()).unwrap()
    }
    let mut strides: Vec<[usize; 3]> = parse(&json["pool_op_kernel_sizes"]);
    strides.resize(5, [1; 3]);
    let config = StuNetConfig {
        in_channels: parse(&json["input_channels"]),
        num_classes: parse(&json["num_classes"]),
        width: parse(&json["dims"]),
        depth: parse(&json["depth"]),
        strides: strides.try_into().unwrap(),
    };
    let specs = config.parameter_specs();
    let own_keys = || specs.iter().map(|s| (reference_key(&s.name), s.shape.clone())).collect();
    let keys: Option<Vec<(String, Vec<usize>)>> = parse(&json["keys"]);
    let keys = keys.unwrap_or_else(own_keys);
    assert_eq!(own_keys(), keys, "{name}: parameters in the order of the state dict");
    Case {
        name: name.to_owned(),
        config,
        keys: keys.into_iter().map(|(key, _)| key).collect(),
        json: json.clone(),
        arrays: Npz::open(&part.path(&format!("A_model/{name}.npz"))),
    }
}

/// The reference's key of one of our parameters.
pub(crate) fn reference_key(name: &str) -> String {
    let mut path = name.splitn(3, '.');
    let (half, part, rest) = (path.next().unwrap(), path.next().unwrap(), path.next().unwrap());
    match (half, part) {
        ("encoder", "stages") => format!("conv_blocks_context.{rest}").replace(".skip.", ".conv3."),
        ("decoder", "stages") => {
            format!("conv_blocks_localization.{rest}").replace(".skip.", ".conv3.")
        }
        ("decoder", "heads") => format!("seg_outputs.{rest}"),
        ("decoder", "upsample") => {
            format!("upsample_layers.{}", rest.replacen('.', ".conv.", 1))
        }
        other => panic!("unknown part {other:?}"),
    }
}

/// Every n-th value, as the recording kept them.
fn sample(values: &[f32], most: usize) -> Vec<f32> {
    values.iter().step_by(values.len().div_ceil(most).max(1)).copied().collect()
}

/// The sample a recording of `length` values kept: its limit was some power of two.
fn sample_like(values: &[f32], length: usize) -> Vec<f32> {
    let limits = (0..usize::BITS - 1).map(|bit| 1 << bit).filter(|&most| most >= length);
    let mut samples = limits.map(|most| sample(values, most));
    samples.find(|s| s.len() == length).expect("a recorded sample of the gradient")
}

fn seeded_weights_hash(part: &Part, name: &str) {
    let case = open(part, name);
    let mut hash = StateHash::default();
    let mut index = 0;
    case.network(&Device::flex(), DType::F32).for_each_parameter(&mut |_, parameter| {
        let values = parameter.to_data().try_to_vec::<f32>().unwrap();
        hash.update(&case.keys[index], &values);
        index += 1;
    });
    assert_eq!(index, case.keys.len());
    assert_eq!(hash.finish(), case.json["weights_sha256"].as_str().unwrap());
}

fn logits_at_every_scale(part: &Part, name: &str) {
    let (case, device) = (open(part, name), device());
    let network = case.network(&device, DType::F32);
    let input = case.tensor("input", &device);
    let finest = network.forward(input.clone()).into_data().try_to_vec::<f32>().unwrap();
    let outputs = network.forward_deep(input);
    let recorded = case.json["f64_maxdiff"].as_array().unwrap();
    assert_eq!(outputs.len(), recorded.len(), "as many scales as recorded");
    for (scale, (logits, own)) in outputs.into_iter().zip(recorded).enumerate() {
        let (peak, rmse) = ((3.0 * own.as_f64().unwrap()).max(5e-4), 5e-5);
        let found = logits.into_data().try_to_vec::<f32>().unwrap();
        if scale == 0 {
            assert_eq!(found, finest, "one head or five, the same logits");
        }
        let what = format!("{} out{scale}", case.name);
        let sampled = format!("out{scale}_sampled");
        if case.arrays.has(&sampled) {
            let expected = case.arrays.f32(&sampled);
            let found = sample(&found, expected.len());
            assert_close(&what, &found, expected.as_slice().unwrap(), peak, rmse);
        } else {
            let expected = case.arrays.f32(&format!("out{scale}"));
            assert_close(&what, &found, expected.as_slice().unwrap(), peak, rmse);
        }
    }
}

fn gradients_of_linear(part: &Part, name: &str) {
    check_gradients(&open(part, name), "grad_linear", "loss_linear", |case, device, outputs| {
        let seed = case.json["seed_linear"].as_u64().unwrap();
        let terms = outputs.into_iter().enumerate().map(|(i, out)| {
            let shape = out.dims();
            let values = prng::uniform(seed, i as u64, shape.iter().product());
            let weight = Tensor::<5>::from_data(TensorData::new(values, shape), device);
            let weight = weight.cast(out.dtype());
            (out * weight).mean() * (i + 1) as f32
        });
        terms.reduce(|a, b| a + b).unwrap()
    });
}

fn gradients_of_training(part: &Part, name: &str) {
    check_gradients(&open(part, name), "grad_v1ds", "loss_v1_ds", |case, device, outputs| {
        let weights = case.arrays.f64("ds_weights");
        assert_eq!(weights.len(), outputs.len());
        let terms = outputs.into_iter().zip(weights.iter()).enumerate();
        let terms = terms.filter(|(_, (_, weight))| **weight != 0.0).map(|(i, (out, &weight))| {
            let target = case.tensor(&format!("target{i}"), device);
            let target = target.cast(out.dtype());
            dice_and_cross_entropy(out, target) * weight as f32
        });
        terms.reduce(|a, b| a + b).unwrap()
    });
}

/// nnU-Net v1's loss with batch dice, as a plain composition; the real one is `stunet-train`'s.
fn dice_and_cross_entropy(logits: Tensor<5>, target: Tensor<5>) -> Tensor<1> {
    let classes = logits.dims()[1];
    let one_hot =
        |class: usize| target.clone().equal_elem(class as f32).float().cast(target.dtype());
    let one_hot = Tensor::cat((0..classes).map(one_hot).collect(), 1);
    let log_p = activation::log_softmax(logits.clone(), 1);
    let p = activation::softmax(logits, 1);
    let voxels = target.dims().iter().product::<usize>() as f32;
    let cross_entropy = (log_p * one_hot.clone()).sum() / -voxels;

    let per_class = |t: Tensor<5>| t.swap_dims(0, 1).flatten::<2>(1, 4).sum_dim(1).squeeze_dim(1);
    let overlap: Tensor<1> = per_class(p.clone() * one_hot.clone());
    let total: Tensor<1> = per_class(p) + per_class(one_hot);
    let smooth = 1e-5;
    let dice = (overlap * 2.0 + smooth) / (total + smooth + 1e-8);
    // The gradient of a selection by indices ends the program on lavapipe (Mesa 26) with kernels in SPIR-V.
    cross_entropy - dice.narrow(0, 1, classes - 1).mean()
}

/// Gradients by our parameter names; none where no loss reaches the parameter.
type Gradients = BTreeMap<String, Option<Vec<f32>>>;

/// Runs in which the activation's kink may fall on the other side, see [`check_gradients`].
const NUM_ROUNDINGS: u64 = 8;

/// Holds loss and gradients against the recording: each parameter within 1e-3 in relative L2, or
/// within three times the recording's own largest distance from f64 where that is more.
///
/// The gradient jumps where an activation's input crosses zero, and a value within rounding of zero
/// lies on either side of it in two correct programs: one such voxel moves the gradient of the
/// linear loss, whose sums nearly cancel, by more than the bound. So a parameter beyond the bound
/// is tried again with the input moved by its last bit, and must come within the bound then.
fn check_gradients(
    case: &Case,
    prefix: &str,
    loss_name: &str,
    loss: impl Fn(&Case, &Device, Vec<Tensor<5>>) -> Tensor<1>,
) {
    let device = device().autodiff();
    let bound = gradient_bound(case, prefix, &loss);
    let network = case.network(&device, DType::F32);
    let expected = case.arrays.f64(loss_name).iter().copied().next().unwrap();
    let mut beyond: Option<Vec<String>> = None;
    for rounding in 0..NUM_ROUNDINGS {
        let input = last_bits_moved(case.tensor("input", &device), rounding);
        let loss = loss(case, &device, network.forward_deep(input));
        let found = f64::from(loss.clone().into_data().try_to_vec::<f32>().unwrap()[0]);
        assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{}", case.name);

        let errors = gradient_errors(case, prefix, &gradients(&network, loss));
        let (worst, key) = largest(&errors);
        say!("{} {prefix}: {worst:.2e} (bound {bound:.1e}) at {key}", case.name);
        let still = |name: &String| beyond.as_ref().is_none_or(|b| b.contains(name));
        let now = errors.into_iter().filter(|(_, error)| *error > bound).map(|(key, _)| key);
        beyond = Some(now.filter(still).collect());
        if beyond.as_ref().is_some_and(Vec::is_empty) {
            break;
        }
    }
    assert_eq!(beyond, Some(Vec::new()), "{}: gradients beyond the bound", case.name);
}

/// The bound for one case, from the same gradients in f64 on the processor.
fn gradient_bound(
    case: &Case,
    prefix: &str,
    loss: impl Fn(&Case, &Device, Vec<Tensor<5>>) -> Tensor<1>,
) -> f64 {
    let device = Device::flex().autodiff();
    let network = case.network(&device, DType::F64);
    let outputs = network.forward_deep(case.tensor("input", &device).cast(DType::F64));
    let gradients = gradients(&network, loss(case, &device, outputs));
    let errors = gradient_errors(case, prefix, &gradients);
    let (own, key) = largest(&errors);
    say!("{} {prefix}: the recording is {own:.2e} from f64 at {key}", case.name);
    assert!(own <= 1e-2, "{}: {key}: f64 and the recording disagree", case.name);
    (3.0 * own).max(1e-3)
}

fn largest(errors: &[(String, f64)]) -> (f64, &str) {
    let worst = errors.iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("gradients");
    (worst.1, &worst.0)
}

/// The input with the last bit of half its values flipped; unchanged in the first round.
fn last_bits_moved(input: Tensor<5>, rounding: u64) -> Tensor<5> {
    if rounding == 0 {
        return input;
    }
    let (shape, device) = (input.dims(), input.device());
    let mut values = input.into_data().try_to_vec::<f32>().unwrap();
    let count = values.len();
    for (value, bits) in values.iter_mut().zip(prng::bits(rounding, 0, count)) {
        *value = f32::from_bits(value.to_bits() ^ (bits >> 63) as u32);
    }
    Tensor::from_data(TensorData::new(values, shape), &device)
}

fn gradients(network: &StuNet, loss: Tensor<1>) -> Gradients {
    let grads = loss.backward();
    let mut all = Gradients::new();
    network.for_each_parameter(&mut |spec, parameter| {
        let grad = match parameter {
            ParameterRef::Vector(p) => p.grad(&grads).map(Tensor::into_data),
            ParameterRef::Kernel(p) => p.grad(&grads).map(Tensor::into_data),
        };
        let values = |g: TensorData| g.convert::<f32>().try_to_vec::<f32>().unwrap();
        all.insert(spec.name.clone(), grad.map(values));
    });
    all
}

/// Relative L2 error of every parameter's gradient, by the reference's key. Biases before a norm
/// have no effect: their gradient is rounding noise and is held absolutely.
fn gradient_errors(case: &Case, prefix: &str, all: &Gradients) -> Vec<(String, f64)> {
    let mut errors = Vec::new();
    for (spec, key) in case.config.parameter_specs().iter().zip(&case.keys) {
        let name = format!("{prefix}/{key}");
        let found = all[&spec.name].as_deref();
        if !case.arrays.has(&name) {
            let none = found.is_none_or(|f| f.iter().all(|&v| v == 0.0));
            assert!(none, "{}: {key} has a gradient", case.name);
            continue;
        }
        let found = found.unwrap_or_else(|| panic!("{}: {key} has no gradient", case.name));
        let expected: Vec<f32> = case.arrays.f32(&name).iter().copied().collect();
        let d = difference(&sample_like(found, expected.len()), &expected);
        if spec.name.ends_with("conv1.bias") || spec.name.ends_with("conv2.bias") {
            assert!(d.peak <= 1e-4, "{}: {key} is not zero: {d:?}", case.name);
            continue;
        }
        let statistics = format!("{name}#stat");
        let norm_error = if case.arrays.has(&statistics) {
            let norm = found.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            (norm / case.arrays.f64(&statistics)[2] - 1.0).abs()
        } else {
            0.0
        };
        errors.push((key.clone(), d.relative_l2.max(norm_error)));
    }
    errors
}

const COSTS: &str = "A_model/params_macs_105cls_128.json";

/// The recorded sizes that are ours: `S_plans`, `S_iso`.
fn sizes(part: &Part) -> Vec<String> {
    let recorded = oracle::json(&part.path(COSTS));
    let names = recorded.as_object().unwrap().keys();
    names.filter(|name| size_named(name).is_some()).cloned().collect()
}

/// The size and the pools of a recorded name.
fn size_named(name: &str) -> Option<(StuNetSize, &str)> {
    let (letter, pools) = name.split_once('_')?;
    let is_ours = |s: &StuNetSize| s.name().starts_with(&letter.to_lowercase());
    let size = StuNetSize::ALL.into_iter().find(|s| letter.len() == 1 && is_ours(s))?;
    Some((size, pools))
}

fn cost_as_recorded(part: &Part, name: &str) {
    let recorded = oracle::json(&part.path(COSTS));
    let values = &recorded[name];
    let (size, pools) = size_named(name).unwrap();
    let mut config = StuNetConfig::new(size, 1, 105);
    if pools == "iso" {
        config.strides = [[2; 3]; 5];
    }
    let cost = cost::cost(&config, [128; 3]);
    let expected = |key: &str| values[key].as_u64().unwrap();
    assert_eq!(cost.parameters, expected("params"));
    assert_eq!(cost.conv_macs, expected("macs_total_all_heads"));
    assert_eq!(cost.conv_macs_main_head, expected("macs_total_main_head"));
    let style = &recorded["torchinfo_style_mult_adds_incl_bias_and_norm"][name];
    assert_eq!(cost.macs, style.as_u64().unwrap());
    let sizes: Vec<[usize; 3]> = serde_json::from_value(values["shapes"].clone()).unwrap();
    assert_eq!(config.stage_sizes([128; 3]).to_vec(), sizes);
}
