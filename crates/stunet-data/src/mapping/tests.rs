use super::*;
use crate::geometry::Geometry;
use ndarray::Array3;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;

/// A labelmap that holds every value below `count`.
fn every(count: u16) -> LabelMap {
    let shape = [1, 1, usize::from(count)];
    let data = Array3::from_shape_vec(shape, (0..count).collect()).unwrap();
    LabelMap::new(data, Geometry::axis_aligned(shape, [1.0; 3]).unwrap()).unwrap()
}

/// What every label becomes that does not become background.
fn becomes(count: u16, renumber: impl Fn(&mut LabelMap)) -> BTreeMap<u16, u16> {
    let mut labels = every(count);
    renumber(&mut labels);
    (0..).zip(labels.data.iter().copied()).filter(|(_, to)| *to > 0).collect()
}

fn recorded() -> serde_json::Map<String, Value> {
    serde_json::from_str(include_str!("tests/recorded.json")).unwrap()
}

/// `scripts/reference/record_label_maps.py` ran STU-Net's own script for each dataset.
#[test]
fn published_maps_are_those_of_the_reference() {
    let recorded = recorded();
    assert_eq!((recorded.len(), PUBLISHED.len()), (14, 14));
    let mut held = 0;
    for (dataset, expected) in &recorded {
        let map = LabelMapping::published(dataset).unwrap();
        let crashed = expected.get("error").is_some();
        assert_eq!(map.note().is_some_and(|note| note.contains("KeyError")), crashed, "{dataset}");
        if crashed {
            continue;
        }
        held += 1;
        let table = |key: &str| -> BTreeMap<u16, u16> {
            let entries = expected[key].as_object().unwrap().iter();
            entries.map(|(v, to)| (v.parse().unwrap(), to.as_u64().unwrap() as u16)).collect()
        };
        let prediction = becomes(105, |labels| map.renumber_prediction(labels));
        assert_eq!(prediction, table("prediction"), "{dataset}");
        let reference = becomes(256, |labels| map.renumber_reference(labels));
        assert_eq!(reference, table("reference"), "{dataset}");
        let names = expected["labels"].as_object().unwrap();
        for (class, number) in map.classes().iter().zip(1..) {
            assert_eq!(names[&number.to_string()], class.name.as_str(), "{dataset}");
        }
        assert_eq!(names.len(), map.classes().len());
    }
    assert_eq!(held, 11);
}

/// Made by hand from the table of names (`label_sys.py`) and the list of the model's labels.
#[test]
fn maps_that_end_in_an_error_in_the_reference() {
    let check = |name: &str, prediction: &[(u16, u16)], reference: &[(u16, u16)]| {
        let map = LabelMapping::published(name).unwrap();
        let found = becomes(105, |labels| map.renumber_prediction(labels));
        assert_eq!(found, prediction.iter().copied().collect(), "{name}");
        let found = becomes(256, |labels| map.renumber_reference(labels));
        assert_eq!(found, reference.iter().copied().collect(), "{name}");
    };
    check("btcv_cervix", &[(80, 1)], &[(1, 1)]);
    check("segthor", &[(11, 1), (79, 2), (3, 3)], &[(1, 1), (3, 2), (4, 3)]);
    // liver, colon, bladder, femora, spleen, kidneys, stomach, gallbladder, oesophagus, pancreas,
    // duodenum: in the order of the reference's table.
    let model = [40, 9, 80, 13, 14, 77, 38, 39, 78, 15, 11, 46, 10];
    let word = [1, 10, 14, 15, 16, 2, 3, 4, 5, 6, 7, 8, 9];
    let numbered = |values: [u16; 13]| values.into_iter().zip(1..).collect::<Vec<_>>();
    check("word", &numbered(model), &numbered(word));
}

#[test]
fn names_of_published_maps() {
    for name in PUBLISHED {
        let map = LabelMapping::published(name).unwrap();
        assert_eq!(LabelMapping::published(&name.to_uppercase()), Some(map.clone()));
        assert!(!map.title().is_empty() && map.label_set().num_outputs() > 1);
    }
    assert_eq!(LabelMapping::published("task011_btcv"), LabelMapping::published("btcv"));
    assert_eq!(LabelMapping::published("btc"), None);
}

const MAP: &str = "\
# A comment.
title: CTs of ours   # and another
ignore: 255

[reference]
liver = 1 + 2
kidney = 3
bone = 5..7
tail = 8

[prediction: totalsegmentator]
kidney = kidney_left + kidney_right
tail = none
bone = 73

[groups]
organs = liver + kidney

[omitted]
gallbladder = 4
";

#[test]
fn merges_ranges_groups_omissions_and_an_ignore_label() {
    let map = LabelMapping::parse(MAP, None).unwrap();
    assert_eq!((map.title(), map.note(), map.ignored()), ("CTs of ours", None, Some(5)));
    let reference = becomes(256, |labels| map.renumber_reference(labels));
    let expected = [(1, 1), (2, 1), (3, 2), (5, 3), (6, 3), (7, 3), (8, 4), (255, 5)];
    assert_eq!(reference, expected.into());
    let prediction = becomes(300, |labels| map.renumber_prediction(labels));
    assert_eq!(prediction, [(40, 1), (38, 2), (39, 2), (73, 3)].into());
    let scored: Vec<String> =
        map.scored().iter().map(|(name, class)| format!("{name} {class}")).collect();
    assert_eq!(scored, ["liver 1", "kidney 2", "bone 3", "tail 4", "organs (1, 2)"]);
    assert_eq!(map.label_set().name_of(4), Some("tail"));
}

#[test]
fn names_of_the_models_own_labels() {
    let labels = LabelSet::from_names(["background", "liver", "left", "right"]).unwrap();
    let text = "[reference]\nliver = 1\nkidney = 2\n[prediction]\nkidney = left + right\n";
    let map = LabelMapping::parse(text, Some(&labels)).unwrap();
    let found = becomes(9, |labels| map.renumber_prediction(labels));
    assert_eq!(found, [(1, 1), (2, 2), (3, 2)].into());
    let message = LabelMapping::parse(text, None).unwrap_err().to_string();
    assert!(message.contains("line 5") && message.contains("\"left\""), "{message}");
}

fn refused(text: &str, words: &[&str]) {
    let message = LabelMapping::parse(text, None).unwrap_err().to_string();
    assert!(message.starts_with("label map: "), "{message}");
    for word in words {
        assert!(message.contains(word), "expected {word:?} in {message:?}");
    }
}

#[test]
fn what_is_refused() {
    let with = |line: &str| MAP.replace("tail = 8", line);
    refused("", &["[reference]", "none"]);
    refused("liver = 1", &["line 1", "a section such as"]);
    refused("[reference", &["line 1", "[reference]"]);
    refused("[references]\n", &["line 1", "[omitted]"]);
    refused("[prediction: other]\n", &["line 1", "totalsegmentator"]);
    refused("ignore: 0\n", &["line 1", "a number from 1"]);
    refused(&with("tail"), &["line 9", "a line such as"]);
    refused(&with("tail ="), &["line 9", "a line such as"]);
    refused(&with("background = 8"), &["line 9"]);
    refused(&with("tail = 0"), &["line 9", "above 0"]);
    refused(&with("tail = 65536"), &["line 9", "65535"]);
    refused(&with("tail = 9..8"), &["line 9", "ranges"]);
    refused(&with("tail = cauda"), &["line 9", "cauda"]);
    refused(&with("tail = none"), &["line 9", "labels of the reference"]);
    refused(&with("tail = 2"), &["line 9", "2, which liver has, too"]);
    refused(&with("tail = 255"), &["line 9", "ignore"]);
    refused(&with("liver = 9"), &["line 9", "does not have yet"]);
    let other = with("tail = 8\nother = 9");
    refused(&other, &["line 10", "no label there has its name", "other"]);
    let gallbladder = MAP.replace("gallbladder = 4", "gallbladder = 5");
    refused(&gallbladder, &["line 20", "5, which bone has, too"]);
    let group = |line: &str| MAP.replace("organs = liver + kidney", line);
    refused(&group("organs = liver + lung"), &["line 17", "lung"]);
    refused(&group("liver = liver + kidney"), &["line 17", "no structure has"]);
    let prediction = |line: &str| MAP.replace("bone = 73", line);
    refused(&prediction("bone = kidney_left"), &["line 14", "38, which kidney has, too"]);
    // The liver has its label by name.
    refused(&prediction("bone = 40"), &["40, which bone has, too"]);
    refused(&prediction("bones = 73"), &["line 14", "a name of the section [reference]"]);
}

proptest! {
    /// Whatever the text, there is an answer, and what is read can be used.
    #[test]
    fn any_text_is_answered(text in "([a-c1-9 =+.:#\\[\\]]|liver|none|kidney_left|\n|\\[reference\\]\n|\\[prediction: totalsegmentator\\]\n|\\[groups\\]\n|ignore: ){0,40}") {
        if let Ok(map) = LabelMapping::parse(&text, None) {
            let mut labels = every(300);
            map.renumber_prediction(&mut labels);
            map.renumber_reference(&mut every(300));
            let most = map.classes().len() as u16;
            prop_assert!(labels.data.iter().all(|v| *v <= most));
            prop_assert_eq!(map.label_set().num_outputs(), map.classes().len() + 1);
        }
    }
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.labels");
    std::fs::write(&path, MAP).unwrap();
    assert_eq!(LabelMapping::load(&path, None).unwrap(), LabelMapping::parse(MAP, None).unwrap());
    std::fs::write(&path, b"\xff\xfe").unwrap();
    let message = LabelMapping::load(&path, None).unwrap_err().to_string();
    assert!(message.contains("UTF-8") && message.ends_with("ours.labels"), "{message}");
    assert!(LabelMapping::load(&folder.path().join("none"), None).is_err());
}
