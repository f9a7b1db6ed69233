//! What version 2's plans ask for by name: followed, or refused by name.

use super::super::keys::{self, KeyPlace};
use super::super::{Entry, inverse};
use crate::error::Result;
use crate::nifti::Reader;
use serde_json::Value;

/// nnU-Net's own resampling, preprocessing and label handling are reproduced; classes of other names
/// are somebody's own.
pub(super) fn check(root: &Entry<'_>, config: &Entry<'_>) -> Result<()> {
    label_manager(root)?;
    only(config, "preprocessor_name", "DefaultPreprocessor")?;
    transpose_backward(root)
}

/// The class that knows what labels mean.
pub(super) fn label_manager(root: &Entry<'_>) -> Result<()> {
    only(root, "label_manager", "LabelManager")
}

/// The class that opens the images.
pub(super) fn reader(root: &Entry<'_>) -> Result<Reader> {
    const KEY: &str = "image_reader_writer";
    match root.find(KEY) {
        Some(entry) => Reader::from_name("plans", KEY, &entry.parse::<String>("a reader's name")?),
        None => Ok(Reader::default()),
    }
}

/// nnU-Net exports by this entry: one that does not undo the other would tilt the labels.
pub(in super::super) fn transpose_backward(plans: &Entry<'_>) -> Result<()> {
    let (Some(forward), Some(backward)) =
        (plans.find("transpose_forward"), plans.find("transpose_backward"))
    else {
        return Ok(());
    };
    let forward: [usize; 3] = forward.parse("an order of 0, 1, 2")?;
    let mut sorted = forward;
    sorted.sort_unstable();
    // Another order is refused where it is read.
    if sorted == [0, 1, 2] && backward.parse("an order of 0, 1, 2").ok() != Some(inverse(forward)) {
        let expected = format!("{:?}, which undoes transpose_forward", inverse(forward));
        return Err(backward.bad(&expected));
    }
    Ok(())
}

/// An entry that has one value, or is missing.
pub(in super::super) fn only(at: &Entry<'_>, key: &str, expected: &str) -> Result<()> {
    match at.find(key) {
        Some(found) if found.value != expected => {
            Err(found.bad(&format!("{expected}, whose steps are the ones reproduced here")))
        }
        _ => Ok(()),
    }
}

/// What is written there and has no effect.
pub(super) fn notes(plans: &Value, config: &Value) -> Vec<String> {
    let plans = keys::unknown(KeyPlace::Plans, plans);
    plans.into_iter().chain(keys::unknown(KeyPlace::Configuration, config)).collect()
}

/// The standard resampling is the only one reproduced; anything else is refused by name.
///
/// Returns whether the coarse axis is resampled apart: decided by the spacing if there is no word
/// of it.
///
/// # Source
/// nnU-Net 2.8.1, `default_resampling.py`: `resample_data_or_seg_to_shape`, whose defaults apply to
/// what the arguments leave out.
pub(super) fn force_separate_z(config: &Entry<'_>) -> Result<Option<bool>> {
    let mut forced: Option<Option<bool>> = None;
    for (what, order) in [("data", 3), ("seg", 1), ("probabilities", 1)] {
        if let Some(function) = config.find(&format!("resampling_fn_{what}"))
            && function.value != "resample_data_or_seg_to_shape"
        {
            return Err(function.bad("resample_data_or_seg_to_shape"));
        }
        let Some(arguments) = config.find(&format!("resampling_fn_{what}_kwargs")) else {
            continue;
        };
        let is_seg = what == "seg";
        let fixed: [(&str, Value, Value); 4] = [
            ("order", order.into(), 3.into()),
            ("order_z", 0.into(), 0.into()),
            // Nobody resamples labels as intensities on purpose.
            ("is_seg", is_seg.into(), is_seg.into()),
            ("separate_z_anisotropy_threshold", 3.into(), 3.into()),
        ];
        for (key, expected, default) in fixed {
            let found = arguments.find(key);
            let value = found.as_ref().map_or(&default, |found| found.value);
            if !same(value, &expected) {
                let at = found.as_ref().unwrap_or(&arguments);
                let expected = format!("{key} {expected}, as nnU-Net's planner writes");
                return Err(at.bad(&expected));
            }
        }
        let force = match arguments.value.get("force_separate_z") {
            None => Some(false),
            Some(Value::Null) => None,
            Some(_) => Some(arguments.get("force_separate_z")?.parse("true, false or null")?),
        };
        match forced {
            Some(earlier) if earlier != force => {
                let expected = "the same force_separate_z for data, labels and probabilities";
                return Err(arguments.bad(expected));
            }
            _ => forced = Some(force),
        }
    }
    Ok(forced.flatten())
}

/// Equal, whole numbers with or without a point.
fn same(found: &Value, expected: &Value) -> bool {
    match (found.as_f64(), expected.as_f64()) {
        (Some(found), Some(expected)) => found == expected,
        _ => found == expected,
    }
}
