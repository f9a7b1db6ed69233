//! Valid inputs for every target, made by the program's own writers where there is one.

use crate::mutate::Rng;
use crate::zips::{self, Lies};
use ndarray::{Array3, Array4};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use stunet_data::geometry::Geometry;
use stunet_data::image::Image;
use stunet_data::labels::{LabelMap, LabelSet};
use stunet_data::nifti;
use stunet_data::plans::Plans;
use stunet_data::preprocess::preprocess;
use stunet_data::sample::ClassLocations;
use stunet_data::splits::Splits;
use stunet_data::store::{NewCase, Stamp, Store, StoreRecipe};
use stunet_model::weights::pickle::{self, Value};
use stunet_model::weights::writer::{Contents, V1Metadata, V2Metadata, write_v1, write_v2};
use stunet_model::weights::{Dtype, StorageRef, TensorRef, folder};
use stunet_model::{Initialisation, StuNetConfig};

/// Writes `FOLDER/TARGET/NAME` for all.
pub fn write(folder: &Path) {
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let folder = folder.join(target);
        std::fs::create_dir_all(&folder).expect("a folder for seeds");
        std::fs::write(folder.join(name), bytes).expect("a seed is written");
    };
    volumes(&put);
    texts(&put);
    cases(&put);
    pickles(&put);
    models(&put);
}

type Put<'a> = &'a dyn Fn(&str, &str, &[u8]);

fn volumes(put: Put<'_>) {
    let scratch = tempfile::tempdir().expect("a folder");
    let geometry = Geometry::axis_aligned([3, 4, 5], [3.0, 1.0, 0.5]).expect("a grid");
    let labels = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (z * y + x) as u16);
    let labels = LabelMap::new(labels, geometry).expect("one grid");
    let path = scratch.path().join("labels.nii");
    nifti::write_labelmap(&path, &labels, 9).expect("written");
    put("nifti", "labels", &std::fs::read(&path).expect("read"));
    let path = scratch.path().join("labels.nii.gz");
    nifti::write_labelmap(&path, &labels, 9).expect("written");
    put("nifti_gz", "labels", &std::fs::read(&path).expect("read"));
    for (datatype, size) in [
        (2, 1),
        (4, 2),
        (8, 4),
        (16, 4),
        (64, 8),
        (256, 1),
        (512, 2),
        (768, 4),
        (1024, 8),
        (1280, 8),
    ] {
        let little = datatype % 8 != 0 || datatype == 16;
        let plain = first(little, datatype, size, false);
        put("nifti", &format!("type-{datatype}"), &plain);
        put("nifti_gz", &format!("type-{datatype}"), &packed(&plain));
        put("nifti_pair", &format!("type-{datatype}"), &first(little, datatype, size, true));
    }
    put("nifti", "second", &second());
}

fn packed(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(plain).expect("into memory");
    packed.finish().expect("into memory")
}

/// NIfTI-1 of 2 × 3 × 2 voxels with a qform and an sform; voxels count up.
fn first(little: bool, datatype: i16, size: usize, pair: bool) -> Vec<u8> {
    let mut out = vec![0u8; if pair { 348 } else { 352 }];
    let mut put = |at: usize, mut bytes: Vec<u8>| {
        if !little {
            bytes.reverse();
        }
        out[at..at + bytes.len()].copy_from_slice(&bytes);
    };
    put(0, 348i32.to_le_bytes().into());
    for (i, n) in [3i16, 2, 3, 2, 1, 1, 1, 1].into_iter().enumerate() {
        put(40 + 2 * i, n.to_le_bytes().into());
    }
    put(70, datatype.to_le_bytes().into());
    put(72, (8 * size as i16).to_le_bytes().into());
    for (i, v) in [1f32, 0.5, 1.5, 3.0, 1.0].into_iter().enumerate() {
        put(76 + 4 * i, v.to_le_bytes().into());
    }
    put(108, if pair { 0f32 } else { 352.0 }.to_le_bytes().into());
    put(112, if datatype == 4 { 2f32 } else { 0.0 }.to_le_bytes().into());
    put(116, if datatype == 8 { 0.5f32 } else { 0.0 }.to_le_bytes().into());
    put(252, 1i16.to_le_bytes().into());
    put(254, 1i16.to_le_bytes().into());
    for (at, v) in [(280, 0.5f32), (300, 1.5), (320, 3.0)] {
        put(at, v.to_le_bytes().into());
    }
    out[123] = 2;
    out[344..348].copy_from_slice(if pair { b"ni1\0" } else { b"n+1\0" });
    for voxel in 0..12u8 {
        let mut bytes = match datatype {
            16 => f32::from(voxel).to_le_bytes().to_vec(),
            64 => f64::from(voxel).to_le_bytes().to_vec(),
            _ => u64::from(voxel).to_le_bytes()[..size].to_vec(),
        };
        if !little {
            bytes.reverse();
        }
        out.extend(bytes);
    }
    out
}

fn second() -> Vec<u8> {
    let mut out = vec![0u8; 544];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &540i32.to_le_bytes());
    put(4, b"n+2\0\r\n\x1a\n");
    put(12, &4i16.to_le_bytes());
    for (i, n) in [4i64, 2, 3, 2, 2, 1, 1, 1].into_iter().enumerate() {
        put(16 + 8 * i, &n.to_le_bytes());
    }
    for (i, v) in [1f64, 0.5, 1.5, 3.0, 1.0].into_iter().enumerate() {
        put(104 + 8 * i, &v.to_le_bytes());
    }
    put(168, &544i64.to_le_bytes());
    put(348, &1i32.to_le_bytes());
    for (at, v) in [(400, 0.5f64), (440, 1.5), (480, 3.0)] {
        put(at, &v.to_le_bytes());
    }
    out.extend((0..24i16).flat_map(i16::to_le_bytes));
    out
}

fn texts(put: Put<'_>) {
    let own = Plans::totalsegmentator();
    let text = |json: &Json| json.to_string().into_bytes();
    let own_json = serde_json::to_value(&own).expect("plans are JSON");
    put("plans", "own", &text(&own_json));
    put("plans", "v1", &text(&v1_plans()));
    let dataset = json!({
        "channel_names": {"0": "CT"}, "numTraining": 2, "file_ending": ".nii.gz",
        "labels": {"background": 0, "a": [1, 2], "b": 2, "ignore": 3}, "regions_class_order": [1, 2]
    });
    for (name, plans) in [("v2-flat", v2_plans(false)), ("v2-nested", v2_plans(true))] {
        let both = [text(&plans), text(&dataset)].join(&0);
        put("plans", name, &both);
    }
    let old = json!({
        "modality": {"0": "CT", "1": "MR"}, "labels": {"0": "background", "1": "a"}, "numTraining": 1,
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}], "test": []
    });
    for (name, json) in [("v2", &dataset), ("v1", &old)] {
        put("dataset", name, &text(json));
        put("labels", name, &text(json));
    }
    let labels = LabelSet::numbered(4).expect("labels");
    put("labels", "own", &serde_json::to_vec(&labels).expect("labels are JSON"));
    let names = ["a", "b", "c", "d", "e", "f"].map(String::from);
    let splits = Splits::five_fold(&names).expect("five folds");
    put("splits", "five", &serde_json::to_vec(&splits).expect("splits are JSON"));
    let statistics = json!({
        "mean": 33.5, "std": 310.25, "sd": 310.25, "median": 1.0, "min": -1000.0, "mn": -1000.0,
        "max": 900.0, "mx": 900.0, "percentile_00_5": -950.0, "percentile_99_5": 800.0
    });
    let v2 = json!({
        "foreground_intensity_properties_per_channel": {"0": statistics},
        "median_relative_size_after_cropping": 1.0,
        "shapes_after_crop": [[3, 4, 5], [6, 7, 8]], "spacings": [[3.0, 1.0, 0.5], [1.0, 1.0, 1.0]]
    });
    let v1 = json!({
        "all_sizes": [[3, 4, 5]], "all_spacings": [[3.0, 1.0, 0.5]], "all_classes": [1],
        "modalities": {"0": "CT"}, "intensityproperties": {"0": statistics},
        "size_reductions": {"a": 1.0}
    });
    put("fingerprint", "v2", &text(&v2));
    put("fingerprint", "v1", &text(&v1));
    let demo = crate::root().join("examples/demo-model");
    let read = |name| std::fs::read(demo.join(name)).expect("the demo model");
    let three = ["network.json", "plans.json", "labels.json"].map(read);
    put("describe", "demo", &three.join(&0));
    put("plans", "demo", &three[1]);
    put("labels", "demo", &three[2]);
}

fn v1_plans() -> Json {
    json!({
        "init": ["", 0, "", "", false, 0, true, false, true], "name": "STUNetTrainer",
        "plans": {
            "num_modalities": 2, "modalities": {"0": "CT", "1": "MR"},
            "normalization_schemes": {"0": "CT", "1": "nonCT"},
            "use_mask_for_norm": {"0": false, "1": true}, "num_classes": 3,
            "transpose_forward": [2, 0, 1],
            "dataset_properties": {"intensityproperties": {"0": {
                "mean": 33.5, "sd": 310.25, "percentile_00_5": -950.0, "percentile_99_5": 900.0
            }}},
            "plans_per_stage": {"0": {
                "batch_size": 2, "patch_size": [64, 96, 128], "current_spacing": [3.0, 1.0, 0.5],
                "pool_op_kernel_sizes": [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
            }}
        }
    })
}

fn v2_plans(nested: bool) -> Json {
    let pools = json!([[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]);
    let full = match nested {
        true => {
            json!({"inherits_from": "base", "architecture": {"arch_kwargs": {"strides": pools}}})
        }
        false => json!({"inherits_from": "base", "pool_op_kernel_sizes": pools}),
    };
    json!({
        "transpose_forward": [0, 1, 2], "image_reader_writer": "SimpleITKIO",
        "foreground_intensity_properties_per_channel": {"0": {
            "mean": 33.5, "std": 310.25, "percentile_00_5": -950.0, "percentile_99_5": 900.0
        }},
        "configurations": {
            "base": {
                "batch_size": 2, "patch_size": [32, 96, 112], "spacing": [4.5, 0.8, 0.8],
                "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [false],
                "resampling_fn_data_kwargs": {"order": 3, "order_z": 0, "force_separate_z": null}
            },
            "3d_fullres": full
        }
    })
}

fn cases(put: Put<'_>) {
    let scratch = tempfile::tempdir().expect("a folder");
    let plans = Plans::totalsegmentator();
    let geometry = Geometry::axis_aligned([3, 4, 5], [3.0, 1.0, 1.0]).expect("a grid");
    let image = Array4::from_shape_fn((1, 3, 4, 5), |(_, z, y, x)| (z + y * x) as f32);
    let image = Image::new(image, geometry).expect("one grid");
    let prepared = preprocess(&image, &plans).expect("prepared");
    put("trace", "v1", &serde_json::to_vec(&prepared.trace).expect("a trace is JSON"));
    let labels = LabelSet::numbered(4).expect("labels");
    let recipe = StoreRecipe::new(plans.clone(), labels, vec!["a".to_owned()]).expect("a recipe");
    let store = Store::create(scratch.path(), recipe).expect("a store");
    let text = std::fs::read(scratch.path().join("store.json")).expect("read");
    put("recipe", "own", &text);
    let drawn =
        Array3::from_shape_fn(prepared.trace.network_shape(), |(z, y, _)| (z * y % 4) as i16);
    let voxels = drawn.indexed_iter().filter(|(_, label)| **label == 1);
    let voxels = voxels.map(|((z, y, x), _)| [z, y, x].map(|v| v as u32)).collect();
    let stamp = Stamp::of(&[]).expect("of no file");
    let case = NewCase {
        name: "a",
        image: prepared.image.view(),
        labels: drawn.view(),
        locations: &ClassLocations::new(BTreeMap::from([(1, voxels)])),
        trace: &prepared.trace,
        stamp: &stamp,
    };
    store.put(&case).expect("written");
    put("store", "a", &std::fs::read(scratch.path().join("a.safetensors")).expect("read"));
    let turned = Plans { transpose_forward: [2, 0, 1], ..plans };
    let prepared = preprocess(&image, &turned).expect("prepared");
    put("trace", "turned", &serde_json::to_vec(&prepared.trace).expect("a trace is JSON"));
}

fn pickles(put: Put<'_>) {
    let plans = pickle::write(&Value::from_json_int_keys(&v1_plans()));
    put("pickle", "plans", &plans);
    put("pickle_plans", "plans", &plans);
    let mut rng = Rng(1);
    for number in 0..24 {
        let name = format!("made-{number:02}");
        put("pickle", &name, &crate::pickles::generate(&mut rng, false));
        put("torch_pickle", &name, &crate::pickles::generate(&mut rng, true));
        put("torch_zip", &name, &zips::generate(&mut rng));
        put("torch_legacy", &name, &zips::legacy(&mut rng));
    }
}

fn config() -> StuNetConfig {
    StuNetConfig {
        in_channels: 1,
        num_classes: 2,
        width: [1; 6],
        depth: [1; 6],
        strides: StuNetConfig::PUBLISHED_STRIDES,
    }
}

fn models(put: Put<'_>) {
    let scratch = tempfile::tempdir().expect("a folder");
    let config = config();
    let mut parameters = Initialisation::NnUNetV1.source(1);
    for (name, precision) in
        [("f32", folder::StoredPrecision::F32), ("f16", folder::StoredPrecision::F16)]
    {
        let place = scratch.path().join(name);
        folder::save(&place, &config, &mut parameters, precision, Default::default())
            .expect("saved");
        let read = |name| std::fs::read(place.join(name)).expect("read");
        let both = [folder::NETWORK_FILE, folder::WEIGHTS_FILE].map(read);
        put("folder", name, &both.join(&0));
    }
    let path = scratch.path().join("a.model");
    let contents = Contents {
        config: &config,
        parameters: &mut parameters,
        momentum: None,
        optimiser: Default::default(),
    };
    write_v1(&path, contents, &V1Metadata::default()).expect("written");
    put("checkpoint", "v1", &std::fs::read(&path).expect("read"));
    let metadata =
        V2Metadata { epoch: 3, trainer: "STUNetTrainer".to_owned(), ..Default::default() };
    let mut parameters = Initialisation::NnUNetV1.source(1);
    let contents = Contents {
        config: &config,
        parameters: &mut parameters,
        momentum: None,
        optimiser: Default::default(),
    };
    write_v2(&path, contents, &metadata).expect("written");
    put("checkpoint", "v2", &std::fs::read(&path).expect("read"));
    // Few tensors: read in a tenth of the time.
    for (name, weights, epoch) in
        [("few-v1", "state_dict", "epoch"), ("few-v2", "network_weights", "current_epoch")]
    {
        let key = |key: &str, shape: &[usize]| (key.to_owned(), tensor(shape));
        let tensors = [
            key("conv_blocks_context.0.0.conv1.weight", &[1, 1, 3, 3, 3]),
            key("module.seg_outputs.4.weight", &[2, 1, 1, 1, 1]),
            key("unknown", &[2]),
        ];
        let state = Value::dict(tensors.iter().map(|(key, value)| (key.as_str(), value.clone())));
        let root = Value::dict([(weights, state), (epoch, Value::Int(7))]);
        let records = [
            ("archive/data.pkl".to_owned(), pickle::write(&root)),
            ("archive/data/0".to_owned(), vec![1; 4 * 27]),
        ];
        let archive = zips::archive(&records, Lies::default());
        put("checkpoint", name, &archive);
        put("torch_zip", name, &archive);
    }
}

fn tensor(shape: &[usize]) -> Value {
    let storage = StorageRef { key: "0".to_owned(), dtype: Dtype::F32, numel: 27, start: 0 };
    let mut stride = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        stride[axis - 1] = stride[axis] * shape[axis];
    }
    Value::Tensor(TensorRef {
        storage: Arc::new(storage),
        offset: 0,
        shape: shape.to_vec(),
        stride,
    })
}
