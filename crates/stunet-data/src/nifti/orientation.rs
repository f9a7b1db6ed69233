//! Which of a header's two affines counts: the rules of ITK 5.
//!
//! # Source
//! `Modules/IO/NIFTI/src/itkNiftiImageIO.cxx` of ITK 5.3, as SimpleITK 2.2 ships it:
//! * the sform counts when its axes are orthonormal after scaling and the qform has no code, or its
//!   own code is 1 (scanner), or it agrees with the qform;
//! * otherwise the qform counts, if it has a code;
//! * otherwise the file is refused;
//! * without any code the axes are ITK's own (LPS) and the origin is 0;
//! * a plane (two dimensions) is read the same way and lies where these say;
//! * the spacing is always `pixdim`, whatever the lengths of the sform's axes; a negative one turns
//!   its axis around.
//!
//! # Deviations
//! Whether sform and qform agree is judged axis by axis (1e-4) and not by singular vectors, which
//! are not unique for equal spacings. The two choices differ by no more than that tolerance, except
//! where the sform mirrors an axis of the qform: ITK's singular vectors then agree or not by their
//! rounding errors, while here the qform counts.
//!
//! A plane keeps its place in space; ITK keeps two components of it, and refuses planes that are not
//! nearly axial.

use super::header::Header;
use crate::error::{DataError, Result};
use crate::geometry::{Geometry, Matrix, column_length, determinant, right_angled, skew};

/// Axes as columns and origin, RAS.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub axes: Matrix,
    pub origin: [f64; 3],
}

/// The grid a header describes.
pub(super) fn geometry(header: &Header, shape: [usize; 3], sheared: bool) -> Result<Geometry> {
    let scale = match header.units & 7 {
        1 => 1000.0,
        3 => 0.001,
        _ => 1.0,
    };
    // Axes that the file does not have carry no spacing.
    let [dx, dy, dz]: [f64; 3] = std::array::from_fn(|axis| match header.dims.len() > axis {
        true => header.pixdim[axis + 1] * scale,
        false => 1.0,
    });
    let spacing = [dz, dy, dx].map(f64::abs);
    if spacing.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
        return Err(DataError::BadSpacing { found: [dz, dy, dx] });
    }
    let signs = [-1.0, -1.0, 1.0];
    // Without a code, ITK's own axes: RAS signs that become the identity in LPS.
    let form = choose(header, sheared)?.unwrap_or(Form {
        axes: [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]],
        origin: [0.0; 3],
    });
    let mut direction = [[0.0; 3]; 3];
    for (axis, step) in [dx, dy, dz].into_iter().enumerate() {
        let length = column_length(&form.axes, axis);
        for row in 0..3 {
            direction[row][axis] = signs[row] * form.axes[row][axis] / length * step.signum();
        }
    }
    let origin = std::array::from_fn(|row| signs[row] * form.origin[row] * scale);
    let grid = Geometry::new(shape, spacing, origin, direction)?;
    match header.is_plane() {
        true => grid.into_plane(thickness(&form) * scale),
        false => Ok(grid),
    }
}

/// How thick the slice of a plane is, which hardly any header says: 1 mm if nothing is known.
fn thickness(form: &Form) -> f64 {
    let length = column_length(&form.axes, 2);
    if length.is_finite() && length > 0.0 { length } else { 1.0 }
}

fn choose(header: &Header, sheared: bool) -> Result<Option<Form>> {
    let sform = Form {
        axes: std::array::from_fn(|r| std::array::from_fn(|c| header.sform[r][c])),
        origin: std::array::from_fn(|r| header.sform[r][3]),
    };
    let (has_q, has_s) = (header.qform_code > 0, header.sform_code > 0);
    if !has_q && !has_s {
        return Ok(None);
    }
    let qform = qform(header);
    let skew = skew(&sform.axes);
    let orthonormal = has_s && skew.is_some_and(|s| s <= 1e-4);
    if orthonormal && (!has_q || header.sform_code == 1 || agree(&sform, &qform)) {
        return Ok(Some(sform));
    }
    if has_q {
        return match skew_is_finite(&qform) {
            true => Ok(Some(qform)),
            false => Err(DataError::NonFiniteGeometry { what: "qform" }),
        };
    }
    Err(match skew {
        Some(_) => {
            let axes = right_angled(&sform.axes, sheared)?;
            return Ok(Some(Form { axes, ..sform }));
        }
        None if sform.axes.iter().flatten().any(|v| !v.is_finite()) => {
            DataError::NonFiniteGeometry { what: "sform" }
        }
        None => DataError::SingularAffine { determinant: determinant(&sform.axes) },
    })
}

/// Rotation from the quaternion, columns scaled by the voxel size.
pub(super) fn qform(header: &Header) -> Form {
    let [mut b, mut c, mut d] = header.quaternion;
    let rest = 1.0 - (b * b + c * c + d * d);
    let a = if rest < 1e-7 {
        // A half turn: only the axis matters, and it is made a unit vector.
        let length = (b * b + c * c + d * d).sqrt();
        (b, c, d) = (b / length, c / length, d / length);
        0.0
    } else {
        rest.sqrt()
    };
    let mut axes = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - c * c - b * b],
    ];
    let qfac = if header.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    for row in &mut axes {
        for (axis, value) in row.iter_mut().enumerate() {
            let size = header.pixdim[axis + 1];
            *value *= if size > 0.0 { size } else { 1.0 };
        }
        row[2] *= qfac;
    }
    Form { axes, origin: header.q_offset }
}

fn skew_is_finite(form: &Form) -> bool {
    let mut values = form.axes.iter().flatten().chain(&form.origin);
    values.all(|v| v.is_finite())
}

fn agree(a: &Form, b: &Form) -> bool {
    (0..3).all(|axis| {
        let (la, lb) = (column_length(&a.axes, axis), column_length(&b.axes, axis));
        let same_axis = (0..3).all(|r| (a.axes[r][axis] / la - b.axes[r][axis] / lb).abs() <= 1e-4);
        same_axis && (la - lb).abs() <= 1e-4 && (a.origin[axis] - b.origin[axis]).abs() <= 1e-4
    })
}

/// The unit quaternion (b, c, d) and the sign of the third axis for nearly orthonormal axes, RAS.
pub(super) fn quaternion(axes: &Matrix) -> ([f64; 3], f64) {
    let qfac = if determinant(axes) < 0.0 { -1.0 } else { 1.0 };
    let m: Matrix = std::array::from_fn(|r| {
        std::array::from_fn(|c| axes[r][c] * if c == 2 { qfac } else { 1.0 })
    });
    // The largest component is found first, so that nothing is divided by a small number.
    let squares = [
        1.0 + m[0][0] + m[1][1] + m[2][2],
        1.0 + m[0][0] - m[1][1] - m[2][2],
        1.0 - m[0][0] + m[1][1] - m[2][2],
        1.0 - m[0][0] - m[1][1] + m[2][2],
    ];
    let largest = (0..4).fold(0, |best, i| if squares[i] > squares[best] { i } else { best });
    let s = 2.0 * squares[largest].sqrt();
    let [a, b, c, d] = match largest {
        0 => [s / 4.0, (m[2][1] - m[1][2]) / s, (m[0][2] - m[2][0]) / s, (m[1][0] - m[0][1]) / s],
        1 => [(m[2][1] - m[1][2]) / s, s / 4.0, (m[0][1] + m[1][0]) / s, (m[0][2] + m[2][0]) / s],
        2 => [(m[0][2] - m[2][0]) / s, (m[0][1] + m[1][0]) / s, s / 4.0, (m[1][2] + m[2][1]) / s],
        _ => [(m[1][0] - m[0][1]) / s, (m[0][2] + m[2][0]) / s, (m[1][2] + m[2][1]) / s, s / 4.0],
    };
    // The file stores b, c, d only: a is taken as not negative.
    let sign = if a < 0.0 { -1.0 } else { 1.0 };
    let length = (a * a + b * b + c * c + d * d).sqrt() * sign;
    ([b / length, c / length, d / length], qfac)
}
