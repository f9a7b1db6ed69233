//! Importing a checkpoint holds one tensor beside the network, and never the optimiser's state.
//!
//! A test binary of its own, since it looks at the memory of the whole process. The real size is
//! measured by `cargo test --release --test import_memory -- --ignored --nocapture`, which needs
//! 18 GB of disk in the temporary folder and 7 GB of memory.
#![cfg(target_os = "linux")]
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout
)]

use burn::tensor::{Device, TensorData};
use std::sync::Mutex;
use std::time::Instant;
use stunet_model::weights::writer::{Contents, SgdRecord, V1Metadata, write_v1};
use stunet_model::weights::{Checkpoint, LoadOptions, folder};
use stunet_model::{ModelError, ParameterSpec, StuNetConfig, StuNetSize, cost};

const MIB: u64 = 1 << 20;

/// One measurement at a time.
static PROCESS: Mutex<()> = Mutex::new(());

/// What the process held at most while `work` ran, beyond what it held before, in bytes.
fn growth<T>(what: &str, work: impl FnOnce() -> T) -> (u64, T) {
    let status = |field: &str| {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(field)).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    };
    // Sets the high-water mark back to what is held now.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, start) = (status("VmRSS:"), Instant::now());
    let result = work();
    let peak = status("VmHWM:");
    let growth = peak.saturating_sub(before);
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: peak {} MiB, growth {} MiB, {seconds:.1} s", peak / MIB, growth / MIB);
    (growth, result)
}

fn constant(value: f32) -> impl FnMut(&ParameterSpec) -> Result<TensorData, ModelError> {
    move |spec| {
        let count = spec.shape.iter().product();
        Ok(TensorData::new(vec![value; count], spec.shape.clone()))
    }
}

/// Writes a checkpoint with momentum, converts it, loads it, loads what was converted.
fn check(size: StuNetSize, slack: u64) {
    let _alone = PROCESS.lock();
    let config = StuNetConfig::new(size, 1, 105);
    let weights = cost::num_parameters(&config) as u64 * 4;
    let specs = config.parameter_specs();
    let largest = specs.iter().map(|s| s.shape.iter().product::<usize>()).max().unwrap() as u64 * 4;
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("weights.model");
    let (mut parameters, mut momentum) = (constant(0.5), constant(0.25));
    let contents = Contents {
        config: &config,
        parameters: &mut parameters,
        momentum: Some(&mut momentum),
        optimiser: SgdRecord::default(),
    };
    let write = || write_v1(&path, contents, &V1Metadata::default()).unwrap();
    let (written, ()) = growth("write the checkpoint", write);
    let bytes = std::fs::metadata(&path).unwrap().len();
    println!("{size:?}: file {} MiB, weights {} MiB", bytes / MIB, weights / MIB);
    println!("largest tensor {} MiB", largest / MIB);
    assert!(bytes > 2 * weights, "weights and momentum");

    let (opened, checkpoint) = growth("open", || Checkpoint::open(&path).unwrap());
    let options = LoadOptions::default();
    let out = temporary.path().join("model");
    let (converted, ()) = growth("convert", || {
        let (mut source, _) = checkpoint.source(&config, &options).unwrap();
        let precision = folder::StoredPrecision::F32;
        folder::save(&out, &config, &mut source, precision, Default::default()).unwrap();
    });
    let device = Device::flex();
    let (loaded, network) =
        growth("load", || checkpoint.load_into(&config, &options, &device).unwrap());
    drop(network);
    let (reloaded, network) =
        growth("load what was converted", || folder::open(&out).unwrap().load(&device).unwrap());
    drop(network);

    assert!(written < largest + slack, "writing holds one tensor");
    assert!(opened < slack, "opening reads the pickle only");
    assert!(converted < largest + slack, "converting holds one tensor");
    assert!(loaded < weights + largest + slack, "loading holds one tensor beside the network");
    assert!(reloaded < weights + slack, "a parameter is read into the memory it stays in");
}

#[test]
fn import_holds_one_tensor_beside_the_network() {
    check(StuNetSize::Small, 16 * MIB);
}

#[test]
#[ignore = "needs 18 GB of disk and 7 GB of memory"]
fn the_largest_checkpoint_imports_within_a_gigabyte_beside_its_weights() {
    // The largest tensor is 486 MiB: within 1 GB (954 MiB) beside the weights.
    check(StuNetSize::Huge, 400 * MIB);
}
