//! The `stunet` binary: parses the command line, calls the libraries, prints.
//!
//! [`args`] describes the options, [`commands`] carries them out. The other modules hold what all
//! commands share: errors of one line without backtraces, interruption that leaves no incomplete file,
//! checks of inputs and outputs, reports.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

mod allocator;
mod args;
mod board;
mod commands;
mod demo_model;
mod described;
mod failure;
mod finish;
mod folders;
mod forgiven;
mod habits;
mod hub;
mod interrupt;
mod jobs;
mod kept;
mod machine;
mod new_folder;
mod nnunet;
mod orientation;
mod output;
mod parts;
mod pictures;
mod places;
mod planned;
mod products;
mod progress;
mod report;
mod scans;
mod screen;

use std::process::ExitCode;

use args::LowCommand;
use folders::Homes;

#[global_allocator]
static ALLOCATOR: allocator::OneLine = allocator::OneLine;

fn main() -> ExitCode {
    failure::quiet_panics();
    // By its own name, whatever it was started as: that one is printed in the usage.
    let words = std::iter::once("stunet".into()).chain(std::env::args_os().skip(1));
    let words = match habits::spelled(words.collect(), &Homes::read()) {
        Ok(words) => words,
        Err(error) => return failure::report(&error),
    };
    let args = match args::parse(words.iter().cloned()) {
        Ok(args) => args,
        Err(error) => return failure::report_usage(&error, habits::hint(&error, &words)),
    };
    let outcome = failure::shielded(|| {
        for command in habits::commands(args.command)? {
            let mut command = habits::resolved(command)?;
            for model in command.models() {
                *model = hub::by_name(model)?;
            }
            command.check_inputs()?;
            run(command)?;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

fn run(command: LowCommand) -> anyhow::Result<()> {
    match command {
        LowCommand::Predict(args) => commands::predict::run(&args),
        LowCommand::Preview(args) => commands::preview::run(&args),
        LowCommand::Info(args) => commands::info::run(&args),
        LowCommand::Convert(args) => commands::convert::run(&args),
        LowCommand::Install(args) => commands::install::run(&args),
        LowCommand::Labels(args) => commands::labels::run(&args),
        LowCommand::Devices(args) => commands::devices::run(&args),
        LowCommand::Verify(args) => commands::verify::run(&args),
        LowCommand::Import(args) => commands::import::run(&args),
        LowCommand::Pictures(args) => commands::pictures::run(&args),
        LowCommand::Plan(args) => commands::plan::run(&args),
        LowCommand::Train(args) => commands::train::run(&args),
        LowCommand::Watch(args) => commands::watch::run(&args),
        LowCommand::Export(args) => commands::export::run(&args),
        LowCommand::Preprocess(args) => commands::preprocess::run(&args),
        LowCommand::Evaluate(args) => commands::evaluate::run(&args),
        LowCommand::Ensemble(args) => commands::ensemble::run(&args),
        LowCommand::Postprocess(args) => commands::postprocess::run(&args),
        LowCommand::Statistics(args) => commands::labelmaps::run_statistics(&args),
        LowCommand::Clean(args) => commands::labelmaps::run_clean(&args),
        LowCommand::MapLabels(args) => commands::map_labels::run(&args),
        LowCommand::Report(command) => commands::report::run(&command),
        LowCommand::Accumulate(args) => commands::accumulate::run(&args),
        LowCommand::FindBest(args) => commands::find_best::run(&args),
        LowCommand::Download(args) => commands::download::run(&args),
        LowCommand::Models(args) => commands::models::run(&args),
        #[cfg(feature = "demo")]
        LowCommand::Demo(args) => commands::demo::run(&args),
        #[cfg(feature = "demo")]
        LowCommand::Phantom(args) => commands::phantom::run(&args),
        LowCommand::Completions(args) => commands::completions::run(&args),
        LowCommand::Man(args) => commands::man::run(&args),
        // Whoever translates it leaves none.
        LowCommand::Nnunet(_) => Ok(()),
    }
}
