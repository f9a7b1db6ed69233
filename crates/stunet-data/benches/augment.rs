//! Patches of 128 x 128 x 128 voxels from a preprocessed torso: patches per second and core.
//!
//! `cargo bench --bench augment [-- PATCHES [PATCH_SIZE]]` prints, for the recipes v1 and v2, the
//! wall and CPU seconds of a patch on one thread, and of each transform alone.
//! `scripts/augment_peer.py` runs this beside batchgenerators and prints the ratio.
#![allow(missing_docs, clippy::disallowed_macros)]

use ndarray::{Array3, Array4};
use std::hint::black_box;
use std::time::Instant;
use stunet_data::augment::{Augmentation, AugmentationParams, Crop, NoiseParams, SpatialParams};
use stunet_data::loader::{LoaderConfig, batch};
use stunet_data::sample::MemoryCase;

const SHAPE: [usize; 3] = [240, 230, 250];
const STRIDES: [[usize; 3]; 5] = [[2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]];

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let patches = numbers.first().copied().unwrap_or(60);
    let patch = [numbers.get(1).copied().unwrap_or(128); 3];
    // One thread: seconds of a patch are seconds of a core.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    pool.install(|| {
        let case = torso();
        for (name, recipe) in [("v1", Augmentation::v1(patch)), ("v2", Augmentation::v2(patch))] {
            batches(name, &recipe, &case, patches);
            transforms(name, &recipe, &case);
        }
    });
}

/// The volume of `scripts/augment_peer.py`: smooth, with noise, and 24 labels in blocks.
fn torso() -> MemoryCase {
    let [z, y, x] = SHAPE;
    let image = Array4::from_shape_fn([1, z, y, x], |(_, z, y, x)| {
        let noise = ((z * 29 + y * 13 + x * 7) % 101) as f32 / 101.0 - 0.5;
        (z as f32 / 17.0).sin() + (y as f32 / 23.0).cos() + (x as f32 / 11.0).sin() + noise
    });
    let labels = Array3::from_shape_fn(SHAPE, |(z, y, x)| {
        let block = z / 40 * 35 + y / 40 * 6 + x / 40;
        (block % 25) as i16
    });
    MemoryCase::new("torso", image, labels).expect("one shape")
}

fn batches(name: &str, recipe: &Augmentation, case: &MemoryCase, patches: usize) {
    let config = LoaderConfig::new(recipe.clone(), 2, &STRIDES);
    let cases = vec![case.clone()];
    let mut wall = Vec::new();
    let (start, cpu_start) = (Instant::now(), cpu_secs());
    for index in 0..patches.div_ceil(2) as u64 {
        let start = Instant::now();
        black_box(batch(&cases, &config, index).expect("the case is in memory"));
        wall.push(start.elapsed().as_secs_f64() / 2.0);
    }
    let count = 2.0 * wall.len() as f64;
    let mean = (cpu_secs() - cpu_start) / count;
    println!(
        "stunet {name} patch {:?}: mean CPU {mean:.4} s, mean wall {:.4} s, median wall {:.4} s of \
         {count} patches, {:.2} patches per CPU second",
        recipe.patch_size(),
        start.elapsed().as_secs_f64() / count,
        median(wall),
        1.0 / mean,
    );
}

fn transforms(name: &str, recipe: &Augmentation, case: &MemoryCase) {
    let turn = SpatialParams { angles: Some([0.3, -0.2, 0.4]), scale: None };
    let nothing = AugmentationParams::default;
    let all: [(&str, AugmentationParams); 10] = [
        ("crop", nothing()),
        ("rotation", AugmentationParams { spatial: turn, ..nothing() }),
        (
            "scaling by 1.3",
            AugmentationParams {
                spatial: SpatialParams { angles: None, scale: Some(1.3) },
                ..nothing()
            },
        ),
        (
            "noise",
            AugmentationParams { noise: Some(NoiseParams { std: 0.05, seed: 1 }), ..nothing() },
        ),
        ("blur", AugmentationParams { blur: vec![Some([0.8; 3])], ..nothing() }),
        ("brightness", AugmentationParams { brightness: vec![Some(1.1)], ..nothing() }),
        ("contrast", AugmentationParams { contrast: vec![Some(1.1)], ..nothing() }),
        ("low resolution", AugmentationParams { low_resolution: vec![Some(0.7)], ..nothing() }),
        ("gamma", AugmentationParams { gamma: vec![Some(1.2)], ..nothing() }),
        ("mirror", AugmentationParams { mirror: [true; 3], ..nothing() }),
    ];
    let crop = Crop { image: case.image(), labels: case.labels(), lower: [20, 15, 30] };
    for (what, params) in all {
        let times = (0..5).map(|_| {
            let start = cpu_secs();
            black_box(recipe.apply(&params, &crop));
            cpu_secs() - start
        });
        println!("stunet {name}   {what}: median CPU {:.4} s", median(times.collect()));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Processor time of this thread (Linux, nanoseconds); 0 elsewhere.
fn cpu_secs() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) * 1e-9
}
