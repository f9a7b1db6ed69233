//! Against `tests/data/preprocessed`, which nnU-Net 2.8.1 wrote (`scripts/reference/preprocessed.py`).

use super::*;
use serde_json::Value;
use stunet_data::augment::Augmentation;
use stunet_data::files;
use stunet_data::loader::{LoaderConfig, batch};
use stunet_data::sample::{ANNOTATED, MemoryCase, class_locations};

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/preprocessed")
}

fn labels() -> LabelSet {
    let json: Value = files::read_json(&recorded().join("dataset.json")).unwrap();
    LabelSet::from_dataset_json(&json).unwrap()
}

fn plain() -> LabelSet {
    LabelSet::from_names(["background", "a", "b", "c", "d"]).unwrap()
}

fn crc32<T: bytemuck::Pod>(values: &[T]) -> String {
    format!("{:08x}", crc32fast::hash(bytemuck::cast_slice(values)))
}

/// A folder of this test with recorded files, which may be unpacked there.
fn copied(name: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(recorded().join(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, home.path().join(path.file_name().unwrap())).unwrap();
    }
    home
}

/// A case, whole: image and labels.
fn whole(cases: &NnUNetCases, index: usize) -> MemoryCase {
    let case = cases.open(index).unwrap();
    let [_, grid @ ..] = case.shape();
    let part = case.part([0; 3], grid).unwrap();
    let (image, labels) = (part.image.into_owned(), part.labels.into_owned());
    let locations = case.locations().unwrap().clone();
    MemoryCase::new(case.name(), image, labels).unwrap().with_locations(locations)
}

fn check(case: &MemoryCase, expected: &Value) {
    let shape: Vec<u64> = case.image().shape().iter().map(|n| *n as u64).collect();
    assert_eq!(serde_json::json!(shape), expected["shape"]);
    assert_eq!(crc32(case.image().as_slice().unwrap()), expected["image"]);
    assert_eq!(crc32(case.labels().as_slice().unwrap()), expected["labels"]);
}

#[test]
fn cases_of_nnunet_2() {
    let expected: Value = files::read_json(&recorded().join("expected.json")).unwrap();
    let cases = NnUNetCases::open(&recorded().join("v2"), labels(), 2).unwrap();
    cases.check().unwrap();
    assert_eq!(
        (cases.names(), cases.format()),
        (&["a".into(), "b".into()][..], CaseFormat::Blosc2)
    );
    assert_eq!(cases.unpack(|_| panic!("nothing to unpack")).unwrap(), 0);
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        let case = whole(&cases, index);
        check(&case, &expected[name]);
        let drawn = case.locations();
        for (class, key) in [(1, "1_2_3"), (2, "2_3"), (3, "3"), (ANNOTATED, "-1_0_1_2_3")] {
            let voxels = drawn.get(class);
            let found = serde_json::json!([voxels.len(), crc32(voxels.as_flattened())]);
            assert_eq!(found, expected[name]["drawn"][key], "{name}, {key}");
        }
        // nnU-Net's draw is also ours, bit for bit.
        assert_eq!(*drawn, class_locations(case.labels(), &labels()));
    }
}

#[test]
fn archives_are_unpacked_once() {
    let expected: Value = files::read_json(&recorded().join("expected.json")).unwrap();
    for (name, format) in [("npz", CaseFormat::Archive), ("v1", CaseFormat::ArchiveV1)] {
        let home = copied(name);
        let set = if name == "v1" { plain() } else { labels() };
        let cases = NnUNetCases::open(home.path(), set, 2).unwrap();
        assert_eq!(cases.format(), format);
        let message = cases.check().unwrap_err().to_string();
        assert!(message.contains("case a") && message.ends_with("a.npy"), "{message}");
        assert_eq!(cases.unpack(|_| Ok(())).unwrap(), 1);
        assert_eq!(cases.unpack(|_| panic!("done before")).unwrap(), 0);
        cases.check().unwrap();
        let case = whole(&cases, 0);
        check(&case, &expected["a"]);
        let few = LabelSet::from_names(["background", "a", "b", "c"]).unwrap();
        let few = NnUNetCases::open(home.path(), few, 2).unwrap();
        let case = few.open(0).unwrap();
        let message = case.part([0; 3], [7, 14, 9]).unwrap_err().to_string();
        assert!(
            message.contains("unknown label") && message.contains("found 4: preprocess"),
            "{message}"
        );
        // The files of the unpacked arrays keep nobody from opening the folder again.
        let again = NnUNetCases::open(home.path(), plain(), 2).unwrap();
        assert_eq!(again.names(), ["a"]);
    }
}

/// Patches cut out of the files are those cut out of memory.
#[test]
fn patches_are_those_of_whole_cases() {
    let cases = NnUNetCases::open(&recorded().join("v2"), labels(), 2).unwrap();
    let memory: Vec<_> = (0..2).map(|index| whole(&cases, index)).collect();
    let strides = [[1, 2, 2], [2, 2, 2]];
    for augmentation in [
        Augmentation::v1([8, 12, 10]),
        Augmentation::v2([8, 12, 10]),
        Augmentation::v2([2, 12, 12]),
        Augmentation::none([4, 6, 6]),
    ] {
        let config = LoaderConfig::new(augmentation, 3, &strides);
        for index in 0..30 {
            let found = batch(&cases, &config, index).unwrap();
            assert_eq!(found, batch(&memory, &config, index).unwrap(), "batch {index}");
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let refused = |folder: &Path, labels: LabelSet, channels, words: &[&str]| {
        let found = NnUNetCases::open(folder, labels, channels).and_then(|cases| {
            cases.check()?;
            cases.open(0)?.locations().map(drop)
        });
        let message = found.unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    let v2 = recorded().join("v2");
    refused(&v2, labels(), 1, &["case a", "1 channels", "a.b2nd"]);
    refused(&v2, plain(), 2, &["classes that dataset.json has", "a.pkl"]);
    refused(&recorded(), labels(), 2, &["preprocessed cases of nnU-Net", "0 .b2nd and 0 .npz"]);
    refused(&v2.join("none"), labels(), 2, &["cannot read the folder"]);
    let home = copied("v2");
    let remove = |name: &str| std::fs::remove_file(home.path().join(name)).unwrap();
    std::fs::write(home.path().join("a.pkl"), b"cos\nsystem\n(S'echo'\ntR.").unwrap();
    refused(home.path(), labels(), 2, &["os.system", "nothing was executed"]);
    remove("a.pkl");
    refused(home.path(), labels(), 2, &["case a", "properties", "missing"]);
    remove("a_seg.b2nd");
    refused(home.path(), labels(), 2, &["case a", "no such file", "a_seg.b2nd"]);
    std::fs::write(home.path().join("c.npz"), b"").unwrap();
    refused(home.path(), labels(), 2, &["of one kind", "2 .b2nd and 1 .npz"]);
    remove("a.b2nd");
    remove("b.b2nd");
    refused(home.path(), labels(), 2, &["an archive of NumPy", "c.npz"]);
}
