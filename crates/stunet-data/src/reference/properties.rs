//! The properties in which the versions of nnU-Net differ.

use super::Accumulation;
use crate::preprocess::resample::{LabelRule, Order};
use std::fmt;

/// Layout of plans, `dataset.json`, folds and fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Pickles, `plans_per_stage`, `modality`; one reader for all datasets.
    V1,
    /// JSON, `configurations`, `channel_names`; plans name the reader.
    V2,
}

/// How datasets are measured and planned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanningConventions {
    /// Which voxels of the foreground are measured.
    pub foreground: ForegroundSampling,
    /// How percentiles and the median are computed.
    pub percentiles: Percentiles,
    /// A case without foreground makes NumPy's array, and so all statistics, double precision.
    pub empty_case_makes_double: bool,
    /// The memory estimate has to fit for the smallest batch, not for the one that the budget was
    /// measured with.
    pub smallest_batch_fits: bool,
    /// How many times fewer voxels a low resolution must have to be worth it.
    pub low_resolution_gain: f64,
    /// Channel names such as `ct` are known in any case.
    pub channel_names_in_any_case: bool,
    /// How plans describe the network.
    pub architecture: ArchitectureFormat,
}

/// Which voxels of the foreground are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForegroundSampling {
    /// Every tenth of a CT, none of anything else.
    StrideOfCt,
    /// Random draws, with replacement.
    Draws,
}

/// How percentiles between two values are interpolated, and what the median is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percentiles {
    /// In double precision; the median is the mean of the middle values (NumPy 1.21).
    DoubleWithMedian,
    /// In the values' precision; the median is the mean of the middle values (NumPy 2, one
    /// percentile at a time).
    SingleWithMedian,
    /// In double precision, the median as well (NumPy 2, several percentiles at once).
    Double,
}

/// How plans of version 2 describe the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchitectureFormat {
    /// Entries of the configuration, such as `pool_op_kernel_sizes`.
    Flat,
    /// An object `architecture` of its own.
    Nested,
}

/// How images become network input, and labels come back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PreprocessingConventions {
    /// Whether intensities are normalised before or after resampling.
    pub order: PreprocessingOrder,
    /// How a standard deviation of 0 is kept out of a division.
    pub deviation: DeviationGuard,
    /// Where statistics are those of the nonzero region, voxels outside of it become 0; else they
    /// stay as they are.
    pub zero_outside_mask: bool,
    /// Which label a resampled voxel gets.
    pub label_rule: LabelRule,
    /// Which spacing decides what axis is resampled apart on the way out.
    pub restore_axis: RestoreAxis,
    /// Labels are resampled after the axes are turned back; sums in raster order depend on it.
    pub labels_restored_in_file_order: bool,
}

/// Whether intensities are normalised before or after resampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreprocessingOrder {
    /// Resampled, then normalised; NaN counts as 0.
    ResampleFirst,
    /// Normalised, then resampled.
    NormalizeFirst,
}

/// How a standard deviation of 0 is kept out of a division.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviationGuard {
    /// 1e-8 is added to the deviation of a volume under z-score; that of the CT schemes is taken as it
    /// is.
    AddedForVolumes,
    /// Every deviation is at least 1e-8.
    Bounded,
}

/// Which spacing decides what axis is resampled apart on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreAxis {
    /// The file's, then the plans', which is transposed; the axis found for either is one of the file.
    FileFirst,
    /// The plans', then the file's without transposing it; the axis found for either is one of the
    /// network.
    PlansFirstNotTransposed,
    /// The plans', then the file's in the network's order.
    PlansFirst,
}

/// How windows are predicted and averaged, and what is stored of the average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PredictionConventions {
    /// Scale and rounding of the importance map.
    pub importance: ImportanceScaling,
    /// A single window that covers the volume is weighted by the importance map as well.
    pub weights_single_window: bool,
    /// In which order mirrored passes are summed.
    pub mirrors: MirrorOrder,
    /// What is averaged over windows.
    pub averages: AverageOf,
    /// Precision of the sums that nnU-Net itself has.
    pub accumulation: Accumulation,
    /// Whether half precision can be asked for.
    pub sums_in_half_precision: bool,
    /// What stored probabilities cover.
    pub probabilities: ProbabilityExtent,
}

/// Scale and rounding of the importance map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportanceScaling {
    /// Divided by its maximum.
    PeakOfOne,
    /// Rounded to the accumulator's precision, then divided by its maximum and scaled by 1000 in that
    /// precision.
    RoundedThenThousand,
    /// Divided by its maximum and scaled by 10, then rounded to the accumulator's precision.
    TenThenRounded,
}

/// In which order mirrored passes are summed: the last digits depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorOrder {
    /// None, x, y, yx, z, zx, zy, zyx.
    LastAxisFirst,
    /// None, z, y, x, zy, zx, yx, zyx.
    FewestFirst,
}

/// What is averaged over windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AverageOf {
    /// The probabilities of every window.
    Probabilities,
    /// The logits, which become probabilities afterwards.
    Logits,
}

/// What stored probabilities cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbabilityExtent {
    /// The nonzero region.
    Crop,
    /// The whole image; outside of the nonzero region is background.
    Image,
}

/// How networks are trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingConventions {
    /// Patches.
    pub augmentation: &'static AugmentationConventions,
    /// How the divisor of a soft Dice stays above 0.
    pub dice: DiceDenominator,
    /// Heads of scales with weight 0 get a gradient of exactly 0, so that weight decay and momentum act
    /// on them; else the optimiser leaves them alone.
    pub unweighted_heads_decay: bool,
    /// Batches of a validation by patches, as STU-Net's trainers have it.
    pub num_val_iterations: usize,
    /// Weights begin as He's, biases as 0; else as PyTorch's defaults.
    pub he_initialisation: bool,
    /// STU-Net's fine-tuning script initialises an upsampling that does not fit; else it refuses the
    /// file.
    pub transfer_without_upsampling: bool,
}

/// How the divisor of a soft Dice stays above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiceDenominator {
    /// `dice = (2 tp + s) / (2 tp + fp + fn + s + 1e-8)`.
    Added,
    /// `dice = (2 overlap + s) / max(labelled + predicted + s, 1e-8)`.
    Bounded,
}

/// How the libraries of augmentation differ: batchgenerators 0.25 and batchgeneratorsv2.
#[derive(Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct AugmentationConventions {
    /// Short name.
    pub id: &'static str,
    /// Name in the description of a recipe.
    pub name: &'static str,
    /// How images are interpolated.
    pub order: Order,
    /// Scales are drawn below and above 1 equally often; else uniformly.
    pub balanced_scale: bool,
    /// How the rotations about the three axes follow each other.
    pub rotation: RotationOrder,
    /// Which label an interpolated voxel gets.
    pub label_rule: LabelRule,
    /// Kernel of a blur.
    pub blur: BlurKernel,
    /// Whether one sigma blurs all axes.
    pub one_sigma: bool,
    /// Factors of brightness are drawn below and above 1 equally often; else uniformly.
    pub balanced_brightness: bool,
    /// How a range or deviation of 0 is kept out of gamma's divisions.
    pub gamma: GammaGuard,
}

/// The short name: a recipe of one's own is told apart by it.
impl fmt::Debug for AugmentationConventions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// How the rotations about the three axes follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationOrder {
    /// About axis 0, then 1, then 2, of row vectors.
    RowVectors,
    /// About axis 0, then 1, then 2, of column vectors.
    ColumnVectors,
}

/// Kernel of a blur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlurKernel {
    /// SciPy's `gaussian_filter`: cut off at 4 sigma, edges repeated (`c b a | a b c`).
    SciPy,
    /// `6 sigma + 0.5` voxels, rounded to an odd number, edges mirrored (`c b | a b c`).
    Odd,
}

/// How a range or deviation of 0 is kept out of gamma's divisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GammaGuard {
    /// 1e-7 is added to the range, which the result keeps, and 1e-8 to the deviation, over n voxels.
    Added,
    /// Divisors are at least 1e-7; deviations are over n - 1 voxels.
    Bounded,
}
