//! Options of the commands about published weights: `download` and `models`.

use std::path::PathBuf;

use clap::Args;

use super::values::Size;

/// Examples, below the options.
pub(super) const DOWNLOAD_HELP: &str = "\
The weights go to the cache of the Hugging Face hub's Python library (HF_HUB_CACHE, HF_HOME), whose
variables hold here as well: HF_ENDPOINT for a mirror, HF_TOKEN, HF_HUB_OFFLINE, HTTPS_PROXY. Ctrl-C keeps
what has come, and the same command goes on from there.

Examples:
  stunet download base
  stunet predict -i ct.nii.gz -o labels.nii.gz -m base
  HF_ENDPOINT=https://mirror.example stunet download large
  stunet download base --from /media/usb/base_ep4k.model";

/// `stunet download`.
#[derive(Debug, Args)]
pub struct DownloadArgs {
    /// The published weights to fetch
    #[arg(value_name = "NAME", value_enum, required = true, num_args = 1..)]
    pub names: Vec<Size>,

    /// Take the file from here instead of the hub: an address, or a file that was brought along
    #[arg(long, value_name = "URL|FILE")]
    pub from: Option<PathBuf>,

    /// The SHA-256 that the file must have, with --from, where nobody else states one
    #[arg(long, value_name = "HEX", requires = "from", value_parser = sha256)]
    pub sha256: Option<String>,

    /// A commit, branch or tag of the repository
    #[arg(long, value_name = "REVISION", default_value = "main", conflicts_with = "from")]
    pub revision: String,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stunet models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// Do not read the files to hold them against their SHA-256, which takes seconds per gigabyte
    #[arg(long)]
    pub quick: bool,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

fn sha256(text: &str) -> Result<String, String> {
    let digits = text.trim().to_ascii_lowercase();
    match digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit()) {
        true => Ok(digits),
        false => Err("expected 64 hexadecimal digits".to_owned()),
    }
}
