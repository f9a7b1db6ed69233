//! Options on a part of the body: where a model predicts.

use std::path::PathBuf;

use clap::Args;

use super::headers::millimetres;

const REGION: &str = "A part of the body";

/// Where a case is predicted: `predict`.
#[derive(Clone, Debug, Default, Args)]
pub struct RegionArgs {
    /// Predict only around these labels (names, numbers or groups), which the model of --with finds
    /// first, in one coarse pass; everything else becomes background
    #[arg(help_heading = REGION, long, value_name = "LABELS", num_args = 1.., requires = "with")]
    pub crop_to: Vec<String>,

    /// The model that finds the region, such as a small one
    #[arg(help_heading = REGION, long, value_name = "MODEL", requires = "crop_to")]
    pub with: Option<PathBuf>,

    /// Distance from the labels to the border of the region
    #[arg(help_heading = REGION, long, value_name = "LENGTH", value_parser = millimetres, default_value = "30mm", requires = "crop_to")]
    pub crop_margin: f64,
}
