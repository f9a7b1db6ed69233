//! PyTorch loads what we write, and we read what PyTorch writes.
//!
//! Needs a Python with torch: `STUNET_PYTHON=python3 cargo test --release --test torch_agrees --
//! --ignored`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use burn::tensor::TensorData;
use std::path::Path;
use std::process::Command;
use stunet_model::weights::pickle::Value;
use stunet_model::weights::torch::TorchFile;
use stunet_model::weights::writer::{
    Contents, SgdRecord, V1Metadata, V2Metadata, write_v1, write_v2,
};
use stunet_model::{ModelError, ParameterSource, ParameterSpec, StuNetConfig};

/// Loads a checkpoint and an optimiser's state, and prints what it finds as JSON.
const LOAD: &str = r#"
import json, pickle, sys, torch
path = sys.argv[1]
c = torch.load(path, map_location="cpu", weights_only=path.endswith(".model"))
weights = c.get("state_dict", c.get("network_weights"))
assert type(weights).__name__ == "OrderedDict"
parameters = [torch.nn.Parameter(v.clone()) for v in weights.values()]
sgd = torch.optim.SGD(parameters, lr=1.0, momentum=0.5, nesterov=True)
state = c.get("optimizer_state_dict", c.get("optimizer_state"))
if state is not None:
    sgd.load_state_dict(state)
    assert sgd.param_groups[0]["momentum"] == 0.99
out = {
    "weights": [[k, list(v.shape), v.dtype == torch.float32, float(v.double().sum())]
                for k, v in weights.items()],
    "momentum": [float(sgd.state[p]["momentum_buffer"].double().sum())
                 for p in parameters if p in sgd.state],
    "epoch": c.get("epoch", c.get("current_epoch")),
}
if path.endswith(".model"):
    with open(path + ".pkl", "rb") as f:
        plans = pickle.load(f)
    out["patch"] = plans["plans"]["plans_per_stage"][0]["patch_size"]
    assert len(c["plot_stuff"]) == 4 and len(c["best_stuff"]) == 3
else:
    out["patch"] = c["init_args"]["plans"]["patch_size"]
    assert c["inference_allowed_mirroring_axes"] == (0, 1, 2)
print(json.dumps(out))
"#;

/// Writes tensors of every type and layout in both containers; prints their values as JSON.
const SAVE: &str = r#"
import collections, json, sys, numpy, torch
base = torch.arange(48, dtype=torch.float32).reshape(2, 3, 8) / 7
tensors = collections.OrderedDict(
    permuted=base.permute(2, 0, 1), slice=base[1, 1:, 2:6], view=base.flatten()[3::5],
    expanded=torch.tensor([2.5]).expand(3, 4), scalar=torch.tensor(3.25), empty=torch.zeros(0, 3),
    parameter=torch.nn.Parameter(base[0].clone()), buffer=torch.zeros(5).requires_grad_(),
)
for name in "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split():
    values = torch.tensor([[0, 1, 2], [3, 100, 5]])
    tensors[name] = values.to(getattr(torch, name)).t()
rest = dict(size=base.shape, device=torch.device("cuda:1"), dtype=torch.float16,
            scalar=numpy.float64(0.1), small=numpy.float32(0.5), count=numpy.int64(-3),
            flag=numpy.bool_(True), array=numpy.arange(6.0).reshape(2, 3),
            ints=numpy.arange(6).reshape(2, 3).T, text=numpy.array(["a", "bc"]), bytes=b"\x00\xff",
            big=2**70, names={1, 2}, default=collections.defaultdict(list))
content = dict(tensors=tensors, rest=rest)
torch.save(content, sys.argv[1] + "/zip.pt")
torch.save(content, sys.argv[1] + "/zip5.pt", pickle_protocol=5)
torch.save(content, sys.argv[1] + "/legacy.pt", _use_new_zipfile_serialization=False)
torch.serialization.set_crc32_options(False)
torch.save(content, sys.argv[1] + "/unchecked.pt")
print(json.dumps({k: v.double().tolist() for k, v in tensors.items()}))
"#;

fn python(program: &str, argument: &Path) -> serde_json::Value {
    let interpreter = std::env::var("STUNET_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut command = Command::new(interpreter);
    let output = command.args(["-c", program]).arg(argument).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn values(spec: &ParameterSpec, seed: f32) -> Vec<f32> {
    let count: usize = spec.shape.iter().product();
    (0..count).map(|i| (i as f32 * 0.37 + seed).sin()).collect()
}

fn source(seed: f32) -> impl FnMut(&ParameterSpec) -> Result<TensorData, ModelError> {
    move |spec| Ok(TensorData::new(values(spec, seed), spec.shape.clone()))
}

#[test]
#[ignore = "needs a Python with torch"]
fn torch_loads_what_we_write() {
    let temporary = tempfile::tempdir().unwrap();
    let config = StuNetConfig { width: [2, 3, 4, 5, 6, 7], ..StuNetConfig::small(2, 3) };
    let (v1, v2) = (temporary.path().join("x.model"), temporary.path().join("checkpoint.pth"));
    let (mut parameters, mut again, mut momentum) = (source(1.0), source(1.0), source(2.0));
    let optimiser = SgdRecord::default();
    let (config, specs) = (&config, config.parameter_specs());
    let plans =
        serde_json::json!({ "plans": { "plans_per_stage": { "0": { "patch_size": [1] } } } });
    let metadata = V1Metadata { epoch: 5, plan_file: Some(plans), ..Default::default() };
    let momentum = Some(&mut momentum as &mut dyn ParameterSource);
    let contents = Contents { config, parameters: &mut parameters, momentum, optimiser };
    write_v1(&v1, contents, &metadata).unwrap();
    let metadata = V2Metadata {
        epoch: 5,
        mirror_axes: vec![0, 1, 2],
        init_args: serde_json::json!({ "plans": { "patch_size": [1] } }),
        ..Default::default()
    };
    let contents = Contents { config, parameters: &mut again, momentum: None, optimiser };
    write_v2(&v2, contents, &metadata).unwrap();

    let sum =
        |spec: &ParameterSpec, seed| values(spec, seed).iter().map(|&v| f64::from(v)).sum::<f64>();
    let close = |a: &serde_json::Value, b: f64| (a.as_f64().unwrap() - b).abs() < 1e-6;
    for path in [&v1, &v2] {
        let found = python(LOAD, path);
        assert_eq!(found["epoch"], 5);
        assert_eq!(found["patch"], serde_json::json!([1]));
        let weights = found["weights"].as_array().unwrap();
        assert_eq!(weights.len(), specs.len());
        for (spec, weight) in specs.iter().zip(weights) {
            assert_eq!(weight[1], serde_json::json!(spec.shape), "{}", spec.name);
            assert_eq!(weight[2], true);
            assert!(close(&weight[3], sum(spec, 1.0)), "{}", spec.name);
        }
        let momentum = found["momentum"].as_array().unwrap();
        assert_eq!(momentum.len(), if path == &v1 { specs.len() } else { 0 });
        for (spec, buffer) in specs.iter().zip(momentum) {
            assert!(close(buffer, sum(spec, 2.0)), "{}", spec.name);
        }
    }
}

#[test]
#[ignore = "needs a Python with torch"]
fn we_read_what_torch_writes() {
    let temporary = tempfile::tempdir().unwrap();
    let expected = python(SAVE, temporary.path());
    for name in ["zip.pt", "zip5.pt", "legacy.pt", "unchecked.pt"] {
        let file = TorchFile::open(&temporary.path().join(name)).unwrap();
        let tensors = file.root().get("tensors").unwrap().as_dict().unwrap();
        assert_eq!(tensors.entries.len(), expected.as_object().unwrap().len());
        for (key, value) in tensors.iter_str() {
            let Value::Tensor(tensor) = value else {
                panic!("{key} is no tensor");
            };
            let wide = file.read_f64(tensor).unwrap();
            let mut flat = Vec::new();
            flatten(&expected[key], &mut flat);
            assert_eq!(wide, flat, "{name}: {key}");
            let single: Vec<f32> = flat.iter().map(|&v| v as f32).collect();
            assert_eq!(file.read_f32(tensor).unwrap(), single, "{name}: {key}");
        }
        let rest = serde_json::json!({
            "size": [2, 3, 8], "device": "cuda:1", "dtype": "torch.float16", "scalar": 0.1,
            "small": 0.5, "count": -3, "flag": true,
            "array": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], "ints": [[0, 3], [1, 4], [2, 5]],
            "text": ["a", "bc"], "bytes": [0, 255], "big": "1180591620717411303424",
            "names": [1, 2], "default": {}
        });
        assert_eq!(file.root().get("rest").unwrap().to_json(), rest, "{name}");
    }
}

fn flatten(json: &serde_json::Value, out: &mut Vec<f64>) {
    match json {
        serde_json::Value::Array(items) => items.iter().for_each(|v| flatten(v, out)),
        number => out.push(number.as_f64().unwrap()),
    }
}
