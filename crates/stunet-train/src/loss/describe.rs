//! The settings of a loss in one line, as checkpoints keep them.

use super::{DiceDenominator, LossConfig, ZeroWeight};

impl LossConfig {
    /// Everything that decides the number and the gradients; where it is computed does not. The text
    /// is compared when a run goes on, and so must not change.
    pub(super) fn describe(&self) -> String {
        let Self {
            terms,
            denominator,
            batch_dice,
            ignore_label,
            regions,
            weights,
            zero_weight,
            smooth,
            evaluation: _,
        } = self;
        let version = match denominator {
            DiceDenominator::Added => 1,
            DiceDenominator::Bounded => 2,
        };
        let dice = if *batch_dice { "of the batch" } else { "of each sample" };
        let heads = match zero_weight {
            ZeroWeight::Skip => "left out",
            ZeroWeight::ZeroGradient => "with gradient 0",
        };
        let mut text = format!(
            "{} of nnU-Net {version}, Dice {dice}, smooth {smooth:?}, scales {weights:?}, scales of \
             weight 0 {heads}",
            terms.describe()
        );
        if let Some(label) = ignore_label {
            text += &format!(", ignoring label {label}");
        }
        if let Some(regions) = regions {
            text += &format!(", regions {regions:?}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::LossTerms;

    /// Old checkpoints hold these texts.
    #[test]
    fn the_texts_stay_what_they_are() {
        assert_eq!(
            LossConfig { weights: vec![1.0, 0.5], ..LossConfig::v1(false) }.describe(),
            "Dice and cross-entropy of nnU-Net 1, Dice of each sample, smooth 1e-5, scales [1.0, 0.5], \
             scales of weight 0 left out"
        );
        let regions = LossConfig {
            weights: vec![1.0],
            ignore_label: Some(7),
            regions: Some(vec![vec![1, 2], vec![2]]),
            ..LossConfig::v2(true)
        };
        let top = LossTerms::TopK { percent: 10.0, label_smoothing: 0.1 };
        let top = LossConfig { weights: vec![1.0], terms: top, ..LossConfig::v1(true) }.describe();
        assert!(top.starts_with(
            "Largest 10.0 % of the cross-entropies, label smoothing 0.1, of nnU-Net 1, "
        ));
        assert_eq!(
            regions.describe(),
            "Dice and cross-entropy of nnU-Net 2, Dice of the batch, smooth 1e-5, scales [1.0], scales \
             of weight 0 with gradient 0, ignoring label 7, regions [[1, 2], [2]]"
        );
    }
}
