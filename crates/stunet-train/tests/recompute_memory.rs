//! What recomputed activations save and cost: memory and time of updates of STU-Net-S.
//!
//! A process's peak belongs to all that ran in it, so each way has a test of its own:
//!
//! ```console
//! cargo test --release --test recompute_memory -- --ignored --nocapture --exact kept
//! cargo test --release --test recompute_memory -- --ignored --nocapture --exact recomputed
//! ```
#![allow(clippy::disallowed_macros, clippy::unwrap_used)]

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use std::time::Instant;
use stunet_model::{Initialisation, StuNetConfig};
use stunet_train::loss::{Loss, LossConfig};
use stunet_train::optimiser::{IntoParameterGradients, Sgd, SgdConfig};
use stunet_train::precision::Precision;
use stunet_train::recompute;

const CLASSES: usize = 105;
const BATCH: usize = 2;
const SIZE: usize = 64;
const UPDATES: usize = 4;

#[test]
#[ignore = "measures one way, alone in its process"]
fn kept() {
    measure(false);
}

#[test]
#[ignore = "measures one way, alone in its process"]
fn recomputed() {
    measure(true);
}

fn measure(recomputed: bool) {
    let device = Device::flex().autodiff();
    let config = StuNetConfig::small(1, CLASSES);
    let mut network = config.init_seeded(Initialisation::NnUNetV1, 1, &device).unwrap();
    let mut sgd = Sgd::new(SgdConfig::default(), &config);
    let loss = Loss::new(LossConfig::v1(false)).unwrap();
    let images = |step: usize| {
        let value = |i: usize| ((i + step) * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0;
        let values: Vec<f32> = (0..BATCH * SIZE.pow(3)).map(value).collect();
        let data = TensorData::new(values, [BATCH, 1, SIZE, SIZE, SIZE]);
        Tensor::<5>::from_data(data, (&device, DType::F32))
    };
    let target = |&[z, y, x]: &[usize; 3]| -> Tensor<4, Int> {
        let labels = (0..BATCH * z * y * x).map(|i| (i / 7 % CLASSES) as i32).collect();
        Tensor::from_data(
            TensorData::new::<i32, _>(labels, [BATCH, z, y, x]),
            (&device, DType::I32),
        )
    };
    let targets: Vec<_> = config.stage_sizes([SIZE; 3])[..5].iter().map(target).collect();
    let (held, begin, cpu) = (status("VmRSS:"), Instant::now(), cpu_secs());
    for step in 0..UPDATES {
        let gradients = if recomputed {
            recompute::backward(&network, Precision::F32, images(step), &loss, &targets, 1.0)
                .unwrap()
                .1
        } else {
            let (_, gradients) = loss.backward(network.forward_deep(images(step)), &targets);
            gradients.into_parameter_gradients(&network)
        };
        network = sgd.step(network, gradients, 0.01).0;
    }
    println!(
        "recomputed {recomputed}: {BATCH}×{SIZE}³, {CLASSES} classes: peak {} MiB, {held} before; \
         per update {:.2} s, {:.2} CPU-s",
        status("VmHWM:"),
        begin.elapsed().as_secs_f64() / UPDATES as f64,
        (cpu_secs() - cpu) / UPDATES as f64,
    );
}

/// MiB of a line of the process's status; 0 where the system has none.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// User and system time of the process so far, from its clock ticks of 10 ms.
fn cpu_secs() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
