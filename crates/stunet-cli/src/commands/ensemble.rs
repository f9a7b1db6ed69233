//! `stunet ensemble`: the mean of several models' probabilities, and its labels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail, ensure};
use rayon::prelude::*;
use stunet::data::dataset::{list_labelmaps, stem};
use stunet::data::geometry::Geometry;
use stunet::data::labels::LabelMap;
use stunet::data::nifti::{self, in_file};
use stunet::infer::ensemble::{ensemble, format_of, geometry_of_properties, outputs_of_v1};
use stunet::infer::probabilities::ProbabilityFormat;

use crate::args::EnsembleArgs;
use crate::described::{DATASET, Described, copy, make_folder};
use crate::failure::Interrupted;
use crate::interrupt;
use crate::machine;
use crate::output;
use crate::places::{self, Output};
use crate::progress::CaseBar;

/// One case: the files of its members, and what it becomes.
#[derive(Debug)]
pub struct Ensembled {
    /// Name of the case.
    pub name: String,
    /// Probabilities, one file for each model.
    pub members: Vec<PathBuf>,
    /// The labelmap to write.
    pub target: PathBuf,
}

/// Averages every case.
pub fn run(args: &EnsembleArgs) -> anyhow::Result<()> {
    let described = described(args)?;
    let folders: Vec<BTreeMap<String, PathBuf>> =
        args.input.iter().map(|folder| members_of(folder)).collect::<Result<_, _>>()?;
    let cases = cases(&args.input, &folders, &args.output, &described.dataset.file_ending)?;
    let inputs = cases.iter().flat_map(|case| case.members.clone());
    let labelmaps =
        cases.iter().flat_map(|case| case.members.iter().flat_map(|m| beside(m).ok().flatten()));
    let outputs = cases.iter().map(|case| Output::new(&*case.name, &case.target));
    places::check(inputs.chain(labelmaps), outputs)?;
    make_folder(&args.output)?;
    interrupt::watch(args.quiet, "case")?;
    described.copy_to(&args.output)?;
    average(&cases, &described, args.save_npz, (args.num_threads, args.quiet))?;
    match args.quiet {
        true => Ok(()),
        false => output::line(&format!("{} cases: {}", cases.len(), args.output.display())),
    }
}

/// What the labels mean. nnU-Net 1 writes no `dataset.json` beside its predictions: without one its labels
/// have numbers.
fn described(args: &EnsembleArgs) -> anyhow::Result<Described> {
    let folder = &args.input[0];
    if args.dataset_json.is_none() && !folder.join(DATASET).is_file() {
        let members = members_of(folder).unwrap_or_default();
        let first = members.into_values().next();
        let first = first.filter(|file| format_of(file) == Some(ProbabilityFormat::Npz));
        if let Some(outputs) = first.map(|file| outputs_of_v1(&file)).transpose()?.flatten() {
            return Described::numbered(outputs);
        }
    }
    Described::of(folder, args.dataset_json.as_ref(), args.plans.as_ref())
}

/// Files of probabilities in a folder, by case: `.npz` if there are any, else `.zarr.zip`.
pub fn members_of(folder: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut found: BTreeMap<&str, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(format) = format_of(&path).filter(|_| !name.starts_with('.')) else { continue };
        let case = name[..name.len() - format.ending().len() - 1].to_owned();
        found.entry(format.ending()).or_default().insert(case, path);
    }
    let [npz, zarr] =
        [ProbabilityFormat::Npz, ProbabilityFormat::Zarr].map(|f| found.remove(f.ending()));
    npz.or(zarr).with_context(|| {
        format!(
            "expected stored probabilities (CASE.npz or CASE.zarr.zip, from --save-probabilities or \
             nnU-Net's --save_probabilities or --npz), found none: {}",
            folder.display()
        )
    })
}

/// The same cases in every folder.
fn cases(
    inputs: &[PathBuf],
    folders: &[BTreeMap<String, PathBuf>],
    output: &Path,
    ending: &str,
) -> anyhow::Result<Vec<Ensembled>> {
    let names: BTreeSet<&String> = folders.iter().flat_map(BTreeMap::keys).collect();
    for (folder, path) in folders.iter().zip(inputs) {
        if let Some(missing) = names.iter().find(|name| !folder.contains_key(**name)) {
            bail!(
                "expected the probabilities of every case in every folder, found none of {missing}: {}",
                path.display()
            );
        }
    }
    let case = |name: &String| Ensembled {
        name: name.clone(),
        members: folders.iter().map(|folder| folder[name].clone()).collect(),
        target: output.join(format!("{name}{ending}")),
    };
    Ok(names.into_iter().map(case).collect())
}

/// Averages cases, several at a time, and writes their labelmaps.
pub fn average(
    cases: &[Ensembled],
    described: &Described,
    save_npz: bool,
    (num_threads, quiet): (Option<usize>, bool),
) -> anyhow::Result<()> {
    let progress = CaseBar::new("averaging".to_owned(), quiet);
    progress.count(0, cases.len(), "cases");
    let done = AtomicUsize::new(0);
    let one = |case: &Ensembled| -> anyhow::Result<()> {
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        write(case, described, save_npz)?;
        progress.count(done.fetch_add(1, Ordering::Relaxed) + 1, cases.len(), "cases");
        Ok(())
    };
    machine::pool(num_threads, None)?.install(|| cases.par_iter().try_for_each(one))
}

fn write(case: &Ensembled, described: &Described, save_npz: bool) -> anyhow::Result<()> {
    let labels = &described.dataset.labels;
    let merged = save_npz.then(|| {
        let folder = case.target.parent().unwrap_or(Path::new("."));
        folder.join(format!("{}.npz", case.name))
    });
    let data = ensemble(&case.members, labels, merged.as_deref())?;
    let (z, y, x) = data.dim();
    let geometry = geometry_of(case, described, [z, y, x])?;
    ensure!(
        geometry.shape() == [z, y, x],
        "expected probabilities and labelmap of one shape, found {:?} and {:?}: {}",
        [z, y, x],
        geometry.shape(),
        case.members[0].display()
    );
    let map = LabelMap::new(data, geometry)?;
    let map = if map.geometry.is_turned() { in_file(&map) } else { map };
    nifti::write_labelmap(&case.target, &map, labels.max_value())?;
    let properties = case.members[0].with_extension("pkl");
    match merged.filter(|_| properties.is_file()) {
        Some(merged) => copy(&properties, &merged.with_extension("pkl")),
        None => Ok(()),
    }
}

/// The grid of the image: that of the first model's labelmap, or what nnU-Net noted beside the
/// probabilities.
fn geometry_of(
    case: &Ensembled,
    described: &Described,
    shape: [usize; 3],
) -> anyhow::Result<Geometry> {
    let first = &case.members[0];
    let properties = first.with_extension("pkl");
    if let Some(labelmap) = beside(first)? {
        // nnU-Net's probabilities, which have properties beside them, are as its reader turned the image.
        let turned = described.reader.turns() && properties.is_file();
        return Ok(match turned && format_of(first) == Some(ProbabilityFormat::Npz) {
            true => described.reader.read_labelmap(&labelmap)?.geometry,
            false => nifti::read_geometry(&labelmap)?.0,
        });
    }
    ensure!(
        properties.is_file() && !described.reader.turns(),
        "expected a labelmap of the same name beside the probabilities{}, found none: {}",
        if described.reader.turns() {
            ", as the reader of the plans turns images"
        } else {
            ", or a .pkl"
        },
        first.display()
    );
    Ok(geometry_of_properties(&properties, shape)?)
}

/// The labelmap of the same case in the same folder.
fn beside(member: &Path) -> anyhow::Result<Option<PathBuf>> {
    let ending = format_of(member).map_or("", ProbabilityFormat::ending);
    let name = member.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let case = name.strip_suffix(ending).unwrap_or(&name).trim_end_matches('.');
    let folder = member.parent().unwrap_or(Path::new("."));
    let found =
        list_labelmaps(folder)?.files.into_iter().find(|(_, path)| stem(path) == Some(case));
    Ok(found.map(|(_, path)| path))
}
