//! Options of `stunet nnunet`.

use std::ffi::OsString;

use clap::Args;

/// Examples, below the options.
pub(super) const NNUNET_HELP: &str = "\
What the line becomes here is printed first, with a note for each difference. A dataset by number or name
is looked for where nnU-Net's variables say: nnUNet_raw, nnUNet_preprocessed, nnUNet_results, and those of
nnU-Net 1.

Examples:
  stunet nnunet nnUNetv2_plan_and_preprocess -d 501 --verify_dataset_integrity
  stunet nnunet nnUNetv2_train 501 3d_fullres 0 -tr STUNetTrainer_base_ft -pretrained_weights base.model
  stunet nnunet --print nnUNetv2_ensemble -i predicted_a predicted_b -o predicted";

/// `stunet nnunet`.
#[derive(Debug, Args)]
pub struct NnunetArgs {
    /// Only print what the line becomes
    #[arg(long)]
    pub print: bool,

    /// The command line, such as nnUNetv2_predict -i IN -o OUT -d 501 -c 3d_fullres
    #[arg(
        value_name = "LINE",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub words: Vec<OsString>,
}
