//! Adam and AdamW, as nnU-Net's trainers set them.

use super::{BurnOptimiser, Optimiser, OptimiserConfig};
use burn_optim::decay::WeightDecayConfig;
use burn_optim::{AdamConfig, AdamWConfig};
use stunet_model::{StuNet, StuNetConfig};

/// PyTorch's; Burn's own default is 1e-5.
const EPSILON: f32 = 1e-8;

/// Adam or AdamW with PyTorch's defaults (0.9, 0.999, 1e-8) and nnU-Net's weight decay and clipping.
/// Burn's optimisers do the arithmetic.
///
/// ```
/// use stunet_train::optimiser::{AdamSettings, OptimiserConfig};
/// let adam = AdamSettings { amsgrad: false, ..AdamSettings::nnunet_adam() };
/// assert_eq!(adam.describe(), "AdamW, weight decay 3e-5, largest norm 12.0");
/// ```
///
/// # Source
/// nnU-Net 2.8.1 `nnUNetTrainerAdam` ([`nnunet_adam`](Self::nnunet_adam)) and `nnUNetTrainerVanillaAdam`
/// ([`vanilla`](Self::vanilla)); `torch.optim.AdamW`, `torch.optim.Adam`.
///
/// # Deviations
/// Burn holds 0.9 and 0.999 in single precision: a step differs from PyTorch's by a part in ten thousand
/// of itself at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamSettings {
    /// AdamW: the weights decay apart from the gradients. Else the decay is added to the gradient.
    pub decoupled: bool,
    /// Divides by the largest second moment so far instead of the present one.
    pub amsgrad: bool,
    /// Weight decay; acts on every parameter, biases and norms too.
    pub weight_decay: f64,
    /// Gradients with a larger global norm are scaled down to it.
    pub max_norm: Option<f64>,
}

impl AdamSettings {
    /// `nnUNetTrainerAdam`: AdamW with AMSGrad.
    pub fn nnunet_adam() -> Self {
        Self { decoupled: true, amsgrad: true, weight_decay: 3e-5, max_norm: Some(12.0) }
    }

    /// `nnUNetTrainerVanillaAdam`: Adam, its weight decay a part of the gradient.
    pub fn vanilla() -> Self {
        Self { decoupled: false, amsgrad: false, ..Self::nnunet_adam() }
    }

    /// Burn's optimiser.
    fn burn(&self) -> Box<dyn OptimiserConfig> {
        let Self { decoupled, amsgrad, weight_decay, max_norm } = *self;
        let moments = if amsgrad { 3.0 } else { 2.0 };
        let name = if decoupled { "AdamW" } else { "Adam" };
        let with = if amsgrad { " with AMSGrad" } else { "" };
        let description = format!("{name}{with}, weight decay {weight_decay:?}");
        let decay = weight_decay as f32;
        if decoupled {
            let adam = AdamWConfig::new().with_epsilon(EPSILON).with_amsgrad(amsgrad);
            let adam = adam.with_weight_decay(decay).build();
            let own = BurnOptimiser::new(description, adam).with_max_norm(max_norm);
            Box::new(own.with_copies_of_weights(moments))
        } else {
            let adam = AdamConfig::new().with_epsilon(EPSILON).with_amsgrad(amsgrad);
            let decay = (decay != 0.0).then(|| WeightDecayConfig::new(decay));
            let own = BurnOptimiser::new(description, adam.with_weight_decay(decay).build());
            Box::new(own.with_max_norm(max_norm).with_copies_of_weights(moments))
        }
    }
}

impl OptimiserConfig for AdamSettings {
    fn describe(&self) -> String {
        self.burn().describe()
    }

    fn init(&self, network: &StuNetConfig) -> Box<dyn Optimiser> {
        self.burn().init(network)
    }

    fn init_for(&self, network: &StuNet) -> Box<dyn Optimiser> {
        self.burn().init_for(network)
    }

    fn copies_of_weights(&self) -> f64 {
        self.burn().copies_of_weights()
    }
}
