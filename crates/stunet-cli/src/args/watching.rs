//! Options for watching a training.

use std::path::PathBuf;

use clap::Args;

const WATCHING: &str = "Watching";

/// Examples, below the options.
pub(super) const WATCH_HELP: &str = "\
RUN is the folder of a fold that is or was trained by `stunet train` or the results folder of several, of
which the one written last is shown. On a terminal it is a screen with curves, which `q` leaves; the
training goes on. Elsewhere it is one line for each epoch, until the training ends.

Examples:
  stunet watch nnUNet_results/Dataset501_Liver/STUNetTrainer_custom__nnUNetPlans__3d_fullres
  stunet watch nnUNet_results/Dataset501_Liver/STUNetTrainer_custom__nnUNetPlans__3d_fullres/fold_0 --once";

/// How a training is watched.
#[derive(Clone, Debug, Default, Args)]
pub struct WatchingArgs {
    /// Show the training on the whole terminal: loss, pseudo-Dice of every class, learning rate, time
    /// left, memory. The key q closes the screen, and the training goes on
    #[arg(help_heading = WATCHING, long, conflicts_with_all = ["json", "quiet"])]
    pub watch: bool,

    /// Also write event files for TensorBoard, to fold_FOLD/tensorboard, or to DIR/DATASET/TRAINER.../fold_FOLD
    #[arg(help_heading = WATCHING, long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    pub tensorboard: Option<Option<PathBuf>>,
}

/// `stunet watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Folder of a fold, or results folder with several folds
    #[arg(value_name = "RUN")]
    pub run: PathBuf,

    /// Print what is there, one line for each epoch, and do not wait for more
    #[arg(long)]
    pub once: bool,
}
