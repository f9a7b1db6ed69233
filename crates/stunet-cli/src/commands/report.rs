//! `stunet report merge`: the reports of parts as one.

mod predictions;

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use stunet::data::files;
use stunet::infer::evaluate::Evaluation;

use crate::args::{MergeArgs, ReportCommand};
use crate::failure::Told;
use crate::jobs::check_writable;
use crate::output;
use crate::places::{self, Output};
use crate::report::PREDICT_REPORT;

/// What was merged.
struct Merged {
    /// What is told on standard error, one line each.
    told: Vec<String>,
    /// Something is missing or has failed.
    incomplete: bool,
    /// What is there, in words.
    line: String,
}

/// Merges.
pub fn run(command: &ReportCommand) -> anyhow::Result<()> {
    let ReportCommand::Merge(args) = command;
    let output = &args.output;
    ensure!(
        output.extension().is_some_and(|ending| ending == "json"),
        "--output: expected a name that ends in .json: {}",
        output.display()
    );
    places::check(args.reports.iter().cloned(), [Output::new("--output", output)])?;
    check_writable(output)?;
    let parts = args.reports.iter().map(|file| Ok((file.clone(), files::read_json(file)?)));
    let parts: Vec<(PathBuf, Value)> = parts.collect::<anyhow::Result<_>>()?;
    let kinds: Vec<Kind> = parts.iter().map(kind).collect::<anyhow::Result<_>>()?;
    if let Some(other) = kinds.iter().position(|kind| *kind != kinds[0]) {
        bail!(
            "expected reports of one kind, found {} and {}: {}",
            kinds[0].name(),
            kinds[other].name(),
            parts[other].0.display()
        );
    }
    let merged = match kinds[0] {
        Kind::Predictions => {
            let (value, merged) = predictions::merged(&parts)?;
            files::sweep([output.as_path()]);
            files::save_json(output, &value)?;
            merged
        }
        Kind::Scores => scores(args)?,
    };
    merged.told.iter().for_each(|line| output::complain(line));
    if !args.quiet {
        output::line(&format!("{}: {}", merged.line, args.output.display()))?;
    }
    if merged.incomplete { Err(Told.into()) } else { Ok(()) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Predictions,
    Scores,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Predictions => "a report of `stunet predict --json`",
            Self::Scores => "a summary.json",
        }
    }
}

fn kind((file, value): &(PathBuf, Value)) -> anyhow::Result<Kind> {
    if value.get("format").is_some_and(|format| format == PREDICT_REPORT) {
        return Ok(Kind::Predictions);
    }
    let scores = value.get("metric_per_case").is_some();
    scores.then_some(Kind::Scores).with_context(|| {
        format!(
            "expected {} or {}, found neither: {}",
            Kind::Predictions.name(),
            Kind::Scores.name(),
            file.display()
        )
    })
}

/// Scores of parts of the cases: the means are those of all cases.
fn scores(args: &MergeArgs) -> anyhow::Result<Merged> {
    let mut told = Vec::new();
    let (first, others) = args.reports.split_first().context("expected a report")?;
    let mut all = Evaluation::read_v2(first)?;
    for file in others {
        let twice = all.merge(Evaluation::read_v2(file)?, file)?;
        if !twice.is_empty() {
            let names = twice.join(", ");
            let file = file.display();
            told.push(format!("found twice, and taken from an earlier report: {names}: {file}"));
        }
    }
    all.write_v2(&args.output)?;
    let (cases, dice) = (all.cases.len(), all.foreground_dice());
    let line = format!("{cases} cases, mean Dice of the foreground {dice:.4}");
    Ok(Merged { told, incomplete: false, line })
}
