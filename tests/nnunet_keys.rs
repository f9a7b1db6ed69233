//! Every key that nnU-Net 2.8.1 reads is in our table, and the table is what `docs/nnunet-keys.md` says.
#![allow(clippy::disallowed_methods, missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use stunet_data::plans::keys::{self, KeyPlace, Treatment};

/// Places that nnU-Net 1.7 has, which is not parsed.
const OF_1_7: [KeyPlace; 3] = [KeyPlace::V1Plans, KeyPlace::V1Stage, KeyPlace::V1Model];

fn recorded() -> BTreeSet<(&'static str, &'static str)> {
    let lines = keys::NNUNET_2_8_1.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).collect()
}

#[test]
fn every_key_of_nnunet_has_its_line_and_no_line_is_made_up() {
    let ours = keys::KEYS.iter().filter(|key| !OF_1_7.contains(&key.place));
    let ours: BTreeSet<_> = ours.map(|key| (key.place.name(), key.name)).collect();
    let recorded = recorded();
    assert!(recorded.len() > 80, "{}", recorded.len());
    let missing: Vec<_> = recorded.difference(&ours).collect();
    assert!(missing.is_empty(), "not in crates/stunet-data/src/plans/keys.rs: {missing:?}");
    let made_up: Vec<_> = ours.difference(&recorded).collect();
    assert!(made_up.is_empty(), "not found by scripts/nnunet-keys: {made_up:?}");
}

#[test]
fn keys_are_listed_once_and_say_why() {
    let mut seen = BTreeSet::new();
    for key in keys::KEYS {
        assert!(seen.insert((key.place.name(), key.name)), "{} twice", key.name);
        assert!(!key.how.is_empty(), "{}", key.name);
        let of_a_checkpoint = matches!(key.place, KeyPlace::Checkpoint | KeyPlace::Logging);
        assert!(key.treatment != Treatment::Written || of_a_checkpoint, "{}", key.name);
    }
}

/// Written anew with `STUNET_WRITE_DOCS=1 cargo test --release --test nnunet_keys`.
#[test]
fn the_page_is_the_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/nnunet-keys.md");
    if std::env::var_os("STUNET_WRITE_DOCS").is_some() {
        std::fs::write(&page, keys::markdown()).unwrap();
    }
    let written = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        written == keys::markdown(),
        "docs/nnunet-keys.md differs: STUNET_WRITE_DOCS=1 writes it"
    );
}
