//! The demo model: how it sees and how it was trained; what it knows is in `stunet_phantom::demo`.

use std::path::PathBuf;
use stunet::data::geometry::Orientation;
use stunet::data::plans::{
    Accumulation, ChannelPlan, Intensity, Normalization, Plans, Reference, TrainedOrientation,
};
use stunet::model::{NUM_STAGES, StuNetConfig};
use stunet_phantom::ScanOptions;

#[allow(unused_imports, reason = "every example uses a part of this")]
pub use stunet_phantom::demo::{
    BANNER, DIGEST, STRUCTURES, TEST_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS,
};

/// Of the initial weights and of the patches.
pub const SEED: u64 = 1;
/// Epochs of its training.
pub const NUM_EPOCHS: usize = 120;
/// Updates of each.
pub const NUM_ITERATIONS: usize = 20;
/// Learning rate of the first epoch.
pub const LR: f64 = 0.03;
/// Less than the reference's 0.99, whose memory is longer than so short a run can wait for.
pub const MOMENTUM: f64 = 0.95;

/// The folder with the committed model.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crates/stunet-phantom/demo-model")
}

/// Half the width of STU-Net-S, and five resolutions.
pub fn network(num_classes: usize) -> StuNetConfig {
    StuNetConfig {
        in_channels: 1,
        num_classes,
        width: [8, 16, 32, 64, 80, 80],
        depth: [1; NUM_STAGES],
        strides: STRIDES,
    }
}

const STRIDES: [[usize; 3]; 5] = [[2; 3], [2; 3], [2; 3], [2; 3], [1; 3]];

/// CT at 5 mm, in windows of 24 cm: enough to tell left from right, little enough for a processor.
pub fn plans(num_classes: usize) -> Plans {
    Plans {
        reader: Default::default(),
        resampling: Default::default(),
        // As ITK's axes, which phantoms have.
        orientation: Some(TrainedOrientation::all(Orientation::LPS)),
        reference: Reference::NnUNetV28,
        accumulation: Accumulation::F32,
        configuration: "3d_fullres".to_owned(),
        patch_size: [48; 3],
        spacing_mm: [5.0; 3],
        transpose_forward: [0, 1, 2],
        strides: STRIDES.to_vec(),
        channels: vec![ChannelPlan {
            name: "CT".to_owned(),
            scheme: Normalization::Ct,
            use_mask: false,
            intensity: Some(Intensity {
                mean: -250.0,
                std: 420.0,
                percentile_00_5: -1000.0,
                percentile_99_5: 500.0,
            }),
        }],
        // Mirrored, a left kidney would be a right one.
        mirror_axes: Vec::new(),
        force_separate_z: None,
        batch_size: 1,
        num_outputs: Some(num_classes),
        notes: Vec::new(),
    }
}

/// Scans to train on: coarser than the default, as the network works at 5 mm.
pub fn training_scan() -> ScanOptions {
    ScanOptions { in_plane_mm: [2.5, 5.0], slice_mm: [2.5, 6.0], ..ScanOptions::default() }
}
