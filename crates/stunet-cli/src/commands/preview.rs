//! `stunet preview`: a picture of an image and its labels.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;
use stunet::data::dataset::DatasetInfo;
use stunet::data::labels::{LabelMap, LabelSet};
use stunet::data::nifti::Reader;
use stunet::data::{files, formats};
use stunet::infer::{Model, OpenOptions};
use stunet::pictures::preview::{FoundLabel, PreviewOptions, Scene, SceneOptions};

use crate::args::PreviewArgs;
use crate::demo_model::banner_of_digest;
use crate::jobs::check_writable;
use crate::output;
use crate::pictures::write;
use crate::places::{self, Output};

/// Draws one picture.
pub fn run(args: &PreviewArgs) -> anyhow::Result<()> {
    check(args)?;
    let opener = Reader::default().leniently(args.forgive.leniency());
    let scan = opener.read_scan(&args.input)?;
    let on_its_grid = |path: &Path| -> anyhow::Result<LabelMap> {
        let labels = opener.read_labelmap(path)?;
        let differs = || path.display().to_string();
        let leniency = args.forgive.leniency();
        scan.geometry.check_same_grid_within(&labels.geometry, &leniency).with_context(differs)?;
        Ok(LabelMap { geometry: scan.geometry.clone(), ..labels })
    };
    let labels = on_its_grid(&args.labels)?;
    let truth = args.view.truth.as_deref().map(on_its_grid).transpose()?;
    let names = args.names.as_deref().map(names).transpose()?.unwrap_or_default();
    let options = SceneOptions {
        window: args.view.window(),
        channel: args.view.channel.into(),
        truth: truth.as_ref().map(Into::into),
    };
    let at = || args.input[0].display().to_string();
    let scene = Scene::new(&scan, &labels, &names, &options).with_context(at)?;
    let banner = banner_of_digest(model_of(&args.labels).as_deref());
    let words = PreviewOptions { title: args.title.clone(), banner };
    let png = scene.preview(&words).to_png()?;
    files::sweep([args.output.as_path()]);
    write(&args.output, &png)?;
    if !args.quiet {
        tell(scene.found(), &args.output)?;
    }
    Ok(())
}

fn check(args: &PreviewArgs) -> anyhow::Result<()> {
    let output = &args.output;
    let ending = output.extension().unwrap_or_default();
    ensure!(
        ending == "png",
        "--output: expected a name that ends in .png, found {:?}: {}",
        output.file_name().unwrap_or_default().to_string_lossy(),
        output.display()
    );
    ensure!(
        args.overwrite || !output.exists(),
        "--output: expected a file that is not there, or --overwrite: {}",
        output.display()
    );
    let inputs = args.input.iter().chain([&args.labels]).chain(&args.view.truth);
    let inputs = inputs.chain(args.names.iter().filter(|path| path.is_file()));
    places::check(inputs.cloned(), [Output::new("--output", output)])?;
    check_writable(output)
}

/// Names by value, from a dataset.json, a labels.json or a model.
fn names(path: &Path) -> anyhow::Result<BTreeMap<u16, String>> {
    let named = |labels: &LabelSet| {
        let painted = labels.painted().into_iter();
        painted.map(|(value, name)| (value, name.to_owned())).collect()
    };
    if path.extension().is_some_and(|ending| ending == "json") {
        let value: Value = files::read_json(path)?;
        let labels = match value.get("format").is_some() {
            true => LabelSet::load(path)?,
            false => DatasetInfo::load(path)?.labels,
        };
        return Ok(named(&labels));
    }
    let device = stunet::device::parse("cpu")?;
    let description = Model::describe(path, &OpenOptions::new(&device))?;
    Ok(named(&description.labels))
}

/// Digest of the model that made a labelmap, where its record says so.
fn model_of(labels: &Path) -> Option<String> {
    let notes = formats::read_notes(labels).ok()?;
    let digest = |note: &String| {
        let record: Value = serde_json::from_str(note).ok()?;
        Some(record.get("model")?.as_str()?.to_owned())
    };
    notes.iter().find_map(digest)
}

/// One line for each label, and where the picture is.
fn tell(found: &[FoundLabel], picture: &Path) -> anyhow::Result<()> {
    for label in found {
        let ml = format!("{:.2} ml", label.volume_ml);
        let dice = label.dice.map(|dice| format!("Dice {dice:.3}"));
        let cells: Vec<&str> =
            [label.name.as_str(), &ml].into_iter().chain(dice.as_deref()).collect();
        output::cells(&cells)?;
    }
    output::line(&format!("picture: {}", picture.display()))
}
