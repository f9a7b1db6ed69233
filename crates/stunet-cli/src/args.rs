//! The command line as clap parses it. What each option does is decided in [`crate::commands`].

#[cfg(feature = "demo")]
mod demo;
mod evaluate;
mod finish;
mod formats;
mod groups;
mod headers;
mod hub;
mod inputs;
mod labelmaps;
mod models;
mod nnunet;
mod orientation;
mod pictures;
mod plan;
mod predict;
#[cfg(test)]
mod reference;
mod region;
mod report;
mod shell;
mod spellings;
mod train;
mod trainers;
mod tuning;
mod values;
mod watching;
mod workflow;

#[cfg(feature = "demo")]
pub use demo::{DemoArgs, PhantomArgs};
pub use evaluate::{EvaluateArgs, Layout, SurfaceArg};
pub use finish::{CleanArgs, FinishArgs};
pub use formats::FormatArg;
pub use hub::{DownloadArgs, ModelsArgs};
pub use labelmaps::{CleanUpArgs, MapLabelsArgs, NamesArgs, SideArg, StatisticsArgs};
pub use models::{
    ConvertArgs, DevicesArgs, InfoArgs, InstallArgs, LabelsArgs, StorageArg, VerifyArgs,
};
pub use nnunet::NnunetArgs;
pub use pictures::{PictureArgs, PicturesArgs, PreviewArgs, ViewArgs, WindowArg};
pub use plan::{ImportArgs, PlanArgs, PreprocessArgs};
pub use predict::{
    AccumulationArg, ConfidenceArg, ModeArg, NetworkPrecisionArg, PredictArgs, Probabilities,
};
pub use report::{MergeArgs, ReportCommand};
pub use shell::{CompletionsArgs, ManArgs};
pub use spellings::spell_out;
pub use train::{CasesArg, ExportArgs, PrecisionArg, RecipeArg, TrainArgs};
pub use trainers::Trainer;
pub use tuning::{HeadsArg, LossArg, OptimizerArg, PartFactor, ScheduleArg, StemArg};
pub use values::Size;
pub use watching::WatchArgs;
pub use workflow::{
    AccumulateArgs, ApplyArgs, DetermineArgs, EnsembleArgs, FindBestArgs, PostprocessCommand,
};

use std::ffi::OsString;
use std::path::PathBuf;

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
    Predict(Box<PredictArgs>),
    /// Draw an image with its labels
    #[command(after_help = pictures::PREVIEW_HELP)]
    Preview(PreviewArgs),
    /// Print parameters, operations, memory and stages of a network
    Info(InfoArgs),
    /// Convert a checkpoint or a results folder to a model folder
    Convert(ConvertArgs),
    /// Unpack trained models from a zip file of nnU-Net's
    Install(InstallArgs),
    /// List the label values and label names of a model
    Labels(LabelsArgs),
    /// List the backends of this program and the devices of this machine
    Devices(DevicesArgs),
    /// Check that a device computes what this program means
    #[command(after_help = models::VERIFY_HELP)]
    Verify(VerifyArgs),
    /// Import a dataset of the Decathlon (MSD) or of nnU-Net 1
    #[command(after_help = plan::IMPORT_HELP)]
    Import(ImportArgs),
    /// Draw the training cases of a dataset with their labels
    #[command(after_help = pictures::PICTURES_HELP)]
    Pictures(PicturesArgs),
    /// Check a raw dataset and plan its preprocessing and training
    #[command(after_help = plan::PLAN_HELP)]
    Plan(PlanArgs),
    /// Train a network from scratch or from pre-trained weights
    #[command(after_help = train::TRAIN_HELP)]
    Train(Box<TrainArgs>),
    /// Show a training that another process does, or has done
    #[command(after_help = watching::WATCH_HELP)]
    Watch(WatchArgs),
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
    /// Measure the labels of labelmaps: volume, intensities, place
    #[command(after_help = labelmaps::STATISTICS_HELP)]
    Statistics(StatisticsArgs),
    /// Clean up labelmaps: remove small parts, fill holes
    #[command(after_help = labelmaps::CLEAN_HELP)]
    Clean(CleanUpArgs),
    /// Renumber labelmaps to the labels of another dataset
    #[command(after_help = labelmaps::MAP_LABELS_HELP)]
    MapLabels(MapLabelsArgs),
    /// Work with the reports of several parts
    #[command(subcommand)]
    Report(ReportCommand),
    /// Gather and score the validation predictions of all folds
    #[command(after_help = workflow::ACCUMULATE_HELP)]
    Accumulate(AccumulateArgs),
    /// Choose models or ensembles by cross-validation
    #[command(after_help = workflow::FIND_BEST_HELP)]
    FindBest(FindBestArgs),
    /// Fetch published weights by their name
    #[command(after_help = hub::DOWNLOAD_HELP)]
    Download(DownloadArgs),
    /// List the published weights that are on this machine
    Models(ModelsArgs),
    /// Segment a synthetic CT with a small model: a first try
    #[cfg(feature = "demo")]
    #[command(after_help = demo::DEMO_HELP)]
    Demo(DemoArgs),
    /// Write a raw dataset of synthetic CTs with their true labels
    #[cfg(feature = "demo")]
    #[command(after_help = demo::PHANTOM_HELP)]
    Phantom(PhantomArgs),
    /// Run a command line of nnU-Net 1 or 2, translated
    #[command(after_help = nnunet::NNUNET_HELP)]
    Nnunet(NnunetArgs),
    /// Print the completion script of a shell
    #[command(after_help = shell::COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
    /// Write manual pages of all commands
    #[command(after_help = shell::MAN_HELP)]
    Man(ManArgs),
}

impl LowCommand {
    /// The options that name a model, which may be the name of published weights.
    pub fn models(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Predict(args) => {
                let others = args.region.with.iter_mut().chain(&mut args.smaller_models);
                std::iter::once(&mut args.model).chain(others).collect()
            }
            Self::Info(args) => args.model.iter_mut().collect(),
            Self::Convert(args) => vec![&mut args.model],
            Self::Labels(args) => vec![&mut args.model],
            Self::Train(args) => args.pretrained.iter_mut().collect(),
            Self::Statistics(args) => args.names.model.iter_mut().collect(),
            Self::Clean(args) => args.names.model.iter_mut().collect(),
            Self::MapLabels(args) => args.names.model.iter_mut().collect(),
            _ => Vec::new(),
        }
    }
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
    let mut words: Vec<OsString> = words.collect();
    // A line of nnU-Net is translated as it stands.
    if words.get(1).is_none_or(|word| word != "nnunet") {
        words = words.into_iter().map(spell_out).collect();
    }
    let matches = command.try_get_matches_from_mut(words)?;
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
        check("stunet predict -i a -o b -m c --preview --report r.html --truth t", true);
        check("stunet predict -i a -o b -m c --preview --window -160,240 --channel 1", true);
        check("stunet predict -i a -o b -m c --preview --window 240", false);
        check("stunet preview -i a b -l c -o d.png --names m --title x", true);
        check("stunet preview -i a -o d.png", false);
        #[cfg(feature = "demo")]
        check("stunet phantom a --cases 6 --spacing 4mm --structures liver,spleen", true);
        #[cfg(feature = "demo")]
        check("stunet phantom a --spacing 4", false);
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
        check("stunet predict -i a -o b -m c --labels liver,spleen ribs --per-class", true);
        check("stunet predict -i a -o b -m c --largest-component --statistics", true);
        check("stunet predict -i a -o b -m c --largest-component liver --fill-holes", true);
        check("stunet predict -i a -o b -m c --min-volume 0.2ml liver --no-checks", true);
        check("stunet predict -i a -o b -m c --min-volume 0.2ml", true);
        check("stunet predict -i a -o b -m c --min-volume", false);
        check("stunet predict -i a -o b -m c --crop-to liver,spleen --with d", true);
        check("stunet predict -i a -o b -m c --crop-to liver --with d --crop-margin 2cm", true);
        check("stunet predict -i a -o b -m c --crop-to liver", false);
        check("stunet predict -i a -o b -m c --with d", false);
        check("stunet predict -i a -o b -m c --time-budget 60s", true);
        check("stunet predict -i a -o b -m c --time-budget 60", false);
        check("stunet predict -i a -o b -m c --crop-margin 2cm", false);
        check("stunet predict -i a.zip -o b -m c --series 1.2.3 --allow uneven,sheared", true);
        check("stunet predict -i a b -o b -m c --each-file-is-a-case", true);
        check("stunet predict -i a -o b -m c --geometry-tolerance 0.3mm", true);
        check("stunet predict -i a -o b -m c --geometry-tolerance 0.3", false);
        check("stunet predict -i a -o b -m c --orientation as-is", true);
        check("stunet predict -i a -o b -m c --orientation las", true);
        check("stunet predict -i a -o b -m c --orientation RAL", false);
        check("stunet convert a b --orientation RAS", true);
        check("stunet convert a b --orientation auto", false);
        check("stunet plan a --geometry-tolerance 0.3mm --allow sheared", true);
        check("stunet plan a --allow uneven", false);
        check("stunet preprocess a --geometry-tolerance 0.3mm --allow sheared", true);
        check("stunet evaluate ref pred -l 1 --geometry-tolerance 0.3mm --allow sheared", true);
        check("stunet info --size small --json", true);
        check("stunet info", false);
        check("stunet info a.model --size small", false);
        check("stunet devices", true);
        check("stunet verify", true);
        check("stunet verify --device vulkan:1 --precision f16 --json", true);
        check("stunet verify --precision f64", false);
        check("stunet predict -i a -o b -m c --no-cache", true);
        check("stunet predict -i a -o b -m c --device cuda --unverified-device", true);
        check("stunet train D 3d_fullres 0 --unverified-device", true);
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
        check("stunet train D 3d_fullres 0 --watch --tensorboard", true);
        check("stunet train --tensorboard=runs D 3d_fullres 0", true);
        check("stunet train --tensorboard D 3d_fullres 0", true);
        check("stunet train D 3d_fullres 0 --watch --json", false);
        check("stunet watch results/fold_0 --once", true);
        check("stunet watch", false);
        check("stunet export fold_0 model.pth", true);
        check("stunet export results model.zip --folds 0 1", true);
        check("stunet import Task09_Spleen --number 9", true);
        check("stunet import Task09_Spleen --number 1000", false);
        check("stunet install model.zip -o results --overwrite", true);
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
        check("stunet download base", true);
        check("stunet download S b --revision main", true);
        check("stunet download base --from x --sha256 12", false);
        check("stunet download tiny", false);
        check("stunet download", false);
        check("stunet models --quick --json", true);
        check("stunet statistics a.nii.gz -i b_0000.nii.gz b_0001.nii.gz -o c --labels 1 2", true);
        check("stunet statistics a -m b --dataset-json c", false);
        check("stunet statistics -i a", false);
        check("stunet clean a -o b --largest-component --min-volume 1ml 3 --labels liver", true);
        check("stunet clean a", false);
        check("stunet map-labels a -o b --label-map btcv --side reference", true);
        check("stunet map-labels a -o b", false);
        check("stunet pictures D -o out -np 4 --channel 1 --window -160,240 --report r.html", true);
        check("stunet pictures D", false);
        check("stunet report merge a.json b.json -o c.json", true);
        check("stunet report merge -o c.json", false);
        check("stunet report", false);
        check("stunet completions zsh", true);
        check("stunet nnunet --print nnUNetv2_predict -i a -o b --anything", true);
        check("stunet nnunet", false);
        check("stunet train D 3d_fullres 0 -tr STUNetTrainer_base_ft --foreground 0.5", true);
        check("stunet train D 3d_fullres 0 -tr MyTrainer", false);
        check("stunet train D 3d_fullres 0 --foreground 2", false);
        check("stunet train D 3d_fullres 0 --val --npz", true);
        check("stunet train D 3d_fullres 0 --val --no-validation", false);
        check("stunet predict -i a -o b -m c -step_size 0.7 --disable_tta -device cpu", true);
        check("stunet completions dos", false);
        check("stunet man pages", true);
        check("stunet find-best results -tr A B -p P -c 2d 3d_fullres -f 0 1", true);
    }
}
