//! Three axes of a grid as columns: whether they are at right angles, and what is closest to that.

use super::{Geometry, determinant};
use crate::error::{DataError, Result};

/// Rows and columns x, y, z.
pub(crate) type Matrix = [[f64; 3]; 3];

/// Largest deviation from orthogonal axes that rounding explains, as in ITK.
const MOST_SKEW: f64 = 1e-4;

/// The axes of a file with their lengths as columns, and the centre of its first voxel, LPS.
pub(crate) struct Axes {
    pub axes: Matrix,
    pub origin: [f64; 3],
    /// The entry of the header.
    pub what: &'static str,
}

impl Geometry {
    /// A grid from a file's axes; with `sheared`, those that are not at right angles are turned to
    /// the closest ones that are.
    ///
    /// # Errors
    /// When they are singular, not finite or, without `sheared`, sheared.
    pub(crate) fn from_axes(shape: [usize; 3], of: Axes, sheared: bool) -> Result<Self> {
        let Axes { axes, origin, what } = of;
        if axes.iter().flatten().chain(&origin).any(|v| !v.is_finite()) {
            return Err(DataError::NonFiniteGeometry { what });
        }
        let axes = right_angled(&axes, sheared)?;
        let [dx, dy, dz] = [0, 1, 2].map(|c| column_length(&axes, c));
        let unit = std::array::from_fn(|r| {
            let lengths = [dx, dy, dz];
            std::array::from_fn(|c| axes[r][c] / lengths[c])
        });
        Self::new(shape, [dz, dy, dx], origin, unit)
    }
}

/// Axes at right angles, with their lengths: those, or the closest ones where that is allowed.
///
/// # Errors
/// When they are singular, or sheared without being allowed to.
pub(crate) fn right_angled(axes: &Matrix, sheared: bool) -> Result<Matrix> {
    match skew(axes) {
        None => Err(DataError::SingularAffine { determinant: determinant(axes) }),
        Some(skew) if skew <= MOST_SKEW => Ok(*axes),
        Some(skew) if !sheared => Err(DataError::ShearedAffine { skew }),
        Some(_) => {
            let closest = orthonormal(axes);
            let length = |c: usize| column_length(axes, c);
            Ok(std::array::from_fn(|r| std::array::from_fn(|c| closest[r][c] * length(c))))
        }
    }
}

/// Largest deviation of the normalised axes from orthonormality; none if they are singular.
pub(crate) fn skew(axes: &Matrix) -> Option<f64> {
    let volume: f64 = (0..3).map(|axis| column_length(axes, axis)).product();
    if !(determinant(axes).abs() > 1e-6 * volume && volume.is_finite()) {
        return None;
    }
    let dot = |i: usize, j: usize| {
        let product: f64 = (0..3).map(|r| axes[r][i] * axes[r][j]).sum();
        (product / column_length(axes, i) / column_length(axes, j)).abs()
    };
    Some(dot(0, 1).max(dot(0, 2)).max(dot(1, 2)))
}

/// Length of an axis.
pub(crate) fn column_length(axes: &Matrix, axis: usize) -> f64 {
    (0..3).map(|r| axes[r][axis].powi(2)).sum::<f64>().sqrt()
}

/// The rotation (or reflection) that is closest to the axes, by Newton's iteration for the polar
/// decomposition.
pub(crate) fn orthonormal(axes: &Matrix) -> Matrix {
    let length = |c: usize| (0..3).map(|r| axes[r][c].powi(2)).sum::<f64>().sqrt();
    let lengths: [f64; 3] = std::array::from_fn(length);
    let mut m: Matrix = std::array::from_fn(|r| std::array::from_fn(|c| axes[r][c] / lengths[c]));
    // Nearly orthonormal already: every step squares what is missing.
    for _ in 0..4 {
        let inverse = inverse_transposed(&m);
        m = std::array::from_fn(|r| std::array::from_fn(|c| (m[r][c] + inverse[r][c]) / 2.0));
    }
    m
}

fn inverse_transposed(m: &Matrix) -> Matrix {
    let d = determinant(m);
    std::array::from_fn(|r| {
        std::array::from_fn(|c| {
            let at = |i: usize, j: usize| m[(r + i) % 3][(c + j) % 3];
            (at(1, 1) * at(2, 2) - at(1, 2) * at(2, 1)) / d
        })
    })
}
