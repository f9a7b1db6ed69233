//! How to predict with the best model: for people and, as JSON, for programs.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};
use stunet::data::files;

use super::{Candidate, Trained};
use crate::args::FindBestArgs;
use crate::commands::postprocess::PICKLE;
use crate::described::PLANS;

const INFORMATION: &str = "inference_information.json";
const INSTRUCTIONS: &str = "inference_instructions.txt";

/// Writes both files of nnU-Net; returns where the instructions are. `best` is the best candidate and
/// its score with postprocessing.
pub fn write(
    args: &FindBestArgs,
    models: &[Trained],
    candidates: &[Candidate],
    best: (&Candidate, f64),
) -> anyhow::Result<PathBuf> {
    let (best, after) = best;
    let dataset =
        args.dataset.canonicalize().with_context(|| args.dataset.display().to_string())?;
    let name = dataset.file_name().unwrap_or_default().display().to_string();
    let all: serde_json::Map<String, Value> =
        candidates.iter().map(|c| (c.name.clone(), json!(c.dice))).collect();
    let considered: Vec<Value> = models
        .iter()
        .map(
            |m| json!({ "configuration": m.configuration, "plans": m.plans, "trainer": m.trainer }),
        )
        .collect();
    let selected: Vec<Value> = best
        .models
        .iter()
        .map(|m| {
            json!({
                "configuration": m.configuration,
                "plans_identifier": m.plans,
                "trainer": m.trainer,
            })
        })
        .collect();
    let information = json!({
        "all_results": all,
        "best_model_or_ensemble": {
            "postprocessing_file": best.folder.join(PICKLE),
            "result_on_crossval_post_pp": after,
            "result_on_crossval_pre_pp": best.dice,
            "selected_model_or_models": selected,
            "some_plans_file": best.folder.join(PLANS),
        },
        "considered_models": considered,
        "dataset_name_or_id": name,
        "ensembling_allowed": !args.disable_ensembling,
        "folds": args.folds,
    });
    files::save_json(&args.dataset.join(INFORMATION), &information)?;
    let path = args.dataset.join(INSTRUCTIONS);
    let text = instructions(args, &name, best);
    files::write(&path, |file| {
        let write = |source| stunet::data::DataError::Io { action: "write", source };
        std::io::Write::write_all(file, text.as_bytes()).map_err(write)
    })?;
    Ok(path)
}

fn instructions(args: &FindBestArgs, dataset: &str, best: &Candidate) -> String {
    let folds: Vec<String> = args.folds.iter().map(usize::to_string).collect();
    let folds = folds.join(" ");
    let ensemble = best.models.len() > 1;
    let outputs: Vec<String> = (1..=best.models.len())
        .map(|number| match ensemble {
            true => format!("OUTPUT_FOLDER_MODEL_{number}"),
            false => "OUTPUT_FOLDER".to_owned(),
        })
        .collect();
    let mut text = format!("Best on cross-validation: {}\n\nPredict:\n\n", best.name);
    for (model, output) in best.models.iter().zip(&outputs) {
        let results = args.dataset.join(model.folder_name());
        let store = if ensemble { " --save-probabilities npz" } else { "" };
        text += &format!(
            "stunet predict -i INPUT_FOLDER -o {output} -m {} -f {folds}{store}\n",
            results.display()
        );
    }
    if ensemble {
        text += &format!(
            "\nThen average:\n\nstunet ensemble -i {} -o OUTPUT_FOLDER --dataset-json {} --plans {}\n",
            outputs.join(" "),
            best.folder.join("dataset.json").display(),
            best.folder.join(PLANS).display()
        );
    }
    text += &format!(
        "\nThen postprocess:\n\nstunet postprocess apply -i OUTPUT_FOLDER -o OUTPUT_FOLDER_PP --steps {}\n",
        best.folder.join(PICKLE).display()
    );
    text += "\nThe same with nnU-Net:\n\n";
    for (model, output) in best.models.iter().zip(&outputs) {
        let store = if ensemble { " --save_probabilities" } else { "" };
        text += &format!(
            "nnUNetv2_predict -d {dataset} -i INPUT_FOLDER -o {output} -f {folds} -tr {} -c {} -p {}{store}\n",
            model.trainer, model.configuration, model.plans
        );
    }
    if ensemble {
        text += &format!("nnUNetv2_ensemble -i {} -o OUTPUT_FOLDER\n", outputs.join(" "));
    }
    text += &format!(
        "nnUNetv2_apply_postprocessing -i OUTPUT_FOLDER -o OUTPUT_FOLDER_PP -pp_pkl_file {} -plans_json {}\n",
        best.folder.join(PICKLE).display(),
        best.folder.join(PLANS).display()
    );
    text
}
