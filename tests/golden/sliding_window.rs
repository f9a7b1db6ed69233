//! Oracle E: window starts, padding, importance maps, and predictions of a narrow network.

use burn::tensor::{Device, TensorData};
use ndarray::{Array4, ArrayD, Axis, Ix4};
use serde_json::Value;
use std::ops::ControlFlow;
use stunet::data::plans::{Accumulation, Reference};
use stunet::infer::InferError;
use stunet::infer::importance::importance;
use stunet::infer::sink::PlaneSink;
use stunet::infer::sliding_window::{Keep, WindowSettings, slide};
use stunet::infer::windows::Windows;
use stunet::model::{ParameterSpec, StuNet, StuNetConfig};
use stunet_testing::compare::assert_close;
use stunet_testing::oracle::{self, Golden, Npz, Part};
use stunet_testing::prng::{self, Role};
use stunet_testing::say;

const STARTS: &str = "E_sliding/steps_pads.json";
const V1: [&str; 2] = ["E_sliding/predict_v1.json", "E_sliding/predict_v1.npz"];
const VERSIONS_OF_V2: [(&str, Reference); 2] =
    [("2.2", Reference::NnUNetV22), ("2.8", Reference::NnUNetV28)];

pub(crate) fn tests(golden: &mut Golden) {
    golden.one("sliding_window::starts_as_recorded", &[STARTS], starts_as_recorded);
    golden.one("sliding_window::padding_as_recorded", &[STARTS], padding_as_recorded);
    let maps = arrays_of_v1(IMPORTANCE);
    golden.each("sliding_window::importance_of_v1", &[IMPORTANCE], maps, map_of_v1);
    let v2 = |file: &'static str| move |part: &Part| arrays_of_v2(part, file);
    let needs = ["E_sliding/gaussian_v2_2.2.npz", "E_sliding/gaussian_v2_2.8.npz"];
    golden.each("sliding_window::importance_of_v2", &needs, v2("gaussian"), map_of_v2);
    golden.each("sliding_window::probabilities_of_v1", &V1, softmaxes_of_v1, probabilities_of_v1);
    let needs = ["E_sliding/predict_v2_2.2.npz", "E_sliding/predict_v2_2.8.npz"];
    golden.each("sliding_window::logits_of_v2", &needs, v2("predict"), logits_of_v2);
}

const IMPORTANCE: &str = "E_sliding/gaussian_v1.npz";

fn arrays_of_v1(file: &'static str) -> impl Fn(&Part) -> Vec<String> {
    move |part| Npz::open(&part.path(file)).names().to_vec()
}

fn softmaxes_of_v1(part: &Part) -> Vec<String> {
    let mut names = arrays_of_v1(V1[1])(part);
    names.retain(|name| name.starts_with("v1_softmax"));
    names
}

/// The arrays of both versions: `2.8_logits_f16_mirror0`.
fn arrays_of_v2(part: &Part, file: &str) -> Vec<String> {
    let of = |(version, _)| {
        let arrays = recorded_by_v2(part, file, version);
        arrays.names().iter().map(|name| format!("{version}_{name}")).collect::<Vec<_>>()
    };
    VERSIONS_OF_V2.into_iter().flat_map(of).collect()
}

fn recorded_by_v2(part: &Part, file: &str, version: &str) -> Npz {
    Npz::open(&part.path(&format!("E_sliding/{file}_v2_{version}.npz")))
}

/// Version, what it is to us, and the array's name in the recording.
fn version_of(name: &str) -> (&'static str, Reference, &str) {
    let (version, name) = name.split_once('_').unwrap();
    let (version, reference) = VERSIONS_OF_V2.into_iter().find(|(v, _)| *v == version).unwrap();
    (version, reference, name)
}

fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn starts_as_recorded(part: &Part) {
    let recorded = oracle::json(&part.path(STARTS));
    let cases = recorded["steps"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let (image, patch) = (parse(&case["image"]), parse(&case["patch"]));
        let windows = Windows::new(image, patch, parse(&case["step_size"])).unwrap();
        let expected: [Vec<usize>; 3] = parse(&case["steps"]);
        assert_eq!(windows.starts(), &expected, "{case}");
    }
    say!("{} sets of starts", cases.len());
}

fn padding_as_recorded(part: &Part) {
    let recorded = oracle::json(&part.path(STARTS));
    let cases = recorded["pads"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let image: [usize; 3] = parse(&case["image"]);
        let windows = Windows::new(image, parse(&case["patch"]), 0.5).unwrap();
        assert_eq!(windows.padded_shape(), parse::<[usize; 3]>(&case["out"]), "{case}");
        let inside: [[usize; 2]; 3] = parse(&case["slicer"]);
        let below = windows.padding_below();
        assert_eq!([0, 1, 2].map(|a| [below[a], below[a] + image[a]]), inside, "{case}");
    }
    say!("{} paddings", cases.len());
}

fn map_of_v1(part: &Part, name: &str) {
    let expected = Npz::open(&part.path(IMPORTANCE)).f32(name);
    // `v1_gauss_16x24x32` is a whole map; `v1_gauss64x192x160_line0` and `_diag` are parts.
    let rest = name.trim_start_matches("v1_gauss").trim_start_matches('_');
    let (size, part) = rest.split_once('_').map_or((rest, ""), |(s, p)| (s, p));
    let map = importance(Reference::NnUNetV1, Accumulation::F32, size_of(size));
    check_map(name, &map, part, &expected, 2e-7);
}

fn map_of_v2(part: &Part, name: &str) {
    let (version, reference, array) = version_of(name);
    let expected = recorded_by_v2(part, "gaussian", version).f32(array);
    let rest = array.trim_start_matches("gauss").trim_start_matches('_');
    let (accumulation, rest) = match rest.split_once('_') {
        Some(("f32", rest)) => (Accumulation::F32, rest),
        Some(("f16", rest)) => (Accumulation::F16, rest),
        _ => (Accumulation::F16, rest),
    };
    let (size, part) = rest.split_once('_').map_or((rest, ""), |(s, p)| (s, p));
    let map = importance(reference, accumulation, size_of(size));
    // Half-precision maps are equal bit by bit.
    let bound = if accumulation == Accumulation::F16 { 0.0 } else { 2e-7 };
    check_map(name, &map, part, &expected, bound);
}

fn size_of(text: &str) -> [usize; 3] {
    let sizes: Vec<usize> = text.split('x').map(|n| n.parse().unwrap()).collect();
    match sizes[..] {
        [n] => [n; 3],
        [z, y, x] => [z, y, x],
        _ => panic!("{text}"),
    }
}

/// Holds a map, or the recorded part of it, to a bound relative to its peak.
fn check_map(
    name: &str,
    map: &ndarray::Array3<f32>,
    part: &str,
    expected: &ArrayD<f32>,
    bound: f64,
) {
    let shape = [map.dim().0, map.dim().1, map.dim().2];
    let centre = shape.map(|n| n / 2);
    let line = |axis: usize| -> Vec<f32> {
        let mut at = centre;
        (0..shape[axis])
            .map(|i| {
                at[axis] = i;
                map[at]
            })
            .collect()
    };
    let smallest = map.iter().copied().fold(f32::INFINITY, f32::min);
    let peak = map.iter().copied().fold(0f32, f32::max);
    let found: Vec<f64> = match part {
        "" => map.iter().map(|v| f64::from(*v)).collect(),
        // From corner to corner, in as many steps as the shortest axis has.
        "diag" => {
            let length = *shape.iter().min().unwrap();
            (0..length).map(|i| map[shape.map(|n| i * n / length)].into()).collect()
        }
        "min" => {
            let count = map.iter().filter(|v| **v == smallest).count();
            vec![smallest.into(), count as f64]
        }
        "min_max_sum" => {
            let sum = map.iter().map(|v| f64::from(*v)).sum();
            vec![smallest.into(), peak.into(), sum]
        }
        "line1" => line(1).into_iter().map(f64::from).collect(),
        _ => line(0).into_iter().map(f64::from).collect(),
    };
    let expected: Vec<f64> = expected.iter().map(|v| f64::from(*v)).collect();
    assert_eq!(found.len(), expected.len(), "{name}: arrays of different length");
    match part {
        // The count depends on the last digits of an underflow: the value does not.
        "min" => assert_relative(name, &found[..1], &expected[..1], 1e-3),
        "min_max_sum" => assert_relative(name, &found, &expected, 1e-5),
        _ => {
            let bound = bound * f64::from(peak);
            assert_close(name, &found, &expected, bound, bound);
        }
    }
}

fn assert_relative(name: &str, found: &[f64], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (f, e) in found.iter().zip(expected) {
        assert!((f / e - 1.0).abs() < bound, "{name}: {found:?} {expected:?}");
    }
}

/// Collects every plane into `[C, Z, Y, X]`.
pub(crate) struct Collect(pub Array4<f32>);

impl PlaneSink for Collect {
    fn plane(&mut self, z: usize, plane: &mut Vec<f32>) -> Result<(), InferError> {
        let mut target = self.0.index_axis_mut(Axis(1), z);
        let shape = target.raw_dim();
        let plane = ndarray::ArrayView3::from_shape(shape, plane).unwrap();
        target.assign(&plane);
        Ok(())
    }
}

/// The seeded network of a recording.
pub(crate) fn seeded(config: &StuNetConfig, json: &Value, device: &Device) -> StuNet {
    let seed = json["seed"].as_u64().unwrap();
    let gain = json["seg_gain"].as_f64().unwrap();
    let mut index = 0;
    let mut source = |spec: &ParameterSpec| {
        let values = prng::parameter(seed, index, Role::of(&spec.name), &spec.shape, gain);
        index += 1;
        Ok(TensorData::new(values, spec.shape.clone()))
    };
    StuNet::from_source(config, &mut source, device).unwrap()
}

/// The recordings of v2 leave out what they share with that of v1.
fn described(part: &Part, file: &str) -> Value {
    let mut json = oracle::json(&part.path(V1[0]));
    let own = oracle::json(&part.path(file));
    for (key, value) in own.as_object().unwrap() {
        json[key] = value.clone();
    }
    json
}

struct Subject {
    network: StuNet,
    data: Array4<f32>,
    window: [usize; 3],
}

fn subject(part: &Part, file: &str) -> Subject {
    let json = described(part, file);
    let config = StuNetConfig {
        in_channels: 1,
        num_classes: parse(&json["num_classes"]),
        width: parse(&json["dims"]),
        depth: [1; 6],
        strides: parse(&json["pools"]),
    };
    let data = Npz::open(&part.path(V1[1])).f32("data");
    Subject {
        network: seeded(&config, &json, &super::device()),
        data: data.into_dimensionality::<Ix4>().unwrap(),
        window: parse(&json["patch"]),
    }
}

impl Subject {
    fn predict(&self, name: &str, reference: Reference, accumulation: Accumulation) -> Array4<f32> {
        let (_, z, y, x) = self.data.dim();
        let recipe = WindowSettings {
            window: self.window,
            step_size: number_after(name, "step").unwrap_or(0.5),
            mirror_axes: axes(name),
            reference,
            accumulation,
            keep: Keep::Sums,
            windows_at_once: 1,
            average_passes: false,
            part_of: None,
        };
        let classes = self.network.config().num_classes;
        let mut sink = Collect(Array4::zeros((classes, z, y, x)));
        slide(&[&self.network], self.data.view(), &recipe, &mut sink, &mut |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap();
        sink.0
    }
}

fn number_after(name: &str, word: &str) -> Option<f64> {
    let part = name.split('_').find_map(|part| part.strip_prefix(word))?;
    part.parse().ok()
}

/// `mirror0`: none; `mirror1`: all, or those of `axes02`.
fn axes(name: &str) -> Vec<usize> {
    if name.contains("mirror0") {
        return Vec::new();
    }
    let listed = name.split('_').find_map(|part| part.strip_prefix("axes"));
    let listed = listed.unwrap_or("012");
    listed.chars().map(|c| c.to_digit(10).unwrap() as usize).collect()
}

/// Index of the first largest value over the classes.
fn argmax(values: &Array4<f32>) -> Vec<usize> {
    let first = |voxel: ndarray::ArrayView1<'_, f32>| {
        let start = (0, f32::NEG_INFINITY);
        let step =
            |(best, most), (c, v): (usize, &f32)| if *v > most { (c, *v) } else { (best, most) };
        voxel.iter().enumerate().fold(start, step).0
    };
    values.lanes(Axis(0)).into_iter().map(first).collect()
}

fn probabilities_of_v1(part: &Part, name: &str) {
    let subject = subject(part, V1[0]);
    let arrays = Npz::open(&part.path(V1[1]));
    let expected = arrays.f32(name);
    let found = subject.predict(name, Reference::NnUNetV1, Accumulation::F32);
    assert_close(name, flat(&found), expected.as_slice().unwrap(), 1e-4, 1e-5);

    let labels = arrays.i64(&name.replace("softmax", "seg"));
    let best = argmax(&found);
    assert_eq!(best.len(), labels.len());
    let differ = best.into_iter().zip(&labels).filter(|(f, e)| *f as i64 != **e).count();
    say!("{name}: {differ} of {} labels differ", labels.len());
    assert!(differ * 10_000 <= labels.len(), "{name}: {differ} labels differ");
}

fn logits_of_v2(part: &Part, name: &str) {
    let (version, reference, array) = version_of(name);
    let subject = subject(part, &format!("E_sliding/predict_v2_{version}.json"));
    let expected = recorded_by_v2(part, "predict", version).f32(array);
    let expected = expected.as_slice().unwrap();
    if array.contains("f32acc") {
        let found = subject.predict(array, reference, Accumulation::F32);
        assert_close(name, flat(&found), expected, 2e-3, 2e-4);
    } else {
        let found = subject.predict(array, reference, Accumulation::F16);
        check_half(name, flat(&found), expected);
    }
}

/// Half-precision sums: a logit that differs in the last digit of f32 can round the other way at
/// every window. A unit is the last place of f16 at the logit's magnitude, or at 1 for small ones
/// (they are differences of larger terms).
fn check_half(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}: arrays of different length");
    let unit = |v: f32| (v.abs().max(1.0).log2().floor() - 10.0).exp2();
    let steps: Vec<f32> = found
        .iter()
        .zip(expected)
        .map(|(f, e)| (f - e).abs() / unit(f.abs().max(e.abs())))
        .collect();
    let share = |most: f32| {
        let within = steps.iter().filter(|s| **s <= most).count();
        within as f64 / steps.len() as f64
    };
    let worst = steps.iter().copied().fold(0.0, f32::max);
    say!(
        "{what}: equal {:.4} %, within one unit {:.4} %, within four {:.4} %, worst {worst} units",
        100.0 * share(0.0),
        100.0 * share(1.0),
        100.0 * share(4.0),
    );
    assert!(share(1.0) >= 0.999, "{what}: more than 0.1 % off by more than one unit of f16");
}

fn flat(values: &Array4<f32>) -> &[f32] {
    values.as_slice().unwrap()
}
