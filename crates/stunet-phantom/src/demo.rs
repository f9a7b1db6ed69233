//! The demo model: a small network that was trained on phantoms, for trying a pipeline without any other
//! data. It has never seen a patient.
//!
//! `demo-model/README.md` says how it was made; `examples/train_demo.rs` makes it.

use std::ops::Range;

/// What the demo model segments, label 1 first; phantoms have more.
pub const STRUCTURES: [&str; 12] = [
    "lung_right",
    "lung_left",
    "heart",
    "liver",
    "spleen",
    "kidney_right",
    "kidney_left",
    "aorta",
    "spine",
    "stomach",
    "urinary_bladder",
    "trachea",
];

/// Seeds of the phantoms it was trained on.
pub const TRAINING_SEEDS: Range<u64> = 1_000..1_048;
/// Seeds of the phantoms that were watched while it trained.
pub const VALIDATION_SEEDS: Range<u64> = 2_000..2_006;
/// Seeds of phantoms it has never seen, by which it is judged.
pub const TEST_SEEDS: Range<u64> = 3_000..3_004;

/// What pictures of its labels say.
pub const BANNER: &str = "Demo model: not for patients";

/// Digest of the model: what records of its outputs know it by.
pub const DIGEST: &str = "7225926f0e26ae1271310240e99884aa";

/// The files of its model folder: names and contents.
pub fn files() -> [(&'static str, &'static [u8]); 4] {
    [
        ("network.json", include_bytes!("../demo-model/network.json")),
        ("plans.json", include_bytes!("../demo-model/plans.json")),
        ("labels.json", include_bytes!("../demo-model/labels.json")),
        ("weights.safetensors", include_bytes!("../demo-model/weights.safetensors")),
    ]
}
