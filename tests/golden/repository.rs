//! The golden data that comes with the repository: whole, small, and enough for the central claim.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use stunet_testing::oracle::{Golden, Part};
use stunet_testing::prng;

/// Everything in the folder together, in bytes.
const LARGEST: u64 = 4_000_000;

/// What the project claims, as tests that must be among those on the public part: for each version of
/// the reference preprocessing, sliding window and labelmap; the network, a loss, a trajectory.
const CLAIM: [&str; 16] = [
    "model::public::seeded_weights_hash_as_recorded::",
    "model::public::logits_at_every_scale::",
    "model::public::gradients_of_the_training_loss::",
    "loss::public::single_scale::v1::",
    "loss::public::single_scale::v2_2.2::",
    "loss::public::single_scale::v2_2.8::",
    "trajectory::public::twenty_steps::",
    "preprocess::public::v1_cases::",
    "preprocess::public::v2_cases::2.2_",
    "preprocess::public::v2_cases::2.8_",
    "sliding_window::public::probabilities_of_v1::",
    "sliding_window::public::logits_of_v2::2.2_",
    "sliding_window::public::logits_of_v2::2.8_",
    "export::public::labelmap::v1_",
    "export::public::labelmap::v2_2.2_",
    "export::public::labelmap::v2_2.8_",
];

/// To be called last: looks at the tests that the others have added.
pub(crate) fn tests(golden: &mut Golden) {
    let names: Vec<String> = golden.tests.names().map(str::to_owned).collect();
    golden.tests.add("repository::golden_data_covers_the_claim", Ok(()), move || {
        for part in CLAIM {
            assert!(names.iter().any(|name| name.starts_with(part)), "no test {part}…");
        }
    });
    golden.tests.add("repository::golden_data_is_whole", Ok(()), golden_data_is_whole);
}

/// Every file is as `scripts/reference/record.py` wrote it, and none is there besides.
fn golden_data_is_whole() {
    let root = Part::public().root().to_owned();
    let listed = std::fs::read_to_string(root.join("SHA256SUMS")).unwrap();
    let listed: BTreeMap<PathBuf, String> = listed
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(hash, name)| (PathBuf::from(name), hash.to_owned()))
        .collect();
    let mut bytes = 0;
    let mut found = BTreeMap::new();
    for path in files(&root) {
        let content = std::fs::read(&path).unwrap();
        bytes += content.len() as u64;
        let name = path.strip_prefix(&root).unwrap().to_owned();
        if name != Path::new("SHA256SUMS") {
            found.insert(name, prng::sha256(&content));
        }
    }
    assert_eq!(found, listed);
    assert!(bytes <= LARGEST, "{bytes} bytes, {LARGEST} are allowed");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
