//! Which terms a loss adds up: those of nnU-Net's trainers.

use crate::error::LossError;

/// The terms of a loss.
///
/// # Source
/// nnU-Net 2.8.1: `nnUNetTrainer`, and the variants of `training/nnUNetTrainer/variants/loss`, whose
/// names stand at the entries. `nnUNetTrainerDiceCELoss_noSmooth` is the default with
/// [`LossConfig::smooth`](super::LossConfig::smooth) 0.
///
/// # Deviations
/// Where every voxel is ignored, `CrossEntropy` is 0 / 0 in the reference and 0 here. With an ignored
/// label, the reference's `nnUNetTrainerDiceLoss` stops at its first step, as it looks for a class of that
/// number; here the voxels take no part, as in the sum of both. Of a scale with fewer voxels than
/// make one by `percent`, the reference takes the mean of none; here the largest is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum LossTerms {
    /// Dice and the mean cross-entropy: `nnUNetTrainer`.
    #[default]
    DiceAndCrossEntropy,
    /// Dice alone: `nnUNetTrainerDiceLoss`.
    Dice,
    /// The mean cross-entropy alone: `nnUNetTrainerCELoss`. Not for regions.
    CrossEntropy,
    /// The mean of the largest cross-entropies: `nnUNetTrainerTopk10Loss` with 10 percent, and
    /// `nnUNetTrainerTopk10LossLS01` with a label smoothing of 0.1 as well. Not for regions.
    TopK {
        /// Share of the batch's voxels, ignored ones among them, which count as 0.
        percent: f64,
        /// Share of the target that is spread evenly over all classes.
        label_smoothing: f64,
    },
    /// Dice and the mean of the largest cross-entropies: `nnUNetTrainerDiceTopK10Loss` with 10 percent.
    /// Not for regions.
    DiceAndTopK {
        /// As in [`TopK`](Self::TopK).
        percent: f64,
    },
}

impl LossTerms {
    /// For the middle of a sentence that says of which nnU-Net.
    pub(super) fn describe(self) -> String {
        match self {
            Self::DiceAndCrossEntropy => "Dice and cross-entropy".to_owned(),
            Self::Dice => "Dice".to_owned(),
            Self::CrossEntropy => "Cross-entropy".to_owned(),
            Self::TopK { percent, label_smoothing } => format!(
                "Largest {percent:?} % of the cross-entropies, label smoothing {label_smoothing:?},"
            ),
            Self::DiceAndTopK { percent } => {
                format!("Dice and largest {percent:?} % of the cross-entropies")
            }
        }
    }

    pub(super) fn validate(self) -> Result<(), LossError> {
        let fail = |what, expected, found: f64| {
            Err(LossError::Config { what, expected, found: found.to_string() })
        };
        match self {
            Self::TopK { percent, .. } | Self::DiceAndTopK { percent }
                if !(percent > 0.0 && percent <= 100.0) =>
            {
                fail("percent of the largest terms", "above 0 and at most 100", percent)
            }
            Self::TopK { label_smoothing, .. } if !(0.0..1.0).contains(&label_smoothing) => {
                fail("label smoothing", "0 to below 1", label_smoothing)
            }
            _ => Ok(()),
        }
    }

    /// Whether regions can be learnt with it.
    pub(super) fn has_regions(self) -> bool {
        matches!(self, Self::DiceAndCrossEntropy | Self::Dice)
    }

    pub(super) fn has_dice(self) -> bool {
        matches!(self, Self::DiceAndCrossEntropy | Self::Dice | Self::DiceAndTopK { .. })
    }

    /// Whether the mean over all voxels is a term.
    pub(super) fn has_cross_entropy(self) -> bool {
        matches!(self, Self::DiceAndCrossEntropy | Self::CrossEntropy)
    }

    /// What the cross-entropy of each of `valid` voxels is multiplied by.
    pub(super) fn cross_entropy_weight(self, valid: f64) -> f64 {
        if valid == 0.0 || !self.has_cross_entropy() { 0.0 } else { 1.0 / valid }
    }

    /// Percent and label smoothing, where only the largest terms count.
    pub(super) fn top_k(self) -> Option<(f64, f64)> {
        match self {
            Self::TopK { percent, label_smoothing } => Some((percent, label_smoothing)),
            Self::DiceAndTopK { percent } => Some((percent, 0.0)),
            _ => None,
        }
    }
}
