//! What is timed: an operator with its shapes, and a direction.

use burn::tensor::{DType, Device, Tensor, TensorData};
use clap::ValueEnum;
use stunet::kernels::{self, Norm, reference};
use stunet_testing::prng;

const LEAKY_SLOPE: f64 = 0.01;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    Forward,
    /// Gradient with respect to the input, or both inputs, or input and residual
    Input,
    /// Gradient with respect to the weights
    Weight,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Input => "d/dx",
            Self::Weight => "d/dw",
        }
    }
}

/// A convolution's shapes; the second part has no channels where there is one source.
#[derive(Clone, Debug)]
pub struct Convolution {
    pub parts: [usize; 2],
    pub outputs: usize,
    pub size: [usize; 3],
    pub kernel: usize,
    pub stride: [usize; 3],
}

impl Convolution {
    /// 3×3×3, stride 1.
    pub fn new(parts: [usize; 2], outputs: usize, size: [usize; 3]) -> Self {
        Self { parts, outputs, size, kernel: 3, stride: [1; 3] }
    }

    fn weights(&self) -> usize {
        self.parts.iter().sum::<usize>() * self.outputs * self.kernel.pow(3)
    }

    /// Voxels written.
    fn voxels(&self) -> usize {
        (0..3).map(|axis| self.size[axis].div_ceil(self.stride[axis])).product()
    }

    fn multiply_adds(&self) -> f64 {
        self.voxels() as f64 * self.weights() as f64
    }

    /// Values that must be read and written, once each. A single voxel leaves out what a stride skips.
    fn values(&self, direction: Direction) -> [usize; 2] {
        let all = self.size.iter().product::<usize>();
        let input = self.parts.iter().sum::<usize>();
        let read = input * if self.kernel == 1 { self.voxels() } else { all };
        let (written, weights) = (self.outputs * self.voxels(), self.weights());
        match direction {
            Direction::Forward => [read + weights, written],
            Direction::Input => [written + weights, input * all],
            Direction::Weight => [read + written, weights],
        }
    }
}

#[derive(Clone, Debug)]
enum Operator {
    Convolution(Convolution),
    Norm { channels: usize, size: [usize; 3], residual: bool },
    Upsample { channels: usize, size: [usize; 3], factor: [usize; 3] },
}

#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    operator: Operator,
}

/// One case per operator, as large as they are in S.
pub fn operators() -> Vec<Case> {
    let conv = |name: &str, parts, outputs, size, kernel, stride| {
        let convolution = Convolution { kernel, stride, ..Convolution::new(parts, outputs, size) };
        Case::convolution(name.into(), convolution)
    };
    let norm = |name: &str, channels, size, residual| Case {
        name: name.into(),
        operator: Operator::Norm { channels, size, residual },
    };
    let upsample = |name: &str, channels, size, factor| Case {
        name: name.into(),
        operator: Operator::Upsample { channels, size, factor },
    };
    vec![
        conv("conv 3×3×3, 1 → 16, 128³", [1, 0], 16, [128; 3], 3, [1; 3]),
        conv("conv 3×3×3, 16 → 16, 128³", [16, 0], 16, [128; 3], 3, [1; 3]),
        conv("conv 3×3×3, 64 → 64, 32³", [64, 0], 64, [32; 3], 3, [1; 3]),
        conv("conv 3×3×3, 256 → 256, 8×8×4", [256, 0], 256, [8, 8, 4], 3, [1; 3]),
        conv("conv 3×3×3, 17 → 23, 61×67×71", [17, 0], 23, [61, 67, 71], 3, [1; 3]),
        conv("conv 3×3×3, 16 → 32, 128³, stride 2", [16, 0], 32, [128; 3], 3, [2; 3]),
        conv("conv 3×3×3, 256 → 256, 8³, stride 1×1×2", [256, 0], 256, [8; 3], 3, [1, 1, 2]),
        conv("conv 3×3×3, 16 + 16 → 16, 128³", [16, 16], 16, [128; 3], 3, [1; 3]),
        conv("conv 3×3×3, 64 + 64 → 64, 32³", [64, 64], 64, [32; 3], 3, [1; 3]),
        conv("conv 1×1×1, 16 → 105, 128³", [16, 0], 105, [128; 3], 1, [1; 3]),
        conv("conv 1×1×1, 16 + 16 → 16, 128³", [16, 16], 16, [128; 3], 1, [1; 3]),
        conv("conv 1×1×1, 16 → 32, 128³, stride 2", [16, 0], 32, [128; 3], 1, [2; 3]),
        norm("norm, leaky ReLU, 16, 128³", 16, [128; 3], false),
        norm("norm + residual, leaky ReLU, 16, 128³", 16, [128; 3], true),
        norm("norm + residual, leaky ReLU, 256, 8×8×4", 256, [8, 8, 4], true),
        upsample("upsampling 2×2×2, 16, 64³", 16, [64; 3], [2; 3]),
        upsample("upsampling 1×1×2, 256, 8×8×4", 256, [8, 8, 4], [1, 1, 2]),
    ]
}

/// What is timed within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The gradient of ones that a backward pass begins with.
    Seed,
    /// The operator; its backward pass makes a seed as well.
    Operator,
}

/// Times what it is given.
type Timer<'a> = &'a mut dyn FnMut(Part, &mut dyn FnMut());

impl Case {
    pub fn convolution(name: String, convolution: Convolution) -> Self {
        Self { name, operator: Operator::Convolution(convolution) }
    }

    pub fn has(&self, direction: Direction) -> bool {
        direction != Direction::Weight || !matches!(self.operator, Operator::Upsample { .. })
    }

    /// Operations of one direction; none where memory is what an operator waits for.
    pub fn flop(&self) -> Option<f64> {
        match &self.operator {
            Operator::Convolution(convolution) => Some(2.0 * convolution.multiply_adds()),
            _ => None,
        }
    }

    /// Bytes that must be read and written, once each: large tensors and kernels.
    pub fn bytes(&self, direction: Direction) -> [f64; 2] {
        let voxels = |size: &[usize; 3]| size.iter().product::<usize>();
        let values = match &self.operator {
            Operator::Convolution(convolution) => convolution.values(direction),
            Operator::Norm { channels, size, residual } => {
                let (volume, residual) = (channels * voxels(size), usize::from(*residual));
                match direction {
                    Direction::Forward => [(1 + residual) * volume, volume],
                    // Reads gradient and input, writes the input's gradient and the residual's.
                    _ => [2 * volume, (1 + residual) * volume],
                }
            }
            Operator::Upsample { channels, size, factor } => {
                let coarse = channels * voxels(size);
                let fine = coarse * factor.iter().product::<usize>();
                if direction == Direction::Forward { [coarse, fine] } else { [fine, coarse] }
            }
        };
        values.map(|values| (values * size_of::<f32>()) as f64)
    }

    /// Makes the tensors; each call of what it returns has one run timed.
    pub fn start(
        &self,
        direction: Direction,
        stock: bool,
        device: &Device,
    ) -> impl FnMut(Timer<'_>) + use<> {
        let (case, [data, vectors]) = (self.clone(), self.tensors());
        let device = match direction {
            Direction::Forward => device.clone(),
            _ => device.clone().autodiff(),
        };
        let of = device.clone();
        let tensor = move |(data, is_weight): &(TensorData, bool)| {
            let tensor = Tensor::<5>::from_data(data.clone(), (&of, DType::F32));
            let tracked = match direction {
                Direction::Forward => false,
                Direction::Input => !is_weight,
                Direction::Weight => *is_weight,
            };
            if tracked { tensor.require_grad() } else { tensor }
        };
        move |time| {
            // Fresh every time: an operator may write over what nobody else holds.
            let tensors: Vec<_> = data.iter().map(&tensor).collect();
            let vectors: Vec<Tensor<1>> = vectors.iter().map(|v| tensor(v).reshape([-1])).collect();
            if direction == Direction::Forward {
                let (mut arguments, mut y) = (Some((tensors, vectors)), None);
                time(Part::Operator, &mut || {
                    let (tensors, vectors) = arguments.take().expect("run once");
                    y = Some(case.call(stock, tensors, vectors));
                });
            } else {
                let y = case.call(stock, tensors, vectors);
                let (plain, mut seed, mut gradients) = (device.clone().inner(), None, None);
                time(Part::Seed, &mut || seed = Some(Tensor::<5>::ones(y.dims(), &plain)));
                drop(seed);
                time(Part::Operator, &mut || gradients = Some(y.backward()));
            }
        }
    }

    /// Volumes, then vectors (as `[C, 1, 1, 1, 1]`), and whether they are weights.
    fn tensors(&self) -> [Vec<(TensorData, bool)>; 2] {
        let data = |id: u64, shape: [usize; 5], is_weight| {
            let values = prng::uniform(9, id, shape.iter().product());
            (TensorData::new(values, shape), is_weight)
        };
        let volume = |id, channels, [z, y, x]: [usize; 3]| data(id, [1, channels, z, y, x], false);
        let vector = |id, channels| data(id, [channels, 1, 1, 1, 1], true);
        match &self.operator {
            Operator::Convolution(c) => {
                let k = c.kernel;
                let weight = data(2, [c.outputs, c.parts.iter().sum(), k, k, k], true);
                let parts = c.parts.iter().filter(|channels| **channels > 0).enumerate();
                let volumes = parts.map(|(id, &channels)| volume(id as u64, channels, c.size));
                [volumes.chain([weight]).collect(), vec![vector(3, c.outputs)]]
            }
            Operator::Norm { channels, size, residual } => {
                let volumes = (0..=u64::from(*residual)).map(|id| volume(id, *channels, *size));
                [volumes.collect(), vec![vector(2, *channels), vector(3, *channels)]]
            }
            Operator::Upsample { channels, size, .. } => {
                [vec![volume(0, *channels, *size)], vec![]]
            }
        }
    }

    fn call(&self, stock: bool, x: Vec<Tensor<5>>, vectors: Vec<Tensor<1>>) -> Tensor<5> {
        let (mut x, mut vectors) = (x.into_iter(), vectors.into_iter());
        let mut volume = || x.next().expect("as many as the operator takes");
        let mut vector = || vectors.next().expect("as many as the operator takes");
        match &self.operator {
            Operator::Convolution(Convolution { parts: [_, 0], stride, .. }) => {
                let call = if stock { reference::conv3d } else { kernels::conv3d };
                call(volume(), volume(), vector(), *stride)
            }
            Operator::Convolution(Convolution { stride, .. }) => {
                let call = if stock { reference::conv3d_joined } else { kernels::conv3d_joined };
                call(volume(), volume(), volume(), vector(), *stride)
            }
            Operator::Norm { residual, .. } => {
                let norm = Norm { weight: vector(), bias: vector(), epsilon: 1e-5 };
                if *residual {
                    let call = if stock {
                        reference::norm_residual_activation
                    } else {
                        kernels::norm_residual_activation
                    };
                    call(volume(), norm, volume(), LEAKY_SLOPE)
                } else {
                    let call =
                        if stock { reference::norm_activation } else { kernels::norm_activation };
                    call(volume(), norm, LEAKY_SLOPE)
                }
            }
            Operator::Upsample { factor, .. } => {
                let call =
                    if stock { reference::upsample_nearest } else { kernels::upsample_nearest };
                call(volume(), *factor)
            }
        }
    }
}
