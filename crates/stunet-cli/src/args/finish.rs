//! Options on labels that are there: which are kept, how they are cleaned up, what is measured.

use clap::Args;

const LABELS: &str = "Labels, clean-up, measurements";

/// What is removed from labels, and what is filled: `predict` and `clean`.
#[derive(Clone, Debug, Default, Args)]
pub struct CleanArgs {
    /// Keep the largest connected part of each label only, as nnU-Net's postprocessing does; of these
    /// labels only, where LABELS (names, numbers or groups, with commas) are given
    #[arg(help_heading = LABELS, long, value_name = "LABELS", num_args = 0..=1, default_missing_value = "all")]
    pub largest_component: Option<String>,

    /// Remove connected parts of less than VOLUME, such as 0.2ml or 50mm3, from every label or from
    /// LABELS
    #[arg(help_heading = LABELS, long, num_args = 1..=2, value_names = ["VOLUME", "LABELS"])]
    pub min_volume: Vec<String>,

    /// Fill holes in every label, or in LABELS: background that one label encloses
    #[arg(help_heading = LABELS, long, value_name = "LABELS", num_args = 0..=1, default_missing_value = "all")]
    pub fill_holes: Option<String>,
}

/// What is done with predicted labels: `predict`.
#[derive(Clone, Debug, Default, Args)]
pub struct FinishArgs {
    /// Write these labels only, by name, number or group, such as liver,spleen,ribs; all others become
    /// background
    #[arg(help_heading = LABELS, long, value_name = "LABELS", num_args = 1..)]
    pub labels: Vec<String>,

    #[command(flatten)]
    pub clean: CleanArgs,

    /// Also write a file for each label, 1 where the label is, as CASE/liver.nii.gz
    #[arg(help_heading = LABELS, long)]
    pub per_class: bool,

    /// Also measure every label (volume, intensities, place), as CASE_statistics.json and .csv; for a
    /// folder also as one table, statistics.csv
    #[arg(help_heading = LABELS, long)]
    pub statistics: bool,

    /// Do not check labels against anatomy (order of vertebrae and ribs, sides, volumes, borders)
    #[arg(help_heading = LABELS, long)]
    pub no_checks: bool,
}
