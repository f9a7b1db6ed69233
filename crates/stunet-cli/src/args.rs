//! The command line as clap parses it. What each option does is decided in [`crate::commands`].

mod evaluate;
mod formats;
mod groups;
mod headers;
mod models;
mod plan;
mod predict;
#[cfg(test)]
mod reference;
mod shell;
mod spellings;
mod train;
mod values;
mod workflow;

pub use evaluate::{EvaluateArgs, Layout, SurfaceArg};
pub use formats::FormatArg;
pub use models::{ConvertArgs, DevicesArgs, InfoArgs, LabelsArgs};
pub use plan::{PlanArgs, PreprocessArgs};
pub use predict::{AccumulationArg, ConfidenceArg, ModeArg, PredictArgs, Probabilities};
pub use shell::{CompletionsArgs, ManArgs};
pub use train::{ExportArgs, PrecisionArg, RecipeArg, TrainArgs};
pub use values::Size;
pub use workflow::{
    AccumulateArgs, ApplyArgs, DetermineArgs, EnsembleArgs, FindBestArgs, PostprocessCommand,
};

use std::ffi::OsString;

use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "stunet",
    version,
    about = "Segments CT volumes with STU-Net; plans, trains and evaluates such networks as nnU-Net does",
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct LowArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub command: LowCommand,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum LowCommand {
    /// Segment one case, or every case in a folder
    #[command(after_help = predict::PREDICT_HELP)]
    Predict(PredictArgs),
    /// Print parameters, operations, memory and stages of a network
    Info(InfoArgs),
    /// Convert a checkpoint or a results folder to a model folder
    Convert(ConvertArgs),
    /// List the label values and label names of a model
    Labels(LabelsArgs),
    /// List the backends of this program and the devices of this machine
    Devices(DevicesArgs),
    /// Check a raw dataset and plan its preprocessing and training
    #[command(after_help = plan::PLAN_HELP)]
    Plan(PlanArgs),
    /// Train a network from scratch or from pre-trained weights
    #[command(after_help = train::TRAIN_HELP)]
    Train(Box<TrainArgs>),
    /// Export a trained network as a model folder or for nnU-Net 1 or 2
    Export(ExportArgs),
    /// Preprocess the cases of a planned dataset for training
    #[command(after_help = plan::PREPROCESS_HELP)]
    Preprocess(PreprocessArgs),
    /// Compare predicted with reference labelmaps, as nnU-Net does
    #[command(after_help = evaluate::EVALUATE_HELP)]
    Evaluate(Box<EvaluateArgs>),
    /// Average stored probabilities of several models to labels
    #[command(after_help = workflow::ENSEMBLE_HELP)]
    Ensemble(EnsembleArgs),
    /// Keep the largest part of a class: determine where, and apply
    #[command(subcommand)]
    Postprocess(PostprocessCommand),
    /// Gather and score the validation predictions of all folds
    #[command(after_help = workflow::ACCUMULATE_HELP)]
    Accumulate(AccumulateArgs),
    /// Choose models or ensembles by cross-validation
    #[command(after_help = workflow::FIND_BEST_HELP)]
    FindBest(FindBestArgs),
    /// Print the completion script of a shell
    #[command(after_help = shell::COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
    /// Write manual pages of all commands
    #[command(after_help = shell::MAN_HELP)]
    Man(ManArgs),
}

/// The command line as its help shows it.
pub fn command() -> Command {
    groups::grouped(LowArgs::command())
}

/// The words of a command line, nnU-Net's spellings included.
///
/// # Errors
///
/// Where clap does not accept them; and its help and version.
pub fn parse(words: impl Iterator<Item = OsString>) -> Result<LowArgs, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(words.map(spellings::spell_out))?;
    LowArgs::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, accepted: bool) {
        assert_eq!(parse(line.split(' ').map(Into::into)).is_ok(), accepted, "{line}");
    }

    #[test]
    fn grammar() {
        command().debug_assert();
        check("stunet predict -i a.nii.gz -o b.nii.gz -m c.model", true);
        check("stunet predict -i a.nii.gz b.nii.gz -o b -m c -f 0 1 -chk model_best", true);
        check("stunet predict -i a -o b -m c --num-parts 4 --part-id 3", true);
        check("stunet predict -i a -o b -m c --reference v2.2 --accumulation f16", true);
        check("stunet predict -i a -o b -m c --step-size 0", false);
        check("stunet predict -i a -o b -m c --step-size nan", false);
        check("stunet predict -i a -o b -m c --num-parts 4", true);
        check("stunet predict -i a -o b -m c --part-id 3", false);
        check("stunet predict -i a -o b -m c --max-memory 1.5G --confidence", true);
        check("stunet predict -i a -o b -m c --max-memory much", false);
        check("stunet predict -i a -o b -m c --save-probabilities npz", true);
        check("stunet predict -i a -o b", false);
        check("stunet predict -i a.zip -o b -m c --series 1.2.3 --allow uneven,sheared", true);
        check("stunet predict -i a b -o b -m c --each-file-is-a-case", true);
        check("stunet predict -i a -o b -m c --geometry-tolerance 0.3mm", true);
        check("stunet predict -i a -o b -m c --geometry-tolerance 0.3", false);
        check("stunet plan a --geometry-tolerance 0.3mm --allow sheared", true);
        check("stunet plan a --allow uneven", false);
        check("stunet preprocess a --geometry-tolerance 0.3mm --allow sheared", true);
        check("stunet evaluate ref pred -l 1 --geometry-tolerance 0.3mm --allow sheared", true);
        check("stunet info --size small --json", true);
        check("stunet info", false);
        check("stunet info a.model --size small", false);
        check("stunet devices", true);
        check("stunet plan raw/Dataset001_A", true);
        check("stunet plan a -o b --rules v1 --memory 24 --spacing 3 1 0.5 --json", true);
        check("stunet plan a --rules v3", false);
        check("stunet plan a --memory 0", false);
        check("stunet plan a --spacing 1 1", false);
        check("stunet plan a --json --quiet", false);
        check("stunet plan", false);
        check("stunet train D 3d_fullres 0 --size S --epochs 2 --continue", true);
        check("stunet train D 3d_fullres all --width 8,16,32,64,64,64 --depth 1", true);
        check("stunet train D 3d_fullres all --size S --width 8,16,32,64,64,64", false);
        check("stunet train D 3d_fullres 0 --depth 1", false);
        check("stunet train D 3d_fullres 0 --stem-divide", false);
        check("stunet train D 3d_fullres 0 --patch 32 32", false);
        check("stunet train D 3d_fullres", false);
        check("stunet export fold_0 model.pth", true);
        check("stunet preprocess raw/Dataset001_A", true);
        check("stunet preprocess pre/Dataset001_A 3d_lowres --raw a -np 3 --memory 4 --json", true);
        check("stunet preprocess a --num-workers 0", false);
        check("stunet preprocess a --raw b -o c", false);
        check("stunet preprocess a --json --quiet", false);
        check(
            "stunet evaluate ref pred -djfile d.json -pfile p.json -o s.json -np 8 --chill",
            true,
        );
        check("stunet evaluate ref pred -l 1 2 1,2 -il 3 --layout v1", true);
        check("stunet evaluate ref pred -il 3", false);
        check("stunet evaluate ref pred -l 1 -djfile d.json", false);
        check("stunet evaluate ref", false);
        check("stunet ensemble -i a b -o c -np 4 --save_npz", true);
        check("stunet ensemble -o c", false);
        check("stunet postprocess determine -i a -ref b -plans_json p -np 2 --layout v1", true);
        check("stunet postprocess apply -i a -o b -pp_pkl_file c -dataset_json d", true);
        check("stunet postprocess apply -i a -o b", false);
        check("stunet accumulate results -f 0 1 2 -o out", true);
        check("stunet completions zsh", true);
        check("stunet completions dos", false);
        check("stunet man pages", true);
        check("stunet find-best results -tr A B -p P -c 2d 3d_fullres -f 0 1", true);
    }
}
