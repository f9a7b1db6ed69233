//! Options of the commands that help a shell: `completions` and `man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Examples, below the options.
pub(super) const COMPLETIONS_HELP: &str = "\
Examples:
  stunet completions bash > ~/.local/share/bash-completion/completions/stunet
  stunet completions zsh > ~/.zfunc/_stunet
  stunet completions fish > ~/.config/fish/completions/stunet.fish";

/// Examples, below the options.
pub(super) const MAN_HELP: &str = "\
Examples:
  stunet man ~/.local/share/man/man1";

/// `stunet completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell whose script is printed
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// `stunet man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder to write them to: stunet.1, stunet-predict.1 and so on; it is made where it is missing
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}
