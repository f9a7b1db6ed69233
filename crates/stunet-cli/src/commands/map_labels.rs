//! `stunet map-labels`: labelmaps with the labels of another dataset.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Map, Value, json};
use stunet::data::dataset::DatasetInfo;
use stunet::data::labels::{CompactLabelMap, LabelSet};
use stunet::data::mapping::LabelMapping;
use stunet::data::nifti::Reader;
use stunet::data::{files, formats};
use stunet::infer::{Model, OpenOptions};

use super::evaluate::label_map;
use super::labelmaps::{folder_of, labelmaps};
use crate::args::{MapLabelsArgs, NamesArgs, SideArg};
use crate::described::{DATASET, make_folder};
use crate::failure::Interrupted;
use crate::interrupt;
use crate::output;
use crate::places::{self, Output};
use crate::progress::CaseBar;

/// Renumbers every labelmap, and writes what the new labels mean beside them.
pub fn run(args: &MapLabelsArgs) -> anyhow::Result<()> {
    let cases = labelmaps(&args.labelmaps)?;
    let names = names(&args.names, folder_of(&args.labelmaps))?;
    let mapping = label_map(&args.label_map, names.as_ref())?;
    if let (SideArg::Prediction, Some(names)) = (args.side, &names) {
        check_published(args, &mapping, names)?;
    }
    let is_file = !args.labelmaps.is_dir()
        && formats::written_ending(&args.output).is_some()
        && !args.output.is_dir();
    let target = |path: &Path| match is_file {
        true => args.output.clone(),
        false => args.output.join(path.file_name().unwrap_or_default()),
    };
    let described = (!is_file).then(|| args.output.join(DATASET));
    check(args, &cases, &target, described.as_ref())?;
    make_folder(if is_file { folder_of(&args.output) } else { &args.output })?;
    interrupt::watch(args.quiet, "case")?;
    if let Some(note) = mapping.note().filter(|_| !args.quiet) {
        output::line(&format!("note: {note}"))?;
    }
    let labels = mapping.label_set();
    let progress = CaseBar::new("labels".to_owned(), args.quiet);
    for (index, (_, path)) in cases.iter().enumerate() {
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        progress.count(index, cases.len(), "cases");
        let mut labelmap = Reader::default().read_labelmap(path)?;
        match args.side {
            SideArg::Prediction => mapping.renumber_prediction(&mut labelmap),
            SideArg::Reference => mapping.renumber_reference(&mut labelmap),
        }
        files::sweep([target(path).as_path()]);
        let note = json!({ "stunet": env!("CARGO_PKG_VERSION"), "label_map": args.label_map });
        let labelmap = CompactLabelMap::from(labelmap);
        formats::write_named_labelmap(&target(path), &labelmap, &labels, Some(&note.to_string()))?;
    }
    drop(progress);
    if let Some(file) = &described {
        let ending = formats::written_ending(&cases[0].1).unwrap_or(".nii.gz");
        files::sweep([file.as_path()]);
        files::save_json(file, &dataset_json(&mapping, &labels, cases.len(), ending))?;
    }
    if args.quiet {
        return Ok(());
    }
    output::line(&format!("{} labelmap(s): {}", cases.len(), args.output.display()))?;
    let painted = labels.painted().into_iter().skip(1);
    painted.into_iter().try_for_each(|(value, name)| output::cells(&[&value.to_string(), name]))
}

/// No output is an input, nor, unless that is wanted, a file that is there.
fn check(
    args: &MapLabelsArgs,
    cases: &[(String, PathBuf)],
    target: &impl Fn(&Path) -> PathBuf,
    described: Option<&PathBuf>,
) -> anyhow::Result<()> {
    let map = Some(PathBuf::from(&args.label_map)).filter(|file| file.is_file());
    let inputs = cases.iter().map(|(_, path)| path.clone()).chain(map);
    let beside = folder_of(&args.labelmaps).join(DATASET);
    let named = args.names.dataset_json.clone().or(Some(beside)).filter(|file| file.is_file());
    let targets: Vec<_> = cases.iter().map(|(_, path)| target(path)).collect();
    let outputs = targets.iter().chain(described).map(|path| Output::new("--output", path));
    places::check(inputs.chain(named), outputs)?;
    match targets.iter().chain(described).find(|path| !args.overwrite && path.exists()) {
        Some(path) => {
            bail!("--output: expected a file that is not there, or --overwrite: {}", path.display())
        }
        None => Ok(()),
    }
}

/// Published maps are for predictions with TotalSegmentator's labels; those of another model have other
/// meanings under the same numbers.
fn check_published(
    args: &MapLabelsArgs,
    mapping: &LabelMapping,
    names: &LabelSet,
) -> anyhow::Result<()> {
    if Path::new(&args.label_map).is_file() {
        return Ok(());
    }
    let expected = LabelSet::totalsegmentator();
    for value in mapping.classes().iter().flat_map(|class| &class.prediction) {
        let (right, found) = (expected.name_of(*value), names.name_of(*value));
        if right != found {
            bail!(
                "--label-map {}: expected predictions with TotalSegmentator's labels, in which {value} is \
                 {}, found {}; write a map for these labels, or name the reference's side: {}",
                args.label_map,
                right.unwrap_or("nothing"),
                found.unwrap_or("nothing"),
                args.labelmaps.display()
            );
        }
    }
    Ok(())
}

/// The labels that the map's names are those of, where the options or a `dataset.json` say them.
fn names(args: &NamesArgs, folder: &Path) -> anyhow::Result<Option<LabelSet>> {
    let beside = Some(folder.join(DATASET)).filter(|file| file.is_file());
    Ok(match (&args.model, args.dataset_json.as_ref().or(beside.as_ref())) {
        (Some(model), _) => {
            let device = stunet::device::parse("cpu")?;
            Some(Model::describe(model, &OpenOptions::new(&device))?.labels.clone())
        }
        (None, Some(file)) => Some(DatasetInfo::load(file)?.labels),
        (None, None) => None,
    })
}

/// What the new labels mean, in nnU-Net 2's form.
fn dataset_json(mapping: &LabelMapping, labels: &LabelSet, cases: usize, ending: &str) -> Value {
    let mut all = Map::new();
    let title = if mapping.title().is_empty() { "mapped labels" } else { mapping.title() };
    all.insert("name".to_owned(), title.into());
    all.insert("channel_names".to_owned(), json!({ "0": "CT" }));
    all.insert("labels".to_owned(), Value::Object(labels.to_dataset_json()));
    all.insert("numTraining".to_owned(), cases.into());
    all.insert("file_ending".to_owned(), ending.into());
    Value::Object(all)
}
