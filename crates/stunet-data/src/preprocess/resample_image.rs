//! An image on a grid of another spacing.

use super::resample::{Order, resize};
use crate::error::{DataError, Result};
use crate::geometry::Geometry;
use crate::image::Image;
use ndarray::{Array4, Axis};

/// Most voxels of the result: more are a spacing in another unit.
const MAX_VOXELS: f64 = (1u64 << 32) as f64;

impl Image {
    /// The same image with voxels of about `spacing_mm` `[z, y, x]`: the whole number of them that is
    /// nearest fills the same box in space, in the same direction.
    ///
    /// The spacing of the result is that of so many voxels in that box, and its origin, which is the
    /// centre of the first voxel, moves by half of what the voxels have grown: nothing moves in
    /// space. Values stay within the range of the input.
    ///
    /// # Errors
    /// When a spacing is not above 0, the result would have more than 2^32 voxels, or the image was
    /// turned by a reader or is a plane.
    ///
    /// # Source
    /// Voxels are computed as nnU-Net does when it preprocesses: see [`resize`].
    ///
    /// ```
    /// use ndarray::Array4;
    /// use stunet_data::geometry::Geometry;
    /// use stunet_data::image::Image;
    /// use stunet_data::preprocess::resample::Order;
    /// let geometry = Geometry::axis_aligned([10, 20, 20], [3.0, 0.75, 0.75])?;
    /// let image = Image::new(Array4::zeros((1, 10, 20, 20)), geometry)?;
    /// let image = image.resampled_to([1.5; 3], Order::Cubic)?;
    /// assert_eq!(image.geometry.shape(), [20, 10, 10]);
    /// assert_eq!(image.geometry.origin_mm(), [0.375, 0.375, -0.75]);
    /// # Ok::<(), stunet_data::DataError>(())
    /// ```
    pub fn resampled_to(&self, spacing_mm: [f64; 3], order: Order) -> Result<Self> {
        let geometry = resampled_grid(&self.geometry, spacing_mm)?;
        let [z, y, x] = geometry.shape();
        let mut data = Array4::zeros((self.num_channels(), z, y, x));
        for (mut to, from) in data.axis_iter_mut(Axis(0)).zip(self.data.axis_iter(Axis(0))) {
            to.assign(&resize(from, [z, y, x], order));
        }
        Self::new(data, geometry)
    }
}

fn resampled_grid(grid: &Geometry, wanted: [f64; 3]) -> Result<Geometry> {
    if wanted.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
        return Err(DataError::BadSpacing { found: wanted });
    }
    if grid.is_plane() || grid.is_turned() {
        return Err(DataError::Mismatch {
            what: "grid to resample",
            expected: "a volume as its file has it".to_owned(),
            found: if grid.is_plane() { "a plane" } else { "one that a reader turned" }.to_owned(),
        });
    }
    let (shape, spacing) = (grid.shape(), grid.spacing_mm());
    let counts = [0, 1, 2].map(|a| (shape[a] as f64 * spacing[a] / wanted[a]).round().max(1.0));
    if counts.iter().product::<f64>() > MAX_VOXELS {
        return Err(DataError::Mismatch {
            what: "voxels after resampling",
            expected: "at most 2^32".to_owned(),
            found: format!("{counts:?}, from {shape:?} of {spacing:?} mm to {wanted:?} mm"),
        });
    }
    let exact = [0, 1, 2].map(|a| shape[a] as f64 * spacing[a] / counts[a]);
    // Columns of the direction and the origin are x, y, z.
    let (direction, mut origin) = (grid.direction(), grid.origin_mm());
    for (row, origin) in direction.iter().zip(&mut origin) {
        for axis in 0..3 {
            *origin += row[axis] * (exact[2 - axis] - spacing[2 - axis]) / 2.0;
        }
    }
    Geometry::new(counts.map(|n| n as usize), exact, origin, direction)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ramp along a direction in space stays that ramp: every voxel keeps its place.
    #[test]
    fn nothing_moves_in_space() {
        let (sin, cos) = 0.4f64.sin_cos();
        let direction = [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, -1.0]];
        let geometry = Geometry::new([20, 24, 28], [2.0, 1.0, 0.8], [5.0, -7.0, 30.0], direction);
        let geometry = geometry.unwrap();
        let height = |geometry: &Geometry, at: [usize; 3]| -> f64 {
            let affine = geometry.world_from_voxel();
            let place = |row: usize| {
                let [z, y, x] = at.map(|v| v as f64);
                affine[row][0] * x + affine[row][1] * y + affine[row][2] * z + affine[row][3]
            };
            0.7 * place(0) - 0.2 * place(1) + 0.4 * place(2)
        };
        let data = Array4::from_shape_fn((1, 20, 24, 28), |(_, z, y, x)| {
            height(&geometry, [z, y, x]) as f32
        });
        let image = Image::new(data, geometry).unwrap();
        for (spacing, order) in [([1.5, 1.5, 1.5], Order::Linear), ([2.6, 0.7, 1.1], Order::Cubic)]
        {
            let found = image.resampled_to(spacing, order).unwrap();
            assert_eq!(found.geometry.direction(), direction);
            for (found, wanted) in found.geometry.spacing_mm().iter().zip(spacing) {
                assert!((found / wanted - 1.0).abs() < 0.05, "{found} {wanted}");
            }
            let [depth, height_, width] = found.geometry.shape();
            // Near the border the ramp is cut off.
            for z in 4..depth - 4 {
                for y in 4..height_ - 4 {
                    for x in 4..width - 4 {
                        let expected = height(&found.geometry, [z, y, x]);
                        let value = f64::from(found.data[[0, z, y, x]]);
                        assert!((value - expected).abs() < 0.02, "{order:?} {value} {expected}");
                    }
                }
            }
        }
        assert_eq!(image.resampled_to([2.0, 1.0, 0.8], Order::Cubic).unwrap(), image);
    }

    #[test]
    fn what_cannot_be_resampled_is_told() {
        let image = Image::new(
            Array4::zeros((1, 1, 4, 4)),
            Geometry::axis_aligned([1, 4, 4], [1.0; 3]).unwrap(),
        )
        .unwrap();
        let check = |image: &Image, spacing, words: &str| {
            let message = image.resampled_to(spacing, Order::Linear).unwrap_err().to_string();
            assert!(message.contains(words), "expected {words:?}, found {message:?}");
        };
        check(&image, [1.0, 0.0, 1.0], "spacing");
        check(&image, [f64::NAN, 1.0, 1.0], "spacing");
        check(&image, [1e-6; 3], "at most 2^32");
        let plane = image.geometry.clone().into_plane(1.0).unwrap();
        check(&Image { geometry: plane, ..image }, [1.0; 3], "a plane");
    }
}
