use super::*;
use crate::weights::folder;
use crate::{ConvConfig, ParameterKind};
use burn::module::{ModuleVisitor, Param};
use burn::store::ModuleRecord;
use burn::tensor::{Distribution, TensorData};

fn config() -> StuNetConfig {
    StuNetConfig::small(2, 3).with_width([2, 3, 4, 5, 6, 7]).with_depth([2, 1, 1, 1, 1, 2])
}

fn values(network: &StuNet) -> Vec<TensorData> {
    let mut all = Vec::new();
    network.for_each_parameter(&mut |_, parameter| all.push(parameter.to_data()));
    all
}

/// Paths and shapes as Burn's own visitors see them.
#[derive(Default)]
struct Visited {
    path: Vec<String>,
    all: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for Visited {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        self.all.push((self.path.join("."), parameter.lazy_shape().to_vec()));
    }
}

#[test]
fn the_list_of_parameters_is_what_burn_visits() {
    let specs = config().parameter_specs();
    let network = config().init(&Device::flex());
    let mut visited = Visited::default();
    network.visit(&mut visited);
    let expected: Vec<_> = specs.iter().map(|s| (s.name.clone(), s.shape.clone())).collect();
    assert_eq!(visited.all, expected);
    assert_eq!(expected[0].0, "encoder.stages.0.0.conv1.weight");
    assert_eq!(expected[expected.len() - 1].0, "decoder.heads.4.bias");
    assert_eq!(network.num_params() as u64, crate::cost::num_parameters(&config()));
    let encoder = config().encoder_specs();
    assert_eq!(encoder, specs[..encoder.len()]);
    let image: Vec<_> = specs.iter().filter(|s| s.sees_image).map(|s| &s.name[..]).collect();
    assert_eq!(image, ["encoder.stages.0.0.conv1.weight", "encoder.stages.0.0.skip.weight"]);
    assert!(specs.iter().all(|s| !s.sees_image || s.shape[1] == 2));
    assert!(specs.iter().all(|s| s.name.contains("norm")
        == matches!(s.kind, ParameterKind::NormWeight | ParameterKind::NormBias)));
}

#[test]
fn burns_records_save_and_load_it() {
    let device = Device::flex();
    let network = config().init_seeded(Initialisation::PyTorchDefault, 3, &device).unwrap();
    let expected = values(&network);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("network.bpk");
    network.clone().save_file(&file).unwrap();
    assert_eq!(values(&config().init(&device).load_file(&file)), expected);

    let bytes = network.clone().into_record().into_bytes().unwrap();
    let record = || ModuleRecord::from_bytes(bytes.clone()).unwrap();
    assert_eq!(values(&config().init(&device).load_record(record())), expected);
    // A record of another network names what differs.
    let other = StuNetConfig { num_classes: 4, ..config() }.init(&device);
    let error = other.try_load_record(record()).unwrap_err().to_string();
    assert!(error.contains("decoder.heads.0.weight: shape mismatch"), "{error}");
    // And of the encoder alone, from the same file.
    let mut encoder = record().allow_unused(true);
    encoder = encoder.allow_partial(false);
    #[derive(Module, Debug)]
    struct Alone {
        encoder: Encoder,
    }
    let alone = Alone { encoder: config().init_encoder(&device) }.load_record(encoder);
    let x = Tensor::<5>::ones([1, 2, 16, 16, 64], &device);
    let found = alone.encoder.forward(x.clone()).pop().unwrap().into_data();
    assert_eq!(found, network.encoder.forward(x).pop().unwrap().into_data());
}

#[test]
fn displayed_in_a_few_lines() {
    let text = StuNetConfig::small(1, 105).init(&Device::flex()).to_string();
    let expected = "\
StuNet {
  size: small
  in_channels: 1
  num_classes: 105
  encoder: Encoder {
    in_channels: 1
    stage_0: 16 features, 1 block(s), stride [1, 1, 1]
    stage_1: 32 features, 1 block(s), stride [2, 2, 2]
    stage_2: 64 features, 1 block(s), stride [2, 2, 2]
    stage_3: 128 features, 1 block(s), stride [2, 2, 2]
    stage_4: 256 features, 1 block(s), stride [2, 2, 2]
    stage_5: 256 features, 1 block(s), stride [1, 1, 2]
    params: 7185744
  }
  decoder: Decoder {
    stage_0: 256 features, 1 block(s), upsampling [1, 1, 2], 105 classes
    stage_1: 128 features, 1 block(s), upsampling [2, 2, 2], 105 classes
    stage_2: 64 features, 1 block(s), upsampling [2, 2, 2], 105 classes
    stage_3: 32 features, 1 block(s), upsampling [2, 2, 2], 105 classes
    stage_4: 16 features, 1 block(s), upsampling [2, 2, 2], 105 classes
    params: 7411197
  }
  params: 14596941
}";
    assert_eq!(text, expected, "{text}");
}

/// Burn's convention: the device's generator decides, parameters are drawn when they are used.
#[test]
fn init_draws_from_the_devices_generator() {
    let device = Device::flex();
    let drawn = |seed| {
        device.seed(seed);
        values(&config().init(&device))
    };
    // Other tests draw from the same generator meanwhile, so only differences can be relied on here.
    let (first, second) = (drawn(1), drawn(2));
    let specs = config().parameter_specs();
    for ((spec, first), second) in specs.iter().zip(&first).zip(&second) {
        let numbers: Vec<f64> = first.iter::<f64>().collect();
        match spec.kind {
            ParameterKind::ConvWeight => {
                assert_ne!(first, second, "{}", spec.name);
                let (count, fan_in) = (numbers.len(), spec.shape[1..].iter().product::<usize>());
                let deviation = (numbers.iter().map(|v| v * v).sum::<f64>() / count as f64).sqrt();
                let expected = (2.0 / (1.0001 * fan_in as f64)).sqrt();
                let spread = 4.0 / (2.0 * count as f64).sqrt();
                assert!((deviation / expected - 1.0).abs() < spread, "{}: {deviation}", spec.name);
            }
            ParameterKind::NormWeight => assert!(numbers.iter().all(|&v| v == 1.0)),
            _ => assert!(numbers.iter().all(|&v| v == 0.0), "{}", spec.name),
        }
    }
    assert!(!config().init(&device).encoder.stages[0][0].conv1.weight.is_initialized());
}

#[test]
fn init_tracks_gradients_as_burn_does() {
    let device = Device::flex();
    let plain = config().init_seeded(Initialisation::NnUNetV1, 1, &device).unwrap();
    let weight = |network: &StuNet| network.encoder.stages[0][0].conv1.weight.val();
    assert!(!weight(&plain).is_require_grad());
    assert!(weight(&plain.clone().train()).is_require_grad());
    assert!(!weight(&plain.freeze().train()).is_require_grad());
    let tracked = config().init_seeded(Initialisation::NnUNetV1, 1, &device.autodiff()).unwrap();
    assert!(weight(&tracked).is_require_grad() && !weight(&tracked.valid()).is_require_grad());
}

#[test]
#[should_panic(expected = "width")]
fn init_refuses_what_is_no_network() {
    StuNetConfig::small(1, 2).with_width([0; 6]).init(&Device::flex());
}

/// One head replaced: prediction works with it, and saving says what no longer fits.
#[test]
fn another_head() {
    let device = Device::flex();
    let mut network = config().init(&device);
    network.decoder.heads[4] = ConvConfig::new([2, 7], 1).init(&device);
    assert_eq!(network.config(), StuNetConfig { num_classes: 7, ..config() });
    let x = Tensor::<5>::random([1, 2, 16, 16, 64], Distribution::Normal(0.0, 1.0), &device);
    assert_eq!(network.forward(x.clone()).dims()[1], 7);
    let mut last = Vec::new();
    network.for_each_parameter(&mut |spec, _| last = spec.shape.clone());
    assert_eq!(last, [7]);
    let folder = tempfile::tempdir().unwrap();
    let save = |network: &StuNet| {
        let precision = folder::StoredPrecision::F32;
        let mut source = network.source();
        folder::save(folder.path(), &network.config(), &mut source, precision, Default::default())
    };
    let error = save(&network).unwrap_err().to_string();
    let expected =
        "parameter decoder.heads.0.weight: expected shape [7, 6, 1, 1, 1], found [3, 6, 1, 1, 1]";
    assert_eq!(error, expected);

    // All of them replaced: a network of other classes.
    for (head, width) in network.decoder.heads.iter_mut().zip([6, 5, 4, 3, 2]) {
        *head = ConvConfig::new([width, 7], 1).init(&device);
    }
    save(&network).unwrap();
    let (copy, _) = folder::open(folder.path()).unwrap().load(&device).unwrap();
    assert_eq!(copy.forward(x.clone()).into_data(), network.forward(x).into_data());
}
