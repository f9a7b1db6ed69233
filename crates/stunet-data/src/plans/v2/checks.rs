//! What version 2's plans ask for by name: followed, or refused by name.

use super::super::keys::{self, KeyPlace};
use super::super::{Entry, inverse};
use crate::error::Result;
use crate::nifti::Reader;
use crate::preprocess::resample::Resampling;
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

/// What is resampled, and the order of the spline for it.
const RESAMPLED: [(&str, u64); 3] = [("data", 3), ("seg", 1), ("probabilities", 1)];

/// Which function resamples; anything but nnU-Net's two is refused by name, and so is one for images and
/// another for labels.
pub(super) fn resampling(config: &Entry<'_>) -> Result<Resampling> {
    let mut found: Option<Resampling> = None;
    for (what, _) in RESAMPLED {
        let function = config.find(&format!("resampling_fn_{what}"));
        let one = match &function {
            Some(function) => [Resampling::ScikitImage, Resampling::Torch]
                .into_iter()
                .find(|known| function.value == known.name())
                .ok_or_else(|| {
                    function.bad("resample_data_or_seg_to_shape or resample_torch_fornnunet")
                })?,
            None => Resampling::ScikitImage,
        };
        match (found, function) {
            (Some(earlier), Some(function)) if earlier != one => {
                let expected = format!("{}, as for the data: one for all", earlier.name());
                return Err(function.bad(&expected));
            }
            (Some(earlier), None) if earlier != one => {
                let key = format!("resampling_fn_{what}");
                return Err(config.bad(&format!("{key}, as for the data: one for all")));
            }
            _ => found = Some(one),
        }
    }
    Ok(found.unwrap_or_default())
}

/// Whether the coarse axis is resampled apart: decided by the spacing if there is no word of it. Other
/// arguments must be those that are reproduced here.
///
/// # Source
/// nnU-Net 2.8.1, `default_resampling.py`: `resample_data_or_seg_to_shape`, and `resample_torch.py`:
/// `resample_torch_fornnunet`, whose defaults apply to what the arguments leave out.
pub(super) fn force_separate_z(config: &Entry<'_>, resampling: Resampling) -> Result<Option<bool>> {
    let mut forced: Option<Option<bool>> = None;
    for (what, order) in RESAMPLED {
        let Some(arguments) = config.find(&format!("resampling_fn_{what}_kwargs")) else {
            continue;
        };
        let is_seg = what == "seg";
        // Nobody resamples labels as intensities on purpose.
        let mut fixed: Vec<(&str, Value, Value)> = vec![
            ("is_seg", is_seg.into(), is_seg.into()),
            ("separate_z_anisotropy_threshold", 3.into(), 3.into()),
        ];
        fixed.extend(match resampling {
            Resampling::ScikitImage => {
                vec![("order", order.into(), 3.into()), ("order_z", 0.into(), 0.into())]
            }
            Resampling::Torch => vec![
                ("memefficient_seg_resampling", false.into(), false.into()),
                ("mode", "linear".into(), "linear".into()),
                ("aniso_axis_mode", "nearest-exact".into(), "nearest-exact".into()),
            ],
        });
        for (key, expected, default) in fixed {
            let found = arguments.find(key);
            let value = found.as_ref().map_or(&default, |found| found.value);
            if !same(value, &expected) {
                let at = found.as_ref().unwrap_or(&arguments);
                let expected = format!("{key} {expected}, as nnU-Net's planner writes");
                return Err(at.bad(&expected));
            }
        }
        let force = match (arguments.value.get("force_separate_z"), resampling) {
            (None, Resampling::ScikitImage) => Some(false),
            (None, Resampling::Torch) | (Some(Value::Null), _) => None,
            (Some(_), _) => Some(arguments.get("force_separate_z")?.parse("true, false or null")?),
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
