//! What a window of a prediction moves in a GPU's memory with its sums.

use crate::counted::{Pass, count};
use burn::tensor::{Device, Tensor, TensorData};
use stunet::kernels::{MirroredPass, WindowAverage, WindowOverlap, WindowSums};
use stunet::model::{ParameterSpec, StuNet, StuNetConfig};
use stunet_testing::say;

const CLASSES: usize = 105;
/// Voxels of a window of 128³.
const VOXELS: f64 = (128 * 128 * 128) as f64;

/// The network up to its head, and head, importance and sums in one.
fn window(config: &StuNetConfig, device: &Device, softmax: bool) -> Pass {
    let mut source = |spec: &ParameterSpec| {
        let values = vec![0.01f32; spec.shape.iter().product()];
        Ok(TensorData::new(values, spec.shape.clone()))
    };
    let network = StuNet::from_source(config, &mut source, device).unwrap();
    count(&|size| {
        let [z, y, x] = size;
        let importance = Some(Tensor::ones(size, device));
        let average = WindowAverage { window: size, importance, softmax };
        let mut sums = WindowSums::new(average, config.num_classes, [y, x], device);
        let values =
            network.forward_to_head(Tensor::ones([1, config.in_channels, z, y, x], device));
        let pass = MirroredPass { flips: [false; 3], index: 0, count: 1 };
        sums.add(values, pass, &WindowOverlap { rows: 0..y, columns: 0..x, first: [0, 0] });
    })
}

/// No logits are written: beside a forward pass, which writes them once, sums are read and written.
pub fn traffic(device: &Device) {
    let sizes =
        [("S", StuNetConfig::small(1, CLASSES), 4.6), ("B", StuNetConfig::base(1, CLASSES), 8.5)];
    for (name, config, forward) in sizes {
        let sums = VOXELS * 4.0 * 2.0 * CLASSES as f64 / 1e9;
        for softmax in [false, true] {
            let found = window(&config, device, softmax);
            say!(
                "STU-Net-{name}, a window of 128³ and its sums, softmax {softmax}: {:.2} GB, {} kernels",
                found.gigabytes(),
                found.kernels.len()
            );
            let most = forward - sums / 2.0 + 1.1 * sums;
            assert!(found.gigabytes() <= most, "{name}: {} GB", found.gigabytes());
        }
    }
}
