//! Options of `stunet report`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Examples, below the options.
pub(super) const MERGE_HELP: &str = "\
REPORTS are those of `stunet predict --json`, of one model, or summary.json of `stunet evaluate`, of the same
classes. Cases are sorted by name. Of a case in several reports the one in which it was predicted counts, and
it is told. Parts and cases that no report has are told as well, and the status is 1 then: the merged report is
written all the same.

Examples:
  stunet report merge reports/part_*.json -o report.json
  stunet report merge scores_a/summary.json scores_b/summary.json -o summary.json";

/// `stunet report`.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// Make one report of those of several parts
    #[command(after_help = MERGE_HELP)]
    Merge(MergeArgs),
}

/// `stunet report merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The reports
    #[arg(value_name = "REPORT", required = true, num_args = 1..)]
    pub reports: Vec<PathBuf>,

    /// The report to write (.json)
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}
