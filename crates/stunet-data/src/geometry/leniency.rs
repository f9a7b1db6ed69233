//! What of headers is forgiven.

/// Headers that nearly agree, and axes that are nearly at right angles: by default neither is accepted.
///
/// ```
/// use stunet_data::geometry::{Geometry, Leniency};
/// let image = Geometry::axis_aligned([5, 7, 11], [3.0, 1.0, 1.0])?;
/// let labels = Geometry::axis_aligned([5, 7, 11], [3.01, 1.0, 1.0])?;
/// assert!(image.check_same_grid_within(&labels, &Leniency::default()).is_err());
/// let forgiving = Leniency { tolerance_mm: Some(0.3), ..Leniency::default() };
/// assert!(image.check_same_grid_within(&labels, &forgiving).is_ok());
/// # Ok::<(), stunet_data::DataError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Leniency {
    /// How far voxels of channels and labels may lie from those of the first file, in mm. Without it, a
    /// hundredth of a voxel.
    pub tolerance_mm: Option<f64>,
    /// Sheared axes are turned to the closest ones at right angles.
    pub sheared: bool,
}
