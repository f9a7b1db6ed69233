//! A header's grid as nibabel sees it, and its reorientation to RAS.
//!
//! # Source
//! nibabel 5.3, `nifti1.py` (`get_best_affine`: the sform where it has a code, else the qform, else
//! a grid around the centre) and `orientations.py` (`io_orientation`); nnU-Net 2.8.1,
//! `nibabel_reader_writer.py`.
//!
//! # Deviations
//! Sheared axes are refused, as by ITK: a labelmap could not say them in its quaternion.

use super::header::Header;
use super::orientation::{self, Form};
use crate::error::{DataError, Result};
use crate::geometry::{Affine, Geometry, Matrix, Orientation, Turn, columns, right_angled};

/// The grid of `NibabelIO`, or, turned, of `NibabelIOWithReorient`; the file's own is remembered.
pub(super) fn geometry(header: &Header, to_ras: bool, sheared: bool) -> Result<Geometry> {
    let [x, y, z] = match header.dims[..] {
        [x, y, z] => [x, y, z].map(|n| n as usize),
        _ => {
            let expected = "three dimensions, as nibabel's readers of nnU-Net take";
            return Err(DataError::BadDimensions { expected, found: header.dims.clone() });
        }
    };
    let no_slope = header.slope == 0.0 || !header.slope.is_finite();
    if no_slope && header.intercept != 0.0 {
        return Err(DataError::UnsupportedNifti {
            what: format!(
                "expected a slope beside the intercept {} (nibabel and ITK disagree without one)",
                header.intercept
            ),
        });
    }
    let affine = affine(header, [x, y, z], sheared)?;
    let file = Geometry::from_world_from_voxel([z, y, x], &affine)?;
    let turn = match to_ras {
        true => Orientation::closest(&columns(&affine)).turn_to(Orientation::RAS),
        false => Turn::NONE,
    };
    let [dx, dy, dz] = pixdim(header);
    let spacing = match turn {
        Turn::NONE => [dz, dy, dx],
        // A turned image gets its spacing from the affine, in the precision of a header.
        _ => turn.reorder(file.spacing_mm().map(|s| match header.version {
            1 => f64::from(s as f32),
            _ => s,
        })),
    };
    file.turned(turn, spacing)
}

/// Voxel sizes as nibabel mends them: not negative, and 1 for 0.
fn pixdim(header: &Header) -> [f64; 3] {
    [1, 2, 3].map(|axis| match header.pixdim[axis].abs() {
        0.0 => 1.0,
        size => size,
    })
}

fn affine(header: &Header, [x, y, z]: [usize; 3], sheared: bool) -> Result<Affine> {
    let from = |form: Form| {
        let row = |r: usize| [form.axes[r][0], form.axes[r][1], form.axes[r][2], form.origin[r]];
        [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]]
    };
    let (what, affine) = if header.sform_code > 0 {
        let [a, b, c] = header.sform;
        ("sform", [a, b, c, [0.0, 0.0, 0.0, 1.0]])
    } else if header.qform_code > 0 {
        let [dx, dy, dz] = pixdim(header);
        let mended = Header { pixdim: [header.pixdim[0], dx, dy, dz], ..header.clone() };
        ("qform", from(orientation::qform(&mended)))
    } else {
        let [dx, dy, dz] = pixdim(header);
        let centre = |n: usize, step: f64| -((n - 1) as f64 / 2.0) * step;
        let rows = [
            [-dx, 0.0, 0.0, centre(x, -dx)],
            [0.0, dy, 0.0, centre(y, dy)],
            [0.0, 0.0, dz, centre(z, dz)],
        ];
        ("pixdim", [rows[0], rows[1], rows[2], [0.0, 0.0, 0.0, 1.0]])
    };
    if affine.iter().flatten().any(|v| !v.is_finite()) {
        return Err(DataError::NonFiniteGeometry { what });
    }
    let axes = right_angled(&columns(&affine), sheared)?;
    let row = |r: usize| [axes[r][0], axes[r][1], axes[r][2], affine[r][3]];
    Ok([row(0), row(1), row(2), affine[3]])
}

/// The turn to RAS by ITK's rule: the largest entry of the direction (LPS) is placed first.
///
/// # Source
/// ITK 5.4, `itkDICOMOrientImageFilter.hxx`; SimpleITK's `DICOMOrient`.
pub(super) fn itk_turn_to_ras(direction: &Matrix) -> Result<Turn> {
    let (mut from, mut flipped) = ([0; 3], [false; 3]);
    let mut open: Vec<(usize, usize)> = (0..9).map(|i| (i / 3, i % 3)).collect();
    while !open.is_empty() {
        let size = |&(r, c): &(usize, usize)| direction[r][c].abs();
        // Of equal ones the last.
        let (row, column) = open
            .iter()
            .copied()
            .reduce(|a, b| if size(&b) >= size(&a) { b } else { a })
            .unwrap_or_default();
        from[2 - row] = 2 - column;
        // Along x and y, RAS runs against LPS.
        flipped[2 - row] = (direction[row][column] < 0.0) != (row < 2);
        open.retain(|(r, c)| *r != row && *c != column);
    }
    Turn::new(from, flipped)
}
