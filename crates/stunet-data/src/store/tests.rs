use super::*;
use crate::geometry::Geometry;
use crate::image::Image;
use crate::labels::{LabelMap, LabelSet};
use crate::plans::Plans;
use crate::preprocess::preprocess_with_labels;
use ndarray::{Array3, Array4};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Everything a case is made of.
struct Parts {
    image: Array4<f32>,
    labels: Array3<i16>,
    trace: Trace,
    locations: ClassLocations,
}

fn parts(channels: usize, seed: u64) -> Parts {
    let (shape, spacing) = ([5, 7, 11], [3.0, 1.0, 0.5]);
    let geometry = Geometry::axis_aligned(shape, spacing).unwrap();
    let values = stunet_testing::prng::uniform(seed, 0, channels * 385);
    let data = Array4::from_shape_vec((channels, 5, 7, 11), values).unwrap();
    let drawn = stunet_testing::prng::integers(seed, 1, 385, 4);
    let drawn = drawn.into_iter().map(|v| v as u16).collect();
    let map = LabelMap::new(Array3::from_shape_vec(shape, drawn).unwrap(), geometry.clone());
    let image = Image::new(data, geometry).unwrap();
    let (prepared, labels) =
        preprocess_with_labels(&image, Some(&map.unwrap()), &plans(channels)).unwrap();
    let mut locations: BTreeMap<u16, Vec<[u32; 3]>> = BTreeMap::new();
    for ((z, y, x), label) in labels.indexed_iter().filter(|(_, label)| **label > 0) {
        locations.entry(*label as u16).or_default().push([z as u32, y as u32, x as u32]);
    }
    let locations = ClassLocations::new(locations);
    Parts { image: prepared.image, labels, trace: prepared.trace, locations }
}

fn plans(channels: usize) -> Plans {
    let published = Plans::totalsegmentator();
    Plans { channels: vec![published.channels[0].clone(); channels], ..published }
}

fn recipe(channels: usize, cases: &[&str]) -> StoreRecipe {
    let labels = LabelSet::numbered(4).unwrap();
    StoreRecipe::new(plans(channels), labels, cases.iter().map(|c| (*c).to_owned()).collect())
        .unwrap()
}

fn put(store: &Store, name: &str, parts: &Parts) -> u64 {
    let stamp = Stamp::of(&[]).unwrap();
    let (image, labels) = (parts.image.view(), parts.labels.view());
    let (locations, trace) = (&parts.locations, &parts.trace);
    store.put(&NewCase { name, image, labels, locations, trace, stamp: &stamp }).unwrap()
}

/// A store of one case of two channels, and the path of its file.
fn scene() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::create(home.path(), recipe(2, &["a"])).unwrap();
    put(&store, "a", &parts(2, 3));
    let path = home.path().join("a.safetensors");
    (home, path)
}

/// Opens the case `a` as a program that has just started would.
fn open(home: &Path) -> Result<StoredCase> {
    Store::open(home)?.find("a")
}

#[test]
fn aligned_and_of_the_size_that_was_told() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::create(home.path(), recipe(1, &["a"])).unwrap();
    let size = put(&store, "a", &parts(1, 5));
    assert_eq!(std::fs::metadata(home.path().join("a.safetensors")).unwrap().len(), size);
    let case = open(home.path()).unwrap();
    assert_eq!(case.image().as_ptr().addr() % 64, 0);
    let names: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(names.len(), 2, "the case and the description, nothing else");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn what_is_opened_is_what_was_put(channels in 1usize..4, seed in 0u64..1000) {
        let home = tempfile::tempdir().unwrap();
        let parts = parts(channels, seed);
        let store = Store::create(home.path(), recipe(channels, &["a", "b"])).unwrap();
        put(&store, "a", &parts);
        prop_assert_eq!(store.unfinished(), ["b"]);
        let case = open(home.path()).unwrap();
        prop_assert_eq!(case.name(), "a");
        prop_assert_eq!(case.image(), parts.image.view());
        prop_assert_eq!(case.labels(), parts.labels.view());
        prop_assert_eq!(case.trace(), &parts.trace);
        let found: Vec<_> = case.locations().present().map(|l| (l, case.locations().get(l))).collect();
        let given: Vec<_> = parts.locations.present().map(|l| (l, parts.locations.get(l))).collect();
        prop_assert_eq!(found, given);
    }
}

#[test]
fn a_case_without_foreground_and_one_with_transposed_arrays() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::create(home.path(), recipe(2, &["a"])).unwrap();
    let mut parts = parts(2, 1);
    parts.labels.fill(0);
    parts.locations = ClassLocations::new(BTreeMap::new());
    // Not in standard layout: the order in memory must not show in the file.
    let image = parts.image.view().permuted_axes([0, 3, 2, 1]).as_standard_layout().into_owned();
    parts.image = image.permuted_axes([0, 3, 2, 1]);
    assert!(!parts.image.is_standard_layout());
    put(&store, "a", &parts);
    let case = open(home.path()).unwrap();
    assert_eq!(case.image(), parts.image);
    assert_eq!(case.locations().present().count(), 0);
}

/// One line, of this kind, the path last.
fn refused(home: &Path, words: &str) {
    let message = open(home).expect_err(words).to_string();
    assert!(message.starts_with("preprocessed case: expected "), "{message}");
    assert!(message.contains(words) && !message.contains('\n'), "{words:?} in {message}");
    assert!(message.ends_with("a.safetensors"), "{message}");
}

#[test]
fn truncated_anywhere() {
    let (home, path) = scene();
    let whole = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&whole).unwrap();
    let mut boundaries = vec![0, 8, header / 2, header, whole.len()];
    boundaries.extend(metadata.tensors().values().map(|info| header + info.data_offsets.1));
    assert_eq!(boundaries.len(), 5 + 2 + 3, "image, labels, locations of three labels");
    for boundary in boundaries {
        for length in [boundary.saturating_sub(1), boundary, boundary + 1] {
            if length < whole.len() {
                std::fs::write(&path, &whole[..length]).unwrap();
                refused(home.path(), "a complete safetensors file");
            }
        }
    }
    std::fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
    refused(home.path(), "a complete safetensors file");
    std::fs::write(&path, whole).unwrap();
    open(home.path()).unwrap();
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let (home, path) = scene();
    let whole = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for at in (0..header).chain((header..whole.len()).step_by(13)) {
        let mut bent = whole.clone();
        bent[at] ^= 1 << (at % 8);
        std::fs::write(&path, bent).unwrap();
        assert!(open(home.path()).is_err(), "byte {at} of {}", whole.len());
    }
}

#[test]
fn foreign_files() {
    let (home, path) = scene();
    let check = |bytes: &[u8], words: &str| {
        std::fs::write(&path, bytes).unwrap();
        refused(home.path(), words);
    };
    check(b"", "found 0 bytes");
    check(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], "a complete safetensors file");
    check(&[0; 4096], "a complete safetensors file");
    let weights = |header: &str| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 4]);
        bytes
    };
    let array = r#""w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    check(&weights(&format!("{{{array}}}")), "format stunet-case, found none");
    let about = r#""__metadata__":{"format":"stunet-network"}"#;
    check(&weights(&format!("{{{about},{array}}}")), "found stunet-network");
    let about = r#""__metadata__":{"format":"stunet-case","version":"2"}"#;
    check(&weights(&format!("{{{about},{array}}}")), "version 1, found 2");
    let about = r#""__metadata__":{"format":"stunet-case","version":"1"}"#;
    check(&weights(&format!("{{{about},{array}}}")), "a header with checksum none");
}

#[test]
fn another_case_and_another_recipe() {
    let (home, path) = scene();
    let store = Store::create(home.path(), recipe(2, &["a", "b"])).unwrap();
    std::fs::copy(&path, home.path().join("b.safetensors")).unwrap();
    let store = Store::open(store.folder()).unwrap();
    let message = store.find("b").unwrap_err().to_string();
    assert!(message.contains("expected case b, found case a"), "{message}");
    let outdated = |store: &Store| -> Vec<String> {
        store.outdated().into_iter().map(|(name, error)| format!("{name}: {error}")).collect()
    };
    let found = outdated(&store);
    assert!(found.len() == 1 && found[0].starts_with("b: preprocessed case"), "{found:?}");

    let plans = Plans { spacing_mm: [2.0; 3], ..plans(2) };
    let labels = LabelSet::numbered(4).unwrap();
    Store::create(home.path(), StoreRecipe::new(plans, labels, vec!["a".into()]).unwrap()).unwrap();
    let message = open(home.path()).unwrap_err().to_string();
    assert!(message.starts_with("preprocessed by other plans: expected digest "), "{message}");
    let found = outdated(&Store::open(home.path()).unwrap());
    assert!(found.len() == 1 && found[0].starts_with("a: preprocessed by other"), "{found:?}");
}

#[test]
fn subsets_keep_their_order_and_know_what_is_there() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::create(home.path(), recipe(1, &["c", "a", "b", "d"])).unwrap();
    assert!(store.names().is_empty());
    for name in ["a", "b", "c"] {
        put(&store, name, &parts(1, u64::from(name.as_bytes()[0])));
    }
    let store = Store::open(home.path()).unwrap();
    assert_eq!(store.names(), ["a", "b", "c"]);
    assert_eq!(store.unfinished(), ["d"]);
    let subset = store.subset(&["c", "a"]).unwrap();
    assert_eq!(TrainingCases::len(&subset), 2);
    assert_eq!(TrainingCases::open(&subset, 0).unwrap().name(), "c");
    assert_eq!(subset.case(1).unwrap().image(), store.find("a").unwrap().image());
    let message = store.subset(&["a", "d"]).unwrap_err().to_string();
    assert!(message.starts_with("no case d among the 3 of the store"), "{message}");
}

#[test]
fn values_are_checked_once_per_store() {
    let (home, path) = scene();
    let store = Store::open(home.path()).unwrap();
    let subset = store.subset(&["a"]).unwrap();
    subset.case(0).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(store.case(0).is_ok(), "what a subset has checked is not read whole again");
    refused(home.path(), "values with checksum");
}

#[test]
fn no_store_at_all() {
    let home = tempfile::tempdir().unwrap();
    let message = Store::open(home.path()).unwrap_err().to_string();
    assert!(message.starts_with("no such file or folder") && message.ends_with("store.json"));
    let blocker = home.path().join("file");
    std::fs::write(&blocker, b"").unwrap();
    assert!(Store::create(&blocker.join("store"), recipe(1, &["a"])).is_err());
}
