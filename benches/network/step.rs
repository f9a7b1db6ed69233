//! What is timed: a forward pass, or a whole training step.

use crate::Args;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};
use clap::ValueEnum;
use std::collections::HashMap;
use stunet::model::{ParameterKind, ParameterSpec, StuNet, StuNetConfig, StuNetSize};
use stunet_testing::prng;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Full-resolution logits of one patch
    Forward,
    /// Five heads, loss, backward, clipping, SGD
    Train,
}

impl Task {
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Train => "train",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    F32,
    F16,
    Bf16,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// A network with its input, ready to run any number of times.
pub struct Step {
    network: StuNet,
    input: Tensor<5>,
    precision: Precision,
    training: Option<Training>,
}

/// What a training step needs beside the network.
struct Training {
    /// Labels as indices, `[N, 1, Z, Y, X]`, by scale.
    targets: Vec<Tensor<5, Int>>,
    momentum: HashMap<ParamId, Tensor<1>>,
}

impl Step {
    pub fn new(
        args: &Args,
        size: &str,
        task: Task,
        precision: Precision,
        device: &Device,
    ) -> Result<Self, String> {
        let size = StuNetSize::ALL.into_iter().find(|s| s.name()[..1].eq_ignore_ascii_case(size));
        let size = size.ok_or("--sizes: expected some of S, B, L, H")?;
        let config = StuNetConfig::new(size, 1, args.classes);
        let patch: [usize; 3] =
            args.patch.clone().try_into().map_err(|_| "--patch: three sizes")?;
        config.validate_patch(patch).map_err(|e| e.to_string())?;

        let train = task == Task::Train;
        let device = if train { device.clone().autodiff() } else { device.clone() };
        let mut network =
            StuNet::from_source(&config, &mut parameters(), &device).map_err(|e| e.to_string())?;
        if !train {
            // Cast once; a training step casts its f32 parameters every time.
            network = network.map(&mut Cast::to(precision));
        }
        let [z, y, x] = patch;
        let shape = [if train { args.batch } else { 1 }, 1, z, y, x];
        let values = prng::uniform(2, 0, shape.iter().product());
        let input = Tensor::<5>::from_data(TensorData::new(values, shape), (&device, DType::F32));
        let training = train.then(|| Training {
            targets: targets(&config, shape, &device),
            momentum: HashMap::new(),
        });
        Ok(Self { network, input: input.cast(precision.dtype()), precision, training })
    }

    /// Runs once; gives a value that depends on all of it.
    pub fn run(&mut self) -> f32 {
        let input = self.input.clone();
        let Some(training) = &mut self.training else {
            let logits = self.network.forward(input);
            let corner = logits.narrow(2, 0, 1).narrow(3, 0, 1).cast(DType::F32).sum();
            return corner.into_scalar::<f32>();
        };
        let working = self.network.clone().map(&mut Cast::to(self.precision));
        let loss = deep_supervision_loss(working.forward_deep(input), &training.targets);
        let grads = loss.backward();

        let mut norm = SquaredNorm { grads: &grads, sum: None };
        self.network.visit(&mut norm);
        let norm = norm.sum.expect("a network has gradients").sqrt();
        let clip = (norm + 1e-6).recip().mul_scalar(12.0).clamp_max(1.0);
        let momentum = &mut training.momentum;
        let mut update = Update { grads: &grads, clip, momentum };
        self.network = self.network.clone().map(&mut update);
        loss.into_scalar::<f32>()
    }
}

/// A He-scaled stretch of seeded values, repeated: drawing 1.5 G parameters would take longer than
/// timing them.
fn parameters() -> impl FnMut(&ParameterSpec) -> Result<TensorData, stunet::model::ModelError> {
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
fn targets(config: &StuNetConfig, input: [usize; 5], device: &Device) -> Vec<Tensor<5, Int>> {
    let [n, _, z, y, x] = input;
    config.stage_sizes([z, y, x])[..5]
        .iter()
        .enumerate()
        .map(|(scale, &[z, y, x])| {
            let cubes = [n, 1, z.div_ceil(8), y.div_ceil(8), x.div_ceil(8)];
            let count = cubes.iter().product();
            let labels = prng::integers(3, scale as u64, count, config.num_classes as u64);
            let labels: Vec<i32> = labels.into_iter().map(|v| v as i32).collect();
            let labels = Tensor::<5, Int>::from_data(TensorData::new(labels, cubes), device);
            let labels = (2..5).fold(labels, |l, axis| {
                let repeated: Tensor<6, Int> = l.unsqueeze_dim(axis + 1);
                repeated.repeat_dim(axis + 1, 8).flatten(axis, axis + 1)
            });
            labels.narrow(2, 0, z).narrow(3, 0, y).narrow(4, 0, x)
        })
        .collect()
}

/// Cross-entropy plus soft dice per sample, background left out; weights halve with resolution and
/// the coarsest head has none. A plain composition of Burn's operators: the real one is
/// `stunet-train`'s.
fn deep_supervision_loss(outputs: Vec<Tensor<5>>, targets: &[Tensor<5, Int>]) -> Tensor<1> {
    let scales = outputs.len() - 1;
    let total: f32 = (0..scales).map(|scale| 0.5f32.powi(scale as i32)).sum();
    let terms = outputs.into_iter().zip(targets).take(scales).enumerate();
    let terms = terms.map(|(scale, (logits, target))| {
        scale_loss(logits.cast(DType::F32), target.clone()) * (0.5f32.powi(scale as i32) / total)
    });
    terms.reduce(|a, b| a + b).expect("at least one scale")
}

fn scale_loss(logits: Tensor<5>, target: Tensor<5, Int>) -> Tensor<1> {
    let log_p = activation::log_softmax(logits, 1);
    let p = log_p.clone().exp();
    let cross_entropy = log_p.gather(1, target.clone()).mean().neg();

    let sum = |t: Tensor<5>| t.flatten::<3>(2, 4).sum_dim(2);
    let one_hot = p.zeros_like().detach().scatter(
        1,
        target.clone(),
        target.ones_like().float().cast(DType::F32),
        burn::tensor::IndexingUpdateOp::Add,
    );
    let overlap = sum(p.clone() * one_hot.clone());
    let total = sum(p) + sum(one_hot);
    let dice = (overlap * 2.0 + 1e-5) / (total + (1e-5 + 1e-8));
    let classes = dice.dims()[1];
    cross_entropy - dice.narrow(1, 1, classes - 1).mean()
}

/// Casts convolutions; norms stay in f32, as their statistics are.
struct Cast {
    dtype: DType,
    in_norm: bool,
}

impl Cast {
    fn to(precision: Precision) -> Self {
        Self { dtype: precision.dtype(), in_norm: false }
    }
}

impl ModuleMapper for Cast {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.in_norm |= name.starts_with("norm");
    }

    fn exit_module(&mut self, name: &str, _container: &str) {
        self.in_norm &= !name.starts_with("norm");
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.in_norm || self.dtype == DType::F32 {
            return param;
        }
        // Differentiable: gradients arrive at the f32 parameters.
        param.map(|tensor| tensor.cast(self.dtype))
    }
}

/// Sums the squares of all gradients, on the device.
struct SquaredNorm<'a> {
    grads: &'a burn::tensor::Gradients,
    sum: Option<Tensor<1>>,
}

impl burn::module::ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.val().grad(self.grads) {
            let squares = grad.square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + squares,
                None => squares,
            });
        }
    }
}

/// SGD with Nesterov momentum 0.99 and weight decay 3e-5, as nnU-Net's trainer.
struct Update<'a> {
    grads: &'a burn::tensor::Gradients,
    clip: Tensor<1>,
    momentum: &'a mut HashMap<ParamId, Tensor<1>>,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        const LR: f32 = 0.01;
        let id = param.id;
        param.map(|tensor| {
            // The coarsest head has no gradient and is left alone, weight decay included.
            let Some(grad) = tensor.grad(self.grads) else { return tensor };
            let shape = tensor.dims();
            let value = tensor.clone().inner().flatten::<1>(0, D - 1);
            let grad = grad.flatten::<1>(0, D - 1) * self.clip.clone() + value.clone() * 3e-5;
            let buffer = match self.momentum.remove(&id) {
                Some(buffer) => buffer * 0.99 + grad.clone(),
                None => grad.clone(),
            };
            self.momentum.insert(id, buffer.clone());
            let value = value - (grad + buffer * 0.99) * LR;
            Tensor::from_inner(value.reshape(shape)).require_grad()
        })
    }
}
