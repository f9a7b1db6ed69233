//! `stunet evaluate`: scores of predicted labelmaps against reference labelmaps.

mod found;
mod report;
mod table;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use stunet::data::dataset::{DatasetInfo, list_labelmaps};
use stunet::data::files;
use stunet::data::labels::LabelSet;
use stunet::data::mapping::{LabelMapping, PUBLISHED};
use stunet::data::metrics::{LesionRules, SurfaceDefinition, SurfaceRules};
use stunet::data::nifti::Reader;
use stunet::data::plans;
use stunet::infer::InferError;
use stunet::infer::evaluate::{Class, Evaluation, EvaluationRules, HeaderV1, Pair, evaluate};

use crate::args::{EvaluateArgs, Layout, SurfaceArg};
use crate::failure::Interrupted;
use crate::forgiven::forgiven_in;
use crate::interrupt;
use crate::jobs::check_writable;
use crate::machine;
use crate::output;
use crate::places::{self, Output};
use crate::progress::CaseBar;
use crate::report::tell_passed_over;

/// Counts every case, prints the means and writes the summary.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    if !args.quiet {
        tell_passed_over_in([&args.reference, &args.prediction]);
    }
    let pairs = found::pairs_of(args, &args.prediction)?;
    let others = match &args.compare {
        Some(other) => Some(found::pairs_of(args, other).context("--compare")?),
        None => None,
    };
    let (mut rules, names) = rules(args)?;
    if let Some(plans) = &args.plans {
        rules.reader = reader_of(plans)?;
    }
    rules.leniency = args.forgive.leniency();
    let output = match &args.output {
        Some(file) => Some(file.clone()),
        None => args.prediction.is_dir().then(|| args.prediction.join("summary.json")),
    };
    let read = pairs.iter().chain(others.iter().flatten());
    check_places(args, read, output.as_deref())?;
    if let Some(file) = &output {
        check_output(file)?;
    }
    report::check(args)?;
    if !args.quiet {
        tell_forgiven(pairs.iter().chain(others.iter().flatten()), &rules);
    }
    interrupt::watch(args.quiet, "case")?;
    let result = count(args.num_threads, args.quiet, &pairs, &rules)?;
    let other =
        others.map(|others| count(args.num_threads, args.quiet, &others, &rules)).transpose()?;
    if let Some(file) = &output {
        match args.layout {
            Layout::V2 => result.write_v2(file)?,
            Layout::V1 => result.write_v1(file, &header())?,
        }
    }
    let report = report::write(args, &result, other.as_ref(), &names)?;
    if args.quiet {
        return Ok(());
    }
    table::print(&result, &names, report.as_ref())?;
    let written = output.iter().cloned().chain(args.report.iter().map(|f| f.join(report::PAGE)));
    written.into_iter().try_for_each(|file| output::line(&file.display().to_string()))
}

/// Says which files of the folders are no labelmaps; what else is wrong with them is said later.
fn tell_passed_over_in(folders: [&PathBuf; 2]) {
    for folder in folders.into_iter().filter(|folder| folder.is_dir()) {
        if let Ok(found) = list_labelmaps(folder) {
            tell_passed_over(folder, &found.passed_over);
        }
    }
}

/// Says what is accepted of headers because that was asked for. Grids that differ are told beside their case,
/// unless --geometry-tolerance says that they do not matter.
fn tell_forgiven<'a>(pairs: impl Iterator<Item = &'a Pair>, rules: &EvaluationRules) {
    let files = pairs.flat_map(|pair| [&pair.reference, &pair.prediction]);
    let cases = files.map(|file| {
        let folder = file.parent().and_then(|folder| folder.file_name());
        (folder.and_then(|name| name.to_str()).unwrap_or_default(), vec![file.clone()])
    });
    for note in forgiven_in(cases, rules.reader.leniently(rules.leniency)) {
        output::complain(&note);
    }
}

/// The summary replaces no labelmap and nothing else that is read.
fn check_places<'a>(
    args: &EvaluateArgs,
    pairs: impl Iterator<Item = &'a Pair>,
    output: Option<&Path>,
) -> anyhow::Result<()> {
    let labelmaps = pairs.flat_map(|pair| [&pair.reference, &pair.prediction]);
    let dataset = if args.labels.is_empty() { dataset_json(args).ok() } else { None };
    let map = args.label_map.as_ref().map(PathBuf::from).filter(|file| file.is_file());
    let inputs = labelmaps.chain(&args.plans).cloned().chain(dataset).chain(map);
    let summary = output.map(|file| Output::new("--output", file));
    places::check(inputs, summary.into_iter().chain(report::outputs(args)))
}

/// What is compared, and names for it.
fn rules(args: &EvaluateArgs) -> anyhow::Result<(EvaluationRules, BTreeMap<Class, String>)> {
    let (mut rules, names) = classes(args)?;
    let all = args.report.is_some();
    rules.surface = (args.surface || all).then(|| SurfaceRules {
        definition: match args.surface_points {
            SurfaceArg::Voxels => SurfaceDefinition::VoxelCentres,
            SurfaceArg::Surfels => SurfaceDefinition::Surfels,
        },
        tolerances_mm: args.tolerance.clone(),
    });
    rules.lesions = (args.lesions || all).then_some(LesionRules {
        connectivity: args.connectivity,
        min_overlap: args.lesion_overlap,
    });
    Ok((rules, names))
}

fn classes(args: &EvaluateArgs) -> anyhow::Result<(EvaluationRules, BTreeMap<Class, String>)> {
    if let Some(name) = &args.label_map {
        let mapping = label_map(name, prediction_labels(args)?.as_ref())?;
        let names = mapping.scored().into_iter().map(|(name, class)| (class, name)).collect();
        if let Some(note) = mapping.note().filter(|_| !args.quiet) {
            output::line(&format!("note: {note}"))?;
        }
        return Ok((EvaluationRules::of_mapping(mapping), names));
    }
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

/// A published map, or one in a file, which may use the names of the model's labels.
pub fn label_map(name: &str, labels: Option<&LabelSet>) -> anyhow::Result<LabelMapping> {
    let path = Path::new(name);
    if !path.is_file() && path.components().count() == 1 {
        return LabelMapping::published(name).with_context(|| {
            let names = PUBLISHED.join(", ");
            format!("--label-map: expected a file or one of {names}, found {name:?}")
        });
    }
    LabelMapping::load(path, labels).context("--label-map")
}

/// The labels of the model, where the options or the folder of predictions say them.
fn prediction_labels(args: &EvaluateArgs) -> anyhow::Result<Option<LabelSet>> {
    let beside = args.prediction.join("dataset.json");
    let dataset = args.dataset_json.clone().or_else(|| beside.is_file().then_some(beside));
    let dataset = dataset.map(|path| DatasetInfo::load(&path)).transpose()?;
    Ok(dataset.map(|dataset| dataset.labels))
}

/// The file that was named, or one that lies where nnU-Net puts it.
fn dataset_json(args: &EvaluateArgs) -> anyhow::Result<PathBuf> {
    if let Some(path) = &args.dataset_json {
        return Ok(path.clone());
    }
    let beside = args.reference.parent().map(|folder| folder.join("dataset.json"));
    // A results folder has one for all its folds.
    let above =
        args.prediction.parent().filter(|_| args.prediction.join(found::VALIDATION).is_dir());
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
pub fn reader_of(path: &Path) -> anyhow::Result<Reader> {
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

/// Pairs that fit into memory: two labelmaps in two bytes, and one of them as it was in its file; for
/// surfaces and lesions, both masks of a class with their borders, distances and parts.
fn cases_at_a_time(pairs: &[Pair], rules: &EvaluationRules) -> anyhow::Result<Option<usize>> {
    let measured = rules.surface.is_some() || rules.lesions.is_some();
    let bytes_per_voxel = 2 + 2 + 8 + if measured { 20 } else { 0 };
    let opener = rules.reader.leniently(rules.leniency);
    machine::cases_at_a_time(pairs.iter().filter_map(|pair| {
        // A file that cannot be read is told when it is its turn.
        let (geometry, _) = opener.read_geometry(&pair.reference).ok()?;
        let voxels: u64 = geometry.shape().iter().map(|n| *n as u64).product();
        Some((voxels.saturating_mul(bytes_per_voxel), pair.reference.as_path()))
    }))
}

/// Reads and counts every pair, with a bar that shows how far it is.
pub fn count(
    num_threads: Option<usize>,
    quiet: bool,
    pairs: &[Pair],
    rules: &EvaluationRules,
) -> anyhow::Result<Evaluation> {
    let progress = CaseBar::new("evaluating".to_owned(), quiet);
    progress.count(0, pairs.len(), "cases");
    let pool = machine::pool(num_threads, cases_at_a_time(pairs, rules)?)?;
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

/// What nnU-Net 1 writes when nothing is said.
pub fn header() -> HeaderV1 {
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
