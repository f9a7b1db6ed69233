//! Dice plus cross-entropy over the scales of deep supervision, with a backward of our own.
//!
//! At 105 classes and 128³ voxels the logits are the largest tensor of a training step, and a
//! composition of operators under autodiff keeps half a dozen copies of them. Here the gradient of
//! the loss with respect to the logits is written by hand and computed in class chunks on plain
//! tensors; autodiff sees one cheap operation per scale, whose backward delivers that gradient.
//!
//! * [`LossConfig`]: which of nnU-Net's losses ([`LossTerms`]), checked once by [`Loss::new`],
//! * [`Loss::backward`]: value and gradients; [`Loss::value`]: the value alone; to
//!   [`fit`](crate::fit()) it is an [`Objective`] like any other,
//! * [`deep_supervision`]: the weights of the scales and their target pyramid.
//!
//! On a processor the logits are read as slices and worked on in one fused pass per direction; every
//! other device runs Burn's operators. [`LossRoute`] chooses; the tests hold one against the other.

pub mod deep_supervision;
mod describe;
mod device;
mod dice;
mod exponential;
mod host;
mod regions;
mod terms;
mod top_k;

pub use crate::error::LossError;
pub use stunet_data::reference::DiceDenominator;
pub use terms::LossTerms;

use crate::error::Result;
use crate::host::is_host;
use crate::objective::Objective;
use burn::tensor::{DType, Gradients, Int, Tensor};
use stunet_data::reference::Reference;

/// What becomes of a head whose scale has weight 0, as the coarsest always has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroWeight {
    /// Its loss is not computed and its parameters get no gradient, so that the optimiser leaves
    /// them alone: nnU-Net 1.7.1 and 2.8.
    Skip,
    /// Its parameters get a gradient of exactly 0, so that weight decay and momentum act on them:
    /// nnU-Net 2.2, which multiplies its loss by 0.
    ZeroGradient,
}

/// Where the loss is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossRoute {
    /// On the host for tensors that live there, with Burn's operators elsewhere.
    #[default]
    Automatic,
    /// Slices, in one pass per direction, over all threads; f32 only.
    Host,
    /// Burn's operators, in class chunks.
    Device,
}

/// Which loss.
#[derive(Clone, Debug, PartialEq)]
pub struct LossConfig {
    /// What is added up: Dice and cross-entropy, or one of the variants of nnU-Net's trainers.
    pub terms: LossTerms,
    /// How the divisor of each Dice stays above 0: `Added` in nnU-Net 1, `Bounded` in 2.
    pub denominator: DiceDenominator,
    /// True: one Dice per class over the whole batch; false: one per class and sample.
    pub batch_dice: bool,
    /// Voxels of this label take no part.
    pub ignore_label: Option<i32>,
    /// Regions, each a set of labels: a sigmoid per channel and binary cross-entropy instead of
    /// softmax and cross-entropy, and a Dice of every channel.
    pub regions: Option<Vec<Vec<i32>>>,
    /// Weight of each scale, finest first. Outputs beyond the last weight have none.
    pub weights: Vec<f64>,
    /// What becomes of scales with weight 0.
    pub zero_weight: ZeroWeight,
    /// Added to numerator and denominator of each Dice.
    pub smooth: f64,
    /// Where it is computed.
    pub evaluation: LossRoute,
}

impl LossConfig {
    /// nnU-Net 1.7.1's loss for five outputs; its trainer's default is batch dice, the published
    /// STU-Nets were trained without.
    pub fn v1(batch_dice: bool) -> Self {
        Self::of(Reference::NnUNetV1, batch_dice)
    }

    /// nnU-Net 2.2's loss for five outputs.
    pub fn v2(batch_dice: bool) -> Self {
        Self::of(Reference::NnUNetV22, batch_dice)
    }

    /// The loss of a version of nnU-Net, for five outputs.
    pub fn of(reference: Reference, batch_dice: bool) -> Self {
        let conventions = &reference.conventions().training;
        Self {
            terms: LossTerms::default(),
            denominator: conventions.dice,
            batch_dice,
            ignore_label: None,
            regions: None,
            weights: deep_supervision::weights(5),
            zero_weight: match conventions.unweighted_heads_decay {
                true => ZeroWeight::ZeroGradient,
                false => ZeroWeight::Skip,
            },
            smooth: 1e-5,
            evaluation: LossRoute::Automatic,
        }
    }

    fn validate(&self) -> Result<(), LossError> {
        let fail = |what, expected, found: String| Err(LossError::Config { what, expected, found });
        if self.weights.is_empty() || self.weights.iter().any(|w| !w.is_finite() || *w < 0.0) {
            let found = format!("{:?}", self.weights);
            return fail("weights", "at least one, finite and not negative", found);
        }
        if !self.smooth.is_finite() || self.smooth < 0.0 {
            return fail("smooth", "a finite number, not negative", self.smooth.to_string());
        }
        self.terms.validate()?;
        if let Some(regions) = &self.regions {
            if !self.terms.has_regions() {
                let expected = "Dice, alone or with cross-entropy, where there are regions";
                return fail("terms", expected, self.terms.describe());
            }
            if self.denominator == DiceDenominator::Added {
                let found = "that of nnU-Net 1".to_owned();
                return fail("regions", "the Dice of nnU-Net 2 for regions", found);
            }
            if regions.is_empty() || regions.iter().any(Vec::is_empty) {
                return fail("regions", "regions of at least one label", format!("{regions:?}"));
            }
        }
        Ok(())
    }
}

/// The loss at one scale, before its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleLoss {
    /// Weight of the scale.
    pub weight: f64,
    /// Minus the mean soft Dice.
    pub dice: f64,
    /// Mean cross-entropy over the voxels that are not ignored, or over the largest; 0 when all are
    /// ignored, and where it is no part of the loss.
    pub cross_entropy: f64,
}

/// The loss of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossValue {
    /// `dice + cross_entropy`.
    pub total: f64,
    /// Weighted sum of the scales' dice losses.
    pub dice: f64,
    /// Weighted sum of the scales' cross-entropies.
    pub cross_entropy: f64,
    /// Every scale with a weight, finest first.
    pub scales: Vec<ScaleLoss>,
}

impl LossValue {
    fn push(&mut self, scale: ScaleLoss) {
        self.dice += scale.weight * scale.dice;
        self.cross_entropy += scale.weight * scale.cross_entropy;
        self.total = self.dice + self.cross_entropy;
        self.scales.push(scale);
    }
}

/// Dice plus cross-entropy with deep supervision.
///
/// # Source
/// nnU-Net 1.7.1 `DC_and_CE_loss` and `MultipleOutputLoss2`; nnU-Net 2.2 `DC_and_CE_loss`,
/// `DC_and_BCE_loss` over `MemoryEfficientSoftDiceLoss`, and `DeepSupervisionWrapper`; its variants as
/// [`LossTerms`] says.
///
/// # Deviations
/// Sums over voxels are exact to f32 at any size (the reference's are f32 sums of whatever order the
/// device takes). With every voxel ignored, v1's cross-entropy is 0 / 0 there and 0 here.
#[derive(Clone, Debug)]
pub struct Loss {
    config: LossConfig,
}

/// Everything about one scale but its tensors.
struct ScaleSetting<'a> {
    config: &'a LossConfig,
    /// What multiplies the gradient; none where only the value is asked for.
    gradient_factor: Option<f64>,
}

/// Value at one scale, and the gradient in the logits' own type where it was asked for.
struct ScaleResult {
    dice: f64,
    cross_entropy: f64,
    gradient: Option<Tensor<5>>,
}

impl Loss {
    /// A loss of that configuration.
    ///
    /// # Errors
    /// When a setting is out of range.
    pub fn new(config: LossConfig) -> Result<Self, LossError> {
        config.validate()?;
        Ok(Self { config })
    }

    /// The configuration.
    pub fn config(&self) -> &LossConfig {
        &self.config
    }

    /// The loss and the gradients of everything the outputs were computed from.
    ///
    /// # Shapes
    /// `outputs` are logits `[N, C, Z, Y, X]`, finest first, on an autodiff device; `targets` labels
    /// `[N, Z, Y, X]` of the same sizes. Surplus outputs or targets are left out, as the reference's
    /// `zip` does.
    ///
    /// # Panics
    /// When shapes disagree, a label is neither a class nor ignored, no output has a weight, or the
    /// outputs carry no gradient.
    pub fn backward(
        &self,
        outputs: Vec<Tensor<5>>,
        targets: &[Tensor<4, Int>],
    ) -> (LossValue, Gradients) {
        self.backward_scaled(outputs, targets, 1.0)
    }

    /// As [`backward`](Self::backward), with every gradient multiplied by `scale`; the value is not.
    /// For half precision, and for gradient accumulation (`1 / steps`).
    ///
    /// # Panics
    /// As [`backward`](Self::backward).
    pub fn backward_scaled(
        &self,
        outputs: Vec<Tensor<5>>,
        targets: &[Tensor<4, Int>],
        scale: f64,
    ) -> (LossValue, Gradients) {
        let (value, surrogate) = self.surrogate(outputs, targets, scale);
        (value, surrogate.backward())
    }

    /// The loss, and a tensor whose `backward` delivers its gradients times `scale`. The number in
    /// that tensor means nothing.
    ///
    /// # Panics
    /// As [`backward`](Self::backward), the gradients apart.
    pub fn surrogate(
        &self,
        outputs: Vec<Tensor<5>>,
        targets: &[Tensor<4, Int>],
        scale: f64,
    ) -> (LossValue, Tensor<1>) {
        let mut value = LossValue::default();
        let mut surrogate: Option<Tensor<1>> = None;
        for ((logits, target), &weight) in
            outputs.into_iter().zip(targets).zip(&self.config.weights)
        {
            let gradient = if weight == 0.0 {
                match self.config.zero_weight {
                    ZeroWeight::Skip => continue,
                    ZeroWeight::ZeroGradient => logits.clone().inner().zeros_like(),
                }
            } else {
                let result = self.scale(&logits, target, Some(weight * scale));
                let ScaleResult { dice, cross_entropy, gradient } = result;
                value.push(ScaleLoss { weight, dice, cross_entropy });
                gradient.expect("a gradient was asked for")
            };
            let term = stunet_model::with_gradient(logits, gradient);
            surrogate = Some(match surrogate {
                Some(sum) => sum + term,
                None => term,
            });
        }
        (value, surrogate.expect("an output with a weight"))
    }

    /// The loss alone, without gradients: for validation.
    ///
    /// # Shapes
    /// As [`backward`](Self::backward), on any device.
    ///
    /// # Panics
    /// When shapes disagree or a label is neither a class nor ignored.
    pub fn value(&self, outputs: &[Tensor<5>], targets: &[Tensor<4, Int>]) -> LossValue {
        let mut value = LossValue::default();
        for ((logits, target), &weight) in outputs.iter().zip(targets).zip(&self.config.weights) {
            if weight != 0.0 {
                let ScaleResult { dice, cross_entropy, .. } = self.scale(logits, target, None);
                value.push(ScaleLoss { weight, dice, cross_entropy });
            }
        }
        value
    }

    fn scale(
        &self,
        logits: &Tensor<5>,
        target: &Tensor<4, Int>,
        gradient_factor: Option<f64>,
    ) -> ScaleResult {
        let [n, _, z, y, x] = logits.dims();
        assert_eq!(target.dims(), [n, z, y, x], "labels are not of the size of the logits");
        let (logits, target) = (logits.clone().inner(), target.clone().inner());
        let setting = ScaleSetting { config: &self.config, gradient_factor };
        if self.config.regions.is_some() {
            return regions::scale(&setting, logits, target);
        }
        if self.config.terms.top_k().is_some() {
            return top_k::scale(&setting, logits, target);
        }
        let on_host = match self.config.evaluation {
            LossRoute::Automatic => is_host(&logits.device()) && logits.dtype() != DType::F64,
            LossRoute::Host => true,
            LossRoute::Device => false,
        };
        if on_host {
            host::scale(&setting, logits, target)
        } else {
            device::scale(&setting, logits, target)
        }
    }
}

/// Beside the logits themselves: their softmax, which becomes the gradient, and, where the library has no
/// operators of its own, its delivery.
const LOGIT_COPIES: f64 = 2.0;

impl Objective for Loss {
    fn describe(&self) -> String {
        self.config.describe()
    }

    /// For sums of this loss and terms of one's own: its gradient is that of
    /// [`Loss::backward`].
    fn loss(&self, logits: &[Tensor<5>], targets: &[Tensor<4, Int>]) -> Tensor<1> {
        let (value, surrogate) = Self::surrogate(self, logits.to_vec(), targets, 1.0);
        // Its number is replaced, its gradient stays.
        surrogate.clone() - surrogate.detach() + value.total
    }

    fn value(&self, logits: &[Tensor<5>], targets: &[Tensor<4, Int>]) -> f64 {
        Self::value(self, logits, targets).total
    }

    fn surrogate(
        &self,
        logits: Vec<Tensor<5>>,
        targets: &[Tensor<4, Int>],
        scale: f64,
    ) -> (f64, Tensor<1>) {
        let (value, surrogate) = Self::surrogate(self, logits, targets, scale);
        (value.total, surrogate)
    }

    fn regions(&self) -> Option<Vec<Vec<i32>>> {
        self.config.regions.clone()
    }

    fn ignore_label(&self) -> Option<i32> {
        self.config.ignore_label
    }

    fn copies_of_logits(&self) -> f64 {
        // The gradient of the largest terms is made beside that of the Dice.
        LOGIT_COPIES + if self.config.terms.top_k().is_some() { 1.0 } else { 0.0 }
    }

    fn check(&self) -> Result<()> {
        Ok(self.config.validate()?)
    }
}

#[cfg(test)]
mod tests;
