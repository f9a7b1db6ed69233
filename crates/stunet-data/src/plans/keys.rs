//! Every key that nnU-Net reads from the files a model comes with, and what is done with it here.
//!
//! `docs/nnunet-keys.md` is this table; `tests/nnunet_keys.rs` holds it against nnU-Net's own keys.

use serde_json::Value;
use std::fmt::Write;

/// Keys that `scripts/nnunet-keys` found in nnU-Net 2.8.1: `place key`, a line each.
pub const NNUNET_2_8_1: &str = include_str!("keys/nnunet-2.8.1.txt");

/// The one entry that this program adds to nnU-Net's plans, at their top: how the axes of the training
/// images ran ([`TrainedOrientation`](super::TrainedOrientation)). nnU-Net passes it over, keeps it with
/// the results and stores it in checkpoints.
pub const ORIENTATION: &str = "stunet_orientation";

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// `plans.json` of version 2.
    Plans,
    /// An entry of its `configurations`.
    Configuration,
    /// A configuration's `architecture`.
    Architecture,
    /// Its `arch_kwargs`.
    ArchKwargs,
    /// A configuration's `resampling_fn_*_kwargs`.
    Resampling,
    /// `dataset.json`.
    Dataset,
    /// `checkpoint_*.pth`.
    Checkpoint,
    /// A checkpoint's `init_args`.
    InitArgs,
    /// A checkpoint's `logging`.
    Logging,
    /// `plans.pkl`, or `plans` of a `.model.pkl`, of version 1.
    V1Plans,
    /// An entry of its `plans_per_stage`.
    V1Stage,
    /// The top of a `.model.pkl`.
    V1Model,
}

impl KeyPlace {
    /// All places.
    pub const ALL: [Self; 12] = [
        Self::Plans,
        Self::Configuration,
        Self::Architecture,
        Self::ArchKwargs,
        Self::Resampling,
        Self::Dataset,
        Self::Checkpoint,
        Self::InitArgs,
        Self::Logging,
        Self::V1Plans,
        Self::V1Stage,
        Self::V1Model,
    ];

    /// Its name in [`NNUNET_2_8_1`] and in the page.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plans => "plans",
            Self::Configuration => "configuration",
            Self::Architecture => "architecture",
            Self::ArchKwargs => "arch_kwargs",
            Self::Resampling => "resampling",
            Self::Dataset => "dataset.json",
            Self::Checkpoint => "checkpoint",
            Self::InitArgs => "init_args",
            Self::Logging => "logging",
            Self::V1Plans => "plans of 1.7",
            Self::V1Stage => "stage of 1.7",
            Self::V1Model => ".model.pkl of 1.7",
        }
    }
}

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It has its effect.
    Followed,
    /// Values whose effect is not reproduced are refused by name.
    Checked,
    /// It changes nothing for a model of this program.
    Nothing,
    /// We write it for nnU-Net and do not read it.
    Written,
}

impl Treatment {
    fn word(self) -> &'static str {
        match self {
            Self::Followed => "followed",
            Self::Checked => "checked",
            Self::Nothing => "changes nothing",
            Self::Written => "written",
        }
    }
}

/// A key, and what is done with it.
pub struct Key {
    /// Where it stands.
    pub place: KeyPlace,
    /// The key.
    pub name: &'static str,
    /// What is done.
    pub treatment: Treatment,
    /// How, or why nothing.
    pub how: &'static str,
}

use KeyPlace as P;
use Treatment::{Checked, Followed, Nothing, Written};

const fn key(place: KeyPlace, name: &'static str, treatment: Treatment, how: &'static str) -> Key {
    Key { place, name, treatment, how }
}

const OWN_NETWORK: &str = "STU-Net's trainers build their own network; its widths, depths and \
                           kernels are those of the weights";
const NAMES: &str = "names a folder or a file";
const AFTER_PLANNING: &str = "a record of the planning, read by nobody afterwards";
const RESUMED: &str =
    "where nnU-Net's training goes on; `stunet export` writes it, `train --continue` reads it";

/// The table.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key(P::Plans, "configurations", Followed, "the checkpoint says which one"),
    key(P::Plans, "continue_training", Nothing, "nnU-Net puts it there while it runs"),
    key(P::Plans, "dataset_name", Nothing, NAMES),
    key(P::Plans, "experiment_planner_used", Nothing, AFTER_PLANNING),
    key(P::Plans, "foreground_intensity_properties_by_modality", Followed, "as the next, where that is missing"),
    key(P::Plans, "foreground_intensity_properties_per_channel", Followed, "statistics of CT normalisation; others are not read"),
    key(P::Plans, "image_reader_writer", Followed, "SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient; others are refused"),
    key(P::Plans, "label_manager", Checked, "LabelManager or none"),
    key(P::Plans, "original_median_shape_after_transp", Nothing, AFTER_PLANNING),
    key(P::Plans, "original_median_spacing_after_transp", Nothing, AFTER_PLANNING),
    key(P::Plans, "plans_name", Nothing, NAMES),
    key(P::Plans, "transpose_backward", Checked, "the inverse of transpose_forward"),
    key(P::Plans, "transpose_forward", Followed, "any order of the axes"),
    key(P::Configuration, "UNet_base_num_features", Nothing, OWN_NETWORK),
    key(P::Configuration, "UNet_class_name", Nothing, OWN_NETWORK),
    key(P::Configuration, "architecture", Followed, "its strides; tells 2.8 from 2.2"),
    key(P::Configuration, "batch_dice", Followed, "by training"),
    key(P::Configuration, "batch_size", Followed, "by training"),
    key(P::Configuration, "conv_kernel_sizes", Nothing, OWN_NETWORK),
    key(P::Configuration, "data_identifier", Nothing, NAMES),
    key(P::Configuration, "inherits_from", Followed, "through any number of generations; a circle is refused"),
    key(P::Configuration, "median_image_size_in_voxels", Nothing, AFTER_PLANNING),
    key(P::Configuration, "n_conv_per_stage_decoder", Nothing, OWN_NETWORK),
    key(P::Configuration, "n_conv_per_stage_encoder", Nothing, OWN_NETWORK),
    key(P::Configuration, "next_stage", Nothing, "has nnU-Net prepare the input of a cascade after training, which is not done here"),
    key(P::Configuration, "normalization_schemes", Followed, "nnU-Net's five; others are refused"),
    key(P::Configuration, "num_pool_per_axis", Nothing, "follows from the strides"),
    key(P::Configuration, "patch_size", Followed, "window and patch"),
    key(P::Configuration, "pool_op_kernel_sizes", Followed, "cut or filled to five, as STU-Net does, which is said"),
    key(P::Configuration, "preprocessor_name", Checked, "DefaultPreprocessor or none"),
    key(P::Configuration, "previous_stage", Checked, "none: cascades are refused"),
    key(P::Configuration, "resampling_fn_data", Followed, "resample_data_or_seg_to_shape or resample_torch_fornnunet, the same for data, labels and probabilities; others are refused"),
    key(P::Configuration, "resampling_fn_data_kwargs", Followed, "see resampling"),
    key(P::Configuration, "resampling_fn_probabilities", Followed, "resample_data_or_seg_to_shape or resample_torch_fornnunet, the same for data, labels and probabilities; others are refused"),
    key(P::Configuration, "resampling_fn_probabilities_kwargs", Followed, "see resampling"),
    key(P::Configuration, "resampling_fn_seg", Followed, "resample_data_or_seg_to_shape or resample_torch_fornnunet, the same for data, labels and probabilities; others are refused"),
    key(P::Configuration, "resampling_fn_seg_kwargs", Followed, "see resampling"),
    key(P::Configuration, "spacing", Followed, "of the network's volume"),
    key(P::Configuration, "unet_max_num_features", Nothing, OWN_NETWORK),
    key(P::Configuration, "use_mask_for_norm", Followed, "statistics of the nonzero region"),
    key(P::Architecture, "_kw_requires_import", Nothing, OWN_NETWORK),
    key(P::Architecture, "arch_kwargs", Followed, "its strides"),
    key(P::Architecture, "network_class_name", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "conv_bias", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "conv_op", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "dropout_op", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "dropout_op_kwargs", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "features_per_stage", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "kernel_sizes", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "n_blocks_per_stage", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "n_conv_per_stage", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "n_conv_per_stage_decoder", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "n_stages", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "nonlin", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "nonlin_kwargs", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "norm_op", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "norm_op_kwargs", Nothing, OWN_NETWORK),
    key(P::ArchKwargs, "strides", Followed, "cut or filled to five, as STU-Net does, which is said"),
    key(P::Resampling, "aniso_axis_mode", Checked, "nearest-exact, of resample_torch_fornnunet"),
    key(P::Resampling, "device", Nothing, "--device chooses; images and labels are resampled on the processor"),
    key(P::Resampling, "force_separate_z", Followed, "the same for data, labels and probabilities; false where the others are given without it, as in nnU-Net (null for resample_torch_fornnunet)"),
    key(P::Resampling, "is_seg", Checked, "true for labels, where it may be left out, else false"),
    key(P::Resampling, "memefficient_seg_resampling", Checked, "false, of resample_torch_fornnunet"),
    key(P::Resampling, "mode", Checked, "linear, of resample_torch_fornnunet"),
    key(P::Resampling, "num_threads", Nothing, "all processors work"),
    key(P::Resampling, "order", Checked, "3 for data, 1 for labels and probabilities"),
    key(P::Resampling, "order_z", Checked, "0"),
    key(P::Resampling, "separate_z_anisotropy_threshold", Checked, "3"),
    key(P::Dataset, "channel_names", Followed, "names and number of channels"),
    key(P::Dataset, "dataset", Followed, "where the files of a training case are"),
    key(P::Dataset, "file_ending", Followed, "of training sets: NIfTI, MetaImage or NRRD; any file of these is predicted"),
    key(P::Dataset, "labels", Followed, "labels, regions, the ignore label"),
    key(P::Dataset, "modality", Followed, "version 1's word for channel_names"),
    key(P::Dataset, "numTraining", Checked, "the number of cases there are"),
    key(P::Dataset, "overwrite_image_reader_writer", Followed, "by planning, which writes it into the plans; readers that are not known are refused, where nnU-Net looks for another one"),
    key(P::Dataset, "regions_class_order", Followed, "in which order regions are painted"),
    key(P::Checkpoint, "_best_ema", Written, RESUMED),
    key(P::Checkpoint, "current_epoch", Followed, "told by `stunet info`"),
    key(P::Checkpoint, "grad_scaler_state", Written, "none; nnU-Net begins a new one"),
    key(P::Checkpoint, "inference_allowed_mirroring_axes", Followed, "none means no mirroring"),
    key(P::Checkpoint, "init_args", Followed, "its configuration, and its dataset where dataset.json is missing"),
    key(P::Checkpoint, "logging", Written, RESUMED),
    key(P::Checkpoint, "network_weights", Followed, "their names and shapes must be STU-Net's"),
    key(P::Checkpoint, "optimizer_state", Written, RESUMED),
    key(P::Checkpoint, "trainer_name", Nothing, "told by `stunet info`; the network is known by its weights"),
    key(P::InitArgs, "configuration", Followed, "which configuration of the plans"),
    key(P::InitArgs, "dataset_json", Followed, "where dataset.json is missing"),
    key(P::InitArgs, "device", Nothing, "`--device` chooses"),
    key(P::InitArgs, "fold", Nothing, "the folder's name counts, as in nnU-Net"),
    key(P::InitArgs, "plans", Nothing, "plans.json counts, as in nnU-Net"),
    key(P::Logging, "dice_per_class_or_region", Written, RESUMED),
    key(P::Logging, "ema_fg_dice", Written, RESUMED),
    key(P::Logging, "epoch_end_timestamps", Written, RESUMED),
    key(P::Logging, "epoch_start_timestamps", Written, RESUMED),
    key(P::Logging, "lrs", Written, RESUMED),
    key(P::Logging, "mean_fg_dice", Written, RESUMED),
    key(P::Logging, "train_losses", Written, RESUMED),
    key(P::Logging, "val_losses", Written, RESUMED),
    key(P::V1Plans, "all_classes", Nothing, "follows from num_classes"),
    key(P::V1Plans, "base_num_features", Nothing, OWN_NETWORK),
    key(P::V1Plans, "conv_per_stage", Nothing, OWN_NETWORK),
    key(P::V1Plans, "data_identifier", Nothing, NAMES),
    key(P::V1Plans, "dataset_properties", Followed, "its intensityproperties"),
    key(P::V1Plans, "keep_only_largest_region", Nothing, AFTER_PLANNING),
    key(P::V1Plans, "list_of_npz_files", Nothing, AFTER_PLANNING),
    key(P::V1Plans, "min_region_size_per_class", Nothing, AFTER_PLANNING),
    key(P::V1Plans, "min_size_per_class", Nothing, AFTER_PLANNING),
    key(P::V1Plans, "modalities", Followed, "names of the channels"),
    key(P::V1Plans, "normalization_schemes", Followed, "CT, CT2, noNorm; all others are nonCT, as in nnU-Net"),
    key(P::V1Plans, "num_classes", Followed, "without background"),
    key(P::V1Plans, "num_modalities", Followed, "number of channels"),
    key(P::V1Plans, "num_stages", Nothing, "follows from plans_per_stage"),
    key(P::V1Plans, "original_sizes", Nothing, AFTER_PLANNING),
    key(P::V1Plans, "original_spacings", Nothing, AFTER_PLANNING),
    key(P::V1Plans, "plans_per_stage", Followed, "the stage the trainer was started with, else the last"),
    key(P::V1Plans, "preprocessed_data_folder", Nothing, NAMES),
    key(P::V1Plans, "preprocessor_name", Checked, "GenericPreprocessor or none"),
    key(P::V1Plans, "transpose_backward", Checked, "the inverse of transpose_forward"),
    key(P::V1Plans, "transpose_forward", Followed, "any order of the axes"),
    key(P::V1Plans, "use_mask_for_norm", Followed, "statistics of the nonzero region"),
    key(P::V1Stage, "batch_size", Followed, "by training"),
    key(P::V1Stage, "conv_kernel_sizes", Nothing, OWN_NETWORK),
    key(P::V1Stage, "current_spacing", Followed, "of the network's volume"),
    key(P::V1Stage, "do_dummy_2D_data_aug", Nothing, "follows from the patch"),
    key(P::V1Stage, "median_patient_size_in_voxels", Nothing, AFTER_PLANNING),
    key(P::V1Stage, "num_pool_per_axis", Nothing, "follows from the strides"),
    key(P::V1Stage, "original_spacing", Nothing, AFTER_PLANNING),
    key(P::V1Stage, "patch_size", Followed, "window and patch"),
    key(P::V1Stage, "pool_op_kernel_sizes", Followed, "cut or filled to five, as STU-Net does, which is said"),
    key(P::V1Model, "init", Followed, "its stage, and whether Dice is over the batch"),
    key(P::V1Model, "name", Nothing, "told by `stunet info`; the network is known by its weights"),
    key(P::V1Model, "plans", Followed, "as plans.pkl"),
];

/// The key of a place, if it is in the table.
pub fn find(place: KeyPlace, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.place == place && key.name == name)
}

/// A sentence about keys of an object that nobody knows, if it has any: nnU-Net passes them over.
pub(super) fn unknown(place: KeyPlace, object: &Value) -> Option<String> {
    const NAMED: usize = 8;
    let names = object.as_object()?.keys();
    let own = |name: &str| name == ORIENTATION && matches!(place, P::Plans | P::V1Plans);
    let unknown: Vec<_> = names.filter(|name| find(place, name).is_none() && !own(name)).collect();
    let named: Vec<_> = unknown.iter().take(NAMED).map(|name| format!("{name:.40}")).collect();
    let more = match unknown.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let place = place.name();
    let named = named.join(", ");
    (!unknown.is_empty()).then(|| {
        format!("keys of the {place} that neither nnU-Net nor this program acts on: {named}{more}")
    })
}

/// The table as a page.
pub fn markdown() -> String {
    let mut page = String::from(
        "# nnU-Net's keys, and what is done with them\n\n\
         Every key that nnU-Net 2.8.1 reads from plans, `dataset.json` and checkpoints, as \
         `scripts/nnunet-keys`\nfinds them in its source, and those of nnU-Net 1.7's plan files. A \
         key in the first two is *followed*, *checked*\n(what has another effect is refused by name), or \
         *changes nothing*; *written* are those that only nnU-Net's training\nreads. Keys that are \
         not listed have no effect in nnU-Net; in plans they are mentioned in a note, in\n\
         `dataset.json` they are anybody's remarks.\n\n\
         One entry at the top of plans is ours: `stunet plan` writes `stunet_orientation`, how the axes \
         of the training\nimages ran, such as `\"RAS\"`, and `predict` follows it. nnU-Net passes it over.\n\n\
         This page is `crates/stunet-data/src/plans/keys.rs`; `tests/nnunet_keys.rs` keeps both and \
         says how to\nwrite it anew.\n",
    );
    for place in KeyPlace::ALL {
        let _ = write!(page, "\n## {}\n\n| key | | how, or why |\n|---|---|---|\n", place.name());
        for key in KEYS.iter().filter(|key| key.place == place) {
            let _ = writeln!(page, "| `{}` | {} | {} |", key.name, key.treatment.word(), key.how);
        }
    }
    page
}
