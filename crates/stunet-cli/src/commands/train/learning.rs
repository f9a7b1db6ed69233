//! What a run minimises and how, and what of its network is trained, where that is not the recipe.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stunet::train::loss::{LossConfig, LossTerms};
use stunet::train::optimiser::{AdamSettings, OptimiserConfig, SgdConfig};
use stunet::train::parts::Parts;
use stunet::train::rates::LayerRates;
use stunet::train::schedule::{Cosine, Poly, Restarted, Schedule, WarmUp};
use stunet::train::transfer::StemAdaptation;
use stunet::train::{LowRankConfig, LowRankOptions, exact};

use crate::args::{HeadsArg, LossArg, OptimizerArg, PartFactor, ScheduleArg, StemArg, TrainArgs};

/// Variants of the recipe, as a run records them; none that are nnU-Net's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Learning {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossArg>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerArg>,
    #[serde(default, with = "exact::option", skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleArg>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<usize>,
    #[serde(default, with = "exact::option", skip_serializing_if = "Option::is_none")]
    pub layer_decay: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lr_factors: Vec<PartFactor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Parts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<usize>,
    #[serde(default, with = "exact::option", skip_serializing_if = "Option::is_none")]
    pub lora_alpha: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem: Option<StemArg>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<HeadsArg>,
    /// Where a longer run's learning rate began anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
}

/// A learning rate that began anew.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// The first epoch of the new schedule, from 0.
    pub epoch: usize,
    /// The rate that it began with.
    #[serde(with = "exact")]
    pub lr: f64,
}

impl Learning {
    /// What was typed.
    pub fn new(args: &TrainArgs) -> Self {
        let (learning, transfer) = (args.learning.clone(), args.transfer.clone());
        Self {
            loss: learning.loss,
            optimizer: learning.optimizer,
            weight_decay: learning.weight_decay,
            schedule: learning.schedule,
            warmup: learning.warmup,
            layer_decay: learning.layer_decay,
            lr_factors: learning.lr_factor,
            freeze: transfer.freeze,
            lora: transfer.lora,
            lora_alpha: transfer.lora_alpha,
            stem: transfer.stem,
            heads: transfer.heads,
            restart: None,
        }
    }

    /// True where the run is the recipe's.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// The learning rate of a run that does not say one.
    pub fn default_lr(&self, pretrained: bool) -> f64 {
        match self.optimizer {
            Some(OptimizerArg::Adam | OptimizerArg::Adamw | OptimizerArg::AdamwAmsgrad) => 3e-4,
            Some(OptimizerArg::Sgd) | None if pretrained => 1e-3,
            Some(OptimizerArg::Sgd) | None => 1e-2,
        }
    }

    /// The recipe's loss, or the variant of it.
    pub fn loss(&self, stock: LossConfig) -> LossConfig {
        let terms = match self.loss {
            None | Some(LossArg::DiceCe | LossArg::DiceCeNoSmooth) => {
                LossTerms::DiceAndCrossEntropy
            }
            Some(LossArg::Dice) => LossTerms::Dice,
            Some(LossArg::Ce) => LossTerms::CrossEntropy,
            Some(LossArg::Topk10) => LossTerms::TopK { percent: 10.0, label_smoothing: 0.0 },
            Some(LossArg::Topk10Ls01) => LossTerms::TopK { percent: 10.0, label_smoothing: 0.1 },
            Some(LossArg::DiceTopk10) => LossTerms::DiceAndTopK { percent: 10.0 },
        };
        let smooth = if self.loss == Some(LossArg::DiceCeNoSmooth) { 0.0 } else { stock.smooth };
        LossConfig { terms, smooth, ..stock }
    }

    /// The optimiser.
    pub fn optimiser(&self) -> Arc<dyn OptimiserConfig> {
        let stock = SgdConfig::default();
        let weight_decay = self.weight_decay.unwrap_or(stock.weight_decay);
        let adam = AdamSettings { weight_decay, ..AdamSettings::nnunet_adam() };
        match self.optimizer {
            None | Some(OptimizerArg::Sgd) => Arc::new(SgdConfig { weight_decay, ..stock }),
            Some(OptimizerArg::Adam) => {
                Arc::new(AdamSettings { weight_decay, ..AdamSettings::vanilla() })
            }
            Some(OptimizerArg::Adamw) => Arc::new(AdamSettings { amsgrad: false, ..adam }),
            Some(OptimizerArg::AdamwAmsgrad) => Arc::new(adam),
        }
    }

    /// The learning rate over the run.
    pub fn schedule(&self) -> Box<dyn Schedule> {
        let falls: Box<dyn Schedule> = match self.schedule {
            None | Some(ScheduleArg::Poly) => Box::new(Poly),
            Some(ScheduleArg::Cosine) => Box::new(Cosine),
        };
        let rises: Box<dyn Schedule> = match self.warmup {
            None => falls,
            Some(epochs) => Box::new(WarmUp { epochs, then: falls }),
        };
        match self.restart {
            None => rises,
            Some(Restart { epoch, lr }) => {
                Box::new(Restarted { epoch, initial: lr, schedule: rises })
            }
        }
    }

    /// Learning rates by layer.
    pub fn rates(&self) -> LayerRates {
        let factors =
            self.lr_factors.iter().map(|PartFactor { part, factor }| (part.clone(), *factor));
        LayerRates { decay: self.layer_decay.unwrap_or(1.0), factors: factors.collect() }
    }

    /// Low-rank adaptation, where it is asked for.
    pub fn low_rank(&self, seed: u64) -> Option<LowRankOptions> {
        let rank = self.lora?;
        let alpha = self.lora_alpha.unwrap_or(rank as f64);
        Some(LowRankOptions { factors: LowRankConfig { rank, alpha }, whole: Vec::new(), seed })
    }

    /// How the stem is adapted.
    pub fn stem(&self) -> StemAdaptation {
        match self.stem {
            None | Some(StemArg::Repeat) => StemAdaptation::Repeat,
            Some(StemArg::Average) => StemAdaptation::Average,
            Some(StemArg::First) => StemAdaptation::First,
            Some(StemArg::New) => StemAdaptation::New,
        }
    }
}
