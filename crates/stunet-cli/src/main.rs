//! The `stunet` binary: parses the command line, calls the libraries, prints.
//!
//! [`args`] describes the options, [`commands`] carries them out. The other modules hold what all
//! commands share: errors of one line without backtraces, interruption that leaves no incomplete file,
//! checks of inputs and outputs, reports.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

mod allocator;
mod args;
mod commands;
mod described;
mod failure;
mod folders;
mod interrupt;
mod jobs;
mod machine;
mod new_folder;
mod output;
mod parts;
mod places;
mod planned;
mod products;
mod progress;
mod report;
mod scans;

use std::process::ExitCode;

use args::LowCommand;

#[global_allocator]
static ALLOCATOR: allocator::OneLine = allocator::OneLine;

fn main() -> ExitCode {
    failure::quiet_panics();
    // By its own name, whatever it was started as: that one is printed in the usage.
    let words = std::iter::once("stunet".into()).chain(std::env::args_os().skip(1));
    let args = match args::parse(words) {
        Ok(args) => args,
        Err(error) => return failure::report_usage(&error),
    };
    let outcome = failure::shielded(|| match args.command {
        LowCommand::Predict(args) => commands::predict::run(&args),
        LowCommand::Info(args) => commands::info::run(&args),
        LowCommand::Convert(args) => commands::convert::run(&args),
        LowCommand::Labels(args) => commands::labels::run(&args),
        LowCommand::Devices(args) => commands::devices::run(&args),
        LowCommand::Plan(args) => commands::plan::run(&args),
        LowCommand::Train(args) => commands::train::run(&args),
        LowCommand::Export(args) => commands::export::run(&args),
        LowCommand::Preprocess(args) => commands::preprocess::run(&args),
        LowCommand::Evaluate(args) => commands::evaluate::run(&args),
        LowCommand::Ensemble(args) => commands::ensemble::run(&args),
        LowCommand::Postprocess(args) => commands::postprocess::run(&args),
        LowCommand::Accumulate(args) => commands::accumulate::run(&args),
        LowCommand::FindBest(args) => commands::find_best::run(&args),
        LowCommand::Completions(args) => commands::completions::run(&args),
        LowCommand::Man(args) => commands::man::run(&args),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
