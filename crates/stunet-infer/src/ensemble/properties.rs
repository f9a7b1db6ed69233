//! The `.pkl` beside nnU-Net's probabilities: the grid of the image.
//!
//! nnU-Net 2 notes it as `sitk_stuff`, nnU-Net 1 as `itk_spacing` and so on.

use super::differs;
use crate::InferError;
use serde_json::{Value, json};
use std::path::Path;
use stunet_data::geometry::Geometry;
use stunet_model::weights::pickle;

/// The grid that nnU-Net's `SimpleITKIO`, or nnU-Net 1, noted in the properties of a case, without executing
/// anything.
///
/// # Errors
/// When the file cannot be read, or another of nnU-Net's readers wrote it.
pub fn geometry_of_properties(path: &Path, shape: [usize; 3]) -> Result<Geometry, InferError> {
    let properties = pickle::read_file(path)?.to_json();
    let is_v1 = properties["sitk_stuff"].is_null() && !properties["itk_spacing"].is_null();
    let grid = match is_v1 {
        true => &json!({
            "spacing": properties["itk_spacing"],
            "origin": properties["itk_origin"],
            "direction": properties["itk_direction"],
        }),
        false => &properties["sitk_stuff"],
    };
    let found = || grid.to_string().chars().take(120).collect::<String>();
    let wanted = "sitk_stuff with spacing, origin and direction of three axes (else a labelmap beside the \
                  probabilities)";
    let numbers = list::<3>(&grid["spacing"]).zip(list::<3>(&grid["origin"]));
    let Some((([x, y, z], origin), d)) = numbers.zip(list::<9>(&grid["direction"])) else {
        return Err(differs(path, wanted, found()));
    };
    let direction = [[d[0], d[1], d[2]], [d[3], d[4], d[5]], [d[6], d[7], d[8]]];
    Ok(Geometry::new(shape, [z, y, x], origin, direction).map_err(|e| e.at(path))?)
}

fn list<const N: usize>(value: &Value) -> Option<[f64; N]> {
    let values: Option<Vec<f64>> = value.as_array()?.iter().map(Value::as_f64).collect();
    values?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stunet_model::weights::pickle::Value as Pickled;

    #[test]
    fn the_grid_of_a_case() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pkl");
        let tuple =
            |values: &[f64]| Pickled::Tuple(values.iter().map(|v| Pickled::Float(*v)).collect());
        let write = |spacing: &[f64]| {
            let grid = Pickled::dict([
                ("spacing", tuple(spacing)),
                ("origin", tuple(&[1.0, 2.0, 3.0])),
                ("direction", tuple(&[0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0])),
            ]);
            let properties = Pickled::dict([("sitk_stuff", grid)]);
            std::fs::write(&path, pickle::write(&properties)).unwrap();
        };
        write(&[0.5, 1.0, 3.0]);
        let found = geometry_of_properties(&path, [5, 7, 11]).unwrap();
        assert_eq!((found.shape(), found.spacing_mm()), ([5, 7, 11], [3.0, 1.0, 0.5]));
        assert_eq!((found.origin_mm(), found.direction()[0]), ([1.0, 2.0, 3.0], [0.0, -1.0, 0.0]));
        write(&[0.5, 1.0]);
        let message = geometry_of_properties(&path, [5, 7, 11]).unwrap_err().to_string();
        assert!(message.contains("sitk_stuff") && message.ends_with("a.pkl"), "{message}");
        write(&[0.5, 1.0, 0.0]);
        assert!(geometry_of_properties(&path, [5, 7, 11]).is_err());
    }
}
