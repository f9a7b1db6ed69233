//! Oracle D: cropping, resampling, normalising; labels voxel by voxel. F: labels on the way back.

use ndarray::{Array3, Array4, ArrayD, Ix2, Ix3};
use serde_json::Value;
use std::path::PathBuf;
use stunet_data::image::Image;
use stunet_data::labels::LabelMap;
use stunet_data::nifti;
use stunet_data::plans::{Accumulation, ChannelPlan, Intensity, Normalization, Plans, Reference};
use stunet_data::preprocess::resample::{LabelRule, Order, resize, resize_labels};
use stunet_data::preprocess::{Preprocessed, RestoreOrder, preprocess, preprocess_with_labels};
use stunet_testing::compare::assert_close;
use stunet_testing::harness::Absent;
use stunet_testing::oracle::{self, Golden, Npz, Part, VOLUMES};
use stunet_testing::say;

const V1: &str = "D_preproc/v1_cases.json";
const RESIZE: &str = "D_preproc/resize_unit.npz";
const FULL: &str = "D_preproc/v1_full_volumes_zscore_1.5mm_samples.npz";

pub(crate) fn tests(golden: &mut Golden) {
    let of_v1 = |part: &Part| names(&oracle::json(&part.path(V1))["cases"]);
    golden.each("preprocess::v1_cases", &[V1], of_v1, v1_case);
    let of_v2 = |part: &Part| {
        let of = |code| {
            let cases = oracle::json(&part.path(&format!("D_preproc/v2_{code}_cases.json")));
            names(&cases).into_iter().map(move |name| format!("{code}_{name}"))
        };
        of("2.2").chain(of("2.8")).collect::<Vec<_>>()
    };
    let needs = [V1, "D_preproc/v2_2.2_cases.json", "D_preproc/v2_2.8_cases.json"];
    golden.each("preprocess::v2_cases", &needs, of_v2, v2_case);
    golden.one("preprocess::resize_unit_cases", &[RESIZE], resize_unit_cases);
    golden.each("preprocess::full_volumes", &[FULL, VOLUMES], volumes, full_volume);
    golden.each("preprocess::input_of_the_network", &["F_export"], tags, input_of_the_network);
    golden.each("preprocess::restore_of_labels", &["F_export"], tags_of_fast, restore_of_labels);
}

fn names(cases: &Value) -> Vec<String> {
    cases.as_object().unwrap().keys().cloned().collect()
}

const PEAK: f64 = 2e-4;
const RMSE: f64 = 1e-5;

/// Flat samples were taken at every `ceil(n / 60000)`-th voxel.
fn assert_voxels(what: &str, found: &Array4<f32>, expected: &ArrayD<f64>) {
    let found: Vec<f32> = found.iter().copied().collect();
    let found: Vec<f32> = if expected.ndim() == 1 {
        let step = found.len().div_ceil(60_000);
        found.into_iter().step_by(step).collect()
    } else {
        found
    };
    let expected: Vec<f64> = expected.iter().copied().collect();
    assert_close(what, &found, &expected, PEAK, RMSE);
}

fn assert_labels(what: &str, found: &Array3<i16>, expected: &ArrayD<i64>) {
    assert_eq!(&expected.shape()[1..], found.shape(), "{what}");
    let differ = found.iter().zip(expected).filter(|(f, e)| i64::from(**f) != **e).count();
    say!("{what}: {differ} of {} labels differ", expected.len());
    assert_eq!(differ, 0, "{what}");
}

fn numbers<const N: usize>(value: &Value) -> [f64; N] {
    std::array::from_fn(|i| value[i].as_f64().unwrap())
}

fn image_of(part: &Part, case: &Value) -> (Image, Option<LabelMap>) {
    let volumes = part.path("D_preproc/volumes");
    let names = case["images"].as_array().unwrap();
    let files: Vec<PathBuf> = names.iter().map(|n| volumes.join(n.as_str().unwrap())).collect();
    let labels = case["seg"].as_str();
    let labels = labels.map(|name| nifti::read_labelmap(&volumes.join(name)).unwrap());
    (nifti::read_image(&files).unwrap(), labels)
}

fn plans(case: &Value, schemes: &Value, intensity: &Value, reference: Reference) -> Plans {
    let channel = |(c, scheme): (usize, &Value)| {
        let i = &intensity[c.to_string()];
        let number = |key: &str| i[key].as_f64().unwrap();
        ChannelPlan {
            name: c.to_string(),
            scheme: match scheme.as_str().unwrap() {
                "CT" | "CTNormalization" => Normalization::Ct,
                "CT2" => Normalization::CtPerVolume,
                "noNorm" | "NoNormalization" => Normalization::None,
                "RescaleTo01Normalization" => Normalization::RescaleZeroToOne,
                "RGBTo01Normalization" => Normalization::RgbToZeroOne,
                _ => Normalization::ZScore,
            },
            use_mask: case["use_mask"][c].as_bool().unwrap(),
            intensity: i.is_object().then(|| Intensity {
                mean: number("mean"),
                std: number("sd"),
                percentile_00_5: number("percentile_00_5"),
                percentile_99_5: number("percentile_99_5"),
            }),
        }
    };
    Plans {
        reference,
        accumulation: Accumulation::F32,
        spacing_mm: numbers(&case["target_spacing_transposed"]),
        transpose_forward: numbers(&case["transpose_forward"]).map(|axis| axis as usize),
        channels: schemes.as_array().unwrap().iter().enumerate().map(channel).collect(),
        ..Plans::totalsegmentator()
    }
}

fn bounds(npz: &Npz) -> Vec<Vec<i64>> {
    npz.i64("bbox").outer_iter().map(|r| r.iter().copied().collect()).collect()
}

fn assert_bounds(found: [[usize; 2]; 3], npz: &Npz) {
    let found: Vec<Vec<i64>> = found.iter().map(|r| r.map(|v| v as i64).to_vec()).collect();
    assert_eq!(found, bounds(npz));
}

fn v1_case(part: &Part, name: &str) {
    let cases = oracle::json(&part.path(V1));
    let case = &cases["cases"][name];
    let npz = Npz::open(&part.path(&format!("D_preproc/v1_{name}.npz")));
    let (image, labels) = image_of(part, case);
    assert_eq!(image.geometry.spacing_mm(), numbers(&case["original_spacing"]), "{name}");
    let plans = plans(case, &case["norm"], &cases["intensityproperties"], Reference::NnUNetV1);
    let (found, found_labels) = preprocess_with_labels(&image, labels.as_ref(), &plans).unwrap();
    let shape: [f64; 4] = numbers(&case["resampled_shape"]);
    assert_eq!(found.image.shape(), shape.map(|n| n as usize), "{name}");
    assert_bounds(found.trace.bounding_box(), &npz);
    let key = if npz.has("final") { "final" } else { "final_sampled" };
    assert_voxels(&format!("v1 {name}"), &found.image, &npz.f64(key));
    if npz.has("final_seg") {
        assert_labels(&format!("v1 {name}"), &found_labels, &npz.i64("final_seg"));
    }
    let unlabelled = preprocess(&image, &plans).unwrap();
    assert_eq!(unlabelled.trace, found.trace, "{name}");
    if labels.is_none() || !plans.channels.iter().any(|c| c.use_mask) {
        assert_eq!(unlabelled.image, found.image, "{name}: labels changed the image");
    }
    if npz.has("resampled") {
        let mut plans = plans.clone();
        plans.channels.iter_mut().for_each(|c| c.scheme = Normalization::None);
        let raw = preprocess(&image, &plans).unwrap();
        let what = format!("v1 {name} before normalisation");
        assert_voxels(&what, &raw.image, &npz.f64("resampled"));
    }
}

/// `2.8_ct_iso_zscore`.
fn v2_case(part: &Part, code_and_name: &str) {
    let (code, name) = code_and_name.split_once('_').unwrap();
    let reference = if code == "2.2" { Reference::NnUNetV22 } else { Reference::NnUNetV28 };
    let v1 = oracle::json(&part.path(V1));
    let recorded = &oracle::json(&part.path(&format!("D_preproc/v2_{code}_cases.json")))[name];
    // Arrays of 2.8 that equal those of 2.2 are recorded once.
    let file = |code| part.path(&format!("D_preproc/v2_{code}_{name}.npz"));
    let own = file(code);
    let npz = Npz::open(&if own.exists() { own } else { file("2.2") });
    let case = &v1["cases"][name];
    let (image, labels) = image_of(part, case);
    let plans = plans(case, &recorded["norm"], &v1["intensityproperties"], reference);
    let (found, found_labels) = preprocess_with_labels(&image, labels.as_ref(), &plans).unwrap();
    let shape: [f64; 4] = numbers(&recorded["shape"]);
    assert_eq!(found.image.shape(), shape.map(|n| n as usize), "{name}");
    let file_bounds = found.trace.bounding_box();
    assert_bounds(plans.transpose_forward.map(|axis| file_bounds[axis]), &npz);
    assert_voxels(&format!("{code} {name}"), &found.image, &npz.f64("final"));
    if npz.has("final_seg") {
        assert_labels(&format!("{code} {name}"), &found_labels, &npz.i64("final_seg"));
    }
    if npz.has("class_loc_counts") {
        assert_location_counts(name, &found_labels, &npz);
    }
}

/// Foreground locations are drawn from all voxels of a class: at most 10000 or one in a hundred.
fn assert_location_counts(name: &str, labels: &Array3<i16>, npz: &Npz) {
    let recorded = npz.i64("class_loc_counts").into_dimensionality::<Ix2>().unwrap();
    for row in recorded.outer_iter() {
        let count = labels.iter().filter(|l| i64::from(**l) == row[0]).count();
        let drawn = count.min(10_000).max(count.div_ceil(100));
        assert_eq!(drawn as i64, row[1], "{name}: locations of class {}", row[0]);
    }
}

fn resize_unit_cases(part: &Part) {
    let npz = Npz::open(&part.path(RESIZE));
    let input = |name: &str| npz.f64(name).into_dimensionality::<Ix3>().unwrap();
    let volume = input("in");
    let mut seen = 0;
    for name in npz.names() {
        let expected = npz.f64(name);
        let parts: Vec<&str> = name.split('_').collect();
        let order = |text: &str| match text {
            "o0" => Order::Nearest,
            "o1" => Order::Linear,
            "o3" => Order::Cubic,
            other => panic!("order {other} of {name}"),
        };
        let found = match parts[..] {
            ["resize3d", "thin", o] => {
                let shape = [0, 1, 2].map(|a| expected.shape()[a]);
                resize(input("thin_in").view(), shape, order(o))
            }
            ["resize3d", o, _] => {
                let shape = [0, 1, 2].map(|a| expected.shape()[a]);
                resize(volume.view(), shape, order(o))
            }
            ["resize2d", o] => {
                let shape = [1, expected.shape()[0], expected.shape()[1]];
                resize(volume.slice(ndarray::s![0..1, .., ..]), shape, order(o))
            }
            _ => continue,
        };
        seen += 1;
        let (found, expected): (Vec<f64>, Vec<f64>) =
            (found.into_iter().collect(), expected.into_iter().collect());
        assert_close(name, &found, &expected, 1e-12, 1e-12);
    }
    assert!(seen > 0, "no resize case found");
    let labels = npz.i64("lab").into_dimensionality::<Ix3>().unwrap();
    let rules =
        [("resize_seg_o0", LabelRule::Nearest), ("resize_seg_o1", LabelRule::LastAboveHalf)];
    for (name, rule) in rules {
        let expected = npz.i64(name);
        let shape = [0, 1, 2].map(|a| expected.shape()[a]);
        let found = resize_labels(labels.view(), shape, rule, None);
        assert_eq!(found.into_dyn(), expected, "{name}");
    }
}

fn volumes(part: &Part) -> Vec<String> {
    let npz = Npz::open(&part.path(FULL));
    let names = npz.names().iter().filter_map(|n| n.strip_suffix("/idx"));
    names.map(str::to_owned).collect()
}

fn full_volume(part: &Part, name: &str) {
    let npz = Npz::open(&part.path(FULL));
    let path = part.path(VOLUMES).join(format!("{name}.nii.gz"));
    let image = nifti::read_image(&[path]).unwrap();
    let found = preprocess(&image, &Plans::totalsegmentator()).unwrap();
    let shape: Vec<usize> = npz.i64(&format!("{name}/shape")).iter().map(|n| *n as usize).collect();
    assert_eq!(found.image.shape(), shape, "{name}");
    let voxels = found.image.as_slice().unwrap();
    let indices = npz.i64(&format!("{name}/idx"));
    let found: Vec<f32> = indices.iter().map(|i| voxels[*i as usize]).collect();
    let expected: Vec<f64> = npz.f64(&format!("{name}/val")).into_iter().collect();
    assert_close(name, &found, &expected, PEAK, RMSE);
}

/// Oracle F: the recorded predictions.
fn tags(part: &Part) -> Vec<String> {
    let entries = std::fs::read_dir(part.path("F_export")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut tags: Vec<_> =
        names.filter_map(|n| n.strip_suffix("_net.npz").map(str::to_owned)).collect();
    tags.sort();
    tags
}

/// Those whose labelmap of mode `fast` was recorded, and what it was brought back from.
fn tags_of_fast(part: &Part) -> Vec<String> {
    let mut tags = tags(part);
    tags.retain(|tag| {
        let file = |end| part.path(&format!("F_export/{tag}{end}"));
        file("_fast.nii.gz").exists() && Npz::open(&file("_net.npz")).has("seg_netres")
    });
    tags
}

fn recorded_input(part: &Part, tag: &str) -> Result<Preprocessed, Absent> {
    let json = oracle::json(&part.path(&format!("F_export/{tag}.json")));
    let image = nifti::read_image(&[part.volume("F_export", json["image"].as_str().unwrap())?]);
    let reference = match tag {
        tag if tag.starts_with("v1") => Reference::NnUNetV1,
        tag if tag.starts_with("v2_2.2") => Reference::NnUNetV22,
        _ => Reference::NnUNetV28,
    };
    let plans = Plans { reference, ..Plans::totalsegmentator() };
    Ok(preprocess(&image.unwrap(), &plans).unwrap())
}

/// Samples of what each network saw.
fn input_of_the_network(part: &Part, tag: &str) -> Result<(), Absent> {
    let npz = Npz::open(&part.path(&format!("F_export/{tag}_net.npz")));
    let prepared = recorded_input(part, tag)?;
    let voxels = prepared.image.as_slice().unwrap();
    let indices = npz.i64("sample_idx");
    let found: Vec<f32> = indices.iter().map(|i| voxels[*i as usize]).collect();
    let expected: Vec<f64> = npz.f64("preproc_at_idx").into_iter().collect();
    assert_close(&format!("{tag} input"), &found, &expected, PEAK, RMSE);
    Ok(())
}

/// The labelmaps that mode `fast` brought back.
fn restore_of_labels(part: &Part, tag: &str) -> Result<(), Absent> {
    let npz = Npz::open(&part.path(&format!("F_export/{tag}_net.npz")));
    let prepared = recorded_input(part, tag)?;
    let labels = npz.i64("seg_netres").mapv(|l| l as u16);
    let labels = labels.into_dimensionality::<Ix3>().unwrap();
    let found = prepared.trace.restore_labels(labels.view(), RestoreOrder::Linear);
    let fast = part.path(&format!("F_export/{tag}_fast.nii.gz"));
    let expected = nifti::read_labelmap(&fast).unwrap();
    assert_eq!(found.data.dim(), expected.data.dim(), "{tag}");
    let differ = found.data.iter().zip(&expected.data).filter(|(a, b)| a != b).count();
    say!("{tag} fast: {differ} of {} labels differ", found.data.len());
    assert_eq!(differ, 0, "{tag}");
    found.geometry.check_same_grid(&expected.geometry).unwrap();
    Ok(())
}
