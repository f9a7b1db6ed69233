//! Compares a results folder's `plans.json` and `dataset.json` with those stored in its checkpoints.

use crate::error::InferError;
use serde_json::Value;
use std::path::Path;
use stunet_data::DataError;
use stunet_data::compare::label_differences;
use stunet_data::labels::LabelSet;
use stunet_data::plans::Plans;

/// Reads a configuration of plans, beside their `dataset.json`.
pub(super) type Import = fn(&Value, &Value, &str) -> Result<Plans, DataError>;

/// What a checkpoint was trained with otherwise than its folder says, as a note.
///
/// The folder's files are followed, as nnU-Net follows them: a window may have another size than the
/// patches of the training, and labels may have other names. A checkpoint without plans says nothing.
///
/// # Errors
/// When images would be prepared otherwise than for the training, or the network would be another.
pub(super) fn agree(
    (plans, dataset): (&Plans, &Value),
    arguments: &Value,
    import: Import,
    file: &Path,
) -> Result<Option<String>, InferError> {
    let Some(trained) = arguments.get("plans").filter(|plans| plans.is_object()) else {
        return Ok(None);
    };
    let own = arguments.get("dataset_json").filter(|json| json.is_object()).unwrap_or(dataset);
    // Nobody reads these plans for anything else: what cannot be read contradicts nothing.
    let Ok(trained) = import(trained, own, &plans.configuration) else {
        return Ok(None);
    };
    let spare = ["notes", "batch_size", "num_outputs", "mirror_axes", "accumulation"];
    let found = plans.differences(&trained)?.without(&spare);
    let named = |entry: &str| entry.starts_with("channels.") && entry.ends_with(".name");
    // Whoever knows better how the training images ran may say so in the folder's plans.
    let orientation = |entry: &str| entry.split('.').next() == Some("orientation");
    let harmless = |entry: &str| entry == "patch_size" || orientation(entry) || named(entry);
    let (harmless, grave) = found.partition(harmless);
    let name = file.file_name().unwrap_or_default().display();
    if !grave.is_empty() {
        return Err(InferError::OtherPlans {
            told: grave.told("plans.json", &name),
            path: file.to_owned(),
        });
    }
    let labels = match (LabelSet::from_dataset_json(dataset), LabelSet::from_dataset_json(own)) {
        (Ok(labels), Ok(own)) => label_differences(&labels, &own)?,
        _ => Default::default(),
    };
    let found = harmless.and(labels);
    Ok((!found.is_empty()).then(|| {
        let told = found.told("the folder's files", &name);
        format!("the folder's files are followed where the checkpoint differs: {told}")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plans() -> Value {
        json!({
            "transpose_forward": [0, 1, 2],
            "configurations": {"3d_fullres": {
                "batch_size": 2, "patch_size": [32, 32, 64], "spacing": [2.0, 1.0, 1.0],
                "normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [false],
                "pool_op_kernel_sizes":
                    [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]],
            }},
        })
    }

    fn dataset() -> Value {
        json!({"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}})
    }

    fn compared(entry: &str, value: Value, labels: Value) -> Result<Option<String>, InferError> {
        let (mut trained, mut own) = (plans(), dataset());
        trained["configurations"]["3d_fullres"][entry] = value;
        own["labels"] = labels;
        let plans = Plans::from_v2_json(&plans(), &dataset(), "3d_fullres").unwrap();
        let arguments = json!({"plans": trained, "dataset_json": own});
        let file = Path::new("fold_0/checkpoint_final.pth");
        agree((&plans, &dataset()), &arguments, Plans::from_v2_json, file)
    }

    #[test]
    fn what_the_network_depends_on_has_to_agree() {
        let check = |entry: &str, value: Value, expected: &str| {
            let labels = dataset()["labels"].clone();
            let message = compared(entry, value, labels).unwrap_err().to_string();
            assert!(message.contains(expected), "expected {expected:?}, found {message:?}");
            assert!(message.ends_with("fold_0/checkpoint_final.pth"), "{message}");
        };
        let spacing =
            "spacing_mm is [2.0,1.0,1.0] in plans.json and [3.0,1.0,1.0] in checkpoint_final";
        check("spacing", json!([3.0, 1.0, 1.0]), spacing);
        check("normalization_schemes", json!(["NoNormalization"]), "channels.0.scheme is");
        check(
            "use_mask_for_norm",
            json!([true]),
            "channels.0.use_mask is false in plans.json and true",
        );
        check("pool_op_kernel_sizes", json!([[1, 1, 1], [2, 2, 2]]), "strides is");
    }

    #[test]
    fn what_may_differ_is_noted() {
        let labels = || dataset()["labels"].clone();
        assert_eq!(compared("batch_size", json!(9), labels()).unwrap(), None);
        let note = compared("patch_size", json!([32, 32, 32]), labels()).unwrap().unwrap();
        assert!(
            note.contains("patch_size is [32,32,64] in the folder's files and [32,32,32]"),
            "{note}"
        );
        let renamed = json!({"background": 0, "hepar": 1});
        let note = compared("batch_size", json!(2), renamed).unwrap().unwrap();
        assert!(note.contains("labels.liver is 1 in the folder's files and nothing in"), "{note}");
        let plans = Plans::from_v2_json(&plans(), &dataset(), "3d_fullres").unwrap();
        let nothing = json!({"configuration": "3d_fullres"});
        assert_eq!(
            agree((&plans, &dataset()), &nothing, Plans::from_v2_json, Path::new("x.pth")).unwrap(),
            None
        );
    }
}
