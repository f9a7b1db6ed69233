//! The `.pkl` that nnU-Net 2 writes beside stored probabilities, and needs for an ensemble of them.

use crate::InferError;
use std::io::Write;
use std::path::{Path, PathBuf};
use stunet_data::nifti::Reader;
use stunet_data::preprocess::Trace;
use stunet_data::{DataError, files};
use stunet_model::weights::pickle::{self, Value};

/// Where it goes: beside the probabilities, under their name.
pub(super) fn path_of(probabilities: &Path) -> PathBuf {
    probabilities.with_extension("pkl")
}

/// Writes the properties of a case, in the axes of the file; nothing for readers whose properties
/// nnU-Net keeps otherwise, or for images of two dimensions.
///
/// # Source
/// nnU-Net 2.8.1: `SimpleITKIO.read_images` and `DefaultPreprocessor.run_case_npy`.
pub(super) fn write(trace: &Trace, reader: Reader, probabilities: &Path) -> Result<(), InferError> {
    let (turn, geometry) = (trace.geometry().turn(), trace.geometry().in_file());
    if reader != Reader::SimpleItk || geometry.is_plane() {
        return Ok(());
    }
    let floats =
        |values: &[f64]| -> Vec<Value> { values.iter().map(|v| Value::Float(*v)).collect() };
    let whole = |value: usize| Value::Int(value as i128);
    let [z, y, x] = geometry.spacing_mm();
    let direction: Vec<f64> = geometry.direction().concat();
    let grid = Value::dict([
        ("spacing", Value::Tuple(floats(&[x, y, z]))),
        ("origin", Value::Tuple(floats(&geometry.origin_mm()))),
        ("direction", Value::Tuple(floats(&direction))),
    ]);
    // nnU-Net turns the axes before it crops.
    let (shape, bounds) =
        (geometry.shape(), turn.bounds_in_file(trace.bounding_box(), geometry.shape()));
    let forward = trace.transpose_forward();
    let cropped = forward.map(|axis| whole(bounds[axis][1] - bounds[axis][0]));
    let bounds = forward.map(|axis| Value::List(bounds[axis].map(whole).to_vec()));
    let properties = Value::dict([
        ("sitk_stuff", grid),
        ("spacing", Value::List(floats(&[z, y, x]))),
        ("shape_before_cropping", Value::Tuple(forward.map(|axis| whole(shape[axis])).to_vec())),
        ("bbox_used_for_cropping", Value::List(bounds.to_vec())),
        ("shape_after_cropping_and_before_resampling", Value::Tuple(cropped.to_vec())),
    ]);
    let path = path_of(probabilities);
    let write = |source| DataError::Io { action: "write", source };
    files::sweep([path.as_path()]);
    let bytes = pickle::write(&properties);
    Ok(files::write(&path, |file| file.write_all(&bytes).map_err(write))?)
}
