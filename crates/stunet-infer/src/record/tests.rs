//! What an output says of its making, and what it is taken for.

use super::*;
use crate::predict::Mode;
use burn::tensor::Device;
use stunet_data::labels::LabelSet;
use stunet_data::nifti;
use stunet_data::plans::{Accumulation, Plans, Reference};
use stunet_model::{Initialisation, StuNetConfig};
use stunet_testing::nifti_bytes::NiftiBytes;

const NAMES: [&str; 3] = ["background", "liver", "spleen"];

fn model_of(seeds: &[u64], plans: Plans, names: &[&str]) -> Model {
    let config = StuNetConfig { width: [2, 2, 4, 4, 4, 4], ..StuNetConfig::small(1, 3) };
    let network = |seed: &u64| {
        config.init_seeded(Initialisation::PyTorchDefault, *seed, &Device::flex()).unwrap()
    };
    let labels = LabelSet::from_names(names.iter().copied()).unwrap();
    Model::from_parts(seeds.iter().map(network).collect(), plans, labels).unwrap()
}

fn plans() -> Plans {
    Plans { num_outputs: Some(3), reference: Reference::NnUNetV28, ..Plans::totalsegmentator() }
}

fn model() -> Model {
    model_of(&[1], plans(), &NAMES)
}

fn digest(model: &Model) -> String {
    model.digest().unwrap().to_owned()
}

/// Two series of one archive are two inputs.
#[test]
fn a_part_of_the_input_is_told_by_a_digest() {
    let record = Record::new(&model(), &PredictOptions::default()).unwrap();
    let [one, two] = ["1.2.3 4", "1.2.3 5"].map(|name| record.with_part(name).text());
    assert!(one != two && one != record.text());
    assert!(one.contains("part of the input") && !one.contains("1.2.3"), "{one}");
    assert_eq!(record.with_part("1.2.3 4").text(), one);
}

#[test]
fn a_model_is_known_by_what_it_computes() {
    let known = digest(&model());
    let same = [
        Plans { notes: vec!["a note".into()], batch_size: 7, ..plans() },
        // What is turned is decided for every case, and recorded with it.
        Plans { orientation: None, ..plans() },
        Plans { reference: Reference::NnUNetV22, accumulation: Accumulation::F16, ..plans() },
    ];
    for plans in same {
        assert_eq!(digest(&model_of(&[1], plans, &NAMES)), known);
    }
    let names = ["background", "a", "b"];
    assert_eq!(digest(&model_of(&[1], plans(), &names)), known, "voxels hold values");
    let others = [
        model_of(&[2], plans(), &NAMES),
        model_of(&[1, 2], plans(), &NAMES),
        model_of(&[1], Plans { spacing_mm: [1.5, 1.5, 1.25], ..plans() }, &NAMES),
        model_of(&[1], Plans { mirror_axes: vec![0], ..plans() }, &NAMES),
        model_of(&[1], Plans { force_separate_z: Some(true), ..plans() }, &NAMES),
    ];
    for other in others {
        assert_ne!(digest(&other), known, "{:?}", other.plans());
    }
    assert_ne!(
        digest(&model_of(&[2, 1], plans(), &NAMES)),
        digest(&model_of(&[1, 2], plans(), &NAMES)),
        "sums depend on the order"
    );
}

#[test]
fn files_change_nothing_about_a_model() {
    let folder = tempfile::tempdir().unwrap();
    for seeds in [&[1][..], &[1, 2]] {
        let path = folder.path().join(seeds.len().to_string());
        let saved = model_of(seeds, plans(), &NAMES);
        saved.save_folder(&path).unwrap();
        let options = crate::OpenOptions::new(&Device::flex());
        assert_eq!(Model::open(&path, &options).unwrap().digest(), saved.digest());
    }
}

/// A case, its labelmap with a record, and what else is asked of the same place.
struct Scene {
    folder: tempfile::TempDir,
    input: Vec<PathBuf>,
    output: PathBuf,
}

impl Scene {
    fn new(record: &Record) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = vec![folder.path().join("ct_0000.nii")];
        std::fs::write(&input[0], NiftiBytes::ramp([9, 8, 7]).bytes()).unwrap();
        let output = folder.path().join("ct.nii.gz");
        let scene = Self { folder, input, output };
        scene.write(&record.with_input(&scene.input).unwrap().text());
        scene
    }

    fn write(&self, note: &str) {
        let (geometry, _) = nifti::read_geometry(&self.input[0]).unwrap();
        let voxels = ndarray::Array3::zeros(geometry.shape());
        nifti::write_bytes(&self.output, &voxels, &geometry, Some(note)).unwrap();
    }

    /// What stands there, in one line.
    fn standing(&self, record: &Record) -> String {
        match record.standing(&self.output, Some(&self.input)).unwrap() {
            Standing::Absent => "absent".to_owned(),
            Standing::Same => "same".to_owned(),
            Standing::Other { expected, found } => format!("{expected}, found {found}"),
        }
    }
}

fn record(change: impl FnOnce(&mut PredictOptions)) -> Record {
    let mut options = PredictOptions::default();
    change(&mut options);
    Record::new(&model(), &options).unwrap()
}

#[test]
fn settings_that_change_voxels_tell_outputs_apart() {
    let scene = Scene::new(&record(|_| {}));
    let check = |change: fn(&mut PredictOptions), expected: &str| {
        let found = scene.standing(&record(change));
        assert!(found.contains(expected), "{found:?} without {expected:?}");
    };
    check(|_| {}, "same");
    check(|o| o.memory_bytes = Some(1), "same");
    check(|o| o.device_sums_bytes = Some(1), "same");
    check(|o| o.confidence = Some(ConfidenceMeasure::Margin), "same");
    check(|o| o.mode = Mode::Fast, "one made with mode fast, found normal");
    check(|o| o.step_size = 0.75, "one made with step size 0.75, found 0.5");
    check(|o| o.mirror = false, "one made with mirrored axes , found 0, 1, 2");
    check(|o| o.accumulation = Some(Accumulation::F16), "accumulation f16, found f32");
    let other = Record::new(&model_of(&[5], plans(), &NAMES), &PredictOptions::default()).unwrap();
    assert!(scene.standing(&other).starts_with("one of this model ("));
    let arithmetic = Plans { reference: Reference::NnUNetV22, ..plans() };
    let other = model_of(&[1], arithmetic, &NAMES);
    let other = Record::new(&other, &PredictOptions::default()).unwrap();
    assert!(scene.standing(&other).contains("arithmetic nnunet-2.2, found nnunet-2.8"));
    let sure = record(|_| {}).with_confidence(ConfidenceMeasure::Margin);
    assert!(scene.standing(&sure).contains("confidence margin, found none"));
    let turned = record(|_| {}).with_orientation("RAS".parse().unwrap());
    assert!(scene.standing(&turned).contains("made with orientation RAS, found none"));
}

#[test]
fn another_input_is_another_output() {
    let record = record(|_| {});
    let scene = Scene::new(&record);
    std::fs::write(&scene.input[0], NiftiBytes::ramp([9, 8, 7]).bytes()).unwrap();
    assert_eq!(scene.standing(&record), "same", "the same bytes, written later");
    let mut bytes = NiftiBytes::ramp([9, 8, 7]).bytes();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&scene.input[0], bytes).unwrap();
    assert!(scene.standing(&record).contains("another input"));
    let two = [scene.input.clone(), scene.input.clone()].concat();
    assert!(record.standing(&scene.output, Some(&two)).unwrap() != Standing::Same);
    assert_eq!(record.standing(&scene.output, None).unwrap(), Standing::Same);
}

#[test]
fn what_says_nothing_is_of_somebody_else() {
    let record = record(|_| {});
    let scene = Scene::new(&record);
    let check = |expected: &str| {
        let found = scene.standing(&record);
        assert!(found.contains(expected), "{found}");
    };
    for note in ["", "{", "[]", "{\"stunet_record\"", "{\"a\": 1}"] {
        scene.write(note);
        check("another program");
    }
    for note in ["{\"stunet_record\": null}", "{\"stunet_record\": 1, \"input\": 7}"] {
        scene.write(note);
        check("one made with ");
    }
    for bytes in [&b""[..], b"mine", &[0; 400]] {
        std::fs::write(&scene.output, bytes).unwrap();
        check("another program");
    }
    std::fs::remove_file(&scene.output).unwrap();
    check("absent");
}

#[test]
fn the_same_wherever_it_lies() {
    let record = record(|_| {});
    let scene = Scene::new(&record);
    let here = record.with_input(&scene.input).unwrap();
    let elsewhere = scene.folder.path().join("a/b.nii");
    std::fs::create_dir(elsewhere.parent().unwrap()).unwrap();
    std::fs::copy(&scene.input[0], &elsewhere).unwrap();
    assert_eq!(record.with_input(&[elsewhere]).unwrap().text(), here.text());
    assert!(!here.text().contains(scene.folder.path().to_str().unwrap()));
    assert!(here.text().is_ascii());
}
