//! nnU-Net's plain U-Net, from a results folder of nnU-Net 2 to a labelmap: the reference's logits and
//! voxels. The data is in the repository; `scripts/reference/plain_unet.py` makes it.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_methods)]

use burn::tensor::{Device, Tensor, TensorData};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use stunet::data::nifti;
use stunet::data::plans::{Accumulation, Reference};
use stunet::infer::{Architecture, Model, OpenOptions, PredictOptions, predict};
use stunet::model::plain_unet::{self, PlainConvUNet};
use stunet::model::weights::{Checkpoint, LoadOptions};
use stunet_testing::compare::assert_close;
use stunet_testing::oracle::Npz;

/// Bounds of the golden tests of STU-Net's logits.
const PEAK: f64 = 5e-4;
const RMSE: f64 = 5e-5;
/// Least share of equal voxels; nnU-Net sums in half precision, where close logits may tie.
const SHARE: f64 = 0.9999;

const CASES: [&str; 2] = ["cubes", "slices"];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/plain_unet").join(case)
}

fn open(case: &str) -> Model {
    open_as(case, None)
}

fn open_as(case: &str, reference: Option<Reference>) -> Model {
    let options = OpenOptions { reference, ..OpenOptions::new(&Device::flex()) };
    Model::open(&folder(case).join("model"), &options).unwrap()
}

#[test]
fn a_results_folder_says_which_network_it_is() {
    let model = open("cubes");
    let Architecture::PlainConvUNet(config) = model.architecture() else {
        panic!("another network")
    };
    assert_eq!((config.in_channels, config.num_classes), (1, 4));
    assert_eq!(config.kernels, [[3; 3]; 3]);
    assert_eq!(config.strides, [[1; 3], [2; 3], [2; 3]]);
    assert_eq!(model.plans().reference, Reference::NnUNetV28);
    assert_eq!(model.plans().strides, [[2; 3], [2; 3]]);
    let fold = &model.description().folds[0];
    assert_eq!((fold.trainer.as_deref(), fold.epoch), (Some("nnUNetTrainer"), Some(5)));
    let load = fold.load.as_ref().unwrap();
    assert_eq!((load.applied.len(), load.is_complete()), (48, true));
    let notes = &model.description().notes;
    assert!(!notes.iter().any(|note| note.contains("STU-Net")), "{notes:?}");
    assert_eq!(model.digest().unwrap().len(), 32);

    let model = open("slices");
    let Architecture::PlainConvUNet(config) = model.architecture() else {
        panic!("another network")
    };
    assert_eq!(config.kernels, [[1, 3, 3], [1, 3, 3], [3; 3], [3; 3]]);
    assert_eq!(config.strides, [[1; 3], [1, 2, 2], [2; 3], [1, 2, 2]]);
    assert_eq!(model.plans().reference, Reference::NnUNetV22, "flat plans are those of 2.2");
    let error = model.save_folder(Path::new("nowhere")).unwrap_err().to_string();
    assert!(error.contains("PlainConvUNet") && !error.contains('\n'), "{error}");
}

#[test]
fn from_memory_it_is_the_same_model() {
    for case in CASES {
        let model = folder(case).join("model");
        let names = ["plans.json", "dataset.json", "fold_0/checkpoint_final.pth"];
        let files = names.map(|name| (name, std::fs::read(model.join(name)).unwrap()));
        let found = Model::from_files(files, &OpenOptions::new(&Device::flex())).unwrap();
        let expected = open(case);
        assert!(found.digest().is_some());
        assert_eq!(found.digest(), expected.digest());
        assert_eq!(found.architecture(), expected.architecture());
        assert_eq!(found.plans(), expected.plans());
        assert_eq!(found.labels(), expected.labels());
        let [found, expected] = [&found, &expected].map(|model| &model.description().folds[0]);
        assert_eq!((&found.trainer, &found.load), (&expected.trainer, &expected.load));
        assert_eq!(found.path.to_str(), Some("(in memory)/fold_0/checkpoint_final.pth"));
    }
}

#[test]
fn an_stu_net_is_not_made_of_it() {
    let file = folder("cubes").join("model/fold_0/checkpoint_final.pth");
    let checkpoint = Checkpoint::open(&file).unwrap();
    let message = checkpoint.config([[1; 3]; 5]).unwrap_err().to_string();
    assert!(message.starts_with("expected an STU-Net, found a PlainConvUNet"), "{message}");
    let config = stunet::model::StuNetConfig::small(1, 4);
    let loaded = checkpoint.load_into(&config, &LoadOptions::default(), &Device::flex());
    assert_eq!(loaded.unwrap_err().to_string(), message);
}

fn network(case: &str, device: &Device) -> PlainConvUNet {
    let model = folder(case).join("model");
    let checkpoint = Checkpoint::open(&model.join("fold_0/checkpoint_final.pth")).unwrap();
    let plans = std::fs::read_to_string(model.join("plans.json")).unwrap();
    let plans: serde_json::Value = serde_json::from_str(&plans).unwrap();
    let config = checkpoint.plain_config(&plans["configurations"]["3d_fullres"]).unwrap();
    checkpoint.load_plain(&config, device).unwrap().0
}

#[test]
fn logits_of_every_head() {
    for case in CASES {
        let device = Device::flex();
        let network = network(case, &device);
        let arrays = Npz::open(&folder(case).join("logits.npz"));
        let input = arrays.f32("input");
        let shape = input.shape().to_vec();
        let data = TensorData::new(input.into_raw_vec_and_offset().0, shape);
        let input = Tensor::<5>::from_data(data, &device);
        let finest = network.forward(input.clone()).into_data();
        for (scale, logits) in network.forward_deep(input.clone()).into_iter().enumerate() {
            let [_, _, depth, ..] = logits.dims();
            if scale == 0 {
                assert_eq!(logits.to_data(), finest, "{case}: one head or all, the same logits");
            }
            let planes: Vec<_> =
                (0..depth).step_by(4).map(|z| logits.clone().narrow(2, z, 1)).collect();
            let found = Tensor::cat(planes, 2).into_data().try_to_vec::<f32>().unwrap();
            let expected = arrays.f32(&format!("logits_{scale}"));
            let expected = expected.as_slice().unwrap();
            assert!(expected.iter().any(|v| v.abs() > 1.0), "{case}: the heads say something");
            assert_close(&format!("{case} head {scale}"), &found, expected, PEAK, RMSE);
        }
        let mut pieces = Vec::new();
        network.forward_by_planes(input, &mut |_, logits| pieces.push(logits));
        assert_eq!(Tensor::cat(pieces, 2).into_data(), finest, "{case}: by planes");
    }
}

#[test]
fn labels_of_nnunet() {
    for case in CASES {
        // Flat plans are taken for those of 2.2, unless the caller knows better: 2.8.1 recorded this.
        let model = open_as(case, Some(Reference::NnUNetV28));
        let images: Vec<_> = (0..model.plans().num_channels())
            .map(|channel| folder(case).join(format!("images/case_{channel:04}.nii.gz")))
            .collect();
        let image = model.plans().reader.read_scan(&images).unwrap().into_image();
        for (name, mirror) in [("plain", false), ("mirrored", true)] {
            let expected =
                nifti::read_labelmap(&folder(case).join(format!("{name}.nii.gz"))).unwrap();
            let check = |accumulation, device_sums_bytes| {
                let options = PredictOptions {
                    mirror,
                    accumulation,
                    device_sums_bytes,
                    ..Default::default()
                };
                let go_on = &mut |_| ControlFlow::Continue(());
                let found = predict(&model, &image, &options, go_on).unwrap();
                let found = found.labelmap.to_labelmap();
                assert_eq!(found.geometry, expected.geometry);
                let pairs = found.data.iter().zip(&expected.data);
                let equal = pairs.filter(|(a, b)| a == b).count();
                let share = equal as f64 / expected.data.len() as f64;
                println!(
                    "{case} {name} {accumulation:?}: {:.4} % of the voxels equal",
                    100.0 * share
                );
                share
            };
            assert!(check(None, None) >= SHARE, "{case} {name}");
            // Single precision, and sums that stay with the tensors: equal but for ties.
            assert!(check(Some(Accumulation::F32), None) > 0.99, "{case} {name}");
            assert!(check(Some(Accumulation::F32), Some(1 << 30)) > 0.99, "{case} {name}");
        }
    }
}

#[test]
fn the_statement_of_cost_fits_the_plans() {
    let model = open("cubes");
    let config = model.architecture();
    let Architecture::PlainConvUNet(config) = config else { panic!("another network") };
    let cost = plain_unet::cost(config, [16; 3]);
    let message = model.networks()[0].cost([15, 16, 16]).unwrap_err().to_string();
    assert!(message.contains("multiples of [4, 4, 4]"), "{message}");
    // By hand: of the first stage 4 x 27 + 4 and 4 x 4 x 27 + 4 parameters, and two norms of 4.
    assert_eq!(cost.stages[0].parameters, 4 * 27 + 4 + 16 * 27 + 4 + 16);
    assert_eq!(cost.stages[0].macs, (4 * 27 + 16 * 27) * 4096);
}
