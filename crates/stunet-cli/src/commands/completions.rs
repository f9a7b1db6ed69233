//! `stunet completions`: what a shell needs to complete commands and options.

use crate::args::{self, CompletionsArgs};
use crate::output;

/// Prints the script of a shell.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "stunet", &mut script);
    output::lines(String::from_utf8(script)?.trim_end())
}
