//! Oracle G: every deterministic transform, the crops before rotation, foreground oversampling,
//! targets of deep supervision.
//!
//! Recorded for v1; `scripts/record_augment_v2.py` records the same of v2, which is then tested too.

use ndarray::{Array3, Array4, Ix3, Ix4};
use serde_json::Value;
use stunet_data::augment::{
    Augmentation, AugmentationParams, Crop, LabelOrder, Spatial, SpatialParams, blur, brightness,
    contrast, crop_size, downsample_labels, gamma, low_resolution, transform,
};
use stunet_data::reference::Reference;
use stunet_data::sample::is_forced;
use stunet_testing::compare::assert_close;
use stunet_testing::oracle::{self, Golden, Npz, Part};
use stunet_testing::say;

const PEAK: f64 = 1e-4;
const RMSE: f64 = 1e-5;

struct Recorded {
    reference: Reference,
    json: Value,
    npz: Npz,
    image: Array4<f32>,
    labels: Array3<i16>,
}

const V1: [&str; 2] = ["G_augment/augment_v1.json", "G_augment/augment_v1.npz"];

pub(crate) fn tests(golden: &mut Golden) {
    golden.each("augment::intensity_transforms", &V1, flavours, check_intensity);
    golden.each("augment::rotation_and_scaling", &V1, flavours, check_spatial);
    golden.one("augment::plain_crop", &V1, plain_crop);
    golden.one("augment::crop_sizes", &V1, crop_sizes);
    golden.one("augment::oversampling", &V1, oversampling);
    golden.one("augment::targets_of_deep_supervision", &V1, targets_of_deep_supervision);
}

/// `v1`, then `v2` where it was recorded.
fn flavours(part: &Part) -> Vec<String> {
    let recorded = |name: &&str| part.path(&format!("G_augment/augment_{name}.npz")).exists();
    ["v1", "v2"].into_iter().filter(recorded).map(str::to_owned).collect()
}

fn recorded(part: &Part, name: &str) -> Recorded {
    let npz = Npz::open(&part.path(&format!("G_augment/augment_{name}.npz")));
    Recorded {
        reference: if name == "v1" { Reference::NnUNetV1 } else { Reference::NnUNetV28 },
        json: oracle::json(&part.path(&format!("G_augment/augment_{name}.json"))),
        image: npz.f32("img").into_dimensionality::<Ix4>().unwrap(),
        labels: labels(&npz, "seg"),
        npz,
    }
}

/// Without the axes of batch and channel.
fn labels(npz: &Npz, name: &str) -> Array3<i16> {
    let mut recorded = npz.i64(name).mapv(|l| l as i16);
    while recorded.ndim() > 3 {
        recorded = recorded.index_axis_move(ndarray::Axis(0), 0);
    }
    recorded.into_dimensionality::<Ix3>().unwrap()
}

fn assert_image(what: &str, found: &Array4<f32>, npz: &Npz, name: &str) {
    let expected = npz.f64(name);
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let found: Vec<f32> = found.iter().copied().collect();
    let expected: Vec<f64> = expected.iter().copied().collect();
    assert_close(what, &found, &expected, PEAK, RMSE);
}

fn assert_labels(what: &str, found: &Array3<i16>, expected: &Array3<i16>) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let differ = found.iter().zip(expected).filter(|(a, b)| a != b).count();
    say!("{what}: {differ} of {} labels differ", found.len());
    assert_eq!(differ, 0, "{what}");
}

fn triple<T>(value: &Value, number: impl Fn(&Value) -> T) -> [T; 3] {
    std::array::from_fn(|i| number(&value[i]))
}

fn check_intensity(part: &Part, name: &str) {
    let Recorded { reference, npz, image, .. } = &recorded(part, name);
    let conventions = reference.conventions().training.augmentation;
    let mut seen = std::collections::BTreeSet::new();
    for name in npz.names() {
        let parts: Vec<&str> = name.split('_').collect();
        let number = |text: &str| text.parse::<f64>().unwrap();
        let mut found = image.clone();
        for mut channel in found.outer_iter_mut() {
            match parts[..] {
                ["gamma", exponent, inverted] => {
                    let inverted = inverted == "inv1";
                    gamma(&mut channel, number(exponent), inverted, conventions.gamma);
                }
                ["brightness", factor] => brightness(&mut channel, number(factor)),
                ["contrast", factor] => contrast(&mut channel, number(factor)),
                ["blur", sigma] => blur(&mut channel, [number(sigma); 3], conventions.blur),
                ["blur", z, y, x] => blur(&mut channel, [z, y, x].map(number), conventions.blur),
                ["lowres", scale] => {
                    low_resolution(&mut channel, number(scale), false, conventions.order);
                }
                _ => continue,
            }
            seen.insert(parts[0]);
        }
        if seen.contains(parts[0]) {
            assert_ne!(found, image, "{name} did nothing");
            assert_image(&format!("{reference:?} {name}"), &found, npz, name);
        }
    }
    let kinds: Vec<&str> = seen.into_iter().collect();
    assert_eq!(kinds, ["blur", "brightness", "contrast", "gamma", "lowres"]);
}

fn check_spatial(part: &Part, name: &str) {
    let Recorded { reference, json, npz, image, labels: seg } = &recorded(part, name);
    let crop = Crop { image: image.view(), labels: seg.view(), lower: [0; 3] };
    let size: [usize; 3] = std::array::from_fn(|axis| seg.shape()[axis]);
    let mut seen = 0;
    for (name, case) in json.as_object().unwrap() {
        let Some(patch) = case.get("patch") else { continue };
        let params = SpatialParams {
            angles: case["angles"].is_array().then(|| triple(&case["angles"], as_f64)),
            scale: case["scale"].as_f64(),
        };
        let flat = case["slice_by_slice"].as_bool().unwrap_or(false);
        let label_order = match case["order_seg"].as_u64().unwrap() {
            0 => LabelOrder::Nearest,
            1 => LabelOrder::Linear,
            other => panic!("order {other} of {name}"),
        };
        let spatial = Spatial {
            label_order,
            ..Spatial::of(reference.conventions().training.augmentation, flat)
        };
        let what = format!("{reference:?} {name}");
        let patch = triple(patch, |n| n.as_u64().unwrap() as usize);
        let (found, found_labels) = transform(&spatial, &params, &crop, size, patch);
        assert_image(&what, &found, npz, &format!("spatial_{name}/data"));
        assert_labels(&what, &found_labels, &labels(npz, &format!("spatial_{name}/seg")));
        seen += 1;
    }
    assert!(seen > 0, "no spatial case found");
}

/// Neither rotated nor scaled: the middle of the crop, and nothing is computed.
fn plain_crop(part: &Part) {
    let Recorded { npz, image, labels, .. } = recorded(part, "v1");
    let expected = npz.f32("spatial_none/data").into_dimensionality::<Ix4>().unwrap();
    let patch: [usize; 3] = std::array::from_fn(|axis| expected.shape()[axis + 1]);
    let augmentation = Augmentation::v1(patch);
    // The recorded crop lies in the middle of the crop that the recipe reads.
    let larger = augmentation.crop_size();
    let lower = std::array::from_fn(|axis| {
        let (own, recorded) = (larger[axis] as isize, labels.shape()[axis] as isize);
        let patch = patch[axis] as isize;
        (recorded - patch) / 2 - (own - patch) / 2
    });
    let crop = Crop { image: image.view(), labels: labels.view(), lower };
    let found = augmentation.apply(&AugmentationParams::default(), &crop);
    assert_eq!(found.image, expected);
}

fn crop_sizes(part: &Part) {
    let Recorded { json, .. } = recorded(part, "v1");
    let mut seen = 0;
    for (key, flat) in [("initial_patch_size", false), ("initial_patch_size_dummy2d", true)] {
        for (patch, expected) in json[key].as_object().unwrap() {
            let numbers = patch.trim_matches(['(', ')']).split(", ");
            let numbers: Vec<usize> = numbers.map(|n| n.parse().unwrap()).collect();
            let patch = [numbers[0], numbers[1], numbers[2]];
            let expected = triple(expected, |n| n.as_u64().unwrap() as usize);
            assert_eq!(crop_size(patch, flat), expected, "{patch:?}");
            if flat {
                assert_eq!(Augmentation::v1(patch).crop_size(), expected, "{patch:?}");
                assert_eq!(Augmentation::v2(patch).crop_size(), expected, "{patch:?}");
            }
            seen += 1;
        }
    }
    assert!(seen > 0, "no crop size found");
}

fn oversampling(part: &Part) {
    let Recorded { json, .. } = recorded(part, "v1");
    let rule = json["oversample_rule"].as_object().unwrap();
    assert!(!rule.is_empty());
    for (size, expected) in rule {
        let size: usize = size.parse().unwrap();
        let expected: Vec<bool> =
            expected.as_array().unwrap().iter().map(|v| v.as_bool().unwrap()).collect();
        let found: Vec<bool> = (0..size).map(|i| is_forced(i, size, 0.33)).collect();
        assert_eq!(found, expected, "batch of {size}");
    }
}

fn targets_of_deep_supervision(part: &Part) {
    let Recorded { npz, labels: seg, .. } = recorded(part, "v1");
    let mut seen = 0;
    for name in npz.names().iter().filter(|n| n.starts_with("dsdown_")) {
        let expected = labels(&npz, name);
        let scale =
            std::array::from_fn(|axis| expected.shape()[axis] as f64 / seg.shape()[axis] as f64);
        let removed = seg.mapv(|l| if l == -1 { 0 } else { l });
        let input = if expected.iter().any(|l| *l == -1) { &seg } else { &removed };
        assert_labels(name, &downsample_labels(input.view(), scale), &expected);
        seen += 1;
    }
    assert!(seen > 0, "no target found");
}

fn as_f64(value: &Value) -> f64 {
    value.as_f64().unwrap()
}
