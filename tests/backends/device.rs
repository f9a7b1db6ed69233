//! What a device says of itself, whether it is verified, and what becomes of what it cannot do.

use burn::tensor::{Device, Tensor};
use ndarray::Array4;
use std::ops::ControlFlow;
use stunet::data::geometry::Geometry;
use stunet::data::image::Image;
use stunet::data::labels::LabelSet;
use stunet::data::plans::{Accumulation, Plans, Reference};
use stunet::infer::{InferError, Model, Outputs, PredictOptions, TensorNetwork, predict};
use stunet::kernels::{DeviceFault, guarded, read};
use stunet::verify::{Storage, Verification, verify};
use stunet_testing::say;

fn verified(device: &Device, storage: Storage, is_told: bool) -> Verification {
    verify(device, storage, &mut |stage| {
        if is_told {
            let found = format!("{:.1e} of {:.0e}", stage.error, stage.bound);
            say!("{:<46} {found} in {:.2} s {:?}", stage.stage, stage.secs, stage.outcome);
        }
        ControlFlow::Continue(())
    })
}

/// Every stage, in every precision that the device has. With kernel fusion Burn's operators compute, which
/// keep sums in half precision where that is stored: what they give there is said, and only f32 must agree.
pub fn verification(device: &Device) {
    for storage in [Storage::F32, Storage::F16, Storage::Bf16] {
        if storage == Storage::F32 || device.supports_dtype(storage.dtype()) {
            say!("verified in {}", storage.name());
            let found = verified(device, storage, true);
            let must_agree = storage == Storage::F32 || !cfg!(feature = "fusion");
            assert!(found.passed() || !must_agree, "{:?}", found.first_failure());
        }
    }
}

/// The operators alone, for a backend that takes minutes for a network.
pub fn operators_verified(device: &Device) {
    let found =
        verify(device, Storage::F32, &mut |stage| match stage.stage.starts_with("network") {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
    assert!(found.stages.len() > 20, "{found:?}");
    assert_eq!(found.first_failure(), None);
}

/// A kernel that leaves out its last workgroup is found in the first stage that uses it.
#[cfg(feature = "gpu")]
pub fn broken_kernels(device: &Device) {
    use stunet::verify::StageOutcome;
    for (kernel, first) in [
        ("upsample", "upsampling"),
        ("conv_weight_gradient", "convolution of the stem (1 channel)"),
        ("norm_gradient", "instance norm"),
        ("sgd", "step of the optimiser, one tensor"),
    ] {
        let found = stunet::kernels::with_broken_kernel(kernel, || {
            verify(device, Storage::F32, &mut |stage| match stage.outcome {
                StageOutcome::Agrees => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            })
        });
        let failed = found.first_failure().expect("a broken kernel");
        say!("{kernel}: {failed:?}");
        assert_eq!((failed.stage.as_str(), &failed.outcome), (first, &StageOutcome::Differs));
    }
}

/// More values than any tensor of the device may have.
fn too_many(device: &Device) -> usize {
    let facts = stunet::kernels::device_facts(device).expect("a GPU");
    say!("{facts:?}");
    facts.largest_tensor_bytes as usize / 4 + 1024
}

/// A tensor that is too large becomes an error of one line, and the device computes on.
pub fn too_large(device: &Device) {
    let count = too_many(device);
    let failure = guarded(|| read(Tensor::<1>::zeros([count], device) + 1.0)).unwrap_err();
    say!("{failure}");
    assert_eq!(failure.fault, DeviceFault::TooLarge, "{failure}");
    assert_eq!(failure.to_string().lines().count(), 1);
    let sum = guarded(|| read(Tensor::<1>::ones([8], device).sum())).unwrap();
    assert_eq!(sum.iter::<f32>().sum::<f32>(), 8.0);
}

fn image() -> Image {
    let data = Array4::from_shape_fn((1, 8, 8, 8), |(_, z, y, x)| (z + 2 * y + 3 * x) as f32 + 1.0);
    Image::new(data, Geometry::axis_aligned([8; 3], [1.0; 3]).unwrap()).unwrap()
}

/// A prediction that wants too much fails with an error value, and the next one succeeds.
pub fn next_case(device: &Device) {
    let count = too_many(device);
    let model = |greedy: bool| {
        let network = TensorNetwork {
            device: device.clone(),
            in_channels: 1,
            num_classes: 2,
            outputs: Outputs::Logits,
            bytes_per_voxel: 12,
            multiple_of: [1; 3],
            identity: None,
            forward: move |x: Tensor<5>| {
                let extra = match greedy {
                    true => Tensor::<1>::zeros([count], &x.device()).sum(),
                    false => Tensor::<1>::zeros([1], &x.device()),
                };
                let x = x + extra.reshape([1; 5]);
                Tensor::cat(vec![x.clone(), -x], 1)
            },
        };
        let plans = Plans {
            reference: Reference::NnUNetV28,
            accumulation: Accumulation::F32,
            patch_size: [8; 3],
            spacing_mm: [1.0; 3],
            strides: Vec::new(),
            mirror_axes: Vec::new(),
            num_outputs: None,
            ..Plans::totalsegmentator()
        };
        let labels = LabelSet::from_names(["background", "dark"]).unwrap();
        Model::from_parts(vec![network], plans, labels).unwrap()
    };
    for device_sums_bytes in [0, 1 << 20] {
        let options = PredictOptions {
            device_sums_bytes: Some(device_sums_bytes),
            ..PredictOptions::default()
        };
        let run = |greedy| {
            predict(&model(greedy), &image(), &options, &mut |_| ControlFlow::Continue(()))
        };
        match run(true) {
            Err(InferError::Device(failure)) => {
                assert_eq!(failure.fault, DeviceFault::TooLarge, "{failure}");
            }
            other => panic!("expected an error of the device, found {other:?}"),
        }
        let labels = run(false).unwrap().labelmap.voxels;
        assert!(labels.iter().any(|label| label == 1) && labels.iter().any(|label| label == 0));
    }
}
