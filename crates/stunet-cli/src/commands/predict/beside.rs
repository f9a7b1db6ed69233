//! What nnU-Net writes beside the labelmaps of a folder of cases: what their labels mean, the plans, and what
//! was asked for. Its ensembles, postprocessing and evaluation read them, and so do ours.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stunet::data::compare::label_differences;
use stunet::data::labels::LabelSet;
use stunet::data::plans::Plans;
use stunet::data::{files, formats};
use stunet::infer::Model;
use stunet::model::StuNetConfig;
use stunet::train::export::{self, ModelDescription};

use crate::args::PredictArgs;
use crate::jobs::Job;
use crate::products::BESIDE;

/// Writes them; returns a sentence on those that are there with another content and were kept.
///
/// # Source
/// nnU-Net 2.8.1, `nnUNetPredictor.predict_from_files`.
pub fn write(args: &PredictArgs, jobs: &[Job], model: &Model) -> anyhow::Result<Vec<String>> {
    let folder = &args.output;
    let (plans, mut dataset) = described(&args.model, model);
    // nnU-Net's commands look for files of this ending.
    let mut endings = jobs.iter().filter_map(|job| formats::written_ending(&job.output));
    if let Some(first) = endings.next()
        && endings.all(|ending| ending == first)
    {
        dataset["file_ending"] = json!(first);
    }
    std::fs::create_dir_all(folder)?;
    let mut kept = Vec::new();
    let contents = [dataset, plans, arguments(args)];
    for (name, content) in BESIDE.into_iter().zip(contents) {
        let path = folder.join(name);
        if path.is_file() {
            if files::read_json::<Value>(&path).is_ok_and(|found| found == content) {
                continue;
            }
            // What was asked for may be another part of the same cases. A raw dataset keeps its own.
            let replaced = args.overwrite && !folder.join("imagesTr").is_dir();
            if name != BESIDE[2] && !replaced {
                kept.push(format!(
                    "{name} beside the labelmaps says something else than this model and was kept \
                     (--overwrite replaces it, unless it is that of a raw dataset): {}",
                    path.display()
                ));
                continue;
            }
        }
        files::sweep([path.as_path()]);
        files::save_json(&path, &content)?;
    }
    Ok(kept)
}

/// nnU-Net's plans and `dataset.json` of a model: those that lie beside it, else made of what it is.
fn described(path: &Path, model: &Model) -> (Value, Value) {
    let given = path.ancestors().take(4).find_map(|folder| {
        let read = |name: &str| files::read_json::<Value>(&folder.join(name)).ok();
        let (dataset, plans) = (read(BESIDE[0])?, read(BESIDE[1])?);
        describes(model, &plans, &dataset).then_some((plans, dataset))
    });
    given.unwrap_or_else(|| made(model))
}

/// Whether these are the plans and the dataset of a model, not of another one in a folder above.
fn describes(model: &Model, plans: &Value, dataset: &Value) -> bool {
    let (known, name) = (model.plans(), model.plans().configuration.as_str());
    let Ok(found) = Plans::from_v2_json(plans, dataset, name) else { return false };
    let Ok(labels) = LabelSet::from_dataset_json(dataset) else { return false };
    (found.patch_size, found.spacing_mm) == (known.patch_size, known.spacing_mm)
        && found.channels.len() == known.channels.len()
        && label_differences(&labels, model.labels()).is_ok_and(|found| found.is_empty())
}

fn made(model: &Model) -> (Value, Value) {
    let folds = &model.description().folds;
    let first = folds.first();
    let about = ModelDescription {
        plans: model.plans().clone(),
        labels: model.labels().clone(),
        trainer: first.and_then(|fold| fold.trainer.clone()).unwrap_or_default(),
        fold: first.map(|fold| fold.fold.clone()).unwrap_or_default(),
        batch_dice: false,
        nnunet_plans: None,
        nnunet_dataset: None,
    };
    // Networks of other kinds come with nnU-Net's own files.
    let (channels, classes) = (about.plans.num_channels(), model.num_classes());
    let config = model.description().config.stunet().cloned();
    let config = config.unwrap_or_else(|| StuNetConfig::small(channels, classes));
    (export::v2_plans(&about, &config), export::v2_dataset(&about))
}

/// The arguments under nnU-Net's names.
fn arguments(args: &PredictArgs) -> Value {
    let shown = |path: &PathBuf| path.display().to_string();
    json!({
        "list_of_lists_or_source_folder": shown(&args.input[0]),
        "output_folder_or_list_of_truncated_output_files": shown(&args.output),
        "save_probabilities": args.save_probabilities.is_some(),
        "overwrite": args.overwrite,
        "num_processes_preprocessing": 1,
        "num_processes_segmentation_export": 1,
        "folder_with_segs_from_prev_stage": null,
        "num_parts": args.num_parts.unwrap_or(1),
        "part_id": args.part_id.unwrap_or(0),
    })
}
