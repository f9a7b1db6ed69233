use super::*;
use crate::evaluate::{Class, EvaluationRules, Missing, pairs};
use ndarray::Array3;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use stunet_data::components::Connectivity;
use stunet_data::geometry::Geometry;
use stunet_data::nifti;

/// A row of labels, a digit each.
fn row(text: &str) -> LabelMap {
    let values: Vec<u16> = text.chars().map(|c| c.to_digit(10).unwrap() as u16).collect();
    let shape = [1, 1, values.len()];
    let data = Array3::from_shape_vec(shape, values).unwrap();
    LabelMap::new(data, Geometry::axis_aligned(shape, [3.0, 1.0, 0.5]).unwrap()).unwrap()
}

fn text(labels: &LabelMap) -> String {
    labels.data.iter().map(u16::to_string).collect()
}

fn check(steps: Vec<KeepLargest>, before: &str, after: &str) {
    let mut labels = row(before);
    Postprocessing { steps }.apply(&mut labels);
    assert_eq!(text(&labels), after, "{before}");
}

#[test]
fn the_largest_part_stays() {
    let one = || KeepLargest::of(vec![Class::Label(1)]);
    check(vec![one()], "1101022", "1100022");
    // Equally large parts all stay.
    check(vec![one()], "1101102001", "1101102000");
    check(vec![one()], "0002200", "0002200");
    // The union of two labels is one part, and so is a region.
    let both = KeepLargest::of(vec![Class::Label(1), Class::Label(2)]);
    check(vec![both], "1210202", "1210000");
    let region = KeepLargest::of(vec![Class::Region(vec![1, 2])]);
    check(vec![region, one()], "1211020", "0211000");
    // Parts of 3 mm³ and more stay, too: a voxel has 1.5 mm³.
    let sizes = KeepLargest { min_valid_mm3: Some(3.0), ..one() };
    check(vec![sizes], "1110110100", "1110110000");
}

#[test]
fn corners_connect_in_version_2_and_faces_in_version_1() {
    let mut data = Array3::zeros((2, 2, 4));
    for at in [[0, 0, 0], [0, 0, 1], [1, 1, 2]] {
        data[at] = 1;
    }
    let geometry = Geometry::axis_aligned([2, 2, 4], [1.0; 3]).unwrap();
    let labels = LabelMap::new(data, geometry).unwrap();
    for (connectivity, left) in [(Connectivity::Corners, 3), (Connectivity::Faces, 2)] {
        let mut labels = labels.clone();
        let step = KeepLargest { connectivity, ..KeepLargest::of(vec![Class::Label(1)]) };
        Postprocessing { steps: vec![step] }.apply(&mut labels);
        assert_eq!(labels.data.iter().filter(|v| **v > 0).count(), left);
    }
}

/// Folders `ref` and `pred` with rows of labels.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new(cases: &[(&str, &str)]) -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        for folder in ["ref", "pred"] {
            std::fs::create_dir(scene.path(folder)).unwrap();
        }
        for (number, (reference, prediction)) in cases.iter().enumerate() {
            for (folder, labels) in [("ref", reference), ("pred", prediction)] {
                let path = scene.path(&format!("{folder}/case{number}.nii"));
                nifti::write_labelmap(&path, &row(labels), 9).unwrap();
            }
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn determine(&self, classes: &[Class], rule: PostprocessingRule) -> Determined {
        let pairs = pairs(&self.path("ref"), &self.path("pred"), Missing::Refuse).unwrap();
        let rules = EvaluationRules { classes: classes.to_vec(), ..EvaluationRules::default() };
        determine(&pairs, &rules, &[1, 2], rule, &|_, _| ControlFlow::Continue(())).unwrap()
    }
}

const LABELS: [Class; 2] = [Class::Label(1), Class::Label(2)];

fn taken(found: &Determined) -> Vec<bool> {
    found.decisions.iter().map(|decision| decision.taken).collect()
}

#[test]
fn what_helps_is_done() {
    // A false part of label 1, which only the foreground as one can remove without harm.
    let scene = Scene::new(&[("0111220000", "0111220010"), ("0111220000", "0111220000")]);
    for rule in [PostprocessingRule::V2, PostprocessingRule::V1] {
        let found = scene.determine(&LABELS, rule);
        assert_eq!(taken(&found), [true, false, false], "{rule:?}");
        assert_eq!(found.after.foreground_dice(), 1.0);
    }
    // Label 2 has two true parts in the first case: only label 1 gains.
    let scene = Scene::new(&[("0111002202", "1011102202"), ("0111000220", "0111010220")]);
    let found = scene.determine(&LABELS, PostprocessingRule::V2);
    assert_eq!(taken(&found), [false, true, false]);
    assert_eq!(found.postprocessing.steps, [KeepLargest::of(vec![Class::Label(1)])]);
    assert!(found.after.mean_dice(0) > found.before.mean_dice(0));
    assert_eq!(found.decisions[1].after, found.after.mean_dice(0));
    // Nothing to remove.
    let scene = Scene::new(&[("01122", "01122")]);
    let found = scene.determine(&LABELS, PostprocessingRule::V2);
    assert_eq!((taken(&found), found.postprocessing.steps.len()), (vec![false; 3], 0));
}

/// The versions differ where one class gains and the mean does not exist.
#[test]
fn a_class_that_is_nowhere() {
    let scene = Scene::new(&[("0111000", "0111010")]);
    assert_eq!(taken(&scene.determine(&LABELS, PostprocessingRule::V2)), [false, true, false]);
    assert_eq!(taken(&scene.determine(&LABELS, PostprocessingRule::V1)), [true, false, false]);
}

/// Regions overlap: what is done to the first shows in the second.
#[test]
fn regions_are_tried_one_after_the_other() {
    let classes = [Class::Region(vec![1, 2]), Class::Label(2)];
    let scene = Scene::new(&[("0112000", "0112020"), ("0112000", "0112020")]);
    let found = scene.determine(&classes, PostprocessingRule::V2);
    assert_eq!(taken(&found), [true, false, false]);
    assert_eq!(found.after.foreground_dice(), 1.0);
}

fn v2(classes: Vec<Class>) -> Postprocessing {
    Postprocessing { steps: vec![KeepLargest::of(classes)] }
}

#[test]
fn files_of_version_2() {
    let scene = Scene::new(&[("0111220000", "0111220010")]);
    let found = scene.determine(&LABELS, PostprocessingRule::V2);
    for name in ["postprocessing.pkl", "postprocessing.json"] {
        let path = scene.path(name);
        match name.ends_with("pkl") {
            true => found.postprocessing.save_pickle(&path).unwrap(),
            false => found.postprocessing.save_json_v2(&path, &found).unwrap(),
        }
        assert_eq!(Postprocessing::load(&path).unwrap(), found.postprocessing, "{name}");
    }
    let bytes = std::fs::read(scene.path("postprocessing.pkl")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(&format!("c{}\n{}\n", PICKLE_FUNCTION.0, PICKLE_FUNCTION.1)), "{text}");
    let region = v2(vec![Class::Region(vec![1, 2])]);
    let path = scene.path("region.pkl");
    region.save_pickle(&path).unwrap();
    // A tuple comes back as its labels: the same union.
    assert_eq!(Postprocessing::load(&path).unwrap(), v2(LABELS.to_vec()));
    let none = Postprocessing::default();
    none.save_pickle(&path).unwrap();
    assert_eq!(Postprocessing::load(&path).unwrap(), none);
}

#[test]
fn files_of_version_1() {
    let scene = Scene::new(&[("0111220000", "0111220010")]);
    let found = scene.determine(&LABELS, PostprocessingRule::V1);
    let path = scene.path("postprocessing.json");
    found.postprocessing.save_json_v1(&path, &found).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let words = ["\"min_valid_object_sizes\": \"None\"", "\"num_samples\": 1", "dc_per_class_raw"];
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    let again = Postprocessing::load(&path).unwrap();
    assert_eq!(again.steps[0].classes, [Class::Region(vec![1, 2])]);
    assert_eq!(again.steps[0].connectivity, Connectivity::Faces);
    let with_sizes = "{\"for_which_classes\": [[1, 2], 2], \
                      \"min_valid_object_sizes\": \"{(1, 2): 12.5, 2: 3}\"}";
    std::fs::write(&path, with_sizes).unwrap();
    let again = Postprocessing::load(&path).unwrap();
    let sizes: Vec<Option<f64>> = again.steps.iter().map(|step| step.min_valid_mm3).collect();
    assert_eq!(sizes, [Some(12.5), Some(3.0)]);
    // Each version has its own files.
    let message = again.save_pickle(&scene.path("a.pkl")).unwrap_err().to_string();
    assert!(message.contains("steps that nnU-Net 2 knows"), "{message}");
    let message = v2(LABELS.to_vec()).save_json_v1(&path, &found).unwrap_err().to_string();
    assert!(message.contains("steps that nnU-Net 1 knows"), "{message}");
}

#[test]
fn other_files_are_refused() {
    let scene = Scene::new(&[]);
    let refused = |name: &str, bytes: &[u8], words: &str| {
        let path = scene.path(name);
        std::fs::write(&path, bytes).unwrap();
        let message = Postprocessing::load(&path).unwrap_err().to_string();
        assert!(message.contains(words) && message.contains(name), "{message}");
    };
    refused("a.pkl", b"cos\nsystem\n(S'echo gone'\ntR.", "os.system");
    refused("a.pkl", b"N.", "a pair of functions");
    refused("a.pkl", b"]](K\x01e\x86.", "0 functions and 1 arguments");
    refused("a.pkl", b"](K\x01e](K\x01e\x86.", "the function 1");
    refused("a.json", b"{}", "no list postprocessing_fns");
    refused("a.json", b"{\"for_which_classes\": [\"a\"]}", "\"a\"");
    refused(
        "a.json",
        b"{\"for_which_classes\": [1], \"min_valid_object_sizes\": \"exit()\"}",
        "min_valid_object_sizes",
    );
    refused(
        "a.json",
        b"{\"for_which_classes\": [1], \"min_valid_object_sizes\": \"{2: 1}\"}",
        "no size for 1",
    );
    let other = "{\"postprocessing_fns\": [\"other\"], \"postprocessing_kwargs\": [{}]}";
    refused("a.json", other.as_bytes(), "the function \"other\"");
    let background = other
        .replace("other", PICKLE_FUNCTION.1)
        .replace("{}", "{\"labels_or_regions\": 1, \"background_label\": 3}");
    refused("a.json", background.as_bytes(), "background_label");
    assert!(Postprocessing::load(Path::new("/nowhere/a.pkl")).is_err());
}
