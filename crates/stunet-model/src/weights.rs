//! Weights: checkpoints of nnU-Net read and written, and our own model folder.
//!
//! * [`Checkpoint`] opens an nnU-Net v1 `.model` or v2 `.pth` file, reads the network's size off
//!   its tensors and loads them, one at a time,
//! * [`LoadReport`] says what was applied, missing, unused or of another shape,
//! * [`folder`] is our own format: `network.json` beside `weights.safetensors`,
//! * [`names`] knows the parameters' names of earlier versions,
//! * [`writer`] makes checkpoints that nnU-Net and PyTorch load,
//! * [`torch`] and [`pickle`] read the formats underneath without executing anything.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use stunet_model::StuNetConfig;
//! use stunet_model::weights::{Checkpoint, LoadOptions};
//!
//! let checkpoint = Checkpoint::open("base_ep4k.model".as_ref())?;
//! let strides = StuNetConfig::PUBLISHED_STRIDES;
//! let (network, report) =
//!     checkpoint.load(strides, &LoadOptions::default(), &Device::flex())?;
//! println!("{report}: {:?}", network.config().size());
//! # Ok::<(), stunet_model::ModelError>(())
//! ```

pub mod atomic;
mod checkpoint;
pub(crate) mod digest;
pub mod folder;
mod key_map;
pub mod muted;
pub mod names;
pub mod pickle;
mod plain;
mod report;
pub mod safetensors_file;
mod source;
mod tensor;
pub mod torch;
pub mod writer;

pub use checkpoint::{
    Checkpoint, CheckpointKind, CheckpointSource, LoadOptions, NetworkKind, plan_file_of,
};
pub use digest::Digest;
pub use report::{LoadReport, Mismatch};
pub use tensor::{Dtype, StorageRef, TensorRef};

use crate::parameter::checked;
use crate::{ModelError, ParameterRef, ParameterSource, ParameterSpec, StuNet};
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};
use std::collections::HashMap;

/// The parameters of a network as a source: how one is saved or copied. It shares the network's
/// memory.
#[derive(Debug)]
pub struct NetworkSource(HashMap<String, Shared>);

/// A parameter whose values are shared with the network.
#[derive(Debug)]
enum Shared {
    Vector(Param<Tensor<1>>),
    Kernel(Param<Tensor<5>>),
}

impl StuNet {
    /// This network's parameters as a source; low-rank factors are added to their weights.
    pub fn source(&self) -> NetworkSource {
        let mut all = HashMap::new();
        let merged = if self.is_adapted() { self.clone().materialize() } else { self.clone() };
        merged.for_each_parameter(&mut |spec, parameter| {
            let shared = match parameter {
                ParameterRef::Vector(parameter) => Shared::Vector(parameter.clone()),
                ParameterRef::Kernel(parameter) => Shared::Kernel(parameter.clone()),
            };
            all.insert(spec.name.clone(), shared);
        });
        NetworkSource(all)
    }
}

impl ParameterSource for NetworkSource {
    fn parameter(&mut self, spec: &ParameterSpec) -> Result<TensorData, ModelError> {
        match self.0.get(&spec.name) {
            Some(Shared::Vector(parameter)) => Ok(ParameterRef::Vector(parameter).to_data()),
            Some(Shared::Kernel(parameter)) => Ok(ParameterRef::Kernel(parameter).to_data()),
            None => Err(ModelError::config("parameter", spec.name.clone(), "none of that name")),
        }
    }
}

/// Asks a source for one parameter, checks its shape, and gives its values as `f32`.
fn values(
    source: &mut dyn ParameterSource,
    spec: &ParameterSpec,
) -> Result<TensorData, ModelError> {
    Ok(checked(source, spec)?.convert_dtype(DType::F32))
}

#[cfg(test)]
mod tests;
