//! The type convolutions compute in, while parameters stay f32.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};
use stunet_model::{ParameterKind, ParameterSpec, StuNet};

/// What a training step computes in. Parameters, momentum, the statistics of norms and the loss are
/// f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Single precision throughout.
    #[default]
    F32,
    /// Half precision; needs a [`LossScaler`](crate::optimiser::LossScaler).
    F16,
    /// Brain float: f32's range, so that no scaling is needed.
    Bf16,
}

impl Precision {
    /// Burn's name of the type.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Whether small gradients underflow unless the loss is scaled.
    pub fn needs_loss_scaling(self) -> bool {
        self == Self::F16
    }

    /// The network as this precision computes it: kernels and biases cast, norms as they are.
    ///
    /// The cast is differentiable, so that gradients arrive, in f32, at the network it was made of;
    /// make a new one after every step. Inputs must be cast to [`dtype`](Self::dtype) as well.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use stunet_model::{Initialisation, StuNetConfig};
    /// use stunet_train::precision::Precision;
    ///
    /// let config = StuNetConfig { width: [2, 2, 4, 4, 8, 8], ..StuNetConfig::small(1, 3) };
    /// let network = config.init_seeded(Initialisation::NnUNetV1, 0, &Device::flex())?;
    /// let half = Precision::F16.network(&network);
    /// let x = Tensor::<5>::ones([1, 1, 16, 16, 64], &Device::flex());
    /// let logits = half.forward(x.cast(Precision::F16.dtype()));
    /// assert_eq!(logits.dtype(), Precision::F16.dtype());
    /// # Ok::<(), stunet_model::ModelError>(())
    /// ```
    pub fn network(self, network: &StuNet) -> StuNet {
        let network = network.clone();
        if self == Self::F32 {
            return network;
        }
        let specs = network.config().parameter_specs();
        network.map(&mut Cast { dtype: self.dtype(), specs: specs.iter(), beside: 0 })
    }
}

/// Casts convolutions; norms stay in f32, as their statistics are.
struct Cast<'a> {
    dtype: DType,
    /// Of the parameters that Burn has not visited yet: it visits them in the order of the list.
    specs: std::slice::Iter<'a, ParameterSpec>,
    /// Modules that the pass is in of those beside a parameter: low-rank factors stay f32, and their
    /// product is cast where it is added.
    beside: usize,
}

impl ModuleMapper for Cast<'_> {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.beside += usize::from(self.beside > 0 || container == "Reparameterization");
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.beside = self.beside.saturating_sub(1);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.beside > 0 {
            return param;
        }
        let spec = self.specs.next().expect("the list has every parameter of the network");
        match spec.kind {
            ParameterKind::NormWeight | ParameterKind::NormBias => param,
            ParameterKind::ConvWeight | ParameterKind::ConvBias { .. } => {
                param.map(|tensor| tensor.cast(self.dtype))
            }
        }
    }
}
