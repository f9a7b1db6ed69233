//! Oracle A: checkpoints in every format, bit for bit; pickled plans; hostile pickles by name.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use stunet::model::weights::torch::TorchFile;
use stunet::model::weights::{Checkpoint, Dtype, LoadOptions, folder, pickle};
use stunet::model::{StuNetConfig, StuNetSize};
use stunet_testing::oracle::{self, Golden, Npz, Part, VOLUMES};
use stunet_testing::prng::StateHash;
use stunet_testing::say;

/// Strides leave no trace in a checkpoint; any do for comparing weights.
const STRIDES: [[usize; 3]; 5] = StuNetConfig::PUBLISHED_STRIDES;

/// Files of a folder whose name passes, in order.
fn files(folder: &Path, passes: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| passes(path.file_name().unwrap().to_str().unwrap()))
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

pub(crate) fn tests(golden: &mut Golden) {
    let (models, tensors) =
        (|part: &Part| recorded(part, ".model"), |part: &Part| recorded(part, ".pt"));
    let both = |part: &Part| [recorded(part, ".model"), recorded(part, ".pt")].concat();
    let mut each = |name: &str, cases: fn(&Part) -> Vec<String>, check: fn(&Part, &str)| {
        golden.each(&format!("checkpoints::{name}"), &["A_model"], cases, check);
    };
    each("v1_checkpoints_are_bit_exact", models, v1_checkpoint_is_bit_exact);
    each("networks_survive_load_and_conversion", models, network_survives);
    each("plans_beside_a_checkpoint_open_with_it", models, plans_open_with_it);
    each("tensor_traps", tensors, tensor_traps);
    each("truncated_files_are_refused", both, truncated_file_is_refused);
    each("v2_checkpoints_hash_as_recorded", v2_checkpoints, v2_checkpoint_hashes);
    let needs = [VOLUMES, "A_model"];
    golden.each("checkpoints::pickled_plans_equal_their_json", &needs, pickles, pickled_plans);
    golden.each(
        "checkpoints::hostile_pickles_are_refused_by_name",
        &needs,
        pickles,
        hostile_pickle,
    );
}

/// Files with recorded arrays: `X_expected.npz` belongs to `X_*`.
fn recorded(part: &Part, extension: &str) -> Vec<String> {
    let folder = part.path("A_model");
    let mut all = Vec::new();
    for expected in files(&folder, |n| n.ends_with("_expected.npz")) {
        let stem = name(&expected).strip_suffix("expected.npz").unwrap();
        let files = files(&folder, |n| n.starts_with(stem) && n.ends_with(extension));
        all.extend(files.iter().map(|file| name(file).to_owned()));
    }
    all
}

/// One of them: the arrays and the file.
fn open(part: &Part, file: &str) -> (Npz, PathBuf) {
    let folder = part.path("A_model");
    let stems = files(&folder, |n| n.ends_with("_expected.npz"));
    let belongs = |e: &&PathBuf| file.starts_with(name(e).strip_suffix("expected.npz").unwrap());
    (Npz::open(stems.iter().find(belongs).unwrap()), folder.join(file))
}

/// Our name of a reference key.
fn own_name(key: &str) -> String {
    let (module, rest) = key.split_once('.').unwrap();
    match module {
        "conv_blocks_context" => format!("encoder.stages.{rest}").replace(".conv3.", ".skip."),
        "conv_blocks_localization" => format!("decoder.stages.{rest}").replace(".conv3.", ".skip."),
        "upsample_layers" => format!("decoder.upsample.{rest}").replace(".conv.", "."),
        "seg_outputs" => format!("decoder.heads.{rest}"),
        other => panic!("unknown module {other}"),
    }
}

fn v1_checkpoint_is_bit_exact(part: &Part, file: &str) {
    let (expected, path) = open(part, file);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let tensors: BTreeMap<_, _> = checkpoint.tensors().collect();
    assert_eq!(tensors.len(), expected.names().len(), "{}", name(&path));
    for key in expected.names() {
        let own = own_name(key);
        let array = expected.f32(key);
        assert_eq!(tensors[own.as_str()].shape, array.shape(), "{key}");
        let half = tensors[own.as_str()].storage.dtype == Dtype::F16;
        let rounded = |v: f32| if half { half::f16::from_f32(v).to_f32() } else { v };
        let expected: Vec<u32> = array.iter().map(|&v| rounded(v).to_bits()).collect();
        let found: Vec<u32> =
            checkpoint.read(&own).unwrap().into_iter().map(f32::to_bits).collect();
        assert_eq!(found, expected, "{}: {key}", name(&path));
    }
    let config = checkpoint.config(STRIDES).unwrap();
    assert!(checkpoint.compare(&config).is_complete());
    say!("{}: {} tensors, {config:?}", name(&path), tensors.len());
}

/// The whole way: checkpoint to network, to our folder, to network; nothing changes a bit.
fn network_survives(part: &Part, file: &str) {
    let device = stunet::device::parse("cpu").unwrap();
    let (expected, path) = open(part, file);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let options = LoadOptions::default();
    let (network, report) = checkpoint.load(STRIDES, &options, &device).unwrap();
    assert_eq!(report.applied.len(), expected.names().len());
    let out = tempfile::tempdir().unwrap();
    let config = network.config();
    let precision = folder::StoredPrecision::F32;
    folder::save(out.path(), &config, &mut network.source(), precision, Default::default())
        .unwrap();
    let opened = folder::open(out.path()).unwrap();
    assert_eq!(opened.config(), &config);
    let (copy, _) = opened.load(&device).unwrap();
    let mut parameters = Vec::new();
    network.for_each_parameter(&mut |_, p| parameters.push(p.to_data()));
    let mut index = 0;
    copy.for_each_parameter(&mut |spec, p| {
        assert_eq!(p.to_data().as_bytes(), parameters[index].as_bytes(), "{}", spec.name);
        let direct = checkpoint.read(&spec.name).unwrap();
        assert_eq!(parameters[index].as_slice::<f32>().unwrap(), direct, "{}", spec.name);
        index += 1;
    });
}

/// `v2_tiny_model/fold_0/checkpoint_final.pth`
fn v2_checkpoints(part: &Part) -> Vec<String> {
    let root = part.path("A_model");
    let models = files(&root, |n| n.starts_with("v2_"));
    let folds = models.iter().flat_map(|model| files(model, |n| n.starts_with("fold_")));
    let files = folds.flat_map(|fold| files(&fold, |n| n.ends_with(".pth")));
    files.map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()).collect()
}

/// nnU-Net v2 checkpoints hold seeded weights: their hash is among the recorded ones.
fn v2_checkpoint_hashes(part: &Part, file: &str) {
    let root = part.path("A_model");
    let cases = oracle::json(&root.join("cases.json"));
    let hashes: Vec<_> =
        cases.as_object().unwrap().values().map(|c| c["weights_sha256"].clone()).collect();
    let path = root.join(file);
    let model = path.ancestors().nth(2).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let config = checkpoint.config(STRIDES).unwrap();
    assert!(checkpoint.compare(&config).is_complete());
    let keys: BTreeMap<String, String> = reference_keys(&path);
    let mut hash = StateHash::default();
    for spec in config.parameter_specs() {
        hash.update(&keys[&spec.name], &checkpoint.read(&spec.name).unwrap());
    }
    let hash = hash.finish();
    assert!(hashes.contains(&Value::String(hash.clone())), "{}: {hash}", name(&path));

    let metadata = checkpoint.metadata();
    let plans = oracle::json(&model.join("plans.json"));
    let dataset = oracle::json(&model.join("dataset.json"));
    let init = &metadata["init_args"];
    assert_eq!(init["plans"]["configurations"], plans["configurations"]);
    assert_eq!(init["dataset_json"]["labels"], dataset["labels"]);
    assert!(metadata["trainer_name"].as_str().unwrap().starts_with("STUNet"));
    assert!(metadata["logging"].is_object() && checkpoint.epoch().is_some());
}

/// The file's own keys by our names.
fn reference_keys(path: &Path) -> BTreeMap<String, String> {
    let file = TorchFile::open(path).unwrap();
    let weights = file.root().get("network_weights").unwrap().as_dict().unwrap();
    weights.iter_str().map(|(key, _)| (own_name(key), key.to_owned())).collect()
}

/// Permuted strides, slices of a shared storage, a strided view, no axes, no elements, integers,
/// booleans, doubles: in both containers.
fn tensor_traps(part: &Part, file: &str) {
    let (expected, path) = open(part, file);
    let file = TorchFile::open(&path).unwrap();
    let root = file.root().as_dict().unwrap();
    assert_eq!(root.entries.len(), expected.names().len());
    for (key, value) in root.iter_str() {
        let pickle::Value::Tensor(tensor) = value else {
            panic!("{key} is no tensor");
        };
        let array = expected.f64(key);
        assert_eq!(tensor.shape, array.shape(), "{}: {key}", name(&path));
        let wide = file.read_f64(tensor).unwrap();
        assert!(wide.iter().eq(array.iter()), "{}: {key}: {wide:?}", name(&path));
        let single = file.read_f32(tensor).unwrap();
        assert!(single.iter().eq(array.mapv(|v| v as f32).iter()), "{}: {key}", name(&path));
    }
}

/// Every file cut anywhere is one clear line, and so is every file of another kind.
fn truncated_file_is_refused(part: &Part, file: &str) {
    let folder = tempfile::tempdir().unwrap();
    let extension = if file.ends_with(".pt") { ".pt" } else { ".model" };
    let bytes = std::fs::read(open(part, file).1).unwrap();
    for thousandths in [1, 10, 100, 500, 900, 990] {
        let cut = folder.path().join(format!("cut{extension}"));
        std::fs::write(&cut, &bytes[..bytes.len() * thousandths / 1000]).unwrap();
        // Damage within the last storage's padding harms nothing.
        let error = TorchFile::open(&cut).unwrap_err().to_string();
        assert!(error.ends_with(extension) && !error.contains('\n'), "{error}");
    }
}

/// The published plan files, among the real volumes.
fn pickles(part: &Part) -> Vec<String> {
    let files = files(&part.path(VOLUMES).join("plan_files"), |n| n.ends_with(".pkl"));
    files.iter().map(|path| name(path).to_owned()).collect()
}

fn pickled_plans(part: &Part, file: &str) {
    let path = part.path(VOLUMES).join("plan_files").join(file);
    let found = pickle::read_file(&path).unwrap().to_json();
    let expected = oracle::json(&part.path(&format!("A_model/planfile_{file}.json")));
    assert_eq!(found, expected, "{file}");
    // The published trainers are named after their size.
    if let Some(trainer) = found["name"].as_str() {
        let size = trainer.rsplit('_').next().unwrap();
        assert!(StuNetSize::ALL.iter().any(|s| s.name() == size), "{trainer}");
    }
}

fn plans_open_with_it(part: &Part, file: &str) {
    let (_, path) = open(part, file);
    let plans = Checkpoint::open(&path).unwrap().plan_file().expect("a pickle beside it");
    assert!(plans["plans"]["plans_per_stage"]["0"]["patch_size"].is_array());
    assert!(plans["init"].is_array());
}

/// Whatever constructor a real pickle is made to name instead of its own, it is refused by name.
fn hostile_pickle(part: &Part, file: &str) {
    let hostile: &[(&str, &str)] = &[
        ("os", "system"),
        ("builtins", "eval"),
        ("subprocess", "check_output"),
        ("numpy.testing._private.utils", "runstring"),
        ("torch.serialization", "load"),
    ];
    let bytes = std::fs::read(part.path(VOLUMES).join("plan_files").join(file)).unwrap();
    let (module, class) = (b"\x8c\x05numpy\x94", b"\x8c\x05dtype\x94");
    let old: Vec<u8> = [&module[..], &class[..]].concat();
    let at = bytes.windows(old.len()).position(|w| w == old).unwrap();
    for (module, class) in hostile {
        let text = |t: &str| [&[0x8c, t.len() as u8], t.as_bytes(), b"\x94"].concat();
        let new = [text(module), text(class)].concat();
        let changed = [&bytes[..at], &new, &bytes[at + old.len()..]].concat();
        let error = pickle::read(&changed).unwrap_err().to_string();
        assert!(error.contains(&format!("`{module}.{class}`")), "{error}");
    }
}
