//! What is timed: a forward pass, or a whole training step.

use super::{Args, stock};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use clap::ValueEnum;
use stunet::model::cost::cost;
use stunet::model::eight_bit::EightBitStuNet;
use stunet::model::{ModelError, ParameterKind, ParameterSpec, StuNet, StuNetConfig, StuNetSize};
use stunet::train::loss::{Loss, LossConfig};
use stunet::train::optimiser::{Sgd, SgdConfig};
use stunet::train::{precision, recompute};
use stunet_testing::prng::{self, Role};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Full-resolution logits of one patch
    Forward,
    /// The same without the head: what a head in pieces begins with
    Features,
    /// Five heads, loss, backward, clipping, SGD
    Train,
    /// No network: a CT of 150 × 512 × 512 voxels to 1.5 mm
    Preprocess,
    /// No network: its eight windows of logits to the labels of 144 × 240 × 240 voxels
    Export,
    /// A CT of 144 × 240 × 240 voxels to its labels: eight windows
    Case,
}

impl Task {
    #[allow(dead_code)] // One benchmark has names of its own.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Features => "features",
            Self::Train => "train",
            Self::Preprocess => "preprocess",
            Self::Export => "export",
            Self::Case => "case",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    F32,
    F16,
    Bf16,
    /// Convolutions in eight bits, for prediction on the processor
    Int8,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    pub fn dtype(self) -> DType {
        self.computed().dtype()
    }

    fn computed(self) -> precision::Precision {
        match self {
            Self::F32 | Self::Int8 => precision::Precision::F32,
            Self::F16 => precision::Precision::F16,
            Self::Bf16 => precision::Precision::Bf16,
        }
    }
}

/// Whose operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Operators {
    /// The fastest that `stunet-kernels` has for the device
    Own,
    /// Burn's
    Stock,
}

impl Operators {
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Stock => "stock",
        }
    }

    fn forward(self, network: &StuNet, x: Tensor<5>) -> Tensor<5> {
        match self {
            Self::Own => network.forward(x),
            Self::Stock => stock::forward(network, x),
        }
    }

    fn features(self, network: &StuNet, x: Tensor<5>) -> Tensor<5> {
        if self == Self::Stock {
            return stock::features(network, x);
        }
        let mut skips = network.encoder.forward(x);
        let bottleneck = skips.pop().expect("an encoder has stages");
        let skips = skips.into_iter().rev().enumerate();
        skips.fold(bottleneck, |x, (stage, skip)| network.decoder.forward_stage(stage, x, skip))
    }

    fn forward_deep(self, network: &StuNet, x: Tensor<5>) -> Vec<Tensor<5>> {
        match self {
            Self::Own => network.forward_deep(x),
            Self::Stock => stock::forward_deep(network, x),
        }
    }
}

/// A network with its input, ready to run any number of times.
pub struct Step {
    network: Option<StuNet>,
    /// The same in eight bits, if that is what is timed.
    eight_bits: Option<EightBitStuNet>,
    input: Tensor<5>,
    precision: Precision,
    operators: Operators,
    /// Whether activations are recomputed in the backward pass.
    recompute: bool,
    training: Option<Training>,
    /// Without the head.
    features: bool,
    /// Floating-point operations of the convolutions, a multiply-add being two; backward is counted
    /// as two forward passes.
    pub flop: f64,
}

/// What a training step needs beside the network.
struct Training {
    /// Labels `[N, Z, Y, X]`, by scale.
    targets: Vec<Tensor<4, Int>>,
    loss: Loss,
    sgd: Sgd,
}

impl Step {
    /// With `seeded`, parameters are those the golden data and the peers have; they take a while.
    pub fn new(
        args: &Args,
        size: &str,
        task: Task,
        precision: Precision,
        seeded: bool,
        device: &Device,
    ) -> Result<Self, String> {
        let config = config(size, args.classes)?;
        let patch: [usize; 3] =
            args.patch.clone().try_into().map_err(|_| "--patch: three sizes")?;
        config.validate_patch(patch).map_err(|e| e.to_string())?;

        if args.recompute && args.operators == Operators::Stock {
            return Err("--recompute: only with --operators own".to_owned());
        }
        let train = task == Task::Train;
        let device = if train { device.clone().autodiff() } else { device.clone() };
        let mut network = if seeded {
            StuNet::from_source(&config, &mut seeded_parameters(), &device)
        } else {
            StuNet::from_source(&config, &mut quick_parameters(), &device)
        }
        .map_err(|e| e.to_string())?;
        if !train {
            // Cast once; a training step casts its f32 parameters every time.
            network = precision.computed().network(&network);
        }
        let eight_bits = (precision == Precision::Int8).then(|| match train {
            true => None,
            false => EightBitStuNet::new(&network),
        });
        let missing = "int8: for prediction on the processor alone";
        let eight_bits = eight_bits.map(|found| found.ok_or(missing)).transpose()?;
        let [z, y, x] = patch;
        let shape = [if train { args.batch } else { 1 }, 1, z, y, x];
        let values = prng::uniform(2, 0, shape.iter().product());
        let input = Tensor::<5>::from_data(TensorData::new(values, shape), (&device, DType::F32));
        let training = train.then(|| Training {
            targets: targets(&config, shape, &device),
            loss: Loss::new(LossConfig::v1(false)).expect("a recipe of its own"),
            sgd: Sgd::new(SgdConfig::default(), &config),
        });
        Ok(Self {
            network: Some(network),
            eight_bits,
            input: input.cast(precision.dtype()),
            precision,
            operators: args.operators,
            recompute: args.recompute,
            training,
            features: task == Task::Features,
            flop: flop(&config, patch, task, args.batch),
        })
    }

    /// Runs once; gives a value that depends on all of it: the loss of a training step.
    pub fn run(&mut self) -> f32 {
        let Some(training) = &mut self.training else {
            let found = if self.features { self.features() } else { self.logits() };
            let corner = found.narrow(2, 0, 1).narrow(3, 0, 1).cast(DType::F32).sum();
            return corner.into_scalar::<f32>();
        };
        let network = self.network.take().expect("put back below");
        if self.recompute {
            let (precision, input) = (self.precision.computed(), self.input.clone());
            let (loss, gradients) = recompute::backward(
                &network,
                precision,
                input,
                &training.loss,
                &training.targets,
                1.0,
            )
            .expect("the loss depends on the network");
            self.network = Some(training.sgd.step(network, gradients, 0.01).0);
            return loss as f32;
        }
        let working = self.precision.computed().network(&network);
        let outputs = self.operators.forward_deep(&working, self.input.clone());
        drop(working);
        let (loss, gradients) = training.loss.backward(outputs, &training.targets);
        let (network, _) = training.sgd.step(network, gradients, 0.01);
        self.network = Some(network);
        loss.total as f32
    }

    /// Logits at full resolution, `[N, classes, Z, Y, X]`.
    pub fn logits(&self) -> Tensor<5> {
        let network = self.network.as_ref().expect("taken only within a step");
        if let Some(eight_bits) = &self.eight_bits {
            let head = network.decoder.heads.last().expect("a decoder has heads");
            return head.forward(eight_bits.finest_features(self.input.clone()), [1; 3]);
        }
        self.operators.forward(network, self.input.clone())
    }

    /// What the finest head is given.
    fn features(&self) -> Tensor<5> {
        if let Some(eight_bits) = &self.eight_bits {
            return eight_bits.finest_features(self.input.clone());
        }
        let network = self.network.as_ref().expect("taken only within a step");
        self.operators.features(network, self.input.clone())
    }
}

/// The size of a letter.
pub fn size_of(letter: &str) -> Result<StuNetSize, String> {
    let size = StuNetSize::ALL.into_iter().find(|s| s.name()[..1].eq_ignore_ascii_case(letter));
    size.ok_or_else(|| "--sizes: expected some of S, B, L, H".to_owned())
}

/// The size of a letter, for one channel.
fn config(size: &str, classes: usize) -> Result<StuNetConfig, String> {
    Ok(StuNetConfig::new(size_of(size)?, 1, classes))
}

/// A network of random weights.
#[allow(dead_code)] // One benchmark predicts whole cases.
pub fn random_network(size: &str, classes: usize, device: &Device) -> Result<StuNet, String> {
    let config = config(size, classes)?;
    StuNet::from_source(&config, &mut quick_parameters(), device).map_err(|e| e.to_string())
}

fn flop(config: &StuNetConfig, patch: [usize; 3], task: Task, batch: usize) -> f64 {
    let cost = cost(config, patch);
    let coarse_heads = cost.conv_macs - cost.conv_macs_main_head;
    let head = config.num_classes * config.width[0] * patch.iter().product::<usize>();
    match task {
        Task::Forward => 2.0 * cost.conv_macs_predict as f64,
        Task::Features => 2.0 * (cost.conv_macs_predict - head as u64) as f64,
        Task::Train => 6.0 * (cost.conv_macs_predict + coarse_heads) as f64 * batch as f64,
        Task::Preprocess | Task::Export | Task::Case => unreachable!("see `Pipeline`"),
    }
}

/// The parameters of the golden data, seed 1.
fn seeded_parameters() -> impl FnMut(&ParameterSpec) -> Result<TensorData, ModelError> {
    let mut index = 0;
    move |spec| {
        let values = prng::parameter(1, index, Role::of(&spec.name), &spec.shape, 1.0);
        index += 1;
        Ok(TensorData::new(values, spec.shape.clone()))
    }
}

/// A He-scaled stretch of seeded values, repeated: drawing 1.5 G parameters would take longer than
/// timing them.
pub fn quick_parameters() -> impl FnMut(&ParameterSpec) -> Result<TensorData, ModelError> {
    let pool = prng::uniform(1, 0, 1 << 20);
    move |spec| {
        let (count, fan_in) = (spec.shape.iter().product(), spec.shape.iter().skip(1).product());
        let bound = (6.0 / Ord::max(fan_in, 1usize) as f32).sqrt();
        let values = pool.iter().cycle().take(count);
        let values: Vec<f32> = match spec.kind {
            ParameterKind::NormWeight => vec![1.0; count],
            ParameterKind::NormBias | ParameterKind::ConvBias { .. } => vec![0.0; count],
            ParameterKind::ConvWeight => values.map(|v| v * bound).collect(),
        };
        Ok(TensorData::new(values, spec.shape.clone()))
    }
}

/// Random labels in cubes of eight voxels, at every scale.
fn targets(config: &StuNetConfig, input: [usize; 5], device: &Device) -> Vec<Tensor<4, Int>> {
    let [n, _, z, y, x] = input;
    let device = device.clone().inner();
    let at_scale = |(scale, &[z, y, x]): (usize, &[usize; 3])| {
        let cubes = [n, z.div_ceil(8), y.div_ceil(8), x.div_ceil(8)];
        let drawn =
            prng::integers(3, scale as u64, cubes.iter().product(), config.num_classes as u64);
        let mut labels = Vec::with_capacity(n * z * y * x);
        for n in 0..n {
            for (k, j) in (0..z).flat_map(|k| (0..y).map(move |j| (k, j))) {
                let row = ((n * cubes[1] + k / 8) * cubes[2] + j / 8) * cubes[3];
                labels.extend((0..x).map(|i| drawn[row + i / 8] as i32));
            }
        }
        Tensor::<4, Int>::from_data(TensorData::new(labels, [n, z, y, x]), (&device, DType::I32))
    };
    config.stage_sizes([z, y, x])[..5].iter().enumerate().map(at_scale).collect()
}
