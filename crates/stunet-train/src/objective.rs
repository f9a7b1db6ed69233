//! What training minimises: the built-in losses and those of one's own, through one trait.

use crate::error::{Result, TrainError};
use burn::tensor::{DType, Gradients, Int, Tensor};
use std::fmt;

/// A loss as [`fit`](crate::fit()) minimises it.
///
/// A loss of one's own implements [`describe`](Self::describe) and [`loss`](Self::loss), the latter
/// with Burn's tensor operations; autodiff does the rest. Everything that `fit` does works with it:
/// checkpoints and resuming, the moving average of the weights, mixed precision, accumulated batches,
/// recomputed activations and several devices.
///
/// ```
/// use burn::tensor::{Int, Tensor, activation::log_softmax};
/// use stunet_train::objective::Objective;
///
/// /// Cross-entropy of the finest output alone.
/// #[derive(Debug)]
/// struct CrossEntropy;
///
/// impl Objective for CrossEntropy {
///     fn describe(&self) -> String {
///         "cross-entropy of the finest output".to_owned()
///     }
///
///     fn loss(&self, logits: &[Tensor<5>], targets: &[Tensor<4, Int>]) -> Tensor<1> {
///         let labels: Tensor<5, Int> = targets[0].clone().unsqueeze_dim(1);
///         -log_softmax(logits[0].clone(), 1).gather(1, labels).mean()
///     }
/// }
/// ```
pub trait Objective: fmt::Debug + Send + Sync {
    /// Name and settings in one line. The text is kept in checkpoints, and a run is continued only
    /// with an objective of the same description: name every setting that changes the loss.
    fn describe(&self) -> String;

    /// The loss of a batch, differentiable with respect to the logits.
    ///
    /// In half precision the logits are cast to single precision before they are passed, so that sums
    /// over many voxels do not overflow. Heads that the loss does not use get no gradient, and the
    /// optimiser leaves them as they are.
    ///
    /// # Shapes
    /// `logits` are `[N, C, Z, Y, X]`, one per output of deep supervision, finest first; `targets`
    /// are labels `[N, Z, Y, X]` of the same sizes, on the same device. The loss has one element: the
    /// mean over the batch, so that several devices with equal shares of a batch compute the same.
    fn loss(&self, logits: &[Tensor<5>], targets: &[Tensor<4, Int>]) -> Tensor<1>;

    /// The number alone, for validation: the logits carry no gradient.
    ///
    /// # Shapes
    /// As [`loss`](Self::loss).
    fn value(&self, logits: &[Tensor<5>], targets: &[Tensor<4, Int>]) -> f64 {
        number(self.loss(&in_single_precision(logits), targets))
    }

    /// For gradients written by hand: the number, and a tensor whose `backward` delivers the
    /// gradients of the loss times `scale`. What that tensor itself holds does not matter.
    ///
    /// By default [`loss`](Self::loss) under autodiff. [`Loss`](crate::loss::Loss) overrides it, as
    /// autodiff would keep several copies of the logits.
    ///
    /// # Shapes
    /// As [`loss`](Self::loss), in the precision of the network.
    fn surrogate(
        &self,
        logits: Vec<Tensor<5>>,
        targets: &[Tensor<4, Int>],
        scale: f64,
    ) -> (f64, Tensor<1>) {
        let loss = self.loss(&in_single_precision(&logits), targets);
        (number(loss.clone()), loss * scale)
    }

    /// The regions, each a set of labels, where the network has a sigmoid per region instead of a
    /// softmax over classes: decides how the pseudo-Dice of the validation is counted.
    fn regions(&self) -> Option<Vec<Vec<i32>>> {
        None
    }

    /// The label that is left out of the loss, and of the pseudo-Dice.
    fn ignore_label(&self) -> Option<i32> {
        None
    }

    /// How many tensors of the size of the logits the loss holds beside them, for the estimate of
    /// [`memory::plan`](crate::memory::plan).
    fn copies_of_logits(&self) -> f64 {
        6.0
    }

    /// Checks the settings before a run begins.
    ///
    /// # Errors
    /// When one cannot be used.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// The number of an objective and the gradients, times `scale`, of all that the logits were computed
/// from.
///
/// # Errors
/// When no gradient reaches the logits.
pub(crate) fn backward(
    objective: &dyn Objective,
    logits: Vec<Tensor<5>>,
    targets: &[Tensor<4, Int>],
    scale: f64,
) -> Result<(f64, Gradients)> {
    let (value, surrogate) = objective.surrogate(logits, targets, scale);
    match surrogate.is_tracked() {
        true => Ok((value, surrogate.backward())),
        false => Err(TrainError::NoGradient { objective: objective.describe() }),
    }
}

fn number(loss: Tensor<1>) -> f64 {
    assert_eq!(loss.dims(), [1], "a loss has one element");
    stunet_model::read(loss).iter::<f64>().sum()
}

fn in_single_precision(logits: &[Tensor<5>]) -> Vec<Tensor<5>> {
    let single = |logits: &Tensor<5>| match logits.dtype() {
        DType::F16 | DType::BF16 => logits.clone().cast(DType::F32),
        _ => logits.clone(),
    };
    logits.iter().map(single).collect()
}

#[cfg(test)]
mod tests;
