//! `stunet evaluate`: scores of predicted labelmaps against reference labelmaps.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use stunet::data::dataset::{DatasetInfo, list_labelmaps, stem};
use stunet::data::files;
use stunet::data::nifti::{Opener, Reader};
use stunet::data::plans;
use stunet::infer::InferError;
use stunet::infer::evaluate::{
    Class, Evaluation, EvaluationRules, HeaderV1, Missing, Pair, evaluate, pairs,
};

use crate::args::{EvaluateArgs, Layout};
use crate::failure::Interrupted;
use crate::folders;
use crate::interrupt;
use crate::jobs::check_writable;
use crate::machine;
use crate::output;
use crate::places::{self, Output};
use crate::progress::CaseBar;
use crate::report::tell_passed_over;

/// Predictions of the cases that a fold was not trained on.
const VALIDATION: &str = "validation";

/// Counts every case, prints the means and writes the summary.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    if !args.quiet {
        tell_passed_over_in([&args.reference, &args.prediction]);
    }
    let pairs = pairs_of(args)?;
    let (mut rules, names) = rules(args)?;
    if let Some(plans) = &args.plans {
        rules.reader = reader_of(plans)?;
    }
    rules.leniency = args.forgive.leniency();
    let output = match &args.output {
        Some(file) => Some(file.clone()),
        None => args.prediction.is_dir().then(|| args.prediction.join("summary.json")),
    };
    check_places(args, &pairs, output.as_deref())?;
    if let Some(file) = &output {
        check_output(file)?;
    }
    interrupt::watch(args.quiet, "case")?;
    let result = count(args, &pairs, &rules)?;
    if let Some(file) = &output {
        match args.layout {
            Layout::V2 => result.write_v2(file)?,
            Layout::V1 => result.write_v1(file, &header())?,
        }
    }
    if args.quiet { Ok(()) } else { print(&result, &names, output.as_deref()) }
}

/// Says which files of the folders are no labelmaps; what else is wrong with them is said later.
fn tell_passed_over_in(folders: [&PathBuf; 2]) {
    for folder in folders.into_iter().filter(|folder| folder.is_dir()) {
        if let Ok(found) = list_labelmaps(folder) {
            tell_passed_over(folder, &found.passed_over);
        }
    }
}

/// The summary replaces no labelmap and nothing else that is read.
fn check_places(args: &EvaluateArgs, pairs: &[Pair], output: Option<&Path>) -> anyhow::Result<()> {
    let labelmaps = pairs.iter().flat_map(|pair| [&pair.reference, &pair.prediction]);
    let dataset = if args.labels.is_empty() { dataset_json(args).ok() } else { None };
    let inputs = labelmaps.chain(&args.plans).cloned().chain(dataset);
    places::check(inputs, output.map(|file| Output::new("--output", file)))
}

fn pairs_of(args: &EvaluateArgs) -> anyhow::Result<Vec<Pair>> {
    let (reference, prediction) = (&args.reference, &args.prediction);
    let validated = validations(prediction);
    if !validated.is_empty() {
        return pairs_of_folds(args, &validated);
    }
    if reference.is_dir() || prediction.is_dir() {
        let missing = if args.chill { Missing::Skip } else { Missing::Refuse };
        return Ok(pairs(reference, prediction, missing)?);
    }
    let name = stem(prediction).unwrap_or_default().to_owned();
    let (reference, prediction) = (reference.clone(), prediction.clone());
    Ok(vec![Pair { name, reference, prediction }])
}

/// The validation folders of what `stunet train` left behind: of a results folder or of one fold.
/// A folder with labelmaps in it is taken for what it is.
fn validations(results: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(results).into_iter().flatten().flatten();
    if entries.into_iter().any(|entry| stem(&entry.path()).is_some()) {
        return Vec::new();
    }
    let folds = numbered(results).into_iter().chain([results.to_owned()]);
    folds.map(|fold| fold.join(VALIDATION)).filter(|folder| folder.is_dir()).collect()
}

/// The folds of a results folder; the one of all cases only where there is no other.
fn numbered(results: &Path) -> Vec<PathBuf> {
    let mut folds = folders::folds_of(results);
    if folds.len() > 1 {
        folds.retain(|fold| !fold.ends_with("fold_all"));
    }
    folds
}

/// Every case as the fold predicted it that was not trained on it.
fn pairs_of_folds(args: &EvaluateArgs, folders: &[PathBuf]) -> anyhow::Result<Vec<Pair>> {
    let (reference, results) = (&args.reference, &args.prediction);
    let mut found: Vec<Pair> = Vec::new();
    for folder in folders {
        for pair in pairs(reference, folder, Missing::Skip)? {
            if let Some(twice) = found.iter().find(|other| other.name == pair.name) {
                bail!(
                    "expected every case in the validation of one fold, found {} in two: {} and {}",
                    pair.name,
                    twice.prediction.display(),
                    pair.prediction.display()
                );
            }
            found.push(pair);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    // One fold has its own cases alone; all of them have every case.
    let unfinished: Vec<_> = numbered(results)
        .into_iter()
        .filter(|fold| !fold.join(VALIDATION).is_dir())
        .map(|fold| fold.file_name().unwrap_or_default().display().to_string())
        .collect();
    ensure!(
        args.chill || unfinished.is_empty(),
        "expected the validation of every fold, found none of {} (leave them out with --chill): {}",
        unfinished.join(", "),
        results.display()
    );
    Ok(found)
}

/// What is compared, and names for it.
fn rules(args: &EvaluateArgs) -> anyhow::Result<(EvaluationRules, BTreeMap<Class, String>)> {
    if !args.labels.is_empty() {
        let mut classes: Vec<Class> = Vec::new();
        for text in &args.labels {
            let class = text.parse().context("--labels")?;
            if !classes.contains(&class) {
                classes.push(class);
            }
        }
        return Ok((
            EvaluationRules { classes, ignore: args.ignore_label, ..EvaluationRules::default() },
            BTreeMap::new(),
        ));
    }
    let path = dataset_json(args)?;
    let labels = DatasetInfo::load(&path)?.labels;
    let rules = EvaluationRules::of(&labels);
    ensure!(!rules.classes.is_empty(), "expected labels beside background: {}", path.display());
    let names = labels.labels()[1..].iter().map(|label| label.name.clone());
    let names = rules.classes.iter().cloned().zip(names).collect();
    Ok((rules, names))
}

/// The file that was named, or one that lies where nnU-Net puts it.
fn dataset_json(args: &EvaluateArgs) -> anyhow::Result<PathBuf> {
    if let Some(path) = &args.dataset_json {
        return Ok(path.clone());
    }
    let beside = args.reference.parent().map(|folder| folder.join("dataset.json"));
    // A results folder has one for all its folds.
    let above = args.prediction.parent().filter(|_| args.prediction.join(VALIDATION).is_dir());
    let above = above.map(|folder| folder.join("dataset.json"));
    let places = [Some(args.prediction.join("dataset.json")), beside, above];
    match places.into_iter().flatten().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!(
            "expected --labels or --dataset-json, as there is no dataset.json in PRED or beside \
             REF: {}",
            args.prediction.display()
        ),
    }
}

/// nnU-Net takes the meaning of labels, and the reader of both files, from what the plans name.
fn reader_of(path: &Path) -> anyhow::Result<Reader> {
    let plans: Value = files::read_json(path)?;
    let reader = plans::v2_reader(&plans).map_err(|e| e.at(path));
    reader.context("--plans")
}

fn check_output(file: &Path) -> anyhow::Result<()> {
    ensure!(
        file.extension().is_some_and(|ending| ending == "json"),
        "--output: expected a file name ending in .json: {}",
        file.display()
    );
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    ensure!(
        folder.unwrap_or(Path::new(".")).is_dir(),
        "cannot write: no such folder: {}",
        file.display()
    );
    check_writable(file)
}

/// Pairs that fit into memory: two labelmaps in two bytes, and one of them as it was in its file.
fn cases_at_a_time(pairs: &[Pair], opener: Opener) -> anyhow::Result<Option<usize>> {
    const BYTES_PER_VOXEL: u64 = 2 + 2 + 8;
    machine::cases_at_a_time(pairs.iter().filter_map(|pair| {
        // A file that cannot be read is told when it is its turn.
        let (geometry, _) = opener.read_geometry(&pair.reference).ok()?;
        let voxels: u64 = geometry.shape().iter().map(|n| *n as u64).product();
        Some((voxels.saturating_mul(BYTES_PER_VOXEL), pair.reference.as_path()))
    }))
}

fn count(
    args: &EvaluateArgs,
    pairs: &[Pair],
    rules: &EvaluationRules,
) -> anyhow::Result<Evaluation> {
    let progress = CaseBar::new("evaluating".to_owned(), args.quiet);
    progress.count(0, pairs.len(), "cases");
    let pool = machine::pool(
        args.num_threads,
        cases_at_a_time(pairs, rules.reader.leniently(rules.leniency))?,
    )?;
    let result = pool.install(|| {
        evaluate(pairs, rules, &|counted| {
            progress.count(counted.done, counted.total, "cases");
            if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    match result {
        Err(InferError::Interrupted) => Err(Interrupted.into()),
        result => Ok(result?),
    }
}

fn print(
    result: &Evaluation,
    names: &BTreeMap<Class, String>,
    file: Option<&Path>,
) -> anyhow::Result<()> {
    for case in &result.cases {
        if let Some(note) = &case.note {
            output::line(&format!("note: {}: {note}", case.pair.name))?;
        }
    }
    let classes = &result.rules.classes;
    let width = classes.iter().map(|class| class.to_string().len()).max().unwrap_or(0).max(5);
    output::line(&format!("{:<width$}  {:>6}  {:>5}", "class", "Dice", "cases"))?;
    for (index, class) in classes.iter().enumerate() {
        let having = result.cases.iter().filter(|case| !case.counts[index].dice().is_nan()).count();
        let name = names.get(class).map_or("", String::as_str);
        let dice = score(result.mean_dice(index));
        let line = format!("{:<width$}  {dice:>6}  {having:>5}  {name}", class.to_string());
        output::line(line.trim_end())?;
    }
    let mean = score(result.foreground_dice());
    let cases = result.cases.len();
    output::line(&format!("{:<width$}  {mean:>6}  {cases:>5}  of the foreground", "mean"))?;
    match file {
        Some(file) => output::line(&file.display().to_string()),
        None => Ok(()),
    }
}

fn score(dice: f64) -> String {
    if dice.is_nan() { "-".to_owned() } else { format!("{dice:.4}") }
}

/// What nnU-Net 1 writes when nothing is said.
fn header() -> HeaderV1 {
    let author = format!("stunet {}", env!("CARGO_PKG_VERSION"));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = timestamp(since.as_secs(), since.subsec_micros());
    HeaderV1 { author, timestamp, ..HeaderV1::default() }
}

/// Seconds since 1970 as Python prints a time (UTC).
fn timestamp(seconds: u64, micros: u32) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March, so that the leap day is the last; 400 years have a whole number of days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_python_prints_them() {
        let check = |seconds, text: &str| assert_eq!(timestamp(seconds, 42), text);
        check(0, "1970-01-01 00:00:00.000042");
        check(951_827_696, "2000-02-29 12:34:56.000042");
        check(1_709_251_199, "2024-02-29 23:59:59.000042");
        check(4_107_542_400, "2100-03-01 00:00:00.000042");
    }
}
