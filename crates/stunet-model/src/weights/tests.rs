use super::pickle::Value;
use super::writer::{Contents, SgdRecord, V1Metadata, V2Metadata, write_v1, write_v2};
use super::*;
use crate::{Initialisation, NUM_STAGES, StuNetConfig};
use burn::tensor::Device;
use proptest::prelude::*;
use serde_json::json;
use std::path::{Path, PathBuf};

fn config() -> StuNetConfig {
    StuNetConfig {
        in_channels: 2,
        num_classes: 3,
        width: [2, 3, 4, 5, 6, 7],
        depth: [2, 1, 3, 1, 2, 1],
        strides: [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 1, 2], [1, 1, 2]],
    }
}

/// Values that differ everywhere, so that no two tensors can be exchanged unnoticed.
fn counting(start: f32) -> impl FnMut(&ParameterSpec) -> Result<TensorData, ModelError> {
    let mut next = start;
    move |spec: &ParameterSpec| {
        let count: usize = spec.shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| next + i as f32 / 16.0).collect();
        next += count as f32;
        Ok(TensorData::new(values, spec.shape.clone()))
    }
}

fn all_values(config: &StuNetConfig, source: &mut dyn ParameterSource) -> Vec<(String, Vec<f32>)> {
    let specs = config.parameter_specs();
    let read = |spec: &ParameterSpec| {
        (spec.name.clone(), values(source, spec).unwrap().try_to_vec().unwrap())
    };
    specs
        .iter()
        .map({
            let mut read = read;
            move |s| read(s)
        })
        .collect()
}

fn contents<'a>(
    config: &'a StuNetConfig,
    parameters: &'a mut dyn ParameterSource,
    momentum: Option<&'a mut dyn ParameterSource>,
) -> Contents<'a> {
    Contents { config, parameters, momentum, optimiser: SgdRecord::default() }
}

/// A v1 checkpoint with momentum and plans.
fn v1(folder: &Path) -> PathBuf {
    let path = folder.join("x.model");
    let metadata = V1Metadata {
        epoch: 7,
        history: [vec![0.5], vec![0.25, 1.0], vec![]],
        plan_file: Some(json!({ "name": "T", "plans": { "plans_per_stage": { "0": [1.5] } } })),
    };
    let (mut parameters, mut momentum) = (counting(0.0), counting(-1e6));
    let config = config();
    write_v1(&path, contents(&config, &mut parameters, Some(&mut momentum)), &metadata).unwrap();
    path
}

#[test]
fn v1_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(&v1(folder.path())).unwrap();
    assert_eq!(checkpoint.kind(), CheckpointKind::NnUNetV1);
    assert_eq!((checkpoint.epoch(), checkpoint.trainer()), (Some(7), Some("T")));
    let plans = checkpoint.plan_file().unwrap();
    assert_eq!(plans["plans"]["plans_per_stage"]["0"], json!([1.5]));
    assert_eq!(checkpoint.metadata()["plot_stuff"], json!([[0.5], [0.25, 1.0], [], []]));
    assert!(!checkpoint.metadata().contains_key("optimizer_state_dict"));

    let config = config();
    assert_eq!(checkpoint.config(config.strides).unwrap(), config, "read off the shapes");
    let device = Device::flex();
    let (network, report) =
        checkpoint.load(config.strides, &LoadOptions::default(), &device).unwrap();
    assert!(report.is_complete());
    assert_eq!(report.applied.len(), config.parameter_specs().len());
    assert_eq!(all_values(&config, &mut network.source()), all_values(&config, &mut counting(0.0)));
    let name = &report.applied[5];
    let direct = checkpoint.read(name).unwrap();
    assert_eq!(direct, all_values(&config, &mut counting(0.0))[5].1);
    assert!(checkpoint.read("nothing").is_err());
}

#[test]
fn v2_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint_final.pth");
    let metadata = V2Metadata {
        epoch: 3,
        trainer: "STUNetTrainer_small".into(),
        mirror_axes: vec![0, 1, 2],
        init_args: json!({ "plans": { "channel_names": { "0": "CT" } }, "fold": 0 }),
        logging: json!({ "lrs": [0.01], "val_losses": [null], "dice": [[0.5, null]] }),
        best_ema: Some(0.25),
    };
    let config = config();
    let mut parameters = counting(0.0);
    write_v2(&path, contents(&config, &mut parameters, None), &metadata).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.kind(), CheckpointKind::NnUNetV2);
    assert_eq!(checkpoint.epoch(), Some(3));
    assert_eq!(checkpoint.trainer(), Some("STUNetTrainer_small"));
    let read = checkpoint.metadata();
    assert_eq!(read["init_args"], metadata.init_args);
    assert_eq!(read["inference_allowed_mirroring_axes"], json!([0, 1, 2]));
    let (mut source, _) = checkpoint.source(&config, &LoadOptions::default()).unwrap();
    assert_eq!(all_values(&config, &mut source), all_values(&config, &mut counting(0.0)));
}

#[test]
fn what_does_not_fit_is_refused_unless_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(&v1(folder.path())).unwrap();
    let device = Device::flex();
    let strict = LoadOptions::default();
    let check = |config: &StuNetConfig, allow: LoadOptions, phrase: &str| {
        let message = checkpoint.load_into(config, &strict, &device).unwrap_err().to_string();
        assert!(message.contains(phrase) && message.ends_with("x.model"), "{message}");
        let (network, report) = checkpoint.load_into(config, &allow, &device).unwrap();
        assert_eq!(network.config(), *config);
        report
    };
    let classes = StuNetConfig { num_classes: 5, ..config() };
    let allow = LoadOptions { allow_mismatched: true, ..strict.clone() };
    let report = check(&classes, allow, "heads.0.weight: expected [5, 6, 1, 1, 1], found [3,");
    assert_eq!(report.mismatched.len(), 10);

    let deeper = StuNetConfig { depth: [2, 2, 3, 1, 2, 1], ..config() };
    let allow = LoadOptions { allow_missing: true, ..strict.clone() };
    let report = check(&deeper, allow, "16 missing (encoder.stages.1.1.conv1.weight");
    assert_eq!(report.missing.len(), 16);

    let flatter = StuNetConfig { depth: [1; NUM_STAGES], ..config() };
    let allow = LoadOptions { allow_unused: true, ..strict.clone() };
    assert!(!check(&flatter, allow, "unused").unused.is_empty());
}

#[test]
fn broken_checkpoints_are_clear_errors() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(v1(folder.path())).unwrap();
    let path = folder.path().join("broken.model");
    let check = |bytes: &[u8], phrase: &str| {
        std::fs::write(&path, bytes).unwrap();
        let read_all = || {
            let checkpoint = Checkpoint::open(&path)?;
            let config = checkpoint.config(config().strides)?;
            checkpoint.load_into(&config, &LoadOptions::default(), &Device::flex())
        };
        let message = read_all().map(drop).unwrap_err().to_string();
        assert!(message.contains(phrase), "{message}");
        assert!(message.ends_with("broken.model") && !message.contains('\n'), "{message}");
    };
    check(b"", "0 bytes");
    check(b"hello world", "begins with");
    check(b"\x80\x02N.", "magic number");
    check(&bytes[..bytes.len() / 2], "truncated");
    check(&bytes[..bytes.len() - 10], "truncated");
    check(&bytes[..3000], "truncated");
    // One bit of one weight: the values of the first parameter, 0, 1/16, 2/16, ..
    let pattern: Vec<u8> = [0f32, 0.0625, 0.125].iter().flat_map(|v| v.to_le_bytes()).collect();
    let at = bytes.windows(pattern.len()).position(|w| w == pattern).unwrap();
    let mut flipped = bytes.clone();
    flipped[at + 4] ^= 1;
    check(&flipped, "checksum");
    let mut hostile = bytes.clone();
    let global = b"collections\nOrderedDict";
    let at = bytes.windows(global.len()).position(|w| w == global).unwrap();
    hostile[at..at + global.len()].copy_from_slice(b"os\nsystem\naaaaaaaaaaaaa");
    check(&hostile, "os.system");

    let missing = Checkpoint::open(&folder.path().join("none.model")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot open"), "{missing}");
    assert!(Checkpoint::open(folder.path()).is_err(), "a folder");
}

#[test]
fn other_networks_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.model");
    let check = |root: Value, phrase: &str| {
        let file = std::fs::File::create(&path).unwrap();
        let mut zip = zip::ZipWriter::new(file);
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        zip.start_file("archive/data.pkl", options).unwrap();
        std::io::Write::write_all(&mut zip, &pickle::write(&root)).unwrap();
        zip.finish().unwrap();
        let message = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(message.contains(phrase), "{message}");
    };
    let tensor = |key: &str| {
        let storage = StorageRef { key: "0".into(), dtype: Dtype::F32, numel: 1, start: 0 };
        let (shape, stride) = (vec![1], vec![1]);
        let tensor = TensorRef { storage: storage.into(), offset: 0, shape, stride };
        Value::dict([(key, Value::Tensor(tensor))])
    };
    check(Value::dict([("model", Value::None)]), "a dict with `model`");
    check(Value::List(vec![]), "no dict");
    check(Value::dict([("state_dict", Value::None)]), "a dict of weights");
    check(Value::dict([("state_dict", Value::dict([("a", Value::None)]))]), "tensors by name");
    let resnet = "encoder.layer1.0.conv1.weight";
    check(Value::dict([("state_dict", tensor(resnet))]), resnet);
}

#[test]
fn folder_round_trip() {
    let device = Device::flex();
    let config = config();
    let temporary = tempfile::tempdir().unwrap();
    let check = |precision| {
        let path = temporary.path().join(format!("{precision:?}"));
        assert!(!folder::is_model_folder(&path));
        let mut provenance = folder::Provenance::new();
        provenance.insert("epoch".into(), json!(4000));
        let mut source = counting(0.0);
        folder::save(&path, &config, &mut source, precision, provenance.clone()).unwrap();
        assert!(folder::is_model_folder(&path));
        let opened = folder::open(&path).unwrap();
        assert_eq!((opened.config(), opened.provenance()), (&config, &provenance));
        let (network, report) = opened.load(&device).unwrap();
        drop(opened);
        assert!(report.is_complete());
        (all_values(&config, &mut network.source()), network)
    };
    let expected = all_values(&config, &mut counting(0.0));
    let (exact, network) = check(folder::StoredPrecision::F32);
    assert_eq!(exact, expected);
    let (halves, _) = check(folder::StoredPrecision::F16);
    assert_eq!(halves.len(), expected.len());
    for ((_, half), (_, full)) in halves.iter().zip(&expected) {
        let rounded: Vec<f32> = full.iter().map(|&v| half::f16::from_f32(v).to_f32()).collect();
        assert_eq!(*half, rounded);
    }
    // Saving over the file that a network came from leaves the network intact.
    let path = temporary.path().join("F32");
    let mut zeros = |spec: &ParameterSpec| {
        Ok(TensorData::new(vec![0f32; spec.shape.iter().product()], spec.shape.clone()))
    };
    folder::save(&path, &config, &mut zeros, folder::StoredPrecision::F32, Default::default())
        .unwrap();
    assert_eq!(all_values(&config, &mut network.source()), expected);
    let left: Vec<_> = std::fs::read_dir(&path).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no temporary files: {left:?}");
    let input = Tensor::ones([1, 2, 16, 16, 64], &device);
    assert_eq!(network.forward(input).dims(), [1, 3, 16, 16, 64]);
}

/// A folder of version 1, in which parameters had other names, opens and has the digest that outputs
/// made with it carry.
#[test]
fn a_folder_of_version_1_opens() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let config = StuNetConfig::small(1, 3).with_width([2, 2, 4, 4, 8, 8]);
    let precision = folder::StoredPrecision::F32;
    folder::save(path, &config, &mut counting(0.0), precision, Default::default()).unwrap();
    let (now, report) = folder::open(path).unwrap().load(&Device::flex()).unwrap();

    let description = path.join(folder::NETWORK_FILE);
    let text = std::fs::read_to_string(&description).unwrap();
    std::fs::write(&description, text.replace("\"version\": 2", "\"version\": 1")).unwrap();
    let weights = path.join(folder::WEIGHTS_FILE);
    let bytes = std::fs::read(&weights).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
    assert!(header.contains("\"encoder.stages.5.0.norm2.weight\""), "{header:.400}");
    for spec in config.parameter_specs() {
        let before = names::former(&spec.name);
        header = header.replace(&format!("\"{}\"", spec.name), &format!("\"{before}\""));
    }
    assert!(header.contains("\"encoder.5.0.norm2.weight\""), "{header:.400}");
    let header = format!("{header:length$}");
    std::fs::write(&weights, [&bytes[..8], header.as_bytes(), &bytes[8 + length..]].concat())
        .unwrap();

    let (then, old) = folder::open(path).unwrap().load(&Device::flex()).unwrap();
    assert_eq!((old.applied, old.missing), (report.applied, Vec::new()));
    assert_eq!(all_values(&config, &mut then.source()), all_values(&config, &mut now.source()));
    // As the program with the names of version 1 computed it.
    for digest in [old.digest, report.digest, Some(now.digest())] {
        assert_eq!(digest.as_deref(), Some("cfd832f0aa0e04f8552be5c505400909"));
    }
}

#[test]
fn broken_folders_are_clear_errors() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("model");
    let config = config();
    let weights = path.join(folder::WEIGHTS_FILE);
    let network = path.join(folder::NETWORK_FILE);
    let check = |phrase: &str, damage: &dyn Fn()| {
        let mut source = counting(0.0);
        let precision = folder::StoredPrecision::F32;
        folder::save(&path, &config, &mut source, precision, Default::default()).unwrap();
        damage();
        let result = folder::open(&path).and_then(|f| f.load(&Device::flex()));
        let message = result.map(drop).unwrap_err().to_string();
        assert!(message.contains(phrase), "{message}");
        assert!(!message.contains('\n'), "{message}");
    };
    let edit = |from: &str, to: &str| {
        let text = std::fs::read_to_string(&network).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&network, text.replacen(from, to, 1)).unwrap();
    };
    let change = |f: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(&weights).unwrap();
        f(&mut bytes);
        std::fs::write(&weights, bytes).unwrap();
    };
    check("cannot open", &|| std::fs::remove_file(&network).unwrap());
    check("cannot open", &|| std::fs::remove_file(&weights).unwrap());
    check("JSON", &|| std::fs::write(&network, "{").unwrap());
    check("stunet-network", &|| std::fs::write(&network, "{\"format\": 3}").unwrap());
    check("version 1 or 2", &|| edit("\"version\": 2", "\"version\": 3"));
    check("num_classes", &|| edit("\"num_classes\": 3", "\"num_classes\": 0"));
    check("heads.0.weight: expected [4,", &|| edit("\"num_classes\": 3", "\"num_classes\": 4"));
    check("F16", &|| edit("\"f32\"", "\"f16\""));
    check("weights.safetensors", &|| edit("weights.safetensors", "../../etc/passwd"));
    check("safetensors", &|| change(&|bytes| bytes.truncate(bytes.len() - 1)));
    check("safetensors", &|| change(&|bytes| bytes.truncate(100)));
    check("safetensors", &|| change(&|bytes| bytes.clear()));
    check("safetensors", &|| change(&|bytes| bytes.push(0)));
    check("checksum", &|| change(&|bytes| *bytes.last_mut().unwrap() ^= 1));
}

/// Another program shortens the weights between opening and loading: a mapping would end in a signal.
#[test]
fn weights_that_shrink_are_one_line() {
    let temporary = tempfile::tempdir().unwrap();
    let check = |precision, left: u64| {
        let mut source = counting(0.0);
        folder::save(temporary.path(), &config(), &mut source, precision, Default::default())
            .unwrap();
        let opened = folder::open(temporary.path()).unwrap();
        let weights = temporary.path().join(folder::WEIGHTS_FILE);
        std::fs::File::options().write(true).open(&weights).unwrap().set_len(left).unwrap();
        let message = opened.load(&Device::flex()).map(drop).unwrap_err().to_string();
        assert!(message.contains("another program shortened it"), "{message}");
        assert!(message.ends_with(folder::WEIGHTS_FILE) && !message.contains('\n'), "{message}");
    };
    for precision in [folder::StoredPrecision::F32, folder::StoredPrecision::F16] {
        check(precision, 0);
        check(precision, 20_000);
    }
}

#[cfg(unix)]
#[test]
fn folders_and_devices_are_no_files() {
    let temporary = tempfile::tempdir().unwrap();
    let device = Path::new("/dev/null");
    let check = |found: &str, result: Result<(), ModelError>| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(found), "{message}");
    };
    check("found a folder", Checkpoint::open(temporary.path()).map(drop));
    check("found a pipe or a device", Checkpoint::open(device).map(drop));
    check("found a pipe or a device", pickle::read_file(device).map(drop));
    for name in [folder::NETWORK_FILE, folder::WEIGHTS_FILE] {
        let path = temporary.path().join("model");
        let precision = folder::StoredPrecision::F16;
        folder::save(&path, &config(), &mut counting(0.0), precision, Default::default()).unwrap();
        std::fs::remove_file(path.join(name)).unwrap();
        std::os::unix::fs::symlink(device, path.join(name)).unwrap();
        check("found a pipe or a device", folder::open(&path).map(drop));
    }
}

#[test]
fn a_failed_save_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let config = config();
    let failing = || {
        let mut left = 9;
        move |spec: &ParameterSpec| {
            left -= 1;
            match left {
                0 => Err(ModelError::config("test", "more", spec)),
                _ => Ok(TensorData::zeros::<f32, _>(spec.shape.clone())),
            }
        }
    };
    let (precision, none) = (folder::StoredPrecision::F32, folder::Provenance::new());
    folder::save(temporary.path(), &config, &mut failing(), precision, none).unwrap_err();
    let path = temporary.path().join("x.model");
    let mut source = failing();
    write_v1(&path, contents(&config, &mut source, None), &V1Metadata::default()).unwrap_err();
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn one_seed_initialises_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(&v1(folder.path())).unwrap();
    let config = StuNetConfig { num_classes: 5, ..config() };
    let load = |seed| {
        let initialisation = Initialisation::PyTorchDefault;
        let options =
            LoadOptions { allow_mismatched: true, seed, initialisation, ..Default::default() };
        let (mut source, _) = checkpoint.source(&config, &options).unwrap();
        all_values(&config, &mut source).pop().unwrap().1
    };
    assert_eq!(load(1), load(1));
    assert_ne!(load(1), load(2));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damaged archives are answered, whatever is damaged; values that pass their checksum are
    /// unharmed.
    #[test]
    fn damaged_checkpoints_are_answered(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        near_pickle in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.model");
        let small = StuNetConfig { width: [1; 6], depth: [1; 6], ..config() };
        let mut parameters = counting(0.0);
        write_v1(&path, contents(&small, &mut parameters, None), &V1Metadata::default()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let range = if near_pickle { bytes.len() / 4 } else { bytes.len() };
        for (at, byte) in cuts {
            bytes[at.index(range)] = byte;
        }
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            let _ = checkpoint.config(small.strides);
            for (name, _) in checkpoint.tensors() {
                let _ = checkpoint.read(name);
            }
        }
    }
}

/// The encoder alone, from a checkpoint and from a folder, is the network's.
#[test]
fn the_encoder_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let (config, device) = (config(), Device::flex());
    let file = Checkpoint::open(&v1(temporary.path())).unwrap();
    let options = LoadOptions::default();
    let (network, whole) = file.load_into(&config, &options, &device).unwrap();
    let path = temporary.path().join("folder");
    let precision = folder::StoredPrecision::F32;
    folder::save(&path, &config, &mut network.source(), precision, Default::default()).unwrap();
    let opened = folder::open(&path).unwrap();

    let x = Tensor::<5>::from_data(
        TensorData::new((0..65_536u64).map(|i| (i * i % 97) as f32).collect(), [1, 2, 16, 32, 64]),
        &device,
    );
    let expected = network.encoder.forward(x.clone()).pop().unwrap().into_data();
    let of_file = file.load_encoder(&config, &options, &device).unwrap();
    for (encoder, report) in [of_file, opened.load_encoder(&device).unwrap()] {
        assert_eq!(encoder.forward(x.clone()).pop().unwrap().into_data(), expected);
        assert!(report.is_complete() && report.digest.is_none(), "{report}");
        assert_eq!(report.applied[..], whole.applied[..report.applied.len()]);
        assert_eq!(report.applied.len() + report.left_out.len(), whole.applied.len());
        assert!(report.left_out.iter().all(|name| name.starts_with("decoder.")));
        let expected = format!("left out ({}", report.left_out[0]);
        assert!(report.to_string().contains(&expected), "{report}");
    }

    // Other classes do not matter, other channels do.
    let other = StuNetConfig { num_classes: 9, ..config.clone() };
    file.load_encoder(&other, &options, &device).unwrap();
    let other = StuNetConfig { in_channels: 1, ..config };
    let error = file.load_encoder(&other, &options, &device).unwrap_err().to_string();
    assert!(error.contains("2 of another shape (encoder.stages.0.0.conv1.weight"), "{error}");
    let allow = LoadOptions { allow_mismatched: true, ..options };
    let (encoder, report) = file.load_encoder(&other, &allow, &device).unwrap();
    assert_eq!((encoder.in_channels(), report.mismatched.len()), (1, 2));

    // The checksum covers what is left out.
    let weights = path.join(folder::WEIGHTS_FILE);
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let error = folder::open(&path).unwrap().load_encoder(&device).unwrap_err().to_string();
    assert!(error.contains("checksum"), "{error}");
}
