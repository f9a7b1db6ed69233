//! Which nnU-Net a model follows, and in what its versions differ: one table.
//!
//! Code asks for a property of the [`Conventions`], never for a version, so that every difference has a
//! name and stands here.

mod properties;

pub use properties::{
    ArchitectureFormat, AugmentationConventions, AverageOf, BlurKernel, DeviationGuard,
    DiceDenominator, FileFormat, ForegroundSampling, GammaGuard, ImportanceScaling, MirrorOrder,
    Percentiles, PlanningConventions, PredictionConventions, PreprocessingConventions,
    PreprocessingOrder, ProbabilityExtent, RestoreAxis, RotationOrder, TrainingConventions,
};

use crate::preprocess::resample::{LabelRule, Order};
use serde::{Deserialize, Serialize};

/// Which implementation's arithmetic is reproduced.
///
/// The three disagree in the order of preprocessing, in what is averaged over windows and in the
/// precision of the accumulators, so a model is tied to the one it was trained with.
///
/// ```
/// use stunet_data::reference::{AverageOf, Reference};
/// let conventions = Reference::NnUNetV1.conventions();
/// assert_eq!(conventions.prediction.averages, AverageOf::Probabilities);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reference {
    /// nnU-Net 1.7: the published STU-Net models.
    #[serde(rename = "nnunet-1.7")]
    NnUNetV1,
    /// nnU-Net 2.2, the second code base of STU-Net.
    #[serde(rename = "nnunet-2.2")]
    NnUNetV22,
    /// nnU-Net 2.8.
    #[serde(rename = "nnunet-2.8")]
    NnUNetV28,
}

impl Reference {
    /// What this version does where the versions differ.
    pub fn conventions(self) -> &'static Conventions {
        match self {
            Self::NnUNetV1 => &V1,
            Self::NnUNetV22 => &V22,
            Self::NnUNetV28 => &V28,
        }
    }
}

/// Precision in which window predictions are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accumulation {
    /// Single precision: the better choice, and the default of our own models.
    F32,
    /// Half precision, rounded after every window as nnU-Net 2 does: for equal voxels.
    F16,
}

/// What a version of nnU-Net does where the versions differ.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Conventions {
    /// Layout of plans, `dataset.json`, folds and fingerprint.
    pub files: FileFormat,
    /// Fingerprint and plans.
    pub planning: PlanningConventions,
    /// Images to network input, and labels back.
    pub preprocessing: PreprocessingConventions,
    /// Windows, their average, and what is stored of it.
    pub prediction: PredictionConventions,
    /// Patches, loss and initial weights.
    pub training: TrainingConventions,
}

const V1: Conventions = Conventions {
    files: FileFormat::V1,
    planning: PlanningConventions {
        foreground: ForegroundSampling::StrideOfCt,
        percentiles: Percentiles::DoubleWithMedian,
        empty_case_makes_double: false,
        // The rest belongs to version 2's planner.
        ..V22.planning
    },
    preprocessing: PreprocessingConventions {
        order: PreprocessingOrder::ResampleFirst,
        deviation: DeviationGuard::AddedForVolumes,
        zero_outside_mask: true,
        label_rule: LabelRule::LastAboveHalf,
        restore_axis: RestoreAxis::FileFirst,
        labels_restored_in_file_order: true,
    },
    prediction: PredictionConventions {
        importance: ImportanceScaling::PeakOfOne,
        weights_single_window: false,
        mirrors: MirrorOrder::LastAxisFirst,
        averages: AverageOf::Probabilities,
        accumulation: Accumulation::F32,
        sums_in_half_precision: false,
        probabilities: ProbabilityExtent::Crop,
    },
    training: TrainingConventions {
        augmentation: &AUGMENTATION_V1,
        dice: DiceDenominator::Added,
        unweighted_heads_decay: false,
        num_val_iterations: 1,
        he_initialisation: true,
        transfer_without_upsampling: true,
    },
};

const V22: Conventions = Conventions {
    files: FileFormat::V2,
    planning: PlanningConventions {
        foreground: ForegroundSampling::Draws,
        percentiles: Percentiles::SingleWithMedian,
        empty_case_makes_double: true,
        smallest_batch_fits: false,
        low_resolution_gain: 0.0,
        channel_names_in_any_case: false,
        architecture: ArchitectureFormat::Flat,
    },
    preprocessing: PreprocessingConventions {
        order: PreprocessingOrder::NormalizeFirst,
        deviation: DeviationGuard::Bounded,
        zero_outside_mask: false,
        label_rule: LabelRule::LargestShare,
        restore_axis: RestoreAxis::PlansFirstNotTransposed,
        labels_restored_in_file_order: false,
    },
    prediction: PredictionConventions {
        importance: ImportanceScaling::RoundedThenThousand,
        weights_single_window: true,
        mirrors: MirrorOrder::FewestFirst,
        averages: AverageOf::Logits,
        accumulation: Accumulation::F16,
        sums_in_half_precision: true,
        probabilities: ProbabilityExtent::Image,
    },
    training: TrainingConventions {
        // 2.2 still augments with batchgenerators.
        augmentation: &AUGMENTATION_V1,
        dice: DiceDenominator::Bounded,
        unweighted_heads_decay: true,
        num_val_iterations: 50,
        he_initialisation: false,
        transfer_without_upsampling: false,
    },
};

const V28: Conventions = Conventions {
    files: FileFormat::V2,
    planning: PlanningConventions {
        percentiles: Percentiles::Double,
        smallest_batch_fits: true,
        low_resolution_gain: 2.0,
        channel_names_in_any_case: true,
        architecture: ArchitectureFormat::Nested,
        ..V22.planning
    },
    preprocessing: PreprocessingConventions {
        restore_axis: RestoreAxis::PlansFirst,
        ..V22.preprocessing
    },
    prediction: PredictionConventions {
        importance: ImportanceScaling::TenThenRounded,
        ..V22.prediction
    },
    training: TrainingConventions {
        augmentation: &AUGMENTATION_V2,
        unweighted_heads_decay: false,
        ..V22.training
    },
};

static AUGMENTATION_V1: AugmentationConventions = AugmentationConventions {
    id: "V1",
    name: "nnU-Net 1",
    order: Order::Cubic,
    balanced_scale: true,
    rotation: RotationOrder::RowVectors,
    label_rule: LabelRule::LastAboveHalf,
    blur: BlurKernel::SciPy,
    one_sigma: true,
    balanced_brightness: false,
    gamma: GammaGuard::Added,
};

static AUGMENTATION_V2: AugmentationConventions = AugmentationConventions {
    id: "V2",
    name: "nnU-Net 2",
    order: Order::Linear,
    balanced_scale: false,
    rotation: RotationOrder::ColumnVectors,
    label_rule: LabelRule::LargestShare,
    blur: BlurKernel::Odd,
    one_sigma: false,
    balanced_brightness: true,
    gamma: GammaGuard::Bounded,
};
