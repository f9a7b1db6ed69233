//! `stunet statistics` and `stunet clean`: labelmaps that exist are measured and cleaned up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use stunet::data::dataset::{DatasetInfo, list_cases, list_labelmaps, stem};
use stunet::data::geometry::Leniency;
use stunet::data::image::RawImage;
use stunet::data::labels::{CompactLabelMap, LabelSet, LabelVoxels};
use stunet::data::nifti::Reader;
use stunet::data::statistics::{self, CaseStatistics, StatisticsInput};
use stunet::data::{files, formats, plausibility};
use stunet::infer::{Model, OpenOptions};

use super::predict::extras::write_text;
use crate::args::{CleanUpArgs, NamesArgs, StatisticsArgs};
use crate::described::{DATASET, make_folder};
use crate::failure::Interrupted;
use crate::finish::Finish;
use crate::interrupt;
use crate::output;
use crate::places::{self, Output};
use crate::products::{Product, TABLE};
use crate::progress::CaseBar;

/// What the labels of labelmaps are called.
struct Names {
    labels: LabelSet,
    /// Without names there are numbers only.
    known: bool,
}

impl Names {
    fn of(args: &NamesArgs, folder: &Path) -> anyhow::Result<Self> {
        let beside = Some(folder.join(DATASET)).filter(|file| file.is_file());
        let labels = match (&args.model, args.dataset_json.as_ref().or(beside.as_ref())) {
            (Some(model), _) => {
                let device = stunet::device::parse("cpu")?;
                Model::describe(model, &OpenOptions::new(&device))?.labels.clone()
            }
            (None, Some(file)) => DatasetInfo::load(file)?.labels,
            (None, None) => {
                let labels = LabelSet::numbered(usize::from(u16::MAX) + 1)?;
                return Ok(Self { labels, known: false });
            }
        };
        Ok(Self { labels, known: true })
    }

    /// The labels that are listed even if they have no voxel.
    fn listed(&self, finish: &Finish) -> Vec<(u16, &str)> {
        if self.known { finish.written(&self.labels) } else { Vec::new() }
    }
}

/// The labelmaps that are named, by their cases.
pub fn labelmaps(given: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    if given.is_dir() {
        let found = list_labelmaps(given)?.files;
        ensure!(!found.is_empty(), "expected labelmaps, found none: {}", given.display());
        return Ok(found);
    }
    // It says why it cannot be opened.
    drop(files::open(given)?);
    let name = stem(given).with_context(|| {
        format!("expected a labelmap (.nii.gz, .nii, .mha, .mhd, .nrrd): {}", given.display())
    })?;
    Ok(vec![(name.to_owned(), given.to_owned())])
}

/// The folder of a labelmap, or of several.
pub fn folder_of(given: &Path) -> &Path {
    if given.is_dir() { given } else { given.parent().unwrap_or(Path::new("")) }
}

/// The files of the image of each case.
fn images(
    args: &StatisticsArgs,
    cases: &[(String, PathBuf)],
) -> anyhow::Result<BTreeMap<String, Vec<PathBuf>>> {
    match (&args.input[..], args.labelmaps.is_dir()) {
        ([], _) => Ok(BTreeMap::new()),
        ([folder], true) if folder.is_dir() => {
            let found = list_cases(folder)?.cases;
            let found: BTreeMap<_, _> =
                found.into_iter().map(|case| (case.name, case.files)).collect();
            for (name, labelmap) in cases {
                ensure!(
                    found.contains_key(name),
                    "--input: expected the image of case {name} ({name}_0000.nii.gz) in {}, found \
                     none: {}",
                    folder.display(),
                    labelmap.display()
                );
            }
            Ok(found)
        }
        ([given, ..], true) => {
            bail!("--input: expected the folder of the images: {}", given.display())
        }
        (files, false) => {
            if let Some(folder) = files.iter().find(|file| file.is_dir()) {
                bail!("--input: expected the image's file, found a folder: {}", folder.display());
            }
            Ok(BTreeMap::from([(cases[0].0.clone(), files.to_vec())]))
        }
    }
}

fn read_labels(path: &Path) -> anyhow::Result<CompactLabelMap> {
    let labels = Reader::default().read_labelmap(path)?;
    let geometry = labels.geometry;
    let voxels = match labels.data.iter().all(|value| *value <= u16::from(u8::MAX)) {
        true => LabelVoxels::Bytes(labels.data.mapv(|value| value as u8)),
        false => LabelVoxels::Words(labels.data),
    };
    Ok(CompactLabelMap { voxels, geometry })
}

fn read_image(
    files: &[PathBuf],
    labels: &CompactLabelMap,
    leniency: Leniency,
) -> anyhow::Result<RawImage> {
    let image = Reader::default().leniently(leniency).read_scan(files)?;
    image.geometry.check_same_grid_within(&labels.geometry, &leniency).with_context(|| {
        format!("the labelmap is on another grid than the image {}", files[0].display())
    })?;
    Ok(image)
}

/// Measures labelmaps.
pub fn run_statistics(args: &StatisticsArgs) -> anyhow::Result<()> {
    let cases = labelmaps(&args.labelmaps)?;
    let images = images(args, &cases)?;
    let folder = args.output.clone().unwrap_or_else(|| folder_of(&args.labelmaps).to_owned());
    let names = Names::of(&args.names, folder_of(&args.labelmaps))?;
    let finish = Finish::new(&Default::default(), &args.labels, &names.labels)?;
    let files_of =
        |name: &str| Product::Statistics(None).files(&folder.join(format!("{name}.nii.gz")));
    let table = args.labelmaps.is_dir().then(|| folder.join(TABLE));
    let results = cases.iter().flat_map(|(name, _)| files_of(name)).chain(table.clone());
    let inputs = cases.iter().map(|(_, path)| path).chain(images.values().flatten());
    places::check(inputs.cloned(), results.map(|path| Output::new("--output", path)))?;
    interrupt::watch(args.quiet, "case")?;
    if args.output.is_some() {
        make_folder(&folder)?;
    }
    let progress = CaseBar::new("statistics".to_owned(), args.quiet);
    let mut measured = Vec::new();
    for (index, (name, path)) in cases.iter().enumerate() {
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        progress.count(index, cases.len(), "cases");
        let found = measure(args, (name, path), images.get(name), (&names, &finish))?;
        let files = files_of(name);
        write_text(&files[1], &statistics::csv(std::slice::from_ref(&found)))?;
        found.save(&files[0])?;
        measured.push(found);
    }
    drop(progress);
    if let Some(table) = &table {
        write_text(table, &statistics::csv(&measured))?;
    }
    tell(args, &measured, &files_of(&cases[0].0), table.as_deref())
}

fn measure(
    args: &StatisticsArgs,
    (name, path): (&str, &Path),
    image: Option<&Vec<PathBuf>>,
    (names, finish): (&Names, &Finish),
) -> anyhow::Result<CaseStatistics> {
    let mut labels = read_labels(path)?;
    finish.apply(&mut labels, &names.labels);
    let image =
        image.map(|files| read_image(files, &labels, args.forgive.leniency())).transpose()?;
    let measured = StatisticsInput { image: image.as_ref(), confidence: None };
    let found = CaseStatistics::of(name, &labels, &names.listed(finish), measured);
    found.with_context(|| path.display().to_string())
}

fn tell(
    args: &StatisticsArgs,
    measured: &[CaseStatistics],
    files: &[PathBuf],
    table: Option<&Path>,
) -> anyhow::Result<()> {
    if args.quiet {
        return Ok(());
    }
    for case in measured {
        for warning in plausibility::warnings(&case.labels) {
            output::complain(&format!("{}: warning: {}", case.case, warning.message));
        }
    }
    match table {
        Some(table) => {
            output::line(&format!("{} labelmap(s) measured: {}", measured.len(), table.display()))
        }
        None => {
            let found = measured[0].labels.iter().filter(|label| label.voxels > 0).count();
            output::line(&format!("{}: {found} labels measured", measured[0].case))?;
            files.iter().try_for_each(|file| output::line(&format!("  {}", file.display())))
        }
    }
}

/// Cleans up labelmaps.
pub fn run_clean(args: &CleanUpArgs) -> anyhow::Result<()> {
    let cases = labelmaps(&args.labelmaps)?;
    let names = Names::of(&args.names, folder_of(&args.labelmaps))?;
    let finish = Finish::new(&args.clean, &args.labels, &names.labels)?;
    ensure!(
        !finish.clean.is_nothing() || !args.labels.is_empty(),
        "expected --largest-component, --min-volume, --fill-holes or --labels, found none of them"
    );
    let is_file = !args.labelmaps.is_dir()
        && formats::written_ending(&args.output).is_some()
        && !args.output.is_dir();
    let target = |path: &Path| match is_file {
        true => args.output.clone(),
        false => args.output.join(path.file_name().unwrap_or_default()),
    };
    let outputs = cases.iter().map(|(_, path)| Output::new("--output", target(path)));
    places::check(cases.iter().map(|(_, path)| path.clone()), outputs)?;
    make_folder(if is_file { folder_of(&args.output) } else { &args.output })?;
    interrupt::watch(args.quiet, "case")?;
    let progress = CaseBar::new("clean-up".to_owned(), args.quiet);
    let mut lines = Vec::new();
    for (index, (name, path)) in cases.iter().enumerate() {
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        progress.count(index, cases.len(), "cases");
        let mut labels = read_labels(path)?;
        let finished = finish.apply(&mut labels, &names.labels);
        let most = if names.known { names.labels.max_value() } else { 0 };
        files::sweep([target(path).as_path()]);
        formats::write_compact_labelmap(&target(path), &labels, most, None)?;
        lines.extend(finished.lines().into_iter().map(|line| format!("{name}: {line}")));
        lines.push(format!("{name}: {}", target(path).display()));
    }
    drop(progress);
    match args.quiet {
        true => Ok(()),
        false => lines.iter().try_for_each(|line| output::line(line)),
    }
}
