//! STU-Net, the scalable 3-D U-Net, for Burn: tensors `[N, C, Z, Y, X]` in, logits out.
//!
//! A tour, in reading order:
//!
//! * [`StuNetSize`] and [`StuNetConfig`]: the family as one table, checked once,
//! * [`ResidualBlock`], [`Encoder`], [`Decoder`], [`StuNet`]: the network,
//! * [`ParameterSource`]: where parameters come from; initialisation and import are both sources,
//! * [`low_rank`]: small factors that are trained beside weights that stay as they are,
//! * [`weights`]: checkpoints of nnU-Net read and written, our own model folder,
//! * [`cost`]: parameters, multiply-adds and activation memory per stage.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use stunet_model::StuNetConfig;
//!
//! let device = Device::flex();
//! let network = StuNetConfig::small(1, 3).with_width([2, 2, 4, 4, 8, 8]).init(&device);
//! let logits = network.forward(Tensor::ones([1, 1, 16, 16, 64], &device));
//! assert_eq!(logits.dims(), [1, 3, 16, 16, 64]);
//! ```
#![warn(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

mod block;
mod config;
pub mod cost;
mod decoder;
pub mod eight_bit;
mod encoder;
mod error;
mod init;
pub mod low_rank;
mod parameter;
pub mod plain_unet;
mod stunet;
pub mod weights;

pub use block::{Conv, ConvConfig, InstanceNorm, ResidualBlock, ResidualBlockConfig};
/// The tensor library, in the version that the network is built on.
pub use burn;
pub use config::{NUM_STAGES, NUM_UPSAMPLINGS, StuNetConfig, StuNetSize};
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use error::ModelError;
pub use init::Initialisation;
pub use low_rank::{LowRank, LowRankConfig};
pub use parameter::{NetworkPart, ParameterKind, ParameterRef, ParameterSource, ParameterSpec};
pub use stunet::StuNet;
pub use stunet_kernels::{
    DeviceFailure, DeviceFault, DeviceMemory, HalfSums, InUse, KeptWeights, LabelDecision,
    LabelledSoftmax, LinePlace, MirroredPass, PointwiseRows, SgdStep, SoftmaxSlopes, SoftmaxSums,
    WindowAverage, WindowOverlap, WindowSums, WindowSumsCost, WindowValues, copied, device_memory,
    guarded, has_eight_bit_products, in_use, keep_weights, kept_memory, read, release_memory,
    sgd_step, sum_of_squares, synchronized, with_gradient,
};
