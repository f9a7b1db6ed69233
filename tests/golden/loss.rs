//! Oracle B: dice plus cross-entropy of both versions, their gradients, and deep supervision.

use super::device;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ndarray::{Array3, ArrayD, Axis, Ix3};
use serde_json::Value;
use stunet::train::loss::deep_supervision::{scales, target_pyramid};
use stunet::train::loss::{Loss, LossConfig, LossRoute, LossValue};
use stunet_testing::compare::difference;
use stunet_testing::oracle::{self, Golden, Npz, Part};
use stunet_testing::prng;
use stunet_testing::say;

/// Relative bound on values, and on gradients in L2 and at their peak.
const BOUND: f64 = 1e-5;

/// One recorded loss.
struct Case {
    name: String,
    json: Value,
    arrays: Npz,
    config: LossConfig,
}

pub(crate) fn tests(golden: &mut Golden) {
    let with = |what: &'static str| move |part: &Part| names_of(part, what);
    golden.each("loss::single_scale", &["B_loss"], with("logits"), single_scale);
    golden.each("loss::deep_supervision", &["B_loss"], with("target1"), deep_supervision);
    golden.each("loss::target_pyramids", &["B_loss"], with("label"), target_pyramid_of);
}

/// The cases that recorded something, by version and name: `v2_2.8 v2_basic_bd`.
fn names_of(part: &Part, what: &str) -> Vec<String> {
    let files = std::fs::read_dir(part.path("B_loss")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
    files.sort();
    let cases = files.iter().flat_map(|path| {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let version = stem.strip_prefix("loss_").expect("loss_<version>.json").to_owned();
        let names: Vec<_> = oracle::json(path).as_object().unwrap().keys().cloned().collect();
        names.into_iter().map(move |name| format!("{version}::{name}"))
    });
    cases
        .filter(|name| {
            let case = open(part, name);
            case.arrays.has(&case.path(what))
        })
        .collect()
}

/// A recording without arrays of its own names the cases of another of its version.
fn open(part: &Part, name: &str) -> Case {
    let (version, key) = name.split_once("::").unwrap();
    let path = part.path(&format!("B_loss/loss_{version}.json"));
    let own = path.with_extension("npz");
    let arrays = if own.is_file() { own } else { path.with_file_name("loss_v2_2.2.npz") };
    let json = oracle::json(&path)[key].clone();
    let batch_dice = json["batch_dice"].as_bool().unwrap_or(true);
    let mut config = match version.split('_').next().unwrap() {
        "v1" => LossConfig::v1(batch_dice),
        "v2" => LossConfig::v2(batch_dice),
        other => panic!("unknown version {other}"),
    };
    // 2.8 leaves the scale without weight out, as v1 does.
    if json["lowest_grad"].as_str() == Some("None") {
        config.zero_weight = LossConfig::v1(true).zero_weight;
    }
    config.ignore_label = json["ignore_label"].as_i64().map(|label| label as i32);
    Case { name: name.to_owned(), json, arrays: Npz::open(&arrays), config }.named(key)
}

impl Case {
    /// Takes the arrays' own name for the case.
    fn named(mut self, key: &str) -> Self {
        self.json["key"] = key.into();
        self
    }

    fn array(&self, what: &str) -> ArrayD<f64> {
        self.arrays.f64(&self.path(what))
    }

    fn path(&self, what: &str) -> String {
        format!("{}/{what}", self.json["key"].as_str().unwrap())
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.json[key].as_f64()
    }

    fn labels(&self, what: &str, device: &Device) -> Tensor<4, Int> {
        let labels = self.array(what);
        let [n, _, z, y, x]: [usize; 5] = labels.shape().to_vec().try_into().unwrap();
        let values: Vec<i32> = labels.iter().map(|&v| v as i32).collect();
        Tensor::from_data(TensorData::new(values, [n, z, y, x]), device)
    }

    /// The value under some evaluation, and the gradient of each output.
    fn run(
        &self,
        evaluation: LossRoute,
        weights: Vec<f64>,
        outputs: Vec<Tensor<5>>,
        targets: &[Tensor<4, Int>],
    ) -> (LossValue, Vec<Option<Vec<f32>>>) {
        let config = LossConfig { evaluation, weights, ..self.config.clone() };
        let loss = Loss::new(config).unwrap();
        let leaves: Vec<_> = outputs.into_iter().map(|t| t.autodiff().require_grad()).collect();
        let (value, grads) = loss.backward(leaves.clone(), targets);
        let gradient =
            |leaf: &Tensor<5>| Some(leaf.grad(&grads)?.into_data().try_to_vec::<f32>().unwrap());
        (value, leaves.iter().map(gradient).collect())
    }

    fn assert_number(&self, what: &str, found: f64, expected: f64) {
        let error = (found - expected).abs() / expected.abs();
        say!("{} {what}: {found:.7} (relative {error:.1e}, bound {BOUND:.0e})", self.name);
        assert!(error <= BOUND, "{} {what}: expected {expected}, found {found}", self.name);
    }

    /// The gradient, or the sample of it that was recorded, within the bound.
    fn assert_gradient(&self, what: &str, found: &[f32]) {
        let expected: Vec<f64> = self.array(what).iter().copied().collect();
        let stride = found.len().div_ceil(expected.len()).max(1);
        let found: Vec<f32> = found.iter().step_by(stride).copied().collect();
        let largest = expected.iter().fold(0f64, |a, b| a.max(b.abs()));
        let d = difference(&found, &expected);
        let peak = if largest > 0.0 { d.peak / largest } else { d.peak };
        say!(
            "{} {what}: relative L2 {:.1e}, peak {peak:.1e} (bound {BOUND:.0e})",
            self.name,
            d.relative_l2
        );
        assert!(peak <= BOUND, "{} {what}: peak {peak:e} of the largest", self.name);
        assert!(largest == 0.0 || d.relative_l2 <= BOUND, "{} {what}: {d:?}", self.name);
    }
}

/// The device's own choice, and Burn's operators.
const EVALUATIONS: [LossRoute; 2] = [LossRoute::Automatic, LossRoute::Device];

fn single_scale(part: &Part, name: &str) {
    let (case, device) = (open(part, name), device());
    let logits = case.arrays.f32(&case.path("logits"));
    let shape = logits.shape().to_vec();
    let logits = TensorData::new(logits.into_iter().collect(), shape);
    let targets = [case.labels("target", &device)];
    for evaluation in EVALUATIONS {
        let logits = Tensor::<5>::from_data(logits.clone(), &device);
        let (value, gradients) = case.run(evaluation, vec![1.0], vec![logits], &targets);
        case.assert_number("loss", value.total, case.number("loss").unwrap());
        for (what, found) in [("dice", value.dice), ("ce", value.cross_entropy)] {
            if let Some(expected) = case.number(what) {
                case.assert_number(what, found, expected);
            }
        }
        case.assert_gradient("grad", gradients[0].as_ref().unwrap());
    }
}

/// Seed and scale of the logits of deep supervision where a recording keeps neither.
const UNRECORDED: (f64, f64) = (121.0, 2.0);

fn deep_supervision(part: &Part, name: &str) {
    let (case, device) = (open(part, name), device());
    let weights: Vec<f64> = serde_json::from_value(case.json["weights"].clone()).unwrap();
    let seed = case.number("seed_logits").unwrap_or(UNRECORDED.0);
    let scale = case.number("scale").unwrap_or(UNRECORDED.1);
    let classes = case.array("grad1").shape()[1];
    let targets: Vec<_> =
        (0..weights.len()).map(|i| case.labels(&format!("target{i}"), &device)).collect();
    for evaluation in EVALUATIONS {
        let logits = |(level, target): (usize, &Tensor<4, Int>)| {
            let [n, z, y, x] = target.dims();
            let count = n * classes * z * y * x;
            let values = prng::uniform(seed as u64, level as u64, count);
            let values: Vec<f32> = values.into_iter().map(|v| v * scale as f32).collect();
            Tensor::from_data(TensorData::new(values, [n, classes, z, y, x]), &device)
        };
        let outputs = targets.iter().enumerate().map(logits).collect();
        let (value, gradients) = case.run(evaluation, weights.clone(), outputs, &targets);
        case.assert_number("loss", value.total, case.number("loss").unwrap());
        assert_eq!(gradients.len(), weights.len());
        for (level, gradient) in gradients.iter().enumerate() {
            assert_level(&case, level, weights[level], gradient.as_deref());
        }
    }
}

/// The gradient of one scale: as recorded, none, or exactly 0.
fn assert_level(case: &Case, level: usize, weight: f64, gradient: Option<&[f32]>) {
    let skipped = case.json["lowest_grad_is_none"] == true || case.json["lowest_grad"] == "None";
    match gradient {
        Some(gradient) if weight == 0.0 => {
            assert!(!skipped, "{}: scale {level} has a gradient", case.name);
            assert!(gradient.iter().all(|&v| v == 0.0), "{}: scale {level}", case.name);
        }
        Some(gradient) => case.assert_gradient(&format!("grad{level}"), gradient),
        None => assert!(skipped && weight == 0.0, "{}: no gradient at {level}", case.name),
    }
}

fn target_pyramid_of(part: &Part, name: &str) {
    let case = open(part, name);
    let recorded: Vec<[f64; 3]> = serde_json::from_value(case.json["scales"].clone()).unwrap();
    if let Ok(pools) = serde_json::from_value::<Vec<[usize; 3]>>(case.json["pools"].clone()) {
        assert_eq!(scales(&pools), recorded, "{}", case.name);
    }
    let labels = case.array("label");
    for (sample, labels) in labels.axis_iter(Axis(0)).enumerate() {
        let labels = labels.index_axis_move(Axis(0), 0).into_dimensionality::<Ix3>().unwrap();
        let pyramid = target_pyramid(labels, &recorded);
        assert_eq!(pyramid.len(), recorded.len(), "{}", case.name);
        for (level, found) in pyramid.iter().enumerate() {
            let expected = case.array(&format!("target{level}"));
            let expected = expected.index_axis(Axis(0), sample).index_axis_move(Axis(0), 0);
            let expected: Array3<f64> = expected.to_owned().into_dimensionality().unwrap();
            assert_eq!(*found, expected, "{} level {level}", case.name);
        }
    }
}
