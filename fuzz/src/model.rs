//! The parsers of `stunet-model` and `stunet-infer`, and what is done with what they accept.

use crate::data::{one_in, parts, scratch, use_plans};
use crate::mutate::{self, Rng};
use crate::zips;
use burn::tensor::Device;
use serde_json::Value as Json;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use stunet_data::dataset::DatasetInfo;
use stunet_data::fingerprint::Fingerprint;
use stunet_data::plans::Plans;
use stunet_data::splits::Splits;
use stunet_model::weights::pickle::{self, Value};
use stunet_model::weights::torch::TorchFile;
use stunet_model::weights::{Checkpoint, folder};
use stunet_model::{ModelError, StuNetConfig};

/// Whatever is read is written, and read again.
pub fn pickle(input: &[u8]) -> bool {
    let Ok(value) = pickle::read(input) else { return false };
    use_value(&value);
    true
}

fn use_value(value: &Value) {
    let text = value.to_json().to_string();
    // What a few bytes spread out to takes milliseconds to write and read again.
    if text.len() > 1 << 13 && !one_in(64, text.as_bytes()) {
        return;
    }
    let written = pickle::write(value);
    // Arrays have become lists, and what was shared is spread out: a second trip changes nothing.
    if let Ok(again) = pickle::read(&written) {
        assert_eq!(pickle::write(&again), written, "a value changes in a round trip");
        assert_eq!(again.to_json().to_string(), text, "JSON changes in a round trip");
    }
}

/// What nnU-Net 1 keeps in pickles, all the way to plans and fingerprints.
pub fn pickle_plans(input: &[u8]) -> bool {
    let Ok(value) = pickle::read(input) else { return false };
    let json = value.to_json();
    let plans = Plans::from_v1_json(&json);
    if let Ok(plans) = &plans {
        use_plans(plans, input);
    }
    let fingerprint = Fingerprint::from_v1_json(&json);
    black_box((Splits::from_json(&json).is_ok(), DatasetInfo::from_json(&json).is_ok()));
    plans.is_ok() || fingerprint.is_ok()
}

/// Damage to what a pickle says, so that it stays one, or to its operations.
pub fn mutate_pickle_plans(data: &mut Vec<u8>, rng: &mut Rng) {
    match pickle::read(data) {
        Ok(value) if !rng.one_in(4) => {
            let mut json = value.to_json();
            mutate::json_value(&mut json, rng);
            *data = pickle::write(&Value::from_json_int_keys(&json));
        }
        _ => crate::pickles::mutate(data, rng, false),
    }
}

/// A pickle within a good archive that has storages `0` and `1`.
pub fn torch_pickle(input: &[u8]) -> bool {
    const STORAGE: [u8; 160] = [0x3c; 160];
    let records = [
        ("a/data.pkl".to_owned(), input.to_vec()),
        ("a/data/0".to_owned(), STORAGE.to_vec()),
        ("a/data/1".to_owned(), STORAGE[..80].to_vec()),
    ];
    torch(&zips::archive(&records, zips::Lies::default()))
}

/// A torch file of either container.
pub fn torch(input: &[u8]) -> bool {
    let Ok(file) = TorchFile::from_bytes(input.to_vec(), Path::new("input")) else { return false };
    each_tensor(file.root(), &mut 64, &file);
    use_value(file.root());
    if let Ok(checkpoint) = Checkpoint::from_file(file) {
        use_checkpoint(&checkpoint);
    }
    true
}

/// Reads the first tensors: the same one may be named again and again.
fn each_tensor(value: &Value, left: &mut usize, file: &TorchFile) {
    match value {
        Value::Tensor(tensor) if *left > 0 => {
            *left -= 1;
            let singles = file.read_f32(tensor);
            if let (Ok(singles), Ok(doubles)) = (&singles, file.read_f64(tensor)) {
                assert_eq!(Some(singles.len()), tensor.numel());
                assert_eq!(singles.len(), doubles.len());
            }
        }
        Value::Tuple(list) | Value::List(list) | Value::Set(list) => {
            list.iter().for_each(|value| each_tensor(value, left, file));
        }
        Value::Dict(dict) => {
            dict.entries.iter().for_each(|(_, value)| each_tensor(value, left, file));
        }
        _ => {}
    }
}

/// An archive that is a checkpoint of STU-Net, or was.
pub fn checkpoint(input: &[u8]) -> bool {
    let file = TorchFile::from_bytes(input.to_vec(), Path::new("input"));
    let Ok(checkpoint) = file.and_then(Checkpoint::from_file) else { return false };
    use_checkpoint(&checkpoint);
    true
}

fn use_checkpoint(checkpoint: &Checkpoint) {
    black_box((checkpoint.epoch(), checkpoint.trainer(), checkpoint.metadata()));
    let names: Vec<String> = checkpoint.tensors().map(|(name, _)| name.to_owned()).collect();
    for name in names.iter().take(64) {
        black_box(checkpoint.read(name).is_ok());
    }
    if let Ok(config) = checkpoint.config(StuNetConfig::PUBLISHED_STRIDES) {
        let report = checkpoint.compare(&config);
        black_box((report.is_complete(), report.to_string()));
    }
}

/// `network.json`, then `weights.safetensors`; half of the checksums of the values are mended.
pub fn folder(input: &[u8]) -> bool {
    let place = scratch("folder");
    let [network, weights] = parts(input);
    let mut network = network.to_vec();
    if one_in(2, input) {
        mend_network(&mut network, weights);
    }
    std::fs::write(place.join(folder::NETWORK_FILE), &network).expect("a scratch file");
    std::fs::write(place.join(folder::WEIGHTS_FILE), weights).expect("a scratch file");
    let opened = folder::open(&place);
    let in_memory = folder::open_bytes(network, weights.to_vec(), &place);
    // Which of several wrong tensors a header's error names is left to chance.
    let told = |opened: &Result<_, ModelError>| {
        let error = opened.as_ref().err().map(ToString::to_string);
        error.map(|text| text.split(" (").next().unwrap_or_default().to_owned())
    };
    assert_eq!(told(&opened), told(&in_memory), "the same of files and of bytes");
    let Ok(opened) = opened else { return false };
    black_box((opened.precision(), opened.provenance()));
    // Building a network takes a hundred times as long as reading its file.
    if one_in(16, input) {
        let Ok((network, report)) = opened.load(&Device::flex()) else { return false };
        assert!(report.is_complete());
        let (config, precision) = (network.config().clone(), opened.precision());
        let copy = scratch("folder-copy");
        let provenance = opened.provenance().clone();
        folder::save(&copy, &config, &mut network.source(), precision, provenance).expect("saved");
        let (again, _) =
            folder::open(&copy).expect("own folder").load(&Device::flex()).expect("own");
        assert_eq!(again.config(), config);
    }
    true
}

fn mend_network(network: &mut Vec<u8>, weights: &[u8]) {
    let Ok(mut json) = serde_json::from_slice::<Json>(network) else { return };
    let size = weights.first_chunk::<8>().map_or(0, |raw| u64::from_le_bytes(*raw));
    let start = usize::try_from(size).ok().and_then(|size| size.checked_add(8));
    let values = start.and_then(|start| weights.get(start..)).unwrap_or_default();
    if let Some(place) = json.pointer_mut("/weights/crc32") {
        *place = format!("{:08x}", crc32fast::hash(values)).into();
        *network = json.to_string().into_bytes();
    }
}

/// Damage to the description or to the weights.
pub fn mutate_folder(data: &mut Vec<u8>, rng: &mut Rng) {
    let Some(at) = data.iter().position(|byte| *byte == 0).filter(|_| !rng.one_in(8)) else {
        return mutate::bytes(data, rng);
    };
    let mut weights = data.split_off(at + 1);
    data.pop();
    if rng.one_in(2) {
        mutate::json_texts(data, rng);
    } else {
        mutate::safetensors(&mut weights, rng);
    }
    data.push(0);
    data.extend(weights);
}

/// `network.json`, `plans.json` and `labels.json` beside the demo model's weights.
pub fn describe(input: &[u8]) -> bool {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let place = FOLDER.get_or_init(|| {
        let (place, name) = (scratch("describe"), folder::WEIGHTS_FILE);
        let demo = crate::root().join("examples/demo-model").join(name);
        std::fs::copy(demo, place.join(name)).expect("the demo model's weights");
        place
    });
    let [network, plans, labels] = parts(input);
    for (name, bytes) in [("network.json", network), ("plans.json", plans), ("labels.json", labels)]
    {
        std::fs::write(place.join(name), bytes).expect("a scratch file");
    }
    let options = stunet_infer::OpenOptions::new(&Device::flex());
    stunet_infer::Model::describe(place, &options).is_ok()
}
