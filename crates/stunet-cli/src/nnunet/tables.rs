//! nnU-Net's commands and their options: of 2.8.1 and of 1.7.1.

use anyhow::{Context, bail};

/// What a word of a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Dataset,
    Configuration,
    Fold,
    Trainer,
    Plans,
    Task,
    First,
    Second,
    Device,
    Gpus,
    Threads,
    /// Finished cases are kept.
    Continue,
    /// No preprocessing.
    PlanOnly,
}

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Becomes {
    /// An option of this program, with the same values.
    Option(&'static str),
    /// A word of this program's, without the values.
    Words(&'static [&'static str]),
    /// Something that decides about the whole line.
    Role(Role),
    /// Nothing, and why.
    Nothing(&'static str),
    /// Nothing, where the value is one of these; else the line is refused, with what to do instead.
    Only(&'static [&'static str], &'static str),
    /// The line is refused, with what to do instead.
    Refused(&'static str),
}

/// How many values an option has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    None,
    One,
    Many,
}

/// An option: its spellings, values, and what becomes of it.
pub type Flag = (&'static [&'static str], Values, Becomes);

/// Which of nnU-Net's commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    PlanAndPreprocess,
    Plan,
    Preprocess,
    Train,
    Predict,
    PredictFolder,
    FindBest,
    Accumulate,
    Export,
    Import,
    Pictures,
    /// Options only: this program's words.
    As(&'static [&'static str]),
    /// What this program has instead.
    Instead(&'static str),
}

/// A command.
#[derive(Debug)]
pub struct Command {
    /// Its name without `nnUNetv2_` or `nnUNet_`.
    pub name: &'static str,
    /// 1 or 2.
    pub version: u8,
    pub which: Which,
    /// Words without an option.
    pub positional: &'static [Role],
    pub flags: &'static [Flag],
}

use Becomes::{Nothing, Only, Option as Same, Refused, Role as Is, Words};
use Values::{Many, None as No, One};

const QUIET: Flag = (
    &["--verbose", "--no_pbar", "--disable_progress_bar"],
    No,
    Nothing("progress is shown on terminals only; --quiet leaves it out"),
);
const OWN_THREADS: &str = "reading, the network and writing run side by side by themselves";
const ALWAYS: &str = "this program always does so";

const PREDICT_2: &[Flag] = &[
    (&["-i"], One, Same("--input")),
    (&["-o"], One, Same("--output")),
    (&["-d"], One, Is(Role::Dataset)),
    (&["-p"], One, Is(Role::Plans)),
    (&["-tr"], One, Is(Role::Trainer)),
    (&["-c"], One, Is(Role::Configuration)),
    (&["-m"], One, Same("--model")),
    (&["-f"], Many, Same("--folds")),
    (&["-step_size"], One, Same("--step-size")),
    (&["--disable_tta"], No, Words(&["--disable-tta"])),
    QUIET,
    (&["--save_probabilities"], No, Words(&["--save-probabilities", "npz"])),
    (&["--continue_prediction", "--c"], No, Is(Role::Continue)),
    (&["-chk"], One, Same("--checkpoint")),
    (&["-npp", "-nps"], One, Nothing(OWN_THREADS)),
    (
        &["-prev_stage_predictions"],
        One,
        Refused("the second stage of a cascade is not predicted; predict 3d_fullres or 3d_lowres"),
    ),
    (&["-num_parts"], One, Same("--num-parts")),
    (&["-part_id"], One, Same("--part-id")),
    (&["-device"], One, Is(Role::Device)),
    (&["--not_on_device"], No, Words(&["--device-memory", "0"])),
];

const PREDICT_1: &[Flag] = &[
    (&["-i", "--input_folder"], One, Same("--input")),
    (&["-o", "--output_folder"], One, Same("--output")),
    (&["-t", "--task_name"], One, Is(Role::Dataset)),
    (&["-tr", "--trainer_class_name"], One, Is(Role::Trainer)),
    (&["-ctr", "--cascade_trainer_class_name"], One, Nothing("there is no cascade here")),
    (&["-m", "--model"], One, Is(Role::Configuration)),
    (&["-p", "--plans_identifier"], One, Is(Role::Plans)),
    (&["-f", "--folds"], Many, Same("--folds")),
    (&["-z", "--save_npz"], No, Words(&["--save-probabilities", "npz"])),
    (
        &["-l", "--lowres_segmentations"],
        One,
        Refused("the second stage of a cascade is not predicted; predict 3d_fullres or 3d_lowres"),
    ),
    (&["--part_id"], One, Same("--part-id")),
    (&["--num_parts"], One, Same("--num-parts")),
    (&["--num_threads_preprocessing", "--num_threads_nifti_save"], One, Nothing(OWN_THREADS)),
    (&["--disable_tta"], No, Words(&["--disable-tta"])),
    (&["--overwrite_existing"], No, Words(&["--overwrite"])),
    (&["--mode"], One, Same("--mode")),
    (
        &["--all_in_gpu"],
        One,
        Nothing("sums of windows stay on a GPU that has room for them; see --device-memory"),
    ),
    (&["--step_size"], One, Same("--step-size")),
    (&["-chk"], One, Same("--checkpoint")),
    (&["--disable_mixed_precision"], No, Nothing("predictions are computed in single precision")),
];

const TRAIN_2: &[Flag] = &[
    (&["-tr"], One, Is(Role::Trainer)),
    (&["-p"], One, Same("--plans")),
    (&["-pretrained_weights"], One, Same("--pretrained")),
    (&["-num_gpus"], One, Is(Role::Gpus)),
    (&["--npz"], No, Words(&["--npz"])),
    (&["--c"], No, Words(&["--continue"])),
    (&["--val"], No, Words(&["--val"])),
    (
        &["--val_best"],
        No,
        Refused("the final weights are validated; predict the fold with --checkpoint for others"),
    ),
    (
        &["--disable_checkpointing"],
        No,
        Nothing("checkpoints are kept; --save-every N makes them rare"),
    ),
    (&["-device"], One, Is(Role::Device)),
];

const TRAIN_1: &[Flag] = &[
    (&["-val", "--validation_only"], No, Words(&["--val"])),
    (&["-c", "--continue_training"], No, Words(&["--continue"])),
    (&["-p"], One, Same("--plans")),
    (&["--use_compressed_data"], No, Nothing("prepared cases are read as they are")),
    (&["--deterministic"], No, Nothing(ALWAYS)),
    (&["--npz"], No, Words(&["--npz"])),
    (&["--find_lr"], No, Refused("there is no search for a learning rate; give one with --lr")),
    (
        &["--valbest"],
        No,
        Refused("the final weights are validated; predict the fold with --checkpoint for others"),
    ),
    (&["--fp32"], No, Words(&["--precision", "f32"])),
    (&["--val_folder"], One, Nothing("the folder is called validation")),
    (&["--disable_saving"], No, Nothing("checkpoints are kept; --save-every N makes them rare")),
    (
        &["--disable_postprocessing_on_folds"],
        No,
        Nothing("postprocessing is determined by `stunet find-best` only"),
    ),
    (&["--disable_validation_inference"], No, Words(&["--no-validation"])),
    (&["--val_disable_overwrite"], No, Nothing("finished predictions are kept, unless with --val")),
    (&["--disable_next_stage_pred"], No, Nothing("there is no cascade here")),
    (&["-pretrained_weights"], One, Same("--pretrained")),
];

const PLANNER: &str = "this program plans as nnU-Net does by default; plan with nnU-Net, and give the folder it made to \
     `stunet preprocess`";
const PLANNERS: &[&str] = &["ExperimentPlanner", "ExperimentPlanner3D_v21", "None"];
const PLAN: &[Flag] = &[
    (&["-d", "-t", "--task_ids"], Many, Is(Role::Dataset)),
    (&["-fpe"], One, Only(&["DatasetFingerprintExtractor"], PLANNER)),
    (&["-npfp", "-tf"], One, Nothing("all processors measure")),
    (&["--verify_dataset_integrity"], No, Nothing(ALWAYS)),
    (&["--no_pp", "-no_pp"], No, Is(Role::PlanOnly)),
    (&["--clean"], No, Nothing("the dataset is always measured anew")),
    (&["-pl", "-pl3d", "--planner3d"], One, Only(PLANNERS, PLANNER)),
    (&["-pl2d", "--planner2d"], One, Nothing("networks for slices are not planned")),
    (&["-gpu_memory_target"], One, Same("--memory")),
    (&["-preprocessor_name"], One, Only(&["DefaultPreprocessor"], PLANNER)),
    (&["-overwrite_target_spacing"], Many, Same("--spacing")),
    (&["-overwrite_plans_name", "-overwrite_plans_identifier"], One, Same("--plans-name")),
    (
        &["-overwrite_plans"],
        One,
        Refused(
            "copy the plans' file to the dataset's preprocessed folder, then `stunet preprocess`",
        ),
    ),
    (&["-c"], Many, Is(Role::Configuration)),
    (&["-np", "-tl"], Many, Is(Role::Threads)),
    QUIET,
];

const PREPROCESS: &[Flag] = &[
    (&["-d"], Many, Is(Role::Dataset)),
    (&["-plans_name"], One, Same("--plans")),
    (&["-c"], Many, Is(Role::Configuration)),
    (&["-np"], Many, Is(Role::Threads)),
    QUIET,
];

const FIND_BEST: &[Flag] = &[
    (&["-p", "-pl"], Many, Same("--plans")),
    (&["-c", "-m", "--models"], Many, Same("--configurations")),
    (&["-tr"], Many, Same("--trainers")),
    (&["-t", "--task_ids"], One, Is(Role::Dataset)),
    (&["-ctr"], One, Nothing("there is no cascade here")),
    (&["-np"], One, Same("--num-threads")),
    (&["-f", "--folds"], Many, Same("--folds")),
    (&["--disable_ensembling"], No, Words(&["--disable-ensembling"])),
    (&["--no_overwrite"], No, Words(&["--no-overwrite"])),
    (&["--disable_postprocessing"], No, Nothing("postprocessing is determined, not applied")),
];

const ACCUMULATE: &[Flag] = &[
    (&["-c"], One, Is(Role::Configuration)),
    (&["-o"], One, Same("--output")),
    (&["-f"], Many, Same("--folds")),
    (&["-p"], One, Is(Role::Plans)),
    (&["-tr"], One, Is(Role::Trainer)),
];

const EXPORT: &[Flag] = &[
    (&["-d"], One, Is(Role::Dataset)),
    (&["-o"], One, Is(Role::Second)),
    (&["-c"], Many, Is(Role::Configuration)),
    (&["-tr"], One, Is(Role::Trainer)),
    (&["-p"], One, Is(Role::Plans)),
    (&["-f"], Many, Same("--folds")),
    (&["-chk"], Many, Only(&["checkpoint_final.pth"], "the final weights are exported")),
    (&["--not_strict"], No, Nothing("one configuration is exported")),
    (
        &["--exp_cv_preds"],
        No,
        Refused("predictions are not exported; leave it out, and zip the folder of predictions"),
    ),
];

const IMPORT: &[Flag] = &[
    (&["-i"], One, Is(Role::First)),
    (&["-overwrite_id"], One, Same("--number")),
    (&["-np"], One, Nothing("all processors work")),
];

const ENSEMBLE_2: &[Flag] = &[
    (&["-i"], Many, Same("--input")),
    (&["-o"], One, Same("--output")),
    (&["-np"], One, Same("--num-threads")),
    (&["--save_npz"], No, Words(&["--save-npz"])),
];

const ENSEMBLE_1: &[Flag] = &[
    (&["-f", "--folders"], Many, Same("--input")),
    (&["-o", "--output_folder"], One, Same("--output")),
    (&["-t", "--threads"], One, Same("--num-threads")),
    (
        &["-pp", "--postprocessing_file"],
        One,
        Refused("two steps here: leave it out, then `stunet postprocess apply --steps FILE`"),
    ),
    (&["--npz"], No, Words(&["--save-npz"])),
];

const EVALUATE_FOLDER_2: &[Flag] = &[
    (&["-djfile"], One, Same("--dataset-json")),
    (&["-pfile"], One, Same("--plans")),
    (&["-o"], One, Same("--output")),
    (&["-np"], One, Same("--num-threads")),
    (&["--chill"], No, Words(&["--chill"])),
];

const EVALUATE_SIMPLE_2: &[Flag] = &[
    (&["-l"], Many, Same("--labels")),
    (&["-il"], One, Same("--ignore-label")),
    (&["-o"], One, Same("--output")),
    (&["-np"], One, Same("--num-threads")),
    (&["--chill"], No, Words(&["--chill"])),
];

const EVALUATE_1: &[Flag] = &[
    (&["-ref"], One, Is(Role::First)),
    (&["-pred"], One, Is(Role::Second)),
    (&["-l"], Many, Same("--labels")),
];

const DETERMINE: &[Flag] = &[
    (&["-i"], One, Same("--input")),
    (&["-ref"], One, Same("--reference")),
    (&["-plans_json"], One, Same("--plans")),
    (&["-dataset_json"], One, Same("--dataset-json")),
    (&["-np"], One, Same("--num-threads")),
    (&["--remove_postprocessed"], No, Words(&["--remove-postprocessed"])),
];

const APPLY: &[Flag] = &[
    (&["-i"], One, Same("--input")),
    (&["-o"], One, Same("--output")),
    (&["-pp_pkl_file"], One, Same("--steps")),
    (&["-np"], One, Same("--num-threads")),
    (&["-plans_json", "-dataset_json"], One, Nothing("it is not needed here")),
];

const RAW_ONLY: &str = "the raw dataset is drawn, as with --use_raw";
const OVERLAYS: &[Flag] = &[
    (&["-d"], One, Is(Role::Dataset)),
    (&["-o"], One, Same("--output")),
    (&["-np"], One, Same("--num-threads")),
    (&["-channel_idx"], One, Same("--channel")),
    (&["--use_raw"], No, Nothing(RAW_ONLY)),
    (&["-p", "-c"], One, Nothing(RAW_ONLY)),
    (&["-overlay_intensity"], One, Nothing("images are drawn with the labels, and without them")),
];

const TRAIN_WORDS: &[Role] = &[Role::Dataset, Role::Configuration, Role::Fold];
const TRAIN_WORDS_1: &[Role] = &[Role::Configuration, Role::Trainer, Role::Task, Role::Fold];
const ONE: &[Role] = &[Role::First];
const TWO: &[Role] = &[Role::First, Role::Second];

const fn command(
    version: u8,
    name: &'static str,
    which: Which,
    positional: &'static [Role],
    flags: &'static [Flag],
) -> Command {
    Command { name, version, which, positional, flags }
}

const fn instead(version: u8, name: &'static str, what: &'static str) -> Command {
    command(version, name, Which::Instead(what), &[], &[])
}

/// Every command.
pub const COMMANDS: &[Command] = &[
    command(2, "plan_and_preprocess", Which::PlanAndPreprocess, &[], PLAN),
    command(2, "extract_fingerprint", Which::Plan, &[], PLAN),
    command(2, "plan_experiment", Which::Plan, &[], PLAN),
    command(2, "preprocess", Which::Preprocess, &[], PREPROCESS),
    command(2, "train", Which::Train, TRAIN_WORDS, TRAIN_2),
    command(2, "predict", Which::Predict, &[], PREDICT_2),
    command(2, "predict_from_modelfolder", Which::PredictFolder, &[], PREDICT_2),
    command(2, "find_best_configuration", Which::FindBest, &[Role::Dataset], FIND_BEST),
    command(2, "accumulate_crossval_results", Which::Accumulate, &[Role::Dataset], ACCUMULATE),
    command(2, "ensemble", Which::As(&["ensemble"]), &[], ENSEMBLE_2),
    command(2, "evaluate_folder", Which::As(&["evaluate"]), TWO, EVALUATE_FOLDER_2),
    command(2, "evaluate_simple", Which::As(&["evaluate"]), TWO, EVALUATE_SIMPLE_2),
    command(
        2,
        "determine_postprocessing",
        Which::As(&["postprocess", "determine"]),
        &[],
        DETERMINE,
    ),
    command(2, "apply_postprocessing", Which::As(&["postprocess", "apply"]), &[], APPLY),
    command(2, "export_model_to_zip", Which::Export, &[], EXPORT),
    command(2, "install_pretrained_model_from_zip", Which::As(&["install"]), ONE, &[]),
    instead(
        2,
        "download_pretrained_model_by_url",
        "download the file, then `stunet install FILE.zip`",
    ),
    instead(
        2,
        "move_plans_between_datasets",
        "copy the plans' file to the other dataset's preprocessed folder, write that dataset's name to \
         its dataset_name, then `stunet preprocess --plans NAME`",
    ),
    command(2, "convert_MSD_dataset", Which::Import, &[], IMPORT),
    command(2, "convert_old_nnUNet_dataset", Which::Import, TWO, &[]),
    command(2, "plot_overlay_pngs", Which::Pictures, &[], OVERLAYS),
    command(1, "plan_and_preprocess", Which::PlanAndPreprocess, &[], PLAN),
    command(1, "train", Which::Train, TRAIN_WORDS_1, TRAIN_1),
    command(1, "predict", Which::Predict, &[], PREDICT_1),
    command(1, "find_best_configuration", Which::FindBest, &[], FIND_BEST),
    command(1, "ensemble", Which::As(&["ensemble"]), &[], ENSEMBLE_1),
    command(1, "evaluate_folder", Which::As(&["evaluate", "--layout", "v1"]), &[], EVALUATE_1),
];

/// Scripts by which a command is started in some documents: those of STU-Net among them.
const SCRIPTS: [(&str, &str); 4] = [
    ("run_finetuning_stunet.py", "nnUNetv2_train"),
    ("run_training.py", "nnUNetv2_train"),
    ("predict_from_raw_data.py", "nnUNetv2_predict"),
    ("predict_simple.py", "nnUNet_predict"),
];

/// The command of a name, such as `nnUNetv2_predict`, `nnUNet_train` or `predict`, which is version 2's.
pub fn find(name: &str) -> anyhow::Result<&'static Command> {
    // As a path, and as a script that Python runs.
    let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let script = SCRIPTS.into_iter().find(|(script, _)| *script == name);
    let name = script.map_or(name, |(_, command)| command);
    let (version, bare) = match (name.strip_prefix("nnUNetv2_"), name.strip_prefix("nnUNet_")) {
        (Some(bare), _) => (2, bare),
        (None, Some(bare)) => (1, bare),
        (None, None) => (2, name),
    };
    let found = COMMANDS.iter().find(|command| (command.version, command.name) == (version, bare));
    let known = || {
        let all: Vec<_> = COMMANDS.iter().filter(|command| command.version == version).collect();
        all.iter().map(|command| command.name).collect::<Vec<_>>().join(", ")
    };
    let found = found
        .with_context(|| format!("expected a command of nnU-Net ({}), found {name:?}", known()))?;
    if let Which::Instead(what) = found.which {
        bail!("{name}: this program has no such command; instead: {what}");
    }
    Ok(found)
}
