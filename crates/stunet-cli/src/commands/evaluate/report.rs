//! The folder of a report.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use stunet::data::metrics::Bootstrap;
use stunet::infer::evaluate::{Class, Comparison, Evaluation, EvaluationReport};

use crate::args::EvaluateArgs;
use crate::jobs::check_writable;
use crate::places::Output;

/// The page with the plots.
pub const PAGE: &str = "report.html";
const CASES: &str = "cases.csv";
const MEANS: &str = "means.csv";
const JSON: &str = "metrics.json";

/// The files that are going to be written.
pub fn outputs(args: &EvaluateArgs) -> impl Iterator<Item = Output> {
    let folder = args.report.iter();
    folder.flat_map(|folder| Output::in_folder("--report", folder, [CASES, MEANS, JSON, PAGE]))
}

/// Fails early where the folder cannot be written to.
pub fn check(args: &EvaluateArgs) -> anyhow::Result<()> {
    let Some(folder) = &args.report else { return Ok(()) };
    ensure!(
        folder.is_dir() || !folder.exists(),
        "--report: expected a folder, found a file: {}",
        folder.display()
    );
    check_writable(&folder.join(PAGE))
}

/// Means, intervals and differences, where they are printed or written.
pub fn write<'a>(
    args: &EvaluateArgs,
    result: &'a Evaluation,
    other: Option<&Evaluation>,
    names: &BTreeMap<Class, String>,
) -> anyhow::Result<Option<EvaluationReport<'a>>> {
    let rules = &result.rules;
    let plain = args.report.is_none() && other.is_none();
    if plain && rules.surface.is_none() && rules.lesions.is_none() {
        return Ok(None);
    }
    let bootstrap =
        Bootstrap { resamples: args.bootstrap, seed: args.seed, ..Bootstrap::default() };
    let mut report = EvaluationReport::new(result, |class| names.get(class).cloned(), bootstrap);
    if let Some((other, folder)) = other.zip(args.compare.as_ref()) {
        let names = [&args.prediction, folder].map(|path| path.display().to_string());
        report = report.with_comparison(Comparison::new(result, other, names, &bootstrap));
    }
    if let Some(folder) = &args.report {
        let make = || format!("cannot make the folder of the report: {}", folder.display());
        std::fs::create_dir_all(folder).with_context(make)?;
        files(&report, folder)?;
    }
    Ok(Some(report))
}

fn files(report: &EvaluationReport<'_>, folder: &Path) -> anyhow::Result<()> {
    report.write_cases_csv(&folder.join(CASES))?;
    report.write_means_csv(&folder.join(MEANS))?;
    report.write_json(&folder.join(JSON))?;
    Ok(report.write_html(&folder.join(PAGE))?)
}
